//! SASL: which mechanism, and what it answers to the server's challenges.
//!
//! No network: the session asks for the initial response and for an answer to each challenge. Octets that hold
//! the password are wiped when dropped. A mechanism is never exchanged for a weaker one behind the user's back:
//! `auto` takes the strongest that is offered, and where none of ours is, that is an error.
//! RFC 4954 (the AUTH command), RFC 4616 (PLAIN); LOGIN was never more than an expired draft.

use crate::config::Auth;
use crate::secret::Secret;
use zeroize::Zeroizing;

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// User name and password, each after a challenge.
    Login,
}

impl Mechanism {
    /// Ours, the strongest first. PLAIN before LOGIN: as weak, but two flights less.
    const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// As AUTH names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// The mechanism to use where the server offers `offered`. The error is what cannot be had.
    pub fn choose(wanted: Auth, offered: &[&str]) -> Result<Self, String> {
        let candidates: &[Self] = match wanted {
            Auth::Auto => &Self::ALL,
            Auth::Plain => &[Self::Plain],
            Auth::Login => &[Self::Login],
            Auth::Off => &[],
        };
        let found = candidates.iter().copied().find(|mechanism| offered.contains(&mechanism.name()));
        found.ok_or_else(|| {
            if offered.is_empty() {
                return "does not offer AUTH, which the settings demand".to_owned();
            }
            let names: Vec<&str> = candidates.iter().map(|mechanism| mechanism.name()).collect();
            format!("offers AUTH {}, but not {}", offered.join(" "), names.join(" or "))
        })
    }
}

/// Who we are and how we prove it.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// The authentication identity.
    pub user: &'a str,
    /// Its password.
    pub secret: Secret,
}

/// One run of a mechanism.
#[derive(Debug)]
pub struct Exchange {
    /// What is still to be said, the last first.
    answers: Vec<Zeroizing<Vec<u8>>>,
    initial: bool,
}

impl Exchange {
    /// Starts one. The error says what makes the credentials unfit for the mechanism.
    pub fn begin(mechanism: Mechanism, credentials: &Credentials<'_>) -> Result<Self, &'static str> {
        let user = credentials.user.as_bytes();
        let password = credentials.secret.dangerous_expose();
        if user.contains(&0) || password.contains(&0) {
            return Err("user name and password must not have a NUL in them");
        }
        Ok(match mechanism {
            Mechanism::Plain => {
                let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
                message.push(0);
                message.extend_from_slice(user);
                message.push(0);
                message.extend_from_slice(password);
                Self { answers: vec![message], initial: true }
            }
            // Servers word the two challenges as they like; their order is what they agree on.
            Mechanism::Login => Self { answers: vec![password.to_vec().into(), user.to_vec().into()], initial: false },
        })
    }

    /// What goes with the AUTH command itself, where the mechanism has something to say first.
    pub fn initial(&self) -> Option<&[u8]> {
        self.answers.last().filter(|_| self.initial).map(|answer| answer.as_slice())
    }

    /// Tells that the initial response went out.
    pub fn initial_sent(&mut self) {
        self.answers.pop();
    }

    /// The answer to the next challenge; `None` when there is nothing left to say.
    pub fn answer(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.answers.pop()
    }
}
