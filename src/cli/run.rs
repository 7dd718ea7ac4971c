//! Queue runs: `-q…`, the background runner, and how that is started.
//!
//! A run in the foreground (`-q`) tries what is wanted and returns. The background runner is
//! this program started once more under the name `pillarbox-runner`, in a process group and
//! session of its own: it sleeps until a letter is due or somebody knocks, and leaves when
//! nothing waits. A lock keeps it single; any number of foreground runs may work beside it.
//!
//! To sleep, the runner starts itself anew in its own place (execve(2)): what it has read of this program for a run
//! would stay mapped for hours. The sleeper knows how long, and where the queue is, and starts the runner in *its*
//! place. The FIFO goes with them as standard input, so that a knock between the two is kept.

use super::configuration::{self, Configuration};
use super::exit::{self, sysexits};
use super::host::Host;
use super::meaning::Run as Wanted;
use super::sendmail::{Dialogue, Face};
use super::signals::Watch;
use super::{log, options, service, session_log};
use crate::deliver::Desk;
use crate::dsn::Reporter;
use crate::queue::{Error, Id, Listed, Queue, RunnerLock, Wake};
use crate::runner::{Ran, Run, Tally, next_due};
use crate::settle::{Office, Rules};
use crate::smtp::interrupt::{Ending, Interrupt};
use nix::time::ClockId;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The name under which this program is the background runner.
pub const RUNNER: &str = "pillarbox-runner";

/// The shortest pause between two runs when something was put off: letters whose times lie close together are tried
/// together, and a relay that is down is not asked once for each of them.
const PAUSE: Duration = Duration::from_mins(1);

/// The runner's first word where it only sleeps.
const ASLEEP: &str = "asleep";

/// The shortest sleep that is worth two starts of a program.
const NAP: Duration = Duration::from_secs(1);

/// How often a terminal is told how far a run has come.
const TICK: Duration = Duration::from_millis(200);

/// How often the janitor comes.
const SWEEP: Duration = Duration::from_hours(24);

/// `sendmail -q…`.
pub fn main(face: Face<'_>, wanted: &Wanted) -> u8 {
    let host = Host::look();
    if let Ok(Some(socket)) = configuration::service(&host, wanted.config.as_deref()) {
        return ask_service(face, wanted, &socket);
    }
    let configuration = match configuration::load(&host, wanted.config.as_deref()) {
        Ok(configuration) => configuration,
        Err(sentence) => {
            face.say(&sentence);
            return sysexits::CONFIG;
        }
    };
    log::install(&configuration.settings.log, face.program);
    let Some(dir) = &configuration.queue_dir else { return 0 };
    let interrupt = interruptible();
    let is_wanted = |listed: &Listed| is_wanted(wanted, listed);
    let done = Queue::find(dir).and_then(|queue| {
        let Some(queue) = queue else { return Ok(0) };
        let runs = Runs { configuration: &configuration, host: &host, queue: &queue, interrupt: interrupt.clone() };
        loop {
            sweep(&configuration, &queue);
            let Ran { tally, hindered } = runs.run(wanted.verbose, &is_wanted)?;
            if wanted.verbose {
                face.say(&summary(&tally));
            }
            let told = hindered.map(|(letters, error)| hindrance(letters, &error));
            if let Some((sentence, _)) = &told {
                face.say(sentence);
            }
            match wanted.every {
                Some(every) if !interrupt.is_tripped() => sleep(every, &interrupt),
                _ => return Ok(told.map_or(0, |(_, status)| status)),
            }
            if interrupt.is_tripped() {
                return Ok(0);
            }
        }
    });
    match done {
        Ok(status) => status,
        Err(error) => {
            face.say(&error.to_string());
            exit::queue(&error)
        }
    }
}

/// Asks the service, whose queue it is. It tries what is due without being asked; with `-qf`, or where letters are
/// named, what it is to try is the caller's to say, as far as the letters are his.
fn ask_service(face: Face<'_>, wanted: &Wanted, socket: &Path) -> u8 {
    let Some(words) = wanted.words() else {
        face.say("the text behind -qI, -qR and -qS may have no space in it where the service has the queue");
        return sysexits::USAGE;
    };
    let interrupt = interruptible();
    loop {
        let status = service::ask(face, socket, &format!("XQUEUE RUN{words}"), &mut |_, text| {
            if wanted.verbose {
                face.say(text);
            }
            0
        });
        let Some(every) = wanted.every else { return status };
        sleep(every, &interrupt);
        if interrupt.is_tripped() {
            return 0;
        }
    }
}

