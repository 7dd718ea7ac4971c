//! Queue ids: twelve upper-case hexadecimal digits that sort by arrival and name the letter's file.
//!
//! An id is the time of arrival in ticks of 4 µs, so it needs neither a counter on disk nor a random source.
//! Two letters of the same tick are told apart by [`Queue::accept`](super::Queue::accept), which takes an id only
//! while it holds `tmp/ID` exclusively and finds it neither waiting nor failed; the later one takes the next tick.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of a letter in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// 2025-01-01T00:00:00Z in ticks: 48 bits last until 2060 from here.
const EPOCH: u64 = 1_735_689_600_000_000 / TICK;
/// Microseconds in a tick.
const TICK: u64 = 4;
const MASK: u64 = (1 << 48) - 1;

impl Id {
    /// The id of a letter that arrives at `now`. A clock before the epoch wraps; the id stays unique.
    pub(super) fn at(now: SystemTime) -> Self {
        let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let ticks = u64::try_from(micros).unwrap_or(u64::MAX) / TICK;
        Self(ticks.wrapping_sub(EPOCH) & MASK)
    }

    /// The id to try where this one is taken.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) & MASK)
    }

    /// Reads an id as it is printed, and only so: one letter has one name. Lower case is taken from people.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Reads a file's name: like [`Id::parse`], but in upper case only.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        Self::parse(name).filter(|id| id.to_string() == name)
    }

    /// A number that differs from letter to letter: it spreads their retries.
    pub(super) fn seed(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012X}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_arrival_and_read_back() {
        let now = UNIX_EPOCH + Duration::from_micros(1_790_000_000_123_456);
        let (first, later) = (Id::at(now), Id::at(now + Duration::from_micros(4)));
        assert!(first < later);
        assert_eq!(first.next(), later);
        assert_eq!(Id::parse(&first.to_string()), Some(first));
        assert_eq!(first.to_string().len(), 12);
    }

    #[test]
    fn a_clock_at_1970_still_gives_an_id() {
        let id = Id::at(UNIX_EPOCH);
        assert_eq!(Id::of_file(&id.to_string()), Some(id));
        assert_eq!(Id::at(UNIX_EPOCH - Duration::from_secs(1)), id);
    }

    #[test]
    fn a_file_has_one_name() {
        assert!(Id::of_file("0123456789AB").is_some());
        for name in ["0123456789ab", "0123456789A", "0123456789ABC", "0123456789A~", "+123456789AB", ""] {
            assert_eq!(Id::of_file(name), None, "{name}");
        }
        assert!(Id::parse("0123456789ab").is_some());
    }
}
