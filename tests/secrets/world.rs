//! Somebody's home: an account whose password comes from there, four logs, and what lies about.

use crate::marks::{CLIENT, PASSWORD, REFRESH, ROTATED, TOKEN, told};
use crate::support::desktop::{Desktop, PROGRAMS};
use crate::support::peer::here;
use crate::support::relay::Relay;
use crate::support::running::Ended;
use crate::support::sendmail::Sendmail;
use crate::support::tokens::{Does, Tokens, grant};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where an account's password may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Literal,
    File,
    Command,
    Netrc,
    Credential,
    Msmtprc,
    MsmtprcEval,
    MsmtprcNetrc,
    Mailrc,
    OAuth,
    Keyring,
}

pub use Source::{
    Command as OfCommand, Credential, File, Keyring, Literal, Mailrc, Msmtprc, MsmtprcEval, MsmtprcNetrc, Netrc, OAuth,
};

/// Those that need no more than files.
pub const SOURCES: [Source; 10] =
    [Literal, File, OfCommand, Netrc, Credential, Msmtprc, MsmtprcEval, MsmtprcNetrc, Mailrc, OAuth];

impl Source {
    pub fn secret(self) -> &'static str {
        if self == OAuth { TOKEN } else { PASSWORD }
    }
}

/// All of them, and the desktop that the keyring needs: the last one is left out where there can be none.
pub fn sources() -> (Vec<Source>, Option<Desktop>) {
    let has_desktop = cfg!(feature = "keyring") && here(&PROGRAMS);
    let desktop = has_desktop.then(Desktop::with_keyring);
    (SOURCES.into_iter().chain(has_desktop.then_some(Keyring)).collect(), desktop)
}

/// The provider of a good day, which also gives another refresh token.
pub fn generous() -> Vec<Does> {
    vec![grant(TOKEN, 3600, &format!(",\"refresh_token\":\"{ROTATED}\""))]
}

/// The files in a home that are there to hold a secret, or the place where a token is kept.
pub const KEEPERS: [&str; 7] = ["secret", "refresh", ".netrc", "config.toml", "msmtprc", "mailrc", "oauth"];

/// A sendmail whose account for that relay takes its password from there, and logs to four places.
pub fn world(source: Source, relay: &Relay, tokens: &Tokens, desktop: Option<&Desktop>) -> Sendmail {
    let sendmail = Sendmail::new("");
    let secret = sendmail.put("secret", &format!("{PASSWORD}\n"));
    sendmail.put("refresh", &format!("{REFRESH}\n"));
    sendmail.put(".netrc", &format!("machine 127.0.0.1 login alice password {PASSWORD}\n"));
    let (secret, home) = (secret.display().to_string(), sendmail.home().display().to_string());
    // It leaves behind what it was given.
    let witness = format!("cat /proc/self/environ /proc/self/cmdline >>{home}/witness; cat {secret}");
    let sendmail = match source {
        Credential => sendmail.env("CREDENTIALS_DIRECTORY", &home),
        OAuth => sendmail.env("XDG_STATE_HOME", format!("{home}/state")),
        Keyring => sendmail.env("DBUS_SESSION_BUS_ADDRESS", desktop.unwrap().address()),
        _ => sendmail,
    };
    let password = match source {
        Literal => format!("\"{PASSWORD}\""),
        File => format!("{{ file = \"{secret}\" }}"),
        OfCommand => format!("{{ command = \"{witness}\" }}"),
        Credential => "{ credential = \"secret\" }".to_owned(),
        Keyring => "{ keyring = true }".to_owned(),
        OAuth => format!(
            "{{ oauth = {{ token_url = \"{}\", client_id = \"box\", client_secret = \"{CLIENT}\", \
             refresh_token = {{ file = \"{home}/refresh\" }} }} }}",
            tokens.url()
        ),
        _ => "{ netrc = true }".to_owned(),
    };
    sendmail.configure(relay, &format!("password = {password}"), "");
    let config = fs::read_to_string(sendmail.home().join("config.toml")).unwrap();
    let logs = format!("log = [\"journal\", \"syslog\", \"stderr\", \"{home}/log\"]\n");
    sendmail.put("config.toml", &(logs + &config));
    if source == Keyring {
        put_into_keyring(&sendmail);
    }
    let port = relay.address.port();
    let rc = |password: &str| {
        format!(
            "account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_trust_file {home}/ca.pem\nauth on\nuser alice\n\
             from alice@example.com\nlogfile {home}/log\n{password}\n"
        )
    };
    let named = |name: &str, text: &str| sendmail.put(name, text);
    let file = match source {
        Msmtprc => named("msmtprc", &rc(&format!("password {PASSWORD}"))),
        MsmtprcEval => named("msmtprc", &rc(&format!("passwordeval {witness}"))),
        MsmtprcNetrc => named("msmtprc", &rc("")),
        Mailrc => {
            let encoded = PASSWORD.replace('/', "%2F");
            let url = format!("smtp://alice:{encoded}@127.0.0.1:{port}");
            let set = format!("set v15-compat mta={url} smtp-use-starttls tls-ca-file={home}/ca.pem\n");
            named("mailrc", &(set + "set from=alice@example.com\n"))
        }
        _ => return sendmail,
    };
    sendmail.env("PILLARBOX_CONFIG", file)
}

