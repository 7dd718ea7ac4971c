//! The promises of the queue on a real disk: what is accepted comes back, and nothing else is ever sent.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::envelope::{Mailbox, Recipient, ReversePath};
use crate::outcome::{Blame, Cause, Fault, Reply, Stage, Status};

pub(super) const OCTETS: &[u8] = b"Subject: x\r\n\r\nHello\r\n";

pub(super) fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + secs)
}

pub(super) fn envelope(from: Option<&str>, to: &[&str]) -> Envelope {
    let mailbox = |local: &str| Mailbox::new(local, "example.org").unwrap();
    let to = to.iter().map(|local| Recipient::new(mailbox(local))).collect();
    Envelope::new(ReversePath(from.map(mailbox)), to).unwrap()
}

pub(super) fn submission<'a>(envelope: &'a Envelope, content: &'a dyn Content) -> Submission<'a> {
    let facts = Facts::default();
    Submission { envelope, content, facts, header_len: 12, uid: 1000, account: Some("work"), tried: None }
}

pub(super) fn accept(queue: &Queue, to: &[&str], secs: u64) -> Id {
    let envelope = envelope(Some("alice"), to);
    queue.accept(&submission(&envelope, &OCTETS.to_vec()), at(secs)).unwrap().id()
}

/// One relay's outcomes.
pub(super) fn tried<'a>(outcomes: &'a [Outcome], relay: &'a str) -> Vec<Tried<'a>> {
    outcomes.iter().map(|outcome| Tried { outcome, relay }).collect()
}

pub(super) fn relayed() -> Outcome {
    Outcome::Relayed(Reply { code: 250, lines: vec!["2.0.0 ok".to_owned()] })
}

pub(super) fn refused() -> Outcome {
    let fault =
        Fault::new(Stage::Rcpt, Cause::Reply(Reply { code: 550, lines: vec!["5.1.1 no such user".to_owned()] }));
    Outcome::Failed { fault, blame: Blame::Recipient, status: Status::new(5, 1, 1) }
}

pub(super) fn deferred() -> Outcome {
    let fault = Fault::new(Stage::Connect, Cause::Network("connection refused".to_owned()));
    Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 4, 1), maybe_duplicate: false }
}

pub(super) fn octets(content: &dyn Content) -> Vec<u8> {
    let mut octets = Vec::new();
    content.reader().unwrap().read_to_end(&mut octets).unwrap();
    octets
}

fn queue() -> (tempfile::TempDir, Queue) {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::open(&dir.path().join("state/queue")).unwrap();
    (dir, queue)
}

