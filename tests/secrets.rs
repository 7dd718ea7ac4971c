//! Secrets stay where they are: a marked password, a token and what is derived from them are looked for in everything
//! that somebody else could read, in clear and in base64, after every way to send and to fail.
//!
//! The sources are all that an account can name; the endings are a good day, every refusal (one that echoes the
//! password), every lie of a server that plays SCRAM and every subcommand. Looked through are standard output and
//! error, four logs (journal, syslog, file, standard error), the queue and every file of the home that is not the
//! secret's own, the arguments and the environment of every process, the memory after AUTH, and what a crash leaves.
//! [`standing`] does the same with those that stay: the service, the sandbox and the runner.

#![allow(clippy::unwrap_used)]

#[path = "secrets/marks.rs"]
mod marks;
#[path = "secrets/scram.rs"]
mod scram;
#[path = "secrets/standing.rs"]
mod standing;
mod support;
#[path = "secrets/world.rs"]
mod world;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use marks::{CLIENT, PASSWORD, REFRESH, ROTATED, TOKEN, copies, everybody, sightings, told};
use nix::sys::signal::Signal;
use scram::Lie;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::certificates::Shown;
use support::desktop::Desktop;
use support::relay::{Act, DOT, Relay, Script};
use support::running::{Running, WATCHDOG};
use support::sendmail::Sendmail;
use support::tokens::{Does, Tokens, grant, json};
use world::{
    Daemon, File, Keyring, Mailrc, Msmtprc, MsmtprcEval, MsmtprcNetrc, OAuth, OfCommand, Source, WITH_LOGS, files,
    generous, kept_for_a_run, sources, with_witness, world,
};

const LETTER: &[u8] = b"Subject: x\n\nhello\n";

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: only root can look into other processes");
    }
    is_root
}

/// A relay that lets alice in by such a mechanism.
fn willing(mechanisms: &str, secret: &str) -> Script {
    let mut script = Script::default().mechanisms(mechanisms);
    script.login = Some(("alice".to_owned(), secret.to_owned()));
    match mechanisms {
        scram if scram.starts_with("SCRAM") => script.on("AUTH", Act::Converse(|heard| scram::says(heard, Lie::None))),
        "CRAM-MD5" => script.on(
            "AUTH",
            Act::Converse(|heard| if heard.len() == 1 { "334 PDFAeD4=" } else { "235 2.7.0 welcome" }.to_owned()),
        ),
        _ => script,
    }
}

/// One that says no more when the letter begins.
fn silent_after_auth(mechanisms: &str, secret: &str) -> Relay {
    Relay::start(willing(mechanisms, secret).on("MAIL", Act::Stall))
}

/// Sends a letter as far as to its MAIL. Where the keyring is late, on a machine with much to do, it is asked again.
fn up_to_mail(sendmail: &Sendmail, relay: &Relay) -> Running {
    let mut words = vec!["bob@example.org"];
    for _ in 0..12 {
        let mut running = sendmail.start(&words);
        running.feed(LETTER);
        running.hang_up();
        let until = Instant::now() + WATCHDOG;
        let stat = format!("/proc/{}/stat", running.pid());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            if relay.has_heard("MAIL") {
                return running;
            }
            assert!(Instant::now() < until, "nothing happens");
            std::thread::sleep(Duration::from_millis(2));
        }
        let ran = running.end();
        assert!(ran.stderr.contains("keyring did not answer"), "{ran:?}");
        words = vec!["-qf"];
    }
    panic!("the keyring never answers in time");
}

