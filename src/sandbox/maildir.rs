//! A Maildir: one file a letter, written in `tmp` and moved to `new` when it is whole.
//!
//! Lines end in LF there, as mail readers expect. `Return-Path:` and `Delivered-To:` stand before the letter's own
//! header, since nothing else would keep its envelope. A letter that is not finished leaves nothing.
//! <https://cr.yp.to/proto/maildir.html>

use crate::envelope::Envelope;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A directory of letters.
#[derive(Debug)]
pub struct Maildir {
    root: PathBuf,
    host: String,
    /// Letters begun.
    count: AtomicU64,
}

impl Maildir {
    /// Opens a Maildir, making it (0700) where it is missing. `host` becomes part of the names of its files.
    pub fn open(root: &Path, host: &str) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            DirBuilder::new().recursive(true).mode(0o700).create(root.join(part))?;
        }
        // The two characters that have a meaning in such names are escaped as the specification has it.
        let host = host.replace('/', "\\057").replace(':', "\\072");
        Ok(Self { root: root.to_owned(), host, count: AtomicU64::new(0) })
    }

    /// Begins a letter.
    pub(super) fn begin(&self, envelope: &Envelope) -> io::Result<Delivery> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let (seconds, micros, pid) = (now.as_secs(), now.subsec_micros(), std::process::id());
        let name = format!("{seconds}.M{micros}P{pid}Q{number}.{}", self.host);
        let (tmp, new) = (self.root.join("tmp").join(&name), self.root.join("new").join(&name));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tmp)?;
        let mut delivery = Delivery { file: BufWriter::with_capacity(64 * 1024, file), tmp, new, after_cr: false };
        writeln!(delivery.file, "Return-Path: <{}>", envelope.reverse_path())?;
        for recipient in envelope.recipients() {
            writeln!(delivery.file, "Delivered-To: {}", recipient.mailbox)?;
        }
        Ok(delivery)
    }
}

/// A letter that is being written.
pub(super) struct Delivery {
    file: BufWriter<File>,
    tmp: PathBuf,
    new: PathBuf,
    /// A CR is held back, because an LF may follow.
    after_cr: bool,
}

impl Delivery {
    /// Ends the letter and gives where it is.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        if self.after_cr {
            self.file.write_all(b"\r")?;
        }
        self.file.flush()?;
        fs::rename(&self.tmp, &self.new)?;
        Ok(std::mem::take(&mut self.new))
    }
}

impl Write for Delivery {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut rest = octets;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] != b'\n' {
                self.file.write_all(b"\r")?;
            }
            let cr = memchr::memchr(b'\r', rest);
            self.file.write_all(&rest[..cr.unwrap_or(rest.len())])?;
            self.after_cr = cr.is_some();
            rest = cr.map_or(&[], |cr| &rest[cr + 1..]);
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // It is not there any more where the letter was finished.
        let _ = fs::remove_file(&self.tmp);
    }
}
