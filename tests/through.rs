//! Other people's programs that send through the service: over `sendmail -bs`, over the socket, over loopback TCP; and
//! a user who takes a thousand connections.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
use support::machine::{ALICE, BOB, LETTER, Machine, can_be_others};
use support::peer::{Running, free_port, here};
use support::running::Ended;

/// A user with an entry in the password file, without which s-nail does not start.
const NOBODY: u32 = 65_534;

/// What a user runs, and how many letters come of it. `$TCP` is the
/// service's port, `$SOCKET` its socket, and `sendmail` is ours.
struct Caller {
    name: &'static str,
    needs: &'static [&'static str],
    script: &'static str,
    letters: usize,
}

const CALLERS: [Caller; 7] = [
    Caller {
        name: "Symfony's Mailer, sendmail://default",
        needs: &["php", "/usr/share/php/Symfony/Component/Mailer/autoload.php"],
        script: r"
            cat >send.php <<'END'
<?php
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
use Symfony\Component\Mailer\{Mailer, Transport};
use Symfony\Component\Mime\Email;
$transport = Transport::fromDsn('sendmail://default?command=' . rawurlencode(getenv('SENDMAIL') . ' -bs'));
$mailer = new Mailer($transport);
foreach ([1, 2] as $i) {
    $mailer->send((new Email())->from('alice@example.org')->sender(getenv('ME'))->returnPath(getenv('ME'))
        ->to('bob@example.org')->subject('hello')->text('good day'));
}
END
            php send.php",
        letters: 2,
    },
    Caller {
        name: "Symfony's Mailer, smtp://",
        needs: &["php", "/usr/share/php/Symfony/Component/Mailer/autoload.php"],
        script: r"
            cat >send.php <<'END'
<?php
require '/usr/share/php/Symfony/Component/Mailer/autoload.php';
use Symfony\Component\Mailer\{Mailer, Transport};
use Symfony\Component\Mime\Email;
$mailer = new Mailer(Transport::fromDsn('smtp://127.0.0.1:' . getenv('TCP')));
$mailer->send((new Email())->from('alice@example.org')->to('bob@example.org')->subject('hello')->text('good day'));
END
            php send.php",
        letters: 1,
    },
    Caller {
        name: "smtplib, 200 letters on one session",
        needs: &["/usr/bin/python3"],
        script: r#"
            cat >send.py <<'END'
import os, smtplib
from email.message import EmailMessage
with smtplib.SMTP("127.0.0.1", int(os.environ["TCP"])) as smtp:
    for i in range(200):
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = "alice@example.org", f"bob{i}@example.org", "hello"
        letter.set_content("good day\n.\n")
        assert smtp.send_message(letter) == {}
END
            /usr/bin/python3 send.py"#,
        letters: 200,
    },
    Caller {
        name: "swaks to the socket",
        needs: &["swaks"],
        script: r#"
            swaks --socket "$SOCKET" --silent 2 --helo box.example --from "$ME" --to bob@example.org \
                --body 'good day'"#,
        letters: 1,
    },
    Caller {
        name: "swaks to TCP, pipelining",
        needs: &["swaks"],
        script: r#"
            swaks --server "127.0.0.1:$TCP" --pipeline --silent 2 --helo box.example --from alice@example.org \
                --to bob@example.org,carol@example.org --body 'good day'"#,
        letters: 1,
    },
    Caller {
        name: "swaks on -bs",
        needs: &["swaks"],
        script: r#"
            swaks --pipe "$SENDMAIL -bs" --silent 2 --helo box.example --from "$ME" --to bob@example.org \
                --body 'good day'"#,
        letters: 1,
    },
    Caller {
        name: "s-nail",
        needs: &["s-nail"],
        script: r#"
            echo good day | s-nail -n -S mta="$SENDMAIL" -S sendwait -s hello bob@example.org
            echo good day | s-nail -n -S "mta=smtp://127.0.0.1:$TCP" -S v15-compat -S smtp-auth=none \
                -S from=alice@example.org -S sendwait -s hello bob@example.org"#,
        letters: 2,
    },
];

#[test]
fn programs_that_speak_smtp_send_through_the_service() {
    let port = free_port();
    let machine = Machine::new(&format!("listen = \"127.0.0.1:{port}\"\nletters_per_hour = 1000"));
    let mut before = 0;
    for Caller { name, needs, script, letters } in CALLERS {
        if !here(needs) {
            continue;
        }
        let place = machine.path(&format!("home/{before}"));
        std::fs::create_dir(&place).unwrap();
        std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let me = if support::machine::is_root() { "nobody".to_owned() } else { support::machine::me() };
        let mut command = machine.command(NOBODY, "bash");
        command.args(["-ec", script]).current_dir(&place).env("HOME", &place).env("TCP", port.to_string());
        command.env("SOCKET", machine.socket()).env("SENDMAIL", machine.path("sendmail"));
        command.env("ME", format!("{me}@box.example"));
        let ended = Ended::of(&mut command, b"");
        assert_eq!((ended.status, &*ended.stderr), (0, ""), "{name}: {ended:?}\n{}", machine.log());
        let found = machine.letters();
        assert_eq!(found.len() - before, letters, "{name}");
        for letter in &found[before..] {
            assert!(letter.contains("\n\nReceived: ") && letter.contains("good day"), "{name}: {letter}");
        }
        before = found.len();
    }
    machine.nothing_half_kept();
}

#[test]
fn a_thousand_connections_of_one_user_stop_nobody_else() {
    if !can_be_others() || !here(&["/usr/bin/python3"]) {
        return;
    }
    let machine = Machine::new("");
    // It says an octet now and then on those that it has, and asks for new ones where it was turned away.
    let crowd = r#"
import os, resource, socket, sys, threading
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["PILLARBOX_SOCKET"])
    return s
crowd = [connect() for _ in range(1000)]
print("here", flush=True)
def drip():
    while True:
        for i, s in enumerate(crowd):
            try:
                s.send(b"N")
            except OSError:
                s.close()
                crowd[i] = connect()
threading.Thread(target=drip, daemon=True).start()
sys.stdin.read()
os._exit(0)
"#;
    let mut command = machine.command(ALICE, "/usr/bin/python3");
    command.args(["-c", crowd]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut crowd = Running(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(crowd.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    let ends: Vec<Ended> = thread::scope(|scope| {
        let sent: Vec<_> =
            (0..8).map(|_| scope.spawn(|| machine.sendmail(BOB, &["-v", "carol@example.org"], LETTER))).collect();
        sent.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // With -v a caller has minutes, however busy the machine is.
    for ended in ends {
        assert_eq!(ended.status, 0, "{ended:?}");
    }
    assert_eq!(machine.letters().len(), 8);
    let status = std::fs::read_to_string(format!("/proc/{}/status", machine.pid())).unwrap();
    let threads =
        status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().parse::<usize>().unwrap();
    assert!(threads <= 16 + 8 + 8, "{threads} threads");
    crowd.0.stdin.take().unwrap().flush().unwrap();
    machine.nothing_half_kept();
}