/// As its owner does; asked again where the keyring is late.
pub fn put_into_keyring(sendmail: &Sendmail) {
    let mut login = std::process::Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    login.arg("login").env_clear().envs(sendmail.environment().iter().cloned());
    let done = (0..12).find_map(|_| {
        let ended = Ended::of(&mut login, format!("{PASSWORD}\n").as_bytes());
        let seen = told("what login says", format!("{ended:?}").as_bytes());
        assert!(seen.is_empty(), "{seen:?}");
        assert!(ended.status == 0 || ended.stderr.contains("did not answer"), "{ended:?}");
        (ended.status == 0).then_some(())
    });
    assert!(done.is_some(), "the keyring never answers in time");
}

/// Has the program that asks the keyring leave behind what it was given and what it complains of.
pub fn with_witness(sendmail: &Sendmail) {
    let (ours, real) = (env!("CARGO_BIN_EXE_sendmail"), env!("CARGO_BIN_EXE_pillarbox"));
    let witness = sendmail.home().join("witness").display().to_string();
    let script = format!(
        "#!/bin/bash\nprintf '%s\\n' \"$@\" >>{witness}\ncat /proc/$$/environ >>{witness}\n\
         exec -a pillarbox-keyring '{real}' \"$@\" 2>>{witness}\n"
    );
    // Not written by this process: another thread that starts a program just then would keep it open and busy.
    let line =
        "mkdir bin && { ln \"$1\" bin/sendmail || cp \"$1\" bin/sendmail; } && cat >bin/pillarbox && chmod 755 bin/*";
    let mut shell = std::process::Command::new("/bin/sh");
    let ended = Ended::of(shell.args(["-c", line, "sh", ours]).current_dir(sendmail.home()), script.as_bytes());
    assert_eq!(ended.status, 0, "{ended:?}");
}

/// Replaces the journal's and syslog's sockets by two in the home, for one program.
pub const WITH_LOGS: &str = "exec unshare -m sh -c '
    mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket &&
    mount --bind \"$HOME/journal.sock\" /run/systemd/journal/socket &&
    mkdir -p \"$HOME/dev\" && mount -t tmpfs none \"$HOME/dev\" && cd \"$HOME/dev\" && ln -s /proc/self/fd fd &&
    for node in null zero random urandom log; do touch $node; done &&
    for node in null zero random urandom; do mount --bind /dev/$node $node; done &&
    mount --bind \"$HOME/syslog.sock\" log && mount --rbind . /dev && cd \"$HOME\" && exec \"$@\"' sh \"$@\"";

/// A log daemon's socket, and what came to it.
pub struct Daemon(UnixDatagram);

impl Daemon {
    pub fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    pub fn heard(&self) -> Vec<u8> {
        let (mut all, mut one) = (Vec::new(), vec![0; 64 * 1024]);
        while let Ok(n) = self.0.recv(&mut one) {
            all.extend_from_slice(&one[..n]);
            all.push(b'\n');
        }
        all
    }
}

/// Whatever lies below a directory, but for the keepers of secrets
/// and what a runner takes away meanwhile: path and content.
pub fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if KEEPERS.iter().any(|keeper| name == *keeper) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() => found.extend(fs::read(&path).ok().map(|octets| (path, octets))),
            _ => {}
        }
    }
    found
}

/// What stays in memory while nobody sends: a literal, which may be needed for another attempt.
pub fn kept(source: Source) -> Vec<(String, usize)> {
    match source {
        Literal | Msmtprc | Mailrc => vec![(PASSWORD.to_owned(), 1)],
        OAuth => vec![(CLIENT.to_owned(), 1)],
        OfCommand | MsmtprcEval | Keyring | File | Netrc | Credential | MsmtprcNetrc => Vec::new(),
    }
}

/// What stays during a run: a command and the keyring are asked once in it, so their answer is kept for its other
/// connections. Nothing else may.
pub fn kept_for_a_run(source: Source) -> Vec<(String, usize)> {
    match source {
        OfCommand | MsmtprcEval | Keyring => vec![(PASSWORD.to_owned(), 1)],
        other => kept(other),
    }
}
