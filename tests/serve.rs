//! The machine's service and those who use it: the real programs, a UNIX socket, and users who are not friends.
//!
//! As root the service runs under a uid of its own, and its clients under two others. As anybody else all are one, and
//! what needs several is skipped and says so. Letters stay in the queue (nobody listens at the relay's port) unless a
//! test says otherwise.

#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use support::machine::{ALICE, BOB, LETTER, Machine, PATIENCE, SERVICE, as_user, can_be_others, has, is_root, me};
use support::relay::{Relay, Script};
use support::running::Ended;

#[test]
fn a_letter_goes_through_the_service_to_the_relay() {
    let relay = Relay::start(Script::open());
    let mut machine = Machine::at_rest(&relay.address.to_string());
    machine.configure("");
    machine.start();
    machine.sendmail(ALICE, &["-N", "never", "carol@example.org"], LETTER).silent_success();
    relay.wait_for(1);
    machine.wait_for("the relay's word", || machine.log().contains("status=relayed"));
    let heard = relay.finish();
    let letter = &heard[0].letters[0];
    assert_eq!(letter.recipients, ["RCPT TO:<carol@example.org> NOTIFY=NEVER"]);
    let content = String::from_utf8_lossy(&letter.content).into_owned();
    let uid = if is_root() { ALICE } else { nix::unistd::geteuid().as_raw() };
    assert!(content.starts_with("Received: by "), "{content}");
    assert!(content.contains(&format!(" (Pillarbox, from userid {uid})\r\n\twith ESMTP; ")), "{content}");
    machine.wait_for("the end of the letter", || machine.mailq(ALICE) == "Mail queue is empty\n");
}

/// The caller knows none of the settings, so the service applies them: nothing else may become of a letter than where
/// the caller has them itself.
#[test]
fn the_service_s_aliases_domain_and_sender_are_for_all() {
    let mut machine = Machine::at_rest("127.0.0.1:1");
    machine.configure("[aliases]\nroot = \"ops@x.org\"");
    machine.start();
    machine.sendmail(ALICE, &["-F", "Alice (Night)", "-t"], b"To: root, dave\nBcc: erin\n\nx\n").silent_success();
    let letter = &machine.letters()[0];
    let me = if is_root() { "uid64001".to_owned() } else { me() };
    for line in [
        &format!("\nfrom {me} box.example\n"),
        "\nto ops x.org ",
        "\nto dave box.example ",
        "\nto erin box.example ",
        "\nTo: root@box.example, dave@box.example\r\n",
        &format!("\nFrom: \"Alice (Night)\" <{me}@box.example>\r\n"),
        "\nDate: ",
        "@box.example>\r\n",
    ] {
        assert!(letter.contains(line), "{line:?} is not in {letter}");
    }
    assert!(!letter.contains("localhost") && !letter.contains("Bcc"), "{letter}");
    let text = fs::read_to_string(machine.path("config.toml")).unwrap();
    fs::write(machine.path("config.toml"), text.replace("auth = \"off\"", "auth = \"off\"\nfrom = \"ops@x.org\""))
        .unwrap();
    machine.signal(Signal::SIGHUP);
    // The complaint has the word, too.
    machine.wait_for("the new settings", || machine.log().replace("not reloaded", "").contains(" reloaded file="));
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    machine.sendmail(ALICE, &["-f", &format!("{me}@box.example"), "carol@example.org"], LETTER).silent_success();
    let letters = machine.letters();
    assert!(
        letters[1].contains("\nfrom ops x.org\n")
            && ["From: ops@x.org\r\n", "<ops@x.org>\r\n"].iter().any(|from| letters[1].contains(from)),
        "{}",
        letters[1]
    );
    assert!(letters[2].contains(&format!("\nfrom {me} box.example\n")), "{}", letters[2]);
}

#[test]
fn what_is_wrong_with_one_alias_costs_nobody_else_his_mail() {
    let mut machine = Machine::at_rest("127.0.0.1:1");
    machine.configure("[aliases]\nroot = \"ops@x.org\"\nlist = \"|/bin/list\"\nall = \":include:/nonexistent\"");
    machine.start();
    assert!(machine.log().contains(" bad aliases count=2 reason=\"aliases."), "{}", machine.log());
    machine.sendmail(ALICE, &["root", "erin@example.org"], LETTER).silent_success();
    for (name, why) in [("list", "runs a program"), ("all", "No such file")] {
        machine.sendmail(ALICE, &[name], LETTER).says(75, &["451", why]);
    }
    assert_eq!(machine.letters().len(), 1);
}

