//! One letter in a session: MAIL, RCPT, DATA, the content, and an answer for each recipient.
//!
//! With PIPELINING the whole envelope and DATA are one flight (for very many recipients, a few), so a letter
//! costs two. One refused recipient never costs the others their mail; where all are refused after DATA has
//! gone out with them, a lone dot answers the 354. The answer to the final dot is final when it is positive;
//! an error before the dot leaves no letter behind, since the connection is dropped without it.
//! RFC 5321 §3.3, RFC 2920.

use super::body::{Piece, Stop, frame};
use super::connect::words;
use super::plan::{Letter, Plan};
use super::session::Session;
use crate::outcome::{Cause, Fault, Reply, Stage};
use lettre::transport::smtp::commands::{Data, Rset};
use std::io::{self, Read};

/// Octets of commands in one flight. The server answers each before it reads the next, so that its answers
/// (about as many octets) must find room in both kernels while we are still writing: this is well below it.
const FLIGHT: usize = 16 * 1024;

/// A command of the envelope.
#[derive(Clone, Copy)]
enum Step {
    Reset,
    Mail,
    /// With its place among the recipients that have a command.
    Rcpt(usize),
    Data,
}

impl Step {
    fn stage(self) -> Stage {
        match self {
            Self::Reset | Self::Mail => Stage::Mail,
            Self::Rcpt(_) => Stage::Rcpt,
            Self::Data => Stage::Data,
        }
    }
}

/// What the server has said about the envelope so far.
struct Answers {
    /// For each RCPT: nothing against it, or its refusal.
    recipients: Vec<Result<(), Fault>>,
    accepted: usize,
    mail: Option<Fault>,
    data: Option<Result<(), Fault>>,
}

impl Session {
    /// Sends a letter to the recipients that `plan` has commands for. One result for each of those, in order:
    /// the relay's answer to the final dot, or what went wrong for this recipient.
    pub fn transact(&mut self, plan: &Plan, letter: &dyn Letter) -> Vec<Result<Reply, Fault>> {
        let commands: Vec<&str> = plan.recipients.iter().filter_map(|command| command.as_deref().ok()).collect();
        let mut answers = Answers { recipients: vec![Ok(()); commands.len()], accepted: 0, mail: None, data: None };
        let letter = plan.converted.as_deref().unwrap_or(letter);
        let end = letter.reader().map_err(|error| unreadable(&error)).and_then(|mut reader| {
            self.envelope(&plan.mail, &commands, &mut answers)?;
            self.letter(&mut answers, letter.size(), &mut *reader)
        });
        answers.recipients.into_iter().map(|recipient| recipient.and_then(|()| end.clone())).collect()
    }

    fn envelope(&mut self, mail: &str, recipients: &[&str], answers: &mut Answers) -> Result<(), Fault> {
        let (rset, data) = (Rset.to_string(), Data.to_string());
        let command = |step| match step {
            Step::Reset => rset.as_str(),
            Step::Mail => mail,
            Step::Rcpt(i) => recipients[i],
            Step::Data => data.as_str(),
        };
        let reset = self.reset_due.then_some(Step::Reset);
        let rcpts = (0..recipients.len()).map(Step::Rcpt);
        let mut steps = reset.into_iter().chain([Step::Mail]).chain(rcpts).chain([Step::Data]).peekable();
        let flight_limit = if self.capabilities.offers("PIPELINING") { FLIGHT } else { 0 };
        while let Some(first) = steps.next() {
            if answers.mail.is_some() || (matches!(first, Step::Data) && answers.accepted == 0) {
                break;
            }
            self.command(command(first));
            let mut flight = vec![first];
            while let Some(next) = steps.next_if(|&next| self.group.len() + command(next).len() <= flight_limit) {
                self.command(command(next));
                flight.push(next);
            }
            self.send(first.stage())?;
            for step in flight {
                let reply = self.reply(step.stage())?;
                self.hear(step, reply, answers)?;
            }
        }
        Ok(())
    }

