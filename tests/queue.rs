//! `pillarbox queue` as people see it, in terminals of 80 and 140 columns, and as programs do.
//!
//! The screens are recorded in tests/screens, with ids and times masked; `RECORD=1 cargo test --test queue` records
//! them anew, to be read before they are committed.

#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pillarbox::envelope::{Envelope, Mailbox, Recipient, ReversePath};
use pillarbox::message::Facts;
use pillarbox::outcome::{Blame, Cause, Fault, Outcome, Reply, Stage, Status};
use pillarbox::queue::{Claim, Id, Queue, Submission, Tried};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use support::household::Household;
use support::peer::{Running, here, wait_for};
use support::running::Ended;
use support::terminal::Terminal;

const RELAY: &str = "smtp.example.com:587";

/// Somebody whose queue has something of everything in it.
struct Desk {
    household: Household,
    queue: Queue,
    /// In the order of their arrival; the last one has failed.
    ids: Vec<Id>,
}

fn reply(code: u16, text: &str) -> Cause {
    Cause::Reply(Reply { code, lines: vec![text.to_owned()] })
}

fn later() -> Outcome {
    let fault = Fault::new(Stage::Rcpt, reply(451, "4.7.1 Greylisted, please come back in five minutes"));
    Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 7, 1), maybe_duplicate: false }
}

fn away() -> Outcome {
    let fault = Fault::new(Stage::Connect, Cause::Network("connection refused".to_owned()));
    Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 4, 1), maybe_duplicate: false }
}

fn never() -> Outcome {
    let fault = Fault::new(Stage::Rcpt, reply(550, "5.1.1 no such user"));
    Outcome::Failed { fault, blame: Blame::Recipient, status: Status::new(5, 1, 1) }
}

fn relayed() -> Outcome {
    Outcome::Relayed(Reply { code: 250, lines: vec!["2.0.0 taken".to_owned()] })
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self::empty(1);
        let hour = Duration::from_hours(1);
        let now = SystemTime::now();
        // Ten attempts, so that the next one is between three and four hours away however long the test takes.
        let greylisted = desk.accept("alice@example.org", &["bob@example.com", "carol@example.com"], 9 * hour, 2100);
        desk.attempts(greylisted, now, 10, &[relayed(), later()]);
        let long = ["somebody.with.a.long.name@department.example.com", "dave@example.com", "erin@example.com"];
        let refused = desk.accept("nightly.report@machines.example.org", &long, 30 * hour, 3 << 20);
        desk.attempts(refused, now, 10, &[away(), away(), later()]);
        desk.accept("", &["alice@example.org"], 2 * hour, 900);
        let held = desk.accept("alice@example.org", &["other@far.example"], 50 * hour, 154);
        desk.queue.hold(held, "by hand", now).unwrap();
        let failed = desk.accept("alice@example.org", &["nobody@example.com"], 4 * hour, 200);
        let mut claim = claim(&desk.queue, failed);
        claim.begin(now).unwrap();
        claim.settle(&[Tried { outcome: &never(), relay: RELAY }], now).unwrap();
        claim.report(None, now).unwrap();
        let _ = claim.close().unwrap();
        desk
    }

    /// One with nothing in it, whose relay is at this port.
    fn empty(port: u16) -> Self {
        let household = Household::new(&format!(
            "domain = \"box.example\"\n[account.work]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
             [account.far]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nrecipients = [\"*@far.example\"]"
        ));
        let dir = household.home().join(".local/state/pillarbox/queue");
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        let queue = Queue::open(&dir).unwrap();
        Self { household, queue, ids: Vec::new() }
    }

    fn accept(&mut self, from: &str, to: &[&str], age: Duration, size: usize) -> Id {
        let mailbox = |text: &str| text.split_once('@').map(|(local, domain)| Mailbox::new(local, domain).unwrap());
        let to = to.iter().map(|to| Recipient::new(mailbox(to).unwrap())).collect();
        let envelope = Envelope::new(ReversePath(mailbox(from)), to).unwrap();
        let header = "Subject: good\x1b[2J day\r\n";
        let content = format!("{header}\r\n{}", "x".repeat(size - header.len() - 2)).into_bytes();
        let letter = Submission {
            envelope: &envelope,
            content: &content,
            facts: Facts::default(),
            header_len: header.len() as u64,
            uid: 1000,
            account: None,
            tried: None,
        };
        let id = self.queue.accept(&letter, SystemTime::now() - age).unwrap().id();
        self.ids.push(id);
        id
    }

    /// So many attempts, an hour apart, the last one just now.
    fn attempts(&self, id: Id, now: SystemTime, count: u32, outcomes: &[Outcome]) {
        for before in (0..count).rev() {
            let at = now - Duration::from_mins(30) * before;
            let mut claim = claim(&self.queue, id);
            claim.begin(at).unwrap();
            let left = claim.letter().history.waiting().len();
            let outcomes = &outcomes[outcomes.len() - left..];
            let tried: Vec<Tried> = outcomes.iter().map(|outcome| Tried { outcome, relay: RELAY }).collect();
            claim.settle(&tried, at).unwrap();
            let _ = claim.close().unwrap();
        }
    }

    fn terminal(&self, columns: u16) -> Terminal {
        let home = self.household.home().to_str().unwrap();
        let path = format!("{}:/usr/bin:/bin", bin().display());
        Terminal::new(self.household.home(), (columns, 24), &[("HOME", home), ("PATH", &path)])
    }

    fn queue(&self, words: &[&str]) -> Ended {
        let mut command = self.household.command(bin().join("pillarbox"));
        Ended::of(command.env("TZ", "UTC").arg("queue").args(words), b"")
    }

    fn says(&self, words: &[&str]) -> String {
        let ended = self.queue(words);
        assert_eq!((ended.status, &*ended.stderr), (0, ""), "{words:?}: {ended:?}");
        ended.stdout
    }

    /// The letters that a list has, by their places in `ids`.
    fn listed(&self, words: &[&str]) -> Vec<usize> {
        let text = self.says(&[&["list", "--json"], words].concat());
        let place =
            |line: &str| self.ids.iter().position(|id| line.contains(&format!("\"queue_id\":\"{id}\""))).unwrap();
        text.lines().map(place).collect()
    }
}

