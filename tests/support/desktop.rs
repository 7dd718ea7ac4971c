//! A desktop's session bus and its keyring, the real ones, in a temporary directory.

use super::peer::{Running, run, wait_for};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a desktop is made of.
pub const PROGRAMS: [&str; 4] = ["dbus-daemon", "dbus-send", "dbus-test-tool", "gnome-keyring-daemon"];

/// A bus of its own: whoever is not told its address does not know it, and it starts nobody.
pub struct Desktop {
    keyring: Option<Running>,
    _bus: Running,
    dir: tempfile::TempDir,
}

impl Desktop {
    /// A bus on which there is no keyring.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let config = dir.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow \
             own=\"*\"/></policy></busconfig>",
            dir.path().join("bus").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut bus = Command::new("dbus-daemon");
        bus.arg(format!("--config-file={}", config.display())).args(["--nofork", "--nopidfile"]);
        let bus = Running(bus.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let this = Self { keyring: None, _bus: bus, dir };
        wait_for("the bus", || this.answers("org.freedesktop.DBus", "org.freedesktop.DBus.GetId", &[]));
        this
    }

    /// The same with a keyring that is unlocked, as somebody's is who has logged in.
    pub fn with_keyring() -> Self {
        let mut this = Self::start();
        let mut keyring = this.command("gnome-keyring-daemon");
        keyring.args(["--foreground", "--components=secrets", "--unlock"]).stdin(Stdio::piped());
        let mut keyring = keyring.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        keyring.stdin.take().unwrap().write_all(b"login").unwrap();
        this.keyring = Some(Running(keyring));
        wait_for("the keyring", || {
            let said = this.answers(
                "org.freedesktop.secrets",
                "org.freedesktop.Secret.Service.ReadAlias",
                &["string:default"],
            );
            said.filter(|said| said.contains("/collection/login"))
        });
        this
    }

    /// Its home and runtime directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The bus, for `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    /// Locks the keyring.
    pub fn lock(&self) {
        let what = "array:objpath:/org/freedesktop/secrets/collection/login";
        self.answers("org.freedesktop.secrets", "org.freedesktop.Secret.Service.Lock", &[what]).expect("it is locked");
    }

    /// Somebody whose part it is to ask the person for the keyring's password, and who never does.
    pub fn mute_prompter(&self) -> Running {
        let name = "org.gnome.keyring.SystemPrompter";
        let mut prompter = self.command("dbus-test-tool");
        let prompter = Running(prompter.args(["black-hole", &format!("--name={name}")]).spawn().unwrap());
        let owner = format!("string:{name}");
        wait_for("the prompter", || {
            self.answers("org.freedesktop.DBus", "org.freedesktop.DBus.GetNameOwner", &[&owner])
        });
        prompter
    }

    /// What the keyring has, by its own client.
    pub fn lookup(&self, service: &str, user: &str) -> String {
        run(self.command("secret-tool").args(["lookup", "service", service, "username", user]))
    }

    /// What somebody on the bus answers; nothing where that is an error.
    fn answers(&self, to: &str, method: &str, words: &[&str]) -> Option<String> {
        let path = format!("/{}", to.replace('.', "/"));
        let mut send = self.command("dbus-send");
        send.args(["--session", "--print-reply", &format!("--dest={to}"), &path, method]).args(words);
        let output = send.output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir())
            .env("XDG_RUNTIME_DIR", self.dir())
            .env("DBUS_SESSION_BUS_ADDRESS", self.address())
            .current_dir(self.dir());
        command
    }
}
