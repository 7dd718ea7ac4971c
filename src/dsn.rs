//! Composes the report that tells a sender what became of a letter: `multipart/report` of RFC 3462 and RFC 3464.
//!
//! Three parts: a text for people, with each server's own words and what happens next; the same for machines; and the
//! letter's header (or all of a small letter, where RET=FULL asked for that). The report has the null reverse-path, and
//! there is no way to compose one *to* a null reverse-path. RFC 3461 §6.2 (what NOTIFY allows), RFC 3834
//! (`Auto-Submitted`), RFC 6533 (addresses that are not ASCII: they are written in its ASCII form, so that the
//! machine's part never needs SMTPUTF8). A stranger's text can end no line here and moves no cursor.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ring::digest::{Context, SHA256};

use crate::envelope::{Envelope, Mailbox, Notify, Recipient, Ret, ReversePath};
use crate::message::Content;
use crate::outcome::Outcome;
use crate::queue::{EXPIRED, Letter, Verdict};

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Some will not get it.
    Failure,
    /// Some have not got it yet; attempts go on until this time.
    Delay {
        /// When the letter's lifetime ends.
        until: SystemTime,
    },
}

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// This host's full name.
    pub host: &'a str,
    /// Where `MAILER-DAEMON` is said to be.
    pub domain: &'a str,
    /// How long a failed letter is kept.
    pub keep: Duration,
}

/// A report: ready to be accepted by the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dsn {
    /// From the null reverse-path to the letter's sender.
    pub envelope: Envelope,
    /// Canonical octets.
    pub octets: Vec<u8>,
}

impl Dsn {
    /// Octets of the header, without the empty line behind it.
    pub fn header_len(&self) -> u64 {
        memchr::memmem::find(&self.octets, b"\r\n\r\n").map_or(0, |end| end as u64 + 2)
    }
}

/// Composes the report on a letter whose octets are `content`; `None` where nobody is to be told: the reverse-path is
/// null, or NOTIFY says so. An error is an error of reading `content`.
pub fn compose(
    kind: Kind,
    letter: &Letter,
    content: &dyn Content,
    by: Reporter<'_>,
    now: SystemTime,
) -> io::Result<Option<Dsn>> {
    let Some((sender, whom)) = due(letter, kind) else { return Ok(None) };
    let original = Original::read(letter, content)?;
    let told: Vec<Told<'_>> = whom
        .into_iter()
        .map(|number| Told { to: letter.recipient(number), last: letter.history.verdict(number) })
        .collect();
    let text = text_part(kind, letter, &told, &original, by);
    let status = status_part(kind, letter, &told, by);
    let boundary = boundary(&[text.as_bytes(), status.as_bytes(), &original.octets]);

    let mut octets = header(kind, letter, sender, &boundary, by, now).into_bytes();
    let mut part = |fields: &str, body: &[u8]| {
        octets.extend_from_slice(format!("\r\n--{boundary}\r\n{fields}{}\r\n\r\n", encoding(body)).as_bytes());
        octets.extend_from_slice(body);
    };
    part("Content-Type: text/plain; charset=utf-8\r\nContent-Description: Notification\r\n", text.as_bytes());
    part("Content-Type: message/delivery-status\r\nContent-Description: Delivery report\r\n", status.as_bytes());
    part(&format!("Content-Type: {}\r\nContent-Description: {}\r\n", original.kind, original.what), &original.octets);
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());

    Ok(Some(Dsn { envelope: answer_to(sender), octets }))
}

/// Who is to be told, and about which recipients (by their numbers); `None` where nobody is, or nobody asked to be.
fn due(letter: &Letter, kind: Kind) -> Option<(&Mailbox, Vec<usize>)> {
    let sender = letter.entry.envelope.reverse_path().0.as_ref()?;
    let mut whom = match kind {
        Kind::Failure => letter.history.unreported(),
        Kind::Delay { .. } => letter.history.waiting(),
    };
    whom.retain(|&number| {
        let notify = letter.recipient(number).notify;
        match kind {
            Kind::Failure => Notify::wants_failure(notify),
            Kind::Delay { .. } => Notify::wants_delay(notify),
        }
    });
    (!whom.is_empty()).then_some((sender, whom))
}

