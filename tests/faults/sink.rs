//! A relay that counts. What it has read up to the final dot it has taken, whether or not its answer is ever heard.
//!
//! The local part of a recipient says what becomes of it: `later…` is put off (451) until [`Sink::relent`], `never…` is
//! refused (550), anybody else is taken. The relay as a whole has a [`Mood`]. CHUNKING is not offered, so that there is
//! a final dot to be killed at.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// How long anybody waits for anything here before the test has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the relay is like at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes letters.
    Willing,
    /// It greets with 421 and hangs up.
    Closed,
    /// It does not answer MAIL FROM of a sender whose local part is this one; anybody else is served.
    SilentAfterMail(&'static str),
    /// It takes letters and does not say so.
    SilentAfterDot,
    /// It hangs up behind every so manieth final dot, having taken the letter and not said so.
    DropsEvery(usize),
}

/// A letter for one recipient, as it was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The reverse-path, without brackets.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The content, dots unstuffed.
    pub content: Vec<u8>,
}

/// The relay; it ends with the value.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mood: Mood,
    relents: bool,
    taken: Vec<Taken>,
    /// Final dots read.
    dots: usize,
    /// Final dots after which it hung up.
    unanswered: usize,
    /// MAIL FROM commands read.
    mails: usize,
    /// Connections accepted, and how many of them are open.
    connections: usize,
    open: usize,
    ends: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            mood: Mood::Willing,
            relents: false,
            taken: Vec::new(),
            dots: 0,
            unanswered: 0,
            mails: 0,
            connections: 0,
            open: 0,
            ends: false,
        }
    }
}

impl Sink {
    /// A willing relay on a free port of the loopback.
    pub fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = ours.state();
                if state.ends {
                    return;
                }
                state.connections += 1;
                state.open += 1;
                drop(state);
                let ours = Arc::clone(&ours);
                thread::spawn(move || {
                    // A client that was killed has closed its end: that is what this is for.
                    let _ = ours.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                    ours.state().open -= 1;
                    ours.changed.notify_all();
                });
            }
        });
        Self { address, shared }
    }

    /// Where it listens, as a configuration has it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes its mood, also for those whom it keeps waiting.
    pub fn set(&self, mood: Mood) {
        self.shared.state().mood = mood;
        self.shared.changed.notify_all();
    }

    /// From now on `later…` is taken.
    pub fn relent(&self) {
        self.shared.state().relents = true;
    }

    /// What it has taken.
    pub fn taken(&self) -> Vec<Taken> {
        self.shared.state().taken.clone()
    }

    /// How many have connected.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// After how many final dots it hung up without an answer.
    pub fn unanswered(&self) -> usize {
        self.shared.state().unanswered
    }

    /// Waits until so many MAIL FROM commands have come.
    pub fn wait_for_mails(&self, count: usize) {
        self.shared.wait("MAIL FROM", |state| state.mails >= count);
    }

    /// Waits until so many final dots have come.
    pub fn wait_for_dots(&self, count: usize) {
        self.shared.wait("a final dot", |state| state.dots >= count);
    }

    /// Waits until nobody is connected any more, and everything that the clients sent before they died has been read.
    pub fn settle(&self) {
        // Connections are accepted in their order: what came before this one is known when this one is.
        let before = self.connections();
        drop(TcpStream::connect(self.address).unwrap());
        self.shared.wait("the connections' end", |state| state.connections > before && state.open == 0);
        self.shared.state().connections -= 1;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ends = true;
        state.mood = Mood::Willing;
        drop(state);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait(&self, what: &str, come: impl Fn(&State) -> bool) {
        let waited = self.changed.wait_timeout_while(self.state(), PATIENCE, |state| !come(state));
        assert!(!waited.unwrap().1.timed_out(), "the relay waits in vain for {what}");
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let (mut input, mut output) = (BufReader::new(stream), stream);
        if self.state().mood == Mood::Closed {
            return output.write_all(b"421 4.3.2 closed for today\r\n");
        }
        output.write_all(b"220 sink.example.com ESMTP\r\n")?;
        let (mut from, mut to) = (String::new(), Vec::new());
        loop {
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let word = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match word.as_str() {
                "EHLO" => {
                    "250-sink.example.com\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE"
                }
                "MAIL" => {
                    (from, to) = (path(&line), Vec::new());
                    let mut state = self.state();
                    state.mails += 1;
                    self.changed.notify_all();
                    let silent = |state: &mut State| match state.mood {
                        Mood::SilentAfterMail(local) => from.starts_with(&format!("{local}@")),
                        _ => false,
                    };
                    drop(self.changed.wait_timeout_while(state, PATIENCE, silent).unwrap());
                    "250 2.1.0 ok"
                }
                "RCPT" => {
                    let recipient = path(&line);
                    if recipient.starts_with("later") && !self.state().relents {
                        "451 4.7.1 try later"
                    } else if recipient.starts_with("never") {
                        "550 5.1.1 no such user"
                    } else {
                        to.push(recipient);
                        "250 2.1.5 ok"
                    }
                }
                "DATA" if to.is_empty() => "554 5.5.1 no valid recipients",
                "DATA" => {
                    output.write_all(b"354 go on\r\n")?;
                    let content = content(&mut input)?;
                    if self.take(&from, &to, &content) {
                        return Ok(());
                    }
                    "250 2.0.0 taken"
                }
                "RSET" | "NOOP" => "250 2.0.0 ok",
                "QUIT" => {
                    output.write_all(b"221 2.0.0 bye\r\n")?;
                    return Ok(());
                }
                _ => "500 5.5.2 what?",
            };
            output.write_all(format!("{answer}\r\n").as_bytes())?;
        }
    }

    /// Takes a letter; says nothing about it as long as the mood is such. `true`: hang up.
    fn take(&self, from: &str, to: &[String], content: &[u8]) -> bool {
        let mut state = self.state();
        state.dots += 1;
        let dropped = matches!(state.mood, Mood::DropsEvery(n) if state.dots.is_multiple_of(n));
        state.unanswered += usize::from(dropped);
        for to in to {
            state.taken.push(Taken { from: from.to_owned(), to: to.clone(), content: content.to_owned() });
        }
        self.changed.notify_all();
        let silent = |state: &mut State| state.mood == Mood::SilentAfterDot;
        drop(self.changed.wait_timeout_while(state, PATIENCE, silent).unwrap());
        dropped
    }
}

/// The path of a MAIL or RCPT command.
fn path(line: &str) -> String {
    let path = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
    path.unwrap_or_default().to_owned()
}

/// The content up to the final dot.
fn content(input: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        if input.read_until(b'\n', &mut content)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match &content[start..] {
            b".\r\n" => {
                content.truncate(start);
                return Ok(content);
            }
            [b'.', ..] => drop(content.remove(start)),
            _ => {}
        }
    }
}
