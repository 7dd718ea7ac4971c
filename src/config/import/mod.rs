//! From the configuration of another program to ours: its files
//! in, [`Settings`] and what could not be carried over out.
//!
//! A reader a program ([`own`] has msmtp's and s-nail's, whose files are read every day; the others are read here and
//! nowhere else). What the settings cannot say is a [`Note`] with its place, which becomes a comment in the TOML that
//! [`emit()`] writes. Nothing is changed silently for the worse: what went in clear is demanded to be encrypted, with a
//! note. What comes out is read back by our own reader before anybody sees it. Files are read, nothing else is touched.

mod dma;
mod emit;
mod nullmailer;
mod own;
mod postfix;
mod ssmtp;

pub use emit::{Written, emit};

use super::check::{Flaw, flaws};
use super::load;
use super::msmtprc::Surroundings;
use super::notation;
use super::{Account, Auth, Host, PasswordSource, Settings, Tls};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A program whose configuration can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `~/.msmtprc`
    Msmtp,
    /// s-nail's `~/.mailrc`
    Mailrc,
    /// `ssmtp.conf`, with `revaliases` beside it
    Ssmtp,
    /// A directory with `remotes`
    Nullmailer,
    /// `dma.conf`, with `auth.conf`
    Dma,
    /// `main.cf`, with the tables that it names
    Postfix,
}

/// The names that arguments give them.
pub const PROGRAMS: [(&str, Program); 6] = [
    ("msmtprc", Program::Msmtp),
    ("mailrc", Program::Mailrc),
    ("ssmtp", Program::Ssmtp),
    ("nullmailer", Program::Nullmailer),
    ("dma", Program::Dma),
    ("postfix", Program::Postfix),
];

impl Program {
    /// By the name of a file, or of a directory.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        match name.as_ref() {
            "ssmtp.conf" => Some(Self::Ssmtp),
            "remotes" | "nullmailer" => Some(Self::Nullmailer),
            "dma.conf" => Some(Self::Dma),
            "main.cf" => Some(Self::Postfix),
            name if name.contains("msmtprc") || path.ends_with("msmtp/config") => Some(Self::Msmtp),
            name if name.contains("mailrc") || name.ends_with("mail.rc") || name.ends_with("nail.rc") => {
                Some(Self::Mailrc)
            }
            _ => None,
        }
    }

    /// Where its configuration usually lies; the caller's own first.
    pub fn places(home: Option<&Path>, config_home: Option<&Path>, etc: &Path) -> Vec<PathBuf> {
        let own = [
            home.map(|home| home.join(".msmtprc")),
            config_home.map(|config| config.join("msmtp/config")),
            home.map(|home| home.join(".mailrc")),
        ];
        let system = ["msmtprc", "ssmtp/ssmtp.conf", "nullmailer/remotes", "dma/dma.conf", "postfix/main.cf"];
        own.into_iter().flatten().chain(system.iter().map(|path| etc.join(path))).collect()
    }
}

/// Something that is not in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file it stands in.
    pub file: PathBuf,
    /// Its line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What, why, and what to do.
    pub text: String,
}

/// `file:line: text`.
impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.display();
        if self.line == 0 {
            write!(f, "{file}: {}", self.text)
        } else {
            write!(f, "{file}:{}: {}", self.line, self.text)
        }
    }
}

/// What a configuration says.
#[derive(Debug)]
pub struct Imported {
    /// What could be carried over.
    pub settings: Settings,
    /// What could not.
    pub notes: Vec<Note>,
}