fn names(queue: &Queue, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(queue.dir().join(dir)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn list(queue: &Queue) -> Vec<Listed> {
    queue.list().unwrap().map(Result::unwrap).collect()
}

/// What a claim says, for those who do not want the letter.
fn unclaimed(queue: &Queue, id: Id) -> Unclaimed {
    queue.claim(id).err().expect("it was claimed")
}

#[test]
fn a_letter_that_is_accepted_claimed_is_nobody_else_s_and_reads_as_it_lies_on_the_disk() {
    let (_dir, queue) = queue();
    let envelope = envelope(Some("alice"), &["bob", "carol"]);
    let outcomes = [relayed(), deferred()];
    let tried = tried(&outcomes, "relay:25");
    let content = OCTETS.to_vec();
    let letter = Submission { tried: Some(&tried), ..submission(&envelope, &content) };
    let mut claim = queue.accept_claimed(&letter, at(0)).unwrap();
    let id = claim.letter().entry.id;
    assert!(matches!(unclaimed(&queue, id), Unclaimed::Busy));
    assert_eq!(*claim.letter(), queue.look(id).unwrap().letter);
    assert_eq!(octets(claim.content().as_ref()), OCTETS);
    claim.settle(&[Tried { outcome: &deferred(), relay: "relay:25" }], at(1)).unwrap();
    assert_eq!(*claim.letter(), queue.look(id).unwrap().letter);
    assert_eq!(claim.close().unwrap(), Closed::Waiting);
    assert!(queue.claim(id).is_ok());
}

#[test]
fn an_accepted_letter_comes_back_as_it_was() {
    let (_dir, queue) = queue();
    for len in [0, 1, 65_000, 65_536, 65_537, 300_000] {
        let content: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let envelope = envelope(Some("alice"), &["bob", "carol"]);
        let letter = Submission { header_len: 0, ..submission(&envelope, &content) };
        let id = queue.accept(&letter, at(0)).unwrap().id();
        let claim = queue.claim(id).unwrap();
        let entry = &claim.letter().entry;
        assert_eq!((&entry.envelope, entry.uid, entry.account.as_deref()), (&envelope, 1000, Some("work")));
        assert_eq!((entry.created, entry.size), (at(0), len));
        assert!(octets(&*claim.content()) == content, "{len}");
    }
    assert!(names(&queue, TMP).is_empty());
}

#[test]
fn letters_of_one_moment_have_different_ids_in_their_order() {
    let (_dir, queue) = queue();
    let ids: Vec<Id> = (0..20).map(|_| accept(&queue, &["bob"], 0)).collect();
    assert!(ids.is_sorted() && queue.ids().unwrap() == ids);
    assert_eq!(list(&queue).len(), 20);
}

#[test]
fn an_id_in_failed_is_not_given_to_another() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob"], 0);
    queue.transfer(id, LETTERS, FAILED).unwrap();
    assert_ne!(accept(&queue, &["bob"], 0), id);
    assert_eq!(queue.failed().unwrap().count(), 1);
}

/// The umask belongs to the whole process, and tests share one: so this runs in a process of its own.
#[test]
fn files_are_0600_and_directories_0700_under_any_umask() {
    let dir = tempfile::tempdir().unwrap();
    for mask in ["000", "777"] {
        let root = dir.path().join(mask);
        let script = format!("umask {mask}; exec \"$0\" --exact --ignored queue::tests::a_queue_of_every_kind_of_file");
        let mut child = std::process::Command::new("sh");
        child.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).env("QUEUE", &root);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let queue = Queue::find(&root).unwrap().unwrap();
        let mut seen = 0;
        let mut dirs = vec![queue.dir().to_owned()];
        while let Some(dir) = dirs.pop() {
            assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700, "{}", dir.display());
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    seen += 1;
                    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "{}", path.display());
                }
            }
        }
        assert_eq!(seen, 5, "two letters, a reason, a lock, a trigger");
    }
}

#[test]
#[ignore = "run by the test above"]
fn a_queue_of_every_kind_of_file() {
    let queue = Queue::open(Path::new(&std::env::var_os("QUEUE").unwrap())).unwrap();
    let id = accept(&queue, &["bob"], 0);
    accept(&queue, &["bob"], 1);
    queue.set_aside(&id.to_string(), "a test").unwrap();
    assert!(queue.run_alone().unwrap().is_some());
}

#[test]
fn an_unsafe_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    drop(Queue::open(&real).unwrap());
    let refused = |path: &Path| matches!(Queue::open(path), Err(Error::Unsafe { .. }));
    std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
    assert!(refused(&dir.path().join("link")));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(refused(&dir.path().join("file")));
    fs::set_permissions(&real, Permissions::from_mode(0o770)).unwrap();
    assert!(refused(&real));
    fs::set_permissions(&real, Permissions::from_mode(0o755)).unwrap();
    assert!(!refused(&real), "others may see that there is a queue, not what is in it");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&real, Some(12345), None).unwrap();
        assert!(refused(&real));
    }
}

#[test]
fn to_look_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Queue::find(&dir.path().join("none")).unwrap().is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Puts something in a letter's place.
type Plant<'a> = Box<dyn Fn(&Path) + 'a>;

