//! The manual, `--help` and the code say the same.

#![allow(clippy::unwrap_used)]

use clap::CommandFactory;
use pillarbox::cli::options::{OPTIONS, help};
use std::process::{Command, Stdio};

fn manual(page: &str) -> String {
    std::fs::read_to_string(format!("{}/man/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The options that a page names behind `Fl`, as they are typed.
fn flags(page: &str) -> Vec<String> {
    let mut flags = Vec::new();
    for line in
        page.lines().filter(|line| line.starts_with(".Fl") || line.starts_with(".It Fl") || line.starts_with(".Nm"))
    {
        let mut words = line.trim_start_matches('.').split([' ', ',']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            if word == "Fl" {
                flags.extend(words.next().map(|flag| format!("-{flag}")));
            }
        }
    }
    flags
}

#[test]
fn every_option_is_in_the_manual() {
    let page = flags(&manual("sendmail.8"));
    for row in OPTIONS {
        assert!(page.iter().any(|flag| flag == row.spelling), "{} is not in man/sendmail.8", row.spelling);
    }
}

#[test]
fn the_manual_names_no_option_that_is_not_there() {
    for flag in flags(&manual("sendmail.8")) {
        let known = |row: &pillarbox::cli::options::Row| {
            row.spelling == flag || flag.starts_with("-q") || flag == "-d0.1" || flag == "-tif"
        };
        assert!(flag == "-\\-" || OPTIONS.iter().any(known), "man/sendmail.8 names {flag}");
    }
}

#[test]
fn every_option_of_mail_is_in_the_manual() {
    let page = flags(&manual("pillarbox.1"));
    for row in pillarbox::cli::mail::words::OPTIONS {
        let is_it = |flag: &String| flag.split('=').next() == Some(row.spelling);
        assert!(page.iter().any(is_it), "{} is not in man/pillarbox.1", row.spelling);
    }
}

#[test]
fn every_keyword_of_an_msmtprc_is_in_the_manual() {
    let page = manual("pillarbox-msmtprc.5");
    for keyword in pillarbox::config::msmtprc::keywords() {
        let is_named = page
            .lines()
            .filter(|line| line.contains("Cm "))
            .any(|line| line.split([' ', ',', '.', ';']).any(|word| word == keyword));
        assert!(is_named, "{keyword} is not in man/pillarbox-msmtprc.5");
    }
}

#[test]
fn help_is_printed_from_the_table() {
    let output = Command::new(env!("CARGO_BIN_EXE_sendmail")).arg("--help").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), help("sendmail"));
    assert!(output.stderr.is_empty());
}

/// A command of `pillarbox` and those below it: names and options, as they are typed.
fn words(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"));
    let options = own.filter_map(|argument| {
        let long = argument.get_long().map(|long| format!("Fl -{long}"));
        long.or_else(|| argument.get_short().map(|short| format!("Fl {short}")))
    });
    let below = command.get_subcommands();
    options.chain(below.flat_map(|one| [vec![format!("Cm {}", one.get_name())], words(one)].concat())).collect()
}

#[test]
fn every_subcommand_and_its_options_are_in_the_manual() {
    let (page, known) = (manual("pillarbox.1"), words(&pillarbox::cli::pillarbox::Words::command()));
    assert!(known.len() > 15, "{known:?}");
    for word in known {
        let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-');
        let there = page.split(&word).skip(1).any(is_whole);
        assert!(there, "{word} is not in man/pillarbox.1");
    }
}

/// The words of a command in a manual, as a shell reads them; simple ones are all there are.
fn shell_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            (c, _) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Whether our parsers take the words behind `pillarbox` or `sendmail`.
fn is_understood(words: &[String]) -> bool {
    let own = words[1..].iter().map(std::ffi::OsString::from);
    match (words[0].as_str(), words.get(1).map(String::as_str)) {
        ("pillarbox", Some("mail")) => pillarbox::cli::mail::words::read("pillarbox mail", own.skip(1)).is_ok(),
        ("pillarbox", _) => {
            let read = pillarbox::cli::pillarbox::Words::command().try_get_matches_from(words);
            read.is_ok_and(|_| true)
        }
        _ => pillarbox::cli::options::parse(&words[0], own).is_ok(),
    }
}

#[test]
fn the_examples_of_the_manuals_are_understood() {
    let mut seen = 0;
    for page in std::fs::read_dir(format!("{}/man", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let path = page.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix(".Dl ")) {
            let line = line.replace("\\(dq", "\"").replace("\\&", "").replace("\\-", "-");
            for command in line.split(['|', ';']).flat_map(|part| part.split("&&")) {
                let command = command.split('>').next().unwrap().trim().trim_end_matches(" 2");
                let words = shell_words(command);
                if matches!(words.first().map(String::as_str), Some("pillarbox" | "sendmail" | "msmtp")) {
                    assert!(is_understood(&words), "{}: {command}", path.display());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn each_subcommand_has_a_line_of_the_synopsis() {
    let page = manual("pillarbox.1");
    let synopsis = page.split(".Sh SYNOPSIS\n").nth(1).unwrap().split(".Sh ").next().unwrap();
    for one in pillarbox::cli::pillarbox::Words::command().get_subcommands() {
        let line = format!(".Nm pillarbox\n.Cm {}\n", one.get_name());
        assert!(format!("{synopsis}\n").contains(&line), "{} does not begin a line of its own", one.get_name());
    }
}

#[test]
fn a_manual_of_ours_that_another_names_is_there() {
    for page in std::fs::read_dir(format!("{}/man", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let text = std::fs::read_to_string(page.unwrap().path()).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix(".Xr ")) {
            let mut words = line.split(' ');
            let (name, section) = (words.next().unwrap(), words.next().unwrap());
            if name.starts_with("pillarbox") || name == "sendmail" {
                manual(&format!("{name}.{section}"));
            }
        }
    }
}

/// The blocks of README.md that are of that kind.
fn blocks(kind: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{}/README.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let begin = format!("```{kind}\n");
    text.split(&begin).skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn what_the_readme_shows_is_right() {
    let root = env!("CARGO_MANIFEST_DIR");
    let (scripts, settings) = (blocks("sh"), blocks("toml"));
    assert!(scripts.len() > 3 && !settings.is_empty(), "{scripts:?} {settings:?}");
    for text in settings {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_sendmail"));
        let output = check.env("PILLARBOX_CONFIG", file).arg("-bi").stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    for script in scripts {
        assert!(Command::new("sh").args(["-n", "-c", &script]).status().unwrap().success(), "{script}");
    }
    // What stands in backquotes, over the ends of lines, too.
    let text = std::fs::read_to_string(format!("{root}/README.md")).unwrap();
    let prose: String = text.split("```").step_by(2).collect();
    let mut seen = 0;
    for code in prose.split('`').skip(1).step_by(2) {
        let words = shell_words(&code.replace('\n', " "));
        if words.len() > 1 && matches!(words[0].as_str(), "pillarbox" | "sendmail") {
            assert!(is_understood(&words), "{code}");
            seen += 1;
        } else if ["src/", "man/", "packaging/", "tests/", ".ci/"].iter().any(|dir| code.starts_with(dir)) {
            assert!(std::path::Path::new(root).join(&words[0]).exists(), "there is no {code}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn the_manuals_are_well_formed() {
    let Ok(version) = Command::new("mandoc").arg("-T").arg("lint").arg("/dev/null").output() else {
        assert!(std::env::var_os("CI").is_none(), "mandoc is missing");
        eprintln!("skipped: mandoc is not installed");
        return;
    };
    drop(version);
    for page in std::fs::read_dir(format!("{}/man", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let page = page.unwrap().path();
        let output = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page).output().unwrap();
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
