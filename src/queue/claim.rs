//! A letter in one pair of hands: claimed, attempted, settled, reported, closed.
//!
//! The claim is an exclusive lock on the letter's own file, which ends with the process: any number of runners and
//! senders may work on a queue, and none has to clean up after another.

use std::fs::TryLockError;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::history::Event;
use super::letter::{self, Flaw, Letter, Stored};
use super::{Error, FAILED, Id, LETTERS, Queue, Submission, Tried, Verdict};
use crate::message::Content;
use crate::outcome::{Blame, Cause, Fault, Outcome, Stage, Status};

/// The status of a letter that outlived its lifetime (RFC 3463 §3.5, X.4.7).
pub const EXPIRED: Status = Status::new(5, 4, 7);

/// Room for a record on one recipient's outcome.
const RECORD: usize = 512;

/// A letter that nobody else can send.
pub struct Claim<'q> {
    queue: &'q Queue,
    stored: Stored,
    /// The number of the attempt that was begun and not settled yet.
    begun: Option<u32>,
    /// It was removed, since everybody has it.
    gone: bool,
}

/// Why a letter was not claimed. None of these stands in the way of another letter.
#[derive(Debug)]
pub enum Unclaimed {
    /// Somebody else has it.
    Busy,
    /// It was sent or removed since it was listed.
    Gone,
    /// It is on hold, for this reason.
    Held(String),
    /// It was no letter, for this reason, and now lies in `corrupt/`.
    SetAside(&'static str),
    /// The disk failed; the letter may be whole, and stays.
    Failed(Error),
}

/// What became of a letter whose claim was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Somebody still waits for it, or for a report on it.
    Waiting,
    /// Everybody has it; it is gone.
    Relayed,
    /// Somebody will not get it; it is kept under `failed/`.
    Failed,
}

impl Queue {
    /// Claims a letter and checks its seal. It need not be due: see [`Letter::is_due`].
    pub fn claim(&self, id: Id) -> Result<Claim<'_>, Unclaimed> {
        let stored = match self.lock(id, LETTERS) {
            Err(Unlocked::Flaw(Flaw::Damaged(why))) => {
                self.set_aside(&id.to_string(), why).map_err(Unclaimed::Failed)?;
                return Err(Unclaimed::SetAside(why));
            }
            Err(Unlocked::Flaw(Flaw::Gone)) => return Err(Unclaimed::Gone),
            Err(Unlocked::Flaw(Flaw::Io(source))) => {
                return Err(Unclaimed::Failed(Error::at("take up", &self.path(LETTERS, id))(source)));
            }
            Err(Unlocked::Busy) => return Err(Unclaimed::Busy),
            Ok(stored) => stored,
        };
        let mut claim = Claim::new(self, stored);
        let history = &claim.letter().history;
        if history.hold().is_none() && history.is_poisoned() {
            let why = "its last attempts all died before their end".to_owned();
            let at = history.last_attempt().unwrap_or(history.since());
            claim.record(&[Event::Held { at, why }]).map_err(Unclaimed::Failed)?;
        }
        match claim.letter().history.hold() {
            Some(why) => Err(Unclaimed::Held(why.to_owned())),
            None => Ok(claim),
        }
    }

    /// Opens, locks, reads and verifies a letter.
    pub(super) fn lock(&self, id: Id, dir: &'static str) -> Result<Stored, Unlocked> {
        let path = self.path(dir, id);
        let file = Stored::open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Unlocked::Busy),
            Err(TryLockError::Error(error)) => return Err(Flaw::Io(error).into()),
        }
        if !letter::is_at(&file, &path).map_err(Flaw::Io)? {
            return Err(Flaw::Gone.into());
        }
        let len = file.metadata().map_err(Flaw::Io)?.len();
        let stored = Stored::read(file, len, id)?;
        stored.verify()?;
        Ok(stored)
    }
}

/// Why a letter could not be locked and read.
pub(super) enum Unlocked {
    Busy,
    Flaw(Flaw),
}

impl From<Flaw> for Unlocked {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl<'q> Claim<'q> {
    /// What is locked is claimed.
    pub(super) fn new(queue: &'q Queue, stored: Stored) -> Self {
        Self { queue, stored, begun: None, gone: false }
    }
}

impl Claim<'_> {
    /// What is known of it: who is left, what happened so far.
    pub fn letter(&self) -> &Letter {
        &self.stored.letter
    }

