//! `pillarbox import`: another program's configuration becomes ours, on standard output or in place.
//!
//! Reading and writing TOML is [`crate::config::import`]'s; here is which files, where to, and what is said. Nothing is
//! overwritten unless `--force` says so, and a configuration is put in place after the secrets that it leads to.

use super::configuration::{self, surroundings};
use super::exit::sysexits;
use super::host::Host;
use super::sendmail::Face;
use crate::config::import::{Imported, PROGRAMS, Program, Written, emit, read};
use crate::outcome::{printable, words};
use clap::Args;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Its words.
#[derive(Debug, Args)]
pub struct Words {
    /// A configuration, and files that it leads to which lie elsewhere; by default what is found in the usual places.
    files: Vec<PathBuf>,
    /// Whose configuration it is, where its name does not say.
    #[arg(long, value_name = "PROGRAM", value_parser = ["msmtprc", "mailrc", "ssmtp", "nullmailer", "dma", "postfix"])]
    from: Option<String>,
    /// Put it in place instead of printing it, with files of mode 0600 for its passwords.
    #[arg(long)]
    write: bool,
    /// The place: by default where the configuration is looked for.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
}

/// Runs it. Returns the exit status.
pub fn main(face: Face<'_>, words: &Words) -> u8 {
    super::sendmail::settle_in();
    super::signals::leave();
    let host = Host::look();
    let imported = match words.files.split_first() {
        Some((file, companions)) => named(words, file, companions, &host),
        None => found(face, words, &host),
    };
    let imported = match imported {
        Ok(imported) => imported,
        Err((status, sentence)) => {
            face.say(&printable_lines(&sentence));
            return status;
        }
    };
    let place = words.to.clone().or_else(|| place(&imported.settings.file, &host));
    let Some(place) = place.and_then(|place| std::path::absolute(place).ok()) else {
        face.say("there is no home directory; name the place with --to");
        return sysexits::OSERR;
    };
    let written = match emit(&imported, &place) {
        Ok(written) => written,
        Err(sentence) => {
            face.say(&format!(
                "{} cannot be carried over: {}",
                imported.settings.file.display(),
                printable_lines(&sentence)
            ));
            return sysexits::CONFIG;
        }
    };
    if words.write { put_in_place(face, &written, &place, words.force) } else { face.print(&written.toml) }
}

/// Status and sentence, or one a line.
type No = (u8, String);

/// The files that were named.
fn named(words: &Words, file: &Path, companions: &[PathBuf], host: &Host) -> Result<Imported, No> {
    let by_word = |word: &String| PROGRAMS.iter().find(|(name, _)| name == word).map(|(_, program)| *program);
    let program = words.from.as_ref().and_then(by_word).or_else(|| Program::of(file)).ok_or_else(|| {
        (sysexits::USAGE, format!("{}: its name does not say whose configuration it is; add --from", file.display()))
    })?;
    if let Err(error) = fs::metadata(file) {
        return Err((sysexits::NOINPUT, format!("{} cannot be read: {}", file.display(), self::words(&error))));
    }
    read(program, file, companions, &surroundings(host)).map_err(|sentence| (sysexits::CONFIG, sentence))
}

/// The first configuration in the usual places that names a relay; what else is there is said.
fn found(face: Face<'_>, words: &Words, host: &Host) -> Result<Imported, No> {
    let (mut taken, mut others) = (None, Vec::new());
    let only = words.from.as_deref();
    for path in Program::places(host.home.as_deref(), host.config_home.as_deref(), Path::new("/etc")) {
        let Some(program) = Program::of(&path) else { continue };
        let is_wanted = only.is_none_or(|only| PROGRAMS.contains(&(only, program)));
        if !is_wanted || fs::symlink_metadata(&path).is_err() {
            continue;
        }
        match (read(program, &path, &[], &surroundings(host)), &taken) {
            (Ok(imported), None) => taken = Some(imported),
            (Ok(_), Some(_)) => others.push(format!("{} is there, too; name it to import it", path.display())),
            (Err(sentence), _) => others.push(sentence),
        }
    }
    if let Some(imported) = &taken {
        face.say(&format!("importing {}", imported.settings.file.display()));
    }
    for other in &others {
        face.say(&printable_lines(other));
    }
    taken.ok_or_else(|| {
        let sentence = "nothing was found to import: no msmtprc, mailrc, ssmtp.conf, nullmailer, dma.conf or main.cf \
                        that names a relay; name a file";
        (sysexits::NOINPUT, sentence.to_owned())
    })
}

