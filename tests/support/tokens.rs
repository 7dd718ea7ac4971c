//! A token endpoint on loopback that plays a script and writes down what it is asked.
//!
//! It takes one form a connection. Each one gets the next of its answers; the last is given again and again.

use super::certificates::{Identity, Shown};
use super::relay::PATIENCE;
use rustls::{ServerConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What the endpoint does with a form.
#[derive(Clone, Debug)]
pub enum Does {
    /// Says exactly this and hangs up.
    Says(String),
    /// Says this over and over, until the client has gone.
    Floods(&'static str),
    /// Says nothing until the client has gone.
    Stalls,
}

/// Grants that token for so many seconds, with whatever else stands in the object.
pub fn grant(token: &str, life: u32, more: &str) -> Does {
    json(200, &format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{life}{more}}}"))
}

/// An object, with that status.
pub fn json(status: u16, body: &str) -> Does {
    let length = body.len();
    Does::Says(format!(
        "HTTP/1.1 {status} so\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

/// An endpoint that is up.
pub struct Tokens {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificates, where it speaks TLS.
    pub identity: Option<Identity>,
    forms: Arc<Mutex<Vec<String>>>,
    is_closing: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Tokens {
    /// One that speaks plain HTTP.
    pub fn start(script: Vec<Does>) -> Self {
        Self::open(script, None)
    }

    /// One that speaks HTTPS and shows that certificate.
    pub fn with_tls(script: Vec<Does>, shown: Shown) -> Self {
        Self::open(script, Some(Identity::new(shown)))
    }

    fn open(script: Vec<Does>, identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (forms, is_closing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (heard, closing) = (Arc::clone(&forms), Arc::clone(&is_closing));
        let config = identity.as_ref().map(|identity| Arc::clone(&identity.config));
        let listening = thread::spawn(move || {
            for socket in listener.incoming() {
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                let socket = socket.unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.set_write_timeout(Some(PATIENCE)).unwrap();
                let turn = |form: String| {
                    let mut forms = heard.lock().unwrap();
                    forms.push(form);
                    script[(forms.len() - 1).min(script.len() - 1)].clone()
                };
                // A client that goes away, or does not like our certificate, is the test's affair.
                let _ = match &config {
                    None => serve(socket, turn),
                    Some(config) => {
                        let tls = ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(StreamOwned::new(tls, socket), turn)
                    }
                };
            }
        });
        Self { address, identity, forms, is_closing, listening: Some(listening) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/token", self.address)
    }

    /// The forms that have come, whole.
    pub fn forms(&self) -> Vec<String> {
        self.forms.lock().unwrap().clone()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        let Some(listening) = self.listening.take().filter(|_| !thread::panicking()) else { return };
        self.is_closing.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        listening.join().expect("the token endpoint");
    }
}

fn serve(mut stream: impl Read + Write, turn: impl FnOnce(String) -> Does) -> io::Result<()> {
    let mut asked = Vec::new();
    let form = loop {
        let mut octets = [0; 4096];
        let read = stream.read(&mut octets)?;
        if read == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&octets[..read]);
        let text = String::from_utf8_lossy(&asked);
        let Some((head, form)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("POST /token HTTP/1.1\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        if form.len() == length.parse::<usize>().unwrap() {
            break form.to_owned();
        }
    };
    match turn(form) {
        Does::Says(text) => stream.write_all(text.as_bytes())?,
        Does::Floods(text) => loop {
            stream.write_all(text.as_bytes())?;
        },
        Does::Stalls => while stream.read(&mut [0; 64])? > 0 {},
    }
    stream.flush()
}
