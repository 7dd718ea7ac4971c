//! The service's settings: where it listens, whom it serves, and how much of everything anybody may have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What `[serve]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The UNIX socket; of no effect where systemd hands sockets over.
    pub socket: PathBuf,
    /// Loopback addresses for programs that speak nothing but SMTP over TCP.
    pub listen: Vec<SocketAddr>,
    /// Login names or uids of those who may use any reverse-path and are not counted.
    pub trusted_users: Vec<String>,
    /// Login names or uids of those who may send at all; `None`: everybody.
    pub allow_users: Option<Vec<String>>,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time of one user; those over TCP count as one user's.
    pub max_connections_per_user: usize,
    /// Letters of one user in an hour.
    pub letters_per_hour: u32,
    /// Recipients of one letter.
    pub max_recipients: usize,
    /// Octets of one letter.
    pub max_size: u64,
    /// Octets that stay free on the queue's file system.
    pub disk_reserve: u64,
    /// How long a client may take for one command, its silence before it included.
    pub command_timeout: Duration,
    /// How long a client may take for one letter.
    pub letter_timeout: Duration,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            socket: "/run/pillarbox/submit.sock".into(),
            listen: Vec::new(),
            trusted_users: vec!["root".to_owned()],
            allow_users: None,
            max_connections: 64,
            max_connections_per_user: 16,
            letters_per_hour: 1000,
            max_recipients: 1000,
            max_size: 50 << 20,
            disk_reserve: 100 << 20,
            command_timeout: Duration::from_mins(5),
            letter_timeout: Duration::from_mins(10),
        }
    }
}
