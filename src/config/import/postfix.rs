//! Postfix as a null client: `relayhost` of `main.cf`, its TLS and passwords, and who sends through which relay.
//!
//! A parameter may go on in lines that begin with white space, and stand for others as `$name`. Tables are read as the
//! text that postmap(1) reads; those of other kinds (LDAP, regular expressions) are noted. What concerns receiving mail
//! has no counterpart here, and is named once.

use super::super::{Account, Settings, Tls};
use super::{Pairs, Reader, Stays, host_and_port, is_full, is_yes, literal, name_for};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `main.cf`, in its order.
struct Parameters<'t> {
    list: Vec<(usize, &'t str, String)>,
    host: &'t str,
}

impl<'t> Parameters<'t> {
    fn read(text: &'t str, host: &'t str) -> Self {
        let mut list: Vec<(usize, &str, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, _, value)) = list.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once('=') {
                list.push((number + 1, name.trim(), value.trim().to_owned()));
            }
        }
        Self { list, host }
    }

    fn raw(&self, name: &str) -> Option<(usize, &str)> {
        self.list.iter().rev().find(|(_, known, _)| *known == name).map(|(line, _, value)| (*line, value.as_str()))
    }

    /// A parameter's line and value; `None` where it is missing or empty.
    fn get(&self, name: &str) -> Option<(usize, String)> {
        let (line, value) = self.raw(name)?;
        let value = self.expanded(value, 0);
        (!value.is_empty()).then_some((line, value))
    }

    fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(|(_, value)| is_yes(&value))
    }

    /// `$name`, `${name}`, `$(name)`; loops end.
    fn expanded(&self, value: &str, depth: usize) -> String {
        let Some((before, behind)) = value.split_once('$').filter(|_| depth < 16) else {
            return value.trim().to_owned();
        };
        let inner = behind.trim_start_matches(['{', '(']);
        let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        let rest = if inner.len() < behind.len() { rest.trim_start_matches(['}', ')']) } else { rest };
        let known = match (self.raw(name), name) {
            (Some((_, value)), _) => value.to_owned(),
            (None, "myhostname") => self.host.to_owned(),
            (None, "mydomain") => {
                let host = self.raw("myhostname").map_or(self.host, |(_, host)| host);
                host.split_once('.').map_or("localdomain", |(_, domain)| domain).to_owned()
            }
            _ => String::new(),
        };
        self.expanded(&format!("{before}{known}{rest}"), depth + 1)
    }
}

/// An entry of a table: where it stands, key and value.
struct Entry {
    file: PathBuf,
    line: usize,
    key: String,
    value: String,
}

/// Reads the tables that a parameter names.
fn table(reader: &mut Reader<'_>, path: &Path, parameters: &Parameters<'_>, name: &str) -> Vec<Entry> {
    let Some((at, maps)) = parameters.get(name) else { return Vec::new() };
    let mut entries = Vec::new();
    for map in maps.split([',', ' ', '\t']).filter(|map| !map.is_empty()) {
        match map.split_once(':') {
            Some(("hash" | "texthash" | "lmdb" | "btree" | "cdb" | "dbm" | "default_database_type", file)) => {
                let file = PathBuf::from(file);
                let Some(text) = reader.beside(&file) else {
                    reader.note(
                        path,
                        at,
                        format!("{name}: {} is not to be had; what it says is missing here", file.display()),
                    );
                    continue;
                };
                for (number, line) in text.lines().enumerate() {
                    let line = line.trim();
                    if let Some((key, value)) = line.split_once([' ', '\t']).filter(|_| !line.starts_with('#')) {
                        let (key, value) = (key.to_owned(), value.trim().to_owned());
                        entries.push(Entry { file: file.clone(), line: number + 1, key, value });
                    }
                }
            }
            Some(("static", value)) => {
                entries.push(Entry { file: path.to_owned(), line: at, key: "*".to_owned(), value: value.to_owned() });
            }
            _ => reader.note(
                path,
                at,
                format!("{name}: a table of the kind {map} is not read; write what it says by hand"),
            ),
        }
    }
    entries
}

