//! SASL: which mechanism, and what it answers to the server's challenges.
//!
//! No network: the session asks for the initial response, then for an answer to each challenge, and at the
//! server's 235 whether that can be believed. Octets that hold a secret are wiped when dropped.
//!
//! A downgrade is impossible. `auto` takes the strongest mechanism that is offered inside TLS, and what the
//! server then says about it is final, also 504 (the server does not know what it offers) and 534 (too weak;
//! nothing stronger is left): trying the next one would hand the password over to whoever can send a 5xx.
//! The order, strongest first:
//! 1. SCRAM bound to the TLS session, then SCRAM: the server never learns the password and must prove that it
//!    knows it. Bound SHA-1 goes before unbound SHA-256: the hash has no known weakness in HMAC, the binding
//!    stops a relay in the middle that holds a certificate we accept.
//! 2. PLAIN, then LOGIN: the password goes to the server that TLS has verified, which may keep a good hash of
//!    it. LOGIN is as weak and takes two flights more.
//! 3. CRAM-MD5, although it hides the password: inside TLS it hides it from nobody but the server itself, which
//!    must therefore store it in clear, and anyone who sees the exchange may guess passwords at the speed of
//!    MD5. Many servers offer it and have no clear password to check it by. (draft-ietf-sasl-crammd5-to-historic
//!    recommends PLAIN inside TLS or SCRAM.)
//!
//! XOAUTH2, OAUTHBEARER and EXTERNAL need a token or a certificate and run only when the settings ask for them, as an
//! account whose password is an OAuth token does: that never goes by a mechanism for passwords.
//! RFC 4954 (the AUTH command), RFC 4422 (SASL), RFC 4616 (PLAIN); LOGIN was never more than an expired draft.

mod bearer;
mod binding;
mod cram;
mod scram;

#[cfg(test)]
mod tests;

use crate::config::Auth;
use crate::outcome::Cause;
use crate::secret::Secret;
use bearer::Bearer;
pub use binding::{Binding, bindings};
use scram::{Hash, Scram};
use zeroize::Zeroizing;

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 7677, bound to the TLS session.
    ScramSha256Plus,
    /// RFC 5802, bound to the TLS session.
    ScramSha1Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802.
    ScramSha1,
    /// RFC 4616.
    Plain,
    /// User name and password, each after a challenge.
    Login,
    /// RFC 2195.
    CramMd5,
    /// A token, as Google and Microsoft began to send it.
    XOAuth2,
    /// RFC 7628.
    OAuthBearer,
    /// RFC 4422 appendix A.
    External,
}

impl Mechanism {
    /// Those that need no more than a password, the strongest first.
    const AUTO: [Self; 7] = [
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
        Self::Login,
        Self::CramMd5,
    ];

    /// Those that the settings must ask for.
    const ON_REQUEST: [Self; 3] = [Self::OAuthBearer, Self::XOAuth2, Self::External];

