//! The wire: the only place that speaks SMTP.
//!
//! As a client, from the bottom up: [`interrupt`] ends a wait from another thread, [`connect`] turns a host
//! into a [`stream`] with limits on every wait, [`tls`] says whom we trust, [`certificate`] reads what they show,
//! [`reply`] what they say, [`auth`] is SASL, [`session`] is the dialogue up to AUTH, [`plan`] decides what
//! a letter needs of this server, [`transaction`] knows how far it is, [`flight`] sends it, alone or among others,
//! and [`body`] frames it. [`server`] is the other side of a session.
//!
//! Everything here reports a [`Fault`](crate::outcome::Fault): what happened and where. What it *means* is
//! `relay::verdict`'s to say. RFC 5321, RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 2920 (PIPELINING), RFC 3030
//! (CHUNKING).

pub mod auth;
pub mod body;
pub mod capabilities;
pub mod certificate;
pub mod connect;
pub mod flight;
pub mod interrupt;
mod masks;
pub mod plan;
#[cfg(test)]
mod rehearsal;
pub mod reply;
#[cfg(test)]
pub(crate) mod scripted;
pub mod server;
pub mod session;
pub mod stream;
pub mod tls;
pub mod transaction;

use crate::outcome::Stage;
use std::time::{Duration, Instant};

/// Gets the dialogue, a line at a time, as `-v` shows it: `> ` is ours, `< ` the server's, `* ` a remark.
///
/// Credentials are masked before a line comes here, also where the server echoes them. The server's text is
/// valid UTF-8 but *not* escaped; whoever shows it escapes it.
pub trait Transcript: Send + Sync {
    /// Takes one line, without its line end.
    fn line(&self, line: &str);
}

/// How long anything on the wire may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Each wait: one reply however it drips, one write, the whole TLS handshake.
    pub step: Duration,
    /// The end of the whole attempt; only the answer to a final dot is waited for beyond it.
    pub total: Instant,
}

impl Limits {
    /// When a wait that starts now has lasted too long.
    pub fn until(&self, stage: Stage) -> Instant {
        let step = Instant::now() + self.step.min(ceiling(stage));
        // Whoever hangs up on that one gets his letter taken and sends it again (RFC 1047).
        if stage == Stage::Dot { step } else { self.total.min(step) }
    }
}

/// The time-outs of RFC 5321 §4.5.3.2, as ceilings: no setting makes a wait longer than these.
fn ceiling(stage: Stage) -> Duration {
    Duration::from_mins(match stage {
        Stage::Data => 2,
        Stage::Content => 3,
        Stage::Dot => 10,
        Stage::Local
        | Stage::Resolve
        | Stage::Connect
        | Stage::Greeting
        | Stage::Ehlo
        | Stage::StartTls
        | Stage::Tls
        | Stage::Auth
        | Stage::Mail
        | Stage::Rcpt => 5,
    })
}
