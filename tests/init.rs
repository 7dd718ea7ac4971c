//! `pillarbox init`, from nothing to a letter that arrives: the real program, a relay on loopback, and a person at a
//! terminal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::desktop::{Desktop, PROGRAMS};
use support::peer::here;
use support::relay::{Dialogue, Relay, Script, Tls};
use support::running::Ended;
use support::screen::Screen;

const LETTER: &[u8] = b"Subject: x\n\nhello\n";

/// A home with nothing in it but an authority's certificate, and a relay.
struct Home {
    dir: tempfile::TempDir,
    relay: Relay,
    bus: String,
}

impl Home {
    fn new(script: Script) -> Self {
        let (dir, relay) = (tempfile::tempdir().unwrap(), Relay::start(script));
        fs::write(dir.path().join("ca.pem"), &relay.identity.authority).unwrap();
        Self { dir, relay, bus: "unix:path=/nonexistent/bus".to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path(".config/pillarbox/config.toml")
    }

    fn run(&self, program: &str, words: &[&str], input: &[u8]) -> Ended {
        let mut command = std::process::Command::new(program);
        command.env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin").current_dir(self.dir.path());
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.bus);
        Ended::of(command.args(words), input)
    }

    /// `pillarbox init` with these words.
    fn init(&self, words: &[&str], password: &str) -> Ended {
        self.run(env!("CARGO_BIN_EXE_pillarbox"), &[&["init"], words].concat(), password.as_bytes())
    }

    fn port(&self) -> String {
        self.relay.address.port().to_string()
    }

    /// What is in the home beside the certificate.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(self.dir.path(), &mut files);
        let mut names: Vec<String> =
            files.iter().map(|path| path.strip_prefix(self.dir.path()).unwrap().display().to_string()).collect();
        names.retain(|name| name != "ca.pem");
        names.sort();
        names
    }
}

/// The words of somebody who knows what he wants.
fn words<'a>(port: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let own = ["--yes", "--address", "alice@example.com", "--name", "Alice \"A\" Tester", "--user", "alice"];
    let relay = ["--host", "127.0.0.1", "--port", port, "--ca-file", "ca.pem"];
    [&own[..], &relay, more].concat()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn letters(heard: &[Dialogue]) -> Vec<String> {
    let letters = heard.iter().flat_map(|dialogue| &dialogue.letters);
    letters.map(|letter| String::from_utf8(letter.content.clone()).unwrap()).collect()
}

#[test]
fn a_script_sets_up_and_the_letters_go() {
    for (tls, how) in [(Tls::Upgraded, "starttls"), (Tls::Implicit, "implicit")] {
        let home = Home::new(Script::default().tls(tls));
        let port = home.port();
        let done = home.init(&words(&port, &["--tls", how, "--password-stdin"]), "s3cret\n");
        assert_eq!((done.status, &*done.stderr), (0, ""), "{done:?}");
        let (config, password) = (home.config(), home.path(".config/pillarbox/mail.password"));
        for part in [
            "The password goes into a file: the keyring is ",
            &format!("  server      127.0.0.1:{port} ("),
            "  user        alice\n",
            &format!("  password    in {}\n", password.display()),
            "  from        Alice \"A\" Tester <alice@example.com>\n",
            &format!("127.0.0.1:{port} has taken the password.\nWritten: {}\n", config.display()),
            &format!("Sent: <alice@example.com> relayed by 127.0.0.1:{port} (account mail): 250 "),
        ] {
            assert!(done.stdout.contains(part), "no {part:?} in {}", done.stdout);
        }
        assert!(!done.stdout.contains("s3cret"));
        let text = fs::read_to_string(&config).unwrap();
        let expected = format!(
            "# Made by pillarbox init. All that can stand here: man pillarbox.toml\n\ndefault = \"mail\"\n\n\
             [account.mail]\n\
             host = \"127.0.0.1\"\nport = {port}\ntls = \"{how}\"\nca_file = \"{}\"\nuser = \"alice\"\n\
             password = {{ file = \"{}\" }}\nfrom = \"alice@example.com\"\nfrom_name = \"Alice \\\"A\\\" Tester\"\n\n\
             # Mail to people of this machine, as cron sends it.\n[aliases]\nroot = \"alice@example.com\"\n",
            home.path("ca.pem").display(),
            password.display()
        );
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(home.files(), [".config/pillarbox/config.toml", ".config/pillarbox/mail.password"]);
        assert_eq!([&config, &password, &home.path(".config/pillarbox")].map(|path| mode(path)), [0o600, 0o600, 0o700]);
        assert_eq!(fs::read_to_string(&password).unwrap(), "s3cret\n");

        // Whoever watches waits for the relay's answer.
        let sent = home.run(env!("CARGO_BIN_EXE_sendmail"), &["-v", "root"], LETTER);
        assert_eq!(sent.status, 0, "{sent:?}");
        let letters = letters(&home.relay.finish());
        assert_eq!(letters.len(), 2);
        assert!(letters[0].contains("Subject: Pillarbox on ") && letters[0].contains(" can send\r\n"), "{letters:?}");
        assert!(letters[0].contains("From: \"Alice \\\"A\\\" Tester\" <alice@example.com>\r\n"), "{letters:?}");
        assert!(letters[1].contains("From: \"Alice \\\"A\\\" Tester\" <alice@example.com>\r\n"), "{letters:?}");
    }
}

