//! msmtp's file as msmtp reads it; `tests/msmtprc` has whole ones, and what each amounts to.

use super::*;
use crate::config::{FromField, Host, LogTo, PasswordSource, SessionLogTo, Tls, TlsVersion, ToField};
use proptest::prelude::*;
use std::fmt::Write;

fn around() -> Surroundings {
    Surroundings {
        home: Some("/home/alice".into()),
        login: "alice".to_owned(),
        host: "box".to_owned(),
        canonical: "box.example.com".to_owned(),
        mailname: None,
        email: None,
        smtp_server: None,
    }
}

fn read_with(text: &str, arguments: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let arguments: Vec<Argument> =
        arguments.iter().map(|&(keyword, argument)| (keyword.to_owned(), argument.to_owned())).collect();
    let problems = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    let reading = read(Path::new("rc"), text, &around(), &arguments).map_err(problems)?;
    Ok(reading.settings(&around()))
}

fn settings(text: &str) -> Settings {
    read_with(text, &[]).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

fn problems(text: &str) -> Vec<String> {
    read_with(text, &[]).unwrap_err()
}

/// The settings in short: a line for each account, each log, and what else was said.
fn told(settings: &Settings) -> String {
    let mut told = String::new();
    for account in &settings.accounts {
        told.push_str(&line(account));
        told.push('\n');
    }
    for log in &settings.log {
        let LogTo::Sessions(SessionLog { account, head, to }) = log else { panic!("{log:?}") };
        let _ = match to {
            SessionLogTo::File(path, time) => writeln!(told, "log {account} {head} -> {} [{time}]", path.display()),
            SessionLogTo::Stdout(time) => writeln!(told, "log {account} {head} -> stdout [{time}]"),
            SessionLogTo::Syslog(facility) => writeln!(told, "log {account} {head} -> syslog {facility}"),
        };
    }
    if let Some(path) = &settings.names.alias_file {
        let _ = writeln!(told, "aliases {}", path.display());
    }
    if !settings.queue.enabled {
        told.push_str("queue off\n");
    }
    told
}

fn line(account: &Account) -> String {
    let host = match &account.hosts[..] {
        [Host::Tcp { name, port }] => format!("{name}:{port}"),
        [Host::Unix(path)] => format!("unix:{}", path.display()),
        hosts => panic!("{hosts:?}"),
    };
    let tls = match account.tls {
        Tls::StartTls | Tls::Opportunistic => "starttls",
        Tls::Implicit => "implicit",
        Tls::Off => "none",
    };
    let auth = match account.auth {
        crate::config::Auth::ScramSha256 => "scram-sha-256".to_owned(),
        crate::config::Auth::CramMd5 => "cram-md5".to_owned(),
        auth => format!("{auth:?}").to_lowercase(),
    };
    let password = match &account.password {
        Some(PasswordSource::Literal(text)) => format!("literal({})", **text),
        Some(PasswordSource::Command(words)) => format!("command({})", words.join("|")),
        Some(PasswordSource::Eval(line)) => format!("eval({line})"),
        Some(PasswordSource::Netrc(None)) => "netrc".to_owned(),
        None => "-".to_owned(),
        other => panic!("{other:?}"),
    };
    let mut line =
        format!("{} {host} {tls} {auth} {} {password}", account.name, account.user.as_deref().unwrap_or("-"));
    let mut more = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(line, " {key}={value}");
        }
    };
    more("from", account.from.clone());
    more("name", account.from_name.clone());
    more("senders", Some(account.senders.join(",")).filter(|senders| !senders.is_empty()));
    more("ca", account.ca_file.as_ref().map(|path| path.display().to_string()));
    more("pins", Some(account.pins.len()).filter(|&n| n > 0).map(|n| n.to_string()));
    more("notify", account.notify.map(|notify| notify.to_string()));
    more("ret", account.ret.map(|ret| ret.to_string()));
    more("helo", account.helo.clone());
    more("timeout", Some(account.timeout.as_secs()).filter(|&s| s != 60).map(|s| s.to_string()));
    more("to", (account.header.to == ToField::Undisclosed).then(|| "undisclosed".to_owned()));
    for (holds, word) in [
        (account.force_from, " force_from"),
        (account.force_sender, " force_sender"),
        (account.sender_from_header, " from-header"),
        (account.header.from == FromField::Replaced, " from-replaced"),
        (account.header.from == FromField::Kept, " from-kept"),
        (!account.header.date, " no-date"),
        (!account.header.message_id, " no-message-id"),
        (account.tls_min == TlsVersion::Tls13, " tls1.3"),
    ] {
        line.push_str(if holds { word } else { "" });
    }
    line
}

#[test]
fn files_that_people_have_read_as_they_intend() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/msmtprc");
    let mut read = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "msmtprc") {
            let text = std::fs::read_to_string(&path).unwrap();
            let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap();
            assert_eq!(told(&settings(&text)), expected, "{}", path.display());
            read += 1;
        }
    }
    assert!(read >= 8, "the corpus is not where it was");
}