#[test]
fn nobody_can_read_what_is_the_service_s_or_another_s() {
    if !can_be_others() {
        return;
    }
    let machine = Machine::new("");
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    machine.sendmail(BOB, &["dave@example.org"], LETTER).silent_success();
    for place in ["config.toml", "spool", "spool/letters"] {
        let read = machine.command(BOB, "ls").arg("-la").arg(machine.path(place)).output().unwrap();
        let cat = machine.command(BOB, "cat").arg(machine.path(place)).output().unwrap();
        assert!(!cat.status.success() && cat.stdout.is_empty(), "{place}");
        assert!(place == "config.toml" || !read.status.success(), "{place}");
    }
    assert!(machine.mailq(BOB).contains("dave@example.org") && !machine.mailq(BOB).contains("carol@example.org"));
    assert!(machine.mailq(ALICE).contains("carol@example.org") && !machine.mailq(ALICE).contains("dave@example.org"));
    for all in [0, SERVICE] {
        assert!(machine.mailq(all).contains("-- 0 Kbytes in 2 Requests."), "{}", machine.mailq(all));
    }
    // The tool sees to it that root works as the queue's owner; nobody else can.
    let config = machine.path("home/root.toml");
    fs::write(&config, "[account.a]\nhost = \"h\"\n").unwrap();
    let list = |uid| {
        let mut command = machine.command(uid, machine.path("pillarbox"));
        command.env("PILLARBOX_CONFIG", &config);
        command.env("PILLARBOX_QUEUE_DIR", machine.path("spool")).args(["queue", "list", "--json"]);
        Ended::of(&mut command, b"")
    };
    assert_ne!(list(BOB).status, 0);
    assert_eq!(list(0).stdout.lines().count(), 2, "{:?}", list(0));
}

/// The relay's password is the service's, by systemd's credential or
/// in its file: no user comes at it, nor at the process that has it.
#[test]
fn nobody_comes_at_the_relay_s_password() {
    if !can_be_others() {
        return;
    }
    let relay = Relay::start(Script::default());
    let mut machine = Machine::at_rest(&relay.address.to_string());
    machine.configure("");
    let text = fs::read_to_string(machine.path("config.toml")).unwrap();
    fs::write(machine.path("home/authority.pem"), &relay.identity.authority).unwrap();
    fs::set_permissions(machine.path("home/authority.pem"), Permissions::from_mode(0o644)).unwrap();
    let tls = format!("\"starttls\"\nca_file = \"{}\"", machine.path("home/authority.pem").display());
    let text =
        text.replace("user = \"u\"", "user = \"alice\"").replace("\"none\"", &tls).replace("\"off\"", "\"plain\"");
    fs::write(machine.path("config.toml"), text.replace("\"s3cret\"", "{ credential = \"relay\" }")).unwrap();
    for (name, mode) in [("credentials", 0o500), ("credentials/relay", 0o400)] {
        let path = machine.path(name);
        if name == "credentials" { fs::create_dir(&path) } else { fs::write(&path, "s3cret") }.unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        machine.give_to_service(name);
    }
    let mut command = machine.service();
    command.env("CREDENTIALS_DIRECTORY", machine.path("credentials"));
    machine.service = Some(command.spawn().unwrap());
    machine.wait_for("the service", || machine.log().contains("serving"));
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    machine.wait_for("the relay's word", || machine.log().contains("status=relayed"));
    let process = format!("/proc/{}", machine.pid());
    for place in ["environ", "maps", "mem", "fd", "auxv", "stack", "io"].map(|name| format!("{process}/{name}").into())
    {
        let read: std::path::PathBuf = place;
        let cat = machine.command(ALICE, "cat").arg(&read).output().unwrap();
        assert!(!cat.status.success() && cat.stdout.is_empty(), "{}", read.display());
    }
    let cat = machine.command(ALICE, "cat").arg(machine.path("credentials/relay")).output().unwrap();
    assert!(!cat.status.success() && cat.stdout.is_empty());
    // Nor does a log or an answer have it.
    assert!(!machine.log().contains("s3cret"));
    assert!(!machine.letters().concat().contains("s3cret"));
    drop(relay.finish());
}

