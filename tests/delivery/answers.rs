//! The relay's answers: what it refuses, puts off or leaves open, who is told of it, and what stays in the queue.

use crate::support::case::{case, check, text};
use crate::support::relay::{Act, CONTENT, DOT, GREETING, HANDSHAKE, Letter, Relay, Script};
use crate::support::sendmail::Sendmail;
use std::time::Duration;

const THREE: [&str; 3] = ["a@x.example", "bad@x.example", "c@x.example"];
const UNKNOWN: &str = "550 5.1.1 no such user";

#[test]
fn one_refused_recipient_does_not_cost_the_others() {
    let refused = |name: &str| {
        case(name).words(&THREE).relay(Script::default().on("RCPT TO:<bad@", UNKNOWN)).letter(|letter| {
            if letter.recipients.len() == 2 { Ok(()) } else { Err(format!("{:?}", letter.recipients)) }
        })
    };
    check([
        refused("refused: the sender gets a report").queued(&["MAILER-DAEMON", "alice@example.com"]),
        refused("refused, no queue")
            .queue("off")
            .status(67)
            // Whoever sends again must know who has it already.
            .says(&["<bad@x.example>", "RELAY", "account work", UNKNOWN, "after RCPT TO"])
            .says(&["<a@x.example> relayed by", "<c@x.example> relayed by"]),
        refused("put off: it waits in the queue")
            .relay(Script::default().on("RCPT TO:<bad@", "450 4.2.0 greylisted"))
            .queued(&["bad@x.example", "greylisted", "in 1 Request"]),
        refused("without PIPELINING")
            .relay(Script::default().offering(&["SIZE 1000000"]).on("RCPT TO:<bad@", UNKNOWN))
            .queued(&["MAILER-DAEMON"]),
        refused("with a null sender nobody is to be told")
            .words(&["-f", "<>", "a@x.example", "bad@x.example", "c@x.example"])
            .unqueued(),
    ]);
}

#[test]
fn a_refusal_of_everybody_is_told_to_the_caller_and_nothing_is_kept() {
    let refused = |name: &str, script: Script, status: i32, parts: &[&str]| {
        let facts = ["<bob@example.org>", "RELAY", "account work"];
        case(name).relay(script).status(status).says(&facts).says(parts).undelivered().unqueued()
    };
    check([
        refused("RCPT", Script::default().on("RCPT", UNKNOWN), 67, &[UNKNOWN, "after RCPT TO"]),
        refused(
            "MAIL",
            Script::default().on("MAIL", "550 5.7.1 not you"),
            65,
            &["550 5.7.1 not you", "after MAIL FROM"],
        ),
        refused("DATA", Script::default().on("DATA", "554 5.7.1 spam"), 65, &["554 5.7.1 spam", "after DATA"]),
        refused("the dot", Script::default().on(DOT, "554 5.6.0 no"), 65, &["554 5.6.0 no", "after the final dot"]),
        refused(
            "escaped",
            Script::default().on("RCPT", Act::Raw(b"550 \x1b[2J\x9b\r\n".to_vec())),
            67,
            &["550 \\x1b[2J"],
        )
        .hides(&["\x1b", "\u{9b}"]),
        refused(
            "more than one line",
            Script::default().on("RCPT", "550-5.1.1 no such\n550 5.1.1 user"),
            67,
            &["550 5.1.1 no such user"],
        ),
        refused("MAIL, no queue", Script::default().on("MAIL", "550 5.7.1 not you"), 65, &["550 5.7.1"]).queue("off"),
        refused("all three", Script::default().on("RCPT", UNKNOWN), 67, &[])
            .words(&["bob@example.org", "carol@example.org", "dave@example.org"])
            .says(&["<carol@example.org>", "<dave@example.org>"]),
        case("-oeq is silent")
            .words(&["-oeq", "bob@example.org"])
            .relay(Script::default().on("RCPT", UNKNOWN))
            .status(67)
            .undelivered()
            .unqueued(),
        case("-oee: a report, and 0")
            .words(&["-oee", "bob@example.org"])
            .relay(Script::default().on("RCPT", UNKNOWN))
            .undelivered()
            .queued(&["MAILER-DAEMON", "alice@example.com"]),
    ]);
}

/// What a server that refuses the session for good is worth where there is no queue: the contract has 69 for
/// "refused", and nothing about it is temporary.
#[test]
fn a_session_refused_for_good_is_69_without_a_queue() {
    let refused = |name: &str, script: Script, part: &str| {
        case(name).relay(script).queue("off").status(69).says(&["<bob@example.org>", "RELAY", part]).undelivered()
    };
    check([
        refused("greeting", Script::default().on(GREETING, "554 5.7.1 not you"), "554 5.7.1 not you"),
        refused("EHLO", Script::default().on("EHLO", "550 5.7.1 bad name"), "550 5.7.1 bad name"),
        refused("STARTTLS", Script::default().on("STARTTLS", "502 5.5.1 no"), "502 5.5.1 no"),
    ]);
}

