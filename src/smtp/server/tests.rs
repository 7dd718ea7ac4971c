//! Whole sessions in memory: octets in, octets and letters out.

use super::*;
use crate::envelope::{Notify, Ret};
use proptest::prelude::*;
use std::collections::VecDeque;

/// What a client sends, a read each, and what it gets, a write each.
struct Client {
    sends: VecDeque<Vec<u8>>,
    then: Option<io::ErrorKind>,
    gets: Vec<String>,
    tls: bool,
    /// What it was expected to say, each once.
    expected: Vec<Next>,
}

impl Client {
    fn new(sends: &[&[u8]]) -> Self {
        let sends = sends.iter().filter(|part| !part.is_empty()).map(|part| part.to_vec()).collect();
        Self { sends, then: None, gets: Vec::new(), tls: false, expected: Vec::new() }
    }
}

impl Read for Client {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(mut part) = self.sends.pop_front() else { return self.then.map_or(Ok(0), |kind| Err(kind.into())) };
        let n = part.len().min(into.len());
        into[..n].copy_from_slice(&part[..n]);
        if n < part.len() {
            self.sends.push_front(part.split_off(n));
        }
        Ok(n)
    }
}

impl Write for Client {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.gets.push(String::from_utf8(octets.to_vec()).unwrap());
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel for Client {
    fn expect(&mut self, next: Next) {
        if self.expected.last() != Some(&next) {
            self.expected.push(next);
        }
    }
    fn can_start_tls(&self) -> bool {
        self.tls
    }
    fn start_tls(&mut self) -> io::Result<String> {
        self.tls = false;
        Ok("TLSv1.3 TEST".to_owned())
    }
}

/// Takes letters, but none from `bad@…`, none to `bad@…`, and none that says `REFUSE` or (before its end) `EARLY`.
#[derive(Default)]
struct Desk {
    auth: Option<Auth>,
    letters: Vec<(Mail, Envelope, String)>,
    guests: Vec<Guest>,
    cut_short: usize,
}

impl Postmaster for Desk {
    fn terms(&self) -> Terms {
        Terms {
            name: "mx.example".to_owned(),
            domain: "box.example".to_owned(),
            size: Some(1000),
            recipients: 3,
            mistakes: 4,
            auth: self.auth.unwrap_or(Auth::Off),
        }
    }

    fn authenticate(&mut self, user: &str, password: &[u8]) -> Result<(), Answer> {
        if (user, password) == ("alice", b"secret") { Ok(()) } else { Err(Answer::bad_credentials()) }
    }

    fn sender(&mut self, _: &Guest, mail: &Mail) -> Result<(), Answer> {
        let bad = mail.reverse_path.0.as_ref().is_some_and(|sender| sender.local() == "bad");
        if bad { Err(Answer::new(550, (7, 1), "not you")) } else { Ok(()) }
    }

    fn recipient(&mut self, _: &Guest, _: &Mail, recipient: &Recipient) -> Result<(), Answer> {
        let bad = recipient.mailbox.local() == "bad";
        if bad { Err(Answer::new(550, (1, 1), format!("no <{}> here", recipient.mailbox))) } else { Ok(()) }
    }

    fn accept(
        &mut self,
        guest: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<String, Answer> {
        let mut letter = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => letter.extend_from_slice(&buffer[..n]),
                Err(_) => {
                    self.cut_short += 1;
                    return Err(Answer::new(451, (3, 0), "nobody hears this"));
                }
            }
            if letter.windows(5).any(|word| word == b"EARLY") {
                return Err(Answer::new(554, (6, 0), "that is enough"));
            }
        }
        let letter = String::from_utf8_lossy(&letter).into_owned();
        if letter.contains("REFUSE") {
            return Err(Answer::new(554, (6, 0), "no"));
        }
        self.guests.push(guest.clone());
        self.letters.push((mail.clone(), envelope.clone(), letter));
        Ok(format!("Ok: queued as {}", self.letters.len()))
    }
}

