//! `pillarbox init`: from an address and a password to a machine that sends.
//!
//! In this order, and each step is told: the server is found ([`find`]), all that will be written is shown, the
//! password is asked for and tried there, it is put into the keyring or a file of its own, the configuration is
//! written, and a letter is sent by it. Until the relay has taken the password nothing is changed; if the configuration
//! cannot be written, the password is taken away again. What is there already is left alone without `--force`, and kept
//! beside the new one with it.
//!
//! Where standard input is a terminal a person is asked for what the words do not say. With `--yes`, or without a
//! terminal, a proposal is taken only where no forger could have made it.

mod find;
mod person;
mod proof;
mod providers;
mod write;

use super::configuration;
use super::exit::sysexits;
use super::host::{self, Host};
use super::login::{Failed, Place, password_file, tell};
use super::sendmail::{Face, settle_in};
use super::terminal::Terminal;
use crate::config::{Account, Keepsake, Tls, load};
use crate::message::address::parse_sender;
use crate::outcome::printable;
use crate::secret::{Identity, private};
use crate::smtp::Limits;
use crate::smtp::connect::{Directory, Dns, Exchange};
use crate::smtp::interrupt::Interrupt;
use find::{Candidate, World};
use person::{Person, given_up};
use proof::{logged_in, proven, reach, refused, test_letter};
use providers::{Provider, Takes};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use write::{Draft, quoted};

/// How long each look at a server may take while one is looked for.
const LOOK: Duration = Duration::from_secs(10);

/// What `pillarbox init` understands.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Words {
    /// The mail address to send from
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// The name beside it (default: your full name on this machine)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the account is called
    #[arg(long, value_name = "NAME", default_value = "mail")]
    account: String,
    /// The server, where it is not to be looked for
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Its port (default: 587 for STARTTLS, 465 for TLS, 25 for none)
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How TLS is spoken there (default: by the port, else STARTTLS)
    #[arg(long, value_name = "HOW")]
    tls: Option<How>,
    /// PEM file of the authorities to trust there, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The user to log in as (default: the address)
    #[arg(long, value_name = "USER", conflicts_with = "no_auth")]
    user: Option<String>,
    /// The server wants no password
    #[arg(long, conflicts_with_all = ["password_stdin", "password_file"])]
    no_auth: bool,
    /// The first line of standard input is the password
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// The first line of this file, which must be private, is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Keep the password in a file of mode 0600, and not in the keyring
    #[arg(long)]
    file: bool,
    /// Set up the service of the whole machine: below /etc
    #[arg(long)]
    system: bool,
    /// Replace the configuration that is there; it is kept with .old behind its name
    #[arg(long)]
    force: bool,
    /// Take what is proposed, and ask for nothing but the password
    #[arg(long)]
    yes: bool,
    /// Neither log in nor send a letter
    #[arg(long)]
    no_test: bool,
}

/// The words of `--tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Starttls,
    Implicit,
    None,
}

/// Sets up. Returns the exit status.
pub fn main(face: Face<'_>, words: &Words) -> u8 {
    settle_in();
    let terminal = Terminal::open();
    tell(face, set_up(words, &Person { face, terminal, agrees: words.yes }))
}

