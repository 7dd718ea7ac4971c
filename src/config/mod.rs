//! The settings: typed values with every default in one place.
//!
//! Reading a file into these values is `toml`'s, `msmtprc`'s and `mailrc`'s task, finding the file `load`'s, choosing
//! an account `choose`'s. Nothing in here prompts, connects or runs a command: a password is a *source*
//! ([`PasswordSource`]) until `secret` is asked to obtain it.

mod check;
pub mod choose;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod import;
pub mod load;
mod mailrc;
pub mod msmtprc;
mod notation;
mod oauth;
mod problem;
mod serve;
mod spelling;
pub mod toml;

pub use oauth::{Consent, OAuth, TokenUrl};
pub use serve::Serve;

use crate::envelope::{Notify, Ret};
use core::net::IpAddr;
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
#[expect(clippy::struct_excessive_bools, reason = "each is a key that is on or off")]
pub struct Account {
    /// What `-a` and sentences call it.
    pub name: String,
    /// Tried in this order; at least one.
    pub hosts: Vec<Host>,
    /// Whether they speak LMTP (RFC 2033) instead of SMTP.
    pub lmtp: bool,
    /// TLS policy.
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
    /// The envelope's sender is always `from`; another one only chooses the account. The header stays as it is.
    pub force_sender: bool,
    /// The sender of mail that names none is the author in its header, where that has one, and not `from`.
    pub sender_from_header: bool,
    /// What becomes of the header beyond what every letter gets.
    pub header: HeaderRules,
    /// When the relay shall report on a letter whose sender asks for nothing else.
    pub notify: Option<Notify>,
    /// How much of the letter such a report returns.
    pub ret: Option<Ret>,
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
    /// The address of ours that connections come from; hosts of the other family are then out of reach.
    pub source_ip: Option<IpAddr>,
    /// What stands between us and every host that is no UNIX socket.
    pub proxy: Option<Proxy>,
    /// Each wait on the wire.
    pub timeout: Duration,
}

/// Which fields of a header are written by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRules {
    /// `From:`
    pub from: FromField,
    /// Whether a missing `Date:` is added.
    pub date: bool,
    /// Whether a missing `Message-ID:` is added.
    pub message_id: bool,
    /// `To:`
    pub to: ToField,
}

impl Default for HeaderRules {
    fn default() -> Self {
        Self { from: FromField::Completed, date: true, message_id: true, to: ToField::Kept }
    }
}

/// What becomes of `From:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromField {
    /// It is added where there is none.
    Completed,
    /// The envelope's sender, with the full name, stands in place of what was there.
    Replaced,
    /// Nothing.
    Kept,
}

/// What becomes of `To:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToField {
    /// Nothing.
    Kept,
    /// The recipients of the envelope stand in one `To:`, in place of every `To:` and `Cc:`.
    Recipients,
    /// `To: undisclosed-recipients:;` stands in place of every `To:` and `Cc:`.
    Undisclosed,
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
    /// Whether letters go to the mail servers of each recipient's own domain.
    pub fn is_direct(&self) -> bool {
        matches!(self.hosts[..], [Host::Mx(_)])
    }

    /// An account of that name with every default. It has no host yet; the readers see to that.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            lmtp: false,
            tls: Tls::StartTls,
            auth: Auth::Auto,
            user: None,
            password: None,
            from: None,
            from_name: None,
            force_from: false,
            force_sender: false,
            sender_from_header: false,
            header: HeaderRules::default(),
            notify: None,
            ret: None,
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
            source_ip: None,
            proxy: None,
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
    /// The submission servers that the DNS has for this domain (RFC 6186, RFC 8314).
    Srv(String),
    /// The mail servers of each recipient's own domain, at this port. Always an account's only host.
    Mx(u16),
}

/// A SOCKS5 proxy (RFC 1928), which also looks the hosts' names up.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address (IPv6 without brackets).
    pub host: String,
    /// 1080 where the file does not say.
    pub port: u16,
    /// Who we are to the proxy (RFC 1929), where it wants to know: name and password, each 1 to 255 octets.
    pub login: Option<(String, Zeroizing<String>)>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.login.as_ref().map(|(user, _)| user);
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).field("user", &user).finish()
    }
}

/// TLS policy of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, and no session without it.
    StartTls,
    /// STARTTLS where the server offers it, whoever it says it is, unless its domain says in the DNS what its
    /// certificate must be (DANE). For [`Host::Mx`] alone.
    Opportunistic,
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
            Self::Opportunistic | Self::Off => 25,
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
    /// last four, which need something else than a password.
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
    /// Either of these two: what `Auto` is for an account whose password is [`PasswordSource::OAuth`].
    Bearer,
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
    /// What stands behind the keyword `password` in the first line that a command prints, run by `/bin/sh -c`:
    /// msmtp's `eval`.
    Eval(String),
    /// `$CREDENTIALS_DIRECTORY/NAME`, systemd's credentials.
    Credential(String),
    /// `~/.netrc` (or the file that is named): the entry for host and user.
    Netrc(Option<PathBuf>),
    /// The desktop's keyring, where `pillarbox login` puts it.
    Keyring(Keepsake),
    /// An access token, for which a refresh token is exchanged.
    OAuth(Box<OAuth>),
}

/// What the keyring has of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepsake {
    /// Its password.
    Password,
    /// The token that access tokens are had for.
    RefreshToken,
}

impl std::fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Command(_) => f.write_str("Command"),
            Self::Eval(_) => f.write_str("Eval"),
            Self::Credential(name) => f.debug_tuple("Credential").field(name).finish(),
            Self::Netrc(path) => f.debug_tuple("Netrc").field(path).finish(),
            Self::Keyring(what) => f.debug_tuple("Keyring").field(what).finish(),
            Self::OAuth(oauth) => oauth.fmt(f),
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
    /// A line for each session through one account, as msmtp writes it; beside what the others get.
    Sessions(SessionLog),
}

/// msmtp's log of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLog {
    /// Whose sessions.
    pub account: String,
    /// What is the same in every line: `host=… tls=… auth=…`.
    pub head: String,
    /// Where the lines go.
    pub to: SessionLogTo,
}

/// Where msmtp's log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionLogTo {
    /// A file of mode 0600, each line after the time in this form of strftime(3), which may be empty.
    File(PathBuf, String),
    /// Standard output, with the time as in a file.
    Stdout(String),
    /// syslog, with the number of the facility (RFC 5424 §6.2.1).
    Syslog(u8),
}
