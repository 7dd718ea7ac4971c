//! The configuration of this call: which file, what it says, and where its queue is.

use super::host::{self, Host};
use crate::aliases::Aliases;
use crate::config::Settings;
use crate::config::load::{self, Sources};
use crate::config::msmtprc::{Argument, Surroundings};
use crate::http;
use crate::outcome::printable;
use crate::secret::SecretEnv;
use crate::submit::Here;
use ring::rand::{SecureRandom, SystemRandom};
use std::cell::LazyCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a password helper, or a token endpoint, may take.
const HELPER: Duration = Duration::from_secs(10);

/// The settings, and what depends on the environment.
pub struct Configuration {
    /// What the file says.
    pub settings: Settings,
    /// Where letters are kept; `None` where there is no place for it.
    pub queue_dir: Option<PathBuf>,
    /// The file that was named by `-C`: a background runner is started with it again.
    pub argument: Option<PathBuf>,
    /// The machine's service, where that is the one way out.
    pub service: Option<PathBuf>,
}

/// The service's configuration where nobody names another.
pub const SERVICE: &str = "/etc/pillarbox/config.toml";

/// Where the service keeps its letters unless its configuration says otherwise.
const SPOOL: &str = "/var/spool/pillarbox";

/// The service's socket, where it is there and this call names no configuration and its caller has none. What lies
/// below `/etc` is then the service's to read: its secrets are nobody else's, root's mail waits in the same queue as
/// all, and a caller who may not read it need not.
pub fn service(host: &Host, argument: Option<&Path>) -> Result<Option<PathBuf>, String> {
    if argument.is_some() || host::variable("PILLARBOX_CONFIG").is_some() {
        return Ok(None);
    }
    let Some(socket) = super::service::socket() else { return Ok(None) };
    let own = load::load(&Sources { own_only: true, ..sources(host, None) }).map_err(|broken| broken.to_string())?;
    Ok(own.is_none().then_some(socket))
}

/// The configuration of the service itself: this file and no other. Whoever starts a service is no stranger.
pub fn of_service(host: &Host, file: &Path) -> Result<Configuration, String> {
    let sources = Sources { environment: Some(file.to_owned()), ..sources(host, None) };
    let settings = load::load(&sources).map_err(|broken| broken.to_string())?;
    let settings = settings.ok_or_else(|| format!("{} names no relay", file.display()))?;
    let named = host::variable("PILLARBOX_QUEUE_DIR").map(PathBuf::from).or_else(|| settings.queue.dir.clone());
    let queue_dir = Some(named.unwrap_or_else(|| PathBuf::from(SPOOL)));
    Ok(Configuration { settings, queue_dir, argument: None, service: None })
}

/// The service's configuration, read as the service itself, which may be allowed less than root. From here on this is
/// the service's user.
pub fn as_service(host: &mut Host) -> Result<Configuration, String> {
    let file = Path::new(SERVICE);
    if let Some(dir) = of_service(host, file)?.queue_dir {
        host::step_down(&dir)?;
        *host = Host::look();
    }
    of_service(host, file)
}

fn sources<'a>(host: &'a Host, argument: Option<&Path>) -> Sources<'a> {
    Sources {
        argument: argument.map(Path::to_owned),
        environment: host::variable("PILLARBOX_CONFIG").map(PathBuf::from),
        config_home: host.config_home.clone(),
        home: host.home.clone(),
        uid: host.uid,
        etc: PathBuf::from("/etc"),
        around: LazyCell::new(Box::new(|| surroundings(host))),
        arguments: Vec::new(),
        trusts_arguments: false,
        own_only: false,
    }
}

/// As [`load_with`], or the way through the machine's service. Whoever says on the command line which way it is to be
/// does not mean the service's.
pub fn or_service(host: &Host, argument: Option<&Path>, arguments: &[Argument]) -> Result<Configuration, String> {
    match service(host, argument)? {
        // The service's letters are its own to keep, whatever the caller says of a queue.
        Some(socket) if arguments.iter().all(is_about_queue) => Ok(super::service::configuration(&socket)),
        _ => load_with(host, argument, arguments),
    }
}

/// Finds and reads the configuration. The error is the sentence (or one for each problem of the file).
pub fn load(host: &Host, argument: Option<&Path>) -> Result<Configuration, String> {
    load_with(host, argument, &[])
}

/// As [`load()`]; msmtp's `arguments` go over what the file says.
pub fn load_with(host: &Host, argument: Option<&Path>, arguments: &[Argument]) -> Result<Configuration, String> {
    find_with(host, argument, arguments)?.ok_or_else(|| {
        let place = own(host).unwrap_or_else(|| PathBuf::from(SERVICE));
        format!(
            "there is no configuration. Run pillarbox init, which asks for what it needs, or write {} (see \
             pillarbox.toml(5))",
            place.display()
        )
    })
}

/// Where a user's own configuration is at home.
pub fn own(host: &Host) -> Option<PathBuf> {
    host.config_home.as_ref().map(|home| home.join("pillarbox/config.toml"))
}

