//! Whom we trust: the certificate must be vouched for and carry the relay's name, or be pinned.
//!
//! TLS 1.2 and 1.3 by rustls on ring; no early data, no resumption (a session is longer than our memory). Trust
//! comes from one of three places: the account's pins (SHA-256 of the certificate or of its key; then nothing
//! else counts), its `ca_file`, or the platform's roots. A certificate that itself stands in `ca_file` is
//! accepted as that server's own, its dates and name checked. What `crl_file` calls revoked is refused, and so is
//! everything once a list in it is out of date; a certificate that it does not speak of passes. Files that cannot be read
//! are an error: without them there is no trust. Every refusal is a sentence that says what is wrong with the
//! certificate and what would mend it. Our own certificate is shown to a server that asks for one, where we have it.
//! RFC 8446, RFC 5246; RFC 5280 (paths, revocation lists), RFC 9525 (names).

use super::certificate::{Certificate, pin, sha256};
use crate::config::{Account, Host, TlsVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, InconsistentKeys,
    InvalidMessage, OtherError, PeerIncompatible, RootCertStore, SignatureScheme, SupportedProtocolVersion, version,
};
use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let anchor = match &account.ca_file {
            _ if !account.pins.is_empty() => Anchor::Pins(account.pins.clone()),
            Some(path) => from_ca_file(path)?,
            None => Anchor::Roots(Arc::new(platform_roots()?)),
        };
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

/// As [`sentence`], where it was TLS that a wait failed for.
pub fn sentence_of(error: &std::io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(sentence)
}

/// What a failed handshake or a broken record means, with the relay as the subject of the sentence.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => refusal.to_string(),
        // Signatures by short keys are not even looked at.
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "did not show that its certificate is its own; or the key is too weak (RSA with less than 2048 bits)"
                .to_owned()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "answered with something that is not TLS (is it the right port, and the right tls setting?)".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "demands a certificate of us; set cert_file and key_file".to_owned()
        }
        Error::AlertReceived(alert) if is_about_us(error) => {
            format!("does not accept our certificate (cert_file): it broke TLS off with the alert {alert:?}")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "speaks no version of TLS that we do (1.2 and 1.3, or what tls_min leaves of them)".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => {
            "speaks TLS 1.2 at the most, and tls_min demands 1.3".to_owned()
        }
        Error::AlertReceived(alert) => format!("broke TLS off with the alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("offers no TLS that we accept: {why:?}"),
        _ => format!("broke TLS: {error}"),
    }
}

/// Whether it is the algorithm of a signature that is at fault. The library names it, and all others, by their numbers.
fn is_signed_weakly(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
    )
}

/// Whether the server refuses our certificate, or the lack of one. In TLS 1.3 it says so only when our end of the
/// handshake is long done.
pub(super) fn is_about_us(error: &Error) -> bool {
    use AlertDescription as Alert;
    matches!(
        error,
        Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        )
    )
}

/// More than any list of certificates or revocations that can be meant.
const LARGEST: u64 = 64 << 20;

/// Reads a file that the account names. One that is none, such as a FIFO that nobody writes to, holds nobody up.
fn read(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, NoTrust> {
    let words = |error: std::io::Error| unusable(key, path, super::connect::words(&error));
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(words)?;
    let found = file.metadata().map_err(words)?;
    if !found.is_file() {
        return Err(unusable(key, path, "it is not a regular file"));
    }
    if found.len() > LARGEST {
        return Err(unusable(key, path, format!("it has more than {} MiB", LARGEST >> 20)));
    }
    // With room for all of it from the start: a vector that grows leaves a copy of the key behind that nobody wipes.
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0) + 1));
    file.read_to_end(&mut octets).map_err(words)?;
    Ok(octets)
}

fn unusable(key: &'static str, path: &Path, why: impl Into<String>) -> NoTrust {
    NoTrust::File { key, path: path.to_owned(), why: why.into() }
}

