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
    ca: Authority,
    port: u16,
    ca_file: PathBuf,
    _running: Running,
}

impl Exim {
    /// `None`, after saying so, where it is not to be had.
    fn start() -> Option<Self> {
        Self::asking_for("tls_try_verify_hosts = *")
    }

    /// One that has that to say about certificates of clients.
    fn asking_for(clients: &str) -> Option<Self> {
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
        fs::write(root.join("exim.conf"), config.replace("@PORT@", &port.to_string()).replace("@CLIENTS@", clients))
            .unwrap();
        let config = root.join("exim.conf").to_str().unwrap().to_owned();
        let running = start(&package, root, "Debian-exim", &["/usr/sbin/exim4", "-C", &config, "-bdf"], port);
        Some(Self { ca, ca_file, port, _running: running, dir })
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

/// An account that shows a certificate, and what it authenticates by.
fn certified(exim: &Exim, certificate: &std::path::Path, lines: &str) -> Household {
    Household::new(&format!(
        "[account.work]\nhost = \"localhost\"\nport = {}\nfrom = \"alice@example.org\"\nca_file = \"{}\"\n\
         cert_file = \"{}\"\n{lines}",
        exim.port,
        exim.ca_file.display(),
        certificate.display()
    ))
}

#[test]
fn a_clients_certificate_is_its_password() {
    let Some(exim) = Exim::start() else { return };
    let certificate = exim.ca.write_client("alice", exim.dir.path());
    let letter = complete("external", "Me again.\n");
    let external = |user| certified(&exim, &certificate, &format!("auth = \"external\"\nuser = \"{user}\"\n"));
    external("alice").send(&["bob@example.org"], &letter);
    let arrived = wait_for_letters(&exim.dir.path().join("mail/inbox"), 1).remove(0);
    assert_eq!(arrived.as_sent(), letter);
    assert!(exim.log().contains("A=external:alice") && exim.log().contains("CV=yes"), "{}", exim.log());
    // Somebody else he cannot be, and without a certificate of that authority nobody.
    external("carol").sendmail(&["bob@example.org"], &letter).says(0, &["535", "account work"]);
    let strangers = Authority::new().write_client("mallory", exim.dir.path());
    let ended = certified(&exim, &strangers, "auth = \"external\"\nuser = \"mallory\"\n");
    ended.sendmail(&["bob@example.org"], &letter).says(0, &["EXTERNAL"]);
}

#[test]
fn a_server_that_demands_a_certificate_gets_one_or_its_demand_is_told() {
    let Some(exim) = Exim::asking_for("tls_verify_hosts = *") else { return };
    let certificate = exim.ca.write_client("alice", exim.dir.path());
    let login = "user = \"alice\"\npassword = \"sesame\"\n";
    let letter = complete("demanded", "Here it is.\n");
    certified(&exim, &certificate, login).send(&["bob@example.org"], &letter);
    assert_eq!(wait_for_letters(&exim.dir.path().join("mail/inbox"), 1).remove(0).as_sent(), letter);
    let without = exim.household("");
    without.sendmail(&["bob@example.org"], &letter).says(0, &["certificate"]);
    assert!(without.mailq().contains("bob@example.org"), "{}", without.mailq());
}
