//! A real Postfix, as a provider would run it: submission with STARTTLS or implicit TLS, SASL, unknown recipients
//! refused, Maildirs behind it. All of it lives in a temporary directory; the system's own Postfix, if there is one,
//! is not touched. Cyrus SASL with a password file of its own needs no second daemon.

use super::authority::Authority;
use super::peer::{free_port, here, run, wait_for};
use super::server::{self, NAME, PASSWORD, Server, USER, for_each_known};
use std::fmt::Write;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A Postfix of the test's own. Stopped when dropped.
pub struct Postfix {
    dir: tempfile::TempDir,
    /// STARTTLS.
    pub port: u16,
    /// TLS from the first octet.
    pub tls_port: u16,
    /// The authority that its certificate is from.
    pub ca_file: PathBuf,
}

impl Postfix {
    /// Starts one, with these settings of `main.cf` besides the usual ones. `None`, after saying so, where Postfix is
    /// not to be had.
    pub fn start(settings: &[(&str, &str)]) -> Option<Self> {
        Self::start_at(free_port(), settings)
    }

    /// The same, with STARTTLS at that port.
    pub fn start_at(port: u16, settings: &[(&str, &str)]) -> Option<Self> {
        if !here(&["root", "postfix", "saslpasswd2"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new();
        let postfix = Self { port, tls_port: free_port(), ca_file: ca.write(dir.path()), dir };
        postfix.lay_out(&ca, settings);
        postfix.restart();
        Some(postfix)
    }

    fn lay_out(&self, ca: &Authority, settings: &[(&str, &str)]) {
        let root = self.root();
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        for dir in ["etc/sasl", "queue", "data", "mail"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        run(Command::new("chown").args(["postfix", "data"]).current_dir(root));
        run(Command::new("chown").args(["nobody", "mail"]).current_dir(root));
        ca.write_server(NAME, root);
        self.admit(PASSWORD);
        let here = root.display();
        fs::write(
            root.join("etc/sasl/smtpd.conf"),
            format!(
                "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {here}/etc/sasl/passwords\n\
                 mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256\n"
            ),
        )
        .unwrap();
        let mailbox = |name: &str| format!("{name}@example.org {name}@example.org/\n");
        // A name that no server without SMTPUTF8 could be asked about.
        let mailboxes = for_each_known(mailbox) + &mailbox("jürgen");
        fs::write(root.join("mailboxes"), mailboxes).unwrap();
        let mut main = format!(
            "compatibility_level = 3.6\n\
             config_directory = {here}/etc\n\
             queue_directory = {here}/queue\n\
             data_directory = {here}/data\n\
             maillog_file = {here}/log\n\
             maillog_file_prefixes = {here}\n\
             myhostname = relay.test\n\
             mydestination =\n\
             alias_maps =\n\
             alias_database =\n\
             mynetworks =\n\
             inet_interfaces = loopback-only\n\
             inet_protocols = ipv4\n\
             smtp_host_lookup = native\n\
             smtpd_peername_lookup = no\n\
             smtpd_client_connection_rate_limit = 0\n\
             default_transport = error:relaying ends here\n\
             smtpd_tls_chain_files = {here}/server.pem\n\
             smtpd_tls_security_level = encrypt\n\
             smtpd_tls_loglevel = 1\n\
             smtpd_tls_auth_only = yes\n\
             smtpd_sasl_auth_enable = yes\n\
             smtpd_sasl_path = smtpd\n\
             smtpd_sasl_local_domain = relay.test\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
             virtual_mailbox_domains = example.org\n\
             virtual_mailbox_maps = texthash:{here}/mailboxes\n\
             virtual_mailbox_base = {here}/mail\n\
             virtual_mailbox_limit = 0\n\
             virtual_uid_maps = static:65534\n\
             virtual_gid_maps = static:65534\n\
             message_size_limit = 104857600\n\
             service_throttle_time = 1s\n"
        );
        for (name, value) in settings {
            writeln!(main, "{name} = {value}").unwrap();
        }
        fs::write(root.join("etc/main.cf"), main).unwrap();
        self.age();
        fs::write(root.join("etc/master.cf"), self.services()).unwrap();
    }

    /// An smtpd that serves one connection only: the next one reads what `main.cf` says by then, see `set`.
    fn services(&self) -> String {
        let (port, tls_port) = (self.port, self.tls_port);
        format!(
            "127.0.0.1:{port} inet n - n - - smtpd -o max_use=1\n\
             127.0.0.1:{tls_port} inet n - n - - smtpd -o max_use=1 -o smtpd_tls_wrappermode=yes\n\
             pickup unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\n\
             rewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\n\
             proxymap unix - - n - - proxymap\n\
             flush unix n - n 1000? 0 flush\n\
             showq unix n - n - - showq\n\
             error unix - - n - - error\n\
             retry unix - - n - - error\n\
             virtual unix - n n - - virtual\n\
             anvil unix - - n - 1 anvil\n\
             postlog unix-dgram n - n - 1 postlogd\n"
        )
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Makes this the password.
    pub fn admit(&self, password: &str) {
        let file = self.root().join("etc/sasl/passwords");
        let command = format!("printf %s '{password}' | saslpasswd2 -p -c -u relay.test -f {} {USER}", file.display());
        run(Command::new("sh").args(["-c", &command]));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    }

    /// Changes a setting of `main.cf` from the next connection on.
    pub fn set(&self, name: &str, value: &str) {
        let setting = format!("{name} = {value}");
        run(Command::new("postconf").arg("-c").arg(self.root().join("etc")).args(["-e", &setting]));
        self.age();
    }

    /// Postfix waits for seconds before it reads a `main.cf` that somebody may still be writing.
    fn age(&self) {
        let main = fs::File::options().write(true).open(self.root().join("etc/main.cf")).unwrap();
        main.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
    }

    /// Stops it; the ports are closed when this returns.
    pub fn stop(&self) {
        run(&mut self.postfix("stop"));
        wait_for("Postfix to stop", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err().then_some(()));
    }

    /// Starts it again; the ports are open when this returns.
    pub fn restart(&self) {
        run(&mut self.postfix("start"));
        for port in [self.port, self.tls_port] {
            wait_for("Postfix to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        }
    }

    fn postfix(&self, verb: &str) -> Command {
        let mut command = Command::new("postfix");
        command.arg("-c").arg(self.root().join("etc")).arg(verb);
        command
    }
}

impl Server for Postfix {
    fn account(&self, more: &str) -> String {
        server::account(self.port, &self.ca_file, more)
    }

    fn mail(&self) -> PathBuf {
        self.root().join("mail")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.postfix("stop").output();
    }
}

/// Sends a signal to the processes of one service of the Postfix in that directory. The master starts new ones.
pub fn kill(root: &Path, service: &str, signal: &str) {
    run(Command::new("kill").arg(format!("-{signal}")).args(processes(root, service)));
}

/// How many octets the processes of that service have read, from wherever.
pub fn has_read(root: &Path, service: &str) -> u64 {
    let io = |pid: &String| fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let count = |io: String| io.lines().next()?.strip_prefix("rchar: ")?.parse::<u64>().ok();
    processes(root, service).iter().map(|pid| count(io(pid)).unwrap()).sum()
}

fn processes(root: &Path, service: &str) -> Vec<String> {
    let master = fs::read_to_string(root.join("queue/pid/master.pid")).unwrap();
    let children = run(Command::new("ps").args(["-o", "pid=,comm=", "--ppid", master.trim()]));
    let named = |line: &str| {
        line.trim().split_once(' ').filter(|(_, name)| name.trim() == service).map(|(pid, _)| pid.to_owned())
    };
    let pids: Vec<_> = children.lines().filter_map(named).collect();
    assert!(!pids.is_empty(), "Postfix runs no {service}");
    pids
}

/// Postfix asks a policy service what to do about a recipient, a DATA or a final dot. This one never minds, but until
/// it has said so the session stands still, and a test can act at exactly that moment.
pub struct Policy {
    /// For `check_policy_service`.
    pub service: String,
}

impl Policy {
    /// `act` is done before each answer.
    pub fn start(act: impl Fn() + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let service = format!("check_policy_service inet:{}", listener.local_addr().unwrap());
        // It ends with the test's process; Postfix, which asks, ends earlier.
        std::thread::spawn(move || listener.incoming().for_each(|stream| converse(&stream.unwrap(), &act)));
        Self { service }
    }
}

fn converse(mut stream: &TcpStream, act: &dyn Fn()) {
    // An empty line ends a question.
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if line.is_empty() => act(),
            Ok(_) => continue,
            Err(_) => return,
        }
        if stream.write_all(b"action=DUNNO\n\n").is_err() {
            return; // the one who asked has been killed
        }
    }
}
