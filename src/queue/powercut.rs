//! A disk that can be unplugged at every step: does the queue keep its promises on whatever the power cut leaves?
//!
//! [`Journal`] does what the real disk does and writes down each step, with the promises that the queue made in
//! between. From the steps before a cut, [`Journal::images`] builds every state that the disk may be found in:
//! - octets that were not fsynced are there, or missing, or half there, or there as zeros;
//! - a name that was made, moved or removed is so only for certain once the directory that it appears in (or vanishes
//!   from) was fsynced; of the others, any set may have happened, in no order (a rename happens whole or not at all, as
//!   journalling file systems have it).
//!
//! The check itself is checked: a journal with an fsync left out, or with two steps swapped, must fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::disk::{Disk, Os};
use super::tests::*;
use super::*;

type Inode = u64;

#[derive(Clone, Debug)]
enum Step {
    Create(PathBuf, Inode),
    Write(Inode, Vec<u8>),
    Sync(Inode),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    SyncDir(PathBuf),
    Promise(Promise),
}

/// What the queue has said by now.
#[derive(Clone, Copy, Debug)]
enum Promise {
    /// Where the letter is.
    Place(Id, Place),
    /// If the letter is back, it is so for this recipient.
    Waiting(Id, usize),
    /// This recipient will not be attempted again.
    Final(Id, usize),
    /// The sender was told about this recipient, and will not be again: not even once the report is gone.
    Told(Id, usize),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// We have it.
    Letters,
    /// It may be gone or not.
    Anywhere,
    /// It is on its way to `failed/` or back.
    Between,
    /// It is kept.
    Failed,
    /// It is gone for good.
    Nowhere,
}

#[derive(Default)]
struct Journal {
    root: PathBuf,
    steps: Mutex<Vec<Step>>,
}

impl Journal {
    fn note(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }
}

fn inode(file: &File) -> Inode {
    file.metadata().unwrap().ino()
}

impl Disk for Arc<Journal> {
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = Os.create(path)?;
        self.note(Step::Create(self.name(path), inode(&file)));
        Ok(file)
    }

    fn write(&self, file: &File, octets: &[u8]) -> io::Result<()> {
        self.note(Step::Write(inode(file), octets.to_vec()));
        Os.write(file, octets)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.note(Step::Sync(inode(file)));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Step::Rename(self.name(from), self.name(to)));
        Os.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.note(Step::Unlink(self.name(path)));
        Os.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note(Step::SyncDir(self.name(dir)));
        Ok(())
    }
}

/// A directory tree as a power cut leaves it.
type Image = BTreeMap<PathBuf, Vec<u8>>;

/// Every state in which a disk may be found after these steps.
fn images(steps: &[Step]) -> BTreeSet<Image> {
    let doubtful: Vec<usize> = (0..steps.len()).filter(|&i| is_doubtful(steps, i)).collect();
    assert!(doubtful.len() < 10, "too many states to try them all: {doubtful:?}");
    let mut images = BTreeSet::new();
    for choice in 0..1_u32 << doubtful.len() {
        let happened = |i: usize| doubtful.iter().position(|&d| d == i).is_none_or(|bit| choice >> bit & 1 == 1);
        let names = names(steps, happened);
        for damage in [Damage::None, Damage::Lost, Damage::Torn, Damage::Zeroed] {
            let octets = |inode: &Inode| octets(steps, *inode, damage);
            images.insert(names.iter().map(|(name, inode)| (name.clone(), octets(inode))).collect());
        }
    }
    images
}

/// Whether the step changed a name and no later fsync of that name's directory made it last.
fn is_doubtful(steps: &[Step], i: usize) -> bool {
    let (Step::Create(name, _) | Step::Unlink(name) | Step::Rename(_, name)) = &steps[i] else { return false };
    let later = &steps[i + 1..];
    let is_moot = |step: &Step| matches!(step, Step::Rename(from, _) if from == name);
    !later.iter().any(|step| matches!(step, Step::SyncDir(dir) if name.parent() == Some(dir)) || is_moot(step))
}

