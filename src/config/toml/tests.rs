//! Every key and its manual, and every mistake with its place, what is allowed and the nearest spelling.

use super::account::ACCOUNT;
use super::password::{OAUTH, PASSWORD};
use super::*;
use crate::config::{Account, Auth, Host, Keepsake, Names, PasswordSource, Proxy, Queue, Serve, Tls, TlsVersion};
use proptest::prelude::*;
use std::time::Duration;
use zeroize::Zeroizing;

fn read_text(text: &str) -> Result<Settings, Vec<String>> {
    let problems = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect();
    read(Path::new("c.toml"), text, Some(Path::new("/home/a"))).map_err(problems)
}

/// Every key that is read, as the manual spells it: `default`, `account.NAME.host`, `queue.dir`, `password.file`,
/// `password.oauth.provider`.
fn keys() -> Vec<String> {
    fn below<T>(table: &str, rows: &[Row<T>]) -> Vec<String> {
        rows.iter().map(|row| format!("{table}{}", row.key)).collect()
    }
    let tables = ["aliases", "masquerade"].map(|table| format!("{table}.NAME")).to_vec();
    let secrets = [below("password.", PASSWORD), below("password.oauth.", OAUTH)].concat();
    let rows =
        [below("", ROOT), below("account.NAME.", ACCOUNT), secrets, below("queue.", QUEUE), below("serve.", SERVE)];
    [rows.concat(), tables].concat()
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.to_owned(), port }
}

