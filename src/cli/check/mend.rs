//! What people do about what is wrong: a sentence for each fault that somebody can mend.
//!
//! The fault says what happened, in the server's words; here stands what to do next, and where. What needs no more
//! words than the fault has already is left alone.

use crate::config::{Account, Host as Relay, PasswordSource, Tls};
use crate::outcome::{Cause, Fault, Reply, Stage};
use crate::relay::examine::Examined;
use std::net::SocketAddr;
use std::path::Path;

/// Providers that take no ordinary password, by the end of their hosts' names, and what they take.
const PROVIDERS: [(&str, &str); 8] = [
    (
        "gmail.com",
        "Google takes an app password (myaccount.google.com, Security, 2-Step Verification) or OAuth, never the \
         account's own password.",
    ),
    (
        "googlemail.com",
        "Google takes an app password (myaccount.google.com, Security, 2-Step Verification) or OAuth, never the \
         account's own password.",
    ),
    (
        "office365.com",
        "Microsoft takes OAuth (password = { oauth = … }); SMTP AUTH must be enabled for the mailbox, too.",
    ),
    ("outlook.com", "Microsoft takes OAuth (password = { oauth = … }), never the account's own password."),
    (
        "yahoo.com",
        "Yahoo takes an app password (Account Security, Generate app password), never the account's own password.",
    ),
    ("mail.me.com", "Apple takes an app-specific password (account.apple.com), never the account's own password."),
    (
        "fastmail.com",
        "Fastmail takes an app password (Settings, Privacy & Security), never the account's own password.",
    ),
    ("zoho.com", "Zoho takes an application-specific password where two-factor authentication is on."),
];

/// What a fault is about, in a word for programs.
pub(super) fn about(fault: &Fault) -> &'static str {
    match fault.stage {
        Stage::Local => "settings",
        Stage::Resolve => "dns",
        Stage::Connect => "address",
        Stage::Greeting | Stage::Ehlo => "greeting",
        Stage::StartTls | Stage::Tls => "tls",
        Stage::Auth => "auth",
        Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Content | Stage::Dot => "sender",
    }
}

/// One address of several.
pub(super) fn address(address: SocketAddr) -> String {
    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    format!("Letters go by the others, each a quarter of a second later; {family} on the way there is worth a look.")
}

/// A password that cannot be had.
pub(super) fn secret(source: &PasswordSource, account: &Account) -> Option<String> {
    let user = account.user.as_deref().unwrap_or_default();
    Some(match source {
        PasswordSource::Command(_) | PasswordSource::Eval(_) => {
            "Run the command by hand, as this user and without a terminal on its standard input: its first line must \
             be the password."
                .to_owned()
        }
        PasswordSource::Credential(name) => format!(
            "Only the service can read it: LoadCredential={name}:FILE in its unit, and systemctl status pillarbox says \
             whether it could."
        ),
        PasswordSource::Netrc(_) => format!("It needs a line: machine HOST login {user} password PASSWORD"),
        PasswordSource::Keyring(_) => format!("pillarbox login {} puts it there.", account.name),
        PasswordSource::OAuth(_) | PasswordSource::File(_) | PasswordSource::Literal(_) => return None,
    })
}

