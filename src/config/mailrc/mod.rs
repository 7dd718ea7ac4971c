//! s-nail's mailrc: text in, [`Settings`] or everything that is wrong with it out.
//!
//! What a mailrc says about sending through SMTP is honoured; what it says about reading mail is
//! skipped without a word, and so is what is unknown. Nothing but what we use can be wrong. A file
//! without an SMTP `mta` is no configuration. The lines are obeyed in order as s-nail does it:
//! `set`, `unset`, `alias`, `account`, `define`, `call`, `source`, `if`. An `account` block is
//! obeyed last, over what the whole file has set, since s-nail obeys it when the account is chosen.
//! No command is ever run. Loops, depth and growth are bounded. pillarbox-mailrc(5) is the page.

mod condition;
mod lexer;
mod relay;

use super::problem::{Place, Problem};
use super::{MAX_ACCOUNTS, MAX_PROBLEMS, Settings};
use crate::message::address::parse_list;
use lexer::{Line, Style, Word};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zeroize::Zeroizing;

/// How deep calls and sources can nest.
const MAX_DEPTH: usize = 16;

/// How many lines are obeyed within macros, and how many files are sourced: more than anybody writes.
const MAX_STEPS: usize = 10_000;
const MAX_SOURCES: usize = 64;

/// How much text variables may stand for in all, in octets.
const MAX_EXPANSION: usize = 1 << 20;

/// Why a file that is sourced is not to be had.
pub(super) enum NotSourced {
    /// It does not exist.
    Missing,
    /// It must not or cannot be read; the sentence.
    Refused(String),
}

/// Reads a file that is sourced.
pub(super) type Source<'a> = &'a mut dyn FnMut(&Path) -> Result<Zeroizing<String>, NotSourced>;

/// What a mailrc says.
pub(super) struct Reading {
    /// The accounts, and the domain.
    pub settings: Settings,
    /// The files that hold passwords.
    pub secret_files: Vec<PathBuf>,
}

/// Reads a file's text. `home` is what `~` stands for. `None`: it has no SMTP `mta`.
pub(super) fn read(
    file: &Path,
    text: &str,
    home: Option<&Path>,
    source: Source<'_>,
) -> Result<Option<Reading>, Vec<Problem>> {
    let name: Rc<Path> = Rc::from(file);
    let mut reader = Reader {
        home,
        source,
        steps: 0,
        expanded: Cell::new(0),
        is_stopped: false,
        sources: 0,
        sourcing: vec![file.to_owned()],
        state: State::default(),
        is_unread: false,
        problems: Vec::new(),
    };
    reader.obey(&lexer::lines(&name, text).into_iter().map(Rc::new).collect::<Vec<_>>(), &Frame::default());
    let relays = reader.relays(file);
    let mut problems = reader.problems;
    let is_mta = |problem: &Problem| problem.text.starts_with("mta:");
    if relays.is_none() && !reader.is_unread && !reader.is_stopped && !problems.iter().any(is_mta) {
        return Ok(None);
    }
    // A macro that several accounts call is wrong once.
    let mut seen = Vec::new();
    problems.retain(|problem| {
        let is_new = !seen.contains(problem);
        if is_new {
            seen.push(problem.clone());
        }
        is_new
    });
    match relays {
        Some(reading) if problems.is_empty() => Ok(Some(reading)),
        _ => Err(problems),
    }
}

/// A variable's value, and where it was set.
#[derive(Clone)]
struct Variable {
    value: Zeroizing<String>,
    place: Place,
}

/// What the lines have set so far.
#[derive(Clone, Default)]
struct State {
    variables: HashMap<String, Variable>,
    macros: HashMap<String, Rc<Vec<Rc<Line>>>>,
    /// In the order of the file.
    accounts: Vec<(String, Rc<Vec<Rc<Line>>>)>,
    /// The account that the file itself activates.
    active: Option<String>,
    /// The aliases: each name's turn, and whom it stands for.
    aliases: HashMap<String, (usize, Vec<String>)>,
    /// The last turn that was given.
    turn: usize,
}

