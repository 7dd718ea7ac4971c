//! What msmtp does with a letter, and what we do with it: the same, or better and why.
//!
//! A row is a configuration, a call and a relay in; a status and what came to the relay out. With
//! `SENDMAIL_UNDER_TEST` set to the path of another msmtp the same rows run against that one: a row that says how msmtp
//! differs must find it so, and goes red when it does not.

#![allow(clippy::unwrap_used)]

mod support;

use support::relay::{DOT, GREETING, Relay, Script, Tls};
use support::sendmail::Sendmail;

/// What a caller and a relay see.
#[derive(Debug, PartialEq)]
struct Seen {
    status: i32,
    /// Sender and recipients of the letter that came.
    envelope: Option<String>,
    /// Whether that letter had what it should have.
    is_right: bool,
}

/// How msmtp differs.
struct Differs {
    status: i32,
    envelope: Option<&'static str>,
    is_right: bool,
    why: &'static str,
}

struct Row {
    name: &'static str,
    rc: &'static str,
    words: &'static [&'static str],
    input: String,
    script: Script,
    status: i32,
    envelope: Option<&'static str>,
    /// What must be in the letter, and after a `!`, what must not.
    letter: &'static [&'static str],
    differs: Option<Differs>,
}

const ONE: Option<&str> = Some("me@x.test -> a@y.test");

/// A row in which a small letter goes to `a@y.test`.
fn row(name: &'static str) -> Row {
    Row {
        name,
        rc: "",
        words: &["a@y.test"],
        input: "Subject: x\n\nhello\n".to_owned(),
        script: Script::open(),
        status: 0,
        envelope: ONE,
        letter: &["\r\n\r\nhello\r\n"],
        differs: None,
    }
}

/// msmtp ends with that status, and nobody gets the letter.
fn lost(status: i32, why: &'static str) -> Differs {
    Differs { status, envelope: None, is_right: false, why }
}

/// msmtp sends it, and not as it should be.
fn spoilt(envelope: &'static str, why: &'static str) -> Differs {
    Differs { status: 0, envelope: Some(envelope), is_right: false, why }
}

