//! A queue run: what is due, in what order, over which connections.
//!
//! Letters are looked at in the order of their arrival and go to the lane of their destination
//! ([`lanes`]): their account, or their domain where the account delivers directly. A lane's workers
//! ([`worker`]), each with one connection, claim them, send them and settle them. Looking and sending
//! overlap, so that the first letter of a long queue does not wait for a look at the last. A destination
//! that cannot be reached is asked once a run: its other letters get the same answer without an attempt
//! (and so a new time), or move over into the lane of the account that takes over. A letter that cannot
//! be claimed is somebody else's, on hold, or no letter; none of these stands in another's way.
//!
//! A letter for several destinations goes alone, by a [`Carrier`]. A letter that a lost connection never began is tried
//! once more on a new one. The run ends when everything that was due has been tried, the reports that it made included.

mod lanes;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant, SystemTime};

use crate::config::Account;
use crate::config::choose::{self, Route};
use crate::deliver::{Attempted, Carrier, Desk};
use crate::envelope::Envelope;
use crate::message::Message;
use crate::queue::{Claim, Closed, Error, Id, Listed, Queue, State, Unclaimed};
use crate::relay::Job;
use crate::settle::Office;
use crate::smtp::plan::Letter;
use lanes::{Key, Lanes};
use worker::Worker;

/// How long a letter may take. Each wait has the account's own limit.
const LETTER: Duration = Duration::from_hours(1);

/// Letters for several destinations that go at a time, where domains are destinations.
const ALONE: usize = 4;

/// A run over a queue.
pub struct Run<'r, 'a> {
    /// Accounts, secrets, signals.
    pub desk: &'r Desk<'a>,
    /// The queue and its rules.
    pub office: Office<'r>,
    /// Connections to one account or, with one that delivers directly, one domain at a time.
    pub connections: usize,
    /// The clock.
    pub now: &'r (dyn Fn() -> SystemTime + Sync),
    /// When the run began, by that clock.
    pub started: SystemTime,
    /// Hears of the tally with each letter that is found or done.
    pub progress: &'r (dyn Fn(&Tally) + Sync),
}

/// Letters, by what became of them in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Looked at and found to be wanted.
    pub wanted: usize,
    /// Everybody has it.
    pub relayed: usize,
    /// Somebody still waits.
    pub deferred: usize,
    /// Somebody will not get it.
    pub failed: usize,
    /// Not attempted: somebody else has it, or it cannot be read or written.
    pub skipped: usize,
}

impl Tally {
    /// Letters of which the run knows the end.
    pub fn done(&self) -> usize {
        self.relayed + self.deferred + self.failed + self.skipped
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Ran {
    /// The letters.
    pub tally: Tally,
    /// How many of them the queue's disk kept from being tried, or from having it recorded, and how it did the first.
    pub hindered: Option<(usize, Error)>,
}

/// When the next attempt of any letter is due; `None` where nobody
/// waits for one. Letters of which that is `known` are not looked at.
pub(crate) fn next_due(
    queue: &Queue,
    now: SystemTime,
    known: &HashMap<Id, SystemTime>,
) -> Result<Option<SystemTime>, Error> {
    let due = |id| {
        let look = || queue.look(id).ok().filter(|listed| !matches!(listed.state, State::Hold | State::Failed));
        known.get(&id).copied().or_else(|| Some(look()?.letter.next_attempt(now)))
    };
    Ok(queue.ids()?.into_iter().filter_map(due).min())
}

impl<'a> Run<'_, 'a> {
    /// Attempts every letter that `wanted` takes and that is not on hold, and the reports that come of it.
    pub fn run(&self, wanted: &dyn Fn(&Listed) -> bool) -> Result<Ran, Error> {
        let books = Mutex::new(Books::default());
        self.pass(wanted, &books)?;
        loop {
            let reports = std::mem::take(&mut lock(&books).reports);
            if reports.is_empty() || self.desk.interrupt.is_winding_down() {
                break;
            }
            // A report has a null reverse-path, so that no report comes of it: this ends.
            self.pass(&|listed: &Listed| reports.contains(&listed.letter.entry.id), &books)?;
        }
        self.office.queue.sync()?;
        let books = books.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Ran { tally: books.tally, hindered: books.hindered })
    }

