//! Questions to the DNS that the system's resolver does not take: SRV, MX, TLSA, and whether an answer can be believed.
//!
//! The name servers of resolv.conf(5) are asked in turn, over UDP from a fresh port and with a random id; an answer
//! with another id or to another question is not ours and is waited past. A truncated one is asked for again over TCP.
//! A server that fails, or says nothing for its share of the time, is no more than a reason to ask the next. Aliases
//! are followed, but not for ever. Names that no host can have are dropped: the answers are strangers' text. Nothing is
//! remembered. An answer is proof only where a validating resolver says so (the AD bit) that is on this machine, or
//! that resolv.conf(5) calls trusted (`trust-ad`); else whoever is led to a server by it asks for its certificate. RFC
//! 1035, RFC 2782 (SRV), RFC 2308 (what is not there), RFC 4035 §3.2.3 and RFC 6840 §5.7 (AD), RFC 5452 §9 (forgery).

use super::super::Limits;
use super::super::interrupt::Interrupt;
use super::super::stream::Stream;
use super::race::{Lost, Race};
use super::{Service, Target};
use crate::outcome::{Cause, Fault, Stage};
use ring::rand::{SecureRandom, SystemRandom};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often each server is asked.
const ROUNDS: u32 = 3;
/// How long a server may take, where there is time for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// Aliases in a row.
const ALIASES: usize = 8;
/// Servers, as the C library has it.
const SERVERS: usize = 3;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    /// The way to the servers is safe, and they check signatures.
    trusted: bool,
}

/// What a name has of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    /// None where there is no such name or no such record.
    pub records: Vec<T>,
    /// The name behind all aliases.
    pub name: String,
    /// Whether there is such a name.
    pub exists: bool,
    /// Whether the answers can be believed, also one that there is nothing.
    pub secure: bool,
}

impl Resolver {
    /// The servers of `/etc/resolv.conf`; where it names none, the one on this machine.
    pub fn of_system() -> Self {
        let text = std::fs::read_to_string(Path::new("/etc/resolv.conf")).unwrap_or_default();
        let servers = servers(&text);
        let local = || vec![(Ipv4Addr::LOCALHOST, 53).into()];
        let trusted = text.lines().any(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next() == Some("options") && words.any(|word| word == "trust-ad")
        });
        Self { servers: if servers.is_empty() { local() } else { servers }, trusted }
    }

    /// These servers, on this machine or not.
    #[cfg(test)]
    pub fn asking(servers: Vec<SocketAddr>) -> Self {
        Self { servers, trusted: false }
    }

    /// The servers of `_service._tcp.domain`.
    pub fn service(
        &self,
        service: &str,
        domain: &str,
        limits: &Limits,
        interrupt: &Interrupt,
    ) -> Result<Service, Fault> {
        let name = format!("_{service}._tcp.{}", super::resolve::ascii(domain)?.trim_end_matches('.'));
        let read = |data: &RData<'_>| match data {
            RData::SRV(srv) => {
                let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
                Some(Srv { priority, weight, target: Target { name: srv.target.to_string(), port } })
            }
            _ => None,
        };
        let records = self.look_up(&name, TYPE::SRV, &read, limits, interrupt)?.records;
        if let [Srv { target, .. }] = &records[..]
            && target.name.is_empty()
        {
            return Ok(Service::NotOffered);
        }
        let usable = |record: &Srv| is_host(&record.target.name) && record.target.port != 0;
        let targets: Vec<_> = in_order(records.into_iter().filter(usable).collect());
        Ok(if targets.is_empty() { Service::Unknown } else { Service::At(targets) })
    }

    /// The records of that type which a name has, aliases followed.
    pub fn look_up<T>(
        &self,
        name: &str,
        kind: TYPE,
        read: &dyn Fn(&RData<'_>) -> Option<T>,
        limits: &Limits,
        interrupt: &Interrupt,
    ) -> Result<Found<T>, Fault> {
        let (mut name, mut secure) = (name.to_owned(), true);
        for _ in 0..=ALIASES {
            let found = self.ask_all(&name, kind, read, limits, interrupt)?;
            secure &= found.secure;
            if found.exists && found.records.is_empty() && !found.name.eq_ignore_ascii_case(&name) {
                // The server knows the alias and says nothing of what it stands for.
                name = found.name;
                continue;
            }
            return Ok(Found { secure, ..found });
        }
        Err(fault(Cause::Network(format!("cannot be looked up: {name} is an alias that leads nowhere"))))
    }

    /// Asks the servers in turn until one answers.
    fn ask_all<T>(
        &self,
        name: &str,
        kind: TYPE,
        read: &dyn Fn(&RData<'_>) -> Option<T>,
        limits: &Limits,
        interrupt: &Interrupt,
    ) -> Result<Found<T>, Fault> {
        let end = limits.until(Stage::Resolve);
        let asked = ROUNDS * u32::try_from(self.servers.len()).unwrap_or(1);
        let mut last = None;
        for (i, server) in (0..asked).zip(self.servers.iter().cycle()) {
            let left = end.saturating_duration_since(Instant::now());
            let until = Instant::now() + PATIENCE.min(left / (asked - i));
            match ask(*server, name, kind, read, until, interrupt) {
                Ok(found) => {
                    let secure = found.secure && (self.trusted || server.ip().is_loopback());
                    return Ok(Found { secure, ..found });
                }
                Err(_) if interrupt.is_tripped() => return Err(fault(Cause::Interrupted)),
                Err(why) => last = Some(why),
            }
        }
        let why = match last {
            None | Some(NoAnswer::Timeout) => {
                return Err(fault(Cause::Timeout(format!("no name server answered for {name}"))));
            }
            Some(NoAnswer::Said(word)) => format!("the name server said {word}"),
            Some(NoAnswer::Local(error)) => super::words(&error),
        };
        Err(fault(Cause::Network(format!("cannot be looked up: {name}: {why}"))))
    }
}

fn fault(cause: Cause) -> Fault {
    Fault::new(Stage::Resolve, cause)
}

/// The `nameserver` lines of resolv.conf(5).
fn servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (key, value) = (words.next()?, words.next()?);
        // A scope (`%eth0`) needs the system to read it.
        let address = value.parse::<IpAddr>().ok().filter(|_| key == "nameserver")?;
        Some(SocketAddr::new(address, 53))
    };
    text.lines().filter_map(address).take(SERVERS).collect()
}