/// Reads a program's configuration. `companions` are read instead of files of the same name that it leads to. The error
/// is a sentence, or one a line.
pub fn read(program: Program, path: &Path, companions: &[PathBuf], around: &Surroundings) -> Result<Imported, String> {
    let mut reader = Reader { companions, unused: companions.to_vec(), around, notes: Vec::new() };
    let path = match program {
        Program::Nullmailer if path.is_dir() => path.join("remotes"),
        _ => path.to_owned(),
    };
    let text = reader
        .text(&path)
        .map_err(|error| format!("{} cannot be read: {}", path.display(), crate::outcome::words(&error)))?;
    let read = match program {
        Program::Msmtp => own::msmtprc,
        Program::Mailrc => own::mailrc,
        Program::Ssmtp => ssmtp::read,
        Program::Nullmailer => nullmailer::read,
        Program::Dma => dma::read,
        Program::Postfix => postfix::read,
    };
    let mut settings = read(&mut reader, &path, &text)?;
    for account in &mut settings.accounts {
        reader.mend(account, &path);
        let wrong = account.hosts.iter().find_map(|host| not_a_name(host).map(|wrong| format!("the host {wrong}")));
        let secret = match &account.password {
            Some(PasswordSource::Literal(secret)) => Some(("password", secret.as_str())),
            _ => None,
        };
        let odd = [account.user.as_deref().map(|user| ("user", user)), secret]
            .into_iter()
            .flatten()
            .find(|(_, value)| value.contains(char::is_control));
        if let Some(wrong) = wrong.or_else(|| odd.map(|(what, _)| format!("the {what} has a control character in it")))
        {
            return Err(format!("{}: account {}: {wrong}", path.display(), account.name));
        }
    }
    if let [unused, ..] = &reader.unused[..] {
        let (unused, path) = (unused.display(), path.display());
        return Err(format!("{unused} is no file that {path} leads to; one configuration is imported at a time"));
    }
    settings.file = path;
    Ok(Imported { settings, notes: reader.notes })
}

/// What the readers have in common.
struct Reader<'a> {
    companions: &'a [PathBuf],
    /// Those that have not been asked for yet.
    unused: Vec<PathBuf>,
    around: &'a Surroundings,
    notes: Vec<Note>,
}

/// Where something stands: file and line.
type Place<'p> = (&'p Path, usize);

/// What names stand for, as [`Settings`] has it.
type Pairs = Vec<(String, String)>;

/// Which of two entries for one name the program went by.
#[derive(Clone, Copy)]
enum Stays {
    First,
    Last,
}

/// A line that says something: its number, key and value.
type Line<'t> = (usize, &'t str, &'t str);

