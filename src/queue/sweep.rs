//! The janitor: takes away what crashes left and what has been kept long enough, never what somebody may still want.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Error, FAILED, Id, LETTERS, Queue, TMP};

/// How long an unfinished file may be somebody's work (qmail's figure).
const UNFINISHED: Duration = Duration::from_hours(36);

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
        Ok(Swept {
            unfinished: self.sweep_dir(TMP, now, UNFINISHED)?,
            failed: self.sweep_dir(FAILED, now, keep)?,
            strangers: self.set_strangers_aside()?,
        })
    }

    /// Removes what in a directory was last changed before `age`, and is locked by nobody.
    fn sweep_dir(&self, dir: &str, now: SystemTime, age: Duration) -> Result<usize, Error> {
        let mut removed = 0;
        for name in names(&self.root.join(dir))? {
            let path = self.root.join(dir).join(&name);
            let old = match fs::symlink_metadata(&path) {
                Err(_) => false, // it went while we looked
                Ok(found) => {
                    found.is_file() && found.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|is| is >= age))
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
