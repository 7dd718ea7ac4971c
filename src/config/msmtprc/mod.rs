//! msmtp's configuration: text in, accounts or everything that is wrong with it out.
//!
//! A line is a keyword and its argument; there is no quoting but around a whole argument, no continuation, and `#`
//! begins a comment only as the first character of a line. `defaults` and `account` say whose the lines below are;
//! `account NAME : A,B` takes over what A and B say themselves. [`keyword`] has the keywords, [`account`] makes
//! accounts of them, pillarbox-msmtprc(5) is the page.
//!
//! An account without a host is one that others are made from, and no way out. A user's file goes before the system's
//! ([`Reading::join`]). Nothing is run: what becomes of `eval` is [`eval`]'s to say. No password is quoted in an error.

mod account;
mod eval;
mod keyword;

use super::problem::{Place, Problem};
use super::spelling::nearest;
use super::{Account, MAX_ACCOUNTS, MAX_PROBLEMS, SessionLog, SessionLogTo, Settings};
use account::Building;
use eval::Eval;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zeroize::Zeroizing;

pub use keyword::keywords;

/// What an msmtprc can name of the caller, the machine and the environment.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `~`
    pub home: Option<PathBuf>,
    /// `%U`, the login name of the caller.
    pub login: String,
    /// `%H`, the name of this machine.
    pub host: String,
    /// `%C`, its full name.
    pub canonical: String,
    /// `%M`, the first line of `/etc/mailname`.
    pub mailname: Option<String>,
    /// `$EMAIL`
    pub email: Option<String>,
    /// `$SMTPSERVER`
    pub smtp_server: Option<String>,
}

/// What one file says.
#[derive(Debug)]
pub(super) struct Reading {
    file: PathBuf,
    /// Those with a host.
    accounts: Vec<Account>,
    logs: Vec<SessionLog>,
    alias_file: Option<PathBuf>,
    queue: Option<bool>,
    /// Whether a password stands in it, be it of use or not.
    pub has_secret: bool,
}

/// The name of the account that is used when nothing else chooses one.
const DEFAULT: &str = "default";

/// A keyword that is typed on the command line, as `--host=smtp.example.com`, and its argument.
pub type Argument = (String, String);

/// Whether a text begins as an msmtprc: a keyword without the `=` that TOML has behind it.
pub(super) fn is_one(octets: &[u8]) -> bool {
    let mut lines = octets.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#")).unwrap_or_default();
    let (word, rest) = first.split_at(first.iter().position(u8::is_ascii_whitespace).unwrap_or(first.len()));
    keywords().any(|keyword| keyword.as_bytes() == word) && !rest.trim_ascii_start().starts_with(b"=")
}

/// Reads a file's text. `arguments` go over what every account says.
pub(super) fn read(
    file: &Path,
    text: &str,
    around: &Surroundings,
    arguments: &[Argument],
) -> Result<Reading, Vec<Problem>> {
    let mut reader = Reader { around, file: Rc::from(file), has_secret: false, problems: Vec::new() };
    let drafts = reader.drafts(text);
    reader.build(drafts, arguments)
}

/// The account that the words of the command line make by themselves, where `--host` is among them.
pub(super) fn of_arguments(around: &Surroundings, arguments: &[Argument]) -> Result<Reading, Vec<Problem>> {
    let reader =
        Reader { around, file: Rc::from(Path::new("the command line")), has_secret: false, problems: Vec::new() };
    let place = reader.place(0, 0, "");
    reader.build(vec![Draft::new(DEFAULT, place, Lines::default())], arguments)
}

/// The account of `$SMTPSERVER` and `$EMAIL`, where both are set.
pub(super) fn of_environment(around: &Surroundings) -> Option<Account> {
    let (server, email) = around.smtp_server.as_ref().zip(around.email.as_ref())?;
    let arguments = [("host".to_owned(), server.clone()), ("from".to_owned(), email.clone())];
    of_arguments(around, &arguments).ok()?.accounts.pop()
}

/// What is wrong with an argument of the command line that has the name of a keyword.
pub fn check(keyword: &str, argument: &str, around: &Surroundings) -> Result<(), String> {
    match keyword::find(keyword) {
        Some(row) => row.check(argument, around).map_err(|text| format!("{text}; allowed: {}", row.allowed)),
        None => Err("is no keyword".to_owned()),
    }
}

impl Reading {
    /// The accounts.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Lets the file name no files that are written.
    pub fn write_nothing(&mut self) {
        self.logs.retain(|log| !matches!(log.to, SessionLogTo::File(..)));
    }

    /// Whether there is an account for mail that nothing chooses one for.
    pub fn has_default(&self) -> bool {
        self.accounts.iter().any(|account| account.name == DEFAULT)
    }

