//! Letters through a real Exim: STARTTLS, AUTH, and BDAT, which Postfix offers as well but reads differently.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use support::authority::Authority;
use support::household::Household;
use support::letter::complete;
use support::peer::{Running, free_port, here};
use support::server::{self, PASSWORD, Server, USER, for_each_known};
use support::unpacked::{package, start};

/// A running Exim.
struct Exim {
    _running: Running,
    dir: tempfile::TempDir,
    ca: Authority,
    port: u16,
    ca_file: PathBuf,
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
        let mailboxes = for_each_known(|name| format!("{name}: {name}@example.org\n"));
        fs::write(root.join("mailboxes"), mailboxes).unwrap();
        let config = include_str!("support/exim.conf")
            .replace("@DIR@", root.to_str().unwrap())
            .replace("@PORT@", &port.to_string())
            .replace("@PASSWORD@", PASSWORD)
            .replace("@CLIENTS@", clients);
        fs::write(root.join("exim.conf"), config).unwrap();
        let config = root.join("exim.conf").to_str().unwrap().to_owned();
        let running = start(&package, root, "Debian-exim", &["/usr/sbin/exim4", "-C", &config, "-bdf"], port);
        Some(Self { _running: running, dir, ca, port, ca_file })
    }
}

impl Server for Exim {
    fn account(&self, more: &str) -> String {
        server::account(self.port, &self.ca_file, more)
    }

    fn mail(&self) -> PathBuf {
        self.dir.path().join("mail")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log/mainlog")).unwrap_or_default()
    }
}

#[test]
fn a_letter_goes_through_exim_in_chunks_byte_for_byte() {
    let Some(exim) = Exim::start() else { return };
    server::a_letter_reaches_its_recipient_byte_for_byte(&exim);
    let log = exim.log();
    assert!(log.contains("A=plain:alice") && log.contains("X=TLS1.3") && log.contains(" K "), "{log}");
}

#[test]
fn twenty_megabytes_arrive_byte_for_byte() {
    let Some(exim) = Exim::start() else { return };
    server::twenty_megabytes_arrive_byte_for_byte(&exim);
}

#[test]
fn fifty_recipients_get_one_letter_each() {
    let Some(exim) = Exim::start() else { return };
    server::fifty_recipients_get_one_letter_each(&exim);
}

#[test]
fn one_recipient_whom_exim_refuses_does_not_cost_the_others() {
    let Some(exim) = Exim::start() else { return };
    server::one_refused_recipient_does_not_cost_the_others(&exim, "5.", "no such person here");
}

#[test]
fn our_own_faults_keep_the_letter_and_speak_up() {
    let Some(exim) = Exim::start() else { return };
    server::our_own_faults_keep_the_letter_and_speak_up(&exim);
}

/// An account that shows a certificate, and what it authenticates by.
fn certified(exim: &Exim, certificate: &std::path::Path, lines: &str) -> Household {
    Household::patient(&format!(
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
    let arrived = exim.letter("bob@example.org");
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
    let login = format!("user = \"{USER}\"\npassword = '{PASSWORD}'\n");
    let letter = complete("demanded", "Here it is.\n");
    certified(&exim, &certificate, &login).send(&["bob@example.org"], &letter);
    assert_eq!(exim.letter("bob@example.org").as_sent(), letter);
    let without = exim.household("");
    without.sendmail(&["bob@example.org"], &letter).says(0, &["certificate"]);
    assert!(without.mailq().contains("bob@example.org"), "{}", without.mailq());
}