impl State {
    fn has_shell_quotes(&self) -> bool {
        self.variables.get("v15-compat").is_some_and(|variable| !variable.value.is_empty())
    }
}

/// Where lines are obeyed: at the top, or in a macro with its parameters.
#[derive(Default)]
struct Frame {
    depth: usize,
    name: String,
    parameters: Vec<String>,
}

/// An `if` that is open.
struct Branch {
    /// Whether it stands where lines are obeyed.
    outer: bool,
    /// Whether its own lines are, there.
    active: bool,
    /// Whether a branch of it has been, or none may be.
    done: bool,
}

/// Whether the lines in the innermost branch are obeyed.
fn is_active(branches: &[Branch]) -> bool {
    branches.last().is_none_or(|branch| branch.outer && branch.active)
}

struct Reader<'a> {
    home: Option<&'a Path>,
    source: Source<'a>,
    steps: usize,
    expanded: Cell<usize>,
    /// The bounds above were overstepped: nothing more is obeyed, and it has been told.
    is_stopped: bool,
    sources: usize,
    sourcing: Vec<PathBuf>,
    state: State,
    /// A file could not be read that may have set the `mta`.
    is_unread: bool,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, place: Place, text: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { place, text: text.into() });
        }
    }

    /// Obeys lines in order.
    fn obey(&mut self, lines: &[Rc<Line>], frame: &Frame) {
        let mut before = None;
        let mut branches: Vec<Branch> = Vec::new();
        let mut lines = lines.iter();
        while let Some(line) = lines.next() {
            let mut from = Some(line.start());
            while let Some(start) = from {
                let command = Command::of(line, start);
                let active = is_active(&branches);
                from = match command.verb {
                    Verb::If | Verb::Elif | Verb::Else | Verb::Endif => {
                        self.branch(&command, line, frame, &mut branches)
                    }
                    Verb::Define | Verb::Account if line.text.trim_end().ends_with('{') => {
                        let mut is_closed = false;
                        let mut block = Vec::new();
                        for line in lines.by_ref() {
                            is_closed = line.text.trim_start().starts_with('}');
                            if is_closed {
                                break;
                            }
                            block.push(line.clone());
                        }
                        if active && !is_closed {
                            self.is_unread |= block.iter().any(|line: &Rc<Line>| line.text.contains("mta="));
                            self.problem(line.place(start), "this block is never closed: it ends with a line of a }");
                        }
                        if active {
                            self.keep_block(&command, line, frame, block);
                        }
                        None
                    }
                    _ if !active => self.words(&command, line, frame).rest,
                    Verb::Return => return,
                    Verb::LocalOpts => {
                        let words = self.words(&command, line, frame);
                        let off = |word: &Word| matches!(word.text.as_str(), "no" | "off" | "0");
                        if frame.depth > 0 && !words.list.first().is_some_and(off) {
                            before.get_or_insert_with(|| self.state.variables.clone());
                        }
                        words.rest
                    }
                    _ => self.command(&command, line, frame),
                };
                if frame.depth > 0 {
                    self.steps += 1;
                }
                if !self.is_stopped && (self.steps > MAX_STEPS || self.expanded.get() > MAX_EXPANSION) {
                    self.is_stopped = true;
                    self.problem(line.place(start), "the macros and variables of this file do not come to an end");
                }
                if self.is_stopped {
                    return;
                }
            }
        }
        if let Some(before) = before {
            self.state.variables = before;
        }
    }

    fn words(&self, command: &Command, line: &Line, frame: &Frame) -> lexer::Words {
        let style = match command.verb {
            Verb::Set | Verb::Unset if !command.shell && !self.state.has_shell_quotes() => Style::Old,
            _ => Style::Shell,
        };
        lexer::words(&line.text, command.end, style, &|name| self.value(name, frame))
    }

    /// What `$NAME` stands for. The environment is not ours to read, but for the home.
    fn value(&self, name: &str, frame: &Frame) -> String {
        if self.expanded.get() > MAX_EXPANSION {
            return String::new();
        }
        let value = match name {
            "#" => frame.parameters.len().to_string(),
            "*" | "@" => frame.parameters.join(" "),
            "0" => frame.name.clone(),
            "?" | "!" => "0".to_owned(),
            _ => match name.parse::<usize>() {
                Ok(number) => number.checked_sub(1).and_then(|i| frame.parameters.get(i)).cloned().unwrap_or_default(),
                Err(_) => match self.state.variables.get(name) {
                    Some(variable) => variable.value.to_string(),
                    None if name == "HOME" => self.home.map(|home| home.display().to_string()).unwrap_or_default(),
                    None => String::new(),
                },
            },
        };
        self.expanded.set(self.expanded.get() + value.len());
        value
    }

    fn branch(&mut self, command: &Command, line: &Line, frame: &Frame, branches: &mut Vec<Branch>) -> Option<usize> {
        let words = self.words(command, line, frame);
        let condition: Vec<&str> = words.list.iter().map(|word| word.text.as_str()).collect();
        let holds = || condition::holds(&condition, &|name| self.state.variables.contains_key(name));
        match command.verb {
            Verb::If => {
                let (outer, holds) = (is_active(branches), holds());
                branches.push(Branch { outer, active: holds == Some(true), done: holds != Some(false) });
            }
            Verb::Elif => {
                let holds = holds();
                if let Some(branch) = branches.last_mut() {
                    branch.active = !branch.done && holds == Some(true);
                    branch.done |= holds != Some(false);
                }
            }
            Verb::Else => {
                if let Some(branch) = branches.last_mut() {
                    branch.active = !branch.done;
                    branch.done = true;
                }
            }
            _ => drop(branches.pop()),
        }
        words.rest
    }

    fn keep_block(&mut self, command: &Command, line: &Line, frame: &Frame, block: Vec<Rc<Line>>) {
        let words = self.words(command, line, frame);
        let [name, _] = &words.list[..] else {
            return self.problem(line.place(command.end), "write: account NAME {, or: define NAME {");
        };
        let (name, block) = (name.text.to_string(), Rc::new(block));
        if command.verb == Verb::Define {
            self.state.macros.insert(name, block);
        } else {
            if self.state.accounts.len() == MAX_ACCOUNTS {
                return self.problem(line.place(command.end), format!("there are more than {MAX_ACCOUNTS} accounts"));
            }
            self.state.accounts.retain(|(known, _)| *known != name);
            self.state.accounts.push((name, block));
        }
    }

    /// Obeys one command; gives where the next one of the line begins.
    fn command(&mut self, command: &Command, line: &Line, frame: &Frame) -> Option<usize> {
        let words = self.words(command, line, frame);
        match command.verb {
            Verb::Set => self.set(&words, line),
            Verb::Unset => words.list.iter().for_each(|word| drop(self.state.variables.remove(word.text.as_str()))),
            Verb::Account => self.state.active = words.list.first().map(|word| word.text.to_string()),
            Verb::Call => self.call(&words.list, line, command.is_optional, frame),
            Verb::Alias => self.alias(&words.list),
            Verb::Unalias => {
                let all = words.list.iter().any(|word| *word.text == "*");
                if all {
                    self.state.aliases.clear();
                }
                words.list.iter().for_each(|word| drop(self.state.aliases.remove(word.text.as_str())));
            }
            Verb::Source => {
                for word in words.list.iter().take(1) {
                    self.source(word, line, command.is_optional, frame);
                }
            }
            // What is unknown may use the rest of the line in ways of its own.
            _ => return None,
        }
        words.rest
    }

    fn set(&mut self, words: &lexer::Words, line: &Line) {
        let mut previous = None;
        for Word { text, at } in &words.list {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            if let Some(name) = previous.filter(|_| name.is_empty()) {
                self.problem(line.place(*at), format!("{name}: write {name}=VALUE, without spaces around the ="));
            } else if relay::is_used(name) && value.contains(char::REPLACEMENT_CHARACTER) {
                self.problem(line.place(*at), format!("{name}: this is not UTF-8"));
            } else if let Some(negated) = name.strip_prefix("no").filter(|_| !text.contains('=')) {
                self.state.variables.remove(negated);
            } else {
                let value = Zeroizing::new(value.to_owned());
                self.state.variables.insert(name.to_owned(), Variable { value, place: line.place(*at) });
            }
            previous = (!text.contains('=') && relay::is_used(name)).then(|| name.to_owned());
        }
        if let Some((Word { text, at }, what)) = &words.broken {
            let name = text.split('=').next().unwrap_or_default();
            // The path of a local program is no business of ours, however it is quoted.
            let other_mta = name == "mta" && !relay::is_smtp(&text[name.len().min(text.len())..]);
            if relay::is_used(name) && !other_mta {
                self.problem(line.place(*at), format!("{name}: {what}"));
            }
        }
    }

    /// More names are added to those that an alias has.
    fn alias(&mut self, words: &[Word]) {
        // A name alone asks what it stands for. The one that is everybody's elsewhere is nobody's here.
        let Some((Word { text: name, .. }, members @ [_, ..])) = words.split_first() else { return };
        if name.eq_ignore_ascii_case("default") {
            return;
        }
        let members: Vec<String> = members.iter().map(|word| word.text.to_string()).collect();
        self.expanded.set(self.expanded.get() + members.iter().map(String::len).sum::<usize>());
        self.state.turn += 1;
        let (_, known) = self.state.aliases.entry(name.to_string()).or_insert_with(|| (self.state.turn, Vec::new()));
        known.extend(members);
    }

    fn call(&mut self, words: &[Word], line: &Line, is_optional: bool, frame: &Frame) {
        let Some((name, parameters)) = words.split_first() else { return };
        let place = line.place(name.at);
        let name = name.text.to_string();
        let Some(body) = self.state.macros.get(&name).cloned() else {
            if !is_optional {
                self.problem(place, format!("there is no macro {name:?}: define it before it is called"));
            }
            return;
        };
        if frame.depth >= MAX_DEPTH {
            self.is_stopped = true;
            return self.problem(place, format!("{name:?} is called within itself, or deeper than {MAX_DEPTH} calls"));
        }
        let parameters = parameters.iter().map(|word| word.text.to_string()).collect();
        self.obey(&body, &Frame { depth: frame.depth + 1, name, parameters });
    }

    fn source(&mut self, word: &Word, line: &Line, is_optional: bool, frame: &Frame) {
        let place = line.place(word.at);
        if word.text.ends_with('|') {
            return self.problem(place, "source: no command is run to read a configuration; name a file");
        }
        let path = match super::notation::expand(&word.text, self.home) {
            Ok(path) => self.home.map_or(path.clone(), |home| home.join(path)),
            Err(wrong) => return self.problem(place, format!("source: {wrong}")),
        };
        self.sources += 1;
        if self.sourcing.contains(&path) {
            return self.problem(place, format!("source: {} is sourced within itself", path.display()));
        }
        if self.sourcing.len() > MAX_DEPTH || self.sources > MAX_SOURCES {
            return self.problem(place, "source: too many files are sourced");
        }
        match (self.source)(&path) {
            Ok(text) => {
                let name: Rc<Path> = Rc::from(path.as_path());
                self.sourcing.push(path);
                let lines: Vec<_> = lexer::lines(&name, &text).into_iter().map(Rc::new).collect();
                // A file has no scope of its own: its variables outlive it, even where a macro sources it.
                self.obey(&lines, &Frame { depth: 0, name: frame.name.clone(), parameters: frame.parameters.clone() });
                self.sourcing.pop();
            }
            Err(NotSourced::Missing) if is_optional => {}
            Err(NotSourced::Missing) => self.problem(place, format!("source: there is no {}", path.display())),
            Err(NotSourced::Refused(sentence)) => {
                self.is_unread = true;
                self.problem(place, format!("source: {sentence}"));
            }
        }
    }

    /// The accounts of the file, if any sends through SMTP.
    fn relays(&mut self, file: &Path) -> Option<Reading> {
        let mut reading = Reading {
            settings: Settings { file: file.to_owned(), default: self.state.active.clone(), ..Settings::default() },
            secret_files: Vec::new(),
        };
        let base = self.state.clone();
        let blocks = base.accounts.iter().map(|(name, block)| (name.as_str(), Some(block)));
        let unnamed = !base.accounts.iter().any(|(name, _)| name == relay::UNNAMED);
        for (name, block) in unnamed.then_some((relay::UNNAMED, None)).into_iter().chain(blocks) {
            self.state = base.clone();
            if let Some(block) = block {
                self.obey(block, &Frame { depth: 0, name: name.to_owned(), parameters: Vec::new() });
            }
            let read =
                relay::Variables { set: &self.state.variables, home: self.home }.account(name, &mut self.problems);
            if let Some((account, secret)) = read {
                if reading.settings.accounts.is_empty() || reading.settings.default.as_deref() == Some(name) {
                    reading.settings.domain.clone_from(&account.helo);
                }
                reading.settings.accounts.push(account);
                reading.secret_files.extend(secret.filter(|file| !reading.secret_files.contains(file)));
            }
        }
        // A program, a file or a folder among them is for s-nail alone: such an alias is none, rather than half of one.
        let is_mail = |member: &String| !member.starts_with(['|', '/', '+']) && parse_list(member).is_ok();
        let mut mail: Vec<_> = base.aliases.into_iter().filter(|(_, (_, them))| them.iter().all(is_mail)).collect();
        mail.sort_unstable_by_key(|&(_, (turn, _))| turn);
        reading.settings.names.aliases = mail.into_iter().map(|(name, (_, them))| (name, them.join(", "))).collect();
        let names = |name: &String| reading.settings.accounts.iter().any(|account| account.name == *name);
        reading.settings.default = reading.settings.default.take().filter(names);
        (!reading.settings.accounts.is_empty()).then_some(reading)
    }
}

