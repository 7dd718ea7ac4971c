//! Hosts that are reached in every way, or not.

use super::*;
use crate::config::Proxy;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;
use zeroize::Zeroizing;

#[test]
fn all_addresses_of_a_host_are_tried() {
    let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
    let host = Host::Tcp { name: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
    let limits = Limits { step: Duration::from_secs(20), total: Instant::now() + Duration::from_secs(20) };
    assert!(connect(&Account::new("a"), &host, 0, &limits, &Interrupt::default()).is_ok());
}

#[test]
fn a_connection_that_is_refused_says_so() {
    let host = Host::Tcp { name: "127.0.0.1".to_owned(), port: 1 };
    let limits = Limits { step: Duration::from_secs(20), total: Instant::now() + Duration::from_secs(20) };
    let fault = connect(&Account::new("a"), &host, 0, &limits, &Interrupt::default()).err().unwrap();
    assert_eq!(fault.to_string(), "cannot be reached: Connection refused");
}

#[test]
fn an_address_of_ours_decides_the_family() {
    // The same port of the other family is taken and nobody listens there.
    let (listener, _taken) = (0..100)
        .find_map(|_| {
            let listener = TcpListener::bind("[::1]:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            taken.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).ok().map(|()| (listener, taken))
        })
        .unwrap();
    let host = Host::Tcp { name: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
    for (source, said) in [
        ("::1", None),
        ("127.0.0.1", Some("cannot be reached: Connection refused")),
        ("192.0.2.1", Some("source_ip 192.0.2.1 cannot be used: Cannot assign requested address")),
    ] {
        let account = Account { source_ip: Some(source.parse().unwrap()), ..Account::new("a") };
        let fault = connect(&account, &host, 0, &limits(), &Interrupt::default()).err();
        assert_eq!(fault.map(|fault| fault.to_string()).as_deref(), said, "{source}");
    }
    let account = Account { source_ip: Some("127.0.0.1".parse().unwrap()), ..Account::new("a") };
    let host = Host::Tcp { name: "::1".to_owned(), port: 25 };
    let fault = connect(&account, &host, 0, &limits(), &Interrupt::default()).err().unwrap();
    assert_eq!(fault.to_string(), "cannot be reached: ::1 has no IPv4 address, which source_ip demands");
}

fn limits() -> Limits {
    Limits { step: Duration::from_secs(20), total: Instant::now() + Duration::from_secs(20) }
}

/// What a proxy says, each line after it has heard that many octets; then it hangs up.
type Script = &'static [(usize, &'static [u8])];

/// Goes through a proxy that follows the script. What the proxy heard, and the stream or the fault.
fn through(script: Script, login: bool, host: &str) -> (Vec<u8>, Result<Stream, Fault>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        for (hears, says) in script {
            let mut heard = vec![0; *hears];
            if peer.read_exact(&mut heard).is_err() {
                break;
            }
            all.extend(heard);
            let _ = peer.write_all(says);
        }
        all
    });
    let login = login.then(|| ("me".to_owned(), Zeroizing::new("s3cret".to_owned())));
    let account = Account { proxy: Some(Proxy { host: "127.0.0.1".to_owned(), port, login }), ..Account::new("a") };
    let host = Host::Tcp { name: host.to_owned(), port: 587 };
    let reached = connect(&account, &host, 0, &limits(), &Interrupt::default());
    let reached = reached.map_err(|fault| {
        let plain = |text: &str| text.replace(&format!(":{port}"), "");
        let cause = match &fault.cause {
            Cause::Network(text) => Cause::Network(plain(text)),
            Cause::Protocol(text) => Cause::Protocol(plain(text)),
            Cause::Local(text) => Cause::Local(plain(text)),
            other => other.clone(),
        };
        Fault { cause, ..fault }
    });
    (proxy.join().unwrap(), reached)
}

/// The answer to CONNECT that comes with the relay's greeting in one piece.
const CONNECTED: &[u8] = b"\x05\0\0\x01\0\0\0\0\0\0hello 220\r\n";

