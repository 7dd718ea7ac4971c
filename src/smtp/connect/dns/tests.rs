//! Answers of every kind from a name server on loopback that says what it is told to.

use super::*;
use proptest::prelude::*;
use simple_dns::ResourceRecord;
use simple_dns::rdata::{CNAME, SRV};
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

/// A record as a test writes it: owner and data.
type Record = (&'static str, Data);

#[derive(Clone, Copy)]
enum Data {
    Srv(u16, u16, u16, &'static str),
    Alias(&'static str),
}

const NAME: &str = "_submission._tcp.example.com";

/// A query that has come: its octets, whether over TCP, and how many were there before.
struct Query<'a> {
    octets: &'a [u8],
    tcp: bool,
    before: usize,
}

impl Query<'_> {
    fn name(&self) -> String {
        Packet::parse(self.octets).unwrap().questions[0].qname.to_string()
    }

    fn answer(&self, code: RCODE, records: &[Record]) -> Vec<u8> {
        let query = Packet::parse(self.octets).unwrap();
        let mut reply = Packet::new_reply(query.id());
        *reply.rcode_mut() = code;
        reply.questions = query.questions;
        for (owner, data) in records {
            let data = match *data {
                Data::Srv(priority, weight, port, target) => {
                    RData::SRV(SRV { priority, weight, port, target: Name::new(target).unwrap() })
                }
                Data::Alias(other) => RData::CNAME(CNAME(Name::new(other).unwrap())),
            };
            reply.answers.push(ResourceRecord::new(Name::new(owner).unwrap(), CLASS::IN, 60, data));
        }
        reply.build_bytes_vec_compressed().unwrap()
    }
}

/// Starts a server; what `play` gives are the datagrams that it answers with.
fn server(play: impl Fn(&Query<'_>) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let play = std::sync::Arc::new(play);
    let over_tcp = std::sync::Arc::clone(&play);
    thread::spawn(move || {
        let mut octets = [0; 600];
        for before in 0.. {
            let (length, peer) = udp.recv_from(&mut octets).unwrap();
            for datagram in play(&Query { octets: &octets[..length], tcp: false, before }) {
                udp.send_to(&datagram, peer).unwrap();
            }
        }
    });
    thread::spawn(move || {
        for (before, stream) in tcp.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut octets = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut octets).unwrap();
            for message in over_tcp(&Query { octets: &octets, tcp: true, before }) {
                let length = u16::try_from(message.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &message].concat()).unwrap();
            }
        }
    });
    address
}

fn limits(step: Duration) -> Limits {
    Limits { step, total: Instant::now() + Duration::from_secs(30) }
}

fn ask_in(step: Duration, servers: &[SocketAddr]) -> Result<Service, Fault> {
    let resolver = Resolver::asking(servers.to_vec());
    resolver.service("submission", "example.com", &limits(step), &Interrupt::default())
}

fn ask_at(servers: &[SocketAddr]) -> Result<Service, Fault> {
    ask_in(Duration::from_secs(20), servers)
}

#[allow(clippy::unnecessary_wraps)] // it stands for what was asked for
fn at(targets: &[(&str, u16)]) -> Result<Service, Fault> {
    let target = |&(name, port): &(&str, u16)| Target { name: name.to_owned(), port };
    Ok(Service::At(targets.iter().map(target).collect()))
}

fn network(text: &str) -> Result<Service, Fault> {
    Err(Fault::new(Stage::Resolve, Cause::Network(text.to_owned())))
}

