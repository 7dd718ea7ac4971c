//! The header walker: a header's fields are its octets, whatever pieces they come in, and the body is the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::message::fields::Fields;
use pillarbox::message::{FuzzedCanonical, LoneDot};
use pillarbox_fuzz::{Tape, is_canonical, message, octets};

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let piece = usize::from(tape.octet());
    let input = tape.0;
    // What is not canonical is nobody's header; it must only not hurt.
    let _ = Fields::parse(input);
    let mut canonical = Vec::new();
    let mut eol = FuzzedCanonical::new(LoneDot::IsText);
    eol.push(input, &mut canonical);
    eol.finish(&mut canonical);

    let Some(read) = message(input, usize::MAX, LoneDot::IsText) else {
        assert!(message(input, piece, LoneDot::IsText).is_none());
        assert!(input.contains(&0));
        return;
    };
    let whole = octets(&read);
    assert!(is_canonical(&whole));
    assert_eq!(whole.len() as u64, read.size());
    let pieces = message(input, piece, LoneDot::IsText).unwrap();
    assert_eq!(octets(&pieces), whole, "{piece} octets at a time it is another message");
    assert_eq!(pieces.facts(), read.facts());

    let header = read.fields().to_octets();
    assert_eq!(header.len() as u64, read.header_len());
    assert_eq!(Fields::parse(&header), *read.fields(), "fields read as themselves");
    for field in read.fields().iter() {
        assert!(!field.name().is_empty() && field.name().bytes().all(|octet| (33..=126).contains(&octet)));
        assert!(field.raw().ends_with(b"\r\n") && !field.text().contains(['\r', '\n']), "{}", field.text());
    }
    let body = &whole[header.len() + 2..];
    // All that came is there, but for the lines of a mailbox at
    // the top; an empty line is supplied where there was none.
    let rest = [&header[..], b"\r\n", body].concat();
    let supplied = [&header[..], body].concat();
    assert!(canonical.ends_with(&rest) || canonical.ends_with(&supplied));
    let dropped = canonical.len() - if canonical.ends_with(&rest) { rest.len() } else { supplied.len() };
    for line in canonical[..dropped].split_inclusive(|octet| *octet == b'\n') {
        let line = &line[line.iter().take_while(|octet| **octet == b'>').count()..];
        assert!(line.starts_with(b"From "), "a line was dropped: {}", line.escape_ascii());
    }
    let again = message(&whole, usize::MAX, LoneDot::IsText).unwrap();
    if !body.is_empty() || !header.is_empty() {
        assert_eq!(octets(&again), whole, "a message reads as itself");
    }
    let _ = read.recipients();
});
