//! Faults at system calls, by strace(1): a call is counted in a run without faults, and the n-th one fails in the next.
//!
//! strace counts for each thread by itself, so a kill at the n-th call falls on the first thread that comes so far, and
//! an error on every one. And it counts from the first instruction, the dynamic loader's calls included, whose failure
//! says nothing about us. Hence two scopes: all calls of the process behind the loader's, and the calls on given paths
//! alone, where the loader has none and a worker's calls come under low numbers of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::house::{Ended, House, sendmail};

/// The calls that something can happen at: those that change or read files, and those that speak to the relay.
#[rustfmt::skip]
pub const CALLS: [&str; 29] = [
    "write", "writev", "fsync", "fdatasync", "rename", "renameat2", "openat", "unlink", "unlinkat", "link",
    "linkat", "close", "flock", "mkdir", "mknodat", "read", "pread64", "getdents64", "chmod", "fchmod", "statx",
    "fallocate", "fcntl", "socket", "connect", "sendto", "recvfrom", "poll", "clone3",
];

/// What fails with an error: the calls that can, on a disk or a system that is full, broken or read-only.
#[rustfmt::skip]
pub const FALLIBLE: [&str; 22] = [
    "write", "writev", "fsync", "fdatasync", "rename", "renameat2", "openat", "unlink", "unlinkat", "link",
    "linkat", "close", "flock", "mkdir", "mknodat", "read", "pread64", "getdents64", "fchmod", "fallocate",
    "recvfrom", "clone3",
];

/// The errors that a disk, a file system or the system gives.
pub const ERRORS: [&str; 6] = ["ENOSPC", "EIO", "EDQUOT", "EMFILE", "EROFS", "EINTR"];

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The process is killed.
    Kill,
    /// The call fails, once.
    Once(&'static str),
    /// The call and all later ones of its kind fail.
    FromThen(&'static str),
}

/// Which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of the process.
    Process,
    /// Those on paths of the queue.
    Queue,
}

/// A fault: what happens at which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The system call.
    pub call: &'static str,
    /// Which one of its kind, from 1.
    pub number: usize,
    /// Among which.
    pub scope: Scope,
    /// What happens.
    pub what: What,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { call, number, scope, what } = self;
        let scope = if *scope == Scope::Queue { " on the queue" } else { "" };
        match what {
            What::Kill => write!(f, "SIGKILL at {call} {number}{scope}"),
            What::Once(error) => write!(f, "{error} at {call} {number}{scope}"),
            What::FromThen(error) => write!(f, "{error} at {call} {number}{scope} and later"),
        }
    }
}

/// The numbers of the calls of a run behind the loader's, by kind.
pub type Calls = BTreeMap<&'static str, std::ops::RangeInclusive<usize>>;

/// Whether there is a strace that may trace. Without one the test is skipped, but not where everything must be there.
pub fn is_there() -> bool {
    let there = Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    assert!(there || std::env::var("CI").as_deref() != Ok("true"), "strace is missing");
    if !there {
        eprintln!("skipped: there is no strace, or it may not trace");
    }
    there
}

/// Runs `sendmail` with a fault. `paths` are the queue's paths.
pub fn run(house: &House, words: &[String], stdin: Option<fs::File>, fault: Fault, paths: &[PathBuf]) -> Ended {
    let Fault { call, number, what, scope } = fault;
    let what = match what {
        What::Kill => format!("signal=SIGKILL:when={number}"),
        What::Once(error) => format!("error={error}:when={number}"),
        What::FromThen(error) => format!("error={error}:when={number}+"),
    };
    let mut command = strace(house, &[call], scope, paths);
    command.args(["-e", &format!("inject={call}:{what}")]).arg(sendmail()).args(words);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    house.finish(&mut command)
}

/// What strace wrote down in the last run.
pub fn trace(house: &House) -> String {
    fs::read_to_string(house.path("trace")).unwrap_or_default()
}

/// Runs `sendmail` without a fault and counts its calls.
pub fn count(house: &House, words: &[String], stdin: Option<fs::File>, scope: Scope, paths: &[PathBuf]) -> Calls {
    let calls = CALLS.iter().chain(&FALLIBLE).copied().collect::<Vec<_>>();
    let mut command = strace(house, &calls, scope, paths);
    command.arg(sendmail()).args(words);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    let ended = house.finish(&mut command);
    assert_eq!(ended.code(), Some(0), "without a fault: {ended:?}");
    tally(&trace(house), scope)
}

fn strace(house: &House, calls: &[&str], scope: Scope, paths: &[PathBuf]) -> Command {
    let mut command = house.command("strace");
    command.args(["-f", "-qq", "-o"]).arg(house.path("trace")).args(["-e", &format!("trace={}", calls.join(","))]);
    if scope == Scope::Queue {
        for path in paths {
            command.arg("-P").arg(path);
        }
    }
    command
}

/// Counts the calls of a trace, and which of them are not the loader's:
/// Rust's own first call is a poll(2) of the standard descriptors.
fn tally(trace: &str, scope: Scope) -> Calls {
    let mut threads: BTreeMap<&str, BTreeMap<&'static str, usize>> = BTreeMap::new();
    let mut loader: Option<BTreeMap<&'static str, usize>> = (scope == Scope::Queue).then(BTreeMap::new);
    for line in trace.lines() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let Some((name, _)) = line.trim_start().split_once('(') else { continue };
        let Some(call) = CALLS.iter().find(|call| **call == name) else { continue };
        let seen = threads.entry(thread).or_default();
        if loader.is_none() && name == "poll" {
            loader = Some(seen.clone());
        }
        *seen.entry(call).or_default() += 1;
    }
    let loader = loader.unwrap_or_default();
    let mut calls = Calls::new();
    for (call, count) in threads.into_values().flatten() {
        let first = loader.get(call).copied().unwrap_or_default() + 1;
        let last = calls.get(call).map_or(count, |range: &std::ops::RangeInclusive<usize>| count.max(*range.end()));
        calls.insert(call, first..=last);
    }
    calls
}

/// The faults that calls can have: a kill at each, and each error at each that can fail.
pub fn faults(calls: &Calls, scope: Scope) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (&call, numbers) in calls {
        for number in numbers.clone() {
            let mut add = |what| faults.push(Fault { call, number, scope, what });
            add(What::Kill);
            if !FALLIBLE.contains(&call) {
                continue;
            }
            for error in ERRORS {
                add(What::Once(error));
                // A call that is always interrupted is no fault that a system has.
                if error != "EINTR" {
                    add(What::FromThen(error));
                }
            }
        }
    }
    faults
}

/// The paths of a queue that a run of it works on.
pub fn paths(queue: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        ["", "letters", "tmp", "failed", "corrupt"].iter().map(|name| queue.join(name)).collect();
    if let Ok(entries) = fs::read_dir(queue.join("letters")) {
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths
}
