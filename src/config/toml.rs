//! TOML, the native format: text in, [`Settings`] or everything that is wrong with it out.
//!
//! The rows of [`ROOT`], [`ACCOUNT`], [`QUEUE`], [`PASSWORD`] and [`OAUTH`] are the keys: the reader, the nearest
//! spelling and the test of the manual (pillarbox.toml(5)) all read them. The tree is walked by hand, because serde's `derive`
//! stops at the first mistake and a person wants to see them all. What is not TOML at all is told alone: guesses
//! about the keys of a broken file are noise. A password is never quoted in an error.

mod serve;
mod value;

use super::check::{self, Flaw};
use super::notation::{self, Written};
use super::oauth::{self, Consent, OAuth, PROVIDERS, Provider, TokenUrl};
use super::problem::{Place, Problem};
use super::spelling::nearest;
use super::{
    Account, Auth, Keepsake, LogTo, MAX_ACCOUNTS, MAX_PROBLEMS, PasswordSource, Queue, Settings, Tls, TlsVersion,
};
use crate::message::address::parse_sender;
use serve::SERVE;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use value::{Value, Wrong, did_you_mean};
use zeroize::Zeroizing;

/// One key: its name, what may stand behind it, and what that does.
struct Row<T> {
    key: &'static str,
    allowed: &'static str,
    read: fn(&mut T, Value<'_>) -> Result<(), Wrong>,
}

/// Keys before the first table.
const ROOT: &[Row<Settings>] = &[
    Row {
        key: "default",
        allowed: "the name of an account",
        read: |settings, value| put(&mut settings.default, Some(value.text()?.to_owned())),
    },
    Row {
        key: "domain",
        allowed: "a domain, as in \"example.com\"",
        read: |settings, value| put(&mut settings.domain, Some(value.checked(notation::domain)?)),
    },
    Row {
        key: "log",
        allowed: "\"journal\", \"syslog\", \"stderr\", a path that begins with / or ~/, or a list of these",
        read: |settings, value| {
            put(
                &mut settings.log,
                value.list(|one| match one.text()? {
                    "journal" => Ok(LogTo::Journal),
                    "syslog" => Ok(LogTo::Syslog),
                    "stderr" => Ok(LogTo::Stderr),
                    path if path.starts_with(['/', '~']) => Ok(LogTo::File(one.path()?)),
                    word => Err(one.unknown(word, &["journal", "syslog", "stderr"])),
                })?,
            )
        },
    },
    Row {
        key: "alias_file",
        allowed: "a path that begins with / or ~/",
        read: |settings, value| put(&mut settings.names.alias_file, Some(value.path()?)),
    },
    Row {
        key: "rewrite_headers",
        allowed: "true or false",
        read: |settings, value| put(&mut settings.names.rewrite_headers, value.switch()?),
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
pub(super) fn auth_word(auth: Auth) -> Option<&'static str> {
    AUTH.iter().find(|(_, known)| *known == auth).map(|(word, _)| *word)
}

/// What stands at `pin`.
const PIN: &str = "\"sha256:\" and a fingerprint in hexadecimal or base64, or a list of these";

/// Keys of `[account.NAME]`.
const ACCOUNT: &[Row<Draft>] = &[
    Row {
        key: "host",
        allowed: "\"name\", \"name:port\", \"[v6]:port\", \"unix:/path\", \"srv:domain\", or a list of these; or \"mx\"",
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
        read: |draft, value| {
            let timeout = value.duration()?;
            if timeout.is_zero() { Err(value.wrong("is too short")) } else { put(&mut draft.account.timeout, timeout) }
        },
    },
];

/// Keys of `[queue]`.
const QUEUE: &[Row<Queue>] = &[
    Row {
        key: "dir",
        allowed: "a path that begins with / or ~/",
        read: |queue, value| put(&mut queue.dir, Some(value.path()?)),
    },
    Row {
        key: "lifetime",
        allowed: "a number and its unit, as in \"5d\" or \"12h\"",
        read: |queue, value| put(&mut queue.lifetime, value.duration()?),
    },
    Row { key: "runner", allowed: "\"on\" or \"off\"", read: |queue, value| put(&mut queue.runner, value.switch()?) },
    Row {
        key: "deadline",
        allowed: "a number and its unit, as in \"4s\"",
        read: |queue, value| put(&mut queue.deadline, value.duration()?),
    },
    Row {
        key: "delay_notice",
        allowed: "\"off\", or a number and its unit, as in \"4h\"",
        read: |queue, value| {
            let off = matches!(value.value(), DeValue::Boolean(false)) || value.text().is_ok_and(|text| text == "off");
            put(&mut queue.delay_notice, if off { None } else { Some(value.duration()?) })
        },
    },
    Row {
        key: "keep_failed",
        allowed: "a number and its unit, as in \"5d\"",
        read: |queue, value| put(&mut queue.keep_failed, value.duration()?),
    },
    Row {
        key: "connections",
        allowed: "a number from 1 to 100",
        read: |queue, value| put(&mut queue.connections, value.number(1, 100)?.into()),
    },
];

/// Keys of `password = { … }`: exactly one of them.
const PASSWORD: &[Row<Option<PasswordSource>>] = &[
    Row {
        key: "command",
        allowed: "a command line, or a list of a program and its arguments",
        read: |source, value| {
            let words = value.list(|one| one.checked(no_nul))?;
            if words.iter().all(String::is_empty) {
                return Err(value.wrong("is empty"));
            }
            put(source, Some(PasswordSource::Command(words)))
        },
    },
    Row {
        key: "file",
        allowed: "a path that begins with / or ~/",
        read: |source, value| put(source, Some(PasswordSource::File(value.path()?))),
    },
    Row {
        key: "credential",
        allowed: "the name of a systemd credential",
        read: |source, value| {
            let name = value.checked(printable)?;
            if name.contains('/') || name.starts_with('.') {
                return Err(value.wrong("is a path, and a credential is a file's name"));
            }
            put(source, Some(PasswordSource::Credential(name)))
        },
    },
    Row {
        key: "keyring",
        allowed: "true",
        read: |source, value| match value.value() {
            DeValue::Boolean(true) => put(source, Some(PasswordSource::Keyring(Keepsake::Password))),
            _ => Err(value.wrong("can only be true")),
        },
    },
    Row {
        key: "netrc",
        allowed: "true, or a path that begins with / or ~/",
        read: |source, value| {
            let path = if let DeValue::Boolean(true) = value.value() { None } else { Some(value.path()?) };
            put(source, Some(PasswordSource::Netrc(path)))
        },
    },
    Row {
        key: "oauth",
        allowed: "a table with provider or token_url, client_id and refresh_token",
        read: |source, value| put(source, Some(PasswordSource::OAuth(Box::new(tokens(value)?)))),
    },
];

/// Those of [`PASSWORD`] that a client's secret can come from.
const SECRET: &[Row<Option<PasswordSource>>] = PASSWORD.split_at(3).0;

/// Those that a refresh token can come from.
const TOKEN: &[Row<Option<PasswordSource>>] = PASSWORD.split_at(4).0;

/// Keys of `password = { oauth = { … } }`.
const OAUTH: &[Row<Tokens>] = &[
    Row {
        key: "provider",
        allowed: "\"google\" or \"microsoft\"; for others write token_url",
        read: |tokens, value| {
            let words = PROVIDERS.map(|provider| (provider.name, provider));
            put(&mut tokens.provider, Some(value.word(&words)?))
        },
    },
    Row {
        key: "tenant",
        allowed: "a domain or the number of a directory",
        read: |tokens, value| put(&mut tokens.tenant, Some(value.checked(oauth::tenant)?)),
    },
    Row {
        key: "token_url",
        allowed: "the https URL of a token endpoint",
        read: |tokens, value| put(&mut tokens.token_url, Some(url(value)?)),
    },
    Row {
        key: "auth_url",
        allowed: "the https URL where a browser is sent for the user's consent",
        read: |tokens, value| put(&mut tokens.auth_url, Some(url(value)?)),
    },
    Row {
        key: "device_url",
        allowed: "the https URL where a device is authorized",
        read: |tokens, value| put(&mut tokens.device_url, Some(url(value)?)),
    },
    Row {
        key: "scope",
        allowed: "a string",
        read: |tokens, value| put(&mut tokens.scope, Some(value.checked(printable)?)),
    },
    Row {
        key: "client_id",
        allowed: "a string",
        read: |tokens, value| put(&mut tokens.client_id, Some(value.checked(printable)?)),
    },
    Row {
        key: "client_secret",
        allowed: "\"literal\", { command = … }, { file = … } or { credential = … }",
        read: |tokens, value| put(&mut tokens.client_secret, Some(source(value, SECRET)?)),
    },
    Row {
        key: "refresh_token",
        allowed: "\"literal\", { command = … }, { file = … }, { credential = … } or { keyring = true }",
        read: |tokens, value| {
            let token = match source(value, TOKEN)? {
                PasswordSource::Keyring(_) => PasswordSource::Keyring(Keepsake::RefreshToken),
                other => other,
            };
            put(&mut tokens.refresh_token, Some(token))
        },
    },
    Row {
        key: "ca_file",
        allowed: "a path that begins with / or ~/",
        read: |tokens, value| put(&mut tokens.ca_file, Some(value.path()?)),
    },
    Row { key: "pin", allowed: PIN, read: |tokens, value| put(&mut tokens.pins, pins(value)?) },
];

/// Where LMTP is spoken over TCP if nothing is said: a private port of the host's, which most servers have at 24.
const LMTP_PORT: u16 = 24;

/// What sentences call the part before the first table.
const ROOT_TABLE: &str = "the file";

/// Keys that name a table.
const TABLES: [&str; 5] = ["account", "queue", "serve", "aliases", "masquerade"];

/// Every key that is read, as the manual spells it: `default`, `account.NAME.host`, `queue.dir`, `password.file`,
/// `password.oauth.provider`.
pub fn keys() -> Vec<String> {
    fn below<T>(table: &str, rows: &[Row<T>]) -> Vec<String> {
        rows.iter().map(|row| format!("{table}{}", row.key)).collect()
    }
    let tables = ["aliases", "masquerade"].map(|table| format!("{table}.NAME")).to_vec();
    let secrets = [below("password.", PASSWORD), below("password.oauth.", OAUTH)].concat();
    let rows =
        [below("", ROOT), below("account.NAME.", ACCOUNT), secrets, below("queue.", QUEUE), below("serve.", SERVE)];
    [rows.concat(), tables].concat()
}

/// Reads a file's text. `home` is what `~` stands for.
pub(super) fn read(file: &Path, text: &str, home: Option<&Path>) -> Result<Settings, Vec<Problem>> {
    let name: Rc<Path> = Rc::from(file);
    let mut reader = Reader { problems: Vec::new(), home };
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut settings = Settings { file: file.to_owned(), ..Settings::default() };
    if errors.is_empty() {
        reader.root(tree.get_ref(), &mut settings);
    } else {
        let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        reader.problems = errors
            .iter()
            .take(MAX_PROBLEMS)
            .map(|error| (at(error), format!("this is no TOML: {}", error.message())))
            .collect();
    }
    if reader.problems.is_empty() {
        return Ok(settings);
    }
    reader.problems.sort();
    let place = |(octet, words)| Problem { place: Place::of(&name, text, octet), text: words };
    Err(reader.problems.into_iter().map(place).collect())
}

/// An account on its way.
struct Draft {
    account: Account,
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

/// What is collected while the tree is walked.
struct Reader<'a> {
    /// Octet and sentence.
    problems: Vec<(usize, String)>,
    home: Option<&'a Path>,
}

impl<'a> Reader<'a> {
    fn root(&mut self, tree: &DeTable<'a>, settings: &mut Settings) {
        let mut drafts = Vec::new();
        let mut default_at = 0;
        for (key, value) in in_order(tree) {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("account", DeValue::Table(accounts)) => drafts = self.accounts(accounts),
                ("account", _) => self.problem(key.span().start, "account: write a table [account.NAME] for each one"),
                ("queue", DeValue::Table(queue)) => {
                    self.table("[queue]", QUEUE, queue, &mut settings.queue);
                }
                ("queue", _) => match self.value(value).switch() {
                    Ok(enabled) => settings.queue.enabled = enabled,
                    Err(_) => self.problem(value.span().start, "queue: write \"off\", or a table [queue]"),
                },
                ("serve", DeValue::Table(table)) => {
                    self.table("[serve]", SERVE, table, &mut settings.serve);
                    if settings.serve.allow_users.is_some() && !settings.serve.listen.is_empty() {
                        // Over TCP nobody proves who he is.
                        self.problem(key.span().start, "serve: listen lets everybody in, and allow_users does not");
                    }
                }
                ("serve", _) => self.problem(key.span().start, "serve: write a table [serve]"),
                ("aliases", DeValue::Table(table)) => settings.names.aliases = self.pairs(table, |_| Ok(())),
                ("masquerade", DeValue::Table(table)) => settings.names.masquerade = self.pairs(table, address),
                (name @ ("aliases" | "masquerade"), _) => {
                    self.problem(key.span().start, format!("{name}: write a table [{name}], a line for each name"));
                }
                (name, _) => {
                    default_at = if name == "default" { value.span().start } else { default_at };
                    self.key(ROOT_TABLE, ROOT, key, value, settings);
                }
            }
        }
        if drafts.is_empty() {
            self.problem(0, "there is no account; write a table [account.NAME] with a host");
        }
        let names: Vec<String> = drafts.iter().map(|draft| draft.account.name.clone()).collect();
        let unknown = |name: &str| {
            let near = nearest(name, names.iter().map(String::as_str));
            format!("there is no account {name:?}{}; there is: {}", did_you_mean(near), names.join(", "))
        };
        if let Some(name) = settings.default.as_deref().filter(|name| !names.iter().any(|other| other == name)) {
            self.problem(default_at, format!("default: {}", unknown(name)));
        }
        for draft in &drafts {
            if let Some(name) = draft.account.fallback.as_deref() {
                let at = draft.place("fallback");
                if !names.iter().any(|other| other == name) {
                    self.problem(at, format!("fallback: {}", unknown(name)));
                } else if goes_round(&drafts, &draft.account.name) {
                    self.problem(at, format!("fallback: {name:?} leads back to {:?}", draft.account.name));
                }
            }
        }
        settings.accounts = drafts.into_iter().map(|draft| draft.account).collect();
    }

    fn accounts(&mut self, accounts: &DeTable<'a>) -> Vec<Draft> {
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
            drafts.push(draft);
        }
        drafts
    }

