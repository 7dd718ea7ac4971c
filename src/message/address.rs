//! Address lists, as strangers write them: header fields and command lines in, [`Address`]es out.
//!
//! Understood: groups, comments, quoted local parts and names, routes, address literals, the obsolete white space
//! (`a @ b`), empty items, `;` for `,`, several addresses with only a space between them, and names without a
//! domain. Refused, with the column and without guessing: what is unbalanced, what has a control character, words
//! that are no address, and a name with an unquoted comma: `Doe, John <j@x>` is not a letter to `Doe`. A word
//! before such an item is taken for a person's login only if it looks like one (`root, Bob <b@x>`).
//! Linear in time and not recursive. RFC 5322 §3.4 and §4.4, RFC 6532.

use crate::envelope::{BadMailbox, Mailbox};
use std::fmt;
use std::ops::Range;

/// One address of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name before it, without quotes and comments; encoded words as they are.
    pub display: Option<String>,
    /// The local part without quotes.
    pub local: String,
    /// The domain; `None` for a local name.
    pub domain: Option<String>,
    /// The octets of local part and domain in the text.
    pub(super) span: Range<usize>,
    /// Whether it stands in angles.
    pub(super) angled: bool,
}

impl Address {
    /// The complete address, with `domain` where it has none of its own.
    pub fn to_mailbox(&self, domain: &str) -> Result<Mailbox, BadMailbox> {
        Mailbox::new(&self.local, self.domain.as_deref().unwrap_or(domain))
    }
}

/// Local part and domain as they are, for sentences.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local)?;
        self.domain.as_ref().map_or(Ok(()), |domain| write!(f, "@{domain}"))
    }
}

/// What is wrong with a list, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// The character, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A control character.
    Control,
    /// A quote, bracket, parenthesis or angle that is never closed.
    Unclosed(char),
    /// A character that cannot stand here.
    Unexpected(char),
    /// Words that are no address.
    NotAnAddress,
    /// A name with a comma that is not quoted.
    UnquotedComma,
    /// Nothing where an address should be.
    Missing,
    /// More than one where one is asked for.
    Several,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at column {}: ", self.column)?;
        match self.problem {
            Problem::Control => f.write_str("a control character cannot be part of an address"),
            Problem::Unclosed(opened) => write!(f, "this {opened} is never closed"),
            Problem::Unexpected(c) => write!(f, "{c:?} cannot stand here"),
            Problem::NotAnAddress => f.write_str("these words are no address; a name goes before <address>"),
            Problem::UnquotedComma => f.write_str("a name with a comma must be in double quotes"),
            Problem::Missing => f.write_str("an address is missing"),
            Problem::Several => f.write_str("only one address can stand here"),
        }
    }
}

/// More words than this between two commas are no name and no address.
const MAX_WORDS: usize = 1000;

/// Reads a list. Line ends are control characters here: unfold a header field first.
pub fn parse_list(text: &str) -> Result<Vec<Address>, AddressError> {
    let mut list = Vec::new();
    Parser::new(text, Folds::Refused).each(&mut |address| list.push(address))?;
    Ok(list)
}

/// As [`parse_list`], on a field's value with its folds still in it. Each address goes to `taker` as soon as it is
/// read: a field may have hundreds of thousands, and together they would take a hundred times its size.
pub(super) fn each_folded(text: &str, taker: &mut dyn FnMut(Address)) -> Result<(), AddressError> {
    Parser::new(text, Folds::AreSpace).each(taker)
}

