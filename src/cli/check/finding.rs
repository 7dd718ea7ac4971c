//! Findings, and how they are shown: a tick, a remark or a cross a line; or JSON.

use super::super::exit::sysexits;
use super::super::sendmail::Face;
use super::host;
use crate::outcome::printable;
use serde_json::json;
use std::fmt::Write;
use std::io::IsTerminal;

/// The narrowest terminal that people use.
const COLUMNS: usize = 80;

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// As it should be.
    Good,
    /// Worth knowing; mail goes out all the same.
    Note,
    /// In the way of mail, or of some of it.
    Fault,
}

/// Where findings are shown, and what they amount to.
pub(super) struct Screen<'f> {
    face: Face<'f>,
    json: bool,
    colour: bool,
    /// Whether long lines are folded.
    wraps: bool,
    marks: [&'static str; 3],
    /// What could be written.
    written: u8,
    /// Whose findings these are.
    pub account: Option<String>,
    /// At which host.
    pub relay: Option<String>,
    /// What is in the way of mail: the account's name where it is one's, and the status.
    faults: Vec<(Option<String>, u8)>,
}

impl<'f> Screen<'f> {
    pub fn new(face: Face<'f>, json: bool) -> Self {
        let wraps = std::io::stdout().is_terminal();
        let is_dumb = host::variable("TERM").is_none_or(|term| term == "dumb");
        let colour = !json && wraps && !is_dumb && host::variable("NO_COLOR").is_none();
        // The first of these that is set counts (POSIX.1-2017, 8.2).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| host::variable(name));
        let locale = locale.unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let is_utf8 = locale.contains("utf-8") || locale.contains("utf8");
        let marks = if is_utf8 { ["✓", "!", "✗"] } else { ["ok", "!", "NO"] };
        Self { face, json, colour, wraps, marks, written: 0, account: None, relay: None, faults: Vec::new() }
    }

    /// Begins another part.
    pub fn part(&mut self, name: &str) {
        if !self.json {
            let name = printable(name);
            let line = if self.colour { format!("\x1b[1m{name}\x1b[0m\n") } else { format!("{name}\n") };
            self.print(&line);
        }
    }

    /// A line.
    pub fn tell(&mut self, about: &str, mark: Mark, text: &str, mend: Option<&str>) {
        if self.json {
            let result = ["ok", "note", "fault"][mark as usize];
            let (account, relay) = (&self.account, &self.relay);
            let object = json!({
                "about": about, "account": account, "relay": relay, "result": result, "text": text, "mend": mend,
            });
            return self.print(&format!("{object}\n"));
        }
        let shown = format!("{:<1$}", self.marks[mark as usize], self.marks[0].chars().count());
        let shown =
            if self.colour { format!("\x1b[{}m{shown}\x1b[0m", ["32", "33", "31"][mark as usize]) } else { shown };
        let mut lines = format!("  {shown} {}\n", self.wrapped(text, "    "));
        // Lines behind the first are there to be pasted.
        let (sentence, rest) = mend.map(|mend| mend.split_once('\n').unwrap_or((mend, ""))).unwrap_or_default();
        if !sentence.is_empty() {
            let _ = writeln!(lines, "      {}", self.wrapped(sentence, "      "));
        }
        for line in rest.lines() {
            let _ = writeln!(lines, "      {line}");
        }
        self.print(&lines);
    }

    /// A line for what is in the way of mail whatever else there is.
    pub fn fault(&mut self, about: &str, text: &str, mend: Option<&str>, status: u8) {
        self.tell(about, Mark::Fault, text, mend);
        self.faults.push((None, status));
    }

    /// No mail goes out through an account.
    pub fn fail(&mut self, account: &str, status: u8) {
        self.faults.push((Some(account.to_owned()), status));
    }

    /// Another account takes over from one.
    pub fn overcome(&mut self, account: &str, fallback: &str) {
        self.faults.retain(|(whose, _)| whose.as_deref() != Some(account));
        let text = format!("letters for account {account} go by its fallback, {fallback}");
        self.tell("account", Mark::Note, &text, None);
    }

    /// The last line, and the status.
    pub fn conclude(mut self) -> u8 {
        let status = self.faults.first().map_or(0, |(_, status)| *status);
        if !self.json {
            let goes = ("Mail goes out.", "32");
            let (text, colour) = if status == 0 { goes } else { ("Not all mail would go out.", "31") };
            let line = if self.colour { format!("\x1b[{colour}m{text}\x1b[0m\n") } else { format!("{text}\n") };
            self.print(&line);
        }
        if status == 0 && self.written != 0 { sysexits::IOERR } else { status }
    }

    /// The text as a terminal shows it, further lines indented; as it is anywhere else.
    fn wrapped(&self, text: &str, indent: &str) -> String {
        if !self.wraps {
            return text.to_owned();
        }
        let (mut out, mut column) = (String::new(), indent.len());
        for word in text.split(' ') {
            let width = word.chars().count();
            if column + 1 + width > COLUMNS && column > indent.len() {
                out.push('\n');
                out.push_str(indent);
                column = indent.len();
            } else if column > indent.len() {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += width;
        }
        out
    }

    fn print(&mut self, text: &str) {
        self.written = self.written.max(self.face.print(text));
    }
}
