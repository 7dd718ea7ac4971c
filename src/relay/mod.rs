//! One attempt through an account: account, envelope and letter in, a [`Report`] out.
//!
//! The account's hosts ([`candidates`]) are tried in order until one opens a session; what became of the others is a remark.
//! The password is asked for before a host is connected to, so that a slow helper keeps no server waiting. A
//! connection can carry many letters, several of them at once. This floor reports; it does not decide to retry, and it never fails
//! without an outcome for each recipient. What a fault means is [`verdict`]'s to say.

mod candidates;
pub mod examine;
pub mod verdict;

use crate::config::{Account, Auth, Host, Tls};
use crate::envelope::Envelope;
use crate::outcome::{Cause, Fault, Report, Stage};
use crate::secret::Secret;
use crate::smtp::auth::Credentials;
use crate::smtp::capabilities::Capabilities;
use crate::smtp::connect::{Directory, Dns, Exchanger, Located, connect_at};
use crate::smtp::flight::{Cargo, Results};
use crate::smtp::interrupt::Interrupt;
use crate::smtp::plan::{Letter, Plan, Unfit};
use crate::smtp::session::{Security, Session, Terms, client_id};
use crate::smtp::tls::Trust;
use crate::smtp::transaction::Protocol;
use crate::smtp::{Limits, Transcript};
use candidates::{Candidate, Candidates};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The way out that a letter takes, and for how long.
#[derive(Clone)]
pub struct Way<'a> {
    /// Hosts, TLS, authentication, and the limit of each wait.
    pub account: &'a Account,
    /// The domain of all recipients, in lower case and as the DNS has it, where the account delivers to that domain's own
    /// mail servers.
    pub domain: Option<&'a str>,
    /// Obtains the account's password for a host; the error is a sentence. Called only where AUTH is needed, and
    /// once for each host that is tried: remember the answer where asking is dear and the host does not matter.
    pub password: &'a dyn Fn(&Host) -> Result<Secret, String>,
    /// Our name in EHLO, where the account says none.
    pub helo: &'a str,
    /// The end of the whole attempt, all hosts and all letters together.
    pub deadline: Instant,
    /// Who watches the dialogue.
    pub transcript: Option<Arc<dyn Transcript>>,
    /// Ends the attempt from another thread.
    pub interrupt: Interrupt,
}

/// Sends one letter: opens a connection, sends, leaves without waiting for a good-bye.
pub fn attempt(way: &Way<'_>, envelope: &Envelope, letter: &dyn Letter) -> Report {
    match Connection::open(way) {
        Ok(mut connection) => {
            let report = connection.send(envelope, letter);
            connection.close();
            report
        }
        Err(unreached) => unreached.report(envelope),
    }
}

/// An open session with one of an account's hosts.
pub struct Connection {
    session: Session,
    relay: String,
    account: String,
    /// Not told yet.
    remarks: Vec<String>,
}

/// None of an account's hosts could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// The host that was tried last.
    pub relay: String,
    /// The account's name.
    pub account: String,
    /// What went wrong there.
    pub fault: Fault,
    /// What went wrong at the hosts before.
    pub remarks: Vec<String>,
}

impl Unreached {
    /// The report of a letter that would have gone this way.
    pub fn report(&self, envelope: &Envelope) -> Report {
        Report {
            relay: self.relay.clone(),
            account: self.account.clone(),
            outcomes: envelope.recipients().iter().map(|_| verdict::of(Err(self.fault.clone()))).collect(),
            remarks: self.remarks.clone(),
            relay_down: verdict::is_down(&self.fault),
        }
    }
}

impl Connection {
    /// Opens a session with the first of the account's hosts that has one for us.
    pub fn open(way: &Way<'_>) -> Result<Self, Unreached> {
        let limits = Limits { step: way.account.timeout, total: way.deadline };
        Self::open_asking(way, &Dns { limits, interrupt: &way.interrupt })
    }

