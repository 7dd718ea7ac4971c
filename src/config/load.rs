//! Which file is the configuration, and may it be trusted?

use super::Settings;
use std::fmt;
use std::path::PathBuf;

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `-C FILE`
    pub argument: Option<PathBuf>,
    /// `$PILLARBOX_CONFIG`
    pub environment: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME` or `~/.config`
    pub config_home: Option<PathBuf>,
    /// The caller's home.
    pub home: Option<PathBuf>,
    /// The caller.
    pub uid: u32,
}

/// Why there are no settings: everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub Vec<String>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Finds, checks and reads the configuration; `None` where there is none.
pub fn load(sources: &Sources) -> Result<Option<Settings>, Broken> {
    let _ = sources;
    todo!()
}
