//! What a server says it can do: the lines of its EHLO reply.
//!
//! Pure. Keywords and mechanisms are compared without case, and the old form `AUTH=PLAIN LOGIN` counts.
//! What is not understood is kept and ignored; nothing here fails. RFC 5321 §4.1.1.1.
//!
//! A server may list a password as a keyword, which in upper case no mask would know again: what is for people comes
//! from lines that were masked as they were written.

use crate::outcome::Reply;

/// The keywords offered, in upper case, each with the words behind it. Empty after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    offered: Vec<Offer>,
    /// The same, for people.
    shown: Vec<Offer>,
}

/// A keyword and its words.
type Offer = (String, Vec<String>);

impl Capabilities {
    /// Reads the reply to EHLO, whose first line is only the server's name. `shown` is what may be shown of a line.
    pub fn read(reply: &Reply, shown: impl Fn(&str) -> String) -> Self {
        let lines = || reply.lines.iter().skip(1);
        Self {
            offered: lines().filter_map(|line| keyword(line)).collect(),
            shown: lines().filter_map(|line| keyword(&shown(line))).collect(),
        }
    }

    /// Whether `keyword` (in upper case) is offered.
    pub fn offers(&self, keyword: &str) -> bool {
        self.words(keyword).next().is_some()
    }

    /// The largest letter the server takes, in octets, where it says one (RFC 1870; 0 means no limit).
    pub fn size_limit(&self) -> Option<u64> {
        self.words("SIZE").flatten().find_map(|limit| limit.parse().ok()).filter(|&limit| limit > 0)
    }

    /// Every keyword with its words, as a person would list them; empty where there is none.
    pub fn listed(&self) -> Vec<String> {
        self.shown.iter().map(|(keyword, words)| [std::slice::from_ref(keyword), words].concat().join(" ")).collect()
    }

    /// The SASL mechanisms offered, in upper case.
    pub fn mechanisms(&self) -> Vec<&str> {
        self.words("AUTH").flatten().map(String::as_str).collect()
    }

    /// The same, for people.
    pub fn mechanisms_shown(&self) -> String {
        let words = words(&self.shown, "AUTH").flatten();
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn words<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a Vec<String>> {
        words(&self.offered, keyword)
    }
}

fn words<'a>(offers: &'a [Offer], keyword: &'a str) -> impl Iterator<Item = &'a Vec<String>> {
    offers.iter().filter(move |(offered, _)| offered == keyword).map(|(_, words)| words)
}

fn keyword(line: &str) -> Option<Offer> {
    let line = line.to_ascii_uppercase();
    let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty()).map(str::to_owned);
    Some((words.next()?, words.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(lines: &[&str]) -> Capabilities {
        let lines = ["relay.example.org STARTTLS"].iter().chain(lines).map(|&line| line.to_owned()).collect();
        Capabilities::read(&Reply { code: 250, lines }, |line| line.replace("pa55word", "****"))
    }

    #[test]
    fn keywords_count_in_any_case_but_not_on_the_first_line() {
        assert!(offered(&["starttls"]).offers("STARTTLS"));
        assert!(!offered(&["XSTARTTLS", "", " "]).offers("STARTTLS"));
    }

    #[test]
    fn both_forms_of_auth_are_one_list() {
        let both = offered(&["auth Plain login", "AUTH=XOAUTH2"]);
        assert_eq!(both.mechanisms(), ["PLAIN", "LOGIN", "XOAUTH2"]);
        assert!(offered(&["AUTH=PLAIN LOGIN"]).offers("AUTH"));
    }

    #[test]
    fn a_password_among_the_keywords_is_listed_in_no_case() {
        let rude = offered(&["XPA55WORD pa55word", "AUTH PLAIN pa55word", "pa55word"]);
        assert_eq!(rude.listed(), ["XPA55WORD ****", "AUTH PLAIN ****", "****"]);
        assert_eq!(rude.mechanisms_shown(), "PLAIN ****");
        assert_eq!(rude.mechanisms(), ["PLAIN", "PA55WORD"]);
        assert!(rude.offers("PA55WORD"), "a password may be the name of an extension");
    }

    #[test]
    fn a_size_limit_is_a_number_above_zero() {
        for (line, limit) in [("SIZE 1000", Some(1000)), ("SIZE", None), ("SIZE 0", None), ("SIZE lots", None)] {
            assert_eq!(offered(&[line]).size_limit(), limit, "{line}");
        }
    }
}
