//! `pillarbox login` and `logout`: put an account's secret where its settings look for it, and take it away again.
//!
//! That is the keyring or a file; whatever else the settings name is somebody else's to write. A password is asked for
//! at the terminal, hidden, or is the first line of standard input; a refresh token is asked of the provider (see
//! `consent`). Whether the keyring can be had is looked at first, so that nobody types in vain. Nothing is changed
//! before the secret is there.
//!
//! Under the name [`secret::KEEPER`] this program is asked by another process for what the keyring has; see there.

use super::configuration;
use super::consent::{self, Way};
use super::exit::sysexits;
use super::host::Host;
use super::sendmail::{Face, settle_in};
use super::signals;
use super::terminal::{self, Terminal};
use crate::config::{Account, Keepsake, PasswordSource, Settings, choose};
use crate::deliver::identity;
use crate::outcome::printable;
use crate::secret::consent::Client;
use crate::secret::{self, Identity, Keeper, NoSecret, Secret, SecretEnv, private};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the keyring may take: somebody is here to unlock it.
const KEYRING: Duration = Duration::from_mins(1);

/// How long a provider's endpoint may take.
const ENDPOINT: Duration = Duration::from_secs(30);

/// What `pillarbox login` understands.
#[derive(Debug, clap::Args)]
pub struct Login {
    /// Read this configuration
    #[arg(short = 'C', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep it in a file of mode 0600, where there is no keyring
    #[arg(long)]
    file: bool,
    /// Ask the provider for a token, in a browser here or by a code (default: by a code where there is that)
    #[arg(long, value_name = "WAY", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    oauth: Option<Way>,
    /// The account (default: the one that is used when nothing else chooses one)
    account: Option<String>,
}

/// What `pillarbox logout` understands.
#[derive(Debug, clap::Args)]
pub struct Logout {
    /// Read this configuration
    #[arg(short = 'C', value_name = "FILE")]
    config: Option<PathBuf>,
    /// The account (default: the one that is used when nothing else chooses one)
    account: Option<String>,
}

/// Why a command has not done what it was told, and the status that this deserves.
pub struct Failed {
    /// The sentence.
    pub sentence: String,
    /// The status.
    pub status: u8,
}

impl Failed {
    /// One of each.
    pub fn new(status: u8, sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), status }
    }
}

/// Says what was done, or why it was not.
pub fn tell(face: Face<'_>, done: Result<String, Failed>) -> u8 {
    match done {
        Ok(text) => face.print(&text),
        Err(Failed { sentence, status }) => {
            face.say(&sentence);
            status
        }
    }
}

/// Looks up what the keyring has, for another process.
pub fn keeper(words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match secret::look_up(&words) {
        Ok(found) => {
            let mut out = std::io::stdout();
            let octets = [found.dangerous_expose(), b"\n"];
            let printed = octets.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
            if printed.is_ok() { 0 } else { sysexits::IOERR }
        }
        Err(why) => {
            let why = if let NoSecret::Keyring(why) = why { why } else { why.to_string() };
            let _ = writeln!(std::io::stderr(), "{why}");
            sysexits::TEMPFAIL
        }
    }
}

/// Puts an account's secret where it is looked for.
pub fn login(face: Face<'_>, words: &Login) -> u8 {
    settle_in();
    tell(face, log_in(face, words))
}

/// Takes it away.
pub fn logout(face: Face<'_>, words: &Logout) -> u8 {
    settle_in();
    signals::leave();
    tell(face, log_out(words))
}

/// Where a secret is put.
#[derive(Clone, Debug)]
pub enum Place {
    /// The keyring.
    Keyring(Keeper),
    /// A file of its own, 0600.
    File(PathBuf),
}

impl Place {
    /// The keyring's entry for an account.
    pub fn keyring(what: Keepsake, whose: &Identity<'_>) -> Self {
        Self::Keyring(Keeper::new(what, whose, KEYRING))
    }

    /// Where the settings look for it, where that is ours to write.
    fn of(source: &PasswordSource, whose: &Identity<'_>) -> Option<Self> {
        match source {
            PasswordSource::Keyring(what) => Some(Self::keyring(*what, whose)),
            PasswordSource::File(path) => Some(Self::File(path.clone())),
            _ => None,
        }
    }

    /// Whether it can be had now.
    pub fn check(&self) -> Result<(), NoSecret> {
        match self {
            Self::Keyring(keeper) => keeper.check(),
            Self::File(_) => Ok(()),
        }
    }