#[test]
fn what_the_dns_says_is_what_is_there() {
    use Data::{Alias, Srv};
    let cases: &[(RCODE, &[Record], Result<Service, Fault>)] = &[
        (RCODE::NameError, &[], Ok(Service::Unknown)),
        (RCODE::NoError, &[], Ok(Service::Unknown)),
        (RCODE::NoError, &[(NAME, Srv(0, 0, 0, ""))], Ok(Service::NotOffered)),
        (
            RCODE::NoError,
            &[(NAME, Srv(20, 0, 587, "c.example.com")), (NAME, Srv(5, 9, 1, "a.x")), (NAME, Srv(10, 0, 2, "b.x"))],
            at(&[("a.x", 1), ("b.x", 2), ("c.example.com", 587)]),
        ),
        // What no host is called, or listens at, and what was not asked for.
        (
            RCODE::NoError,
            &[
                (NAME, Srv(0, 0, 587, "a b.x")),
                (NAME, Srv(0, 0, 587, "192.0.2.1")),
                (NAME, Srv(0, 0, 0, "zero.x")),
                ("other.example", Srv(0, 0, 587, "o.x")),
                (NAME, Srv(1, 0, 587, "good.x")),
            ],
            at(&[("good.x", 587)]),
        ),
        (RCODE::NoError, &[(NAME, Srv(0, 0, 587, "")), (NAME, Srv(1, 0, 587, "a.x"))], at(&[("a.x", 587)])),
        // Aliases.
        (
            RCODE::NoError,
            &[(NAME, Alias("one.x")), ("ONE.x", Alias("two.x")), ("two.x", Srv(0, 0, 587, "a.x"))],
            at(&[("a.x", 587)]),
        ),
        (
            RCODE::NoError,
            &[(NAME, Alias("one.x")), ("one.x", Alias(NAME))],
            network(&format!("cannot be looked up: {NAME}: the name server said that it is an alias of itself")),
        ),
        (RCODE::ServerFailure, &[], network(&format!("cannot be looked up: {NAME}: the name server said SERVFAIL"))),
        (RCODE::Refused, &[], network(&format!("cannot be looked up: {NAME}: the name server said REFUSED"))),
    ];
    for (code, records, expected) in cases {
        let (code, answer) = (*code, *records);
        let server = server(move |query| vec![query.answer(code, answer)]);
        assert_eq!(&ask_at(&[server]), expected, "{code:?}");
    }
}

#[test]
fn an_alias_that_is_not_followed_for_us_is_asked_for_but_not_for_ever() {
    let followed = server(|query| {
        let records: &[Record] = match query.name().as_str() {
            NAME => &[(NAME, Data::Alias("one.x"))],
            "one.x" => &[("one.x", Data::Alias("two.x"))],
            _ => &[("two.x", Data::Srv(0, 0, 587, "a.x"))],
        };
        vec![query.answer(RCODE::NoError, records)]
    });
    assert_eq!(ask_at(&[followed]), at(&[("a.x", 587)]));
    let round = server(|query| {
        let other = if query.name() == NAME { ("one.x", NAME) } else { (NAME, "one.x") };
        vec![query.answer(RCODE::NoError, &[(other.1, Data::Alias(other.0))])]
    });
    assert!(ask_at(&[round]).unwrap_err().to_string().ends_with("is an alias that leads nowhere"));
}

const GOOD: &[Record] = &[(NAME, Data::Srv(0, 0, 587, "a.x"))];

#[test]
fn a_server_that_fails_or_is_silent_has_the_next_one_asked() {
    let good = || server(|query| vec![query.answer(RCODE::NoError, GOOD)]);
    let failing = server(|query| vec![query.answer(RCODE::ServerFailure, &[])]);
    let garbage = server(|query| {
        let mut answer = query.answer(RCODE::NoError, GOOD);
        answer.truncate(answer.len() - 5);
        vec![answer]
    });
    let silent = server(|_| Vec::new());
    let nobody = "127.0.0.1:1".parse().unwrap();
    for bad in [failing, garbage, silent, nobody] {
        assert_eq!(ask_in(Duration::from_secs(2), &[bad, good()]), at(&[("a.x", 587)]));
    }
    let fault = ask_in(Duration::from_millis(200), &[silent]).unwrap_err();
    assert_eq!(fault.cause, Cause::Timeout(format!("no name server answered for {NAME}")));
    // What is lost once is asked for again.
    let lossy = server(|query| if query.before == 0 { Vec::new() } else { vec![query.answer(RCODE::NoError, GOOD)] });
    assert_eq!(ask_in(Duration::from_secs(2), &[lossy]), at(&[("a.x", 587)]));
}