/// From nobody, to the sender; a report about this report is not wanted by anybody.
fn answer_to(sender: &Mailbox) -> Envelope {
    let to = Recipient { notify: Some(Notify::Never), ..Recipient::new(sender.clone()) };
    #[expect(clippy::expect_used, reason = "there is a recipient one line above")]
    Envelope::new(ReversePath::NULL, vec![to]).expect("one recipient is not none")
}

/// A recipient, and what became of the letter for them.
struct Told<'a> {
    to: &'a Recipient,
    last: Option<&'a Verdict>,
}

impl Told<'_> {
    /// What happened, in one sentence: the relay, its words, where in the session.
    fn sentence(&self) -> String {
        let Some(Verdict { relay, outcome, .. }) = self.last else { return "No attempt has been made yet.".to_owned() };
        let what = match outcome {
            Outcome::Relayed(reply) => format!("said \"{reply}\""),
            Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => fault.to_string(),
        };
        let relay = if relay.is_empty() { String::new() } else { format!("{relay}: ") };
        let gave_up = if outcome.status() == EXPIRED { "given up after the queue lifetime; last: " } else { "" };
        printable(&format!("{gave_up}{relay}{what}"))
    }
}

fn header(kind: Kind, letter: &Letter, sender: &Mailbox, boundary: &str, by: Reporter<'_>, now: SystemTime) -> String {
    let domain = idna::domain_to_ascii(by.domain).unwrap_or_else(|_| ascii(by.domain));
    let subject = match kind {
        Kind::Failure => "Undelivered mail returned to sender",
        Kind::Delay { .. } => "Mail is delayed, still being tried",
    };
    let to = sender.with_ascii_domain().unwrap_or_else(|| sender.clone());
    format!(
        "From: Mail Delivery System <MAILER-DAEMON@{domain}>\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {}\r\n\
         Message-ID: <{}.{}@{domain}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n\
         This is a MIME-encapsulated message.\r\n",
        date(now),
        letter.entry.id,
        &boundary[2..18],
    )
}

