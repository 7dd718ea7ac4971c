//! Which files are read, in which order, and which are not because of whose they are or who can read them.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// A home with some files in it, all of mode 0600.
struct Home(tempfile::TempDir);

impl Home {
    fn with(files: &[(&str, &str)]) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = home.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            home.chmod(name, 0o600);
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn chmod(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            argument: None,
            environment: None,
            config_home: Some(self.path(".config")),
            home: Some(self.0.path().to_owned()),
            uid: uid(),
            etc: self.path("etc"),
            around: LazyCell::new(Box::new(|| Surroundings {
                home: Some(self.0.path().to_owned()),
                ..Surroundings::default()
            })),
            arguments: Vec::new(),
            trusts_arguments: false,
            own_only: false,
        }
    }

    fn load(&self) -> Result<Option<Settings>, Broken> {
        load(&self.sources())
    }

    fn host(&self) -> Option<String> {
        let settings = self.load().unwrap()?;
        match &settings.accounts[0].hosts[0] {
            crate::config::Host::Tcp { name, .. } => Some(name.clone()),
            crate::config::Host::Unix(_) | crate::config::Host::Srv(_) | crate::config::Host::Mx(_) => None,
        }
    }
}

const SECRET: &str = "[account.a]\nhost = \"toml\"\nuser = \"u\"\npassword = \"secret\"\n";
const COMMAND: &str = "[account.a]\nhost = \"toml\"\nuser = \"u\"\npassword = { command = \"x\" }\n";
const PLAIN: &str = "[account.a]\nhost = \"toml\"\n";
const MSMTPRC: &str = "defaults\npassword secret\naccount default\nhost x\n";
const MAILRC: &str = "set mta=smtp://u:p@mailrc smtp-use-starttls\n";

#[test]
fn the_format_follows_the_name() {
    for (path, format) in [
        ("/x/config.toml", Format::Toml),
        ("/x/.mailrc.toml", Format::Toml),
        ("/x/anything", Format::Toml),
        ("/x/.msmtprc", Format::Msmtprc),
        ("/etc/msmtprc", Format::Msmtprc),
        ("/x/msmtprc.old", Format::Msmtprc),
        ("/x/msmtp/config", Format::Msmtprc),
        ("/x/other/config", Format::Toml),
        ("/x/.mailrc", Format::Mailrc),
        ("/etc/mail.rc", Format::Mailrc),
        ("/etc/s-nail.rc", Format::Mailrc),
    ] {
        assert_eq!(Format::of(Path::new(path), b""), format, "{path}");
    }
}

#[test]
fn a_file_whose_name_says_nothing_is_what_it_begins_as() {
    for (text, format) in [
        ("", Format::Toml),
        ("# host x\n\n \t\n  host x\n", Format::Msmtprc),
        ("defaults\r\n", Format::Msmtprc),
        ("account default: a\n", Format::Msmtprc),
        ("user a=b\n", Format::Msmtprc),
        ("from = \"a@b\"\n", Format::Toml),
        ("user= \"a\"\n", Format::Toml),
        ("nonsense x\n", Format::Toml),
        ("[account.a]\nhost = \"x\"\n", Format::Toml),
    ] {
        assert_eq!(Format::of(Path::new("/x/mail.conf"), text.as_bytes()), format, "{text}");
        assert_eq!(Format::of(Path::new("/x/mail.toml"), text.as_bytes()), Format::Toml, "{text}");
    }
}

#[test]
fn the_first_file_that_exists_is_the_configuration() {
    let files = [
        (".config/pillarbox/config.toml", PLAIN, "toml"),
        (".msmtprc", "host msmtprc\n", "msmtprc"),
        (".config/msmtp/config", "host xdg\n", "xdg"),
        (".mailrc", MAILRC, "mailrc"),
        ("etc/pillarbox/config.toml", "[account.a]\nhost = \"etc\"\n", "etc"),
        ("etc/msmtprc", "host etc-msmtprc\n", "etc-msmtprc"),
    ];
    let home = Home::with(&files.map(|(name, text, _)| (name, text)));
    for (name, _, host) in files {
        assert_eq!(home.host().as_deref(), Some(host));
        std::fs::remove_file(home.path(name)).unwrap();
    }
    assert_eq!(home.load(), Ok(None));
}

