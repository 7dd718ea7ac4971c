//! Whom we trust: the certificate must be vouched for and carry the relay's name, or be pinned.
//!
//! TLS 1.2 and 1.3 by rustls on ring; no early data, no resumption (a session is longer than our memory). Trust
//! comes from one of three places: the account's pins (SHA-256 of the certificate or of its key; then nothing
//! else counts), its `ca_file`, or the platform's roots. A certificate that itself stands in `ca_file` is
//! accepted as that server's own, its dates and name checked. Roots that cannot be read are an error: without
//! them there is no trust. Every refusal is a sentence that says what is wrong with the certificate and what
//! would mend it. RFC 8446, RFC 5246; RFC 5280 (paths), RFC 9525 (names).

use crate::config::{Account, Host};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, OtherError, RootCertStore,
    SignatureScheme,
};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the platforms keep all their roots in one file. One file is read in a millisecond less than the
/// directory of some hundred that stands beside it.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",     // Debian, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",       // Fedora
    "/etc/ssl/ca-bundle.pem",                 // SUSE
    "/etc/ssl/cert.pem",                      // OpenBSD, macOS
    "/usr/local/share/certs/ca-root-nss.crt", // FreeBSD
];

/// Why there is nobody to trust.
#[derive(Debug)]
pub enum NoTrust {
    /// The account's `ca_file` cannot be read or holds no usable certificate.
    CaFile {
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
            Self::CaFile { path, why } => write!(f, "ca_file {} cannot be used: {why}", path.display()),
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
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Trust {
    /// Reads the account's `ca_file` or the platform's roots, where there are no pins.
    pub fn of(account: &Account) -> Result<Self, NoTrust> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let anchor = match &account.ca_file {
            _ if !account.pins.is_empty() => Anchor::Pins(account.pins.clone()),
            Some(path) => from_ca_file(path)?,
            None => Anchor::Roots(platform_roots()?),
        };
        let verifier = Arc::new(Verifier { anchor, provider: Arc::clone(&provider) });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(NoTrust::Library)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The peer to expect at `host`: its certificate must carry the account's `tls_host` or else the host's own
    /// name, which is also what SNI asks for.
    pub fn peer(&self, account: &Account, host: &Host) -> Result<Peer, NoTrust> {
        let name = match (&account.tls_host, host) {
            (Some(name), _) | (None, Host::Tcp { name, .. }) => name.trim_end_matches('.').to_owned(),
            (None, Host::Unix(path)) => return Err(NoTrust::Nameless(path.display().to_string())),
        };
        let ascii = if name.is_ascii() { Some(name.clone()) } else { idna::domain_to_ascii(&name).ok() };
        let known = ascii.and_then(|ascii| ServerName::try_from(ascii).ok()).ok_or(NoTrust::Nameless(name))?;
        Ok(Peer { config: Arc::clone(&self.0), name: known })
    }
}

/// What a failed handshake or a broken record means, with the relay as the subject of the sentence.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => refusal.to_string(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "answered with something that is not TLS (is it the right port, and the right tls setting?)".to_owned()
        }
        Error::AlertReceived(alert) => format!("broke TLS off with the alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("offers no TLS that we accept: {why:?}"),
        _ => format!("broke TLS: {error}"),
    }
}

