//! Before anything is sent: recipients, sender and account are settled and the header is completed.

use super::{Here, Letter, Why, Wishes};
use crate::aliases::Aliases;
use crate::config::{Account, FromField, Settings, ToField, choose};
use crate::envelope::{Envelope, Mailbox, Recipient, ReversePath};
use crate::message::Message;
use crate::message::address::{Address, parse_list, parse_sender};
use crate::message::complete::{Completion, How, RECIPIENTS, SENDERS, complete};
use crate::message::fields::Field;

/// More `Received:` fields than this are a loop (RFC 5321 §6.3).
const MAX_HOPS: usize = 100;

/// Where letters are handed in: who is who, and where they go.
#[derive(Clone, Copy)]
pub struct Counter<'a, 'h> {
    /// The accounts.
    pub settings: &'a Settings,
    /// Local names.
    pub aliases: &'a Aliases,
    /// The caller and the machine.
    pub here: &'a Here<'h>,
}

impl Counter<'_, '_> {
    /// Settles who sends what to whom through which account, and completes the header.
    pub fn prepare(&self, wishes: Wishes, message: Message) -> Result<Letter, Why> {
        let mut named = wishes.recipients;
        if wishes.recipients_from_header {
            named.extend(message.recipients().map_err(|error| Why::BadField(error.to_string()))?);
        }
        let mut recipients = Vec::new();
        for address in &named {
            recipients.extend(self.resolve(address)?);
        }
        let given = wishes.sender.map(|sender| sender.map(|sender| self.mailbox(&sender)).transpose()).transpose()?;
        let author = || author(&message).map(|author| self.mailbox(&author)).transpose();
        let given = match given {
            None if wishes.sender_from_header => author()?.map(Some),
            given => given,
        };
        let me = if given.is_none() { Some(self.me()?) } else { None };
        let first = recipients.first().ok_or(Why::NoRecipients)?;
        let by_path = given.as_ref().map_or(me.as_ref(), Option::as_ref);
        let account = self.account(wishes.account.as_deref(), by_path, first)?;
        let own = self.own_address(account)?;
        let author = if given.is_none() && account.sender_from_header { author()? } else { None };
        let path = given.unwrap_or_else(|| author.or_else(|| own.clone()).or(me));
        // A null path stays one, so that no two machines answer each other for ever.
        let path = path.map(|sender| match own {
            Some(own) if account.force_from || account.force_sender => Ok(own),
            _ => self.masqueraded(&sender).map(|other| other.unwrap_or(sender)),
        });

        let notify = wishes.notify.or(account.notify);
        let recipient = |mailbox| Recipient { mailbox, notify, orcpt: None };
        let recipients = recipients.into_iter().map(recipient).collect();
        let mut envelope = Envelope::new(ReversePath(path.transpose()?), recipients).ok_or(Why::NoRecipients)?;
        (envelope.ret, envelope.envid) = (wishes.ret.or(account.ret), wishes.envid);
        let how = if wishes.gateway { How::Gateway } else { How::Full };
        let message = self.dressed(message, &envelope, account, wishes.full_name, how)?;
        Ok(Letter { envelope, message, account: wishes.account })
    }

    /// Makes a letter of one whose envelope is settled already, as a client's that speaks SMTP. Local names in it are
    /// followed. A name at `localhost` is one without a domain: no relay could do anything with it. The caller's own
    /// such name says no more than that he names no sender.
    pub fn adopt(&self, envelope: &Envelope, message: Message, how: How) -> Result<Letter, Why> {
        let mut recipients = Vec::new();
        for recipient in envelope.recipients() {
            let names = parse_list(&recipient.mailbox.to_string());
            for address in names.map_err(|error| Why::BadAddress(recipient.mailbox.to_string(), error))? {
                for mailbox in self.resolve(&address)? {
                    recipients.push(Recipient { mailbox: self.at_home(mailbox)?, ..recipient.clone() });
                }
            }
        }
        let path = envelope.reverse_path().0.clone();
        let names_nobody = path.as_ref().is_some_and(|path| is_home(path) && path.local() == self.here.caller.login);
        let path = path.map(|path| self.at_home(path)).transpose()?;
        let account = self.account(None, path.as_ref(), &recipients.first().ok_or(Why::NoRecipients)?.mailbox)?;
        let path = match (path, self.own_address(account)?) {
            (Some(_), Some(own)) if account.force_from || account.force_sender => Some(own),
            (Some(sender), own) => {
                let sender = own.filter(|_| names_nobody).unwrap_or(sender);
                Some(self.masqueraded(&sender)?.unwrap_or(sender))
            }
            (None, _) => None,
        };
        let mut adopted = Envelope::new(ReversePath(path), recipients).ok_or(Why::NoRecipients)?;
        (adopted.ret, adopted.envid) = (envelope.ret, envelope.envid.clone());
        let message = self.dressed(message, &adopted, account, None, how)?;
        Ok(Letter { envelope: adopted, message, account: None })
    }

