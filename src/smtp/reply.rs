//! Reads replies out of whatever octets a server sends, a line at a time, whole replies only.
//!
//! Pure: octets in, [`Reply`]s out. It refuses what cannot be a reply (no code, codes that differ within one
//! reply) and what could hurt us: a line of more than [`MAX_LINE`] octets, a reply of more than [`MAX_LINES`]
//! lines or [`MAX_REPLY`] octets. Text may be in any encoding and becomes valid UTF-8 with replacement
//! characters; the code is what counts. RFC 5321 §4.2 and §4.5.3.1.5 (its 512 octets are widely exceeded).

use crate::outcome::Reply;
use std::fmt;

/// Octets in one line of a reply, line end included.
pub const MAX_LINE: usize = 4096;
/// Lines in one reply.
pub const MAX_LINES: usize = 128;
/// Octets in one reply.
pub const MAX_REPLY: usize = 64 * 1024;

/// Why the octets are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// No line end in [`MAX_LINE`] octets.
    LongLine,
    /// More than [`MAX_LINES`] lines or [`MAX_REPLY`] octets.
    TooMuch,
    /// A line that does not begin with a code from 200 to 599 and then a space, a hyphen or nothing.
    NoCode,
    /// Lines of one reply that carry different codes.
    MixedCodes,
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LongLine => "sent a reply line without an end",
            Self::TooMuch => "sent a reply without an end",
            Self::NoCode => "sent something that is not an SMTP reply",
            Self::MixedCodes => "sent a reply whose lines carry different codes",
        })
    }
}

/// The octets received and not yet read as replies, and the lines of a reply that is not complete yet.
#[derive(Debug, Default)]
pub struct Replies {
    octets: Vec<u8>,
    /// How many of `octets` are done with.
    read: usize,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    reply: Reply,
    octets: usize,
}

impl Replies {
    /// Takes what the server sent next.
    pub fn push(&mut self, octets: &[u8]) {
        self.octets.drain(..self.read);
        self.read = 0;
        self.octets.extend_from_slice(octets);
    }

    /// Whether nothing is left over: no octet beyond the last whole reply.
    pub fn is_empty(&self) -> bool {
        self.read == self.octets.len() && self.partial.is_none()
    }

    /// The octets that nobody has read as a reply yet.
    pub fn rest(&self) -> &[u8] {
        &self.octets[self.read..]
    }

    /// The number of those.
    pub fn len(&self) -> usize {
        self.octets.len() - self.read
    }

    /// The next whole reply; `None` when more octets are needed.
    pub fn take(&mut self) -> Result<Option<Reply>, BadReply> {
        loop {
            let rest = &self.octets[self.read..];
            let end = memchr::memchr(b'\n', &rest[..rest.len().min(MAX_LINE)]);
            let Some(end) = end else {
                return if rest.len() >= MAX_LINE { Err(BadReply::LongLine) } else { Ok(None) };
            };
            let (code, last, text) = line(&rest[..end])?;
            self.read += end + 1;
            let partial = self.partial.get_or_insert(Partial { reply: Reply { code, lines: Vec::new() }, octets: 0 });
            if partial.reply.code != code {
                return Err(BadReply::MixedCodes);
            }
            partial.reply.lines.push(text);
            partial.octets += end + 1;
            if last {
                return Ok(self.partial.take().map(|partial| partial.reply));
            }
            if partial.reply.lines.len() >= MAX_LINES || partial.octets >= MAX_REPLY {
                return Err(BadReply::TooMuch);
            }
        }
    }
}

