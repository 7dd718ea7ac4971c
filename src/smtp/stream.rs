//! A connected stream, plain or TLS, on which every wait ends.
//!
//! The socket never blocks; each call is given an instant and waits with poll(2) until then, so that a limit
//! covers a whole TLS handshake or a whole dripping reply and not just one read. A tripped [`Interrupt`] shuts
//! the socket down, which ends the wait. Errors are [`io::Error`]s: `TimedOut`, `UnexpectedEof` when the server
//! has closed, `InvalidData` around a [`rustls::Error`]; `session` gives them a place and a meaning.
//!
//! Speed, which is mostly waiting: no Nagle, and quick ACKs asked for before each wait (the kernel forgets),
//! since a server that leaves Nagle on holds its second small write back until our ACK.

use super::interrupt::{Ending, Interrupt};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::Socket;
use std::io::{self, IoSlice, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection to a relay.
pub struct Stream {
    socket: Arc<Socket>,
    tls: Option<Box<ClientConnection>>,
    interrupt: Interrupt,
    /// Who is at the other end of the socket only passes our octets on.
    goes_further: bool,
    /// Held so that the interrupt keeps knowing how to end our waits.
    _ending: Ending,
}

impl Stream {
    /// Takes a connected (or connecting) socket, which must not block.
    pub(super) fn new(socket: Socket, interrupt: &Interrupt) -> Self {
        let socket = Arc::new(socket);
        let ours = Arc::clone(&socket);
        // A socket that is no longer connected cannot be shut down, and need not be.
        let ending: Ending = Arc::new(move || drop(ours.shutdown(std::net::Shutdown::Both)));
        interrupt.register(&ending);
        Self { socket, tls: None, interrupt: interrupt.clone(), goes_further: false, _ending: ending }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether the other end is on this machine, so that what we send cannot be overheard.
    pub fn is_local(&self) -> bool {
        !self.goes_further
            && self.socket.peer_addr().is_ok_and(|peer| match peer.as_socket() {
                Some(address) => address.ip().to_canonical().is_loopback(),
                None => peer.is_unix(),
            })
    }

    /// The relay is behind the socket's other end, wherever that is.
    pub(super) fn goes_further(&mut self) {
        self.goes_further = true;
    }

    /// Whether somebody has ended the attempt from outside.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_tripped()
    }

    /// Whether TLS is on.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The TLS session, where TLS is on.
    pub(super) fn tls(&self) -> Option<&ClientConnection> {
        self.tls.as_deref()
    }

    /// Does the whole TLS handshake, up to our last message, which travels with what we write next.
    pub fn start_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        until: Instant,
    ) -> io::Result<()> {
        let mut tls = ClientConnection::new(config, name).map_err(wrong)?;
        // We never write more than one chunk of content at a time, and write it out at once.
        tls.set_buffer_limit(None);
        let mut wire = Wire { socket: &self.socket, until: Some(until) };
        while tls.is_handshaking() {
            flush(&mut tls, &mut wire)?;
            if let Err(error) = receive(&mut tls, &mut wire) {
                // The alert tells the server why; that it cannot be sent is not the news.
                drop(flush(&mut tls, &mut Wire { socket: &self.socket, until: None }));
                return Err(error);
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Writes everything, in as few system calls as the kernel allows. While it allows none, `heard` gets what the
    /// server says: one that waits for us to listen before it reads on would otherwise wait for ever, and we for it.
    /// When `heard` has heard enough, the writing ends with `ConnectionAborted`.
    pub fn write_all(
        &mut self,
        mut octets: &[u8],
        until: Instant,
        heard: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(octets)?;
        }
        let mut events = PollFlags::POLLOUT | PollFlags::POLLIN;
        loop {
            let mut wire = Wire { socket: &self.socket, until: None };
            let written = match &mut self.tls {
                Some(tls) if !tls.wants_write() => return Ok(()),
                Some(tls) => tls.write_tls(&mut wire).map(drop),
                None if octets.is_empty() => return Ok(()),
                None => wire.write(octets).map(|written| octets = &octets[written..]),
            };
            match written {
                Ok(()) => {
                    left(until)?;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    wait(&self.socket, events, until)?;
                    let mut early = [0; 4096];
                    match self.read_early(&mut early) {
                        Ok(0) => {}
                        Ok(read) if heard(&early[..read]).is_break() => {
                            return Err(io::ErrorKind::ConnectionAborted.into());
                        }
                        Ok(_) => {}
                        // Whoever says no more may still listen.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => events.remove(PollFlags::POLLIN),
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for octets and reads what is there; at least one.
    pub fn read(&mut self, into: &mut [u8], until: Instant) -> io::Result<usize> {
        let mut wire = Wire { socket: &self.socket, until: Some(until) };
        let Some(tls) = &mut self.tls else { return nonzero(wire.read(into)?) };
        flush(tls, &mut wire)?;
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => receive(tls, &mut wire)?,
                read => return nonzero(read?),
            }
        }
    }

    /// Reads what has already arrived, without a wait; 0 where nothing has.
    pub fn read_early(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = Wire { socket: &self.socket, until: None };
        let nothing = |error: &io::Error| matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        let read = match &mut self.tls {
            None => wire.read(into),
            // One look only: a server that floods us with TLS tickets must not keep us looking.
            Some(tls) => match tls.reader().read(into) {
                Err(error) if nothing(&error) => receive(tls, &mut wire).and_then(|()| tls.reader().read(into)),
                read => read,
            },
        };
        match read {
            Err(error) if nothing(&error) => Ok(0),
            read => nonzero(read?),
        }
    }

    /// Whether TLS has octets decrypted that nobody has read.
    pub fn has_unread(&mut self) -> bool {
        use std::io::BufRead;
        self.tls.as_mut().is_some_and(|tls| tls.reader().fill_buf().is_ok_and(|unread| !unread.is_empty()))
    }

    /// Says a last word and ends TLS, without a wait: whether it gets there changes nothing any more.
    pub fn leave(mut self, octets: &[u8]) {
        let mut wire = Wire { socket: &self.socket, until: None };
        let Some(tls) = &mut self.tls else { return drop(wire.write_all(octets)) };
        if tls.writer().write_all(octets).is_ok() {
            tls.send_close_notify();
            drop(flush(tls, &mut wire));
        }
    }
}

fn flush(tls: &mut ClientConnection, wire: &mut Wire<'_>) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(wire)?;
    }
    Ok(())
}

/// Reads and decrypts what comes next.
fn receive(tls: &mut ClientConnection, wire: &mut Wire<'_>) -> io::Result<()> {
    nonzero(tls.read_tls(wire)?)?;
    tls.process_new_packets().map(drop).map_err(wrong)
}

fn wrong(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn nonzero(read: usize) -> io::Result<usize> {
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

/// Waits until `socket` is ready for `events`, at the latest until `until`. A socket shut down is ready.
pub(super) fn wait(socket: &Socket, events: PollFlags, until: Instant) -> io::Result<()> {
    poll_until(&mut [PollFd::new(socket.as_fd(), events)], until)
}

/// The same for several sockets: the places of those that are ready, ascending; at least one.
pub(super) fn wait_for_any(sockets: &[&Socket], events: PollFlags, until: Instant) -> io::Result<Vec<usize>> {
    let mut fds: Vec<PollFd> = sockets.iter().map(|socket| PollFd::new(socket.as_fd(), events)).collect();
    poll_until(&mut fds, until)?;
    let ready = |(i, fd): (usize, &PollFd)| fd.any().is_none_or(|any| any).then_some(i);
    Ok(fds.iter().enumerate().filter_map(ready).collect())
}

fn poll_until(fds: &mut [PollFd<'_>], until: Instant) -> io::Result<()> {
    loop {
        let left = left(until)?;
        // Rounded up, lest the last millisecond be spent spinning; a wait of more than 24 days is cut short.
        let left = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(fds, left) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time that is left, which is some: a server that always has one more octet ready runs out of it too.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The socket until an instant, as rustls wants to see it: reads and writes that wait, but no longer.
/// Without an instant they do not wait at all.
struct Wire<'a> {
    socket: &'a Socket,
    until: Option<Instant>,
}

impl Wire<'_> {
    /// Tries until it works, waiting for `events` where it would block.
    fn retry(&self, events: PollFlags, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.socket, events, self.until.ok_or(io::ErrorKind::TimedOut)?)?;
                }
                done => return done,
            }
        }
    }

    fn write_until(&self, write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        self.until.map(left).transpose()?;
        self.retry(PollFlags::POLLOUT, write)
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            // An answer is hardly ever there already, so it is waited for first: one system call less.
            #[cfg(target_os = "linux")]
            // Fails on a UNIX socket, which has no ACKs to hurry.
            let _ = self.socket.set_tcp_quickack(true);
            wait(self.socket, PollFlags::POLLIN, until)?;
        }
        self.retry(PollFlags::POLLIN, || (&mut &*self.socket).read(into))
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.write_until(|| (&mut &*self.socket).write(octets))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_until(|| (&mut &*self.socket).write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::thread;

    /// A stream over a UNIX socket, whose buffers are far smaller than [`MUCH`], and its other end.
    fn pair() -> (Stream, Socket) {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours, &Interrupt::default()), theirs)
    }

    const MUCH: usize = 4 * 1024 * 1024;

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[test]
    fn two_that_both_want_to_be_heard_first_do_not_wait_for_each_other() {
        let (mut stream, mut theirs) = pair();
        let other = thread::spawn(move || {
            theirs.write_all(&vec![b'r'; MUCH]).unwrap();
            let mut got = vec![0; MUCH];
            theirs.read_exact(&mut got).unwrap();
        });
        let mut heard = 0;
        let mut hear = |octets: &[u8]| {
            heard += octets.len();
            ControlFlow::Continue(())
        };
        stream.write_all(&vec![b'w'; MUCH], soon(), &mut hear).unwrap();
        other.join().unwrap();
        assert!(heard > 0);
    }

    #[test]
    fn whoever_says_no_more_may_still_listen() {
        let (mut stream, mut theirs) = pair();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let other = thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            got.len()
        });
        stream.write_all(&vec![b'w'; MUCH], soon(), &mut |_| ControlFlow::Continue(())).unwrap();
        drop(stream);
        assert_eq!(other.join().unwrap(), MUCH);
    }

    #[test]
    fn a_word_in_between_can_end_the_writing() {
        let (mut stream, mut theirs) = pair();
        theirs.write_all(b"552 too much\r\n").unwrap();
        let end = stream.write_all(&vec![b'w'; MUCH], soon(), &mut |_| ControlFlow::Break(()));
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_write_that_nobody_reads_ends() {
        let (mut stream, _theirs) = pair();
        let until = Instant::now() + Duration::from_millis(50);
        let end = stream.write_all(&vec![b'w'; MUCH], until, &mut |_| ControlFlow::Continue(()));
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
