//! The session: which ways there are into it, what is said in clear, and when it begins and ends.

use crate::support::case::{case, check};
use crate::support::relay::{Act, DOT, GREETING, Relay, Script, Segments, Tls};
use crate::support::sendmail::Sendmail;
use std::time::Duration;

/// A session on a good day costs as many round trips as it must, and only EHLO and STARTTLS are said in clear.
#[test]
fn a_letter_arrives_in_the_fewest_flights_and_nothing_of_it_goes_in_clear() {
    let many: Vec<String> = (0..50).map(|i| format!("r{i}@example.org")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let one = ["bob@example.org"];
    let cases = [("one recipient", &one[..]), ("fifty recipients", &many)].map(|(name, words)| {
        let count = words.len();
        case(name).words(words).also(move |_, _, heard| {
            let dialogue = &heard[0];
            let clear = String::from_utf8_lossy(&dialogue.clear);
            let commands = dialogue.commands.iter().map(String::as_str);
            let hello: Vec<&str> = commands.take_while(|command| !command.starts_with("MAIL")).collect();
            let login = ("PLAIN".to_owned(), "alice".to_owned(), "s3cret".to_owned());
            // EHLO, STARTTLS, ClientHello, Finished with EHLO, AUTH, MAIL to DATA, content, and a QUIT that is not
            // waited for.
            let flights = 8;
            for (what, holds) in [
                ("clear text", clear == "EHLO client.example\r\nSTARTTLS\r\n"),
                (
                    "session",
                    hello.len() == 4 && hello[2] == "EHLO client.example" && hello[3].starts_with("AUTH PLAIN "),
                ),
                ("login", dialogue.logins == [login]),
                ("recipients", dialogue.letters[0].recipients.len() == count),
                ("flights", dialogue.flights == flights),
                ("good-bye", dialogue.commands.last().is_some_and(|last| last == "QUIT")),
                ("server name for an address", dialogue.sni.is_none()),
            ] {
                if !holds {
                    return Err(format!("{what}: {clear:?} {:?} {} flights", dialogue.logins, dialogue.flights));
                }
            }
            Ok(())
        })
    });
    check(cases);
}

#[test]
fn a_session_can_be_had_in_every_way_that_the_settings_allow() {
    check([
        case("implicit TLS").relay(Script::default().tls(Tls::Implicit)).account("tls = \"implicit\""),
        case("by name").account("host = \"localhost\"").also(|_, _, heard| match heard[0].sni.as_deref() {
            Some("localhost") => Ok(()),
            other => Err(format!("SNI: {other:?}")),
        }),
        case("no TLS, no user").relay(Script::open()).account("tls = \"none\"\nuser =\npassword ="),
        case("no TLS, a user, on this machine").relay(Script::default().tls(Tls::Off)).account("tls = \"none\""),
        case("AUTH LOGIN where there is nothing else").relay(Script::default().mechanisms("LOGIN")),
        case("AUTH LOGIN where the settings say so").account("auth = \"login\"").also(|_, _, heard| {
            if heard[0].logins[0].0 == "LOGIN" { Ok(()) } else { Err(format!("{:?}", heard[0].logins)) }
        }),
        case("extensions in lower case").relay(
            Script::default()
                .on("EHLO", "250-relay.example\n250-pipelining\n250-size 1000000\n250-starttls\n250 auth plain"),
        ),
        case("replies cut into octets").relay(Script::default().segments(Segments::Octets)),
        case("replies in segments of their own").relay(Script::default().segments(Segments::Replies)),
        case("no PIPELINING").relay(Script::default().offering(&["SIZE 100000", "8BITMIME"])),
        case("no extensions at all")
            .relay(Script::default().offering(&[]))
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@example.org>\nDATA"),
        case("HELO for a server without EHLO")
            .relay(Script::open().on("EHLO", "502 5.5.1 not known"))
            .account("tls = \"none\"\nuser =\npassword =")
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@example.org>\nDATA"),
        case("bare codes")
            .relay(Script::default().on("MAIL", "250").on("RCPT", "250").on("DATA", "354").on(DOT, "250")),
        case("a greeting and a refusal in Latin-1")
            .relay(Script::default().on(GREETING, Act::Raw(b"220-Gr\xfc\xdfe\r\n220 relay\r\n".to_vec()))),
        case("a reply that is slow but not too slow")
            .relay(Script::default().on("MAIL", Act::Drip("250 2.1.0 ok\r\n".to_owned(), Duration::from_millis(20)))),
        case("251 for a recipient").relay(Script::default().on("RCPT", "251 2.1.5 will forward")),
    ]);
}

#[test]
fn nobody_is_connected_to_before_the_message_has_ended() {
    let relay = Relay::start(Script::default());
    let sendmail = Sendmail::to(&relay);
    let mut running = sendmail.start(&["bob@example.org"]);
    running.feed("Subject: x\n\n".as_bytes());
    running.feed("hello\n".repeat(100_000).as_bytes());
    running.wait_until_fed();
    assert_eq!(relay.connections(), 0);
    let ran = running.end();
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert_eq!(relay.finish().len(), 1);
}

#[test]
fn a_letter_that_is_only_queued_meets_no_relay() {
    check(["-odq", "-odd", "-odb"].map(|mode| {
        case(mode).words(&[mode, "bob@example.org"]).unsent().queued(&["bob@example.org", "in 1 Request"])
    }));
}

/// The caller is let go at the deadline, and the letter is in the queue.
#[test]
fn a_caller_waits_no_longer_than_the_deadline() {
    check([GREETING, "EHLO", "AUTH", "MAIL", "RCPT", "DATA"].map(|moment| {
        case(moment)
            .relay(Script::default().on(moment, Act::Stall))
            .queue("deadline = \"1s\"")
            .undelivered()
            .queued(&["bob@example.org", "in 1 Request"])
    }));
}

#[test]
fn an_answer_to_the_final_dot_counts_even_behind_the_deadline() {
    let late = |name: &str, answer: &str| {
        let script = Script::default().on(DOT, Act::Drip(format!("{answer}\r\n"), Duration::from_millis(100)));
        case(name).relay(script).queue("deadline = \"1s\"")
    };
    check([
        late("taken", "250 2.0.0 taken, after all").unqueued(),
        late("refused", "550 5.6.0 no, after all of that")
            .undelivered()
            .queued(&["MAILER-DAEMON", "alice@example.com"]),
    ]);
}

/// A second relay for the cases that need one.
#[test]
fn accounts_are_chosen_and_stood_in_for() {
    let (one, two) = (Relay::start(Script::default()), Relay::start(Script::open()));
    let sendmail = Sendmail::to(&one);
    let other = format!(
        "\n[account.other]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nsenders = [\"*@lists.example\"]\n\
         recipients = [\"*@corp.example\"]\n\
         [account.dead]\nhost = [\"127.0.0.1:1\"]\ntls = \"none\"\nfallback = \"other\"\n\
         [account.several]\nhost = [\"127.0.0.1:1\", \"127.0.0.1:{}\"]\ntls = \"none\"\n",
        two.address.port(),
        two.address.port()
    );
    let path = sendmail.home().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap() + &other;
    sendmail.put("config.toml", &config);
    // Words, and how many recipients have come to each relay afterwards.
    let rows: [(&[&str], [usize; 2]); 7] = [
        (&["bob@example.org"], [1, 0]),
        (&["-a", "other", "bob@example.org"], [1, 1]),
        (&["-f", "news@lists.example", "bob@example.org"], [1, 2]),
        (&["bob@example.org", "carol@corp.example"], [2, 3]),
        (&["-a", "dead", "bob@example.org"], [2, 4]),
        (&["-a", "several", "bob@example.org"], [2, 5]),
        (&["-f", "alice+tag@example.com", "bob@example.org"], [3, 5]),
    ];
    for (words, _) in rows {
        let ran = sendmail.run(words, b"Subject: x\n\nhello\n");
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{words:?}");
    }
    let ran = sendmail.run(&["-a", "nobody", "bob@example.org"], b"Subject: x\n\nhello\n");
    assert_eq!(ran.status, 78, "{ran:?}");
    assert!(ran.stderr.contains("nobody"), "{ran:?}");
    let came = [one, two].map(|relay| {
        relay
            .finish()
            .iter()
            .flat_map(|dialogue| &dialogue.letters)
            .map(|letter| letter.recipients.len())
            .sum::<usize>()
    });
    assert_eq!(came, rows[6].1);
}