/// Holds a session over these octets; gives the desk, everything that was answered, and the end.
fn held(mut desk: Desk, mut client: Client) -> (Desk, Vec<String>, End) {
    let end = serve(&mut client, &mut desk);
    (desk, client.gets, end)
}

fn session(octets: &str) -> (Desk, String, End) {
    let (desk, gets, end) = held(Desk::default(), Client::new(&[octets.as_bytes()]));
    (desk, gets.concat(), end)
}

/// The answer's codes, without the greeting's.
fn codes(answers: &str) -> Vec<&str> {
    answers.lines().skip(1).filter(|line| line.as_bytes().get(3) != Some(&b'-')).map(|line| &line[..3]).collect()
}

#[test]
fn a_whole_dialogue_goes_as_the_rfc_has_it() {
    let (desk, answers, end) = session(
        "EHLO client.example\r\nMAIL FROM:<a@x.org> SIZE=20 BODY=8BITMIME RET=FULL ENVID=E1\r\n\
         RCPT TO:<b@y.org> NOTIFY=NEVER\r\nRCPT TO:<bad@y.org>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n\
         NOOP\r\n",
    );
    assert_eq!(
        answers,
        "220 mx.example ESMTP Pillarbox\r\n250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n\
         250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n250 2.1.0 Ok\r\n\
         250 2.1.5 Ok\r\n\
         550 5.1.1 no <bad@y.org> here\r\n354 the letter, then a lone dot\r\n250 2.0.0 Ok: queued as 1\r\n\
         221 2.0.0 good-bye\r\n"
    );
    assert!(matches!(end, End::Quit));
    let (mail, envelope, letter) = &desk.letters[0];
    assert_eq!(letter, "Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(
        (mail.size, mail.eight_bit, envelope.ret, envelope.envid.as_deref()),
        (Some(20), true, Some(Ret::Full), Some("E1"))
    );
    assert_eq!(envelope.recipients().len(), 1, "the refused recipient is not in it");
    assert_eq!(envelope.recipients()[0].notify, Some(Notify::Never));
    assert_eq!(desk.guests[0].helo.as_deref(), Some("client.example"));
}

#[test]
fn after_helo_no_enhanced_code_is_said() {
    let (_, answers, _) = session("HELO c\r\nMAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nDATA\r\n.\r\n");
    assert!(answers.ends_with("354 the letter, then a lone dot\r\n250 Ok: queued as 1\r\n"), "{answers}");
}

#[test]
fn many_letters_in_one_session_without_hello_and_without_state_between_them() {
    let letter = "MAIL FROM:<>\r\nRCPT TO:<root>\r\nDATA\r\nx\r\n.\r\n";
    let (desk, answers, end) = session(&(letter.repeat(200) + "DATA\r\n"));
    assert_eq!(desk.letters.len(), 200);
    assert_eq!(desk.letters[0].1.recipients()[0].mailbox.to_string(), "root@box.example");
    assert!(answers.ends_with("503 first MAIL and RCPT\r\n"), "{answers}");
    assert!(matches!(end, End::Left));
}

#[test]
fn the_answers_to_a_group_go_out_in_one_write() {
    let sends: [&[u8]; 4] = [
        b"EHLO c\r\n",
        b"MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nRCPT TO:<c@y.org>\r\nDA",
        b"TA\r\n",
        b"x\r\n.\r\nMAIL FROM:<a@x.org>\r\nRSET\r\nQUIT\r\n",
    ];
    let (_, gets, _) = held(Desk::default(), Client::new(&sends));
    let lines: Vec<usize> = gets.iter().map(|write| write.lines().count()).collect();
    assert_eq!(lines, [1, 9, 3, 1, 4], "{gets:?}");
}