#[test]
fn what_is_no_letter_is_set_aside_and_stands_in_nobody_s_way() {
    let (dir, queue) = queue();
    let good = accept(&queue, &["bob"], 100);
    let outside = dir.path().join("outside");
    fs::write(&outside, OCTETS).unwrap();
    let root = nix::unistd::geteuid().is_root();
    let mut plants: Vec<(&str, Plant)> = vec![
        ("a FIFO", Box::new(|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap())),
        ("a directory", Box::new(|path| fs::create_dir(path).unwrap())),
        ("a socket", Box::new(|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()))),
        ("a dangling link", Box::new(|path| std::os::unix::fs::symlink("nowhere", path).unwrap())),
        ("a link out", Box::new(|path| std::os::unix::fs::symlink(&outside, path).unwrap())),
        ("a hard link", Box::new(|path| fs::hard_link(&outside, path).unwrap())),
        ("a message", Box::new(|path| fs::write(path, OCTETS).unwrap())),
        ("an empty file", Box::new(|path| drop(File::create(path).unwrap()))),
        ("another letter", Box::new(|path| fs::write(path, fs::read(queue.path(LETTERS, good)).unwrap()).unwrap())),
    ];
    if root {
        plants.push((
            "a stranger's file",
            Box::new(|path| {
                fs::copy(queue.path(LETTERS, good), path).unwrap();
                std::os::unix::fs::chown(path, Some(12345), None).unwrap();
            }),
        ));
    }
    for (i, (what, plant)) in plants.iter().enumerate() {
        let id = Id::at(at(i as u64));
        plant(&queue.path(LETTERS, id));
        let looked = queue.list().unwrap().filter_map(Result::ok).count();
        assert_eq!(looked, 1, "{what} is listed as a letter");
        assert!(matches!(unclaimed(&queue, id), Unclaimed::SetAside(_)), "{what}");
        assert!(matches!(unclaimed(&queue, id), Unclaimed::Gone), "{what}");
    }
    assert_eq!(queue.corrupt().unwrap().len(), plants.len());
    assert_eq!(fs::read(&outside).unwrap(), OCTETS);
    assert!(queue.claim(good).is_ok());
}

#[test]
fn a_letter_cut_or_changed_anywhere_is_never_sent() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob"], 0);
    let path = queue.path(LETTERS, id);
    let whole = fs::read(&path).unwrap();
    for i in 0..whole.len() {
        let mut changed = whole.clone();
        changed[i] ^= 0x20;
        for (octets, what) in [(&whole[..i], "cut at"), (&changed[..], "changed at")] {
            fs::write(&path, octets).unwrap();
            assert!(matches!(unclaimed(&queue, id), Unclaimed::SetAside(_)), "{what} {i}");
            assert!(!path.exists());
        }
    }
    fs::write(&path, &whole).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(queue.claim(id).is_ok());
}

#[test]
fn a_letter_is_claimed_by_one_at_a_time() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob"], 0);
    let claim = queue.claim(id).unwrap();
    assert!(matches!(unclaimed(&queue, id), Unclaimed::Busy));
    assert!(matches!(queue.remove(id), Err(Error::Busy(_))));
    let content = claim.content();
    drop(claim);
    assert!(matches!(unclaimed(&queue, id), Unclaimed::Busy), "whoever still reads it holds it");
    drop(content);
    queue.remove(id).unwrap();
    assert!(matches!(unclaimed(&queue, id), Unclaimed::Gone));
    assert!(matches!(queue.remove(id), Err(Error::NoSuchLetter(_))));
}

#[test]
fn one_refused_recipient_does_not_cost_the_others() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob", "carol", "dave"], 0);
    let mut claim = queue.claim(id).unwrap();
    claim.begin(at(1)).unwrap();
    claim.settle(&tried(&[relayed(), refused(), deferred()], "relay:25"), at(2)).unwrap();
    assert_eq!(claim.close().unwrap(), Closed::Waiting);

    let mut claim = queue.claim(id).unwrap();
    assert_eq!(claim.letter().history.unreported(), [1]);
    let left = claim.letter().remaining().unwrap();
    assert_eq!(left.recipients().iter().map(|to| to.mailbox.local()).collect::<Vec<_>>(), ["dave"]);
    let report = envelope(None, &["alice"]);
    let dsn = claim.report(Some(&submission(&report, &OCTETS.to_vec())), at(3)).unwrap().unwrap();
    assert_eq!(claim.report(Some(&submission(&report, &OCTETS.to_vec())), at(3)).unwrap(), None, "told once");
    claim.begin(at(70)).unwrap();
    claim.settle(&tried(&[relayed()], "relay:25"), at(71)).unwrap();
    assert_eq!(claim.close().unwrap(), Closed::Failed);

    assert_eq!(queue.ids().unwrap(), [dsn]);
    let kept: Vec<Listed> = queue.failed().unwrap().map(Result::unwrap).collect();
    assert_eq!((kept.len(), kept[0].state, kept[0].letter.history.failed()), (1, State::Failed, vec![1]));
    let verdict = kept[0].letter.history.verdict(1).unwrap();
    assert_eq!((&verdict.outcome, verdict.relay.as_str(), verdict.attempt), (&refused(), "relay:25", 1));
}