    /// The message with its header completed and its lines short enough for any relay.
    fn dressed(
        &self,
        mut message: Message,
        envelope: &Envelope,
        account: &Account,
        full_name: Option<String>,
        how: How,
    ) -> Result<Message, Why> {
        let hops = message.hops();
        if hops > MAX_HOPS {
            return Err(Why::Loop(hops));
        }
        let author = match &envelope.reverse_path().0 {
            Some(sender) => sender.clone(),
            None => self.own_address(account)?.map_or_else(|| self.me(), Ok)?,
        };
        // A field that we write needs no SMTPUTF8 unless its local part does.
        let author = author.with_ascii_domain().unwrap_or(author);
        let full_name = full_name.or_else(|| account.from_name.clone());
        let full_name = || full_name.clone().unwrap_or_else(|| self.here.caller.full_name.clone());
        let message_id = format!("{}@{}", self.here.unique, author.domain());
        let rules = &account.header;
        let to = match rules.to {
            ToField::Kept => None,
            ToField::Undisclosed => Some("undisclosed-recipients:;".to_owned()),
            ToField::Recipients => {
                let names = envelope.recipients().iter().map(|recipient| recipient.mailbox.to_string());
                Some(names.collect::<Vec<_>>().join(", "))
            }
        };
        let without =
            [("From", rules.from == FromField::Kept), ("Date", !rules.date), ("Message-ID", !rules.message_id)];
        let without: Vec<&str> =
            without.into_iter().filter_map(|(name, is_unwanted)| is_unwanted.then_some(name)).collect();
        complete(
            message.fields_mut(),
            &Completion {
                date: &self.here.date,
                message_id: &message_id,
                author: &author,
                full_name: &full_name,
                rename: &|field, address| self.renamed(field, address),
                force_author: account.force_from || rules.from == FromField::Replaced,
                to: to.as_deref(),
                without: &without,
                how,
            },
        );
        Ok(message.with_short_lines())
    }

    /// What an address in the header becomes; `None`: it stays. One that cannot be made whole stays too: the envelope
    /// is what a letter goes by.
    fn renamed(&self, field: &Field, address: &Address) -> Option<Vec<Mailbox>> {
        let is_one_of = |names: &[&str]| names.iter().any(|name| field.is(name));
        if self.settings.names.rewrite_headers && is_one_of(&RECIPIENTS) {
            let found = self.resolve(address).ok()?;
            return (address.domain.is_none() || found != [self.mailbox(address).ok()?]).then_some(found);
        }
        let whole = self.mailbox(address).ok()?;
        let other = is_one_of(&SENDERS).then(|| self.masqueraded(&whole).ok().flatten()).flatten();
        match other {
            Some(other) => Some(vec![other]),
            None => address.domain.is_none().then(|| vec![whole]),
        }
    }

    /// Those whom an address stands for.
    fn resolve(&self, address: &Address) -> Result<Vec<Mailbox>, Why> {
        let is_local = |domain: &str| {
            [self.here.host.as_str(), "localhost", "localhost.localdomain"]
                .iter()
                .any(|own| own.eq_ignore_ascii_case(domain))
        };
        let found = self.aliases.resolve(address, &is_local).map_err(Why::Aliases)?;
        found.iter().map(|one| self.mailbox(one)).collect()
    }

