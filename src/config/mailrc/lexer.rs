//! Lines and words of a mailrc.
//!
//! A line that ends in a backslash goes on in the next one, without its leading white space; so does a comment.
//! Words are quoted in one of two ways ([`Style`]): the old one of POSIX mailx, and the shell's, which s-nail uses
//! behind `wysh` and where `v15-compat` has a value. `$'…'` is understood in both. Pure, linear, and bounded: a word
//! grows by variables to [`MAX_WORD`] at most.

use super::super::problem::Place;
use std::path::Path;
use std::rc::Rc;
use zeroize::Zeroizing;

/// In octets; longer than any setting, and short enough that words made of words cannot fill memory.
pub(super) const MAX_WORD: usize = 8 * 1024;

/// A logical line: continuations joined.
pub(super) struct Line {
    file: Rc<Path>,
    /// May hold a password.
    pub text: Zeroizing<String>,
    /// Where its physical lines begin: offset in `text`, line, characters before it on that line.
    parts: Vec<(usize, usize, usize)>,
}

impl Line {
    /// Where an octet of the text stands in the file.
    pub fn place(&self, offset: usize) -> Place {
        let at = self.parts.iter().rev().find(|(start, _, _)| *start <= offset);
        let (start, line, before) = at.copied().unwrap_or((0, 1, 0));
        let column = before + self.text.get(start..offset).map_or(0, |part| part.chars().count()) + 1;
        Place { file: Rc::clone(&self.file), line, column }
    }

    /// The octet of its first character that is not white space.
    pub fn start(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }
}

/// The lines of a file that say something: no comments, no empty ones.
pub(super) fn lines(file: &Rc<Path>, text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    for (number, physical) in text.lines().enumerate() {
        let continues = physical.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
        let said = if continues { &physical[..physical.len() - 1] } else { physical };
        let mut line = open.take().unwrap_or_else(|| Line {
            file: Rc::clone(file),
            text: Zeroizing::new(String::new()),
            parts: Vec::new(),
        });
        let said = if line.parts.is_empty() { said } else { said.trim_start() };
        let indent = physical.find(said).unwrap_or_default();
        line.parts.push((line.text.len(), number + 1, physical[..indent].chars().count()));
        line.text.push_str(said);
        if continues {
            open = Some(line);
        } else {
            lines.push(line);
        }
    }
    lines.extend(open);
    lines.retain(|line| !matches!(line.text.trim_start().chars().next(), None | Some('#')));
    lines
}

/// How words are quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// POSIX mailx: either quote, within which a backslash escapes that quote alone; outside, any character. No `$`.
    Old,
    /// sh(1): `'…'`, `"…"`, `$'…'`, backslash, `$NAME`; `;` ends the command.
    Shell,
}

/// A word without its quotes.
#[derive(Clone)]
pub(super) struct Word {
    /// What it says.
    pub text: Zeroizing<String>,
    /// Where it begins, an octet of the line.
    pub at: usize,
}

/// The words of a command.
pub(super) struct Words {
    /// Those that are whole.
    pub list: Vec<Word>,
    /// Where the next command of the line begins.
    pub rest: Option<usize>,
    /// What is wrong, and the word as far as it was read.
    pub broken: Option<(Word, &'static str)>,
}

/// Splits a line from an octet on. `variable` gives what `$NAME` stands for.
pub(super) fn words(line: &str, from: usize, style: Style, variable: &dyn Fn(&str) -> String) -> Words {
    let mut lexer = Lexer { line, at: from, style, variable };
    let mut all = Words { list: Vec::new(), rest: None, broken: None };
    loop {
        lexer.skip_space();
        match lexer.peek() {
            None | Some('#') => return all,
            Some(';') if style == Style::Shell => {
                all.rest = Some(lexer.at + 1);
                return all;
            }
            Some(_) => {}
        }
        let mut word = Word { text: Zeroizing::new(String::new()), at: lexer.at };
        if let Err(what) = lexer.word(&mut word.text) {
            all.broken = Some((word, what));
            return all;
        }
        all.list.push(word);
    }
}

struct Lexer<'a> {
    line: &'a str,
    at: usize,
    style: Style,
    variable: &'a dyn Fn(&str) -> String,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.line.get(self.at..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    fn word(&mut self, word: &mut String) -> Result<(), &'static str> {
        let shell = self.style == Style::Shell;
        while let Some(c) = self.peek() {
            if c.is_whitespace() || (shell && c == ';') {
                break;
            }
            self.next();
            match c {
                '\\' => word.extend(self.next()),
                '$' if self.peek() == Some('\'') => {
                    self.next();
                    self.dollar_quote(word)?;
                }
                '$' if shell => self.expand(word),
                '\'' if shell => self.until_quote(word)?,
                '"' if shell => self.double_quote(word)?,
                '\'' | '"' => self.old_quote(c, word)?,
                _ => word.push(c),
            }
            if word.len() > MAX_WORD {
                return Err("this word is too long");
            }
        }
        Ok(())
    }

