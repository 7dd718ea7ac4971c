//! Where the letters are that `pillarbox queue` works on: in a directory that it can open itself, or behind the
//! service's socket. Both do the same by the same names.

use super::Only;
use crate::cli::configuration::Configuration;
use crate::cli::exit::{self, sysexits};
use crate::cli::host::Host;
use crate::cli::meaning::{Field, Filter, Run as Wanted};
use crate::cli::run::{self, Progress, Runs};
use crate::cli::service::Session;
use crate::cli::signals::Watch;
use crate::config::{Settings, choose};
use crate::message::Content;
use crate::outcome::printable;
use crate::queue::{Error, Id, Letter, Listed, Papers, Queue, State};
use crate::runner::{Ran, Tally};
use crate::smtp::interrupt::Interrupt;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at what the service does.
const LOOK: Duration = Duration::from_millis(300);

/// How long the service may seem to do nothing before we leave it to it.
const STILL: Duration = Duration::from_mins(10);

/// Why something was not done: a sentence, and the exit status.
#[derive(Debug)]
pub struct Trouble {
    pub sentence: String,
    pub status: u8,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { sentence: error.to_string(), status: exit::queue(&error) }
    }
}

/// A letter, and the accounts that it would go through now.
#[derive(Debug)]
pub struct Row {
    pub listed: Listed,
    pub accounts: Vec<String>,
}

/// A letter's papers, and the accounts.
pub type Told = (Papers, Vec<String>);

/// A list, and what could not be listed.
#[derive(Debug, Default)]
pub struct Rows {
    pub letters: Vec<Row>,
    pub troubles: Vec<Trouble>,
    /// Files that were no letters, and why.
    pub corrupt: Vec<String>,
}

/// What is done to a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Hold,
    Release,
    Retry,
    Remove,
}

impl Change {
    /// What is true of the letter afterwards.
    pub fn done(self) -> &'static str {
        match self {
            Self::Hold => "is on hold",
            Self::Release => "is released",
            Self::Retry => "starts afresh",
            Self::Remove => "is removed",
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Remove => "remove",
        }
    }
}

/// Which letters are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Due,
    All,
    These(Vec<Id>),
}

/// A queue, wherever it is.
pub trait Place {
    /// The letters that wait, or those that failed and are kept.
    fn list(&mut self, failed: bool) -> Result<Rows, Trouble>;
    /// All that is known of a letter.
    fn papers(&mut self, id: Id) -> Result<Told, Trouble>;
    /// A letter's header, as its octets.
    fn header(&mut self, id: Id, len: u64) -> Result<Vec<u8>, Trouble>;
    /// A letter's octets.
    fn content(&mut self, id: Id) -> Result<Vec<u8>, Trouble>;
    fn change(&mut self, change: Change, id: Id) -> Result<(), Trouble>;
    /// Tries letters, and tells how far that has come on a terminal.
    fn run(&mut self, selection: &Selection, verbose: bool) -> Result<(Tally, Option<Trouble>), Trouble>;

    /// The letters that pass; those that failed only where these are asked for.
    fn chosen(&mut self, only: &Only, failed: bool) -> Result<Rows, Trouble> {
        let mut found = self.list(failed || only.state == Some(State::Failed))?;
        let now = SystemTime::now();
        found.letters.retain(|row| only.takes(row, now));
        Ok(found)
    }
}

/// The accounts that what is left of a letter goes through.
pub fn ways(settings: &Settings, letter: &Letter) -> Vec<String> {
    let envelope = letter.remaining().unwrap_or_else(|| letter.entry.envelope.clone());
    let routes = choose::routes(settings, letter.entry.account.as_deref(), &envelope);
    let mut names = Vec::new();
    for route in routes.unwrap_or_default() {
        // With direct delivery each domain has a route.
        if !names.contains(&route.to.account.name) {
            names.push(route.to.account.name.clone());
        }
    }
    names
}

/// A queue that we can open.
pub struct Here<'a> {
    pub configuration: &'a Configuration,
    pub host: &'a Host,
    pub queue: Queue,
}

impl Here<'_> {
    fn octets(&self, id: Id, most: u64) -> Result<Vec<u8>, Trouble> {
        let content = self.queue.content(id)?;
        let mut octets = Vec::new();
        let read = content.reader().and_then(|reader| reader.take(most).read_to_end(&mut octets));
        read.map_err(|source| Error::Io { doing: "read", path: self.queue.dir().join(id.to_string()), source })?;
        Ok(octets)
    }
}

