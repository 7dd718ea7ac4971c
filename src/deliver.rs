//! One attempt for every recipient of a letter: which account, which relay, what became of it.
//!
//! A [`Desk`] is what the attempts of a process have in common. A [`Carrier`] keeps its connections: letters that share
//! a destination share one, and a destination that is down is asked once, not once a letter. A destination is an
//! account or, with one that delivers directly, a domain. Neither knows the queue: what an outcome means for the letter
//! is `settle`'s and `submit`'s to decide.

mod carrier;
mod desk;

pub use carrier::Carrier;
pub use desk::{Closed, Desk, Open, identity};

use crate::envelope::{Envelope, Mailbox, ReversePath};
use crate::message::Message;
use crate::outcome::{Blame, Cause, Fault, Outcome, Report, Stage, Status};
use crate::queue::Id;
use std::time::Duration;

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
