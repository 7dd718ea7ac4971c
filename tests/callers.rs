//! The programs that people have: each sends a letter through our `sendmail` as it would through any other. The words
//! of those that are not in Debian, or too large for a test, are in `tests/delivery/callers.rs`.
//!
//! They find it where they look for it, at /usr/sbin/sendmail, in a mount namespace of their own; the system's is
//! not touched. The home of root is the test's household there, because some callers take away `$HOME`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use support::household::Household;
use support::peer::{here, run};
use support::relay::{Letter, Relay, Script};
use support::running::Ended;
use support::sendmail::sendmail;

/// A program and how it is made to send: `$TO` is whom to, the subject (where it has a say) is "hello", the text has
/// "good day" in it.
struct Caller {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    script: &'static str,
    /// Who hears of a recipient whom the relay refuses.
    heard: Heard,
}

/// How it becomes known that nobody has the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// By the caller's exit status.
    Status,
    /// By a report to the sender (`-oem`).
    Report,
    /// By both.
    Both,
    /// Not at all: the caller asks for no report and does not pass our status on.
    Nowhere,
    /// By a report, once the queue has been run: `-bs` has taken the letter before the relay is asked.
    Later,
}

impl Heard {
    fn by_status(self) -> bool {
        matches!(self, Self::Status | Self::Both)
    }

    fn by_report(self) -> bool {
        matches!(self, Self::Report | Self::Both | Self::Later)
    }
}

/// They wait for the letter themselves, or the namespace does.
const CALLERS: [Caller; 24] = [
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
        heard: Heard::Report,
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
        heard: Heard::Nowhere,
    },
    Caller {
        name: "anacron",
        package: "anacron",
        program: "anacron",
        script: r#"
            printf 'MAILTO=%s\n1 0 job echo good day\n' "$TO" >tab
            anacron -d -f -n -t "$PWD/tab" -S "$PWD" 2>/dev/null"#,
        heard: Heard::Nowhere,
    },
    Caller {
        name: "s-nail",
        package: "s-nail",
        program: "s-nail",
        script: r#"echo good day | s-nail -n -S mta=/usr/sbin/sendmail -S sendwait -s hello "$TO""#,
        heard: Heard::Status,
    },
    Caller {
        name: "mailx",
        package: "bsd-mailx",
        program: "bsd-mailx",
        script: r#"echo good day | bsd-mailx -s hello "$TO""#,
        heard: Heard::Status,
    },
    Caller {
        name: "GNU mail",
        package: "mailutils",
        program: "mail.mailutils",
        script: r#"echo good day | mail.mailutils -s hello "$TO""#,
        heard: Heard::Status,
    },
    Caller {
        name: "mutt",
        package: "mutt",
        program: "mutt",
        script: r#"echo good day | mutt -n -F /dev/null -s hello -- "$TO""#,
        heard: Heard::Both,
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
        heard: Heard::Status,
    },
    Caller {
        name: "PHP mail()",
        package: "php8.2-cli",
        program: "php",
        script: r#"php -r 'exit(mail(getenv("TO"), "hello", "good day\r\n") ? 0 : 1);'"#,
        heard: Heard::Status,
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
        heard: Heard::Status,
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
  (insert "From: Alice <alice@example.org>\nTo: " (getenv "TO") "\nSubject: hello\n--text follows this line--\n"
           "good day\n")
  (message-mode)
  (message-send-mail))
