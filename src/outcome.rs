//! What became of a letter: replies, statuses, outcomes, and the report of one attempt.
//!
//! Pure values, made by `smtp` and `relay`, kept by `queue`, worded by `cli::say`. Server text in here
//! is a stranger's text: it is valid UTF-8 (lossy) but *not* escaped; whoever shows it escapes it.
//! RFC 5321 §4.2 (replies), RFC 3463 (enhanced status), RFC 3464 (the actions behind the outcomes).

use std::fmt;

/// Octets that are kept of a reply; of a sentence no more characters are shown.
const KEPT: usize = 1024;
/// What a line takes of them beside its text.
const A_LINE: usize = size_of::<String>();

/// An SMTP reply as it came: code and text lines, without line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The text behind the code, a line each; at least one, possibly empty.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether the first digit is 4: the same command may succeed later.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// Whether the first digit is 5.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Lets go of the text that nobody is shown: a reply is kept for each of a letter's recipients, and there may be
    /// thousands, each refused with all that a reply may have.
    pub fn abridge(&mut self) {
        let mut left = KEPT;
        for line in std::mem::take(&mut self.lines) {
            let room = left.saturating_sub(A_LINE);
            if line.len() > room || room == 0 {
                self.lines.push([&line[..line.floor_char_boundary(room)], "…"].concat());
                break;
            }
            left = room - line.len();
            self.lines.push(line);
        }
        self.lines.shrink_to_fit();
    }

    /// The enhanced status code of RFC 2034 at the head of the first line, where it agrees with the reply's class.
    pub fn status(&self) -> Option<Status> {
        let status = Status::parse(self.lines.first()?.split_ascii_whitespace().next()?)?;
        (u16::from(status.class) == self.code / 100).then_some(status)
    }
}

/// `code text`, the lines joined by a space; enhanced codes that repeat on the later lines are shown once.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        let first = self.status().map(|status| format!("{status} "));
        for (i, line) in self.lines.iter().enumerate() {
            let line = match &first {
                Some(code) if i > 0 => line.strip_prefix(code.as_str()).unwrap_or(line),
                _ => line,
            };
            if !line.is_empty() {
                write!(f, " {line}")?;
            }
        }
        Ok(())
    }
}

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What the status is about: 1 addressing, 2 mailbox, 3 mail system, 4 network, 5 protocol, 6 content, 7 security.
    pub subject: u16,
    /// What exactly.
    pub detail: u16,
}

impl Status {
    /// Builds one from its three numbers.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Reads `5.1.1`. `None` for anything that is not three numbers of the size that RFC 3463 §2 gives.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            (!part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse::<u16>().ok())
                .flatten()
        };
        let mut parts = text.split('.');
        let class = number(parts.next()?)?;
        let (subject, detail) = (number(parts.next()?)?, number(parts.next()?)?);
        let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        parts.next().is_none().then_some(Self { class, subject, detail })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Where in the session something happened; also what the reply was an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before any network: the account's own settings, its secret, our own disk.
    Local,
    /// Name to addresses.
    Resolve,
    /// TCP, UNIX socket.
    Connect,
    /// The 220 banner.
    Greeting,
    /// EHLO, HELO.
    Ehlo,
    /// The STARTTLS command.
    StartTls,
    /// The TLS handshake and the certificate.
    Tls,
    /// AUTH and its challenges.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// The DATA command, up to 354.
    Data,
    /// The letter's content, before its final dot.
    Content,
    /// After the final dot: the relay may have the letter.
    Dot,
}

/// The stage as a sentence names it ("… after RCPT TO").
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local preparation",
            Self::Resolve => "name look-up",
            Self::Connect => "connecting",
            Self::Greeting => "the greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Tls => "the TLS handshake",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::Content => "the content",
            Self::Dot => "the final dot",
        })
    }
}

/// What happened, before anybody decides what it means (that is `relay::verdict`'s to say).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server answered.
    Reply(Reply),
    /// The name does not exist (`Resolve`).
    NoSuchHost(String),
    /// The recipient's domain does not exist, or has nobody who would take its mail (`Resolve`).
    NoSuchDomain(String),
    /// The recipient's domain says that it takes no mail (`Resolve`; RFC 7505).
    NullMx(String),
    /// The system's word for what the network did: refused, reset, unreachable, closed by the server.
    Network(String),
    /// No answer in time. The text says what was waited for.
    Timeout(String),
    /// TLS failed or the certificate is not the one we were told to accept.
    Tls(String),
    /// The server broke the protocol.
    Protocol(String),
    /// What the settings demand cannot be had from this server: STARTTLS, AUTH or its mechanism.
    Policy(String),
    /// The letter cannot be put into a form that this server takes (8-bit, SMTPUTF8, SIZE).
    Letter(String),
    /// Our own side: the secret cannot be had, a file cannot be read.
    Local(String),
    /// A signal ended the attempt.
    Interrupted,
}

/// The facts in words; server text is quoted but not escaped.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => write!(f, "said \"{reply}\""),
            Self::NoSuchHost(text)
            | Self::NoSuchDomain(text)
            | Self::NullMx(text)
            | Self::Network(text)
            | Self::Timeout(text)
            | Self::Tls(text)
            | Self::Protocol(text)
            | Self::Policy(text)
            | Self::Letter(text)
            | Self::Local(text) => f.write_str(text),
            Self::Interrupted => f.write_str("the attempt was interrupted by a signal"),
        }
    }
}

/// Something that went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// What.
    pub cause: Cause,
}