    /// The same, with somebody to ask for what the DNS knows.
    fn open_asking(way: &Way<'_>, directory: &dyn Directory) -> Result<Self, Unreached> {
        let account = way.account.name.clone();
        let mut remarks = Vec::new();
        let mut last = Fault::new(Stage::Local, Cause::Local(format!("account {account} has no host")));
        let mut relay = String::new();
        // Whom to trust does not depend on the host, and is read once.
        let mut trust = None;
        let mut candidates = Candidates::of(way.account, way.domain, directory);
        // Whether there is a fault to tell, should another host be tried.
        let mut news = false;
        while let Some(next) = candidates.next() {
            match &next {
                Err(unanswered) if unanswered.absent && news => continue,
                _ if news => remarks.push(format!("{relay} {last}")),
                _ => {}
            }
            match next {
                Ok(candidate) => {
                    relay = name(&candidate.host);
                    match open(way, directory, &candidate, candidates.left(), &mut trust, &mut remarks) {
                        Ok(session) => return Ok(Self { session, relay, account, remarks }),
                        Err(fault) => last = fault,
                    }
                    news = true;
                }
                Err(unanswered) => {
                    (relay, last) = (unanswered.relay, unanswered.fault);
                    news = !unanswered.absent;
                }
            }
            if !is_elsewhere(&last) {
                break;
            }
        }
        Err(Unreached { relay, account, fault: last, remarks })
    }

    /// Sends one letter, for as long as [`Connection::extend`] has given.
    pub fn send(&mut self, envelope: &Envelope, letter: &dyn Letter) -> Report {
        struct One<'a>(&'a Envelope, &'a dyn Letter);
        impl Job for One<'_> {
            fn envelope(&self) -> &Envelope {
                self.0
            }
            fn letter(&self) -> &dyn Letter {
                self.1
            }
        }
        let limit = self.session.time_left();
        let (mut job, mut report) = (Some(One(envelope, letter)), None);
        let sent = self.ship(limit, &mut || job.take(), &mut |_, told| report = Some(told));
        report.unwrap_or_else(|| {
            let fault = sent.err().unwrap_or_else(unanswered);
            let outcomes = envelope.recipients().iter().map(|_| verdict::of(Err(fault.clone()))).collect();
            Report { outcomes, relay_down: verdict::is_down(&fault), ..self.blank() }
        })
    }

    /// Sends letters over this connection, as many in flight as the server allows. `next` is asked for a letter
    /// whenever there is room for one and must not block long; `done` gets each letter back with its report, in the
    /// order of `next`, as soon as it is known. Returns when `next` has given `None` and everything is answered, or the
    /// connection is unusable; every letter that `next` gave is reported. `limit` is how long each letter may take (the
    /// answer to its final dot is waited for beyond it).
    pub fn send_all<J: Job>(
        &mut self,
        limit: Duration,
        next: &mut dyn FnMut() -> Option<J>,
        done: &mut dyn FnMut(J, Report),
    ) {
        // Why the connection is unusable stands in the reports of the letters that it concerns.
        drop(self.ship(limit, next, done));
    }

    fn ship<J: Job>(
        &mut self,
        limit: Duration,
        next: &mut dyn FnMut() -> Option<J>,
        done: &mut dyn FnMut(J, Report),
    ) -> Result<(), Fault> {
        let mut blank = self.blank();
        self.remarks.clear();
        self.session.ship(limit, &mut |offered| next().map(|job| Packed::new(job, offered)), &mut |packed, results| {
            let report = packed.report(results, blank.clone());
            blank.remarks.clear();
            done(packed.job, report);
        })
    }

    /// A report in which nothing is told yet but what happened on the way here.
    fn blank(&self) -> Report {
        Report {
            relay: self.relay.clone(),
            account: self.account.clone(),
            outcomes: Vec::new(),
            remarks: self.remarks.clone(),
            relay_down: false,
        }
    }

    /// Gives the next letter until `deadline`; the answer to its final dot is waited for beyond that.
    pub fn extend(&mut self, deadline: Instant) {
        self.session.extend(deadline);
    }

    /// Whether another letter can go this way: not after a 421, a breach of the protocol, a lost connection.
    pub fn is_usable(&self) -> bool {
        self.session.is_usable()
    }

    /// `host:port` or the socket's path.
    pub fn relay(&self) -> &str {
        &self.relay
    }

    /// Says good-bye, whose answer is not waited for.
    pub fn close(self) {
        self.session.close();
    }
}

