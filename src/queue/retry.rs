//! When to try again, and when to give up: pure functions of attempts and times.
//!
//! First after a minute, then doubling to a ceiling of four hours, each a little early by an amount that differs from
//! letter to letter, so that letters deferred together do not come back together. A clock that jumps does no harm: an
//! age is never negative and grows by no more than [`longest_gap`] at a time, and no attempt is further away than the
//! ceiling.

use std::time::{Duration, SystemTime};

/// The wait after the first attempt.
pub const FIRST: Duration = Duration::from_mins(1);

/// The longest wait between two attempts.
pub const CEILING: Duration = Duration::from_hours(4);

/// When attempt number `attempts + 1` is due, the last one having been made at `last`.
///
/// `seed` is any number that differs from letter to letter. With a `last` that lies in the future (the clock was set
/// back) it is due at once: a wait from `now` would never be over, and one from `last` perhaps in years.
pub fn next(attempts: u32, last: SystemTime, now: SystemTime, seed: u64) -> SystemTime {
    if last > now { now } else { last + wait(attempts, seed) }
}

/// The wait after attempt number `attempts`: 90 to 100 % of the schedule's.
fn wait(attempts: u32, seed: u64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let full = (FIRST * (1 << doublings)).min(CEILING);
    let early = u32::try_from(mix(seed ^ u64::from(attempts)) % 1000).unwrap_or(0);
    full.saturating_sub(full / 10 * early / 1000)
}

/// Spreads neighbouring numbers (the finisher of Steele, Lea and Flood's `SplitMix64`).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The most that a time in which nobody touched a letter counts for its lifetime. Neither a machine that was off for
/// weeks nor a clock that jumps by years makes a letter old by itself: five such times at the least do. What the
/// schedule itself waits always counts in full.
pub fn longest_gap(lifetime: Duration) -> Duration {
    (lifetime / 5).max(CEILING)
}

/// How old a letter is; a letter from the future has just arrived.
pub fn age(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn the_first_retry_comes_after_a_minute_and_the_waits_double_to_four_hours() {
        let minutes = [1, 2, 4, 8, 16, 32, 64, 128, 240, 240];
        for (attempt, full) in (1..).zip(minutes) {
            let full = Duration::from_secs(full * 60);
            for seed in 0..50 {
                let wait = wait(attempt, seed);
                assert!(wait <= full && wait >= full / 10 * 9, "{attempt}: {wait:?}");
            }
        }
    }

    #[test]
    fn letters_deferred_together_do_not_come_back_together() {
        let waits: std::collections::HashSet<Duration> = (0..100).map(|seed| wait(5, seed)).collect();
        assert!(waits.len() > 80);
    }

    proptest! {
        #[test]
        fn no_jump_of_the_clock_puts_an_attempt_out_of_reach(
            attempts in any::<u32>(), last in 0_u64..4_000_000_000, now in 0_u64..4_000_000_000, seed in any::<u64>()
        ) {
            let next = next(attempts, at(last), at(now), seed);
            prop_assert!(next <= at(now) + CEILING);
            prop_assert!(next >= at(last.min(now)));
            prop_assert!(last <= now || next == at(now), "a wait that begins in the future may never end");
        }
    }
}
