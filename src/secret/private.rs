//! Files that nobody else may look into, made so and never loosened: 0600, in directories of 0700.
//!
//! A file is written beside the one that it replaces, made to last, and put in place by rename, so that a reader sees
//! the old one or the new one whole, and a crash leaves one of them. Nothing is written through a link.

use nix::fcntl::OFlag;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Puts a file with this content there, in place of what was there.
pub fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    stage(path, octets, 0o600)?.commit()
}

/// Writes the file, but does not put it in place yet. What is in it
/// when it is 0600 is a secret; another mode is for a file without one.
pub fn stage<'a>(path: &'a Path, octets: &[u8], mode: u32) -> io::Result<Staged<'a>> {
    let staged = Staged { path, new: beside(path) };
    match fs::remove_file(&staged.new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlag::O_NOFOLLOW.bits();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(flags).open(&staged.new)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(octets)?;
    file.sync_all()?;
    Ok(staged)
}

/// A file that is written and not yet in place. Dropped, it is removed.
pub struct Staged<'a> {
    path: &'a Path,
    new: PathBuf,
}

impl Staged<'_> {
    /// Puts it in place.
    pub fn commit(self) -> io::Result<()> {
        fs::rename(&self.new, self.path)?;
        match self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // It is no longer there after a commit. What cannot be removed is
        // as closed as it was made, and the next one to come takes it away.
        let _ = fs::remove_file(&self.new);
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

/// Makes a directory and those above it that are missing, 0700 whatever the umask.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