#[test]
fn five_lines_are_enough() {
    let text = "[account.work]\nhost = \"smtp.example.com\"\nuser = \"alice@example.com\"\n\
                password = { command = \"pass show mail/work\" }\nfrom = \"alice@example.com\"\n";
    let settings = read_text(text).unwrap();
    let expected = Account {
        hosts: vec![tcp("smtp.example.com", 587)],
        user: Some("alice@example.com".to_owned()),
        password: Some(PasswordSource::Command(vec!["pass show mail/work".to_owned()])),
        from: Some("alice@example.com".to_owned()),
        ..Account::new("work")
    };
    assert_eq!(settings, Settings { file: "c.toml".into(), accounts: vec![expected], ..Settings::default() });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a file with every key, and all that it says")]
fn every_key_is_read() {
    let text = r#"
default = "b"
domain = "example.com"
alias_file = "/etc/aliases"
rewrite_headers = true
log = ["journal", "syslog", "stderr", "~/log", "/var/log/x"]
[account.b]
host = ["one.example", "two.example:2525", "[2001:db8::1]:26", "/run/s"]
port = 2465
tls = "implicit"
auth = "login"
user = "u"
password = "lit'eral"
from = "Alice <a@example.com>"
from_name = "Alice"
senders = "a@example.com"
recipients = ["*@x.org", "b?@y.org"]
fallback = "a"
ca_file = "~/ca.pem"
pin = "sha256:ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB"
cert_file = "~/cert.pem"
key_file = "~/key.pem"
crl_file = "~/crl.pem"
tls_min = "1.3"
force_from = true
tls_host = "cert.example"
source_ip = "2001:db8::7"
proxy = "socks5://me:p%40ss@proxy.example:1081"
protocol = "lmtp"
helo = "box.example"
timeout = "2m"
[account.a]
host = "z"
tls = "none"
[queue]
dir = "~/q"
lifetime = "2d"
runner = "off"
deadline = "10s"
delay_notice = "4h"
keep_failed = "1d"
connections = 5
[serve]
socket = "/run/x.sock"
listen = ["127.0.0.1:25", "[::1]:2525"]
trusted_users = ["root", "www-data"]
max_connections = 10
max_connections_per_user = 3
letters_per_hour = 20
max_recipients = 30
max_size = "1M"
disk_reserve = "2G"
command_timeout = "10s"
letter_timeout = "1m"
[aliases]
root = ["a@x.org", "alice"]
[masquerade]
"*@box" = "a@x.org"
"#;
    let settings = read_text(text).unwrap();
    assert_eq!(settings.default.as_deref(), Some("b"));
    assert_eq!(settings.domain.as_deref(), Some("example.com"));
    assert_eq!(
        settings.log,
        [
            LogTo::Journal,
            LogTo::Syslog,
            LogTo::Stderr,
            LogTo::File("/home/a/log".into()),
            LogTo::File("/var/log/x".into())
        ]
    );
    let queue = Queue {
        enabled: true,
        dir: Some("/home/a/q".into()),
        lifetime: Duration::from_hours(48),
        runner: false,
        deadline: Duration::from_secs(10),
        delay_notice: Some(Duration::from_hours(4)),
        keep_failed: Duration::from_hours(24),
        connections: 5,
    };
    assert_eq!(settings.queue, queue);
    let serve = Serve {
        socket: "/run/x.sock".into(),
        listen: vec!["127.0.0.1:25".parse().unwrap(), "[::1]:2525".parse().unwrap()],
        trusted_users: vec!["root".to_owned(), "www-data".to_owned()],
        allow_users: None,
        max_connections: 10,
        max_connections_per_user: 3,
        letters_per_hour: 20,
        max_recipients: 30,
        max_size: 1 << 20,
        disk_reserve: 2 << 30,
        command_timeout: Duration::from_secs(10),
        letter_timeout: Duration::from_mins(1),
    };
    assert_eq!(settings.serve, serve);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let names = Names {
        aliases: vec![pair("root", "a@x.org, alice")],
        alias_file: Some("/etc/aliases".into()),
        rewrite_headers: true,
        masquerade: vec![pair("*@box", "a@x.org")],
    };
    assert_eq!(settings.names, names);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let b = Account {
        hosts: vec![
            tcp("one.example", 2465),
            tcp("two.example", 2525),
            tcp("2001:db8::1", 26),
            Host::Unix("/run/s".into()),
        ],
        tls: Tls::Implicit,
        auth: Auth::Login,
        user: Some("u".to_owned()),
        password: Some(PasswordSource::Literal(Zeroizing::new("lit'eral".to_owned()))),
        from: Some("Alice <a@example.com>".to_owned()),
        from_name: Some("Alice".to_owned()),
        senders: words(&["a@example.com"]),
        recipients: words(&["*@x.org", "b?@y.org"]),
        fallback: Some("a".to_owned()),
        ca_file: Some("/home/a/ca.pem".into()),
        pins: vec![[0xab; 32]],
        tls_host: Some("cert.example".to_owned()),
        helo: Some("box.example".to_owned()),
        timeout: Duration::from_mins(2),
        force_from: true,
        tls_min: TlsVersion::Tls13,
        cert_file: Some("/home/a/cert.pem".into()),
        key_file: Some("/home/a/key.pem".into()),
        crl_file: Some("/home/a/crl.pem".into()),
        source_ip: Some("2001:db8::7".parse().unwrap()),
        proxy: Some(Proxy {
            host: "proxy.example".to_owned(),
            port: 1081,
            login: Some(("me".to_owned(), Zeroizing::new("p@ss".to_owned()))),
        }),
        lmtp: true,
        ..Account::new("b")
    };
    let a = Account { hosts: vec![tcp("z", 25)], tls: Tls::Off, ..Account::new("a") };
    assert_eq!(settings.accounts, [b, a]);
    for key in keys() {
        let name = key.rsplit('.').next().unwrap();
        assert!(
            text.contains(&format!("\n{name} ="))
                || key.starts_with("password.")
                || ["NAME", "allow_users"].contains(&name),
            "{key} is not tested here"
        );
    }
}

#[test]
fn passwords_have_many_sources() {
    use PasswordSource::{Command, Credential, File, Keyring, Netrc};
    for (written, source) in [
        ("{ command = [\"gpg\", \"-d\", \"x y\"] }", Command(vec!["gpg".into(), "-d".into(), "x y".into()])),
        ("{ command = \"a | b\" }", Command(vec!["a | b".into()])),
        ("{ file = \"~/pw\" }", File("/home/a/pw".into())),
        ("{ credential = \"relay\" }", Credential("relay".into())),
        ("{ keyring = true }", Keyring(Keepsake::Password)),
        ("{ netrc = true }", Netrc(None)),
        ("{ netrc = \"~/.n\" }", Netrc(Some("/home/a/.n".into()))),
    ] {
        let settings = read_text(&format!("[account.a]\nhost = \"h\"\nuser = \"u\"\npassword = {written}\n")).unwrap();
        assert_eq!(settings.accounts[0].password, Some(source), "{written}");
    }
    let table = read_text("[account.a]\nhost = \"h\"\nuser = \"u\"\n[account.a.password]\nfile = \"/x\"\n").unwrap();
    assert_eq!(table.accounts[0].password, Some(File("/x".into())));
}

#[test]
fn tokens_are_exchanged_where_the_settings_say() {
    let text = r#"
[account.g]
host = "h"
user = "u"
password = {oauth = {provider = "google", client_id = "c", client_secret = "s", refresh_token = {credential = "r"}}}
[account.m]
host = "h"
user = "u"
auth = "xoauth2"
[account.m.password.oauth]
provider = "microsoft"
tenant = "example.com"
client_id = "c"
refresh_token = { keyring = true }
[account.o]
host = "h"
user = "u"
[account.o.password.oauth]
token_url = "https://sso.example.com:8443/token"
auth_url = "https://sso.example.com:8443/auth"
device_url = "https://sso.example.com:8443/device"
scope = "smtp"
client_id = "c"
refresh_token = { file = "~/r" }
ca_file = "~/ca.pem"
pin = "sha256:ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB"
"#;
    let settings = read_text(text).unwrap();
    let told = |account: &Account| {
        let Some(PasswordSource::OAuth(oauth)) = &account.password else { panic!("{account:?}") };
        (account.auth, oauth.token_url.to_string(), (**oauth).clone())
    };
    let [g, m, o] = [0, 1, 2].map(|i| told(&settings.accounts[i]));
    assert_eq!((g.0, g.1.as_str()), (Auth::Bearer, "https://oauth2.googleapis.com/token"));
    assert_eq!(g.2.client_secret, Some(PasswordSource::Literal(Zeroizing::new("s".to_owned()))));
    assert_eq!((g.2.refresh_token, g.2.scope), (PasswordSource::Credential("r".to_owned()), None));
    let url = "https://login.microsoftonline.com/example.com/oauth2/v2.0/token";
    assert_eq!((m.0, m.1.as_str()), (Auth::XOAuth2, url));
    assert_eq!(m.2.refresh_token, PasswordSource::Keyring(Keepsake::RefreshToken));
    assert!(m.2.consent.device_url.is_some() && m.2.consent.by_name && g.2.consent.device_url.is_none());
    assert!(m.2.scope.is_some_and(|scope| scope.starts_with("https://outlook.office.com/SMTP.Send")));
    assert_eq!((o.0, o.1.as_str()), (Auth::Bearer, "https://sso.example.com:8443/token"));
    assert_eq!((o.2.scope.as_deref(), o.2.refresh_token), (Some("smtp"), PasswordSource::File("/home/a/r".into())));
    assert_eq!(o.2.consent.scope.as_deref(), Some("smtp"));
    assert_eq!(o.2.consent.device_url.unwrap().to_string(), "https://sso.example.com:8443/device");
    assert_eq!((o.2.ca_file, o.2.pins), (Some("/home/a/ca.pem".into()), vec![[0xab; 32]]));
    for key in keys().iter().filter_map(|key| key.strip_prefix("password.oauth.")) {
        assert!(text.contains(&format!("{key} =")), "{key} is not tested here");
    }
}

#[test]
fn an_access_token_is_no_password() {
    let oauth = "password = { oauth = { provider = \"google\", client_id = \"c\", refresh_token = \"s3cret\" } }";
    for (auth, fine) in [("auto", true), ("oauthbearer", true), ("xoauth2", true), ("plain", false), ("login", false)] {
        let read = read_text(&format!("[account.a]\nhost = \"h\"\nuser = \"u\"\nauth = \"{auth}\"\n{oauth}\n"));
        assert_eq!(read.is_ok(), fine, "{auth}");
        let told = format!("{read:?}");
        assert!(
            !told.contains("s3cret") && (fine || told.contains("c.toml:4:8: auth: an access token is no")),
            "{told}"
        );
    }
}

#[test]
fn the_queue_can_be_off() {
    for (written, enabled) in [("\"off\"", false), ("false", false), ("\"on\"", true)] {
        let settings = read_text(&format!("queue = {written}\n[account.a]\nhost = \"h\"\n")).unwrap();
        assert_eq!(settings.queue.enabled, enabled, "{written}");
    }
}

#[test]
fn a_mistake_is_told_with_its_place_what_is_allowed_and_the_nearest_spelling() {
    for (line, told) in [
        (
            "hots = \"h\"",
            "c.toml:3:1: there is no key \"hots\" in [account.a] (did you mean \"host\"?); allowed: host, port, ",
        ),
        (
            "tls = \"startls\"",
            "c.toml:3:7: tls: \"startls\" is not known (did you mean \"starttls\"?); allowed: \"starttls\", ",
        ),
        ("port = 0", "c.toml:3:8: port: 0 is out of range; allowed: a number from 1 to 65535"),
        ("port = \"587\"", "c.toml:3:8: port: a string is nothing that can stand here; allowed: a number"),
        ("timeout = 60", "c.toml:3:11: timeout: 60 lacks its unit; allowed: a number and its unit"),
        ("timeout = \"0s\"", "c.toml:3:11: timeout: is too short"),
        ("pin = \"sha256:abcd\"", "c.toml:3:7: pin: has 2 octets; SHA-256 has 32; allowed: \"sha256:\""),
        ("pin = [\"x\", 5]", "c.toml:3:8: pin: is neither hexadecimal nor base64"),
        (
            "senders = [\"a@b\", \"corp.example\"]",
            "c.toml:3:19: senders: \"corp.example\" has no @; for a domain write *@corp.example",
        ),
        ("from = \"a b c\"", "c.toml:3:8: from: \"a b c\" at column"),
        ("ca_file = \"ca.pem\"", "c.toml:3:11: ca_file: \"ca.pem\" is not absolute"),
        ("password = { keyring = \"work\" }", "c.toml:3:24: password: keyring: can only be true; allowed: true"),
        (
            "password = { comand = \"x\" }",
            "c.toml:3:14: password: there is no key \"comand\" in password (did you mean \"command\"?)",
        ),
        (
            "password = { file = 5 }",
            "c.toml:3:21: password: file: an integer is nothing that can stand here; allowed: a path",
        ),
        ("password = { oauth = 5 }", "c.toml:3:22: password: oauth: an integer is nothing that can stand here"),
        (
            "password = { oauth = { provider = \"gogle\" } }",
            "c.toml:3:35: password: oauth: provider: \"gogle\" is not known (did you mean \"google\"?); allowed: \
             \"google\" or",
        ),
        (
            "password = { oauth = { clientid = \"x\" } }",
            "c.toml:3:24: password: oauth: there is no key \"clientid\" in oauth (did you mean \"client_id\"?)",
        ),
        (
            "password = { oauth = { token_url = \"http://a.example/\" } }",
            "c.toml:3:36: password: oauth: token_url: would carry the refresh token in clear; use https; allowed: the \
             https URL",
        ),
        (
            "password = { oauth = { client_id = \"x\" } }",
            "c.toml:3:22: password: oauth: exactly one of provider and token_url is needed",
        ),
        (
            "password = { oauth = { provider = \"google\", tenant = \"x\" } }",
            "c.toml:3:22: password: oauth: google has no tenants",
        ),
        ("password = { oauth = { provider = \"google\" } }", "c.toml:3:22: password: oauth: client_id is missing"),
        (
            "password = { oauth = { provider = \"google\", client_id = \"x\" } }",
            "c.toml:3:22: password: oauth: refresh_token is missing",
        ),
        (
            "password = { oauth = { refresh_token = { netrc = true } } }",
            "c.toml:3:42: password: oauth: refresh_token: there is no key \"netrc\" in password; allowed: command, \
             file, credential",
        ),
        (
            "password = { oauth = { refresh_token = { oauth = {} } } }",
            "c.toml:3:42: password: oauth: refresh_token: there is no key \"oauth\"",
        ),
        ("password = {}", "c.toml:3:12: password: exactly one source can be named"),
        ("password = { file = \"/x\", netrc = true }", "c.toml:3:12: password: exactly one source"),
        ("source_ip = \"eth0\"", "c.toml:3:13: source_ip: \"eth0\" is no IP address; allowed: an address"),
        ("proxy = \"http://x\"", "c.toml:3:9: proxy: is no URL of a SOCKS5 proxy; allowed: \"socks5://host:port\""),
        ("proxy = \"socks5://u@x\"", "c.toml:3:9: proxy: has a user without a password"),
        ("protocol = \"lntp\"", "c.toml:3:12: protocol: \"lntp\" is not known (did you mean \"lmtp\"?)"),
        ("protocol = \"lmtp\"\nport = 25", "c.toml:4:8: port: LMTP is not spoken at port 25"),
        ("user = \"u\"", "c.toml:3:8: user: there is a user but no password"),
        ("password = \"p\"", "c.toml:3:12: password: there is a password but no user"),
        ("auth = \"plain\"", "c.toml:3:8: auth: authentication is demanded, but there is no user"),
        ("fallback = \"a\"", "c.toml:3:12: fallback: \"a\" leads back to \"a\""),
        ("fallback = \"b\"", "c.toml:3:12: fallback: there is no account \"b\"; there is: a"),
        ("[queue]\nlifetime = \"5 weeks\"", "c.toml:4:12: queue"),
        ("[serve]\nlisten = \"0.0.0.0:25\"", "c.toml:4:10: listen: 0.0.0.0 can be reached from elsewhere"),
        ("[serve]\nlisten = \"[::1]:25\"\nallow_users = \"a\"", "c.toml:3:2: serve: listen lets everybody in"),
        ("[serve]\nmax_size = \"50\"", "c.toml:4:12: max_size: \"50\" lacks its unit"),
        ("[serve]\ndisk_reserve = \"5T\"", "c.toml:4:16: disk_reserve: \"5T\" is no size"),
        ("[masquerade]\n\"root@*\" = \"x y\"", "c.toml:4:12: root@*: "),
        ("[accounts.b]", "c.toml:3:2: there is no key \"accounts\" in the file (did you mean \"account\"?)"),
    ] {
        let problems = read_text(&format!("[account.a]\nhost = \"h\"\n{line}\n")).unwrap_err();
        let told = told.replace("c.toml:4:12: queue", "c.toml:4:12: lifetime: \"5 weeks\" is no duration");
        assert!(problems.iter().any(|problem| problem.starts_with(&told)), "{line}: {problems:#?}");
        assert_eq!(problems.len(), 1, "{line}: {problems:#?}");
    }
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let text = "defualt = \"x\"\ndefault = \"wrok\"\n[account.work]\nhost = \"h\"\nport = 99999\ntls = \"ssl\"\n\
                [account.b]\nuser = 5\nfallback = \"c\"\n[account.c]\nhost = 7\nfallback = \"b\"\n[queue]\n\
                runner = \"maybe\"\n";
    let places: Vec<String> = read_text(text).unwrap_err();
    let places: Vec<&str> = places.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = [
        "c.toml:1:1",
        "c.toml:2:11",
        "c.toml:5:8",
        "c.toml:6:7",
        "c.toml:7:10",
        "c.toml:8:8",
        "c.toml:9:12",
        "c.toml:11:8",
        "c.toml:12:12",
        "c.toml:14:10",
    ];
    assert_eq!(places, expected);
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let problems = read_text("[account.a]\nhost = \"h\nport 5\n").unwrap_err();
    assert!(problems[0].starts_with("c.toml:2:"), "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("this is no TOML")), "{problems:?}");
    let twice = read_text("[account.a]\nhost = \"h\"\nhost = \"i\"\n").unwrap_err();
    assert!(twice[0].starts_with("c.toml:3:1: "), "{twice:?}");
}

#[test]
fn a_password_is_never_sent_in_clear_over_the_network() {
    for (host, fine) in [
        ("smtp.example.com", false),
        ("localhost", true),
        ("127.0.0.1:2525", true),
        ("[::1]:25", true),
        ("/run/relay", true),
        ("localhost.example.com", false),
    ] {
        let text = format!(
            "[account.a]\nhost = [\"localhost\", \"{host}\"]\ntls = \"none\"\nuser = \"u\"\npassword = \"p\"\n"
        );
        let read = read_text(&text);
        assert_eq!(read.is_ok(), fine, "{host}: {read:?}");
        assert!(fine || read.unwrap_err()[0].starts_with("c.toml:3:7: tls: the password would go to"));
    }
}

#[test]
fn a_file_of_a_hostile_shape_costs_little() {
    let chain = |i: usize| format!("[account.a{i}]\nhost = \"h\"\nfallback = \"a{}\"\n", i + 1);
    let accounts = (0..2_000).map(chain).collect::<Vec<_>>().concat();
    assert!(read_text(&accounts).unwrap_err().iter().any(|problem| problem.contains("more than 256 accounts")));
    let keys = (0..5_000).map(|i| format!("hots{i} = 1\n")).collect::<Vec<_>>().concat();
    assert!(read_text(&keys).unwrap_err().len() <= 201);
    let aliases = (0..90_000).map(|i| format!("a{i} = 1\n")).collect::<Vec<_>>().concat();
    assert_eq!(read_text(&format!("[account.a]\nhost = \"h\"\n[aliases]\n{aliases}")).unwrap_err().len(), 200);
    assert!(read_text(&"[".repeat(1 << 14)).is_err());
    assert!(read_text(&format!("x = {}", "[".repeat(1 << 14))).is_err());
    assert!(read_text(&format!("x = {}", "{a=".repeat(5_000))).is_err());
}

#[test]
fn no_error_quotes_a_password() {
    for line in [
        "proxy = \"socks5://u:s3cret%@p:99999\"",
        "password = \"s3cret",
        "password = \"s3cret\\u0000\"",
        "password = [\"s3cret\"]",
        "pasword = \"s3cret\"",
        "password = { comand = \"s3cret\" }",
        "password = { oauth = { refresh_token = \"s3cret\" } }",
        "password = { oauth = { refresh_token = [\"s3cret\"] } }",
    ] {
        let problems = read_text(&format!("[account.a]\nhost = \"h\"\nuser = \"u\"\n{line}\n")).unwrap_err();
        assert!(!problems.join("\n").contains("s3cret"), "{problems:?}");
    }
}

/// Every key in the manual is read, and every key that is read is in the manual.
#[test]
fn the_manual_has_the_keys_that_are_read_and_no_others() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/pillarbox.toml.5")).unwrap();
    let (mut prefix, mut written) = ("", Vec::new());
    for line in page.lines() {
        match line.strip_prefix(".Ss ").or_else(|| line.strip_prefix(".Sh ")) {
            Some("The accounts") => prefix = "account.NAME.",
            Some("The password") => prefix = "password.",
            Some("The access token") => prefix = "password.oauth.",
            Some("The queue") => prefix = "queue.",
            Some("The service") => prefix = "serve.",
            Some("The aliases") => prefix = "aliases.",
            Some("The masquerade") => prefix = "masquerade.",
            Some(_) => prefix = "",
            None => {}
        }
        let key = line.strip_prefix(".It Ic ").and_then(|rest| rest.split(' ').next());
        written.extend(key.map(|key| format!("{prefix}{key}")));
    }
    let mut read = keys();
    read.sort();
    written.sort();
    assert_eq!(written, read);
}

#[test]
fn the_examples_of_the_manual_are_right() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/pillarbox.toml.5")).unwrap();
    let blocks = page.split(".Bd -literal").skip(1).filter_map(|rest| rest.split_once('\n')?.1.split(".Ed").next());
    let whole: Vec<&str> = blocks.filter(|block| block.contains("[account.")).collect();
    assert_eq!(whole.len(), 5);
    for block in whole {
        read_text(block).unwrap();
    }
}

