//! s-nail's mailrc.

use super::Settings;
use super::problem::Problem;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why a file that is sourced is not to be had.
pub(super) enum NotSourced {
    /// It does not exist.
    Missing,
    /// It must not or cannot be read.
    Refused(String),
}

/// What a mailrc says.
pub(super) struct Reading {
    /// The accounts.
    pub settings: Settings,
    /// The files that hold passwords.
    pub secret_files: Vec<PathBuf>,
}

pub(super) fn read(
    file: &Path,
    text: &str,
    home: Option<&Path>,
    source: &mut dyn FnMut(&Path) -> Result<Zeroizing<String>, NotSourced>,
) -> Result<Option<Reading>, Vec<Problem>> {
    let _ = (file, text, home, source);
    Ok(None)
}