    /// Adds what another file says that this one does not: its accounts of other names, with their logs.
    pub fn join(&mut self, other: Self) {
        let known: Vec<String> = self.accounts.iter().map(|account| account.name.clone()).collect();
        self.accounts.extend(other.accounts.into_iter().filter(|account| !known.contains(&account.name)));
        self.logs.extend(other.logs.into_iter().filter(|log| !known.contains(&log.account)));
        self.alias_file = self.alias_file.take().or(other.alias_file);
        self.queue = self.queue.or(other.queue);
    }

    /// The settings; an account of the environment's stands in for a default one.
    pub fn settings(mut self, around: &Surroundings) -> Settings {
        if !self.has_default() {
            self.accounts.extend(of_environment(around));
        }
        let mut settings = Settings {
            file: self.file,
            accounts: self.accounts,
            log: self.logs.into_iter().map(super::LogTo::Sessions).collect(),
            ..Settings::default()
        };
        settings.names.alias_file = self.alias_file;
        settings.queue.enabled = self.queue.unwrap_or(true);
        settings
    }
}

/// An argument and where it stands.
#[derive(Clone)]
struct Written {
    /// How it is read; `None` for `eval`.
    row: Option<&'static keyword::Row>,
    text: Zeroizing<String>,
    place: Place,
}

/// What lines say, by today's keyword.
type Lines = HashMap<&'static str, Written>;

/// An account as it is written.
struct Draft {
    name: String,
    place: Place,
    /// What `defaults` said when it began.
    defaults: Lines,
    /// What its own lines say, and those of the accounts that it takes over.
    own: Lines,
}

impl Draft {
    fn new(name: &str, place: Place, defaults: Lines) -> Self {
        Self { name: name.to_owned(), place, defaults, own: Lines::default() }
    }
}

/// Whose the lines are.
enum Section {
    Defaults,
    Account,
    /// Of an account that could not be begun: they are checked all the same.
    Nobody,
}