#[test]
fn an_answer_to_another_question_is_waited_past() {
    let server = server(|query| {
        let good = query.answer(RCODE::NoError, GOOD);
        let forged = query.answer(RCODE::NoError, &[(NAME, Data::Srv(0, 0, 587, "evil.x"))]);
        let change = |place: usize| {
            let mut octets = forged.clone();
            octets[place] ^= 1;
            octets
        };
        // Another id, another name, another type, no response, too short.
        let mut query = forged.clone();
        query[2] &= 0x7f;
        vec![change(0), change(1), change(14), change(NAME.len() + 15), query, forged[..8].to_vec(), good]
    });
    assert_eq!(ask_at(&[server]), at(&[("a.x", 587)]));
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let many: Vec<Record> = (0..200).map(|i| (NAME, Data::Srv(i, 0, 587, "a-rather-long-name.example"))).collect();
    let server = server(move |query| {
        let mut answer = query.answer(RCODE::NoError, if query.tcp { &many } else { &[] });
        answer[2] |= if query.tcp { 0 } else { 0x02 };
        vec![answer]
    });
    let Ok(Service::At(targets)) = ask_at(&[server]) else { panic!("an answer") };
    assert_eq!(targets.len(), 200);
}

#[test]
fn a_name_that_points_at_itself_is_no_answer() {
    let server = server(|query| {
        let mut answer = query.answer(RCODE::NoError, &[]);
        answer[7] = 1;
        let here = u16::try_from(answer.len()).unwrap() | 0xc000;
        answer.extend(here.to_be_bytes());
        answer.extend([0, 33, 0, 1, 0, 0, 0, 60, 0, 0]);
        vec![answer]
    });
    assert!(ask_at(&[server]).unwrap_err().to_string().ends_with("said something that is no answer"));
}

#[test]
fn an_interrupt_ends_the_wait_for_a_name_server() {
    let silent = server(|_| Vec::new());
    let interrupt = Interrupt::default();
    let from_outside = interrupt.clone();
    let asking = thread::spawn(move || {
        let limits = Limits { step: Duration::from_hours(1), total: Instant::now() + Duration::from_hours(1) };
        Resolver::asking(vec![silent; 3]).service("submission", "example.com", &limits, &from_outside)
    });
    thread::sleep(Duration::from_millis(50));
    interrupt.trip();
    assert_eq!(asking.join().unwrap().unwrap_err().cause, Cause::Interrupted);
}

#[test]
fn all_equals_are_drawn_and_none_twice() {
    let srv = |priority, weight, port| Srv { priority, weight, target: Target { name: String::new(), port } };
    for _ in 0..50 {
        let order = in_order(vec![srv(2, 0, 6), srv(1, 0, 1), srv(1, 65535, 2), srv(1, 65535, 3), srv(2, 7, 7)]);
        let ports: Vec<u16> = order.iter().map(|target| target.port).collect();
        let (mut first, mut second) = (ports[..3].to_vec(), ports[3..].to_vec());
        first.sort_unstable();
        second.sort_unstable();
        assert_eq!((&first[..], &second[..]), (&[1, 2, 3][..], &[6, 7][..]));
    }
}

#[test]
fn the_name_servers_are_those_of_resolv_conf() {
    let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1 # ours\n\
                nameserver fe80::1%eth0\nnameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    let told: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
}

proptest! {
    #[test]
    fn whatever_a_server_says_is_an_answer_or_none(
        mut octets in proptest::collection::vec(any::<u8>(), 0..300),
        keep in 0_usize..12,
    ) {
        // Mostly zeros in the header, or hardly anything would be looked at.
        for octet in octets.iter_mut().take(12).skip(keep) {
            *octet = u8::from(*octet > 200);
        }
        drop(meaning(&octets, NAME, &|data| matches!(data, RData::SRV(_)).then_some(())));
        prop_assert!(!is_ours(&octets, &[0; 40]));
    }
}
