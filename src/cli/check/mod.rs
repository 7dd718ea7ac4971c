//! `pillarbox check`: would mail go out, and what mends it where it would not.
//!
//! A finding a line, each as it comes: what was looked at and how it is; under what is wrong,
//! the sentence that mends it. [`around`] looks at this machine, the relay floor at the way of a
//! letter, [`mend`] knows what people do about it. Nothing is changed, nothing is sent but with
//! `--send`, and no secret is shown. The status is 0 only where mail would go out through every
//! account that was looked at, its `fallback` counted; else that of the first thing in its way.

mod around;
mod finding;
mod mend;

use super::configuration::{self, Configuration};
use super::exit::{self, sysexits};
use super::host::{self, Host};
use super::sendmail::{Dialogue, Face};
use super::{log, say, service};
use crate::config::{Account, Auth, PasswordSource, choose};
use crate::deliver::{Carrier, Desk};
use crate::message::address::parse_list;
use crate::message::{InMemory, LoneDot, Message};
use crate::outcome::{Fault, Outcome, Stage, printable};
use crate::relay::examine::Examined;
use crate::relay::verdict;
use crate::submit::{ATTEMPT, Counter, Letter, Why, Wishes};
use clap::Args;
use finding::{Mark, Screen};
use jiff::Timestamp;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest wait for one answer: a person is waiting, too.
const PATIENCE: Duration = Duration::from_secs(15);

/// A certificate with fewer days left is worth a word.
const DAYS: i64 = 14;

/// What to look at.
#[derive(Debug, Args)]
pub struct Words {
    /// Read this configuration.
    #[arg(short = 'C', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this account; all of them where none is named.
    account: Option<String>,
    /// Send a letter there, and show the dialogue with the relay.
    #[arg(long, value_name = "ADDRESS")]
    send: Option<String>,
    /// One JSON object a finding, a line each.
    #[arg(long)]
    json: bool,
}

/// Looks. Returns the exit status.
pub fn main(face: Face<'_>, words: &Words) -> u8 {
    let mut host = Host::look();
    let mut screen = Screen::new(face, words.json);
    let argument = words.config.as_deref();
    let found = configuration::service(&host, argument).map(|socket| match socket {
        // Root sees both sides of the service: its socket, and the way that it sends by.
        Some(socket) if host.uid == 0 => {
            (Some(service::configuration(&socket)), Some(configuration::as_service(&mut host)))
        }
        Some(socket) => (Some(service::configuration(&socket)), None),
        None => (None, Some(configuration::load(&host, argument))),
    });
    let (through, own) = found.unwrap_or_else(|broken| (None, Some(Err(broken))));
    if let Some(through) = through {
        let socket = through.service.clone().unwrap_or_default();
        screen.part("service");
        let text = format!("letters go to the service at {}", socket.display());
        screen.tell("service", Mark::Good, &text, None);
        let mut check = Check { screen: &mut screen, configuration: &through, host: &host, send: None };
        check.account(&through.settings.accounts[0]);
    }
    match own {
        None => {}
        Some(Err(broken)) => {
            screen.part("configuration");
            for line in broken.lines() {
                screen.fault("configuration", line, None, sysexits::CONFIG);
            }
        }
        Some(Ok(own)) => {
            log::install(&own.settings.log, face.program);
            let mut check =
                Check { screen: &mut screen, configuration: &own, host: &host, send: words.send.as_deref() };
            check.settings(words.account.as_deref());
        }
    }
    screen.part("machine");
    around::machine(&mut screen);
    screen.conclude()
}

/// The credentials of the service that runs, for whoever may see them: root, or who has become its user.
fn credentials(host: &Host) -> Option<PathBuf> {
    let dir = Path::new("/run/credentials/pillarbox.service");
    dir.metadata().is_ok_and(|found| host.uid == 0 || host.uid == found.uid()).then(|| dir.to_owned())
}

/// One configuration under examination.
struct Check<'a, 'f> {
    screen: &'a mut Screen<'f>,
    configuration: &'a Configuration,
    host: &'a Host,
    send: Option<&'a str>,
}

