//! Line ends: any split gives the same, no CR or LF is bare, and a lone dot ends a message only where it may.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::message::{FuzzedCanonical, LoneDot};
use pillarbox_fuzz::{Tape, is_canonical};

fn canonical(parts: &[&[u8]], dot: LoneDot) -> (Vec<u8>, bool) {
    let (mut machine, mut out) = (FuzzedCanonical::new(dot), Vec::new());
    for part in parts {
        machine.push(part, &mut out);
    }
    machine.finish(&mut out);
    (out, machine.has_ended())
}

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let (a, b) = (usize::from(tape.octet()), usize::from(tape.octet()));
    let input = tape.0;
    let a = a.min(input.len());
    let b = (a + b).min(input.len());
    for dot in [LoneDot::Ends, LoneDot::IsText] {
        let (whole, ended) = canonical(&[input], dot);
        assert!(is_canonical(&whole));
        assert!(whole.is_empty() || whole.ends_with(b"\r\n"));
        assert_eq!(canonical(&[&input[..a], &input[a..b], &input[b..]], dot), (whole.clone(), ended));
        assert_eq!(canonical(&[&whole], LoneDot::IsText).0, whole, "what is canonical stays");
        // The text is all there, and in its order.
        let text = |octets: &[u8]| octets.iter().copied().filter(|o| !b"\r\n".contains(o)).collect::<Vec<u8>>();
        let has_lone_dot = whole.starts_with(b".\r\n") || memchr::memmem::find(&whole, b"\r\n.\r\n").is_some();
        match dot {
            LoneDot::IsText => assert_eq!(text(&whole), text(input)),
            LoneDot::Ends => {
                assert!(!has_lone_dot, "what is behind a lone dot is not the message's");
                assert!(text(input).starts_with(&text(&whole)));
                assert!(ended || text(input) == text(&whole) || input.ends_with(b"."));
            }
        }
    }
});
