//! Carries letters to their destinations over as few connections as can be.
//!
//! The destinations of one letter are served side by side, so that one that does not answer costs the others nothing of
//! the time that the caller has; with somebody who watches the dialogue, one after the other. Few connections are kept
//! for the next letter: a carrier that meets a thousand domains does not hold on to them all.

use super::desk::lock;
use super::{Attempted, Desk, Open, attempted, is_unsent, log_remarks, no_account};
use crate::config::choose::{self, Destination, Route};
use crate::envelope::Envelope;
use crate::message::Message;
use crate::outcome::Report;
use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

/// Destinations of one letter that are served at a time.
const SIDE_BY_SIDE: usize = 8;

/// Connections that are kept.
const KEPT: usize = 8;

/// Carries letters, one after the other.
pub struct Carrier<'d, 'a> {
    desk: &'d Desk<'a>,
    open: Mutex<HashMap<Destination<'a>, Open>>,
}

/// A letter on its way.
#[derive(Clone, Copy)]
struct Load<'l> {
    envelope: &'l Envelope,
    message: &'l Message,
    deadline: Instant,
}

/// What became of recipients, by their places in the envelope.
type Outcomes = Mutex<Vec<Option<Attempted>>>;

impl<'d, 'a> Carrier<'d, 'a> {
    /// A carrier without a connection.
    pub fn new(desk: &'d Desk<'a>) -> Self {
        Self { desk, open: Mutex::default() }
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
        let load = Load { envelope, message, deadline };
        let outcomes = Mutex::new(vec![None; envelope.recipients().len()]);
        let side_by_side = if self.desk.transcript.is_some() { 1 } else { routes.len().min(SIDE_BY_SIDE) };
        let routes = Mutex::new(routes.into_iter());
        let work = || {
            loop {
                let next = lock(&routes).next();
                let Some(route) = next else { return };
                self.carry_by(&route, load, &[], &outcomes);
            }
        };
        thread::scope(|scope| {
            for _ in 1..side_by_side {
                // Without a thread the others have more to do.
                let _ = thread::Builder::new().name("route".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        std::mem::take(&mut *lock(&outcomes)).into_iter().flatten().collect()
    }

    /// Sends to some of the recipients through one account, and to those for whom none of its hosts could be used
    /// through its fallback.
    fn carry_by(&self, route: &Route<'a>, load: Load<'_>, tried: &[&str], outcomes: &Outcomes) {
        let Some(part) = load.envelope.only(|i| route.recipients.binary_search(&i).is_ok()) else { return };
        let report = self.send(&route.to, &part, load);
        let mut unsent = Vec::new();
        for (&i, one) in route.recipients.iter().zip(attempted(&part, report)) {
            if is_unsent(&one.outcome) {
                unsent.push(i);
            }
            lock(outcomes)[i] = Some(one);
        }
        let account = route.to.account;
        let tried = [tried, &[account.name.as_str()]].concat();
        if let Some(next) = self.desk.fallback(account, &tried) {
            for route in choose::routes_through(next, load.envelope, &unsent) {
                self.carry_by(&route, load, &tried, outcomes);
            }
        }
    }

    /// Sends over the destination's connection, opening it where there is none.
    fn send(&self, to: &Destination<'a>, envelope: &Envelope, load: Load<'_>) -> Report {
        let Load { message, deadline, .. } = load;
        let kept = lock(&self.open).remove(to);
        let was_kept = kept.is_some();
        let mut open = match kept.map_or_else(|| self.desk.open(to, deadline), Ok) {
            Ok(open) => open,
            Err(closed) => {
                let report = closed.into_unreached().report(envelope);
                self.desk.enter(envelope, message, &report);
                return report;
            }
        };
        open.connection.extend(deadline);
        let report = open.connection.send(envelope, message);
        log_remarks(&report);
        if let Some(transcript) = &self.desk.transcript {
            report.remarks.iter().for_each(|remark| transcript.line(&format!("* {remark}")));
        }
        if open.connection.is_usable() {
            self.keep(to.clone(), open);
        } else if was_kept && report.outcomes.iter().all(is_unsent) {
            drop(open);
            // A kept connection that the server closed in the meantime says nothing about this letter.
            return self.send(to, envelope, load);
        }
        self.desk.enter(envelope, message, &report);
        report
    }

    fn keep(&self, to: Destination<'a>, open: Open) {
        let mut kept = lock(&self.open);
        let other = kept.keys().next().filter(|_| kept.len() >= KEPT).cloned();
        let other = other.and_then(|other| kept.remove(&other));
        kept.insert(to, open);
        drop(kept);
        if let Some(other) = other {
            other.close();
        }
    }

    /// Says good-bye on every connection.
    pub fn close(self) {
        self.open.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().for_each(Open::close);
    }
}
