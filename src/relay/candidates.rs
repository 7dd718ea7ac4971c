//! Whom to try, one after the other: hosts as they are written, and the servers that the DNS names for a domain.
//!
//! `srv:` is two questions, for submission over TLS and, where the settings do not insist on that, for submission with
//! STARTTLS; the second is asked when nobody of the first could be used. Who is led away by an answer that anybody can
//! forge must meet a certificate for the name that the settings have: a server within the domain shows its own, one
//! outside of it the domain's (or `tls_host`). RFC 6186 §3.4 and §6, RFC 8314 §5.1, RFC 7817 §3.
//!
//! `mx` is one question, for the mail servers of the recipients' domain. Whoever
//! forges its answer has a certificate for the name that he puts there: what is
//! behind it is as sure as the DNS. RFC 5321 §4.1.3 (address literals) and §5.1.

use super::name;
use crate::config::{Account, Host, Tls};
use crate::outcome::{Cause, Fault, Stage};
use crate::smtp::connect::{Directory, Exchange, Exchanger, Service, Target, no_such_domain};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

/// A server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where it is.
    pub host: Host,
    /// How TLS is spoken there.
    pub tls: Tls,
    /// The host whose name its certificate must carry.
    pub certified: Host,
    /// What the DNS has said of it, where it is a domain's mail server.
    pub exchanger: Option<Exchanger>,
}

impl Candidate {
    fn new(host: Host, tls: Tls) -> Self {
        Self { certified: host.clone(), host, tls, exchanger: None }
    }
}

/// An account's candidates that are still to be tried.
pub(super) struct Candidates<'a> {
    left: VecDeque<Step>,
    directory: &'a dyn Directory,
}

enum Step {
    Try(Candidate),
    Ask { service: &'static str, domain: String, tls: Tls },
    AskExchange { domain: String, port: u16, tls: Tls },
}

impl<'a> Candidates<'a> {
    /// `domain` is the recipients', for the mail servers of which an account may ask.
    pub fn of(account: &Account, domain: Option<&str>, directory: &'a dyn Directory) -> Self {
        let mut left = VecDeque::new();
        for host in &account.hosts {
            match host {
                Host::Tcp { .. } | Host::Unix(_) => {
                    left.push_back(Step::Try(Candidate::new(host.clone(), account.tls)));
                }
                Host::Srv(domain) => {
                    let question = |service, tls| Step::Ask { service, domain: domain.clone(), tls };
                    left.push_back(question("submissions", Tls::Implicit));
                    if account.tls != Tls::Implicit {
                        left.push_back(question("submission", Tls::StartTls));
                    }
                }
                Host::Mx(port) => left.extend(domain.map(|domain| Step::AskExchange {
                    domain: domain.to_owned(),
                    port: *port,
                    tls: account.tls,
                })),
            }
        }
        Self { left, directory }
    }

