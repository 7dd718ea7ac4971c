//! Callers who mean harm, or whose world is broken: whatever
//! the words, the letter, the environment and the descriptors.

use crate::attack::{call, indiscretions};
use crate::measure;
use crate::support::machine::{self, Machine};
use crate::support::relay::{Dialogue, Relay, Script};
use crate::support::running::Ended;
use crate::support::sendmail::{Sendmail, sendmail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use pillarbox::cli::meaning::mean;
use pillarbox::cli::options::{self, OPTIONS, Takes, Treatment};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A generator of numbers that is the same in each run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn of<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[self.roll(these.len())]
    }
}

/// Words that callers use, words that attackers use, and words that nobody uses. `HERE` is a directory to do harm in.
#[rustfmt::skip]
const WORDS: &[&[u8]] = &[
    b"-i", b"-t", b"-oi", b"-oem", b"-oee", b"-oeq", b"-odi", b"-odq", b"-odb", b"-odd", b"-ti", b"-it", b"-vt",
    b"-tif", b"-bm", b"-bs", b"-bp",
    b"-bi", b"-bd", b"-bD", b"-bt", b"-bv", b"-ba", b"-bh", b"-be", b"-be${run{/usr/bin/touch HERE/pwned}}", b"-b",
    b"-I", b"-q", b"-qf", b"-qI", b"-qS", b"-qRx",
    b"-qGx", b"-q!I", b"-f", b"-r", b"-F", b"-fwww-data", b"-f", b"-f<>", b"-f''", b"-r-X/tmp/x", b"-N", b"-Nnever",
    b"-Nsuccess,delay,failure", b"-R", b"-Rfull",
    b"-V", b"-VABC", b"-B8BITMIME", b"-B", b"-C", b"-CHERE/evil.toml", b"-C/etc/passwd", b"-C/dev/stdin", b"-C-", b"-D",
    b"-DHERE/debug", b"-d", b"-d0.1", b"-d0-99.127",
    b"-X", b"-XHERE/log.php", b"-X/dev/full", b"-O", b"-OQueueDirectory=HERE/queue2", b"-OTimeout=1",
    b"-ODeliveryMode=q", b"-O AliasFile=|touch HERE/pwned",
    b"-oQHERE/queue3", b"-oQ", b"-oA|touch HERE/pwned", b"-oAHERE/aliases", b"-oX1", b"-oMs", b"-oMrHERE", b"-p",
    b"-psmtp:evil.example", b"-L", b"-Ltag", b"-L\x1b[2J", b"-G", b"-U",
    b"-h", b"-h99999999999", b"-M", b"-Mrm", b"-Mvh", b"-n", b"-m", b"-e", b"-em", b"-eQ", b"-E", b"-J", b"-Ac", b"-Am",
    b"-A", b"-s", b"-S", b"-T", b"-x", b"-z", b"-7",
    b"-a", b"-awork", b"-anone", b"--", b"-", b"---", b"--help", b"--version", b"--file=HERE/evil.toml",
    b"--host=evil.example", b"--passwordeval=touch HERE/pwned", b"--pretend",
    b"--read-recipients", b"--read-envelope-from", b"--logfile=HERE/log", b"-P", b"-d",
    b"root", b"bob@example.org", b"bob", b"", b" ", b",", b"a@b, c@d", b"<bob@example.org>", b"Bob <bob@example.org>",
    b"\"quoted user\"@example.org", b"-f@example.org",
    b"bob@example.org>\r\nRCPT TO:<evil@example.net", b"x\ny", b"|touch HERE/pwned", b"\"|touch HERE/pwned\"",
    b"/etc/passwd", b":include:/etc/passwd", b"HERE/file", b"@", b"@@", b"a@",
    b"\xff\xfe@example.org", "j\u{f6}rg@exämple.org".as_bytes(), b"a@[127.0.0.1]", b"a@b SIZE=1", b"`touch HERE/pwned`",
    b"$(touch HERE/pwned)", b"(((((((((((((((((", b"\"", b"\\", b"\x1b]0;owned\x07",
    b"%s%n", b"../../../etc/passwd", b"group: a@b, c@d;", b"@r1,@r2:a@b",
];

