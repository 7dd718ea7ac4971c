//! Domains of every kind, as a name server on loopback has them.

use super::*;
use simple_dns::rdata::{A, AAAA, CNAME, MX, NULL};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord};
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

/// `owner type data`, a line each. A name that owns nothing does not exist; `FAILS` as data is SERVFAIL; a line that
/// ends in `*` can be believed, and so can it be that there is nothing else of a name that has one.
const ZONE: &str = "
plain.example MX 20 b.plain.example
plain.example MX 10 a.plain.example
plain.example MX 10 192.0.2.1
plain.example MX 30 .
a.plain.example A 192.0.2.1
a.plain.example AAAA 2001:db8::1
bare.example A 192.0.2.3
empty.example TXT x
null.example MX 0 .
odd.example MX 0 192.0.2.1
alias.example CNAME plain.example
fails.example MX FAILS
gone.example MX 10 none.example
half.example AAAA FAILS
half.example A 192.0.2.4
half.example MX 1 half.example
six.example AAAA FAILS
six.example MX 1 six.example
signed.example MX 10 mx.signed.example *
mx.signed.example A 192.0.2.5 *
_25._tcp.mx.signed.example TLSA 030101aa *
_25._tcp.mx.signed.example TLSA 0301010000000000000000000000000000000000000000000000000000000000000000 *
_25._tcp.mx.signed.example TLSA 0001010000000000000000000000000000000000000000000000000000000000000000 *
useless.example A 192.0.2.5 *
_25._tcp.useless.example TLSA 00 *
insecure.example MX 10 mx.signed.example
loose.example MX 10 mx.loose.example *
mx.loose.example A 192.0.2.5
_25._tcp.mx.loose.example TLSA FAILS
bogus.example MX 10 mx.bogus.example *
mx.bogus.example A 192.0.2.5 *
_25._tcp.mx.bogus.example TLSA FAILS
via.example MX 10 mx.via.example *
mx.via.example CNAME mx.signed.example *
own.example MX 10 mx.own.example *
mx.own.example CNAME bare.signed.example *
bare.signed.example A 192.0.2.6 *
_25._tcp.mx.own.example TLSA 0200000102 *
";

/// What follows `owner kind` in each line that has them.
fn records<'a>(owner: &str, kind: &str) -> Vec<&'a str> {
    ZONE.lines().filter_map(|line| line.strip_prefix(&format!("{owner} {kind} "))).collect()
}

fn data<'a>(kind: &str, text: &'a str) -> RData<'a> {
    match kind {
        "A" => RData::A(A { address: text.parse::<std::net::Ipv4Addr>().unwrap().into() }),
        "AAAA" => RData::AAAA(AAAA { address: text.parse::<std::net::Ipv6Addr>().unwrap().into() }),
        "CNAME" => RData::CNAME(CNAME(Name::new(text).unwrap())),
        "MX" => {
            let (preference, name) = text.split_once(' ').unwrap();
            let exchange = Name::new(name.trim_end_matches('.')).unwrap();
            RData::MX(MX { preference: preference.parse().unwrap(), exchange })
        }
        "TLSA" => {
            let octet = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
            let octets: Vec<u8> = (0..text.len()).step_by(2).map(octet).collect();
            RData::NULL(52, NULL::new(&octets).unwrap().into_owned())
        }
        other => panic!("{other}"),
    }
}

fn answer(query: &[u8]) -> Vec<u8> {
    // The library reads no question of that type.
    let is_tlsa = query[query.len() - 4..query.len() - 2] == [0, 52];
    let mut octets = query.to_vec();
    let length = octets.len();
    if is_tlsa {
        octets[length - 4..length - 2].copy_from_slice(&[0, 16]);
    }
    let query = Packet::parse(&octets).unwrap();
    assert!(query.has_flags(PacketFlag::AUTHENTIC_DATA), "it is not asked whether the answer was checked");
    let (name, kind) = (query.questions[0].qname.to_string(), query.questions[0].qtype);
    let kind = match kind {
        QTYPE::TYPE(TYPE::A) => "A",
        QTYPE::TYPE(TYPE::AAAA) => "AAAA",
        QTYPE::TYPE(TYPE::MX) => "MX",
        QTYPE::TYPE(TYPE::TXT) if is_tlsa => "TLSA",
        other => panic!("{other:?}"),
    };
    let mut reply = Packet::new_reply(query.id());
    reply.questions = query.questions.clone();
    let mut owner = name.clone();
    let mut found: Vec<(String, &str, &str)> = Vec::new();
    while let [alias] = records(&owner, "CNAME")[..] {
        found.push((owner, "CNAME", alias));
        owner = alias.trim_end_matches(" *").to_owned();
    }
    let own = records(&owner, kind);
    let exists =
        ZONE.lines().any(|line| line.starts_with(&format!("{owner} ")) || line.contains(&format!(".{owner} ")));
    let vouched = |line: &&str| line.starts_with(&format!("{owner} ")) && line.ends_with('*');
    let secure = found.iter().all(|(_, _, text)| text.ends_with('*')) && ZONE.lines().any(|line| vouched(&line));
    if own == ["FAILS"] {
        *reply.rcode_mut() = RCODE::ServerFailure;
    } else if !exists {
        *reply.rcode_mut() = RCODE::NameError;
    }
    let own = own.into_iter().filter(|text| *text != "FAILS");
    found.extend(own.map(|text| (owner.clone(), kind, text)));
    if secure {
        reply.set_flags(PacketFlag::AUTHENTIC_DATA);
    }
    for (owner, kind, text) in &found {
        let record = data(kind, text.trim_end_matches(" *"));
        reply.answers.push(ResourceRecord::new(Name::new(owner).unwrap(), CLASS::IN, 60, record));
    }
    let mut octets = reply.build_bytes_vec_compressed().unwrap();
    if is_tlsa {
        octets[length - 4..length - 2].copy_from_slice(&[0, 52]);
    }
    octets
}

