//! Doors for the fuzz targets in tests/fuzz, which no other build has: a configuration's text without its file.
//!
//! Each gives the settings, or line, column and sentence of everything that is wrong.

use std::path::Path;

use zeroize::Zeroizing;

use super::msmtprc::Surroundings;
use super::problem::Problem;
use super::{Settings, mailrc, msmtprc, toml};

/// Line, column and sentence.
pub type Wrong = (usize, usize, String);

fn places(problems: Vec<Problem>) -> Vec<Wrong> {
    problems.into_iter().map(|problem| (problem.place.line, problem.place.column, problem.text)).collect()
}

/// Reads TOML.
pub fn of_toml(text: &str) -> Result<Settings, Vec<Wrong>> {
    toml::read(Path::new("/c/config.toml"), text, Some(Path::new("/home/alice"))).map_err(places)
}

/// Reads an msmtprc.
pub fn of_msmtprc(text: &str, around: &Surroundings) -> Result<Settings, Vec<Wrong>> {
    let reading = msmtprc::read(Path::new("/c/msmtprc"), text, around, &[]).map_err(places)?;
    Ok(reading.settings(around))
}

/// Reads a mailrc; whatever it sources is `sourced`. `None`: it names no relay.
pub fn of_mailrc(text: &str, sourced: &str) -> Result<Option<Settings>, Vec<Wrong>> {
    let mut source = |path: &Path| match path.file_name() {
        Some(name) if name == "other" => Ok(Zeroizing::new(sourced.to_owned())),
        _ => Err(mailrc::NotSourced::Missing),
    };
    let home = Some(Path::new("/home/alice"));
    let reading = mailrc::read(Path::new("/c/mailrc"), text, home, &mut source).map_err(places)?;
    Ok(reading.map(|reading| reading.settings))
}
