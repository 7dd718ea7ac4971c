//! A connected socket as a channel, plain at first and TLS once that is agreed.
//!
//! The socket blocks, but never for longer than the idle limit; the handshake as a whole has to be done in that time.
//! RFC 5321 §4.5.3.2.7 asks for five minutes at least.

use super::{Channel, Identity};
use rustls::ServerConnection;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// A TCP or UNIX connection from a client.
pub struct Socket {
    wire: socket2::Socket,
    identity: Option<Identity>,
    tls: Option<Box<ServerConnection>>,
    idle: Duration,
}

impl Socket {
    /// Takes a connected socket. With an identity TLS is offered; `idle` bounds each wait.
    pub fn new(socket: impl Into<socket2::Socket>, identity: Option<Identity>, idle: Duration) -> io::Result<Self> {
        let socket = socket.into();
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(idle))?;
        socket.set_write_timeout(Some(idle))?;
        // A UNIX socket has no such delay.
        let _ = socket.set_tcp_nodelay(true);
        Ok(Self { wire: socket, identity, tls: None, idle })
    }

    /// Ends TLS properly, where it is on, and says that nothing more will come.
    pub fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // A client that has gone does not miss it.
            let _ = flush(tls, &mut &self.wire);
        }
        let _ = self.wire.shutdown(std::net::Shutdown::Write);
    }

    fn shake_hands(&mut self, tls: &mut ServerConnection) -> io::Result<()> {
        let until = Instant::now() + self.idle;
        while tls.is_handshaking() {
            flush(tls, &mut &self.wire)?;
            if !tls.is_handshaking() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.wire.set_read_timeout(Some(left))?;
            if receive(tls, &mut &self.wire)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        flush(tls, &mut &self.wire)?;
        self.wire.set_read_timeout(Some(self.idle))
    }
}

fn flush(tls: &mut ServerConnection, socket: &mut &socket2::Socket) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

/// Reads and decrypts what comes next; 0 where nothing will.
fn receive(tls: &mut ServerConnection, socket: &mut &socket2::Socket) -> io::Result<usize> {
    let read = tls.read_tls(socket)?;
    tls.process_new_packets().map_err(|error| {
        // The alert tells the client why; that it cannot be sent is not the news.
        let _ = flush(tls, socket);
        io::Error::new(io::ErrorKind::InvalidData, error)
    })?;
    Ok(read)
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut socket = &self.wire;
        let Some(tls) = &mut self.tls else { return socket.read(into) };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    flush(tls, &mut socket)?;
                    receive(tls, &mut socket)?;
                }
                // Without its good-bye, TLS cannot tell an end from a cut. SMTP can: it says QUIT, and ends letters.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut socket = &self.wire;
        let Some(tls) = &mut self.tls else { return socket.write(octets) };
        let written = tls.writer().write(octets)?;
        flush(tls, &mut socket)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel for Socket {
    fn can_start_tls(&self) -> bool {
        self.identity.is_some() && self.tls.is_none()
    }

    fn start_tls(&mut self) -> io::Result<String> {
        let identity = self.identity.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut tls = Box::new(ServerConnection::new(identity.0.clone()).map_err(io::Error::other)?);
        self.shake_hands(&mut tls)?;
        let version = tls.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
        let suite = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
        self.tls = Some(tls);
        Ok([version, suite].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Auth, Authority, End, Guest, Mail, Postmaster, Terms, serve};
    use super::*;
    use crate::envelope::Envelope;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// Nobody whose letters matter.
    struct Idle;

    impl Postmaster for Idle {
        fn terms(&self) -> Terms {
            let (name, domain) = ("mx.example".to_owned(), "x.org".to_owned());
            Terms { name, domain, size: None, recipients: 1, mistakes: 9, auth: Auth::Off }
        }
        fn accept(&mut self, _: &Guest, _: &Mail, _: &Envelope, _: &mut dyn Read) -> Result<String, Answer> {
            Ok(String::new())
        }
    }

    /// What a client hears who says this and then nothing more, and how the session ended.
    fn heard(said: &'static [&'static str], idle: Duration) -> (String, End) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let identity = Authority::throw_away().unwrap().sign(&["localhost".to_owned()]).unwrap();
        let session = thread::spawn(move || {
            let mut socket = Socket::new(server, Some(identity), idle).unwrap();
            let end = serve(&mut socket, &mut Idle);
            socket.close();
            end
        });
        let mut heard = String::new();
        for group in said {
            client.write_all(group.as_bytes()).unwrap();
            let mut octets = [0; 4096];
            let n = client.read(&mut octets).unwrap();
            heard.push_str(&String::from_utf8_lossy(&octets[..n]));
        }
        let mut rest = Vec::new();
        // What comes after an alert may be a reset.
        let _ = client.read_to_end(&mut rest);
        (heard + &String::from_utf8_lossy(&rest), session.join().unwrap())
    }

    #[test]
    fn a_silent_client_is_told_and_left() {
        let (heard, end) = heard(&[], Duration::from_millis(20));
        assert_eq!(heard, "220 mx.example ESMTP Pillarbox\r\n421 nothing was heard for too long, good-bye\r\n");
        assert!(matches!(end, End::Closed("idle")));
    }

    #[test]
    fn whoever_answers_the_handshake_in_plaintext_is_left() {
        let (heard, end) = heard(&["", "STARTTLS\r\n", "EHLO evil\r\n"], Duration::from_mins(1));
        assert!(heard.contains("220 go ahead\r\n") && !heard.contains("250"), "{heard}");
        assert!(matches!(end, End::Failed(_)));
    }
}
