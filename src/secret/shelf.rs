//! Where tokens are kept between runs: a file each, 0600, in a directory of ours, 0700.
//!
//! A file is written under a lock, and whole or not at all (see `private`). What is not exactly ours (a link, a file of
//! somebody else's, one that is open to others, one that we have not written like this) counts as nothing kept, and the
//! next write takes its place. A directory that is not ours is an error: nothing is put there.
//!
//! Errors are sentences for the log: whoever cannot keep a token still has it.

use super::{LONGEST, Secret, fill, private, words};
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The first line of a file, which names the form of the others.
const FORM: &str = "pillarbox oauth 1";

/// The largest file: two tokens and some words.
const MOST: usize = 2 * LONGEST + 1024;

/// How often it is looked whether the lock is free.
const PATIENCE: Duration = Duration::from_millis(20);

/// What is kept.
pub(super) struct Kept {
    /// The hash of the refresh token in the settings, from which these descend.
    pub origin: String,
    /// When the access token ends, in seconds since 1970.
    pub expires: u64,
    /// `None`: it was refused.
    pub access: Option<Secret>,
    /// Where the provider has given another than that of the settings.
    pub refresh: Option<Secret>,
}

/// The place of one user's tokens.
pub(super) struct Shelf {
    dir: PathBuf,
    file: PathBuf,
    uid: u32,
}

/// The right to change what is kept. It ends with the value or the process.
pub(super) struct Turn<'a> {
    shelf: &'a Shelf,
    /// Held for its lock.
    _lock: File,
}

impl Shelf {
    pub fn new(dir: PathBuf, name: &str, uid: u32) -> Self {
        Self { file: dir.join(name), dir, uid }
    }

    /// What is kept, where it is ours.
    pub fn read(&self) -> Option<Kept> {
        self.check_dir().ok()?;
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&self.file).ok()?;
        let about = file.metadata().ok()?;
        if !about.is_file() || about.uid() != self.uid || about.mode() & 0o077 != 0 {
            return None;
        }
        let size = usize::try_from(about.len()).ok().filter(|&size| size <= MOST)?;
        let mut octets = Zeroizing::new(vec![0; size]);
        let filled = fill(&mut file, &mut octets).ok()?;
        parse(&octets[..filled])
    }

    /// Takes away what is kept; whether there was something.
    pub fn clear(&self) -> bool {
        self.check_dir().is_ok() && fs::remove_file(&self.file).is_ok()
    }

    /// Waits for the turn to change something; `None` when it has not come by then.
    pub fn turn(&self, until: Instant) -> Result<Option<Turn<'_>>, String> {
        let at = |path: &Path, error: &io::Error| format!("{}: {}", path.display(), words(error));
        private::make_dir(&self.dir).map_err(|error| at(&self.dir, &error))?;
        self.check_dir()?;
        let path = self.file.with_extension("lock");
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let lock = options.open(&path).map_err(|error| at(&path, &error))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(Turn { shelf: self, _lock: lock })),
                Err(TryLockError::Error(error)) => return Err(at(&path, &error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PATIENCE),
            }
        }
    }

    fn check_dir(&self) -> Result<(), String> {
        let dir = self.dir.display();
        let about = fs::symlink_metadata(&self.dir).map_err(|error| format!("{dir}: {}", words(&error)))?;
        if !about.is_dir() || about.uid() != self.uid {
            return Err(format!("{dir} is no directory of uid {}; move it away", self.uid));
        }
        if about.mode() & 0o077 != 0 {
            return Err(format!("{dir} has mode {:04o} and is not private; chmod 700 {dir}", about.mode() & 0o7777));
        }
        Ok(())
    }
}

impl Turn<'_> {
    /// As [`Shelf::read`].
    pub fn read(&self) -> Option<Kept> {
        self.shelf.read()
    }

    /// Keeps this, in place of what was there.
    pub fn write(&self, kept: &Kept) -> Result<(), String> {
        // A refresh token that the provider has just given in place of another is the only one that it still takes.
        private::replace(&self.shelf.file, &written(kept))
            .map_err(|error| format!("{}: {}", self.shelf.file.display(), words(&error)))
    }
}

/// A word and its value on each line. Tokens are printable ASCII without spaces.
fn written(kept: &Kept) -> Zeroizing<Vec<u8>> {
    let head = format!("{FORM}\norigin {}\nexpires {}\n", kept.origin, kept.expires);
    let tokens = [("access", &kept.access), ("refresh", &kept.refresh)];
    let tokens = tokens.iter().filter_map(|(word, token)| Some((word, token.as_ref()?.dangerous_expose())));
    let size: usize = tokens.clone().map(|(word, token)| word.len() + token.len() + 2).sum();
    let mut octets = Zeroizing::new(Vec::with_capacity(head.len() + size));
    octets.extend_from_slice(head.as_bytes());
    for (word, token) in tokens {
        for part in [word.as_bytes(), b" ", token, b"\n"] {
            octets.extend_from_slice(part);
        }
    }
    octets
}