fn text_part(kind: Kind, letter: &Letter, told: &[Told<'_>], original: &Original, by: Reporter<'_>) -> String {
    let host = printable(by.host);
    let mut paragraphs = vec![format!("This is the mail system at host {host}.")];
    let handed_in = format!("that was handed in on {}", date(letter.entry.created));
    match kind {
        Kind::Failure => paragraphs.push(format!(
            "Your letter {handed_in} could not be delivered to those named below. No further attempt will be made by \
             itself. The letter is kept for {}: whoever runs {host} can send it again with \"pillarbox queue retry \
             {}\".",
            span(by.keep),
            letter.entry.id,
        )),
        Kind::Delay { until } => paragraphs.push(format!(
            "Your letter {handed_in} has not been delivered yet to those named below. You need not send it again: \
             attempts go on until {}, and you will be told if they fail.",
            date(until),
        )),
    }
    if let Some(subject) = &original.subject {
        paragraphs.push(format!("Its subject: {}", printable(subject)));
    }
    paragraphs
        .extend(told.iter().map(|told| format!("<{}>\n{}", printable(&told.to.mailbox.to_string()), told.sentence())));
    let mut text = String::new();
    for paragraph in paragraphs {
        // What goes on beneath a recipient is set in, so that it is seen to belong there; the rest is prose.
        let fold = if paragraph.starts_with('<') { "\r\n    " } else { "\r\n" };
        for line in paragraph.split('\n') {
            wrap(&mut text, line, fold);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
    }
    text
}

/// The machine's part: one group of fields for the letter, one for each recipient (RFC 3464 §2.1).
fn status_part(kind: Kind, letter: &Letter, told: &[Told<'_>], by: Reporter<'_>) -> String {
    let entry = &letter.entry;
    let mut text = String::new();
    field(&mut text, "Reporting-MTA", &format!("dns; {}", ascii(by.host)));
    field(&mut text, "X-Pillarbox-Queue-ID", &entry.id.to_string());
    if let Some(envid) = &entry.envelope.envid {
        field(&mut text, "Original-Envelope-Id", &ascii(envid));
    }
    field(&mut text, "Arrival-Date", &date(entry.created));
    for Told { to, last } in told {
        text.push_str("\r\n");
        if let Some(orcpt) = &to.orcpt {
            let (kind, address) = orcpt.split_once(';').unwrap_or(("rfc822", orcpt));
            field(&mut text, "Original-Recipient", &format!("{}; {}", ascii(kind.trim()), ascii(address.trim())));
        }
        field(&mut text, "Final-Recipient", &final_recipient(&to.mailbox));
        field(&mut text, "Action", if kind == Kind::Failure { "failed" } else { "delayed" });
        let status = last.map_or_else(|| "4.0.0".to_owned(), |last| last.outcome.status().to_string());
        field(&mut text, "Status", &status);
        if let Some(last) = last {
            if let Some(host) = remote(&last.relay) {
                field(&mut text, "Remote-MTA", &format!("dns; {}", ascii(host)));
            }
            field(&mut text, "Diagnostic-Code", &diagnostic(&last.outcome));
            field(&mut text, "Last-Attempt-Date", &date(last.at));
        }
        if let Kind::Delay { until } = kind {
            field(&mut text, "Will-Retry-Until", &date(until));
        }
    }
    text
}

/// `rfc822; …`, or RFC 6533's `utf-8; …` in its ASCII form.
fn final_recipient(mailbox: &Mailbox) -> String {
    let address = mailbox.with_ascii_domain().unwrap_or_else(|| mailbox.clone());
    if !address.is_utf8() {
        return format!("rfc822; {address}");
    }
    let mut text = "utf-8; ".to_owned();
    for c in address.to_string().chars() {
        match c {
            '!'..='~' if !matches!(c, '+' | '=' | '\\') => text.push(c),
            // Writing to a String cannot fail.
            _ => drop(write!(text, "\\x{{{:X}}}", u32::from(c))),
        }
    }
    text
}

/// The name of the host that answered; none for a socket's path.
fn remote(relay: &str) -> Option<&str> {
    let port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let host = relay.rsplit_once(':').map_or(relay, |(host, rest)| if port(rest) { host } else { relay });
    (!host.is_empty() && !host.contains('/')).then_some(host)
}

fn diagnostic(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Relayed(reply) => format!("smtp; {}", ascii(&reply.to_string())),
        Outcome::Deferred { fault, .. } | Outcome::Failed { fault, .. } => match fault.reply() {
            Some(reply) => format!("smtp; {}", ascii(&reply.to_string())),
            None => format!("x-pillarbox; {}", ascii(&fault.to_string())),
        },
    }
}

/// What is sent back of the letter.
struct Original {
    kind: &'static str,
    what: &'static str,
    octets: Vec<u8>,
    subject: Option<String>,
}

/// The most that is sent back: a header that is longer loses its end, a letter that is longer its body.
const MOST: u64 = 50_000;

/// Octets of a line that every relay takes (RFC 5321 §4.5.3.1.6, without CRLF). A report must not bounce.
const LONGEST_LINE: usize = 998;

/// A header's octets, its lines broken where they are too long: what is sent back is for people to look at.
fn broken(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for mut line in octets.split_inclusive(|octet| *octet == b'\n') {
        // The fold's blank takes room on every line behind the first.
        let mut room = LONGEST_LINE;
        while line.len() > room + 2 {
            // Not within a character of UTF-8.
            let end = (900..=903).rev().find(|&end| line[end] & 0xC0 != 0x80).unwrap_or(903);
            out.extend_from_slice(&line[..end]);
            out.extend_from_slice(b"\r\n ");
            (line, room) = (&line[end..], LONGEST_LINE - 1);
        }
        out.extend_from_slice(line);
    }
    out
}

impl Original {
    fn read(letter: &Letter, content: &dyn Content) -> io::Result<Self> {
        let mut whole = letter.entry.envelope.ret == Some(Ret::Full) && content.len() <= MOST;
        let header_len = letter.entry.header_len.min(MOST);
        let mut octets = Vec::new();
        content.reader()?.take(if whole { content.len() } else { header_len }).read_to_end(&mut octets)?;
        let header_len = usize::try_from(header_len).map_or(octets.len(), |end| end.min(octets.len()));
        let subject = subject(&String::from_utf8_lossy(&octets[..header_len]));
        whole &= octets.split(|octet| *octet == b'\n').all(|line| line.len() <= LONGEST_LINE + 1);
        if !whole {
            octets.truncate(header_len);
            let end = memchr::memmem::rfind(&octets, b"\r\n").map_or(0, |end| end + 2);
            octets.truncate(end);
            octets = broken(&octets);
        }
        Ok(if whole {
            Self { kind: "message/rfc822", what: "Undelivered message", octets, subject }
        } else {
            Self { kind: "text/rfc822-headers", what: "Undelivered message's header", octets, subject }
        })
    }
}

/// The Subject as it stands there, encoded words and all.
fn subject(header: &str) -> Option<String> {
    let mut lines =
        header.split("\r\n").skip_while(|line| !line.get(..8).is_some_and(|key| key.eq_ignore_ascii_case("subject:")));
    let first = lines.next()?[8..].trim().to_owned();
    let more = lines.take_while(|line| line.starts_with([' ', '\t']));
    Some(more.fold(first, |subject, line| subject + " " + line.trim()))
}

/// A boundary that is in none of the parts: it is their hash.
fn boundary(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().iter().take(16).fold("=_".to_owned(), |text, octet| format!("{text}{octet:02x}"))
}

fn encoding(body: &[u8]) -> &'static str {
    if body.is_ascii() { "Content-Transfer-Encoding: 7bit" } else { "Content-Transfer-Encoding: 8bit" }
}

/// A field, folded at white space.
fn field(text: &mut String, name: &str, value: &str) {
    wrap(text, &format!("{name}: {value}"), "\r\n ");
    text.push_str("\r\n");
}

/// A line in pieces of about 76 characters; a word longer than any line may be is cut.
fn wrap(text: &mut String, line: &str, fold: &str) {
    let mut column = 0;
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let mut rest = word;
        loop {
            let end = rest.char_indices().nth(200).map_or(rest.len(), |(end, _)| end);
            let width = end + 1;
            if column > 0 && column + width > 76 {
                text.push_str(fold);
                column = fold.len();
            } else if column > 0 {
                text.push(' ');
            }
            text.push_str(&rest[..end]);
            column += width;
            rest = &rest[end..];
            if rest.is_empty() {
                break;
            }
        }
    }
}

/// Text for people: no control characters, and none that turn the direction of writing.
fn printable(text: &str) -> String {
    let harmless = |c: char| !c.is_control() && !matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if harmless(c) { c } else { '?' }).collect()
}

/// Text for machines: printable ASCII.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

/// RFC 5322 §3.3, in UTC.
fn date(time: SystemTime) -> String {
    let zoned = Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&zoned).unwrap_or_default()
}

/// A time span in whole days or hours, as people say it.
fn span(span: Duration) -> String {
    let hours = span.as_secs() / 3600;
    match (hours / 24, hours) {
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests;
