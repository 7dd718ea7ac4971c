//! `sendmail -bs` as its clients meet it: the real program on two pipes.
//!
//! A session is data: what the client says, the codes that it hears, the status at the end. What counts above all is
//! that a letter is acknowledged when and only when it lies in the queue, wherever the client goes away.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::Stdio;
use support::household::Household;
use support::peer::here;
use support::relay::{Letter, Relay, Script};
use support::running::Ended;
use support::sendmail::sendmail;

const LETTER: &str = "EHLO box\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\
                      Subject: hello\r\n\r\ngood day\r\n.\r\n";

fn household() -> Household {
    // Nobody is asked before the queue is run.
    Household::new(&config(1))
}

fn config(port: u16) -> String {
    format!(
        "domain = \"box.example\"\n[account.work]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         from = \"alice@example.org\"\n"
    )
}

fn session(household: &Household, said: &[u8]) -> Ended {
    Ended::of(household.command(sendmail()).arg("-bs"), said)
}

/// The codes, with the enhanced ones where there are any: a word for each reply, several lines are one.
fn codes(heard: &str) -> Vec<String> {
    let last = heard.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
    last.map(|line| {
        let (code, text) = line.split_once(' ').unwrap();
        let enhanced = text.split(' ').next().filter(|word| word.len() == 5 && word.as_bytes()[1] == b'.');
        enhanced.map_or_else(|| code.to_owned(), |enhanced| format!("{code}/{enhanced}"))
    })
    .collect()
}

fn acknowledged(heard: &str) -> usize {
    heard.matches("queued as ").count()
}

fn queued(household: &Household) -> usize {
    let list = household.mailq();
    if list == "Mail queue is empty\n" {
        return 0;
    }
    list.lines().last().unwrap().split(' ').nth(4).unwrap().parse().unwrap()
}

/// Sends what is queued and gives what has arrived.
fn delivered(household: &Household) -> Vec<Letter> {
    let relay = Relay::start(Script::open());
    household.configure(&config(relay.address.port()));
    household.run_queue();
    household.assert_queue_is_empty();
    relay.finish().into_iter().flat_map(|dialogue| dialogue.letters).collect()
}

#[test]
fn every_dialogue_goes_as_the_manual_has_it() {
    let one = "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nDATA\r\nSubject: x\r\n\r\ny\r\n.\r\n";
    // What is said, the codes, the letters that are queued, the status.
    let rows: &[(&str, &str, usize, i32)] = &[
        ("QUIT\r\n", "220 221", 0, 0),
        ("", "220", 0, 0),
        ("EHLO box\r\n", "220 250", 0, 0),
        // HELO is not asked for, and the codes are enhanced behind EHLO only.
        (one, "220 250 250 354 250", 1, 0),
        (&format!("HELO box\r\n{one}QUIT\r\n"), "220 250 250 250 354 250 221", 1, 0),
        (&format!("EHLO box\r\n{one}QUIT\r\n"), "220 250 250/2.1.0 250/2.1.5 354 250/2.0.0 221/2.0.0", 1, 0),
        (&format!("{one}{one}RSET\r\n{one}"), "220 250 250 354 250 250 250 354 250 250 250 250 354 250", 3, 0),
        // Bare LFs.
        (&one.replace("\r\n", "\n"), "220 250 250 354 250", 1, 0),
        (&one.replace("<a@x.org>", "<>"), "220 250 250 354 250", 1, 0),
        (
            "VRFY bob\r\nEXPN all\r\nHELP\r\nNOOP\r\nSTARTTLS\r\nAUTH PLAIN x\r\nMUMBLE\r\nETRN x\r\nQUIT\r\n",
            "220 252 502 214 250 502 503 500 500 221",
            0,
            0,
        ),
        ("RCPT TO:<b@x.org>\r\nDATA\r\nMAIL FROM:<a@x.org>\r\nDATA\r\n", "220 503 503 250 503", 0, 0),
        ("MAIL FROM:<a@x.org> JUNK=1\r\nMAIL FROM:<a@x.org> SIZE=x\r\nMAIL a@x.org\r\n", "220 555 501 501", 0, 0),
        ("MAIL FROM:<a@x.org> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=a AUTH=<>\r\n", "220 250", 0, 0),
        (
            "EHLO box\r\nMAIL FROM:<>\r\nRCPT TO:<b@x.org> NOTIFY=NEVER\r\nRCPT TO:<c@x.org> NOTIFY=SUCCESS,DELAY\r\n\
             RCPT TO:<d@x.org> NOTIFY=NEVER,DELAY\r\nRCPT TO:<d@x.org> ORCPT=rfc822;d@y.org\r\n",
            "220 250 250/2.1.0 250/2.1.5 250/2.1.5 501/5.5.4 250/2.1.5",
            0,
            0,
        ),
        (
            "MAIL FROM:<>\r\nRCPT TO:<>\r\nRCPT TO:<b@x.org>c\r\nRCPT TO:<b c@x.org>\r\nRCPT <b@x.org>\r\n\
             RCPT TO:<root>\r\n\
             RCPT TO:b@x.org\r\nRCPT TO:<b@x.org> JUNK\r\n",
            "220 250 553 501 501 501 250 250 555",
            0,
            0,
        ),
        // A pipelining client whose recipients were all refused is not left alone with its letter.
        ("MAIL FROM:<a@x.org>\r\nRCPT TO:<>\r\nDATA\r\nNOOP\r\n", "220 250 553 503 250", 0, 0),
        // Its octets cannot be told from commands.
        ("MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nBDAT x\r\nQUIT\r\n", "220 250 250 501", 0, 76),
        (
            "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nBDAT 6\r\na: b\r\nBDAT 5 LAST\r\n\r\ny\r\nNOOP\r\n",
            "220 250 250 250 250 250",
            1,
            0,
        ),
        (
            "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nBDAT 6\r\na: b\r\nRSET\r\nQUIT\r\n",
            "220 250 250 250 250 221",
            0,
            0,
        ),
        ("MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nDATA\r\nSubject: x\r\n", "220 250 250 354", 0, 74),
        ("GET / HTTP/1.1\r\n", "220 421", 0, 76),
        (&"MUMBLE\r\n".repeat(30), &format!("220{} 421", " 500".repeat(20)), 0, 76),
        (&format!("NOOP {}\r\nNOOP\r\n", "x".repeat(5000)), "220 500 250", 0, 0),
    ];
    for (said, wanted, letters, status) in rows {
        let household = household();
        let ended = session(&household, said.as_bytes());
        assert_eq!(codes(&ended.stdout).join(" "), *wanted, "{said}\n{}", ended.stdout);
        assert_eq!((queued(&household), ended.status, &*ended.stderr), (*letters, *status, ""), "{said}");
    }
}

