//! A letter while it comes in: the octets between DATA and its lone dot, or of one BDAT after the other.
//!
//! A [`Read`] that gives the letter's own octets and then an end of file, and that only where the client has said
//! that the letter is whole. Everything else is an error: the client has gone, it has given the letter up (RSET), or
//! the letter is too large. Between chunks the dialogue goes on in here. RFC 5321 §4.5.2, RFC 3030 §2.

use super::command::{Chunk, Command};
use super::dialogue::Dialogue;
use super::{Answer, End};
use std::io::{self, Read};

/// How the end of a letter is told.
pub(super) enum Framing {
    Dot(Dots),
    Chunks {
        /// The one that is being read.
        chunk: Chunk,
        /// Octets of it that are still to come.
        left: u64,
    },
}

impl Framing {
    pub(super) fn chunks(chunk: Chunk) -> Self {
        Self::Chunks { chunk, left: chunk.size }
    }
}

/// Why a letter did not come to its end.
pub(super) enum Broken {
    /// Nor will anything else: the session has ended.
    Session(End),
    /// The client has given it up with this command.
    GivenUp(Command),
}

impl From<End> for Broken {
    fn from(end: End) -> Self {
        Self::Session(if let End::Left = end { End::Vanished } else { end })
    }
}

/// Why the reader fails.
enum Stop {
    Broken(Broken),
    /// The letter has more octets than the terms allow.
    TooLarge,
}

impl<B: Into<Broken>> From<B> for Stop {
    fn from(broken: B) -> Self {
        Self::Broken(broken.into())
    }
}

/// The letter's octets.
pub(super) struct Content<'d, 'c> {
    dialogue: &'d mut Dialogue<'c>,
    framing: Framing,
    /// Octets that may still come.
    room: u64,
    stop: Option<Stop>,
}

impl<'d, 'c> Content<'d, 'c> {
    pub(super) fn new(dialogue: &'d mut Dialogue<'c>, framing: Framing, limit: Option<u64>) -> Self {
        dialogue.letter(true);
        Self { dialogue, framing, room: limit.unwrap_or(u64::MAX), stop: None }
    }

    /// Brings the letter to its end and says what the client shall hear of it. The error is why it shall hear nothing.
    pub(super) fn conclude(mut self, verdict: Result<String, Answer>) -> Result<Result<String, Answer>, Broken> {
        // A postmaster that took the letter has read it; where it has not seen the very end, we look for it.
        if verdict.is_ok() {
            while !matches!(self.read(&mut [0; 512]), Ok(0) | Err(_)) {}
        }
        let verdict = match self.stop.take() {
            None => verdict,
            Some(Stop::TooLarge) => Err(Answer::new(552, (3, 4), "the letter is too large")),
            Some(Stop::Broken(broken)) => return Err(broken),
        };
        if verdict.is_err() {
            self.skip()?;
        }
        Ok(verdict)
    }

    /// Reads and drops what belongs to the letter and is on its way for certain: up to the dot, or the chunk's end.
    fn skip(&mut self) -> Result<(), End> {
        let mut waste = [0; 4096];
        loop {
            if matches!(self.framing, Framing::Chunks { left: 0, .. }) {
                return Ok(());
            }
            if self.piece(&mut waste)? == Some(0) {
                return Ok(());
            }
        }
    }

