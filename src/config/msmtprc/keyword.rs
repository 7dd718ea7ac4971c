//! The keywords: one table that the reader, the nearest spelling and the test of the manual read.
//!
//! A row reads an argument into a [`Building`]. An empty one takes back what was set, where
//! msmtp has it so. Keywords and the words of their arguments are case-sensitive. Obsolete
//! spellings are rows of their own; what msmtp has that means nothing here is taken, and
//! the row says why. What would have to be done differently than the file says is an error.

use super::super::notation;
use super::super::{Auth, FromField, ToField};
use super::Surroundings;
use super::account::{Building, Log, Trusts};
use crate::envelope::{Notify, Ret};
use crate::message::address::parse_sender;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

type Read = fn(&mut Building, &str, &Surroundings) -> Result<(), String>;

/// One keyword.
pub(super) struct Row {
    pub keyword: &'static str,
    /// What may stand behind it.
    pub allowed: &'static str,
    pub read: Read,
}

impl Row {
    /// What is wrong with an argument.
    pub fn check(&self, argument: &str, around: &Surroundings) -> Result<(), String> {
        (self.read)(&mut Building::new("any"), argument, around)
    }
}

const SWITCH: &str = "on or off";
const FILE: &str = "a path that begins with / or ~/";
const HOST: &str = "a name or an address";
const PORT: &str = "a number from 1 to 65535";
const ADDRESS: &str = "an address, a pattern with *, ? and [...], or %F; %U, %H, %C and %M are replaced";
const DOMAIN: &str = "a domain; %H, %C and %M are replaced";
const MECHANISM: &str = "on, off, or scram-sha-256-plus, scram-sha-1-plus, scram-sha-256, scram-sha-1, plain, login, \
                         cram-md5, oauthbearer, xoauth2, external";
const SECONDS: &str = "off, or a number of seconds";
const TO: &str = "on, off or undisclosed_recipients";
const NOTICE: &str = "off, never, or a list of failure,delay,success";
const FACILITY: &str = "on, off, LOG_USER, LOG_MAIL or LOG_LOCAL0 to LOG_LOCAL7";

/// A row in one line, so that the table reads as a table.
const fn row(keyword: &'static str, allowed: &'static str, read: Read) -> Row {
    Row { keyword, allowed, read }
}

