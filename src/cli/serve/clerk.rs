//! Takes the letters of one session: who may send as whom, how much, and what is written above a letter.
//!
//! What a client may do follows from who it is: the kernel says that for the UNIX socket, and for TCP nobody does.
//! Whether there is room for a letter is [`super::room`]'s to say.

use super::House;
use super::book::Book;
use super::errands::Errand;
use super::room::{LOOK, Room, Watched};
use crate::cli::host::{self, Host};
use crate::cli::{bs, configuration, run};
use crate::envelope::{Envelope, Mailbox, Recipient, ReversePath};
use crate::message::fields::Field;
use crate::message::{Bounds, LoneDot, Message, Unreadable};
use crate::outcome::printable;
use crate::queue::{Queue, Spool};
use crate::serve::{Peer, TooMany};
use crate::settle::Rules;
use crate::smtp::plan::XGATEWAY;
use crate::smtp::server::{Answer, Auth, Guest, Mail, Postmaster, Terms};
use crate::submit::{Caller, Counter, Here, Keep, Letter, Why};
use nix::unistd::{Uid, User};
use std::cell::LazyCell;
use std::io::Read;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// What of a letter a session has in memory while it comes in. There may be as many as there are connections, and the
/// unit gives all of them 256 MiB.
const BOUNDS: Bounds = Bounds { piece: 4 * 1024, header: 512 * 1024 };

/// A header from which on a letter is a heavy one: every name in it may grow to an address.
const HEAVY: u64 = 64 * 1024;

/// Our verb: what waits, and what is to be done about it. Only where the kernel says who asks.
const XQUEUE: &str = "XQUEUE";

/// A letter's room on the disk and, where it is heavy, in memory.
type Held<'h> = (Room<'h>, Option<MutexGuard<'h, ()>>);

/// Takes one client's letters.
pub(super) struct Clerk<'a> {
    pub house: &'a House<'a>,
    pub peer: Peer,
    pub book: Arc<Book>,
    pub who: Caller,
}

impl<'a> Clerk<'a> {
    pub fn new(house: &'a House<'a>, peer: Peer) -> Self {
        Self { house, peer, book: house.book(), who: who(&peer, house.host) }
    }
}

