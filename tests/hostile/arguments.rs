//! Words that mean harm: whatever stands on the command line.

use crate::harm::{indiscretions, is_clean, tree};
use crate::support::relay::{Relay, Script};
use crate::support::sendmail::{Sendmail, sendmail};
use pillarbox::cli::meaning::mean;
use pillarbox::cli::options::{self, OPTIONS, Takes, Treatment};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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
