//! From a host to a connected stream: names to addresses, a race between them, and a proxy where one is set.
//!
//! [`resolve`] asks the system for the addresses, [`race`] tries them, [`socks`] talks to the proxy. A host
//! gets its share of the time that is left, so that one that swallows packets does not use up the others' chance. A
//! UNIX socket is this machine's, and no proxy stands before it. Where a domain has its servers is asked of the DNS in
//! [`dns`] and [`mx`], a Cargo feature.
//! RFC 5321 §5.1 (all addresses are tried), RFC 8305 (at once), RFC 1928 and 1929 (SOCKS5).

#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "dns")]
mod mx;
mod race;
mod resolve;
mod socks;

use super::Limits;
use super::interrupt::Interrupt;
use super::stream::Stream;
use super::tls::Tlsa;
use crate::config::{Account, Host};
use crate::outcome::{Cause, Fault, Stage};
use race::Race;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Connects to one of an account's hosts. `others` are the hosts that come after it and want some of the time too.
pub fn connect(
    account: &Account,
    host: &Host,
    others: usize,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Stream, Fault> {
    connect_at(account, host, None, others, limits, interrupt)
}

/// The same, at these addresses where they are known already.
pub fn connect_at(
    account: &Account,
    host: &Host,
    known: Option<Vec<SocketAddr>>,
    others: usize,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Stream, Fault> {
    let (name, port) = match host {
        Host::Unix(path) => {
            let address = SockAddr::unix(path).map_err(|error| unreachable(&words(&error)))?;
            let until = share(limits, others);
            return Race { addresses: vec![address], source: None, until }.run(interrupt).map_err(fault);
        }
        Host::Tcp { name, port } => (name.as_str(), *port),
        // Whoever has asked the DNS has names to connect to.
        Host::Srv(_) | Host::Mx(_) => return Err(unreachable("it is no address")),
    };
    let (next, next_port) = account.proxy.as_ref().map_or((name, port), |proxy| (proxy.host.as_str(), proxy.port));
    let mut addresses = match known.filter(|_| account.proxy.is_none()) {
        Some(known) => known,
        None => resolve::addresses(next, next_port, limits, interrupt)?,
    };
    if let Some(source) = account.source_ip {
        addresses.retain(|address| address.is_ipv4() == source.is_ipv4());
        if addresses.is_empty() {
            let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(unreachable(&format!("{next} has no {family} address, which source_ip demands")));
        }
    }
    let addresses = addresses.into_iter().map(SockAddr::from).collect();
    let until = share(limits, others);
    let reached = Race { addresses, source: account.source_ip, until }.run(interrupt).map_err(fault);
    let Some(proxy) = &account.proxy else { return reached };
    let mut stream = reached.map_err(|fault| socks::at(proxy, fault))?;
    socks::tunnel(&mut stream, proxy, name, port, until).map_err(|fault| {
        if stream.is_interrupted() { Fault::new(Stage::Connect, Cause::Interrupted) } else { fault }
    })?;
    Ok(stream)
}

/// Connects to a UNIX socket, for those who speak by themselves. Where the queue before it is full, as before a service
/// that hangs, the system would wait for ever: this ends with `TimedOut`.
pub fn knock(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    socket.set_write_timeout(None)?;
    Ok(socket.into())
}

/// Each address of a host (or of the proxy before it) by itself, and how long it took to connect to it: for whoever
/// looks for what is wrong. All are tried at once.
pub fn survey(account: &Account, host: &Host, limits: &Limits, interrupt: &Interrupt) -> Result<Vec<Surveyed>, Fault> {
    let Host::Tcp { name, port } = host else { return Ok(Vec::new()) };
    let (name, port) = account.proxy.as_ref().map_or((name.as_str(), *port), |proxy| (proxy.host.as_str(), proxy.port));
    let addresses = resolve::addresses(name, port, limits, interrupt)?;
    let until = limits.until(Stage::Connect);
    let try_one = |address: SocketAddr| {
        let began = Instant::now();
        let source = account.source_ip.filter(|source| source.is_ipv4() == address.is_ipv4());
        let reached = Race { addresses: vec![address.into()], source, until }.run(interrupt);
        Surveyed { address, reached: reached.map(|_| began.elapsed()).map_err(fault) }
    };
    Ok(std::thread::scope(|scope| {
        let tried: Vec<_> = addresses.iter().map(|&address| scope.spawn(move || try_one(address))).collect();
        tried.into_iter().filter_map(|one| one.join().ok()).collect()
    }))
}

/// What became of a connection to one address.
#[derive(Debug)]
pub struct Surveyed {
    /// The address and the port.
    pub address: SocketAddr,
    /// How long it took.
    pub reached: Result<Duration, Fault>,
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, without the final dot.
    pub name: String,
    /// Where it listens.
    pub port: u16,
}

/// What the DNS has on a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Its servers, in the order in which to try them; at least one.
    At(Vec<Target>),
    /// The domain says that it does not offer it.
    NotOffered,
    /// Nothing is said about it.
    Unknown,
}

/// Where the mail of a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// To these servers, in the order in which to try them; at least one.
    To(Vec<Exchanger>),
    /// The domain says that it takes none.
    Nowhere,
    /// There is no such domain.
    Unknown,
}

