//! The roof: words in, calls, words out. The only floor that knows sentences, exit codes, clock and environment.

pub mod bs;
pub mod check;
pub mod completions;
pub mod configuration;
pub mod consent;
pub mod exit;
pub mod host;
pub mod import;
pub mod init;
pub mod input;
pub mod log;
pub mod login;
pub mod mail;
pub mod mailq;
pub mod meaning;
pub mod msmtp;
pub mod options;
pub mod pillarbox;
pub mod queue;
pub mod run;
pub mod sandbox;
pub mod say;
pub mod sendmail;
pub mod serve;
pub mod service;
pub mod session_log;
pub mod signals;
pub mod terminal;

use crate::outcome::escaped;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Runs a program under the name that it was called by.
pub fn main(program: impl FnOnce(&str, Vec<OsString>) -> u8) -> ExitCode {
    guard_memory();
    never_by_abort();
    // A fault of ours is told as one, by the status that stands for it: not by the death of a signal.
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(std::io::stderr(), "a fault of this program, please report it: {panic}");
        std::process::exit(exit::sysexits::SOFTWARE.into());
    }));
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    // Whoever calls us has chosen it, and sentences begin with it.
    let name = escaped(&Path::new(&name).file_name().unwrap_or(name.as_os_str()).to_string_lossy());
    ExitCode::from(program(if name.is_empty() { "sendmail" } else { &name }, words.collect()))
}

/// Has the status for want of resources stand for it where the standard library gives up: it aborts when there is no
/// memory (or no stack) left, and to death by a signal some callers say success.
fn never_by_abort() {
    let always = Arc::new(AtomicBool::new(true));
    let status = exit::sysexits::OSERR.into();
    // Without it all is as before.
    let _ = signal_hook::flag::register_conditional_shutdown(signal_hook::consts::SIGABRT, status, always);
}

/// Closes our memory to everybody but root: a password may be in it. No core is dumped, and no other program of the
/// same user can read it (`ptrace`, `/proc/PID/mem`) or our environment. A debugger that starts us is as good as ever,
/// and so is one of root's. What we start ourselves opens itself again, as exec has it.
fn guard_memory() {
    // It can only fail where the kernel does not know it, and then nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}
