//! The nearest spelling: what somebody meant who wrote `hots`.

/// The word that takes the fewest edits, where few are enough that it can have been meant.
pub(super) fn nearest<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if cfg!(fuzzing) {
        // Most of what a fuzzer writes is misspelt, and it would do little else than look for the nearest word.
        return None;
    }
    let written = written.to_lowercase().replace('-', "_");
    let length = written.chars().count();
    let bearable = (1 + length / 4).min(length.saturating_sub(1));
    let may_be = |word: &&str| word.chars().count().abs_diff(length) <= bearable;
    let near = words.into_iter().filter(may_be).map(|word| (distance(&written, &word.replace('-', "_")), word));
    near.min_by_key(|(edits, _)| *edits).filter(|(edits, _)| *edits <= bearable).map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (the restricted Damerau distance).
fn distance(from: &str, to: &str) -> usize {
    // A word of a hostile length is no misspelling, and the table below grows with the product of both.
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let plain = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                if swapped { plain.min(rows[i - 2][j - 2] + 1) } else { plain }
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_recognised_and_a_strange_one_is_not() {
        let words = ["host", "port", "password", "ca_file", "starttls"];
        for (written, meant) in [
            ("hots", Some("host")),
            ("passwort", Some("password")),
            ("ca-file", Some("ca_file")),
            ("StartTLS", Some("starttls")),
            ("startls", Some("starttls")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, words), meant, "{written}");
        }
    }
}
