//! A place to try things out in: a private directory, settings for the relay, and `sendmail` first on PATH.
//!
//! Everything lies below one directory of mode 0700 that is removed at the end. This is the third place that may start
//! another program (the wall's others are `secret` and the background runner): the sandbox's user asked for it by name.

use super::Relay;
use crate::queue::Queue;
use std::env::join_paths;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The names that programs know a `sendmail` by.
const PROGRAMS: [&str; 3] = ["sendmail", "mailq", "newaliases"];

/// A private directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    /// Makes one in `parent`. `word` is random: it makes the name, and nobody can have taken it.
    pub fn make(parent: &Path, word: &str) -> io::Result<Self> {
        let dir = parent.join(format!("pillarbox-sandbox-{word}"));
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the letters go that are under way.
    pub fn queue_dir(&self) -> PathBuf {
        self.dir.join("queue")
    }

    /// Writes the certificate that clients of the relay must trust; gives its file.
    pub fn write_ca(&self, relay: &Relay) -> io::Result<PathBuf> {
        self.write("ca.pem", relay.ca())
    }

    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }

    /// How many letters are still under way.
    pub fn waiting(&self) -> usize {
        let ids = Queue::find(&self.queue_dir()).ok().flatten().and_then(|queue| queue.ids().ok());
        ids.map_or(0, |ids| ids.len())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A runner that is just leaving may put its last file there meanwhile: once more, then.
        if fs::remove_dir_all(&self.dir).is_err() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The settings for a client of the relay, in TOML.
pub fn settings(relay: &Relay, ca_file: &Path, user: &str, password: &str) -> String {
    let (address, ca_file) = (relay.address(), ca_file.to_string_lossy());
    let mut text = "default = \"sandbox\"\n\n[account.sandbox]\n".to_owned();
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        ip => ip.to_string(),
    };
    let port = address.port();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "host = {}\nport = {port}\nca_file = {}", quoted(&host), quoted(&ca_file));
    let _ = writeln!(text, "user = {}\npassword = {}", quoted(user), quoted(password));
    text.push_str("from = \"sandbox@example.org\"\n");
    text
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => drop(write!(quoted, "\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Why the command cannot be run.
#[derive(Debug)]
pub enum NoTrial {
    /// The directory cannot be set up.
    Scratch(io::Error),
    /// The command itself cannot be started.
    Command(OsString, io::Error),
}

/// Starts `command` with `sendmail` (the one at `sendmail`) first on `path`, set up for the relay.
pub fn start(
    command: &[OsString],
    scratch: &Scratch,
    settings: &str,
    sendmail: &Path,
    path: &OsStr,
) -> Result<Child, NoTrial> {
    let set_up = || -> io::Result<(PathBuf, OsString)> {
        let queue = scratch.queue_dir();
        let settings = format!("{settings}\n[queue]\ndir = {}\n", quoted(&queue.to_string_lossy()));
        let config = scratch.write("config.toml", &settings)?;
        let programs = scratch.dir().join("bin");
        DirBuilder::new().mode(0o700).create(&programs)?;
        for name in PROGRAMS {
            symlink(sendmail, programs.join(name))?;
        }
        let others = std::env::split_paths(path);
        Ok((config, join_paths([programs].into_iter().chain(others)).map_err(io::Error::other)?))
    };
    let (config, path) = set_up().map_err(NoTrial::Scratch)?;
    let (program, words) = command.split_first().ok_or_else(|| NoTrial::Scratch(io::ErrorKind::InvalidInput.into()))?;
    Command::new(program)
        .args(words)
        .env("PATH", path)
        .env("PILLARBOX_CONFIG", config)
        .env("PILLARBOX_QUEUE_DIR", scratch.queue_dir())
        .spawn()
        .map_err(|error| NoTrial::Command(program.clone(), error))
}
