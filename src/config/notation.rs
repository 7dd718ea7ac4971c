//! The notations that every format shares: hosts, proxies, durations, fingerprints, globs, `~`.
//!
//! Pure: text in, a value or what is wrong with it out. The sentence of an error is made to stand behind the name
//! of a key.

use super::{Host, Proxy};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Longer than any setting makes sense for, and short enough to be added to every clock.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// A host as it is written; the port is for `port` or the TLS policy to say where the host does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A name or an address, perhaps with a port of its own.
    Tcp(String, Option<u16>),
    /// The path of a socket.
    Unix(PathBuf),
    /// The domain whose SRV records are asked for.
    Srv(String),
    /// Those of each recipient's domain.
    Mx,
}

impl Written {
    /// With its port.
    pub fn with_port(self, default: u16) -> Host {
        match self {
            Self::Tcp(name, port) => Host::Tcp { name, port: port.unwrap_or(default) },
            Self::Unix(path) => Host::Unix(path),
            Self::Srv(domain) => Host::Srv(domain),
            Self::Mx => Host::Mx(default),
        }
    }
}

/// `name`, `name:port`, `[v6]`, `[v6]:port`, `v6`, `unix:/path`, `/path`, `srv:domain`, `mx`.
pub(super) fn host(text: &str, home: Option<&Path>) -> Result<Written, String> {
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
        return expand(path, home).map(Written::Unix);
    }
    let srv = text.strip_prefix("srv:");
    if (srv.is_some() || text == "mx") && !cfg!(feature = "dns") {
        return Err(format!("\"{text}\" asks the DNS, and this program was built without that (feature \"dns\")"));
    }
    if text == "mx" {
        return Ok(Written::Mx);
    }
    if let Some(domain) = srv {
        self::domain(domain)?;
        let odd = domain.contains([':', '[', ']', '%']) || domain.parse::<core::net::IpAddr>().is_ok();
        return if odd { Err(format!("\"{domain}\" is no domain")) } else { Ok(Written::Srv(domain.to_owned())) };
    }
    if text.contains("://") {
        return Err("is a URL; write the host alone, and the rest as port, tls, user and password".to_owned());
    }
    if text.contains('@') {
        // What stands before it may be a password, and is not repeated.
        return Err("has an @ in it; write the host alone, and the rest as user and password".to_owned());
    }
    let (name, port) = name_and_port(text)?;
    Ok(Written::Tcp(name.to_owned(), port))
}

fn name_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, None),
        Some((name, rest)) => (name, Some(rest.strip_prefix(':').ok_or("has something behind the ]")?)),
        None => match text.split_once(':') {
            // More than one colon and no brackets: an IPv6 address without a port.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.contains(':') && name.split('%').next().is_none_or(|ip| ip.parse::<core::net::Ipv6Addr>().is_err()) {
        return Err(format!("\"{name}\" is no IPv6 address"));
    }
    domain(name)?;
    Ok((name, port.map(self::port).transpose()?))
}

/// `socks5://[USER:PASSWORD@]HOST[:PORT]`, user and password percent-encoded. `socks5h` is curl's word for the same.
pub(super) fn proxy(text: &str) -> Result<Proxy, String> {
    let Some((_, rest)) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "socks5" | "socks5h")) else {
        return Err("is no URL of a SOCKS5 proxy".to_owned());
    };
    let (credentials, host) = rest.rsplit_once('@').map_or((None, rest), |(before, host)| (Some(before), host));
    let (name, port) =
        name_and_port(host.strip_suffix('/').unwrap_or(host)).map_err(|why| format!("the host {why}"))?;
    let login = credentials.map(|credentials| {
        let (user, password) = credentials.split_once(':').ok_or("has a user without a password")?;
        let user = decode(user).map_err(|wrong| format!("the user {wrong}"))?;
        let password = decode(password).map_err(|wrong| format!("the password {wrong}"))?;
        if [&user, &password].iter().any(|text| text.is_empty() || text.len() > 255) {
            return Err("the user and the password have 1 to 255 octets".to_owned());
        }
        Ok((user.to_string(), password))
    });
    Ok(Proxy { host: name.to_owned(), port: port.unwrap_or(1080), login: login.transpose()? })
}

