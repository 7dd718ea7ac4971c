//! What a certificate says: names and dates for people, and its hash for channel binding.
//!
//! Pure. Nothing in here decides whether to trust: that is [`tls`](super::tls)'s and done before. It reads DER and
//! gives `None` for what is no certificate. Names and subjects are a stranger's text: valid UTF-8 but *not*
//! escaped; whoever shows them escapes them. RFC 5280 (the form), RFC 5929 §4 (`tls-server-end-point`).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ring::digest::{self, SHA256, SHA384, SHA512};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A certificate, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: `C=DE, O=Example, CN=mail.example.org`.
    pub subject: String,
    /// Its common name, which counts for nothing but tells people what was meant.
    pub common_name: Option<String>,
    /// Who signed it.
    pub issuer: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// When its validity begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// SHA-256 of it all.
    pub sha256: [u8; 32],
}

impl Certificate {
    /// Reads one in DER.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut fields = Der(to_be_signed(der)?);
        fields.optional(0xa0);
        fields.expect(INTEGER)?; // serial number
        fields.expect(SEQUENCE)?; // signature algorithm, again
        let issuer = attributes(fields.expect(SEQUENCE)?)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = attributes(fields.expect(SEQUENCE)?)?;
        fields.expect(SEQUENCE)?; // public key
        fields.optional(0x81);
        fields.optional(0x82);
        let names = fields.optional(0xa3).map_or(Some(Vec::new()), alternative_names)?;
        let common_name = subject.iter().rev().find(|(oid, _)| oid == COMMON_NAME).map(|(_, value)| value.clone());
        Some(Self {
            subject: distinguished(&subject),
            common_name,
            issuer: distinguished(&issuer),
            names,
            not_before,
            not_after,
            sha256: sha256(der),
        })
    }

    /// As the setting `pin` wants it.
    pub fn pin(&self) -> String {
        pin(&self.sha256)
    }
}

/// The SHA-256 of octets.
pub(super) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&SHA256, octets).as_ref());
    hash
}

