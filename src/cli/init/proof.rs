//! Whether it works: a session with a server that may be the one, a login there, and a letter in the end.

use super::find::{Candidate, Reached};
use super::person::Person;
use super::providers::{Provider, Takes};
use super::write::Draft;
use super::{LOOK, Words};
use crate::cli::configuration;
use crate::cli::exit::{self, sysexits};
use crate::cli::host::Host;
use crate::cli::login::{self, Failed};
use crate::cli::say::{self, Next};
use crate::config::{Account, PasswordSource, Settings};
use crate::deliver::{Carrier, Desk};
use crate::message::address::parse_list;
use crate::message::{LoneDot, Message};
use crate::outcome::{Fault, Outcome, Stage, printable};
use crate::queue::Spool;
use crate::relay::{Connection, Way, verdict};
use crate::secret::{self, Identity, Secret};
use crate::smtp::interrupt::Interrupt;
use crate::submit::{self, Counter, End, When, Wishes};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a login and a letter may take.
const LOGIN: Duration = Duration::from_mins(1);

/// How often a person may mistype.
const TRIES: usize = 3;

/// Opens a session with each of them, all at once.
pub fn reach(candidates: &[Candidate], host: &Host) -> Vec<Reached> {
    let one = |candidate: &Candidate| {
        let account = Account {
            hosts: vec![candidate.as_host()],
            tls: candidate.tls,
            auth: crate::config::Auth::Off,
            timeout: LOOK,
            ..Account::new("init")
        };
        open(&account, None, host, LOOK).map_err(|fault| fault.to_string())
    };
    std::thread::scope(|threads| {
        let tries: Vec<_> = candidates.iter().map(|candidate| threads.spawn(move || one(candidate))).collect();
        tries.into_iter().map(|tried| tried.join().unwrap_or_else(|_| Err("could not be tried".to_owned()))).collect()
    })
}

/// Opens a session and leaves.
fn open(account: &Account, secret: Option<&Secret>, host: &Host, limit: Duration) -> Result<(), Fault> {
    let way = Way {
        account,
        domain: None,
        password: &|_| secret.cloned().ok_or_else(|| "there is no password".to_owned()),
        helo: &host.name,
        deadline: Instant::now() + limit,
        transcript: None,
        interrupt: Interrupt::default(),
    };
    Connection::open(&way).map(Connection::close).map_err(|unreached| unreached.fault)
}

/// A password that the relay has taken.
pub fn proven(
    account: &Account,
    provider: Option<&Provider>,
    host: &Host,
    words: &Words,
    person: &Person<'_>,
) -> Result<Secret, Failed> {
    if let Some(provider) = provider {
        let what = match provider.takes {
            Takes::AppPassword => format!("{} takes a password made for this program alone.", provider.name),
            Takes::Password | Takes::Token => String::new(),
        };
        let note = [what.as_str(), provider.note].join(" ");
        if !note.trim().is_empty() {
            person.tell(&format!("{}\n", note.trim()));
        }
    }
    let is_typed = !words.password_stdin && words.password_file.is_none();
    let mut tries = 0;
    loop {
        tries += 1;
        let user = account.user.clone().unwrap_or_default();
        let secret = match &words.password_file {
            Some(path) => {
                let whose = Identity { host: "", user: &user, first: "" };
                let source = PasswordSource::File(path.clone());
                secret::obtain(&source, &whose, &configuration::secret_env(host)).map_err(|why| {
                    Failed::new(sysexits::DATAERR, format!("--password-file: {why}; nothing was written"))
                })?
            }
            None if words.password_stdin => login::password("", None)?,
            None if person.terminal.is_none() => {
                let sentence =
                    "there is no password: give --password-stdin or --password-file, or --no-auth; nothing was written";
                return Err(Failed::new(sysexits::USAGE, sentence));
            }
            None => login::password(&format!("Password of {user}: "), person.terminal.as_ref())?,
        };
        match logged_in(account, Some(&secret), host, words, person) {
            Ok(()) => return Ok(secret),
            Err(fault) if is_typed && tries < TRIES && fault.stage == Stage::Auth && fault.reply().is_some() => {
                let relay = account.hosts.first().map(crate::relay::name).unwrap_or_default();
                person.tell(&format!("{relay} {}. Once more:", printable(&fault.to_string())));
            }
            Err(fault) => return Err(refused(account, provider, &fault)),
        }
    }
}

