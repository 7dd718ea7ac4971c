//! A letter in whatever pieces and line ends it comes, and what the two conversions make of its body.

use super::*;
use proptest::prelude::*;

/// Gives its octets in pieces of the sizes it is told, over and over.
struct Pieces<'a>(&'a [u8], Vec<usize>, usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.1[self.2 % self.1.len()].clamp(1, into.len()).min(self.0.len());
        self.2 += 1;
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

fn read_by(input: &[u8], dot: LoneDot, sizes: Vec<usize>) -> Result<Message, Unreadable> {
    Message::read(&mut Pieces(input, sizes, 0), dot, Box::<InMemory>::default())
}

fn message(input: &str) -> Message {
    read_by(input.as_bytes(), LoneDot::IsText, vec![7]).unwrap()
}

fn octets(message: &Message) -> Vec<u8> {
    let mut octets = Vec::new();
    message.reader().unwrap().read_to_end(&mut octets).unwrap();
    assert_eq!(octets.len() as u64, message.size());
    octets
}

fn text(message: &Message) -> String {
    String::from_utf8(octets(message)).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_line_without_end_is_the_same_line_in_whatever_pieces_it_comes() {
    let long = "A".repeat(2 * MAX_NAME);
    for input in [format!("{long}: x\nB: y\n\nbody\n"), format!("{}From x\nA: b\n\nbody\n", ">".repeat(2 * MAX_NAME))] {
        let whole = read_by(input.as_bytes(), LoneDot::IsText, vec![65_536]).unwrap();
        assert_eq!(text(&whole), format!("\n{input}"), "it begins no field");
        for size in [1, 7, 999, 1000, 1001, 1500] {
            assert_eq!(
                octets(&read_by(input.as_bytes(), LoneDot::IsText, vec![size]).unwrap()),
                octets(&whole),
                "{size}"
            );
        }
    }
}

#[test]
fn header_and_body_are_told_apart_however_the_letter_is_written() {
    for (input, want) in [
        ("Subject: x\n\nbody\n", "Subject: x\n\nbody\n"),
        ("Subject: x\r\n\r\nbody", "Subject: x\n\nbody\n"),
        ("hello\n", "\nhello\n"),
        ("hello: world foo\nbye\n", "hello: world foo\n\nbye\n"),
        ("Subject: x\nno field here\nBcc: not a field\n", "Subject: x\n\nno field here\nBcc: not a field\n"),
        ("Subject: x", "Subject: x\n\n"),
        ("", "\n"),
        ("\n\n", "\n\n"),
        (" folded\nSubject: x\n", "\n folded\nSubject: x\n"),
        ("Subject: a\n b\n\tc\n\nd\n", "Subject: a\n b\n\tc\n\nd\n"),
        ("From alice Mon Jan  1 00:00:00 2026\n>From bob x\nSubject: x\n\nFrom me\n", "Subject: x\n\nFrom me\n"),
        ("From : a@b\nTo: c\n\n", "From : a@b\nTo: c\n\n"),
        ("https://example.org/\n", "https://example.org/\n\n"),
    ] {
        for sizes in [vec![1], vec![3, 5], vec![4096]] {
            let message = read_by(input.as_bytes(), LoneDot::IsText, sizes).unwrap();
            assert_eq!(text(&message), want, "{input:?}");
        }
    }
}

#[test]
fn a_nul_is_refused_with_its_line() {
    for (input, line) in [("a\0b", 1), ("Subject: x\n\nb\nc\0\n", 4), ("A: b\n\0Bcc: x\n", 2)] {
        let error = read_by(input.as_bytes(), LoneDot::IsText, vec![4]).unwrap_err();
        assert!(matches!(error, Unreadable::Nul(at) if at == line), "{input:?}: {error:?}");
    }
}

#[test]
fn a_header_without_end_is_an_error_and_a_body_without_end_is_none() {
    let most = Bounds::default().header;
    for header in [format!("X: {}\n", "y".repeat(most)), "X:\n".repeat(most / FIELD)] {
        let read = read_by(header.as_bytes(), LoneDot::IsText, vec![60_000]);
        assert!(matches!(read, Err(Unreadable::HeaderTooLarge(_))), "each field takes memory, however little is in it");
    }
    assert!(read_by("X:\n".repeat(10_000).as_bytes(), LoneDot::IsText, vec![60_000]).is_ok());
    let body = "z".repeat(most * 2);
    let message = read_by(body.as_bytes(), LoneDot::IsText, vec![60_000]).unwrap();
    assert_eq!(message.body.len(), body.len() as u64 + 2);
    assert!(message.facts().long_line);
}

/// Of each part something is remembered: a body of delimiters alone would take forty times its size.
#[test]
fn parts_beyond_reason_pass_as_they_are() {
    let parts = "--b\n\nx\n".repeat(10_050);
    let head = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n";
    let long = message(&format!("{head}{parts}--b\n\n{}\n--b--\n", "y".repeat(2000)));
    assert_eq!(octets(&long.clone().with_short_lines()), octets(&long));
    let early = message(&format!("{head}--b\n\n{}\n{parts}--b--\n", "y".repeat(2000))).with_short_lines();
    assert!(!early.facts().long_line && text(&early).ends_with(&format!("\n{parts}--b--\n")));
    let eight_bit = message(&format!("{head}{parts}--b\n\n\u{e4}\n--b--\n"));
    assert!(matches!(eight_bit.for_7bit(), Err(CannotConvert::Structure)));
}

/// What has been looked through for a line end is not looked through again with each piece: that would take hours.
#[test]
fn a_long_line_in_small_pieces_takes_no_longer_than_its_octets() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let header = format!("X: {}\n", "y".repeat(1 << 20));
        let _ = done.send(read_by(header.as_bytes(), LoneDot::IsText, vec![1]).map(|message| message.header_len()));
    });
    let read = is_done.recv_timeout(std::time::Duration::from_mins(2)).expect("it is still reading");
    assert_eq!(read.unwrap(), (1 << 20) + 5);
}

