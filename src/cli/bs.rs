//! `sendmail -bs`: SMTP on standard input and output, for programs that speak nothing else.
//!
//! Each letter is completed like any submission and is durable before its 250 is said; delivery is the background's.
//! The session is that of a user who is who the system says, so there is no AUTH and no TLS. A client that goes in the
//! middle of a letter leaves nothing. RFC 5321; the status is 74 where it leaves in the middle of a letter.

use super::configuration::{self, Configuration};
use super::exit::sysexits;
use super::host::Host;
use super::input::Input;
use super::meaning::{Delivery, Mode};
use super::sendmail::Face;
use super::{log, run, say, service};
use crate::envelope::Envelope;
use crate::message::complete::How;
use crate::message::{LoneDot, Message, Unreadable};
use crate::outcome::printable;
use crate::queue::{self, Queue, Spool};
use crate::smtp::server::{Answer, Auth, Duplex, End, Guest, Mail, Postmaster, Terms, serve};
use crate::submit::{Counter, Keep, Why};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

/// Mistakes in a row that we put up with.
pub(super) const MISTAKES: u32 = 20;

/// Recipients of one letter; RFC 5321 §4.5.3.1.8 asks for 100 at least.
const RECIPIENTS: usize = 10_000;

/// Serves the caller.
pub fn main(face: Face<'_>, delivery: &Delivery) -> u8 {
    let host = Host::look();
    // What is wrong with a configuration is told below.
    if let Ok(Some(socket)) = configuration::service(&host, delivery.config.as_deref()) {
        return service::speak(face, &socket);
    }
    let configuration = match configuration::load(&host, delivery.config.as_deref()) {
        Ok(configuration) => configuration,
        Err(sentence) => {
            log::install(&[], face.program);
            tracing::warn!(message = "rejected", uid = host.uid, exit = sysexits::CONFIG, reason = sentence);
            face.say(&sentence);
            return sysexits::CONFIG;
        }
    };
    log::install(&configuration.settings.log, delivery.tag.as_deref().unwrap_or(face.program));
    let Some(dir) = configuration.queue_dir.as_deref().filter(|_| configuration.settings.queue.enabled) else {
        face.say("-bs promises to keep what it takes, and the queue is off");
        return sysexits::UNAVAILABLE;
    };
    let mut clerk = Clerk { configuration: &configuration, host: &host, dir, at_once: delivery.mode != Mode::Queue };
    match serve(&mut Duplex(Input, std::io::stdout().lock()), &mut clerk) {
        End::Quit | End::Left => 0,
        End::Closed(_) => sysexits::PROTOCOL,
        End::Vanished | End::Failed(_) => sysexits::IOERR,
    }
}

/// Takes the caller's letters into the caller's queue.
struct Clerk<'a> {
    configuration: &'a Configuration,
    host: &'a Host,
    dir: &'a Path,
    at_once: bool,
}

impl Postmaster for Clerk<'_> {
    fn terms(&self) -> Terms {
        let domain = self.configuration.settings.domain.as_deref().unwrap_or(self.host.mail_domain());
        Terms {
            name: self.host.name.clone(),
            domain: domain.to_owned(),
            size: None,
            recipients: RECIPIENTS,
            mistakes: MISTAKES,
            auth: Auth::Off,
        }
    }

    fn accept(
        &mut self,
        _: &Guest,
        mail: &Mail,
        envelope: &Envelope,
        content: &mut dyn Read,
    ) -> Result<String, Answer> {
        let uid = self.host.uid;
        let message = Message::read(content, LoneDot::IsText, Box::new(Spool::new(self.dir)))
            .map_err(|unreadable| answer(&Why::Message(unreadable), uid))?;
        let here = configuration::here(self.host);
        let settings = &self.configuration.settings;
        let aliases = configuration::aliases_in_force(settings, self.host);
        let counter = Counter { settings, aliases: &aliases, here: &here };
        let letter = counter.adopt(envelope, message, how(mail)).map_err(|why| answer(&why, uid))?;
        let wake = |queue: &Queue| run::wake(queue, self.configuration);
        let rules = run::rules(self.configuration, self.host);
        let keep = Keep { dir: self.dir, rules, wake: &wake, now: &SystemTime::now };
        let id = keep.queue(&letter, self.at_once).map_err(|error| answer(&Why::Queue(error), uid))?;
        Ok(format!("Ok: queued as {id}"))
    }
}

/// How much of a header a client leaves to us.
pub(super) fn how(mail: &Mail) -> How {
    if mail.gateway { How::Gateway } else { How::Full }
}

/// What a client hears of a letter of this user that is not taken: 4xx where it may be later.
pub(super) fn answer(why: &Why, uid: u32) -> Answer {
    let (code, status) = match why {
        Why::Queue(queue::Error::Io { .. }) | Why::Message(Unreadable::Store(_)) => (452, (3, 1)),
        Why::Queue(_) | Why::NoAccount(_) | Why::Aliases(_) => (451, (3, 5)),
        Why::Message(_) => (554, (6, 0)),
        Why::Loop(_) => (554, (4, 6)),
        Why::NoRecipients | Why::BadAddress(..) | Why::BadField(_) | Why::BadMailbox(..) | Why::Outcomes(_) => {
            (550, (1, 0))
        }
    };
    let sentence = say::refusal(why);
    tracing::warn!(message = "rejected", uid, exit = code, reason = sentence);
    Answer::new(code, status, printable(&sentence))
}
