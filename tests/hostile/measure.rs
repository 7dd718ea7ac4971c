//! Runs a program under watch: how it ended, what it said, and how much memory it had at the most.
//!
//! The kernel tells a parent the largest of its children's peaks, and not whose that
//! was, so each program has a parent of its own: this test binary once more, whose only
//! test to run is [`the_parent`]. A peak below the parent's own size reads as that.

use nix::sys::resource::{UsageWho, getrusage};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Only a hang takes so long.
pub const WATCHDOG: Duration = Duration::from_mins(2);

/// The bound for a program under attack, in KiB: 12 MiB for one that is shipped; one with symbols and without
/// optimisation takes more.
pub fn bound() -> u64 {
    let is_shipped = !cfg!(debug_assertions) || std::env::var_os("SENDMAIL_UNDER_TEST").is_some();
    if is_shipped { 12 * 1024 } else { 24 * 1024 }
}

const WORDS: &str = "MEASURE_WORDS";
const RESULT: &str = "MEASURE_RESULT";

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` for a signal, and for what had to be ended.
    pub status: Option<i32>,
    /// It had to be ended.
    pub hung: bool,
    /// What it wrote, on standard output and standard error.
    pub said: Vec<u8>,
    /// The peak of its memory in KiB.
    pub peak: u64,
}

impl Ended {
    /// Whether it ended as a program of this trade may.
    pub fn is_proper(&self) -> bool {
        self.status.is_some_and(|status| status == 0 || (64..=78).contains(&status))
    }
}

/// Runs a command; its standard output goes where its standard error goes.
pub fn run(command: &Command, input: Stdio, dir: &Path) -> Ended {
    run_for(command, input, dir, WATCHDOG)
}

/// The same with a limit of one's own.
pub fn run_for(command: &Command, input: Stdio, dir: &Path, limit: Duration) -> Ended {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let (result, said) = (dir.join(format!("measured.{call}")), dir.join(format!("said.{call}")));
    let words: Vec<&str> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_str().unwrap()).collect();
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent.args(["--exact", "measure::the_parent", "--ignored", "--nocapture", "--test-threads=1"]).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            parent.env(name, value);
        }
    }
    parent.env(WORDS, words.join("\x1f")).env(RESULT, &result);
    if let Some(dir) = command.get_current_dir() {
        parent.current_dir(dir);
    }
    let mut child = parent.stdin(input).stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
    let (status, hung) = wait(&mut child, limit, &result);
    let told = fs::read_to_string(&result).unwrap_or_default();
    let peak = told.split(' ').nth(1).and_then(|peak| peak.trim().parse().ok()).unwrap_or_default();
    let text = fs::read(&said).unwrap();
    for path in [said, result] {
        let _ = fs::remove_file(path);
    }
    Ended { status: status.code().filter(|_| !hung), hung, said: text, peak }
}

/// Waits for the parent, and ends it and its child where that takes too long.
fn wait(child: &mut Child, limit: Duration, result: &Path) -> (ExitStatus, bool) {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, false);
        }
        if Instant::now() > until {
            let told = fs::read_to_string(result).unwrap_or_default();
            if let Some(pid) = told.split(' ').next().and_then(|pid| pid.parse().ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            let _ = child.kill();
            return (child.wait().unwrap(), true);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "is no test: the other tests start programs through it"]
fn the_parent() {
    let Some(words) = std::env::var_os(WORDS) else { return };
    let result = std::env::var_os(RESULT).unwrap();
    let words = words.into_string().unwrap();
    let mut words = words.split('\x1f').map(OsString::from);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env_remove(WORDS).env_remove(RESULT).stdout(std::io::stderr());
    let mut child = command.spawn().unwrap();
    fs::write(&result, format!("{} ", child.id())).unwrap();
    let status = child.wait().unwrap();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    fs::write(&result, format!("{} {peak}", child.id())).unwrap();
    std::process::exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
}

#[test]
fn a_peak_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo ${#x}; exit 71"])
        .env("PATH", "/usr/bin:/bin");
    let ended = run(&command, Stdio::null(), dir.path());
    assert_eq!((ended.status, ended.hung, &*ended.said), (Some(71), false, &b"40000000\n"[..]));
    assert!(ended.peak > 39_000, "{ended:?}");
}
