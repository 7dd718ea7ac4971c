//! `pillarbox queue`: the queue for people (and, with `--json`, for their programs).
//!
//! Listing and showing disturb nobody. What changes something says what it did, a line a letter; a letter that is not
//! there, or is being sent, is told and makes the status that of the last trouble, after all the others were seen to.
//!
//! Where the machine's service has the queue it is asked, and shows each user his own letters. While it does not
//! answer, root works in its directory as its user; nobody else can.

mod letter;
mod only;
mod place;
mod table;
mod watch;

pub use only::Only;
pub use place::ways;

use super::configuration::{self, Configuration};
use super::exit::sysexits;
use super::host::{self, Host};
use super::sendmail::Face;
use super::{log, run, signals};
use crate::outcome::printable;
use crate::queue::{Id, Letter, Queue};
use letter::{object, story, story_object};
use place::{Change, Here, Place, Row, Selection, There, Trouble};
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;
use table::View;

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the letters: age, next attempt, recipients left, size, and what the relay said last.
    List {
        /// A JSON object a line, with the keys of `postqueue -j`.
        #[arg(long)]
        json: bool,
        /// Those that failed and are kept, instead of those that wait.
        #[arg(long)]
        failed: bool,
        /// Which of them.
        #[command(flatten)]
        only: Only,
    },
    /// Show the list as it changes; q leaves.
    Watch {
        /// A JSON object a line for each letter that comes, changes or goes, until a signal comes.
        #[arg(long)]
        json: bool,
        /// Those that failed and are kept, instead of those that wait.
        #[arg(long)]
        failed: bool,
        /// Which of them.
        #[command(flatten)]
        only: Only,
    },
    /// Show a letter: its envelope, what became of it for each recipient, its history and its header.
    Show {
        /// The queue id.
        id: String,
        /// The same as a JSON object.
        #[arg(long, conflicts_with = "raw")]
        json: bool,
        /// The whole letter, octet for octet, and nothing else.
        #[arg(long)]
        raw: bool,
    },
    /// Try letters now: those that are due, or those that are named.
    Run {
        /// Queue ids.
        ids: Vec<String>,
        /// All that wait, due or not.
        #[arg(long)]
        all: bool,
        /// Show the dialogue with the relay.
        #[arg(short, long)]
        verbose: bool,
        /// What became of them as a JSON object.
        #[arg(long)]
        json: bool,
        /// Which of them.
        #[command(flatten)]
        only: Only,
    },
    /// Make no attempts until it is released.
    Hold(Named),
    /// End a hold.
    Release(Named),
    /// Start afresh, also with a letter that failed.
    Retry(Named),
    /// Remove for good, without a report to anybody.
    Remove(Named),
}

impl Default for Action {
    fn default() -> Self {
        Self::List { json: false, failed: false, only: Only::default() }
    }
}

/// Letters by their ids, or by what they have in common.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Queue ids.
    ids: Vec<String>,
    /// A JSON object a line for each letter that was changed.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    only: Only,
}

/// The letters that wait, and with `failed` those that failed, for whoever completes their ids; `None` where they are
/// not to be had, about which nobody is told.
pub fn letters(host: &Host, config: Option<&Path>, failed: bool) -> Option<Vec<Letter>> {
    let list = |place: &mut dyn Place| {
        let mut rows = place.list(false).ok()?.letters;
        if failed {
            rows.extend(place.list(true).ok()?.letters);
        }
        Some(rows.into_iter().map(|row| row.listed.letter).collect())
    };
    if let Some(socket) = configuration::service(host, config).ok()? {
        return list(&mut There::open(&socket).ok()?);
    }
    let configuration = configuration::load(host, config).ok()?;
    let queue = Queue::find(configuration.queue_dir.as_ref()?).ok()??;
    list(&mut Here { configuration: &configuration, host, queue })
}

