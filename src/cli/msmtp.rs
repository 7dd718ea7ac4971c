//! What msmtp does besides sending: `--pretend` and `--serverinfo`.
//!
//! Neither reads standard input, runs a command or asks for a password. What they print is for people: lines `key =
//! value` as msmtp's, and the relay's own words, escaped.

use super::configuration::{self, Configuration};
use super::exit::sysexits;
use super::host::Host;
use super::meaning::Delivery;
use super::sendmail::Face;
use crate::config::choose::Destination;
use crate::config::{Account, Auth, Host as Relay, Tls, choose};
use crate::deliver::Desk;
use crate::envelope::Mailbox;
use crate::message::address::parse_sender;
use crate::outcome::printable;
use crate::smtp::Transcript;
use crate::submit::ATTEMPT;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

/// `--pretend`: shows the account that a letter of these words would go through.
pub fn pretend(face: Face<'_>, delivery: &Delivery) -> u8 {
    with_account(face, delivery, |configuration, _, account| face.print(&told(configuration, account)))
}

/// `--serverinfo`: connects, says hello, and shows what the relay said; nobody is authenticated.
pub fn server_info(face: Face<'_>, delivery: &Delivery) -> u8 {
    with_account(face, delivery, |configuration, host, account| {
        let secrets = configuration::secret_env(host);
        let mut desk = Desk::new(&configuration.settings, &secrets, &host.name);
        desk.transcript = Some(Arc::new(Shown));
        let account = Account { auth: Auth::Off, ..account.clone() };
        let to = Destination { account: &account, domain: None };
        match desk.open(&to, Instant::now() + ATTEMPT) {
            Ok(connection) => {
                connection.close();
                0
            }
            Err(closed) => {
                let unreached = closed.into_unreached();
                face.say(&format!(
                    "{} {} (account {})",
                    unreached.relay,
                    printable(&unreached.fault.to_string()),
                    account.name
                ));
                sysexits::UNAVAILABLE
            }
        }
    })
}

/// Shows the dialogue on standard output.
struct Shown;

impl Transcript for Shown {
    fn line(&self, line: &str) {
        let _ = writeln!(std::io::stdout(), "{}", printable(line));
    }
}

/// Does something with the account that the words choose.
fn with_account(face: Face<'_>, delivery: &Delivery, act: impl FnOnce(&Configuration, &Host, &Account) -> u8) -> u8 {
    let host = Host::look();
    let chosen =
        configuration::load_with(&host, delivery.config.as_deref(), &delivery.arguments).and_then(|configuration| {
            let domain = configuration.settings.domain.as_deref().unwrap_or(host.mail_domain()).to_owned();
            let sender = delivery.sender.as_deref().and_then(|text| parse_sender(text).ok().flatten());
            let sender = sender.and_then(|sender| sender.to_mailbox(&domain).ok());
            // No recipient chooses an account of an msmtprc.
            let to = Mailbox::new("postmaster", &domain).map_err(|bad| bad.to_string())?;
            let chosen = choose::account(&configuration.settings, delivery.account.as_deref(), sender.as_ref(), &to);
            let account = chosen.map_err(|none| none.to_string())?.clone();
            Ok((configuration, account))
        });
    match chosen {
        Ok((configuration, account)) => act(&configuration, &host, &account),
        Err(sentence) => {
            face.say(&sentence);
            sysexits::CONFIG
        }
    }
}

/// The account as msmtp shows it, with a star for the password.
fn told(configuration: &Configuration, account: &Account) -> String {
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let mut text = format!("using account {} from {}\n", account.name, configuration.settings.file.display());
    let mut tell = |key: &str, value: Option<String>| {
        let _ = writeln!(text, "{key} = {}", printable(&value.unwrap_or_else(|| "(not set)".to_owned())));
    };
    for host in &account.hosts {
        match host {
            Relay::Tcp { name, port } => {
                tell("host", Some(name.clone()));
                tell("port", Some(port.to_string()));
            }
            Relay::Srv(domain) => tell("host", Some(format!("srv:{domain}"))),
            Relay::Mx(_) => tell("host", Some("mx".to_owned())),
            Relay::Unix(path) => tell("socket", Some(path.display().to_string())),
        }
    }
    tell("timeout", Some(format!("{} seconds", account.timeout.as_secs())));
    tell("domain", account.helo.clone());
    tell("auth", Some(switch(account.auth != Auth::Off && account.user.is_some())));
    tell("user", account.user.clone());
    tell("password", account.password.as_ref().map(|_| "*".to_owned()));
    tell("tls", Some(switch(account.tls != Tls::Off)));
    tell("tls_starttls", Some(switch(account.tls == Tls::StartTls)));
    tell(
        "tls_trust_file",
        Some(account.ca_file.as_ref().map_or("system".to_owned(), |path| path.display().to_string())),
    );
    tell("from", account.from.clone());
    tell("from_full_name", account.from_name.clone());
    tell("queue", Some(switch(configuration.settings.queue.enabled)));
    text
}
