//! The other side of SMTP: one session of a server, over any octet stream, for any postmaster.
//!
//! Pure of sockets and of policy. A [`Channel`] carries octets and ends each wait as it likes; a [`Postmaster`]
//! says who may send what to whom, and takes the letters: the sandbox, `sendmail -bs` and the service are one each.
//! Spoken: HELO, EHLO, MAIL, RCPT, DATA, BDAT, RSET, NOOP, VRFY, HELP, QUIT, STARTTLS, AUTH; PIPELINING, 8BITMIME,
//! SMTPUTF8, SIZE, DSN, CHUNKING, ENHANCEDSTATUSCODES.
//!
//! What a client may rely on: 250 after the letter is said only when the postmaster has taken it; the answers to a
//! group of commands go out together; nothing that was sent behind DATA's end is lost. What it may not do: end a letter
//! with a bare LF (unless it speaks with bare LFs altogether), hide plaintext behind STARTTLS, or go on and on. A
//! letter whose end never comes is an error to its reader, never an end of file, so nothing is kept of it. Lines,
//! letters, recipients and mistakes are bounded; a letter of any size passes through a buffer of 8 KiB. RFC 5321, RFC
//! 2920, RFC 3030, RFC 3207, RFC 3461, RFC 4954, RFC 1870, RFC 2034.

mod answer;
mod command;
mod content;
mod dialogue;
mod session;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub use answer::Answer;
pub use command::Mail;
pub use session::serve;
pub use socket::Socket;
pub use tls::{Authority, Identity, NoIdentity};

use crate::envelope::{Envelope, Recipient};
use std::io::{self, Read, Write};

/// What a session is held over. `TimedOut` or `WouldBlock` from a read means that the client has been idle too long.
pub trait Channel: Read + Write {
    /// Hears what the client is to say next, for those channels whose patience depends on it.
    fn expect(&mut self, next: Next) {
        let _ = next;
    }

    /// Whether STARTTLS is to be had: not where TLS is on already.
    fn can_start_tls(&self) -> bool {
        false
    }

    /// Does the server's side of the handshake. Gives protocol and cipher in IANA's spelling.
    fn start_tls(&mut self) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What a client is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// One line: a command, or its part of AUTH.
    Command,
    /// A letter to its end, with every chunk and what stands between them.
    Letter,
}

/// A channel of two halves, as standard input and output are.
#[derive(Debug)]
pub struct Duplex<R, W>(pub R, pub W);

impl<R: Read, W> Read for Duplex<R, W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R, W: Write> Write for Duplex<R, W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.1.write(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

impl<R: Read, W: Write> Channel for Duplex<R, W> {}

/// Decides everything that is not protocol, and takes the letters. One for each session.
pub trait Postmaster {
    /// The terms of the session; asked for once, at its start.
    fn terms(&self) -> Terms;

    /// Whether `password` is `user`'s. Asked only where the terms offer AUTH.
    fn authenticate(&mut self, user: &str, password: &[u8]) -> Result<(), Answer> {
        let _ = (user, password);
        Err(Answer::bad_credentials())
    }

    /// Whether the guest may send under this reverse-path.
    fn sender(&mut self, guest: &Guest, mail: &Mail) -> Result<(), Answer> {
        let _ = (guest, mail);
        Ok(())
    }

    /// Whether the guest may send to this recipient.
    fn recipient(&mut self, guest: &Guest, mail: &Mail, recipient: &Recipient) -> Result<(), Answer> {
        let _ = (guest, mail, recipient);
        Ok(())
    }

    /// Verbs beyond the standard's that this postmaster knows; each begins with an X. EHLO offers them.
    fn verbs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Obeys one of [`Postmaster::verbs`]; `words` is what stands behind it. Each line that `tell` gets goes to the
    /// client before the answer, under the code 250.
    fn obey(&mut self, guest: &Guest, verb: &str, words: &str, tell: &mut dyn FnMut(&str)) -> Answer {
        let _ = (guest, verb, words, tell);
        Answer::new(502, (5, 1), "there is no such command")
    }

    /// Takes a letter: reads `content` to its end, makes sure that it lasts, and only then returns the text of the 250.
    ///
    /// An error of `content` means that the client has gone, has given the letter up or has exceeded the size: nothing
    /// may be kept, and what is returned then is not said to anybody. What a refusal leaves unread is skipped.
    fn accept(
        &mut self,
        guest: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<String, Answer>;
}

/// On what terms a session is held.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The name in the greeting.
    pub name: String,
    /// Completes addresses without a domain.
    pub domain: String,
    /// The largest letter, in octets; `None`: any.
    pub size: Option<u64>,
    /// The most recipients of one letter.
    pub recipients: usize,
    /// The session ends after this many mistakes in a row (unknown commands, refused passwords); a letter that is
    /// taken, or a right password, wipes them out.
    pub mistakes: u32,
    /// Who may send.
    pub auth: Auth,
}

/// Whether a client must say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// It need not, and cannot.
    Off,
    /// It must, inside TLS.
    InsideTls,
    /// It must, with or without TLS; for tests alone.
    #[cfg(any(test, fuzzing))]
    Anywhere,
}

/// What the session knows of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// The name in its HELO or EHLO: unproven, printable as little as any stranger's text.
    pub helo: Option<String>,
    /// Whether it said EHLO.
    pub extended: bool,
    /// Who it has proved to be.
    pub user: Option<String>,
    /// Protocol and cipher, where TLS is on.
    pub tls: Option<String>,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// The client said QUIT.
    Quit,
    /// The client left without a word, between letters.
    Left,
    /// The client left in the middle of a letter, of which nothing is kept.
    Vanished,
    /// We closed it: why.
    Closed(&'static str),
    /// The channel failed.
    Failed(io::Error),
}
