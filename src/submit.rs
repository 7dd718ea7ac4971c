//! One submission: a message and some words become a letter, and somebody takes responsibility for it.
//!
//! First [`prepare`]: recipients, sender and account are settled and the header is completed; nothing is sent
//! while anything about the letter is in doubt. Then [`hand_over`]: to the relay while the caller waits, or to
//! the queue, by the delivery mode. The [`End`] says who owns the letter now: it is the only thing that an exit
//! status is made from. A failure is told once: to the caller where nobody has the letter, by a bounce else.
//!
//! While a caller waits nothing is written to disk, since he still has the letter. Should the relay's answer to the
//! final dot not have come by the deadline, the letter is committed to the queue and the answer still waited for:
//! leaving then would deliver the letter twice at every relay that thinks for long, and a caller who kills us loses nothing.

use crate::config::{Account, Settings, choose};
use crate::deliver::{Attempted, Carrier, log_attempt};
use crate::envelope::{BadMailbox, Envelope, Mailbox, Notify, Recipient, Ret, ReversePath};
use crate::message::address::{Address, AddressError};
use crate::message::complete::{Completion, How, complete};
use crate::message::{Message, Unreadable};
use crate::outcome::Outcome;
use crate::queue::{self, Claim, Closed, Id, Queue, Submission, Tried};
use crate::settle::{Office, Rules, Settled};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// More `Received:` fields than this are a loop (RFC 5321 §6.3).
const MAX_HOPS: usize = 100;

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
        /// The queue id.
        id: Id,
        /// What an attempt gave, where one was made.
        attempted: Vec<Attempted>,
    },
    /// The relay for some and nobody for the others: the queue is off.
    Partly(Vec<Attempted>),
    /// Nobody.
    Refused(Why),
}

/// Settles who sends what to whom through which account, and completes the header.
pub fn prepare(wishes: Wishes, settings: &Settings, here: &Here, message: Message) -> Result<Letter, Why> {
    let domain = settings.domain.as_deref().unwrap_or(&here.domain);
    let mut named = wishes.recipients;
    if wishes.recipients_from_header {
        named.extend(message.recipients().map_err(|error| Why::BadField(error.to_string()))?);
    }
    let mailbox =
        |address: &Address| address.to_mailbox(domain).map_err(|bad| Why::BadMailbox(address.to_string(), bad));
    let recipients = named.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
    let given = wishes.sender.map(|sender| sender.as_ref().map(mailbox).transpose()).transpose()?;
    let first = recipients.first().ok_or(Why::NoRecipients)?;
    let me = me(settings, here)?;
    let by_path = given.as_ref().map_or(Some(&me), Option::as_ref);
    let account = choose::account(settings, wishes.account.as_deref(), by_path, first)
        .map_err(|error| Why::NoAccount(error.to_string()))?;
    let own = own_address(account, domain)?.unwrap_or(me);
    let reverse_path = ReversePath(given.unwrap_or(Some(own)));

    let recipient = |mailbox| Recipient { mailbox, notify: wishes.notify, orcpt: None };
    let envelope = Envelope::new(reverse_path, recipients.into_iter().map(recipient).collect());
    let mut envelope = envelope.ok_or(Why::NoRecipients)?;
    (envelope.ret, envelope.envid) = (wishes.ret, wishes.envid);
    let how = if wishes.gateway { How::Gateway } else { How::Full };
    let message = dressed(message, &envelope, account, wishes.full_name, how, settings, here)?;
    Ok(Letter { envelope, message, account: wishes.account })
}

/// Makes a letter of one whose envelope is settled already, as a client's that speaks SMTP.
pub fn adopt(envelope: Envelope, settings: &Settings, here: &Here, message: Message) -> Result<Letter, Why> {
    let first = &envelope.recipients()[0].mailbox;
    let account = choose::account(settings, None, envelope.reverse_path().0.as_ref(), first)
        .map_err(|error| Why::NoAccount(error.to_string()))?;
    let message = dressed(message, &envelope, account, None, How::Full, settings, here)?;
    Ok(Letter { envelope, message, account: None })
}

/// The caller's own address on this machine.
fn me(settings: &Settings, here: &Here) -> Result<Mailbox, Why> {
    let domain = settings.domain.as_deref().unwrap_or(&here.domain);
    Mailbox::new(&here.login, domain).map_err(|bad| Why::BadMailbox(here.login.clone(), bad))
}