/// Every keyword but `defaults`, `account` and `eval`, which are no settings.
#[rustfmt::skip]
const KEYWORDS: &[Row] = &[
    row("host", HOST, |b, text, _| { notation::domain(text)?; put(&mut b.host, Some(text.to_owned())) }),
    row("port", PORT, |b, text, _| put(&mut b.port, set(text, notation::port)?)),
    row("socket", FILE, |b, text, around| put(&mut b.socket, set(text, |path| file(path, around))?)),
    row("protocol", "smtp or lmtp", |b, text, _| put(&mut b.account.lmtp, match text {
        "smtp" => false,
        "lmtp" => true,
        _ => return Err(unknown(text)),
    })),
    row("source_ip", "an address", |b, text, _| {
        put(&mut b.account.source_ip, set(text, |ip| ip.parse().map_err(|_| unknown(ip)))?)
    }),
    row("proxy_host", HOST, |b, text, _| {
        put(&mut b.proxy_host, set(text, |name| notation::domain(name).map(|()| name.to_owned()))?)
    }),
    row("proxy_port", PORT, |b, text, _| put(&mut b.proxy_port, set(text, notation::port)?)),
    row("timeout", SECONDS, timeout),
    row("connect_timeout", SECONDS, timeout),
    row("domain", DOMAIN, |b, text, around| {
        let domain = set(text, |text| replaced(text, around))?;
        domain.as_deref().map(notation::domain).transpose()?;
        // msmtp's default, which tells a relay nothing.
        put(&mut b.account.helo, domain.filter(|domain| domain != "localhost"))
    }),

    row("auth", MECHANISM, |b, text, _| put(&mut b.account.auth, mechanism(text)?)),
    row("user", "a name", |b, text, _| put(&mut b.account.user, set(text, printable)?)),
    row("password", "the password", |b, text, _| {
        put(&mut b.password, set(text, |text| no_nul(text).map(Zeroizing::new))?)
    }),
    row("passwordeval", "a line for /bin/sh", |b, text, _| put(&mut b.passwordeval, set(text, no_nul)?)),
    row("ntlmdomain", "a domain", |_, _, _| Ok(())), // NTLM is not spoken, and `auth ntlm` says so

    row("tls", SWITCH, |b, text, _| put(&mut b.tls, switch(text)?)),
    row("tls_starttls", SWITCH, |b, text, _| put(&mut b.starttls, switch(text)?)),
    row("tls_nostarttls", "nothing", |b, text, _| { nothing(text)?; put(&mut b.starttls, false) }),
    row("tls_trust_file", "system, or a path that begins with / or ~/", |b, text, around| {
        put(&mut b.trusts, match text {
            "" => Trusts::Nobody,
            "system" => Trusts::System,
            path => Trusts::File(file(path, around)?),
        })
    }),
    row("tls_crl_file", FILE, |b, text, around| put(&mut b.account.crl_file, set(text, |path| file(path, around))?)),
    row("tls_fingerprint", "a SHA-256 fingerprint in hexadecimal", |b, text, _| {
        let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        put(&mut b.account.pins, set(&bare, notation::pin)?.into_iter().collect())
    }),
    row("tls_key_file", FILE, |b, text, around| put(&mut b.account.key_file, set(text, |path| pem(path, around))?)),
    row("tls_cert_file", FILE, |b, text, around| put(&mut b.account.cert_file, set(text, |path| pem(path, around))?)),
    row("tls_certcheck", SWITCH, |b, text, _| put(&mut b.certcheck, switch(text)?)),
    row("tls_nocertcheck", "nothing", |b, text, _| { nothing(text)?; put(&mut b.certcheck, false) }),
    row("tls_priorities", "a string of GnuTLS", |b, text, _| put(&mut b.priorities, text.to_owned())),
    row("tls_host_override", HOST, |b, text, _| {
        put(&mut b.account.tls_host, set(text, |name| notation::domain(name).map(|()| name.to_owned()))?)
    }),
    row("tls_min_dh_prime_bits", "a number", |_, _, _| Ok(())), // finite-field Diffie-Hellman is not spoken
    row("tls_force_sslv3", "nothing", |_, text, _| nothing(text)), // neither is that, by msmtp either

    row("from", ADDRESS, from),
    row("from_full_name", "a name", |b, text, _| put(&mut b.account.from_name, set(text, printable)?)),
    row("allow_from_override", SWITCH, |b, text, _| put(&mut b.account.force_sender, !switch(text)?)),
    row("auto_from", SWITCH, |b, text, _| put(&mut b.auto_from, switch(text)?)),
    row("maildomain", DOMAIN, |b, text, around| put(&mut b.maildomain, set(text, |text| replaced(text, around))?)),
    row("set_from_header", "auto, on or off", |b, text, _| {
        put(&mut b.account.header.from, match text {
            "" | "auto" => FromField::Completed,
            "on" => FromField::Replaced,
            "off" => FromField::Kept,
            _ => return Err(unknown(text)),
        })
    }),
    row("add_missing_from_header", SWITCH, |b, text, _| {
        put(&mut b.account.header.from, if switch(text)? { FromField::Completed } else { FromField::Kept })
    }),
    row("set_date_header", "auto or off", |b, text, _| put(&mut b.account.header.date, auto(text)?)),
    row("add_missing_date_header", SWITCH, |b, text, _| put(&mut b.account.header.date, switch(text)?)),
    row("set_msgid_header", "auto or off", |b, text, _| put(&mut b.account.header.message_id, auto(text)?)),
    row("set_to_header", TO, |b, text, _| {
        put(&mut b.account.header.to, match text {
            "" | "on" => ToField::Recipients,
            "off" => ToField::Kept,
            "undisclosed_recipients" => ToField::Undisclosed,
            _ => return Err(unknown(text)),
        })
    }),
    row("undisclosed_recipients", SWITCH, |b, text, _| {
        put(&mut b.account.header.to, if switch(text)? { ToField::Undisclosed } else { ToField::Kept })
    }),
    // Blind copies stay blind, whatever the file says: everybody gets the letter, and nobody sees who else.
    row("remove_bcc_headers", SWITCH, |_, text, _| switch(text).map(drop)),
    row("keepbcc", SWITCH, |_, text, _| switch(text).map(drop)),
    row("dsn_notify", NOTICE, |b, text, _| match text {
        "" | "off" => put(&mut b.account.notify, None),
        _ => put(&mut b.account.notify, Some(Notify::parse(text).filter(|_| is_lower(text)).ok_or(unknown(text))?)),
    }),
    row("dsn_return", "off, headers or full", |b, text, _| match text {
        "" | "off" => put(&mut b.account.ret, None),
        "headers" | "hdrs" => put(&mut b.account.ret, Some(Ret::Headers)),
        "full" => put(&mut b.account.ret, Some(Ret::Full)),
        _ => Err(unknown(text)),
    }),

    row("logfile", "a path that begins with / or ~/, or -", |b, text, around| {
        put(&mut b.logfile, match text {
            "" => None,
            "-" => Some(Log::Stdout),
            path => Some(Log::File(file(path, around)?)),
        })
    }),
    row("logfile_time_format", "none, or a format of strftime(3)", |b, text, _| {
        put(&mut b.time_format, set(text, printable)?)
    }),
    row("syslog", FACILITY, |b, text, _| put(&mut b.syslog, facility(text)?)),
    row("aliases", FILE, |b, text, around| put(&mut b.alias_file, set(text, |path| file(path, around))?)),
    row("queue", SWITCH, |b, text, _| put(&mut b.queue, Some(switch(text)?))),
];