    fn pass(&self, wanted: &dyn Fn(&Listed) -> bool, books: &Mutex<Books>) -> Result<(), Error> {
        let ids = self.office.queue.ids()?;
        let lanes = Lanes::default();
        thread::scope(|scope| {
            let shift = Shift { scope, lanes: &lanes, books };
            for id in ids {
                if self.desk.interrupt.is_winding_down() {
                    break;
                }
                match self.office.queue.look(id) {
                    Ok(listed) if listed.state == State::Hold || !wanted(&listed) => {}
                    Ok(listed) if listed.letter.remaining().is_none() => self.conclude(id, books),
                    Ok(listed) => self.assign(shift, id, &self.way(&listed)),
                    Err(Error::NoSuchLetter(_)) => {}
                    // The claim finds out what is wrong with it, and sets it aside where it is no letter.
                    Err(_) => self.assign(shift, id, &None),
                }
            }
            lanes.close(self.desk.interrupt.is_winding_down());
        });
        Ok(())
    }

    /// Ends a letter of which only a report is missing. That needs no relay, and must
    /// come before a report that was made of it before a crash is sent and gone: else
    /// it would be made once more. (It is younger, so it is looked at later.)
    fn conclude(&self, id: Id, books: &Mutex<Books>) {
        lock(books).tally.wanted += 1;
        if let Some(errand) = self.claim(id, books) {
            self.settle(errand.claim, &[], books);
        }
    }

    /// The lane of a letter.
    fn way(&self, listed: &Listed) -> Key<'a> {
        let letter = &listed.letter;
        let remaining = letter.remaining()?;
        lane(choose::routes(self.desk.settings, letter.entry.account.as_deref(), &remaining).ok()?)
    }

    /// Takes up a letter that was found in the queue.
    fn assign<'s>(&'s self, shift: Shift<'s, '_, 'a>, id: Id, key: &Key<'a>) {
        let tally = {
            let mut books = lock(shift.books);
            books.tally.wanted += 1;
            books.tally
        };
        (self.progress)(&tally);
        self.enlist(shift, id, key);
    }

    /// Puts a letter into a lane, and a worker to the lane where that has too few.
    fn enlist<'s>(&'s self, shift: Shift<'s, '_, 'a>, id: Id, key: &Key<'a>) {
        let alone = if self.desk.settings.accounts.iter().any(Account::is_direct) { ALONE } else { 1 };
        let most = if key.is_some() { self.connections.max(1) } else { alone };
        if !shift.lanes.push(key, id, most) {
            return;
        }
        let work = {
            let key = key.clone();
            move || {
                let mut at = Some(key);
                while let Some(key) = at {
                    match &key {
                        Some(to) => Worker { run: self, shift, key: &key, to, barren: 0 }.work(),
                        None => self.work_alone(shift),
                    }
                    at = shift.lanes.another(&key);
                }
            }
        };
        let started = thread::Builder::new().name("lane".to_owned()).spawn_scoped(shift.scope, work);
        if let Err(error) = started {
            // Without any worker the lane's letters stay for the next run.
            shift.lanes.abandon(key);
            tracing::error!(message = "unable", reason = format!("cannot start a thread: {error}"));
        }
    }

    /// Works on the letters that have no destination of their own.
    fn work_alone(&self, Shift { lanes, books, .. }: Shift<'_, '_, 'a>) {
        let mut carrier = Carrier::new(self.desk);
        while let Some(id) = lanes.wait(&None) {
            if self.desk.interrupt.is_winding_down() {
                continue;
            }
            let Some(mut errand) = self.claim(id, books) else { continue };
            if errand.load.is_some() && !errand.begin((self.now)(), books) {
                continue;
            }
            let attempted = match &errand.load {
                None => Vec::new(),
                Some((envelope, message)) => {
                    let account = errand.claim.letter().entry.account.clone();
                    carrier.carry(account.as_deref(), envelope, message, Instant::now() + LETTER)
                }
            };
            self.settle(errand.claim, &attempted, books);
        }
        carrier.close();
    }

    /// Claims a letter; `None` where it is not to be had.
    fn claim(&self, id: Id, books: &Mutex<Books>) -> Option<Errand<'_>> {
        let claim = match self.office.queue.claim(id) {
            Ok(claim) => claim,
            Err(unclaimed) => {
                match unclaimed {
                    Unclaimed::Busy | Unclaimed::Gone => {}
                    Unclaimed::Held(why) => tracing::warn!(message = "held", id = %id, reason = why),
                    Unclaimed::SetAside(why) => tracing::error!(message = "corrupt", id = %id, reason = why),
                    Unclaimed::Failed(error) => {
                        tracing::error!(message = "unreadable", id = %id, reason = %error);
                        lock(books).hinder(error);
                    }
                }
                skip(books);
                return None;
            }
        };
        let letter = claim.letter();
        if letter.history.last_attempt().is_some_and(|last| (self.started..=(self.now)()).contains(&last)) {
            // Another run was quicker: the letter has had its attempt since we looked at it. (One that is yet to come
            // was made by a clock that has been set back, and says nothing.)
            skip(books);
            return None;
        }
        let Some(envelope) = letter.remaining() else { return Some(Errand { claim, load: None, begun: false }) };
        match Message::stored(claim.content(), letter.entry.header_len, letter.entry.facts) {
            Ok(message) => Some(Errand { claim, load: Some((envelope, message)), begun: false }),
            Err(error) => {
                tracing::error!(message = "unreadable", id = %id, reason = %error);
                skip(books);
                None
            }
        }
    }

    /// Settles a letter and enters it in the books.
    fn settle(&self, claim: Claim<'_>, attempted: &[Attempted], books: &Mutex<Books>) {
        let id = claim.letter().entry.id;
        let now = (self.now)();
        let settled = if attempted.is_empty() {
            self.office.conclude(claim, now)
        } else {
            self.office.settle(claim, attempted, now)
        };
        let mut books = lock(books);
        match settled {
            Ok(settled) => {
                books.reports.extend(settled.report);
                match settled.closed {
                    Closed::Relayed => books.tally.relayed += 1,
                    Closed::Waiting => books.tally.deferred += 1,
                    Closed::Failed => books.tally.failed += 1,
                }
            }
            Err(error) => {
                tracing::error!(message = "unrecorded", id = %id, reason = %error);
                books.tally.skipped += 1;
                books.hinder(error);
            }
        }
        let tally = books.tally;
        drop(books);
        (self.progress)(&tally);
    }
}

