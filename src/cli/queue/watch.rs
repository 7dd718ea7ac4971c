//! The list as it changes, until q, Ctrl-C or a signal.
//!
//! The queue is looked at once a second (a list of thousands, which takes longer, less often), so that this works the
//! same on a directory and through the service, and ages go on. The terminal gets a screen of its own, and its old
//! modes and contents back however we leave, a fault of this program included.

use super::Only;
use super::letter::object;
use super::place::{Place, Rows};
use super::table::{Ink, View, cut, table, total, window};
use crate::cli::exit::sysexits;
use crate::cli::sendmail::Face;
use crate::cli::signals;
use crate::cli::terminal::key_by_key;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, PipeReader, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Shows the list on the terminal.
pub fn on_terminal(face: Face<'_>, place: &mut dyn Place, only: &Only, failed: bool) -> u8 {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        face.say("to watch takes a terminal; there is watch --json, and list");
        return sysexits::USAGE;
    }
    let signal = match signal() {
        Ok(signal) => signal,
        Err(error) => {
            face.say(&format!("signals cannot be waited for: {error}"));
            return sysexits::OSERR;
        }
    };
    let screen = match Screen::take() {
        Ok(screen) => screen,
        Err(error) => {
            face.say(&format!("the terminal cannot be used: {error}"));
            return sysexits::OSERR;
        }
    };
    let (mut first, mut trouble) = (0_usize, None);
    loop {
        let began = Instant::now();
        let found = match place.chosen(only, failed) {
            Ok(found) => found,
            Err(error) => {
                trouble = Some(error);
                break;
            }
        };
        let until = Instant::now() + LOOK.max(10 * began.elapsed());
        let leaves = loop {
            first = screen.draw(&found, first);
            match wait(&signal, until) {
                Key::None => break false,
                Key::Leave => break true,
                Key::Lines(lines) => first = first.saturating_add_signed(lines),
            }
        };
        if leaves {
            break;
        }
    }
    drop(screen);
    trouble.map_or(0, |trouble| super::tell(face, &trouble))
}

/// Prints each letter as it comes, changes or goes.
pub fn as_json(face: Face<'_>, place: &mut dyn Place, only: &Only, failed: bool) -> u8 {
    let signal = match signal() {
        Ok(signal) => signal,
        Err(error) => {
            face.say(&format!("signals cannot be waited for: {error}"));
            return sysexits::OSERR;
        }
    };
    let mut known = BTreeMap::<String, Value>::new();
    loop {
        let began = Instant::now();
        let found = match place.chosen(only, failed) {
            Ok(found) => found,
            Err(trouble) => return super::tell(face, &trouble),
        };
        let now: BTreeMap<String, Value> = found
            .letters
            .iter()
            .map(|row| {
                let mut object = object(row);
                if row.listed.letter.history.last_attempt().is_none() {
                    // Due since it came: by the clock that would be a change every second.
                    object["next_attempt"] = object["arrival_time"].clone();
                }
                (row.listed.letter.entry.id.to_string(), object)
            })
            .collect();
        let gone = known.keys().filter(|id| !now.contains_key(*id));
        let gone = gone.map(|id| json!({ "queue_id": id, "queue_name": "gone" }).to_string());
        let changed = now.iter().filter(|(id, object)| known.get(*id) != Some(*object));
        let lines: Vec<String> = gone.chain(changed.map(|(_, object)| object.to_string())).collect();
        if !lines.is_empty() {
            let status = face.print(&(lines.join("\n") + "\n"));
            if status != 0 {
                return status;
            }
        }
        known = now;
        let mut fds = [PollFd::new(signal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, millis(LOOK.max(10 * began.elapsed()))) {
            Ok(0) => {}
            _ => return 0,
        }
    }
}

fn millis(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_millis()).unwrap_or(PollTimeout::MAX)
}

/// Something to be read once a signal has come that wants us to leave.
fn signal() -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    signals::each(move |_| drop(writer.write_all(b"!")))?;
    Ok(reader)
}

/// What somebody has typed.
enum Key {
    /// Nothing, for as long as was waited.
    None,
    Leave,
    /// To move so far down, or up.
    Lines(isize),
}

/// The terminal, while it is ours.
struct Screen {
    modes: Termios,
    view: View,
}

