//! The programs that people have: each sends a letter through our `sendmail` as it would through any other.
//!
//! They find it where they look for it, at /usr/sbin/sendmail, in a mount namespace of their own; the system's is
//! not touched. The home of root is the test's household there, because some callers take away `$HOME`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use support::household::{Ended, Household, sendmail};
use support::peer::{here, run};
use support::relay::{Letter, Relay, Script};

/// A program and how it is made to send: `$TO` is whom to, the subject (where it has a say) is "hello", the text has
/// "good day" in it.
struct Caller {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    script: &'static str,
    /// Whether its exit status tells that nobody has the letter.
    tells: bool,
    /// Whether it asks for a report to the sender, too (`-oem`).
    reports: bool,
}

/// They wait for the letter themselves, or the namespace does.
const CALLERS: [Caller; 11] = [
    Caller {
        name: "cron",
        package: "cron",
        program: "cron",
        script: r#"
            mount -t tmpfs tmpfs /run
            mount -t tmpfs tmpfs /var/spool/cron
            mkdir /var/spool/cron/crontabs
            printf 'MAILTO=%s\n@reboot echo good day\n' "$TO" >/var/spool/cron/crontabs/root
            chmod 600 /var/spool/cron/crontabs/root
            mount --bind "$TELLTALE" /usr/sbin/sendmail
            cron -f & until_told"#,
        tells: false,
        reports: true,
    },
    Caller {
        name: "at",
        package: "at",
        program: "atd",
        script: r#"
            mount -t tmpfs tmpfs /run
            mount -t tmpfs tmpfs /var/spool/cron
            mkdir /var/spool/cron/atjobs /var/spool/cron/atspool
            touch /var/spool/cron/atjobs/.SEQ
            chown -R daemon:daemon /var/spool/cron/at*
            chmod -R 1770 /var/spool/cron/at*
            chmod 600 /var/spool/cron/atjobs/.SEQ
            cd / && echo 'echo good day' | at now 2>/dev/null
            mount --bind "$TELLTALE" /usr/sbin/sendmail
            atd -f & until_told"#,
        tells: false,
        reports: false,
    },
    Caller {
        name: "anacron",
        package: "anacron",
        program: "anacron",
        script: r#"
            printf 'MAILTO=%s\n1 0 job echo good day\n' "$TO" >tab
            anacron -d -f -n -t "$PWD/tab" -S "$PWD" 2>/dev/null"#,
        tells: false,
        reports: false,
    },
    Caller {
        name: "s-nail",
        package: "s-nail",
        program: "s-nail",
        script: r#"echo good day | s-nail -n -S mta=/usr/sbin/sendmail -S sendwait -s hello "$TO""#,
        tells: true,
        reports: false,
    },
    Caller {
        name: "mailx",
        package: "bsd-mailx",
        program: "bsd-mailx",
        script: r#"echo good day | bsd-mailx -s hello "$TO""#,
        tells: true,
        reports: false,
    },
    Caller {
        name: "GNU mail",
        package: "mailutils",
        program: "mail.mailutils",
        script: r#"echo good day | mail.mailutils -s hello "$TO""#,
        tells: true,
        reports: false,
    },
    Caller {
        name: "mutt",
        package: "mutt",
        program: "mutt",
        script: r#"echo good day | mutt -n -F /dev/null -s hello -- "$TO""#,
        tells: true,
        reports: true,
    },
    Caller {
        name: "git send-email",
        package: "git-email",
        program: "/usr/lib/git-core/git-send-email",
        script: r#"
            export GIT_COMMITTER_NAME=Alice GIT_COMMITTER_EMAIL=alice@example.org
            export GIT_AUTHOR_NAME=Alice GIT_AUTHOR_EMAIL=alice@example.org
            printf 'From: Alice <alice@example.org>\nSubject: hello\n\ngood day\n' >0001-hello.patch
            /usr/bin/git --exec-path=/usr/lib/git-core send-email --quiet --confirm=never --suppress-cc=all \
                --from='Alice <alice@example.org>' --to="$TO" 0001-hello.patch"#,
        tells: true,
        reports: false,
    },
    Caller {
        name: "PHP mail()",
        package: "php8.2-cli",
        program: "php",
        script: r#"php -r 'exit(mail(getenv("TO"), "hello", "good day\r\n") ? 0 : 1);'"#,
        tells: true,
        reports: false,
    },
    Caller {
        name: "Python subprocess",
        package: "python3-minimal",
        program: "python3",
        script: r#"
            /usr/bin/python3 -c '
import os, subprocess, sys
letter = "To: %s\nSubject: hello\n\ngood day\n" % os.environ["TO"]
sys.exit(subprocess.run(["/usr/sbin/sendmail", "-t", "-oi"], input=letter.encode()).returncode)'"#,
        tells: true,
        reports: false,
    },
    Caller {
        name: "Emacs message-mode",
        package: "emacs-nox",
        program: "emacs",
        script: r#"
            cat >send.el <<'END'
(require 'message)
(setq send-mail-function 'sendmail-send-it message-send-mail-function 'message-send-mail-with-sendmail
      sendmail-program "/usr/sbin/sendmail" user-full-name "Alice" user-mail-address "alice@example.org")
(with-temp-buffer
  (insert "From: Alice <alice@example.org>\nTo: " (getenv "TO") "\nSubject: hello\n--text follows this line--\ngood day\n")
  (message-mode)
  (message-send-mail))
END
            emacs --batch --quick --load send.el >/dev/null 2>&1"#,
        tells: true,
        reports: false,
    },
];

/// What every caller finds around it. `until_told` waits for the end of a `sendmail` that a daemon started.
const AROUND: &str = r#"
set -e
mount --bind "$SENDMAIL" /usr/sbin/sendmail
mount --bind "$HOME" /root
HOME=/root
cd
until_told() {
    while [ ! -e "$TOLD" ]; do sleep 0.05; done
}
status=0
eval "$SCRIPT" || status=$?
# Some do not wait for it.
while pgrep 'sendmail|mailx' >/dev/null; do sleep 0.05; done
exit $status
"#;

impl Caller {
    fn is_here(&self) -> bool {
        here(&["root", "unshare", "pgrep", "/usr/sbin/sendmail", self.program])
    }

    fn version(&self) -> String {
        run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", self.package]))
    }

    fn send(&self, household: &Household, to: &str) -> Ended {
        let home = household.home();
        let (told, telltale) = (home.join("told"), home.join("telltale"));
        let _ = std::fs::remove_file(&told);
        let line = "#!/bin/sh\n\"$SENDMAIL\" \"$@\"\nstatus=$?\necho $status >\"$TOLD\"\nexit $status\n";
        // A daemon hands on nothing of its environment.
        let own = home.join("sendmail");
        std::fs::copy(sendmail(), &own).unwrap();
        let line = line.replace("$SENDMAIL", "/root/sendmail").replace("$TOLD", "/root/told");
        std::fs::write(&telltale, line).unwrap();
        run(Command::new("chmod").arg("755").arg(&telltale));
        let mut command = household.command("/usr/bin/timeout");
        command.args([
            "60",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            AROUND,
        ]);
        command.env("SENDMAIL", &own).env("TELLTALE", "/root/telltale").env("TOLD", "/root/told");
        command.env("TO", to).env("SCRIPT", self.script).env("LOGNAME", "root").env("USER", "root");
        Ended::of(&mut command, b"")
    }
}

fn config(relay: &Relay) -> String {
    format!(
        "domain = \"box.example\"\n[account.work]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
         from = \"alice@example.org\"\n",
        relay.address.port()
    )
}

fn letters(relay: Relay) -> Vec<Letter> {
    relay.finish().into_iter().flat_map(|dialogue| dialogue.letters).collect()
}

/// The letter as the relay has to get it from any of them.
fn assert_is_whole(caller: &Caller, letters: &[Letter], to: &str) {
    let name = caller.name;
    assert_eq!(letters.len(), 1, "{name}: {letters:?}");
    let letter = &letters[0];
    let to = if name == "at" { "root@box.example" } else { to };
    assert!(letter.recipients.iter().all(|recipient| recipient.contains(to)), "{name}: {:?}", letter.recipients);
    let content = String::from_utf8_lossy(&letter.content);
    let (header, body) = content.split_once("\r\n\r\n").unwrap();
    for field in ["From: ", "To: ", "Subject: ", "Date: ", "Message-ID: "] {
        let count = header.lines().filter(|line| line.to_lowercase().starts_with(&field.to_lowercase())).count();
        assert_eq!(count, 1, "{name}: {field} in {header}");
    }
    assert!(body.contains("good day"), "{name}: {body}");
    assert!(letter.mail.contains('@'), "{name}: {}", letter.mail);
}

#[test]
fn every_caller_is_served() {
    let mut table = String::new();
    for caller in CALLERS.iter().filter(|caller| caller.is_here()) {
        let relay = Relay::start(Script::open());
        let household = Household::new(&config(&relay));
        let ended = caller.send(&household, "bob@example.org");
        assert_eq!(ended.status, 0, "{}: {ended:?}", caller.name);
        assert_is_whole(caller, &letters(relay), "bob@example.org");
        writeln!(table, "{:<20} {:<16} {}", caller.name, caller.package, caller.version()).unwrap();
    }
    // Not `print`, which the test harness would keep to itself.
    std::io::stderr().write_all(format!("callers that were served:\n{table}").as_bytes()).unwrap();
}

#[test]
fn no_caller_loses_a_letter_to_a_relay_that_is_down() {
    for caller in CALLERS.iter().filter(|caller| caller.is_here()) {
        let relay = Relay::start(Script::open());
        let household = Household::new(&config(&relay));
        drop(relay);
        let ended = caller.send(&household, "bob@example.org");
        assert_eq!(ended.status, 0, "{}: {ended:?}", caller.name);
        assert!(household.mailq().contains("in 1 Request"), "{}: {}", caller.name, household.mailq());
        let relay = Relay::start(Script::open());
        household.configure(&config(&relay));
        household.run_queue();
        assert_is_whole(caller, &letters(relay), "bob@example.org");
        household.assert_queue_is_empty();
    }
}

#[test]
fn whoever_can_hear_of_a_refused_recipient_does() {
    for caller in CALLERS.iter().filter(|caller| caller.is_here()) {
        let relay = Relay::start(Script::open().on("RCPT", "550 5.1.1 no such person"));
        let household = Household::new(&config(&relay));
        let ended = caller.send(&household, "nobody@example.org");
        assert_eq!(ended.status != 0, caller.tells, "{}: {ended:?}", caller.name);
        assert_eq!(letters(relay).len(), 0, "{}", caller.name);
        let queue = household.mailq();
        assert_eq!(queue.contains("MAILER-DAEMON"), caller.reports, "{}: {queue}", caller.name);
        assert_eq!(queue == "Mail queue is empty\n", !caller.reports, "{}: {queue}", caller.name);
    }
}

#[test]
fn nagios_reads_our_queue_as_postfixs() {
    const PLUGIN: &str = "/usr/lib/nagios/plugins/check_mailq";
    if !here(&["root", "unshare", "pgrep", "/usr/bin/mailq", PLUGIN]) {
        return;
    }
    let check = Caller {
        name: "check_mailq",
        package: "monitoring-plugins-standard",
        program: PLUGIN,
        script: "/usr/lib/nagios/plugins/check_mailq -M postfix -w 1 -c 3",
        tells: true,
        reports: false,
    };
    let relay = Relay::start(Script::open());
    let household = Household::new(&config(&relay));
    for (queued, status, word) in [(0, 0, "OK"), (1, 1, "WARNING"), (3, 2, "CRITICAL")] {
        while !household.mailq().contains(&format!("in {queued} Request")) && queued > 0 {
            household.send(&["-odq", "bob@example.org"], b"Subject: later\n\nLater.\n");
        }
        let ended = check.send(&household, "");
        assert_eq!((ended.status, ended.stdout.contains(word)), (status, true), "{queued} letters: {ended:?}");
    }
}

/// Who calls, the words, standard input; the reverse-path and the recipients that must come of it.
type Row<'a> = (&'a str, &'a [&'a str], &'a str, &'a str, &'a [&'a str]);

