//! The message: a header that we understand and a body that we carry.
//!
//! [`Message`] always holds canonical octets: every line ends in CRLF and there is no other CR or LF, no NUL.
//! Its header is in memory; its body may be of any size and is behind [`Content`], so that this floor
//! touches no file. RFC 5322, RFC 2045; house rules in the manual, sendmail(8), MESSAGE.

pub mod address;
pub mod complete;
pub mod encode;
mod eol;
pub mod fields;
mod mime;
mod utf8;

pub use mime::CannotConvert;
pub use utf8::Utf8;

use crate::outcome::words;
use address::{Address, AddressError};
use eol::Canonical;
use fields::{Fields, name_and_colon};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

/// Octets that can be read from the start as often as needed: memory here, a file on the floors above.
pub trait Content: Send + Sync {
    /// How many octets [`Content::reader`] will give.
    fn len(&self) -> u64;
    /// A fresh reader from the first octet. An error of it is an I/O error, never an end of the letter.
    fn reader(&self) -> io::Result<Box<dyn Read + '_>>;
    /// A reader from the octet at `start` on. Contents that can seek do better than to read and drop.
    fn reader_at(&self, start: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut reader = self.reader()?;
        io::copy(&mut reader.by_ref().take(start), &mut io::sink())?;
        Ok(reader)
    }
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

/// How much memory may go into the reading of a message.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets read at a time.
    pub piece: usize,
    /// Octets of the header, and [`FIELD`] besides for each field. What is larger is no header: Postfix and Exim draw
    /// the line at 100 KiB and at 1 MiB.
    pub header: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { piece: CHUNK, header: 4 << 20 }
    }
}

/// What a field takes beside its octets.
const FIELD: usize = 128;

/// A line of which this much is there and no field name is none (RFC 5322 §2.1.1 ends lines earlier).
const MAX_NAME: usize = 1_000;

/// Octets read at a time.
const CHUNK: usize = 64 * 1024;

/// Why a message cannot be taken.
#[derive(Debug)]
pub enum Unreadable {
    /// The input failed; what came before is no message.
    Input(io::Error),
    /// The place where the body is kept failed.
    Store(io::Error),
    /// A NUL is in this line, counted from 1.
    Nul(u64),
    /// The header is larger than it may be here.
    HeaderTooLarge(usize),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => write!(f, "the message cannot be read: {}", words(error)),
            Self::Store(error) => write!(f, "the message cannot be kept while it is read: {}", words(error)),
            Self::Nul(line) => write!(f, "line {line} of the message holds a NUL, which mail cannot carry"),
            Self::HeaderTooLarge(most) => {
                let most = most >> 10;
                write!(f, "the header has more than {most} KiB, where each field counts for {FIELD} octets besides")
            }
        }
    }
}

/// A message: a header in memory, a body behind [`Content`].
#[derive(Clone)]
pub struct Message {
    fields: Fields,
    body: Arc<dyn Content>,
    facts: Facts,
    as_is: bool,
}

