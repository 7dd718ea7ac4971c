//! `pillarbox queue`: the queue for people (and, with `--json`, for their programs).
//!
//! Listing and showing disturb nobody. What changes something says what it did, a line a letter; a letter that is not
//! there, or is being sent, is told and makes the status that of the last trouble, after all the others were seen to.

use super::configuration::{self, Configuration};
use super::exit::{self, sysexits};
use super::host::Host;
use super::log;
use super::run::{self, Runs};
use super::sendmail::Face;
use super::signals::Watch;
use crate::message::Content;
use crate::outcome::{Outcome, printable};
use crate::queue::{Error, Id, Listed, Queue, State, Verdict};
use crate::smtp::interrupt::Interrupt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the letters: age, next attempt, size, state, and what the relay said last.
    List {
        /// A JSON object a line, with the keys of `postqueue -j`.
        #[arg(long)]
        json: bool,
        /// Those that failed and are kept, instead of those that wait.
        #[arg(long)]
        failed: bool,
    },
    /// Show a letter: its envelope, what became of it for each recipient, and its header.
    Show {
        /// The queue id.
        id: String,
        /// The whole letter, octet for octet, and nothing else.
        #[arg(long)]
        raw: bool,
    },
    /// Try letters now: those that are due, or those that are named.
    Run {
        /// Queue ids.
        ids: Vec<String>,
        /// All that wait, due or not.
        #[arg(long)]
        all: bool,
        /// Show the dialogue with the relay.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Make no attempts until it is released.
    Hold {
        /// Queue ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// End a hold.
    Release {
        /// Queue ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Start afresh, also with a letter that failed.
    Retry {
        /// Queue ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Remove for good, without a report to anybody.
    Remove {
        /// Queue ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Does it. Returns the exit status.
pub fn main(face: Face<'_>, config: Option<&Path>, action: &Action) -> u8 {
    let host = Host::look();
    let configuration = match configuration::load(&host, config) {
        Ok(configuration) => configuration,
        Err(sentence) => {
            face.say(&sentence);
            return sysexits::CONFIG;
        }
    };
    log::install(&configuration.settings.log, face.program);
    let Some(dir) = &configuration.queue_dir else {
        face.say("there is no place for a queue: set queue.dir or HOME");
        return sysexits::CONFIG;
    };
    let desk = match Queue::find(dir) {
        Ok(Some(queue)) => Desk { face, configuration: &configuration, host: &host, queue },
        // A queue that was never needed is empty; no letter of it can be named.
        Ok(None) => return nothing(face, action),
        Err(error) => return failed(face, &error),
    };
    match action {
        Action::List { json, failed } => desk.list(*json, *failed),
        Action::Show { id, raw: true } => desk.show_raw(id),
        Action::Show { id, raw: false } => desk.each(std::slice::from_ref(id), |id| desk.show(id)),
        Action::Run { ids, all, verbose } => desk.run(ids, *all, *verbose),
        Action::Hold { ids } => desk.each(ids, |id| {
            let held = desk.queue.hold(id, "by hand", SystemTime::now());
            held.map(|()| format!("{id} is on hold\n"))
        }),
        Action::Release { ids } => desk.each(ids, |id| {
            let released = desk.queue.release(id, SystemTime::now());
            released.map(|()| desk.awake(format!("{id} is released\n")))
        }),
        Action::Retry { ids } => desk.each(ids, |id| {
            let revived = desk.queue.retry(id, SystemTime::now());
            revived.map(|()| desk.awake(format!("{id} starts afresh\n")))
        }),
        Action::Remove { ids } => desk.each(ids, |id| desk.queue.remove(id).map(|()| format!("{id} is removed\n"))),
    }
}

fn nothing(face: Face<'_>, action: &Action) -> u8 {
    match action {
        Action::List { json: true, .. } => 0,
        Action::List { .. } => face.print("The queue is empty.\n"),
        Action::Run { ids, .. } if ids.is_empty() => 0,
        Action::Show { .. }
        | Action::Run { .. }
        | Action::Hold { .. }
        | Action::Release { .. }
        | Action::Retry { .. }
        | Action::Remove { .. } => {
            face.say("the queue is empty");
            sysexits::USAGE
        }
    }
}

fn failed(face: Face<'_>, error: &Error) -> u8 {
    face.say(&error.to_string());
    exit::queue(error)
}

/// Where the work is done.
struct Desk<'a> {
    face: Face<'a>,
    configuration: &'a Configuration,
    host: &'a Host,
    queue: Queue,
}

impl Desk<'_> {
    /// Does something with each letter that is named, and prints what it says.
    fn each(&self, ids: &[String], what: impl Fn(Id) -> Result<String, Error>) -> u8 {
        let mut status = 0;
        for word in ids {
            let Some(id) = Id::parse(word) else {
                status = self.no_id(word);
                continue;
            };
            match what(id) {
                Ok(text) => status = status.max(self.face.print(&text)),
                Err(error) => status = failed(self.face, &error),
            }
        }
        status
    }

    /// There is something to be done again.
    fn awake(&self, text: String) -> String {
        run::wake(&self.queue, self.configuration);
        text
    }

    fn list(&self, json: bool, failed_ones: bool) -> u8 {
        let found: Result<Vec<_>, Error> = if failed_ones {
            self.queue.failed().map(Iterator::collect)
        } else {
            self.queue.list().map(Iterator::collect)
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return failed(self.face, &error),
        };
        let (mut text, mut status, now) = (String::new(), 0, SystemTime::now());
        for listed in &found {
            match listed {
                Ok(listed) if json => {
                    let _ = writeln!(text, "{}", object(listed));
                }
                Ok(listed) => text.push_str(&row(listed, now)),
                Err(error) => status = failed(self.face, error),
            }
        }
        if !json {
            text = match found.len() {
                0 => "The queue is empty.\n".to_owned(),
                _ => format!("{:<12}  {:>5}  {:>8}  {:>7}  FROM, TO, LAST ANSWER\n{text}", "ID", "AGE", "NEXT", "SIZE"),
            };
            for (name, why) in self.queue.corrupt().unwrap_or_default() {
                let _ = writeln!(text, "corrupt/{}: {}", printable(&name), printable(&why));
            }
        }
        status.max(self.face.print(&text))
    }

    fn show(&self, id: Id) -> Result<String, Error> {
        let listed = self.queue.look(id)?;
        let header = self.octets(id, listed.letter.entry.header_len)?;
        let header: Vec<String> = String::from_utf8_lossy(&header).lines().map(printable).collect();
        Ok(format!("{}\n{}\n", story(&listed, SystemTime::now()), header.join("\n")))
    }

    /// Prints a letter octet for octet.
    fn show_raw(&self, word: &str) -> u8 {
        let Some(id) = Id::parse(word) else { return self.no_id(word) };
        match self.octets(id, u64::MAX) {
            Ok(octets) => self.face.print_octets(&octets),
            Err(error) => failed(self.face, &error),
        }
    }

    fn octets(&self, id: Id, most: u64) -> Result<Vec<u8>, Error> {
        let content = self.queue.content(id)?;
        let mut octets = Vec::new();
        let read = content.reader().and_then(|reader| reader.take(most).read_to_end(&mut octets));
        read.map_err(|source| Error::Io { doing: "read", path: self.queue.dir().join(id.to_string()), source })?;
        Ok(octets)
    }

    fn no_id(&self, word: &str) -> u8 {
        self.face.say(&format!("{}: this is no queue id", printable(word)));
        sysexits::USAGE
    }

    fn run(&self, ids: &[String], all: bool, verbose: bool) -> u8 {
        let mut named = Vec::new();
        for word in ids {
            let Some(id) = Id::parse(word) else { return self.no_id(word) };
            match self.queue.look(id) {
                Ok(_) => named.push(id),
                Err(error) => return failed(self.face, &error),
            }
        }
        let interrupt = Interrupt::default();
        Watch::start(interrupt.clone()).message_is_read();
        let runs = Runs { configuration: self.configuration, host: self.host, queue: &self.queue, interrupt };
        let wanted = |listed: &Listed| {
            named.contains(&listed.letter.entry.id)
                || (named.is_empty() && (all || listed.letter.is_due(SystemTime::now())))
        };
        match runs.run(verbose, &wanted) {
            Ok(tally) => self.face.print(&format!("{}\n", run::summary(&tally))),
            Err(error) => failed(self.face, &error),
        }
    }
}

/// A letter as `postqueue -j` has it, with what we know besides.
fn object(listed: &Listed) -> serde_json::Value {
    let (entry, history) = (&listed.letter.entry, &listed.letter.history);
    let recipients = entry.envelope.recipients().iter().enumerate().map(|(number, to)| {
        let mut recipient = json!({ "address": to.mailbox.to_string() });
        if let Some(verdict) = history.verdict(number) {
            let reason = match verdict.outcome {
                Outcome::Relayed(_) => "relayed_reply",
                Outcome::Deferred { .. } => "delay_reason",
                Outcome::Failed { .. } => "bounce_reason",
            };
            recipient[reason] = answer(verdict).into();
            recipient["status"] = verdict.outcome.word().into();
        }
        recipient
    });
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "queue_name": listed.state.to_string(),
        "queue_id": entry.id.to_string(),
        "arrival_time": seconds(entry.created),
        "message_size": entry.size,
        "forced_expire": false,
        "sender": entry.envelope.reverse_path().to_string(),
        "recipients": recipients.collect::<Vec<_>>(),
        "attempts": history.attempts(),
        "next_attempt": seconds(listed.letter.next_attempt(SystemTime::now())),
        "account": entry.account,
    })
}

/// A letter in a few lines.
fn row(listed: &Listed, now: SystemTime) -> String {
    let (entry, history) = (&listed.letter.entry, &listed.letter.history);
    let sender = match entry.envelope.reverse_path() {
        path if path.is_null() => "<>".to_owned(),
        path => printable(&path.to_string()),
    };
    let numbers = if listed.state == State::Failed { history.failed() } else { history.waiting() };
    let age = span(now.duration_since(entry.created).unwrap_or_default());
    let id = entry.id.to_string();
    let mut text = format!("{id:<12}  {age:>5}  {:>8}  {:>7}  {sender}\n", next(listed, now), size(entry.size));
    let mut last = None;
    for number in numbers {
        let verdict = history.verdict(number).map(answer);
        let _ = writeln!(text, "{:40}→ {}", "", printable(&listed.letter.recipient(number).mailbox.to_string()));
        if let Some(verdict) = verdict.filter(|verdict| last.as_ref() != Some(verdict)) {
            let _ = writeln!(text, "{:42}{verdict}", "");
            last = Some(verdict);
        }
    }
    if let Some(why) = history.hold() {
        let _ = writeln!(text, "{:42}held: {}", "", printable(why));
    }
    text
}

/// When the next attempt comes, in a word.
fn next(listed: &Listed, now: SystemTime) -> String {
    match listed.state {
        State::Active => "sending".to_owned(),
        State::Hold => "hold".to_owned(),
        State::Failed => "failed".to_owned(),
        State::Incoming | State::Deferred => match listed.letter.next_attempt(now).duration_since(now) {
            Ok(wait) if !wait.is_zero() => format!("in {}", span(wait)),
            _ => "due".to_owned(),
        },
    }
}

/// A letter's whole story.
fn story(listed: &Listed, now: SystemTime) -> String {
    let (entry, history) = (&listed.letter.entry, &listed.letter.history);
    let mut text = format!(
        "{}  {}\nfrom      <{}>\naccepted  {}\nsize      {}\nhanded in by uid {}\nattempts  {}, next: {}\n",
        entry.id,
        listed.state,
        printable(&entry.envelope.reverse_path().to_string()),
        when(entry.created),
        size(entry.size),
        entry.uid,
        history.attempts(),
        next(listed, now),
    );
    if let Some(account) = &entry.account {
        let _ = writeln!(text, "account   {}", printable(account));
    }
    if let Some(why) = history.hold() {
        let _ = writeln!(text, "on hold   {}", printable(why));
    }
    for (number, to) in entry.envelope.recipients().iter().enumerate() {
        let _ = write!(text, "to        <{}> ", printable(&to.mailbox.to_string()));
        let _ = match history.verdict(number) {
            None => writeln!(text, "not tried yet"),
            Some(verdict) => writeln!(
                text,
                "{} at {} (attempt {}): {}",
                verdict.outcome.word(),
                when(verdict.at),
                verdict.attempt,
                answer(verdict)
            ),
        };
    }
    text
}

/// The relay and its words, harmless.
fn answer(verdict: &Verdict) -> String {
    let what = match &verdict.outcome {
        Outcome::Relayed(reply) => format!("said \"{reply}\""),
        Outcome::Deferred { fault, maybe_duplicate: true, .. } => format!("{fault} (possible duplicate)"),
        Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => fault.to_string(),
    };
    printable(format!("{} {what}", verdict.relay).trim_start())
}

fn when(time: SystemTime) -> String {
    let zoned = Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z").to_string()
}

/// `45s`, `12m`, `3h`, `5d`.
fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `812`, `2.1K`, `50M`: as `ls -h` has it.
fn size(octets: u64) -> String {
    let (mut whole, mut rest, mut units) = (octets, 0, ["", "K", "M", "G", "T"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    while whole >= 1024 {
        let Some(next) = units.next() else { break };
        (whole, rest, unit) = (whole / 1024, whole % 1024 * 10 / 1024, next);
    }
    if unit.is_empty() || whole >= 10 { format!("{whole}{unit}") } else { format!("{whole}.{rest}{unit}") }
}
