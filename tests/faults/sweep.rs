//! A fault at every system call of the real program, and what became of the letters.
//!
//! Whatever happens: an exit status of 0 means that everybody has the letter in the end or its sender a report; any
//! other that nobody will ever get it from us; no copy is cut short, and none comes twice, unless it died between the
//! final dot and its record on the disk.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use pillarbox::outcome::Outcome;

use crate::house::{Ended, House};
use crate::letter::Letter;
use crate::sink::Sink;
use crate::strace::{self, Fault, Scope, What};

/// What the fault happens in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// A letter that is only queued.
    Accept,
    /// The same, with so many octets that they do not stay in memory.
    AcceptLarge,
    /// A letter that the relay puts off while its caller waits.
    Deferral,
    /// A letter that one recipient takes, one puts off and one refuses, while its caller waits.
    Partly,
    /// A queue run: a letter for three recipients who fare like these, and another one behind it.
    Run,
}

impl Scene {
    fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AcceptLarge => "accept, large",
            Self::Deferral => "accept after a deferral",
            Self::Partly => "accept after half a success",
            Self::Run => "queue run",
        }
    }

    /// The letter that it is about.
    fn letter(self) -> Letter {
        let (to, lines): (&[&str], _) = match self {
            Self::Accept => (&["bob", "carol"], 200),
            Self::AcceptLarge => (&["bob"], 7000),
            Self::Deferral => (&["later", "later2"], 200),
            Self::Partly | Self::Run => (&["bob", "later", "never"], 200),
        };
        Letter::new("first", to, lines)
    }

    /// The letter that only waits beside it.
    fn other(self) -> Option<Letter> {
        (self == Self::Run).then(|| Letter::new("second", &["dave"], 3))
    }

    fn mode(self) -> &'static str {
        match self {
            Self::Accept | Self::AcceptLarge | Self::Run => "-odq",
            Self::Deferral | Self::Partly => "-odi",
        }
    }

    /// The words under test, and their standard input.
    fn call(self, house: &House) -> (Vec<String>, Option<File>) {
        match self {
            Self::Run => (vec!["-qf".to_owned()], None),
            _ => (self.letter().words(self.mode()), Some(house.input(&self.letter()))),
        }
    }

    /// A home in which it can happen.
    fn set_up(self, sink: &Sink) -> House {
        let house = House::new(sink);
        if self == Self::Run {
            for letter in [Some(self.letter()), self.other()].into_iter().flatten() {
                let ended = house.send(self.mode(), &letter);
                assert_eq!(ended.code(), Some(0), "{ended:?}");
            }
        } else {
            drop(house.queue()); // that the directories are there
        }
        house
    }

    /// All faults that can happen in it.
    fn faults(self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for scope in [Scope::Process, Scope::Queue] {
            let sink = Sink::open();
            let house = self.set_up(&sink);
            let (words, stdin) = self.call(&house);
            let calls = strace::count(&house, &words, stdin, scope, &strace::paths(house.queue_dir()));
            assert!(!calls.is_empty(), "strace has seen nothing");
            // What is seen in both scopes need not fail twice: for the queue alone, the kinds of call that the loader
            // makes before us, and a run's, which has more than one thread.
            let twice =
                |fault: &Fault| self == Self::Run || ["openat", "read", "pread64", "close"].contains(&fault.call);
            let these = strace::faults(&calls, scope);
            faults.extend(these.into_iter().filter(|fault| scope == Scope::Process || twice(fault)));
        }
        faults
    }
}

/// What became of the letters after one fault.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own, and a column of the figures")]
struct Aftermath {
    /// Somebody who was to get it, or a report on it, never will.
    lost: bool,
    /// A copy is not whole.
    truncated: bool,
    /// Died between the final dot and its record.
    doubled_in_window: bool,
    /// Sent again although it was on record.
    doubled_outside: bool,
    /// The status was not 0, and somebody got it afterwards.
    late: bool,
    /// The status was not 0, but the relay had it for somebody already: sending again doubles it for them.
    partly: bool,
    /// Killed when it was ours already, though the caller does not know.
    killed_after_commit: bool,
    /// Ended as no program of this trade may.
    improper: bool,
    /// Left something that the janitor does not take.
    litter: bool,
    /// The fault did not happen: the call did not come so far this time.
    missed: bool,
    /// What is needed to understand it.
    story: String,
}