impl Check<'_, '_> {
    /// The settings, the queue, and the accounts that are asked for.
    fn settings(&mut self, only: Option<&str>) {
        let settings = &self.configuration.settings;
        self.screen.part("configuration");
        let names: Vec<&str> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
        let default = settings.default.as_ref().map_or(String::new(), |name| format!("; {name} is the default"));
        let accounts = if names.len() == 1 { "account" } else { "accounts" };
        let text = format!("{}: {} {accounts} ({}){default}", settings.file.display(), names.len(), names.join(", "));
        self.screen.tell("configuration", Mark::Good, &text, None);
        match configuration::sound_aliases(settings, self.host) {
            Ok(_) if settings.names.aliases.is_empty() && settings.names.alias_file.is_none() => {}
            Ok(_) => self.screen.tell("aliases", Mark::Good, "the aliases lead somewhere", None),
            Err(problems) => {
                let mend = "Until that is mended letters for these names are refused with 78, and only the others go: \
                    newaliases says whether it is.";
                self.screen.fault("aliases", &problems, Some(mend), sysexits::CONFIG);
            }
        }
        self.screen.part("queue");
        around::queue(self.screen, self.configuration, self.host);
        around::log(self.screen, &self.configuration.settings.log);
        let wanted: Vec<&Account> =
            settings.accounts.iter().filter(|account| only.is_none_or(|only| only == account.name)).collect();
        if wanted.is_empty() {
            let text = format!("there is no account {}", printable(only.unwrap_or_default()));
            let mend = format!("{} has {}.", settings.file.display(), names.join(", "));
            self.screen.fault("account", &text, Some(&mend), sysexits::CONFIG);
        }
        let (works, fails): (Vec<&Account>, _) = wanted.into_iter().partition(|account| self.account(account));
        // A letter that cannot go the one way goes the other.
        for account in fails {
            let takes_over = |name: &&String| works.iter().any(|other| other.name == **name);
            if let Some(fallback) = account.fallback.as_ref().filter(takes_over) {
                self.screen.overcome(&account.name, fallback);
            }
        }
    }

    /// One account, from its secret to its sender. Whether mail would go out through it.
    fn account(&mut self, account: &Account) -> bool {
        if self.configuration.service.is_none() {
            self.screen.part(&format!("account {}", account.name));
        }
        self.screen.account = Some(account.name.clone());
        let goes = self.way(account);
        (self.screen.account, self.screen.relay) = (None, None);
        if let Err(status) = goes {
            self.screen.fail(&account.name, status);
        }
        goes.is_ok()
    }

    /// The error is the status that a letter would end with.
    fn way(&mut self, account: &Account) -> Result<(), u8> {
        let letter = self.letter(account).map_err(|why| {
            self.screen.tell("sender", Mark::Fault, &say::refusal(&why), None);
            sysexits::CONFIG
        })?;
        let mut secrets = configuration::secret_env(self.host);
        secrets.credentials_directory = secrets.credentials_directory.or_else(|| credentials(self.host));
        let desk = Desk::new(&self.configuration.settings, &secrets, &self.host.name);
        let deadline = Instant::now() + ATTEMPT;
        let mut account = Account { timeout: account.timeout.min(PATIENCE), ..account.clone() };
        let secret = self.secret(&desk, &account, deadline);
        if secret.is_err() {
            // The rest of the way is looked at all the same.
            account.auth = Auth::Off;
        }
        let sender = letter.envelope.reverse_path();
        let (mut works, mut statuses) = (false, Vec::new());
        // With direct delivery, the mail servers of the one whom the letter would be for.
        let to = choose::routes_through(&account, &letter.envelope, &[0]).remove(0).to;
        desk.examine(&to, sender, deadline, &mut |examined| {
            self.screen.relay = Some(examined.relay.clone());
            match self.host(&account, &examined, &sender.to_string()) {
                Ok(()) => works = true,
                Err(status) => statuses.push(status),
            }
        });
        self.screen.relay = None;
        secret?;
        if !works {
            return Err(statuses.first().copied().unwrap_or(sysexits::CONFIG));
        }
        if !statuses.is_empty() {
            self.screen.tell("account", Mark::Note, "letters go by the host that works", None);
        }
        if self.send.is_some() { self.probe(&desk, &account, &letter) } else { Ok(()) }
    }

