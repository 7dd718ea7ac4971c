//! The way to one candidate: where it is, whom TLS must be with, and on what terms a session is opened.
//!
//! Other people's mail servers are spoken to as securely as they can be (RFC 7435): what the DNS vouches for is
//! demanded; else TLS is taken without a proof, since the alternative is none; and where TLS comes to nothing, the
//! letter goes in clear, over a new connection. Who breaks a handshake on the way could as well have hidden that
//! STARTTLS is offered, so that waiting for a better day would only delay mail to servers whose TLS is broken. Whoever
//! wants more says `tls = "starttls"`.

use super::candidates::Candidate;
use super::{Way, name};
use crate::config::{Auth, Host, Tls};
use crate::outcome::{Cause, Fault, Stage};
use crate::secret::Secret;
use crate::smtp::Limits;
use crate::smtp::auth::Credentials;
use crate::smtp::connect::{Directory, Exchanger, Located, connect_at};
use crate::smtp::session::{Security, Session, Terms, client_id};
use crate::smtp::tls::Trust;
use crate::smtp::transaction::Protocol;
use std::net::SocketAddr;

/// Opens a session with a candidate.
pub(super) fn open(
    way: &Way<'_>,
    directory: &dyn Directory,
    candidate: &Candidate,
    others: usize,
    trust: &mut Option<Trust>,
    remarks: &mut Vec<String>,
) -> Result<Session, Fault> {
    let approach = Approach::of(way, directory, candidate, others, trust)?;
    let open = |approach: Approach| {
        let terms = terms(way, candidate, approach.security)?;
        if let Some(transcript) = &way.transcript {
            transcript.line(&format!("* connecting to {}", name(&candidate.host)));
        }
        let limits = Limits { step: way.account.timeout, total: way.deadline };
        let stream = connect_at(way.account, &candidate.host, approach.addresses, others, &limits, &way.interrupt)?;
        Session::open(stream, terms, limits, way.transcript.clone())
    };
    let in_clear = Approach { addresses: approach.addresses.clone(), security: Security::Off, by_dane: false };
    let by_dane = approach.by_dane;
    match open(approach) {
        Err(fault) if by_dane => Err(of_dane(fault)),
        Err(fault) if candidate.tls == Tls::Opportunistic && is_about_tls(&fault) => {
            remarks.push(format!("{} {fault}; the letter goes there without TLS", name(&candidate.host)));
            open(in_clear)
        }
        opened => opened,
    }
}

/// How to get to a candidate.
pub(super) struct Approach {
    /// Where it is, as far as that is known.
    pub addresses: Option<Vec<SocketAddr>>,
    pub security: Security,
    /// It is the DNS that demands TLS, and not our settings.
    pub by_dane: bool,
}

impl Approach {
    pub fn of(
        way: &Way<'_>,
        directory: &dyn Directory,
        candidate: &Candidate,
        others: usize,
        trust: &mut Option<Trust>,
    ) -> Result<Self, Fault> {
        let located =
            candidate.exchanger.as_ref().map(|exchanger| locate(way, directory, exchanger, &candidate.host, others));
        let Located { addresses, tlsa, base } = located.transpose()?.unwrap_or_default();
        let peer = |trust: &Trust, host: &Host| trust.peer(way.account, host).map_err(|why| local(why.to_string()));
        let of_account = |trust: &mut Option<Trust>| {
            let known = match trust.take() {
                Some(known) => known,
                None => Trust::of(way.account).map_err(|why| local(why.to_string()))?,
            };
            peer(trust.insert(known), &candidate.certified)
        };
        let by_dane = tlsa.is_some();
        let security = match (candidate.tls, tlsa) {
            (Tls::Off, _) => Security::Off,
            (Tls::StartTls | Tls::Opportunistic, Some(records)) => {
                let names = [Some(base.as_str()), way.domain];
                let trust = Trust::dane(way.account, records, names.into_iter().flatten());
                let host = Host::Tcp { name: base, port: 0 };
                Security::StartTls(peer(&trust.map_err(|why| local(why.to_string()))?, &host)?)
            }
            (Tls::StartTls, None) => Security::StartTls(of_account(trust)?),
            (Tls::Opportunistic, None) => Security::Opportunistic(of_account(trust)?),
            (Tls::Implicit, _) => Security::Implicit(of_account(trust)?),
        };
        Ok(Self { addresses, security, by_dane })
    }
}

/// The same fault where it is the DNS that demands TLS: not our settings' but theirs.
pub(super) fn of_dane(fault: Fault) -> Fault {
    if !is_about_tls(&fault) {
        return fault;
    }
    let text = match fault.cause {
        Cause::Policy(_) => "does not offer STARTTLS, which its TLSA records in the DNS (DANE) demand".to_owned(),
        cause => cause.to_string(),
    };
    Fault::new(Stage::StartTls, Cause::Tls(text))
}

/// Whether it is TLS that has come to nothing, and nobody has called us off.
fn is_about_tls(fault: &Fault) -> bool {
    matches!(fault.stage, Stage::StartTls | Stage::Tls) && fault.cause != Cause::Interrupted
}

fn local(text: String) -> Fault {
    Fault::new(Stage::Local, Cause::Local(text))
}

/// Where a mail server is and what it must show, where that matters: what the settings say of certificates goes first.
fn locate(
    way: &Way<'_>,
    directory: &dyn Directory,
    exchanger: &Exchanger,
    host: &Host,
    others: usize,
) -> Result<Located, Fault> {
    let account = way.account;
    let is_told = account.ca_file.is_some() || account.tls_host.is_some() || !account.pins.is_empty();
    let secure = exchanger.secure && account.tls != Tls::Off && !is_told;
    let port = if let Host::Tcp { port, .. } = host { *port } else { 0 };
    directory.locate(&Exchanger { secure, ..exchanger.clone() }, port, account.proxy.is_some(), others)
}

/// On what terms a session with a candidate is opened.
pub(super) fn terms<'a>(way: &Way<'a>, candidate: &'a Candidate, security: Security) -> Result<Terms<'a>, Fault> {
    let account = way.account;
    let host = &candidate.host;
    let helo = account.helo.as_deref().unwrap_or(way.helo);
    let client =
        client_id(helo).ok_or_else(|| local(format!("{helo:?} is no name to greet a relay with; set helo")))?;
    let auth = match (account.auth, &account.user) {
        (Auth::Off, _) | (Auth::Auto, None) => None,
        (Auth::External, _) if account.cert_file.is_none() => {
            return Err(local(format!("account {} demands AUTH EXTERNAL but has no cert_file", account.name)));
        }
        (Auth::External, user) => {
            let user = user.as_deref().unwrap_or_default();
            Some((Auth::External, Credentials { user, secret: Secret::new(Vec::new()), relay: None }))
        }
        (wanted, Some(user)) => {
            let relay = match host {
                Host::Tcp { name, port } => Some((name.as_str(), *port)),
                Host::Unix(_) | Host::Srv(_) | Host::Mx(_) => None,
            };
            Some((wanted, Credentials { user, secret: (way.password)(host).map_err(local)?, relay }))
        }
        (_, None) => return Err(local(format!("account {} demands AUTH but has no user", account.name))),
    };
    let protocol = if account.lmtp { Protocol::Lmtp } else { Protocol::Smtp };
    Ok(Terms { client, protocol, security, auth })
}
