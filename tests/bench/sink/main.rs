//! A fast SMTP relay on loopback that keeps nothing, counts everything, and can be far away.
//!
//! `sink [--rtt MS] [--implicit] [--no-chunking] [--tickets N] CERTIFICATE KEY` listens on a free port of 127.0.0.1
//! and prints `{"port":N}`. It demands TLS and AUTH (PLAIN or LOGIN, [`USER`] and [`PASSWORD`]) before MAIL, takes
//! any sender and recipient, and checks each letter against the length and digest that its `X-Body` field promises.
//! A line `take LETTERS SECONDS` on standard input waits until so many letters have been accepted or the time is up,
//! answers with one line of JSON ([`tally`]), and starts counting anew. End of input ends the program.
//!
//! It refuses nothing that a correct client sends and is no judge of incorrect ones: a line that it does not know is
//! answered 500. Faults of one connection end that connection.

mod delay;
mod letter;
mod session;
mod tally;
mod wire;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tally::Tally;

/// The only user.
pub const USER: &str = "bench";
/// The user's password.
pub const PASSWORD: &str = "secret";

/// What every session of this sink is like.
pub struct Manner {
    tls: Arc<ServerConfig>,
    implicit: bool,
    chunking: bool,
    round_trip: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let manner = Arc::new(manner(std::env::args().skip(1))?);
    let tally = Arc::new(Tally::default());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{{\"port\":{}}}", listener.local_addr()?.port());
    let counted = Arc::clone(&tally);
    thread::spawn(move || serve(&listener, &manner, &counted));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("take") {
            return Err(format!("no such order: {line}").into());
        }
        let letters = words.next().map_or(Ok(0), str::parse)?;
        let seconds = words.next().map_or(Ok(0.0), str::parse)?;
        println!("{}", tally.take(letters, Duration::from_secs_f64(seconds)));
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn manner(mut words: impl Iterator<Item = String>) -> Result<Manner, Box<dyn Error>> {
    let (mut implicit, mut chunking, mut round_trip, mut tickets) = (false, true, Duration::ZERO, 2);
    let mut files = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--implicit" => implicit = true,
            "--no-chunking" => chunking = false,
            "--rtt" => round_trip = Duration::from_secs_f64(words.next().unwrap_or_default().parse::<f64>()? / 1000.0),
            "--tickets" => tickets = words.next().unwrap_or_default().parse()?,
            _ => files.push(word),
        }
    }
    let [certificate, key] = files.as_slice() else { return Err("a certificate and a key, please".into()) };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.send_tls13_tickets = tickets;
    Ok(Manner { tls: Arc::new(tls), implicit, chunking, round_trip })
}

fn serve(listener: &TcpListener, manner: &Arc<Manner>, tally: &Arc<Tally>) {
    for client in listener.incoming().flatten() {
        // Some peers come with a thousand connections at once: what cannot be served is dropped, and counted by them.
        if client.set_nodelay(true).is_err() {
            continue;
        }
        tally.connected();
        let (manner, counted) = (Arc::clone(manner), Arc::clone(tally));
        let session = move || {
            let socket = if manner.round_trip.is_zero() {
                Ok(File::from(OwnedFd::from(client)))
            } else {
                delay::far_end(client, manner.round_trip)
            };
            if let Ok(socket) = socket {
                // A client that hangs up is the ordinary end.
                let _ = session::serve(socket, &manner, &counted);
            }
            counted.disconnected();
        };
        if thread::Builder::new().stack_size(256 << 10).spawn(session).is_err() {
            tally.disconnected();
        }
    }
}