    /// A letter that says that it is a test, to the address that was given or to its own sender.
    fn letter(&self, account: &Account) -> Result<Letter, Why> {
        let (aliases, _) = configuration::aliases(&self.configuration.settings, self.host);
        let here = configuration::here(self.host);
        let text = format!(
            "Subject: Pillarbox on {} can send\n\n\
             This letter was sent by \"pillarbox check\" through the account {}.\n",
            here.host, account.name
        );
        let message = Message::read(&mut text.as_bytes(), LoneDot::IsText, Box::new(InMemory::default()));
        let me = || account.from.clone().unwrap_or_else(|| here.caller.login.clone());
        let to = self.send.map_or_else(me, str::to_owned);
        let recipients = parse_list(&to).map_err(|error| Why::BadAddress(to.clone(), error))?;
        let wishes = Wishes {
            account: Some(account.name.clone()),
            sender: None,
            sender_from_header: false,
            full_name: None,
            recipients,
            recipients_from_header: false,
            notify: None,
            ret: None,
            envid: None,
            gateway: false,
        };
        let counter = Counter { settings: &self.configuration.settings, aliases: &aliases, here: &here };
        counter.prepare(wishes, message.map_err(Why::Message)?)
    }

    /// Whether the password can be had; a command is asked once, and the session uses the same answer.
    fn secret(&mut self, desk: &Desk<'_>, account: &Account, deadline: Instant) -> Result<(), u8> {
        let (Some(source), Some(first)) = (&account.password, account.hosts.first()) else { return Ok(()) };
        if account.user.is_none() || matches!(account.auth, Auth::Off | Auth::External) {
            return Ok(());
        }
        match desk.password(account, first, deadline) {
            Ok(_) => {
                let text = format!("the password comes from {}", where_from(source));
                self.screen.tell("secret", Mark::Good, &text, None);
                Ok(())
            }
            Err(why) => {
                let mend = mend::secret(source, account);
                self.screen.tell("secret", Mark::Fault, &printable(&why), mend.as_deref());
                Err(sysexits::CONFIG)
            }
        }
    }

    /// One host.
    fn host(&mut self, account: &Account, examined: &Examined, sender: &str) -> Result<(), u8> {
        let relay = &examined.relay;
        self.addresses(account, examined);
        if let Some(offered) = &examined.offered_in_clear {
            let text = format!("{relay} offers before TLS: {}", printable(&offered.listed().join(", ")));
            self.screen.tell("clear", Mark::Good, &text, None);
        }
        if let Some(encryption) = &examined.encryption {
            let (version, cipher) = (&encryption.version, &encryption.cipher);
            self.screen.tell("tls", Mark::Good, &format!("{version}, {cipher}"), None);
            for (i, certificate) in encryption.chain.iter().enumerate() {
                self.certificate(i, certificate);
            }
        }
        if let Some(offered) = &examined.offered {
            let text = format!("{relay} offers: {}", printable(&offered.listed().join(", ")));
            self.screen.tell("offers", Mark::Good, &text, None);
        }
        let is_let_in = examined.fault.as_ref().is_none_or(|fault| fault.stage > Stage::Auth);
        if let Some(mechanism) = examined.mechanism.filter(|_| is_let_in) {
            let user = account.user.as_deref().map_or(String::new(), |user| format!(" as {}", printable(user)));
            self.screen.tell("auth", Mark::Good, &format!("AUTH {mechanism} is accepted{user}"), None);
        }
        let Some(fault) = &examined.fault else {
            self.screen.tell("sender", Mark::Good, &format!("mail from <{}> is accepted", printable(sender)), None);
            return Ok(());
        };
        let mend = mend::fault(fault, account, examined, &self.configuration.settings.file);
        self.screen.tell(mend::about(fault), Mark::Fault, &printable(&format!("{relay} {fault}")), mend.as_deref());
        Err(status(fault))
    }