/// The size alone: a letter's text is nobody's business.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("size", &self.size()).field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Message {
    /// Reads a message to its end and makes it canonical. What follows a lone dot that ends it is read and
    /// dropped, so that its writer is not stopped by a broken pipe.
    pub fn read(input: &mut dyn Read, dot: LoneDot, store: Box<dyn Store>) -> Result<Self, Unreadable> {
        Self::read_within(Bounds::default(), input, dot, store)
    }

    /// As [`Message::read`], for those who read many messages at once and count their memory.
    pub fn read_within(
        bounds: Bounds,
        input: &mut dyn Read,
        dot: LoneDot,
        store: Box<dyn Store>,
    ) -> Result<Self, Unreadable> {
        Self::take_in(None, bounds, input, dot, store)
    }

    /// As [`Message::read`], for a text that has no header: all of it is the body.
    pub fn read_text(input: &mut dyn Read, dot: LoneDot, store: Box<dyn Store>) -> Result<Self, Unreadable> {
        Self::take_in(Some(Fields::default()), Bounds::default(), input, dot, store)
    }

    fn take_in(
        fields: Option<Fields>,
        bounds: Bounds,
        input: &mut dyn Read,
        dot: LoneDot,
        store: Box<dyn Store>,
    ) -> Result<Self, Unreadable> {
        let (header, scan) = (Vec::new(), Scan::default());
        let mut intake =
            Intake { header, room: bounds.header, most: bounds.header, line: 0, lines: 0, fields, store, scan };
        let (mut eol, mut chunk, mut canonical) = (Canonical::new(dot), vec![0; bounds.piece], Vec::new());
        loop {
            let n = match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Unreadable::Input(error)),
            };
            if eol.has_ended() {
                continue;
            }
            canonical.clear();
            eol.push(&chunk[..n], &mut canonical);
            intake.take(&canonical)?;
        }
        canonical.clear();
        eol.finish(&mut canonical);
        intake.take(&canonical)?;
        intake.finish()
    }

    /// Reopens octets that [`Message::reader`] once gave, of which the header is the first `header_len`.
    pub fn stored(content: Arc<dyn Content>, header_len: u64, facts: Facts) -> io::Result<Self> {
        // With room for it: `read_to_end` feels its way in steps of 32 octets otherwise.
        let mut header = Vec::with_capacity(usize::try_from(header_len).unwrap_or_default());
        content.reader()?.take(header_len).read_to_end(&mut header)?;
        Ok(Self {
            fields: Fields::parse(&header),
            body: Arc::new(Behind { content, start: header_len + 2 }),
            facts,
            as_is: false,
        })
    }

    /// Asks whoever gets it next not to complete its header (`-G`), where that is somebody who would.
    pub fn leave_as_is(&mut self) {
        self.as_is = true;
    }

    /// Whether that was asked.
    pub fn is_as_is(&self) -> bool {
        self.as_is
    }

    /// The header.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The header, to be changed.
    pub fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }

    /// The body.
    pub fn body(&self) -> &Arc<dyn Content> {
        &self.body
    }

    /// What is known of the body.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Octets of header, empty line and body.
    pub fn size(&self) -> u64 {
        self.header_len() + 2 + self.body.len()
    }

    /// Octets of the header, without the empty line.
    pub fn header_len(&self) -> u64 {
        self.fields.iter().map(|field| field.raw().len() as u64).sum()
    }

    /// Whether an octet above 127 is in the header or the body.
    pub fn is_8bit(&self) -> bool {
        self.facts.eight_bit || !self.fields.iter().all(|field| field.raw().is_ascii())
    }

    /// Reads header, empty line and body from the first octet.
    pub fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        let mut header = self.fields.to_octets();
        header.extend_from_slice(b"\r\n");
        Ok(Box::new(io::Cursor::new(header).chain(self.body.reader()?)))
    }

    /// How many hosts it has passed: its `Received:` fields.
    pub fn hops(&self) -> usize {
        self.fields.named("Received").count()
    }

    /// The recipients that the header names: those of To, Cc and Bcc, or of the newest block of `Resent-` fields
    /// where there is one (RFC 5322 §3.6.6). The error names the field.
    pub fn recipients(&self) -> Result<Vec<Address>, BadField> {
        let resent = complete::newest_resent_block(&self.fields);
        let names: [&str; 3] =
            if resent.is_empty() { ["To", "Cc", "Bcc"] } else { ["Resent-To", "Resent-Cc", "Resent-Bcc"] };
        let mut found = Vec::new();
        for (i, field) in self.fields.iter().enumerate() {
            if names.iter().any(|name| field.is(name)) && (resent.is_empty() || resent.contains(&i)) {
                let text = field.text();
                found.extend(address::parse_list(&text).map_err(|error| BadField {
                    name: field.name().to_owned(),
                    text,
                    error,
                })?);
            }
        }
        Ok(found)
    }

    /// A message whose lines no relay refuses for their length: header fields folded, body lines over 998
    /// octets encoded where the MIME structure allows it.
    #[must_use]
    pub fn with_short_lines(mut self) -> Self {
        self.fields.rewrite(encode::refold);
        if !self.facts.long_line {
            return self;
        }
        // A structure that does not allow it (a signature, a part that says it is encoded) passes as it is.
        mime::convert(&self, mime::Aim::ShortLines).unwrap_or(self)
    }

    /// The message in seven bits, for a relay that offers no 8BITMIME.
    pub fn for_7bit(&self) -> Result<Self, CannotConvert> {
        let mut message = if self.facts.eight_bit { mime::convert(self, mime::Aim::SevenBit)? } else { self.clone() };
        let mut failed = None;
        message.fields.rewrite(|field| {
            (!field.raw().is_ascii()).then(|| {
                encode::field_in_ascii(field).or_else(|| {
                    failed = Some(field.name().to_owned());
                    None
                })
            })?
        });
        failed.map_or(Ok(message), |name| Err(CannotConvert::Field(name)))
    }
}

/// The whole message: header, empty line and body.
impl Content for Message {
    fn len(&self) -> u64 {
        self.size()
    }
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Message::reader(self)
    }
}

/// An address field that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadField {
    /// The field's name.
    pub name: String,
    /// Its text, unfolded.
    pub text: String,
    /// What is wrong with it.
    pub error: AddressError,
}

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.name, self.text, self.error)
    }
}

/// What of another content comes behind its first octets.
struct Behind {
    content: Arc<dyn Content>,
    start: u64,
}

impl Content for Behind {
    fn len(&self) -> u64 {
        self.content.len().saturating_sub(self.start)
    }
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        self.content.reader_at(self.start)
    }
}