/// Every keyword.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    ["defaults", "account", "eval"].into_iter().chain(KEYWORDS.iter().map(|row| row.keyword))
}

/// The row of a keyword.
pub(super) fn find(keyword: &str) -> Option<&'static Row> {
    KEYWORDS.iter().find(|row| row.keyword == keyword)
}

/// The keyword under which a line is kept: an obsolete spelling says the same thing as the one that took its place, and
/// of both the later line counts.
pub(super) fn today(keyword: &'static str) -> &'static str {
    match keyword {
        "connect_timeout" => "timeout",
        "tls_nostarttls" => "tls_starttls",
        "tls_nocertcheck" => "tls_certcheck",
        "add_missing_from_header" => "set_from_header",
        "add_missing_date_header" => "set_date_header",
        "undisclosed_recipients" => "set_to_header",
        "keepbcc" => "remove_bcc_headers",
        _ => keyword,
    }
}

/// Puts what was read where it belongs.
#[allow(clippy::unnecessary_wraps)] // every row ends in a Result
fn put<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

/// An argument that may be empty: nothing is set then.
fn set<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

fn unknown(text: &str) -> String {
    if text.is_empty() { "its argument is missing".to_owned() } else { format!("{text:?} is not known") }
}

/// A keyword alone means `on`.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "" | "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(unknown(text)),
    }
}

fn auto(text: &str) -> Result<bool, String> {
    match text {
        "" | "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(unknown(text)),
    }
}

fn nothing(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { Err("takes no argument".to_owned()) }
}

fn is_lower(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_uppercase())
}

fn printable(text: &str) -> Result<String, String> {
    if text.contains(char::is_control) { Err("has a control character in it".to_owned()) } else { Ok(text.to_owned()) }
}

fn no_nul(text: &str) -> Result<String, String> {
    if text.contains('\0') { Err("has a NUL in it".to_owned()) } else { Ok(text.to_owned()) }
}

fn file(text: &str, around: &Surroundings) -> Result<PathBuf, String> {
    notation::absolute(text, around.home.as_deref())
}

fn pem(text: &str, around: &Surroundings) -> Result<PathBuf, String> {
    if text.starts_with("pkcs11:") {
        return Err("a key in hardware cannot be used here; name a PEM file".to_owned());
    }
    file(text, around)
}

/// `off` is the default of msmtp, where it means for ever; here it means our own.
fn timeout(b: &mut Building, text: &str, _: &Surroundings) -> Result<(), String> {
    let own = Building::new("any").account.timeout;
    if text == "off" {
        return put(&mut b.account.timeout, own);
    }
    let seconds = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)).ok_or_else(|| unknown(text))?;
    put(&mut b.account.timeout, Duration::from_secs(seconds))
}

fn mechanism(text: &str) -> Result<Auth, String> {
    Ok(match text {
        "" | "on" => Auth::Auto,
        "off" => Auth::Off,
        "scram-sha-256-plus" => Auth::ScramSha256Plus,
        "scram-sha-1-plus" => Auth::ScramSha1Plus,
        "scram-sha-256" => Auth::ScramSha256,
        "scram-sha-1" => Auth::ScramSha1,
        "plain" => Auth::Plain,
        "login" => Auth::Login,
        "cram-md5" => Auth::CramMd5,
        "oauthbearer" => Auth::OAuthBearer,
        "xoauth2" => Auth::XOAuth2,
        "external" => Auth::External,
        "gssapi" | "digest-md5" | "ntlm" => return Err(format!("{text} is not spoken here")),
        _ => return Err(unknown(text)),
    })
}

fn facility(text: &str) -> Result<Option<u8>, String> {
    const USER: u8 = 1;
    Ok(match text {
        "off" => None,
        "" | "on" | "LOG_USER" => Some(USER),
        "LOG_MAIL" => Some(2),
        _ => {
            let local = text.strip_prefix("LOG_LOCAL").and_then(|digit| digit.parse().ok());
            let local: u8 = local.filter(|local| *local < 8).ok_or_else(|| unknown(text))?;
            Some(16 + local)
        }
    })
}

