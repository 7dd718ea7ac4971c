//! From a mailrc's variables to an account.
//!
//! Many variables are chains: `NAME-USER@HOST`, `NAME-HOST` and `NAME` are looked up in that order, where HOST is in
//! lower case and has the port behind it if the URL has one (we look without the port as well). The old variables
//! `smtp`, `smtp-auth-user` and `smtp-auth-password` are read too; the chain of these has the address of `from` at its
//! end instead.

use super::super::check::{self, Flaw};
use super::super::notation;
use super::super::problem::{Place, Problem};
use super::super::{Account, Auth, PasswordSource, Tls};
use super::Variable;
use crate::message::address::parse_list;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The account that the variables outside of any `account` block make.
pub(super) const UNNAMED: &str = "default";

/// The variables that are read; each may have the end of a chain behind it.
const USED: [&str; 17] = [
    "from",
    "hostname",
    "mta",
    "netrc",
    "netrc-lookup",
    "password",
    "smtp",
    "smtp-auth",
    "smtp-auth-password",
    "smtp-auth-user",
    "smtp-hostname",
    "smtp-use-starttls",
    "ssl-ca-file",
    "tls-ca-file",
    "tls-fingerprint",
    "tls-fingerprint-digest",
    "user",
];

/// Whether a variable of this name means something to us.
pub(super) fn is_used(name: &str) -> bool {
    USED.iter().any(|used| name.strip_prefix(used).is_some_and(|end| end.is_empty() || end.starts_with('-')))
}

/// Whether a value of `mta`, as far as it was read, is the URL of a relay.
pub(super) fn is_smtp(value: &str) -> bool {
    let value = value.trim_start_matches('=').to_ascii_lowercase();
    ["smtp:", "smtps:", "submission:", "submissions:"].iter().any(|scheme| value.starts_with(scheme))
}

/// The variables as they stand, and what `~` stands for.
pub(super) struct Variables<'a> {
    pub set: &'a HashMap<String, Variable>,
    pub home: Option<&'a Path>,
}

/// A relay's URL.
struct Url {
    tls: Tls,
    port: u16,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    /// As it is written, perhaps with a port.
    host: String,
}

/// Whose chain is looked up.
#[derive(Default)]
struct Chain {
    /// Ends of names, the most particular one first.
    ends: Vec<String>,
}

