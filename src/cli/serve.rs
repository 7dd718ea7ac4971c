//! `pillarbox serve`: the mail of a whole machine, from a socket to the relay, in one process.
//!
//! The sessions, the queue's runner and the supervisor's wishes come together here. A letter's 250 is said when it is
//! durable; the runner, in a thread of its own, is knocked up by it at once. What a client may do follows from who it
//! is: the kernel says that for the UNIX socket, and for TCP nobody does.
//!
//! A signal to read the settings again (SIGHUP) changes them for sessions that begin and runs that begin; a file that is
//! wrong changes nothing and is told. The doors, the queue's place and the log stay as they were. SIGTERM, SIGINT and SIGQUIT stop
//! the service within ten seconds: see `serve` for the sessions; letters that are on their way to the relay may arrive,
//! and what has not by then is put off.

mod errands;

use super::configuration::{self, Configuration};
use super::exit::{self, sysexits};
use super::host::{self, Host};
use super::run::{self, Runs};
use super::sendmail::Face;
use super::{bs, log, signals};
use crate::aliases::Aliases;
use crate::config::Serve;
use crate::envelope::{Envelope, Mailbox, Recipient, ReversePath};
use crate::message::fields::Field;
use crate::message::{LoneDot, Message, Unreadable};
use crate::outcome::printable;
use crate::queue::{Id, Queue, RunnerLock, Spool};
use crate::serve::{Bell, Call, Calls, Door, Ledger, Limits, Notify, Patience, Peer, Service, TooMany, Visit};
use crate::settle::Rules;
use crate::smtp::interrupt::{Ending, Interrupt};
use crate::smtp::plan::XGATEWAY;
use crate::smtp::server::{Answer, Auth, End, Guest, Mail, Postmaster, Terms, serve};
use crate::submit::{Caller, Counter, Here, Keep, Letter, Why};
use errands::Errand;
use jiff::tz::TimeZone;
use listenfd::ListenFd;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use std::cell::LazyCell;
use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long letters on their way to the relay may take when the service stops.
const GRACE: Duration = Duration::from_secs(8);

/// How long the runner rests when the queue itself fails.
const PAUSE: Duration = Duration::from_mins(1);

/// Octets of a letter that a session has in memory at a time, once on their way in and once on their way out.
const PIECE: usize = 4 * 1024;

/// Octets that come in between two looks at the disk.
const LOOK: u64 = 256 * 1024;

/// Letters that are written to the queue at a time: each needs two buffers of 64 KiB.
const WRITERS: usize = 8;

/// Our verb: what waits, and what is to be done about it. Only where the kernel says who asks.
const XQUEUE: &str = "XQUEUE";

/// Serves until it is told to stop. Returns the exit status.
pub fn main(face: Face<'_>, config: Option<PathBuf>) -> u8 {
    let host = Host::look();
    let named = config.or_else(|| host::variable("PILLARBOX_CONFIG").map(PathBuf::from));
    let file = named.unwrap_or_else(|| PathBuf::from(configuration::SERVICE));
    let book = match Book::read(&host, &file) {
        Ok(book) => book,
        Err(sentence) => {
            face.say(&sentence);
            return sysexits::CONFIG;
        }
    };
    let configuration = &book.configuration;
    log::install(&configuration.settings.log, face.program);
    let Some(dir) = configuration.queue_dir.clone().filter(|_| configuration.settings.queue.enabled) else {
        face.say("a service keeps what it takes, and the queue is off");
        return sysexits::CONFIG;
    };
    let claimed = Queue::open(&dir).and_then(|queue| Ok((queue.run_alone()?, queue)));
    let (lock, queue) = match claimed {
        Ok((Some(lock), queue)) => (lock, queue),
        Ok((None, _)) => {
            face.say(&format!("{} has a runner already: another service, or sendmail's own", dir.display()));
            return sysexits::TEMPFAIL;
        }
        Err(error) => {
            face.say(&error.to_string());
            return exit::queue(&error);
        }
    };
    let doors = match open_doors(&configuration.settings.serve) {
        Ok(doors) => doors,
        Err(sentence) => {
            face.say(&sentence);
            return sysexits::UNAVAILABLE;
        }
    };
    let notify = Notify::to(host::variable("NOTIFY_SOCKET").as_deref());
    let house = House {
        face,
        host: &host,
        file,
        dir,
        queue,
        book: RwLock::new(Arc::new(book)),
        ledger: Ledger::default(),
        notify,
        zone: host::time_zone(),
        writers: Places::new(WRITERS),
        heavy: Mutex::new(()),
        promised: AtomicU64::new(0),
        urged: Mutex::default(),
    };
    let calls = match Bell::new().and_then(|(bell, calls)| hear(bell).map(|()| calls)) {
        Ok(calls) => calls,
        Err(error) => {
            face.say(&format!("signals cannot be waited for: {error}"));
            return sysexits::OSERR;
        }
    };
    house.open(doors, lock, calls)
}

