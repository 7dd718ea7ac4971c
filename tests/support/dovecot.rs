//! A real Dovecot. One does nothing but SASL, for a Postfix to ask: every mechanism that it has, passwords from a file,
//! and access tokens that it asks an endpoint of the test's about (RFC 7662). The other is a mail store that is reached
//! by LMTP, with STARTTLS or over a UNIX socket.

use super::authority::Authority;
use super::peer::{Running, free_port, here, program, wait_for};
use super::server::{NAME, Server, for_each_known};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Dovecot of the test's own.
pub struct Dovecot {
    _running: Running,
    dir: tempfile::TempDir,
}

impl Dovecot {
    /// Starts one that knows this user, this password and this access token. `None`, after saying so, where Dovecot is
    /// not to be had.
    pub fn start(user: &str, password: &str, token: &str) -> Option<Self> {
        if !here(&["root", "dovecot"]) {
            return None;
        }
        let dir = directory();
        let (here, endpoint) = (dir.path().display(), endpoint(user.to_owned(), token.to_owned()));
        fs::write(dir.path().join("users"), format!("{user}:{{PLAIN}}{password}\n")).unwrap();
        fs::write(
            dir.path().join("oauth2"),
            format!(
                "introspection_mode = auth\nintrospection_url = http://127.0.0.1:{endpoint}/\n\
                 username_attribute = username\nactive_attribute = active\nactive_value = true\n"
            ),
        )
        .unwrap();
        let config = format!(
            "protocols =\nssl = no\n\
             auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2\n\
             auth_failure_delay = 0\nauth_verbose = yes\n\
             passdb {{\n driver = oauth2\n mechanisms = oauthbearer xoauth2\n args = {here}/oauth2\n}}\n\
             passdb {{\n driver = passwd-file\n mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256\n \
             args = scheme=PLAIN username_format=%u {here}/users\n}}\n\
             userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/\n}}\n\
             service anvil {{\n unix_listener anvil-auth-penalty {{\n  mode = 0\n }}\n}}\n\
             service auth {{\n user = root\n unix_listener {here}/socket {{\n  mode = 0666\n }}\n}}\n"
        );
        Some(Self::run(dir, &config))
    }

    /// Runs it; it listens at `socket`, below its directory, when this returns.
    fn run(dir: tempfile::TempDir, config: &str) -> Self {
        let at = dir.path();
        let here = at.display();
        let own = format!("base_dir = {here}/run\nstate_dir = {here}/run\nlog_path = {here}/log\n");
        fs::write(at.join("dovecot.conf"), own + config).unwrap();
        let said = fs::File::create(at.join("said")).unwrap();
        let mut command = Command::new(program("dovecot").unwrap());
        command.args(["-F", "-c"]).arg(at.join("dovecot.conf")).stdin(Stdio::null());
        let mut running = Running(command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap());
        let socket = at.join("socket");
        wait_for("Dovecot to listen", || {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?} {}", fs::read_to_string(at.join("said")).unwrap());
            UnixStream::connect(&socket).ok()
        });
        Self { _running: running, dir }
    }

    /// Where it listens; for Postfix: `smtpd_sasl_path`.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(Path::new(self.dir.path()).join("log")).unwrap_or_default()
    }
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A Dovecot that is a mail store. `full@example.org` is one of its users, whose quota is used up.
pub struct Store {
    dovecot: Dovecot,
    port: u16,
    ca_file: PathBuf,
}

impl Store {
    /// Starts one. `None`, after saying so, where it is not to be had.
    pub fn start() -> Option<Self> {
        if !here(&["root", "dovecot", "/usr/lib/dovecot/lmtp"]) {
            return None;
        }
        let (dir, ca, port) = (directory(), Authority::new(), free_port());
        let at = dir.path();
        let here = at.display();
        fs::create_dir(at.join("mail")).unwrap();
        fs::set_permissions(at.join("mail"), Permissions::from_mode(0o777)).unwrap();
        let known = for_each_known(|name| format!("{name}@example.org::65534:65534::/\n"));
        let full = "full@example.org::65534:65534::/::userdb_quota_rule=*:bytes=1\n";
        fs::write(at.join("users"), known + full).unwrap();
        let (key, chain) = ca.server(NAME);
        fs::write(at.join("key.pem"), key).unwrap();
        fs::write(at.join("certificate.pem"), chain).unwrap();
        let config = format!(
            "protocols = lmtp\nhostname = store.test\nssl = yes\n\
             ssl_cert = <{here}/certificate.pem\nssl_key = <{here}/key.pem\n\
             mail_location = maildir:{here}/mail/%u\nmail_plugins = quota\nplugin {{\n quota = maildir:quota\n}}\n\
             passdb {{\n driver = passwd-file\n args = {here}/users\n}}\n\
             userdb {{\n driver = passwd-file\n args = username_format=%u {here}/users\n}}\n\
             service lmtp {{\n unix_listener {here}/socket {{\n  mode = 0666\n }}\n \
             inet_listener lmtp {{\n  address = 127.0.0.1\n  port = {port}\n }}\n}}\n"
        );
        let ca_file = ca.write(at);
        Some(Self { dovecot: Dovecot::run(dir, &config), port, ca_file })
    }

    /// An account that reaches it over the UNIX socket, in clear.
    pub fn local_account(&self) -> String {
        format!(
            "[account.store]\nhost = \"unix:{}\"\nprotocol = \"lmtp\"\ntls = \"none\"\nfrom = \"alice@example.org\"\n",
            self.dovecot.socket().display()
        )
    }
}

impl Server for Store {
    fn account(&self, more: &str) -> String {
        format!(
            "[account.store]\nhost = \"{NAME}\"\nport = {}\nprotocol = \"lmtp\"\ntls = \"starttls\"\n\
             from = \"alice@example.org\"\nca_file = \"{}\"\n{more}\n",
            self.port,
            self.ca_file.display()
        )
    }

    fn mail(&self) -> PathBuf {
        self.dovecot.dir.path().join("mail")
    }

    fn log(&self) -> String {
        self.dovecot.log()
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
