//! What cannot be right about an account as a whole, whichever format it was written in.

use super::{Account, Auth, Host, PasswordSource, Tls};

/// What is wrong. Each format has its own words for the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A user, no password, and nothing says that there is no AUTH.
    NoPassword,
    /// A mechanism is demanded, and there is nobody to authenticate as.
    NoUser,
    /// A password for nobody.
    PasswordWithoutUser,
    /// The password would go over the network in clear, to this host.
    InClear(String),
    /// An access token, and a mechanism that wants a password.
    TokenAsPassword,
    /// TLS over a UNIX socket, and no name that the certificate should carry.
    NamelessSocket,
}

/// What is wrong with the account.
pub(super) fn flaws(account: &Account) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let authenticates = account.auth != Auth::Off;
    match (&account.user, &account.password) {
        _ if account.auth == Auth::External => {}
        (Some(_), None) if authenticates => flaws.push(Flaw::NoPassword),
        (None, _) if !matches!(account.auth, Auth::Auto | Auth::Off) => flaws.push(Flaw::NoUser),
        (None, Some(_)) if authenticates => flaws.push(Flaw::PasswordWithoutUser),
        _ => {}
    }
    let is_token = matches!(account.password, Some(PasswordSource::OAuth(_)));
    if is_token && !matches!(account.auth, Auth::Bearer | Auth::OAuthBearer | Auth::XOAuth2 | Auth::Off) {
        flaws.push(Flaw::TokenAsPassword);
    }
    if account.tls == Tls::Off && authenticates && account.user.is_some() {
        let distant = account.hosts.iter().find(|host| !is_here(host));
        flaws.extend(distant.map(|host| match host {
            Host::Tcp { name, .. } => Flaw::InClear(name.clone()),
            Host::Unix(path) => Flaw::InClear(path.display().to_string()),
        }));
    }
    let socket = account.hosts.iter().any(|host| matches!(host, Host::Unix(_)));
    if socket && account.tls != Tls::Off && account.tls_host.is_none() {
        flaws.push(Flaw::NamelessSocket);
    }
    flaws
}

/// Whether the account's password stands in the file itself.
pub(super) fn has_literal(account: &Account) -> bool {
    let is_literal = |source: &PasswordSource| matches!(source, PasswordSource::Literal(_));
    match &account.password {
        Some(PasswordSource::OAuth(oauth)) => oauth.sources().any(is_literal),
        Some(source) => is_literal(source),
        None => false,
    }
}

/// Whether what we say to the host stays on this machine.
pub(super) fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp { name, .. } => {
            let name = name.trim_end_matches('.').to_lowercase();
            name == "localhost"
                || name.ends_with(".localhost")
                || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
    }
}