impl Clerk<'_> {
    /// Whether a list of login names and uids has this client in it.
    fn is_in(&self, users: &[String]) -> bool {
        let Some(uid) = self.peer.uid() else { return false };
        users.iter().any(|user| *user == self.who.login || *user == uid.to_string())
    }

    /// Whether any reverse-path may be used, and letters are not counted. The service's own user needs no entry.
    fn is_trusted(&self) -> bool {
        self.peer.uid() == Some(self.house.host.uid) || self.is_in(&self.book.serve().trusted_users)
    }

    /// The uid that the letter is entered under.
    fn uid(&self) -> u32 {
        self.peer.uid().unwrap_or(self.house.host.uid)
    }

    /// Whether a reverse-path is the client's own: its login name, or that with a detail behind a plus, at a name of
    /// this machine; any name at `localhost` stands for that, see [`Clerk::signed`]. The null path names nobody. Over
    /// TCP nobody has a name, and whoever opened that door wanted it so.
    fn is_own(&self, path: &ReversePath) -> bool {
        let (Some(uid), Some(mailbox)) = (self.peer.uid(), &path.0) else { return true };
        let name = mailbox.local().split('+').next().unwrap_or_default();
        let host = self.house.host;
        let domains = [self.book.domain(host), host.mail_domain(), &host.name];
        let is_login = name == self.who.login || name == format!("uid{uid}");
        is_home(path) || is_login && domains.iter().any(|domain| domain.eq_ignore_ascii_case(mailbox.domain()))
    }

    /// The envelope, with the client's login name before `@localhost`: in a container it may believe to have another.
    fn signed(&self, envelope: &Envelope) -> Option<Envelope> {
        let path = envelope.reverse_path();
        if self.is_trusted() || self.peer.uid().is_none() || !is_home(path) {
            return None;
        }
        let path = ReversePath(Some(Mailbox::new(&self.who.login, "localhost").ok()?));
        let mut signed = Envelope::new(path, envelope.recipients().to_vec())?;
        (signed.ret, signed.envid) = (envelope.ret, envelope.envid.clone());
        Some(signed)
    }

    /// Writes down that nobody has the letter, and why.
    fn refuse(&self, code: u16, status: (u16, u16), text: &str) -> Answer {
        tracing::warn!(message = "rejected", uid = self.uid(), exit = code, reason = text);
        Answer::new(code, status, printable(text))
    }

    fn too_many(&self, too_many: &TooMany) -> Answer {
        self.refuse(452, (7, 1), &too_many.to_string())
    }

    fn answer(&self, why: &Why) -> Answer {
        bs::answer(why, self.uid())
    }

    /// What a letter's header is completed from.
    fn here(&self) -> Here<'_> {
        let here = configuration::here_on(self.house.host, host::date_in(self.house.zone.clone()));
        Here { caller: LazyCell::new(Box::new(|| self.who.clone())), ..here }
    }

    /// The field that says where the letter comes from. What a client says of itself has no place in it but its name in
    /// EHLO, over TCP, where there is nothing better.
    fn stamp(&self, guest: &Guest, mail: &Mail, date: &str) -> Field {
        let with = match (guest.extended, mail.utf8) {
            (true, true) => "UTF8SMTP",
            (true, false) => "ESMTP",
            (false, _) => "SMTP",
        };
        let by = &self.house.host.name;
        let value = match self.peer {
            Peer::Local { uid, .. } => format!("by {by} (Pillarbox, from userid {uid})\r\n\twith {with}; {date}"),
            Peer::Loopback(from) => {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
                let helo = guest.helo.as_deref().filter(|name| name.chars().all(is_plain)).unwrap_or("unknown");
                format!("from {helo} ([{}])\r\n\tby {by} (Pillarbox) with {with}; {date}", from.ip())
            }
        };
        Field::of("Received", &value)
    }

    /// Reads the letter and makes it complete. What it is given with is to be held until it is kept.
    fn letter(
        &self,
        guest: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<(Letter, Held<'_>), Answer> {
        let house = self.house;
        let reserve = self.book.serve().disk_reserve;
        let spool = Box::new(Spool::new(&house.dir).sparing(BOUNDS.piece));
        let mut watched = Watched::new(content, house, reserve, mail.size)?;
        let message = Message::read_within(BOUNDS, &mut watched, LoneDot::IsText, spool);
        let message = match (message, watched.over()) {
            (Ok(message), _) => message,
            (Err(Unreadable::Input(_)), Some(answer)) => return Err(answer),
            (Err(unreadable), _) => return Err(self.answer(&Why::Message(unreadable))),
        };
        // The queue's copy; what the spool has the disk knows of.
        let room = house.room(reserve, message.size())?;
        let here = self.here();
        let counter = Counter { settings: &self.book.configuration.settings, aliases: &self.book.aliases, here: &here };
        let is_heavy = message.facts().long_line || message.header_len() > HEAVY;
        let alone = is_heavy.then(|| house.heavy.lock().unwrap_or_else(PoisonError::into_inner));
        let signed = self.signed(envelope);
        let mut letter = counter
            .adopt(signed.as_ref().unwrap_or(envelope), message, bs::how(mail))
            .map_err(|why| self.answer(&why))?;
        letter.message.fields_mut().insert(0, self.stamp(guest, mail, &here.date));
        Ok((letter, (room, alone)))
    }
}

