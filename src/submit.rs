//! One submission: a message and some words become a letter, and somebody takes responsibility for it.
//!
//! First [`prepare`]: recipients, sender and account are settled and the header is completed; nothing is sent
//! while anything about the letter is in doubt. Then [`hand_over`]: to the relay while the caller waits, or to
//! the queue, by the delivery mode. The [`End`] says who owns the letter now: it is the only thing that an exit
//! status is made from. A failure is told once: to the caller where nobody has the letter, by a bounce else.

use crate::config::{Account, Settings, choose};
use crate::deliver::{Attempted, Carrier, log_outcomes};
use crate::dsn;
use crate::envelope::{BadMailbox, Envelope, Mailbox, Notify, Recipient, Ret, ReversePath};
use crate::message::address::{Address, AddressError};
use crate::message::complete::{Completion, How, complete};
use crate::message::{Message, Unreadable};
use crate::outcome::Outcome;
use crate::queue::{self, Queue};
use std::fmt;
use std::time::Instant;

/// More `Received:` fields than this are a loop (RFC 5321 §6.3).
const MAX_HOPS: usize = 100;

/// Where letters are kept.
pub struct Keep<'a> {
    /// The queue.
    pub queue: &'a Queue,
}

impl Keep<'_> {
    fn accept(&self, _: &Letter, _: &Envelope, _: &[&Attempted]) -> Result<String, queue::Error> { todo!() }
    fn bounce(&self, _: &Letter, _: &[Attempted]) { todo!() }
    fn start_runner(&self) { todo!() }
}

/// Everything the caller asked for, read but not yet judged.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The account that was named.
    pub account: Option<String>,
    /// The reverse-path that was given; `None` where none was.
    pub sender: Option<Option<Address>>,
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

/// What is known about the caller and the machine, with what only the roof can give: the date and a random word.
#[derive(Debug)]
pub struct Here {
    /// Login name of the caller.
    pub login: String,
    /// Full name of the caller; may be empty.
    pub full_name: String,
    /// Completes names that have no domain.
    pub domain: String,
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
        /// The queue id, where the letter itself is in the queue.
        id: Option<String>,
        /// What an attempt gave, where one was made.
        attempted: Vec<Attempted>,
    },
    /// The relay for some and nobody for the others: the queue is off.
    Partly(Vec<Attempted>),
    /// Nobody.
    Refused(Why),
}

/// Settles who sends what to whom through which account, and completes the header.
pub fn prepare(wishes: Wishes, settings: &Settings, here: &Here, mut message: Message) -> Result<Letter, Why> {
    let hops = message.hops();
    if hops > MAX_HOPS {
        return Err(Why::Loop(hops));
    }
    let domain = settings.domain.as_deref().unwrap_or(&here.domain);
    let mut named = wishes.recipients;
    if wishes.recipients_from_header {
        named.extend(message.recipients().map_err(|error| Why::BadField(error.to_string()))?);
    }
    let mailbox = |address: &Address| {
        address.to_mailbox(domain).map_err(|bad| Why::BadMailbox(address.to_string(), bad))
    };
    let recipients = named.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
    let given = wishes.sender.map(|sender| sender.as_ref().map(mailbox).transpose()).transpose()?;
    let me = Mailbox::new(&here.login, domain).map_err(|bad| Why::BadMailbox(here.login.clone(), bad))?;

    let first = recipients.first().ok_or(Why::NoRecipients)?;
    let by_path = given.clone().unwrap_or_else(|| Some(me.clone()));
    let account = choose::account(settings, wishes.account.as_deref(), by_path.as_ref(), first)
        .map_err(|error| Why::NoAccount(error.to_string()))?;
    let own = own_address(account, domain)?.unwrap_or(me);
    let reverse_path = ReversePath(given.unwrap_or_else(|| Some(own.clone())));

    let author = reverse_path.0.clone().unwrap_or(own);
    let full_name = wishes.full_name.or_else(|| account.from_name.clone()).unwrap_or_else(|| here.full_name.clone());
    let message_id = format!("{}@{}", here.unique, author.with_ascii_domain().as_ref().unwrap_or(&author).domain());
    complete(
        message.fields_mut(),
        &Completion {
            date: &here.date,
            message_id: &message_id,
            author: &author,
            full_name: &full_name,
            domain,
            how: if wishes.gateway { How::Gateway } else { How::Full },
        },
    );

    let recipient = |mailbox| Recipient { mailbox, notify: wishes.notify, orcpt: None };
    let envelope = Envelope::new(reverse_path, recipients.into_iter().map(recipient).collect());
    let mut envelope = envelope.ok_or(Why::NoRecipients)?;
    (envelope.ret, envelope.envid) = (wishes.ret, wishes.envid);
    Ok(Letter { envelope, message: message.with_short_lines(), account: wishes.account })
}

/// The account's own address.
fn own_address(account: &Account, domain: &str) -> Result<Option<Mailbox>, Why> {
    let Some(from) = &account.from else { return Ok(None) };
    let bad = |error: String| Why::NoAccount(format!("account {}: from = \"{from}\" {error}", account.name));
    let address = crate::message::address::parse_sender(from).map_err(|error| bad(error.to_string()))?;
    address.map(|address| address.to_mailbox(domain).map_err(|error| bad(error.to_string()))).transpose()
}

/// When delivery is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now, while the caller waits until the deadline for the relay's answer.
    Now(Instant),
    /// From the queue, at once.
    Background,
    /// From the queue, by whoever runs it.
    Later,
}

/// Hands the letter to the relay or the queue. `keep` is where letters are kept; `None`: the queue is off.
pub fn hand_over(letter: &Letter, when: When, carrier: &mut Carrier<'_>, keep: Option<&Keep<'_>>) -> End {
    match (when, keep) {
        (When::Now(_), _) | (_, None) => {
            let attempted = carrier.carry(letter.account.as_deref(), &letter.envelope, &letter.message);
            settle(letter, attempted, keep)
        }
        (When::Background | When::Later, Some(keep)) => match keep.accept(letter, &letter.envelope, &[]) {
            Ok(id) => {
                if when == When::Background {
                    keep.start_runner();
                }
                End::Owned { id: Some(id), attempted: Vec::new() }
            }
            Err(error) => End::Refused(Why::Queue(error)),
        },
    }
}

/// What an attempt's outcomes make of the letter: who keeps what, who is told.
fn settle(letter: &Letter, attempted: Vec<Attempted>, keep: Option<&Keep<'_>>) -> End {
    let count = |pick: fn(&Outcome) -> bool| attempted.iter().filter(|one| pick(&one.outcome)).count();
    let relayed = count(|outcome| matches!(outcome, Outcome::Relayed(_)));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
    if relayed == attempted.len() {
        return End::Relayed(attempted);
    }
    let Some(keep) = keep else {
        return if relayed > 0 { End::Partly(attempted) } else { End::Refused(Why::Outcomes(attempted)) };
    };
    if failed == attempted.len() {
        return End::Refused(Why::Outcomes(attempted));
    }
    let mut id = None;
    if let Some(rest) = letter.envelope.only(|i| !attempted[i].outcome.is_final()) {
        let first: Vec<&Attempted> = attempted.iter().filter(|one| !one.outcome.is_final()).collect();
        match keep.accept(letter, &rest, &first) {
            Ok(accepted) => id = Some(accepted),
            Err(error) => return End::Refused(Why::Queue(error)),
        }
    }
    if failed > 0 {
        keep.bounce(letter, &attempted);
    }
    keep.start_runner();
    End::Owned { id, attempted }
}