/// With `%U`, `%H`, `%C` and `%M` replaced.
fn replaced(text: &str, around: &Surroundings) -> Result<String, String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        done.push_str(before);
        let letter = behind.chars().next();
        done.push_str(match letter {
            Some('U') => &around.login,
            Some('H') => &around.host,
            Some('C') => &around.canonical,
            Some('M') => around.mailname.as_deref().ok_or("has a %M in it, and there is no /etc/mailname")?,
            _ => "%",
        });
        rest = if letter.is_some_and(|c| "UHCM".contains(c)) { &behind[1..] } else { behind };
    }
    Ok(done + rest)
}

/// An address is the account's own and chooses it. A pattern only chooses; where it is `*@domain`, the caller's name
/// there is the account's own, because msmtp's `*@domain` itself is nobody's address.
fn from(b: &mut Building, text: &str, around: &Surroundings) -> Result<(), String> {
    let account = &mut b.account;
    (account.from, account.senders, account.sender_from_header) = (None, Vec::new(), text == "%F");
    if text.is_empty() || text == "%F" {
        return Ok(());
    }
    if text.contains("%F") {
        return Err("%F stands for a whole address, and alone".to_owned());
    }
    let text = replaced(text, around)?;
    if !text.contains(['*', '?', '[']) {
        return put(&mut account.from, Some(address(&text)?));
    }
    account.senders = alternatives(&text)?;
    if let Some(domain) = text.strip_prefix("*@").filter(|domain| !domain.contains(['*', '?', '['])) {
        account.from = Some(address(&format!("{}@{domain}", around.login))?);
    }
    Ok(())
}

/// One address; a bare local name will get the domain.
fn address(text: &str) -> Result<String, String> {
    let address = parse_sender(text).map_err(|error| format!("{text:?} {error}"))?.ok_or("is empty")?;
    let domain = address.domain.as_deref().unwrap_or("localhost");
    address.to_mailbox(domain).map_err(|bad| format!("{text:?} {bad}"))?;
    Ok(text.to_owned())
}

/// Our patterns know `*` and `?`: those that one with `[abc]` and `[a-c]` in it stands for.
fn alternatives(pattern: &str) -> Result<Vec<String>, String> {
    const MOST: usize = 256;
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, behind)) = rest.split_once('[') {
        // A ] that comes first is one of the characters (fnmatch(3)).
        let end = behind.char_indices().skip(1).find(|&(_, c)| c == ']').map(|(end, _)| end);
        let (set, behind) = behind.split_at(end.ok_or("has a [ without its ]")?);
        if set.starts_with(['!', '^']) || set.contains('[') {
            return Err("only [abc] and [a-c] are known of brackets".to_owned());
        }
        let characters = characters(set)?;
        if done.len() * characters.len() > MOST {
            return Err(format!("stands for more than {MOST} patterns; use ? or *"));
        }
        let longer = |stem: &String| characters.iter().map(|c| format!("{stem}{before}{c}")).collect::<Vec<_>>();
        done = done.iter().flat_map(longer).collect();
        rest = &behind[1..];
    }
    for stem in &mut done {
        stem.push_str(rest);
    }
    done.iter().try_for_each(|pattern| notation::glob(pattern))?;
    Ok(done)
}

/// The characters of a bracket.
fn characters(set: &str) -> Result<Vec<char>, String> {
    let chars: Vec<char> = set.chars().collect();
    let (mut found, mut i) = (Vec::new(), 0);
    while let Some(&first) = chars.get(i) {
        match (chars.get(i + 1), chars.get(i + 2)) {
            (Some('-'), Some(&last)) if first <= last && (last as u32 - first as u32) < 128 => {
                found.extend(first..=last);
                i += 3;
            }
            (Some('-'), Some(_)) => return Err("has a range in brackets that has no end".to_owned()),
            _ => {
                found.push(first);
                i += 1;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_stand_for_patterns() {
        for (pattern, expected) in [
            ("*@x.org", Some(&["*@x.org"][..])),
            ("[ab]*@x", Some(&["a*@x", "b*@x"])),
            ("[a-c]@x", Some(&["a@x", "b@x", "c@x"])),
            ("[ab]@[xy]", Some(&["a@x", "a@y", "b@x", "b@y"])),
            ("[a-]@x", Some(&["a@x", "-@x"])),
            ("[!a]@x", None),
            ("[a@x", None),
            ("[c-a]@x", None),
            ("[a-z][a-z]@x", None),
        ] {
            assert_eq!(
                alternatives(pattern).ok().as_deref(),
                expected.map(|list| { list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>() }).as_deref(),
                "{pattern}"
            );
        }
    }
}