/// How the relay is, which words and what password are given, the status, and what is said.
type Row<'a> = (Script, &'a [&'a str], &'a str, i32, &'a [&'a str]);

#[test]
fn what_does_not_work_leaves_nothing_behind_and_says_what_next() {
    let refusing = || Script::default().on("AUTH", "535 5.7.8 no\x1b such password");
    let rows: &[Row<'_>] = &[
        (
            refusing(),
            &["--password-stdin"],
            "wrong\n",
            77,
            &["said \"535 5.7.8 no\\x1b such password\" after AUTH", "--user"],
        ),
        (Script::default().mechanisms("GSSAPI"), &["--password-stdin"], "s3cret", 69, &["GSSAPI"]),
        (Script::default().tls(Tls::Off), &["--password-stdin"], "s3cret", 69, &["STARTTLS"]),
        (Script::default(), &["--password-stdin"], "", 75, &["no password was given"]),
        (Script::default(), &["--password-stdin"], "\n", 65, &["empty password"]),
        (
            Script::default(),
            &["--password-file", "ca.pem"],
            "",
            65,
            &["--password-file: ", "is not private; chmod 600"],
        ),
        (
            Script::default(),
            &[],
            "",
            64,
            &["there is no password: give --password-stdin or --password-file, or --no-auth"],
        ),
        (Script::default(), &["--account", "a\u{1}b", "--password-stdin"], "s3cret", 64, &["control character"]),
    ];
    for (script, more, password, status, why) in rows {
        let home = Home::new(script.clone());
        let port = home.port();
        let failed = home.init(&words(&port, more), password);
        failed.says(*status, why);
        assert!(!failed.stderr.contains("s3cret"), "{failed:?}");
        assert_eq!(home.files(), [""; 0], "{failed:?}");
    }
    // A certificate that nobody has signed whom the system knows.
    let home = Home::new(Script::default());
    let port = home.port();
    let mut trusting = words(&port, &["--password-stdin"]);
    trusting.retain(|word| !["--ca-file", "ca.pem"].contains(word));
    home.init(&trusting, "s3cret").says(69, &["no authority known to this machine has signed", "nothing was written"]);
    assert!(home.files().is_empty() && home.relay.finish().iter().all(|dialogue| dialogue.logins.is_empty()));
}

