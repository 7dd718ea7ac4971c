//! Secrets stay where they are: a marked password, a token and what is derived from them are looked for in everything that
//! somebody else could read, in clear and in base64, after every way to send and to fail.
//!
//! The sources are all that an account can name; the endings are a good day, every refusal (one that echoes the password)
//! and every subcommand. Looked through are standard output and error, four logs (journal, syslog, file, standard error),
//! the queue and every file of the home that is not the secret's own, the arguments and the environment of every process,
//! the memory after AUTH, and what a crash leaves.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use support::certificates::Shown;
use support::relay::{Act, DOT, Relay, Script};
use support::sendmail::Sendmail;
use support::tokens::{Tokens, grant};

const PASSWORD: &str = "Marked-pa55word/4711";
const TOKEN: &str = "Marked-t0ken.of.an-hour-4712";
const REFRESH: &str = "Marked-refre5h-t0ken-4713";
const CLIENT: &str = "Marked-c1ient-secret-4714";
const LETTER: &[u8] = b"Subject: x\n\nhello\n";

/// A secret as it may look: itself, its base64 at each of the three places that it may begin at, and inside a PLAIN.
fn shapes(secret: &str) -> Vec<Vec<u8>> {
    let mut shapes = vec![secret.as_bytes().to_vec(), BASE64.encode(format!("\0alice\0{secret}")).into_bytes()];
    for before in 0..3 {
        // Without the digits that also depend on what stands before and behind.
        let padded = [&b"   "[..before], secret.as_bytes()].concat();
        let digits = BASE64.encode(&padded);
        let begin = (before * 8).div_ceil(6);
        let end = padded.len() * 8 / 6;
        shapes.push(digits.as_bytes()[begin..end].to_vec());
    }
    shapes
}

/// How often a secret stands somewhere.
fn sightings(secret: &str, place: &[u8]) -> usize {
    shapes(secret).iter().map(|shape| memchr::memmem::find_iter(place, shape).count()).sum()
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: only root can look into other processes");
    }
    is_root
}

/// Everything that a process has written in its memory, but for what is mapped from a file and unchanged.
fn memory(pid: u32) -> Vec<(String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut parts = Vec::new();
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((from, to)) = words[0].split_once('-') else { continue };
        let number = |digits| u64::from_str_radix(digits, 16).unwrap();
        if !words[1].starts_with("rw") {
            continue;
        }
        let mut octets = vec![0; usize::try_from(number(to) - number(from)).unwrap()];
        memory.seek(SeekFrom::Start(number(from))).unwrap();
        if memory.read_exact(&mut octets).is_ok() {
            parts.push((words.get(5).copied().unwrap_or("anonymous").to_owned(), octets));
        }
    }
    assert!(parts.iter().any(|(name, _)| name == "[stack]"), "this is no process's memory: {maps}");
    parts
}

/// A relay that lets alice in and says no more when the letter begins.
fn silent_after_auth(mechanisms: &str, password: &str) -> Relay {
    let mut script = Script::default().mechanisms(mechanisms).on("MAIL", Act::Stall);
    script.login = Some(("alice".to_owned(), password.to_owned()));
    Relay::start(script)
}

/// Where an account's password may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Literal,
    File,
    Command,
    Netrc,
    Credential,
    Msmtprc,
    MsmtprcEval,
    MsmtprcNetrc,
    Mailrc,
    OAuth,
}

use Source::{
    Command as OfCommand, Credential, File, Literal, Mailrc, Msmtprc, MsmtprcEval, MsmtprcNetrc, Netrc, OAuth,
};

const SOURCES: [Source; 10] =
    [Literal, File, OfCommand, Netrc, Credential, Msmtprc, MsmtprcEval, MsmtprcNetrc, Mailrc, OAuth];

/// The files in a home that are there to hold a secret, or the place where a token is kept.
const KEEPERS: [&str; 7] = ["secret", "refresh", ".netrc", "config.toml", "msmtprc", "mailrc", "oauth"];

