//! Letters through a whole session with a server that follows a script, over loopback.

mod lmtp;
pub(super) mod srv;

use super::*;
use crate::config::Tls;
use crate::envelope::{Mailbox, Recipient, ReversePath};
use crate::outcome::Outcome;
use crate::smtp::scripted::{Script, Seen, Server, certificate};
use proptest::prelude::*;
use srv::Services;
use std::io::{self, Read, Write};

const PIPELINING: &[&str] = &["PIPELINING", "8BITMIME"];
const CHUNKING: &[&str] = &["PIPELINING", "CHUNKING", "8BITMIME"];
const NEITHER: &[&str] = &["8BITMIME"];
const BAD: &[(&str, &str)] = &[("RCPT TO:<bad", "550 unknown"), ("RCPT TO:<grey", "450 later")];
const NO_BDAT: &[(&str, &str)] = &[("BDAT", "502 what?")];

/// A letter whose content can be cut short.
#[derive(Clone)]
struct Note {
    envelope: Envelope,
    content: Vec<u8>,
    size: u64,
}

impl Note {
    /// `a,b` are the recipients `a@x.org` and `b@x.org`.
    fn new(to: &str, content: &str) -> Self {
        let mailbox = |local| Mailbox::new(local, "x.org").unwrap();
        let to = to.split(',').map(|local| Recipient::new(mailbox(local))).collect();
        let envelope = Envelope::new(ReversePath(Some(mailbox("me"))), to).unwrap();
        Self { envelope, content: content.as_bytes().to_vec(), size: content.len() as u64 }
    }
}

impl Letter for Note {
    fn size(&self) -> u64 {
        self.size
    }
    fn is_8bit(&self) -> bool {
        !self.content.is_ascii()
    }
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.content[..]))
    }
    fn for_7bit(&self) -> Result<Box<dyn Letter>, String> {
        Err("not in seven bits".to_owned())
    }
}

impl Job for Note {
    fn envelope(&self) -> &Envelope {
        &self.envelope
    }
    fn letter(&self) -> &dyn Letter {
        self
    }
}

fn account(port: u16) -> Account {
    let mut account = Account::new("test");
    account.hosts = vec![Host::Tcp { name: "localhost".to_owned(), port }];
    account.tls = Tls::Off;
    account
}

fn open_for(account: &Account) -> Connection {
    let opened = open_asking(account, &Services(|_: &str, _: &str| panic!("the DNS is not asked")));
    opened.unwrap_or_else(|unreached| panic!("{unreached:?}"))
}

fn open_asking(account: &Account, directory: &dyn Directory) -> Result<Connection, Unreached> {
    let way = Way {
        account,
        domain: Some("example.org"),
        password: &|_| Ok(Secret::new(b"secret".to_vec())),
        helo: "client.example",
        deadline: Instant::now() + Duration::from_mins(1),
        transcript: None,
        interrupt: Interrupt::default(),
    };
    Connection::open_asking(&way, directory)
}

/// One recipient's outcome in a few words: `relayed`, `failed Rcpt 550`, `deferred Dot network duplicate?`.
fn said(outcome: &Outcome) -> String {
    let place = |fault: &Fault| {
        let what = match &fault.cause {
            Cause::Reply(reply) => reply.code.to_string(),
            Cause::Network(_) => "network".to_owned(),
            Cause::Protocol(_) => "protocol".to_owned(),
            Cause::Timeout(_) => "timeout".to_owned(),
            Cause::Local(_) => "local".to_owned(),
            other => format!("{other:?}"),
        };
        format!("{:?} {what}", fault.stage)
    };
    match outcome {
        Outcome::Relayed(_) => "relayed".to_owned(),
        Outcome::Failed { fault, .. } => format!("failed {}", place(fault)),
        Outcome::Deferred { fault, maybe_duplicate, .. } => {
            format!("deferred {}{}", place(fault), if *maybe_duplicate { " duplicate?" } else { "" })
        }
    }
}