#[test]
fn a_failed_letter_comes_back_for_those_who_do_not_have_it() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob", "carol"], 0);
    let mut claim = queue.claim(id).unwrap();
    claim.settle(&tried(&[relayed(), refused()], "relay:25"), at(1)).unwrap();
    claim.report(None, at(1)).unwrap();
    assert_eq!(claim.close().unwrap(), Closed::Failed);
    queue.retry(id, at(500)).unwrap();
    let mut claim = queue.claim(id).unwrap();
    assert!(claim.letter().is_due(at(500)));
    assert_eq!(claim.letter().history.waiting(), [1]);
    claim.settle(&tried(&[relayed()], "relay:25"), at(501)).unwrap();
    assert_eq!(claim.close().unwrap(), Closed::Relayed);
    assert!(queue.ids().unwrap().is_empty() && queue.failed().unwrap().next().is_none());
}

#[test]
fn an_attempt_made_before_the_letter_came_is_part_of_its_history() {
    let (_dir, queue) = queue();
    let envelope = envelope(Some("alice"), &["bob", "carol", "dave"]);
    let outcomes = [relayed(), refused(), deferred()];
    let tried = Some(&tried(&outcomes, "relay:25")[..]);
    let octets = OCTETS.to_vec();
    let id = queue.accept(&Submission { tried, ..submission(&envelope, &octets) }, at(0)).unwrap().id();
    let history = &queue.look(id).unwrap().letter.history;
    assert_eq!((history.waiting(), history.unreported(), history.attempts()), (vec![2], vec![1], 1));
}

#[test]
fn a_letter_that_outlives_its_lifetime_fails_with_the_server_s_last_words() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob", "carol"], 0);
    let mut claim = queue.claim(id).unwrap();
    claim.settle(&tried(&[deferred(), relayed()], "relay:25"), at(1)).unwrap();
    claim.expire(at(2)).unwrap();
    let verdict = claim.letter().history.verdict(0).unwrap();
    assert_eq!((verdict.outcome.status(), verdict.relay.as_str()), (claim::EXPIRED, "relay:25"));
    assert_eq!(claim.letter().history.unreported(), [0]);
}

#[test]
fn a_list_tells_what_is_being_done_about_each_letter() {
    let (_dir, queue) = queue();
    let ids: Vec<Id> = (0..4).map(|i| accept(&queue, &["bob"], i)).collect();
    let mut active = queue.claim(ids[1]).unwrap();
    active.begin(at(10)).unwrap();
    let mut late = queue.claim(ids[2]).unwrap();
    late.begin(at(10)).unwrap();
    late.settle(&tried(&[deferred()], "relay:25"), at(11)).unwrap();
    assert_eq!(late.close().unwrap(), Closed::Waiting);
    queue.hold(ids[3], "by hand", at(10)).unwrap();
    let listed = list(&queue);
    let states: Vec<State> = listed.iter().map(|listed| listed.state).collect();
    assert_eq!(states, [State::Incoming, State::Active, State::Deferred, State::Hold]);
    assert_eq!(listed[2].letter.history.verdict(0).unwrap().outcome, deferred());
    let next = listed[2].letter.next_attempt(at(12));
    assert!(next > at(60) && next <= at(71), "{next:?}");
    drop(active);
    assert_eq!(list(&queue)[1].state, State::Deferred, "its runner died");
}

#[test]
fn a_held_letter_is_claimed_by_nobody_until_it_is_released() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob"], 0);
    queue.hold(id, "by hand", at(1)).unwrap();
    assert!(matches!(unclaimed(&queue, id), Unclaimed::Held(why) if why == "by hand"));
    assert!(!queue.look(id).unwrap().letter.is_due(at(9999)));
    queue.release(id, at(2)).unwrap();
    assert!(queue.claim(id).is_ok());
}

#[test]
fn a_letter_that_kills_its_runners_is_held_and_not_tried_for_ever() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob"], 0);
    for i in 0..3 {
        queue.claim(id).unwrap().begin(at(i)).unwrap();
    }
    assert!(matches!(unclaimed(&queue, id), Unclaimed::Held(_)));
    assert_eq!(list(&queue)[0].state, State::Hold);
    queue.release(id, at(9)).unwrap();
    assert!(queue.claim(id).is_ok());
}

/// A letter that was refused.
fn failed(queue: &Queue) -> Id {
    let id = accept(queue, &["bob"], 0);
    let mut claim = queue.claim(id).unwrap();
    claim.settle(&tried(&[refused()], "relay:25"), at(1)).unwrap();
    claim.report(None, at(1)).unwrap();
    assert_eq!(claim.close().unwrap(), Closed::Failed);
    id
}

