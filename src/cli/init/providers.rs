//! Where the large providers take mail, and what they want for it.
//!
//! One row each: whose addresses it gives, host, port, TLS, and what a person must know before he types a password. A
//! provider that is missing here loses nothing: its own word in the DNS is asked for next. Domains of one's own, which
//! many of these serve, are not in here for the same reason.

use crate::config::Tls::{self, Implicit, StartTls};

/// A provider.
#[derive(Debug)]
pub struct Provider {
    /// What it is called.
    pub name: &'static str,
    /// Domains of the addresses that it gives.
    pub domains: &'static [&'static str],
    /// Where it takes mail; `None`: not by SMTP.
    pub way: Option<(&'static str, u16, Tls)>,
    /// What it takes.
    pub takes: Takes,
    /// What a person must know, in whole sentences; may be empty.
    pub note: &'static str,
}

/// What a provider takes for a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// The password of the mailbox.
    Password,
    /// A password that is made for one program, and not the mailbox's own.
    AppPassword,
    /// An access token, and no password.
    Token,
}

use Takes::{AppPassword, Password, Token};

/// A row.
const fn at(
    name: &'static str,
    domains: &'static [&'static str],
    way: (&'static str, u16, Tls),
    takes: Takes,
    note: &'static str,
) -> Provider {
    Provider { name, domains, way: Some(way), takes, note }
}

const OUTSIDE: &str = "Access by other programs (POP3/IMAP) must be switched on in its settings first.";

/// Everybody who is known.
pub const PROVIDERS: &[Provider] = &[
    at(
        "Gmail",
        &["gmail.com", "googlemail.com"],
        ("smtp.gmail.com", 465, Implicit),
        AppPassword,
        "It is made at https://myaccount.google.com/apppasswords and needs 2-Step Verification.",
    ),
    at(
        "Outlook.com",
        &[
            "outlook.com",
            "outlook.de",
            "outlook.fr",
            "hotmail.com",
            "hotmail.co.uk",
            "hotmail.de",
            "hotmail.fr",
            "live.com",
            "live.de",
            "live.fr",
            "live.co.uk",
            "msn.com",
        ],
        ("smtp-mail.outlook.com", 587, StartTls),
        Token,
        "",
    ),
    at(
        "Microsoft 365",
        &["onmicrosoft.com"],
        ("smtp.office365.com", 587, StartTls),
        Password,
        "The organization must allow authenticated SMTP for the mailbox.",
    ),
    at(
        "Fastmail",
        &["fastmail.com", "fastmail.fm", "fastmail.net", "fastmail.org", "fastmail.uk", "fastmail.de", "sent.com"],
        ("smtp.fastmail.com", 465, Implicit),
        AppPassword,
        "It is made in Settings, Privacy & Security.",
    ),
    at(
        "iCloud",
        &["icloud.com", "me.com", "mac.com"],
        ("smtp.mail.me.com", 587, StartTls),
        AppPassword,
        "It is made at https://account.apple.com, Sign-In and Security.",
    ),
    at(
        "Yahoo",
        &["yahoo.com", "yahoo.co.uk", "yahoo.de", "yahoo.fr", "yahoo.it", "yahoo.es", "ymail.com", "rocketmail.com"],
        ("smtp.mail.yahoo.com", 465, Implicit),
        AppPassword,
        "It is made in Account Security.",
    ),
    at("AOL", &["aol.com", "aol.de"], ("smtp.aol.com", 465, Implicit), AppPassword, "It is made in Account Security."),
    at(
        "GMX",
        &["gmx.de", "gmx.net", "gmx.at", "gmx.ch", "gmx.org"],
        ("mail.gmx.net", 465, Implicit),
        Password,
        OUTSIDE,
    ),
    at("GMX", &["gmx.com", "gmx.us", "gmx.co.uk"], ("mail.gmx.com", 465, Implicit), Password, OUTSIDE),
    at("web.de", &["web.de"], ("smtp.web.de", 587, StartTls), Password, OUTSIDE),
    at("mail.com", &["mail.com"], ("smtp.mail.com", 587, StartTls), Password, OUTSIDE),
    at(
        "Telekom",
        &["t-online.de", "magenta.de"],
        ("securesmtp.t-online.de", 465, Implicit),
        AppPassword,
        "It is the password for mail programs, made in the customer centre.",
    ),
    at("freenet", &["freenet.de"], ("mx.freenet.de", 587, StartTls), Password, ""),
    at(
        "Posteo",
        &["posteo.de", "posteo.net", "posteo.org", "posteo.eu", "posteo.at", "posteo.ch"],
        ("posteo.de", 465, Implicit),
        Password,
        "",
    ),
    at("mailbox.org", &["mailbox.org"], ("smtp.mailbox.org", 465, Implicit), Password, ""),
    at("Migadu", &["migadu.com"], ("smtp.migadu.com", 465, Implicit), Password, ""),
    at("Runbox", &["runbox.com"], ("mail.runbox.com", 465, Implicit), Password, ""),
    at("Disroot", &["disroot.org"], ("disroot.org", 465, Implicit), Password, ""),
    at(
        "Riseup",
        &["riseup.net"],
        ("mail.riseup.net", 465, Implicit),
        Password,
        "The user is what stands before the @.",
    ),
    at(
        "Zoho",
        &["zoho.com", "zohomail.com"],
        ("smtp.zoho.com", 465, Implicit),
        Password,
        "With two-factor sign-in it takes an application-specific password alone.",
    ),
    at(
        "Zoho",
        &["zoho.eu", "zohomail.eu"],
        ("smtp.zoho.eu", 465, Implicit),
        Password,
        "With two-factor sign-in it takes an application-specific password alone.",
    ),
    at("Yandex", &["yandex.com", "yandex.ru", "ya.ru"], ("smtp.yandex.com", 465, Implicit), AppPassword, ""),
    at("Mail.ru", &["mail.ru", "inbox.ru", "list.ru", "bk.ru"], ("smtp.mail.ru", 465, Implicit), AppPassword, ""),
    at("Orange", &["orange.fr", "wanadoo.fr"], ("smtp.orange.fr", 465, Implicit), Password, ""),
    at(
        "Free",
        &["free.fr"],
        ("smtp.free.fr", 465, Implicit),
        Password,
        "Authenticated SMTP must be switched on there.",
    ),
    at(
        "Proton Mail",
        &["proton.me", "protonmail.com", "protonmail.ch", "pm.me"],
        ("127.0.0.1", 1025, StartTls),
        AppPassword,
        "Proton Mail Bridge must run on this machine. It shows the password to take, and its certificate, which signs \
         itself: export it and name it with --ca-file.",
    ),
    Provider {
        name: "Tuta",
        domains: &["tuta.com", "tuta.io", "tutanota.com", "tutanota.de", "tutamail.com", "keemail.me"],
        way: None,
        takes: Token,
        note: "",
    },
];

