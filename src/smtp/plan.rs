//! What a letter needs of a server, and the commands that follow from what the server offers.
//!
//! Pure: capabilities, envelope and letter in, MAIL and RCPT commands out. What cannot be sent to this server
//! is known here, before a command is spoken: a letter over its size limit, 8-bit content that cannot be
//! converted, an address that needs SMTPUTF8 where that is not offered. Domains always go as A-labels, so that
//! SMTPUTF8 is asked for only where a local part needs it. Delivery reports that were asked for and cannot be
//! passed on are a remark, never a reason to keep the letter.
//! RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 3461 (DSN).

use super::capabilities::Capabilities;
use crate::envelope::{Envelope, Mailbox, Recipient};
use crate::message::Message;
use lettre::Address;
use lettre::transport::smtp::commands::{Mail, Rcpt};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};
use std::fmt;
use std::io::{self, Read};

/// Our own service's extension: this parameter of MAIL is sendmail's `-G`.
pub const XGATEWAY: &str = "XGATEWAY";

/// A letter as the session wants to see it: canonical octets that can be read as often as needed.
pub trait Letter {
    /// Its octets, line ends included, dot-stuffing not.
    fn size(&self) -> u64;
    /// Whether an octet above 127 is in it.
    fn is_8bit(&self) -> bool;
    /// A fresh reader from the first octet.
    fn reader(&self) -> io::Result<Box<dyn Read + '_>>;
    /// The same letter for a server without 8BITMIME, or why there is none.
    fn for_7bit(&self) -> Result<Box<dyn Letter>, String>;
    /// Whether its header is not to be completed by a server that would (our own service, on [`XGATEWAY`]).
    fn is_as_is(&self) -> bool {
        false
    }
}

impl Letter for Message {
    fn size(&self) -> u64 {
        Message::size(self)
    }
    fn is_8bit(&self) -> bool {
        Message::is_8bit(self)
    }
    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Message::reader(self)
    }
    fn is_as_is(&self) -> bool {
        Message::is_as_is(self)
    }
    fn for_7bit(&self) -> Result<Box<dyn Letter>, String> {
        Message::for_7bit(self).map(|message| Box::new(message) as Box<dyn Letter>).map_err(|why| why.to_string())
    }
}

/// Why a letter, or one of its recipients, cannot be sent to this server whatever it would answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Larger than the server's SIZE.
    TooLarge {
        /// The letter's octets.
        size: u64,
        /// What the server takes.
        limit: u64,
    },
    /// 8-bit content, no 8BITMIME, and no way to convert it.
    EightBit(String),
    /// An address with a non-ASCII local part, and no SMTPUTF8.
    Utf8Address(String),
    /// A domain that IDNA cannot put into A-labels.
    BadDomain(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, limit } => {
                write!(f, "takes letters of {limit} octets at most, and this one has {size}")
            }
            Self::EightBit(why) => write!(f, "takes no 8-bit letters, and this one cannot be converted: {why}"),
            Self::Utf8Address(address) => {
                write!(f, "takes no address with letters beyond ASCII, like <{address}> (SMTPUTF8)")
            }
            Self::BadDomain(domain) => {
                write!(f, "cannot be told the domain {domain}, which is no valid international name")
            }
        }
    }
}

/// How to send one letter to one server. The default is that of a letter which cannot be sent.
#[derive(Default)]
pub struct Plan {
    /// The MAIL command with its line end.
    pub mail: String,
    /// For each recipient of the envelope, in its order: the RCPT command, or why there is none.
    pub recipients: Vec<Result<String, Unfit>>,
    /// The letter in 7 bits, where the server asks for it.
    pub converted: Option<Box<dyn Letter>>,
    /// What was asked for and cannot be passed on.
    pub remarks: Vec<String>,
}

