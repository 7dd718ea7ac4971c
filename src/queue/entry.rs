//! The head of a letter's file: what is known of it from the moment it is accepted, as lines of words.
//!
//! ```text
//! pillarbox-letter 1
//! id 0123456789AB
//! created 1790000000000
//! uid 1000
//! account work
//! header 312 8bit long
//! from alice example.com
//! ret HDRS
//! envid QQ314159
//! to bob example.org FAILURE,DELAY rfc822;bob@example.org
//! content 2048
//! ```
//! An empty line ends it; the content's octets follow. Every word is checked again when it is read: what the file says
//! becomes a `Mailbox` by the same door as what a caller says.

use std::time::SystemTime;

use super::Id;
use super::words::{escape, millis, time, unescape};
use crate::envelope::{Envelope, Mailbox, Notify, Recipient, Ret, ReversePath};
use crate::message::Facts;

/// The first line: a reader that does not know the version must not guess.
const MAGIC: &str = "pillarbox-letter 1";

/// What never changes of a letter while it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: Id,
    /// When it was accepted, by the clock of that moment.
    pub created: SystemTime,
    /// Who handed it in.
    pub uid: u32,
    /// The account that was asked for by name.
    pub account: Option<String>,
    /// Everybody it was for when it came; who is left is [`Letter::remaining`](super::Letter::remaining).
    pub envelope: Envelope,
    /// What the session must know of the body.
    pub facts: Facts,
    /// Octets of the header, without the empty line behind it.
    pub header_len: u64,
    /// Octets of the content: header, empty line and body.
    pub size: u64,
}

impl Entry {
    /// The head with the empty line that ends it.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\nid {}\ncreated {}\nuid {}\n", self.id, millis(self.created), self.uid);
        let mut line = |key: &str, words: &[&str]| {
            text.push_str(key);
            for word in words {
                text.push(' ');
                text.push_str(word);
            }
            text.push('\n');
        };
        if let Some(account) = &self.account {
            line("account", &[&escape(account)]);
        }
        let mut facts = vec![self.header_len.to_string()];
        facts.extend(self.facts.eight_bit.then(|| "8bit".to_owned()));
        facts.extend(self.facts.long_line.then(|| "long".to_owned()));
        line("header", &facts.iter().map(String::as_str).collect::<Vec<_>>());
        match &self.envelope.reverse_path().0 {
            None => line("from", &[]),
            Some(mailbox) => line("from", &[&escape(mailbox.local()), &escape(mailbox.domain())]),
        }
        if let Some(ret) = self.envelope.ret {
            line("ret", &[&ret.to_string()]);
        }
        if let Some(envid) = &self.envelope.envid {
            line("envid", &[&escape(envid)]);
        }
        for to in self.envelope.recipients() {
            let notify = to.notify.map_or_else(|| "-".to_owned(), |notify| notify.to_string());
            let orcpt = to.orcpt.as_deref().map_or_else(|| "-".to_owned(), escape);
            line("to", &[&escape(to.mailbox.local()), &escape(to.mailbox.domain()), &notify, &orcpt]);
        }
        line("content", &[&self.size.to_string()]);
        text.push('\n');
        text
    }

    /// Reads what [`Entry::to_text`] wrote. `None` for anything else, whatever it is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix("\n\n")?.split('\n');
        if lines.next()? != MAGIC {
            return None;
        }
        let mut draft = Draft::default();
        for line in lines {
            let mut words = line.split(' ');
            let key = words.next()?;
            draft.take(key, &words.collect::<Vec<_>>())?;
        }
        draft.entry()
    }
}

/// A head that is being read, line by line.
#[derive(Default)]
struct Draft {
    id: Option<Id>,
    created: Option<SystemTime>,
    uid: Option<u32>,
    account: Option<String>,
    header: Option<(u64, Facts)>,
    from: Option<ReversePath>,
    ret: Option<Ret>,
    envid: Option<String>,
    to: Vec<Recipient>,
    size: Option<u64>,
}

