//! Letters that are made to hurt: bombs in the header, crowds of recipients, bodies without end.

use crate::attack::call;
use crate::harm::indiscretions;
use crate::measure;
use crate::support::machine::{self, Machine};
use crate::support::relay::{Relay, Script};
use crate::support::sendmail::{Sendmail, sendmail};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Headers that are made to break whoever reads them.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let to = |value: String| format!("To: {value}\nSubject: x\n\nhello\n").into_bytes();
    let bob = "bob@example.org";
    vec![
        ("deep comments", to(format!("{}{} {bob}", "(".repeat(100_000), ")".repeat(100_000)))),
        ("comments without end", to(format!("{} {bob}", "(".repeat(200_000)))),
        ("nested groups", to(format!("{}{bob}{}", "g:".repeat(50_000), ";".repeat(50_000)))),
        ("groups without end", to(format!("{}{bob}", "g:".repeat(100_000)))),
        ("a quoted string without end", to(format!("\"{} {bob}", "\\\"".repeat(200_000)))),
        ("angle brackets", to(format!("{}{bob}{}", "<".repeat(100_000), ">".repeat(100_000)))),
        ("commas", to(format!("{}{bob}", ",".repeat(1_000_000)))),
        ("a route without end", to(format!("<{}:{bob}>", "@r,".repeat(100_000)))),
        ("dots", to(format!("{}{bob}", ".".repeat(200_000)))),
        ("encoded words", to(format!("{} <{bob}>", "=?utf-8?q?=FF?= ".repeat(50_000)))),
        ("an encoded word without end", to(format!("=?utf-8?b?{} <{bob}>", "A".repeat(1_000_000)))),
        ("folds", to(format!("{}{bob}", "\n ".repeat(300_000)))),
        (
            "100,000 fields",
            [b"To: bob@example.org\n".to_vec(), b"X-A: b\n".repeat(100_000), b"\nhello\n".to_vec()].concat(),
        ),
        (
            "100,000 Bccs",
            [b"To: bob@example.org\n".to_vec(), b"Bcc: x\n".repeat(100_000), b"\nhello\n".to_vec()].concat(),
        ),
        (
            "50,000 Resent blocks",
            [b"Resent-To: bob@example.org\nResent-From: a@b.example\n".repeat(50_000), b"\nhello\n".to_vec()].concat(),
        ),
        ("a field name of a megabyte", [vec![b'X'; 1 << 20], b": y\nTo: bob@example.org\n\nhello\n".to_vec()].concat()),
        (
            "a line of ten megabytes",
            [b"To: bob@example.org\nX: ".to_vec(), vec![b'y'; 10_000_000], b"\n\nhello\n".to_vec()].concat(),
        ),
        ("a line of ten megabytes in the body", [b"To: bob@example.org\n\n".to_vec(), vec![b'y'; 10_000_000]].concat()),
        ("nothing but line ends", b"\n".repeat(1_000_000)),
        ("nothing but carriage returns", b"\r".repeat(1_000_000)),
        ("nothing but dots", b".\n".repeat(500_000)),
        ("nothing but colons", b":".repeat(1_000_000)),
        ("MIME in MIME", {
            let mut letter = b"To: bob@example.org\nMIME-Version: 1.0\n".to_vec();
            for level in 0..5000 {
                letter.extend_from_slice(
                    format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n").as_bytes(),
                );
            }
            letter.extend_from_slice("Content-Type: text/plain\n\nh\u{e9}llo\n".as_bytes());
            letter
        }),
        (
            "boundaries without end",
            format!(
                "To: {bob}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{}\n\nh\u{e9}llo\n",
                "b".repeat(500_000)
            )
            .into_bytes(),
        ),
        (
            "parameters",
            format!(
                "To: {bob}\nMIME-Version: 1.0\nContent-Type: text/plain{}\n\nh\u{e9}llo\n",
                "; a=b".repeat(200_000)
            )
            .into_bytes(),
        ),
    ]
}

#[test]
fn no_header_breaks_the_reader_or_swells_it() {
    let relay = Relay::start(Script::open().offering(&["PIPELINING", "SIZE"]));
    let home = Sendmail::to(&relay);
    home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "off");
    let mut peaks = Vec::new();
    for (name, input) in bombs() {
        let ended = call(&home, &["-t"], &input);
        let said = String::from_utf8_lossy(&ended.said);
        assert!(
            ended.is_proper() && ended.status != Some(70),
            "{name}: {:?} {}",
            ended.status,
            &said[..said.len().min(500)]
        );
        assert!(said.len() < 20_000, "{name}: it said {} octets", said.len());
        assert_eq!(indiscretions(&said, "what it said"), [""; 0], "{name}");
        peaks.push((ended.peak, name, input.len(), ended.status.unwrap_or(-1)));
    }
    drop(relay.finish());
    peaks.sort_unstable();
    for (peak, name, size, status) in peaks.iter().rev() {
        println!("{peak:6} KiB, status {status}: {name} ({size} octets)");
    }
    // A header is held in memory, and read; the bound that a server meets is not one for it.
    assert!(peaks.last().unwrap().0 < 128 * 1024, "{:?}", peaks.last());
}

