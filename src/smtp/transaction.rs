//! One letter's way through a session: what is said next, what is answered next, and what it comes to.
//!
//! Pure: replies in, a result for each recipient out. A [`Transaction`] has two places in the same row
//! of [`Step`]s, the next to say and the next to be answered; between them lies what is awaited. One
//! refused recipient never costs the others their mail. The answer to the end of the content is final
//! when it is positive, and counts for those whom the server has accepted, whatever else it said. In
//! LMTP it comes once for each of them, and counts for that one; who has none when the connection is
//! lost may have got the letter or not. RFC 5321 §3.3, RFC 3030 (BDAT), RFC 2033 §4.2 and §4.3 (LMTP).

use super::plan::Plan;
use crate::outcome::{Cause, Fault, Reply, Stage};

/// What is said of a letter, and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// RSET, where an earlier transaction may still be open.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT, with its place among the plan's recipients.
    Rcpt(usize),
    /// DATA.
    Data,
    /// The content up to its end: the final dot, or the last octet behind `BDAT … LAST`.
    End,
    /// Nothing more.
    Over,
}

impl Step {
    /// Where a refusal of this step happened.
    pub fn stage(self) -> Stage {
        match self {
            Self::Reset | Self::Mail => Stage::Mail,
            Self::Rcpt(_) => Stage::Rcpt,
            Self::Data => Stage::Data,
            Self::End | Self::Over => Stage::Dot,
        }
    }
}

/// How the content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// DATA, and the content once the 354 is there.
    Data,
    /// `BDAT … LAST` and the content in the same flight as the envelope.
    Chunk,
}

/// Whom the answer to the end of the content is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// All whom the server has accepted.
    Smtp,
    /// Each of them has one, in the order of the RCPTs.
    Lmtp,
}

/// What a reply was to its transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer, good or bad.
    Answer,
    /// The server does not know BDAT after all: the letter is as unsent as before.
    NoBdat,
    /// RSET was refused, so that nobody knows what the next commands would add to.
    NoReset(Fault),
}

/// What the letter wants to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Say the command that is next.
    Command,
    /// Send the content.
    Content,
    /// Send a lone dot: the server has answered DATA with 354 although nobody shall get the letter.
    LoneDot,
    /// Stop: what is to come would be in vain.
    Stop,
    /// Wait for answers.
    Wait,
    /// Nothing.
    Over,
}

/// One letter in a session.
#[derive(Debug)]
pub struct Transaction {
    /// How its content goes.
    pub manner: Manner,
    protocol: Protocol,
    /// What is to be said next.
    pub saying: Step,
    /// What is answered next.
    pub hearing: Step,
    /// The last octet of the content is out: from here on the relay may have the letter.
    pub sent: bool,
    mail: Option<Fault>,
    /// For each of the plan's recipients: nothing yet, accepted, or its refusal.
    recipients: Vec<Option<Result<(), Fault>>>,
    accepted: usize,
    /// LMTP: the answers to the end, one for each accepted recipient, as far as they have come.
    each: Vec<Result<Reply, Fault>>,
    data: Option<Result<(), Fault>>,
    end: Option<Result<Reply, Fault>>,
}

impl Transaction {
    /// The transaction of a letter that goes to the recipients of a plan.
    pub fn new(protocol: Protocol, manner: Manner, plan: &Plan) -> Self {
        let first = if plan.recipients.iter().any(Result::is_ok) { Step::Mail } else { Step::Over };
        Self {
            manner,
            protocol,
            saying: first,
            hearing: first,
            sent: false,
            mail: None,
            recipients: vec![None; plan.recipients.len()],
            accepted: 0,
            each: Vec::new(),
            data: None,
            end: None,
        }
    }

    /// That of a letter whose BDAT was refused.
    #[must_use]
    pub fn once_more(&self, plan: &Plan) -> Self {
        Self::new(self.protocol, Manner::Data, plan)
    }

    /// Begins with RSET. Only before anything is said.
    pub fn reset_first(&mut self) {
        (self.saying, self.hearing) = (Step::Reset, Step::Reset);
    }

    /// Whether an answer is awaited.
    pub fn is_awaiting(&self) -> bool {
        self.hearing != self.saying
    }

    /// Whether everything is said and answered.
    pub fn is_over(&self) -> bool {
        self.saying == Step::Over && !self.is_awaiting()
    }

    /// What comes next.
    pub fn turn(&self) -> Turn {
        let all_heard = !self.is_awaiting();
        let decided = matches!(self.saying, Step::Data | Step::End) && all_heard && self.accepted == 0;
        let in_vain = self.mail.is_some() || self.end.is_some() || decided;
        match self.saying {
            Step::Over => Turn::Over,
            _ if in_vain && !all_heard => Turn::Wait,
            Step::End if self.manner == Manner::Data => match &self.data {
                _ if !all_heard => Turn::Wait,
                Some(Ok(())) if in_vain => Turn::LoneDot,
                Some(Ok(())) => Turn::Content,
                _ => Turn::Stop,
            },
            _ if in_vain => Turn::Stop,
            Step::End => Turn::Content,
            Step::Reset | Step::Mail | Step::Rcpt(_) | Step::Data => Turn::Command,
        }
    }