fn malformed(error: &pem::Error) -> String {
    format!("it is not well-formed PEM ({error})")
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, NoTrust> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(key, path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(key, path, malformed(&error)))?;
    if found.is_empty() { Err(unusable(key, path, "it holds no certificate in PEM form")) } else { Ok(found) }
}

/// The first key in a file, in any of the forms that OpenSSL has written it in: PKCS #8, PKCS #1, SEC 1.
fn private_key((key, path): (&'static str, &PathBuf)) -> Result<PrivateKeyDer<'static>, NoTrust> {
    let octets = read(key, path)?;
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| {
        // Encrypted, it has a label of its own (PKCS #8) or a header that base64 does not know (the older forms).
        if memchr::memmem::find(&octets, b"ENCRYPTED").is_some() {
            let why = "the key in it is encrypted, and nobody is there to ask for its pass phrase; decrypt it with \
                       openssl pkey, and keep the file private";
            return unusable(key, path, why);
        }
        match error {
            pem::Error::NoItemsFound => unusable(key, path, "it holds no private key in PEM form"),
            error => unusable(key, path, malformed(&error)),
        }
    })
}

/// Why our certificate and its key do not do.
fn own_certificate(error: Error, (key, path): (&'static str, &PathBuf)) -> NoTrust {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            unusable(key, path, "the key in it is not that of the first certificate in cert_file")
        }
        Error::General(_) => {
            unusable(key, path, "the key in it is of no kind that we can sign with (RSA, P-256, P-384, Ed25519)")
        }
        error => NoTrust::Library(error),
    }
}

/// What tells which certificates are revoked: rustls's own verifier, whose word counts only for that.
fn from_crl_file(path: &Path, roots: &Arc<RootCertStore>, provider: &Arc<CryptoProvider>) -> Result<Revoked, NoTrust> {
    let octets = read("crl_file", path)?;
    let mut lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&octets)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable("crl_file", path, malformed(&error)))?;
    // As authorities publish them, and `openssl crl -outform DER` writes them.
    if lists.is_empty() && octets.first() == Some(&0x30) {
        lists.push(CertificateRevocationListDer::from(octets.to_vec()));
    }
    if lists.is_empty() {
        return Err(unusable("crl_file", path, "it holds no revocation list"));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .with_crls(lists)
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .build()
        .map(|lists| Revoked { lists, path: path.to_owned() })
        .map_err(|error| unusable("crl_file", path, format!("a list in it cannot be read ({error})")))
}

fn from_ca_file(path: &Path) -> Result<Anchor, NoTrust> {
    let own = certificates("ca_file", path)?;
    let mut roots = RootCertStore::empty();
    for (i, certificate) in own.iter().enumerate() {
        roots
            .add(certificate.clone())
            .map_err(|_| unusable("ca_file", path, format!("certificate {} in it is malformed", i + 1)))?;
    }
    Ok(Anchor::CaFile { roots: Arc::new(roots), own, path: path.to_owned() })
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
    CaFile { roots: Arc<RootCertStore>, own: Vec<CertificateDer<'static>>, path: PathBuf },
    Roots(Arc<RootCertStore>),
}

impl Anchor {
    fn roots(&self) -> Option<&Arc<RootCertStore>> {
        match self {
            Self::Pins(_) => None,
            Self::CaFile { roots, .. } | Self::Roots(roots) => Some(roots),
        }
    }
}

/// The revocation lists.
#[derive(Debug)]
struct Revoked {
    lists: Arc<WebPkiServerVerifier>,
    path: PathBuf,
}

#[derive(Debug)]
struct Verifier {
    anchor: Anchor,
    revoked: Option<Revoked>,
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
                    Flaw::WrongName {
                        expected: expected.to_str().into_owned(),
                        presented: names(&presented),
                        common: Certificate::read(leaf).and_then(|read| read.common_name),
                    }
                }
                // Signed by an authority of the right name, but not by that one: it has been made anew.
                Error::InvalidCertificate(CertificateError::BadSignature) => Flaw::UnknownIssuer(self.path()),
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
        })?;
        self.revoked.as_ref().map_or(Ok(()), |revoked| revoked.verify(leaf, intermediates, name, now).map_err(refusal))
    }

    fn path(&self) -> Option<PathBuf> {
        match &self.anchor {
            Anchor::CaFile { path, .. } => Some(path.clone()),
            Anchor::Pins(_) | Anchor::Roots(_) => None,
        }
    }
}

