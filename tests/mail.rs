//! `pillarbox mail`, and `mail` by name, as people and scripts use them: the real program, a relay on loopback, and
//! what is read at the other end by Python's `email` and by mutt.

#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use support::household::Household;
use support::peer::{Running, here, run, wait_for};
use support::relay::{Letter, Relay, Script};
use support::running::Ended;
use support::typist::typed;

const PILLARBOX: &str = env!("CARGO_BIN_EXE_pillarbox");

fn config(port: u16) -> String {
    format!(
        "domain = \"box.example\"\n[account.work]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         from = \"alice@example.org\"\nfrom_name = \"Alice\"\n[account.other]\nhost = \"127.0.0.1\"\nport = {port}\n\
         tls = \"none\"\nfrom = \"other@example.org\"\n"
    )
}

/// A person, and the relay of the account.
struct Desk {
    household: Household,
    relay: Relay,
}

impl Desk {
    fn new() -> Self {
        Self::at(Script::open())
    }

    fn at(script: Script) -> Self {
        let relay = Relay::start(script);
        let household = Household::new(&format!("default = \"work\"\n{}", config(relay.address.port())));
        symlink(PILLARBOX, household.home().join("mail")).unwrap();
        Self { household, relay }
    }

    fn put(&self, name: &str, octets: &[u8]) {
        fs::write(self.household.home().join(name), octets).unwrap();
    }

    /// `pillarbox mail`.
    fn own(&self, words: &[&str], text: &[u8]) -> Ended {
        Ended::of(self.household.command(PILLARBOX).arg("mail").args(words), text)
    }

    /// `mail`.
    fn mail(&self, words: &[&str], text: &[u8]) -> Ended {
        Ended::of(self.household.command(self.household.home().join("mail")).args(words), text)
    }

    /// The letters that the relay got.
    fn letters(self) -> Vec<Letter> {
        self.relay.finish().into_iter().flat_map(|dialogue| dialogue.letters).collect()
    }

    /// The one letter that the relay got.
    fn letter(self) -> Letter {
        let mut letters = self.letters();
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters.remove(0)
    }
}

fn header(letter: &Letter) -> String {
    String::from_utf8_lossy(&letter.content).split("\r\n\r\n").next().unwrap().replace("\r\n", "\n")
}

fn recipients(letter: &Letter) -> Vec<&str> {
    letter.recipients.iter().map(|to| to.split(['<', '>']).nth(1).unwrap()).collect()
}

/// What Python's `email` makes of a letter: its subject, and of
/// each part a line with type, charset and name, and its content.
fn read_by_python(letter: &Letter, dir: &Path) -> (String, Vec<(String, Vec<u8>)>) {
    const READ: &str = r"
import email, email.policy, sys
letter = email.message_from_binary_file(open('letter.eml', 'rb'), policy=email.policy.default)
assert not letter.defects, letter.defects
print(letter['subject'])
parts = [part for part in letter.walk() if not part.is_multipart()]
for number, part in enumerate(parts):
    assert not part.defects, (part.get_content_type(), part.defects)
    open('part%d' % number, 'wb').write(part.get_payload(decode=True))
    print(part.get_content_type(), part.get_param('charset'), part.get_filename())
";
    fs::write(dir.join("letter.eml"), &letter.content).unwrap();
    let said = run(Command::new("python3").args(["-c", READ]).current_dir(dir).env("PYTHONIOENCODING", "utf-8"));
    let mut lines = said.lines().map(str::to_owned);
    let subject = lines.next().unwrap();
    let part = |(number, line)| (line, fs::read(dir.join(format!("part{number}"))).unwrap());
    (subject, lines.enumerate().map(part).collect())
}

