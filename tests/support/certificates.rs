//! Throw-away certificates, good and bad ones.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// What a relay shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Signed by the relay's authority, for `127.0.0.1` and `localhost`.
    Good,
    /// The same, until 2001.
    Expired,
    /// The same, from 2999 on.
    NotYetValid,
    /// Signed by the relay's authority, for `mail.elsewhere.example`.
    OtherName,
    /// Its own.
    SelfSigned,
    /// Signed by an authority that nobody knows.
    OtherAuthority,
    /// The same, but it calls itself as the relay's does: one that was made anew.
    NewAuthority,
}

/// A certificate in use.
pub struct Identity {
    /// What the relay's TLS is set up with.
    pub config: Arc<ServerConfig>,
    /// The relay's authority in PEM form: what an account's `ca_file` should be.
    pub authority: String,
    /// The leaf, for pins.
    pub leaf: CertificateDer<'static>,
}

impl Identity {
    /// Makes an authority and a certificate of that kind.
    pub fn new(shown: Shown) -> Self {
        let (authority, issuer) = authority("scripted authority");
        let names = match shown {
            Shown::OtherName => vec!["mail.elsewhere.example".to_owned()],
            _ => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "scripted relay");
        match shown {
            Shown::Expired => {
                (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
            }
            Shown::NotYetValid => {
                (params.not_before, params.not_after) = (date_time_ymd(2999, 1, 1), date_time_ymd(3000, 1, 1));
            }
            _ => {}
        }
        let key = KeyPair::generate().unwrap();
        let leaf = match shown {
            Shown::SelfSigned => params.self_signed(&key),
            Shown::OtherAuthority => params.signed_by(&key, &self::authority("another authority").1),
            Shown::NewAuthority => params.signed_by(&key, &self::authority("scripted authority").1),
            _ => params.signed_by(&key, &issuer),
        };
        let leaf = leaf.unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.clone()], key)
            .unwrap();
        // They would be a flight of their own, sometimes.
        config.send_tls13_tickets = 0;
        Self { config: Arc::new(config), authority, leaf }
    }

    /// `sha256:…` of the leaf.
    pub fn pin(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.leaf);
        let hex: Vec<String> = hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        format!("sha256:{}", hex.concat())
    }
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}