#[test]
fn the_janitor_takes_what_is_old_and_nobody_s() {
    let (_dir, queue) = queue();
    let id = failed(&queue);
    let waiting = accept(&queue, &["bob"], 2);
    let (old, young, held) = (queue.dir().join("tmp/old"), queue.dir().join("tmp/young"), queue.dir().join("tmp/held"));
    let touch = |path: &Path, at| {
        let file = File::create(path).unwrap();
        file.set_modified(at).unwrap();
        file
    };
    let hours = |hours: u64| at(hours * 3600);
    touch(&old, hours(0));
    touch(&young, hours(1));
    let writer = touch(&held, hours(0));
    writer.lock().unwrap();
    File::open(queue.path(FAILED, id)).unwrap().set_modified(hours(0)).unwrap();
    fs::write(queue.dir().join("letters/notes.txt"), "").unwrap();
    File::open(queue.dir().join(CORRUPT)).unwrap().set_modified(hours(12)).unwrap();

    let sweep = |at| queue.sweep(hours(at), Duration::from_hours(120)).unwrap();
    assert_eq!(sweep(36), Swept { unfinished: 1, failed: 0, strangers: 1 });
    assert_eq!(names(&queue, TMP), ["held", "young"]);
    assert_eq!(sweep(60), Swept { unfinished: 1, failed: 0, strangers: 0 });
    assert_eq!((sweep(84), sweep(108)), (Swept::default(), Swept::default()));
    assert_eq!(sweep(120), Swept { unfinished: 0, failed: 1, strangers: 0 });
    assert_eq!(queue.ids().unwrap(), [waiting]);
}

#[test]
fn a_clock_that_jumps_takes_no_failed_letter_away_and_keeps_none_for_ever() {
    let (_dir, queue) = queue();
    let id = failed(&queue);
    let days = |days: u64| at(days * 86400);
    for place in [queue.path(FAILED, id), queue.dir().join(CORRUPT)] {
        File::open(place).unwrap().set_modified(days(0)).unwrap();
    }
    let taken = |day| queue.sweep(days(day), Duration::from_hours(120)).unwrap().failed;
    // Forward by decades, back, and forward again: each counts for a day at most.
    for day in [10_000, 1, 20_000] {
        assert_eq!(taken(day), 0, "{day}");
    }
    assert_eq!([20_001, 20_002, 20_003, 20_004].map(taken), [0, 0, 0, 1]);
}

#[test]
fn records_stand_behind_one_that_was_cut_short() {
    let (_dir, queue) = queue();
    let id = accept(&queue, &["bob"], 0);
    let mut file = fs::OpenOptions::new().append(true).open(queue.path(LETTERS, id)).unwrap();
    file.write_all(b"\n0123456789abcdef outcome 17900000").unwrap();
    queue.hold(id, "by hand", at(1)).unwrap();
    assert_eq!(queue.look(id).unwrap().letter.history.hold(), Some("by hand"));
}

/// Run by hand with `--release -- --ignored --nocapture`: prints figures, asserts none.
#[test]
#[ignore = "prints figures"]
fn figures() {
    let (_dir, queue) = queue();
    let envelope = envelope(Some("alice"), &["bob"]);
    let content = vec![b'x'; 2048];
    let clock = std::time::Instant::now();
    for i in 0..10_000 {
        let _ = queue.accept(&submission(&envelope, &content), at(i)).unwrap();
    }
    println!("accept: {:?} a letter", clock.elapsed() / 10_000);
    let clock = std::time::Instant::now();
    let listed = list(&queue).len();
    println!("list of {listed}: {:?}", clock.elapsed());
    let clock = std::time::Instant::now();
    let ids = queue.ids().unwrap().len();
    println!("ids of {ids}: {:?}", clock.elapsed());
    let clock = std::time::Instant::now();
    for id in queue.ids().unwrap() {
        let mut claim = queue.claim(id).unwrap();
        claim.begin(at(1)).unwrap();
        claim.settle(&tried(&[relayed()], "relay:25"), at(2)).unwrap();
        assert_eq!(claim.close().unwrap(), Closed::Relayed);
    }
    queue.sync().unwrap();
    println!("claim, begin, settle, close: {:?} a letter", clock.elapsed() / 10_000);
}
