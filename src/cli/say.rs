//! Every sentence a human reads: what happened, to which recipient, at which relay and account, in the server's
//! words, and what happens next.
//!
//! Only words are made here; who hears them and when is `sendmail`'s and `pillarbox`'s to decide. Strangers'
//! text (a server's, a caller's) passes through [`printable`] on its way in.

use crate::deliver::Attempted;
use crate::outcome::{Cause, Outcome, printable};
use crate::queue::Id;
use crate::submit::Why;

/// What happens next to a recipient.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// The queue has it under this id and will try again.
    Queued(Id),
    /// The sender gets a report.
    Reported,
    /// Nothing: nobody has it and sending again is safe.
    Nothing,
}

/// One recipient's outcome.
pub fn outcome(one: &Attempted, next: Next) -> String {
    let (fault, word, maybe_duplicate) = match &one.outcome {
        Outcome::Relayed(reply) => {
            return format!(
                "<{}> relayed by {} (account {}): {}",
                one.recipient,
                one.relay,
                one.account,
                printable(&reply.to_string())
            );
        }
        Outcome::Deferred { fault, maybe_duplicate, .. } => (fault, "deferred", *maybe_duplicate),
        Outcome::Failed { fault, .. } => (fault, "refused", false),
    };
    let next = match next {
        Next::Queued(id) => format!("it is in the queue as {id} and will be tried again"),
        Next::Reported => "the sender gets a report".to_owned(),
        Next::Nothing => "nothing is kept for this recipient".to_owned(),
    };
    // A fault of our own is a sentence of its own; any other has the relay as its subject.
    let colon = if matches!(fault.cause, Cause::Local(_)) { ":" } else { "" };
    let doubt = if maybe_duplicate { " (possible duplicate: the relay may have it)" } else { "" };
    format!(
        "<{}> {word}: {} (account {}){colon} {}{doubt}; {next}",
        one.recipient,
        one.relay,
        one.account,
        printable(&fault.to_string())
    )
}

/// Why nobody has the letter, apart from what the relay said about each recipient.
pub fn refusal(why: &Why) -> String {
    let what = match why {
        Why::NoRecipients => "no recipients: neither the arguments nor the header name one".to_owned(),
        Why::BadAddress(text, error) => format!("\"{}\": {error}", printable(text)),
        Why::BadMailbox(text, bad) => format!("the address \"{}\" {bad}", printable(text)),
        Why::BadField(text) | Why::NoAccount(text) => printable(text),
        // A problem a line, each of them printable.
        Why::Aliases(text) => text.clone(),
        Why::Message(unreadable) => unreadable.to_string(),
        Why::Loop(hops) => format!("the letter has passed {hops} hosts: it is in a mail loop"),
        Why::Queue(error) => format!("the letter cannot be queued: {error}"),
        Why::Outcomes(_) => "nobody takes the letter".to_owned(),
    };
    format!("{what}; nothing was sent and nothing is kept")
}
