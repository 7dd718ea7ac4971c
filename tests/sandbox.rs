//! `pillarbox sandbox`, as a person calls it: real processes, real TLS, on loopback.

#![allow(clippy::unwrap_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The sandbox with a home and a place for temporary files of its own.
fn sandbox(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.arg("sandbox").env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("TMPDIR", home);
    command.stdin(Stdio::null());
    command
}

/// Runs a shell script in it.
fn run(home: &Path, words: &[&str], script: &str) -> Output {
    sandbox(home).args(words).args(["--exec", "sh", "-c", script]).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

const LETTER: &str =
    r"printf 'Subject: hello\n\nFirst letter.\n.\n' | sendmail -i -f alice@example.org bob@example.org";

#[test]
fn a_letter_goes_through_the_real_sendmail_and_is_shown() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &[], LETTER);
    assert_eq!(text(&output.stderr), "");
    let shown = text(&output.stdout);
    for part in [
        "from   <alice@example.org>",
        "to     <bob@example.org>",
        "user sandbox at ",
        "TLSv1.3",
        "    Subject: hello\n",
        "    First letter.\n    .\n",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    assert_eq!(output.status.code(), Some(0));
    assert!(is_empty(home.path()), "nothing is left behind");
}

#[test]
fn the_sandbox_leaves_with_the_commands_status() {
    let home = tempfile::tempdir().unwrap();
    for (script, status) in
        [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exec /no/such/program", 127)]
    {
        assert_eq!(run(home.path(), &[], script).status.code(), Some(status), "{script}");
    }
    let missing = sandbox(home.path()).args(["--exec", "/no/such/program"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("/no/such/program"));
    assert!(is_empty(home.path()));
}

#[test]
fn wrong_words_are_64_and_nothing_is_run() {
    let home = tempfile::tempdir().unwrap();
    for words in [&["--listen", "nowhere"][..], &["--frob"], &["--exec"], &["word"]] {
        let output = sandbox(home.path()).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{words:?}");
    }
    assert!(is_empty(home.path()));
}

#[test]
fn letters_on_their_way_are_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &[], &LETTER.replace("-i", "-i -odb"));
    assert!(text(&output.stdout).contains("Subject: hello"), "{output:?}");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn the_command_finds_every_program_name_and_its_own_words() {
    let home = tempfile::tempdir().unwrap();
    let output =
        run(home.path(), &["--quiet"], "mailq && newaliases && sendmail -bs </dev/null && echo \"$0\" --quiet");
    let shown = text(&output.stdout);
    assert!(shown.starts_with("Mail queue is empty\n220 ") && shown.ends_with("sh --quiet\n"), "{shown}");
}

#[test]
fn letters_are_kept_as_a_maildir_with_their_envelope() {
    let home = tempfile::tempdir().unwrap();
    let maildir = home.path().join("kept");
    let output = run(home.path(), &["--quiet", "--maildir", maildir.to_str().unwrap()], LETTER);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    let letters: Vec<_> = fs::read_dir(maildir.join("new")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept = fs::read_to_string(&letters[0]).unwrap();
    assert!(
        kept.starts_with("Return-Path: <alice@example.org>\nDelivered-To: bob@example.org\nSubject: hello\n"),
        "{kept}"
    );
    assert!(kept.ends_with("\n\nFirst letter.\n.\n") && !kept.contains('\r'), "{kept}");
    assert_eq!((letters.len(), is_empty(&maildir.join("tmp"))), (1, true));
}

#[test]
fn without_a_command_it_prints_a_configuration_that_works_and_serves_until_a_signal() {
    let home = tempfile::tempdir().unwrap();
    let mut child = sandbox(home.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut settings = String::new();
    while !settings.contains("Ctrl-C") {
        assert!(out.read_line(&mut settings).unwrap() > 0, "{settings}");
    }
    let config = home.path().join("config.toml");
    fs::write(&config, &settings).unwrap();
    fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let sent = Command::new("sh")
        .args(["-c", LETTER])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", Path::new(env!("CARGO_BIN_EXE_sendmail")).parent().unwrap().display()))
        .env("HOME", home.path())
        .env("PILLARBOX_CONFIG", &config)
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let mut shown = String::new();
    out.read_to_string(&mut shown).unwrap();
    assert!(shown.contains("    Subject: hello\n"), "{shown}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (_, maildir) = text(&output.stderr)
        .trim()
        .split_once("the letters are in ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(fs::read_dir(Path::new(&maildir).join("new")).unwrap().count(), 1, "the letters stay");
}
