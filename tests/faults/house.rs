//! Somebody's home: a configuration, a queue, a log, and `sendmail` as it is called from there.
//!
//! Nothing that is started here lasts longer than [`PATIENCE`]: what
//! does is ended with all that it started, and counts as a hang.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pillarbox::queue::{Listed, Queue};

use crate::letter::Letter;
use crate::sink::Sink;

/// How long a call may take. Only a hang takes so long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The program under test. `SENDMAIL_UNDER_TEST` names another build of it.
pub fn sendmail() -> String {
    std::env::var("SENDMAIL_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sendmail").to_owned())
}

/// A home whose relay is a sink.
pub struct House {
    dir: tempfile::TempDir,
    queue: PathBuf,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// It had to be ended.
    pub hung: bool,
    /// What it said on standard error.
    pub said: String,
}

impl Ended {
    /// The exit status; `None` where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether it was killed, by the test and not by itself.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9) && !self.hung
    }

    /// Whether it ended as a program of this trade may: with 0 or a status of sysexits(3).
    pub fn is_proper(&self) -> bool {
        !self.hung && self.code().is_some_and(|code| code == 0 || (64..=78).contains(&code))
    }
}

impl House {
    /// A home without a background runner, so that a test knows who is at work.
    pub fn new(sink: &Sink) -> Self {
        Self::with(sink, "runner = \"off\"\ndeadline = \"50s\"\n")
    }

    /// A home with these settings of the queue.
    pub fn with(sink: &Sink, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("queue");
        let house = Self { dir, queue };
        house.configure(sink, settings);
        house
    }

    /// The same, with the queue in a directory of the caller's.
    pub fn with_queue(sink: &Sink, queue: &Path) -> Self {
        let mut house = Self::new(sink);
        queue.clone_into(&mut house.queue);
        house
    }

    /// Writes the configuration: the sink for everybody, and by another account for those at other.example.
    pub fn configure(&self, sink: &Sink, settings: &str) {
        let path = self.path(".config/pillarbox/config.toml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let log = self.path("log");
        let account = format!("host = \"{}\"\ntls = \"none\"\ntimeout = \"50s\"\n", sink.address());
        let text = format!(
            "default = \"sink\"\ndomain = \"example.org\"\nlog = \"{}\"\n[account.sink]\n{account}\
             [account.other]\n{account}recipients = [\"*@other.example\"]\n[queue]\n{settings}",
            log.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    /// A path in the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The queue's directory.
    pub fn queue_dir(&self) -> &Path {
        &self.queue
    }

    /// The queue as the library sees it.
    pub fn queue(&self) -> Queue {
        Queue::open(&self.queue).unwrap()
    }

    /// The letters that wait and can be read.
    pub fn waiting(&self) -> Vec<Listed> {
        Queue::find(&self.queue).unwrap().map_or_else(Vec::new, |queue| queue.list().unwrap().flatten().collect())
    }

    /// The names in one of the queue's directories.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.queue.join(dir)) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What the log says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A program with this home and nothing else in its environment. (A time zone, because looking for one reads
    /// hundreds of directory entries, which are no points of interest.)
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TZ", "UTC");
        command.env("PILLARBOX_QUEUE_DIR", &self.queue).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Hands a letter in and waits for the answer.
    pub fn send(&self, mode: &str, letter: &Letter) -> Ended {
        self.finish(self.command(&sendmail()).args(letter.words(mode)).stdin(self.input(letter)))
    }

    /// The letter as a file to be read from.
    pub fn input(&self, letter: &Letter) -> File {
        let path = self.path(&format!("{}.eml", letter.token));
        fs::write(&path, letter.text()).unwrap();
        File::open(path).unwrap()
    }

    /// Starts `sendmail` with these words.
    pub fn call(&self, words: &[&str]) -> Ended {
        self.finish(self.command(&sendmail()).args(words))
    }

    /// Runs the queue, all of it, until nothing waits; gives up after a few times, and leaves it to the caller to see.
    pub fn run_dry(&self) {
        for _ in 0..4 {
            let ended = self.call(&["-qf"]);
            assert_eq!(ended.code(), Some(0), "{ended:?}");
            if self.names("letters").is_empty() {
                break;
            }
        }
    }

    /// Runs a command to its end, and ends it where it has none.
    pub fn finish(&self, command: &mut Command) -> Ended {
        static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let said = self.path(&format!("said.{}", CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
        let mut child = command.stderr(File::create(&said).unwrap()).spawn().unwrap();
        let (status, hung) = wait(&mut child);
        let text = String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned();
        fs::remove_file(said).unwrap();
        Ended { status, hung, said: text }
    }
}

/// Waits for a child that leads a process group. `true`: it had to be ended.
pub fn wait(child: &mut Child) -> (ExitStatus, bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, false);
        }
        if Instant::now() > until {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let _ = killpg(group, Signal::SIGKILL);
            return (child.wait().unwrap(), true);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until something is so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