/// What the workers of a pass have in common.
#[derive(Clone, Copy)]
struct Shift<'s, 'e, 'a> {
    scope: &'s Scope<'s, 'e>,
    lanes: &'s Lanes<'a>,
    books: &'s Mutex<Books>,
}

/// The lane of a letter with these routes.
fn lane(routes: Vec<Route<'_>>) -> Key<'_> {
    let [route] = <[_; 1]>::try_from(routes).ok()?;
    Some(route.to)
}

fn skip(books: &Mutex<Books>) {
    lock(books).tally.skipped += 1;
}

/// What the workers of a run have found out together.
#[derive(Default)]
struct Books {
    tally: Tally,
    /// Reports that were accepted and are still to be sent.
    reports: HashSet<Id>,
    hindered: Option<(usize, Error)>,
}

impl Books {
    fn hinder(&mut self, error: Error) {
        self.hindered.get_or_insert((0, error)).0 += 1;
    }
}

/// A claimed letter on its way.
struct Errand<'q> {
    claim: Claim<'q>,
    /// What is to be sent to whom; `None` where only a report is missing.
    load: Option<(Envelope, Message)>,
    begun: bool,
}

impl Errand<'_> {
    /// Leaves the mark that an attempt begins, once. `false`: it cannot be left, so the letter must not be sent.
    fn begin(&mut self, now: SystemTime, books: &Mutex<Books>) -> bool {
        if !self.begun {
            if let Err(error) = self.claim.begin(now) {
                tracing::error!(message = "unrecorded", id = %self.claim.letter().entry.id, reason = %error);
                skip(books);
                lock(books).hinder(error);
                return false;
            }
            self.begun = true;
        }
        true
    }
}

/// An errand that has something to be sent.
struct Parcel<'q> {
    errand: Errand<'q>,
    envelope: Envelope,
    message: Message,
    /// A connection was lost before this letter was begun on it.
    again: bool,
}

impl Job for Parcel<'_> {
    fn envelope(&self) -> &Envelope {
        &self.envelope
    }
    fn letter(&self) -> &dyn Letter {
        &self.message
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has left counters that are still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
