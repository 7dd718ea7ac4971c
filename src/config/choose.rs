//! Which account a letter goes through: by name, by recipient, by reverse-path, or the default.

use super::{Account, Settings};
use crate::envelope::{Envelope, Mailbox};
use std::fmt;

/// Some of a letter's recipients, and the account they are reached through.
#[derive(Clone, Debug, PartialEq)]
pub struct Route<'a> {
    /// The account.
    pub account: &'a Account,
    /// Places of the recipients in the envelope, ascending; at least one.
    pub recipients: Vec<usize>,
}

/// Why no account can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAccount(pub String);

impl fmt::Display for NoAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The routes of a letter.
pub fn routes<'a>(settings: &'a Settings, named: Option<&str>, envelope: &Envelope) -> Result<Vec<Route<'a>>, NoAccount> {
    let _ = (settings, named, envelope);
    todo!()
}

/// The account of one recipient; `path` is the reverse-path.
pub fn account<'a>(settings: &'a Settings, named: Option<&str>, path: Option<&Mailbox>, to: &Mailbox) -> Result<&'a Account, NoAccount> {
    let _ = (settings, named, path, to);
    todo!()
}