/// As the packages leave that file; its mode cannot be mended without locking the service out.
#[test]
fn a_password_in_a_file_of_the_service_s_group_is_refused_with_a_mend_that_works() {
    if !can_be_others() {
        return;
    }
    let mut machine = Machine::at_rest("127.0.0.1:1");
    machine.configure("");
    let path = machine.path("config.toml");
    std::os::unix::fs::chown(&path, Some(0), Some(SERVICE)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    machine.service = Some(machine.service().spawn().unwrap());
    assert_eq!(machine.ended(), 78, "{}", machine.log());
    let log = machine.log();
    assert!(log.contains("is open to its group (mode 0640)") && !log.contains("chmod"), "{log}");
    assert!(log.contains("with password = { file = \"...\" } or { credential = \"...\" } in its place"), "{log}");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(machine.path("password"), "s3cret\n").unwrap();
    fs::set_permissions(machine.path("password"), Permissions::from_mode(0o600)).unwrap();
    machine.give_to_service("password");
    let file = format!("{{ file = \"{}\" }}", machine.path("password").display());
    fs::write(&path, text.replace("\"s3cret\"", &file)).unwrap();
    machine.start();
}

#[test]
fn nobody_can_send_as_another() {
    if !can_be_others() {
        return;
    }
    let machine = Machine::new("trusted_users = [\"root\", \"64002\"]");
    let forged = b"Received: by box.example (Pillarbox, from userid 0)\n\twith ESMTP; today\nSubject: x\n\nx\n";
    machine.sendmail(ALICE, &["carol@example.org"], forged).silent_success();
    let letter = &machine.letters()[0];
    let first = letter.find("Received: ").unwrap();
    assert!(
        letter[first..].starts_with("Received: by ")
            && letter[first..].find("from userid 64001)") < letter[first..].find("userid 0")
    );
    assert!(letter.contains("\nuid 64001\n"), "{letter}");
    for (uid, from, fine) in [
        (ALICE, "uid64002@box.example", false),
        (ALICE, "root@box.example", false),
        (ALICE, "uid64001@elsewhere.example", false),
        (ALICE, "uid64001@box.example", true),
        (ALICE, "uid64001+detail@localhost", true),
        (ALICE, "root@localhost", true),
        (ALICE, "", true),
        (BOB, "anybody@elsewhere.example", true),
        (0, "anybody@elsewhere.example", true),
    ] {
        let ended = machine.sendmail(uid, &["-f", from, "carol@example.org"], LETTER);
        if fine {
            assert_eq!((ended.status, &*ended.stderr), (0, ""), "{uid} {from}");
        } else {
            ended
                .says(65, &["refused", "uid64001 (uid 64001 gid 64001) may not send as", from, "uid64001@box.example"]);
        }
    }
    let senders = machine.letters().concat();
    assert!(!senders.contains("\nfrom root ") && !senders.contains("\nfrom uid64002 "), "{senders}");
    // What EHLO says is not in the stamp.
    let mut client = machine.client();
    client.ask("EHLO (Pillarbox,from.userid.7)");
    client.ask(&format!("MAIL FROM:<{}@box.example>", me()));
    client.ask("RCPT TO:<x@example.org>");
    client.ask("DATA");
    assert!(client.ask("Subject: x\r\n\r\n.").starts_with("250 "));
    assert!(!machine.letters().last().unwrap().contains("userid.7"));
}

#[test]
fn what_is_too_much_is_refused_with_its_reason_and_others_go_on() {
    if !can_be_others() {
        return;
    }
    let to = ["carol@example.org", "dave@example.org", "erin@example.org"];
    let many = |words: &[&str], letter: &[u8], machine: &Machine| machine.sendmail(ALICE, words, letter);
    let machine = Machine::new("letters_per_hour = 2\nmax_recipients = 2\nmax_size = \"4K\"");
    many(&to[..1], &[b"Subject: x\n\n".as_slice(), &b"0123456789\n".repeat(500)].concat(), &machine)
        .says(65, &["takes letters of 4096 octets at most"]);
    // Three recipients take two letters.
    many(&to, LETTER, &machine).silent_success();
    many(&to[..1], LETTER, &machine).says(75, &["452", "2 letters in this hour", "nothing is kept"]);
    machine.sendmail(BOB, &to[..1], LETTER).silent_success();
    machine.sendmail(0, &to[..1], LETTER).silent_success();
    assert_eq!(machine.letters().len(), 4);
    machine.nothing_half_kept();

    let machine = Machine::new("allow_users = \"64002\"");
    many(&to[..1], LETTER, &machine).says(65, &["uid64001", "may not send mail on this machine"]);
    machine.sendmail(BOB, &to[..1], LETTER).silent_success();

    let machine = Machine::new("disk_reserve = \"1000000G\"");
    many(&to[..1], LETTER, &machine).says(75, &["452", "the disk is too full"]);
    assert_eq!(machine.letters().len(), 0);
}

/// Below `/etc`, of which the test has a copy of its own.
#[test]
fn newaliases_checks_the_aliases_of_the_service_for_root_who_can_mend_them() {
    if !can_be_others() || !has("setpriv") || !has("unshare") {
        return;
    }
    let machine = Machine::new("");
    let settings = format!(
        "[account.relay]\nhost = \"127.0.0.1:1\"\ntls = \"none\"\n[queue]\ndir = {:?}\n[aliases]\n\
         root = \"|/bin/vacation\"\n",
        machine.path("spool")
    );
    fs::write(machine.path("system.toml"), settings).unwrap();
    let script = "cp -a /etc $0/etc && rm -rf $0/etc/pillarbox && mkdir $0/etc/pillarbox && \
                  cp $0/system.toml $0/etc/pillarbox/config.toml && mount --bind $0/etc /etc && exec";
    for (who, status) in [("", 78), ("setpriv --reuid 64001 --regid 64001 --clear-groups", 0)] {
        let script = format!("{script} {who} $0/sendmail -bi");
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "/bin/sh", "-c", &script]).arg(machine.path(""));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("PILLARBOX_SOCKET", machine.socket());
        let ended = Ended::of(&mut command, b"");
        assert_eq!(ended.status, status, "{who}: {ended:?}");
        assert_eq!(ended.stderr.contains("root: \"|/bin/vacation\" runs a program"), status == 78, "{ended:?}");
        let _ = fs::remove_dir_all(machine.path("etc"));
    }
}

