//! What is imported reads back as it was meant, whoever wrote it; `tests/import` has whole files of each program.

use super::*;
use crate::config::import::emit::emit;
use proptest::prelude::*;

#[test]
fn a_nexthop_is_a_host_and_perhaps_a_port() {
    for (text, want) in [
        ("smtp.example.com", ("smtp.example.com", None)),
        ("smtp.example.com:587", ("smtp.example.com", Some("587"))),
        ("[smtp.example.com]:submission", ("[smtp.example.com]", Some("submission"))),
        ("[2001:db8::1]", ("[2001:db8::1]", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
    ] {
        assert_eq!(host_and_port(text), want, "{text}");
    }
}

#[test]
fn a_files_name_says_whose_it_is() {
    for (path, want) in [
        ("/etc/ssmtp/ssmtp.conf", Some(Program::Ssmtp)),
        ("/etc/nullmailer", Some(Program::Nullmailer)),
        ("remotes", Some(Program::Nullmailer)),
        ("main.cf", Some(Program::Postfix)),
        ("/home/a/.msmtprc", Some(Program::Msmtp)),
        ("/home/a/.config/msmtp/config", Some(Program::Msmtp)),
        ("/home/a/.mailrc", Some(Program::Mailrc)),
        ("/home/a/config", None),
    ] {
        assert_eq!(Program::of(Path::new(path)), want, "{path}");
    }
}

/// Imports a file of that text.
fn imported(program: Program, text: &str) -> Result<Imported, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, text).unwrap();
    read(program, &file, &[], &Surroundings::default())
}

#[test]
fn no_secret_and_no_line_of_a_stranger_stands_in_what_is_written() {
    let text =
        "mailhub=relay.example\nUseTLS=YES\nAuthUser=u\nAuthPass=s3cret\n[account.evil]=x\nOdd [account.evil]=x\n";
    let written = emit(&imported(Program::Ssmtp, text).unwrap(), Path::new("/etc/pillarbox/config.toml")).unwrap();
    assert!(!written.toml.contains("s3cret") && !written.toml.contains("\n[account.evil]"));
    assert_eq!(written.secrets.len(), 1);
    assert_eq!(written.secrets[0].1.as_str(), "s3cret");
    let error = imported(Program::Ssmtp, "# \u{1b}\nmailhub=h\nAuthUser=a\rb\n").unwrap_err();
    assert!(error.ends_with("cannot be read: line 3 has a control character in it"), "{error}");
}

