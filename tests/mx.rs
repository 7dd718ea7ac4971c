//! Direct delivery, by the real `sendmail`: a network of the test's own, with Knot and Unbound for the DNS.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::UdpSocket;
use support::household::Household;
use support::letter::complete;
use support::names::{Names, Signed};
use support::network::{BlackHole, apart};
use support::peer::{Running, here, program, wait_for};
use support::relay::{Act, Dialogue, GREETING, HANDSHAKE, Relay, Script, Tls};
use support::server::Server;

const ADDRESSES: [&str; 6] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "2001:db8::9"];

/// A mail server at port 25 of `192.0.2.N`, as strangers' are: no password, whatever certificate.
fn server(number: u8, script: Script) -> Relay {
    Relay::start_at(([192, 0, 2, number], 25).into(), script.without_login())
}

fn in_clear() -> Script {
    Script::default().tls(Tls::Off)
}

/// Somebody whose mail goes straight to everybody, with a log.
fn household(lines: &str) -> Household {
    Household::patient(&format!(
        "log = \"~/log\"\n[account.direct]\nhost = \"mx\"\nfrom = \"alice@sender.example\"\nhelo = \"client.example\"\n\
         {lines}\n"
    ))
}

fn log(home: &Household) -> String {
    fs::read_to_string(home.home().join("log")).unwrap_or_default()
}

/// Whom the letters were for, as RCPT had them, each letter's recipients together.
fn taken(heard: &[Dialogue]) -> Vec<String> {
    let letters = heard.iter().flat_map(|dialogue| &dialogue.letters);
    let address = |line: &String| line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    letters.map(|letter| letter.recipients.iter().map(address).collect::<Vec<_>>().join(" ")).collect()
}

/// Runs a test where all that it takes can be had.
fn with_names(test: impl FnOnce() + Send) {
    if Names::are_here() {
        apart(&ADDRESSES, test);
    }
}

#[test]
fn each_domain_has_its_mail_by_the_servers_that_it_prefers() {
    with_names(|| {
        let _names = Names::start(&[(
            "example",
            "two MX 10 mx1.two\ntwo MX 20 mx2.two\nmx1.two A 192.0.2.9\nmx2.two A 192.0.2.1\n\
             bare A 192.0.2.2\nxn--bcher-kva MX 5 mx.idn\nmx.idn A 192.0.2.3\n\
             alias CNAME real\nreal MX 1 mx.real\nmx.real CNAME other.real\nother.real A 192.0.2.4",
            Signed::No,
        )]);
        let servers: Vec<Relay> = (1..=5).map(|number| server(number, in_clear())).collect();
        let home = household("");
        let to = [
            "a@two.example",
            "b@TWO.example",
            "c@bare.example",
            "d@bücher.example",
            "e@alias.example",
            "f@[192.0.2.5]",
        ];
        home.send(&to, &complete("x", "hello\n"));
        let taken: Vec<Vec<String>> = servers.into_iter().map(|server| taken(&server.finish())).collect();
        let expected = [
            "a@two.example b@TWO.example",
            "c@bare.example",
            "d@xn--bcher-kva.example",
            "e@alias.example",
            "f@[192.0.2.5]",
        ];
        assert_eq!(taken, expected.map(|recipients| vec![recipients.to_owned()]));
        home.assert_queue_is_empty();
        let log = log(&home);
        for relay in
            ["mx2.two.example:25", "bare.example:25", "mx.idn.example:25", "mx.real.example:25", "192.0.2.5:25"]
        {
            assert!(log.contains(&format!("relay={relay} ")), "no {relay} in {log}");
        }
        assert!(log.contains("mx1.two.example:25 cannot be reached"), "{log}");
    });
}