/// A record of a service.
#[derive(Clone, Debug)]
struct Srv {
    priority: u16,
    weight: u16,
    target: Target,
}

/// By priority, and among equals by lot, in which each has as many tickets as its weight (RFC 2782).
fn in_order(mut records: Vec<Srv>) -> Vec<Target> {
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut targets = Vec::new();
    while let Some(first) = records.first() {
        let equals = records.iter().take_while(|record| record.priority == first.priority);
        let mut tickets: Vec<u32> = equals.map(|record| record.weight.into()).collect();
        // Who has no weight is first in line and keeps a small chance.
        for i in 1..tickets.len() {
            tickets[i] += tickets[i - 1];
        }
        let drawn = tickets.last().map_or(0, |&all| random() % (all + 1));
        let place = tickets.iter().position(|&upto| drawn <= upto).unwrap_or_default();
        targets.push(records.remove(place).target);
    }
    targets
}

pub(super) fn random() -> u32 {
    let mut octets = [0; 4];
    // Where the system has no randomness we have no TLS either, and nothing is lost by a number that can be guessed.
    let _ = SystemRandom::new().fill(&mut octets);
    u32::from_be_bytes(octets)
}

/// Whether a name can be a host's.
pub(super) fn is_host(name: &str) -> bool {
    let part = |part: &str| {
        (1..=63).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.len() <= 253 && name.split('.').all(part) && name.parse::<IpAddr>().is_err()
}

/// Why there is no answer.
enum NoAnswer {
    Timeout,
    Said(&'static str),
    Local(io::Error),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Timeout } else { Self::Local(error) }
    }
}

