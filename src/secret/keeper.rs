//! Whoever has the keyring in hand: the process that `keyring` starts, and `pillarbox login`.
//!
//! All that knows the Secret Service is in here and reachable from the program `pillarbox` alone. The library cannot be
//! told to stop, so it works in a thread that is given up when the time is over; the process must end soon after that.
//! Errors read on after "the keyring ", say what would mend it, and hold no secret.

use super::keyring::service;
use super::{Identity, NoSecret, Secret};
use crate::config::Keepsake;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// One entry of the keyring.
#[derive(Clone, Debug)]
pub struct Keeper {
    service: String,
    user: String,
    limit: Duration,
}

/// Looks up what the words name: a service, a user, and how many milliseconds it may take.
pub fn look_up(words: &[String]) -> Result<Secret, NoSecret> {
    let [service, user, limit] = words else { return Err(NoSecret::Keyring("was asked for nothing".to_owned())) };
    let limit = Duration::from_millis(limit.parse().unwrap_or_default());
    Keeper { service: service.clone(), user: user.clone(), limit }.secret()
}

impl Keeper {
    /// The entry of an account, and how long each look at it may take.
    pub fn new(what: Keepsake, whose: &Identity<'_>, limit: Duration) -> Self {
        Self { service: service(what, whose), user: whose.user.to_owned(), limit }
    }

    /// What is there.
    pub fn secret(&self) -> Result<Secret, NoSecret> {
        let found = self.within(|keeper| store::get(&keeper.service, &keeper.user))?;
        found.ok_or_else(|| {
            let (host, what, flag) = match self.service.split_once("://") {
                Some(("oauth", host)) => (host, "refresh token", " --oauth"),
                Some((_, host)) => (host, "password", ""),
                None => (self.service.as_str(), "password", ""),
            };
            let user = &self.user;
            NoSecret::Keyring(format!("has no {what} for {user} at {host}; put it there with pillarbox login{flag}"))
        })
    }

    /// Whether the keyring can be had now, and unlocked: better
    /// known before somebody is asked for what is to be put there.
    pub fn check(&self) -> Result<(), NoSecret> {
        self.within(|keeper| store::get(&keeper.service, &keeper.user)).map(drop)
    }

    /// Puts a secret there, in place of what there was.
    pub fn store(&self, secret: &Secret) -> Result<(), NoSecret> {
        let secret = secret.clone();
        self.within(move |keeper| store::set(&keeper.service, &keeper.user, secret.dangerous_expose()))
    }

    /// Takes it away; whether there was something.
    pub fn remove(&self) -> Result<bool, NoSecret> {
        self.within(|keeper| store::delete(&keeper.service, &keeper.user))
    }

    fn within<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, String> + Send + 'static,
    ) -> Result<T, NoSecret> {
        let (tell, told) = channel();
        let keeper = self.clone();
        // Nobody may be left to be told.
        let ask = move || drop(tell.send(act(&keeper)));
        let started = thread::Builder::new().name("keyring".to_owned()).spawn(ask);
        started.map_err(|error| NoSecret::Keyring(format!("cannot be asked: {}", super::words(&error))))?;
        told.recv_timeout(self.limit)
            .unwrap_or_else(|why| {
                Err(match why {
                    RecvTimeoutError::Timeout => format!(
                        "did not answer within {:.1} s: it waits for somebody to unlock it, or its bus is silent; \
                         unlock it, as by logging in to the desktop",
                        self.limit.as_secs_f64()
                    ),
                    RecvTimeoutError::Disconnected => "could not be asked".to_owned(),
                })
            })
            .map_err(NoSecret::Keyring)
    }
}

/// The Secret Service's API (freedesktop.org), by the crate `keyring`.
#[cfg(feature = "keyring")]
mod store {
    use crate::secret::Secret;
    use keyring::{Entry, Error};

    pub fn get(service: &str, user: &str) -> Result<Option<Secret>, String> {
        found(entry(service, user)?.get_secret()).map(|secret| secret.map(Secret::new))
    }

    pub fn set(service: &str, user: &str, secret: &[u8]) -> Result<(), String> {
        entry(service, user)?.set_secret(secret).map_err(|error| words(&error))
    }

    pub fn delete(service: &str, user: &str) -> Result<bool, String> {
        found(entry(service, user)?.delete_credential()).map(|deleted| deleted.is_some())
    }

    fn entry(service: &str, user: &str) -> Result<Entry, String> {
        if let Err(error) = Entry::store_status() {
            return Err(out_of_reach(error));
        }
        Entry::new(service, user).map_err(|error| words(&error))
    }

    fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, String> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(words(&error)),
        }
    }

    fn out_of_reach(error: &Error) -> String {
        let why = match error {
            Error::PlatformFailure(why) | Error::NoStorageAccess(why) => why.to_string(),
            other => other.to_string(),
        };
        // Without what only its developers care for.
        let why = why.trim_start_matches("zbus error: ");
        let why = why.split(" (os error").next().unwrap_or(why);
        format!("is out of reach ({why}); it is there while you are logged in to a desktop that has one")
    }

    fn words(error: &Error) -> String {
        match error {
            Error::NoStorageAccess(_) => {
                "is locked, and nobody has unlocked it; unlock it, as by logging in to the desktop".to_owned()
            }
            Error::Ambiguous(_) => "has more than one entry for this account; remove all but one".to_owned(),
            other => out_of_reach(other),
        }
    }
}

/// Nobody is asked.
#[cfg(not(feature = "keyring"))]
mod store {
    use crate::secret::Secret;

    pub fn get(_: &str, _: &str) -> Result<Option<Secret>, String> {
        Err(absent())
    }

    pub fn set(_: &str, _: &str, _: &[u8]) -> Result<(), String> {
        Err(absent())
    }

    pub fn delete(_: &str, _: &str) -> Result<bool, String> {
        Err(absent())
    }

    fn absent() -> String {
        "is unknown to this program, which was built without it (feature \"keyring\"); keep the password in a file: \
         pillarbox login --file"
            .to_owned()
    }
}
