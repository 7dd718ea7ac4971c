//! The header that goes out: what is missing is added, what must not be seen is removed.
//!
//! Whatever else stands in a header passes byte for byte. RFC 5322 §3.6 (which fields there must be), §3.6.6
//! (Resent fields), RFC 5321 §4.4 (Return-Path is the last server's), RFC 6409 §8 (what a submission may mend).

use super::address::{Address, each_folded};
use super::encode;
use super::fields::{Field, Fields};
use crate::envelope::Mailbox;

/// What a header is completed with.
pub struct Completion<'a> {
    /// The date (RFC 5322 §3.3).
    pub date: &'a str,
    /// A Message-ID without its angles.
    pub message_id: &'a str,
    /// The author where the message names none.
    pub author: &'a Mailbox,
    /// The author's name, asked for where it is needed; may be empty.
    pub full_name: &'a dyn Fn() -> String,
    /// What an address in a field is to be replaced with; `None`: nothing, it stays.
    pub rename: &'a dyn Fn(&Field, &Address) -> Option<Vec<Mailbox>>,
    /// Whether the author replaces whom the message names: that one then becomes the Reply-To, where there is none.
    pub force_author: bool,
    /// What stands in one `To:` in place of every To and Cc; `None`: they stay.
    pub to: Option<&'a str>,
    /// Fields that are not added where they are missing.
    pub without: &'a [&'a str],
    /// What is to be done.
    pub how: How,
}

/// How much of a header is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// All of it.
    Full,
    /// All of it, and `To: undisclosed-recipients:;` where no recipient is named.
    Undisclosed,
    /// Nothing is added (a gateway's letter); what must not be seen is removed all the same.
    Gateway,
}

/// Never for the recipients' eyes, or not ours to say.
const REMOVED: [&str; 4] = ["Bcc", "Resent-Bcc", "Return-Path", "Content-Length"];

/// Fields that hold addresses.
const ADDRESSES: [&str; 10] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Reply-To",
];

/// Fields that mean nothing when they are empty, besides those with addresses.
const NEVER_BLANK: [&str; 4] = ["Date", "Message-ID", "Resent-Date", "Resent-Message-ID"];

/// The fields that say whom a letter is from, and whom it is for.
pub const SENDERS: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];
/// See [`SENDERS`].
pub const RECIPIENTS: [&str; 4] = ["To", "Cc", "Resent-To", "Resent-Cc"];

/// Completes a header.
pub fn complete(fields: &mut Fields, with: &Completion<'_>) {
    let named = |field: &Field, names: &[&str]| names.iter().any(|name| field.is(name));
    fields.retain(|field| {
        !named(field, &REMOVED) && !(field.is_blank() && (named(field, &ADDRESSES) || named(field, &NEVER_BLANK)))
    });
    if with.how == How::Gateway {
        return;
    }
    fields.rewrite(|field| named(field, &ADDRESSES).then(|| renamed(field, with)).flatten());
    if with.force_author {
        replace_author(fields, with);
    }
    if let Some(to) = with.to {
        fields.retain(|field| !named(field, &["To", "Cc"]));
        fields.append(Field::of("To", to));
    }
    let resent = newest_resent_block(fields);
    let own: [(&str, &dyn Fn() -> String); 3] = [
        ("From", &|| author(with)),
        ("Date", &|| with.date.to_owned()),
        ("Message-ID", &|| format!("<{}>", with.message_id)),
    ];
    if let Some(top) = resent.first() {
        // Looked for before any is inserted: that moves the places.
        let block: Vec<String> = fields
            .iter()
            .enumerate()
            .filter(|(i, _)| resent.contains(i))
            .map(|(_, field)| field.name().to_lowercase())
            .collect();
        for (name, value) in own.into_iter().rev() {
            let name = format!("Resent-{name}");
            if !block.contains(&name.to_lowercase()) {
                fields.insert(*top, Field::of(&name, &value()));
            }
        }
        return;
    }
    for (name, value) in own {
        if fields.first(name).is_none() && !with.without.contains(&name) {
            fields.append(Field::of(name, &value()));
        }
    }
    if with.how == How::Undisclosed && fields.first("To").is_none() && fields.first("Cc").is_none() {
        fields.append(Field::of("To", "undisclosed-recipients:;"));
    }
}

