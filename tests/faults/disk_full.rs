//! Disks that are full or read-only, and limits that the caller sets: a sentence and a status at once, and nothing half
//! done.

use crate::house::{Ended, House, sendmail};
use crate::letter::Letter;
use crate::mount::Mount;
use crate::sink::Sink;

/// Enough for a few letters.
const SMALL: usize = 256 * 1024;

/// Lengthens a letter until its file in the queue fills its last page, so that a record needs another one.
fn fill_last_page(letter: &mut Letter, sink: &Sink) {
    const PAGE: usize = 4096;
    let house = House::new(sink);
    loop {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
        let path = house.queue_dir().join("letters").join(house.names("letters").remove(0));
        let len = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
        std::fs::remove_file(path).unwrap();
        match len.next_multiple_of(PAGE) - len {
            0 => break,
            left @ 1..100 => letter.padding += left,
            left => letter.lines += left / 100,
        }
    }
}

fn house_on(mount: &Mount, sink: &Sink) -> House {
    let house = House::with_queue(sink, &mount.path().join("queue"));
    drop(house.queue());
    house
}

/// Runs `sendmail` under limits that a shell sets.
fn send_under(house: &House, limits: &str, mode: &str, letter: &Letter) -> Ended {
    let mut command = house.command("/bin/sh");
    command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\""), &sendmail()]).args(letter.words(mode));
    house.finish(command.stdin(house.input(letter)))
}

#[test]
fn a_full_disk_refuses_with_75_and_keeps_nothing() {
    let sink = Sink::open();
    for inodes_only in [false, true] {
        let Some(mount) = Mount::memory(SMALL, if inodes_only { 8 } else { 1000 }) else { return };
        let house = house_on(&mount, &sink);
        if inodes_only {
            // The file systems's root, the queue and its four directories are six.
            std::fs::write(mount.path().join("a"), "").unwrap();
            std::fs::write(mount.path().join("b"), "").unwrap();
        } else {
            mount.fill();
        }
        for lines in [1, 200, 9000] {
            let letter = Letter::new("full", &["bob"], lines);
            let ended = house.send("-odq", &letter);
            assert_eq!(ended.code(), Some(75), "{lines} lines: {ended:?}");
            assert!(ended.said.contains("space"), "{ended:?}");
            assert_eq!((house.names("letters"), house.names("tmp")), (vec![], vec![]));
        }
    }
    assert_eq!(sink.connections(), 0);
}

#[test]
fn what_the_relay_takes_needs_no_disk_and_what_it_puts_off_is_the_caller_s_again() {
    let sink = Sink::open();
    let Some(mount) = Mount::memory(SMALL, 1000) else { return };
    let house = house_on(&mount, &sink);
    mount.fill();
    let taken = Letter::new("taken", &["bob"], 200);
    assert_eq!(house.send("-odi", &taken).code(), Some(0));
    assert_eq!(taken.copies(&sink.taken(), &taken.to[0]), 1);
    let ended = house.send("-odi", &Letter::new("put-off", &["later"], 200));
    assert_eq!(ended.code(), Some(75), "{ended:?}");
    mount.empty();
    assert_eq!(house.names("letters"), [""; 0]);
}