    /// Puts it there.
    pub fn store(&self, secret: &Secret) -> Result<(), Failed> {
        match self {
            Self::Keyring(keeper) => keeper.store(secret).map_err(|why| no_keyring(&why)),
            Self::File(path) => {
                let exposed = secret.dangerous_expose();
                let mut line = Zeroizing::new(Vec::with_capacity(exposed.len() + 1));
                line.extend_from_slice(exposed);
                line.push(b'\n');
                let made = path.parent().map_or(Ok(()), private::make_dir);
                made.and_then(|()| private::replace(path, &line)).map_err(|error| {
                    let why = crate::outcome::words(&error);
                    Failed::new(
                        sysexits::CANTCREAT,
                        format!("cannot write {}: {why}; nothing was kept", path.display()),
                    )
                })
            }
        }
    }

    /// Takes it away; whether there was something.
    pub fn remove(&self) -> Result<bool, Failed> {
        match self {
            Self::Keyring(keeper) => {
                keeper.remove().map_err(|why| Failed::new(sysexits::TEMPFAIL, format!("{why}; nothing was changed")))
            }
            Self::File(path) => match std::fs::remove_file(path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(error) => {
                    let why = crate::outcome::words(&error);
                    Err(Failed::new(sysexits::CANTCREAT, format!("cannot remove {}: {why}", path.display())))
                }
            },
        }
    }
}

/// `the keyring`, or the file's name.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keyring(_) => f.write_str("the keyring"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn no_keyring(why: &NoSecret) -> Failed {
    let sentence = format!("{why}; nothing was stored. Without a keyring, keep it in a file: --file");
    Failed::new(sysexits::TEMPFAIL, sentence)
}

fn log_in(face: Face<'_>, words: &Login) -> Result<String, Failed> {
    let host = Host::look();
    let settings = settings(&host, words.config.as_deref())?;
    let (account, user) = account(&settings, words.account.as_deref())?;
    let first = account.hosts.first().ok_or_else(|| Failed::new(sysexits::CONFIG, "the account has no host"))?;
    let whose = identity(account, first);
    let env = SecretEnv { limit: ENDPOINT, ..configuration::secret_env(&host) };
    let source = account.password.as_ref();
    let (what, source, oauth) = match source {
        Some(PasswordSource::OAuth(oauth)) => ("refresh token", Some(&oauth.refresh_token), Some(oauth)),
        source => ("password", source, None),
    };
    let place = match source.and_then(|source| Place::of(source, &whose)) {
        Some(place @ Place::File(_)) => place,
        _ if words.file => Place::File(own_file(&host, &settings, &account.name)),
        Some(place) => place,
        None => return Err(not_ours(&settings, account, what)),
    };
    place.check().map_err(|why| no_keyring(&why))?;
    let secret = match (oauth, words.oauth) {
        (Some(oauth), way) => {
            signals::leave();
            let client = Client { oauth, whose: &whose, env: &env };
            let asked = consent::ask(face, client, way.unwrap_or(Way::Auto));
            asked.map_err(|why| {
                let name = &account.name;
                Failed::new(sysexits::UNAVAILABLE, format!("account {name} cannot log in: {why}; nothing was stored"))
            })?
        }
        (None, Some(_)) => {
            let sentence = format!(
                "account {} has a password and no access token; write [account.{0}.password.oauth] in {}, see \
                 pillarbox.toml(5)",
                account.name,
                settings.file.display()
            );
            return Err(Failed::new(sysexits::CONFIG, sentence));
        }
        (None, None) => {
            let question = format!("Password of {user} at {} (account {}): ", whose.first, account.name);
            password(&question, Terminal::open().as_ref())?
        }
    };
    place.store(&secret)?;
    let owner = format!("{} at {}", printable(user), whose.first);
    let mut told = match &place {
        Place::Keyring(_) => format!("The {what} of {owner} is in the keyring.\n"),
        Place::File(path) => format!("The {what} of {owner} is in {}, which only you can read.\n", path.display()),
    };
    if let Place::File(path) = &place
        && !matches!(source, Some(PasswordSource::File(_)))
    {
        told.push_str(&line_for(&settings, account, path, what));
    }
    Ok(told)
}