/// As the setting `pin` wants it.
pub(super) fn pin(hash: &[u8; 32]) -> String {
    hash.iter().fold("sha256:".to_owned(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// The certificate's hash by the hash function of its own signature, but by SHA-256 where that is MD5 or SHA-1.
/// Undefined, and `None`, for signatures without a hash function (Ed25519) and where ring hasn't it (SHA-224).
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    certificate.expect(SEQUENCE)?;
    let mut algorithm = Der(certificate.expect(SEQUENCE)?);
    let hash = match algorithm.expect(OID)? {
        // RSASSA-PSS names its hash function in its parameters; none named is SHA-1.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10] => {
            let parameters = algorithm.optional(SEQUENCE).unwrap_or_default();
            let Some(named) = Der(parameters).optional(0xa0) else { return Some(hashed(&SHA256, der)) };
            match Der(Der(named).expect(SEQUENCE)?).expect(OID)? {
                [0x2b, 14, 3, 2, 26] | [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => &SHA256,
                [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => &SHA384,
                [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => &SHA512,
                _ => return None,
            }
        }
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => &SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => &SHA512,
        _ => return None,
    };
    Some(hashed(hash, der))
}

fn hashed(hash: &'static digest::Algorithm, octets: &[u8]) -> Vec<u8> {
    digest::digest(hash, octets).as_ref().to_vec()
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];

/// What is left of some DER: one tag, length and content after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(length);
        if length >= 0x80 {
            let octets;
            // Nothing in a certificate is longer than four octets can say.
            (octets, rest) = rest.split_at_checked(length - 0x80).filter(|(octets, _)| octets.len() <= 4)?;
            length = octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have that tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// The content of the next element where it has that tag; else that element stays.
    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.expect(tag) } else { None }
    }
}

fn to_be_signed(certificate: &[u8]) -> Option<&[u8]> {
    Der(Der(certificate).expect(SEQUENCE)?).expect(SEQUENCE)
}

/// The attributes of a name in their order: object identifier and value.
fn attributes(name: &[u8]) -> Option<Vec<(Vec<u8>, String)>> {
    let mut found = Vec::new();
    let mut name = Der(name);
    while !name.0.is_empty() {
        let mut set = Der(name.expect(SET)?);
        while !set.0.is_empty() {
            let mut attribute = Der(set.expect(SEQUENCE)?);
            found.push((attribute.expect(OID)?.to_vec(), string(attribute.next()?)));
        }
    }
    Some(found)
}

fn string((tag, content): (u8, &[u8])) -> String {
    if tag == BMP_STRING {
        let units = content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        return char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    }
    String::from_utf8_lossy(content).into_owned()
}

/// The attributes that people know by their letters; the others would tell them nothing.
fn distinguished(attributes: &[(Vec<u8>, String)]) -> String {
    let shown = attributes.iter().filter_map(|(oid, value)| {
        let letters = match oid.as_slice() {
            COMMON_NAME => "CN",
            [0x55, 4, 6] => "C",
            [0x55, 4, 7] => "L",
            [0x55, 4, 8] => "ST",
            [0x55, 4, 10] => "O",
            [0x55, 4, 11] => "OU",
            _ => return None,
        };
        Some(format!("{letters}={value}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Years of two digits are those from 1950 to 2049. A date beyond our calendar (RFC 5280 has one that means
/// "never") is its last one.
fn time((tag, content): (u8, &[u8])) -> Option<Timestamp> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    })?;
    if rest.len() != 10 || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let year: i16 = match (tag, year.parse().ok()?) {
        (UTC_TIME, year @ 0..50) => 2000 + year,
        (UTC_TIME, year) => 1900 + year,
        (_, year) => year,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let date = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(TimeZone::UTC.to_timestamp(date).unwrap_or(Timestamp::MAX))
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
    let mut names = Vec::new();
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        if extension.expect(OID)? != SUBJECT_ALTERNATIVE_NAME {
            continue;
        }
        extension.optional(0x01); // critical
        let mut list = Der(Der(extension.expect(OCTET_STRING)?).expect(SEQUENCE)?);
        while !list.0.is_empty() {
            match list.next()? {
                (0x82, name) => names.push(String::from_utf8_lossy(name).into_owned()),
                (0x87, address) => names.extend(
                    <[u8; 4]>::try_from(address)
                        .map(|octets| Ipv4Addr::from(octets).to_string())
                        .or_else(|_| <[u8; 16]>::try_from(address).map(|octets| Ipv6Addr::from(octets).to_string())),
                ),
                _ => {}
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SignatureAlgorithm};

    fn certificate(algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut parameters = CertificateParams::new(vec!["mail.example.org".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut parameters);
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn what_a_certificate_says_can_be_read() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, |parameters| {
            parameters.distinguished_name.push(DnType::OrganizationName, "Exämple");
            parameters.distinguished_name.push(DnType::CommonName, "mail");
            parameters.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
            parameters.subject_alt_names.push(SanType::IpAddress("2001:db8::1".parse().unwrap()));
            parameters.not_before = rcgen::date_time_ymd(2026, 2, 3);
            parameters.not_after = rcgen::date_time_ymd(2055, 12, 31);
        });
        let read = Certificate::read(&der).unwrap();
        assert_eq!(read.subject, "O=Exämple, CN=mail");
        assert_eq!(read.issuer, read.subject);
        assert_eq!(read.common_name.as_deref(), Some("mail"));
        assert_eq!(read.names, ["mail.example.org", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(read.not_before.to_string(), "2026-02-03T00:00:00Z");
        assert_eq!(read.not_after.to_string(), "2055-12-31T00:00:00Z");
        assert_eq!(read.pin(), pin(&sha256(&der)));
    }

    #[test]
    fn dates_in_both_spellings_are_read_and_others_are_not() {
        for (tag, text, read) in [
            (UTC_TIME, "491231235959Z", Some("2049-12-31T23:59:59Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "20500101000000Z", Some("2050-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "99991231235959Z", Some(Timestamp::MAX.to_string().as_str())),
            (UTC_TIME, "491331235959Z", None),
            (UTC_TIME, "4912312359Z", None),
            (UTC_TIME, "491231235959", None),
            (GENERALIZED_TIME, "+0500101000000Z", None),
            (SEQUENCE, "491231235959Z", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())).map(|time| time.to_string()).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn the_end_point_is_hashed_as_its_signature_is() {
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
        assert_eq!(end_point(&p256), Some(hashed(&SHA256, &p256)));
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384, |_| {});
        assert_eq!(end_point(&p384), Some(hashed(&SHA384, &p384)));
        let ed25519 = certificate(&rcgen::PKCS_ED25519, |_| {});
        assert_eq!(end_point(&ed25519), None);
    }

    #[test]
    fn every_known_signature_has_its_hash() {
        // A certificate reduced to its frame: an empty part to be signed, the algorithm, no signature.
        fn frame(algorithm: &[u8]) -> Vec<u8> {
            let length = |octets: &[u8]| u8::try_from(octets.len()).unwrap();
            let inner = [&[0x30, 0, 0x30, length(algorithm)], algorithm].concat();
            [&[0x30, length(&inner)], inner.as_slice()].concat()
        }
        let rsa = |kind| vec![6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, kind, 5, 0];
        let pss = |hash: u8| {
            let named = [0x30, 0x0f, 0xa0, 0x0d, 0x30, 0x0b, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash];
            [&rsa(10)[..11], &named].concat()
        };
        let bare_pss = [&rsa(10)[..11], &[0x30, 0]].concat();
        for (algorithm, hash) in [
            (rsa(4), Some(&SHA256)),
            (rsa(5), Some(&SHA256)),
            (rsa(11), Some(&SHA256)),
            (rsa(12), Some(&SHA384)),
            (rsa(13), Some(&SHA512)),
            (rsa(14), None),
            (pss(1), Some(&SHA256)),
            (pss(2), Some(&SHA384)),
            (pss(3), Some(&SHA512)),
            (pss(4), None),
            (bare_pss, Some(&SHA256)),
            (vec![6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], Some(&SHA256)),
            (vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4], Some(&SHA512)),
            (vec![6, 3, 0x2b, 0x65, 0x70], None),
        ] {
            let der = frame(&algorithm);
            assert_eq!(end_point(&der), hash.map(|hash| hashed(hash, &der)), "{algorithm:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_can_hurt(
            noise in proptest::collection::vec(any::<u8>(), 0..64),
            at in any::<proptest::sample::Index>(),
            octet in any::<u8>(),
        ) {
            let _ = (Certificate::read(&noise), end_point(&noise));
            let mut der = certificate(&rcgen::PKCS_ED25519, |_| {});
            let at = at.index(der.len());
            der[at] = octet;
            let _ = (Certificate::read(&der), end_point(&der));
            let _ = (Certificate::read(&der[..at]), end_point(&der[..at]));
        }
    }
}