/// What was [`written`], whole; `None` for anything else.
fn parse(octets: &[u8]) -> Option<Kept> {
    let text = std::str::from_utf8(octets).ok()?.strip_prefix(FORM)?.strip_prefix('\n')?.strip_suffix('\n')?;
    let value = |wanted: &str| {
        let mut pairs = text.split('\n').filter_map(|line| line.split_once(' '));
        pairs.find(|(word, _)| *word == wanted).map(|(_, value)| value)
    };
    let token = |word: &str| value(word).filter(|text| !text.is_empty()).map(|text| Secret::new(text.into()));
    Some(Kept {
        origin: value("origin")?.to_owned(),
        expires: value("expires")?.parse().ok()?,
        access: token("access"),
        refresh: token("refresh"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn me() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    fn kept(access: &str) -> Kept {
        let access = Some(Secret::new(access.into()));
        Kept { origin: "0a".to_owned(), expires: 7, access, refresh: Some(Secret::new(b"r".to_vec())) }
    }

    fn access(shelf: &Shelf) -> Option<String> {
        Some(String::from_utf8_lossy(shelf.read()?.access?.dangerous_expose()).into_owned())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn put(shelf: &Shelf, access: &str) {
        shelf.turn(soon()).unwrap().unwrap().write(&kept(access)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_kept_comes_back_and_is_private() {
        let home = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(home.path().join("a/b"), "x", me());
        assert!(shelf.read().is_none());
        put(&shelf, "one");
        put(&shelf, "two");
        let back = shelf.read().unwrap();
        assert_eq!((back.origin.as_str(), back.expires), ("0a", 7));
        assert_eq!(back.access.unwrap().dangerous_expose(), b"two");
        assert_eq!(back.refresh.unwrap().dangerous_expose(), b"r");
        assert_eq!((mode(&shelf.dir), mode(&shelf.file)), (0o700, 0o600));
        assert_eq!(mode(&home.path().join("a")) & 0o077, 0);
        let mut names: Vec<_> = fs::read_dir(&shelf.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x", "x.lock"]);
        assert_eq!(mode(&shelf.file.with_extension("lock")), 0o600);
    }

    #[test]
    fn what_is_not_ours_is_not_read_and_what_it_leads_to_is_not_touched() {
        let home = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(home.path().join("s"), "x", me());
        put(&shelf, "one");
        let elsewhere = home.path().join("elsewhere");
        fs::rename(&shelf.file, &elsewhere).unwrap();

        symlink(&elsewhere, &shelf.file).unwrap();
        assert_eq!(access(&shelf), None);
        put(&shelf, "two");
        assert_eq!(access(&shelf).as_deref(), Some("two"));
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("one"));

        for mode in [0o640, 0o604, 0o644] {
            fs::set_permissions(&shelf.file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(access(&shelf), None, "{mode:o}");
        }
        put(&shelf, "three");
        assert_eq!(access(&shelf).as_deref(), Some("three"));
        assert_eq!(access(&Shelf { uid: me() + 1, dir: shelf.dir.clone(), file: shelf.file.clone() }), None);

        // A remnant, and a trap, where the new file is made.
        symlink(&elsewhere, shelf.file.with_extension("new")).unwrap();
        put(&shelf, "four");
        assert_eq!(access(&shelf).as_deref(), Some("four"));
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("one"));
        fs::remove_file(shelf.file.with_extension("lock")).unwrap();
        symlink(&elsewhere, shelf.file.with_extension("lock")).unwrap();
        assert!(shelf.turn(soon()).is_err());
    }

    #[test]
    fn a_directory_that_is_not_ours_keeps_nothing() {
        let home = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(home.path().join("s"), "x", me());
        put(&shelf, "one");
        fs::set_permissions(&shelf.dir, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(access(&shelf), None);
        let why = shelf.turn(soon()).err().unwrap();
        assert!(
            why.ends_with(&format!("has mode 0755 and is not private; chmod 700 {}", shelf.dir.display())),
            "{why}"
        );
        fs::set_permissions(&shelf.dir, Permissions::from_mode(0o700)).unwrap();
        let moved = home.path().join("moved");
        fs::rename(&shelf.dir, &moved).unwrap();
        symlink(&moved, &shelf.dir).unwrap();
        assert!(access(&shelf).is_none() && shelf.turn(soon()).is_err());
    }

    #[test]
    fn one_at_a_time_has_the_turn() {
        let home = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(home.path().join("s"), "x", me());
        let turn = shelf.turn(soon()).unwrap().unwrap();
        assert!(shelf.turn(Instant::now()).unwrap().is_none());
        drop(turn);
        assert!(shelf.turn(Instant::now()).unwrap().is_some());
    }

    #[test]
    fn a_file_that_is_cut_off_or_of_another_form_counts_for_nothing() {
        let whole = written(&kept("token"));
        assert!(parse(&whole).is_some());
        for end in 0..whole.len() {
            let cut = parse(&whole[..end]).and_then(|kept| kept.access);
            assert!(cut.is_none_or(|access| access.dangerous_expose() == b"token"), "{end}");
        }
        for text in ["", "\n", "pillarbox oauth 2\norigin 0a\nexpires 7\n", "pillarbox oauth 1\nexpires 7\n", "\u{0}"] {
            assert!(parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