/// The From field of somebody of this name at an address that has no domain yet.
pub fn from_field(full_name: &str, login: &str) -> Field {
    Field::of("From", &format!("{} <{login}>", encode::phrase(full_name)))
}

/// Puts the author in the place of whom the message names.
fn replace_author(fields: &mut Fields, with: &Completion<'_>) {
    let named: Vec<u8> = fields.first("From").map(|from| from.value().to_vec()).unwrap_or_default();
    let is_author = |one: &Address| one.to_mailbox("").is_ok_and(|mailbox| mailbox == *with.author);
    let (mut names_nobody, mut names_others) = (true, false);
    let mut look = |one: Address| {
        names_nobody = false;
        names_others |= !is_author(&one);
    };
    match std::str::from_utf8(&named).map(|named| each_folded(named, &mut look)) {
        Ok(Ok(())) => {}
        // What cannot be read names nobody.
        Ok(Err(_)) => names_nobody = true,
        // Of old octets that are no UTF-8 nothing is known.
        Err(_) => (names_nobody, names_others) = (false, true),
    }
    if named.is_empty() || !names_nobody && !names_others {
        return;
    }
    fields.set(Field::of("From", &author(with)));
    if !names_nobody && fields.first("Reply-To").is_none() {
        let raw = [b"Reply-To:", named.as_slice(), b"\r\n"].concat();
        if let Some(field) = Field::new(raw) {
            fields.append(field);
        }
    }
}

/// `Name <address>`, or the address alone.
fn author(with: &Completion<'_>) -> String {
    match encode::phrase(&(with.full_name)()) {
        name if name.is_empty() => with.author.to_string(),
        name => format!("{name} <{}>", with.author),
    }
}

/// The places of the newest block of Resent fields: from the first one on, until a trace field or a name that
/// was there before begins an older block (RFC 5322 §3.6.6: newer blocks are put on top).
pub(super) fn newest_resent_block(fields: &Fields) -> Vec<usize> {
    let mut block: Vec<(usize, String)> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let name = field.name().to_ascii_lowercase();
        let is_trace = matches!(name.as_str(), "received" | "return-path");
        if !block.is_empty() && (is_trace || block.iter().any(|(_, seen)| *seen == name)) {
            break;
        }
        if name.starts_with("resent-") {
            block.push((i, name));
        }
    }
    block.into_iter().map(|(i, _)| i).collect()
}

