//! What the DNS says that a server shows (DANE): TLSA records and certificates compared.
//!
//! Of the four usages two make sense for mail: the server's own certificate or key (3), where nothing
//! else counts, not even its dates and names; and the authority above it (2), which must stand in the
//! chain that the server shows, or in the record, and has vouched for one of the names that the server
//! may have. The other two lean on the platform's authorities, of whom no two mail servers have the same;
//! a record that has one of them is one that we cannot use. Of two digests of the same thing only the
//! stronger counts, so that a weak one is no way in. RFC 6698 §2.1, RFC 7671 §5 and §9, RFC 7672 §3.1.

use super::super::certificate::sha256;
use super::verify::Shown;
use ring::digest::{SHA512, digest};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

/// A TLSA record that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    usage: Usage,
    selector: Selector,
    data: Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// 2, DANE-TA.
    Authority,
    /// 3, DANE-EE.
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selector {
    /// 0.
    Certificate,
    /// 1.
    Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    /// 0.
    Whole(Vec<u8>),
    /// 1.
    Sha256([u8; 32]),
    /// 2.
    Sha512([u8; 64]),
}

impl Tlsa {
    /// Reads a record's data; `None` where it is of a kind that we cannot use, or malformed.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let (&[usage, selector, matching], data) = octets.split_first_chunk::<3>()?;
        let usage = match usage {
            2 => Usage::Authority,
            3 => Usage::Server,
            _ => return None,
        };
        let selector = match selector {
            0 => Selector::Certificate,
            1 => Selector::Key,
            _ => return None,
        };
        let data = match matching {
            0 if !data.is_empty() => Data::Whole(data.to_vec()),
            1 => Data::Sha256(data.try_into().ok()?),
            2 => Data::Sha512(data.try_into().ok()?),
            _ => return None,
        };
        Some(Self { usage, selector, data })
    }

    fn fits(&self, certificate: &CertificateDer<'_>) -> bool {
        let key;
        let octets = match self.selector {
            Selector::Certificate => certificate.as_ref(),
            Selector::Key => {
                let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
                key = parsed.subject_public_key_info();
                key.as_ref()
            }
        };
        match &self.data {
            Data::Whole(whole) => whole == octets,
            Data::Sha256(hash) => *hash == sha256(octets),
            Data::Sha512(hash) => hash[..] == *digest(&SHA512, octets).as_ref(),
        }
    }
}

/// What a server must show.
#[derive(Debug)]
pub(super) struct Dane {
    /// At least one.
    pub records: Vec<Tlsa>,
    /// The names that an authority may have vouched for: the server's, and the domain's whose mail it takes.
    pub names: Vec<ServerName<'static>>,
}