#[test]
fn to_a_users_msmtprc_the_systems_accounts_are_added() {
    let home = Home::with(&[
        (".msmtprc", "account a\nhost mine\nfrom a@x\naccount default : a\n"),
        ("etc/msmtprc", "account a\nhost theirs\nlogfile /x/log\naccount b\nhost other\nlogfile /x/log\n"),
    ]);
    let told = |settings: Settings| {
        let host = |account: &Account| match &account.hosts[0] {
            crate::config::Host::Tcp { name, .. } => format!("{}={name}", account.name),
            crate::config::Host::Srv(domain) => domain.clone(),
            crate::config::Host::Mx(port) => format!("mx:{port}"),
            crate::config::Host::Unix(path) => path.display().to_string(),
        };
        (settings.accounts.iter().map(host).collect::<Vec<_>>().join(" "), settings.log.len())
    };
    assert_eq!(told(home.load().unwrap().unwrap()), ("a=mine default=mine b=other".to_owned(), 1));
    let by_argument = Sources { argument: Some(home.path(".msmtprc")), ..home.sources() };
    assert_eq!(told(load(&by_argument).unwrap().unwrap()).0, "a=mine default=mine b=other");
    let by_environment = Sources { environment: Some(home.path(".msmtprc")), ..home.sources() };
    assert_eq!(told(load(&by_environment).unwrap().unwrap()).0, "a=mine default=mine");
    // What is wrong with the system's file is the administrator's business, until it is needed.
    std::fs::write(home.path("etc/msmtprc"), "hots x\n").unwrap();
    assert_eq!(told(home.load().unwrap().unwrap()).0, "a=mine default=mine");
    std::fs::write(home.path(".msmtprc"), "account a\nhost mine\n").unwrap();
    assert!(home.load().unwrap_err().to_string().contains("etc/msmtprc:1:1: there is no keyword"));
}

#[test]
fn the_environment_stands_in_for_a_default_account() {
    let home = Home::with(&[(".msmtprc", "account a\nhost mine\n")]);
    let mut sources = home.sources();
    (sources.around.email, sources.around.smtp_server) = (Some("me@x.org".to_owned()), Some("relay.x.org".to_owned()));
    let settings = load(&sources).unwrap().unwrap();
    let default = &settings.accounts[1];
    assert_eq!((default.name.as_str(), default.from.as_deref()), ("default", Some("me@x.org")));
    std::fs::remove_file(home.path(".msmtprc")).unwrap();
    assert_eq!(load(&sources).unwrap().unwrap().accounts[0], *default);
    sources.around.email = None;
    assert_eq!(load(&sources), Ok(None));
}

#[test]
fn an_account_of_the_command_line_gets_no_secret() {
    let home = Home::with(&[(".msmtprc", "host mine\nauth on\nuser u\npassword p\n"), (".netrc", "")]);
    let load = |words: &[(&str, &str)]| {
        let arguments = words.iter().map(|&(keyword, text)| (keyword.to_owned(), text.to_owned())).collect();
        load(&Sources { arguments, ..home.sources() })
    };
    let settings = load(&[("host", "other"), ("port", "2525")]).unwrap().unwrap();
    assert_eq!((settings.accounts.len(), settings.accounts[0].password.is_none()), (1, true));
    let error = load(&[("host", "evil"), ("tls", "on"), ("auth", "on"), ("user", "u")]).unwrap_err().to_string();
    assert!(error.contains("would read another file") && error.contains("$PILLARBOX_CONFIG"), "{error}");
    // Over a file's account it goes, unless that would show the password.
    let settings = load(&[("tls", "on"), ("tls_starttls", "off")]).unwrap().unwrap();
    assert_eq!(settings.accounts[0].hosts, [crate::config::Host::Tcp { name: "mine".to_owned(), port: 465 }]);
    assert!(load(&[("tls", "off")]).unwrap_err().to_string().contains("in clear"));
}

#[test]
fn a_mailrc_without_a_relay_is_no_configuration() {
    let home = Home::with(&[(".mailrc", "set folder=~/Mail\nset mta=/usr/sbin/sendmail\nset quote=\"\n")]);
    assert_eq!(home.load(), Ok(None));
    let named = Sources { environment: Some(home.path(".mailrc")), ..home.sources() };
    assert!(load(&named).unwrap_err().to_string().contains("names no relay"));
}