/// Whether `-q…` asks for a letter: whoever names some wants them now.
pub(super) fn is_wanted(wanted: &Wanted, listed: &Listed) -> bool {
    let letter = &listed.letter;
    let sender = letter.entry.envelope.reverse_path().to_string();
    let recipients = || letter.history.waiting().iter().map(|&n| letter.recipient(n).mailbox.to_string()).collect();
    if wanted.only.is_empty() {
        return wanted.all || letter.is_due(SystemTime::now());
    }
    let recipients: Vec<String> = recipients();
    wanted.only.iter().all(|filter| filter.takes(&letter.entry.id.to_string(), &sender, &recipients))
}

/// What became of a run's letters, for people.
pub fn summary(tally: &Tally) -> String {
    let Tally { wanted, relayed, deferred, failed, skipped } = tally;
    let letters = if *wanted == 1 { "letter" } else { "letters" };
    format!("{wanted} {letters} tried: {relayed} relayed, {deferred} put off, {failed} failed, {skipped} left alone")
}

/// That the queue's disk kept letters from being tried: the sentence and the status.
pub fn hindrance(letters: usize, error: &Error) -> (String, u8) {
    let (letters, stay) = if letters == 1 {
        ("a letter could".to_owned(), "it stays")
    } else {
        (format!("{letters} letters could"), "they stay")
    };
    let sentence = format!("{letters} not be tried, or the outcome not be recorded: {error}; {stay} in the queue");
    (sentence, exit::queue(error))
}

/// The background runner.
pub fn background(face: Face<'_>, words: &[OsString]) -> u8 {
    if let [first, rest @ ..] = words
        && first == ASLEEP
    {
        return asleep(rest);
    }
    // Fails where we lead a session already, which is as good.
    let _ = nix::unistd::setsid();
    let config = options::parse(face.program, words.to_vec())
        .ok()
        .and_then(|typed| typed.options.into_iter().find_map(|(row, value)| (row.spelling == "-C").then_some(value)));
    let host = Host::look();
    let Ok(configuration) = configuration::load(&host, config.as_deref().map(Path::new)) else {
        return sysexits::CONFIG;
    };
    log::install(&configuration.settings.log, face.program);
    let Some(dir) = &configuration.queue_dir else { return 0 };
    match Queue::open(dir).and_then(|queue| stay(&configuration, &host, &queue, words)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(message = "unable", reason = %error);
            exit::queue(&error)
        }
    }
}

/// Puts the sleeper in the place of this process. Returns where that cannot be done; then the runner waits as it is.
fn lie_down(lock: &RunnerLock, dir: &Path, wait: Duration, pause: Duration, words: &[OsString]) {
    let millis = |time: Duration| time.as_nanos().div_ceil(1_000_000).to_string();
    let Ok(dir) = std::path::absolute(dir) else { return };
    let own: [OsString; 4] = [ASLEEP.into(), millis(wait).into(), millis(pause).into(), dir.into()];
    take_my_place(lock, own.iter().chain(words));
}

fn take_my_place<'a>(lock: &RunnerLock, words: impl Iterator<Item = &'a OsString>) {
    if let (Some(this), Ok(ear)) = (this_program(), lock.ear()) {
        let _ = Command::new(this).arg0(RUNNER).args(words).stdin(ear).exec();
    }
}

/// The runner while nothing is due: waits for so many milliseconds, or until somebody knocks and so many have passed
/// since, at the queue in that directory, and is then the runner with the other words.
fn asleep(words: &[OsString]) -> u8 {
    let [wait, pause, dir, words @ ..] = words else { return sysexits::USAGE };
    let time = |word: &OsString| word.to_str().and_then(|word| word.parse().ok()).map(Duration::from_millis);
    let (Some(wait), Some(pause)) = (time(wait), time(pause)) else { return sysexits::USAGE };
    let Ok(Some(queue)) = Queue::find(Path::new(dir)) else { return 0 };
    // Whoever else has the lock by now has looked at the letters since.
    let Ok(Some(mut lock)) = queue.run_alone() else { return 0 };
    let (interrupt, knock) = (interruptible(), knock(&queue));
    interrupt.register(&knock);
    if !interrupt.is_tripped() && matches!(lock.wait(Some(wait)), Ok(Wake::Triggered)) {
        sleep(pause, &interrupt);
    }
    if !interrupt.is_tripped() {
        take_my_place(&lock, words.iter());
    }
    0
}