#[test]
fn callers_in_a_sandbox_can_send() {
    if !can_be_others() || !has("setpriv") || !has("unshare") {
        return;
    }
    let machine = Machine::new("");
    let sendmail = machine.path("sendmail").display().to_string();
    let large = [b"Subject: x\n\n".as_slice(), &b"0123456789abcdef\n".repeat(40_000)].concat();
    let read_only = format!(
        "mount --make-rprivate / && mount --rbind / /mnt && mount -o remount,ro,bind /mnt && \
         exec chroot /mnt setpriv --reuid 64001 --regid 64001 --clear-groups --no-new-privs {sendmail} \
         carol@example.org"
    );
    let cases: [(&str, u32, Vec<&str>); 4] = [
        ("no new privileges", ALICE, vec!["setpriv", "--no-new-privs", &sendmail, "carol@example.org"]),
        ("no file may grow", ALICE, vec!["bash", "-c", "ulimit -f 0; exec \"$0\" carol@example.org", &sendmail]),
        ("few files", ALICE, vec!["bash", "-c", "ulimit -n 6; exec \"$0\" carol@example.org", &sendmail]),
        ("nothing can be written", 0, vec!["unshare", "-m", "bash", "-c", &read_only]),
    ];
    for (name, uid, words) in cases {
        for letter in [LETTER, &large] {
            let mut command = machine.command(uid, words[0]);
            command.args(&words[1..]);
            let ended = Ended::of(&mut command, letter);
            assert_eq!((ended.status, &*ended.stderr), (0, ""), "{name}, {} octets", letter.len());
        }
    }
    assert_eq!(machine.letters().len(), 8);
    assert!(machine.letters().iter().all(|letter| letter.contains("\nuid 64001\n")));
}

#[test]
fn a_crowd_and_a_drip_stop_nobody_else() {
    if !can_be_others() {
        return;
    }
    let machine = Machine::new("command_timeout = \"1s\"\nletter_timeout = \"2s\"");
    // One user's connections, of which most are turned away, and each of the others says an octet now and then.
    let mut crowd: Vec<UnixStream> = (0..200).map(|_| machine.connect()).collect();
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    let mut told = Vec::new();
    crowd.retain_mut(|client| {
        let mut first = [0; 3];
        client.read_exact(&mut first).unwrap();
        if first == *b"421" {
            let mut rest = String::new();
            client.read_to_string(&mut rest).unwrap();
            told.push(rest);
        }
        first == *b"220"
    });
    assert_eq!((crowd.len(), told.len()), (16, 184));
    assert!(told[0].contains("you have 16 connections, which is all that one user may have; try again later"));
    machine.sendmail(BOB, &["carol@example.org"], LETTER).silent_success();
    // The drips are told that their time is over, and leave, however often they say something.
    let mut dripping = crowd;
    machine.wait_for("the end of the drips", || {
        dripping.retain_mut(|client| client.write_all(b"N").is_ok());
        dripping.is_empty()
    });
    assert!(machine.log().contains("reason=idle"), "{}", machine.log());
    machine.client();
    machine.nothing_half_kept();
}

#[test]
fn a_letter_that_drips_ends_with_its_time() {
    let machine = Machine::new("letter_timeout = \"1s\"");
    let mut client = machine.client();
    client.ask(&format!("MAIL FROM:<{}@box.example>", me()));
    client.ask("RCPT TO:<x@example.org>");
    assert!(client.ask("DATA").starts_with("354 "));
    machine.wait_for("the end of the drip", || client.0.get_mut().write_all(b"x").is_err());
    assert_eq!(machine.letters().len(), 0);
    machine.nothing_half_kept();
}