/// The field with the addresses in it replaced; `None` where nothing is to be done, or it cannot be read.
fn renamed(field: &Field, with: &Completion<'_>) -> Option<Field> {
    let value = std::str::from_utf8(field.value()).ok()?;
    let mut raw = field.raw()[..field.raw().len() - field.value().len() - 2].to_vec();
    let (mut start, mut changed) = (0, false);
    let mut rename = |address: Address| {
        let names = (with.rename)(field, &address).unwrap_or_default();
        // In angles, behind a name, there is room for one address only.
        if names.is_empty() || (address.angled && names.len() > 1) {
            return;
        }
        let names: Vec<String> = names.iter().map(Mailbox::to_string).collect();
        raw.extend_from_slice(&value.as_bytes()[start..address.span.start]);
        raw.extend_from_slice(names.join(", ").as_bytes());
        (start, changed) = (address.span.end, true);
    };
    each_folded(value, &mut rename).ok()?;
    raw.extend_from_slice(&value.as_bytes()[start..]);
    raw.extend_from_slice(b"\r\n");
    changed.then(|| Field::new(raw)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(header: &str, how: How, name: &str) -> String {
        let mut fields = Fields::parse(header.replace('\n', "\r\n").as_bytes());
        let author = Mailbox::new("alice", "box.example").unwrap();
        complete(
            &mut fields,
            &Completion {
                date: "DATE",
                message_id: "ID@box",
                author: &author,
                full_name: &|| name.to_owned(),
                rename: &|_, address| {
                    let local = address.domain.is_none();
                    local.then(|| vec![address.to_mailbox("box.example").unwrap()])
                },
                force_author: false,
                to: None,
                without: &[],
                how,
            },
        );
        String::from_utf8(fields.to_octets()).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn what_is_missing_is_added_once() {
        let own = "From: Alice Tester <alice@box.example>\nDate: DATE\nMessage-ID: <ID@box>\n";
        assert_eq!(completed("", How::Full, "Alice Tester"), own);
        assert_eq!(
            completed("Subject: x\nFrom:\nDate: \nMessage-id:\t\n", How::Full, "Alice Tester"),
            format!("Subject: x\n{own}")
        );
        let whole = "from: a@b\nDATE: d\nmessage-ID: <m>\n";
        assert_eq!(completed(whole, How::Full, ""), whole);
        assert_eq!(completed("To: a@b\n", How::Gateway, "x"), "To: a@b\n");
        assert!(completed("Subject: x\n", How::Undisclosed, "").ends_with("To: undisclosed-recipients:;\n"));
    }

    #[test]
    fn names_are_quoted_and_encoded_as_they_must_be() {
        for (name, want) in [
            ("", "From: alice@box.example"),
            ("Alice Tester", "From: Alice Tester <alice@box.example>"),
            ("O'Neil, J. (x)", "From: \"O'Neil, J. (x)\" <alice@box.example>"),
            ("say \"hi\" \\", "From: \"say \\\"hi\\\" \\\\\" <alice@box.example>"),
            ("Jörg", "From: =?utf-8?B?SsO2cmc=?= <alice@box.example>"),
            ("a\r\nBcc: x@y", "From: \"a  Bcc: x@y\" <alice@box.example>"),
        ] {
            assert_eq!(completed("", How::Full, name).lines().next(), Some(want), "{name:?}");
        }
    }

    #[test]
    fn blind_copies_never_stay_in_any_spelling() {
        let header =
            "bcc: a@b\nBCC : c@d,\n e@f\nResent-Bcc: g@h\nTo: t@x\nReturn-Path: <r@x>\nContent-Length: 5\nCc:\n";
        for how in [How::Full, How::Gateway] {
            let out = completed(header, how, "");
            assert!(
                out.starts_with("To: t@x\n") && !out.contains("e@f") && !out.to_lowercase().contains("bcc"),
                "{out}"
            );
            assert!(!out.contains("Return-Path") && !out.contains("Cc") && !out.contains("Content-Length"), "{out}");
        }
    }

    #[test]
    fn only_the_newest_resent_block_is_completed() {
        let header = "Received: x\nResent-To: n@x\nReceived: y\nResent-From: o@x\nResent-To: o@y\nFrom: f@x\nTo: t@x\n";
        let out = completed(header, How::Full, "");
        let head = "Received: x\nResent-From: alice@box.example\nResent-Date: DATE\nResent-Message-ID: <ID@box>\n\
                    Resent-To: n@x\nReceived: y\n";
        assert!(out.starts_with(head), "{out}");
        assert!(!out.contains("\nDate:"), "{out}");
    }

    #[test]
    fn a_resent_block_that_lacks_one_field_gets_that_one_only() {
        let header = "Resent-From: o@x\nResent-Message-ID: <m>\nResent-To: n@x\nFrom: f@x\n";
        assert_eq!(completed(header, How::Full, "x"), format!("Resent-Date: DATE\n{header}"));
        let header = "Resent-To: n@x\nResent-Date: d\nFrom: f@x\n";
        let own = "Resent-From: alice@box.example\nResent-Message-ID: <ID@box>\n";
        assert_eq!(completed(header, How::Full, ""), format!("{own}{header}"));
    }

    #[test]
    fn local_names_get_a_domain_and_nothing_else_changes() {
        let header = "From: root (Cron Daemon)\nTo: \"R, O\" <root>,\n\t ops@x.org,  G: alice , b@c;\nSubject: root\n\
                      Date: d\nMessage-ID: <m>\n";
        let want = header
            .replace("From: root ", "From: root@box.example ")
            .replace("<root>", "<root@box.example>")
            .replace("alice ,", "alice@box.example ,");
        assert_eq!(completed(header, How::Full, ""), want);
        let broken = "From: a@b\nTo: \"root\nDate: d\nMessage-ID: <m>\n";
        assert_eq!(completed(broken, How::Full, ""), broken);
    }
}
