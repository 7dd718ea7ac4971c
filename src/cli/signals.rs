//! Signals as a value: what SIGTERM, SIGINT, SIGHUP and their kin mean depends on how far the letter has come.
//!
//! They are blocked in every thread and waited for in one of their own, so that nothing dies half-way: before
//! standard input has ended they mean "no mail" and exit 75 at once; during an attempt they end the attempt, and
//! the letter is committed to the queue; after that they mean nothing, because the end is near. Where nobody waits for
//! a letter, they end the program.
//! SIGXFSZ and SIGPIPE are never our death: a full disk is an error of write(2).

use super::exit::sysexits;
use crate::smtp::interrupt::Interrupt;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Blocks what must not kill us. Call it before the first thread starts.
pub fn block() {
    let mut blocked = ours();
    blocked.add(Signal::SIGXFSZ);
    blocked.add(Signal::SIGPIPE);
    // It fails only for a bad argument, and this one is constant.
    let _ = blocked.thread_block();
}

/// Those that ask a program to end, and those that would end it: to death by a signal some callers say success. An
/// alarm outlives an exec, and so does a limit on time.
fn ours() -> SigSet {
    use Signal::{SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU};
    SigSet::from_iter([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU, SIGVTALRM, SIGPROF])
}

/// Lets a signal end the process with 75 at any moment: for what can end as well by a power cut.
pub fn leave() {
    // Without the thread they wait for the end.
    let _ = each(|_| std::process::exit(sysexits::TEMPFAIL.into()));
}

/// Tells of each signal, in a thread of its own, for as long as the process lives.
pub fn each(mut tell: impl FnMut(Signal) + Send + 'static) -> std::io::Result<()> {
    let wait = move || {
        while let Ok(signal) = ours().wait() {
            tell(signal);
        }
    };
    std::thread::Builder::new().name("signals".into()).stack_size(64 * 1024).spawn(wait).map(drop)
}

/// Waits for the signals in a thread of its own.
#[derive(Clone, Default)]
pub struct Watch {
    reading: Arc<AtomicBool>,
}

impl Watch {
    /// Starts the thread. Until [`Watch::message_is_read`] a signal ends the process with 75.
    pub fn start(interrupt: Interrupt) -> Self {
        let watch = Self { reading: Arc::new(AtomicBool::new(true)) };
        let reading = Arc::clone(&watch.reading);
        let wait = move || {
            while ours().wait().is_ok() {
                if reading.load(Ordering::SeqCst) {
                    std::process::exit(sysexits::TEMPFAIL.into());
                }
                interrupt.trip();
            }
        };
        // Without the thread the signals stay blocked: the caller waits a little longer, and no letter suffers.
        let _ = std::thread::Builder::new().name("signals".into()).stack_size(64 * 1024).spawn(wait);
        watch
    }

    /// Standard input has ended: from here on the letter is ours to keep.
    pub fn message_is_read(&self) {
        self.reading.store(false, Ordering::SeqCst);
    }
}
