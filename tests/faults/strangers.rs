//! What lies in the queue and is no letter: never sent, set aside with a reason, and in nobody's way.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;

use crate::house::{House, sendmail};
use crate::letter::Letter;
use crate::sink::Sink;

/// Does something to the letter at a path; another letter's path and the home are there to be used.
type Deed = fn(letter: &Path, other: &Path, house: &House);

fn flip(path: &Path, at: impl Fn(u64) -> u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = at(file.metadata().unwrap().len());
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[octet[0] ^ 0x10], at).unwrap();
}

fn cut(path: &Path, to: impl Fn(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(to(file.metadata().unwrap().len())).unwrap();
}

fn replace(path: &Path, with: impl Fn(&Path)) {
    fs::remove_file(path).unwrap();
    with(path);
}

const DEEDS: &[(&str, Deed)] = &[
    ("emptied", |letter, _, _| cut(letter, |_| 0)),
    ("cut in the head", |letter, _, _| cut(letter, |_| 40)),
    ("cut in the middle", |letter, _, _| cut(letter, |len| len / 2)),
    ("cut by one octet", |letter, _, _| cut(letter, |len| len - 1)),
    ("grown by a terabyte", |letter, _, _| {
        OpenOptions::new().write(true).open(letter).unwrap().set_len(1 << 40).unwrap();
    }),
    ("full of zeros", |letter, _, _| fs::write(letter, vec![0; 5000]).unwrap()),
    ("a bit flipped in the head", |letter, _, _| flip(letter, |_| 60)),
    ("a bit flipped in the content", |letter, _, _| flip(letter, |len| len / 2)),
    ("a bit flipped in the seal", |letter, _, _| flip(letter, |len| len - 10)),
    ("another letter's octets", |letter, other, _| {
        fs::copy(other, letter).unwrap();
    }),
    ("a hard link", |letter, _, house| fs::hard_link(letter, house.path("second name")).unwrap()),
    ("a symbolic link to a letter", |letter, _, house| {
        let elsewhere = house.path("elsewhere");
        fs::rename(letter, &elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, letter).unwrap();
    }),
    ("a dangling link", |letter, _, _| replace(letter, |path| std::os::unix::fs::symlink("/nowhere", path).unwrap())),
    ("a FIFO", |letter, _, _| replace(letter, |path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap())),
    ("a socket", |letter, _, _| {
        replace(letter, |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    }),
    ("a directory", |letter, _, _| replace(letter, |path| fs::create_dir(path).unwrap())),
];

/// Hands in three letters and gives the path of each.
fn three(house: &House) -> ([Letter; 3], Vec<std::path::PathBuf>) {
    let letters = ["before", "middle", "after"].map(|token| Letter::new(token, &["bob"], 60));
    for letter in &letters {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    let paths = house.names("letters").into_iter().map(|name| house.queue_dir().join("letters").join(name));
    (letters, paths.collect())
}

fn is_set_aside_and_the_others_go(what: &str, deed: Deed) {
    let sink = Sink::open();
    let house = House::new(&sink);
    let ([before, middle, after], paths) = three(&house);
    deed(&paths[1], &paths[2], &house);
    let listing = house.call(&["-bp"]);
    assert!(!listing.hung && listing.status.code().is_some(), "{what}: {listing:?}");
    let ended = house.call(&["-qf"]);
    assert_eq!(ended.code(), Some(0), "{what}: {ended:?}");

    let taken = sink.taken();
    for letter in [&before, &after] {
        assert_eq!(letter.copies(&taken, &letter.to[0]), 1, "{what}: {}", letter.token);
    }
    assert_eq!(taken.len(), 2, "{what}: something else was sent");
    assert!(!taken.iter().any(|one| middle.is(one)), "{what}");
    assert_eq!(house.names("letters"), [""; 0], "{what}");
    let name = paths[1].file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(house.names("corrupt"), [name.clone(), format!("{name}.why")], "{what}");
    let why = fs::read_to_string(house.queue_dir().join("corrupt").join(format!("{name}.why"))).unwrap();
    assert!(why.trim().len() > 10, "{what}: {why:?}");
    assert!(house.log().contains("corrupt"), "{what}: {}", house.log());
}

#[test]
fn whatever_is_no_letter_is_set_aside_with_a_reason_and_blocks_no_other() {
    for (what, deed) in DEEDS {
        is_set_aside_and_the_others_go(what, *deed);
    }
    if nix::unistd::geteuid().is_root() {
        let deed: Deed = |letter, _, _| std::os::unix::fs::chown(letter, Some(65534), Some(65534)).unwrap();
        is_set_aside_and_the_others_go("a stranger's", deed);
    }
}

#[test]
fn letters_that_swapped_their_names_are_both_set_aside() {
    let sink = Sink::open();
    let house = House::new(&sink);
    let ([_, _, after], paths) = three(&house);
    let aside = house.path("aside");
    fs::rename(&paths[0], &aside).unwrap();
    fs::rename(&paths[1], &paths[0]).unwrap();
    fs::rename(&aside, &paths[1]).unwrap();
    assert_eq!(house.call(&["-qf"]).code(), Some(0));
    let taken = sink.taken();
    assert_eq!((taken.len(), after.copies(&taken, &after.to[0])), (1, 1));
    assert_eq!(house.names("corrupt").len(), 4);
}

#[test]
fn the_janitor_takes_what_was_never_finished_and_sets_strange_names_aside() {
    let sink = Sink::open();
    let house = House::new(&sink);
    let (letters, _) = three(&house);
    let tmp = house.queue_dir().join("tmp");
    for (name, age) in [("0123456789AB", 48), ("0123456789AC", 1)] {
        fs::write(tmp.join(name), "half a letter").unwrap();
        let at = SystemTime::now() - Duration::from_hours(age);
        OpenOptions::new().write(true).open(tmp.join(name)).unwrap().set_modified(at).unwrap();
    }
    fs::write(house.queue_dir().join("letters/README"), "not a letter").unwrap();
    nix::unistd::mkfifo(&house.queue_dir().join("letters/a.why"), Mode::S_IRWXU).unwrap();
    house.run_dry();
    assert_eq!(house.names("tmp"), ["0123456789AC"]);
    assert_eq!(house.names("corrupt"), ["README", "README.why", "a.why", "a.why.why"]);
    let list = house.finish(house.command(env!("CARGO_BIN_EXE_pillarbox")).args(["queue", "list"]));
    assert!(list.is_proper(), "{list:?}");
    let aside = house.queue().corrupt().unwrap();
    assert_eq!(aside[0], ("README".to_owned(), "its name is no queue id".to_owned()));
    for letter in &letters {
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
    }
}

#[test]
fn everything_is_private_whatever_the_umask() {
    for umask in ["0", "0777"] {
        let sink = Sink::open();
        let house = House::new(&sink);
        let letter = Letter::new("private", &["bob", "never"], 7000);
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let call = |words: &[String], stdin| {
            let mut command = house.command("/bin/sh");
            command.args(["-c", &script, &sendmail()]).args(words);
            if let Some(stdin) = stdin {
                command.stdin(stdin);
            }
            let ended = house.finish(&mut command);
            assert_eq!(ended.code(), Some(0), "umask {umask}: {ended:?}");
        };
        let look = || {
            let mut seen = 0;
            check_modes(house.queue_dir(), &mut seen);
            assert!(seen > 5, "umask {umask}");
        };
        call(&letter.words("-odq"), Some(house.input(&letter)));
        look();
        call(&["-qf".to_owned()], None);
        look();
        assert_eq!(house.names("failed").len(), 1);
        assert_eq!(letter.copies(&sink.taken(), &letter.to[0]), 1);
        let log = fs::metadata(house.path("log")).unwrap();
        assert_eq!(log.mode() & 0o777, 0o600, "umask {umask}: the log");
    }
}

fn check_modes(dir: &Path, seen: &mut usize) {
    let found = fs::symlink_metadata(dir).unwrap();
    *seen += 1;
    let wanted = if found.is_dir() { 0o700 } else { 0o600 };
    assert!(found.is_dir() || found.is_file() || found.file_type().is_fifo());
    assert_eq!(found.mode() & 0o7777, wanted, "{}", dir.display());
    if found.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            check_modes(&entry.unwrap().path(), seen);
        }
    }
}

#[test]
fn a_queue_that_others_can_write_to_or_that_is_a_link_takes_nothing() {
    let unsafe_ones: [fn(&House); 3] = [
        |house| fs::set_permissions(house.queue_dir(), Permissions::from_mode(0o777)).unwrap(),
        |house| {
            fs::rename(house.queue_dir(), house.path("elsewhere")).unwrap();
            std::os::unix::fs::symlink(house.path("elsewhere"), house.queue_dir()).unwrap();
        },
        |house| {
            fs::remove_dir_all(house.queue_dir()).unwrap();
            fs::write(house.queue_dir(), "").unwrap();
        },
    ];
    for make_unsafe in unsafe_ones {
        let sink = Sink::open();
        let house = House::new(&sink);
        drop(house.queue());
        make_unsafe(&house);
        let ended = house.send("-odq", &Letter::new("x", &["bob"], 1));
        assert_eq!(ended.code(), Some(73), "{ended:?}");
        assert!(ended.said.contains("queue"), "{ended:?}");
        let ended = house.call(&["-qf"]);
        assert_eq!(ended.code(), Some(73), "{ended:?}");
        assert_eq!(sink.connections(), 0);
    }
}

#[test]
fn an_id_is_never_given_twice() {
    let sink = Sink::open();
    let house = House::new(&sink);
    let mut ids = BTreeSet::new();
    for round in 0..4 {
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let house = &house;
                scope.spawn(move || {
                    for count in 0..5 {
                        let letter = Letter::new(format!("id-{round}-{sender}-{count}-"), &["bob"], 1);
                        assert_eq!(house.send("-odq", &letter).code(), Some(0));
                    }
                });
            }
        });
        for name in house.names("letters") {
            assert!(
                name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)),
                "{name}"
            );
            assert!(ids.insert(name.clone()), "{name} was given before");
        }
        house.run_dry();
    }
    assert_eq!(ids.len(), 80);
    assert_eq!(sink.taken().len(), 80);
}
