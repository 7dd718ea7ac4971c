//! The settings: typed values with every default in one place.
//!
//! Reading a file into these values is `toml`'s and `mailrc`'s task, finding the file `load`'s, choosing an
//! account `choose`'s. Nothing in here prompts, connects or runs a command: a password is a *source*
//! ([`PasswordSource`]) until `secret` is asked to obtain it.

mod check;
pub mod choose;
pub mod load;
mod mailrc;
mod notation;
mod problem;
mod serve;
mod spelling;
pub mod toml;

pub use serve::Serve;

use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// More ways out than anybody has, and more mistakes than anybody mends at once: what a file of a hostile shape
/// costs is bounded by these.
const MAX_ACCOUNTS: usize = 256;
const MAX_PROBLEMS: usize = 200;

/// Everything a configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The file it came from (the first one, where several were merged); named in sentences and logs.
    pub file: PathBuf,
    /// The name of the account used when nothing else chooses one.
    pub default: Option<String>,
    /// In the order of the file.
    pub accounts: Vec<Account>,
    /// The queue's settings.
    pub queue: Queue,
    /// Qualifies names without a domain, and names us in EHLO and Message-ID where the account does not.
    pub domain: Option<String>,
    /// Where log lines go.
    pub log: Vec<LogTo>,
    /// Who is who.
    pub names: Names,
    /// The service's settings.
    pub serve: Serve,
}

/// One way out: a relay and how to use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// What `-a` and sentences call it.
    pub name: String,
    /// Tried in this order; at least one.
    pub hosts: Vec<Host>,
    /// TLS policy; never opportunistic.
    pub tls: Tls,
    /// How to authenticate. `Auto` without a `user` means not at all.
    pub auth: Auth,
    /// The authentication identity.
    pub user: Option<String>,
    /// Where the password comes from.
    pub password: Option<PasswordSource>,
    /// The sender of mail that names none, and the account's own address.
    pub from: Option<String>,
    /// The name in a From: that we write.
    pub from_name: Option<String>,
    /// The relay takes letters from `from` alone: it replaces every other sender, in envelope and header.
    pub force_from: bool,
    /// Reverse-paths that choose this account: an address or a glob, compared without case.
    pub senders: Vec<String>,
    /// Recipients that choose this account: an address or a glob, compared without case.
    pub recipients: Vec<String>,
    /// The account that takes over when none of the hosts can be used.
    pub fallback: Option<String>,
    /// PEM file of the authorities to trust instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of a leaf certificate or of its public key (SPKI) that is accepted instead of a CA's word.
    pub pins: Vec<[u8; 32]>,
    /// The name the certificate must carry, and SNI, where it is not the host's.
    pub tls_host: Option<String>,
    /// The oldest TLS that is spoken.
    pub tls_min: TlsVersion,
    /// PEM file with our own certificate and the chain above it, for relays that ask for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file with that certificate's key, where it does not stand in `cert_file`. Must be private.
    pub key_file: Option<PathBuf>,
    /// File of revocation lists (PEM, or one in DER). A certificate that no list in it speaks of passes; a list
    /// past its date does not. Of no effect with `pins`.
    pub crl_file: Option<PathBuf>,
    /// The name we give in EHLO.
    pub helo: Option<String>,
    /// Each wait on the wire.
    pub timeout: Duration,
}

/// What the table of `[aliases]`, the alias file and the rewriting of addresses need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Local names and who they are, as the file has them: name and value.
    pub aliases: Vec<(String, String)>,
    /// An alias file in the form of sendmail's and Postfix's.
    pub alias_file: Option<PathBuf>,
    /// Whether recipients in the header are replaced as those of the envelope are.
    pub rewrite_headers: bool,
    /// Senders that are replaced in envelope and header: an address or a glob, compared without case, and the address.
    pub masquerade: Vec<(String, String)>,
}

