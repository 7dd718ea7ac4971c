//! `pillarbox login` and `logout`, and letters that are sent with what the keyring has: the real programs, a real
//! keyring on a bus of the test's own, and what can be wrong with both.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::desktop::{Desktop, PROGRAMS};
use support::household::Household;
use support::peer::{here, wait_for};
use support::relay::{Relay, Script};
use support::running::Ended;
use support::screen::Screen;
use support::tokens::{Tokens, grant, json};

const LETTER: &[u8] = b"Subject: x\n\nhello\n";

/// Somebody's home, and the relay of the account in it.
struct Home {
    household: Household,
    relay: Relay,
    bus: String,
}

impl Home {
    /// One whose account has these lines besides; the bus is this one, or none.
    fn new(account: &str, desktop: Option<&Desktop>, relay: Script) -> Self {
        let (household, relay) = (Household::new(""), Relay::start(relay));
        let nowhere = household.home().join("no-bus");
        let bus = desktop.map_or_else(|| format!("unix:path={}", nowhere.display()), Desktop::address);
        let home = Self { household, relay, bus };
        home.configure(account);
        home
    }

    fn configure(&self, account: &str) {
        let ca = self.put("ca.pem", &self.relay.identity.authority);
        let (host, port) = (self.relay.address.ip(), self.relay.address.port());
        let text = format!(
            "[account.work]\nhost = \"{host}\"\nport = {port}\nuser = \"alice\"\nfrom = \"alice@example.com\"\n\
             ca_file = \"{}\"\nhelo = \"box.example\"\n{account}\n[queue]\nrunner = \"off\"\ndeadline = \"60s\"\n",
            ca.display()
        );
        self.put(".config/pillarbox/config.toml", &text);
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.household.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.household.command(program);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.bus);
        command
    }

    fn pillarbox(&self, words: &[&str], input: &[u8]) -> Ended {
        Ended::of(self.command(env!("CARGO_BIN_EXE_pillarbox")).args(words), input)
    }

    fn sendmail(&self, words: &[&str], letter: &[u8]) -> Ended {
        Ended::of(self.command(env!("CARGO_BIN_EXE_sendmail")).args(words), letter)
    }

    /// Sends a letter that must arrive. On a machine with much to do the keyring may be late; then it is asked again.
    fn arrives(&self) {
        let sent = self.sendmail(&["bob@example.org"], LETTER);
        assert_eq!(sent.status, 0, "{sent:?}");
        self.queue_empties();
    }

    fn queue_empties(&self) {
        wait_for("an empty queue", || {
            (self.household.mailq() == "Mail queue is empty\n").then_some(()).or_else(|| {
                self.sendmail(&["-qf"], b"");
                None
            })
        });
    }

    /// Sends a letter that must be queued, for this reason.
    fn waits(&self, why: &str) {
        let sent = self.sendmail(&["bob@example.org"], LETTER);
        sent.says(0, &["the password of account work cannot be had: the keyring ", why, "it is in the queue as"]);
        assert!(!sent.stderr.contains("s3cret"), "{sent:?}");
        assert_ne!(self.household.mailq(), "Mail queue is empty\n");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

const KEYRING: &str = "password = { keyring = true }";

#[test]
fn a_password_in_the_keyring_sends_until_it_is_taken_away() {
    if !cfg!(feature = "keyring") || !here(&[&PROGRAMS[..], &["secret-tool"]].concat()) {
        return;
    }
    let desktop = Desktop::with_keyring();
    let home = Home::new(KEYRING, Some(&desktop), Script::default());
    home.waits("has no password for alice at 127.0.0.1; put it there with pillarbox login");
    let login = home.pillarbox(&["login"], b"s3cret\nmore\n");
    assert_eq!((login.status, &*login.stderr), (0, ""), "{login:?}");
    assert_eq!(login.stdout, "The password of alice at 127.0.0.1 is in the keyring.\n");
    assert_eq!(desktop.lookup("smtp://127.0.0.1", "alice"), "s3cret");
    home.queue_empties();
    home.arrives();

    // Another one takes its place, and is not used before it is there.
    home.pillarbox(&["login", "work"], b"wrong").says(0, &[]);
    home.sendmail(&["bob@example.org"], LETTER).says(0, &["535 "]);
    home.pillarbox(&["login", "work"], "s3cret\r\n".as_bytes()).says(0, &[]);
    home.queue_empties();

    let logout = home.pillarbox(&["logout", "work"], b"");
    assert_eq!(logout.stdout, "The password of alice at 127.0.0.1 is no longer in the keyring.\n", "{logout:?}");
    let logout = home.pillarbox(&["logout", "work"], b"");
    assert_eq!((logout.status, &*logout.stdout), (0, "There was no password of alice at 127.0.0.1 in the keyring.\n"));
    home.waits("has no password for alice");
}

#[test]
fn a_locked_keyring_costs_no_letter() {
    if !cfg!(feature = "keyring") || !here(&PROGRAMS) {
        return;
    }
    let desktop = Desktop::with_keyring();
    let home = Home::new(KEYRING, Some(&desktop), Script::default());
    home.pillarbox(&["login"], b"s3cret").says(0, &[]);
    desktop.lock();
    // Nobody is here to ask the person.
    home.waits("is locked, and nobody has unlocked it; unlock it");
    // Somebody is, and the person does not answer.
    let prompter = desktop.mute_prompter();
    home.waits("did not answer within 4.5 s: it waits for somebody to unlock it");
    drop(prompter);
    assert_eq!(home.relay.connections(), 0);
}

#[test]
fn a_bus_that_is_silent_or_not_there_costs_no_letter() {
    let mut home = Home::new(KEYRING, None, Script::default());
    if !cfg!(feature = "keyring") {
        home.waits("is unknown to this program, which was built without it (feature \"keyring\")");
        return;
    }
    home.waits("is out of reach (");
    let silent = home.household.home().join("silent");
    let listener = UnixListener::bind(&silent).unwrap();
    home.bus = format!("unix:path={}", silent.display());
    home.waits("did not answer within 4.5 s");
    drop(listener);
    assert_eq!(home.relay.connections(), 0);
    // Whoever logs in is told before he is asked for anything.
    home.bus = "unix:path=/nonexistent/bus".to_owned();
    let login = home.pillarbox(&["login"], b"s3cret");
    login.says(75, &["pillarbox: the keyring is out of reach", "nothing was stored", "keep it in a file: --file"]);
}

#[test]
fn a_bus_without_a_keyring_costs_no_letter() {
    if cfg!(feature = "keyring") && here(&PROGRAMS) {
        let desktop = Desktop::start();
        Home::new(KEYRING, Some(&desktop), Script::default()).waits("is out of reach (");
    }
}

/// A caller's `PATH` could lead anywhere.
#[test]
fn the_program_that_asks_is_looked_for_beside_sendmail_alone() {
    let home = Home::new(KEYRING, None, Script::default());
    let trap = home.put("trap/pillarbox", "#!/bin/sh\necho s3cret\n");
    fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).unwrap();
    let apart = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sendmail = apart.path().join("sendmail");
    if fs::hard_link(env!("CARGO_BIN_EXE_sendmail"), &sendmail).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_sendmail"), &sendmail).unwrap();
    }
    let mut command = home.command(&sendmail);
    let sent = Ended::of(command.env("PATH", trap.parent().unwrap()).arg("bob@example.org"), LETTER);
    sent.says(0, &["the keyring is asked by pillarbox, which lies neither beside", "it is in the queue as"]);
    assert_eq!(home.relay.connections(), 0);
}