#[test]
fn a_client_that_vanishes_at_any_octet_leaves_nothing_half_kept() {
    let machine = Machine::new("letters_per_hour = 60000\ndisk_reserve = \"0K\"");
    for bdat in [false, true] {
        let letter = "Subject: x\r\n\r\n..x\r\n";
        let content = if bdat {
            format!("BDAT 10\r\n{}BDAT {} LAST\r\n{}", &letter[..10], letter.len() - 10, &letter[10..])
        } else {
            format!("DATA\r\n{letter}.\r\n")
        };
        let dialogue = format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<x@y.z>\r\n{content}QUIT\r\n");
        let before = machine.letters().len();
        let mut taken = 0;
        for n in 0..=dialogue.len() {
            let mut stream = machine.connect();
            stream.write_all(&dialogue.as_bytes()[..n]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            taken += heard.matches("queued as").count();
        }
        assert_eq!(taken, "QUIT\r\n".len() + 1, "bdat {bdat}");
        assert_eq!(machine.letters().len() - before, taken, "bdat {bdat}");
        machine.nothing_half_kept();
    }
}

#[test]
fn one_session_carries_many_letters_pipelined_or_in_chunks() {
    let machine = Machine::new("");
    let mut client = machine.client();
    client.ask("EHLO x");
    let from = format!("{}@box.example", me());
    for i in 0..200 {
        if i % 2 == 0 {
            client.say(&format!("MAIL FROM:<{from}>\r\nRCPT TO:<r{i}@y.z>\r\nDATA\r\n"));
            let heard: Vec<String> = (0..3).map(|_| client.hear()).collect();
            assert!(heard[2].starts_with("354"), "{heard:?}");
            client.say("Subject: x\r\n\r\nx\r\n.\r\n");
        } else {
            client.say(&format!("MAIL FROM:<{from}>\r\nRCPT TO:<r{i}@y.z>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\n"));
            assert!(client.hear().starts_with("250") && client.hear().starts_with("250"));
        }
        let heard = client.hear();
        assert!(heard.contains("queued as"), "{i}: {heard}");
    }
    assert!(client.ask("QUIT").starts_with("221 "));
    assert_eq!(machine.letters().len(), 200);
    machine.nothing_half_kept();
}

#[test]
fn a_stop_lets_a_letter_come_to_its_end_and_sends_the_others_away() {
    let mut machine = Machine::new("");
    let (mut idle, mut busy) = (machine.client(), machine.client());
    busy.ask(&format!("MAIL FROM:<{}@box.example>", me()));
    busy.ask("RCPT TO:<x@example.org>");
    busy.ask("DATA");
    busy.say("Subject: x\r\n");
    // So that it has been read.
    machine.wait_for("the letter's beginning", || machine.log().contains("serving"));
    thread::sleep(Duration::from_millis(200));
    machine.signal(Signal::SIGTERM);
    assert!(idle.hear().starts_with("421 4.3.2 "), "the idle client");
    assert_eq!(idle.hear(), "");
    machine.wait_for("the end of the socket", || !machine.socket().exists());
    assert!(busy.ask("\r\nx\r\n.").contains("queued as"));
    assert!(busy.hear().starts_with("421 4.3.2 "), "no more letters");
    assert_eq!(machine.ended(), 0);
    assert_eq!(machine.letters().len(), 1);
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).says(78, &["there is no configuration"]);
}

#[test]
fn without_its_queue_it_takes_nothing_and_stops_all_the_same() {
    let mut machine = Machine::new("");
    fs::remove_dir_all(machine.path("spool")).unwrap();
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).says(75, &["452", "the queue cannot be reached"]);
    machine.signal(Signal::SIGTERM);
    assert_eq!(machine.ended(), 0);
}

#[test]
fn new_settings_come_with_a_signal_and_wrong_ones_change_nothing() {
    let machine = Machine::new("");
    let recipients = ["a@y.z", "b@y.z"];
    machine.configure("max_recipients = \"many\"");
    machine.signal(Signal::SIGHUP);
    machine.wait_for("the complaint", || machine.log().contains("not reloaded"));
    assert!(machine.log().contains("max_recipients: "), "{}", machine.log());
    machine.sendmail(ALICE, &recipients, LETTER).silent_success();
    machine.configure("max_recipients = 1");
    machine.signal(Signal::SIGHUP);
    // The complaint has the word, too.
    machine.wait_for("the new settings", || machine.log().replace("not reloaded", "").contains(" reloaded file="));
    let mut client = machine.client();
    client.ask("MAIL FROM:<>");
    assert!(client.ask("RCPT TO:<a@y.z>").starts_with("250 "));
    assert!(client.ask("RCPT TO:<b@y.z>").starts_with("452 "));
    let text = fs::read_to_string(machine.path("config.toml")).unwrap().replace("\"stderr\"", "\"syslog\"");
    fs::write(machine.path("config.toml"), text.replace("submit.sock", "other.sock")).unwrap();
    machine.signal(Signal::SIGHUP);
    for name in ["log", "serve.socket"] {
        let said = format!("remark text=\"{name} changes with the next start\"");
        machine.wait_for("what stays", || machine.log().contains(&said));
    }
    machine.sendmail(ALICE, &["a@y.z"], LETTER).silent_success();
}