pub(super) fn read(reader: &mut Reader<'_>, path: &Path, text: &str) -> Result<Settings, String> {
    let host = if reader.around.canonical.is_empty() { "localhost" } else { &reader.around.canonical }.to_owned();
    let parameters = Parameters::read(text, &host);
    let Some((at, relayhost)) = parameters.get("relayhost") else {
        return Err(format!(
            "{} names no relayhost: Postfix then delivers to the recipients' own servers; an account with host = \
             \"mx\" does that, and a provider's relay is the better way",
            path.display()
        ));
    };
    let mut settings = Settings::default();
    let base = base(reader, path, &parameters);
    let passwords = if parameters.is("smtp_sasl_auth_enable") {
        table(reader, path, &parameters, "smtp_sasl_password_maps")
    } else {
        Vec::new()
    };
    let mut account = through(reader, path, at, &relayhost, &base)
        .ok_or_else(|| format!("{}:{at}: relayhost: \"{relayhost}\" is no host", path.display()))?;
    login(&mut account, &passwords, &[&relayhost, host_and_port(&relayhost).0]);
    "relay".clone_into(&mut account.name);
    if !relayhost.starts_with('[') && host_and_port(&relayhost).0.parse::<core::net::IpAddr>().is_err() {
        let text = format!(
            "relayhost: without brackets, Postfix asks the DNS for the MX of {relayhost}; here it is the host itself"
        );
        reader.note(path, at, text);
    }
    settings.accounts.push(account);
    senders(reader, path, &parameters, &base, &passwords, &relayhost, &mut settings);
    names(reader, path, &parameters, &mut settings);
    if let Some((at, fallback)) = parameters.get("smtp_fallback_relay") {
        let first = fallback.split([',', ' ']).next().unwrap_or_default();
        if let Some(mut other) = through(reader, path, at, first, &base) {
            login(&mut other, &passwords, &[first, host_and_port(first).0]);
            other.name = name_for("fallback", &settings.accounts);
            settings.accounts[0].fallback = Some(other.name.clone());
            settings.accounts.push(other);
        }
    }
    settings.default = (settings.accounts.len() > 1).then(|| "relay".to_owned());
    rest(reader, path, &parameters);
    Ok(settings)
}

/// What every account has: TLS, trust, our name.
fn base(reader: &mut Reader<'_>, path: &Path, parameters: &Parameters<'_>) -> Account {
    let mut account = Account { tls: Tls::Off, ..Account::new("relay") };
    let level = parameters.get("smtp_tls_security_level");
    let (at, word) = level.clone().unwrap_or_default();
    account.tls = match word.as_str() {
        _ if parameters.is("smtp_tls_wrappermode") => Tls::Implicit,
        "" if parameters.is("smtp_enforce_tls") || parameters.is("smtp_use_tls") => Tls::StartTls,
        "" | "none" => Tls::Off,
        _ => Tls::StartTls,
    };
    let said = match word.as_str() {
        "may" => Some("TLS is demanded, never given up; if the relay has none, write tls = \"none\""),
        "encrypt" => Some(
            "Postfix does not verify the certificate then; here it is. Where no CA vouches for the relay, \"pillarbox \
             check\" prints the pin to write",
        ),
        "dane" | "dane-only" => {
            Some("DANE is for host = \"mx\" here; a relay's certificate is verified by the system's authorities")
        }
        _ => None,
    };
    if let Some(said) = said {
        reader.note(path, at, format!("smtp_tls_security_level = {word}: {said}"));
    }
    if word == "fingerprint"
        && let Some((at, prints)) = parameters.get("smtp_tls_fingerprint_cert_match")
    {
        account.pins = prints
            .split([',', ' ', '|'])
            .filter(|print| !print.is_empty())
            .filter_map(|print| reader.pin(path, at, print))
            .collect();
    }
    let mut file = |name: &str| parameters.get(name).and_then(|(at, value)| reader.path(path, at, &value));
    account.ca_file = file("smtp_tls_CAfile");
    account.cert_file = file("smtp_tls_cert_file");
    account.key_file = file("smtp_tls_key_file");
    if let Some((at, _)) = parameters.get("smtp_tls_CApath").filter(|_| account.ca_file.is_none()) {
        reader.note(path, at, "smtp_tls_CApath: the system's authorities are believed; name one file with ca_file");
    }
    account.helo = parameters
        .get("smtp_helo_name")
        .or_else(|| parameters.get("myhostname"))
        .map(|(_, name)| name)
        .filter(|name| super::notation::domain(name).is_ok());
    if let Some((at, ip)) = parameters.get("smtp_bind_address") {
        match ip.parse() {
            Ok(ip) => account.source_ip = Some(ip),
            Err(_) => reader.note(path, at, "smtp_bind_address: this is no address; it was left out"),
        }
    }
    account
}