/// Where only an argument names it, a file is not to be believed so far.
#[test]
fn a_file_that_an_argument_names_does_not_ask_the_keyring() {
    let home = Home::new(KEYRING, None, Script::default());
    let text = fs::read_to_string(home.household.config_file()).unwrap();
    let elsewhere = home.put("elsewhere.toml", &text);
    let sent = home.sendmail(&["-C", elsewhere.to_str().unwrap(), "bob@example.org"], LETTER);
    sent.says(78, &["account \"work\" would ask the keyring for its password"]);
}

#[test]
fn without_a_keyring_the_password_is_kept_in_a_file_and_the_line_for_it_is_told() {
    let home = Home::new(KEYRING, None, Script::default());
    let login = home.pillarbox(&["login", "--file"], b"s3cret\n");
    let file = home.household.home().join(".config/pillarbox/work.password");
    let line = format!("password = {{ file = \"{}\" }}", file.display());
    let told = format!(
        "The password of alice at 127.0.0.1 is in {}, which only you can read.\nIn {}, below [account.work], write:\n\n\
         {line}\n",
        file.display(),
        home.household.config_file().display()
    );
    assert_eq!((login.status, login.stdout, login.stderr), (0, told, String::new()));
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("s3cret\n", 0o600));
    home.configure(&line);
    home.arrives();
    // From here on that is where it goes, with --file and without.
    for words in [&["login"][..], &["login", "--file"]] {
        let login = home.pillarbox(words, b"other");
        assert_eq!(login.stdout.lines().count(), 1, "{login:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "other\n");
    }
    home.pillarbox(&["logout"], b"").says(0, &[]);
    assert!(!file.exists());
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "only the configuration is left");
}