impl Revoked {
    /// Looks a certificate up that was found good in all other respects.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Flaw> {
        match self.lists.verify_server_cert(leaf, intermediates, name, &[], now) {
            Ok(_) => Ok(()),
            // One that stands in ca_file itself: no authority signed it, and none could revoke it.
            Err(error) if is_about_issuer(&error) => Ok(()),
            Err(Error::InvalidCertificate(CertificateError::Revoked)) => Err(Flaw::Revoked(self.path.clone())),
            Err(Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { next_update, .. })) => {
                Err(Flaw::StaleList(self.path.clone(), next_update))
            }
            Err(error) => Err(Flaw::Other(error)),
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

/// What is wrong with a certificate.
#[derive(Debug)]
enum Flaw {
    NotPinned,
    Expired(UnixTime),
    NotYetValid(UnixTime),
    /// The common name is told apart because it is what its owner meant to count.
    WrongName {
        expected: String,
        presented: Vec<String>,
        common: Option<String>,
    },
    UnknownIssuer(Option<PathBuf>),
    SelfSigned,
    Revoked(PathBuf),
    /// The list, and when the next one was due.
    StaleList(PathBuf, UnixTime),
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
        let pin = pin(&self.leaf);
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
            Flaw::WrongName { expected, presented, common } if presented.is_empty() => {
                f.write_str("showed a certificate without a subject alternative name, which a certificate for ")?;
                write!(f, "{expected} must have")?;
                if let Some(common) = common {
                    write!(f, " (its common name {common} does not count)")?;
                }
                write!(f, "; to accept just this one, set pin = \"{pin}\"")
            }
            Flaw::WrongName { expected, presented, .. } => {
                write!(f, "showed a certificate for {}, not for {expected}", presented.join(", "))
            }
            Flaw::Revoked(path) => {
                write!(f, "showed a certificate that its authority has revoked, says {}", path.display())
            }
            Flaw::StaleList(path, next) => write!(
                f,
                "showed a certificate whose revocation list in {} is out of date since {}; fetch the new one",
                path.display(),
                date(*next)
            ),
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
            Flaw::Other(error) if is_signed_weakly(error) => f.write_str(
                "showed a certificate that is signed in a way which could be forged by now, as by MD5 or SHA-1, or which \
                 nobody here knows; it has to be made anew",
            ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, Tls};
    use crate::outcome::Stage as Place;
    use crate::smtp::rehearsal::{Authority, Certified, Ended, NAME, account, rehearse};
    use rcgen::{CertificateParams, DnType, KeyPair};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use rustls::version::{TLS12, TLS13};
    use std::fs;
    use tempfile::TempDir;

    const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// An account that trusts `ca` and does not log in.
    fn trusting(dir: &TempDir, ca: &str) -> Account {
        let ca_file = dir.path().join("ca.pem");
        fs::write(&ca_file, ca).unwrap();
        Account { tls: Tls::Implicit, user: None, ca_file: Some(ca_file), ..account(Auth::Auto) }
    }

    fn meet(account: &Account, config: Arc<ServerConfig>) -> Ended {
        rehearse(account, "", move |stage| {
            stage.start_tls(&config);
            stage.say("220 rehearsal");
            if stage.hear().starts_with("EHLO") {
                stage.say("250 rehearsal");
            }
        })
    }

