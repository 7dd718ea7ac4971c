//! Doors for the fuzz targets in tests/fuzz, which no other build has: a letter's file without a queue around it.

use std::fs::File;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};

use super::history::Event;
use super::letter::Stored;
use super::{Entry, History, Id, Letter, Tried, seal};

/// A head as text.
pub fn head(entry: &Entry) -> String {
    entry.to_text()
}

/// A text as a head.
pub fn entry(text: &str) -> Option<Entry> {
    Entry::parse(text)
}

/// Head, content and seal, as they lie in a letter's file.
pub fn sealed(entry: &Entry, content: &[u8]) -> Vec<u8> {
    let mut file = head(entry).into_bytes();
    file.extend_from_slice(content);
    let seal = seal::line(&digest(&SHA256, &file));
    file.extend_from_slice(seal.as_bytes());
    file
}

/// The records of one attempt at a letter of which nothing else is known, a line each.
pub fn records(entry: &Entry, tried: &[Tried<'_>], attempt: u32, at: SystemTime) -> Vec<String> {
    let fresh = History::new(entry.created, entry.envelope.recipients().len());
    let begun = Event::Begun { at, attempt };
    let outcomes = fresh.outcomes(tried, attempt, at);
    let late = Event::Late { at };
    let held = Event::Held { at, why: entry.account.clone().unwrap_or_default() };
    let told = Event::Told { at, whom: fresh.waiting() };
    let events = std::iter::once(begun).chain(outcomes).chain([late, held, told]);
    events.map(|event| format!("\n{}", event.to_line(entry.id))).collect()
}

/// What records add up to.
pub fn history(entry: &Entry, records: &[u8]) -> History {
    History::new(entry.created, entry.envelope.recipients().len()).read(entry.id, records)
}

/// The record of such words, with the checksum that belongs to them.
pub fn record(id: Id, words: &str) -> String {
    super::history::with_checksum(id, words)
}

/// The letter with what an attempt meant for each of its recipients.
pub fn letter(entry: Entry, tried: &[Tried<'_>], attempt: u32, at: SystemTime) -> Letter {
    let mut history = History::new(entry.created, entry.envelope.recipients().len());
    history.apply_all(&history.outcomes(tried, attempt, at));
    Letter { entry, history }
}

/// Reads a letter's file of so many octets; `None` where it is no letter, or is not what it was.
pub fn read(file: &File, len: u64, id: Id) -> Option<Letter> {
    let stored = Stored::read(file.try_clone().ok()?, len, id).ok()?;
    stored.verify().ok()?;
    Some(stored.letter)
}
