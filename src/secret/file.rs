//! Files that hold a secret: a password's own file, a netrc, systemd's credentials.
//!
//! A file is opened first and judged then, by what was opened: it must be a regular file (nothing that could make
//! us wait), belong to the caller or to root, and be closed to everybody else. Symbolic links are followed, since
//! people link their dot files; what counts is where they lead. systemd's credentials are not judged: their
//! directory is systemd's to protect, and with its ACLs the mode shows group bits that mean nothing.

use super::{LONGEST, NoSecret, Secret, buffer, fill, line, usable, words};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};
use zeroize::Zeroizing;

/// The first line of a private file.
pub(super) fn first_line(path: &Path, uid: u32) -> Result<Secret, NoSecret> {
    read_first_line(private(path, uid)?, path)
}

/// The first line of `$CREDENTIALS_DIRECTORY/NAME`.
pub(super) fn credential(name: &str, directory: Option<&Path>) -> Result<Secret, NoSecret> {
    let mut components = Path::new(name).components();
    if !matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name) {
        return Err(NoSecret::CredentialName(name.to_owned()));
    }
    let path = directory.ok_or_else(|| NoSecret::NoCredentials(name.to_owned()))?.join(name);
    read_first_line(open(&path)?, &path)
}

/// A private file's whole content, of which there may be `limit` octets.
pub(super) fn whole(path: &Path, uid: u32, limit: usize) -> Result<Zeroizing<Vec<u8>>, NoSecret> {
    let mut file = private(path, uid)?;
    let size = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    let size = usize::try_from(size).unwrap_or(usize::MAX).min(limit);
    // One more, to notice that there is more.
    let mut octets = buffer(size + 1);
    let filled = fill(&mut file, &mut octets).map_err(|error| unreadable(path, &error))?;
    if filled > size {
        return Err(NoSecret::Unusable(path.display().to_string(), "is too large, or grows while it is read"));
    }
    octets.truncate(filled);
    Ok(octets)
}

fn read_first_line(mut file: File, path: &Path) -> Result<Secret, NoSecret> {
    let mut octets = buffer(LONGEST + 1);
    let filled = fill(&mut file, &mut octets).map_err(|error| unreadable(path, &error))?;
    let (first, whence) = (line(&octets[..filled]), path.display().to_string());
    if first.len() > LONGEST {
        return Err(NoSecret::Unusable(whence, "has a first line of more than 64 KiB"));
    }
    usable(&whence, first)
}

/// Opens a file that nobody but the caller and root can have written or can read.
fn private(path: &Path, uid: u32) -> Result<File, NoSecret> {
    let file = open(path)?;
    let about = file.metadata().map_err(|error| unreadable(path, &error))?;
    if about.uid() != uid && about.uid() != 0 {
        return Err(NoSecret::NotOurs(path.to_owned(), about.uid()));
    }
    if about.mode() & 0o077 != 0 {
        let new_owner = (about.uid() != uid).then_some(uid);
        return Err(NoSecret::NotPrivate(path.to_owned(), about.mode() & 0o7777, new_owner));
    }
    Ok(file)
}

/// Opens a regular file. A pipe without a writer does not make it wait, nor does a terminal become ours.
fn open(path: &Path) -> Result<File, NoSecret> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| unreadable(path, &error))?;
    let about = file.metadata().map_err(|error| unreadable(path, &error))?;
    if about.is_file() { Ok(file) } else { Err(NoSecret::NotAFile(path.to_owned())) }
}

