//! Whom we trust with what: certificates, passwords, and the faults that are our own rather than the letter's.

use crate::support::case::{case, check};
use crate::support::certificates::Shown;
use crate::support::relay::Script;
use crate::support::sendmail::Sendmail;

/// Our own faults: kept and told where there is a queue, refused with their number where there is none.
#[test]
fn our_own_faults_defer_and_always_speak() {
    let faults: Vec<(&str, Script, &str, i32, Vec<&str>)> = vec![
        ("a wrong password", Script::default(), "password = \"wr0ng-one\"", 77, vec!["535 5.7.8", "after AUTH"]),
        (
            "STARTTLS is missing",
            Script::default().on("EHLO", "250-relay.example\n250 AUTH PLAIN"),
            "",
            69,
            vec!["STARTTLS"],
        ),
        ("no mechanism in common", Script::default().mechanisms("GSSAPI"), "", 69, vec!["GSSAPI"]),
        ("no AUTH offered", Script::default().mechanisms(""), "", 69, vec!["AUTH"]),
        ("an expired certificate", Script::default().showing(Shown::Expired), "", 69, vec!["expired", "2001-01-01"]),
        (
            "a certificate of tomorrow",
            Script::default().showing(Shown::NotYetValid),
            "",
            69,
            vec!["not valid before", "2999"],
        ),
        (
            "a certificate for somebody else",
            Script::default().showing(Shown::OtherName),
            "",
            69,
            vec!["mail.elsewhere.example", "127.0.0.1"],
        ),
        ("a self-signed certificate", Script::default().showing(Shown::SelfSigned), "", 69, vec!["self-signed", "PIN"]),
        ("an unknown authority", Script::default().showing(Shown::OtherAuthority), "", 69, vec!["HOME/ca.pem", "PIN"]),
        ("another pin", Script::default(), WRONG_PIN, 69, vec!["not the pinned one", "PIN"]),
        ("the platform's roots do not know it", Script::default(), "ca_file =", 69, vec!["certificate"]),
    ];
    let mut cases = Vec::new();
    for (name, script, account, status, parts) in faults {
        let base = |name: String| {
            let facts = ["<bob@example.org>", "RELAY", "account work"];
            let base = case(&name).relay(script.clone()).account(account).undelivered().says(&facts).says(&parts);
            base.hides(&["wr0ng-one", "s3cret", "****"]).also(|_, _, heard| {
                let is_over =
                    heard.iter().flat_map(|dialogue| &dialogue.commands).all(|command| !command.starts_with("MAIL"));
                if is_over { Ok(()) } else { Err("MAIL was said".to_owned()) }
            })
        };
        cases.push(base(format!("{name}, queue")).queued(&["bob@example.org", "in 1 Request"]));
        cases.push(base(format!("{name}, no queue")).queue("off").status(status));
    }
    check(cases);
}

const WRONG_PIN: &str = "pin = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"";

/// The old authority's certificate is still in `ca_file`, and the new one has the same name.
#[test]
fn an_authority_that_was_made_anew_is_told_as_an_unknown_one() {
    check([case("NewAuthority")
        .relay(Script::default().showing(Shown::NewAuthority))
        .queue("off")
        .status(69)
        .undelivered()
        .says(&["HOME/ca.pem", "PIN"])]);
}

#[test]
fn a_certificate_can_be_vouched_for_otherwise() {
    check([
        case("a pin instead of a CA")
            .relay(Script::default().showing(Shown::SelfSigned))
            .account("ca_file =\npin = \"PIN\""),
        case("a pin of an expired one").relay(Script::default().showing(Shown::Expired)).account("pin = \"PIN\""),
        case("another name in the settings")
            .relay(Script::default().showing(Shown::OtherName))
            .account("tls_host = \"mail.elsewhere.example\""),
    ]);
}

#[test]
fn a_host_that_does_not_exist_is_our_own_fault() {
    // Without a resolver the look-up fails for the time being, which is another thing.
    let name = "no-such-host.invalid";
    if dns_lookup(name) != Some(false) {
        return;
    }
    let host = format!("host = \"{name}\"");
    check([
        case("queue").account(&host).unsent().says(&[name]).queued(&["bob@example.org"]),
        case("no queue").account(&host).queue("off").unsent().status(68).says(&[
            "<bob@example.org>",
            name,
            "account work",
        ]),
    ]);
}

