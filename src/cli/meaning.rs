//! What a command line amounts to: the letters that [`super::options`] read become a [`Command`].
//!
//! Inert: nothing is opened, asked or decided here that needs more than the words. What an option does, and
//! why others are ignored, stands in the table; the sub-values of `-b`, `-o`, `-O` and `-q` are told apart here.

mod run;

pub(super) use run::interval;
pub use run::{Field, Filter, Run};

use super::options::{OPTIONS, Treatment, Typed, Usage};
use crate::config::msmtprc::{self, Argument, Surroundings};
use crate::envelope::{Notify, Ret};
use crate::message::LoneDot;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What the caller wants.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Take a message from standard input.
    Deliver(Delivery),
    /// `mailq`, `-bp`.
    ListQueue(Option<PathBuf>),
    /// `-q…`.
    RunQueue(Run),
    /// `newaliases`, `-bi`, `-I`.
    Aliases(Option<PathBuf>),
    /// `-bs`.
    Serve(Delivery),
    /// `--help`.
    Help,
    /// `--version`, `-d0.1`.
    Version,
    /// `-bh`, `-bH`: nothing to do, successfully.
    Nothing,
    /// `--pretend`: which account would be used.
    Pretend(Delivery),
    /// `--serverinfo`: what the relay says of itself.
    ServerInfo(Delivery),
}

/// How a letter is to be delivered: the options that matter for it.
#[derive(Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // each is an option that is there or not
pub struct Delivery {
    /// `-C`
    pub config: Option<PathBuf>,
    /// `-a`
    pub account: Option<String>,
    /// `-f`, `-r`: the last one, as typed.
    pub sender: Option<String>,
    /// `-F`: the last one; empty means no name.
    pub full_name: Option<String>,
    /// `-t`
    pub recipients_from_header: bool,
    /// `-i`, `-oi`
    pub lone_dot: LoneDot,
    /// `-od…`
    pub mode: Mode,
    /// `-oe…`, `-e…`
    pub errors: ErrorMode,
    /// `-N`
    pub notify: Option<Notify>,
    /// `-R`
    pub ret: Option<Ret>,
    /// `-V`
    pub envid: Option<String>,
    /// `-G`
    pub gateway: bool,
    /// `-v`
    pub verbose: bool,
    /// Somebody sees how far the letter has come, and waits for the end.
    pub is_watched: bool,
    /// `-L`
    pub tag: Option<String>,
    /// `--read-envelope-from`
    pub sender_from_header: bool,
    /// msmtp's options that are keywords of its configuration, and their values.
    pub arguments: Vec<Argument>,
    /// The recipients' words, as typed.
    pub recipients: Vec<String>,
}

/// When delivery is tried (`-od`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `i`: at once, while the caller waits.
    Interactive,
    /// `b`: queued, then in the background.
    Background,
    /// `q`, `d`: queued only.
    Queue,
}

/// How a failure is told (`-oe`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMode {
    /// `p`: sentence and exit status.
    Print,
    /// `q`: exit status alone.
    Quiet,
    /// `m`, `w`: sentence, exit status, and a report to the reverse-path.
    Mail,
    /// `e`: a report to the reverse-path, and exit 0.
    MailAndSucceed,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            config: None,
            account: None,
            sender: None,
            full_name: None,
            recipients_from_header: false,
            lone_dot: LoneDot::Ends,
            mode: Mode::Interactive,
            errors: ErrorMode::Print,
            notify: None,
            ret: None,
            envid: None,
            gateway: false,
            verbose: false,
            is_watched: false,
            tag: None,
            sender_from_header: false,
            arguments: Vec::new(),
            recipients: Vec::new(),
        }
    }
}

/// Which mode of operation the words choose; the last of `-b…`, `-I` and `-q…` wins, as in every sendmail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Deliver,
    List,
    Aliases,
    Serve,
    Run,
    Nothing,
    Pretend,
    ServerInfo,
}

