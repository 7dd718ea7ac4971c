//! The service's queue in the hands of its users: `pillarbox queue`, `sendmail -q`, and XQUEUE itself.
//!
//! Each has his own letters and cannot even ask for another's; root and the service have all.

#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::Stdio;
use support::machine::{ALICE, BOB, LETTER, Machine, SERVICE, can_be_others};
use support::peer::{Running, free_port, here};
use support::relay::{Relay, Script};
use support::running::Ended;
use support::terminal::Terminal;

/// `pillarbox queue` as a user.
fn queue(machine: &Machine, uid: u32, words: &[&str]) -> Ended {
    Ended::of(machine.command(uid, machine.path("pillarbox")).arg("queue").args(words), b"")
}

fn says(machine: &Machine, uid: u32, words: &[&str]) -> String {
    let ended = queue(machine, uid, words);
    assert_eq!((ended.status, &*ended.stderr), (0, ""), "{uid} {words:?}: {ended:?}");
    ended.stdout
}

/// The ids of a user's letters, oldest first.
fn ids(machine: &Machine, uid: u32) -> Vec<String> {
    let text = says(machine, uid, &["list", "--json"]);
    let id = |line: &str| line.split("\"queue_id\":\"").nth(1).unwrap()[..12].to_owned();
    text.lines().map(id).collect()
}

/// A machine with two letters of Alice's and one of Bob's, in this order.
fn machine() -> Machine {
    let machine = Machine::new("");
    for (uid, to) in [(ALICE, "carol@example.org"), (ALICE, "dave@example.org"), (BOB, "erin@example.org")] {
        machine.sendmail(uid, &[to], LETTER).silent_success();
    }
    // The relay is down: each has had its attempt when all are put off.
    machine.wait_for("the attempts", || {
        says(&machine, 0, &["list", "--state", "deferred", "--json"]).lines().count() == 3
    });
    machine
}