/// The account of a nexthop: `[host]:port`, `host:port`, `host`.
fn through(reader: &mut Reader<'_>, path: &Path, at: usize, nexthop: &str, base: &Account) -> Option<Account> {
    let (name, port) = host_and_port(nexthop);
    let usual = if base.tls == Tls::Implicit { 465 } else { 25 };
    let port = match port {
        None => usual,
        Some("smtp") => 25,
        Some("submission") => 587,
        Some("smtps" | "submissions") => 465,
        Some(port) => port.parse().ok()?,
    };
    let host = reader.host(path, at, name, port)?;
    Some(Account { hosts: vec![host], ..base.clone() })
}

/// User and password from the table, by the first of these keys that is in it.
fn login(account: &mut Account, passwords: &[Entry], keys: &[&str]) {
    let fits = |key: &&str| passwords.iter().find(|entry| entry.key == **key);
    let entry = keys.iter().find_map(fits).or_else(|| passwords.iter().find(|entry| entry.key == "*"));
    if let Some((user, password)) = entry.and_then(|entry| entry.value.split_once(':')) {
        (account.user, account.password) = (Some(user.to_owned()), literal(password));
    }
}

/// Accounts that are chosen by who sends.
fn senders(
    reader: &mut Reader<'_>,
    path: &Path,
    parameters: &Parameters<'_>,
    base: &Account,
    passwords: &[Entry],
    relayhost: &str,
    settings: &mut Settings,
) {
    let by_sender = parameters.is("smtp_sender_dependent_authentication");
    let mut found: Vec<(PathBuf, usize, String, String)> = Vec::new();
    for entry in table(reader, path, parameters, "sender_dependent_relayhost_maps") {
        found.push((entry.file, entry.line, entry.key, entry.value));
    }
    let mut known: HashSet<String> = found.iter().map(|(_, _, sender, _)| sender.clone()).collect();
    for entry in passwords.iter().filter(|entry| by_sender && entry.key.contains('@')) {
        if known.insert(entry.key.clone()) {
            found.push((entry.file.clone(), entry.line, entry.key.clone(), relayhost.to_owned()));
        }
    }
    for (file, line, sender, nexthop) in found {
        let pattern = if sender.starts_with('@') { format!("*{sender}") } else { sender.clone() };
        if super::notation::glob(&pattern).is_err() {
            reader.note(&file, line, format!("\"{sender}\" is no address; it was left out"));
            continue;
        }
        let is_known = settings.accounts.iter().any(|other| other.senders.contains(&pattern));
        if is_known || is_full(&settings.accounts) {
            continue;
        }
        let Some(mut account) = through(reader, &file, line, &nexthop, base) else { continue };
        let keys: Vec<&str> = [by_sender.then_some(sender.as_str()), Some(&nexthop), Some(host_and_port(&nexthop).0)]
            .into_iter()
            .flatten()
            .collect();
        login(&mut account, passwords, &keys);
        (account.name, account.senders) = (name_for(&sender, &settings.accounts), vec![pattern]);
        settings.accounts.push(account);
    }
}

