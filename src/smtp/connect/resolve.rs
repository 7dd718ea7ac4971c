//! Names to addresses, by the system's resolver.
//!
//! It cannot be told to stop, so it runs in a thread of its own that we stop waiting for. Address literals and
//! `localhost` (RFC 6761 §6.3) need no resolver and no thread.

use super::super::Limits;
use super::super::interrupt::{Ending, Interrupt};
use super::words;
use crate::outcome::{Cause, Fault, Stage};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The addresses of a host; at least one, in the order in which they are to be tried.
pub(super) fn addresses(
    name: &str,
    port: u16,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Vec<SocketAddr>, Fault> {
    let fault = |cause| Fault::new(Stage::Resolve, cause);
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let ascii = ascii(name)?;

    let (sender, receiver) = mpsc::channel();
    let stop = sender.clone();
    // The receiver may be gone by then; nobody is left to tell.
    let ending: Ending = std::sync::Arc::new(move || drop(stop.send(None)));
    interrupt.register(&ending);
    let look_up = move || drop(sender.send(Some((ascii.as_str(), port).to_socket_addrs().map(Vec::from_iter))));
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(look_up)
        .map_err(|error| fault(Cause::Local(format!("cannot start a thread to look up {name}: {}", words(&error)))))?;

    let left = limits.until(Stage::Resolve).saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    match receiver.recv_timeout(left) {
        Ok(Some(Ok(addresses))) if addresses.is_empty() => Err(fault(no_such_host(name))),
        Ok(Some(Ok(addresses))) => Ok(addresses),
        Ok(Some(Err(error))) => Err(fault(look_up_failed(name, &error))),
        Ok(None) => Err(fault(Cause::Interrupted)),
        Err(RecvTimeoutError::Timeout) => Err(fault(Cause::Timeout(format!("no name server answered for {name}")))),
        Err(RecvTimeoutError::Disconnected) => Err(fault(Cause::Network(format!("the look-up of {name} failed")))),
    }
}

/// The name as the DNS has it.
pub(super) fn ascii(name: &str) -> Result<String, Fault> {
    // An underscore is no host name's, but names that carry one exist; only what IDNA must convert goes through it.
    if name.is_ascii() { Ok(name.to_owned()) } else { idna::domain_to_ascii(name).map_err(|_| impossible(name)) }
}

/// The fault of a name that no host has.
pub(super) fn impossible(name: &str) -> Fault {
    Fault::new(Stage::Resolve, Cause::NoSuchHost(format!("{name} is not a name that can exist")))
}

/// The standard library keeps the resolver's words (those of `gai_strerror(3)` in the C locale) but not its code. What
/// is not one of the known ways to say "there is no such name" is a fault of the resolver, and temporary.
fn look_up_failed(name: &str, error: &io::Error) -> Cause {
    const NO_SUCH_NAME: [&str; 4] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname provided",
    ];
    let text = words(error);
    if NO_SUCH_NAME.iter().any(|known| text.contains(known)) {
        return no_such_host(name);
    }
    let text = text.rsplit(": ").next().unwrap_or_default();
    Cause::Network(format!("cannot be looked up: {text}"))
}

fn no_such_host(name: &str) -> Cause {
    Cause::NoSuchHost(format!("there is no host named {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_is_told_from_a_resolver_that_does_not_work() {
        let said = |text: &str| look_up_failed("x.invalid", &io::Error::other(text));
        let missing = "failed to lookup address information: Name or service not known";
        assert_eq!(said(missing), Cause::NoSuchHost("there is no host named x.invalid".to_owned()));
        let broken = "failed to lookup address information: Temporary failure in name resolution";
        assert_eq!(
            said(broken),
            Cause::Network("cannot be looked up: Temporary failure in name resolution".to_owned())
        );
    }

    #[test]
    fn literals_and_localhost_need_no_resolver() {
        let limits = Limits { step: Duration::ZERO, total: Instant::now() };
        for (name, first) in [("127.0.0.1", "127.0.0.1:25"), ("::1", "[::1]:25"), ("LocalHost.", "127.0.0.1:25")] {
            let found = addresses(name, 25, &limits, &Interrupt::default()).unwrap();
            assert_eq!(found[0].to_string(), first);
        }
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_name() {
        let interrupt = Interrupt::default();
        interrupt.trip();
        let limits = Limits { step: Duration::from_mins(1), total: Instant::now() + Duration::from_mins(1) };
        let fault = addresses("relay.invalid", 25, &limits, &interrupt).unwrap_err();
        assert_eq!(fault.cause, Cause::Interrupted);
    }
}
