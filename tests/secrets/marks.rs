//! The secrets that are in play, what they may look like, and where somebody could see one.

use crate::scram;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::sync::LazyLock;

pub const PASSWORD: &str = "Marked-pa55word/4711";
pub const TOKEN: &str = "Marked-t0ken.of.an-hour-4712";
pub const REFRESH: &str = "Marked-refre5h-t0ken-4713";
pub const CLIENT: &str = "Marked-c1ient-secret-4714";
/// The refresh token that a provider gives in the place of the other one.
pub const ROTATED: &str = "Marked-r0tated-refresh-4715";

/// A secret by its name, and what it may look like.
pub struct Mark {
    pub name: String,
    shapes: Vec<Vec<u8>>,
}

/// All of them, what SCRAM derives from the password included: each of those lets one log in, or poses as the server.
pub static MARKS: LazyLock<Vec<Mark>> = LazyLock::new(|| {
    let texts = [PASSWORD, TOKEN, REFRESH, CLIENT, ROTATED];
    let texts = texts.map(|text| (text.to_owned(), text.as_bytes().to_vec()));
    let all = texts.into_iter().chain(scram::derived(PASSWORD));
    all.map(|(name, secret)| Mark { name, shapes: shapes(&secret) }).collect()
});

impl Mark {
    /// How often it stands somewhere.
    pub fn sightings(&self, place: &[u8]) -> usize {
        self.shapes.iter().map(|shape| memchr::memmem::find_iter(place, shape).count()).sum()
    }
}

/// A secret as it may look: itself, in hexadecimal, its base64 at
/// each of the three places that it may begin at, and inside a PLAIN.
fn shapes(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| {
        let digits = |octet: &u8| if upper { format!("{octet:02X}") } else { format!("{octet:02x}") };
        secret.iter().map(digits).collect::<String>().into_bytes()
    };
    let plain = BASE64.encode([b"\0alice\0", secret].concat()).into_bytes();
    let mut shapes = vec![secret.to_vec(), hex(false), hex(true), plain];
    for before in 0..3 {
        // Without the digits that also depend on what stands before and behind.
        let padded = [&b"   "[..before], secret].concat();
        let digits = BASE64.encode(&padded);
        let begin = (before * 8).div_ceil(6);
        let end = padded.len() * 8 / 6;
        shapes.push(digits.as_bytes()[begin..end].to_vec());
    }
    shapes
}

/// How often a secret stands somewhere.
pub fn sightings(secret: &str, place: &[u8]) -> usize {
    MARKS.iter().filter(|mark| mark.name == secret).map(|mark| mark.sightings(place)).sum()
}

/// How often each secret stands in a process's memory, where it does.
pub fn copies(pid: u32) -> Vec<(String, usize)> {
    let memory = memory(pid);
    let count = |mark: &Mark| memory.iter().map(|(_, octets)| mark.sightings(octets)).sum::<usize>();
    MARKS.iter().map(|mark| (mark.name.clone(), count(mark))).filter(|(_, count)| *count > 0).collect()
}

/// The secrets that stand somewhere, each named by where that is.
pub fn told(place: &str, octets: &[u8]) -> Vec<String> {
    let seen = MARKS.iter().filter(|mark| mark.sightings(octets) > 0);
    seen.map(|mark| format!("{} in {place}: {}", mark.name, String::from_utf8_lossy(octets))).collect()
}

/// A page that nobody has written to.
static ZEROS: [u8; 4096] = [0; 4096];

/// Everything that a process has written in its memory, but for what is mapped from a file and unchanged.
pub fn memory(pid: u32) -> Vec<(String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut parts = Vec::new();
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((from, to)) = words[0].split_once('-') else { continue };
        let number = |digits| u64::from_str_radix(digits, 16).unwrap();
        if !words[1].starts_with("rw") {
            continue;
        }
        let mut octets = vec![0; usize::try_from(number(to) - number(from)).unwrap()];
        memory.seek(SeekFrom::Start(number(from))).unwrap();
        if memory.read_exact(&mut octets).is_err() {
            continue;
        }
        let name = words.get(5).copied().unwrap_or("anonymous");
        // Most of it has never been touched. No secret lies across a page that is all zeros.
        let pages = octets.chunks(ZEROS.len()).collect::<Vec<_>>();
        for touched in pages.split(|page| **page == ZEROS[..page.len()]).filter(|touched| !touched.is_empty()) {
            parts.push((name.to_owned(), touched.concat()));
        }
    }
    assert!(parts.iter().any(|(name, _)| name == "[stack]"), "this is no process's memory: {maps}");
    parts
}

/// Arguments and environments of everybody, but for this process and the keepers' readers.
pub fn everybody() -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for name in ["cmdline", "environ"] {
            // One that has ended meanwhile tells nothing.
            all.extend(fs::read(entry.path().join(name)).unwrap_or_default());
        }
    }
    all
}