/// A letter on its way and whom it is for.
pub trait Job {
    /// Whom it is for.
    fn envelope(&self) -> &Envelope;
    /// The letter.
    fn letter(&self) -> &dyn Letter;
}

/// A job as this server wants to have it.
struct Packed<J> {
    job: J,
    plan: Plan,
    /// Why nobody can be sent it; the plan is then empty.
    unfit: Option<Unfit>,
}

impl<J: Job> Packed<J> {
    fn new(job: J, offered: &Capabilities) -> Self {
        match Plan::new(offered, job.envelope(), job.letter()) {
            Ok(plan) => Self { job, plan, unfit: None },
            Err(unfit) => Self { job, plan: Plan::default(), unfit: Some(unfit) },
        }
    }

    /// Completes a blank report.
    fn report(&self, results: Results, mut report: Report) -> Report {
        let recipients = self.job.envelope().recipients();
        if let Some(unfit) = &self.unfit {
            report.outcomes.extend(recipients.iter().map(|_| verdict::of_unfit(unfit)));
            return report;
        }
        report.remarks.extend(self.plan.remarks.iter().cloned());
        report.outcomes.reserve_exact(recipients.len());
        let mut results = results.into_iter();
        for command in &self.plan.recipients {
            let result = match command {
                Ok(_) => results.next().unwrap_or_else(|| Err(unanswered())),
                Err(unfit) => {
                    report.outcomes.push(verdict::of_unfit(unfit));
                    continue;
                }
            };
            report.relay_down |= result.as_ref().is_err_and(verdict::is_down);
            report.outcomes.push(verdict::of(result));
        }
        report
    }
}

impl<J: Job> Cargo for Packed<J> {
    fn plan(&self) -> &Plan {
        &self.plan
    }
    fn letter(&self) -> &dyn Letter {
        self.plan.converted.as_deref().unwrap_or_else(|| self.job.letter())
    }
}

/// The session answers for each recipient that it is given. Were it not so, the recipient would be kept.
fn unanswered() -> Fault {
    Fault::new(Stage::Rcpt, Cause::Protocol("gave no answer for this recipient".to_owned()))
}

/// Whether the next host may fare better. Not where the fault is ours or somebody has called us off; and a
/// password that one host refuses is not hawked around the others, which would lock the user out of them all.
fn is_elsewhere(fault: &Fault) -> bool {
    match &fault.cause {
        Cause::Interrupted | Cause::Local(_) | Cause::NoSuchDomain(_) | Cause::NullMx(_) => false,
        Cause::Reply(reply) => fault.stage != Stage::Auth || !reply.is_permanent(),
        Cause::NoSuchHost(_)
        | Cause::Network(_)
        | Cause::Timeout(_)
        | Cause::Tls(_)
        | Cause::Protocol(_)
        | Cause::Policy(_)
        | Cause::Letter(_) => true,
    }
}

/// A host as a person writes it.
pub fn name(host: &Host) -> String {
    match host {
        Host::Tcp { name, port } if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp { name, port } => format!("{name}:{port}"),
        Host::Unix(path) => path.display().to_string(),
        Host::Srv(domain) => format!("srv:{domain}"),
        Host::Mx(_) => "mx".to_owned(),
    }
}

/// Opens a session with a candidate.
///
/// Other people's mail servers are spoken to as securely as they can be (RFC 7435): what the DNS vouches for is demanded; else
/// TLS is taken without a proof, since the alternative is none; and where TLS comes to nothing, the letter goes in clear, over
/// a new connection. Who breaks a handshake on the way could as well have hidden that STARTTLS is offered, so that waiting
/// for a better day would only delay mail to servers whose TLS is broken. Whoever wants more says `tls = "starttls"`.
fn open(
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
struct Approach {
    /// Where it is, as far as that is known.
    addresses: Option<Vec<SocketAddr>>,
    security: Security,
    /// It is the DNS that demands TLS, and not our settings.
    by_dane: bool,
}

impl Approach {
    fn of(
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
fn of_dane(fault: Fault) -> Fault {
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
fn terms<'a>(way: &Way<'a>, candidate: &'a Candidate, security: Security) -> Result<Terms<'a>, Fault> {
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

#[cfg(test)]
mod tests;