/// How a signal ends the runner's wait.
fn knock(queue: &Queue) -> Ending {
    let place = queue.dir().to_owned();
    Arc::new(move || {
        if let Ok(Some(queue)) = Queue::find(&place) {
            queue.trigger();
        }
    })
}

/// Runs the queue until nothing waits in it.
fn stay(configuration: &Configuration, host: &Host, queue: &Queue, words: &[OsString]) -> Result<(), Error> {
    let Some(mut lock) = queue.run_alone()? else { return Ok(()) };
    // The sleeper's FIFO, which we have opened ourselves by now: nobody must hear a knock there once we leave.
    if let Ok(null) = File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(null);
    }
    let (interrupt, knock) = (interruptible(), knock(queue));
    interrupt.register(&knock);
    let runs = Runs { configuration, host, queue, interrupt: interrupt.clone() };
    let mut swept = None::<Instant>;
    while !interrupt.is_tripped() {
        let began = spent();
        let Some(wait) = runs.turn(&mut swept, &HashSet::new())? else {
            match lock.leave(|| next_due(queue, SystemTime::now(), &HashMap::new()).map(|due| due.is_some()))? {
                Some(again) => lock = again,
                None => return Ok(()),
            }
            continue;
        };
        // Why we are woken does not matter: the letters say what is due.
        let pause = breather(began);
        if wait >= NAP && !interrupt.is_tripped() {
            lie_down(&lock, queue.dir(), wait, pause, words);
        }
        let woken = lock.wait(Some(wait));
        let woken = woken.map_err(|source| Error::Io { doing: "wait at", path: queue.dir().to_owned(), source })?;
        if woken == Wake::Triggered {
            sleep(pause, &interrupt);
            lock.drain();
        }
    }
    Ok(())
}

