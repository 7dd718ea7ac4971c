//! `pillarbox sandbox`: starts the embedded relay, shows its letters, and runs a command against it.
//!
//! Letters go to standard output, each in one write; what concerns the sandbox itself to standard error. With `--exec`
//! the status is the command's, 128 and the number for one that died of a signal, 127 or 126 for one that could not be
//! started, as env(1) has it. A signal is passed on to the command, or ends the sandbox where there is none.

use super::exit::sysexits;
use super::host::Host;
use super::sendmail::Face;
use crate::outcome::{printable, words};
use crate::sandbox::trial::{self, NoTrial, Scratch};
use crate::sandbox::{Arrival, Maildir, NoRelay, Relay, Setup, Viewer};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use ring::rand::{SecureRandom, SystemRandom};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long letters may be under way after the command has ended.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// Lines of a letter's text that are shown.
const TEXT_LINES: usize = 20;

/// Lines of a letter's header that are shown.
const HEADER_LINES: usize = 60;

/// What `pillarbox sandbox` understands.
#[derive(Debug, clap::Args)]
pub struct Words {
    /// Listen at this address, or port of 127.0.0.1 (default: a free one)
    #[arg(long, value_name = "ADDR", value_parser = address, default_value = "0", hide_default_value = true)]
    listen: SocketAddr,
    /// Keep letters in this Maildir (default: a temporary one)
    #[arg(long, value_name = "DIR")]
    maildir: Option<PathBuf>,
    /// The user who may send
    #[arg(long, value_name = "NAME", default_value = "sandbox")]
    user: String,
    /// The user's password (default: a random one)
    #[arg(long, value_name = "WORD")]
    password: Option<String>,
    /// Do not show letters, only keep them
    #[arg(long)]
    quiet: bool,
    /// Run this command with sendmail first on PATH and set up for the sandbox, then leave with its status.
    /// Everything behind it belongs to the command
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true)]
    exec: Option<Vec<OsString>>,
}

/// Reads `127.0.0.1:2525`, `[::1]:2525`, `localhost:2525`, an address alone (and a free port) or a port alone.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let text = text.strip_prefix("localhost:").unwrap_or(text);
    let port = text.parse().map(|port| SocketAddr::new(local, port));
    let ip = || text.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, 0));
    port.or_else(|_| ip())
        .or_else(|_| text.parse())
        .map_err(|_| "it is no IP address, with or without a port, and no port")
}

/// Runs the sandbox. Returns the exit status.
pub fn main(face: Face<'_>, words: &Words) -> u8 {
    match run(face, words) {
        Ok(status) => status,
        Err(failed) => {
            face.say(&failed.sentence);
            failed.status
        }
    }
}

/// Why there is no sandbox, and the status that this deserves.
struct Failed {
    sentence: String,
    status: u8,
}

impl Failed {
    fn new(status: u8, sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), status }
    }
}

impl From<NoRelay> for Failed {
    fn from(why: NoRelay) -> Self {
        let status = match &why {
            NoRelay::Listen(..) => sysexits::UNAVAILABLE,
            NoRelay::Identity(_) => sysexits::SOFTWARE,
            NoRelay::Thread(_) => sysexits::OSERR,
        };
        Self::new(status, why.to_string())
    }
}

impl From<NoTrial> for Failed {
    fn from(why: NoTrial) -> Self {
        match why {
            NoTrial::Scratch(error) => {
                Self::new(sysexits::CANTCREAT, format!("the sandbox cannot be set up: {}", words(&error)))
            }
            NoTrial::Command(program, error) => {
                let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                Self::new(status, format!("cannot run {}: {}", program.to_string_lossy(), words(&error)))
            }
        }
    }
}