/// Turns signals into calls.
fn hear(mut bell: Bell) -> io::Result<()> {
    signals::each(move |signal| {
        bell.ring(if signal == Signal::SIGHUP { Call::Reload } else { Call::Stop });
    })
}

/// The sockets that systemd hands over, else our own UNIX socket; and the loopback addresses that the settings ask for.
fn open_doors(serve: &Serve) -> Result<Vec<Door>, String> {
    let mut handed = ListenFd::from_env();
    let mut doors = Vec::new();
    for i in 0..handed.len() {
        let door = match handed.take_unix_listener(i) {
            Ok(listener) => listener.map(|listener| Door::taken(listener, None)),
            Err(_) => match handed.take_tcp_listener(i) {
                Ok(listener) => listener.map(Door::tcp_taken),
                Err(error) => Some(Err(error)),
            },
        };
        if let Some(door) = door {
            doors.push(door.map_err(|error| format!("the socket {i} that was handed over cannot be used: {error}"))?);
        }
    }
    if doors.is_empty() {
        let path = &serve.socket;
        doors.push(Door::unix(path).map_err(|error| format!("cannot listen at {}: {error}", path.display()))?);
    }
    for &address in &serve.listen {
        if !doors.iter().any(|door| door.name() == address.to_string()) {
            doors.push(Door::tcp(address).map_err(|error| format!("cannot listen at {address}: {error}"))?);
        }
    }
    Ok(doors)
}

/// What a configuration file says, read as a whole.
struct Book {
    configuration: Configuration,
    aliases: Aliases,
}

impl Book {
    fn read(host: &Host, file: &Path) -> Result<Self, String> {
        let configuration = configuration::of_service(host, file)?;
        let aliases = configuration::aliases(&configuration.settings, host)?;
        Ok(Self { configuration, aliases })
    }

    fn serve(&self) -> &Serve {
        &self.configuration.settings.serve
    }

    fn limits(&self) -> Limits {
        let serve = self.serve();
        Limits {
            connections: serve.max_connections,
            connections_per_user: serve.max_connections_per_user,
            letters_per_hour: serve.letters_per_hour,
        }
    }

    fn patience(&self) -> Patience {
        Patience { command: self.serve().command_timeout, letter: self.serve().letter_timeout }
    }

    /// The domain that completes names, and senders' own.
    fn domain<'a>(&'a self, host: &'a Host) -> &'a str {
        self.configuration.settings.domain.as_deref().unwrap_or(host.mail_domain())
    }
}

/// The settings that a running service keeps whatever the file says.
fn later(old: &Book, new: &Book) -> Vec<&'static str> {
    let (was, is) = (&old.configuration.settings, &new.configuration.settings);
    let changed = [
        ("serve.socket", was.serve.socket != is.serve.socket),
        ("serve.listen", was.serve.listen != is.serve.listen),
        ("queue.dir", old.configuration.queue_dir != new.configuration.queue_dir),
        ("log", was.log != is.log),
    ];
    changed.into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
}

/// A running service.
struct House<'a> {
    face: Face<'a>,
    host: &'a Host,
    file: PathBuf,
    dir: PathBuf,
    queue: Queue,
    book: RwLock<Arc<Book>>,
    ledger: Ledger,
    notify: Notify,
    zone: TimeZone,
    writers: Places,
    /// Held while a letter is worked on as a whole: one such at a time is memory enough.
    heavy: Mutex<()>,
    /// Octets that sessions are about to write, and that the disk does not know of yet.
    promised: AtomicU64,
    /// Letters that somebody wants to be tried in the runner's next round, due or not.
    urged: Mutex<HashSet<Id>>,
}