#[test]
fn a_domain_that_takes_no_mail_is_final_one_that_cannot_be_asked_is_not_and_neither_costs_another() {
    with_names(|| {
        let zone = "null MX 0 .\nmail MX 1 mx.mail\nmx.mail A 192.0.2.1\nempty TXT x\nsender MX 1 mx.mail\n\
                    lame MX 1 nowhere.lame";
        let _names = Names::start(&[("example", zone, Signed::No), ("dead.example", "", Signed::No)]);
        let server = server(1, in_clear());
        let home = household("");
        for (to, said) in [
            ("x@null.example", "null.example (account direct) takes no mail: it says so in the DNS"),
            ("x@none.example", "none.example (account direct) does not exist"),
            ("x@empty.example", "has neither a mail server nor an address"),
            ("x@[192.0.2.1.1]", "is no address that mail can be sent to"),
        ] {
            home.sendmail(&[to], &complete("x", "hello\n")).says(68, &[to, said]);
            home.assert_queue_is_empty();
        }
        let to = ["a@null.example", "b@none.example", "c@dead.example", "d@mail.example", "e@lame.example"];
        home.send(&to, &complete("five", "hello\n"));
        home.run_queue();
        let listing = home.mailq();
        assert!(listing.contains("c@dead.example") && listing.contains("SERVFAIL"), "{listing}");
        assert!(listing.contains("e@lame.example") && listing.contains("the DNS has no address of it"), "{listing}");
        for gone in ["a@null", "b@none", "d@mail"] {
            assert!(!listing.contains(gone), "{listing}");
        }
        let heard = server.finish();
        assert_eq!(taken(&heard), ["d@mail.example", "alice@sender.example"]);
        let report = heard.iter().flat_map(|dialogue| &dialogue.letters).next_back().unwrap();
        let report = String::from_utf8_lossy(&report.content);
        for words in ["Status: 5.1.10", "Status: 5.1.2", "a@null.example", "b@none.example"] {
            assert!(report.contains(words), "no {words} in {report}");
        }
        assert!(!report.contains("c@dead.example"), "{report}");
    });
}

#[test]
fn strangers_get_as_much_tls_as_they_can_do() {
    with_names(|| {
        let zone = "tls A 192.0.2.1\nbroken A 192.0.2.2\nclear A 192.0.2.3\nrefused A 192.0.2.4";
        let _names = Names::start(&[("example", zone, Signed::No)]);
        let servers = [
            server(1, Script::default().showing(support::certificates::Shown::Expired)),
            server(2, Script::default().on(HANDSHAKE, Act::Drop)),
            server(3, in_clear()),
            server(4, Script::default().on("STARTTLS", "454 4.7.0 no key today")),
        ];
        let home = household("");
        home.send(
            &["a@tls.example", "a@broken.example", "a@clear.example", "a@refused.example"],
            &complete("x", "hello\n"),
        );
        let heard = servers.map(Relay::finish);
        let content = |dialogue: &Dialogue| (dialogue.letters.len(), !dialogue.encrypted.is_empty());
        let all: Vec<Vec<_>> = heard.iter().map(|heard| heard.iter().map(content).collect()).collect();
        let (none, clear) = ((0, false), (1, false));
        assert_eq!(all, [vec![(1, true)], vec![none, clear], vec![clear], vec![none, clear]]);
        let log = log(&home);
        for words in ["broken.example:25", "454 4.7.0 no key today", "the letter goes there without TLS"] {
            assert!(log.contains(words), "no {words:?} in {log}");
        }
        // Nobody is spoken to in clear where the settings say so.
        let strict = household("tls = \"starttls\"");
        let servers = [server(1, Script::default()), server(3, in_clear())];
        let ended = strict.sendmail(&["a@tls.example", "a@clear.example"], &complete("x", "hello\n"));
        ended.says(0, &["no authority known to this machine has signed", "does not offer STARTTLS"]);
        assert!(servers.into_iter().all(|server| taken(&server.finish()).is_empty()));
        assert!(strict.mailq().contains("a@tls.example") && strict.mailq().contains("a@clear.example"));
    });
}

#[test]
fn what_the_dns_vouches_for_is_demanded() {
    with_names(|| {
        let good = server(1, Script::default());
        let stripped = server(2, in_clear());
        let other = server(3, Script::default());
        let anybody = server(4, Script::default());
        let insecure = server(5, Script::default());
        let pin = good.identity.pin();
        let hash = pin.strip_prefix("sha256:").unwrap();
        let server = |name: &str, number: u8, tlsa: &str| {
            format!("{name} MX 1 mx.{name}\nmx.{name} A 192.0.2.{number}\n_25._tcp.mx.{name} TLSA {tlsa}\n")
        };
        let tlsa = &format!("3 0 1 {hash}");
        let signed = [
            server("good", 1, tlsa),
            server("stripped", 2, tlsa),
            server("other", 3, tlsa),
            server("anybody", 4, &format!("1 0 1 {hash}")),
        ];
        let _names = Names::start(&[
            ("example", &server("insecure", 5, tlsa), Signed::No),
            ("signed.example", &signed.concat(), Signed::Yes),
            ("bogus.example", &server("x", 5, tlsa), Signed::Badly),
        ]);
        let home = household("");
        let to = [
            "a@good.signed.example",
            "a@stripped.signed.example",
            "a@other.signed.example",
            "a@anybody.signed.example",
            "a@insecure.example",
            "a@x.bogus.example",
        ];
        home.send(&to, &complete("x", "hello\n"));
        let listing = home.mailq();
        for (to, why) in [
            ("a@stripped.signed.example", "does not offer STARTTLS, which its TLSA records"),
            ("a@other.signed.example", "a certificate that its TLSA records"),
            ("a@x.bogus.example", "SERVFAIL"),
        ] {
            assert!(listing.contains(to) && listing.contains(why), "{to} {why}: {listing}");
        }
        let encrypted = |server: Relay| {
            let heard = server.finish();
            (taken(&heard).len(), heard.iter().any(|dialogue| !dialogue.encrypted.is_empty()))
        };
        assert_eq!(
            [good, stripped, other, anybody, insecure].map(encrypted),
            [(1, true), (0, false), (0, false), (1, true), (1, true)]
        );
    });
}