/// A file's name, and how its lines begin.
type Begins = (&'static str, &'static [&'static str]);

/// The files of each program's configuration, the first being the one that is named.
const FILES: [(Program, &[Begins]); 6] = [
    (
        Program::Msmtp,
        &[(".msmtprc", &["host ", "user ", "password ", "account ", "from ", "tls ", "eval echo ", "port ", "x "])],
    ),
    (
        Program::Mailrc,
        &[(".mailrc", &["set mta=smtp://", "set from=", "set password=", "account ", "}", "set v15-compat", "set x-"])],
    ),
    (
        Program::Ssmtp,
        &[
            (
                "ssmtp.conf",
                &[
                    "mailhub=",
                    "AuthUser=",
                    "AuthPass=",
                    "root=",
                    "hostname=",
                    "UseTLS=",
                    "TLSCert=",
                    "RewriteDomain=",
                    "x=",
                ],
            ),
            ("revaliases", &["", "root:", "root:a@b.example:", "ä:a@b.example:", "relay:c@b.example:", ":"]),
        ],
    ),
    (
        Program::Nullmailer,
        &[
            (
                "remotes",
                &["smtp.example.com smtp --user=", "h smtp --pass=", "h smtp --port=", "smtp.example.com ", ""],
            ),
            ("me", &[""]),
            ("adminaddr", &["", "a@b.example,"]),
            ("allmailfrom", &[""]),
            ("queuelifetime", &["", "600"]),
        ],
    ),
    (
        Program::Dma,
        &[
            (
                "dma.conf",
                &[
                    "SMARTHOST ",
                    "PORT ",
                    "MASQUERADE ",
                    "MASQUERADE a@",
                    "MAILNAME ",
                    "FINGERPRINT ",
                    "AUTHPATH ",
                    "SECURETRANSFER",
                ],
            ),
            ("auth.conf", &["u|h:", "a|smtp.example.com:", ""]),
        ],
    ),
    (
        Program::Postfix,
        &[
            (
                "main.cf",
                &[
                    "relayhost = ",
                    "myorigin = ",
                    "smtp_fallback_relay = ",
                    "smtp_sasl_auth_enable = yes",
                    "smtp_sasl_password_maps = static:",
                    "smtp_sasl_password_maps = hash:DIR/table",
                    "sender_dependent_relayhost_maps = hash:DIR/table",
                    "smtp_sender_dependent_authentication = yes",
                    "smtp_generic_maps = hash:DIR/table",
                    "maximal_queue_lifetime = ",
                    " ",
                ],
            ),
            (
                "table",
                &[
                    "a@b.example h",
                    "a@b.example c@d.example",
                    "@b.example [h]:",
                    "relay h",
                    "fallback u:p",
                    "h u:",
                    "x ",
                ],
            ),
        ],
    ),
];

/// What stands behind the beginning of a line.
const ENDS: [&str; 20] = [
    "",
    "a",
    "ä",
    "0",
    "25",
    "root",
    "relay",
    "fallback",
    "a@b.example",
    "@b.example",
    "h",
    "smtp.example.com",
    "[h]:587",
    "u:p",
    "\"a b\"",
    "\\",
    "#x",
    "\u{1b}",
    "a\tb ",
    "a, b",
];

/// For each of a configuration's files the numbers of a beginning and an end a line.
fn texts() -> impl Strategy<Value = (usize, Vec<Vec<(usize, usize)>>)> {
    let line = (0_usize..16, 0..ENDS.len());
    (0..FILES.len(), proptest::collection::vec(proptest::collection::vec(line, 0..7), 5))
}

#[test]
fn of_two_entries_for_one_name_the_one_stays_that_the_program_went_by() {
    let text = "mailhub=h\nroot=a@x.example\nroot=b@x.example\n";
    let imported = imported(Program::Ssmtp, text).unwrap();
    assert_eq!(imported.settings.names.aliases, [("root".to_owned(), "b@x.example".to_owned())]);
    assert!(imported.notes.iter().any(|note| note.line == 3 && note.text.contains("root stands there twice")));
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("generic");
    std::fs::write(&table, "a@h one@x.example\na@h two@x.example\n").unwrap();
    std::fs::write(
        dir.path().join("main.cf"),
        format!("relayhost = [h]\nsmtp_generic_maps = hash:{}\n", table.display()),
    )
    .unwrap();
    let imported = read(Program::Postfix, &dir.path().join("main.cf"), &[], &Surroundings::default()).unwrap();
    assert_eq!(imported.settings.names.masquerade, [("a@h".to_owned(), "one@x.example".to_owned())]);
}

#[test]
fn two_relays_of_a_user_are_two_accounts_with_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ssmtp.conf");
    std::fs::write(&file, "mailhub=h\n").unwrap();
    std::fs::write(dir.path().join("revaliases"), "relay:a@x.example:other\nu:b@x.example:p\nu:c@x.example:q\n")
        .unwrap();
    let imported = read(Program::Ssmtp, &file, &[], &Surroundings::default()).unwrap();
    let names: Vec<_> = imported.settings.accounts.iter().map(|account| account.name.as_str()).collect();
    assert_eq!(names, ["relay", "relay-2", "u"]);
    assert_eq!(imported.settings.accounts[2].hosts, [Host::Tcp { name: "q".into(), port: 25 }]);
}

/// The text of numbered lines, as many as a file may have.
fn many(line: impl Fn(usize) -> String) -> String {
    let mut room = (1 << 20) - 100;
    let fits = |line: &String| {
        room -= i64::try_from(line.len()).unwrap();
        room >= 0
    };
    (0..).map(line).take_while(fits).collect()
}

/// In time that grows with the square of the lines each of these would take minutes.
#[test]
fn a_file_of_many_lines_is_read_in_one_pass() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let junk = many(|n| format!("Odd{n} x\n"));
    let dma = file("dma.conf", &junk.replacen("Odd0", "SMARTHOST", 1));
    let imported = read(Program::Dma, &dma, &[], &Surroundings::default()).unwrap();
    assert_eq!(imported.notes.len(), junk.lines().count() - 1);
    assert!(emit(&imported, Path::new("/etc/pillarbox/config.toml")).is_ok());

    let pairs = many(|n| format!("u{n}@h a@b\n"));
    let generic = file("generic", &pairs);
    let main = file("main.cf", &format!("relayhost = [h]\nsmtp_generic_maps = hash:{}\n", generic.display()));
    let imported = read(Program::Postfix, &main, &[], &Surroundings::default()).unwrap();
    assert_eq!(imported.settings.names.masquerade.len(), pairs.lines().count());

    let relays = file("sender", &many(|n| format!("u{n}@h [h]\n")));
    let main = format!("relayhost = [h]\nsender_dependent_relayhost_maps = hash:{}\n", relays.display());
    let ssmtp = file("ssmtp.conf", "mailhub=h\n");
    file("revaliases", &many(|n| format!("u{}:a@b:h{n}\n", n % 1000)));
    for (program, path) in [
        (Program::Postfix, file("main.cf", &main)),
        (Program::Ssmtp, ssmtp),
        (Program::Nullmailer, file("remotes", &many(|n| format!("h{n}\n")))),
    ] {
        let error = read(program, &path, &[], &Surroundings::default()).unwrap_err();
        assert!(error.ends_with("makes more than 256 accounts, which is the most there can be"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_is_read_is_written_as_it_was_meant((which, texts) in texts()) {
        let (program, files) = FILES[which];
        let dir = tempfile::tempdir()?;
        let mut told = String::new();
        for ((name, begins), lines) in files.iter().zip(&texts) {
            let lines = lines.iter().map(|&(begin, end)| format!("{}{}\n", begins[begin % begins.len()], ENDS[end]));
            let text = lines.collect::<String>().replace("DIR", &dir.path().display().to_string());
            std::fs::write(dir.path().join(name), &text)?;
            told.extend([name, ":\n", &text]);
        }
        if let Ok(imported) = read(program, &dir.path().join(files[0].0), &[], &Surroundings::default()) {
            let written = emit(&imported, Path::new("/home/a/.config/pillarbox/config.toml"));
            prop_assert!(written.is_ok(), "{told}\n{written:?}");
        }
    }
}
