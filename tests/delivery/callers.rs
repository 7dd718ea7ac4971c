//! The programs of the world that call `sendmail`: their words and input as they were captured. `tests/callers.rs` runs
//! those that Debian has.

use crate::support::case::{case, check, text};

#[test]
fn the_callers_of_the_world_are_served() {
    check(CALLERS.iter().map(|caller| {
        let rcpts: Vec<String> = caller.recipients.iter().map(|to| format!("RCPT TO:<{to}>")).collect();
        let wire = format!("MAIL FROM:<{}> SIZE=#\n{}\nDATA", caller.path, rcpts.join("\n"));
        case(caller.name).words(caller.words).input(caller.input).wire(&wire).body(caller.body).letter(|letter| {
            let got = text(&letter.content)?;
            if got.contains("Bcc") { Err(got) } else { Ok(()) }
        })
    }));
    let asks =
        |name: &str, words: &[&str], wire: &str| case(name).words(words).input(TO_BOB).wire(wire).body("hello\n");
    check([
        asks(
            "mutt with reports",
            &["-oem", "-oi", "-f", A, "-N", "failure,delay", "-R", "hdrs", "--", "bob@example.org"],
            "MAIL FROM:<a@x.example> SIZE=# RET=HDRS\nRCPT TO:<bob@example.org> NOTIFY=FAILURE,DELAY\nDATA",
        ),
        asks(
            "Swoosh",
            &["-fa@x.example", "-oi", "-t", "-N", "delay,failure,success"],
            "MAIL FROM:<a@x.example> SIZE=#\nRCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE,DELAY\nDATA",
        ),
        asks(
            "Sympa",
            &["-oi", "-odi", "-oem", "-N", "success,delay,failure", "-V00000042", "-f", "", "--", "bob@example.org"],
            "MAIL FROM:<> SIZE=# ENVID=00000042\nRCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE,DELAY\nDATA",
        ),
    ]);
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
const CRLF: &str = "To: bob@example.org\r\nSubject: x\r\n\r\nhello\r\n";
const HIDDEN: &str = "To: bob@example.org\nBcc: c@x.example\nSubject: x\n\nhello\n";
const BOB: &[&str] = &["bob@example.org"];
const BOTH: &[&str] = &["bob@example.org", "c@x.example"];
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
    caller("bcron", &["-FCronDaemon", "-odi", "-oem", "bob@example.org"], TO_BOB, ALICE, BOB),
    caller("anacron", &["-FAnacron", "-odi", "root"], "From: Anacron <root>\nTo: root\n\nhello\n", ALICE, ROOT),
    caller("at", &["-i", "root"], "Subject: x\nTo: root\n\nhello\n", ALICE, ROOT),
    caller("bsd-mailx", &["-i", "-t", "-m"], HIDDEN, ALICE, BOTH),
    caller("mailutils", &["-oi", "-f", "alice@box.example", "-t"],
        "Subject: x\nTo: <bob@example.org>\n\nhello\n", "alice@box.example", BOB),
    caller("mutt", &["-oem", "-oi", "-B8BITMIME", "-f", A, "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("s-nail", &["-i", "-m", "-F", "A B", "-f", A, "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("aerc", &["bob@example.org"], "To: bob@example.org\r\n\r\nhello\r\n", ALICE, BOB),
    caller("alpine", &["-oem", "-t", "-oi"], TO_BOB, ALICE, BOB),
    caller("Emacs", &["-oi", "-f", A, "-oep", "-odi", "-t"], TO_BOB, A, BOB),
    caller("Emacs' resend", &["-oi", "-f", A, "-oem", "bob@example.org, c@x.example"], TO_BOB, A, BOTH),
    caller("git send-email", &["-f", A, "-i", "bob@example.org", "c@x.example"], TO_BOB, A, BOTH),
    caller("PHP", &["-t", "-i"], PHP, ALICE, BOB),
    caller("PHP with -f", &["-t", "-i", "-fbounce@example.com"], PHP, "bounce@example.com", BOB),
    caller("PHPMailer", &["-fa@x.example", "-i", "-t"],
        "To: undisclosed-recipients:;\nBcc: bob@example.org\n\nhello\n", A, BOB),
    caller("Symfony", &["-i", "-fa@x.example", "bob@example.org"], TO_BOB, A, BOB),
    caller("PEAR Mail", &["-i", "-fa@x.example", "--", "bob@example.org", "c@x.example"], TO_BOB, A, BOTH),
    caller("Rails", &["-i", "-t", "-f", A, "--", "bob@example.org"], TO_BOB, A, BOB),
    caller("GitLab", &["-i", "-t", "-f", A, "bob@example.org"], TO_BOB, A, BOB),
    caller("Nodemailer", &["-i", "-f", A, "bob@example.org", "c@x.example"], HIDDEN, A, BOTH),
    caller("lettre", &["-i", "-f", A, "--", "bob@example.org"], CRLF, A, BOB),
    caller("MIME::Lite", &["-t", "-oi", "-oem", "-fa@x.example"], HIDDEN, A, BOTH),
    caller("Mail::Mailer", &["-t"], TO_BOB, ALICE, BOB),
    caller("Email::Sender", &["-i", "-f", "", "--", "bob@example.org"], TO_BOB, "", BOB),
    caller("go-mail", &["-oi", "-t"], "To: bob@example.org\r\n\r\nhello\r\n", ALICE, BOB),
    caller("Gitea", &["-f", A, "-i", "bob@example.org"], TO_BOB, A, BOB),
    caller("Sympa, no reports", &["-oi", "-odi", "-oem", "-f", "", "--", "bob@example.org"], TO_BOB, "", BOB),
    caller("RT", &["-oi", "-t", "-ODeliveryMode=i", "-OErrorMode=m"], TO_BOB, ALICE, BOB),
    caller("RT's bounce", &["-oi", "-t", "-f", "<>", "-ODeliveryMode=i", "-OErrorMode=m"], TO_BOB, "", BOB),
    caller("Dovecot", &["-i", "-f", "<>", "--", "bob@example.org"], CRLF, "", BOB),
    caller("systemd OnFailure", &["-t"],
        "To: root\nFrom: systemd <root@box>\nSubject: x\nContent-Transfer-Encoding: 8bit\n\nhello\n", ALICE, ROOT),
    caller("logwatch, mdadm, sudo", &["-t"], "To: root\nFrom: root\nSubject: x\n\nhello\n", ALICE, ROOT),
    caller("logcheck", &["-oi", "bob@example.org"], TO_BOB, ALICE, BOB),
    caller("fail2ban", &["-f", A, "bob@example.org"], TO_BOB, A, BOB),
    caller("rkhunter", &["bob@example.org"], TO_BOB, ALICE, BOB),
    caller("reportbug", &["-f", A, "-oi", "-oem", "bob@example.org"], TO_BOB, A, BOB),
    caller("popularity-contest", &["-oi", "-f", A, "bob@example.org"], TO_BOB, A, BOB),
    caller("vacation", &["-eq", "-f", "<>", "bob@example.org"], TO_BOB, "", BOB),
];