impl Place for Here<'_> {
    fn list(&mut self, failed: bool) -> Result<Rows, Trouble> {
        let listed: Vec<_> = if failed { self.queue.failed()?.collect() } else { self.queue.list()?.collect() };
        let mut found = Rows::default();
        for listed in listed {
            match listed {
                Ok(listed) => {
                    let accounts = ways(&self.configuration.settings, &listed.letter);
                    found.letters.push(Row { listed, accounts });
                }
                Err(error) => found.troubles.push(error.into()),
            }
        }
        let corrupt = self.queue.corrupt().unwrap_or_default().into_iter();
        found.corrupt = corrupt.map(|(name, why)| format!("{name}: {why}")).collect();
        Ok(found)
    }

    fn papers(&mut self, id: Id) -> Result<Told, Trouble> {
        let papers = self.queue.papers(id)?;
        let listed = papers.listed().map(|listed| ways(&self.configuration.settings, &listed.letter));
        Ok((papers, listed.unwrap_or_default()))
    }

    fn header(&mut self, id: Id, len: u64) -> Result<Vec<u8>, Trouble> {
        self.octets(id, len)
    }

    fn content(&mut self, id: Id) -> Result<Vec<u8>, Trouble> {
        self.octets(id, u64::MAX)
    }

    fn change(&mut self, change: Change, id: Id) -> Result<(), Trouble> {
        let now = SystemTime::now();
        match change {
            Change::Hold => self.queue.hold(id, "by hand", now)?,
            Change::Release => self.queue.release(id, now)?,
            Change::Retry => self.queue.retry(id, now)?,
            Change::Remove => self.queue.remove(id)?,
        }
        if matches!(change, Change::Release | Change::Retry) {
            run::wake(&self.queue, self.configuration);
        }
        Ok(())
    }

    fn run(&mut self, selection: &Selection, verbose: bool) -> Result<(Tally, Option<Trouble>), Trouble> {
        let interrupt = Interrupt::default();
        Watch::start(interrupt.clone()).message_is_read();
        let runs = Runs { configuration: self.configuration, host: self.host, queue: &self.queue, interrupt };
        let wanted = |listed: &Listed| match selection {
            Selection::Due => listed.letter.is_due(SystemTime::now()),
            Selection::All => true,
            Selection::These(ids) => ids.contains(&listed.letter.entry.id),
        };
        let Ran { tally, hindered } = runs.run(verbose, &wanted)?;
        let trouble = hindered.map(|(letters, error)| {
            let (sentence, status) = run::hindrance(letters, &error);
            Trouble { sentence, status }
        });
        Ok((tally, trouble))
    }
}

/// The service's queue, by its verb XQUEUE.
pub struct There {
    socket: PathBuf,
    session: Session,
}

impl There {
    pub fn open(socket: &Path) -> io::Result<Self> {
        Ok(Self { socket: socket.to_owned(), session: Session::open(socket)? })
    }

    /// Has something done. The lines of the answer go to `more`.
    fn ask(&mut self, command: &str, more: &mut dyn FnMut(&str)) -> Result<(), Trouble> {
        let service = self.socket.display();
        let (code, text) = self.session.ask(&format!("XQUEUE {command}"), more).map_err(|error| Trouble {
            sentence: format!("the service at {service} does not answer: {}", crate::outcome::words(&error)),
            status: sysexits::TEMPFAIL,
        })?;
        let status = match code {
            250 => return Ok(()),
            450 => sysexits::TEMPFAIL,
            554 => sysexits::DATAERR,
            400..500 => sysexits::IOERR,
            _ => sysexits::USAGE,
        };
        // Its enhanced code says the same.
        let text = text.split_once(' ').map_or(&*text, |(_, text)| text);
        Err(Trouble { sentence: format!("the service at {service}: {}", printable(text)), status })
    }