fn from_ca_file(path: &Path) -> Result<Anchor, NoTrust> {
    let unusable = |why: String| NoTrust::CaFile { path: path.to_owned(), why };
    let pem = std::fs::read(path).map_err(|error| unusable(super::connect::words(&error)))?;
    let own: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(format!("it is not well-formed PEM ({error})")))?;
    if own.is_empty() {
        return Err(unusable("it holds no certificate in PEM form".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for (i, certificate) in own.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|_| unusable(format!("certificate {} in it is malformed", i + 1)))?;
    }
    Ok(Anchor::CaFile { roots, own, path: path.to_owned() })
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR` are OpenSSL's old agreement and honoured as such.
fn platform_roots() -> Result<RootCertStore, NoTrust> {
    let told = std::env::var_os("SSL_CERT_FILE").is_some() || std::env::var_os("SSL_CERT_DIR").is_some();
    let bundle = BUNDLES.iter().map(Path::new).find(|path| !told && path.is_file());
    let loaded = match bundle {
        Some(bundle) => rustls_native_certs::load_certs_from_paths(Some(bundle), None),
        None => rustls_native_certs::load_native_certs(),
    };
    let mut roots = RootCertStore::empty();
    // Platforms carry the odd certificate that no library parses; the others are none the worse for it.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        return Err(NoTrust::Platform { why: loaded.errors.first().map(ToString::to_string) });
    }
    Ok(roots)
}

/// Who vouches for a certificate.
#[derive(Debug)]
enum Anchor {
    Pins(Vec<[u8; 32]>),
    CaFile { roots: RootCertStore, own: Vec<CertificateDer<'static>>, path: PathBuf },
    Roots(RootCertStore),
}

#[derive(Debug)]
struct Verifier {
    anchor: Anchor,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let refusal = |flaw| Refusal { flaw, leaf: sha256(leaf) };
        let parsed = ParsedCertificate::try_from(leaf).map_err(|error| refusal(Flaw::Other(error)))?;
        let chain = |roots: &RootCertStore| {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
        };
        let vouched = match &self.anchor {
            Anchor::Pins(pins) => {
                let key = sha256(parsed.subject_public_key_info().as_ref());
                let pinned = pins.contains(&sha256(leaf)) || pins.contains(&key);
                return if pinned { Ok(()) } else { Err(refusal(Flaw::NotPinned)) };
            }
            Anchor::CaFile { roots, own, .. } => match chain(roots) {
                Err(error) if is_about_issuer(&error) && own.contains(leaf) => Ok(()),
                vouched => vouched,
            },
            Anchor::Roots(roots) => chain(roots),
        };
        vouched.and_then(|()| verify_server_name(&parsed, name)).map_err(|error| {
            refusal(match error {
                Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                    Flaw::Expired(not_after)
                }
                Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
                    Flaw::NotYetValid(not_before)
                }
                Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
                    Flaw::WrongName { expected: expected.to_str().into_owned(), presented: names(&presented) }
                }
                error if is_about_issuer(&error) => {
                    let mut alone = RootCertStore::empty();
                    let itself = alone.add(leaf.clone().into_owned()).and_then(|()| chain(&alone));
                    match itself {
                        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                            Flaw::UnknownIssuer(self.path())
                        }
                        _ => Flaw::SelfSigned,
                    }
                }
                error => Flaw::Other(error),
            })
        })
    }

    fn path(&self) -> Option<PathBuf> {
        match &self.anchor {
            Anchor::CaFile { path, .. } => Some(path.clone()),
            Anchor::Pins(_) | Anchor::Roots(_) => None,
        }
    }
}

/// Whether the path ended at an unknown issuer, or at a self-signed certificate that calls itself a CA (as
/// `openssl req -x509` makes them), which the library refuses as a server's with an error that it keeps to
/// itself. Both come after it has checked the certificate's dates; a test below holds it to that.
fn is_about_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

/// The library lists names as `DnsName("mail.example.org")`.
fn names(presented: &[String]) -> Vec<String> {
    let inner = |name: &String| name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).map(str::to_owned);
    presented.iter().filter_map(inner).map(|name| name.trim_matches('"').to_owned()).collect()
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, octets).as_ref());
    hash
}

/// What is wrong with a certificate.
#[derive(Debug)]
enum Flaw {
    NotPinned,
    Expired(UnixTime),
    NotYetValid(UnixTime),
    WrongName { expected: String, presented: Vec<String> },
    UnknownIssuer(Option<PathBuf>),
    SelfSigned,
    Other(Error),
}

/// A certificate refused. It travels through the library inside its error and comes out as a sentence.
#[derive(Debug)]
struct Refusal {
    flaw: Flaw,
    leaf: [u8; 32],
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = self.leaf.iter().fold("sha256:".to_owned(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        });
        match &self.flaw {
            Flaw::NotPinned => write!(f, "showed a certificate that is not the pinned one (it is {pin})"),
            Flaw::Expired(time) => write!(f, "showed a certificate that expired on {}", date(*time)),
            Flaw::NotYetValid(time) => {
                write!(
                    f,
                    "showed a certificate that is not valid before {} (is this machine's clock right?)",
                    date(*time)
                )
            }
            Flaw::WrongName { expected, presented } if presented.is_empty() => write!(
                f,
                "showed a certificate without a subject alternative name, which a certificate for {expected} must have; \
                 to accept just this one, set pin = \"{pin}\""
            ),
            Flaw::WrongName { expected, presented } => {
                write!(f, "showed a certificate for {}, not for {expected}", presented.join(", "))
            }
            Flaw::UnknownIssuer(None) => write!(
                f,
                "showed a certificate that no authority known to this machine has signed; set ca_file to the \
                 authority's certificate or, to accept just this one, pin = \"{pin}\""
            ),
            Flaw::UnknownIssuer(Some(path)) => write!(
                f,
                "showed a certificate that no authority in {} has signed; to accept just this one, set pin = \"{pin}\"",
                path.display()
            ),
            Flaw::SelfSigned => {
                write!(f, "showed a self-signed certificate; to accept just this one, set pin = \"{pin}\"")
            }
            Flaw::Other(error) => write!(f, "showed a certificate that cannot be accepted: {error}"),
        }
    }
}

/// The day and the time in UTC, or the bare number where no calendar goes that far.
fn date(time: UnixTime) -> String {
    let seconds = time.as_secs();
    let known = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    known.map_or_else(|| format!("second {seconds}"), |known| known.to_string())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, name, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|refusal| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