    /// A table of whatever names, each with a string or a list of strings, which are then joined by commas.
    fn pairs(&mut self, table: &DeTable<'a>, check: fn(&str) -> Result<(), String>) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for (key, value) in in_order(table) {
            let name = key.get_ref().to_string();
            match self.value(value).list(|one| one.checked(check)) {
                Ok(words) => pairs.push((name, words.join(", "))),
                Err(wrong) => {
                    self.problem(wrong.at, format!("{name}: {}; allowed: an address or a list of them", wrong.text));
                }
            }
        }
        pairs
    }

    fn table<T>(&mut self, name: &str, rows: &[Row<T>], table: &DeTable<'a>, target: &mut T) {
        for (key, value) in in_order(table) {
            self.key(name, rows, key, value, target);
        }
    }

    /// Reads one key by its row.
    fn key<T>(
        &mut self,
        table: &str,
        rows: &[Row<T>],
        key: &Spanned<Cow<'a, str>>,
        value: &Spanned<DeValue<'a>>,
        target: &mut T,
    ) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let name = key.get_ref().as_ref();
        if let Some(row) = rows.iter().find(|row| row.key == name) {
            if let Err(wrong) = (row.read)(target, self.value(value)) {
                self.problem(
                    wrong.at,
                    format!("{name}: {}; allowed: {}", wrong.text, wrong.allowed.unwrap_or(row.allowed)),
                );
            }
        } else {
            let tables = TABLES.iter().copied().filter(|_| table == ROOT_TABLE);
            let known: Vec<&str> = rows.iter().map(|row| row.key).chain(tables).collect();
            self.problem(key.span().start, no_such_key(name, table, &known));
        }
    }

    fn value<'v>(&self, spanned: &'v Spanned<DeValue<'v>>) -> Value<'v>
    where
        'a: 'v,
    {
        Value { spanned, home: self.home }
    }

    fn problem(&mut self, octet: usize, text: impl Into<String>) {
        self.problems.push((octet, text.into()));
    }
}