impl Reader<'_> {
    fn note(&mut self, file: &Path, line: usize, text: impl Into<String>) {
        let note = Note { file: file.to_owned(), line, text: text.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A file's text. Outside comments no control character is let in: no value of ours may have one.
    fn text(&mut self, path: &Path) -> io::Result<Zeroizing<String>> {
        let given = self.companions.iter().find(|given| given.file_name() == path.file_name());
        self.unused.retain(|unused| Some(unused) != given);
        let text = load::text(given.map_or(path, PathBuf::as_path))?;
        let is_odd =
            |line: &str| !line.trim_start().starts_with('#') && line.contains(|c: char| c.is_control() && c != '\t');
        match text.lines().position(is_odd) {
            Some(at) => Err(io::Error::other(format!("line {} has a control character in it", at + 1))),
            None => Ok(text),
        }
    }

    /// The text of a file that need not be there; one that cannot be read is noted.
    fn beside(&mut self, path: &Path) -> Option<Zeroizing<String>> {
        match self.text(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let text =
                    format!("it cannot be read ({}); what it says is missing here", crate::outcome::words(&error));
                self.note(path, 0, text);
                None
            }
        }
    }

    /// Makes an account one that can be used, and says what had to be changed.
    fn mend(&mut self, account: &mut Account, file: &Path) {
        for flaw in flaws(account) {
            let name = &account.name;
            let text = match flaw {
                Flaw::InClear(host) => {
                    account.tls = Tls::StartTls;
                    format!(
                        "account {name}: the password went to {host} in clear, which is not done here; STARTTLS is \
                         demanded now. If {host} has none, ask its owner for a port with TLS"
                    )
                }
                Flaw::NoPassword => {
                    let user = account.user.take().unwrap_or_default();
                    format!("account {name}: no password was found for the user {user}; write user and password below")
                }
                Flaw::PasswordWithoutUser => {
                    account.password = None;
                    format!("account {name}: a password without a user is of no use; it was left out")
                }
                Flaw::NoUser => {
                    account.auth = Auth::Auto;
                    format!("account {name}: a way to authenticate without a user is of no use; it was left out")
                }
                Flaw::TokenAsPassword | Flaw::NamelessSocket | Flaw::LmtpAt25 | Flaw::SrvInClear | Flaw::Mx(..) => {
                    continue;
                }
            };
            self.note(file, 0, text);
        }
    }

    /// An address, checked; a name without a domain stays one.
    fn address(&mut self, file: &Path, line: usize, text: &str) -> Option<String> {
        let fits = crate::message::address::parse_sender(text).ok().flatten();
        let fits = fits.filter(|one| one.to_mailbox("localhost").is_ok());
        if fits.is_none() {
            self.note(file, line, format!("\"{text}\" is no address; it was left out"));
        }
        fits.map(|_| text.to_owned())
    }

    /// Adds what a name stands for, or a sender becomes. For a name that is there already one of the two stays.
    fn pair(&mut self, at: Place<'_>, stays: Stays, pairs: &mut Pairs, (name, value): (String, String)) {
        let Some((_, known)) = pairs.iter_mut().find(|(known, _)| *known == name) else {
            pairs.push((name, value));
            return;
        };
        if *known != value {
            let (kept, gone) = match stays {
                Stays::First => (&*known, value),
                Stays::Last => (&value.clone(), std::mem::replace(known, value)),
            };
            let text = format!("{name} stands there twice; {kept} is taken and {gone} left out, as it was done before");
            self.note(at.0, at.1, text);
        }
    }

    /// A host and its port; `None`, with a note, where it is no name.
    fn host(&mut self, file: &Path, line: usize, name: &str, port: u16) -> Option<Host> {
        if port == 0 {
            self.note(file, line, "0 is no port; the host was left out");
            return None;
        }
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let host = Host::Tcp { name: bare.to_owned(), port };
        let Some(wrong) = not_a_name(&host) else { return Some(host) };
        self.note(file, line, format!("the host {wrong}; it was left out"));
        None
    }

    /// A path that means the same everywhere.
    fn path(&mut self, file: &Path, line: usize, text: &str) -> Option<PathBuf> {
        match notation::absolute(text, self.around.home.as_deref()) {
            Ok(path) => Some(path),
            Err(wrong) => {
                self.note(file, line, format!("the path {wrong}; it was left out"));
                None
            }
        }
    }

    /// An alias file; one that is not there would hold up every letter.
    fn alias_file(&mut self, file: &Path, line: usize, text: &str) -> Option<PathBuf> {
        let path = self.path(file, line, text)?;
        if path.exists() {
            return Some(path);
        }
        self.note(file, line, format!("there is no alias file {}; it was left out", path.display()));
        None
    }

    /// A SHA-256 fingerprint.
    fn pin(&mut self, file: &Path, line: usize, text: &str) -> Option<[u8; 32]> {
        match notation::pin(text) {
            Ok(pin) => Some(pin),
            Err(wrong) => {
                let text =
                    format!("the fingerprint {wrong}; the certificate is verified by the system's authorities instead");
                self.note(file, line, text);
                None
            }
        }
    }
}

/// What is wrong with the name of a host: what is a socket, a URL or a port in our own file is none.
fn not_a_name(host: &Host) -> Option<String> {
    let Host::Tcp { name, .. } = host else { return None };
    match notation::host(name, None) {
        Ok(notation::Written::Tcp(same, None)) if same == *name => None,
        Ok(_) => Some(format!("\"{name}\" is no name")),
        Err(wrong) => Some(wrong),
    }
}

/// `name:port`, `[name]:port`, `name`, by the last colon; IPv6 addresses are in brackets or have no port.
fn host_and_port(text: &str) -> (&str, Option<&str>) {
    let end = text.rfind(']').map_or(0, |end| end + 1);
    match text[end..].rsplit_once(':') {
        Some((name, port)) if end > 0 || !name.contains(':') => (&text[..end + name.len()], Some(port)),
        _ => (text, None),
    }
}

/// A name for one more account: the wanted one, or one like it that can be written and that no other has.
fn name_for(wanted: &str, accounts: &[Account]) -> String {
    let wanted: String = wanted.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let wanted = if wanted.is_empty() { "relay".to_owned() } else { wanted };
    let is_taken = |name: &String| accounts.iter().any(|account| account.name == *name);
    let numbered = (2..).map(|n| format!("{wanted}-{n}"));
    std::iter::once(wanted.clone()).chain(numbered).find(|name| !is_taken(name)).unwrap_or(wanted)
}

fn is_yes(value: &str) -> bool {
    ["yes", "true", "on", "1"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn literal(text: &str) -> Option<PasswordSource> {
    (!text.is_empty()).then(|| PasswordSource::Literal(Zeroizing::new(text.to_owned())))
}

#[cfg(test)]
mod tests;
