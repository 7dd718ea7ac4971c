//! The envelope: who sends, who receives, and what is asked of the relay about it.
//!
//! Pure values. An address in here is safe to put on the wire: it has a domain, and neither part can
//! carry CR, LF, NUL or another control character. An [`Envelope`] has at least one recipient and no
//! recipient twice. RFC 5321 §4.1.2 (Mailbox), RFC 6531 (UTF-8 in it), RFC 3461 (the DSN parameters).

use std::fmt;

/// A complete address, `local-part@domain`, as RFC 5321 calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: String,
    domain: String,
}

/// Why a local part and a domain do not make a [`Mailbox`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadMailbox {
    /// A control character (CR, LF, NUL, …) is in it: it could smuggle a command to the relay.
    Control,
    /// Octets that are no UTF-8 stood in it: whoever is meant, it is not whom the wire would name.
    NoText,
    /// The local part or the domain is empty.
    Empty,
    /// The domain holds a character that no domain or address literal has.
    Domain,
    /// Local part or domain is longer than any server takes (RFC 5321 §4.5.3.1, with room for SRS and VERP).
    TooLong,
}

impl fmt::Display for BadMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "has a control character in it",
            Self::NoText => "has octets in it that are no UTF-8",
            Self::Empty => "lacks its local part or its domain",
            Self::Domain => "has a domain that is neither a name nor an address literal",
            Self::TooLong => "is too long",
        })
    }
}

impl Mailbox {
    /// Builds a mailbox from a local part *without* its quotes and a domain (a name, an IDN, or `[literal]`).
    pub fn new(local: &str, domain: &str) -> Result<Self, BadMailbox> {
        if local.chars().chain(domain.chars()).any(char::is_control) {
            return Err(BadMailbox::Control);
        }
        // Such octets were replaced by this when the text was read.
        if local.chars().chain(domain.chars()).any(|c| c == char::REPLACEMENT_CHARACTER) {
            return Err(BadMailbox::NoText);
        }
        if local.is_empty() || domain.is_empty() {
            return Err(BadMailbox::Empty);
        }
        if local.len() > 256 || domain.len() > 255 {
            return Err(BadMailbox::TooLong);
        }
        let literal = domain.starts_with('[') && domain.ends_with(']');
        let inner = if literal { &domain[1..domain.len() - 1] } else { domain };
        let odd = |c: char| {
            c.is_ascii() && !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (literal && c == ':'))
        };
        if inner.is_empty() || inner.chars().any(odd) || (!literal && inner.split('.').any(str::is_empty)) {
            return Err(BadMailbox::Domain);
        }
        Ok(Self { local: local.to_owned(), domain: domain.to_owned() })
    }

    /// The local part without quotes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain, as it was written.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether SMTPUTF8 (RFC 6531) is needed: the local part is not ASCII, so no A-label can stand for it.
    pub fn local_is_utf8(&self) -> bool {
        !self.local.is_ascii()
    }

    /// Whether any part of the address is not ASCII.
    pub fn is_utf8(&self) -> bool {
        !self.local.is_ascii() || !self.domain.is_ascii()
    }

    /// The same address with its domain in A-labels (`xn--…`), or `None` where IDNA does not know one.
    pub fn with_ascii_domain(&self) -> Option<Self> {
        let domain = idna::domain_to_ascii(&self.domain).ok()?;
        Self::new(&self.local, &domain).ok()
    }

    /// The local part as it goes on the wire: quoted where RFC 5321 §4.1.2 asks for it.
    fn wire_local(&self) -> String {
        let dot_string = self.local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext));
        if dot_string {
            return self.local.clone();
        }
        let mut quoted = String::with_capacity(self.local.len() + 2);
        quoted.push('"');
        for c in self.local.chars() {
            if matches!(c, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted.push('"');
        quoted
    }

    /// What makes two spellings the same mailbox: the domain's case does not count, the local part's does.
    fn key(&self) -> (String, String) {
        (self.local.clone(), self.domain.to_lowercase())
    }
}

