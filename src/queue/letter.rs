//! A letter's file as it lies in the queue: opened with suspicion, read without trust.
//!
//! Whatever is no regular file of ours with one name, or does not read as a letter, is damaged and never sent. An I/O
//! error is neither: the file may be whole, and is left for another day.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use nix::fcntl::OFlag;

use super::content::Part;
use super::entry::Entry;
use super::history::History;
use super::{Id, seal};
use crate::envelope::{Envelope, Recipient};

/// The first read of a file, which has the whole head of all but the most crowded letters.
const PAGE: usize = 4096;

/// A longer head than any that we write.
const LONGEST_HEAD: usize = 64 * 1024 * 1024;

/// More octets of records than there can be: a recipient may be
/// put off with a long answer at every attempt of its lifetime.
fn longest_records(recipients: usize) -> u64 {
    (64 << 20) + (recipients as u64) * (64 << 10)
}

/// What the queue knows of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What was known when it was accepted.
    pub entry: Entry,
    /// What happened since.
    pub history: History,
}

impl Letter {
    /// The envelope for those recipients who still wait, in their order; `None` where nobody does.
    pub fn remaining(&self) -> Option<Envelope> {
        let waiting = self.history.waiting();
        self.entry.envelope.only(|i| waiting.binary_search(&i).is_ok())
    }

    /// When it is due; the past where it is due already. A letter on hold is never due, whatever this says.
    pub fn next_attempt(&self, now: SystemTime) -> SystemTime {
        self.history.next_attempt(self.entry.id, now)
    }

    /// Whether an attempt (or a report) is due.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.history.hold().is_none() && self.next_attempt(now) <= now
    }

    /// A recipient by its number.
    pub fn recipient(&self, number: usize) -> &Recipient {
        &self.entry.envelope.recipients()[number]
    }
}

/// Why a file is not a letter that can be had now.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It has been sent or removed in the meantime.
    Gone,
    /// The disk did not answer.
    Io(io::Error),
    /// It is not a letter of ours, or no longer.
    Damaged(&'static str),
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// A letter's open file and what it says.
pub(super) struct Stored {
    pub(super) file: Arc<File>,
    pub(super) letter: Letter,
    /// Octets of the head.
    pub(super) head: u64,
}

impl Stored {
    /// Opens a letter to look at it.
    pub(super) fn peek(path: &Path, id: Id) -> Result<Self, Flaw> {
        let (file, found) = open(path, OpenOptions::new().read(true))?;
        Self::read(file, found.len(), id)
    }

    /// Opens a letter's file to append to it.
    pub(super) fn open(path: &Path) -> Result<File, Flaw> {
        open(path, OpenOptions::new().read(true).append(true)).map(|(file, _)| file)
    }

    /// Reads head and records of a file of so many octets; the content stays where it is, and its seal unchecked.
    pub(super) fn read(file: File, file_len: u64, id: Id) -> Result<Self, Flaw> {
        Self::read_whole(file, file_len, id).map(|(stored, _)| stored)
    }

    /// Opens a letter to look at it, and gives its head and records as the file has them.
    pub(super) fn papers(path: &Path, id: Id) -> Result<(Self, Vec<u8>), Flaw> {
        let (file, found) = open(path, OpenOptions::new().read(true))?;
        let (stored, records) = Self::read_whole(file, found.len(), id)?;
        let mut papers = read_head(&stored.file)?;
        papers.extend(records);
        Ok((stored, papers))
    }

    fn read_whole(file: File, file_len: u64, id: Id) -> Result<(Self, Vec<u8>), Flaw> {
        let head = read_head(&file)?;
        let entry = std::str::from_utf8(&head).ok().and_then(Entry::parse);
        let entry = entry.filter(|entry| entry.id == id).ok_or(Flaw::Damaged("its head is not a letter's"))?;
        let head = head.len() as u64;
        let sealed = head.checked_add(entry.size).and_then(|len| len.checked_add(seal::LEN));
        let records = sealed.and_then(|sealed| file_len.checked_sub(sealed)).ok_or(Flaw::Damaged("it is cut short"))?;
        if records > longest_records(entry.envelope.recipients().len()) {
            // As after a crash that left the file with a length of its own.
            return Err(Flaw::Damaged("it goes on behind its end"));
        }
        let records = if records > 0 { read_tail(&file, file_len - records, records)? } else { Vec::new() };
        let history = History::new(entry.created, entry.envelope.recipients().len()).read(id, &records);
        Ok((Self { file: Arc::new(file), letter: Letter { entry, history }, head }, records))
    }

    /// Checks the seal over head and content.
    pub(super) fn verify(&self) -> Result<(), Flaw> {
        if seal::is_right(&self.file, self.head + self.letter.entry.size)? {
            Ok(())
        } else {
            Err(Flaw::Damaged("its seal is broken"))
        }
    }

    /// The content's octets. They keep the file open, and its lock.
    pub(super) fn content(&self) -> Part {
        Part { file: Arc::clone(&self.file), start: self.head, len: self.letter.entry.size }
    }
}

/// Whether a file still has the name by which it was opened: a lock is worth nothing on a file that has been moved.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens without following a link, without waiting for a FIFO's other end, and only what [`check`] lets pass.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> Result<(File, Metadata), Flaw> {
    match options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path) {
        Ok(file) => {
            let found = file.metadata()?;
            check(&found)?;
            Ok((file, found))
        }
        Err(error) => {
            // A symbolic link, a socket, a directory, a stranger's file: the error alone does not say which.
            check(&fs::symlink_metadata(path)?)?;
            Err(error.into())
        }
    }
}

fn check(found: &Metadata) -> Result<(), Flaw> {
    if !found.is_file() {
        Err(Flaw::Damaged("it is not a regular file"))
    } else if found.uid() != nix::unistd::geteuid().as_raw() {
        Err(Flaw::Damaged("it belongs to another user"))
    } else if found.nlink() > 1 {
        Err(Flaw::Damaged("it has a second name (hard link)"))
    } else if found.nlink() == 0 {
        Err(Flaw::Gone)
    } else {
        Ok(())
    }
}

/// The head with the empty line that ends it.
fn read_head(file: &File) -> Result<Vec<u8>, Flaw> {
    let mut head = Vec::new();
    let mut room = PAGE;
    loop {
        let filled = head.len();
        head.resize(room, 0);
        let got = file.read_at(&mut head[filled..], filled as u64)?;
        head.truncate(filled + got);
        if let Some(end) = memchr::memmem::find(&head, b"\n\n") {
            head.truncate(end + 2);
            return Ok(head);
        }
        if got == 0 || room >= LONGEST_HEAD {
            return Err(Flaw::Damaged("its head has no end"));
        }
        room = (room * 4).max(head.len() + PAGE);
    }
}

/// The records, as far as they go: somebody may be appending.
fn read_tail(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut tail = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < tail.len() {
        match file.read_at(&mut tail[filled..], at + filled as u64)? {
            0 => break,
            got => filled += got,
        }
    }
    tail.truncate(filled);
    Ok(tail)
}
