//! Every flaw that a certificate can have, ours and theirs, and every file that cannot be used.

use super::*;
use crate::config::{Auth, Tls};
use crate::outcome::Stage as Place;
use crate::smtp::certificate::{pin, sha256};
use crate::smtp::rehearsal::{Authority, Certified, Ended, NAME, account, rehearse};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
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
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
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
        (with_key("other", other.key_pem.as_bytes()), "key_file", "the key in it is not that of the first certificate"),
        (with_key("encrypted", encrypted.as_bytes()), "key_file", "the key in it is encrypted"),
        (with_key("older", older.as_bytes()), "key_file", "the key in it is encrypted"),
        (with_key("unknown", unknown.as_bytes()), "key_file", "the key in it is of no kind that we can sign with"),
    ] {
        let told = Trust::of(&account).unwrap_err().to_string();
        assert!(told.starts_with(&format!("{key} ")) && told.contains(&format!(" cannot be used: {why}")), "{told}");
    }
}
