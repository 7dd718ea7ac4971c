//! What is done with an entity: decided by what the first walk has found in it, told by its header in the second.
//!
//! What is signed, or lies about how it is encoded, is never changed; where it cannot pass as it is, that is an error.

use super::entity::{Context, Entity, Kind};
use super::{Aim, CannotConvert};
use crate::message::encode::Encoding;
use crate::message::fields::{Field, Fields};
use crate::message::utf8::Utf8;
use crate::message::{Facts, Scan};

/// What the first walk has found out about an entity.
pub(super) struct Found {
    pub(super) entity: Entity,
    /// Of its own lines: a leaf's content, a multipart's prologue.
    pub(super) facts: Scan,
    pub(super) utf8: Utf8,
    /// Its header is too large to be changed, or has eight-bit text where none can be encoded.
    pub(super) stiff_header: bool,
}

/// What is done with an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
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
    pub(super) fn decide(&self, aim: Aim) -> Result<Decision, CannotConvert> {
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

    /// What a nested message's own header is read as.
    pub(super) fn context(&self) -> Context {
        if self.entity.is_signed { Context::Signed } else { Context::Top }
    }
}

impl Decision {
    /// Makes an entity's header tell what its body has become.
    pub(super) fn describe(self, fields: &mut Fields, aim: Aim, context: Context) {
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
