//! The netrc: `machine`, `login` and `password`, as ftp(1) brought them and curl, s-nail and msmtp use them.
//!
//! Words are separated by blanks, tabs and line ends. A word can be quoted (`"…"`, `'…'`), and a backslash takes the
//! sting out of the next character, in quotes (double ones) and without. A line that begins with `#` is a comment.
//! `machine *.example.com` holds for every name one label deeper (s-nail). `account`, `port` and the bodies of `macdef`
//! are skipped; `default` is for hosts that no `machine` names. An entry for the user comes before one without a
//! `login`, whatever their order; otherwise the first one counts.
//!
//! The file must be private (see `file`). A word that cannot be understood is an error with its line; the word
//! itself is not shown, since it could be the second half of a password with a blank in it.

use super::{Identity, NoSecret, Secret, SecretEnv, file, usable};
use std::path::Path;
use zeroize::Zeroizing;

/// A larger file is none.
const LARGEST: usize = 1024 * 1024;

/// The password of host and user.
pub(super) fn password(path: Option<&Path>, whose: &Identity<'_>, env: &SecretEnv) -> Result<Secret, NoSecret> {
    let path = match (path, &env.home) {
        (Some(path), _) => path.to_owned(),
        (None, Some(home)) => home.join(".netrc"),
        (None, None) => return Err(NoSecret::NoHome),
    };
    let text = file::whole(&path, env.uid, LARGEST)?;
    let found = find(&text, whose).map_err(|Flaw { line, why }| NoSecret::Netrc(path.clone(), line, why))?;
    let (host, user) = (whose.host.to_owned(), whose.user.to_owned());
    let found = found.ok_or_else(|| NoSecret::NoEntry(path.clone(), host, user))?;
    usable(&path.display().to_string(), &found)
}

/// What cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    why: &'static str,
}

pub(super) type Word = Zeroizing<Vec<u8>>;

/// How well an entry fits; the least fits best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Machine,
    Default,
}

#[derive(Default)]
struct Entry {
    fit: Option<Fit>,
    login: Option<Word>,
    password: Option<Word>,
}

/// The best entry's password.
pub(super) fn find(text: &[u8], whose: &Identity<'_>) -> Result<Option<Word>, Flaw> {
    let mut words = Words { text, at: 0, word: 0 };
    let mut best: Option<((Fit, bool), Word)> = None;
    let mut entry = Entry::default();
    let mut close = |entry: Entry| {
        let Entry { fit: Some(fit), login, password: Some(password) } = entry else { return };
        let is_anybodys = login.is_none();
        let rank = (fit, is_anybodys);
        let is_ours = login.is_none_or(|login| *login == whose.user.as_bytes());
        if is_ours && best.as_ref().is_none_or(|(other, _)| rank < *other) {
            best = Some((rank, password));
        }
    };
    while let Some(word) = words.next() {
        match word.as_slice() {
            b"machine" => {
                close(std::mem::take(&mut entry));
                entry.fit = is_machine(&words.value()?, whose.host).then_some(Fit::Machine);
            }
            b"default" => {
                close(std::mem::take(&mut entry));
                entry.fit = Some(Fit::Default);
            }
            b"login" | b"user" => entry.login = Some(words.value()?),
            b"password" | b"passwd" => entry.password = Some(words.value()?),
            b"account" | b"port" => drop(words.value()?),
            b"macdef" => words.skip_macro(),
            _ => {
                return Err(words.flaw(
                    "a word that is none of machine, default, login, password, account, port, macdef \
                     (a password with a blank in it must be quoted)",
                ));
            }
        }
    }
    close(entry);
    Ok(best.map(|(_, password)| password))
}

