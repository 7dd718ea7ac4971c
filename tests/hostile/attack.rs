//! One attack by a server, and what must come of it: a row of the table, and how it is run.

use crate::harm::{PASSWORD, indiscretions, remains, secrets};
use crate::measure::{self, Ended};
use crate::support::case::text;
use crate::support::relay::{Act, Dialogue, INSIDE, Letter, Relay, Script, Tls};
use crate::support::sendmail::{Sendmail, sendmail};
use pillarbox::queue::Queue;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How far the conversation has come when the server turns on us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without TLS and AUTH.
    Plain,
    /// Behind STARTTLS.
    Upgraded,
    /// With TLS from the first octet.
    Implicit,
    /// Behind STARTTLS and AUTH.
    LoggedIn,
}

/// All of them.
pub const WAYS: [Way; 4] = [Way::Plain, Way::Upgraded, Way::Implicit, Way::LoggedIn];

impl Way {
    /// A good server on this way.
    pub fn script(self) -> Script {
        let login = (self == Self::LoggedIn).then(|| ("alice".to_owned(), PASSWORD.to_owned()));
        let tls = match self {
            Self::Plain => Tls::Off,
            Self::Upgraded | Self::LoggedIn => Tls::Upgraded,
            Self::Implicit => Tls::Implicit,
        };
        let mut script = Script::default().tls(tls);
        script.login = login;
        script
    }

    /// The account for it.
    fn account(self) -> String {
        match self {
            Self::Plain => "tls = \"none\"\nuser =\npassword =\n".to_owned(),
            Self::Upgraded => "user =\npassword =\n".to_owned(),
            Self::Implicit => "tls = \"implicit\"\nuser =\npassword =\n".to_owned(),
            Self::LoggedIn => format!("password = \"{PASSWORD}\"\n"),
        }
    }
}

/// What must become of the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The relay has it.
    Relayed,
    /// It stays ours; without a queue, this status.
    Deferred(i32),
    /// The same, but the relay may have it too.
    Doubtful(i32),
    /// It is the letter's own fault, or its recipient's; told to whoever waits, this status.
    Bounced(i32),
    /// The first where the relay has said all of its answer to the final dot, the second with 75 where it has not.
    AsAnswered,
}

/// How the letter comes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With the queue off: the status is the verdict.
    Off,
    /// While its caller waits: what is deferred is queued.
    Waiting,
    /// In a run of the queue.
    Run,
}

/// All of them.
pub const MODES: [Mode; 3] = [Mode::Off, Mode::Waiting, Mode::Run];

/// A row.
#[derive(Clone)]
pub struct Attack {
    /// What the server does, and when.
    pub name: String,
    /// How far it lets us come first.
    pub way: Way,
    /// The server.
    pub script: Script,
    /// More lines for the account.
    pub account: String,
    /// What must become of the letter.
    pub verdict: Verdict,
    /// Octets of the letter's body.
    pub octets: usize,
    /// Whether our password may go to this server.
    pub may_have_password: bool,
}

impl Attack {
    /// A server that does this at that moment.
    pub fn new(name: impl Into<String>, way: Way, script: Script, verdict: Verdict) -> Self {
        Self { name: name.into(), way, script, account: String::new(), verdict, octets: 60, may_have_password: true }
    }

    /// Lines for the account.
    #[must_use]
    pub fn account(mut self, lines: &str) -> Self {
        self.account.push_str(lines);
        self.account.push('\n');
        self
    }

    /// A large letter.
    #[must_use]
    pub fn octets(mut self, octets: usize) -> Self {
        self.octets = octets;
        self
    }

    /// The password must not go out.
    #[must_use]
    pub fn without_password(mut self) -> Self {
        self.may_have_password = false;
        self
    }

    /// The letter that the row sends.
    pub fn letter(&self) -> Vec<u8> {
        let mut letter = b"From: Alice <alice@example.com>\nTo: bob@example.org\nSubject: whole\n\
            Date: Tue, 24 Nov 2026 12:00:00 +0000\nMessage-ID: <whole@example.com>\n\n.a line\n"
            .to_vec();
        for line in 0..self.octets / 60 {
            letter.extend_from_slice(format!("{line:08} {}\n", "x".repeat(50)).as_bytes());
        }
        letter.extend_from_slice(b"the end\n");
        letter
    }