    /// The content's octets. Whoever keeps them keeps the claim's lock.
    pub fn content(&self) -> Arc<dyn Content> {
        Arc::new(self.stored.content())
    }

    /// Proves that the outcome can be recorded, and leaves a mark by which a crash in mid-attempt is known.
    /// To be called before MAIL FROM; on an error the letter must not be sent.
    ///
    /// On a full disk a letter for one recipient may go all the same: its success is recorded by removing it, and that
    /// makes room.
    pub fn begin(&mut self, now: SystemTime) -> Result<(), Error> {
        let history = &self.letter().history;
        let (attempt, waiting) = (history.attempts() + 1, history.waiting().len());
        let begun = Event::Begun { at: now, attempt };
        let noted = if waiting > 1 { self.reserve(waiting) } else { Ok(()) }
            .and_then(|()| self.append(std::slice::from_ref(&begun)));
        match noted {
            Err(error) if waiting > 1 || !is_full(&error) => return Err(error),
            _ => {}
        }
        self.stored.letter.history.apply(&begun);
        self.begun = Some(attempt);
        Ok(())
    }

    /// Records an attempt's outcomes, one for each recipient of [`Letter::remaining`], in that order.
    ///
    /// When this returns, no recipient with a final outcome is attempted again, power cut or not – except that a letter
    /// which everybody has is recorded by its removal alone, which [`Queue::sync`] makes last.
    pub fn settle(&mut self, tried: &[Tried<'_>], now: SystemTime) -> Result<(), Error> {
        let begun = self.begun.take();
        let history = &self.letter().history;
        let events = history.outcomes(tried, begun.unwrap_or(history.attempts() + 1), now);
        self.conclude(&events)
    }

    /// Gives up on everybody who still waits: the last deferral becomes a failure of status [`EXPIRED`].
    pub fn expire(&mut self, now: SystemTime) -> Result<(), Error> {
        let history = &self.letter().history;
        let events: Vec<Event> = history
            .waiting()
            .into_iter()
            .map(|number| {
                let verdict = Arc::new(expired(history.verdict(number), now));
                Event::Outcome { whom: vec![number], verdict }
            })
            .collect();
        self.conclude(&events)
    }

    /// Applies outcomes and writes them down as firmly as they need. They hold for this claim even where that fails.
    fn conclude(&mut self, events: &[Event]) -> Result<(), Error> {
        let history = &mut self.stored.letter.history;
        history.apply_all(events);
        let is_final = |event: &Event| matches!(event, Event::Outcome { verdict, .. } if verdict.outcome.is_final());
        if history.waiting().is_empty() && history.failed().is_empty() {
            // Removing the letter says it all, and nothing comes between the relay's word and this: not even the log.
            return match self.queue.forget(self.letter().entry.id) {
                Ok(()) => {
                    self.gone = true;
                    self.queue.sync_some()
                }
                // A letter that cannot be removed would be sent at every run, for ever, were that not written into it.
                Err(error) => self.append(events).and_then(|()| self.sync()).and(Err(error)),
            };
        }
        self.append(events)?;
        if events.iter().any(is_final) { self.sync() } else { Ok(()) }
    }

    /// Accepts `report` as the answer to the sender about [`History::unreported`](super::History::unreported), unless a
    /// crash left one accepted already. `None`: nobody is to be told.
    pub fn report(&mut self, report: Option<&Submission<'_>>, now: SystemTime) -> Result<Option<Id>, Error> {
        let whom = self.letter().history.unreported();
        if whom.is_empty() {
            return Ok(None);
        }
        // Stays locked until it is written down that it is there:
        // were it sent and gone by then, a crash would make another.
        let mut made = None;
        let id = match report {
            None => None,
            Some(report) => match self.reported(&whom)? {
                Some(id) => Some(id),
                None => Some(made.insert(self.accept_report(report, &whom, now)?).letter.entry.id),
            },
        };
        let told = Event::Told { at: now, whom };
        self.append(std::slice::from_ref(&told))?;
        self.stored.letter.history.apply(&told);
        if !self.letter().history.waiting().is_empty() {
            self.sync()?; // else the move to failed/ makes it last
        }
        Ok(id)
    }

    fn accept_report(&mut self, report: &Submission<'_>, whom: &[usize], now: SystemTime) -> Result<Stored, Error> {
        let mut id = Id::at(now);
        loop {
            self.record(&[Event::Reporting { at: now, id, whom: whom.to_vec() }])?;
            if let Some(stored) = self.queue.accept_as(id, report, now)? {
                return Ok(stored);
            }
            id = id.next();
        }
    }

    /// The report on these recipients that was accepted before a crash. One that cannot be read may be it.
    fn reported(&self, whom: &[usize]) -> Result<Option<Id>, Error> {
        let Some((id, these)) = self.letter().history.reporting() else { return Ok(None) };
        let sender = self.letter().entry.envelope.reverse_path().0.as_ref();
        for dir in [LETTERS, FAILED] {
            let path = self.queue.path(dir, id);
            let envelope = match Stored::peek(&path, id) {
                Ok(found) => found.letter.entry.envelope,
                Err(Flaw::Gone | Flaw::Damaged(_)) => continue,
                Err(Flaw::Io(source)) => return Err(Error::at("read", &path)(source)),
            };
            let ours =
                envelope.reverse_path().is_null() && envelope.recipients().iter().any(|to| Some(&to.mailbox) == sender);
            return Ok((these == whom && ours).then_some(id));
        }
        Ok(None)
    }

    /// Notes that the sender is being told of the delay; to be called before the notice is accepted, so that it comes
    /// once or not at all.
    pub fn note_late(&mut self, now: SystemTime) -> Result<(), Error> {
        self.record(&[Event::Late { at: now }])
    }

    /// Ends the claim: a letter that everybody has is removed, if that has not been done yet, one that somebody will
    /// not get is kept under `failed/`, any other waits for its next attempt (or its report).
    pub fn close(self) -> Result<Closed, Error> {
        let Letter { entry, history } = self.letter();
        if self.gone {
            Ok(Closed::Relayed)
        } else if !history.waiting().is_empty() || !history.unreported().is_empty() {
            Ok(Closed::Waiting)
        } else if history.failed().is_empty() {
            self.queue.forget(entry.id).and_then(|()| self.queue.sync_some()).map(|()| Closed::Relayed)
        } else {
            self.queue.transfer(entry.id, LETTERS, FAILED).map(|()| Closed::Failed)
        }
    }

    /// Writes records, makes them last, applies them.
    fn record(&mut self, events: &[Event]) -> Result<(), Error> {
        self.append(events)?;
        self.sync()?;
        self.stored.letter.history.apply_all(events);
        Ok(())
    }

    fn append(&self, events: &[Event]) -> Result<(), Error> {
        let id = self.letter().entry.id;
        self.queue.append(&self.stored.file, id, events).map_err(self.failed("write to"))
    }

    fn sync(&self) -> Result<(), Error> {
        self.queue.disk.sync(&self.stored.file).map_err(self.failed("write to"))
    }

    /// Sets blocks aside for the outcomes, so that a disk that fills up during the attempt cannot keep them out.
    #[cfg(target_os = "linux")]
    fn reserve(&self, recipients: usize) -> Result<(), Error> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let file = &self.stored.file;
        let end = file.metadata().map_err(self.failed("look at"))?.len();
        let (end, room) = (i64::try_from(end).unwrap_or(i64::MAX), i64::try_from(RECORD * (recipients + 1)));
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, end, room.unwrap_or(i64::MAX)) {
            // Not every file system can; there the record just written is the proof that we have.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(self.failed("write to")(errno.into())),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self, _recipients: usize) -> Result<(), Error> {
        Ok(())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.queue.path(LETTERS, self.letter().entry.id);
        move |source| Error::Io { doing, path, source }
    }
}

/// The failure that a recipient's last deferral becomes.
fn expired(last: Option<&Verdict>, now: SystemTime) -> Verdict {
    let (fault, blame) = match last.map(|verdict| &verdict.outcome) {
        Some(Outcome::Deferred { fault, blame, .. }) => (fault.clone(), *blame),
        _ => (Fault::new(Stage::Local, Cause::Local("no attempt could be made".to_owned())), Blame::System),
    };
    Verdict {
        at: last.map_or(now, |verdict| verdict.at),
        attempt: last.map_or(0, |verdict| verdict.attempt),
        relay: last.map(|verdict| verdict.relay.clone()).unwrap_or_default(),
        outcome: Outcome::Failed { fault, blame, status: EXPIRED },
    }
}

fn is_full(error: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    error.io().is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}