impl Account {
    /// An account of that name with every default. It has no host yet; the readers see to that.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            tls: Tls::StartTls,
            auth: Auth::Auto,
            user: None,
            password: None,
            from: None,
            from_name: None,
            force_from: false,
            senders: Vec::new(),
            recipients: Vec::new(),
            fallback: None,
            ca_file: None,
            pins: Vec::new(),
            tls_host: None,
            tls_min: TlsVersion::Tls12,
            cert_file: None,
            key_file: None,
            crl_file: None,
            helo: None,
            timeout: Duration::from_mins(1),
        }
    }
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address literal (IPv6 without brackets), with its port.
    Tcp {
        /// Name or address.
        name: String,
        /// 587 for STARTTLS, 465 for implicit TLS, 25 without, where the file does not say.
        port: u16,
    },
    /// A UNIX socket that speaks SMTP.
    Unix(PathBuf),
}

/// TLS policy of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, and no session without it.
    StartTls,
    /// TLS from the first octet.
    Implicit,
    /// None.
    Off,
}

impl Tls {
    /// The port where none is given: submission's (RFC 6409), that over TLS (RFC 8314), or SMTP's own.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Implicit => 465,
            Self::Off => 25,
        }
    }
}

/// A version of TLS; those before 1.2 are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Which SASL mechanism to use. One that is named is used or there is no session; it is never exchanged for
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// The strongest that the server offers, where there is a user; none where there is not. Never one of the
    /// last three, which need more than a password.
    Auto,
    /// Never authenticate.
    Off,
    /// RFC 7677, bound to the TLS session.
    ScramSha256Plus,
    /// RFC 5802, bound to the TLS session.
    ScramSha1Plus,
    /// RFC 7677, not bound to TLS even where the server offers it.
    ScramSha256,
    /// RFC 5802, not bound to TLS even where the server offers it.
    ScramSha1,
    /// RFC 4616.
    Plain,
    /// The obsolete LOGIN, for servers that have nothing else.
    Login,
    /// RFC 2195, for servers that have nothing else.
    CramMd5,
    /// Google's and Microsoft's forerunner of OAUTHBEARER; the password is an access token.
    XOAuth2,
    /// RFC 7628; the password is an access token.
    OAuthBearer,
    /// RFC 4422 appendix A: the client certificate says who we are. Needs `cert_file`; no password, and a user
    /// only where it is not the certificate's.
    External,
}

/// Where a password comes from. A literal is not printable and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// It stands in the configuration (the file must be private).
    Literal(Zeroizing<String>),
    /// The first line of a file that must be private.
    File(PathBuf),
    /// The first line that a command prints. One word: run by `/bin/sh -c`; several: run directly.
    Command(Vec<String>),
    /// `$CREDENTIALS_DIRECTORY/NAME`, systemd's credentials.
    Credential(String),
    /// `~/.netrc` (or the file that is named): the entry for host and user.
    Netrc(Option<PathBuf>),
}

impl std::fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Command(_) => f.write_str("Command"),
            Self::Credential(name) => f.debug_tuple("Credential").field(name).finish(),
            Self::Netrc(path) => f.debug_tuple("Netrc").field(path).finish(),
        }
    }
}

/// The queue's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Whether letters are kept when they cannot be relayed at once. Off: exit 75 and nothing kept.
    pub enabled: bool,
    /// The directory, where it is not the default one.
    pub dir: Option<PathBuf>,
    /// After this, a letter that still cannot be relayed is returned.
    pub lifetime: Duration,
    /// Whether a background runner may be started.
    pub runner: bool,
    /// How long a caller waits for the relay's verdict before the letter is queued.
    pub deadline: Duration,
    /// After this, the sender is told once that the letter is late; `None`: never.
    pub delay_notice: Option<Duration>,
    /// How long a letter that failed is kept under `failed/`.
    pub keep_failed: Duration,
    /// Connections to one account at a time in a queue run.
    pub connections: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            enabled: true,
            dir: None,
            lifetime: Duration::from_hours(5 * 24),
            runner: true,
            deadline: Duration::from_secs(4),
            delay_notice: None,
            keep_failed: Duration::from_hours(5 * 24),
            connections: 2,
        }
    }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// systemd's journal, natively, a journal field for each key.
    Journal,
    /// `/dev/log`, facility mail.
    Syslog,
    /// Appended to a file of mode 0600.
    File(PathBuf),
    /// Standard error.
    Stderr,
}
