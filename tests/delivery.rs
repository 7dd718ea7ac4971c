//! Letters on their way to a relay: what arrives there, and what the caller is told.
//!
//! Everything runs as it will: the real `sendmail`, a configuration file, a relay on loopback behind verified
//! STARTTLS with AUTH. The relay plays the part that each case gives it.

mod support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::case::{case, check, text};
use support::certificates::Shown;
use support::relay::{Act, CONTENT, DOT, GREETING, HANDSHAKE, Letter, Relay, Script, Segments, Tls};
use support::sendmail::Sendmail;

const OWN: &str = "From: Alice Tester <alice@example.com>\nDate: *\nMessage-ID: <*@example.com>\n";

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
            // EHLO, STARTTLS, ClientHello, Finished with EHLO, AUTH, MAIL to DATA, content, and a QUIT that is not waited for.
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

/// The recipients that arguments and header give: who, and nobody twice.
#[test]
fn the_envelope_has_everybody_once() {
    let rows: &[(&str, &[&str], &str, &[&str])] = &[
        ("arguments", &["a@x.example", "b@x.example"], "", &["a@x.example", "b@x.example"]),
        ("a list in one argument", &["a@x.example, B <b@x.example>"], "", &["a@x.example", "b@x.example"]),
        ("duplicates", &["a@x.example", "a@X.EXAMPLE", "A@x.example"], "", &["A@x.example", "a@x.example"]),
        ("an empty argument among others", &["", "a@x.example"], "", &["a@x.example"]),
        ("without -t the header is not asked", &["a@x.example"], "To: b@x.example\n", &["a@x.example"]),
        (
            "-t and arguments",
            &["-t", "a@x.example", "b@x.example"],
            "To: b@x.example\nCc: c@x.example\nBcc: d@x.example\nTo: e@x.example\n",
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"],
        ),
        ("clusters", &["-tif", "alice@example.com"], "To: a@x.example\n", &["a@x.example"]),
        (
            "Bcc in odd spellings",
            &["-t"],
            "To : a@x.example\nBCC: b@x.example\nbcc : c@x.example,\n\td@x.example\nBcc:\n",
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
        ),
        (
            "the newest Resent block only",
            &["-t"],
            "Resent-To: a@x.example\nResent-Bcc: b@x.example\nResent-From: me@x.example\nReceived: from x\n\
             Resent-To: old@x.example\nResent-From: old@x.example\nTo: c@x.example\nBcc: d@x.example\n",
            &["a@x.example", "b@x.example"],
        ),
        (
            "groups",
            &["-t"],
            "To: friends: a@x.example, B <b@x.example>;, undisclosed-recipients:;\nCc: c@x.example\n",
            &["a@x.example", "b@x.example", "c@x.example"],
        ),
        (
            "comments, routes, encoded words, empty items",
            &["-t"],
            "To: (to (nested)) a@x.example (a), <@r.example,@s.example:b@x.example>,,\n \
             =?utf-8?q?J=C3=B6rg=2C_c?= <c@x.example>, \"d, d\" <d@x.example>,\n",
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
        ),
        (
            "quoted local parts",
            &["\"john doe\"@x.example", "\"a@b\"@x.example", "\"plain\"@x.example"],
            "",
            &["\"a@b\"@x.example", "\"john doe\"@x.example", "plain@x.example"],
        ),
        ("spaces around the @", &["-t"], "To: a @ x.example\n", &["a@x.example"]),
        ("an address literal", &["a@[192.0.2.1]"], "", &["a@[192.0.2.1]"]),
        ("names without a domain", &["root"], "", &["root@box.example"]),
        ("an international domain", &["bob@bücher.example"], "", &["bob@xn--bcher-kva.example"]),
        ("a dash behind --", &["--", "-dash@x.example"], "", &["-dash@x.example"]),
        ("semicolons, as Outlook has them", &["-t"], "To: a@x.example; b@x.example\n", &["a@x.example", "b@x.example"]),
        ("a long local part, as SRS makes them", &[LONG], "", &[LONG]),
    ];
    let cases = rows.iter().map(|(name, words, header, recipients)| {
        let rcpts: Vec<String> = recipients.iter().map(|to| format!("RCPT TO:<{to}>")).collect();
        case(name)
            .words(words)
            .input(format!("{header}Subject: x\n\nhello\n"))
            .wire(&format!("MAIL FROM:<alice@example.com> SIZE=#\n{}\nDATA", rcpts.join("\n")))
    });
    check(cases);
}

const LONG: &str = "srs0=abcd=ef=a-sender-with-a-long-domain.example=a-sender-with-a-long-local-part@x.example";