impl Draft {
    fn take(&mut self, key: &str, words: &[&str]) -> Option<()> {
        match (key, words) {
            ("id", [id]) => once(&mut self.id, Id::of_file(id)?),
            ("created", [at]) => once(&mut self.created, time(at)?),
            ("uid", [uid]) => once(&mut self.uid, uid.parse().ok()?),
            ("account", [account]) => once(&mut self.account, unescape(account)?),
            ("header", [len, facts @ ..]) => once(&mut self.header, (len.parse().ok()?, read_facts(facts)?)),
            ("from", []) => once(&mut self.from, ReversePath::NULL),
            ("from", [local, domain]) => once(&mut self.from, ReversePath(Some(mailbox(local, domain)?))),
            ("ret", [ret]) => once(&mut self.ret, Ret::parse(ret)?),
            ("envid", [envid]) => once(&mut self.envid, unescape(envid)?),
            ("to", [local, domain, notify, orcpt]) => {
                let notify = match *notify {
                    "-" => None,
                    word => Some(Notify::parse(word)?),
                };
                let orcpt = Some(unescape(orcpt)?).filter(|orcpt| !orcpt.is_empty());
                self.to.push(Recipient { mailbox: mailbox(local, domain)?, notify, orcpt });
                Some(())
            }
            ("content", [size]) => once(&mut self.size, size.parse().ok()?),
            _ => None,
        }
    }

    fn entry(self) -> Option<Entry> {
        let (header_len, facts) = self.header?;
        let count = self.to.len();
        let mut envelope = Envelope::new(self.from?, self.to)?;
        if envelope.recipients().len() != count {
            return None; // outcomes count recipients: a list that shrinks on reading would shift them
        }
        envelope.ret = self.ret;
        envelope.envid = self.envid;
        let size = self.size.filter(|&size| header_len <= size)?;
        let (id, created, uid) = (self.id?, self.created?, self.uid?);
        Some(Entry { id, created, uid, account: self.account, envelope, facts, header_len, size })
    }
}

/// Fills a slot that must be empty.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.is_none().then(|| *slot = Some(value))
}

fn read_facts(words: &[&str]) -> Option<Facts> {
    match words {
        [] => Some(Facts { eight_bit: false, long_line: false }),
        ["8bit"] => Some(Facts { eight_bit: true, long_line: false }),
        ["long"] => Some(Facts { eight_bit: false, long_line: true }),
        ["8bit", "long"] => Some(Facts { eight_bit: true, long_line: true }),
        _ => None,
    }
}

fn mailbox(local: &str, domain: &str) -> Option<Mailbox> {
    Mailbox::new(&unescape(local)?, &unescape(domain)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn entry(local: &str, envid: &str, account: &str) -> Entry {
        let mailbox = |domain| Mailbox::new(local, domain).unwrap();
        let to = vec![
            Recipient { mailbox: mailbox("a.org"), notify: Notify::parse("failure"), orcpt: Some("rfc822;a b".into()) },
            Recipient::new(mailbox("b.org")),
        ];
        let mut envelope = Envelope::new(ReversePath(Some(mailbox("c.org"))), to).unwrap();
        envelope.ret = Some(Ret::Full);
        envelope.envid = Some(envid.to_owned());
        Entry {
            id: Id::parse("0123456789AB").unwrap(),
            created: UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
            uid: 1000,
            account: Some(account.to_owned()),
            envelope,
            facts: Facts { eight_bit: true, long_line: true },
            header_len: 7,
            size: 9,
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_reads_back(
            // No mailbox has what stands for octets that are no text.
            local in "\\PC{1,20}".prop_map(|local| local.replace(char::REPLACEMENT_CHARACTER, "x")),
            envid in any::<String>(),
            account in any::<String>(),
        ) {
            let entry = entry(&local, &envid, &account);
            prop_assert_eq!(Entry::parse(&entry.to_text()), Some(entry));
        }

        #[test]
        fn a_stranger_s_head_is_refused_without_a_panic(text in "(pillarbox-letter 1\n)?(\\PC|\n| ){0,200}") {
            let _ = Entry::parse(&text);
        }
    }

    #[test]
    fn a_head_that_was_meddled_with_is_refused() {
        let text = entry("bob", "x", "work").to_text();
        for (from, to) in [
            ("pillarbox-letter 1", "pillarbox-letter 2"),
            ("uid 1000\n", ""),
            ("uid 1000\n", "uid 1000\nuid 0\n"),
            ("to bob a.org", "to bob%0D%0A a.org"),
            ("to bob b.org", "to bob A.ORG"),
            ("content 9", "content 6"),
            ("content 9", "content -9"),
            ("\n\n", "\n"),
            ("uid", "gid"),
            ("8bit long", "long 8bit"),
        ] {
            assert!(text.contains(from), "{from}");
            assert_eq!(Entry::parse(&text.replace(from, to)), None, "{from:?} → {to:?}");
        }
    }
}
