//! What a report says, to people, to machines, and to Python's parser.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use super::*;
use crate::message::Facts;
use crate::outcome::{Blame, Cause, Fault, Reply, Stage, Status};
use crate::queue::{Queue, Submission, Tried};

const OCTETS: &str = "From: alice@example.org\r\nSubject: Dinner\r\n at eight\r\nX-Long: x\r\n\r\nHello\r\n";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn by() -> Reporter<'static> {
    Reporter { host: "host.example.org", domain: "example.org", keep: Duration::from_hours(120) }
}

fn mailbox(local: &str) -> Mailbox {
    Mailbox::new(local, "example.org").unwrap()
}

fn replied(code: u16, line: &str) -> Fault {
    Fault::new(Stage::Rcpt, Cause::Reply(Reply { code, lines: vec![line.to_owned()] }))
}

fn refused(line: &str) -> Outcome {
    Outcome::Failed { fault: replied(550, line), blame: Blame::Recipient, status: Status::new(5, 1, 1) }
}

fn deferred() -> Outcome {
    let fault = Fault::new(Stage::Connect, Cause::Network("connection refused".to_owned()));
    Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 4, 1), maybe_duplicate: false }
}

fn relayed() -> Outcome {
    Outcome::Relayed(Reply { code: 250, lines: vec!["ok".to_owned()] })
}

/// A letter from `from` with one outcome for each recipient, as the queue knows it.
fn letter(from: Option<Mailbox>, to: Vec<(Recipient, Outcome)>, ret: Option<Ret>) -> Letter {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::open(&dir.path().join("q")).unwrap();
    let (recipients, outcomes): (Vec<_>, Vec<_>) = to.into_iter().unzip();
    let mut envelope = Envelope::new(ReversePath(from), recipients).unwrap();
    envelope.ret = ret;
    envelope.envid = Some("QQ314159".to_owned());
    let tried: Vec<_> = outcomes.iter().map(|outcome| Tried { outcome, relay: "smtp.example.com:587" }).collect();
    let id = queue.accept(
        &Submission {
            envelope: &envelope,
            content: &OCTETS.as_bytes().to_vec(),
            facts: Facts::default(),
            header_len: OCTETS.find("\r\n\r\n").unwrap() as u64 + 2,
            uid: 1000,
            account: None,
            tried: Some(&tried),
        },
        now(),
    );
    queue.look(id.unwrap().id()).unwrap().letter
}

fn to(local: &str) -> Recipient {
    Recipient::new(mailbox(local))
}

fn composed(kind: Kind, letter: &Letter) -> Option<String> {
    let dsn = compose(kind, letter, &OCTETS.as_bytes().to_vec(), by(), now()).unwrap()?;
    assert!(dsn.envelope.reverse_path().is_null());
    Some(String::from_utf8(dsn.octets).unwrap())
}

fn failure(letter: &Letter) -> Option<String> {
    composed(Kind::Failure, letter)
}

#[test]
fn a_null_reverse_path_is_never_answered() {
    assert_eq!(failure(&letter(None, vec![(to("bob"), refused("no"))], None)), None);
}

#[test]
fn notify_says_who_deserves_a_report() {
    let asked = |notify: &str, local: &str| Recipient { notify: Notify::parse(notify), ..to(local) };
    let everybody = |outcome: &Outcome| {
        let to = [asked("never", "a"), asked("success", "b"), asked("failure", "c"), asked("delay", "d"), to("e")];
        letter(Some(mailbox("alice")), to.map(|to| (to, outcome.clone())).to_vec(), None)
    };
    let told = |kind, outcome: &Outcome| {
        let text = composed(kind, &everybody(outcome)).unwrap();
        ["a", "b", "c", "d", "e"]
            .into_iter()
            .filter(|to| text.contains(&format!("Final-Recipient: rfc822; {to}@")))
            .collect::<String>()
    };
    assert_eq!(told(Kind::Failure, &refused("no")), "ce");
    assert_eq!(told(Kind::Delay { until: now() }, &deferred()), "de");
    let never = vec![(asked("never", "a"), refused("no"))];
    assert_eq!(failure(&letter(Some(mailbox("alice")), never, None)), None);
}

#[test]
fn only_those_who_will_not_get_it_are_named() {
    let outcomes = vec![(to("bob"), relayed()), (to("carol"), refused("5.1.1 no such user")), (to("dave"), deferred())];
    let text = failure(&letter(Some(mailbox("alice")), outcomes, None)).unwrap();
    assert!(text.contains("carol@") && !text.contains("bob@") && !text.contains("dave@"), "{text}");
}

#[test]
fn a_server_s_words_neither_end_a_line_nor_move_a_cursor() {
    let evil = "5.1.1 no\r\nBcc: x@y\r\n\r\n--\u{1b}[2J\u{9b}31m\u{202e}\0 é";
    let text = failure(&letter(Some(mailbox("alice")), vec![(to("bob"), refused(evil))], None)).unwrap();
    assert!(text.lines().all(|line| !line.starts_with("Bcc")), "{text}");
    assert!(text.chars().all(|c| !c.is_control() || matches!(c, '\r' | '\n')) && !text.contains('\u{202e}'));
    assert!(text.contains("said \"550 5.1.1 no??Bcc: x@y"), "{text}");
}