    /// The next octets of the frame that is being read; 0 at the end of the letter, `None` at the end of a chunk.
    fn piece(&mut self, into: &mut [u8]) -> Result<Option<usize>, End> {
        match &mut self.framing {
            Framing::Dot(dots) => loop {
                if dots.have_ended() {
                    return Ok(Some(0));
                }
                let (used, made) = dots.run(self.dialogue.peek()?, into);
                self.dialogue.take(used);
                if made > 0 {
                    return Ok(Some(made));
                }
            },
            Framing::Chunks { chunk, left: 0 } => Ok(chunk.last.then_some(0)),
            Framing::Chunks { left, .. } => {
                let octets = self.dialogue.peek()?;
                let n = octets.len().min(into.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                into[..n].copy_from_slice(&octets[..n]);
                self.dialogue.take(n);
                *left -= n as u64;
                Ok(Some(n))
            }
        }
    }

    fn next(&mut self, into: &mut [u8]) -> Result<usize, Stop> {
        loop {
            if let Some(n) = self.piece(into)? {
                self.room = self.room.checked_sub(n as u64).ok_or(Stop::TooLarge)?;
                return Ok(n);
            }
            self.next_chunk()?;
        }
    }

    /// Acknowledges a chunk that is not the last, and waits for the announcement of the next.
    fn next_chunk(&mut self) -> Result<(), Broken> {
        if let Framing::Chunks { chunk, .. } = &self.framing {
            let text = format!("{} octets received", chunk.size);
            self.dialogue.say(&Answer::new(250, (0, 0), text));
        }
        loop {
            match self.dialogue.command()? {
                Command::Bdat(chunk) => {
                    self.framing = Framing::chunks(chunk);
                    return Ok(());
                }
                command @ (Command::Rset | Command::Quit | Command::Helo(_) | Command::Ehlo(_)) => {
                    return Err(Broken::GivenUp(command));
                }
                _ => self.dialogue.complain(&Answer::new(503, (5, 1), "a letter has been begun: BDAT or RSET"))?,
            }
        }
    }
}

impl Drop for Content<'_, '_> {
    fn drop(&mut self) {
        self.dialogue.letter(false);
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let stop = match self.stop.take() {
            None => match self.next(into) {
                Ok(n) => return Ok(n),
                Err(stop) => stop,
            },
            Some(stop) => stop,
        };
        let (kind, text) = match &stop {
            Stop::TooLarge => (io::ErrorKind::FileTooLarge, "the letter is too large"),
            Stop::Broken(Broken::GivenUp(_)) => (io::ErrorKind::ConnectionAborted, "the client gave the letter up"),
            Stop::Broken(Broken::Session(_)) => (io::ErrorKind::BrokenPipe, "the client went away in mid-letter"),
        };
        self.stop = Some(stop);
        Err(io::Error::new(kind, text))
    }
}

/// Finds the lone dot and takes away the dots that were put before others. Any split of the input gives the same.
#[derive(Debug)]
pub(super) struct Dots {
    place: Place,
    /// Whether LF alone ends a line too.
    bare_lf: bool,
}

/// What has been read of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing.
    Start,
    /// Something.
    Text,
    /// A CR just now.
    Cr,
    /// The dot at its start, which is not the letter's.
    Dot,
    /// That dot and a CR, which is held back.
    DotCr,
    /// The letter has ended.
    End,
}

impl Dots {
    /// At the letter's first octet. A client that ends its own lines with LF alone ends its letters so too; from any
    /// other it is no line end, so that a letter cannot smuggle another in behind it.
    pub(super) fn new(bare_lf: bool) -> Self {
        Self { place: Place::Start, bare_lf }
    }

    fn have_ended(&self) -> bool {
        self.place == Place::End
    }

