//! A delivery as data: what goes in, and what must come out at the relay and at the caller.
//!
//! What a case does not mention is expected to be as on a good day: status 0, nothing said, all input read, one
//! connection with one letter whose `SIZE=` was right and whose line ends are CRLF. A case that [`is
//! known`](Case::known) to fail goes red when it no longer does.

use super::relay::{Dialogue, Letter, Relay, Script};
use super::running::Ended;
use super::sendmail::Sendmail;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// One run of `sendmail` against one relay.
pub struct Case {
    name: String,
    words: Vec<String>,
    input: Vec<u8>,
    script: Script,
    account: String,
    queue: String,
    world: Box<dyn Fn(Sendmail) -> Sendmail + Send + Sync>,
    status: i32,
    says: Option<Vec<String>>,
    hides: Vec<String>,
    connections: usize,
    wire: Option<String>,
    content: Option<String>,
    letters: usize,
    known: Option<String>,
    also: Vec<Also>,
}

/// What else must hold.
pub type Also = Box<dyn Fn(&Sendmail, &Ended, &[Dialogue]) -> Result<(), String> + Send + Sync>;

/// A case in which `sendmail bob@example.org` gets a small letter.
pub fn case(name: &str) -> Case {
    Case {
        name: name.to_owned(),
        words: vec!["bob@example.org".to_owned()],
        input: b"Subject: x\n\nhello\n".to_vec(),
        script: Script::default(),
        account: String::new(),
        queue: String::new(),
        world: Box::new(|sendmail| sendmail),
        status: 0,
        says: None,
        hides: Vec::new(),
        connections: 1,
        wire: None,
        content: None,
        letters: 1,
        known: None,
        also: Vec::new(),
    }
}

