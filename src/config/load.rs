//! Which file is the configuration, and may it be trusted?
//!
//! The first that exists, of: `-C FILE`, `$PILLARBOX_CONFIG`, the user's `pillarbox/config.toml`, `~/.msmtprc`, the
//! user's `msmtp/config`, `~/.mailrc` if it sets an SMTP `mta`, `/etc/pillarbox/config.toml`, `/etc/msmtprc`. The
//! format follows the name where it says one ([`Format`]). A file that exists but cannot be read is an error, never "no
//! configuration".
//!
//! Only regular files of a bounded size are read, and none is waited for: a FIFO or a device is refused. A file with
//! a password in it must be private ([`privacy`]). What `-C` names is a stranger's choice, because web forms reach our
//! arguments (CVE-2016-10033): see [`restrain`].
//!
//! To a user's msmtprc the system's is added, as msmtp does it; see [`read_msmtprc`].

use super::msmtprc::{self, Argument, Surroundings};
use super::problem::{Place, Problem};
use super::{Account, LogTo, PasswordSource, SessionLog, SessionLogTo, Settings, check, mailrc, toml};
use nix::fcntl::OFlag;
use std::cell::LazyCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use zeroize::Zeroizing;

/// Longer than any configuration, and short enough to be read before it is looked at. In octets.
const MAX_SIZE: u64 = 1 << 20;

/// More problems than a person mends at once.
const MAX_PROBLEMS: usize = 40;

