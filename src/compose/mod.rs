//! Composes a letter from what a person gives: a text, perhaps the same as HTML, and files.
//!
//! A text alone is a letter of one part; with HTML it is `multipart/alternative`; files put `multipart/mixed` around
//! that. The letter is composed while it is read ([`Pieces`]), so that files of any size pass in pieces into the store
//! of the [`Message`]; lettre's builder would hold them in memory, three times over. Its headers serve where they are
//! right: the name of a file (RFC 2231).
//!
//! Seven bits and short lines throughout, whatever the relay offers. A text of short ASCII lines goes as it is, never
//! as `format=flowed`; others are quoted-printable, or base64 where hardly a word would stay readable. Files are
//! base64, texts too: they arrive octet for octet, line ends included. RFC 2045, 2046, 2047, 2183. A stranger's text
//! can end no line of a header.

pub mod kind;

use crate::message::address::Address;
use crate::message::encode::{Base64, Encoder, QuotedPrintable, encoded_words, field_in_ascii, phrase};
use crate::message::fields::{Field, name_and_colon};
use crate::message::{Content, LoneDot, Message, Store, Unreadable, Utf8};
use lettre::message::header::{ContentDisposition, Headers};
use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

/// Octets read at a time.
const CHUNK: usize = 48 * 1024;

/// A word of a header that is longer cannot be folded into a line that every relay takes (RFC 5322 §2.1.1).
const MAX_WORD: usize = 900;

/// A line of a header that is longer is folded where there is a choice.
const LINE: usize = 76;

/// What a letter is made of.
pub struct Draft {
    /// The header but for what describes the body.
    pub fields: Vec<Field>,
    /// What was written.
    pub text: Text,
    /// The same as HTML.
    pub html: Option<Text>,
    /// In their order.
    pub files: Vec<Attachment>,
    /// Not guessable: no line of the letter may happen to be a delimiter.
    pub unique: String,
}

/// A file that goes with a letter.
pub struct Attachment {
    /// The name that it arrives under.
    pub name: String,
    /// Its media type.
    pub kind: String,
    /// Its octets.
    pub content: Box<dyn Read>,
}

/// A text, and how it travels.
pub struct Text {
    content: Arc<dyn Content>,
    kind: String,
    encoding: Encoding,
}

/// A transfer encoding (RFC 2045 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Encoding {
    /// As it is, under that name.
    Identity(String),
    QuotedPrintable,
    Base64,
}

/// What is known of a text from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Label {
    /// Its media type: of the writer's own choice, else `text/plain`.
    pub kind: Option<String>,
    /// A transfer encoding that the writer says it is in already.
    pub encoding: Option<String>,
    /// The character set of what is not UTF-8; `None`: nobody knows it.
    pub charset: Option<String>,
}

impl Text {
    /// Looks at the body of a message, and says how it travels under this label.
    pub fn new(message: &Message, label: Label) -> io::Result<Self> {
        let content = Arc::clone(message.body());
        let facts = message.facts();
        let (is_utf8, odd) = look(content.as_ref())?;
        let mut kind = label.kind.unwrap_or_else(|| "text/plain".to_owned());
        let (lower, is_plain) = (kind.to_ascii_lowercase(), !facts.eight_bit && !facts.long_line);
        if lower.starts_with("multipart/") || lower.starts_with("message/") {
            // The writer has made its parts, and they say how they are encoded.
            let name = if facts.eight_bit { "8bit" } else { "7bit" };
            return Ok(Self { content, kind, encoding: Encoding::Identity(name.to_owned()) });
        }
        if lower.starts_with("text/") && !lower.contains("charset") {
            let charset = match (facts.eight_bit, is_utf8) {
                (false, _) => "us-ascii",
                (true, true) => "utf-8",
                // RFC 1428
                (true, false) => label.charset.as_deref().unwrap_or("unknown-8bit"),
            };
            kind = format!("{kind}; charset={charset}");
        }
        let encoding = match label.encoding {
            Some(own) if is_plain => Encoding::Identity(own),
            _ if is_plain => Encoding::Identity("7bit".to_owned()),
            // An odd octet costs two more in quoted-printable, and every octet a third in base64.
            _ if odd > content.len() / 4 => Encoding::Base64,
            _ => Encoding::QuotedPrintable,
        };
        Ok(Self { content, kind, encoding })
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// The fields that describe it.
    fn fields(&self) -> String {
        let encoding = match &self.encoding {
            Encoding::Identity(name) => name,
            Encoding::QuotedPrintable => "quoted-printable",
            Encoding::Base64 => "base64",
        };
        let kind = field("Content-Type", &self.kind);
        let encoding = field("Content-Transfer-Encoding", encoding);
        [kind, encoding].iter().map(|field| String::from_utf8_lossy(field.raw()).into_owned()).collect()
    }

    fn reader(&self) -> io::Result<Encoded<'_>> {
        let encoder = match self.encoding {
            Encoding::Identity(_) => None,
            Encoding::QuotedPrintable => Some(Encoder::QuotedPrintable(QuotedPrintable::default())),
            Encoding::Base64 => Some(Encoder::Base64(Base64::default())),
        };
        Ok(Encoded::new(self.content.reader()?, encoder))
    }
}

