//! Where access tokens come from when we exchange a refresh token for them ourselves (RFC 6749 §6), and where the
//! user's consent to that is asked for.
//!
//! [`PROVIDERS`] is the one table of who is known by name. Whoever is not says `token_url`. A refresh token is worth
//! more than a password, so it goes over HTTPS or stays on this machine.

use super::notation::{self, Written};
use super::{Host, PasswordSource, Tls, check};
use std::fmt;
use std::path::PathBuf;

/// An endpoint, and what to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// Where tokens are exchanged.
    pub token_url: TokenUrl,
    /// What the token is for. `None`: all that the refresh token allows.
    pub scope: Option<String>,
    /// The name under which the provider knows this client.
    pub client_id: String,
    /// Its secret, where it was given one.
    pub client_secret: Option<PasswordSource>,
    /// What the user's consent gave.
    pub refresh_token: PasswordSource,
    /// PEM file of the authorities to trust instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// As an account's: SHA-256 of the endpoint's certificate or of its key, accepted instead of a CA's word.
    pub pins: Vec<[u8; 32]>,
    /// Where the refresh token comes from.
    pub consent: Consent,
}

/// Where a user is asked for his consent, which gives a refresh token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// Asks in a browser on this machine (RFC 6749 §3.1, RFC 8252).
    pub auth_url: Option<TokenUrl>,
    /// Asks in a browser wherever there is one (RFC 8628 §3.1).
    pub device_url: Option<TokenUrl>,
    /// What he is asked for.
    pub scope: Option<String>,
    /// Whether this machine has to be called `localhost` in the
    /// address that the browser is sent back to, and not 127.0.0.1.
    pub by_name: bool,
}

impl OAuth {
    /// What secrets are read from.
    pub fn sources(&self) -> impl Iterator<Item = &PasswordSource> {
        [Some(&self.refresh_token), self.client_secret.as_ref()].into_iter().flatten()
    }
}

/// Somebody who is known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Provider {
    /// As the settings spell it.
    pub name: &'static str,
    /// With `TENANT` where the settings may put one.
    url: &'static str,
    /// What SMTP submission needs. Google takes none here: the refresh token's own counts.
    scope: Option<&'static str>,
    /// Where consent is asked for in a browser here, with `TENANT` likewise.
    auth_url: &'static str,
    /// The same for a browser anywhere. Google's has no mail to give.
    device_url: Option<&'static str>,
    /// What is asked for there.
    consent: &'static str,
    /// Who wants which name for this machine.
    by_name: bool,
}

/// Everybody who is known by name.
pub(super) const PROVIDERS: [Provider; 2] = [
    Provider {
        name: "google",
        url: "https://oauth2.googleapis.com/token",
        scope: None,
        // Without these words a second consent gives no refresh token.
        auth_url: "https://accounts.google.com/o/oauth2/v2/auth?access_type=offline&prompt=consent",
        device_url: None,
        consent: "https://mail.google.com/",
        by_name: false,
    },
    Provider {
        name: "microsoft",
        url: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token",
        scope: Some("https://outlook.office.com/SMTP.Send offline_access"),
        auth_url: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/authorize",
        device_url: Some("https://login.microsoftonline.com/TENANT/oauth2/v2.0/devicecode"),
        consent: "https://outlook.office.com/SMTP.Send offline_access",
        by_name: true,
    },
];

/// The tenant of an account that says none: whoever has signed up, at work or at home.
const ANY_TENANT: &str = "common";

impl Provider {
    /// The endpoint and the scope. `None`: a tenant, where the provider has none.
    pub fn endpoint(self, tenant: Option<&str>) -> Option<(TokenUrl, Option<String>)> {
        if tenant.is_some() && !self.url.contains("TENANT") {
            return None;
        }
        Some((url(self.url, tenant)?, self.scope.map(str::to_owned)))
    }

    /// Where it asks for consent.
    pub fn consent(self, tenant: Option<&str>) -> Consent {
        Consent {
            auth_url: url(self.auth_url, tenant),
            device_url: self.device_url.and_then(|device| url(device, tenant)),
            scope: Some(self.consent.to_owned()),
            by_name: self.by_name,
        }
    }
}

