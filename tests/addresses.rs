//! Our reader of address lists beside an independent one, Python's `email.headerregistry`, on lists that are grown from
//! the grammar of RFC 5322 and half of them spoilt by one character.
//!
//! Where Python reads a list without a complaint, ours reads the same mailboxes, or the difference is one of
//! [`DIFFERENCES`], each with its reason. Where Python complains it has guessed, and we need not guess the same: we
//! refuse, or read what a person would.

#![allow(clippy::unwrap_used)]

mod support;

use pillarbox::message::address::{Address, Problem, parse_list};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use support::peer;

const LISTS: usize = 20_000;

/// Reads a list a line, as JSON; prints what it found: local parts and domains, and whether it has complained.
const PYTHON: &str = r"
import json, sys
from email import policy
from email.headerregistry import HeaderRegistry
registry = HeaderRegistry()
for line in sys.stdin:
    try:
        header = registry('To', json.loads(line))
        found = [[a.username, a.domain] for a in header.addresses]
        print(json.dumps([found, len(header.defects) > 0]))
    except Exception as error:
        print(json.dumps([[], True]))
";

type Why = fn(&str, Problem) -> bool;

/// Where Python reads on without a complaint, and we refuse.
const DIFFERENCES: [(&str, Why); 2] = [
    // RFC 5321 §4.1.2 allows `""@x`. Nobody has such a mailbox, and what looks so is a variable that was empty.
    ("refused: nothing before the @", |list, problem| list.contains("\"\"") && problem == Problem::Unexpected('@')),
    // RFC 2047 §5 (3) forbids it. To read on, one would have to know that it was an encoded word.
    ("refused: punctuation in an encoded word", |list, _| list.contains("=?utf-") || list.contains("=?\"utf-")),
];

/// A generator of choices, the same in every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        // Knuth's MMIX constants; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn space(&mut self) -> String {
        match self.below(8) {
            0 => "  ".to_owned(),
            1 => format!("({})", self.one(&["x", "a (b) c", "o\\)p", "", "a, b", "<q@r>", "\"", "y@z"])),
            2 => format!(" ({}) ", self.one(&["home", "1"])),
            _ => String::new(),
        }
    }

    fn local(&mut self) -> String {
        let words = [
            "bob",
            "j.d",
            "a+b",
            "o'neil",
            "x_y",
            "\"a b\"",
            "\"a,b\"",
            "\"q\\\"q\"",
            "\"a@b\"",
            "\"\"",
            "\"a\".b",
            "a.\"b\"",
            "r%s",
            "h!u",
            "{z}",
            "=?x",
        ];
        self.one(&words).to_owned()
    }

    fn domain(&mut self) -> &'static str {
        self.one(&["x.org", "a.b-c.example", "h", "[192.0.2.1]", "[IPv6:2001:db8::1]", "X.ORG"])
    }

    fn address(&mut self) -> String {
        let (a, b, c, d) = (self.space(), self.space(), self.space(), self.space());
        let address = format!("{a}{}{b}@{c}{}{d}", self.local(), self.domain());
        match self.below(6) {
            0 | 1 => address,
            2 => format!("<{}@{}>", self.local(), self.domain()),
            3 => format!("{} <@r.org,@s.org:{}@{}>", self.one(&["R", "\"R\""]), self.local(), self.domain()),
            _ => {
                let names = [
                    "Bob",
                    "Bob B. Brown",
                    "\"Doe, J.\"",
                    "Jo (the) Do",
                    "\"x\\\"y\"",
                    "=?utf-8?q?J=C3=B6?=",
                    "A.",
                    "'q'",
                    "J-P",
                ];
                format!("{} <{address}>{}", self.one(&names), self.space())
            }
        }
    }

    fn list(&mut self) -> String {
        let mut text = String::new();
        for i in 0..self.below(4) {
            if i > 0 {
                text += self.one(&[",", ", ", " , "]);
            }
            let item = match self.below(8) {
                0 => format!(
                    "{}:{};",
                    self.one(&["G", "A group", "\"g, h\""]),
                    self.one(&["", " a@x", "a@x, B <b@y.org>", " "])
                ),
                1 => self.one(&["root", "", "x@y.org"]).to_owned(),
                _ => self.address(),
            };
            text += &item;
        }
        if self.below(2) == 0 {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let place = if places.is_empty() { 0 } else { places[self.below(places.len())] };
            match self.below(3) {
                0 if !text.is_empty() => drop(text.remove(place)),
                _ => text.insert_str(
                    place,
                    self.one(&[",", ";", "@", "<", ">", "\"", "(", ")", ".", ":", " ", "[", "]", "\\", "a"]),
                ),
            }
        }
        text
    }
}

type Pairs = Vec<(String, String)>;

fn ours(list: &[Address]) -> Pairs {
    list.iter().map(|one| (one.local.clone(), one.domain.clone().unwrap_or_default())).collect()
}

#[test]
fn what_another_reader_understands_is_understood_the_same_or_for_a_reason() {
    if !peer::here(&["python3"]) {
        return;
    }
    let mut choices = Choices(5322);
    let lists: Vec<String> = (0..LISTS).map(|_| choices.list()).collect();
    let lines: String = lists.iter().map(|list| serde_json::to_string(list).unwrap() + "\n").collect();
    let mut python =
        Command::new("python3").args(["-c", PYTHON]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let answers = String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap();
    feeding.join().unwrap();
    let answers: Vec<(Pairs, bool)> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), lists.len());

    let mut counts = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (list, (theirs, complains)) in lists.iter().zip(answers) {
        let read = parse_list(list);
        let same = read.as_ref().is_ok_and(|found| ours(found) == theirs);
        let kind = match &read {
            Ok(_) if same => "read the same",
            Ok(_) if complains => "read, where Python complains and guesses",
            Err(_) if complains => "refused, where Python complains and guesses",
            Err(error) => DIFFERENCES.iter().find(|row| (row.1)(list, error.problem)).map_or("", |row| row.0),
            Ok(_) => "",
        };
        if kind.is_empty() {
            unexplained.push(format!("{list:?}: ours {:?}, theirs {theirs:?}", read.as_ref().map(|found| ours(found))));
        }
        *counts.entry(kind).or_insert(0) += 1;
    }
    for (kind, count) in &counts {
        println!("{count:6} {kind}");
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert!(counts["read the same"] > LISTS / 2, "{counts:?}");
}
