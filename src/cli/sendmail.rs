//! `sendmail` from its words to its exit status.
//!
//! Everything is read here (words, configuration, standard input) and everything is told here; what becomes of
//! the letter is `submit`'s to decide. Success is quiet. Our own faults always speak; a deferral speaks on a
//! terminal or with `-v`, because cron mails whatever is printed. Before an early error standard input is
//! drained, bounded, so that the caller sees our status and not a broken pipe.

use super::configuration::{self, Configuration};
use super::exit::{self, sysexits};
use super::host::Host;
use super::input::Input;
use super::meaning::{Command, Delivery, ErrorMode, Mode, mean};
use super::options::{self, Typed, Usage};
use super::say::{self, Next};
use super::signals::{self, Watch};
use super::{log, mailq, msmtp, run, service, session_log};
use crate::deliver::{Attempted, Carrier, Desk};
use crate::message::Message;
use crate::message::address::{parse_list, parse_sender};
use crate::message::complete::from_field;
use crate::outcome::{Blame, Cause, Fault, Outcome, Stage, escaped, printable};
use crate::queue::{Queue, Spool};
use crate::smtp::Transcript;
use crate::smtp::interrupt::Interrupt;
use crate::submit::{self, ATTEMPT, Counter, End, Keep, Letter, When, Why, Wishes};
use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Runs the drop-in under the name it was called by. Returns the exit status.
pub fn main(program: &str, words: impl IntoIterator<Item = OsString>) -> u8 {
    settle_in();
    let face = Face { program };
    if program == run::RUNNER {
        return run::background(face, &Vec::from_iter(words));
    }
    let meant = options::parse(program, words).and_then(|typed| mean(program, guarded(typed)?));
    // The others may end at any moment: a letter of -bs is its client's until it hears 250.
    if !matches!(meant, Ok(Command::Deliver(_) | Command::RunQueue(_))) {
        signals::leave();
    }
    match meant {
        Err(usage) => {
            drain();
            face.say(&format!("{}; nothing was sent. Try {program} --help", printable(&usage.to_string())));
            sysexits::USAGE
        }
        Ok(Command::Help) => face.print(&options::help(program)),
        Ok(Command::Version) => face.print(&format!("Version {} (Pillarbox)\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Nothing) => 0,
        Ok(Command::Aliases(config)) => check_aliases(face, config.as_deref()),
        Ok(Command::ListQueue(config)) => mailq::main(face, config.as_deref()),
        Ok(Command::RunQueue(wanted)) => run::main(face, &wanted),
        Ok(Command::Serve(delivery)) => super::bs::main(face, &delivery),
        Ok(Command::Pretend(delivery)) => msmtp::pretend(face, &delivery),
        Ok(Command::ServerInfo(delivery)) => msmtp::server_info(face, &delivery),
        Ok(Command::Deliver(delivery)) => deliver(face, &delivery),
    }
}

/// What was typed, unless it takes more trust than arguments have.
fn guarded(typed: Typed) -> Result<Typed, Usage> {
    let guarded = typed.options.iter().find(|(row, _)| options::GUARDED.contains(&row.spelling));
    match guarded.filter(|_| !configuration::trusts_arguments()) {
        Some((row, _)) => Err(Usage::Guarded(row.spelling)),
        None => Ok(typed),
    }
}

/// Makes the process safe to work in, whatever the caller left us: signals, umask, a deleted directory.
pub(super) fn settle_in() {
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
    /// A sentence on standard error, of a line or more. That nobody may be listening changes nothing.
    ///
    /// It may quote words and names that a stranger has chosen (a web form, for one), and a terminal may read it.
    pub fn say(self, sentence: &str) {
        let lines: Vec<String> = [self.program, ": ", sentence].concat().split('\n').map(escaped).collect();
        let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
    }

    /// Text on standard output; the status says whether it could be written.
    pub fn print(self, text: &str) -> u8 {
        self.print_octets(text.as_bytes())
    }

    /// As [`Face::print`], whatever the octets are.
    pub fn print_octets(self, octets: &[u8]) -> u8 {
        let mut out = std::io::stdout().lock();
        match out.write_all(octets).and_then(|()| out.flush()) {
            Ok(()) => 0,
            Err(_) => sysexits::IOERR,
        }
    }
}

/// `newaliases`: there is no database to make; what is wrong with the aliases is told. Packages run it on machines that
/// have no configuration yet, so that is no error. The service's are told to root, who can mend them.
fn check_aliases(face: Face<'_>, config: Option<&Path>) -> u8 {
    let mut host = Host::look();
    let found = configuration::service(&host, config).and_then(|service| match service {
        Some(_) if host.uid == 0 && Path::new(configuration::SERVICE).exists() => {
            configuration::as_service(&mut host).map(Some)
        }
        Some(_) => Ok(None),
        None => configuration::find(&host, config),
    });
    let checked = found.and_then(|found| {
        found.map_or(Ok(()), |configuration| configuration::sound_aliases(&configuration.settings, &host).map(drop))
    });
    match checked {
        Ok(()) => 0,
        Err(sentence) => {
            face.say(&sentence);
            sysexits::CONFIG
        }
    }
}

/// Takes a letter from standard input.
fn deliver(face: Face<'_>, delivery: &Delivery) -> u8 {
    let interrupt = Interrupt::default();
    let watch = Watch::start(interrupt.clone());
    let host = Host::look();
    let configuration = match configuration::or_service(&host, delivery.config.as_deref(), &delivery.arguments) {
        Ok(configuration) => configuration,
        Err(sentence) => {
            log::install(&[], delivery.tag.as_deref().unwrap_or(face.program));
            drain();
            return reject(face, delivery, &host, sysexits::CONFIG, &format!("{sentence}; nothing was sent"));
        }
    };
    let settings = &configuration.settings;
    log::install(&settings.log, delivery.tag.as_deref().unwrap_or(face.program));
    let end = match wishes(delivery, configuration.service.is_some()) {
        Err(why) => {
            drain();
            End::Refused(why)
        }
        Ok(wishes) => take_letter(&configuration, &host, delivery, wishes, &watch)
            .map_or_else(End::Refused, |letter| hand_over(&letter, &configuration, &host, delivery, interrupt)),
    };
    conclude(face, delivery, &host, &end)
}

/// Shows the dialogue with a relay on standard error (`-v`).
pub struct Dialogue;

impl Transcript for Dialogue {
    fn line(&self, line: &str) {
        let _ = writeln!(std::io::stderr(), "{}", printable(line));
    }
}

/// What the words ask for; addresses are judged before anything is read.
///
/// A letter for the service is left as it is, as a gateway's: who has the settings completes it.
pub(super) fn wishes(delivery: &Delivery, through_service: bool) -> Result<Wishes, Why> {
    let mut recipients = Vec::new();
    for word in &delivery.recipients {
        recipients.extend(parse_list(word).map_err(|error| Why::BadAddress(word.clone(), error))?);
    }
    let sender = delivery.sender.as_deref();
    // What listings write for the null reverse-path, and msmtp takes for it.
    let sender = sender.map(|text| if text.eq_ignore_ascii_case("MAILER-DAEMON") { "<>" } else { text });
    let sender = sender.map(|text| parse_sender(text).map_err(|error| Why::BadAddress(text.to_owned(), error)));
    Ok(Wishes {
        account: delivery.account.clone(),
        sender: sender.transpose()?,
        full_name: delivery.full_name.clone(),
        recipients,
        recipients_from_header: delivery.recipients_from_header,
        sender_from_header: delivery.sender_from_header,
        notify: delivery.notify,
        ret: delivery.ret,
        envid: delivery.envid.clone(),
        gateway: delivery.gateway || through_service,
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
    let message = Message::read(&mut Input, delivery.lone_dot, Box::new(spool(configuration)));
    watch.message_is_read();
    let message = message.map_err(|unreadable| {
        // What is left of it is read all the same, so that its writer sees our status and not a broken pipe.
        drain();
        Why::Message(unreadable)
    })?;
    let mut message = message;
    if let (Some(name), Some(_), None) = (&delivery.full_name, &configuration.service, message.fields().first("From")) {
        // The one thing that the service cannot know.
        message.fields_mut().append(from_field(name, &host.caller().login));
    }
    let mut letter = prepare(configuration, host, wishes, message)?;
    if delivery.gateway {
        letter.message.leave_as_is();
    }
    Ok(letter)
}

/// Where a letter waits while it comes in.
pub(super) fn spool(configuration: &Configuration) -> Spool {
    // Never blindly /tmp, which may be memory; a caller without a home has nothing better than /var/tmp.
    let spool = Spool::new(configuration.queue_dir.as_deref().unwrap_or(Path::new("/var/tmp")));
    // A caller in a sandbox may have no place to write to, and its letter goes elsewhere anyway.
    if configuration.service.is_some() { spool.or_memory() } else { spool }
}

/// Makes a letter of a message.
pub(super) fn prepare(
    configuration: &Configuration,
    host: &Host,
    wishes: Wishes,
    message: Message,
) -> Result<Letter, Why> {
    let (settings, here) = (&configuration.settings, configuration::here(host));
    let aliases = configuration::aliases_in_force(settings, host);
    Counter { settings, aliases: &aliases, here: &here }.prepare(wishes, message)
}

/// Gives the letter to the relay or the queue, as the words and the settings have it.
pub(super) fn hand_over(
    letter: &Letter,
    configuration: &Configuration,
    host: &Host,
    delivery: &Delivery,
    interrupt: Interrupt,
) -> End {
    let (settings, secrets) = (&configuration.settings, configuration::secret_env(host));
    let mut desk = Desk::new(settings, &secrets, &host.name);
    desk.interrupt = interrupt;
    desk.ledger = session_log::ledger(settings);
    desk.transcript = delivery.verbose.then(|| Arc::new(Dialogue) as _);
    let dir = configuration.queue_dir.as_deref().filter(|_| settings.queue.enabled);
    let wake = |queue: &Queue| run::wake(queue, configuration);
    let rules = run::rules(configuration, host);
    let keep = dir.map(|dir| Keep { dir, rules, wake: &wake, now: &SystemTime::now });
    // Whoever watches wants to see the end.
    let limit = match &configuration.service {
        _ if delivery.verbose || delivery.is_watched => ATTEMPT,
        Some(_) => service::patience(settings.queue.deadline, letter.message.size()),
        None if keep.is_none() => ATTEMPT,
        None => settings.queue.deadline,
    };
    let deadline = Instant::now() + limit;
    let when = match delivery.mode {
        // The service queues at once whatever it takes: that is what these modes ask for.
        _ if configuration.service.is_some() => When::Now(deadline),
        Mode::Background if !delivery.verbose => When::Background,
        Mode::Interactive | Mode::Background => When::Now(deadline),
        Mode::Queue => When::Later,
    };
    let mut carrier = Carrier::new(&desk);
    let mut end = submit::hand_over(letter, when, &mut carrier, keep.as_ref());
    carrier.close();
    if let Some(socket) = &configuration.service {
        let mut pause = service::BREATH;
        // It was only being started again, even in the middle of our session, or had no place for us.
        while is_unserved(&end) && service::is_back(socket, pause, deadline) {
            desk.forgive();
            let mut carrier = Carrier::new(&desk);
            end = submit::hand_over(letter, when, &mut carrier, None);
            carrier.close();
            pause *= 2;
        }
        end = in_parts(letter, end, when, &desk);
    }
    match (end, &keep, delivery.errors) {
        (End::Relayed(attempted), Some(keep), _) => {
            run::take_up(configuration, keep.dir);
            End::Relayed(attempted)
        }
        (End::Refused(Why::Outcomes(attempted)), Some(keep), ErrorMode::Mail | ErrorMode::MailAndSucceed) => {
            match submit::bounce(letter, &attempted, keep) {
                Ok(Some(id)) if delivery.errors == ErrorMode::MailAndSucceed => End::Owned { id, attempted },
                // Where no report can be sent the caller hears of it all the same.
                Ok(_) | Err(_) => End::Refused(Why::Outcomes(attempted)),
            }
        }
        (end, _, _) => end,
    }
}

/// Brings the service the recipients that were too many for one letter, in others (RFC 5321 §4.5.3.1.10): each takes
/// some of them, or it is over.
fn in_parts(letter: &Letter, mut end: End, when: When, desk: &Desk<'_>) -> End {
    let late =
        |one: &Attempted| matches!(&one.outcome, Outcome::Deferred { fault: Fault { stage: Stage::Rcpt, .. }, .. });
    while let End::Partly(mut attempted) = end {
        let recipients = letter.envelope.recipients();
        let waits = |i: usize| attempted.iter().any(|one| late(one) && one.recipient == recipients[i].mailbox);
        let Some(envelope) = letter.envelope.only(waits) else { return End::Partly(attempted) };
        let part = Letter { envelope, message: letter.message.clone(), account: letter.account.clone() };
        let mut carrier = Carrier::new(desk);
        let next = submit::hand_over(&part, when, &mut carrier, None);
        carrier.close();
        let (End::Relayed(told) | End::Partly(told)) = next else { return End::Partly(attempted) };
        attempted.retain(|one| !late(one));
        attempted.extend(told);
        let all = attempted.iter().all(|one| matches!(one.outcome, Outcome::Relayed(_)));
        end = if all { End::Relayed(attempted) } else { End::Partly(attempted) };
    }
    end
}

/// Whether nobody was there to hear of the letter, or had time for it, and for certain nobody has it.
fn is_unserved(end: &End) -> bool {
    let unserved = |one: &Attempted| match &one.outcome {
        Outcome::Deferred { fault, maybe_duplicate: false, .. } => {
            matches!(fault.stage, Stage::Connect | Stage::Greeting)
                || matches!(fault.cause, Cause::Network(_))
                || fault.reply().is_some_and(|reply| reply.code == 421)
        }
        Outcome::Deferred { .. } | Outcome::Relayed(_) | Outcome::Failed { .. } => false,
    };
    matches!(end, End::Refused(Why::Outcomes(attempted)) if attempted.iter().all(unserved))
}

/// Says what has to be said and makes the status of it.
pub(super) fn conclude(face: Face<'_>, delivery: &Delivery, host: &Host, end: &End) -> u8 {
    let watched = || delivery.verbose || std::io::stderr().is_terminal();
    let speak = |one: &Attempted, next| face.say(&say::outcome(one, next));
    match end {
        End::Relayed(attempted) => {
            for one in attempted.iter().filter(|_| delivery.verbose) {
                speak(one, Next::Nothing);
            }
        }
        End::Owned { id, attempted } => {
            if attempted.is_empty() && delivery.verbose {
                face.say(&format!("queued as {id}"));
            }
            for one in attempted.iter().filter(|one| watched() || is_ours(&one.outcome)) {
                speak(one, if one.outcome.is_final() { Next::Reported } else { Next::Queued(*id) });
            }
        }
        End::Partly(attempted) => {
            // All of them: whoever sends again must know who has it already.
            for one in attempted {
                speak(one, Next::Nothing);
            }
        }
        End::Unkept(attempted, error) => {
            let reason = error.to_string();
            tracing::error!(message = "unkept", uid = host.uid, exit = exit::status(end), reason);
            for one in attempted {
                speak(one, Next::Nothing);
            }
            face.say(&format!("the letter cannot be queued: {reason}; sent again, it comes twice to whoever has it"));
        }
        End::Refused(Why::Outcomes(attempted)) => {
            tracing::warn!(message = "rejected", uid = host.uid, exit = exit::status(end), reason = "nobody takes it");
            for one in attempted.iter().filter(|_| delivery.errors != ErrorMode::Quiet) {
                speak(one, Next::Nothing);
            }
        }
        End::Refused(why) => return reject(face, delivery, host, exit::status(end), &say::refusal(why)),
    }
    exit::status(end)
}

/// Nobody has the letter: logs it, says it, and gives the status back.
pub(super) fn reject(face: Face<'_>, delivery: &Delivery, host: &Host, status: u8, sentence: &str) -> u8 {
    tracing::warn!(message = "rejected", uid = host.uid, exit = status, reason = sentence);
    if delivery.errors != ErrorMode::Quiet {
        face.say(sentence);
    }
    status
}

/// Whether somebody here has to mend something: that is told even where nobody watches.
fn is_ours(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred { blame: Blame::Settings | Blame::System, fault, .. }
        if !matches!(fault.cause, Cause::Interrupted))
}

/// Reads and discards what is left of standard input, within bounds: an early exit would break the caller's
/// pipe, and it would never see our status.
pub(super) fn drain() {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        return;
    }
    let until = Instant::now() + Duration::from_secs(10);
    let (mut left, mut buffer) = (64_usize << 20, [0; 16 * 1024]);
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
