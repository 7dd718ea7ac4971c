//! A terminal of any size, by tmux: what is typed, and what is to be seen.
//!
//! Each has a server of its own, whose socket lies in the test's directory, and which ends with the value.

use super::peer::wait_for;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A terminal with a shell in it.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// One of so many columns and lines. The shell has these variables and no others, and starts in `dir`.
    pub fn new(dir: &Path, (columns, lines): (u16, u16), variables: &[(&str, &str)]) -> Self {
        let terminal = Self::running(dir, (columns, lines), variables, &["bash", "--norc"].map(OsStr::new));
        terminal.wait("the prompt", |screen| screen.trim_end().ends_with('$'));
        terminal
    }

    /// One with that program in it, from its beginning.
    pub fn running(dir: &Path, (columns, lines): (u16, u16), variables: &[(&str, &str)], program: &[&OsStr]) -> Self {
        let terminal = Self { socket: dir.join(format!("tmux-{columns}")) };
        let mut command = terminal.tmux();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns.to_string(), "-y", &lines.to_string()]);
        command.arg("-c").arg(dir).args(["env", "-i", "TERM=screen-256color", "LC_ALL=C.UTF-8", "TZ=UTC", "PS1=$ "]);
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        assert!(command.args(program).status().unwrap().success());
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").args(["-u", "-S"]).arg(&self.socket);
        command
    }

    /// Types a key by tmux's name for it, or text.
    pub fn type_in(&self, keys: &[&str]) {
        assert!(self.tmux().arg("send-keys").args(keys).status().unwrap().success());
    }

    /// Gives a command on an empty screen, and what it has written there when it has ended.
    pub fn run(&self, command: &str) -> String {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        // The screen is cleared by the same line, whose own echo goes with that; the mark is not in the words, nor on
        // any screen before this one.
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        self.type_in(&[&format!("clear; {command}; echo E''ND{number}"), "Enter"]);
        let mark = format!("END{number}");
        let ended = |screen: &str| screen.lines().any(|line| line == mark) && screen.trim_end().ends_with("\n$");
        let screen = self.wait(command, ended);
        let written = screen.lines().take_while(|line| *line != mark);
        written.flat_map(|line| [line.trim_end(), "\n"]).collect()
    }

    /// What is to be seen.
    pub fn screen(&self) -> String {
        self.capture(&[])
    }

    /// The same with its colours, as escape sequences.
    pub fn colours(&self) -> String {
        self.capture(&["-e"])
    }

    /// All that has been to be seen, what has scrolled away included; lines that were too long are whole.
    pub fn all(&self) -> String {
        self.capture(&["-J", "-S", "-"])
    }

    fn capture(&self, words: &[&str]) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).args(words).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits for a screen.
    pub fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        Self::wait_for(what, || self.screen(), is_it)
    }

    /// Waits for what is seen by that look.
    pub fn wait_for(what: &str, look: impl Fn() -> String, is_it: impl Fn(&str) -> bool) -> String {
        let last = std::cell::RefCell::new(String::new());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, || {
                let screen = look();
                let found = is_it(&screen).then(|| screen.clone());
                *last.borrow_mut() = screen;
                found
            })
        }));
        found.unwrap_or_else(|_| panic!("waited in vain for {what}; there is:\n{}", last.borrow()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").status();
    }
}