/// Whether a machine's name, or its wildcard, is that of the host.
fn is_machine(name: &[u8], host: &str) -> bool {
    let host = host.as_bytes();
    match name.strip_prefix(b"*.") {
        None => name.eq_ignore_ascii_case(host),
        Some(domain) => {
            let dot = host.iter().position(|&octet| octet == b'.');
            dot.is_some_and(|dot| dot > 0 && domain.eq_ignore_ascii_case(&host[dot + 1..]))
        }
    }
}

/// The words of a netrc.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the word that was read last begins.
    word: usize,
}

impl Words<'_> {
    /// The next word, unquoted; `None` at the end.
    fn next(&mut self) -> Option<Word> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let length = scan(rest, |_| {});
        let mut word = Zeroizing::new(Vec::with_capacity(length));
        scan(rest, |octet| word.push(octet));
        self.word = self.at;
        self.at += length;
        (length > 0).then_some(word)
    }

    /// The word that must follow.
    fn value(&mut self) -> Result<Word, Flaw> {
        let flaw = self.flaw("the word after this one is missing");
        self.next().ok_or(flaw)
    }

    /// Something is wrong with the word that was read last.
    fn flaw(&self, why: &'static str) -> Flaw {
        Flaw { line: 1 + memchr::memchr_iter(b'\n', &self.text[..self.word]).count(), why }
    }

    /// A macro ends at an empty line.
    fn skip_macro(&mut self) {
        let rest = &self.text[self.at..];
        let ends = [&b"\n\n"[..], b"\n\r\n"].map(|end| memchr::memmem::find(rest, end).map(|at| at + end.len()));
        self.at += ends.into_iter().flatten().min().unwrap_or(rest.len());
    }

    fn skip_blanks(&mut self) {
        loop {
            let (before, rest) = self.text.split_at(self.at);
            let mut back = before.iter().rev();
            let mut begins_line =
                || back.find(|octet| !matches!(octet, b' ' | b'\t')).is_none_or(|&octet| octet == b'\n');
            match rest.first() {
                Some(octet) if octet.is_ascii_whitespace() => self.at += 1,
                Some(b'#') if begins_line() => self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
                _ => return,
            }
        }
    }
}

