//! Distance without a narrow pipe: every octet arrives half a round trip late, any number may be on the way.
//!
//! Two threads for each direction, one that stamps what it reads and one that waits and writes. What the kernel does
//! between us and the client (delayed ACKs, Nagle's algorithm) happens at no distance at all and so is not seen here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What is on the way: octets and when they arrive. None at all is the end of the stream.
type Flying = (Instant, Vec<u8>);

/// The server's end of a line to a client that is `round_trip` away. Returns when the client's connection would have
/// been accepted: a round trip and a half after it was begun, which is half a round trip after the client sees it.
pub fn far_end(client: TcpStream, round_trip: Duration) -> io::Result<File> {
    let begun = Instant::now();
    let (near, far) = UnixStream::pair()?;
    let (to_server, from_client) = channel();
    let (to_client, from_server) = channel();
    let (mut reader, mut near_reader) = (client.try_clone()?, near.try_clone()?);
    spawn(move || depart(&mut reader, &to_server, round_trip / 2))?;
    spawn(move || depart(&mut near_reader, &to_client, round_trip / 2))?;
    spawn(move || {
        arrive(&mut &near, &from_client);
        let _ = near.shutdown(Shutdown::Write);
    })?;
    spawn(move || {
        arrive(&mut &client, &from_server);
        let _ = client.shutdown(Shutdown::Write);
    })?;
    thread::sleep((begun + round_trip * 3 / 2).saturating_duration_since(Instant::now()));
    Ok(File::from(OwnedFd::from(far)))
}

fn spawn(task: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(64 << 10).spawn(task).map(drop)
}

fn depart(from: &mut impl Read, line: &Sender<Flying>, one_way: Duration) {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if line.send((Instant::now() + one_way, buffer[..length].to_vec())).is_err() || length == 0 {
            return;
        }
    }
}

fn arrive(to: &mut impl Write, line: &Receiver<Flying>) {
    while let Ok((due, octets)) = line.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if octets.is_empty() || to.write_all(&octets).is_err() {
            return;
        }
    }
}