/// Gives the words their meaning. `program` is the name we were called by, without its directory.
pub fn mean(program: &str, typed: Typed) -> Result<Command, Usage> {
    let mut reading = Reading {
        chosen: match program {
            "mailq" => Chosen::List,
            "newaliases" => Chosen::Aliases,
            _ => Chosen::Deliver,
        },
        delivery: Delivery::default(),
        run: Run::default(),
    };
    let asks =
        |what: &str| typed.options.iter().any(|(row, value)| row.spelling == what && (what != "-d" || value == "0.1"));
    if asks("--help") {
        return Ok(Command::Help);
    }
    // Scripts find out which sendmail this is with `-d0.1 -bv`, or the other way round.
    if asks("--version") || asks("-d") {
        return Ok(Command::Version);
    }
    for (row, value) in typed.options {
        match row.spelling {
            "-C" | "--file" => reading.delivery.config = Some(PathBuf::from(value)),
            _ if row.treatment == Treatment::Ignored => {}
            spelling => reading.take(spelling, text(&value)?)?,
        }
    }
    reading.finish(&typed.recipients)
}

/// An argument as text.
fn text(word: &OsStr) -> Result<String, Usage> {
    word.to_str().map(str::to_owned).ok_or_else(|| Usage::NotText(word.to_string_lossy().into_owned()))
}

/// What the words have amounted to so far.
struct Reading {
    chosen: Chosen,
    delivery: Delivery,
    run: Run,
}

impl Reading {
    /// Takes one honoured option.
    fn take(&mut self, spelling: &'static str, value: String) -> Result<(), Usage> {
        let delivery = &mut self.delivery;
        match spelling {
            "-a" | "--account" => delivery.account = Some(value),
            "-b" => self.chosen = mode_of_operation(&value)?,
            "-e" => delivery.error_mode(&value),
            "-F" => delivery.full_name = Some(value),
            "-f" | "-r" | "--from" => delivery.sender = Some(value),
            "-G" => delivery.gateway = true,
            "-I" => self.chosen = Chosen::Aliases,
            "-i" => delivery.lone_dot = LoneDot::IsText,
            "-L" => delivery.tag = Some(value),
            // An unknown word or a malformed id concerns reports only: no letter is held up for it.
            "-N" | "--dsn-notify" => delivery.notify = Notify::parse(&value).or(delivery.notify),
            "-R" | "--dsn-return" => delivery.ret = Ret::parse(&value).or(delivery.ret),
            "-V" if is_envid(&value) => delivery.envid = Some(value),
            "-O" => delivery.long_option(&value),
            "-o" => delivery.short_option(&value),
            "-q" => {
                self.chosen = Chosen::Run;
                self.run.read(&value)?;
            }
            "-t" | "--read-recipients" => delivery.recipients_from_header = true,
            "-v" | "-d" | "--debug" => delivery.verbose = true,
            "-P" | "--pretend" => self.chosen = Chosen::Pretend,
            "-S" | "--serverinfo" => self.chosen = Chosen::ServerInfo,
            "--read-envelope-from" => delivery.sender_from_header = true,
            _ => delivery.keyword(spelling, value)?,
        }
        Ok(())
    }

    /// Puts mode, options and recipients together.
    fn finish(self, recipients: &[OsString]) -> Result<Command, Usage> {
        let Self { chosen, mut delivery, mut run } = self;
        if delivery.account.is_some() && delivery.arguments.iter().any(|(keyword, _)| keyword == "host") {
            return Err(Usage::Contradiction("--account", "--host"));
        }
        if delivery.sender.is_some() && delivery.sender_from_header {
            return Err(Usage::Contradiction("--from", "--read-envelope-from"));
        }
        let without = |what: &'static str, command: Command| {
            if recipients.is_empty() { Ok(command) } else { Err(Usage::RecipientsHere(what)) }
        };
        match chosen {
            Chosen::Deliver => {
                delivery.recipients = recipients.iter().map(|word| text(word)).collect::<Result<_, _>>()?;
                Ok(Command::Deliver(delivery))
            }
            Chosen::List => without("listing the queue", Command::ListQueue(delivery.config)),
            Chosen::Aliases => without("checking the aliases", Command::Aliases(delivery.config)),
            Chosen::Serve => without("-bs", Command::Serve(delivery)),
            Chosen::Run => {
                run.config = delivery.config;
                run.verbose = delivery.verbose;
                without("a queue run", Command::RunQueue(run))
            }
            Chosen::Nothing => Ok(Command::Nothing),
            Chosen::Pretend => Ok(Command::Pretend(delivery)),
            Chosen::ServerInfo => without("--serverinfo", Command::ServerInfo(delivery)),
        }
    }
}

