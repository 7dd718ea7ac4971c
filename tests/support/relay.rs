//! A relay on loopback that plays a script and writes down what it hears.
//!
//! It is a good server in everything that its [`Script`] does not say: it offers the usual extensions, STARTTLS
//! with a certificate that its [`Relay::identity`] vouches for, and AUTH inside TLS for `alice` with `s3cret`, without
//! which it takes no letter.
//!
//! No wait is endless: a client that says nothing for [`PATIENCE`] is hung up on.

mod script;
mod session;

pub use script::{Act, CONTENT, DOT, GREETING, HANDSHAKE, INSIDE, Script, Segments, Tls};

use super::certificates::Identity;
use session::Server;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a client may be silent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A letter that the relay has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The MAIL command.
    pub mail: String,
    /// The RCPT commands that were accepted.
    pub recipients: Vec<String>,
    /// The content without its dots stuffed.
    pub content: Vec<u8>,
}

/// What one connection brought.
#[derive(Clone, Debug, Default)]
pub struct Dialogue {
    /// What came in clear.
    pub clear: Vec<u8>,
    /// What came inside TLS.
    pub encrypted: Vec<u8>,
    /// The commands, without their line ends; answers to a 334 are not among them.
    pub commands: Vec<String>,
    /// How often the client spoke after it had been answered: what it cost in round trips, with the TLS handshake
    /// and a QUIT.
    pub flights: usize,
    /// Mechanism, user and password of each AUTH.
    pub logins: Vec<(String, String, String)>,
    /// The letters taken.
    pub letters: Vec<Letter>,
    /// The server name that the client asked for.
    pub sni: Option<String>,
}

/// A relay that is up.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificates.
    pub identity: Identity,
    heard: Arc<Mutex<Vec<Dialogue>>>,
    live: Arc<Mutex<Vec<String>>>,
    is_closing: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Relay {
    /// Opens a relay on a free port.
    pub fn start(script: Script) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), script)
    }

    /// Opens a relay there.
    pub fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mut identity = Identity::new(script.shown);
        Arc::make_mut(&mut identity.config).send_tls13_tickets = script.tickets;
        let (heard, is_closing) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let live = Arc::default();
        let house = House {
            tls: Arc::clone(&identity.config),
            script: Mutex::new(script),
            heard: Arc::clone(&heard),
            live: Arc::clone(&live),
            is_closing: Arc::clone(&is_closing),
        };
        let listening = thread::spawn(move || {
            thread::scope(|threads| {
                for socket in listener.incoming() {
                    if house.is_closing.load(Ordering::SeqCst) {
                        return;
                    }
                    let (socket, house) = (socket.unwrap(), &house);
                    // Its number is its place in the order of arrival.
                    let place = {
                        let mut heard = house.heard.lock().unwrap();
                        heard.push(Dialogue::default());
                        heard.len() - 1
                    };
                    threads.spawn(move || {
                        let dialogue = Server::new(house, socket).serve();
                        house.heard.lock().unwrap()[place] = dialogue;
                    });
                }
            });
        });
        Self { address, identity, heard, live, is_closing, listening: Some(listening) }
    }

    /// Waits until so many connections have been made.
    pub fn wait_for(&self, connections: usize) {
        let until = Instant::now() + PATIENCE;
        while self.heard.lock().unwrap().len() < connections {
            assert!(Instant::now() < until, "nobody has called");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a command that begins so has come.
    pub fn wait_for_command(&self, begin: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.has_heard(begin) {
            assert!(Instant::now() < until, "nobody has said {begin}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether a command that begins so has come.
    pub fn has_heard(&self, begin: &str) -> bool {
        self.live.lock().unwrap().iter().any(|command| command.starts_with(begin))
    }

    /// How many connections have been made.
    pub fn connections(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Closes the house once every client has gone, and tells what was heard.
    pub fn finish(mut self) -> Vec<Dialogue> {
        self.close();
        std::mem::take(&mut self.heard.lock().unwrap())
    }

    fn close(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        self.is_closing.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        listening.join().expect("the scripted relay");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.close();
        }
    }
}

struct House {
    tls: Arc<rustls::ServerConfig>,
    /// Shared by all connections, so that a rule for once is used up once.
    script: Mutex<Script>,
    heard: Arc<Mutex<Vec<Dialogue>>>,
    /// The commands of all connections, as they come.
    live: Arc<Mutex<Vec<String>>>,
    is_closing: Arc<AtomicBool>,
}
