//! msmtp's log: a line for each session, byte for byte as msmtp writes it (wrapped here).
//!
//! ```text
//! Nov 22 01:44:56 host=mail.example.org tls=on auth=on user=u from=me@x.org recipients=a@y.org
//!     mailsize=104 smtpstatus=250 smtpmsg='250 ok' exitcode=EX_OK
//! ```
//!
//! People have programs that read these lines. Where msmtp has no case of its own, because some recipients were refused
//! and the others got the letter, each refusal is a line. A log that cannot be written changes nothing.

use super::{exit, host, log};
use crate::config::{LogTo, SessionLog, SessionLogTo, Settings};
use crate::deliver::Ledger;
use crate::envelope::Envelope;
use crate::message::Message;
use crate::outcome::{Cause, Fault, Outcome, Reply, Report, Stage, printable};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::sync::Arc;

/// The form of the time that msmtp has, for one that cannot be understood.
const TIME: &str = "%b %d %H:%M:%S";

/// The logs of the accounts that have one.
struct SessionLogs(Vec<SessionLog>);

/// Whoever writes the sessions down, where the settings ask for it.
pub fn ledger(settings: &Settings) -> Option<Arc<dyn Ledger>> {
    let logs: Vec<SessionLog> = settings
        .log
        .iter()
        .filter_map(|to| match to {
            LogTo::Sessions(log) => Some(log.clone()),
            _ => None,
        })
        .collect();
    (!logs.is_empty()).then(|| Arc::new(SessionLogs(logs)) as Arc<dyn Ledger>)
}

impl Ledger for SessionLogs {
    fn enter(&self, envelope: &Envelope, message: &Message, report: &Report) {
        let mut logs = self.0.iter().filter(|log| log.account == report.account).peekable();
        if logs.peek().is_none() {
            return;
        }
        let entries = entries(envelope, || size(message), report);
        for log in logs {
            for entry in &entries {
                // Nobody is left to tell when the log itself cannot be written.
                let _ = write(log, entry);
            }
        }
    }
}

/// What stands behind the head of a line.
struct Entry {
    text: String,
    succeeded: bool,
}

fn entries(envelope: &Envelope, size: impl Fn() -> u64, report: &Report) -> Vec<Entry> {
    let from = envelope.reverse_path().0.as_ref().map(|sender| printable(&sender.to_string())).unwrap_or_default();
    let names = || envelope.recipients().iter().map(|recipient| printable(&recipient.mailbox.to_string()));
    let those = |wanted: &dyn Fn(&Outcome) -> bool| {
        names().zip(&report.outcomes).filter(|(_, one)| wanted(one)).map(|(name, _)| name).collect::<Vec<_>>().join(",")
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut done: Vec<&Outcome> = Vec::new();
    for (name, outcome) in names().zip(&report.outcomes) {
        if done.iter().any(|one| is_same(one, outcome)) {
            continue;
        }
        done.push(outcome);
        let recipients = those(&|one| is_same(one, outcome));
        let mut text = format!("from={from} recipients={recipients}");
        let (reply, exit) = match outcome {
            Outcome::Relayed(reply) => {
                let _ = write!(text, " mailsize={}", size());
                (Some(reply), 0)
            }
            Outcome::Deferred { fault, blame, .. } | Outcome::Failed { fault, blame, .. } => {
                (fault.reply(), exit::one(fault, *blame))
            }
        };
        if let Some(reply) = reply {
            let _ = write!(text, " smtpstatus={} smtpmsg='{}'", reply.code, quoted(&spoken(reply)));
        }
        if let Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } = outcome {
            let _ = write!(text, " errormsg='{}'", quoted(&words(fault, &from, &name)));
        }
        let _ = write!(text, " exitcode={}", exit::name(exit));
        entries.push(Entry { text, succeeded: exit == 0 });
    }
    entries
}

/// Whether two recipients share a line: a refusal of one recipient is a line of its own.
fn is_same(one: &Outcome, other: &Outcome) -> bool {
    let is_rcpt = |outcome: &Outcome| match outcome {
        Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => fault.stage == Stage::Rcpt,
        Outcome::Relayed(_) => false,
    };
    match (one, other) {
        (Outcome::Relayed(_), Outcome::Relayed(_)) => true,
        _ if is_rcpt(one) || is_rcpt(other) => std::ptr::eq(one, other),
        _ => one == other,
    }
}

/// Octets with LF for CRLF, as msmtp counts them; what cannot be read does not count.
fn size(message: &Message) -> u64 {
    let mut ends = 0;
    if let Ok(mut reader) = message.reader() {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            ends += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
        }
    }
    message.size().saturating_sub(ends)
}

/// A reply as it came, its lines joined by `\n`, two characters.
fn spoken(reply: &Reply) -> String {
    let last = reply.lines.len().saturating_sub(1);
    let line = |(i, text): (usize, &String)| match (i == last, text.is_empty()) {
        (true, true) => reply.code.to_string(),
        (true, false) => format!("{} {text}", reply.code),
        (false, _) => format!("{}-{text}", reply.code),
    };
    reply.lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\\n")
}

