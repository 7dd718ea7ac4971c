//! A real OpenSMTPD, as a provider would run it: submission with STARTTLS or implicit TLS, a password, unknown
//! recipients refused, Maildirs behind it. Its package is unpacked only, and runs in namespaces of its own, `unpacked`.
//! What Debian 12's cannot do by itself is in `opensmtpd.c`.

use super::authority::Authority;
use super::peer::{Running, free_port, here, run, wait_for};
use super::server::{self, NAME, PASSWORD, Server, USER, for_each_known};
use super::unpacked;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// A filter, smtpd-filters(7): at the first event of that phase (`$1`) it makes the file `$2` and never answers.
const HOLD: &str = r#"
while IFS= read -r line; do
    case $line in
        'config|ready') printf 'register|filter|smtp-in|%s\nregister|ready\n' "$1" ;;
        'filter|'*) : >"$2"; exec sleep infinity ;;
    esac
done
"#;

/// What `sh` does inside: the host's own name and a working resolver are nothing that a test should need.
const START: &str = r#"echo relay.test >/etc/mailname; exec env LD_PRELOAD="$1" /usr/sbin/smtpd -d -f "$2""#;

/// An OpenSMTPD of the test's own.
pub struct Opensmtpd {
    running: Mutex<Option<Running>>,
    dir: tempfile::TempDir,
    /// STARTTLS.
    pub port: u16,
    /// TLS from the first octet.
    pub tls_port: u16,
    ca_file: PathBuf,
    limit: usize,
}

impl Opensmtpd {
    /// Starts one that takes letters of so many octets. `None`, after saying so, where it is not to be had.
    pub fn start(limit: usize) -> Option<Self> {
        let smtpd = unpacked::package("opensmtpd").join("usr/sbin/smtpd");
        if !here(&["root", "unshare", "cc", "openssl", smtpd.to_str().unwrap()]) {
            return None;
        }
        let (dir, ca) = (tempfile::tempdir().unwrap(), Authority::new());
        let root = dir.path();
        fs::create_dir(root.join("mail")).unwrap();
        for (dir, mode) in [(root, 0o755), (&root.join("mail"), 0o777)] {
            fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        }
        let (key, chain) = ca.server(NAME);
        fs::write(root.join("certificate.pem"), chain).unwrap();
        fs::write(root.join("key.pem"), key).unwrap();
        fs::set_permissions(root.join("key.pem"), Permissions::from_mode(0o600)).unwrap();
        let hash = run(Command::new("openssl").args(["passwd", "-6", PASSWORD]));
        fs::write(root.join("users"), format!("{USER} {hash}")).unwrap();
        fs::write(root.join("mailboxes"), for_each_known(|name| format!("{name}@example.org\n"))).unwrap();
        fs::write(root.join("hold"), HOLD).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/opensmtpd.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(root.join("mended.so")).arg(source));
        let (port, tls_port, ca_file, running) = (free_port(), free_port(), ca.write(root), Mutex::default());
        let opensmtpd = Self { running, dir, port, tls_port, ca_file, limit };
        opensmtpd.restart();
        Some(opensmtpd)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again; it listens when this returns.
    pub fn restart(&self) {
        self.run(None);
    }

    /// Starts it again, as one that stands still at that phase of the first letter: `data`, `data-line`, `commit`.
    pub fn restart_to_hold_at(&self, phase: &str) {
        self.run(Some(phase));
    }

    /// Waits until it stands still.
    pub fn wait_until_it_holds(&self) {
        wait_for("OpenSMTPD to hold", || self.root().join("mail/held").exists().then_some(()));
    }

    /// Kills it, whatever it does; nobody listens when this returns.
    pub fn stop(&self) {
        drop(self.running.lock().unwrap().take());
        wait_for("OpenSMTPD to stop", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err().then_some(()));
    }

    fn run(&self, hold: Option<&str>) {
        self.stop();
        let root = self.root().to_str().unwrap();
        let filter = hold.map_or_else(String::new, |phase| {
            format!("filter hold proc-exec \"/bin/sh {root}/hold {phase} {root}/mail/held\"")
        });
        let config = include_str!("opensmtpd.conf")
            .replace("@DIR@", root)
            .replace("@LIMIT@", &self.limit.to_string())
            .replace("@PORT@", &self.port.to_string())
            .replace("@TLS_PORT@", &self.tls_port.to_string())
            .replace("@FILTERED@", if hold.is_some() { "filter hold" } else { "" })
            .replace("@FILTER@", &filter);
        let path = self.root().join("smtpd.conf");
        fs::write(&path, config).unwrap();
        let mended = format!("{root}/mended.so");
        let words = ["sh", "-c", START, "sh", &mended, path.to_str().unwrap()];
        let package = unpacked::package("opensmtpd");
        let running = unpacked::start(&package, self.root(), "opensmtpd opensmtpq", &words, self.port);
        *self.running.lock().unwrap() = Some(running);
        wait_for("OpenSMTPD to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.tls_port)).ok());
    }
}

impl Server for Opensmtpd {
    fn account(&self, more: &str) -> String {
        server::account(self.port, &self.ca_file, more)
    }

    fn mail(&self) -> PathBuf {
        self.root().join("mail")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root().join("said")).unwrap_or_default()
    }
}
