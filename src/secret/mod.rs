//! Secrets: how a password or a token is obtained, and a type that cannot be printed.
//!
//! [`obtain`] asks exactly the source that the settings name and never falls through to another one.
//! Secrets are read straight into memory that is taken once, never grows and is wiped when dropped;
//! they have no `Display`, and no error here holds one. Every wait and every size is bounded: 64 KiB
//! for a first line, 1 MiB for a netrc, [`SecretEnv::limit`] for a command or a token endpoint. A
//! source that is empty or holds a NUL is refused (RFC 4616 separates with NUL). Whoever gets an
//! error defers: a locked keyring or a missing file is our fault and never the letter's.

mod command;
pub mod consent;
mod file;
mod keeper;
mod keyring;
mod netrc;
mod oauth;
pub mod private;
mod shelf;

use crate::config::PasswordSource;
pub use keeper::{Keeper, look_up};
pub use keyring::KEEPER;
pub use oauth::{Answer, Post};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// The longest first line, and the most that a command may print.
const LONGEST: usize = 64 * 1024;

/// A password or token. No `Display`, an empty `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Secret {
    octets: Zeroizing<Vec<u8>>,
    /// Whether it was kept from an earlier run: where it is refused, another may be had ([`forget`]).
    is_kept: bool,
}

impl Secret {
    /// Takes ownership of the octets.
    pub fn new(octets: Vec<u8>) -> Self {
        Self { octets: Zeroizing::new(octets), is_kept: false }
    }