#[test]
fn its_supervisor_is_told_and_hands_over_the_socket() {
    let mut machine = Machine::at_rest("127.0.0.1:1");
    machine.configure("");
    let supervisor = UnixDatagram::bind(machine.path("notify")).unwrap();
    fs::set_permissions(machine.path("notify"), Permissions::from_mode(0o666)).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |wanted: &str| loop {
        let mut octets = [0; 512];
        let n = supervisor.recv(&mut octets).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        if String::from_utf8_lossy(&octets[..n]).lines().any(|line| line == wanted) {
            return;
        }
    };
    let mut command = machine.service();
    command.env("NOTIFY_SOCKET", machine.path("notify")).env("WATCHDOG_USEC", "100000");
    machine.service = Some(command.spawn().unwrap());
    for (signal, words) in [
        (None, &["READY=1", "WATCHDOG=1"][..]),
        (Some(Signal::SIGHUP), &["RELOADING=1", "READY=1"]),
        (Some(Signal::SIGTERM), &["STOPPING=1"]),
    ] {
        if let Some(signal) = signal {
            machine.signal(signal);
        }
        for word in words {
            hear(word);
        }
    }
    assert_eq!(machine.ended(), 0);

    if !has("systemd-socket-activate") {
        return;
    }
    let socket = machine.socket();
    let mut activated = Command::new("systemd-socket-activate");
    activated.arg("-E").arg(format!("PILLARBOX_QUEUE_DIR={}", machine.path("spool").display()));
    activated
        .arg("-l")
        .arg(&socket)
        .arg(machine.path("pillarbox"))
        .args(["serve", "-C"])
        .arg(machine.path("config.toml"));
    activated.stdin(Stdio::null()).stdout(Stdio::null());
    activated.stderr(fs::File::create(machine.path("log")).unwrap());
    as_user(&mut activated, SERVICE);
    machine.service = Some(activated.spawn().unwrap());
    machine.wait_for("the socket", || socket.exists());
    if is_root() {
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    }
    // The first letter starts the service, and waits for it.
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    machine.sendmail(ALICE, &["dave@example.org"], LETTER).silent_success();
    assert_eq!(machine.letters().len(), 2);
    machine.signal(Signal::SIGTERM);
    assert_eq!(machine.ended(), 0);
    assert!(socket.exists(), "the socket is its owner's to remove");
}

#[test]
fn while_nobody_answers_the_letter_is_the_caller_s() {
    let mut machine = Machine::at_rest("127.0.0.1:1");
    machine.configure("");
    // A socket that a dead service left.
    drop(UnixListener::bind(machine.socket()).unwrap());
    machine.give_to_service("run/submit.sock");
    let socket = machine.socket().display().to_string();
    let ended = machine.sendmail(ALICE, &["carol@example.org"], LETTER);
    ended.says(75, &["<carol@example.org> deferred", &socket, "nothing is kept"]);
    Ended::of(machine.command(ALICE, machine.path("sendmail")).arg("-bp"), b"").says(75, &[&socket, "does not answer"]);
    Ended::of(machine.command(ALICE, machine.path("sendmail")).arg("-bs"), b"").says(75, &[&socket, "does not answer"]);
    // One that comes back while the caller waits.
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| machine.sendmail(ALICE, &["carol@example.org"], LETTER));
        thread::sleep(Duration::from_millis(300));
        let child = machine.service().spawn().unwrap();
        (late.join().unwrap(), child)
    });
    machine.service = Some(late.1);
    late.0.silent_success();
    assert_eq!(machine.letters().len(), 1);
}