/// Another test's child may have the letter's file open for as long as it takes to become another program.
fn claim(queue: &Queue, id: Id) -> Claim<'_> {
    wait_for("the letter", || queue.claim(id).ok())
}

fn bin() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pillarbox")).parent().unwrap().to_owned()
}

/// Ids, dates and times with their characters masked, so that every run gives the same screen.
fn masked(screen: &str) -> String {
    let mut chars: Vec<char> = screen.lines().flat_map(|line| line.trim_end().chars().chain(['\n'])).collect();
    for (form, mask) in [("hhhhhhhhhhhh", 'I'), ("dddd-dd-dd", '#'), ("dd:dd:dd", '#')] {
        let form: Vec<char> = form.chars().collect();
        for at in 0..chars.len().saturating_sub(form.len()) {
            let fits = |(c, form): (&char, &char)| match form {
                'h' => c.is_ascii_digit() || ('A'..='F').contains(c),
                'd' => c.is_ascii_digit(),
                other => c == other,
            };
            let found = &mut chars[at..at + form.len()];
            if found.iter().zip(&form).all(fits) {
                found.iter_mut().filter(|c| c.is_ascii_alphanumeric()).for_each(|c| *c = mask);
            }
        }
    }
    chars.into_iter().collect()
}

/// Compares a screen with the recorded one.
fn assert_screen(name: &str, screen: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(name);
    let screen = masked(screen);
    if std::env::var_os("RECORD").is_some() {
        fs::write(&path, &screen).unwrap();
    }
    assert_eq!(screen, fs::read_to_string(&path).unwrap_or_default(), "{name}");
}

