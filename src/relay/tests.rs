//! Letters through a whole session with a server that follows a script, over loopback.

use super::*;
use crate::envelope::{Mailbox, Recipient, ReversePath};
use crate::outcome::Outcome;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// A server that keeps the rules of SMTP except where its script says otherwise.
#[derive(Clone, Default)]
struct Script {
    ehlo: &'static [&'static str],
    /// Command (`.` is the end of the content of DATA) and what is said to it. `MAIL#2` is the second one only.
    /// `!close` at the end hangs up, `!early` says it before the content of a BDAT is read, `!deaf` never reads it.
    rules: &'static [(&'static str, &'static str)],
    /// Octets that the answers are cut into.
    drip: Option<usize>,
    /// Waits until nothing more comes before it answers, and so counts flights.
    patient: bool,
}

/// What the server has seen.
#[derive(Debug, Default)]
struct Seen {
    commands: Vec<String>,
    /// Recipients and content of the letters that it has taken.
    taken: Vec<(Vec<String>, Vec<u8>)>,
    flights: usize,
}

const PIPELINING: &[&str] = &["PIPELINING", "8BITMIME"];
const CHUNKING: &[&str] = &["PIPELINING", "CHUNKING", "8BITMIME"];
const BAD: &[(&str, &str)] = &[("RCPT TO:<bad", "550 unknown"), ("RCPT TO:<grey", "450 later")];
const NO_BDAT: &[(&str, &str)] = &[("BDAT", "502 what?")];
const NEITHER: &[&str] = &["8BITMIME"];

struct Server {
    script: Script,
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    seen: Seen,
    times: Vec<usize>,
}