/// The message with its header completed and its lines short enough for any relay.
fn dressed(
    mut message: Message,
    envelope: &Envelope,
    account: &Account,
    full_name: Option<String>,
    how: How,
    settings: &Settings,
    here: &Here,
) -> Result<Message, Why> {
    let hops = message.hops();
    if hops > MAX_HOPS {
        return Err(Why::Loop(hops));
    }
    let domain = settings.domain.as_deref().unwrap_or(&here.domain);
    let author = match &envelope.reverse_path().0 {
        Some(sender) => sender.clone(),
        None => own_address(account, domain)?.map_or_else(|| me(settings, here), Ok)?,
    };
    let full_name = full_name.or_else(|| account.from_name.clone()).unwrap_or_else(|| here.full_name.clone());
    let message_id = format!("{}@{}", here.unique, author.with_ascii_domain().as_ref().unwrap_or(&author).domain());
    complete(
        message.fields_mut(),
        &Completion {
            date: &here.date,
            message_id: &message_id,
            author: &author,
            full_name: &full_name,
            rename: &|_, address| {
                let local = address.domain.is_none();
                local.then(|| address.to_mailbox(domain).map(|mailbox| vec![mailbox]).unwrap_or_default())
            },
            how,
        },
    );
    Ok(message.with_short_lines())
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

/// Where letters are kept, by whom and how.
pub struct Keep<'a> {
    /// The queue's directory; made when it is first needed.
    pub dir: &'a Path,
    /// What is done with its letters.
    pub rules: Rules<'a>,
    /// Sees to it that somebody runs the queue.
    pub wake: &'a (dyn Fn(&Queue) + Sync),
    /// The clock.
    pub now: &'a (dyn Fn() -> SystemTime + Sync),
}

/// Hands the letter to the relay or the queue. Without a `keep` the queue is off.
pub fn hand_over(letter: &Letter, when: When, carrier: &mut Carrier<'_, '_>, keep: Option<&Keep<'_>>) -> End {
    match (when, keep) {
        (When::Now(deadline), Some(keep)) => now(letter, deadline, carrier, keep),
        (When::Now(deadline), None) => without_queue(letter, deadline, carrier),
        // Without a queue there is no later.
        (When::Background | When::Later, None) => without_queue(letter, Instant::now() + ATTEMPT, carrier),
        (When::Background | When::Later, Some(keep)) => keep
            .queue(letter, when == When::Background)
            .map_or_else(|error| End::Refused(Why::Queue(error)), |id| End::Owned { id, attempted: Vec::new() }),
    }
}

/// The ceiling of an attempt without a deadline of its own.
pub const ATTEMPT: Duration = Duration::from_mins(5);

/// How long past the deadline an attempt may take before it can only be waiting for the answer to its final dot.
const GRACE: Duration = Duration::from_millis(100);

/// Tries once; what cannot be relayed is the caller's again.
fn without_queue(letter: &Letter, deadline: Instant, carrier: &mut Carrier<'_, '_>) -> End {
    let started = Instant::now();
    let attempted = carrier.carry(letter.account.as_deref(), &letter.envelope, &letter.message, deadline);
    log_attempt(None, letter.envelope.reverse_path(), &attempted, started.elapsed(), 1);
    let relayed = attempted.iter().filter(|one| matches!(one.outcome, Outcome::Relayed(_))).count();
    match relayed {
        0 => End::Refused(Why::Outcomes(attempted)),
        some if some == attempted.len() => End::Relayed(attempted),
        _ => End::Partly(attempted),
    }
}

/// Tries while the caller waits; what cannot be relayed goes to the queue.
fn now(letter: &Letter, deadline: Instant, carrier: &mut Carrier<'_, '_>, keep: &Keep<'_>) -> End {
    let started = Instant::now();
    let (attempted, kept) = thread::scope(|scope| {
        let (tell, ends) = mpsc::channel();
        let guard = thread::Builder::new()
            .name("deadline".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, move || keep.guard(letter, deadline + GRACE, &ends));
        let attempted = carrier.carry(letter.account.as_deref(), &letter.envelope, &letter.message, deadline);
        // Without the thread, or when it has failed, the letter goes the ordinary way.
        let _ = tell.send(attempted.clone());
        (attempted, guard.ok().and_then(|guard| guard.join().ok()).flatten())
    });
    let log = |id| log_attempt(id, letter.envelope.reverse_path(), &attempted, started.elapsed(), 1);
    let is = |wanted: fn(&Outcome) -> bool| attempted.iter().all(|one| wanted(&one.outcome));
    match kept {
        Some(id) => End::Owned { id, attempted },
        None if is(|outcome| matches!(outcome, Outcome::Relayed(_))) => {
            log(None);
            End::Relayed(attempted)
        }
        None if is(|outcome| matches!(outcome, Outcome::Failed { .. })) => {
            log(None);
            End::Refused(Why::Outcomes(attempted))
        }
        None => match keep.take_over(letter, &attempted, |id| log(Some(id))) {
            Ok(id) => End::Owned { id, attempted },
            Err(error) => {
                log(None);
                End::Refused(Why::Queue(error))
            }
        },
    }
}