#[allow(clippy::too_many_lines)] // it is a table
fn rows() -> Vec<Row> {
    let text = |text: &str| text.to_owned();
    let many = "x".repeat(70) + "\n";
    let no_queue = "queue off\n";
    vec![
        row("a letter"),
        Row { words: &["\"Joe\" <a@y.test>"], ..row("a name before the address") },
        Row { words: &["-oi", "-oem", "-FCronDaemon", "-B8BITMIME", "a@y.test"], ..row("as cron calls it") },
        Row { words: &["-f", "me@x.test", "-i", "--", "a@y.test"], ..row("with a sender") },
        Row { words: &["-f", "<>", "a@y.test"], envelope: Some(" -> a@y.test"), ..row("with the null sender") },
        Row {
            words: &["--read-envelope-from", "-t"],
            input: text("From: Joe <joe@z.test>\nTo: a@y.test\nBcc: b@y.test\n\nhello\n"),
            envelope: Some("joe@z.test -> a@y.test b@y.test"),
            letter: &["hello", "!b@y.test"],
            ..row("sender and recipients from the header")
        },
        Row {
            words: &["-t", "c@y.test"],
            input: text("To: a@y.test\nCc: b@y.test\n\nhello\n"),
            envelope: Some("me@x.test -> a@y.test b@y.test c@y.test"),
            ..row("arguments are added to -t")
        },
        Row {
            words: &["--account=other", "a@y.test"],
            envelope: Some("other@x.test -> a@y.test"),
            ..row("an account by name")
        },
        Row {
            words: &["-f", "other+detail@x.test", "a@y.test"],
            envelope: Some("other+detail@x.test -> a@y.test"),
            letter: &["other+detail@x.test"],
            ..row("an account by the sender, its detail apart")
        },
        Row { rc: "allow_from_override off\n", words: &["-f", "root", "a@y.test"], ..row("a sender that may not be") },
        Row {
            rc: "set_from_header on\n",
            input: text("From: root@box.test\n\nhello\n"),
            letter: &["me@x.test", "!From: root@"],
            ..row("From replaced")
        },
        Row { rc: "set_msgid_header off\n", letter: &["!Message-ID", "Date"], ..row("no Message-ID") },
        Row { words: &["-t"], input: text("Subject: x\n\nhello\n"), status: 64, envelope: None, ..row("no recipient") },
        Row { words: &["--frob", "a@y.test"], status: 64, envelope: None, ..row("an unknown option") },
        Row { words: &["--tls=yes", "a@y.test"], status: 64, envelope: None, ..row("a value that is none") },
        Row { rc: "hots x\n", status: 78, envelope: None, ..row("an unknown keyword") },
        Row { words: &["-a", "none", "a@y.test"], status: 78, envelope: None, ..row("an unknown account") },
        Row {
            rc: no_queue,
            words: &["a@y.test", "bad@y.test"],
            script: Script::open().on("RCPT TO:<bad", "550 5.1.1 no such user"),
            status: 67,
            differs: Some(lost(65, "one refused recipient costs the others their mail")),
            ..row("one refused recipient")
        },
        Row {
            words: &["-odq", "a@y.test"],
            envelope: None,
            differs: Some(Differs { status: 0, envelope: ONE, is_right: true, why: "there is no queue" }),
            ..row("a letter for the queue")
        },
        Row {
            rc: no_queue,
            script: Script::open().on("RCPT", "451 4.3.0 later"),
            status: 75,
            envelope: None,
            differs: Some(lost(69, "75 says that sending again may help")),
            ..row("a relay that puts it off, without")
        },
        Row {
            words: &["-f", "mailer-daemon", "a@y.test"],
            envelope: Some(" -> a@y.test"),
            ..row("with the null sender's name")
        },
        Row {
            rc: no_queue,
            script: Script::open().on("RCPT", "550 5.1.1 no such user"),
            status: 67,
            envelope: None,
            differs: Some(lost(65, "67 says that there is no such user")),
            ..row("a recipient that does not exist")
        },
        Row {
            rc: no_queue,
            script: Script::open().on(GREETING, "421 4.3.2 busy"),
            status: 75,
            envelope: None,
            differs: Some(lost(76, "75 says that sending again may help")),
            ..row("a relay that is busy")
        },
        Row {
            rc: no_queue,
            script: Script::default().tls(Tls::Off).mechanisms("PLAIN").on("AUTH", "535 5.7.8 no"),
            status: 77,
            envelope: None,
            ..row("a password that is refused")
        },
        Row {
            words: &["\"john doe\"@y.test"],
            envelope: Some("me@x.test -> \"john doe\"@y.test"),
            differs: Some(Differs {
                envelope: Some("me@x.test -> @y.test"),
                is_right: true,
                ..lost(0, "a quoted local part is lost")
            }),
            ..row("a quoted local part")
        },
        Row {
            words: &["-f", "me@x.test>\r\nRCPT TO:<evil@y.test", "a@y.test"],
            status: 64,
            envelope: None,
            differs: Some(lost(
                65,
                "the command reaches the wire; the relay's answers to more than was asked end it here",
            )),
            ..row("a sender with a command in it")
        },
        Row {
            input: text("hello\n"),
            differs: Some(spoilt("me@x.test -> a@y.test", "the text becomes part of the header")),
            ..row("a text without a header")
        },
        Row {
            input: text("From root Sun Nov 22\nSubject: x\n\nhello\n"),
            letter: &["!From root"],
            differs: Some(spoilt("me@x.test -> a@y.test", "the mailbox's line is passed on")),
            ..row("a letter out of a mailbox")
        },
        Row {
            input: text("Resent-Bcc: b@z.test\nTo: a@y.test\n\nhello\n"),
            letter: &["!b@z.test"],
            differs: Some(spoilt("me@x.test -> a@y.test", "only Bcc itself is removed")),
            ..row("a blind copy of a resent letter")
        },
        Row {
            rc: "auth plain\nuser alice\npasswordeval cat >/dev/null; echo s3cret\n",
            script: Script::default().tls(Tls::Off).mechanisms("PLAIN"),
            input: format!("Subject: x\n\n{}hello\n", many.repeat(200)),
            letter: &["hello"],
            differs: Some(spoilt("me@x.test -> a@y.test", "the helper reads what is left of the letter")),
            ..row("a password helper that reads its input")
        },
        Row {
            script: Script::open().on(DOT, "250"),
            differs: Some(Differs {
                envelope: ONE,
                is_right: true,
                ..lost(76, "a reply without a text is taken for none, and the letter that arrived for lost")
            }),
            ..row("a reply that is a bare number")
        },
    ]
}