/// RFC 3986 §2.1. What cannot stand in a user or a password is refused as well.
pub(super) fn decode(text: &str) -> Result<Zeroizing<String>, String> {
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let digit = |octet: Option<u8>| octet.and_then(|octet| char::from(octet).to_digit(16));
        let value =
            digit(rest.next()).zip(digit(rest.next())).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        octets.push(value.ok_or("has a % without two hexadecimal digits behind it; write % as %25")?);
    }
    let text = std::str::from_utf8(&octets).map_err(|_| "is not UTF-8 when its percent signs are decoded")?;
    if text.contains(['\0', '\r', '\n']) {
        return Err("has a control character in it".to_owned());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// 1 to 65535.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port != 0).ok_or_else(|| format!("\"{text}\" is no port: 1 to 65535"))
}

/// A name that can be looked up, or an address.
pub(super) fn domain(name: &str) -> Result<(), String> {
    let odd = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-._:[]%".contains(c);
    match name.chars().find(|&c| odd(c) || c.is_control() || c.is_whitespace()) {
        Some(c) => Err(format!("has a {c:?} in it, which no host has")),
        None if name.is_empty() => Err("is empty".to_owned()),
        None => Ok(()),
    }
}

/// A number and its unit, `K`, `M` or `G`: octets, by powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim() {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "" if !number.is_empty() => return Err(format!("\"{text}\" lacks its unit")),
        _ => return Err(format!("\"{text}\" is no size")),
    };
    let octets = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    octets.ok_or_else(|| format!("\"{text}\" is no size"))
}

/// An address and port that only this machine reaches.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("\"{text}\" is no address and port"))?;
    if address.ip().to_canonical().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{} can be reached from elsewhere, and this program takes no mail from the network", address.ip()))
    }
}

/// A number and its unit: `s`, `m`, `h` or `d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "" if !number.is_empty() => return Err(format!("\"{text}\" lacks its unit")),
        _ => return Err(format!("\"{text}\" is no duration")),
    };
    let number: u64 = number.parse().map_err(|_| format!("\"{text}\" is no duration"))?;
    let long = number.checked_mul(seconds).map(Duration::from_secs);
    long.filter(|long| *long <= LONGEST).ok_or_else(|| format!("\"{text}\" is more than ten years"))
}

/// A SHA-256 fingerprint: hexadecimal, with or without colons, or base64; `sha256:` before it may be left out.
pub(super) fn pin(text: &str) -> Result<[u8; 32], String> {
    let bare = match text.split_once(':') {
        Some((digest, rest)) if digest.eq_ignore_ascii_case("sha256") => rest,
        Some((digest, _)) if digest.len() > 2 => return Err(format!("\"{digest}\" is no digest that is known here")),
        _ => text,
    }
    .trim();
    let hex: String = bare.chars().filter(|&c| c != ':').collect();
    let bytes = if !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()) && hex.len().is_multiple_of(2) {
        (0..hex.len()).step_by(2).filter_map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
    } else {
        let base64 = STANDARD.decode(bare).or_else(|_| STANDARD_NO_PAD.decode(bare));
        base64.map_err(|_| "is neither hexadecimal nor base64".to_owned())?
    };
    let octets = bytes.len();
    bytes.try_into().map_err(|_| match octets {
        16 => "is an MD5 fingerprint, which anybody can forge".to_owned(),
        20 => "is a SHA-1 fingerprint, which can be forged".to_owned(),
        _ => format!("has {octets} octets; SHA-256 has 32"),
    })
}

/// A path; `~` and `~/…` begin at the home of the caller.
pub(super) fn expand(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("is no path".to_owned());
    }
    match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = home.ok_or("begins with ~, and there is no home directory")?;
            Ok(home.join(rest.trim_start_matches('/')))
        }
        Some(_) => Err("begins with the home of another user; write its whole path".to_owned()),
        None => Ok(PathBuf::from(text)),
    }
}

/// A path that means the same wherever we are called from.
pub(super) fn absolute(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = expand(text, home)?;
    if path.is_absolute() { Ok(path) } else { Err(format!("\"{text}\" is not absolute: begin it with / or ~/")) }
}

