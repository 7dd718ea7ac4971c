//! One runner a queue, and how it is woken: a lock and a FIFO (qmail's trigger).
//!
//! # The protocol
//! - A runner holds `runner.lock` and has `trigger` open for reading *before* it looks at the letters.
//! - Whoever accepts a letter does so first, and then opens `trigger` for writing without waiting. That works only
//!   while a runner has it open: one octet wakes it. Otherwise nobody is awake, and the sender may start a runner.
//! - A woken runner empties the FIFO *before* it looks at the letters: what comes later wakes it again.
//! - To leave, a runner closes `trigger`, then unlocks, then looks once more. A letter whose sender still found the
//!   FIFO open is seen by that look; any later sender finds nobody awake. Where the look finds something, the runner
//!   takes the lock again, unless another has it by then.
//!
//! The wait ends by an octet, a signal or the time; between these the process does not wake up.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
#[cfg(target_os = "linux")]
use nix::sys::time::TimeSpec;
#[cfg(target_os = "linux")]
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Error, Queue};

/// The right to be a queue's one runner; it ends with the value or the process.
pub struct RunnerLock {
    root: PathBuf,
    /// Held for its lock.
    lock: File,
    trigger: File,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody accepted a letter.
    Triggered,
    /// The time is up.
    Due,
    /// A signal came.
    Signal,
}

impl Queue {
    /// Wakes the runner. `false`: nobody is awake to hear it.
    pub fn trigger(&self) -> bool {
        let path = self.root.join(TRIGGER);
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits());
        let Ok(mut fifo) = options.open(path) else { return false };
        // A full FIFO has woken somebody already.
        let heard = |result: io::Result<usize>| match result {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        fifo.metadata().is_ok_and(|found| found.file_type().is_fifo()) && heard(fifo.write(b"!"))
    }

    /// Becomes the queue's runner. `None` where there is one.
    pub fn run_alone(&self) -> Result<Option<RunnerLock>, Error> {
        RunnerLock::take(&self.root)
    }
}

const LOCK: &str = "runner.lock";
const TRIGGER: &str = "trigger";