#[test]
fn the_list_fits_its_terminal_and_is_whole_in_a_pipe() {
    let desk = Desk::new();
    assert_screen("list-pipe.txt", &desk.says(&["list"]));
    assert_screen("list-pipe.txt", &desk.says(&[]));
    if !here(&["tmux"]) {
        return;
    }
    for columns in [80, 140] {
        let terminal = desk.terminal(columns);
        let screen = terminal.run("pillarbox queue list");
        assert!(screen.lines().all(|line| line.chars().count() <= columns.into()), "{screen}");
        assert_screen(&format!("list-{columns}.txt"), &screen);
        assert_screen(&format!("failed-{columns}.txt"), &terminal.run("pillarbox queue list --failed"));
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let desk = Desk::new();
    assert!(!desk.says(&["list"]).contains('\x1b'));
    if !here(&["tmux"]) {
        return;
    }
    let terminal = desk.terminal(140);
    let colours = |command: &str| {
        terminal.run(command);
        terminal.colours().contains("\x1b[")
    };
    assert!(colours("pillarbox queue list"));
    assert!(terminal.colours().contains("\x1b[33m    hold"), "{}", terminal.colours());
    assert!(!colours("NO_COLOR=1 pillarbox queue list"));
    assert!(!colours("TERM=dumb pillarbox queue list"));
    assert!(colours("NO_COLOR= pillarbox queue list"), "an empty one is none (no-color.org)");
    assert!(!colours("pillarbox queue list | cat"));
}

#[test]
fn a_letter_s_story_is_told_and_strangers_text_is_harmless() {
    let desk = Desk::new();
    let text = desk.says(&["show", &desk.ids[0].to_string()]);
    assert!(text.contains("good\\x1b[2J day") && !text.contains('\x1b'), "{text}");
    assert_screen("show.txt", &text);
    let object: serde_json::Value =
        serde_json::from_str(&desk.says(&["show", "--json", &desk.ids[0].to_string()])).unwrap();
    assert_eq!(object["history"].as_array().unwrap().len(), 11, "{object}");
    assert_eq!(object["header"], "Subject: good\u{1b}[2J day\r\n");
    let raw = desk.says(&["show", "--raw", &desk.ids[0].to_string()]);
    assert!(raw.starts_with("Subject: good\x1b[2J day\r\n\r\nxxx") && raw.len() == 2100, "{}", raw.len());
    desk.queue(&["show", "000000000000"]).says(64, &["000000000000: there is no such letter"]);
    desk.queue(&["show", "x"]).says(64, &["x: this is no queue id"]);
}

#[test]
fn letters_are_found_by_what_they_have_in_common() {
    let desk = Desk::new();
    for (words, places) in [
        (&[][..], &[3, 1, 0, 2][..]),
        (&["--failed"], &[4]),
        (&["--state", "failed"], &[4]),
        (&["--state", "deferred"], &[1, 0]),
        (&["--state", "hold"], &[3]),
        (&["--state", "incoming"], &[2]),
        (&["--sender", "ALICE@"], &[3, 0]),
        // Bob has it.
        (&["--recipient", "bob"], &[]),
        (&["--recipient", "@example.com"], &[1, 0]),
        (&["--account", "far"], &[3]),
        (&["--older", "1d"], &[3, 1]),
        (&["--newer", "10h"], &[0, 2]),
        (&["--older", "1d", "--sender", "alice"], &[3]),
        (&["--failed", "--newer", "1h"], &[]),
    ] {
        assert_eq!(desk.listed(words), places, "{words:?}");
    }
    desk.queue(&["list", "--older", "soon"]).says(64, &["an age is a number and"]);
    desk.queue(&["list", "--state", "lost"]).says(64, &["there is incoming, active, deferred, hold, failed"]);
    desk.queue(&["remove"]).says(64, &["remove which letters?"]);
    desk.queue(&["remove", "--older", "1d", &desk.ids[0].to_string()]).says(64, &["not by both"]);

    let id = desk.ids[0];
    assert_eq!(desk.says(&["hold", "--sender", "alice"]), format!("{} is on hold\n{id} is on hold\n", desk.ids[3]));
    assert_eq!(desk.listed(&["--state", "hold"]), [3, 0]);
    let changed = desk.says(&["release", "--json", &id.to_string()]);
    assert_eq!(changed, format!("{{\"change\":\"release\",\"queue_id\":\"{id}\"}}\n"));
    assert_eq!(desk.says(&["retry", "--state", "failed"]), format!("{} starts afresh\n", desk.ids[4]));
    assert_eq!(desk.listed(&["--state", "failed"]), [0; 0]);
    assert_eq!(
        desk.says(&["run", "--recipient", "other@", "--json"]).matches("\"tried\":0").count(),
        1,
        "it is on hold"
    );
    assert_eq!(desk.says(&["remove", "--older", "1d"]).lines().count(), 2);
    assert_eq!(desk.listed(&[]), [0, 4, 2]);
}

#[test]
fn the_live_view_follows_the_queue_and_gives_the_terminal_back() {
    if !here(&["tmux"]) {
        return;
    }
    for columns in [80, 140] {
        let mut desk = Desk::new();
        let terminal = desk.terminal(columns);
        let modes = terminal.run("stty -a");
        let settled = |screen: &str| screen.contains("4 letters") && screen.contains("q leaves");
        terminal.type_in(&["clear; pillarbox queue watch", "Enter"]);
        assert_screen(&format!("watch-{columns}.txt"), &terminal.wait("the view", settled));
        desk.accept("alice@example.org", &["late@example.com"], Duration::from_hours(5), 300);
        terminal.wait("the new letter", |screen| screen.contains("late@example.com") && screen.contains("5 letters"));
        desk.says(&["remove", "--sender", "alice"]);
        // The screen may be caught while it is drawn, its head new and the rest old.
        terminal.wait("their end", |screen| screen.contains("2 letters") && !screen.contains("late@example.com"));
        for leave in ["q", "C-c", "Escape"] {
            terminal.type_in(&[leave]);
            terminal.wait("the prompt", |screen| screen.trim_end().ends_with('$') && !screen.contains("2 letters"));
            assert_eq!(terminal.run("stty -a"), modes, "{leave}");
            terminal.type_in(&["clear; pillarbox queue watch", "Enter"]);
            terminal.wait("the view", |screen| screen.contains("2 letters") && screen.contains("q leaves"));
        }
        // Somebody else's idea.
        let held = desk.household.home().join("pid");
        terminal.type_in(&["q"]);
        terminal.wait("the prompt", |screen| screen.trim_end().ends_with('$') && !screen.contains("2 letters"));
        terminal
            .type_in(&[&format!("clear; bash -c 'echo $$ > {}; exec pillarbox queue watch'", held.display()), "Enter"]);
        terminal.wait("the view", |screen| screen.contains("2 letters") && screen.contains("q leaves"));
        let pid = fs::read_to_string(held).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        terminal.wait("the prompt", |screen| screen.trim_end().ends_with('$') && !screen.contains("2 letters"));
        assert_eq!(terminal.run("stty -a"), modes);
        terminal.run("pillarbox queue remove --newer 60d");
        terminal.type_in(&["clear; pillarbox queue watch", "Enter"]);
        terminal.wait("nothing", |screen| screen.contains("The queue is empty.") && screen.contains("q leaves"));
    }
}

#[test]
fn a_long_list_is_moved_through() {
    if !here(&["tmux"]) {
        return;
    }
    let mut desk = Desk::empty(1);
    for i in 0..40 {
        desk.accept("alice@example.org", &[&format!("to{i}@example.com")], Duration::from_hours(3 * (40 - i)), 100);
    }
    let terminal = desk.terminal(140);
    terminal.type_in(&["pillarbox queue watch", "Enter"]);
    terminal.wait("the top", |screen| {
        screen.contains("to0@") && screen.contains("19 lines below") && !screen.contains("to21@")
    });
    terminal.type_in(&["Down", "Down", "j"]);
    terminal.wait("what is below", |screen| {
        !screen.contains("to2@") && screen.contains("to3@") && screen.contains("to23@")
    });
    terminal.type_in(&["Up", "k"]);
    terminal.wait("what is above", |screen| !screen.contains("to0@") && screen.contains("to1@"));
    terminal.type_in(&["q"]);
}

#[test]
fn a_live_view_is_for_terminals_and_programs_get_what_changes() {
    let mut desk = Desk::new();
    desk.queue(&["watch"]).says(64, &["takes a terminal", "watch --json"]);
    let mut command = desk.household.command(bin().join("pillarbox"));
    let output = desk.household.home().join("changes");
    command.args(["queue", "watch", "--json"]).stdin(Stdio::null()).stdout(fs::File::create(&output).unwrap());
    let mut watch = Running(command.spawn().unwrap());
    let told = |count: usize| {
        wait_for("what changes", || {
            let text = fs::read_to_string(&output).unwrap();
            let lines: Vec<serde_json::Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    told(4);
    let id = desk.accept("alice@example.org", &["late@example.com"], Duration::ZERO, 300);
    assert_eq!(told(5)[4]["queue_id"], id.to_string());
    desk.says(&["hold", &id.to_string()]);
    assert_eq!(told(6)[5]["queue_name"], "hold");
    desk.says(&["remove", &id.to_string()]);
    let gone = &told(7)[6];
    assert_eq!((&gone["queue_id"], &gone["queue_name"]), (&id.to_string().into(), &"gone".into()));
    kill(Pid::from_raw(watch.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(watch.0.wait().unwrap().code(), Some(0));
    assert_eq!(told(7).len(), 7, "nothing else has changed");
}

#[test]
fn a_run_shows_how_far_it_has_come() {
    if !here(&["tmux"]) {
        return;
    }
    // A relay that does not greet.
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut desk = Desk::empty(relay.local_addr().unwrap().port());
    for to in ["bob@example.com", "carol@example.com", "dave@example.com"] {
        desk.accept("alice@example.org", &[to], Duration::from_hours(1), 300);
    }
    let terminal = desk.terminal(80);
    terminal.type_in(&["pillarbox queue run", "Enter"]);
    terminal.wait("progress", |screen| screen.contains("0 of 3: 0 relayed, 0 put off, 0 failed"));
    drop(relay);
    let end = "3 letters tried: 0 relayed, 3 put off, 0 failed, 0 left alone";
    let screen = terminal.wait("its end", |screen| screen.contains(end));
    assert!(!screen.contains("0 of 3"), "{screen}");
    assert_eq!(desk.says(&["run"]), "0 letters tried: 0 relayed, 0 put off, 0 failed, 0 left alone\n");
}

/// Those of the page's examples that are about the queue, as they stand there.
#[test]
fn the_manual_s_examples_do_what_it_says() {
    let desk = Desk::new();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/pillarbox.1")).unwrap();
    let examples: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".Dl pillarbox queue ")).collect();
    assert!(examples.len() >= 6, "{examples:?}");
    for example in examples {
        let said = desk.says(&example.split(' ').collect::<Vec<_>>());
        match example {
            "list --older 1d" => assert!(said.contains("\n2 letters, 4 recipients left"), "{said}"),
            "run --recipient @example.net" => assert!(said.starts_with("0 letters tried"), "{said}"),
            "list --sender nightly@ --state hold" => assert_eq!(said, "The queue is empty.\n"),
            "hold --sender nightly@ --newer 2h" | "remove --sender nightly@ --state hold" => assert_eq!(said, ""),
            "list --failed --json" => assert!(said.contains("\"bounce_reason\":\"smtp.example.com:587 said"), "{said}"),
            other => panic!("what does {other} do?"),
        }
    }
}

/// Looking takes as long as the list is: what it costs for ten thousand letters is printed.
#[test]
#[ignore = "prints a figure"]
fn ten_thousand_letters_are_listed() {
    let mut desk = Desk::empty(1);
    for i in 0..10_000 {
        desk.accept("alice@example.org", &["bob@example.com"], Duration::from_secs(i), 300);
    }
    let began = std::time::Instant::now();
    let mut command: Command = desk.household.command(bin().join("pillarbox"));
    let ended = Ended::of(command.args(["queue", "list"]), b"");
    println!("10,000 letters listed in {} ms", began.elapsed().as_millis());
    assert!(ended.stdout.contains("\n10000 letters, 10000 recipients left"));
}
