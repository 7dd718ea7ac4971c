//! Looks an account's hosts over without sending anything: what a letter would meet at each.
//!
//! The way is that of an attempt, step by step, but it ends neither at the first host that works nor without telling
//! how far it came. MAIL FROM is asked and taken back; no recipient is named.

use super::approach::{Approach, of_dane, terms};
use super::candidates::{Candidate, Candidates};
use super::{Way, name};
use crate::config::{Host, Tls};
use crate::envelope::ReversePath;
use crate::outcome::Fault;
use crate::smtp::Limits;
use crate::smtp::capabilities::Capabilities;
use crate::smtp::connect::{Directory, Dns, Surveyed, connect_at, survey};
use crate::smtp::session::Session;
use crate::smtp::tls::{Encryption, Trust};

/// One host, and how far a letter would come there.
#[derive(Debug)]
pub struct Examined {
    /// The host as a person writes it, or the question to the DNS that led nowhere.
    pub relay: String,
    /// The host itself and how TLS is spoken there; `None` where there is none.
    pub host: Option<(Host, Tls)>,
    /// Its addresses (or its proxy's).
    pub addresses: Vec<Surveyed>,
    /// What it offers before STARTTLS.
    pub offered_in_clear: Option<Capabilities>,
    /// TLS and certificate.
    pub encryption: Option<Encryption>,
    /// What it offers in the session that letters would go through.
    pub offered: Option<Capabilities>,
    /// The SASL mechanism that was used.
    pub mechanism: Option<&'static str>,
    /// What a letter would fail of.
    pub fault: Option<Fault>,
}

impl Examined {
    fn blank(relay: String) -> Self {
        Self {
            relay,
            host: None,
            addresses: Vec::new(),
            offered_in_clear: None,
            encryption: None,
            offered: None,
            mechanism: None,
            fault: None,
        }
    }
}

/// Examines every host of the account, each as it comes. `sender` is the reverse-path that letters would have.
pub fn examine(way: &Way<'_>, sender: &ReversePath, found: &mut dyn FnMut(Examined)) {
    let limits = Limits { step: way.account.timeout, total: way.deadline };
    let dns = Dns { limits, interrupt: &way.interrupt };
    let mut candidates = Candidates::of(way.account, way.domain, &dns);
    let mut trust = None;
    while let Some(next) = candidates.next() {
        match next {
            Ok(candidate) => {
                let mut examined = Examined::blank(name(&candidate.host));
                examined.fault = look(way, &dns, &candidate, sender, &mut trust, &mut examined).err();
                examined.host = Some((candidate.host, candidate.tls));
                found(examined);
            }
            Err(unanswered) => {
                found(Examined { fault: Some(unanswered.fault), ..Examined::blank(unanswered.relay) });
            }
        }
    }
}

fn look(
    way: &Way<'_>,
    directory: &dyn Directory,
    candidate: &Candidate,
    sender: &ReversePath,
    trust: &mut Option<Trust>,
    into: &mut Examined,
) -> Result<(), Fault> {
    let limits = Limits { step: way.account.timeout, total: way.deadline };
    into.addresses = survey(way.account, &candidate.host, &limits, &way.interrupt)?;
    let Approach { addresses, security, by_dane } = Approach::of(way, directory, candidate, 0, trust)?;
    let terms = terms(way, candidate, security)?;
    let stream = connect_at(way.account, &candidate.host, addresses, 0, &limits, &way.interrupt)?;
    let (mut session, mut went) = Session::examine(stream, terms, limits, way.transcript.clone());
    into.offered_in_clear = session.offered_in_clear().cloned();
    into.encryption = session.encryption();
    into.mechanism = session.mechanism();
    if went.is_ok() {
        went = session.try_sender(sender);
    }
    let offered = session.capabilities().clone();
    into.offered = Some(offered).filter(|offered| !offered.listed().is_empty());
    session.close();
    went.map_err(|fault| if by_dane { of_dane(fault) } else { fault })
}
