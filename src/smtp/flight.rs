//! Letters on their way through a session, as many in flight as the server allows.
//!
//! With CHUNKING a letter is one flight: MAIL, RCPT and `BDAT … LAST` with the content, and others follow before it
//! is answered, up to [`WINDOW`] octets and [`LETTERS`] letters. With DATA the content waits for the 354, and the next
//! letter's envelope travels with the end of this one's content, so that a run costs one round trip a letter. A letter
//! too large for the window goes by DATA in any case: it is not to be sent in vain, and where the answers to the
//! envelope are awaited BDAT saves nothing. Without PIPELINING each command waits for its answer.
//!
//! Answers come in the order of the commands, and what they mean for a letter is [`Transaction`]'s to say. Behind a
//! letter that went by BDAT goes a RSET before the next: were the first refused in the middle, the next would be added
//! to its transaction, and could reach its recipients. After DATA that cannot be (RFC 5321 §4.1.1.4).
//! In LMTP one letter is out at a time.
//! While we write we also read, so that a server that wants its answers read first, and we, never wait for each other.
//!
//! An error before a letter's last octet leaves no letter behind, since the connection is dropped without it. When the
//! last octet is out and no answer comes, the relay may have the letter: the fault is then one of [`Stage::Dot`].
//! RFC 5321 §3.3, RFC 2920, RFC 3030.

use super::body::{Body, PIECE};
use super::capabilities::Capabilities;
use super::connect::words;
use super::plan::{Letter, Plan};
use super::session::{Session, seen_from};
use super::transaction::{Heard, Manner, Protocol, Step, Transaction, Turn};
use crate::outcome::{Cause, Fault, Reply, Stage};
use lettre::transport::smtp::commands::{Data, Rset};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Octets that may be out without an answer; a single letter or command may be larger.
const WINDOW: u64 = 256 * 1024;
/// Letters that may be out without an answer. Each may come twice if the connection breaks then.
const LETTERS: usize = 64;

/// A letter with the commands that go before it.
pub trait Cargo {
    /// The commands. A letter without a recipient that has one is given back at once.
    fn plan(&self) -> &Plan;
    /// The letter, in the form that the plan asks for.
    fn letter(&self) -> &dyn Letter;
}

/// What a letter came to: one result for each recipient with a command, in order. The relay's answer to the end of
/// the content, or what went wrong for this recipient.
pub type Results = Vec<Result<Reply, Fault>>;

/// Where letters come from.
type Next<'a, C> = &'a mut dyn FnMut(&Capabilities) -> Option<C>;
/// Where they go to.
type Done<'a, C> = &'a mut dyn FnMut(C, Results);

impl Session {
    /// Sends the letters that `next` gives until it gives `None`; `done` gets each back, in order, as soon as it is
    /// known what it came to. `limit` is for each letter. The error is why the session is no longer usable.
    pub fn ship<C: Cargo>(&mut self, limit: Duration, next: Next<'_, C>, done: Done<'_, C>) -> Result<(), Fault> {
        let pace = match |keyword| self.capabilities.offers(keyword) {
            offers if !offers("PIPELINING") => Pace::Steps,
            offers if offers("CHUNKING") && !self.bdat_refused => Pace::Chunks,
            _ => Pace::Envelopes,
        };
        let mut flight = Flight {
            limit,
            pace,
            session: self,
            more: true,
            aboard: VecDeque::new(),
            at: 0,
            out: Vec::new(),
            ends: false,
            dismissed: false,
        };
        let flown = flight.fly(next, done);
        if let Err(fault) = &flown {
            flight.wreck(fault);
            flight.report(done);
        }
        flown
    }

    /// Before the first letter: a server that has grown tired of waiting has said so or has gone.
    fn still_there(&mut self) -> Result<(), Fault> {
        let gone = || Fault::new(Stage::Mail, Cause::Network("closed the idle connection".to_owned()));
        if !self.is_usable() {
            return Err(gone());
        }
        match self.early_reply(Stage::Mail) {
            Ok(None) => self.quiet(Stage::Mail),
            Ok(Some(reply)) if reply.code == 421 => Err(Fault::new(Stage::Mail, Cause::Reply(reply))),
            Ok(Some(_)) => Err(self.breach(Stage::Mail, "spoke unasked")),
            Err(fault) if matches!(fault.cause, Cause::Network(_)) => Err(gone()),
            Err(fault) => Err(fault),
        }
    }

