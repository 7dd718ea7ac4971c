//! A report whose writer died before it wrote down that it had reported: the sender hears it once all the same.

use std::path::PathBuf;

use crate::house::{House, sendmail, until, wait};
use crate::letter::Letter;
use crate::sink::{Mood, Sink};
use crate::strace::{self, Fault, Scope, What};

/// Runs the queue and kills the run when it would note, in the letter that was refused, that its sender is told: the
/// fourth record behind the attempt, its outcome, and the report to come. Gives the report's path.
fn die_before_it_is_noted(house: &House, letter: &str) -> PathBuf {
    let letters = house.queue_dir().join("letters");
    let before = house.names("letters");
    let fault = Fault { call: "write", number: 4, scope: Scope::Queue, what: What::Kill };
    let ended = strace::run(house, &["-qI".to_owned() + letter], None, fault, &[letters.join(letter)]);
    assert!(ended.was_killed(), "{ended:?}");
    let report = house.names("letters").into_iter().find(|name| !before.contains(name)).expect("there is a report");
    letters.join(report)
}

#[test]
fn a_report_is_not_made_again_when_the_one_there_is_goes_first() {
    if !strace::is_there() {
        return;
    }
    let sink = Sink::open();
    let house = House::new(&sink);
    // It goes two ways, so it stands in the queue for letters that go alone; and it takes its time.
    let mut slow = Letter::new("slow", &["bob"], 9);
    slow.to.push("bob@other.example".to_owned());
    slow.sender = "slow@example.org".to_owned();
    let refused = Letter::new("refused", &["never"], 9);
    for letter in [&slow, &refused] {
        assert_eq!(house.send("-odq", letter).code(), Some(0));
    }
    let names = house.names("letters");
    die_before_it_is_noted(&house, &names[1]);
    sink.set(Mood::SilentAfterMail("slow"));
    let mut run = house.command(&sendmail()).arg("-qf").spawn().unwrap();
    until("the report has gone", || refused.reports(&sink.taken()) > 0 && house.names("letters").len() <= 2);
    sink.set(Mood::Willing);
    let (status, hung) = wait(&mut run);
    assert!(!hung && status.code() == Some(0), "{status}");
    house.run_dry();
    assert_eq!(refused.reports(&sink.taken()), 1);
    assert_eq!(slow.copies(&sink.taken(), "bob@other.example"), 1);
    assert_eq!(house.names("failed"), [names[1].clone()]);
}

#[test]
fn a_report_that_cannot_be_read_is_not_a_report_that_is_not_there() {
    if !strace::is_there() {
        return;
    }
    let sink = Sink::open();
    let house = House::new(&sink);
    let refused = Letter::new("refused", &["never"], 9);
    assert_eq!(house.send("-odq", &refused).code(), Some(0));
    let report = die_before_it_is_noted(&house, &house.names("letters")[0]);
    for (error, code) in [("EIO", 74), ("EMFILE", 71)] {
        let fault = Fault { call: "openat", number: 1, scope: Scope::Queue, what: What::FromThen(error) };
        let ended = strace::run(&house, &["-qf".to_owned()], None, fault, std::slice::from_ref(&report));
        assert_eq!(ended.code(), Some(code), "{ended:?}");
        assert!(ended.said.contains("2 letters could not be tried"), "{ended:?}");
        assert_eq!(house.names("letters").len(), 2, "{error}");
    }
    house.run_dry();
    assert_eq!(refused.reports(&sink.taken()), 1);
}
