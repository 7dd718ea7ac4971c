//! Many at once on one queue: senders and runners, some of them killed, and a relay that hangs up after final dots.

use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use pillarbox::queue::State;

use crate::house::{House, sendmail, wait};
use crate::letter::Letter;
use crate::sink::{Mood, Sink};

const SENDERS: usize = 8;
const RUNNERS: usize = 4;
/// Letters of each sender.
const LETTERS: usize = 24;
/// Connections that a runner may have: with each it may have one letter between the final dot and its record.
const CONNECTIONS: usize = 2;

/// Numbers that look like dice and are the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Waits for a process, and kills it first once in a while, at
/// some moment. Gives its status, `None` where it was killed.
fn end(mut child: Child, dice: &mut Dice, one_in: u64) -> Option<i32> {
    if dice.throw(one_in) == 0 {
        thread::sleep(Duration::from_millis(dice.throw(40)));
        let _ = child.kill();
    }
    let (status, hung) = wait(&mut child);
    assert!(!hung);
    status.code()
}

#[test]
fn senders_and_runners_that_are_killed_at_random_lose_nothing_and_double_only_what_they_must() {
    let sink = Sink::open();
    sink.set(Mood::DropsEvery(11));
    let house = House::new(&sink);
    // What each sender was told of each letter.
    let told = Mutex::new(Vec::new());
    let (ended, killed_runners) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..RUNNERS {
            let (house, ended, killed) = (&house, &ended, &killed_runners);
            scope.spawn(move || {
                let mut dice = Dice(number as u64 + 1000);
                while !ended.load(Ordering::Relaxed) {
                    let child = house.command(&sendmail()).arg("-qf").spawn().unwrap();
                    match end(child, &mut dice, 4) {
                        None => drop(killed.fetch_add(1, Ordering::Relaxed)),
                        code => assert_eq!(code, Some(0)),
                    }
                }
            });
        }
        let senders = (0..SENDERS).map(|number| {
            let (house, told) = (&house, &told);
            scope.spawn(move || {
                let mut dice = Dice(number as u64);
                for count in 0..LETTERS {
                    let letter = Letter::new(format!("crowd-{number}-{count}-"), &["bob"], 40);
                    let mode = if dice.throw(2) == 0 { "-odi" } else { "-odq" };
                    let mut command = house.command(&sendmail());
                    let child = command.args(letter.words(mode)).stdin(house.input(&letter)).spawn().unwrap();
                    let code = end(child, &mut dice, 6);
                    told.lock().unwrap().push((letter, code));
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.join().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    sink.set(Mood::Willing);
    sink.settle();
    release_all(&house);
    house.run_dry();
    sink.settle();

    let (taken, told) = (sink.taken(), told.into_inner().unwrap());
    let killed_senders = told.iter().filter(|(_, code)| code.is_none()).count();
    let killed_runners = killed_runners.into_inner();
    let (mut lost, mut unwanted, mut damaged, mut extra) = (0, 0, 0, 0);
    for (letter, code) in &told {
        let copies = letter.copies(&taken, &letter.to[0]);
        lost += usize::from(*code == Some(0) && copies == 0);
        unwanted += usize::from(code.is_some_and(|code| code != 0) && copies > 0);
        damaged += letter.damaged(&taken);
        extra += copies.saturating_sub(1);
    }
    let dropped = sink.unanswered();
    println!(
        "{} letters of {SENDERS} senders ({killed_senders} killed), {RUNNERS} runners at a time ({killed_runners} \
         killed), {dropped} final dots unanswered: lost {lost}, cut {damaged}, delivered after a refusal {unwanted}, \
         copies too many {extra}",
        told.len()
    );
    assert_eq!((lost, damaged, unwanted), (0, 0, 0));
    assert_eq!(house.names("letters"), [""; 0]);
    assert_eq!(house.names("corrupt"), [""; 0]);
    let explained = dropped + killed_senders + CONNECTIONS * killed_runners;
    assert!(extra <= explained, "{extra} copies too many, of which {explained} can be explained");
}

/// Ends the holds of letters whose runners were killed again and again, for no fault of theirs.
fn release_all(house: &House) {
    for listed in house.waiting() {
        // A letter is found to be poisoned when it is claimed, so not yet, perhaps.
        let history = &listed.letter.history;
        if listed.state == State::Hold || history.is_open() {
            house.queue().release(listed.letter.entry.id, SystemTime::now()).unwrap();
        }
    }
}
