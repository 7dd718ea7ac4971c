//! The message: a header that we understand and a body that we carry.
//!
//! [`Message`] always holds canonical octets: every line ends in CRLF and there is no other CR or LF, no NUL.
//! Its header is in memory; its body may be of any size and is behind [`Content`], so that this floor
//! touches no file. RFC 5322, RFC 2045; house rules in the manual, sendmail(8), MESSAGE.

use std::io::{self, Read};
use std::sync::Arc;

/// Octets that can be read from the start as often as needed: memory here, a file on the floors above.
pub trait Content: Send + Sync {
    /// How many octets [`Content::reader`] will give.
    fn len(&self) -> u64;
    /// A fresh reader from the first octet. An error of it is an I/O error, never an end of the letter.
    fn reader(&self) -> io::Result<Box<dyn Read + '_>>;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Content for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.as_slice()))
    }
}

/// Takes the body's canonical octets while they come in; small bodies stay in memory, large ones need not.
pub trait Store {
    /// Takes the next octets. `ErrorKind::StorageFull` and friends are reported as they are.
    fn write(&mut self, octets: &[u8]) -> io::Result<()>;
    /// Ends the writing and hands over what was written.
    fn finish(self: Box<Self>) -> io::Result<Arc<dyn Content>>;
}

/// What must be known of a body before the session chooses how to send it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// An octet above 127 is in the body.
    pub eight_bit: bool,
    /// A line of the body has more than 998 octets (RFC 5322 §2.1.1).
    pub long_line: bool,
}

/// What a line that holds a single dot means (sendmail's `-i`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoneDot {
    /// It ends the message.
    Ends,
    /// It is text.
    IsText,
}
