//! Which account a letter goes through: by name, by recipient, by reverse-path, or the default.
//!
//! The order, for each recipient on its own:
//! 1. the account that was asked for by name (`-a`);
//! 2. the first account, in the order of the file, one of whose `recipients` patterns the recipient matches;
//! 3. the first one of whose `senders` patterns the reverse-path matches, else the first whose `from` it is; both
//!    also without its `+detail`;
//! 4. `default`, else the account that is called `default`, else the first one.
//!
//! Through an account that delivers directly (`host = "mx"`) recipients of the same domain go together, and others not.
//!
//! Patterns know `*` and `?` and compare without case, local part included: they choose a way, they do not
//! identify a person. Pure.

use super::{Account, Settings};
use crate::envelope::{Envelope, Mailbox, Recipient};
use crate::message::address::parse_sender;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Where recipients are reached: those of one destination can share a connection, and its trouble is theirs alone.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    /// The account that they are reached through.
    pub account: &'a Account,
    /// Their domain, in lower case and as the DNS has it, where the account delivers directly.
    pub domain: Option<String>,
}

impl<'a> Destination<'a> {
    /// Where that recipient is reached through that account.
    fn of(account: &'a Account, to: &Mailbox) -> Self {
        // A domain that IDNA does not know is nobody's, and the DNS will say so.
        let ascii = || idna::domain_to_ascii(to.domain()).ok().filter(|ascii| !ascii.is_empty());
        let known = || if to.domain().is_ascii() { None } else { ascii() };
        let domain = account.is_direct().then(|| known().unwrap_or_else(|| to.domain().to_lowercase()));
        Self { account, domain }
    }
}

/// By the account's name.
impl PartialEq for Destination<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.account.name == other.account.name && self.domain == other.domain
    }
}

impl Eq for Destination<'_> {}

impl Hash for Destination<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.account.name, &self.domain).hash(state);
    }
}

/// Some of a letter's recipients, and where they are reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Route<'a> {
    /// The account, and perhaps the domain.
    pub to: Destination<'a>,
    /// Places of the recipients in the envelope, ascending; at least one.
    pub recipients: Vec<usize>,
}

/// Why no account can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAccount(pub String);

impl fmt::Display for NoAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The routes of a letter: each recipient is in one of them, and no destination is in two.
pub fn routes<'a>(
    settings: &'a Settings,
    named: Option<&str>,
    envelope: &Envelope,
) -> Result<Vec<Route<'a>>, NoAccount> {
    let path = envelope.reverse_path().0.as_ref();
    let to = |(i, recipient): (usize, &Recipient)| {
        account(settings, named, path, &recipient.mailbox)
            .map(|account| (i, Destination::of(account, &recipient.mailbox)))
    };
    envelope.recipients().iter().enumerate().map(to).collect::<Result<Vec<_>, _>>().map(gathered)
}

/// The routes of some of a letter's recipients through one account.
pub fn routes_through<'a>(account: &'a Account, envelope: &Envelope, recipients: &[usize]) -> Vec<Route<'a>> {
    gathered(recipients.iter().map(|&i| (i, Destination::of(account, &envelope.recipients()[i].mailbox))))
}

/// Recipients by destination, in the order in which those come.
fn gathered<'a>(recipients: impl IntoIterator<Item = (usize, Destination<'a>)>) -> Vec<Route<'a>> {
    let (mut routes, mut places) = (Vec::<Route<'a>>::new(), HashMap::new());
    for (i, to) in recipients {
        let place = *places.entry(to.clone()).or_insert(routes.len());
        match routes.get_mut(place) {
            Some(route) => route.recipients.push(i),
            None => routes.push(Route { to, recipients: vec![i] }),
        }
    }
    routes
}

/// The account of one recipient; `path` is the reverse-path.
pub fn account<'a>(
    settings: &'a Settings,
    named: Option<&str>,
    path: Option<&Mailbox>,
    to: &Mailbox,
) -> Result<&'a Account, NoAccount> {
    if let Some(name) = named {
        return by_name(settings, name);
    }
    let accounts = &settings.accounts;
    let by_recipient = accounts.iter().find(|account| matches_one(&account.recipients, &plain(to)));
    match by_recipient.or_else(|| path.and_then(|path| by_path(settings, path))) {
        Some(account) => Ok(account),
        None => usual(settings, None),
    }
}

