//! One attempt for every recipient of a letter: which account, which relay, what became of it.
//!
//! A [`Desk`] is what the attempts of a process have in common. A [`Carrier`] keeps its connections: letters that share
//! an account share one, and an account whose relay is down is asked once, not once a letter. Neither knows the queue:
//! what an outcome means for the letter is `settle`'s and `submit`'s to decide.

use crate::config::{Account, Host, Settings, choose};
use crate::envelope::{Envelope, Mailbox, ReversePath};
use crate::message::Message;
use crate::outcome::{Blame, Cause, Fault, Outcome, Reply, Report, Stage, Status};
use crate::queue::Id;
use crate::relay::examine::{Examined, examine};
use crate::relay::{Connection, Unreached, Way};
use crate::secret::{self, Answers, Identity, Secret, SecretEnv};
use crate::smtp::Transcript;
use crate::smtp::interrupt::Interrupt;
use std::cell::RefCell;
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

/// The attempted recipients of a report on `envelope`.
pub fn attempted(envelope: &Envelope, report: Report) -> Vec<Attempted> {
    let Report { relay, account, outcomes, .. } = report;
    let one = |(to, outcome): (&crate::envelope::Recipient, _)| Attempted {
        recipient: to.mailbox.clone(),
        account: account.clone(),
        relay: relay.clone(),
        outcome,
    };
    envelope.recipients().iter().zip(outcomes).map(one).collect()
}

/// Whoever writes down the sessions with relays, as msmtp's log does: a letter and what became of it at one account.
pub trait Ledger: Send + Sync {
    /// The report has an outcome for each recipient of the envelope, in its order.
    fn enter(&self, envelope: &Envelope, message: &Message, report: &Report);
}

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
    /// Accounts that cannot be used in this run, and why.
    down: Mutex<HashMap<String, Unreached>>,
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
            down: Mutex::default(),
        }
    }

    /// Opens a connection through an account, by `deadline`. One that failed for an account is not tried again.
    pub fn open(&self, account: &Account, deadline: Instant) -> Result<Connection, Unreached> {
        if let Some(unreached) = self.down().get(&account.name) {
            return Err(unreached.clone());
        }
        let given = RefCell::new(None);
        let password = |host: &Host| {
            let secret = self.password(account, host, deadline)?;
            given.replace(Some((secret.clone(), host.clone())));
            Ok(secret)
        };
        let way = self.way(account, &password, deadline);
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

    /// Looks the account's hosts over by `deadline`, each as it comes. Nothing is sent.
    pub fn examine(&self, account: &Account, sender: &ReversePath, deadline: Instant, found: &mut dyn FnMut(Examined)) {
        let password = |host: &Host| self.password(account, host, deadline);
        examine(&self.way(account, &password, deadline), sender, found);
    }

    fn way<'w>(
        &'w self,
        account: &'w Account,
        password: &'w dyn Fn(&Host) -> Result<Secret, String>,
        deadline: Instant,
    ) -> Way<'w> {
        Way {
            account,
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

    /// Forgets a token that the relay has refused. Whether another may be had now: providers revoke what has not expired.
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

    /// Marks an account as of no use for what is left of this run.
    pub fn give_up(&self, unreached: Unreached) {
        if !matches!(unreached.fault.cause, Cause::Interrupted) {
            self.down().insert(unreached.account.clone(), unreached);
        }
    }

    /// Gives the accounts that failed another chance.
    pub fn forgive(&self) {
        self.down().clear();
    }

    /// The account that takes over when `account` cannot be used, unless it was `tried`.
    pub fn fallback(&self, account: &Account, tried: &[&str]) -> Option<&'a Account> {
        let name = account.fallback.as_deref().filter(|name| !tried.contains(name))?;
        self.settings.accounts.iter().find(|other| other.name == name)
    }

    /// A thread that panicked with the lock in its hand has left a map that is still good.
    fn down(&self) -> std::sync::MutexGuard<'_, HashMap<String, Unreached>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose password a host is shown.
fn identity<'a>(account: &'a Account, host: &'a Host) -> Identity<'a> {
    let host = match host {
        Host::Tcp { name, .. } => name.as_str(),
        Host::Unix(_) => "localhost",
        Host::Srv(domain) => domain.as_str(),
    };
    Identity { host, user: account.user.as_deref().unwrap_or_default() }
}

/// Whether the relay has refused what we showed it to authenticate by.
fn is_refusal(fault: &Fault) -> bool {
    fault.stage == Stage::Auth && fault.reply().is_some_and(Reply::is_permanent)
}

/// Carries letters to relays, one after the other, over as few connections as can be.
pub struct Carrier<'d, 'a> {
    desk: &'d Desk<'a>,
    open: HashMap<String, Connection>,
}

impl<'d, 'a> Carrier<'d, 'a> {
    /// A carrier without a connection.
    pub fn new(desk: &'d Desk<'a>) -> Self {
        Self { desk, open: HashMap::new() }
    }

