//! The person at the terminal: questions, and answers that may be hidden.
//!
//! A hidden answer is read key by key with the terminal's echo and signals off, so that Ctrl-C and Ctrl-Z are ours to
//! understand and no way out of the question leaves a terminal behind that shows nothing. What is typed goes into
//! memory that does not grow and is wiped. Where standard input is no terminal there is nobody to ask, and what it
//! holds is read line by line, an octet at a time, so that the next line is left to the next reader.

use super::exit::sysexits;
use super::signals;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// The longest answer.
const LONGEST: usize = 16 * 1024;

/// A terminal with somebody before it.
pub struct Terminal {
    tty: File,
    /// How it was before an answer was hidden.
    before: Arc<Mutex<Option<Termios>>>,
}

impl Terminal {
    /// The terminal, where standard input is one. From here on a signal leaves it as it was and ends the process.
    pub fn open() -> Option<Self> {
        if !io::stdin().is_terminal() {
            signals::leave();
            return None;
        }
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let before = Arc::new(Mutex::new(None::<Termios>));
        let (known, again) = (Arc::clone(&before), tty.try_clone().ok()?);
        let leave = move |_| {
            if let Some(before) = &*known.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = tcsetattr(&again, OptionalActions::Now, before);
            }
            std::process::exit(sysexits::TEMPFAIL.into());
        };
        signals::each(leave).ok()?;
        Some(Self { tty, before })
    }

    /// Asks for a line; `None` where there is none any more (Ctrl-D).
    pub fn ask(&self, question: &str) -> io::Result<Option<String>> {
        (&self.tty).write_all(question.as_bytes())?;
        let line = line(&mut &self.tty)?;
        Ok(line.map(|line| String::from_utf8_lossy(&line).trim().to_owned()))
    }

    /// Asks for yes or no; Enter alone is yes.
    pub fn agrees(&self, question: &str) -> io::Result<bool> {
        loop {
            match self.ask(&format!("{question} [Y/n] "))?.as_deref().map(str::to_ascii_lowercase).as_deref() {
                Some("" | "y" | "yes") => return Ok(true),
                None | Some("n" | "no") => return Ok(false),
                Some(_) => {}
            }
        }
    }

    /// Asks for a line that is not shown; `None` where the person gives up (Ctrl-C, Ctrl-D).
    pub fn ask_hidden(&self, question: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let before = tcgetattr(&self.tty)?;
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(before.clone());
        // What was typed ahead was shown, and is no secret.
        tcsetattr(&self.tty, OptionalActions::Flush, &key_by_key(&before))?;
        let typed = (&self.tty).write_all(question.as_bytes()).and_then(|()| self.keys());
        let restored = tcsetattr(&self.tty, OptionalActions::Now, &before);
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = (&self.tty).write_all(b"\n");
        restored?;
        typed
    }

    /// Reads keys to the end of a line.
    fn keys(&self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut typed = Zeroizing::new(Vec::with_capacity(LONGEST));
        let mut key = Zeroizing::new([0]);
        loop {
            if (&self.tty).read(&mut *key)? == 0 {
                return Ok(None);
            }
            match key[0] {
                b'\r' | b'\n' => return Ok(Some(typed)),
                // Ctrl-C, and Ctrl-D on an empty line.
                3 => return Ok(None),
                4 if typed.is_empty() => return Ok(None),
                // Backspace takes a character, which may be several octets; Ctrl-U takes all.
                8 | 127 => while typed.pop().is_some_and(|octet| octet & 0xc0 == 0x80) {},
                21 => typed.clear(),
                octet if typed.len() < LONGEST && (octet >= 32 || octet == b'\t') => typed.push(octet),
                _ => {}
            }
        }
    }
}

/// The modes in which every key comes at once and unseen, Ctrl-C and Ctrl-Z among them.
pub fn key_by_key(modes: &Termios) -> Termios {
    let mut raw = modes.clone();
    raw.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    raw
}

/// The next line of standard input, without its end; `None` where there is none.
pub fn piped_line() -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Not through the standard library's buffer, which would keep a copy and take what is not ours.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    line(&mut stdin)
}

/// A line without its end, read an octet at a time.
pub fn line(source: &mut dyn Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut octet = Zeroizing::new([0]);
    loop {
        match source.read(&mut *octet) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => return Ok(Some(line)),
            Ok(_) if octet[0] == b'\n' => {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
            Ok(_) if line.len() == LONGEST => {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the line is longer than 16 KiB"));
            }
            Ok(_) => line.push(octet[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_to_its_end_and_no_further() {
        let mut source: &[u8] = b"one\r\n two \n\nfour";
        let mut next = || line(&mut source).unwrap().map(|line| String::from_utf8_lossy(&line).into_owned());
        assert_eq!([next(), next(), next()].map(Option::unwrap), ["one", " two ", ""]);
        assert_eq!((next().as_deref(), next()), (Some("four"), None));
        assert!(line(&mut &vec![b'x'; LONGEST + 1][..]).is_err());
    }
}
