//! What has become of a letter so far: the records behind its seal, and what they add up to.
//!
//! Records are only ever appended, a line each, with a checksum that also covers the letter's id: a line that a crash
//! cut short, or that came from another letter, counts as never written. So does a line of unknown meaning.
//! ```text
//! begun 1790000000000 1
//! outcome 1790000000900 1 0-2,4 smtp.example.com:587 deferred 4.7.1 rcpt relay reply 451 4.7.1%20try%20later
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256};

use super::outcome_words;
use super::words::{escape, millis, numbers, ranges, time, unescape};
use super::{Id, Tried, retry};
use crate::outcome::Outcome;

/// Attempts in a row that ended without an outcome before the letter is held: something in it kills whoever sends it.
const POISON: u32 = 3;

/// Something that happened to a letter: `at` is when, `whom` the numbers of the recipients that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the two fields that all have are told above")]
pub enum Event {
    /// An attempt is about to say MAIL FROM. Without an outcome
    /// behind it, it crashed and the relay may have the letter.
    Begun { at: SystemTime, attempt: u32 },
    /// What an attempt meant for these recipients.
    Outcome { whom: Vec<usize>, verdict: Arc<Verdict> },
    /// A report on these recipients is about to be accepted under this id.
    Reporting { at: SystemTime, id: Id, whom: Vec<usize> },
    /// The sender knows about these recipients, or is not to be told.
    Told { at: SystemTime, whom: Vec<usize> },
    /// The sender was told, or is about to be, that the letter is late.
    Late { at: SystemTime },
    /// No attempts until it is released.
    Held { at: SystemTime, why: String },
    /// Attempts again.
    Released { at: SystemTime },
    /// Start afresh for everybody who does not have it.
    Revived { at: SystemTime },
}

/// One attempt's outcome for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// When.
    pub at: SystemTime,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The relay, as the attempt's `Report` named it.
    pub relay: String,
    /// What it meant.
    pub outcome: Outcome,
}

