//! Encodings of text: quoted-printable and base64 as machines, encoded words, phrases, folds.
//!
//! RFC 2045 §6.7 and §6.8, RFC 2047, RFC 5322 §2.2.3.

use super::address::{Address, each_folded};
use super::fields::Field;
use crate::envelope::is_atext;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest line of a header that is left alone (RFC 5322 §2.1.1), without its CRLF.
const MAX_LINE: usize = 998;

/// The longest line of an encoded body, without its CRLF.
const ENCODED_LINE: usize = 76;

/// A body encoding that octets are pushed through: canonical text in, canonical text out.
#[derive(Debug)]
pub enum Encoder {
    /// For text.
    QuotedPrintable(QuotedPrintable),
    /// For anything else.
    Base64(Base64),
    /// For what is encoded already, in lines that are too long.
    Folder(Folder),
}

impl Encoder {
    /// Takes the next octets of a line, without its CRLF.
    pub fn text(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable(encoder) => octets.iter().for_each(|octet| encoder.octet(*octet, out)),
            Self::Base64(encoder) => encoder.push(octets, out),
            Self::Folder(folder) => octets.iter().for_each(|octet| folder.octet(*octet, out)),
        }
    }

    /// Takes a CRLF inside the body.
    pub fn line_end(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable(encoder) => encoder.end_line(out),
            Self::Base64(encoder) => encoder.push(b"\r\n", out),
            Self::Folder(folder) => folder.end_line(out),
        }
    }

    /// Ends the body. The CRLF behind it is the caller's.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable(encoder) => encoder.flush_space(out),
            Self::Base64(encoder) => encoder.finish(out),
            Self::Folder(_) => {}
        }
    }
}

/// RFC 2045 §6.7.
#[derive(Debug, Default)]
pub struct QuotedPrintable {
    column: usize,
    /// A space or tab that must be encoded if the line ends behind it.
    space: Option<u8>,
}

impl QuotedPrintable {
    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) {
        if let Some(space) = self.space.take() {
            self.put(&[space], out);
        }
        match octet {
            b' ' | b'\t' => self.space = Some(octet),
            // A line that begins with a dot or with From would be changed on some ways.
            b'.' | b'F' if self.column == 0 => self.put(&hex(octet), out),
            b'!'..=b'<' | b'>'..=b'~' => self.put(&[octet], out),
            _ => self.put(&hex(octet), out),
        }
    }

    fn put(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.column + piece.len() >= ENCODED_LINE {
            out.extend_from_slice(b"=\r\n");
            self.column = 0;
        }
        out.extend_from_slice(piece);
        self.column += piece.len();
    }

    fn flush_space(&mut self, out: &mut Vec<u8>) {
        if let Some(space) = self.space.take() {
            self.put(&hex(space), out);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        self.flush_space(out);
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }
}

fn hex(octet: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]
}

/// RFC 2045 §6.8.
#[derive(Debug, Default)]
pub struct Base64 {
    /// Octets that do not fill a line yet.
    held: Vec<u8>,
    begun: bool,
}

impl Base64 {
    fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(octets);
        let whole = self.held.len() / 57 * 57;
        self.lines(whole, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.lines(self.held.len(), out);
    }

    fn lines(&mut self, len: usize, out: &mut Vec<u8>) {
        for line in self.held[..len].chunks(57) {
            if std::mem::replace(&mut self.begun, true) {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(STANDARD.encode(line).as_bytes());
        }
        self.held.drain(..len);
    }
}

/// Breaks lines of base64 and quoted-printable where that means nothing (RFC 2045 §6.7 rule 5, §6.8).
#[derive(Debug)]
pub struct Folder {
    /// What a break is written as: quoted-printable has its soft one.
    soft: &'static [u8],
    column: usize,
    /// Octets of an escape that are still to come.
    escape: usize,
}

impl Folder {
    pub(super) fn new(encoding: Encoding) -> Self {
        let soft: &[u8] = if encoding == Encoding::QuotedPrintable { b"=\r\n" } else { b"\r\n" };
        Self { soft, column: 0, escape: 0 }
    }

    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) {
        let is_escape = octet == b'=' && self.soft.len() > 2;
        let width = if is_escape { 3 } else { 1 };
        if self.escape == 0 && self.column + width + self.soft.len() > ENCODED_LINE + 2 {
            out.extend_from_slice(self.soft);
            self.column = 0;
        }
        self.escape = if is_escape { 2 } else { self.escape.saturating_sub(1) };
        out.push(octet);
        self.column += 1;
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        (self.column, self.escape) = (0, 0);
    }
}