impl Fault {
    /// Puts the two together.
    pub fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause }
    }

    /// The server's own words, where it is a reply.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.cause {
            Cause::Reply(reply) => Some(reply),
            _ => None,
        }
    }
}

/// `said "451 …" after RCPT TO`, or the fact alone.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Reply(_) => write!(f, "{} after {}", self.cause, self.stage),
            _ => self.cause.fmt(f),
        }
    }
}

/// Whose fault a refusal or a delay is: it decides the exit status, and whether it bounces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// This recipient does not exist or will not have it.
    Recipient,
    /// The letter or its sender was refused, whoever it is for.
    Letter,
    /// The relay or the network: try again.
    Relay,
    /// The server broke the protocol: try again.
    Protocol,
    /// Our settings: a refused password, a bad certificate, a name that does not exist. Never bounces; speaks up.
    Settings,
    /// Our own machine: out of files, memory, disk.
    System,
}

/// What one attempt means for one recipient.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The relay has taken responsibility (2xx after the final dot). Final.
    Relayed(Reply),
    /// Try again later.
    Deferred {
        /// What happened.
        fault: Fault,
        /// Whose fault it is.
        blame: Blame,
        /// RFC 3463, class 4.
        status: Status,
        /// The final dot was sent and its answer never came: the relay may have the letter (RFC 1047).
        maybe_duplicate: bool,
    },
    /// Refused for good. Final: the sender is told.
    Failed {
        /// What happened.
        fault: Fault,
        /// Whose fault it is.
        blame: Blame,
        /// RFC 3463, class 5.
        status: Status,
    },
}

impl Outcome {
    /// Whether nothing is left to be done for this recipient.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Deferred { .. })
    }

    /// The status that a log line or an RFC 3464 report carries.
    pub fn status(&self) -> Status {
        match self {
            Self::Relayed(reply) => reply.status().unwrap_or(Status::new(2, 0, 0)),
            Self::Deferred { status, .. } | Self::Failed { status, .. } => *status,
        }
    }

    /// The word of RFC 3464 §2.3.3 for it, as logs have it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Relayed(_) => "relayed",
            Self::Deferred { .. } => "deferred",
            Self::Failed { .. } => "failed",
        }
    }
}

/// The report of one attempt: who was asked, and an outcome for each recipient of the envelope, in its order.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `host:port` (or a socket's path) that was talked to last, as a person writes it.
    pub relay: String,
    /// The account's name.
    pub account: String,
    /// One for each of `Envelope::recipients`, in that order.
    pub outcomes: Vec<Outcome>,
    /// What should be told although the letter went through: DSN asked for and not offered, and the like.
    pub remarks: Vec<String>,
    /// The relay as a whole could not be used (no connection, no TLS, no AUTH, 421): trying another letter
    /// through the same account in this run would only repeat it.
    pub relay_down: bool,
}

/// The system's words for an error, without its number.
pub fn words(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

/// A stranger's text for a terminal or a log: [`escaped`], and what is beyond 1,000 characters is cut.
pub fn printable(text: &str) -> String {
    match text.char_indices().nth(1_000) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(text),
    }
}

/// Text in which control characters (C0, C1, DEL), line and direction
/// marks and what is no character are written as `\xNN` or `\u{NNNN}`.
pub fn escaped(text: &str) -> String {
    use fmt::Write;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let bidi =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        let _ = match u32::from(c) {
            code if c.is_control() && code < 256 => write!(safe, "\\x{code:02x}"),
            code if c.is_control() || bidi => write!(safe, "\\u{{{code:x}}}"),
            _ => safe.write_char(c),
        };
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_reply_is_bounded_and_a_usual_one_is_kept_whole() {
        let usual =
            Reply { code: 550, lines: vec!["5.7.1 a line of the usual length, one of six or so".to_owned(); 6] };
        let mut kept = usual.clone();
        kept.abridge();
        assert_eq!(kept, usual);
        for lines in [vec!["é".repeat(2000)], vec!["ab".repeat(300); 128], vec![String::new(); 128]] {
            let mut reply = Reply { code: 550, lines };
            reply.abridge();
            let size = reply.lines.capacity() * A_LINE + reply.lines.iter().map(String::capacity).sum::<usize>();
            assert!(size <= KEPT + 64, "{size} octets: {reply:?}");
            assert!(reply.lines.last().unwrap().ends_with('…'), "{reply:?}");
        }
    }

    #[test]
    fn a_status_is_three_small_numbers_of_a_known_class() {
        assert_eq!(Status::parse("5.1.1"), Some(Status::new(5, 1, 1)));
        for bad in ["", "5.1", "5.1.1.1", "3.1.1", "5.1.", "5.1.1000", "5.+1.1", "05.1.1x", "5.1.1:"] {
            assert_eq!(Status::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let reply = |code, text: &str| Reply { code, lines: vec![text.to_owned()] };
        assert_eq!(reply(550, "5.1.1 no such user").status(), Some(Status::new(5, 1, 1)));
        assert_eq!(reply(550, "2.1.1 ok").status(), None);
        assert_eq!(reply(250, "").status(), None);
    }

    #[test]
    fn a_reply_of_many_lines_reads_as_one_sentence() {
        let lines = vec!["5.1.1 no such".to_owned(), "5.1.1 user here".to_owned()];
        assert_eq!(Reply { code: 550, lines }.to_string(), "550 5.1.1 no such user here");
        assert_eq!(Reply { code: 250, lines: vec![String::new()] }.to_string(), "250");
    }
}
