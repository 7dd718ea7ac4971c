//! The ways to a relay, by the real `sendmail`: host lists, fallback accounts, UNIX sockets, a SOCKS5 proxy, LMTP.
//!
//! What stands in the way is real too where it can be had: microsocks from Debian for the proxy.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use support::household::Household;
use support::letter::complete;
use support::peer::{Running, free_port, here, program, wait_for};
use support::relay::{Act, Dialogue, GREETING, Relay, Script};

/// An account for a relay of the test, without TLS and password.
fn account(name: &str, lines: &str) -> String {
    format!("[account.{name}]\ntls = \"none\"\nfrom = \"alice@example.org\"\n{lines}\n")
}

fn letters(heard: &[Dialogue]) -> usize {
    heard.iter().map(|dialogue| dialogue.letters.len()).sum()
}

/// A port that nobody listens on.
fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn the_next_host_takes_over_and_the_next_account() {
    for (lines, more) in [
        (format!("host = [\"{}\", \"GOOD\"]", nobody()), String::new()),
        // One that is there, and has no session for us.
        ("host = [\"BUSY\", \"GOOD\"]".to_owned(), String::new()),
        (format!("host = [\"/no/such/socket\", \"{}\"]\nfallback = \"b\"", nobody()), account("b", "host = \"GOOD\"")),
    ] {
        let good = Relay::start(Script::open());
        let busy = Relay::start(Script::open().on(GREETING, Act::SayAndDrop("421 4.3.2 not now".to_owned())));
        let config = (account("a", &lines) + &more)
            .replace("GOOD", &good.address.to_string())
            .replace("BUSY", &busy.address.to_string());
        let home = Household::new(&config);
        home.sendmail(&["bob@example.org"], &complete("x", "hello\n")).silent_success();
        assert_eq!(letters(&good.finish()), 1, "{config}");
        home.assert_queue_is_empty();
    }
}

#[test]
fn connections_come_from_the_address_that_the_settings_say() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = thread::spawn(move || listener.accept().unwrap().1.ip().to_string());
    let home = Household::new(&account("a", &format!("host = \"{address}\"\nsource_ip = \"127.0.0.7\"")));
    home.sendmail(&["bob@example.org"], &complete("x", "hello\n")).silent_success();
    assert_eq!(heard.join().unwrap(), "127.0.0.7");
}

/// Passes octets on between a client and a server until both are done.
fn pass(client: impl Duplex, server: TcpStream) {
    let (mut up, mut down) = (client.again(), server.try_clone().unwrap());
    let (mut client, mut server) = (client, server);
    let upwards = thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut server);
        let _ = server.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut down, &mut client);
    client.end();
    upwards.join().unwrap();
}

trait Duplex: Read + Write + Send + 'static {
    fn again(&self) -> Self;
    fn end(&self);
}

impl Duplex for TcpStream {
    fn again(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Duplex for std::os::unix::net::UnixStream {
    fn again(&self) -> Self {
        self.try_clone().unwrap()
    }
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// A door on a UNIX socket to a server on loopback.
fn door(path: &Path, to: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            pass(client.unwrap(), TcpStream::connect(to).unwrap());
        }
    });
}

#[test]
fn a_unix_socket_is_a_relay_and_a_password_may_go_there() {
    let relay = Relay::start(Script::default().tls(support::relay::Tls::Off));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("relay.sock");
    door(&socket, relay.address);
    let lines = format!("host = \"unix:{}\"\nuser = \"alice\"\npassword = \"s3cret\"", socket.display());
    let home = Household::new(&account("a", &lines));
    home.sendmail(&["bob@example.org"], &complete("x", "hello\n")).silent_success();
    let heard = relay.finish();
    assert_eq!(letters(&heard), 1);
    assert_eq!(heard[0].logins.len(), 1);
}

/// A SOCKS5 proxy that looks no name up but knows one, and tells what it was asked for.
fn proxy(relay: SocketAddr, login: Option<&'static str>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let Some(wanted) = greet(&mut client, login) else { continue };
            let known = wanted == "relay.example:587";
            sender.send(wanted).unwrap();
            let code = if known { 0 } else { 4 };
            client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            if known {
                pass(client, TcpStream::connect(relay).unwrap());
            }
        }
    });
    (address, asked)
}

