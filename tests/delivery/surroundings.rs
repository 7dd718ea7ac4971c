//! What surrounds a call: wrong words, closed descriptors, limits, a foreign environment, broken input, signals.

use crate::support::case::{case, check};
use crate::support::relay::{Act, DOT, GREETING, Relay, Script};
use crate::support::running::Ended;
use crate::support::sendmail::Sendmail;
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[test]
fn a_wrong_call_is_64_and_its_input_is_read_all_the_same() {
    let input = "Subject: x\n\n".to_owned() + &"0123456789\n".repeat(100_000);
    let wrong = |words: &[&str], part: &str| {
        case(&words.join(" ")).words(words).input(&input).status(64).says(&[part]).unsent().unqueued()
    };
    check([
        wrong(&["-Z", "bob@example.org"], "-Z"),
        wrong(&["-zt"], "-z"),
        wrong(&["--frobnicate"], "--frobnicate"),
        wrong(&["bob@example.org", "-t"], "options must precede recipients"),
        wrong(&["bob@example.org", "-f", "x@y.example"], "options must precede recipients"),
        wrong(&["-"], "-"),
        wrong(&["-f"], "-f"),
        wrong(&["-bv", "bob@example.org"], "-bv"),
        wrong(&["-bd"], "-bd"),
        wrong(&[], "no recipients"),
        wrong(&[""], "no recipients"),
        wrong(&["-t"], "no recipients"),
    ]);
}

