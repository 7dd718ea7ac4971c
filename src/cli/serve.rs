//! `pillarbox serve`: the mail of a whole machine, from a socket to the relay, in one process.
//!
//! The sessions, the queue's runner and the supervisor's wishes come together here. A letter's 250 is said when it is
//! durable; the runner, in a thread of its own, is knocked up by it at once.
//!
//! A signal to read the settings again (SIGHUP) changes them for sessions that begin and runs that begin; a file that
//! is wrong changes nothing and is told. The doors, the queue's place and the log stay as they were. SIGTERM, SIGINT
//! and SIGQUIT stop the service within ten seconds: see `serve` for the sessions; letters that are on their way to the
//! relay may arrive, and what has not by then is put off.

mod book;
mod clerk;
mod errands;
mod room;

use super::configuration;
use super::exit::{self, sysexits};
use super::host::{self, Host};
use super::run::{self, Runs};
use super::sendmail::Face;
use super::{log, signals};
use crate::config::Serve;
use crate::outcome::words;
use crate::queue::{Id, Queue, RunnerLock, Wake};
use crate::serve::{Bell, Call, Calls, Door, Ledger, Notify, Peer, Service, Visit};
use crate::smtp::interrupt::{Ending, Interrupt};
use crate::smtp::server::{End, serve};
use book::{Book, later};
use clerk::Clerk;
use jiff::tz::TimeZone;
use listenfd::ListenFd;
use nix::sys::signal::Signal;
use room::Places;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long letters on their way to the relay may take when the service stops.
const GRACE: Duration = Duration::from_secs(8);

/// How long the runner rests when the queue itself fails.
const PAUSE: Duration = Duration::from_mins(1);

/// Letters that are written to the queue at a time: each needs two buffers of 64 KiB.
const WRITERS: usize = 8;

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
    configuration::log_bad_aliases(&book.bad_aliases);
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
        doors
            .push(Door::unix(path).map_err(|error| format!("cannot listen at {}: {}", path.display(), words(&error)))?);
    }
    for &address in &serve.listen {
        if !doors.iter().any(|door| door.name() == address.to_string()) {
            doors.push(Door::tcp(address).map_err(|error| format!("cannot listen at {address}: {}", words(&error)))?);
        }
    }
    Ok(doors)
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
    /// Held while a letter with long lines or a large header is worked on: one such at a time is memory enough.
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
            // By the FIFO itself: with the queue its name may have gone.
            let ear = File::from(lock.ear()?);
            let knock: Ending = Arc::new(move || drop((&ear).write(b"!")));
            interrupt.register(&knock);
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
                knock();
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
        let mut swept = None;
        while !interrupt.is_winding_down() {
            let book = self.book();
            let runs = Runs {
                configuration: &book.configuration,
                host: self.host,
                queue: &self.queue,
                interrupt: interrupt.clone(),
            };
            let began = run::spent();
            let urged = std::mem::take(&mut *self.urged.lock().unwrap_or_else(PoisonError::into_inner));
            let wait = runs.turn(&mut swept, &urged).unwrap_or_else(|error| {
                tracing::error!(message = "unable", reason = %error);
                Some(PAUSE)
            });
            if interrupt.is_winding_down() {
                return;
            }
            let pause = match lock.wait(wait) {
                Ok(Wake::Triggered) if !interrupt.is_winding_down() => run::breather(began),
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    tracing::error!(message = "unable", reason = format!("the runner cannot wait: {error}"));
                    PAUSE
                }
            };
            run::sleep(pause, interrupt);
            lock.drain();
        }
    }

    /// Reads the settings again; those that are in force stay where the new ones are wrong.
    fn reload(&self) {
        self.notify.reloading();
        let file = self.file.display();
        // Of the names, too: those in force are better than some that are wrong.
        let sound = |book: Book| if book.bad_aliases.is_empty() { Ok(book) } else { Err(book.bad_aliases.join("\n")) };
        match Book::read(self.host, &self.file).and_then(sound) {
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
        let mut clerk = Clerk::new(self, *peer);
        match serve(visit, &mut clerk) {
            End::Quit | End::Left => {}
            End::Vanished => tracing::info!(message = "vanished", client = %peer),
            End::Closed(why) => tracing::info!(message = "closed", client = %peer, reason = why),
            End::Failed(error) => tracing::info!(message = "closed", client = %peer, reason = words(&error)),
        }
    }
}

/// How often systemd wants a sign of life: twice as often as it says.
fn beat() -> Option<Duration> {
    let number = |name| host::variable(name)?.to_str()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| ours && *usec > 1).map(|usec| Duration::from_micros(usec / 2))
}