/// A sendmail whose account for that relay takes its password from there, and logs to four places.
fn world(source: Source, relay: &Relay, tokens: &Tokens) -> Sendmail {
    let sendmail = Sendmail::new("");
    let secret = sendmail.put("secret", &format!("{PASSWORD}\n"));
    sendmail.put("refresh", &format!("{REFRESH}\n"));
    sendmail.put(".netrc", &format!("machine 127.0.0.1 login alice password {PASSWORD}\n"));
    let (secret, home) = (secret.display().to_string(), sendmail.home().display().to_string());
    // It leaves behind what it was given.
    let witness = format!("cat /proc/self/environ /proc/self/cmdline >>{home}/witness; cat {secret}");
    let sendmail = match source {
        Credential => sendmail.env("CREDENTIALS_DIRECTORY", &home),
        OAuth => sendmail.env("XDG_STATE_HOME", format!("{home}/state")),
        _ => sendmail,
    };
    let password = match source {
        Literal => format!("\"{PASSWORD}\""),
        File => format!("{{ file = \"{secret}\" }}"),
        OfCommand => format!("{{ command = \"{witness}\" }}"),
        Credential => "{ credential = \"secret\" }".to_owned(),
        OAuth => format!(
            "{{ oauth = {{ token_url = \"{}\", client_id = \"box\", client_secret = \"{CLIENT}\", \
             refresh_token = {{ file = \"{home}/refresh\" }} }} }}",
            tokens.url()
        ),
        _ => "{ netrc = true }".to_owned(),
    };
    sendmail.configure(relay, &format!("password = {password}"), "");
    let config = fs::read_to_string(sendmail.home().join("config.toml")).unwrap();
    let logs = format!("log = [\"journal\", \"syslog\", \"stderr\", \"{home}/log\"]\n");
    sendmail.put("config.toml", &(logs + &config));
    let port = relay.address.port();
    let rc = |password: &str| {
        format!(
            "account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_trust_file {home}/ca.pem\nauth on\nuser alice\n\
             from alice@example.com\nlogfile {home}/log\n{password}\n"
        )
    };
    let named = |name: &str, text: &str| sendmail.put(name, text);
    let file = match source {
        Msmtprc => named("msmtprc", &rc(&format!("password {PASSWORD}"))),
        MsmtprcEval => named("msmtprc", &rc(&format!("passwordeval {witness}"))),
        MsmtprcNetrc => named("msmtprc", &rc("")),
        Mailrc => {
            let encoded = PASSWORD.replace('/', "%2F");
            let url = format!("smtp://alice:{encoded}@127.0.0.1:{port}");
            let set = format!("set v15-compat mta={url} smtp-use-starttls tls-ca-file={home}/ca.pem\n");
            named("mailrc", &(set + "set from=alice@example.com\n"))
        }
        _ => return sendmail,
    };
    sendmail.env("PILLARBOX_CONFIG", file)
}

/// Replaces the journal's and syslog's sockets by two in the home, for one program.
const WITH_LOGS: &str = "exec unshare -m sh -c '
    mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket &&
    mount --bind \"$HOME/journal.sock\" /run/systemd/journal/socket &&
    mkdir -p \"$HOME/dev\" && mount -t tmpfs none \"$HOME/dev\" && cd \"$HOME/dev\" && ln -s /proc/self/fd fd &&
    for node in null zero random urandom log; do touch $node; done &&
    for node in null zero random urandom; do mount --bind /dev/$node $node; done &&
    mount --bind \"$HOME/syslog.sock\" log && mount --rbind . /dev && cd \"$HOME\" && exec \"$@\"' sh \"$@\"";

/// A log daemon's socket, and what came to it.
struct Daemon(UnixDatagram);

impl Daemon {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    fn heard(&self) -> Vec<u8> {
        let (mut all, mut one) = (Vec::new(), vec![0; 64 * 1024]);
        while let Ok(n) = self.0.recv(&mut one) {
            all.extend_from_slice(&one[..n]);
            all.push(b'\n');
        }
        all
    }
}