#[test]
fn a_recipient_that_needs_smtputf8_gets_it_and_others_do_not() {
    check([
        case("a local part")
            .words(&["jörg@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=# SMTPUTF8\nRCPT TO:<jörg@example.org>\nDATA"),
        case("a sender")
            .words(&["-f", "jörg@example.org", "bob@example.org"])
            .wire("MAIL FROM:<jörg@example.org> SIZE=# BODY=8BITMIME SMTPUTF8\nRCPT TO:<bob@example.org>\nDATA"),
        case("only a domain, without the extension")
            .relay(Script::default().offering(&["PIPELINING"]))
            .words(&["bob@bücher.example"])
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@xn--bcher-kva.example>\nDATA"),
        case("a local part without the extension costs the others nothing")
            .relay(Script::default().offering(&["PIPELINING"]))
            .words(&["jörg@example.org", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@example.org>\nDATA")
            .queued(&["MAILER-DAEMON"]),
        case("and alone it is refused")
            .relay(Script::default().offering(&["PIPELINING"]))
            .words(&["jörg@example.org"])
            .status(65)
            .says(&["jörg@example.org", "RELAY", "SMTPUTF8"])
            .undelivered()
            .wire("")
            .unqueued(),
    ]);
}

#[test]
fn the_reverse_path_is_what_was_asked_for() {
    let rows: &[(&str, &[&str], &str)] = &[
        ("none: the account's", &[], "alice@example.com"),
        ("-f", &["-f", "a@x.example"], "a@x.example"),
        ("-f attached", &["-fa@x.example"], "a@x.example"),
        ("-r", &["-r", "a@x.example"], "a@x.example"),
        ("the last one counts", &["-f", "a@x.example", "-rb@x.example"], "b@x.example"),
        ("angles", &["-f", "<a@x.example>"], "a@x.example"),
        ("a name", &["-f", "A Name <a@x.example>"], "a@x.example"),
        ("the null path", &["-f", "<>"], ""),
        ("the null path, empty", &["-f", ""], ""),
        ("without a domain", &["-f", "root"], "root@box.example"),
    ];
    check(rows.iter().map(|(name, words, path)| {
        let words: Vec<&str> = words.iter().copied().chain(["bob@example.org"]).collect();
        case(name).words(&words).wire(&format!("MAIL FROM:<{path}> SIZE=#\nRCPT TO:<bob@example.org>\nDATA"))
    }));
    check([case("an international domain")
        .words(&["-f", "a@bücher.example", "bob@example.org"])
        .wire("MAIL FROM:<a@xn--bcher-kva.example> SIZE=#\nRCPT TO:<bob@example.org>\nDATA")]);
}

#[test]
fn the_header_is_completed_and_otherwise_left_alone() {
    let whole = "From: X <x@x.example>\nDate: Tue, 1 Jul 2003 10:52:37 +0200\nMessage-ID: <m@x>\n";
    check([
        case("nothing there").input("Subject: x\n\nhello\n").content(&format!("Subject: x\n{OWN}\nhello\n")),
        case("all there").input(format!("{whole}\nhello\n")).content(&format!("{whole}\nhello\n")),
        case("odd but legal fields pass byte for byte")
            .input(format!("{whole}X-Odd:   two  spaces\t\nSubject:folded\n\tline\nx:\n\nhello\n"))
            .content(&format!("{whole}X-Odd:   two  spaces\t\nSubject:folded\n\tline\nx:\n\nhello\n")),
        case("Bcc never reaches the wire, -t or not")
            .input(format!("{whole}Bcc: secret@x.example\nbcc : s2@x.example,\n s3@x.example\nTo: b@x.example\n\nhello\n"))
            .content(&format!("{whole}To: b@x.example\n\nhello\n")),
        case("nor does Resent-Bcc, and a resent letter gets its trio")
            .words(&["-t"])
            .input(format!("Resent-To: b@x.example\nResent-Bcc: secret@x.example\n{whole}\nhello\n"))
            .content(&format!(
                "Resent-From: Alice Tester <alice@example.com>\nResent-Date: *\nResent-Message-ID: <*@example.com>\n\
                 Resent-To: b@x.example\n{whole}\nhello\n"
            )),
        case("Return-Path is dropped and empty fields are tidied")
            .input("Return-Path: <r@x.example>\nTo:\nCc: \nFrom:\nDate:\nSubject:\n\nhello\n")
            .content(&format!("Subject:\n{OWN}\nhello\n")),
        case("-F").words(&["-F", "O'Neil, J. (x)", "bob@example.org"]).content(
            "Subject: x\nFrom: \"O'Neil, J. (x)\" <alice@example.com>\nDate: *\nMessage-ID: <*@example.com>\n\nhello\n",
        ),
        case("-F beyond ASCII").words(&["-F", "Jörg", "bob@example.org"]).content(
            "Subject: x\nFrom: =?utf-8?B?SsO2cmc=?= <alice@example.com>\nDate: *\nMessage-ID: <*@example.com>\n\nhello\n",
        ),
        case("an empty -F").words(&["-F", "", "bob@example.org"]).content(
            "Subject: x\nFrom: alice@example.com\nDate: *\nMessage-ID: <*@example.com>\n\nhello\n",
        ),
        case("-G adds nothing and still hides Bcc")
            .words(&["-G", "bob@example.org"])
            .input("Subject: x\nBcc: secret@x.example\n\nhello\n")
            .content("Subject: x\n\nhello\n"),
        case("local names in the header get their domain")
            .input(format!("{whole}To: root, Bob <bob>\n\nhello\n"))
            .content(&format!("{whole}To: root@box.example, Bob <bob@box.example>\n\nhello\n")),
        case("-f names the author").words(&["-f", "a@x.example", "bob@example.org"]).content(
            "Subject: x\nFrom: Alice Tester <a@x.example>\nDate: *\nMessage-ID: <*@x.example>\n\nhello\n",
        ),
    ]);
}

#[test]
fn the_body_arrives_as_it_was_meant() {
    let plain = |name: &str, input: &[u8], body: &str| case(name).input(input).body(body);
    let head = b"Subject: x\n\n";
    let with = |body: &[u8]| [&head[..], body].concat();
    check([
        plain("dots are stuffed on the wire", &with(b".a\n..\n.\n\n.b\n"), ".a\n..\n").words(&["bob@example.org"]),
        plain("a lone dot ends it", &with(b"one\n.\ntwo\n"), "one\n"),
        plain("a lone dot with CRLF ends it", &with(b"one\r\n.\r\ntwo\r\n"), "one\n"),
        plain("a lone dot without a line end ends it", &with(b"one\n."), "one\n"),
        plain("not with -i", &with(b"one\n.\n..\ntwo\n"), "one\n.\n..\ntwo\n").words(&["-i", "bob@example.org"]),
        plain("not with -oi", &with(b"one\n.\ntwo\n"), "one\n.\ntwo\n").words(&["-oi", "bob@example.org"]),
        plain("CRLF", b"Subject: x\r\n\r\none\r\ntwo\r\n", "one\ntwo\n"),
        plain("mixed ends", &with(b"one\r\ntwo\nthree\r\r\nfour\n"), "one\ntwo\nthree\n\nfour\n"),
        plain("a bare CR", &with(b"one\rtwo\n"), "one\ntwo\n"),
        plain("smuggling", &with(b"one\r.\r\nMAIL FROM:<x@y>\r\n"), "one\n.\nMAIL FROM:<x@y>\n")
            .words(&["-i", "b@x.example"]),
        plain("no last line end", &with(b"one"), "one\n"),
        plain("blank lines at the end", &with(b"one\n\n\n"), "one\n\n\n"),
        plain("an empty body", head, ""),
        plain("no body", b"Subject: x\n", ""),
        plain("a header without its last line end", b"Subject: x", ""),
        plain("an empty message", b"", ""),
        plain("mbox lines", b"From a@b Tue Jul  1 10:52:37 2003\n>From x\nSubject: x\n\nFrom here\n", "From here\n"),
        plain("no header at all", b"hello there\nsecond\n", "hello there\nsecond\n"),
        plain("text that looks like no field", b"Subject: x\nhello there\nTo: me\n", "hello there\nTo: me\n"),
        plain("an empty line first", b"\nhello\n", "hello\n"),
        plain("trailing blanks", &with(b"one \t\n"), "one \t\n"),
        plain(
            "a line of 998 octets",
            &with(format!("{}\n", "x".repeat(998)).as_bytes()),
            &format!("{}\n", "x".repeat(998)),
        ),
    ]);
}

/// Three megabytes, more than is kept in memory, with every octet of it that hurts.
#[test]
fn a_large_letter_arrives_byte_for_byte() {
    let line = "..dots, \u{e9}, trailing blank \n.\n";
    let body = line.repeat(3 * 1024 * 1024 / line.len());
    check([case("3 MiB")
        .words(&["-i", "bob@example.org"])
        .input(format!("Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{body}"))
        .wire("MAIL FROM:<alice@example.com> SIZE=# BODY=8BITMIME\nRCPT TO:<bob@example.org>\nDATA")
        .body(&body)]);
}

#[test]
fn lines_that_are_too_long_are_encoded_or_folded() {
    let long = "word ".repeat(400);
    let words = long.trim_end().to_owned();
    check([
        case("a body line").input(format!("Subject: x\n\n{words}\nshort\n")).letter({
            let words = words.clone();
            move |letter| {
                let got = text(&letter.content)?;
                let is_marked = got.to_ascii_lowercase().contains("\ncontent-transfer-encoding: quoted-printable\n");
                let body = got.split_once("\n\n").map(|(_, body)| body.replace("=\n", "")).unwrap_or_default();
                let body = body.replace("=20", " ");
                if is_marked && body == format!("{words}\nshort\n") { Ok(()) } else { Err(format!("{got:?}")) }
            }
        }),
        case("a header line").input(format!("Subject: {words}\n\nhello\n")).letter(move |letter| {
            let got = text(&letter.content)?;
            let unfolded = got.replace("\n ", " ").replace("\n\t", "\t");
            if unfolded.contains(&format!("Subject: {words}\n")) { Ok(()) } else { Err(format!("{got:?}")) }
        }),
        case("a header line without white space").input(format!("X-Long: {}\n\nhello\n", "y".repeat(2_000))).letter(
            |letter| {
                let got = text(&letter.content)?;
                let is_short = got.lines().all(|line| line.len() <= 998);
                let is_whole = got.replace("\n ", "").contains(&format!("X-Long: {}\n", "y".repeat(2_000)));
                if is_short && is_whole { Ok(()) } else { Err(format!("{got:?}")) }
            },
        ),
    ]);
}

#[test]
fn eight_bit_content_goes_as_the_relay_can_take_it() {
    let input = "Subject: x\n\nGrüße\n";
    let seven = Script::default().offering(&["PIPELINING"]);
    check([
        case("8BITMIME")
            .input(input)
            .body("Grüße\n")
            .wire("MAIL FROM:<alice@example.com> SIZE=# BODY=8BITMIME\nRCPT TO:<bob@example.org>\nDATA"),
        case("7 bits ask for nothing")
            .words(&["-B8BITMIME", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org>\nDATA"),
        case("without 8BITMIME it is converted").input(input).relay(seven.clone()).letter(|letter| {
            let got = text(&letter.content)?;
            let lower = got.to_ascii_lowercase();
            let is_marked =
                ["mime-version: 1.0\n", "content-type: text/plain; charset=", "content-transfer-encoding: "]
                    .iter()
                    .all(|field| lower.contains(field));
            let is_right = got.ends_with("\n\nGr=C3=BC=C3=9Fe\n") || got.ends_with("\n\nR3LDvMOfZQo=\n");
            if is_marked && is_right && got.is_ascii() { Ok(()) } else { Err(format!("{got:?}")) }
        }),
        case("a signed one is refused rather than broken")
            .input("Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b\n\n--b\n\nGrüße\n--b--\n")
            .relay(seven)
            .status(65)
            .says(&["<bob@example.org>", "RELAY", "account work", "8-bit"])
            .undelivered()
            .wire("")
            .unqueued(),
    ]);
}

#[test]
fn a_letter_that_is_too_large_is_refused_before_it_is_sent() {
    check([case("over SIZE")
        .relay(Script::default().offering(&["PIPELINING", "SIZE 1000"]))
        .input(format!("Subject: x\n\n{}", "0123456789\n".repeat(100)))
        .status(65)
        .says(&["<bob@example.org>", "RELAY", "account work", "1000"])
        .undelivered()
        .wire("")
        .unqueued()]);
}

#[test]
fn what_cannot_be_a_letter_is_refused_with_its_place() {
    check([
        case("a NUL")
            .input(b"Subject: x\n\none\ntwo\0\nthree\n")
            .status(65)
            .says(&["NUL", "line 4"])
            .unsent()
            .unqueued(),
        case("a NUL in the header").input(b"Sub\0ject: x\n\none\n").status(65).says(&["NUL", "line 1"]).unsent(),
        case("a name with an unquoted comma")
            .words(&["-t"])
            .input("To: Doe, John <john@x.example>\n\nhello\n")
            .status(65)
            .says(&["To", "column"])
            .unsent()
            .unqueued(),
        case("an address that cannot be read")
            .words(&["-t"])
            .input("To: a@x.example, <b@x.example\n\nhello\n")
            .status(65)
            .says(&["To"])
            .unsent()
            .unqueued(),
    ]);
}

#[test]
fn reports_are_asked_for_where_the_relay_can_give_them() {
    let words = ["-N", "failure,delay", "-R", "hdrs", "-V", "id+1", "bob@example.org"];
    check([
        case("DSN").words(&words).wire(
            "MAIL FROM:<alice@example.com> SIZE=# RET=HDRS ENVID=id+2B1\nRCPT TO:<bob@example.org> NOTIFY=FAILURE,DELAY\nDATA",
        ),
        case("never").words(&["-Nnever", "bob@example.org"]).wire(
            "MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org> NOTIFY=NEVER\nDATA",
        ),
        case("not offered: the letter goes all the same, in silence")
            .words(&words)
            .relay(Script::default().offering(&["PIPELINING"]))
            .wire("MAIL FROM:<alice@example.com>\nRCPT TO:<bob@example.org>\nDATA"),
        case("an unknown word is ignored").words(&["-N", "sometimes", "-R", "bits", "bob@example.org"]).wire(
            "MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org>\nDATA",
        ),
    ]);
}

const THREE: [&str; 3] = ["a@x.example", "bad@x.example", "c@x.example"];
const UNKNOWN: &str = "550 5.1.1 no such user";

#[test]
fn one_refused_recipient_does_not_cost_the_others() {
    let refused = |name: &str| {
        case(name).words(&THREE).relay(Script::default().on("RCPT TO:<bad@", UNKNOWN)).letter(|letter| {
            if letter.recipients.len() == 2 { Ok(()) } else { Err(format!("{:?}", letter.recipients)) }
        })
    };
    check([
        refused("refused: the sender gets a report").queued(&["MAILER-DAEMON", "alice@example.com"]),
        refused("refused, no queue")
            .queue("off")
            .status(67)
            // Whoever sends again must know who has it already.
            .says(&["<bad@x.example>", "RELAY", "account work", UNKNOWN, "after RCPT TO"])
            .says(&["<a@x.example> relayed by", "<c@x.example> relayed by"]),
        refused("put off: it waits in the queue")
            .relay(Script::default().on("RCPT TO:<bad@", "450 4.2.0 greylisted"))
            .queued(&["bad@x.example", "greylisted", "in 1 Request"]),
        refused("without PIPELINING")
            .relay(Script::default().offering(&["SIZE 1000000"]).on("RCPT TO:<bad@", UNKNOWN))
            .queued(&["MAILER-DAEMON"]),
        refused("with a null sender nobody is to be told")
            .words(&["-f", "<>", "a@x.example", "bad@x.example", "c@x.example"])
            .unqueued(),
    ]);
}

#[test]
fn a_refusal_of_everybody_is_told_to_the_caller_and_nothing_is_kept() {
    let refused = |name: &str, script: Script, status: i32, parts: &[&str]| {
        let facts = ["<bob@example.org>", "RELAY", "account work"];
        case(name).relay(script).status(status).says(&facts).says(parts).undelivered().unqueued()
    };
    check([
        refused("RCPT", Script::default().on("RCPT", UNKNOWN), 67, &[UNKNOWN, "after RCPT TO"]),
        refused(
            "MAIL",
            Script::default().on("MAIL", "550 5.7.1 not you"),
            65,
            &["550 5.7.1 not you", "after MAIL FROM"],
        ),
        refused("DATA", Script::default().on("DATA", "554 5.7.1 spam"), 65, &["554 5.7.1 spam", "after DATA"]),
        refused("the dot", Script::default().on(DOT, "554 5.6.0 no"), 65, &["554 5.6.0 no", "after the final dot"]),
        refused(
            "escaped",
            Script::default().on("RCPT", Act::Raw(b"550 \x1b[2J\x9b\r\n".to_vec())),
            67,
            &["550 \\x1b[2J"],
        )
        .hides(&["\x1b", "\u{9b}"]),
        refused(
            "more than one line",
            Script::default().on("RCPT", "550-5.1.1 no such\n550 5.1.1 user"),
            67,
            &["550 5.1.1 no such user"],
        ),
        refused("MAIL, no queue", Script::default().on("MAIL", "550 5.7.1 not you"), 65, &["550 5.7.1"]).queue("off"),
        refused("all three", Script::default().on("RCPT", UNKNOWN), 67, &[])
            .words(&["bob@example.org", "carol@example.org", "dave@example.org"])
            .says(&["<carol@example.org>", "<dave@example.org>"]),
        case("-oeq is silent")
            .words(&["-oeq", "bob@example.org"])
            .relay(Script::default().on("RCPT", UNKNOWN))
            .status(67)
            .undelivered()
            .unqueued(),
        case("-oee: a report, and 0")
            .words(&["-oee", "bob@example.org"])
            .relay(Script::default().on("RCPT", UNKNOWN))
            .undelivered()
            .queued(&["MAILER-DAEMON", "alice@example.com"]),
    ]);
}

/// What is temporary: kept in silence where there is a queue, 75 and a sentence where there is none.
#[test]
fn what_is_temporary_is_kept_or_told() {
    let rows: Vec<(&str, Script, &str, &str)> = vec![
        ("MAIL", Script::default().on("MAIL", "451 4.3.0 later"), "", "451 4.3.0 later"),
        ("RCPT", Script::default().on("RCPT", "450 4.2.0 greylisted"), "", "450 4.2.0 greylisted"),
        ("DATA", Script::default().on("DATA", "451 4.3.0 later"), "", "451 4.3.0 later"),
        ("the dot", Script::default().on(DOT, "452 4.3.1 disk full"), "", "452 4.3.1 disk full"),
        (
            "the greeting",
            Script::default().on(GREETING, Act::SayAndDrop("421 4.3.2 busy".into())),
            "",
            "421 4.3.2 busy",
        ),
        (
            "421 for RCPT",
            Script::default().on("RCPT", Act::SayAndDrop("421 4.3.2 closing".into())),
            "",
            "421 4.3.2 closing",
        ),
        ("AUTH put off", Script::default().on("AUTH", "454 4.7.0 backend down"), "", "454 4.7.0 backend down"),
        ("STARTTLS put off", Script::default().on("STARTTLS", "454 4.7.0 no TLS now"), "", "454 4.7.0 no TLS now"),
        ("dropped before the greeting", Script::default().on(GREETING, Act::Drop), "", ""),
        ("reset before the greeting", Script::default().on(GREETING, Act::Reset), "", ""),
        ("dropped in the handshake", Script::default().on(HANDSHAKE, Act::Drop), "", ""),
        ("dropped after MAIL", Script::default().on("MAIL", Act::Drop), "", ""),
        ("stalled greeting", Script::default().on(GREETING, Act::Stall), "timeout = \"1s\"", ""),
        ("stalled handshake", Script::default().on(HANDSHAKE, Act::Stall), "timeout = \"1s\"", ""),
        ("stalled inside TLS", Script::default().on("RCPT", Act::Stall), "timeout = \"1s\"", ""),
        (
            "a reply that drips",
            Script::default()
                .on("MAIL", Act::Drip("250 2.1.0 o".to_owned() + &"k".repeat(100), Duration::from_millis(100))),
            "timeout = \"1s\"",
            "",
        ),
    ];
    let mut cases = Vec::new();
    for (name, script, account, words) in rows {
        let base = |name: String| case(&name).relay(script.clone()).account(account).undelivered();
        cases.push(base(format!("{name}, queue")).queued(&["bob@example.org", "in 1 Request", words]));
        cases.push(base(format!("{name}, no queue")).queue("off").status(75).says(&[
            "<bob@example.org>",
            "RELAY",
            "account work",
            words,
        ]));
    }
    // More than fits into the buffers on the way, so that its end has not been sent.
    let large = format!("Subject: x\n\n{}", "0123456789\n".repeat(1024 * 1024));
    let dropped = Script::default().on(CONTENT, Act::DropAfter(100_000)).offering(&["PIPELINING"]);
    let dropped = case("dropped in the content").relay(dropped).input(large).undelivered().queue("off").status(75);
    cases.push(dropped.says(&["<bob@example.org>", "RELAY", "account work"]).hides(&["duplicate"]));
    cases.push(case("a dead port, queue").account("port = 1").unsent().queued(&["bob@example.org", "refused"]));
    cases.push(case("a dead port, no queue").account("port = 1").queue("off").status(75).unsent().says(&[
        "<bob@example.org>",
        "127.0.0.1:1",
        "account work",
        "refused",
    ]));
    check(cases);
}

#[test]
fn a_lost_final_answer_is_neither_success_nor_failure() {
    for act in [Act::Drop, Act::Reset, Act::Stall] {
        let lost = |name: &str| {
            case(&format!("{name} {act:?}"))
                .relay(Script::default().on(DOT, act.clone()))
                .account("timeout = \"1s\"")
                .undelivered()
        };
        check([
            lost("queue").queued(&["bob@example.org", "in 1 Request"]),
            lost("no queue").queue("off").status(75).says(&["<bob@example.org>", "possible duplicate"]),
            lost("watched").words(&["-v", "bob@example.org"]).says(&["possible duplicate", "queue"]),
        ]);
    }
}

#[test]
fn a_server_that_breaks_the_protocol_gets_nothing_more() {
    let broken = |name: &str, script: Script| {
        case(name)
            .relay(script)
            .queue("off")
            .status(76)
            .says(&["<bob@example.org>", "RELAY", "account work"])
            .undelivered()
    };
    let injected = Act::Raw(b"220 go\r\n250-relay.example\r\n250 AUTH PLAIN\r\n".to_vec());
    check([
        broken("plaintext behind STARTTLS's 220", Script::default().on("STARTTLS", injected.clone())).also(
            |_, _, heard| {
                let clear = String::from_utf8_lossy(&heard[0].clear);
                let is_over = heard[0].encrypted.is_empty() && !clear.contains("AUTH") && !clear.contains("MAIL");
                if is_over { Ok(()) } else { Err(format!("the session went on: {clear:?}")) }
            },
        ),
        case("the same with a queue")
            .relay(Script::default().on("STARTTLS", injected))
            .undelivered()
            .queued(&["bob@example.org"]),
        broken("no SMTP at all", Script::default().on(GREETING, "SSH-2.0-OpenSSH")),
        broken("a line without an end", Script::default().on(GREETING, Act::Flood(vec![b'x'; 64 * 1024]))),
        broken("lines without an end", Script::default().on(GREETING, Act::Flood(b"220-hello\r\n".repeat(1000)))),
        broken("more answers than questions", Script::default().on("AUTH", "235 2.7.0 ok\n250 2.1.0 ok\n250 2.1.5 ok")),
        broken("250 for AUTH", Script::default().on("AUTH", "250 2.0.0 sure")),
        broken("354 for the dot", Script::default().on(DOT, "354 more")),
        broken("mixed codes", Script::default().on("MAIL", "250-ok\n550 no")),
    ]);
}

/// Our own faults: kept and told where there is a queue, refused with their number where there is none.
#[test]
fn our_own_faults_defer_and_always_speak() {
    let faults: Vec<(&str, Script, &str, i32, Vec<&str>)> = vec![
        ("a wrong password", Script::default(), "password = \"wr0ng-one\"", 77, vec!["535 5.7.8", "after AUTH"]),
        (
            "STARTTLS is missing",
            Script::default().on("EHLO", "250-relay.example\n250 AUTH PLAIN"),
            "",
            69,
            vec!["STARTTLS"],
        ),
        ("no mechanism in common", Script::default().mechanisms("GSSAPI"), "", 69, vec!["GSSAPI"]),
        ("no AUTH offered", Script::default().mechanisms(""), "", 69, vec!["AUTH"]),
        ("an expired certificate", Script::default().showing(Shown::Expired), "", 69, vec!["expired", "2001-01-01"]),
        (
            "a certificate of tomorrow",
            Script::default().showing(Shown::NotYetValid),
            "",
            69,
            vec!["not valid before", "2999"],
        ),
        (
            "a certificate for somebody else",
            Script::default().showing(Shown::OtherName),
            "",
            69,
            vec!["mail.elsewhere.example", "127.0.0.1"],
        ),
        ("a self-signed certificate", Script::default().showing(Shown::SelfSigned), "", 69, vec!["self-signed", "PIN"]),
        ("an unknown authority", Script::default().showing(Shown::OtherAuthority), "", 69, vec!["HOME/ca.pem", "PIN"]),
        ("another pin", Script::default(), WRONG_PIN, 69, vec!["not the pinned one", "PIN"]),
        ("the platform's roots do not know it", Script::default(), "ca_file =", 69, vec!["certificate"]),
    ];
    let mut cases = Vec::new();
    for (name, script, account, status, parts) in faults {
        let base = |name: String| {
            let facts = ["<bob@example.org>", "RELAY", "account work"];
            let base = case(&name).relay(script.clone()).account(account).undelivered().says(&facts).says(&parts);
            base.hides(&["wr0ng-one", "s3cret", "****"]).also(|_, _, heard| {
                let is_over =
                    heard.iter().flat_map(|dialogue| &dialogue.commands).all(|command| !command.starts_with("MAIL"));
                if is_over { Ok(()) } else { Err("MAIL was said".to_owned()) }
            })
        };
        cases.push(base(format!("{name}, queue")).queued(&["bob@example.org", "in 1 Request"]));
        cases.push(base(format!("{name}, no queue")).queue("off").status(status));
    }
    check(cases);
}

/// The old authority's certificate is still in `ca_file`, and the new one has the same name.
#[test]
fn an_authority_that_was_made_anew_is_told_as_an_unknown_one() {
    check([case("NewAuthority")
        .relay(Script::default().showing(Shown::NewAuthority))
        .queue("off")
        .status(69)
        .undelivered()
        .says(&["HOME/ca.pem", "PIN"])]);
}

const WRONG_PIN: &str = "pin = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"";

#[test]
fn a_certificate_can_be_vouched_for_otherwise() {
    check([
        case("a pin instead of a CA")
            .relay(Script::default().showing(Shown::SelfSigned))
            .account("ca_file =\npin = \"PIN\""),
        case("a pin of an expired one").relay(Script::default().showing(Shown::Expired)).account("pin = \"PIN\""),
        case("another name in the settings")
            .relay(Script::default().showing(Shown::OtherName))
            .account("tls_host = \"mail.elsewhere.example\""),
    ]);
}

#[test]
fn a_host_that_does_not_exist_is_our_own_fault() {
    // Without a resolver the look-up fails for the time being, which is another thing.
    let name = "no-such-host.invalid";
    if dns_lookup(name) != Some(false) {
        return;
    }
    let host = format!("host = \"{name}\"");
    check([
        case("queue").account(&host).unsent().says(&[name]).queued(&["bob@example.org"]),
        case("no queue").account(&host).queue("off").unsent().status(68).says(&[
            "<bob@example.org>",
            name,
            "account work",
        ]),
    ]);
}

/// Whether the system knows a name; `None` where it cannot tell at the moment.
fn dns_lookup(name: &str) -> Option<bool> {
    use std::net::ToSocketAddrs;
    match (name, 25).to_socket_addrs() {
        Ok(_) => Some(true),
        Err(error) if error.to_string().contains("not known") => Some(false),
        Err(_) => None,
    }
}

#[test]
fn passwords_come_from_where_the_settings_say() {
    let netrc = |sendmail: Sendmail| {
        sendmail.put(".netrc", "machine 127.0.0.1 login alice password s3cret\n");
        sendmail.put("password", "s3cret\nnot this\n");
        sendmail
    };
    let body = "0123456789\n".repeat(2000);
    check([
        case("a file").world(netrc).account("password = { file = \"HOME/password\" }"),
        case("a netrc").world(netrc).account("password = { netrc = true }"),
        case("a command that reads what it can get")
            .account("password = { command = \"cat; echo s3cret\" }")
            .input(format!("Subject: x\n\n{body}"))
            .body(&body),
        case("a command in words").account("password = { command = [\"echo\", \"s3cret\"] }"),
        case("a command of a caller who ignores SIGCHLD")
            .account("password = { command = \"echo s3cret\" }")
            .world(|sendmail| sendmail.through("exec env --ignore-signal=CHLD \"$@\"")),
        case("a command that fails: kept, and told in its own words")
            .account("password = { command = \"echo s3cret; echo 'no such card' >&2; exit 3\" }")
            .unsent()
            .says(&["<bob@example.org>", "account work", "status 3", "no such card"])
            .hides(&["s3cret"])
            .queued(&["bob@example.org"]),
        case("a file that others can read")
            .world(|sendmail| {
                let path = sendmail.put("password", "s3cret\n");
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
                sendmail
            })
            .account("password = { file = \"HOME/password\" }")
            .unsent()
            .says(&["chmod 600"])
            .queued(&["bob@example.org"]),
        case("a configuration that others can read")
            .world(|sendmail| {
                let path = sendmail.home().join("config.toml");
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
                sendmail
            })
            .unsent()
            .status(78)
            .says(&["chmod"]),
    ]);
}

#[test]
fn the_dialogue_is_shown_without_its_secrets() {
    // `\0alice\0s3cret`, `s3cret`, `alice` in base64.
    let hidden = ["s3cret", "AGFsaWNlAHMzY3JldA==", "czNjcmV0"];
    let shown = [
        "EHLO client.example",
        "STARTTLS",
        "MAIL FROM:<alice@example.com>",
        "RCPT TO:<bob@example.org>",
        "250 2.0.0 taken",
    ];
    check([
        case("PLAIN").words(&["-v", "bob@example.org"]).says(&shown).says(&["AUTH PLAIN ****"]).hides(&hidden),
        case("LOGIN")
            .words(&["-v", "bob@example.org"])
            .relay(Script::default().mechanisms("LOGIN"))
            .says(&shown)
            .says(&["****"])
            .hides(&hidden),
        case("a server that gives them back")
            .words(&["-v", "bob@example.org"])
            .relay(Script::default().on("MAIL", "250 2.1.0 hello s3cret AGFsaWNlAHMzY3JldA== czNjcmV0"))
            .says(&["MAIL FROM"])
            .hides(&hidden),
        case("a refusal that gives them back")
            .relay(Script::default().on("AUTH", "535 5.7.8 not AGFsaWNlAHMzY3JldA== nor s3cret"))
            .undelivered()
            .says(&["535 5.7.8"])
            .hides(&hidden),
        case("a server that plays with the terminal")
            .words(&["-v", "bob@example.org"])
            .relay(Script::default().on("MAIL", "250 2.1.0 \x1b[2J\u{202e}"))
            .says(&["\\x1b[2J"])
            .hides(&["\x1b", "\u{202e}"]),
    ]);
}

#[test]
fn no_address_carries_a_command_to_the_wire() {
    let mut cases = Vec::new();
    for (name, evil) in [
        ("CR LF", "a@x.example>\r\nRCPT TO:<evil@x.example"),
        ("LF", "a@x.example>\nDATA"),
        ("CR", "a@x.example\rDATA"),
        ("CR LF in quotes", "\"a\r\nDATA\"@x.example"),
        ("LF at the end", "a@x.example\n"),
        ("a parameter", "a@x.example> SIZE=1"),
        ("a space", "a b@x.example"),
        ("an angle", "a>b@x.example"),
        ("two addresses", "a@x.example, b@x.example"),
    ] {
        cases.push(
            case(&format!("-f, {name}"))
                .words(&["-f", evil, "bob@example.org"])
                .status(64)
                .says(&[])
                .unsent()
                .unqueued(),
        );
    }
    for (name, evil) in [
        ("CR LF", "a@x.example>\r\nRCPT TO:<evil@x.example"),
        ("LF", "a@x.example>\nDATA"),
        ("CR LF in quotes", "\"a\r\nDATA\"@x.example"),
        ("CR LF in a domain", "a@x.example\r\nDATA"),
        ("an angle", "a>b@x.example"),
    ] {
        cases.push(case(&format!("recipient, {name}")).words(&["--", evil]).status(64).says(&[]).unsent().unqueued());
    }
    cases.push(case("recipient, a parameter").words(&["--", "<a@x.example> SIZE=1"]).status(64).says(&[]).unsent());
    cases.push(
        case("-V, CR LF")
            .words(&["-V", "id\r\nRCPT TO:<evil@x.example>", "bob@example.org"])
            .wire("MAIL FROM:<alice@example.com> SIZE=#\nRCPT TO:<bob@example.org>\nDATA"),
    );
    cases.push(case("-F, CR LF").words(&["-F", "x\r\nBcc: evil@x.example", "bob@example.org"]).letter(|letter| {
        let got = text(&letter.content)?;
        if got.contains("\nBcc") { Err(format!("{got:?}")) } else { Ok(()) }
    }));
    check(cases);
}

#[test]
fn a_wrong_call_is_64_and_its_input_is_read_all_the_same() {
    let input = "Subject: x\n\n".to_owned() + &"0123456789\n".repeat(100_000);
    let wrong = |words: &[&str], part: &str| {
        case(&words.join(" ")).words(words).input(&input).status(64).says(&[part]).unsent().unqueued()
    };
    check([
        wrong(&["-Z", "bob@example.org"], "-Z"),
        wrong(&["-zt"], "-z"),
        wrong(&["--frobnicate"], "--frobnicate"),
        wrong(&["bob@example.org", "-t"], "options must precede recipients"),
        wrong(&["bob@example.org", "-f", "x@y.example"], "options must precede recipients"),
        wrong(&["-"], "-"),
        wrong(&["-f"], "-f"),
        wrong(&["-bv", "bob@example.org"], "-bv"),
        wrong(&["-bd"], "-bd"),
        wrong(&[], "no recipients"),
        wrong(&[""], "no recipients"),
        wrong(&["-t"], "no recipients"),
    ]);
}

#[test]
fn hostile_surroundings_change_nothing() {
    let through = |name: &str, line: &'static str| case(name).world(move |sendmail| sendmail.through(line));
    check([
        through("closed output", "exec \"$@\" >&-").body("hello\n"),
        through("closed error", "exec \"$@\" 2>&-").body("hello\n"),
        through("closed output and error", "exec \"$@\" >&- 2>&-").body("hello\n"),
        through("everything closed: an empty letter", "exec \"$@\" <&- >&- 2>&-").body("").input(""),
        through("an error to a full device", "exec \"$@\" 2>/dev/full").body("hello\n"),
        through("a deleted directory", "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"").body("hello\n"),
        through("no file may be written", "ulimit -f 0; exec \"$@\"").body("hello\n"),
        through("ignored signals", "trap '' PIPE HUP TERM INT; exec \"$@\"").body("hello\n"),
        through("few files", "ulimit -n 16; exec \"$@\"").body("hello\n"),
        through("a wide umask", "umask 000; exec \"$@\"").body("hello\n"),
        case("no HOME").world(|sendmail| sendmail.without("HOME")).body("hello\n"),
        case("a stranger's HOME").world(|sendmail| sendmail.env("HOME", "/proc/1")).body("hello\n"),
        case("a HOME that is not there").world(|sendmail| sendmail.env("HOME", "/nonexistent")).body("hello\n"),
        case("USER and LOGNAME are not believed")
            .world(|sendmail| sendmail.env("USER", "mallory").env("LOGNAME", "mallory").env("NAME", "Mallory"))
            .also(|_, _, heard| {
                let all = String::from_utf8_lossy(&heard[0].encrypted).into_owned();
                if all.to_lowercase().contains("mallory") { Err(all) } else { Ok(()) }
            }),
        case("an empty environment")
            .words(&["-C", "HOME/config.toml", "bob@example.org"])
            .queue("dir = \"HOME/queue\"")
            .world(|sendmail| sendmail.through("exec env -i \"$@\""))
            .body("hello\n"),
        through("no file may be written and the relay is down: 75, and no signal", "ulimit -f 0; exec \"$@\"")
            .account("port = 1")
            .unsent()
            .status(75)
            .says(&[])
            .unqueued(),
    ]);
}

#[test]
fn input_that_fails_delivers_nothing() {
    check([case("a directory")
        .world(|sendmail| sendmail.through("exec \"$@\" </"))
        .input("")
        .status(74)
        .says(&[])
        .unsent()]);
}

#[test]
fn nothing_is_made_by_name_from_the_arguments() {
    let words = ["-X", "HOME/log", "-DHOME/debug", "-oQHOME/queue2", "-OQueueDirectory=HOME/queue3", "bob@example.org"];
    check([case("-X, -D, -oQ, -O").words(&words).also(|sendmail, _, _| {
        let made = ["log", "debug", "queue2", "queue3"].into_iter().find(|name| sendmail.home().join(name).exists());
        made.map_or(Ok(()), |name| Err(format!("{name} was made")))
    })]);
}

#[test]
fn a_letter_that_was_put_off_is_the_same_when_it_goes() {
    let relay = Relay::start(Script::default().once(DOT, "451 4.3.0 later"));
    let sendmail = Sendmail::to(&relay);
    let words = ["-i", "-N", "failure", "-f", "a@x.example", "bob@example.org", "carol@example.org"];
    let input = "Subject: x\nDate: d\nMessage-ID: <m@x>\nFrom: a@x.example\n\n.\n..dots\nGrüße\n";
    for (words, input) in [(&words[..], input), (&["-qf"], "")] {
        let ran = sendmail.run(words, input.as_bytes());
        assert_eq!((ran.status, ran.stderr.as_str()), (Ok(0), ""), "{words:?}");
    }
    assert_eq!(sendmail.run(&["-bp"], b"").stdout, "Mail queue is empty\n");
    let heard = relay.finish();
    let letters: Vec<&Letter> = heard.iter().flat_map(|dialogue| &dialogue.letters).collect();
    let [letter] = letters[..] else { panic!("{letters:?}") };
    assert_eq!(text(&letter.content).unwrap(), input);
    assert!(letter.mail.starts_with("MAIL FROM:<a@x.example> SIZE="), "{letter:?}");
    let recipients = ["bob", "carol"].map(|name| format!("RCPT TO:<{name}@example.org> NOTIFY=FAILURE"));
    assert_eq!(letter.recipients, recipients);
}

/// A letter on its way is kept; one that has not ended is nobody's.
#[test]
fn a_signal_keeps_a_whole_letter_and_drops_half_a_one() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for moment in [GREETING, "MAIL", "RCPT", DOT] {
            let relay = Relay::start(Script::default().on(moment, Act::Stall));
            let sendmail = Sendmail::to(&relay);
            let mut running = sendmail.start(&["bob@example.org"]);
            running.feed(b"Subject: x\n\nhello\n");
            running.hang_up();
            relay.wait_for(1);
            running.signal(signal);
            let ran = running.end();
            assert_eq!((ran.status, ran.stderr.as_str()), (Ok(0), ""), "{signal} at {moment}");
            let list = sendmail.run(&["-bp"], b"").stdout;
            assert!(list.contains("bob@example.org") && list.contains("in 1 Request"), "{signal} at {moment}: {list}");
        }
        let relay = Relay::start(Script::default());
        let sendmail = Sendmail::to(&relay);
        let mut running = sendmail.start(&["bob@example.org"]);
        // More than a pipe holds: when it is taken, the signals are, too.
        running.feed("Subject: x\n\n".as_bytes());
        running.feed("hello\n".repeat(100_000).as_bytes());
        running.wait_until_fed();
        running.signal(signal);
        let ran = running.ended();
        assert_eq!(ran.status, Ok(75), "{signal} in the input: {ran:?}");
        assert_eq!(sendmail.run(&["-bp"], b"").stdout, "Mail queue is empty\n");
        assert_eq!(relay.finish().len(), 0);
    }
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
    assert_eq!((ran.status, ran.stderr.as_str()), (Ok(0), ""));
    assert_eq!(relay.finish().len(), 1);
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
fn a_letter_that_is_only_queued_meets_no_relay() {
    check(["-odq", "-odd", "-odb"].map(|mode| {
        case(mode).words(&[mode, "bob@example.org"]).unsent().queued(&["bob@example.org", "in 1 Request"])
    }));
}

/// A program that calls `sendmail`: its words and input as they were captured, and the envelope and body that follow.
struct Caller {
    name: &'static str,
    words: &'static [&'static str],
    input: &'static str,
    path: &'static str,
    recipients: &'static [&'static str],
    body: &'static str,
}

const fn caller(
    name: &'static str,
    words: &'static [&'static str],
    input: &'static str,
    path: &'static str,
    recipients: &'static [&'static str],
) -> Caller {
    Caller { name, words, input, path, recipients, body: "hello\n" }
}

const fn cron(
    name: &'static str,
    words: &'static [&'static str],
    path: &'static str,
    recipients: &'static [&'static str],
) -> Caller {
    Caller { name, words, input: CRON, path, recipients, body: "one\n.\ntwo\n" }
}

