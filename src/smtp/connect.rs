//! From a host to a connected stream: names to addresses, then each address in turn.
//!
//! The system's resolver cannot be told to stop, so it runs in a thread of its own that we stop waiting for.
//! Address literals and `localhost` (RFC 6761 §6.3) need no resolver and no thread. Each address gets its share
//! of the time that is left, so that one that swallows packets does not use up the others' chance.
//! RFC 5321 §5.1 (all addresses are tried).

use super::Limits;
use super::interrupt::{Ending, Interrupt};
use super::stream::{Stream, wait};
use crate::config::Host;
use crate::outcome::{Cause, Fault, Stage};
use nix::poll::PollFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Connects to `host`. `others` are the hosts that come after it and want some of the time too.
pub fn connect(host: &Host, others: usize, limits: &Limits, interrupt: &Interrupt) -> Result<Stream, Fault> {
    let addresses = match host {
        Host::Unix(path) => vec![SockAddr::unix(path).map_err(|error| unreachable(&words(&error)))?],
        Host::Srv(_) | Host::Mx(_) => return Err(unreachable("that is no address")),
        Host::Tcp { name, port } => resolve(name, *port, limits, interrupt)?.into_iter().map(SockAddr::from).collect(),
    };
    let mut refusals: Vec<String> = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        let left = limits.total.saturating_duration_since(Instant::now());
        let candidates = u32::try_from(addresses.len() - i + others).unwrap_or(u32::MAX);
        let until = limits.until(Stage::Connect).min(Instant::now() + left / candidates);
        match reach(address, until, interrupt) {
            Ok(stream) => return Ok(stream),
            Err(_) if interrupt.is_tripped() => return Err(Fault::new(Stage::Connect, Cause::Interrupted)),
            Err(error) if addresses.len() == 1 && error.kind() == io::ErrorKind::TimedOut => {
                return Err(Fault::new(
                    Stage::Connect,
                    Cause::Timeout("did not answer the connection request".to_owned()),
                ));
            }
            Err(error) if addresses.len() == 1 => return Err(unreachable(&words(&error))),
            Err(error) => refusals.push(match address.as_socket() {
                Some(address) => format!("{}: {}", address.ip(), words(&error)),
                None => words(&error),
            }),
        }
    }
    Err(unreachable(&refusals.join("; ")))
}

/// The system's words for an error, without its number.
pub(super) fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "no answer".to_owned();
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn unreachable(why: &str) -> Fault {
    Fault::new(Stage::Connect, Cause::Network(format!("cannot be reached: {why}")))
}

fn reach(address: &SockAddr, until: Instant, interrupt: &Interrupt) -> io::Result<Stream> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    let begun = match socket.connect(address) {
        // A UNIX socket whose queue is full says EAGAIN and does not connect later.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => false,
        begun => begun.map(|()| true)?,
    };
    let stream = Stream::new(socket, interrupt);
    if !begun {
        wait(stream.socket(), PollFlags::POLLOUT, until)?;
        if let Some(error) = stream.socket().take_error()? {
            return Err(error);
        }
    }
    if interrupt.is_tripped() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(stream) }
}

fn resolve(name: &str, port: u16, limits: &Limits, interrupt: &Interrupt) -> Result<Vec<SocketAddr>, Fault> {
    let fault = |cause| Fault::new(Stage::Resolve, cause);
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    // An underscore is no host name's, but names that carry one exist; only what IDNA must convert goes through it.
    let ascii = if name.is_ascii() { Ok(name.to_owned()) } else { idna::domain_to_ascii(name) };
    let ascii = ascii.map_err(|_| fault(Cause::NoSuchHost(format!("{name} is not a name that can exist"))))?;

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

/// The standard library keeps the resolver's words (those of `gai_strerror(3)` in the C locale) but not its code. What is
/// not one of the known ways to say "there is no such name" is a fault of the resolver, and temporary.
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
            let found = resolve(name, 25, &limits, &Interrupt::default()).unwrap();
            assert_eq!(found[0].to_string(), first);
        }
    }

    #[test]
    fn all_addresses_of_a_host_are_tried() {
        let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
        let host = Host::Tcp { name: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
        let limits = Limits { step: Duration::from_secs(20), total: Instant::now() + Duration::from_secs(20) };
        assert!(connect(&host, 0, &limits, &Interrupt::default()).is_ok());
    }

    #[test]
    fn a_connection_that_is_refused_says_so() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = Host::Tcp { name: "127.0.0.1".to_owned(), port };
        let limits = Limits { step: Duration::from_secs(20), total: Instant::now() + Duration::from_secs(20) };
        let fault = connect(&host, 0, &limits, &Interrupt::default()).err().unwrap();
        assert_eq!(fault.to_string(), "cannot be reached: Connection refused");
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_name() {
        let interrupt = Interrupt::default();
        interrupt.trip();
        let limits = Limits { step: Duration::from_mins(1), total: Instant::now() + Duration::from_mins(1) };
        let fault = resolve("relay.invalid", 25, &limits, &interrupt).unwrap_err();
        assert_eq!(fault.cause, Cause::Interrupted);
    }
}