    /// As AUTH names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::CramMd5 => "CRAM-MD5",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::External => "EXTERNAL",
        }
    }

    /// Whether it is bound to the TLS session.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    /// The mechanism to use where the server offers `offered` (after STARTTLS, in upper case) on a session that has
    /// those `bindings`. The error is what cannot be had, with the relay as the subject of the sentence, and what may
    /// be `shown` of its offer as the object.
    pub fn choose(wanted: Auth, offered: &[&str], bindings: &[Binding], shown: &str) -> Result<Self, String> {
        let candidates: &[Self] = match wanted {
            Auth::Auto => &Self::AUTO,
            Auth::Bearer => &[Self::OAuthBearer, Self::XOAuth2],
            Auth::Off => &[],
            Auth::ScramSha256Plus => &[Self::ScramSha256Plus],
            Auth::ScramSha1Plus => &[Self::ScramSha1Plus],
            Auth::ScramSha256 => &[Self::ScramSha256],
            Auth::ScramSha1 => &[Self::ScramSha1],
            Auth::Plain => &[Self::Plain],
            Auth::Login => &[Self::Login],
            Auth::CramMd5 => &[Self::CramMd5],
            Auth::XOAuth2 => &[Self::XOAuth2],
            Auth::OAuthBearer => &[Self::OAuthBearer],
            Auth::External => &[Self::External],
        };
        let is_offered = |mechanism: &Self| offered.contains(&mechanism.name());
        let can_be_had = |mechanism: &Self| !mechanism.is_bound() || !bindings.is_empty();
        if let Some(found) = candidates.iter().find(|mechanism| is_offered(mechanism) && can_be_had(mechanism)) {
            return Ok(*found);
        }
        if offered.is_empty() {
            return Err("does not offer AUTH, which the settings demand".to_owned());
        }
        if let [only] = candidates
            && !can_be_had(only)
        {
            return Err(format!("has no TLS session with us that {} could be bound to", only.name()));
        }
        let names: Vec<&str> = candidates.iter().map(|mechanism| mechanism.name()).collect();
        let on_request = Self::ON_REQUEST.iter().find(|other| wanted == Auth::Auto && is_offered(other));
        let hint = on_request.map(|other| format!("; {} must be asked for by the settings", other.name()));
        let hint = hint.unwrap_or_default();
        Err(format!("offers AUTH {shown}, but not {}{hint}", names.join(" or ")))
    }
}

/// What an exchange tells the server about channel binding. The server compares it with what it offered, and so
/// notices that somebody has taken the -PLUS mechanisms off its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `n`: we could not, or were told not to.
    Unbindable,
    /// `y`: we could, but the server has not offered it.
    Unbound,
    /// `p=NAME`.
    Bound(Binding),
}

impl Channel {
    /// For a mechanism without binding.
    pub fn unbound(offered: &[&str], bindings: &[Binding]) -> Self {
        let is_offered = offered.iter().any(|name| name.ends_with("-PLUS"));
        if bindings.is_empty() || is_offered { Self::Unbindable } else { Self::Unbound }
    }
}

/// Who we are and how we prove it.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// The authentication identity. For EXTERNAL it may be empty: the certificate's own.
    pub user: &'a str,
    /// Its password or access token. EXTERNAL has none.
    pub secret: Secret,
    /// The relay's name and port, where it has them: OAUTHBEARER repeats them.
    pub relay: Option<(&'a str, u16)>,
}

/// One run of a mechanism. Its `Debug` shows no more than which.
pub struct Exchange {
    name: &'static str,
    run: Run,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Exchange").field(&self.name).finish()
    }
}

enum Run {
    /// What there is to say, the last first, whatever the challenges are.
    Told {
        left: Vec<Zeroizing<Vec<u8>>>,
        initial: bool,
    },
    Scram(Box<Scram>),
    /// User and password.
    Cram(Option<(String, Secret)>),
    Bearer(Bearer),
}