proptest! {
    #[test]
    fn whatever_is_written_gives_settings_or_problems(text in "\\PC*") {
        let _ = read_text(&text);
    }

    #[test]
    fn keys_with_any_value_give_settings_or_problems(
        lines in prop::collection::vec((0..60_usize, "[\"\\[{]?[\\PC\n]{0,12}[\"\\]}]?"), 0..8)
    ) {
        let name = |key: &String| key.replace("account.NAME", "account.a").replace("password.", "account.a.password.");
        let keys: Vec<String> = keys().iter().map(name).collect();
        let line = |(key, value): &(usize, String)| format!("{} = {value}\n", keys[key % keys.len()]);
        let text: String = lines.iter().map(line).collect();
        if let Err(problems) = read_text(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn a_literal_password_is_taken_as_it_is(password in "[^\\x00]+") {
        let quoted = toml::Value::String(password.clone());
        let settings = read_text(&format!("[account.a]\nhost = \"h\"\nuser = \"u\"\npassword = {quoted}\n")).unwrap();
        prop_assert_eq!(&settings.accounts[0].password, &Some(PasswordSource::Literal(Zeroizing::new(password))));
    }
}

#[test]
fn direct_delivery_has_its_own_port_and_tls_and_no_company() {
    let account = |lines: &str| {
        let settings = read_text(&format!("[account.a]\nhost = \"mx\"\n{lines}\n")).unwrap();
        let account = settings.accounts.into_iter().next().unwrap();
        assert!(account.is_direct());
        (account.hosts, account.tls)
    };
    assert_eq!(account(""), (vec![Host::Mx(25)], Tls::Opportunistic));
    assert_eq!(account("port = 2525"), (vec![Host::Mx(2525)], Tls::Opportunistic));
    assert_eq!(account("tls = \"starttls\""), (vec![Host::Mx(25)], Tls::StartTls));
    assert_eq!(account("tls = \"none\""), (vec![Host::Mx(25)], Tls::Off));
    assert_eq!(
        account("tls = \"starttls\"\ntls_host = \"x.org\"\nuser = \"u\"\npassword = \"p\"").0,
        [Host::Mx(25)],
        "a password may go to one whom the settings know"
    );
    for (lines, told) in [
        ("host = [\"mx\", \"h\"]", "c.toml:2:8: host: \"mx\" stands alone"),
        ("host = \"mx\"\nprotocol = \"lmtp\"", "c.toml:3:12: protocol: LMTP"),
        ("host = \"mx\"\ntls = \"implicit\"", "c.toml:3:7: tls: a domain's mail servers"),
        ("host = \"mx\"\npin = \"sha256:PIN\"", "tls: ca_file, crl_file, pin and tls_host"),
        ("host = \"mx\"\nuser = \"u\"\npassword = \"p\"", "c.toml:3:8: user: with \"mx\" the password would go"),
        (
            "host = \"mx\"\ntls = \"starttls\"\nuser = \"u\"\npassword = \"p\"",
            "user: with \"mx\" the password would go",
        ),
        ("host = \"h\"\ntls = \"opportunistic\"", "c.toml:3:7: tls: \"opportunistic\" is for the host \"mx\" alone"),
    ] {
        let text = format!("[account.a]\n{lines}\n").replace("PIN", &"ab".repeat(32));
        let problems = read_text(&text).unwrap_err();
        assert!(problems.iter().any(|one| one.contains(told)), "{problems:#?}");
    }
}
