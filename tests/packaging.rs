//! What the packages are made of says the same as the program. `tests/package/run` builds and installs them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The manifest, and the names of the crates that it asks for itself.
fn direct_dependencies() -> Vec<String> {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let of = |kind| manifest.get(kind).and_then(toml::Value::as_table).unwrap().keys().cloned();
    ["dependencies", "dev-dependencies"].into_iter().flat_map(of).collect()
}

#[test]
fn each_direct_dependency_has_its_reason() {
    let page = text("packaging/dependencies.md");
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let direct = direct_dependencies();
    assert!(direct.len() > 20, "{direct:?}");
    for crate_name in &direct {
        assert!(rows.contains(&&**crate_name), "{crate_name} has no row in packaging/dependencies.md");
    }
    for row in rows.into_iter().skip(1) {
        assert!(direct.iter().any(|name| name == row), "packaging/dependencies.md has a row for {row}");
    }
}

#[test]
fn every_package_has_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = text("packaging/debian/changelog");
    assert!(changelog.starts_with(&format!("pillarbox ({version}-")), "packaging/debian/changelog is not at {version}");
    assert!(
        text("packaging/arch/PKGBUILD").contains(&format!("\npkgver={version}\n")),
        "the PKGBUILD is another version"
    );
}

/// The configuration that the packages bring, with these lines for those that are commented out (`#` and no space).
fn shipped(dir: &Path, host: Option<&str>) -> std::path::PathBuf {
    let file = dir.join("config.toml");
    let settings = |line: &str| line.starts_with('#') && line[1..].starts_with(|c: char| c != ' ');
    let lines: Vec<String> = text("packaging/config.toml")
        .lines()
        .map(|line| match host {
            Some(host) if settings(line) => line[1..].replace("smtp.example.com", host),
            _ => line.to_owned(),
        })
        .collect();
    fs::write(&file, lines.join("\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    file
}

fn sendmail(dir: &Path, config: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sendmail"))
        .args(words)
        .env_clear()
        .envs([("PILLARBOX_CONFIG", config), ("PILLARBOX_QUEUE_DIR", &dir.join("queue")), ("HOME", dir)])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn the_shipped_configuration_sends_nothing_and_says_what_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let sent = sendmail(dir.path(), &shipped(dir.path(), None), &["bob@example.org"]);
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(78), "{said}");
    assert!(said.contains("[account.NAME]") && said.contains("nothing was sent"), "{said}");
}

#[test]
fn the_shipped_configuration_is_right_without_its_comment_signs() {
    let dir = tempfile::tempdir().unwrap();
    // Of mode 0640, as it is installed: there is no secret in it to hide.
    let config = shipped(dir.path(), Some("relay.invalid"));
    let sent = sendmail(dir.path(), &config, &["-odq", "root"]);
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!((sent.status.code(), &*said), (Some(0), ""));
    let listed = sendmail(dir.path(), &config, &["-bp"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("alice@example.com"), "root's mail is Alice's: {listed}");
}