    /// Moves octets from `from` to `into` until one of them or the letter ends: how many were used, how many made.
    fn run(&mut self, from: &[u8], into: &mut [u8]) -> (usize, usize) {
        let (mut used, mut made) = (0, 0);
        while used < from.len() && made < into.len() && !self.have_ended() {
            if self.place == Place::Text {
                // The long way: everything up to the next CR or LF at once.
                let n = (from.len() - used).min(into.len() - made);
                let n = memchr::memchr2(b'\r', b'\n', &from[used..used + n]).unwrap_or(n);
                into[made..made + n].copy_from_slice(&from[used..used + n]);
                (used, made) = (used + n, made + n);
                if n > 0 {
                    continue;
                }
            }
            let octet = from[used];
            let ends_line = octet == b'\n' && (self.bare_lf || matches!(self.place, Place::Cr | Place::DotCr));
            if self.place == Place::DotCr && !ends_line {
                // It was text after all: the CR comes first, and then this octet once more.
                into[made] = b'\r';
                made += 1;
                self.place = Place::Cr;
                continue;
            }
            used += 1;
            self.place = match (self.place, octet) {
                (Place::Start, b'.') => {
                    self.place = Place::Dot;
                    continue;
                }
                (Place::Dot, b'\r') => {
                    self.place = Place::DotCr;
                    continue;
                }
                (Place::Dot | Place::DotCr, _) if ends_line => {
                    self.place = Place::End;
                    continue;
                }
                _ if ends_line => Place::Start,
                (_, b'\r') => Place::Cr,
                _ => Place::Text,
            };
            into[made] = octet;
            made += 1;
        }
        (used, made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The letter, and what is left behind its end; `None` where there is no end.
    fn read(parts: &[&[u8]], room: usize, bare_lf: bool) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut dots, mut letter, mut buffer) = (Dots::new(bare_lf), Vec::new(), vec![0; room]);
        for (i, part) in parts.iter().enumerate() {
            let mut part = *part;
            while !part.is_empty() && !dots.have_ended() {
                let (used, made) = dots.run(part, &mut buffer);
                letter.extend_from_slice(&buffer[..made]);
                part = &part[used..];
            }
            if dots.have_ended() {
                return Some((letter, [part, &parts[i + 1..].concat()].concat()));
            }
        }
        None
    }

    #[test]
    fn only_a_lone_dot_between_crlfs_ends_a_letter() {
        for (wire, letter) in [
            ("a\r\n.\r\n", Some("a\r\n")),
            (".\r\n", Some("")),
            ("..\r\n.\r\n", Some(".\r\n")),
            (".a\r\n..b\r\n...\r\n.\r\n", Some("a\r\n.b\r\n..\r\n")),
            ("a\n.\n.\r\n\r\n.\r\n", Some("a\n.\n.\r\n\r\n")),
            ("a\r\n.\nb\r\n.\r\n", Some("a\r\n\nb\r\n")),
            ("a\n.\r\n", None),
            ("a\r.\r\n", None),
            ("a\r\n.\r", None),
            ("a\r\n.\r\r\n.\r\n", Some("a\r\n\r\r\n")),
            ("a\r\n.\rb\r\n.\r\n", Some("a\r\n\rb\r\n")),
        ] {
            let got = read(&[wire.as_bytes()], 100, false).map(|(letter, _)| String::from_utf8(letter).unwrap());
            assert_eq!(got.as_deref(), letter, "{wire:?}");
        }
    }

    #[test]
    fn a_client_that_speaks_with_bare_lfs_ends_its_letters_so_too() {
        for (wire, letter) in [("a\n.\n", "a\n"), ("..\n.\r\n", ".\n"), ("a\r\n.b\n.\n", "a\r\nb\n")] {
            let got = read(&[wire.as_bytes()], 100, true).map(|(letter, _)| String::from_utf8(letter).unwrap());
            assert_eq!(got.as_deref(), Some(letter), "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_and_any_buffer_give_the_same(
            wire in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..40),
            at in any::<proptest::sample::Index>(),
            room in 1_usize..5,
            bare_lf in any::<bool>(),
        ) {
            let wire = [wire.as_slice(), b"\r\n.\r\nQUIT\r\n"].concat();
            let at = at.index(wire.len());
            let whole = read(&[&wire], 1000, bare_lf).unwrap();
            prop_assert_eq!(&whole, &read(&[&wire[..at], &wire[at..]], room, bare_lf).unwrap());
            prop_assert!(whole.1.ends_with(b"QUIT\r\n"), "what is behind the end is not the letter's");
        }
    }
}
