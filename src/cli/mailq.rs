//! `mailq`: the queue as Postfix lists it, to the column, because monitoring scripts parse it.
//!
//! It looks and disturbs nobody; a letter that goes while we look is left out. What cannot be read is told on standard
//! error and makes the status 75, after everything else has been listed.

use super::configuration;
use super::exit::sysexits;
use super::host::Host;
use super::sendmail::Face;
use super::service;
use crate::outcome::{Outcome, printable};
use crate::queue::{Error, Listed, Queue, State};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

/// Lists the queue of a configuration.
pub fn main(face: Face<'_>, config: Option<&Path>) -> u8 {
    let host = Host::look();
    if let Ok(Some(socket)) = configuration::service(&host, config) {
        return service::list(face, &socket);
    }
    let dir = match configuration::queue_dir(&host, config) {
        Ok(Some(dir)) => dir,
        Ok(None) => return face.print("Mail queue is empty\n"),
        Err(sentence) => {
            face.say(&sentence);
            return sysexits::CONFIG;
        }
    };
    let listed = Queue::find(&dir).and_then(|queue| queue.map(|queue| print(&queue, face)).transpose());
    match listed {
        Ok(Some(status)) => status,
        Ok(None) => face.print("Mail queue is empty\n"),
        Err(error) => {
            face.say(&error.to_string());
            super::exit::queue(&error)
        }
    }
}

/// Prints the whole queue.
fn print(queue: &Queue, face: Face<'_>) -> Result<u8, Error> {
    let (mut text, mut status) = (String::new(), 0);
    let mut tell = |line: &str| {
        text.push_str(line);
        text.push('\n');
        if text.len() > 1 << 20 {
            let _ = face.print(&std::mem::take(&mut text));
        }
    };
    let mut complain = |error: &Error| {
        face.say(&error.to_string());
        status = sysexits::TEMPFAIL;
    };
    list(queue, &|_| true, &mut tell, &mut complain)?;
    Ok(status.max(face.print(&text)))
}

/// Lists the letters that are `wanted`, line by line.
pub(super) fn list(
    queue: &Queue,
    wanted: &dyn Fn(&Listed) -> bool,
    tell: &mut dyn FnMut(&str),
    complain: &mut dyn FnMut(&Error),
) -> Result<(), Error> {
    let (mut octets, mut requests) = (0, 0);
    for found in queue.list()? {
        match found {
            Ok(listed) if !wanted(&listed) => {}
            Ok(listed) => {
                if requests == 0 {
                    tell("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------");
                }
                octets += listed.letter.entry.size;
                requests += 1;
                entry(&listed).lines().for_each(&mut *tell);
                tell("");
            }
            Err(error) => complain(&error),
        }
    }
    if requests == 0 {
        tell("Mail queue is empty");
    } else {
        let plural = if requests == 1 { "" } else { "s" };
        tell(&format!("-- {} Kbytes in {requests} Request{plural}.", octets / 1024));
    }
    Ok(())
}

/// A letter as Postfix's `showq` prints it: recipients that fared alike stand below their reason.
fn entry(listed: &Listed) -> String {
    let entry = &listed.letter.entry;
    let flag = match listed.state {
        State::Active => "*",
        State::Hold => "!",
        State::Incoming | State::Deferred | State::Failed => "",
    };
    let sender = match entry.envelope.reverse_path() {
        path if path.is_null() => "MAILER-DAEMON".to_owned(),
        path => printable(&path.to_string()),
    };
    let mut text =
        format!("{:<11} {:>7} {:<20} {sender}\n", format!("{}{flag}", entry.id), entry.size, arrival(entry.created));
    let mut last = None;
    for number in listed.letter.history.waiting() {
        let reason = listed.letter.history.verdict(number).map(|verdict| match &verdict.outcome {
            Outcome::Deferred { fault, maybe_duplicate, .. } => {
                let relay = if verdict.relay.is_empty() { String::new() } else { format!("{} ", verdict.relay) };
                let doubt = if *maybe_duplicate { " (possible duplicate)" } else { "" };
                printable(&format!("{relay}{fault}{doubt}"))
            }
            Outcome::Relayed(_) | Outcome::Failed { .. } => String::new(),
        });
        if reason != last {
            if let Some(reason) = &reason {
                let _ = writeln!(text, "{:>76}", format!("({reason})"));
            }
            last = reason;
        }
        let to = printable(&listed.letter.recipient(number).mailbox.to_string());
        let _ = writeln!(text, "{:41}{to}", "");
    }
    text
}

/// `Sun Nov 22 02:15:39`, in the local time.
fn arrival(time: SystemTime) -> String {
    let zoned = Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(TimeZone::system());
    zoned.strftime("%a %b %e %H:%M:%S").to_string()
}
