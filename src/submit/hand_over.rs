//! A letter goes to the relay while the caller waits, or to the queue, by the delivery mode.
//!
//! While a caller waits nothing is written to disk, since he still has the letter. Should the
//! relay's answer to the final dot not have come by the deadline, the letter is committed to
//! the queue and the answer still waited for: leaving then would deliver the letter twice at
//! every relay that thinks for long, and a caller who kills us loses nothing.

use super::{End, Letter, Why};
use crate::deliver::{Attempted, Carrier, log_attempt};
use crate::outcome::Outcome;
use crate::queue::{self, Claim, Closed, Id, Queue, Submission, Tried};
use crate::settle::{Office, Rules, Settled};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// When delivery is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now, while the caller waits until the deadline for the relay's answer.
    Now(Instant),
    /// From the queue, at once.
    Background,
    /// From the queue, by whoever runs it.
    Later,
}

/// Where letters are kept, by whom and how.
pub struct Keep<'a> {
    /// The queue's directory; made when it is first needed.
    pub dir: &'a Path,
    /// What is done with its letters.
    pub rules: Rules<'a>,
    /// Sees to it that somebody runs the queue.
    pub wake: &'a (dyn Fn(&Queue) + Sync),
    /// The clock.
    pub now: &'a (dyn Fn() -> SystemTime + Sync),
}

/// Hands the letter to the relay or the queue. Without a `keep` the queue is off.
pub fn hand_over(letter: &Letter, when: When, carrier: &mut Carrier<'_, '_>, keep: Option<&Keep<'_>>) -> End {
    match (when, keep) {
        (When::Now(deadline), Some(keep)) => now(letter, deadline, carrier, keep),
        (When::Now(deadline), None) => without_queue(letter, deadline, carrier),
        // Without a queue there is no later.
        (When::Background | When::Later, None) => without_queue(letter, Instant::now() + ATTEMPT, carrier),
        (When::Background | When::Later, Some(keep)) => keep
            .queue(letter, when == When::Background)
            .map_or_else(|error| End::Refused(Why::Queue(error)), |id| End::Owned { id, attempted: Vec::new() }),
    }
}

/// The ceiling of an attempt without a deadline of its own.
pub const ATTEMPT: Duration = Duration::from_mins(5);

/// How long past the deadline an attempt may take before it can only be waiting for the answer to its final dot.
const GRACE: Duration = Duration::from_millis(100);

/// Tries once; what cannot be relayed is the caller's again.
fn without_queue(letter: &Letter, deadline: Instant, carrier: &mut Carrier<'_, '_>) -> End {
    let started = Instant::now();
    let attempted = carrier.carry(letter.account.as_deref(), &letter.envelope, &letter.message, deadline);
    log_attempt(None, letter.envelope.reverse_path(), &attempted, started.elapsed(), 1);
    let relayed = attempted.iter().filter(|one| matches!(one.outcome, Outcome::Relayed(_))).count();
    match relayed {
        0 => End::Refused(Why::Outcomes(attempted)),
        some if some == attempted.len() => End::Relayed(attempted),
        _ => End::Partly(attempted),
    }
}

/// Tries while the caller waits; what cannot be relayed goes to the queue.
fn now(letter: &Letter, deadline: Instant, carrier: &mut Carrier<'_, '_>, keep: &Keep<'_>) -> End {
    let started = Instant::now();
    let (attempted, kept) = thread::scope(|scope| {
        let (tell, ends) = mpsc::channel();
        let guard = thread::Builder::new()
            .name("deadline".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, move || keep.guard(letter, deadline + GRACE, &ends));
        let attempted = carrier.carry(letter.account.as_deref(), &letter.envelope, &letter.message, deadline);
        // Without the thread, or when it has failed, the letter goes the ordinary way.
        let _ = tell.send(attempted.clone());
        (attempted, guard.ok().and_then(|guard| guard.join().ok()).flatten())
    });
    let log = |id| log_attempt(id, letter.envelope.reverse_path(), &attempted, started.elapsed(), 1);
    let is = |wanted: fn(&Outcome) -> bool| attempted.iter().all(|one| wanted(&one.outcome));
    match kept {
        Some(id) => End::Owned { id, attempted },
        None if is(|outcome| matches!(outcome, Outcome::Relayed(_))) => {
            log(None);
            End::Relayed(attempted)
        }
        None if is(|outcome| matches!(outcome, Outcome::Failed { .. })) => {
            log(None);
            End::Refused(Why::Outcomes(attempted))
        }
        None => match keep.take_over(letter, &attempted, |id| log(Some(id))) {
            Ok(id) => End::Owned { id, attempted },
            Err(error) => {
                log(None);
                let somebody = |one: &Attempted| {
                    matches!(one.outcome, Outcome::Relayed(_) | Outcome::Deferred { maybe_duplicate: true, .. })
                };
                if attempted.iter().any(somebody) {
                    End::Unkept(attempted, error)
                } else {
                    End::Refused(Why::Queue(error))
                }
            }
        },
    }
}

