//! Every sentence that a person may hear, as it is heard: `tests/sentences/golden.txt`.
//!
//! Each scene runs the real program and writes down its exit status and what it printed, with
//! the names that change from run to run replaced. A sentence that changes changes the file,
//! which is read as a whole by whoever changes it: each says what happened, to whom, in the
//! server's words, and what happens next. `BLESS=1 cargo test --test sentences` writes it.

#[path = "../support/mod.rs"]
mod support;

mod scenes;

use std::fmt::Write;
use std::path::Path;

#[test]
fn the_sentences_are_those_of_the_golden_file() {
    let mut heard = String::new();
    for (title, scenes) in scenes::all() {
        let _ = writeln!(heard, "# {title}\n");
        // Each has a world of its own, so that they can be played at once, a few at a time.
        for some in scenes.chunks(4) {
            let told: Vec<String> = std::thread::scope(|scope| {
                let running: Vec<_> = some.iter().map(|scene| scope.spawn(|| scene.play())).collect();
                running.into_iter().map(|one| one.join().expect("a scene")).collect()
            });
            heard.push_str(&told.concat());
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sentences/golden.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &heard).expect("the golden file");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file");
    for (line, (was, is)) in golden.lines().zip(heard.lines()).enumerate() {
        assert_eq!(is, was, "line {} (BLESS=1 writes the file anew: read what has changed)", line + 1);
    }
    assert_eq!(heard.lines().count(), golden.lines().count(), "BLESS=1 writes the file anew");
}
