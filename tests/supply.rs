//! What the program is made of: licences that MIT may be mixed with, nothing that was decided against, nothing twice
//! that need not be, and no version with a known flaw.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::Path;
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

/// Crates that are there in two versions, since others want both; a third pair needs a look before it gets a line here.
const TWICE: [&str; 4] = ["getrandom", "nom", "syn", "synstructure"];

/// Names and versions of all crates that are built.
fn crates() -> Vec<(String, semver::Version)> {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let is_built = |package: &&Value| nodes.iter().any(|node| node["id"] == package["id"]);
    let packages = metadata["packages"].as_array().unwrap().iter().filter(is_built);
    packages.map(|package| (name(package).to_owned(), package["version"].as_str().unwrap().parse().unwrap())).collect()
}

#[test]
fn no_crate_is_there_twice_but_those_that_are_known() {
    let mut names: Vec<String> = crates().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let mut twice: Vec<&String> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    twice.dedup();
    assert!(twice.iter().all(|name| TWICE.contains(&name.as_str())), "{twice:?}");
}

/// The advisories of `RustSec`'s database below `db` that hold for these crates: number, crate and whether it is more
/// than a remark (that it is unmaintained, say).
fn advisories(db: &Path, crates: &[(String, semver::Version)]) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for (name, version) in crates {
        let Ok(files) = std::fs::read_dir(db.join("crates").join(name)) else { continue };
        for file in files {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let head = text.split("```toml\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
            let head: toml::Table = head.parse().unwrap();
            let advisory = &head["advisory"];
            let meets = |key: &str| {
                let ranges =
                    head.get("versions").and_then(|versions| versions.get(key)).and_then(toml::Value::as_array);
                let mut ranges = ranges.into_iter().flatten().map(|range| range.as_str().unwrap());
                ranges.any(|range| semver::VersionReq::parse(range).unwrap().matches(version))
            };
            if advisory.get("withdrawn").is_none() && !meets("patched") && !meets("unaffected") {
                let told = format!("{}: {name} {version}", advisory["id"].as_str().unwrap());
                found.push((told, advisory.get("informational").is_none()));
            }
        }
    }
    found
}

#[test]
fn an_advisory_holds_for_the_versions_that_it_names() {
    let db = tempfile::tempdir().unwrap();
    let dir = db.path().join("crates/lettre");
    std::fs::create_dir_all(&dir).unwrap();
    let version =
        |text: &str| vec![("lettre".to_owned(), text.parse().unwrap()), ("md5".to_owned(), text.parse().unwrap())];
    for (more, versions, held, is_flaw) in [
        ("", "patched = [\">= 0.9.6\"]\nunaffected = [\"< 0.7\"]", &["0.7.0", "0.9.5"][..], true),
        ("", "patched = [\"^0.9.6\", \">= 0.10.0\"]", &["0.6.0", "0.7.0", "0.9.5"], true),
        ("informational = \"unmaintained\"", "patched = []", &["0.6.0", "0.7.0", "0.9.5", "0.9.6", "0.11.23"], false),
        ("withdrawn = \"2026-01-01\"", "patched = []", &[], false),
    ] {
        let text = format!(
            "```toml\n[advisory]\nid = \"X-1\"\npackage = \"lettre\"\n{more}\n[versions]\n{versions}\n```\n# Title\n"
        );
        std::fs::write(dir.join("X-1.md"), text).unwrap();
        for number in ["0.6.0", "0.7.0", "0.9.5", "0.9.6", "0.11.23"] {
            let expected = held.contains(&number).then(|| (format!("X-1: lettre {number}"), is_flaw));
            assert_eq!(advisories(db.path(), &version(number)), Vec::from_iter(expected), "{versions}");
        }
    }
}

/// `RUSTSEC_DB` names a checkout of <https://github.com/rustsec/advisory-db>.
/// Without one there is nothing to look into.
#[test]
fn no_crate_has_a_known_flaw() {
    let Some(db) = std::env::var_os("RUSTSEC_DB") else {
        println!("skipped: RUSTSEC_DB names no database of advisories");
        return;
    };
    let db = Path::new(&db);
    assert!(db.join("crates").is_dir(), "{} is no advisory database", db.display());
    let (flaws, remarks): (Vec<_>, Vec<_>) = advisories(db, &crates()).into_iter().partition(|(_, is_flaw)| *is_flaw);
    println!("remarks: {remarks:?}");
    assert!(flaws.is_empty(), "{flaws:?}");
}