/// Where the configuration is looked for: the machine's, where that is what root imports, else the caller's.
fn place(file: &Path, host: &Host) -> Option<PathBuf> {
    if host.uid == 0 && std::path::absolute(file).is_ok_and(|file| file.starts_with("/etc")) {
        return Some(PathBuf::from(configuration::SERVICE));
    }
    host.config_home.as_ref().map(|config| config.join("pillarbox/config.toml"))
}

fn put_in_place(face: Face<'_>, written: &Written, place: &Path, force: bool) -> u8 {
    let secrets = written.secrets.iter().map(|(path, secret)| (path.as_path(), format!("{}\n", secret.as_str())));
    let files: Vec<(&Path, zeroize::Zeroizing<String>)> = secrets
        .chain([(place, written.toml.clone())])
        .map(|(path, text)| (path, zeroize::Zeroizing::new(text)))
        .collect();
    let is_free = |path: &Path| force || fs::symlink_metadata(path).is_err() || configuration::is_unwritten(path);
    if let Some((path, _)) = files.iter().find(|(path, _)| !is_free(path)) {
        face.say(&format!("{} is there already; nothing was written. --force overwrites it", path.display()));
        return sysexits::CANTCREAT;
    }
    for (path, text) in &files {
        if let Err(error) = put(path, text.as_bytes(), force || configuration::is_unwritten(path)) {
            face.say(&format!("{} cannot be written: {}", path.display(), words(&error)));
            return sysexits::CANTCREAT;
        }
        face.say(&format!("wrote {}", path.display()));
    }
    let notes = written.toml.lines().filter(|line| line.starts_with("# - ")).count();
    if notes > 0 {
        face.say(&format!("what could not be carried over is at its top: {notes} to read"));
    }
    if let ([(secret, _), ..], true) = (&written.secrets[..], place == Path::new(configuration::SERVICE)) {
        face.say(&format!(
            "the service cannot read root's {}: where it runs, move that to /etc/pillarbox/password and write \
             password = {{ credential = \"password\" }}; for another password there is LoadCredential= in \
             pillarbox.service",
            secret.display()
        ));
    }
    face.say("\"pillarbox check\" says whether mail would go out");
    0
}

/// Writes a file, whole or not at all: of mode 0600, or with the group and the mode of a configuration that it
/// replaces, which a service may have to read.
fn put(path: &Path, octets: &[u8], force: bool) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = dir.join(format!(".import.{}", configuration::unique()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    if let (Ok(old), true) = (fs::symlink_metadata(path), path.extension().is_some_and(|end| end == "toml")) {
        // Without its group nobody else may read it.
        let given = fchown(&file, None, Some(old.gid()));
        let _ = given.and_then(|()| file.set_permissions(Permissions::from_mode(0o600 | old.mode() & 0o044)));
    }
    let done = file.write_all(octets).and_then(|()| file.sync_all()).and_then(|()| {
        if force {
            return fs::rename(&new, path);
        }
        // Unlike rename(2), this never takes the place of what has come there meanwhile.
        fs::hard_link(&new, path).and_then(|()| fs::remove_file(&new))
    });
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done.and_then(|()| match File::open(dir)?.sync_all() {
        // Some file systems know no fsync of directories.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    })
}

/// Several sentences, a line each.
fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}
