//! One submission: a message and some words become a letter, and somebody takes responsibility for it.
//!
//! First [`Counter::prepare`]: recipients, sender and account are settled and the header is completed; nothing is sent
//! while anything about the letter is in doubt. Then [`hand_over`]: to the relay while the caller waits, or to
//! the queue, by the delivery mode. The [`End`] says who owns the letter now: it is the only thing that an exit
//! status is made from. A failure is told once: to the caller where nobody has the letter, by a bounce else.
//!
//! While a caller waits nothing is written to disk, since he still has the letter. Should the
//! relay's answer to the final dot not have come by the deadline, the letter is committed to
//! the queue and the answer still waited for: leaving then would deliver the letter twice at
//! every relay that thinks for long, and a caller who kills us loses nothing.

use crate::aliases::Aliases;
use crate::config::{Account, FromField, Settings, ToField, choose};
use crate::deliver::{Attempted, Carrier, log_attempt};
use crate::envelope::{BadMailbox, Envelope, Mailbox, Notify, Recipient, Ret, ReversePath};
use crate::message::address::{Address, AddressError, parse_list, parse_sender};
use crate::message::complete::{Completion, How, RECIPIENTS, SENDERS, complete};
use crate::message::fields::Field;
use crate::message::{Message, Unreadable};
use crate::outcome::Outcome;
use crate::queue::{self, Claim, Closed, Id, Queue, Submission, Tried};
use crate::settle::{Office, Rules, Settled};
use std::cell::LazyCell;
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

/// Where letters are handed in: who is who, and where they go.
#[derive(Clone, Copy)]
pub struct Counter<'a, 'h> {
    /// The accounts.
    pub settings: &'a Settings,
    /// Local names.
    pub aliases: &'a Aliases,
    /// The caller and the machine.
    pub here: &'a Here<'h>,
}

impl Counter<'_, '_> {
    /// Settles who sends what to whom through which account, and completes the header.
    pub fn prepare(&self, wishes: Wishes, message: Message) -> Result<Letter, Why> {
        let mut named = wishes.recipients;
        if wishes.recipients_from_header {
            named.extend(message.recipients().map_err(|error| Why::BadField(error.to_string()))?);
        }
        let mut recipients = Vec::new();
        for address in &named {
            recipients.extend(self.resolve(address)?);
        }
        let given = wishes.sender.map(|sender| sender.map(|sender| self.mailbox(&sender)).transpose()).transpose()?;
        let author = || author(&message).map(|author| self.mailbox(&author)).transpose();
        let given = match given {
            None if wishes.sender_from_header => author()?.map(Some),
            given => given,
        };
        let me = if given.is_none() { Some(self.me()?) } else { None };
        let first = recipients.first().ok_or(Why::NoRecipients)?;
        let by_path = given.as_ref().map_or(me.as_ref(), Option::as_ref);
        let account = self.account(wishes.account.as_deref(), by_path, first)?;
        let own = self.own_address(account)?;
        let author = if given.is_none() && account.sender_from_header { author()? } else { None };
        let path = given.unwrap_or_else(|| author.or_else(|| own.clone()).or(me));
        // A null path stays one, so that no two machines answer each other for ever.
        let path = path.map(|sender| match own {
            Some(own) if account.force_from || account.force_sender => Ok(own),
            _ => self.masqueraded(&sender).map(|other| other.unwrap_or(sender)),
        });

        let notify = wishes.notify.or(account.notify);
        let recipient = |mailbox| Recipient { mailbox, notify, orcpt: None };
        let recipients = recipients.into_iter().map(recipient).collect();
        let mut envelope = Envelope::new(ReversePath(path.transpose()?), recipients).ok_or(Why::NoRecipients)?;
        (envelope.ret, envelope.envid) = (wishes.ret.or(account.ret), wishes.envid);
        let how = if wishes.gateway { How::Gateway } else { How::Full };
        let message = self.dressed(message, &envelope, account, wishes.full_name, how)?;
        Ok(Letter { envelope, message, account: wishes.account })
    }

