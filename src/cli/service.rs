//! The machine's service, from the side of those who use it: `sendmail`, `sendmail -bs`, `mailq`.
//!
//! A caller without a configuration of its own hands its letter to the service, whose socket
//! is where `$PILLARBOX_SOCKET` says (an argument cannot), else at its usual place. The
//! service is then the relay: the same client speaks to it, and what it refuses is told.
//! Nothing is kept on this side: while nobody answers the letter is the caller's, with 75.

use super::configuration::Configuration;
use super::exit::sysexits;
use super::host;
use super::input::Input;
use super::sendmail::Face;
use crate::config::{Account, Auth, Host, Queue, Serve, Settings, Tls};
use crate::outcome::printable;
use crate::smtp::connect::knock;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks whether the service is back, and before the first.
pub const BREATH: Duration = Duration::from_millis(100);

/// How long it may take to let somebody in.
const KNOCK: Duration = Duration::from_secs(5);

/// The most that it says before it is asked anything, in octets.
const HELLO: u64 = 64 * 1024;

/// How long the service may take over each part of a list.
const LIST: Duration = Duration::from_secs(30);

/// The service's socket, where there is one.
pub fn socket() -> Option<PathBuf> {
    let path = host::variable("PILLARBOX_SOCKET").map_or_else(|| Serve::default().socket, PathBuf::from);
    path.metadata().is_ok_and(|found| found.file_type().is_socket()).then_some(path)
}

/// What a caller of the service has instead of a configuration: one way out, and no queue.
pub fn configuration(socket: &Path) -> Configuration {
    let account = Account {
        hosts: vec![Host::Unix(socket.to_owned())],
        tls: Tls::Off,
        auth: Auth::Off,
        // The attempt as a whole has its own end, and a disk may take its time over the last answer.
        timeout: Duration::from_mins(5),
        ..Account::new("service")
    };
    let queue = Queue { enabled: false, ..Queue::default() };
    // Names without a domain stay such, so that the service's aliases and its domain are what they get.
    let domain = Some("localhost".to_owned());
    let settings = Settings { accounts: vec![account], queue, domain, ..Settings::default() };
    Configuration { settings, queue_dir: None, argument: None, service: Some(socket.to_owned()) }
}

/// How long a letter of so many octets may take: what a caller waits, and a second for each MiB.
pub fn patience(deadline: Duration, octets: u64) -> Duration {
    deadline + Duration::from_secs(octets >> 20)
}

/// Waits for a moment, and until somebody answers at the socket. `false`: nobody does by `until`.
pub fn is_back(socket: &Path, moment: Duration, until: Instant) -> bool {
    let mut pause = moment;
    while Instant::now() + pause < until {
        thread::sleep(pause);
        if knock(socket, BREATH).is_ok() {
            return true;
        }
        pause = BREATH;
    }
    false
}

/// `sendmail -bs`: the caller speaks with the service itself.
pub fn speak(face: Face<'_>, socket: &Path) -> u8 {
    let stream = match knock(socket, KNOCK) {
        Ok(stream) => stream,
        Err(error) => return away(face, socket, &error),
    };
    let up = stream.try_clone();
    let Ok(mut up) = up else { return sysexits::OSERR };
    let pump = move || {
        let copied = copy(&mut Input, &mut up);
        // The end of the caller's words, or of the service's patience with them.
        let _ = up.shutdown(Shutdown::Write);
        copied
    };
    // It is not waited for: it may sit before a caller who has nothing more to say.
    if thread::Builder::new().name("input".into()).spawn(pump).is_err() {
        return sysexits::OSERR;
    }
    match copy(&mut &stream, &mut io::stdout().lock()) {
        Ok(()) => 0,
        Err(_) => sysexits::IOERR,
    }
}

/// Copies each piece as it comes.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&piece[..n]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `mailq`: the caller's letters, or all of them where the caller may see that, as the service lists them.
pub fn list(face: Face<'_>, socket: &Path) -> u8 {
    ask(face, socket, "XQUEUE", &mut |is_last, line| if is_last { 0 } else { face.print(&format!("{line}\n")) })
}

/// Asks the service one thing. `more` gets each line of the answer, printable, and whether it is the last; its status
/// is ours where nothing is wrong.
pub fn ask(face: Face<'_>, socket: &Path, command: &str, more: &mut dyn FnMut(bool, &str) -> u8) -> u8 {
    let mut status = 0;
    let answer = Session::open(socket).and_then(|mut session| {
        let answer = session.ask(command, &mut |line| status = status.max(more(false, &printable(line))))?;
        session.quit();
        Ok(answer)
    });
    match answer {
        // Its enhanced code says the same.
        Ok((250, text)) => status.max(more(true, &printable(text.split_once(' ').map_or(&*text, |(_, text)| text)))),
        Ok((code, text)) => {
            face.say(&format!("the service at {} says {code} {}", socket.display(), printable(&text)));
            sysexits::TEMPFAIL
        }
        Err(error) => away(face, socket, &error),
    }
}

/// A session with the service, in which its verbs are said.
pub struct Session {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Session {
    /// Says hello.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let stream = knock(socket, KNOCK)?;
        stream.set_read_timeout(Some(LIST))?;
        stream.set_write_timeout(Some(LIST))?;
        let mut session = Self { lines: BufReader::new(stream.try_clone()?), stream };
        // Greeting, then EHLO's answer: whoever does not say 2xx to these has no answer to anything else.
        for command in ["", "EHLO localhost\r\n"] {
            session.stream.write_all(command.as_bytes())?;
            let (code, text) = reply(&mut session.lines.by_ref().take(HELLO), &mut |_| ())?;
            if code / 100 != 2 {
                return Err(io::Error::other(format!("it says {code} {text}")));
            }
        }
        Ok(session)
    }

    /// Says a line; gives the code and the last line of the answer, and those before it to `more`.
    pub fn ask(&mut self, command: &str, more: &mut dyn FnMut(&str)) -> io::Result<(u16, String)> {
        self.stream.write_all(format!("{command}\r\n").as_bytes())?;
        reply(&mut self.lines, more)
    }

    /// Leaves; the good-bye is not waited for.
    pub fn quit(mut self) {
        let _ = self.stream.write_all(b"QUIT\r\n");
    }
}

/// Reads a reply; gives its code and last line, and those before it to `more`.
fn reply(lines: &mut impl BufRead, more: &mut dyn FnMut(&str)) -> io::Result<(u16, String)> {
    loop {
        let mut line = Vec::new();
        lines.take(64 * 1024).read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let code = text.get(..3).and_then(|code| code.parse().ok());
        match (code, text.get(3..4), text.get(4..)) {
            (Some(_), Some("-"), Some(rest)) => more(rest),
            (Some(code), Some(" "), Some(rest)) => return Ok((code, rest.to_owned())),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak SMTP")),
        }
    }
}

/// Nobody answers.
fn away(face: Face<'_>, socket: &Path, error: &io::Error) -> u8 {
    face.say(&format!("the service at {} does not answer: {}", socket.display(), crate::outcome::words(error)));
    sysexits::TEMPFAIL
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_service_that_never_comes_to_the_point_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let chatterer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // It comes to it after all, so that whoever waits for that is found out.
            let said = (0..1_000_000).all(|_| stream.write_all(b"220-welcome\r\n").is_ok());
            drop(stream.write_all(b"220 now\r\n250 and that\r\n"));
            assert!(!said, "somebody has heard it all");
        });
        assert!(Session::open(&dir.path().join("socket")).is_err());
        chatterer.join().unwrap();
    }
}