fn names(steps: &[Step], happened: impl Fn(usize) -> bool) -> BTreeMap<PathBuf, Inode> {
    let mut now = BTreeMap::new(); // as the running system saw it
    let mut then = BTreeMap::new(); // as the disk has it
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Create(name, inode) => {
                now.insert(name.clone(), *inode);
                if happened(i) {
                    then.insert(name.clone(), *inode);
                }
            }
            Step::Rename(from, to) => {
                let inode = now.remove(from).unwrap();
                now.insert(to.clone(), inode);
                if happened(i) {
                    then.remove(from);
                    then.insert(to.clone(), inode);
                }
            }
            Step::Unlink(name) => {
                now.remove(name);
                if happened(i) {
                    then.remove(name);
                }
            }
            _ => {}
        }
    }
    then
}

#[derive(Clone, Copy)]
enum Damage {
    None,
    Lost,
    Torn,
    Zeroed,
}

fn octets(steps: &[Step], inode: Inode, damage: Damage) -> Vec<u8> {
    let (mut octets, mut synced) = (Vec::new(), 0);
    for step in steps {
        match step {
            Step::Write(i, more) if *i == inode => octets.extend_from_slice(more),
            Step::Sync(i) if *i == inode => synced = octets.len(),
            _ => {}
        }
    }
    match damage {
        Damage::None => {}
        Damage::Lost => octets.truncate(synced),
        Damage::Torn => octets.truncate(synced.midpoint(octets.len())),
        Damage::Zeroed => octets[synced..].fill(0),
    }
    octets
}

/// Cuts the power after each step. The first broken promise is the error.
fn survive(steps: &[Step]) -> Result<usize, String> {
    let mut tried = 0;
    for cut in 0..=steps.len() {
        for image in images(&steps[..cut]) {
            tried += 1;
            check(&steps[..cut], &image).map_err(|broken| format!("cut after step {cut}: {broken}"))?;
        }
    }
    Ok(tried)
}

fn check(steps: &[Step], image: &Image) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::open(&dir.path().join("q")).unwrap();
    for (name, octets) in image {
        fs::write(queue.dir().join(name), octets).unwrap();
    }
    for id in queue.ids().unwrap() {
        let claim = queue.claim(id).map_err(|why| format!("{id} under its name is no whole letter: {why:?}"))?;
        if octets_of(&claim) != OCTETS {
            return Err(format!("{id} has other octets"));
        }
    }
    let promises =
        steps.iter().filter_map(|step| if let Step::Promise(promise) = step { Some(*promise) } else { None });
    let mut whereabouts = BTreeMap::new();
    for promise in promises {
        let history = |id| queue.claim(id).map(|claim| claim.letter().history.clone());
        match promise {
            Promise::Place(id, place) => drop(whereabouts.insert(id, place)),
            Promise::Final(id, number) if history(id).is_ok_and(|history| history.waiting().contains(&number)) => {
                return Err(format!("{id} is final for recipient {number}, who would get it again"));
            }
            Promise::Waiting(id, number) if history(id).is_ok_and(|history| !history.waiting().contains(&number)) => {
                return Err(format!("{id} was brought back, but not for recipient {number}"));
            }
            Promise::Told(id, number) if history(id).is_ok_and(|history| history.unreported().contains(&number)) => {
                return Err(format!("the sender of {id} would be told again about recipient {number}"));
            }
            Promise::Final(..) | Promise::Told(..) | Promise::Waiting(..) => {}
        }
    }
    let failed: Vec<Id> = queue.failed().unwrap().filter_map(Result::ok).map(|listed| listed.letter.entry.id).collect();
    for (id, place) in whereabouts {
        let claimed = queue.claim(id);
        match place {
            Place::Letters => drop(claimed.map_err(|why| format!("{id} was accepted and is lost: {why:?}"))?),
            Place::Failed if !failed.contains(&id) => return Err(format!("{id} failed and was not kept")),
            Place::Failed | Place::Nowhere if claimed.is_ok() => return Err(format!("{id} came back")),
            Place::Between if claimed.is_err() && !failed.contains(&id) => {
                return Err(format!("{id} got lost on its way"));
            }
            _ => {}
        }
    }
    recover(&queue)
}

