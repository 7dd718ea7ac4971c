//! A fault at every system call that the service makes while it takes a letter and hands it on.
//!
//! strace is attached to a service that is up, so that the calls it counts are those of the letter: the thread at the
//! doors, the session's, the runner's, each by its own count. Whatever happens: what was answered 250 is on the disk,
//! whole, and arrives once (twice only where the service died between the relay's final dot and its record); what was
//! not is not kept, unless the service was killed behind the commit; nothing half-kept outlives the janitor. A kill is
//! followed by a new service, an error by more of the same: the next letter must be taken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pillarbox::queue::{Listed, Queue};

use crate::house::{PATIENCE, until};
use crate::letter::Letter;
use crate::sink::{Sink, Taken};
use crate::strace::{self, CALLS, Calls, Fault, Scope, What};

/// The calls of a service that do not occur in `sendmail`.
const MORE: [&str; 6] = ["accept4", "getsockopt", "setsockopt", "shutdown", "statfs", "fstatfs"];

/// The letter that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// A few kilobytes.
    Small,
    /// So many octets that they do not stay in memory.
    Large,
}

/// A machine whose service speaks to a sink.
struct Machine {
    dir: tempfile::TempDir,
    service: Option<Child>,
}

/// What the client heard of its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Taken,
    Later,
    Refused,
    Nothing,
}

