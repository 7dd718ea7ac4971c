//! Room for letters: octets on the disk, and places for those who write. What somebody has is free again when it is
//! dropped.

use super::House;
use crate::smtp::server::Answer;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Octets that come in between two looks at the disk.
pub(super) const LOOK: u64 = 256 * 1024;

impl House<'_> {
    /// Room for so many octets beside the reserve and what others are about to write; it is kept until it is dropped.
    /// Without this, many who look at the same time would all see the same room.
    pub(super) fn room(&self, reserve: u64, octets: u64) -> Result<Room<'_>, Answer> {
        let no = |why: &str, told: &str| {
            tracing::error!(message = "unable", reason = format!("{}: {why}", self.dir.display()));
            Answer::new(452, (3, 1), format!("{told}; try again later"))
        };
        let room = Room { promised: &self.promised, octets };
        // A size that a client only says may be any.
        let promised = self.promised.fetch_add(octets, Ordering::SeqCst).saturating_add(octets);
        let found =
            nix::sys::statvfs::statvfs(&self.dir).map_err(|errno| no(errno.desc(), "the queue cannot be reached"))?;
        // As wide as the platform has them.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
        if free >= reserve.saturating_add(promised) {
            Ok(room)
        } else {
            Err(no("disk_reserve would be touched", "the disk is too full to keep the letter"))
        }
    }
}

/// Room on the disk that nobody else counts on.
pub(super) struct Room<'h> {
    promised: &'h AtomicU64,
    octets: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.promised.fetch_sub(self.octets, Ordering::SeqCst);
    }
}

/// A letter on its way in, with an eye on the disk that it goes to.
pub(super) struct Watched<'a> {
    content: &'a mut dyn Read,
    house: &'a House<'a>,
    reserve: u64,
    /// Octets since the last look.
    unseen: u64,
    /// For what comes before the next one.
    room: Option<Room<'a>>,
    full: Option<Answer>,
}

impl<'a> Watched<'a> {
    /// Takes the first look, which is for what may come before the second, of a letter that may be of this size.
    pub fn new(
        content: &'a mut dyn Read,
        house: &'a House<'a>,
        reserve: u64,
        size: Option<u64>,
    ) -> Result<Self, Answer> {
        let room = Some(house.room(reserve, size.unwrap_or(LOOK).min(LOOK))?);
        Ok(Self { content, house, reserve, unseen: 0, room, full: None })
    }

    /// Gives the room back; says what the client hears where the disk was too full to go on.
    pub fn over(self) -> Option<Answer> {
        self.full
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.unseen >= LOOK {
            self.unseen = 0;
            // What came since the last look is on the disk.
            self.room = None;
            match self.house.room(self.reserve, LOOK) {
                Ok(room) => self.room = Some(room),
                Err(answer) => {
                    self.full = Some(answer);
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
        }
        let n = self.content.read(into)?;
        self.unseen += n as u64;
        Ok(n)
    }
}

/// So many may do something at a time.
pub(super) struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them.
pub(super) struct Place<'p>(&'p Places);

impl Places {
    pub fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), freed: Condvar::new() }
    }

    pub fn take(&self) -> Place<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
