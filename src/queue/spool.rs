//! Where a letter's octets wait while they come in: small ones in memory, large ones in a file without a name.
//!
//! The file lies in the directory that it is given (never in /tmp: a letter is private, and /tmp may be memory), is
//! readable by its owner only, and vanishes with the process, however that ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::content::Part;
use super::disk;
use crate::message::{Content, Store};

/// What stays in memory where nobody says less; also the size of the writes beyond it.
const LIMIT: usize = 256 * 1024;

/// What may stay in memory where no file can be had. The service takes no larger letter by default.
const MEMORY: usize = 64 << 20;

/// Takes the octets of one letter.
pub struct Spool {
    dir: PathBuf,
    buffer: Vec<u8>,
    limit: usize,
    /// Where no file can be had, octets that may stay in memory after all.
    or_memory: usize,
    file: Option<(File, u64)>,
}

impl Spool {
    /// A spool whose large letters go to a nameless file in `dir`, which is made (0700) when it is needed and missing.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), buffer: Vec::new(), limit: LIMIT, or_memory: 0, file: None }
    }

    /// A spool that keeps no more than so many octets in memory, but for one piece that it is given: for those who have
    /// many at once.
    #[must_use]
    pub fn sparing(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// A spool that keeps all in memory, within bounds, where no file can be had: for those who may have no disk.
    #[must_use]
    pub fn or_memory(self) -> Self {
        Self { or_memory: MEMORY, ..self }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            match self.begin() {
                Ok(file) => self.file = Some(file),
                Err(_) if self.buffer.len() <= self.or_memory => {
                    self.limit = self.or_memory;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.buffer.clear();
            return Ok(());
        }
        if let Some((file, len)) = &mut self.file {
            file.write_all(&self.buffer)?;
            *len += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Spool {
    /// The file, with what has come so far in it.
    fn begin(&self) -> io::Result<(File, u64)> {
        disk::make_dir(&self.dir)?;
        let mut file = nameless(&self.dir)?;
        file.write_all(&self.buffer)?;
        Ok((file, self.buffer.len() as u64))
    }
}

impl Store for Spool {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(octets);
        if self.buffer.len() > self.limit { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<Arc<dyn Content>> {
        if self.file.is_some() {
            self.flush()?;
        }
        Ok(match self.file {
            None => Arc::new(self.buffer),
            Some((file, len)) => Arc::new(Part { file: Arc::new(file), start: 0, len }),
        })
    }
}

fn nameless(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    #[cfg(target_os = "linux")]
    if let Ok(file) = options.clone().custom_flags(OFlag::O_TMPFILE.bits()).open(dir) {
        return Ok(file);
    }
    // A file system (or a system) that knows no nameless files: one that loses its name at once.
    let name = dir.join(format!("spool.{}", super::seal::hex(&random()?)));
    let file = options.create_new(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&name)?;
    fs::remove_file(&name)?;
    Ok(file)
}

fn random() -> io::Result<[u8; 16]> {
    let mut octets = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut octets)
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn small_and_large_letters_come_back_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        for len in [0, 1, LIMIT, LIMIT + 1, 3 * LIMIT + 7] {
            let octets: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut spool = Box::new(Spool::new(&state));
            octets.chunks(100_000).for_each(|chunk| spool.write(chunk).unwrap());
            let content = spool.finish().unwrap();
            assert_eq!(content.len(), len as u64);
            for _ in 0..2 {
                let mut back = Vec::new();
                content.reader().unwrap().read_to_end(&mut back).unwrap();
                assert!(back == octets, "{len}");
            }
            assert_eq!(state.exists(), len > LIMIT);
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }
}
