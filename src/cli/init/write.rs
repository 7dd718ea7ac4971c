//! The configuration as it is written for a person: short, with a word on what he may want to change.

use super::find::Candidate;
use crate::config::Tls;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What is known when it is written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The account's name.
    pub account: String,
    /// Where it sends.
    pub server: Candidate,
    /// Whom to trust there, besides nobody else.
    pub ca_file: Option<PathBuf>,
    /// Who logs in, and where the password comes from, in TOML; `None`: nobody does.
    pub login: Option<(String, String)>,
    /// The address of whoever sends.
    pub from: String,
    /// His name; may be empty.
    pub name: String,
    /// Local names whose mail he gets.
    pub local: Vec<String>,
}

impl Draft {
    /// The file.
    pub fn text(&self) -> String {
        let tls = match self.server.tls {
            Tls::Implicit => "implicit",
            // The other is nobody's who logs in.
            Tls::StartTls | Tls::Opportunistic => "starttls",
            Tls::Off => "none",
        };
        let mut rows =
            vec![("host", quoted(&self.server.host)), ("port", self.server.port.to_string()), ("tls", quoted(tls))];
        rows.extend(self.ca_file.as_ref().map(|path| ("ca_file", quoted(&path.to_string_lossy()))));
        match &self.login {
            Some((user, source)) => rows.extend([("user", quoted(user)), ("password", source.clone())]),
            None => rows.push(("auth", quoted("off"))),
        }
        rows.push(("from", quoted(&self.from)));
        rows.extend((!self.name.is_empty()).then(|| ("from_name", quoted(&self.name))));

        let mut text = format!(
            "# Made by pillarbox init. All that can stand here: man pillarbox.toml\n\ndefault = {}\n\n[account.{}]\n",
            quoted(&self.account),
            key(&self.account)
        );
        // Writing to a string cannot fail.
        for (key, value) in rows {
            let _ = writeln!(text, "{key} = {value}");
        }
        text.push_str("\n# Mail to people of this machine, as cron sends it.\n[aliases]\n");
        for name in &self.local {
            let _ = writeln!(text, "{} = {}", key(name), quoted(&self.from));
        }
        text
    }
}

/// A key of TOML, bare where it can be.
fn key(text: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(is_bare) { text.to_owned() } else { quoted(text) }
}

/// A basic string of TOML.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, Host, PasswordSource, load};
    use std::path::Path;

    fn draft() -> Draft {
        Draft {
            account: "ma\"il.x".to_owned(),
            server: Candidate { host: "smtp.example.org".to_owned(), port: 465, tls: Tls::Implicit },
            ca_file: Some("/x/c\\a.pem".into()),
            login: Some(("alice".to_owned(), "{ file = \"/p\" }".to_owned())),
            from: "alice@example.org".to_owned(),
            name: "Alice \"\u{1}\\ T\u{e4}ster".to_owned(),
            local: vec!["root".to_owned(), "alice".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let read = |draft: &Draft| load::of_text(Path::new("c.toml"), &draft.text(), None);
        let draft = Draft { name: "Alice \"\\ T\u{e4}ster".to_owned(), ..draft() };
        let settings = read(&draft).unwrap();
        let account = &settings.accounts[0];
        assert_eq!((settings.default.as_deref(), account.name.as_str()), (Some("ma\"il.x"), "ma\"il.x"));
        assert_eq!(account.hosts, [Host::Tcp { name: "smtp.example.org".to_owned(), port: 465 }]);
        assert_eq!((account.tls, account.ca_file.as_deref()), (Tls::Implicit, Some(Path::new("/x/c\\a.pem"))));
        assert_eq!(account.password, Some(PasswordSource::File("/p".into())));
        assert_eq!(account.from_name.as_deref(), Some("Alice \"\\ T\u{e4}ster"));
        assert_eq!(settings.names.aliases.len(), 2);
        // Nothing breaks out of its string, and what cannot be a name is told by the reader.
        assert!(read(&self::draft()).unwrap_err().to_string().contains("from_name: has a control character"));
        let open = Draft { login: None, ca_file: None, name: String::new(), ..draft };
        let account = read(&open).unwrap().accounts.remove(0);
        assert_eq!((account.auth, account.user, account.from_name), (Auth::Off, None, None));
    }
}
