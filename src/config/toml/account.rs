//! `[account.NAME]`: its keys, what they amount to together, and what is wrong with that.

use super::super::check::{self, Flaw};
use super::super::notation::{self, Written};
use super::super::spelling::nearest;
use super::super::{Account, Auth, MAX_ACCOUNTS, PasswordSource, Tls, TlsVersion};
use super::Reader;
use super::password::{PASSWORD, PIN, pins, source};
use super::row::{Row, in_order, put};
use super::value::{address, did_you_mean, printable};
use std::collections::HashMap;
use toml::de::{DeTable, DeValue};

/// Keys of `[account.NAME]`.
pub(super) const ACCOUNT: &[Row<Draft>] = &[
    Row {
        key: "host",
        allowed: "\"name\", \"name:port\", \"[v6]:port\", \"unix:/path\", \"srv:domain\", or a list of these; or \
                  \"mx\"",
        read: |draft, value| {
            put(
                &mut draft.hosts,
                value.list(|one| notation::host(one.text()?, one.home).map_err(|text| one.wrong(text)))?,
            )
        },
    },
    Row {
        key: "port",
        allowed: "a number from 1 to 65535",
        read: |draft, value| put(&mut draft.port, Some(value.number(1, u16::MAX)?)),
    },
    Row {
        key: "protocol",
        allowed: "\"smtp\" or \"lmtp\"",
        read: |draft, value| put(&mut draft.account.lmtp, value.word(&[("smtp", false), ("lmtp", true)])?),
    },
    Row {
        key: "tls",
        allowed: "\"starttls\", \"implicit\", \"opportunistic\" or \"none\"",
        read: |draft, value| {
            let words = [
                ("starttls", Tls::StartTls),
                ("implicit", Tls::Implicit),
                ("opportunistic", Tls::Opportunistic),
                ("none", Tls::Off),
            ];
            put(&mut draft.account.tls, value.word(&words)?)
        },
    },
    Row {
        key: "auth",
        allowed: "\"auto\", \"off\" or the name of a SASL mechanism in lower case, as in \"scram-sha-256\"",
        read: |draft, value| put(&mut draft.account.auth, value.word(&AUTH)?),
    },
    Row {
        key: "user",
        allowed: "a string",
        read: |draft, value| put(&mut draft.account.user, Some(value.checked(printable)?)),
    },
    Row {
        key: "password",
        allowed: "\"literal\", { command = … }, { file = … }, { credential = … }, { keyring = true }, { netrc = … } or \
                  { oauth = … }",
        read: |draft, value| put(&mut draft.account.password, Some(source(value, PASSWORD)?)),
    },
    Row {
        key: "from",
        allowed: "an address, as in \"alice@example.com\"",
        read: |draft, value| put(&mut draft.account.from, Some(value.checked(address)?)),
    },
    Row {
        key: "from_name",
        allowed: "a string",
        read: |draft, value| put(&mut draft.account.from_name, Some(value.checked(printable)?)),
    },
    Row {
        key: "force_from",
        allowed: "true or false",
        read: |draft, value| put(&mut draft.account.force_from, value.switch()?),
    },
    Row {
        key: "senders",
        allowed: "an address or a pattern with * and ?, or a list of these",
        read: |draft, value| put(&mut draft.account.senders, value.list(|one| one.checked(notation::glob))?),
    },
    Row {
        key: "recipients",
        allowed: "an address or a pattern with * and ?, or a list of these",
        read: |draft, value| put(&mut draft.account.recipients, value.list(|one| one.checked(notation::glob))?),
    },
    Row {
        key: "fallback",
        allowed: "the name of another account",
        read: |draft, value| put(&mut draft.account.fallback, Some(value.text()?.to_owned())),
    },
    Row {
        key: "ca_file",
        allowed: "a path that begins with / or ~/",
        read: |draft, value| put(&mut draft.account.ca_file, Some(value.path()?)),
    },
    Row {
        key: "crl_file",
        allowed: "a path that begins with / or ~/",
        read: |draft, value| put(&mut draft.account.crl_file, Some(value.path()?)),
    },
    Row {
        key: "cert_file",
        allowed: "a path that begins with / or ~/",
        read: |draft, value| put(&mut draft.account.cert_file, Some(value.path()?)),
    },
    Row {
        key: "key_file",
        allowed: "a path that begins with / or ~/",
        read: |draft, value| put(&mut draft.account.key_file, Some(value.path()?)),
    },
    Row {
        key: "tls_min",
        allowed: "\"1.2\" or \"1.3\"",
        read: |draft, value| {
            let words = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
            put(&mut draft.account.tls_min, value.word(&words)?)
        },
    },
    Row { key: "pin", allowed: PIN, read: |draft, value| put(&mut draft.account.pins, pins(value)?) },
    Row {
        key: "tls_host",
        allowed: "the name in the relay's certificate",
        read: |draft, value| put(&mut draft.account.tls_host, Some(value.checked(notation::domain)?)),
    },
    Row {
        key: "helo",
        allowed: "a domain or an address literal",
        read: |draft, value| put(&mut draft.account.helo, Some(value.checked(notation::domain)?)),
    },
    Row {
        key: "source_ip",
        allowed: "an address of this machine, as in \"192.0.2.1\"",
        read: |draft, value| {
            let text = value.text()?;
            let address = text.parse().map_err(|_| value.wrong(format!("{text:?} is no IP address")))?;
            put(&mut draft.account.source_ip, Some(address))
        },
    },
    Row {
        key: "proxy",
        allowed: "\"socks5://host:port\" or \"socks5://user:password@host:port\"",
        read: |draft, value| {
            let proxy = notation::proxy(value.text()?).map_err(|text| value.wrong(text))?;
            put(&mut draft.account.proxy, Some(proxy))
        },
    },
    Row {
        key: "timeout",
        allowed: "a number and its unit, as in \"60s\" or \"5m\"; at least 1s",
        read: |draft, value| put(&mut draft.account.timeout, value.timeout()?),
    },
];

