//! A person before a terminal of 80 by 24 in which one command runs: keys in, and all that was to be seen out.

use super::terminal::Terminal;

/// A terminal in which a command runs.
pub struct Screen {
    terminal: Terminal,
    _dir: tempfile::TempDir,
}

impl Screen {
    /// Runs a line of sh(1) in a terminal, with nothing else in its environment but what the line puts there. Then
    /// the terminal shows `(ended N)`, N being its status, and what a shell would see of it.
    pub fn run(line: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let line =
            format!("{line}\necho \"(ended $?)\"\nstty -a | grep -o -e '[-]*echo ' -e '[-]*isig'; exec sleep 600");
        let script = dir.path().join("script");
        std::fs::write(&script, line).unwrap();
        let program = ["/bin/sh".as_ref(), script.as_os_str()];
        let terminal = Terminal::running(dir.path(), (80, 24), &[("PATH", "/usr/bin:/bin")], &program);
        Self { terminal, _dir: dir }
    }

    /// Types a text and Enter.
    pub fn type_line(&self, text: &str) {
        self.terminal.type_in(&["-l", "--", text]);
        self.press("Enter");
    }

    /// Presses a key, by tmux's name for it.
    pub fn press(&self, key: &str) {
        self.terminal.type_in(&[key]);
    }

    /// Waits until this is to be seen, and gives all that is, what has scrolled away included.
    pub fn wait_for(&self, text: &str) -> String {
        Terminal::wait_for(text, || self.text(), |shown| shown.contains(text))
    }

    /// All that is to be seen.
    pub fn text(&self) -> String {
        self.terminal.all()
    }
}