/// Gives the octets of the word at the beginning of `text` one by one, unquoted; how long it is, quotes and all.
/// A quote that is never closed ends with the file, as BSD has it.
fn scan(text: &[u8], mut give: impl FnMut(u8)) -> usize {
    let mut quote = None;
    let mut octets = text.iter().copied().enumerate();
    while let Some((at, octet)) = octets.next() {
        match (octet, quote) {
            (b'\\', None | Some(b'"')) => {
                if let Some((_, taken)) = octets.next() {
                    give(taken);
                }
            }
            (_, Some(end)) if octet == end => quote = None,
            (b'"' | b'\'', None) => quote = Some(octet),
            (_, None) if octet.is_ascii_whitespace() => return at,
            _ => give(octet),
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str, host: &str, user: &str) -> Option<String> {
        let found = find(text.as_bytes(), &Identity { host, user, first: host }).unwrap();
        found.map(|word| String::from_utf8(word.to_vec()).unwrap())
    }

    #[test]
    fn the_entry_for_host_and_user_is_found() {
        let text = "machine imap.example.com login alice password wrong\n\
                    machine smtp.example.com\n\tlogin bob\n\tpassword bobs\n\
                    machine SMTP.example.COM login alice account x password alices\n\
                    machine smtp.example.com login alice password second\n\
                    default login alice password fallback\n";
        for (host, user, expected) in [
            ("smtp.example.com", "alice", Some("alices")),
            ("smtp.example.com", "bob", Some("bobs")),
            ("smtp.example.com", "carol", None),
            ("smtp.example.com", "Alice", None),
            ("other.example.com", "alice", Some("fallback")),
            ("other.example.com", "bob", None),
        ] {
            assert_eq!(ask(text, host, user).as_deref(), expected, "{user} at {host}");
        }
    }

    #[test]
    fn an_entry_for_the_user_comes_before_one_for_anybody_and_a_machine_before_the_default() {
        let text = "default login alice password d machine h password any machine h login alice password own";
        assert_eq!(ask(text, "h", "alice").as_deref(), Some("own"));
        assert_eq!(ask(text, "h", "bob").as_deref(), Some("any"));
        assert_eq!(ask("default password d machine h login bob password b", "h", "alice").as_deref(), Some("d"));
        assert_eq!(ask("machine h login alice machine h login alice password p", "h", "alice").as_deref(), Some("p"));
    }

    #[test]
    fn words_can_be_quoted() {
        for (word, expected) in [
            ("plain", "plain"),
            (r#""two words""#, "two words"),
            ("'two words'", "two words"),
            (r"two\ words", "two words"),
            (r#""a \"quote\" \\""#, r#"a "quote" \"#),
            (r"'back\slash'", r"back\slash"),
            (r#"p"a s"s"#, "pa ss"),
            ("has#hash", "has#hash"),
            ("\"#first\"", "#first"),
            ("#same-line", "#same-line"),
            ("machine", "machine"),
            ("\"\"", ""),
            ("\"never closed", "never closed"),
            ("pässwörd", "pässwörd"),
        ] {
            let text = format!("machine h login alice password {word}");
            assert_eq!(ask(&text, "h", "alice").as_deref(), Some(expected), "{word}");
        }
    }

    #[test]
    fn macros_comments_accounts_and_ports_are_skipped() {
        let text = "# machine h login alice password comment\r\n\
                    machine ftp macdef init\r\nmachine h login alice password macro\r\n\r\n\
                    machine h port 587 account a login alice\n  # another\n password right\n\
                    macdef last\nmachine h";
        assert_eq!(ask(text, "h", "alice").as_deref(), Some("right"));
        assert_eq!(ask("", "h", "alice"), None);
        assert_eq!(ask("login alice password homeless", "h", "alice"), None);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let text = "machine *.example.com login alice password p";
        for (host, is_met) in [
            ("smtp.example.com", true),
            ("SMTP.Example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("a.smtp.example.com", false),
            ("smtp.example.org", false),
        ] {
            assert_eq!(ask(text, host, "alice").is_some(), is_met, "{host}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named_by_its_line_and_not_shown() {
        for (text, line) in [
            ("machine h login alice\npassword two words", 2),
            ("machine h login alice password \"two\nlines\"\nwords", 3),
            ("machine h login alice\n\npassword", 3),
            ("machine", 1),
        ] {
            let flaw = find(text.as_bytes(), &Identity { host: "h", user: "alice", first: "h" }).unwrap_err();
            assert_eq!(flaw.line, line, "{text}");
            assert!(!flaw.why.contains("words"), "{}", flaw.why);
        }
    }

    #[test]
    fn a_netrc_stands_in_the_home_and_must_be_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".netrc");
        let whose = Identity { host: "h", user: "alice", first: "h" };
        let uid = nix::unistd::getuid().as_raw();
        let limit = std::time::Duration::ZERO;
        let home = Some(dir.path().to_owned());
        let post = |_: &crate::secret::Post<'_>| Err("is not asked".to_owned());
        let mut env = SecretEnv { credentials_directory: None, home, uid, limit, state: None, post };
        std::fs::write(&path, "machine h login alice password p\n").unwrap();
        for (mode, is_private) in [(0o600, true), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = password(None, &whose, &env);
            assert_eq!(found.is_ok_and(|secret| secret.dangerous_expose() == b"p"), is_private);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        env.home = None;
        assert_eq!(password(None, &whose, &env).unwrap_err(), NoSecret::NoHome);
        password(Some(&path), &whose, &env).unwrap();
        let stranger = Identity { host: "h", user: "bob", first: "h" };
        let error = password(Some(&path), &stranger, &env).unwrap_err();
        assert_eq!(error, NoSecret::NoEntry(path, "h".to_owned(), "bob".to_owned()));
    }
}
