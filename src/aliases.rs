//! Local names and who they are: the alias file of sendmail and Postfix, and the table of the configuration.
//!
//! ```text
//! # a comment; a line that begins with white space, or follows a backslash, goes on with the one before
//! root:        ops@example.com, alice
//! "night shift": :include:/etc/mail/night
//! default:     postmaster@example.com
//! ```
//! An alias stands for addresses and for other local names, which are looked up again; a `\name` is not. A loop, or a
//! chain that is too long, is told with the chain. What only a server can do, `|program` and `/file`, is an error and
//! never skipped: mail for that name would vanish. Names are compared without case. aliases(5).
//!
//! What is wrong with an alias costs nobody his mail but those who go by that name: it leads to nobody until it is
//! mended, and the others lead where they did. A file that cannot be read may have had any name that the table has not.

use crate::message::address::{Address, parse_list};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The longest chain of aliases.
const DEPTH: usize = 20;

/// The largest file that is read.
const LARGEST: u64 = 16 << 20;

/// The name for everybody who has none.
const DEFAULT: &str = "default";

/// What is wrong with an alias: where and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File and line, or the configuration's key.
    pub place: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Aliases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// By their names in lower case: whom they stand for, or what is wrong with them.
    names: HashMap<String, Result<Vec<Target>, Problem>>,
    /// Why there may be others.
    unread: Option<Problem>,
}

/// What an alias stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// An address, or a local name that is looked up again.
    Address(Address),
    /// A local name that is not.
    Final(Address),
}

impl Aliases {
    /// Reads the configuration's table and then the file, whose entries do not override the table's. All that is wrong
    /// is told at once; the names that it does not concern can be followed all the same.
    pub fn load(table: &[(String, String)], file: Option<&Path>, uid: u32) -> (Self, Vec<Problem>) {
        let mut reading = Reading { aliases: Self::default(), problems: Vec::new(), uid };
        for (name, value) in table {
            reading.entry(&format!("aliases.{name}"), name, value);
        }
        if let Some(path) = file {
            match open(path, uid) {
                Ok(text) => reading.file(path, &text),
                Err(what) => reading.aliases.unread = Some(reading.problem(path.display().to_string(), what)),
            }
        }
        (reading.aliases, reading.problems)
    }

    /// A door for the fuzz targets in tests/fuzz, which no other build has: a file's text.
    #[cfg(fuzzing)]
    pub fn of_text(text: &str, uid: u32) -> (Self, Vec<Problem>) {
        let mut reading = Reading { aliases: Self::default(), problems: Vec::new(), uid };
        reading.file(Path::new("aliases"), text);
        (reading.aliases, reading.problems)
    }

    /// Who an address is: itself, where it is no local name or has no alias. `is_local` says whether a domain is this
    /// machine's. The error is a chain that does not end, or leads to an alias with something wrong.
    pub fn resolve(&self, address: &Address, is_local: &dyn Fn(&str) -> bool) -> Result<Vec<Address>, String> {
        let mut found = Vec::new();
        self.follow(address, is_local, &mut Vec::new(), &mut found)?;
        Ok(if found.is_empty() { vec![address.clone()] } else { found })
    }

    fn follow(
        &self,
        address: &Address,
        is_local: &dyn Fn(&str) -> bool,
        chain: &mut Vec<String>,
        found: &mut Vec<Address>,
    ) -> Result<(), String> {
        let name = address.local.to_lowercase();
        let is_name = address.domain.as_deref().is_none_or(is_local);
        let default = || self.names.get(DEFAULT).filter(|_| chain.is_empty());
        let targets = match (self.names.get(&name), &self.unread) {
            _ if !is_name => None,
            (None, Some(problem)) => return Err(problem.to_string()),
            (own, _) => own.or_else(default),
        };
        let Some(targets) = targets else {
            found.push(address.clone());
            return Ok(());
        };
        let targets = targets.as_ref().map_err(ToString::to_string)?;
        let loops = chain.contains(&name);
        chain.push(name.clone());
        if loops || chain.len() > DEPTH {
            let why = if loops { "in a circle" } else { "too far" };
            return Err(format!("the aliases lead {why}: {}", chain.join(" → ")));
        }
        for target in targets {
            match target {
                Target::Final(address) => found.push(address.clone()),
                // `root: root, ops@x` keeps root as well: a name among its own targets is meant as it stands.
                Target::Address(next) if next.domain.is_none() && next.local.to_lowercase() == name => {
                    found.push(next.clone());
                }
                Target::Address(next) => self.follow(next, is_local, chain, found)?,
            }
        }
        chain.pop();
        Ok(())
    }
}

