//! What a person does with the queue: look, hold, release, bring back, remove.
//!
//! Looking takes no lock and disturbs no runner. Nothing here sends.

use std::fs::OpenOptions;
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use super::claim::Unlocked;
use super::history::Event;
use super::letter::{self, Flaw, Letter, Stored};
use super::{CORRUPT, Error, FAILED, Id, LETTERS, Papers, Queue};

/// More than any note says why a file was set aside.
const LONGEST_NOTE: u64 = 1024;

/// A letter as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What is known of it.
    pub letter: Letter,
    /// What is being done about it.
    pub state: State,
}

/// What is being done about a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No attempt yet.
    Incoming,
    /// An attempt is going on.
    Active,
    /// An attempt deferred it, or died; the next one will come.
    Deferred,
    /// No attempts until it is released.
    Hold,
    /// Kept after it failed.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Incoming, Self::Active, Self::Deferred, Self::Hold, Self::Failed];

    /// Reads the queue's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.to_string() == word)
    }
}

/// The queue's name, as `postqueue -j` has it.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Incoming => "incoming",
            Self::Active => "active",
            Self::Deferred => "deferred",
            Self::Hold => "hold",
            Self::Failed => "failed",
        })
    }
}

/// What is being done about the letter of a file in one of the queue's directories.
fn state(dir: &'static str, Stored { file, letter: Letter { history, .. }, .. }: &Stored) -> State {
    if dir == FAILED {
        State::Failed
    } else if history.hold().is_some() {
        State::Hold
    } else if history.is_open() && file.try_lock_shared().is_err() {
        // The lock is tried only where an attempt was begun: then its owner has it already, and we disturb nobody.
        State::Active
    } else if history.last_attempt().is_some() {
        State::Deferred
    } else {
        State::Incoming
    }
}

