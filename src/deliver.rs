//! One attempt for every recipient of a letter: which account, which relay, what became of it.
//!
//! A [`Carrier`] keeps the connections of one run: letters that share an account share its connection, and an
//! account whose relay is down is asked once a run, not once a letter. It knows nothing of the queue: what an
//! outcome means for the letter is `submit`'s and `runner`'s to decide. Every outcome is logged here, once.

use crate::config::{Account, Host, Settings, choose};
use crate::envelope::{Envelope, Mailbox};
use crate::message::Message;
use crate::outcome::{Blame, Cause, Fault, Outcome, Stage, Status};
use crate::relay::{Connection, Unreached, Way};
use crate::secret::{self, Identity, Secret, SecretEnv};
use crate::smtp::Transcript;
use crate::smtp::interrupt::Interrupt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one attempt gave for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// Who.
    pub recipient: Mailbox,
    /// Through which account; empty where none could be chosen.
    pub account: String,
    /// At which relay, `host:port`.
    pub relay: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Accounts that cannot be used in this run, and why; shared by the carriers of a run.
pub type Down = Arc<Mutex<HashMap<String, Unreached>>>;

/// What every attempt of a process has in common.
#[derive(Clone)]
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
    /// What is known not to work.
    pub down: Down,
}

/// Carries letters to relays, over as few connections as can be.
pub struct Carrier<'a> {
    desk: Desk<'a>,
    /// How long the attempt on a letter may take.
    limit: Duration,
    open: HashMap<String, Connection>,
}

impl<'a> Carrier<'a> {
    /// A carrier without a connection. `limit` is for each letter, with the connecting that it needs; the answer to a
    /// final dot is waited for beyond it.
    pub fn new(desk: Desk<'a>, limit: Duration) -> Self {
        Self { desk, limit, open: HashMap::new() }
    }

    /// One attempt. Gives an outcome for each recipient of the envelope, in its order. `account` is the one that was
    /// asked for by name.
    pub fn carry(&mut self, account: Option<&str>, envelope: &Envelope, message: &Message) -> Vec<Attempted> {
        let deadline = Instant::now() + self.limit;
        let routes = match choose::routes(self.desk.settings, account, envelope) {
            Ok(routes) => routes,
            Err(none) => return no_account(envelope, &none.to_string()),
        };
        let mut attempted: Vec<Option<Attempted>> = vec![None; envelope.recipients().len()];
        for route in routes {
            self.carry_by(route.account, route.recipients, deadline, envelope, message, &mut attempted);
        }
        attempted.into_iter().flatten().collect()
    }

    /// Sends to some of the recipients through one account, and to those for whom none of its hosts could be used
    /// through its fallback.
    fn carry_by(
        &mut self,
        account: &'a Account,
        mut recipients: Vec<usize>,
        deadline: Instant,
        envelope: &Envelope,
        message: &Message,
        attempted: &mut [Option<Attempted>],
    ) {
        let (mut account, mut tried) = (account, Vec::new());
        loop {
            let Some(part) = envelope.only(|i| recipients.contains(&i)) else { return };
            let report = self.send(account, deadline, &part, message);
            for (&i, outcome) in recipients.iter().zip(report.1) {
                let recipient = envelope.recipients()[i].mailbox.clone();
                let (account, relay) = (account.name.clone(), report.0.clone());
                attempted[i] = Some(Attempted { recipient, account, relay, outcome });
            }
            tried.push(account.name.as_str());
            // Not where the relay may have the letter, nor where the letter itself was put off.
            let is_open = |i: &usize| {
                attempted[*i].as_ref().is_some_and(|one| match &one.outcome {
                    Outcome::Deferred { fault, .. } => fault.stage < Stage::Mail,
                    Outcome::Relayed(_) | Outcome::Failed { .. } => false,
                })
            };
            recipients.retain(is_open);
            let fallback = account.fallback.as_deref().filter(|name| !tried.contains(name));
            let next = fallback.and_then(|name| self.desk.settings.accounts.iter().find(|other| other.name == name));
            match next {
                Some(next) if !recipients.is_empty() => account = next,
                _ => return,
            }
        }
    }