impl House<'_> {
    fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the doors, and returns when they are closed again and everybody has gone home.
    fn open(&self, doors: Vec<Door>, lock: RunnerLock, calls: Calls) -> u8 {
        let names: Vec<String> = doors.iter().map(Door::name).collect();
        tracing::info!(message = "serving", at = names.join(" "), queue = self.dir.display().to_string());
        let (interrupt, stopped) = (Interrupt::default(), OnceLock::new());
        let served = thread::scope(|scope| {
            let (over, is_over) = mpsc::channel();
            let runner = interrupt.clone();
            let run = move || {
                self.run(lock, &runner);
                // Nobody waits for it where the service ends for another reason.
                let _ = over.send(());
            };
            thread::Builder::new().name("runner".into()).spawn_scoped(scope, run)?;
            self.notify.say(&format!("READY=1\nSTATUS=serving {}", names.join(" ")));
            let session = |peer: &Peer, visit: &mut Visit<'_>| self.receive(peer, visit);
            let stopping = || {
                stopped.get_or_init(Instant::now);
                self.notify.say("STOPPING=1\nSTATUS=finishing what is on its way");
                tracing::info!(message = "stopping", clients = self.ledger.present());
                interrupt.wind_down();
                self.queue.trigger();
            };
            let service = Service {
                doors,
                ledger: &self.ledger,
                terms: &|| (self.book().limits(), self.book().patience()),
                session: &session,
                reload: &|| self.reload(),
                stopping: &stopping,
                notify: &self.notify,
                beat: beat(),
            };
            let served = service.run(calls);
            let left = stopped.get().map_or(GRACE, |since| GRACE.saturating_sub(since.elapsed()));
            if is_over.recv_timeout(left).is_err() {
                interrupt.trip();
            }
            served
        });
        match served {
            Ok(()) => 0,
            Err(error) => {
                self.face.say(&format!("the service cannot go on: {error}"));
                sysexits::OSERR
            }
        }
    }

    /// Runs the queue until it is told to stop.
    fn run(&self, mut lock: RunnerLock, interrupt: &Interrupt) {
        let place = self.dir.clone();
        let knock: Ending = Arc::new(move || {
            if let Ok(Some(queue)) = Queue::find(&place) {
                queue.trigger();
            }
        });
        interrupt.register(&knock);
        let mut swept = None;
        while !interrupt.is_winding_down() {
            let book = self.book();
            let runs = Runs {
                configuration: &book.configuration,
                host: self.host,
                queue: &self.queue,
                interrupt: interrupt.clone(),
            };
            let urged = std::mem::take(&mut *self.urged.lock().unwrap_or_else(PoisonError::into_inner));
            let wait = runs.turn(&mut swept, &urged).unwrap_or_else(|error| {
                tracing::error!(message = "unable", reason = %error);
                Some(PAUSE)
            });
            if interrupt.is_winding_down() {
                return;
            }
            if let Err(error) = lock.wait(wait) {
                tracing::error!(message = "unable", reason = format!("the runner cannot wait: {error}"));
                thread::sleep(PAUSE);
            }
        }
    }

    /// Reads the settings again; those that are in force stay where the new ones are wrong.
    fn reload(&self) {
        self.notify.reloading();
        let file = self.file.display();
        match Book::read(self.host, &self.file) {
            Ok(book) => {
                let old = self.book();
                for name in later(&old, &book) {
                    tracing::warn!(message = "remark", text = format!("{name} changes with the next start"));
                }
                *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
                tracing::info!(message = "reloaded", file = %file);
                // What waits may go another way now.
                self.queue.trigger();
                self.notify.say("READY=1\nSTATUS=serving by the new settings");
            }
            Err(sentence) => {
                tracing::error!(message = "not reloaded", file = %file, reason = sentence);
                self.face.say(&format!("{sentence}; the settings in force stay"));
                self.notify.say("READY=1\nSTATUS=serving by the old settings: the new ones are wrong");
            }
        }
    }

    /// Holds a session.
    fn receive(&self, peer: &Peer, visit: &mut Visit<'_>) {
        let mut clerk = Clerk { house: self, peer: *peer, book: self.book(), who: who(peer, self.host) };
        match serve(visit, &mut clerk) {
            End::Quit | End::Left => {}
            End::Vanished => tracing::info!(message = "vanished", client = %peer),
            End::Closed(why) => tracing::info!(message = "closed", client = %peer, reason = why),
            End::Failed(error) => tracing::info!(message = "closed", client = %peer, reason = %error),
        }
    }

    /// Room for so many octets beside the reserve and what others are about to write; it is kept until it is dropped. Without
    /// this, many who look at the same time would all see the same room.
    fn room(&self, reserve: u64, octets: u64) -> Result<Room<'_>, Answer> {
        let full = |why: &str| {
            tracing::error!(message = "unable", reason = format!("{}: {why}", self.dir.display()));
            Answer::new(452, (3, 1), "the disk is too full to keep the letter; try again later")
        };
        let room = Room { promised: &self.promised, octets };
        // A size that a client only says may be any.
        let promised = self.promised.fetch_add(octets, Ordering::SeqCst).saturating_add(octets);
        let found = nix::sys::statvfs::statvfs(&self.dir).map_err(|errno| full(errno.desc()))?;
        // As wide as the platform has them.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
        if free >= reserve.saturating_add(promised) { Ok(room) } else { Err(full("disk_reserve would be touched")) }
    }
}

