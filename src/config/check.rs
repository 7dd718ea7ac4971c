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
    /// LMTP where SMTP is at home, which RFC 2033 §5 forbids.
    LmtpAt25,
    /// `srv:` without TLS: a forged answer would lead anywhere.
    SrvInClear,
    /// What does not go with `mx`, or only with it: the key and a sentence. No other format than TOML has it.
    Mx(&'static str, &'static str),
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
        // Behind a proxy even localhost is another's.
        let is_distant = |host: &&Host| !is_here(host) || (account.proxy.is_some() && !matches!(host, Host::Unix(_)));
        flaws.extend(account.hosts.iter().find(is_distant).and_then(|host| match host {
            Host::Tcp { name, .. } => Some(Flaw::InClear(name.clone())),
            Host::Unix(_) | Host::Srv(_) | Host::Mx(_) => None,
        }));
    }
    let any = |fits: fn(&Host) -> bool| account.hosts.iter().any(fits);
    if account.lmtp && any(|host| matches!(host, Host::Tcp { port: 25, .. })) {
        flaws.push(Flaw::LmtpAt25);
    }
    if account.tls == Tls::Off && any(|host| matches!(host, Host::Srv(_))) {
        flaws.push(Flaw::SrvInClear);
    }
    if any(|host| matches!(host, Host::Unix(_))) && account.tls != Tls::Off && account.tls_host.is_none() {
        flaws.push(Flaw::NamelessSocket);
    }
    let is_mx = any(|host| matches!(host, Host::Mx(_)));
    flaws.extend(mx(account, is_mx).into_iter().filter_map(|(wrong, key, text)| wrong.then_some(Flaw::Mx(key, text))));
    flaws
}

/// What can be wrong about direct delivery, and whether it is.
fn mx(account: &Account, is_mx: bool) -> [(bool, &'static str, &'static str); 6] {
    let authenticates = account.user.is_some() && !matches!(account.auth, Auth::Off | Auth::External);
    // Names from the DNS prove nothing; these do, whoever stands at the other end.
    let is_known = account.tls == Tls::StartTls && (account.tls_host.is_some() || !account.pins.is_empty());
    let wants_proof = account.ca_file.is_some()
        || account.crl_file.is_some()
        || account.tls_host.is_some()
        || !account.pins.is_empty();
    [
        (!is_mx && account.tls == Tls::Opportunistic, "tls", "\"opportunistic\" is for the host \"mx\" alone"),
        (is_mx && account.hosts.len() > 1, "host", "\"mx\" stands alone; name an account to fall back on as fallback"),
        (is_mx && account.lmtp, "protocol", "LMTP is not for other people's mail servers"),
        (
            is_mx && account.tls == Tls::Implicit,
            "tls",
            "a domain's mail servers have no implicit TLS; use \"opportunistic\" or \"starttls\"",
        ),
        (
            is_mx && wants_proof && account.tls != Tls::StartTls,
            "tls",
            "ca_file, crl_file, pin and tls_host ask for \"starttls\": \"opportunistic\" takes any certificate",
        ),
        (
            is_mx && authenticates && !is_known,
            "user",
            "with \"mx\" the password would go wherever the DNS points; it needs tls = \"starttls\" with pin or \
             tls_host",
        ),
    ]
}

/// Whether a password of the account's stands in the file itself.
pub(super) fn has_literal(account: &Account) -> bool {
    let of_proxy = account.proxy.as_ref().is_some_and(|proxy| proxy.login.is_some());
    let is_literal = |source: &PasswordSource| matches!(source, PasswordSource::Literal(_));
    of_proxy
        || match &account.password {
            Some(PasswordSource::OAuth(oauth)) => oauth.sources().any(is_literal),
            Some(source) => is_literal(source),
            None => false,
        }
}

/// Whether what we say to the host stays on this machine.
pub(super) fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Srv(_) | Host::Mx(_) => false,
        Host::Tcp { name, .. } => {
            let name = name.trim_end_matches('.').to_lowercase();
            name == "localhost"
                || name.ends_with(".localhost")
                || name.parse::<core::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
    }
}
