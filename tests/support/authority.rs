//! An authority of the test's own, and certificates by it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::fs;
use std::path::{Path, PathBuf};

/// A certification authority that nobody else trusts.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, with a key of its own.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Pillarbox's test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Writes its certificate, for `ca_file`.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("authority.pem");
        fs::write(&path, self.issuer.pem()).unwrap();
        path
    }

    /// Writes a server's key and certificate chain into one file, as Postfix likes it.
    pub fn write_server(&self, name: &str, dir: &Path) -> PathBuf {
        let (key, chain) = self.server(name);
        let path = dir.join("server.pem");
        fs::write(&path, key + &chain).unwrap();
        path
    }

    /// A server's key, and its certificate with the authority's behind it, both as PEM.
    pub fn server(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (key.serialize_pem(), certificate.pem() + &self.issuer.pem())
    }

    /// Writes a client's key and certificate into one file.
    pub fn write_client(&self, common_name: &str, dir: &Path) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = dir.join(format!("{common_name}.pem"));
        fs::write(&path, key.serialize_pem() + &certificate.pem()).unwrap();
        path
    }
}
