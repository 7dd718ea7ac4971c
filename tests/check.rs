//! `pillarbox check`, against a relay that plays any part: what is in order has a tick, what is wrong has a cross and
//! the sentence that mends it, and the status is 0 only where mail would go out.

mod support;

use support::certificates::Shown;
use support::relay::{Act, Relay, Script, Tls};
use support::running::Ended;
use support::sendmail::Sendmail;

/// The tool, in a home that has an account at this relay.
fn tool(relay: &Relay, account: &str) -> Sendmail {
    Sendmail::with(relay, account, "").called("pillarbox").env("LC_ALL", "C.UTF-8")
}

/// Runs it; the password is nowhere in what it says, in capitals neither, and neither is its base64.
fn check(tool: &Sendmail, words: &[&str]) -> Ended {
    let words: Vec<&str> = ["check"].into_iter().chain(words.iter().copied()).collect();
    let ran = tool.run(&words, b"");
    for text in [&ran.stdout, &ran.stderr] {
        for secret in ["s3cret", "czNjcmV0", "AGFsaWNlAHMzY3JldA"] {
            let is_shown = text.to_ascii_lowercase().contains(&secret.to_ascii_lowercase());
            assert!(!is_shown, "{secret} is shown: {ran:?}");
        }
    }
    ran
}

/// An address that is taken and at which nobody listens.
struct Dead(socket2::Socket);

#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
impl Dead {
    fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self(socket)
    }

    fn address(&self) -> std::net::SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

/// Looks with one account against a relay of this script.
fn against(script: Script, account: &str) -> (Ended, Relay) {
    let relay = Relay::start(script);
    let ran = check(&tool(&relay, account), &[]);
    (ran, relay)
}

