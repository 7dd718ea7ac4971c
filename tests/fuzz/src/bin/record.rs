//! A letter's file in the queue: what is written reads as itself,
//! and a file that was meddled with never as another letter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::envelope::{Envelope, Mailbox, Notify, Recipient, Ret, ReversePath};
use pillarbox::message::Facts;
use pillarbox::message::address::parse_list;
use pillarbox::outcome::{Blame, Cause, Fault, Outcome, Reply, Stage, Status};
use pillarbox::queue::{Entry, Id, Tried, fuzz};
use pillarbox_fuzz::{Tape, is_harmless};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, UNIX_EPOCH};

thread_local! {
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Reads octets as a file of the queue.
fn read(octets: &[u8], id: Id) -> Option<pillarbox::queue::Letter> {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| {
            let path = std::path::PathBuf::from(format!("/dev/shm/pillarbox-fuzz-{}", std::process::id()));
            let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            file
        });
        if file.metadata().unwrap().len() > octets.len() as u64 {
            file.set_len(octets.len() as u64).unwrap();
        }
        file.write_all_at(octets, 0).unwrap();
        fuzz::read(file, octets.len() as u64, id)
    })
}

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    match tape.octet() % 3 {
        0 => strangers_head(&tape.text()),
        1 => strangers_records(&mut tape),
        _ => meddled_with(&mut tape),
    }
});

fn id() -> Id {
    Id::parse("0123456789AB").unwrap()
}

/// Somebody else wrote it, as a head: it is refused, or it is one that we write.
fn strangers_head(text: &str) {
    let Some(entry) = fuzz::entry(text) else { return };
    let again = fuzz::head(&entry);
    assert_eq!(fuzz::entry(&again).as_ref(), Some(&entry), "{again}");
    for to in entry.envelope.recipients() {
        assert!(is_harmless(&to.mailbox.to_string()));
    }
    assert!(entry.header_len <= entry.size);
}

/// Records with the right checksum and anybody's words.
fn strangers_records(tape: &mut Tape<'_>) {
    let mut records = String::new();
    while !tape.is_at_end() {
        records += &fuzz::record(id(), &tape.text());
    }
    let entry = built(&mut Tape(b"a\xFFa, b, c\xFF"));
    let history = fuzz::history(&entry, records.as_bytes());
    assert!(history.waiting().len() + history.failed().len() <= 4);
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let _ = history.next_attempt(id(), now);
}

/// A letter of such words.
fn built(tape: &mut Tape<'_>) -> Entry {
    let mailbox = |text: &str| parse_list(text).ok()?.first()?.to_mailbox("d.example").ok();
    let from = mailbox(&tape.text());
    let mut to: Vec<Recipient> = parse_list(&tape.text())
        .unwrap_or_default()
        .iter()
        .filter_map(|one| one.to_mailbox("d.example").ok().map(Recipient::new))
        .collect();
    to.push(Recipient::new(Mailbox::new("last", "d.example").unwrap()));
    (to[0].notify, to[0].orcpt) = (Notify::parse(&tape.text()), Some(tape.text()).filter(|text| !text.is_empty()));
    let mut envelope = Envelope::new(ReversePath(from), to).unwrap();
    envelope.ret = [None, Some(Ret::Full), Some(Ret::Headers)][usize::from(tape.octet() % 3)];
    (envelope.envid, envelope.ret) = (Some(tape.text()), envelope.ret);
    Entry {
        id: id(),
        created: UNIX_EPOCH + Duration::from_millis(1_790_000_000_000),
        uid: u32::from(tape.octet()),
        account: Some(tape.text()),
        envelope,
        facts: Facts { eight_bit: tape.octet() & 1 == 1, long_line: tape.octet() & 1 == 1 },
        header_len: 0,
        size: 0,
    }
}

fn outcome(tape: &mut Tape<'_>) -> Outcome {
    let reply = Reply { code: 200 + u16::from(tape.octet()), lines: vec![tape.text(), tape.text()] };
    let fault = match tape.octet() % 3 {
        0 => Fault::new(Stage::Rcpt, Cause::Reply(reply.clone())),
        1 => Fault::new(Stage::Dot, Cause::Network(tape.text())),
        _ => Fault::new(Stage::Connect, Cause::Interrupted),
    };
    match tape.octet() % 3 {
        0 => Outcome::Relayed(reply),
        1 => Outcome::Deferred { fault, blame: Blame::Relay, status: Status::new(4, 0, 0), maybe_duplicate: true },
        _ => Outcome::Failed { fault, blame: Blame::Letter, status: Status::new(5, 1, 999) },
    }
}

/// We wrote it, and then something happened to one place of it.
fn meddled_with(tape: &mut Tape<'_>) {
    let (at, how) = (tape.below(usize::MAX), tape.octet());
    let mut entry = built(tape);
    let outcomes: Vec<Outcome> = entry.envelope.recipients().iter().map(|_| outcome(tape)).collect();
    let tried: Vec<Tried<'_>> = outcomes.iter().map(|outcome| Tried { outcome, relay: "r.example:25" }).collect();
    let content = tape.0;
    entry.size = content.len() as u64;
    let sealed = fuzz::sealed(&entry, content);
    let records = fuzz::records(&entry, &tried, 1, entry.created);
    let mut octets = [sealed.as_slice(), records.concat().as_bytes()].concat();

    let letter = read(&octets, id()).expect("we cannot read what we wrote");
    assert_eq!(letter.entry, entry);
    assert_eq!(letter.history, fuzz::history(&entry, records.concat().as_bytes()));

    let at = at % octets.len();
    match how % 3 {
        0 => octets[at] ^= 1 << (how / 3 % 8),
        1 => octets.truncate(at),
        _ => octets[at..].fill(0),
    }
    match read(&octets, id()) {
        None => assert!(at < sealed.len(), "a record's damage is not the letter's"),
        Some(_) if at < sealed.len() => {
            // Nothing has changed, where zeroes were filled over zeroes.
            assert_eq!(octets[..sealed.len()], sealed, "octet {at} was changed, and the letter is taken for whole");
        }
        Some(letter) => {
            assert_eq!(letter.entry, entry);
            // The records before the place count, and those behind
            // it where only that one has changed; nothing else does.
            let mut end = sealed.len();
            let starts: Vec<usize> = records.iter().map(|record| (end, end += record.len()).0).collect();
            let hit = starts.iter().rposition(|start| *start <= at).unwrap_or(0);
            // A line end stands between two records: both may be gone. A record whole but for its line end counts.
            let found = (0..=2.min(hit + 1)).any(|before| {
                (0..=2).any(|behind| {
                    let mut kept = records[..hit + 1 - before].concat();
                    if how % 3 == 0 {
                        kept.extend(records.iter().skip(hit + 1 - before).skip(behind).map(String::as_str));
                    }
                    fuzz::history(&entry, kept.as_bytes()) == letter.history
                })
            });
            assert!(found, "a record that was changed at {at} reads as another");
        }
    }
}