/// What a body is encoded as (RFC 2045 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all: 7bit, 8bit or binary.
    Identity,
    QuotedPrintable,
    Base64,
    /// Something that we know nothing of.
    Other,
}

impl Encoding {
    /// Reads the value of a Content-Transfer-Encoding.
    pub(super) fn read(value: &str) -> Self {
        match value.to_ascii_lowercase().as_str() {
            "" | "7bit" | "8bit" | "binary" => Self::Identity,
            "quoted-printable" => Self::QuotedPrintable,
            "base64" => Self::Base64,
            _ => Self::Other,
        }
    }
}

/// A name as a phrase (RFC 5322 §3.2.5): bare, quoted or encoded, whichever it needs. No name can bring a line end.
pub fn phrase(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = name.trim();
    if !name.is_ascii() {
        return encoded_words(name);
    }
    if name.chars().all(|c| is_atext(c) || c == ' ') && !name.contains("=?") {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Text as encoded words of at most 75 characters each, folded between them (RFC 2047 §2).
pub fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = vec![String::new()];
    for c in text.chars() {
        if words.last().is_some_and(|word| word.len() + c.len_utf8() > 45) {
            words.push(String::new());
        }
        words.iter_mut().last().into_iter().for_each(|word| word.push(c));
    }
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

/// A field whose lines have at most 998 octets; `None` where that changes nothing, or is not to be had.
///
/// Folds stand at white space. Where there is none, text of the author's becomes encoded words, a list is folded behind
/// its separators, and any other value in the middle of a word, as Postfix does it: that costs a blank, and a line that
/// is too long costs the letter at many a relay.
pub(super) fn refold(field: &Field) -> Option<Field> {
    if TEXT.iter().any(|name| field.is(name)) && field.value().split(|octet| *octet == b' ').any(is_long) {
        let encoded = Field::of(field.name(), &words_in_ascii(field.value()));
        return Some(refold(&encoded).unwrap_or(encoded));
    }
    let is_list = ADDRESSES.iter().chain(&STRUCTURED).any(|name| field.is(name));
    let is_blank = |octet: u8| matches!(octet, b' ' | b'\t');
    let mut folded = Vec::with_capacity(field.raw().len() + 64);
    // A fold right behind the colon would gain nothing.
    let mut first = field.raw().len() - field.value().len();
    for line in field.raw().split_inclusive(|octet| *octet == b'\n') {
        let (mut rest, mut room) = (line, MAX_LINE);
        while rest.len() > room + 2 {
            let blank = |i: &usize| is_blank(rest[*i]) && !matches!(rest[*i + 1], b' ' | b'\t' | b'\r');
            let apart = |i: &usize| match (rest[*i - 1], rest[*i]) {
                (before, _) if is_list => matches!(before, b',' | b';' | b'>'),
                (before, behind) => !is_blank(before) && !is_blank(behind) && !matches!(behind, 0x80..=0xBF),
            };
            let mut places = (first.max(1)..=room).rev();
            let found = places.clone().find(blank).filter(|at| !rest[..*at].iter().all(|octet| is_blank(*octet)));
            let Some(at) = found.or_else(|| places.find(apart)) else { break };
            folded.extend_from_slice(&rest[..at]);
            folded.extend_from_slice(if found.is_some() { b"\r\n" } else { b"\r\n " });
            (rest, first, room) = (&rest[at..], 0, MAX_LINE - usize::from(found.is_none()));
        }
        folded.extend_from_slice(rest);
        first = 0;
    }
    (folded != field.raw()).then(|| Field::new(folded)).flatten()
}

/// Fields whose value is text for a reader.
const TEXT: [&str; 3] = ["Subject", "Comments", "Content-Description"];

/// Whether a word has no place on a line with its field's name.
fn is_long(word: &[u8]) -> bool {
    word.len() > MAX_LINE - 50
}

/// Fields whose value has a grammar in which an encoded word has no place.
const STRUCTURED: [&str; 9] = [
    "Content-Type",
    "Content-Disposition",
    "Content-ID",
    "Message-ID",
    "References",
    "In-Reply-To",
    "Received",
    "Date",
    "MIME-Version",
];

/// Fields whose value is a list of addresses.
const ADDRESSES: [&str; 9] =
    ["From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"];

/// A field with its eight-bit text in encoded words; `None` where its grammar has no place for them.
pub fn field_in_ascii(field: &Field) -> Option<Field> {
    let is_one_of = |names: &[&str]| names.iter().any(|name| field.is(name));
    if is_one_of(&STRUCTURED) {
        return None;
    }
    if !is_one_of(&ADDRESSES) {
        return Some(Field::of(field.name(), &words_in_ascii(field.value())));
    }
    // A name that is not UTF-8 is of a character set that nobody told: its odd octets become U+FFFD.
    let text = String::from_utf8_lossy(field.value());
    let in_ascii = |address: &Address| {
        let mailbox = address.to_mailbox("localhost").ok()?.with_ascii_domain().filter(|mailbox| !mailbox.is_utf8())?;
        Some(match &address.display {
            Some(name) => format!("{} <{mailbox}>", phrase(name)),
            None => mailbox.to_string(),
        })
    };
    let (mut list, mut fits) = (String::new(), true);
    let mut add = |address: Address| match in_ascii(&address) {
        Some(text) => list.extend([if list.is_empty() { "" } else { ",\r\n " }, text.as_str()]),
        None => fits = false,
    };
    each_folded(&text, &mut add).ok()?;
    (fits && !list.is_empty()).then(|| Field::of(field.name(), &list))
}

/// Unstructured text, unfolded, whose words from the first to the last that is long or not ASCII are encoded.
fn words_in_ascii(text: &[u8]) -> String {
    let text: Vec<u8> = text.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    let words: Vec<&[u8]> = text.trim_ascii().split(|octet| *octet == b' ').collect();
    let odd = |word: &&[u8]| !word.is_ascii() || is_long(word);
    let plain = |words: &[&[u8]]| String::from_utf8_lossy(&words.join(&b' ')).into_owned();
    let (Some(first), Some(last)) = (words.iter().position(odd), words.iter().rposition(odd)) else {
        return plain(&words);
    };
    let middle = words[first..=last].join(&b' ');
    let encoded = if let Ok(middle) = std::str::from_utf8(&middle) {
        encoded_words(middle)
    } else {
        // Of which character set it is nobody has told; this name says just that (RFC 1428), and no octet is lost.
        let words = middle.chunks(30).map(|chunk| format!("=?unknown-8bit?B?{}?=", STANDARD.encode(chunk)));
        words.collect::<Vec<_>>().join("\r\n ")
    };
    let (before, behind) = (plain(&words[..first]), plain(&words[last + 1..]));
    [before, encoded, behind].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// An independent reader of quoted-printable.
    pub(crate) fn decode(encoded: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(encoded.to_vec()).unwrap().replace("=\r\n", "");
        let (bytes, mut out, mut i) = (text.as_bytes(), Vec::new(), 0);
        while i < bytes.len() {
            if bytes[i] == b'=' {
                out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).unwrap());
                i += 3;
            } else {
                out.push(bytes[i]);
                i += 1;
            }
        }
        out
    }

    fn no_line_end() -> impl Strategy<Value = u8> {
        any::<u8>().prop_filter("no line ends", |octet| !matches!(octet, b'\r' | b'\n'))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn quoted_printable_is_short_ascii_and_comes_back(lines in vec(vec(no_line_end(), 0..200), 1..4)) {
            let (mut encoder, mut out) = (Encoder::QuotedPrintable(QuotedPrintable::default()), Vec::new());
            for line in &lines {
                encoder.text(line, &mut out);
                encoder.line_end(&mut out);
            }
            let is_right = |line: &[u8]| line.len() <= ENCODED_LINE + 1 && !line.ends_with(b" \r");
            prop_assert!(out.is_ascii() && out.split(|b| *b == b'\n').all(is_right));
            prop_assert_eq!(decode(&out), [lines.join(&b"\r\n"[..]), b"\r\n".to_vec()].concat());
        }
    }

    proptest! {
        #[test]
        fn lines_that_are_encoded_already_are_broken_and_mean_the_same(
            octets in vec(any::<u8>(), 0..2_000), cut in 0..200usize,
        ) {
            let fold = |encoding, text: &[u8]| {
                let (mut folder, mut out) = (Encoder::Folder(Folder::new(encoding)), Vec::new());
                let (start, end) = text.split_at(cut.min(text.len()));
                folder.text(start, &mut out);
                folder.text(end, &mut out);
                folder.line_end(&mut out);
                assert!(out.split(|b| *b == b'\n').all(|line| line.len() <= ENCODED_LINE + 1), "{out:?}");
                out
            };
            let base64 = STANDARD.encode(&octets);
            let folded = String::from_utf8(fold(Encoding::Base64, base64.as_bytes())).unwrap();
            prop_assert_eq!(folded.replace("\r\n", ""), base64);
            let escape = |octet: &u8| if octet.is_ascii_alphanumeric() { vec![*octet] } else { hex(*octet).to_vec() };
            let escaped: Vec<u8> = octets.iter().flat_map(escape).collect();
            prop_assert_eq!(decode(&fold(Encoding::QuotedPrintable, &escaped)), [octets, b"\r\n".to_vec()].concat());
        }
    }

    #[test]
    fn long_header_lines_are_folded_at_white_space_or_where_it_costs_a_blank_at_the_most() {
        let is_short = |field: &Field| field.raw().split(|octet| *octet == b'\n').all(|line| line.len() <= 999);
        let text = |field: &Field| String::from_utf8(field.raw().to_vec()).unwrap();
        let many = |between: &str| (0..200).map(|i| format!("user{i}@example.org")).collect::<Vec<_>>().join(between);
        let word = "\u{fc}y".repeat(2_000);
        for (name, value, fold, was) in [
            ("To", many(", "), "\r\n ", " "),
            ("To", many(","), ",\r\n ", ","),
            ("References", "<a@b.example>".repeat(200), ">\r\n ", ">"),
            ("X-Cron-Env", word.clone(), "\r\n ", ""),
            ("X-Folded", format!("a\r\n {word}"), "\r\n ", ""),
        ] {
            let field = Field::of(name, &value);
            let folded = refold(&field).unwrap();
            assert!(is_short(&folded), "{name}");
            let whole = |text: String| text.replacen(&format!("{name}: a\r\n "), &format!("{name}: a"), 1);
            assert_eq!(whole(text(&folded)).replace(fold, was), whole(text(&field)), "{name}");
            assert_eq!(refold(&folded), None, "{name}");
        }
        let subject = refold(&Field::of("Subject", &format!("on {} and on", "y".repeat(3_000)))).unwrap();
        assert!(is_short(&subject));
        let words = text(&subject).replace("?=\r\n =?utf-8?B?", "");
        let encoded = words.strip_prefix("Subject: on =?utf-8?B?").and_then(|rest| rest.strip_suffix("?= and on\r\n"));
        assert_eq!(STANDARD.decode(encoded.unwrap()).unwrap(), vec![b'y'; 3_000]);
        for (name, value) in [
            ("X", "y".repeat(995)),
            ("X", format!("a{}", " ".repeat(3_000))),
            // There is no such address.
            ("To", format!("{}@example.org", "y".repeat(3_000))),
            (&*"X".repeat(999), "y".to_owned()),
        ] {
            assert_eq!(refold(&Field::of(name, &value)), None, "{name}");
        }
    }

    #[test]
    fn eight_bit_fields_become_encoded_words_where_they_may() {
        for (name, value, want) in [
            (
                "Subject",
                "ein Gr\u{fc}\u{df} aus K\u{f6}ln an dich",
                Some("ein =?utf-8?B?R3LDvMOfIGF1cyBLw7Zsbg==?= an dich"),
            ),
            ("To", "J\u{f6}rg <j@x>, b@y", Some("=?utf-8?B?SsO2cmc=?= <j@x>,\r\n b@y")),
            ("To", "j\u{f6}rg@x", None),
            ("Content-Disposition", "attachment; filename=\"\u{fc}.pdf\"", None),
        ] {
            let field = Field::of(name, value);
            assert_eq!(field_in_ascii(&field), want.map(|want| Field::of(name, want)), "{name}: {value}");
        }
        let long = Field::of("Subject", &"\u{fc}ber ".repeat(60));
        assert!(field_in_ascii(&long).unwrap().raw().split(|b| *b == b'\n').all(|line| line.len() <= 100));
    }
}
