//! Puts a letter's octets on the wire: in large pieces, as they are for BDAT, dot-stuffed and ended for DATA.
//!
//! The octets are canonical (every line ends in CRLF) and their number is known, so the last piece is known
//! too: with DATA it carries the final dot, and the caller can look at the server before it goes, because from then
//! on the relay may have the letter. Content that cannot be read, or is shorter than it said, is an error *before*
//! the end: the caller drops the connection and the relay drops the letter. RFC 5321 §4.5.2 (transparency).

use super::plan::Letter;
use memchr::memmem;
use std::io::{self, Read};

/// Octets of content in one piece, before stuffing: two full TLS records.
pub const PIECE: usize = 32 * 1024;

/// A letter's content on its way.
pub struct Body<'a> {
    letter: &'a dyn Letter,
    /// Opened when the first piece is asked for.
    content: Option<Box<dyn Read + 'a>>,
    left: u64,
    stuffer: Option<Stuffer>,
}

impl<'a> Body<'a> {
    /// The content as it is, for BDAT.
    pub fn plain(letter: &'a dyn Letter) -> Self {
        Self { letter, content: None, left: letter.size(), stuffer: None }
    }

    /// The content with its dots doubled and the final one behind it, for DATA.
    pub fn dotted(letter: &'a dyn Letter) -> Self {
        Self { stuffer: Some(Stuffer { at_line_start: true }), ..Self::plain(letter) }
    }

    /// Appends up to `most` octets of content to `wire`, and what DATA wants around them. Whether that was the end.
    pub fn piece(&mut self, most: usize, wire: &mut Vec<u8>) -> io::Result<bool> {
        let content = match &mut self.content {
            Some(content) => content,
            None => self.content.insert(self.letter.reader()?),
        };
        let take = usize::try_from(self.left).unwrap_or(most).min(most);
        let from = wire.len();
        wire.resize(from + take, 0);
        content.read_exact(&mut wire[from..])?;
        self.left -= take as u64;
        if let Some(stuffer) = &mut self.stuffer {
            stuffer.stuff(wire, from);
            if self.left == 0 {
                stuffer.finish(wire);
            }
        }
        Ok(self.left == 0)
    }
}

/// Doubles the dots that begin a line, wherever the content is cut.
struct Stuffer {
    at_line_start: bool,
}

impl Stuffer {
    /// Stuffs what stands in `wire` from `from` on. A dot after a bare LF is doubled too: there should be none, and if
    /// there is it shall not end the letter.
    fn stuff(&mut self, wire: &mut Vec<u8>, from: usize) {
        let first_is_dot = self.at_line_start && wire[from..].starts_with(b".");
        if let Some(&last) = wire[from..].last() {
            self.at_line_start = last == b'\n';
        }
        let first = if first_is_dot { Some(0) } else { memmem::find(&wire[from..], b"\n.").map(|end| end + 1) };
        // Hardly a letter has one, and then its octets need not be moved.
        let Some(first) = first else { return };
        let content = wire.split_off(from + first);
        wire.push(b'.');
        let mut from = 0;
        for line_end in memmem::find_iter(&content, b"\n.") {
            wire.extend_from_slice(&content[from..=line_end]);
            wire.push(b'.');
            from = line_end + 1;
        }
        wire.extend_from_slice(&content[from..]);
    }

    fn finish(&self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Text(Vec<u8>, u64);

    impl Letter for Text {
        fn size(&self) -> u64 {
            self.1
        }
        fn is_8bit(&self) -> bool {
            false
        }
        fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(&self.0[..]))
        }
        fn for_7bit(&self) -> Result<Box<dyn Letter>, String> {
            Err("not asked for".to_owned())
        }
    }

    fn pieces(mut body: Body<'_>) -> (Vec<u8>, usize, io::Result<()>) {
        let (mut wire, mut pieces) = (Vec::new(), 0);
        loop {
            pieces += 1;
            match body.piece(PIECE, &mut wire) {
                Ok(false) => {}
                Ok(true) => return (wire, pieces, Ok(())),
                Err(error) => return (wire, pieces, Err(error)),
            }
        }
    }

    fn framed(content: &[u8], size: u64) -> (Vec<u8>, usize, io::Result<()>) {
        pieces(Body::dotted(&Text(content.to_vec(), size)))
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
        let content = b"123456\r\n".repeat(PIECE / 4);
        let (wire, pieces, _) = framed(&content, content.len() as u64);
        assert_eq!((wire.len(), pieces), (content.len() + 3, 2));
    }

    #[test]
    fn content_that_ends_too_early_gets_no_dot() {
        let content = b"x\r\n".repeat(PIECE);
        let (wire, _, end) = framed(&content, content.len() as u64 + 1);
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(!wire.ends_with(b".\r\n"));
    }

    #[test]
    fn for_bdat_the_content_is_as_it_is() {
        let content = b".\r\n..\r\nno end".repeat(PIECE / 8);
        let (wire, _, end) = pieces(Body::plain(&Text(content.clone(), content.len() as u64)));
        assert!(end.is_ok() && wire == content);
    }

    proptest! {
        #[test]
        fn unstuffing_gives_the_content_back(
            lines in proptest::collection::vec("[.]{0,2}[ab]{0,2}", 0..9), pad in PIECE - 30..PIECE,
        ) {
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