/// The value of `-b`, by the table's rows.
fn mode_of_operation(value: &str) -> Result<Chosen, Usage> {
    let bad = || Usage::BadValue("-b", value.to_owned());
    let spelling = format!("-b{value}");
    let row = OPTIONS.iter().find(|row| row.spelling == spelling && spelling.len() > 2).ok_or_else(bad)?;
    match row.spelling {
        "-bm" => Ok(Chosen::Deliver),
        "-bp" => Ok(Chosen::List),
        "-bi" => Ok(Chosen::Aliases),
        "-bs" => Ok(Chosen::Serve),
        _ if row.treatment == Treatment::Refused => Err(Usage::Refused(row.spelling, row.help)),
        _ => Ok(Chosen::Nothing),
    }
}

impl Delivery {
    /// `--keyword=value` of msmtp. A home and a mail name are as good as any here: the value is only judged.
    fn keyword(&mut self, spelling: &'static str, value: String) -> Result<(), Usage> {
        let Some(name) = spelling.strip_prefix("--") else { return Ok(()) };
        let keyword = name.replace('-', "_");
        let (home, mailname) = (Some(PathBuf::from("/")), Some("localhost".to_owned()));
        let around = Surroundings { home, mailname, login: "nobody".to_owned(), ..Surroundings::default() };
        msmtprc::check(&keyword, &value, &around).map_err(|_| Usage::BadValue(spelling, value.clone()))?;
        self.arguments.push((keyword, value));
        Ok(())
    }

    /// `-oX…`: the first character is the option, the rest its value. Unknown ones are ignored, as by most.
    fn short_option(&mut self, option: &str) {
        let mut chars = option.chars();
        let (letter, value) = (chars.next(), chars.as_str());
        match letter {
            Some('i') => self.lone_dot = if is_false(value) { LoneDot::Ends } else { LoneDot::IsText },
            Some('d') => self.delivery_mode(value),
            Some('e') => self.error_mode(value),
            _ => {}
        }
    }

    /// `-O Name=value`.
    fn long_option(&mut self, option: &str) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "ignoredots" => self.lone_dot = if is_false(value) { LoneDot::Ends } else { LoneDot::IsText },
            "deliverymode" => self.delivery_mode(&value.to_ascii_lowercase()),
            "errormode" => self.error_mode(&value.to_ascii_lowercase()),
            _ => {}
        }
    }

    /// The first letter decides, so that `-odbackground` and `DeliveryMode=queue` work; an empty one is `b`.
    fn delivery_mode(&mut self, value: &str) {
        self.mode = match value.chars().next() {
            None | Some('b') => Mode::Background,
            Some('i' | 'f') => Mode::Interactive,
            Some('q' | 'd') => Mode::Queue,
            Some(_) => self.mode,
        };
    }

    /// The first letter decides.
    fn error_mode(&mut self, value: &str) {
        self.errors = match value.chars().next() {
            Some('p') => ErrorMode::Print,
            Some('q') => ErrorMode::Quiet,
            Some('m' | 'w') => ErrorMode::Mail,
            Some('e') => ErrorMode::MailAndSucceed,
            _ => self.errors,
        };
    }
}

/// sendmail's idea of "no" in a boolean option.
fn is_false(value: &str) -> bool {
    matches!(value.chars().next(), Some('f' | 'F' | 'n' | 'N' | '0'))
}