/// The proxy's part up to the request; where the client wants to go, unless it may not.
fn greet(client: &mut TcpStream, login: Option<&str>) -> Option<String> {
    let mut octets = |count: usize| {
        let mut octets = vec![0; count];
        client.read_exact(&mut octets).ok().map(|()| octets)
    };
    let count = octets(2)?[1];
    let methods = octets(count.into())?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        client.write_all(&[5, 255]).ok()?;
        return None;
    }
    client.write_all(&[5, method]).ok()?;
    let mut octets = |count: usize| {
        let mut octets = vec![0; count];
        client.read_exact(&mut octets).ok().map(|()| octets)
    };
    if let Some(login) = login {
        let length = octets(2)?[1];
        let user = octets(length.into())?;
        let length = octets(1)?[0];
        let password = octets(length.into())?;
        let given = format!("{}:{}", String::from_utf8(user).ok()?, String::from_utf8(password).ok()?);
        client.write_all(&[1, u8::from(given != login)]).ok()?;
        if given != login {
            return None;
        }
    }
    let mut octets = |count: usize| {
        let mut octets = vec![0; count];
        client.read_exact(&mut octets).ok().map(|()| octets)
    };
    let head = octets(5)?;
    assert_eq!(head[..4], [5, 1, 0, 3], "a name, as the settings have it");
    let name = octets(head[4].into())?;
    let port = octets(2)?;
    Some(format!("{}:{}", String::from_utf8(name).ok()?, u16::from_be_bytes([port[0], port[1]])))
}

#[test]
fn a_proxy_looks_the_relays_name_up_and_may_want_a_password() {
    for (login, url) in [(None, "socks5://PROXY"), (Some("me:p@ss"), "socks5://me:p%40ss@PROXY")] {
        let relay = Relay::start(Script::open());
        let (address, asked) = proxy(relay.address, login);
        let url = url.replace("PROXY", &address.to_string());
        let lines = format!("host = [\"other.example\", \"relay.example\"]\nport = 587\nproxy = \"{url}\"");
        let home = Household::new(&account("a", &lines));
        home.sendmail(&["bob@example.org"], &complete("x", "hello\n")).silent_success();
        assert_eq!(asked.iter().take(2).collect::<Vec<_>>(), ["other.example:587", "relay.example:587"]);
        assert_eq!(letters(&relay.finish()), 1);
    }
}

#[test]
fn a_proxy_that_refuses_us_is_our_own_fault_and_told() {
    let relay = Relay::start(Script::open());
    let (address, _asked) = proxy(relay.address, Some("me:right"));
    for (url, said) in [
        (format!("socks5://me:wrong-s3cret@{address}"), "refuses the user and the password"),
        (format!("socks5://{address}"), "wants a user and a password"),
    ] {
        let home = Household::new(&account("a", &format!("host = \"relay.example\"\nproxy = \"{url}\"")));
        let ended = home.sendmail(&["bob@example.org"], &complete("x", "hello\n"));
        ended.says(0, &[&format!("the proxy {address}"), said]);
        assert!(!ended.stderr.contains("s3cret"));
        assert!(home.mailq().contains("bob@example.org"));
    }
    assert_eq!(letters(&relay.finish()), 0);
}

#[test]
fn a_password_behind_a_proxy_goes_nowhere_in_clear() {
    let lines = "host = \"localhost:25\"\nuser = \"u\"\npassword = \"p\"\nproxy = \"socks5://127.0.0.1\"";
    let home = Household::new(&account("a", lines));
    let ended = home.sendmail(&["bob@example.org"], &complete("x", "hello\n"));
    ended.says(78, &["the password would go to localhost in clear"]);
}

#[test]
fn microsocks_is_a_proxy() {
    if !here(&["microsocks"]) {
        return;
    }
    for (arguments, login) in [(&[][..], ""), (&["-u", "me", "-P", "pass"], "me:pass@")] {
        let relay = Relay::start(Script::default());
        let port = free_port();
        let mut microsocks = std::process::Command::new(program("microsocks").unwrap());
        microsocks
            .stderr(std::process::Stdio::null())
            .args(["-i", "127.0.0.1", "-p", &port.to_string()])
            .args(arguments);
        let _running = Running(microsocks.spawn().unwrap());
        wait_for("microsocks to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        let config = format!(
            "[account.a]\nhost = \"localhost:{}\"\nuser = \"alice\"\npassword = \"s3cret\"\npin = \"{}\"\n\
             proxy = \"socks5://{login}127.0.0.1:{port}\"\n",
            relay.address.port(),
            relay.identity.pin(),
        );
        let home = Household::new(&config);
        home.sendmail(&["bob@example.org"], &complete("x", "hello\n")).silent_success();
        assert_eq!(letters(&relay.finish()), 1);
    }
}

