//! Settings as TOML, with comments for what is not in them, read back before anybody sees it.
//!
//! Only what is not a default is written. No secret is: a password that was a literal becomes a file beside the
//! configuration, for whoever writes that to write, too.

use super::super::{Account, Auth, Host, LogTo, PasswordSource, Proxy, Queue, Settings, Tls, TlsVersion, toml};
use super::{Imported, Note};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// A configuration, and the files it needs.
#[derive(Debug)]
pub struct Written {
    /// The text.
    pub toml: String,
    /// Files for secrets, and what has to be in them.
    pub secrets: Vec<(PathBuf, Zeroizing<String>)>,
}

/// Writes what was imported, for a configuration that will lie at `place`. The error would be a fault of this program.
pub fn emit(imported: &Imported, place: &Path) -> Result<Written, String> {
    let (settings, secrets) = plain(&imported.settings, place);
    let mut toml = format!("# Made by \"pillarbox import\" from {}.\n", comment(&settings.file.display().to_string()));
    if !imported.notes.is_empty() {
        toml.push_str("#\n# What could not be carried over as it was:\n");
    }
    for note in &imported.notes {
        wrap(&mut toml, note);
    }
    for (path, _) in &secrets {
        let _ = writeln!(toml, "#\n# A password belongs into {} (mode 0600); --write puts it there.", path.display());
    }
    let body = body(&settings);
    toml.push_str(if body.starts_with('\n') { "" } else { "\n" });
    toml.push_str(&body);
    let back = toml::read(place, &toml, None);
    let settings = Settings { file: place.to_owned(), ..settings };
    match back {
        Ok(back) if back == settings => Ok(Written { toml, secrets }),
        Ok(_) => Err("what was imported does not read back as it was meant".to_owned()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// The settings without what TOML has no words for, which has been noted.
fn plain(settings: &Settings, place: &Path) -> (Settings, Vec<(PathBuf, Zeroizing<String>)>) {
    let mut settings = settings.clone();
    let mut secrets = Vec::new();
    settings.log.retain(|log| !matches!(log, LogTo::Sessions(_)));
    for account in &mut settings.accounts {
        let usual = Account::new(&account.name);
        account.force_sender = usual.force_sender;
        account.sender_from_header = usual.sender_from_header;
        account.header = usual.header;
        (account.notify, account.ret) = (usual.notify, usual.ret);
        account.password = match account.password.take() {
            Some(PasswordSource::Literal(secret)) => {
                let name: String =
                    account.name.chars().map(|c| if is_bare(c) || c == '@' || c == '.' { c } else { '_' }).collect();
                let stem = place.with_file_name(name.trim_start_matches('.'));
                // Accounts that are made from one another share a file.
                let known =
                    secrets.iter().find(|(_, other)| *other == secret).map(|(path, _): &(PathBuf, _)| path.clone());
                let path = known.unwrap_or_else(|| {
                    let is_taken = |path: &PathBuf| secrets.iter().any(|(other, _)| other == path);
                    let numbered = (2..).map(|n| PathBuf::from(format!("{}-{n}.password", stem.display())));
                    let names = std::iter::once(PathBuf::from(format!("{}.password", stem.display()))).chain(numbered);
                    let path = names.into_iter().find(|path| !is_taken(path)).unwrap_or_default();
                    secrets.push((path.clone(), secret));
                    path
                });
                Some(PasswordSource::File(path))
            }
            Some(PasswordSource::Eval(line)) => {
                let line = format!("{{ {line}\n}} | sed -n '1s/^[[:blank:]]*password[[:blank:]]*//p'");
                Some(PasswordSource::Command(vec![line]))
            }
            other => other,
        };
    }
    (settings, secrets)
}

/// A note as a comment; no text of a file begins a line of its own.
fn wrap(toml: &mut String, note: &Note) {
    let text = comment(&note.to_string());
    let mut line = String::from("# -");
    for word in text.split(' ') {
        if line.chars().count() + word.chars().count() >= 100 && line.len() > 3 {
            let _ = writeln!(toml, "{line}");
            "#  ".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(toml, "{line}");
}

fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn body(settings: &Settings) -> String {
    let mut toml = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(toml, "{key} = {value}");
    };
    if let Some(default) = &settings.default {
        line("default", text(default));
    }
    if let Some(domain) = &settings.domain {
        line("domain", text(domain));
    }
    let log: Vec<String> = settings.log.iter().filter_map(log).collect();
    if !log.is_empty() {
        line("log", list(&log));
    }
    if let Some(path) = &settings.names.alias_file {
        line("alias_file", self::path(path));
    }
    if settings.names.rewrite_headers {
        line("rewrite_headers", "true".to_owned());
    }
    if !settings.queue.enabled {
        line("queue", text("off"));
    }
    for account in &settings.accounts {
        let _ = write!(toml, "\n[account.{}]\n{}", key(&account.name), self::account(account));
    }
    let queue = queue(&settings.queue);
    if !queue.is_empty() && settings.queue.enabled {
        let _ = write!(toml, "\n[queue]\n{queue}");
    }
    for (name, pairs) in [("aliases", &settings.names.aliases), ("masquerade", &settings.names.masquerade)] {
        if !pairs.is_empty() {
            let lines: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{} = {}\n", key(name), text(value))).collect();
            let _ = write!(toml, "\n[{name}]\n{}", lines.concat());
        }
    }
    toml
}

fn account(account: &Account) -> String {
    let usual = Account::new("");
    let mut lines = String::new();
    let mut say = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(lines, "{key} = {value}");
        }
    };
    let port = match account.hosts[..] {
        [Host::Tcp { port, .. }] => Some(port),
        _ => None,
    };
    let hosts: Vec<String> = account.hosts.iter().map(|host| self::host(host, port)).collect();
    say("host", Some(list(&hosts)));
    say("port", port.map(|port| port.to_string()));
    say("protocol", account.lmtp.then(|| text("lmtp")));
    let tls = match account.tls {
        Tls::StartTls => Some("starttls"),
        Tls::Implicit => Some("implicit"),
        Tls::Off => Some("none"),
        // What "mx" has by itself.
        Tls::Opportunistic => None,
    };
    say("tls", tls.map(text));
    // What comes with a token says itself how it is used.
    let auth = (account.auth != usual.auth && account.auth != Auth::Bearer).then(|| toml::auth_word(account.auth));
    say("auth", auth.flatten().map(text));
    say("user", account.user.as_deref().map(text));
    say("password", account.password.as_ref().and_then(password));
    say("from", account.from.as_deref().map(text));
    say("from_name", account.from_name.as_deref().map(text));
    say("force_from", account.force_from.then(|| "true".to_owned()));
    let texts =
        |words: &[String]| (!words.is_empty()).then(|| list(&words.iter().map(|word| text(word)).collect::<Vec<_>>()));
    say("senders", texts(&account.senders));
    say("recipients", texts(&account.recipients));
    say("fallback", account.fallback.as_deref().map(text));
    for (key, file) in [
        ("ca_file", &account.ca_file),
        ("crl_file", &account.crl_file),
        ("cert_file", &account.cert_file),
        ("key_file", &account.key_file),
    ] {
        say(key, file.as_deref().map(path));
    }
    say("tls_min", (account.tls_min == TlsVersion::Tls13).then(|| text("1.3")));
    let hex = |pin: &[u8; 32]| {
        text(&format!("sha256:{}", pin.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().concat()))
    };
    say("pin", (!account.pins.is_empty()).then(|| list(&account.pins.iter().map(hex).collect::<Vec<_>>())));
    say("tls_host", account.tls_host.as_deref().map(text));
    say("helo", account.helo.as_deref().map(text));
    say("source_ip", account.source_ip.map(|ip| text(&ip.to_string())));
    say("proxy", account.proxy.as_ref().map(proxy));
    say("timeout", (account.timeout != usual.timeout).then(|| duration(account.timeout)));
    lines
}

fn host(host: &Host, own_port: Option<u16>) -> String {
    match host {
        Host::Tcp { name, .. } if own_port.is_some() => text(name),
        Host::Tcp { name, port } if name.contains(':') => text(&format!("[{name}]:{port}")),
        Host::Tcp { name, port } => text(&format!("{name}:{port}")),
        Host::Unix(path) => text(&format!("unix:{}", path.display())),
        Host::Srv(domain) => text(&format!("srv:{domain}")),
        Host::Mx(_) => text("mx"),
    }
}

fn password(source: &PasswordSource) -> Option<String> {
    Some(match source {
        PasswordSource::File(file) => format!("{{ file = {} }}", path(file)),
        PasswordSource::Command(words) => {
            format!("{{ command = {} }}", list(&words.iter().map(|word| text(word)).collect::<Vec<_>>()))
        }
        PasswordSource::Credential(name) => format!("{{ credential = {} }}", text(name)),
        PasswordSource::Netrc(None) => "{ netrc = true }".to_owned(),
        PasswordSource::Netrc(Some(file)) => format!("{{ netrc = {} }}", path(file)),
        // `plain` has made files and commands of the first two; nobody else's configuration has the last.
        _ => return None,
    })
}

/// No program that is read here gives its proxy a password.
fn proxy(proxy: &Proxy) -> String {
    let host = if proxy.host.contains(':') { format!("[{}]", proxy.host) } else { proxy.host.clone() };
    text(&format!("socks5://{host}:{}", proxy.port))
}

fn queue(queue: &Queue) -> String {
    let usual = Queue::default();
    let mut lines = String::new();
    if let Some(dir) = &queue.dir {
        let _ = writeln!(lines, "dir = {}", path(dir));
    }
    if queue.lifetime != usual.lifetime {
        let _ = writeln!(lines, "lifetime = {}", duration(queue.lifetime));
    }
    lines
}

fn log(to: &LogTo) -> Option<String> {
    match to {
        LogTo::Journal => Some(text("journal")),
        LogTo::Syslog => Some(text("syslog")),
        LogTo::Stderr => Some(text("stderr")),
        LogTo::File(file) => Some(path(file)),
        LogTo::Sessions(_) => None,
    }
}

fn duration(long: Duration) -> String {
    let seconds = long.as_secs();
    let unit = [(86_400, "d"), (3_600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| seconds.is_multiple_of(*unit) && seconds > 0);
    let (unit, word) = unit.unwrap_or((1, "s"));
    text(&format!("{}{word}", seconds / unit))
}

fn list(words: &[String]) -> String {
    if let [word] = words { word.clone() } else { format!("[{}]", words.join(", ")) }
}

fn path(path: &Path) -> String {
    text(&path.display().to_string())
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn key(name: &str) -> String {
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { text(name) }
}

/// A basic string of TOML.
fn text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
