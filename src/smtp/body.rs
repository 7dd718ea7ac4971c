//! Puts a letter's octets on the wire for DATA: dot-stuffed, in large pieces, ended by the lone dot.
//!
//! The octets are canonical (every line ends in CRLF) and their number is known, so the last piece is known
//! too: it carries the final dot, and the caller is told before it goes, because from then on the relay may
//! have the letter. Content that cannot be read, or is shorter than it said, is an error *before* the dot:
//! the caller drops the connection and the relay drops the letter. RFC 5321 §4.5.2 (transparency).

use memchr::memmem;
use std::io::{self, Read};

/// Octets of content in one write, before stuffing: two full TLS records.
const CHUNK: usize = 32 * 1024;

/// A piece of the letter as it goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// More will follow.
    Part(&'a [u8]),
    /// The end, with the final dot.
    Last(&'a [u8]),
}

/// What ended the sending before the final dot.
#[derive(Debug)]
pub enum Stop<E> {
    /// The content could not be read.
    Content(io::Error),
    /// `send` said so.
    Send(E),
}

/// Reads `size` octets of content and hands them to `send`, framed.
pub fn frame<E>(
    content: &mut dyn Read,
    size: u64,
    mut send: impl FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let mut left = size;
    let mut chunk = vec![0; usize::try_from(size).unwrap_or(CHUNK).min(CHUNK)];
    let mut wire = Vec::with_capacity(chunk.len() + chunk.len() / 32 + 8);
    let mut stuffer = Stuffer { at_line_start: true };
    loop {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(chunk.len());
        content.read_exact(&mut chunk[..take]).map_err(Stop::Content)?;
        left -= take as u64;
        wire.clear();
        stuffer.stuff(&chunk[..take], &mut wire);
        if left == 0 {
            stuffer.finish(&mut wire);
            return send(Piece::Last(&wire)).map_err(Stop::Send);
        }
        send(Piece::Part(&wire)).map_err(Stop::Send)?;
    }
}

/// Doubles the dots that begin a line, wherever the content is cut.
struct Stuffer {
    at_line_start: bool,
}

impl Stuffer {
    /// A dot after a bare LF is doubled too: there should be none, and if there is it shall not end the letter.
    fn stuff(&mut self, content: &[u8], wire: &mut Vec<u8>) {
        if self.at_line_start && content.starts_with(b".") {
            wire.push(b'.');
        }
        let mut from = 0;
        for line_end in memmem::find_iter(content, b"\n.") {
            wire.extend_from_slice(&content[from..=line_end]);
            wire.push(b'.');
            from = line_end + 1;
        }
        wire.extend_from_slice(&content[from..]);
        if let Some(&last) = content.last() {
            self.at_line_start = last == b'\n';
        }
    }

    fn finish(&self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(content: &[u8], size: u64) -> (Vec<u8>, usize, Result<(), Stop<()>>) {
        let (mut wire, mut pieces) = (Vec::new(), 0);
        let mut reader = content;
        let end = frame(&mut reader, size, |piece| {
            let (Piece::Part(octets) | Piece::Last(octets)) = piece;
            wire.extend_from_slice(octets);
            pieces += 1;
            Ok(())
        });
        (wire, pieces, end)
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_the_end_is_a_lone_dot() {
        for (content, wire) in [
            (&b"a\r\n"[..], &b"a\r\n.\r\n"[..]),
            (b"", b".\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n..b\r\nc.d\r\n", b"a\r\n..\r\n...b\r\nc.d\r\n.\r\n"),
            (b"a\r\n.", b"a\r\n..\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
            (b"a\n.\nb\r\n", b"a\n..\nb\r\n.\r\n"),
        ] {
            let (got, pieces, _) = framed(content, content.len() as u64);
            assert_eq!(got.escape_ascii().to_string(), wire.escape_ascii().to_string());
            assert_eq!(pieces, 1, "a small letter and its dot are one write");
        }
    }

    #[test]
    fn the_final_dot_rides_with_the_last_chunk_of_a_large_letter() {
        let content = b"123456\r\n".repeat(CHUNK / 4);
        let (wire, pieces, _) = framed(&content, content.len() as u64);
        assert_eq!((wire.len(), pieces), (content.len() + 3, 2));
    }

    #[test]
    fn content_that_ends_too_early_gets_no_dot() {
        let content = b"x\r\n".repeat(CHUNK);
        let (wire, _, end) = framed(&content, content.len() as u64 + 1);
        assert!(matches!(end, Err(Stop::Content(_))));
        assert_eq!(wire.len(), content.len(), "what there is goes out, and nothing behind it");
    }

    proptest! {
        #[test]
        fn unstuffing_gives_the_content_back(lines in proptest::collection::vec("[.]{0,2}[ab]{0,2}", 0..9), pad in CHUNK - 30..CHUNK) {
            let mut content = "p".repeat(pad);
            for line in &lines {
                content.push_str("\r\n");
                content.push_str(line);
            }
            content.push_str("\r\n");
            let (wire, ..) = framed(content.as_bytes(), content.len() as u64);
            let wire = String::from_utf8(wire).unwrap();
            let body = wire.strip_suffix("\r\n.\r\n").unwrap();
            prop_assert!(body.split("\r\n").all(|line| line != "."));
            let plain: Vec<&str> = body.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            prop_assert_eq!(plain.join("\r\n") + "\r\n", content);
        }
    }
}
