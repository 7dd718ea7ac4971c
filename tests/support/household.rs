//! Somebody who sends mail: a home with a configuration and a queue in it, and `sendmail` as its callers start it.

use super::running::Ended;
use super::sendmail::sendmail;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A home in a temporary directory.
pub struct Household {
    dir: tempfile::TempDir,
    /// Lines of `[queue]`.
    queue: &'static str,
}

impl Household {
    /// A home whose `config.toml` is this. No background runner, so that nothing outlives the test.
    pub fn new(config: &str) -> Self {
        Self::with(config, "")
    }

    /// The same, whose callers wait for their relay as long as a test may: on a busy machine nothing is put off.
    pub fn patient(config: &str) -> Self {
        Self::with(config, "deadline = \"50s\"\n")
    }

    fn with(config: &str, queue: &'static str) -> Self {
        let household = Self { dir: tempfile::tempdir().unwrap(), queue };
        household.configure(config);
        household
    }

    /// Its directory, which is `$HOME`.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration's path.
    pub fn config_file(&self) -> PathBuf {
        self.home().join(".config/pillarbox/config.toml")
    }

    /// Writes another configuration.
    pub fn configure(&self, config: &str) {
        let path = self.config_file();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{config}\n[queue]\nrunner = \"off\"\n{}", self.queue)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Any program in this home, with nothing else in its environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(self.home());
        command
    }

    /// Runs `sendmail` with these words and a letter on its standard input.
    pub fn sendmail(&self, words: &[&str], letter: &[u8]) -> Ended {
        Ended::of(self.command(sendmail()).args(words), letter)
    }

    /// `sendmail` that has to succeed without a word.
    pub fn send(&self, words: &[&str], letter: &[u8]) {
        self.sendmail(words, letter).silent_success();
    }

    /// Tries everything that is queued, due or not.
    pub fn run_queue(&self) -> Ended {
        self.sendmail(&["-qf"], b"")
    }

    /// What `mailq` prints.
    pub fn mailq(&self) -> String {
        let ended = Ended::of(self.command(sendmail()).arg0("mailq"), b"");
        assert_eq!((ended.status, &*ended.stderr), (0, ""), "mailq: {}", ended.stdout);
        ended.stdout
    }

    /// Asserts that nothing is left in the queue.
    pub fn assert_queue_is_empty(&self) {
        assert_eq!(self.mailq(), "Mail queue is empty\n");
    }
}
