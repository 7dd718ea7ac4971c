//! The programs of the world that call `sendmail`: their words and input as they were captured.

use crate::support::case::{case, check, text};

#[test]
fn the_callers_of_the_world_are_served() {
    check(CALLERS.iter().map(|caller| {
        let rcpts: Vec<String> = caller.recipients.iter().map(|to| format!("RCPT TO:<{to}>")).collect();
        let wire = format!("MAIL FROM:<{}> SIZE=#\n{}\nDATA", caller.path, rcpts.join("\n"));
        case(caller.name).words(caller.words).input(caller.input).wire(&wire).body(caller.body)
    }));
    check([case("a comment for a name").words(&["-FCronDaemon", "-i", "-oem", "root"]).input(CRON).letter(|letter| {
        let got = text(&letter.content)?;
        let head = "From: root@box.example (Cron Daemon)\nTo: root@box.example\nSubject: Cron <root@box> backup\n";
        let is_right = got.starts_with(head) && got.contains("\nX-Cron-Env: <SHELL=/bin/sh>\n");
        if is_right { Ok(()) } else { Err(got) }
    })]);
}

/// A program that calls `sendmail`: its words and input as they were captured, and the envelope and body that follow.
struct Caller {
    name: &'static str,
    words: &'static [&'static str],
    input: &'static str,
    path: &'static str,
    recipients: &'static [&'static str],
    body: &'static str,
}

const fn caller(
    name: &'static str,
    words: &'static [&'static str],
    input: &'static str,
    path: &'static str,
    recipients: &'static [&'static str],
) -> Caller {
    Caller { name, words, input, path, recipients, body: "hello\n" }
}

const fn cron(
    name: &'static str,
    words: &'static [&'static str],
    path: &'static str,
    recipients: &'static [&'static str],
) -> Caller {
    Caller { name, words, input: CRON, path, recipients, body: "one\n.\ntwo\n" }
}

const CRON: &str = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@box> backup\nMIME-Version: 1.0\n\
    Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\
    X-Cron-Env: <HOME=/root>\n\none\n.\ntwo\n";
const PHP: &str =
    "To: bob@example.org\r\nSubject: x\r\nX-PHP-Originating-Script: 0:a.php\r\nFrom: web@example.com\r\n\r\nhello\r\n";
const TO_BOB: &str = "To: bob@example.org\nSubject: x\n\nhello\n";
const BOB: &[&str] = &["bob@example.org"];
const ROOT: &[&str] = &["root@box.example"];
const ALICE: &str = "alice@example.com";
const A: &str = "a@x.example";

#[rustfmt::skip]
const CALLERS: &[Caller] = &[
    cron("vixie cron", &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root,ops@example.com"],
        ALICE, &["ops@example.com", "root@box.example"]),
    cron("cronie", &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"], "root@box.example", ROOT),
    cron("systemd-cron", &["-i", "-B", "8BITMIME", "root"], ALICE, ROOT),
    cron("busybox crond", &["-ti"], ALICE, ROOT),
    cron("dcron", &["-t", "-oem", "-i"], ALICE, ROOT),
    caller("anacron", &["-FAnacron", "-odi", "root"], "From: Anacron <root>\nTo: root\n\nhello\n", ALICE, ROOT),
    caller("at", &["-i", "root"], "Subject: x\nTo: root\n\nhello\n", ALICE, ROOT),
    caller("bsd-mailx", &["-i", "-t", "-m"],
        "To: bob@example.org\nBcc: c@x.example\n\nhello\n", ALICE, &["bob@example.org", "c@x.example"]),
    caller("mailutils", &["-oi", "-f", "alice@box.example", "-t"],
        "Subject: x\nTo: <bob@example.org>\n\nhello\n", "alice@box.example", BOB),
    caller("mutt", &["-oem", "-oi", "-B8BITMIME", "-f", "a@x.example", "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("s-nail", &["-i", "-m", "-F", "A B", "-f", "a@x.example", "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("aerc", &["bob@example.org"], "To: bob@example.org\r\n\r\nhello\r\n", ALICE, BOB),
    caller("git send-email", &["-f", "a@x.example", "-i", "bob@example.org"], TO_BOB, A, BOB),
    caller("PHP", &["-t", "-i", "-fbounce@example.com"], PHP, "bounce@example.com", BOB),
    caller("PHPMailer", &["-fa@x.example", "-i", "-t"],
        "To: undisclosed-recipients:;\nBcc: bob@example.org\n\nhello\n", A, BOB),
    caller("PEAR Mail", &["-i", "-fa@x.example", "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("Rails", &["-i", "-t", "-f", "a@x.example", "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("Nodemailer", &["-i", "-f", "a@x.example", "bob@example.org"],
        "Bcc: bob@example.org\nSubject: x\n\nhello\n", A, BOB),
    caller("lettre", &["-i", "-f", "a@x.example", "--", "bob@example.org"],
        "To: bob@example.org\r\n\r\nhello\r\n", A, BOB),
    caller("MIME::Lite", &["-t", "-oi", "-oem", "-fa@x.example"], TO_BOB, A, BOB),
    caller("Mail::Mailer", &["-t"], TO_BOB, ALICE, BOB),
    caller("Email::Sender", &["-i", "-f", "", "--", "bob@example.org"], TO_BOB, "", BOB),
    caller("go-mail", &["-oi", "-t"], "To: bob@example.org\r\n\r\nhello\r\n", ALICE, BOB),
    caller("Gitea", &["-f", "a@x.example", "-i", "bob@example.org"], TO_BOB, A, BOB),
    caller("Sympa", &["-oi", "-odi", "-oem", "-f", "", "--", "bob@example.org"], TO_BOB, "", BOB),
    caller("RT", &["-oi", "-t", "-f", "<>", "-ODeliveryMode=i", "-OErrorMode=m"], TO_BOB, "", BOB),
    caller("Dovecot", &["-i", "-f", "<>", "--", "bob@example.org"], "To: bob@example.org\r\n\r\nhello\r\n", "", BOB),
    caller("systemd OnFailure", &["-t"],
        "To: root\nFrom: systemd <root@box>\nSubject: x\nContent-Transfer-Encoding: 8bit\n\nhello\n", ALICE, ROOT),
    caller("vacation", &["-eq", "-f", "<>", "bob@example.org"], TO_BOB, "", BOB),
];
