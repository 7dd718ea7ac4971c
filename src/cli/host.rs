//! What this machine and this process are, read once and handed down as values.
//!
//! Identity comes from the uid, never from `$USER` or `$LOGNAME`; `~` is `$HOME` only where that directory
//! belongs to the caller (cron hands on its own), else the home of the uid. Nothing in here fails: what cannot
//! be found out has a stand-in, because a letter must not be lost for want of a name.

use crate::submit::Caller;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::{Gid, Uid, User};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The caller and the machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Real uid of the caller.
    pub uid: u32,
    /// The passwd entry of that uid, from when it is first asked for: a letter with a sender and an author needs none,
    /// and to find it takes the name service twenty system calls, where it takes no network.
    passwd: OnceLock<Option<User>>,
    /// Home directory: `$HOME` where it is the caller's, else the passwd entry's.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME` or `~/.config`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME` or `~/.local/state`.
    pub state_home: Option<PathBuf>,
    /// The host's name, fully qualified where that can be found out without asking the network.
    pub name: String,
    /// The first line of `/etc/mailname`.
    pub mailname: Option<String>,
}

impl Host {
    /// Looks around.
    pub fn look() -> Self {
        let uid = nix::unistd::getuid();
        let passwd = OnceLock::new();
        let user = || passwd.get_or_init(|| User::from_uid(uid).ok().flatten()).as_ref();
        // sudo starts its mailer with HOME=/, which is root's directory and nobody's home.
        let no_home = |home: &PathBuf| home == Path::new("/") && user().is_some_and(|user| user.dir != *home);
        let environment_home = dirs::home_dir().filter(|home| belongs_to(home, uid) && !no_home(home));
        let (home, config_home, state_home) = if environment_home.is_some() {
            (environment_home, dirs::config_dir(), dirs::state_dir())
        } else {
            let home = user().map(|user| user.dir.clone()).filter(|home| home.is_absolute());
            let below = |path: &str| home.as_ref().map(|home| home.join(path));
            (home.clone(), below(".config"), below(".local/state"))
        };
        Self {
            uid: uid.as_raw(),
            passwd,
            home,
            config_home,
            state_home,
            name: host_name(),
            mailname: first_word("/etc/mailname"),
        }
    }

    /// Who calls.
    pub fn caller(&self) -> Caller {
        let user = self.passwd.get_or_init(|| User::from_uid(Uid::from_raw(self.uid)).ok().flatten());
        caller(user.as_ref(), self.uid)
    }

    /// The domain that completes names without one, where the configuration names none.
    pub fn mail_domain(&self) -> &str {
        self.mailname.as_deref().unwrap_or(&self.name)
    }

    /// The queue's directory where nothing else says: below the state directory of the user.
    pub fn queue_dir(&self) -> Option<PathBuf> {
        self.state_home.as_ref().map(|state| state.join("pillarbox/queue"))
    }
}

/// Login name of a user, `uid1234` where there is none, and the full name from the GECOS field.
pub fn caller(user: Option<&User>, uid: u32) -> Caller {
    let login = user.map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
    let full_name = user.map(|user| full_name(&user.gecos.to_string_lossy(), &login)).unwrap_or_default();
    Caller { login, full_name }
}

/// Makes root the owner of a directory, before it works in it: what it writes there would be root's else, and of no use
/// to the service that the directory belongs to.
pub fn step_down(directory: &Path) -> Result<(), String> {
    let Ok(found) = directory.symlink_metadata() else { return Ok(()) };
    if !nix::unistd::geteuid().is_root() || found.uid() == 0 {
        return Ok(());
    }
    let gid = Gid::from_raw(found.gid());
    let stepped = nix::unistd::setgroups(&[gid])
        .and_then(|()| nix::unistd::setgid(gid))
        .and_then(|()| nix::unistd::setuid(Uid::from_raw(found.uid())));
    stepped.map_err(|errno| {
        format!(
            "{} belongs to uid {}, as which root may not act here: {}",
            directory.display(),
            found.uid(),
            errno.desc()
        )
    })
}