impl Dane {
    /// Whether a server that shows this is the one that the records speak of.
    pub fn allows(&self, shown: Shown<'_>) -> bool {
        let strong = |record: &&Tlsa| {
            let outdone = |other: &Tlsa| {
                matches!(other.data, Data::Sha512(_))
                    && (other.usage, other.selector) == (record.usage, record.selector)
            };
            !matches!(record.data, Data::Sha256(_)) || !self.records.iter().any(outdone)
        };
        self.records.iter().filter(strong).any(|record| match record.usage {
            Usage::Server => record.fits(shown.leaf),
            Usage::Authority => {
                let own = match (&record.data, record.selector) {
                    (Data::Whole(whole), Selector::Certificate) => Some(CertificateDer::from(whole.as_slice())),
                    _ => None,
                };
                let named = shown.intermediates.iter().filter(|certificate| record.fits(certificate));
                let mut authorities = RootCertStore::empty();
                authorities.add_parsable_certificates(named.cloned().map(CertificateDer::into_owned));
                authorities.add_parsable_certificates(own.map(CertificateDer::into_owned));
                shown.leads_to(&authorities).is_ok() && self.names.iter().any(|name| shown.carries(name).is_ok())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::rehearsal::Authority;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::UnixTime;
    use rustls::pki_types::pem::PemObject;

    const NAME: &str = "mx.example.org";

    /// The record of these numbers for a certificate.
    fn record(usage: u8, selector: u8, matching: u8, certificate: &CertificateDer<'_>) -> Tlsa {
        let key = ParsedCertificate::try_from(certificate).unwrap().subject_public_key_info();
        let octets = if selector == 0 { certificate.as_ref() } else { key.as_ref() };
        let data = match matching {
            0 => octets.to_vec(),
            1 => sha256(octets).to_vec(),
            _ => digest(&SHA512, octets).as_ref().to_vec(),
        };
        Tlsa::read(&[&[usage, selector, matching][..], &data].concat()).unwrap()
    }

    struct Case {
        leaf: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        other: CertificateDer<'static>,
    }

    impl Case {
        /// A certificate for that name, of these years.
        fn new(name: &str, from: i32, to: i32) -> Self {
            let (authority, stranger) = (Authority::new(), Authority::named("Stranger"));
            let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
            parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
            let leaf = authority.certify(&parameters, &KeyPair::generate().unwrap()).der;
            let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            Self { leaf, authority: der(&authority.pem), other: der(&stranger.pem) }
        }

        fn allows(&self, records: &[Tlsa], chain: &[CertificateDer<'static>]) -> bool {
            let names = [NAME, "example.org"].map(|name| ServerName::try_from(name).unwrap()).to_vec();
            let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
            let parsed = ParsedCertificate::try_from(&self.leaf).unwrap();
            Dane { records: records.to_vec(), names }.allows(Shown {
                leaf: &self.leaf,
                parsed: &parsed,
                intermediates: chain,
                now: UnixTime::now(),
                algorithms,
            })
        }
    }

    #[test]
    fn the_servers_own_record_counts_alone_whatever_else_is_wrong() {
        for case in [Case::new(NAME, 2020, 2090), Case::new("other.example", 2020, 2021)] {
            for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
                assert!(case.allows(&[record(3, selector, matching, &case.leaf)], &[]));
                let wrong = record(3, selector, matching, &case.other);
                assert!(!case.allows(std::slice::from_ref(&wrong), &[]));
                assert!(case.allows(&[wrong, record(3, 0, 0, &case.leaf)], &[]), "one of them is enough");
            }
        }
    }

    #[test]
    fn an_authority_vouches_for_names_and_dates() {
        let good = Case::new(NAME, 2020, 2090);
        for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let fits = record(2, selector, matching, &good.authority);
            assert!(good.allows(std::slice::from_ref(&fits), std::slice::from_ref(&good.authority)));
            let without_chain = (selector, matching) == (0, 0);
            assert_eq!(
                good.allows(&[fits], &[]),
                without_chain,
                "the whole authority stands in the record, or nowhere"
            );
            assert!(
                !good.allows(
                    &[record(2, selector, matching, &good.other)],
                    &[good.authority.clone(), good.other.clone()]
                )
            );
        }
        let vouched =
            |case: &Case| case.allows(&[record(2, 0, 1, &case.authority)], std::slice::from_ref(&case.authority));
        assert!(vouched(&Case::new("example.org", 2020, 2090)), "the domain's own name does as well");
        assert!(!vouched(&Case::new("other.example", 2020, 2090)));
        assert!(!vouched(&Case::new(NAME, 2020, 2021)));
    }

    #[test]
    fn a_weak_digest_is_no_way_around_a_strong_one() {
        let case = Case::new(NAME, 2020, 2090);
        let (weak, strong) = (record(3, 1, 1, &case.leaf), record(3, 1, 2, &case.other));
        assert!(!case.allows(&[weak.clone(), strong.clone()], &[]));
        assert!(case.allows(&[weak, record(3, 0, 2, &case.other)], &[]), "of another thing");
        assert!(case.allows(&[record(3, 1, 0, &case.leaf), strong], &[]), "the thing itself is no digest");
    }

    #[test]
    fn records_of_no_use_are_known_as_such() {
        let hash = [0; 32];
        for (head, data) in [
            ([0, 0, 1], &hash[..]),
            ([1, 1, 1], &hash),
            ([4, 0, 1], &hash),
            ([255, 0, 1], &hash),
            ([3, 2, 1], &hash),
            ([3, 1, 3], &hash),
            ([3, 1, 1], &hash[..31]),
            ([3, 1, 2], &hash),
            ([3, 1, 0], &[]),
        ] {
            assert_eq!(Tlsa::read(&[&head, data].concat()), None, "{head:?}");
        }
        assert_eq!(Tlsa::read(&[3, 1]), None);
        assert!(Tlsa::read(&[&[3, 1, 1][..], &hash].concat()).is_some());
    }
}