/// Domain, aliases, senders that are replaced, the queue's lifetime.
fn names(reader: &mut Reader<'_>, path: &Path, parameters: &Parameters<'_>, settings: &mut Settings) {
    let origin = parameters.get("myorigin").map(|(_, value)| value);
    settings.domain = match origin {
        Some(file) if file.starts_with('/') => {
            reader.beside(Path::new(&file)).and_then(|text| text.split_whitespace().next().map(str::to_owned))
        }
        Some(domain) => Some(domain),
        None => parameters.get("myhostname").map(|(_, name)| name),
    }
    .filter(|name| super::notation::domain(name).is_ok());
    if let Some((at, maps)) = parameters.get("alias_maps") {
        for map in maps.split([',', ' ']).filter(|map| !map.is_empty()) {
            match map.split_once(':') {
                Some(("hash" | "texthash" | "lmdb" | "btree" | "cdb" | "dbm", file))
                    if settings.names.alias_file.is_none() =>
                {
                    settings.names.alias_file = reader.alias_file(path, at, file);
                }
                _ => reader.note(path, at, format!("alias_maps: {map} is not read; there is one alias file")),
            }
        }
    }
    let mut masquerade = Pairs::default();
    for name in ["smtp_generic_maps", "sender_canonical_maps"] {
        for entry in table(reader, path, parameters, name) {
            let Some(address) =
                reader.address(&entry.file, entry.line, &entry.value).filter(|address| !address.starts_with('@'))
            else {
                continue;
            };
            let key = if entry.key.starts_with('@') { format!("*{}", entry.key) } else { entry.key };
            reader.pair((&entry.file, entry.line), Stays::First, &mut masquerade, (key, address));
        }
    }
    settings.names.masquerade = masquerade.list;
    if let Some((at, long)) = parameters.get("maximal_queue_lifetime") {
        let split = long.find(|c: char| !c.is_ascii_digit()).unwrap_or(long.len());
        let unit = match &long[split..] {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "" | "d" => 86_400,
            _ => 7 * 86_400,
        };
        match long[..split].parse::<u64>() {
            Ok(number @ 1..=3650) => settings.queue.lifetime = Duration::from_secs(number * unit),
            _ => reader.note(path, at, "maximal_queue_lifetime: letters are kept for 5 days"),
        }
    }
}

/// What is used above, or is true of Pillarbox anyway.
const USED: [&str; 29] = [
    "relayhost",
    "smtp_sasl_auth_enable",
    "smtp_sasl_password_maps",
    "smtp_sasl_security_options",
    "smtp_sasl_tls_security_options",
    "smtp_tls_security_level",
    "smtp_use_tls",
    "smtp_enforce_tls",
    "smtp_tls_wrappermode",
    "smtp_tls_CAfile",
    "smtp_tls_CApath",
    "smtp_tls_cert_file",
    "smtp_tls_key_file",
    "smtp_tls_fingerprint_cert_match",
    "smtp_tls_fingerprint_digest",
    "smtp_helo_name",
    "smtp_bind_address",
    "sender_dependent_relayhost_maps",
    "smtp_sender_dependent_authentication",
    "smtp_generic_maps",
    "sender_canonical_maps",
    "alias_maps",
    "alias_database",
    "myorigin",
    "myhostname",
    "mydomain",
    "maximal_queue_lifetime",
    "smtp_fallback_relay",
    "compatibility_level",
];

/// Names what concerns receiving mail, and the rest that has no counterpart.
fn rest(reader: &mut Reader<'_>, path: &Path, parameters: &Parameters<'_>) {
    let mut others: Vec<String> = Vec::new();
    for (line, name, _) in &parameters.list {
        match *name {
            name if USED.contains(&name) => {}
            "virtual_alias_maps"
            | "canonical_maps"
            | "recipient_canonical_maps"
            | "transport_maps"
            | "header_checks"
            | "smtp_header_checks"
            | "always_bcc"
            | "sender_bcc_maps"
            | "recipient_bcc_maps"
            | "smtp_tls_policy_maps"
            | "default_transport"
            | "bounce_queue_lifetime" => {
                let why = match *name {
                    "virtual_alias_maps" | "recipient_canonical_maps" => {
                        "write local names into [aliases]; recipients elsewhere are not rewritten"
                    }
                    "transport_maps" | "default_transport" => "recipients = [\"*@domain\"] in an account chooses it",
                    "smtp_tls_policy_maps" => "each account has its own tls, ca_file and pin",
                    _ => "it has no counterpart here",
                };
                reader.note(path, *line, format!("{name}: {why}"));
            }
            name => others.push(format!("{name} ({line})")),
        }
    }
    if !others.is_empty() {
        let text = format!(
            "parameters about receiving mail, delivering it here, or tuning, left out with their lines: {}",
            others.join(", ")
        );
        reader.note(path, 0, text);
    }
}