fn log_out(words: &Logout) -> Result<String, Failed> {
    let host = Host::look();
    let settings = settings(&host, words.config.as_deref())?;
    let (account, user) = account(&settings, words.account.as_deref())?;
    let first = account.hosts.first().ok_or_else(|| Failed::new(sysexits::CONFIG, "the account has no host"))?;
    let whose = identity(account, first);
    let source = account.password.as_ref();
    let had_token = source.is_some_and(|source| secret::clear(source, &whose, &configuration::secret_env(&host)));
    let (what, source) = match source {
        Some(PasswordSource::OAuth(oauth)) => ("refresh token", Some(&oauth.refresh_token)),
        source => ("password", source),
    };
    let place =
        source.and_then(|source| Place::of(source, &whose)).ok_or_else(|| not_ours(&settings, account, what))?;
    let had = place.remove()?;
    let owner = format!("{} at {}", printable(user), whose.first);
    let mut told = if had {
        format!("The {what} of {owner} is no longer in {place}.\n")
    } else {
        format!("There was no {what} of {owner} in {place}.\n")
    };
    if had_token {
        told.push_str("The access token that was kept is forgotten; the provider may still take it for an hour.\n");
    }
    Ok(told)
}

fn settings(host: &Host, config: Option<&Path>) -> Result<Settings, Failed> {
    let loaded = configuration::load(host, config);
    loaded.map(|configuration| configuration.settings).map_err(|sentence| Failed::new(sysexits::CONFIG, sentence))
}

/// The account, and who logs in.
fn account<'a>(settings: &'a Settings, named: Option<&str>) -> Result<(&'a Account, &'a str), Failed> {
    let account = choose::usual(settings, named).map_err(|none| Failed::new(sysexits::USAGE, printable(&none.0)))?;
    let nobody =
        || Failed::new(sysexits::CONFIG, format!("account {} has no user, and so nobody logs in", account.name));
    Ok((account, account.user.as_deref().ok_or_else(nobody)?))
}

fn not_ours(settings: &Settings, account: &Account, what: &str) -> Failed {
    let (name, file) = (&account.name, settings.file.display());
    let key = if what == "password" { "password" } else { "refresh_token" };
    let sentence = format!(
        "account {name} takes its {what} neither from the keyring nor from a file; write {key} = {{ keyring = true }} \
         in {file} first"
    );
    Failed::new(sysexits::CONFIG, sentence)
}

/// Where a secret is kept that has no keyring: beside the configuration of the user, never elsewhere.
fn own_file(host: &Host, settings: &Settings, account: &str) -> PathBuf {
    let beside = settings.file.parent().unwrap_or(Path::new("/"));
    let own = host.config_home.as_ref().map(|home| home.join("pillarbox"));
    let dir = own.filter(|_| !beside.ends_with("pillarbox")).unwrap_or_else(|| beside.to_owned());
    dir.join(password_file(account))
}

/// The name of the file with an account's secret.
pub fn password_file(account: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "._@-".contains(c) { c } else { '_' };
    format!("{}.password", account.chars().map(plain).collect::<String>())
}

/// What to write into the configuration.
fn line_for(settings: &Settings, account: &Account, path: &Path, what: &str) -> String {
    let (file, path) = (settings.file.display(), path.display());
    if settings.file.extension().is_some_and(|ending| ending == "toml") {
        let (table, key) = if what == "password" { ("", "password") } else { (".password.oauth", "refresh_token") };
        let name = &account.name;
        return format!("In {file}, below [account.{name}{table}], write:\n\n{key} = {{ file = \"{path}\" }}\n");
    }
    format!("In {file}, have it read by a command:\n\ncat '{path}'\n")
}

/// Asks for a password at the terminal, or reads it from standard input where there is none.
pub fn password(question: &str, terminal: Option<&Terminal>) -> Result<Secret, Failed> {
    let failed = |error: std::io::Error| {
        Failed::new(
            sysexits::IOERR,
            format!("cannot read the password: {}; nothing was stored", crate::outcome::words(&error)),
        )
    };
    let read = match terminal {
        Some(terminal) => terminal.ask_hidden(&printable(question)),
        None => terminal::piped_line(),
    };
    let octets = read.map_err(failed)?;
    let octets = octets.ok_or_else(|| Failed::new(sysexits::TEMPFAIL, "no password was given; nothing was stored"))?;
    secret::usable("what was given", &octets)
        .map_err(|why| Failed::new(sysexits::DATAERR, format!("{why}; nothing was stored")))
}
