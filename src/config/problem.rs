//! What is wrong with a configuration file, and where: `file:line:column: sentence`.
//!
//! Lines and columns are counted from 1, columns in characters. A reader collects problems and goes on, so that a
//! person mends a file once and not once for each mistake.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file, as it was named.
    pub file: Rc<Path>,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what would be right.
    pub text: String,
}

impl Place {
    /// The place of an octet of the text; an octet beyond it, or within a character, is where that ends or begins.
    pub fn of(file: &Rc<Path>, text: &str, octet: usize) -> Self {
        let before = &text[..text.floor_char_boundary(octet)];
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        Self { file: Rc::clone(file), line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let file: Rc<Path> = Rc::from(Path::new("f"));
        for (octet, place) in [(0, "f:1:1"), (3, "f:2:1"), (5, "f:2:2"), (6, "f:2:2"), (99, "f:2:3")] {
            assert_eq!(Place::of(&file, "ab\néö", octet).to_string(), place, "{octet}");
        }
    }
}