    /// Where a fault would strike it.
    pub fn stage(&self) -> Stage {
        match self.hearing {
            _ if self.sent => Stage::Dot,
            Step::End => Stage::Content,
            // Sent once and refused, to be sent again.
            Step::Over => Stage::Mail,
            step => step.stage(),
        }
    }

    /// Goes on behind what has just been said.
    pub fn say(&mut self, plan: &Plan) {
        self.sent = self.saying == Step::End;
        self.saying = self.after(self.saying, plan);
    }

    /// Says nothing more. Only while nothing is awaited.
    pub fn stop(&mut self) {
        (self.saying, self.hearing) = (Step::Over, Step::Over);
        if let Some(Err(fault)) = self.data.take() {
            self.end.get_or_insert(Err(fault));
        }
    }

    /// Says nothing more for a reason of our own; what is awaited is still taken.
    pub fn give_up(&mut self, fault: Fault) {
        self.end = Some(Err(fault));
    }

    /// Ends it with a fault for everybody whose fate is open.
    pub fn fail(&mut self, fault: Fault) {
        self.give_up(fault);
        self.stop();
    }

    /// Takes back the answers to the content: they were meant for something else.
    pub fn reopen(&mut self) {
        self.each.clear();
        self.end = None;
        self.hearing = Step::End;
    }

    /// Takes the judged answer to the step that is answered next.
    pub fn hear(&mut self, answer: Result<Reply, Fault>, plan: &Plan) -> Heard {
        let step = self.hearing;
        self.hearing = self.after(step, plan);
        match (step, answer) {
            (Step::Reset, Err(fault)) => return Heard::NoReset(fault),
            (Step::Mail, Err(fault)) => self.mail = Some(fault),
            (Step::Rcpt(i), Ok(_)) => {
                self.accepted += 1;
                self.recipients[i] = Some(Ok(()));
            }
            (Step::Rcpt(i), Err(fault)) if self.mail.is_none() => self.recipients[i] = Some(Err(fault)),
            (Step::Data, answer) => self.data = Some(answer.map(drop)),
            (Step::End, Err(fault)) if self.was_for_bdat(&fault) => {
                self.sent = false;
                return Heard::NoBdat;
            }
            (Step::End, answer) if self.protocol == Protocol::Lmtp && self.accepted > 0 => {
                self.each.push(answer);
                if self.each.len() < self.accepted {
                    self.hearing = Step::End;
                }
            }
            (Step::End, answer) => self.end = Some(answer),
            // What was expected; or only the echo of a refused MAIL.
            (Step::Reset | Step::Mail, Ok(_)) | (Step::Rcpt(_), Err(_)) | (Step::Over, _) => {}
        }
        Heard::Answer
    }

    /// Whether a refusal of the content was one of the command: "unknown", "not implemented", "bad sequence" from a
    /// server that has taken MAIL and a recipient and has offered CHUNKING. There are such: a filter in front of the
    /// server, or one that has it switched off. Where no recipient was taken, 503 is the right answer. In LMTP only the
    /// first answer can be one to the command.
    fn was_for_bdat(&self, fault: &Fault) -> bool {
        let unknown = fault.reply().is_some_and(|reply| matches!(reply.code, 500 | 502 | 503 | 504));
        unknown && self.each.is_empty() && self.manner != Manner::Data && self.mail.is_none() && self.accepted > 0
    }

    /// For each recipient with a command, in order: the server's answer to the letter, or what went wrong.
    pub fn results(self, plan: &Plan) -> Vec<Result<Reply, Fault>> {
        let Self { protocol, mail, recipients, each, end, .. } = self;
        // What a server says to a content behind a MAIL that it has refused is no answer to the letter: it may be one
        // to the lone dot, and one that takes what it has no sender for is not believed.
        let went = mail.is_none();
        let mut each = each.into_iter();
        let mut own = || each.next().filter(|_| protocol == Protocol::Lmtp && went);
        let mut one = |answer: Option<Result<(), Fault>>| match (answer, &end) {
            (Some(Err(refusal)), _) => Err(refusal),
            (Some(Ok(())), _) if let Some(answer) = own() => answer,
            (Some(Ok(())), Some(Ok(reply))) if went => Ok(reply.clone()),
            (_, Some(Err(fault))) => Err(mail.clone().unwrap_or_else(|| fault.clone())),
            _ => Err(mail.clone().unwrap_or_else(|| {
                Fault::new(Stage::Rcpt, Cause::Protocol("gave no answer for this recipient".to_owned()))
            })),
        };
        recipients
            .into_iter()
            .zip(&plan.recipients)
            .filter(|(_, command)| command.is_ok())
            .map(|(a, _)| one(a))
            .collect()
    }

    fn after(&self, step: Step, plan: &Plan) -> Step {
        let rcpt_from = |from: usize| {
            let found = plan.recipients[from..].iter().position(Result::is_ok);
            let end = if self.manner == Manner::Data { Step::Data } else { Step::End };
            found.map_or(end, |i| Step::Rcpt(from + i))
        };
        match step {
            Step::Reset => Step::Mail,
            Step::Mail => rcpt_from(0),
            Step::Rcpt(i) => rcpt_from(i + 1),
            Step::Data => Step::End,
            Step::End | Step::Over => Step::Over,
        }
    }
}