/// RFC 5322 `atext`, with the non-ASCII characters that RFC 6531 adds.
pub fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

/// The wire form, without angle brackets: quoted where it must be.
impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.wire_local(), self.domain)
    }
}

/// The envelope sender: `MAIL FROM:<…>`. `None` is the null reverse-path `<>` of a bounce.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ReversePath(pub Option<Mailbox>);

impl ReversePath {
    /// The null reverse-path, `<>`: whoever gets this letter must never answer it by machine.
    pub const NULL: Self = Self(None);

    /// Whether this is `<>`.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

/// The address without angle brackets; empty for the null reverse-path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |mailbox| mailbox.fmt(f))
    }
}

/// When the relay (or we) should report on a recipient: the NOTIFY parameter of RFC 3461 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// `NEVER`
    Never,
    /// Any of `SUCCESS`, `FAILURE`, `DELAY`; at least one is set.
    On {
        /// Report that it arrived.
        success: bool,
        /// Report that it did not.
        failure: bool,
        /// Report that it is late.
        delay: bool,
    },
}

impl Notify {
    /// Reads `never` or a comma list of `success`, `failure`, `delay` in any case. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().eq_ignore_ascii_case("never") {
            return Some(Self::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for word in text.split(',') {
            match word.trim().to_ascii_lowercase().as_str() {
                "success" => success = true,
                "failure" => failure = true,
                "delay" => delay = true,
                _ => return None,
            }
        }
        Some(Self::On { success, failure, delay })
    }

    /// Whether a failure should be reported; the default of RFC 3461 where nothing was asked.
    pub fn wants_failure(this: Option<Self>) -> bool {
        matches!(this, None | Some(Self::On { failure: true, .. }))
    }

    /// Whether a delay may be reported (RFC 3461 §4.1: where nothing was asked, it may).
    pub fn wants_delay(this: Option<Self>) -> bool {
        matches!(this, None | Some(Self::On { delay: true, .. }))
    }
}

/// As it stands behind `NOTIFY=`.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::On { success, failure, delay } = *self else { return f.write_str("NEVER") };
        let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
        let wanted: Vec<&str> = words.into_iter().filter_map(|(on, word)| on.then_some(word)).collect();
        f.write_str(&wanted.join(","))
    }
}

/// How much of the letter a report should carry: the RET parameter of RFC 3461 §4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The header only.
    Headers,
    /// The whole letter.
    Full,
}

impl Ret {
    /// Reads `hdrs` (or msmtp's `headers`) and `full` in any case. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "hdrs" | "headers" => Some(Self::Headers),
            "full" => Some(Self::Full),
            _ => None,
        }
    }
}

/// As it stands behind `RET=`.
impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Headers => "HDRS",
            Self::Full => "FULL",
        })
    }
}

/// One recipient, with what was asked about its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Where the letter goes.
    pub mailbox: Mailbox,
    /// The NOTIFY parameter, where one was asked for.
    pub notify: Option<Notify>,
    /// The ORCPT parameter's address (`rfc822;…` before xtext), where one was handed to us.
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient of whom nothing special was asked.
    pub fn new(mailbox: Mailbox) -> Self {
        Self { mailbox, notify: None, orcpt: None }
    }
}

/// A reverse-path and its recipients (RFC 5321 §2.3.1), never without one and never with one twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    reverse_path: ReversePath,
    recipients: Vec<Recipient>,
    /// RET, where asked for.
    pub ret: Option<Ret>,
    /// ENVID before xtext, where asked for: printable ASCII, at most 100 octets (RFC 3461 §4.4).
    pub envid: Option<String>,
}