#[test]
fn a_service_that_hangs_hangs_none_of_its_callers() {
    let mut machine = Machine::at_rest("127.0.0.1:1");
    machine.configure("");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let (hung, address) = (socket(), SockAddr::unix(machine.socket()).unwrap());
    hung.bind(&address).unwrap();
    fs::set_permissions(machine.socket(), Permissions::from_mode(0o666)).unwrap();
    hung.listen(1).unwrap();
    // Whoever comes now would wait for ever.
    let knock = |_| {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).is_ok().then_some(client)
    };
    let _queue: Vec<Socket> = (0..1000).map_while(knock).collect();
    let name = machine.socket().display().to_string();
    let call = |word| Ended::of(machine.command(ALICE, machine.path("sendmail")).arg(word), LETTER);
    thread::scope(|scope| {
        scope.spawn(|| call("carol@example.org").says(75, &["<carol@example.org> deferred", &name, "nothing is kept"]));
        scope.spawn(|| call("-bp").says(75, &[&name, "does not answer: timed out"]));
        scope.spawn(|| call("-bs").says(75, &[&name, "does not answer: timed out"]));
    });
    // Nor is it dead for that.
    machine.service = Some(machine.service().spawn().unwrap());
    assert_eq!(machine.ended(), 69);
    assert!(machine.log().contains("another service answers there"), "{}", machine.log());
}

/// What it says at the end of its session is 421, at any moment (RFC 5321 §3.8), or nothing where it dies; as long as
/// the caller has time the next one takes the letter.
#[test]
fn a_service_that_is_started_again_in_mid_session_costs_no_caller_his_letter() {
    let machine = Machine::at_rest("127.0.0.1:1");
    let service = UnixListener::bind(machine.socket()).unwrap();
    fs::set_permissions(machine.socket(), Permissions::from_mode(0o666)).unwrap();
    let stops = "421 4.3.2 the service stops\r\n";
    let sessions: [&[&str]; 5] = [
        &["220 x\r\n421 4.3.2 the service stops\r\n"],
        &["220 x\r\n", stops],
        &["220 x\r\n", "250 x\r\n", stops],
        &["220 x\r\n", "250 x\r\n", ""],
        &["220 x\r\n", "250 x\r\n", "250 ok\r\n", "250 ok\r\n", "354 go on\r\n", "250 ok\r\n"],
    ];
    // Whoever goes without a word has only looked whether somebody is there.
    let hold = |replies: &[&str]| {
        let mut client = BufReader::new(service.accept().unwrap().0);
        for (i, reply) in replies.iter().enumerate() {
            let mut line = String::new();
            while i > 0 && (line.is_empty() || i == 5 && line != ".\r\n") {
                line.clear();
                if client.read_line(&mut line).unwrap_or(0) == 0 {
                    return false;
                }
            }
            let _ = client.get_mut().write_all(reply.as_bytes());
        }
        true
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for replies in sessions {
                while !hold(replies) {}
            }
        });
        let ended = machine.sendmail(ALICE, &["-v", "carol@example.org"], LETTER);
        assert_eq!(ended.status, 0, "{ended:?}");
    });
}

#[test]
fn bs_is_a_session_with_the_service_and_own_settings_go_before_it() {
    let machine = Machine::new("");
    let dialogue = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<x@y.z>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n";
    let ended = Ended::of(machine.command(ALICE, machine.path("sendmail")).arg("-bs"), dialogue);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.contains("queued as") && ended.stdout.contains("221 "), "{ended:?}");
    assert_eq!(machine.letters().len(), 1);
    let config = machine.path("home/own.toml");
    fs::write(&config, "[account.a]\nhost = \"127.0.0.1:1\"\ntls = \"none\"\n[queue]\ndeadline = \"1s\"\n").unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    let mut command = machine.command(ALICE, machine.path("sendmail"));
    command.env("PILLARBOX_CONFIG", &config).env("PILLARBOX_QUEUE_DIR", "/nonexistent/queue").arg("x@y.z");
    Ended::of(&mut command, LETTER).says(73, &["cannot be queued"]);
    assert_eq!(machine.letters().len(), 1);
}

/// Between letters the process sleeps. What it costs meanwhile is printed.
#[test]
fn a_service_at_rest_does_not_wake_up() {
    let machine = Machine::new("");
    let status = fs::read_to_string(format!("/proc/{}/status", machine.pid())).unwrap();
    status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("Rss"))
        .for_each(|line| eprintln!("{line}"));
    if !has("strace") {
        return;
    }
    // What it does in its first seconds is not rest yet: one quiet window of some is what counts.
    let mut seen = Vec::new();
    for window in 0..3 {
        match awake(&machine, &format!("trace{window}")) {
            Some(calls) if !calls.is_empty() => seen.push(calls),
            Some(_) | None => return,
        }
    }
    panic!("{seen:#?}");
}