#[test]
fn every_command_out_of_turn_has_its_answer() {
    for (octets, want) in [
        ("RCPT TO:<b@y.org>\r\n", vec!["503"]),
        ("DATA\r\n", vec!["503"]),
        ("MAIL FROM:<a@x.org>\r\nMAIL FROM:<a@x.org>\r\n", vec!["250", "503"]),
        ("MAIL FROM:<a@x.org>\r\nDATA\r\n", vec!["250", "503"]),
        ("MAIL FROM:<a@x.org>\r\nRCPT TO:<bad@y.org>\r\nDATA\r\n", vec!["250", "550", "554"]),
        ("MAIL FROM:<a@x.org>\r\nRSET\r\nRCPT TO:<b@y.org>\r\n", vec!["250", "250", "503"]),
        ("MAIL FROM:<a@x.org>\r\nEHLO c\r\nRCPT TO:<b@y.org>\r\n", vec!["250", "250", "503"]),
        ("MAIL FROM:<bad@x.org>\r\nRCPT TO:<b@y.org>\r\nDATA\r\n", vec!["550", "503", "503"]),
        ("MAIL FROM:<a@x.org> SIZE=1001\r\n", vec!["552"]),
        ("STARTTLS\r\n", vec!["502"]),
        ("AUTH PLAIN AGEAYg==\r\n", vec!["503"]),
        (
            "VRFY bob\r\nEXPN list\r\nNOOP x\r\nHELP\r\nFROB\r\nrset\r\nquit\r\n",
            vec!["252", "502", "250", "214", "500", "250", "221"],
        ),
    ] {
        let (_, answers, _) = session(octets);
        assert_eq!(codes(&answers), want, "{octets}");
    }
}

#[test]
fn a_pipelining_client_whose_envelope_is_refused_is_not_cut_off() {
    let group = "MAIL FROM:<bad@x.org>\r\n".to_owned()
        + &"RCPT TO:<b@y.org>\r\n".repeat(50)
        + "DATA\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n";
    let (desk, answers, end) = session(&(group.repeat(2) + "QUIT\r\n"));
    assert!(matches!(end, End::Quit));
    assert_eq!(codes(&answers).iter().filter(|code| **code == "503").count(), 2 * 53);
    assert!(desk.letters.is_empty());
}

#[test]
fn too_many_recipients_wait_for_the_next_letter() {
    let rcpts = "RCPT TO:<r1@y.org>\r\nRCPT TO:<r2@y.org>\r\nRCPT TO:<r3@y.org>\r\nRCPT TO:<r4@y.org>\r\n\
                 RCPT TO:<r5@y.org>\r\n";
    let (desk, answers, _) = session(&format!("MAIL FROM:<a@x.org>\r\n{rcpts}DATA\r\n.\r\n"));
    assert_eq!(codes(&answers), ["250", "250", "250", "250", "452", "452", "354", "250"]);
    assert_eq!(desk.letters[0].1.recipients().len(), 3);
}

#[test]
fn too_many_mistakes_in_a_row_end_the_session() {
    let (_, answers, end) = session(&"FROB\r\n".repeat(9));
    assert_eq!(codes(&answers), ["500", "500", "500", "500", "421"]);
    assert!(matches!(end, End::Closed(_)));
    let letter = "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nDATA\r\n.\r\n";
    let (_, _, end) = session(&format!("{0}{letter}{0}QUIT\r\n", "FROB\r\n".repeat(3)));
    assert!(matches!(end, End::Quit), "a letter that is taken wipes them out");
}

#[test]
fn a_line_without_end_is_not_kept() {
    let long = "x".repeat(100_000);
    let (_, answers, _) = session(&format!("{long}\r\nNOOP {}\r\nNOOP\r\n", "y".repeat(4096)));
    assert_eq!(codes(&answers), ["500", "500", "250"]);
}

const ADDRESSED: &str = "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\n";