/// Brings a report on a letter that everybody refused on its way to the sender, as `-oem` and `-oee` ask; the id is the
/// letter's own. `None` where nobody is to be told.
pub fn bounce(letter: &Letter, attempted: &[Attempted], keep: &Keep<'_>) -> Result<Option<Id>, queue::Error> {
    if letter.envelope.reverse_path().is_null() {
        return Ok(None);
    }
    keep.take_over(letter, attempted, |_| ()).map(Some)
}

impl Keep<'_> {
    /// Takes a letter into the queue without an attempt; with `at_once`, somebody is sent to deliver it.
    pub fn queue(&self, letter: &Letter, at_once: bool) -> Result<Id, queue::Error> {
        let queue = Queue::open(self.dir)?;
        let id = self.accept(&queue, letter, None)?.letter().entry.id;
        if at_once {
            (self.wake)(&queue);
        }
        Ok(id)
    }

    /// Takes a letter into the queue, with the attempt that was made. While the claim lasts nobody else attempts it.
    fn accept<'q>(
        &self,
        queue: &'q Queue,
        letter: &Letter,
        tried: Option<&[Tried<'_>]>,
    ) -> Result<Claim<'q>, queue::Error> {
        let submission = Submission {
            envelope: &letter.envelope,
            content: &letter.message,
            facts: letter.message.facts(),
            header_len: letter.message.header_len(),
            uid: self.rules.uid,
            account: letter.account.as_deref(),
            tried,
        };
        let claim = queue.accept_claimed(&submission, (self.now)())?;
        tracing::info!(
            message = "queued",
            id = %claim.letter().entry.id,
            from = letter.envelope.reverse_path().to_string(),
            size = letter.message.size(),
            recipients = letter.envelope.recipients().len(),
            uid = self.rules.uid,
        );
        Ok(claim)
    }

    /// Takes a letter that was attempted: who has it, has it; who refused it is reported; the others will be tried
    /// again. `accepted` hears of the id before anything else is done under it.
    fn take_over(&self, letter: &Letter, attempted: &[Attempted], accepted: impl Fn(Id)) -> Result<Id, queue::Error> {
        let queue = Queue::open(self.dir)?;
        let tried: Vec<Tried<'_>> =
            attempted.iter().map(|one| Tried { outcome: &one.outcome, relay: &one.relay }).collect();
        let claim = self.accept(&queue, letter, Some(&tried))?;
        let id = claim.letter().entry.id;
        accepted(id);
        self.conclude(&queue, claim, None);
        (self.wake)(&queue);
        Ok(id)
    }

    /// Waits for the attempt to end, and commits the letter to the queue if it has not by `deadline`. The id is that of
    /// a letter that is now the queue's.
    fn guard(&self, letter: &Letter, deadline: Instant, ends: &mpsc::Receiver<Vec<Attempted>>) -> Option<Id> {
        match ends.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let queue = Queue::open(self.dir).ok()?;
        // Were we killed now, the queue would have to say that the relay may have it.
        let unanswered = unanswered();
        let tried: Vec<Tried<'_>> =
            letter.envelope.recipients().iter().map(|_| Tried { outcome: &unanswered, relay: "" }).collect();
        let claim = self.accept(&queue, letter, Some(&tried)).ok()?;
        let id = claim.letter().entry.id;
        (self.wake)(&queue);
        let attempted = ends.recv().ok()?;
        self.conclude(&queue, claim, Some(&attempted));
        (self.wake)(&queue);
        Some(id)
    }

    fn conclude(&self, queue: &Queue, claim: Claim<'_>, attempted: Option<&[Attempted]>) {
        let office = Office { queue, rules: self.rules };
        let id = claim.letter().entry.id;
        let now = (self.now)();
        let done = match attempted {
            Some(attempted) => office.settle(claim, attempted, now),
            None => office.conclude(claim, now),
        };
        if let Err(error) = done.and_then(|Settled { closed, .. }| match closed {
            Closed::Relayed => queue.sync(),
            Closed::Waiting | Closed::Failed => Ok(()),
        }) {
            tracing::error!(message = "unrecorded", id = %id, reason = %error);
        }
    }
}

/// The final dot is out and the relay has not answered yet.
fn unanswered() -> Outcome {
    use crate::outcome::{Blame, Cause, Fault, Stage, Status};
    Outcome::Deferred {
        fault: Fault::new(Stage::Dot, Cause::Timeout("has not answered the final dot yet".to_owned())),
        blame: Blame::Relay,
        status: Status::new(4, 4, 2),
        maybe_duplicate: true,
    }
}