/// Whether a text is UTF-8, and how many of its octets are not ASCII.
fn look(content: &dyn Content) -> io::Result<(bool, u64)> {
    let (mut reader, mut chunk) = (content.reader()?, vec![0; CHUNK]);
    let (mut utf8, mut odd) = (Utf8::default(), 0);
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok((utf8.is_right(), odd)),
            n => {
                utf8.take(&chunk[..n]);
                odd += chunk[..n].iter().filter(|octet| !octet.is_ascii()).count() as u64;
            }
        }
    }
}

/// A field of a header from a writer's text: what ends a line becomes a space, what is not ASCII is encoded.
pub fn field(name: &str, value: &str) -> Field {
    let value: String = value.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
    let value = value.trim();
    if value.split([' ', '\t']).any(|word| word.len() > MAX_WORD) {
        return Field::of(name, &encoded_words(value));
    }
    let field = Field::of(name, value);
    if value.is_ascii() { field } else { field_in_ascii(&field).unwrap_or(field) }
}

/// A field of addresses.
pub fn addresses(name: &str, list: &[Address]) -> Field {
    let (mut text, mut column) = (String::new(), name.len() + 2);
    for (i, address) in list.iter().enumerate() {
        let one = mailbox(address);
        if i > 0 {
            let folds = column + one.len() + 2 > LINE;
            text.push_str(if folds { ",\r\n " } else { ", " });
            column = if folds { 1 } else { column + 2 };
        }
        column += one.len();
        text.push_str(&one);
    }
    Field::of(name, &text)
}

/// An address as a header has it; a local name stays one, for the domain to come.
fn mailbox(address: &Address) -> String {
    // What cannot be a mailbox has been told as the recipient that it was to be.
    let whole = address.to_mailbox("localhost").map(|mailbox| mailbox.to_string()).unwrap_or_default();
    let bare = if address.domain.is_none() { whole.strip_suffix("@localhost").unwrap_or(&whole) } else { &whole };
    match address.display.as_deref().map(phrase).filter(|name| !name.is_empty()) {
        Some(name) => format!("{name} <{bare}>"),
        None => bare.to_owned(),
    }
}

/// Whether a word can be a field's name (RFC 5322 §3.6.8).
pub fn is_field_name(name: &str) -> bool {
    name_and_colon(format!("{name}:").as_bytes()) == Some((name.len(), name.len() + 1))
}

/// Composes the letter, and lets the store keep its body.
pub fn compose(draft: Draft, store: Box<dyn Store>) -> Result<Message, Unreadable> {
    let Draft { fields, text, html, files, unique } = draft;
    let mut pieces = Pieces::default();
    for field in &fields {
        pieces.say(field.raw());
    }
    pieces.say(b"MIME-Version: 1.0\r\n");
    let outer = format!("=_{unique}");
    if !files.is_empty() {
        pieces.say(multipart("mixed", &outer).as_bytes());
        pieces.say(format!("\r\n--{outer}\r\n").as_bytes());
    }
    match &html {
        // The alternative to nothing is no choice.
        Some(html) if text.is_empty() => pieces.part(html)?,
        None => pieces.part(&text)?,
        Some(html) => {
            let inner = format!("=_{unique}.a");
            pieces.say(multipart("alternative", &inner).as_bytes());
            for part in [&text, html] {
                pieces.say(format!("\r\n--{inner}\r\n").as_bytes());
                pieces.part(part)?;
            }
            pieces.say(format!("\r\n--{inner}--\r\n").as_bytes());
        }
    }
    for file in files.iter().map(head) {
        pieces.say(format!("\r\n--{outer}\r\n{file}\r\n").as_bytes());
        pieces.0.push_back(Piece::File);
    }
    if !files.is_empty() {
        pieces.say(format!("\r\n--{outer}--\r\n").as_bytes());
    }
    let mut files = files.into_iter();
    let mut reader = Reading { pieces, files: &mut files, open: None };
    Message::read(&mut reader, LoneDot::IsText, store)
}