    /// Letters' papers, each behind the line that begins it.
    fn letters(&mut self, command: &str) -> Result<(Vec<Told>, Vec<String>), Trouble> {
        let (mut found, mut corrupt) = (Vec::<(State, Vec<String>, Vec<String>)>::new(), Vec::new());
        let done = self.ask(command, &mut |line| {
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(State::parse), words.next()) {
                (Some("letter"), Some(state), Some(accounts)) => {
                    let accounts = accounts.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                    found.push((state, accounts, Vec::new()));
                }
                (Some("corrupt:"), ..) => corrupt.extend(line.strip_prefix("corrupt: ").map(str::to_owned)),
                _ => {
                    if let Some((_, _, lines)) = found.last_mut() {
                        lines.push(line.to_owned());
                    }
                }
            }
        });
        let papers = |(state, accounts, lines): (_, _, Vec<String>)| {
            (Papers::of(state, lines.iter().map(String::as_str)), accounts)
        };
        done.map(|()| (found.into_iter().map(papers).collect(), corrupt))
    }

    fn octets(&mut self, command: &str, id: Id) -> Result<Vec<u8>, Trouble> {
        let mut octets = Vec::new();
        self.ask(&format!("{command} {id}"), &mut |line| {
            octets.extend(BASE64_STANDARD.decode(line).unwrap_or_default());
        })?;
        Ok(octets)
    }

    /// What has become since `since` of letters that are to be tried.
    fn tally(&mut self, ids: &[Id], since: SystemTime) -> Result<(Tally, bool), Trouble> {
        let waiting: HashMap<Id, Listed> = self.list(false)?.letters.into_iter().map(keyed).collect();
        let gone = ids.iter().any(|id| !waiting.contains_key(id));
        // Those that have failed lie elsewhere.
        let failed: HashMap<Id, Listed> =
            if gone { self.list(true)?.letters.into_iter().map(keyed).collect() } else { HashMap::new() };
        let mut tally = Tally { wanted: ids.len(), ..Tally::default() };
        for id in ids {
            match waiting.get(id) {
                None if failed.contains_key(id) => tally.failed += 1,
                None => tally.relayed += 1,
                Some(listed) if listed.state == State::Hold => tally.skipped += 1,
                Some(listed) => {
                    let history = &listed.letter.history;
                    let tried = history.last_attempt().is_some_and(|last| last >= since);
                    tally.deferred += usize::from(tried && !history.is_open() && listed.state != State::Active);
                }
            }
        }
        Ok((tally, tally.done() == ids.len()))
    }
}

fn keyed(row: Row) -> (Id, Listed) {
    (row.listed.letter.entry.id, row.listed)
}

impl Place for There {
    fn list(&mut self, failed: bool) -> Result<Rows, Trouble> {
        let (letters, corrupt) = self.letters(if failed { "FAILED" } else { "LIST" })?;
        let row = |(papers, accounts): (Papers, _)| Some(Row { listed: papers.listed()?, accounts });
        Ok(Rows { letters: letters.into_iter().filter_map(row).collect(), troubles: Vec::new(), corrupt })
    }

    fn papers(&mut self, id: Id) -> Result<Told, Trouble> {
        let (letters, _) = self.letters(&format!("SHOW {id}"))?;
        Ok(letters.into_iter().next().ok_or(Error::NoSuchLetter(id))?)
    }

    fn header(&mut self, id: Id, _: u64) -> Result<Vec<u8>, Trouble> {
        self.octets("HEAD", id)
    }

    fn content(&mut self, id: Id) -> Result<Vec<u8>, Trouble> {
        self.octets("CONTENT", id)
    }

    fn change(&mut self, change: Change, id: Id) -> Result<(), Trouble> {
        self.ask(&format!("{} {id}", change.word().to_uppercase()), &mut |_| ())
    }

    fn run(&mut self, selection: &Selection, verbose: bool) -> Result<(Tally, Option<Trouble>), Trouble> {
        if verbose {
            let sentence = "the service speaks with the relay, and what it says is not to be seen here".to_owned();
            return Err(Trouble { sentence, status: sysexits::USAGE });
        }
        let this = |id: &Id| Filter { field: Field::Id, text: id.to_string(), negated: false };
        let wanted = match selection {
            Selection::Due => vec![Wanted::default()],
            Selection::All => vec![Wanted { all: true, ..Wanted::default() }],
            Selection::These(ids) => {
                ids.iter().map(|id| Wanted { only: vec![this(id)], ..Wanted::default() }).collect()
            }
        };
        let (since, mut ids) = (SystemTime::now(), Vec::new());
        for wanted in wanted {
            let words = wanted.words().unwrap_or_default();
            self.ask(&format!("RUN{words}"), &mut |line| ids.extend(Id::parse(line)))?;
        }
        let left_alone = if let Selection::These(wanted) = selection { wanted.len() - ids.len() } else { 0 };
        let interrupt = Interrupt::default();
        Watch::start(interrupt.clone()).message_is_read();
        let tally = Progress::during(true, |progress| {
            let (mut last, mut moved) = (Tally::default(), Instant::now());
            loop {
                let began = Instant::now();
                let (tally, done) = self.tally(&ids, since)?;
                if tally != last {
                    (last, moved) = (tally, Instant::now());
                }
                if done || interrupt.is_tripped() || moved.elapsed() > STILL {
                    return Ok::<_, Trouble>(tally);
                }
                progress.tell(tally);
                // A look takes the longer the more letters wait.
                run::sleep(LOOK.max(5 * began.elapsed()), &interrupt);
            }
        })?;
        let unknown = ids.len() - tally.done();
        let (wanted, skipped) = (tally.wanted + left_alone, tally.skipped + left_alone + unknown);
        Ok((Tally { wanted, skipped, ..tally }, None))
    }
}