    /// How many come after this one, as far as is known.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next one; or a question that has no answer, and why.
    pub fn next(&mut self) -> Option<Result<Candidate, Unanswered>> {
        loop {
            match self.left.pop_front()? {
                Step::Try(candidate) => return Some(Ok(candidate)),
                Step::AskExchange { domain, port, tls } => match self.exchange(&domain, port, tls) {
                    Ok(found) => self.left.extend(found.into_iter().map(Step::Try)),
                    Err(fault) => return Some(Err(Unanswered { relay: domain, fault, absent: false })),
                },
                Step::Ask { service, domain, tls } => {
                    let absent = match self.directory.service(service, &domain) {
                        Ok(Service::At(targets)) => {
                            let found = targets.into_iter().rev();
                            found.for_each(|target| self.left.push_front(Step::Try(found_at(target, &domain, tls))));
                            continue;
                        }
                        Ok(Service::NotOffered) => {
                            format!("{domain} says in the DNS that it has no _{service} service")
                        }
                        Ok(Service::Unknown) => format!("{domain} names no _{service} service in the DNS"),
                        Err(fault) => {
                            return Some(Err(Unanswered { relay: name(&Host::Srv(domain)), fault, absent: false }));
                        }
                    };
                    let fault = Fault::new(Stage::Resolve, Cause::NoSuchHost(absent));
                    return Some(Err(Unanswered { relay: name(&Host::Srv(domain)), fault, absent: true }));
                }
            }
        }
    }
}

impl Candidates<'_> {
    /// The mail servers of a domain. An address literal stands for itself, and `localhost` is no matter of the DNS.
    fn exchange(&self, domain: &str, port: u16, tls: Tls) -> Result<Vec<Candidate>, Fault> {
        let at = |name: &str| Ok(vec![Candidate::new(Host::Tcp { name: name.to_owned(), port }, tls)]);
        let fault = |cause| Err(Fault::new(Stage::Resolve, cause));
        if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = match literal.split_at_checked(5) {
                Some((tag, six)) if tag.eq_ignore_ascii_case("IPv6:") => six.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
                _ => literal.parse().ok().filter(IpAddr::is_ipv4),
            };
            let no_address = || fault(Cause::NoSuchDomain("is no address that mail can be sent to".to_owned()));
            return address.map_or_else(no_address, |address| at(&address.to_string()));
        }
        if domain.eq_ignore_ascii_case("localhost") {
            return at(domain);
        }
        match self.directory.exchange(domain)? {
            Exchange::To(servers) => {
                let candidate = |exchanger: Exchanger| Candidate {
                    exchanger: Some(exchanger.clone()),
                    ..Candidate::new(Host::Tcp { name: exchanger.name, port }, tls)
                };
                Ok(servers.into_iter().map(candidate).collect())
            }
            Exchange::Nowhere => {
                fault(Cause::NullMx("takes no mail: it says so in the DNS (null MX, RFC 7505)".to_owned()))
            }
            Exchange::Unknown => fault(no_such_domain()),
        }
    }
}

/// A question without an answer.
pub(super) struct Unanswered {
    pub relay: String,
    pub fault: Fault,
    /// There is no such service, which is no news where another is there.
    pub absent: bool,
}

fn found_at(target: Target, domain: &str, tls: Tls) -> Candidate {
    let Target { name, port } = target;
    let (inner, outer) = (name.to_ascii_lowercase(), ascii(domain));
    let within = inner == outer || inner.strip_suffix(&outer).is_some_and(|rest| rest.ends_with('.'));
    let certified = if within { name.clone() } else { outer };
    let certified = Host::Tcp { name: certified, port };
    Candidate { certified, ..Candidate::new(Host::Tcp { name, port }, tls) }
}