    /// One attempt. Gives an outcome for each recipient of the envelope, in its order. `account` is the one that was
    /// asked for by name. It ends by `deadline`, but for the answer to a final dot.
    pub fn carry(
        &mut self,
        account: Option<&str>,
        envelope: &Envelope,
        message: &Message,
        deadline: Instant,
    ) -> Vec<Attempted> {
        let routes = match choose::routes(self.desk.settings, account, envelope) {
            Ok(routes) => routes,
            Err(none) => return no_account(envelope, &none.to_string()),
        };
        let mut outcomes: Vec<Option<Attempted>> = vec![None; envelope.recipients().len()];
        for route in routes {
            self.carry_by(route, deadline, envelope, message, &mut outcomes);
        }
        outcomes.into_iter().flatten().collect()
    }

    /// Sends to some of the recipients through one account, and to those for whom none of its hosts could be used
    /// through its fallback.
    fn carry_by(
        &mut self,
        route: choose::Route<'a>,
        deadline: Instant,
        envelope: &Envelope,
        message: &Message,
        outcomes: &mut [Option<Attempted>],
    ) {
        let (mut account, mut recipients, mut tried) = (route.account, route.recipients, Vec::new());
        while let Some(part) = envelope.only(|i| recipients.contains(&i)) {
            let report = self.send(account, deadline, &part, message);
            for (&i, one) in recipients.iter().zip(attempted(&part, report)) {
                outcomes[i] = Some(one);
            }
            tried.push(account.name.as_str());
            recipients.retain(|&i| outcomes[i].as_ref().is_some_and(|one| is_unsent(&one.outcome)));
            match self.desk.fallback(account, &tried) {
                Some(next) => account = next,
                None => return,
            }
        }
    }

    /// Sends over the account's connection, opening it where there is none.
    fn send(&mut self, account: &'a Account, deadline: Instant, envelope: &Envelope, message: &Message) -> Report {
        let kept = self.open.remove(&account.name);
        let was_kept = kept.is_some();
        let mut connection = match kept.map_or_else(|| self.desk.open(account, deadline), Ok) {
            Ok(connection) => connection,
            Err(unreached) => {
                self.desk.give_up(unreached.clone());
                let report = unreached.report(envelope);
                self.desk.enter(envelope, message, &report);
                return report;
            }
        };
        connection.extend(deadline);
        let report = connection.send(envelope, message);
        log_remarks(&report);
        if let Some(transcript) = &self.desk.transcript {
            report.remarks.iter().for_each(|remark| transcript.line(&format!("* {remark}")));
        }
        if connection.is_usable() {
            self.open.insert(account.name.clone(), connection);
        } else if was_kept && report.outcomes.iter().all(is_unsent) {
            // A kept connection that the server closed in the meantime says nothing about this letter.
            return self.send(account, deadline, envelope, message);
        }
        self.desk.enter(envelope, message, &report);
        report
    }

    /// Says good-bye on every connection.
    pub fn close(self) {
        self.open.into_values().for_each(Connection::close);
    }
}

/// Whether the letter was not even begun for this recipient: another way may be tried at once. Not where the relay
/// may have it, nor where it put this letter off.
pub fn is_unsent(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Deferred { fault, .. } => match fault.cause {
            Cause::Reply(ref reply) => fault.stage < Stage::Mail || (fault.stage == Stage::Mail && reply.code == 421),
            Cause::Interrupted => false,
            _ => fault.stage <= Stage::Mail,
        },
        Outcome::Relayed(_) | Outcome::Failed { .. } => false,
    }
}

/// Everybody waits until the settings are mended.
pub fn no_account(envelope: &Envelope, why: &str) -> Vec<Attempted> {
    let outcome = Outcome::Deferred {
        fault: Fault::new(Stage::Local, Cause::Local(why.to_owned())),
        blame: Blame::Settings,
        status: Status::new(4, 3, 5),
        maybe_duplicate: false,
    };
    let one = |recipient: &crate::envelope::Recipient| Attempted {
        recipient: recipient.mailbox.clone(),
        account: String::new(),
        relay: String::new(),
        outcome: outcome.clone(),
    };
    envelope.recipients().iter().map(one).collect()
}

/// Writes down what should be known although the letter went through.
pub fn log_remarks(report: &Report) {
    for remark in &report.remarks {
        tracing::info!(message = "remark", account = report.account, relay = report.relay, text = remark);
    }
}

/// Writes a log line for each recipient of an attempt. `age` is that of the letter; `attempts` counts this one.
pub fn log_attempt(id: Option<Id>, from: &ReversePath, attempted: &[Attempted], age: Duration, attempts: u32) {
    let id = id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let from = from.to_string();
    for one in attempted {
        let reply = match &one.outcome {
            Outcome::Relayed(reply) => reply.to_string(),
            Outcome::Deferred { fault, maybe_duplicate: true, .. } => format!("{fault} (possible duplicate)"),
            Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => fault.to_string(),
        };
        tracing::info!(
            id,
            from,
            to = one.recipient.to_string(),
            account = one.account,
            relay = one.relay,
            delay = format!("{:.2}", age.as_secs_f64()),
            attempts,
            status = one.outcome.word(),
            dsn = one.outcome.status().to_string(),
            reply,
        );
    }
}
