//! Decides what a fault means for one recipient: THE table.
//!
//! Pure: where and what in, an [`Outcome`] out. Nothing else in the program interprets reply codes. Only the letter's
//! own faults are final: a 5xx on MAIL, RCPT, DATA or the dot, a recipient's domain that is not there or takes no mail,
//! and a letter that cannot be put into a form that the server takes. A refusal of the session is never the letter's
//! fault, whatever its class; what is not understood is deferred: losing time beats losing mail. RFC 5321 §4.2.1
//! (severity), §4.5.3.1.10 (552 to RCPT); RFC 3463 (status); RFC 1047 (the lost final answer).

use crate::outcome::{Blame, Cause, Fault, Outcome, Reply, Stage, Status};
use crate::smtp::plan::Unfit;

/// What one recipient's answer to the letter means.
pub fn of(answer: Result<Reply, Fault>) -> Outcome {
    match answer {
        Ok(reply) => Outcome::Relayed(reply),
        Err(fault) => of_fault(fault),
    }
}

/// What a letter, or a recipient, that cannot be sent to this server means.
pub fn of_unfit(unfit: &Unfit) -> Outcome {
    let status = match unfit {
        Unfit::TooLarge { .. } => Status::new(5, 3, 4),
        Unfit::EightBit(_) => Status::new(5, 6, 3),
        Unfit::Utf8Address(_) => Status::new(5, 6, 7),
        Unfit::BadDomain(_) => Status::new(5, 1, 2),
    };
    Outcome::Failed { fault: Fault::new(Stage::Local, Cause::Letter(unfit.to_string())), blame: Blame::Letter, status }
}

/// Whether another letter through the same account would meet the same fault.
pub fn is_down(fault: &Fault) -> bool {
    match &fault.cause {
        Cause::Letter(_) | Cause::Interrupted => false,
        Cause::Reply(reply) => reply.code == 421 || asks_for_auth(fault.stage, reply) || fault.stage < Stage::Mail,
        Cause::NoSuchHost(_)
        | Cause::NoSuchDomain(_)
        | Cause::NullMx(_)
        | Cause::Network(_)
        | Cause::Timeout(_)
        | Cause::Tls(_)
        | Cause::Protocol(_)
        | Cause::Policy(_)
        | Cause::Local(_) => fault.stage < Stage::Mail,
    }
}

fn of_fault(fault: Fault) -> Outcome {
    // The dot is out and no refusal has come back: the relay may have the letter.
    let maybe_duplicate = fault.stage == Stage::Dot && fault.reply().is_none();
    let (blame, status) = match &fault.cause {
        Cause::Reply(reply) => match of_reply(fault.stage, reply) {
            Meaning::Failed(blame) => {
                let status = reply.status().unwrap_or(Status::new(5, 0, 0));
                return Outcome::Failed { blame, status, fault };
            }
            Meaning::Deferred(blame) => {
                // A 5xx that we do not take for final keeps its subject and detail.
                (blame, reply.status().map_or(Status::new(4, 0, 0), |status| Status { class: 4, ..status }))
            }
        },
        Cause::Letter(_) => {
            return Outcome::Failed { fault, blame: Blame::Letter, status: Status::new(5, 6, 0) };
        }
        // A relay that is not there is a slip of the pen; a recipient's domain that is not there is no address.
        Cause::NoSuchHost(_) => (Blame::Settings, Status::new(4, 4, 4)),
        Cause::NoSuchDomain(_) => {
            return Outcome::Failed { fault, blame: Blame::Recipient, status: Status::new(5, 1, 2) };
        }
        Cause::NullMx(_) => return Outcome::Failed { fault, blame: Blame::Recipient, status: Status::new(5, 1, 10) },
        Cause::Network(_) | Cause::Timeout(_) => (
            Blame::Relay,
            match fault.stage {
                Stage::Resolve => Status::new(4, 4, 3),
                Stage::Connect => Status::new(4, 4, 1),
                _ => Status::new(4, 4, 2),
            },
        ),
        // Before the session stands it is the certificate or the protocol version, and both are settings.
        Cause::Tls(_) if fault.stage == Stage::Tls => (Blame::Settings, Status::new(4, 7, 5)),
        Cause::Tls(_) => (Blame::Relay, Status::new(4, 4, 2)),
        Cause::Protocol(_) => (Blame::Protocol, Status::new(4, 5, 0)),
        Cause::Policy(_) => (Blame::Settings, Status::new(4, 7, 4)),
        Cause::Local(_) if fault.stage == Stage::Local || fault.stage == Stage::Auth => {
            (Blame::Settings, Status::new(4, 3, 5))
        }
        Cause::Local(_) => (Blame::System, Status::new(4, 3, 0)),
        Cause::Interrupted => (Blame::System, Status::new(4, 3, 2)),
    };
    Outcome::Deferred { fault, blame, status, maybe_duplicate }
}