/// What is temporary: kept in silence where there is a queue, 75 and a sentence where there is none.
#[test]
fn what_is_temporary_is_kept_or_told() {
    let rows: Vec<(&str, Script, &str, &str)> = vec![
        ("MAIL", Script::default().on("MAIL", "451 4.3.0 later"), "", "451 4.3.0 later"),
        ("RCPT", Script::default().on("RCPT", "450 4.2.0 greylisted"), "", "450 4.2.0 greylisted"),
        ("DATA", Script::default().on("DATA", "451 4.3.0 later"), "", "451 4.3.0 later"),
        ("the dot", Script::default().on(DOT, "452 4.3.1 disk full"), "", "452 4.3.1 disk full"),
        (
            "the greeting",
            Script::default().on(GREETING, Act::SayAndDrop("421 4.3.2 busy".into())),
            "",
            "421 4.3.2 busy",
        ),
        (
            "421 for RCPT",
            Script::default().on("RCPT", Act::SayAndDrop("421 4.3.2 closing".into())),
            "",
            "421 4.3.2 closing",
        ),
        ("AUTH put off", Script::default().on("AUTH", "454 4.7.0 backend down"), "", "454 4.7.0 backend down"),
        ("STARTTLS put off", Script::default().on("STARTTLS", "454 4.7.0 no TLS now"), "", "454 4.7.0 no TLS now"),
        ("dropped before the greeting", Script::default().on(GREETING, Act::Drop), "", ""),
        ("reset before the greeting", Script::default().on(GREETING, Act::Reset), "", ""),
        ("dropped in the handshake", Script::default().on(HANDSHAKE, Act::Drop), "", ""),
        ("dropped after MAIL", Script::default().on("MAIL", Act::Drop), "", ""),
        ("stalled greeting", Script::default().on(GREETING, Act::Stall), "timeout = \"1s\"", ""),
        ("stalled handshake", Script::default().on(HANDSHAKE, Act::Stall), "timeout = \"1s\"", ""),
        ("stalled inside TLS", Script::default().on("RCPT", Act::Stall), "timeout = \"1s\"", ""),
        (
            "a reply that drips",
            Script::default()
                .on("MAIL", Act::Drip("250 2.1.0 o".to_owned() + &"k".repeat(100), Duration::from_millis(100))),
            "timeout = \"1s\"",
            "",
        ),
    ];
    let mut cases = Vec::new();
    for (name, script, account, words) in rows {
        let base = |name: String| case(&name).relay(script.clone()).account(account).undelivered();
        cases.push(base(format!("{name}, queue")).queued(&["bob@example.org", "in 1 Request", words]));
        cases.push(base(format!("{name}, no queue")).queue("off").status(75).says(&[
            "<bob@example.org>",
            "RELAY",
            "account work",
            words,
        ]));
    }
    // More than fits into the buffers on the way, so that its end has not been sent.
    let large = format!("Subject: x\n\n{}", "0123456789\n".repeat(1024 * 1024));
    let dropped = Script::default().on(CONTENT, Act::DropAfter(100_000)).offering(&["PIPELINING"]);
    let dropped = case("dropped in the content").relay(dropped).input(large).undelivered().queue("off").status(75);
    cases.push(dropped.says(&["<bob@example.org>", "RELAY", "account work"]).hides(&["duplicate"]));
    cases.push(case("a dead port, queue").account("port = 1").unsent().queued(&["bob@example.org", "refused"]));
    cases.push(case("a dead port, no queue").account("port = 1").queue("off").status(75).unsent().says(&[
        "<bob@example.org>",
        "127.0.0.1:1",
        "account work",
        "refused",
    ]));
    check(cases);
}

#[test]
fn a_letter_that_was_put_off_is_the_same_when_it_goes() {
    let relay = Relay::start(Script::default().once(DOT, "451 4.3.0 later"));
    let sendmail = Sendmail::to(&relay);
    let words = ["-i", "-N", "failure", "-f", "a@x.example", "bob@example.org", "carol@example.org"];
    let input = "Subject: x\nDate: d\nMessage-ID: <m@x>\nFrom: a@x.example\n\n.\n..dots\nGrüße\n";
    for (words, input) in [(&words[..], input), (&["-qf"], "")] {
        let ran = sendmail.run(words, input.as_bytes());
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{words:?}");
    }
    assert_eq!(sendmail.run(&["-bp"], b"").stdout, "Mail queue is empty\n");
    let heard = relay.finish();
    let letters: Vec<&Letter> = heard.iter().flat_map(|dialogue| &dialogue.letters).collect();
    let [letter] = letters[..] else { panic!("{letters:?}") };
    assert_eq!(text(&letter.content).unwrap(), input);
    assert!(letter.mail.starts_with("MAIL FROM:<a@x.example> SIZE="), "{letter:?}");
    let recipients = ["bob", "carol"].map(|name| format!("RCPT TO:<{name}@example.org> NOTIFY=FAILURE"));
    assert_eq!(letter.recipients, recipients);
}