#[test]
fn a_queue_run_has_a_connection_a_domain_and_asks_a_dead_one_once() {
    with_names(|| {
        let zone = "a A 192.0.2.1\nb A 192.0.2.2\nbusy A 192.0.2.3\ngone A 192.0.2.9";
        let _names = Names::start(&[("example", zone, Signed::No)]);
        let servers = [
            server(1, in_clear()),
            server(2, in_clear()),
            server(3, in_clear().on(GREETING, Act::SayAndDrop("421 4.3.2 not now".to_owned()))),
        ];
        let home = household("");
        for number in 0..4 {
            for domain in ["gone", "busy", "a", "b"] {
                home.send(&["-odq", &format!("x{number}@{domain}.example")], &complete("x", "hello\n"));
            }
        }
        home.send(&["-odq", "both@a.example", "both@b.example", "both@busy.example"], &complete("x", "hello\n"));
        home.run_queue();
        let [a, b, busy] = servers.map(Relay::finish);
        for heard in [&a, &b] {
            assert_eq!(taken(heard).len(), 5);
            assert!(heard.len() <= 2, "one for the domain, one for the letter to several: {}", heard.len());
        }
        assert_eq!(busy.len(), 1, "nine letters, and one question");
        let listing = home.mailq();
        assert_eq!(listing.matches("@gone.example").count(), 4, "{listing}");
        assert_eq!(listing.matches("@busy.example").count(), 5, "{listing}");
        assert!(!listing.contains("@a.example") && !listing.contains("@b.example"), "{listing}");
    });
}

#[test]
fn another_account_takes_over_for_domains_that_cannot_be_reached_over_as_few_connections_as_ever() {
    with_names(|| {
        let dead: Vec<String> = (0..12).map(|number| format!("d{number} A 192.0.2.9\n")).collect();
        let zone = format!("null MX 0 .\n{}", dead.concat());
        let _names = Names::start(&[("example", &zone, Signed::No)]);
        let relay = server(1, in_clear());
        let home = household("fallback = \"relay\"\n[account.relay]\nhost = \"192.0.2.1:25\"\ntls = \"none\"");
        home.send(&["a@d0.example", "b@d1.example"], &complete("x", "hello\n"));
        home.sendmail(&["a@null.example"], &complete("x", "hello\n")).says(68, &["takes no mail"]);
        for number in 0..12 {
            home.send(&["-odq", &format!("x@d{number}.example")], &complete("x", "hello\n"));
        }
        home.run_queue();
        home.assert_queue_is_empty();
        let heard = relay.finish();
        let mut told = taken(&heard);
        told.sort();
        assert_eq!(told.len(), 14, "{told:?}");
        assert!(heard.len() <= 4, "two for the first letter's domains, two for the run: {}", heard.len());
    });
}

#[test]
fn an_address_that_swallows_packets_and_a_name_server_that_says_nothing_are_survived() {
    with_names(|| {
        let zone = "half AAAA 2001:db8::9\nhalf A 192.0.2.1\n";
        let names = Names::start(&[("example", zone, Signed::No)]);
        let _hole = BlackHole::at("[2001:db8::9]:25".parse().unwrap());
        let server = server(1, in_clear());
        let home = household("");
        home.send(&["a@half.example"], &complete("x", "hello\n"));
        home.assert_queue_is_empty();
        assert_eq!(taken(&server.finish()), ["a@half.example"]);
        drop(names);
        let _mute = UdpSocket::bind("127.0.0.1:53").unwrap();
        let home = Household::new("[account.direct]\nhost = \"mx\"\nfrom = \"a@sender.example\"");
        home.send(&["a@half.example"], &complete("x", "hello\n"));
        let listing = home.mailq();
        assert!(listing.contains("no name server answered for half.example"), "{listing}");
    });
}

