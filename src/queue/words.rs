//! The words of a record: how any text becomes one word without white space or control characters, and back.
//!
//! A record is a line of words. Whatever strangers write (addresses, a server's answer) goes through [`escape`], so
//! that it can end neither a word nor a line (`OpenSMTPD`'s CVE-2020-8794 was a reply that did).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One word: `%`, space and control characters as `%XX` of their octets; the empty text is `-`.
pub(super) fn escape(text: &str) -> String {
    match text {
        "" => return "-".to_owned(),
        "-" => return "%2D".to_owned(),
        _ => {}
    }
    let mut word = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '%' || c.is_whitespace() || c.is_control() {
            for octet in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(word, "%{octet:02X}");
            }
        } else {
            word.push(c);
        }
    }
    word
}

/// What [`escape`] was given. `None` for a word that it never writes.
pub(super) fn unescape(word: &str) -> Option<String> {
    if word == "-" {
        return Some(String::new());
    }
    let mut octets = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok()
}

/// A time as a record has it: milliseconds since 1970. A clock before that reads 0.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of a record; `None` where the system's clock has no such time.
pub(super) fn time(word: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(word.parse().ok()?))
}

/// A set of recipients by their numbers: `0-3,7`.
pub(super) fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// What [`ranges`] was given, in order. `None` for anything else, or for a number that is not below `count`.
pub(super) fn numbers(word: &str, count: usize) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= count || numbers.len() >= count {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_one_word_and_comes_back(text in any::<String>()) {
            let word = escape(&text);
            prop_assert!(!word.is_empty() && !word.chars().any(|c| c.is_whitespace() || c.is_control()));
            prop_assert_eq!(unescape(&word), Some(text));
        }

        #[test]
        fn unescape_takes_any_word_without_a_panic(word in any::<String>()) {
            let _ = unescape(&word);
            let _ = numbers(&word, 3);
        }

        #[test]
        fn sets_of_recipients_come_back(set in proptest::collection::btree_set(0_usize..50, 1..20)) {
            let set: Vec<usize> = set.into_iter().collect();
            prop_assert_eq!(numbers(&ranges(&set), 50), Some(set));
        }
    }

    #[test]
    fn a_set_names_no_recipient_that_does_not_exist() {
        for bad in ["", "3", "0-3", "2-1", "x", "1,", "-1", "0-18446744073709551615", "0-2,0-2"] {
            assert_eq!(numbers(bad, 3), None, "{bad}");
        }
        assert_eq!(ranges(&[0, 1, 2, 5]), "0-2,5");
    }
}