#[test]
fn ehlo_names_what_there_is_and_no_more() {
    let ended = session(&household(), b"EHLO box\r\nQUIT\r\n");
    let mut lines: Vec<_> =
        ended.stdout.lines().filter(|line| line.starts_with("250")).map(|line| &line[4..]).collect();
    lines.remove(0);
    let wanted = ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES", "HELP"];
    assert_eq!(lines, wanted);
}

#[test]
fn options_that_callers_add_change_nothing_and_a_recipient_is_a_mistake() {
    let household = household();
    for words in [&["-bs", "-odb", "-oem"][..], &["-bs", "-f", "carol@example.org"], &["-bs", "-i"]] {
        let ended = household.sendmail(words, LETTER.as_bytes());
        assert_eq!((ended.status, acknowledged(&ended.stdout)), (0, 1), "{words:?}: {ended:?}");
    }
    assert!(delivered(&household).iter().all(|letter| letter.mail.starts_with("MAIL FROM:<alice@example.org>")));
    assert_eq!(household.sendmail(&["-bs", "bob@example.org"], b"QUIT\r\n").status, 64);
}

#[test]
fn a_client_that_waits_for_each_answer_gets_it() {
    let household = household();
    let mut command = household.command(sendmail());
    let mut child = command.arg("-bs").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ours, mut theirs) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut hear = |code: &str| {
        let mut line = String::new();
        while line.as_bytes().get(3) != Some(&b' ') {
            line.clear();
            assert_ne!(theirs.read_line(&mut line).unwrap(), 0, "it went away instead of {code}");
        }
        assert!(line.starts_with(code), "{line:?} instead of {code}");
    };
    hear("220");
    for letter in 0..200 {
        for (said, code) in [
            ("EHLO box\r\n".to_owned(), "250"),
            (format!("MAIL FROM:<a{letter}@x.org>\r\n"), "250"),
            ("RCPT TO:<b@x.org>\r\n".to_owned(), "250"),
            ("DATA\r\n".to_owned(), "354"),
            (format!("Subject: {letter}\r\n\r\n..dot\r\n.\r\n"), "250"),
            ("NOOP\r\n".to_owned(), "250"),
        ] {
            ours.write_all(said.as_bytes()).unwrap();
            hear(code);
        }
        // Only now is the next one sent: this one is there already.
        if letter % 50 == 0 {
            assert_eq!(queued(&household), letter + 1);
        }
    }
    drop(ours);
    assert!(child.wait().unwrap().success());
    assert_eq!(queued(&household), 200);
}

/// Every prefix of a session, as of a client that is killed.
fn vanish_everywhere(said: &[u8], whole: &str) {
    let household = household();
    let mut all = 0;
    for end in 0..said.len() {
        let ended = session(&household, &said[..end]);
        all += acknowledged(&ended.stdout);
        assert!(matches!(ended.status, 0 | 74), "after {end} octets: {ended:?}");
        assert_eq!(queued(&household), all, "after {end} octets: {ended:?}");
    }
    assert!(all > 0);
    let letters = delivered(&household);
    assert_eq!(letters.len(), all);
    for letter in letters {
        assert!(letter.content.ends_with(whole.as_bytes()), "{letter:?}");
    }
}