/// Whether the system knows a name; `None` where it cannot tell at the moment.
fn dns_lookup(name: &str) -> Option<bool> {
    use std::net::ToSocketAddrs;
    match (name, 25).to_socket_addrs() {
        Ok(_) => Some(true),
        Err(error) if error.to_string().contains("not known") => Some(false),
        Err(_) => None,
    }
}

#[test]
fn passwords_come_from_where_the_settings_say() {
    let netrc = |sendmail: Sendmail| {
        sendmail.put(".netrc", "machine 127.0.0.1 login alice password s3cret\n");
        sendmail.put("password", "s3cret\nnot this\n");
        sendmail
    };
    let body = "0123456789\n".repeat(2000);
    check([
        case("a file").world(netrc).account("password = { file = \"HOME/password\" }"),
        case("a netrc").world(netrc).account("password = { netrc = true }"),
        case("a command that reads what it can get")
            .account("password = { command = \"cat; echo s3cret\" }")
            .input(format!("Subject: x\n\n{body}"))
            .body(&body),
        case("a command in words").account("password = { command = [\"echo\", \"s3cret\"] }"),
        case("a command of a caller who ignores SIGCHLD")
            .account("password = { command = \"echo s3cret\" }")
            .world(|sendmail| sendmail.through("exec env --ignore-signal=CHLD \"$@\"")),
        case("a command that fails: kept, and told in its own words")
            .account("password = { command = \"echo s3cret; echo 'no such card' >&2; exit 3\" }")
            .unsent()
            .says(&["<bob@example.org>", "account work", "status 3", "no such card"])
            .hides(&["s3cret"])
            .queued(&["bob@example.org"]),
        case("a file that others can read")
            .world(|sendmail| {
                let path = sendmail.put("password", "s3cret\n");
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
                sendmail
            })
            .account("password = { file = \"HOME/password\" }")
            .unsent()
            .says(&["chmod 600"])
            .queued(&["bob@example.org"]),
        case("a configuration that others can read")
            .world(|sendmail| {
                let path = sendmail.home().join("config.toml");
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
                sendmail
            })
            .unsent()
            .status(78)
            .says(&["chmod"]),
    ]);
}

#[test]
fn the_dialogue_is_shown_without_its_secrets() {
    // `\0alice\0s3cret`, `s3cret`, `alice` in base64.
    let hidden = ["s3cret", "AGFsaWNlAHMzY3JldA==", "czNjcmV0"];
    let shown = [
        "EHLO client.example",
        "STARTTLS",
        "MAIL FROM:<alice@example.com>",
        "RCPT TO:<bob@example.org>",
        "250 2.0.0 taken",
    ];
    check([
        case("PLAIN").words(&["-v", "bob@example.org"]).says(&shown).says(&["AUTH PLAIN ****"]).hides(&hidden),
        case("LOGIN")
            .words(&["-v", "bob@example.org"])
            .relay(Script::default().mechanisms("LOGIN"))
            .says(&shown)
            .says(&["****"])
            .hides(&hidden),
        case("a server that gives them back")
            .words(&["-v", "bob@example.org"])
            .relay(Script::default().on("MAIL", "250 2.1.0 hello s3cret AGFsaWNlAHMzY3JldA== czNjcmV0"))
            .says(&["MAIL FROM"])
            .hides(&hidden),
        case("a refusal that gives them back")
            .relay(Script::default().on("AUTH", "535 5.7.8 not AGFsaWNlAHMzY3JldA== nor s3cret"))
            .undelivered()
            .says(&["535 5.7.8"])
            .hides(&hidden),
        case("a server that plays with the terminal")
            .words(&["-v", "bob@example.org"])
            .relay(Script::default().on("MAIL", "250 2.1.0 \x1b[2J\u{202e}"))
            .says(&["\\x1b[2J"])
            .hides(&["\x1b", "\u{202e}"]),
    ]);
}