fn set_up(words: &Words, person: &Person<'_>) -> Result<String, Failed> {
    let host = Host::look();
    let path = place(&host, words)?;
    vacant(&path, words)?;
    note_others(&host, &path, words, person);
    let (from, domain) = address(words, person)?;
    let (server, provider) = server(&domain, &host, words, person)?;
    let user = match &words.user {
        _ if words.no_auth => None,
        Some(user) => Some(user.clone()),
        None => Some(person.asked("User name", Some(&from), "--user")?),
    };
    let login = user.map(|user| {
        let place = secret_place(&user, &server, &path, words, person);
        (user, place)
    });
    if let Some((_, place @ Place::File(file))) = &login
        && !words.force
        && file.symlink_metadata().is_ok()
    {
        return Err(Failed::new(sysexits::CANTCREAT, format!("{place} is there already; --force replaces it")));
    }
    let draft = Draft {
        account: words.account.clone(),
        server,
        ca_file: absolute(words.ca_file.as_deref())?,
        login: login.as_ref().map(|(user, place)| (user.clone(), source(place, words))),
        from,
        name: words.name.clone().unwrap_or_else(|| host.caller().full_name),
        local: local_names(&host, words),
    };
    let account = account_of(&draft, &path, &host)?;
    show(&draft, login.as_ref().map(|(_, place)| place), &path, person);
    let secret = match &login {
        None => {
            logged_in(&account, None, &host, words, person).map_err(|fault| refused(&account, provider, &fault))?;
            None
        }
        Some(_) => Some(proven(&account, provider, &host, words, person)?),
    };
    make_dir(&path, words)?;
    let mode = if words.system { 0o644 } else { 0o600 };
    let unwritten = |error: std::io::Error| {
        let why = crate::outcome::words(&error);
        Failed::new(sysexits::CANTCREAT, format!("cannot write {}: {why}; nothing was changed", path.display()))
    };
    // From here on the password and the configuration come together, or neither does.
    let staged = private::stage(&path, draft.text().as_bytes(), mode).map_err(unwritten)?;
    if let (Some((_, place)), Some(secret)) = (&login, &secret) {
        place.store(secret)?;
    }
    let kept = keep_old(&path).and_then(|kept| staged.commit().map(|()| kept)).map_err(|error| {
        if let Some((_, place)) = &login {
            let _ = place.remove();
        }
        unwritten(error)
    })?;
    if let Some(old) = kept {
        person.tell(&format!("Kept: {}", old.display()));
    }
    person.tell(&format!("Written: {}", path.display()));
    if words.system {
        person.tell(SERVICE);
    }
    if words.no_test || !person.consents(&format!("Send a test letter to {}?", draft.from))? {
        return Ok(format!("Try it:  echo hello | sendmail {}\n", draft.from));
    }
    test_letter(&draft, secret.as_ref(), &path, &host).map(|text| person.folded(&text))
}

/// What is left to do for a service.
const SERVICE: &str = "The service gets the password from systemd, once `systemctl edit pillarbox.service` has these \
    lines:\n\n\
    [Service]\nLoadCredential=password:/etc/pillarbox/password\n\n\
    and runs after `systemctl enable --now pillarbox.socket`.";

/// The file to be written.
fn place(host: &Host, words: &Words) -> Result<PathBuf, Failed> {
    if words.system {
        return Ok(PathBuf::from(configuration::SERVICE));
    }
    let named = host::variable("PILLARBOX_CONFIG").map(PathBuf::from);
    let own = named.map(|named| std::path::absolute(&named).unwrap_or(named)).or_else(|| configuration::own(host));
    own.ok_or_else(|| {
        Failed::new(sysexits::CONFIG, "you have no home to write a configuration into; set PILLARBOX_CONFIG")
    })
}

fn vacant(path: &Path, words: &Words) -> Result<(), Failed> {
    if path.symlink_metadata().is_err() || words.force || configuration::is_unwritten(path) {
        return Ok(());
    }
    let sentence = format!(
        "{0} is there already, and stays as it is; --force replaces it, and keeps it as {0}.old",
        path.display()
    );
    Err(Failed::new(sysexits::CANTCREAT, sentence))
}

/// What sent mail so far, and will not any more.
fn note_others(host: &Host, path: &Path, words: &Words, person: &Person<'_>) {
    if words.system {
        return;
    }
    match configuration::service(host, None) {
        Ok(Some(socket)) => person.tell(&format!(
            "Your mail goes to this machine's service at {}; from now on it goes your own way.",
            socket.display()
        )),
        _ => match configuration::find(host, None) {
            Ok(Some(other)) if other.settings.file != path => person.tell(&format!(
                "Your mail goes by {}; from now on it goes by {}.",
                other.settings.file.display(),
                path.display()
            )),
            _ => {}
        },
    }
}