/// Whether the relay lets us in.
pub fn logged_in(
    account: &Account,
    secret: Option<&Secret>,
    host: &Host,
    words: &Words,
    person: &Person<'_>,
) -> Result<(), Fault> {
    if words.no_test {
        return Ok(());
    }
    let relay = account.hosts.first().map(crate::relay::name).unwrap_or_default();
    open(account, secret, host, LOGIN)?;
    person.tell(&match secret {
        Some(_) => format!("{relay} has taken the password."),
        None => format!("{relay} answers."),
    });
    Ok(())
}

/// The relay does not let us in.
pub fn refused(account: &Account, provider: Option<&Provider>, fault: &Fault) -> Failed {
    let status = match verdict::of(Err(fault.clone())) {
        Outcome::Deferred { fault, blame, .. } | Outcome::Failed { fault, blame, .. } => exit::one(&fault, blame),
        Outcome::Relayed(_) => 0,
    };
    let relay = account.hosts.first().map(crate::relay::name).unwrap_or_default();
    let is_refusal = fault.stage == Stage::Auth && fault.reply().is_some();
    let hint = match provider {
        _ if !is_refusal => String::new(),
        Some(Provider { takes: Takes::AppPassword, name, .. }) => {
            format!(". {name} does not take the password of the mailbox itself")
        }
        _ => ". Some want a name without the domain: --user; some a password made for this program".to_owned(),
    };
    Failed::new(status, format!("{relay} {}; nothing was written{hint}", printable(&fault.to_string())))
}

/// Sends a letter by what was written. A service's password is systemd's to hand out, so that it is ours here.
pub fn test_letter(draft: &Draft, secret: Option<&Secret>, path: &Path, host: &Host) -> Result<String, Failed> {
    let sorry = |status: u8, why: &str| Failed::new(status, format!("the configuration is written, but {why}"));
    let loaded = configuration::of_service(host, path).map_err(|why| sorry(sysexits::CONFIG, &why))?;
    let mut settings: Settings = loaded.settings;
    for account in &mut settings.accounts {
        if let (Some(PasswordSource::Credential(_)), Some(secret)) = (&account.password, secret) {
            let text = String::from_utf8_lossy(secret.dangerous_expose()).into_owned();
            account.password = Some(PasswordSource::Literal(zeroize::Zeroizing::new(text)));
        }
    }
    let text = format!(
        "To: {0}\nSubject: Pillarbox on {1} can send\n\nThis letter was sent by pillarbox init on {1}, through\n{2}.\n",
        draft.from, host.name, draft.server
    );
    let env = configuration::secret_env(host);
    let aliases = configuration::sound_aliases(&settings, host).map_err(|why| sorry(sysexits::CONFIG, &why))?;
    let recipients = parse_list(&draft.from).map_err(|error| sorry(sysexits::DATAERR, &error.to_string()))?;
    let wishes = Wishes { account: Some(draft.account.clone()), recipients, ..Wishes::default() };
    let spool = Spool::new(Path::new("/var/tmp")).or_memory();
    let message = Message::read(&mut text.as_bytes(), LoneDot::IsText, Box::new(spool));
    let message = message.map_err(|why| sorry(sysexits::SOFTWARE, &why.to_string()))?;
    let counter = Counter { settings: &settings, aliases: &aliases, here: &configuration::here(host) };
    let letter = counter.prepare(wishes, message).map_err(|why| sorry(sysexits::DATAERR, &say::refusal(&why)))?;
    let desk = Desk::new(&settings, &env, &host.name);
    let mut carrier = Carrier::new(&desk);
    let end = submit::hand_over(&letter, When::Now(Instant::now() + LOGIN), &mut carrier, None);
    carrier.close();
    match &end {
        End::Relayed(attempted) => {
            let lines: Vec<String> = attempted.iter().map(|one| say::outcome(one, Next::Nothing)).collect();
            Ok(format!("Sent: {}\n", lines.join("\n")))
        }
        End::Refused(submit::Why::Outcomes(attempted)) => {
            let lines: Vec<String> = attempted.iter().map(|one| say::outcome(one, Next::Nothing)).collect();
            Err(sorry(exit::status(&end), &format!("the test letter did not go: {}", lines.join("; "))))
        }
        End::Refused(why) => Err(sorry(exit::status(&end), &say::refusal(why))),
        End::Owned { .. } | End::Partly(_) | End::Unkept(..) => {
            Err(sorry(exit::status(&end), "the test letter did not go"))
        }
    }
}