/// Sends the letters over one connection; for each that was asked for, its outcomes, joined by commas.
fn run(script: Script, notes: Vec<Note>) -> (Vec<String>, Seen) {
    let lmtp = script.lmtp;
    let (port, server) = Server::start(script);
    let mut connection = open_for(&Account { lmtp, ..account(port) });
    let mut told = Vec::new();
    let mut notes = notes.into_iter().enumerate();
    let numbered = &mut || notes.next().map(|(i, note)| Numbered(i, note));
    connection.send_all(Duration::from_mins(1), numbered, &mut |Numbered(i, _), report| {
        assert_eq!(i, told.len(), "letters come back in their order");
        told.push(report.outcomes.iter().map(said).collect::<Vec<_>>().join(", "));
    });
    connection.close();
    (told, server.join().unwrap())
}

struct Numbered(usize, Note);

impl Job for Numbered {
    fn envelope(&self) -> &Envelope {
        &self.1.envelope
    }
    fn letter(&self) -> &dyn Letter {
        &self.1
    }
}

/// Who has got what: `a+b: one`.
fn taken(seen: &Seen) -> Vec<String> {
    let one = |(to, content): &(Vec<String>, Vec<u8>)| {
        let to: Vec<&str> = to.iter().map(|to| to.split('@').next().unwrap()).collect();
        format!("{}: {}", to.join("+"), String::from_utf8_lossy(content).trim_end())
    };
    seen.taken.iter().map(one).collect()
}

