//! Signals, dead relays and dead runners: who has the letter then?

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pillarbox::queue::State;

use crate::house::{House, sendmail, until, wait};
use crate::letter::Letter;
use crate::sink::{Mood, Sink};

/// The name under which the program is the background runner.
const RUNNER: &str = "pillarbox-runner";

fn send_signal(child: &Child, signal: Signal) {
    kill(pid(child), signal).unwrap();
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Waits until a process has the thread that takes its signals: before that nothing has been read either.
fn until_it_listens(child: &Child) {
    let tasks = format!("/proc/{}/task", child.id());
    until("there is a thread for signals", || {
        std::fs::read_dir(&tasks)
            .unwrap()
            .flatten()
            .any(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "signals"))
    });
}

#[test]
fn a_signal_before_the_end_of_standard_input_means_no_mail() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGALRM] {
        for mode in ["-odi", "-odq"] {
            let sink = Sink::open();
            let house = House::new(&sink);
            let letter = Letter::new("half", &["bob"], 50);
            let mut child = house.command(&sendmail()).args(letter.words(mode)).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            let text = letter.text();
            input.write_all(&text.as_bytes()[..text.len() / 2]).unwrap();
            until_it_listens(&child);
            send_signal(&child, signal);
            let (status, hung) = wait(&mut child);
            assert!(!hung && status.code() == Some(75), "{signal} {mode}: {status}");
            assert_eq!(house.names("letters"), [""; 0]);
            house.run_dry();
            assert_eq!(sink.connections(), 0);
        }
    }
}

#[test]
fn a_signal_during_the_attempt_commits_the_letter() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGXCPU] {
        let sink = Sink::open();
        sink.set(Mood::SilentAfterMail("alice"));
        let house = House::new(&sink);
        let letter = Letter::new("interrupted", &["bob"], 50);
        let mut command = house.command(&sendmail());
        let mut child = command.args(letter.words("-odi")).stdin(house.input(&letter)).spawn().unwrap();
        sink.wait_for_mails(1);
        send_signal(&child, signal);
        let (status, hung) = wait(&mut child);
        assert!(!hung && status.code() == Some(0), "{signal}: {status}");
        assert_eq!(house.waiting().len(), 1, "{signal}");
        sink.set(Mood::Willing);
        house.run_dry();
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1, "{signal}");
        assert_eq!(letter.damaged(&sink.taken()), 0);
    }
}

#[test]
fn whoever_waits_for_a_client_or_a_relay_can_be_told_to_go() {
    let sink = Sink::open();
    let house = House::new(&sink);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut session =
            house.command(&sendmail()).arg("-bs").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It waits for the first command once it has greeted.
        let mut greeting = [0; 4];
        session.stdout.as_mut().unwrap().read_exact(&mut greeting).unwrap();
        send_signal(&session, signal);
        let (status, hung) = wait(&mut session);
        assert!(!hung && status.code() == Some(75), "-bs, {signal}: {status}");

        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = house.path("silent.toml");
        let port = silent.local_addr().unwrap().port();
        std::fs::write(&config, format!("[account.a]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n")).unwrap();
        let mut check = house
            .command(env!("CARGO_BIN_EXE_pillarbox"))
            .arg("check")
            .env("PILLARBOX_CONFIG", &config)
            .spawn()
            .unwrap();
        let connection = silent.accept().unwrap();
        send_signal(&check, signal);
        let (status, hung) = wait(&mut check);
        assert!(!hung && status.code() == Some(75), "check, {signal}: {status}");
        drop(connection);
    }
}

#[test]
fn an_answer_to_the_final_dot_that_comes_after_the_deadline_still_counts() {
    let sink = Sink::open();
    sink.set(Mood::SilentAfterDot);
    let house = House::with(&sink, "runner = \"off\"\ndeadline = \"1s\"\n");
    let letter = Letter::new("slow", &["bob"], 50);
    let mut command = house.command(&sendmail());
    let mut child = command.args(letter.words("-odi")).stdin(house.input(&letter)).spawn().unwrap();
    sink.wait_for_dots(1);
    until("the letter is in the queue", || !house.names("letters").is_empty());
    // Others leave it alone meanwhile.
    assert_eq!(house.call(&["-qf"]).code(), Some(0));
    assert_eq!(sink.taken().len(), 1);
    sink.set(Mood::Willing);
    let (status, hung) = wait(&mut child);
    assert!(!hung && status.code() == Some(0), "{status}");
    house.run_dry();
    assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
}