impl Server {
    fn start(script: Script) -> (u16, JoinHandle<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            let times = vec![0; script.rules.len()];
            let mut server = Self { script, stream, input: vec![], output: vec![], seen: Seen::default(), times };
            server.say("220 relay ready");
            // The end of the connection is the end of the play, whoever has ended it.
            drop(server.serve());
            server.seen
        };
        (port, thread::spawn(serve))
    }

    fn serve(&mut self) -> io::Result<()> {
        let (mut mail, mut recipients) = (false, Vec::new());
        loop {
            let line = self.line()?;
            self.seen.commands.push(line.clone());
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let rule = self.rule(&line);
            let (say, early) = (rule.unwrap_or_default(), rule.is_some_and(|say| say.ends_with("!early")));
            let deaf = rule.is_some_and(|say| say.ends_with("!deaf"));
            let chunk = if verb == "BDAT" && !early && !deaf { self.octets(&line)? } else { Vec::new() };
            let usual = match verb.as_str() {
                "EHLO" => {
                    let lines: Vec<&str> = ["relay"].iter().chain(self.script.ehlo).copied().collect();
                    let last = lines.len() - 1;
                    let hyphen = |i| if i == last { ' ' } else { '-' };
                    let lines: Vec<String> =
                        lines.iter().enumerate().map(|(i, line)| format!("250{}{line}", hyphen(i))).collect();
                    lines.join("\r\n")
                }
                "MAIL" if mail => "503 nested MAIL".to_owned(),
                "RCPT" if !mail => "503 no MAIL".to_owned(),
                "DATA" | "BDAT" if recipients.is_empty() => "503 no valid recipients".to_owned(),
                "DATA" => "354 go on".to_owned(),
                "BDAT" => format!("250 taken {}", chunk.len()),
                "MAIL" | "RCPT" | "RSET" | "QUIT" => "250 ok".to_owned(),
                _ => "500 unknown".to_owned(),
            };
            let answer = if say.is_empty() { usual } else { say.to_owned() };
            let closes = self.say(answer.trim_end_matches("!early").trim_end_matches("!deaf").trim_end());
            let good = answer.starts_with('2');
            match verb.as_str() {
                "MAIL" => mail |= good,
                "RCPT" if good => recipients.push(line[9..].trim_end_matches('>').to_owned()),
                "RSET" if good => (mail, recipients) = (false, vec![]),
                "BDAT" if good => {
                    self.seen.taken.push((std::mem::take(&mut recipients), chunk));
                    mail = false;
                }
                "DATA" if answer.starts_with("354") => {
                    let content = self.dotted()?;
                    let say = self.rule(".").unwrap_or("250 taken");
                    if say.starts_with('2') {
                        self.seen.taken.push((recipients, content));
                    }
                    (mail, recipients) = (false, vec![]);
                    if self.say(say) {
                        return self.flush();
                    }
                }
                _ => {}
            }
            if closes || verb == "QUIT" {
                return self.flush();
            }
        }
    }

    fn rule(&mut self, line: &str) -> Option<&'static str> {
        for (i, (when, say)) in self.script.rules.iter().enumerate() {
            let (command, nth) = when.split_once('#').unwrap_or((when, "0"));
            if line.starts_with(command) {
                self.times[i] += 1;
                if nth == "0" || nth == self.times[i].to_string() {
                    return Some(say);
                }
            }
        }
        None
    }

    fn say(&mut self, text: &str) -> bool {
        let (text, closes) = text.strip_suffix("!close").map_or((text, false), |text| (text.trim_end(), true));
        if !text.is_empty() {
            self.output.extend_from_slice(text.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
        closes
    }

    fn flush(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        for piece in output.chunks(self.script.drip.unwrap_or(usize::MAX)) {
            self.stream.write_all(piece)?;
        }
        Ok(())
    }

    /// Reads more, after it has said what it has to say.
    fn more(&mut self) -> io::Result<()> {
        self.flush()?;
        self.seen.flights += 1;
        let mut octets = [0; 4096];
        self.stream.set_read_timeout(None)?;
        loop {
            match self.stream.read(&mut octets) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.input.extend_from_slice(&octets[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if !self.script.patient {
                return Ok(());
            }
            self.stream.set_read_timeout(Some(Duration::from_millis(60)))?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more()?;
        }
    }

    /// The content of a BDAT.
    fn octets(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let size = command.split(' ').nth(1).unwrap().parse().unwrap();
        while self.input.len() < size {
            self.more()?;
        }
        Ok(self.input.drain(..size).collect())
    }

    /// The content of a DATA, without its dots.
    fn dotted(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            if line == "." {
                return Ok(content);
            }
            content.extend_from_slice(line.strip_prefix('.').unwrap_or(&line).as_bytes());
            content.extend_from_slice(b"\r\n");
        }
    }
}

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

fn connect_to(port: u16) -> Connection {
    let mut account = Account::new("test");
    account.hosts = vec![Host::Tcp { name: "127.0.0.1".to_owned(), port }];
    account.tls = Tls::Off;
    let way = Way {
        account: &account,
        password: &|_| Err("no password".to_owned()),
        helo: "client.example",
        deadline: Instant::now() + Duration::from_mins(1),
        transcript: None,
        interrupt: Interrupt::default(),
    };
    Connection::open(&way).unwrap()
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
    let (port, server) = Server::start(script);
    let mut connection = connect_to(port);
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

#[test]
fn whatever_the_server_does_each_recipient_is_told_the_truth() {
    type Case = (
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );
    let cases: &[Case] = &[
        // One letter after the other, whatever is offered.
        (NEITHER, &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
        (PIPELINING, &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
        (CHUNKING, &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
        (&["CHUNKING"], &[], &["a", "b,c"], &["relayed", "relayed, relayed"], &["a: 0", "b+c: 1"]),
        // One refused recipient costs nobody else the letter.
        (NEITHER, BAD, &["bad,a", "b"], &["failed Rcpt 550, relayed", "relayed"], &["a: 0", "b: 1"]),
        (PIPELINING, BAD, &["bad,a", "b"], &["failed Rcpt 550, relayed", "relayed"], &["a: 0", "b: 1"]),
        (CHUNKING, BAD, &["bad,a", "b"], &["failed Rcpt 550, relayed", "relayed"], &["a: 0", "b: 1"]),
        // All refused, with a server that says so again to what comes after.
        (NEITHER, BAD, &["bad,grey", "b"], &["failed Rcpt 550, deferred Rcpt 450", "relayed"], &["b: 1"]),
        (PIPELINING, BAD, &["bad,grey", "b"], &["failed Rcpt 550, deferred Rcpt 450", "relayed"], &["b: 1"]),
        (CHUNKING, BAD, &["bad,grey", "b"], &["failed Rcpt 550, deferred Rcpt 450", "relayed"], &["b: 1"]),
        (CHUNKING, BAD, &["bad", "bad", "grey"], &["failed Rcpt 550", "failed Rcpt 550", "deferred Rcpt 450"], &[]),
        // … and one that wants the letter all the same.
        (
            PIPELINING,
            &[("RCPT TO:<bad", "550 unknown"), ("DATA#1", "354 go on")],
            &["bad", "b"],
            &["failed Rcpt 550", "relayed"],
            &[": ", "b: 1"],
        ),
        (
            PIPELINING,
            &[("MAIL#2", "550 not you"), ("DATA#2", "354 go on"), (".#2", "554 no recipients")],
            &["a", "b", "c"],
            &["relayed", "failed Mail 550", "relayed"],
            &["a: 0", "c: 2"],
        ),
        (
            PIPELINING,
            &[("MAIL#1", "451 busy"), ("RCPT#1", "250 strange"), ("DATA#1", "354 go on")],
            &["a", "b"],
            &["deferred Mail 451", "relayed"],
            &["a: ", "b: 1"],
        ),
        // MAIL refused: its echoes count for nothing.
        (
            NEITHER,
            &[("MAIL#1", "451 busy")],
            &["a,b", "c"],
            &["deferred Mail 451, deferred Mail 451", "relayed"],
            &["c: 1"],
        ),
        (PIPELINING, &[("MAIL#1", "451 busy")], &["a", "b"], &["deferred Mail 451", "relayed"], &["b: 1"]),
        (CHUNKING, &[("MAIL#1", "550 not you")], &["a", "b"], &["failed Mail 550", "relayed"], &["b: 1"]),
        // DATA refused leaves a transaction open, which RSET ends.
        (PIPELINING, &[("DATA#1", "451 later")], &["a", "b"], &["deferred Data 451", "relayed"], &["b: 1"]),
        (NEITHER, &[("DATA#1", "554 no")], &["a", "b"], &["failed Data 554", "relayed"], &["b: 1"]),
        // The content refused.
        (PIPELINING, &[(".#1", "554 spam")], &["a", "b"], &["failed Dot 554", "relayed"], &["b: 1"]),
        (
            PIPELINING,
            &[(".#2", "452 full")],
            &["a", "b", "c"],
            &["relayed", "deferred Dot 452", "relayed"],
            &["a: 0", "c: 2"],
        ),
        (CHUNKING, &[("BDAT#1", "554 spam")], &["a", "b"], &["failed Dot 554", "relayed"], &["b: 1"]),
        (
            CHUNKING,
            &[("BDAT#2", "452 full")],
            &["a", "b", "c"],
            &["relayed", "deferred Dot 452", "relayed"],
            &["a: 0", "c: 2"],
        ),
        // RSET refused: nobody knows what would be added to what.
        (
            CHUNKING,
            &[("RSET", "500 what?")],
            &["a", "b"],
            &["relayed", "deferred Dot protocol duplicate?"],
            &["a: 0", "b: 1"],
        ),
        // CHUNKING offered and BDAT refused: DATA, and each letter once.
        (
            CHUNKING,
            NO_BDAT,
            &["a", "b,c", "d"],
            &["relayed", "relayed, relayed", "relayed"],
            &["a: 0", "b+c: 1", "d: 2"],
        ),
        (
            CHUNKING,
            &[("BDAT#2", "503 no")],
            &["a", "b", "c"],
            &["relayed", "relayed", "relayed"],
            &["a: 0", "c: 2", "b: 1"],
        ),
        (
            CHUNKING,
            &[("BDAT", "502 what?"), ("RCPT TO:<bad", "550 unknown"), ("DATA#2", "554 no")],
            &["bad", "bad,a", "b"],
            &["failed Rcpt 550", "failed Rcpt 550, relayed", "failed Data 554"],
            &["a: 1"],
        ),
        // … by a server that takes the letter for commands: put off, and nothing of it done.
        (CHUNKING, &[("BDAT", "500 what? !deaf")], &["a"], &["deferred Content protocol"], &[]),
        // 421 is the answer to everything that was still to come.
        (NEITHER, &[("MAIL#2", "421 tired !close")], &["a", "b"], &["relayed", "deferred Mail 421"], &["a: 0"]),
        (NEITHER, &[("RCPT#2", "421 tired !close")], &["a,b"], &["deferred Rcpt 421, deferred Rcpt 421"], &[]),
        (PIPELINING, &[("RCPT#2", "421 tired !close")], &["a,b", "c"], &["deferred Rcpt 421, deferred Rcpt 421"], &[]),
        (PIPELINING, &[("DATA#1", "421 tired !close")], &["a", "b"], &["deferred Data 421"], &[]),
        (PIPELINING, &[(".#1", "421 tired !close")], &["a", "b"], &["deferred Dot 421", "deferred Mail 421"], &[]),
        (CHUNKING, &[("MAIL#2", "421 tired !close")], &["a", "b"], &["relayed", "deferred Mail 421"], &["a: 0"]),
        (
            CHUNKING,
            &[
                ("RCPT TO:<bad", "550 unknown"),
                ("RCPT TO:<b>", "421 tired !close"),
                ("RCPT TO:<b@", "421 tired !close"),
            ],
            &["a", "bad,b", "c"],
            &["relayed", "failed Rcpt 550, deferred Rcpt 421", "deferred Mail 421"],
            &["a: 0"],
        ),
        (CHUNKING, &[("BDAT#1", "421 tired !close")], &["a", "b"], &["deferred Dot 421", "deferred Mail 421"], &[]),
        // A connection that is lost: whose end was out may have arrived.
        (NEITHER, &[("MAIL#2", "!close")], &["a", "b"], &["relayed", "deferred Mail network"], &["a: 0"]),
        (NEITHER, &[("RCPT#2", "!close")], &["a,b"], &["deferred Rcpt network, deferred Rcpt network"], &[]),
        (PIPELINING, &[("DATA#1", "!close")], &["a"], &["deferred Data network"], &[]),
        (
            PIPELINING,
            &[(".#1", "!close")],
            &["a", "b"],
            &["deferred Dot network duplicate?", "deferred Mail network"],
            &[],
        ),
        (
            CHUNKING,
            &[("RCPT TO:<bad", "550 unknown"), ("BDAT#1", "!close")],
            &["bad,a", "b"],
            &["failed Rcpt 550, deferred Dot network duplicate?", "deferred Dot network duplicate?"],
            &[],
        ),
        // What is no answer.
        (PIPELINING, &[("RCPT#1", "HTTP/1.1")], &["a"], &["deferred Rcpt protocol"], &[]),
        (PIPELINING, &[("DATA#1", "250 ok")], &["a"], &["deferred Data protocol"], &[]),
        (PIPELINING, &[(".#1", "354 go on")], &["a"], &["deferred Dot protocol duplicate?"], &[]),
        (CHUNKING, &[("BDAT#1", "354 go on")], &["a"], &["deferred Dot protocol duplicate?"], &[]),
        (CHUNKING, &[("MAIL#1", "354 go on")], &["a"], &["deferred Dot protocol duplicate?"], &[]),
        // One answer too many shifts the others.
        (CHUNKING, &[("RCPT#1", "250 ok\r\n250 ok")], &["a"], &["deferred Dot protocol duplicate?"], &["a: 0"]),
        (PIPELINING, &[("RCPT#1", "250 ok\r\n250 ok")], &["a"], &["deferred Data protocol"], &[]),
        (PIPELINING, &[("DATA#1", "354 go on\r\n250 taken")], &["a"], &["deferred Content protocol"], &[]),
        (PIPELINING, &[("DATA#1", "354 go on\r\n554 no")], &["a", "b"], &["failed Content 554"], &[]),
        // 421 behind a good answer is news for the next one only.
        (CHUNKING, &[("BDAT#1", "250 ok\r\n421 enough !close")], &["a"], &["relayed"], &["a: 0"]),
        (
            PIPELINING,
            &[(".#1", "250 ok\r\n421 enough !close")],
            &["a", "b"],
            &["relayed", "deferred Mail 421"],
            &["a: 0"],
        ),
    ];
    let mut wrong = Vec::new();
    for (ehlo, rules, letters, told, got) in cases {
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