#[test]
fn a_text_and_files_arrive_octet_for_octet_at_pythons_email() {
    if !here(&["python3"]) {
        return;
    }
    let desk = Desk::new();
    let text = format!("Gr\u{fc}\u{df}e\n.\n.dot\nFrom here on\n\n{} \n", "very long ".repeat(200));
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\n.\n\r\n".repeat(5_000);
    let long = format!("{}.txt", "a very long name ".repeat(9));
    desk.put("\u{dc}bersicht \"2026\".jpg", &picture);
    desk.put("lines.txt", b"one\ntwo\r\nthree\rno end");
    desk.put(&long, b"x");
    desk.put("-odd", b"\0\xff");
    let words =
        ["-s", "Bericht f\u{fc}r K\u{f6}ln", "-a", "\u{dc}bersicht \"2026\".jpg", "-a", "lines.txt", "-a", &long];
    desk.own(
        &[&words[..], &["-a", "-odd", "-c", "J\u{f6}rg <joerg@example.org>", "bob@example.org"]].concat(),
        text.as_bytes(),
    )
    .silent_success();
    let home = tempfile::tempdir().unwrap();
    let letter = desk.letter();
    assert!(letter.content.is_ascii() && letter.content.split(|octet| *octet == b'\n').all(|line| line.len() < 100));
    let (subject, parts) = read_by_python(&letter, home.path());
    assert_eq!(subject, "Bericht f\u{fc}r K\u{f6}ln");
    let want: [(&str, &[u8]); 5] = [
        ("text/plain utf-8 None", text.as_bytes()),
        ("image/png None \u{dc}bersicht \"2026\".jpg", &picture),
        ("text/plain utf-8 lines.txt", b"one\ntwo\r\nthree\rno end"),
        (&format!("text/plain utf-8 {long}"), b"x"),
        ("application/octet-stream None -odd", b"\0\xff"),
    ];
    assert_eq!(parts.iter().map(|(line, _)| line).collect::<Vec<_>>(), want.map(|(line, _)| line));
    for ((line, got), (_, want)) in parts.iter().zip(want) {
        assert!(got == want, "{line}");
    }
}

