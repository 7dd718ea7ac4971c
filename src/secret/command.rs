//! A command that prints a password: `pass show mail/work`, `secret-tool lookup …`, a token's refresher.
//!
//! One word is a line for `/bin/sh -c`, several are a program and its arguments. It gets an empty standard input
//! (never the letter's), our environment and directory, and a process group of its own, which is killed as a whole when
//! the command takes too long or prints too much. Its answer is its first line, and counts only where it ended
//! with status 0. A program that it leaves behind in the background (an agent, say) is neither waited for, even
//! where it holds on to the command's output, nor killed after an answer.
//!
//! The command starts with no signal blocked, whatever is blocked here (our threads block what must not kill them,
//! and a child would inherit that). That is why it is `posix_spawn` and not `std::process`: the alternative, a
//! thread that unblocks its own signals while it starts the child, would for that time be a place where a signal
//! kills us.

use super::{LONGEST, NoSecret, Secret, buffer, line, usable, words};
use crate::outcome::printable;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{PipeReader, Read, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// What of a command's standard error may be shown; the rest is read and forgotten.
const COMPLAINT: usize = 4 * 1024;

/// How soon it is noticed that the command has ended, where its output does not end with it.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long a killed command is waited for. One that sits in an uninterruptible call is left to init.
const BURIAL: Duration = Duration::from_secs(1);

/// Runs a command for its first line.
pub(super) fn first_line(command: &[String], limit: Duration) -> Result<Secret, NoSecret> {
    let shell = ["/bin/sh", "-c"].map(str::to_owned);
    let argv = match command {
        [line] => [&shell[..], std::slice::from_ref(line)].concat(),
        words => words.to_vec(),
    };
    let program = OsString::from(argv.first().map(String::as_str).unwrap_or_default());
    answer(&program, argv, limit)
}

/// Runs a program under the name that is its first word, for its first line.
pub(super) fn answer(program: &OsStr, argv: Vec<String>, limit: Duration) -> Result<Secret, NoSecret> {
    let until = Instant::now() + limit;
    let (mut child, mut output) = start(program, argv)?;
    let ended = loop {
        // In this order: what a command has printed is in the pipe before it ends.
        let status = child.status();
        let is_late = Instant::now() >= until;
        let pause = if status.is_some() { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        let was_busy = output.listen(pause.min(PATIENCE));
        if output.is_too_much() {
            return Err(failed("printed more than 64 KiB".to_owned(), &output));
        }
        match status {
            Some(status) if is_late || !was_busy => break status,
            None if is_late => {
                let what = format!("had not ended after {:.1} s and was killed", limit.as_secs_f64());
                return Err(failed(what, &output));
            }
            _ => {}
        }
    };
    match ended {
        // Unknown: our caller has SIGCHLD ignored, and the system has buried the child without a word.
        Ended::With(0) | Ended::Unknown => {}
        Ended::With(status) => return Err(failed(format!("ended with status {status}"), &output)),
        Ended::By(signal) => return Err(failed(format!("was killed by {signal}"), &output)),
    }
    let line = line(output.printed.heard());
    if line.is_empty() {
        return Err(failed("printed no password".to_owned(), &output));
    }
    usable("the command", line)
}

fn failed(what: String, output: &Output) -> NoSecret {
    NoSecret::Command(what, output.complaint())
}

/// How a command ended.
#[derive(Clone, Copy)]
enum Ended {
    With(i32),
    By(Signal),
    Unknown,
}

/// A running command. Dropped before it has ended, its process group is killed.
struct Child {
    group: Pid,
    ended: Option<Ended>,
}

impl Child {
    /// How it ended, where it has.
    fn status(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = match waitpid(self.group, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, status)) => Some(Ended::With(status)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::By(signal)),
                Err(Errno::ECHILD) => Some(Ended::Unknown),
                _ => None,
            };
        }
        self.ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // It fails only where nobody is left, or where the command runs under another uid by now.
        let _ = killpg(self.group, Signal::SIGKILL);
        let until = Instant::now() + BURIAL;
        while self.status().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Starts the program and gives its two outputs.
fn start(program: &OsStr, argv: Vec<String>) -> Result<(Child, Output), NoSecret> {
    let not_started = |why: &str| NoSecret::NotStarted(program.to_string_lossy().into_owned(), why.to_owned());
    let argv: Result<Vec<CString>, _> = argv.into_iter().map(CString::new).collect();
    let (Ok(path), Ok(argv)) = (CString::new(program.as_bytes()), argv) else {
        return Err(not_started("it holds a NUL"));
    };
    if path.is_empty() {
        return Err(not_started("it is empty"));
    }

    let io = |error: std::io::Error| not_started(&words(&error));
    let nothing = File::open("/dev/null").map_err(io)?;
    let (printed, print) = pipe().map_err(io)?;
    let (complained, complain) = pipe().map_err(io)?;
    let system = |error: Errno| not_started(error.desc());
    let mut actions = PosixSpawnFileActions::init().map_err(system)?;
    for (ours, theirs) in [(nothing.as_raw_fd(), 0), (print.as_raw_fd(), 1), (complain.as_raw_fd(), 2)] {
        actions.add_dup2(ours, theirs).map_err(system)?;
    }
    let group = attributes().and_then(|attributes| posix_spawnp(&path, &actions, &attributes, &argv, &environment()));
    let child = Child { group: group.map_err(system)?, ended: None };
    let output = Output { printed: Ear::new(printed, LONGEST + 1), complained: Ear::new(complained, COMPLAINT) };
    Ok((child, output))
}

/// A group of its own, no signal blocked, and SIGPIPE as every program expects it (ours is ignored by Rust).
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    Ok(attributes)
}