/// Whatever lies below a directory, but for the keepers of secrets: path and content.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if KEEPERS.iter().any(|keeper| name == *keeper) {
            continue;
        }
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&path)),
            kind if kind.is_file() => found.push((path.clone(), fs::read(&path).unwrap())),
            _ => {}
        }
    }
    found
}

/// Every secret that is in play.
const SECRETS: [&str; 4] = [PASSWORD, TOKEN, REFRESH, CLIENT];

/// The secrets that stand somewhere, each named by where that is.
fn told(place: &str, octets: &[u8]) -> Vec<String> {
    let seen = SECRETS.iter().filter(|secret| sightings(secret, octets) > 0);
    seen.map(|secret| format!("{secret} in {place}: {}", String::from_utf8_lossy(octets))).collect()
}

/// Arguments and environments of everybody, but for this process and the keepers' readers.
fn everybody() -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for name in ["cmdline", "environ"] {
            // One that has ended meanwhile tells nothing.
            all.extend(fs::read(entry.path().join(name)).unwrap_or_default());
        }
    }
    all
}

/// How an attempt may end. The relay repeats the secret wherever it says no.
fn endings(secret: &str) -> Vec<(&'static str, Script)> {
    let echo =
        |code: &str| format!("{code} 5.7.8 alice with {secret}, {}, no", BASE64.encode(format!("\0alice\0{secret}")));
    let good = || {
        let mut script = Script::default().mechanisms("PLAIN LOGIN XOAUTH2 OAUTHBEARER");
        script.login = Some(("alice".to_owned(), secret.to_owned()));
        script
    };
    vec![
        ("a good day", good()),
        ("a password refused", good().on("AUTH", &*echo("535"))),
        ("a password refused for now", good().on("AUTH", &*echo("454"))),
        ("AUTH breaks off", good().on("AUTH", Act::Drop)),
        ("AUTH breaks the protocol", good().on("AUTH", &*echo("250"))),
        ("a sender refused", good().on("MAIL", &*echo("550"))),
        ("a recipient deferred", good().on("RCPT", &*echo("451"))),
        ("a letter deferred", good().on(DOT, &*echo("451"))),
        ("a lost answer", good().on(DOT, Act::Drop)),
        ("no AUTH", good().mechanisms("")),
        ("no TLS", good().on("STARTTLS", "502 no")),
        ("LOGIN, or a bearer token", good().mechanisms("LOGIN OAUTHBEARER")),
        ("a strange certificate", good().showing(Shown::OtherAuthority)),
    ]
}

#[test]
fn no_secret_is_seen_by_anybody_whatever_happens() {
    if !is_root() {
        return;
    }
    let threads: Vec<_> = SOURCES.map(|source| std::thread::spawn(move || every_ending(source))).into();
    let found: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let runs: usize = found.iter().map(|(runs, _)| runs).sum();
    let seen: Vec<String> = found.into_iter().flat_map(|(_, seen)| seen).collect();
    println!("{runs} runs, {} secrets found", seen.len());
    assert!(seen.is_empty(), "{}", seen.join("\n\n"));
}