struct Reader<'a> {
    around: &'a Surroundings,
    file: Rc<Path>,
    has_secret: bool,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, place: Place, text: impl Into<String>) {
        let problem = Problem { place, text: text.into() };
        // What `defaults` says is read again for every account, and wrong once.
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The place of an octet of a line; both counted from 0.
    fn place(&self, line: usize, octet: usize, text: &str) -> Place {
        Place { line: line + 1, ..Place::of(&self.file, text, octet) }
    }

    /// Sorts the lines into accounts; each line that cannot be read is told.
    fn drafts(&mut self, text: &str) -> Vec<Draft> {
        let (mut drafts, mut defaults) = (Vec::<Draft>::new(), Lines::default());
        let mut section = None;
        for (number, line) in text.lines().enumerate() {
            let Some((start, keyword, argument)) = split(line) else { continue };
            let here = self.place(number, start, line);
            let written = Written {
                row: None,
                place: self.place(number, argument.start, line),
                text: Zeroizing::new(unquoted(&line[argument]).to_owned()),
            };
            match keyword {
                "defaults" => {
                    if !written.text.is_empty() {
                        self.problem(written.place.clone(), "defaults: it takes no argument");
                    }
                    section = Some(Section::Defaults);
                    continue;
                }
                "account" => {
                    let begun = self.begin(&written, here, &drafts, &defaults);
                    section = Some(if begun.is_some() { Section::Account } else { Section::Nobody });
                    drafts.extend(begun);
                    continue;
                }
                _ => {}
            }
            // Lines before any account are those of one that is called `default`.
            let section = section.get_or_insert_with(|| {
                drafts.push(Draft::new(DEFAULT, here.clone(), defaults.clone()));
                Section::Account
            });
            let lines = match section {
                Section::Defaults => Some(&mut defaults),
                Section::Account => drafts.last_mut().map(|draft| &mut draft.own),
                Section::Nobody => None,
            };
            self.keep(keyword, here, written, lines);
        }
        drafts
    }

    /// Begins `account NAME : A,B`.
    fn begin(&mut self, written: &Written, here: Place, drafts: &[Draft], defaults: &Lines) -> Option<Draft> {
        let (name, bases) = match written.text.split_once(':') {
            Some((name, bases)) => (name.trim(), bases.split(',').map(str::trim).collect()),
            None => (written.text.trim(), Vec::new()),
        };
        let known = |name: &str| drafts.iter().find(|draft| draft.name == name);
        let place = || written.place.clone();
        if name.is_empty() || name.contains(',') || name.chars().any(char::is_control) {
            self.problem(place(), "account: write account NAME, or account NAME : OTHER,OTHER");
            return None;
        }
        if known(name).is_some() {
            self.problem(place(), format!("account: there is an account {name:?} above"));
            return None;
        }
        if drafts.len() == MAX_ACCOUNTS {
            self.problem(here, format!("there are more than {MAX_ACCOUNTS} accounts"));
            return None;
        }
        let mut draft = Draft::new(name, here, defaults.clone());
        for base in bases {
            if let Some(base) = known(base) {
                draft.own.extend(base.own.iter().map(|(&keyword, written)| (keyword, written.clone())));
                continue;
            }
            let near = nearest(base, drafts.iter().map(|draft| draft.name.as_str()));
            let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            self.problem(place(), format!("account: there is no account {base:?} above{near}"));
        }
        Some(draft)
    }

    /// Checks a line and keeps it.
    fn keep(&mut self, word: &str, here: Place, mut written: Written, lines: Option<&mut Lines>) {
        if word == "eval" {
            let text = std::mem::take(&mut written.text);
            match eval::read(&text) {
                Ok(Eval::Line(line)) => {
                    let Some((_, keyword, argument)) = split(line) else { return };
                    written.text = Zeroizing::new(unquoted(&line[argument]).to_owned());
                    return self.keep(keyword, here, written, lines);
                }
                Ok(Eval::Password | Eval::Unknown) => {
                    written.text.clone_from(&text);
                    if let Some(lines) = lines {
                        lines.insert("eval", written);
                    }
                }
                Err(text) => self.problem(written.place, format!("eval: {text}")),
            }
            return;
        }
        let Some(row) = keyword::find(word) else {
            let near = nearest(word, keywords());
            let near = near.map(|near| format!(" did you mean {near:?}?")).unwrap_or_default();
            let word = crate::outcome::printable(word);
            let text = format!("there is no keyword \"{word}\";{near} pillarbox-msmtprc(5) has them all");
            return self.problem(here, text);
        };
        self.has_secret |= row.keyword == "password" && !written.text.is_empty();
        if written.text.contains(char::REPLACEMENT_CHARACTER) {
            return self.problem(written.place, format!("{word}: this is not UTF-8"));
        }
        if let Err(text) = row.check(&written.text, self.around) {
            return self.problem(written.place, format!("{word}: {text}; allowed: {}", row.allowed));
        }
        if let Some(lines) = lines {
            written.row = Some(row);
            lines.insert(keyword::today(row.keyword), written);
        }
    }

    /// Makes accounts of drafts.
    fn build(mut self, drafts: Vec<Draft>, arguments: &[Argument]) -> Result<Reading, Vec<Problem>> {
        let mut reading = Reading {
            file: self.file.to_path_buf(),
            accounts: Vec::new(),
            logs: Vec::new(),
            alias_file: None,
            queue: None,
            has_secret: self.has_secret,
        };
        let mut aliases = None::<Written>;
        // What cannot be read has been told; what seems to follow from its absence would mislead.
        let is_whole = self.problems.is_empty();
        for draft in drafts.into_iter().filter(|_| is_whole) {
            let mut lines = draft.defaults;
            lines.extend(draft.own);
            for (word, argument) in arguments {
                if let Some(row) = keyword::find(word) {
                    let text = Zeroizing::new(argument.clone());
                    let written = Written { row: Some(row), text, place: draft.place.clone() };
                    lines.insert(keyword::today(row.keyword), written);
                }
            }
            let mut building = Building::new(&draft.name);
            for written in lines.values() {
                let Some(row) = written.row else { continue };
                if let Err(text) = (row.read)(&mut building, &written.text, self.around) {
                    self.problem(written.place.clone(), format!("{}: {text}", row.keyword));
                }
            }
            if let Some(file) = lines.get("aliases").filter(|file| !file.text.is_empty()) {
                match aliases.get_or_insert_with(|| file.clone()) {
                    first if first.text != file.text => {
                        let text = format!("aliases: {} is named above, and there is one file for all", *first.text);
                        self.problem(file.place.clone(), text);
                    }
                    _ => reading.alias_file = building.alias_file.take(),
                }
            }
            reading.queue = building.queue.or(reading.queue);
            building.eval = lines.get("eval").map(|written| written.text.to_string());
            match building.finish(self.around) {
                Ok(Some((account, log))) => {
                    reading.accounts.push(account);
                    reading.logs.extend(log);
                }
                Ok(None) => {}
                Err(flaws) => {
                    for (keyword, text) in flaws {
                        let place = lines.get(keyword).map_or(&draft.place, |written| &written.place);
                        self.problem(place.clone(), format!("{keyword}: {text} (account {:?})", draft.name));
                    }
                }
            }
        }
        if self.problems.is_empty() { Ok(reading) } else { Err(self.problems) }
    }
}

/// Where the keyword begins, the keyword, and where its argument stands. `None` for an empty line or a comment.
fn split(line: &str) -> Option<(usize, &str, std::ops::Range<usize>)> {
    let blank = |c: char| c == ' ' || c == '\t' || c == '\r';
    let end = line.trim_end_matches(blank).len();
    let start = line.len() - line.trim_start_matches(blank).len();
    let text = line.get(start..end).filter(|text| !text.is_empty() && !text.starts_with('#'))?;
    let keyword = text.split(blank).next()?;
    let behind = start + keyword.len();
    let argument = end - line[behind..end].trim_start_matches(blank).len();
    Some((start, keyword, argument..end))
}

/// Quotes around the whole of an argument are no part of it; nothing is escaped within.
fn unquoted(argument: &str) -> &str {
    argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(argument)
}

#[cfg(test)]
mod tests;
