//! Secrets: how a password or a token is obtained, and a type that cannot be printed.

use crate::config::PasswordSource;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// A password or token. No `Display`, an empty `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the octets.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The octets, for the one place that puts them on the wire.
    pub fn dangerous_expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Whose password.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The relay's name, as the settings spell it.
    pub host: &'a str,
    /// The authentication identity.
    pub user: &'a str,
}

/// What obtaining a secret needs of the environment.
#[derive(Clone, Debug)]
pub struct SecretEnv {
    /// `$CREDENTIALS_DIRECTORY`
    pub credentials_directory: Option<PathBuf>,
    /// The caller's home.
    pub home: Option<PathBuf>,
    /// The caller.
    pub uid: u32,
    /// How long a command may take.
    pub limit: Duration,
}

/// Why a secret cannot be had; a sentence without the secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSecret(pub String);

impl fmt::Display for NoSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Obtains a secret.
pub fn obtain(source: &PasswordSource, whose: &Identity<'_>, env: &SecretEnv) -> Result<Secret, NoSecret> {
    let _ = (source, whose, env);
    todo!()
}
