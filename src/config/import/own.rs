//! msmtp's and s-nail's files, which our own readers read; here is only what TOML has no words for.

use super::super::{Settings, mailrc, msmtprc};
use super::Reader;
use crate::config::load;
use std::io::ErrorKind;
use std::path::Path;

/// Keywords of an msmtprc, and why they do not become keys. `off` is the default of most, and needs no word.
const KEYWORDS: [(&str, &str); 17] = [
    (
        "set_from_header",
        "From: is completed where it is missing, and otherwise left alone; force_from = true replaces it",
    ),
    ("add_missing_from_header", "a missing From: is always added"),
    ("set_date_header", "a missing Date: is always added"),
    ("add_missing_date_header", "a missing Date: is always added"),
    ("set_msgid_header", "a missing Message-ID: is always added"),
    ("set_to_header", "To: is left alone"),
    ("undisclosed_recipients", "To: is left alone"),
    ("remove_bcc_headers", "blind copies always stay blind"),
    ("keepbcc", "blind copies always stay blind"),
    ("dsn_notify", "reports are asked for with -N, per letter"),
    ("dsn_return", "reports are asked for with -R, per letter"),
    (
        "allow_from_override",
        "another sender is not replaced in the envelope alone; force_from = true replaces it in both",
    ),
    ("logfile", "its lines have another form here: see pillarbox-log(7), and add log = \"/path\" of another file"),
    ("logfile_time_format", "the time of a log line has one form"),
    ("syslog", "its lines have another form here: see pillarbox-log(7), and add log = \"syslog\""),
    ("eval", "the command is run when the password is needed, and what it prints behind \"password\" is taken"),
    ("tls_priorities", "the ciphers are strong as they are; tls_min = \"1.3\" is the one choice"),
];

pub(super) fn msmtprc(reader: &mut Reader<'_>, path: &Path, text: &str) -> Result<Settings, String> {
    let reading = msmtprc::read(path, text, reader.around, &[]);
    let reading = reading.map_err(|problems| lines(&problems))?;
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let (keyword, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_usual = match keyword {
            "eval" => false,
            "allow_from_override" | "remove_bcc_headers" | "add_missing_from_header" | "add_missing_date_header" => {
                value != "off"
            }
            _ => matches!(value, "off" | "auto"),
        };
        if keyword == "from" && value == "%F" {
            reader.note(path, number + 1, "from %F: the author in the header is the sender only with sendmail -f");
        }
        if let Some((_, why)) = KEYWORDS.iter().find(|(known, _)| *known == keyword && !is_usual) {
            reader.note(path, number + 1, format!("{keyword}: {why}"));
        }
    }
    let settings = reading.settings(reader.around);
    if settings.accounts.is_empty() {
        return Err(format!("{} names no host, and so no relay", path.display()));
    }
    Ok(settings)
}

/// Variables of a mailrc that have to do with sending, and why they do not become keys.
const VARIABLES: [(&str, &str); 12] = [
    ("ssl-verify", "certificates are always verified; pin = \"sha256:…\" accepts one without a CA"),
    ("tls-verify", "certificates are always verified; pin = \"sha256:…\" accepts one without a CA"),
    ("tls-config-pairs", "protocols and ciphers are strong as they are; tls_min = \"1.3\" is the one choice"),
    ("smtp-config", "the extensions of SMTP are used where they are offered"),
    ("smtp-hostname", "the address it makes only chooses the account here: it is in senders"),
    ("record", "no copy is kept; write a Bcc: to yourself"),
    ("autocc", "addresses are not added by themselves"),
    ("autobcc", "addresses are not added by themselves"),
    ("replyto", "Reply-To: is the mail program's to write"),
    ("reply-to", "Reply-To: is the mail program's to write"),
    ("sender", "from = \"…\" is the envelope's sender"),
    ("signature", "a signature is the mail program's to write"),
];

pub(super) fn mailrc(reader: &mut Reader<'_>, path: &Path, text: &str) -> Result<Settings, String> {
    let home = reader.around.home.clone();
    let mut source = |other: &Path| {
        load::text(other).map_err(|error| match error.kind() {
            ErrorKind::NotFound => mailrc::NotSourced::Missing,
            _ => mailrc::NotSourced::Refused(format!(
                "{} cannot be read: {}",
                other.display(),
                crate::outcome::words(&error)
            )),
        })
    };
    let reading = mailrc::read(path, text, home.as_deref(), &mut source).map_err(|problems| lines(&problems))?;
    let reading = reading.ok_or_else(|| format!("{} sets no mta=smtp://… and so names no relay", path.display()))?;
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        if !matches!(words.next(), Some("set" | "se" | "wysh")) {
            continue;
        }
        for word in words {
            let name = word.split('=').next().unwrap_or_default();
            if let Some((_, why)) = VARIABLES.iter().find(|(known, _)| *known == name) {
                reader.note(path, number + 1, format!("{name}: {why}"));
            }
        }
    }
    Ok(reading.settings)
}

fn lines(problems: &[super::super::problem::Problem]) -> String {
    problems.iter().take(40).map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
