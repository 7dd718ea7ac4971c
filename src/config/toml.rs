//! TOML, the native format: text in, [`Settings`] or everything that is wrong with it out.
//!
//! The rows of [`ROOT`], [`account`], [`password`], [`queue`] and [`serve`] are the keys: the reader, the nearest
//! spelling and the test of the manual (pillarbox.toml(5)) all read them. The tree is walked by hand, because serde's
//! `derive` stops at the first mistake and a person wants to see them all. What is not TOML at all is told alone:
//! guesses about the keys of a broken file are noise. A password is never quoted in an error.

mod account;
mod password;
mod queue;
mod row;
mod serve;
mod value;

pub(super) use account::auth_word;

use super::notation;
use super::problem::{Place, Problem};
use super::{LogTo, MAX_PROBLEMS, Settings};
use queue::QUEUE;
use row::{Row, in_order, put};
use serve::SERVE;
use std::borrow::Cow;
use std::path::Path;
use std::rc::Rc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use value::{Value, address};

/// Keys before the first table.
const ROOT: &[Row<Settings>] = &[
    Row {
        key: "default",
        allowed: "the name of an account",
        read: |settings, value| put(&mut settings.default, Some(value.text()?.to_owned())),
    },
    Row {
        key: "domain",
        allowed: "a domain, as in \"example.com\"",
        read: |settings, value| put(&mut settings.domain, Some(value.checked(notation::domain)?)),
    },
    Row {
        key: "log",
        allowed: "\"journal\", \"syslog\", \"stderr\", a path that begins with / or ~/, or a list of these",
        read: |settings, value| {
            put(
                &mut settings.log,
                value.list(|one| match one.text()? {
                    "journal" => Ok(LogTo::Journal),
                    "syslog" => Ok(LogTo::Syslog),
                    "stderr" => Ok(LogTo::Stderr),
                    path if path.starts_with(['/', '~']) => Ok(LogTo::File(one.path()?)),
                    word => Err(one.unknown(word, &["journal", "syslog", "stderr"])),
                })?,
            )
        },
    },
    Row {
        key: "alias_file",
        allowed: "a path that begins with / or ~/",
        read: |settings, value| put(&mut settings.names.alias_file, Some(value.path()?)),
    },
    Row {
        key: "rewrite_headers",
        allowed: "true or false",
        read: |settings, value| put(&mut settings.names.rewrite_headers, value.switch()?),
    },
];

/// What sentences call the part before the first table.
const ROOT_TABLE: &str = "the file";

/// Keys that name a table.
const TABLES: [&str; 5] = ["account", "queue", "serve", "aliases", "masquerade"];

/// Reads a file's text. `home` is what `~` stands for.
pub(super) fn read(file: &Path, text: &str, home: Option<&Path>) -> Result<Settings, Vec<Problem>> {
    let name: Rc<Path> = Rc::from(file);
    let mut reader = Reader { problems: Vec::new(), home };
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut settings = Settings { file: file.to_owned(), ..Settings::default() };
    if errors.is_empty() {
        reader.root(tree.get_ref(), &mut settings);
    } else {
        let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        reader.problems = errors
            .iter()
            .take(MAX_PROBLEMS)
            .map(|error| (at(error), format!("this is no TOML: {}", error.message())))
            .collect();
    }
    if reader.problems.is_empty() {
        return Ok(settings);
    }
    reader.problems.sort();
    let place = |(octet, words)| Problem { place: Place::of(&name, text, octet), text: words };
    Err(reader.problems.into_iter().map(place).collect())
}

/// What is collected while the tree is walked.
struct Reader<'a> {
    /// Octet and sentence.
    problems: Vec<(usize, String)>,
    home: Option<&'a Path>,
}

impl<'a> Reader<'a> {
    fn root(&mut self, tree: &DeTable<'a>, settings: &mut Settings) {
        let mut drafts = Vec::new();
        let mut default_at = 0;
        for (key, value) in in_order(tree) {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("account", DeValue::Table(accounts)) => drafts = self.accounts(accounts),
                ("account", _) => self.problem(key.span().start, "account: write a table [account.NAME] for each one"),
                ("queue", DeValue::Table(queue)) => {
                    self.table("[queue]", QUEUE, queue, &mut settings.queue);
                }
                ("queue", _) => match self.value(value).switch() {
                    Ok(enabled) => settings.queue.enabled = enabled,
                    Err(_) => self.problem(value.span().start, "queue: write \"off\", or a table [queue]"),
                },
                ("serve", DeValue::Table(table)) => {
                    self.table("[serve]", SERVE, table, &mut settings.serve);
                    if settings.serve.allow_users.is_some() && !settings.serve.listen.is_empty() {
                        // Over TCP nobody proves who he is.
                        self.problem(key.span().start, "serve: listen lets everybody in, and allow_users does not");
                    }
                }
                ("serve", _) => self.problem(key.span().start, "serve: write a table [serve]"),
                ("aliases", DeValue::Table(table)) => settings.names.aliases = self.pairs(table, |_| Ok(())),
                ("masquerade", DeValue::Table(table)) => settings.names.masquerade = self.pairs(table, address),
                (name @ ("aliases" | "masquerade"), _) => {
                    self.problem(key.span().start, format!("{name}: write a table [{name}], a line for each name"));
                }
                (name, _) => {
                    default_at = if name == "default" { value.span().start } else { default_at };
                    self.key(ROOT_TABLE, ROOT, key, value, settings);
                }
            }
        }
        if drafts.is_empty() {
            self.problem(0, "there is no account; write a table [account.NAME] with a host");
        }
        self.references(settings.default.as_deref().map(|name| (name, default_at)), &drafts);
        settings.accounts = drafts.into_iter().map(|draft| draft.account).collect();
    }

    /// A table of whatever names, each with a string or a list of strings, which are then joined by commas.
    fn pairs(&mut self, table: &DeTable<'a>, check: fn(&str) -> Result<(), String>) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for (key, value) in in_order(table) {
            let name = key.get_ref().to_string();
            match self.value(value).list(|one| one.checked(check)) {
                Ok(words) => pairs.push((name, words.join(", "))),
                Err(wrong) => {
                    self.problem(wrong.at, format!("{name}: {}; allowed: an address or a list of them", wrong.text));
                }
            }
        }
        pairs
    }

    fn table<T>(&mut self, name: &str, rows: &[Row<T>], table: &DeTable<'a>, target: &mut T) {
        for (key, value) in in_order(table) {
            self.key(name, rows, key, value, target);
        }
    }

    /// Reads one key by its row.
    fn key<T>(
        &mut self,
        table: &str,
        rows: &[Row<T>],
        key: &Spanned<Cow<'a, str>>,
        value: &Spanned<DeValue<'a>>,
        target: &mut T,
    ) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let tables: &[&str] = if table == ROOT_TABLE { &TABLES } else { &[] };
        if let Err(wrong) = row::read(table, rows, tables, key, self.value(value), target) {
            let allowed = wrong.allowed.map(|allowed| format!("; allowed: {allowed}")).unwrap_or_default();
            self.problem(wrong.at, wrong.text + &allowed);
        }
    }

    fn value<'v>(&self, spanned: &'v Spanned<DeValue<'v>>) -> Value<'v>
    where
        'a: 'v,
    {
        Value { spanned, home: self.home }
    }

    fn problem(&mut self, octet: usize, text: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((octet, text.into()));
        }
    }
}

#[cfg(test)]
mod tests;
