//! The files that an account names, and the platform's roots, as the TLS library wants to have them.

use super::NoTrust;
use super::verify::{Anchor, Revoked};
use crate::smtp::connect::words;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem};
use rustls::{Error, InconsistentKeys, RootCertStore};
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
/// More than any list of certificates or revocations that can be meant.
const LARGEST: u64 = 64 << 20;

/// Reads a file that the account names. One that is none, such as a FIFO that nobody writes to, holds nobody up.
pub(super) fn read(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, NoTrust> {
    let words = |error: std::io::Error| unusable(key, path, words(&error));
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(words)?;
    let found = file.metadata().map_err(words)?;
    if !found.is_file() {
        return Err(unusable(key, path, "it is not a regular file"));
    }
    if found.len() > LARGEST {
        return Err(unusable(key, path, too_large()));
    }
    // With room for all of it from the start: a vector that grows leaves a copy of the key behind that nobody wipes.
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0) + 1));
    file.read_to_end(&mut octets).map_err(words)?;
    Ok(octets)
}

fn too_large() -> String {
    format!("it has more than {} MiB", LARGEST >> 20)
}

pub(super) fn unusable(key: &'static str, path: &Path, why: impl Into<String>) -> NoTrust {
    NoTrust::File { key, path: path.to_owned(), why: why.into() }
}

fn malformed(error: &pem::Error) -> String {
    format!("it is not well-formed PEM ({error})")
}

pub(super) fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, NoTrust> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(key, path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(key, path, malformed(&error)))?;
    if found.is_empty() { Err(unusable(key, path, "it holds no certificate in PEM form")) } else { Ok(found) }
}

/// The first key in a file, in any of the forms that OpenSSL has written it in: PKCS #8, PKCS #1, SEC 1.
pub(super) fn private_key((key, path): (&'static str, &PathBuf)) -> Result<PrivateKeyDer<'static>, NoTrust> {
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
pub(super) fn own_certificate(error: Error, (key, path): (&'static str, &PathBuf)) -> NoTrust {
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
pub(super) fn from_crl_file(
    path: &Path,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Revoked, NoTrust> {
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

pub(super) fn from_ca_file(path: &Path) -> Result<Anchor, NoTrust> {
    let own = certificates("ca_file", path)?;
    let mut roots = RootCertStore::empty();
    for (i, certificate) in own.iter().enumerate() {
        roots
            .add(certificate.clone())
            .map_err(|_| unusable("ca_file", path, format!("certificate {} in it is malformed", i + 1)))?;
    }
    Ok(Anchor::CaFile { roots: Arc::new(roots), own, path: path.to_owned() })
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR` are OpenSSL's old agreement and honoured as such. A FIFO that nobody writes to
/// and a device without end would be read for ever; the library looks out for them in the directories alone.
pub(super) fn platform_roots() -> Result<RootCertStore, NoTrust> {
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let told = file.is_some() || std::env::var_os("SSL_CERT_DIR").is_some();
    // That file is how people say "none" and mean the directories.
    if let Some(path) = file.filter(|path| path != Path::new("/dev/null")) {
        match path.metadata() {
            Ok(found) if !found.is_file() => return Err(unusable("SSL_CERT_FILE", &path, "it is not a regular file")),
            Ok(found) if found.len() > LARGEST => return Err(unusable("SSL_CERT_FILE", &path, too_large())),
            _ => {}
        }
    }
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