fn unreadable(path: &Path, error: &std::io::Error) -> NoSecret {
    NoSecret::Unreadable(path.to_owned(), words(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn me() -> u32 {
        nix::unistd::getuid().as_raw()
    }

    fn put(dir: &Path, mode: u32, octets: &[u8]) -> PathBuf {
        let path = dir.join("password");
        std::fs::write(&path, octets).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_line_of_a_private_file_is_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let rows: [(u32, &[u8], &[u8]); 4] = [
            (0o600, b"s3cret\n", b"s3cret"),
            (0o400, b"s3cret\r\nlogin: alice\r\n", b"s3cret"),
            (0o700, b" blanks stay ", b" blanks stay "),
            (0o600, b"\xff\xfe latin\n", b"\xff\xfe latin"),
        ];
        for (mode, octets, expected) in rows {
            let path = put(dir.path(), mode, octets);
            assert_eq!(first_line(&path, me()).unwrap().dangerous_expose(), expected);
            std::fs::remove_file(path).unwrap();
        }
        let path = put(dir.path(), 0o600, &vec![b'x'; LONGEST]);
        assert_eq!(first_line(&path, me()).unwrap().dangerous_expose().len(), LONGEST);
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused_with_the_chmod() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o601] {
            let path = put(dir.path(), mode, b"s3cret\n");
            let error = first_line(&path, me()).unwrap_err();
            assert_eq!(error, NoSecret::NotPrivate(path.clone(), mode, None));
            assert!(error.to_string().ends_with(&format!("chmod 600 {}", path.display())), "{error}");
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_unless_it_is_roots() {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), 0o600, b"s3cret\n");
        // Whoever runs the tests owns it; root's files are everybody's to trust.
        let stranger = first_line(&path, me() + 1);
        if me() == 0 {
            stranger.unwrap();
            put(dir.path(), 0o640, b"s3cret\n");
            let told = first_line(&path, 4242).unwrap_err().to_string();
            let (mend, name) = (told.split("; ").last().unwrap(), path.display());
            assert_eq!(mend, format!("chown 4242 {name} && chmod 600 {name}"), "it would be closed to its reader, too");
            put(dir.path(), 0o600, b"s3cret\n");
            nix::unistd::chown(&path, Some(4242.into()), None).unwrap();
            assert_eq!(first_line(&path, 0).unwrap_err(), NoSecret::NotOurs(path.clone(), 4242));
            first_line(&path, 4242).unwrap();
        } else {
            assert_eq!(stranger.unwrap_err(), NoSecret::NotOurs(path, me()));
        }
    }

    #[test]
    fn hostile_files_are_refused_at_once_and_unshown() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(first_line(&pipe, me()).unwrap_err(), NoSecret::NotAFile(pipe));
        assert_eq!(first_line(dir.path(), me()).unwrap_err(), NoSecret::NotAFile(dir.path().to_owned()));
        assert_eq!(first_line(Path::new("/dev/null"), me()).unwrap_err(), NoSecret::NotAFile("/dev/null".into()));

        let none = dir.path().join("none");
        assert_eq!(
            first_line(&none, me()).unwrap_err().to_string(),
            format!("{} cannot be read: No such file or directory", none.display())
        );
        for (octets, part) in [
            (&b""[..], "empty"),
            (b"\nsecond line\n", "empty"),
            (b"\x85\x02\x00\x8cs3cret", "NUL"),
            (&vec![b's'; LONGEST + 1], "more than 64 KiB"),
        ] {
            let path = put(dir.path(), 0o600, octets);
            let error = first_line(&path, me()).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_link_is_followed_and_its_target_judged() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(put(dir.path(), 0o600, b"s3cret\n"), &link).unwrap();
        first_line(&link, me()).unwrap();
        put(dir.path(), 0o644, b"s3cret\n");
        assert_eq!(first_line(&link, me()).unwrap_err(), NoSecret::NotPrivate(link, 0o644, None));
    }

    #[test]
    fn a_credential_is_a_file_name_in_systemds_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("relay"), "s3cret\n").unwrap();
        let relay = credential("relay", Some(dir.path())).unwrap();
        assert_eq!(relay.dangerous_expose(), b"s3cret");
        for name in ["", ".", "..", "/etc/passwd", "../relay", "a/b", "relay/", "./relay"] {
            let error = credential(name, Some(dir.path())).unwrap_err();
            assert_eq!(error, NoSecret::CredentialName(name.to_owned()));
        }
        assert_eq!(credential("relay", None).unwrap_err(), NoSecret::NoCredentials("relay".to_owned()));
        credential("other", Some(dir.path())).unwrap_err();
    }

    #[test]
    fn a_file_larger_than_its_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), 0o600, &[b'x'; 100]);
        assert_eq!(whole(&path, me(), 100).unwrap().len(), 100);
        assert!(matches!(whole(&path, me(), 99), Err(NoSecret::Unusable(..))));
    }
}