/// Does it. Returns the exit status.
pub fn main(face: Face<'_>, config: Option<&Path>, action: &Action) -> u8 {
    if !matches!(action, Action::Run { .. } | Action::Watch { .. }) {
        signals::leave();
    }
    let host = Host::look();
    let trouble = match configuration::service(&host, config) {
        Ok(None) => match configuration::load(&host, config) {
            Ok(configuration) => return here(face, &host, &configuration, action),
            Err(sentence) => Trouble { sentence, status: sysexits::CONFIG },
        },
        Err(sentence) => Trouble { sentence, status: sysexits::CONFIG },
        Ok(Some(socket)) => match There::open(&socket) {
            Ok(mut there) => return act(face, &mut there, action),
            Err(error) => {
                let why =
                    format!("the service at {} does not answer: {}", socket.display(), crate::outcome::words(&error));
                match configuration::of_service(&host, Path::new(configuration::SERVICE)) {
                    Ok(configuration) if host.uid == 0 => {
                        face.say(&format!("{why}; this is its queue as it lies on the disk"));
                        return here(face, &host, &configuration, action);
                    }
                    _ => Trouble { sentence: why, status: sysexits::TEMPFAIL },
                }
            }
        },
    };
    tell(face, &trouble)
}

/// Works in a directory.
fn here(face: Face<'_>, host: &Host, configuration: &Configuration, action: &Action) -> u8 {
    log::install(&configuration.settings.log, face.program);
    let Some(dir) = &configuration.queue_dir else {
        face.say("there is no place for a queue: set queue.dir or HOME");
        return sysexits::CONFIG;
    };
    if let Err(sentence) = host::step_down(dir) {
        face.say(&sentence);
        return sysexits::NOPERM;
    }
    // To watch, it must be there before its first letter.
    let found = if let Action::Watch { .. } = action { Queue::open(dir).map(Some) } else { Queue::find(dir) };
    match found {
        Ok(Some(queue)) => act(face, &mut Here { configuration, host, queue }, action),
        // A queue that was never needed is empty; no letter of it can be named.
        Ok(None) => nothing(face, action),
        Err(error) => tell(face, &error.into()),
    }
}

fn act(face: Face<'_>, place: &mut dyn Place, action: &Action) -> u8 {
    let mut desk = Desk { face, place };
    match action {
        Action::List { json, failed, only } => desk.list(*json, *failed, only),
        Action::Watch { json: true, failed, only } => watch::as_json(face, desk.place, only, *failed),
        Action::Watch { json: false, failed, only } => watch::on_terminal(face, desk.place, only, *failed),
        Action::Show { id, raw, json } => desk.show(id, *raw, *json),
        Action::Run { ids, all, verbose, json, only } => desk.run(ids, *all, *verbose, *json, only),
        Action::Hold(named) => desk.change(Change::Hold, named),
        Action::Release(named) => desk.change(Change::Release, named),
        Action::Retry(named) => desk.change(Change::Retry, named),
        Action::Remove(named) => desk.change(Change::Remove, named),
    }
}

fn nothing(face: Face<'_>, action: &Action) -> u8 {
    match action {
        Action::List { json: true, .. } => 0,
        Action::List { .. } => face.print("The queue is empty.\n"),
        Action::Run { ids, .. } | Action::Hold(Named { ids, .. }) | Action::Release(Named { ids, .. })
            if ids.is_empty() =>
        {
            0
        }
        _ => {
            face.say("the queue is empty");
            sysexits::USAGE
        }
    }
}

fn tell(face: Face<'_>, trouble: &Trouble) -> u8 {
    face.say(&trouble.sentence);
    trouble.status
}

/// Where the work is done.
struct Desk<'a> {
    face: Face<'a>,
    place: &'a mut dyn Place,
}

