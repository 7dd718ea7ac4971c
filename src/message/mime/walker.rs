//! The walk through a body: lines in, lines out, each in the entity to which it belongs.
//!
//! No more than a part's header, or the start of a line, is held. Nesting, headers and numbers of parts beyond reason
//! are passed as they are. RFC 2046 §5.1.1.

use super::entity::{Context, Entity, Kind};
use super::plan::{Decision, Found};
use super::{Aim, DELIMITER};
use crate::message::Scan;
use crate::message::encode::{Base64, Encoder, Folder, QuotedPrintable, field_in_ascii};
use crate::message::fields::Fields;
use crate::message::utf8::Utf8;

/// Deeper nesting is passed as it is: no mail program makes it.
const MAX_DEPTH: usize = 32;

/// Whatever comes behind so many entities is passed as it is: of each something is remembered.
const MAX_PARTS: usize = 10_000;

/// The header of a part that is larger is passed as it is.
const MAX_PART_HEADER: usize = 64 * 1024;

/// Follows a body through its structure, and encodes by a plan on the way.
pub(super) struct Walker {
    /// The decisions by entity, in the order in which the entities begin; without them nothing changes.
    plan: Option<(Vec<Decision>, Aim)>,
    pub(super) found: Vec<Found>,
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
    pub(super) fn new(top: Entity, plan: Option<(Vec<Decision>, Aim)>) -> Self {
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
        let (entity, stiff) = if number == MAX_PARTS {
            self.open.clear();
            opaque()
        } else {
            (entity, stiff)
        };
        let decision = self.decision(number);
        let kind = entity.kind.clone();
        self.found.push(Found {
            entity,
            facts: Scan::default(),
            utf8: Utf8::default(),
            stiff_header: stiff == Stiff::Yes,
        });
        self.state = match kind {
            Kind::Message if self.open.len() < MAX_DEPTH => {
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

    pub(super) fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
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

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
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
                let (entity, stiff) = opaque();
                self.begin(entity, stiff);
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

/// Nothing of it may change, and nothing in it is structure.
fn opaque() -> (Entity, Stiff) {
    (Entity::of(&Fields::default(), Context::Signed), Stiff::Yes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stiff {
    Yes,
    No,
}
