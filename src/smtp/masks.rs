//! What must not be shown, remembered without being kept.
//!
//! A server can echo a password long after AUTH, and a transcript must not repeat
//! it. To keep the password itself for that would leave it in memory for the whole
//! session; its length, the sum of its octets and its SHA-256 recognise it as well.

use crate::secret::wipe_stack;
use ring::digest::{Digest, SHA256, digest};

/// The texts that are shown as `****`.
#[derive(Default)]
pub(super) struct Masks(Vec<Mask>);

struct Mask {
    len: usize,
    /// Tells almost every other text apart without a hash.
    sum: u32,
    hash: Digest,
}

impl Mask {
    /// Where it stands in a text first.
    fn find(&self, text: &[u8]) -> Option<usize> {
        let mut sum = sum(text.get(..self.len)?);
        (0..=text.len() - self.len).find(|&at| {
            if at > 0 {
                sum += u32::from(text[at + self.len - 1]);
                sum -= u32::from(text[at - 1]);
            }
            sum == self.sum && digest(&SHA256, &text[at..at + self.len]).as_ref() == self.hash.as_ref()
        })
    }
}

fn sum(octets: &[u8]) -> u32 {
    octets.iter().map(|&octet| u32::from(octet)).sum()
}

impl Masks {
    /// Remembers a text.
    pub(super) fn add(&mut self, text: &str) {
        if !text.is_empty() {
            let octets = text.as_bytes();
            self.0.push(Mask { len: octets.len(), sum: sum(octets), hash: digest(&SHA256, octets) });
            wipe_stack();
        }
    }

    /// What may be shown of a line.
    pub(super) fn shown(&self, line: &str) -> String {
        // The last first: a whole response before the password that makes up its end.
        self.0.iter().rev().fold(line.to_owned(), |line, mask| {
            let (mut shown, mut rest) = (String::new(), line.as_str());
            // Text within UTF-8 begins and ends where characters do.
            while let Some((before, behind)) =
                mask.find(rest.as_bytes()).and_then(|at| Some((rest.get(..at)?, rest.get(at + mask.len..)?)))
            {
                shown += before;
                shown += "****";
                rest = behind;
            }
            shown + rest
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_masked_text_is_shown_nowhere_and_nothing_else_is_hidden(
            parts in proptest::collection::vec("[abcé ]{0,6}", 1..4),
            secrets in proptest::collection::vec("[abé]{1,4}", 0..3),
        ) {
            let mut masks = Masks::default();
            for secret in &secrets {
                masks.add(secret);
            }
            for line in [parts.join(""), parts.join(secrets.first().map_or("", String::as_str))] {
                let hide = |line: String, secret: &String| line.replace(secret.as_str(), "****");
                let expected = secrets.iter().rev().fold(line.clone(), hide);
                prop_assert_eq!(masks.shown(&line), expected);
            }
        }
    }
}
