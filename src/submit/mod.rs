//! One submission: a message and some words become a letter, and somebody takes responsibility for it.
//!
//! First [`Counter::prepare`]: recipients, sender and account are settled and the header is completed; nothing is sent
//! while anything about the letter is in doubt. Then [`hand_over()`]: to the relay while the caller waits, or to
//! the queue, by the delivery mode. The [`End`] says who owns the letter now: it is the only thing that an exit
//! status is made from. A failure is told once: to the caller where nobody has the letter, by a bounce else.

mod counter;
mod hand_over;

pub use counter::Counter;
pub use hand_over::{ATTEMPT, Keep, When, bounce, hand_over};

use crate::deliver::Attempted;
use crate::envelope::{BadMailbox, Envelope, Notify, Ret};
use crate::message::address::{Address, AddressError};
use crate::message::{Message, Unreadable};
use crate::queue::{self, Id};
use std::cell::LazyCell;

/// Everything the caller asked for, read but not yet judged.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The account that was named.
    pub account: Option<String>,
    /// The reverse-path that was given; `None` where none was.
    pub sender: Option<Option<Address>>,
    /// Whether the author in the header is the sender, where it names one.
    pub sender_from_header: bool,
    /// The name for a From: that we write; `None`: the account's, else the caller's own.
    pub full_name: Option<String>,
    /// Recipients named outside the message.
    pub recipients: Vec<Address>,
    /// Whether the header names recipients too (`-t`).
    pub recipients_from_header: bool,
    /// DSN: when to report.
    pub notify: Option<Notify>,
    /// DSN: how much to return.
    pub ret: Option<Ret>,
    /// DSN: the envelope id.
    pub envid: Option<String>,
    /// Leave the header alone (`-G`).
    pub gateway: bool,
}

/// Who hands a letter in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Login name.
    pub login: String,
    /// Full name; may be empty.
    pub full_name: String,
}

/// What is known about the caller and the machine, with what only the roof can give: the date and a random word.
pub struct Here<'a> {
    /// Who it is; a letter that names its sender and its author never asks.
    pub caller: LazyCell<Caller, Box<dyn FnOnce() -> Caller + 'a>>,
    /// Completes names that have no domain.
    pub domain: String,
    /// The machine's own name, full where that is known.
    pub host: String,
    /// The date for a header that has none (RFC 5322 §3.3).
    pub date: String,
    /// Not guessable; the left side of a Message-ID that we write.
    pub unique: String,
}

/// A letter ready to be handed over.
pub struct Letter {
    /// Who and to whom.
    pub envelope: Envelope,
    /// Complete and canonical.
    pub message: Message,
    /// The account that was asked for by name.
    pub account: Option<String>,
}

/// Why nobody has the letter.
#[derive(Debug)]
pub enum Why {
    /// Neither the words nor the header name a recipient.
    NoRecipients,
    /// An address in the words cannot be used.
    BadAddress(String, AddressError),
    /// An address field of the message cannot be read; field name and text.
    BadField(String),
    /// A recipient or the sender is no complete, safe address.
    BadMailbox(String, BadMailbox),
    /// The aliases lead nowhere.
    Aliases(String),
    /// No account takes it.
    NoAccount(String),
    /// The message itself cannot be taken: standard input failed, a NUL, a header without end.
    Message(Unreadable),
    /// It has passed so many hosts that it must be in a loop.
    Loop(usize),
    /// The queue cannot keep it.
    Queue(queue::Error),
    /// The relay refused it for everybody, or put it off and the queue is off.
    Outcomes(Vec<Attempted>),
}

/// Who has the letter now.
#[must_use]
#[derive(Debug)]
pub enum End {
    /// The relay, for every recipient.
    Relayed(Vec<Attempted>),
    /// The queue, for those that are not relayed; what failed on the way is bounced.
    Owned {
        /// The queue id.
        id: Id,
        /// What an attempt gave, where one was made.
        attempted: Vec<Attempted>,
    },
    /// The relay for some and nobody for the others: the queue is off.
    Partly(Vec<Attempted>),
    /// The relay where it took the letter, or may have taken it; nobody for the others, because the queue failed.
    Unkept(Vec<Attempted>, queue::Error),
    /// Nobody.
    Refused(Why),
}
