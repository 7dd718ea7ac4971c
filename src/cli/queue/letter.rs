//! A letter in words, for people and for programs: its story, its JSON, and the small words of a table.

use super::place::Row;
use super::table::{Ink, View};
use crate::outcome::{Cause, Fault, Outcome, printable};
use crate::queue::{Event, Letter, Listed, Papers, State, Verdict, retry};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names of recipients in one line of a history; of more, the number is told.
const NAMES: usize = 3;

/// The relay and its words, harmless.
pub fn answer(verdict: &Verdict) -> String {
    format!("{} {}", printable(&verdict.relay), fault(verdict)).trim_start().to_owned()
}

/// The same in few words: a reply is enough, and whose it is need not be said.
pub fn short(verdict: &Verdict) -> String {
    match &verdict.outcome {
        Outcome::Relayed(reply)
        | Outcome::Deferred { fault: Fault { cause: Cause::Reply(reply), .. }, maybe_duplicate: false, .. }
        | Outcome::Failed { fault: Fault { cause: Cause::Reply(reply), .. }, .. } => printable(&reply.to_string()),
        Outcome::Deferred { .. } | Outcome::Failed { .. } => fault(verdict),
    }
}

fn fault(verdict: &Verdict) -> String {
    let what = match &verdict.outcome {
        Outcome::Relayed(reply) => format!("said \"{reply}\""),
        Outcome::Deferred { fault, maybe_duplicate: true, .. } => format!("{fault} (possible duplicate)"),
        Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => fault.to_string(),
    };
    printable(&what)
}

/// When the next attempt comes, in a word.
pub fn next(listed: &Listed, now: SystemTime) -> String {
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

/// `45s`, `12m`, `3h`, `5d`.
pub fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// `812`, `2.1K`, `50M`: as `ls -h` has it.
pub fn size(octets: u64) -> String {
    let (mut whole, mut rest, mut units) = (octets, 0, ["", "K", "M", "G", "T"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    while whole >= 1024 {
        let Some(next) = units.next() else { break };
        (whole, rest, unit) = (whole / 1024, whole % 1024 * 10 / 1024, next);
    }
    if unit.is_empty() || whole >= 10 { format!("{whole}{unit}") } else { format!("{whole}.{rest}{unit}") }
}

fn when(time: SystemTime) -> String {
    let zoned = Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z").to_string()
}

/// A letter's whole story: its envelope, who has it, what happened, its header.
pub fn story(papers: &Papers, row: &Row, header: &[u8], view: View, now: SystemTime) -> String {
    let Row { listed, accounts } = row;
    let (entry, history) = (&listed.letter.entry, &listed.letter.history);
    let mut text = view.ink(Ink::Bold, &entry.id.to_string());
    let mut line = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {key:<10}{value}");
    };
    line("from", &format!("<{}>", printable(&entry.envelope.reverse_path().to_string())));
    let age = span(retry::age(entry.created, now));
    line("accepted", &format!("{}, {age} ago, from uid {}", when(entry.created), entry.uid));
    line("size", &format!("{} ({} octets)", size(entry.size), entry.size));
    line("account", &printable(&accounts.join(", ")));
    let attempts = history.attempts();
    let then = match listed.state {
        State::Incoming | State::Deferred => format!("next {}", next(listed, now)),
        State::Active => "one going on".to_owned(),
        State::Hold => format!("on hold: {}", printable(history.hold().unwrap_or_default())),
        State::Failed => "it has failed and is kept".to_owned(),
    };
    line("attempts", &format!("{attempts}, {then}"));
    for (number, to) in entry.envelope.recipients().iter().enumerate() {
        let (ink, word) = match history.verdict(number).map(|verdict| &verdict.outcome) {
            None => (Ink::Dim, "waiting"),
            Some(outcome @ Outcome::Relayed(_)) => (Ink::Green, outcome.word()),
            Some(outcome @ Outcome::Deferred { .. }) => (Ink::Yellow, outcome.word()),
            Some(outcome @ Outcome::Failed { .. }) => (Ink::Red, outcome.word()),
        };
        line("to", &format!("<{}> {}", printable(&to.mailbox.to_string()), view.ink(ink, word)));
    }
    let _ = write!(text, "\n\n{}\n", view.ink(Ink::Bold, "History"));
    let _ = writeln!(text, "  {}  accepted", when(entry.created));
    for (at, words) in history_of(papers, &listed.letter) {
        let _ = writeln!(text, "  {}  {words}", when(at));
    }
    let _ = write!(text, "\n{}\n", view.ink(Ink::Bold, "Header"));
    for field in String::from_utf8_lossy(header).lines() {
        let _ = writeln!(text, "  {}", printable(&field.replace('\t', "    ")));
    }
    text
}

/// What has happened, and when. That an attempt began is news only where nothing came of it.
fn history_of(papers: &Papers, letter: &Letter) -> Vec<(SystemTime, String)> {
    let events = papers.events();
    let ends = |i: usize| {
        matches!((&events[i], events.get(i + 1)), (Event::Begun { attempt, .. }, Some(Event::Outcome { verdict, .. }))
            if verdict.attempt == *attempt)
    };
    (0..events.len()).filter(|&i| !ends(i)).map(|i| told(letter, &events[i])).collect()
}

/// When something happened, and what.
fn told(letter: &Letter, event: &Event) -> (SystemTime, String) {
    match event {
        Event::Begun { at, attempt } => (*at, format!("attempt {attempt} began")),
        Event::Outcome { whom, verdict } => {
            let word = verdict.outcome.word();
            (verdict.at, format!("attempt {}: {} {word}: {}", verdict.attempt, names(letter, whom), answer(verdict)))
        }
        Event::Reporting { at, id, whom } => (*at, format!("report {id} about {}", names(letter, whom))),
        Event::Told { at, whom } => (*at, format!("the sender knows of {}, or is not to be told", names(letter, whom))),
        Event::Late { at } => (*at, "the sender hears that it is late".to_owned()),
        Event::Held { at, why } => (*at, format!("on hold: {}", printable(why))),
        Event::Released { at } => (*at, "released".to_owned()),
        Event::Revived { at } => (*at, "starts afresh".to_owned()),
    }
}

fn names(letter: &Letter, whom: &[usize]) -> String {
    let name = |n: &usize| format!("<{}>", printable(&letter.recipient(*n).mailbox.to_string()));
    let mut text = whom.iter().take(NAMES).map(name).collect::<Vec<_>>().join(", ");
    if whom.len() > NAMES {
        let _ = write!(text, " and {} more", whom.len() - NAMES);
    }
    text
}

/// A letter as `postqueue -j` has it, with what we know besides.
pub fn object(Row { listed, accounts }: &Row) -> Value {
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
    let mut object = json!({
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
        "accounts": accounts,
        "uid": entry.uid,
    });
    if let Some(why) = history.hold() {
        object["hold_reason"] = why.into();
    }
    object
}

/// A letter's whole story as JSON.
pub fn story_object(papers: &Papers, row: &Row, header: &[u8]) -> Value {
    let mut object = object(row);
    let history = history_of(papers, &row.listed.letter).into_iter();
    let history = history.map(|(at, words)| json!({ "time": seconds(at), "event": words }));
    object["history"] = history.collect();
    object["header"] = String::from_utf8_lossy(header).into();
    object
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