    /// Before the end of the content goes, no answer to it may be there: one that is was not meant for this letter.
    fn nothing_early(&mut self) -> Result<(), Fault> {
        match self.early_reply(Stage::Content)? {
            Some(reply) => {
                self.abandon();
                self.judge(reply, Stage::Content, |_| false).map(drop)
            }
            None => self.quiet(Stage::Content),
        }
    }

    /// Writes a piece of the content. A server that ends it in the middle may have said why.
    fn write_content(&mut self, octets: &[u8]) -> Result<(), Fault> {
        let Err(fault) = self.write(octets, Stage::Content) else { return Ok(()) };
        let words = if self.left_over().is_empty() {
            self.early_reply(Stage::Content)
        } else {
            self.reply(Stage::Content).map(Some)
        };
        let Ok(Some(reply)) = words else { return Err(fault) };
        Err(self.judge(reply, Stage::Content, |_| false).err().unwrap_or(fault))
    }
}

/// How much may be said before it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// One command.
    Steps,
    /// An envelope with DATA.
    Envelopes,
    /// Whole letters.
    Chunks,
}

/// One letter of a flight.
struct Passage<C> {
    cargo: C,
    transaction: Transaction,
    /// The end of its time, which begins when those before it are answered.
    deadline: Instant,
    /// What is said of it that counts for the [`WINDOW`].
    octets: u64,
    /// To be sent once more, without BDAT.
    again: bool,
}

impl<C> Passage<C> {
    fn is_settled(&self) -> bool {
        self.transaction.is_over() && !self.again
    }
}

struct Flight<'a, C> {
    session: &'a mut Session,
    limit: Duration,
    pace: Pace,
    /// Whether there are letters to come.
    more: bool,
    /// The letters that nobody was told about yet, in their order.
    aboard: VecDeque<Passage<C>>,
    /// Which of them is being said: those before it are said, those behind it are to be said again.
    at: usize,
    /// What is said and not written.
    out: Vec<u8>,
    /// Whether `out` ends with the end of a letter.
    ends: bool,
    /// The server has closed the session in order (RFC 5321 §3.8): what it has not answered it has not taken.
    dismissed: bool,
}