    /// Makes a letter of one whose envelope is settled already, as a client's that speaks SMTP. Local names in it are
    /// followed. A name at `localhost` is one without a domain: no relay could do anything with it. The caller's own
    /// such name says no more than that he names no sender.
    pub fn adopt(&self, envelope: &Envelope, message: Message, how: How) -> Result<Letter, Why> {
        let mut recipients = Vec::new();
        for recipient in envelope.recipients() {
            let names = parse_list(&recipient.mailbox.to_string());
            for address in names.map_err(|error| Why::BadAddress(recipient.mailbox.to_string(), error))? {
                for mailbox in self.resolve(&address)? {
                    recipients.push(Recipient { mailbox: self.at_home(mailbox)?, ..recipient.clone() });
                }
            }
        }
        let path = envelope.reverse_path().0.clone();
        let names_nobody = path.as_ref().is_some_and(|path| is_home(path) && path.local() == self.here.caller.login);
        let path = path.map(|path| self.at_home(path)).transpose()?;
        let account = self.account(None, path.as_ref(), &recipients.first().ok_or(Why::NoRecipients)?.mailbox)?;
        let path = match (path, self.own_address(account)?) {
            (Some(_), Some(own)) if account.force_from || account.force_sender => Some(own),
            (Some(sender), own) => {
                let sender = own.filter(|_| names_nobody).unwrap_or(sender);
                Some(self.masqueraded(&sender)?.unwrap_or(sender))
            }
            (None, _) => None,
        };
        let mut adopted = Envelope::new(ReversePath(path), recipients).ok_or(Why::NoRecipients)?;
        (adopted.ret, adopted.envid) = (envelope.ret, envelope.envid.clone());
        let message = self.dressed(message, &adopted, account, None, how)?;
        Ok(Letter { envelope: adopted, message, account: None })
    }

    /// The message with its header completed and its lines short enough for any relay.
    fn dressed(
        &self,
        mut message: Message,
        envelope: &Envelope,
        account: &Account,
        full_name: Option<String>,
        how: How,
    ) -> Result<Message, Why> {
        let hops = message.hops();
        if hops > MAX_HOPS {
            return Err(Why::Loop(hops));
        }
        let author = match &envelope.reverse_path().0 {
            Some(sender) => sender.clone(),
            None => self.own_address(account)?.map_or_else(|| self.me(), Ok)?,
        };
        // A field that we write needs no SMTPUTF8 unless its local part does.
        let author = author.with_ascii_domain().unwrap_or(author);
        let full_name = full_name.or_else(|| account.from_name.clone());
        let full_name = || full_name.clone().unwrap_or_else(|| self.here.caller.full_name.clone());
        let message_id = format!("{}@{}", self.here.unique, author.domain());
        let rules = &account.header;
        let to = match rules.to {
            ToField::Kept => None,
            ToField::Undisclosed => Some("undisclosed-recipients:;".to_owned()),
            ToField::Recipients => {
                let names = envelope.recipients().iter().map(|recipient| recipient.mailbox.to_string());
                Some(names.collect::<Vec<_>>().join(", "))
            }
        };
        let without =
            [("From", rules.from == FromField::Kept), ("Date", !rules.date), ("Message-ID", !rules.message_id)];
        let without: Vec<&str> =
            without.into_iter().filter_map(|(name, is_unwanted)| is_unwanted.then_some(name)).collect();
        complete(
            message.fields_mut(),
            &Completion {
                date: &self.here.date,
                message_id: &message_id,
                author: &author,
                full_name: &full_name,
                rename: &|field, address| self.renamed(field, address),
                force_author: account.force_from || rules.from == FromField::Replaced,
                to: to.as_deref(),
                without: &without,
                how,
            },
        );
        Ok(message.with_short_lines())
    }