/// A table's entries as they stand in the file; the parser sorts them by name.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
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

fn no_such_key(name: &str, table: &str, known: &[&str]) -> String {
    let near = did_you_mean(nearest(name, known.iter().copied()));
    format!("there is no key {name:?} in {table}{near}; allowed: {}", known.join(", "))
}

/// Puts what was read where it belongs.
#[allow(clippy::unnecessary_wraps)] // every row ends in a Result
fn put<T>(place: &mut T, value: T) -> Result<(), Wrong> {
    *place = value;
    Ok(())
}

/// A literal, or a table with one of these rows.
fn source(value: Value<'_>, rows: &[Row<Option<PasswordSource>>]) -> Result<PasswordSource, Wrong> {
    let table = match value.value() {
        DeValue::String(text) if text.is_empty() => return Err(value.wrong("is empty")),
        DeValue::String(text) => {
            no_nul(text).map_err(|text| value.wrong(text))?;
            return Ok(PasswordSource::Literal(Zeroizing::new(text.to_string())));
        }
        DeValue::Table(table) => table,
        _ => return Err(value.wrong_type()),
    };
    let [(key, inner)] = in_order(table)[..] else { return Err(value.wrong("exactly one source can be named")) };
    let mut source = None;
    inside("password", rows, key, Value { spanned: inner, ..value }, &mut source)?;
    source.ok_or_else(|| value.wrong("names no source"))
}