impl Desk<'_> {
    fn list(&mut self, json: bool, failed: bool, only: &Only) -> u8 {
        let found = match self.place.chosen(only, failed) {
            Ok(found) => found,
            Err(trouble) => return tell(self.face, &trouble),
        };
        let status = found.troubles.iter().fold(0, |_, trouble| tell(self.face, trouble));
        let text = if json {
            let objects: Vec<String> = found.letters.iter().map(|row| object(row).to_string() + "\n").collect();
            objects.concat()
        } else {
            table::table(&found, View::of_stdout(), SystemTime::now())
        };
        status.max(self.face.print(&text))
    }

    fn show(&mut self, word: &str, raw: bool, json: bool) -> u8 {
        let Some(id) = Id::parse(word) else { return self.no_id(word) };
        if raw {
            return match self.place.content(id) {
                Ok(octets) => self.face.print_octets(&octets),
                Err(trouble) => tell(self.face, &trouble),
            };
        }
        let shown = self.place.papers(id).and_then(|(papers, accounts)| {
            let listed = papers.listed().ok_or(crate::queue::Error::NoSuchLetter(id))?;
            let header = self.place.header(id, listed.letter.entry.header_len)?;
            let row = Row { listed, accounts };
            Ok(if json {
                format!("{}\n", story_object(&papers, &row, &header))
            } else {
                story(&papers, &row, &header, View::of_stdout(), SystemTime::now())
            })
        });
        match shown {
            Ok(text) => self.face.print(&text),
            Err(trouble) => tell(self.face, &trouble),
        }
    }

    fn no_id(&self, word: &str) -> u8 {
        self.face.say(&format!("{}: this is no queue id", printable(word)));
        sysexits::USAGE
    }

    fn run(&mut self, ids: &[String], all: bool, verbose: bool, json: bool, only: &Only) -> u8 {
        let selection = match (ids, only.is_all()) {
            ([], true) if all => Selection::All,
            ([], true) => Selection::Due,
            ([], false) => match self.place.chosen(only, false) {
                Ok(found) => Selection::These(found.letters.iter().map(|row| row.listed.letter.entry.id).collect()),
                Err(trouble) => return tell(self.face, &trouble),
            },
            (_, false) => return self.both(),
            (words, true) => {
                let mut named = Vec::new();
                for word in words {
                    let Some(id) = Id::parse(word) else { return self.no_id(word) };
                    match self.place.papers(id) {
                        Ok(_) => named.push(id),
                        Err(trouble) => return tell(self.face, &trouble),
                    }
                }
                Selection::These(named)
            }
        };
        let (tally, trouble) = match self.place.run(&selection, verbose) {
            Ok(ran) => ran,
            Err(trouble) => return tell(self.face, &trouble),
        };
        let text = if json {
            let object = json!({
                "tried": tally.wanted, "relayed": tally.relayed, "deferred": tally.deferred, "failed": tally.failed,
                "left_alone": tally.skipped,
            });
            object.to_string()
        } else {
            run::summary(&tally)
        };
        let told = trouble.map_or(0, |trouble| tell(self.face, &trouble));
        told.max(self.face.print(&format!("{text}\n")))
    }

    fn both(&self) -> u8 {
        self.face.say("name letters by their ids, or by what they have in common, not by both");
        sysexits::USAGE
    }

    /// Changes each letter that is named, and says so.
    fn change(&mut self, change: Change, Named { ids, json, only }: &Named) -> u8 {
        let words = match (ids.as_slice(), only.is_all()) {
            ([], true) => {
                self.face.say(&format!("{} which letters? Name their ids, or what they have in common", change.word()));
                return sysexits::USAGE;
            }
            ([], false) => match self.place.chosen(only, false) {
                Ok(found) => found.letters.iter().map(|row| row.listed.letter.entry.id.to_string()).collect(),
                Err(trouble) => return tell(self.face, &trouble),
            },
            (_, false) => return self.both(),
            (words, true) => words.to_vec(),
        };
        let (mut status, mut text) = (0, String::new());
        for word in &words {
            let Some(id) = Id::parse(word) else {
                status = self.no_id(word);
                continue;
            };
            match self.place.change(change, id) {
                Ok(()) if *json => {
                    let _ = writeln!(text, "{}", json!({ "queue_id": id.to_string(), "change": change.word() }));
                }
                Ok(()) => {
                    let _ = writeln!(text, "{id} {}", change.done());
                }
                Err(trouble) => status = tell(self.face, &trouble),
            }
        }
        status.max(self.face.print(&text))
    }
}