/// Where to look.
pub struct Sources<'a> {
    /// `-C FILE`
    pub argument: Option<PathBuf>,
    /// `$PILLARBOX_CONFIG`
    pub environment: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME` or `~/.config`
    pub config_home: Option<PathBuf>,
    /// The caller's home.
    pub home: Option<PathBuf>,
    /// The caller.
    pub uid: u32,
    /// `/etc`
    pub etc: PathBuf,
    /// What an msmtprc can name, found out where one is read.
    pub around: LazyCell<Surroundings, Box<dyn FnOnce() -> Surroundings + 'a>>,
    /// Keywords of an msmtprc on the command line. With `host` among them no file is read.
    pub arguments: Vec<Argument>,
    /// Whether these may make an account that runs a command or reads a secret.
    pub trusts_arguments: bool,
    /// Leave out what lies below `/etc`: it is the business of the machine's service.
    pub own_only: bool,
}

/// Why there are no settings: everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub Vec<String>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Broken {
    fn one(sentence: String) -> Self {
        Self(vec![sentence])
    }

    fn all(problems: &[Problem]) -> Self {
        let mut lines: Vec<String> = problems.iter().take(MAX_PROBLEMS).map(Problem::to_string).collect();
        if problems.len() > MAX_PROBLEMS {
            lines.push(format!("and {} more problems", problems.len() - MAX_PROBLEMS));
        }
        Self(lines)
    }
}

/// Finds, checks and reads the configuration; `None` where there is none.
pub fn load(sources: &Sources<'_>) -> Result<Option<Settings>, Broken> {
    if sources.arguments.iter().any(|(keyword, _)| keyword == "host") {
        return of_arguments(sources).map(Some);
    }
    if let Some(path) = &sources.argument {
        return named(path, sources, Trust::of_argument).map(Some);
    }
    if let Some(path) = &sources.environment {
        return named(path, sources, |_, _, _| Trust::Alone).map(Some);
    }
    for path in places(sources) {
        match Opened::open(&path) {
            Ok(opened) => {
                if let Some(settings) = read(&path, opened, sources, Trust::Full)? {
                    return Ok(Some(settings));
                }
            }
            Err(error) if is_absent(&path, &error) => {}
            Err(error) => {
                let denied = error.kind() == ErrorKind::PermissionDenied;
                let hint = if denied && path == sources.etc.join("pillarbox/config.toml") { SERVICES } else { "" };
                return Err(Broken::one(format!("{}{hint}", unreadable(&path, &error))));
            }
        }
    }
    let around = &sources.around;
    Ok(msmtprc::of_environment(around).map(|account| Settings {
        file: PathBuf::from("the environment"),
        accounts: vec![account],
        ..Settings::default()
    }))
}

/// What a user is told whom the machine's configuration is closed to.
const SERVICES: &str = "; it is for the machine's service, which does not run (root starts it: systemctl enable --now \
                        pillarbox); a configuration of your own would do as well";

/// Reads what is about to become a file, in TOML.
pub fn of_text(path: &Path, text: &str, home: Option<&Path>) -> Result<Settings, Broken> {
    toml::read(path, text, home).map_err(|problems| Broken::all(&problems))
}

/// Where a configuration can lie that nobody named, in the order in which they are looked at.
fn places(sources: &Sources<'_>) -> Vec<PathBuf> {
    let below = |directory: &Option<PathBuf>, path: &str| directory.as_ref().map(|directory| directory.join(path));
    let (config, home) = (&sources.config_home, &sources.home);
    let own = [
        below(config, "pillarbox/config.toml"),
        below(home, ".msmtprc"),
        below(config, "msmtp/config"),
        below(home, ".mailrc"),
    ];
    let system = ["pillarbox/config.toml", "msmtprc"].map(|path| Some(sources.etc.join(path)));
    own.into_iter().chain(system.into_iter().filter(|_| !sources.own_only)).flatten().collect()
}

/// A file that was named must be there, and must say where mail goes.
fn named(
    path: &Path,
    sources: &Sources<'_>,
    trust: impl FnOnce(&Path, &Opened, &Sources<'_>) -> Trust,
) -> Result<Settings, Broken> {
    let opened = Opened::open(path).map_err(|error| unreadable(path, &error))?;
    let trust = trust(path, &opened, sources);
    read(path, opened, sources, trust)?
        .ok_or_else(|| Broken::one(format!("{} sets no mta=smtp://… and so names no relay", path.display())))
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Toml,
    Msmtprc,
    Mailrc,
}

impl Format {
    /// By the name: `*.toml`; `*msmtprc*` or `msmtp/config`; `*mailrc*`, `*mail.rc`, `*nail.rc`. Any other is TOML,
    /// unless it begins as an msmtprc: `msmtp -C` takes a file of any name.
    fn of(path: &Path, octets: &[u8]) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Self::Toml
        } else if name.contains("msmtprc") || path.ends_with("msmtp/config") {
            Self::Msmtprc
        } else if name.contains("mailrc") || name.ends_with("mail.rc") || name.ends_with("nail.rc") {
            Self::Mailrc
        } else if msmtprc::is_one(octets) {
            Self::Msmtprc
        } else {
            Self::Toml
        }
    }
}

/// Reads an opened file by its format. `None`: it says nothing about sending mail.
fn read(path: &Path, opened: Opened, sources: &Sources<'_>, trust: Trust) -> Result<Option<Settings>, Broken> {
    let home = sources.home.as_deref();
    let format = Format::of(path, &opened.octets);
    if let ([(keyword, _), ..], Format::Toml | Format::Mailrc) = (&sources.arguments[..], format) {
        let option = keyword.replace('_', "-");
        return Err(Broken::one(format!("--{option} goes over an msmtprc, and {} is none", path.display())));
    }
    let (mut settings, with_secrets) = match format {
        Format::Toml => {
            let text = utf8(path, &opened.octets)?;
            let settings = toml::read(path, text, home).map_err(|problems| Broken::all(&problems))?;
            let has_secret = settings.accounts.iter().any(check::has_literal);
            (settings, if has_secret { vec![(path.to_owned(), opened)] } else { Vec::new() })
        }
        Format::Mailrc => match read_mailrc(path, opened, home, trust)? {
            Some(reading) => reading,
            None => return Ok(None),
        },
        Format::Msmtprc => return read_msmtprc(path, &opened, sources, trust).map(Some),
    };
    let open: Vec<String> =
        with_secrets.iter().filter_map(|(path, opened)| privacy(path, opened, sources.uid)).collect();
    if !open.is_empty() {
        return Err(Broken(open));
    }
    if trust == Trust::Restrained {
        restrain(path, &mut settings)?;
    }
    Ok(Some(settings))
}

/// Files that hold passwords.
type WithSecrets = Vec<(PathBuf, Opened)>;

/// Reads a mailrc and what it sources; gives the files that hold passwords as well.
fn read_mailrc(
    path: &Path,
    opened: Opened,
    home: Option<&Path>,
    trust: Trust,
) -> Result<Option<(Settings, WithSecrets)>, Broken> {
    let text = Zeroizing::new(String::from_utf8_lossy(&opened.octets).into_owned());
    let mut files = HashMap::from([(path.to_owned(), opened)]);
    let mut source = |other: &Path| -> Result<Zeroizing<String>, mailrc::NotSourced> {
        if trust == Trust::Restrained {
            return Err(mailrc::NotSourced::Refused(format!("it is not read; {IN_PLACE}")));
        }
        let opened = Opened::open(other).map_err(|error| match error.kind() {
            ErrorKind::NotFound => mailrc::NotSourced::Missing,
            _ => mailrc::NotSourced::Refused(format!("{} cannot be read: {}", other.display(), words(&error))),
        })?;
        let text = Zeroizing::new(String::from_utf8_lossy(&opened.octets).into_owned());
        files.insert(other.to_owned(), opened);
        Ok(text)
    };
    let reading = mailrc::read(path, &text, home, &mut source).map_err(|problems| Broken::all(&problems))?;
    Ok(reading.map(|reading| {
        let with_secrets = reading.secret_files.into_iter().filter_map(|path| files.remove_entry(&path)).collect();
        (reading.settings, with_secrets)
    }))
}

/// Reads an msmtprc, and the system's for what it does not say. As msmtp has it, accounts of the user's go first, and
/// none is merged key by key. Unlike msmtp's, a system file that is wrong or closed to the caller is the
/// administrator's to mend: it does not stop mail of a user whose own file has a default account.
fn read_msmtprc(path: &Path, opened: &Opened, sources: &Sources<'_>, trust: Trust) -> Result<Settings, Broken> {
    let mut reading = one_msmtprc(path, opened, sources)?;
    if trust == Trust::Restrained {
        reading.write_nothing();
        harmless(path, reading.accounts(), IN_PLACE)?;
    }
    let system = sources.etc.join("msmtprc");
    if path != system && trust != Trust::Alone {
        match Opened::open(&system) {
            Ok(opened) => match one_msmtprc(&system, &opened, sources) {
                Ok(other) => reading.join(other),
                Err(_) if reading.has_default() => {}
                Err(broken) => return Err(broken),
            },
            Err(error) if reading.has_default() || is_absent(&system, &error) => {}
            Err(error) => return Err(unreadable(&system, &error)),
        }
    }
    let settings = reading.settings(&sources.around);
    if settings.accounts.is_empty() {
        return Err(Broken::one(format!("{} names no host, and so no relay", path.display())));
    }
    Ok(settings)
}

/// Reads one file, which must be private if a password stands in it. What is not UTF-8 matters only where it is used.
fn one_msmtprc(path: &Path, opened: &Opened, sources: &Sources<'_>) -> Result<msmtprc::Reading, Broken> {
    let text = Zeroizing::new(String::from_utf8_lossy(&opened.octets).into_owned());
    let reading = msmtprc::read(path, &text, &sources.around, &sources.arguments);
    let reading = reading.map_err(|problems| Broken::all(&problems))?;
    match privacy(path, opened, sources.uid).filter(|_| reading.has_secret) {
        Some(open) => Err(Broken::one(open)),
        None => Ok(reading),
    }
}

/// The account that the command line makes (`--host`). Whoever chose the host chose everything: it gets no secret.
fn of_arguments(sources: &Sources<'_>) -> Result<Settings, Broken> {
    let mut reading =
        msmtprc::of_arguments(&sources.around, &sources.arguments).map_err(|problems| Broken::all(&problems))?;
    reading.write_nothing();
    if !sources.trusts_arguments {
        let mend = "an account that arguments make may not; write it to a file and name that with $PILLARBOX_CONFIG, \
                    or set PILLARBOX_ARGUMENTS=trusted";
        harmless(Path::new("the command line"), reading.accounts(), mend)?;
    }
    Ok(reading.settings(&sources.around))
}

/// How far a file's words are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Whoever wrote it is the caller or root.
    Full,
    /// The same, and it is all there is: the environment names the whole configuration.
    Alone,
    /// Named by an argument, and it lies where anybody may have put it.
    Restrained,
}

impl Trust {
    /// Full where a file that an argument names lies where only root or the caller puts files for programs to obey:
    /// below `/etc`, or in a dot-file or dot-directory of the caller's home; and where it is theirs. Links are followed
    /// first, and what they lead to must be what was opened.
    fn of_argument(path: &Path, opened: &Opened, sources: &Sources<'_>) -> Self {
        let Ok(real) = path.canonicalize() else { return Self::Restrained };
        let in_dot_file = || {
            let home = sources.home.as_ref().and_then(|home| home.canonicalize().ok());
            let below = home.as_deref().and_then(|home| real.strip_prefix(home).ok());
            match below.and_then(|below| below.components().next()) {
                Some(Component::Normal(first)) => first.as_bytes().starts_with(b"."),
                _ => false,
            }
        };
        let is_opened = |found: std::fs::Metadata| (found.dev(), found.ino()) == opened.identity;
        let is_theirs = (opened.owner == 0 || opened.owner == sources.uid) && opened.mode & 0o002 == 0;
        let is_within_reach = real.starts_with("/etc") || in_dot_file();
        if is_theirs && is_within_reach && real.metadata().is_ok_and(is_opened) { Self::Full } else { Self::Restrained }
    }
}

/// Holds back what a file may not do that somebody else may have written. It runs no command and reads no secret: it
/// would send the secret to a host of its own choice. It writes no file either: as `-X` and `-oQ` are ignored, so are
/// its log files and its queue's directory.
fn restrain(path: &Path, settings: &mut Settings) -> Result<(), Broken> {
    settings.queue.dir = None;
    settings
        .log
        .retain(|to| !matches!(to, LogTo::File(_) | LogTo::Sessions(SessionLog { to: SessionLogTo::File(..), .. })));
    harmless(path, &settings.accounts, IN_PLACE)
}

/// Where such a file may do more.
const IN_PLACE: &str = "a configuration that an argument names may do that only where it is a file of yours or root's \
                        below /etc or in a dot-file or dot-directory of your home; to use this one set \
                        $PILLARBOX_CONFIG instead of -C";

/// Refuses accounts that would run a command or read a secret; `mend` says what else can be done.
fn harmless(path: &Path, accounts: &[Account], mend: &str) -> Result<(), Broken> {
    let refused = |account: &Account| {
        let what = match account.password.as_ref()? {
            PasswordSource::Literal(_) => return None,
            PasswordSource::Command(_) | PasswordSource::Eval(_) => "run a command",
            PasswordSource::OAuth(_) => "exchange a token",
            PasswordSource::Keyring(_) => "ask the keyring",
            PasswordSource::File(_) | PasswordSource::Credential(_) | PasswordSource::Netrc(_) => "read another file",
        };
        Some(format!("{}: account {:?} would {what} for its password; {mend}", path.display(), account.name))
    };
    let refused: Vec<String> = accounts.iter().filter_map(refused).collect();
    if refused.is_empty() { Ok(()) } else { Err(Broken(refused)) }
}

/// A file's text, whoever may read it; what is not UTF-8 becomes U+FFFD.
pub(super) fn text(path: &Path) -> io::Result<Zeroizing<String>> {
    Ok(Zeroizing::new(String::from_utf8_lossy(&Opened::open(path)?.octets).into_owned()))
}

/// A file's content, and whose it is.
struct Opened {
    /// May hold a password: wiped when dropped.
    octets: Zeroizing<Vec<u8>>,
    owner: u32,
    group: u32,
    mode: u32,
    /// Device and inode.
    identity: (u64, u64),
}

impl Opened {
    /// Reads a regular file of bounded size. Opening does not wait for a FIFO's other end nor for a device.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut octets =
            Zeroizing::new(Vec::with_capacity(usize::try_from(found.len().min(MAX_SIZE)).unwrap_or(0) + 1));
        file.take(MAX_SIZE + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 > MAX_SIZE {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
        }
        let identity = (found.dev(), found.ino());
        Ok(Self { octets, owner: found.uid(), group: found.gid(), mode: found.mode() & 0o7777, identity })
    }
}

/// Whether there is nothing of this name, as far as we are allowed to know. A directory of a home that is closed to
/// us (a service with `ProtectHome=`, say) holds nothing that was meant for us. Below `/etc` it does.
fn is_absent(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => true,
        ErrorKind::PermissionDenied => !path.starts_with("/etc") && path.symlink_metadata().is_err(),
        _ => false,
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Broken {
    Broken::one(format!("{} cannot be read: {}", path.display(), words(error)))
}

/// The system's word without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// What is wrong with the owner or the mode of a file that holds a password. It must belong to the reader or root, and
/// neither the group nor others may do anything with it. A root-owned file that a group may read is no exception:
/// every member of that group could read the relay's password, which is what the service is there to prevent. There it
/// is the password that must move: closed to its group, the file would be closed to the service that reads it as one.
fn privacy(path: &Path, opened: &Opened, uid: u32) -> Option<String> {
    let quoted = quote(path);
    if opened.owner == 0 && opened.group != 0 && opened.mode & 0o040 != 0 {
        let elsewhere = match Format::of(path, &opened.octets) {
            Format::Toml => "password = { file = \"...\" } or { credential = \"...\" } in its place",
            Format::Msmtprc => "passwordeval or a netrc in its place",
            Format::Mailrc => "a netrc in its place",
        };
        return Some(format!(
            "{} has a password in it and is open to its group (mode {:04o}), which may need it; mend it by taking the \
             password out, with {elsewhere}",
            path.display(),
            opened.mode
        ));
    }
    let chmod = (opened.mode & 0o077 != 0).then(|| format!("chmod 600 {quoted}"));
    if opened.owner != uid && opened.owner != 0 {
        let mend =
            [Some(format!("chown {uid} {quoted}")), chmod].into_iter().flatten().collect::<Vec<_>>().join(" && ");
        return Some(format!(
            "{} has a password in it and belongs to uid {}, neither to you nor to root; mend it with: {mend}",
            path.display(),
            opened.owner
        ));
    }
    chmod.map(|chmod| {
        let mode = opened.mode;
        format!(
            "{} has a password in it and is open to others (mode {mode:04o}); mend it with: {chmod}",
            path.display()
        )
    })
}

/// As a shell reads it back.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The text of a format that is UTF-8 by definition.
fn utf8<'a>(path: &Path, octets: &'a [u8]) -> Result<&'a str, Broken> {
    std::str::from_utf8(octets).map_err(|error| {
        let before = std::str::from_utf8(&octets[..error.valid_up_to()]).unwrap_or_default();
        let place = Place::of(&Rc::from(path), before, before.len());
        Broken::one(format!("{place}: this octet is not UTF-8, which TOML is written in"))
    })
}

#[cfg(test)]
mod tests;