impl Case {
    /// The words behind the program's name. `HOME/` at the beginning of one stands for the home.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Standard input.
    #[must_use]
    pub fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.input = input.as_ref().to_vec();
        self
    }

    /// What the relay does.
    #[must_use]
    pub fn relay(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// Lines for the account's table. `AUTHORITY`, `PIN` and `HOME` are replaced.
    #[must_use]
    pub fn account(mut self, lines: &str) -> Self {
        self.account.push_str(lines);
        self.account.push('\n');
        self
    }

    /// Lines for the queue's table, or `off`.
    #[must_use]
    pub fn queue(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.queue);
        self
    }

    /// Changes the world that `sendmail` runs in.
    #[must_use]
    pub fn world(mut self, change: impl Fn(Sendmail) -> Sendmail + Send + Sync + 'static) -> Self {
        self.world = Box::new(change);
        self
    }

    /// The exit status.
    #[must_use]
    pub fn status(mut self, status: i32) -> Self {
        self.status = status;
        self
    }

    /// Standard error is not empty and each of these is in it. `RELAY` stands for its address and port.
    #[must_use]
    pub fn says(mut self, parts: &[&str]) -> Self {
        self.says.get_or_insert_default().extend(parts.iter().map(|&part| part.to_owned()));
        self
    }

    /// None of these is in what it says.
    #[must_use]
    pub fn hides(mut self, parts: &[&str]) -> Self {
        self.hides.extend(parts.iter().map(|&part| part.to_owned()));
        self
    }

    /// The commands from MAIL on, a line each; RCPTs in any order, `SIZE=#` for the right size.
    #[must_use]
    pub fn wire(mut self, commands: &str) -> Self {
        self.wire = Some(commands.to_owned());
        self
    }

    /// The content, with LF; a `*` stands for the rest of a line or what is before a `>`.
    #[must_use]
    pub fn content(mut self, content: &str) -> Self {
        self.content = Some(content.to_owned());
        self
    }

    /// The body alone, with LF.
    #[must_use]
    pub fn body(self, body: &str) -> Self {
        let body = body.to_owned();
        self.letter(move |letter| {
            let got = text(&letter.content)?;
            let (_, got) = got.split_once("\n\n").ok_or("the content has no body")?;
            if got == body { Ok(()) } else { Err(format!("the body is {got:?}, not {body:?}")) }
        })
    }

    /// Something else that must hold for the letter.
    #[must_use]
    pub fn letter(self, holds: impl Fn(&Letter) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.also(move |_, _, heard| {
            let letter = heard.iter().flat_map(|dialogue| &dialogue.letters).next();
            holds(letter.ok_or("no letter came")?)
        })
    }

    /// Nobody gets anything: a connection may be made, and no letter comes.
    #[must_use]
    pub fn undelivered(mut self) -> Self {
        self.letters = 0;
        self
    }

    /// Nobody is even connected to.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        (self.connections, self.letters) = (0, 0);
        self
    }

    /// So many connections.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Something else must hold.
    #[must_use]
    pub fn also(
        mut self,
        holds: impl Fn(&Sendmail, &Ended, &[Dialogue]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.also.push(Box::new(holds));
        self
    }

    /// `mailq` shows each of these.
    #[must_use]
    pub fn queued(self, parts: &[&str]) -> Self {
        let parts: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
        self.also(move |sendmail, _, _| {
            let list = sendmail.run(&["-bp"], b"").stdout;
            match parts.iter().find(|part| !list.contains(*part)) {
                None => Ok(()),
                Some(part) => Err(format!("{part:?} is not in the queue:\n{list}")),
            }
        })
    }

    /// The queue is empty afterwards.
    #[must_use]
    pub fn unqueued(self) -> Self {
        self.queued(&["Mail queue is empty"])
    }

    /// The program does not do this yet, and why that is so.
    #[must_use]
    pub fn known(mut self, why: &str) -> Self {
        self.known = Some(why.to_owned());
        self
    }

    fn check(&self) -> Result<(), String> {
        let relay = Relay::start(self.script.clone());
        let (sendmail, pin) = (Sendmail::to(&relay), relay.identity.pin());
        let home = sendmail.home().display().to_string();
        let named = |text: &String| text.replace("PIN", &pin).replace("HOME/", &format!("{home}/"));
        sendmail.configure(&relay, &named(&self.account), &named(&self.queue));
        let sendmail = (self.world)(sendmail);
        let words: Vec<String> = self.words.iter().map(named).collect();
        let ran = sendmail.run(&words, &self.input);
        let address = relay.address.to_string();
        let heard = relay.finish();

        let mut wrong = Vec::new();
        if ran.status != self.status {
            wrong.push(format!("status {}, not {}", ran.status, self.status));
        }
        if !ran.stdout.is_empty() {
            wrong.push(format!("printed {:?}", ran.stdout));
        }
        if !ran.read_all {
            wrong.push("did not read all of its input".to_owned());
        }
        let said = ran.stderr.replace(&address, "RELAY").replace(&home, "HOME");
        wrong.extend(self.misspoken(&said.replace(&pin, "PIN")));
        if heard.len() != self.connections {
            wrong.push(format!("{} connections, not {}", heard.len(), self.connections));
        }
        let letters: Vec<&Letter> = heard.iter().flat_map(|dialogue| &dialogue.letters).collect();
        if letters.len() != self.letters {
            wrong.push(format!("{} letters, not {}", letters.len(), self.letters));
        }
        wrong.extend(letters.iter().filter_map(|letter| misframed(letter).err()));
        if let Some(wire) = &self.wire {
            let got = heard.first().map(transaction).unwrap_or_default();
            if got != sorted(wire) {
                wrong.push(format!("on the wire:\n{got}\n  not:\n{wire}"));
            }
        }
        if let (Some(pattern), Some(letter)) = (&self.content, letters.first()) {
            let got = text(&letter.content)?;
            if !matches(pattern, &got) {
                wrong.push(format!("the content is:\n{got}\n  not:\n{pattern}"));
            }
        }
        for also in &self.also {
            wrong.extend(also(&sendmail, &ran, &heard).err());
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.push(format!("it said: {:?}", ran.stderr));
        wrong.push(format!("commands: {:?}", heard.iter().map(|dialogue| &dialogue.commands).collect::<Vec<_>>()));
        Err(wrong.join("\n  "))
    }

    fn misspoken(&self, said: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        match &self.says {
            None if !said.is_empty() => wrong.push("it should have been silent".to_owned()),
            Some(_) if said.is_empty() => wrong.push("it should have said something".to_owned()),
            _ => {}
        }
        let parts = self.says.iter().flatten().filter(|part| !said.contains(*part));
        wrong.extend(parts.map(|part| format!("it should have said {part:?}")));
        let hidden = self.hides.iter().filter(|part| said.contains(*part));
        wrong.extend(hidden.map(|part| format!("it should not have said {part:?}")));
        wrong
    }
}

/// Checks all of them, a few at a time since most of them wait, and tells of all that fail.
pub fn check(cases: impl IntoIterator<Item = Case>) {
    let cases: Vec<Case> = cases.into_iter().collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let flaw = match (case.check(), &case.known) {
                        (Ok(()), None) | (Err(_), Some(_)) => continue,
                        (Err(why), None) => format!("{}:\n  {why}", case.name),
                        (Ok(()), Some(why)) => format!("{} holds by now, although \"{why}\"", case.name),
                    };
                    wrong.lock().unwrap().push(flaw);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The commands from MAIL on, without QUIT; the size that is right as `#`, RCPTs sorted.
fn transaction(dialogue: &Dialogue) -> String {
    let commands = dialogue.commands.iter().skip_while(|command| !command.starts_with("MAIL"));
    let commands = commands.filter(|command| *command != "QUIT");
    let size = dialogue.letters.first().map(|letter| format!("SIZE={}", letter.content.len()));
    let unsized_ = |command: &String| match &size {
        Some(size) => command.replace(size.as_str(), "SIZE=#"),
        None => command.clone(),
    };
    sorted(&commands.map(unsized_).collect::<Vec<_>>().join("\n"))
}

fn sorted(commands: &str) -> String {
    let mut lines: Vec<&str> = commands.lines().map(str::trim).collect();
    for run in lines.chunk_by_mut(|a, b| a.starts_with("RCPT") && b.starts_with("RCPT")) {
        run.sort_unstable();
    }
    lines.join("\n")
}

/// Whether the letter could hurt or mislead a relay.
fn misframed(letter: &Letter) -> Result<(), String> {
    text(&letter.content).map(drop)?;
    if letter.content.contains(&0) {
        return Err("a NUL is in the content".to_owned());
    }
    if let Some(line) = letter.content.split(|&octet| octet == b'\n').find(|line| line.len() > 999) {
        return Err(format!("a line of {} octets is in the content", line.len() + 1));
    }
    let declared = letter.mail.split(' ').find_map(|word| word.strip_prefix("SIZE="));
    match declared {
        Some(size) if size != letter.content.len().to_string() => {
            Err(format!("SIZE={size} was declared for {} octets", letter.content.len()))
        }
        _ => Ok(()),
    }
}

/// The content with LF for CRLF; an error where another line end is in it.
pub fn text(content: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(content).replace("\r\n", "\n");
    if text.contains('\r') || content.split(|&octet| octet == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r")) {
        return Err(format!("bare line ends are in the content: {:?}", String::from_utf8_lossy(content)));
    }
    Ok(text)
}

fn matches(pattern: &str, text: &str) -> bool {
    let line = |(pattern, line): (&str, &str)| match pattern.split_once('*') {
        None => pattern == line,
        Some((head, tail)) => line.len() >= head.len() + tail.len() && line.starts_with(head) && line.ends_with(tail),
    };
    pattern.ends_with('\n') == text.ends_with('\n')
        && pattern.lines().count() == text.lines().count()
        && pattern.lines().zip(text.lines()).all(line)
}
