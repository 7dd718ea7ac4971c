//! dma's `dma.conf` (`KEY value`, or a key alone) and `auth.conf` (`user|smarthost:password`).

use super::super::{Account, Settings, Tls};
use super::{Line, Pairs, Place, Reader, Stays, literal};
use std::path::Path;

/// The lines that say something.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.trim();
        let (key, value) = line.split_once([' ', '\t', '=']).unwrap_or((line, ""));
        (!key.is_empty() && !key.starts_with('#')).then(|| (number + 1, key, value.trim()))
    })
}

pub(super) fn read(reader: &mut Reader<'_>, path: &Path, text: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
    let mut account = Account { tls: Tls::Off, ..Account::new("relay") };
    let (mut smarthost, mut port, mut secure, mut starttls) = (None, 25, false, false);
    let mut auth = path.with_file_name("auth.conf");
    let mut senders = Pairs::default();
    for (line, key, value) in lines(text) {
        match key {
            "SMARTHOST" if !value.is_empty() => smarthost = Some((line, value)),
            "PORT" => port = value.parse().unwrap_or(port),
            "ALIASES" => settings.names.alias_file = reader.alias_file(path, line, value),
            "AUTHPATH" => auth = value.into(),
            "SECURETRANSFER" | "SECURETRANS" => secure = true,
            "STARTTLS" => starttls = true,
            "OPPORTUNISTIC_TLS" => reader.note(
                path,
                line,
                "OPPORTUNISTIC_TLS: TLS is demanded, never given up; if the relay has none, write tls = \"none\"",
            ),
            "CERTFILE" => {
                account.cert_file = reader.path(path, line, value);
            }
            "FINGERPRINT" => account.pins.extend(reader.pin(path, line, value)),
            "MAILNAME" if value.starts_with('/') => {
                settings.domain =
                    reader.beside(Path::new(value)).and_then(|text| text.split_whitespace().next().map(str::to_owned));
            }
            "MAILNAME" if !value.is_empty() => settings.domain = Some(value.to_owned()),
            "MASQUERADE" => masquerade(reader, (path, line), value, &mut settings, &mut senders),
            "SPOOLDIR" => reader.note(
                path,
                line,
                "SPOOLDIR: the queue is another one; letters that wait there have to be sent by dma -q before you \
                 change over",
            ),
            "DEFER" => reader.note(
                path,
                line,
                "DEFER: say it per letter, with sendmail -odq; the queue is run by \
                                                sendmail -q",
            ),
            "FULLBOUNCE" => reader.note(path, line, "FULLBOUNCE: say it per letter, with sendmail -R full"),
            // Some are always so, the others say nothing, or that a password may go in clear, of which there is a note.
            "NULLCLIENT" | "SECURE" | "INSECURE" | "VERIFYCERT" | "SMARTHOST" | "MAILNAME" => {}
            _ => reader.note(path, line, format!("{key}: this is not known here; it was left out")),
        }
    }
    let Some((line, smarthost)) = smarthost else {
        return Err(format!(
            "{} names no SMARTHOST: dma then delivers to the recipients' own servers; an account with host = \"mx\" \
             does that, and a provider's relay is the better way",
            path.display()
        ));
    };
    account.tls = match (secure, starttls) {
        (true, false) => Tls::Implicit,
        (_, true) => Tls::StartTls,
        (false, false) => Tls::Off,
    };
    account.hosts.extend(reader.host(path, line, smarthost, port));
    if account.hosts.is_empty() {
        return Err(format!("{}:{line}: SMARTHOST: \"{smarthost}\" is no host", path.display()));
    }
    if let Some(text) = reader.beside(&auth) {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let Some((user, rest)) = line.split_once('|').filter(|_| !line.starts_with('#')) else { continue };
            let Some((host, password)) = rest.split_once(':') else { continue };
            if host == smarthost {
                (account.user, account.password) = (Some(user.to_owned()), literal(password));
            } else {
                reader.note(
                    &auth,
                    number + 1,
                    format!("{host} is not the SMARTHOST; its user and password were left out"),
                );
            }
        }
    }
    settings.domain = settings.domain.filter(|name| super::notation::domain(name).is_ok());
    settings.names.masquerade = senders.list;
    settings.accounts.push(account);
    Ok(settings)
}

/// `user@host` for all letters, `host` for the domain, `user@` for the name.
fn masquerade(
    reader: &mut Reader<'_>,
    (path, line): Place<'_>,
    value: &str,
    settings: &mut Settings,
    senders: &mut Pairs,
) {
    match value.split_once('@') {
        Some((user, "")) => {
            let text = format!(
                "MASQUERADE: \"{user}@\" needs a domain here; write [masquerade] \"*\" = \"{user}@example.com\""
            );
            reader.note(path, line, text);
        }
        Some(_) => {
            if let Some(address) = reader.address(path, line, value) {
                let text =
                    "MASQUERADE: the sender is replaced in the header as well; dma replaced it in the envelope alone";
                reader.note(path, line, text);
                reader.pair((path, line), Stays::Last, senders, ("*".to_owned(), address));
            }
        }
        None => {
            settings.domain = Some(value.to_owned());
            let text = "MASQUERADE: names without a domain get this one; senders that have another keep it";
            reader.note(path, line, text);
        }
    }
}
