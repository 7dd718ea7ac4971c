//! Header fields: walk, unfold, find, add, remove.
//!
//! A field is kept as the octets it came as, folds included, so that what nobody touches passes byte for byte.
//! Names are compared without case, and white space before the colon does not make another field of it
//! (`Bcc :` is a Bcc). RFC 5322 §2.2 and §4.5 (the obsolete spellings).

use std::borrow::Cow;

/// One header field with its folds, ending in CRLF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    raw: Vec<u8>,
    /// Octets of the name, and of everything up to and with the colon.
    name: usize,
    colon: usize,
}

impl Field {
    /// A field from the octets of its line or lines, canonical. `None` where they do not begin with a name and a colon.
    pub fn new(raw: Vec<u8>) -> Option<Self> {
        let (name, colon) = name_and_colon(&raw)?;
        Some(Self { raw, name, colon })
    }

    /// A field of our own. The value may hold folds (`CRLF SP`).
    pub fn of(name: &str, value: &str) -> Self {
        let raw = format!("{name}: {value}\r\n").into_bytes();
        Self { raw, name: name.len(), colon: name.len() + 1 }
    }

    /// The name, as it was written.
    pub fn name(&self) -> &str {
        // `name_and_colon` and `of` see to it that a name is ASCII.
        std::str::from_utf8(&self.raw[..self.name]).unwrap_or_default()
    }

    /// Whether it is called that, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name)
    }

    /// The octets behind the colon without the last CRLF; folds are in it.
    pub fn value(&self) -> &[u8] {
        let end = self.raw.len().saturating_sub(2).max(self.colon);
        &self.raw[self.colon..end]
    }

    /// The value as text on one line, without the white space around it.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(self.value());
        let text: Cow<'_, str> = if text.contains("\r\n") { text.replace("\r\n", "").into() } else { text };
        text.trim_matches([' ', '\t']).to_owned()
    }

    /// Whether nothing but white space is behind the colon.
    pub fn is_blank(&self) -> bool {
        self.value().iter().all(|octet| b" \t\r\n".contains(octet))
    }

    /// The whole field, CRLF included.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

/// Where a field's name and its colon end: printable ASCII, perhaps white space, a colon (RFC 5322 §2.2, §4.5.8).
pub fn name_and_colon(line: &[u8]) -> Option<(usize, usize)> {
    let name = line.iter().position(|octet| !(33..=126).contains(octet) || *octet == b':')?;
    let colon = name + line[name..].iter().position(|octet| !matches!(octet, b' ' | b'\t'))?;
    (name > 0 && line[colon] == b':').then_some((name, colon + 1))
}

/// A header: fields in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Reads canonical header octets, up to the empty line or the end. What is no field is not in it.
    pub fn parse(header: &[u8]) -> Self {
        let mut fields = Self::default();
        let mut raw = Vec::new();
        for line in header.split_inclusive(|octet| *octet == b'\n') {
            if line == b"\r\n" {
                break;
            }
            if !matches!(line[0], b' ' | b'\t') {
                fields.0.extend(Field::new(std::mem::take(&mut raw)));
            }
            raw.extend_from_slice(line);
        }
        fields.0.extend(Field::new(raw));
        fields
    }

    /// All fields, from the top.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }

    /// The fields of that name, from the top.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> {
        self.0.iter().filter(move |field| field.is(name))
    }

    /// The first field of that name.
    pub fn first(&self, name: &str) -> Option<&Field> {
        self.0.iter().find(|field| field.is(name))
    }

    /// Keeps the fields that `keep` takes.
    pub fn retain(&mut self, keep: impl FnMut(&Field) -> bool) {
        self.0.retain(keep);
    }

    /// Puts a field behind all others.
    pub fn append(&mut self, field: Field) {
        self.0.push(field);
    }

    /// Puts a field at a place counted from the top.
    pub fn insert(&mut self, at: usize, field: Field) {
        self.0.insert(at.min(self.0.len()), field);
    }

    /// Replaces the fields of that name by one, where the first of them stood; appends it where there was none.
    pub fn set(&mut self, field: Field) {
        match self.0.iter().position(|old| old.is(field.name())) {
            None => self.append(field),
            Some(at) => {
                let name = field.name().to_owned();
                self.0[at] = field;
                let mut index = 0;
                self.0.retain(|old| {
                    index += 1;
                    index - 1 <= at || !old.is(&name)
                });
            }
        }
    }

    /// Changes fields in place; `None` leaves one as it is.
    pub fn rewrite(&mut self, mut change: impl FnMut(&Field) -> Option<Field>) {
        for field in &mut self.0 {
            if let Some(changed) = change(field) {
                *field = changed;
            }
        }
    }

    /// The octets of the header, without the empty line behind it.
    pub fn to_octets(&self) -> Vec<u8> {
        self.0.iter().flat_map(|field| field.raw.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn odd_spellings_are_the_same_field() {
        let fields = Fields::parse(b"To: a@b\r\nbCC : c@d,\r\n\te@f\r\nX-Y:\r\nno field\r\n\r\nBcc: body\r\n");
        let names: Vec<&str> = fields.iter().map(Field::name).collect();
        assert_eq!(names, ["To", "bCC", "X-Y"]);
        assert_eq!(fields.first("Bcc").unwrap().text(), "c@d,\te@f");
        assert!(fields.first("x-y").unwrap().is_blank());
    }

    #[test]
    fn setting_a_field_leaves_one_of_it_in_its_place() {
        let mut fields = Fields::parse(b"A: 1\r\nB: 2\r\na: 3\r\nC: 4\r\n");
        fields.set(Field::of("A", "5"));
        fields.set(Field::of("D", "6"));
        assert_eq!(fields.to_octets(), b"A: 5\r\nB: 2\r\nC: 4\r\nD: 6\r\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn walking_loses_nothing_of_a_header(
            lines in vec("[!-9;-~]{1,8}[ \t]{0,2}:[ -~]{0,20}(\r\n[ \t][ -~]{0,9}){0,2}\r\n", 0..6),
        ) {
            let header = lines.concat();
            prop_assert_eq!(Fields::parse(header.as_bytes()).to_octets(), header.as_bytes());
        }

        #[test]
        fn any_octets_make_fields_or_none(octets in vec(any::<u8>(), 0..200)) {
            let _ = Fields::parse(&octets);
        }
    }
}