/// What Debian's msmtp 1.8.23 does not know yet, and so cannot be asked about.
fn newer() -> Vec<Row> {
    let text = |text: &str| text.to_owned();
    vec![
        Row {
            rc: "from %F\n",
            input: text("From: Joe <joe@z.test>\n\nhello\n"),
            envelope: Some("joe@z.test -> a@y.test"),
            ..row("the author in the header is the sender")
        },
        Row {
            rc: "from *@z.test\n",
            words: &["-f", "q@z.test", "a@y.test"],
            envelope: Some("q@z.test -> a@y.test"),
            ..row("a sender that fits a pattern")
        },
        Row {
            rc: "set_to_header undisclosed_recipients\n",
            input: text("To: secret@y.test\nCc: secret@y.test\n\nhello\n"),
            letter: &["To: undisclosed-recipients:;\r\n", "!secret"],
            ..row("nobody is named")
        },
        Row {
            rc: "set_to_header on\n",
            words: &["a@y.test", "b@y.test"],
            input: text("To: list\nCc: secret@y.test\n\nhello\n"),
            envelope: Some("me@x.test -> a@y.test b@y.test"),
            letter: &["To: a@y.test, b@y.test\r\n", "!secret"],
            ..row("the recipients are named")
        },
        Row {
            rc: "set_date_header off\nset_from_header off\n",
            letter: &["!From:", "!Date:", "Message-ID"],
            ..row("nothing is added that is not wanted")
        },
    ]
}

/// The configuration: the rows' lines are those of `default`.
fn rc(relay: &Relay, row: &Row) -> String {
    // It has neither a queue nor the keyword.
    let lines = if is_under_test() { row.rc.replace("queue off\n", "") } else { row.rc.to_owned() };
    let auth = if row.script.login.is_some() && !row.rc.contains("auth") {
        "auth plain\nuser alice\npassword s3cret\n"
    } else {
        ""
    };
    let (ip, port) = (relay.address.ip(), relay.address.port());
    format!(
        "defaults\nhost {ip}\nport {port}\naccount other\nfrom other@x.test\n\
         account default\nfrom me@x.test\n{auth}{lines}"
    )
}

/// A world in which msmtp is ours or the one under test.
fn world(relay: &Relay, rc: &str) -> Sendmail {
    let world = Sendmail::to(relay).without("PILLARBOX_CONFIG").called("msmtp");
    world.put(".msmtprc", rc);
    if let Some(other) = std::env::var_os("SENDMAIL_UNDER_TEST") {
        std::fs::create_dir_all(world.home().join("bin")).unwrap();
        std::os::unix::fs::symlink(other, world.home().join("bin/msmtp")).unwrap();
    }
    world
}

