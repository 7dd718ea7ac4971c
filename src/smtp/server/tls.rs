//! What a server shows a client that wants TLS: a certificate, and for trials an authority that signs it.
//!
//! TLS 1.2 and 1.3 by rustls on ring, no client certificates. A throw-away [`Authority`] lives as long as the process
//! and signs for whatever name it is asked; whoever is to trust it must be given its certificate. RFC 3207, RFC 5280.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<ServerConfig>);

/// Why there is no TLS to be had.
#[derive(Debug)]
pub enum NoIdentity {
    /// The TLS library refused them.
    Library(rustls::Error),
    /// A certificate could not be made.
    Making(rcgen::Error),
}

impl fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(error) => write!(f, "the certificate cannot be used: {error}"),
            Self::Making(error) => write!(f, "a certificate cannot be made: {error}"),
        }
    }
}

impl std::error::Error for NoIdentity {}

impl Identity {
    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, NoIdentity> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(NoIdentity::Library)?;
        // A session is longer than anybody's memory: tickets for the next one would only be octets on the wire.
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }
}

/// A certificate authority for one run, whose key never leaves memory.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Makes one.
    pub fn throw_away() -> Result<Self, NoIdentity> {
        let mut params = named("Pillarbox throw-away authority", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(NoIdentity::Making)?;
        CertifiedIssuer::self_signed(params, key).map(Self).map_err(NoIdentity::Making)
    }

    /// Its certificate, for those who shall trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server that is called by these names and addresses.
    pub fn sign(&self, names: &[String]) -> Result<Identity, NoIdentity> {
        let mut params = named("Pillarbox", names.to_vec())?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(NoIdentity::Making)?;
        let certificate = params.signed_by(&key, &self.0).map_err(NoIdentity::Making)?;
        Identity::new(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

fn named(common_name: &str, names: Vec<String>) -> Result<CertificateParams, NoIdentity> {
    let mut params = CertificateParams::new(names).map_err(NoIdentity::Making)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