#[test]
fn a_run_on_a_full_disk_loses_and_doubles_nothing() {
    let sink = Sink::open();
    let Some(mount) = Mount::memory(SMALL, 1000) else { return };
    let house = house_on(&mount, &sink);
    let mut several = Letter::new("several", &["bob", "later", "never"], 40);
    fill_last_page(&mut several, &sink);
    let refused = Letter::new("refused", &["never"], 40);
    let single = Letter::new("single", &["carol"], 40);
    for letter in [&several, &refused, &single] {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    mount.fill();
    for _ in 0..3 {
        assert!(house.call(&["-qf"]).is_proper());
    }
    let taken = sink.taken();
    // Removing a letter makes room, so that one may go; what an outcome has to be written down of may not.
    assert_eq!(single.copies(&taken, &single.to[0]), 1);
    assert!(several.copies(&taken, &several.to[0]) <= 1, "it was sent again and again");
    mount.empty();
    sink.relent();
    house.run_dry();
    let taken = sink.taken();
    for (letter, to, copies) in
        [(&several, 0, 1), (&several, 1, 1), (&several, 2, 0), (&refused, 0, 0), (&single, 0, 1)]
    {
        assert_eq!(letter.copies(&taken, &letter.to[to]), copies, "{} to {}", letter.token, letter.to[to]);
    }
    assert_eq!((several.reports(&taken), refused.reports(&taken), single.reports(&taken)), (1, 1, 0));
    assert_eq!((house.names("letters"), house.names("tmp"), house.names("corrupt")), (vec![], vec![], vec![]));
}

#[test]
fn a_read_only_queue_takes_nothing_and_sends_nothing() {
    let sink = Sink::open();
    let Some(mount) = Mount::memory(SMALL, 1000) else { return };
    let house = house_on(&mount, &sink);
    let waiting = Letter::new("waiting", &["bob"], 40);
    assert_eq!(house.send("-odq", &waiting).code(), Some(0));
    mount.remount("ro");
    for mode in ["-odq", "-odi"] {
        let ended = house.send(mode, &Letter::new("new", &["later"], 40));
        assert!(matches!(ended.code(), Some(73 | 75)), "{mode}: {ended:?}");
    }
    for words in ["-q", "-qf"] {
        let ended = house.call(&[words]);
        assert_eq!(ended.code(), Some(73), "{words}: {ended:?}");
        let why = "a letter could not be tried, or the outcome not be recorded: cannot take up ";
        assert!(ended.said.contains(why), "{ended:?}");
        assert!(ended.said.ends_with(": Read-only file system; it stays in the queue\n"), "{ended:?}");
    }
    let tool = house.finish(house.command(env!("CARGO_BIN_EXE_pillarbox")).args(["queue", "run", "--all"]));
    assert_eq!(tool.code(), Some(73), "{tool:?}");
    assert!(tool.said.contains("could not be tried"), "{tool:?}");
    assert_eq!(waiting.copies(&sink.taken(), &waiting.to[0]), 0, "it could not have been removed");
    assert_eq!(house.call(&["-bp"]).code(), Some(0));
    mount.remount("rw");
    house.run_dry();
    assert_eq!(waiting.copies(&sink.taken(), &waiting.to[0]), 1);
    assert_eq!(sink.taken().len(), 1);
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_not_a_death() {
    let sink = Sink::open();
    for limit in ["ulimit -f 0", "ulimit -f 1"] {
        let house = House::new(&sink);
        for lines in [200, 9000] {
            let letter = Letter::new("limited", &["bob"], lines);
            let ended = send_under(&house, limit, "-odq", &letter);
            assert_eq!(ended.code(), Some(75), "{limit}: {ended:?}");
            assert_eq!((house.names("letters"), house.names("tmp")), (vec![], vec![]));
        }
    }
    let house = House::new(&sink);
    let letter = Letter::new("relayed", &["bob"], 200);
    let ended = send_under(&house, "ulimit -f 0", "-odi", &letter);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
}

#[test]
fn a_run_that_can_record_nothing_says_so_and_is_no_success() {
    let sink = Sink::open();
    let house = House::new(&sink);
    // For two recipients, since a letter for one goes all the same: its success is recorded by removing it.
    let letters = ["first", "second"].map(|token| Letter::new(token, &["bob", "carol"], 40));
    for letter in &letters {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    let mut command = house.command("/bin/sh");
    let ended = house.finish(command.args(["-c", "ulimit -f 0; exec \"$0\" -qf", &sendmail()]));
    assert_eq!(ended.code(), Some(75), "{ended:?}");
    assert_eq!((house.names("letters").len(), sink.taken().len()), (2, 0));
    house.run_dry();
    for letter in &letters {
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
    }
}

#[test]
fn with_few_descriptors_it_is_either_taken_whole_or_refused() {
    for mode in ["-odq", "-odi"] {
        let mut taken_at = None;
        // With three or fewer the loader cannot load.
        for limit in 4..=20 {
            let sink = Sink::open();
            let house = House::new(&sink);
            drop(house.queue());
            let letter = Letter::new("few", &["bob"], 200);
            let ended = send_under(&house, &format!("ulimit -n {limit}"), mode, &letter);
            assert!(ended.is_proper(), "{limit}: {ended:?}");
            let told = ended.code() == Some(0);
            taken_at = taken_at.or(told.then_some(limit));
            house.run_dry();
            assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), usize::from(told), "{limit}: {ended:?}");
            assert_eq!(letter.damaged(&sink.taken()), 0);
            assert_eq!(house.names("tmp"), [""; 0], "{limit}: {ended:?}");
        }
        assert!(taken_at.is_some());
    }
}