/// Code, whether it is the reply's last line, and text. A bare `250` is a reply (RFC 5321 §4.2).
fn line(octets: &[u8]) -> Result<(u16, bool, String), BadReply> {
    let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
    let (code, rest) = octets.split_at_checked(3).ok_or(BadReply::NoCode)?;
    let code = code
        .iter()
        .try_fold(0, |code, digit| digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0')))
        .filter(|code| (200..600).contains(code))
        .ok_or(BadReply::NoCode)?;
    let (last, text) = match rest {
        [] => (true, rest),
        [b' ', text @ ..] => (true, text),
        [b'-', text @ ..] => (false, text),
        _ => return Err(BadReply::NoCode),
    };
    Ok((code, last, String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(chunks: &[&[u8]]) -> Result<Vec<Reply>, BadReply> {
        let mut replies = Replies::default();
        let mut out = Vec::new();
        for chunk in chunks {
            replies.push(chunk);
            while let Some(reply) = replies.take()? {
                out.push(reply);
            }
        }
        Ok(out)
    }

    fn reply(code: u16, lines: &[&str]) -> Reply {
        Reply { code, lines: lines.iter().map(|&line| line.to_owned()).collect() }
    }

    #[test]
    fn what_rfc_5321_calls_a_reply_is_one() {
        for (octets, expected) in [
            (&b"250 ok\r\n"[..], reply(250, &["ok"])),
            (b"250\r\n", reply(250, &[""])),
            (b"250 \r\n", reply(250, &[""])),
            (b"250-a\r\n250-\r\n250 b c\r\n", reply(250, &["a", "", "b c"])),
            (b"250-a\r\n250\r\n", reply(250, &["a", ""])),
            (b"250 ok\n", reply(250, &["ok"])),
            (b"550 Empf\xe4nger\r\n", reply(550, &["Empf\u{fffd}nger"])),
        ] {
            assert_eq!(read_all(&[octets]), Ok(vec![expected]), "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (octets, why) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], BadReply::NoCode),
            (b"\r\n", BadReply::NoCode),
            (b"25\r\n", BadReply::NoCode),
            (b"100 continue\r\n", BadReply::NoCode),
            (b"600 what\r\n", BadReply::NoCode),
            (b"2500 ok\r\n", BadReply::NoCode),
            (b"250_ok\r\n", BadReply::NoCode),
            (b"+50 ok\r\n", BadReply::NoCode),
            (b"250-ok\r\n550 no\r\n", BadReply::MixedCodes),
        ] {
            assert_eq!(read_all(&[octets]), Err(why), "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn no_reply_is_without_end() {
        assert_eq!(read_all(&[&b"2".repeat(MAX_LINE)]), Err(BadReply::LongLine));
        assert_eq!(read_all(&[&b"220-x\r\n".repeat(MAX_LINES)]), Err(BadReply::TooMuch));
        let wide = format!("220-{}\r\n", "x".repeat(4000)).repeat(17);
        assert_eq!(read_all(&[wide.as_bytes()]), Err(BadReply::TooMuch));
    }

    #[test]
    fn octets_beyond_a_reply_are_noticed() {
        let mut replies = Replies::default();
        replies.push(b"220 go\r\n2");
        assert!(replies.take().unwrap().is_some());
        assert!(!replies.is_empty());
        let mut replies = Replies::default();
        replies.push(b"220-go\r\n");
        assert_eq!(replies.take(), Ok(None));
        assert!(!replies.is_empty(), "half a reply is not silence");
    }

    proptest! {
        #[test]
        fn any_split_of_the_octets_reads_the_same(
            lines in proptest::collection::vec("[2-5][0-9]{2}[ -][a-z]{0,9}\r\n", 0..6),
            noise in proptest::collection::vec(any::<u8>(), 0..12),
            cut in any::<proptest::sample::Index>(),
        ) {
            let octets: Vec<u8> = lines.concat().into_bytes().into_iter().chain(noise).collect();
            let cut = cut.index(octets.len() + 1);
            prop_assert_eq!(read_all(&[&octets[..cut], &octets[cut..]]), read_all(&[&octets]));
            let single: Vec<&[u8]> = octets.chunks(1).collect();
            prop_assert_eq!(read_all(&single), read_all(&[&octets]));
        }
    }
}