const PROGRAMS: [&str; 5] = ["sendmail", "mailq", "newaliases", "send-mail", "msmtp"];

/// A program's name and its words. Never a runner that stays, which is not supposed to end.
fn command_line(dice: &mut Dice, here: &Path) -> (&'static str, Vec<OsString>) {
    let program = *dice.of(&PROGRAMS);
    let mut words = Vec::new();
    for _ in 0..dice.roll(7) {
        let mut word = match dice.roll(10) {
            // A row of the table with something attached, or not.
            0 | 1 => {
                [dice.of(OPTIONS).spelling.as_bytes(), dice.of(&["", "x", "=", "=HERE/x", "\r\n", "a b"]).as_bytes()]
                    .concat()
            }
            // Noise.
            2 => (0..dice.roll(12)).map(|_| u8::try_from(1 + dice.roll(255)).unwrap()).collect(),
            _ => dice.of(WORDS).to_vec(),
        };
        while let Some(at) = memchr::memmem::find(&word, b"HERE") {
            word.splice(at..at + 4, here.as_os_str().as_bytes().iter().copied());
        }
        words.push(word);
    }
    let stays = |word: &[u8]| {
        let at = memchr::memchr(b'q', word);
        word.first() == Some(&b'-') && at.is_some_and(|at| word.get(at + 1).is_some_and(u8::is_ascii_digit))
    };
    words.retain(|word| !stays(word));
    (program, words.into_iter().map(OsString::from_vec).collect())
}

#[test]
fn no_command_line_makes_the_parser_panic() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut meant = 0;
    for _ in 0..20_000 {
        let (program, words) = command_line(&mut dice, Path::new("/nowhere"));
        meant += usize::from(options::parse(program, words).and_then(|typed| mean(program, typed)).is_ok());
    }
    assert!(meant > 2000, "only {meant} of them mean anything: they are too random");
}

/// The files below a directory, and how large they are; the queue's and those of the harness aside.
fn tree(dir: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        match entry.file_name().to_str() {
            Some("queue" | "log" | "bin") => {}
            _ if kind.is_dir() => found.extend(tree(&path)),
            _ => drop(found.insert((path, entry.metadata().unwrap().len()))),
        }
    }
    found
}

/// Runs random command lines for real. The relay is a port that
/// nobody listens on, so that everything ends in the queue.
fn try_command_lines(count: usize, seed: u64) {
    let next = AtomicUsize::new(0);
    let (ends, wrong) = (Mutex::new(std::collections::BTreeMap::<i32, usize>::new()), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for worker in 0..4_u64 {
            let (next, ends, wrong) = (&next, &ends, &wrong);
            threads.spawn(move || {
                let home = Sendmail::new(
                    "default = \"work\"\ndomain = \"box.example\"\n[account.work]\nhost = \"127.0.0.1\"\nport = 1\n\
                     tls = \"none\"\n\
                     [queue]\nrunner = \"off\"\n",
                );
                let here = home.home().join("here");
                fs::create_dir(&here).unwrap();
                let input = home.put("input.eml", "To: carol@example.org\nSubject: x\n\nhello\n");
                let before = tree(home.home());
                let mut dice = Dice(seed + worker * 7919);
                while next.fetch_add(1, Ordering::SeqCst) < count {
                    let (program, words) = command_line(&mut dice, &here);
                    let mut command = Command::new(sendmail());
                    command.arg0(program).args(&words).env_clear().envs(home.environment().iter().cloned());
                    command.current_dir(&here).stdin(File::open(&input).unwrap());
                    let output = command.output().unwrap();
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    let status = output.status.code().unwrap_or(-1);
                    *ends.lock().unwrap().entry(status).or_default() += 1;
                    let mut flaws = indiscretions(&said, "what it said");
                    if status != 0 && !(64..=78).contains(&status) || status == 70 {
                        flaws.push(format!("ended with {}", output.status));
                    }
                    let after = tree(home.home());
                    if after != before {
                        flaws.push(format!("made {:?}", after.difference(&before).collect::<Vec<_>>()));
                    }
                    if !flaws.is_empty() {
                        wrong.lock().unwrap().push(format!("{program} {words:?}: {} {said:?}", flaws.join(", ")));
                    }
                    // Lest mailq and -q have thousands to look at.
                    if dice.roll(50) == 0 {
                        let _ = fs::remove_dir_all(home.queue());
                    }
                }
            });
        }
    });
    println!("{count} random command lines: {:?}", ends.into_inner().unwrap());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn random_command_lines_end_properly_and_make_no_file() {
    try_command_lines(300, 0x1234_5678);
}