#[test]
fn chunks_make_one_letter_and_each_is_acknowledged() {
    let (desk, answers, _) = session(&format!(
        "EHLO c\r\n{ADDRESSED}BDAT 7\r\nNOOP\r\n.BDAT 0\r\nNOOP\r\nBDAT 5 LAST\r\n\r\n.\r\nBDAT 2 LAST\r\nhi"
    ));
    assert!(
        answers.ends_with(
            "250 2.0.0 7 octets received\r\n250 2.0.0 0 octets received\r\n250 2.0.0 Ok\r\n\
                           250 2.0.0 Ok: queued as 1\r\n503 5.5.1 first MAIL and RCPT\r\n"
        ),
        "{answers}"
    );
    assert_eq!(desk.letters[0].2, "NOOP\r\n.\r\n.\r\n", "dots mean nothing in chunks");
    let (desk, ..) = session(&format!("{ADDRESSED}BDAT 3\r\nabcBDAT 0 LAST\r\n"));
    assert_eq!(desk.letters[0].2, "abc");
}

#[test]
fn a_letter_s_chunks_and_what_stands_between_them_are_one_wait() {
    use Next::{Command, Letter};
    for (letters, expected) in [
        ("NOOP\r\nNOOP\r\n", vec![Command]),
        ("MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nDATA\r\nx\r\n.\r\n", vec![Command, Letter, Command]),
        (
            "MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nBDAT 1\r\nxNOOP\r\nBDAT 1 LAST\r\nx",
            vec![Command, Letter, Command],
        ),
        ("MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nBDAT 1\r\nxRSET\r\n", vec![Command, Letter, Command]),
    ] {
        let mut client = Client::new(&[letters.as_bytes()]);
        serve(&mut client, &mut Desk::default());
        assert_eq!(client.expected, expected, "{letters}");
    }
}

#[test]
fn a_verb_of_the_postmaster_s_is_offered_obeyed_and_nobody_else_s() {
    struct Lists(Desk);
    impl Postmaster for Lists {
        fn terms(&self) -> Terms {
            self.0.terms()
        }
        fn verbs(&self) -> &'static [&'static str] {
            &["XLIST"]
        }
        fn obey(&mut self, _: &Guest, verb: &str, words: &str, tell: &mut dyn FnMut(&str)) -> Answer {
            tell(&format!("{verb}({words})"));
            tell("250 ok\r\n");
            Answer::new(250, (0, 0), "that is all")
        }
        fn accept(&mut self, _: &Guest, _: &Mail, _: &Envelope, _: &mut dyn Read) -> Result<String, Answer> {
            Ok(String::new())
        }
    }
    let mut client = Client::new(&[b"EHLO x\r\nxlist\r\nXLIST  All of it\r\nXOTHER all\r\n"]);
    serve(&mut client, &mut Lists(Desk::default()));
    let said = client.gets.concat();
    assert!(said.contains("\r\n250-XLIST\r\n"), "{said}");
    let answers = said.split("250 HELP\r\n").nth(1).unwrap();
    let answer = |line: &str| format!("250-{line}\r\n250-250 ok??\r\n250 2.0.0 that is all\r\n");
    assert!(answers.starts_with(&(answer("XLIST()") + &answer("XLIST(All of it)"))), "{answers}");
    assert!(answers.ends_with("500 5.5.1 there is no such command; try HELP\r\n"), "{answers}");
    assert!(session("XLIST\r\n").1.ends_with("500 there is no such command; try HELP\r\n"));
}

#[test]
fn a_letter_refused_half_way_takes_its_octets_with_it() {
    let early = "EARLY".to_owned() + &"MAIL FROM:<z@x.org>\r\n".repeat(10);
    let chunked = format!("{ADDRESSED}BDAT {0}\r\n{early}BDAT {0} LAST\r\n{early}NOOP\r\n", early.len());
    let (desk, answers, _) = session(&chunked);
    assert_eq!(codes(&answers), ["250", "250", "554", "503", "250"]);
    assert!(desk.letters.is_empty());
    let (_, answers, _) = session(&format!("{ADDRESSED}DATA\r\n{early}\r\n.\r\nNOOP\r\n"));
    assert_eq!(codes(&answers), ["250", "250", "354", "554", "250"]);
    let (_, answers, _) = session(&format!("{ADDRESSED}DATA\r\nREFUSE\r\n.\r\nNOOP\r\n"));
    assert_eq!(codes(&answers), ["250", "250", "354", "554", "250"]);
}