#[test]
fn each_user_has_his_own_letters_and_nobody_else_s() {
    if !can_be_others() {
        return;
    }
    let machine = machine();
    let all = ids(&machine, 0);
    assert_eq!((all.len(), ids(&machine, ALICE), ids(&machine, BOB)), (3, all[..2].to_vec(), all[2..].to_vec()));
    assert_eq!(ids(&machine, SERVICE), all);
    let (alices, bobs) = (&*all[0], &*all[2]);
    let table = says(&machine, ALICE, &["list"]);
    assert!(table.contains("carol@example.org") && table.contains("Connection refused"), "{table}");
    assert!(!table.contains("erin") && table.contains("\n2 letters, 2 recipients left, "), "{table}");
    let shown = says(&machine, ALICE, &["show", alices]);
    for line in
        ["to        <carol@example.org> deferred", "attempt 1: <carol@example.org> deferred", "  Subject: hello"]
    {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    let raw = says(&machine, ALICE, &["show", "--raw", alices]);
    assert!(raw.starts_with("Received: ") && raw.ends_with("\r\n\r\ntext\r\n"), "{raw}");
    assert!(machine.letters()[0].contains(&raw));

    let before = machine.letters();
    for action in ["show", "hold", "release", "retry", "remove", "run"] {
        let ended = queue(&machine, ALICE, &[action, bobs]);
        ended.says(64, &[&format!("{bobs}: there is no such letter in the queue")]);
        assert_eq!(ended.stdout, "", "{action}");
    }
    queue(&machine, ALICE, &["show", "--raw", bobs]).says(64, &["there is no such letter"]);
    assert_eq!(machine.letters(), before);
    for word in ["SHOW", "HEAD", "CONTENT", "HOLD", "RELEASE", "RETRY", "REMOVE"] {
        // As Bob it is there, and the errand is the test's own only where the test may be Bob.
        let script = format!("EHLO x\r\nXQUEUE {word} {bobs}\r\nQUIT\r\n");
        let ended = Ended::of(machine.command(ALICE, machine.path("sendmail")).arg("-bs"), script.as_bytes());
        let answer = ended.stdout.lines().rev().nth(1).unwrap().to_owned();
        assert!(answer.starts_with("550 5.3.0 ") && answer.contains("there is no such letter"), "{word}: {answer}");
    }
    assert_eq!(machine.letters(), before);

    assert_eq!(says(&machine, ALICE, &["hold", alices]), format!("{alices} is on hold\n"));
    assert!(machine.mailq(ALICE).contains(&format!("{alices}! ")));
    assert!(says(&machine, ALICE, &["list", "--state", "hold"]).contains("held: by uid64001"));
    assert_eq!(says(&machine, ALICE, &["release", alices]), format!("{alices} is released\n"));
    assert_eq!(says(&machine, ALICE, &["retry", alices]), format!("{alices} starts afresh\n"));
}

#[test]
fn what_is_changed_is_told_and_logged() {
    if !can_be_others() {
        return;
    }
    let machine = machine();
    let alices = &ids(&machine, ALICE)[1];
    assert_eq!(says(&machine, ALICE, &["remove", "--recipient", "dave"]), format!("{alices} is removed\n"));
    assert_eq!(ids(&machine, ALICE).len(), 1);
    assert!(machine.log().contains(&format!("changed id={alices} what=remove client=\"uid 64001 gid 64001\"")));
    assert_eq!(says(&machine, 0, &["remove", "--sender", "box.example"]).lines().count(), 2);
    assert_eq!(says(&machine, ALICE, &["list"]), "The queue is empty.\n");
    machine.nothing_half_kept();
}

#[test]
fn a_run_is_the_service_s_and_nobody_hammers_the_relay() {
    if !can_be_others() {
        return;
    }
    let relay = Relay::start(
        Script::open().once("RCPT TO:<carol", "451 4.7.1 try later").once("RCPT TO:<dave", "451 4.7.1 try later"),
    );
    let mut machine = Machine::at_rest(&relay.address.to_string());
    machine.configure("");
    machine.start();
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    machine.sendmail(BOB, &["dave@example.org"], LETTER).silent_success();
    let deferred = || says(&machine, 0, &["list", "--state", "deferred", "--json"]).lines().count();
    machine.wait_for("the attempts", || deferred() == 2);
    let id = &ids(&machine, ALICE)[0];
    // Her letter has just been tried, and Bob's is no business of hers.
    for words in [&["run", id][..], &["run", "--all"], &["run"], &["run", "--sender", "box"]] {
        let said = says(&machine, ALICE, words);
        assert!(said.contains(" tried: 0 relayed, 0 put off, 0 failed"), "{said}");
    }
    queue(&machine, ALICE, &["run", "-v", id]).says(64, &["the service speaks with the relay"]);
    assert_eq!(deferred(), 2);
    let sendmail =
        |uid: u32, words: &[&str]| Ended::of(machine.command(uid, machine.path("sendmail")).args(words), b"");
    let ended = sendmail(ALICE, &["-qf", "-v"]);
    ended.says(0, &["0 letters will be tried now; 1 letter had an attempt less than a minute ago"]);
    sendmail(ALICE, &["-qf"]).silent_success();
    assert_eq!(deferred(), 2);
    assert_eq!(
        says(&machine, 0, &["run", id]),
        "1 letter tried: 1 relayed, 0 put off, 0 failed, 0 left alone\n",
        "{}",
        machine.log()
    );
    sendmail(0, &["-qRdave", "-qS!alice", "-v"]).says(0, &["1 letter will be tried now"]);
    machine.wait_for("the end of the queue", || ids(&machine, 0).is_empty());
    assert_eq!(relay.finish().iter().flat_map(|dialogue| &dialogue.letters).count(), 2);
    sendmail(0, &["-qRsome one"]).says(64, &["no space"]);
}

#[test]
fn a_runner_that_stays_asks_again_and_again_until_it_is_told_to_leave() {
    let machine = Machine::new("");
    let mut command = machine.command(ALICE, machine.path("sendmail"));
    command.args(["-q1s", "-v"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut runner = Running(command.spawn().unwrap());
    let mut said = BufReader::new(runner.0.stderr.take().unwrap()).lines();
    for _ in 0..2 {
        assert_eq!(said.next().unwrap().unwrap(), "sendmail: 0 letters will be tried now");
    }
    kill(Pid::from_raw(runner.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(runner.0.wait().unwrap().code(), Some(0));
}

#[test]
fn while_the_service_is_away_that_is_said_and_root_works_on_its_disk() {
    let mut machine = Machine::new("");
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    let child = machine.service.take().unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    let mut child = child;
    child.wait().unwrap();
    let socket = machine.socket().display().to_string();
    for words in [&["-q"][..], &["-qf"], &["-bp"]] {
        let ended = Ended::of(machine.command(ALICE, machine.path("sendmail")).args(words), b"");
        ended.says(75, &[&socket, "does not answer"]);
    }
    queue(&machine, ALICE, &["list"]).says(75, &[&socket, "does not answer"]);
    if !can_be_others() {
        return;
    }
    let config = machine.path("home/root.toml");
    fs::write(&config, "[account.a]\nhost = \"h\"\n").unwrap();
    let mut command = machine.command(0, machine.path("pillarbox"));
    command.env("PILLARBOX_CONFIG", config).env("PILLARBOX_QUEUE_DIR", machine.path("spool"));
    let ended = Ended::of(command.args(["queue", "list", "--json"]), b"");
    assert_eq!((ended.status, ended.stdout.lines().count()), (0, 1), "{ended:?}");
}

#[test]
fn who_comes_over_tcp_has_no_errands() {
    let port = free_port();
    let machine = Machine::new(&format!("listen = \"127.0.0.1:{port}\""));
    let mut client = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut ask = |line: &str| {
        use std::io::Write;
        client.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).unwrap();
        answer
    };
    assert!(ask("").starts_with("220 "));
    assert!(ask("XQUEUE\r\n").starts_with("500 "));
    assert!(ask("XGATEWAY\r\n").starts_with("503 "));
    assert!(ask("HELO x\r\n").starts_with("250 "));
    assert!(machine.log().contains("serving"));
}

#[test]
fn what_makes_no_sense_to_xqueue_is_refused() {
    let machine = Machine::new("");
    let mut client = machine.client();
    for (words, answer) in [
        ("XQUEUE", "250 "),
        ("xqueue list", "250 "),
        ("XQUEUE FAILED", "250 "),
        ("XQUEUE RUN", "250 "),
        ("XQUEUE RUN -qf -qRa -qS!b", "250 "),
        ("XQUEUE RUN all", "501 "),
        ("XQUEUE RUN -q1h", "501 "),
        ("XQUEUE RUN -qR", "501 "),
        ("XQUEUE LIST all", "501 "),
        ("XQUEUE FROB", "501 "),
        ("XQUEUE HOLD", "501 "),
        ("XQUEUE HOLD ../../etc", "501 "),
        ("XQUEUE HOLD 000000000000", "550 "),
        ("XQUEUE FROB 000000000000", "550 "),
        ("XGATEWAY", "503 "),
    ] {
        let heard = client.ask(words);
        assert!(heard.starts_with(answer), "{words}: {heard}");
    }
}

#[test]
fn a_gateway_s_letter_keeps_its_header() {
    let machine = Machine::new("");
    machine.sendmail(ALICE, &["-G", "carol@example.org"], b"Subject: x\nTo: dave\n\nx\n").silent_success();
    machine.sendmail(ALICE, &["carol@example.org"], b"Subject: x\nTo: dave\n\nx\n").silent_success();
    let letters = machine.letters();
    assert!(letters[0].contains("\r\nSubject: x\r\nTo: dave\r\n\r\nx\r\n"), "{}", letters[0]);
    assert!(!letters[0].contains("Message-ID:") && letters[0].contains("\nReceived: by "), "{}", letters[0]);
    assert!(letters[1].contains("\r\nTo: dave@box.example\r\n") && letters[1].contains("\r\nMessage-ID: "));
}

#[test]
fn the_live_view_shows_the_service_s_queue() {
    if !here(&["tmux"]) {
        return;
    }
    let machine = Machine::new("");
    machine.sendmail(ALICE, &["carol@example.org"], LETTER).silent_success();
    let (socket, pillarbox) = (machine.socket(), machine.path("pillarbox"));
    fs::create_dir(machine.path("terminal")).unwrap();
    let variables =
        [("PILLARBOX_SOCKET", socket.to_str().unwrap()), ("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent")];
    let terminal = Terminal::new(&machine.path("terminal"), (100, 24), &variables);
    terminal.type_in(&[&format!("{} queue watch", pillarbox.display()), "Enter"]);
    terminal.wait("the letter", |screen| screen.contains("carol@example.org") && screen.contains("1 letter,"));
    machine.sendmail(ALICE, &["dave@example.org"], LETTER).silent_success();
    terminal.wait("the other", |screen| screen.contains("dave@example.org") && screen.contains("2 letters,"));
    machine.signal(Signal::SIGTERM);
    terminal.wait("the service's end", |screen| screen.contains("does not answer") || screen.contains("it says 421"));
}
