//! A long queue: listed, run, and never in memory as a whole.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Instant, SystemTime};

use pillarbox::envelope::{Envelope, Mailbox, Recipient, ReversePath};
use pillarbox::message::Facts;
use pillarbox::queue::Submission;

use crate::house::{House, sendmail, wait};
use crate::letter::{Letter, SENDER};
use crate::sink::Sink;

/// More memory than a run or a list may have, in KiB. A release build takes half of it.
const MEMORY: usize = 24 * 1024;

/// Puts so many letters into the queue, with the library: the program would take minutes.
fn fill(house: &House, count: usize) -> Vec<Letter> {
    let queue = house.queue();
    let mailbox = |address: &str| {
        let (local, domain) = address.split_once('@').unwrap();
        Mailbox::new(local, domain).unwrap()
    };
    let accept = |number| {
        let letter = Letter::new(format!("long-{number}-"), &["bob"], 25); // 2 kB
        let recipients = letter.to.iter().map(|to| Recipient::new(mailbox(to))).collect();
        let envelope = Envelope::new(ReversePath(Some(mailbox(SENDER))), recipients).unwrap();
        let content = letter.text().replace('\n', "\r\n").into_bytes();
        let header_len = memchr::memmem::find(&content, b"\r\n\r\n").unwrap() as u64 + 2;
        let (facts, uid) = (Facts::default(), nix::unistd::geteuid().as_raw());
        let submission =
            Submission { envelope: &envelope, content: &content, facts, header_len, uid, account: None, tried: None };
        let _ = queue.accept(&submission, SystemTime::now()).unwrap();
        letter
    };
    (0..count).map(accept).collect()
}

/// Runs `sendmail` and gives the most memory that it had, in KiB, and what it printed.
fn measure(house: &House, words: &[&str]) -> (usize, String) {
    let out = house.path("out");
    let mut command = house.command(&sendmail());
    let begun = Instant::now();
    command.args(words).stdout(std::fs::File::create(&out).unwrap()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let now =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        most = most.max(now.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let (status, hung) = wait(&mut child);
    assert!(!hung && status.code() == Some(0), "{words:?}: {status}");
    println!("{words:?}: {:?}, at most {most} KiB", begun.elapsed());
    (most, std::fs::read_to_string(out).unwrap())
}

fn is_listed_and_run(count: usize) {
    let sink = Sink::open();
    // In memory, where there is one: the fsyncs of so many accepts are not what is tried here.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let house = House::with_queue(&sink, &dir.path().join("queue"));
    let letters = fill(&house, count);
    let (listing_memory, listing) = measure(&house, &["-bp"]);
    assert!(listing.trim_end().ends_with(&format!(" in {count} Requests.")), "{:?}", listing.lines().last());
    let (run_memory, said) = measure(&house, &["-q"]);
    assert_eq!(said, "");
    let taken = sink.taken();
    assert_eq!(taken.len(), count);
    let mut copies: HashMap<&[u8], usize> = HashMap::new();
    for one in &taken {
        *copies.entry(&one.content).or_default() += 1;
    }
    for letter in &letters {
        let content = letter.text().replace('\n', "\r\n");
        assert_eq!(copies.get(content.as_bytes()), Some(&1), "{}: whole and once", letter.token);
    }
    assert_eq!(house.names("letters"), [""; 0]);
    println!("{count} letters over {} connections", sink.connections());
    assert!(sink.connections() <= 2);
    assert!(listing_memory < MEMORY && run_memory < MEMORY, "{listing_memory} and {run_memory} KiB");
}

#[test]
fn a_long_queue_is_listed_and_run_over_two_connections_in_little_memory() {
    is_listed_and_run(1000);
}

/// `cargo test --release --test faults -- --ignored --nocapture ten_thousand`
#[test]
#[ignore = "takes half a minute, and prints its figures"]
fn ten_thousand_letters_are_listed_and_run_over_two_connections_in_little_memory() {
    is_listed_and_run(10_000);
}
