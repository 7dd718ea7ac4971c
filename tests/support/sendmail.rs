//! The real `sendmail`, run as callers run it, in a world of its own.
//!
//! It gets an empty environment but for what a test gives it, a home that is empty but for its configuration,
//! and a queue of its own; it is told where they are. A [`Household`](super::household::Household) is one that looks
//! where everybody's are.

use super::relay::Relay;
use super::running::{Ended, Running};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The drop-in under test. `SENDMAIL_UNDER_TEST` names another, to see how that one fares.
pub fn sendmail() -> PathBuf {
    std::env::var_os("SENDMAIL_UNDER_TEST").map_or_else(|| env!("CARGO_BIN_EXE_sendmail").into(), PathBuf::from)
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
    pub fn run<W: AsRef<OsStr>>(&self, words: &[W], input: &[u8]) -> Ended {
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
            _ => sendmail(),
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
        Running::of(&mut command)
    }
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