/// An address, or a pattern with `*` and `?` for addresses.
pub(super) fn glob(text: &str) -> Result<(), String> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err("an address or pattern cannot be empty or have a space in it".to_owned());
    }
    if text.contains(['@', '*']) { Ok(()) } else { Err(format!("\"{text}\" has no @; for a domain write *@{text}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_every_form() {
        let tcp = |name: &str, port| Ok(Written::Tcp(name.to_owned(), port));
        for (text, expected) in [
            ("smtp.example.com", tcp("smtp.example.com", None)),
            ("smtp.example.com:2525", tcp("smtp.example.com", Some(2525))),
            ("[2001:db8::1]:25", tcp("2001:db8::1", Some(25))),
            ("[2001:db8::1]", tcp("2001:db8::1", None)),
            ("2001:db8::1", tcp("2001:db8::1", None)),
            ("bücher.example", tcp("bücher.example", None)),
            ("unix:/run/x.sock", Ok(Written::Unix("/run/x.sock".into()))),
            ("/run/x.sock", Ok(Written::Unix("/run/x.sock".into()))),
            ("unix:~/x.sock", Ok(Written::Unix("/home/a/x.sock".into()))),
        ] {
            assert_eq!(host(text, Some(Path::new("/home/a"))), expected, "{text}");
        }
        for bad in
            ["", "a b", "a:", "a:0", "a:99999", "smtp://a", "[::1", "[::1]x", "g::h", "srv:", "srv:a:1", "a/b", "~"]
        {
            assert!(host(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_dns_has_to_tell_is_a_host_where_it_can_be_asked() {
        let read = host("srv:example.com", None);
        let expected = Written::Srv("example.com".to_owned());
        assert!(if cfg!(feature = "dns") { read == Ok(expected) } else { read.unwrap_err().contains("\"dns\"") });
        for bad in ["srv:", "srv:a:1", "srv:127.0.0.1", "srv:[::1]", "srv:a b"] {
            assert!(host(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_a_url() {
        let login = |user: &str, password: &str| Some((user.to_owned(), Zeroizing::new(password.to_owned())));
        for (text, host, port, who) in [
            ("socks5://p", "p", 1080, None),
            ("socks5h://[::1]:9050/", "::1", 9050, None),
            ("socks5://u:p%40%3a@q:1", "q", 1, login("u", "p@:")),
            ("socks5://a@b:c:d@q", "q", 1080, login("a@b", "c:d")),
        ] {
            assert_eq!(proxy(text), Ok(Proxy { host: host.to_owned(), port, login: who }), "{text}");
        }
        let long = format!("socks5://u:{}@p", "x".repeat(256));
        for bad in
            ["", "p", "http://p", "socks4://p", "socks5://", "socks5://u@p", "socks5://u:@p", "socks5://p:0", &long]
        {
            assert!(proxy(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", proxy("socks5://u:s3cret@p")).contains("s3cret"));
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, seconds) in [
            ("4s", Some(4)),
            ("5m", Some(300)),
            ("2h", Some(7200)),
            ("5d", Some(432_000)),
            ("4 s", Some(4)),
            ("0s", Some(0)),
        ] {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
        for bad in ["", "4", "s", "-4s", "4.5s", "4w", "99999999999999999999s", "18446744073709551615d", "5000d", "4ss"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprints_are_read_in_every_form() {
        let hex = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        let base64 = STANDARD.encode([0xab; 32]);
        for text in [
            hex.clone(),
            format!("sha256:{hex}"),
            format!("SHA256:{colons}"),
            colons,
            base64.clone(),
            format!("sha256:{base64}"),
        ] {
            assert_eq!(pin(&text), Ok([0xab; 32]), "{text}");
        }
        for bad in ["", "sha256:", "sha1:abcd", &"ab".repeat(20), &"ab".repeat(16), "sha256:zz", "ä"] {
            assert!(pin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_tilde_is_the_callers_home_and_nobody_elses() {
        let home = Some(Path::new("/home/a"));
        assert_eq!(expand("~/x", home), Ok("/home/a/x".into()));
        assert_eq!(expand("~", home), Ok("/home/a".into()));
        assert!(expand("~bob/x", home).is_err());
        assert!(expand("~/x", None).is_err());
        assert!(absolute("x/y", home).is_err());
    }
}
