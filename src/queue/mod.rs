//! The queue: what survives a power cut. It keeps letters, delivers none, and knows neither relays nor settings.
//!
//! # A letter is one file
//! ```text
//! letters/ID   head (entry) │ content │ seal │ records …
//!              └ written once, fsynced before it has this name ┘ └ appended, a line with a checksum each
//! ```
//! Head, content and seal never change. What happens to the letter is appended behind the
//! seal (history), so the file that carries the lock is never replaced, a list of letters
//! reads one file each, and head and records cannot be mixed up. The alternative that lost
//! keeps records in a second file: two names to make last, to move and to sweep, for nothing.
//!
//! # States
//! | `tmp/ID` | `letters/ID` | `failed/ID` | state | who ends it |
//! |---|---|---|---|---|
//! | – | – | – | no letter | |
//! | ✓ | – | – | being written, or its writer died: nobody was told 0 | the writer; else [`Queue::sweep`] after 36 h |
//! | – | ✓ | – | accepted: waiting, locked by whoever attempts it, or on hold | [`Claim::close`], [`Queue::remove`] |
//! | – | – | ✓ | failed for somebody, who was reported: kept for a while | sweep after `keep`, [`Queue::retry`] |
//!
//! Renames do not replace: an id is taken by making `tmp/ID` exclusively and then finding it neither in `letters` nor
//! in `failed`; nobody else can bring it there meanwhile, since that takes `tmp/ID` as well.
//!
//! # The order of things
//! - **Accept**: make `tmp/ID` · write it whole · fsync · rename to `letters/ID` · fsync `letters`. At that instant it
//!   is ours. Two fsyncs. Any error undoes it: the letter is the caller's again.
//! - **Attempt**: open, lock, look whether the name still leads to the locked file, check the seal · append `begun` (if
//!   that cannot be written, neither could the outcome) · MAIL FROM … · append the outcomes. They are fsynced where
//!   somebody's is final and the letter lives on for another; else losing them costs no more than an attempt.
//! - **All have it**: unlink, at once · fsync `letters`, for up to 16 letters together ([`Queue::sync`]): a power cut
//!   before that fsync delivers them once more. Where the unlink fails, append the outcomes instead · fsync.
//! - **Somebody will not get it**: outcomes, fsync · append which id the report will have, fsync · accept the report
//!   under it · rename to `failed/ID` · fsync `failed`. Whoever finds a crash in the middle looks for that id before
//!   reporting again.
//!
//! A file that is no letter (a link, a FIFO, a stranger's, a broken seal) goes to `corrupt/` with a reason beside it,
//! and is never sent. An I/O error is neither an end of file nor a broken seal: the file stays.

mod claim;
mod content;
mod disk;
mod entry;
#[cfg(fuzzing)]
pub mod fuzz;
mod handle;
mod history;
mod id;
mod letter;
mod outcome_words;
mod papers;
#[cfg(test)]
mod powercut;
pub mod retry;
mod runner_lock;
mod seal;
mod spool;
mod sweep;
mod words;

pub use claim::{Claim, Closed, EXPIRED, Unclaimed};
pub use entry::Entry;
pub use handle::{Listed, State};
pub use history::{Event, History, Verdict};
pub use id::Id;
pub use letter::Letter;
pub use papers::Papers;
pub use runner_lock::{RunnerLock, Wake};
pub use spool::Spool;
pub use sweep::Swept;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use ring::digest::{Context, SHA256};

use crate::envelope::Envelope;
use crate::message::{Content, Facts};
use crate::outcome::{Outcome, words};
use disk::Disk;
use letter::Stored;

/// Letters whose removal may wait for one fsync.
const UNSYNCED: u32 = 16;

/// Ids tried before we believe that the directory plays tricks: more letters than this do not arrive in one tick.
const IDS: usize = 10_000;

/// Octets gathered for one write.
const BLOCK: u64 = 64 * 1024;

/// A directory of letters.
pub struct Queue {
    root: PathBuf,
    disk: Box<dyn Disk>,
    /// Letters removed since their directory was last fsynced.
    removed: AtomicU32,
}

/// A letter to be accepted.
pub struct Submission<'a> {
    /// Who sends and who receives.
    pub envelope: &'a Envelope,
    /// The canonical octets.
    pub content: &'a dyn Content,
    /// What the session must know of the body.
    pub facts: Facts,
    /// Octets of the header, without the empty line behind it.
    pub header_len: u64,
    /// Who hands it in.
    pub uid: u32,
    /// The account that was asked for by name.
    pub account: Option<&'a str>,
    /// The attempt that was made before the letter came to the queue:
    /// what it gave for each recipient of the envelope, in its order.
    pub tried: Option<&'a [Tried<'a>]>,
}

/// What an attempt gave for one recipient.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// What it meant.
    pub outcome: &'a Outcome,
    /// The relay, as `Report::relay` names it.
    pub relay: &'a str,
}