/// How an attempt may end. The relay repeats the secret wherever it says no.
fn endings(secret: &str) -> Vec<(&'static str, Script)> {
    let echo =
        |code: &str| format!("{code} 5.7.8 alice with {secret}, {}, no", BASE64.encode(format!("\0alice\0{secret}")));
    let good = || willing("PLAIN LOGIN XOAUTH2 OAUTHBEARER", secret);
    vec![
        ("a good day", good()),
        ("no, and no more", good().on("AUTH", "535 5.7.8 no")),
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

/// How an attempt by SCRAM may end.
fn endings_of_scram(kind: &str) -> Vec<(&'static str, Script)> {
    let lying = |act: fn(&[String]) -> String| willing(kind, PASSWORD).on("AUTH", Act::Converse(act));
    let echo = format!("451 4.7.0 {PASSWORD}, {}, later", BASE64.encode(PASSWORD));
    vec![
        ("a good day", willing(kind, PASSWORD)),
        ("a letter deferred", willing(kind, PASSWORD).on(DOT, &*echo)),
        ("AUTH breaks off", willing(kind, PASSWORD).on("AUTH", Act::Drop)),
        ("another password", lying(|heard| scram::says(heard, Lie::OtherPassword))),
        ("a wrong signature", lying(|heard| scram::says(heard, Lie::BadSignature))),
        ("no signature", lying(|heard| scram::says(heard, Lie::NoSignature))),
        ("an error", lying(|heard| scram::says(heard, Lie::Error))),
        ("few iterations", lying(|heard| scram::says(heard, Lie::FewIterations))),
        ("another nonce", lying(|heard| scram::says(heard, Lie::OtherNonce))),
        ("no end", lying(|heard| scram::says(heard, Lie::Endless))),
    ]
}

/// What runs have come to: how many there were, and the secrets that were seen.
type Tally = (usize, Vec<String>);

fn assert_unseen(tallies: impl IntoIterator<Item = Tally>) {
    let (runs, seen): (Vec<usize>, Vec<Vec<String>>) = tallies.into_iter().unzip();
    let seen = seen.concat();
    println!("{} runs, {} secrets found", runs.iter().sum::<usize>(), seen.len());
    assert!(seen.is_empty(), "{}", seen.join("\n\n"));
}

/// What several threads find out, each about one of them.
fn side_by_side<T: Copy + Send>(all: &[T], each: impl Fn(T) -> Tally + Sync) -> Vec<Tally> {
    let each = &each;
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|&one| scope.spawn(move || each(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn no_secret_is_seen_by_anybody_whatever_happens() {
    if !is_root() {
        return;
    }
    let (sources, desktop) = sources();
    assert_unseen(side_by_side(&sources, |source| {
        let endings = endings(source.secret());
        let runs = endings
            .into_iter()
            .map(|(ending, script)| every_call(source, ending, script, generous(), desktop.as_ref()));
        runs.fold((0, Vec::new()), added)
    }));
}

#[test]
fn no_secret_of_scram_is_seen_by_anybody_whatever_the_server_says() {
    if !is_root() {
        return;
    }
    assert_unseen(side_by_side(&scram::KINDS, |kind| {
        let endings = endings_of_scram(kind).into_iter();
        let runs = endings.map(|(ending, script)| every_call(File, ending, script, generous(), None));
        runs.fold((0, Vec::new()), added)
    }));
}

/// It has them all.
#[test]
fn no_secret_that_a_provider_of_tokens_gives_back_is_seen_by_anybody() {
    if !is_root() {
        return;
    }
    let all = format!("{REFRESH} {CLIENT} {TOKEN} {ROTATED}");
    let answers = [
        json(400, &format!("{{\"error\":\"invalid_grant\",\"error_description\":\"{REFRESH} of {CLIENT}\"}}")),
        json(401, &format!("{{\"error\":\"{CLIENT}\",\"error_uri\":\"http://x/{REFRESH}\"}}")),
        json(500, &format!("{REFRESH} {CLIENT}")),
        json(200, &format!("{{\"access_tokens\":\"{TOKEN}\",\"refresh_token\":\"{ROTATED}\"}}")),
        json(200, &format!("{{\"access_token\":\"{TOKEN} {ROTATED}\"")),
        grant(&format!("{TOKEN} {ROTATED}"), 3600, ""),
        Does::Says(format!("HTTP/1.1 302 {all}\r\nLocation: http://127.0.0.1/{REFRESH}\r\nContent-Length: 0\r\n\r\n")),
        Does::Says(format!("{all}\r\n{all}\r\n\r\n")),
    ];
    let places: Vec<usize> = (0..answers.len()).collect();
    assert_unseen(side_by_side(&places, |place| {
        let answers = vec![answers[place].clone()];
        every_call(OAuth, "a strange provider", willing("XOAUTH2", TOKEN), answers, None)
    }));
}

fn added((runs, mut seen): Tally, (more, others): Tally) -> Tally {
    seen.extend(others);
    (runs + more, seen)
}

/// Calls every program in every way, with that account and that relay.
fn every_call(source: Source, ending: &str, script: Script, answers: Vec<Does>, desktop: Option<&Desktop>) -> Tally {
    let (relay, tokens) = (Relay::start(script), Tokens::start(answers));
    let sendmail = world(source, &relay, &tokens, desktop).through(WITH_LOGS);
    let daemons = ["journal.sock", "syslog.sock"].map(|name| Daemon::at(&sendmail.home().join(name)));
    let mut outputs: Vec<(String, String)> = Vec::new();
    let mut called = |sendmail: &Sendmail, words: &[&str]| {
        let ran = sendmail.run(words, LETTER);
        assert!(ran.status < 128, "{source:?}, {ending}, {words:?}: {ran:?}");
        outputs.push((words.join(" "), format!("{}{}", ran.stdout, ran.stderr)));
        outputs.last().unwrap().1.clone()
    };
    let mut told = called(&sendmail, &["-v", "bob@example.org"]);
    // On a machine with much to do the keyring may be late; then it is asked again.
    for _ in 0..12 {
        if source == Keyring && told.contains("keyring did not answer") {
            told = called(&sendmail, &["-v", "-qf"]);
        }
    }
    assert!(ending != "a good day" || told.contains("****"), "{source:?} has not logged in: {told}");
    called(&sendmail, &["bob@example.org"]);
    called(&sendmail, &["-bp"]);
    called(&sendmail, &["-v", "-qf"]);
    called(&sendmail, &["-bv", "bob@example.org"]);
    let sendmail = sendmail.called("msmtp");
    for words in [&["--debug", "bob@example.org"][..], &["--serverinfo"], &["--pretend", "bob@example.org"]] {
        called(&sendmail, words);
    }
    let sendmail = sendmail.called("pillarbox");
    for words in [&["queue", "list"][..], &["queue", "show", "all"], &["queue", "retry", "all"], &["check"]] {
        called(&sendmail, words);
    }
    let mut seen = Vec::new();
    for (words, text) in &outputs {
        seen.extend(told_in(source, ending, words, text.as_bytes()));
    }
    let logs = daemons.each_ref().map(Daemon::heard);
    let is_msmtprc = matches!(source, Msmtprc | MsmtprcEval | MsmtprcNetrc | Mailrc);
    assert!(
        ending != "a good day" || is_msmtprc || logs.iter().all(|log| !log.is_empty()),
        "{source:?}: no log was heard"
    );
    for log in &logs {
        seen.extend(told_in(source, ending, "a daemon's log", log));
    }
    for (path, octets) in files(sendmail.home()) {
        seen.extend(told_in(source, ending, &path.display().to_string(), &octets));
    }
    (outputs.len(), seen)
}

fn told_in(source: Source, ending: &str, place: &str, octets: &[u8]) -> Vec<String> {
    told(&format!("{place}, from {source:?}, {ending}"), octets)
}

#[test]
fn no_process_shows_a_secret_in_its_arguments_or_its_environment() {
    if !is_root() {
        return;
    }
    let (sources, desktop) = sources();
    for source in sources {
        let relay = silent_after_auth("PLAIN XOAUTH2", source.secret());
        let tokens = Tokens::start(generous());
        let sendmail = world(source, &relay, &tokens, desktop.as_ref());
        if source == Keyring {
            with_witness(&sendmail);
        }
        let running = up_to_mail(&sendmail, &relay);
        let found = told("arguments and environments", &everybody());
        running.signal(Signal::SIGTERM);
        let _ = running.end();
        assert!(found.is_empty(), "{source:?}: {}", found.len());
        let witness = fs::read(sendmail.home().join("witness"));
        assert_eq!(witness.is_ok(), matches!(source, OfCommand | MsmtprcEval | Keyring), "{source:?}");
        let witness = witness.unwrap_or_default();
        assert!(source != Keyring || witness.starts_with(b"smtp://127.0.0.1\nalice\n"), "the keyring was not asked");
        let found = told("what a helper was given", &witness);
        assert!(found.is_empty(), "{source:?}: {found:?}");
    }
}

#[test]
fn nothing_of_a_password_is_in_memory_once_it_has_been_used() {
    if !is_root() {
        return;
    }
    let (sources, desktop) = sources();
    let mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"].into_iter().chain(scram::KINDS);
    let (mut wrong, mut runs) = (Vec::new(), 0);
    for mechanism in mechanisms {
        for &source in &sources {
            if matches!(mechanism, "XOAUTH2" | "OAUTHBEARER") != (source == OAuth) {
                continue;
            }
            let relay = silent_after_auth(mechanism, source.secret());
            let tokens = Tokens::start(generous());
            let sendmail = world(source, &relay, &tokens, desktop.as_ref());
            let running = up_to_mail(&sendmail, &relay);
            let (kept, found) = (kept_for_a_run(source), copies(running.pid()));
            running.signal(Signal::SIGTERM);
            let _ = running.end();
            if found != kept {
                wrong.push(format!("{mechanism}, {source:?}: {found:?}"));
            }
            runs += 1;
        }
    }
    println!("{runs} memories");
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
