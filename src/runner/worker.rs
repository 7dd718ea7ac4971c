//! One connection's worth of work on the letters of a lane.
//!
//! Claims a letter, opens the connection that it needs, sends what the lane has as long as the connection lasts,
//! settles each letter with its outcome, and leaves when nothing more will come.

use super::lanes::Key;
use super::{LETTER, Parcel, Run, Shift, lane};
use crate::config::choose::{self, Destination};
use crate::deliver::{Closed, Open, attempted, is_unsent, log_remarks};
use crate::outcome::{Cause, Fault, Outcome, Report, Stage};
use crate::queue::Id;
use crate::relay::{Connection, Unreached};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a connection may take to open.
const OPEN: Duration = Duration::from_mins(5);

/// A worker in a lane.
pub(super) struct Worker<'s, 'e, 'a, 'k> {
    pub run: &'s Run<'s, 'a>,
    pub shift: Shift<'s, 'e, 'a>,
    pub key: &'k Key<'a>,
    /// Where the lane leads.
    pub to: &'k Destination<'a>,
    /// Connections in a row on which no letter got anywhere.
    pub barren: u32,
}

impl<'s> Worker<'s, '_, '_, '_> {
    /// Works until the worker has left the lane.
    pub fn work(mut self) {
        let lanes = self.shift.lanes;
        let (mut connection, mut waiting) = (None::<Open>, Vec::new());
        while let Some(first) = waiting.pop().or_else(|| self.parcel(&|| lanes.wait(self.key))) {
            let opened = connection.take().map_or_else(|| self.run.desk.open(self.to, Instant::now() + OPEN), Ok);
            let mut open = match opened {
                Ok(open) => open,
                Err(closed) => {
                    waiting.push(first);
                    if matches!(closed, Closed::Enough(_)) && self.resign(&mut waiting) {
                        return;
                    }
                    let unreached = closed.into_unreached();
                    waiting.drain(..).for_each(|parcel| self.turn_away(parcel, &unreached));
                    continue;
                }
            };
            waiting.push(first);
            waiting = self.send(&mut open.connection, waiting);
            if let Err(error) = self.run.office.queue.sync() {
                tracing::error!(message = "unrecorded", reason = %error);
            }
            if open.connection.is_usable() {
                connection = Some(open);
            }
        }
        if let Some(connection) = connection {
            connection.close();
        }
    }

    /// Leaves the letters to the other workers of the lane, where there are any. One that was begun stays: given back,
    /// it would look as if an attempt had died.
    fn resign(&self, waiting: &mut Vec<Parcel<'s>>) -> bool {
        if waiting.iter().any(|parcel| parcel.errand.begun) {
            return false;
        }
        let ids: Vec<Id> = waiting.iter().map(|parcel| parcel.errand.claim.letter().entry.id).collect();
        let claims = std::mem::take(waiting);
        drop(claims);
        self.shift.lanes.resign(self.key, &ids) || {
            waiting.extend(ids.into_iter().filter_map(|id| {
                let once = Cell::new(Some(id));
                self.parcel(&|| once.take())
            }));
            false
        }
    }

    /// Sends a letter into the lane of the account that takes over, or settles it as one that could not be sent.
    fn turn_away(&self, parcel: Parcel<'s>, unreached: &Unreached) {
        let report = unreached.report(&parcel.envelope);
        let fallback = self.run.desk.fallback(self.to.account, &[]);
        match fallback.filter(|_| !parcel.errand.begun && report.outcomes.iter().all(is_unsent)) {
            None => self.settle(parcel, report),
            Some(next) => {
                let id = parcel.errand.claim.letter().entry.id;
                let all: Vec<usize> = (0..parcel.envelope.recipients().len()).collect();
                let key = lane(choose::routes_through(next, &parcel.envelope, &all));
                drop(parcel);
                self.run.enlist(self.shift, id, &key);
            }
        }
    }

    /// Sends letters over a connection: those that wait, then the lane's. Gives back those that it never began.
    fn send(&mut self, connection: &mut Connection, waiting: Vec<Parcel<'s>>) -> Vec<Parcel<'s>> {
        let lost = RefCell::new(Vec::new());
        let (mut waiting, settled) = (VecDeque::from(waiting), Cell::new(0));
        let last_fault = RefCell::new(None);
        {
            let this = &*self;
            let mut next = || loop {
                let parcel = waiting.pop_front().or_else(|| this.parcel(&|| this.shift.lanes.next(this.key)));
                let mut parcel = parcel.filter(|_| !this.run.desk.interrupt.is_winding_down())?;
                if parcel.errand.begin((this.run.now)(), this.shift.books) {
                    return Some(parcel);
                }
            };
            let mut done = |mut parcel: Parcel<'s>, report: Report| {
                let unsent = report.outcomes.iter().all(is_unsent);
                if unsent {
                    *last_fault.borrow_mut() = unreached(&report);
                } else {
                    settled.set(settled.get() + 1);
                }
                if unsent && !parcel.again {
                    parcel.again = true;
                    lost.borrow_mut().push(parcel);
                } else {
                    this.settle(parcel, report);
                }
            };
            connection.send_all(LETTER, &mut next, &mut done);
        }
        self.barren = if settled.get() == 0 { self.barren + 1 } else { 0 };
        if self.barren > 1 {
            // Connections that take no letter are no better than none.
            let unreached = last_fault.into_inner().unwrap_or_else(|| Unreached {
                relay: connection.relay().to_owned(),
                account: self.to.account.name.clone(),
                fault: Fault::new(Stage::Mail, Cause::Network("closed the connection before any letter".to_owned())),
                remarks: Vec::new(),
            });
            self.run.desk.give_up(self.to, unreached);
        }
        let mut lost = lost.into_inner();
        lost.extend(waiting);
        lost
    }

    /// The next letter of the lane that there is something to send of.
    fn parcel(&self, next: &dyn Fn() -> Option<Id>) -> Option<Parcel<'s>> {
        while let Some(id) = next() {
            // What is left of the lane then is for another run.
            if self.run.desk.interrupt.is_winding_down() {
                continue;
            }
            let Some(mut errand) = self.run.claim(id, self.shift.books) else { continue };
            match errand.load.take() {
                Some((envelope, message)) => return Some(Parcel { errand, envelope, message, again: false }),
                None => self.run.settle(errand.claim, &[], self.shift.books),
            }
        }
        None
    }

    fn settle(&self, parcel: Parcel<'s>, report: Report) {
        log_remarks(&report);
        self.run.desk.enter(&parcel.envelope, &parcel.message, &report);
        self.run.settle(parcel.errand.claim, &attempted(&parcel.envelope, report), self.shift.books);
    }
}

/// What an account's other letters would hear, from the report on one that was never begun.
fn unreached(report: &Report) -> Option<Unreached> {
    let Some(Outcome::Deferred { fault, .. }) = report.outcomes.first() else { return None };
    let (relay, account, fault) = (report.relay.clone(), report.account.clone(), fault.clone());
    Some(Unreached { relay, account, fault, remarks: Vec::new() })
}