/// What a line begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Set,
    Unset,
    Alias,
    Unalias,
    Account,
    Define,
    Call,
    Source,
    LocalOpts,
    Return,
    If,
    Elif,
    Else,
    Endif,
    /// About reading mail, or unknown.
    Skipped,
}

struct Command {
    verb: Verb,
    /// `wysh` stands before it.
    shell: bool,
    /// `source_if`, `call_if`: what is not there is not missed.
    is_optional: bool,
    /// Where its words begin.
    end: usize,
}

impl Command {
    /// Reads modifiers and verb. Verbs may be shortened as POSIX mailx has it.
    fn of(line: &Line, start: usize) -> Self {
        let mut shell = false;
        let mut at = start;
        loop {
            let rest = &line.text[at..];
            let begin = at + rest.len() - rest.trim_start().len();
            let word = &line.text[begin..];
            let word = &word[..word.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(word.len())];
            let end = begin + word.len();
            // A backslash keeps s-nail from looking for an alias of that name.
            let name = word.trim_start_matches('\\');
            let verb = match name {
                "wysh" => {
                    (shell, at) = (true, end);
                    continue;
                }
                "ignerr" | "local" | "global" | "u" | "scope" | "environ" if !word.is_empty() => {
                    at = end;
                    continue;
                }
                "set" | "se" => Verb::Set,
                "unset" | "uns" | "unse" => Verb::Unset,
                "alias" | "alia" | "ali" | "al" | "a" | "group" | "grou" | "gro" | "gr" | "g" => Verb::Alias,
                "unalias" | "ungroup" => Verb::Unalias,
                "account" | "accoun" | "accou" | "acco" | "acc" | "ac" => Verb::Account,
                "define" => Verb::Define,
                "call" | "xcall" | "call_if" => Verb::Call,
                "source" | "sourc" | "sour" | "sou" | "so" | "source_if" => Verb::Source,
                "localopts" => Verb::LocalOpts,
                "return" => Verb::Return,
                "if" | "i" => Verb::If,
                "elif" => Verb::Elif,
                "else" | "els" | "el" => Verb::Else,
                "endif" | "endi" | "end" | "en" => Verb::Endif,
                _ => Verb::Skipped,
            };
            return Self { verb, shell, is_optional: name.ends_with("_if"), end };
        }
    }
}

#[cfg(test)]
mod tests;