fn multipart(kind: &str, boundary: &str) -> String {
    format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n")
}

/// The header of a file's part, without the empty line.
fn head(file: &Attachment) -> String {
    let kind = field("Content-Type", &file.kind);
    let name: String = file.name.chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }).collect();
    let mut disposition = Headers::new();
    disposition.set(ContentDisposition::attachment(&name));
    format!("{}Content-Transfer-Encoding: base64\r\n{disposition}", String::from_utf8_lossy(kind.raw()))
}

/// A letter in the order of its octets.
#[derive(Default)]
struct Pieces<'a>(VecDeque<Piece<'a>>);

enum Piece<'a> {
    Octets(Cursor<Vec<u8>>),
    Text(Encoded<'a>),
    /// The next file.
    File,
}

impl<'a> Pieces<'a> {
    fn say(&mut self, octets: &[u8]) {
        if let Some(Piece::Octets(last)) = self.0.back_mut() {
            last.get_mut().extend_from_slice(octets);
        } else {
            self.0.push_back(Piece::Octets(Cursor::new(octets.to_vec())));
        }
    }

    /// The header of a text, the empty line, and the text.
    fn part(&mut self, text: &'a Text) -> Result<(), Unreadable> {
        self.say(text.fields().as_bytes());
        self.say(b"\r\n");
        self.0.push_back(Piece::Text(text.reader().map_err(Unreadable::Store)?));
        Ok(())
    }
}

/// Reads one piece after the other; a file is dropped, and so closed, when it has been read.
struct Reading<'a, 'f> {
    pieces: Pieces<'a>,
    files: &'f mut dyn Iterator<Item = Attachment>,
    open: Option<(String, Encoded<'a>)>,
}

impl Read for Reading<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((name, file)) = &mut self.open {
                let n = file.read(into).map_err(|error| {
                    io::Error::new(error.kind(), format!("{name}: {}", crate::outcome::words(&error)))
                })?;
                if n > 0 {
                    return Ok(n);
                }
                self.open = None;
                self.pieces.0.pop_front();
            }
            let n = match self.pieces.0.front_mut() {
                None => return Ok(0),
                Some(Piece::Octets(octets)) => octets.read(into)?,
                Some(Piece::Text(text)) => text.read(into)?,
                Some(Piece::File) => {
                    let encoder = Some(Encoder::Base64(Base64::default()));
                    self.open = self.files.next().map(|file| (file.name, Encoded::new(file.content, encoder)));
                    if self.open.is_some() {
                        continue;
                    }
                    0
                }
            };
            if n > 0 {
                return Ok(n);
            }
            self.pieces.0.pop_front();
        }
    }
}

/// Octets that are encoded while they are read.
struct Encoded<'a> {
    source: Box<dyn Read + 'a>,
    encoder: Option<Encoder>,
    chunk: Vec<u8>,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> Encoded<'a> {
    fn new(source: Box<dyn Read + 'a>, encoder: Option<Encoder>) -> Self {
        Self { source, encoder, chunk: Vec::new(), out: Vec::new(), at: 0, ended: false }
    }

    fn encode(&mut self, n: usize) {
        let octets = &self.chunk[..n];
        match &mut self.encoder {
            None => self.out.extend_from_slice(octets),
            Some(encoder @ Encoder::Base64(_)) => encoder.text(octets, &mut self.out),
            // A text is canonical: no CR but before an LF.
            Some(encoder) => {
                for piece in octets.split_inclusive(|octet| *octet == b'\n') {
                    let (line, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |line| (line, true));
                    encoder.text(line.strip_suffix(b"\r").unwrap_or(line), &mut self.out);
                    if ends {
                        encoder.line_end(&mut self.out);
                    }
                }
            }
        }
    }
}

impl Read for Encoded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() && !self.ended {
            self.out.clear();
            self.at = 0;
            self.chunk.resize(CHUNK, 0);
            match self.source.read(&mut self.chunk) {
                Ok(0) => {
                    self.ended = true;
                    if let Some(encoder) = &mut self.encoder {
                        encoder.finish(&mut self.out);
                    }
                }
                Ok(n) => self.encode(n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let n = into.len().min(self.out.len() - self.at);
        into[..n].copy_from_slice(&self.out[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