    /// Sends over the account's connection, opening it where there is none.
    fn send(
        &mut self,
        account: &'a Account,
        deadline: Instant,
        envelope: &Envelope,
        message: &Message,
    ) -> (String, Vec<Outcome>) {
        if let Some(unreached) = self.down().get(&account.name) {
            let report = unreached.report(envelope);
            return (report.relay, report.outcomes);
        }
        let kept = self.open.remove(&account.name);
        let was_kept = kept.is_some();
        let mut connection = match kept.map_or_else(|| self.connect(account, deadline), Ok) {
            Ok(connection) => connection,
            Err(report) => return report(envelope),
        };
        connection.extend(deadline);
        let report = connection.send(envelope, message);
        for remark in &report.remarks {
            tracing::info!(account = account.name, relay = report.relay, "remark {remark}");
        }
        if connection.is_usable() {
            self.open.insert(account.name.clone(), connection);
        } else if was_kept && is_stale(&report.outcomes) {
            // A kept connection that the server closed in the meantime says nothing about this letter.
            return self.send(account, deadline, envelope, message);
        }
        (report.relay, report.outcomes)
    }

    /// Opens a connection; the error is what a letter gets that would have gone this way.
    fn connect(
        &self,
        account: &'a Account,
        deadline: Instant,
    ) -> Result<Connection, impl FnOnce(&Envelope) -> (String, Vec<Outcome>) + use<>> {
        let password = |host: &Host| password(account, host, self.desk.secrets, deadline);
        let way = Way {
            account,
            password: &password,
            helo: self.desk.helo,
            deadline,
            transcript: self.desk.transcript.clone(),
            interrupt: self.desk.interrupt.clone(),
        };
        Connection::open(&way).map_err(|unreached| {
            if !matches!(unreached.fault.cause, Cause::Interrupted) {
                self.down().insert(account.name.clone(), unreached.clone());
            }
            move |envelope: &Envelope| {
                let report = unreached.report(envelope);
                (report.relay, report.outcomes)
            }
        })
    }

    /// A thread that panicked with the lock in its hand has left a map that is still good.
    fn down(&self) -> std::sync::MutexGuard<'_, HashMap<String, Unreached>> {
        self.desk.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says good-bye on every connection.
    pub fn close(self) {
        self.open.into_values().for_each(Connection::close);
    }
}

/// Whether a connection broke before the letter was begun.
fn is_stale(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| match outcome {
        Outcome::Deferred { fault, .. } => {
            fault.stage <= Stage::Mail && matches!(fault.cause, Cause::Network(_) | Cause::Reply(_))
        }
        Outcome::Relayed(_) | Outcome::Failed { .. } => false,
    })
}

/// The account's password for a host.
fn password(account: &Account, host: &Host, env: &SecretEnv, deadline: Instant) -> Result<Secret, String> {
    let name = &account.name;
    let source = account.password.as_ref().ok_or_else(|| format!("account {name} has a user but no password"))?;
    let host = match host {
        Host::Tcp { name, .. } => name.as_str(),
        Host::Unix(_) => "localhost",
    };
    let user = account.user.as_deref().unwrap_or_default();
    let limit = env.limit.min(deadline.saturating_duration_since(Instant::now()));
    let env = SecretEnv { limit, ..env.clone() };
    secret::obtain(source, &Identity { host, user }, &env)
        .map_err(|error| format!("the password of account {name} cannot be had: {error}"))
}

/// Everybody waits until the settings are mended.
fn no_account(envelope: &Envelope, why: &str) -> Vec<Attempted> {
    let outcome = Outcome::Deferred {
        fault: Fault::new(Stage::Local, Cause::Local(why.to_owned())),
        blame: Blame::Settings,
        status: Status::new(4, 3, 5),
        maybe_duplicate: false,
    };
    let one = |recipient: &crate::envelope::Recipient| Attempted {
        recipient: recipient.mailbox.clone(),
        account: String::new(),
        relay: "no relay".to_owned(),
        outcome: outcome.clone(),
    };
    envelope.recipients().iter().map(one).collect()
}

/// Writes a log line for each recipient of an attempt. `id` is the queue's, where the letter has one.
pub fn log_outcomes(id: Option<&str>, envelope: &Envelope, attempted: &[Attempted], delay: Duration, attempts: u32) {
    for one in attempted {
        let (fault, doubt) = match &one.outcome {
            Outcome::Relayed(reply) => (reply.to_string(), ""),
            Outcome::Deferred { fault, maybe_duplicate: true, .. } => (fault.to_string(), " (possible duplicate)"),
            Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => (fault.to_string(), ""),
        };
        tracing::info!(
            id = id.unwrap_or("-"),
            from = envelope.reverse_path().to_string(),
            to = one.recipient.to_string(),
            account = one.account,
            relay = one.relay,
            delay = format!("{:.2}", delay.as_secs_f64()),
            attempts,
            status = one.outcome.word(),
            dsn = one.outcome.status().to_string(),
            reply = format!("{fault}{doubt}"),
        );
    }
}