    fn until_quote(&mut self, word: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next().ok_or("this ' is never closed")? {
                '\'' => return Ok(()),
                c => word.push(c),
            }
        }
    }

    fn old_quote(&mut self, quote: char, word: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next().ok_or("this quote is never closed")? {
                c if c == quote => return Ok(()),
                '\\' if self.peek() == Some(quote) => word.extend(self.next()),
                c => word.push(c),
            }
        }
    }

    fn double_quote(&mut self, word: &mut String) -> Result<(), &'static str> {
        loop {
            match self.next().ok_or("this \" is never closed")? {
                '"' => return Ok(()),
                '\\' if matches!(self.peek(), Some('$' | '`' | '"' | '\\')) => word.extend(self.next()),
                '$' => self.expand(word),
                c => word.push(c),
            }
            if word.len() > MAX_WORD {
                return Err("this word is too long");
            }
        }
    }

    /// `$'…'`: the escapes of C, as octets; what they make must be UTF-8.
    fn dollar_quote(&mut self, word: &mut String) -> Result<(), &'static str> {
        let mut octets = Zeroizing::new(Vec::new());
        loop {
            match self.next().ok_or("this $' is never closed")? {
                '\'' => break,
                '\\' => self.escape(&mut octets)?,
                c => push(&mut octets, c),
            }
        }
        let text = std::str::from_utf8(&octets).map_err(|_| "what this $'…' makes is not UTF-8")?;
        if text.contains('\0') {
            return Err("a NUL cannot be in a word");
        }
        word.push_str(text);
        Ok(())
    }

    /// What stands behind a backslash in `$'…'`.
    fn escape(&mut self, octets: &mut Vec<u8>) -> Result<(), &'static str> {
        match self.next().ok_or("this $' is never closed")? {
            'a' => octets.push(0x07),
            'b' => octets.push(0x08),
            'e' | 'E' => octets.push(0x1b),
            'f' => octets.push(0x0c),
            'n' => octets.push(b'\n'),
            'r' => octets.push(b'\r'),
            't' => octets.push(b'\t'),
            'v' => octets.push(0x0b),
            'c' => {
                let c = self.next().filter(char::is_ascii).ok_or("\\c needs a character behind it")?;
                octets.push((c.to_ascii_uppercase() as u8) ^ 0x40);
            }
            'u' => push(octets, self.unicode(4)?),
            'U' => push(octets, self.unicode(8)?),
            'x' => octets.push(self.octet(16, 2)?),
            c @ '0'..='7' => {
                self.at -= 1;
                octets.push(self.octet(8, if c == '0' { 4 } else { 3 })?);
            }
            '$' => {
                let mut value = String::new();
                self.expand(&mut value);
                octets.extend_from_slice(value.as_bytes());
            }
            c @ ('\\' | '\'' | '"') => push(octets, c),
            c => {
                octets.push(b'\\');
                push(octets, c);
            }
        }
        Ok(())
    }

    fn octet(&mut self, radix: u32, most: usize) -> Result<u8, &'static str> {
        self.digits(radix, most).and_then(|value| u8::try_from(value).ok()).ok_or("this escape is no octet")
    }

    fn unicode(&mut self, most: usize) -> Result<char, &'static str> {
        self.digits(16, most).and_then(char::from_u32).ok_or("this is no Unicode character")
    }

    fn digits(&mut self, radix: u32, most: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            self.next();
            value = Some(value.unwrap_or(0_u32).wrapping_mul(radix).wrapping_add(digit));
        }
        value
    }

    /// What stands behind a `$`: a name, or a name in braces. Anything else: the dollar is itself.
    fn expand(&mut self, word: &mut String) {
        let rest = &self.line[self.at..];
        let (name, length) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None if rest.starts_with(['*', '@', '#', '?', '!']) => (&rest[..1], 1),
            None => {
                let end = if rest.starts_with(|c: char| c.is_ascii_digit()) {
                    rest.find(|c: char| !c.is_ascii_digit())
                } else {
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
                };
                let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('-');
                (if name.starts_with('-') { "" } else { name }, name.len())
            }
        };
        if name.is_empty() {
            word.push('$');
            return;
        }
        self.at += length;
        word.push_str(&(self.variable)(name));
    }
}

fn push(octets: &mut Vec<u8>, c: char) {
    octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
