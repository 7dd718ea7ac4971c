//! The dialogue with a server: commands out, replies in. `opening` is how it begins, a transaction is made of what
//! stands here.
//!
//! A group of commands is one write, and before it goes nothing may be left over from the server: octets that
//! come before they are asked for end the session, above all plaintext behind STARTTLS's 220, which would be
//! read as replies of the TLS session.
//!
//! After a fault that is not a plain refusal, and after a 421, the session is unusable and says nothing more.
//! RFC 5321 §3 and §4.

mod opening;

pub use opening::{Security, Terms, client_id};

use super::capabilities::Capabilities;
use super::connect::words;
use super::masks::Masks;
use super::reply::Replies;
use super::stream::Stream;
use super::tls::{self, Encryption};
use super::transaction::Protocol;
use super::{Limits, Transcript};
use crate::envelope::{Mailbox, ReversePath};
use crate::outcome::{Cause, Fault, Reply, Stage};
use lettre::transport::smtp::commands::Quit;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Octets of replies that are kept while we write. A server that says more meanwhile has nothing to say.
const BACKLOG: usize = 1024 * 1024;

/// A session with a server.
pub struct Session {
    stream: Stream,
    limits: Limits,
    transcript: Option<Arc<dyn Transcript>>,
    pub(super) protocol: Protocol,
    replies: Replies,
    /// What the server offered last.
    pub(super) capabilities: Capabilities,
    /// What it offered before TLS: for show, nothing is decided by it.
    offered_in_clear: Option<Capabilities>,
    /// How we have authenticated, or tried to.
    mechanism: Option<&'static str>,
    /// Commands queued for the next write.
    pub(super) group: Zeroizing<Vec<u8>>,
    /// A transaction was begun and not ended: RSET comes before the next one.
    pub(super) reset_due: bool,
    /// What must not be shown: the password and its encodings.
    masks: Masks,
    broken: bool,
    /// The server offered CHUNKING and then refused BDAT.
    pub(super) bdat_refused: bool,
}

impl Session {
    /// What the server offers.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What it offered before TLS, where STARTTLS was spoken. Anybody on the way may have written that.
    pub fn offered_in_clear(&self) -> Option<&Capabilities> {
        self.offered_in_clear.as_ref()
    }