/// The address and its domain.
fn address(words: &Words, person: &Person<'_>) -> Result<(String, String), Failed> {
    loop {
        let typed = match &words.address {
            Some(address) => address.clone(),
            None => person.asked("Your mail address", None, "--address")?,
        };
        let read = parse_sender(&typed).map_err(|error| error.to_string()).and_then(|address| {
            let whole = address.filter(|address| address.domain.is_some()).ok_or("has no domain")?;
            whole.to_mailbox("localhost").map_err(|bad| bad.to_string())
        });
        match read {
            Ok(mailbox) => return Ok((mailbox.to_string(), mailbox.domain().to_owned())),
            Err(why) => {
                let sentence = format!("\"{}\" {why}", printable(&typed));
                if words.address.is_some() {
                    return Err(Failed::new(sysexits::USAGE, format!("{sentence}; nothing was written")));
                }
                person.tell(&sentence);
            }
        }
    }
}

/// Where mail of this domain is taken.
fn server(
    domain: &str,
    host: &Host,
    words: &Words,
    person: &Person<'_>,
) -> Result<(Candidate, Option<&'static Provider>), Failed> {
    if let Some(written) = &words.host {
        // It may have its port with it, as in the file.
        let split = written.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
        let split = split.and_then(|(name, port)| Some((name, Some(port.parse().ok()?))));
        let (name, port) = split.unwrap_or((written, words.port));
        let tls = match (words.tls, port) {
            (Some(How::Implicit), _) | (None, Some(465)) => Tls::Implicit,
            (Some(How::None), _) => Tls::Off,
            (Some(How::Starttls) | None, _) => Tls::StartTls,
        };
        let port = port.unwrap_or(tls.default_port());
        return Ok((Candidate { host: name.trim_matches(['[', ']']).to_owned(), port, tls }, None));
    }
    let found = {
        let interrupt = Interrupt::default();
        let dns = || Dns { limits: Limits { step: LOOK, total: Instant::now() + LOOK }, interrupt: &interrupt };
        let ask = |name: &str, domain: &str| dns().service(name, domain);
        let exchangers = |domain: &str| match dns().exchange(domain) {
            Ok(Exchange::To(servers)) => servers.into_iter().map(|server| server.name).collect(),
            // Nothing depends on it.
            Ok(Exchange::Nowhere | Exchange::Unknown) | Err(_) => Vec::new(),
        };
        let reach = |candidates: &[Candidate]| reach(candidates, host);
        let mut knows = |name: &str| {
            let question = format!("The DNS says {}. Is that your provider's?", printable(name));
            !person.agrees && person.consents(&question).unwrap_or(false)
        };
        find::server(
            domain,
            &mut World {
                ask: &ask,
                exchangers: &exchangers,
                reach: &reach,
                say: &mut |line| person.tell(line),
                knows: &mut knows,
            },
        )
    };
    let (server, provider) = found.ok_or_else(|| {
        let sentence = "no mail server was found: your provider names it (\"SMTP\" or \"outgoing mail\"); give it with \
                        --host, and --port and --tls; nothing was written";
        Failed::new(sysexits::NOHOST, sentence)
    })?;
    match provider {
        Some(Provider { name, takes: Takes::Token, .. }) => {
            let sentence = format!(
                "{name} takes access tokens and no passwords: write an account with a table password.oauth, as in the \
                 EXAMPLES of pillarbox.toml(5), and run pillarbox login --oauth; nothing was written"
            );
            Err(Failed::new(sysexits::UNAVAILABLE, sentence))
        }
        Some(_) if providers::of(domain).is_some() => Ok((server, provider)),
        _ if person.consents(&format!("Use {server}?"))? => Ok((server, provider)),
        _ if person.terminal.is_some() => Err(given_up()),
        _ => {
            let sentence = format!("{server} is a proposal: --yes takes it, --host names another; nothing was written");
            Err(Failed::new(sysexits::USAGE, sentence))
        }
    }
}

