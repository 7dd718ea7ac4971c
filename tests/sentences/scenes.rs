//! The scenes, by what goes wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::support::certificates::Shown;
use super::support::relay::{Act, GREETING, HANDSHAKE, Relay, Script, Tls};
use super::support::sendmail::Sendmail;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;

/// A good letter.
const LETTER: &str = "Subject: x\n\nhello\n";

/// One call, and the world that it is made in.
pub struct Scene {
    name: &'static str,
    program: &'static str,
    words: Vec<&'static str>,
    input: String,
    script: Script,
    account: &'static str,
    queue: &'static str,
    /// A whole configuration, in place of one for the relay.
    config: Option<&'static str>,
    /// Files in the home: name, text, mode.
    files: Vec<(&'static str, &'static str, u32)>,
    /// A call before, with its input.
    before: Option<Vec<&'static str>>,
    /// The dialogue of `-v` is left out.
    said_only: bool,
    /// Of a check's findings, only what is wrong.
    only_faults: bool,
    /// The queue's directory is there, and everybody may write to it.
    open_queue: bool,
}

fn scene(name: &'static str) -> Scene {
    Scene {
        name,
        program: "sendmail",
        words: vec!["bob@example.org"],
        input: LETTER.to_owned(),
        script: Script::default(),
        account: "",
        queue: "",
        config: None,
        files: Vec::new(),
        before: None,
        said_only: false,
        only_faults: false,
        open_queue: false,
    }
}

impl Scene {
    fn program(mut self, program: &'static str) -> Self {
        self.program = program;
        self
    }