#[test]
fn mutt_shows_the_text_and_saves_the_files_under_their_names() {
    if !here(&["mutt", "script"]) {
        return;
    }
    let desk = Desk::new();
    let data: Vec<u8> = (0..100_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    desk.put("\u{fc}bel \u{20ac}.bin", &data);
    desk.put("page.html", "<p>Sch\u{f6}n</p>\n".as_bytes());
    let words = [
        "-s",
        "Gr\u{fc}\u{df}e \u{20ac}",
        "-a",
        "\u{fc}bel \u{20ac}.bin",
        "--html",
        "page.html",
        "Bob <bob@example.org>",
    ];
    desk.own(&words, "Sch\u{f6}ne Gr\u{fc}\u{df}e\n".as_bytes()).silent_success();
    let home = tempfile::tempdir().unwrap();
    let mut mailbox = b"From alice@example.org Sat Nov 28 00:00:00 2026\n".to_vec();
    mailbox.extend(String::from_utf8(desk.letter().content).unwrap().replace("\r\n", "\n").into_bytes());
    fs::write(home.path().join("mbox"), mailbox).unwrap();
    // The letter as mutt shows it, then the second of its attachments under the name that it has.
    let rc = "set folder=. record=\nset quit=yes wait_key=no pipe_decode=yes confirmcreate=no charset=utf-8\n\
              set sleep_time=0\n\
              push \"<pipe-message>cat >shown<enter><view-attachments><last-entry><save-entry><enter><exit><quit>\"\n";
    fs::write(home.path().join("rc"), rc).unwrap();
    let line = "mutt -n -F rc -f mbox";
    let mut mutt = Command::new("timeout");
    mutt.args(["60", "script", "-qec", line, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
    mutt.current_dir(home.path()).env("HOME", home.path()).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    let ended = mutt.output().unwrap();
    let shown = fs::read_to_string(home.path().join("shown")).unwrap_or_default();
    assert!(shown.contains("Subject: Gr\u{fc}\u{df}e \u{20ac}\n"), "{ended:?} {shown}");
    assert!(shown.contains("\nSch\u{f6}ne Gr\u{fc}\u{df}e\n"), "{shown}");
    assert!(fs::read(home.path().join("\u{fc}bel \u{20ac}.bin")).unwrap() == data, "{shown}");
}

#[test]
fn who_sends_and_who_receives_is_what_the_words_say() {
    for (words, sender, to, fields) in [
        (
            &["bob@example.org"][..],
            "alice@example.org",
            &["bob@example.org"][..],
            &["From: Alice <alice@example.org>", "To: bob@example.org"][..],
        ),
        (
            &["root", "a@x.org,b@x.org"],
            "alice@example.org",
            &["root@box.example", "a@x.org", "b@x.org"],
            &["To: root@box.example, a@x.org, b@x.org"],
        ),
        (
            &["-r", "Carol C. <carol@example.org>", "bob@x.org"],
            "carol@example.org",
            &["bob@x.org"],
            &["From: \"Carol C.\" <carol@example.org>"],
        ),
        (&["-A", "other", "bob@x.org"], "other@example.org", &["bob@x.org"], &[]),
        (
            &["-c", "c@x.org", "-b", "d@x.org", "t@x.org"],
            "alice@example.org",
            &["t@x.org", "c@x.org", "d@x.org"],
            &["To: t@x.org", "Cc: c@x.org"],
        ),
        (&["-b", "d@x.org"], "alice@example.org", &["d@x.org"], &[]),
        (
            &["-S", "Reply-To=J\u{f6} <j@x.org>", "t@x.org"],
            "alice@example.org",
            &["t@x.org"],
            &["Reply-To: =?utf-8?B?SsO2?= <j@x.org>"],
        ),
        (&["--", "-odd@x.org"], "alice@example.org", &["-odd@x.org"], &["To: -odd@x.org"]),
        (
            &["-s", "a\r\nBcc: evil@x.org\n\nbody", "t@x.org"],
            "alice@example.org",
            &["t@x.org"],
            &["Subject: a  Bcc: evil@x.org  body"],
        ),
        (&["-S", "X-A=a\nBcc: evil@x.org", "t@x.org"], "alice@example.org", &["t@x.org"], &["X-A: a Bcc: evil@x.org"]),
    ] {
        let desk = Desk::new();
        desk.own(words, b"hi\n").silent_success();
        let letter = desk.letter();
        let header = header(&letter);
        assert!(letter.mail.starts_with(&format!("MAIL FROM:<{sender}>")), "{words:?}: {}", letter.mail);
        assert_eq!(recipients(&letter), to, "{words:?}");
        for field in fields {
            assert!(header.lines().any(|line| line == *field), "{words:?}: no {field} in\n{header}");
        }
        assert!(!header.lines().any(|line| line.starts_with("Bcc")), "{header}");
        let has_subject = words.contains(&"-s");
        assert_eq!(header.contains("Subject:"), has_subject, "{header}");
    }
}

#[test]
fn a_mailx_takes_what_users_of_the_others_type() {
    let html = "Content-Type: text/html; charset=us-ascii";
    for (words, text, to, fields) in [
        (
            &["-s", "x", "-a", "From: F <f@x.org>", "-a", "Content-Type: text/html", "bob@x.org"][..],
            "hi\n",
            &["bob@x.org"][..],
            &["From: F <f@x.org>", html][..],
        ),
        (
            &["-nE", "-sx", "-S", "ttycharset=utf-8", "-S", "X-Y=z", "bob@x.org"],
            "hi\n",
            &["bob@x.org"],
            &["Subject: x", "X-Y: z"],
        ),
        (
            &["--subject=x", "--append=X-Y: z", "--return-address=f@x.org", "bob@x.org"],
            "hi\n",
            &["bob@x.org"],
            &["Subject: x", "X-Y: z"],
        ),
        (
            &["-t"],
            "To: bob@x.org, C <c@x.org>\nBcc: d@x.org\nSubject: \u{fc}\nFrom: f@x.org\n\nhi\n",
            &["bob@x.org", "c@x.org", "d@x.org"],
            &["Subject: =?utf-8?B?w7w=?=", "From: f@x.org"],
        ),
        (&["-q", "start", "bob@x.org"], "hi\n", &["bob@x.org"], &[]),
        (&["-A", "other", "bob@x.org"], "~!touch ran\nhi\n", &["bob@x.org"], &["To: bob@x.org"]),
        (&["-A", "start", "bob@x.org"], "hi\n", &["bob@x.org"], &[]),
        (&["-a", "start", "bob@x.org"], "hi\n", &["bob@x.org"], &[]),
    ] {
        let desk = Desk::new();
        desk.put("start", b"the start\n");
        desk.mail(words, text.as_bytes()).silent_success();
        assert!(!desk.household.home().join("ran").exists());
        let letter = desk.letter();
        let (header, content) = (header(&letter), String::from_utf8(letter.content.clone()).unwrap());
        assert_eq!(recipients(&letter), to, "{words:?}");
        for field in fields {
            assert!(header.lines().any(|line| line == *field), "{words:?}: no {field} in\n{header}");
        }
        match words[0] {
            "-q" => assert!(content.ends_with("\r\n\r\nthe start\r\nhi\r\n"), "{content}"),
            _ if words.get(1) == Some(&"start") => {
                assert!(content.contains("filename=\"start\"\r\n\r\ndGhlIHN0YXJ0Cg=="), "{content}");
            }
            _ if text.starts_with('~') => assert!(content.ends_with("\r\n\r\n~!touch ran\r\nhi\r\n"), "{content}"),
            _ => assert!(content.ends_with("\r\n\r\nhi\r\n"), "{content}"),
        }
    }
}

#[test]
fn what_cannot_be_sent_is_told_and_nobody_is_connected_to() {
    let desk = Desk::new();
    for (words, text, status, says) in [
        (&[][..], &b"x"[..], 64, "name a recipient"),
        (&["bob@x.org", "-a", "/etc/passwd"], b"x", 64, "options must precede recipients"),
        (&["Doe, John <j@x.org>"], b"x", 64, "must be in double quotes"),
        (&["-c", "a@b\nRCPT TO:<evil@x>", "bob@x.org"], b"x", 64, "control character"),
        (&["-r", "a@b\r\nX: y", "bob@x.org"], b"x", 64, "control character"),
        (&["-S", "X\nBcc=evil@x.org", "bob@x.org"], b"x", 64, "cannot be the name of a field"),
        (&["-a", "no-such-file", "bob@x.org"], b"x", 66, "no-such-file cannot be read: No such file or directory"),
        (&["-a", "/", "bob@x.org"], b"x", 66, "/ cannot be read: is a directory"),
        // /dev/zero would be read until the disk is full.
        (&["-a", "/dev/null", "bob@x.org"], b"x", 66, "/dev/null cannot be read: it is neither a file nor a pipe"),
        (&["--html", "/dev/null", "bob@x.org"], b"x", 66, "/dev/null cannot be read: it is neither a file nor a pipe"),
        (&["--html", "no-such-file", "bob@x.org"], b"x", 66, "no-such-file cannot be read"),
        (&["-A", "no-such-account", "bob@x.org"], b"x", 78, "there is no account \"no-such-account\""),
        (&["bob@x.org"], b"one\ntw\0o\n", 65, "line 2 of the message holds a NUL"),
    ] {
        desk.own(words, text).says(status, &[says, "nothing was sent"]);
    }
    desk.mail(&["-q", "/dev/null", "bob@x.org"], b"x").says(66, &["neither a file nor a pipe", "nothing was sent"]);
    for words in
        [&["-f"][..], &["-H"], &["-u", "bob"], &["-~", "bob@x.org"], &["-S", "mta=smtp://evil.example", "bob@x.org"]]
    {
        desk.mail(words, b"x").says(64, &["nothing was sent"]);
    }
    desk.mail(&["-E", "bob@x.org"], b"").silent_success();
    assert_eq!(desk.relay.connections(), 0);
    assert_eq!(desk.letters().len(), 0);
}

#[test]
fn an_attachment_may_come_through_a_pipe() {
    let desk = Desk::new();
    desk.own(&["-s", "x", "-a", "/dev/stdin", "bob@x.org"], b"\x89PNG from a pipe").silent_success();
    let letter = desk.letter();
    let content = String::from_utf8_lossy(&letter.content).into_owned();
    assert!(content.contains("filename=\"stdin\"") && content.contains("iVBORyBmcm9tIGEgcGlwZQ=="), "{content}");
}

#[test]
fn the_exit_contract_is_sendmails() {
    // The relay is down: the queue owns it, and says nothing.
    let household = Household::new(&config(1));
    let mail = |household: &Household, words: &[&str]| {
        Ended::of(household.command(PILLARBOX).arg("mail").args(words), "Gr\u{fc}\u{df}e\n".as_bytes())
    };
    mail(&household, &["-A", "work", "bob@x.org"]).silent_success();
    assert!(household.mailq().contains("bob@x.org"));
    // No queue: the letter is the caller's again.
    let mut off = household.command(PILLARBOX);
    off.env("PILLARBOX_QUEUE", "off").args(["mail", "-A", "work", "bob@x.org"]);
    Ended::of(&mut off, b"hi\n").says(75, &["<bob@x.org> deferred", "nothing is kept"]);
    // The relay refuses the recipient.
    let desk = Desk::at(Script::open().on("RCPT TO:<nobody@", "550 5.1.1 no such user"));
    desk.own(&["nobody@x.org"], b"hi\n").says(67, &["<nobody@x.org> refused", "no such user"]);
}

#[test]
fn the_machines_service_takes_it_too() {
    let relay = Relay::start(Script::open());
    let (service, user) = (Household::new(""), Household::new(""));
    let socket = service.home().join("submit.sock");
    service.configure(&format!(
        "domain = \"box.example\"\n[aliases]\nroot = \"ops@example.org\"\n[account.work]\nhost = \"127.0.0.1\"\n\
         port = {}\n\
         tls = \"none\"\nfrom = \"relay@example.org\"\n[serve]\nsocket = \"{}\"\n",
        relay.address.port(),
        socket.display()
    ));
    let mut serve = service.command(PILLARBOX);
    serve.env("PILLARBOX_QUEUE_DIR", service.home().join("spool")).args(["serve", "-C"]).arg(service.config_file());
    let mut serve = Running(serve.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("the service", || std::os::unix::net::UnixStream::connect(&socket).ok());
    fs::remove_file(user.config_file()).unwrap();
    let mut mail = user.command(PILLARBOX);
    mail.env("PILLARBOX_SOCKET", &socket).args([
        "mail",
        "-s",
        "x",
        "-r",
        "Carol <carol@example.org>",
        "-b",
        "d@x.org",
        "root",
    ]);
    Ended::of(&mut mail, b"hi\n").silent_success();
    let waiting = service.home().join("spool/letters");
    wait_for("the letter's way out", || fs::read_dir(&waiting).ok()?.next().is_none().then_some(()));
    kill(Pid::from_raw(serve.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    serve.0.wait().unwrap();
    let letters: Vec<Letter> = relay.finish().into_iter().flat_map(|dialogue| dialogue.letters).collect();
    let header = header(&letters[0]);
    assert_eq!(recipients(&letters[0]), ["ops@example.org", "d@x.org"]);
    assert!(header.contains("From: Carol <carol@example.org>\n") && !header.contains("d@x.org"), "{header}");
}

#[test]
fn a_letter_can_be_typed_at_a_terminal() {
    if !here(&["python3"]) {
        return;
    }
    let hint = "Ctrl-D or a line with a lone dot ends it.";
    for (line, turns, ends, want) in [
        (
            "exec ./mail bob@x.org",
            format!("Subject: |hello\\n|{hint}\\r\\n|one\\n..\\ntwo\\n.\\n"),
            "status 0",
            Some("one\r\n..\r\ntwo\r\n"),
        ),
        ("exec ./mail -s s bob@x.org", format!("{hint}\\r\\n|one\\n\\x04"), "status 0", Some("one\r\n")),
        (
            "exec ./mail -s s bob@x.org",
            format!("{hint}\\r\\n|one\\n\\x03|thrown away)\\r\\n|two\\n.\\n"),
            "status 0",
            Some("two\r\n"),
        ),
        (
            "exec ./mail -s s bob@x.org",
            format!("{hint}\\r\\n|one\\n\\x03|thrown away)\\r\\n|\\x03"),
            "nothing was sent and nothing is kept\n\nstatus 75",
            None,
        ),
        ("exec ./mail -is s bob@x.org", format!("{hint}\\r\\n|one\\n\\x03two\\n.\\n"), "status 0", Some("two\r\n")),
    ] {
        let desk = Desk::new();
        let shown = typed(&desk.household, line, &turns);
        assert!(shown.ends_with(ends), "{turns}: {shown}");
        // A Ctrl-C that the program comes to hear of only when the text has ended leaves the letter to the queue.
        desk.household.run_queue();
        let letters = desk.letters();
        let body = letters.first().map(|letter| String::from_utf8_lossy(&letter.content).into_owned());
        match want {
            None => assert_eq!(body, None),
            Some(want) => assert!(body.as_ref().is_some_and(|body| body.ends_with(want)), "{turns}: {body:?} {shown}"),
        }
        if turns.contains("hello") {
            assert!(body.unwrap().contains("Subject: hello\r\n"));
        }
    }
}

#[test]
fn a_large_letter_shows_on_a_terminal_how_far_it_has_come() {
    if !here(&["python3"]) {
        return;
    }
    let desk = Desk::new();
    desk.put("big", &vec![7; 3 << 20]);
    let shown = typed(&desk.household, "echo hi | ./mail -a big bob@x.org", "");
    assert!(shown.contains("] 100 %  4.1 of 4.1 MiB\r\u{1b}[K") && shown.ends_with("status 0"), "{shown}");
    let quiet = desk.mail(&["-a", "big", "bob@x.org"], b"hi\n");
    quiet.silent_success();
    let small = typed(&desk.household, "echo hi | ./mail bob@x.org", "");
    assert_eq!(small, "\nstatus 0");
    assert_eq!(desk.letters().len(), 3);
}

#[test]
fn a_large_file_takes_no_memory() {
    if !here(&["python3"]) {
        return;
    }
    // Nobody listens: it goes to the queue, and was read, encoded and written all the same.
    let household = Household::new(&config(1));
    fs::write(household.home().join("big"), vec![7; 64 << 20]).unwrap();
    let line = "import resource, subprocess, sys\nstatus = subprocess.run(sys.argv[1:], input=b'hi').returncode\n\
                print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut python = household.command("python3");
    let said = run(python.args(["-c", line, PILLARBOX, "mail", "-A", "work", "-a", "big", "bob@x.org"]));
    let (status, kib) = said.trim().split_once(' ').unwrap();
    assert_eq!(status, "0");
    // A Python that forks is larger than we are.
    assert!(kib.parse::<u32>().unwrap() < 32 << 10, "{kib} KiB");
    assert!(household.mailq().contains("bob@x.org"));
}
