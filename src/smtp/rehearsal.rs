//! A scripted server for the tests: it says and hears what the test lays down, line by line, in clear or inside
//! TLS, and lies where it is told to.

use super::auth::Credentials;
use super::connect::connect;
use super::interrupt::Interrupt;
use super::session::{Security, Session, Terms, client_id};
use super::tls::Trust;
use super::transaction::Protocol;
use super::{Limits, Transcript};
use crate::config::{Account, Auth, Host, Tls};
use crate::outcome::Fault;
use crate::secret::Secret;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The name that every certificate of the rehearsal is for.
pub(super) const NAME: &str = "mail.example.org";

/// What the server is made of, from the script's point of view.
pub(super) struct Stage {
    wire: Wire,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
    Moving,
}

impl Stage {
    pub(super) fn say(&mut self, line: &str) {
        // The other end may have left in anger.
        let _ = self.io().write_all(format!("{line}\r\n").as_bytes()).and_then(|()| self.io().flush());
    }

    /// The next line, without its end; empty when the client has gone.
    pub(super) fn hear(&mut self) -> String {
        let mut line = Vec::new();
        let mut octet = [0];
        while matches!(self.io().read(&mut octet), Ok(1)) && octet != *b"\n" {
            line.push(octet[0]);
        }
        String::from_utf8(line).unwrap().trim_end_matches('\r').to_owned()
    }

    /// Greets and answers EHLO with those keywords.
    pub(super) fn greet(&mut self, keywords: &[&str]) {
        self.say("220 rehearsal");
        self.ehlo(keywords);
    }

    pub(super) fn ehlo(&mut self, keywords: &[&str]) {
        assert!(self.hear().starts_with("EHLO "));
        self.say("250-rehearsal");
        for keyword in keywords {
            self.say(&format!("250-{keyword}"));
        }
        self.say("250 DONE");
    }

    /// Turns to TLS, as far as the client goes along.
    pub(super) fn start_tls(&mut self, config: &Arc<ServerConfig>) {
        let Wire::Plain(socket) = std::mem::replace(&mut self.wire, Wire::Moving) else { panic!("TLS twice") };
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), socket);
        while tls.conn.is_handshaking() && tls.conn.complete_io(&mut tls.sock).is_ok() {}
        self.wire = Wire::Tls(Box::new(tls));
    }

    pub(super) fn tls(&self) -> &ServerConnection {
        match &self.wire {
            Wire::Tls(tls) => &tls.conn,
            Wire::Plain(_) | Wire::Moving => panic!("no TLS"),
        }
    }

    fn io(&mut self) -> &mut dyn ReadWrite {
        match &mut self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(tls) => tls.as_mut(),
            Wire::Moving => panic!("no wire"),
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// What `-v` would have shown.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<String>>>);

impl Transcript for Notes {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

/// How a rehearsal ended.
pub(super) struct Ended {
    pub(super) session: Result<Session, Fault>,
    pub(super) notes: Vec<String>,
}

impl Ended {
    /// The fault in words.
    pub(super) fn fault(&self) -> String {
        self.session.as_ref().err().map(ToString::to_string).expect("a fault")
    }
}

/// Opens a session as `account` says with a server that plays `script`. A script that panics fails the test.
pub(super) fn rehearse(account: &Account, secret: &str, script: impl FnOnce(&mut Stage) + Send + 'static) -> Ended {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        // No test waits for this; it only keeps one that has gone wrong from waiting for ever.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        script(&mut Stage { wire: Wire::Plain(socket) });
    });

    let host = Host::Tcp { name: "127.0.0.1".to_owned(), port };
    let peer = || Trust::of(account).unwrap().peer(account, &host).unwrap();
    let security = match account.tls {
        Tls::Off => Security::Off,
        Tls::StartTls => Security::StartTls(peer()),
        Tls::Opportunistic => Security::Opportunistic(peer()),
        Tls::Implicit => Security::Implicit(peer()),
    };
    let credentials = account.user.as_deref().map(|user| {
        let secret = Secret::new(secret.as_bytes().to_vec());
        (account.auth, Credentials { user, secret, relay: Some((NAME, 587)) })
    });
    let limits = Limits { step: Duration::from_secs(20), total: Instant::now() + Duration::from_secs(40) };
    let stream = connect(account, &host, 0, &limits, &Interrupt::default()).unwrap();
    let notes = Notes::default();
    let terms = Terms {
        client: client_id("client.example.org").unwrap(),
        protocol: Protocol::Smtp,
        security,
        auth: credentials,
    };
    let session = Session::open(stream, terms, limits, Some(Arc::new(notes.clone())));
    let session = session.inspect(|session| assert!(session.is_usable()));
    if session.is_err() {
        server.join().unwrap();
    }
    let notes = notes.0.lock().unwrap().clone();
    Ended { session, notes }
}

/// An account that talks to the rehearsal in clear.
pub(super) fn account(auth: Auth) -> Account {
    Account {
        auth,
        tls: Tls::Off,
        user: Some("user".to_owned()),
        tls_host: Some(NAME.to_owned()),
        ..Account::new("rehearsal")
    }
}

/// An authority that signs what the tests need.
pub(super) struct Authority {
    pub(super) pem: String,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("Rehearsal CA")
    }

    pub(super) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// A certificate, its key, and both in PEM.
    pub(super) fn certify(&self, parameters: &CertificateParams, key: &KeyPair) -> Certified {
        let certificate = parameters.signed_by(key, &self.issuer).unwrap();
        Certified { der: certificate.der().clone(), pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// One for the rehearsal's name.
    pub(super) fn server(&self) -> Certified {
        let parameters = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        self.certify(&parameters, &KeyPair::generate().unwrap())
    }
}

pub(super) struct Certified {
    pub(super) der: CertificateDer<'static>,
    pub(super) pem: String,
    pub(super) key_pem: String,
}

impl Certified {
    /// The pin of the certificate.
    pub(super) fn pin(&self) -> [u8; 32] {
        super::certificate::sha256(&self.der)
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        use rustls::pki_types::pem::PemObject;
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap()
    }

    /// A server that shows it and asks for none.
    pub(super) fn config(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth();
        Arc::new(config.with_single_cert(vec![self.der.clone()], self.key()).unwrap())
    }
}