fn url(pattern: &str, tenant: Option<&str>) -> Option<TokenUrl> {
    TokenUrl::parse(&pattern.replace("TENANT", tenant.unwrap_or(ANY_TENANT))).ok()
}

/// The URL of an endpoint of a provider's: HTTPS, or HTTP to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUrl {
    /// [`Tls::Implicit`] or [`Tls::Off`].
    pub tls: Tls,
    /// Name or address, without brackets.
    pub host: String,
    /// 443 or 80 where the URL says none.
    pub port: u16,
    /// Path and query.
    pub target: String,
}

impl TokenUrl {
    /// Reads one. The error is made to stand behind the name of a key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err("has something in it that no URL has".to_owned());
        }
        let (tls, default, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Tls::Implicit, 443, rest),
            Some(("http", rest)) => (Tls::Off, 80, rest),
            _ => return Err("does not begin with https://".to_owned()),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') || target.contains('#') {
            return Err("can have neither a user nor a fragment".to_owned());
        }
        let Written::Tcp(host, port) = notation::host(authority, None)? else { return Err("has no host".to_owned()) };
        if tls == Tls::Off && !check::is_here(&Host::Tcp { name: host.clone(), port: default }) {
            return Err("would carry the refresh token in clear; use https".to_owned());
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { tls, host, port: port.unwrap_or(default), target })
    }

    /// The host, as a URL and the `Host` field have it; the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (Tls::Off, 80) | (Tls::Implicit, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls == Tls::Off { "http" } else { "https" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// A tenant: its domain or its number.
pub(super) fn tenant(text: &str) -> Result<(), String> {
    let is_known = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.');
    if !text.is_empty() && text.bytes().all(is_known) {
        Ok(())
    } else {
        Err(format!("{text:?} is neither a domain nor a number of a tenant"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_https_or_stays_here() {
        for (text, read) in [
            ("https://a.example/t", "https://a.example/t"),
            ("https://a.example", "https://a.example/"),
            ("https://a.example?x=y", "https://a.example/?x=y"),
            ("https://a.example:443/t?x=y", "https://a.example/t?x=y"),
            ("https://[2001:db8::1]:8443/t", "https://[2001:db8::1]:8443/t"),
            ("http://127.0.0.1:8080/t", "http://127.0.0.1:8080/t"),
            ("http://[::1]/t", "http://[::1]/t"),
            ("http://localhost/t", "http://localhost/t"),
        ] {
            assert_eq!(TokenUrl::parse(text).map(|url| url.to_string()).as_deref(), Ok(read));
        }
        for (text, part) in [
            ("http://a.example/t", "in clear"),
            ("http://127.0.0.1.example/t", "in clear"),
            ("http://localhost@a.example/t", "neither a user"),
            ("https://u:p@a.example/t", "neither a user"),
            ("https://a.example/t#f", "neither a user nor a fragment"),
            ("ftp://a.example/t", "does not begin with https://"),
            ("a.example/t", "does not begin with https://"),
            ("https://unix:/t", "no"),
            ("https:///t", "is empty"),
            ("https://a.example:0/t", "is no port"),
            ("https://a.example/t x", "no URL has"),
            ("https://a.example/t\r\nX: y", "no URL has"),
            ("https://\u{e4}.example/t", "no URL has"),
        ] {
            let wrong = TokenUrl::parse(text).unwrap_err();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn everybody_in_the_table_has_an_endpoint() {
        for provider in PROVIDERS {
            let (url, _) = provider.endpoint(None).unwrap();
            assert_eq!((url.tls, url.port), (Tls::Implicit, 443));
            assert!(!url.target.contains("TENANT"));
            let consent = provider.consent(None);
            assert!(consent.auth_url.is_some() && consent.device_url.is_some() == provider.device_url.is_some());
        }
        let [google, microsoft] = PROVIDERS;
        assert_eq!(google.endpoint(Some("x")), None);
        let (url, scope) = microsoft.endpoint(Some("example.com")).unwrap();
        assert_eq!(url.to_string(), "https://login.microsoftonline.com/example.com/oauth2/v2.0/token");
        assert_eq!(scope.as_deref(), Some("https://outlook.office.com/SMTP.Send offline_access"));
        for bad in ["", "a/b", "a?b", "a b", "../x#"] {
            tenant(bad).unwrap_err();
        }
    }
}