fn environment() -> Vec<CString> {
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).ok()
    };
    std::env::vars_os().filter_map(pair).collect()
}

/// What a command prints and what it complains of.
struct Output {
    printed: Ear,
    complained: Ear,
}

impl Output {
    /// Waits for output and takes what there is; whether there was any, or an end of it.
    fn listen(&mut self, pause: Duration) -> bool {
        let pause = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        let ears = [&mut self.printed, &mut self.complained];
        let mut waiting: Vec<PollFd<'_>> = ears.iter().filter_map(|ear| ear.waiting()).collect();
        // Without an ear this is a sleep. An error, EINTR at most, is a sleep cut short.
        if poll(&mut waiting, pause).unwrap_or(0) < 1 {
            return false;
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let open = ears.into_iter().filter(|ear| ear.pipe.is_some());
        open.zip(ready).filter(|(_, ready)| *ready).for_each(|(ear, _)| ear.hear());
        true
    }

    fn is_too_much(&self) -> bool {
        self.printed.heard().len() > LONGEST
    }

    /// Standard error on one line, safe to show. Should the command
    /// have blurted the secret out there too, it is struck out.
    fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(self.complained.heard());
        let one_line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        let secret = String::from_utf8_lossy(line(self.printed.heard()));
        printable(&if secret.is_empty() { one_line } else { one_line.replace(&*secret, "****") })
    }
}

/// One of a command's outputs; its first octets are kept, as many as the buffer holds.
struct Ear {
    pipe: Option<PipeReader>,
    octets: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Ear {
    fn new(pipe: PipeReader, size: usize) -> Self {
        Self { pipe: Some(pipe), octets: buffer(size), filled: 0 }
    }

    fn heard(&self) -> &[u8] {
        &self.octets[..self.filled]
    }

    fn waiting(&self) -> Option<PollFd<'_>> {
        self.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
    }

