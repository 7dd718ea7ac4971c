//! A person's terminal, 80 by 24, by tmux: keys in, and what is to be seen out.

use super::peer::run;
use super::sendmail::WATCHDOG;
use std::process::Command;
use std::time::{Duration, Instant};

/// A terminal in which a command runs, with a server of its own.
pub struct Screen {
    dir: tempfile::TempDir,
}

impl Screen {
    /// Runs a line of sh(1) in a terminal, with nothing else in its environment but what the line puts there. Then
    /// the terminal shows `(ended N)`, N being its status, and what a shell would see of it.
    pub fn run(line: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let this = Self { dir };
        let line =
            format!("{line}\necho \"(ended $?)\"\nstty -a | grep -o -e '[-]*echo ' -e '[-]*isig'; exec sleep 600");
        let script = this.dir.path().join("script");
        std::fs::write(&script, line).unwrap();
        let mut tmux = this.tmux();
        run(tmux.args(["new-session", "-d", "-x", "80", "-y", "24", "/bin/sh"]).arg(script));
        this
    }

    /// Types a text and Enter.
    pub fn type_line(&self, text: &str) {
        run(self.tmux().args(["send-keys", "-l", "--", text]));
        self.press("Enter");
    }

    /// Presses a key, by tmux's name for it.
    pub fn press(&self, key: &str) {
        run(self.tmux().args(["send-keys", key]));
    }

    /// Waits until this is to be seen, and gives all that is, what has scrolled away included.
    pub fn wait_for(&self, text: &str) -> String {
        let until = Instant::now() + WATCHDOG;
        loop {
            let shown = self.text();
            if shown.contains(text) {
                return shown;
            }
            assert!(Instant::now() < until, "no {text:?} on the screen:\n{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that is to be seen.
    pub fn text(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p", "-J", "-S", "-"]))
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("TERM", "xterm");
        tmux.arg("-S").arg(self.dir.path().join("tmux")).args(["-f", "/dev/null"]);
        tmux
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The server of this screen alone, by its socket.
        let _ = self.tmux().arg("kill-server").output();
    }
}