/// A server that has heard enough says so before the final dot.
#[test]
fn an_answer_before_the_end_of_the_content_is_heard() {
    let huge = format!("Subject: x\n\n{}", "0123456789\n".repeat(900_000));
    let early = |name: &str, act: Act| {
        let script = Script::default().offering(&["PIPELINING"]).on(CONTENT, act);
        case(name).relay(script).input(&huge).undelivered().hides(&["duplicate"])
    };
    check([
        early("552 and gone", Act::SayAndDrop("552 5.3.4 too big".to_owned()))
            .status(65)
            .says(&["<bob@example.org>", "552 5.3.4 too big"])
            .unqueued(),
        early("552", Act::from("552 5.3.4 too big")).status(65).says(&["552 5.3.4 too big"]).unqueued(),
        early("421 and gone", Act::SayAndDrop("421 4.3.2 bye".to_owned()))
            .queued(&["bob@example.org", "421 4.3.2 bye"]),
        early("deaf until the deadline", Act::Deaf).queue("deadline = \"1s\"").queued(&["bob@example.org"]),
    ]);
}

#[test]
fn a_lost_final_answer_is_neither_success_nor_failure() {
    for act in [Act::Drop, Act::Reset, Act::Stall] {
        let lost = |name: &str| {
            case(&format!("{name} {act:?}"))
                .relay(Script::default().on(DOT, act.clone()))
                .account("timeout = \"1s\"")
                .undelivered()
        };
        check([
            lost("queue").queued(&["bob@example.org", "in 1 Request"]),
            lost("no queue").queue("off").status(75).says(&["<bob@example.org>", "possible duplicate"]),
            lost("watched").words(&["-v", "bob@example.org"]).says(&["possible duplicate", "queue"]),
        ]);
    }
}

#[test]
fn a_server_that_breaks_the_protocol_gets_nothing_more() {
    let broken = |name: &str, script: Script| {
        case(name)
            .relay(script)
            .queue("off")
            .status(76)
            .says(&["<bob@example.org>", "RELAY", "account work"])
            .undelivered()
    };
    let injected = Act::Raw(b"220 go\r\n250-relay.example\r\n250 AUTH PLAIN\r\n".to_vec());
    check([
        broken("plaintext behind STARTTLS's 220", Script::default().on("STARTTLS", injected.clone())).also(
            |_, _, heard| {
                let clear = String::from_utf8_lossy(&heard[0].clear);
                let is_over = heard[0].encrypted.is_empty() && !clear.contains("AUTH") && !clear.contains("MAIL");
                if is_over { Ok(()) } else { Err(format!("the session went on: {clear:?}")) }
            },
        ),
        case("the same with a queue")
            .relay(Script::default().on("STARTTLS", injected))
            .undelivered()
            .queued(&["bob@example.org"]),
        broken("no SMTP at all", Script::default().on(GREETING, "SSH-2.0-OpenSSH")),
        broken("a line without an end", Script::default().on(GREETING, Act::Flood(vec![b'x'; 64 * 1024]))),
        broken("lines without an end", Script::default().on(GREETING, Act::Flood(b"220-hello\r\n".repeat(1000)))),
        broken("more answers than questions", Script::default().on("AUTH", "235 2.7.0 ok\n250 2.1.0 ok\n250 2.1.5 ok")),
        broken("250 for AUTH", Script::default().on("AUTH", "250 2.0.0 sure")),
        broken("354 for the dot", Script::default().on(DOT, "354 more")),
        broken("mixed codes", Script::default().on("MAIL", "250-ok\n550 no")),
    ]);
}

/// The queue's directory cannot be one.
#[test]
fn a_queue_that_cannot_be_written_is_no_reason_to_lie() {
    let broken = |name: &str, script: Script| {
        case(name)
            .words(&["a@x.example", "b@x.example"])
            .relay(script)
            .world(|sendmail| {
                sendmail.put("queue", "");
                sendmail
            })
            .status(73)
    };
    check([
        broken("not needed", Script::default()).status(0),
        broken("nobody has it", Script::default().on("MAIL", "451 4.3.0 later")).undelivered().says(&["HOME/queue"]),
        broken("one has it, the other was put off", Script::default().on("RCPT TO:<b@", "450 4.2.0 later"))
            .says(&["<b@x.example>", "HOME/queue"])
            .hides(&["nothing was sent"]),
        broken("perhaps somebody has it", Script::default().on(DOT, Act::Drop))
            .undelivered()
            .says(&["possible duplicate", "HOME/queue"])
            .hides(&["nothing was sent"]),
    ]);
}
