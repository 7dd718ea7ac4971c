//! The conditions of `if` and `elif`.
//!
//! We are not interactive and we send: `terminal` and `receive` are false, `send` is true. Strings are compared with
//! `==`, `!=`, `<`, `<=`, `>`, `>=`, `=%` (contains) and `!%`, integers with `-eq` and its kin; behind any of them a
//! `?` ignores case. `-N`, `-Z`, `-n`, `-z` test variables and values; `!`, `&&`, `||` and `[ … ]` combine. Regular
//! expressions (`=~`) are not known. What is not understood is [`None`], and then no branch is taken, as s-nail has it.

/// How deep brackets can nest.
const MAX_DEPTH: usize = 32;

/// Whether the condition holds. `is_set` tells of a variable by its name.
pub(super) fn holds(words: &[&str], is_set: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut parser = Parser { words, is_set };
    let value = parser.list(0)?;
    parser.words.is_empty().then_some(value)
}

struct Parser<'a> {
    words: &'a [&'a str],
    is_set: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// `AND` and `OR` bind equally, to the left.
    fn list(&mut self, depth: usize) -> Option<bool> {
        let mut value = self.one(depth)?;
        loop {
            match self.words.first() {
                Some(&"&&") => {
                    self.take();
                    value &= self.one(depth)?;
                }
                Some(&"||") => {
                    self.take();
                    value |= self.one(depth)?;
                }
                _ => return Some(value),
            }
        }
    }

    fn one(&mut self, depth: usize) -> Option<bool> {
        let mut turned = false;
        while self.words.first() == Some(&"!") {
            self.take();
            turned = !turned;
        }
        let value = match (self.words.first()?, self.words.get(1)) {
            (&"[", _) if depth < MAX_DEPTH => {
                self.take();
                let value = self.list(depth + 1)?;
                (self.take()? == "]").then_some(value)?
            }
            (&"[", _) => return None,
            (&("-N" | "-Z" | "-n" | "-z"), Some(_)) => {
                let (test, word) = (self.take()?, self.take()?);
                match test {
                    "-N" => (self.is_set)(word),
                    "-Z" => !(self.is_set)(word),
                    "-n" => !word.is_empty(),
                    _ => word.is_empty(),
                }
            }
            (_, None | Some(&("&&" | "||" | "]"))) => alone(self.take()?)?,
            _ => {
                let (left, operator, right) = (self.take()?, self.take()?, self.take()?);
                compare(left, operator, right)?
            }
        };
        Some(value != turned)
    }
}

/// A word on its own.
fn alone(word: &str) -> Option<bool> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "s" | "send" | "on" | "yes" | "y" | "true" => Some(true),
        "r" | "receive" | "t" | "terminal" | "off" | "no" | "n" | "false" | "" => Some(false),
        _ => word.parse::<i64>().ok().map(|number| number != 0),
    }
}

fn compare(left: &str, operator: &str, right: &str) -> Option<bool> {
    let (operator, folded) = operator.split_once('?').map_or((operator, false), |(operator, _)| (operator, true));
    let fold = |text: &str| if folded { text.to_ascii_lowercase() } else { text.to_owned() };
    let (left, right) = (fold(left), fold(right));
    if operator.starts_with('-') {
        let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i64>().ok() };
        let (left, right) = (number(&left)?, number(&right)?);
        return Some(match operator {
            "-eq" => left == right,
            "-ne" => left != right,
            "-lt" => left < right,
            "-le" => left <= right,
            "-gt" => left > right,
            "-ge" => left >= right,
            _ => return None,
        });
    }
    Some(match operator {
        "==" | "=" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "=%" | "=@" => left.contains(&right),
        "!%" | "!@" => !left.contains(&right),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_understood_or_take_no_branch() {
        for (condition, value) in [
            ("terminal", Some(false)),
            ("T", Some(false)),
            ("send", Some(true)),
            ("receive", Some(false)),
            ("1", Some(true)),
            ("no", Some(false)),
            ("! terminal", Some(true)),
            ("x == x", Some(true)),
            ("x != x", Some(false)),
            ("X ==? x", Some(true)),
            ("x ==?case X", Some(true)),
            ("abc =% b", Some(true)),
            ("abc !% b", Some(false)),
            ("10 -gt 9", Some(true)),
            ("x -gt 9", None),
            ("-N set", Some(true)),
            ("-Z set", Some(false)),
            ("-n x && -z x", Some(false)),
            ("[ x == y || x == x ] && 1", Some(true)),
            ("1 || 1 && 0", Some(false)),
            ("x =~ y", None),
            ("[ 1", None),
            ("", None),
            ("1 ]", None),
            ("blue", None),
        ] {
            let words: Vec<&str> = condition.split_whitespace().collect();
            assert_eq!(holds(&words, &|name| name == "set"), value, "{condition}");
        }
        assert_eq!(holds(&vec!["["; 100_000], &|_| false), None);
    }
}