    /// The name of the SASL mechanism that was used.
    pub fn mechanism(&self) -> Option<&'static str> {
        self.mechanism
    }

    /// Asks whether mail from there would be taken, and takes the question back.
    pub fn try_sender(&mut self, sender: &ReversePath) -> Result<(), Fault> {
        let is_utf8 = sender.0.as_ref().is_some_and(Mailbox::is_utf8);
        let parameter = if is_utf8 && self.capabilities.offers("SMTPUTF8") { " SMTPUTF8" } else { "" };
        self.ask(&format!("MAIL FROM:<{sender}>{parameter}\r\n"), Stage::Mail, 250)?;
        self.ask("RSET\r\n", Stage::Mail, 250).map(drop)
    }

    /// What protects the session and who is at its other end; `None` where TLS is not spoken.
    pub fn encryption(&self) -> Option<Encryption> {
        self.stream.tls().and_then(Encryption::of)
    }

    /// Gives what comes next until `total`.
    pub fn extend(&mut self, total: Instant) {
        self.limits.total = total;
    }

    /// What is left of that.
    pub fn time_left(&self) -> Duration {
        self.limits.total.saturating_duration_since(Instant::now())
    }

    /// Whether another letter can be sent in it.
    pub fn is_usable(&self) -> bool {
        !self.broken
    }

    /// Says QUIT where that makes sense. Its answer would change nothing and is not waited for.
    pub fn close(self) {
        if !self.broken {
            self.note("> QUIT");
            self.stream.leave(Quit.to_string().as_bytes());
        }
    }

    /// Sends one command and takes one answer, which must be `code`.
    fn ask(&mut self, command: &str, stage: Stage, code: u16) -> Result<Reply, Fault> {
        self.command(command);
        self.send(stage)?;
        let reply = self.reply(stage)?;
        self.expect(reply, stage, code)
    }

    fn expect(&mut self, reply: Reply, stage: Stage, code: u16) -> Result<Reply, Fault> {
        self.judge(reply, stage, |got| got == code)
    }

    /// The reply where its code fits; the refusal that it is; or the breach of the protocol that it is.
    pub(super) fn judge(&mut self, reply: Reply, stage: Stage, fits: impl Fn(u16) -> bool) -> Result<Reply, Fault> {
        if fits(reply.code) {
            return Ok(reply);
        }
        if reply.is_transient() || reply.is_permanent() {
            return Err(Fault::new(stage, Cause::Reply(reply)));
        }
        Err(self.breach(stage, &format!("said \"{reply}\" out of turn")))
    }

    /// Gives the session up without another word.
    pub(super) fn abandon(&mut self) {
        self.broken = true;
    }

    /// Queues a command, line end included, for the next [`Session::send`].
    pub(super) fn command(&mut self, line: &str) {
        self.note(&format!("> {}", line.trim_end()));
        self.group.extend_from_slice(line.as_bytes());
    }

    /// Writes the queued commands in one go.
    pub(super) fn send(&mut self, stage: Stage) -> Result<(), Fault> {
        self.quiet(stage)?;
        let group = std::mem::take(&mut self.group);
        self.write(&group, stage)
    }

    /// Writes octets as they are.
    ///
    /// What the server says meanwhile is kept; in the middle of a letter's content it should say nothing, and what it
    /// says ends the writing.
    pub(super) fn write(&mut self, octets: &[u8], stage: Stage) -> Result<(), Fault> {
        let until = self.limits.until(stage);
        let replies = &mut self.replies;
        let mut heard = |octets: &[u8]| {
            replies.push(octets);
            if stage == Stage::Content || replies.len() > BACKLOG {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        self.stream.write_all(octets, until, &mut heard).map_err(|error| self.failure(stage, &error))
    }

    /// Waits for the next reply, however slowly it comes, but no longer than the limits allow.
    pub(super) fn reply(&mut self, stage: Stage) -> Result<Reply, Fault> {
        let until = self.limits.until(stage);
        let mut octets = [0; 16 * 1024];
        loop {
            if let Some(reply) = self.next_reply(stage)? {
                return Ok(reply);
            }
            let read = self.stream.read(&mut octets, until).map_err(|error| self.failure(stage, &error))?;
            self.replies.push(&octets[..read]);
        }
    }

    /// A reply that has come already, without a wait for one.
    pub(super) fn early_reply(&mut self, stage: Stage) -> Result<Option<Reply>, Fault> {
        if let Some(reply) = self.next_reply(stage)? {
            return Ok(Some(reply));
        }
        let mut octets = [0; 4096];
        let read = self.stream.read_early(&mut octets).map_err(|error| self.failure(stage, &error))?;
        self.replies.push(&octets[..read]);
        self.next_reply(stage)
    }

    /// The next reply among the octets that have been read.
    pub(super) fn next_reply(&mut self, stage: Stage) -> Result<Option<Reply>, Fault> {
        let reply = self.replies.take().map_err(|why| self.breach(stage, &why.to_string()))?;
        let Some(mut reply) = reply else { return Ok(None) };
        let shown: Vec<String> = reply.lines.iter().map(|line| self.masks.shown(line)).collect();
        if self.transcript.is_some() {
            for (i, line) in shown.iter().enumerate() {
                let hyphen = if i + 1 < shown.len() { '-' } else { ' ' };
                self.note(&format!("< {}{hyphen}{line}", reply.code));
            }
        }
        // A challenge is for `auth` alone, and what is offered for `capabilities`: they need it as it came, and a
        // password may be a keyword. Anything else may end up in a sentence.
        if !matches!((stage, reply.code), (Stage::Auth, 334) | (Stage::Ehlo, 250)) {
            reply.lines = shown;
            reply.abridge();
        }
        // 421: the server closes the channel, whatever it was asked (RFC 5321 §3.8).
        self.broken |= reply.code == 421;
        Ok(Some(reply))
    }

    /// Nothing may have come that was not asked for, but for the word that the server closes the session: it may say
    /// that at any time (RFC 5321 §3.8).
    pub(super) fn quiet(&mut self, stage: Stage) -> Result<(), Fault> {
        if self.replies.is_empty() && !self.stream.has_unread() {
            return Ok(());
        }
        match self.early_reply(stage)? {
            Some(reply) if reply.code == 421 => Err(Fault::new(stage, Cause::Reply(reply))),
            _ => Err(self.breach(stage, "sent more than it was asked for")),
        }
    }

    /// What the server has said beyond the last whole reply that was taken.
    pub(super) fn left_over(&self) -> &[u8] {
        self.replies.rest()
    }

    /// The server broke the protocol: nothing it says from here on can be trusted to mean anything.
    pub(super) fn breach(&mut self, stage: Stage, what: &str) -> Fault {
        self.broken = true;
        Fault::new(stage, Cause::Protocol(format!("{what} {}", place(stage))))
    }

    /// The stream failed: says how, in a sentence with the relay as its subject.
    fn failure(&mut self, stage: Stage, error: &io::Error) -> Fault {
        self.broken = true;
        let place = place(stage);
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        // TLS 1.3 brings it late, but it is the handshake that has failed. Not once a letter is on its way: then
        // what counts is how far that has got.
        let stage = if stage < Stage::Mail && tls.is_some_and(tls::is_about_us) { Stage::Tls } else { stage };
        Fault::new(
            stage,
            match (error.kind(), tls) {
                _ if self.stream.is_interrupted() => Cause::Interrupted,
                (_, Some(error)) => Cause::Tls(tls::sentence(error)),
                (io::ErrorKind::TimedOut, _) => Cause::Timeout(format!("timed out {place}")),
                (io::ErrorKind::UnexpectedEof, _) => Cause::Network(format!("closed the connection {place}")),
                _ => Cause::Network(format!("lost the connection {place}: {}", words(error))),
            },
        )
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.transcript.is_some()
    }

    /// Shows a line to whoever watches.
    pub(super) fn note(&self, line: &str) {
        if let Some(transcript) = &self.transcript {
            transcript.line(line);
        }
    }
}

/// The same fault as it looks from another stage of the dialogue.
pub(super) fn seen_from(stage: Stage, fault: &Fault) -> Fault {
    let elsewhere = |text: &str| text.replacen(&place(fault.stage), &place(stage), 1);
    let cause = match &fault.cause {
        Cause::Network(text) => Cause::Network(elsewhere(text)),
        Cause::Timeout(text) => Cause::Timeout(elsewhere(text)),
        Cause::Protocol(text) => Cause::Protocol(elsewhere(text)),
        other => other.clone(),
    };
    Fault::new(stage, cause)
}

/// Where in the dialogue, for the end of a sentence.
fn place(stage: Stage) -> String {
    match stage {
        Stage::Greeting => "before its greeting".to_owned(),
        Stage::Tls => "in the TLS handshake".to_owned(),
        Stage::Content => "in the middle of the letter".to_owned(),
        Stage::Local
        | Stage::Resolve
        | Stage::Connect
        | Stage::Ehlo
        | Stage::StartTls
        | Stage::Auth
        | Stage::Mail
        | Stage::Rcpt
        | Stage::Data
        | Stage::Dot => format!("after {stage}"),
    }
}