    fn words(mut self, words: &[&'static str]) -> Self {
        self.words = words.to_vec();
        self
    }

    fn input(mut self, input: &str) -> Self {
        input.clone_into(&mut self.input);
        self
    }

    fn relay(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    fn account(mut self, account: &'static str) -> Self {
        self.account = account;
        self
    }

    fn queue(mut self, queue: &'static str) -> Self {
        self.queue = queue;
        self
    }

    fn config(mut self, config: &'static str) -> Self {
        self.config = Some(config);
        self
    }

    fn file(mut self, name: &'static str, text: &'static str, mode: u32) -> Self {
        self.files.push((name, text, mode));
        self
    }

    fn before(mut self, words: &[&'static str]) -> Self {
        self.before = Some(words.to_vec());
        self
    }

    fn said_only(mut self) -> Self {
        self.said_only = true;
        self
    }

    /// Of a check's findings, only what is wrong: the rest is the machine's.
    fn only_faults(mut self) -> Self {
        self.only_faults = true;
        self
    }

    fn open_queue(mut self) -> Self {
        self.open_queue = true;
        self
    }

    /// Plays it: a head, the call, its status, and what it said.
    pub fn play(&self) -> String {
        let relay = Relay::start(self.script.clone());
        let mut world = match self.config {
            None => Sendmail::with(&relay, self.account, self.queue),
            Some(config) => Sendmail::new(config),
        };
        world = world.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        let home = world.home().to_owned();
        for (name, text, mode) in &self.files {
            let path = world.put(name, &text.replace("HOME", &home.display().to_string()));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        if let Some(config) = self.config {
            world.put("config.toml", &config.replace("HOME", &home.display().to_string()));
            if let Some((_, _, mode)) = self.files.iter().find(|(name, _, _)| *name == "config.toml") {
                let path = home.join("config.toml");
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
        if self.open_queue {
            std::fs::create_dir(world.queue()).unwrap();
            std::fs::set_permissions(world.queue(), std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        if let Some(words) = &self.before {
            let ran = world.run(words, LETTER.as_bytes());
            assert_eq!(ran.status, 0, "{}: {ran:?}", self.name);
        }
        world = world.called(self.program);
        let ids = ids(&world);
        let id = ids.first().map_or("", String::as_str);
        let place = home.display().to_string();
        let words: Vec<String> =
            self.words.iter().map(|word| word.replace("QUEUEID", id).replace("HOME", &place)).collect();
        let ran = world.run(&words, self.input.as_bytes());
        let mut text = format!("## {}\n$ {} {}\n", self.name, self.program, self.words.join(" ").escape_debug());
        let _ = writeln!(text, "= {}", ran.status);
        let is_dialogue = |line: &&str| self.said_only && ["> ", "< ", "* "].iter().any(|mark| line.starts_with(mark));
        for line in ran.stdout.lines().chain(ran.stderr.lines()).filter(|line| !is_dialogue(line)) {
            if self.only_faults && !line.contains('✗') {
                continue;
            }
            let line = line.replace(&home.display().to_string(), "HOME").replace(&relay.address.to_string(), "RELAY");
            let line = line.replace(&relay.address.port().to_string(), "PORT").replace(&relay.identity.pin(), "PIN");
            let _ = writeln!(text, "{}", without_ids(&line));
        }
        text.push('\n');
        text
    }
}

/// The ids of the letters in the queue.
fn ids(world: &Sendmail) -> Vec<String> {
    let entries = std::fs::read_dir(world.queue().join("letters")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| is_id(name)).collect()
}

fn is_id(word: &str) -> bool {
    word.len() >= 10 && word.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

fn without_ids(line: &str) -> String {
    let mut out = String::new();
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        out.push_str(&if is_id(bare) { word.replace(bare, "QUEUEID") } else { word.to_owned() });
    }
    out
}

/// All of them, under titles.
pub fn all() -> Vec<(&'static str, Vec<Scene>)> {
    vec![
        ("The words of the call", words()),
        ("The letter", letter()),
        ("The configuration", configuration()),
        ("Secrets", secrets()),
        ("The way to the relay", way()),
        ("TLS", tls()),
        ("Who we are", auth()),
        ("The relay's verdict, with a queue", verdict("")),
        ("The relay's verdict, without one", verdict("off")),
        ("The queue", queue()),
        ("The tool", tool()),
        ("Mail from people", mail()),
        ("Setting up", setting_up()),
    ]
}

fn words() -> Vec<Scene> {
    vec![
        scene("nobody is named").words(&[]),
        scene("an unknown option").words(&["-z", "bob@example.org"]),
        scene("an unknown long option").words(&["--frobnicate"]),
        scene("an option without its value").words(&["-f"]),
        scene("an option behind a recipient").words(&["bob@example.org", "-t"]),
        scene("a lone dash").words(&["-"]),
        scene("a mode that no relay-only MTA has").words(&["-bt"]),
        scene("address verification").words(&["-bv", "bob@example.org"]),
        scene("a daemon").words(&["-bd"]),
        scene("a value that is none").words(&["-N", "sometimes", "bob@example.org"]),
        scene("a list with a recipient").words(&["-bp", "bob@example.org"]),
        scene("an address that is none").words(&["bob@exa mple.org"]),
        scene("an address with a line end in it").words(&["bob@example.org\nRCPT TO:<x@y>"]),
        scene("a name with a comma").words(&["Doe, John <john@example.org>"]),
        scene("a quote that is never closed").words(&["\"john@example.org"]),
        scene("a sender that is none").words(&["-f", "a b@c", "bob@example.org"]),
        scene("an account that is not there").words(&["-a", "wrok", "bob@example.org"]),
        scene("an option of msmtp's that arguments may not have")
            .program("msmtp")
            .words(&["--passwordeval=pass show mail", "bob@example.org"]),
        scene("help").words(&["--help"]).program("mailq"),
        scene("the tool without a word").program("pillarbox").words(&[]),
    ]
}

fn letter() -> Vec<Scene> {
    let hops = "Received: from elsewhere\n".repeat(101);
    vec![
        scene("a NUL").input("Subject: x\n\nhel\0lo\n"),
        scene("no recipients in the header").words(&["-t"]),
        scene("a header that cannot be read").words(&["-t"]).input("To: Doe, John <john@example.org>\n\nx\n"),
        scene("a mail loop").input(&format!("{hops}\nhello\n")),
        scene("eight bits for a relay that has seven, in a signed letter")
            .relay(Script::default().offering(&["PIPELINING"]))
            .input("MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b\n\n--b\n\ngrün\n--b--\n"),
        scene("an international name for a relay that has none")
            .words(&["jörg@example.org"])
            .relay(Script::default().offering(&["PIPELINING", "8BITMIME"])),
        scene("too large")
            .input(&format!("Subject: x\n\n{}", "hello\n".repeat(2000)))
            .relay(Script::default().offering(&["PIPELINING", "SIZE 1000", "8BITMIME"])),
    ]
}

fn configuration() -> Vec<Scene> {
    vec![
        scene("what is not TOML").config("[account.work\nhost = \"x\"\n"),
        scene("every kind of mistake at once").config(
            "defualt = \"work\"\n[account.work]\nhosst = \"relay.example\"\nport = \"many\"\ntls = \"maybe\"\n\
             user = 3\n\
             timeout = \"soon\"\npin = \"sha256:12\"\nfallback = \"spare\"\n[queue]\nlifetime = \"0\"\n\
             deadline = \"4\"\n",
        ),
        scene("an account without a host").config("[account.work]\nuser = \"a\"\n"),
        scene("no account").config("domain = \"example.org\"\n"),
        scene("a default that is not there").config("default = \"x\"\n[account.work]\nhost = \"h\"\n"),
        scene("a literal password that all can read")
            .config("[account.work]\nhost = \"h\"\nuser = \"a\"\npassword = \"p\"\n")
            .file("config.toml", "", 0o644),
        scene("a file that is not there").words(&["-C", "/nonexistent.toml", "bob@example.org"]),
        scene("aliases that lead in a circle")
            .config("[account.work]\nhost = \"h\"\n[aliases]\na = \"b\"\nb = \"a\"\n")
            .words(&["a"]),
        scene("an alias that runs a program")
            .config("[account.work]\nhost = \"h\"\n[aliases]\na = \"|/bin/sh\"\n")
            .words(&["a"]),
        scene("aliases with several mistakes")
            .program("newaliases")
            .config("[account.work]\nhost = \"h\"\n[aliases]\na = \"|/bin/sh\"\nb = \"/var/mail/b\"\n")
            .words(&[]),
        scene("a letter that they do not concern")
            .config("[account.work]\nhost = \"h\"\n[aliases]\na = \"|/bin/sh\"\nb = \"/var/mail/b\"\n")
            .words(&["-odq", "c"]),
        scene("an alias file with mistakes")
            .program("newaliases")
            .words(&[])
            .config("alias_file = \"HOME/aliases\"\n[account.work]\nhost = \"h\"\n")
            .file("aliases", "root ops@example.org\nops: |/bin/sh\nx: :include:/nonexistent\n", 0o600),
    ]
}

fn secrets() -> Vec<Scene> {
    vec![
        scene("a helper that fails").account("password = { command = \"echo 'no such entry' >&2; exit 3\" }\n"),
        scene("a helper that is not there").account("password = { command = [\"/nonexistent/pass\", \"show\"] }\n"),
        scene("a helper that says nothing").account("password = { command = \"true\" }\n"),
        scene("a file that is not there").account("password = { file = \"/nonexistent/secret\" }\n"),
        scene("a file that others can read")
            .account("password = { file = \"~/secret\" }\n")
            .file("secret", "s3cret\n", 0o644),
        scene("a credential without a service").account("password = { credential = \"relay\" }\n"),
        scene("a netrc without an entry").account("password = { netrc = true }\n").file(
            ".netrc",
            "machine other login x password y\n",
            0o600,
        ),
        scene("a netrc that is none").account("password = { netrc = true }\n").file(
            ".netrc",
            "machine 127.0.0.1 login\n",
            0o600,
        ),
        scene("no password at all").account("password =\n"),
    ]
}

fn way() -> Vec<Scene> {
    let down = |name| scene(name).account("port = 1\n");
    vec![
        down("nobody listens"),
        down("nobody listens, watched").words(&["-v", "bob@example.org"]),
        down("nobody listens, without a queue").queue("off"),
        scene("a socket that is not there")
            .account("host = \"/nonexistent/socket\"\nport =\ntls = \"none\"\nuser =\npassword =\n"),
        scene("a greeting that refuses").relay(Script::default().on(GREETING, "554 5.3.2 no service here")),
        scene("no greeting").relay(Script::default().on(GREETING, Act::Drop)).queue("off"),
        scene("a greeting from another world")
            .relay(Script::default().on(GREETING, "HTTP/1.1 400 Bad Request"))
            .queue("off"),
        scene("silence after EHLO")
            .relay(Script::default().on("EHLO", Act::Stall))
            .account("timeout = \"1s\"\n")
            .queue("off"),
        scene("a relay that is closing").relay(Script::default().on("EHLO", "421 4.3.2 shutting down")).queue("off"),
        scene("terminal escapes").relay(Script::default().on("RCPT", "550 \x1b]0;owned\x07 no\u{9b}31m")),
    ]
}

fn tls() -> Vec<Scene> {
    let shown = |name, shown| scene(name).relay(Script::default().showing(shown));
    vec![
        shown("an expired certificate", Shown::Expired),
        shown("a certificate of tomorrow", Shown::NotYetValid),
        shown("a certificate for another name", Shown::OtherName),
        shown("a self-signed certificate", Shown::SelfSigned),
        shown("an unknown authority", Shown::OtherAuthority),
        shown("another certificate than the pinned one", Shown::Good)
            .account("pin = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\nca_file =\n"),
        scene("no STARTTLS").relay(Script::default().tls(Tls::Off)),
        scene("STARTTLS refused").relay(Script::default().on("STARTTLS", "454 4.7.0 TLS not available")),
        scene("a response injected behind STARTTLS")
            .relay(Script::default().on("STARTTLS", Act::Raw(b"220 go ahead\r\n250 injected\r\n".to_vec()))),
        scene("a handshake that is none").relay(Script::default().on(HANDSHAKE, Act::Raw(b"hello there\r\n".to_vec()))),
        scene("the wrong kind of TLS").account("tls = \"implicit\"\n"),
        scene("an authority file that is not there").account("ca_file = \"/nonexistent/ca.pem\"\n"),
        scene("a certificate file of ours that is none").account("cert_file = \"~/config.toml\"\n"),
        scene("a password in clear").account("tls = \"none\"\nhost = \"192.0.2.1\"\ntimeout = \"1s\"\n"),
    ]
}

fn auth() -> Vec<Scene> {
    vec![
        scene("a wrong password").relay(Script::default().on("AUTH", "535 5.7.8 authentication failed")),
        scene("a wrong password, without a queue")
            .relay(Script::default().on("AUTH", "535 5.7.8 authentication failed"))
            .queue("off"),
        scene("a provider that is out of order").relay(Script::default().on("AUTH", "454 4.7.0 try later")),
        scene("no AUTH at all").relay(Script::default().mechanisms("")),
        scene("no mechanism of ours").relay(Script::default().mechanisms("GSSAPI")),
        scene("a mechanism that is demanded and not offered").account("auth = \"scram-sha-256\"\n"),
    ]
}

/// What the relay says about letters and recipients.
fn verdict(queue: &'static str) -> Vec<Scene> {
    let answers: [(&str, &str, &str); 8] = [
        ("the sender is refused", "MAIL", "553 5.1.8 sender rejected"),
        ("the sender is put off", "MAIL", "451 4.3.0 try later"),
        ("the recipient is unknown", "RCPT", "550 5.1.1 no such user"),
        ("the recipient is put off", "RCPT", "450 4.2.0 greylisted"),
        ("DATA is refused", "DATA", "554 5.7.1 no"),
        ("the letter is refused", ".", "554 5.6.0 looks like spam"),
        ("the letter is put off", ".", "452 4.3.1 disk full"),
        ("an answer that is none", "MAIL", "354 what"),
    ];
    let mut scenes: Vec<Scene> = answers
        .into_iter()
        .map(|(name, moment, says)| {
            let script = Script::default().on(moment, says);
            scene(name).relay(script).queue(queue).words(&["-v", "bob@example.org"]).said_only()
        })
        .collect();
    scenes.push(
        scene("one of three is unknown, one is put off")
            .words(&["ann@example.org", "bad@example.org", "late@example.org"])
            .relay(
                Script::default()
                    .on("RCPT TO:<bad@", "550 5.1.1 no such user")
                    .on("RCPT TO:<late@", "450 4.2.0 greylisted"),
            )
            .queue(queue),
    );
    scenes.push(
        scene("the last answer is lost")
            .relay(Script::default().on(".", Act::Drop))
            .queue(queue)
            .words(&["-v", "bob@example.org"])
            .said_only(),
    );
    scenes.push(scene("all is well").queue(queue).words(&["-v", "bob@example.org"]).said_only());
    scenes.push(scene("all is well, unwatched").queue(queue));
    scenes
}

fn queue() -> Vec<Scene> {
    let waiting = |name| scene(name).before(&["-odq", "bob@example.org"]).program("pillarbox");
    vec![
        scene("queued").words(&["-v", "-odq", "bob@example.org"]),
        scene("a queue that others can write to").words(&["-odq", "bob@example.org"]).open_queue(),
        scene("an empty list").program("mailq").words(&[]),
        scene("an empty queue").program("pillarbox").words(&["queue", "list"]),
        scene("a letter that is not there").program("pillarbox").words(&["queue", "show", "ABCDEF0123456"]),
        waiting("a letter that is not there, in a queue").words(&["queue", "show", "ABCDEF0123456"]),
        waiting("what is no id").words(&["queue", "hold", "xyz"]),
        waiting("hold").words(&["queue", "hold", "QUEUEID"]),
        waiting("release").words(&["queue", "release", "QUEUEID"]),
        waiting("retry").words(&["queue", "retry", "QUEUEID"]),
        waiting("remove").words(&["queue", "remove", "QUEUEID"]),
        waiting("run").words(&["queue", "run"]),
        scene("run by sendmail").before(&["-odq", "bob@example.org"]).words(&["-v", "-q"]).said_only(),
    ]
}

fn tool() -> Vec<Scene> {
    vec![
        scene("an unknown command").program("pillarbox").words(&["frobnicate"]),
        scene("an unknown option").program("pillarbox").words(&["check", "--frobnicate"]),
        scene("a wrong address for the sandbox").program("pillarbox").words(&["sandbox", "--listen", "nowhere"]),
        scene("a command that is not there").program("pillarbox").words(&[
            "sandbox",
            "--quiet",
            "--exec",
            "/nonexistent/x",
        ]),
        scene("a service without a configuration").program("pillarbox").words(&["serve", "-C", "/nonexistent.toml"]),
    ]
}

fn mail() -> Vec<Scene> {
    let mail = |name, words: &[&'static str]| scene(name).program("pillarbox").words(&[&["mail"], words].concat());
    vec![
        mail("all is well", &["-s", "x", "bob@example.org"]),
        mail("nobody is named", &["-s", "x"]),
        mail("an unknown option", &["--frobnicate", "bob@example.org"]),
        mail("an option behind a recipient", &["bob@example.org", "-s"]),
        mail("an address that is none", &["bob@exa mple.org"]),
        mail("a file that is not there", &["-a", "/nonexistent/report.pdf", "bob@example.org"]),
        mail("a directory", &["-a", "/usr", "bob@example.org"]),
        mail("a field that is an option, too", &["-S", "To=ann@example.org", "bob@example.org"]),
        mail("a NUL in the text", &["bob@example.org"]).input("hel\0lo\n"),
        mail("nothing to say", &["-E", "bob@example.org"]).input(""),
        mail("the recipient is unknown", &["bob@example.org"])
            .relay(Script::default().on("RCPT", "550 5.1.1 no such user")),
        scene("mailx is asked to read mail").program("mailx").words(&["-f"]),
        scene("mailx without a recipient").program("mailx").words(&[]),
    ]
}

fn setting_up() -> Vec<Scene> {
    let tool = |name| scene(name).program("pillarbox");
    vec![
        tool("no configuration for check").words(&["check", "-C", "/nonexistent.toml"]).only_faults(),
        tool("login for an account that is not there").words(&["login", "wrok"]).input("s3cret\n"),
        tool("login for an account whose password is elsewhere").words(&["login", "work"]).input("s3cret\n"),
        tool("login with nothing typed").words(&["login", "--file", "work"]).input("\n"),
        tool("logout from where nothing is").words(&["logout", "work"]),
        tool("init where a configuration is").words(&["init"]).input(""),
        tool("import of what is not there").words(&["import", "/nonexistent/msmtprc"]),
        tool("import of what nobody knows").words(&["import", "HOME/strange.conf"]).file("strange.conf", "x\n", 0o600),
        tool("import without a relay").words(&["import", "--from", "postfix", "HOME/main.cf"]).file(
            "main.cf",
            "myhostname = box.example\n",
            0o600,
        ),
        tool("import").words(&["import", "HOME/msmtprc"]).file(
            "msmtprc",
            "account work\nhost relay.example\nport 587\ntls on\nauth on\nuser a\npassword s3cret\n\
                              from a@example.com\n",
            0o600,
        ),
        tool("completions for a shell that nobody knows").words(&["completions", "tcsh"]),
    ]
}