#[test]
fn a_place_that_cannot_be_written_keeps_no_password() {
    let home = Home::new(Script::default());
    let port = home.port();
    fs::write(home.path(".config"), "in the way").unwrap();
    let failed = home.init(&words(&port, &["--password-stdin"]), "s3cret");
    failed.says(73, &["cannot make ", "nothing was changed"]);
    assert_eq!(home.files(), [".config"]);
    // A directory stands where the file should be, and cannot be kept under another name.
    fs::remove_file(home.path(".config")).unwrap();
    fs::create_dir_all(home.config().join("in-the-way")).unwrap();
    let failed = home.init(&words(&port, &["--password-stdin", "--force"]), "s3cret");
    failed.says(73, &["cannot write ", "nothing was changed"]);
    assert!(home.files().is_empty(), "{:?}", home.files());
}

#[test]
fn what_is_there_is_replaced_only_by_force_and_kept() {
    let home = Home::new(Script::default());
    let port = home.port();
    home.init(&words(&port, &["--password-stdin", "--no-test"]), "first").says(0, &[]);
    let before = fs::read_to_string(home.config()).unwrap();
    let again = home.init(&words(&port, &["--password-stdin"]), "s3cret");
    again
        .says(73, &[&format!("{} is there already, and stays as it is; --force replaces it", home.config().display())]);
    assert_eq!(fs::read_to_string(home.config()).unwrap(), before);
    // A file with that name may be somebody else's.
    fs::remove_file(home.config()).unwrap();
    let again = home.init(&words(&port, &["--password-stdin"]), "s3cret");
    again.says(73, &["mail.password is there already; --force replaces it"]);
    fs::write(home.config(), "# mine\n").unwrap();
    let forced = home.init(&words(&port, &["--password-stdin", "--force"]), "s3cret");
    assert_eq!(forced.status, 0, "{forced:?}");
    assert!(forced.stdout.contains(&format!("Kept: {}.old\n", home.config().display())), "{forced:?}");
    assert_eq!(fs::read_to_string(home.path(".config/pillarbox/config.toml.old")).unwrap(), "# mine\n");
    assert_eq!(fs::read_to_string(home.path(".config/pillarbox/mail.password")).unwrap(), "s3cret\n");
    assert_eq!(letters(&home.relay.finish()).len(), 1, "--no-test has sent nothing");
}

#[test]
fn a_relay_that_refuses_the_test_letter_is_told_and_the_configuration_stays() {
    let home = Home::new(Script::default().on("RCPT", "550 5.1.1 no such mailbox"));
    let port = home.port();
    let done = home.init(&words(&port, &["--password-stdin"]), "s3cret");
    done.says(
        67,
        &["the configuration is written, but the test letter did not go: <alice@example.com> refused", "550 5.1.1"],
    );
    assert!(home.config().exists());
}

#[test]
fn a_relay_without_passwords_needs_none() {
    let mut script = Script::default().tls(Tls::Off);
    script.login = None;
    let home = Home::new(script);
    // The port may stand with the host.
    let host = format!("127.0.0.1:{}", home.port());
    let given = ["--yes", "--address", "alice@example.com", "--host", &host, "--tls", "none", "--no-auth"];
    let done = home.init(&given, "");
    assert_eq!((done.status, &*done.stderr), (0, ""), "{done:?}");
    assert!(done.stdout.contains(&format!("  server      {host} (no TLS)\n")), "{done:?}");
    assert!(done.stdout.contains("Sent: <alice@example.com> relayed by"), "{done:?}");
    assert!(fs::read_to_string(home.config()).unwrap().contains("\nauth = \"off\"\n"));
}