/// The queue's directory, also where there is no configuration.
pub fn queue_dir(host: &Host, argument: Option<&Path>) -> Result<Option<PathBuf>, String> {
    Ok(match find(host, argument)? {
        Some(configuration) => configuration.queue_dir,
        None => place(host, None),
    })
}

/// As [`load()`]; `None` where there is no configuration.
pub fn find(host: &Host, argument: Option<&Path>) -> Result<Option<Configuration>, String> {
    find_with(host, argument, &[])
}

/// Whether arguments may decide what is run and whom a password is shown to: the environment's word.
pub fn trusts_arguments() -> bool {
    host::variable("PILLARBOX_ARGUMENTS").is_some_and(|word| word == "trusted")
}

/// `--queue=off`, which goes over a configuration of any format.
fn is_about_queue((keyword, _): &Argument) -> bool {
    keyword == "queue"
}

fn find_with(host: &Host, argument: Option<&Path>, arguments: &[Argument]) -> Result<Option<Configuration>, String> {
    let (queue, arguments): (Vec<Argument>, Vec<Argument>) = arguments.iter().cloned().partition(is_about_queue);
    let typed = queue.last().map(|(_, value)| value == "on");
    let is_plain = arguments.is_empty();
    let sources = Sources { arguments, trusts_arguments: trusts_arguments(), ..sources(host, argument) };
    let settings = load::load(&sources).map_err(|broken| broken.to_string())?;
    // A wish of the caller's, for which the same file need not be written twice.
    let queue = match host::variable("PILLARBOX_QUEUE").as_deref().map(OsStr::as_bytes) {
        None => None,
        Some(b"on") => Some(true),
        Some(b"off") => Some(false),
        Some(_) => return Err("PILLARBOX_QUEUE is neither on nor off".to_owned()),
    };
    Ok(settings.map(|mut settings| {
        // Whoever runs the queue later does not know what was typed here.
        settings.queue.enabled = typed.or(queue).unwrap_or(settings.queue.enabled) && is_plain;
        let queue_dir = place(host, settings.queue.dir.clone());
        Configuration { settings, queue_dir, argument: argument.map(Path::to_owned), service: None }
    }))
}

/// What an msmtprc can name.
pub fn surroundings(host: &Host) -> Surroundings {
    let text = |name| host::variable(name).and_then(|value| value.into_string().ok());
    Surroundings {
        home: host.home.clone(),
        login: host.caller().login,
        host: host.name.split('.').next().unwrap_or_default().to_owned(),
        canonical: host.name.clone(),
        mailname: host.mailname.clone(),
        email: text("EMAIL"),
        smtp_server: text("SMTPSERVER"),
    }
}

/// The environment's word, else the configuration's, else the user's state directory.
fn place(host: &Host, configured: Option<PathBuf>) -> Option<PathBuf> {
    host::variable("PILLARBOX_QUEUE_DIR").map(PathBuf::from).or(configured).or_else(|| host.queue_dir())
}

/// The aliases of a configuration, and what is wrong with them, a line each.
pub fn aliases(settings: &Settings, host: &Host) -> (Aliases, Vec<String>) {
    let names = &settings.names;
    let (aliases, problems) = Aliases::load(&names.aliases, names.alias_file.as_deref(), host.uid);
    (aliases, problems.iter().map(|problem| printable(&problem.to_string())).collect())
}

/// The aliases for a letter. What is wrong with them is written
/// down: a letter that it does not concern goes all the same.
pub fn aliases_in_force(settings: &Settings, host: &Host) -> Aliases {
    let (aliases, problems) = aliases(settings, host);
    log_bad_aliases(&problems);
    aliases
}

/// A line for all that is wrong with the aliases: `newaliases` tells the rest.
pub fn log_bad_aliases(problems: &[String]) {
    if let [first, others @ ..] = problems {
        tracing::warn!(message = "bad aliases", count = 1 + others.len(), reason = first);
    }
}

/// The aliases of a configuration, unless something is wrong with them.
pub fn sound_aliases(settings: &Settings, host: &Host) -> Result<Aliases, String> {
    let (aliases, problems) = aliases(settings, host);
    if problems.is_empty() { Ok(aliases) } else { Err(problems.join("\n")) }
}

/// What a letter's header is completed from.
pub fn here(host: &Host) -> Here<'_> {
    here_on(host, host::date())
}

/// The same on a date that is known.
pub fn here_on(host: &Host, date: String) -> Here<'_> {
    Here {
        caller: LazyCell::new(Box::new(|| host.caller())),
        domain: host.mail_domain().to_owned(),
        host: host.name.clone(),
        date,
        unique: unique(),
    }
}

/// 128 random bits in hexadecimal. Without the system's random numbers (no letter is lost for that) the time and
/// the process's number make a word that is unique, if guessable.
pub fn unique() -> String {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = (now.as_nanos() << 32 | u128::from(std::process::id())).to_be_bytes();
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// What obtaining a secret needs of the environment.
pub fn secret_env(host: &Host) -> SecretEnv {
    SecretEnv {
        credentials_directory: host::variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        home: host.home.clone(),
        uid: host.uid,
        limit: HELPER,
        state: host.state_home.as_ref().map(|state| state.join("pillarbox")),
        post: http::post,
    }
}