/// A message while it comes in, canonical already.
struct Intake {
    /// Header octets: whole lines that were taken, and the begin of one that is not whole.
    header: Vec<u8>,
    /// How many octets may be in it by [`Bounds::header`], and what its fields have left of them.
    most: usize,
    room: usize,
    /// Where that begin is.
    line: usize,
    /// Lines before what [`Intake::take`] gets next.
    lines: u64,
    /// The header once it has ended; from then on everything is body.
    fields: Option<Fields>,
    store: Box<dyn Store>,
    scan: Scan,
}

impl Intake {
    fn take(&mut self, canonical: &[u8]) -> Result<(), Unreadable> {
        if let Some(nul) = memchr::memchr(0, canonical) {
            let before = memchr::memchr_iter(b'\n', &canonical[..nul]).count() as u64;
            return Err(Unreadable::Nul(self.lines + before + 1));
        }
        self.lines += memchr::memchr_iter(b'\n', canonical).count() as u64;
        if self.fields.is_some() {
            return self.body(canonical);
        }
        let unread = self.header.len();
        self.header.extend_from_slice(canonical);
        self.header_lines(unread)
    }

    /// Looks at the header's lines that end behind `unread`. None is looked through twice, in however small pieces it
    /// comes.
    fn header_lines(&mut self, unread: usize) -> Result<(), Unreadable> {
        let (mut start, mut unread) = (self.line, unread);
        while let Some(at) = memchr::memchr(b'\n', &self.header[unread..]) {
            let end = unread + at + 1;
            let line = &self.header[start..end];
            if line == b"\r\n" {
                return self.end_header(start, end);
            }
            if begins_field(line) {
                self.room = self.room.saturating_sub(FIELD);
            } else {
                let folded = start > 0 && matches!(line[0], b' ' | b'\t');
                if start == 0 && is_mbox_line(line) {
                    self.header.drain(..end);
                    unread = 0;
                    continue;
                }
                if !folded {
                    return self.end_header(start, start);
                }
            }
            (start, unread) = (end, end);
        }
        self.line = start;
        let rest = &self.header[start..];
        let folded = start > 0 && matches!(rest.first(), Some(b' ' | b'\t'));
        if rest.len() > MAX_NAME && !folded && !begins_field(rest) && !is_mbox_line(rest) {
            return self.end_header(start, start);
        }
        self.fits(self.header.len())
    }

    /// The header ends at `end`; the body begins at `body`.
    fn end_header(&mut self, end: usize, body: usize) -> Result<(), Unreadable> {
        self.fits(end)?;
        self.fields = Some(Fields::parse(&self.header[..end]));
        let header = std::mem::take(&mut self.header);
        self.body(&header[body..])
    }

    fn fits(&self, header: usize) -> Result<(), Unreadable> {
        if header > self.room { Err(Unreadable::HeaderTooLarge(self.most)) } else { Ok(()) }
    }

    fn body(&mut self, octets: &[u8]) -> Result<(), Unreadable> {
        self.scan.take(octets);
        if octets.is_empty() { Ok(()) } else { self.store.write(octets).map_err(Unreadable::Store) }
    }

    fn finish(mut self) -> Result<Message, Unreadable> {
        let fields = self.fields.take().unwrap_or_else(|| Fields::parse(&self.header));
        let body = self.store.finish().map_err(Unreadable::Store)?;
        Ok(Message { fields, body, facts: self.scan.facts, as_is: false })
    }
}

/// Whether a line is a field's first. Its first [`MAX_NAME`] octets say so, however much of it there is.
fn begins_field(line: &[u8]) -> bool {
    name_and_colon(&line[..line.len().min(MAX_NAME)]).is_some()
}

/// The line that separates messages in a mailbox, or its quoted form. The same octets say so.
fn is_mbox_line(line: &[u8]) -> bool {
    let line = &line[..line.len().min(MAX_NAME)];
    let quotes = line.iter().take_while(|octet| **octet == b'>').count();
    line[quotes..].starts_with(b"From ")
}

/// Finds out the [`Facts`] of a body that comes in pieces.
#[derive(Default)]
struct Scan {
    facts: Facts,
    /// Octets of the line that the next piece goes on with.
    line: usize,
}

impl Scan {
    fn take(&mut self, octets: &[u8]) {
        self.facts.eight_bit = self.facts.eight_bit || !octets.is_ascii();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', octets) {
            self.facts.long_line |= self.line + end - start > 998 + 1;
            (self.line, start) = (0, end + 1);
        }
        self.line += octets.len() - start;
        self.facts.long_line |= self.line > 998 + 1;
    }
}

/// A body kept in memory, for messages that we compose ourselves and for tests.
#[derive(Default)]
pub struct InMemory(Vec<u8>);

impl Store for InMemory {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(octets);
        Ok(())
    }
    fn finish(self: Box<Self>) -> io::Result<Arc<dyn Content>> {
        Ok(Arc::new(self.0))
    }
}

/// A door for the fuzz targets in tests/fuzz, which no other build has.
#[cfg(fuzzing)]
pub use eol::Canonical as FuzzedCanonical;

#[cfg(test)]
mod tests;
