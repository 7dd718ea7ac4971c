//! The terminal, where a letter is typed at one: hints, the subject, the end of the text, Ctrl-C, and how far a large
//! letter has come on its way. All of it is said on standard error; where nobody watches, nothing is.

use super::super::exit::sysexits;
use super::super::signals;
use crate::message::{Content, Store};
use crate::queue::Spool;
use crate::smtp::interrupt::Interrupt;
use nix::sys::signal::Signal;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A letter of that many octets shows how far it has come.
const LARGE: u64 = 1 << 20;

/// How often it is shown.
const PACE: Duration = Duration::from_millis(100);

/// Whether somebody types at a terminal and sees what is said.
pub fn is_typed() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A line on standard error.
pub fn hint(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks for the subject; `None` where there is no answer.
pub fn subject() -> Option<String> {
    let _ = write!(io::stderr(), "Subject: ");
    let mut line = String::new();
    io::stdin().read_line(&mut line).ok()?;
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// What is typed, up to Ctrl-D or a line that is a lone dot. The terminal gives a line at a time.
pub struct Typed {
    is_line_start: bool,
    has_ended: bool,
}

impl Typed {
    /// At the start of a line.
    pub fn new() -> Self {
        Self { is_line_start: true, has_ended: false }
    }
}

impl Read for Typed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.has_ended {
            return Ok(0);
        }
        let n = io::stdin().lock().read(into)?;
        let octets = &into[..n];
        self.has_ended = n == 0 || (self.is_line_start && octets == b".\n");
        self.is_line_start = octets.ends_with(b"\n");
        Ok(if self.has_ended { 0 } else { n })
    }
}

/// What a signal means: nothing was sent, until the text has ended; then the letter is ours to keep.
#[derive(Clone)]
pub struct Watch {
    reading: Arc<AtomicBool>,
}

impl Watch {
    /// Starts to wait for signals. With `is_typed`, the first Ctrl-C only warns; with `is_deaf`, each is ignored.
    pub fn start(interrupt: Interrupt, is_typed: bool, is_deaf: bool) -> Self {
        let watch = Self { reading: Arc::new(AtomicBool::new(true)) };
        let (reading, warned) = (Arc::clone(&watch.reading), AtomicU8::new(0));
        let tell = move |signal| {
            if !reading.load(Ordering::SeqCst) {
                return interrupt.trip();
            }
            if is_typed && signal == Signal::SIGINT {
                if is_deaf {
                    return;
                }
                if warned.fetch_add(1, Ordering::SeqCst) == 0 {
                    return hint("\n(Ctrl-C: once more, and the letter is thrown away)");
                }
                hint("\nnothing was sent and nothing is kept");
            }
            std::process::exit(sysexits::TEMPFAIL.into());
        };
        // Without the thread the signals stay blocked: no letter suffers.
        let _ = signals::each(tell);
        watch
    }

    /// The text has ended.
    pub fn message_is_read(&self) {
        self.reading.store(false, Ordering::SeqCst);
    }
}

/// How far a letter has come, on a terminal.
#[derive(Clone)]
pub struct Bar(Option<Arc<Mutex<Instant>>>);

impl Bar {
    /// A bar where somebody sees it.
    pub fn new(verbose: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_wanted = io::stderr().is_terminal() && !is_dumb && !verbose;
        Self(is_wanted.then(|| Arc::new(Mutex::new(Instant::now()))))
    }

    /// Whether a letter of that size is shown.
    pub fn is_for(&self, size: u64) -> bool {
        self.0.is_some() && size >= LARGE
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if self.0.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn show(&self, read: u64, all: u64) {
        let Some(shown) = self.0.as_ref().filter(|_| all >= LARGE) else { return };
        let Ok(mut shown) = shown.lock() else { return };
        if shown.elapsed() < PACE && read < all {
            return;
        }
        *shown = Instant::now();
        let _ = write!(io::stderr(), "\r\x1b[K{}", drawn(read, all));
    }
}

/// `[#####.....]  50 %  3.0 of 6.0 MiB`
fn drawn(read: u64, all: u64) -> String {
    const WIDTH: usize = 30;
    let share = |of: usize| usize::try_from(u128::from(read) * of as u128 / u128::from(all.max(1))).unwrap_or(of);
    let mib = |octets: u64| format!("{}.{}", octets >> 20, ((octets % (1 << 20)) * 10) >> 20);
    let full = share(WIDTH);
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
    format!("[{bar}] {:3} %  {} of {} MiB", share(100), mib(read), mib(all))
}

/// A store whose content shows, while it is read, how far the reader has come.
pub struct Shown(pub Spool, pub Bar);

impl Store for Shown {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.write(octets)
    }

    fn finish(self: Box<Self>) -> io::Result<Arc<dyn Content>> {
        let content = Box::new(self.0).finish()?;
        Ok(Arc::new(Watched { content, bar: self.1 }))
    }
}

struct Watched {
    content: Arc<dyn Content>,
    bar: Bar,
}

impl Content for Watched {
    fn len(&self) -> u64 {
        self.content.len()
    }

    fn reader(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Counting { source: self.content.reader()?, read: 0, all: self.len(), bar: &self.bar }))
    }
}

struct Counting<'a> {
    source: Box<dyn Read + 'a>,
    read: u64,
    all: u64,
    bar: &'a Bar,
}

impl Read for Counting<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(into)?;
        self.read += n as u64;
        self.bar.show(self.read, self.all);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_much_of_how_much() {
        assert_eq!(drawn(3 << 20, 6 << 20), "[###############...............]  50 %  3.0 of 6.0 MiB");
        assert_eq!(drawn(0, 0), "[..............................]   0 %  0.0 of 0.0 MiB");
        assert!(drawn(u64::MAX, u64::MAX).starts_with("[##############################] 100 %"));
    }
}