#[test]
fn whoever_kills_us_while_the_final_dot_is_unanswered_past_the_deadline_loses_nothing() {
    let sink = Sink::open();
    sink.set(Mood::SilentAfterDot);
    let house = House::with(&sink, "runner = \"off\"\ndeadline = \"1s\"\n");
    let letter = Letter::new("unanswered", &["bob"], 50);
    let mut command = house.command(&sendmail());
    let mut child = command.args(letter.words("-odi")).stdin(house.input(&letter)).spawn().unwrap();
    sink.wait_for_dots(1);
    until("the letter is in the queue", || !house.names("letters").is_empty());
    send_signal(&child, Signal::SIGKILL);
    wait(&mut child);
    let waiting = house.waiting();
    let verdict = waiting[0].letter.history.verdict(0).expect("the queue says what it knows");
    assert!(
        matches!(verdict.outcome, pillarbox::outcome::Outcome::Deferred { maybe_duplicate: true, .. }),
        "{verdict:?}"
    );
    sink.set(Mood::Willing);
    sink.settle();
    house.run_dry();
    // RFC 1047: the relay has it, and nobody can know.
    assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 2);
    assert_eq!(letter.damaged(&sink.taken()), 0);
}

#[test]
fn a_run_that_is_told_to_end_does_and_loses_nothing() {
    for (name, words) in [("sendmail", vec!["-qf"]), ("sendmail", vec!["-q30m"]), (RUNNER, vec![])] {
        let sink = Sink::open();
        sink.set(Mood::SilentAfterMail("alice"));
        let house = House::new(&sink);
        let letters: Vec<Letter> = (0..5).map(|n| Letter::new(format!("ended-{n}-"), &["bob"], 9)).collect();
        for letter in &letters {
            assert_eq!(house.send("-odq", letter).code(), Some(0));
        }
        let mut child = house.command(&sendmail()).arg0(name).args(&words).spawn().unwrap();
        sink.wait_for_mails(1);
        send_signal(&child, Signal::SIGTERM);
        let (status, hung) = wait(&mut child);
        assert!(!hung && status.code() == Some(0), "{name} {words:?}: {status}");
        assert_eq!(house.waiting().len(), letters.len(), "{name} {words:?}");
        sink.set(Mood::Willing);
        house.run_dry();
        for letter in &letters {
            assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1, "{name} {words:?}");
        }
    }
}