/// Where the password is to be kept.
fn secret_place(user: &str, server: &Candidate, path: &Path, words: &Words, person: &Person<'_>) -> Place {
    let dir = path.parent().unwrap_or(Path::new("/"));
    if words.system {
        return Place::File(dir.join("password"));
    }
    let file = Place::File(dir.join(password_file(&words.account)));
    if words.file {
        return file;
    }
    let whose = Identity { host: &server.host, user, first: &server.host };
    let keyring = Place::keyring(Keepsake::Password, &whose);
    match keyring.check() {
        Ok(()) => keyring,
        Err(why) => {
            person.tell(&format!("The password goes into a file: {why}."));
            file
        }
    }
}

/// What the configuration says of it.
fn source(place: &Place, words: &Words) -> String {
    match place {
        Place::Keyring(_) => "{ keyring = true }".to_owned(),
        Place::File(_) if words.system => "{ credential = \"password\" }".to_owned(),
        Place::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
    }
}

fn absolute(path: Option<&Path>) -> Result<Option<PathBuf>, Failed> {
    let absolute = path.map(std::path::absolute).transpose();
    absolute.map_err(|error| Failed::new(sysexits::USAGE, format!("--ca-file: {}", crate::outcome::words(&error))))
}

/// Root and the user: whom cron writes to.
fn local_names(host: &Host, words: &Words) -> Vec<String> {
    let login = Some(host.caller().login).filter(|login| !words.system && login != "root");
    [Some("root".to_owned()), login].into_iter().flatten().collect()
}

/// The account that is about to be written, as it will be read.
fn account_of(draft: &Draft, path: &Path, host: &Host) -> Result<Account, Failed> {
    let read = load::of_text(path, &draft.text(), host.home.as_deref());
    let settings = read.map_err(|broken| {
        // Its lines are those of a file that nobody has.
        let told: Vec<String> =
            broken.0.iter().map(|line| line.splitn(4, ':').last().unwrap_or(line).trim().to_owned()).collect();
        Failed::new(sysexits::USAGE, format!("{}; nothing was written", told.join("; ")))
    })?;
    let account = settings.accounts.into_iter().next();
    account.ok_or_else(|| Failed::new(sysexits::SOFTWARE, "the account is missing; nothing was written"))
}

/// All that will be written, before anything is.
fn show(draft: &Draft, place: Option<&Place>, path: &Path, person: &Person<'_>) {
    let from = if draft.name.is_empty() { draft.from.clone() } else { format!("{} <{}>", draft.name, draft.from) };
    let rows = [
        ("server", draft.server.to_string()),
        ("user", draft.login.as_ref().map_or("(none)".to_owned(), |(user, _)| user.clone())),
        ("password", place.map_or("(none)".to_owned(), |place| format!("in {place}"))),
        ("from", from),
        ("local mail", format!("to {} goes to {}", draft.local.join(" and "), draft.from)),
        ("written to", path.display().to_string()),
    ];
    let rows: Vec<String> = rows.iter().map(|(what, value)| format!("  {what:<12}{}", printable(value))).collect();
    person.tell(&format!("\n{}\n", rows.join("\n")));
}

/// Makes the directory of the configuration. A service's is for everybody to look into: its secrets are in files that
/// are closed, and its user has to read the rest.
fn make_dir(path: &Path, words: &Words) -> Result<(), Failed> {
    let Some(dir) = path.parent() else { return Ok(()) };
    let made = match dir.exists() {
        true => Ok(()),
        false if words.system => {
            let made = DirBuilder::new().mode(0o755).create(dir);
            // Whatever the umask is.
            made.and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o755)))
        }
        false => private::make_dir(dir),
    };
    made.map_err(|error| {
        let why = crate::outcome::words(&error);
        Failed::new(sysexits::CANTCREAT, format!("cannot make {}: {why}; nothing was changed", dir.display()))
    })
}

/// Keeps a configuration that is about to be replaced; where.
fn keep_old(path: &Path) -> std::io::Result<Option<PathBuf>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    match fs::remove_file(&old) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(path, &old)?;
    Ok(Some(PathBuf::from(old)))
}
