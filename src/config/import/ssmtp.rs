//! `ssmtp.conf` and `revaliases`: `key=value`, names without case, `#` comments; `local:address[:mailhub[:port]]`.

use super::super::{Account, Auth, Settings, Tls};
use super::{Line, Pairs, Reader, Stays, host_and_port, is_full, is_yes, literal, name_for};
use std::path::Path;

/// The lines that say something.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (key, value) = line.split_once('=')?;
        Some((number + 1, key.trim(), value.trim()))
    })
}

pub(super) fn read(reader: &mut Reader<'_>, path: &Path, text: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
    let mut account = Account::new("relay");
    let (mut hub, mut hub_line, mut own_port, mut tls, mut starttls) = (None, 0, None, false, false);
    let (mut hostname, mut rewrite, mut aliases) = (None, None, Pairs::default());
    for (line, key, value) in lines(text) {
        match key.to_ascii_lowercase().as_str() {
            _ if value.is_empty() => {}
            "mailhub" => (hub, hub_line) = (Some(value), line),
            "port" => own_port = Some(value),
            "usetls" => tls = is_yes(value),
            "usestarttls" => starttls = is_yes(value),
            "tlscert" => account.cert_file = reader.path(path, line, value),
            "tlskey" => account.key_file = reader.path(path, line, value),
            "tls_ca_file" => account.ca_file = reader.path(path, line, value),
            "tls_ca_dir" => {
                reader.note(
                    path,
                    line,
                    "TLS_CA_Dir: a directory of authorities is not read; name one file with ca_file",
                );
            }
            "authuser" => account.user = Some(value.to_owned()),
            "authpass" => {
                account.password = literal(value);
                if text.lines().nth(line - 1).is_some_and(|whole| whole.contains('#')) {
                    reader.note(
                        path,
                        line,
                        "AuthPass: it ends at the #, as in ssmtp; if it does not, write it whole into the file below",
                    );
                }
            }
            "authmethod" if value.eq_ignore_ascii_case("cram-md5") => account.auth = Auth::CramMd5,
            "authmethod" if value.eq_ignore_ascii_case("login") => account.auth = Auth::Login,
            "hostname" => hostname = Some(value.to_owned()),
            "rewritedomain" => rewrite = Some(value.to_owned()),
            "root" => {
                if let Some(address) = reader.address(path, line, value) {
                    reader.pair((path, line), Stays::Last, &mut aliases, ("root".to_owned(), address));
                    reader.note(
                        path,
                        line,
                        format!(
                            "root: ssmtp sends there what is for any user below a uid of 1000; here only root's mail \
                             goes there. Write a line for each other name, or default = \"{value}\""
                        ),
                    );
                }
            }
            "minuserid" => reader.note(path, line, "MinUserId: aliases are by name here, not by uid"),
            "fromlineoverride" if is_yes(value) => {}
            "fromlineoverride" => reader.note(
                path,
                line,
                "FromLineOverride: From: is left as the letter has it; force_from = true replaces it by from",
            ),
            "debug" | "usetlscert" | "authmethod" => {}
            _ => reader.note(path, line, format!("{key}: this is not known here; it was left out")),
        }
    }
    let Some(hub) = hub else { return Err(format!("{} names no mailhub, and so no relay", path.display())) };
    account.tls = match (tls, starttls) {
        (_, true) => Tls::StartTls,
        (true, false) => Tls::Implicit,
        (false, false) => Tls::Off,
    };
    let (name, port) = host_and_port(hub);
    let port = port.or(own_port).and_then(|port| port.parse().ok()).unwrap_or(usual_port(&account));
    account.hosts.extend(reader.host(path, hub_line, name, port));
    if account.hosts.is_empty() {
        return Err(format!("{}:{hub_line}: mailhub: \"{hub}\" is no host", path.display()));
    }
    account.helo = hostname.clone().filter(|name| super::notation::domain(name).is_ok());
    settings.domain = rewrite.or(hostname).filter(|name| super::notation::domain(name).is_ok());
    settings.accounts.push(account);
    settings.names.aliases = aliases.list;

    revaliases(reader, &path.with_file_name("revaliases"), hub, &mut settings);
    settings.default = (settings.accounts.len() > 1).then(|| "relay".to_owned());
    Ok(settings)
}

fn usual_port(account: &Account) -> u16 {
    if account.tls == Tls::Implicit { 465 } else { 25 }
}

/// Senders that are replaced, and through which hub they go.
fn revaliases(reader: &mut Reader<'_>, path: &Path, hub: &str, settings: &mut Settings) {
    let Some(text) = reader.beside(path) else { return };
    let mut masquerade = Pairs::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut parts = line.splitn(3, ':').map(str::trim);
        let (Some(local), Some(address)) = (parts.next(), parts.next().filter(|text| !text.is_empty())) else {
            continue;
        };
        let Some(address) = reader.address(path, number + 1, address) else { continue };
        let whole = format!("{local}@{}", settings.domain.as_deref().unwrap_or("*"));
        reader.pair((path, number + 1), Stays::Last, &mut masquerade, (whole.clone(), address.clone()));
        settings.accounts.retain(|account| !account.senders.contains(&whole));
        let Some(other) = parts.next().filter(|other| !other.is_empty() && *other != hub) else { continue };
        if is_full(&settings.accounts) {
            continue;
        }
        let (name, port) = host_and_port(other);
        let port = port.and_then(|port| port.parse().ok()).unwrap_or(usual_port(&settings.accounts[0]));
        if let Some(host) = reader.host(path, number + 1, name, port) {
            let base = settings.accounts[0].clone();
            // By the name before and after it is replaced; a name without a domain chooses nothing.
            let senders = [whole, address].into_iter().filter(|one| super::notation::glob(one).is_ok()).collect();
            let name = name_for(local, &settings.accounts);
            settings.accounts.push(Account { name, hosts: vec![host], senders, ..base });
        }
    }
    settings.names.masquerade = masquerade.list;
}
