//! One session: RFC 5321 with STARTTLS, AUTH, PIPELINING, SIZE, 8BITMIME and CHUNKING, as lenient as it is quick.

use crate::letter::Letter;
use crate::tally::Tally;
use crate::wire::Wire;
use crate::{Manner, PASSWORD, USER};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr, memmem};
use std::fs::File;
use std::io;

/// Where in a session we are.
struct Session<'a> {
    wire: Wire<'a>,
    manner: &'a Manner,
    tally: &'a Tally,
    authenticated: bool,
    recipients: u64,
    chunks: Option<Letter>,
}

/// Talks until the client has gone.
pub fn serve(socket: File, manner: &Manner, tally: &Tally) -> io::Result<()> {
    let wire = Wire::new(socket, manner.round_trip, tally);
    let mut session = Session { wire, manner, tally, authenticated: false, recipients: 0, chunks: None };
    if manner.implicit {
        session.wire.secure(manner)?;
    }
    session.wire.say("220 sink.bench ESMTP\r\n");
    loop {
        let line = session.line()?;
        session.answer(&line)?;
    }
}

impl Session<'_> {
    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memchr(b'\n', self.wire.input()) {
                let line = String::from_utf8_lossy(&self.wire.input()[..end]).trim_end().to_owned();
                self.wire.consume(end + 1);
                return Ok(line);
            }
            self.wire.fill()?;
        }
    }

    fn answer(&mut self, line: &str) -> io::Result<()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "LHLO" => self.capabilities(),
            "HELO" => self.wire.say("250 sink.bench\r\n"),
            "STARTTLS" => {
                self.wire.say("220 go on\r\n");
                self.wire.secure(self.manner)?;
            }
            "AUTH" => self.auth(rest)?,
            "MAIL" | "RCPT" if !self.authenticated => self.wire.say("530 5.7.0 authenticate first\r\n"),
            "MAIL" | "RSET" => {
                (self.recipients, self.chunks) = (0, None);
                self.wire.say("250 2.1.0 ok\r\n");
            }
            "RCPT" => {
                self.recipients += 1;
                self.wire.say("250 2.1.5 ok\r\n");
            }
            "DATA" if self.recipients == 0 => self.wire.say("503 5.5.1 nobody to send it to\r\n"),
            "DATA" => {
                self.wire.say("354 go on\r\n");
                self.data()?;
            }
            "BDAT" => self.chunk(rest)?,
            "NOOP" => self.wire.say("250 2.0.0 ok\r\n"),
            "QUIT" => {
                self.wire.say("221 2.0.0 bye\r\n");
                self.wire.hang_up()?;
                // Once more: the client that waits for our answer goes later than the one that does not.
                self.wire.fill()?;
            }
            _ => self.wire.say("500 5.5.2 what?\r\n"),
        }
        Ok(())
    }

    fn capabilities(&mut self) {
        self.wire.say("250-sink.bench\r\n250-PIPELINING\r\n250-SIZE 500000000\r\n250-8BITMIME\r\n");
        if self.manner.chunking {
            self.wire.say("250-CHUNKING\r\n");
        }
        self.wire.say(if self.wire.is_secure() { "250-AUTH PLAIN LOGIN\r\n" } else { "250-STARTTLS\r\n" });
        self.wire.say("250 ENHANCEDSTATUSCODES\r\n");
    }

    fn auth(&mut self, words: &str) -> io::Result<()> {
        let (mechanism, initial) = words.split_once(' ').unwrap_or((words, ""));
        let (user, password) = if mechanism.eq_ignore_ascii_case("PLAIN") {
            let response = if initial.is_empty() { self.ask("")? } else { decoded(initial) };
            let mut parts = response.split('\0').skip(1).map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        } else {
            let user = if initial.is_empty() { self.ask("Username:")? } else { decoded(initial) };
            (user, self.ask("Password:")?)
        };
        self.authenticated = self.wire.is_secure() && user == USER && password == PASSWORD;
        self.wire.say(if self.authenticated { "235 2.7.0 welcome\r\n" } else { "535 5.7.8 no\r\n" });
        Ok(())
    }

    fn ask(&mut self, what: &str) -> io::Result<String> {
        self.wire.say(&format!("334 {}\r\n", STANDARD.encode(what)));
        Ok(decoded(&self.line()?))
    }

    /// Everything up to the line with the lone dot.
    fn data(&mut self) -> io::Result<()> {
        let mut letter = Letter::default();
        let dot = memmem::Finder::new(b"\r\n.");
        loop {
            let input = self.wire.input();
            match dot.find(input) {
                Some(at) if input.len() < at + 5 => {
                    letter.push(&input[..at]);
                    self.wire.consume(at);
                    self.wire.fill()?;
                }
                Some(at) => {
                    letter.push(&input[..at + 2]);
                    let last = &input[at + 3..at + 5] == b"\r\n";
                    self.wire.consume(if last { at + 5 } else { at + 3 });
                    if last {
                        self.taken(letter);
                        return Ok(());
                    }
                }
                None => {
                    let safe = input.len().saturating_sub(2);
                    letter.push(&input[..safe]);
                    self.wire.consume(safe);
                    self.wire.fill()?;
                }
            }
        }
    }

    /// As many octets as the client announced.
    fn chunk(&mut self, words: &str) -> io::Result<()> {
        let mut words = words.split_ascii_whitespace();
        let mut left: usize = words.next().and_then(|length| length.parse().ok()).unwrap_or(0);
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let mut letter = self.chunks.take().unwrap_or_default();
        while left > 0 {
            let here = self.wire.input().len().min(left);
            letter.push(&self.wire.input()[..here]);
            self.wire.consume(here);
            left -= here;
            if left > 0 {
                self.wire.fill()?;
            }
        }
        if self.recipients == 0 {
            self.wire.say("503 5.5.1 nobody to send it to\r\n");
        } else if last {
            self.taken(letter);
        } else {
            self.chunks = Some(letter);
            self.wire.say("250 2.0.0 go on\r\n");
        }
        Ok(())
    }

    fn taken(&mut self, letter: Letter) {
        let octets = letter.octets;
        self.tally.accepted(letter.verdict(), octets, self.recipients);
        self.recipients = 0;
        self.wire.say("250 2.0.0 taken\r\n");
    }
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&STANDARD.decode(text).unwrap_or_default()).into_owned()
}