/// A mail server as the DNS names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// Its name, without the final dot.
    pub name: String,
    /// Whose mail it takes.
    pub domain: String,
    /// It is the domain itself, which names none.
    pub implicit: bool,
    /// The DNS vouches for that (DNSSEC), and we may believe it.
    pub secure: bool,
}

/// What else the DNS has on a mail server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Where to connect, at least one address; `None` where the proxy is to find out.
    pub addresses: Option<Vec<SocketAddr>>,
    /// What it must show (DANE), of which none may be of a kind that we know; `None` where the DNS asks for nothing.
    pub tlsa: Option<Vec<Tlsa>>,
    /// The name that has those records, which its certificate carries.
    pub base: String,
}

/// Whoever can be asked what the DNS has.
pub trait Directory {
    /// What there is on `_service._tcp.domain`.
    fn service(&self, service: &str, domain: &str) -> Result<Service, Fault>;
    /// Where the mail of a domain goes.
    fn exchange(&self, domain: &str) -> Result<Exchange, Fault>;
    /// Where one of its servers is and what it must show. `others` are the
    /// servers that come after it; a proxy finds the addresses itself.
    fn locate(&self, exchanger: &Exchanger, port: u16, proxied: bool, others: usize) -> Result<Located, Fault>;
}

/// The DNS, as resolv.conf(5) says where to find it.
pub struct Dns<'a> {
    /// How long an answer may take.
    pub limits: Limits,
    /// Ends the wait for one.
    pub interrupt: &'a Interrupt,
}

#[cfg(feature = "dns")]
impl Directory for Dns<'_> {
    fn service(&self, service: &str, domain: &str) -> Result<Service, Fault> {
        dns::Resolver::of_system().service(service, domain, &self.limits, self.interrupt)
    }

    fn exchange(&self, domain: &str) -> Result<Exchange, Fault> {
        let resolver = &dns::Resolver::of_system();
        mx::Inquiry { resolver, limits: &self.limits, interrupt: self.interrupt }.exchange(domain)
    }

    fn locate(&self, exchanger: &Exchanger, port: u16, proxied: bool, others: usize) -> Result<Located, Fault> {
        let resolver = &dns::Resolver::of_system();
        let limits = &Limits { total: share(&self.limits, others), ..self.limits };
        mx::Inquiry { resolver, limits, interrupt: self.interrupt }.locate(exchanger, port, proxied)
    }
}

/// Nobody is asked.
#[cfg(not(feature = "dns"))]
impl Directory for Dns<'_> {
    fn service(&self, _: &str, _: &str) -> Result<Service, Fault> {
        Err(without_dns())
    }

    fn exchange(&self, _: &str) -> Result<Exchange, Fault> {
        Err(without_dns())
    }

    fn locate(&self, _: &Exchanger, _: u16, _: bool, _: usize) -> Result<Located, Fault> {
        Err(without_dns())
    }
}

#[cfg(not(feature = "dns"))]
fn without_dns() -> Fault {
    let text = "asks the DNS, and this program was built without that (feature \"dns\")";
    Fault::new(Stage::Local, Cause::Local(text.to_owned()))
}

/// There is nobody to write to.
pub fn no_such_domain() -> Cause {
    Cause::NoSuchDomain("does not exist: the DNS knows no such domain".to_owned())
}

/// When a host's time to be reached is up.
fn share(limits: &Limits, others: usize) -> Instant {
    let left = limits.total.saturating_duration_since(Instant::now());
    let hosts = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    limits.until(Stage::Connect).min(Instant::now() + left / hosts)
}

/// The system's words for an error, without its number.
pub(super) fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "no answer".to_owned();
    }
    crate::outcome::words(error)
}

fn unreachable(why: &str) -> Fault {
    Fault::new(Stage::Connect, Cause::Network(format!("cannot be reached: {why}")))
}

/// A lost race in words: each address with what became of it, where there were several.
fn fault(lost: race::Lost) -> Fault {
    let connect = |cause| Fault::new(Stage::Connect, cause);
    match lost {
        race::Lost::Interrupted => connect(Cause::Interrupted),
        race::Lost::Source(source, error) => {
            let text = format!("source_ip {source} cannot be used: {}", words(&error));
            Fault::new(Stage::Local, Cause::Local(text))
        }
        race::Lost::Refused(refusals) => match &refusals[..] {
            [(_, error)] if error.kind() == io::ErrorKind::TimedOut => {
                connect(Cause::Timeout("did not answer the connection request".to_owned()))
            }
            [(_, error)] => unreachable(&words(error)),
            _ => {
                let told = refusals.iter().map(|(address, error)| match address.as_socket() {
                    Some(address) => format!("{}: {}", address.ip(), words(error)),
                    None => words(error),
                });
                unreachable(&told.collect::<Vec<_>>().join("; "))
            }
        },
    }
}

#[cfg(test)]
mod tests;