#[test]
fn being_told_to_end_again_and_again_makes_no_letter_a_poisoned_one() {
    let sink = Sink::open();
    let house = House::new(&sink);
    let letters: Vec<Letter> = (0..5).map(|n| Letter::new(format!("patient-{n}-"), &["bob"], 9)).collect();
    for letter in &letters {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    sink.set(Mood::SilentAfterMail("alice"));
    for run in 1..=4 {
        let mut child = house.command(&sendmail()).arg("-qf").spawn().unwrap();
        sink.wait_for_mails(run);
        send_signal(&child, Signal::SIGTERM);
        let (status, hung) = wait(&mut child);
        assert!(!hung && status.code() == Some(0), "{status}");
    }
    for listed in house.waiting() {
        assert_ne!(listed.state, State::Hold);
        assert!(!listed.letter.history.is_open(), "an orderly end leaves no attempt open");
    }
    sink.set(Mood::Willing);
    house.run_dry();
    for letter in &letters {
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
    }
}

#[test]
fn a_relay_that_is_down_costs_one_connection_a_run() {
    let sink = Sink::open();
    let house = House::new(&sink);
    let letters: Vec<Letter> = (0..40).map(|n| Letter::new(format!("waits-{n}-"), &["bob"], 1)).collect();
    for letter in &letters {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    sink.set(Mood::Closed);
    for run in 1..=3 {
        assert_eq!(house.call(&["-qf"]).code(), Some(0));
        assert_eq!(sink.connections(), run);
        for listed in house.waiting() {
            assert_eq!(
                (listed.state, listed.letter.history.attempts()),
                (State::Deferred, u32::try_from(run).unwrap())
            );
        }
    }
    sink.set(Mood::Willing);
    house.run_dry();
    for letter in &letters {
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
    }
}

#[test]
fn the_next_call_starts_a_runner_for_the_letters_of_one_that_was_killed() {
    let sink = Sink::open();
    let house = House::with(&sink, "runner = \"on\"\ndeadline = \"50s\"\n");
    let orphan = Letter::new("orphan", &["bob"], 9);
    assert_eq!(house.send("-odq", &orphan).code(), Some(0));
    sink.set(Mood::SilentAfterMail("alice"));
    let mut runner = house.command(&sendmail()).arg0(RUNNER).spawn().unwrap();
    sink.wait_for_mails(1);
    send_signal(&runner, Signal::SIGKILL);
    wait(&mut runner);
    sink.set(Mood::Willing);
    assert!(!house.queue().trigger(), "nobody is awake");

    let next = Letter::new("next", &["carol"], 9);
    assert_eq!(house.send("-odi", &next).code(), Some(0));
    assert_eq!(next.copies(&sink.taken(), &next.to[0]), 1);
    until("a new runner hears", || house.queue().trigger());
    // The orphan's next attempt is a minute away; that is not what is tried here.
    let queue = house.queue();
    let id = house.waiting()[0].letter.entry.id;
    queue.retry(id, std::time::SystemTime::now()).unwrap();
    assert!(queue.trigger());
    until("the orphan is relayed", || orphan.copies(&sink.taken(), &orphan.to[0]) == 1);
    until("the runner has left", || queue.run_alone().unwrap().is_some());
    assert_eq!(house.names("letters"), [""; 0]);
}

#[test]
fn a_sleeping_runner_wakes_for_every_letter_and_for_the_time_and_is_ended_by_a_signal() {
    let sink = Sink::open();
    let house = House::with(&sink, "runner = \"off\"\n");
    // The relay puts this one off, so that the runner stays.
    let late = Letter::new("late", &["later"], 9);
    assert_eq!(house.send("-odq", &late).code(), Some(0));
    house.call(&["-q"]);
    assert_eq!(house.waiting().len(), 1);
    let soon = Letter::new("soon", &["carol"], 9);
    assert_eq!(house.send("-odq", &soon).code(), Some(0));
    let words = ["asleep", "100", "0", house.queue_dir().to_str().unwrap()];
    let mut runner = house.command(&sendmail()).arg0(RUNNER).args(words).spawn().unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", runner.id()));
    let descriptors = || {
        let names =
            std::fs::read_dir(process.join("fd")).unwrap().filter_map(|name| name.ok()?.path().read_link().ok());
        names.map(|name| name.display().to_string()).collect::<Vec<_>>()
    };
    let is_asleep = || {
        let words = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        // The FIFO that it came with and the one that it has opened after the lock; the alarm comes last.
        let count = |end: &str| descriptors().iter().filter(|name| name.ends_with(end)).count();
        words.split('\0').nth(1) == Some("asleep") && (count("/trigger"), count("[timerfd]")) == (2, 1)
    };
    until("what is due in a moment is relayed", || soon.copies(&sink.taken(), &soon.to[0]) == 1);
    let mut open = Vec::new();
    for turn in 0..3 {
        until("the runner sleeps", is_asleep);
        open.push(descriptors().len());
        let next = Letter::new(format!("next-{turn}-"), &["alice"], 9);
        assert_eq!(house.send("-odb", &next).code(), Some(0));
        until("the letter is relayed", || next.copies(&sink.taken(), &next.to[0]) == 1);
    }
    assert_eq!((open[1], open[2]), (open[0], open[0]), "descriptors add up");
    until("the runner sleeps", is_asleep);
    send_signal(&runner, Signal::SIGTERM);
    let (status, _) = wait(&mut runner);
    assert_eq!(status.code(), Some(0), "{status:?}");
}

#[test]
fn a_letter_that_kills_whoever_sends_it_is_held_and_the_others_go() {
    let sink = Sink::open();
    let house = House::new(&sink);
    let mut poison = Letter::new("poison", &["bob"], 1);
    poison.sender = "poison@example.org".to_owned();
    let others: Vec<Letter> = (0..3).map(|n| Letter::new(format!("other-{n}-"), &["bob"], 1)).collect();
    for letter in std::iter::once(&poison).chain(&others) {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    sink.set(Mood::SilentAfterMail("poison"));
    let mut mails = 0;
    for _ in 0..3 {
        let mut child = house.command(&sendmail()).arg("-qf").spawn().unwrap();
        mails += 1;
        sink.wait_for_mails(mails);
        send_signal(&child, Signal::SIGKILL);
        wait(&mut child);
    }
    let ended = house.call(&["-qf"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for letter in &others {
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1, "{}", letter.token);
    }
    let waiting = house.waiting();
    assert_eq!((waiting.len(), waiting[0].state), (1, State::Hold));
    assert!(waiting[0].letter.history.hold().is_some_and(|why| why.contains("died")));
    sink.set(Mood::Willing);
    house.queue().release(waiting[0].letter.entry.id, std::time::SystemTime::now()).unwrap();
    house.run_dry();
    assert_eq!(poison.copies(&sink.taken(), &poison.to[0]), 1);
}
