//! Letters that show whether anything of them is missing: numbered lines and, at the end, how many there are.

use std::fmt::Write;

use crate::sink::Taken;

/// Who sends them, unless a test says otherwise.
pub const SENDER: &str = "alice@example.org";

/// A letter to hand in.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Tells it from all others.
    pub token: String,
    /// The reverse-path.
    pub sender: String,
    /// The recipients.
    pub to: Vec<String>,
    /// Its lines.
    pub lines: usize,
    /// Octets that the last of them is longer by.
    pub padding: usize,
}

impl Letter {
    /// A letter with so many lines to these people at example.com.
    pub fn new(token: impl Into<String>, to: &[&str], lines: usize) -> Self {
        let to = to.iter().map(|local| format!("{local}@example.com")).collect();
        Self { token: token.into(), sender: SENDER.to_owned(), to, padding: 0, lines }
    }

    /// The words that hand it in.
    pub fn words(&self, mode: &str) -> Vec<String> {
        let mut words = vec![mode.to_owned(), "-i".to_owned(), "-f".to_owned(), self.sender.clone(), "--".to_owned()];
        words.extend(self.to.iter().cloned());
        words
    }

    /// The octets to hand in. Nothing needs to be added to them, so that what arrives can be compared.
    pub fn text(&self) -> String {
        let Self { token, sender, .. } = self;
        let mut text = format!(
            "From: <{sender}>\nTo: undisclosed-recipients:;\nSubject: {token}\n\
             Date: Tue, 24 Nov 2026 12:00:00 +0000\nMessage-ID: <{token}@example.org>\n\n"
        );
        for line in 0..self.lines {
            let _ = writeln!(text, "{line:06} of the letter {token}, which nobody may cut short");
        }
        let _ = writeln!(text, "{} lines, and no more{}", self.lines, "!".repeat(self.padding));
        text
    }

    /// Whether this is it, or was meant to be.
    pub fn is(&self, taken: &Taken) -> bool {
        self.is_whole(&taken.content) || contains(&taken.content, &format!("Message-ID: <{}@", self.token))
    }

    /// Whether the octets are all of it and nothing else.
    pub fn is_whole(&self, content: &[u8]) -> bool {
        content == self.text().replace('\n', "\r\n").as_bytes()
    }

    /// How often a recipient has it.
    pub fn copies(&self, taken: &[Taken], to: &str) -> usize {
        taken.iter().filter(|one| one.to == to && !one.from.is_empty() && self.is(one)).count()
    }

    /// How many reports on it went to its sender.
    pub fn reports(&self, taken: &[Taken]) -> usize {
        let is_report = |one: &&Taken| one.from.is_empty() && one.to == self.sender && self.is(one);
        taken.iter().filter(is_report).count()
    }

    /// How many of its copies are not as they were handed in.
    pub fn damaged(&self, taken: &[Taken]) -> usize {
        taken.iter().filter(|one| !one.from.is_empty() && self.is(one) && !self.is_whole(&one.content)).count()
    }
}

fn contains(octets: &[u8], text: &str) -> bool {
    memchr::memmem::find(octets, text.as_bytes()).is_some()
}
