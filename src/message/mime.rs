//! Bodies that must change to be taken: long lines and eight-bit octets are encoded, part by part.
//!
//! A body may be of any size, so it is walked, not held: once to find out what its parts are ([`Walker`] with an empty
//! plan), then again, by every reader of the converted [`Content`], to encode those that need it. Only leaves are
//! touched: those that say they are 7bit, 8bit or binary are encoded, and over-long lines of base64 and
//! quoted-printable broken; a signed part never is, since that would break the signature. RFC 2045 §6, RFC 2046 §5, RFC
//! 1847 §2.1 (signed parts are opaque).

mod entity;
mod plan;
mod walker;

use super::fields::Fields;
use super::{CHUNK, Content, Message, Scan};
use entity::{Context, Entity};
use plan::Decision;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use walker::Walker;

/// A boundary has at most 70 characters (RFC 2046 §5.1.1); this much of a line decides whether it is one.
const DELIMITER: usize = 128;

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

/// Converts a message's body and the header fields that describe it.
pub(super) fn convert(message: &Message, aim: Aim) -> Result<Message, CannotConvert> {
    let entity = Entity::of(&message.fields, Context::Top);
    let mut finder = Walker::new(entity, None);
    pump(message.body.as_ref(), &mut finder, |_| {}).map_err(CannotConvert::Io)?;
    let plan = finder.found.iter().map(|found| found.decide(aim)).collect::<Result<Vec<_>, _>>()?;

    let mut fields = message.fields.clone();
    plan.first().copied().unwrap_or(Decision::Pass).describe(&mut fields, aim, Context::Top);
    let mut body = Converted { body: Arc::clone(&message.body), fields: message.fields.clone(), plan, aim, len: 0 };
    let (mut len, mut facts) = (0, Scan::default());
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
    let (mut reader, mut chunk, mut out) = (body.reader()?, vec![0; CHUNK], Vec::new());
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
