//! The dialogue with a server, from its greeting up to AUTH, and the primitives that a transaction is made of.
//!
//! A group of commands is one write, and before it goes nothing may be left over from the server: octets that
//! come before they are asked for end the session, above all plaintext behind STARTTLS's 220, which would be
//! read as replies of the TLS session. TLS is as the terms say or there is no session; capabilities heard
//! in plaintext are forgotten. The password goes out only inside TLS or to this very machine, and neither it nor
//! an echo of it reaches a transcript or a fault. HELO is spoken only where neither TLS nor AUTH is needed.
//!
//! After a fault that is not a plain refusal, and after a 421, the session is unusable and says nothing more.
//! An LMTP server is greeted with LHLO and never with HELO.
//! RFC 5321 §3 and §4, RFC 3207, RFC 4954, RFC 2033.

use super::auth::{Channel, Credentials, Exchange, Mechanism, bindings};
use super::capabilities::Capabilities;
use super::connect::words;
use super::masks::Masks;
use super::reply::Replies;
use super::stream::Stream;
use super::tls::{self, Encryption, Peer};
use super::transaction::Protocol;
use super::{Limits, Transcript};
use crate::config::Auth;
use crate::envelope::{Mailbox, ReversePath};
use crate::outcome::{Cause, Fault, Reply, Stage};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lettre::transport::smtp::commands::{Ehlo, Quit, Starttls};
use lettre::transport::smtp::extension::ClientId;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The longest command line, CR LF included, that every server takes (RFC 5321 §4.5.3.1.4).
const COMMAND_LINE: usize = 512;

/// Octets of replies that are kept while we write. A server that says more meanwhile has nothing to say.
const BACKLOG: usize = 1024 * 1024;

/// Whether and how TLS is spoken.
pub enum Security {
    /// Not at all.
    Off,
    /// STARTTLS, and no session without it.
    StartTls(Peer),
    /// STARTTLS where it is offered.
    Opportunistic(Peer),
    /// From the first octet.
    Implicit(Peer),
}

/// On what terms a session is opened.
pub struct Terms<'a> {
    /// The name in our EHLO.
    pub client: ClientId,
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS.
    pub security: Security,
    /// The mechanism wanted and who we are, where we authenticate.
    pub auth: Option<(Auth, Credentials<'a>)>,
}