/// Whether a reply is final, and whose fault it is.
enum Meaning {
    Failed(Blame),
    Deferred(Blame),
}

fn of_reply(stage: Stage, reply: &Reply) -> Meaning {
    use Meaning::{Deferred, Failed};
    if !reply.is_permanent() {
        return Deferred(if reply.is_transient() { Blame::Relay } else { Blame::Protocol });
    }
    if asks_for_auth(stage, reply) {
        return Deferred(Blame::Settings);
    }
    match stage {
        Stage::Local | Stage::Resolve | Stage::Connect | Stage::Greeting | Stage::StartTls | Stage::Tls => {
            Deferred(Blame::Relay)
        }
        // Our name, or our password.
        Stage::Ehlo | Stage::Auth => Deferred(Blame::Settings),
        Stage::Mail | Stage::Data | Stage::Content | Stage::Dot => Failed(Blame::Letter),
        // "Too many recipients", from servers older than 452: the others get their mail, this one later.
        Stage::Rcpt if reply.code == 552 => Deferred(Blame::Relay),
        Stage::Rcpt => Failed(Blame::Recipient),
    }
}

/// The replies of RFC 4954 §6 by which a server says that it is about authentication and not about the letter.
fn asks_for_auth(stage: Stage, reply: &Reply) -> bool {
    stage >= Stage::Mail && matches!(reply.code, 530 | 534 | 535 | 538)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Stage; 13] = [
        Stage::Local,
        Stage::Resolve,
        Stage::Connect,
        Stage::Greeting,
        Stage::Ehlo,
        Stage::StartTls,
        Stage::Tls,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Content,
        Stage::Dot,
    ];

    fn reply(code: u16, text: &str) -> Cause {
        Cause::Reply(Reply { code, lines: vec![text.to_owned()] })
    }

    /// `deferred Relay 4.4.1`, with `duplicate?` behind it, as one would say it.
    fn meaning(stage: Stage, cause: Cause) -> String {
        let outcome = of(Err(Fault::new(stage, cause)));
        let status = outcome.status();
        match outcome {
            Outcome::Relayed(_) => "relayed".to_owned(),
            Outcome::Failed { blame, .. } => format!("failed {blame:?} {status}"),
            Outcome::Deferred { blame, maybe_duplicate, .. } => {
                format!("deferred {blame:?} {status}{}", if maybe_duplicate { " duplicate?" } else { "" })
            }
        }
    }

    #[test]
    fn the_table() {
        for (stage, cause, expected) in [
            (Stage::Greeting, reply(554, "5.7.1 go away"), "deferred Relay 4.7.1"),
            (Stage::Greeting, reply(421, "busy"), "deferred Relay 4.0.0"),
            (Stage::Ehlo, reply(550, "bad name"), "deferred Settings 4.0.0"),
            (Stage::Ehlo, reply(451, "later"), "deferred Relay 4.0.0"),
            (Stage::StartTls, reply(502, ""), "deferred Relay 4.0.0"),
            (Stage::StartTls, reply(454, "4.7.0 no"), "deferred Relay 4.7.0"),
            (Stage::Auth, reply(535, "5.7.8 bad password"), "deferred Settings 4.7.8"),
            (Stage::Auth, reply(454, "4.7.0 backend down"), "deferred Relay 4.7.0"),
            (Stage::Mail, reply(550, "5.7.1 not you"), "failed Letter 5.7.1"),
            (Stage::Mail, reply(552, "5.3.4 too big"), "failed Letter 5.3.4"),
            (Stage::Mail, reply(530, "5.7.0 log in first"), "deferred Settings 4.7.0"),
            (Stage::Mail, reply(451, ""), "deferred Relay 4.0.0"),
            (Stage::Rcpt, reply(550, "5.1.1 unknown"), "failed Recipient 5.1.1"),
            (Stage::Rcpt, reply(553, ""), "failed Recipient 5.0.0"),
            (Stage::Rcpt, reply(551, "user not local"), "failed Recipient 5.0.0"),
            (Stage::Rcpt, reply(450, "4.2.0 greylisted"), "deferred Relay 4.2.0"),
            (Stage::Rcpt, reply(452, "4.5.3 too many"), "deferred Relay 4.5.3"),
            (Stage::Rcpt, reply(552, "5.5.3 too many"), "deferred Relay 4.5.3"),
            (Stage::Rcpt, reply(421, "4.3.2 closing"), "deferred Relay 4.3.2"),
            (Stage::Rcpt, reply(530, ""), "deferred Settings 4.0.0"),
            (Stage::Data, reply(554, "5.7.1 spam"), "failed Letter 5.7.1"),
            (Stage::Data, reply(451, ""), "deferred Relay 4.0.0"),
            (Stage::Content, reply(552, "5.3.4 full"), "failed Letter 5.3.4"),
            (Stage::Dot, reply(554, "5.6.0 no"), "failed Letter 5.6.0"),
            (Stage::Dot, reply(452, "4.3.1 disk full"), "deferred Relay 4.3.1"),
            (Stage::Dot, reply(354, "what?"), "deferred Protocol 4.0.0"),
            (Stage::Local, Cause::Local("no password".into()), "deferred Settings 4.3.5"),
            (Stage::Content, Cause::Local("disk".into()), "deferred System 4.3.0"),
            (Stage::Resolve, Cause::NoSuchHost("x".into()), "deferred Settings 4.4.4"),
            (Stage::Resolve, Cause::NoSuchDomain("x".into()), "failed Recipient 5.1.2"),
            (Stage::Resolve, Cause::NullMx("x".into()), "failed Recipient 5.1.10"),
            (Stage::Resolve, Cause::Timeout("x".into()), "deferred Relay 4.4.3"),
            (Stage::Connect, Cause::Network("refused".into()), "deferred Relay 4.4.1"),
            (Stage::Tls, Cause::Tls("expired".into()), "deferred Settings 4.7.5"),
            (Stage::Rcpt, Cause::Tls("bad record".into()), "deferred Relay 4.4.2"),
            (Stage::StartTls, Cause::Policy("not offered".into()), "deferred Settings 4.7.4"),
            (Stage::Auth, Cause::Protocol("250".into()), "deferred Protocol 4.5.0"),
            (Stage::Content, Cause::Network("reset".into()), "deferred Relay 4.4.2"),
            (Stage::Dot, Cause::Network("reset".into()), "deferred Relay 4.4.2 duplicate?"),
            (Stage::Dot, Cause::Timeout("silence".into()), "deferred Relay 4.4.2 duplicate?"),
            (Stage::Dot, Cause::Protocol("354".into()), "deferred Protocol 4.5.0 duplicate?"),
            (Stage::Dot, Cause::Interrupted, "deferred System 4.3.2 duplicate?"),
            (Stage::Data, Cause::Interrupted, "deferred System 4.3.2"),
        ] {
            let said = format!("{cause:?} after {stage}");
            assert_eq!(meaning(stage, cause), expected, "{said}");
        }
    }

    #[test]
    fn a_refusal_of_the_session_is_never_the_letters_fault() {
        for stage in STAGES.into_iter().filter(|&stage| stage < Stage::Mail) {
            for code in 400..600 {
                let fault = Fault::new(stage, reply(code, ""));
                assert!(is_down(&fault), "{code} after {stage}");
                assert!(!of(Err(fault)).is_final(), "{code} after {stage}");
            }
        }
    }

    #[test]
    fn a_deferral_has_status_class_4_and_a_failure_5() {
        for stage in STAGES {
            for code in 200..600 {
                let outcome = of(Err(Fault::new(stage, reply(code, &format!("{}.1.1 x", code / 100)))));
                assert_eq!(outcome.status().class, if outcome.is_final() { 5 } else { 4 }, "{code} after {stage}");
            }
        }
    }

    #[test]
    fn one_letters_fault_does_not_take_the_relay_down() {
        for (stage, cause, down) in [
            (Stage::Rcpt, reply(550, ""), false),
            (Stage::Dot, reply(451, ""), false),
            (Stage::Dot, reply(421, ""), true),
            (Stage::Mail, reply(530, ""), true),
            (Stage::Content, Cause::Network("reset".into()), false),
            (Stage::Connect, Cause::Network("refused".into()), true),
            (Stage::Local, Cause::Local("no password".into()), true),
            (Stage::Connect, Cause::Interrupted, false),
            (Stage::Local, Cause::Letter("too big".into()), false),
        ] {
            let fault = Fault::new(stage, cause);
            assert_eq!(is_down(&fault), down, "{fault:?}");
        }
    }
}