/// Whether RFC 3461 §4.4 allows it as an envelope id: printable ASCII without spaces, at most 100 characters.
fn is_envid(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::super::options::parse;
    use super::*;
    use std::time::Duration;

    fn command(program: &str, line: &str) -> Result<Command, Usage> {
        mean(program, parse(program, line.split_ascii_whitespace().map(OsString::from)).unwrap())
    }

    fn delivery(line: &str) -> Delivery {
        match command("sendmail", line) {
            Ok(Command::Deliver(delivery)) => delivery,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_modes_of_operation_are_told_apart() {
        for (program, line, want) in [
            ("mailq", "", Command::ListQueue(None)),
            ("sendmail", "-bp", Command::ListQueue(None)),
            ("newaliases", "", Command::Aliases(None)),
            ("sendmail", "-bi", Command::Aliases(None)),
            ("sendmail", "-I", Command::Aliases(None)),
            ("sendmail", "-bH", Command::Nothing),
            ("sendmail", "-d0.1 -bm", Command::Version),
            ("sendmail", "-bv -d0.1 root", Command::Version),
            ("sendmail", "--help x", Command::Help),
            ("sendmail", "-q", Command::RunQueue(Run::default())),
            ("sendmail", "-qf -C f", Command::RunQueue(Run { all: true, config: Some("f".into()), ..Run::default() })),
        ] {
            assert_eq!(command(program, line), Ok(want), "{program} {line}");
        }
        for line in ["-bd", "-bv a@b", "-bt", "-bz", "-b x a", "-bp a@b", "-q a@b", "-qz", "-qI", "-q0"] {
            assert!(command("sendmail", line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_lone_dot_ends_the_message_unless_an_option_says_otherwise() {
        for (line, want) in [
            ("", LoneDot::Ends),
            ("-i", LoneDot::IsText),
            ("-oi", LoneDot::IsText),
            ("-o i", LoneDot::IsText),
            ("-oitrue", LoneDot::IsText),
            ("-oiFalse", LoneDot::Ends),
            ("-OIgnoreDots=true", LoneDot::IsText),
            ("-oem", LoneDot::Ends),
        ] {
            assert_eq!(delivery(line).lone_dot, want, "{line}");
        }
    }

    #[test]
    fn modes_of_delivery_and_errors_are_read_in_every_spelling() {
        for (line, mode, errors) in [
            ("", Mode::Interactive, ErrorMode::Print),
            ("-odb -oem", Mode::Background, ErrorMode::Mail),
            ("-odi -em", Mode::Interactive, ErrorMode::Mail),
            ("-odq -oee", Mode::Queue, ErrorMode::MailAndSucceed),
            ("-odd -eq", Mode::Queue, ErrorMode::Quiet),
            ("-od -oep", Mode::Background, ErrorMode::Print),
            ("-ODeliveryMode=b -OErrorMode=m", Mode::Background, ErrorMode::Mail),
            ("-odz -oez", Mode::Interactive, ErrorMode::Print),
        ] {
            let delivery = delivery(line);
            assert_eq!((delivery.mode, delivery.errors), (mode, errors), "{line}");
        }
    }

    #[test]
    fn nothing_is_taken_from_arguments_that_name_files() {
        let with = delivery("-X /tmp/x -D /tmp/d -oQ/tmp/q -OQueueDirectory=/tmp -OLogFile=x a@b");
        assert_eq!(with, delivery("a@b"));
    }

    #[test]
    fn what_concerns_reports_never_holds_a_letter_up() {
        let delivery = delivery("-N bogus -R bogus -V caf\u{e9} a@b");
        assert_eq!((delivery.notify, delivery.ret, delivery.envid), (None, None, None));
        assert_eq!(super::tests::delivery("-N failure,delay -R hdrs -VQ1").envid.as_deref(), Some("Q1"));
    }

    #[test]
    fn intervals_and_filters_are_sendmails() {
        for (text, want) in [("30m", Some(1_800)), ("1h30m", Some(5_400)), ("5", Some(300)), ("0", None), ("x", None)] {
            assert_eq!(interval(text), want.map(Duration::from_secs), "{text}");
        }
        assert_eq!(interval("99999999999999999999d"), None);
        for line in ["-q!", "-q!f", "-q!30m", "-q!R"] {
            assert!(command("sendmail", line).is_err(), "{line}");
        }
        assert_eq!(command("sendmail", "-qSops@ -q!Rexample.org"), command("sendmail", "-qSops@ -qR!example.org"));
        let Ok(Command::RunQueue(run)) = command("sendmail", "-qSops@ -qR!example.org") else { panic!() };
        let to = |a: &str| vec![a.to_owned()];
        let passes = |sender: &str, rcpt| run.only.iter().all(|f| f.takes("1A", sender, &to(rcpt)));
        assert!(passes("Ops@x", "a@example.com"));
        assert!(!passes("Ops@x", "a@Example.org") && !passes("root@x", "a@example.com"));
    }
}