#[test]
fn a_letter_whose_beginning_was_refused_is_not_taken_without_it() {
    for (rcpt, refused) in [("", "503"), ("RCPT TO:<bad@y.org>\r\n", "554")] {
        let (desk, answers, _) = session(&format!(
            "MAIL FROM:<a@x.org>\r\n{rcpt}BDAT 4\r\na: bRCPT TO:<b@y.org>\r\nBDAT 4 LAST\r\nc: dNOOP\r\n"
        ));
        let codes = codes(&answers);
        assert_eq!(codes[codes.len() - 4..], [refused, "503", "503", "250"], "{answers}");
        assert!(desk.letters.is_empty());
    }
}

#[test]
fn a_letter_that_is_too_large_is_refused_and_skipped() {
    let (desk, answers, _) = session(&format!("{ADDRESSED}DATA\r\n{}.\r\nNOOP\r\n", "123456\r\n".repeat(200)));
    assert_eq!(codes(&answers), ["250", "250", "354", "552", "250"]);
    assert_eq!((desk.letters.len(), desk.cut_short), (0, 1));
    let chunk = "x".repeat(999);
    let (desk, answers, _) =
        session(&format!("{ADDRESSED}BDAT 999\r\n{chunk}BDAT 999\r\n{chunk}BDAT 999 LAST\r\n{chunk}NOOP\r\n"));
    assert_eq!(codes(&answers), ["250", "250", "250", "552", "503", "250"]);
    assert_eq!((desk.letters.len(), desk.cut_short), (0, 1));
    let (desk, ..) = session(&format!("{ADDRESSED}BDAT 1000 LAST\r\n{chunk}x"));
    assert_eq!(desk.letters.len(), 1, "the limit itself is allowed");
}

#[test]
fn a_letter_given_up_between_chunks_leaves_nothing() {
    let (desk, answers, end) =
        session(&format!("{ADDRESSED}BDAT 3\r\nabcMAIL FROM:<x@y.org>\r\nRSET\r\n{ADDRESSED}DATA\r\n.\r\nQUIT\r\n"));
    assert_eq!(codes(&answers), ["250", "250", "250", "503", "250", "250", "250", "354", "250", "221"]);
    assert!(matches!(end, End::Quit));
    assert_eq!((desk.letters.len(), desk.cut_short), (1, 1));
    let (desk, _, end) = session(&format!("{ADDRESSED}BDAT 3\r\nabcQUIT\r\n"));
    assert!(matches!(end, End::Quit));
    assert_eq!((desk.letters.len(), desk.cut_short), (0, 1));
}

#[test]
fn a_client_that_vanishes_in_the_middle_leaves_nothing() {
    for letter in [
        "DATA\r\nSubject: x\r\n",
        "DATA\r\nx\r\n.\r",
        "DATA\r\nx\n.\n",
        "BDAT 4\r\nabc",
        "BDAT 3\r\nabc",
        "BDAT 4 LAST\r\nabc",
    ] {
        for then in [None, Some(io::ErrorKind::ConnectionReset), Some(io::ErrorKind::TimedOut)] {
            let octets = format!("{ADDRESSED}{letter}");
            let client = Client { then, ..Client::new(&[octets.as_bytes()]) };
            let (desk, gets, end) = held(Desk::default(), client);
            assert_eq!((desk.letters.len(), desk.cut_short), (0, 1), "{letter:?}");
            assert!(!gets.concat().contains("queued"), "{letter:?}");
            let fits = match then {
                None => matches!(end, End::Vanished),
                Some(io::ErrorKind::TimedOut) => matches!(end, End::Closed("idle")),
                Some(_) => matches!(end, End::Failed(_)),
            };
            assert!(fits, "{letter:?}: {end:?}");
        }
    }
}