#[test]
#[ignore = "takes minutes, and prints its figures"]
fn twenty_thousand_command_lines_end_properly_and_make_no_file() {
    try_command_lines(20_000, 0xDEAD_BEEF);
}

/// What a caller's words must never be to the relay.
fn is_clean(heard: &[Dialogue]) -> Result<(), String> {
    for dialogue in heard {
        let odd = dialogue.commands.iter().find(|command| command.contains("evil") || command.contains('\r'));
        if let Some(odd) = odd {
            return Err(format!("the relay heard {odd:?}"));
        }
        for letter in &dialogue.letters {
            let content = String::from_utf8_lossy(&letter.content);
            let (header, _) = content.split_once("\r\n\r\n").unwrap_or_default();
            if let Some(line) = header.lines().find(|line| line.to_ascii_lowercase().starts_with("x-evil")) {
                return Err(format!("a field was made: {line:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn line_ends_in_an_argument_never_become_commands_or_fields() {
    let relay = Relay::start(Script::open());
    let home = Sendmail::to(&relay);
    home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "deadline = \"30s\"");
    let letter = b"Subject: x\n\nhello\n";
    let tails = [
        "\r\nRCPT TO:<evil@example.net>",
        "\nX-Evil: 1",
        "\r\n.\r\nMAIL FROM:<evil@example.net>",
        "\rX-Evil: 1",
        ">\r\nRSET evil",
        "\u{85}X-Evil: 1",
        "\u{2028}X-Evil: 1",
    ];
    for row in
        OPTIONS.iter().filter(|row| row.spelling.len() == 2 && row.takes != Takes::Nothing && row.program.is_none())
    {
        for tail in tails {
            if row.spelling == "-q" || row.spelling == "-b" {
                continue;
            }
            let value = format!("x{tail}");
            let words = [format!("{}{value}", row.spelling), "--".to_owned(), "bob@example.org".to_owned()];
            let ran = home.run(&words, letter);
            let status = ran.status;
            assert!(status == 0 || (64..=78).contains(&status) && status != 70, "{words:?}: {ran:?}");
            assert!(row.treatment != Treatment::Refused || status == 64, "{words:?}: {ran:?}");
            assert_eq!(indiscretions(&ran.stderr, "what it said"), [""; 0], "{words:?}");
        }
    }
    for tail in tails {
        for word in [
            format!("bob@example.org{tail}"),
            format!("\"bob{tail}\"@example.org"),
            format!("Bob {tail} <bob@example.org>"),
        ] {
            let ran = home.run(&["--", &word], letter);
            assert!(ran.status == 64 || ran.status == 0, "{word:?}: {ran:?}");
        }
    }
    is_clean(&relay.finish()).unwrap();
}

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

#[test]
fn no_word_that_the_administrator_s_tool_quotes_plays_with_the_terminal() {
    let home = Sendmail::new("default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n");
    let dirty = "\u{1b}[2J\u{9b}31m\u{202e}\r";
    let option = format!("--{dirty}");
    for before in [
        &[][..],
        &["queue"],
        &["queue", "show"],
        &["queue", "list", "--from"],
        &["check"],
        &["serve", "-C"],
        &["mail", "-S"],
        &["login"],
        &["import"],
        &["completions"],
        &["sandbox"],
        &["init"],
    ] {
        for word in [dirty, &option] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
            command.args(before).arg(word).env_clear().envs(home.environment().iter().cloned());
            let output = command.current_dir(home.home()).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
            assert_eq!(indiscretions(&said, "what it said"), [""; 0], "{before:?} {word:?}");
            assert!(!said.contains('\u{202e}'), "{before:?} {word:?}: {said:?}");
            let status = output.status.code();
            assert!(status.is_some_and(|status| (64..=78).contains(&status) && status != 70), "{before:?}: {status:?}");
        }
    }
}

#[test]
fn a_hundred_thousand_recipients_are_all_kept() {
    let home = Sendmail::new(
        "default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n[queue]\nrunner = \"off\"\n",
    );
    let mut letter = b"Subject: x\nTo: first@example.org".to_vec();
    for number in 1..100_000 {
        write!(letter, ",\n u{number}@example.org").unwrap();
    }
    letter.extend_from_slice(b"\n\nhello\n");
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
    let home = Sendmail::new(
        "default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n[queue]\nrunner = \"off\"\n",
    );
    let mut letter = b"Subject: x\nTo: first@example.org".to_vec();
    for number in 1..150_000 {
        write!(letter, ",\n u{number}@example.org").unwrap();
    }
    letter.extend_from_slice(b"\n\nhello\n");
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

#[test]
fn no_environment_makes_it_fail_write_elsewhere_or_speak() {
    let long = "x".repeat(100_000);
    let worlds: &[(&str, &[(&str, &str)])] = &[
        ("HOME is relative", &[("HOME", "..")]),
        ("HOME is a file", &[("HOME", "/etc/passwd")]),
        ("HOME is empty", &[("HOME", "")]),
        ("HOME is no text", &[("HOME", "/\u{1b}[2J")]),
        ("HOME is long", &[("HOME", &long)]),
        ("TMPDIR leads nowhere", &[("TMPDIR", "/nonexistent")]),
        ("TMPDIR is a file", &[("TMPDIR", "/etc/passwd")]),
        ("PATH is empty", &[("PATH", "")]),
        ("PATH is here", &[("PATH", ".")]),
        ("a loader's debugging", &[("LD_BIND_NOW", "1"), ("LD_LIBRARY_PATH", ".")]),
        ("locales", &[("LANG", "tr_TR.UTF-8"), ("LC_ALL", "xx_YY.\u{1b}[2J"), ("LANGUAGE", "../../etc")]),
        ("time zones", &[("TZ", ":/etc/passwd")]),
        ("a time zone without end", &[("TZ", &long)]),
        ("a time zone elsewhere", &[("TZ", "../../../../etc/shadow"), ("TZDIR", "/proc/self")]),
        (
            "XDG",
            &[
                ("XDG_CONFIG_HOME", "relative"),
                ("XDG_STATE_HOME", "\n"),
                ("XDG_RUNTIME_DIR", "/etc/passwd"),
                ("XDG_DATA_HOME", &long),
            ],
        ),
        (
            "who one is",
            &[
                ("USER", "root\nX-Evil: 1"),
                ("LOGNAME", "evil"),
                ("MAIL", "/etc/passwd"),
                ("NAME", "evil\r\nX-Evil: 1"),
                ("EMAIL", "evil"),
            ],
        ),
        (
            "TLS's",
            &[
                ("SSLKEYLOGFILE", "keys"),
                ("SSL_CERT_FILE", "/nonexistent"),
                ("SSL_CERT_DIR", "/proc"),
                ("OPENSSL_CONF", "x"),
            ],
        ),
        ("Rust's", &[("RUST_BACKTRACE", "full"), ("RUST_LOG", "trace"), ("RUST_MIN_STACK", "1"), ("NO_COLOR", "1")]),
        (
            "the allocator's",
            &[("MALLOC_ARENA_MAX", "1"), ("MALLOC_PERTURB_", "165"), ("GLIBC_TUNABLES", "glibc.malloc.check=3")],
        ),
        (
            "systemd's",
            &[
                ("CREDENTIALS_DIRECTORY", "/proc/self"),
                ("LISTEN_FDS", "99999"),
                ("LISTEN_PID", "1"),
                ("NOTIFY_SOCKET", "/dev/null"),
                ("JOURNAL_STREAM", "1:1"),
                ("WATCHDOG_USEC", "x"),
            ],
        ),
        ("proxies", &[("ALL_PROXY", "socks5://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")]),
        ("a queue that is relative", &[("PILLARBOX_QUEUE_DIR", "")]),
        ("mailrc's", &[("MAILRC", "/etc/passwd"), ("MAILX_ARGS", "-v")]),
    ];
    for (name, world) in worlds {
        let relay = Relay::start(Script::default());
        let mut home = Sendmail::to(&relay);
        for (key, value) in *world {
            home = home.env(key, value);
        }
        let before = tree(home.home());
        let ran = home.run(&["bob@example.org"], b"Subject: x\n\nhello\n");
        assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (0, "", ""), "{name}");
        let made: Vec<_> = tree(home.home()).difference(&before).cloned().collect();
        assert!(made.is_empty(), "{name}: {made:?}");
        let heard = relay.finish();
        assert_eq!(heard.iter().map(|dialogue| dialogue.letters.len()).sum::<usize>(), 1, "{name}");
        is_clean(&heard).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

#[test]
fn no_descriptor_costs_a_letter_or_gets_what_is_not_for_it() {
    let letter: &[u8] =
        b"From: <alice@example.com>\nTo: <bob@example.org>\nSubject: whole\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n\
        Message-ID: <whole@example.com>\n\nhello\n";
    for (how, status) in [
        (">&-", 0),
        ("2>&-", 0),
        (">&- 2>&-", 0),
        (">/dev/full 2>/dev/full", 0),
        ("2>/", 0),
        ("3>&1 4>&1 5>&1", 0),
        ("<&-", 0),
        ("<&- >&- 2>&-", 0),
        ("<&- >&-", 0),
        ("<&- 2>&-", 0),
        ("0>/dev/null", 74),
        ("</", 74),
        ("</ >&- 2>&-", 74),
        ("</dev/null", 0),
        ("<input 1<&0 2<&0", 0),
        ("1>input.copy 2>&1", 0),
    ] {
        let relay = Relay::start(Script::open().on("RCPT", "451 4.7.1 later"));
        let home = Sendmail::to(&relay);
        home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
        fs::write(home.home().join("input"), letter).unwrap();
        if how == "2>/" {
            // A shell cannot, and says so before.
            continue;
        }
        let home = home.through(&format!("exec \"$@\" {how}"));
        for words in [&["-v", "bob@example.org"][..], &["-bp"], &["-qf"]] {
            let before = Ended::of(
                Command::new("/bin/sh")
                    .args(["-c", &format!("exec \"$@\" {how}"), "sh", &sendmail().display().to_string()])
                    .args(words)
                    .env_clear()
                    .envs(home.environment().iter().cloned())
                    .current_dir(home.home()),
                letter,
            );
            let ended = before.status;
            let wanted = if words[0] == "-v" { status } else { 0 };
            let full = how.contains("/dev/full") && words[0] == "-bp";
            assert!(ended == wanted || full && ended == 74, "{how} {words:?}: {before:?}");
        }
        let listed = pillarbox::queue::Queue::find(&home.queue()).unwrap();
        let letters = listed.map_or(0, |queue| queue.list().unwrap().flatten().count());
        assert_eq!(letters, usize::from(status == 0), "{how}");
        drop(relay.finish());
        let good = Relay::start(Script::open());
        home.configure(&good, "tls = \"none\"\nuser =\npassword =\n", "");
        let plain =
            Command::new(sendmail()).arg("-qf").env_clear().envs(home.environment().iter().cloned()).status().unwrap();
        assert!(plain.success());
        let heard = good.finish();
        let got: Vec<_> = heard.iter().flat_map(|dialogue| &dialogue.letters).collect();
        assert_eq!(got.len(), usize::from(status == 0), "{how}");
        if how.contains("input") || how.contains("3>") || how.starts_with('>') || how.starts_with('2') {
            assert_eq!(
                String::from_utf8_lossy(&got[0].content).replace("\r\n", "\n"),
                String::from_utf8_lossy(letter),
                "{how}"
            );
        }
    }
}

/// Whoever shares a pipe or a terminal with us can make it one that does not block.
#[test]
fn a_standard_input_that_does_not_block_is_waited_for() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let letter: &[u8] = b"Subject: whole\n\nhello\n";
    let dialogue: &[u8] = b"EHLO x\nMAIL FROM:<a@b.example>\nRCPT TO:<bob@example.org>\nDATA\nx: y\n\nhello\n.\nQUIT\n";
    for (words, input) in [(&["-odq", "bob@example.org"][..], letter), (&["-odq", "-bs"], dialogue)] {
        let home = Sendmail::new(
            "default = \"x\"\n[account.x]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n[queue]\nrunner = \"off\"\n",
        );
        let (reader, mut writer) = std::io::pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let ours = reader.try_clone().unwrap();
        let mut command = Command::new(sendmail());
        command.args(words).env_clear().envs(home.environment().iter().cloned());
        let mut child = command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        for piece in input.chunks(7) {
            writer.write_all(piece).unwrap();
            let is_read = || poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 0;
            // From then on it looks for the next one.
            while !is_read() && child.try_wait().unwrap().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop((ours, writer));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        let kept: Vec<_> = fs::read_dir(home.queue().join("letters")).unwrap().map(|one| one.unwrap().path()).collect();
        assert_eq!(kept.len(), 1, "{words:?}: {output:?}");
        let kept = fs::read(&kept[0]).unwrap();
        assert!(memchr::memmem::find(&kept, b"\r\n\r\nhello\r\n").is_some(), "{words:?}: {}", kept.escape_ascii());
    }
}

#[test]
fn a_caller_who_stalls_keeps_no_relay_waiting_and_can_be_ended() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        let relay = Relay::start(Script::open());
        let home = Sendmail::to(&relay);
        home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
        let mut running = home.start(&["bob@example.org"]);
        running.feed(&[b"Subject: x\n\n".to_vec(), vec![b'y'; 300_000]].concat());
        running.wait_until_fed();
        assert_eq!(relay.connections(), 0);
        running.signal(signal);
        let ran = running.ended();
        assert_eq!(ran.status, 75, "{signal}: {ran:?}");
        assert_eq!(relay.finish().len(), 0);
        assert_eq!(fs::read_dir(home.queue().join("letters")).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn whatever_lies_where_a_file_should_hangs_nobody_up_and_loses_nothing() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 6] = [
        ("a FIFO", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("a dangling link", |path| std::os::unix::fs::symlink("/nonexistent/file", path).unwrap()),
        ("a link to itself", |path| std::os::unix::fs::symlink(path, path).unwrap()),
        ("an endless device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    // Where, a line for the top, a line for the account, and the statuses that are right.
    let places: [(&str, &str, &str, &[i32]); 12] = [
        ("config.toml", "", "", &[78]),
        ("aliases", "alias_file = \"HOME/aliases\"", "", &[78]),
        ("log", "log = \"HOME/log\"", "", &[0]),
        ("ca.pem", "", "", &[0]),
        ("own.pem", "", "cert_file = \"HOME/own.pem\"", &[0]),
        ("crl.pem", "", "crl_file = \"HOME/crl.pem\"", &[0]),
        ("password", "", "password = { file = \"HOME/password\" }", &[0]),
        (".netrc", "", "password = { netrc = true }", &[0]),
        ("queue", "", "", &[73]),
        ("queue/letters", "", "", &[73]),
        ("queue/tmp", "", "", &[73]),
        ("queue/runner.lock", "", "", &[0]),
    ];
    for (what, plant) in plants {
        for (place, top, account, right) in places {
            let relay = Relay::start(Script::default().on("RCPT", "451 4.7.1 later"));
            let home = Sendmail::to(&relay);
            let named = |line: &str| line.replace("HOME", &home.home().display().to_string());
            home.configure(&relay, &named(account), "");
            let text = fs::read_to_string(home.home().join("config.toml")).unwrap();
            home.put("config.toml", &format!("{}\n{text}", named(top)));
            let path = home.home().join(place);
            if place.starts_with("queue") {
                drop(pillarbox::queue::Queue::open(&home.queue()).unwrap());
                let _ = fs::remove_dir_all(&path);
            }
            let _ = fs::remove_file(&path);
            plant(&path);
            let name = format!("{what} for {place}");
            let ended = call(&home, &["root"], b"Subject: x\n\nhello\n");
            let said = String::from_utf8_lossy(&ended.said).into_owned();
            assert!(!ended.hung, "{name}: hung");
            let status = ended.status.unwrap_or(-1);
            // A directory is what a queue's directory should be.
            let is_fine = what == "a directory" && place.starts_with("queue") && place != "queue/runner.lock";
            assert!(right.contains(&status) || is_fine && status == 0, "{name}: {status} {said}");
            assert!(status == 0 || said.contains(place.rsplit('/').next().unwrap()), "{name}: {said}");
            assert!(!said.contains("no configuration"), "{name}: {said}");
            if status == 0 {
                let letters = fs::read_dir(home.queue().join("letters")).map_or(0, Iterator::count);
                assert_eq!(letters, 1, "{name}: {said}");
            }
            drop(relay.finish());
        }
    }
}

#[test]
fn wherever_the_queue_cannot_be_the_letter_is_the_caller_s_and_told_to_be() {
    let relay = Relay::start(Script::open().on("RCPT", "451 4.7.1 later"));
    let home = Sendmail::to(&relay);
    home.configure(&relay, "tls = \"none\"\nuser =\npassword =\n", "");
    let at = |name: &str| home.home().join(name);
    std::os::unix::fs::symlink("/nonexistent/volume", at("dangling")).unwrap();
    std::os::unix::fs::symlink(at("round"), at("round")).unwrap();
    fs::write(at("file"), b"").unwrap();
    let places = [
        at("dangling/state/queue"),
        at("dangling/queue"),
        at("dangling"),
        at("round/queue"),
        at("file/queue"),
        at(&"long".repeat(100)).join("queue"),
        at(&"deep/".repeat(1000)),
        PathBuf::from("/proc/nothing/queue"),
        PathBuf::from("/proc/queue"),
    ];
    for place in places {
        let mut command = Command::new(sendmail());
        command.arg("bob@example.org").envs(home.environment().iter().cloned());
        command.env("PILLARBOX_QUEUE_DIR", &place).current_dir(home.home());
        fs::write(at("input"), "Subject: x\n\nhello\n").unwrap();
        let ended = measure::run(&command, Stdio::from(File::open(at("input")).unwrap()), home.home());
        let said = String::from_utf8_lossy(&ended.said).into_owned();
        assert_eq!(ended.status, Some(73), "{}: {said}", place.display());
        assert!(said.ends_with("nothing was sent and nothing is kept\n"), "{}: {said}", place.display());
        assert!(!place.exists(), "{}", place.display());
    }
    drop(relay.finish());
}

/// The library that reads them would open a FIFO and wait, and read a device to its end.
#[test]
fn roots_that_the_environment_names_hang_nobody_up() {
    type Plant = fn(&Path);
    let fifo: Plant = |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases: [(&str, Plant, &str); 5] = [
        ("a FIFO", fifo, "is not a regular file"),
        ("an endless device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(), "is not a regular file"),
        ("a directory", |path| fs::create_dir(path).unwrap(), "is not a regular file"),
        ("a huge file", |path| fs::File::create(path).unwrap().set_len(65 << 20).unwrap(), "has more than 64 MiB"),
        ("nothing", |_| {}, "No such file or directory"),
    ];
    for (what, plant, why) in cases {
        let relay = Relay::start(Script::default());
        let home = Sendmail::with(&relay, "ca_file =\n", "");
        let path = home.home().join("roots");
        plant(&path);
        let home = home.env("SSL_CERT_FILE", &path);
        let ended = call(&home, &["bob@example.org"], b"Subject: x\n\nhello\n");
        let said = String::from_utf8_lossy(&ended.said).into_owned();
        assert!(!ended.hung && ended.status == Some(0), "{what}: {said}");
        assert!(said.contains(&path.display().to_string()) && said.contains(why), "{what}: {said}");
        assert_eq!(fs::read_dir(home.queue().join("letters")).unwrap().count(), 1, "{what}");
        drop(relay.finish());
    }
}
