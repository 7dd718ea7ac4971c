//! One letter on its way in: is it whole?
//!
//! The bench writes `X-Body: LENGTH SHA256` (of the body in canonical form) or `X-Body: LENGTH -`, where the digest
//! would cost more than what is measured. Letters without that field count as unchecked.

use memchr::memmem;
use ring::digest::{Context, SHA256};

/// A header of more than this is not one of ours.
const HEADER_LIMIT: usize = 64 << 10;

/// What has come of a letter so far.
#[derive(Default)]
pub struct Letter {
    /// Octets in all.
    pub octets: u64,
    header: Vec<u8>,
    body: Option<Body>,
}

struct Body {
    octets: u64,
    digest: Option<Context>,
}

impl Letter {
    /// The next octets, dots unstuffed.
    pub fn push(&mut self, mut octets: &[u8]) {
        self.octets += octets.len() as u64;
        if self.body.is_none() {
            let before = self.header.len();
            self.header.extend_from_slice(octets);
            let Some(end) = memmem::find(&self.header[before.saturating_sub(3)..], b"\r\n\r\n") else {
                self.header.truncate(HEADER_LIMIT);
                return;
            };
            let end = before.saturating_sub(3) + end + 4;
            octets = &octets[end - before..];
            self.header.truncate(end);
            let digest = self.promised().and_then(|(_, digest)| (digest != "-").then(|| Context::new(&SHA256)));
            self.body = Some(Body { octets: 0, digest });
        }
        if let Some(body) = &mut self.body {
            body.octets += octets.len() as u64;
            if let Some(digest) = &mut body.digest {
                digest.update(octets);
            }
        }
    }

    /// There is no more of it. Whether the body is the promised one; `None` where nothing was promised.
    pub fn verdict(mut self) -> Option<bool> {
        let body = self.body.take();
        let (length, promised) = self.promised()?;
        let (octets, digest) = body.map_or((0, None), |body| (body.octets, body.digest));
        Some(octets == length && digest.is_none_or(|digest| is_hex(digest.finish().as_ref(), promised)))
    }

    fn promised(&self) -> Option<(u64, &str)> {
        let (length, digest) = self.field("x-body")?.split_once(' ')?;
        Some((length.parse().ok()?, digest))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.header.split(|&octet| octet == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        fields.find_map(|line| {
            let (before, value) = line.split_once(':')?;
            before.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Whether a text is these octets in hexadecimal.
fn is_hex(octets: &[u8], text: &str) -> bool {
    let digit = |at: usize| text.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    text.len() == octets.len() * 2 && octets.iter().enumerate().all(|(at, octet)| digit(at) == Some(*octet))
}
