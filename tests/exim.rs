//! Letters through a real Exim: STARTTLS, AUTH, and BDAT, which Postfix offers as well but reads differently.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use support::authority::Authority;
use support::household::Household;
use support::letter::{complete, wait_for_letters};
use support::peer::{Running, free_port, here};
use support::unpacked::{package, start};

/// A running Exim with one Maildir for all.
struct Exim {
    dir: tempfile::TempDir,
    port: u16,
    ca_file: PathBuf,
    _running: Running,
}

impl Exim {
    /// `None`, after saying so, where it is not to be had.
    fn start() -> Option<Self> {
        let package = package("exim");
        if !here(&["root", "unshare", package.join("usr/sbin/exim4").to_str().unwrap()]) {
            return None;
        }
        let (dir, ca, port) = (tempfile::tempdir().unwrap(), Authority::new(), free_port());
        let root = dir.path();
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        for name in ["spool", "log", "mail"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::set_permissions(root.join(name), Permissions::from_mode(0o777)).unwrap();
        }
        let ca_file = ca.write(root);
        fs::set_permissions(ca.write_server("localhost", root), Permissions::from_mode(0o644)).unwrap();
        let config = include_str!("support/exim.conf").replace("@DIR@", root.to_str().unwrap());
        fs::write(root.join("exim.conf"), config.replace("@PORT@", &port.to_string())).unwrap();
        let config = root.join("exim.conf").to_str().unwrap().to_owned();
        let running = start(&package, root, "Debian-exim", &["/usr/sbin/exim4", "-C", &config, "-bdf"], port);
        Some(Self { ca_file, port, _running: running, dir })
    }

    fn household(&self, more: &str) -> Household {
        Household::new(&format!(
            "[account.work]\nhost = \"localhost\"\nport = {}\nuser = \"alice\"\npassword = \"sesame\"\n\
             from = \"alice@example.org\"\nca_file = \"{}\"\n{more}",
            self.port,
            self.ca_file.display()
        ))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log/mainlog")).unwrap_or_default()
    }
}

#[test]
fn a_letter_goes_through_exim_in_chunks_byte_for_byte() {
    let Some(exim) = Exim::start() else { return };
    let letters = [complete("small", "One.\n.\n..\n"), complete("large", &".0123456789\n".repeat(200_000))];
    for (count, letter) in letters.iter().enumerate() {
        exim.household("").send(&["-i", "bob@example.org"], letter);
        let arrived = wait_for_letters(&exim.dir.path().join("mail/inbox"), count + 1);
        assert!(arrived.iter().any(|arrived| arrived.as_sent() == letter), "{arrived:?}");
        assert!(arrived.iter().all(|arrived| arrived.field("Envelope-To") == "bob@example.org"), "{arrived:?}");
    }
    let log = exim.log();
    assert!(log.contains("A=plain:alice") && log.contains("X=TLS1.3") && log.contains(" K "), "{log}");
}

#[test]
fn one_recipient_whom_exim_refuses_does_not_cost_the_others() {
    let Some(exim) = Exim::start() else { return };
    let household = exim.household("");
    let ended = household.sendmail(&["bob@example.org", "nobody@example.org"], &complete("two", "For two.\n"));
    assert_eq!(ended.status, 0, "{ended:?}");
    household.run_queue();
    let arrived = wait_for_letters(&exim.dir.path().join("mail/inbox"), 2);
    let bounce = arrived.iter().find(|letter| letter.field("Envelope-To") == "alice@example.org").unwrap();
    assert!(bounce.text().contains("no such person here"), "{bounce:?}");
    household.assert_queue_is_empty();
}
