//! Power cuts on a real file system.
//!
//! The queue lies on ext4 in an image that is mounted as a loop device. A cut copies the image and leaves the mounted
//! file system alone: what was written to files and not yet by ext4 to its device is in the page cache only, and the
//! copy does not see it. The copy, whose journal is replayed when it is mounted, is the disk after the cut.
//!
//! What the loop device has got, it has: a disk that loses what it said it had flushed is not tried here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::house::House;
use crate::letter::Letter;
use crate::mount::Mount;
use crate::sink::Sink;
use crate::strace::{self, Fault, Scope, What};

/// A queue on a disk whose power can be cut.
struct Disk {
    // Dropped in this order: what is mounted before where its image lies.
    mount: Mount,
    image: PathBuf,
    dir: tempfile::TempDir,
}

impl Disk {
    /// A new one; `None`, and a word, where that is not to be had.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "mkfs.ext4 is missing: {made:?}");
            eprintln!("skipped: there is no mkfs.ext4");
            return None;
        }
        Some(Self { mount: Mount::image(&image)?, image, dir })
    }

    fn queue(&self) -> PathBuf {
        self.mount.path().join("queue")
    }

    /// What a power cut at this moment leaves.
    fn cut(&self) -> Mount {
        let copy = self.dir.path().join("copy");
        fs::copy(&self.image, &copy).unwrap();
        Mount::image(&copy).expect("what could be mounted once can be mounted twice")
    }
}

/// The relay's letters after the queue of a cut disk was run.
fn run_what_is_left(disk: &Disk, sink: &Sink) -> House {
    let left = disk.cut();
    let house = House::with_queue(sink, &left.path().join("queue"));
    house.run_dry();
    assert_eq!(house.names("letters"), [""; 0]);
    assert_eq!(house.names("corrupt"), [""; 0]);
    house
}

/// A disk with a queue that has been used before, and its house.
fn used_disk(sink: &Sink) -> Option<(Disk, House)> {
    let disk = Disk::new()?;
    let house = House::with_queue(sink, &disk.queue());
    Some((disk, house))
}

fn accepted_survives(cuts: usize) {
    let (mut kept, mut whole) = (0, 0);
    let sink = Sink::open();
    let Some((disk, house)) = used_disk(&sink) else { return };
    // The first of them makes the queue as well.
    for cut in 0..cuts {
        let letter = Letter::new(format!("cut-{cut}-"), &["bob", "carol"], 100);
        let ended = house.send("-odq", &letter);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let after = Sink::open();
        run_what_is_left(&disk, &after);
        kept += usize::from(letter.to.iter().all(|to| letter.copies(&after.taken(), to) == 1));
        whole += usize::from(letter.damaged(&after.taken()) == 0);
        // So that the next cut has one letter to be looked for, not all of them.
        house.run_dry();
    }
    println!("accepted, then cut: {kept} of {cuts} delivered, {whole} whole");
    assert_eq!((kept, whole), (cuts, cuts));
}

fn delivered_stays_away(cuts: usize) {
    let mut back = 0;
    for cut in 0..cuts {
        let sink = Sink::open();
        let Some((disk, house)) = used_disk(&sink) else { return };
        let letters =
            [Letter::new(format!("gone-{cut}-"), &["bob"], 50), Letter::new("refused", &["never", "dave"], 50)];
        for letter in &letters {
            assert_eq!(house.send("-odq", letter).code(), Some(0));
        }
        // The letters lie on the device, and not only in the journal.
        drop(Command::new("sync").status());
        house.run_dry();
        assert_eq!(sink.taken().len(), 3);
        run_what_is_left(&disk, &sink);
        back += sink.taken().len() - 3;
    }
    println!("delivered, then cut: {back} came back in {cuts} cuts");
    assert_eq!(back, 0);
}

/// Kills at changes to the disk, then cuts.
fn killed_then_cut(every: usize) {
    if !strace::is_there() {
        return;
    }
    let (mut points, mut committed, mut gone, mut doubled) = (0, 0, 0, 0);
    let mut complaints = Vec::new();
    for call in ["write", "fsync", "rename", "openat", "unlink"] {
        for number in (1..=if call == "openat" { 40 } else { 8 }).step_by(every) {
            for is_run in [false, true] {
                let sink = Sink::open();
                let Some((disk, house)) = used_disk(&sink) else { return };
                let letter = Letter::new("killed", &["bob", "never"], 200);
                drop(house.queue());
                let (words, stdin) = if is_run {
                    assert_eq!(house.send("-odq", &letter).code(), Some(0));
                    (vec!["-qf".to_owned()], None)
                } else {
                    (letter.words("-odq"), Some(house.input(&letter)))
                };
                let fault = Fault { call, number, scope: Scope::Process, what: What::Kill };
                let ended = strace::run(&house, &words, stdin, fault, &[]);
                if call == "openat" && number < 5 {
                    continue; // the loader's own
                }
                points += 1;
                sink.settle();
                let before = sink.taken();
                run_what_is_left(&disk, &sink);
                sink.settle();
                let taken = sink.taken();
                let (after, reports) = (letter.copies(&taken, &letter.to[0]), letter.reports(&taken));
                let owed = is_run || ended.code() == Some(0);
                committed += usize::from(after > 0);
                gone += usize::from(after == 0);
                // Twice is once too often, unless the relay had it when the process was killed.
                let had = (letter.copies(&before, &letter.to[0]), letter.reports(&before));
                let in_window = ended.was_killed() && (after == 2 * had.0 || reports == 2 * had.1);
                doubled += usize::from(after > 1 || reports > 1);
                let wrong = (owed && (after == 0 || reports == 0))
                    || (after > 0 && reports == 0)
                    || letter.damaged(&taken) > 0
                    || (after + reports > 2 && !(in_window && after + reports == 3));
                if wrong {
                    complaints
                        .push(format!("{fault}, run {is_run}: {} {after} copies, {reports} reports", ended.status));
                }
            }
        }
    }
    println!("killed, then cut: {points} points, {committed} whole, {gone} nowhere, {doubled} doubled in the window");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn what_was_accepted_survives_a_power_cut() {
    accepted_survives(3);
}

#[test]
fn what_was_delivered_does_not_come_back_with_the_power() {
    delivered_stays_away(2);
}

#[test]
fn a_kill_and_a_power_cut_together_leave_the_whole_letter_or_nothing() {
    killed_then_cut(7);
}

/// `cargo test --test faults -- --ignored --nocapture power_cuts`
#[test]
#[ignore = "takes minutes, and prints its figures"]
fn a_great_many_power_cuts_lose_and_bring_back_nothing() {
    accepted_survives(30);
    delivered_stays_away(10);
    killed_then_cut(1);
}

/// The check itself is checked: without the fsyncs nothing may survive.
#[test]
fn a_cut_image_has_only_what_was_flushed() {
    let Some(disk) = Disk::new() else { return };
    let write = |name: &str| fs::write(disk.mount.path().join(name), "x").unwrap();
    write("flushed");
    fs::File::open(disk.mount.path()).unwrap().sync_all().unwrap();
    write("forgotten");
    let there = |dir: &Path, name: &str| dir.join(name).exists();
    let left = disk.cut();
    assert!(there(&left.path(), "flushed"));
    assert!(there(&disk.mount.path(), "forgotten") && !there(&left.path(), "forgotten"));
}