    /// Reads once, which does not wait where poll has found something.
    fn hear(&mut self) {
        let mut forgotten = Zeroizing::new([0; 1024]);
        let (is_kept, room) = match &mut self.octets[self.filled..] {
            [] => (false, &mut forgotten[..]),
            room => (true, room),
        };
        match self.pipe.as_mut().map(|pipe| pipe.read(room)) {
            Some(Ok(n @ 1..)) if is_kept => self.filled += n,
            Some(Ok(1..)) => {}
            _ => self.pipe = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    const LONG: Duration = Duration::from_secs(30);

    fn sh(line: &str) -> Result<Vec<u8>, NoSecret> {
        first_line(&[line.to_owned()], LONG).map(|secret| secret.dangerous_expose().to_vec())
    }

    fn complaint(line: &str, limit: Duration) -> String {
        first_line(&[line.to_owned()], limit).unwrap_err().to_string()
    }

    #[test]
    fn the_first_line_is_the_password() {
        let rows: [(&str, &[u8]); 7] = [
            ("echo s3cret", b"s3cret"),
            ("printf s3cret", b"s3cret"),
            ("printf 's3cret\\r\\nlogin: alice\\n'", b"s3cret"),
            ("printf ' blanks stay '", b" blanks stay "),
            ("echo noise >&2; echo s3cret", b"s3cret"),
            ("printf s3; sleep 0.1; echo cret", b"s3cret"),
            ("printf '\\377latin\\n'", b"\xfflatin"),
        ];
        for (line, expected) in rows {
            assert_eq!(sh(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn one_word_is_for_the_shell_and_several_are_a_program_with_its_arguments() {
        assert_eq!(sh("x=s3cret; echo $x | tr s S").unwrap(), b"S3cret");
        let words = ["echo", "$HOME", "; echo two"].map(str::to_owned);
        assert_eq!(first_line(&words, LONG).unwrap().dangerous_expose(), b"$HOME ; echo two");
    }

    #[test]
    fn a_command_that_fails_is_told_in_its_own_words_and_without_its_secret() {
        for (line, expected) in [
            ("echo 'gpg: no card' >&2; exit 2", "the command ended with status 2; it said \"gpg: no card\""),
            ("echo s3cret; exit 1", "the command ended with status 1"),
            ("echo s3cret; echo 'bad s3cret!' >&2; exit 1", "the command ended with status 1; it said \"bad ****!\""),
            ("echo one >&2; echo two >&2; false", "the command ended with status 1; it said \"one; two\""),
            ("printf '\\033[2J\\377' >&2; false", "the command ended with status 1; it said \"\\x1b[2J\u{fffd}\""),
            ("kill -KILL $$", "the command was killed by SIGKILL"),
            ("true", "the command printed no password"),
            ("echo; echo s3cret", "the command printed no password"),
            ("exec >&-; true", "the command printed no password"),
        ] {
            assert_eq!(complaint(line, LONG), expected, "{line}");
        }
        assert!(
            complaint("/nonexistent/helper s3cret", LONG).starts_with("the command ended with status 127; it said")
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        for (words, expected) in [
            (&["/nonexistent/helper", "s3cret"][..], "/nonexistent/helper cannot be run: No such file or directory"),
            (&["/", "s3cret"], "/ cannot be run: Permission denied"),
            (&["a\0b", "s3cret"], "cannot be run: it holds a NUL"),
            (&[], "cannot be run: it is empty"),
        ] {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let error = first_line(&words, LONG).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_flood_is_cut_off() {
        assert_eq!(complaint("yes s3cret", LONG), "the command printed more than 64 KiB");
        assert_eq!(complaint("tr '\\0' x </dev/zero", LONG), "the command printed more than 64 KiB");
        let said = complaint("yes noise | head -c 1000000 >&2; false", LONG);
        assert!(said.starts_with("the command ended with status 1; it said \"noise; noise"), "{said}");
        assert!(said.len() < COMPLAINT, "{said}");
    }

    #[test]
    fn binary_output_is_no_password() {
        assert!(complaint("printf 's3c\\000ret\\n'", LONG).contains("NUL"));
    }

    /// Each would take for ever; the limit ends it. The pipe ends only when nobody of the group is left to hold it.
    #[test]
    fn what_does_not_end_is_killed_with_its_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, line) in [
            ("hangs", "sleep 600"),
            ("hangs after its answer", "echo s3cret; sleep 600"),
            ("closes its outputs and sleeps", "exec >&- 2>&-; sleep 600"),
            ("waits for a child", "(sleep 600) & wait"),
            ("ignores what can be ignored", "trap '' TERM HUP INT; sleep 600"),
        ] {
            let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
            let held = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&pipe).unwrap();
            let line = format!("exec 9>{}; echo held >&9; {line}", pipe.display());
            let said = complaint(&line, Duration::from_millis(300));
            assert_eq!(said, "the command had not ended after 0.3 s and was killed", "{name}");
            let mut ear = Ear { pipe: Some(std::os::fd::OwnedFd::from(held).into()), octets: buffer(16), filled: 0 };
            while ear.pipe.is_some() {
                assert_eq!(poll(&mut [ear.waiting().unwrap()], 10_000u16), Ok(1), "{name}: a survivor");
                ear.hear();
            }
            assert_eq!(ear.heard(), b"held\n", "{name}");
        }
    }

    #[test]
    fn no_time_left_is_no_answer() {
        let said = complaint("sleep 600", Duration::ZERO);
        assert_eq!(said, "the command had not ended after 0.0 s and was killed");
    }

    #[test]
    fn a_program_left_in_the_background_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        // It holds on to both outputs, as an agent does that was started carelessly.
        assert_eq!(sh(&format!("sleep 600 & echo $! >{}; echo s3cret", pid.display())).unwrap(), b"s3cret");
        let pid = Pid::from_raw(std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).expect("an agent must survive its starter");
    }

    #[test]
    fn its_standard_input_is_empty() {
        assert_eq!(sh("cat; echo s3cret").unwrap(), b"s3cret");
    }

    #[test]
    fn its_signals_are_as_a_program_expects_them_whatever_is_blocked_here() {
        let blocked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE]);
        std::thread::spawn(move || {
            blocked.thread_block().unwrap();
            // What nohup(1) or a shell's `&` had us ignore is ignored by every program that we start, as it is meant.
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
            let ignored = ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default();
            let is_ignored = |number: i32| ignored >> (number - 1) & 1 == 1;
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
                if signal != Signal::SIGPIPE && is_ignored(signal as i32) {
                    continue;
                }
                let signal = signal.as_str().trim_start_matches("SIG");
                let said = complaint(&format!("kill -{signal} $$; echo survived"), LONG);
                assert_eq!(said, format!("the command was killed by SIG{signal}"));
            }
            assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM), "ours stay blocked");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn it_gets_our_environment() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(sh("printenv PATH").unwrap(), path.as_bytes());
    }
}
