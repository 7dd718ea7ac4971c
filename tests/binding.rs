//! Channel binding against other people's libraries: OpenSSL says what a session is bound by, Cyrus SASL compares. No
//! server of Debian 12's has both and speaks SMTP (its Exim is built without GNU SASL, Dovecot knows it from 2.4 on),
//! so `bound.c` puts SMTP between the two.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::authority::Authority;
use support::household::Household;
use support::letter::complete;
use support::peer::{Running, here, run, wait_for};
use support::server::{NAME, PASSWORD, USER, account};

/// A server whose sessions are bound, all in one way.
struct Bound {
    _running: Running,
    dir: tempfile::TempDir,
    port: u16,
    ca_file: PathBuf,
}

impl Bound {
    /// `None`, after saying so, where it cannot be built.
    fn start(version: &str, binding: &str) -> Option<Self> {
        let headers = ["/usr/include/sasl/sasl.h", "/usr/include/openssl/ssl.h"];
        if !here(&["cc", "saslpasswd2", headers[0], headers[1]]) {
            return None;
        }
        let (dir, ca) = (tempfile::tempdir().unwrap(), Authority::new());
        let at = dir.path();
        let [certificate, key, passwords] = ["certificate.pem", "key.pem", "passwords"].map(|name| at.join(name));
        let own = ca.server(NAME);
        fs::write(&key, own.0).unwrap();
        fs::write(&certificate, own.1).unwrap();
        let store =
            format!("printf %s '{PASSWORD}' | saslpasswd2 -p -c -u localhost -f {} {USER}", passwords.display());
        run(Command::new("sh").args(["-c", &store]));
        fs::write(
            at.join("bound.conf"),
            format!(
                "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\n\
                 mech_list: PLAIN LOGIN SCRAM-SHA-1 SCRAM-SHA-256\n",
                passwords.display()
            ),
        )
        .unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/bound.c");
        run(Command::new("cc").arg("-o").arg(at.join("bound")).arg(source).args(["-lssl", "-lcrypto", "-lsasl2"]));
        let mut server = Command::new(at.join("bound"));
        server.arg(&certificate).arg(&key).arg(at).args([version, binding]).stdin(Stdio::null());
        let (out, err) = (File::create(at.join("out")).unwrap(), File::create(at.join("err")).unwrap());
        let running = Running(server.stdout(out).stderr(err).spawn().unwrap());
        let port = wait_for("the server's port", || {
            let said = fs::read_to_string(at.join("out")).unwrap();
            said.strip_suffix('\n').and_then(|port| port.parse().ok())
        });
        Some(Self { _running: running, ca_file: ca.write(at), port, dir })
    }

    fn household(&self, auth: &str) -> Household {
        Household::patient(&account(self.port, &self.ca_file, &format!("tls = \"implicit\"\nauth = \"{auth}\"")))
    }

    /// Who was let in and what he sent, and what it complains of.
    fn said(&self) -> (String, String) {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap();
        (read("out"), read("err"))
    }
}

#[test]
fn a_password_is_bound_to_the_session_as_others_understand_it() {
    let kinds = [
        ("1.3", "tls-exporter", "auto", "SCRAM-SHA-256-PLUS"),
        ("1.3", "tls-exporter", "scram-sha-256-plus", "SCRAM-SHA-256-PLUS"),
        ("1.3", "tls-exporter", "scram-sha-1-plus", "SCRAM-SHA-1-PLUS"),
        ("1.2", "tls-server-end-point", "auto", "SCRAM-SHA-256-PLUS"),
        ("1.2", "tls-server-end-point", "scram-sha-1-plus", "SCRAM-SHA-1-PLUS"),
    ];
    for (version, binding, auth, mechanism) in kinds {
        let Some(server) = Bound::start(version, binding) else { return };
        let household = server.household(auth);
        household.send(&["bob@example.org"], &complete("bound", "Only you.\n"));
        household.assert_queue_is_empty();
        let (heard, complaints) = server.said();
        assert!(
            heard.contains(&format!("{USER}@localhost {mechanism}\n")),
            "{version} {binding} {auth}: {heard}{complaints}"
        );
        assert!(heard.contains("letter: Only you."), "{heard}");
        assert_eq!(complaints, "", "{version} {binding} {auth}");
    }
}

#[test]
fn whoever_sits_between_gets_neither_the_password_nor_the_letter() {
    for (version, binding) in [("1.3", "another"), ("1.2", "tls-exporter")] {
        let Some(server) = Bound::start(version, binding) else { return };
        let household = server.household("auto");
        household.sendmail(&["bob@example.org"], &complete("bound", "Only you.\n")).says(0, &["535", "account work"]);
        assert!(household.mailq().contains("bob@example.org"), "{}", household.mailq());
        let (heard, complaints) = server.said();
        assert_eq!(heard, format!("{}\n", server.port), "{complaints}");
        assert!(complaints.contains("SCRAM-SHA-256-PLUS: ") && complaints.contains("hannel binding"), "{complaints}");
        // No second try with a mechanism that is not bound.
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
    }
}

#[test]
fn a_session_that_is_bound_refuses_a_password_that_is_wrong() {
    let Some(server) = Bound::start("1.3", "tls-exporter") else { return };
    let household = server.household("auto");
    let good = account(server.port, &server.ca_file, "tls = \"implicit\"");
    household.configure(&good.replace("sesame", "barley"));
    household.sendmail(&["bob@example.org"], &complete("bound", "x\n")).says(0, &["535", "account work"]);
    household.configure(&good);
    household.run_queue();
    household.assert_queue_is_empty();
    assert!(server.said().0.contains("letter: x"), "{:?}", server.said());
}