/// A session's stack is a sixteenth of a program's.
#[test]
fn no_header_breaks_the_service_that_all_send_by() {
    let machine = Machine::new("letters_per_hour = 60000\ndisk_reserve = \"0K\"");
    for (name, letter) in bombs() {
        let mut client = machine.client();
        client.ask(&format!("MAIL FROM:<{}@box.example>", machine::me()));
        client.ask("RCPT TO:<bob@example.org>");
        client.say(&format!("BDAT {} LAST\r\n", letter.len()));
        client.0.get_mut().write_all(&letter).unwrap();
        let said = client.hear();
        assert!(
            said.starts_with("250 ") || said.starts_with("554 "),
            "{name}: {said:?}, and the log: {}",
            machine.log()
        );
        assert!(client.ask("QUIT").starts_with("221 "), "{name}");
    }
    machine.nothing_half_kept();
}

/// Its unit gives it 256 MiB, and what is beyond that ends it for all.
#[test]
fn no_letter_swells_the_service_that_all_send_by() {
    let machine = Machine::new("letters_per_hour = 60000\ndisk_reserve = \"0K\"");
    let mixed = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    for (name, letter, answer) in [
        ("names", [b"To: a".to_vec(), b",a".repeat(250_000), b"\r\n\r\n".to_vec()].concat(), "250 "),
        ("more names", [b"To: a".to_vec(), b",a".repeat(2_000_000), b"\r\n\r\n".to_vec()].concat(), "554 "),
        ("a name of words", [b"To: a".to_vec(), b" a".repeat(250_000), b"\r\n\r\n".to_vec()].concat(), "250 "),
        ("fields", [b"X:\r\n".repeat(800_000), b"\r\n".to_vec()].concat(), "554 "),
        ("parts", [mixed, b"--b\r\n\r\n".repeat(800_000), vec![b'x'; 2000], b"\r\n".to_vec()].concat(), "250 "),
    ] {
        let mut client = machine.client();
        client.ask(&format!("MAIL FROM:<{}@box.example>", machine::me()));
        client.ask("RCPT TO:<bob@example.org>");
        client.say(&format!("BDAT {} LAST\r\n", letter.len()));
        client.0.get_mut().write_all(&letter).unwrap();
        let said = client.hear();
        assert!(said.starts_with(answer), "{name}: {said:?}");
        let status = fs::read_to_string(format!("/proc/{}/status", machine.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
        println!("{name}: {peak}");
        assert!(peak.trim_end_matches(" kB").parse::<u64>().unwrap() < 96 * 1024, "{name}: {peak}");
    }
}

/// Somebody whose letters wait, and a letter to so many.
fn crowd(recipients: usize) -> (Sendmail, Vec<u8>) {
    let home = Sendmail::new(
        "default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n[queue]\nrunner = \"off\"\n",
    );
    let mut letter = b"Subject: x\nTo: first@example.org".to_vec();
    for number in 1..recipients {
        write!(letter, ",\n u{number}@example.org").unwrap();
    }
    letter.extend_from_slice(b"\n\nhello\n");
    (home, letter)
}

#[test]
fn a_hundred_thousand_recipients_are_all_kept() {
    let (home, letter) = crowd(100_000);
    let ended = call(&home, &["-t", "-odq"], &letter);
    println!("100,000 recipients: {} KiB", ended.peak);
    assert_eq!((ended.status, String::from_utf8_lossy(&ended.said).into_owned()), (Some(0), String::new()));
    let queue = pillarbox::queue::Queue::open(&home.queue()).unwrap();
    let listed = queue.list().unwrap();
    let counts: Vec<usize> =
        listed.into_iter().flatten().map(|one| one.letter.entry.envelope.recipients().len()).collect();
    assert_eq!(counts, [100_000]);
}

/// The standard library aborts where there is no memory: to death by a signal some callers say success.
#[test]
fn a_letter_for_which_there_is_no_memory_is_a_71() {
    let (home, letter) = crowd(150_000);
    let home = home.through("ulimit -v 32768; exec \"$@\"");
    let ran = home.run(&["-t", "-odq"], &letter);
    assert_eq!(ran.status, 71, "{ran:?}");
    assert!(ran.stderr.contains("memory allocation"), "{ran:?}");
    assert_eq!(fs::read_dir(home.queue().join("letters")).map_or(0, Iterator::count), 0);
}

#[test]
#[ignore = "writes two gigabytes, and prints its figure"]
fn a_body_of_two_gigabytes_takes_no_memory() {
    let home = Sendmail::new(
        "default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n[queue]\nrunner = \"off\"\n",
    );
    let mut much = Command::new("/bin/sh");
    much.args(["-c", "printf 'Subject: x\\n\\n'; yes 'two gigabytes of this are a lot' | head -c 2147483648"]);
    let mut much = much.stdout(Stdio::piped()).spawn().unwrap();
    let mut command = Command::new(sendmail());
    command.args(["-odq", "bob@example.org"]).envs(home.environment().iter().cloned()).current_dir(home.home());
    let ended = measure::run_for(&command, much.stdout.take().unwrap().into(), home.home(), Duration::from_mins(10));
    much.wait().unwrap();
    println!("2 GiB: {} KiB", ended.peak);
    assert_eq!((ended.status, String::from_utf8_lossy(&ended.said).into_owned()), (Some(0), String::new()));
    assert!(ended.peak <= measure::bound(), "{}", ended.peak);
    let letters: Vec<_> = fs::read_dir(home.queue().join("letters"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert!(letters.len() == 1 && letters[0] > 2_147_483_648, "{letters:?}");
}
