//! The log: tracing events as one `key=value` line each, to the journal, syslog, a file or standard error.
//!
//! The work floor says what happened in events whose fields are the keys that the manual, pillarbox-log(7),
//! lists; this file only writes them down. A log that cannot be written never changes what becomes of a letter.
//! Values are quoted where they have to be and escaped always: a server's text must not forge a line.

use super::host;
use crate::config::LogTo;
use crate::outcome::printable;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const JOURNAL: &str = "/run/systemd/journal/socket";
pub(super) const SYSLOG: &str = "/dev/log";

/// Sends the events of this process to where the settings say; without a word there, to the journal or syslog.
/// `tag` is the name that lines carry (`-L`). Only the first call of a process has an effect.
pub fn install(targets: &[LogTo], tag: &str) {
    // msmtp's lines come from elsewhere, and say nothing of what happens outside of sessions.
    let mut targets: Vec<LogTo> = targets.iter().filter(|to| !matches!(to, LogTo::Sessions(_))).cloned().collect();
    if targets.is_empty() {
        targets = default_targets();
    }
    let tag = tag.chars().filter(|c| c.is_ascii_graphic() && *c != ':').take(32).collect();
    let log = Log { targets, tag, zone: OnceLock::new() };
    // A second installation is refused by tracing; the first one goes on writing.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log));
}

/// The journal where there is one, else syslog, else nothing.
fn default_targets() -> Vec<LogTo> {
    let there = |path: &str| Path::new(path).exists();
    if there(JOURNAL) {
        vec![LogTo::Journal]
    } else if there(SYSLOG) {
        vec![LogTo::Syslog]
    } else {
        Vec::new()
    }
}

struct Log {
    targets: Vec<LogTo>,
    tag: String,
    zone: OnceLock<TimeZone>,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("pillarbox") {
            return;
        }
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        let line = fields.line();
        for target in &self.targets {
            // Nobody is left to tell when the log itself cannot be written.
            let _ = match target {
                LogTo::Journal => send(JOURNAL, &self.journal_entry(*event.metadata().level(), &line, &fields)),
                LogTo::Syslog => send(SYSLOG, &self.syslog_line(*event.metadata().level(), &line)),
                LogTo::File(path) => self.to_file(path, &line),
                LogTo::Sessions(_) => Ok(()),
                LogTo::Stderr => writeln!(std::io::stderr(), "{}: {line}", self.tag),
            };
        }
    }
}

/// syslog's severity (RFC 5424 §6.2.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Sends a datagram, if the daemon takes it at once: one that hangs must not hold a letter up.
pub(super) fn send(socket: impl AsRef<Path>, text: &str) -> std::io::Result<()> {
    let ours = UnixDatagram::unbound()?;
    ours.set_nonblocking(true)?;
    ours.send_to(text.as_bytes(), socket).map(drop)
}

impl Log {
    /// The journal's native protocol: a field a line. Our values hold no line end.
    fn journal_entry(&self, level: Level, line: &str, fields: &Fields) -> String {
        let mut text = format!(
            "PRIORITY={}\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER={}\nMESSAGE={line}\n",
            severity(level),
            self.tag
        );
        for (key, value) in &fields.0 {
            if *key != "message" {
                let _ = writeln!(text, "PILLARBOX_{}={value}", key.to_ascii_uppercase());
            }
        }
        text
    }

    /// RFC 3164 as local daemons take it: facility mail, no time (the daemon adds it), tag and pid.
    fn syslog_line(&self, level: Level, line: &str) -> String {
        format!("<{}>{}[{}]: {line}", 2 * 8 + severity(level), self.tag, std::process::id())
    }

    fn to_file(&self, path: &Path, line: &str) -> std::io::Result<()> {
        let zone = self.zone.get_or_init(host::time_zone).clone();
        let time = Timestamp::now().to_zoned_datetime(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        append(path, &format!("{time} {}[{}]: {line}\n", self.tag, std::process::id()))
    }
}

/// Adds a line to a log file by one write, so that lines of several processes do not mix. A pipe that
/// nobody reads is not waited for.
pub(super) fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    file.write_all(line.as_bytes())
}

/// An event's fields in their order, their values made printable.
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), printable(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), printable(&format!("{value:?}"))));
    }
}

impl Fields {
    /// `key=value …`, a value in quotes where it has a space, a quote or nothing in it; the message alone first.
    fn line(&self) -> String {
        let mut line = String::new();
        for (key, value) in &self.0 {
            if !line.is_empty() {
                line.push(' ');
            }
            let bare = !value.is_empty() && !value.contains([' ', '"', '=']);
            let _ = match (*key, bare) {
                ("message", _) => write!(line, "{value}"),
                (_, true) => write!(line, "{key}={value}"),
                (_, false) => write!(line, "{key}=\"{}\"", value.replace('"', "'")),
            };
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        Log { targets: Vec::new(), tag: "sendmail".to_owned(), zone: OnceLock::new() }
    }

    #[test]
    fn the_journal_gets_fields_and_syslog_a_line() {
        let fields = Fields(vec![("message", "queued".to_owned()), ("id", "4F".to_owned()), ("to", "a b".to_owned())]);
        let line = fields.line();
        assert_eq!(
            log().journal_entry(Level::WARN, &line, &fields),
            "PRIORITY=4\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=sendmail\nMESSAGE=queued id=4F to=\"a b\"\n\
             PILLARBOX_ID=4F\nPILLARBOX_TO=a b\n"
        );
        let pid = std::process::id();
        assert_eq!(log().syslog_line(Level::INFO, &line), format!("<22>sendmail[{pid}]: queued id=4F to=\"a b\""));
    }

    #[test]
    fn a_log_daemon_that_hangs_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        send(&path, "first").unwrap();
        let full = (0..100_000).any(|_| send(&path, "more").is_err());
        assert!(full, "a full socket is an error and no wait");
        let mut got = [0; 16];
        assert_eq!(daemon.recv(&mut got).unwrap(), 5);
    }

    #[test]
    fn a_servers_text_cannot_forge_a_line() {
        let fields = Fields(vec![
            ("id", "4F".to_owned()),
            ("reply", printable("550 no\r\nid=5A status=relayed \u{1b}[2J\"x\"")),
            ("to", String::new()),
        ]);
        let line = fields.line();
        assert_eq!(line, "id=4F reply=\"550 no\\x0d\\x0aid=5A status=relayed \\x1b[2J'x'\" to=\"\"");
    }
}