    /// Takes the answer to one step. An error ends the transaction for everybody not yet refused.
    fn hear(&mut self, step: Step, reply: Reply, answers: &mut Answers) -> Result<(), Fault> {
        let fits = |code| if matches!(step, Step::Data) { code == 354 } else { code / 100 == 2 };
        let answer = self.judge(reply, step.stage(), fits).map(drop);
        if !self.is_usable() {
            // Out of turn, or a 421: that is then the answer to everything that was still to come.
            return answer;
        }
        match (step, answer) {
            (Step::Reset, Ok(())) => self.reset_due = false,
            (Step::Reset, Err(_)) => return Err(self.breach(Stage::Mail, "refused RSET before MAIL")),
            (Step::Mail, Ok(())) => self.reset_due = true,
            (Step::Mail, Err(fault)) => answers.mail = Some(fault),
            (Step::Rcpt(_), Ok(())) => answers.accepted += 1,
            (Step::Rcpt(i), refused @ Err(_)) if answers.mail.is_none() => answers.recipients[i] = refused,
            // Only the echo of a refused MAIL.
            (Step::Rcpt(_), Err(_)) => {}
            (Step::Data, answer) => answers.data = Some(answer),
        }
        Ok(())
    }

    /// What follows the envelope: the letter, a lone dot, or nothing.
    fn letter(&mut self, answers: &mut Answers, size: u64, content: &mut dyn Read) -> Result<Reply, Fault> {
        let wanted = answers.mail.is_none() && answers.accepted > 0;
        match (answers.mail.take(), answers.data.take()) {
            (None, Some(Ok(()))) if wanted => self.content(size, content),
            (None, Some(Err(fault))) if wanted => Err(fault),
            (mail, data) => {
                if let Some(Ok(())) = data {
                    // The server waits for a letter that nobody shall get. What it makes of none is of no interest.
                    if self.write(b".\r\n", Stage::Dot).is_ok() && self.reply(Stage::Dot).is_ok() {
                        self.reset_due = false;
                    }
                }
                // Without a fault of MAIL every recipient has one of its own, and this one reaches nobody.
                Err(mail.unwrap_or_else(|| Fault::new(Stage::Rcpt, Cause::Protocol("took no recipient".to_owned()))))
            }
        }
    }

    fn content(&mut self, size: u64, content: &mut dyn Read) -> Result<Reply, Fault> {
        self.note(&format!("> (the letter: {size} octets)"));
        let sent = frame(content, size, |piece| match piece {
            Piece::Part(octets) => self.write(octets, Stage::Content),
            Piece::Last(octets) => {
                self.nothing_early()?;
                self.write(octets, Stage::Content)
            }
        });
        match sent {
            Ok(()) => self.note("> ."),
            Err(Stop::Content(error)) => {
                self.abandon();
                return Err(unreadable(&error));
            }
            Err(Stop::Send(fault)) => return Err(self.last_words().unwrap_or(fault)),
        }
        let reply = self.reply(Stage::Dot)?;
        self.reset_due = false;
        self.judge(reply, Stage::Dot, |code| code / 100 == 2)
    }

    /// Before the dot goes, no answer to it may be there: one that is was not meant for this letter.
    fn nothing_early(&mut self) -> Result<(), Fault> {
        let early = self.early_reply(Stage::Content)?;
        match early {
            Some(reply) => {
                self.abandon();
                self.judge(reply, Stage::Content, |_| false).map(drop)
            }
            None => self.quiet(Stage::Content),
        }
    }

    /// A server that hangs up in the middle of a letter may have said why.
    fn last_words(&mut self) -> Option<Fault> {
        let reply = self.early_reply(Stage::Content).ok()??;
        self.judge(reply, Stage::Content, |_| false).err()
    }
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::new(Stage::Content, Cause::Local(format!("the letter cannot be read: {}", words(error))))
}
