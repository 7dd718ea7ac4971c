//! The real `sendmail`, run as callers run it, in a world of its own.
//!
//! It gets an empty environment but for what a test gives it, a home that is empty but for its configuration,
//! and a queue of its own. It is killed, and the test fails, if it has not ended after [`WATCHDOG`].

use super::relay::Relay;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No run may take longer.
pub const WATCHDOG: Duration = Duration::from_mins(1);

/// What a caller sees of a run.
#[derive(Debug)]
pub struct Ran {
    /// `Err` is a signal.
    pub status: Result<i32, i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether standard input was read to its end (no EPIPE for the caller).
    pub read_all: bool,
}

/// A `sendmail` and its world.
pub struct Sendmail {
    home: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
    /// A line for `/bin/sh` in which `"$@"` is the call.
    shell: Option<String>,
    called: String,
}

impl Sendmail {
    /// One that knows this configuration, in TOML, by `$PILLARBOX_CONFIG`.
    pub fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut this = Self { home, environment: Vec::new(), shell: None, called: "sendmail".to_owned() };
        let path = this.put("config.toml", config);
        for (name, value) in [
            ("HOME", this.home().to_owned()),
            ("PATH", "/usr/bin:/bin".into()),
            ("PILLARBOX_CONFIG", path),
            ("PILLARBOX_QUEUE_DIR", this.queue()),
        ] {
            this = this.env(name, value);
        }
        this
    }

    /// One whose configuration is [`account`] for this relay.
    pub fn to(relay: &Relay) -> Self {
        Self::with(relay, "", "")
    }

    /// The same with lines added to the account and to the queue's table (or `off` for that); of a key said twice the
    /// added one counts.
    pub fn with(relay: &Relay, account: &str, queue: &str) -> Self {
        let this = Self::new("");
        this.configure(relay, account, queue);
        this
    }

    /// Gives it the account of that relay.
    pub fn configure(&self, relay: &Relay, account: &str, queue: &str) {
        let authority = self.put("ca.pem", &relay.identity.authority);
        self.put("config.toml", &config(relay, &authority, account, queue));
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its queue.
    pub fn queue(&self) -> PathBuf {
        self.home().join("queue")
    }

    /// Puts a private file into the home.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Its environment.
    pub fn environment(&self) -> &[(OsString, OsString)] {
        &self.environment
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self = self.without(name);
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Removes one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Calls it through a shell, for what only a shell can do to it: `exec "$@" >&-`.
    #[must_use]
    pub fn through(mut self, line: &str) -> Self {
        self.shell = Some(line.to_owned());
        self
    }

    /// Calls it by another name.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.called);
        self
    }

    /// Runs it to its end.
    pub fn run<W: AsRef<OsStr>>(&self, words: &[W], input: &[u8]) -> Ran {
        let mut running = self.start(words);
        running.feed(input);
        running.end()
    }

    /// Starts it; its input comes later.
    pub fn start<W: AsRef<OsStr>>(&self, words: &[W]) -> Running {
        // A name of its own is a link, as packages make them.
        let program = self.home().join("bin").join(&self.called);
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        let ours = match self.called.as_str() {
            "pillarbox" | "mail" | "mailx" => env!("CARGO_BIN_EXE_pillarbox").into(),
            _ => super::household::sendmail(),
        };
        if let Err(error) = std::os::unix::fs::symlink(ours, &program) {
            // Another call, maybe at this moment in another thread, has made it.
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{}", program.display());
        }
        let mut command = match &self.shell {
            None => Command::new(&program),
            Some(line) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", line, "sh"]).arg(&program);
                shell
            }
        };
        command.args(words).env_clear().envs(self.environment.iter().cloned()).current_dir(self.home());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
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
        Running { child, input: Some(tell), pending, fed: Some(fed), stdout, stderr }
    }
}

/// A `sendmail` under way. Dropped before its end, it is killed.
pub struct Running {
    child: Child,
    input: Option<Sender<Vec<u8>>>,
    /// Pieces of input that are not written yet.
    pending: Arc<AtomicUsize>,
    fed: Option<JoinHandle<bool>>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
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
        let until = Instant::now() + WATCHDOG;
        while self.pending.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < until, "sendmail does not read");
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
    pub fn end(mut self) -> Ran {
        self.hang_up();
        self.ended()
    }

    /// Waits until it has ended by itself, its input still open.
    pub fn ended(&mut self) -> Ran {
        let until = Instant::now() + WATCHDOG;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "sendmail has not ended after {WATCHDOG:?}");
            thread::sleep(Duration::from_millis(2));
        };
        self.hang_up();
        let said = |pipe: &Receiver<String>| {
            pipe.recv_timeout(WATCHDOG).expect("somebody whom sendmail has left behind holds its output")
        };
        Ran {
            status: status.code().ok_or_else(|| status.signal().unwrap_or_default()),
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

/// The account of `alice` at a relay, which is also the default, in TOML; the queue never runs by itself.
fn config(relay: &Relay, authority: &Path, account: &str, queue: &str) -> String {
    let own = format!(
        "host = \"{}\"\nport = {}\ntls = \"starttls\"\nuser = \"alice\"\npassword = \"s3cret\"\n\
         from = \"alice@example.com\"\nfrom_name = \"Alice Tester\"\nca_file = \"{}\"\nhelo = \"client.example\"\n",
        relay.address.ip(),
        relay.address.port(),
        authority.display()
    );
    let (top, table) = match queue {
        "off" => ("queue = \"off\"\n", String::new()),
        queue => ("", format!("[queue]\n{}", merged("runner = \"off\"\ndeadline = \"30s\"\n", queue))),
    };
    let account = merged(&own, account);
    format!("default = \"work\"\ndomain = \"box.example\"\n{top}[account.work]\n{account}{table}")
}

/// Lines of `key = value`: those that are not said again, and those that are added. `key =` alone takes one away.
fn merged(own: &str, added: &str) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let again: Vec<String> = added.lines().map(key).collect();
    let kept = own.lines().filter(|line| !again.contains(&key(line)));
    let added = added.lines().filter(|line| line.split_once('=').is_some_and(|(_, value)| !value.trim().is_empty()));
    kept.chain(added).flat_map(|line| [line, "\n"]).collect()
}
