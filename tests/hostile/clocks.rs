//! Clocks that jump by years, in either direction: no letter is given up for it, and none waits for the clock.

use crate::support::peer;
use crate::support::relay::{Relay, Script};
use crate::support::sendmail::{Sendmail, sendmail};
use std::fs;
use std::process::{Command, Stdio};

/// A home whose relay puts everything off.
fn home() -> (Relay, Sendmail) {
    let late = Relay::start(Script::open().on("RCPT", "451 4.7.1 later"));
    let home = Sendmail::to(&late);
    home.configure(&late, "tls = \"none\"\nuser =\npassword =\n", "lifetime = \"5d\"");
    (late, home)
}

/// Runs `sendmail` at a time, as faketime(1) understands it.
fn at(home: &Sendmail, time: &str, words: &[&str]) {
    let mut command = Command::new("faketime");
    command.args(["-f", time]).arg(sendmail()).args(words).env_clear();
    command
        .envs(home.environment().iter().cloned())
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("TZ", "UTC");
    let input = home.put("input.eml", "Subject: x\n\nhello\n");
    let output = command.stdin(Stdio::from(fs::File::open(input).unwrap())).output().unwrap();
    assert!(output.status.success(), "at {time} {words:?}: {output:?}");
}

fn names(home: &Sendmail, dir: &str) -> usize {
    fs::read_dir(home.queue().join(dir)).map_or(0, Iterator::count)
}

const SEND: [&str; 4] = ["-odq", "-f", "alice@example.com", "bob@example.org"];

#[test]
fn a_letter_from_a_clock_that_was_not_set_is_not_given_up_when_it_is() {
    if !peer::here(&["faketime"]) {
        return;
    }
    for (then, now) in
        [("@1971-01-01 00:00:00", "@2026-11-28 00:00:00"), ("@2026-11-01 00:00:00", "@2056-11-01 00:00:00")]
    {
        let (late, home) = home();
        at(&home, then, &SEND);
        at(&home, then, &["-qf"]);
        // Twice, by a clock that is right by then.
        for _ in 0..2 {
            at(&home, now, &["-qf"]);
            assert_eq!((names(&home, "letters"), names(&home, "failed")), (1, 0), "from {then} to {now}");
        }
        drop(late.finish());
    }
}

#[test]
fn a_letter_from_the_future_is_tried_now_and_given_up_in_time() {
    if !peer::here(&["faketime"]) {
        return;
    }
    let (late, home) = home();
    at(&home, "@2040-01-01 00:00:00", &SEND);
    at(&home, "@2040-01-01 00:00:01", &["-qf"]);
    // The clock is set right, and the next attempt is not one for 2040: what is due, no more.
    let before = late.connections();
    at(&home, "@2026-11-28 00:00:00", &["-q"]);
    at(&home, "@2026-11-28 04:00:01", &["-q"]);
    assert!(late.connections() > before);
    // From here on it ages by that clock. (What has failed is kept by the file's own date, which nobody fakes.)
    let days = ["11-28", "11-29", "11-30", "12-01", "12-02", "12-03"];
    let times = days.iter().flat_map(|day| [5, 10, 15, 20].map(|hour| format!("@2026-{day} {hour:02}:00:00")));
    let given_up = times.into_iter().find(|time| {
        at(&home, time, &["-qf"]);
        names(&home, "failed") == 1
    });
    assert_eq!(given_up.as_deref(), Some("@2026-12-03 05:00:00"));
    drop(late.finish());
}

#[test]
fn a_clock_that_goes_back_and_forth_gives_nothing_up_and_holds_nothing_up() {
    if !peer::here(&["faketime"]) {
        return;
    }
    let (late, home) = home();
    at(&home, "@2026-11-28 00:00:00", &SEND);
    for time in ["@2036-01-01 00:00:00", "@1999-12-31 23:59:59", "@2038-01-19 03:14:08"] {
        at(&home, time, &["-qf"]);
        assert_eq!((names(&home, "letters"), names(&home, "failed")), (1, 0), "{time}");
    }
    drop(late.finish());
    let good = Relay::start(Script::open());
    home.configure(&good, "tls = \"none\"\nuser =\npassword =\n", "");
    at(&home, "@2001-01-01 00:00:00", &["-qf"]);
    assert_eq!(good.finish().iter().flat_map(|dialogue| &dialogue.letters).count(), 1);
    assert_eq!(names(&home, "letters"), 0);
}

#[test]
fn a_letter_that_failed_outlives_a_clock_that_jumps() {
    if !peer::here(&["faketime"]) {
        return;
    }
    let relay = Relay::start(Script::open().on("RCPT TO:<bob", "550 5.1.1 unknown"));
    let home = Sendmail::to(&relay);
    home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
    at(&home, "+0d", &SEND);
    at(&home, "+0d", &["-qf"]);
    for time in ["+30y", "-20y", "+40y"] {
        at(&home, time, &["-qf"]);
        assert_eq!(names(&home, "failed"), 1, "{time}");
    }
    drop(relay.finish());
}