/// What has been read so far.
struct Reading {
    aliases: Aliases,
    problems: Vec<Problem>,
    uid: u32,
}

impl Reading {
    fn problem(&mut self, place: String, what: String) -> Problem {
        let problem = Problem { place, what };
        self.problems.push(problem.clone());
        problem
    }

    fn file(&mut self, path: &Path, text: &str) {
        // Whose members seem to go on in the next line: the name, where it is this file that says who that is.
        let mut unfinished = None::<String>;
        for (line, entry) in logical_lines(text) {
            let place = format!("{}:{line}", path.display());
            if let Some((name, value)) = split_name(&entry) {
                let is_ours = self.entry(&place, &name, value);
                unfinished = Some(name.to_lowercase()).filter(|_| is_ours && value.trim_end().ends_with(','));
            } else {
                let what = "this is no alias; one looks like \"name: address, address\", and a line that goes on with \
                            the one before begins with a space"
                    .to_owned();
                let problem = self.problem(place, what);
                if let Some(name) = unfinished.take() {
                    // Rather nobody than some of them.
                    self.aliases.names.insert(name, Err(problem.clone()));
                }
                self.define(meant_name(&entry), Err(problem));
            }
        }
    }

    /// Reads one. Whether it is the first for its name.
    fn entry(&mut self, place: &str, name: &str, value: &str) -> bool {
        let (mut targets, mut wrong) = (Vec::new(), None);
        for item in items(value) {
            match self.target(&item) {
                Ok(more) => targets.extend(more),
                Err(what) => {
                    let problem = self.problem(place.to_owned(), format!("{name}: {what}"));
                    wrong.get_or_insert(problem);
                }
            }
        }
        if targets.is_empty() && wrong.is_none() {
            wrong = Some(self.problem(place.to_owned(), format!("{name} stands for nobody")));
        }
        self.define(name, wrong.map_or(Ok(targets), Err))
    }

    /// The first who says who a name is has said it; whether this was the first.
    fn define(&mut self, name: &str, meaning: Result<Vec<Target>, Problem>) -> bool {
        let place = self.aliases.names.entry(name.to_lowercase());
        let is_first = matches!(place, Entry::Vacant(_));
        place.or_insert(meaning);
        is_first
    }

    fn target(&self, item: &str) -> Result<Vec<Target>, String> {
        let bare = item.trim_matches('"');
        if bare.starts_with('|') {
            return Err(format!("\"{item}\" runs a program, which a relay-only MTA does not do"));
        }
        if bare.starts_with('/') {
            return Err(format!("\"{item}\" writes to a file, which a relay-only MTA does not do"));
        }
        if let Some(path) = bare.strip_prefix(":include:") {
            return self.include(Path::new(path.trim()));
        }
        if let Some(name) = item.strip_prefix('\\') {
            return addresses(name).map(|list| list.into_iter().map(Target::Final).collect());
        }
        addresses(item).map(|list| list.into_iter().map(Target::Address).collect())
    }

    /// A file with addresses, a line each or with commas between them.
    fn include(&self, path: &Path) -> Result<Vec<Target>, String> {
        let told = |what: String| format!(":include:{}: {what}", path.display());
        if !path.is_absolute() {
            return Err(told("the path must be absolute".to_owned()));
        }
        let text = open(path, self.uid).map_err(told)?;
        let mut targets = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            for item in items(line).into_iter().filter(|_| !line.starts_with('#')) {
                if item.contains(":include:") {
                    return Err(told(format!("line {}: lists do not include lists", number + 1)));
                }
                targets.extend(self.target(&item).map_err(|what| told(format!("line {}: {what}", number + 1)))?);
            }
        }
        Ok(targets)
    }
}

fn addresses(text: &str) -> Result<Vec<Address>, String> {
    parse_list(text).map_err(|error| format!("\"{text}\": {error}"))
}

/// The text of a file of root's or `uid`'s that not everybody may change.
fn open(path: &Path, uid: u32) -> Result<String, String> {
    let words = |error: std::io::Error| crate::outcome::words(&error);
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(words)?;
    let found = file.metadata().map_err(words)?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if found.mode() & 0o002 != 0 {
        return Err(format!("everybody may change it; chmod o-w {} mends that", path.display()));
    }
    if found.uid() != 0 && found.uid() != uid {
        return Err("it belongs to somebody else".to_owned());
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(words)?;
    if text.len() as u64 > LARGEST {
        return Err(format!("it has more than {} MiB", LARGEST >> 20));
    }
    Ok(text)
}

/// Lines with their numbers, those that go on joined, without comments and blank ones.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (number, line) in text.lines().enumerate() {
        let goes_on = is_open || line.starts_with([' ', '\t']);
        let open = line.strip_suffix('\\');
        is_open = open.is_some();
        let line = open.unwrap_or(line).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match lines.last_mut().filter(|_| goes_on) {
            Some((_, entry)) => {
                entry.push(' ');
                entry.push_str(line);
            }
            None => lines.push((number + 1, line.to_owned())),
        }
    }
    lines
}

