//! Which server takes mail of a domain: the table of providers, the
//! domain's own word in the DNS, and then a guess that is tried.
//!
//! Nothing is taken silently: each server that is looked at is told with what came of it. What leads
//! to a server outside of the domain is an answer that anybody on the way can forge (RFC 6186 §6),
//! and a password would follow it: a person is asked whether he knows the name, and where nobody is
//! asked it is passed over. Guesses, and servers from the DNS, count only where they answer with TLS
//! and a certificate that is right for their name. Between them stands what the domain's MX records
//! say of its provider, which is in the table or is not known. RFC 6186 and RFC 8314 §5.1 (SRV).

use super::providers::{self, Provider};
use crate::config::{Host, Tls};
use crate::outcome::{Fault, printable};
use crate::relay::name;
use crate::smtp::connect::Service;

/// A server that may take the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How TLS is spoken there.
    pub tls: Tls,
}

impl Candidate {
    fn new(host: impl Into<String>, port: u16, tls: Tls) -> Self {
        Self { host: host.into(), port, tls }
    }

    /// The same, as an account's host.
    pub fn as_host(&self) -> Host {
        Host::Tcp { name: self.host.clone(), port: self.port }
    }
}

/// `smtp.example.org:465 (TLS)`
impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = match self.tls {
            Tls::Implicit => "TLS",
            Tls::StartTls | Tls::Opportunistic => "STARTTLS",
            Tls::Off => "no TLS",
        };
        write!(f, "{} ({tls})", printable(&name(&self.as_host())))
    }
}

/// Whether a session can be opened; what is wrong with it, in words.
pub type Reached = Result<(), String>;

/// What a search needs of the world.
pub struct World<'a> {
    /// Asks the DNS for a service of a domain.
    pub ask: &'a dyn Fn(&str, &str) -> Result<Service, Fault>,
    /// The names of the servers that take mail for a domain; none where that cannot be known.
    pub exchangers: &'a dyn Fn(&str) -> Vec<String>,
    /// Opens a session with each of these and leaves. Side by side: silence takes its time.
    pub reach: &'a dyn Fn(&[Candidate]) -> Vec<Reached>,
    /// Tells the person something.
    pub say: &'a mut dyn FnMut(&str),
    /// Whether the person knows this name as his provider's.
    pub knows: &'a mut dyn FnMut(&str) -> bool,
}