/// Reads an envelope sender: one address, or `None` for nothing and `<>`, the null reverse-path.
pub fn parse_sender(text: &str) -> Result<Option<Address>, AddressError> {
    if matches!(text.trim_matches([' ', '\t']), "" | "<>") {
        return Ok(None);
    }
    let mut list = parse_list(text)?;
    match (list.pop(), list.is_empty()) {
        (Some(address), true) => Ok(Some(address)),
        (Some(_), false) => Err(AddressError { column: 1, problem: Problem::Several }),
        (None, _) => Err(AddressError { column: 1, problem: Problem::Missing }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Folds {
    AreSpace,
    Refused,
}

/// A lexical token (RFC 5322 §3.2). Comments and white space are none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Atom(String),
    Quoted(String),
    Literal(String),
    Special(char),
    End,
}

/// What has been read of the current item.
#[derive(Default)]
struct Item {
    /// Words, dots and at-signs in front of an angle address, or the bare address itself, with their places.
    words: Vec<Word>,
    angle: Option<Address>,
}

/// A token and where it stands.
type Word = (Token, Place);

/// Where a token stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// Characters before it.
    column: usize,
    /// Its first octet.
    start: usize,
    /// The octet behind it.
    end: usize,
}

struct Parser<'a> {
    text: &'a str,
    folds: Folds,
    /// Octets and characters that are read.
    at: usize,
    column: usize,
    in_group: bool,
    /// What has been read and not yet taken.
    list: Vec<Address>,
    /// The item before ended with its angle, and no comma came.
    glued: bool,
    /// A bare word that ended in a comma, with the comma's column: perhaps half of a name.
    half_name: Option<usize>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, folds: Folds) -> Self {
        Self { text, folds, at: 0, column: 0, in_group: false, list: Vec::new(), glued: false, half_name: None }
    }

    fn each(mut self, taker: &mut dyn FnMut(Address)) -> Result<(), AddressError> {
        let mut item = Item::default();
        loop {
            self.list.drain(..).for_each(&mut *taker);
            let (token, place) = self.token()?;
            match token {
                Token::End => {
                    self.conclude(item)?;
                    self.list.into_iter().for_each(taker);
                    return Ok(());
                }
                // Between groups a `;` is somebody's comma, and the same doubt hangs over it.
                Token::Special(c @ (',' | ';')) => {
                    let ends_group = c == ';' && std::mem::take(&mut self.in_group);
                    let half_name = match item.words.as_slice() {
                        _ if ends_group => None,
                        [(Token::Atom(word), _)] if item.angle.is_none() && !is_login(word) => Some(place.column),
                        _ => None,
                    };
                    self.conclude(std::mem::take(&mut item))?;
                    self.half_name = half_name;
                }
                Token::Special(':') => {
                    // What has an @ is no group's name, and what stands behind it would be nobody's address.
                    let is_name = !item.words.iter().any(|(token, _)| *token == Token::Special('@'));
                    if self.in_group || item.words.is_empty() || !is_name || item.angle.is_some() {
                        return Err(unexpected(':', place));
                    }
                    item = Item::default();
                    self.in_group = true;
                    self.half_name = None;
                }
                Token::Special('<') => {
                    if item.angle.is_some() {
                        self.conclude(std::mem::take(&mut item))?;
                    }
                    item.angle = Some(self.angle(place)?);
                }
                Token::Special(c @ ('>' | ']' | ')')) => return Err(unexpected(c, place)),
                word => {
                    if item.angle.is_some() {
                        self.conclude(std::mem::take(&mut item))?;
                        self.glued = true;
                    }
                    add((word, place), &mut item.words)?;
                }
            }
        }
    }

    /// Ends an item: an angle address with its name, or one or more bare addresses.
    fn conclude(&mut self, item: Item) -> Result<(), AddressError> {
        let half_name = self.half_name.take();
        let glued = std::mem::take(&mut self.glued);
        if let Some(mut address) = item.angle {
            if let (Some(column), false) = (half_name, item.words.is_empty()) {
                return Err(AddressError { column: column + 1, problem: Problem::UnquotedComma });
            }
            address.display = display(&item.words);
            self.list.push(address);
            return Ok(());
        }
        let (mut words, mut found) = (item.words.as_slice(), 0);
        let first = words.first().map_or(0, |(_, place)| place.column);
        while !words.is_empty() {
            let (address, rest) = bare(words)?;
            // Several bare addresses in a row must be whole ones; several bare words are a name without its address.
            if address.domain.is_none() && (glued || found > 0 || !rest.is_empty()) {
                return Err(AddressError { column: first + 1, problem: Problem::NotAnAddress });
            }
            self.list.push(address);
            (words, found) = (rest, found + 1);
        }
        Ok(())
    }

    /// Reads from behind `<` to `>`: perhaps a route, then an address (RFC 5322 §4.4, obs-angle-addr).
    fn angle(&mut self, opened: Place) -> Result<Address, AddressError> {
        let mut words = Vec::new();
        loop {
            let (token, place) = self.token()?;
            match token {
                Token::End => return Err(AddressError { column: opened.column + 1, problem: Problem::Unclosed('<') }),
                Token::Special('>') if words.is_empty() => return Err(missing(place)),
                Token::Special('>') => {
                    let (mut address, rest) = bare(&words)?;
                    address.angled = true;
                    return rest.first().map_or(Ok(address), |(_, place)| Err(not_an_address(*place)));
                }
                // A route: everything up to its colon is of no use any more (RFC 5321 §4.1.1.3, appendix C).
                Token::Special(':') if matches!(words.first(), Some((Token::Special('@'), _))) => words.clear(),
                Token::Special(',') if matches!(words.first(), Some((Token::Special('@'), _))) => {}
                Token::Special(c) if !matches!(c, '@' | '.') => return Err(unexpected(c, place)),
                word => add((word, place), &mut words)?,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.column += 1;
        Some(c)
    }

    fn is_space(&self, c: char) -> bool {
        matches!(c, ' ' | '\t') || (self.folds == Folds::AreSpace && matches!(c, '\r' | '\n'))
    }

    /// The next token, behind white space and comments.
    fn token(&mut self) -> Result<(Token, Place), AddressError> {
        loop {
            match self.peek() {
                Some('(') => self.comment()?,
                Some(c) if self.is_space(c) => {
                    self.bump();
                }
                _ => break,
            }
        }
        let (column, start) = (self.column, self.at);
        let token = match self.peek() {
            None => Token::End,
            Some('"') => Token::Quoted(self.enclosed('"', '"')?),
            // White space in a literal means nothing (RFC 5322 §3.4.1).
            Some('[') => Token::Literal(format!("[{}]", self.enclosed('[', ']')?.replace([' ', '\t'], ""))),
            Some(c) if is_special(c) => {
                self.bump();
                Token::Special(c)
            }
            Some(c) if c.is_control() => return Err(AddressError { column: column + 1, problem: Problem::Control }),
            Some(_) => Token::Atom(self.atom()),
        };
        Ok((token, Place { column, start, end: self.at }))
    }

    fn atom(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| !is_special(c) && !c.is_control() && !self.is_space(c)) {
            self.bump();
        }
        self.text[start..self.at].to_owned()
    }

    /// Skips a comment and the comments in it.
    fn comment(&mut self) -> Result<(), AddressError> {
        let (opened, mut depth) = (self.column + 1, 0_usize);
        while let Some(c) = self.legal()? {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                '\\' => drop(self.legal()?),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(AddressError { column: opened, problem: Problem::Unclosed('(') })
    }

    /// The text between two marks, its quoted pairs resolved.
    fn enclosed(&mut self, open: char, close: char) -> Result<String, AddressError> {
        let (opened, mut inner) = (self.column + 1, String::new());
        self.bump();
        while let Some(c) = self.legal()? {
            match c {
                c if c == close => return Ok(inner),
                '\\' => inner.extend(self.legal()?),
                '\r' | '\n' => {}
                c => inner.push(c),
            }
        }
        Err(AddressError { column: opened, problem: Problem::Unclosed(open) })
    }

    /// The next character, which must be none that controls.
    fn legal(&mut self) -> Result<Option<char>, AddressError> {
        match self.bump() {
            Some(c) if c.is_control() && !self.is_space(c) => {
                Err(AddressError { column: self.column, problem: Problem::Control })
            }
            c => Ok(c),
        }
    }
}

fn add(word: Word, words: &mut Vec<Word>) -> Result<(), AddressError> {
    if words.len() == MAX_WORDS {
        return Err(not_an_address(word.1));
    }
    words.push(word);
    Ok(())
}

/// RFC 5322 §3.2.3.
fn is_special(c: char) -> bool {
    matches!(c, '(' | ')' | '<' | '>' | '[' | ']' | ':' | ';' | '@' | '\\' | ',' | '.' | '"')
}

/// Whether a word looks like the name of a user of this machine, as useradd(8) allows them.
fn is_login(word: &str) -> bool {
    !word.contains(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')))
}

/// Reads one `local[@domain]` from the front of some tokens; gives it and the tokens behind it.
fn bare(words: &[Word]) -> Result<(Address, &[Word]), AddressError> {
    let start = words.first().map_or(0, |(_, place)| place.start);
    let (local, end, rest) = dotted(words, Literals::Refused)?;
    let mut address = Address { display: None, local, domain: None, span: start..end, angled: false };
    let [(Token::Special('@'), at), rest @ ..] = rest else { return Ok((address, rest)) };
    if rest.is_empty() {
        return Err(missing(Place { column: at.column + 1, ..*at }));
    }
    let (domain, end, rest) = dotted(rest, Literals::Taken)?;
    (address.domain, address.span.end) = (Some(domain), end);
    Ok((address, rest))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Literals {
    Taken,
    Refused,
}

/// Words with dots between them. A dot at the end is dropped, as DNS has it; elsewhere dots are kept as they are.
fn dotted(words: &[Word], literals: Literals) -> Result<(String, usize, &[Word]), AddressError> {
    let (mut text, mut end, mut rest, mut wants_word) = (String::new(), 0, words, true);
    while let [(token, place), behind @ ..] = rest {
        match token {
            Token::Special('.') => {
                text.push('.');
                wants_word = true;
            }
            Token::Atom(word) | Token::Quoted(word) if wants_word => {
                text.push_str(word);
                wants_word = false;
            }
            Token::Literal(word) if wants_word && text.is_empty() && literals == Literals::Taken => {
                text.push_str(word);
                wants_word = false;
            }
            Token::Literal(_) => return Err(unexpected('[', *place)),
            Token::Special(c) if *c != '@' => return Err(unexpected(*c, *place)),
            Token::Special(_) if text.is_empty() => return Err(unexpected('@', *place)),
            _ => break,
        }
        (end, rest) = (place.end, behind);
    }
    if literals == Literals::Taken && text.ends_with('.') {
        text.pop();
    }
    Ok((text, end, rest))
}

/// The name before an angle address.
fn display(words: &[Word]) -> Option<String> {
    let mut name = String::new();
    for (token, _) in words {
        match token {
            Token::Atom(word) | Token::Quoted(word) | Token::Literal(word) => {
                if !name.is_empty() && !name.ends_with('.') {
                    name.push(' ');
                }
                name.push_str(word);
            }
            Token::Special(c) => name.push(*c),
            Token::End => {}
        }
    }
    (!name.is_empty()).then_some(name)
}

fn unexpected(c: char, place: Place) -> AddressError {
    AddressError { column: place.column + 1, problem: Problem::Unexpected(c) }
}

fn missing(place: Place) -> AddressError {
    AddressError { column: place.column + 1, problem: Problem::Missing }
}

fn not_an_address(place: Place) -> AddressError {
    AddressError { column: place.column + 1, problem: Problem::NotAnAddress }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, AddressError> {
        parse_list(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
    }

    #[test]
    fn addresses_are_understood_as_strangers_write_them() {
        for (text, want) in [
            ("a@b.c", "a@b.c"),
            ("<a@b.c>", "a@b.c"),
            ("Alice <a@b.c>, Bob B. Brown <b@b.c>", "a@b.c | b@b.c"),
            ("\"Doe, John\" <j@x>", "j@x"),
            ("a@x, b@x; c@x,,;", "a@x | b@x | c@x"),
            ("a@x b@x\tc@x", "a@x | b@x | c@x"),
            ("<a@x> <b@x>", "a@x | b@x"),
            ("a @ d.e , b@ d . e", "a@d.e | b@d.e"),
            ("undisclosed-recipients:;", ""),
            ("undisclosed recipients:", ""),
            ("G: a@x, \"B\" <b@x>; c@x", "a@x | b@x | c@x"),
            (
                "A Group(Some people):Chris Jones <c@(Chris's host.)public.example>, joe@example.org; ",
                "c@public.example | joe@example.org",
            ),
            ("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", "pete@silly.test"),
            ("(a (b (c)) d) x@y (z)", "x@y"),
            ("\"john doe\"@y, \"a@b\"@x, \"q\\\"q\"@x", "john doe@y | a@b@x | q\"q@x"),
            ("<@r1,@r2:a@d>", "a@d"),
            ("u@[ 192.0.2.1 ]", "u@[192.0.2.1]"),
            ("u@[192.0.2.1], u@[IPv6:2001:db8::1]", "u@[192.0.2.1] | u@[IPv6:2001:db8::1]"),
            ("root, cron", "root | cron"),
            ("root, Bob <bob@x>", "root | bob@x"),
            ("<root>", "root"),
            ("root (the boss)", "root"),
            ("=?utf-8?q?J=C3=B6rg?= <j@x>", "j@x"),
            ("jörg@bücher.example", "jörg@bücher.example"),
            ("host!user@x, user%h@x, a+b@x.", "host!user@x | user%h@x | a+b@x"),
            ("a..b@x, .a@x", "a..b@x | .a@x"),
            ("", ""),
            (" , ,", ""),
        ] {
            assert_eq!(read(text), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_with_its_column_and_never_a_guess() {
        for (text, column, problem) in [
            ("Doe, John <j@x>", 4, Problem::UnquotedComma),
            ("a@x, Doe, John <j@x>", 9, Problem::UnquotedComma),
            ("Doe; John <j@x>", 4, Problem::UnquotedComma),
            ("x@y.org:25", 8, Problem::Unexpected(':')),
            ("John Doe", 1, Problem::NotAnAddress),
            ("<a@x> SIZE=1", 7, Problem::NotAnAddress),
            ("a@x, John Doe, b@x", 6, Problem::NotAnAddress),
            ("a@x, <b@x", 6, Problem::Unclosed('<')),
            ("a@x, \"b", 6, Problem::Unclosed('"')),
            ("(a@x", 1, Problem::Unclosed('(')),
            ("a@[1.2", 3, Problem::Unclosed('[')),
            ("a@x>", 4, Problem::Unexpected('>')),
            ("@x", 1, Problem::Unexpected('@')),
            ("a@", 3, Problem::Missing),
            ("<>", 2, Problem::Missing),
            ("Bob <b c@x>", 8, Problem::NotAnAddress),
            ("a\\,b@x", 2, Problem::Unexpected('\\')),
            ("a@b\r\nBcc: e@d", 4, Problem::Control),
            ("a@b\0", 4, Problem::Control),
            ("\"a\nb\"@x", 3, Problem::Control),
            (": a@x;", 1, Problem::Unexpected(':')),
            ("a@x@y", 4, Problem::Unexpected('@')),
        ] {
            assert_eq!(read(text), Err(AddressError { column, problem }), "{text:?}");
        }
    }

    #[test]
    fn names_are_kept_without_their_quotes() {
        let list = parse_list("\"Doe, J.\" <a@x>, Bob B. Brown <b@x>, c@x").unwrap();
        let names: Vec<Option<&str>> = list.iter().map(|address| address.display.as_deref()).collect();
        assert_eq!(names, [Some("Doe, J."), Some("Bob B.Brown"), None]);
    }

    #[test]
    fn a_sender_is_one_address_or_the_null_path() {
        for null in ["", "<>", " <> "] {
            assert_eq!(parse_sender(null), Ok(None), "{null:?}");
        }
        for one in ["a@b", "<a@b>", "Name <a@b>"] {
            assert_eq!(parse_sender(one).unwrap().unwrap().to_string(), "a@b", "{one}");
        }
        assert_eq!(parse_sender("alice").unwrap().unwrap().to_string(), "alice");
        for bad in ["a@b, c@d", "a@b>\r\nRCPT TO:<c@d", ",", "a b"] {
            assert!(parse_sender(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bombs_are_read_in_linear_time_and_without_a_deep_stack() {
        let nested = format!("{}{} a@x", "(".repeat(200_000), ")".repeat(200_000));
        assert_eq!(read(&nested), Ok("a@x".to_owned()));
        assert!(read(&"(".repeat(200_000)).is_err());
        assert!(read(&"g:".repeat(100_000)).is_err());
        assert!(read(&"<".repeat(100_000)).is_err());
        let many = (0..100_000).map(|i| format!("user{i}@example.org")).collect::<Vec<_>>().join(", ");
        assert_eq!(parse_list(&many).unwrap().len(), 100_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_text_is_a_list_or_an_error(text in any::<String>()) {
            let _ = parse_list(&text);
        }

        #[test]
        fn a_mailbox_reads_as_itself(text in "[-a-z.,;:<>@()\"\\\\ \\[\\]ö]{0,24}") {
            for address in parse_list(&text).unwrap_or_default() {
                if let Ok(mailbox) = address.to_mailbox("d.example") {
                    let again = parse_list(&mailbox.to_string()).unwrap();
                    prop_assert_eq!(again.len(), 1);
                    prop_assert_eq!(again[0].to_mailbox("other"), Ok(mailbox));
                }
            }
        }
    }
}
