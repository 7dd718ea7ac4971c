//! Whether a certificate is the one to be believed, and if not, why not.

use super::super::certificate::{Certificate, pin, sha256};
use super::dane::Dane;
use super::words::is_signed_weakly;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Who vouches for a certificate.
#[derive(Debug)]
pub(super) enum Anchor {
    Pins(Vec<[u8; 32]>),
    CaFile {
        roots: Arc<RootCertStore>,
        own: Vec<CertificateDer<'static>>,
        path: PathBuf,
    },
    Roots(Arc<RootCertStore>),
    Dane(Dane),
    /// It is nobody's word that counts: the session is private, whoever it is with.
    Anybody,
}

impl Anchor {
    pub fn roots(&self) -> Option<&Arc<RootCertStore>> {
        match self {
            Self::Pins(_) | Self::Dane(_) | Self::Anybody => None,
            Self::CaFile { roots, .. } | Self::Roots(roots) => Some(roots),
        }
    }
}

/// The revocation lists.
#[derive(Debug)]
pub(super) struct Revoked {
    pub lists: Arc<WebPkiServerVerifier>,
    pub path: PathBuf,
}

#[derive(Debug)]
pub(super) struct Verifier {
    pub anchor: Anchor,
    pub revoked: Option<Revoked>,
    pub provider: Arc<CryptoProvider>,
}

/// What a server shows, and when it is looked at.
#[derive(Clone, Copy)]
pub(super) struct Shown<'s> {
    pub leaf: &'s CertificateDer<'s>,
    pub parsed: &'s ParsedCertificate<'s>,
    pub intermediates: &'s [CertificateDer<'s>],
    pub now: UnixTime,
    pub algorithms: &'s [&'s dyn SignatureVerificationAlgorithm],
}

impl Shown<'_> {
    /// Whether one of these has signed it, and it is in its dates.
    pub fn leads_to(self, roots: &RootCertStore) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(self.parsed, roots, self.intermediates, self.now, self.algorithms)
    }

    /// Whether it carries the name.
    pub fn carries(self, name: &ServerName<'_>) -> Result<(), Error> {
        verify_server_name(self.parsed, name)
    }
}

impl Verifier {
    fn verify(&self, shown: Shown<'_>, name: &ServerName<'_>) -> Result<(), Flaw> {
        let vouched = match &self.anchor {
            Anchor::Pins(pins) => {
                let key = sha256(shown.parsed.subject_public_key_info().as_ref());
                let pinned = pins.contains(&sha256(shown.leaf)) || pins.contains(&key);
                return if pinned { Ok(()) } else { Err(Flaw::NotPinned) };
            }
            Anchor::CaFile { roots, own, .. } => match shown.leads_to(roots) {
                Err(error) if is_about_issuer(&error) && own.contains(shown.leaf) => Ok(()),
                vouched => vouched,
            },
            Anchor::Roots(roots) => shown.leads_to(roots),
            Anchor::Dane(dane) => return if dane.allows(shown) { Ok(()) } else { Err(Flaw::NotInDns) },
            Anchor::Anybody => return Ok(()),
        };
        vouched.and_then(|()| shown.carries(name)).map_err(|error| self.flaw(shown, error))?;
        self.revoked.as_ref().map_or(Ok(()), |revoked| revoked.verify(shown, name))
    }

    /// What the library's error means.
    fn flaw(&self, shown: Shown<'_>, error: Error) -> Flaw {
        match error {
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => Flaw::Expired(not_after),
            Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
                Flaw::NotYetValid(not_before)
            }
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
                Flaw::WrongName {
                    expected: expected.to_str().into_owned(),
                    presented: names(&presented),
                    common: Certificate::read(shown.leaf).and_then(|read| read.common_name),
                }
            }
            // Signed by an authority of the right name, but not by that one: it has been made anew.
            Error::InvalidCertificate(CertificateError::BadSignature) => Flaw::UnknownIssuer(self.path()),
            error if is_about_issuer(&error) => {
                let mut alone = RootCertStore::empty();
                let itself = alone.add(shown.leaf.clone().into_owned()).and_then(|()| shown.leads_to(&alone));
                match itself {
                    Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Flaw::UnknownIssuer(self.path()),
                    _ => Flaw::SelfSigned,
                }
            }
            error => Flaw::Other(error),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match &self.anchor {
            Anchor::CaFile { path, .. } => Some(path.clone()),
            Anchor::Pins(_) | Anchor::Roots(_) | Anchor::Dane(_) | Anchor::Anybody => None,
        }
    }
}

impl Revoked {
    /// Looks a certificate up that was found good in all other respects.
    fn verify(&self, shown: Shown<'_>, name: &ServerName<'_>) -> Result<(), Flaw> {
        match self.lists.verify_server_cert(shown.leaf, shown.intermediates, name, &[], shown.now) {
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
/// itself. Both come after it has checked the certificate's dates; a test holds it to that.
fn is_about_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

/// The library lists names as `DnsName("mail.example.org")`.
pub(super) fn names(presented: &[String]) -> Vec<String> {
    let inner = |name: &String| name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).map(str::to_owned);
    presented.iter().filter_map(inner).map(|name| name.trim_matches('"').to_owned()).collect()
}

/// What is wrong with a certificate.
#[derive(Debug)]
pub(super) enum Flaw {
    NotPinned,
    NotInDns,
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
pub(super) struct Refusal {
    flaw: Flaw,
    leaf: [u8; 32],
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = pin(&self.leaf);
        match &self.flaw {
            Flaw::NotPinned => write!(f, "showed a certificate that is not the pinned one (it is {pin})"),
            Flaw::NotInDns => f.write_str("showed a certificate that its TLSA records in the DNS (DANE) do not allow"),
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
                "showed a certificate that is signed in a way which could be forged by now, as by MD5 or SHA-1, or \
                 which nobody here knows; it has to be made anew",
            ),
            Flaw::Other(error) => write!(f, "showed a certificate that cannot be accepted: {error}"),
        }
    }
}

/// The day and the time in UTC, or the bare number where no calendar goes that far.
pub(super) fn date(time: UnixTime) -> String {
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
        let algorithms = self.provider.signature_verification_algorithms.all;
        ParsedCertificate::try_from(leaf)
            .map_err(Flaw::Other)
            .and_then(|parsed| self.verify(Shown { leaf, parsed: &parsed, intermediates, now, algorithms }, name))
            .map(|()| ServerCertVerified::assertion())
            .map_err(|flaw| {
                let refusal = Refusal { flaw, leaf: sha256(leaf) };
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
            })
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