/// `name: value`, the name perhaps in double quotes.
fn split_name(entry: &str) -> Option<(String, &str)> {
    let (name, value) = match entry.strip_prefix('"') {
        Some(rest) => {
            let (name, rest) = rest.split_once('"')?;
            (name, rest.trim_start().strip_prefix(':')?)
        }
        None => entry.split_once(':')?,
    };
    let name = name.trim();
    (!name.is_empty()).then(|| (name.to_owned(), value))
}

/// Whom a line that is no alias was most likely to be one for: what stands before its colon, else its first word.
fn meant_name(entry: &str) -> &str {
    let name = entry.split_once(':').map(|(name, _)| name).or_else(|| entry.split_whitespace().next());
    name.unwrap_or_default().trim_matches(|c: char| c == '"' || c.is_whitespace())
}

/// What stands between the commas, but not those in quotes.
fn items(value: &str) -> Vec<String> {
    let (mut items, mut item, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in value.chars() {
        if c == ',' && !quoted && !escaped {
            items.push(std::mem::take(&mut item));
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        item.push(c);
    }
    items.push(item);
    items.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn me() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    /// All is well with them.
    fn load(text: &str) -> Aliases {
        let (aliases, problems) = read(text);
        assert_eq!(problems, []);
        aliases
    }

    fn read(text: &str) -> (Aliases, Vec<Problem>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aliases");
        std::fs::write(&path, text).unwrap();
        let (aliases, problems) = Aliases::load(&[], Some(&path), me());
        let without_dir = |one: Problem| Problem { place: one.place.replace(dir.path().to_str().unwrap(), ""), ..one };
        (aliases, problems.into_iter().map(without_dir).collect())
    }

    fn resolve(aliases: &Aliases, name: &str) -> Result<String, String> {
        let address = parse_list(name).unwrap().remove(0);
        let local = |domain: &str| matches!(domain, "localhost" | "box.example");
        let found = aliases.resolve(&address, &local)?;
        Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn local_names_lead_to_addresses_as_the_alias_file_says() {
        let aliases = load("# comment\n\nRoot: ops@x.org,\n\talice\n");
        assert_eq!(resolve(&aliases, "root").unwrap(), "ops@x.org alice");
        let aliases = load(
            "root: admin\nadmin: \"J. Doe\" <j@x.org>, b@x.org\n\"night shift\": n@x.org\nbob: \\bob, bob@far.org\n\
             self: self, s@x.org\n",
        );
        for (name, want) in [
            ("root", "j@x.org b@x.org"),
            ("ROOT@localhost", "j@x.org b@x.org"),
            ("root@box.example", "j@x.org b@x.org"),
            ("root@elsewhere.org", "root@elsewhere.org"),
            ("\"night shift\"", "n@x.org"),
            ("bob", "bob bob@far.org"),
            ("self", "self s@x.org"),
            ("nobody", "nobody"),
        ] {
            assert_eq!(resolve(&aliases, name).unwrap(), want, "{name}");
        }
    }

    #[test]
    fn the_default_is_for_names_that_have_no_alias() {
        let aliases = load("default: ops@x.org\nalice: bob\n");
        assert_eq!(resolve(&aliases, "cron").unwrap(), "ops@x.org");
        assert_eq!(resolve(&aliases, "alice").unwrap(), "bob", "an alias has said who alice is");
        assert_eq!(resolve(&aliases, "x@y.org").unwrap(), "x@y.org");
    }

    #[test]
    fn a_circle_is_told_with_its_chain() {
        let aliases = load("a: b\nb: c, x@y.org\nc: A\n");
        assert_eq!(resolve(&aliases, "a").unwrap_err(), "the aliases lead in a circle: a → b → c → a");
        let long = (0..30).fold(String::new(), |text, i| text + &format!("n{i}: n{}\n", i + 1));
        assert!(resolve(&load(&long), "n0").unwrap_err().starts_with("the aliases lead too far: n0 → n1"));
    }

    #[test]
    fn what_a_relay_cannot_do_is_an_error_and_all_are_told_at_once() {
        let (_, problems) = read(
            "a: |/bin/sh\nb: /var/mail/b\nc: \"|vacation c\", ok@x.org\nno alias\nd:\ne: x y z\nf: :include:rel\n",
        );
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let starts = [
            "/aliases:1: a: \"|/bin/sh\" runs",
            "/aliases:2: b: \"/var",
            "/aliases:3: c:",
            "/aliases:4: this is no",
            "/aliases:5: d stands for nobody",
            "/aliases:6: e: \"x y z\"",
            "/aliases:7: f: :include:rel",
        ];
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        for (one, start) in told.iter().zip(starts) {
            assert!(one.starts_with(start), "{one}");
        }
    }

    #[test]
    fn lines_that_go_on_are_joined_and_where_one_only_seems_to_nobody_is_left_out() {
        let aliases = load("a: a@x.org,\n\tb@x.org\n# between\n  ,c@x.org\nb: a@x.org,\\\nb@x.org, \\\n   c@x.org\n");
        assert_eq!(resolve(&aliases, "a"), Ok("a@x.org b@x.org c@x.org".to_owned()));
        assert_eq!(resolve(&aliases, "b"), Ok("a@x.org b@x.org c@x.org".to_owned()));
        // sendmail and Postfix skip the second line, and bob goes without.
        let (aliases, problems) = read("team: ann@x.org,\nbob@x.org\nother: ann@x.org\nteam: late@x.org,\nx@x.org\n");
        assert_eq!(problems.len(), 2);
        assert!(resolve(&aliases, "team").unwrap_err().contains("/aliases:2: this is no alias"));
        assert_eq!(resolve(&aliases, "other"), Ok("ann@x.org".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_one_alias_costs_nobody_else_his_mail() {
        let (aliases, _) = read(
            "mailman: |/bin/list\nroot: ops@x.org, |vacation\ncron: root\nalice ann@x.org\n\"night shift: n@x.org\n\
             : x\n\
             bob: b@x.org, carol\nbob: |late\ndefault: rest@x.org\n",
        );
        for (name, found) in [
            ("bob", Ok("b@x.org carol")),
            ("dave", Ok("rest@x.org")),
            ("root@elsewhere.org", Ok("root@elsewhere.org")),
            ("mailman", Err("/aliases:1: mailman: ")),
            ("Root@localhost", Err("/aliases:2: root: \"|vacation\" ")),
            ("cron", Err("/aliases:2: root: ")),
            ("alice", Err("/aliases:4: this is no alias")),
            ("\"night shift\"", Err("/aliases:5: this is no alias")),
        ] {
            match (resolve(&aliases, name), found) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{name}"),
                (Err(told), Err(start)) => assert!(told.contains(start), "{name}: {told}"),
                (got, want) => panic!("{name}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_open_who_any_other_name_is() {
        let table = [("root".to_owned(), "table@x.org, cron".to_owned()), ("ann".to_owned(), "ann@x.org".to_owned())];
        let (aliases, problems) = Aliases::load(&table, Some(Path::new("/nonexistent/aliases")), me());
        assert_eq!(problems.len(), 1);
        assert_eq!(resolve(&aliases, "ann").unwrap(), "ann@x.org");
        assert_eq!(resolve(&aliases, "bob@x.org").unwrap(), "bob@x.org");
        for name in ["bob", "bob@localhost", "root"] {
            assert!(resolve(&aliases, name).unwrap_err().starts_with("/nonexistent/aliases: No such file"), "{name}");
        }
    }

    #[test]
    fn an_include_is_read_only_where_nobody_else_can_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        std::fs::write(&list, "# the night\na@x.org, b@x.org\nalice\n").unwrap();
        let table = [("all".to_owned(), format!(":include:{}", list.display()))];
        assert_eq!(resolve(&Aliases::load(&table, None, me()).0, "all").unwrap(), "a@x.org b@x.org alice");
        std::fs::set_permissions(&list, std::fs::Permissions::from_mode(0o666)).unwrap();
        let (_, problems) = Aliases::load(&table, None, me());
        assert!(problems[0].what.contains("chmod o-w"), "{}", problems[0]);
        std::fs::remove_file(&list).unwrap();
        assert!(Aliases::load(&table, None, me()).1[0].what.contains("No such file"));
    }

    #[test]
    fn the_configuration_comes_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aliases");
        std::fs::write(&path, "root: file@x.org\ncron: file@x.org\n").unwrap();
        let table = [("root".to_owned(), "table@x.org".to_owned())];
        let (aliases, _) = Aliases::load(&table, Some(&path), me());
        assert_eq!(resolve(&aliases, "root").unwrap(), "table@x.org");
        assert_eq!(resolve(&aliases, "cron").unwrap(), "file@x.org");
    }

    proptest! {
        #[test]
        fn any_file_is_aliases_or_problems(text in "(\\PC|\n|,|:|\"){0,80}") {
            let _ = resolve(&read(&text).0, "root");
        }
    }
}
