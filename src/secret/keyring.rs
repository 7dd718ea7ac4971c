//! The desktop's keyring, asked by another process.
//!
//! A bus that is silent and a prompt to unlock that nobody answers block whoever asks, for ever. So a process asks that
//! can be killed: the program `pillarbox` under the name [`KEEPER`], which prints the secret into a pipe of ours (see
//! `keeper` for the other end of it). It is found beside our own program or in `../bin` of that directory, as
//! `/usr/sbin/sendmail` and `/usr/bin/pillarbox` lie, and never by a `PATH` that a caller has set. The alternative, our
//! own program started once more, would put zbus and its ciphers into `sendmail`: 2 MB for those who have no keyring,
//! cron's callers above all.
//!
//! Whatever goes wrong is temporary: the keyring is locked now, or its user is not logged in.

use super::{Identity, NoSecret, Secret, command};
use crate::config::Keepsake;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name under which `pillarbox` asks the keyring: for the service and the user that are its first two words, within
/// the milliseconds that are its third.
pub const KEEPER: &str = "pillarbox-keyring";

/// How long the keyring may take, unlocking included.
const LIMIT: Duration = Duration::from_secs(5);

/// What the keyring has for this account.
pub(super) fn secret(what: Keepsake, whose: &Identity<'_>, limit: Duration) -> Result<Secret, NoSecret> {
    let limit = limit.min(LIMIT);
    // It says why itself, where there is time for that.
    let patience = (limit * 9 / 10).as_millis().to_string();
    let program = std::env::current_exe().ok().and_then(|own| program(&own)).ok_or_else(|| {
        NoSecret::Keyring("is asked by pillarbox, which lies neither beside this program nor in ../bin".to_owned())
    })?;
    let argv = [words(what, whose), vec![patience]].concat();
    command::answer(program.as_os_str(), argv, limit).map_err(|why| match why {
        NoSecret::Command(_, said) if !said.is_empty() => NoSecret::Keyring(said),
        other => NoSecret::Within(KEEPER, Box::new(other)),
    })
}

/// Under which name the keyring has it: `smtp://HOST` and the
/// user, as `secret-tool lookup service … username …` finds it.
pub(super) fn words(what: Keepsake, whose: &Identity<'_>) -> Vec<String> {
    vec![KEEPER.to_owned(), service(what, whose), whose.user.to_owned()]
}

/// The service that an account's secret is filed under.
pub(super) fn service(what: Keepsake, whose: &Identity<'_>) -> String {
    let scheme = match what {
        Keepsake::Password => "smtp",
        Keepsake::RefreshToken => "oauth",
    };
    format!("{scheme}://{}", whose.first)
}

/// The program that asks.
fn program(own: &Path) -> Option<PathBuf> {
    let here = own.parent()?;
    ["pillarbox", "../bin/pillarbox"].iter().map(|place| here.join(place)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_asks_lies_where_ours_does_and_is_not_looked_for_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("sbin/sendmail");
        std::fs::create_dir(own.parent().unwrap()).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        assert_eq!(program(&own), None);
        std::fs::write(dir.path().join("bin/pillarbox"), "").unwrap();
        assert_eq!(program(&own), Some(dir.path().join("sbin/../bin/pillarbox")));
        std::fs::write(dir.path().join("sbin/pillarbox"), "").unwrap();
        assert_eq!(program(&own), Some(dir.path().join("sbin/pillarbox")));
    }

    #[test]
    fn what_belongs_to_an_account_is_filed_under_its_first_host() {
        let whose = Identity { host: "b.example", user: "alice", first: "a.example" };
        assert_eq!(words(Keepsake::Password, &whose), [KEEPER, "smtp://a.example", "alice"]);
        assert_eq!(service(Keepsake::RefreshToken, &whose), "oauth://a.example");
    }
}
