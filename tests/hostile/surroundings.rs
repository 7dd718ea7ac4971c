//! A caller whose world is broken: the environment, the descriptors, the files that lie about.

use crate::attack::call;
use crate::harm::{is_clean, tree};
use crate::measure;
use crate::support::relay::{Relay, Script};
use crate::support::running::Ended;
use crate::support::sendmail::{Sendmail, sendmail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

#[test]
fn no_environment_makes_it_fail_write_elsewhere_or_speak() {
    let long = "x".repeat(100_000);
    let worlds: &[(&str, &[(&str, &str)])] = &[
        ("HOME is relative", &[("HOME", "..")]),
        ("HOME is a file", &[("HOME", "/etc/passwd")]),
        ("HOME is empty", &[("HOME", "")]),
        ("HOME is no text", &[("HOME", "/\u{1b}[2J")]),
        ("HOME is long", &[("HOME", &long)]),
        ("TMPDIR leads nowhere", &[("TMPDIR", "/nonexistent")]),
        ("TMPDIR is a file", &[("TMPDIR", "/etc/passwd")]),
        ("PATH is empty", &[("PATH", "")]),
        ("PATH is here", &[("PATH", ".")]),
        ("a loader's debugging", &[("LD_BIND_NOW", "1"), ("LD_LIBRARY_PATH", ".")]),
        ("locales", &[("LANG", "tr_TR.UTF-8"), ("LC_ALL", "xx_YY.\u{1b}[2J"), ("LANGUAGE", "../../etc")]),
        ("time zones", &[("TZ", ":/etc/passwd")]),
        ("a time zone without end", &[("TZ", &long)]),
        ("a time zone elsewhere", &[("TZ", "../../../../etc/shadow"), ("TZDIR", "/proc/self")]),
        (
            "XDG",
            &[
                ("XDG_CONFIG_HOME", "relative"),
                ("XDG_STATE_HOME", "\n"),
                ("XDG_RUNTIME_DIR", "/etc/passwd"),
                ("XDG_DATA_HOME", &long),
            ],
        ),
        (
            "who one is",
            &[
                ("USER", "root\nX-Evil: 1"),
                ("LOGNAME", "evil"),
                ("MAIL", "/etc/passwd"),
                ("NAME", "evil\r\nX-Evil: 1"),
                ("EMAIL", "evil"),
            ],
        ),
        (
            "TLS's",
            &[
                ("SSLKEYLOGFILE", "keys"),
                ("SSL_CERT_FILE", "/nonexistent"),
                ("SSL_CERT_DIR", "/proc"),
                ("OPENSSL_CONF", "x"),
            ],
        ),
        ("Rust's", &[("RUST_BACKTRACE", "full"), ("RUST_LOG", "trace"), ("RUST_MIN_STACK", "1"), ("NO_COLOR", "1")]),
        (
            "the allocator's",
            &[("MALLOC_ARENA_MAX", "1"), ("MALLOC_PERTURB_", "165"), ("GLIBC_TUNABLES", "glibc.malloc.check=3")],
        ),
        (
            "systemd's",
            &[
                ("CREDENTIALS_DIRECTORY", "/proc/self"),
                ("LISTEN_FDS", "99999"),
                ("LISTEN_PID", "1"),
                ("NOTIFY_SOCKET", "/dev/null"),
                ("JOURNAL_STREAM", "1:1"),
                ("WATCHDOG_USEC", "x"),
            ],
        ),
        ("proxies", &[("ALL_PROXY", "socks5://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")]),
        ("a queue that is relative", &[("PILLARBOX_QUEUE_DIR", "")]),
        ("mailrc's", &[("MAILRC", "/etc/passwd"), ("MAILX_ARGS", "-v")]),
    ];
    for (name, world) in worlds {
        let relay = Relay::start(Script::default());
        let mut home = Sendmail::to(&relay);
        for (key, value) in *world {
            home = home.env(key, value);
        }
        let before = tree(home.home());
        let ran = home.run(&["bob@example.org"], b"Subject: x\n\nhello\n");
        assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (0, "", ""), "{name}");
        let made: Vec<_> = tree(home.home()).difference(&before).cloned().collect();
        assert!(made.is_empty(), "{name}: {made:?}");
        let heard = relay.finish();
        assert_eq!(heard.iter().map(|dialogue| dialogue.letters.len()).sum::<usize>(), 1, "{name}");
        is_clean(&heard).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn no_descriptor_costs_a_letter_or_gets_what_is_not_for_it() {
    let letter: &[u8] =
        b"From: <alice@example.com>\nTo: <bob@example.org>\nSubject: whole\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n\
        Message-ID: <whole@example.com>\n\nhello\n";
    for (how, status) in [
        (">&-", 0),
        ("2>&-", 0),
        (">&- 2>&-", 0),
        (">/dev/full 2>/dev/full", 0),
        ("2>/", 0),
        ("3>&1 4>&1 5>&1", 0),
        ("<&-", 0),
        ("<&- >&- 2>&-", 0),
        ("<&- >&-", 0),
        ("<&- 2>&-", 0),
        ("0>/dev/null", 74),
        ("</", 74),
        ("</ >&- 2>&-", 74),
        ("</dev/null", 0),
        ("<input 1<&0 2<&0", 0),
        ("1>input.copy 2>&1", 0),
    ] {
        let relay = Relay::start(Script::open().on("RCPT", "451 4.7.1 later"));
        let home = Sendmail::to(&relay);
        home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
        fs::write(home.home().join("input"), letter).unwrap();
        if how == "2>/" {
            // A shell cannot, and says so before.
            continue;
        }
        let home = home.through(&format!("exec \"$@\" {how}"));
        for words in [&["-v", "bob@example.org"][..], &["-bp"], &["-qf"]] {
            let before = Ended::of(
                Command::new("/bin/sh")
                    .args(["-c", &format!("exec \"$@\" {how}"), "sh", &sendmail().display().to_string()])
                    .args(words)
                    .env_clear()
                    .envs(home.environment().iter().cloned())
                    .current_dir(home.home()),
                letter,
            );
            let ended = before.status;
            let wanted = if words[0] == "-v" { status } else { 0 };
            let full = how.contains("/dev/full") && words[0] == "-bp";
            assert!(ended == wanted || full && ended == 74, "{how} {words:?}: {before:?}");
        }
        let listed = pillarbox::queue::Queue::find(&home.queue()).unwrap();
        let letters = listed.map_or(0, |queue| queue.list().unwrap().flatten().count());
        assert_eq!(letters, usize::from(status == 0), "{how}");
        drop(relay.finish());
        let good = Relay::start(Script::open());
        home.configure(&good, "tls = \"none\"\nuser =\npassword =\n", "");
        let plain =
            Command::new(sendmail()).arg("-qf").env_clear().envs(home.environment().iter().cloned()).status().unwrap();
        assert!(plain.success());
        let heard = good.finish();
        let got: Vec<_> = heard.iter().flat_map(|dialogue| &dialogue.letters).collect();
        assert_eq!(got.len(), usize::from(status == 0), "{how}");
        if how.contains("input") || how.contains("3>") || how.starts_with('>') || how.starts_with('2') {
            assert_eq!(
                String::from_utf8_lossy(&got[0].content).replace("\r\n", "\n"),
                String::from_utf8_lossy(letter),
                "{how}"
            );
        }
    }
}

/// Whoever shares a pipe or a terminal with us can make it one that does not block.
#[test]
fn a_standard_input_that_does_not_block_is_waited_for() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let letter: &[u8] = b"Subject: whole\n\nhello\n";
    let dialogue: &[u8] = b"EHLO x\nMAIL FROM:<a@b.example>\nRCPT TO:<bob@example.org>\nDATA\nx: y\n\nhello\n.\nQUIT\n";
    for (words, input) in [(&["-odq", "bob@example.org"][..], letter), (&["-odq", "-bs"], dialogue)] {
        let home = Sendmail::new(
            "default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n[queue]\nrunner = \"off\"\n",
        );
        let (reader, mut writer) = std::io::pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let ours = reader.try_clone().unwrap();
        let mut command = Command::new(sendmail());
        command.args(words).env_clear().envs(home.environment().iter().cloned());
        let mut child = command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        for piece in input.chunks(7) {
            writer.write_all(piece).unwrap();
            let is_read = || poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 0;
            // From then on it looks for the next one.
            while !is_read() && child.try_wait().unwrap().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop((ours, writer));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        let kept: Vec<_> = fs::read_dir(home.queue().join("letters")).unwrap().map(|one| one.unwrap().path()).collect();
        assert_eq!(kept.len(), 1, "{words:?}: {output:?}");
        let kept = fs::read(&kept[0]).unwrap();
        assert!(memchr::memmem::find(&kept, b"\r\n\r\nhello\r\n").is_some(), "{words:?}: {}", kept.escape_ascii());
    }
}

#[test]
fn a_caller_who_stalls_keeps_no_relay_waiting_and_can_be_ended() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let relay = Relay::start(Script::open());
        let home = Sendmail::to(&relay);
        home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
        let mut running = home.start(&["bob@example.org"]);
        running.feed(&[b"Subject: x\n\n".to_vec(), vec![b'y'; 300_000]].concat());
        running.wait_until_fed();
        assert_eq!(relay.connections(), 0);
        running.signal(signal);
        let ran = running.ended();
        assert_eq!(ran.status, 75, "{signal}: {ran:?}");
        assert_eq!(relay.finish().len(), 0);
        assert_eq!(fs::read_dir(home.queue().join("letters")).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn whatever_lies_where_a_file_should_hangs_nobody_up_and_loses_nothing() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 6] = [
        ("a FIFO", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("a dangling link", |path| std::os::unix::fs::symlink("/nonexistent/file", path).unwrap()),
        ("a link to itself", |path| std::os::unix::fs::symlink(path, path).unwrap()),
        ("an endless device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    // Where, a line for the top, a line for the account, and the statuses that are right.
    let places: [(&str, &str, &str, &[i32]); 12] = [
        ("config.toml", "", "", &[78]),
        ("aliases", "alias_file = \"HOME/aliases\"", "", &[78]),
        ("log", "log = \"HOME/log\"", "", &[0]),
        ("ca.pem", "", "", &[0]),
        ("own.pem", "", "cert_file = \"HOME/own.pem\"", &[0]),
        ("crl.pem", "", "crl_file = \"HOME/crl.pem\"", &[0]),
        ("password", "", "password = { file = \"HOME/password\" }", &[0]),
        (".netrc", "", "password = { netrc = true }", &[0]),
        ("queue", "", "", &[73]),
        ("queue/letters", "", "", &[73]),
        ("queue/tmp", "", "", &[73]),
        ("queue/runner.lock", "", "", &[0]),
    ];
    for (what, plant) in plants {
        for (place, top, account, right) in places {
            let relay = Relay::start(Script::default().on("RCPT", "451 4.7.1 later"));
            let home = Sendmail::to(&relay);
            let named = |line: &str| line.replace("HOME", &home.home().display().to_string());
            home.configure(&relay, &named(account), "");
            let text = fs::read_to_string(home.home().join("config.toml")).unwrap();
            home.put("config.toml", &format!("{}\n{text}", named(top)));
            let path = home.home().join(place);
            if place.starts_with("queue") {
                drop(pillarbox::queue::Queue::open(&home.queue()).unwrap());
                let _ = fs::remove_dir_all(&path);
            }
            let _ = fs::remove_file(&path);
            plant(&path);
            let name = format!("{what} for {place}");
            let ended = call(&home, &["root"], b"Subject: x\n\nhello\n");
            let said = String::from_utf8_lossy(&ended.said).into_owned();
            assert!(!ended.hung, "{name}: hung");
            let status = ended.status.unwrap_or(-1);
            // A directory is what a queue's directory should be.
            let is_fine = what == "a directory" && place.starts_with("queue") && place != "queue/runner.lock";
            assert!(right.contains(&status) || is_fine && status == 0, "{name}: {status} {said}");
            assert!(status == 0 || said.contains(place.rsplit('/').next().unwrap()), "{name}: {said}");
            assert!(!said.contains("no configuration"), "{name}: {said}");
            if status == 0 {
                let letters = fs::read_dir(home.queue().join("letters")).map_or(0, Iterator::count);
                assert_eq!(letters, 1, "{name}: {said}");
            }
            drop(relay.finish());
        }
    }
}

#[test]
fn wherever_the_queue_cannot_be_the_letter_is_the_caller_s_and_told_to_be() {
    let relay = Relay::start(Script::open().on("RCPT", "451 4.7.1 later"));
    let home = Sendmail::to(&relay);
    home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
    let at = |name: &str| home.home().join(name);
    std::os::unix::fs::symlink("/nonexistent/volume", at("dangling")).unwrap();
    std::os::unix::fs::symlink(at("round"), at("round")).unwrap();
    fs::write(at("file"), b"").unwrap();
    let places = [
        at("dangling/state/queue"),
        at("dangling/queue"),
        at("dangling"),
        at("round/queue"),
        at("file/queue"),
        at(&"long".repeat(100)).join("queue"),
        at(&"deep/".repeat(1000)),
        PathBuf::from("/proc/nothing/queue"),
        PathBuf::from("/proc/queue"),
    ];
    for place in places {
        let mut command = Command::new(sendmail());
        command.arg("bob@example.org").envs(home.environment().iter().cloned());
        command.env("PILLARBOX_QUEUE_DIR", &place).current_dir(home.home());
        fs::write(at("input"), "Subject: x\n\nhello\n").unwrap();
        let ended = measure::run(&command, Stdio::from(File::open(at("input")).unwrap()), home.home());
        let said = String::from_utf8_lossy(&ended.said).into_owned();
        assert_eq!(ended.status, Some(73), "{}: {said}", place.display());
        assert!(said.ends_with("nothing was sent and nothing is kept\n"), "{}: {said}", place.display());
        assert!(!place.exists(), "{}", place.display());
    }
    drop(relay.finish());
}

/// The library that reads them would open a FIFO and wait, and read a device to its end.
#[test]
fn roots_that_the_environment_names_hang_nobody_up() {
    type Plant = fn(&Path);
    let fifo: Plant = |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases: [(&str, Plant, &str); 5] = [
        ("a FIFO", fifo, "is not a regular file"),
        ("an endless device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(), "is not a regular file"),
        ("a directory", |path| fs::create_dir(path).unwrap(), "is not a regular file"),
        ("a huge file", |path| fs::File::create(path).unwrap().set_len(65 << 20).unwrap(), "has more than 64 MiB"),
        ("nothing", |_| {}, "No such file or directory"),
    ];
    for (what, plant, why) in cases {
        let relay = Relay::start(Script::default());
        let home = Sendmail::with(&relay, "ca_file =\n", "");
        let path = home.home().join("roots");
        plant(&path);
        let home = home.env("SSL_CERT_FILE", &path);
        let ended = call(&home, &["bob@example.org"], b"Subject: x\n\nhello\n");
        let said = String::from_utf8_lossy(&ended.said).into_owned();
        assert!(!ended.hung && ended.status == Some(0), "{what}: {said}");
        assert!(said.contains(&path.display().to_string()) && said.contains(why), "{what}: {said}");
        assert_eq!(fs::read_dir(home.queue().join("letters")).unwrap().count(), 1, "{what}");
        drop(relay.finish());
    }
}