#[test]
fn a_proxy_looks_the_mail_servers_up() {
    if !here(&["microsocks"]) {
        return;
    }
    with_names(|| {
        let _names = Names::start(&[("example", "x MX 1 gone.x\nx MX 2 mx.x\nmx.x A 192.0.2.1", Signed::No)]);
        let server = server(1, Script::default());
        let mut microsocks = std::process::Command::new(program("microsocks").unwrap());
        microsocks.args(["-i", "127.0.0.1", "-p", "1080"]).stderr(std::process::Stdio::null());
        let _running = Running(microsocks.spawn().unwrap());
        wait_for("microsocks to listen", || std::net::TcpStream::connect("127.0.0.1:1080").ok());
        let home = household("proxy = \"socks5://127.0.0.1\"");
        home.send(&["a@x.example"], &complete("x", "hello\n"));
        home.assert_queue_is_empty();
        assert_eq!(taken(&server.finish()), ["a@x.example"]);
    });
}

#[test]
fn the_submission_servers_of_a_domain_are_found() {
    with_names(|| {
        let dialogue = |script: Script, records: &str| {
            let relay = Relay::start_at(([192, 0, 2, 1], 465).into(), script);
            let names = Names::start(&[("example", &format!("mx A 192.0.2.1\n{records}"), Signed::No)]);
            let config = format!(
                "[account.a]\nhost = \"srv:example\"\nuser = \"alice\"\npassword = \"s3cret\"\npin = \"{}\"\n\
                 from = \"alice@example\"",
                relay.identity.pin()
            );
            let home = Household::patient(&config);
            home.send(&["bob@example"], &complete("x", "hello\n"));
            home.assert_queue_is_empty();
            drop(names);
            taken(&relay.finish())
        };
        let implicit = "_submissions._tcp SRV 0 1 465 mx\n_submission._tcp SRV 0 1 587 mx";
        assert_eq!(dialogue(Script::default().tls(Tls::Implicit), implicit), ["bob@example"]);
        let none = "_submissions._tcp SRV 0 0 0 .\n_submission._tcp SRV 5 1 587 nobody\n\
                    _submission._tcp SRV 10 1 465 mx\nnobody A 192.0.2.9";
        assert_eq!(dialogue(Script::default(), none), ["bob@example"]);
    });
}

#[test]
fn postfix_is_a_domains_mail_server_and_dane_knows_it() {
    if !here(&["postfix", "saslpasswd2"]) || !Names::are_here() {
        return;
    }
    apart(&ADDRESSES, || {
        let settings = [("smtpd_relay_restrictions", "reject_unauth_destination"), ("smtpd_tls_security_level", "may")];
        let postfix = support::postfix::Postfix::start_at(25, &settings).unwrap();
        let server = fs::read_to_string(postfix.root().join("server.pem")).unwrap();
        let certificate = first_certificate(&server);
        let hash = ring::digest::digest(&ring::digest::SHA512, &certificate);
        let hash = hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().concat();
        let tlsa = |hash: &str| format!("@ MX 1 mx\nmx A 127.0.0.1\n_25._tcp.mx TLSA 3 0 2 {hash}\n");
        let letter = complete("hello", "First letter.\n..\n.\nThe end\n");
        {
            let _names = Names::start(&[("example.org", &tlsa(&"00".repeat(64)), Signed::Yes)]);
            let home = household("");
            home.send(&["bob@example.org"], &letter);
            assert!(home.mailq().contains("TLSA"), "{}", home.mailq());
            postfix.assert_no_letter("bob@example.org");
        }
        let _names = Names::start(&[("example.org", &tlsa(&hash), Signed::Yes)]);
        let home = household("");
        home.send(&["-i", "bob@example.org"], &letter);
        assert_eq!(postfix.letter("bob@example.org").as_sent(), letter);
        assert!(postfix.log().contains("TLS connection established"), "{}", postfix.log());
        // A recipient whom it does not know is none of the others' business.
        let ended = home.sendmail(&["nobody@example.org"], &letter);
        ended.says(67, &["mx.example.org:25", "User unknown"]);
    });
}

/// The first certificate of a PEM file.
fn first_certificate(text: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref().to_vec()
}