/// The account that is named, else the one that is used when nothing else chooses one.
pub fn usual<'a>(settings: &'a Settings, named: Option<&str>) -> Result<&'a Account, NoAccount> {
    let accounts = &settings.accounts;
    if let Some(name) = named.or(settings.default.as_deref()) {
        return by_name(settings, name);
    }
    let unnamed = accounts.iter().find(|account| account.name == "default").or_else(|| accounts.first());
    unnamed.ok_or_else(|| NoAccount(format!("{} has no account", settings.file.display())))
}

fn by_name<'a>(settings: &'a Settings, name: &str) -> Result<&'a Account, NoAccount> {
    let found = settings.accounts.iter().find(|account| account.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        NoAccount(format!("there is no account {name:?} in {}; there is: {known}", settings.file.display()))
    })
}

fn by_path<'a>(settings: &'a Settings, path: &Mailbox) -> Option<&'a Account> {
    let base = path.local().split_once('+').map_or(path.local(), |(base, _)| base);
    let spellings = [plain(path), format!("{base}@{}", path.domain())];
    let pick = |fits: &dyn Fn(&Account, &str) -> bool| {
        spellings.iter().find_map(|address| settings.accounts.iter().find(|account| fits(account, address)))
    };
    pick(&|account, address| matches_one(&account.senders, address))
        .or_else(|| pick(&|account, address| is_from(account, settings.domain.as_deref(), address)))
}

/// Whether the address is the account's own. A `from` without a domain is only known where the settings have one.
fn is_from(account: &Account, domain: Option<&str>, address: &str) -> bool {
    let own = account.from.as_deref().and_then(|from| parse_sender(from).ok().flatten());
    let domain = own.as_ref().and_then(|own| own.domain.as_deref()).or(domain);
    own.as_ref()
        .zip(domain)
        .is_some_and(|(own, domain)| format!("{}@{domain}", own.local).to_lowercase() == address.to_lowercase())
}

/// An address without the quotes that the wire wants: as patterns are written.
fn plain(mailbox: &Mailbox) -> String {
    format!("{}@{}", mailbox.local(), mailbox.domain())
}

/// What a sender becomes: the first pattern of a list of pairs
/// that fits says it. One without an @ is a name at `domain`.
pub fn masquerade<'a>(pairs: &'a [(String, String)], sender: &Mailbox, domain: &str) -> Option<&'a str> {
    let (whole, is_ours) = (plain(sender), sender.domain().eq_ignore_ascii_case(domain));
    let fits =
        |pattern: &str| glob(pattern, &whole) || is_ours && !pattern.contains('@') && glob(pattern, sender.local());
    pairs.iter().find(|(pattern, _)| fits(pattern)).map(|(_, address)| address.as_str())
}

fn matches_one(patterns: &[String], address: &str) -> bool {
    patterns.iter().any(|pattern| glob(pattern, address))
}

