//! Letters: one to send, and one as it lies in the mailbox at its journey's end.

use super::peer::wait_for;
use std::fs;
use std::path::Path;

/// A letter that needs nothing added, so that what arrives can be compared byte for byte.
pub fn complete(subject: &str, body: &str) -> Vec<u8> {
    format!(
        "From: Alice <alice@example.org>\nTo: Bob <bob@example.org>\nSubject: {subject}\n\
         Date: Tue, 24 Nov 2026 12:00:00 +0000\nMessage-ID: <{}.{subject}@example.org>\n\n{body}",
        std::process::id()
    )
    .into_bytes()
}

/// A body of that many octets, a line more or less: lines that mean something to SMTP, mbox or MIME, lines of every
/// length up to the limit, no line end at the end.
pub fn large(octets: usize) -> String {
    let mut body = String::with_capacity(octets + 1000);
    for n in 0.. {
        body += ["", ".", "..", ".QUIT", "From me to you", "=3D", "-- "][n % 7];
        body.extend(std::iter::repeat_n(char::from(b'!' + u8::try_from(n % 90).unwrap()), (n * 31) % 980));
        if body.len() > octets {
            break;
        }
        body.push('\n');
    }
    body
}

/// A letter in a mailbox.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter(pub Vec<u8>);

impl Letter {
    /// The first field of that name, unfolded; empty where there is none.
    pub fn field(&self, name: &str) -> String {
        let header =
            String::from_utf8_lossy(self.header()).replace("\r\n", "\n").replace("\n\t", " ").replace("\n ", " ");
        let mut fields = header.lines().filter_map(|line| line.split_once(':'));
        fields
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    }

    /// The header without the empty line behind it.
    pub fn header(&self) -> &[u8] {
        self.split().0
    }

    /// What follows the empty line.
    pub fn body(&self) -> &[u8] {
        self.split().1
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body()).into_owned()
    }

    /// What the sender wrote: the letter without the trace that the relay and the mailbox put on top of it.
    pub fn as_sent(&self) -> &[u8] {
        let mut rest = &self.0[..];
        let mut in_trace = false;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            let starts_trace = [
                &b"Return-Path:"[..],
                b"X-Original-To:",
                b"Delivered-To:",
                b"Received:",
                b"Envelope-To:",
                b"Delivery-Date:",
            ]
            .iter()
            .any(|field| line.len() >= field.len() && line[..field.len()].eq_ignore_ascii_case(field));
            let continues = in_trace && line.first().is_some_and(u8::is_ascii_whitespace);
            if !starts_trace && !continues {
                break;
            }
            in_trace = true;
            rest = &rest[end + 1..];
        }
        rest
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let end = memchr::memmem::find(&self.0, b"\n\n").map(|end| (end + 1, end + 2));
        let crlf = memchr::memmem::find(&self.0, b"\r\n\r\n").map(|end| (end + 2, end + 4));
        let (header, body) = crlf.or(end).unwrap_or((self.0.len(), self.0.len()));
        (&self.0[..header], &self.0[body..])
    }
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(4000)];
        write!(f, "{} bytes:\n{}", self.0.len(), String::from_utf8_lossy(shown))
    }
}

/// The letters of a Maildir that have arrived by now.
pub fn arrived(maildir: &Path) -> Vec<Letter> {
    let Ok(entries) = fs::read_dir(maildir.join("new")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| Letter(fs::read(path).unwrap())).collect()
}

/// Waits until that many letters lie in a Maildir, and no more.
pub fn wait_for_letters(maildir: &Path, count: usize) -> Vec<Letter> {
    let letters = wait_for(&format!("{count} letters in {}", maildir.display()), || {
        Some(arrived(maildir)).filter(|letters| letters.len() >= count)
    });
    assert_eq!(letters.len(), count, "too many letters in {}: {letters:?}", maildir.display());
    letters
}