    /// What an address in the header becomes; `None`: it stays. One that cannot be made whole stays too: the envelope
    /// is what a letter goes by.
    fn renamed(&self, field: &Field, address: &Address) -> Option<Vec<Mailbox>> {
        let is_one_of = |names: &[&str]| names.iter().any(|name| field.is(name));
        if self.settings.names.rewrite_headers && is_one_of(&RECIPIENTS) {
            let found = self.resolve(address).ok()?;
            return (address.domain.is_none() || found != [self.mailbox(address).ok()?]).then_some(found);
        }
        let whole = self.mailbox(address).ok()?;
        let other = is_one_of(&SENDERS).then(|| self.masqueraded(&whole).ok().flatten()).flatten();
        match other {
            Some(other) => Some(vec![other]),
            None => address.domain.is_none().then(|| vec![whole]),
        }
    }

    /// Those whom an address stands for.
    fn resolve(&self, address: &Address) -> Result<Vec<Mailbox>, Why> {
        let is_local = |domain: &str| {
            [self.here.host.as_str(), "localhost", "localhost.localdomain"]
                .iter()
                .any(|own| own.eq_ignore_ascii_case(domain))
        };
        let found = self.aliases.resolve(address, &is_local).map_err(Why::Aliases)?;
        found.iter().map(|one| self.mailbox(one)).collect()
    }

    /// The address with a domain.
    fn mailbox(&self, address: &Address) -> Result<Mailbox, Why> {
        address.to_mailbox(self.domain()).map_err(|bad| Why::BadMailbox(address.to_string(), bad))
    }

    /// The mailbox with our domain in the place of `localhost`.
    fn at_home(&self, mailbox: Mailbox) -> Result<Mailbox, Why> {
        if !is_home(&mailbox) {
            return Ok(mailbox);
        }
        Mailbox::new(mailbox.local(), self.domain()).map_err(|bad| Why::BadMailbox(mailbox.to_string(), bad))
    }

    fn masqueraded(&self, sender: &Mailbox) -> Result<Option<Mailbox>, Why> {
        let pairs = &self.settings.names.masquerade;
        let Some(other) = choose::masquerade(pairs, sender, self.domain()) else { return Ok(None) };
        let bad = |error: String| Why::NoAccount(format!("masquerade: \"{other}\" {error}"));
        let address = parse_sender(other).map_err(|error| bad(error.to_string()))?;
        address.map(|address| address.to_mailbox(self.domain()).map_err(|error| bad(error.to_string()))).transpose()
    }

    fn domain(&self) -> &str {
        self.settings.domain.as_deref().unwrap_or(&self.here.domain)
    }

    /// The caller's own address on this machine.
    fn me(&self) -> Result<Mailbox, Why> {
        Mailbox::new(&self.here.caller.login, self.domain())
            .map_err(|bad| Why::BadMailbox(self.here.caller.login.clone(), bad))
    }

    fn account(&self, named: Option<&str>, path: Option<&Mailbox>, first: &Mailbox) -> Result<&Account, Why> {
        choose::account(self.settings, named, path, first).map_err(|error| Why::NoAccount(error.to_string()))
    }

    /// The account's own address.
    fn own_address(&self, account: &Account) -> Result<Option<Mailbox>, Why> {
        let Some(from) = &account.from else { return Ok(None) };
        let bad = |error: String| Why::NoAccount(format!("account {}: from = \"{from}\" {error}", account.name));
        let address = parse_sender(from).map_err(|error| bad(error.to_string()))?;
        address.map(|address| address.to_mailbox(self.domain()).map_err(|error| bad(error.to_string()))).transpose()
    }
}

/// The author that a header names: the first address of its From, or of a Resent-From that stands above it.
fn author(message: &Message) -> Option<Address> {
    let mut fields = message.fields().iter();
    let field = fields.find(|field| field.is("From") || field.is("Resent-From"))?;
    parse_list(&field.text()).ok()?.into_iter().next()
}