/// Does what the next runner would do about failures that are not on record as reported: it must not report them twice.
fn recover(queue: &Queue) -> Result<(), String> {
    let report = envelope(None, &["alice"]);
    for id in queue.ids().unwrap() {
        let mut claim = queue.claim(id).unwrap();
        claim.report(Some(&submission(&report, &OCTETS.to_vec())), at(500)).unwrap();
    }
    let is_report = |listed: &Listed| listed.letter.entry.envelope.reverse_path().is_null();
    match queue.list().unwrap().filter_map(Result::ok).filter(is_report).count() {
        0 | 1 => Ok(()),
        count => Err(format!("the sender is told {count} times")),
    }
}

fn octets_of(claim: &Claim<'_>) -> Vec<u8> {
    tests::octets(&*claim.content())
}

/// What a queue does in a life, as steps on a disk.
fn life(live: impl FnOnce(&Queue, &dyn Fn(Promise))) -> Vec<Step> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("q");
    drop(Queue::open(&root).unwrap());
    let journal = Arc::new(Journal { root: root.clone(), steps: Mutex::default() });
    let queue = Queue::on(&root, Box::new(Arc::clone(&journal)));
    live(&queue, &|promise| journal.note(Step::Promise(promise)));
    journal.steps.lock().unwrap().clone()
}

fn relayed_at_once() -> Vec<Step> {
    life(|queue, promise| {
        let id = accept(queue, &["bob"], 0);
        promise(Promise::Place(id, Place::Letters));
        let mut claim = queue.claim(id).unwrap();
        claim.begin(at(1)).unwrap();
        promise(Promise::Place(id, Place::Anywhere));
        claim.settle(&tried(&[relayed()], "relay"), at(2)).unwrap();
        assert_eq!(claim.close().unwrap(), Closed::Relayed);
        queue.sync().unwrap();
        promise(Promise::Place(id, Place::Nowhere));
    })
}

fn deferred_then_failed() -> Vec<Step> {
    life(|queue, promise| {
        let id = accept(queue, &["bob", "carol", "dave"], 0);
        promise(Promise::Place(id, Place::Letters));
        let mut claim = queue.claim(id).unwrap();
        claim.begin(at(1)).unwrap();
        claim.settle(&tried(&[relayed(), deferred(), deferred()], "relay"), at(2)).unwrap();
        promise(Promise::Final(id, 0));
        assert_eq!(claim.close().unwrap(), Closed::Waiting);
        let mut claim = queue.claim(id).unwrap();
        claim.begin(at(100)).unwrap();
        claim.settle(&tried(&[refused(), relayed()], "relay"), at(101)).unwrap();
        promise(Promise::Final(id, 2));
        let report = envelope(None, &["alice"]);
        let report = claim.report(Some(&submission(&report, &OCTETS.to_vec())), at(102)).unwrap().unwrap();
        promise(Promise::Place(report, Place::Letters));
        promise(Promise::Place(id, Place::Between));
        assert_eq!(claim.close().unwrap(), Closed::Failed);
        promise(Promise::Place(id, Place::Failed));
        promise(Promise::Place(id, Place::Between));
        queue.retry(id, at(200)).unwrap();
        promise(Promise::Waiting(id, 1));
        promise(Promise::Place(id, Place::Letters));
        promise(Promise::Place(id, Place::Anywhere));
        queue.remove(id).unwrap();
        promise(Promise::Place(id, Place::Nowhere));
    })
}

