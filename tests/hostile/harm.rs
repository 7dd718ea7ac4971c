//! What must come of no attack: a secret or a control character in what people read, a file in a strange place, a word
//! of the attacker's on the wire.

use crate::support::relay::Dialogue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What nobody may ever see.
pub const PASSWORD: &str = "mArked-5ecret";

/// The password in the forms in which it can come out.
pub fn secrets() -> Vec<String> {
    let mut secrets = vec![PASSWORD.to_owned(), BASE64.encode(PASSWORD), BASE64.encode(format!("\0alice\0{PASSWORD}"))];
    // Base64 of something that contains it, whatever comes before: the part that does not depend on what comes behind.
    for shift in 1..3 {
        let text = BASE64.encode(format!("{}{PASSWORD}", "?".repeat(shift)));
        secrets.push(text[4..text.len() - 4].to_owned());
    }
    secrets
}

/// Secrets and control characters in what people read.
pub fn indiscretions(text: &str, what: &str) -> Vec<String> {
    let mut wrong: Vec<String> = secrets()
        .into_iter()
        .filter(|secret| text.contains(secret))
        .map(|secret| format!("{secret:?} is in {what}"))
        .collect();
    if let Some(odd) = text.chars().find(|one| one.is_control() && !matches!(one, '\n' | '\t')) {
        wrong.push(format!("{odd:?} is in {what}"));
    }
    wrong
}

/// What it left behind, the configuration aside: no secret anywhere, and nothing in the log that plays with a terminal.
pub fn remains(home: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(home).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            wrong.extend(remains(&path));
        } else if kind.is_file() && entry.file_name() != "config.toml" {
            let octets = fs::read(&path).unwrap();
            let found =
                secrets().into_iter().filter(|secret| memchr::memmem::find(&octets, secret.as_bytes()).is_some());
            wrong.extend(found.map(|secret| format!("{secret:?} is in {}", path.display())));
            if entry.file_name() == "log" {
                wrong.extend(indiscretions(&String::from_utf8_lossy(&octets), "the log"));
            }
        }
    }
    wrong
}

/// The files below a directory, and how large they are; the queue's and those of the harness aside.
pub fn tree(dir: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        match entry.file_name().to_str() {
            Some("queue" | "log" | "bin") => {}
            _ if kind.is_dir() => found.extend(tree(&path)),
            _ => drop(found.insert((path, entry.metadata().unwrap().len()))),
        }
    }
    found
}

/// What a caller's words must never be to the relay.
pub fn is_clean(heard: &[Dialogue]) -> Result<(), String> {
    for dialogue in heard {
        let odd = dialogue.commands.iter().find(|command| command.contains("evil") || command.contains('\r'));
        if let Some(odd) = odd {
            return Err(format!("the relay heard {odd:?}"));
        }
        for letter in &dialogue.letters {
            let content = String::from_utf8_lossy(&letter.content);
            let (header, _) = content.split_once("\r\n\r\n").unwrap_or_default();
            if let Some(line) = header.lines().find(|line| line.to_ascii_lowercase().starts_with("x-evil")) {
                return Err(format!("a field was made: {line:?}"));
            }
        }
    }
    Ok(())
}
