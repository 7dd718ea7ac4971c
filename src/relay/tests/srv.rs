//! `srv:`, the question to the DNS for a service, and what must be shown by whom it leads to.

use super::*;
use crate::smtp::connect::{Exchange, Exchanger, Located, Service, Target};

/// Answers the question for a service, and no other.
pub(in crate::relay) struct Services<F>(pub F);

impl<F: Fn(&str, &str) -> Result<Service, Fault>> Directory for Services<F> {
    fn service(&self, service: &str, domain: &str) -> Result<Service, Fault> {
        self.0(service, domain)
    }
    fn exchange(&self, _: &str) -> Result<Exchange, Fault> {
        panic!("nobody asked")
    }
    fn locate(&self, _: &Exchanger, _: u16, _: bool, _: usize) -> Result<Located, Fault> {
        panic!("nobody asked")
    }
}

#[test]
fn the_dns_leads_to_a_server_whose_certificate_must_be_the_domains_or_within_it() {
    let (config, pem) = certificate();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let nobody = 1;
    // The server is called localhost, and so says its certificate.
    for (domain, refused) in [
        ("localhost", None),
        ("LocalHost.", None),
        ("example.com", Some("a certificate for localhost, not for example.com")),
    ] {
        let script = Script { ehlo: &["STARTTLS"], tls: Some(Arc::clone(&config)), ..Script::default() };
        let (port, server) = Server::start(script);
        let account = Account {
            hosts: vec![Host::Srv(domain.to_owned())],
            ca_file: Some(ca_file.clone()),
            ..Account::new("test")
        };
        let at = |port| Ok(Service::At(vec![Target { name: "localhost".to_owned(), port }]));
        let services = Services(|service: &str, asked: &str| {
            assert_eq!(asked, domain);
            at(if service == "submissions" { nobody } else { port })
        });
        match (open_asking(&account, &services), refused) {
            (Ok(connection), None) => {
                assert_eq!(connection.relay(), format!("localhost:{port}"));
                let remark = format!("localhost:{nobody} cannot be reached");
                assert!(connection.remarks[0].starts_with(&remark), "{:?}", connection.remarks);
                connection.close();
            }
            (Err(unreached), Some(why)) => {
                let said = unreached.fault.to_string();
                assert!(unreached.fault.stage == Stage::Tls && said.contains(why), "{said}");
            }
            (opened, _) => panic!("{domain}: {:?}", opened.err()),
        }
        drop(server.join());
    }
}

#[test]
fn a_domain_without_a_service_is_a_host_that_does_not_exist() {
    let account = Account { hosts: vec![Host::Srv("example.com".to_owned())], ..Account::new("test") };
    let unreached = open_asking(&account, &Services(|_: &str, _: &str| Ok(Service::NotOffered))).err().unwrap();
    assert_eq!((unreached.relay.as_str(), unreached.fault.stage), ("srv:example.com", Stage::Resolve));
    assert!(matches!(unreached.fault.cause, Cause::NoSuchHost(_)));
    assert!(unreached.remarks.is_empty(), "that one of two services is not there is no news");
}