#[test]
fn a_proxy_connects_for_us_and_what_comes_behind_its_answers_is_the_relays() {
    const NAMED: &[u8] = b"\x05\0\0\x03\x09localhost\0\0hello 220\r\n";
    const V6: &[u8] = b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0hello 220\r\n";
    let cases: &[(Script, bool, &str, &[u8])] = &[
        (&[(3, b"\x05\0"), (16, CONNECTED)], false, "x.example", b"\x05\x01\0\x05\x01\0\x03\x09x.example\x02\x4b"),
        (&[(3, b"\x05\0"), (10, CONNECTED)], false, "192.0.2.7", b"\x05\x01\0\x05\x01\0\x01\xc0\0\x02\x07\x02\x4b"),
        (
            &[(3, b"\x05\0"), (22, CONNECTED)],
            false,
            "::1",
            b"\x05\x01\0\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\x4b",
        ),
        (
            &[(4, b"\x05\x02"), (11, b"\x01\0"), (16, NAMED)],
            true,
            "x.example",
            b"\x05\x02\0\x02\x01\x02me\x06s3cret\x05\x01\0\x03\x09x.example\x02\x4b",
        ),
        (&[(4, b"\x05\0"), (16, V6)], true, "x.example", b"\x05\x02\0\x02\x05\x01\0\x03\x09x.example\x02\x4b"),
        (
            &[(3, b"\x05\0"), (22, CONNECTED)],
            false,
            "\u{fc}.example",
            b"\x05\x01\0\x05\x01\0\x03\x0fxn--tda.example\x02\x4b",
        ),
    ];
    for (script, login, host, expected) in cases {
        let (heard, reached) = through(script, *login, host);
        assert_eq!(heard.escape_ascii().to_string(), expected.escape_ascii().to_string());
        let mut stream = reached.unwrap();
        assert!(!stream.is_local(), "who knows where the relay is");
        let mut greeting = [0; 11];
        let mut read = 0;
        while read < greeting.len() {
            read += stream.read(&mut greeting[read..], limits().total).unwrap();
        }
        assert_eq!(&greeting, b"hello 220\r\n");
    }
}

#[test]
fn each_no_of_a_proxy_is_a_sentence() {
    const LOGIN_OK: &[u8] = b"\x05\x02";
    let cases: &[(Script, bool, Stage, &str)] = &[
        (&[(3, b"\x05\xff")], false, Stage::Local, "the proxy 127.0.0.1 wants a user and a password"),
        (&[(3, LOGIN_OK)], false, Stage::Local, "the proxy 127.0.0.1 wants a user and a password"),
        (&[(4, b"\x05\xff")], true, Stage::Local, "the proxy 127.0.0.1 takes neither our user and password nor nobody"),
        (
            &[(4, LOGIN_OK), (11, b"\x01\x01")],
            true,
            Stage::Local,
            "the proxy 127.0.0.1 refuses the user and the password",
        ),
        (
            &[(3, b"\x05\x01")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 chose the login method 1, which was not offered",
        ),
        (
            &[(3, b"HTTP/1.1 400 Bad Request\r\n")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 answered with something that is not SOCKS5",
        ),
        (&[(3, b"\x05")], false, Stage::Connect, "cannot be reached: the proxy 127.0.0.1 closed the connection"),
        (
            &[(3, b"\x05\0"), (16, b"\x05\0\0\x01\0")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 closed the connection",
        ),
        (
            &[(3, b"\x05\0"), (16, b"\x05\0\0\x02\0\0\0\0\0\0")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 gave an address of the unknown kind 2",
        ),
        (
            &[(3, b"\x05\0"), (16, b"\x05\x02\0\x01\0\0\0\0\0\0")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 cannot connect to x.example: its rules forbid it",
        ),
        (
            &[(3, b"\x05\0"), (16, b"\x05\x05\0\x01\0\0\0\0\0\0")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 cannot connect to x.example: connection refused",
        ),
        (
            &[(3, b"\x05\0"), (16, b"\x05\x63\0\x01\0\0\0\0\0\0")],
            false,
            Stage::Connect,
            "cannot be reached: the proxy 127.0.0.1 said no with the unknown code 99",
        ),
    ];
    for (script, login, stage, said) in cases {
        let fault = through(script, *login, "x.example").1.err().unwrap();
        assert_eq!((fault.stage, fault.to_string().as_str()), (*stage, *said));
    }
}

#[test]
fn a_proxy_that_is_silent_or_not_there_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let account =
        Account { proxy: Some(Proxy { host: "127.0.0.1".to_owned(), port, login: None }), ..Account::new("a") };
    let host = Host::Tcp { name: "x.example".to_owned(), port: 25 };
    let soon = Limits { step: Duration::from_millis(100), ..limits() };
    let fault = connect(&account, &host, 0, &soon, &Interrupt::default()).err().unwrap();
    assert_eq!(fault.to_string(), format!("cannot be reached: the proxy 127.0.0.1:{port} has not connected in time"));
    assert!(matches!(fault.cause, Cause::Timeout(_)));

    drop(listener);
    let fault = connect(&account, &host, 0, &limits(), &Interrupt::default()).err().unwrap();
    assert_eq!(fault.to_string(), format!("the proxy 127.0.0.1:{port} cannot be reached: Connection refused"));
}

#[test]
fn no_proxy_stands_before_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let account = Account {
        proxy: Some(Proxy { host: "127.0.0.1".to_owned(), port: 1, login: None }),
        source_ip: Some("192.0.2.1".parse().unwrap()),
        ..Account::new("a")
    };
    let mut stream = connect(&account, &Host::Unix(path), 0, &limits(), &Interrupt::default()).unwrap();
    assert!(stream.is_local());
    stream.write_all(b"x", limits().total, &mut |_| ControlFlow::Break(())).unwrap();
}