/// The domain as the DNS has it. One that IDNA does not know has had no answer.
fn ascii(domain: &str) -> String {
    let bare = domain.trim_end_matches('.');
    idna::domain_to_ascii(bare).unwrap_or_else(|_| bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::tests::srv::Services;
    use super::*;
    use crate::smtp::connect::Located;

    fn target(name: &str, port: u16) -> Target {
        Target { name: name.to_owned(), port }
    }

    fn account(hosts: Vec<Host>, tls: Tls) -> Account {
        Account { hosts, tls, ..Account::new("a") }
    }

    fn told(account: &Account, directory: &dyn Directory) -> Vec<String> {
        told_for(account, None, directory)
    }

    fn told_for(account: &Account, domain: Option<&str>, directory: &dyn Directory) -> Vec<String> {
        let mut candidates = Candidates::of(account, domain, directory);
        let mut told = Vec::new();
        while let Some(next) = candidates.next() {
            told.push(match next {
                Ok(one) => format!("{} {:?} {}", name(&one.host), one.tls, name(&one.certified)),
                Err(unanswered) => format!("{} {}", unanswered.relay, unanswered.fault),
            });
        }
        told
    }

    #[test]
    fn hosts_are_tried_as_they_are_written_and_the_dns_is_not_asked_for_them() {
        let tcp = Host::Tcp { name: "a".to_owned(), port: 1 };
        let account = account(vec![tcp, Host::Unix("/s".into())], Tls::StartTls);
        let told = told(&account, &Services(|_: &str, _: &str| panic!("nobody asked")));
        assert_eq!(told, ["a:1 StartTls a:1", "/s StartTls /s"]);
    }

    #[test]
    fn implicit_tls_goes_before_starttls_and_the_certificate_is_the_domains_or_within_it() {
        let ask = Services(|service: &str, domain: &str| {
            assert_eq!(domain, "example.com");
            Ok(match service {
                "submissions" => Service::At(vec![target("Mail.Example.com", 465), target("example.com.evil", 4650)]),
                "submission" => Service::At(vec![target("example.com", 587), target("notexample.com", 587)]),
                other => panic!("{other}"),
            })
        });
        let srv = || vec![Host::Srv("example.com".to_owned()), Host::Tcp { name: "b".to_owned(), port: 587 }];
        let implicit =
            ["Mail.Example.com:465 Implicit Mail.Example.com:465", "example.com.evil:4650 Implicit example.com:4650"];
        let starttls = ["example.com:587 StartTls example.com:587", "notexample.com:587 StartTls example.com:587"];
        let all = told(&account(srv(), Tls::StartTls), &ask);
        assert_eq!(all, [&implicit[..], &starttls, &["b:587 StartTls b:587"]].concat());
        let only = told(&account(srv(), Tls::Implicit), &ask);
        assert_eq!(only, [&implicit[..], &["b:587 Implicit b:587"]].concat());
    }

    #[test]
    fn what_is_not_there_is_told_and_the_next_question_asked() {
        let ask = Services(|service: &str, _: &str| match service {
            "submissions" => Ok(Service::NotOffered),
            _ => Ok(Service::Unknown),
        });
        let told = told(&account(vec![Host::Srv("example.com".to_owned())], Tls::StartTls), &ask);
        let expected = [
            "srv:example.com example.com says in the DNS that it has no _submissions service",
            "srv:example.com example.com names no _submission service in the DNS",
        ];
        assert_eq!(told, expected);
    }

    /// Knows where the mail of a few domains goes.
    struct Domains;

    impl Directory for Domains {
        fn service(&self, _: &str, _: &str) -> Result<Service, Fault> {
            panic!("nobody asked")
        }
        fn exchange(&self, domain: &str) -> Result<Exchange, Fault> {
            let at = |name: &str| Exchanger {
                name: name.to_owned(),
                domain: domain.to_owned(),
                implicit: false,
                secure: false,
            };
            match domain {
                "two.example" => Ok(Exchange::To(vec![at("mx1.example"), at("mx2.example")])),
                "null.example" => Ok(Exchange::Nowhere),
                "none.example" => Ok(Exchange::Unknown),
                _ => Err(Fault::new(Stage::Resolve, Cause::Timeout("no name server answered".to_owned()))),
            }
        }
        fn locate(&self, _: &Exchanger, _: u16, _: bool, _: usize) -> Result<Located, Fault> {
            panic!("not before it is tried")
        }
    }

    #[test]
    fn a_domains_mail_goes_to_its_servers_and_an_address_stands_for_itself() {
        let account = account(vec![Host::Mx(25)], Tls::Opportunistic);
        let told = |domain| told_for(&account, Some(domain), &Domains);
        let expected = ["mx1.example:25 Opportunistic mx1.example:25", "mx2.example:25 Opportunistic mx2.example:25"];
        assert_eq!(told("two.example"), expected);
        for (domain, expected) in [
            ("[192.0.2.1]", "192.0.2.1:25 Opportunistic 192.0.2.1:25"),
            ("[IPv6:2001:db8::1]", "[2001:db8::1]:25 Opportunistic [2001:db8::1]:25"),
            ("[ipv6:::1]", "[::1]:25 Opportunistic [::1]:25"),
            ("localhost", "localhost:25 Opportunistic localhost:25"),
            ("[2001:db8::1]", "[2001:db8::1] is no address that mail can be sent to"),
            ("[nowhere]", "[nowhere] is no address that mail can be sent to"),
            ("null.example", "null.example takes no mail: it says so in the DNS (null MX, RFC 7505)"),
            ("none.example", "none.example does not exist: the DNS knows no such domain"),
            ("dead.example", "dead.example no name server answered"),
        ] {
            assert_eq!(told(domain), [expected]);
        }
        assert!(told_for(&account, None, &Domains).is_empty());
    }
}