/// Whether a pattern with `*` (any characters) and `?` (any one) fits the whole text, in any case. Quadratic at
/// worst: on a mismatch only the last `*` takes one character more.
fn glob(pattern: &str, text: &str) -> bool {
    let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (pattern, text) = (lower(pattern), lower(text));
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Recipient, ReversePath};

    fn settings() -> Settings {
        let account = |name: &str, from: &str, senders: &[&str], recipients: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            Account {
                from: Some(from.to_owned()),
                senders: words(senders),
                recipients: words(recipients),
                ..Account::new(name)
            }
        };
        Settings {
            file: "/etc/pillarbox/config.toml".into(),
            default: Some("home".to_owned()),
            accounts: vec![
                account("work", "alice@example.com", &["*@lists.example.com"], &["*@corp.example.com"]),
                account("home", "Alice <alice@example.net>", &["ALICE@example.com"], &[]),
                account("local", "root", &[], &["?oe@example.org"]),
            ],
            domain: Some("box.example".to_owned()),
            ..Settings::default()
        }
    }

    fn mailbox(address: &str) -> Mailbox {
        let (local, domain) = address.rsplit_once('@').unwrap();
        Mailbox::new(local, domain).unwrap()
    }

    #[test]
    fn the_account_is_chosen_by_name_recipient_path_and_default_in_that_order() {
        let settings = settings();
        for (named, path, to, chosen) in [
            (Some("local"), "a@lists.example.com", "b@corp.example.com", "local"),
            (None, "alice@example.net", "b@CORP.example.com", "work"),
            (None, "a@LISTS.example.com", "b@example.org", "work"),
            (None, "a+detail@lists.example.com", "b@example.org", "work"),
            (None, "alice@example.com", "b@example.org", "home"), // senders go before any from
            (None, "alice+news@example.com", "b@example.org", "home"),
            (None, "Alice@Example.NET", "b@example.org", "home"),
            (None, "root@box.example", "b@example.org", "local"),
            (None, "stranger@example.org", "joe@example.org", "local"),
            (None, "stranger@example.org", "jooe@example.org", "home"),
        ] {
            let account = account(&settings, named, Some(&mailbox(path)), &mailbox(to)).unwrap();
            assert_eq!(account.name, chosen, "{named:?} {path} {to}");
        }
        assert_eq!(account(&settings, None, None, &mailbox("b@example.org")).unwrap().name, "home");
    }

    #[test]
    fn without_a_default_it_is_the_one_of_that_name_or_the_first() {
        let mut settings = Settings { default: None, ..settings() };
        let to = mailbox("b@example.org");
        assert_eq!(account(&settings, None, None, &to).unwrap().name, "work");
        settings.accounts[2].name = "default".to_owned();
        assert_eq!(account(&settings, None, None, &to).unwrap().name, "default");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = account(&settings(), Some("wrok"), None, &mailbox("b@example.org")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no account \"wrok\" in /etc/pillarbox/config.toml; there is: work, home, local"
        );
        assert!(account(&Settings::default(), None, None, &mailbox("b@example.org")).is_err());
    }

    #[test]
    fn several_accounts_share_a_letter() {
        let settings = settings();
        let to = ["a@corp.example.com", "b@example.org", "c@corp.example.com"];
        let recipients = to.iter().map(|to| Recipient::new(mailbox(to))).collect();
        let envelope = Envelope::new(ReversePath::NULL, recipients).unwrap();
        let routes = routes(&settings, None, &envelope).unwrap();
        let told: Vec<_> = routes.iter().map(|route| (route.to.account.name.as_str(), &route.recipients[..])).collect();
        assert_eq!(told, [("work", &[0, 2][..]), ("home", &[1][..])]);
    }

    #[test]
    fn direct_delivery_goes_by_domain() {
        let mut settings = settings();
        settings.accounts[1].hosts = vec![super::super::Host::Mx(25)];
        let to = [
            "a@x.example",
            "b@corp.example.com",
            "c@Bücher.example",
            "d@X.example",
            "e@xn--bcher-kva.example",
            "f@[127.0.0.1]",
        ];
        let recipients = to.iter().map(|to| Recipient::new(mailbox(to))).collect();
        let envelope = Envelope::new(ReversePath::NULL, recipients).unwrap();
        let told = |routes: Vec<Route<'_>>| -> Vec<_> {
            routes.into_iter().map(|route| (route.to.account.name.clone(), route.to.domain, route.recipients)).collect()
        };
        let home =
            |domain: &str, recipients: &[usize]| ("home".to_owned(), Some(domain.to_owned()), recipients.to_vec());
        let direct = [home("x.example", &[0, 3]), home("xn--bcher-kva.example", &[2, 4]), home("[127.0.0.1]", &[5])];
        let work = ("work".to_owned(), None, vec![1]);
        let all = told(routes(&settings, None, &envelope).unwrap());
        assert_eq!(all, [&direct[..1], &[work], &direct[1..]].concat());
        let some = told(routes_through(&settings.accounts[1], &envelope, &[3, 5]));
        assert_eq!(some, [home("x.example", &[3]), home("[127.0.0.1]", &[5])]);
    }

    #[test]
    fn globs_match_whole_addresses_without_case() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*@x.org", "a@X.ORG", true),
            ("*@x.org", "a@x.org.evil", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ab ab a", false),
            ("JÖRG@x", "jörg@x", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
        let long = "a".repeat(2000);
        assert!(!glob(&"*a".repeat(200), &format!("{long}b")));
    }
}