/// Who has the mail of domains that are others': the end of the names of the servers that take it, and where they send.
const HOSTS: &[(&str, &str)] = &[
    ("google.com", "smtp.gmail.com"),
    ("googlemail.com", "smtp.gmail.com"),
    ("mail.protection.outlook.com", "smtp.office365.com"),
    ("mx.microsoft", "smtp.office365.com"),
    ("messagingengine.com", "smtp.fastmail.com"),
    ("mail.icloud.com", "smtp.mail.me.com"),
    ("mailbox.org", "smtp.mailbox.org"),
    ("migadu.com", "smtp.migadu.com"),
    ("runbox.com", "mail.runbox.com"),
    ("zoho.com", "smtp.zoho.com"),
    ("zoho.eu", "smtp.zoho.eu"),
    ("protonmail.ch", "127.0.0.1"),
    ("yandex.net", "smtp.yandex.com"),
];

/// The provider behind a server that takes mail for a domain.
pub fn behind(exchanger: &str) -> Option<&'static Provider> {
    let name = exchanger.trim_end_matches('.').to_ascii_lowercase();
    let is_below = |end: &str| name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.'));
    let (_, host) = HOSTS.iter().find(|(end, _)| is_below(end))?;
    PROVIDERS.iter().find(|provider| provider.way.is_some_and(|(known, ..)| known == *host))
}

/// The provider that gives addresses in this domain.
pub fn of(domain: &str) -> Option<&'static Provider> {
    let domain = domain.to_ascii_lowercase();
    let is_its = |known: &str| domain == known || (known == "onmicrosoft.com" && domain.ends_with(".onmicrosoft.com"));
    PROVIDERS.iter().find(|provider| provider.domains.iter().any(|known| is_its(known)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_domain_has_one_provider_and_its_port_fits_its_tls() {
        let mut seen = HashSet::new();
        for provider in PROVIDERS {
            for domain in provider.domains {
                assert!(seen.insert(*domain), "{domain} is there twice");
                assert_eq!(*domain, domain.to_ascii_lowercase());
                assert_eq!(of(&domain.to_uppercase()).map(|found| found.name), Some(provider.name));
            }
            if let Some((host, port, tls)) = provider.way {
                assert_ne!(tls, Tls::Off, "{host}");
                assert!(host == "127.0.0.1" || port == tls.default_port(), "{host}");
            }
        }
        for (end, _) in HOSTS {
            assert!(behind(&format!("mx1.{end}.")).is_some(), "{end}");
        }
        assert!(behind("mx.notgoogle.com").is_none());
        assert!(of("example.org").is_none() && of("notgmail.com").is_none());
        assert_eq!(of("acme.onmicrosoft.com").map(|found| found.name), Some("Microsoft 365"));
    }
}
