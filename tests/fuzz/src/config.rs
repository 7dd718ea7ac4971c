//! What all readers of configurations promise.

use pillarbox::config::fuzz::Wrong;
use pillarbox::config::{Account, PasswordSource, Settings};

/// Whatever is wrong has a place in the text and a sentence. (The roof escapes it.)
pub fn check_wrong(text: &str, wrong: &[Wrong]) {
    assert!(!wrong.is_empty(), "it is refused and nobody knows why");
    let lines = text.split('\n').count();
    for (line, _, sentence) in wrong {
        // A file that is sourced has lines of its own.
        assert!((1..=lines.max(64)).contains(line), "line {line} of {lines}: {sentence}");
        assert!(!sentence.is_empty());
    }
}

/// No password is shown by accident.
pub fn check_settings(text: &str, settings: &Settings) {
    for account in &settings.accounts {
        assert!(!account.name.is_empty() || account.hosts.is_empty() || text.len() < 1 << 20);
        let Account { password: Some(PasswordSource::Literal(password)), .. } = account else { continue };
        // As it is shown, a host stands in quotes, and a password may be the same with a quote.
        let occurs = text.matches(password.trim_matches('"')).count();
        if password.len() >= 8 && occurs == 1 {
            let shown = format!("{settings:?}");
            assert!(!shown.contains(password.as_str()), "a password is shown");
        }
    }
}