/// The queue has the letter: it survives a power cut from here on. Nobody else can make one.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    id: Id,
}

impl Accepted {
    /// The letter's name.
    pub fn id(&self) -> Id {
        self.id
    }
}

/// Why the queue could not do what it was asked. Nothing was changed, unless the text says so.
#[derive(Debug)]
pub enum Error {
    /// The system refused; the errno is in `source`.
    Io {
        /// What was being done, as in "cannot …".
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory is not one that private letters may lie in.
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Why not, and what mends it.
        why: &'static str,
    },
    /// There is no such letter.
    NoSuchLetter(Id),
    /// Somebody is sending it right now.
    Busy(Id),
    /// It is not a letter, or no longer.
    Damaged(Id, &'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, source } => write!(f, "cannot {doing} {}: {}", path.display(), words(source)),
            Self::Unsafe { path, why } => write!(f, "will not keep letters in {}: {why}", path.display()),
            Self::NoSuchLetter(id) => write!(f, "{id}: there is no such letter in the queue"),
            Self::Busy(id) => write!(f, "{id} is being sent at this moment"),
            Self::Damaged(id, why) => write!(f, "{id} is damaged: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// The system's error, where it is one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// The directories of a queue.
const LETTERS: &str = "letters";
const TMP: &str = "tmp";
const FAILED: &str = "failed";
const CORRUPT: &str = "corrupt";

impl Queue {
    /// Opens the queue in `dir`, making it where it is missing.
    ///
    /// Refuses a symbolic link, a directory of somebody else, and one that others may write to.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        if let Some(queue) = Self::find(dir)? {
            return Ok(queue);
        }
        let queue = Self::on(dir, Box::new(disk::Os));
        queue.make_dirs()?;
        check_root(dir)?;
        Ok(queue)
    }

    /// Opens the queue in `dir` if there is one; for those who only want to look.
    pub fn find(dir: &Path) -> Result<Option<Self>, Error> {
        Ok(check_root(dir)?.map(|()| Self::on(dir, Box::new(disk::Os))))
    }

    fn on(dir: &Path, disk: Box<dyn Disk>) -> Self {
        Self { root: dir.to_owned(), disk, removed: AtomicU32::new(0) }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.root
    }

    /// Takes a letter: when this returns, it survives a power cut. On an error nothing of it is left.
    pub fn accept(&self, letter: &Submission<'_>, now: SystemTime) -> Result<Accepted, Error> {
        self.take(letter, now).map(|stored| Accepted { id: stored.letter.entry.id })
    }

    /// Takes a letter like [`Queue::accept`] and keeps it claimed: nobody attempts it in between.
    pub fn accept_claimed(&self, letter: &Submission<'_>, now: SystemTime) -> Result<Claim<'_>, Error> {
        self.take(letter, now).map(|stored| Claim::new(self, stored))
    }

    fn take(&self, letter: &Submission<'_>, now: SystemTime) -> Result<Stored, Error> {
        let mut id = Id::at(now);
        for _ in 0..IDS {
            if let Some(stored) = self.accept_as(id, letter, now)? {
                return Ok(stored);
            }
            id = id.next();
        }
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "every queue id of this moment is taken");
        Err(Error::at("name a letter in", &self.root)(taken))
    }

    /// Takes a letter under an id of the caller's choice, and keeps it locked. `None` where that is taken.
    fn accept_as(&self, id: Id, letter: &Submission<'_>, now: SystemTime) -> Result<Option<Stored>, Error> {
        let tmp = self.path(TMP, id);
        let file = match self.disk.create(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_dirs()?;
                self.disk.create(&tmp)
            }
            made => made,
        }
        .map_err(Error::at("make", &tmp))?;
        // What was tried is what the caller must hear of, not that the rubbish could not be taken out.
        let undo = |path: &Path| drop(self.disk.unlink(path));
        let stored = match self.fill(id, &Arc::new(file), letter, now) {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                undo(&tmp);
                return Ok(None);
            }
            Err(error) => {
                undo(&tmp);
                return Err(error);
            }
        };
        let letters = self.root.join(LETTERS);
        self.disk
            .sync_dir(&letters)
            .map_err(Error::at("write", &letters))
            .inspect_err(|_| undo(&self.path(LETTERS, id)))?;
        Ok(Some(stored))
    }

    /// Fills `tmp/ID`, makes its octets last and names it `letters/ID`. `None`: that name is taken.
    ///
    /// The file is locked until its writer closes it: against a sweep, and against runners, so that nobody sends a
    /// letter of which the caller then hears that we could not take it.
    fn fill(
        &self,
        id: Id,
        file: &Arc<File>,
        letter: &Submission<'_>,
        now: SystemTime,
    ) -> Result<Option<Stored>, Error> {
        let (tmp, path) = (self.path(TMP, id), self.path(LETTERS, id));
        file.try_lock().map_err(|error| Error::at("lock", &tmp)(error.into()))?;
        if is_there(&path)? || is_there(&self.path(FAILED, id))? {
            return Ok(None);
        }
        let stored = self.write(id, file, letter, now).map_err(Error::at("write", &tmp))?;
        self.disk.sync(file).map_err(Error::at("write", &tmp))?;
        self.disk.rename(&tmp, &path).map_err(Error::at("name", &path))?;
        Ok(Some(stored))
    }

    fn write(&self, id: Id, file: &Arc<File>, letter: &Submission<'_>, now: SystemTime) -> io::Result<Stored> {
        let entry = Entry {
            id,
            created: now,
            uid: letter.uid,
            account: letter.account.map(str::to_owned),
            envelope: letter.envelope.clone(),
            facts: letter.facts,
            header_len: letter.header_len,
            size: letter.content.len(),
        };
        let mut block = entry.to_text().into_bytes();
        let head = block.len() as u64;
        let mut context = Context::new(&SHA256);
        let mut reader = letter.content.reader()?;
        let mut left = entry.size;
        loop {
            left -= reader.by_ref().take(left.min(BLOCK)).read_to_end(&mut block)? as u64;
            context.update(&block);
            if left == 0 {
                break;
            }
            if (block.len() as u64) < BLOCK {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.disk.write(file, &block)?;
            block.clear();
        }
        block.extend_from_slice(seal::line(&context.finish()).as_bytes());
        let mut history = History::new(now, letter.envelope.recipients().len());
        if let Some(tried) = letter.tried {
            let events = history.outcomes(tried, 1, now);
            block.extend(events.iter().flat_map(|event| event.to_line(id).into_bytes()));
            history.apply_all(&events);
        }
        self.disk.write(file, &block)?;
        Ok(Stored { file: Arc::clone(file), letter: Letter { entry, history }, head })
    }

    /// Makes the removals so far last. A runner calls it whenever it would otherwise wait.
    pub fn sync(&self) -> Result<(), Error> {
        if self.removed.swap(0, Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let letters = self.root.join(LETTERS);
        self.disk.sync_dir(&letters).map_err(Error::at("write", &letters))
    }

    /// Unlinks a letter that everybody has.
    fn forget(&self, id: Id) -> Result<(), Error> {
        let path = self.path(LETTERS, id);
        self.disk.unlink(&path).map_err(Error::at("remove", &path))?;
        self.removed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the removals so far last, where there are enough of them.
    fn sync_some(&self) -> Result<(), Error> {
        if self.removed.load(Ordering::Relaxed) >= UNSYNCED { self.sync() } else { Ok(()) }
    }

    /// Moves a letter between two of the queue's directories and makes that last. A rename is whole or has not
    /// happened: the directory that the letter appears in tells for both.
    fn transfer(&self, id: Id, from: &'static str, to: &'static str) -> Result<(), Error> {
        let (old, new) = (self.path(from, id), self.path(to, id));
        self.disk.rename(&old, &new).map_err(Error::at("move", &old))?;
        let dir = self.root.join(to);
        self.disk.sync_dir(&dir).map_err(Error::at("write", &dir))
    }

    /// Appends a record. Each begins on a line of its own, even behind one that was cut short.
    fn append(&self, file: &File, id: Id, events: &[Event]) -> io::Result<()> {
        let lines: String = events.iter().map(|event| event.to_line(id)).collect();
        self.disk.write(file, format!("\n{lines}").as_bytes())
    }

    fn make_dirs(&self) -> Result<(), Error> {
        // `tmp` last: an accept that finds it takes the others for granted.
        for name in [LETTERS, FAILED, CORRUPT, TMP] {
            let dir = self.root.join(name);
            disk::make_dir(&dir).map_err(Error::at("make", &dir))?;
        }
        Ok(())
    }

    fn path(&self, dir: &str, id: Id) -> PathBuf {
        self.root.join(dir).join(id.to_string())
    }

    /// The ids in one of the queue's directories, in the order of their arrival.
    fn ids_in(&self, dir: &str) -> Result<Vec<Id>, Error> {
        let dir = self.root.join(dir);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(Error::at("read", &dir))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::at("read", &dir))?.file_name();
            ids.extend(name.to_str().and_then(Id::of_file));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// Whether anything has this name.
fn is_there(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::at("look at", path)(error)),
    }
}

/// Whether letters are safe in a directory; `None` where there is nothing.
fn check_root(dir: &Path) -> Result<Option<()>, Error> {
    let refuse = |why| Err(Error::Unsafe { path: dir.to_owned(), why });
    let found = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(Error::at("look at", dir))?,
    };
    if found.is_symlink() {
        refuse("it is a symbolic link; name the directory itself")
    } else if !found.is_dir() {
        refuse("it is not a directory")
    } else if found.uid() != nix::unistd::geteuid().as_raw() {
        refuse("it belongs to another user")
    } else if found.mode() & 0o022 != 0 {
        refuse("others may write to it; chmod 700 mends that")
    } else {
        Ok(Some(()))
    }
}

#[cfg(test)]
mod tests;
