//! What the attempts of a process have in common, and what they have found out about each destination.
//!
//! Until somebody has found out whether anybody is there, one asks and all others who want to go there wait for the
//! answer; where nobody is, that is the answer for the rest of the run. While a connection is open, others may be tried
//! beside it: that the relay wants no more of them says nothing about it.

use super::Ledger;
use crate::config::choose::Destination;
use crate::config::{Account, Host, Settings};
use crate::envelope::{Envelope, ReversePath};
use crate::message::Message;
use crate::outcome::{Cause, Fault, Reply, Report, Stage};
use crate::relay::examine::{Examined, examine};
use crate::relay::{Connection, Unreached, Way};
use crate::secret::{self, Answers, Identity, Secret, SecretEnv};
use crate::smtp::Transcript;
use crate::smtp::interrupt::Interrupt;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What every attempt of a process has in common.
pub struct Desk<'a> {
    /// The accounts.
    pub settings: &'a Settings,
    /// Where secrets come from.
    pub secrets: &'a SecretEnv,
    /// Our name in EHLO, where neither the account nor the settings have one.
    pub helo: &'a str,
    /// Who watches the dialogue.
    pub transcript: Option<Arc<dyn Transcript>>,
    /// Ends attempts from another thread.
    pub interrupt: Interrupt,
    /// Who writes sessions down.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// What password helpers have answered already.
    answers: Answers,
    /// What is known of each destination.
    gates: Mutex<HashMap<Whither, Arc<Gate>>>,
}

/// A destination: account and domain.
type Whither = (String, Option<String>);

/// The way to a destination.
#[derive(Default)]
struct Gate {
    /// Why it cannot be used in this run. Held by whoever finds out.
    down: Mutex<Option<Unreached>>,
    /// Open connections.
    connected: AtomicUsize,
}

/// An open connection to a destination.
pub struct Open {
    /// Carries letters.
    pub connection: Connection,
    seat: Seat,
}

/// Counts as a connection for as long as it lives.
struct Seat(Arc<Gate>);

impl Seat {
    fn take(gate: &Arc<Gate>) -> Self {
        gate.connected.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gate))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is none.
pub enum Closed {
    /// There is nobody, for what is left of this run.
    Down(Unreached),
    /// Others have connections, and the relay just does not want more.
    Enough(Unreached),
}

impl Closed {
    /// What a letter that wanted to go there hears.
    pub fn into_unreached(self) -> Unreached {
        match self {
            Self::Down(unreached) | Self::Enough(unreached) => unreached,
        }
    }
}

impl<'a> Desk<'a> {
    /// A desk at which nothing has been tried yet.
    pub fn new(settings: &'a Settings, secrets: &'a SecretEnv, helo: &'a str) -> Self {
        Self {
            settings,
            secrets,
            helo,
            transcript: None,
            interrupt: Interrupt::default(),
            ledger: None,
            answers: Answers::default(),
            gates: Mutex::default(),
        }
    }

    /// Opens a connection to a destination, by `deadline`, unless it is known that nobody is there.
    pub fn open(&self, to: &Destination<'_>, deadline: Instant) -> Result<Open, Closed> {
        let gate = self.gate(to);
        let mut down = lock(&gate.down);
        if let Some(unreached) = &*down {
            return Err(Closed::Down(unreached.clone()));
        }
        let others = || gate.connected.load(Ordering::Relaxed) > 0;
        let opened = if others() {
            drop(down);
            let opened = self.try_open(to, deadline);
            down = lock(&gate.down);
            opened
        } else {
            self.try_open(to, deadline)
        };
        match opened {
            Ok(connection) => Ok(Open { connection, seat: Seat::take(&gate) }),
            Err(unreached) if others() => Err(Closed::Enough(unreached)),
            Err(unreached) => {
                if unreached.fault.cause != Cause::Interrupted {
                    *down = Some(unreached.clone());
                }
                Err(Closed::Down(unreached))
            }
        }
    }

    fn try_open(&self, to: &Destination<'_>, deadline: Instant) -> Result<Connection, Unreached> {
        let account = to.account;
        let given = RefCell::new(None);
        let password = |host: &Host| {
            let secret = self.password(account, host, deadline)?;
            given.replace(Some((secret.clone(), host.clone())));
            Ok(secret)
        };
        let way = self.way(to, &password, deadline);
        let opened = Connection::open(&way).or_else(|unreached| {
            let refused = given.take().filter(|_| is_refusal(&unreached.fault));
            match refused {
                Some((token, host)) if self.forget(account, &host, deadline, &token) => Connection::open(&way),
                _ => Err(unreached),
            }
        });
        opened.inspect_err(|unreached| {
            for remark in &unreached.remarks {
                tracing::info!(message = "remark", account = account.name, text = remark);
            }
        })
    }