/// Without what would end the quotes or the line.
fn quoted(text: &str) -> String {
    text.chars().map(|c| if c == '\'' || c.is_control() { '?' } else { c }).collect()
}

/// msmtp's words for what a server refused; ours for the rest.
fn words(fault: &Fault, from: &str, to: &str) -> String {
    match (&fault.cause, fault.stage) {
        (Cause::Reply(_), Stage::Greeting) => "cannot get initial OK message from server".to_owned(),
        (Cause::Reply(_), Stage::Auth) => "authentication failed".to_owned(),
        (Cause::Reply(_), Stage::Mail) => format!("envelope from address {from} not accepted by the server"),
        (Cause::Reply(_), Stage::Rcpt) => format!("recipient address {to} not accepted by the server"),
        (Cause::Reply(_), Stage::Data) => "the server does not accept mail data".to_owned(),
        (Cause::Reply(_), Stage::Dot) => "the server did not accept the mail".to_owned(),
        _ => printable(&fault.to_string()),
    }
}

fn write(log: &SessionLog, entry: &Entry) -> std::io::Result<()> {
    let line = format!("{} {}", printable(&log.head), entry.text);
    match &log.to {
        SessionLogTo::File(path, format) => log::append(path, &format!("{}{line}\n", time(format))),
        SessionLogTo::Stdout(format) => std::io::stdout().write_all(format!("{}{line}\n", time(format)).as_bytes()),
        SessionLogTo::Syslog(facility) => {
            let severity = if entry.succeeded { 6 } else { 3 };
            let text = format!("<{}>{}msmtp: {line}", facility * 8 + severity, time(TIME));
            log::send(log::SYSLOG, &text)
        }
    }
}

/// The time and a blank, or nothing.
fn time(format: &str) -> String {
    if format.is_empty() {
        return String::new();
    }
    let now = Timestamp::now().to_zoned_datetime(host::time_zone());
    let told = jiff::fmt::strtime::format(format, &now).or_else(|_| jiff::fmt::strtime::format(TIME, &now));
    told.map(|told| told + " ").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Mailbox, Recipient, ReversePath};
    use crate::outcome::{Blame, Status};

    fn envelope(to: &[&str]) -> Envelope {
        let mailbox = |address: &str| {
            let (local, domain) = address.split_once('@').unwrap();
            Mailbox::new(local, domain).unwrap()
        };
        let recipients = to.iter().map(|to| Recipient::new(mailbox(to))).collect();
        Envelope::new(ReversePath(Some(mailbox("me@x.test"))), recipients).unwrap()
    }

    fn reply(code: u16, lines: &[&str]) -> Reply {
        Reply { code, lines: lines.iter().map(|&line| line.to_owned()).collect() }
    }

    fn refused(code: u16, lines: &[&str], stage: Stage, blame: Blame) -> Outcome {
        let fault = Fault::new(stage, Cause::Reply(reply(code, lines)));
        Outcome::Failed { fault, blame, status: Status::new(5, 0, 0) }
    }

    fn lines(to: &[&str], outcomes: Vec<Outcome>) -> Vec<String> {
        let report = Report {
            relay: "h:25".to_owned(),
            account: "a".to_owned(),
            outcomes,
            remarks: Vec::new(),
            relay_down: false,
        };
        entries(&envelope(to), || 104, &report).into_iter().map(|entry| entry.text).collect()
    }

    #[test]
    fn lines_are_msmtps() {
        let ok = Outcome::Relayed(reply(250, &["queued as ABC"]));
        assert_eq!(
            lines(&["a@y.test"], vec![ok]),
            ["from=me@x.test recipients=a@y.test mailsize=104 smtpstatus=250 smtpmsg='250 queued as ABC' \
                 exitcode=EX_OK"]
        );
        let no = refused(535, &["5.7.8 ba'd\u{7}"], Stage::Auth, Blame::Settings);
        assert_eq!(
            lines(&["a@y.test", "b@y.test"], vec![no.clone(), no]),
            ["from=me@x.test recipients=a@y.test,b@y.test smtpstatus=535 smtpmsg='535 5.7.8 ba?d?' \
              errormsg='authentication failed' exitcode=EX_NOPERM"]
        );
        let no = refused(550, &["5.1.1 no such", "5.1.1 user"], Stage::Rcpt, Blame::Recipient);
        assert_eq!(
            lines(&["bad@y.test", "a@y.test"], vec![no, Outcome::Relayed(reply(250, &[""]))]),
            [
                "from=me@x.test recipients=bad@y.test smtpstatus=550 smtpmsg='550-5.1.1 no such\\n550 5.1.1 user' \
                 errormsg='recipient address bad@y.test not accepted by the server' exitcode=EX_NOUSER",
                "from=me@x.test recipients=a@y.test mailsize=104 smtpstatus=250 smtpmsg='250' exitcode=EX_OK",
            ]
        );
    }
}