/// The words of `auth`.
const AUTH: [(&str, Auth); 12] = [
    ("auto", Auth::Auto),
    ("off", Auth::Off),
    ("scram-sha-256-plus", Auth::ScramSha256Plus),
    ("scram-sha-1-plus", Auth::ScramSha1Plus),
    ("scram-sha-256", Auth::ScramSha256),
    ("scram-sha-1", Auth::ScramSha1),
    ("plain", Auth::Plain),
    ("login", Auth::Login),
    ("cram-md5", Auth::CramMd5),
    ("xoauth2", Auth::XOAuth2),
    ("oauthbearer", Auth::OAuthBearer),
    ("external", Auth::External),
];

/// The word of a mechanism; `None`: it comes with the password.
pub(in crate::config) fn auth_word(auth: Auth) -> Option<&'static str> {
    AUTH.iter().find(|(_, known)| *known == auth).map(|(word, _)| *word)
}

/// Where LMTP is spoken over TCP if nothing is said: a private port of the host's, which most servers have at 24.
const LMTP_PORT: u16 = 24;

/// An account on its way.
pub(super) struct Draft {
    pub account: Account,
    hosts: Vec<Written>,
    port: Option<u16>,
    /// Where its keys stand; the octet of its own name under "".
    places: HashMap<String, usize>,
}

impl Draft {
    /// Where a key stands, or else the account.
    fn place(&self, key: &str) -> usize {
        self.places.get(key).or_else(|| self.places.get("")).copied().unwrap_or_default()
    }
}

