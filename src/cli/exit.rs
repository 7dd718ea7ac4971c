//! The exit status: the only place that knows sysexits(3).
//!
//! 0 means that somebody owns the letter, anything else that nobody does and sending again is safe.
//! There is no wildcard arm over our own types: a new reason makes the compiler ask which number it deserves.

use crate::deliver::Attempted;
use crate::message::Unreadable;
use crate::outcome::{Blame, Cause, Fault, Outcome, Stage};
use crate::queue;
use crate::submit::{End, Why};
use nix::errno::Errno;
use std::io;

/// The numbers of sysexits(3) that we use.
pub mod sysexits {
    #![expect(missing_docs, reason = "sysexits(3) documents them")]
    pub const USAGE: u8 = 64;
    pub const DATAERR: u8 = 65;
    pub const NOINPUT: u8 = 66;
    pub const NOUSER: u8 = 67;
    pub const NOHOST: u8 = 68;
    pub const UNAVAILABLE: u8 = 69;
    pub const SOFTWARE: u8 = 70;
    pub const OSERR: u8 = 71;
    pub const CANTCREAT: u8 = 73;
    pub const IOERR: u8 = 74;
    pub const TEMPFAIL: u8 = 75;
    pub const PROTOCOL: u8 = 76;
    pub const NOPERM: u8 = 77;
    pub const CONFIG: u8 = 78;
}
use sysexits::{
    CANTCREAT, CONFIG, DATAERR, IOERR, NOHOST, NOPERM, NOUSER, OSERR, PROTOCOL, TEMPFAIL, UNAVAILABLE, USAGE,
};

/// The status for the end of a submission.
pub fn status(end: &End) -> u8 {
    match end {
        End::Relayed(_) | End::Owned { .. } => 0,
        End::Unkept(_, error) => queue(error),
        End::Partly(attempted) => outcomes(attempted),
        End::Refused(why) => refusal(why),
    }
}

/// The status for a letter that nobody has.
fn refusal(why: &Why) -> u8 {
    match why {
        Why::NoRecipients | Why::BadAddress(..) | Why::BadMailbox(..) => USAGE,
        Why::BadField(_) | Why::Loop(_) => DATAERR,
        Why::Message(unreadable) => message(unreadable),
        Why::NoAccount(_) | Why::Aliases(_) => CONFIG,
        Why::Queue(error) => queue(error),
        Why::Outcomes(attempted) => outcomes(attempted),
    }
}

/// The status for a queue that does not do as it is told.
pub fn queue(error: &queue::Error) -> u8 {
    match error {
        queue::Error::Io { source, .. } => disk(source),
        queue::Error::Unsafe { .. } => CANTCREAT,
        queue::Error::NoSuchLetter(_) => USAGE,
        queue::Error::Busy(_) => TEMPFAIL,
        queue::Error::Damaged(..) => DATAERR,
    }
}

/// The status for a disk that does not take the letter: 75 where it may later, 73 where somebody has to mend it.
fn disk(error: &io::Error) -> u8 {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EAGAIN | Errno::EINTR) => TEMPFAIL,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => OSERR,
        Some(Errno::EIO) => IOERR,
        _ => CANTCREAT,
    }
}

/// The status for a message that cannot be taken.
fn message(unreadable: &Unreadable) -> u8 {
    match unreadable {
        Unreadable::Input(_) => IOERR,
        Unreadable::Store(error) => disk(error),
        Unreadable::Nul(_) | Unreadable::HeaderTooLarge(_) => DATAERR,
    }
}

/// The status for recipients of whom none is left to hope for: the reason of the first that was put off (it may
/// succeed later), else that of the first refusal that is not only about its own recipient.
fn outcomes(attempted: &[Attempted]) -> u8 {
    let outcomes = || attempted.iter().map(|one| &one.outcome);
    let of = |outcome: &Outcome| match outcome {
        Outcome::Relayed(_) => None,
        Outcome::Deferred { fault, blame, .. } | Outcome::Failed { fault, blame, .. } => Some(one(fault, *blame)),
    };
    let deferred = outcomes().filter(|outcome| !outcome.is_final()).find_map(of);
    let failed = || outcomes().filter_map(&of).find(|status| *status != NOUSER);
    deferred.or_else(failed).unwrap_or(NOUSER)
}

/// The name that sysexits(3) has for a status, as msmtp's log writes it.
pub fn name(status: u8) -> &'static str {
    match status {
        0 => "EX_OK",
        USAGE => "EX_USAGE",
        DATAERR => "EX_DATAERR",
        NOUSER => "EX_NOUSER",
        NOHOST => "EX_NOHOST",
        UNAVAILABLE => "EX_UNAVAILABLE",
        OSERR => "EX_OSERR",
        CANTCREAT => "EX_CANTCREAT",
        IOERR => "EX_IOERR",
        TEMPFAIL => "EX_TEMPFAIL",
        PROTOCOL => "EX_PROTOCOL",
        NOPERM => "EX_NOPERM",
        CONFIG => "EX_CONFIG",
        _ => "EX_SOFTWARE",
    }
}

/// The status for one recipient's fault.
pub fn one(fault: &Fault, blame: Blame) -> u8 {
    match (blame, &fault.cause, fault.stage) {
        (Blame::Recipient, Cause::NoSuchDomain(_) | Cause::NullMx(_), _) => NOHOST,
        (Blame::Recipient, _, _) => NOUSER,
        (Blame::Letter, _, _) => DATAERR,
        (Blame::Protocol, _, _) => PROTOCOL,
        (_, Cause::Interrupted, _) => TEMPFAIL,
        (Blame::System, _, _) => OSERR,
        (_, Cause::NoSuchHost(_), _) => NOHOST,
        (Blame::Settings, Cause::Reply(_), Stage::Auth) => NOPERM,
        (Blame::Settings, Cause::Local(_), _) => CONFIG,
        (Blame::Settings, _, _) => UNAVAILABLE,
        // What the session was refused for good is no letter's fault, and waiting does not mend it.
        (Blame::Relay, Cause::Reply(reply), stage) if reply.is_permanent() && stage < Stage::Mail => UNAVAILABLE,
        (Blame::Relay, _, _) => TEMPFAIL,
    }
}
