//! Bodies that must change to be taken: long lines and eight-bit octets are encoded, part by part.
//!
//! A body may be of any size, so it is walked, not held: once to find out what its parts are ([`Walker`] with an empty
//! plan), then again, by every reader of the converted [`Content`], to encode those that need it. Only leaves are
//! touched: those that say they are 7bit, 8bit or binary are encoded, and over-long lines of base64 and
//! quoted-printable broken; a signed part never is, since that would break the signature. RFC 2045 §6, RFC 2046 §5, RFC
//! 1847 §2.1 (signed parts are opaque).

use super::encode::{Base64, Encoder, Encoding, Folder, QuotedPrintable, field_in_ascii};
use super::fields::{Field, Fields};
use super::{Content, Facts, Message};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

/// What a conversion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// No line over 998 octets.
    ShortLines,
    /// No octet above 127.
    SevenBit,
}

/// Why a message cannot be put into seven bits.
#[derive(Debug)]
pub enum CannotConvert {
    /// A part is signed, or says that it is encoded and is not, or its structure is beyond reason.
    Structure,
    /// A header field has eight-bit text in a place that has no encoding for it.
    Field(String),
    /// The body cannot be read.
    Io(io::Error),
}

impl fmt::Display for CannotConvert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Structure => f.write_str("a part of the letter has 8-bit text that must not or cannot be encoded"),
            Self::Field(name) => write!(f, "its {name} field has 8-bit text that cannot be encoded"),
            Self::Io(error) => write!(f, "the letter cannot be read: {error}"),
        }
    }
}

/// Deeper nesting is passed as it is: no mail program makes it.
const MAX_DEPTH: usize = 32;

/// The header of a part that is larger is passed as it is.
const MAX_PART_HEADER: usize = 64 * 1024;

/// A boundary has at most 70 characters (RFC 2046 §5.1.1); this much of a line decides whether it is one.
const DELIMITER: usize = 128;

/// Converts a message's body and the header fields that describe it.
pub(super) fn convert(message: &Message, aim: Aim) -> Result<Message, CannotConvert> {
    let entity = Entity::of(&message.fields, Context::Top);
    let mut finder = Walker::new(entity, None);
    pump(message.body.as_ref(), &mut finder, |_| {}).map_err(CannotConvert::Io)?;
    let plan = finder.found.iter().map(|found| found.decide(aim)).collect::<Result<Vec<_>, _>>()?;

    let mut fields = message.fields.clone();
    plan.first().copied().unwrap_or(Decision::Pass).describe(&mut fields, aim, Context::Top);
    let mut body = Converted { body: Arc::clone(&message.body), fields: message.fields.clone(), plan, aim, len: 0 };
    let (mut len, mut facts) = (0, super::Scan::default());
    pump(body.body.as_ref(), &mut body.walker(), |octets| {
        len += octets.len() as u64;
        facts.take(octets);
    })
    .map_err(CannotConvert::Io)?;
    body.len = len;
    if aim == Aim::SevenBit && facts.facts.eight_bit {
        return Err(CannotConvert::Structure);
    }
    Ok(Message { fields, body: Arc::new(body), facts: facts.facts, as_is: message.as_is })
}

/// Pushes a whole body through a walker.
fn pump(body: &dyn Content, walker: &mut Walker, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
    let (mut reader, mut chunk, mut out) = (body.reader()?, vec![0; super::CHUNK], Vec::new());
    loop {
        let n = reader.read(&mut chunk)?;
        if n == 0 {
            walker.finish(&mut out);
        } else {
            walker.push(&chunk[..n], &mut out);
        }
        sink(&out);
        out.clear();
        if n == 0 {
            return Ok(());
        }
    }
}

/// A body that is converted while it is read.
struct Converted {
    body: Arc<dyn Content>,
    fields: Fields,
    plan: Vec<Decision>,
    aim: Aim,
    len: u64,
}

impl Converted {
    fn walker(&self) -> Walker {
        Walker::new(Entity::of(&self.fields, Context::Top), Some((self.plan.clone(), self.aim)))
    }
}

impl Content for Converted {
    fn len(&self) -> u64 {
        self.len
    }
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        let reader =
            Converting { source: self.body.reader()?, walker: self.walker(), out: Vec::new(), at: 0, ended: false };
        Ok(Box::new(reader))
    }
}

