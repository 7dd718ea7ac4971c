//! Where the mail of a domain goes, and what the DNS says of each server: its addresses and its TLSA records.
//!
//! The servers come in the order of preference, equal ones shuffled; a domain without any is
//! its own. How many are tried, and at how many addresses, is bounded, whatever the DNS says.
//! That there is no domain, or nobody to take its mail, is final for the recipient; that
//! nobody can say is not. Names are the DNS's alone: hosts(5) is about this machine's network.
//!
//! TLSA records count only where the whole way to them can be believed, the domain's MX and the host's addresses
//! included. Where it can and they cannot be had, the host cannot be used: else whoever can suppress an answer could
//! suppress TLS. RFC 5321 §5.1, RFC 7505 (null MX), RFC 7672 §2.2 (DANE).

use super::dns::{Found, Resolver, is_host, random};
use super::{Exchange, Exchanger, Located, resolve};
use crate::outcome::{Cause, Fault, Stage};
use crate::smtp::Limits;
use crate::smtp::interrupt::Interrupt;
use crate::smtp::tls::Tlsa;
use simple_dns::TYPE;
use simple_dns::rdata::RData;
use std::net::{IpAddr, SocketAddr};

/// Servers of a domain, and addresses of each family of a server, that are tried.
const HOSTS: usize = 10;
const ADDRESSES: usize = 8;

/// "TLSA" (RFC 6698 §7.1).
const TLSA: TYPE = TYPE::Unknown(52);

/// Names by preference, equal ones shuffled; not all of a multitude.
fn in_order(mut records: Vec<(u16, String)>) -> Vec<String> {
    records.retain(|(_, name)| is_host(name));
    records.sort_by_cached_key(|&(preference, _)| (preference, random()));
    records.truncate(HOSTS);
    records.into_iter().map(|(_, name)| name).collect()
}

/// Somebody who asks.
pub(super) struct Inquiry<'a> {
    pub resolver: &'a Resolver,
    pub limits: &'a Limits,
    pub interrupt: &'a Interrupt,
}

impl Inquiry<'_> {
    /// Where the mail of a domain goes.
    pub fn exchange(&self, domain: &str) -> Result<Exchange, Fault> {
        let Ok(domain) = resolve::ascii(domain) else { return Ok(Exchange::Unknown) };
        let read = |data: &RData<'_>| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_string())),
            _ => None,
        };
        let found = self.look_up(&domain, TYPE::MX, &read)?;
        let (records, secure) = (found.records, found.secure);
        if !found.exists {
            return Ok(Exchange::Unknown);
        }
        if records.is_empty() {
            return Ok(Exchange::To(vec![Exchanger { name: domain.clone(), domain, implicit: true, secure }]));
        }
        if let [(_, name)] = &records[..]
            && name.is_empty()
        {
            return Ok(Exchange::Nowhere);
        }
        let names = in_order(records);
        if names.is_empty() {
            let text = "names only mail servers in the DNS that can be no host's name";
            return Err(Fault::new(Stage::Resolve, Cause::Network(text.to_owned())));
        }
        let exchanger = |name| Exchanger { name, domain: domain.clone(), implicit: false, secure };
        Ok(Exchange::To(names.into_iter().map(exchanger).collect()))
    }

    /// Where a server is and what it must show. A proxy finds the addresses itself.
    pub fn locate(&self, exchanger: &Exchanger, port: u16, proxied: bool) -> Result<Located, Fault> {
        let (mut secure, mut canonical) = (exchanger.secure, exchanger.name.clone());
        let addresses = if proxied {
            None
        } else {
            let found = self.addresses(exchanger)?;
            (secure, canonical) = (secure && found.secure, found.name);
            Some(found.records.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        };
        let mut located = Located { addresses, tlsa: None, base: exchanger.name.clone() };
        if !secure {
            return Ok(located);
        }
        // The name behind the aliases comes first (RFC 7672 §2.2.3).
        for base in [canonical, exchanger.name.clone()] {
            let found = self.tlsa(&base, port)?;
            if found.secure && !found.records.is_empty() {
                located.tlsa = Some(found.records.into_iter().flatten().collect());
                located.base = base;
                break;
            }
        }
        Ok(located)
    }

    /// The addresses of a server, IPv6 first; at least one.
    fn addresses(&self, exchanger: &Exchanger) -> Result<Found<IpAddr>, Fault> {
        let name = &exchanger.name;
        let six = self.look_up(name, TYPE::AAAA, &|data| match data {
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.address.into())),
            _ => None,
        });
        let four = self.look_up(name, TYPE::A, &|data| match data {
            RData::A(a) => Some(IpAddr::V4(a.address.into())),
            _ => None,
        });
        let mut all = match (six, four) {
            (Ok(six), Ok(four)) => {
                let secure = six.secure && four.secure;
                let records = [&six.records, &four.records].into_iter().flat_map(|of| of.iter().take(ADDRESSES));
                Found { records: records.copied().collect(), secure, ..four }
            }
            // Some name servers do not know what to say about IPv6.
            (Ok(found), Err(fault)) | (Err(fault), Ok(found)) => {
                if found.records.is_empty() {
                    return Err(fault);
                }
                found
            }
            (Err(fault), Err(_)) => return Err(fault),
        };
        all.records.truncate(2 * ADDRESSES);
        if !all.records.is_empty() {
            return Ok(all);
        }
        Err(Fault::new(
            Stage::Resolve,
            match (exchanger.implicit, all.exists) {
                (true, false) => super::no_such_domain(),
                (true, true) => Cause::NoSuchDomain("has neither a mail server nor an address in the DNS".to_owned()),
                (false, _) => Cause::Network("cannot be reached: the DNS has no address of it".to_owned()),
            },
        ))
    }

    /// The TLSA records of a server; `None` for each that we cannot use.
    fn tlsa(&self, name: &str, port: u16) -> Result<Found<Option<Tlsa>>, Fault> {
        self.look_up(&format!("_{port}._tcp.{name}"), TLSA, &|data| match data {
            RData::NULL(52, data) => Some(Tlsa::read(data.get_data())),
            RData::Empty(TLSA) => Some(None),
            _ => None,
        })
    }

    fn look_up<T>(&self, name: &str, kind: TYPE, read: &dyn Fn(&RData<'_>) -> Option<T>) -> Result<Found<T>, Fault> {
        self.resolver.look_up(name, kind, read, self.limits, self.interrupt)
    }
}

#[cfg(test)]
mod tests;
