//! Which letters are meant, where they are not named: by sender, recipient, account, state and age.

use super::place::Row;
use crate::cli::meaning;
use crate::queue::{State, retry};
use std::time::{Duration, SystemTime};

/// What letters must have in common; all of it. Text is looked for anywhere, whatever its case.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Only {
    /// Only those whose reverse-path contains this.
    #[arg(long, value_name = "TEXT")]
    pub sender: Option<String>,
    /// Only those with a recipient left that contains this.
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,
    /// Only those that go through this account.
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Only those in this state: incoming, active, deferred, hold or failed.
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<State>,
    /// Only those that came longer ago, as 30m, 12h or 3d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older: Option<Duration>,
    /// Only those that came within this time.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub newer: Option<Duration>,
}

fn state(word: &str) -> Result<State, String> {
    State::parse(word).ok_or_else(|| {
        let known: Vec<String> = State::ALL.iter().map(ToString::to_string).collect();
        format!("there is {}", known.join(", "))
    })
}

fn age(word: &str) -> Result<Duration, String> {
    meaning::interval(word).ok_or_else(|| "an age is a number and s, m, h, d or w".to_owned())
}

impl Only {
    /// Whether nothing is asked.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a letter is meant.
    pub fn takes(&self, Row { listed, accounts }: &Row, now: SystemTime) -> bool {
        let (entry, history) = (&listed.letter.entry, &listed.letter.history);
        let has = |text: &str, wanted: &str| text.to_lowercase().contains(&wanted.to_lowercase());
        let left = if listed.state == State::Failed { history.failed() } else { history.waiting() };
        let age = retry::age(entry.created, now);
        self.sender.as_ref().is_none_or(|wanted| has(&entry.envelope.reverse_path().to_string(), wanted))
            && self
                .recipient
                .as_ref()
                .is_none_or(|wanted| left.iter().any(|&n| has(&listed.letter.recipient(n).mailbox.to_string(), wanted)))
            && self.account.as_ref().is_none_or(|wanted| accounts.contains(wanted))
            && self.state.is_none_or(|wanted| listed.state == wanted)
            && self.older.is_none_or(|wanted| age > wanted)
            && self.newer.is_none_or(|wanted| age <= wanted)
    }
}