/// The words and the letter of callers that are not in Debian, or too large for a test, as they were captured.
#[test]
#[allow(clippy::too_many_lines)] // one long table
fn the_words_of_every_caller_are_understood() {
    const PLAIN: &str = "To: bob@example.org\nSubject: hello\n\ngood day\n";
    const CRLF: &str = "To: bob@example.org\r\nSubject: hello\r\n\r\ngood day\r\n";
    const HIDDEN: &str = "To: bob@example.org\nBcc: carol@example.org\nSubject: hello\n\ngood day\n";
    const BOB: &[&str] = &["bob@example.org"];
    const BOTH: &[&str] = &["bob@example.org", "carol@example.org"];
    let alice = "alice@example.org";
    let rows: &[Row] = &[
        ("cron", &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "bob@example.org"], PLAIN, alice, BOB),
        (
            "cron, two",
            &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "bob@example.org,carol@example.org"],
            PLAIN,
            alice,
            BOTH,
        ),
        ("cronie", &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"], PLAIN, "root@box.example", BOB),
        ("anacron", &["-FAnacron", "-odi", "bob@example.org"], PLAIN, alice, BOB),
        ("at", &["-i", "bob"], PLAIN, alice, &["bob@box.example"]),
        ("systemd-cron", &["-i", "-B", "8BITMIME", "bob@example.org"], PLAIN, alice, BOB),
        ("busybox crond", &["-ti"], PLAIN, alice, BOB),
        ("dcron", &["-t", "-oem", "-i"], PLAIN, alice, BOB),
        ("bsd-mailx", &["-i", "-t", "-m"], HIDDEN, alice, BOTH),
        (
            "s-nail",
            &["-i", "-m", "-F", "Alice", "-f", "ann@example.org", "--", "bob@example.org"],
            PLAIN,
            "ann@example.org",
            BOB,
        ),
        ("mailutils", &["-oi", "-f", "ann@example.org", "-t"], PLAIN, "ann@example.org", BOB),
        (
            "mutt",
            &[
                "-oem",
                "-oi",
                "-B8BITMIME",
                "-f",
                "ann@example.org",
                "-N",
                "failure,delay",
                "-R",
                "hdrs",
                "--",
                "bob@example.org",
            ],
            PLAIN,
            "ann@example.org",
            BOB,
        ),
        ("aerc", &["bob@example.org"], CRLF, alice, BOB),
        ("alpine", &["-oem", "-t", "-oi"], PLAIN, alice, BOB),
        (
            "git",
            &["-f", "ann@example.org", "-i", "bob@example.org", "carol@example.org"],
            PLAIN,
            "ann@example.org",
            BOTH,
        ),
        ("PHP", &["-t", "-i"], CRLF, alice, BOB),
        ("PHP with -f", &["-t", "-i", "-fann@example.org"], CRLF, "ann@example.org", BOB),
        ("PHPMailer", &["-fann@example.org", "-i", "-t"], HIDDEN, "ann@example.org", BOTH),
        ("Symfony -t", &["-i", "-fann@example.org", "bob@example.org"], PLAIN, "ann@example.org", BOB),
        (
            "PEAR",
            &["-i", "-fann@example.org", "--", "bob@example.org", "carol@example.org"],
            PLAIN,
            "ann@example.org",
            BOTH,
        ),
        ("GitLab", &["-i", "-t", "-f", "ann@example.org", "bob@example.org"], PLAIN, "ann@example.org", BOB),
        (
            "Nodemailer",
            &["-i", "-f", "ann@example.org", "bob@example.org", "carol@example.org"],
            HIDDEN,
            "ann@example.org",
            BOTH,
        ),
        ("lettre", &["-i", "-f", "ann@example.org", "--", "bob@example.org"], CRLF, "ann@example.org", BOB),
        ("Email::Sender", &["-i", "-f", "", "--", "bob@example.org"], PLAIN, "", BOB),
        ("MIME::Lite", &["-t", "-oi", "-oem", "-fann@example.org"], HIDDEN, "ann@example.org", BOTH),
        ("Mail::Mailer", &["-t"], PLAIN, alice, BOB),
        ("Swoosh", &["-fann@example.org", "-oi", "-t", "-N", "delay,failure,success"], PLAIN, "ann@example.org", BOB),
        ("RT's bounce", &["-oi", "-t", "-f", "<>"], PLAIN, "", BOB),
        ("RT", &["-oi", "-t", "-ODeliveryMode=i", "-OErrorMode=m"], PLAIN, alice, BOB),
        (
            "Sympa",
            &["-oi", "-odi", "-oem", "-N", "success,delay,failure", "-V00000042", "-f", "", "--", "bob@example.org"],
            PLAIN,
            "",
            BOB,
        ),
        ("Dovecot", &["-i", "-f", "<>", "--", "bob@example.org"], CRLF, "", BOB),
        ("Emacs", &["-oi", "-f", "ann@example.org", "-oep", "-odi", "-t"], PLAIN, "ann@example.org", BOB),
        (
            "Emacs' resend",
            &["-oi", "-f", "ann@example.org", "-oem", "bob@example.org, carol@example.org"],
            PLAIN,
            "ann@example.org",
            BOTH,
        ),
        ("reportbug", &["-f", "ann@example.org", "-oi", "-oem", "bob@example.org"], PLAIN, "ann@example.org", BOB),
        ("popularity-contest", &["-oi", "-f", "ann@example.org", "bob@example.org"], PLAIN, "ann@example.org", BOB),
        ("rkhunter", &["bob@example.org"], PLAIN, alice, BOB),
        ("fail2ban", &["-f", "ann@example.org", "bob@example.org"], PLAIN, "ann@example.org", BOB),
        ("logwatch, mdadm, sudo", &["-t"], PLAIN, alice, BOB),
        ("logcheck", &["-oi", "bob@example.org"], PLAIN, alice, BOB),
        ("bcron", &["-FCronDaemon", "-odi", "-oem", "bob@example.org"], PLAIN, alice, BOB),
        ("vacation", &["-f", "<>", "-eq", "bob@example.org"], PLAIN, "", BOB),
    ];
    for (caller, words, letter, from, to) in rows {
        let relay = Relay::start(Script::open());
        let household = Household::new(&config(&relay));
        let ended = household.sendmail(words, letter.as_bytes());
        assert_eq!((ended.status, &*ended.stdout, &*ended.stderr), (0, "", ""), "{caller}");
        let letters = letters(relay);
        assert_eq!(letters.len(), 1, "{caller}: {letters:?}");
        let letter = &letters[0];
        assert!(letter.mail.starts_with(&format!("MAIL FROM:<{from}>")), "{caller}: {}", letter.mail);
        let recipients: Vec<_> = letter.recipients.iter().map(|to| to.split(['<', '>']).nth(1).unwrap_or(to)).collect();
        assert_eq!(&recipients, to, "{caller}");
        let content = String::from_utf8_lossy(&letter.content);
        let (header, body) = content.split_once("\r\n\r\n").unwrap();
        assert!(!header.contains("Bcc") && header.contains("Subject: hello"), "{caller}: {header}");
        assert_eq!(body, "good day\r\n", "{caller}");
    }
}