/// What EHLO offers; the script; the letters' recipients; what they are told; what the server has taken.
struct Case(
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

const CASES: &[Case] = &[
    // One letter after the other, whatever is offered.
    Case(NEITHER, &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
    Case(PIPELINING, &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
    Case(CHUNKING, &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
    Case(&["CHUNKING"], &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
    // One refused recipient costs nobody else the letter.
    Case(NEITHER, BAD, &["bad,a", "b"], &["failed Rcpt 550, relayed", "relayed"], &["a: 0", "b: 1"]),
    Case(PIPELINING, BAD, &["bad,a", "b"], &["failed Rcpt 550, relayed", "relayed"], &["a: 0", "b: 1"]),
    Case(CHUNKING, BAD, &["bad,a", "b"], &["failed Rcpt 550, relayed", "relayed"], &["a: 0", "b: 1"]),
    // All refused, with a server that says so again to what comes after.
    Case(NEITHER, BAD, &["bad,grey", "b"], &["failed Rcpt 550, deferred Rcpt 450", "relayed"], &["b: 1"]),
    Case(PIPELINING, BAD, &["bad,grey", "b"], &["failed Rcpt 550, deferred Rcpt 450", "relayed"], &["b: 1"]),
    Case(CHUNKING, BAD, &["bad,grey", "b"], &["failed Rcpt 550, deferred Rcpt 450", "relayed"], &["b: 1"]),
    Case(CHUNKING, BAD, &["bad", "bad", "grey"], &["failed Rcpt 550", "failed Rcpt 550", "deferred Rcpt 450"], &[]),
    // … and one that wants the letter all the same.
    Case(
        PIPELINING,
        &[("RCPT TO:<bad", "550 unknown"), ("DATA#1", "354 go on")],
        &["bad", "b"],
        &["failed Rcpt 550", "relayed"],
        &[": ", "b: 1"],
    ),
    Case(
        PIPELINING,
        &[("MAIL#2", "550 not you"), ("DATA#2", "354 go on"), (".#2", "554 no recipients")],
        &["a", "b", "c"],
        &["relayed", "failed Mail 550", "relayed"],
        &["a: 0", "c: 2"],
    ),
    Case(
        PIPELINING,
        &[("MAIL#1", "451 busy"), ("RCPT#1", "250 strange"), ("DATA#1", "354 go on")],
        &["a", "b"],
        &["deferred Mail 451", "relayed"],
        &["a: ", "b: 1"],
    ),
    Case(
        CHUNKING,
        &[("MAIL#1", "451 busy"), ("RCPT#1", "250 strange")],
        &["a", "b"],
        &["deferred Mail 451", "relayed"],
        &["a: 0", "b: 1"],
    ),
    // MAIL refused: its echoes count for nothing.
    Case(
        NEITHER,
        &[("MAIL#1", "451 busy")],
        &["a,b", "c"],
        &["deferred Mail 451, deferred Mail 451", "relayed"],
        &["c: 1"],
    ),
    Case(PIPELINING, &[("MAIL#1", "451 busy")], &["a", "b"], &["deferred Mail 451", "relayed"], &["b: 1"]),
    Case(CHUNKING, &[("MAIL#1", "550 not you")], &["a", "b"], &["failed Mail 550", "relayed"], &["b: 1"]),
    // DATA refused leaves a transaction open, which RSET ends.
    Case(PIPELINING, &[("DATA#1", "451 later")], &["a", "b"], &["deferred Data 451", "relayed"], &["b: 1"]),
    Case(NEITHER, &[("DATA#1", "554 no")], &["a", "b"], &["failed Data 554", "relayed"], &["b: 1"]),
    // The content refused.
    Case(PIPELINING, &[(".#1", "554 spam")], &["a", "b"], &["failed Dot 554", "relayed"], &["b: 1"]),
    Case(
        PIPELINING,
        &[(".#2", "452 full")],
        &["a", "b", "c"],
        &["relayed", "deferred Dot 452", "relayed"],
        &["a: 0", "c: 2"],
    ),
    Case(CHUNKING, &[("BDAT#1", "554 spam")], &["a", "b"], &["failed Dot 554", "relayed"], &["b: 1"]),
    Case(
        CHUNKING,
        &[("BDAT#2", "452 full")],
        &["a", "b", "c"],
        &["relayed", "deferred Dot 452", "relayed"],
        &["a: 0", "c: 2"],
    ),
    // RSET refused: nobody knows what would be added to what.
    Case(
        CHUNKING,
        &[("RSET", "500 what?")],
        &["a", "b"],
        &["relayed", "deferred Dot protocol duplicate?"],
        &["a: 0", "b: 1"],
    ),
    // … or a server that has had enough of us, and took nothing more.
    Case(
        CHUNKING,
        &[("RSET#2", "554 too many nonmail commands !close")],
        &["a", "b", "c", "d"],
        &["relayed", "relayed", "deferred Mail network", "deferred Mail network"],
        &["a: 0", "b: 1"],
    ),
    // CHUNKING offered and BDAT refused: DATA, and each letter once.
    Case(
        CHUNKING,
        NO_BDAT,
        &["a", "b,c", "d"],
        &["relayed", "relayed, relayed", "relayed"],
        &["a: 0", "b+c: 1", "d: 2"],
    ),
    Case(
        CHUNKING,
        &[("BDAT#2", "503 no")],
        &["a", "b", "c"],
        &["relayed", "relayed", "relayed"],
        &["a: 0", "c: 2", "b: 1"],
    ),
    Case(
        CHUNKING,
        &[("BDAT", "502 what?"), ("RCPT TO:<bad", "550 unknown"), ("DATA#2", "554 no")],
        &["bad", "bad,a", "b"],
        &["failed Rcpt 550", "failed Rcpt 550, relayed", "failed Data 554"],
        &["a: 1"],
    ),
    // … by a server that takes the letter for commands: put off, and nothing of it done.
    Case(CHUNKING, &[("BDAT", "500 what? !deaf")], &["a"], &["deferred Content protocol"], &[]),
    // 421 is the answer to everything that was still to come.
    Case(NEITHER, &[("MAIL#2", "421 tired !close")], &["a", "b"], &["relayed", "deferred Mail 421"], &["a: 0"]),
    Case(NEITHER, &[("RCPT#2", "421 tired !close")], &["a,b"], &["deferred Rcpt 421, deferred Rcpt 421"], &[]),
    Case(PIPELINING, &[("RCPT#2", "421 tired !close")], &["a,b", "c"], &["deferred Rcpt 421, deferred Rcpt 421"], &[]),
    Case(PIPELINING, &[("DATA#1", "421 tired !close")], &["a", "b"], &["deferred Data 421"], &[]),
    Case(PIPELINING, &[(".#1", "421 tired !close")], &["a", "b"], &["deferred Dot 421", "deferred Mail 421"], &[]),
    Case(CHUNKING, &[("MAIL#2", "421 tired !close")], &["a", "b"], &["relayed", "deferred Mail 421"], &["a: 0"]),
    Case(
        CHUNKING,
        &[("RCPT TO:<bad", "550 unknown"), ("RCPT TO:<b>", "421 tired !close"), ("RCPT TO:<b@", "421 tired !close")],
        &["a", "bad,b", "c"],
        &["relayed", "failed Rcpt 550, deferred Rcpt 421", "deferred Mail 421"],
        &["a: 0"],
    ),
    Case(CHUNKING, &[("BDAT#1", "421 tired !close")], &["a", "b"], &["deferred Dot 421", "deferred Mail 421"], &[]),
    // A connection that is lost: whose end was out may have arrived.
    Case(NEITHER, &[("MAIL#2", "!close")], &["a", "b"], &["relayed", "deferred Mail network"], &["a: 0"]),
    Case(NEITHER, &[("RCPT#2", "!close")], &["a,b"], &["deferred Rcpt network, deferred Rcpt network"], &[]),
    Case(PIPELINING, &[("DATA#1", "!close")], &["a"], &["deferred Data network"], &[]),
    Case(
        PIPELINING,
        &[(".#1", "!close")],
        &["a", "b"],
        &["deferred Dot network duplicate?", "deferred Mail network"],
        &[],
    ),
    Case(
        CHUNKING,
        &[("RCPT TO:<bad", "550 unknown"), ("BDAT#1", "!close")],
        &["bad,a", "b"],
        &["failed Rcpt 550, deferred Dot network duplicate?", "deferred Dot network duplicate?"],
        &[],
    ),
    // What is no answer.
    Case(PIPELINING, &[("RCPT#1", "HTTP/1.1")], &["a"], &["deferred Rcpt protocol"], &[]),
    Case(PIPELINING, &[("DATA#1", "250 ok")], &["a"], &["deferred Data protocol"], &[]),
    Case(PIPELINING, &[(".#1", "354 go on")], &["a"], &["deferred Dot protocol duplicate?"], &[]),
    Case(CHUNKING, &[("BDAT#1", "354 go on")], &["a"], &["deferred Dot protocol duplicate?"], &[]),
    Case(CHUNKING, &[("MAIL#1", "354 go on")], &["a"], &["deferred Dot protocol duplicate?"], &[]),
    // One answer too many shifts the others.
    Case(CHUNKING, &[("RCPT#1", "250 ok\r\n250 ok")], &["a"], &["deferred Dot protocol duplicate?"], &["a: 0"]),
    Case(PIPELINING, &[("RCPT#1", "250 ok\r\n250 ok")], &["a"], &["deferred Data protocol"], &[]),
    Case(PIPELINING, &[("DATA#1", "354 go on\r\n250 taken")], &["a"], &["deferred Content protocol"], &[]),
    Case(PIPELINING, &[("DATA#1", "354 go on\r\n554 no")], &["a", "b"], &["failed Content 554"], &[]),
    Case(NEITHER, &[("RCPT#1", "250 ok\r\n250 ok")], &["a"], &["deferred Data protocol"], &[]),
    Case(NEITHER, &[("RCPT#1", "250 ok\r\n421 enough !close")], &["a"], &["deferred Data 421"], &[]),
    Case(NEITHER, &[(".#1", "250 ok\r\n250 ok")], &["a", "b"], &["relayed"], &["a: 0"]),
    // 421 behind a good answer is news for the next one only.
    Case(CHUNKING, &[("BDAT#1", "250 ok\r\n421 enough !close")], &["a"], &["relayed"], &["a: 0"]),
    Case(
        PIPELINING,
        &[(".#1", "250 ok\r\n421 enough !close")],
        &["a", "b"],
        &["relayed", "deferred Mail 421"],
        &["a: 0"],
    ),
];

#[test]
fn whatever_the_server_does_each_recipient_is_told_the_truth() {
    let mut wrong = Vec::new();
    for Case(ehlo, rules, letters, told, got) in CASES {
        let notes = letters.iter().enumerate().map(|(i, to)| Note::new(to, &format!("{i}\r\n"))).collect();
        let (outcomes, seen) = run(Script { ehlo, rules, ..Script::default() }, notes);
        if outcomes != *told || taken(&seen) != *got {
            let (taken, heard) = (taken(&seen), seen.commands.join(" / "));
            wrong.push(format!(
                "{ehlo:?} {rules:?} {letters:?}\n   told {outcomes:?}\n  taken {taken:?}\n  heard {heard}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_letter_is_known_before_the_next_one_can_be() {
    for ehlo in [NEITHER, PIPELINING, CHUNKING] {
        let (port, server) = Server::start(Script { ehlo, ..Script::default() });
        let mut connection = open_for(&account(port));
        let log = std::cell::RefCell::new(Vec::new());
        let mut notes = (0..70).map(|i| Numbered(i, Note::new("a", "x\r\n")));
        let next = &mut || {
            let next = notes.next();
            log.borrow_mut().extend(next.as_ref().map(|Numbered(i, _)| format!("begin {i}")));
            next
        };
        connection.send_all(Duration::from_mins(1), next, &mut |Numbered(i, _), report| {
            log.borrow_mut().push(format!("end {i} {}", said(&report.outcomes[0])));
        });
        connection.close();
        let log = log.into_inner();
        let aboard = log.iter().scan(0_usize, |aboard, line| {
            *aboard = if line.starts_with("begin") { *aboard + 1 } else { *aboard - 1 };
            Some(*aboard)
        });
        assert_eq!(
            aboard.max(),
            Some(if ehlo == CHUNKING {
                64
            } else if ehlo == PIPELINING {
                2
            } else {
                1
            })
        );
        let ends: Vec<&String> = log.iter().filter(|line| line.starts_with("end")).collect();
        assert!(ends.iter().enumerate().all(|(i, line)| **line == format!("end {i} relayed")), "{ends:?}");
        assert_eq!(server.join().unwrap().taken.len(), 70);
    }
}

#[test]
fn a_letter_costs_as_few_flights_as_can_be() {
    let many = (0..50).map(|i| format!("r{i}")).collect::<Vec<_>>().join(",");
    let (config, pem) = certificate();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), pem).unwrap();
    let starttls: &[&[&str]] = &[
        &["PIPELINING", "AUTH PLAIN", "CHUNKING", "STARTTLS"],
        &["PIPELINING", "AUTH PLAIN", "STARTTLS"],
        &["AUTH PLAIN", "STARTTLS"],
    ];
    let implicit: &[&[&str]] = &[&["PIPELINING", "AUTH PLAIN", "CHUNKING"], &["PIPELINING", "AUTH PLAIN"]];
    // EHLO alone, without TLS and AUTH.
    let off: &[&[&str]] = &[CHUNKING, PIPELINING, NEITHER];
    for (tls, ehlo, letters, flights) in [
        (Tls::StartTls, starttls[0], vec!["a"], 6),
        (Tls::StartTls, starttls[0], vec![&many], 6),
        (Tls::StartTls, starttls[0], vec!["a"; 20], 6),
        (Tls::StartTls, starttls[1], vec!["a"], 7),
        (Tls::StartTls, starttls[1], vec![&many], 7),
        (Tls::StartTls, starttls[1], vec!["a", "b", &many], 7 + 2),
        (Tls::StartTls, starttls[2], vec!["a"], 9),
        (Tls::Implicit, implicit[0], vec!["a"], 4),
        (Tls::Implicit, implicit[0], vec![&many], 4),
        (Tls::Implicit, implicit[1], vec!["a"], 5),
        (Tls::Off, off[0], vec!["a", "b", "c", &many], 2),
        (Tls::Off, off[1], vec!["a", "b", "c", &many], 3 + 3),
        (Tls::Off, off[2], vec!["a", "b,c"], 5 + 5),
    ] {
        let script =
            Script { ehlo, patient: true, tls: (tls != Tls::Off).then(|| config.clone()), ..Script::default() };
        let (port, server) = Server::start(script);
        let mut account = account(port);
        account.tls = tls;
        account.ca_file = Some(ca.path().to_owned());
        account.user = (tls != Tls::Off).then(|| "me".to_owned());
        let mut connection = open_for(&account);
        let mut letters = letters.iter().map(|to| Note::new(to, "x\r\n"));
        connection.send_all(Duration::from_mins(1), &mut || letters.next(), &mut |_, report| {
            let told: Vec<String> = report.outcomes.iter().map(said).collect();
            assert!(told.iter().all(|outcome| outcome == "relayed"), "{ehlo:?} {told:?}");
        });
        connection.close();
        let seen = server.join().unwrap();
        assert_eq!(seen.flights, flights, "{ehlo:?} {:?}", seen.commands);
    }
}

#[test]
fn a_letter_of_a_quarter_mebibyte_needs_no_flight_more() {
    let many = (0..500).map(|i| format!("r{i}")).collect::<Vec<_>>().join(",");
    let content = "a line of 32 octets, its end too\r\n".repeat(256 * 1024 / 34);
    let script = Script { ehlo: CHUNKING, patient: true, ..Script::default() };
    let (told, seen) = run(script, vec![Note::new(&many, &content)]);
    assert!(told[0].split(", ").all(|outcome| outcome == "relayed"));
    assert_eq!(seen.flights, 2, "{:?}", seen.commands);
}

#[test]
fn a_letter_whose_last_octet_found_no_room_is_neither_taken_nor_a_possible_duplicate() {
    for (early, told) in [
        ("", "deferred Mail timeout"),
        ("250 ok\r\n250 ok\r\n", "deferred Content timeout"),
        ("250 ok\r\n250 ok\r\n552 too much\r\n", "failed Dot 552"),
        ("250 ok\r\n250 ok\r\n250 taken\r\n", "deferred Content protocol"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (hang_up, end) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"220 relay\r\n").unwrap();
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            stream.write_all(b"250-relay\r\n250-PIPELINING\r\n250 CHUNKING\r\n").unwrap();
            // A UNIX socket's buffer is smaller than the letter, and of that no more than its begin is read.
            assert!(stream.read(&mut [0; 512]).unwrap() > 0);
            stream.write_all(early.as_bytes()).unwrap();
            assert!(end.recv().is_err());
        });
        let mut account = account(0);
        account.hosts = vec![Host::Unix(path)];
        account.timeout = Duration::from_millis(300);
        let mut connection = open_for(&account);
        let note = Note::new("a", &"x".repeat(254 * 1024));
        let report = connection.send(&note.envelope, &note);
        assert_eq!(said(&report.outcomes[0]), told);
        assert!(!connection.is_usable());
        drop(hang_up);
        server.join().unwrap();
    }
}

#[test]
fn a_letter_that_cannot_be_read_is_never_sent_in_part() {
    let long = "a line of some length\r\n".repeat(30_000);
    for (ehlo, content, told, taken) in [
        (NEITHER, "short\r\n", vec!["relayed", "deferred Content local"], 1),
        (PIPELINING, "short\r\n", vec!["relayed", "deferred Content local"], 1),
        // Nothing of it went out, and nothing is lost with it.
        (CHUNKING, "short\r\n", vec!["relayed", "deferred Content local", "relayed"], 2),
        (CHUNKING, &long, vec!["relayed", "deferred Content local"], 1),
    ] {
        let mut cut = Note::new("b", content);
        cut.size += 1;
        let notes = vec![Note::new("a", "0\r\n"), cut, Note::new("c", "2\r\n")];
        let (outcomes, seen) = run(Script { ehlo, ..Script::default() }, notes);
        assert_eq!(outcomes, told, "{ehlo:?}");
        assert_eq!(seen.taken.len(), taken, "{ehlo:?}");
        assert!(seen.broken.iter().all(|octet| b"a line of some length\r\n".contains(octet)), "nothing is added to it");
    }
}

#[test]
fn large_letters_arrive_as_they_are_between_small_ones() {
    let content = ".dot\r\n..two\r\nline\r\n".repeat(60_000);
    for ehlo in [NEITHER, PIPELINING, CHUNKING] {
        let notes = vec![Note::new("a", "0\r\n"), Note::new("b", &content), Note::new("c", &content[..190_000])];
        let (told, seen) = run(Script { ehlo, ..Script::default() }, notes);
        assert_eq!(told, ["relayed", "relayed", "relayed"], "{ehlo:?}");
        let sizes: Vec<usize> = seen.taken.iter().map(|(_, content)| content.len()).collect();
        assert_eq!(sizes, [3, content.len(), 190_000], "{ehlo:?}");
        assert!(seen.taken[1].1 == content.as_bytes(), "{ehlo:?}");
    }
}

#[test]
fn an_envelope_larger_than_the_window_goes_in_parts() {
    let rules: &[(&str, &str)] = &[("RCPT TO:<r", "550 5.1.1 there is nobody of that name here")];
    let many = (0..15_000).map(|i| format!("r{i}")).collect::<Vec<_>>().join(",") + ",a";
    for ehlo in [PIPELINING, CHUNKING] {
        let (told, seen) = run(Script { ehlo, rules, ..Script::default() }, vec![Note::new(&many, "x\r\n"); 2]);
        assert!(told.iter().all(|told| told.starts_with("failed Rcpt 550, ") && told.ends_with(", relayed")));
        assert_eq!(taken(&seen), ["a: x", "a: x"]);
    }
}

#[test]
fn a_connection_that_has_ended_is_noticed_before_a_letter_is_taken() {
    for rule in ["250 ok\r\n421 idle !close", "250 ok !close"] {
        let rules: &[(&str, &str)] = Box::leak(Box::new([("BDAT", rule)]));
        let (port, server) = Server::start(Script { ehlo: CHUNKING, rules, ..Script::default() });
        let mut connection = open_for(&account(port));
        let note = Note::new("a", "x\r\n");
        assert_eq!(said(&connection.send(&note.envelope, &note).outcomes[0]), "relayed");
        server.join().unwrap();
        connection.send_all(
            Duration::from_mins(1),
            &mut || -> Option<Note> { panic!("asked for a letter") },
            &mut |_, _| {},
        );
        assert!(!connection.is_usable());
        let report = connection.send(&note.envelope, &note);
        assert_eq!(said(&report.outcomes[0]), "deferred Mail network");
    }
}

#[test]
fn a_letter_that_does_not_fit_the_server_keeps_its_place() {
    let script = Script { ehlo: &["PIPELINING", "CHUNKING", "SIZE 100"], ..Script::default() };
    let too_large = "x".repeat(99) + "\r\n";
    let notes =
        vec![Note::new("a", "0\r\n"), Note::new("b", &too_large), Note::new("c", "ü\r\n"), Note::new("d", "3\r\n")];
    let (told, seen) = run(script, notes);
    assert_eq!(told[0], "relayed");
    assert!(told[1].starts_with("failed Local") && told[2].starts_with("failed Local"), "{told:?}");
    assert_eq!(told[3], "relayed");
    assert_eq!(taken(&seen), ["a: 0", "d: 3"]);
}

#[test]
fn silence_costs_a_letter_its_time_and_no_more() {
    // Half an answer is none.
    for (rules, told) in [
        (&[("RCPT", "250-half")] as &[_], "deferred Rcpt timeout"),
        (&[(".", "250-half")], "deferred Dot timeout duplicate?"),
    ] {
        let (port, server) = Server::start(Script { ehlo: NEITHER, rules, ..Script::default() });
        let mut account = account(port);
        account.timeout = Duration::from_millis(300);
        let mut connection = open_for(&account);
        let note = Note::new("a", "x\r\n");
        let report = connection.send(&note.envelope, &note);
        assert_eq!(said(&report.outcomes[0]), told);
        assert!(!connection.is_usable());
        connection.close();
        drop(server.join());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn however_the_answers_are_cut_they_say_the_same(drip in 1_usize..40, chunks in any::<bool>(), odd in 0_usize..4) {
        let rules = [BAD, NO_BDAT, &[("MAIL#2", "451 busy")], &[("RSET#2", "421-tired\r\n421 very !close")]][odd];
        let ehlo = if chunks { CHUNKING } else { PIPELINING };
        let notes = || ["a", "bad,b", "bad", "c"].iter().map(|to| Note::new(to, "x\r\n")).collect::<Vec<_>>();
        let (whole, seen) = run(Script { ehlo, rules, ..Script::default() }, notes());
        let (cut, seen_cut) = run(Script { ehlo, rules, drip: Some(drip), ..Script::default() }, notes());
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(taken(&seen), taken(&seen_cut));
    }
}