/// What to do about a fault of the way.
pub(super) fn fault(fault: &Fault, account: &Account, examined: &Examined, file: &Path) -> Option<String> {
    let place = format!("[account.{}] in {}", account.name, file.display());
    let (port, tls) = match &examined.host {
        Some((Relay::Tcp { port, .. }, tls)) => (Some(*port), *tls),
        Some((_, tls)) => (None, *tls),
        None => (None, account.tls),
    };
    match (fault.stage, &fault.cause) {
        (Stage::Resolve, Cause::NoSuchHost(_)) => {
            Some(format!("Is the name spelled as the provider spells it? It is host under {place}."))
        }
        (Stage::Resolve, Cause::NoSuchDomain(_) | Cause::NullMx(_)) => None,
        (Stage::Resolve, _) => Some(
            "This machine's name servers (/etc/resolv.conf) do not answer: getent hosts NAME tries them.".to_owned(),
        ),
        (Stage::Connect, Cause::Timeout(_)) if port == Some(25) => {
            Some(format!("Many networks block port 25: try port = 587, or 465 with tls = \"implicit\", under {place}."))
        }
        (Stage::Connect, Cause::Network(why)) if why.contains("refused") => Some(format!(
            "Nobody listens there: is it the port that the provider names (587 for STARTTLS, 465 for implicit TLS)? It \
             is port under {place}."
        )),
        (Stage::Connect, Cause::Timeout(_) | Cause::Network(_)) => {
            Some("Is the network up, and does a firewall let this port out?".to_owned())
        }
        (Stage::Greeting, Cause::Timeout(_)) if tls == Tls::StartTls => {
            Some(format!("It waits for TLS, as servers on port 465 do: set tls = \"implicit\" under {place}."))
        }
        (Stage::Greeting, Cause::Network(_) | Cause::Protocol(_)) if tls == Tls::StartTls && port == Some(465) => {
            Some(format!("Port 465 speaks TLS from the first octet: set tls = \"implicit\" under {place}."))
        }
        (Stage::Tls, Cause::Tls(why)) if why.contains("not TLS") => {
            Some(format!("Port 587 speaks STARTTLS: set tls = \"starttls\" under {place}, or port = 465."))
        }
        (Stage::StartTls, Cause::Policy(_)) => Some(format!(
            "Try tls = \"implicit\" (port 465) under {place}; a relay on this very machine may do with tls = \"none\"."
        )),
        (Stage::Tls, Cause::Tls(why)) => certificate(why, &place),
        (Stage::Auth, Cause::Reply(reply)) if reply.is_permanent() => Some(password(reply, account, examined, &place)),
        (Stage::Auth, Cause::Policy(_)) => {
            Some(format!("What it offers stands above; auth under {place} names one of them, or is \"auto\"."))
        }
        (Stage::Mail, Cause::Reply(reply)) if reply.is_permanent() => Some(format!(
            "It takes mail from its users' own addresses only: set from, and force_from = true for programs that say \
             another, under {place}."
        )),
        _ => None,
    }
}

/// The certificate's own sentence says what is wrong with it; a line to paste where there is one.
fn certificate(why: &str, place: &str) -> Option<String> {
    if let Some((_, pin)) = why.split_once("pin = \"") {
        let pin = pin.trim_end_matches('"');
        return Some(format!(
            "Ask whoever runs the relay whether that is its certificate. If so, put this line under {place}:\n\
             pin = \"{pin}\""
        ));
    }
    if why.contains("expired on") || why.contains("not valid before") {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M");
        return Some(format!(
            "This machine believes that it is {now} UTC. If that is right, the relay's operator must act."
        ));
    }
    if why.contains("not the pinned one") {
        return Some(format!(
            "If the relay has a new certificate, and its operator says so, that is pin under {place}."
        ));
    }
    if why.contains("not for ") {
        return Some(format!(
            "host under {place} must be the relay's own name; where the certificate is right all the same, tls_host \
             says which name it carries."
        ));
    }
    None
}

fn password(reply: &Reply, account: &Account, examined: &Examined, place: &str) -> String {
    let host = match &examined.host {
        Some((Relay::Tcp { name, .. }, _)) => name.to_ascii_lowercase(),
        _ => String::new(),
    };
    let user = account.user.as_deref().unwrap_or_default();
    let known = PROVIDERS.iter().find(|(end, _)| host.ends_with(end));
    let wants_other = reply.lines.concat().to_ascii_lowercase().contains("application-specific");
    match known {
        Some((_, hint)) => (*hint).to_owned(),
        None if wants_other => "It wants an app password: the provider's web pages make one.".to_owned(),
        None => format!(
            "User {user} or password under {place} is wrong for this relay. Some providers want the whole address as \
             the user, some an app password in place of the account's own."
        ),
    }
}
