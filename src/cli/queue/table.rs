//! The queue as a table: one line a letter where there is room for it, else two.
//!
//! On a terminal lines are cut to its width, and what matters has a colour unless `NO_COLOR` is set or the terminal has
//! none. Elsewhere nothing is cut and nothing coloured, so that `grep` and a person find all of it on one line.

use super::letter::{answer, next, short, size, span};
use super::place::{Row, Rows};
use crate::cli::host;
use crate::outcome::printable;
use crate::queue::{Listed, State, Verdict, retry};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::SystemTime;

/// From so many columns on a letter is one line.
const WIDE: usize = 110;

/// Where a table is shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Columns; `None` where lines have no end.
    pub width: Option<usize>,
    pub colour: bool,
}

/// A way to write; nothing where there is no colour.
#[derive(Clone, Copy)]
pub enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl View {
    /// Standard output's.
    pub fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self { width: None, colour: false };
        }
        let is_dumb = host::variable("TERM").is_none_or(|term| term == "dumb");
        let colour = !is_dumb && host::variable("NO_COLOR").is_none();
        Self { width: Some(window().0), colour }
    }

    pub fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Red => 31,
            Ink::Green => 32,
            Ink::Yellow => 33,
        };
        if self.colour && !text.trim().is_empty() { format!("\x1b[{code}m{text}\x1b[m") } else { text.to_owned() }
    }

    pub fn is_wide(self) -> bool {
        self.width.is_none_or(|width| width >= WIDE)
    }
}

/// Columns and lines of the terminal at standard output.
pub fn window() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(found) if found.ws_col > 0 && found.ws_row > 0 => (found.ws_col.into(), found.ws_row.into()),
        _ => (80, 24),
    }
}

/// The text in at most so many columns; a cut shows.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// The whole table.
pub fn table(found: &Rows, view: View, now: SystemTime) -> String {
    if found.letters.is_empty() {
        return "The queue is empty.\n".to_owned() + &strangers(found);
    }
    let lines: Vec<Line> = found.letters.iter().map(|row| Line::of(row, now)).collect();
    let widest = |text: fn(&Line) -> &str, most: usize| {
        let found = lines.iter().map(|line| text(line).chars().count()).max().unwrap_or_default();
        if view.width.is_some() { found.min(most) } else { found }.max(4)
    };
    // What the answers get is what is left by FROM and TO, which give way where they can.
    let (from, to) = if view.is_wide() {
        (widest(|line| &line.from, 26), widest(|line| &line.to, 30))
    } else {
        (usize::MAX, widest(|line| &line.to, 34))
    };
    let mut text = heading(view, from, to);
    for line in &lines {
        line.write(&mut text, view, from, to);
    }
    text + &total(found) + "\n" + &strangers(found)
}

fn heading(view: View, from: usize, to: usize) -> String {
    let fixed = format!("{:<12}  {:>4}  {:>8}  {:>5}  {:>5}  ", "ID", "AGE", "NEXT", "LEFT", "SIZE");
    if view.is_wide() {
        return view.ink(Ink::Bold, &format!("{fixed}{:<from$}  {:<to$}  LAST ANSWER", "FROM", "TO")) + "\n";
    }
    view.ink(Ink::Bold, &format!("{fixed}FROM"))
        + "\n"
        + &view.ink(Ink::Bold, &format!("  → {:<to$}  LAST ANSWER", "TO"))
        + "\n"
}

/// How much there is, in a line.
pub fn total(found: &Rows) -> String {
    let letters = found.letters.len();
    let left: usize = found.letters.iter().map(|row| left(&row.listed).len()).sum();
    let octets = found.letters.iter().map(|row| row.listed.letter.entry.size).sum();
    let plural = |count| if count == 1 { "" } else { "s" };
    format!("{letters} letter{}, {left} recipient{} left, {}", plural(letters), plural(left), size(octets))
}

fn strangers(found: &Rows) -> String {
    found.corrupt.iter().fold(String::new(), |mut text, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "corrupt/{}", printable(line));
        text
    })
}

