//! The walls of the house, each a sentence that a search can check. `src/lib.rs` draws the floors.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below `src`, and its text without comments and tests.
struct Source {
    path: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 40, "the sources are not where they were");
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        Source { path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code }
    };
    // Tests may reach over walls; what they reach for is none of the house's business.
    let is_test = |path: &Path| {
        ["tests.rs", "powercut.rs"].iter().any(|name| path.ends_with(name)) || path.iter().any(|dir| dir == "tests")
    };
    files.into_iter().filter(|path| !is_test(path)).map(source).collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// Whether a word stands in the code as a word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part)
    })
}

/// No file but those below `allowed` may hold any of these.
fn only(allowed: &[&str], words: &[&str]) {
    for Source { path, code } in sources() {
        if allowed.iter().any(|floor| path == format!("{floor}.rs") || path.starts_with(&format!("{floor}/"))) {
            continue;
        }
        for word in words {
            assert!(!names(&code, word), "src/{path} names {word}, which is {allowed:?}'s alone");
        }
    }
}

/// The files of a floor may not hold any of these.
fn never(floors: &[&str], words: &[&str]) {
    for Source { path, code } in sources() {
        if floors.iter().any(|floor| path == format!("{floor}.rs") || path.starts_with(&format!("{floor}/"))) {
            for word in words {
                assert!(!names(&code, word), "src/{path} names {word}");
            }
        }
    }
}

/// The floors as the page of `src/lib.rs` draws them, from the roof down: the modules on each.
fn floors() -> Vec<Vec<String>> {
    let page = include_str!("../src/lib.rs");
    let modules: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "))
        .filter_map(|line| line.strip_suffix(';'))
        .collect();
    let drawn = page.lines().skip_while(|line| !line.starts_with("//! roof ")).take_while(|line| *line != "//! ```");
    let mut floors: Vec<Vec<String>> = Vec::new();
    for line in drawn.filter_map(|line| line.strip_prefix("//! ")) {
        if !line.starts_with(' ') {
            floors.push(Vec::new());
        }
        // What the modules are for stands behind a gap.
        let names = line.trim_start().split("     ").next().unwrap_or_default().split_whitespace();
        let names = names.filter(|word| modules.contains(word)).map(str::to_owned);
        floors.last_mut().unwrap().extend(names);
    }
    let count: usize = floors.iter().map(Vec::len).sum();
    assert!(floors.len() > 3 && count == modules.len(), "{count} of {} modules are drawn: {floors:?}", modules.len());
    floors
}

#[test]
fn no_floor_knows_one_above_it() {
    let floors = floors();
    for Source { path, code } in sources() {
        let name = path.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = floors.iter().position(|floor| floor.iter().any(|module| module == name)) else { continue };
        for above in floors[..own].iter().flatten() {
            assert!(!names(&code, &format!("crate::{above}")), "src/{path} knows {above}, which is above it");
        }
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    only(&["smtp", "relay", "compose", "dsn"], &["lettre"]);
    only(&["smtp"], &["rustls", "simple_dns", "socket2"]);
    only(&["secret"], &["keyring::"]);
    only(&["cli"], &["clap", "dirs", "listenfd", "rustix", "tracing_subscriber"]);
    only(&["config"], &["toml::de", "toml::from_str", "toml::Table"]);
}

#[test]
fn the_queue_keeps_letters_and_does_not_deliver_them() {
    never(&["queue"], &["crate::config", "crate::relay", "crate::smtp", "crate::secret", "crate::submit"]);
}

#[test]
fn the_wire_reports_and_does_not_decide_to_retry() {
    never(&["relay", "smtp"], &["crate::queue", "crate::deliver", "crate::runner", "crate::settle"]);
}

#[test]
fn the_ground_floor_touches_nothing_outside_memory() {
    never(
        &["envelope", "message", "outcome"],
        &["std::fs", "std::net", "std::env", "std::process", "std::time", "std::thread", "tracing", "nix", "jiff"],
    );
}

#[test]
fn reading_settings_can_never_prompt_or_leak() {
    never(&["config"], &["crate::secret", "std::process", "TcpStream", "UnixStream", "ToSocketAddrs"]);
}

/// `http` is what it asks a token endpoint by, and the roof hands it that as a function.
#[test]
fn secrets_have_no_wire_of_their_own() {
    never(&["secret"], &["crate::http", "crate::smtp", "TcpStream", "UnixStream", "ToSocketAddrs"]);
    only(&["cli/configuration"], &["http::post"]);
}

#[test]
fn only_the_roof_speaks_exits_and_looks_around() {
    only(&["cli"], &["say::", "exit::", "host::", "println", "eprintln"]);
    // Where the roots are is the platform's word, by the variables that every TLS library obeys.
    only(&["cli", "smtp/tls"], &["env::var_os", "env::var"]);
    only(&["secret/command"], &["env::vars_os"]); // handed on to a helper, unread
    never(&["cli"], &["println", "eprintln"]); // they panic when nobody listens
}

/// `sandbox` runs the user's own command: that is what it is for.
#[test]
fn only_secret_the_runner_s_start_and_the_sandbox_start_programs() {
    only(&["secret", "cli/run", "sandbox"], &["process::Command", "process::Stdio", "posix_spawn", "posix_spawnp"]);
}

#[test]
fn nobody_looks_at_a_global_or_goes_async() {
    only(&[], &["static mut", "lazy_static", "async fn", "tokio"]);
    assert!(
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .unwrap()
            .contains("unsafe_code = \"forbid\"")
    );
}

#[test]
fn sysexits_are_known_in_one_place() {
    only(&["cli/exit"], &["sysexits::USAGE =", "EX_USAGE", "EX_TEMPFAIL"]);
    for Source { path, code } in sources() {
        if !path.starts_with("cli/") {
            assert!(!names(&code, "sysexits"), "src/{path} knows a number");
        }
    }
}

/// The sources and tests, as they stand.
fn texts() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut files);
    }
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_file_says_at_its_head_what_it_is_for() {
    for (path, text) in texts() {
        assert!(text.starts_with("//! "), "{}", path.display());
    }
}

/// rustfmt leaves comments as they are, and with a longer string the whole expression around it.
#[test]
fn no_line_is_wider_than_120_columns() {
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            assert!(line.chars().count() <= 120, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}