#[test]
fn lines_are_cut_as_msmtp_cuts_them() {
    for (text, host) in [
        ("host h", "h"),
        ("  \thost\t h \t\r\n", "h"),
        ("host \"h\"", "h"),
        ("#host x\n # host x\nhost h\n", "h"),
        ("host x\nhost h", "h"),
    ] {
        assert_eq!(settings(text).accounts[0].hosts, [Host::Tcp { name: h(host), port: 25 }], "{text}");
    }
    for (text, password) in [
        ("password  a b ", "a b"),
        ("password \" a#b \"", " a#b "),
        ("password \"a", "\"a"),
        ("password #x", "#x"),
        ("password a\\n", "a\\n"),
    ] {
        let settings = settings(&format!("host localhost\nauth on\nuser u\n{text}"));
        let Some(PasswordSource::Literal(found)) = &settings.accounts[0].password else { panic!("{text}") };
        assert_eq!(**found, password, "{text}");
    }
}

fn h(name: &str) -> String {
    name.to_owned()
}

#[test]
fn an_account_takes_over_what_others_say_themselves() {
    let text = "defaults\nport 1\naccount a\nhost a\ntimeout 5\ndefaults\nport 2\ndomain d\naccount b\nhost b\n\
                account c : a, b\naccount e : a\nport 3\naccount f : e\n";
    let found: Vec<String> = settings(text).accounts.iter().map(line).collect();
    assert_eq!(
        found,
        [
            "a a:1 none off - - timeout=5",
            "b b:2 none off - - helo=d",
            "c b:2 none off - - helo=d timeout=5", // its port is the default when c began
            "e a:3 none off - - helo=d timeout=5",
            "f a:3 none off - - helo=d timeout=5",
        ]
    );
}

#[test]
fn an_obsolete_spelling_says_what_todays_does() {
    for (text, expected) in [
        ("defaults\nconnect_timeout 5\naccount a\nhost a\ntimeout 7", "a a:25 none off - - timeout=7"),
        ("defaults\ntimeout 5\naccount a\nhost a\nconnect_timeout 7", "a a:25 none off - - timeout=7"),
        ("account a\nhost a\ntls\ntls_nostarttls\ntls_starttls on", "a a:25 starttls off - -"),
        ("account a\nhost a\nundisclosed_recipients on\nset_to_header off", "a a:25 none off - -"),
        ("account a\nhost a\nset_date_header auto\nadd_missing_date_header off", "a a:25 none off - - no-date"),
    ] {
        assert_eq!(line(&settings(text).accounts[0]), expected, "{text}");
    }
}