impl<C: Cargo> Flight<'_, C> {
    fn fly(&mut self, next: Next<'_, C>, done: Done<'_, C>) -> Result<(), Fault> {
        self.session.still_there()?;
        loop {
            self.quiet()?;
            self.say(next)?;
            self.write()?;
            self.report(done);
            if self.aboard.is_empty() {
                return Ok(());
            }
            self.listen(done)?;
        }
    }

    /// Where no answer is awaited none may be there: the next command would take it for its own.
    fn quiet(&mut self) -> Result<(), Fault> {
        let letter = self.aboard.get(self.at).map(|passage| &passage.transaction);
        // Before content that follows a 354 it is looked for later, and on the wire too.
        let later = letter.is_some_and(|letter| letter.manner == Manner::Data && letter.turn() == Turn::Content);
        if self.is_awaiting() || later || self.session.left_over().is_empty() {
            return Ok(());
        }
        let stage = letter.map_or(Stage::Mail, Transaction::stage);
        match self.session.next_reply(stage)? {
            Some(reply) if reply.code == 421 => {
                self.dismissed = true;
                Err(Fault::new(stage, Cause::Reply(reply)))
            }
            _ => Err(self.session.breach(stage, "sent more than it was asked for")),
        }
    }

    /// Says what can be said now: of the letter at hand, and of those that come after it.
    fn say(&mut self, next: Next<'_, C>) -> Result<(), Fault> {
        loop {
            if self.at == self.aboard.len() {
                if self.go_back() || self.board(next) {
                    continue;
                }
                return Ok(());
            }
            let reset_due = self.session.reset_due;
            let passage = &mut self.aboard[self.at];
            if passage.again {
                passage.again = false;
                passage.transaction = passage.transaction.once_more(passage.cargo.plan());
            }
            let transaction = &mut passage.transaction;
            if reset_due && transaction.saying == Step::Mail {
                transaction.reset_first();
            }
            match transaction.turn() {
                Turn::Stop => transaction.stop(),
                Turn::Over => self.at += 1,
                Turn::Wait => return Ok(()),
                // How many answers a dot would get now is the server's secret.
                Turn::LoneDot if self.session.protocol == Protocol::Lmtp => {
                    return Err(self.session.breach(Stage::Data, "wants a letter that is for nobody"));
                }
                Turn::LoneDot => {
                    // The server waits for a letter that nobody shall get. What it makes of none is of no interest.
                    self.out.extend_from_slice(b".\r\n");
                    self.said();
                }
                Turn::Content if transaction.manner == Manner::Chunk => {
                    let size = passage.cargo.letter().size();
                    if !self.has_room(size) {
                        return Ok(());
                    }
                    self.chunk(size);
                }
                Turn::Content => self.stream()?,
                Turn::Command => {
                    if !self.has_room(0) {
                        return Ok(());
                    }
                    self.command();
                }
            }
        }
    }

    /// Takes the next letter aboard, where there is one and room for it.
    fn board(&mut self, next: Next<'_, C>) -> bool {
        // Were one of LMTP's answers missing, the next letter's first would be taken for it.
        let open = self.aboard.iter().any(|passage| !passage.is_settled());
        let lmtp = open && self.session.protocol == Protocol::Lmtp;
        let wait = lmtp || self.aboard.len() >= LETTERS || self.aboard.iter().any(|passage| passage.again);
        if wait || !self.more || !self.has_room(0) {
            return false;
        }
        let Some(cargo) = next(&self.session.capabilities) else {
            self.more = false;
            return false;
        };
        let small = cargo.letter().size() <= WINDOW;
        let manner = if small && self.pace == Pace::Chunks { Manner::Chunk } else { Manner::Data };
        let transaction = Transaction::new(self.session.protocol, manner, cargo.plan());
        let deadline = Instant::now() + self.limit;
        self.aboard.push_back(Passage { cargo, transaction, deadline, octets: 0, again: false });
        true
    }

    /// Goes back to the letters that are to be sent again, when nothing else is open.
    fn go_back(&mut self) -> bool {
        let first = self.aboard.iter().position(|passage| passage.again).filter(|_| !self.is_awaiting());
        self.at = first.unwrap_or(self.at);
        first.is_some()
    }

    fn is_awaiting(&self) -> bool {
        self.aboard.iter().any(|passage| passage.transaction.is_awaiting())
    }

    /// Whether a command may go out, or a content of that many octets behind its envelope.
    fn has_room(&self, content: u64) -> bool {
        let awaiting = |(_, passage): &(usize, &Passage<C>)| !passage.transaction.is_over();
        let open = self.aboard.iter().enumerate().filter(awaiting);
        // A letter is not kept by its own envelope.
        let others = open.filter(|&(i, _)| content == 0 || i != self.at);
        let afloat = others.map(|(_, passage)| passage.octets).sum::<u64>();
        !self.is_awaiting() || (self.pace != Pace::Steps && (afloat == 0 || afloat + content <= WINDOW))
    }

    /// Queues the command that is next.
    fn command(&mut self) {
        let passage = &self.aboard[self.at];
        let plan = passage.cargo.plan();
        let (rset, data);
        let line = match (passage.transaction.saying, &plan.recipients) {
            (Step::Mail, _) => plan.mail.as_str(),
            (Step::Rcpt(i), recipients) => recipients[i].as_deref().unwrap_or_default(),
            (Step::Reset, _) => {
                rset = Rset.to_string();
                &rset
            }
            (Step::Data | Step::End | Step::Over, _) => {
                data = Data.to_string();
                &data
            }
        };
        if self.session.is_watched() {
            self.session.note(&format!("> {}", line.trim_end()));
        }
        self.out.extend_from_slice(line.as_bytes());
        let octets = line.len() as u64;
        self.aboard[self.at].octets += octets;
        self.said();
    }

    /// Queues a letter as one chunk. One that cannot be read stays out, and its envelope comes to nothing.
    fn chunk(&mut self, size: u64) {
        let passage = &mut self.aboard[self.at];
        let before = self.out.len();
        self.out.extend_from_slice(bdat(size).as_bytes());
        let letter = passage.cargo.letter();
        if let Err(error) = Body::plain(letter).piece(usize::MAX, &mut self.out) {
            self.out.truncate(before);
            passage.transaction.give_up(unreadable(&error));
            return;
        }
        passage.octets += (self.out.len() - before) as u64;
        self.note_content(size);
        self.said();
    }

    /// Writes the content that the server waits for, except its last piece, which the next letter may join.
    fn stream(&mut self) -> Result<(), Fault> {
        let Self { session, aboard, at, out, .. } = &mut *self;
        let Passage { cargo, deadline, .. } = &aboard[*at];
        session.extend(*deadline);
        let letter = cargo.letter();
        let size = letter.size();
        let mut body = Body::dotted(letter);
        loop {
            match body.piece(PIECE, out) {
                Ok(true) => break,
                Ok(false) => session.write_content(out)?,
                Err(error) => {
                    session.abandon();
                    return Err(unreadable(&error));
                }
            }
            out.clear();
        }
        session.nothing_early()?;
        drop(body);
        self.note_content(size);
        self.said();
        Ok(())
    }

    fn note_content(&self, size: u64) {
        if self.session.is_watched() {
            let dotted = self.aboard[self.at].transaction.manner == Manner::Data;
            if !dotted {
                self.session.note(&format!("> {}", bdat(size).trim_end()));
            }
            self.session.note(&format!("> (the letter: {size} octets)"));
            if dotted {
                self.session.note("> .");
            }
        }
    }

    /// Remembers that the step of the letter at hand has been queued.
    fn said(&mut self) {
        let Passage { cargo, transaction, .. } = &mut self.aboard[self.at];
        let step = transaction.saying;
        match step {
            Step::Reset => self.session.reset_due = false,
            Step::Mail => self.session.reset_due = true,
            // Whatever the server makes of the letter, the dot ends the transaction.
            Step::End if transaction.manner == Manner::Data => self.session.reset_due = false,
            Step::Rcpt(_) | Step::Data | Step::End | Step::Over => {}
        }
        transaction.say(cargo.plan());
        self.ends = step == Step::End;
    }

    /// Writes what is queued.
    fn write(&mut self) -> Result<(), Fault> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.session.extend(Instant::now() + self.limit);
        let written = self.session.write(&self.out, Stage::Mail);
        if written.is_err() && self.ends {
            // Not to the end, and so the last letter not either. How far it came is not known.
            if let Some(last) = self.aboard.iter_mut().rfind(|passage| passage.transaction.sent) {
                last.transaction.sent = false;
            }
        }
        self.out.clear();
        written
    }

    /// Waits for an answer, and takes those that came with it.
    fn listen(&mut self, done: Done<'_, C>) -> Result<(), Fault> {
        let mut waited = false;
        while let Some((i, stage)) = self.awaited() {
            let reply = if waited {
                let Some(reply) = self.session.next_reply(stage)? else { break };
                reply
            } else {
                self.session.extend(self.aboard[i].deadline);
                self.session.reply(stage)?
            };
            waited = true;
            self.hear(i, reply)?;
            self.report(done);
        }
        Ok(())
    }

    /// Whose answer comes next, and where the letter stands if it doesn't.
    fn awaited(&self) -> Option<(usize, Stage)> {
        let i = self.aboard.iter().position(|passage| passage.transaction.is_awaiting())?;
        Some((i, self.aboard[i].transaction.stage()))
    }

    /// Takes an answer for letter `i`.
    fn hear(&mut self, i: usize, reply: Reply) -> Result<(), Fault> {
        let Passage { cargo, transaction, again, .. } = &mut self.aboard[i];
        let step = transaction.hearing;
        if reply.code == 421 {
            self.dismissed = true;
            return Err(Fault::new(step.stage(), Cause::Reply(reply)));
        }
        let answer = self.session.judge(reply, step.stage(), |code| match step {
            Step::Data => code == 354,
            _ => code / 100 == 2,
        });
        if let Err(Fault { cause: Cause::Protocol(_), .. }) = &answer {
            return answer.map(drop);
        }
        if step == Step::End && !transaction.sent && answer.is_ok() {
            return Err(self.session.breach(Stage::Content, "took the letter for complete"));
        }
        match transaction.hear(answer, cargo.plan()) {
            Heard::Answer => {}
            Heard::NoReset(refusal) => return Err(self.no_reset(&refusal)),
            // A 5xx has left no letter behind, so that it can go once more, by DATA.
            // Should the server have read the chunk as commands, the answers are out of
            // step, and that or a refused RSET ends the session: the letter is put off.
            Heard::NoBdat => {
                *again = true;
                self.pace = Pace::Envelopes;
                self.session.bdat_refused = true;
                self.session.note("* BDAT is refused although CHUNKING is offered: DATA from here on");
            }
        }
        // In a flight, one answer too many has shifted the others: this was not the one to the letter.
        let last_of_flight = step == Step::End && transaction.manner == Manner::Chunk && !self.is_awaiting();
        let rest = self.session.left_over();
        if last_of_flight && !rest.is_empty() && !b"421".starts_with(&rest[..rest.len().min(3)]) {
            self.aboard[i].transaction.reopen();
            return Err(self.session.breach(Stage::Dot, "sent more than it was asked for"));
        }
        Ok(())
    }

    /// What it means that RSET was refused. Exim does so when it has had enough of a session, and hangs up.
    fn no_reset(&mut self, refusal: &Fault) -> Fault {
        match self.session.reply(Stage::Mail) {
            Err(Fault { cause: Cause::Network(_), .. }) => {
                self.dismissed = true;
                let text = format!("{} to RSET and closed the connection", refusal.cause);
                Fault::new(Stage::Mail, Cause::Network(text))
            }
            _ => self.session.breach(Stage::Mail, "refused RSET before MAIL"),
        }
    }

    /// Gives back the letters that are settled, up to the first that is not.
    fn report(&mut self, done: Done<'_, C>) {
        while let Some(passage) = self.aboard.pop_front_if(|passage| passage.is_settled()) {
            self.at = self.at.saturating_sub(1);
            if let Some(next) = self.aboard.front_mut() {
                next.deadline = Instant::now() + self.limit;
            }
            let results = passage.transaction.results(passage.cargo.plan());
            done(passage.cargo, results);
        }
    }

    /// Settles every letter after the connection was lost or given up.
    fn wreck(&mut self, fault: &Fault) {
        let mut fault = fault.clone();
        // Of a server that has hung up, the last answers may still be there to be read.
        let cut_off = !matches!(fault.cause, Cause::Reply(_) | Cause::Protocol(_) | Cause::Local(_));
        while let Some((i, stage)) = self.awaited().filter(|_| cut_off) {
            let Ok(Some(reply)) = self.session.early_reply(stage) else { break };
            if let Err(last) = self.hear(i, reply) {
                fault = last;
                break;
            }
        }
        let struck = self.awaited().map_or(self.at, |(i, _)| i);
        for (i, passage) in self.aboard.iter_mut().enumerate().filter(|(_, passage)| !passage.is_settled()) {
            passage.again = false;
            let stage = passage.transaction.stage();
            passage.transaction.fail(match &fault.cause {
                Cause::Reply(_) | Cause::Local(_) if i == struck => fault.clone(),
                _ if self.dismissed => Fault::new(Stage::Mail, fault.cause.clone()),
                Cause::Reply(_) | Cause::Local(_) => {
                    let text = "was left in the middle of another letter";
                    Fault::new(Stage::Mail, Cause::Network(text.to_owned()))
                }
                _ => seen_from(stage, &fault),
            });
        }
    }
}

fn bdat(size: u64) -> String {
    format!("BDAT {size} LAST\r\n")
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::new(Stage::Content, Cause::Local(format!("the letter cannot be read: {}", words(error))))
}