/// How many runs there were, and the secrets that were seen.
fn every_ending(source: Source) -> (usize, Vec<String>) {
    let (mut seen, mut runs) = (Vec::new(), 0);
    let secret = if source == OAuth { TOKEN } else { PASSWORD };
    for (ending, script) in endings(secret) {
        let relay = Relay::start(script);
        let tokens = Tokens::start(vec![grant(TOKEN, 3600, "")]);
        let sendmail = world(source, &relay, &tokens).through(WITH_LOGS);
        let daemons = ["journal.sock", "syslog.sock"].map(|name| Daemon::at(&sendmail.home().join(name)));
        let mut outputs = Vec::new();
        let mut called = |sendmail: &Sendmail, words: &[&str]| {
            let ran = sendmail.run(words, LETTER);
            assert!(ran.status.is_ok(), "{source:?}, {ending}, {words:?}: {ran:?}");
            runs += 1;
            outputs.push((words.join(" "), format!("{}{}", ran.stdout, ran.stderr)));
        };
        called(&sendmail, &["-v", "bob@example.org"]);
        called(&sendmail, &["bob@example.org"]);
        called(&sendmail, &["-bp"]);
        called(&sendmail, &["-v", "-qf"]);
        called(&sendmail, &["-bv", "bob@example.org"]);
        let sendmail = sendmail.called("msmtp");
        for words in [&["--debug", "bob@example.org"][..], &["--serverinfo"], &["--pretend", "bob@example.org"]] {
            called(&sendmail, words);
        }
        let sendmail = sendmail.called("pillarbox");
        for words in [&["queue", "list"][..], &["queue", "show", "all"], &["queue", "retry", "all"]] {
            called(&sendmail, words);
        }
        if ending == "a good day" {
            let told = &outputs[0].1;
            assert!(told.contains("****"), "{source:?} has not logged in: {told}");
            let logs = daemons.each_ref().map(Daemon::heard);
            let is_msmtprc = matches!(source, Msmtprc | MsmtprcEval | MsmtprcNetrc | Mailrc);
            assert!(is_msmtprc || logs.iter().all(|log| !log.is_empty()), "{source:?}: no log was heard");
            seen.extend(logs.iter().flat_map(|log| told_in(source, ending, "the daemons' logs", log)));
        }
        for (words, text) in &outputs {
            seen.extend(told_in(source, ending, words, text.as_bytes()));
        }
        for daemon in &daemons {
            seen.extend(told_in(source, ending, "a daemon's log", &daemon.heard()));
        }
        for (path, octets) in files(sendmail.home()) {
            seen.extend(told_in(source, ending, &path.display().to_string(), &octets));
        }
    }
    (runs, seen)
}

fn told_in(source: Source, ending: &str, place: &str, octets: &[u8]) -> Vec<String> {
    told(&format!("{place}, from {source:?}, {ending}"), octets)
}

#[test]
fn no_process_shows_a_secret_in_its_arguments_or_its_environment() {
    if !is_root() {
        return;
    }
    for source in SOURCES {
        let secret = if source == OAuth { TOKEN } else { PASSWORD };
        let relay = silent_after_auth("PLAIN XOAUTH2", secret);
        let tokens = Tokens::start(vec![grant(TOKEN, 3600, "")]);
        let sendmail = world(source, &relay, &tokens);
        let mut running = sendmail.start(&["bob@example.org"]);
        running.feed(LETTER);
        running.hang_up();
        relay.wait_for_command("MAIL");
        let found = told("arguments and environments", &everybody());
        running.signal(Signal::SIGTERM);
        let _ = running.end();
        assert!(found.is_empty(), "{source:?}: {}", found.len());
        let witness = fs::read(sendmail.home().join("witness"));
        assert_eq!(witness.is_ok(), matches!(source, OfCommand | MsmtprcEval), "{source:?}");
        let found = told("what a helper was given", &witness.unwrap_or_default());
        assert!(found.is_empty(), "{source:?}: {found:?}");
    }
}

/// What stays, and why: a literal stays with the settings, which may need it for another attempt, and a command is asked
/// once in a run, so its answer is kept for the run's other connections. Nothing else may.
fn expected(source: Source) -> usize {
    match source {
        Literal | Msmtprc | Mailrc | OfCommand | MsmtprcEval => 1,
        File | Netrc | Credential | MsmtprcNetrc | OAuth => 0,
    }
}

