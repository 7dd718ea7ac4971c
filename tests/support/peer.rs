//! Whether somebody else's program is here, where to find a free port, and waiting with an end.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Whether all of these can be had (a program's name or path, or `root`). What is missing is a failure in CI, where
/// `.ci/peers` has brought it, and a skip that is printed for somebody who only wants to try the tests.
pub fn here(wanted: &[&str]) -> bool {
    let missing: Vec<_> = wanted.iter().copied().filter(|wanted| !is_here(wanted)).collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let sentence = format!("{test}: skipped, it needs {} (.ci/peers brings the programs)", missing.join(", "));
    assert!(std::env::var_os("CI").is_none(), "{sentence}");
    // Not `eprintln`, which the test harness would keep to itself.
    std::io::stderr().write_all(format!("{sentence}\n").as_bytes()).unwrap();
    false
}

fn is_here(wanted: &str) -> bool {
    if wanted == "root" {
        return nix::unistd::geteuid().is_root();
    }
    wanted.contains('/') && Path::new(wanted).exists() || program(wanted).is_some()
}

/// A program of that name, also where only root looks for it.
pub fn program(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

/// A loopback port that nobody listens on. Below the range that outgoing connections are given their ports from,
/// so that a relay which is stopped finds it free again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 200).unwrap() * 50;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Asks again and again until there is an answer. The limit is for a broken test, not a measure of anything.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a helper of a test to its end and returns what it printed; it has to succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{out}{err}", output.status);
    out.into_owned()
}

/// A program that runs beside the test and ends with it.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
