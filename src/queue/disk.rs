//! The one seam: every call that changes what is on disk goes through [`Disk`], so that tests can unplug it.
//!
//! The real disk is [`Os`]. The tests' disk (`powercut`) does the same and keeps a journal, from which it builds every
//! state that a power cut could leave. Reading needs no seam: the states are real directories.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use nix::fcntl::OFlag;

/// What the queue does to a disk. An error is final: nothing is tried twice, an fsync least of all (a second one
/// returns success although the first has thrown the data away).
pub(super) trait Disk: Send + Sync {
    /// Makes a new file, 0600 whatever the umask; `AlreadyExists` where the name is taken, even by a dangling link.
    fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_NOFOLLOW.bits();
        let file =
            OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).custom_flags(flags).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// Writes at the file's end.
    fn write(&self, mut file: &File, octets: &[u8]) -> io::Result<()> {
        file.write_all(octets)
    }

    /// Makes a file's octets last.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file its other name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Takes a file's name.
    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Gives a file or directory the date of its last change. Losing it costs nothing.
    fn date(&self, path: &Path, at: SystemTime) -> io::Result<()> {
        File::open(path)?.set_modified(at)
    }

    /// Makes the names in a directory last.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// The operating system's disk.
pub(super) struct Os;

impl Disk for Os {}

/// Makes a directory and those above it that are missing, 0700 whatever the umask, and makes them last.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let create = || DirBuilder::new().mode(0o700).create(dir);
    let made = match create() {
        // Once more and not again: behind a dangling link, or in a file system of the kernel's, it stays so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_dir(parent).and_then(|()| create()),
        other => other,
    };
    match made {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    File::open(parent)?.sync_all()
}
