//! Whom we trust: the certificate must be vouched for and carry the relay's name, or be pinned.
//!
//! TLS 1.2 and 1.3 by rustls on ring; no early data, no resumption (a session is longer than our memory). Trust comes
//! from one of three places: the account's pins (SHA-256 of the certificate or of its key; then nothing else counts),
//! its `ca_file`, or the platform's roots. A certificate that itself stands in `ca_file` is accepted as that server's
//! own, its dates and name checked. What `crl_file` calls revoked is refused, and so is everything once a list in it is
//! out of date; a certificate that it does not speak of passes. Files that cannot be read are an error: without them
//! there is no trust. Every refusal is a sentence that says what is wrong with the certificate and what would mend it.
//! Our own certificate is shown to a server that asks for one, where we have it.
//!
//! Other people's mail servers are another matter: of them anybody is taken who speaks
//! TLS at all, unless the DNS says for sure what the server shows ([`Trust::dane`]).
//! RFC 8446, RFC 5246; RFC 5280 (paths, revocation lists), RFC 9525 (names).

mod dane;
mod files;
mod verify;
mod words;

pub use dane::Tlsa;
pub(super) use words::is_about_us;
pub use words::{sentence, sentence_of};

use super::certificate::Certificate;
use crate::config::{Account, Host, Tls, TlsVersion};
use dane::Dane;
use files::{certificates, from_ca_file, from_crl_file, own_certificate, platform_roots, private_key};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Error, SupportedProtocolVersion, version};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use verify::{Anchor, Verifier};

/// Why there is nobody to trust.
#[derive(Debug)]
pub enum NoTrust {
    /// A file that the account names cannot be read, or holds nothing that can be used.
    File {
        /// The setting that names it.
        key: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's or the reader's word.
        why: String,
    },
    /// The platform has no roots.
    Platform {
        /// The first thing that went wrong, where anything did.
        why: Option<String>,
    },
    /// TLS is wanted to a host that has no name a certificate could carry.
    Nameless(String),
    /// The TLS library refused our own settings.
    Library(Error),
}

impl fmt::Display for NoTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { key, path, why } => write!(f, "{key} {} cannot be used: {why}", path.display()),
            Self::Platform { why: None } => {
                f.write_str("this machine has no CA certificates; install them or set ca_file")
            }
            Self::Platform { why: Some(why) } => write!(f, "the CA certificates of this machine cannot be read: {why}"),
            Self::Nameless(host) => write!(f, "{host} is no name that a certificate can carry; set tls_host"),
            Self::Library(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

/// Whom an account trusts.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// Whom a TLS session must be with.
pub struct Peer {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl Trust {
    /// Reads the account's `ca_file` or the platform's roots, where there are no pins; its `crl_file`; and its own
    /// certificate.
    pub fn of(account: &Account) -> Result<Self, NoTrust> {
        let anchor = match &account.ca_file {
            _ if account.tls == Tls::Opportunistic => Anchor::Anybody,
            _ if !account.pins.is_empty() => Anchor::Pins(account.pins.clone()),
            Some(path) => from_ca_file(path)?,
            None => Anchor::Roots(Arc::new(platform_roots()?)),
        };
        Self::by(account, anchor)
    }

    /// Whoever shows what these records of the DNS say; anybody who speaks TLS, where there are none that we can use.
    /// `names` are those that the server may have, its own first.
    pub fn dane<'a>(
        account: &Account,
        records: Vec<Tlsa>,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Self, NoTrust> {
        if records.is_empty() {
            return Self::by(account, Anchor::Anybody);
        }
        let names = names.filter_map(|name| ServerName::try_from(name.to_owned()).ok()).collect();
        Self::by(account, Anchor::Dane(Dane { records, names }))
    }

    fn by(account: &Account, anchor: Anchor) -> Result<Self, NoTrust> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let revoked = match (&account.crl_file, anchor.roots()) {
            (Some(path), Some(roots)) => Some(from_crl_file(path, roots, &provider)?),
            (None, _) | (_, None) => None,
        };
        let verifier = Arc::new(Verifier { anchor, revoked, provider: Arc::clone(&provider) });
        let versions: &[&SupportedProtocolVersion] = match account.tls_min {
            TlsVersion::Tls12 => &[&version::TLS12, &version::TLS13],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(NoTrust::Library)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &account.cert_file {
            None => config.with_no_client_auth(),
            Some(path) => {
                let key_file = account.key_file.as_ref().map_or(("cert_file", path), |path| ("key_file", path));
                let (chain, key) = (certificates("cert_file", path)?, private_key(key_file)?);
                config.with_client_auth_cert(chain, key).map_err(|error| own_certificate(error, key_file))?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The peer to expect at `host`: its certificate must carry the account's `tls_host` or else the host's own
    /// name, which is also what SNI asks for.
    pub fn peer(&self, account: &Account, host: &Host) -> Result<Peer, NoTrust> {
        let name = match (&account.tls_host, host) {
            (Some(name), _) | (None, Host::Tcp { name, .. }) => name.trim_end_matches('.').to_owned(),
            (None, Host::Unix(path)) => return Err(NoTrust::Nameless(path.display().to_string())),
            (None, Host::Srv(domain)) => domain.clone(),
            (None, Host::Mx(_)) => return Err(NoTrust::Nameless("mx".to_owned())),
        };
        let ascii = if name.is_ascii() { Some(name.clone()) } else { idna::domain_to_ascii(&name).ok() };
        let known = ascii.and_then(|ascii| ServerName::try_from(ascii).ok()).ok_or(NoTrust::Nameless(name))?;
        Ok(Peer { config: Arc::clone(&self.0), name: known })
    }
}

/// What protects a session, and who is at its other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// `TLSv1.3`
    pub version: String,
    /// The cipher suite in IANA's spelling.
    pub cipher: String,
    /// What the server showed, its own certificate first. Those that cannot be read are left out.
    pub chain: Vec<Certificate>,
}

impl Encryption {
    /// Of a session whose handshake is done.
    pub(super) fn of(tls: &ClientConnection) -> Option<Self> {
        Some(Self {
            version: format!("{:?}", tls.protocol_version()?).replace('_', "."),
            cipher: format!("{:?}", tls.negotiated_cipher_suite()?.suite()).replace("TLS13_", "TLS_"),
            chain: tls.peer_certificates()?.iter().filter_map(|der| Certificate::read(der)).collect(),
        })
    }
}

/// Two lines for a transcript: how, and with whom.
impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)?;
        let Some(leaf) = self.chain.first() else { return Ok(()) };
        let names = if leaf.names.is_empty() { &leaf.subject } else { &leaf.names.join(", ") };
        write!(
            f,
            "\ncertificate for {names}, issued by {}, valid until {}, {}",
            leaf.issuer,
            leaf.not_after,
            leaf.pin()
        )
    }
}

#[cfg(test)]
mod tests;