#[test]
fn hostile_surroundings_change_nothing() {
    let through = |name: &str, line: &'static str| case(name).world(move |sendmail| sendmail.through(line));
    check([
        through("closed output", "exec \"$@\" >&-").body("hello\n"),
        through("closed error", "exec \"$@\" 2>&-").body("hello\n"),
        through("closed output and error", "exec \"$@\" >&- 2>&-").body("hello\n"),
        through("everything closed: an empty letter", "exec \"$@\" <&- >&- 2>&-").body("").input(""),
        through("an error to a full device", "exec \"$@\" 2>/dev/full").body("hello\n"),
        through("a deleted directory", "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"").body("hello\n"),
        through("no file may be written", "ulimit -f 0; exec \"$@\"").body("hello\n"),
        through("ignored signals", "trap '' PIPE HUP TERM INT; exec \"$@\"").body("hello\n"),
        through("few files", "ulimit -n 16; exec \"$@\"").body("hello\n"),
        through("a wide umask", "umask 000; exec \"$@\"").body("hello\n"),
        case("no HOME").world(|sendmail| sendmail.without("HOME")).body("hello\n"),
        case("a stranger's HOME").world(|sendmail| sendmail.env("HOME", "/proc/1")).body("hello\n"),
        case("a HOME that is not there").world(|sendmail| sendmail.env("HOME", "/nonexistent")).body("hello\n"),
        case("USER and LOGNAME are not believed")
            .world(|sendmail| sendmail.env("USER", "mallory").env("LOGNAME", "mallory").env("NAME", "Mallory"))
            .also(|_, _, heard| {
                let all = String::from_utf8_lossy(&heard[0].encrypted).into_owned();
                if all.to_lowercase().contains("mallory") { Err(all) } else { Ok(()) }
            }),
        case("an empty environment")
            .words(&["-C", "HOME/config.toml", "bob@example.org"])
            .queue("dir = \"HOME/queue\"")
            .world(|sendmail| sendmail.through("exec env -i \"$@\""))
            .body("hello\n"),
        through("no file may be written and the relay is down: 75, and no signal", "ulimit -f 0; exec \"$@\"")
            .account("port = 1")
            .unsent()
            .status(75)
            .says(&[])
            .unqueued(),
    ]);
}

#[test]
fn the_name_that_a_program_is_called_by_is_escaped_like_any_strangers_text() {
    let log = "log = \"stderr\"\n[account.a]\nhost = \"127.0.0.1:1\"\ntls = \"none\"\n[queue]\nrunner = \"off\"\n";
    let house = Sendmail::new(log);
    for program in [env!("CARGO_BIN_EXE_sendmail"), env!("CARGO_BIN_EXE_pillarbox")] {
        for words in [&["--help"][..], &["-Z"], &["--frobnicate"], &["-odq", "bob@example.org"], &["-bp"], &[]] {
            let mut command = Command::new(program);
            command.arg0("/x/evil\nok: relayed\x1b[2J\u{202e}").args(words).env_clear();
            let ended = Ended::of(command.envs(house.environment().iter().cloned()), b"Subject: x\n\nhello\n");
            let said = [ended.stdout, ended.stderr].concat();
            let is_raw = said.contains("\nok: relayed") || said.contains(['\x1b', '\u{202e}']);
            assert!(!is_raw, "{program} {words:?}: {said}");
        }
    }
}

#[test]
fn input_that_fails_delivers_nothing() {
    check([case("a directory")
        .world(|sendmail| sendmail.through("exec \"$@\" </"))
        .input("")
        .status(74)
        .says(&[])
        .unsent()]);
}

#[test]
fn input_that_is_refused_early_is_read_all_the_same() {
    let rest = "0123456789\n".repeat(300_000);
    check([
        case("a NUL at the beginning")
            .input(format!("Subject: x\n\nno\0w\n{rest}"))
            .status(65)
            .says(&["NUL", "line 3"])
            .unsent(),
        case("a header without an end")
            .input(format!("X: {}\n", "y ".repeat(4_000_000)))
            .status(65)
            .says(&["header"])
            .unsent(),
        case("no room for it")
            .input(format!("Subject: x\n\n{rest}"))
            .world(|sendmail| sendmail.through("ulimit -f 0; exec \"$@\""))
            .status(75)
            .says(&[])
            .unsent()
            .unqueued(),
    ]);
}

#[test]
fn nothing_is_made_by_name_from_the_arguments() {
    let words = ["-X", "HOME/log", "-DHOME/debug", "-oQHOME/queue2", "-OQueueDirectory=HOME/queue3", "bob@example.org"];
    check([case("-X, -D, -oQ, -O").words(&words).also(|sendmail, _, _| {
        let made = ["log", "debug", "queue2", "queue3"].into_iter().find(|name| sendmail.home().join(name).exists());
        made.map_or(Ok(()), |name| Err(format!("{name} was made")))
    })]);
}

/// A letter on its way is kept; one that has not ended is nobody's.
#[test]
fn a_signal_keeps_a_whole_letter_and_drops_half_a_one() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for moment in [GREETING, "MAIL", "RCPT", DOT] {
            let relay = Relay::start(Script::default().on(moment, Act::Stall));
            let sendmail = Sendmail::to(&relay);
            let mut running = sendmail.start(&["bob@example.org"]);
            running.feed(b"Subject: x\n\nhello\n");
            running.hang_up();
            relay.wait_for(1);
            running.signal(signal);
            let ran = running.end();
            assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{signal} at {moment}");
            let list = sendmail.run(&["-bp"], b"").stdout;
            assert!(list.contains("bob@example.org") && list.contains("in 1 Request"), "{signal} at {moment}: {list}");
        }
        let relay = Relay::start(Script::default());
        let sendmail = Sendmail::to(&relay);
        let mut running = sendmail.start(&["bob@example.org"]);
        // More than a pipe holds: when it is taken, the signals are, too.
        running.feed("Subject: x\n\n".as_bytes());
        running.feed("hello\n".repeat(100_000).as_bytes());
        running.wait_until_fed();
        running.signal(signal);
        let ran = running.ended();
        assert_eq!(ran.status, 75, "{signal} in the input: {ran:?}");
        assert_eq!(sendmail.run(&["-bp"], b"").stdout, "Mail queue is empty\n");
        assert_eq!(relay.finish().len(), 0);
    }
}
