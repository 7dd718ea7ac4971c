//! `pillarbox import`: a directory a case below `tests/import`, with another program's files, what is printed
//! (`expected.toml`) and the passwords that are put into files (`expected.passwords`, where there are any).

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::relay::{Relay, Script};
use support::running::Ended;
use support::sendmail::sendmail;

/// The first of these in a case is imported; all else is a file that it leads to.
const FIRST: [&str; 6] = ["ssmtp.conf", "remotes", "dma.conf", "main.cf", "msmtprc", "mailrc"];

/// Where the configurations of the cases are said to be put.
const PLACE: &str = "/etc/pillarbox";

/// The files of a case as they are named on the command line: what lies beside the first is found without being named.
fn files(case: &Path) -> Vec<String> {
    let there = |name: &&str| case.join(name).exists();
    let first = FIRST.iter().copied().find(there).unwrap();
    let beside = ["sasl_passwd", "generic", "relays", "auth.conf"].into_iter().filter(there);
    [first].into_iter().chain(beside).map(str::to_owned).collect()
}

fn pillarbox(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).current_dir(home);
    command
}

fn login() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).unwrap().map_or_else(|| format!("uid{uid}"), |user| user.name)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn every_case_is_imported_as_it_is_written_down() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let cases: Vec<PathBuf> = fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(cases.len() >= 10);
    let mut wrong = Vec::new();
    for case in cases {
        let home = tempfile::tempdir().unwrap();
        let place = format!("{PLACE}/config.toml");
        let printed = Ended::of(
            pillarbox(home.path()).current_dir(&case).args(["import", "--to", &place]).args(files(&case)),
            b"",
        );
        assert_eq!((printed.status, &*printed.stderr), (0, ""), "{}", case.display());
        let got = printed.stdout.replace(&format!("\"{}@lists.", login()), "\"LOGIN@lists.");
        if fs::read_to_string(case.join("expected.toml")).unwrap_or_default() != got {
            wrong.push(format!("{}:\n{got}", case.display()));
            continue;
        }

        let place = home.path().join("new/config.toml");
        let put = Ended::of(
            pillarbox(home.path())
                .current_dir(&case)
                .args(["import", "--write", "--to"])
                .arg(&place)
                .args(files(&case)),
            b"",
        );
        assert_eq!((put.status, &*put.stdout), (0, ""), "{put:?}");
        let dir = place.parent().unwrap();
        let text = fs::read_to_string(&place).unwrap();
        assert_eq!(text, printed.stdout.replace(PLACE, dir.to_str().unwrap()), "{}", case.display());
        assert_eq!((mode(&place), mode(dir)), (0o600, 0o700));
        let mut passwords = String::new();
        let mut names: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names.iter().filter(|path| **path != place) {
            assert_eq!(mode(path), 0o600);
            let name = path.file_name().unwrap().to_str().unwrap();
            write!(passwords, "{name}: {}", fs::read_to_string(path).unwrap()).unwrap();
        }
        let want = fs::read_to_string(case.join("expected.passwords")).unwrap_or_default();
        if passwords != want {
            wrong.push(format!("{}: {passwords}", case.display()));
        }
        // It is a configuration of ours.
        let mut queue = pillarbox(home.path());
        queue.env("PILLARBOX_CONFIG", &place).args(["queue", "list"]);
        let list = Ended::of(&mut queue, b"");
        assert_eq!((list.status, &*list.stderr), (0, ""), "{}: {list:?}", case.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_was_imported_sends_mail_as_before() {
    let relay = Relay::start(Script::default());
    let home = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    put("ca.pem", &relay.identity.authority);
    put(
        "ssmtp.conf",
        &format!(
            "root=ops@example.org\nmailhub={}\nRewriteDomain=example.com\nUseSTARTTLS=YES\nAuthUser=alice\n\
             AuthPass=s3cret\n\
             TLS_CA_File={}/ca.pem\n",
            relay.address,
            home.path().display()
        ),
    );
    put("revaliases", &format!("{}:alice@example.net\n", login()));
    let mut import = pillarbox(home.path());
    let ended = Ended::of(import.args(["import", "--write", "ssmtp.conf"]), b"");
    assert_eq!(ended.status, 0, "{ended:?}");
    let mut send = Command::new(sendmail());
    send.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin").arg("root");
    Ended::of(&mut send, b"Subject: x\n\nhi\n").silent_success();
    let dialogues = relay.finish();
    let dialogue = dialogues.iter().find(|dialogue| !dialogue.letters.is_empty()).unwrap();
    assert_eq!(dialogue.logins[0].1, "alice");
    let letter = &dialogue.letters[0];
    assert!(letter.mail.starts_with("MAIL FROM:<alice@example.net>"), "{}", letter.mail);
    assert!(letter.recipients[0].starts_with("RCPT TO:<ops@example.org>"), "{:?}", letter.recipients);
}

#[test]
fn nothing_is_overwritten_unless_it_is_said() {
    let home = tempfile::tempdir().unwrap();
    let rc = home.path().join(".msmtprc");
    fs::write(&rc, "host smtp.example.com\nauth on\ntls on\nuser alice\npassword s3cret\n").unwrap();
    let import = |words: &[&str]| Ended::of(pillarbox(home.path()).arg("import").args(words), b"");
    // Nobody named a file: the caller's own goes first.
    let first = import(&["--write"]);
    assert_eq!(first.status, 0, "{first:?}");
    assert!(first.stderr.contains(&format!("importing {}", rc.display())), "{first:?}");
    let config = home.path().join(".config/pillarbox/config.toml");
    let before = fs::read_to_string(&config).unwrap();
    assert!(before.contains("host = \"smtp.example.com\"") && !before.contains("s3cret"));
    fs::write(&rc, "host other.example.com\n").unwrap();
    import(&["--write", rc.to_str().unwrap()]).says(73, &["config.toml is there already", "--force"]);
    assert_eq!(fs::read_to_string(&config).unwrap(), before);
    assert_eq!(import(&["--write", "--force", rc.to_str().unwrap()]).status, 0);
    assert!(fs::read_to_string(&config).unwrap().contains("host = \"other.example.com\""));
    // What a package brings has comments only, and a group that may read it.
    fs::write(&config, "# Fill this in.\n\n  #[account.relay]\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(import(&["--write", rc.to_str().unwrap()]).status, 0);
    assert!(fs::read_to_string(&config).unwrap().contains("host = \"other.example.com\""));
    assert_eq!(mode(&config), 0o640);
    // A password's file is nobody's to overwrite either, and then nothing is written.
    fs::remove_file(&config).unwrap();
    fs::write(&rc, "host smtp.example.com\nauth on\ntls on\nuser alice\npassword s3cret\n").unwrap();
    import(&["--write", rc.to_str().unwrap()]).says(73, &["default.password is there already"]);
    assert!(!config.exists());
}

#[test]
fn what_cannot_be_imported_is_told() {
    let home = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
    put("main.cf", "myhostname = x\n");
    put("dma.conf", "# nothing\n");
    put("remotes", "h qmqp\n");
    put("msmtprc", "host smtp.example.com\nfrobnicate on\n");
    put("mailrc", "set sort=thread\n");
    put("other", "mailhub=smtp.example.com\n");
    for (words, status, says) in [
        (&["main.cf"][..], 78, "names no relayhost"),
        (&["dma.conf"], 78, "names no SMARTHOST"),
        (&["remotes"], 78, "names no relay that is reached by SMTP"),
        (&["msmtprc"], 78, "msmtprc:2:1: there is no keyword \"frobnicate\""),
        (&["mailrc"], 78, "sets no mta=smtp://"),
        (&["other"], 64, "add --from"),
        (&["no-such-file", "--from", "ssmtp"], 66, "No such file"),
        (&["--from", "ssmtp", "other", "mailrc"], 78, "one configuration is imported at a time"),
        (&["--from", "sendmail"], 64, "possible values"),
    ] {
        let ended = Ended::of(pillarbox(home.path()).arg("import").args(words), b"");
        ended.says(status, &[says]);
        assert_eq!(ended.stdout, "");
    }
    let ended = Ended::of(pillarbox(home.path()).args(["import", "--from", "ssmtp", "other"]), b"");
    assert!(
        ended.status == 0
            && ended.stdout.contains("[account.relay]\nhost = \"smtp.example.com\"\nport = 25\ntls = \"none\"\n")
    );
}