#[test]
fn what_cannot_be_a_password_changes_nothing() {
    let home = Home::new("", None, Script::default());
    let file = home.put("kept", "s3cret\n");
    home.configure(&format!("password = {{ file = \"{}\" }}", file.display()));
    for (input, status, why) in [
        (&b""[..], 75, "no password was given"),
        (b"\n", 65, "has an empty password"),
        (b"a\0b\n", 65, "has a NUL octet"),
        (&vec![b'x'; 20_000], 74, "longer than 16 KiB"),
    ] {
        home.pillarbox(&["login"], input).says(status, &[why, "nothing was stored"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "s3cret\n");
    }
    home.configure("password = { command = \"echo s3cret\" }");
    let why = "takes its password neither from the keyring nor from a file; write password = { keyring = true } in ";
    home.pillarbox(&["login"], b"x").says(78, &[why]);
    home.pillarbox(&["logout"], b"").says(78, &[why]);
    home.pillarbox(&["login", "wrok"], b"x").says(64, &["wrok"]);
    home.pillarbox(&["login", "--oauth"], b"x").says(78, &["account work takes its password neither"]);
    home.configure("auth = \"off\"\npassword = { file = \"/x\" }");
    home.pillarbox(&["login", "--oauth"], b"x").says(78, &["account work has a password and no access token"]);
}

#[test]
fn at_a_terminal_the_password_is_not_shown() {
    if !here(&["tmux"]) {
        return;
    }
    let home = Home::new("", None, Script::default());
    let file = home.household.home().join("kept");
    home.configure(&format!("password = {{ file = \"{}\" }}", file.display()));
    let line = format!("HOME={} {} login", home.household.home().display(), env!("CARGO_BIN_EXE_pillarbox"));
    let screen = Screen::run(&line);
    screen.wait_for("Password of alice at 127.0.0.1 (account work):");
    // Backspace takes a whole letter, Ctrl-U all.
    screen.press("x");
    screen.press("C-u");
    screen.type_line("h\u{fc}sh\u{fc}\u{7f}\u{7f}\u{fc}");
    let shown = screen.wait_for("(ended 0)");
    assert!(!shown.contains("h\u{fc}s") && shown.contains("which only you can read"), "{shown}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "h\u{fc}s\u{fc}\n");
    let shown = screen.wait_for("isig");
    assert!(!shown.contains("-echo") && !shown.contains("-isig"), "{shown}");

    for key in ["C-c", "C-d"] {
        let screen = Screen::run(&line);
        screen.wait_for("(account work):");
        screen.press(key);
        let shown = screen.wait_for("isig");
        assert!(shown.contains("no password was given; nothing was stored"), "{shown}");
        assert!(shown.contains("(ended 75)") && !shown.contains("-echo"), "{shown}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "h\u{fc}s\u{fc}\n");
    }
}

/// An account whose tokens come from there.
fn oauth(home: &Home, tokens: &Tokens, refresh: &str) {
    home.configure(&format!(
        "[account.work.password.oauth]\ntoken_url = \"{url}\"\ndevice_url = \"{url}\"\n\
         auth_url = \"http://127.0.0.1:9/auth?x=y\"\n\
         scope = \"mail offline\"\nclient_id = \"box\"\nclient_secret = \"s3cr&t\"\nrefresh_token = {refresh}\n",
        url = tokens.url()
    ));
}

fn token_relay() -> Script {
    let mut script = Script::default().mechanisms("XOAUTH2");
    script.login = Some(("alice".to_owned(), "token-1".to_owned()));
    script
}

#[test]
fn a_code_entered_elsewhere_gives_a_token_that_sends() {
    let home = Home::new(KEYRING, None, token_relay());
    let file = home.household.home().join("refresh");
    let code = json(
        200,
        r#"{"device_code":"dev-1","user_code":"WDJB-MJHT","verification_uri":"https://id.example/go",
            "verification_uri_complete":"https://id.example/go?c=1","expires_in":900,"interval":1}"#,
    );
    let pending = json(400, r#"{"error":"authorization_pending"}"#);
    let granted = grant("token-0", 3600, ",\"refresh_token\":\"refresh-1\"");
    let tokens = Tokens::start(vec![code, pending, granted, grant("token-1", 3600, "")]);
    oauth(&home, &tokens, &format!("{{ file = \"{}\" }}", file.display()));
    let login = home.pillarbox(&["login", "--oauth"], b"");
    assert_eq!((login.status, &*login.stderr), (0, ""), "{login:?}");
    for part in ["https://id.example/go\n", "WDJB-MJHT\n", "https://id.example/go?c=1\n", "up to 15 min"] {
        assert!(login.stdout.contains(part), "no {part:?} in {login:?}");
    }
    let stored =
        format!("The refresh token of alice at 127.0.0.1 is in {}, which only you can read.\n", file.display());
    assert!(login.stdout.ends_with(&stored), "{login:?}");
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("refresh-1\n", 0o600));
    home.arrives();
    let client = "client_id=box&client_secret=s3cr%26t";
    let poll = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=dev-1&{client}");
    let refresh = format!("grant_type=refresh_token&{client}&refresh_token=refresh-1&scope=mail%20offline");
    assert_eq!(tokens.forms(), [format!("scope=mail%20offline&{client}"), poll.clone(), poll, refresh]);

    let logout = home.pillarbox(&["logout"], b"");
    assert!(logout.stdout.contains("no longer in") && logout.stdout.contains("is forgotten"), "{logout:?}");
    home.sendmail(&["bob@example.org"], LETTER).says(0, &["refresh_token: ", "it is in the queue as"]);
}

#[test]
fn a_provider_that_says_no_changes_nothing() {
    let home = Home::new(KEYRING, None, token_relay());
    let file = home.put("refresh", "refresh-0\n");
    let code = r#"{"device_code":"dev-1","user_code":"x","verification_uri":"https://id.example",
        "expires_in":EXPIRES,"interval":1}"#;
    let code = |expires| json(200, &code.replace("EXPIRES", expires));
    for (script, why) in [
        (vec![json(400, r#"{"error":"invalid_client"}"#)], "does not know us (invalid_client); check client_id"),
        (vec![json(200, "{}")], "answered with something that is no code"),
        (vec![code("900"), json(400, r#"{"error":"access_denied"}"#)], "was told no by whoever entered the code"),
        (vec![code("900"), grant("t", 60, "")], "gave no refresh token"),
        (vec![code("0")], "nobody has entered the code in time"),
    ] {
        let tokens = Tokens::start(script);
        oauth(&home, &tokens, &format!("{{ file = \"{}\" }}", file.display()));
        let login = home.pillarbox(&["login", "--oauth=device"], b"");
        login.says(69, &["account work cannot log in: ", why, "; nothing was stored"]);
        assert!(!login.stderr.contains("s3cr") && !login.stderr.contains("dev-1"), "{login:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "refresh-0\n");
    }
}

/// The part of a URL's query, decoded as far as these need it.
fn field(url: &str, name: &str) -> String {
    let pairs = url.split_once('?').unwrap().1.split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name).expect(name).1;
    value.replace("%3A", ":").replace("%2F", "/").replace("%20", " ")
}

fn visit(place: &str, query: &str) -> String {
    let mut stream = TcpStream::connect(place.trim_start_matches("http://").trim_end_matches('/')).unwrap();
    write!(stream, "GET /{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Logs in with the test as browser; `visits` gets the redirect's place and the state.
fn by_browser(home: &Home, visits: impl FnOnce(&str, &str)) -> (Ended, String) {
    let mut command = home.command(env!("CARGO_BIN_EXE_pillarbox"));
    command.args(["login", "--oauth=browser", "work"]).stdin(Stdio::null());
    let mut login = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(login.stdout.take().unwrap());
    let mut url = String::new();
    while !url.starts_with("http") {
        url.clear();
        assert_ne!(out.read_line(&mut url).unwrap(), 0, "it has ended");
    }
    visits(&field(url.trim(), "redirect_uri"), &field(url.trim(), "state"));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let ended = Ended { stdout: rest, ..login.wait_with_output().unwrap().into() };
    (ended, url.trim().to_owned())
}

#[test]
fn a_browser_on_this_machine_gives_a_token_that_sends() {
    let programs = [&PROGRAMS[..], &["secret-tool"]].concat();
    let desktop = (cfg!(feature = "keyring") && here(&programs)).then(Desktop::with_keyring);
    let home = Home::new(KEYRING, desktop.as_ref(), token_relay());
    let file = home.household.home().join("refresh");
    let tokens = Tokens::start(vec![grant("token-1", 30, ",\"refresh_token\":\"refresh-1\"")]);
    let place = if desktop.is_some() { "{ keyring = true }" } else { &format!("{{ file = \"{}\" }}", file.display()) };
    oauth(&home, &tokens, place);
    let (login, url) = by_browser(&home, |place, state| {
        assert!(visit(place, "favicon.ico").starts_with("HTTP/1.1 404 "));
        assert!(visit(place, "?code=evil&state=guess").starts_with("HTTP/1.1 400 "));
        assert!(visit(place, &format!("?code=c%2D1&state={state}")).starts_with("HTTP/1.1 200 "));
    });
    assert_eq!((login.status, &*login.stderr), (0, ""), "{login:?}");
    assert!(url.starts_with(
        "http://127.0.0.1:9/auth?x=y&response_type=code&client_id=box&redirect_uri=http%3A%2F%2F127.0.0.1%3A"
    ));
    assert_eq!([field(&url, "scope"), field(&url, "code_challenge_method")], ["mail offline", "S256"]);
    let forms = tokens.forms();
    let verifier = forms[0].split("code_verifier=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert_eq!(URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())), field(&url, "code_challenge"));
    let redirect = field(&url, "redirect_uri").replace(':', "%3A").replace('/', "%2F");
    let form = format!(
        "grant_type=authorization_code&code=c-1&redirect_uri={redirect}&code_verifier={verifier}\
             &client_id=box&client_secret=s3cr%26t"
    );
    assert_eq!(forms, [form]);
    match &desktop {
        Some(desktop) => assert_eq!(desktop.lookup("oauth://127.0.0.1", "alice"), "refresh-1"),
        None => assert_eq!(fs::read_to_string(&file).unwrap(), "refresh-1\n"),
    }
    home.arrives();
}

#[test]
fn a_browser_that_is_told_no_changes_nothing() {
    let home = Home::new(KEYRING, None, token_relay());
    let file = home.household.home().join("refresh");
    let tokens = Tokens::start(vec![json(400, r#"{"error":"invalid_grant"}"#)]);
    oauth(&home, &tokens, &format!("{{ file = \"{}\" }}", file.display()));
    let (login, _) = by_browser(&home, |place, state| {
        visit(place, &format!("?error=access_denied&error_description=not+%1bhere&state={state}"));
    });
    login.says(69, &["the provider refused (access_denied: not \\x1bhere); nothing was stored"]);
    assert!(tokens.forms().is_empty());
    let (login, _) = by_browser(&home, |place, state| drop(visit(place, &format!("?code=c&state={state}"))));
    login.says(69, &["does not take the code (invalid_grant); begin again; nothing was stored"]);
    assert!(!file.exists());
}