/// The sum of a letter's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    since: SystemTime,
    /// When something last happened.
    seen: SystemTime,
    /// The time from `since` to then without the `gaps`: times in
    /// which nothing happened for longer than the schedule waits.
    waited: Duration,
    gaps: Vec<Duration>,
    recipients: Vec<Fate>,
    attempts: u32,
    last: Option<SystemTime>,
    /// Attempts begun since the last outcome.
    unfinished: u32,
    hold: Option<String>,
    late: bool,
    reporting: Option<(Id, Vec<usize>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fate {
    last: Option<Arc<Verdict>>,
    told: bool,
}

impl Fate {
    fn is_waiting(&self) -> bool {
        self.last.as_ref().is_none_or(|verdict| !verdict.outcome.is_final())
    }

    fn has_failed(&self) -> bool {
        self.last.as_ref().is_some_and(|verdict| matches!(verdict.outcome, Outcome::Failed { .. }))
    }
}

impl History {
    /// Nothing has happened yet to a letter for `count` recipients.
    pub(super) fn new(created: SystemTime, count: usize) -> Self {
        Self {
            since: created,
            seen: created,
            waited: Duration::ZERO,
            gaps: Vec::new(),
            recipients: vec![Fate::default(); count],
            attempts: 0,
            last: None,
            unfinished: 0,
            hold: None,
            late: false,
            reporting: None,
        }
    }

    /// Adds up the records of a letter's file.
    pub(super) fn read(mut self, id: Id, records: &[u8]) -> Self {
        let count = self.recipients.len();
        events(id, records, count).for_each(|event| self.apply(&event));
        self
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let at = event.at();
        // A clock that was set back has stood still.
        match at.duration_since(self.seen).unwrap_or_default() {
            gap if gap > retry::CEILING => self.gaps.push(gap),
            gap => self.waited += gap,
        }
        self.seen = at;
        match event {
            Event::Begun { at, attempt } => {
                self.attempts = *attempt;
                self.last = Some(*at);
                self.unfinished += 1;
            }
            Event::Outcome { whom, verdict } => {
                self.attempts = verdict.attempt;
                self.last = Some(verdict.at);
                self.unfinished = 0;
                for &i in whom {
                    self.recipients[i].last = Some(Arc::clone(verdict));
                }
            }
            Event::Reporting { id, whom, .. } => self.reporting = Some((*id, whom.clone())),
            Event::Told { whom, .. } => {
                self.reporting = None;
                for &i in whom {
                    self.recipients[i].told = true;
                }
            }
            Event::Late { .. } => self.late = true,
            Event::Held { why, .. } => self.hold = Some(why.clone()),
            Event::Released { .. } => (self.hold, self.unfinished) = (None, 0),
            Event::Revived { at } => self.revive(*at),
        }
    }

    pub(super) fn apply_all(&mut self, events: &[Event]) {
        for event in events {
            self.apply(event);
        }
    }

    fn revive(&mut self, at: SystemTime) {
        let fresh = Self::new(at, self.recipients.len());
        let before = std::mem::replace(self, fresh);
        for (fate, old) in self.recipients.iter_mut().zip(before.recipients) {
            if !old.is_waiting() && !old.has_failed() {
                *fate = old;
            }
        }
    }

    /// The numbers of the recipients for whom another attempt is to be made.
    pub fn waiting(&self) -> Vec<usize> {
        self.those(Fate::is_waiting)
    }

    /// The numbers of the recipients who will not get it and of whom the sender does not know yet.
    pub fn unreported(&self) -> Vec<usize> {
        self.those(|fate| fate.has_failed() && !fate.told)
    }

    /// The numbers of the recipients who will not get it.
    pub fn failed(&self) -> Vec<usize> {
        self.those(Fate::has_failed)
    }

    /// The events that record an attempt: one outcome for each
    /// waiting recipient; recipients that fared alike share one.
    pub(super) fn outcomes(&self, tried: &[Tried<'_>], attempt: u32, at: SystemTime) -> Vec<Event> {
        let mut groups: Vec<(&Tried<'_>, Vec<usize>)> = Vec::new();
        for (number, one) in self.waiting().into_iter().zip(tried) {
            let alike = |known: &Tried<'_>| known.outcome == one.outcome && known.relay == one.relay;
            match groups.iter_mut().find(|(known, _)| alike(known)) {
                Some((_, whom)) => whom.push(number),
                None => groups.push((one, vec![number])),
            }
        }
        let event = |(one, whom): (&Tried<'_>, _)| {
            let verdict = Verdict { at, attempt, relay: one.relay.to_owned(), outcome: one.outcome.clone() };
            Event::Outcome { whom, verdict: Arc::new(verdict) }
        };
        groups.into_iter().map(event).collect()
    }

    fn those(&self, wanted: impl Fn(&Fate) -> bool) -> Vec<usize> {
        self.recipients.iter().enumerate().filter(|(_, fate)| wanted(fate)).map(|(i, _)| i).collect()
    }

    /// The last outcome for a recipient by its number.
    pub fn verdict(&self, recipient: usize) -> Option<&Verdict> {
        self.recipients.get(recipient)?.last.as_deref()
    }

    /// Attempts so far, since the letter came or was brought back.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When the last attempt was made.
    pub fn last_attempt(&self) -> Option<SystemTime> {
        self.last
    }

    /// Since when its lifetime counts: its arrival, or when it was brought back.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// How much of its lifetime it has had: the time since then, but of a time in which nothing happened only `gap`, by
    /// whose clock ever. `gap` is at least [`retry::CEILING`].
    pub fn age(&self, now: SystemTime, gap: Duration) -> Duration {
        let last = now.duration_since(self.seen).unwrap_or_default();
        self.gaps.iter().chain([&last]).fold(self.waited, |age, &one| age.saturating_add(one.min(gap)))
    }

    /// Why no attempts are made, where it is on hold.
    pub fn hold(&self) -> Option<&str> {
        self.hold.as_deref()
    }

    /// Whether the sender was told that it is late.
    pub fn told_late(&self) -> bool {
        self.late
    }

    /// An attempt was begun and nothing is known of its end: it
    /// is going on, or it died and the relay may have the letter.
    pub fn is_open(&self) -> bool {
        self.unfinished > 0
    }

    /// So many attempts died in a row that the letter itself must be what kills them.
    pub(super) fn is_poisoned(&self) -> bool {
        self.unfinished >= POISON
    }

    /// The report that was about to be accepted when whoever did it died.
    pub(super) fn reporting(&self) -> Option<(Id, &[usize])> {
        self.reporting.as_ref().map(|(id, whom)| (*id, whom.as_slice()))
    }

    /// When the next attempt is due: at once where there was none yet or a failure is still to be reported.
    pub fn next_attempt(&self, id: Id, now: SystemTime) -> SystemTime {
        match self.last {
            Some(last) if self.unreported().is_empty() && !self.waiting().is_empty() => {
                retry::next(self.attempts, last, now, id.seed())
            }
            _ => self.since.min(now),
        }
    }
}

/// The records of a file of a letter for `count` recipients; what is none is passed over.
pub(super) fn events(id: Id, records: &[u8], count: usize) -> impl Iterator<Item = Event> + '_ {
    let lines = records.split(|&octet| octet == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(move |line| Event::from_line(id, line, count))
}

impl Event {
    /// When it happened.
    fn at(&self) -> SystemTime {
        match self {
            Self::Outcome { verdict, .. } => verdict.at,
            Self::Begun { at, .. }
            | Self::Reporting { at, .. }
            | Self::Told { at, .. }
            | Self::Late { at }
            | Self::Held { at, .. }
            | Self::Released { at }
            | Self::Revived { at } => *at,
        }
    }

    /// The record as it is appended, with its line end.
    pub(super) fn to_line(&self, id: Id) -> String {
        let words = match self {
            Self::Begun { at, attempt } => format!("begun {} {attempt}", millis(*at)),
            Self::Outcome { whom, verdict } => {
                let Verdict { at, attempt, relay, outcome } = verdict.as_ref();
                let (whom, relay, outcome) = (ranges(whom), escape(relay), outcome_words::write(outcome));
                format!("outcome {} {attempt} {whom} {relay} {outcome}", millis(*at))
            }
            Self::Reporting { at, id, whom } => format!("reporting {} {id} {}", millis(*at), ranges(whom)),
            Self::Told { at, whom } => format!("told {} {}", millis(*at), ranges(whom)),
            Self::Late { at } => format!("late {}", millis(*at)),
            Self::Held { at, why } => format!("held {} {}", millis(*at), escape(why)),
            Self::Released { at } => format!("released {}", millis(*at)),
            Self::Revived { at } => format!("revived {}", millis(*at)),
        };
        with_checksum(id, &words)
    }

    fn from_line(id: Id, line: &str, count: usize) -> Option<Self> {
        let (sum, words) = line.split_once(' ')?;
        if sum != checksum(id, words) {
            return None;
        }
        let words: Vec<&str> = words.split(' ').collect();
        let (&[kind, at], rest) = words.split_first_chunk::<2>()?;
        let at = time(at)?;
        Some(match (kind, rest) {
            ("begun", [attempt]) => Self::Begun { at, attempt: attempt.parse().ok()? },
            ("outcome", [attempt, whom, relay, outcome @ ..]) => {
                let (attempt, relay) = (attempt.parse().ok()?, unescape(relay)?);
                let verdict = Verdict { at, attempt, relay, outcome: outcome_words::read(outcome)? };
                Self::Outcome { whom: numbers(whom, count)?, verdict: Arc::new(verdict) }
            }
            ("reporting", [id, whom]) => Self::Reporting { at, id: Id::of_file(id)?, whom: numbers(whom, count)? },
            ("told", [whom]) => Self::Told { at, whom: numbers(whom, count)? },
            ("late", []) => Self::Late { at },
            ("held", [why]) => Self::Held { at, why: unescape(why)? },
            ("released", []) => Self::Released { at },
            ("revived", []) => Self::Revived { at },
            _ => return None,
        })
    }
}

/// The record of these words, as a line.
pub(super) fn with_checksum(id: Id, words: &str) -> String {
    format!("{} {words}\n", checksum(id, words))
}

/// Sixteen digits of SHA-256: against crashes and swapped files,
/// not against an attacker (who owns the directory anyway).
fn checksum(id: Id, words: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(id.to_string().as_bytes());
    context.update(words.as_bytes());
    let mut sum = super::seal::hex(context.finish().as_ref());
    sum.truncate(16);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Blame, Cause, Fault, Reply, Stage, Status};
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000 + secs)
    }

    fn id() -> Id {
        Id::parse("0123456789AB").unwrap()
    }

    fn outcome(secs: u64, attempt: u32, whom: &[usize], outcome: Outcome) -> Event {
        let verdict = Verdict { at: at(secs), attempt, relay: "smtp.example.com:587".to_owned(), outcome };
        Event::Outcome { whom: whom.to_vec(), verdict: Arc::new(verdict) }
    }

    fn relayed() -> Outcome {
        Outcome::Relayed(Reply { code: 250, lines: vec!["2.0.0 ok".to_owned()] })
    }

    fn refused() -> Outcome {
        let fault =
            Fault::new(Stage::Rcpt, Cause::Reply(Reply { code: 550, lines: vec!["5.1.1 no\r\nsuch".to_owned()] }));
        Outcome::Failed { fault, blame: Blame::Recipient, status: Status::new(5, 1, 1) }
    }

    fn deferred() -> Outcome {
        let fault = Fault::new(Stage::Connect, Cause::Network("connection refused".to_owned()));
        Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 4, 1), maybe_duplicate: false }
    }

    fn all_events() -> Vec<Event> {
        vec![
            Event::Begun { at: at(1), attempt: 1 },
            outcome(2, 1, &[0, 2], relayed()),
            outcome(2, 1, &[1], refused()),
            Event::Reporting { at: at(3), id: Id::parse("0123456789AC").unwrap(), whom: vec![1] },
            Event::Told { at: at(4), whom: vec![1] },
            Event::Late { at: at(5) },
            Event::Held { at: at(6), why: "by the administrator".to_owned() },
            Event::Released { at: at(7) },
            Event::Revived { at: at(8) },
        ]
    }

    fn text(events: &[Event]) -> String {
        events.iter().flat_map(|event| ["\n".to_owned(), event.to_line(id())]).collect()
    }

    fn sum(events: &[Event], count: usize) -> History {
        let mut history = History::new(at(0), count);
        history.apply_all(events);
        history
    }

    #[test]
    fn every_event_reads_back() {
        for event in all_events() {
            let line = event.to_line(id());
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.contains(['\n', '\r']), "{line}");
            assert_eq!(Event::from_line(id(), line, 3), Some(event));
        }
    }

    #[test]
    fn a_record_of_another_letter_counts_for_nothing() {
        let line = Event::Late { at: at(1) }.to_line(id());
        assert_eq!(Event::from_line(id().next(), line.trim_end(), 3), None);
    }

    #[test]
    fn a_record_cut_at_any_octet_is_as_if_never_written_and_spoils_none_behind_it() {
        let (before, cut, after) =
            (text(&[outcome(1, 1, &[0], relayed())]), text(&[outcome(2, 2, &[1], refused())]), {
                text(&[Event::Late { at: at(3) }])
            });
        // The last octet is the line end: without it the record is whole all the same.
        for end in 0..cut.len() - 1 {
            let zeroed = "\0".repeat(cut.len() - end);
            for tail in ["", zeroed.as_str()] {
                let records = format!("{before}{}{tail}{after}", &cut[..end]);
                let history = History::new(at(0), 2).read(id(), records.as_bytes());
                assert_eq!(
                    (history.waiting(), history.failed(), history.told_late()),
                    (vec![1], vec![], true),
                    "{end}"
                );
            }
        }
    }

    #[test]
    fn who_is_left_is_who_has_no_final_outcome() {
        let events = [outcome(1, 1, &[0], relayed()), outcome(1, 1, &[1], refused()), outcome(1, 1, &[2], deferred())];
        let history = sum(&events, 4);
        assert_eq!(history.waiting(), [2, 3]);
        assert_eq!(history.failed(), [1]);
        assert_eq!(history.unreported(), [1]);
        assert_eq!(history.next_attempt(id(), at(1)), at(0), "a failure to report is due at once");
    }

    #[test]
    fn a_revived_letter_starts_afresh_but_not_for_those_who_have_it() {
        let history = sum(&all_events(), 3);
        assert_eq!((history.waiting(), history.failed()), (vec![1], vec![]));
        assert_eq!((history.attempts(), history.since(), history.told_late()), (0, at(8), false));
    }

    #[test]
    fn neither_a_jump_of_the_clock_nor_a_machine_that_was_off_makes_a_letter_old() {
        let (hour, years) = (3600, 30 * 365 * 86_400);
        let (lifetime, gap) = (Duration::from_hours(5 * 24), retry::longest_gap(Duration::from_hours(5 * 24)));
        assert_eq!(gap, Duration::from_hours(24));
        // Tried at every full schedule's wait, it is as old as it is.
        let attempts = |from: u64| (1..=10).map(move |n| outcome(from + n * 4 * hour, 1, &[0], deferred()));
        let steady: Vec<Event> = attempts(0).collect();
        assert_eq!(sum(&steady, 1).age(at(41 * hour), gap), Duration::from_hours(41));
        // Accepted by a clock that was not set yet, and tried when it was.
        let jumped: Vec<Event> = attempts(years).collect();
        assert_eq!(sum(&[], 1).age(at(years), gap), gap);
        assert_eq!(sum(&jumped, 1).age(at(years + 40 * hour), gap), gap + Duration::from_hours(36));
        // The other way round: it grows older by the clock that is set back.
        let back: Vec<Event> = attempts(years).chain(attempts(0)).collect();
        let history = sum(&back, 1);
        assert!(history.age(at(0), gap) < lifetime);
        assert_eq!(history.age(at(40 * hour), gap), gap + Duration::from_hours(36 + 36));
        // Five machines' holidays are enough.
        let off: Vec<Event> = (1..=5).map(|n| outcome(n * 40 * 24 * hour, 1, &[0], deferred())).collect();
        assert!(sum(&off[..4], 1).age(at(160 * 24 * hour), gap) < lifetime);
        assert!(sum(&off, 1).age(at(200 * 24 * hour), gap) >= lifetime);
        // A letter that was brought back begins anew.
        let revived = [&off[..], &[Event::Revived { at: at(201 * 24 * hour) }]].concat();
        assert_eq!(sum(&revived, 1).age(at(201 * 24 * hour + 5), gap), Duration::from_secs(5));
    }

    #[test]
    fn three_attempts_that_died_poison_a_letter_until_it_is_released() {
        let died: Vec<Event> = (1..=3).map(|attempt| Event::Begun { at: at(1), attempt }).collect();
        assert!(!sum(&died[..2], 1).is_poisoned());
        assert!(sum(&died, 1).is_poisoned());
        let mut released = died.clone();
        released.push(Event::Released { at: at(2) });
        assert!(!sum(&released, 1).is_poisoned());
        let answered = [&died[..2], &[outcome(2, 2, &[0], deferred())], &died[..1]].concat();
        assert!(!sum(&answered, 1).is_poisoned());
    }

    proptest! {
        #[test]
        fn junk_between_records_changes_nothing(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
            let clean = History::new(at(0), 3).read(id(), text(&all_events()).as_bytes());
            let mut records = junk;
            records.extend_from_slice(text(&all_events()).as_bytes());
            prop_assert_eq!(History::new(at(0), 3).read(id(), &records), clean);
        }
    }
}
