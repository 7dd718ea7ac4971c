//! What the program is made of: licences that MIT may be mixed with, and nothing that was decided against.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::process::Command;

/// Each may be used without a condition that binds our own code.
const LICENCES: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Files of these stay under their own licence, which binds nobody else's: a crate of three functions under `dirs`.
const EXCEPTIONS: [(&str, &str); 1] = [("option-ext", "MPL-2.0")];

/// Why each of them is not in the house: aws-lc costs 21 ms of CPU a process, the others are a second TLS.
const BANNED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];

/// lettre is here for its types; its engine stays out, and its `tracing` writes passwords into the log.
const NOT_OF_LETTRE: [&str; 6] = ["tracing", "native-tls", "rustls", "tokio1", "pool", "sendmail-transport"];

/// What is built here; crates for other systems need not even have been fetched.
fn metadata() -> Value {
    let rustc = run(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let words = ["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host];
    serde_json::from_str(&run(Command::new(env!("CARGO")).args(words))).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// `MIT OR (Apache-2.0 AND ISC)`: one side of an OR has to be allowed, and both of an AND.
fn is_allowed(licence: &str) -> bool {
    let licence = licence.replace('/', " OR ");
    let (any, all) = (split(&licence, " OR "), split(&licence, " AND "));
    match licence.trim().strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        _ if any.len() > 1 => any.into_iter().any(is_allowed),
        _ if all.len() > 1 => all.into_iter().all(is_allowed),
        Some(inner) => is_allowed(inner),
        None => LICENCES.contains(&licence.trim()),
    }
}

/// Splits outside of parentheses.
fn split<'a>(text: &'a str, by: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (place, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && place >= start && text[place..].starts_with(by) => {
                parts.push(&text[start..place]);
                start = place + by.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[test]
fn licences_are_read_as_they_are_meant() {
    for (licence, allowed) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("MIT AND (GPL-2.0 OR GPL-3.0)", false),
    ] {
        assert_eq!(is_allowed(licence), allowed, "{licence}");
    }
}

#[test]
fn every_crate_may_be_used_in_an_mit_program() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "cargo names only {} crates", packages.len());
    for package in packages {
        let (name, licence) = (name(package), package["license"].as_str().unwrap_or("none"));
        assert!(is_allowed(licence) || EXCEPTIONS.contains(&(name, licence)), "{name} is under {licence}");
    }
}

#[test]
fn nothing_that_was_decided_against_has_crept_in() {
    let metadata = metadata();
    // The graph has what features really bring; the list of packages has what they might.
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let id = &node["id"];
        let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["id"] == *id).unwrap();
        assert!(!BANNED.contains(&name(package)), "{} is banned", name(package));
        if name(package) == "lettre" {
            let features = node["features"].as_array().unwrap();
            assert!(!features.iter().any(|feature| NOT_OF_LETTRE.contains(&feature.as_str().unwrap())), "{features:?}");
        }
    }
}