/// Whether a mailbox has no domain that anybody else knows.
fn is_home(mailbox: &Mailbox) -> bool {
    mailbox.domain().eq_ignore_ascii_case("localhost")
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
                let somebody = |one: &Attempted| {
                    matches!(one.outcome, Outcome::Relayed(_) | Outcome::Deferred { maybe_duplicate: true, .. })
                };
                if attempted.iter().any(somebody) {
                    End::Unkept(attempted, error)
                } else {
                    End::Refused(Why::Queue(error))
                }
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
        let id = self.accept(&queue, letter, None)?.letter().entry.id;
        if at_once {
            (self.wake)(&queue);
        }
        Ok(id)
    }

    /// Takes a letter into the queue, with the attempt that was made. While the claim lasts nobody else attempts it.
    fn accept<'q>(
        &self,
        queue: &'q Queue,
        letter: &Letter,
        tried: Option<&[Tried<'_>]>,
    ) -> Result<Claim<'q>, queue::Error> {
        let submission = Submission {
            envelope: &letter.envelope,
            content: &letter.message,
            facts: letter.message.facts(),
            header_len: letter.message.header_len(),
            uid: self.rules.uid,
            account: letter.account.as_deref(),
            tried,
        };
        let claim = queue.accept_claimed(&submission, (self.now)())?;
        tracing::info!(
            message = "queued",
            id = %claim.letter().entry.id,
            from = letter.envelope.reverse_path().to_string(),
            size = letter.message.size(),
            recipients = letter.envelope.recipients().len(),
            uid = self.rules.uid,
        );
        Ok(claim)
    }

    /// Takes a letter that was attempted: who has it, has it; who refused it is reported; the others will be tried
    /// again. `accepted` hears of the id before anything else is done under it.
    fn take_over(&self, letter: &Letter, attempted: &[Attempted], accepted: impl Fn(Id)) -> Result<Id, queue::Error> {
        let queue = Queue::open(self.dir)?;
        let tried: Vec<Tried<'_>> =
            attempted.iter().map(|one| Tried { outcome: &one.outcome, relay: &one.relay }).collect();
        let claim = self.accept(&queue, letter, Some(&tried))?;
        let id = claim.letter().entry.id;
        accepted(id);
        self.conclude(&queue, claim, None);
        (self.wake)(&queue);
        Ok(id)
    }

    /// Waits for the attempt to end, and commits the letter to the queue if it has not by `deadline`. The id is that of
    /// a letter that is now the queue's.
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
        let claim = self.accept(&queue, letter, Some(&tried)).ok()?;
        let id = claim.letter().entry.id;
        (self.wake)(&queue);
        let attempted = ends.recv().ok()?;
        self.conclude(&queue, claim, Some(&attempted));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;
    use crate::message::{InMemory, LoneDot};

    fn settings() -> Settings {
        let account = |name: &str| Account {
            hosts: vec![Host::Tcp { name: "relay".to_owned(), port: 25 }],
            ..Account::new(name)
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = Settings { accounts: vec![account("plain"), account("one")], ..Settings::default() };
        settings.accounts[1].from = Some("relay@isp.example".to_owned());
        settings.accounts[1].force_from = true;
        settings.names.masquerade = vec![pair("root@*", "Ops <ops@x.org>")];
        settings
    }

    /// `sender > recipients`, and the header.
    fn prepared(settings: &Settings, wishes: Wishes, text: &str) -> Result<(String, String), Why> {
        let table = [("root".to_owned(), "ops@x.org, alice".to_owned()), ("a".to_owned(), "a2, b".to_owned())];
        let aliases = Aliases::load(&table, None, 0).0;
        let here = Here {
            caller: LazyCell::new(Box::new(|| Caller { login: "root".to_owned(), full_name: "Root".to_owned() })),
            domain: "box.example".to_owned(),
            host: "host.box.example".to_owned(),
            date: "DATE".to_owned(),
            unique: "ID".to_owned(),
        };
        let message = Message::read(&mut text.as_bytes(), LoneDot::IsText, Box::<InMemory>::default()).unwrap();
        let letter = Counter { settings, aliases: &aliases, here: &here }.prepare(wishes, message)?;
        let to: Vec<String> = letter.envelope.recipients().iter().map(|to| to.mailbox.to_string()).collect();
        let header = String::from_utf8(letter.message.fields().to_octets()).unwrap().replace("\r\n", "\n");
        Ok((format!("{} > {}", letter.envelope.reverse_path(), to.join(" ")), header))
    }

    fn to(words: &str) -> Wishes {
        Wishes { recipients: parse_list(words).unwrap(), ..Wishes::default() }
    }

    #[test]
    fn local_names_become_those_whom_they_stand_for() {
        let (envelope, header) =
            prepared(&settings(), to("root, root@localhost, root@host.box.example, x@y.org"), "To: root\n\n").unwrap();
        assert_eq!(envelope, "ops@x.org > ops@x.org alice@box.example x@y.org");
        assert!(header.starts_with("To: root@box.example\n"), "{header}");
        let mut settings = settings();
        settings.names.rewrite_headers = true;
        let (_, header) =
            prepared(&settings, to("root"), "To: root,\n \"The Boss\" <root>\nCc: x@y.org\nSubject: root\n\n").unwrap();
        assert!(
            header.starts_with("To: ops@x.org, alice@box.example,\n \"The Boss\" <root>\nCc: x@y.org\nSubject: root\n"),
            "{header}"
        );
    }

    #[test]
    fn a_masquerade_replaces_the_sender_in_envelope_and_header() {
        let (envelope, header) = prepared(&settings(), to("x@y.org"), "From: Cron <root>\nReply-To: root\n\n").unwrap();
        assert_eq!(envelope, "ops@x.org > x@y.org");
        assert!(header.starts_with("From: Cron <ops@x.org>\nReply-To: root@box.example\n"), "{header}");
        // A name alone is one of this machine.
        let mut settings = settings();
        settings.names.masquerade[0].0 = "ROOT".to_owned();
        for (from, expected) in [("root", "ops@x.org"), ("root@box.example", "ops@x.org"), ("root@y.org", "root@y.org")]
        {
            let wishes = Wishes { sender: Some(parse_sender(from).unwrap()), ..to("x@y.org") };
            assert_eq!(prepared(&settings, wishes, "\n").unwrap().0, format!("{expected} > x@y.org"));
        }
    }

    #[test]
    fn a_relay_that_takes_one_sender_gets_that_one_and_answers_go_to_the_author() {
        let wishes = || Wishes { account: Some("one".to_owned()), ..to("x@y.org") };
        let (envelope, header) = prepared(&settings(), wishes(), "From: Alice <alice@z.org>\n\n").unwrap();
        assert_eq!(envelope, "relay@isp.example > x@y.org");
        assert!(header.starts_with("From: Root <relay@isp.example>\nReply-To: Alice <alice@z.org>\n"), "{header}");
        let (envelope, _) =
            prepared(&settings(), Wishes { sender: Some(None), ..wishes() }, "From: a@z.org\n\n").unwrap();
        assert_eq!(envelope, " > x@y.org", "a null path is nobody's to change");
        let (_, header) = prepared(&settings(), wishes(), "From: <>\n\n").unwrap();
        assert!(header.starts_with("From: Root <relay@isp.example>\nDate"), "nobody is to be answered: {header}");
        let (_, header) = prepared(&settings(), wishes(), "From: Me <relay@isp.example>\n\n").unwrap();
        assert!(header.starts_with("From: Me <relay@isp.example>\nDate"), "{header}");
    }

    #[test]
    fn nobody_and_loops_are_refused() {
        assert!(matches!(prepared(&settings(), Wishes::default(), "To: x@y.org\n\n"), Err(Why::NoRecipients)));
        let received = "Received: x\n".repeat(MAX_HOPS + 1);
        assert!(matches!(prepared(&settings(), to("x@y.org"), &format!("{received}\n")), Err(Why::Loop(101))));
        let wishes = Wishes { account: Some("none".to_owned()), ..to("x@y.org") };
        assert!(matches!(prepared(&settings(), wishes, "\n"), Err(Why::NoAccount(_))));
    }
}