/// A name server on loopback, which is believed.
fn resolver() -> Resolver {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut octets = [0; 600];
        loop {
            let (length, peer) = socket.recv_from(&mut octets).unwrap();
            socket.send_to(&answer(&octets[..length]), peer).unwrap();
        }
    });
    Resolver::asking(vec![address])
}

fn inquire<T>(ask: impl FnOnce(&Inquiry<'_>) -> T) -> T {
    let limits = Limits { step: Duration::from_mins(1), total: Instant::now() + Duration::from_mins(1) };
    ask(&Inquiry { resolver: &resolver(), limits: &limits, interrupt: &Interrupt::default() })
}

/// The servers of a domain by name.
fn servers(domain: &str) -> Result<Vec<String>, Exchange> {
    match inquire(|inquiry| inquiry.exchange(domain)).unwrap() {
        Exchange::To(servers) => Ok(servers.into_iter().map(|server| server.name).collect()),
        other => Err(other),
    }
}

fn located(domain: &str) -> Result<Located, Fault> {
    let Exchange::To(servers) = inquire(|inquiry| inquiry.exchange(domain)).unwrap() else { panic!("{domain}") };
    inquire(|inquiry| inquiry.locate(&servers[0], 25, false))
}

#[test]
fn the_servers_of_a_domain_are_tried_by_preference_and_a_domain_without_any_is_its_own() {
    let expected = Ok(vec!["a.plain.example".to_owned(), "b.plain.example".to_owned()]);
    for domain in ["plain.example", "alias.example"] {
        assert_eq!(servers(domain), expected, "{domain}");
    }
    for domain in ["bare.example", "empty.example"] {
        assert_eq!(servers(domain), Ok(vec![domain.to_owned()]));
    }
    assert_eq!(servers("null.example"), Err(Exchange::Nowhere));
    assert_eq!(servers("none.example"), Err(Exchange::Unknown));
    assert_eq!(servers("-\u{fe0f}.example"), Err(Exchange::Unknown));
    let said = |domain| inquire(|inquiry| inquiry.exchange(domain)).unwrap_err().to_string();
    assert_eq!(said("fails.example"), "cannot be looked up: fails.example: the name server said SERVFAIL");
    assert_eq!(said("odd.example"), "names only mail servers in the DNS that can be no host's name");
}

#[test]
fn equal_servers_are_shuffled_and_not_all_of_a_multitude_are_tried() {
    let named = |i: u16| (i / 20, format!("{i}.x"));
    let mut first = std::collections::HashSet::new();
    for _ in 0..60 {
        let order = in_order((0..40).map(named).collect());
        assert_eq!(order.len(), HOSTS);
        assert!(order.iter().all(|name| name.trim_end_matches(".x").parse::<u16>().unwrap() < 20), "{order:?}");
        first.insert(order[0].clone());
    }
    assert!(first.len() > 1, "always {first:?}");
}

#[test]
fn a_server_has_its_addresses_or_the_reason_why_not() {
    let addresses = |domain| {
        let addresses = located(domain).map(|located| located.addresses.unwrap());
        let told = |all: Vec<SocketAddr>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        addresses.map(told).map_err(|fault| fault.cause)
    };
    assert_eq!(addresses("plain.example").unwrap(), "[2001:db8::1]:25 192.0.2.1:25");
    assert_eq!(addresses("bare.example").unwrap(), "192.0.2.3:25");
    assert_eq!(addresses("half.example").unwrap(), "192.0.2.4:25", "AAAA fails, A does not");
    assert!(matches!(addresses("six.example"), Err(Cause::Network(text)) if text.contains("SERVFAIL")));
    let nobody = "has neither a mail server nor an address in the DNS".to_owned();
    assert_eq!(addresses("empty.example"), Err(Cause::NoSuchDomain(nobody)));
    // That may be a slip, which is mended tomorrow.
    let missing = "cannot be reached: the DNS has no address of it".to_owned();
    assert_eq!(addresses("gone.example"), Err(Cause::Network(missing)));
}

#[test]
fn what_a_server_must_show_counts_only_where_the_whole_way_to_it_can_be_believed() {
    let asked = |domain| located(domain).map(|located| (located.tlsa.map(|records| records.len()), located.base));
    let at = |records, base: &str| Ok((records, base.to_owned()));
    assert_eq!(asked("signed.example"), at(Some(1), "mx.signed.example"), "one of three is of use");
    assert_eq!(asked("useless.example"), at(Some(0), "useless.example"), "TLS is demanded, of whomever");
    assert_eq!(asked("insecure.example"), at(None, "mx.signed.example"), "its MX could be forged");
    assert_eq!(asked("loose.example"), at(None, "mx.loose.example"), "its address could be forged");
    assert_eq!(asked("via.example"), at(Some(1), "mx.signed.example"), "the name behind the alias first");
    assert_eq!(asked("own.example"), at(Some(1), "mx.own.example"), "then the alias");
    let fault = asked("bogus.example").unwrap_err();
    assert!(fault.to_string().contains("_25._tcp.mx.bogus.example: the name server said SERVFAIL"), "{fault}");
}