#[test]
fn nothing_of_a_password_is_in_memory_once_it_has_been_used() {
    if !is_root() {
        return;
    }
    let mut wrong = Vec::new();
    for mechanism in ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"] {
        for source in SOURCES {
            let is_token = matches!(mechanism, "XOAUTH2" | "OAUTHBEARER");
            if is_token != (source == OAuth) {
                continue;
            }
            let secret = if is_token { TOKEN } else { PASSWORD };
            let relay = silent_after_auth(mechanism, secret);
            let tokens = Tokens::start(vec![grant(TOKEN, 3600, "")]);
            let sendmail = world(source, &relay, &tokens);
            let mut running = sendmail.start(&["bob@example.org"]);
            running.feed(LETTER);
            running.hang_up();
            relay.wait_for_command("MAIL");
            let memory = memory(running.pid());
            running.signal(Signal::SIGTERM);
            let _ = running.end();
            let count = |secret| memory.iter().map(|(_, octets)| sightings(secret, octets)).sum::<usize>();
            let (found, refresh) = (count(secret), count(REFRESH));
            if found != expected(source) || refresh > 0 {
                let places: Vec<&str> = memory
                    .iter()
                    .filter(|(_, octets)| sightings(secret, octets) > 0)
                    .map(|(name, _)| &**name)
                    .collect();
                wrong.push(format!("{mechanism}, {source:?}: {found} in {places:?}, {refresh} refresh tokens"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words of a configuration that is wrong in or beside a secret, and what the sentences must not hold of it.
#[test]
fn what_is_wrong_with_a_configuration_is_told_without_the_secret_in_it() {
    let (secret, half) = (PASSWORD, PASSWORD.split('/').next().unwrap());
    for (name, text) in [
        ("config.toml", format!("[account.a]\nhost = \"h\"\npassword = \"{secret}")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\npassword = {secret}\n")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\nuser = \"u\"\npassword = \"{secret}\" x\n")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\nuser = \"u\"\npassword = [\"{secret}\"]\n")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\nuser = \"u\"\npassword = {{ fiel = \"{secret}\" }}\n")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\nuser = \"u\"\npasswort = \"{secret}\"\n")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\npassword = \"{secret}\"\n")),
        ("config.toml", format!("[account.a]\nhost = \"h\"\nproxy = \"socks5://u:{secret}@h:99999\"\n")),
        ("config.toml", format!("[account.a]\nhost = \"u:{secret}@h:587\"\n")),
        ("msmtprc", format!("account default\nhost h\npasword {secret}\n")),
        ("msmtprc", format!("account default\nhost h\npassword \"{secret}\n")),
        ("msmtprc", format!("account default\nhost h\nauth on\npassword {secret}\n")),
        ("msmtprc", format!("account default\nhost h\npassword {secret} {secret}\nport x\n")),
        ("mailrc", format!("set mta=smtp://alice:{secret}@h:99999\n")),
        ("mailrc", format!("set mta=smtp://alice:{secret}%zz@h\n")),
        ("mailrc", format!("set mta=smtps://alice:{secret}@\n")),
        ("mailrc", format!("set mta=smtp://h user=alice password='{secret}\n")),
        ("mailrc", format!("set mta=smtps://alice:{secret}@h:x smtp-auth=nonsense\n")),
    ] {
        let sendmail = Sendmail::new("");
        let path = sendmail.put(name, &text);
        let sendmail = sendmail.env("PILLARBOX_CONFIG", path);
        for called in ["sendmail", "msmtp", "mailq"] {
            let sendmail = Sendmail::new("").env("PILLARBOX_CONFIG", sendmail.put(name, &text)).called(called);
            let ran = sendmail.run(&["bob@example.org"], LETTER);
            let told = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!told.contains(half) && sightings(secret, told.as_bytes()) == 0, "{text}\n{told}");
        }
    }
}

#[test]
fn a_crash_leaves_no_core_and_nobody_but_root_looks_in() {
    for signal in [Signal::SIGABRT, Signal::SIGSEGV] {
        let relay = silent_after_auth("PLAIN", PASSWORD);
        let sendmail = Sendmail::with(&relay, &format!("password = \"{PASSWORD}\""), "");
        let sendmail = sendmail.through("ulimit -c unlimited; exec \"$@\"");
        let mut running = sendmail.start(&["bob@example.org"]);
        running.feed(LETTER);
        running.hang_up();
        relay.wait_for_command("MAIL");
        // What is not dumpable is root's to look into, whoever it belongs to (proc(5)).
        let owner = fs::metadata(format!("/proc/{}/environ", running.pid())).unwrap().uid();
        assert_eq!(owner, 0);
        running.signal(signal);
        let ran = running.end();
        let cores: Vec<PathBuf> = files(sendmail.home()).into_iter().map(|(path, _)| path).collect();
        let is_core = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("core"));
        assert_eq!(cores.iter().find(is_core), None, "{ran:?}");
    }
}