#[test]
fn what_follows_the_end_is_read_and_dropped() {
    let mut input = Pieces(b"A: b\n\nc\n.\nd\ne\n", vec![2], 0);
    let message = Message::read(&mut input, LoneDot::Ends, Box::<InMemory>::default()).unwrap();
    assert_eq!(text(&message), "A: b\n\nc\n");
    assert!(input.0.is_empty());
}

#[test]
fn an_input_error_is_no_end_of_message() {
    struct Fails(bool);
    impl Read for Fails {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            into[..2].copy_from_slice(b"a\n");
            Ok(2)
        }
    }
    let result = Message::read(&mut Fails(false), LoneDot::IsText, Box::<InMemory>::default());
    assert!(matches!(result, Err(Unreadable::Input(_))));
}

#[test]
fn stored_octets_come_back_as_the_same_message() {
    let first = message("To: a@b\nX: y\n\nbody \u{e9}\n");
    let octets_of_first = octets(&first);
    let again = Message::stored(Arc::new(octets_of_first.clone()), first.header_len(), first.facts()).unwrap();
    assert_eq!(octets(&again), octets_of_first);
    assert_eq!(again.fields(), first.fields());
    assert!(again.is_8bit());
}

#[test]
fn recipients_come_from_the_right_fields() {
    let all = |input: &str| {
        let list = message(input).recipients().map_err(|error| error.to_string())?;
        Ok::<_, String>(list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    for (input, want) in [
        ("To: a@x,\n b@x\nCC: c@x\nbcc : d@x\nTo: e@x\n\nTo: no@x\n", "a@x b@x c@x d@x e@x"),
        ("Resent-To: r@x\nReceived: y\nResent-To: old@x\nTo: a@x\n\n", "r@x"),
        ("Resent-From: r@x\nTo: a@x\n\n", ""),
        ("Subject: x\n\n", ""),
    ] {
        assert_eq!(all(input), Ok(want.to_owned()), "{input}");
    }
    let error = all("To: a@x\nCc: Doe, John <j@x>\n\n").unwrap_err();
    assert!(error.starts_with("Cc: Doe, John <j@x>: at column 4:"), "{error}");
}

#[test]
fn long_lines_are_encoded_where_the_structure_allows() {
    let long = "x".repeat(1_200);
    let plain = message(&format!("Subject: s\n\n{long}\nend.\n")).with_short_lines();
    let out = text(&plain);
    assert!(
        out.starts_with(
            "Subject: s\nMIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n\
                             Content-Transfer-Encoding: quoted-printable\n\nxxx"
        ),
        "{out}"
    );
    assert!(out.lines().all(|line| line.len() <= 76) && out.ends_with("x\nend.\n"));
    assert!(!plain.facts().long_line);

    let parts = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b b\"\n\npre\n--b b\nContent-Type: text/html\n\n\
         {long}\n--b b\nContent-Transfer-Encoding: base64\n\n{long}\n--b b\n\nshort\n--b b--\n"
    );
    let out = text(&message(&parts).with_short_lines());
    assert!(
        out.contains("--b b\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\nxxx"),
        "{out}"
    );
    let (_, rest) = out.split_once("base64\n\n").unwrap();
    let (broken, rest) = rest.split_once("\n--b b\n").unwrap();
    assert!(broken.lines().all(|line| line.len() <= 76) && broken.replace('\n', "") == long, "{out}");
    assert_eq!(rest, "\nshort\n--b b--\n");

    let signed = parts.replace("multipart/mixed", "multipart/signed");
    assert_eq!(text(&message(&signed).with_short_lines()), signed);
}

#[test]
fn eight_bit_text_becomes_seven_bits_for_a_relay_that_wants_it() {
    let out = text(&message("Subject: Gr\u{fc}\u{df}e\nTo: J\u{f6}rg <j@x>\n\nsch\u{f6}n \n").for_7bit().unwrap());
    assert!(out.is_ascii(), "{out}");
    assert!(out.contains("Subject: =?utf-8?B?R3LDvMOfZQ==?=\n") && out.ends_with("\n\nsch=C3=B6n=20\n"), "{out}");
    assert!(out.contains("charset=utf-8"), "{out}");

    let inner = "Content-Type: multipart/mixed; boundary=i\nContent-Transfer-Encoding: 8bit\n\n--i\n\
                 Content-Type: image/x\nContent-Transfer-Encoding: 8bit\n\n\u{e9}\n--i--\n";
    let nested = format!(
        "Content-Type: multipart/mixed; boundary=o\nContent-Transfer-Encoding: 8bit\n\n--o\n\
         Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: \u{e9}\n{inner}--o--\n"
    );
    let out = text(&message(&nested).for_7bit().unwrap());
    assert!(out.is_ascii() && !out.contains("8bit") && out.contains("base64\n\nw6k=\n--i--\n--o--\n"), "{out}");

    let signed = "Content-Type: multipart/signed; boundary=s\n\n--s\n\n\u{e9}\n--s--\n";
    assert!(matches!(message(signed).for_7bit(), Err(CannotConvert::Structure)));
    let lying = "Content-Transfer-Encoding: base64\n\n\u{e9}\n";
    assert!(matches!(message(lying).for_7bit(), Err(CannotConvert::Structure)));
    assert!(matches!(message("Message-ID: <\u{e9}>\n\n").for_7bit(), Err(CannotConvert::Field(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_split_of_the_input_gives_the_same_message(
        input in "(From x\n|>From y\n|[A-C]: [a ]{0,4}\n|\n|\\.\n| f\n|\r|z){0,12}",
        sizes in proptest::collection::vec(1_usize..9, 1..4),
        ends in any::<bool>(),
    ) {
        let dot = if ends { LoneDot::Ends } else { LoneDot::IsText };
        let whole = read_by(input.as_bytes(), dot, vec![4096]).unwrap();
        let pieces = read_by(input.as_bytes(), dot, sizes).unwrap();
        prop_assert_eq!(octets(&whole), octets(&pieces));
        prop_assert_eq!(whole.facts(), pieces.facts());
    }

    #[test]
    fn any_structure_is_converted_or_refused_and_keeps_its_length(
        input in "(Content-Type: (multipart/mixed|multipart/signed|message/rfc822|text/x); boundary=b\n\
                  |Content-Transfer-Encoding: (8bit|base64)\n|\n|--b\n|--b--\n|é|xy){0,14}",
    ) {
        let long = input.replace("xy", &"x".repeat(1_000));
        let message = message(&long).with_short_lines();
        let _ = octets(&message);
        if let Ok(message) = message.for_7bit() {
            prop_assert!(octets(&message).is_ascii());
        }
    }
}
