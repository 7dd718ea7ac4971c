//! The service: who comes in by which door, how long each is listened to, and how it all ends.
//!
//! One thread waits at the doors; each visitor gets a thread with a small stack, and what is said there is the roof's
//! business ([`Service::session`]). Nothing here knows SMTP beyond the line that turns a visitor away, nor what a
//! letter is. Between visitors the process does not wake up, except to tell a watchdog that it lives.
//!
//! A visitor has a time for each command and each letter as a whole ([`Patience`]), however it drips. Too many
//! visitors, in all or of one user, are turned away with a 421. To stop: the doors close, whoever is between letters is
//! told 421 and left, a letter that is coming in may come to its end for [`GRACE`]; then the connection is cut, and
//! nothing is kept of what was not whole.

pub mod door;
pub mod ledger;
pub mod notify;
mod visit;

pub use door::Door;
pub use ledger::{Ledger, Limits, TooMany};
pub use notify::Notify;
pub use visit::{Patience, Peer, Visit};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use visit::Stream;

/// How long a letter that is coming in may take to come to its end when the service stops.
pub const GRACE: Duration = Duration::from_secs(6);

/// A session's stack: address space, of which what is used becomes memory.
const STACK: usize = 512 * 1024;

/// How long nobody is let in after the system has run out of files or threads.
const PAUSE: Duration = Duration::from_millis(200);

/// What is asked of a running service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Read the settings again.
    Reload,
    /// Stop.
    Stop,
}

/// Calls a running service, from any thread.
#[derive(Debug)]
pub struct Bell(PipeWriter);

impl Bell {
    /// Makes the two ends.
    pub fn new() -> io::Result<(Self, Calls)> {
        let (reader, writer) = io::pipe()?;
        Ok((Self(writer), Calls(reader)))
    }

    /// Calls. That nobody listens any more changes nothing.
    pub fn ring(&mut self, call: Call) {
        let octet = match call {
            Call::Reload => b'r',
            Call::Stop => b's',
        };
        let _ = self.0.write_all(&[octet]);
    }
}

/// What has been called.
#[derive(Debug)]
pub struct Calls(PipeReader);

impl Calls {
    /// The call that has come. Without a caller left, it is time to stop.
    fn next(&mut self) -> Call {
        let mut octet = [0];
        match self.0.read(&mut octet) {
            Ok(1) if octet == *b"r" => Call::Reload,
            _ => Call::Stop,
        }
    }
}

/// A service that is ready to run.
pub struct Service<'s> {
    /// Where visitors come in.
    pub doors: Vec<Door>,
    /// Who is there.
    pub ledger: &'s Ledger,
    /// How many may be there, and for how long each is listened to; asked for at each visit.
    pub terms: &'s (dyn Fn() -> (Limits, Patience) + Sync),
    /// Holds a session with a visitor.
    pub session: &'s (dyn Fn(&Peer, &mut Visit) + Sync),
    /// Reads the settings again.
    pub reload: &'s (dyn Fn() + Sync),
    /// Hears that the service is about to stop, before it waits for anybody.
    pub stopping: &'s (dyn Fn() + Sync),
    /// Who supervises it.
    pub notify: &'s Notify,
    /// How often the supervisor wants a sign of life.
    pub beat: Option<Duration>,
}

