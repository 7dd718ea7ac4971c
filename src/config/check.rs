//! What cannot be right about an account as a whole, whichever format it was written in.

use super::{Account, Auth, Host, PasswordSource, Tls};

/// What is wrong, each with the setting that it is about (by its TOML name).
pub(super) fn account(account: &Account) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let authenticates = account.auth != Auth::Off;
    match (&account.user, &account.password) {
        (Some(_), None) if authenticates => {
            wrong.push(("user", "there is a user but no password; without AUTH write auth = \"off\"".to_owned()));
        }
        (None, _) if matches!(account.auth, Auth::Plain | Auth::Login) => {
            wrong.push(("auth", "authentication is demanded, but there is no user".to_owned()));
        }
        (None, Some(_)) if authenticates => {
            wrong.push(("password", "there is a password but no user".to_owned()));
        }
        _ => {}
    }
    let distant = account.hosts.iter().find(|host| !is_here(host));
    if let (Tls::Off, true, Some(_), Some(Host::Tcp { name, .. })) =
        (account.tls, authenticates, &account.user, distant)
    {
        let text = format!("the password would go to {name} in clear; use \"starttls\" or \"implicit\"");
        wrong.push(("tls", text));
    }
    let socket = account.hosts.iter().any(|host| matches!(host, Host::Unix(_)));
    if socket && account.tls != Tls::Off && account.tls_host.is_none() {
        let text = "TLS over a UNIX socket needs tls_host; without TLS write tls = \"none\"".to_owned();
        wrong.push(("tls", text));
    }
    wrong
}

/// Whether the account's password stands in the file itself.
pub(super) fn has_literal(account: &Account) -> bool {
    matches!(account.password, Some(PasswordSource::Literal(_)))
}

/// Whether what we say to the host stays on this machine.
fn is_here(host: &Host) -> bool {
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