#[test]
fn what_is_missing_or_cannot_be_is_named() {
    let home = Home::new(Script::default());
    let at = |address| ["--address", address, "--password-stdin"];
    for (given, status, why) in [
        (&["--yes"][..], 64, "nobody is here to be asked: give --address"),
        (&at("alice"), 64, "\"alice\" has no domain; nothing was written"),
        (&at("alice@exa mple.org"), 64, "\"alice@exa mple.org\" "),
        (&at("alice@outlook.com"), 69, "Outlook.com takes access tokens and no passwords"),
        (&at("alice@tuta.com"), 68, "no mail server was found: your provider names it"),
        // Nobody resolves this name, and without a name server that is told as well.
        (&at("alice@nowhere.invalid"), 68, "give it with --host"),
    ] {
        home.init(given, "s3cret").says(status, &[why]);
        assert!(home.files().is_empty());
    }
    let guessed = home.init(&at("alice@nowhere.invalid"), "s3cret");
    assert!(guessed.stdout.contains("Looking for the mail server of nowhere.invalid ...\n"), "{guessed:?}");
    // A provider that is known says what it wants; that nobody logs in there is this test's peace.
    let gmail = home.init(&["--address", "alice@gmail.com", "--yes", "--no-test", "--password-stdin"], "s3cret");
    assert_eq!(gmail.status, 0, "{gmail:?}");
    assert!(gmail.stdout.contains("gmail.com is Gmail: smtp.gmail.com:465 (TLS).\n"), "{gmail:?}");
    assert!(
        gmail.stdout.contains("Gmail takes a password made for this program alone. It is made at https://"),
        "{gmail:?}"
    );
    assert_eq!(home.relay.connections(), 0);
}

#[test]
fn sendmail_without_a_configuration_names_the_two_ways_out() {
    let home = Home::new(Script::default());
    if Path::new("/etc/pillarbox/config.toml").exists() || Path::new("/etc/msmtprc").exists() {
        return; // This machine has one.
    }
    let sent = home.run(env!("CARGO_BIN_EXE_sendmail"), &["bob@example.org"], LETTER);
    let place = home.config().display().to_string();
    sent.says(78, &["there is no configuration. Run pillarbox init", "or write ", &place, "nothing was sent"]);
}

#[test]
fn the_keyring_is_used_where_there_is_one() {
    if !cfg!(feature = "keyring") || !here(&[&PROGRAMS[..], &["secret-tool"]].concat()) {
        return;
    }
    let desktop = Desktop::with_keyring();
    let mut home = Home::new(Script::default());
    home.bus = desktop.address();
    let port = home.port();
    let done = home.init(&words(&port, &["--password-stdin"]), "s3cret");
    assert_eq!((done.status, &*done.stderr), (0, ""), "{done:?}");
    assert!(done.stdout.contains("  password    in the keyring\n"), "{done:?}");
    assert!(fs::read_to_string(home.config()).unwrap().contains("\npassword = { keyring = true }\n"));
    assert_eq!(desktop.lookup("smtp://127.0.0.1", "alice"), "s3cret");
    assert_eq!(home.files(), [".config/pillarbox/config.toml"]);
    assert_eq!(letters(&home.relay.finish()).len(), 1);
}

/// Shown by `man`, and what people copy.
#[test]
fn the_manuals_examples_do_what_they_say() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/pillarbox.1")).unwrap();
    let home = Home::new(Script::default());
    let example = page.split("pass show mail | ").nth(1).unwrap().split(".Ed").next().unwrap().replace("\\e\n", "\\\n");
    let (port, pillarbox) = (home.port(), env!("CARGO_BIN_EXE_pillarbox"));
    let line = format!("echo s3cret | {example}")
        .replace("pillarbox", pillarbox)
        .replace("smtp.example.com", &format!("127.0.0.1 --port {port} --ca-file ca.pem"))
        .replace("AKIA0123456789", "alice");
    let done = home.run("/bin/sh", &["-c", &line], b"");
    assert_eq!((done.status, &*done.stderr), (0, ""), "{line}: {done:?}");
    let again = page.split("pass show mail/work | ").nth(1).unwrap().lines().next().unwrap();
    let line = format!("echo other | {again}").replace("pillarbox", pillarbox).replace("login work", "login mail");
    let done = home.run("/bin/sh", &["-c", &line], b"");
    assert_eq!((done.status, &*done.stderr), (0, ""), "{line}: {done:?}");
    assert_eq!(fs::read_to_string(home.path(".config/pillarbox/mail.password")).unwrap(), "other\n");
    assert_eq!(letters(&home.relay.finish()).len(), 1);
}