fn failed_for_one_and_waiting_for_another() -> Vec<Step> {
    life(|queue, promise| {
        let id = accept(queue, &["bob", "carol"], 0);
        promise(Promise::Place(id, Place::Letters));
        let mut claim = queue.claim(id).unwrap();
        claim.settle(&tried(&[refused(), deferred()], "relay"), at(2)).unwrap();
        promise(Promise::Final(id, 0));
        let report = envelope(None, &["alice"]);
        let report = claim.report(Some(&submission(&report, &OCTETS.to_vec())), at(3)).unwrap().unwrap();
        promise(Promise::Place(report, Place::Letters));
        assert_eq!(claim.close().unwrap(), Closed::Waiting);
        let mut claim = queue.claim(report).unwrap();
        promise(Promise::Place(report, Place::Anywhere));
        claim.settle(&tried(&[relayed()], "relay"), at(4)).unwrap();
        assert_eq!(claim.close().unwrap(), Closed::Relayed);
        queue.sync().unwrap();
        promise(Promise::Place(report, Place::Nowhere));
        promise(Promise::Told(id, 0));
    })
}

fn lives() -> [(&'static str, Vec<Step>); 3] {
    [
        ("relayed at once", relayed_at_once()),
        ("deferred, then failed, then brought back", deferred_then_failed()),
        ("failed for one, waiting for another", failed_for_one_and_waiting_for_another()),
    ]
}

#[test]
fn every_power_cut_leaves_every_promise_kept() {
    for (name, steps) in lives() {
        let tried = survive(&steps).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        assert!(tried > steps.len(), "{name}: {tried} states of {} steps", steps.len());
    }
}

#[test]
fn a_dropped_fsync_is_caught() {
    for (name, steps) in lives() {
        for (i, step) in steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Sync(_) | Step::SyncDir(_))) {
            let mut planted = steps.clone();
            planted.remove(i);
            assert!(survive(&planted).is_err(), "{name}: nobody misses step {i}, {step:?}");
        }
    }
}

#[test]
fn swapped_steps_are_caught() {
    let is = |a: &Step, b: &Step| match (a, b) {
        // Named before it is whole, promised before it is named, forgotten before the removal lasts.
        (Step::Sync(_), Step::Rename(from, _)) => from.starts_with(TMP),
        (Step::Rename(..) | Step::Unlink(_), Step::SyncDir(_)) => true,
        (Step::SyncDir(_), Step::Promise(Promise::Place(_, place))) => {
            !matches!(place, Place::Anywhere | Place::Between)
        }
        _ => false,
    };
    let mut planted = 0;
    for (name, steps) in lives() {
        for i in (1..steps.len()).filter(|&i| is(&steps[i - 1], &steps[i])) {
            let mut swapped = steps.clone();
            swapped.swap(i - 1, i);
            planted += 1;
            assert!(survive(&swapped).is_err(), "{name}: nobody minds {:?} before {:?}", steps[i], steps[i - 1]);
        }
    }
    assert!(planted > 10, "{planted}");
}

/// A disk on which one call fails, half done where it can be.
struct Failing {
    left: Mutex<usize>,
    kind: io::ErrorKind,
}

impl Failing {
    fn count(&self) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        *left = left.wrapping_sub(1);
        if *left == 0 { Err(self.kind.into()) } else { Ok(()) }
    }
}

impl Disk for Arc<Failing> {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.count().and_then(|()| Os.create(path))
    }

    fn write(&self, file: &File, octets: &[u8]) -> io::Result<()> {
        self.count().inspect_err(|_| Os.write(file, &octets[..octets.len() / 2]).unwrap())?;
        Os.write(file, octets)
    }

    fn sync(&self, _file: &File) -> io::Result<()> {
        self.count()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count().and_then(|()| Os.rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.count().and_then(|()| Os.unlink(path))
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.count()
    }
}