    fn file(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn parameters(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        CertificateParams::new(names).unwrap()
    }

    fn issue(authority: &Authority, parameters: &CertificateParams) -> Certified {
        authority.certify(parameters, &KeyPair::generate().unwrap())
    }

    #[test]
    fn every_flaw_of_a_certificate_is_told_apart() {
        let (dir, authority, stranger) = (TempDir::new().unwrap(), Authority::new(), Authority::named("Stranger"));
        let account = trusting(&dir, &authority.pem);
        let dated = |from, to| {
            let mut dated = parameters(&[NAME]);
            dated.not_before = rcgen::date_time_ymd(from, 1, 2);
            dated.not_after = rcgen::date_time_ymd(to, 3, 4);
            dated
        };
        let mut common = parameters(&[]);
        common.distinguished_name = rcgen::DistinguishedName::new();
        common.distinguished_name.push(DnType::CommonName, NAME);
        let key = KeyPair::generate().unwrap();
        let itself = parameters(&[NAME]).self_signed(&key).unwrap();
        let itself = Certified { der: itself.der().clone(), pem: itself.pem(), key_pem: key.serialize_pem() };
        for (certified, told) in [
            (issue(&authority, &dated(2020, 2021)), "that expired on 2021-03-04T00:00:00Z"),
            (
                issue(&authority, &dated(2090, 2091)),
                "that is not valid before 2090-01-02T00:00:00Z (is this machine's clock right?)",
            ),
            (
                issue(&authority, &parameters(&["a.example.org", "b.example.org"])),
                "for a.example.org, b.example.org, not for mail.example.org",
            ),
            (
                issue(&authority, &common),
                "without a subject alternative name, which a certificate for mail.example.org must have (its common name \
                 mail.example.org does not count); to accept just this one, set pin = \"PIN\"",
            ),
            (
                issue(&Authority::new(), &parameters(&[NAME])),
                "that no authority in CA has signed; to accept just this one, set pin = \"PIN\"",
            ),
            (
                issue(&stranger, &parameters(&[NAME])),
                "that no authority in CA has signed; to accept just this one, set pin = \"PIN\"",
            ),
            (itself, "self-signed, to accept just this one, set pin = \"PIN\""),
        ] {
            let ended = meet(&account, certified.config(&BOTH));
            let ca = account.ca_file.as_ref().unwrap().display().to_string();
            let told = told.replace("PIN", &pin(&certified.pin())).replace("CA", &ca);
            let told = match told.strip_prefix("self-signed, ") {
                Some(rest) => format!("showed a self-signed certificate; {rest}"),
                None => format!("showed a certificate {told}"),
            };
            assert_eq!(ended.fault(), told);
            assert_eq!(ended.session.err().map(|fault| fault.stage), Some(Place::Tls));
        }
    }

    #[test]
    fn a_session_tells_what_protects_it() {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let certified = authority.server();
        for (version, told) in [(&TLS12, "TLSv1.2 TLS_ECDHE_ECDSA_"), (&TLS13, "TLSv1.3 TLS_AES_256_GCM_SHA384")] {
            let ended = meet(&trusting(&dir, &authority.pem), certified.config(&[version]));
            assert!(ended.notes.iter().any(|line| line.starts_with(&format!("* {told}"))), "{:?}", ended.notes);
            let encryption = ended.session.unwrap().encryption().unwrap();
            assert_eq!(encryption.chain[0].names, [NAME]);
            assert_eq!(encryption.chain[0].issuer, "CN=Rehearsal CA");
            assert_eq!(encryption.chain[0].sha256, certified.pin());
        }
    }

    #[test]
    fn a_pin_is_the_certificates_or_its_keys() {
        let authority = Authority::new();
        let key = KeyPair::generate().unwrap();
        let certified = authority.certify(&parameters(&["other.example.org"]), &key);
        let of_key = sha256(&rcgen::PublicKeyData::subject_public_key_info(&key));
        for (pins, expected) in [
            (vec![[7; 32], certified.pin()], None),
            (vec![of_key], None),
            (
                vec![[7; 32]],
                Some(format!("showed a certificate that is not the pinned one (it is {})", pin(&certified.pin()))),
            ),
        ] {
            let account = Account { tls: Tls::Implicit, user: None, pins, ..account(Auth::Auto) };
            let ended = meet(&account, certified.config(&BOTH));
            assert_eq!(ended.session.err().map(|fault| fault.to_string()), expected);
        }
    }

    #[test]
    fn a_server_too_old_for_tls_min_is_told_so() {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let account = Account { tls_min: TlsVersion::Tls13, ..trusting(&dir, &authority.pem) };
        let ended = meet(&account, authority.server().config(&[&TLS12]));
        let told = "speaks no version of TLS that we do (1.2 and 1.3, or what tls_min leaves of them)";
        assert_eq!(ended.fault(), told);
        assert!(meet(&account, authority.server().config(&BOTH)).session.is_ok());
    }

    /// A server that demands a certificate by `authority` of its clients.
    fn demanding(
        certified: &Certified,
        authority: &Authority,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_client_cert_verifier(clients);
        Arc::new(config.with_single_cert(vec![certified.der.clone()], certified.key()).unwrap())
    }

    #[test]
    fn our_certificate_is_shown_where_one_is_asked_for() {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let server = authority.server();
        let ours = issue(&authority, &parameters(&["client.example.org"]));
        let apart = Account {
            cert_file: Some(file(&dir, "cert.pem", &ours.pem)),
            key_file: Some(file(&dir, "key.pem", &ours.key_pem)),
            ..trusting(&dir, &authority.pem)
        };
        let together = Account {
            cert_file: Some(file(&dir, "both.pem", format!("{}{}{}", ours.key_pem, ours.pem, authority.pem))),
            ..trusting(&dir, &authority.pem)
        };
        for account in [apart, together] {
            for version in BOTH {
                let ended = meet(&account, demanding(&server, &authority, version));
                assert!(ended.session.is_ok(), "{}", ended.fault());
            }
        }
    }

    #[test]
    fn a_server_that_refuses_our_certificate_or_misses_it_says_so() {
        let (dir, authority, stranger) = (TempDir::new().unwrap(), Authority::new(), Authority::named("Stranger"));
        let server = authority.server();
        let none = trusting(&dir, &authority.pem);
        let foreign = issue(&stranger, &parameters(&["client.example.org"]));
        let wrong = Account {
            cert_file: Some(file(&dir, "both.pem", format!("{}{}", foreign.key_pem, foreign.pem))),
            ..none.clone()
        };
        let demands = "demands a certificate of us; set cert_file and key_file";
        let refuses = "does not accept our certificate (cert_file): it broke TLS off with the alert UnknownCA";
        for (account, told) in [(&none, demands), (&wrong, refuses)] {
            for version in BOTH {
                let ended = meet(account, demanding(&server, &authority, version));
                assert_eq!(ended.fault(), told);
                assert_eq!(ended.session.err().map(|fault| fault.stage), Some(Place::Tls));
            }
        }
    }

    /// An authority's list that revokes one serial number and is good for those years.
    fn list(authority: &Authority, serial: u64, years: (i32, i32)) -> rcgen::CertificateRevocationList {
        let revoked = rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(years.0, 1, 1),
            next_update: rcgen::date_time_ymd(years.1, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        }
        .signed_by(&authority.issuer)
        .unwrap()
    }

    #[test]
    fn a_revoked_certificate_is_refused_and_so_is_all_once_the_list_is_stale() {
        let (dir, authority, stranger) = (TempDir::new().unwrap(), Authority::new(), Authority::named("Stranger"));
        let numbered = |serial: u64| {
            let mut numbered = parameters(&[NAME]);
            numbered.serial_number = Some(serial.into());
            issue(&authority, &numbered)
        };
        let current = list(&authority, 7, (2020, 2090));
        let stale = list(&authority, 7, (2020, 2021));
        let foreign = list(&stranger, 7, (2020, 2090));
        let pem = |list: &rcgen::CertificateRevocationList| list.pem().unwrap().into_bytes();
        for (octets, serial, told) in [
            (pem(&current), 7, Some("showed a certificate that its authority has revoked, says CRL")),
            (current.der().to_vec(), 7, Some("showed a certificate that its authority has revoked, says CRL")),
            (pem(&current), 8, None),
            (
                pem(&stale),
                8,
                Some(
                    "showed a certificate whose revocation list in CRL is out of date since 2021-01-01T00:00:00Z; fetch \
                     the new one",
                ),
            ),
            (pem(&foreign), 7, None),
            (
                [pem(&foreign), pem(&current)].concat(),
                7,
                Some("showed a certificate that its authority has revoked, says CRL"),
            ),
        ] {
            let crl_file = file(&dir, "crl", octets);
            let path = crl_file.display().to_string();
            let account = Account { crl_file: Some(crl_file), ..trusting(&dir, &authority.pem) };
            let ended = meet(&account, numbered(serial).config(&BOTH));
            let told = told.map(|told| told.replace("CRL", &path));
            assert_eq!(ended.session.err().map(|fault| fault.to_string()), told);
        }
    }

    #[test]
    fn a_revocation_list_does_not_touch_a_certificate_that_stands_in_ca_file() {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let key = KeyPair::generate().unwrap();
        let own = parameters(&[NAME]).self_signed(&key).unwrap();
        let own = Certified { der: own.der().clone(), pem: own.pem(), key_pem: key.serialize_pem() };
        let crl_file = file(&dir, "crl", list(&authority, 7, (2020, 2090)).pem().unwrap());
        let account = Account { crl_file: Some(crl_file), ..trusting(&dir, &own.pem) };
        let ended = meet(&account, own.config(&BOTH));
        assert!(ended.session.is_ok(), "{}", ended.fault());
    }

    #[test]
    fn files_that_cannot_be_used_are_told_by_key_and_reason() {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
        let (ours, other) = (authority.server(), authority.server());
        let good = trusting(&dir, &authority.pem);
        let missing = Some(dir.path().join("missing"));
        let cert = Some(file(&dir, "cert.pem", &ours.pem));
        let with_key = |name, octets: &[u8]| Account {
            cert_file: cert.clone(),
            key_file: Some(file(&dir, name, octets)),
            ..good.clone()
        };
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                     -----END RSA PRIVATE KEY-----\n";
        let unknown = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (account, key, why) in [
            (Account { ca_file: missing.clone(), ..good.clone() }, "ca_file", "No such file"),
            (
                Account { ca_file: Some(file(&dir, "empty", "")), ..good.clone() },
                "ca_file",
                "it holds no certificate in PEM form",
            ),
            (Account { crl_file: missing.clone(), ..good.clone() }, "crl_file", "No such file"),
            (
                Account { crl_file: Some(file(&dir, "text", "text")), ..good.clone() },
                "crl_file",
                "it holds no revocation list",
            ),
            (
                Account { crl_file: Some(file(&dir, "zero", "0\0")), ..good.clone() },
                "crl_file",
                "a list in it cannot be read",
            ),
            (Account { cert_file: missing.clone(), ..good.clone() }, "cert_file", "No such file"),
            (Account { cert_file: cert.clone(), ..good.clone() }, "cert_file", "it holds no private key in PEM form"),
            (Account { cert_file: cert.clone(), key_file: missing, ..good.clone() }, "key_file", "No such file"),
            (
                with_key("other", other.key_pem.as_bytes()),
                "key_file",
                "the key in it is not that of the first certificate",
            ),
            (with_key("encrypted", encrypted.as_bytes()), "key_file", "the key in it is encrypted"),
            (with_key("older", older.as_bytes()), "key_file", "the key in it is encrypted"),
            (with_key("unknown", unknown.as_bytes()), "key_file", "the key in it is of no kind that we can sign with"),
        ] {
            let told = Trust::of(&account).unwrap_err().to_string();
            assert!(
                told.starts_with(&format!("{key} ")) && told.contains(&format!(" cannot be used: {why}")),
                "{told}"
            );
        }
    }
}