#[test]
fn a_file_with_a_password_must_be_private() {
    for (name, text) in [
        (".config/pillarbox/config.toml", SECRET),
        (".mailrc", MAILRC),
        (".msmtprc", MSMTPRC),
        ("etc/msmtprc", MSMTPRC),
    ] {
        let home = Home::with(&[(name, text)]);
        for mode in [0o600, 0o400] {
            home.chmod(name, mode);
            assert!(home.load().is_ok(), "{name} {mode:o}");
        }
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
            home.chmod(name, mode);
            let error = home.load().unwrap_err().to_string();
            assert!(error.ends_with(&format!("mend it with: chmod 600 {}", home.path(name).display())), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

#[test]
fn a_file_without_a_password_may_be_open() {
    let home = Home::with(&[(".config/pillarbox/config.toml", COMMAND)]);
    home.chmod(".config/pillarbox/config.toml", 0o644);
    assert!(home.load().is_ok());
}

#[test]
fn a_password_in_a_strangers_file_is_refused() {
    let opened = |owner, mode| Opened { octets: Zeroizing::new(Vec::new()), owner, group: 0, mode, identity: (0, 0) };
    let path = Path::new("/etc/it's mine");
    for (owner, mode, mend) in [
        (1000, 0o600, None),
        (0, 0o600, None),
        (0, 0o640, Some("chmod 600 '/etc/it'\\''s mine'")),
        (1001, 0o600, Some("chown 1000 '/etc/it'\\''s mine'")),
        (1001, 0o644, Some("chown 1000 '/etc/it'\\''s mine' && chmod 600 '/etc/it'\\''s mine'")),
    ] {
        let told = privacy(path, &opened(owner, mode), 1000);
        assert_eq!(told.as_deref().and_then(|told| told.split("mend it with: ").nth(1)), mend, "{owner} {mode:o}");
    }
}

/// `chmod 600` would lock out the service, which reads its settings as one of the file's group.
#[test]
fn a_password_that_a_group_can_read_is_to_be_moved_and_the_file_is_not() {
    let of = |owner, group, mode| Opened { octets: Zeroizing::new(Vec::new()), owner, group, mode, identity: (0, 0) };
    for (name, mend) in [
        ("config.toml", "with password = { file = \"...\" } or { credential = \"...\" } in its place"),
        ("msmtprc", "with passwordeval or a netrc in its place"),
        ("mailrc", "with a netrc in its place"),
    ] {
        let path = Path::new("/etc").join(name);
        for (mode, uid) in [(0o640, 998), (0o640, 0), (0o660, 998), (0o644, 998)] {
            let told = privacy(&path, &of(0, 998, mode), uid).unwrap();
            assert!(
                told.contains(&format!("is open to its group (mode {mode:04o})")) && told.ends_with(mend),
                "{told}"
            );
        }
    }
    let path = Path::new("/etc/config.toml");
    for (owner, group, mode) in [(0, 0, 0o640), (0, 998, 0o604), (998, 998, 0o640)] {
        let told = privacy(path, &of(owner, group, mode), 998).unwrap();
        assert!(told.ends_with("mend it with: chmod 600 /etc/config.toml"), "{told}");
    }
    assert_eq!(privacy(path, &of(0, 998, 0o600), 998), None);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let home = Home::with(&[(".config/pillarbox/config.toml", PLAIN)]);
    for sources in [
        Sources { argument: Some(home.path("none")), ..home.sources() },
        Sources { environment: Some(home.path("none")), ..home.sources() },
    ] {
        let error = load(&sources).unwrap_err().to_string();
        assert!(error.ends_with("none cannot be read: No such file or directory"), "{error}");
    }
}

#[test]
fn an_unreadable_file_is_told_and_not_passed_over() {
    let home = Home::with(&[]);
    std::fs::create_dir_all(home.path(".config/pillarbox/config.toml")).unwrap();
    let error = home.load().unwrap_err().to_string();
    assert!(error.ends_with("config.toml cannot be read: it is no regular file"), "{error}");
    let denied = io::Error::from(ErrorKind::PermissionDenied);
    assert!(!is_absent(&home.path(".config/pillarbox/config.toml"), &denied));
    assert!(!is_absent(Path::new("/etc/closed/config.toml"), &denied));
    assert!(is_absent(&home.path("closed/config.toml"), &denied));
}

#[test]
fn neither_a_fifo_nor_a_device_is_read_nor_waited_for() {
    let home = Home::with(&[]);
    let fifo = home.path(".fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for path in [fifo, PathBuf::from("/dev/zero"), PathBuf::from("/dev/tty"), home.path(".")] {
        let sources = Sources { argument: Some(path.clone()), ..home.sources() };
        assert!(load(&sources).is_err(), "{}", path.display());
    }
}

#[test]
fn a_configuration_of_a_hostile_size_is_not_read_to_its_end() {
    let home = Home::with(&[("big.toml", &"# x\n".repeat(1 << 18)), ("bigger.toml", &"# x\n".repeat((1 << 18) + 1))]);
    let load = |name| load(&Sources { environment: Some(home.path(name)), ..home.sources() }).unwrap_err().to_string();
    assert!(load("big.toml").contains("there is no account"));
    assert!(load("bigger.toml").contains("larger than 1 MiB"));
}

#[test]
fn an_argument_does_not_choose_commands_nor_secrets() {
    let file = COMMAND.replace("{ command = \"x\" }", "{ file = \"/x\" }");
    let netrc = COMMAND.replace("{ command = \"x\" }", "{ netrc = true }");
    let oauth = "{ oauth = { provider = \"google\", client_id = \"c\", refresh_token = \"r\" } }";
    let oauth = COMMAND.replace("{ command = \"x\" }", oauth);
    let msmtprc = "host x\ntls on\nauth on\nuser u\n";
    let eval = format!("{msmtprc}eval gpg -d x\n");
    let passwordeval = format!("{msmtprc}passwordeval \"pass x\"\n");
    for text in [COMMAND, &file, &netrc, &oauth, msmtprc, &eval, &passwordeval] {
        let ending = if text.starts_with("host") { "msmtprc" } else { "toml" };
        let named = |name: &str| name.replace("toml", ending);
        let files = ["upload/c.toml", ".dot/c.toml", ".c.toml"].map(named);
        let home = Home::with(&files.each_ref().map(|name| (name.as_str(), text)));
        std::os::unix::fs::symlink(home.path(&named("upload/c.toml")), home.path(&named(".link.toml"))).unwrap();
        let load = |name: &str| load(&Sources { argument: Some(home.path(&named(name))), ..home.sources() });
        for name in ["upload/c.toml", ".dot/../upload/c.toml", ".link.toml"] {
            let error = load(name).unwrap_err().to_string();
            assert!(error.contains("$PILLARBOX_CONFIG"), "{error}");
        }
        assert!(load(".dot/c.toml").is_ok());
        assert!(load(".c.toml").is_ok());
        let by_environment = Sources { environment: Some(home.path(&named("upload/c.toml"))), ..home.sources() };
        assert!(super::load(&by_environment).is_ok());
        home.chmod(&named(".c.toml"), 0o602);
        assert!(load(".c.toml").is_err());
    }
}

#[test]
fn an_argument_does_not_choose_files_to_write() {
    let text = format!("log = [\"/x/log\", \"stderr\"]\n{SECRET}[queue]\ndir = \"/x/queue\"\n");
    let home = Home::with(&[("upload/c.toml", &text), (".c.toml", &text)]);
    let load = |name: &str| load(&Sources { argument: Some(home.path(name)), ..home.sources() }).unwrap().unwrap();
    let settings = load("upload/c.toml");
    assert_eq!((settings.log, settings.queue.dir), (vec![LogTo::Stderr], None));
    assert_eq!(load(".c.toml").queue.dir, Some("/x/queue".into()));
}

#[test]
fn a_mailrc_that_an_argument_names_sources_nothing() {
    let home =
        Home::with(&[("upload/mailrc", "source ~/.secret\n"), (".secret", MAILRC), (".mailrc", "source ~/.secret\n")]);
    let argument = |name: &str| load(&Sources { argument: Some(home.path(name)), ..home.sources() });
    assert!(argument("upload/mailrc").unwrap_err().to_string().contains("$PILLARBOX_CONFIG"));
    assert!(argument(".mailrc").is_ok());
    home.chmod(".secret", 0o644);
    let error = argument(".mailrc").unwrap_err().to_string();
    assert!(error.contains(".secret has a password in it"), "{error}");
}

#[test]
fn what_is_not_utf8_is_told_with_its_place() {
    let home = Home::with(&[]);
    std::fs::write(home.path("c.toml"), b"# \xc3\xa9\n# \xff\n").unwrap();
    let sources = Sources { environment: Some(home.path("c.toml")), ..home.sources() };
    assert!(load(&sources).unwrap_err().to_string().contains("c.toml:2:3: this octet is not UTF-8"));
}
