//! The embedded relay for trying things out: it takes every letter, shows it and keeps it, and sends nothing on.
//!
//! To a client it is a real relay: STARTTLS with a certificate of a throw-away authority, AUTH PLAIN and LOGIN inside
//! TLS and not without, every extension of [`server`](crate::smtp::server). Letters go to a [`Maildir`]; whoever
//! started the relay is told of each before the client hears its 250. [`trial`] runs a command with `sendmail` set up
//! for it. It need not survive a power cut, so it makes nothing last.

mod maildir;
pub mod trial;

pub use maildir::Maildir;

use crate::envelope::Envelope;
use crate::outcome::words;
use crate::smtp::server::{
    Answer, Auth, Authority, Guest, Identity, Mail, NoIdentity, Postmaster, Socket, Terms, serve,
};
use maildir::Delivery;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How long a client may be silent (RFC 5321 §4.5.3.2.7).
const IDLE: Duration = Duration::from_mins(5);

/// The largest letter.
const SIZE: u64 = 1 << 30;

/// Octets of a letter that are shown.
const BEGINNING: usize = 16 * 1024;

/// What a relay is started with.
pub struct Setup {
    /// Where it listens; port 0: any that is free.
    pub listen: SocketAddr,
    /// Who may send.
    pub user: String,
    /// And with which password.
    pub password: String,
    /// Where letters are kept.
    pub maildir: Maildir,
    /// Is told of each letter.
    pub viewer: Viewer,
}

/// Sees letters as they come; from several threads, where there are several clients.
pub type Viewer = Box<dyn Fn(&Arrival) + Send + Sync>;

/// A letter that has come.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Counted from 1.
    pub number: u64,
    /// Who brought it.
    pub guest: Guest,
    /// The parameters of MAIL.
    pub mail: Mail,
    /// From whom, to whom.
    pub envelope: Envelope,
    /// Its octets.
    pub size: u64,
    /// Where it is kept.
    pub path: PathBuf,
    /// How it begins; the whole of a small one. A stranger's text.
    pub beginning: Vec<u8>,
}

/// Why there is no relay.
#[derive(Debug)]
pub enum NoRelay {
    /// The address cannot be listened at.
    Listen(SocketAddr, io::Error),
    /// There is no certificate for it.
    Identity(NoIdentity),
    /// The system has no thread for it.
    Thread(io::Error),
}

impl fmt::Display for NoRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "cannot listen at {address}: {}", words(error)),
            Self::Identity(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {}", words(error)),
        }
    }
}

impl std::error::Error for NoRelay {}

/// A relay that runs until it is dropped. Sessions that are open then go on until their clients leave.
pub struct Relay {
    address: SocketAddr,
    ca: String,
    closing: Arc<AtomicBool>,
}

impl Relay {
    /// Starts a relay in threads of its own.
    pub fn start(setup: Setup) -> Result<Self, NoRelay> {
        let at = setup.listen;
        let listen = || TcpListener::bind(at).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listen().map_err(|error| NoRelay::Listen(at, error))?;
        let authority = Authority::throw_away().map_err(NoRelay::Identity)?;
        let names = ["localhost", "127.0.0.1", "::1", &address.ip().to_string()].map(str::to_owned);
        let house =
            House { identity: authority.sign(&names).map_err(NoRelay::Identity)?, setup, letters: AtomicU64::new(0) };
        let closing = Arc::new(AtomicBool::new(false));
        let door = Arc::clone(&closing);
        let receive = move || keep_open(&listener, &Arc::new(house), &door);
        thread::Builder::new().name("sandbox".into()).spawn(receive).map_err(NoRelay::Thread)?;
        Ok(Self { address, ca: authority.pem(), closing })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority, as PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The thread waits for a client: let it see one.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// What all sessions share.
struct House {
    setup: Setup,
    identity: Identity,
    letters: AtomicU64,
}

/// Lets clients in until the door is closing.
fn keep_open(listener: &TcpListener, house: &Arc<House>, closing: &AtomicBool) {
    for stream in listener.incoming() {
        if closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of files, most likely: some will be closed soon.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let house = Arc::clone(house);
        // Without a thread for it the client finds the door closed, and comes again.
        let _ = thread::Builder::new().name("session".into()).spawn(move || {
            if let Ok(mut socket) = Socket::new(stream, Some(house.identity.clone()), IDLE) {
                // However it ended, the letters that were taken are kept and shown.
                let _ = serve(&mut socket, &mut Clerk { house: &house });
                socket.close();
            }
        });
    }
}

/// One session's postmaster.
struct Clerk<'h> {
    house: &'h House,
}

impl Postmaster for Clerk<'_> {
    fn terms(&self) -> Terms {
        Terms {
            name: "localhost".to_owned(),
            domain: "localhost".to_owned(),
            size: Some(SIZE),
            recipients: 1000,
            mistakes: 20,
            auth: Auth::InsideTls,
        }
    }

    fn authenticate(&mut self, user: &str, password: &[u8]) -> Result<(), Answer> {
        let setup = &self.house.setup;
        let right = user == setup.user && password == setup.password.as_bytes();
        if right { Ok(()) } else { Err(Answer::bad_credentials()) }
    }

    fn accept(
        &mut self,
        guest: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<String, Answer> {
        let setup = &self.house.setup;
        let kept = setup.maildir.begin(envelope).and_then(|delivery| keep(delivery, content));
        let (path, size, beginning) =
            kept.map_err(|error| Answer::new(451, (3, 0), format!("the letter cannot be kept: {error}")))?;
        let number = self.house.letters.fetch_add(1, Ordering::SeqCst) + 1;
        let (guest, mail, envelope) = (guest.clone(), mail.clone(), envelope.clone());
        (setup.viewer)(&Arrival { number, guest, mail, envelope, size, path, beginning });
        Ok(format!("Ok: kept as letter {number}"))
    }
}

/// Reads a letter to its end and keeps it. Gives where, its size and its beginning.
fn keep(mut delivery: Delivery, content: &mut dyn Read) -> io::Result<(PathBuf, u64, Vec<u8>)> {
    let (mut size, mut beginning) = (0, Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok((delivery.finish()?, size, beginning)),
            n => {
                size += n as u64;
                let room = BEGINNING - beginning.len();
                beginning.extend_from_slice(&buffer[..n.min(room)]);
                delivery.write_all(&buffer[..n])?;
            }
        }
    }
}