impl Queue {
    /// The letters that wait, oldest first. Letters that go while we look are left out; one that cannot be read is an
    /// `Err` in its place.
    pub fn list(&self) -> Result<impl Iterator<Item = Result<Listed, Error>> + '_, Error> {
        self.list_in(LETTERS)
    }

    /// The letters that failed and are kept.
    pub fn failed(&self) -> Result<impl Iterator<Item = Result<Listed, Error>> + '_, Error> {
        self.list_in(FAILED)
    }

    /// The files that were no letters: their names in `corrupt/`, and why.
    pub fn corrupt(&self) -> Result<Vec<(String, String)>, Error> {
        let dir = self.root.join(CORRUPT);
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(Error::at("read", &dir))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<(String, String)> = names
            .filter_map(|name| {
                let name = name.strip_suffix(".why")?.to_owned();
                let mut why = String::new();
                // What was set aside may have such a name itself, and be anything.
                if let Ok((note, _)) = letter::open(&dir.join(format!("{name}.why")), OpenOptions::new().read(true)) {
                    let _ = note.take(LONGEST_NOTE).read_to_string(&mut why);
                }
                Some((name, why.trim_end().to_owned()))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// The ids of the letters that failed and are kept.
    pub fn failed_ids(&self) -> Result<Vec<Id>, Error> {
        self.ids_in(FAILED)
    }

    /// The ids of the letters that wait, oldest first.
    pub fn ids(&self) -> Result<Vec<Id>, Error> {
        self.ids_in(LETTERS)
    }

    /// Looks at one letter, waiting or failed.
    pub fn look(&self, id: Id) -> Result<Listed, Error> {
        match self.look_in(LETTERS, id) {
            Err(Error::NoSuchLetter(_)) => self.look_in(FAILED, id),
            found => found,
        }
    }

    /// A letter's octets, waiting or failed, for `show`.
    pub fn content(&self, id: Id) -> Result<impl crate::message::Content + 'static, Error> {
        let stored = |dir| Stored::peek(&self.path(dir, id), id).map_err(|flaw| self.unreadable(dir, id, flaw));
        let stored = match stored(LETTERS) {
            Err(Error::NoSuchLetter(_)) => stored(FAILED),
            stored => stored,
        }?;
        Ok(stored.content())
    }

    /// Makes no attempts at a letter until it is released. An attempt that is going on is not disturbed.
    pub fn hold(&self, id: Id, why: &str, now: SystemTime) -> Result<(), Error> {
        self.remark(id, LETTERS, &Event::Held { at: now, why: why.to_owned() })
    }

    /// Ends a hold.
    pub fn release(&self, id: Id, now: SystemTime) -> Result<(), Error> {
        self.remark(id, LETTERS, &Event::Released { at: now })
    }

    /// Starts afresh for everybody who does not have the letter, be it waiting, on hold or failed.
    pub fn retry(&self, id: Id, now: SystemTime) -> Result<(), Error> {
        let revived = Event::Revived { at: now };
        match self.remark(id, LETTERS, &revived) {
            Err(Error::NoSuchLetter(_)) => {
                self.remark(id, FAILED, &revived)?;
                self.transfer(id, FAILED, LETTERS)
            }
            done => done,
        }
    }

    /// Removes a letter, waiting or failed, for good and without a report. [`Error::Busy`] while it is being sent.
    pub fn remove(&self, id: Id) -> Result<(), Error> {
        for dir in [LETTERS, FAILED] {
            match self.lock(id, dir) {
                Err(Unlocked::Flaw(Flaw::Gone)) => {}
                Err(Unlocked::Busy) => return Err(Error::Busy(id)),
                Err(Unlocked::Flaw(flaw @ Flaw::Io(_))) => return Err(self.unreadable(dir, id, flaw)),
                // The lock lasts to the end of the arm: nobody can begin to send it while it goes.
                _lock @ (Ok(_) | Err(Unlocked::Flaw(Flaw::Damaged(_)))) => {
                    let (path, dir) = (self.path(dir, id), self.root.join(dir));
                    self.disk.unlink(&path).map_err(Error::at("remove", &path))?;
                    return self.disk.sync_dir(&dir).map_err(Error::at("write", &dir));
                }
            }
        }
        Err(Error::NoSuchLetter(id))
    }

    fn list_in(&self, dir: &'static str) -> Result<impl Iterator<Item = Result<Listed, Error>> + '_, Error> {
        let looked = self.ids_in(dir)?.into_iter().map(move |id| self.look_in(dir, id));
        Ok(looked.filter(|found| !matches!(found, Err(Error::NoSuchLetter(_)))))
    }

    fn look_in(&self, dir: &'static str, id: Id) -> Result<Listed, Error> {
        let stored = Stored::peek(&self.path(dir, id), id).map_err(|flaw| self.unreadable(dir, id, flaw))?;
        let state = state(dir, &stored);
        Ok(Listed { letter: stored.letter, state })
    }

    /// What a letter's file says, for whoever tells its story elsewhere.
    pub fn papers(&self, id: Id) -> Result<Papers, Error> {
        let read = |dir| {
            let (stored, text) =
                Stored::papers(&self.path(dir, id), id).map_err(|flaw| self.unreadable(dir, id, flaw))?;
            Ok(Papers::new(state(dir, &stored), &text))
        };
        match read(LETTERS) {
            Err(Error::NoSuchLetter(_)) => read(FAILED),
            found => found,
        }
    }

    /// Appends a record, which takes no lock: it is one write, at the end of the file.
    fn remark(&self, id: Id, dir: &'static str, event: &Event) -> Result<(), Error> {
        let path = self.path(dir, id);
        Stored::peek(&path, id).map_err(|flaw| self.unreadable(dir, id, flaw))?;
        let file = Stored::open(&path).map_err(|flaw| self.unreadable(dir, id, flaw))?;
        let written = self.append(&file, id, std::slice::from_ref(event)).and_then(|()| self.disk.sync(&file));
        written.map_err(Error::at("write to", &path))
    }

    fn unreadable(&self, dir: &'static str, id: Id, flaw: Flaw) -> Error {
        match flaw {
            Flaw::Gone => Error::NoSuchLetter(id),
            Flaw::Damaged(why) => Error::Damaged(id, why),
            Flaw::Io(source) => Error::at("read", &self.path(dir, id))(source),
        }
    }

    /// Puts a file that is no letter where nobody sends it, and says why beside it.
    pub(super) fn set_aside(&self, name: &str, why: &str) -> Result<(), Error> {
        let from = self.root.join(LETTERS).join(name);
        let free = |suffix: u32| -> PathBuf {
            let name = if suffix == 0 { name.to_owned() } else { format!("{name}.{suffix}") };
            self.root.join(CORRUPT).join(name)
        };
        let mut to = free(0);
        for suffix in 1..1000 {
            if !super::is_there(&to)? {
                break;
            }
            to = free(suffix);
        }
        self.disk.rename(&from, &to).map_err(Error::at("set aside", &from))?;
        let mut note = to.clone().into_os_string();
        note.push(".why");
        let note = PathBuf::from(note);
        let written = self.disk.create(&note).and_then(|file| self.disk.write(&file, format!("{why}\n").as_bytes()));
        written.map_err(Error::at("write", &note))
    }
}
