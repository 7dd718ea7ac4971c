//! The content: completed, mended where the relay cannot take it as it is, and otherwise octet for octet what came in.

use crate::support::case::{case, check, text};
use crate::support::relay::Script;

const OWN: &str = "From: Alice Tester <alice@example.com>\nDate: *\nMessage-ID: <*@example.com>\n";

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
            .input(format!(
                "{whole}Bcc: secret@x.example\nbcc : s2@x.example,\n s3@x.example\nTo: b@x.example\n\nhello\n"
            ))
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
            "Subject: x\nFrom: =?utf-8?B?SsO2cmc=?= <alice@example.com>\nDate: *\nMessage-ID: <*@example.com>\n\n\
             hello\n",
        ),
        case("an empty -F")
            .words(&["-F", "", "bob@example.org"])
            .content("Subject: x\nFrom: alice@example.com\nDate: *\nMessage-ID: <*@example.com>\n\nhello\n"),
        case("-G adds nothing and still hides Bcc")
            .words(&["-G", "bob@example.org"])
            .input("Subject: x\nBcc: secret@x.example\n\nhello\n")
            .content("Subject: x\n\nhello\n"),
        case("local names in the header get their domain")
            .input(format!("{whole}To: root, Bob <bob>\n\nhello\n"))
            .content(&format!("{whole}To: root@box.example, Bob <bob@box.example>\n\nhello\n")),
        case("-f names the author")
            .words(&["-f", "a@x.example", "bob@example.org"])
            .content("Subject: x\nFrom: Alice Tester <a@x.example>\nDate: *\nMessage-ID: <*@x.example>\n\nhello\n"),
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
        .input(format!(
            "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
             Content-Transfer-Encoding: 8bit\n\n{body}"
        ))
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
