//! A machine with a service: `pillarbox serve` under a user of its own, and those who send by it.

use super::running::Ended;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Nobody has these.
pub const SERVICE: u32 = 64_000;
pub const ALICE: u32 = 64_001;
pub const BOB: u32 = 64_002;

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Lets a program be a user's, where there are several.
pub fn as_user(command: &mut Command, uid: u32) {
    if is_root() {
        command.uid(uid).gid(uid);
    }
}

/// Whether there can be several users; a skipped test says so.
pub fn can_be_others() -> bool {
    if !is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: only root can be several users");
    }
    is_root()
}

/// Whether a program is there; a skipped test says so.
pub fn has(program: &str) -> bool {
    let has = ["/usr/bin", "/usr/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !has {
        eprintln!("skipped: {program} is not installed");
    }
    has
}

/// A machine with a service.
pub struct Machine {
    dir: tempfile::TempDir,
    relay: String,
    /// `None` while it does not run.
    pub service: Option<Child>,
}

impl Machine {
    /// One whose `[serve]` has these lines, with its service running.
    pub fn new(lines: &str) -> Self {
        let mut machine = Self::at_rest("127.0.0.1:1");
        machine.configure(lines);
        machine.start();
        machine
    }

    /// One without a service yet.
    pub fn at_rest(relay: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for (program, from) in
            [("sendmail", env!("CARGO_BIN_EXE_sendmail")), ("pillarbox", env!("CARGO_BIN_EXE_pillarbox"))]
        {
            let to = dir.path().join(program);
            // Others may not reach the place where it was built.
            if fs::hard_link(from, &to).is_err() {
                // Not by us: what another thread's child still has open for writing cannot be run.
                assert!(Command::new("install").args([Path::new(from), &to]).status().unwrap().success());
            }
        }
        for (name, mode) in [("run", 0o755), ("spool", 0o700), ("home", 0o755)] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        let machine = Self { dir, relay: relay.to_owned(), service: None };
        machine.give_to_service("run");
        machine.give_to_service("spool");
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/submit.sock")
    }

    pub fn give_to_service(&self, name: &str) {
        if is_root() {
            chown(self.path(name), Some(SERVICE), Some(SERVICE)).unwrap();
        }
    }

    pub fn configure(&self, lines: &str) {
        let text = format!(
            "log = \"stderr\"\ndomain = \"box.example\"\n[account.relay]\nhost = \"{}\"\ntls = \"none\"\nuser = \"u\"\n\
             password = \"s3cret\"\nauth = \"off\"\n[serve]\nsocket = \"{}\"\n{lines}\n",
            self.relay,
            self.socket().display()
        );
        fs::write(self.path("config.toml"), text).unwrap();
        fs::set_permissions(self.path("config.toml"), Permissions::from_mode(0o600)).unwrap();
        self.give_to_service("config.toml");
    }

    /// `pillarbox serve` as the service's user, its log in a file.
    pub fn service(&self) -> Command {
        let mut command = Command::new(self.path("pillarbox"));
        command.args(["serve", "-C"]).arg(self.path("config.toml"));
        command.env_clear().env("PILLARBOX_QUEUE_DIR", self.path("spool")).env("PATH", "/usr/bin:/bin");
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap());
        as_user(&mut command, SERVICE);
        command
    }

    pub fn start(&mut self) {
        self.service = Some(self.service().spawn().unwrap());
        self.wait_for("the service", || self.log().contains("serving"));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn wait_for(&self, what: &str, mut there: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !there() {
            assert!(Instant::now() < until, "{what} did not come; the log: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.service.as_ref().unwrap().id().try_into().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the service to end; gives its status.
    pub fn ended(&mut self) -> i32 {
        self.service.take().unwrap().wait().unwrap().code().unwrap_or(-1)
    }

    /// A program of a user's, with the service's socket in its environment.
    pub fn command(&self, uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("PILLARBOX_SOCKET", self.socket());
        command.env("HOME", self.path("home")).current_dir("/");
        as_user(&mut command, uid);
        command
    }

    pub fn sendmail(&self, uid: u32, words: &[&str], letter: &[u8]) -> Ended {
        Ended::of(self.command(uid, self.path("sendmail")).args(words), letter)
    }

    pub fn mailq(&self, uid: u32) -> String {
        let ended = Ended::of(self.command(uid, self.path("sendmail")).arg("-bp"), b"");
        assert_eq!((ended.status, &*ended.stderr), (0, ""), "{ended:?}");
        ended.stdout
    }

    /// The letters in the queue, as they lie there, in the order of their arrival.
    pub fn letters(&self) -> Vec<String> {
        let mut names: Vec<PathBuf> = self.names("spool/letters");
        names.sort();
        names.iter().map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
    }

    /// What is in a directory; nothing where that was never needed.
    pub fn names(&self, dir: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(dir));
        entries.map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    }

    /// Asserts that nothing lies about that is no letter.
    pub fn nothing_half_kept(&self) {
        for dir in ["spool/tmp", "spool/corrupt"] {
            assert_eq!(self.names(dir), Vec::<PathBuf>::new(), "{dir}");
        }
    }

    /// A connection whose greeting has been heard.
    pub fn client(&self) -> Client {
        let mut client = Client(BufReader::new(self.connect()));
        assert!(client.hear().starts_with("220 "));
        client
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

/// Somebody who speaks SMTP by hand.
pub struct Client(pub BufReader<UnixStream>);

impl Client {
    pub fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The last line of the next reply; empty at the end.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.get(3..4) != Some("-") {
                return line;
            }
        }
    }

    /// Says a line and hears its answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(&format!("{line}\r\n"));
        self.hear()
    }
}

pub const LETTER: &[u8] = b"Subject: hello\n\ntext\n";

/// Whoever this test is, when it speaks to the socket itself.
pub fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}