    /// The address with a domain.
    fn mailbox(&self, address: &Address) -> Result<Mailbox, Why> {
        address.to_mailbox(self.domain()).map_err(|bad| Why::BadMailbox(address.to_string(), bad))
    }

    /// The mailbox with our domain in the place of `localhost`.
    fn at_home(&self, mailbox: Mailbox) -> Result<Mailbox, Why> {
        if !is_home(&mailbox) {
            return Ok(mailbox);
        }
        Mailbox::new(mailbox.local(), self.domain()).map_err(|bad| Why::BadMailbox(mailbox.to_string(), bad))
    }

    fn masqueraded(&self, sender: &Mailbox) -> Result<Option<Mailbox>, Why> {
        let pairs = &self.settings.names.masquerade;
        let Some(other) = choose::masquerade(pairs, sender, self.domain()) else { return Ok(None) };
        let bad = |error: String| Why::NoAccount(format!("masquerade: \"{other}\" {error}"));
        let address = parse_sender(other).map_err(|error| bad(error.to_string()))?;
        address.map(|address| address.to_mailbox(self.domain()).map_err(|error| bad(error.to_string()))).transpose()
    }

    fn domain(&self) -> &str {
        self.settings.domain.as_deref().unwrap_or(&self.here.domain)
    }

    /// The caller's own address on this machine.
    fn me(&self) -> Result<Mailbox, Why> {
        Mailbox::new(&self.here.caller.login, self.domain())
            .map_err(|bad| Why::BadMailbox(self.here.caller.login.clone(), bad))
    }

    fn account(&self, named: Option<&str>, path: Option<&Mailbox>, first: &Mailbox) -> Result<&Account, Why> {
        choose::account(self.settings, named, path, first).map_err(|error| Why::NoAccount(error.to_string()))
    }

    /// The account's own address.
    fn own_address(&self, account: &Account) -> Result<Option<Mailbox>, Why> {
        let Some(from) = &account.from else { return Ok(None) };
        let bad = |error: String| Why::NoAccount(format!("account {}: from = \"{from}\" {error}", account.name));
        let address = parse_sender(from).map_err(|error| bad(error.to_string()))?;
        address.map(|address| address.to_mailbox(self.domain()).map_err(|error| bad(error.to_string()))).transpose()
    }
}

/// The author that a header names: the first address of its From, or of a Resent-From that stands above it.
fn author(message: &Message) -> Option<Address> {
    let mut fields = message.fields().iter();
    let field = fields.find(|field| field.is("From") || field.is("Resent-From"))?;
    parse_list(&field.text()).ok()?.into_iter().next()
}