impl Envelope {
    /// Builds an envelope. Recipients that repeat an earlier one are dropped. `None` where there is none at all.
    pub fn new(reverse_path: ReversePath, recipients: Vec<Recipient>) -> Option<Self> {
        let mut seen = std::collections::HashSet::new();
        let recipients: Vec<Recipient> =
            recipients.into_iter().filter(|recipient| seen.insert(recipient.mailbox.key())).collect();
        (!recipients.is_empty()).then_some(Self { reverse_path, recipients, ret: None, envid: None })
    }

    /// The envelope sender.
    pub fn reverse_path(&self) -> &ReversePath {
        &self.reverse_path
    }

    /// The recipients, in the order in which they were named; at least one.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The same envelope for those recipients only whose index `keep` takes; `None` where it takes none.
    pub fn only(&self, mut keep: impl FnMut(usize) -> bool) -> Option<Self> {
        let recipients: Vec<Recipient> =
            self.recipients.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, r)| r.clone()).collect();
        (!recipients.is_empty()).then(|| Self { recipients, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_carries_a_control_character() {
        for bad in ["a\r\nRCPT TO:<x@y>", "a\nb", "a\0", "a\u{85}b"] {
            assert_eq!(Mailbox::new(bad, "example.org"), Err(BadMailbox::Control), "{bad:?}");
            assert_eq!(Mailbox::new("a", bad), Err(BadMailbox::Control), "{bad:?}");
        }
        assert_eq!(Mailbox::new("j\u{fffd}rg", "x.org"), Err(BadMailbox::NoText));
        assert_eq!(Mailbox::new("a", "\u{fffd}.org"), Err(BadMailbox::NoText));
        for bad in ["a b", "a>", "<a", "a@b", "a..b", ".a", "a.", "[]", "a,b"] {
            assert_eq!(Mailbox::new("a", bad), Err(BadMailbox::Domain), "{bad:?}");
        }
    }

    #[test]
    fn local_parts_are_quoted_only_where_they_must_be() {
        for (local, wire) in [
            ("bob", "bob@x.org"),
            ("o'neil+tag", "o'neil+tag@x.org"),
            ("john doe", "\"john doe\"@x.org"),
            ("a@b", "\"a@b\"@x.org"),
            ("a\"b\\", "\"a\\\"b\\\\\"@x.org"),
            (".a", "\".a\"@x.org"),
            ("jörg", "jörg@x.org"),
        ] {
            assert_eq!(Mailbox::new(local, "x.org").unwrap().to_string(), wire);
        }
    }

    #[test]
    fn duplicates_collapse_and_an_empty_envelope_cannot_exist() {
        let to = |a: &str, d: &str| Recipient::new(Mailbox::new(a, d).unwrap());
        let many = vec![to("a", "x.org"), to("a", "X.ORG"), to("A", "x.org"), to("b", "x.org")];
        let envelope = Envelope::new(ReversePath::NULL, many).unwrap();
        let left: Vec<String> = envelope.recipients().iter().map(|r| r.mailbox.to_string()).collect();
        assert_eq!(left, ["a@x.org", "A@x.org", "b@x.org"]);
        assert!(Envelope::new(ReversePath::NULL, vec![]).is_none());
        assert!(envelope.only(|_| false).is_none());
        assert_eq!(envelope.only(|i| i == 2).unwrap().recipients().len(), 1);
    }

    #[test]
    fn idn_domains_have_a_labels() {
        let mailbox = Mailbox::new("info", "bücher.example").unwrap();
        assert_eq!(mailbox.with_ascii_domain().unwrap().to_string(), "info@xn--bcher-kva.example");
    }

    #[test]
    fn notify_is_read_in_any_case_and_refuses_the_rest() {
        assert_eq!(Notify::parse("FAILURE,delay").unwrap().to_string(), "FAILURE,DELAY");
        assert_eq!(Notify::parse("Never"), Some(Notify::Never));
        assert_eq!(Notify::parse("never,failure"), None);
        assert_eq!(Notify::parse(""), None);
    }
}
