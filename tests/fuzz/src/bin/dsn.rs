//! Reports: valid MIME of three parts, no line too long, no field and no address that is a stranger's idea.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::dsn::{Kind, Reporter, compose};
use pillarbox::envelope::{Envelope, Mailbox, Recipient, Ret, ReversePath};
use pillarbox::message::LoneDot;
use pillarbox::message::address::parse_list;
use pillarbox::outcome::{Blame, Cause, Fault, Outcome, Reply, Stage, Status};
use pillarbox::queue::{Entry, Id, Tried, fuzz};
use pillarbox_fuzz::{Tape, is_canonical, message, octets};
use std::time::{Duration, UNIX_EPOCH};

const FIELDS: [&str; 12] = [
    "Reporting-MTA",
    "X-Pillarbox-Queue-ID",
    "Original-Envelope-Id",
    "Arrival-Date",
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
    "Last-Attempt-Date",
    "Will-Retry-Until",
];

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let flags = tape.octet();
    let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let (host, relay, words, orcpt, envid) = (tape.text(), tape.text(), tape.text(), tape.text(), tape.text());
    let to: Vec<Recipient> = parse_list(&tape.text())
        .unwrap_or_default()
        .iter()
        .filter_map(|one| one.to_mailbox("d.example").ok())
        .map(|mailbox| Recipient { orcpt: Some(orcpt.clone()), ..Recipient::new(mailbox) })
        .collect();
    let from = parse_list(&tape.text()).ok().and_then(|list| list.first()?.to_mailbox("d.example").ok());
    let from = from.or_else(|| Mailbox::new("alice", "d.example").ok());
    let Some(mut envelope) = Envelope::new(ReversePath(from), to) else { return };
    envelope.ret = (flags & 1 == 1).then_some(Ret::Full);
    envelope.envid = (flags & 2 == 2).then_some(envid);
    let Some(original) = message(tape.0, usize::MAX, LoneDot::IsText) else { return };
    let content = octets(&original);

    let entry = Entry {
        id: Id::parse("0123456789AB").unwrap(),
        created: now,
        uid: 0,
        account: None,
        envelope,
        facts: original.facts(),
        header_len: original.header_len(),
        size: original.size(),
    };
    let cause = match flags >> 2 & 3 {
        0 => Cause::Reply(Reply { code: 550, lines: words.split('\n').map(str::to_owned).collect() }),
        1 => Cause::Network(words),
        _ => Cause::Tls(words),
    };
    let fault = Fault::new(Stage::Rcpt, cause);
    let late = flags & 16 == 16;
    let outcome = if late {
        Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 4, 1), maybe_duplicate: false }
    } else {
        Outcome::Failed { fault, blame: Blame::Recipient, status: Status::new(5, 1, 1) }
    };
    let count = entry.envelope.recipients().len();
    let tried: Vec<Tried<'_>> = (0..count).map(|_| Tried { outcome: &outcome, relay: &relay }).collect();
    let letter = fuzz::letter(entry, &tried, 1, now);
    let kind = if late { Kind::Delay { until: now } } else { Kind::Failure };
    let by = Reporter { host: &host, domain: "box.example", keep: Duration::from_secs(86_400) };
    let dsn = compose(kind, &letter, &content, by, now).unwrap().expect("somebody is to be told");
    assert!(dsn.envelope.reverse_path().is_null());
    check(&dsn.octets, count);
});

fn check(report: &[u8], count: usize) {
    assert!(is_canonical(report) && !report.contains(&0));
    for line in report.split(|octet| *octet == b'\n') {
        assert!(line.len() <= 999, "{} octets: {}", line.len(), line.escape_ascii());
    }
    let header_end = memchr::memmem::find(report, b"\r\n\r\n").unwrap();
    let header = std::str::from_utf8(&report[..header_end]).unwrap();
    let names: Vec<&str> =
        header.lines().filter(|line| !line.starts_with(' ')).map(|line| line.split(':').next().unwrap()).collect();
    let expected = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
    assert_eq!(names, expected);
    let (_, boundary) = header.rsplit_once("boundary=\"").unwrap();
    let mark = format!("\r\n--{}", boundary.trim_end_matches('"'));
    let marks: Vec<usize> = memchr::memmem::find_iter(report, mark.as_bytes()).collect();
    assert_eq!(marks.len(), 4, "three parts and an end");
    assert!(report.ends_with(format!("{mark}--\r\n").as_bytes()));
    let part = |i: usize| &report[marks[i] + mark.len() + 2..marks[i + 1]];
    let body = |part: &[u8]| memchr::memmem::find(part, b"\r\n\r\n").map(|end| part[end + 4..].to_vec()).unwrap();
    for i in 0..3 {
        let head = &part(i)[..memchr::memmem::find(part(i), b"\r\n\r\n").unwrap()];
        let seven = memchr::memmem::find(head, b"7bit").is_some();
        assert!(!seven || body(part(i)).is_ascii());
    }
    let text = String::from_utf8(body(part(0))).expect("the text is UTF-8");
    assert!(text.chars().all(|c| !c.is_control() || matches!(c, '\r' | '\n')), "{text:?}");
    let status = String::from_utf8(body(part(1))).unwrap();
    assert!(status.is_ascii());
    for line in status.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')) {
        assert!(FIELDS.contains(&line.split(':').next().unwrap()), "{line}");
    }
    assert_eq!(status.matches("\r\nFinal-Recipient: ").count(), count);
    assert_eq!(status.split("\r\n\r\n").count(), count + 1, "a group for the letter and one for each recipient");
    assert!(
        !status.lines().any(|line| line.trim().is_empty() && !line.is_empty()),
        "a fold without text ends the field"
    );
}
