//! Those that stay: the machine's service, the sandbox, the runner. Their memory at rest is looked through as well.

use super::{LETTER, Tally, added, assert_unseen, endings, is_root, side_by_side, told_in, willing};
use crate::marks::{PASSWORD, copies, everybody, told};
use crate::support::desktop::Desktop;
use crate::support::machine::Client;
use crate::support::peer::wait_for;
use crate::support::relay::{Relay, Script};
use crate::support::running::WATCHDOG;
use crate::support::sendmail::Sendmail;
use crate::support::tokens::Tokens;
use crate::world::{
    Credential, Daemon, File, Literal, OAuth, OfCommand, Source, WITH_LOGS, files, generous, kept, sources, world,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Waits until a process has no more in its memory than it may keep; what else it has at the end of all patience.
fn comes_to_rest(pid: u32, kept: &[(String, usize)]) -> Option<Vec<(String, usize)>> {
    let until = Instant::now() + WATCHDOG;
    loop {
        let found = copies(pid);
        if found == kept {
            return None;
        }
        if Instant::now() > until {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_service_shows_no_secret_to_anybody() {
    if !is_root() {
        return;
    }
    let sources = [Literal, File, OfCommand, Credential, OAuth];
    assert_unseen(side_by_side(&sources, |source| {
        let endings = endings(source.secret()).into_iter();
        endings.map(|(ending, script)| served(source, ending, script)).fold((0, Vec::new()), added)
    }));
}

/// Whether the relay has said the secret itself. Its words are
/// nobody's secret to be wiped, in our buffers and in those of TLS.
fn gives_it_back(ending: &str) -> bool {
    ["refused", "deferred", "protocol"].iter().any(|word| ending.contains(word))
}

/// A service with that account and that relay, from its start to its end, and everybody who comes to it.
fn served(source: Source, ending: &str, script: Script) -> Tally {
    let (relay, tokens) = (Relay::start(script), Tokens::start(generous()));
    let sendmail = world(source, &relay, &tokens, None);
    let home = sendmail.home().to_owned();
    let (socket, log, config) = (home.join("run/submit.sock"), home.join("log"), home.join("config.toml"));
    let text = fs::read_to_string(&config).unwrap();
    sendmail.put("config.toml", &format!("{text}\n[serve]\nsocket = \"{}\"\n", socket.display()));
    let sendmail = sendmail.env("NOTIFY_SOCKET", home.join("notify.sock")).called("pillarbox").through(WITH_LOGS);
    let daemons = ["journal.sock", "syslog.sock", "notify.sock"].map(|name| Daemon::at(&home.join(name)));
    let log = || fs::read_to_string(&log).unwrap_or_default();
    let running = sendmail.start(&["serve", "-C", &config.display().to_string()]);
    let mut outputs = Vec::new();

    // Somebody who speaks SMTP by hand, and those who have our programs.
    let stream = wait_for("the service", || UnixStream::connect(&socket).ok());
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let mut client = Client(BufReader::new(stream));
    let mut replies = client.hear();
    for line in ["EHLO x", "AUTH PLAIN", "MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.org>", "DATA"] {
        replies += &client.ask(line);
    }
    replies += &client.ask("Subject: x\r\n\r\nhello\r\n.");
    assert!(replies.contains("queued as"), "{source:?}, {ending}: {replies}");
    wait_for("the relay's word", || log().contains(" status=").then_some(()));
    let caller = Sendmail::new("").without("PILLARBOX_CONFIG").without("PILLARBOX_QUEUE_DIR");
    let mut caller = caller.env("PILLARBOX_SOCKET", &socket);
    for (program, words) in [
        ("sendmail", &["-v", "bob@example.org"][..]),
        ("sendmail", &["-v", "-qf"]),
        ("sendmail", &["-bp"]),
        ("pillarbox", &["queue", "list"]),
        ("pillarbox", &["queue", "show", "all"]),
        ("pillarbox", &["queue", "retry", "all"]),
    ] {
        caller = caller.called(program);
        let ran = caller.run(words, LETTER);
        assert!(ran.status < 128, "{source:?}, {ending}, {words:?}: {ran:?}");
        outputs.push((words.join(" "), format!("{}{}", ran.stdout, ran.stderr)));
    }
    for line in ["XQUEUE", "XQUEUE RUN ALL", "XQUEUE NONSENSE", "QUIT"] {
        replies += &client.ask(line);
    }
    outputs.push(("the replies".to_owned(), replies));

    let mut seen = told_in(source, ending, "arguments and environments", &everybody());
    let mut rest = |when: &str| {
        if gives_it_back(ending) {
            return;
        }
        let found = comes_to_rest(running.pid(), &kept(source));
        seen.extend(found.map(|found| format!("{source:?}, {ending}: in the memory of a service {when}: {found:?}")));
    };
    rest("at rest");
    running.signal(Signal::SIGHUP);
    wait_for("the new settings", || log().contains(" reloaded ").then_some(()));
    if ending == "a good day" {
        rest("that has read its settings again");
    }
    running.signal(Signal::SIGTERM);
    let ran = running.end();
    assert_eq!(ran.status, 0, "{source:?}, {ending}: {ran:?}");
    outputs.push(("what the service says".to_owned(), format!("{}{}", ran.stdout, ran.stderr)));
    let heard = daemons.each_ref().map(Daemon::heard);
    assert!(heard.iter().all(|heard| !heard.is_empty()), "{source:?}, {ending}: a daemon was not told");
    let heard = heard.into_iter().map(|heard| ("what a daemon was told".to_owned(), heard));
    let outputs = outputs.into_iter().map(|(words, text)| (words, text.into_bytes()));
    let files = files(&home).into_iter().map(|(path, octets)| (path.display().to_string(), octets));
    for (place, octets) in outputs.chain(heard).chain(files) {
        seen.extend(told_in(source, ending, &place, &octets));
    }
    (1, seen)
}

/// It shows its own user and password, which are for that; what somebody else tries is his own.
#[test]
fn the_sandbox_shows_no_password_that_is_tried_against_it() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let maildir = home.path().join("letters");
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    sandbox.args(["sandbox", "--user", "alice", "--maildir"]).arg(&maildir);
    sandbox.env_clear().env("HOME", home.path()).env("TMPDIR", home.path()).env("PATH", "/usr/bin:/bin");
    let mut child = sandbox.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("Ctrl-C") {
        assert!(out.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    let own = shown.lines().find_map(|line| line.strip_prefix("password = ")).unwrap().trim_matches('"').to_owned();
    let settings = |password: &str, auth: &str| {
        let settings: Vec<_> = shown.lines().filter(|line| !line.starts_with("password = ")).collect();
        format!("{}\npassword = \"{password}\"\nauth = \"{auth}\"\n", settings.join("\n"))
    };
    let mut said = String::new();
    for auth in ["plain", "login"] {
        let wrong = Sendmail::new(&(settings(PASSWORD, auth) + "[queue]\nrunner = \"off\"\ndeadline = \"50s\"\n"));
        let ran = wrong.run(&["-v", "bob@example.org"], LETTER);
        assert!(ran.status == 0 && ran.stderr.contains("535"), "{ran:?}");
        said = [said, ran.stdout, ran.stderr].concat();
        let right = Sendmail::new(&settings(&own, auth));
        let ran = right.run(&["bob@example.org"], LETTER);
        assert_eq!((ran.status, &*ran.stderr), (0, ""));
    }
    let mut seen = told("what the client says", said.as_bytes());
    let left = comes_to_rest(child.id(), &[]);
    seen.extend(left.map(|found| format!("in the memory of the sandbox: {found:?}")));
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    out.read_to_string(&mut shown).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && shown.matches("Subject: x").count() == 2, "{shown} {output:?}");
    seen.extend(told("what the sandbox shows", &[shown.into_bytes(), output.stderr].concat()));
    for (path, octets) in files(home.path()) {
        seen.extend(told(&path.display().to_string(), &octets));
    }
    assert!(seen.is_empty(), "{seen:?}");
}

/// The background runner's number, where it sleeps at that queue.
fn sleeper(sendmail: &Sendmail) -> Option<u32> {
    let queue = sendmail.queue().display().to_string();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = words.split(|&octet| octet == 0).collect();
        let is_it =
            words.len() > 4 && words[..2] == [&b"pillarbox-runner"[..], b"asleep"] && words[4] == queue.as_bytes();
        entry.file_name().to_str().filter(|_| is_it)?.parse().ok()
    })
}

/// A home, and a letter in it for a relay that puts everything off.
fn put_off(
    source: Source,
    desktop: Option<&Desktop>,
    home: fn(Source, &Relay, &Tokens, Option<&Desktop>) -> Sendmail,
    mode: &str,
) -> (Relay, Tokens, Sendmail) {
    let relay = Relay::start(willing("PLAIN XOAUTH2", source.secret()).on("RCPT", "451 4.7.1 later"));
    let tokens = Tokens::start(generous());
    let sendmail = home(source, &relay, &tokens, desktop);
    let ran = sendmail.run(&[mode, "bob@example.org"], LETTER);
    assert_eq!(ran.status, 0, "{source:?}: {ran:?}");
    (relay, tokens, sendmail)
}

/// The world of an account whose runner is its own.
fn waiting(source: Source, relay: &Relay, tokens: &Tokens, desktop: Option<&Desktop>) -> Sendmail {
    let sendmail = world(source, relay, tokens, desktop);
    let text = fs::read_to_string(sendmail.home().join("config.toml")).unwrap();
    sendmail.put("config.toml", &text.replace("runner = \"off\"", "runner = \"on\""));
    sendmail
}

#[test]
fn a_runner_that_sleeps_has_no_secret_at_all() {
    if !is_root() {
        return;
    }
    let (sources, desktop) = sources();
    assert_unseen(side_by_side(&sources, |source| {
        let (relay, _tokens, sendmail) = put_off(source, desktop.as_ref(), waiting, "-odb");
        let retry = sendmail.called("pillarbox");
        let (until, mut asked) = (Instant::now() + 2 * WATCHDOG, Instant::now());
        while !relay.has_heard("RCPT") {
            assert!(Instant::now() < until, "{source:?}: the letter was not tried");
            // On a machine with much to do the keyring may be late; then it is asked again.
            if sleeper(&retry).is_some() && asked.elapsed() > Duration::from_secs(8) {
                retry.run(&["queue", "retry", "all"], b"");
                asked = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = wait_for("a runner that sleeps", || sleeper(&retry));
        let process = format!("/proc/{pid}");
        let shown = ["cmdline", "environ"].map(|name| fs::read(format!("{process}/{name}")).unwrap());
        assert!(shown[1].starts_with(b"HOME=") || memchr::memmem::find(&shown[1], b"\0HOME=").is_some());
        let mut seen = told_in(source, "asleep", "arguments and environment", &shown.concat());
        seen.extend(comes_to_rest(pid, &[]).map(|found| format!("{source:?}: in the memory of a sleeper: {found:?}")));
        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGTERM).unwrap();
        wait_for("the runner's end", || {
            fs::read(format!("{process}/cmdline")).unwrap_or_default().is_empty().then_some(())
        });
        (1, seen)
    }));
}

#[test]
fn a_run_that_comes_again_keeps_between_two_what_its_settings_have() {
    if !is_root() {
        return;
    }
    let (sources, desktop) = sources();
    assert_unseen(side_by_side(&sources, |source| {
        let (relay, _tokens, mut sendmail) = put_off(source, desktop.as_ref(), world, "-odq");
        let mut seen = Vec::new();
        for _ in 0..12 {
            let running = sendmail.start(&["-q30m"]);
            let until = Instant::now() + Duration::from_secs(20);
            while !relay.has_heard("RCPT") && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            let is_tried = relay.has_heard("RCPT");
            if is_tried {
                let found = comes_to_rest(running.pid(), &kept(source));
                seen.extend(found.map(|found| format!("{source:?}: in the memory between two runs: {found:?}")));
                seen.extend(told_in(source, "between two runs", "arguments and environments", &everybody()));
            }
            running.signal(Signal::SIGTERM);
            let ran = running.end();
            assert_eq!(ran.status, 0, "{source:?}: {ran:?}");
            seen.extend(told_in(source, "between two runs", "what it says", ran.stderr.as_bytes()));
            if is_tried {
                return (1, seen);
            }
            // The keyring was late.
            sendmail = sendmail.called("pillarbox");
            sendmail.run(&["queue", "retry", "all"], b"");
            sendmail = sendmail.called("sendmail");
        }
        panic!("{source:?}: the letter was not tried");
    }));
}