/// A server, and who runs it where that is known.
pub type Found = (Candidate, Option<&'static Provider>);

/// Finds the server for a domain. `None`: there is none to be found; what was tried has been told.
pub fn server(domain: &str, world: &mut World<'_>) -> Option<Found> {
    if let Some(provider) = providers::of(domain) {
        let Some((host, port, tls)) = provider.way else {
            (world.say)(&format!("{domain} is {}, which takes no mail by SMTP.", provider.name));
            return None;
        };
        let found = Candidate::new(host, port, tls);
        (world.say)(&format!("{domain} is {}: {found}.", provider.name));
        return Some((found, Some(provider)));
    }
    (world.say)(&format!("Looking for the mail server of {domain} ..."));
    if let Some(found) = named(domain, world) {
        return Some((found, None));
    }
    hosted(domain, world).or_else(|| guessed(domain, world).map(|found| (found, None)))
}

/// Who has the domain's mail. A forged answer could lead from one row of the table to another, and nowhere else.
fn hosted(domain: &str, world: &mut World<'_>) -> Option<Found> {
    let names = (world.exchangers)(domain);
    let (name, provider) = names.iter().find_map(|name| Some((name, providers::behind(name)?)))?;
    let (host, port, tls) = provider.way?;
    let found = Candidate::new(host, port, tls);
    (world.say)(&format!("  {found}: {}, which has the mail of {domain} ({})", provider.name, printable(name)));
    Some((found, Some(provider)))
}

/// What the domain itself says.
fn named(domain: &str, world: &mut World<'_>) -> Option<Candidate> {
    for (service, tls) in [("submissions", Tls::Implicit), ("submission", Tls::StartTls)] {
        let targets = match (world.ask)(service, domain) {
            Ok(Service::At(targets)) => targets,
            Ok(Service::NotOffered | Service::Unknown) => continue,
            Err(fault) => {
                (world.say)(&format!("  DNS (_{service}._tcp): {}", printable(&fault.to_string())));
                return None;
            }
        };
        for target in targets {
            let found = Candidate::new(target.name, target.port, tls);
            if !is_within(&found.host, domain) && !(world.knows)(&found.host) {
                (world.say)(&format!("  {found}: passed over, it is outside of {domain} and the DNS can be forged"));
                continue;
            }
            if told(&found, "named by the DNS", (world.reach)(std::slice::from_ref(&found)).pop(), world) {
                return Some(found);
            }
        }
    }
    None
}

/// What many domains have.
fn guessed(domain: &str, world: &mut World<'_>) -> Option<Candidate> {
    let at = |(port, tls)| ["smtp", "mail"].map(|name| Candidate::new(format!("{name}.{domain}"), port, tls));
    let guesses = [(465, Tls::Implicit), (587, Tls::StartTls)].map(at).concat();
    let reached = (world.reach)(&guesses);
    let mut found = None;
    for (guess, reached) in guesses.into_iter().zip(reached) {
        if told(&guess, "a guess", Some(reached), world) && found.is_none() {
            found = Some(guess);
        }
    }
    found
}

/// Tells what came of a try; whether it answered.
fn told(found: &Candidate, whence: &str, reached: Option<Reached>, world: &mut World<'_>) -> bool {
    let (answers, words) = match reached {
        Some(Ok(())) => (true, "answers".to_owned()),
        Some(Err(why)) => (false, printable(&why)),
        None => (false, "was not tried".to_owned()),
    };
    (world.say)(&format!("  {found}, {whence}: {words}"));
    answers
}

fn is_within(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.trim_end_matches('.').to_ascii_lowercase(), domain.to_ascii_lowercase());
    host == domain || host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Cause, Stage};
    use crate::smtp::connect::Target;

    /// Finds with servers that answer, what the DNS has (services, and servers as `mx`), and names that the person
    /// knows; gives what was told as well.
    fn found(domain: &str, dns: &[(&str, &[(&str, u16)])], up: &[&str], familiar: &[&str]) -> (Option<String>, String) {
        let mut said = String::new();
        let ask = |service: &str, asked: &str| {
            assert_eq!(asked, domain);
            match dns.iter().find(|(name, _)| *name == service) {
                Some((_, [])) => Ok(Service::NotOffered),
                Some((_, [("fails", _)])) => Err(Fault::new(Stage::Resolve, Cause::Network("fails".to_owned()))),
                Some((_, targets)) => {
                    let target = |(name, port): &(&str, u16)| Target { name: (*name).to_owned(), port: *port };
                    Ok(Service::At(targets.iter().map(target).collect()))
                }
                None => Ok(Service::Unknown),
            }
        };
        let reach = |tried: &[Candidate]| {
            let one = |one: &Candidate| {
                if up.contains(&name(&one.as_host()).as_str()) {
                    Ok(())
                } else {
                    Err("cannot be reached\u{1b}".to_owned())
                }
            };
            tried.iter().map(one).collect()
        };
        let found = {
            let mut say = |line: &str| said = format!("{said}{line}\n");
            let mut knows = |name: &str| familiar.contains(&name);
            let exchangers = |_: &str| {
                let servers = dns.iter().filter(|(name, _)| *name == "mx").flat_map(|(_, servers)| servers.iter());
                servers.map(|(name, _)| (*name).to_owned()).collect()
            };
            server(
                domain,
                &mut World { ask: &ask, exchangers: &exchangers, reach: &reach, say: &mut say, knows: &mut knows },
            )
        };
        (found.map(|(found, _)| found.to_string()), said)
    }

    #[test]
    fn a_provider_that_is_known_is_named_and_nobody_is_asked() {
        let (server, said) = found("gmail.com", &[], &[], &[]);
        assert_eq!(server.as_deref(), Some("smtp.gmail.com:465 (TLS)"));
        assert_eq!(said, "gmail.com is Gmail: smtp.gmail.com:465 (TLS).\n");
        let (server, said) = found("tuta.com", &[], &[], &[]);
        assert_eq!((server, said.as_str()), (None, "tuta.com is Tuta, which takes no mail by SMTP.\n"));
    }

    #[test]
    fn the_domains_own_word_comes_before_a_guess() {
        let dns: &[(&str, &[(&str, u16)])] =
            &[("submissions", &[("a.x.org", 465), ("b.x.org", 4650)]), ("submission", &[("c.x.org", 587)])];
        let (server, said) = found("x.org", dns, &["b.x.org:4650", "smtp.x.org:465"], &[]);
        assert_eq!(server.as_deref(), Some("b.x.org:4650 (TLS)"));
        assert_eq!(
            said,
            "Looking for the mail server of x.org ...\n  a.x.org:465 (TLS), named by the DNS: cannot be \
             reached\\x1b\n  b.x.org:4650 (TLS), named by the DNS: answers\n"
        );
        let (server, _) = found("x.org", &dns[1..], &["c.x.org:587", "smtp.x.org:465"], &[]);
        assert_eq!(server.as_deref(), Some("c.x.org:587 (STARTTLS)"));
    }

    #[test]
    fn a_name_outside_of_the_domain_is_taken_only_by_somebody_who_knows_it() {
        let dns: &[(&str, &[(&str, u16)])] = &[("submissions", &[("mail.host.example", 465)])];
        let up = ["mail.host.example:465"];
        let (server, said) = found("x.org", dns, &up, &[]);
        assert!(server.is_none() && said.contains("passed over, it is outside of x.org"), "{said}");
        let (server, _) = found("x.org", dns, &up, &["mail.host.example"]);
        assert_eq!(server.as_deref(), Some("mail.host.example:465 (TLS)"));
        assert!(is_within("X.org.", "x.org") && is_within("a.x.org", "X.ORG") && !is_within("ax.org", "x.org"));
    }

    #[test]
    fn a_domain_whose_mail_a_provider_has_is_sent_from_there() {
        let dns: &[(&str, &[(&str, u16)])] = &[("mx", &[("mx.x.org", 0), ("ASPMX.L.Google.com", 0)])];
        let (server, said) = found("x.org", dns, &["smtp.x.org:465"], &[]);
        assert_eq!(server.as_deref(), Some("smtp.gmail.com:465 (TLS)"));
        assert!(
            said.ends_with("  smtp.gmail.com:465 (TLS): Gmail, which has the mail of x.org (ASPMX.L.Google.com)\n"),
            "{said}"
        );
        let (server, _) = found("x.org", &[("mx", &[("mx.notgoogle.com", 0)])], &["smtp.x.org:465"], &[]);
        assert_eq!(server.as_deref(), Some("smtp.x.org:465 (TLS)"));
    }

    #[test]
    fn a_guess_is_tried_and_told() {
        let (server, said) = found("x.org", &[("submissions", &[])], &["mail.x.org:587", "smtp.x.org:587"], &[]);
        assert_eq!(server.as_deref(), Some("smtp.x.org:587 (STARTTLS)"));
        for line in ["smtp.x.org:465 (TLS), a guess: cannot be", "mail.x.org:587 (STARTTLS), a guess: answers"] {
            assert!(said.contains(line), "{said}");
        }
        let (server, said) = found("x.org", &[("submissions", &[("fails", 1)])], &[], &[]);
        assert!(server.is_none() && said.contains("DNS (_submissions._tcp): fails\n"), "{said}");
    }
}