/// What the service does in ten seconds (or `IDLE=60`), but for the calls that it sleeps in, which are seen at their
/// begin and at their end. `None` where it cannot be watched.
fn awake(machine: &Machine, name: &str) -> Option<String> {
    let trace = machine.path(name);
    let mut strace = Command::new("strace")
        .args(["-f", "-p", &machine.pid().to_string(), "-o"])
        .arg(&trace)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(strace.stderr.take().unwrap());
    let mut first = String::new();
    told.read_line(&mut first).unwrap();
    if !first.contains("attached") {
        eprintln!("skipped: {first}");
        let _ = strace.wait();
        return None;
    }
    let looked = std::env::var("IDLE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(10);
    thread::sleep(Duration::from_secs(looked));
    kill(Pid::from_raw(strace.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    let calls = fs::read_to_string(&trace).unwrap();
    let calls: Vec<&str> = calls.lines().filter(|line| !line.contains("detached") && line.contains(" = ")).collect();
    eprintln!("system calls in {looked} s at rest: {}", calls.len());
    Some(calls.join("\n"))
}

/// In a user namespace of its own the service would see every client as uid 65534.
#[test]
fn the_unit_is_closed_to_everything_it_does_not_need() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd/pillarbox.service");
    let text = fs::read_to_string(unit).unwrap();
    assert!(!text.lines().any(|line| line.starts_with("PrivateUsers=")));
    // A fault of its own (70), as every death but that by a wrong configuration, is followed by a new start.
    assert!(text.contains("\nRestart=on-failure\n") && text.contains("\nRestartPreventExitStatus=78\n"));
    if !has("systemd-analyze") {
        return;
    }
    let told =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", unit]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let score =
        told.lines().find_map(|line| line.split("pillarbox.service: ").nth(1)?.split(' ').next()?.parse::<f32>().ok());
    assert!(score.is_some_and(|score| score <= 1.5), "{told}");
}

/// A file system in memory, for as long as this lives.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &std::path::Path) -> Option<Self> {
        let options = ["-t", "tmpfs", "-o", "size=32m,mode=0700", "pillarbox-test"];
        let is_done =
            Command::new("mount").args(options).arg(at).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
        is_done.then(|| Self(at.to_owned()))
    }

    fn free(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(&self.0).unwrap();
        found.blocks_available() * found.fragment_size()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn many_together_cannot_fill_the_disk_past_the_reserve() {
    if !can_be_others() {
        return;
    }
    let mut machine = Machine::at_rest("127.0.0.1:1");
    let Some(disk) = Small::mount(&machine.path("spool")) else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    machine.give_to_service("spool");
    machine.configure("disk_reserve = \"16M\"");
    machine.start();
    let letter = [b"Subject: x\n\n".as_slice(), &b"0123456789abcdef\n".repeat(120_000)].concat();
    let (least, over) = (std::sync::Mutex::new(u64::MAX), std::sync::atomic::AtomicBool::new(false));
    let ends: Vec<Ended> = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                let free = disk.free();
                let mut least = least.lock().unwrap();
                *least = free.min(*least);
            }
        });
        let sent: Vec<_> =
            (0..14).map(|_| scope.spawn(|| machine.sendmail(ALICE, &["carol@example.org"], &letter))).collect();
        let ends = sent.into_iter().map(|one| one.join().unwrap()).collect();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        ends
    });
    let taken = ends.iter().filter(|ended| ended.status == 0).count();
    // On a busy machine some have given up waiting.
    for ended in ends.iter().filter(|ended| ended.status != 0) {
        ended.says(75, &["nothing is kept"]);
    }
    assert!(ends.iter().any(|ended| ended.stderr.contains("452") && ended.stderr.contains("the disk is too full")));
    // What others were promised and did not need may be had by the next.
    assert!(taken < 8 && machine.names("spool/letters").len() >= taken, "{taken}");
    let least = *least.lock().unwrap();
    assert!(least >= 16 << 20, "{least} octets were left, and {taken} letters taken");
    machine.nothing_half_kept();
    // A small one has its room: nobody is locked out by those who want too much.
    machine.sendmail(BOB, &["carol@example.org"], LETTER).silent_success();
}

#[test]
fn who_finds_no_place_waits_for_one_as_long_as_a_caller_waits() {
    let machine = Machine::new("max_connections_per_user = 1");
    let held = machine.client();
    let uid = nix::unistd::geteuid().as_raw();
    let said = machine.sendmail(uid, &["carol@example.org"], LETTER);
    said.says(75, &["421", "you have 1 connections", "nothing is kept"]);
    // A burst of one user's letters is more than he may send at a time; none of them is lost for that.
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| machine.sendmail(uid, &["carol@example.org"], LETTER));
        machine.wait_for("its first try", || machine.log().matches("turned away").count() >= 2);
        drop(held);
        late.join().unwrap()
    });
    late.silent_success();
    assert_eq!(machine.letters().len(), 1);
}