impl RunnerLock {
    fn take(root: &Path) -> Result<Option<Self>, Error> {
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        let options =
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let lock = options.open(&path).map_err(Error::at("open", &path))?;
        lock.set_permissions(Permissions::from_mode(0o600)).map_err(Error::at("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Error::at("lock", &path)(error)),
        }
        let path = root.join(TRIGGER);
        let trigger = open_fifo(&path).map_err(Error::at("open", &path))?;
        Ok(Some(Self { root: root.to_owned(), lock, trigger }))
    }

    /// Waits until something is accepted, a signal comes, or `limit` is over; for ever without one.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Wake> {
        let alarm = limit.and_then(Alarm::after);
        let timeout = match limit {
            Some(limit) if alarm.is_none() => timeout(limit),
            Some(_) | None => PollTimeout::NONE,
        };
        let mut waits = vec![PollFd::new(self.trigger.as_fd(), PollFlags::POLLIN)];
        waits.extend(alarm.as_ref().map(|alarm| PollFd::new(alarm.as_fd(), PollFlags::POLLIN)));
        let woken = poll(&mut waits, timeout).map(|_| waits[0].any() == Some(true));
        match woken {
            Ok(false) => Ok(Wake::Due),
            Ok(true) => {
                self.drain();
                Ok(Wake::Triggered)
            }
            Err(Errno::EINTR) => Ok(Wake::Signal),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The FIFO's reading end, for a process that is to be the
    /// runner after us: as long as it has that, no knock is lost.
    pub fn ear(&self) -> io::Result<OwnedFd> {
        self.trigger.as_fd().try_clone_to_owned()
    }

    /// Leaves, unless `has_work` (asked when nobody can wake us any more) finds something and no other runner has come.
    pub fn leave<E: From<Error>>(self, has_work: impl FnOnce() -> Result<bool, E>) -> Result<Option<Self>, E> {
        let Self { root, lock, trigger } = self;
        drop(trigger);
        drop(lock);
        if has_work()? { Ok(Self::take(&root)?) } else { Ok(None) }
    }

    /// Forgets the knocks so far, for a runner that is about to look at the letters.
    pub fn drain(&mut self) {
        let mut octets = [0; 256];
        while matches!(self.trigger.read(&mut octets), Ok(got) if got > 0) {}
    }
}

/// A clock that goes on while the machine sleeps, as poll(2)'s
/// own does not: a laptop's letters are due when it wakes up.
#[cfg(target_os = "linux")]
struct Alarm(TimerFd);

#[cfg(target_os = "linux")]
impl Alarm {
    /// `None` where there is none to be had, or nothing to wait for.
    fn after(limit: Duration) -> Option<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).ok().filter(|_| !limit.is_zero())?;
        timer.set(Expiration::OneShot(TimeSpec::from_duration(limit)), TimerSetTimeFlags::empty()).ok()?;
        Some(Self(timer))
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Other systems have poll's clock.
#[cfg(not(target_os = "linux"))]
enum Alarm {}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    fn after(_: Duration) -> Option<Self> {
        None
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

/// Rounded up: a wake-up a hair too early would be one more for nothing.
fn timeout(limit: Duration) -> PollTimeout {
    let millis = limit.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).ok().and_then(|millis| PollTimeout::try_from(millis).ok()).unwrap_or(PollTimeout::MAX)
}

/// The FIFO, open for reading and writing: with a writer of our
/// own, other writers' comings and goings are no end of file.
fn open_fifo(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
    let options = options.read(true).write(true).custom_flags(flags);
    match options.open(path) {
        Ok(fifo) if fifo.metadata()?.file_type().is_fifo() => return Ok(fifo),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Whatever else has the name, it is not what we made; we hold the lock, so nobody else makes one.
        Ok(_) | Err(_) => fs::remove_file(path)?,
    }
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(&dir.path().join("q")).unwrap();
        (dir, queue)
    }

    #[test]
    fn there_is_one_runner_and_whoever_knocks_learns_whether_it_hears() {
        let (_dir, queue) = queue();
        assert!(!queue.trigger(), "nobody is awake");
        let mut runner = queue.run_alone().unwrap().unwrap();
        assert!(queue.run_alone().unwrap().is_none());
        assert_eq!(runner.wait(Some(Duration::ZERO)).unwrap(), Wake::Due);
        assert_eq!(runner.wait(Some(Duration::from_millis(1))).unwrap(), Wake::Due);
        for _ in 0..3 {
            assert!(queue.trigger());
        }
        assert_eq!(runner.wait(None).unwrap(), Wake::Triggered);
        assert_eq!(runner.wait(Some(Duration::ZERO)).unwrap(), Wake::Due, "knocks are answered together");
        drop(runner);
        assert!(!queue.trigger());
        assert!(queue.run_alone().unwrap().is_some());
    }

    #[test]
    fn a_letter_that_comes_while_the_runner_leaves_is_seen() {
        let (_dir, queue) = queue();
        let runner = queue.run_alone().unwrap().unwrap();
        let stayed = runner.leave(|| {
            assert!(!queue.trigger(), "too late to be heard …");
            Ok::<_, Error>(true) // … but not to be seen
        });
        let runner = stayed.unwrap().unwrap();
        assert!(runner.leave(|| Ok::<_, Error>(false)).unwrap().is_none());
        assert!(queue.run_alone().unwrap().is_some());
    }

    #[test]
    fn a_runner_that_came_meanwhile_keeps_the_lock() {
        let (_dir, queue) = queue();
        let runner = queue.run_alone().unwrap().unwrap();
        let mut other = None;
        let stayed = runner.leave(|| {
            other = queue.run_alone()?;
            Ok::<_, Error>(true)
        });
        assert!(stayed.unwrap().is_none());
        assert!(other.is_some());
    }

    #[test]
    fn a_full_trigger_neither_blocks_nor_fails() {
        let (_dir, queue) = queue();
        let mut runner = queue.run_alone().unwrap().unwrap();
        for _ in 0..70_000 {
            assert!(queue.trigger());
        }
        assert_eq!(runner.wait(None).unwrap(), Wake::Triggered);
        assert_eq!(runner.wait(Some(Duration::ZERO)).unwrap(), Wake::Due);
    }

    #[test]
    fn a_file_in_the_trigger_s_place_is_nobody_and_gives_way() {
        let (_dir, queue) = queue();
        fs::write(queue.dir().join(TRIGGER), "").unwrap();
        assert!(!queue.trigger());
        let _runner = queue.run_alone().unwrap().unwrap();
        assert!(queue.trigger());
    }
}