fn run(row: &Row) -> (Seen, String) {
    let relay = Relay::start(row.script.clone());
    let world = world(&relay, &rc(&relay, row));
    let ran = world.run(row.words, row.input.as_bytes());
    let heard = relay.finish();
    let letter = heard.iter().flat_map(|dialogue| &dialogue.letters).next();
    let between = |command: &str| {
        let inner = command.split_once('<').map_or("", |(_, rest)| rest);
        inner.rsplit_once('>').map_or(inner, |(inner, _)| inner).to_owned()
    };
    let envelope = letter.map(|letter| {
        let mut to: Vec<String> = letter.recipients.iter().map(|to| between(to)).collect();
        to.sort();
        format!("{} -> {}", between(&letter.mail), to.join(" "))
    });
    let content = letter.map(|letter| String::from_utf8_lossy(&letter.content).into_owned()).unwrap_or_default();
    let is_right = letter.is_some()
        && row.letter.iter().all(|part| match part.strip_prefix('!') {
            Some(part) => !content.contains(part),
            None => content.contains(part),
        });
    let told = format!("{ran:?}\n{content}");
    (Seen { status: ran.status, envelope, is_right }, told)
}

#[test]
fn it_does_as_msmtp_does_or_better() {
    let is_other = is_under_test();
    let mut wrong = Vec::new();
    let newer = if is_other { Vec::new() } else { newer() };
    for row in rows().into_iter().chain(newer) {
        let ours =
            Seen { status: row.status, envelope: row.envelope.map(str::to_owned), is_right: row.envelope.is_some() };
        let expected = match &row.differs {
            Some(differs) if is_other => Seen {
                status: differs.status,
                envelope: differs.envelope.map(str::to_owned),
                is_right: differs.is_right,
            },
            _ => ours,
        };
        let (seen, told) = run(&row);
        if seen != expected {
            let why = row.differs.as_ref().map(|differs| differs.why).unwrap_or_default();
            wrong.push(format!("{} ({why}):\n  {seen:?}\n  not {expected:?}\n  {told}", row.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_log_line_is_msmtps_byte_for_byte() {
    let relay = Relay::start(Script::open().on(DOT, "250 queued as 'ABC'"));
    let (ip, port) = (relay.address.ip(), relay.address.port());
    let rc = format!("host {ip}\nport {port}\nfrom me@x.test\nlogfile ~/log\nlogfile_time_format (%%)\n");
    let world = world(&relay, &rc);
    let header = "From: me@x.test\nTo: a@y.test\nDate: Sun, 22 Nov 2026 01:43:41 +0000\nMessage-ID: <1@x.test>\n";
    let letter = format!("{header}Subject: x\n\nhello\n.dot\n");
    let ran = world.run(&["-i", "a@y.test", "b@y.test"], letter.as_bytes());
    relay.finish();
    assert_eq!(ran.status, 0, "{ran:?}");
    let line = format!(
        "(%) host={ip} tls=off auth=off from=me@x.test recipients=a@y.test,b@y.test mailsize={} smtpstatus=250 \
         smtpmsg='250 queued as ?ABC?' exitcode=EX_OK\n",
        letter.len()
    );
    assert_eq!(std::fs::read_to_string(world.home().join("log")).unwrap(), line);
}

/// Whether it is another program; some tests are ours alone.
fn is_under_test() -> bool {
    std::env::var_os("SENDMAIL_UNDER_TEST").is_some()
}

#[test]
fn an_account_can_be_made_of_arguments() {
    if is_under_test() {
        return;
    }
    let relay = Relay::start(Script::open());
    let world = world(&relay, "host nowhere.invalid\n");
    let words = [format!("--host={}", relay.address.ip()), format!("--port={}", relay.address.port())];
    let words = words.iter().map(String::as_str).chain(["--from=me@x.test", "a@y.test"]).collect::<Vec<_>>();
    let ran = world.run(&words, b"Subject: x\n\nhello\n");
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert_eq!(relay.finish()[0].letters.len(), 1);
}

#[test]
fn a_configuration_may_have_any_name() {
    if is_under_test() {
        return;
    }
    let relay = Relay::start(Script::open());
    let world = world(&relay, "host nowhere.invalid\n");
    let (ip, port) = (relay.address.ip(), relay.address.port());
    let file = world.put("handover.cfg", &format!("# ours\ndefaults\nport {port}\naccount default\nhost {ip}\n"));
    let words = ["-C", file.to_str().unwrap(), "--from=me@x.test", "a@y.test"];
    let ran = world.run(&words, b"Subject: x\n\nhello\n");
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert_eq!(relay.finish()[0].letters.len(), 1);
}

#[test]
fn the_queue_is_off_or_on_by_an_argument() {
    if is_under_test() {
        return;
    }
    for (rc, word, status) in
        [("", "--queue=off", 75), ("queue off\n", "--queue=on", 0), ("queue off\n", "-i", 75), ("", "-i", 0)]
    {
        let relay = Relay::start(Script::open().on("RCPT", "451 4.3.0 later"));
        let (ip, port) = (relay.address.ip(), relay.address.port());
        let world = world(&relay, &format!("host {ip}\nport {port}\nfrom me@x.test\n{rc}"));
        let ran = world.run(&[word, "a@y.test"], b"Subject: x\n\nhello\n");
        assert_eq!(ran.status, status, "{rc}{word}: {ran:?}");
        relay.finish();
    }
    let relay = Relay::start(Script::open());
    let ran = world(&relay, "host localhost\n").run(&["--queue=no", "a@y.test"], b"");
    assert_eq!(ran.status, 64, "{ran:?}");
}

#[test]
fn arguments_choose_no_command_unless_the_environment_trusts_them() {
    if is_under_test() {
        return;
    }
    let relay = Relay::start(Script::default().tls(Tls::Off).mechanisms("PLAIN"));
    let world = world(&relay, "host nowhere.invalid\n");
    let words = [
        format!("--host={}", relay.address.ip()),
        format!("--port={}", relay.address.port()),
        format!("--passwordeval=echo s3cret | tee {}", world.home().join("ran").display()),
    ];
    let words: Vec<&str> =
        words.iter().map(String::as_str).chain(["--auth=plain", "--user=alice", "a@y.test"]).collect();
    let ran = world.run(&words, b"Subject: x\n\nhello\n");
    assert_eq!(ran.status, 64);
    assert!(ran.stderr.contains("PILLARBOX_ARGUMENTS"), "{ran:?}");
    assert!(!world.home().join("ran").exists());
    let ran = world.env("PILLARBOX_ARGUMENTS", "trusted").run(&words, b"Subject: x\n\nhello\n");
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert_eq!(relay.finish()[0].letters.len(), 1);
}

#[test]
fn pretending_shows_the_account_and_no_password() {
    if is_under_test() {
        return;
    }
    let relay = Relay::start(Script::open());
    let world = world(&relay, "host localhost\nport 2525\nauth plain\nuser alice\npassword s3cret\nfrom me@x.test\n");
    let ran = world.run(&["--pretend"], b"");
    for part in ["host = localhost\n", "port = 2525\n", "password = *\n", "from = me@x.test\n", "tls = off\n"] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    assert!(!ran.stdout.contains("s3cret"), "{ran:?}");
    assert!(relay.finish().is_empty());
}

#[test]
fn the_relay_is_shown_without_a_letter_or_a_password() {
    if is_under_test() {
        return;
    }
    let relay = Relay::start(Script::default().tls(Tls::Off).mechanisms("PLAIN"));
    let (ip, port) = (relay.address.ip(), relay.address.port());
    let world = world(&relay, &format!("host {ip}\nport {port}\nauth plain\nuser alice\npassword s3cret\n"));
    let ran = world.run(&["--serverinfo"], b"");
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.contains("PIPELINING") && ran.stdout.contains("AUTH PLAIN"), "{ran:?}");
    assert!(relay.finish()[0].letters.is_empty());
}