/// Below `/etc`, of which the test has a copy of its own.
#[test]
fn a_whole_machine_is_set_up_for_its_service() {
    if !here(&["root", "unshare"]) {
        return;
    }
    let home = Home::new(Script::default());
    let (port, etc) = (home.port(), home.path("etc"));
    let script =
        "cp -a /etc $HOME/etc && rm -rf $HOME/etc/pillarbox && mount --bind $HOME/etc /etc && umask 077 && exec \"$@\"";
    let before =
        ["-m", "--propagation", "private", "/bin/sh", "-c", script, "sh", env!("CARGO_BIN_EXE_pillarbox"), "init"];
    let all = [&before[..], &words(&port, &["--system", "--password-stdin"])].concat();
    let done = home.run("/usr/bin/unshare", &all, b"s3cret\n");
    assert_eq!((done.status, &*done.stderr), (0, ""), "{done:?}");
    for part in ["LoadCredential=password:/etc/pillarbox/password", "systemctl enable --now pillarbox.socket", "Sent: "]
    {
        assert!(done.stdout.contains(part), "no {part:?} in {done:?}");
    }
    let text = fs::read_to_string(etc.join("pillarbox/config.toml")).unwrap();
    assert!(
        text.contains("\npassword = { credential = \"password\" }\n")
            && text.ends_with("[aliases]\nroot = \"alice@example.com\"\n")
    );
    assert_eq!(fs::read_to_string(etc.join("pillarbox/password")).unwrap(), "s3cret\n");
    let modes = ["pillarbox", "pillarbox/config.toml", "pillarbox/password"].map(|name| mode(&etc.join(name)));
    assert_eq!(modes, [0o755, 0o644, 0o600]);
    assert!(!home.path(".config").exists());
    assert_eq!(letters(&home.relay.finish()).len(), 1);
}

#[test]
fn a_person_is_asked_and_the_password_is_not_shown() {
    if !here(&["tmux"]) {
        return;
    }
    let home = Home::new(Script::default());
    let (dir, port) = (home.dir.path().display().to_string(), home.port());
    let line = format!(
        "cd {dir}; HOME={dir} DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent {} init --host 127.0.0.1 --port {port} \
         --ca-file ca.pem",
        env!("CARGO_BIN_EXE_pillarbox")
    );
    let screen = Screen::run(&line);
    screen.wait_for("Your mail address:");
    screen.type_line("alice");
    screen.wait_for("\"alice\" has no domain");
    screen.type_line("alice@example.com");
    screen.wait_for("User name [alice@example.com]:");
    screen.type_line("alice");
    screen.wait_for("Password of alice:");
    screen.type_line("guessed");
    // What is typed before the question stands there is thrown away.
    screen.wait_for("after AUTH. Once more:\nPassword of alice:");
    screen.type_line("s3cret");
    screen.wait_for("Send a test letter to alice@example.com? [Y/n]");
    screen.press("Enter");
    let shown = screen.wait_for("(ended 0)");
    assert!(!shown.contains("guessed") && !shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("Sent: <alice@example.com> relayed by 127.0.0.1:"), "{shown}");
    assert!(!screen.wait_for("isig").contains("-echo"));
    assert_eq!(fs::read_to_string(home.path(".config/pillarbox/mail.password")).unwrap(), "s3cret\n");

    // Whoever changes his mind has changed nothing.
    let home = Home::new(Script::default());
    let screen = Screen::run(&line.replace(&dir, &home.dir.path().display().to_string()));
    screen.wait_for("Your mail address:");
    screen.type_line("alice@example.com");
    screen.wait_for("User name");
    screen.press("C-d");
    screen.wait_for("given up; nothing was written");
    screen.wait_for("(ended 75)");
    assert!(home.files().is_empty());
}