fn run(face: Face<'_>, words: &Words) -> Result<u8, Failed> {
    let signals = Signals::catch()?;
    let cannot = |what: &str, error: &io::Error| Failed::new(sysexits::CANTCREAT, format!("{what}: {error}"));
    let parent = std::env::temp_dir();
    let scratch = Scratch::make(&parent, &random()?)
        .map_err(|error| cannot(&format!("cannot make a directory in {}", parent.display()), &error))?;
    // Without --exec nobody else knows when the letters have been looked at: they stay.
    let (own, keeps) = match (&words.maildir, &words.exec) {
        (Some(dir), _) => (dir.clone(), true),
        (None, Some(_)) => (scratch.dir().join("Maildir"), false),
        (None, None) => (parent.join(format!("pillarbox-letters-{}", random()?)), true),
    };
    let maildir = Maildir::open(&own, &Host::look().name)
        .map_err(|error| cannot(&format!("cannot keep letters in {}", own.display()), &error))?;
    let password = words.password.clone().map_or_else(random, Ok)?;
    let (user, listen) = (words.user.clone(), words.listen);
    let viewer = viewer(words.quiet, keeps);
    let relay = Relay::start(Setup { listen, user, password: password.clone(), maildir, viewer })?;
    let ca = scratch.write_ca(&relay).map_err(|error| cannot("cannot write the certificate", &error))?;
    let settings = trial::settings(&relay, &ca, &words.user, &password);
    let Some(command) = &words.exec else {
        return Ok(serve(face, &relay, &settings, &own, words.maildir.is_none(), &signals));
    };
    let own = std::env::current_exe().map_err(|error| cannot("cannot find this program", &error))?;
    // Where it stands alone, as after `cargo run`, this program is the drop-in itself.
    let sendmail = Some(own.with_file_name("sendmail")).filter(|beside| beside.is_file()).unwrap_or(own);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let child = signals.without(|| trial::start(command, &scratch, &settings, &sendmail, &path))?;
    let status = wait(child, &signals).map_err(|error| cannot("lost the command", &error))?;
    let waiting = wait_for_letters(&scratch, &signals);
    if waiting > 0 {
        face.say(&format!(
            "{waiting} of the command's letters did not come in {} s; they are dropped with the sandbox",
            UNDER_WAY.as_secs()
        ));
    }
    Ok(status_of(status))
}

/// Serves until a signal ends it.
fn serve(
    face: Face<'_>,
    relay: &Relay,
    settings: &str,
    maildir: &std::path::Path,
    fresh: bool,
    signals: &Signals,
) -> u8 {
    let text = format!(
        "# The sandbox listens at {}. A configuration for it:\n{settings}\n\
         # Letters are shown here and kept in {}. Ctrl-C ends it.\n",
        relay.address(),
        maildir.display()
    );
    let status = face.print(&text);
    if status != 0 {
        return status;
    }
    let _ = signals.come.recv();
    if fresh && remove_if_empty(maildir).is_err() {
        face.say(&format!("the letters are in {}", maildir.display()));
    }
    0
}

/// Removes a Maildir without letters; directories that hold something are not removed by this.
fn remove_if_empty(maildir: &std::path::Path) -> io::Result<()> {
    for part in ["tmp", "cur", "new"] {
        std::fs::remove_dir(maildir.join(part))?;
    }
    std::fs::remove_dir(maildir)
}

/// Waits for the command, to which signals are passed on.
fn wait(mut child: Child, signals: &Signals) -> io::Result<ExitStatus> {
    loop {
        let signal = signals.come.recv_timeout(Duration::from_millis(20)).ok();
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if let (Some(signal), Ok(pid)) = (signal, i32::try_from(child.id())) {
            // It is still our child, so the number is nobody else's.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Waits until no letter is under way, within bounds, and says how many still are.
fn wait_for_letters(scratch: &Scratch, signals: &Signals) -> usize {
    let until = Instant::now() + UNDER_WAY;
    loop {
        let waiting = scratch.waiting();
        if waiting == 0 || Instant::now() >= until {
            return waiting;
        }
        if !matches!(signals.come.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout)) {
            return waiting;
        }
    }
}

fn status_of(status: ExitStatus) -> u8 {
    let number =
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(i32::from(sysexits::SOFTWARE));
    u8::try_from(number).unwrap_or(sysexits::SOFTWARE)
}

/// The signals that end a sandbox, as they come.
struct Signals {
    set: SigSet,
    come: Receiver<Signal>,
}

impl Signals {
    /// Blocks them in every thread that is started later, and waits for them in one.
    fn catch() -> Result<Self, Failed> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP]);
        let cannot = |why: String| Failed::new(sysexits::OSERR, format!("cannot wait for signals: {why}"));
        set.thread_block().map_err(|error| cannot(error.to_string()))?;
        let (sender, receiver) = channel();
        let pass_on = move || {
            while let Ok(signal) = set.wait() {
                if sender.send(signal).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("signals".into()).spawn(pass_on);
        started.map_err(|error| cannot(error.to_string()))?;
        Ok(Self { set, come: receiver })
    }

    /// Does something, starting a command above all, with the signals let through: a command inherits what is blocked,
    /// and could not be ended. One that comes just then ends us without ceremony.
    fn without<T>(&self, act: impl FnOnce() -> T) -> T {
        // These fail only for a bad argument.
        let _ = self.set.thread_unblock();
        let done = act();
        let _ = self.set.thread_block();
        done
    }
}

/// 128 random bits in hexadecimal.
fn random() -> Result<String, Failed> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failed::new(sysexits::OSERR, "this system has no random numbers"))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Shows each letter, or none.
fn viewer(quiet: bool, keeps: bool) -> Viewer {
    if quiet {
        return Box::new(|_| {});
    }
    let out = Arc::new(io::stdout());
    Box::new(move |arrival| {
        // That nobody may be looking changes nothing.
        let mut out = out.lock();
        let _ = out.write_all(shown(arrival, keeps).as_bytes()).and_then(|()| out.flush());
    })
}

