//! Who is there, and who has sent how much: the counts behind the service's limits.
//!
//! Users are told apart by uid; whoever comes over TCP has none, and all of them count as one. An hour begins with a
//! user's first letter in it. What is counted here is forgotten when the service stops.

use super::visit::{Peer, Stream};
use std::collections::HashMap;
use std::fmt;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_hours(1);

/// Hours of so many users are remembered before those that are over are looked for.
const HOURS: usize = 256;

/// How much anybody may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one user.
    pub connections_per_user: usize,
    /// Letters of one user in an hour.
    pub letters_per_hour: u32,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Connections in all: the limit.
    Connections(usize),
    /// Connections of this user: the limit.
    OfUser(usize),
    /// Letters of this user in this hour: the limit, and when the next hour begins.
    Letters(u32, Duration),
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections(limit) => write!(f, "there are {limit} connections, which is all there may be"),
            Self::OfUser(limit) => write!(f, "you have {limit} connections, which is all that one user may have"),
            Self::Letters(limit, wait) => {
                let minutes = wait.as_secs().div_ceil(60);
                write!(
                    f,
                    "you have sent {limit} letters in this hour, which is all that one user may; the next begins in \
                     {minutes} min"
                )
            }
        }
    }
}

/// The counts.
#[derive(Default)]
pub struct Ledger {
    books: Mutex<Books>,
    left: Condvar,
    dismissed: AtomicBool,
}

#[derive(Default)]
struct Books {
    next: u64,
    present: HashMap<u64, Present>,
    hours: HashMap<Option<u32>, Hour>,
}

struct Present {
    uid: Option<u32>,
    stream: Arc<Stream>,
    in_letter: Arc<AtomicBool>,
}

struct Hour {
    begun: Instant,
    letters: u32,
}

impl Ledger {
    /// Lets a client in, if there is room for it.
    pub(super) fn enter(&self, peer: &Peer, stream: &Arc<Stream>, limits: Limits) -> Result<Seat<'_>, TooMany> {
        let mut books = self.books();
        if books.present.len() >= limits.connections {
            return Err(TooMany::Connections(limits.connections));
        }
        let uid = peer.uid();
        if books.present.values().filter(|other| other.uid == uid).count() >= limits.connections_per_user {
            return Err(TooMany::OfUser(limits.connections_per_user));
        }
        let (number, in_letter) = (books.next, Arc::new(AtomicBool::new(false)));
        books.next += 1;
        books.present.insert(number, Present { uid, stream: Arc::clone(stream), in_letter: Arc::clone(&in_letter) });
        Ok(Seat { ledger: self, number, peer: *peer, stream: Arc::clone(stream), in_letter })
    }

    /// Whether the user may send another letter now.
    pub fn may_send(&self, uid: Option<u32>, limits: Limits, now: Instant) -> Result<(), TooMany> {
        match self.books().hours.get(&uid) {
            Some(hour) => hour.has_room(limits, now),
            None => Ok(()),
        }
    }

    /// Counts a letter, if the user may send it.
    pub fn count(&self, uid: Option<u32>, limits: Limits, now: Instant) -> Result<(), TooMany> {
        let mut books = self.books();
        if books.hours.len() > HOURS {
            books.hours.retain(|_, hour| !hour.is_over(now));
        }
        let hour = books.hours.entry(uid).or_insert(Hour { begun: now, letters: 0 });
        hour.has_room(limits, now)?;
        if hour.is_over(now) {
            *hour = Hour { begun: now, letters: 0 };
        }
        hour.letters += 1;
        Ok(())
    }

    /// Takes back a letter that was counted and not kept.
    pub fn uncount(&self, uid: Option<u32>) {
        if let Some(hour) = self.books().hours.get_mut(&uid) {
            hour.letters = hour.letters.saturating_sub(1);
        }
    }

    /// How many are there.
    pub fn present(&self) -> usize {
        self.books().present.len()
    }

    /// Sends everybody away who is between letters; the others follow when theirs has come to its end.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::SeqCst);
        for present in self.books().present.values() {
            if !present.in_letter.load(Ordering::SeqCst) {
                present.stream.shut(Shutdown::Read);
            }
        }
    }

    pub(super) fn wait_until_empty(&self, until: Instant) {
        let mut books = self.books();
        while !books.present.is_empty() {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return;
            }
            books = self.left.wait_timeout(books, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends every connection that is left.
    pub(super) fn cut(&self) {
        self.books().present.values().for_each(|present| present.stream.shut(Shutdown::Both));
    }

    /// A thread that panicked has left counts that are still good.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hour {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= HOUR
    }

    fn has_room(&self, limits: Limits, now: Instant) -> Result<(), TooMany> {
        if self.letters < limits.letters_per_hour || self.is_over(now) {
            return Ok(());
        }
        let wait = HOUR.saturating_sub(now.saturating_duration_since(self.begun));
        Err(TooMany::Letters(limits.letters_per_hour, wait))
    }
}

/// A client's place, which it has until this is dropped.
pub(super) struct Seat<'l> {
    ledger: &'l Ledger,
    number: u64,
    peer: Peer,
    stream: Arc<Stream>,
    /// Whether a letter is coming in.
    pub(super) in_letter: Arc<AtomicBool>,
}

impl Seat<'_> {
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.ledger.dismissed.load(Ordering::SeqCst)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.ledger.books().present.remove(&self.number);
        self.ledger.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const LIMITS: Limits = Limits { connections: 3, connections_per_user: 2, letters_per_hour: 2 };

    #[test]
    fn one_user_leaves_room_for_others_and_places_come_free() {
        let ledger = Ledger::default();
        let enter = |uid| {
            let stream = Arc::new(Stream::Unix(UnixStream::pair().unwrap().0));
            ledger.enter(&Peer::Local { uid, gid: 0 }, &stream, LIMITS)
        };
        let first = enter(1).unwrap();
        let _second = enter(1).unwrap();
        assert_eq!(enter(1).err(), Some(TooMany::OfUser(2)));
        let _other = enter(2).unwrap();
        assert_eq!(enter(3).err(), Some(TooMany::Connections(3)));
        drop(first);
        assert!(enter(3).is_ok());
    }

    #[test]
    fn letters_are_counted_by_the_hour_and_the_user() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        let later = now + Duration::from_mins(45);
        assert_eq!(ledger.count(Some(1), LIMITS, now), Ok(()));
        assert_eq!(ledger.count(Some(1), LIMITS, later), Ok(()));
        let refused = Err(TooMany::Letters(2, Duration::from_mins(15)));
        assert_eq!((ledger.may_send(Some(1), LIMITS, later), ledger.count(Some(1), LIMITS, later)), (refused, refused));
        assert_eq!(ledger.count(Some(2), LIMITS, later), Ok(()));
        ledger.uncount(Some(1));
        assert_eq!(ledger.count(Some(1), LIMITS, later), Ok(()));
        assert_eq!(ledger.count(Some(1), LIMITS, now + HOUR), Ok(()));
    }
}