    /// Looks the hosts of a destination over by `deadline`, each as it comes. Nothing is sent.
    pub fn examine(
        &self,
        to: &Destination<'_>,
        sender: &ReversePath,
        deadline: Instant,
        found: &mut dyn FnMut(Examined),
    ) {
        let password = |host: &Host| self.password(to.account, host, deadline);
        examine(&self.way(to, &password, deadline), sender, found);
    }

    fn way<'w>(
        &'w self,
        to: &'w Destination<'_>,
        password: &'w dyn Fn(&Host) -> Result<Secret, String>,
        deadline: Instant,
    ) -> Way<'w> {
        Way {
            account: to.account,
            domain: to.domain.as_deref(),
            password,
            helo: self.settings.domain.as_deref().unwrap_or(self.helo),
            deadline,
            transcript: self.transcript.clone(),
            interrupt: self.interrupt.clone(),
        }
    }

    /// The account's password for a host.
    pub fn password(&self, account: &Account, host: &Host, deadline: Instant) -> Result<Secret, String> {
        let name = &account.name;
        let source = account.password.as_ref().ok_or_else(|| format!("account {name} has a user but no password"))?;
        self.answers
            .obtain(source, &identity(account, host), &self.secrets_by(deadline))
            .map_err(|error| format!("the password of account {name} cannot be had: {error}"))
    }

    /// Has a session written down.
    pub fn enter(&self, envelope: &Envelope, message: &Message, report: &Report) {
        if let Some(ledger) = &self.ledger {
            ledger.enter(envelope, message, report);
        }
    }

    /// Forgets a token that the relay has refused. Whether another
    /// may be had now: providers revoke what has not expired.
    fn forget(&self, account: &Account, host: &Host, deadline: Instant, token: &Secret) -> bool {
        let source = account.password.as_ref();
        let is_forgotten = source
            .is_some_and(|source| secret::forget(source, &identity(account, host), &self.secrets_by(deadline), token));
        if is_forgotten {
            let text = "the access token that was kept is refused, and is exchanged for a new one";
            tracing::info!(message = "remark", account = account.name, text);
        }
        is_forgotten
    }

    /// Where secrets come from, by `deadline`.
    fn secrets_by(&self, deadline: Instant) -> SecretEnv {
        let limit = self.secrets.limit.min(deadline.saturating_duration_since(Instant::now()));
        SecretEnv { limit, ..self.secrets.clone() }
    }

    /// Marks a destination as of no use for what is left of this run.
    pub fn give_up(&self, to: &Destination<'_>, unreached: Unreached) {
        if unreached.fault.cause != Cause::Interrupted {
            *lock(&self.gate(to).down) = Some(unreached);
        }
    }

    /// Gives the destinations that failed another chance.
    pub fn forgive(&self) {
        lock(&self.gates).clear();
    }

    /// The account that takes over when `account` cannot be used, unless it was `tried`.
    pub fn fallback(&self, account: &Account, tried: &[&str]) -> Option<&'a Account> {
        let name = account.fallback.as_deref().filter(|name| !tried.contains(name))?;
        self.settings.accounts.iter().find(|other| other.name == name)
    }

    fn gate(&self, to: &Destination<'_>) -> Arc<Gate> {
        let key = (to.account.name.clone(), to.domain.clone());
        Arc::clone(lock(&self.gates).entry(key).or_default())
    }
}

impl Open {
    /// Says good-bye, whose answer is not waited for.
    pub fn close(self) {
        self.connection.close();
        drop(self.seat);
    }
}

/// Whose password a host is shown.
pub fn identity<'a>(account: &'a Account, host: &'a Host) -> Identity<'a> {
    let name = |host: &'a Host| match host {
        Host::Tcp { name, .. } => name.as_str(),
        Host::Unix(_) => "localhost",
        Host::Srv(domain) => domain.as_str(),
        Host::Mx(_) => "",
    };
    let (host, user) = (name(host), account.user.as_deref().unwrap_or_default());
    Identity { host, user, first: account.hosts.first().map_or(host, name) }
}

/// Whether the relay has refused what we showed it to authenticate by.
fn is_refusal(fault: &Fault) -> bool {
    fault.stage == Stage::Auth && fault.reply().is_some_and(Reply::is_permanent)
}

/// A thread that panicked with the lock in its hand has left a value that is still good.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
