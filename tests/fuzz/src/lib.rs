//! What the fuzz targets share: how an input is cut into values, and how memory is measured.
//!
//! `./run` runs them all. Each target in `bin/` asserts what its parser promises, not only that it does not panic.

pub mod config;

use pillarbox::message::{Bounds, InMemory, LoneDot, Message};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An input that is read as one value after the other. At its end everything is zero and empty.
pub struct Tape<'a>(pub &'a [u8]);

impl<'a> Tape<'a> {
    /// One octet.
    pub fn octet(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number = usize::from(self.octet()) << 8 | usize::from(self.octet());
        number.checked_rem(end).unwrap_or(0)
    }

    /// The octets up to the next 0xFF, which no UTF-8 has.
    pub fn octets(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|octet| *octet == 0xFF);
        let octets = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = end.map_or(&[], |end| &self.0[end + 1..]);
        octets
    }

    /// The same as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.octets()).into_owned()
    }

    /// Whether there is no more.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

/// A reader that gives so many octets at a time.
pub struct Pieces<'a>(pub &'a [u8], pub usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(into.len()).min(self.1.max(1));
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// The message in such octets, read in such pieces.
pub fn message(octets: &[u8], piece: usize, dot: LoneDot) -> Option<Message> {
    Message::read_within(
        Bounds { piece: 4096, ..Bounds::default() },
        &mut Pieces(octets, piece),
        dot,
        Box::<InMemory>::default(),
    )
    .ok()
}

/// All octets of a message.
pub fn octets(message: &Message) -> Vec<u8> {
    let mut octets = Vec::new();
    message.reader().unwrap().read_to_end(&mut octets).unwrap();
    octets
}

/// Whether every CR has its LF, and every LF its CR.
pub fn is_canonical(octets: &[u8]) -> bool {
    memchr::memchr2_iter(b'\r', b'\n', octets).all(|at| match octets[at] {
        b'\r' => octets.get(at + 1) == Some(&b'\n'),
        _ => at > 0 && octets[at - 1] == b'\r',
    })
}

/// Whether a terminal would do nothing but show it.
pub fn is_harmless(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// The system's memory, counted.
pub struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands everything on to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// How many octets were in use at most while `work` was done, beyond those before it. For programs that count.
pub fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed).saturating_sub(before)
}
