//! The way through a SOCKS5 proxy, which looks the name up and connects for us.
//!
//! Nothing is read beyond the proxy's answers: what comes behind them is the server's. The proxy's answers are of known
//! length, and there is one limit for all of them together. A login that the proxy refuses is a fault of our settings;
//! so is one that it demands and that is not there. Each code of RFC 1928 §6 is a sentence with the relay as its
//! subject. RFC 1928, RFC 1929.

use super::super::stream::Stream;
use super::{resolve, unreachable, words};
use crate::config::Proxy;
use crate::outcome::{Cause, Fault, Stage};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Instant;
use zeroize::Zeroizing;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;

/// The fault of reaching the proxy, as one of reaching the relay.
pub(super) fn at(proxy: &Proxy, fault: Fault) -> Fault {
    let told = |text: &str| text.replacen("cannot be reached", &format!("{} cannot be reached", name(proxy)), 1);
    let cause = match fault.cause {
        Cause::Network(text) => Cause::Network(told(&text)),
        Cause::Timeout(text) => Cause::Timeout(format!("{} {text}", name(proxy))),
        other => other,
    };
    Fault::new(fault.stage, cause)
}

/// Has the proxy at the other end of `stream` connect to a host.
pub(super) fn tunnel(stream: &mut Stream, proxy: &Proxy, host: &str, port: u16, until: Instant) -> Result<(), Fault> {
    let mut wire = Wire { stream, proxy, until };
    let methods: &[u8] = if proxy.login.is_some() { &[NO_LOGIN, LOGIN] } else { &[NO_LOGIN] };
    wire.say(&[&[VERSION, if proxy.login.is_some() { 2 } else { 1 }], methods].concat())?;
    let [version, method] = wire.hear()?;
    wire.is_socks(version)?;
    match (method, &proxy.login) {
        (NO_LOGIN, _) => {}
        (LOGIN, Some((user, password))) => wire.log_in(user, password)?,
        (LOGIN | NO_METHOD, None) => return Err(ours(proxy, "wants a user and a password")),
        (NO_METHOD, Some(_)) => return Err(ours(proxy, "takes neither our user and password nor nobody")),
        (method, _) => return Err(wire.breach(&format!("chose the login method {method}, which was not offered"))),
    }
    wire.say(&request(host, port)?)?;
    let [version, code, _, kind] = wire.hear()?;
    wire.is_socks(version)?;
    if code != 0 {
        return Err(refusal(proxy, host, code));
    }
    // The address that the proxy connects from, which nobody needs, and its port.
    match kind {
        1 => wire.hear::<6>().map(drop)?,
        4 => wire.hear::<18>().map(drop)?,
        3 => {
            let [length] = wire.hear()?;
            wire.hear_into(&mut vec![0; usize::from(length) + 2])?;
        }
        kind => return Err(wire.breach(&format!("gave an address of the unknown kind {kind}"))),
    }
    stream.goes_further();
    Ok(())
}

/// CONNECT to an address or a name; the name is the proxy's to look up.
fn request(host: &str, port: u16) -> Result<Vec<u8>, Fault> {
    let mut octets = vec![VERSION, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            octets.push(1);
            octets.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            octets.push(4);
            octets.extend(address.octets());
        }
        Err(_) => {
            let name = resolve::ascii(host)?;
            let length = u8::try_from(name.len()).map_err(|_| resolve::impossible(host))?;
            octets.extend([3, length]);
            octets.extend(name.as_bytes());
        }
    }
    octets.extend(port.to_be_bytes());
    Ok(octets)
}

fn refusal(proxy: &Proxy, host: &str, code: u8) -> Fault {
    let why = match code {
        1 => "it failed, and does not say why",
        2 => "its rules forbid it",
        3 => "the network is unreachable from there",
        4 => "the host is unreachable from there, or has no such name",
        5 => "connection refused",
        6 => "the way is too long (TTL expired)",
        7 => "it makes no connections",
        8 => "it does not know this kind of address",
        _ => return unreachable(&format!("{} said no with the unknown code {code}", name(proxy))),
    };
    unreachable(&format!("{} cannot connect to {host}: {why}", name(proxy)))
}

fn ours(proxy: &Proxy, what: &str) -> Fault {
    Fault::new(Stage::Local, Cause::Local(format!("{} {what}", name(proxy))))
}

fn name(proxy: &Proxy) -> String {
    let Proxy { host, port, .. } = proxy;
    if host.contains(':') { format!("the proxy [{host}]:{port}") } else { format!("the proxy {host}:{port}") }
}

/// The dialogue, within its limit.
struct Wire<'a> {
    stream: &'a mut Stream,
    proxy: &'a Proxy,
    until: Instant,
}

impl Wire<'_> {
    fn log_in(&mut self, user: &str, password: &str) -> Result<(), Fault> {
        let mut octets = Zeroizing::new(Vec::with_capacity(3 + user.len() + password.len()));
        octets.push(1);
        for part in [user, password] {
            // The settings have seen to it that each has 1 to 255 octets.
            let length = u8::try_from(part.len()).map_err(|_| ours(self.proxy, "cannot be told so long a password"))?;
            octets.push(length);
            octets.extend_from_slice(part.as_bytes());
        }
        self.say(&octets)?;
        // Some answer with SOCKS's version in the place of the login's.
        match self.hear()? {
            [1 | VERSION, 0] => Ok(()),
            [1 | VERSION, _] => Err(ours(self.proxy, "refuses the user and the password")),
            _ => Err(self.breach("answered the login with something else")),
        }
    }

    fn say(&mut self, octets: &[u8]) -> Result<(), Fault> {
        let sent = self.stream.write_all(octets, self.until, &mut |_| ControlFlow::Break(()));
        sent.map_err(|error| self.failure(&error))
    }

    fn hear<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut octets = [0; N];
        self.hear_into(&mut octets)?;
        Ok(octets)
    }

    fn hear_into(&mut self, octets: &mut [u8]) -> Result<(), Fault> {
        let mut heard = 0;
        while heard < octets.len() {
            heard += self.stream.read(&mut octets[heard..], self.until).map_err(|error| self.failure(&error))?;
        }
        Ok(())
    }

    fn is_socks(&self, version: u8) -> Result<(), Fault> {
        if version == VERSION { Ok(()) } else { Err(self.breach("answered with something that is not SOCKS5")) }
    }

    fn breach(&self, what: &str) -> Fault {
        Fault::new(Stage::Connect, Cause::Protocol(format!("cannot be reached: {} {what}", name(self.proxy))))
    }

    fn failure(&self, error: &io::Error) -> Fault {
        let proxy = name(self.proxy);
        match error.kind() {
            io::ErrorKind::TimedOut => Fault::new(
                Stage::Connect,
                Cause::Timeout(format!("cannot be reached: {proxy} has not connected in time")),
            ),
            io::ErrorKind::UnexpectedEof => unreachable(&format!("{proxy} closed the connection")),
            _ => unreachable(&format!("{proxy}: {}", words(error))),
        }
    }
}