/// Whether a mailbox has no domain that anybody else knows.
fn is_home(mailbox: &Mailbox) -> bool {
    mailbox.domain().eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::super::Caller;
    use super::*;
    use crate::config::Host;
    use crate::message::{InMemory, LoneDot};
    use std::cell::LazyCell;

    fn settings() -> Settings {
        let account = |name: &str| Account {
            hosts: vec![Host::Tcp { name: "relay".to_owned(), port: 25 }],
            ..Account::new(name)
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = Settings { accounts: vec![account("plain"), account("one")], ..Settings::default() };
        settings.accounts[1].from = Some("relay@isp.example".to_owned());
        settings.accounts[1].force_from = true;
        settings.names.masquerade = vec![pair("root@*", "Ops <ops@x.org>")];
        settings
    }

    /// `sender > recipients`, and the header.
    fn prepared(settings: &Settings, wishes: Wishes, text: &str) -> Result<(String, String), Why> {
        let table = [("root".to_owned(), "ops@x.org, alice".to_owned()), ("a".to_owned(), "a2, b".to_owned())];
        let aliases = Aliases::load(&table, None, 0).0;
        let here = Here {
            caller: LazyCell::new(Box::new(|| Caller { login: "root".to_owned(), full_name: "Root".to_owned() })),
            domain: "box.example".to_owned(),
            host: "host.box.example".to_owned(),
            date: "DATE".to_owned(),
            unique: "ID".to_owned(),
        };
        let message = Message::read(&mut text.as_bytes(), LoneDot::IsText, Box::<InMemory>::default()).unwrap();
        let letter = Counter { settings, aliases: &aliases, here: &here }.prepare(wishes, message)?;
        let to: Vec<String> = letter.envelope.recipients().iter().map(|to| to.mailbox.to_string()).collect();
        let header = String::from_utf8(letter.message.fields().to_octets()).unwrap().replace("\r\n", "\n");
        Ok((format!("{} > {}", letter.envelope.reverse_path(), to.join(" ")), header))
    }

    fn to(words: &str) -> Wishes {
        Wishes { recipients: parse_list(words).unwrap(), ..Wishes::default() }
    }

    #[test]
    fn local_names_become_those_whom_they_stand_for() {
        let (envelope, header) =
            prepared(&settings(), to("root, root@localhost, root@host.box.example, x@y.org"), "To: root\n\n").unwrap();
        assert_eq!(envelope, "ops@x.org > ops@x.org alice@box.example x@y.org");
        assert!(header.starts_with("To: root@box.example\n"), "{header}");
        let mut settings = settings();
        settings.names.rewrite_headers = true;
        let (_, header) =
            prepared(&settings, to("root"), "To: root,\n \"The Boss\" <root>\nCc: x@y.org\nSubject: root\n\n").unwrap();
        assert!(
            header.starts_with("To: ops@x.org, alice@box.example,\n \"The Boss\" <root>\nCc: x@y.org\nSubject: root\n"),
            "{header}"
        );
    }

    #[test]
    fn a_masquerade_replaces_the_sender_in_envelope_and_header() {
        let (envelope, header) = prepared(&settings(), to("x@y.org"), "From: Cron <root>\nReply-To: root\n\n").unwrap();
        assert_eq!(envelope, "ops@x.org > x@y.org");
        assert!(header.starts_with("From: Cron <ops@x.org>\nReply-To: root@box.example\n"), "{header}");
        // A name alone is one of this machine.
        let mut settings = settings();
        settings.names.masquerade[0].0 = "ROOT".to_owned();
        for (from, expected) in [("root", "ops@x.org"), ("root@box.example", "ops@x.org"), ("root@y.org", "root@y.org")]
        {
            let wishes = Wishes { sender: Some(parse_sender(from).unwrap()), ..to("x@y.org") };
            assert_eq!(prepared(&settings, wishes, "\n").unwrap().0, format!("{expected} > x@y.org"));
        }
    }

    #[test]
    fn a_relay_that_takes_one_sender_gets_that_one_and_answers_go_to_the_author() {
        let wishes = || Wishes { account: Some("one".to_owned()), ..to("x@y.org") };
        let (envelope, header) = prepared(&settings(), wishes(), "From: Alice <alice@z.org>\n\n").unwrap();
        assert_eq!(envelope, "relay@isp.example > x@y.org");
        assert!(header.starts_with("From: Root <relay@isp.example>\nReply-To: Alice <alice@z.org>\n"), "{header}");
        let (envelope, _) =
            prepared(&settings(), Wishes { sender: Some(None), ..wishes() }, "From: a@z.org\n\n").unwrap();
        assert_eq!(envelope, " > x@y.org", "a null path is nobody's to change");
        let (_, header) = prepared(&settings(), wishes(), "From: <>\n\n").unwrap();
        assert!(header.starts_with("From: Root <relay@isp.example>\nDate"), "nobody is to be answered: {header}");
        let (_, header) = prepared(&settings(), wishes(), "From: Me <relay@isp.example>\n\n").unwrap();
        assert!(header.starts_with("From: Me <relay@isp.example>\nDate"), "{header}");
    }

    #[test]
    fn nobody_and_loops_are_refused() {
        assert!(matches!(prepared(&settings(), Wishes::default(), "To: x@y.org\n\n"), Err(Why::NoRecipients)));
        let received = "Received: x\n".repeat(MAX_HOPS + 1);
        assert!(matches!(prepared(&settings(), to("x@y.org"), &format!("{received}\n")), Err(Why::Loop(101))));
        let wishes = Wishes { account: Some("none".to_owned()), ..to("x@y.org") };
        assert!(matches!(prepared(&settings(), wishes, "\n"), Err(Why::NoAccount(_))));
    }
}