/// Lets the n-th change to the disk fail, for every n, in a queue of its own; `true` ends the series.
fn with_every_failure(mut live: impl FnMut(&Queue, &dyn Fn()) -> bool) {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let mut n = 1;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("q");
            drop(Queue::open(&root).unwrap());
            let disk = Arc::new(Failing { left: Mutex::new(0), kind });
            let queue = Queue::on(&root, Box::new(Arc::clone(&disk)));
            if live(&queue, &|| *disk.left.lock().unwrap() = n) {
                break;
            }
            n += 1;
        }
        assert!(n > 3);
    }
}

#[test]
fn a_letter_that_could_not_be_taken_is_nowhere() {
    with_every_failure(|queue, arm| {
        let content = vec![b'x'; 200_000];
        let envelope = envelope(Some("alice"), &["bob"]);
        arm();
        let taken = queue.accept(&submission(&envelope, &content), at(0));
        let there = ["tmp", "letters"].map(|dir| fs::read_dir(queue.dir().join(dir)).unwrap().count());
        match taken {
            Ok(_) => assert_eq!(there, [0, 1]),
            Err(ref error) => assert_eq!((there, error.io().is_some()), ([0, 0], true)),
        }
        taken.is_ok()
    });
}

#[test]
fn an_outcome_that_could_not_be_written_loses_nothing() {
    with_every_failure(|queue, arm| {
        let id = accept(queue, &["bob", "carol"], 0);
        arm();
        let done = attempt(queue, id);
        let claim = queue.claim(id);
        if done.is_err() {
            // Never neither: somebody still waits for it, or is to be told, or it was kept.
            assert!(claim.is_ok() || queue.failed().unwrap().count() == 1);
            assert_eq!(queue.corrupt().unwrap(), []);
        }
        done.is_ok()
    });
}

#[test]
fn a_letter_that_cannot_be_removed_is_not_sent_again() {
    with_every_failure(|queue, arm| {
        let id = accept(queue, &["bob", "carol"], 0);
        let mut claim = queue.claim(id).unwrap();
        claim.begin(at(1)).unwrap();
        arm();
        let mut settle = || {
            claim.settle(&tried(&[relayed(), relayed()], "relay"), at(2))?;
            queue.sync()?;
            // So that there is something to fail at the end of the series.
            queue.accept(&submission(&envelope(None, &["alice"]), &OCTETS.to_vec()), at(3)).map(drop)
        };
        let done = settle();
        drop(claim);
        match queue.claim(id) {
            Err(unclaimed) => assert!(matches!(unclaimed, Unclaimed::Gone)),
            Ok(claim) => {
                assert!(done.is_err());
                assert_eq!(claim.letter().remaining(), None);
                assert_eq!(claim.close().unwrap(), Closed::Relayed);
            }
        }
        done.is_ok()
    });
}

fn attempt(queue: &Queue, id: Id) -> Result<(), Error> {
    let report = envelope(None, &["alice"]);
    let mut claim = queue.claim(id).unwrap();
    claim.begin(at(1))?;
    claim.settle(&tried(&[relayed(), refused()], "relay"), at(2))?;
    claim.report(Some(&submission(&report, &OCTETS.to_vec())), at(3))?;
    claim.close().map(drop)
}

#[test]
fn accepting_costs_two_fsyncs_and_forgetting_one_for_sixteen() {
    let fsyncs = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::Sync(_) | Step::SyncDir(_))).count();
    let accepted = life(|queue, _| (0..32).for_each(|i| assert_ne!(accept(queue, &["bob", "carol"], i).seed(), 0)));
    assert_eq!(fsyncs(&accepted), 2 * 32);
    let relayed = life(|queue, _| {
        for i in 0..32 {
            let id = accept(queue, &["bob", "carol"], i);
            let mut claim = queue.claim(id).unwrap();
            claim.begin(at(i)).unwrap();
            claim.settle(&tried(&[relayed(), relayed()], "relay"), at(i)).unwrap();
            assert_eq!(claim.close().unwrap(), Closed::Relayed);
        }
    });
    assert_eq!(fsyncs(&relayed), 2 * 32 + 2);
}