#[test]
fn every_line_is_canonical_and_short() {
    let words = "very ".repeat(300) + &"long".repeat(600);
    let text = failure(&letter(Some(mailbox("alice")), vec![(to("bob"), refused(&words))], None)).unwrap();
    for line in text.split_terminator("\r\n") {
        assert!(line.len() <= 300 && !line.contains(['\r', '\n']), "{line}");
    }
    assert!(text.ends_with("--\r\n"));
}

#[test]
fn no_line_of_the_letter_makes_the_report_bounce() {
    let long = "é".repeat(2_000);
    for (octets, kind, kept) in [
        (format!("Subject: {long}\r\nX: y\r\n\r\nhello\r\n"), "text/rfc822-headers", "\r\nX: y\r\n"),
        (format!("X: y\r\n\r\n{long}\r\n"), "text/rfc822-headers", "\r\nX: y\r\n"),
        (format!("X: y\r\n\r\n{}\r\n", "é".repeat(499)), "message/rfc822", "éé\r\n"),
    ] {
        let mut letter = letter(Some(mailbox("alice")), vec![(to("bob"), refused("no"))], Some(Ret::Full));
        letter.entry.header_len = octets.find("\r\n\r\n").unwrap() as u64 + 2;
        let dsn = compose(Kind::Failure, &letter, &octets.into_bytes(), by(), now()).unwrap().unwrap();
        let text = String::from_utf8(dsn.octets).unwrap();
        assert!(text.contains(&format!("Content-Type: {kind}\r\n")) && text.contains(kept), "{text}");
        assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    }
    // Wherever the fold falls.
    for length in 900..2_900 {
        let octets = format!("Subject: {}\r\n", "y".repeat(length)).into_bytes();
        let back = broken(&octets);
        assert!(back.split(|octet| *octet == b'\n').all(|line| line.len() <= 999), "{length}");
        assert_eq!(String::from_utf8(back).unwrap().replace("\r\n ", "").into_bytes(), octets);
    }
}

#[test]
fn the_whole_letter_goes_back_only_where_it_was_asked_for() {
    let back = |ret| {
        let text = failure(&letter(Some(mailbox("alice")), vec![(to("bob"), refused("no"))], ret)).unwrap();
        (text.contains("Content-Type: message/rfc822\r\n"), text.contains("\r\nHello\r\n"))
    };
    assert_eq!(back(None), (false, false));
    assert_eq!(back(Some(Ret::Headers)), (false, false));
    assert_eq!(back(Some(Ret::Full)), (true, true));
}

#[test]
fn addresses_that_are_not_ascii_are_written_in_rfc_6533_s_ascii_form() {
    let bob = Recipient::new(Mailbox::new("jörg+x", "bücher.example").unwrap());
    let text = failure(&letter(Some(mailbox("alice")), vec![(bob, refused("no"))], None)).unwrap();
    assert!(text.contains("Final-Recipient: utf-8; j\\x{F6}rg\\x{2B}x@xn--bcher-kva.example\r\n"), "{text}");
    let sender = Mailbox::new("alice", "bücher.example").unwrap();
    let text = failure(&letter(Some(sender), vec![(to("bob"), refused("no"))], None)).unwrap();
    assert!(text.contains("To: alice@xn--bcher-kva.example\r\n"), "{text}");
}

#[test]
fn a_relay_is_named_by_its_host() {
    for (relay, host) in [
        ("smtp.example.com:587", Some("smtp.example.com")),
        ("[::1]:25", Some("[::1]")),
        ("smtp.example.com", Some("smtp.example.com")),
        ("/run/lmtp.sock", None),
        ("", None),
    ] {
        assert_eq!(remote(relay), host, "{relay}");
    }
}

/// Prints what a program sees that knows RFC 3464 from elsewhere.
const READER: &str = r#"
import email, email.policy, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
assert not m.defects, m.defects
print(m.get_content_type(), m.get_param("report-type"), m["auto-submitted"], m["from"].addresses[0].addr_spec)
text, status, original = m.iter_parts()
for part in m.walk():
    assert not part.defects, (part, part.defects)
print(text.get_content_type(), original.get_content_type())
groups = status.get_payload()
for group in groups:
    for name, value in group.items():
        if not name.endswith("Date"):
            print(name + ": " + str(value))
print(email.message_from_string(original.get_payload(), policy=email.policy.default)["subject"])
"#;

#[test]
fn python_s_parser_reads_the_report_as_it_was_meant() {
    let bob = Recipient { orcpt: Some("rfc822;Bob@Example.org".to_owned()), ..to("bob") };
    let line = "5.1.1 <bob@example.org>: Recipient address rejected: User unknown in virtual mailbox table";
    let text = failure(&letter(Some(mailbox("alice")), vec![(bob, refused(line))], None)).unwrap();
    let python = Command::new("python3").args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else {
        assert!(std::env::var_os("CI").is_none(), "python3 is missing");
        println!("skipped: python3 is missing");
        return;
    };
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    let seen = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<&str> = seen.lines().filter(|line| !line.starts_with("X-Pillarbox-Queue-ID: ")).collect();
    assert_eq!(
        seen,
        [
            "multipart/report delivery-status auto-replied MAILER-DAEMON@example.org",
            "text/plain text/rfc822-headers",
            "Reporting-MTA: dns; host.example.org",
            "Original-Envelope-Id: QQ314159",
            "Original-Recipient: rfc822; Bob@Example.org",
            "Final-Recipient: rfc822; bob@example.org",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; smtp.example.com",
            &format!("Diagnostic-Code: smtp; 550 {line}"),
            "Dinner at eight",
        ]
    );
}
