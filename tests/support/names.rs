//! The DNS of a test: Knot has the zones and signs those that shall be signed, Unbound at `127.0.0.1:53` resolves and
//! checks signatures. For a network of the test's own (`network`), where that port is free.

use super::peer::{Running, here, run, wait_for};
use std::fmt::Write;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// What it takes.
pub const NEEDED: [&str; 5] = ["root", "ip", "knotd", "keymgr", "unbound"];

/// How a zone is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Not at all.
    No,
    /// By the key that the resolver knows.
    Yes,
    /// By another.
    Badly,
}

/// Name servers that are up.
pub struct Names {
    _servers: [Running; 2],
    _dir: tempfile::TempDir,
}

impl Names {
    /// Whether they can be had; said where not.
    pub fn are_here() -> bool {
        here(&NEEDED)
    }

    /// Starts them with these zones: name, records as in a zone file, and whether it is signed. A zone `dead.…` has no
    /// server that answers.
    pub fn start(zones: &[(&str, &str, Signed)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let here = at.display();
        let mut knot = format!(
            "server:\n  listen: 127.0.0.1@5353\n  rundir: {here}\n  user: root:root\ndatabase:\n  storage: {here}\n\
             policy:\n  - id: plain\n    algorithm: ecdsap256sha256\n    single-type-signing: on\nzone:\n"
        );
        let mut unbound = format!(
            "server:\n interface: 127.0.0.1\n access-control: 127.0.0.0/8 allow\n username: \"\"\n chroot: \"\"\n \
             directory: \"{here}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 1\n do-not-query-localhost: no\n \
             module-config: \"validator iterator\"\n trust-anchor-file: \"{here}/anchors\"\n \
             domain-insecure: \"invalid\"\nremote-control:\n control-enable: no\n"
        );
        for (name, records, signed) in zones {
            let text =
                format!("$ORIGIN {name}.\n$TTL 60\n@ SOA ns h 1 60 60 600 60\n@ NS ns\nns A 127.0.0.1\n{records}\n");
            fs::write(at.join(format!("{name}.zone")), text).unwrap();
            writeln!(knot, "  - domain: {name}\n    file: {here}/{name}.zone").unwrap();
            if *signed != Signed::No {
                writeln!(knot, "    dnssec-signing: on\n    dnssec-policy: plain\n    zonefile-sync: -1").unwrap();
            }
            let server = if name.starts_with("dead.") { "127.0.0.9@5353" } else { "127.0.0.1@5353" };
            writeln!(unbound, "stub-zone:\n name: \"{name}\"\n stub-addr: {server}").unwrap();
        }
        fs::write(at.join("knot.conf"), knot).unwrap();
        fs::write(at.join("unbound.conf"), unbound).unwrap();
        let knot = serve(at, "knotd", &["-c", "knot.conf"]);
        wait_for("Knot to listen", || TcpStream::connect(("127.0.0.1", 5353)).ok());
        let mut anchors = String::new();
        for (name, _, signed) in zones.iter().filter(|(_, _, signed)| *signed != Signed::No) {
            let ask = || {
                let mut keymgr = Command::new("keymgr");
                keymgr.args(["-c", "knot.conf", &format!("{name}."), "ds"]).current_dir(at);
                let told = keymgr.output().unwrap();
                let told = String::from_utf8(told.stdout).unwrap();
                told.lines().find(|line| line.contains(" DS ") && line.contains(" 13 2 ")).map(str::to_owned)
            };
            let mut anchor = wait_for("Knot to have a key", ask);
            if *signed == Signed::Badly {
                let digest = anchor.rsplit_once(' ').unwrap().0.to_owned();
                anchor = format!("{digest} {}", "00".repeat(32));
            }
            writeln!(anchors, "{anchor}").unwrap();
        }
        fs::write(at.join("anchors"), anchors).unwrap();
        run(Command::new("unbound-checkconf").arg("unbound.conf").current_dir(at));
        let unbound = serve(at, "unbound", &["-d", "-c", "unbound.conf"]);
        wait_for("Unbound to listen", || TcpStream::connect(("127.0.0.1", 53)).ok());
        Self { _servers: [unbound, knot], _dir: dir }
    }
}

fn serve(dir: &Path, program: &str, words: &[&str]) -> Running {
    let said = File::create(dir.join(format!("{program}.said"))).unwrap();
    let mut command = Command::new(super::peer::program(program).unwrap());
    command.args(words).current_dir(dir).stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    Running(command.spawn().unwrap())
}