struct Converting<'a> {
    source: Box<dyn Read + 'a>,
    walker: Walker,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Converting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        while self.at == self.out.len() && !self.ended {
            self.out.clear();
            self.at = 0;
            match self.source.read(&mut chunk)? {
                0 => {
                    self.ended = true;
                    self.walker.finish(&mut self.out);
                }
                n => self.walker.push(&chunk[..n], &mut self.out),
            }
        }
        let n = into.len().min(self.out.len() - self.at);
        into[..n].copy_from_slice(&self.out[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Where an entity stands: it decides what its header means when it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Top,
    Part,
    DigestPart,
    /// In a signed multipart: opaque.
    Signed,
}

/// What an entity's header says of its body.
#[derive(Clone, Debug)]
struct Entity {
    kind: Kind,
    encoding: Encoding,
    is_text: bool,
    /// Its header names a type.
    is_typed: bool,
    is_signed: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Leaf,
    Multipart { boundary: Vec<u8>, parts: Context },
    Message,
}

impl Entity {
    fn of(fields: &Fields, context: Context) -> Self {
        let encoding = fields.first("Content-Transfer-Encoding").map(Field::text).unwrap_or_default();
        let encoding = Encoding::read(&encoding);
        let is_identity = encoding == Encoding::Identity;
        let named = fields.first("Content-Type").map(Field::text);
        let default = if context == Context::DigestPart { "message/rfc822" } else { "text/plain" };
        let value = named.as_deref().unwrap_or(default);
        let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_signed = context == Context::Signed || media == "multipart/signed";
        let kind = match (media.as_str(), parameter(value, "boundary")) {
            (media, Some(boundary)) if media.starts_with("multipart/") && is_identity => {
                let parts = match media {
                    _ if is_signed => Context::Signed,
                    "multipart/digest" => Context::DigestPart,
                    _ => Context::Part,
                };
                Kind::Multipart { boundary: [b"--", boundary.as_bytes()].concat(), parts }
            }
            ("message/rfc822" | "message/global", _) if is_identity => Kind::Message,
            _ => Kind::Leaf,
        };
        let is_text = media.starts_with("text/");
        Self { kind, encoding, is_text, is_typed: named.is_some(), is_signed }
    }
}

/// A parameter of a Content-Type value (RFC 2045 §5.1), its quotes resolved.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value;
    loop {
        rest = rest[rest.find(';')? + 1..].trim_start_matches([' ', '\t']);
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start_matches([' ', '\t']);
        let (text, behind) = after.strip_prefix('"').map_or_else(|| bare_text(after), quoted_text);
        if key.trim().eq_ignore_ascii_case(name) {
            return (!text.is_empty() && text.len() <= DELIMITER - 6).then_some(text);
        }
        rest = behind;
    }
}

/// A token, and what is behind it.
fn bare_text(text: &str) -> (String, &str) {
    let (token, behind) = text.split_at(text.find([';', ' ', '\t', '(']).unwrap_or(text.len()));
    (token.to_owned(), behind)
}

/// The text up to the closing quote, and what is behind it.
fn quoted_text(text: &str) -> (String, &str) {
    let (mut inner, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => inner.extend(chars.next()),
            c => inner.push(c),
        }
    }
    (inner, chars.as_str())
}

/// What the first walk has found out about an entity.
struct Found {
    entity: Entity,
    /// Of its own lines: a leaf's content, a multipart's prologue.
    facts: super::Scan,
    utf8: Utf8,
    /// Its header is too large to be changed, or has eight-bit text where none can be encoded.
    stiff_header: bool,
}

/// What is done with an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Pass,
    /// It has parts, some of which may be encoded.
    Holds,
    QuotedPrintable {
        charset: Option<&'static str>,
    },
    Base64,
    /// It is encoded already, in lines that are too long.
    Fold(Encoding),
}

impl Found {
    fn decide(&self, aim: Aim) -> Result<Decision, CannotConvert> {
        let Facts { eight_bit, long_line } = self.facts.facts;
        let (is_leaf, entity) = (matches!(self.entity.kind, Kind::Leaf), &self.entity);
        let is_identity = entity.encoding == Encoding::Identity;
        let is_soft = is_leaf && is_identity && !entity.is_signed && !self.stiff_header;
        let is_encoded = matches!(entity.encoding, Encoding::Base64 | Encoding::QuotedPrintable);
        let is_in_order = aim == Aim::ShortLines || !(eight_bit || self.stiff_header);
        if long_line && is_leaf && is_encoded && !entity.is_signed && is_in_order {
            return Ok(Decision::Fold(entity.encoding));
        }
        let needed = match aim {
            Aim::ShortLines => long_line,
            Aim::SevenBit => eight_bit || (long_line && is_soft),
        };
        match (needed, is_soft) {
            (false, _) if aim == Aim::SevenBit && self.stiff_header => Err(CannotConvert::Structure),
            (false, _) => Ok(if is_leaf || entity.is_signed { Decision::Pass } else { Decision::Holds }),
            (true, false) if aim == Aim::SevenBit => Err(CannotConvert::Structure),
            (true, false) => Ok(Decision::Pass),
            (true, true) if entity.is_text => {
                let charset = match (eight_bit, self.utf8.is_right()) {
                    _ if entity.is_typed => None,
                    (false, _) => Some("us-ascii"),
                    (true, true) => Some("utf-8"),
                    (true, false) => Some("unknown-8bit"),
                };
                Ok(Decision::QuotedPrintable { charset })
            }
            (true, true) => Ok(Decision::Base64),
        }
    }
}

