//! What a queue run is asked for: the words behind `-q`, read from a command line or from another program of ours that
//! hands them on to the service.

use super::Usage;
use std::path::PathBuf;
use std::time::Duration;

/// A queue run (`-q`).
#[derive(Debug, Default, PartialEq)]
pub struct Run {
    /// `-C`
    pub config: Option<PathBuf>,
    /// `-qf`: also what is not due.
    pub all: bool,
    /// `-q30m`: stay, with this pause.
    pub every: Option<Duration>,
    /// `-qI`, `-qR`, `-qS`: all of them must hold.
    pub only: Vec<Filter>,
    /// `-v`
    pub verbose: bool,
}

impl Run {
    /// The words that ask the service for the same; it has its own configuration, and no pause. `None` where a white
    /// space stands in one, which no id and hardly an address has.
    pub fn words(&self) -> Option<String> {
        let mut words = String::new();
        if self.all {
            words.push_str(" -qf");
        }
        for Filter { field, text, negated } in &self.only {
            let field = match field {
                Field::Id => 'I',
                Field::Recipient => 'R',
                Field::Sender => 'S',
            };
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return None;
            }
            words.extend([" -q", field.encode_utf8(&mut [0; 4]), if *negated { "!" } else { "" }, text]);
        }
        Some(words)
    }

    /// Reads what [`Run::words`] gave.
    pub fn of_words(words: &str) -> Option<Self> {
        let mut run = Self::default();
        for word in words.split_ascii_whitespace() {
            run.read(word.strip_prefix("-q")?).ok()?;
        }
        run.every.is_none().then_some(run)
    }

    /// The value of `-q`.
    pub(super) fn read(&mut self, value: &str) -> Result<(), Usage> {
        let bad = || Usage::BadValue("-q", value.to_owned());
        // The ! stands before the letter in sendmail's manual, and behind it in older ones.
        let (before, value) = value.strip_prefix('!').map_or((false, value), |rest| (true, rest));
        let field = match value.chars().next() {
            Some('I') => Field::Id,
            Some('R') => Field::Recipient,
            Some('S') => Field::Sender,
            _ if before => return Err(bad()),
            None => return Ok(()),
            Some('f') if value == "f" => {
                self.all = true;
                return Ok(());
            }
            Some(_) => {
                // `-qp30m` is sendmail's persistent runner: to us the same as `-q30m`.
                let time = value.strip_prefix('p').unwrap_or(value);
                self.every = Some(interval(time).ok_or_else(bad)?);
                return Ok(());
            }
        };
        let text = value.get(1..).unwrap_or_default();
        let (negated, text) = text.strip_prefix('!').map_or((before, text), |rest| (true, rest));
        if text.is_empty() {
            return Err(bad());
        }
        self.only.push(Filter { field, text: text.to_lowercase(), negated });
        Ok(())
    }
}

/// A restriction of a queue run.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is looked at.
    pub field: Field,
    /// What it must contain, without case.
    pub text: String,
    /// `!`: must *not* contain.
    pub negated: bool,
}

/// What a [`Filter`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `I`: the queue id.
    Id,
    /// `R`: any recipient that is left.
    Recipient,
    /// `S`: the reverse-path.
    Sender,
}

impl Filter {
    /// Whether a letter's id, reverse-path or one of its recipients passes.
    pub fn takes(&self, id: &str, sender: &str, recipients: &[String]) -> bool {
        let contains = |hay: &str| hay.to_lowercase().contains(&self.text);
        let found = match self.field {
            Field::Id => contains(id),
            Field::Sender => contains(sender),
            Field::Recipient => recipients.iter().any(|recipient| contains(recipient)),
        };
        found != self.negated
    }
}

/// sendmail's time spans: `30m`, `1h30m`, `2d`, `1w`; a bare number counts minutes. Zero is none.
pub(in crate::cli) fn interval(text: &str) -> Option<Duration> {
    let (mut seconds, mut number) = (0_u64, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if let Some(minutes) = number {
        seconds = seconds.checked_add(minutes.checked_mul(60)?)?;
    }
    (seconds > 0 && seconds <= 366 * 86_400).then(|| Duration::from_secs(seconds))
}