impl Screen {
    fn take() -> io::Result<Self> {
        let modes = tcgetattr(rustix::stdio::stdin())?;
        // Ctrl-C and Ctrl-Z are keys here: no signal finds the terminal in this state.
        // A panic ends the process where it happens, and drops nothing.
        let (again, known) = (modes.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            Self::give_back(&again);
            known(panic);
        }));
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &key_by_key(&modes))?;
        let screen = Self { modes, view: View::of_stdout() };
        // A screen of its own, without a cursor.
        Self::write("\x1b[?1049h\x1b[?25l");
        Ok(screen)
    }

    /// The terminal as it was.
    fn give_back(modes: &Termios) {
        Self::write("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, modes);
    }

    fn write(text: &str) {
        let mut out = io::stdout().lock();
        // A terminal that has gone is found out by the next read.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Draws the list from its line `first` on; gives the line that it really begins with.
    fn draw(&self, found: &Rows, first: usize) -> usize {
        let (width, height) = window();
        let view = View { width: Some(width), ..self.view };
        let table = table(found, view, SystemTime::now());
        let lines: Vec<&str> = table.lines().collect();
        let heading = if found.letters.is_empty() {
            0
        } else if view.is_wide() {
            1
        } else {
            2
        };
        let (heading, mut lines) = lines.split_at(heading);
        if !found.letters.is_empty() {
            // The total stands above.
            let letters = lines.len() - 1 - found.corrupt.len();
            lines = &lines[..letters];
        }
        let room = height.saturating_sub(heading.len() + 2).max(1);
        let first = first.min(lines.len().saturating_sub(room));
        let shown = &lines[first..(first + room).min(lines.len())];
        let title = if found.letters.is_empty() { String::new() } else { format!("{}  ", total(found)) };
        let now = Timestamp::now().to_zoned_datetime(TimeZone::system());
        let title = format!("pillarbox queue  {title}{}", now.strftime("%H:%M:%S"));
        let below = lines.len() - first - shown.len();
        let keys = match (below, first) {
            (0, 0) => "q leaves".to_owned(),
            _ => format!("q leaves, ↑ and ↓ move; {below} lines below"),
        };
        let mut text = String::from("\x1b[H");
        let body = heading.iter().chain(shown).map(|line| (*line).to_owned());
        let body = std::iter::once(view.ink(Ink::Bold, &cut(&title, width))).chain(body);
        for line in body {
            text.push_str(&line);
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[J");
        Self::write(&format!("{text}\x1b[{height};1H{}", view.ink(Ink::Dim, &cut(&keys, width))));
        first
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        Self::give_back(&self.modes);
    }
}

/// Waits for a key.
fn wait(signal: &PipeReader, until: Instant) -> Key {
    let stdin = io::stdin();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(signal.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, millis(left)) {
            Ok(0) => return Key::None,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return Key::Leave,
            Ok(_) => {}
        }
        if fds[0].revents().is_some_and(|found| !found.is_empty()) {
            return Key::Leave;
        }
        let mut typed = [0; 64];
        let typed = match rustix::io::read(&stdin, &mut typed) {
            Ok(0) | Err(_) => return Key::Leave,
            Ok(n) => &typed[..n],
        };
        match keys(typed) {
            Key::None => {}
            key => return key,
        }
    }
}

/// What was typed, perhaps several keys at once.
fn keys(mut typed: &[u8]) -> Key {
    let mut lines = 0;
    loop {
        typed = match typed {
            [] if lines == 0 => return Key::None,
            [] => return Key::Lines(lines),
            // Escape is a key where nothing follows, and else the begin of one. 3 and 4 are Ctrl-C and Ctrl-D.
            [0x1b] | [b'q' | b'Q' | 3 | 4, ..] => return Key::Leave,
            [0x1b, b'[' | b'O', b'A', rest @ ..] | [b'k', rest @ ..] => {
                lines -= 1;
                rest
            }
            [0x1b, b'[' | b'O', b'B', rest @ ..] | [b'j', rest @ ..] => {
                lines += 1;
                rest
            }
            [_, rest @ ..] => rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_fault_of_ours_gives_the_terminal_back() {
        const MARK: &str = "PILLARBOX_TEST_FAULT";
        if std::env::var_os(MARK).is_some() {
            // As `cli::main` has it: without this the test's own unwinding would drop the screen.
            std::panic::set_hook(Box::new(|_| std::process::exit(70)));
            let _screen = Screen::take().unwrap();
            panic!("on purpose");
        }
        let terminal = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&terminal.slave).unwrap();
        let name = module_path!().split_once("::").unwrap().1.to_owned() + "::a_fault_of_ours_gives_the_terminal_back";
        let ours = || terminal.slave.try_clone().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name, "--nocapture"]).env(MARK, "1").stdin(ours()).stdout(ours());
        assert_eq!(child.status().unwrap().code(), Some(70));
        let after = tcgetattr(&terminal.slave).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        drop((child, terminal.slave));
        // To the end, which a terminal tells by an error.
        let (mut written, mut part) = (Vec::new(), [0; 1024]);
        while let Ok(n @ 1..) = nix::unistd::read(&terminal.master, &mut part) {
            written.extend_from_slice(&part[..n]);
        }
        assert!(written.ends_with(b"\x1b[?1049l"), "{}", String::from_utf8_lossy(&written));
        assert!(memchr::memmem::find(&written, b"\x1b[?1049h").is_some());
    }
}
