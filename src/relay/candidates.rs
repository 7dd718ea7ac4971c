//! Whom to try, one after the other: hosts as they are written, and the servers that the DNS names for a domain.
//!
//! `srv:` is two questions, for submission over TLS and, where the settings do not insist on that, for submission with
//! STARTTLS; the second is asked when nobody of the first could be used. Who is led away by an answer that anybody can
//! forge must meet a certificate for the name that the settings have: a server within the domain shows its own, one
//! outside of it the domain's (or `tls_host`). RFC 6186 §3.4 and §6, RFC 8314 §5.1, RFC 7817 §3.

use super::name;
use crate::config::{Account, Host, Tls};
use crate::outcome::{Cause, Fault, Stage};
use crate::smtp::connect::{Service, Target};
use std::collections::VecDeque;

/// Asks the DNS for a service of a domain.
pub(super) type Ask<'a> = &'a dyn Fn(&str, &str) -> Result<Service, Fault>;

/// A server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where it is.
    pub host: Host,
    /// How TLS is spoken there.
    pub tls: Tls,
    /// The host whose name its certificate must carry.
    pub certified: Host,
}

/// An account's candidates that are still to be tried.
pub(super) struct Candidates<'a> {
    left: VecDeque<Step>,
    ask: Ask<'a>,
}

enum Step {
    Try(Candidate),
    Ask { service: &'static str, domain: String, tls: Tls },
}

impl<'a> Candidates<'a> {
    pub fn of(account: &Account, ask: Ask<'a>) -> Self {
        let mut left = VecDeque::new();
        for host in &account.hosts {
            let Host::Srv(domain) = host else {
                let candidate = Candidate { host: host.clone(), tls: account.tls, certified: host.clone() };
                left.push_back(Step::Try(candidate));
                continue;
            };
            let question = |service, tls| Step::Ask { service, domain: domain.clone(), tls };
            left.push_back(question("submissions", Tls::Implicit));
            if account.tls != Tls::Implicit {
                left.push_back(question("submission", Tls::StartTls));
            }
        }
        Self { left, ask }
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
                Step::Ask { service, domain, tls } => {
                    let absent = match (self.ask)(service, &domain) {
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
    Candidate { host: Host::Tcp { name, port }, tls, certified: Host::Tcp { name: certified, port } }
}

/// The domain as the DNS has it. One that IDNA does not know has had no answer.
fn ascii(domain: &str) -> String {
    let bare = domain.trim_end_matches('.');
    idna::domain_to_ascii(bare).unwrap_or_else(|_| bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, port: u16) -> Target {
        Target { name: name.to_owned(), port }
    }

    fn account(hosts: Vec<Host>, tls: Tls) -> Account {
        Account { hosts, tls, ..Account::new("a") }
    }

    fn told(account: &Account, ask: Ask<'_>) -> Vec<String> {
        let mut candidates = Candidates::of(account, ask);
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
        let told = told(&account, &|_, _| panic!("nobody asked"));
        assert_eq!(told, ["a:1 StartTls a:1", "/s StartTls /s"]);
    }

    #[test]
    fn implicit_tls_goes_before_starttls_and_the_certificate_is_the_domains_or_within_it() {
        let ask = |service: &str, domain: &str| {
            assert_eq!(domain, "example.com");
            Ok(match service {
                "submissions" => Service::At(vec![target("Mail.Example.com", 465), target("example.com.evil", 4650)]),
                "submission" => Service::At(vec![target("example.com", 587), target("notexample.com", 587)]),
                other => panic!("{other}"),
            })
        };
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
        let ask = |service: &str, _: &str| match service {
            "submissions" => Ok(Service::NotOffered),
            _ => Ok(Service::Unknown),
        };
        let told = told(&account(vec![Host::Srv("example.com".to_owned())], Tls::StartTls), &ask);
        let expected = [
            "srv:example.com example.com says in the DNS that it has no _submissions service",
            "srv:example.com example.com names no _submission service in the DNS",
        ];
        assert_eq!(told, expected);
    }
}
