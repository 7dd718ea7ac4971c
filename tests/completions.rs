//! Completions in the real shells: what is typed, TAB, and what the shell makes of it.

#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use support::household::Household;
use support::peer::here;
use support::running::Ended;
use support::typist::typed;

/// A home with accounts, a letter in the queue, `pillarbox` on PATH, and a script for the shell.
struct Home {
    household: Household,
    id: String,
}

impl Home {
    fn new(shell: &str) -> Self {
        let household = Household::new(
            "default = \"work\"\ndomain = \"box.example\"\n[account.work]\nhost = \"127.0.0.1\"\nport = 1\n\
             tls = \"none\"\n\
             [account.\"alice@example.com\"]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\n\
             from = \"alice@example.com\"\n",
        );
        let bin = household.home().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_pillarbox"), bin.join("pillarbox")).unwrap();
        symlink(env!("CARGO_BIN_EXE_sendmail"), bin.join("sendmail")).unwrap();
        household.send(&["bob@example.org"], b"Subject: x\n\nhi\n");
        let list = household.mailq();
        let id = list.lines().nth(1).unwrap().split([' ', '*', '!']).next().unwrap().to_owned();
        let words = ["completions", shell, "pillarbox", "sendmail", "mail"];
        let script = Ended::of(household.command(env!("CARGO_BIN_EXE_pillarbox")).args(words), b"");
        assert_eq!((script.status, &*script.stderr), (0, ""));
        fs::write(household.home().join("script"), script.stdout).unwrap();
        Self { household, id }
    }

    /// Types these lines into the shell, each up to its TAB; gives what each has become.
    fn complete(&self, shell: &str, start: &str, lines: &[&str]) -> Vec<String> {
        let mut turns = format!("ready$|{start}; echo sta''rted\\n|started\\r\\n|");
        for (number, line) in lines.iter().enumerate() {
            // Ctrl-U before it; then Ctrl-A, Ctrl-E: what stands there becomes the value of a variable.
            write!(turns, "\\x15{line}\\t\\x01got{number}=' \\x05'\\n|ready$|").unwrap();
        }
        turns.push_str("echo; echo \"$got0%$got1%$got2%$got3\" >got; exit\\n");
        let shown = typed(&self.household, &format!("export PATH=$HOME/bin:$PATH PS1='ready$ '; exec {shell}"), &turns);
        let got = fs::read_to_string(self.household.home().join("got")).unwrap_or_else(|_| panic!("{shown}"));
        got.trim_end().split('%').map(|got| got.trim().to_owned()).collect()
    }

    fn lines(&self) -> [String; 4] {
        let half = &self.id[..self.id.len() - 3];
        [
            "pillarbox que".to_owned(),
            format!("pillarbox queue show {half}"),
            "pillarbox mail -A ali".to_owned(),
            "sendmail -C con".to_owned(),
        ]
    }

    fn wanted(&self) -> [String; 4] {
        [
            "pillarbox queue".to_owned(),
            format!("pillarbox queue show {}", self.id),
            "pillarbox mail -A alice@example.com".to_owned(),
            "sendmail -C configuration.toml".to_owned(),
        ]
    }
}

#[test]
fn bash_completes_commands_letters_accounts_and_files() {
    if !here(&["bash", "python3"]) {
        return;
    }
    let home = Home::new("bash");
    fs::write(home.household.home().join("configuration.toml"), "").unwrap();
    let lines = home.lines();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let got = home.complete("bash --norc --noprofile -i", "bind 'set enable-bracketed-paste off'; . ./script", &lines);
    assert_eq!(got, home.wanted());
}

#[test]
fn zsh_completes_commands_letters_accounts_and_files() {
    if !here(&["zsh", "python3"]) {
        return;
    }
    let home = Home::new("zsh");
    fs::write(home.household.home().join("configuration.toml"), "").unwrap();
    let lines = home.lines();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let start = "bindkey -e; unset zle_bracketed_paste; autoload -U compinit; compinit -u -d ./dump; . ./script";
    let got = home.complete("zsh -f -i", start, &lines);
    assert_eq!(got, home.wanted());
}

#[test]
fn fish_completes_commands_letters_accounts_and_files() {
    if !here(&["fish"]) {
        return;
    }
    let home = Home::new("fish");
    fs::write(home.household.home().join("configuration.toml"), "").unwrap();
    for (line, want) in home.lines().iter().zip(home.wanted()) {
        let mut fish = home.household.command("fish");
        fish.env("PATH", format!("{}/bin:/usr/bin:/bin", home.household.home().display()));
        let got =
            Ended::of(fish.args(["--no-config", "-c"]).arg(format!("source ./script; complete -C '{line}'")), b"");
        let words: Vec<&str> = got.stdout.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(words, [want.rsplit(' ').next().unwrap()], "{line}: {got:?}");
    }
}

#[test]
fn a_tab_is_answered_without_a_word_of_trouble() {
    let household = Household::new("this is no configuration");
    for words in [
        &["pillarbox", "check", ""][..],
        &["pillarbox", "queue", "show", ""],
        &["frob", ""],
        &["pillarbox"],
        &[],
        &["sendmail", "-a", ""],
    ] {
        let ended = Ended::of(household.command(env!("CARGO_BIN_EXE_pillarbox")).arg("__complete").args(words), b"");
        assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""), "{words:?}");
    }
}