    /// The same secret, known to be an old one.
    fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    /// The octets, for the one place that puts them on the wire.
    pub fn dangerous_expose(&self) -> &[u8] {
        &self.octets
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Overwrites the stack below the caller, where a library that was given a secret leaves its own copies: a hash, the
/// block that it was at. They would stay there until somebody needs the place.
#[inline(never)]
pub fn wipe_stack() {
    std::hint::black_box(&mut Zeroizing::new([0_u8; 16 * 1024]));
}

/// Whose password.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The relay's name, as the settings spell it.
    pub host: &'a str,
    /// The authentication identity.
    pub user: &'a str,
    /// The first of the account's hosts, under whose name the keyring has what belongs to them all.
    pub first: &'a str,
}

/// What obtaining a secret needs of the environment.
#[derive(Clone, Debug)]
pub struct SecretEnv {
    /// `$CREDENTIALS_DIRECTORY`
    pub credentials_directory: Option<PathBuf>,
    /// The caller's home.
    pub home: Option<PathBuf>,
    /// The caller.
    pub uid: u32,
    /// How long a command or a token endpoint may take.
    pub limit: Duration,
    /// Where tokens are kept between runs, in a directory `oauth`; `None`: they are not.
    pub state: Option<PathBuf>,
    /// Asks a token endpoint. The error reads on after the endpoint's name. This floor has no wire of its own.
    pub post: fn(&Post<'_>) -> Result<Answer, String>,
}

/// Why a secret cannot be had. It reads on after "the password of account work cannot be had: ", it says what
/// would mend it, and it never holds the secret, nor a command's words, which may hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSecret {
    /// `~/.netrc` without a home.
    NoHome,
    /// The credential's name could leave the directory.
    CredentialName(String),
    /// Nobody has given us credentials; the name that was looked for.
    NoCredentials(String),
    /// A file cannot be read; the system's word.
    Unreadable(PathBuf, String),
    /// A directory, a pipe, a device.
    NotAFile(PathBuf),
    /// A file belongs to somebody else; the owner's uid.
    NotOurs(PathBuf, u32),
    /// Others may read or change a file; its mode. Where it is root's and we are not, who must have it to read it then.
    NotPrivate(PathBuf, u32, Option<u32>),
    /// A netrc cannot be understood: line and what is wrong there.
    Netrc(PathBuf, usize, &'static str),
    /// A netrc has no password for host and user.
    NoEntry(PathBuf, String, String),
    /// The program of a command cannot be started: program and the system's word.
    NotStarted(String, String),
    /// A command failed: what it did, and what it had to say on its standard error.
    Command(String, String),
    /// There is something, but it cannot be a password: where it comes from, and why.
    Unusable(String, &'static str),
    /// One of the secrets that a token is asked for with cannot be had: its key in the settings, and why.
    Within(&'static str, Box<NoSecret>),
    /// A token endpoint gives no token: its host, and why.
    NoToken(String, String),
    /// The keyring gives none: why.
    Keyring(String),
}

impl fmt::Display for NoSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => f.write_str("there is no home directory to look for .netrc in; name the file"),
            Self::CredentialName(name) => write!(f, "{name:?} is no name of a credential: it must be a file name"),
            Self::NoCredentials(name) => write!(
                f,
                "$CREDENTIALS_DIRECTORY is not set; the credential {name:?} exists only for a service that systemd \
                 starts with LoadCredential={name}:FILE"
            ),
            Self::Unreadable(path, why) => write!(f, "{} cannot be read: {why}", path.display()),
            Self::NotAFile(path) => write!(f, "{} is not a regular file", path.display()),
            Self::NotOurs(path, owner) => {
                write!(f, "{} belongs to uid {owner}, and must belong to you or to root; chown it", path.display())
            }
            Self::NotPrivate(path, mode, new_owner) => {
                let path = path.display();
                let chown = new_owner.map(|uid| format!("chown {uid} {path} && ")).unwrap_or_default();
                write!(f, "{path} has mode {mode:04o} and is not private; {chown}chmod 600 {path}")
            }
            Self::Netrc(path, line, why) => write!(f, "{}:{line}: {why}", path.display()),
            Self::NoEntry(path, host, user) => {
                write!(f, "{} has no password for machine {host} and login {user}", path.display())
            }
            Self::NotStarted(program, why) => write!(f, "the command {program} cannot be run: {why}"),
            Self::Command(what, said) if said.is_empty() => write!(f, "the command {what}"),
            Self::Command(what, said) => write!(f, "the command {what}; it said \"{said}\""),
            Self::Unusable(whence, why) => write!(f, "{whence} {why}"),
            Self::Within(key, why) => write!(f, "{key}: {why}"),
            Self::NoToken(host, why) => write!(f, "the token endpoint {host} {why}"),
            Self::Keyring(why) => write!(f, "the keyring {why}"),
        }
    }
}

/// Obtains a secret: reads its file, runs its command, or exchanges a token for it.
pub fn obtain(source: &PasswordSource, whose: &Identity<'_>, env: &SecretEnv) -> Result<Secret, NoSecret> {
    match source {
        PasswordSource::Literal(text) => usable("the configuration", text.as_bytes()),
        PasswordSource::File(path) => file::first_line(path, env.uid),
        PasswordSource::Command(words) => command::first_line(words, env.limit),
        PasswordSource::Eval(line) => evaluated(&command::first_line(std::slice::from_ref(line), env.limit)?),
        PasswordSource::Credential(name) => file::credential(name, env.credentials_directory.as_deref()),
        PasswordSource::Netrc(path) => netrc::password(path.as_deref(), whose, env),
        PasswordSource::Keyring(what) => keyring::secret(*what, whose, env.limit),
        PasswordSource::OAuth(oauth) => oauth::access_token(oauth, whose, env),
    }
}

/// Forgets a secret that a relay has refused, where it was one that is kept. Whether another may be had now.
pub fn forget(source: &PasswordSource, whose: &Identity<'_>, env: &SecretEnv, refused: &Secret) -> bool {
    if let PasswordSource::OAuth(oauth) = source {
        oauth::forget(oauth, whose, env, refused);
    }
    refused.is_kept
}

/// Takes away the tokens that are kept between runs; whether there were some.
pub fn clear(source: &PasswordSource, whose: &Identity<'_>, env: &SecretEnv) -> bool {
    matches!(source, PasswordSource::OAuth(oauth) if oauth::clear(oauth, whose, env))
}

/// What commands and the keyring have answered in this run, so that one run asks them once (they may put a prompt
/// before a person or a token server to work), not once for each host or connection.
///
/// Nothing else is remembered: a file is read faster than looked up, and failures are remembered by whoever
/// knows that the account is down. It must not outlive the run, or a changed password would never be seen.
#[derive(Default)]
pub struct Answers(Mutex<HashMap<Vec<String>, Secret>>);

impl Answers {
    /// As [`obtain`]. One command runs at a time: whoever else wants its answer waits for it, and two prompts
    /// never fight for one terminal.
    pub fn obtain(&self, source: &PasswordSource, whose: &Identity<'_>, env: &SecretEnv) -> Result<Secret, NoSecret> {
        let words = match source {
            PasswordSource::Command(words) => words,
            PasswordSource::Eval(line) => &vec!["eval".to_owned(), line.clone()],
            PasswordSource::Keyring(what) => &keyring::words(*what, whose),
            _ => return obtain(source, whose, env),
        };
        // A thread that panicked while it asked has left the answers of the others whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = known.get(words) {
            return Ok(secret.clone());
        }
        let secret = obtain(source, whose, env)?;
        known.insert(words.clone(), secret.clone());
        Ok(secret)
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

/// The argument of the line `password ARGUMENT` that a command has printed, by the rules of an msmtprc: blanks around
/// it do not count, nor do quotes around the whole of it.
fn evaluated(line: &Secret) -> Result<Secret, NoSecret> {
    let line = line.dangerous_expose().trim_ascii();
    let (keyword, argument) = line.split_at(line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len()));
    if keyword != b"password" {
        let why = "printed a line that does not begin with `password`, and nothing else can be evaluated here";
        return Err(NoSecret::Unusable("the command of eval".to_owned(), why));
    }
    let argument = argument.trim_ascii();
    let quoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    usable("the command of eval", quoted.unwrap_or(argument))
}

/// A copy of exactly these octets, where they can be a password.
pub fn usable(whence: &str, octets: &[u8]) -> Result<Secret, NoSecret> {
    let unusable = |why| Err(NoSecret::Unusable(whence.to_owned(), why));
    match octets {
        [] => unusable("has an empty password"),
        _ if octets.contains(&0) => unusable("has a NUL octet where the password should be: is it a binary file?"),
        _ => Ok(Secret::new(octets.to_vec())),
    }
}

/// Memory for secrets to be read into: its size is settled at once, so that no copy is left behind by growing.
fn buffer(size: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![0; size])
}