/// The name for EHLO, from a host name, an address or an address literal; `None` for what would not be one.
pub fn client_id(name: &str) -> Option<ClientId> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<Ipv4Addr>() {
        return Some(ClientId::Ipv4(address));
    }
    if let Ok(address) = bare.strip_prefix("IPv6:").unwrap_or(bare).parse::<Ipv6Addr>() {
        return Some(ClientId::Ipv6(address));
    }
    let ascii = if name.is_ascii() { name.to_owned() } else { idna::domain_to_ascii(name).ok()? };
    let known = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_');
    (!ascii.is_empty() && ascii.len() <= 255 && ascii.bytes().all(known)).then_some(ClientId::Domain(ascii))
}

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
    /// Opens a session on those terms: greeting, EHLO, STARTTLS, AUTH. Leaves politely where it can't.
    pub fn open(
        stream: Stream,
        terms: Terms<'_>,
        limits: Limits,
        transcript: Option<Arc<dyn Transcript>>,
    ) -> Result<Self, Fault> {
        match Self::examine(stream, terms, limits, transcript) {
            (session, Ok(())) => Ok(session),
            (session, Err(fault)) => {
                session.close();
                Err(fault)
            }
        }
    }

    /// As [`Session::open`], for whoever wants to know how far it came where it failed.
    pub fn examine(
        stream: Stream,
        terms: Terms<'_>,
        limits: Limits,
        transcript: Option<Arc<dyn Transcript>>,
    ) -> (Self, Result<(), Fault>) {
        let mut session = Self {
            stream,
            limits,
            transcript,
            protocol: terms.protocol,
            replies: Replies::default(),
            capabilities: Capabilities::default(),
            offered_in_clear: None,
            mechanism: None,
            group: Zeroizing::default(),
            reset_due: false,
            masks: Masks::default(),
            broken: false,
            bdat_refused: false,
        };
        if let Some((_, credentials)) = &terms.auth {
            // From the first word on: whoever knows it from an earlier session may say it before we do.
            session.mask(credentials.secret.dangerous_expose());
        }
        let opened = session.negotiate(terms);
        (session, opened)
    }

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

    fn negotiate(&mut self, terms: Terms<'_>) -> Result<(), Fault> {
        let Terms { client, protocol: _, security, auth } = terms;
        let needs_ehlo = auth.is_some() || matches!(security, Security::StartTls(..));
        match security {
            Security::Off => {
                self.greeting()?;
                self.hello(&client, needs_ehlo)?;
            }
            Security::Implicit(peer) => {
                self.start_tls(peer)?;
                self.greeting()?;
                self.hello(&client, needs_ehlo)?;
            }
            Security::Opportunistic(peer) => {
                self.greeting()?;
                self.hello(&client, needs_ehlo)?;
                if self.capabilities.offers("STARTTLS") {
                    self.turn_to_tls(peer, &client)?;
                }
            }
            Security::StartTls(peer) => {
                self.greeting()?;
                self.hello(&client, needs_ehlo)?;
                if !self.capabilities.offers("STARTTLS") {
                    let text = "does not offer STARTTLS, which the settings demand";
                    return Err(Fault::new(Stage::StartTls, Cause::Policy(text.to_owned())));
                }
                self.turn_to_tls(peer, &client)?;
            }
        }
        auth.map_or(Ok(()), |(wanted, credentials)| self.authenticate(wanted, &credentials))
    }

    /// STARTTLS. What was heard before is forgotten.
    fn turn_to_tls(&mut self, peer: Peer, client: &ClientId) -> Result<(), Fault> {
        self.ask(&Starttls.to_string(), Stage::StartTls, 220)?;
        self.offered_in_clear = Some(std::mem::take(&mut self.capabilities));
        self.start_tls(peer)?;
        self.hello(client, true)
    }

    fn greeting(&mut self) -> Result<(), Fault> {
        let reply = self.reply(Stage::Greeting)?;
        self.expect(reply, Stage::Greeting, 220).map(drop)
    }

    fn hello(&mut self, client: &ClientId, needs_ehlo: bool) -> Result<(), Fault> {
        if self.protocol == Protocol::Lmtp {
            let reply = self.ask(&format!("LHLO {client}\r\n"), Stage::Ehlo, 250)?;
            self.capabilities = Capabilities::read(&reply);
            return Ok(());
        }
        self.command(&Ehlo::new(client.clone()).to_string());
        self.send(Stage::Ehlo)?;
        let reply = self.reply(Stage::Ehlo)?;
        if reply.is_permanent() && !needs_ehlo && self.is_usable() {
            return self.ask(&format!("HELO {client}\r\n"), Stage::Ehlo, 250).map(drop);
        }
        let reply = self.expect(reply, Stage::Ehlo, 250)?;
        self.capabilities = Capabilities::read(&reply);
        Ok(())
    }

    fn start_tls(&mut self, peer: Peer) -> Result<(), Fault> {
        self.quiet(Stage::Tls)?;
        let until = self.limits.until(Stage::Tls);
        self.stream.start_tls(peer.config, peer.name, until).map_err(|error| self.failure(Stage::Tls, &error))?;
        if self.transcript.is_some()
            && let Some(encryption) = self.encryption()
        {
            for line in encryption.to_string().lines() {
                self.note(&format!("* {line}"));
            }
        }
        Ok(())
    }

    fn authenticate(&mut self, wanted: Auth, credentials: &Credentials<'_>) -> Result<(), Fault> {
        let policy = |text: String| Fault::new(Stage::Auth, Cause::Policy(text));
        if !self.stream.is_encrypted() && !self.stream.is_local() {
            return Err(policy(
                "is not on this machine, and without TLS the password would go there in clear".to_owned(),
            ));
        }
        let capabilities = self.capabilities.clone();
        let offered = capabilities.mechanisms();
        let bindings = self.stream.tls().map(bindings).unwrap_or_default();
        let mechanism = Mechanism::choose(wanted, &offered, &bindings).map_err(policy)?;
        self.mechanism = Some(mechanism.name());
        if !mechanism.is_bound() {
            return self.run(mechanism, credentials, Channel::unbound(&offered, &bindings)).map_err(|(fault, _)| fault);
        }
        let mut bindings = bindings.into_iter().peekable();
        while let Some(binding) = bindings.next() {
            self.note(&format!("* {} is bound by {}", mechanism.name(), binding.name));
            match self.run(mechanism, credentials, Channel::Bound(binding)) {
                Ok(()) => return Ok(()),
                Err((_, Refused::Binding)) if bindings.peek().is_some() && self.is_usable() => {}
                Err((fault, _)) => return Err(fault),
            }
        }
        Err(policy(format!("has no TLS session with us that {} could be bound to", mechanism.name())))
    }

    /// One run of a mechanism, up to a 235 that can be believed.
    fn run(
        &mut self,
        mechanism: Mechanism,
        credentials: &Credentials<'_>,
        channel: Channel,
    ) -> Result<(), (Fault, Refused)> {
        let fault = |cause| (Fault::new(Stage::Auth, cause), Refused::Otherwise);
        let mut exchange =
            Exchange::begin(mechanism, credentials, channel).map_err(|why| fault(Cause::Local(why.to_owned())))?;
        let name = mechanism.name();
        // A response of no octets is a `=` behind AUTH and an empty line elsewhere (RFC 4954 §4).
        let initial = exchange
            .initial()
            .map(|octets| if octets.is_empty() { Zeroizing::new("=".to_owned()) } else { encode(octets) });
        if let Some(text) = initial.filter(|text| name.len() + text.len() + 8 <= COMMAND_LINE) {
            exchange.initial_sent();
            self.secret_command(&format!("AUTH {name} "), &text);
        } else {
            self.command(&format!("AUTH {name}\r\n"));
        }
        loop {
            let otherwise = |fault| (fault, Refused::Otherwise);
            self.send(Stage::Auth).map_err(otherwise)?;
            let mut reply = self.reply(Stage::Auth).map_err(otherwise)?;
            match reply.code {
                334 => match exchange.answer(&reply.lines.concat()) {
                    Ok(answer) => self.secret_command("", &encode(&answer)),
                    Err(cause) => {
                        self.cancel();
                        return Err(fault(cause));
                    }
                },
                235 => {
                    return exchange.conclude().map_err(|cause| {
                        self.abandon();
                        fault(cause)
                    });
                }
                _ => {
                    if let Some(complaint) = exchange.complaint() {
                        reply.lines.push(format!("({})", self.masks.shown(complaint)));
                    }
                    let refused = if exchange.wants_another_binding() { Refused::Binding } else { Refused::Otherwise };
                    return self.expect(reply, Stage::Auth, 235).map(drop).map_err(|fault| (fault, refused));
                }
            }
            if let Some(text) = exchange.unspeakable() {
                self.masks.add(&encode(&text));
            }
        }
    }

    /// Ends an exchange that we cannot go on with. What the server says to that is not the news.
    fn cancel(&mut self) {
        self.command("*\r\n");
        if self.send(Stage::Auth).is_ok() {
            drop(self.reply(Stage::Auth));
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

    /// Queues a line of which only the first part may be shown.
    fn secret_command(&mut self, shown: &str, hidden: &str) {
        if hidden.is_empty() {
            return self.command(&format!("{shown}\r\n"));
        }
        self.note(&format!("> {shown}****"));
        // Room is made first: a vector that grows leaves a copy behind that nobody wipes.
        self.group.reserve(shown.len() + hidden.len() + 2);
        for part in [shown, hidden, "\r\n"] {
            self.group.extend_from_slice(part.as_bytes());
        }
        self.masks.add(hidden);
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

    /// Remembers not to show the password, nor its base64 wherever in a text that begins. One of three characters or
    /// less would mask half the dialogue, and protects nothing.
    fn mask(&mut self, secret: &[u8]) {
        let Some(text) = std::str::from_utf8(secret).ok().filter(|text| text.len() > 3) else { return };
        for before in 0..3_usize {
            let mut padded = Zeroizing::new(vec![0; before + secret.len()]);
            padded[before..].copy_from_slice(secret);
            // Without the digits that what stands before and behind has a part in.
            self.masks.add(&encode(&padded)[(before * 8).div_ceil(6)..padded.len() * 8 / 6]);
        }
        self.masks.add(text);
    }
}

/// Why a mechanism's run came to nothing.
enum Refused {
    /// The server knows another kind of channel binding.
    Binding,
    /// Anything else, which ends the session.
    Otherwise,
}

fn encode(octets: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(BASE64_STANDARD.encode(octets))
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
