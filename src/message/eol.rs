//! Line ends: whatever comes in, CRLF goes out, and nothing else that is a CR or an LF.
//!
//! A push machine: any split of the input gives the same output. LF, CR and CRLF each end a line; a last line
//! without an end gets one. A CR or LF that is no part of a CRLF never leaves here, so that no relay can be made
//! to see a line, or the end of a letter, where there is none (RFC 5321 §2.3.8; "SMTP smuggling").

use super::LoneDot;
use memchr::memchr2;

/// The machine. Feed it with [`Canonical::push`], end it with [`Canonical::finish`].
#[derive(Debug)]
pub struct Canonical {
    dot: LoneDot,
    line: Line,
    /// The last octet was a CR whose line end is already written: an LF that follows belongs to it.
    after_cr: bool,
}

/// How far the current line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing of it yet.
    Empty,
    /// A dot that is held back, because it may be the end of the message.
    Dot,
    /// Something.
    Begun,
    /// The message has ended with a lone dot: nothing more is let through.
    Ended,
}

impl Canonical {
    /// A machine at the start of a message.
    pub fn new(dot: LoneDot) -> Self {
        Self { dot, line: Line::Empty, after_cr: false }
    }

    /// Takes the next octets and appends what they come to.
    pub fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        out.reserve(octets.len() + octets.len() / 32);
        while !octets.is_empty() && self.line != Line::Ended {
            if std::mem::take(&mut self.after_cr) && octets[0] == b'\n' {
                octets = &octets[1..];
                continue;
            }
            let end = memchr2(b'\r', b'\n', octets);
            self.text(&octets[..end.unwrap_or(octets.len())], out);
            let Some(end) = end else { return };
            self.after_cr = octets[end] == b'\r';
            self.end_line(out);
            octets = &octets[end + 1..];
        }
    }

    /// Ends the input.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if matches!(self.line, Line::Begun | Line::Dot) {
            self.end_line(out);
        }
    }

    /// Whether a lone dot has ended the message.
    pub fn has_ended(&self) -> bool {
        self.line == Line::Ended
    }

    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match (self.line, text) {
            (_, []) => return,
            (Line::Empty, [b'.']) if self.dot == LoneDot::Ends => {
                self.line = Line::Dot;
                return;
            }
            (Line::Dot, _) => out.push(b'.'),
            _ => {}
        }
        out.extend_from_slice(text);
        self.line = Line::Begun;
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if self.line == Line::Dot {
            self.line = Line::Ended;
        } else {
            out.extend_from_slice(b"\r\n");
            self.line = Line::Empty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(parts: &[&[u8]], dot: LoneDot) -> Vec<u8> {
        let (mut machine, mut out) = (Canonical::new(dot), Vec::new());
        for part in parts {
            machine.push(part, &mut out);
        }
        machine.finish(&mut out);
        out
    }

    #[test]
    fn every_kind_of_line_end_becomes_crlf() {
        for (input, want) in [
            ("a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd\r\n"),
            ("a\r\r\n\n", "a\r\n\r\n\r\n"),
            ("", ""),
            ("\n", "\r\n"),
            ("x\r.\ry", "x\r\n.\r\ny\r\n"),
        ] {
            let out = canonical(&[input.as_bytes()], LoneDot::IsText);
            assert_eq!(String::from_utf8(out).unwrap(), want, "{input:?}");
        }
    }

    #[test]
    fn a_lone_dot_ends_the_message_only_where_it_may() {
        for (input, ends, text) in [
            ("a\n.\nb\n", "a\r\n", "a\r\n.\r\nb\r\n"),
            ("a\r\n.\r\nb", "a\r\n", "a\r\n.\r\nb\r\n"),
            ("a\n.", "a\r\n", "a\r\n.\r\n"),
            (".\n", "", ".\r\n"),
            ("..\n.a\n. \n", "..\r\n.a\r\n. \r\n", "..\r\n.a\r\n. \r\n"),
        ] {
            assert_eq!(canonical(&[input.as_bytes()], LoneDot::Ends), ends.as_bytes(), "{input:?}");
            assert_eq!(canonical(&[input.as_bytes()], LoneDot::IsText), text.as_bytes(), "{input:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_split_gives_the_same_and_no_cr_or_lf_is_bare(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..60),
            at in any::<(usize, usize)>(),
            ends in any::<bool>(),
        ) {
            let dot = if ends { LoneDot::Ends } else { LoneDot::IsText };
            let (a, b) = (at.0 % (input.len() + 1), at.1 % (input.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            let whole = canonical(&[&input], dot);
            prop_assert_eq!(&whole, &canonical(&[&input[..a], &input[a..b], &input[b..]], dot));
            let bare = String::from_utf8_lossy(&whole).replace("\r\n", "");
            prop_assert!(!bare.contains(['\r', '\n']));
            prop_assert!(whole.is_empty() || whole.ends_with(b"\r\n"));
        }
    }
}
