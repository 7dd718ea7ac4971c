//! From what an msmtprc says about an account to the account.

use super::super::check::{self, Flaw};
use super::super::{Account, Auth, FromField, Host, PasswordSource, Proxy, SessionLog, SessionLogTo, Tls, TlsVersion};
use super::Surroundings;
use super::eval::{self, Eval};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Whose word about a certificate counts.
#[derive(Debug)]
pub(super) enum Trusts {
    System,
    File(PathBuf),
    Nobody,
}

/// Where `logfile` leads.
#[derive(Debug)]
pub(super) enum Log {
    Stdout,
    File(PathBuf),
}

/// msmtp's form of the time in its log.
const TIME: &str = "%b %d %H:%M:%S";

/// An account on its way: what the rows of the table have read. Its defaults are msmtp's.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword that is on or off")]
pub(super) struct Building {
    pub account: Account,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub socket: Option<PathBuf>,
    pub proxy_host: Option<String>,
    pub proxy_port: Option<u16>,
    pub tls: bool,
    pub starttls: bool,
    pub trusts: Trusts,
    pub certcheck: bool,
    pub priorities: String,
    pub password: Option<Zeroizing<String>>,
    pub passwordeval: Option<String>,
    pub eval: Option<String>,
    pub auto_from: bool,
    pub maildomain: Option<String>,
    pub logfile: Option<Log>,
    pub time_format: Option<String>,
    pub syslog: Option<u8>,
    pub alias_file: Option<PathBuf>,
    pub queue: Option<bool>,
}