END
            emacs --batch --quick --load send.el >/dev/null 2>&1"#,
        heard: Heard::Status,
    },
    Caller {
        name: "sudo",
        package: "sudo",
        program: "sudo",
        script: r#"
            printf 'Defaults mailto="%s", mail_no_user, mailsub="good day", mailerpath=/root/telltale\n' "$TO" >sudoers
            chmod 440 sudoers
            mount --bind sudoers /etc/sudoers
            # Of a host that it cannot resolve, sudo would write as well.
            printf '127.0.0.1 localhost %s\n' "$(hostname)" >hosts
            mount --bind hosts /etc/hosts
            mount -t tmpfs tmpfs /run
            ! sudo -n true good day 2>/dev/null
            until_told"#,
        heard: Heard::Nowhere,
    },
    Caller {
        name: "smartd's warning",
        package: "smartmontools",
        program: "/usr/share/smartmontools/smartd_warning.sh",
        script: r#"
            export SMARTD_MAILER=/usr/bin/bsd-mailx SMARTD_ADDRESS="$TO" SMARTD_FAILTYPE=EmailTest SMARTD_TFIRST=today
            export SMARTD_SUBJECT=hello SMARTD_MESSAGE='good day' SMARTD_FULLMESSAGE='good day' SMARTD_PREVCNT=0
            export SMARTD_DEVICE=/dev/sda SMARTD_DEVICESTRING=/dev/sda SMARTD_DEVICETYPE=auto SMARTD_DEVICEINFO=disk
            /usr/share/smartmontools/smartd_warning.sh"#,
        heard: Heard::Status,
    },
    Caller {
        name: "fail2ban",
        package: "fail2ban",
        program: "fail2ban-server",
        script: r#"
            mkdir jails jails/filter.d
            ln -s /etc/fail2ban/action.d jails/action.d
            cp /etc/fail2ban/fail2ban.conf jails
            printf '[Definition]\nfailregex = ^<HOST>$\n' >jails/filter.d/door.conf
            {
                printf '[door]\nenabled = true\nbackend = polling\nfilter = door\nlogpath = %s\n' "$PWD/door.log"
                printf 'action = sendmail[name="good day", dest="%s", sender="alice@example.org"' "$TO"
                printf ', actionstart="", actionstop=""]\n'
            } >jails/jail.conf
            touch door.log
            mount --bind "$TELLTALE" /usr/sbin/sendmail
            door="fail2ban-client -c $PWD/jails -s $PWD/door.sock -p $PWD/door.pid"
            sed -i "s,^logtarget = .*,logtarget = $PWD/said,; s,^dbfile = .*,dbfile = :memory:," jails/fail2ban.conf
            $door start >/dev/null
            $door set door banip 192.0.2.1 >/dev/null
            until_told
            $door stop >/dev/null"#,
        heard: Heard::Nowhere,
    },
    Caller {
        name: "logwatch",
        package: "logwatch",
        program: "logwatch",
        script: r#"
            mount -t tmpfs tmpfs /var/log
            mount -t tmpfs tmpfs /var/cache
            mkdir /var/cache/logwatch
            date '+%b %e %T box sshd[1]: Accepted password for alice from 192.0.2.1 port 22 ssh2' >/var/log/auth.log
            logwatch --output mail --mailto "$TO" --service sshd --range all --hostname 'good day'"#,
        heard: Heard::Nowhere,
    },
    Caller {
        name: "popen, as mdadm's",
        package: "perl-base",
        program: "perl",
        // An array to watch cannot be had everywhere: this is how mdadm's monitor tells of one (Monitor.c, `alert`).
        script: r#"
            perl -e '
open my $mail, "|-", "/usr/sbin/sendmail -t" or die;
print $mail "From: mdadm monitoring <root>\nTo: $ENV{TO}\nSubject: TestMessage event on /dev/md0:box\n\n",
    "This is an automatically generated mail message.\ngood day\n";
close $mail'"#,
        heard: Heard::Nowhere,
    },
    Caller {
        name: "MIME::Lite",
        package: "libmime-lite-perl",
        program: "/usr/share/perl5/MIME/Lite.pm",
        script: r#"
            perl -MMIME::Lite -e '
my %letter = (From => "alice\@example.org", To => $ENV{TO}, Subject => "hello", Data => "good day\n");
exit(MIME::Lite->new(%letter)->send ? 0 : 1)'"#,
        heard: Heard::Both,
    },
    Caller {
        name: "Email::Sender",
        package: "libemail-sender-perl",
        program: "/usr/share/perl5/Email/Sender.pm",
        script: r#"
            perl -MEmail::Simple -MEmail::Sender::Simple=sendmail -MEmail::Sender::Transport::Sendmail -e '
my @header = (From => "alice\@example.org", To => $ENV{TO}, Subject => "hello");
my $letter = Email::Simple->create(header => \@header, body => "good day\n");
sendmail($letter, { transport => Email::Sender::Transport::Sendmail->new })'"#,
        heard: Heard::Status,
    },
    Caller {
        name: "Nodemailer",
        package: "node-nodemailer",
        program: "/usr/share/nodejs/nodemailer",
        script: r#"
            NODE_PATH=/usr/share/nodejs node -e '
const transport = require("nodemailer").createTransport({ sendmail: true });
transport.sendMail({ from: "alice@example.org", to: process.env.TO, subject: "hello", text: "good day\n" },
    error => process.exit(error ? 1 : 0))'"#,
        heard: Heard::Status,
    },
    Caller {
        name: "Ruby's mail",
        package: "ruby-mail",
        program: "/usr/lib/ruby/vendor_ruby/mail.rb",
        script: r#"
            ruby -rmail -e '
letter = Mail.new(from: "alice@example.org", to: ENV["TO"], subject: "hello", body: "good day\n")
letter.delivery_method :sendmail
letter.deliver!'"#,
        heard: Heard::Nowhere,
    },
    Caller {
        name: "busybox sh",
        package: "busybox",
        program: "busybox",
        script: r#"
            busybox sh -c 'printf "To: %s\nSubject: hello\n\ngood day\n" "$TO" | /usr/sbin/sendmail -ti'"#,
        heard: Heard::Status,
    },
    Caller {
        name: "Symfony's -bs",
        package: "php8.2-cli",
        program: "php",
        // SmtpTransport over ProcessStream, as it speaks where EHLO
        // is not wanted: HELO, and the queue's id from the 250.
        script: r#"
            cat >send.php <<'END'
<?php
$process = proc_open('/usr/sbin/sendmail -bs', [['pipe', 'r'], ['pipe', 'w'], ['pipe', 'w']], $pipes);
function say(string $line, int $code): string {
    global $pipes;
    if ($line !== '') { fwrite($pipes[0], $line); fflush($pipes[0]); }
    do { $reply = fgets($pipes[1]); } while ($reply !== false && $reply[3] === '-');
    if ((int) $reply !== $code) { fwrite(STDERR, $line . $reply); exit(1); }
    return $reply;
}
$to = getenv('TO');
say('', 220);
say("HELO [127.0.0.1]\r\n", 250);
say("MAIL FROM:<alice@example.org>\r\n", 250);
say("RCPT TO:<$to>\r\n", 250);
say("DATA\r\n", 354);
fwrite($pipes[0], "From: alice@example.org\r\nTo: $to\r\nSubject: hello\r\n\r\ngood day\r\n");
$reply = say("\r\n.\r\n", 250);
if (!preg_match('/250 Ok:? queued as [A-Za-z0-9]+/', $reply)) { exit(2); }
say("NOOP\r\n", 250);
say("QUIT\r\n", 221);
if (stream_get_contents($pipes[2]) !== '') { exit(3); }
exit(proc_close($process));
END
            php send.php"#,
        heard: Heard::Later,
    },
    Caller {
        name: "smtplib on -bs",
        package: "python3.11",
        program: "/usr/lib/python3.11/smtplib.py",
        script: r#"
            cat >send.py <<'END'
import os, smtplib, socket, subprocess
from email.message import EmailMessage
ours, theirs = socket.socketpair()
process = subprocess.Popen(["/usr/sbin/sendmail", "-bs"], stdin=theirs, stdout=theirs)
theirs.close()
class Pipe(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        return ours
letter = EmailMessage()
letter["From"], letter["To"], letter["Subject"] = "alice@example.org", os.environ["TO"], "hello"
letter.set_content("good day\n")
with Pipe("box.example") as smtp:
    smtp.send_message(letter)
raise SystemExit(process.wait())
END
            /usr/bin/python3 send.py"#,
        heard: Heard::Later,
    },
    Caller {
        name: "swaks on -bs",
        package: "swaks",
        program: "swaks",
        script: r#"
            swaks --pipe '/usr/sbin/sendmail -bs' --silent 2 --helo box.example --from alice@example.org --to "$TO" \
                --header 'Subject: hello' --body 'good day'"#,
        heard: Heard::Later,
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
        let line = line.replace("$SENDMAIL", "/root/sendmail").replace("$TOLD", "/root/told");
        let text = home.join("telltale.text");
        std::fs::write(&text, line).unwrap();
        // Not written by us: what another thread's child still has open for writing cannot be run ("Text file busy").
        run(Command::new("install").arg(sendmail()).arg(&own));
        run(Command::new("install").arg(&text).arg(&telltale));
        let mut command = household.command("/usr/bin/timeout");
        command.args([
            "--signal=KILL", // `unshare` is deaf to others
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
        if caller.heard == Heard::Later {
            household.run_queue();
        }
        assert_is_whole(caller, &letters(relay), "bob@example.org");
        writeln!(table, "{:<20} {:<22} {}", caller.name, caller.package, caller.version()).unwrap();
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
        let refusal = "550 5.1.1 no such person";
        let script = Script::open().on("RCPT TO:<nobody@", refusal).on("RCPT TO:<root@", refusal);
        let relay = Relay::start(script);
        let household = Household::new(&config(&relay));
        let ended = caller.send(&household, "nobody@example.org");
        assert_eq!(ended.status != 0, caller.heard.by_status(), "{}: {ended:?}", caller.name);
        if caller.heard.by_report() {
            household.run_queue();
        }
        household.assert_queue_is_empty();
        let letters = letters(relay);
        assert_eq!(letters.len(), usize::from(caller.heard.by_report()), "{}: {letters:?}", caller.name);
        for report in letters {
            assert!(report.mail.starts_with("MAIL FROM:<>"), "{}: {}", caller.name, report.mail);
            assert!(String::from_utf8_lossy(&report.content).contains(refusal), "{}: {report:?}", caller.name);
        }
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
        heard: Heard::Status,
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