impl Service<'_> {
    /// Serves until it is told to stop. The error is that of a door or the bell which cannot be waited at.
    pub fn run(mut self, mut calls: Calls) -> io::Result<()> {
        let doors = std::mem::take(&mut self.doors);
        let this = &self;
        thread::scope(|scope| {
            let mut beaten = Instant::now();
            let end = loop {
                match this.wait(&doors, &calls) {
                    Ok(ready) if ready[0] => match calls.next() {
                        Call::Reload => (this.reload)(),
                        Call::Stop => break Ok(()),
                    },
                    // One at each, so that a crowd at one door keeps nobody out who stands at another.
                    Ok(ready) => {
                        let ready = doors.iter().zip(&ready[1..]).filter(|(_, ready)| **ready);
                        ready.for_each(|(door, _)| this.let_in(scope, door));
                    }
                    Err(error) => break Err(error),
                }
                if this.beat.is_some_and(|beat| beaten.elapsed() >= beat / 2) {
                    this.notify.say("WATCHDOG=1");
                    beaten = Instant::now();
                }
            };
            (this.stopping)();
            drop(doors);
            this.ledger.dismiss();
            this.ledger.wait_until_empty(Instant::now() + GRACE);
            this.ledger.cut();
            end
        })
    }

    /// Waits for a visitor or a call. Says whether there is a call, and then for each door whether somebody is there.
    fn wait(&self, doors: &[Door], calls: &Calls) -> io::Result<Vec<bool>> {
        let fds = std::iter::once(calls.0.as_fd()).chain(doors.iter().map(Door::as_fd));
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let limit = self.beat.and_then(|beat| i32::try_from(beat.as_millis()).ok());
        let limit = limit.and_then(|millis| PollTimeout::try_from(millis).ok()).unwrap_or(PollTimeout::NONE);
        match poll(&mut fds, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(fds.iter().map(|fd| fd.revents().is_some_and(|found| !found.is_empty())).collect())
    }

    /// Lets one visitor in, in a thread of its own.
    fn let_in<'t>(&'t self, scope: &'t thread::Scope<'t, '_>, door: &Door) {
        let (stream, peer) = match door.accept() {
            Ok(Some(visitor)) => visitor,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(message = "unable", reason = format!("cannot let a client in: {error}"));
                // Without files it would fail again at once, and again.
                return thread::sleep(PAUSE);
            }
        };
        let (limits, patience) = (self.terms)();
        let stream = Arc::new(stream);
        let seat = match self.ledger.enter(&peer, &stream, limits) {
            Ok(seat) => seat,
            Err(too_many) => return turn_away(&stream, &peer, &too_many),
        };
        let door = Arc::clone(&stream);
        let session = move || {
            let mut visit = Visit::new(&seat, patience);
            (self.session)(seat.peer(), &mut visit);
            visit.leave();
        };
        if let Err(error) = thread::Builder::new().name("session".into()).stack_size(STACK).spawn_scoped(scope, session)
        {
            tracing::error!(message = "unable", reason = format!("cannot start a thread: {error}"));
            let _ = door.say(b"421 4.3.2 the system has no thread for you; try again later\r\n");
            thread::sleep(PAUSE);
        }
    }
}

/// Says that there is no room. The client's buffer is empty, so that this does not block.
fn turn_away(stream: &Stream, peer: &Peer, too_many: &TooMany) {
    tracing::warn!(message = "turned away", client = peer.to_string(), reason = too_many.to_string());
    let _ = stream.say(format!("421 4.3.2 {too_many}; try again later\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_crowd_at_one_door_keeps_nobody_out_who_stands_at_another() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        let doors = paths.iter().map(|path| Door::unix(path).unwrap()).collect();
        let crowd: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(&paths[0]).unwrap()).collect();
        let mut other = UnixStream::connect(&paths[1]).unwrap();
        let (ledger, notify, (mut bell, calls)) = (Ledger::default(), Notify::default(), Bell::new().unwrap());
        let limits = Limits { connections: 2, connections_per_user: 2, letters_per_hour: 1 };
        let patience = Patience { command: Duration::from_mins(5), letter: Duration::from_mins(5) };
        let service = Service {
            doors,
            ledger: &ledger,
            terms: &|| (limits, patience),
            session: &|_, visit| {
                // One of the crowd may have gone by then.
                let _ = visit.write_all(b"220");
                let _ = visit.read(&mut [0]);
            },
            reload: &|| (),
            stopping: &|| (),
            notify: &notify,
            beat: None,
        };
        thread::scope(|scope| {
            scope.spawn(|| service.run(calls).unwrap());
            let mut heard = [0; 3];
            other.read_exact(&mut heard).unwrap();
            // Whatever it was, the service must end.
            drop((crowd, other));
            bell.ring(Call::Stop);
            assert_eq!(heard, *b"220", "the others have taken every place");
        });
    }
}
