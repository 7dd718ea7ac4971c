//! The person who sets up, or the script that does.

use crate::cli::exit::sysexits;
use crate::cli::login::Failed;
use crate::cli::sendmail::Face;
use crate::cli::terminal::Terminal;
use crate::outcome::printable;

/// Whoever sits there, or nobody.
pub struct Person<'a> {
    /// Where he is spoken to.
    pub face: Face<'a>,
    /// His terminal.
    pub terminal: Option<Terminal>,
    /// To everything, beforehand.
    pub agrees: bool,
}

impl Person<'_> {
    /// Tells him something.
    pub fn tell(&self, text: &str) {
        // What cannot be told is in the file.
        let _ = self.face.print(&format!("{}\n", self.folded(text)));
    }

    /// As a person reads it; a program gets each sentence on a line of its own.
    pub fn folded(&self, text: &str) -> String {
        if self.terminal.is_none() {
            return text.to_owned();
        }
        text.split('\n').map(fold).collect::<Vec<_>>().join("\n")
    }

    /// Asks for a line; Enter alone is the proposal.
    pub fn asked(&self, what: &str, proposal: Option<&str>, flag: &str) -> Result<String, Failed> {
        match (&self.terminal, proposal) {
            (Some(_), Some(proposal)) if self.agrees => Ok(proposal.to_owned()),
            (Some(terminal), _) => loop {
                let shown = proposal.map(|proposal| format!(" [{}]", printable(proposal))).unwrap_or_default();
                let line = terminal.ask(&format!("{what}{shown}: ")).map_err(|error| unheard(&error))?;
                match line.ok_or_else(given_up)? {
                    line if line.is_empty() => {
                        if let Some(proposal) = proposal {
                            return Ok(proposal.to_owned());
                        }
                    }
                    line => return Ok(line),
                }
            },
            (None, Some(proposal)) => Ok(proposal.to_owned()),
            (None, None) => Err(Failed::new(
                sysexits::USAGE,
                format!("nobody is here to be asked: give {flag}; nothing was written"),
            )),
        }
    }

    /// Whether he says yes.
    pub fn consents(&self, question: &str) -> Result<bool, Failed> {
        match &self.terminal {
            _ if self.agrees => Ok(true),
            Some(terminal) => terminal.agrees(question).map_err(|error| unheard(&error)),
            None => Ok(false),
        }
    }
}

/// Folds a line at blanks, so that it fits into 80 columns where its words do; what follows is indented as it is.
fn fold(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let (mut folded, mut column) = (String::new(), 0);
    for word in line.split_inclusive(' ') {
        let width = word.trim_end().chars().count();
        if column > indent && column + width > 79 {
            folded.truncate(folded.trim_end().len());
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            column = indent;
        }
        folded.push_str(word);
        column += word.chars().count();
    }
    folded
}

fn unheard(error: &std::io::Error) -> Failed {
    let why = crate::outcome::words(error);
    Failed::new(sysexits::IOERR, format!("the terminal cannot be read: {why}; nothing was written"))
}

/// He has left.
pub fn given_up() -> Failed {
    Failed::new(sysexits::TEMPFAIL, "given up; nothing was written")
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn a_line_is_folded_at_blanks_and_nowhere_else() {
        let (word, short) = ("x".repeat(100), "  short line");
        assert_eq!((fold(short), fold(&word)), (short.to_owned(), word.clone()));
        let folded = fold(&format!("  {}", ["four"; 40].join(" ")));
        assert!(
            folded.lines().count() == 3 && folded.lines().all(|line| line.len() <= 79 && line.starts_with("  four"))
        );
        assert_eq!(fold(&format!("a {word} b")), format!("a\n{word}\nb"));
    }
}