/// The numbers of the recipients that a letter in the table is about.
fn left(listed: &Listed) -> Vec<usize> {
    let history = &listed.letter.history;
    if listed.state == State::Failed { history.failed() } else { history.waiting() }
}

/// What a table shows of a letter.
struct Line {
    id: String,
    age: String,
    next: String,
    left: String,
    size: String,
    from: String,
    to: String,
    /// The whole answer, and what is said of it where there is little room.
    answer: (String, String),
    state: State,
}

impl Line {
    fn of(Row { listed, .. }: &Row, now: SystemTime) -> Self {
        let (entry, history) = (&listed.letter.entry, &listed.letter.history);
        let numbers = left(listed);
        let (all, some) = (entry.envelope.recipients().len(), numbers.len());
        let first = numbers.first().map(|&n| printable(&listed.letter.recipient(n).mailbox.to_string()));
        let more = if some > 1 { format!(" and {} more", some - 1) } else { String::new() };
        let verdicts: Vec<&Verdict> = numbers.iter().filter_map(|&n| history.verdict(n)).collect();
        let answers: HashSet<String> = verdicts.iter().map(|verdict| answer(verdict)).collect();
        let others = if answers.len() > 1 { format!(" (and {} more)", answers.len() - 1) } else { String::new() };
        let last = verdicts.iter().max_by_key(|verdict| verdict.at);
        let words = |text: fn(&Verdict) -> String| match (history.hold(), last) {
            (Some(why), _) => format!("held: {}", printable(why)),
            (None, Some(verdict)) => text(verdict) + &others,
            (None, None) => String::new(),
        };
        Self {
            id: entry.id.to_string(),
            age: span(retry::age(entry.created, now)),
            next: next(listed, now),
            left: if some == all { some.to_string() } else { format!("{some}/{all}") },
            size: size(entry.size),
            from: match entry.envelope.reverse_path() {
                path if path.is_null() => "<>".to_owned(),
                path => printable(&path.to_string()),
            },
            to: first.unwrap_or_default() + &more,
            answer: (words(answer), words(short)),
            state: listed.state,
        }
    }

    fn write(&self, text: &mut String, view: View, from: usize, to: usize) {
        let next = format!("{:>8}", self.next);
        let next = match self.state {
            State::Active => view.ink(Ink::Green, &next),
            State::Hold => view.ink(Ink::Yellow, &next),
            State::Failed => view.ink(Ink::Red, &next),
            State::Incoming | State::Deferred => next,
        };
        let fixed = format!("{:<12}  {:>4}  {next}  {:>5}  {:>5}  ", self.id, self.age, self.left, self.size);
        let room = |taken: usize| view.width.map_or(usize::MAX, |width| width.saturating_sub(taken));
        let to_padded = format!("{:<to$}", who(&self.to, to));
        let (whole, short) = &self.answer;
        let answer = |taken| view.ink(Ink::Dim, &cut(if view.width.is_none() { whole } else { short }, room(taken)));
        let line = if view.is_wide() {
            let answer = answer(44 + from + 2 + to + 2);
            format!("{fixed}{:<from$}  {to_padded}  {answer}", cut(&self.from, from))
        } else {
            let from = cut(&self.from, room(44));
            format!("{fixed}{from}\n  → {to_padded}  {}", answer(4 + to + 2))
        };
        for line in line.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

/// A recipient in so many columns; how many others there are is not cut off.
fn who(to: &str, width: usize) -> String {
    match to.split_once(" and ") {
        Some((first, more)) if to.chars().count() > width => {
            let more = format!(" and {more}");
            cut(first, width.saturating_sub(more.chars().count())) + &more
        }
        _ => cut(to, width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_shows_and_spares_what_counts() {
        assert_eq!((&*cut("alice", 5), &*cut("alice", 4), &*cut("äöü", 2), &*cut("a", 0)), ("alice", "ali…", "ä…", ""));
        assert_eq!(who("bob@example.com and 12 more", 20), "bob@exa… and 12 more");
        assert_eq!(who("bob@example.com", 8), "bob@exa…");
    }
}
