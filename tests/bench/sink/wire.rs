//! The sink's end of a connection: octets in, octets out, TLS or not, and how often the client waited.
//!
//! Answers are gathered and leave in one write, just before the next read. A *flight* is counted when the client
//! answers something of ours a round trip or more after it left; at no distance, when nothing from the client had
//! arrived by the time everything of ours had left. What follows the greeting is not counted.

use crate::Manner;
use crate::tally::Tally;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::ServerConnection;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection, from the server's side.
pub struct Wire<'a> {
    socket: File,
    tls: Option<ServerConnection>,
    raw: Vec<u8>,
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
    left: Option<Instant>,
    greeting: bool,
    round_trip: Duration,
    tally: &'a Tally,
}

impl<'a> Wire<'a> {
    /// Over an open socket, in the clear.
    pub fn new(socket: File, round_trip: Duration, tally: &'a Tally) -> Self {
        let raw = vec![0; 128 << 10];
        let (input, output) = (Vec::new(), Vec::new());
        Self { socket, tls: None, raw, input, taken: 0, output, left: None, greeting: true, round_trip, tally }
    }

    /// TLS from here on.
    pub fn secure(&mut self, manner: &Manner) -> io::Result<()> {
        self.flush()?;
        // Whatever came in the clear after STARTTLS is nobody's.
        self.taken = self.input.len();
        self.tls = Some(ServerConnection::new(Arc::clone(&manner.tls)).map_err(io::Error::other)?);
        Ok(())
    }

    /// Whether TLS is on.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// What has arrived and was not consumed.
    pub fn input(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// Takes octets off the front of the input.
    pub fn consume(&mut self, octets: usize) {
        self.taken += octets;
    }

    /// Says something, once the input has been worked off.
    pub fn say(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
    }

    /// Waits for more input. The end of the stream is an error.
    pub fn fill(&mut self) -> io::Result<()> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let before = self.input.len();
        while self.input.len() == before {
            self.flush()?;
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let idle = self.left.is_some() && self.round_trip.is_zero() && !self.readable();
        let length = self.socket.read(&mut self.raw)?;
        if let Some(left) = self.left.take()
            && (idle || !self.round_trip.is_zero() && left.elapsed() >= self.round_trip.mul_f64(0.9))
        {
            self.tally.flight();
        }
        let mut read = &self.raw[..length];
        if read.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(tls) = &mut self.tls else {
            self.input.extend_from_slice(read);
            return Ok(());
        };
        while !read.is_empty() {
            tls.read_tls(&mut read)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let at = self.input.len();
            self.input.resize(at + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut self.input[at..])?;
        }
        Ok(())
    }

    /// Says what was still to be said, and no more.
    pub fn hang_up(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.flush()?;
        }
        // shutdown(2) asks not what kind of socket it is.
        TcpStream::from(OwnedFd::from(self.socket.try_clone()?)).shutdown(Shutdown::Write)
    }

    fn readable(&self) -> bool {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut socket, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Everything said so far leaves, in one write.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut sealed = Vec::new();
        let ready = self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        let is_greeting = self.greeting && ready && !self.output.is_empty();
        if let Some(tls) = &mut self.tls {
            if ready {
                tls.writer().write_all(&self.output)?;
                self.output.clear();
            }
            while tls.wants_write() {
                tls.write_tls(&mut sealed)?;
            }
        } else {
            std::mem::swap(&mut sealed, &mut self.output);
        }
        if !sealed.is_empty() {
            self.socket.write_all(&sealed)?;
            self.left = (!is_greeting).then(Instant::now);
            self.greeting &= !is_greeting;
        }
        Ok(())
    }
}