impl Exchange {
    /// Starts one. The error is our own fault: what makes the credentials unfit for the mechanism.
    pub fn begin(mechanism: Mechanism, credentials: &Credentials<'_>, channel: Channel) -> Result<Self, &'static str> {
        let user = credentials.user.as_bytes();
        let password = credentials.secret.dangerous_expose();
        if user.contains(&0) || password.contains(&0) {
            return Err("user name and password must not have a NUL in them");
        }
        let scram = |hash| Scram::begin(hash, credentials, channel).map(|scram| Run::Scram(Box::new(scram)));
        let run = match mechanism {
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => scram(Hash::Sha256)?,
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => scram(Hash::Sha1)?,
            Mechanism::Plain => {
                let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
                message.push(0);
                message.extend_from_slice(user);
                message.push(0);
                message.extend_from_slice(password);
                Run::Told { left: vec![message], initial: true }
            }
            // Servers word the two challenges as they like, some not even in base64; their order is what they
            // agree on.
            Mechanism::Login => {
                Run::Told { left: vec![password.to_vec().into(), user.to_vec().into()], initial: false }
            }
            Mechanism::CramMd5 => Run::Cram(Some((credentials.user.to_owned(), credentials.secret.clone()))),
            Mechanism::XOAuth2 => Run::Bearer(Bearer::xoauth2(credentials)?),
            Mechanism::OAuthBearer => Run::Bearer(Bearer::oauthbearer(credentials)?),
            Mechanism::External => Run::Told { left: vec![user.to_vec().into()], initial: true },
        };
        Ok(Self { name: mechanism.name(), run })
    }

    /// What goes with the AUTH command itself, where the mechanism has something to say first and hasn't yet.
    pub fn initial(&self) -> Option<&[u8]> {
        match &self.run {
            Run::Told { left, initial: true } => left.last().map(|octets| octets.as_slice()),
            Run::Told { initial: false, .. } | Run::Cram(_) => None,
            Run::Scram(scram) => scram.initial(),
            Run::Bearer(bearer) => bearer.initial(),
        }
    }

    /// Tells that the initial response went out.
    pub fn initial_sent(&mut self) {
        match &mut self.run {
            Run::Told { left, .. } => drop(left.pop()),
            Run::Cram(_) => {}
            Run::Scram(scram) => scram.initial_sent(),
            Run::Bearer(bearer) => bearer.initial_sent(),
        }
    }

    /// The answer to a challenge, which is the text behind its 334. The error is why there is none; the exchange is
    /// then over.
    pub fn answer(&mut self, challenge: &str) -> Result<Zeroizing<Vec<u8>>, Cause> {
        if let Some(initial) = self.initial().map(<[u8]>::to_vec) {
            self.initial_sent();
            return Ok(initial.into());
        }
        let too_much = Cause::Protocol(format!("asked for more than {} has to say", self.name));
        match &mut self.run {
            Run::Told { left, .. } => left.pop().ok_or(too_much),
            Run::Scram(scram) => scram.answer(challenge).unwrap_or(Err(too_much)),
            Run::Cram(credentials) => {
                let (user, password) = credentials.take().ok_or(too_much)?;
                let challenge = decode(challenge).ok_or_else(|| not_base64(self.name))?;
                Ok(cram::response(&user, password.dangerous_expose(), &challenge))
            }
            Run::Bearer(bearer) => bearer.answer(challenge).ok_or(too_much),
        }
    }

    /// Whether the server's 235 can be believed. The error is why not.
    pub fn conclude(&self) -> Result<(), Cause> {
        match &self.run {
            Run::Scram(scram) if !scram.is_proved() => Err(Cause::Protocol(format!(
                "let us in without the proof that it knows the password, which {} demands of it",
                self.name
            ))),
            Run::Scram(_) | Run::Told { .. } | Run::Cram(_) | Run::Bearer(_) => Ok(()),
        }
    }

    /// What the server said about a refusal in a challenge, ahead of its reply.
    pub fn complaint(&self) -> Option<&str> {
        match &self.run {
            Run::Scram(scram) => scram.complaint(),
            Run::Bearer(bearer) => bearer.complaint(),
            Run::Told { .. } | Run::Cram(_) => None,
        }
    }

    /// Whether it was refused for the kind of its binding alone, and another kind may do. That is no downgrade:
    /// the next run is bound too.
    pub fn wants_another_binding(&self) -> bool {
        self.complaint() == Some("unsupported-channel-binding-type")
    }

    /// What the server is going to say and must not be shown: with it, passwords can be guessed.
    pub fn unspeakable(&self) -> Option<Zeroizing<Vec<u8>>> {
        match &self.run {
            Run::Scram(scram) => scram.unspeakable(),
            Run::Told { .. } | Run::Cram(_) | Run::Bearer(_) => None,
        }
    }
}

fn not_base64(name: &str) -> Cause {
    Cause::Protocol(format!("sent a {name} challenge that is not base64"))
}

fn decode(challenge: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(challenge.trim_end()).ok()
}

/// A name inside a GS2 header, in which `,` and `=` have a meaning of their own (RFC 5801 §4).
fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