impl<'a> Reader<'a> {
    /// Reads the tables `[account.NAME]`.
    pub(super) fn accounts(&mut self, accounts: &DeTable<'a>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for (i, (name, value)) in in_order(accounts).into_iter().enumerate() {
            let at = name.span().start;
            if i == MAX_ACCOUNTS {
                self.problem(at, format!("there are more than {MAX_ACCOUNTS} accounts"));
                break;
            }
            let label = name.get_ref().as_ref();
            let DeValue::Table(keys) = value.get_ref() else {
                let text = format!("account.{label}: this is no table; write [account.NAME], and {label} below it");
                self.problem(at, text);
                continue;
            };
            if label.is_empty() || label.chars().any(char::is_control) {
                self.problem(at, "an account's name cannot be empty or have a control character in it");
            }
            drafts.push(self.account(label, at, keys));
        }
        drafts
    }

    /// Reads one, fills in what follows from what it says, and looks for flaws.
    fn account(&mut self, label: &str, at: usize, keys: &DeTable<'a>) -> Draft {
        let places = keys.iter().map(|(key, value)| (key.get_ref().to_string(), value.span().start));
        let mut draft = Draft {
            account: Account::new(label),
            hosts: Vec::new(),
            port: None,
            places: places.chain([(String::new(), at)]).collect(),
        };
        let before = self.problems.len();
        self.table(&format!("[account.{label}]"), ACCOUNT, keys, &mut draft);
        if draft.account.auth == Auth::Auto && matches!(draft.account.password, Some(PasswordSource::OAuth(_))) {
            draft.account.auth = Auth::Bearer;
        }
        let is_mx = draft.hosts.contains(&Written::Mx);
        if is_mx && !draft.places.contains_key("tls") {
            draft.account.tls = Tls::Opportunistic;
        }
        let port = draft.port.unwrap_or_else(|| match draft.account.tls {
            _ if is_mx => Tls::Opportunistic.default_port(),
            _ if draft.account.lmtp => LMTP_PORT,
            tls => tls.default_port(),
        });
        draft.account.hosts = draft.hosts.drain(..).map(|host| host.with_port(port)).collect();
        if draft.account.hosts.is_empty() && !draft.places.contains_key("host") {
            self.problem(at, format!("account {label:?} has no host"));
        }
        // A value that could not be read has been told; what seems to follow from its absence would mislead.
        if self.problems.len() == before {
            for (key, text) in check::flaws(&draft.account).iter().map(words) {
                self.problem(draft.place(key), format!("{key}: {text}"));
            }
        }
        draft
    }

    /// Whether `default`, a name and where it stands, and every `fallback` name an account that there is.
    pub(super) fn references(&mut self, default: Option<(&str, usize)>, drafts: &[Draft]) {
        let names: Vec<&str> = drafts.iter().map(|draft| draft.account.name.as_str()).collect();
        let unknown = |name: &str| {
            let near = did_you_mean(nearest(name, names.iter().copied()));
            format!("there is no account {name:?}{near}; there is: {}", names.join(", "))
        };
        if let Some((name, at)) = default.filter(|(name, _)| !names.contains(name)) {
            self.problem(at, format!("default: {}", unknown(name)));
        }
        for draft in drafts {
            if let Some(name) = draft.account.fallback.as_deref() {
                let at = draft.place("fallback");
                if !names.contains(&name) {
                    self.problem(at, format!("fallback: {}", unknown(name)));
                } else if goes_round(drafts, &draft.account.name) {
                    self.problem(at, format!("fallback: {name:?} leads back to {:?}", draft.account.name));
                }
            }
        }
    }
}

/// Whether one comes back to the account by its fallback, its fallback's fallback, and so on.
fn goes_round(drafts: &[Draft], name: &str) -> bool {
    let next = |name: &str| {
        drafts.iter().find(|draft| draft.account.name == name).and_then(|draft| draft.account.fallback.as_deref())
    };
    let mut here = next(name);
    for _ in drafts {
        match here {
            Some(other) if other == name => return true,
            Some(other) => here = next(other),
            None => return false,
        }
    }
    false
}

/// The key that a flaw is about, and what to do.
fn words(flaw: &Flaw) -> (&'static str, String) {
    let (key, text) = match flaw {
        Flaw::NoPassword => ("user", "there is a user but no password; without AUTH write auth = \"off\""),
        Flaw::NoUser => ("auth", "authentication is demanded, but there is no user"),
        Flaw::TokenAsPassword => {
            ("auth", "an access token is no password; write \"oauthbearer\" or \"xoauth2\", or leave auth out")
        }
        Flaw::PasswordWithoutUser => ("password", "there is a password but no user"),
        Flaw::NamelessSocket => ("tls", "over a UNIX socket it needs tls_host; without TLS write tls = \"none\""),
        Flaw::LmtpAt25 => ("port", "LMTP is not spoken at port 25, which is SMTP's; give the port"),
        Flaw::SrvInClear => ("tls", "\"srv:\" needs TLS; use \"starttls\" or \"implicit\""),
        Flaw::Mx(key, text) => (*key, *text),
        Flaw::InClear(host) => {
            let text = format!("the password would go to {host} in clear; use \"starttls\" or \"implicit\"");
            return ("tls", text);
        }
    };
    (key, text.to_owned())
}
