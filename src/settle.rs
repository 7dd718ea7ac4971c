//! What an attempt's outcomes make of a letter in the queue: recorded, given up after its lifetime, reported, closed.
//!
//! The one place that decides when a sender is told and when a letter's time is over. Whoever attempts letters (a
//! run, or a submission that could not be relayed at once) brings the claim here. What cannot be written down is
//! logged and left as it is: the next attempt finds the letter as the disk has it.

use std::time::{Duration, SystemTime};

use crate::deliver::{Attempted, log_attempt};
use crate::dsn::{self, Dsn, Kind, Reporter};
use crate::message::Facts;
use crate::queue::{Claim, Closed, EXPIRED, Error, History, Id, Queue, Submission, Tried, retry};

/// The rules by which letters come to their end.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// After this, a letter that was tried once more is given up. Long gaps count in part ([`retry::longest_gap`]).
    pub lifetime: Duration,
    /// After this, the sender is told once that the letter is late; `None`: never.
    pub delay_notice: Option<Duration>,
    /// Who signs the reports.
    pub reporter: Reporter<'a>,
    /// Who we are, for the letters that we write ourselves.
    pub uid: u32,
}

impl Rules<'_> {
    /// How much of its lifetime a letter has had.
    fn spent(&self, history: &History, now: SystemTime) -> Duration {
        history.age(now, retry::longest_gap(self.lifetime))
    }
}

/// A queue and its rules.
#[derive(Clone, Copy)]
pub struct Office<'a> {
    /// Where the letters are.
    pub queue: &'a Queue,
    /// What is done with them.
    pub rules: Rules<'a>,
}

/// What became of a letter after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Of the letter itself.
    pub closed: Closed,
    /// The report about it that is in the queue now.
    pub report: Option<Id>,
}

impl Office<'_> {
    /// Records an attempt (one outcome for each recipient that waited, in their order) and draws the conclusions.
    pub fn settle(&self, mut claim: Claim<'_>, attempted: &[Attempted], now: SystemTime) -> Result<Settled, Error> {
        let id = claim.letter().entry.id;
        let tried: Vec<Tried<'_>> =
            attempted.iter().map(|one| Tried { outcome: &one.outcome, relay: &one.relay }).collect();
        let recorded = claim.settle(&tried, now);
        let letter = claim.letter();
        let age = retry::age(letter.entry.created, now);
        log_attempt(Some(id), letter.entry.envelope.reverse_path(), attempted, age, letter.history.attempts());
        // Without a record the outcomes are lost with this claim, and a report on them would come again.
        recorded?;
        self.conclude(claim, now)
    }

    /// Gives up, reports and closes, where it is time for that.
    pub fn conclude(&self, mut claim: Claim<'_>, now: SystemTime) -> Result<Settled, Error> {
        let letter = claim.letter();
        let id = letter.entry.id;
        let from = letter.entry.envelope.reverse_path().to_string();
        if !letter.history.waiting().is_empty() && self.rules.spent(&letter.history, now) >= self.rules.lifetime {
            Self::expire(&mut claim, now)?;
        }
        let mut report = self.notice(&mut claim, now)?;
        if !claim.letter().history.unreported().is_empty() {
            let (dsn, account) = (self.compose(Kind::Failure, &claim, now)?, claim.letter().entry.account.clone());
            let submission = dsn.as_ref().map(|dsn| submission(dsn, account.as_deref(), self.rules.uid));
            report = claim.report(submission.as_ref(), now)?;
            if let Some(report) = report {
                tracing::info!(message = "bounced", id = %id, from, report = %report);
            } else {
                tracing::warn!(message = "unreported", id = %id, from, reason = "nobody is to be told");
            }
        }
        let closed = claim.close()?;
        match closed {
            Closed::Relayed => tracing::debug!(message = "removed", id = %id),
            Closed::Failed => tracing::warn!(message = "failed", id = %id, from, reason = "kept in failed/"),
            Closed::Waiting => {}
        }
        Ok(Settled { closed, report })
    }

    fn expire(claim: &mut Claim<'_>, now: SystemTime) -> Result<(), Error> {
        let given_up = claim.letter().history.waiting();
        claim.expire(now)?;
        let letter = claim.letter();
        let gone = given_up.into_iter().filter_map(|number| {
            let verdict = letter.history.verdict(number)?;
            let recipient = letter.recipient(number).mailbox.clone();
            let (relay, outcome) = (verdict.relay.clone(), verdict.outcome.clone());
            Some(Attempted { recipient, account: String::new(), relay, outcome })
        });
        let gone: Vec<Attempted> = gone.collect();
        debug_assert!(gone.iter().all(|one| one.outcome.status() == EXPIRED));
        let (age, attempts) = (retry::age(letter.entry.created, now), letter.history.attempts());
        log_attempt(Some(letter.entry.id), letter.entry.envelope.reverse_path(), &gone, age, attempts);
        Ok(())
    }

    /// Tells the sender once that the letter is late, where that is wanted.
    fn notice(&self, claim: &mut Claim<'_>, now: SystemTime) -> Result<Option<Id>, Error> {
        let letter = claim.letter();
        let (id, spent) = (letter.entry.id, self.rules.spent(&letter.history, now));
        let late = self.rules.delay_notice.is_some_and(|after| spent >= after);
        if !late || letter.history.told_late() || letter.history.waiting().is_empty() {
            return Ok(None);
        }
        let Some(dsn) =
            self.compose(Kind::Delay { until: now + self.rules.lifetime.saturating_sub(spent) }, claim, now)?
        else {
            return Ok(None);
        };
        claim.note_late(now)?;
        let account = claim.letter().entry.account.as_deref();
        let report = self.queue.accept(&submission(&dsn, account, self.rules.uid), now)?.id();
        tracing::info!(message = "delayed", id = %id, report = %report);
        Ok(Some(report))
    }

    fn compose(&self, kind: Kind, claim: &Claim<'_>, now: SystemTime) -> Result<Option<Dsn>, Error> {
        let id = claim.letter().entry.id;
        dsn::compose(kind, claim.letter(), claim.content().as_ref(), self.rules.reporter, now)
            .map_err(|source| Error::Io { doing: "read", path: self.queue.dir().join(id.to_string()), source })
    }
}

/// A report goes the way that its letter was told to go.
fn submission<'a>(dsn: &'a Dsn, account: Option<&'a str>, uid: u32) -> Submission<'a> {
    Submission {
        envelope: &dsn.envelope,
        content: &dsn.octets,
        facts: Facts { eight_bit: !dsn.octets.is_ascii(), long_line: false },
        header_len: dsn.header_len(),
        uid,
        account,
        tried: None,
    }
}
