//! What a relay does, moment by moment, and how it departs from a good server.
//!
//! Rules match the beginning of a command without case; the last one that matches counts. [`GREETING`], [`HANDSHAKE`],
//! [`CONTENT`] and [`DOT`] stand for the moments that have no command. Inside TLS, rules for [`INSIDE`] and the command
//! go before the command's own.

use super::super::certificates::Shown;
use std::time::Duration;

/// When the client has connected.
pub const GREETING: &str = "(greeting)";
/// When the client has said its `ClientHello`.
pub const HANDSHAKE: &str = "(handshake)";
/// When DATA has been answered.
pub const CONTENT: &str = "(content)";
/// When the final dot has come.
pub const DOT: &str = ".";

/// Before a command: inside TLS only.
pub const INSIDE: &str = "(inside) ";

/// What the relay does at one moment.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says this, with CRLF for `\n` and at the end.
    Say(String),
    /// Says exactly this.
    Raw(Vec<u8>),
    /// Says this one octet at a time, with a pause after each.
    Drip(String, Duration),
    /// Says this and hangs up.
    SayAndDrop(String),
    /// Hangs up.
    Drop,
    /// Breaks the connection off with a RST.
    Reset,
    /// Says nothing more, until the client has gone.
    Stall,
    /// The same, and does not even listen, until the house is closed.
    Deaf,
    /// Says this over and over, until the client has gone or 64 MiB are out.
    Flood(Vec<u8>),
    /// Hangs up when that many octets of the content have come.
    DropAfter(usize),
    /// Puts this on the wire as it is, beneath TLS where there is TLS, and says nothing more.
    Beneath(Vec<u8>),
    /// Ends its half of the conversation in order (TLS's `close_notify`;
    /// without TLS, the socket), and puts this behind the end.
    Behind(Vec<u8>),
    /// Changes its TLS keys so often, then says this.
    Rekey(usize, String),
    /// Answers what it has heard since this moment's command, and that, by a function: as long as it says 334.
    Converse(fn(&[String]) -> String),
}

impl From<&str> for Act {
    fn from(text: &str) -> Self {
        Self::Say(text.to_owned())
    }
}

/// How the relay's answers fall into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// What answers one flight travels together.
    Merged,
    /// Each reply alone.
    Replies,
    /// Each octet alone.
    Octets,
}

/// Whether and when there is TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    Off,
    /// After STARTTLS.
    Upgraded,
    /// From the first octet.
    Implicit,
}

/// How the relay departs from a good server.
#[derive(Clone, Debug)]
pub struct Script {
    /// EHLO's lines behind the first, but for STARTTLS and AUTH, which come by themselves.
    pub offers: Vec<String>,
    /// When there is TLS.
    pub tls: Tls,
    /// What it shows.
    pub shown: Shown,
    /// Whose password it asks for; `None`: no AUTH.
    pub login: Option<(String, String)>,
    /// The mechanisms it offers.
    pub mechanisms: String,
    /// How it cuts its answers.
    pub segments: Segments,
    /// Session tickets at the end of each TLS 1.3 handshake.
    pub(super) tickets: usize,
    /// Hangs up when it has put so many octets on the wire.
    pub(super) mute_after: Option<usize>,
    /// Hangs up when it has taken so many octets from the wire.
    pub(super) deaf_after: Option<usize>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    moment: String,
    act: Act,
    /// How often it may still be used.
    left: usize,
}

impl Default for Script {
    fn default() -> Self {
        let offers = ["PIPELINING", "SIZE 10240000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"];
        Self {
            offers: offers.map(str::to_owned).to_vec(),
            tls: Tls::Upgraded,
            shown: Shown::Good,
            login: Some(("alice".to_owned(), "s3cret".to_owned())),
            mechanisms: "PLAIN LOGIN".to_owned(),
            segments: Segments::Merged,
            tickets: 0,
            mute_after: None,
            deaf_after: None,
            rules: Vec::new(),
        }
    }
}

impl Script {
    /// A relay without TLS and AUTH, as on one's own machine.
    pub fn open() -> Self {
        Self { tls: Tls::Off, login: None, ..Self::default() }
    }

    /// Does something else at a moment, whenever it comes.
    #[must_use]
    pub fn on(self, moment: &str, act: impl Into<Act>) -> Self {
        self.rule(moment, act.into(), usize::MAX)
    }

    /// Does something else the first time that the moment comes.
    #[must_use]
    pub fn once(self, moment: &str, act: impl Into<Act>) -> Self {
        self.rule(moment, act.into(), 1)
    }

    /// Offers these extensions and no others.
    #[must_use]
    pub fn offering(mut self, offers: &[&str]) -> Self {
        self.offers = offers.iter().map(|&offer| offer.to_owned()).collect();
        self
    }

    /// Asks nobody for a password.
    #[must_use]
    pub fn without_login(mut self) -> Self {
        self.login = None;
        self
    }

    /// Shows that certificate.
    #[must_use]
    pub fn showing(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    /// Offers those mechanisms.
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: &str) -> Self {
        mechanisms.clone_into(&mut self.mechanisms);
        self
    }

    /// Starts TLS then.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Cuts its answers so.
    #[must_use]
    pub fn segments(mut self, segments: Segments) -> Self {
        self.segments = segments;
        self
    }

    /// Gives so many session tickets.
    #[must_use]
    pub fn tickets(mut self, tickets: usize) -> Self {
        self.tickets = tickets;
        self
    }

    /// Hangs up when it has put so many octets on the wire.
    #[must_use]
    pub fn mute_after(mut self, octets: usize) -> Self {
        self.mute_after = Some(octets);
        self
    }

    /// Hangs up when it has taken so many octets from the wire.
    #[must_use]
    pub fn deaf_after(mut self, octets: usize) -> Self {
        self.deaf_after = Some(octets);
        self
    }

    fn rule(mut self, moment: &str, act: Act, left: usize) -> Self {
        self.rules.push(Rule { moment: moment.to_ascii_lowercase(), act, left });
        self
    }

    pub(super) fn act_in(&mut self, moment: &str, is_encrypted: bool) -> Option<Act> {
        let inside = is_encrypted.then(|| self.act(&format!("{INSIDE}{moment}"))).flatten();
        inside.or_else(|| self.act(moment))
    }

    pub(super) fn act(&mut self, moment: &str) -> Option<Act> {
        let moment = moment.to_ascii_lowercase();
        let rule = self.rules.iter_mut().rev().find(|rule| rule.left > 0 && moment.starts_with(&rule.moment))?;
        rule.left -= 1;
        Some(rule.act.clone())
    }

    pub(super) fn ehlo(&self, is_encrypted: bool) -> String {
        let mut lines = vec!["relay.example".to_owned()];
        lines.extend(self.offers.iter().cloned());
        if self.tls == Tls::Upgraded && !is_encrypted {
            lines.push("STARTTLS".to_owned());
        } else if self.login.is_some() && !self.mechanisms.is_empty() {
            lines.push(format!("AUTH {}", self.mechanisms));
        }
        let last = lines.len() - 1;
        let lines = lines.iter().enumerate();
        lines.map(|(i, line)| format!("250{}{line}", if i < last { '-' } else { ' ' })).collect::<Vec<_>>().join("\n")
    }
}
