//! A session's opening: greeting, EHLO, STARTTLS, AUTH.
//!
//! TLS is as the terms say or there is no session; capabilities heard in plaintext are forgotten. The password goes out
//! only inside TLS or to this very machine, and neither it nor an echo of it reaches a transcript or a fault. HELO is
//! spoken only where neither TLS nor AUTH is needed. An LMTP server is greeted with LHLO and never with HELO.
//! RFC 5321 §3.1, §3.2 and §4.1.1.1, RFC 3207, RFC 4954, RFC 2033.

use super::Session;
use crate::config::Auth;
use crate::outcome::{Cause, Fault, Stage};
use crate::smtp::auth::{Channel, Credentials, Exchange, Mechanism, bindings};
use crate::smtp::capabilities::Capabilities;
use crate::smtp::masks::Masks;
use crate::smtp::reply::Replies;
use crate::smtp::stream::Stream;
use crate::smtp::tls::Peer;
use crate::smtp::transaction::Protocol;
use crate::smtp::{Limits, Transcript};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lettre::transport::smtp::commands::{Ehlo, Starttls};
use lettre::transport::smtp::extension::ClientId;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The longest command line, CR LF included, that every server takes (RFC 5321 §4.5.3.1.4).
const COMMAND_LINE: usize = 512;

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
