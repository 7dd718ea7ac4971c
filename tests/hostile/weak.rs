//! Certificates that somebody could forge by now: openssl(1)
//! still makes them, and we take none, whoever has signed them.

use crate::attack::call;
use crate::harm::{PASSWORD, indiscretions};
use crate::support::peer::{self, Running, free_port, run, wait_for};
use crate::support::sendmail::Sendmail;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// What is weak: how the leaf's key is made, and how it is signed.
const WEAK: [(&str, &[&str], &str); 5] = [
    ("an RSA key of 512 bits", &["genrsa", "-out", "leaf.key", "512"], "-sha256"),
    ("an RSA key of 1024 bits", &["genrsa", "-out", "leaf.key", "1024"], "-sha256"),
    ("a signature by MD5", &["genrsa", "-out", "leaf.key", "2048"], "-md5"),
    ("a signature by SHA-1", &["genrsa", "-out", "leaf.key", "2048"], "-sha1"),
    ("a curve of 192 bits", &["ecparam", "-genkey", "-name", "prime192v1", "-noout", "-out", "leaf.key"], "-sha256"),
];

fn openssl(dir: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(dir);
    command
}

#[test]
fn a_certificate_that_could_be_forged_opens_no_session() {
    if !peer::here(&["openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let extension = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
    fs::write(at.join("leaf.ext"), extension).unwrap();
    let days = ["-days", "30"];
    run(openssl(at)
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=weak",
        ])
        .args(days));
    for (what, key, hash) in WEAK {
        run(openssl(at).args(key));
        run(openssl(at).args(["req", "-new", "-key", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=127.0.0.1"]));
        run(openssl(at)
            .args([
                "x509",
                "-req",
                hash,
                "-in",
                "leaf.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                "leaf.ext",
                "-out",
                "leaf.pem",
            ])
            .args(days));
        for version in ["-tls1_2", "-tls1_3"] {
            let port = free_port();
            let mut server = openssl(at);
            server.args([
                "s_server",
                "-quiet",
                version,
                "-cipher",
                "ALL@SECLEVEL=0",
                "-cert",
                "leaf.pem",
                "-key",
                "leaf.key",
                "-accept",
            ]);
            server.arg(format!("127.0.0.1:{port}")).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = Running(server.spawn().unwrap());
            let mut listens =
                || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() || server.0.try_wait().unwrap().is_some();
            wait_for("openssl to listen", || listens().then_some(()));
            let home = Sendmail::new(&format!(
                "default = \"x\"\nqueue = \"off\"\n[account.x]\nhost = \"127.0.0.1\"\nport = {port}\n\
                 tls = \"implicit\"\nuser = \"alice\"\n\
                 password = \"{PASSWORD}\"\nca_file = \"{}\"\n",
                at.join("ca.pem").display()
            ));
            let ended = call(&home, &["bob@example.org"], b"Subject: x\n\nhello\n");
            let said = String::from_utf8_lossy(&ended.said).into_owned();
            println!("{what}, {version}: {}", said.trim());
            assert_eq!(ended.status, Some(69), "{what}, {version}: {said}");
            assert!(said.len() < 400 && !said.contains("Context"), "{what}, {version}: {said}");
            assert_eq!(indiscretions(&said, "what it said"), [""; 0], "{what}");
        }
    }
}