const CRON: &str = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@box> backup\nMIME-Version: 1.0\n\
    Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\
    X-Cron-Env: <HOME=/root>\n\none\n.\ntwo\n";
const PHP: &str =
    "To: bob@example.org\r\nSubject: x\r\nX-PHP-Originating-Script: 0:a.php\r\nFrom: web@example.com\r\n\r\nhello\r\n";
const TO_BOB: &str = "To: bob@example.org\nSubject: x\n\nhello\n";
const BOB: &[&str] = &["bob@example.org"];
const ROOT: &[&str] = &["root@box.example"];
const ALICE: &str = "alice@example.com";

#[rustfmt::skip]
const CALLERS: &[Caller] = &[
    cron("vixie cron", &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root,ops@example.com"], ALICE, &["ops@example.com", "root@box.example"]),
    cron("cronie", &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"], "root@box.example", ROOT),
    cron("systemd-cron", &["-i", "-B", "8BITMIME", "root"], ALICE, ROOT),
    cron("busybox crond", &["-ti"], ALICE, ROOT),
    cron("dcron", &["-t", "-oem", "-i"], ALICE, ROOT),
    caller("anacron", &["-FAnacron", "-odi", "root"], "From: Anacron <root>\nTo: root\n\nhello\n", ALICE, ROOT),
    caller("at", &["-i", "root"], "Subject: x\nTo: root\n\nhello\n", ALICE, ROOT),
    caller("bsd-mailx", &["-i", "-t", "-m"], "To: bob@example.org\nBcc: c@x.example\n\nhello\n", ALICE, &["bob@example.org", "c@x.example"]),
    caller("mailutils", &["-oi", "-f", "alice@box.example", "-t"], "Subject: x\nTo: <bob@example.org>\n\nhello\n", "alice@box.example", BOB),
    caller("mutt", &["-oem", "-oi", "-B8BITMIME", "-f", "a@x.example", "--", "bob@example.org"], TO_BOB, "a@x.example", BOB),
    caller("s-nail", &["-i", "-m", "-F", "A B", "-f", "a@x.example", "--", "bob@example.org"], TO_BOB, "a@x.example", BOB),
    caller("aerc", &["bob@example.org"], "To: bob@example.org\r\n\r\nhello\r\n", ALICE, BOB),
    caller("git send-email", &["-f", "a@x.example", "-i", "bob@example.org"], TO_BOB, "a@x.example", BOB),
    caller("PHP", &["-t", "-i", "-fbounce@example.com"], PHP, "bounce@example.com", BOB),
    caller("PHPMailer", &["-fa@x.example", "-i", "-t"], "To: undisclosed-recipients:;\nBcc: bob@example.org\n\nhello\n", "a@x.example", BOB),
    caller("PEAR Mail", &["-i", "-fa@x.example", "--", "bob@example.org"], TO_BOB, "a@x.example", BOB),
    caller("Rails", &["-i", "-t", "-f", "a@x.example", "--", "bob@example.org"], TO_BOB, "a@x.example", BOB),
    caller("Nodemailer", &["-i", "-f", "a@x.example", "bob@example.org"], "Bcc: bob@example.org\nSubject: x\n\nhello\n", "a@x.example", BOB),
    caller("lettre", &["-i", "-f", "a@x.example", "--", "bob@example.org"], "To: bob@example.org\r\n\r\nhello\r\n", "a@x.example", BOB),
    caller("MIME::Lite", &["-t", "-oi", "-oem", "-fa@x.example"], TO_BOB, "a@x.example", BOB),
    caller("Mail::Mailer", &["-t"], TO_BOB, ALICE, BOB),
    caller("Email::Sender", &["-i", "-f", "", "--", "bob@example.org"], TO_BOB, "", BOB),
    caller("go-mail", &["-oi", "-t"], "To: bob@example.org\r\n\r\nhello\r\n", ALICE, BOB),
    caller("Gitea", &["-f", "a@x.example", "-i", "bob@example.org"], TO_BOB, "a@x.example", BOB),
    caller("Sympa", &["-oi", "-odi", "-oem", "-f", "", "--", "bob@example.org"], TO_BOB, "", BOB),
    caller("RT", &["-oi", "-t", "-f", "<>", "-ODeliveryMode=i", "-OErrorMode=m"], TO_BOB, "", BOB),
    caller("Dovecot", &["-i", "-f", "<>", "--", "bob@example.org"], "To: bob@example.org\r\n\r\nhello\r\n", "", BOB),
    caller("systemd OnFailure", &["-t"], "To: root\nFrom: systemd <root@box>\nSubject: x\nContent-Transfer-Encoding: 8bit\n\nhello\n", ALICE, ROOT),
    caller("vacation", &["-eq", "-f", "<>", "bob@example.org"], TO_BOB, "", BOB),
];

#[test]
fn the_callers_of_the_world_are_served() {
    check(CALLERS.iter().map(|caller| {
        let rcpts: Vec<String> = caller.recipients.iter().map(|to| format!("RCPT TO:<{to}>")).collect();
        let wire = format!("MAIL FROM:<{}> SIZE=#\n{}\nDATA", caller.path, rcpts.join("\n"));
        case(caller.name).words(caller.words).input(caller.input).wire(&wire).body(caller.body)
    }));
    check([case("a comment for a name").words(&["-FCronDaemon", "-i", "-oem", "root"]).input(CRON).letter(|letter| {
        let got = text(&letter.content)?;
        let head = "From: root@box.example (Cron Daemon)\nTo: root@box.example\nSubject: Cron <root@box> backup\n";
        let is_right = got.starts_with(head) && got.contains("\nX-Cron-Env: <SHELL=/bin/sh>\n");
        if is_right { Ok(()) } else { Err(got) }
    })]);
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
        assert_eq!((ran.status, ran.stderr.as_str()), (Ok(0), ""), "{words:?}");
    }
    let ran = sendmail.run(&["-a", "nobody", "bob@example.org"], b"Subject: x\n\nhello\n");
    assert_eq!(ran.status, Ok(78), "{ran:?}");
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

/// A server that has heard enough says so before the final dot.
#[test]
fn an_answer_before_the_end_of_the_content_is_heard() {
    let huge = format!("Subject: x\n\n{}", "0123456789\n".repeat(900_000));
    let early = |name: &str, act: Act| {
        let script = Script::default().offering(&["PIPELINING"]).on(CONTENT, act);
        case(name).relay(script).input(&huge).undelivered().hides(&["duplicate"])
    };
    check([
        early("552 and gone", Act::SayAndDrop("552 5.3.4 too big".to_owned()))
            .status(65)
            .says(&["<bob@example.org>", "552 5.3.4 too big"])
            .unqueued(),
        early("552", Act::from("552 5.3.4 too big")).status(65).says(&["552 5.3.4 too big"]).unqueued(),
        early("421 and gone", Act::SayAndDrop("421 4.3.2 bye".to_owned()))
            .queued(&["bob@example.org", "421 4.3.2 bye"]),
        early("deaf until the deadline", Act::Deaf).queue("deadline = \"1s\"").queued(&["bob@example.org"]),
    ]);
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

/// The queue's directory cannot be one.
#[test]
fn a_queue_that_cannot_be_written_is_no_reason_to_lie() {
    let broken = |name: &str, script: Script| {
        case(name)
            .words(&["a@x.example", "b@x.example"])
            .relay(script)
            .world(|sendmail| {
                sendmail.put("queue", "");
                sendmail
            })
            .status(73)
    };
    check([
        broken("not needed", Script::default()).status(0),
        broken("nobody has it", Script::default().on("MAIL", "451 4.3.0 later")).undelivered().says(&["HOME/queue"]),
        broken("one has it, the other was put off", Script::default().on("RCPT TO:<b@", "450 4.2.0 later"))
            .says(&["<b@x.example>", "HOME/queue"])
            .hides(&["nothing was sent"]),
        broken("perhaps somebody has it", Script::default().on(DOT, Act::Drop))
            .undelivered()
            .says(&["possible duplicate", "HOME/queue"])
            .hides(&["nothing was sent"]),
    ]);
}

#[test]
fn input_that_is_refused_early_is_read_all_the_same() {
    let rest = "0123456789\n".repeat(300_000);
    check([
        case("a NUL at the beginning")
            .input(format!("Subject: x\n\nno\0w\n{rest}"))
            .status(65)
            .says(&["NUL", "line 3"])
            .unsent(),
        case("a header without an end")
            .input(format!("X: {}\n", "y ".repeat(4_000_000)))
            .status(65)
            .says(&["header"])
            .unsent(),
        case("no room for it")
            .input(format!("Subject: x\n\n{rest}"))
            .world(|sendmail| sendmail.through("ulimit -f 0; exec \"$@\""))
            .status(75)
            .says(&[])
            .unsent()
            .unqueued(),
    ]);
}

#[test]
fn what_cannot_be_passed_on_is_mended_without_loss_or_told() {
    check([
        case("a header in Latin-1 for a relay of seven bits")
            .input(b"Subject: Gr\xfc\xdfe\n\nhello\n")
            .relay(Script::default().offering(&["PIPELINING"]))
            .letter(|letter| {
                let got = text(&letter.content)?;
                // The octets as they came, in base64.
                if got.contains("Subject: =?unknown-8bit?B?R3L832U=?=") { Ok(()) } else { Err(got) }
            }),
        case("long lines of base64 are broken and mean the same")
            .input(format!(
                "MIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n{}\n",
                "aGVsbG8K".repeat(200)
            ))
            .letter(|letter| {
                let got = text(&letter.content)?;
                let (head, body) = got.split_once("\n\n").ok_or("no body")?;
                let is_short = body.lines().all(|line| line.len() <= 76);
                let is_same = body.replace('\n', "") == "aGVsbG8K".repeat(200);
                let is_told = head.contains("Content-Transfer-Encoding: base64");
                if is_short && is_same && is_told { Ok(()) } else { Err(got) }
            }),
        case("reports that the relay cannot give are told to whoever watches")
            .words(&["-v", "-N", "success", "bob@example.org"])
            .relay(Script::default().offering(&["PIPELINING"]))
            .says(&["DSN"]),
    ]);
}

/// What a server that refuses the session for good is worth where there is no queue: the contract has 69 for
/// "refused", and nothing about it is temporary.
#[test]
fn a_session_refused_for_good_is_69_without_a_queue() {
    let refused = |name: &str, script: Script, part: &str| {
        case(name).relay(script).queue("off").status(69).says(&["<bob@example.org>", "RELAY", part]).undelivered()
    };
    check([
        refused("greeting", Script::default().on(GREETING, "554 5.7.1 not you"), "554 5.7.1 not you"),
        refused("EHLO", Script::default().on("EHLO", "550 5.7.1 bad name"), "550 5.7.1 bad name"),
        refused("STARTTLS", Script::default().on("STARTTLS", "502 5.5.1 no"), "502 5.5.1 no"),
    ]);
}