/// The processor time of this thread.
pub(super) fn spent() -> Duration {
    nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// How long arrivals shall gather after a round that began at that [`spent`]. A look takes the longer the more letters
/// wait, so those that come together are looked at together: they never cost more than a fifth of a processor.
pub(super) fn breather(began: Duration) -> Duration {
    (4 * spent().saturating_sub(began)).min(Duration::from_secs(1))
}

/// Sees to it that somebody runs the queue: wakes the runner, or starts one where that is allowed.
pub fn wake(queue: &Queue, configuration: &Configuration) {
    if queue.trigger() || !configuration.settings.queue.runner {
        return;
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(this) = this_program() else { return };
    let mut command = Command::new(this);
    command.arg0(RUNNER).env("PILLARBOX_QUEUE_DIR", absolute(queue.dir())).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(path) = &configuration.argument {
        command.arg("-C").arg(absolute(path));
    } else if let Some(path) = super::host::variable("PILLARBOX_CONFIG") {
        command.env("PILLARBOX_CONFIG", absolute(Path::new(&path)));
    }
    // It is not waited for: it outlives us. Should it not start, the next call or a timer runs the queue.
    if let Err(error) = command.spawn() {
        tracing::warn!(message = "unable", reason = format!("cannot start the background runner: {error}"));
    }
}

/// Leads to the running program, even where its file has been replaced.
fn this_program() -> Option<PathBuf> {
    let this = Path::new("/proc/self/exe");
    if this.exists() { Some(this.to_owned()) } else { std::env::current_exe().ok() }
}

/// Wakes somebody where letters wait and nobody runs the queue: a runner does not outlive a reboot.
pub fn take_up(configuration: &Configuration, dir: &Path) {
    if configuration.settings.queue.runner
        && let Ok(Some(queue)) = Queue::find(dir)
        && queue.ids().is_ok_and(|ids| !ids.is_empty())
    {
        wake(&queue, configuration);
    }
}

/// An interrupt that the signals trip.
fn interruptible() -> Interrupt {
    let interrupt = Interrupt::default();
    Watch::start(interrupt.clone()).message_is_read();
    interrupt
}

/// Sleeps, unless interrupted.
pub(super) fn sleep(time: Duration, interrupt: &Interrupt) {
    let (until, sleeper) = (Instant::now() + time, std::thread::current());
    let wake: Ending = Arc::new(move || sleeper.unpark());
    interrupt.register(&wake);
    while !interrupt.is_tripped() && Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn sweep(configuration: &Configuration, queue: &Queue) {
    match queue.sweep(SystemTime::now(), configuration.settings.queue.keep_failed) {
        Ok(swept) if swept == crate::queue::Swept::default() => {}
        Ok(swept) => tracing::info!(
            message = "swept",
            unfinished = swept.unfinished,
            failed = swept.failed,
            strangers = swept.strangers
        ),
        Err(error) => tracing::error!(message = "unable", reason = %error),
    }
}

/// The rules of a configuration's queue.
pub fn rules<'a>(configuration: &'a Configuration, host: &'a Host) -> Rules<'a> {
    let queue = &configuration.settings.queue;
    let domain = configuration.settings.domain.as_deref().unwrap_or(host.mail_domain());
    Rules {
        lifetime: queue.lifetime,
        delay_notice: queue.delay_notice,
        reporter: Reporter { host: &host.name, domain, keep: queue.keep_failed },
        uid: host.uid,
    }
}

/// What the runs of a process have in common.
pub struct Runs<'a> {
    /// Accounts and rules.
    pub configuration: &'a Configuration,
    /// This machine.
    pub host: &'a Host,
    /// The queue.
    pub queue: &'a Queue,
    /// What ends a run early.
    pub interrupt: Interrupt,
}

impl Runs<'_> {
    /// One round of a runner that stays: what is due or `urged` is tried, and now and then the janitor comes. Gives how
    /// long to wait for the next round; `None` where no letter waits.
    pub fn turn(&self, swept: &mut Option<Instant>, urged: &HashSet<Id>) -> Result<Option<Duration>, Error> {
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            sweep(self.configuration, self.queue);
            *swept = Some(Instant::now());
        }
        let passed_over = RefCell::new(HashMap::new());
        let is_wanted = |listed: &Listed| {
            let (id, now) = (listed.letter.entry.id, SystemTime::now());
            let wanted = listed.letter.is_due(now) || urged.contains(&id);
            if !wanted {
                passed_over.borrow_mut().insert(id, listed.letter.next_attempt(now));
            }
            wanted
        };
        let tally = self.run(false, &is_wanted)?.tally;
        let now = SystemTime::now();
        let Some(due) = next_due(self.queue, now, &passed_over.into_inner())? else { return Ok(None) };
        let pause = if tally.deferred + tally.skipped > 0 { PAUSE } else { Duration::ZERO };
        Ok(Some(due.duration_since(now).unwrap_or_default().max(pause)))
    }

    /// One run over the letters that `wanted` takes; on a terminal a line shows how far it has come.
    pub fn run(&self, verbose: bool, wanted: &dyn Fn(&Listed) -> bool) -> Result<Ran, Error> {
        let secrets = configuration::secret_env(self.host);
        let settings = &self.configuration.settings;
        let mut desk = Desk::new(settings, &secrets, &self.host.name);
        desk.interrupt = self.interrupt.clone();
        desk.ledger = session_log::ledger(settings);
        desk.transcript = verbose.then(|| Arc::new(Dialogue) as _);
        Progress::during(!verbose, |progress| {
            let run = Run {
                desk: &desk,
                office: Office { queue: self.queue, rules: rules(self.configuration, self.host) },
                connections: settings.queue.connections,
                now: &SystemTime::now,
                started: SystemTime::now(),
                progress: &|tally| progress.tell(*tally),
            };
            run.run(wanted)
        })
    }
}

/// A line on a terminal that says how far a run has come. Nothing for a run that is over soon, and nothing elsewhere.
#[derive(Default)]
pub(super) struct Progress {
    tally: Mutex<Tally>,
    over: Mutex<bool>,
    ended: Condvar,
}

impl Progress {
    /// Does the work, and shows what it tells meanwhile.
    pub(super) fn during<T>(wanted: bool, work: impl FnOnce(&Self) -> T) -> T {
        let progress = Self::default();
        std::thread::scope(|scope| {
            let is_shown = wanted && std::io::stderr().is_terminal();
            // Without the thread the work is done in silence.
            let shown = is_shown.then(|| std::thread::Builder::new().spawn_scoped(scope, || progress.show()));
            let done = work(&progress);
            *progress.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            progress.ended.notify_all();
            drop(shown);
            done
        })
    }

    /// What is known now.
    pub(super) fn tell(&self, tally: Tally) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = tally;
    }

    fn show(&self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            over = self.ended.wait_timeout(over, TICK).unwrap_or_else(PoisonError::into_inner).0;
            let line = if *over { String::new() } else { self.line() };
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            if *over {
                return;
            }
        }
    }

    fn line(&self) -> String {
        let tally = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let Tally { wanted, relayed, deferred, failed, .. } = tally;
        format!("{} of {wanted}: {relayed} relayed, {deferred} put off, {failed} failed", tally.done())
    }
}