#[test]
fn an_idle_client_is_told_before_it_is_left() {
    let client = Client { then: Some(io::ErrorKind::WouldBlock), ..Client::new(&[b"NOOP\r\n"]) };
    let (_, gets, end) = held(Desk::default(), client);
    assert_eq!(codes(&gets.concat()), ["250", "421"]);
    assert!(matches!(end, End::Closed("idle")));
}

#[test]
fn a_client_that_does_not_read_is_left_for_that() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let end = serve(&mut Duplex(&b"HELP\r\n"[..], Full), &mut Desk::default());
    assert!(matches!(end, End::Closed("it does not read its answers")), "{end:?}");
}

#[test]
fn a_client_with_bare_lfs_is_served_and_a_smuggled_letter_is_not() {
    let (desk, _, end) = session("EHLO c\nMAIL FROM:<a@x.org>\nRCPT TO:<b@y.org>\nDATA\nx\n.\nQUIT\n");
    assert!(matches!(end, End::Quit));
    assert_eq!(desk.letters[0].2, "x\n");
    let smuggled = format!("{ADDRESSED}DATA\r\nx\n.\nMAIL FROM:<evil@x.org>\nRCPT TO:<b@y.org>\nDATA\ny\r\n.\r\n");
    let (desk, ..) = session(&smuggled);
    assert_eq!(desk.letters.len(), 1);
}

#[test]
fn what_cannot_be_a_mail_client_is_left_at_once() {
    let (_, answers, end) = session("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nEHLO c\r\n");
    assert_eq!(codes(&answers), ["421"]);
    assert!(matches!(end, End::Closed(_)));
    let (_, answers, end) = session(&format!("{ADDRESSED}BDAT lots\r\nQUIT\r\n"));
    assert_eq!(codes(&answers), ["250", "250", "501"]);
    assert!(matches!(end, End::Closed(_)));
}

fn with_auth(auth: Auth, tls: bool, sends: &[&str]) -> (Desk, String, End) {
    let sends: Vec<&[u8]> = sends.iter().map(|part| part.as_bytes()).collect();
    let (desk, gets, end) = held(Desk { auth: Some(auth), ..Desk::default() }, Client { tls, ..Client::new(&sends) });
    (desk, gets.concat(), end)
}

#[test]
fn tls_begins_anew_and_allows_auth() {
    let (desk, answers, _) = with_auth(
        Auth::InsideTls,
        true,
        &[
            "EHLO before\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<a@x.org>\r\n",
            "STARTTLS\r\n",
            "EHLO after\r\n",
            "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
            &format!("STARTTLS\r\nAUTH LOGIN\r\n{ADDRESSED}DATA\r\n.\r\n"),
        ],
    );
    let (before, after) = answers.split_once("220 2.0.0 go ahead\r\n").unwrap();
    assert!(before.contains("250-STARTTLS") && !before.contains("AUTH PLAIN"), "{before}");
    assert_eq!(codes(before), ["250", "538", "530"]);
    assert!(!after.contains("STARTTLS") && after.contains("250-AUTH PLAIN LOGIN"), "{after}");
    assert!(
        after.contains("235 2.7.0 welcome\r\n503 5.5.1 TLS is on already\r\n503 5.5.1 it is too late for AUTH\r\n")
    );
    let want = Guest {
        helo: Some("after".to_owned()),
        extended: true,
        user: Some("alice".to_owned()),
        tls: Some("TLSv1.3 TEST".to_owned()),
    };
    assert_eq!(desk.guests, [want]);
}

