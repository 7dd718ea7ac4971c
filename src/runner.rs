//! A queue run: what is due, in what order, over which connections.
//!
//! Letters are looked at in the order of their arrival and go to the lane of their account; a lane's workers, each with
//! one connection, claim them, send them and settle them. Looking and sending overlap, so that the first letter of a long
//! queue does not wait for a look at the last. An account that cannot be reached is asked once a run: its other letters
//! get the same answer without an attempt (and so a new time). A letter that cannot be claimed is somebody else's, on
//! hold, or no letter; none of these stands in another's way.
//!
//! A letter for several accounts goes alone, by a [`Carrier`]. A letter that a lost connection never began is tried once
//! more on a new one. The run ends when everything that was due has been tried, the reports that it made included.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Account, choose};
use crate::deliver::{Attempted, Carrier, Desk, attempted, is_unsent, log_remarks};
use crate::envelope::Envelope;
use crate::message::Message;
use crate::outcome::{Cause, Fault, Outcome, Report, Stage};
use crate::queue::{Claim, Closed, Error, Id, Listed, Queue, State, Unclaimed};
use crate::relay::{Connection, Job, Unreached};
use crate::settle::Office;
use crate::smtp::plan::Letter;

/// How long a connection may take to open, and how long a letter may take on it. Each wait has the account's own limit.
const OPEN: Duration = Duration::from_mins(5);
const LETTER: Duration = Duration::from_hours(1);

/// Letters that wait in a lane for each worker that it has, before it gets another.
const BACKLOG: usize = 16;

/// A run over a queue.
pub struct Run<'r, 'a> {
    /// Accounts, secrets, signals.
    pub desk: &'r Desk<'a>,
    /// The queue and its rules.
    pub office: Office<'r>,
    /// Connections to one account at a time.
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

/// When the next attempt of any letter is due; `None` where nobody waits for one.
pub fn next_due(queue: &Queue, now: SystemTime) -> Result<Option<SystemTime>, Error> {
    let waiting = queue.list()?.flatten().filter(|listed| listed.state != State::Hold);
    Ok(waiting.map(|listed| listed.letter.next_attempt(now)).min())
}

impl<'a> Run<'_, 'a> {
    /// Attempts every letter that `wanted` takes and that is not on hold, and the reports that come of it.
    pub fn run(&self, wanted: &dyn Fn(&Listed) -> bool) -> Result<Tally, Error> {
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
        let tally = lock(&books).tally;
        Ok(tally)
    }

    fn pass(&self, wanted: &dyn Fn(&Listed) -> bool, books: &Mutex<Books>) -> Result<(), Error> {
        let ids = self.office.queue.ids()?;
        let mut lanes = Lanes::default();
        thread::scope(|scope| {
            for id in ids {
                if self.desk.interrupt.is_winding_down() {
                    break;
                }
                match self.office.queue.look(id) {
                    Ok(listed) if listed.state == State::Hold || !wanted(&listed) => {}
                    Ok(listed) if listed.letter.remaining().is_none() => self.conclude(id, books),
                    Ok(listed) => self.assign(scope, &mut lanes, books, id, self.way(&listed)),
                    Err(Error::NoSuchLetter(_)) => {}
                    // The claim finds out what is wrong with it, and sets it aside where it is no letter.
                    Err(_) => self.assign(scope, &mut lanes, books, id, None),
                }
            }
            lanes.close(self.desk.interrupt.is_winding_down());
        });
        Ok(())
    }

    /// Ends a letter of which only a report is missing. That needs no relay, and must come before a report that was made of
    /// it before a crash is sent and gone: else it would be made once more. (It is younger, so it is looked at later.)
    fn conclude(&self, id: Id, books: &Mutex<Books>) {
        lock(books).tally.wanted += 1;
        if let Some(errand) = self.claim(id, books) {
            self.settle(errand.claim, &[], books);
        }
    }

