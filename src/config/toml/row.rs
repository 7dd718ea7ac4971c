//! A row: a key, what may stand behind it, and what that does. Every table is a list of them, and is read by it here.

use super::super::spelling::nearest;
use super::value::{Value, Wrong, did_you_mean};
use std::borrow::Cow;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One key: its name, what may stand behind it, and what that does.
pub(super) struct Row<T> {
    pub key: &'static str,
    pub allowed: &'static str,
    pub read: fn(&mut T, Value<'_>) -> Result<(), Wrong>,
}

/// Reads one key of a table by its row. A key without a row is told with its nearest spelling among the rows and
/// `tables`, the keys beside them that name a table.
pub(super) fn read<T>(
    table: &str,
    rows: &[Row<T>],
    tables: &[&str],
    key: &Spanned<Cow<'_, str>>,
    value: Value<'_>,
    target: &mut T,
) -> Result<(), Wrong> {
    let name = key.get_ref().as_ref();
    let Some(row) = rows.iter().find(|row| row.key == name) else {
        let known: Vec<&str> = rows.iter().map(|row| row.key).chain(tables.iter().copied()).collect();
        let near = did_you_mean(nearest(name, known.iter().copied()));
        let text = format!("there is no key {name:?} in {table}{near}; allowed: {}", known.join(", "));
        return Err(Wrong { at: key.span().start, text, allowed: None });
    };
    (row.read)(target, value).map_err(|wrong| Wrong {
        text: format!("{name}: {}", wrong.text),
        allowed: wrong.allowed.or(Some(row.allowed)),
        ..wrong
    })
}

/// A table's entries as they stand in the file; the parser sorts them by name.
pub(super) fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Puts what was read where it belongs.
#[allow(clippy::unnecessary_wraps)] // every row ends in a Result
pub(super) fn put<T>(place: &mut T, value: T) -> Result<(), Wrong> {
    *place = value;
    Ok(())
}