/// A keyword, and what is wrong with it in its account.
pub(super) type Wrong = (&'static str, String);

impl Building {
    /// An account of which nothing is said yet.
    pub fn new(name: &str) -> Self {
        Self {
            account: Account { auth: Auth::Off, ..Account::new(name) },
            host: None,
            port: None,
            socket: None,
            proxy_host: None,
            proxy_port: None,
            tls: false,
            starttls: true,
            trusts: Trusts::System,
            certcheck: true,
            priorities: String::new(),
            password: None,
            passwordeval: None,
            eval: None,
            auto_from: false,
            maildomain: None,
            logfile: None,
            time_format: None,
            syslog: None,
            alias_file: None,
            queue: None,
        }
    }

    /// The account and its log, or all that is wrong. `None`: it has no host, and others are made from it.
    pub fn finish(mut self, around: &Surroundings) -> Result<Option<(Account, Vec<SessionLog>)>, Vec<Wrong>> {
        if self.host.is_none() && self.socket.is_none() {
            return Ok(None);
        }
        let mut wrong = Vec::new();
        self.account.tls = match (self.tls, self.starttls) {
            (false, _) => Tls::Off,
            (true, true) => Tls::StartTls,
            (true, false) => Tls::Implicit,
        };
        let name = self.host.take();
        self.account.hosts = vec![match (&self.socket, &name) {
            (Some(path), _) => Host::Unix(path.clone()),
            (None, name) => {
                // Not 587: a file for msmtp says that.
                let port = if self.account.tls == Tls::Implicit { 465 } else { 25 };
                Host::Tcp { name: name.clone().unwrap_or_default(), port: self.port.unwrap_or(port) }
            }
        }];
        if self.socket.is_some() && self.account.tls_host.is_none() {
            self.account.tls_host.clone_from(&name);
        }
        if self.account.lmtp && self.socket.is_none() && self.port.is_none() {
            wrong.push(("protocol", "lmtp has no port of its own; write port".to_owned()));
        }
        let port = self.proxy_port.unwrap_or(1080);
        self.account.proxy = self.proxy_host.take().map(|host| Proxy { host, port, login: None });
        self.trust(&mut wrong);
        self.secret(&mut wrong);
        if self.auto_from && self.account.from.is_none() {
            let domain = self.maildomain.as_deref().map(|domain| format!("@{domain}")).unwrap_or_default();
            self.account.from = Some(format!("{}{domain}", around.login));
        }
        // Both together are what `force_from` is: one sender in envelope and header.
        let account = &mut self.account;
        if account.force_sender && account.header.from == FromField::Replaced {
            (account.force_from, account.force_sender) = (true, false);
            account.header.from = FromField::Completed;
        }
        if (account.force_sender || account.force_from) && account.from.is_none() {
            let text = "off leaves no sender, because there is no from with an address".to_owned();
            wrong.push(("allow_from_override", text));
        }
        wrong.extend(check::flaws(account).iter().map(words));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let log = self.logs(name.as_deref());
        Ok(Some((self.account, log)))
    }

    /// Whose certificates are believed.
    fn trust(&mut self, wrong: &mut Vec<Wrong>) {
        if self.account.tls == Tls::Off {
            return;
        }
        let is_pinned = !self.account.pins.is_empty();
        match std::mem::replace(&mut self.trusts, Trusts::System) {
            Trusts::System => {}
            Trusts::File(path) => self.account.ca_file = Some(path),
            Trusts::Nobody if is_pinned => {}
            Trusts::Nobody => {
                wrong.push(("tls_trust_file", "nobody is trusted, and there is no tls_fingerprint".to_owned()));
            }
        }
        if !self.certcheck && !is_pinned {
            let text = "off would let anybody be the relay; name its certificate with tls_fingerprint, or who vouches \
                        for it with tls_trust_file";
            wrong.push(("tls_certcheck", text.to_owned()));
        }
        if self.account.key_file.is_some() != self.account.cert_file.is_some() {
            let there = if self.account.key_file.is_some() { "tls_key_file" } else { "tls_cert_file" };
            wrong.push((there, "tls_key_file and tls_cert_file go together".to_owned()));
        }
        if forbids_tls12(&self.priorities) {
            self.account.tls_min = TlsVersion::Tls13;
        }
    }

    /// Where the password comes from: msmtp's order, without the keyring and the prompt.
    fn secret(&mut self, wrong: &mut Vec<Wrong>) {
        let account = &mut self.account;
        let needs_one = !matches!(account.auth, Auth::Off | Auth::External);
        if account.auth == Auth::Auto && account.user.is_none() {
            wrong.push(("auth", "there is no user to authenticate".to_owned()));
        }
        let known = self.password.take().map(PasswordSource::Literal);
        let known = known.or(self.passwordeval.take().map(|line| PasswordSource::Command(vec![line])));
        account.password = match (known, self.eval.take()) {
            (None, Some(line)) if needs_one => Some(PasswordSource::Eval(line)),
            (known, Some(line)) => {
                if eval::read(&line) == Ok(Eval::Password) {
                    account.password = known.filter(|_| needs_one);
                    return;
                }
                let text = "no command is run to read a configuration, and a password is not needed; write the line \
                            that it prints";
                wrong.push(("eval", text.to_owned()));
                None
            }
            (None, None) if needs_one => Some(PasswordSource::Netrc(None)),
            (known, None) => known.filter(|_| needs_one),
        };
    }

    /// msmtp's log of the account.
    fn logs(&mut self, host: Option<&str>) -> Vec<SessionLog> {
        let account = &self.account;
        let on = |on: bool| if on { "on" } else { "off" };
        let place = match &self.socket {
            Some(path) => format!("socket={}", path.display()),
            None => format!("host={}", host.unwrap_or_default()),
        };
        let authenticates = account.auth != Auth::Off;
        let mut head = format!("{place} tls={} auth={}", on(account.tls != Tls::Off), on(authenticates));
        if let Some(user) = account.user.as_ref().filter(|_| authenticates) {
            head = format!("{head} user={user}");
        }
        let time = match self.time_format.take().as_deref() {
            None => TIME.to_owned(),
            Some("none") => String::new(),
            Some(format) => format.to_owned(),
        };
        let file = self.logfile.take().map(|log| match log {
            Log::File(path) => SessionLogTo::File(path, time.clone()),
            Log::Stdout => SessionLogTo::Stdout(time),
        });
        let places = file.into_iter().chain(self.syslog.map(SessionLogTo::Syslog));
        places.map(|to| SessionLog { account: account.name.clone(), head: head.clone(), to }).collect()
    }
}

/// Whether a priority string of GNU TLS leaves only TLS 1.3. Of the rest nothing is ours to choose: rustls knows no
/// weak cipher, and nothing before TLS 1.2.
fn forbids_tls12(priorities: &str) -> bool {
    let mut allowed = true;
    for word in priorities.split(':') {
        let is_all = matches!(word.get(1..), Some("VERS-ALL" | "VERS-TLS-ALL"));
        match word.get(..1) {
            Some("-" | "!") if is_all || word.ends_with("VERS-TLS1.2") => allowed = false,
            Some("+") if is_all || word.ends_with("VERS-TLS1.2") => allowed = true,
            _ => {}
        }
    }
    !allowed
}

/// A flaw of the account in the words of an msmtprc.
fn words(flaw: &Flaw) -> Wrong {
    match flaw {
        Flaw::NoPassword => ("password", "there is none".to_owned()),
        Flaw::NoUser => ("auth", "there is no user to authenticate".to_owned()),
        Flaw::TokenAsPassword => {
            ("auth", "an access token is no password; write `auth oauthbearer` or `auth xoauth2`".to_owned())
        }
        Flaw::PasswordWithoutUser => ("password", "there is a password but no user".to_owned()),
        Flaw::LmtpAt25 => ("port", "LMTP is not spoken at port 25, which is SMTP's; give the port".to_owned()),
        Flaw::Mx(key, text) => (*key, (*text).to_owned()),
        Flaw::SrvInClear => ("tls", "a domain's servers are asked for only where TLS proves who they are".to_owned()),
        Flaw::NamelessSocket => ("socket", "with tls it needs host or tls_host_override".to_owned()),
        Flaw::InClear(host) => {
            ("auth", format!("the password would go to {host} in clear; write `tls on`, or `auth off`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::forbids_tls12;

    #[test]
    fn the_last_word_about_tls_1_2_counts() {
        for (priorities, forbidden) in [
            ("NORMAL", false),
            ("NORMAL:-VERS-TLS1.2", true),
            ("NORMAL:-VERS-ALL:+VERS-TLS1.3", true),
            ("NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2", false),
            ("NORMAL:!VERS-TLS-ALL", true),
            ("", false),
            ("\u{1bc}", false),
        ] {
            assert_eq!(forbids_tls12(priorities), forbidden, "{priorities}");
        }
    }
}