/// Asks one server.
fn ask<T>(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    read: &dyn Fn(&RData<'_>) -> Option<T>,
    until: Instant,
    interrupt: &Interrupt,
) -> Result<Found<T>, NoAnswer> {
    let unspeakable = |_| NoAnswer::Said("nothing, for it cannot be asked for such a name");
    let id = u16::try_from(random() >> 16).unwrap_or_default();
    let mut query = Packet::new_query(id);
    // The second: we want to know whether the answer was checked.
    query.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::AUTHENTIC_DATA);
    let question = Name::new(name).map_err(unspeakable)?;
    query.questions.push(Question::new(question, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    let query = query.build_bytes_vec().map_err(unspeakable)?;

    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // Connected, it hears that server alone.
    socket.connect(&server.into())?;
    let mut stream = Stream::new(socket, interrupt);
    stream.write_all(&query, until, &mut |_| ControlFlow::Continue(()))?;
    let mut octets = vec![0; 4096];
    loop {
        let read_octets = stream.read(&mut octets, until)?;
        let datagram = &mut octets[..read_octets];
        if !is_ours(datagram, &query) {
            continue;
        }
        if datagram[2] & 0x02 == 0 {
            return meaning(legible(datagram, query.len()), name, read);
        }
        let mut whole = ask_tcp(server, &query, until, interrupt)?;
        if !is_ours(&whole, &query) {
            return Err(NoAnswer::Said("something else than it was asked"));
        }
        return meaning(legible(&mut whole, query.len()), name, read);
    }
}

/// The whole answer, where it is too large for a datagram.
fn ask_tcp(server: SocketAddr, query: &[u8], until: Instant, interrupt: &Interrupt) -> Result<Vec<u8>, NoAnswer> {
    let race = Race { addresses: vec![SockAddr::from(server)], source: None, until };
    let mut stream = race.run(interrupt).map_err(|lost| match lost {
        Lost::Refused(refusals) => refusals.into_iter().next().map_or(NoAnswer::Timeout, |(_, error)| error.into()),
        Lost::Source(..) | Lost::Interrupted => NoAnswer::Timeout,
    })?;
    let length = u16::try_from(query.len()).unwrap_or_default().to_be_bytes();
    stream.write_all(&[&length[..], query].concat(), until, &mut |_| ControlFlow::Break(()))?;
    let mut length = [0; 2];
    read_exact(&mut stream, &mut length, until)?;
    let mut whole = vec![0; u16::from_be_bytes(length).into()];
    read_exact(&mut stream, &mut whole, until)?;
    Ok(whole)
}

fn read_exact(stream: &mut Stream, into: &mut [u8], until: Instant) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        done += stream.read(&mut into[done..], until)?;
    }
    Ok(())
}

/// Whether a message answers the query: the same id and question, and marked as a response. The question's name may
/// come back in other letters' case.
fn is_ours(message: &[u8], query: &[u8]) -> bool {
    let question = |octets: &[u8]| octets.get(12..query.len()).map(<[u8]>::to_ascii_lowercase);
    message.len() >= query.len()
        && message[..2] == query[..2]
        && message[2] & 0x80 != 0
        && message[4..6] == query[4..6]
        && question(message) == question(query)
}

/// The library writes a question of any type, and reads none of a type that it does not know. We know what it was.
fn legible(message: &mut [u8], question_end: usize) -> &[u8] {
    const TXT: [u8; 2] = [0, 16];
    if let Some(kind) = message.get_mut(question_end - 4..question_end - 2) {
        kind.copy_from_slice(&TXT);
    }
    message
}

/// What an answer comes to.
fn meaning<T>(message: &[u8], name: &str, read: &dyn Fn(&RData<'_>) -> Option<T>) -> Result<Found<T>, NoAnswer> {
    let packet = Packet::parse(message).map_err(|_| NoAnswer::Said("something that is no answer"))?;
    let secure = packet.has_flags(PacketFlag::AUTHENTIC_DATA);
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Found { records: Vec::new(), name: name.to_owned(), exists: false, secure }),
        RCODE::ServerFailure => return Err(NoAnswer::Said("SERVFAIL")),
        RCODE::Refused => return Err(NoAnswer::Said("REFUSED")),
        RCODE::FormatError => return Err(NoAnswer::Said("FORMERR")),
        RCODE::NotImplemented => return Err(NoAnswer::Said("NOTIMP")),
        _ => return Err(NoAnswer::Said("an error that we do not know")),
    }
    let mut name = name.to_owned();
    for _ in 0..=ALIASES {
        let own: Vec<_> =
            packet.answers.iter().filter(|one| one.name.to_string().eq_ignore_ascii_case(&name)).collect();
        let records: Vec<T> = own.iter().filter_map(|one| read(&one.rdata)).collect();
        let alias = own.iter().find_map(|one| match &one.rdata {
            RData::CNAME(other) => Some(other.to_string()),
            _ => None,
        });
        match alias {
            Some(other) if records.is_empty() => name = other,
            _ => return Ok(Found { records, name, exists: true, secure }),
        }
    }
    Err(NoAnswer::Said("that it is an alias of itself"))
}

#[cfg(test)]
mod tests;
