//! One connection: whose it is, and how long it is listened to.
//!
//! The kernel says who is at the other end of a UNIX socket, and nobody can make it lie (`SO_PEERCRED`); over TCP
//! nobody has proved anything. A client has its time for a command or a letter as a whole, so that one octet now and
//! then keeps no thread for ever. RFC 5321 §4.5.3.2.7 asks for five minutes at least.

use super::ledger::Seat;
use crate::smtp::server::{Channel, Next};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this user and group.
    Local {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Somebody on this machine.
    Loopback(SocketAddr),
}

impl Peer {
    /// The user, where that is known.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Self::Local { uid, .. } => Some(*uid),
            Self::Loopback(_) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, gid } => write!(f, "uid {uid} gid {gid}"),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one command.
    pub command: Duration,
    /// For one letter.
    pub letter: Duration,
}

/// A connected socket of either kind. It blocks, within limits.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(limit)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(limit)),
        }
    }

    fn limit_writes(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(limit)),
            Self::Tcp(stream) => stream.set_write_timeout(Some(limit)),
        }
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).read(into),
            Self::Tcp(stream) => (&*stream).read(into),
        }
    }

    /// Writes some of it.
    fn write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&*stream).write(octets),
            Self::Tcp(stream) => (&*stream).write(octets),
        }
    }

    /// Writes what fits into the socket's buffer.
    pub(super) fn say(&self, octets: &[u8]) -> io::Result<usize> {
        self.write(octets)
    }

    /// Ends reads, or everything. It may be over already.
    pub(super) fn shut(&self, how: Shutdown) {
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        };
    }
}

/// A session's channel.
pub struct Visit<'s> {
    seat: &'s Seat<'s>,
    patience: Patience,
    /// When what is expected must be there.
    until: Instant,
}

impl<'s> Visit<'s> {
    pub(super) fn new(seat: &'s Seat<'s>, patience: Patience) -> Self {
        // A client that does not take its answers is left, too. That it cannot be set is found out by the first write.
        let _ = seat.stream().limit_writes(patience.command);
        Self { seat, patience, until: Instant::now() + patience.command }
    }

    /// The end of the session.
    pub(super) fn leave(self) {
        self.seat.stream().shut(Shutdown::Write);
    }

    /// Whether the service is about to stop and no letter is coming in.
    fn is_dismissed(&self) -> bool {
        self.seat.is_dismissed() && !self.seat.in_letter.load(Ordering::SeqCst)
    }
}

impl Read for Visit<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let stream = self.seat.stream();
        let mut read = Ok(0);
        if !self.is_dismissed() {
            stream.limit_reads(left)?;
            read = stream.read(into);
        }
        if matches!(read, Ok(0)) && self.is_dismissed() {
            let _ = stream.say(b"421 4.3.2 the service stops, good-bye\r\n");
        }
        read
    }
}

impl Write for Visit<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.seat.stream().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel for Visit<'_> {
    fn expect(&mut self, next: Next) {
        self.seat.in_letter.store(next == Next::Letter, Ordering::SeqCst);
        let time = match next {
            Next::Command => self.patience.command,
            Next::Letter => self.patience.letter,
        };
        self.until = Instant::now() + time;
    }
}
