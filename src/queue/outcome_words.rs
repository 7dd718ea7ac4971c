//! An [`Outcome`] as words of a record, and back.
//!
//! Everything a sentence or a report will need of it is kept, so that `mailq` today and a bounce in five days can quote
//! the server. Texts are cut to a sane length first: a server's answer must not grow the queue.

use super::words::{escape, unescape};
use crate::outcome::{Blame, Cause, Fault, Outcome, Reply, Stage, Status};

/// Lines of a reply, and characters of a text, that are kept.
const LINES: usize = 20;
const CHARS: usize = 512;

const STAGES: [(Stage, &str); 13] = [
    (Stage::Local, "local"),
    (Stage::Resolve, "resolve"),
    (Stage::Connect, "connect"),
    (Stage::Greeting, "greeting"),
    (Stage::Ehlo, "ehlo"),
    (Stage::StartTls, "starttls"),
    (Stage::Tls, "tls"),
    (Stage::Auth, "auth"),
    (Stage::Mail, "mail"),
    (Stage::Rcpt, "rcpt"),
    (Stage::Data, "data"),
    (Stage::Content, "content"),
    (Stage::Dot, "dot"),
];

const BLAMES: [(Blame, &str); 6] = [
    (Blame::Recipient, "recipient"),
    (Blame::Letter, "letter"),
    (Blame::Relay, "relay"),
    (Blame::Protocol, "protocol"),
    (Blame::Settings, "settings"),
    (Blame::System, "system"),
];

/// The words, separated by spaces. `doubtful` is a deferral after which the relay may have the letter.
pub(super) fn write(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Relayed(reply) => format!("relayed {}", write_reply(reply)),
        Outcome::Deferred { fault, blame, status, maybe_duplicate } => {
            let word = if *maybe_duplicate { "doubtful" } else { "deferred" };
            format!("{word} {}", write_fault(fault, *blame, *status))
        }
        Outcome::Failed { fault, blame, status } => format!("failed {}", write_fault(fault, *blame, *status)),
    }
}

/// What [`write()`] was given, with its texts cut. `None` for anything else.
pub(super) fn read(words: &[&str]) -> Option<Outcome> {
    let (&word, rest) = words.split_first()?;
    if word == "relayed" {
        return read_reply(rest).map(Outcome::Relayed);
    }
    let (&[status, stage, blame], cause) = rest.split_first_chunk::<3>()?;
    let status = Status::parse(status)?;
    let fault = Fault::new(named(&STAGES, stage)?, read_cause(cause)?);
    let blame = named(&BLAMES, blame)?;
    match word {
        "deferred" | "doubtful" => {
            Some(Outcome::Deferred { fault, blame, status, maybe_duplicate: word == "doubtful" })
        }
        "failed" => Some(Outcome::Failed { fault, blame, status }),
        _ => None,
    }
}

fn write_fault(fault: &Fault, blame: Blame, status: Status) -> String {
    format!("{status} {} {} {}", name(&STAGES, fault.stage), name(&BLAMES, blame), write_cause(&fault.cause))
}

fn write_cause(cause: &Cause) -> String {
    let (word, text) = match cause {
        Cause::Reply(reply) => return format!("reply {}", write_reply(reply)),
        Cause::Interrupted => return "interrupted".to_owned(),
        Cause::NoSuchHost(text) => ("host", text),
        Cause::NoSuchDomain(text) => ("domain", text),
        Cause::NullMx(text) => ("nullmx", text),
        Cause::Network(text) => ("network", text),
        Cause::Timeout(text) => ("timeout", text),
        Cause::Tls(text) => ("tls", text),
        Cause::Protocol(text) => ("protocol", text),
        Cause::Policy(text) => ("policy", text),
        Cause::Letter(text) => ("letter", text),
        Cause::Local(text) => ("local", text),
    };
    format!("{word} {}", escape(cut(text)))
}

fn read_cause(words: &[&str]) -> Option<Cause> {
    match words {
        ["reply", reply @ ..] => read_reply(reply).map(Cause::Reply),
        ["interrupted"] => Some(Cause::Interrupted),
        [word, text] => {
            let text = unescape(text)?;
            match *word {
                "host" => Some(Cause::NoSuchHost(text)),
                "domain" => Some(Cause::NoSuchDomain(text)),
                "nullmx" => Some(Cause::NullMx(text)),
                "network" => Some(Cause::Network(text)),
                "timeout" => Some(Cause::Timeout(text)),
                "tls" => Some(Cause::Tls(text)),
                "protocol" => Some(Cause::Protocol(text)),
                "policy" => Some(Cause::Policy(text)),
                "letter" => Some(Cause::Letter(text)),
                "local" => Some(Cause::Local(text)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn write_reply(reply: &Reply) -> String {
    let lines = reply.lines.iter().take(LINES).map(|line| escape(cut(line)));
    std::iter::once(reply.code.to_string()).chain(lines).collect::<Vec<_>>().join(" ")
}

fn read_reply(words: &[&str]) -> Option<Reply> {
    let (code, lines) = words.split_first()?;
    let lines = lines.iter().map(|line| unescape(line)).collect::<Option<Vec<_>>>()?;
    Some(Reply { code: code.parse().ok()?, lines })
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(CHARS).map_or(text, |(end, _)| &text[..end])
}

fn name<T: Copy + PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table.iter().find(|(known, _)| *known == value).map_or("unknown", |(_, word)| word)
}

fn named<T: Copy>(table: &[(T, &'static str)], word: &str) -> Option<T> {
    table.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn reply() -> impl Strategy<Value = Reply> {
        (200_u16..600, proptest::collection::vec("(?s).{0,40}", 1..4)).prop_map(|(code, lines)| Reply { code, lines })
    }

    fn cause() -> impl Strategy<Value = Cause> {
        let texts: Vec<fn(String) -> Cause> = vec![
            Cause::NoSuchHost,
            Cause::NoSuchDomain,
            Cause::NullMx,
            Cause::Network,
            Cause::Timeout,
            Cause::Tls,
            Cause::Protocol,
            Cause::Policy,
            Cause::Letter,
            Cause::Local,
        ];
        let text = (select(texts), any::<String>()).prop_map(|(make, text)| make(text.chars().take(CHARS).collect()));
        prop_oneof![reply().prop_map(Cause::Reply), Just(Cause::Interrupted), text]
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        let stages: Vec<Stage> = STAGES.iter().map(|(stage, _)| *stage).collect();
        let blames: Vec<Blame> = BLAMES.iter().map(|(blame, _)| *blame).collect();
        let fault = (select(stages), cause()).prop_map(|(stage, cause)| Fault::new(stage, cause));
        let parts = (fault, select(blames), 0_u16..999, any::<bool>(), any::<bool>());
        let fault = parts.prop_map(|(fault, blame, detail, failed, maybe_duplicate)| {
            if failed {
                Outcome::Failed { fault, blame, status: Status::new(5, 1, detail) }
            } else {
                Outcome::Deferred { fault, blame, status: Status::new(4, 1, detail), maybe_duplicate }
            }
        });
        prop_oneof![fault, reply().prop_map(Outcome::Relayed)]
    }

    proptest! {
        #[test]
        fn any_outcome_reads_back(outcome in outcome()) {
            let text = write(&outcome);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(read(&text.split(' ').collect::<Vec<_>>()), Some(outcome));
        }
    }

    #[test]
    fn a_server_s_endless_words_do_not_grow_the_queue() {
        let reply = Reply { code: 451, lines: vec!["é".repeat(100_000); 1000] };
        assert!(write(&Outcome::Relayed(reply)).len() < 30_000);
    }
}