impl<'a> Variables<'a> {
    fn plain(&self, name: &str) -> Option<&'a Variable> {
        self.set.get(name)
    }

    fn chain(&self, name: &str, chain: &Chain) -> Option<&'a Variable> {
        let particular = chain.ends.iter().find_map(|end| self.set.get(&format!("{name}-{end}")));
        particular.or_else(|| self.plain(name))
    }

    /// The account, and the file that holds its password, where one does. `None` where `mta` is no relay's URL.
    pub fn account(&self, name: &str, problems: &mut Vec<Problem>) -> Option<(Account, Option<PathBuf>)> {
        // s-nail prefers the old variable, too.
        let mta = self
            .plain("smtp")
            .filter(|smtp| !smtp.value.is_empty())
            .or_else(|| self.plain("mta").filter(|mta| is_smtp(&mta.value)))?;
        let mut wrong = |place: &Place, text: String| problems.push(Problem { place: place.clone(), text });
        let url = match parse(&mta.value) {
            Ok(url) => url,
            Err(text) => {
                wrong(&mta.place, format!("mta: {text}"));
                return None;
            }
        };
        let mut account = Account::new(name);
        let from = self.from(&mut account, &mut wrong);
        let sender = Chain { ends: from.into_iter().collect() };
        let mut chain = Chain { ends: hosts(&url.host) };
        let user = self.chain("user", &chain).or_else(|| self.chain("smtp-auth-user", &sender));
        account.user = url.user.or_else(|| user.map(|user| user.value.to_string()));
        if let Some(user) = &account.user {
            let particular: Vec<String> = chain.ends.iter().map(|host| format!("{user}@{host}")).collect();
            chain.ends.splice(0..0, particular);
        }
        let starttls = self.chain("smtp-use-starttls", &chain).is_some();
        account.tls = if url.tls == Tls::Off && starttls { Tls::StartTls } else { url.tls };
        match notation::host(&url.host, None) {
            // To s-nail it is a host's name like any other.
            Ok(notation::Written::Mx) => {
                account.hosts = vec![crate::config::Host::Tcp { name: url.host.clone(), port: url.port }];
            }
            Ok(host) => account.hosts = vec![host.with_port(url.port)],
            Err(text) => wrong(&mta.place, format!("mta: the host {text}")),
        }
        if let Some(auth) = self.chain("smtp-auth", &chain).or_else(|| self.chain("smtp-auth", &sender)) {
            match mechanism(&auth.value) {
                Ok(mechanism) => account.auth = mechanism,
                Err(text) => wrong(&auth.place, format!("smtp-auth: {text}")),
            }
        }
        let password = self.chain("password", &chain).or_else(|| self.chain("smtp-auth-password", &sender));
        let mut secret = None;
        if let Some(password) = url.password {
            account.password = Some(PasswordSource::Literal(password));
            secret = Some(&mta.place);
        } else if let Some(password) = password.filter(|_| account.user.is_some()) {
            account.password = Some(PasswordSource::Literal(password.value.clone()));
            secret = Some(&password.place);
        } else if let Some(lookup) = self.chain("netrc-lookup", &chain) {
            self.netrc(lookup, &mut account, &mut wrong);
        }
        self.trust(&chain, &mut account, &mut wrong);
        self.names(&mut account);
        for flaw in check::flaws(&account) {
            wrong(&mta.place, words(&flaw));
        }
        Some((account, secret.map(|place| place.file.to_path_buf())))
    }

    /// Reads `from`; gives its first address.
    fn from(&self, account: &mut Account, wrong: &mut dyn FnMut(&Place, String)) -> Option<String> {
        let from = self.plain("from").filter(|from| !from.value.is_empty())?;
        let address = match parse_list(&from.value) {
            Ok(list) => list.into_iter().next()?,
            Err(error) => {
                wrong(&from.place, format!("from: {error}"));
                return None;
            }
        };
        // With quotes where the local part needs them; a bare name stays bare and gets the domain later.
        let own = match &address.domain {
            Some(domain) => address.to_mailbox(domain).map(|mailbox| mailbox.to_string()),
            None => Ok(address.to_string()),
        };
        match own {
            Ok(own) => account.from = Some(own),
            Err(bad) => wrong(&from.place, format!("from: the address {bad}")),
        }
        account.from_name.clone_from(&address.display);
        account.from.clone()
    }

    fn netrc(&self, lookup: &Variable, account: &mut Account, wrong: &mut dyn FnMut(&Place, String)) {
        if self.plain("netrc-pipe").is_some() {
            wrong(&lookup.place, "netrc-lookup: netrc-pipe is not in this version".to_owned());
        }
        if account.user.is_none() && account.auth != Auth::Off {
            let text =
                "netrc-lookup: the user is not taken from there in this version; put it into the URL, or set user";
            return wrong(&lookup.place, text.to_owned());
        }
        let path = self.plain("netrc").filter(|path| !path.value.is_empty());
        match path.map(|path| notation::absolute(&path.value, self.home)).transpose() {
            Ok(path) => account.password = Some(PasswordSource::Netrc(path)),
            Err(text) => wrong(&lookup.place, format!("netrc: {text}")),
        }
    }

    /// Whom to believe: `tls-ca-file`, `tls-fingerprint`.
    fn trust(&self, chain: &Chain, account: &mut Account, wrong: &mut dyn FnMut(&Place, String)) {
        if let Some(file) = self.chain("tls-ca-file", chain).or_else(|| self.chain("ssl-ca-file", chain)) {
            match notation::absolute(&file.value, self.home) {
                Ok(path) => account.ca_file = Some(path),
                Err(text) => wrong(&file.place, format!("tls-ca-file: {text}")),
            }
        }
        if let Some(fingerprint) = self.chain("tls-fingerprint", chain) {
            let digest = self.chain("tls-fingerprint-digest", chain);
            if let Some(digest) = digest.filter(|digest| !digest.value.eq_ignore_ascii_case("sha256")) {
                wrong(&digest.place, "tls-fingerprint-digest: only SHA256 is known here".to_owned());
            }
            match notation::pin(&fingerprint.value) {
                Ok(pin) => account.pins = vec![pin],
                Err(text) => wrong(&fingerprint.place, format!("tls-fingerprint: {text}")),
            }
        }
    }

    /// `hostname` is our name in EHLO. `smtp-hostname` sends as the user of the relay at that host.
    fn names(&self, account: &mut Account) {
        let value = |name| self.plain(name).map(|variable| variable.value.to_string());
        account.helo = value("hostname").filter(|name| notation::domain(name).is_ok());
        let host = value("smtp-hostname").map(|host| if host.is_empty() { account.helo.clone() } else { Some(host) });
        if let (Some(Some(host)), Some(user)) = (host, &account.user) {
            let local = user.split_once('@').map_or(user.as_str(), |(local, _)| local);
            // Our settings have one sender for envelope and header. The relay looks at the envelope; the address in
            // `from` goes on choosing this account.
            let own = account.from.replace(format!("{local}@{host}"));
            account.senders.extend(own.filter(|own| own.contains('@')));
        }
    }
}