/// A mail store that speaks LMTP to one client: what it says for each recipient behind the content, and hangs up after
/// the last. Gives what it heard.
fn store(mut client: impl Duplex, answers: &[&str]) -> Vec<String> {
    let mut lines = BufReader::new(client.again()).lines();
    let mut heard = Vec::new();
    let mut say = |text: &str| drop(client.write_all(format!("{text}\r\n").as_bytes()));
    say("220 store LMTP");
    while let Some(Ok(line)) = lines.next() {
        match line.split([' ', ':']).next().unwrap_or_default() {
            "LHLO" => say("250-store\r\n250-PIPELINING\r\n250 8BITMIME"),
            "DATA" => {
                say("354 go on");
                let content: Vec<String> =
                    lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                heard.push(format!("({} lines)", content.len()));
                for answer in answers {
                    say(answer);
                }
                break;
            }
            "MAIL" | "RCPT" => say("250 ok"),
            _ => say("500 what?"),
        }
        heard.push(line.split(" SIZE").next().unwrap_or_default().to_owned());
    }
    heard
}

#[test]
fn a_mail_store_is_reached_by_lmtp_and_answers_for_each_recipient() {
    const ANSWERS: [&str; 3] = ["250 2.1.5 ann has it", "552 5.2.2 bob is full", "450 4.2.0 cat is locked"];
    let expected = [
        "LHLO client.example",
        "MAIL FROM:<alice@example.org>",
        "RCPT TO:<ann@example.org>",
        "RCPT TO:<bob@example.org>",
        "RCPT TO:<cat@example.org>",
        "(8 lines)",
    ];
    for over_tcp in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (host, heard) = if over_tcp {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let host = listener.local_addr().unwrap().to_string();
            (host, thread::spawn(move || store(listener.accept().unwrap().0, &ANSWERS)))
        } else {
            let path = dir.path().join("lmtp");
            let listener = UnixListener::bind(&path).unwrap();
            let host = path.display().to_string();
            (host, thread::spawn(move || store(listener.accept().unwrap().0, &ANSWERS)))
        };
        let lines = format!("host = \"{host}\"\nprotocol = \"lmtp\"\nhelo = \"client.example\"");
        let home = Household::new(&account("a", &lines));
        let words = ["ann@example.org", "bob@example.org", "cat@example.org"];
        let ended = home.sendmail(&words, &complete("x", "hello\nworld\n"));
        assert_eq!(ended.status, 0, "{ended:?}");
        assert_eq!(heard.join().unwrap(), expected);
        let queue = home.mailq();
        assert!(queue.contains("cat@example.org") && queue.contains("cat is locked"), "{queue}");
        assert!(!queue.contains("ann@example.org"), "{queue}");
        assert!(!queue.contains("possible duplicate"), "{queue}");
    }
}

#[test]
fn a_mail_store_that_is_lost_among_its_answers_may_have_the_letter() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    let heard = thread::spawn(move || store(listener.accept().unwrap().0, &["250 ann has it"]));
    let home = Household::new(&account("a", &format!("host = \"{host}\"\nprotocol = \"lmtp\"")));
    let ended = home.sendmail(&["ann@example.org", "bob@example.org"], &complete("x", "hello\n"));
    assert_eq!(ended.status, 0, "{ended:?}");
    heard.join().unwrap();
    let queue = home.mailq();
    assert!(queue.contains("bob@example.org") && queue.contains("duplicate"), "{queue}");
    assert!(!queue.contains("ann@example.org"), "{queue}");
}

#[test]
fn lmtp_is_never_spoken_at_port_25() {
    let home = Household::new(&account("a", "host = \"127.0.0.1:25\"\nprotocol = \"lmtp\""));
    let ended = home.sendmail(&["bob@example.org"], &complete("x", "hello\n"));
    ended.says(78, &["LMTP is not spoken at port 25"]);
}

#[test]
fn a_domains_servers_are_not_looked_for_without_tls() {
    let home = Household::new(&account("a", "host = \"srv:example.com\""));
    let ended = home.sendmail(&["bob@example.org"], &complete("x", "hello\n"));
    ended.says(78, &["srv:"]);
}