    fn addresses(&mut self, account: &Account, examined: &Examined) {
        let whose = account.proxy.as_ref().map_or(&examined.relay, |proxy| &proxy.host);
        let (reached, lost): (Vec<_>, Vec<_>) = examined.addresses.iter().partition(|one| one.reached.is_ok());
        if !reached.is_empty() {
            let told = reached.iter().filter_map(|one| {
                let took = one.reached.as_ref().ok()?;
                Some(format!("{} ({} ms)", one.address.ip(), took.as_millis()))
            });
            let text = format!("{whose} is at {}", told.collect::<Vec<_>>().join(", "));
            self.screen.tell("address", Mark::Good, &text, None);
        }
        // Where none is reached, the fault says so.
        for one in lost.iter().filter(|_| !reached.is_empty()) {
            let Err(fault) = &one.reached else { continue };
            let text = printable(&format!("{} {fault}", one.address.ip()));
            self.screen.tell("address", Mark::Note, &text, Some(&mend::address(one.address)));
        }
    }

    fn certificate(&mut self, place: usize, certificate: &crate::smtp::certificate::Certificate) {
        let left = certificate.not_after.as_second().saturating_sub(Timestamp::now().as_second()) / 86_400;
        let names =
            if certificate.names.is_empty() { certificate.subject.clone() } else { certificate.names.join(", ") };
        let whose = if place == 0 { "certificate for" } else { "signed by" };
        let days = if left == 1 { "day" } else { "days" };
        let text = printable(&format!(
            "{whose} {names}, issued by {}, valid until {} ({left} {days})",
            certificate.issuer,
            certificate.not_after.strftime("%Y-%m-%d")
        ));
        if left < DAYS {
            let mend = "Whoever runs the relay must renew it by then, or letters will wait.".to_owned();
            self.screen.tell("certificate", Mark::Note, &text, Some(&mend));
        } else {
            self.screen.tell("certificate", Mark::Good, &text, None);
        }
    }

    /// Sends the letter, once, and shows how.
    fn probe(&mut self, desk: &Desk<'_>, account: &Account, letter: &Letter) -> Result<(), u8> {
        let mut watched = Desk::new(desk.settings, desk.secrets, desk.helo);
        watched.transcript = Some(Arc::new(Dialogue));
        let mut carrier = Carrier::new(&watched);
        let (envelope, message) = (&letter.envelope, &letter.message);
        let attempted = carrier.carry(Some(&account.name), envelope, message, Instant::now() + ATTEMPT);
        carrier.close();
        let mut sent = Ok(());
        for one in &attempted {
            let text = say::outcome(one, say::Next::Nothing);
            match &one.outcome {
                Outcome::Relayed(_) => self.screen.tell("sent", Mark::Good, &text, None),
                Outcome::Deferred { fault, blame, .. } | Outcome::Failed { fault, blame, .. } => {
                    self.screen.tell("sent", Mark::Fault, &text, None);
                    sent = Err(exit::one(fault, *blame));
                }
            }
        }
        sent
    }
}

/// The status that a letter would end with, had it no queue.
fn status(fault: &Fault) -> u8 {
    match verdict::of(Err(fault.clone())) {
        Outcome::Deferred { fault, blame, .. } | Outcome::Failed { fault, blame, .. } => exit::one(&fault, blame),
        Outcome::Relayed(_) => 0,
    }
}

/// Where a password comes from, for people.
fn where_from(source: &PasswordSource) -> String {
    match source {
        PasswordSource::Literal(_) => "the configuration".to_owned(),
        PasswordSource::File(path) | PasswordSource::Netrc(Some(path)) => path.display().to_string(),
        PasswordSource::Command(words) => format!("the command {}", printable(&words.join(" "))),
        PasswordSource::Eval(line) => format!("the command {}", printable(line)),
        PasswordSource::Credential(name) => format!("systemd's credential {}", printable(name)),
        PasswordSource::Keyring(_) => "the keyring".to_owned(),
        PasswordSource::Netrc(None) => "~/.netrc".to_owned(),
        PasswordSource::OAuth(_) => "a token endpoint".to_owned(),
    }
}
