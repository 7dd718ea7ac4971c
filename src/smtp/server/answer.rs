//! What a server says: a code, an enhanced status where the client has said EHLO, and a text.
//!
//! A text may hold what a client sent: control characters in it become `?`, so that no answer can be made to
//! carry another, and a line that would be too long is cut. RFC 5321 §4.2 and §4.5.3.1.5, RFC 2034.

use crate::outcome::Status;
use std::borrow::Cow;

/// Octets of text in a line of at most 512: the others are its code, its status and its end.
const LINE: usize = 490;

/// One reply, of one line for each line of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    code: u16,
    status: Option<Status>,
    text: Cow<'static, str>,
}

impl Answer {
    /// An answer of this code; `subject` and `detail` are the second and third number of its enhanced status, the
    /// first follows from the code.
    pub fn new(code: u16, (subject, detail): (u16, u16), text: impl Into<Cow<'static, str>>) -> Self {
        let class = u8::try_from(code / 100).unwrap_or(5);
        Self { code, status: Some(Status::new(class, subject, detail)), text: text.into() }
    }

    /// An answer that never has an enhanced status: greetings, EHLO's, and those that ask for more (RFC 2034 §4).
    pub(super) fn bare(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: None, text: text.into() }
    }

    /// The user name or the password is wrong; which of the two is nobody's business.
    pub fn bad_credentials() -> Self {
        Self::new(535, (7, 8), "user name or password is wrong")
    }

    /// Appends a line of an answer that has more of them.
    pub(super) fn write_more(code: u16, line: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{code}-").as_bytes());
        out.extend(line.bytes().map(harmless));
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the answer as it goes on the wire.
    pub(super) fn write(&self, extended: bool, out: &mut Vec<u8>) {
        let mut lines = self.text.lines().peekable();
        loop {
            let line = lines.next().unwrap_or_default();
            let hyphen = if lines.peek().is_some() { '-' } else { ' ' };
            out.extend_from_slice(format!("{}{hyphen}", self.code).as_bytes());
            if let Some(status) = self.status.filter(|_| extended) {
                out.extend_from_slice(format!("{status} ").as_bytes());
            }
            out.extend(line[..line.floor_char_boundary(LINE)].bytes().map(harmless));
            out.extend_from_slice(b"\r\n");
            if lines.peek().is_none() {
                return;
            }
        }
    }
}

fn harmless(octet: u8) -> u8 {
    if octet.is_ascii_control() { b'?' } else { octet }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: &Answer, extended: bool) -> String {
        let mut out = Vec::new();
        answer.write(extended, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn enhanced_codes_are_for_those_who_said_ehlo() {
        let answer = Answer::new(250, (0, 0), "Ok: queued as 1");
        assert_eq!(written(&answer, true), "250 2.0.0 Ok: queued as 1\r\n");
        assert_eq!(written(&answer, false), "250 Ok: queued as 1\r\n");
        assert_eq!(written(&Answer::bare(354, "go on"), true), "354 go on\r\n");
        assert_eq!(written(&Answer::new(550, (1, 1), ""), true), "550 5.1.1 \r\n");
    }

    #[test]
    fn no_line_is_longer_than_a_client_must_take() {
        let answer = written(&Answer::new(501, (1, 10), format!("{}\nthat", "\u{e4}".repeat(4000))), true);
        assert!(answer.lines().next().unwrap().len() + 2 <= 512 && answer.ends_with("\r\n501 5.1.10 that\r\n"));
    }

    #[test]
    fn no_text_makes_a_second_answer() {
        let answer = Answer::new(550, (1, 1), "a\rb\n250 ok\0");
        assert_eq!(written(&answer, true), "550-5.1.1 a?b\r\n550 5.1.1 250 ok?\r\n");
    }
}