/// Room on the disk that nobody else counts on.
struct Room<'h> {
    promised: &'h AtomicU64,
    octets: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.promised.fetch_sub(self.octets, Ordering::SeqCst);
    }
}

/// How often systemd wants a sign of life: twice as often as it says.
fn beat() -> Option<Duration> {
    let number = |name| host::variable(name)?.to_str()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| ours && *usec > 1).map(|usec| Duration::from_micros(usec / 2))
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

/// Takes one client's letters.
struct Clerk<'a> {
    house: &'a House<'a>,
    peer: Peer,
    book: Arc<Book>,
    who: Caller,
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

    /// Whether a reverse-path is the client's own: its login name, or that with a detail behind a plus, at a name of this
    /// machine; any name at `localhost` stands for that, see [`Clerk::signed`]. The null path names nobody. Over TCP nobody has a name, and whoever opened that door wanted it so.
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

    /// Reads the letter and makes it complete.
    fn letter(
        &self,
        guest: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<(Letter, Room<'_>), Answer> {
        let house = self.house;
        let reserve = self.book.serve().disk_reserve;
        let spool = Box::new(Spool::new(&house.dir).sparing(PIECE));
        // The first look is for what may come before the second.
        let room = Some(house.room(reserve, mail.size.unwrap_or(LOOK).min(LOOK))?);
        let mut watched = Watched { content, house, reserve, unseen: 0, room, full: None };
        let message = Message::read_by(PIECE, &mut watched, LoneDot::IsText, spool);
        drop(watched.room);
        let message = match (message, watched.full) {
            (Ok(message), _) => message,
            (Err(Unreadable::Input(_)), Some(answer)) => return Err(answer),
            (Err(unreadable), _) => return Err(self.answer(&Why::Message(unreadable))),
        };
        // The queue's copy; what the spool has the disk knows of.
        let room = house.room(reserve, message.size())?;
        let here = self.here();
        let counter = Counter { settings: &self.book.configuration.settings, aliases: &self.book.aliases, here: &here };
        let _alone = message.facts().long_line.then(|| house.heavy.lock().unwrap_or_else(PoisonError::into_inner));
        let signed = self.signed(envelope);
        let mut letter = counter
            .adopt(signed.as_ref().unwrap_or(envelope), message, bs::how(mail))
            .map_err(|why| self.answer(&why))?;
        letter.message.fields_mut().insert(0, self.stamp(guest, mail, &here.date));
        Ok((letter, room))
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
        let (letter, _room) = self.letter(guest, mail, envelope, content)?;
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

/// A letter on its way in, with an eye on the disk that it goes to.
struct Watched<'a> {
    content: &'a mut dyn Read,
    house: &'a House<'a>,
    reserve: u64,
    /// Octets since the last look.
    unseen: u64,
    /// For what comes before the next one.
    room: Option<Room<'a>>,
    full: Option<Answer>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.unseen >= LOOK {
            self.unseen = 0;
            // What came since the last look is on the disk.
            self.room = None;
            match self.house.room(self.reserve, LOOK) {
                Ok(room) => self.room = Some(room),
                Err(answer) => {
                    self.full = Some(answer);
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
        }
        let n = self.content.read(into)?;
        self.unseen += n as u64;
        Ok(n)
    }
}

/// So many may do something at a time.
struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them.
struct Place<'p>(&'p Places);

impl Places {
    fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), freed: Condvar::new() }
    }

    fn take(&self) -> Place<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
