//! Whether a stream of octets is UTF-8, though its pieces end in the middle of characters (RFC 3629).

/// Whether octets that come in pieces are UTF-8.
#[derive(Debug, Default)]
pub struct Utf8 {
    /// The start of a character that the next piece goes on with.
    held: Vec<u8>,
    is_wrong: bool,
}

impl Utf8 {
    /// Takes the next octets.
    pub fn take(&mut self, octets: &[u8]) {
        if self.is_wrong || (self.held.is_empty() && octets.is_ascii()) {
            return;
        }
        self.held.extend_from_slice(octets);
        match std::str::from_utf8(&self.held) {
            Ok(_) => self.held.clear(),
            Err(error) if error.error_len().is_none() => drop(self.held.drain(..error.valid_up_to())),
            Err(_) => self.is_wrong = true,
        }
    }

    /// Whether all that came so far is whole and right.
    pub fn is_right(&self) -> bool {
        !self.is_wrong && self.held.is_empty()
    }
}
