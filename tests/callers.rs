//! The programs that people have: each sends a letter through our `sendmail` as it would through any other.
//!
//! They find it where they look for it, at /usr/sbin/sendmail, in a mount namespace of their own; the system's is
//! not touched. The home of root is the test's household there, because some callers take away `$HOME`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::process::Command;
use support::household::{Ended, Household, sendmail};
use support::peer::{here, run};
use support::relay::{Act, Letter, Relay, Script};

/// A program and how it is made to send: `$TO` is whom to, the subject (where it has a say) is "hello", the text has
/// "good day" in it.
struct Caller {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    script: &'static str,
    /// Whether its exit status tells that nobody has the letter.
    tells: bool,
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
    },
    Caller {
        name: "anacron",
        package: "anacron",
        program: "anacron",
        script: r#"
            printf 'MAILTO=%s\n1 0 job echo good day\n' "$TO" >tab
            anacron -d -f -n -t "$PWD/tab" -S "$PWD" 2>/dev/null"#,
        tells: false,
    },
    Caller {
        name: "s-nail",
        package: "s-nail",
        program: "s-nail",
        script: r#"echo good day | s-nail -n -S mta=/usr/sbin/sendmail -S sendwait -s hello "$TO""#,
        tells: true,
    },
    Caller {
        name: "mailx",
        package: "bsd-mailx",
        program: "bsd-mailx",
        script: r#"echo good day | bsd-mailx -s hello "$TO""#,
        tells: false,
    },
    Caller {
        name: "GNU mail",
        package: "mailutils",
        program: "mail.mailutils",
        script: r#"echo good day | mail.mailutils -s hello "$TO""#,
        tells: true,
    },
    Caller {
        name: "mutt",
        package: "mutt",
        program: "mutt",
        script: r#"echo good day | mutt -n -F /dev/null -s hello -- "$TO""#,
        tells: true,
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
    },
    Caller {
        name: "PHP mail()",
        package: "php8.2-cli",
        program: "php",
        script: r#"php -r 'exit(mail(getenv("TO"), "hello", "good day\r\n") ? 0 : 1);'"#,
        tells: true,
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
        table += &format!("{:<20} {:<16} {}\n", caller.name, caller.package, caller.version());
    }
    // Not `print`, which the test harness would keep to itself.
    write!(std::io::stderr(), "callers that were served:\n{table}").unwrap();
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
fn a_caller_who_listens_hears_of_a_refused_recipient() {
    for caller in CALLERS.iter().filter(|caller| caller.tells && caller.is_here()) {
        let relay = Relay::start(Script::open().on("RCPT", Act::Say("550 5.1.1 no such person".to_owned())));
        let household = Household::new(&config(&relay));
        let ended = caller.send(&household, "nobody@example.org");
        assert_ne!(ended.status, 0, "{}: {ended:?}", caller.name);
        assert_eq!(letters(relay).len(), 0, "{}", caller.name);
        assert_eq!(household.mailq(), "Mail queue is empty\n", "{}: {ended:?}", caller.name);
    }
}
