//! One attempt through an account: account, envelope and letter in, a [`Report`] out.
//!
//! The account's hosts ([`candidates`]) are tried in order until one opens a session; what became of the others is a
//! remark. The password is asked for before a host is connected to, so that a slow helper keeps no server waiting. A
//! connection can carry many letters, several of them at once. This floor reports; it does not decide to retry, and it
//! never fails without an outcome for each recipient. What a fault means is [`verdict`]'s to say.

mod approach;
mod candidates;
pub mod examine;
pub mod verdict;

use crate::config::{Account, Host};
use crate::envelope::Envelope;
use crate::outcome::{Cause, Fault, Report, Stage};
use crate::secret::Secret;
use crate::smtp::capabilities::Capabilities;
use crate::smtp::connect::{Directory, Dns};
use crate::smtp::flight::{Cargo, Results};
use crate::smtp::interrupt::Interrupt;
use crate::smtp::plan::{Letter, Plan, Unfit};
use crate::smtp::session::Session;
use crate::smtp::{Limits, Transcript};
use approach::open;
use candidates::Candidates;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The way out that a letter takes, and for how long.
#[derive(Clone)]
pub struct Way<'a> {
    /// Hosts, TLS, authentication, and the limit of each wait.
    pub account: &'a Account,
    /// The domain of all recipients, in lower case and as the DNS has
    /// it, where the account delivers to that domain's own mail servers.
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

#[cfg(test)]
mod tests;
