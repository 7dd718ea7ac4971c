//! Lines in, answers out: the buffer between a channel and whoever makes sense of it.
//!
//! Answers are gathered and go out in one write, at the last moment: before the channel is waited for. So a group of
//! commands that arrived together is answered together (RFC 2920 §3.2), and nobody ever waits for an answer that is
//! kept back. A command line has at most [`MAX_LINE`] octets; of a longer one everything is read and nothing kept.
//! Lines may end in LF alone (LSB asks it of `sendmail -bs`); whether the last one did is remembered.

use super::command::{self, Bad, Command};
use super::{Answer, Channel, End, Next};
use std::io;
use zeroize::Zeroizing;

/// The longest command line, line end included: RFC 5321's 512 octets with room for every extension's parameters.
pub(super) const MAX_LINE: usize = 4096;

/// Octets read from the channel at a time.
const BUFFER: usize = 8 * 1024;

const COMMANDS: &str = "commands: HELO EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT";

/// A dialogue with a client.
pub(super) struct Dialogue<'c> {
    channel: &'c mut dyn Channel,
    /// Passwords pass through here.
    input: Zeroizing<Vec<u8>>,
    /// What of `input` has been read from the channel and not yet taken.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    /// Whether the client said EHLO and gets enhanced codes.
    pub extended: bool,
    /// Whether the last line ended in LF alone.
    pub bare_lf: bool,
    /// Whether a letter is coming in: then lines belong to it.
    in_letter: bool,
    domain: String,
    mistakes: u32,
    max_mistakes: u32,
}

impl<'c> Dialogue<'c> {
    pub(super) fn new(channel: &'c mut dyn Channel, domain: String, max_mistakes: u32) -> Self {
        let input = Zeroizing::new(vec![0; BUFFER]);
        let (output, extended, bare_lf, mistakes) = (Vec::new(), false, false, 0);
        let in_letter = false;
        Self { channel, input, unread: 0..0, output, extended, bare_lf, in_letter, domain, mistakes, max_mistakes }
    }

    pub(super) fn channel(&mut self) -> &mut dyn Channel {
        self.channel
    }

    /// A letter begins or ends.
    pub(super) fn letter(&mut self, begins: bool) {
        self.in_letter = begins;
        if begins {
            self.channel.expect(Next::Letter);
        }
    }

    /// Gives a line of an answer that has more; what has gathered goes out, so that it never grows large.
    pub(super) fn say_more(&mut self, code: u16, line: &str) -> Result<(), End> {
        Answer::write_more(code, line, &mut self.output);
        if self.output.len() < BUFFER { Ok(()) } else { self.flush() }
    }

    /// Gives an answer.
    pub(super) fn say(&mut self, answer: &Answer) {
        answer.write(self.extended, &mut self.output);
    }

    /// Gives an answer to a mistake, and ends the session where there have been too many.
    pub(super) fn complain(&mut self, answer: &Answer) -> Result<(), End> {
        self.say(answer);
        self.mistakes += 1;
        if self.mistakes < self.max_mistakes {
            return Ok(());
        }
        self.say(&Answer::new(421, (7, 0), "too many mistakes, good-bye"));
        Err(End::Closed("too many mistakes"))
    }

    /// The client does know what it does.
    pub(super) fn forgive(&mut self) {
        self.mistakes = 0;
    }

    /// Writes out what has been said.
    pub(super) fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = self.channel.write_all(&self.output).and_then(|()| self.channel.flush());
        self.output.clear();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => End::Closed("it does not read its answers"),
            _ => End::Failed(error),
        })
    }

    /// Whether the client has sent nothing beyond what was taken, as far as we have read.
    pub(super) fn is_quiet(&self) -> bool {
        self.unread.is_empty()
    }

    /// What comes next, at least an octet: waited for where nothing is there.
    pub(super) fn peek(&mut self) -> Result<&[u8], End> {
        if self.unread.is_empty() {
            self.flush()?;
            self.unread = 0..self.fill()?;
        }
        Ok(&self.input[self.unread.clone()])
    }

    fn fill(&mut self) -> Result<usize, End> {
        loop {
            match self.channel.read(&mut self.input) {
                Ok(0) => return Err(End::Left),
                Ok(n) => return Ok(n),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                        self.say(&Answer::new(421, (4, 2), "nothing was heard for too long, good-bye"));
                        return Err(End::Closed("idle"));
                    }
                    _ => return Err(End::Failed(error)),
                },
            }
        }
    }

    /// Takes `n` of the octets that [`Dialogue::peek`] gave.
    pub(super) fn take(&mut self, n: usize) {
        self.unread.start += n;
    }

    /// The next line, without its line end; `None` for one that is too long.
    pub(super) fn line(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, End> {
        if !self.in_letter {
            self.channel.expect(Next::Command);
        }
        // With room for the longest: a vector that grows leaves a copy behind that nobody wipes.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        let mut fits = true;
        loop {
            let octets = self.peek()?;
            let end = memchr::memchr(b'\n', octets);
            let part = &octets[..end.map_or(octets.len(), |end| end + 1)];
            fits &= line.len() + part.len() <= MAX_LINE;
            if fits {
                line.extend_from_slice(part);
            }
            let n = part.len();
            self.take(n);
            if end.is_some() {
                break;
            }
        }
        if !fits {
            return Ok(None);
        }
        line.pop();
        self.bare_lf = line.last() != Some(&b'\r');
        if !self.bare_lf {
            line.pop();
        }
        Ok(Some(line))
    }

    /// The next command that is one and that concerns the session; everything else is answered here.
    pub(super) fn command(&mut self) -> Result<Command, End> {
        loop {
            let Some(line) = self.line()? else {
                self.complain(&Answer::new(500, (5, 2), "this line is too long"))?;
                continue;
            };
            match command::parse(&line, &self.domain) {
                Ok(Command::Noop) => self.say(&Answer::new(250, (0, 0), "Ok")),
                Ok(Command::Vrfy) => self.say(&Answer::new(252, (1, 5), "send to it and see")),
                Ok(Command::Expn) => self.complain(&Answer::new(502, (5, 1), "there are no lists here"))?,
                Ok(Command::Help) => self.say(&Answer::new(214, (0, 0), COMMANDS)),
                Ok(command) => return Ok(command),
                Err(Bad::Line(answer)) => self.complain(&answer)?,
                Err(Bad::Hopeless(answer)) => {
                    self.say(&answer);
                    return Err(End::Closed("the client does not speak SMTP"));
                }
            }
        }
    }
}