impl Decision {
    /// Makes an entity's header tell what its body has become.
    fn describe(self, fields: &mut Fields, aim: Aim, context: Context) {
        let encoding = match self {
            Self::Pass | Self::Fold(_) => return,
            Self::Holds => {
                let says = fields.first("Content-Transfer-Encoding").map(|field| field.text().to_ascii_lowercase());
                if aim == Aim::SevenBit && says.is_some_and(|says| says != "7bit") {
                    fields.set(Field::of("Content-Transfer-Encoding", "7bit"));
                }
                return;
            }
            Self::QuotedPrintable { .. } => "quoted-printable",
            Self::Base64 => "base64",
        };
        if context == Context::Top && fields.first("MIME-Version").is_none() {
            fields.append(Field::of("MIME-Version", "1.0"));
        }
        if let Self::QuotedPrintable { charset: Some(charset) } = self {
            fields.set(Field::of("Content-Type", &format!("text/plain; charset={charset}")));
        }
        fields.set(Field::of("Content-Transfer-Encoding", encoding));
    }
}

/// Follows a body through its structure, and encodes by a plan on the way.
struct Walker {
    /// The decisions by entity, in the order in which the entities begin; without them nothing changes.
    plan: Option<(Vec<Decision>, Aim)>,
    found: Vec<Found>,
    /// The multiparts around the current place: their delimiters and what their parts are.
    open: Vec<(Vec<u8>, Context)>,
    state: State,
    /// The start of a line of which it is not known yet whether it is a delimiter.
    held: Vec<u8>,
    /// A line end that belongs to the body only if no delimiter follows.
    line_end: bool,
    /// In the middle of a line that is known to be no delimiter.
    in_line: bool,
}

enum State {
    /// In a part's header, gathered until it is whole.
    Header { octets: Vec<u8>, context: Context },
    /// In a body, and how it is encoded.
    Body(Option<Encoder>),
}

impl Walker {
    fn new(top: Entity, plan: Option<(Vec<Decision>, Aim)>) -> Self {
        let mut walker = Self {
            plan,
            found: Vec::new(),
            open: Vec::new(),
            state: State::Body(None),
            held: Vec::new(),
            line_end: false,
            in_line: false,
        };
        walker.begin(top, Stiff::No);
        walker
    }

    /// An entity's body begins.
    fn begin(&mut self, entity: Entity, stiff: Stiff) {
        let number = self.found.len();
        let decision = self.decision(number);
        let kind = entity.kind.clone();
        self.found.push(Found {
            entity,
            facts: super::Scan::default(),
            utf8: Utf8::default(),
            stiff_header: stiff == Stiff::Yes,
        });
        self.state = match kind {
            Kind::Message if self.open.len() < MAX_DEPTH && number < 10_000 => {
                State::Header { octets: Vec::new(), context: self.found[number].context() }
            }
            Kind::Multipart { boundary, parts } if self.open.len() < MAX_DEPTH => {
                self.open.push((boundary, parts));
                State::Body(None)
            }
            _ => State::Body(match decision {
                Decision::QuotedPrintable { .. } => Some(Encoder::QuotedPrintable(QuotedPrintable::default())),
                Decision::Base64 => Some(Encoder::Base64(Base64::default())),
                Decision::Fold(encoding) => Some(Encoder::Folder(Folder::new(encoding))),
                Decision::Pass | Decision::Holds => None,
            }),
        };
    }

    fn decision(&self, number: usize) -> Decision {
        self.plan.as_ref().and_then(|(plan, _)| plan.get(number).copied()).unwrap_or(Decision::Pass)
    }

    fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        while !octets.is_empty() {
            let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |end| end + 1);
            let (piece, rest) = octets.split_at(end);
            octets = rest;
            if self.in_line {
                self.text(piece, out);
            } else {
                self.held.extend_from_slice(piece);
                if self.held.ends_with(b"\n") || self.held.len() > DELIMITER {
                    let start = std::mem::take(&mut self.held);
                    self.line_start(&start, out);
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let start = std::mem::take(&mut self.held);
        if !start.is_empty() {
            self.line_start(&start, out);
        }
        if let State::Header { octets, .. } = &mut self.state {
            out.append(octets);
        }
        self.end_body(out);
        if std::mem::take(&mut self.line_end) {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// A line, or as much of it as is needed to tell a delimiter.
    fn line_start(&mut self, start: &[u8], out: &mut Vec<u8>) {
        match self.delimiter(start) {
            None => self.text(start, out),
            Some((depth, closes)) => {
                if let State::Header { octets, .. } = &mut self.state {
                    out.append(octets);
                }
                self.end_body(out);
                if std::mem::take(&mut self.line_end) {
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(start);
                self.open.truncate(depth + 1);
                let context = self.open[depth].1;
                self.state = if closes {
                    self.open.truncate(depth);
                    State::Body(None)
                } else {
                    State::Header { octets: Vec::new(), context }
                };
            }
        }
    }

    /// Whether a line delimits one of the open multiparts, which, and whether it is the last one.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        if self.open.is_empty() || !line.starts_with(b"--") {
            return None;
        }
        self.open.iter().enumerate().rev().find_map(|(depth, (boundary, _))| {
            let rest = line.strip_prefix(boundary.as_slice())?;
            let is_end = |rest: &[u8]| rest.iter().all(|octet| b" \t\r\n".contains(octet));
            match rest.strip_prefix(b"--") {
                Some(rest) if is_end(rest) => Some((depth, true)),
                _ if is_end(rest) => Some((depth, false)),
                _ => None,
            }
        })
    }

    /// Octets that are no delimiter: at most one line, perhaps not its start, perhaps not its end.
    fn text(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let text = octets.strip_suffix(b"\r\n");
        // A CR at the end of a piece is the first half of its line end: the other half comes by itself.
        let (text, ends) = match (text, octets) {
            (Some(text), _) => (text, true),
            (None, b"\n") => (&octets[..0], true),
            (None, [text @ .., b'\r']) => (text, false),
            (None, _) => (octets, false),
        };
        self.in_line = !ends;
        if text.is_empty() && !ends {
            return;
        }
        if let State::Header { octets, context } = &mut self.state {
            octets.extend_from_slice(text);
            if ends {
                octets.extend_from_slice(b"\r\n");
            }
            let context = *context;
            if octets.len() > MAX_PART_HEADER {
                out.append(octets);
                self.begin(Entity::of(&Fields::default(), Context::Signed), Stiff::Yes);
            } else if octets.as_slice() == b"\r\n" || octets.ends_with(b"\r\n\r\n") {
                let octets = std::mem::take(octets);
                self.end_header(&octets, context, out);
            }
            return;
        }
        if let Some(found) = self.found.last_mut() {
            found.facts.take(text);
            found.utf8.take(text);
            if ends {
                found.facts.take(b"\r\n");
            }
        }
        if std::mem::replace(&mut self.line_end, ends) {
            self.inner_line_end(out);
        }
        match &mut self.state {
            State::Body(Some(encoder)) => encoder.text(text, out),
            _ => out.extend_from_slice(text),
        }
    }

    fn inner_line_end(&mut self, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Body(Some(encoder)) => encoder.line_end(out),
            _ => out.extend_from_slice(b"\r\n"),
        }
    }

    fn end_body(&mut self, out: &mut Vec<u8>) {
        if let State::Body(Some(encoder)) = &mut self.state {
            encoder.finish(out);
        }
    }

    /// A part's header is whole, its empty line included: it goes out as the plan wants it, and its body begins.
    fn end_header(&mut self, octets: &[u8], context: Context, out: &mut Vec<u8>) {
        let mut fields = Fields::parse(octets);
        let entity = Entity::of(&fields, context);
        let (mut stiff, is_signed) = (Stiff::No, entity.is_signed);
        if let Some((_, aim)) = &self.plan {
            if !is_signed {
                if *aim == Aim::SevenBit {
                    fields.rewrite(|field| if field.raw().is_ascii() { None } else { field_in_ascii(field) });
                }
                self.decision(self.found.len()).describe(&mut fields, *aim, context);
            }
        } else if fields.iter().any(|field| !field.raw().is_ascii() && (is_signed || field_in_ascii(field).is_none())) {
            stiff = Stiff::Yes;
        }
        let parsed = Fields::parse(octets);
        if fields == parsed {
            out.extend_from_slice(octets);
        } else {
            out.extend_from_slice(&fields.to_octets());
            out.extend_from_slice(b"\r\n");
        }
        self.line_end = false;
        self.begin(entity, stiff);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stiff {
    Yes,
    No,
}

impl Found {
    /// What a nested message's own header is read as.
    fn context(&self) -> Context {
        if self.entity.is_signed { Context::Signed } else { Context::Top }
    }
}

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
