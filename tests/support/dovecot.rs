//! A real Dovecot that does nothing but SASL, for a Postfix to ask: every mechanism that it has, passwords from a file,
//! and access tokens that it asks an endpoint of the test's about (RFC 7662).

use super::peer::{Running, here, program, wait_for};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Dovecot of the test's own.
pub struct Dovecot {
    dir: tempfile::TempDir,
    _running: Running,
}

impl Dovecot {
    /// Starts one that knows this user, this password and this access token. `None`, after saying so, where Dovecot is
    /// not to be had.
    pub fn start(user: &str, password: &str, token: &str) -> Option<Self> {
        if !here(&["root", "dovecot"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::set_permissions(at, Permissions::from_mode(0o755)).unwrap();
        let (here, endpoint) = (at.display(), endpoint(user.to_owned(), token.to_owned()));
        fs::write(at.join("users"), format!("{user}:{{PLAIN}}{password}\n")).unwrap();
        fs::write(
            at.join("oauth2"),
            format!(
                "introspection_mode = auth\nintrospection_url = http://127.0.0.1:{endpoint}/\n\
                 username_attribute = username\nactive_attribute = active\nactive_value = true\n"
            ),
        )
        .unwrap();
        fs::write(
            at.join("dovecot.conf"),
            format!(
                "base_dir = {here}/run\nstate_dir = {here}/run\nlog_path = {here}/log\nprotocols =\nssl = no\n\
                 auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2\n\
                 auth_failure_delay = 0\nauth_verbose = yes\n\
                 passdb {{\n driver = oauth2\n mechanisms = oauthbearer xoauth2\n args = {here}/oauth2\n}}\n\
                 passdb {{\n driver = passwd-file\n mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256\n \
                 args = scheme=PLAIN username_format=%u {here}/users\n}}\n\
                 userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/\n}}\n\
                 service anvil {{\n unix_listener anvil-auth-penalty {{\n  mode = 0\n }}\n}}\n\
                 service auth {{\n user = root\n unix_listener {here}/sasl {{\n  mode = 0666\n }}\n}}\n"
            ),
        )
        .unwrap();
        let said = fs::File::create(at.join("said")).unwrap();
        let mut command = Command::new(program("dovecot").unwrap());
        command.args(["-F", "-c"]).arg(at.join("dovecot.conf")).stdin(Stdio::null());
        let mut running = Running(command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap());
        let socket = at.join("sasl");
        wait_for("Dovecot to listen", || {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?} {}", fs::read_to_string(at.join("said")).unwrap());
            UnixStream::connect(&socket).ok()
        });
        Some(Self { dir, _running: running })
    }

    /// Where Postfix asks: `smtpd_sasl_path`.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sasl")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(Path::new(self.dir.path()).join("log")).unwrap_or_default()
    }
}

/// Says who the bearer of a token is, to all who ask; gives the port. It ends with the test's process.
fn endpoint(user: String, token: String) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(|stream| drop(answer(&stream.unwrap(), &user, &token))));
    port
}

fn answer(mut stream: &TcpStream, user: &str, token: &str) -> std::io::Result<()> {
    let mut known = false;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        known |= line.eq_ignore_ascii_case(&format!("Authorization: Bearer {token}"));
    }
    let body =
        if known { format!("{{\"active\":true,\"username\":\"{user}\"}}") } else { "{\"active\":false}".to_owned() };
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}")
}
