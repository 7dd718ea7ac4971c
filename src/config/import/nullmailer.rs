//! nullmailer's directory: `remotes`, a line a relay, tried in order; the rest is a value a file.
//!
//! `HOST [PROTOCOL [OPTION[=VALUE]…]]`, quotes as the shell has them; options may have dashes before them.

use super::super::{Account, Auth, Settings, Tls};
use super::{Reader, is_full, literal};
use std::path::Path;
use std::time::Duration;

pub(super) fn read(reader: &mut Reader<'_>, path: &Path, text: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || is_full(&settings.accounts) {
            continue;
        }
        let name = if settings.accounts.is_empty() {
            "relay".to_owned()
        } else {
            format!("relay{}", settings.accounts.len() + 1)
        };
        settings.accounts.extend(remote(reader, path, number + 1, line, &name));
    }
    if settings.accounts.is_empty() {
        return Err(format!("{} names no relay that is reached by SMTP", path.display()));
    }
    let names: Vec<String> = settings.accounts.iter().map(|account| account.name.clone()).collect();
    for (account, next) in settings.accounts.iter_mut().zip(names.iter().skip(1)) {
        account.fallback = Some(next.clone());
    }
    settings.default = (names.len() > 1).then(|| names[0].clone());
    others(reader, path, &mut settings);
    Ok(settings)
}

/// One line of `remotes`.
fn remote(reader: &mut Reader<'_>, path: &Path, line: usize, text: &str, name: &str) -> Option<Account> {
    let words = words(text);
    let mut words = words.iter().map(String::as_str);
    let host = words.next()?;
    match words.next() {
        None | Some("smtp") => {}
        Some(other) => {
            reader.note(path, line, format!("{host}: the protocol {other} is not spoken here; the line was left out"));
            return None;
        }
    }
    let mut account = Account { tls: Tls::Off, ..Account::new(name) };
    let mut port = None;
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        let (option, value) = bare.split_once('=').map_or((bare, None), |(option, value)| (option, Some(value)));
        let mut value = || value.or_else(|| words.next()).unwrap_or_default();
        match option {
            "port" | "p" => port = value().parse().ok(),
            "user" => account.user = Some(value().to_owned()),
            "pass" => account.password = literal(value()),
            "starttls" => account.tls = Tls::StartTls,
            "ssl" | "tls" => account.tls = Tls::Implicit,
            "auth-login" => account.auth = Auth::Login,
            "x509cafile" => account.ca_file = reader.path(path, line, value()),
            "x509crlfile" => account.crl_file = reader.path(path, line, value()),
            "x509certfile" => account.cert_file = reader.path(path, line, value()),
            "x509keyfile" => account.key_file = reader.path(path, line, value()),
            "x509fmtder" | "tls-anon-auth" => reader.note(
                path,
                line,
                format!(
                    "{option}: certificates are PEM files here, and a relay without one is not believed; it was \
                     left out"
                ),
            ),
            "source" => match value().parse() {
                Ok(ip) => account.source_ip = Some(ip),
                Err(_) => reader.note(path, line, "--source: this is no address; it was left out"),
            },
            "insecure" => reader.note(
                path,
                line,
                "--insecure: certificates are always verified here; where no CA vouches for the relay, \"pillarbox \
                 check\" prints the pin to write",
            ),
            _ => reader.note(path, line, format!("--{option}: this is not known here; it was left out")),
        }
    }
    let usual = if account.tls == Tls::Implicit { 465 } else { 25 };
    account.hosts = vec![reader.host(path, line, host, port.unwrap_or(usual))?];
    Some(account)
}

/// The files beside `remotes`.
fn others(reader: &mut Reader<'_>, path: &Path, settings: &mut Settings) {
    let mut value = |name: &str| {
        let file = path.with_file_name(name);
        let text = reader.beside(&file)?;
        let line = text.lines().next()?.trim().to_owned();
        (!line.is_empty()).then_some((file, line))
    };
    let [me, host, domain, helo, admin, sender, lifetime, timeout] =
        ["me", "defaulthost", "defaultdomain", "helohost", "adminaddr", "allmailfrom", "queuelifetime", "sendtimeout"]
            .map(&mut value);
    let unused =
        ["pausetime", "maxpause", "idhost", "doublebounceto", "bounceto", "trusted"].map(|name| (name, value(name)));
    for (name, found) in unused {
        let Some((file, _)) = found else { continue };
        let why = match name {
            "pausetime" | "maxpause" => "attempts are made after 1 minute, then ever more rarely, up to 4 hours",
            "idhost" => "a Message-ID is made in the sender's domain",
            "trusted" => "the sender is everybody's to choose, or see trusted_users in pillarbox.toml(5)",
            _ => "reports that cannot be delivered are kept under failed/, and go nowhere",
        };
        reader.note(&file, 1, format!("{name}: {why}"));
    }
    let full = |host: String| match &domain {
        Some((_, domain)) if !host.contains('.') => format!("{host}.{domain}"),
        _ => host,
    };
    settings.domain = host
        .map(|(_, host)| full(host))
        .or_else(|| me.clone().map(|(_, me)| full(me)))
        .or_else(|| domain.clone().map(|(_, domain)| domain))
        .filter(|name| super::notation::domain(name).is_ok());
    let greeting = helo.or(me).map(|(_, name)| full(name)).filter(|name| super::notation::domain(name).is_ok());
    let sender = sender.and_then(|(file, sender)| {
        let address = reader.address(&file, 1, &sender)?;
        let text = "allmailfrom: the author in the header is replaced as well, and becomes the Reply-To; without \
                    force_from only letters that name no sender are sent from it";
        reader.note(&file, 1, text);
        Some(address)
    });
    for account in &mut settings.accounts {
        account.helo.clone_from(&greeting);
        account.from.clone_from(&sender);
        account.force_from = sender.is_some();
        let seconds =
            timeout.as_ref().and_then(|(_, text)| text.parse().ok()).filter(|seconds| (1..86_400).contains(seconds));
        account.timeout = seconds.map_or(account.timeout, Duration::from_secs);
    }
    if let Some((file, admin)) = admin {
        let addresses = admin.split(',').map(str::trim).filter(|one| !one.is_empty());
        let addresses: Vec<String> = addresses.filter_map(|one| reader.address(&file, 1, one)).collect();
        if !addresses.is_empty() {
            settings.names.aliases.push(("default".to_owned(), addresses.join(", ")));
        }
    }
    let lifetime =
        lifetime.and_then(|(_, text)| text.parse().ok()).filter(|seconds| (60..=86_400 * 365).contains(seconds));
    settings.queue.lifetime = lifetime.map_or(settings.queue.lifetime, Duration::from_secs);
}

/// The words of a line; quotes and backslashes as the shell has them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => (quote, begun) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            (c, _) => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}