#[test]
fn an_account_without_a_host_is_there_for_others() {
    let settings =
        settings("account base\ntls on\ntls_certcheck off\naccount a\nhost a\naccount b : base\nhost b\ntls off");
    assert_eq!(settings.accounts.iter().map(line).collect::<Vec<_>>(), ["a a:25 none off - -", "b b:25 none off - -"]);
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let text = "hots x\nHOST x\nport 99999\naccount a\ntls yes\n  auth PLAIN\naccount a\naccount b : c\n\
                host a b\nfrom a b@x\ntimeout 5s\nprotocol uucp\nfoo bar\ntls_fingerprint 00:11\ndefaults x\n\
                logfile log\nsyslog LOG_DAEMON\nfrom [!a]@x\ndomain %M\neval echo host $X\nsource_ip x\n";
    let found = problems(text);
    let expected = [
        "rc:1:1: there is no keyword \"hots\"; did you mean \"host\"?",
        "rc:2:1: there is no keyword \"HOST\"; did you mean \"host\"?",
        "rc:3:6: port: \"99999\" is no port",
        "rc:5:5: tls: \"yes\" is not known; allowed: on or off",
        "rc:6:8: auth: \"PLAIN\" is not known; allowed: on, off, or scram",
        "rc:7:9: account: there is an account \"a\" above",
        "rc:8:9: account: there is no account \"c\" above",
        "rc:9:6: host: has a ' ' in it",
        "rc:10:6: from: \"a b@x\"",
        "rc:11:9: timeout: \"5s\" is not known; allowed: off, or a number of seconds",
        "rc:12:10: protocol: \"uucp\" is not known",
        "rc:13:1: there is no keyword \"foo\"",
        "rc:14:17: tls_fingerprint: has 2 octets; SHA-256 has 32",
        "rc:15:10: defaults: it takes no argument",
        "rc:16:9: logfile: \"log\" is not absolute",
        "rc:17:8: syslog: \"LOG_DAEMON\" is not known",
        "rc:18:6: from: only [abc] and [a-c] are known",
        "rc:19:8: domain: has a %M in it, and there is no /etc/mailname",
        "rc:20:6: eval: no command is run to read a configuration",
        "rc:21:11: source_ip: \"x\" is not known",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_cannot_be_right_as_a_whole_is_told_too() {
    for (text, expected) in [
        (
            "host relay.example\nauth on\nuser u\npassword p",
            "rc:2:6: auth: the password would go to relay.example in clear",
        ),
        ("host h\ntls on\nauth on", "rc:3:6: auth: there is no user"),
        ("host h\ntls on\ntls_certcheck off", "rc:3:15: tls_certcheck: off would let anybody be the relay"),
        ("host h\ntls on\ntls_nocertcheck", "rc:3:16: tls_certcheck: off"),
        ("host h\ntls on\ntls_trust_file", "rc:3:15: tls_trust_file: nobody is trusted"),
        ("host h\ntls on\ntls_key_file /x", "rc:3:14: tls_key_file: tls_key_file and tls_cert_file go together"),
        ("socket /x\ntls on", "rc:1:8: socket: with tls it needs host"),
        ("host h\nallow_from_override off", "rc:2:21: allow_from_override: off leaves no sender"),
        ("account a\nhost a\naliases /a\naccount b\nhost b\naliases /b", "rc:6:9: aliases: /a is named above"),
        ("host h\nprotocol lmtp", "rc:2:10: protocol: lmtp has no port of its own"),
        ("host h\neval gpg -d x", "rc:2:6: eval: no command is run"),
        ("defaults\ntls on\nauth on\naccount a\nhost a\naccount b\nhost b", "rc:3:6: auth: there is no user"),
    ] {
        let found = problems(text);
        assert!(found[0].starts_with(expected), "{found:?}\n{expected}");
    }
    // Without TLS nobody looks at a certificate, and the pin is as good as anybody's word.
    let pin = format!("tls_fingerprint {}", "ab ".repeat(32));
    for text in ["host h\ntls_certcheck off", &format!("host h\ntls on\ntls_certcheck off\ntls_trust_file\n{pin}")] {
        assert_eq!(settings(text).accounts.len(), 1, "{text}");
    }
}

#[test]
fn a_secret_is_never_in_an_error() {
    let text = "password s3cret\u{0}x\npassword s3cret\u{fffd}\nhost\npasswordeval \u{0}s3cret\n";
    let found = problems(text).join("\n");
    assert!(!found.contains("s3cret"), "{found}");
    assert!(found.contains("rc:2:10: password: this is not UTF-8"), "{found}");
}

#[test]
fn a_secret_is_noticed_wherever_it_stands() {
    for (text, has_secret) in [
        ("host h\npassword p", true),
        ("defaults\npassword p", true),
        ("account base\npassword p", true),
        ("eval echo password p", true),
        ("host h\npassword", false),
        ("host localhost\nauth on\nuser u\npasswordeval p", false),
    ] {
        assert_eq!(read(Path::new("rc"), text, &around(), &[]).unwrap().has_secret, has_secret, "{text}");
    }
}

#[test]
fn arguments_go_over_every_account() {
    let text = "account a\nhost a\nport 1\naccount b : a\nport 2\n";
    let found = read_with(text, &[("port", "3"), ("tls", "on"), ("domain", "d")]).unwrap();
    let lines: Vec<String> = found.accounts.iter().map(line).collect();
    assert_eq!(lines, ["a a:3 starttls off - - helo=d", "b a:3 starttls off - - helo=d"]);
    for (keyword, argument, is_right) in
        [("port", "25", true), ("port", "x", false), ("tls", "", true), ("tls", "yes", false), ("nothing", "", false)]
    {
        assert_eq!(check(keyword, argument, &around()).is_ok(), is_right, "{keyword} {argument}");
    }
}

#[test]
fn who_a_letter_is_from_can_be_said_in_every_way() {
    for (text, expected) in [
        ("from a@x", "from=a@x"),
        ("from %U@%H.example", "from=alice@box.example"),
        ("from root", "from=root"),
        ("from *@x.org", "from=alice@x.org senders=*@x.org"),
        ("from a-*@x.org", "senders=a-*@x.org"),
        ("from [ab]@x.org", "senders=a@x.org,b@x.org"),
        ("from %F", "from-header"),
        ("from a@x\nallow_from_override off", "from=a@x force_sender"),
        ("from a@x\nset_from_header on", "from=a@x from-replaced"),
        ("from a@x\nset_from_header off", "from=a@x from-kept"),
        ("from a@x\nset_from_header on\nallow_from_override off", "from=a@x force_from"),
        ("auto_from on", "from=alice"),
    ] {
        let found = line(&settings(&format!("host h\n{text}\n")).accounts[0]);
        assert_eq!(found, format!("default h:25 none off - - {expected}"), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_upsets_the_reader(text in "(?s).{0,200}") {
        let _ = read_with(&text, &[]);
    }

    #[test]
    fn no_lines_upset_the_reader(lines in proptest::collection::vec(
        (proptest::sample::select(keywords().collect::<Vec<_>>()), "[ -~]{0,12}"), 0..12)
    ) {
        let text: Vec<String> = lines.iter().map(|(keyword, argument)| format!("{keyword} {argument}")).collect();
        let text = text.join("
");
        let _ = read_with(&text, &[]);
    }
}