/// What HOST stands for in a chain.
fn hosts(host: &str) -> Vec<String> {
    let host = host.to_lowercase();
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !bare.ends_with(':') => Some(bare.to_owned()),
        _ => None,
    };
    std::iter::once(host).chain(bare).collect()
}

fn mechanism(word: &str) -> Result<Auth, String> {
    match word.to_ascii_lowercase().as_str() {
        "none" => Ok(Auth::Off),
        "plain" => Ok(Auth::Plain),
        "login" => Ok(Auth::Login),
        "cram-md5" => Ok(Auth::CramMd5),
        "oauthbearer" => Ok(Auth::OAuthBearer),
        "xoauth2" => Ok(Auth::XOAuth2),
        "external" => Ok(Auth::External),
        _ => {
            Err(format!("{word:?} is not known; allowed: plain, login, cram-md5, oauthbearer, xoauth2, external, none"))
        }
    }
}

/// `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`, or `HOST[:PORT]` alone, as the old variable has it.
fn parse(value: &str) -> Result<Url, String> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("smtp", value));
    let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
        "smtp" => (Tls::Off, 25),
        "submission" => (Tls::Off, 587),
        "smtps" | "submissions" => (Tls::Implicit, 465),
        _ => return Err("this is no URL of a relay; allowed: smtp, smtps, submission, submissions".to_owned()),
    };
    // The last @: an address as the user is often written without its percent sign.
    let (credentials, host) = rest.rsplit_once('@').map_or((None, rest), |(before, host)| (Some(before), host));
    let host = host.strip_suffix('/').unwrap_or(host);
    let (user, password) = match credentials {
        Some(credentials) => {
            let (user, password) = credentials.split_once(':').map_or((credentials, None), |(u, p)| (u, Some(p)));
            let user = notation::decode(user).map_err(|wrong| format!("the user {wrong}"))?;
            let password =
                password.map(notation::decode).transpose().map_err(|wrong| format!("the password {wrong}"))?;
            (Some(user.to_string()).filter(|user| !user.is_empty()), password)
        }
        None => (None, None),
    };
    Ok(Url { tls, port, user, password, host: host.to_owned() })
}

/// A flaw of the account in the words of a mailrc.
fn words(flaw: &Flaw) -> String {
    match flaw {
        Flaw::NoPassword => "mta: there is a user but no password; set password, or smtp-auth=none".to_owned(),
        Flaw::NoUser => "mta: smtp-auth demands a user; put it into the URL, or set user".to_owned(),
        Flaw::TokenAsPassword => "smtp-auth: an access token is no password; set oauthbearer or xoauth2".to_owned(),
        Flaw::PasswordWithoutUser => "mta: there is a password but no user".to_owned(),
        Flaw::NamelessSocket => "mta: a relay on a UNIX socket is for pillarbox.toml(5)".to_owned(),
        // What leads to these cannot be written here.
        Flaw::LmtpAt25 | Flaw::SrvInClear | Flaw::Mx(..) => "mta: this is for pillarbox.toml(5)".to_owned(),
        Flaw::InClear(host) => {
            format!("mta: the password would go to {host} in clear; set smtp-use-starttls, or write submissions://")
        }
    }
}
