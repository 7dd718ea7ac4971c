//! What a letter's file says beside its content, as text that can be carried elsewhere and told there.
//!
//! The head's lines, an empty line, and the records that count (those whose checksum is right). Every line is printable
//! and none is empty but that one, because the file's words are escaped ones: so the text passes through a protocol of
//! lines as it is. Reading it back is as suspicious as reading the file.

use super::entry::Entry;
use super::history::{self, Event, History};
use super::{Letter, Listed, State};

/// A letter's papers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Papers {
    /// What is being done about it.
    pub state: State,
    text: String,
}

impl Papers {
    /// Head and records, as the file has them.
    pub(super) fn new(state: State, octets: &[u8]) -> Self {
        // A line that is none counts for nothing, here or there.
        Self { state, text: String::from_utf8_lossy(octets).into_owned() }
    }

    /// Takes lines as [`Papers::lines`] gave them.
    pub fn of<'l>(state: State, lines: impl Iterator<Item = &'l str>) -> Self {
        let mut text = String::new();
        for line in lines {
            text.push_str(line);
            text.push('\n');
            if line.starts_with("content ") {
                text.push('\n');
            }
        }
        Self { state, text }
    }

    /// The lines that say something.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.is_empty() && !line.contains(|c: char| c.is_control()))
    }

    /// The letter; `None` where this is none.
    pub fn listed(&self) -> Option<Listed> {
        let (entry, records) = self.read()?;
        let history = History::new(entry.created, entry.envelope.recipients().len());
        let history = history.read(entry.id, records.as_bytes());
        Some(Listed { letter: Letter { entry, history }, state: self.state })
    }

    /// Everything that has happened to it, in its order.
    pub fn events(&self) -> Vec<Event> {
        self.read().map_or_else(Vec::new, |(entry, records)| {
            history::events(entry.id, records.as_bytes(), entry.envelope.recipients().len()).collect()
        })
    }

    fn read(&self) -> Option<(Entry, &str)> {
        let head = self.text.find("\n\n")? + 2;
        Some((Entry::parse(&self.text[..head])?, &self.text[head..]))
    }
}
