//! What the sink has seen since it was last asked, for one line of JSON.
//!
//! Times are seconds since 1970, to be compared with the bench's own clock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the connections may take to end after the last letter awaited.
const GOODBYE: Duration = Duration::from_secs(1);

/// Counts, shared by the connections.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    connections: u64,
    open: u64,
    most_open: u64,
    letters: u64,
    awaited: u64,
    recipients: u64,
    octets: u64,
    whole: u64,
    damaged: u64,
    flights: u64,
    first_connection: f64,
    first_letter: f64,
    last_letter: f64,
}

impl Tally {
    /// A client has come.
    pub fn connected(&self) {
        let mut counts = self.lock();
        counts.connections += 1;
        counts.open += 1;
        counts.most_open = counts.most_open.max(counts.open);
        if counts.connections == 1 {
            counts.first_connection = now();
        }
    }

    /// A client has gone.
    pub fn disconnected(&self) {
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    /// A client waited for an answer.
    pub fn flight(&self) {
        self.lock().flights += 1;
    }

    /// A letter was taken.
    pub fn accepted(&self, whole: Option<bool>, octets: u64, recipients: u64) {
        let mut counts = self.lock();
        counts.letters += 1;
        counts.octets += octets;
        counts.recipients += recipients;
        match whole {
            Some(true) => counts.whole += 1,
            Some(false) => counts.damaged += 1,
            None => {}
        }
        counts.last_letter = now();
        if counts.letters == 1 {
            counts.first_letter = counts.last_letter;
        }
        if counts.letters == counts.awaited {
            self.changed.notify_all();
        }
    }

    /// Waits for so many letters, and for the connections to end; says what was counted and forgets it.
    pub fn take(&self, letters: u64, patience: Duration) -> String {
        let mut counts = self.lock();
        counts.awaited = letters;
        counts = self.wait(counts, patience, |counts| counts.letters < letters);
        if letters > 0 {
            counts = self.wait(counts, GOODBYE, |counts| counts.open > 0);
        }
        let fresh = Counts { open: counts.open, most_open: counts.open, ..Counts::default() };
        let counts = std::mem::replace(&mut *counts, fresh);
        format!(
            "{{\"connections\":{},\"most_open\":{},\"letters\":{},\"recipients\":{},\"octets\":{},\"whole\":{},\
             \"damaged\":{},\"flights\":{},\"first_connection\":{:.6},\"first_letter\":{:.6},\
             \"last_letter\":{:.6}}}",
            counts.connections,
            counts.most_open,
            counts.letters,
            counts.recipients,
            counts.octets,
            counts.whole,
            counts.damaged,
            counts.flights,
            counts.first_connection,
            counts.first_letter,
            counts.last_letter,
        )
    }

    fn wait<'a>(
        &self,
        mut counts: MutexGuard<'a, Counts>,
        patience: Duration,
        unfinished: impl Fn(&Counts) -> bool,
    ) -> MutexGuard<'a, Counts> {
        let until = Instant::now() + patience;
        while unfinished(&counts) && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            counts = self.changed.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