/// A letter for a person's eyes. Every stranger's line is escaped.
fn shown(arrival: &Arrival, keeps: bool) -> String {
    let Arrival { number, guest, mail, envelope, size, path, beginning } = arrival;
    let mut text = format!("--- letter {number} {}\n", "-".repeat(60));
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<6} {}", printable(value));
    };
    let mut asked = String::new();
    let _ = mail.ret.map(|ret| write!(asked, " RET={ret}"));
    let _ = mail.envid.as_ref().map(|envid| write!(asked, " ENVID={envid}"));
    asked.push_str(if mail.eight_bit { " BODY=8BITMIME" } else { "" });
    asked.push_str(if mail.utf8 { " SMTPUTF8" } else { "" });
    row("from", &format!("<{}>{asked}", envelope.reverse_path()));
    for recipient in envelope.recipients() {
        let mut asked = String::new();
        let _ = recipient.notify.map(|notify| write!(asked, " NOTIFY={notify}"));
        let _ = recipient.orcpt.as_ref().map(|orcpt| write!(asked, " ORCPT={orcpt}"));
        row("to", &format!("<{}>{asked}", recipient.mailbox));
    }
    let (user, tls) = (guest.user.as_deref().unwrap_or("nobody"), guest.tls.as_deref().unwrap_or("no TLS"));
    row("by", &format!("user {user} at {}, {tls}", guest.helo.as_deref().unwrap_or("a host without a name")));
    row("size", &format!("{size} octets"));
    if keeps {
        row("kept", &path.to_string_lossy());
    }
    text.push('\n');
    let letter = String::from_utf8_lossy(beginning);
    let (header, body) = letter.split_once("\r\n\r\n").unwrap_or((&letter, ""));
    let mut lines = |part: &str, most: usize| {
        for line in part.lines().take(most) {
            let line = format!("    {}", printable(&line.replace('\t', "  ")));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        part.lines().count() > most
    };
    let cut = lines(header, HEADER_LINES);
    let _ = lines("\n", 1);
    let cut = lines(body, TEXT_LINES) || cut;
    if cut || *size > beginning.len() as u64 {
        text.push_str("    [...]\n");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, Mailbox, Recipient, ReversePath};
    use crate::smtp::server::{Guest, Mail};

    fn arrival(letter: &[u8]) -> Arrival {
        let mailbox = |local| Mailbox::new(local, "x.org").unwrap();
        Arrival {
            number: 1,
            guest: Guest { helo: Some("evil\x1b[2J".to_owned()), user: Some("sandbox".to_owned()), ..Guest::default() },
            mail: Mail { utf8: true, ..Mail::default() },
            envelope: Envelope::new(ReversePath(Some(mailbox("a"))), vec![Recipient::new(mailbox("b"))]).unwrap(),
            size: letter.len() as u64,
            path: PathBuf::from("/m/new/1"),
            beginning: letter.to_vec(),
        }
    }

    #[test]
    fn addresses_are_understood_as_people_write_them() {
        for (text, want) in [
            ("2525", "127.0.0.1:2525"),
            ("localhost:2525", "127.0.0.1:2525"),
            ("127.0.0.2", "127.0.0.2:0"),
            ("127.0.0.2:25", "127.0.0.2:25"),
            ("[::1]:25", "[::1]:25"),
            ("::1", "[::1]:0"),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(want), "{text}");
        }
        for bad in ["", "example.org:25", "70000", "127.0.0.1:x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_letter_is_shown_with_its_envelope_and_who_brought_it() {
        let shown = shown(&arrival(b"Subject: x\r\n y\r\n\r\nHello,\r\n\r\nyou\r\n"), true);
        let (_, shown) = shown.split_once('\n').unwrap();
        assert_eq!(
            shown,
            "from   <a@x.org> SMTPUTF8\nto     <b@x.org>\nby     user sandbox at evil\\x1b[2J, no TLS\n\
             size   33 octets\n\
             kept   /m/new/1\n\n    Subject: x\n     y\n\n    Hello,\n\n    you\n\n"
        );
    }

    #[test]
    fn no_strangers_text_reaches_the_terminal_raw_and_none_is_without_end() {
        let letter = format!("Subject: \x1b]0;x\x07\r\n\r\n{}\x1b[31m\u{202e}\r\n", "line\r\n".repeat(5000));
        let shown = shown(&arrival(letter.as_bytes()), false);
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown}");
        assert!(shown.lines().count() < 40 && shown.contains("    [...]\n"));
        assert!(!shown.contains("/m/new"), "a file that is removed at the end is not named");
    }
}