#[test]
fn a_client_that_vanishes_anywhere_leaves_a_whole_letter_or_none() {
    vanish_everywhere(format!("{LETTER}QUIT\r\n").as_bytes(), "\r\n\r\ngood day\r\n");
}

#[test]
fn a_client_that_vanishes_between_chunks_leaves_a_whole_letter_or_none() {
    let said = "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@x.org>\r\nBDAT 6\r\na: b\r\nBDAT 12 LAST\r\n\r\ngood day\r\nQUIT\r\n";
    vanish_everywhere(said.as_bytes(), "\r\n\r\ngood day\r\n");
}

#[test]
fn the_250_is_said_when_the_letter_is_durable_and_not_before() {
    if !here(&["strace"]) {
        return;
    }
    let household = household();
    let (trace, mut strace) = (household.home().join("trace"), household.command("strace"));
    strace.args(["-f", "-s", "4096", "-e", "trace=fsync,fdatasync,write", "-o"]).arg(&trace).arg(sendmail()).arg("-bs");
    let ended = Ended::of(&mut strace, LETTER.as_bytes());
    assert_eq!((ended.status, acknowledged(&ended.stdout)), (0, 1), "{ended:?}");
    let trace = std::fs::read_to_string(trace).unwrap();
    let (before, after) = trace.split_once("queued as").unwrap();
    // The letter, its record, the directory.
    assert!(before.matches("sync(").count() >= 3, "{trace}");
    assert_eq!(after.matches("sync(").count(), 0, "{trace}");
}

#[test]
fn a_disk_that_does_not_keep_it_is_a_452_and_the_session_goes_on() {
    if !here(&["strace"]) {
        return;
    }
    for failing in 1..=3 {
        let household = household();
        let mut strace = household.command("strace");
        let fault = format!("inject=fsync,fdatasync:error=EIO:when={failing}");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &fault]).arg(sendmail()).arg("-bs");
        let ended = Ended::of(&mut strace, format!("{LETTER}{LETTER}QUIT\r\n").as_bytes());
        assert!(ended.stdout.contains("\r\n452 4.3.1 "), "{failing}: {ended:?}");
        assert_eq!((ended.status, acknowledged(&ended.stdout), queued(&household)), (0, 1, 1), "{failing}: {ended:?}");
    }
}

#[test]
fn the_letter_is_completed_and_its_bcc_is_nobodys_business() {
    let household = household();
    let said = "EHLO box\r\nMAIL FROM:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<root>\r\nDATA\r\n\
                To: bob@example.org\r\nBcc: root\r\nSubject: hello\r\n\r\ngood day\r\n.\r\n";
    assert_eq!(acknowledged(&session(&household, said.as_bytes()).stdout), 1);
    let letters = delivered(&household);
    let content = String::from_utf8_lossy(&letters[0].content).into_owned();
    for field in ["From: ", "Date: ", "Message-ID: ", "Subject: hello"] {
        assert_eq!(
            content.matches(&format!("\r\n{field}")).count() + usize::from(content.starts_with(field)),
            1,
            "{content}"
        );
    }
    assert!(!content.contains("Bcc"), "{content}");
    assert!(letters[0].recipients.iter().any(|to| to.contains("<root@box.example>")), "{:?}", letters[0].recipients);
}

#[test]
fn eight_bits_and_addresses_beyond_ascii_pass_as_they_are() {
    let household = household();
    let said = "EHLO box\r\nMAIL FROM:<j\u{f6}rg@example.org> SMTPUTF8 BODY=8BITMIME\r\n\
                RCPT TO:<bj\u{f8}rn@example.org>\r\nDATA\r\n\
                Subject: gr\u{fc}n\r\n\r\n\u{e4}\u{f6}\u{fc}\r\n.\r\n";
    assert_eq!(acknowledged(&session(&household, said.as_bytes()).stdout), 1);
    let letters = delivered(&household);
    assert!(letters[0].mail.starts_with("MAIL FROM:<j\u{f6}rg@example.org>"), "{}", letters[0].mail);
    assert!(letters[0].mail.contains("SMTPUTF8") && letters[0].mail.contains("BODY=8BITMIME"), "{}", letters[0].mail);
    assert!(letters[0].content.ends_with("\r\n\r\n\u{e4}\u{f6}\u{fc}\r\n".as_bytes()));
}

#[test]
fn a_large_letter_arrives_whole() {
    let household = household();
    let mut body = String::new();
    for line in 0..100_000 {
        write!(body, "this is line {line} of a long letter\r\n").unwrap();
    }
    let said = LETTER.replace("good day\r\n", &body);
    assert_eq!(acknowledged(&session(&household, said.as_bytes()).stdout), 1);
    assert!(delivered(&household)[0].content.ends_with(body.as_bytes()));
}