    /// Runs it; the peak memory in KiB, or what is wrong.
    pub fn run(mut self, mode: Mode) -> Result<u64, String> {
        let relay = Relay::start(self.script.clone());
        let home = Sendmail::to(&relay);
        let queue = if mode == Mode::Off { "off" } else { "" };
        let account = format!("{}{}", self.way.account(), self.account);
        home.configure(&relay, &account, queue);
        let log = home.home().join("log");
        prepend(&home, &format!("log = \"{}\"\n", log.display()));
        let letter = self.letter();
        let words = ["-oi", "-f", "alice@example.com", "--", "bob@example.org"];
        let ended = match mode {
            // It shows the whole dialogue, which must be as clean as
            // a sentence. Whoever watches waits without a deadline.
            Mode::Off => call(&home, &[&["-v"], &words[..]].concat(), &letter),
            Mode::Waiting => call(&home, &words, &letter),
            Mode::Run => {
                let queued = call(&home, &[&["-odq"], &words[..]].concat(), &letter);
                if queued.status != Some(0) {
                    return Err(format!("could not be queued: {queued:?}"));
                }
                call(&home, &["-qf"], b"")
            }
        };
        let heard = relay.finish();
        let taken = |letter: &&Letter| !letter.recipients.is_empty();
        let taken: Vec<&Letter> = heard.iter().flat_map(|dialogue| &dialogue.letters).filter(taken).collect();
        if self.verdict == Verdict::AsAnswered {
            self.verdict = if taken.is_empty() { Verdict::Deferred(75) } else { Verdict::Relayed };
        }
        let said = String::from_utf8_lossy(&ended.said).into_owned();
        let mut wrong = Vec::new();
        if ended.hung {
            wrong.push("HUNG".to_owned());
        }
        let wanted = match (mode, self.verdict) {
            (Mode::Run, _)
            | (_, Verdict::Relayed | Verdict::AsAnswered)
            | (Mode::Waiting, Verdict::Deferred(_) | Verdict::Doubtful(_)) => 0,
            (_, Verdict::Deferred(status) | Verdict::Doubtful(status) | Verdict::Bounced(status)) => status,
        };
        if ended.status != Some(wanted) {
            wrong.push(format!("status {:?}, not {wanted}", ended.status));
        }
        if ended.peak > measure::bound() {
            wrong.push(format!("{} KiB of memory", ended.peak));
        }
        let logged = fs::read_to_string(&log).unwrap_or_default();
        wrong.extend(indiscretions(&said, "what it said"));
        wrong.extend(remains(home.home()));
        wrong.extend(self.misuses(&heard));
        let whole = String::from_utf8_lossy(&letter).into_owned();
        wrong.extend(taken.iter().filter_map(|letter| is_whole(letter, &whole).err()));
        let end = |octets: &[u8]| memchr::memmem::find(octets, b"the end\r\n").is_some();
        let has_end = heard.iter().any(|dialogue| end(&dialogue.clear) || end(&dialogue.encrypted));
        match (self.verdict, taken.len()) {
            (Verdict::Relayed, _) if !has_end => wrong.push("the relay has not got it".to_owned()),
            (Verdict::Deferred(_) | Verdict::Bounced(_), 1..) => wrong.push("the relay has got it".to_owned()),
            _ => {}
        }
        if mode != Mode::Off {
            wrong.extend(self.aftermath(&home, mode, &whole).err());
        }
        if wrong.is_empty() {
            return Ok(ended.peak);
        }
        wrong.push(format!("it said {said:?} and logged {logged:?}"));
        wrong.push(format!("it heard {:?}", heard.iter().map(|dialogue| &dialogue.commands).collect::<Vec<_>>()));
        Err(wrong.join("\n  "))
    }

    /// What is in the queue, and whether a good relay gets it whole.
    fn aftermath(&self, home: &Sendmail, mode: Mode, whole: &str) -> Result<(), String> {
        let names = |dir: &str| fs::read_dir(home.queue().join(dir)).map_or(0, Iterator::count);
        let (letters, failed) = (names("letters"), names("failed"));
        let expected = match (self.verdict, mode) {
            (Verdict::Deferred(_) | Verdict::Doubtful(_), _) => (1, 0),
            // The report waits, and the letter is kept; or the report fared as the letter did.
            (Verdict::Bounced(_), Mode::Run) if failed == 2 => (0, 2),
            (Verdict::Bounced(_), Mode::Run) => (1, 1),
            _ => (0, 0),
        };
        if (letters, failed) != expected || names("corrupt") > 0 {
            return Err(format!("{letters} in the queue and {failed} failed, not {expected:?}"));
        }
        if letters == 0 {
            return Ok(());
        }
        if matches!(self.verdict, Verdict::Doubtful(_)) {
            let queue = Queue::open(&home.queue()).map_err(|error| error.to_string())?;
            let listed = queue.list().map_err(|error| error.to_string())?;
            let listed: Vec<_> = listed.into_iter().flatten().collect();
            let doubtful = listed.iter().all(|one| {
                one.letter.history.verdict(0).is_some_and(|verdict| {
                    matches!(verdict.outcome, pillarbox::outcome::Outcome::Deferred { maybe_duplicate: true, .. })
                })
            });
            if !doubtful {
                return Err("nobody says that it may come twice".to_owned());
            }
        }
        let good = Relay::start(Script::open());
        home.configure(&good, "tls = \"none\"\nuser =\npassword =\n", "");
        let ended = call(home, &["-qf"], b"");
        let heard = good.finish();
        let taken: Vec<&Letter> = heard.iter().flat_map(|dialogue| &dialogue.letters).collect();
        if ended.status != Some(0) || taken.len() != 1 || names("letters") > 0 {
            return Err(format!("a good relay got {} letters afterwards: {ended:?}", taken.len()));
        }
        if matches!(self.verdict, Verdict::Bounced(_)) {
            let report = text(&taken[0].content)?;
            let is_report = taken[0].mail.starts_with("MAIL FROM:<>") && report.contains("multipart/report");
            return is_report.then_some(()).ok_or(format!("that is no report: {report}"));
        }
        is_whole(taken[0], whole)
    }