impl Aftermath {
    /// A report is a letter like any other, and is doubled like one.
    fn reports(&mut self, first: usize, all: usize) {
        self.doubled_in_window |= (first, all) == (1, 2);
        self.doubled_outside |= all > 1 && (first, all) != (1, 2);
    }
}

fn suffer(scene: Scene, fault: Fault) -> Aftermath {
    let sink = Sink::open();
    let house = scene.set_up(&sink);
    let (words, stdin) = scene.call(&house);
    let ended = strace::run(&house, &words, stdin, fault, &strace::paths(house.queue_dir()));
    let mut after = Aftermath {
        improper: !(ended.is_proper() || ended.was_killed() && fault.what == What::Kill),
        missed: !is_hit(&house, &ended),
        ..Aftermath::default()
    };
    sink.settle();
    let (letter, before) = (scene.letter(), sink.taken());
    let relayed = recorded(&house, &letter);
    let is_ours = house.waiting().iter().any(|one| one.letter.entry.size == octets(&letter));
    sink.relent();
    house.run_dry();
    sink.settle();
    let taken = sink.taken();

    let owed = scene == Scene::Run || ended.code() == Some(0) || (ended.was_killed() && is_ours);
    after.killed_after_commit = scene != Scene::Run && ended.was_killed() && is_ours;
    for to in &letter.to {
        let (first, all) = (letter.copies(&before, to), letter.copies(&taken, to));
        if to.starts_with("never") {
            after.lost |= owed && letter.reports(&taken) == 0;
            after.doubled_outside |= all > 0;
            after.reports(letter.reports(&before), letter.reports(&taken));
            continue;
        }
        after.lost |= owed && all == 0;
        after.late |= !owed && all > first;
        after.partly |= !owed && !ended.was_killed() && first > 0;
        if all > 1 {
            let in_window = first == 1 && all == 2 && !relayed.contains(to);
            after.doubled_in_window |= in_window;
            after.doubled_outside |= !in_window;
        }
    }
    if let Some(other) = scene.other() {
        match (other.copies(&before, &other.to[0]), other.copies(&taken, &other.to[0])) {
            (_, 0) => after.lost = true,
            (_, 1) => {}
            (1, 2) => after.doubled_in_window = true,
            _ => after.doubled_outside = true,
        }
        after.truncated |= other.damaged(&taken) > 0;
    }
    after.truncated |= letter.damaged(&taken) > 0;
    after.litter = litter(&house);
    let got: Vec<_> = taken.iter().map(|one| format!("{} → {}", one.from, one.to)).collect();
    after.story = format!(
        "{} ({}): {}{} {:?}\n  on record {relayed:?}, ours {is_ours}; taken in all: {}; left: {:?}",
        scene.name(),
        fault,
        ended.status,
        if ended.hung { ", hung" } else { "" },
        ended.said.trim(),
        got.join(", "),
        house.names("letters"),
    );
    after
}

/// Whether the fault happened.
fn is_hit(house: &House, ended: &Ended) -> bool {
    ended.was_killed() || strace::trace(house).contains("(INJECTED)")
}

/// Octets of the letter on its way.
fn octets(letter: &Letter) -> u64 {
    letter.text().replace('\n', "\r\n").len() as u64
}

/// The recipients of whom the queue has on record that they have the letter.
fn recorded(house: &House, letter: &Letter) -> Vec<String> {
    let waiting = house.waiting();
    let ours = waiting.iter().filter(|one| one.letter.entry.size == octets(letter));
    let mut recorded = Vec::new();
    for one in ours {
        for (number, to) in letter.to.iter().enumerate() {
            if one.letter.history.verdict(number).is_some_and(|verdict| matches!(verdict.outcome, Outcome::Relayed(_)))
            {
                recorded.push(to.clone());
            }
        }
    }
    recorded
}

