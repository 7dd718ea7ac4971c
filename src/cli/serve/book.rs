//! What a configuration file says to a service, and what of it can change while it runs.

use crate::aliases::Aliases;
use crate::cli::configuration::{self, Configuration};
use crate::cli::host::Host;
use crate::config::Serve;
use crate::serve::{Limits, Patience};
use std::path::Path;

/// What a configuration file says, read as a whole.
pub(super) struct Book {
    pub configuration: Configuration,
    pub aliases: Aliases,
    /// What is wrong with the aliases, a line each.
    pub bad_aliases: Vec<String>,
}

impl Book {
    pub fn read(host: &Host, file: &Path) -> Result<Self, String> {
        let configuration = configuration::of_service(host, file)?;
        let (aliases, bad_aliases) = configuration::aliases(&configuration.settings, host);
        Ok(Self { configuration, aliases, bad_aliases })
    }

    pub fn serve(&self) -> &Serve {
        &self.configuration.settings.serve
    }

    pub fn limits(&self) -> Limits {
        let serve = self.serve();
        Limits {
            connections: serve.max_connections,
            connections_per_user: serve.max_connections_per_user,
            letters_per_hour: serve.letters_per_hour,
        }
    }

    pub fn patience(&self) -> Patience {
        Patience { command: self.serve().command_timeout, letter: self.serve().letter_timeout }
    }

    /// The domain that completes names, and senders' own.
    pub fn domain<'a>(&'a self, host: &'a Host) -> &'a str {
        self.configuration.settings.domain.as_deref().unwrap_or(host.mail_domain())
    }
}

/// The settings that a running service keeps whatever the file says.
pub(super) fn later(old: &Book, new: &Book) -> Vec<&'static str> {
    let (was, is) = (&old.configuration.settings, &new.configuration.settings);
    let changed = [
        ("serve.socket", was.serve.socket != is.serve.socket),
        ("serve.listen", was.serve.listen != is.serve.listen),
        ("queue.dir", old.configuration.queue_dir != new.configuration.queue_dir),
        ("log", was.log != is.log),
    ];
    changed.into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
}
