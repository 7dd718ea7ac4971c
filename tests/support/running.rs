//! A program under way, run as its callers run it: input that comes when it comes, output that is heard to its end, and
//! a watch over it. It is killed, and the test fails, if it has not ended in time.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No run of `sendmail` may take longer.
pub const WATCHDOG: Duration = Duration::from_mins(1);

/// Nor may any other program: shells and interpreters do more than one thing.
const LONGEST: Duration = Duration::from_mins(10);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; 128 and the signal's number where it died by one, as in a shell.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
    /// Whether standard input was read to its end (no EPIPE for the caller).
    pub read_all: bool,
}

impl Ended {
    /// Runs it with that standard input.
    pub fn of(command: &mut Command, input: &[u8]) -> Self {
        let mut running = Running::of(command);
        running.limit = LONGEST;
        running.feed(input);
        running.end()
    }

    /// Asserts what a caller expects of a letter that went well.
    pub fn silent_success(&self) {
        assert_eq!((self.status, &*self.stdout, &*self.stderr), (0, "", ""));
    }

    /// Asserts the status, and that the complaint names all of these.
    pub fn says(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {:?}", self.stderr);
        }
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Self { status: status(output.status), stdout, stderr, read_all: true }
    }
}

fn status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// A program under way. Dropped before its end, it is killed.
pub struct Running {
    child: Child,
    limit: Duration,
    input: Option<Sender<Vec<u8>>>,
    /// Pieces of input that are not written yet.
    pending: Arc<AtomicUsize>,
    fed: Option<JoinHandle<bool>>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    /// Starts it; its input comes later.
    pub fn of(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (hear(child.stdout.take().unwrap()), hear(child.stderr.take().unwrap()));
        let (tell, input) = channel::<Vec<u8>>();
        let mut stdin = child.stdin.take().unwrap();
        let pending = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&pending);
        let fed = thread::spawn(move || {
            input.iter().all(|octets| {
                let is_taken = stdin.write_all(&octets).is_ok();
                left.fetch_sub(1, Ordering::SeqCst);
                is_taken
            })
        });
        Self { child, limit: WATCHDOG, input: Some(tell), pending, fed: Some(fed), stdout, stderr }
    }

    /// Its process, for whoever looks into it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it input, without an end yet.
    pub fn feed(&mut self, octets: &[u8]) {
        if let Some(input) = &self.input {
            self.pending.fetch_add(1, Ordering::SeqCst);
            // Whether it is taken is seen at the end.
            let _ = input.send(octets.to_vec());
        }
    }

    /// Waits until it has read all that it was given so far, but for what a pipe holds.
    pub fn wait_until_fed(&self) {
        let until = Instant::now() + self.limit;
        while self.pending.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < until, "it does not read");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends its input.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Ends its input and waits until it has ended.
    pub fn end(mut self) -> Ended {
        self.hang_up();
        self.ended()
    }

    /// Waits until it has ended by itself, its input still open.
    pub fn ended(&mut self) -> Ended {
        let until = Instant::now() + self.limit;
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < until, "it has not ended after {:?}", self.limit);
            thread::sleep(Duration::from_millis(2));
        };
        self.hang_up();
        let said = |pipe: &Receiver<String>| {
            pipe.recv_timeout(self.limit).expect("somebody whom it has left behind holds its output")
        };
        Ended {
            status: status(ended),
            stdout: said(&self.stdout),
            stderr: said(&self.stderr),
            read_all: self.fed.take().is_some_and(|fed| fed.join().unwrap()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Our own child, and harmless where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end, in a thread of its own.
fn hear(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, heard) = channel();
    thread::spawn(move || {
        let mut octets = Vec::new();
        let _ = pipe.read_to_end(&mut octets);
        let _ = tell.send(String::from_utf8_lossy(&octets).into_owned());
    });
    heard
}