impl Postmaster for Clerk<'_> {
    fn terms(&self) -> Terms {
        let serve = self.book.serve();
        Terms {
            name: self.house.host.name.clone(),
            domain: self.book.domain(self.house.host).to_owned(),
            size: Some(serve.max_size),
            recipients: serve.max_recipients,
            mistakes: bs::MISTAKES,
            auth: Auth::Off,
        }
    }

    fn sender(&mut self, _: &Guest, mail: &Mail) -> Result<(), Answer> {
        let (serve, user) = (self.book.serve(), || format!("{} ({})", self.who.login, self.peer));
        if serve.allow_users.as_ref().is_some_and(|users| !self.is_in(users)) {
            return Err(self.refuse(550, (7, 1), &format!("{} may not send mail on this machine", user())));
        }
        if !self.is_trusted() {
            if !self.is_own(&mail.reverse_path) {
                let text = format!(
                    "{} may not send as <{}>, but as {}@{}",
                    user(),
                    mail.reverse_path,
                    self.who.login,
                    self.book.domain(self.house.host)
                );
                return Err(self.refuse(550, (7, 1), &text));
            }
            let may_send = self.house.ledger.may_send(self.peer.uid(), self.book.limits(), Instant::now());
            may_send.map_err(|too_many| self.too_many(&too_many))?;
        }
        // A small one is soon told when it comes.
        match mail.size.filter(|&size| size > LOOK) {
            Some(size) => self.house.room(serve.disk_reserve, size.min(serve.max_size)).map(drop),
            None => Ok(()),
        }
    }

    fn recipient(&mut self, _: &Guest, _: &Mail, _: &Recipient) -> Result<(), Answer> {
        Ok(())
    }

    fn verbs(&self) -> &'static [&'static str] {
        match self.peer {
            Peer::Local { .. } => &[XQUEUE, XGATEWAY],
            Peer::Loopback(_) => &[XGATEWAY],
        }
    }

    fn obey(&mut self, _: &Guest, verb: &str, words: &str, tell: &mut dyn FnMut(&str)) -> Answer {
        match self.peer {
            Peer::Local { uid, gid } if verb == XQUEUE => {
                let all = uid == 0 || uid == self.house.host.uid || gid == nix::unistd::getgid().as_raw();
                Errand { clerk: self, uid, all }.obey(words, tell)
            }
            Peer::Local { .. } | Peer::Loopback(_) => Answer::new(503, (5, 1), "that stands behind MAIL"),
        }
    }

    fn accept(
        &mut self,
        guest: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<String, Answer> {
        let house = self.house;
        let (letter, _held) = self.letter(guest, mail, envelope, content)?;
        let (uid, counted) = (self.peer.uid(), !self.is_trusted());
        if counted {
            let count = house.ledger.count(uid, self.book.limits(), Instant::now());
            count.map_err(|too_many| self.too_many(&too_many))?;
        }
        let rules = Rules { uid: self.uid(), ..run::rules(&self.book.configuration, house.host) };
        let wake = |queue: &Queue| {
            queue.trigger();
        };
        let keep = Keep { dir: &house.dir, rules, wake: &wake, now: &SystemTime::now };
        let kept = {
            let _place = house.writers.take();
            keep.queue(&letter, true)
        };
        let id = kept.map_err(|error| {
            if counted {
                house.ledger.uncount(uid);
            }
            self.answer(&Why::Queue(error))
        })?;
        tracing::info!(message = "submitted", id = %id, client = %self.peer, login = self.who.login);
        Ok(format!("Ok: queued as {id}"))
    }
}

/// The user at the other end, as far as that is known.
fn who(peer: &Peer, host: &Host) -> Caller {
    match peer.uid() {
        None => Caller { full_name: String::new(), ..host.caller() },
        Some(uid) => host::caller(User::from_uid(Uid::from_raw(uid)).ok().flatten().as_ref(), uid),
    }
}

/// Whether a reverse-path is at `localhost`.
fn is_home(path: &ReversePath) -> bool {
    path.0.as_ref().is_some_and(|mailbox| mailbox.domain().eq_ignore_ascii_case("localhost"))
}