impl Plan {
    /// Plans the sending of a letter to a server. An error is one for all recipients.
    pub fn new(offered: &Capabilities, envelope: &Envelope, letter: &dyn Letter) -> Result<Self, Unfit> {
        let convert = letter.is_8bit() && !offered.offers("8BITMIME");
        let converted = if convert { Some(letter.for_7bit().map_err(Unfit::EightBit)?) } else { None };
        let size = converted.as_ref().map_or(letter.size(), |converted| converted.size());
        if let Some(limit) = offered.size_limit().filter(|&limit| size > limit) {
            return Err(Unfit::TooLarge { size, limit });
        }

        let utf8 = offered.offers("SMTPUTF8");
        let sender = envelope.reverse_path().0.as_ref();
        let reverse_path = sender.map(|mailbox| address(mailbox, utf8)).transpose()?;
        let forward_paths: Vec<_> = envelope.recipients().iter().map(|to| address(&to.mailbox, utf8)).collect();
        let needs_utf8 = sender.is_some_and(Mailbox::local_is_utf8)
            || envelope
                .recipients()
                .iter()
                .zip(&forward_paths)
                .any(|(to, path)| path.is_ok() && to.mailbox.local_is_utf8());

        let mut dsn = Dsn { offered: offered.offers("DSN"), remarks: Vec::new() };
        let mut parameters = Vec::new();
        if offered.offers("SIZE") {
            parameters.extend(usize::try_from(size).ok().map(MailParameter::Size));
        }
        if letter.is_8bit() && !convert {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if needs_utf8 {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if letter.is_as_is() && offered.offers(XGATEWAY) {
            parameters.push(MailParameter::Other { keyword: XGATEWAY.to_owned(), value: None });
        }
        parameters.extend(dsn.of_letter(envelope));
        let recipients = envelope.recipients().iter().zip(forward_paths);
        let recipients = recipients.map(|(to, path)| Ok(Rcpt::new(path?, dsn.of_recipient(to)).to_string())).collect();
        Ok(Self { mail: Mail::new(reverse_path, parameters).to_string(), recipients, converted, remarks: dsn.remarks })
    }
}

/// The address as it goes on the wire. lettre's own check refuses local parts that exist (longer than 64
/// octets, as SRS and VERP make them); [`Mailbox`] has done the checks that matter here.
fn address(mailbox: &Mailbox, utf8: bool) -> Result<Address, Unfit> {
    if mailbox.local_is_utf8() && !utf8 {
        return Err(Unfit::Utf8Address(mailbox.to_string()));
    }
    let bad_domain = || Unfit::BadDomain(mailbox.domain().to_owned());
    let ascii = mailbox.with_ascii_domain().filter(|ascii| !ascii.domain().is_empty());
    let ascii = if mailbox.domain().is_ascii() { mailbox.clone() } else { ascii.ok_or_else(bad_domain)? };
    let wire = ascii.to_string();
    let (local, domain) = wire.rsplit_once('@').ok_or_else(bad_domain)?;
    Ok(Address::new_dangerous(local, domain))
}

/// Passes on what was asked about delivery reports, or remarks that it cannot.
struct Dsn {
    offered: bool,
    remarks: Vec<String>,
}

impl Dsn {
    fn of_letter(&mut self, envelope: &Envelope) -> Vec<MailParameter> {
        let ret = self.value("RET", envelope.ret.map(|ret| ret.to_string()));
        let envid = self.value("ENVID", envelope.envid.clone());
        let parameter = |(keyword, value)| MailParameter::Other { keyword, value: Some(value) };
        ret.into_iter().chain(envid).map(parameter).collect()
    }

    fn of_recipient(&mut self, recipient: &Recipient) -> Vec<RcptParameter> {
        let notify = self.value("NOTIFY", recipient.notify.map(|notify| notify.to_string()));
        let orcpt = self.value("ORCPT", recipient.orcpt.clone());
        let parameter = |(keyword, value)| RcptParameter::Other { keyword, value: Some(value) };
        notify.into_iter().chain(orcpt).map(parameter).collect()
    }

    /// Keyword and value, where one was asked for and can go out. lettre writes the value as xtext, but a
    /// control character wrongly (`+D` for `+0D`) and one beyond ASCII not at all: those stay here.
    fn value(&mut self, keyword: &str, value: Option<String>) -> Option<(String, String)> {
        let value = value?;
        let remark = if !self.offered {
            "the relay does not offer DSN: what was asked about delivery reports stays here".to_owned()
        } else if !value.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
            format!("{keyword} is not printable ASCII and stays here")
        } else {
            return Some((keyword.to_owned(), value));
        };
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
        None
    }
}