impl Machine {
    fn new(sink: &Sink) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Self { dir, service: None };
        let text = format!(
            "log = \"{}\"\ndomain = \"example.org\"\n[account.sink]\nhost = \"{}\"\ntls = \"none\"\ntimeout = \"50s\"\n\
             [serve]\nsocket = \"{}\"\ndisk_reserve = \"0K\"\n[queue]\ndir = \"{}\"\n",
            machine.path("log").display(),
            sink.address(),
            machine.path("socket").display(),
            machine.path("queue").display()
        );
        fs::write(machine.path("config.toml"), text).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("serve").arg("-C").arg(self.path("config.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TZ", "UTC").current_dir("/");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().append(true).create(true).open(self.path("said")).unwrap());
        self.service = Some(command.spawn().unwrap());
        // Whoever is greeted is so by a service all of whose threads are there.
        until("the service is up", || {
            let greeted =
                UnixStream::connect(self.path("socket")).and_then(|mut stream| stream.read_exact(&mut [0; 4]));
            greeted.is_ok()
        });
    }

    /// Whether it runs.
    fn is_up(&mut self) -> bool {
        self.service.as_mut().is_some_and(|service| service.try_wait().unwrap().is_none())
    }

    /// Ends it in peace.
    fn end(&mut self) {
        let Some(mut service) = self.service.take() else { return };
        let _ = kill(Pid::from_raw(service.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = service.wait();
    }

    fn stop(&mut self) {
        let Some(mut service) = self.service.take() else { return };
        let _ = service.kill();
        let _ = service.wait();
    }

    /// Attaches a strace with these words; it traces when this returns.
    fn attach(&self, words: &[String]) -> Child {
        let pid = self.service.as_ref().unwrap().id().to_string();
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid, "-o"]).arg(self.path("trace")).args(words);
        let mut strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" attached") {
            line.clear();
            assert!(told.read_line(&mut line).unwrap() > 0, "strace cannot attach");
        }
        // What it says later is nobody's business, but it must not block.
        thread::spawn(move || drop(std::io::copy(&mut told, &mut std::io::sink())));
        strace
    }

    /// Ends a strace; what it traced goes on.
    fn detach(mut strace: Child) {
        let _ = kill(Pid::from_raw(strace.id().try_into().unwrap()), Signal::SIGINT);
        let _ = strace.wait();
    }

    fn trace(&self) -> String {
        fs::read_to_string(self.path("trace")).unwrap_or_default()
    }

    /// Hands a letter in, and waits for what the service says of it.
    fn send(&self, letter: &Letter) -> Heard {
        self.speak(letter).unwrap_or(Heard::Nothing)
    }

    fn speak(&self, letter: &Letter) -> std::io::Result<Heard> {
        let stream = UnixStream::connect(self.path("socket"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut lines, mut stream) = (BufReader::new(stream.try_clone()?), stream);
        let text: String = letter.text().replace('\n', "\r\n");
        let mut heard = |wanted: &str| -> std::io::Result<Option<Heard>> {
            loop {
                let mut line = String::new();
                if lines.read_line(&mut line)? == 0 {
                    return Ok(Some(Heard::Nothing));
                }
                match line.as_bytes() {
                    [_, _, _, b'-', ..] => {}
                    _ if line.starts_with(wanted) => return Ok(None),
                    [b'4', ..] => return Ok(Some(Heard::Later)),
                    [b'2', ..] => return Ok(Some(Heard::Taken)),
                    _ => return Ok(Some(Heard::Refused)),
                }
            }
        };
        let mut words = vec![(String::new(), "220"), ("EHLO x\r\n".to_owned(), "250")];
        words.push((format!("MAIL FROM:<{}>\r\n", letter.sender), "250"));
        words.extend(letter.to.iter().map(|to| (format!("RCPT TO:<{to}>\r\n"), "250")));
        words.push(("DATA\r\n".to_owned(), "354"));
        for (said, wanted) in words {
            stream.write_all(said.as_bytes())?;
            if let Some(early) = heard(wanted)? {
                return Ok(early);
            }
        }
        stream.write_all(text.as_bytes())?;
        stream.write_all(b".\r\n")?;
        Ok(heard("(none)")?.unwrap_or(Heard::Nothing))
    }

    /// Has what waits tried until nothing does. `false`: something stays.
    fn drain(&self) -> bool {
        let end = Instant::now() + PATIENCE;
        while !self.waiting().is_empty() {
            if Instant::now() > end {
                return false;
            }
            if let Ok(mut stream) = UnixStream::connect(self.path("socket")) {
                let _ = stream.write_all(b"XQUEUE RUN -qf\r\nQUIT\r\n");
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.read_to_end(&mut Vec::new());
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    fn waiting(&self) -> Vec<Listed> {
        Queue::find(&self.path("queue"))
            .unwrap()
            .map_or_else(Vec::new, |queue| queue.list().unwrap().flatten().collect())
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("queue").join(dir)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Whether anything is left that the janitor does not take.
    fn litter(&self) -> bool {
        let long_ago = SystemTime::now() - Duration::from_hours(48);
        for name in self.names("tmp") {
            let file = File::options().write(true).open(self.path("queue/tmp").join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        let queue = Queue::open(&self.path("queue")).unwrap();
        queue.sweep(SystemTime::now(), Duration::from_hours(24)).unwrap();
        !self.names("tmp").is_empty() || !self.names("corrupt").is_empty()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Scene {
    fn letter(self) -> Letter {
        let lines = if self == Self::Small { 20 } else { 7000 };
        let mut letter = Letter::new("first", &["bob"], lines);
        // Whoever this test is, root or not, is the service's own user and may send as anybody.
        "alice@example.org".clone_into(&mut letter.sender);
        letter
    }

    /// All faults that can happen in it.
    fn faults(self) -> Vec<Fault> {
        let sink = Sink::open();
        let mut machine = Machine::new(&sink);
        machine.start();
        let strace = machine.attach(&[format!("-etrace={}", calls().join(","))]);
        assert_eq!(machine.send(&self.letter()), Heard::Taken);
        sink.wait_for_dots(1);
        until("the letter has gone", || machine.waiting().is_empty());
        Machine::detach(strace);
        let calls = tally(&machine.trace());
        assert!(calls.contains_key("fsync") || calls.contains_key("fdatasync"), "{calls:?}");
        let mut faults = strace::faults(&calls, Scope::Process);
        let scope = Scope::Process;
        // Without files, or memory, for a client: the next one comes in.
        let at_the_door = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED"];
        faults.extend(at_the_door.map(|error| Fault { call: "accept4", number: 1, scope, what: What::Once(error) }));
        faults
    }
}

fn calls() -> Vec<&'static str> {
    CALLS.iter().chain(&MORE).copied().collect()
}

/// How often each call comes in the thread in which it comes most often.
fn tally(trace: &str) -> Calls {
    let mut threads: BTreeMap<(&str, &'static str), usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let Some((name, _)) = line.trim_start().split_once('(') else { continue };
        let Some(call) = calls().into_iter().find(|call| *call == name) else { continue };
        *threads.entry((thread, call)).or_default() += 1;
    }
    let mut found = Calls::new();
    for ((_, call), count) in threads {
        let last = found.get(call).map_or(count, |range: &std::ops::RangeInclusive<usize>| count.max(*range.end()));
        found.insert(call, 1..=last);
    }
    found
}

/// What became of a letter after a fault.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own, and a column of the figures")]
struct Aftermath {
    missed: bool,
    /// Answered 250, and it never arrived, or not whole.
    lost: bool,
    /// Not answered 250, and it arrived, though nobody was killed.
    late: bool,
    /// Not answered 250, and it arrived: killed behind the commit.
    killed_after_commit: bool,
    /// Twice: killed, or failed, between the final dot and its record.
    doubled: bool,
    /// Twice, otherwise.
    doubled_outside: bool,
    /// Ended, with 70, by an error that the standard library holds for impossible.
    ended_by_std: bool,
    /// Any other error ended the service, or it took no letter afterwards.
    down: bool,
    /// An error was answered with a 5xx.
    refused: bool,
    litter: bool,
    story: String,
}

fn suffer(scene: Scene, fault: Fault) -> Aftermath {
    let sink = Sink::open();
    let mut machine = Machine::new(&sink);
    machine.start();
    let Fault { call, number, what, .. } = fault;
    let inject = match what {
        What::Kill => format!("inject={call}:signal=SIGKILL:when={number}"),
        What::Once(error) => format!("inject={call}:error={error}:when={number}"),
        What::FromThen(error) => format!("inject={call}:error={error}:when={number}+"),
    };
    let strace = machine.attach(&[format!("-etrace={call}"), format!("-e{inject}")]);
    let letter = scene.letter();
    let heard = machine.send(&letter);
    // Its way to the relay is part of it, as far as it comes: a pause is no promise here, only more to happen.
    for _ in 0..20 {
        if !machine.is_up() || machine.trace().contains("(INJECTED)") && machine.waiting().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    // The standard library holds that closedir(3) cannot fail, and panics where it does.
    let std_gave_up =
        |machine: &Machine| fs::read_to_string(machine.path("said")).unwrap_or_default().contains("during closedir");
    let mut ended_by_std = std_gave_up(&machine);
    if ended_by_std {
        let _ = machine.service.as_mut().map(Child::wait);
    }
    let was_up = machine.is_up();
    Machine::detach(strace);
    let mut after = Aftermath {
        missed: was_up && !machine.trace().contains("(INJECTED)"),
        ended_by_std,
        down: !was_up && what != What::Kill && !ended_by_std,
        refused: heard == Heard::Refused,
        ..Aftermath::default()
    };
    sink.settle();
    let before = letter.copies(&sink.taken(), &letter.to[0]);
    let on_record = before > 0 && machine.waiting().is_empty();
    if !was_up {
        machine.stop();
        machine.start();
    }
    let mut second = Letter::new("second", &["carol"], 3);
    "alice@example.org".clone_into(&mut second.sender);
    let mut second_heard = machine.send(&second);
    if !ended_by_std && std_gave_up(&machine) {
        // It came to that after the pause.
        ended_by_std = true;
        let _ = machine.service.as_mut().map(Child::wait);
        machine.stop();
        machine.start();
        if second_heard != Heard::Taken {
            second_heard = machine.send(&second);
        }
    }
    let is_up = machine.is_up();
    let said = fs::read_to_string(machine.path("said")).unwrap_or_default();
    if call == "close" && is_up && was_up {
        // A close(2) that strace lets fail leaves the file open, and locked, which one of Linux's never does.
        machine.end();
        machine.start();
    }
    let arrived = machine.drain();
    machine.stop();
    sink.settle();
    // What the service was ended at may have been committed, and was sent once more.
    let copies = second.copies(&sink.taken(), &second.to[0]);
    let is_there = copies == 1 || ended_by_std && copies == 2;
    after.ended_by_std = ended_by_std;
    after.down |= second_heard != Heard::Taken || !arrived || !is_there;
    let taken = sink.taken();
    let all = letter.copies(&taken, &letter.to[0]);
    after.lost = heard == Heard::Taken && all == 0 || !taken.iter().all(|one| is_whole(one, &[&letter, &second]));
    let killed = (what == What::Kill || ended_by_std) && !was_up;
    after.killed_after_commit = heard != Heard::Taken && all > 0 && killed;
    after.late = heard != Heard::Taken && all > 0 && !killed;
    after.doubled = all == 2 && before == 1 && !on_record;
    after.doubled_outside = all > 1 && !after.doubled;
    after.litter = machine.litter();
    let log = fs::read_to_string(machine.path("log")).unwrap_or_default();
    after.story = format!(
        "{scene:?} ({fault}): heard {heard:?}, up {was_up}, arrived {before} and {all}; the next letter: \
         {second_heard:?}, up {is_up}, {arrived}\n{said}{log}"
    );
    after
}

/// Whether this is one of the letters, with a stamp above it and nothing else.
fn is_whole(taken: &Taken, letters: &[&Letter]) -> bool {
    let stamp = |text: &str| {
        let octets = text.replace('\n', "\r\n");
        taken.content.strip_suffix(octets.as_bytes()).map(|stamp| String::from_utf8_lossy(stamp).into_owned())
    };
    letters
        .iter()
        .filter_map(|letter| stamp(&letter.text()))
        .any(|stamp| stamp.starts_with("Received: by ") && stamp.lines().skip(1).all(|line| line.starts_with('\t')))
}

#[derive(Default)]
struct Figures {
    points: usize,
    missed: usize,
    doubled: usize,
    ended_by_std: usize,
    killed_after_commit: usize,
    complaints: Vec<String>,
}

impl Figures {
    fn add(&mut self, after: &Aftermath) {
        self.points += 1;
        self.missed += usize::from(after.missed);
        self.doubled += usize::from(after.doubled);
        self.ended_by_std += usize::from(after.ended_by_std);
        self.killed_after_commit += usize::from(after.killed_after_commit);
        let wrong = [
            (after.lost, "LOST"),
            (after.late, "LATE"),
            (after.doubled_outside, "DOUBLED"),
            (after.down, "DOWN"),
            (after.refused, "REFUSED FOR GOOD"),
            (after.litter, "LITTER"),
        ];
        let wrong: Vec<&str> = wrong.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        if !wrong.is_empty() {
            self.complaints.push(format!("{} {}", wrong.join(", "), after.story));
        }
    }
}

/// Suffers faults, a few side by side.
fn sweep(scene: Scene, faults: &[Fault]) -> Vec<String> {
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let after = suffer(scene, fault);
                    figures.lock().unwrap_or_else(PoisonError::into_inner).add(&after);
                }
            });
        }
    });
    let Figures { points, missed, doubled, killed_after_commit, ended_by_std, complaints } =
        figures.into_inner().unwrap();
    println!(
        "service, {scene:?}: points {points} ({missed} not reached), lost, late, cut, doubled otherwise, left half, or \
         the service gone: {}; killed after the commit {killed_after_commit}, doubled in the window {doubled}, ended \
         with 70 where closedir(3) fails {ended_by_std}",
        complaints.len()
    );
    complaints
}

fn judge(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn a_fault_at_any_of_a_few_calls_of_the_service_loses_nothing_that_was_acknowledged() {
    if !strace::is_there() {
        return;
    }
    let mut complaints = Vec::new();
    for scene in [Scene::Small, Scene::Large] {
        let (kills, errors): (Vec<Fault>, Vec<Fault>) =
            scene.faults().into_iter().partition(|fault| fault.what == What::Kill);
        let some = |faults: Vec<Fault>, count: usize| -> Vec<Fault> {
            let step = (faults.len() / count).max(1) | 1;
            faults.into_iter().step_by(step).collect()
        };
        complaints.extend(sweep(scene, &[some(kills, 12), some(errors, 12)].concat()));
    }
    judge(&complaints);
}

/// `cargo test --test faults -- --ignored --nocapture
/// every_call_of_the_service`; `FAULT` picks those whose name has this.
#[test]
#[ignore = "takes half an hour, and prints its figures"]
fn a_fault_at_every_call_of_the_service_loses_nothing_that_was_acknowledged() {
    if !strace::is_there() {
        return;
    }
    let mut complaints = Vec::new();
    for scene in [Scene::Small, Scene::Large] {
        for (name, is_kill) in [("kills", true), ("errors", false)] {
            let wanted = std::env::var("FAULT").unwrap_or_default();
            let is_one = |fault: &Fault| (fault.what == What::Kill) == is_kill && fault.to_string().contains(&wanted);
            let faults: Vec<Fault> = scene.faults().into_iter().filter(is_one).collect();
            println!("{name}:");
            complaints.extend(sweep(scene, &faults));
        }
    }
    judge(&complaints);
}