    /// The account that a letter goes through; `None` where that is not just one.
    fn way(&self, listed: &Listed) -> Option<&'a Account> {
        let letter = &listed.letter;
        let routes = choose::routes(self.desk.settings, letter.entry.account.as_deref(), &letter.remaining()?).ok()?;
        match routes.as_slice() {
            [route] => Some(route.account),
            _ => None,
        }
    }

    /// Puts a letter into its lane, and a worker to the lane where that has too few.
    fn assign<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        lanes: &mut Lanes<'a>,
        books: &'s Mutex<Books>,
        id: Id,
        account: Option<&'a Account>,
    ) where
        'a: 's,
    {
        let lane = lanes.of(account);
        let tally = {
            let mut books = lock(books);
            books.tally.wanted += 1;
            books.tally
        };
        (self.progress)(&tally);
        let waiting = lane.push(id);
        let workers = lane.workers.load(Ordering::Relaxed);
        let most = if account.is_some() { self.connections.max(1) } else { 1 };
        if workers > 0 && (workers >= most || waiting <= BACKLOG * workers) {
            return;
        }
        lane.workers.fetch_add(1, Ordering::Relaxed);
        let work = {
            let lane = Arc::clone(&lane);
            move || match account {
                Some(account) => Worker { run: self, lane, books, account, tried: Vec::new(), barren: 0 }.work(),
                None => self.work_alone(&lane, books),
            }
        };
        let started = thread::Builder::new().name("lane".to_owned()).spawn_scoped(scope, work);
        if let Err(error) = started {
            lane.workers.fetch_sub(1, Ordering::Relaxed);
            // Without any worker the lane's letters stay for the next run.
            tracing::error!(message = "unable", reason = format!("cannot start a thread: {error}"));
        }
    }

    /// Works on the letters that have no account of their own.
    fn work_alone(&self, lane: &Lane, books: &Mutex<Books>) {
        let mut carrier = Carrier::new(self.desk);
        while let Some(id) = lane.wait() {
            let Some(mut errand) = self.claim(id, books) else { continue };
            if errand.load.is_some() && !errand.begin((self.now)()) {
                skip(books);
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
                    Unclaimed::Failed(error) => tracing::error!(message = "unreadable", id = %id, reason = %error),
                }
                skip(books);
                return None;
            }
        };
        let letter = claim.letter();
        if letter.history.last_attempt().is_some_and(|last| last >= self.started) {
            // Another run was quicker: the letter has had its attempt since we looked at it.
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
            }
        }
        let tally = books.tally;
        drop(books);
        (self.progress)(&tally);
    }
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
    fn begin(&mut self, now: SystemTime) -> bool {
        if !self.begun {
            if let Err(error) = self.claim.begin(now) {
                tracing::error!(message = "unrecorded", id = %self.claim.letter().entry.id, reason = %error);
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

/// One connection's worth of work on the letters of an account.
struct Worker<'r, 'a> {
    run: &'r Run<'r, 'a>,
    lane: Arc<Lane>,
    books: &'r Mutex<Books>,
    /// The account in use: the lane's own, or a fallback of it.
    account: &'a Account,
    tried: Vec<&'a str>,
    /// Connections in a row on which no letter got anywhere.
    barren: u32,
}

impl<'r> Worker<'r, '_> {
    fn work(mut self) {
        let (mut connection, mut waiting) = (None::<Connection>, Vec::new());
        while let Some(first) = waiting.pop().or_else(|| self.parcel(&|| self.lane.wait())) {
            let mut open = match connection.take().map_or_else(|| self.open(), Ok) {
                Ok(open) => open,
                Err(None) => {
                    let id = first.errand.claim.letter().entry.id;
                    drop(first);
                    self.lane.push(id);
                    break;
                }
                Err(Some(unreached)) => {
                    let report = unreached.report(&first.envelope);
                    self.settle(first, report);
                    continue;
                }
            };
            waiting.push(first);
            waiting = self.send(&mut open, waiting);
            if let Err(error) = self.run.office.queue.sync() {
                tracing::error!(message = "unrecorded", reason = %error);
            }
            if open.is_usable() {
                connection = Some(open);
            } else {
                self.lane.connected.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.lane.workers.fetch_sub(1, Ordering::Relaxed);
        if let Some(connection) = connection {
            self.lane.connected.fetch_sub(1, Ordering::Relaxed);
            connection.close();
        }
    }

    /// Opens a connection through the account or a fallback of it. `None` as the error: another worker of the lane has
    /// one, and the relay just does not want more.
    fn open(&mut self) -> Result<Connection, Option<Unreached>> {
        loop {
            // Until somebody has found out whether the relay is there, one asks and the others wait for the answer.
            let first = lock(&self.lane.asking);
            let first = (self.lane.connected.load(Ordering::Relaxed) == 0).then_some(first);
            let opened = self.run.desk.open(self.account, Instant::now() + OPEN);
            let unreached = match opened {
                Ok(connection) => {
                    self.lane.connected.fetch_add(1, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(_) if self.lane.connected.load(Ordering::Relaxed) > 0 => return Err(None),
                Err(unreached) => unreached,
            };
            self.run.desk.give_up(unreached.clone());
            drop(first);
            self.tried.push(&self.account.name);
            match self.run.desk.fallback(self.account, &self.tried) {
                Some(next) => self.account = next,
                None => return Err(Some(unreached)),
            }
        }
    }

    /// Sends letters over a connection: those that wait, then the lane's. Gives back those that it never began.
    fn send(&mut self, connection: &mut Connection, waiting: Vec<Parcel<'r>>) -> Vec<Parcel<'r>> {
        let lost = RefCell::new(Vec::new());
        let (mut waiting, settled) = (VecDeque::from(waiting), Cell::new(0));
        let last_fault = RefCell::new(None);
        {
            let this = &*self;
            let mut next = || loop {
                let parcel = waiting.pop_front().or_else(|| this.parcel(&|| this.lane.next()));
                let mut parcel = parcel.filter(|_| !this.run.desk.interrupt.is_winding_down())?;
                if parcel.errand.begin((this.run.now)()) {
                    return Some(parcel);
                }
                skip(this.books);
            };
            let mut done = |mut parcel: Parcel<'r>, report: Report| {
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
            self.run.desk.give_up(last_fault.into_inner().unwrap_or_else(|| Unreached {
                relay: connection.relay().to_owned(),
                account: self.account.name.clone(),
                fault: Fault::new(Stage::Mail, Cause::Network("closed the connection before any letter".to_owned())),
                remarks: Vec::new(),
            }));
        }
        let mut lost = lost.into_inner();
        lost.extend(waiting);
        lost
    }

    /// The next letter of the lane that there is something to send of.
    fn parcel(&self, next: &dyn Fn() -> Option<Id>) -> Option<Parcel<'r>> {
        while !self.run.desk.interrupt.is_winding_down() {
            let Some(mut errand) = self.run.claim(next()?, self.books) else { continue };
            match errand.load.take() {
                Some((envelope, message)) => return Some(Parcel { errand, envelope, message, again: false }),
                None => self.run.settle(errand.claim, &[], self.books),
            }
        }
        None
    }

    fn settle(&self, parcel: Parcel<'r>, report: Report) {
        log_remarks(&report);
        self.run.desk.enter(&parcel.envelope, &parcel.message, &report);
        self.run.settle(parcel.errand.claim, &attempted(&parcel.envelope, report), self.books);
    }
}

/// What an account's other letters would hear, from the report on one that was never begun.
fn unreached(report: &Report) -> Option<Unreached> {
    let Some(Outcome::Deferred { fault, .. }) = report.outcomes.first() else { return None };
    let (relay, account, fault) = (report.relay.clone(), report.account.clone(), fault.clone());
    Some(Unreached { relay, account, fault, remarks: Vec::new() })
}

/// The letters that wait for an account, and how many work on them.
#[derive(Default)]
struct Lane {
    ids: Mutex<Ids>,
    arrived: Condvar,
    /// Held by the worker that opens the first connection.
    asking: Mutex<()>,
    /// Threads.
    workers: AtomicUsize,
    /// Open connections.
    connected: AtomicUsize,
}

#[derive(Default)]
struct Ids {
    waiting: VecDeque<Id>,
    closed: bool,
}

impl Lane {
    /// Adds a letter; gives how many wait now.
    fn push(&self, id: Id) -> usize {
        let mut ids = lock(&self.ids);
        ids.waiting.push_back(id);
        self.arrived.notify_one();
        ids.waiting.len()
    }

    /// The next letter, if one is there.
    fn next(&self) -> Option<Id> {
        lock(&self.ids).waiting.pop_front()
    }

    /// Waits for the next letter; `None` when there will be none.
    fn wait(&self) -> Option<Id> {
        let mut ids = lock(&self.ids);
        loop {
            if let Some(id) = ids.waiting.pop_front() {
                return Some(id);
            }
            if ids.closed {
                return None;
            }
            ids = self.arrived.wait(ids).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The lanes of a pass, by account.
#[derive(Default)]
struct Lanes<'a>(HashMap<Option<&'a str>, Arc<Lane>>);

impl<'a> Lanes<'a> {
    fn of(&mut self, account: Option<&'a Account>) -> Arc<Lane> {
        Arc::clone(self.0.entry(account.map(|account| account.name.as_str())).or_default())
    }

    /// Nothing more will come; with `drop_waiting`, what waits is left for another run.
    fn close(&self, drop_waiting: bool) {
        for lane in self.0.values() {
            let mut ids = lock(&lane.ids);
            ids.closed = true;
            if drop_waiting {
                ids.waiting.clear();
            }
            lane.arrived.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has left counters that are still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