#[test]
fn plaintext_behind_starttls_ends_the_session() {
    let (_, answers, end) = with_auth(Auth::InsideTls, true, &["EHLO c\r\nSTARTTLS\r\nEHLO evil\r\n"]);
    assert_eq!(codes(&answers), ["250", "554"]);
    assert!(matches!(end, End::Closed(_)));
}

#[test]
fn auth_takes_every_form_and_refuses_every_other() {
    for (octets, want) in [
        ("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", vec!["235"]),
        ("AUTH plain YWxpY2UAYWxpY2UAc2VjcmV0\r\n", vec!["235"]),
        ("AUTH PLAIN\r\nAGFsaWNlAHNlY3JldA==\r\n", vec!["334", "235"]),
        ("AUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\n", vec!["334", "334", "235"]),
        ("AUTH LOGIN YWxpY2U=\r\nc2VjcmV0\r\n", vec!["334", "235"]),
        ("AUTH LOGIN\r\nYWxpY2U=\r\nd3Jvbmc=\r\n", vec!["334", "334", "535"]),
        ("AUTH LOGIN\r\n*\r\n", vec!["334", "501"]),
        ("AUTH LOGIN YWxpY2U=\r\n*\r\n", vec!["334", "501"]),
        ("AUTH PLAIN *\r\n", vec!["501"]),
        ("AUTH PLAIN =\r\n", vec!["501"]),
        ("AUTH PLAIN !!\r\n", vec!["501"]),
        ("AUTH PLAIN AGFsaWNl\r\n", vec!["501"]),
        ("AUTH PLAIN Ym9iAGFsaWNlAHNlY3JldA==\r\n", vec!["535"]),
        ("AUTH CRAM-MD5\r\n", vec!["504"]),
        ("MAIL FROM:<a@x.org>\r\n", vec!["530"]),
    ] {
        let (_, answers, _) = with_auth(Auth::Anywhere, false, &[octets]);
        assert_eq!(codes(&answers), want, "{octets}");
    }
    let (_, answers, end) = with_auth(Auth::Anywhere, false, &[&"AUTH PLAIN AGEAYg==\r\n".repeat(9)]);
    assert_eq!(codes(&answers), ["535", "535", "535", "535", "421"], "nobody may try passwords for ever");
    assert!(matches!(end, End::Closed(_)));
}

/// Pieces of dialogues, so that random sequences of them get somewhere.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "EHLO c\r\n",
        "HELO c\r\n",
        "MAIL FROM:<a@x.org>\r\n",
        "RCPT TO:<b@y.org>\r\n",
        "RCPT TO:<bad@y.org>\n",
        "DATA\r\n",
        "DATA\n",
        "Subject: x\r\n",
        ".\r\n",
        ".\n",
        "..\r\n",
        "REFUSE",
        "EARLY",
        "BDAT 3\r\nabc",
        "BDAT 9\r\n",
        "BDAT 0 LAST\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "AUTH LOGIN\r\n",
        "*\r\n",
        "\r\n",
        "\n",
        "\r",
    ];
    prop_oneof![
        9 => proptest::sample::select(known.map(|text| text.as_bytes().to_vec()).to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..9),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_split_of_the_octets_gives_the_same_session(
        pieces in proptest::collection::vec(pieces(), 0..40),
        at in any::<(proptest::sample::Index, proptest::sample::Index)>(),
    ) {
        let octets = pieces.concat();
        let (a, b) = (at.0.index(octets.len() + 1), at.1.index(octets.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        let seen = |sends: &[&[u8]]| {
            let (desk, gets, end) = held(Desk::default(), Client::new(sends));
            (desk.letters, desk.cut_short, gets.concat(), format!("{end:?}"))
        };
        let whole = seen(&[&octets]);
        prop_assert_eq!(&whole, &seen(&[&octets[..a], &octets[a..b], &octets[b..]]));
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        prop_assert_eq!(&whole, &seen(&single));
    }
}
