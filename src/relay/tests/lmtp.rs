//! LMTP: an answer for each recipient. RFC 2033.

use super::*;

#[test]
fn an_lmtp_server_answers_for_each_recipient_and_each_is_told_the_truth() {
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );
    const FULL: &[(&str, &str)] =
        &[("RCPT TO:<bad", "550 unknown"), (".full", "452 4.2.2 full"), (".gone", "550 gone")];
    let mut wrong = Vec::new();
    for ehlo in [NEITHER, PIPELINING, CHUNKING] {
        let cases: &[Case] = &[
            (&[], &["a,b", "c"], &["relayed, relayed", "relayed"], &["a+b: 0", "c: 1"]),
            (
                FULL,
                &["bad,a,full,gone,b", "c"],
                &["failed Rcpt 550, relayed, deferred Dot 452, failed Dot 550, relayed", "relayed"],
                &["a+b: 0", "c: 1"],
            ),
            (
                FULL,
                &["bad", "full", "bad,c"],
                &["failed Rcpt 550", "deferred Dot 452", "failed Rcpt 550, relayed"],
                &["c: 2"],
            ),
            // Lost among the answers: who has one keeps it.
            (
                &[(".b", "250 taken !close")],
                &["a,b,c,d"],
                &["relayed, relayed, deferred Dot network duplicate?, deferred Dot network duplicate?"],
                &["a+b: 0"],
            ),
            (&[(".a", "!close")], &["a,b"], &["deferred Dot network duplicate?, deferred Dot network duplicate?"], &[]),
            (&[(".b", "HTTP/1.1")], &["a,b"], &["relayed, deferred Dot protocol duplicate?"], &["a: 0"]),
            (&[("MAIL#1", "451 busy")], &["a,b", "c"], &["deferred Mail 451, deferred Mail 451", "relayed"], &["c: 1"]),
        ];
        for (rules, letters, told, got) in cases {
            let notes = letters.iter().enumerate().map(|(i, to)| Note::new(to, &format!("{i}\r\n"))).collect();
            let (outcomes, seen) = run(Script { ehlo, rules, lmtp: true, ..Script::default() }, notes);
            if outcomes != *told || taken(&seen) != *got || !seen.commands[0].starts_with("LHLO ") {
                let (taken, heard) = (taken(&seen), seen.commands.join(" / "));
                wrong.push(format!("{ehlo:?} {rules:?}\n   told {outcomes:?}\n  taken {taken:?}\n  heard {heard}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_lmtp_server_that_wants_a_letter_for_nobody_gets_none() {
    let rules = &[("RCPT", "550 unknown"), ("DATA", "354 go on")];
    let script = Script { ehlo: PIPELINING, rules, lmtp: true, ..Script::default() };
    let (told, seen) = run(script, vec![Note::new("a", "0\r\n")]);
    assert_eq!(told, ["failed Rcpt 550"]);
    assert!(seen.taken.is_empty());
}

#[test]
fn an_lmtp_server_that_refuses_bdat_gets_each_letter_once() {
    let script = Script { ehlo: CHUNKING, rules: NO_BDAT, lmtp: true, ..Script::default() };
    let (told, seen) = run(script, vec![Note::new("a,b", "0\r\n"), Note::new("c", "1\r\n")]);
    assert_eq!(told, ["relayed, relayed", "relayed"]);
    assert_eq!(taken(&seen), ["a+b: 0", "c: 1"]);
}
