//! `sendmail` from its words to its exit status.
//!
//! Everything is read here (words, configuration, standard input) and everything is told here; what becomes of
//! the letter is `submit`'s to decide. Success is quiet. Our own faults always speak; a deferral speaks on a
//! terminal or with `-v`, because cron mails whatever is printed. Before an early error standard input is
//! drained, bounded, so that the caller sees our status and not a broken pipe.

use super::configuration::{self, Configuration};
use super::exit::{self, sysexits};
use super::host::Host;
use super::meaning::{Command, Delivery, ErrorMode, Mode, mean};
use super::signals::{self, Watch};
use super::{log, mailq, options, run, say};
use crate::deliver::{Attempted, Carrier};
use crate::message::Message;
use crate::message::address::{parse_list, parse_sender};
use crate::outcome::{Blame, Outcome, printable};
use crate::queue::spool::Spool;
use crate::smtp::stream::Interrupt;
use crate::submit::{self, End, Here, Keep, Letter, When, Why, Wishes};
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Runs the drop-in under the name it was called by. Returns the exit status.
pub fn main(program: &str, words: impl IntoIterator<Item = OsString>) -> u8 {
    settle_in();
    let face = Face { program };
    match options::parse(words).and_then(|typed| mean(program, typed)) {
        Err(usage) => {
            drain();
            face.say(&format!("{usage}; nothing was sent. Try {program} --help"));
            sysexits::USAGE
        }
        Ok(Command::Help) => face.print(&options::help(program)),
        Ok(Command::Version) => face.print(&format!("Version {} (Pillarbox)\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Nothing | Command::Aliases(_)) => 0,
        Ok(Command::ListQueue(config)) => mailq::main(face, config),
        Ok(Command::RunQueue(wanted)) => run::main(face, &wanted),
        Ok(Command::Serve(delivery)) => super::bs::main(face, &delivery),
        Ok(Command::Deliver(delivery)) => deliver(face, &delivery),
    }
}

/// Makes the process safe to work in, whatever the caller left us: signals, umask, a deleted directory.
fn settle_in() {
    signals::block();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if std::env::current_dir().is_err() {
        // Relative paths mean nothing there anyway.
        let _ = std::env::set_current_dir("/");
    }
}

/// The name we speak under, and where we speak.
#[derive(Clone, Copy)]
pub struct Face<'a> {
    /// The program's name, which every sentence starts with.
    pub program: &'a str,
}

impl Face<'_> {
    /// A sentence on standard error. That nobody may be listening changes nothing.
    pub fn say(self, sentence: &str) {
        let _ = writeln!(std::io::stderr(), "{}: {sentence}", self.program);
    }

    /// Text on standard output; the status says whether it could be written.
    pub fn print(self, text: &str) -> u8 {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => 0,
            Err(_) => sysexits::IOERR,
        }
    }
}

/// Takes a letter from standard input.
fn deliver(face: Face<'_>, delivery: &Delivery) -> u8 {
    let interrupt = Interrupt::default();
    let watch = Watch::start(interrupt.clone());
    let host = Host::look();
    let configuration = match configuration::load(&host, delivery.config.as_deref()) {
        Ok(configuration) => configuration,
        Err(sentence) => {
            log::install(&[], delivery.tag.as_deref().unwrap_or(face.program));
            drain();
            return reject(face, delivery, &host, sysexits::CONFIG, &format!("{sentence}; nothing was sent"));
        }
    };
    let settings = &configuration.settings;
    log::install(&settings.log, delivery.tag.as_deref().unwrap_or(face.program));
    let end = match wishes(delivery) {
        Err(why) => {
            drain();
            End::Refused(why)
        }
        Ok(wishes) => take_letter(&configuration, &host, delivery, wishes, &watch)
            .map_or_else(End::Refused, |letter| hand_over(&letter, &configuration, delivery, interrupt)),
    };
    conclude(face, delivery, &host, &end)
}

/// What the words ask for; addresses are judged before anything is read.
fn wishes(delivery: &Delivery) -> Result<Wishes, Why> {
    let mut recipients = Vec::new();
    for word in &delivery.recipients {
        recipients.extend(parse_list(word).map_err(|error| Why::BadAddress(word.clone(), error))?);
    }
    let sender = delivery.sender.as_deref();
    let sender = sender.map(|text| parse_sender(text).map_err(|error| Why::BadAddress(text.to_owned(), error)));
    Ok(Wishes {
        account: delivery.account.clone(),
        sender: sender.transpose()?,
        full_name: delivery.full_name.clone(),
        recipients,
        recipients_from_header: delivery.recipients_from_header,
        notify: delivery.notify,
        ret: delivery.ret,
        envid: delivery.envid.clone(),
        gateway: delivery.gateway,
    })
}

/// Reads the message to its end, before anybody is connected to, and makes a letter of it.
fn take_letter(
    configuration: &Configuration,
    host: &Host,
    delivery: &Delivery,
    wishes: Wishes,
    watch: &Watch,
) -> Result<Letter, Why> {
    let spool = Spool::new(configuration.queue_dir.as_deref());
    let message = Message::read(&mut std::io::stdin().lock(), delivery.lone_dot, Box::new(spool));
    watch.message_is_read();
    let here = configuration::here(host);
    submit::prepare(wishes, &configuration.settings, &here, message.map_err(Why::Message)?)
}

/// Reads and discards what is left of standard input, within bounds: an early exit would break the caller's
/// pipe, and it would never see our status.
fn drain() {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        return;
    }
    let until = Instant::now() + Duration::from_secs(10);
    let (mut left, mut buffer) = (64 << 20_usize, [0; 16 * 1024]);
    while left > 0 {
        let wait = until.saturating_duration_since(Instant::now());
        let mut stdin = [nix::poll::PollFd::new(input.as_fd(), nix::poll::PollFlags::POLLIN)];
        let Ok(1..) = nix::poll::poll(&mut stdin, u16::try_from(wait.as_millis()).unwrap_or(u16::MAX)) else { return };
        match input.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n),
        }
    }
}