/// Reads until the end or until the buffer is full; how much there was.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first line without its end.
fn line(octets: &[u8]) -> &[u8] {
    let line = octets.split(|&octet| octet == b'\n').next().unwrap_or_default();
    let end = line.iter().rposition(|&octet| octet != b'\r').map_or(0, |last| last + 1);
    &line[..end]
}

/// The system's word, without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A door for the fuzz targets in tests/fuzz, which no other
/// build has: the password in a netrc, or the line that is wrong.
#[cfg(fuzzing)]
pub fn fuzz_netrc(text: &[u8], whose: &Identity<'_>) -> Result<Option<Vec<u8>>, usize> {
    netrc::find(text, whose).map(|found| found.map(|word| word.to_vec())).map_err(|flaw| flaw.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> SecretEnv {
        let uid = nix::unistd::getuid().as_raw();
        let post: fn(&Post<'_>) -> Result<Answer, String> = |_| Err("is not asked".to_owned());
        SecretEnv { credentials_directory: None, home: None, uid, limit: Duration::from_secs(30), state: None, post }
    }

    const ALICE: Identity<'_> = Identity { host: "smtp.example.com", user: "alice", first: "smtp.example.com" };

    fn literal(text: &str) -> PasswordSource {
        PasswordSource::Literal(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_literal_is_taken_as_it_is() {
        for text in ["s3cret", " # inner \"quotes\" and blanks ", "pässwörd"] {
            let secret = obtain(&literal(text), &ALICE, &env()).unwrap();
            assert_eq!(secret.dangerous_expose(), text.as_bytes());
        }
    }

    #[test]
    fn what_cannot_be_a_password_is_refused_without_showing_it() {
        for (text, part) in [("", "empty"), ("s3c\0ret", "NUL")] {
            let error = obtain(&literal(text), &ALICE, &env()).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("s3c"), "{error}");
        }
    }

    #[test]
    fn a_secret_cannot_be_printed() {
        assert_eq!(format!("{:?}", Secret::new(b"s3cret".to_vec())), "Secret");
        assert_eq!(format!("{:?}", Answers::default()), "Answers");
    }

    #[test]
    fn the_first_line_ends_at_lf_or_crlf() {
        let rows: [(&[u8], &[u8]); 8] = [
            (b"", b""),
            (b"\n", b""),
            (b"\r\n", b""),
            (b"one", b"one"),
            (b"one\ntwo", b"one"),
            (b"one\r\ntwo\r\n", b"one"),
            (b" o\rne \r", b" o\rne "),
            (b"one\r\r\n", b"one"),
        ];
        for (octets, first) in rows {
            assert_eq!(line(octets), first, "{octets:?}");
        }
    }

    #[test]
    fn a_run_asks_a_command_once() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let ask = format!("echo asked >>{0}; wc -l <{0} | tr -d ' '", count.display());
        let source = PasswordSource::Command(vec![ask]);
        let answers = Answers::default();
        std::thread::scope(|threads| {
            for host in ["a.example", "b.example", "a.example"] {
                let (answers, source) = (&answers, &source);
                threads.spawn(move || {
                    let secret =
                        answers.obtain(source, &Identity { host, user: "alice", first: host }, &env()).unwrap();
                    assert_eq!(secret.dangerous_expose(), b"1");
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "asked\n");
    }

    #[test]
    fn an_evaluated_line_gives_what_stands_behind_its_keyword() {
        for (line, expected) in [
            ("password s3cret", Some("s3cret")),
            ("  password\t\" s3 \"cret \" ", Some(" s3 \"cret ")),
            ("password \"", Some("\"")),
            ("password", None),
            ("password \"\"", None),
            ("passwords s3cret", None),
            ("host s3cret", None),
        ] {
            let found = obtain(&PasswordSource::Eval(format!("echo '{line}'")), &ALICE, &env());
            if let Err(error) = &found {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
            assert_eq!(found.ok().as_ref().map(Secret::dangerous_expose), expected.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn a_command_that_failed_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let flag = dir.path().join("unlocked");
        let source = PasswordSource::Command(vec![format!("test -e {} && echo s3cret", flag.display())]);
        let answers = Answers::default();
        answers.obtain(&source, &ALICE, &env()).unwrap_err();
        std::fs::write(&flag, "").unwrap();
        assert_eq!(answers.obtain(&source, &ALICE, &env()).unwrap().dangerous_expose(), b"s3cret");
    }
}