/// Reads one key of a table that is itself a value.
fn inside<T>(
    table: &str,
    rows: &[Row<T>],
    key: &Spanned<Cow<'_, str>>,
    value: Value<'_>,
    target: &mut T,
) -> Result<(), Wrong> {
    let name = key.get_ref().as_ref();
    let Some(row) = rows.iter().find(|row| row.key == name) else {
        let known: Vec<&str> = rows.iter().map(|row| row.key).collect();
        return Err(Wrong { at: key.span().start, text: no_such_key(name, table, &known), allowed: None });
    };
    (row.read)(target, value).map_err(|wrong| Wrong {
        text: format!("{name}: {}", wrong.text),
        allowed: wrong.allowed.or(Some(row.allowed)),
        ..wrong
    })
}

/// What `oauth` says, on its way.
#[derive(Default)]
struct Tokens {
    provider: Option<Provider>,
    tenant: Option<String>,
    token_url: Option<TokenUrl>,
    auth_url: Option<TokenUrl>,
    device_url: Option<TokenUrl>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<PasswordSource>,
    refresh_token: Option<PasswordSource>,
    ca_file: Option<PathBuf>,
    pins: Vec<[u8; 32]>,
}

fn tokens(value: Value<'_>) -> Result<OAuth, Wrong> {
    let DeValue::Table(table) = value.value() else { return Err(value.wrong_type()) };
    let mut read = Tokens::default();
    for (key, inner) in in_order(table) {
        inside("oauth", OAUTH, key, Value { spanned: inner, ..value }, &mut read)?;
    }
    let (token_url, usual) = match (read.provider, read.token_url) {
        (Some(provider), None) => provider
            .endpoint(read.tenant.as_deref())
            .ok_or_else(|| value.wrong(format!("{} has no tenants", provider.name)))?,
        (None, Some(_)) if read.tenant.is_some() => return Err(value.wrong("a token_url has no tenant")),
        (None, Some(url)) => (url, None),
        _ => return Err(value.wrong("exactly one of provider and token_url is needed")),
    };
    let known = read.provider.map(|provider| provider.consent(read.tenant.as_deref())).unwrap_or_default();
    let consent = Consent {
        auth_url: read.auth_url.or(known.auth_url),
        device_url: read.device_url.or(known.device_url),
        scope: read.scope.clone().or(known.scope),
        by_name: known.by_name,
    };
    Ok(OAuth {
        token_url,
        scope: read.scope.or(usual),
        client_id: read.client_id.ok_or_else(|| value.wrong("client_id is missing"))?,
        client_secret: read.client_secret,
        refresh_token: read.refresh_token.ok_or_else(|| value.wrong("refresh_token is missing"))?,
        ca_file: read.ca_file,
        pins: read.pins,
        consent,
    })
}

fn url(value: Value<'_>) -> Result<TokenUrl, Wrong> {
    TokenUrl::parse(value.text()?).map_err(|text| value.wrong(text))
}

fn pins(value: Value<'_>) -> Result<Vec<[u8; 32]>, Wrong> {
    value.list(|one| notation::pin(one.text()?).map_err(|text| one.wrong(text)))
}

fn printable(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("is empty".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("has a control character in it".to_owned())
    } else {
        Ok(())
    }
}

/// NUL ends a word for the system and separates SASL's; nothing that we hand on may have one.
fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("has a NUL in it".to_owned()) } else { Ok(()) }
}

/// One address; a bare local name will get the domain.
fn address(text: &str) -> Result<(), String> {
    let address = parse_sender(text).map_err(|error| format!("{text:?} {error}"))?.ok_or("is empty")?;
    let domain = address.domain.as_deref().unwrap_or("localhost");
    address.to_mailbox(domain).map(drop).map_err(|bad| format!("{text:?} {bad}"))
}

#[cfg(test)]
mod tests;