/// An environment variable that is set and not empty.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The character set that the locale names (`de_DE.ISO-8859-1`), where that is not UTF-8.
pub fn charset() -> Option<String> {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| variable(name))?.into_string().ok()?;
    let charset = locale.split_once('.')?.1.split('@').next()?.to_ascii_lowercase();
    let is_name = !charset.is_empty() && charset.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    (is_name && !matches!(charset.as_str(), "utf-8" | "utf8")).then_some(charset)
}

/// The time in RFC 5322's form, with the local offset.
pub fn date() -> String {
    date_in(time_zone())
}

/// The same for those who write many dates: to read the zone takes a quarter of a megabyte of stack, for one.
pub fn date_in(zone: TimeZone) -> String {
    let now = Timestamp::now().to_zoned_datetime(zone);
    jiff::fmt::rfc2822::to_string(&now)
        .unwrap_or_else(|_| now.timestamp().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
}

/// The local time zone: what `$TZ` says, else what `/etc/localtime` holds.
///
/// Not [`TimeZone::system`] for the second: it wants the zone's name too, and walks all of `/usr/share/zoneinfo` for
/// it. That is a third of the system calls of a whole submission, for a name that no date of ours shows.
pub fn time_zone() -> TimeZone {
    if variable("TZ").is_some() {
        return TimeZone::system();
    }
    let local = std::fs::read("/etc/localtime").ok();
    local.and_then(|data| TimeZone::tzif("local", &data).ok()).unwrap_or(TimeZone::UTC)
}

/// Whether the directory exists and is the caller's. Root owns what it likes; a stranger's home is not ours.
fn belongs_to(directory: &Path, uid: Uid) -> bool {
    std::fs::metadata(directory).is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw())
}

/// The first part of GECOS; `&` stands for the capitalised login name, as finger(1) has it.
fn full_name(gecos: &str, login: &str) -> String {
    let name = gecos.split(',').next().unwrap_or_default().trim();
    if !name.contains('&') {
        return name.to_owned();
    }
    let mut chars = login.chars();
    let capital: String = chars.next().map(char::to_uppercase).into_iter().flatten().chain(chars).collect();
    name.replace('&', &capital)
}

/// The first word of a small file.
fn first_word(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_ascii_whitespace().next().filter(|word| is_domain(word)).map(str::to_owned)
}

/// The kernel's name for this host, qualified from `/etc/hosts` where it has no dot.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if name.contains('.') && is_domain(&name) {
        return name;
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    qualified(&name, &hosts).or_else(|| is_domain(&name).then_some(name)).unwrap_or_else(|| "localhost".to_owned())
}

/// The first name with a dot on a line of `/etc/hosts` that names this host.
fn qualified(name: &str, hosts: &str) -> Option<String> {
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let names: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
        let ours = names.contains(&name);
        names.into_iter().find(|candidate| ours && candidate.contains('.') && is_domain(candidate)).map(str::to_owned)
    })
}

/// Whether EHLO and Message-ID may carry it.
fn is_domain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gecos_gives_the_full_name() {
        assert_eq!(full_name("Alice Tester,,,", "alice"), "Alice Tester");
        assert_eq!(full_name("& Tester", "alice"), "Alice Tester");
        assert_eq!(full_name("", "alice"), "");
    }

    #[test]
    fn the_hosts_file_qualifies_the_host() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.1 box.wrong.example box\n127.0.1.1 box.example.net box\n";
        assert_eq!(qualified("box", hosts).as_deref(), Some("box.example.net"));
        assert_eq!(qualified("other", hosts), None);
    }

    #[test]
    fn a_strangers_home_is_not_ours() {
        assert!(!belongs_to(Path::new("/proc/1/no-such"), nix::unistd::getuid()));
        let mine = tempfile::tempdir().unwrap();
        assert!(belongs_to(mine.path(), nix::unistd::getuid()));
        assert!(!belongs_to(mine.path(), Uid::from_raw(nix::unistd::getuid().as_raw() + 1)));
    }
}