    /// What of us a server got that it should not have.
    fn misuses(&self, heard: &[Dialogue]) -> Vec<String> {
        let mut wrong = Vec::new();
        for dialogue in heard {
            for secret in secrets() {
                let found = |octets: &[u8]| memchr::memmem::find(octets, secret.as_bytes()).is_some();
                if found(&dialogue.clear) || (found(&dialogue.encrypted) && !self.may_have_password) {
                    wrong.push(format!("the relay was told {secret:?}"));
                }
            }
        }
        wrong
    }
}

/// Runs `sendmail` under watch.
pub fn call(home: &Sendmail, words: &[&str], input: &[u8]) -> Ended {
    let mut command = Command::new(sendmail());
    command.args(words).envs(home.environment().iter().cloned()).current_dir(home.home());
    let path = home.home().join("input");
    fs::write(&path, input).unwrap();
    let ended = measure::run(&command, Stdio::from(fs::File::open(&path).unwrap()), home.home());
    fs::remove_file(path).unwrap();
    ended
}

/// Lines before the configuration's tables.
pub fn prepend(home: &Sendmail, lines: &str) {
    let path = home.home().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    home.put("config.toml", &format!("{lines}{text}"));
}

fn is_whole(letter: &Letter, whole: &str) -> Result<(), String> {
    let got = text(&letter.content)?;
    if got == whole { Ok(()) } else { Err(format!("not the whole letter: {} octets of {}", got.len(), whole.len())) }
}

/// What many rows came to.
#[derive(Default)]
pub struct Figures {
    /// Rows run.
    pub rows: usize,
    /// The highest peak, and whose it was.
    pub peak: (u64, String),
    /// What must not be.
    pub complaints: Vec<String>,
}

/// Runs rows, several side by side since many of them only wait.
pub fn run_all(rows: &[(Attack, Mode)], side_by_side: usize) -> Figures {
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    thread::scope(|threads| {
        for _ in 0..side_by_side {
            threads.spawn(|| {
                while let Some((attack, mode)) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let name = format!("{:?}, {}, {mode:?}", attack.way, attack.name);
                    let begun = std::time::Instant::now();
                    let ran = attack.clone().run(*mode);
                    if std::env::var_os("TRACE").is_some() {
                        eprintln!(
                            "{:6.1} {name}: {}",
                            begun.elapsed().as_secs_f32(),
                            ran.clone().map_or_else(|why| why, |peak| peak.to_string())
                        );
                    }
                    let mut figures = figures.lock().unwrap();
                    figures.rows += 1;
                    match ran {
                        Ok(peak) if peak > figures.peak.0 => figures.peak = (peak, name),
                        Ok(_) => {}
                        Err(why) => figures.complaints.push(format!("{name} ({:?}):\n  {why}", attack.verdict)),
                    }
                }
            });
        }
    });
    figures.into_inner().unwrap()
}

impl Figures {
    /// Prints them, and fails where anything is wrong.
    pub fn judge(self, what: &str) {
        let hangs = self.complaints.iter().filter(|one| one.contains("HUNG")).count();
        println!(
            "{what}: {} rows, {} complaints, {hangs} hangs, peak {} KiB ({})",
            self.rows,
            self.complaints.len(),
            self.peak.0,
            self.peak.1
        );
        assert!(self.complaints.is_empty(), "\n{}\n", self.complaints.join("\n"));
    }
}

/// A moment as it is inside the way's TLS, where it is behind that.
pub fn inside(moment: &str) -> String {
    format!("{INSIDE}{moment}")
}

/// A script that does this at that moment.
pub fn on(way: Way, moment: &str, act: impl Into<Act>) -> Script {
    way.script().on(moment, act)
}