/// Expects this status and these words, in this order.
fn says(ran: &Ended, status: i32, words: &[&str]) {
    assert_eq!(ran.status, status, "{ran:?}");
    let mut rest = ran.stdout.as_str();
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("no {word:?} (any more) in\n{}{}", ran.stdout, ran.stderr));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn a_way_that_works_is_ticked_from_the_configuration_to_the_sender() {
    let (ran, relay) = against(Script::default(), "");
    let steps = [
        "configuration\n  ✓ ",
        "1 account (work); work is the default",
        "queue\n  ✓ ",
        "will be made when it is needed",
        "account work\n  ✓ the password comes from the configuration",
        "✓ 127.0.0.1:",
        "is at 127.0.0.1 (",
        "offers before TLS: PIPELINING, SIZE 10240000, 8BITMIME, SMTPUTF8, DSN, ENHANCEDSTATUSCODES, STARTTLS\n",
        "✓ TLSv1.3, TLS_AES_256_GCM_SHA384\n",
        "✓ certificate for 127.0.0.1, localhost, issued by CN=scripted authority, valid until ",
        "ENHANCEDSTATUSCODES, AUTH PLAIN LOGIN\n",
        "✓ AUTH PLAIN is accepted as alice\n",
        "✓ mail from <alice@example.com> is accepted\n",
        "machine\n",
        "Mail goes out.\n",
    ];
    says(&ran, 0, &steps);
    assert!(!ran.stdout.contains('✗') && !ran.stdout.contains('\x1b'), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
    let dialogues = relay.finish();
    let commands: Vec<&String> = dialogues.iter().flat_map(|dialogue| &dialogue.commands).collect();
    assert!(commands.iter().all(|command| !command.starts_with("RCPT") && *command != "DATA"), "{commands:?}");
    assert!(dialogues.iter().all(|dialogue| dialogue.letters.is_empty()), "nothing is sent");
}

#[test]
fn each_fault_has_the_sentence_that_mends_it() {
    let rows: Vec<(&str, Script, &str, i32, Vec<&str>)> = vec![
        (
            "a wrong password",
            Script::default().on("AUTH", "535 5.7.8 no such user or password"),
            "",
            77,
            vec!["✗ 127.0.0.1:", "said \"535 5.7.8 no such user or password\" after AUTH", "User alice or password"],
        ),
        (
            "a provider that wants an app password",
            Script::default().on("AUTH", "534 5.7.9 Application-specific password required."),
            "",
            77,
            vec!["✗", "after AUTH", "It wants an app password"],
        ),
        (
            "no mechanism of ours",
            Script::default().mechanisms("GSSAPI NTLM"),
            "",
            69,
            vec!["AUTH GSSAPI NTLM", "✗", "auth under [account.work]"],
        ),
        (
            "implicit TLS where there is STARTTLS",
            Script::default(),
            "tls = \"implicit\"\n",
            69,
            vec!["✗", "not TLS", "set tls = \"starttls\""],
        ),
        (
            "STARTTLS where there is implicit TLS",
            Script::default().tls(Tls::Implicit),
            "timeout = \"1s\"\n",
            75,
            vec!["✗", "before its greeting", "set tls = \"implicit\""],
        ),
        (
            "no STARTTLS",
            Script::default().tls(Tls::Off),
            "",
            69,
            vec!["✗", "does not offer STARTTLS", "tls = \"implicit\" (port 465)"],
        ),
        (
            "a sender that the relay does not take",
            Script::default().on("MAIL", "553 5.7.1 sender address rejected: not owned by user"),
            "",
            65,
            vec!["✓ AUTH PLAIN", "✗", "not owned by user", "force_from = true"],
        ),
        (
            "an expired certificate",
            Script::default().showing(Shown::Expired),
            "",
            69,
            vec!["✗", "expired on 2001-01-01", "This machine believes that it is 2"],
        ),
        (
            "a clock that is off",
            Script::default().showing(Shown::NotYetValid),
            "",
            69,
            vec!["✗", "not valid before 2999-01-01", "This machine believes that it is 2"],
        ),
        (
            "a certificate for another name",
            Script::default().showing(Shown::OtherName),
            "",
            69,
            vec!["✗", "for mail.elsewhere.example, not for 127.0.0.1", "tls_host"],
        ),
        (
            "a password helper that fails",
            Script::default(),
            "password = { command = [\"/bin/sh\", \"-c\", \"echo locked >&2; exit 3\"] }\n",
            78,
            vec!["✗ the password of account work cannot be had", "locked", "Run the command by hand"],
        ),
        (
            "a greeting that is none",
            Script::default().on("(greeting)", "554 5.3.2 go away"),
            "",
            69,
            vec!["✗", "go away"],
        ),
    ];
    for (name, script, account, status, words) in rows {
        let (ran, _) = against(script, account);
        assert_eq!(ran.status, status, "{name}: {ran:?}");
        says(&ran, status, &words);
        says(&ran, status, &["Not all mail would go out.\n"]);
    }
}

#[test]
fn a_password_that_the_relay_lists_as_a_keyword_is_masked_and_its_capitals_too() {
    let script = Script::default().offering(&["XECHO s3cret", "s3cret", "X czNjcmV0"]).mechanisms("GSSAPI s3cret");
    let (ran, _) = against(script, "");
    let list = "XECHO ****, ****, X ****";
    let words = [&format!("before TLS: {list}"), &format!("offers: {list}"), "✗", "offers AUTH GSSAPI ****, but not"];
    says(&ran, 69, &words);
}

#[test]
fn a_self_signed_certificate_comes_with_the_line_to_paste_and_that_line_mends_it() {
    let relay = Relay::start(Script::default().showing(Shown::SelfSigned));
    let ran = check(&tool(&relay, ""), &[]);
    says(&ran, 69, &["✗", "self-signed", "Ask whoever runs the relay"]);
    let line = ran.stdout.lines().find_map(|line| line.strip_prefix("      pin = ")).expect("a line to paste");
    assert_eq!(line, format!("\"{}\"", relay.identity.pin()));
    says(&check(&tool(&relay, &format!("pin = {line}\n")), &[]), 0, &["✓ mail from", "Mail goes out."]);
}

#[test]
fn a_host_that_is_dead_is_told_and_the_next_one_counts() {
    let relay = Relay::start(Script::default());
    let dead = Dead::new();
    let account = format!("host = [\"{}\", \"{}\"]\nport =\n", dead.address(), relay.address);
    let words = ["✗ 127.0.0.1:", "refused", "Nobody listens there", "✓ mail from", "letters go by the host that works"];
    says(&check(&tool(&relay, &account), &[]), 0, &words);
}

#[test]
fn an_account_whose_fallback_works_is_no_fault() {
    let relay = Relay::start(Script::default());
    let tool = tool(&relay, "fallback = \"spare\"\n");
    let config = std::fs::read_to_string(tool.home().join("config.toml")).unwrap();
    let dead = Dead::new();
    let port = format!("port = {}\n", relay.address.port());
    let spare = config
        .split("[account.work]")
        .nth(1)
        .unwrap()
        .split("[queue]")
        .next()
        .unwrap()
        .replace("fallback = \"spare\"\n", "");
    let config = config.replace(&port, &format!("port = {}\n", dead.address().port())) + "\n[account.spare]" + &spare;
    tool.put("config.toml", &config);
    says(
        &check(&tool, &[]),
        0,
        &["account work", "✗", "account spare", "✓ mail from", "go by its fallback, spare", "Mail goes out."],
    );
    says(&check(&tool, &["work"]), 75, &["✗", "Not all mail would go out."]);
    says(&check(&tool, &["spare"]), 0, &["account spare", "Mail goes out."]);
    says(&check(&tool, &["other"]), 78, &["✗ there is no account other", "work, spare"]);
}

#[test]
fn a_probe_is_sent_once_and_its_dialogue_shown_without_the_password() {
    let relay = Relay::start(Script::default());
    let ran = check(&tool(&relay, ""), &["--send", "bob@example.org"]);
    says(&ran, 0, &["✓ <bob@example.org> relayed by 127.0.0.1:", "Mail goes out."]);
    assert!(
        ran.stderr.contains("> AUTH PLAIN ****\n") && ran.stderr.contains("> RCPT TO:<bob@example.org>"),
        "{ran:?}"
    );
    let letters: Vec<_> = relay.finish().into_iter().flat_map(|dialogue| dialogue.letters).collect();
    assert_eq!(letters.len(), 1);
    assert!(String::from_utf8_lossy(&letters[0].content).contains("Subject: Pillarbox on "));

    let relay = Relay::start(Script::default().on("RCPT", "550 5.1.1 no such user"));
    let ran = check(&tool(&relay, ""), &["--send", "bob@example.org"]);
    says(&ran, 67, &["✓ mail from", "✗ <bob@example.org> refused", "no such user", "Not all mail"]);
}

#[test]
fn programs_get_a_json_object_a_line() {
    let relay = Relay::start(Script::default().on("AUTH", "535 5.7.8 no"));
    let ran = check(&tool(&relay, ""), &["--json"]);
    assert_eq!(ran.status, 77, "{ran:?}");
    let lines: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let auth = lines.iter().find(|line| line["about"] == "auth").unwrap();
    assert_eq!((&auth["result"], &auth["account"]), (&"fault".into(), &"work".into()));
    assert_eq!(auth["relay"], relay.address.to_string());
    assert!(auth["mend"].as_str().unwrap().contains("User alice"), "{auth}");
    assert!(lines.iter().any(|line| line["about"] == "tls" && line["result"] == "ok"), "{lines:?}");
}

#[test]
fn a_queue_that_cannot_take_a_letter_is_a_fault_and_one_with_letters_a_remark() {
    use std::os::unix::fs::PermissionsExt;
    let relay = Relay::start(Script::default());
    let tool = tool(&relay, "");
    std::fs::create_dir(tool.queue()).unwrap();
    std::fs::set_permissions(tool.queue(), std::fs::Permissions::from_mode(0o777)).unwrap();
    says(&check(&tool, &[]), 73, &["queue\n  ✗ ", "mode 0700", "Not all mail would go out."]);
    std::fs::remove_dir(tool.queue()).unwrap();
    let tool = tool.called("sendmail");
    let queued = tool.run(&["-odq", "bob@example.org"], b"Subject: x\n\nhello\n");
    assert_eq!(queued.status, 0, "{queued:?}");
    let tool = tool.called("pillarbox");
    says(&check(&tool, &[]), 0, &["! letters that wait: 1; on hold: 0", "pillarbox queue list", "Mail goes out."]);
}

#[test]
fn a_log_that_cannot_be_written_is_a_remark() {
    let relay = Relay::start(Script::default());
    let tool = tool(&relay, "");
    let config = std::fs::read_to_string(tool.home().join("config.toml")).unwrap();
    let (good, bad) = (tool.home().join("log"), tool.home().join("nowhere/log"));
    let log = format!("log = [{good:?}, {bad:?}]\n{config}");
    tool.put("config.toml", &log);
    let ran = check(&tool, &[]);
    says(&ran, 0, &[&format!("! the log {} cannot be written: No such file", bad.display()), "Mail goes out."]);
    assert!(!ran.stdout.contains(&format!("{} cannot", good.display())) && !good.exists(), "{ran:?}");
}

#[test]
fn a_configuration_with_mistakes_is_told_line_by_line() {
    let relay = Relay::start(Script::default());
    let tool = tool(&relay, "hosst = \"x\"\n");
    says(&check(&tool, &[]), 78, &["configuration\n  ✗ ", "hosst", "host", "Not all mail would go out."]);
    let nowhere = Sendmail::new("").without("PILLARBOX_CONFIG").called("pillarbox").env("LC_ALL", "C");
    let ran = check(&nowhere, &[]);
    // Where the machine has a configuration of its own, that is found.
    if !std::path::Path::new("/etc/pillarbox").exists() {
        says(&ran, 78, &["configuration\n  NO there is no configuration"]);
    }
}

#[test]
fn a_relay_that_says_nothing_does_not_hold_the_check_up() {
    let (ran, _) = against(Script::default().on("EHLO", Act::Stall), "timeout = \"1s\"\n");
    says(&ran, 75, &["✗", "timed out after EHLO", "Not all mail would go out."]);
}