/// Whether anything is left in the queue that should not be, once the janitor has come.
fn litter(house: &House) -> bool {
    let tmp = house.queue_dir().join("tmp");
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    let unfinished = house.names("tmp");
    for name in &unfinished {
        let file = File::options().write(true).open(tmp.join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    if !unfinished.is_empty() {
        house.call(&["-q"]);
    }
    let is_known = |name: &str| ["letters", "tmp", "failed", "corrupt", "trigger", "runner.lock"].contains(&name);
    !house.names("tmp").is_empty()
        || !house.names("corrupt").is_empty()
        || !house.names("").iter().all(|name| is_known(name))
}

/// What many faults came to.
#[derive(Default)]
struct Figures {
    points: usize,
    missed: usize,
    lost: usize,
    truncated: usize,
    doubled_by_kill: usize,
    doubled_by_error: usize,
    doubled_outside: usize,
    late: usize,
    partly: usize,
    killed_after_commit: usize,
    improper: usize,
    litter: usize,
    /// What must not be.
    complaints: Vec<String>,
    /// What may be, and is worth a look.
    remarks: Vec<String>,
}

impl Figures {
    fn add(&mut self, fault: Fault, after: &Aftermath) {
        self.points += 1;
        self.missed += usize::from(after.missed);
        self.lost += usize::from(after.lost);
        self.truncated += usize::from(after.truncated);
        let by_kill = fault.what == What::Kill;
        self.doubled_by_kill += usize::from(after.doubled_in_window && by_kill);
        self.doubled_by_error += usize::from(after.doubled_in_window && !by_kill);
        self.doubled_outside += usize::from(after.doubled_outside);
        self.late += usize::from(after.late);
        self.partly += usize::from(after.partly);
        self.killed_after_commit += usize::from(after.killed_after_commit);
        self.improper += usize::from(after.improper);
        self.litter += usize::from(after.litter);
        let wrong = [
            (after.lost, "LOST"),
            (after.truncated, "TRUNCATED"),
            (after.doubled_outside, "DOUBLED"),
            (after.late, "LATE"),
            (after.improper, "IMPROPER END"),
            (after.litter, "LITTER"),
        ];
        let wrong: Vec<&str> = wrong.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        if !wrong.is_empty() {
            self.complaints.push(format!("{} {}", wrong.join(", "), after.story));
        } else if after.doubled_in_window {
            self.remarks.push(format!("doubled in the window {}", after.story));
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "points {} ({} not reached), lost {}, truncated {}, doubled in the window {} by kills and {} by errors, \
             outside {}, late {}, refused when the relay had it for some {}, killed after the commit {}, improper ends \
             {}, litter {}",
            self.points,
            self.missed,
            self.lost,
            self.truncated,
            self.doubled_by_kill,
            self.doubled_by_error,
            self.doubled_outside,
            self.late,
            self.partly,
            self.killed_after_commit,
            self.improper,
            self.litter
        )
    }
}

/// Suffers faults, a few side by side.
fn sweep(scene: Scene, faults: &[Fault]) -> Figures {
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let after = suffer(scene, fault);
                    figures.lock().unwrap_or_else(PoisonError::into_inner).add(fault, &after);
                }
            });
        }
    });
    let figures = figures.into_inner().unwrap();
    println!("{}: {figures}", scene.name());
    figures
}

/// So many faults, spread over all of them.
fn sample(faults: &[Fault], count: usize) -> Vec<Fault> {
    let step = (faults.len() / count).max(1);
    // A step that shares no factor with the errors' number, so
    // that it does not pick the same one of them again and again.
    faults.iter().copied().step_by(step | 1).collect()
}

fn judge(figures: Vec<Figures>) {
    for figures in &figures {
        for remark in &figures.remarks {
            println!("{remark}");
        }
    }
    let complaints: Vec<String> = figures.into_iter().flat_map(|figures| figures.complaints).collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

const SCENES: [Scene; 5] = [Scene::Accept, Scene::AcceptLarge, Scene::Deferral, Scene::Partly, Scene::Run];

#[test]
fn a_fault_at_any_of_a_few_system_calls_loses_cuts_and_doubles_nothing() {
    if strace::is_there() {
        judge(SCENES.iter().map(|&scene| sweep(scene, &sample(&scene.faults(), 16))).collect());
    }
}

/// `cargo test --test faults -- --ignored --nocapture every_system_call`; `SCENE` picks one of them.
#[test]
#[ignore = "takes a quarter of an hour, and prints its figures"]
fn a_fault_at_every_system_call_loses_cuts_and_doubles_nothing() {
    if strace::is_there() {
        let wanted = std::env::var("SCENE").unwrap_or_default();
        let scenes = SCENES.iter().filter(|scene| wanted.is_empty() || format!("{scene:?}") == wanted);
        judge(scenes.map(|&scene| sweep(scene, &scene.faults())).collect());
    }
}
