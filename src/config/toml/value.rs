//! A value of the tree, read as what a key wants it to be.

use super::super::notation;
use super::super::spelling::nearest;
use crate::message::address::parse_sender;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// What is wrong with a value, and where.
pub(super) struct Wrong {
    pub at: usize,
    pub text: String,
    /// Where it is not what the row says: within a table that is a value.
    pub allowed: Option<&'static str>,
}

/// A value, with what is needed to read it.
#[derive(Clone, Copy)]
pub(super) struct Value<'v> {
    pub spanned: &'v Spanned<DeValue<'v>>,
    pub home: Option<&'v Path>,
}

impl<'v> Value<'v> {
    pub fn value(self) -> &'v DeValue<'v> {
        self.spanned.get_ref()
    }

    pub fn wrong(self, text: impl Into<String>) -> Wrong {
        Wrong { at: self.spanned.span().start, text: text.into(), allowed: None }
    }

    pub fn wrong_type(self) -> Wrong {
        let (article, name) = match self.value().type_str() {
            name @ ("integer" | "array") => ("an", name),
            name => ("a", name),
        };
        self.wrong(format!("{article} {name} is nothing that can stand here"))
    }

    pub fn unknown(self, word: &str, words: &[&str]) -> Wrong {
        self.wrong(format!("{word:?} is not known{}", did_you_mean(nearest(word, words.iter().copied()))))
    }

    pub fn text(self) -> Result<&'v str, Wrong> {
        self.value().as_str().ok_or_else(|| self.wrong_type())
    }

    /// A string that passes a check.
    pub fn checked(self, check: impl Fn(&str) -> Result<(), String>) -> Result<String, Wrong> {
        let text = self.text()?;
        check(text).map_err(|wrong| self.wrong(wrong))?;
        Ok(text.to_owned())
    }

    /// One value, or a list of them that is not empty.
    pub fn list<T>(self, read: impl Fn(Self) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
        match self.value() {
            DeValue::Array(items) if items.is_empty() => Err(self.wrong("the list is empty")),
            DeValue::Array(items) => items.iter().map(|spanned| read(Self { spanned, ..self })).collect(),
            _ => Ok(vec![read(self)?]),
        }
    }

    pub fn word<T: Copy>(self, words: &[(&str, T)]) -> Result<T, Wrong> {
        let text = self.text()?;
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| self.unknown(text, &known))
    }

    /// `"on"`, `"off"`, or TOML's own booleans.
    pub fn switch(self) -> Result<bool, Wrong> {
        match self.value() {
            DeValue::Boolean(on) => Ok(*on),
            _ => self.word(&[("on", true), ("off", false)]),
        }
    }

    pub fn number(self, least: u16, most: u16) -> Result<u16, Wrong> {
        let number = self.value().as_integer().ok_or_else(|| self.wrong_type())?;
        let value = u16::from_str_radix(number.as_str(), number.radix()).ok();
        value
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| self.wrong(format!("{number} is out of range")))
    }

    pub fn duration(self) -> Result<Duration, Wrong> {
        match self.value() {
            DeValue::Integer(number) => Err(self.wrong(format!("{number} lacks its unit"))),
            _ => notation::duration(self.text()?).map_err(|text| self.wrong(text)),
        }
    }

    /// A duration in which something can happen.
    pub fn timeout(self) -> Result<Duration, Wrong> {
        let time = self.duration()?;
        if time.is_zero() { Err(self.wrong("is too short")) } else { Ok(time) }
    }

    /// Octets.
    pub fn size(self) -> Result<u64, Wrong> {
        match self.value() {
            DeValue::Integer(number) => Err(self.wrong(format!("{number} lacks its unit"))),
            _ => notation::size(self.text()?).map_err(|text| self.wrong(text)),
        }
    }

    pub fn path(self) -> Result<PathBuf, Wrong> {
        notation::absolute(self.text()?, self.home).map_err(|text| self.wrong(text))
    }
}

/// The nearest spelling as a part of a sentence; nothing where none is near.
pub(super) fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default()
}

pub(super) fn printable(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("is empty".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("has a control character in it".to_owned())
    } else {
        Ok(())
    }
}

/// NUL ends a word for the system and separates SASL's; nothing that we hand on may have one.
pub(super) fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') { Err("has a NUL in it".to_owned()) } else { Ok(()) }
}

/// One address; a bare local name will get the domain.
pub(super) fn address(text: &str) -> Result<(), String> {
    let address = parse_sender(text).map_err(|error| format!("{text:?} {error}"))?.ok_or("is empty")?;
    let domain = address.domain.as_deref().unwrap_or("localhost");
    address.to_mailbox(domain).map(drop).map_err(|bad| format!("{text:?} {bad}"))
}
