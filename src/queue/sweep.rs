//! The janitor: takes away what crashes left and what has been kept long enough, never what somebody may still want.
//!
//! A file's age is that of its date by a clock that may be wrong, or have been when the letter failed (a small computer
//! begins each day in 1970). So the time in which no janitor came counts for no more than a day, by whatever the clock
//! has moved, and what is from the future is from now. The date of `corrupt/` is that of the last visit.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{CORRUPT, Error, FAILED, Id, LETTERS, Queue, TMP};

/// How long an unfinished file may be somebody's work (qmail's figure).
const UNFINISHED: Duration = Duration::from_hours(36);

/// Between two visits of a janitor who comes as he should.
const ROUND: Duration = Duration::from_hours(24);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files removed that were never finished.
    pub unfinished: usize,
    /// Letters removed that had failed and were kept their time.
    pub failed: usize,
    /// Files among the letters that do not bear a letter's name, set aside.
    pub strangers: usize,
}

impl Queue {
    /// Sweeps the queue. `keep` is how long a failed letter is kept after its last record.
    pub fn sweep(&self, now: SystemTime, keep: Duration) -> Result<Swept, Error> {
        let visits = self.root.join(CORRUPT);
        let last = fs::metadata(&visits).and_then(|found| found.modified()).unwrap_or(now);
        let absence = now.duration_since(last).unwrap_or_default().saturating_sub(ROUND);
        let swept = Swept {
            unfinished: self.sweep_dir(TMP, now, UNFINISHED, Duration::ZERO)?,
            failed: self.sweep_dir(FAILED, now, keep, absence)?,
            strangers: self.set_strangers_aside()?,
        };
        // A disk that does not take this does not take a letter away either.
        let _ = self.disk.date(&visits, now);
        Ok(swept)
    }

    /// Removes what in a directory was last changed before `age`,
    /// and is locked by nobody. The `absence` counts for nothing.
    fn sweep_dir(&self, dir: &str, now: SystemTime, age: Duration, absence: Duration) -> Result<usize, Error> {
        let mut removed = 0;
        for name in names(&self.root.join(dir))? {
            let path = self.root.join(dir).join(&name);
            let old = match fs::symlink_metadata(&path) {
                Err(_) => false, // it went while we looked
                Ok(found) => {
                    let at = found.modified().unwrap_or(now);
                    let counts = at.checked_add(absence).map_or(now, |at| at.min(now));
                    let is_dated = || counts == at || self.disk.date(&path, counts).is_ok();
                    found.is_file() && is_dated() && now.duration_since(counts).is_ok_and(|is| is >= age)
                }
            };
            if old && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                self.disk.unlink(&path).map_err(Error::at("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn set_strangers_aside(&self) -> Result<usize, Error> {
        let mut strangers = 0;
        for name in names(&self.root.join(LETTERS))? {
            // A name that begins with a dot is the file system's own (NFS keeps removed files under one).
            if Id::of_file(&name).is_none() && !name.starts_with('.') {
                self.set_aside(&name, "its name is no queue id")?;
                strangers += 1;
            }
        }
        Ok(strangers)
    }
}

/// The names in a directory; none where it is missing. A name that is not UTF-8 is not ours, and is left alone.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::at("read", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(Error::at("read", dir))?.file_name().into_string());
    }
    Ok(names)
}