/// Brings a report on a letter that everybody refused on its way to the sender, as `-oem` and `-oee` ask; the id is the
/// letter's own. `None` where nobody is to be told.
pub fn bounce(letter: &Letter, attempted: &[Attempted], keep: &Keep<'_>) -> Result<Option<Id>, queue::Error> {
    if letter.envelope.reverse_path().is_null() {
        return Ok(None);
    }
    keep.take_over(letter, attempted, |_| ()).map(Some)
}

impl Keep<'_> {
    /// Takes a letter into the queue without an attempt; with `at_once`, somebody is sent to deliver it.
    pub fn queue(&self, letter: &Letter, at_once: bool) -> Result<Id, queue::Error> {
        let queue = Queue::open(self.dir)?;
        let id = self.accept(&queue, letter, None)?;
        if at_once {
            (self.wake)(&queue);
        }
        Ok(id)
    }

    /// Takes a letter into the queue, with the attempt that was made.
    fn accept(&self, queue: &Queue, letter: &Letter, tried: Option<&[Tried<'_>]>) -> Result<Id, queue::Error> {
        let submission = Submission {
            envelope: &letter.envelope,
            content: &letter.message,
            facts: letter.message.facts(),
            header_len: letter.message.header_len(),
            uid: self.rules.uid,
            account: letter.account.as_deref(),
            tried,
        };
        let id = queue.accept(&submission, (self.now)())?.id();
        tracing::info!(
            message = "queued",
            id = %id,
            from = letter.envelope.reverse_path().to_string(),
            size = letter.message.size(),
            recipients = letter.envelope.recipients().len(),
            uid = self.rules.uid,
        );
        Ok(id)
    }

    /// Takes a letter that was attempted: who has it, has it; who refused it is reported; the others will be tried again.
    /// `accepted` hears of the id before anything else is done under it.
    fn take_over(&self, letter: &Letter, attempted: &[Attempted], accepted: impl Fn(Id)) -> Result<Id, queue::Error> {
        let queue = Queue::open(self.dir)?;
        let tried: Vec<Tried<'_>> =
            attempted.iter().map(|one| Tried { outcome: &one.outcome, relay: &one.relay }).collect();
        let id = self.accept(&queue, letter, Some(&tried))?;
        accepted(id);
        if attempted.iter().any(|one| matches!(one.outcome, Outcome::Failed { .. })) {
            // Whoever is quicker than we and has claimed it does the same.
            if let Ok(claim) = queue.claim(id) {
                self.conclude(&queue, claim, None);
            }
        }
        (self.wake)(&queue);
        Ok(id)
    }

    /// Waits for the attempt to end, and commits the letter to the queue if it has not by `deadline`. The id is that of a
    /// letter that is now the queue's.
    fn guard(&self, letter: &Letter, deadline: Instant, ends: &mpsc::Receiver<Vec<Attempted>>) -> Option<Id> {
        match ends.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let queue = Queue::open(self.dir).ok()?;
        // Were we killed now, the queue would have to say that the relay may have it.
        let unanswered = unanswered();
        let tried: Vec<Tried<'_>> =
            letter.envelope.recipients().iter().map(|_| Tried { outcome: &unanswered, relay: "" }).collect();
        // It is due in a minute, so nobody else has it when we claim it at once.
        let id = self.accept(&queue, letter, Some(&tried)).ok()?;
        let claim = queue.claim(id);
        (self.wake)(&queue);
        let attempted = ends.recv().ok()?;
        if let Ok(claim) = claim {
            self.conclude(&queue, claim, Some(&attempted));
        }
        (self.wake)(&queue);
        Some(id)
    }

    fn conclude(&self, queue: &Queue, claim: Claim<'_>, attempted: Option<&[Attempted]>) {
        let office = Office { queue, rules: self.rules };
        let id = claim.letter().entry.id;
        let now = (self.now)();
        let done = match attempted {
            Some(attempted) => office.settle(claim, attempted, now),
            None => office.conclude(claim, now),
        };
        if let Err(error) = done.and_then(|Settled { closed, .. }| match closed {
            Closed::Relayed => queue.sync(),
            Closed::Waiting | Closed::Failed => Ok(()),
        }) {
            tracing::error!(message = "unrecorded", id = %id, reason = %error);
        }
    }
}

/// The final dot is out and the relay has not answered yet.
fn unanswered() -> Outcome {
    use crate::outcome::{Blame, Cause, Fault, Stage, Status};
    Outcome::Deferred {
        fault: Fault::new(Stage::Dot, Cause::Timeout("has not answered the final dot yet".to_owned())),
        blame: Blame::Relay,
        status: Status::new(4, 4, 2),
        maybe_duplicate: true,
    }
}
