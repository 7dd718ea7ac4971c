//! What an entity's header says of its body: whether it has parts, how it is encoded, and whether it is signed.
//!
//! Whatever cannot be read is a leaf of plain text: then nothing in it is taken for structure. RFC 2045 §5 and §6, RFC
//! 2046 §5.1.

use super::DELIMITER;
use crate::message::encode::Encoding;
use crate::message::fields::{Field, Fields};

/// Where an entity stands: it decides what its header means when it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Top,
    Part,
    DigestPart,
    /// In a signed multipart: opaque.
    Signed,
}

/// What an entity's header says of its body.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    pub(super) kind: Kind,
    pub(super) encoding: Encoding,
    pub(super) is_text: bool,
    /// Its header names a type.
    pub(super) is_typed: bool,
    /// It is signed, or part of what is: nothing of it may change.
    pub(super) is_signed: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Leaf,
    Multipart { boundary: Vec<u8>, parts: Context },
    Message,
}

impl Entity {
    pub(super) fn of(fields: &Fields, context: Context) -> Self {
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
