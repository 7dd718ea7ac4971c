//! A server for tests: it keeps the rules of SMTP except where its script says otherwise, and remembers all.

use nix::unistd::{Pid, gettid};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A server that keeps the rules of SMTP except where its script says otherwise.
#[derive(Clone, Default)]
pub struct Script {
    /// What EHLO offers.
    pub ehlo: &'static [&'static str],
    /// Command (`.` is the end of the content of DATA) and what is said to it. `MAIL#2` is the second one only.
    /// `!close` at the end hangs up, `!early` says it before the content of a BDAT is read, `!deaf` never reads it.
    pub rules: &'static [(&'static str, &'static str)],
    /// Speaks LMTP: the end of the content is answered for each recipient, and the command for the rules is `.` and the
    /// recipient.
    pub lmtp: bool,
    /// Octets that the answers are cut into.
    pub drip: Option<usize>,
    /// Waits until nothing more can come before it answers, and so counts flights.
    pub patient: bool,
    /// The certificate, where TLS is spoken: from the first octet, or after STARTTLS where EHLO offers that.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What the server has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// The commands, as they came.
    pub commands: Vec<String>,
    /// Recipients and content of the letters that it has taken.
    pub taken: Vec<(Vec<String>, Vec<u8>)>,
    /// A letter that broke off.
    pub broken: Vec<u8>,
    /// How often it had to wait for us, up to the last letter taken.
    pub flights: usize,
}

/// Whether a thread of ours waits for something, in the kernel's word for it.
fn is_asleep(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('S'))
}

/// One that plays to one client.
pub struct Server {
    script: Script,
    stream: Line,
    input: Vec<u8>,
    output: Vec<u8>,
    seen: Seen,
    flights: usize,
    times: Vec<usize>,
    /// The thread that plays the client: the one that has started us.
    client: Pid,
}

impl Server {
    /// Begins to play, on a port of its own.
    pub fn start(script: Script) -> (u16, JoinHandle<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = gettid();
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            let times = vec![0; script.rules.len()];
            let (input, output, seen) = (vec![], vec![], Seen::default());
            let mut server =
                Self { script, stream: Line::Plain(stream), input, output, seen, flights: 0, times, client };
            if !server.script.ehlo.contains(&"STARTTLS") {
                server.start_tls();
            }
            server.say("220 relay ready");
            // The end of the connection is the end of the play, whoever has ended it.
            drop(server.serve());
            server.seen
        };
        (port, thread::spawn(serve))
    }

    fn start_tls(&mut self) {
        let Some(config) = self.script.tls.take() else { return };
        let tls = ServerConnection::new(config).unwrap();
        let Line::Plain(stream) = &self.stream else { unreachable!("TLS is started once") };
        self.stream = Line::Tls(Box::new(StreamOwned::new(tls, stream.try_clone().unwrap())));
        // The ClientHello; its Finished comes with the next command.
        self.flights += 1;
    }

    fn serve(&mut self) -> io::Result<()> {
        let (mut mail, mut recipients) = (false, Vec::new());
        loop {
            let line = self.line()?;
            self.seen.commands.push(line.clone());
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let rule = self.rule(&line);
            let (say, early) = (rule.unwrap_or_default(), rule.is_some_and(|say| say.ends_with("!early")));
            let deaf = rule.is_some_and(|say| say.ends_with("!deaf"));
            let chunk = if verb == "BDAT" && !early && !deaf { self.octets(&line)? } else { Vec::new() };
            let usual = match verb.as_str() {
                "EHLO" if self.script.lmtp => "500 this is LMTP".to_owned(),
                "LHLO" if !self.script.lmtp => "500 unknown".to_owned(),
                "EHLO" | "LHLO" => {
                    let lines: Vec<&str> = ["relay"].iter().chain(self.script.ehlo).copied().collect();
                    let last = lines.len() - 1;
                    let hyphen = |i| if i == last { ' ' } else { '-' };
                    let lines: Vec<String> =
                        lines.iter().enumerate().map(|(i, line)| format!("250{}{line}", hyphen(i))).collect();
                    lines.join("\r\n")
                }
                "MAIL" if mail => "503 nested MAIL".to_owned(),
                "RCPT" if !mail => "503 no MAIL".to_owned(),
                "DATA" | "BDAT" if recipients.is_empty() => "503 no valid recipients".to_owned(),
                "DATA" => "354 go on".to_owned(),
                "BDAT" => format!("250 taken {}", chunk.len()),
                "STARTTLS" => "220 go on".to_owned(),
                "AUTH" => "235 welcome".to_owned(),
                "MAIL" | "RCPT" | "RSET" | "QUIT" => "250 ok".to_owned(),
                _ => "500 unknown".to_owned(),
            };
            let answer = if say.is_empty() { usual } else { say.to_owned() };
            if self.script.lmtp && verb == "BDAT" && answer.starts_with('2') {
                mail = false;
                if self.hand_out(std::mem::take(&mut recipients), chunk) {
                    return self.flush();
                }
                continue;
            }
            let closes = self.say(answer.trim_end_matches("!early").trim_end_matches("!deaf").trim_end());
            let good = answer.starts_with('2');
            match verb.as_str() {
                "MAIL" => mail |= good,
                "RCPT" if good => recipients.push(line[9..].trim_end_matches('>').to_owned()),
                "RSET" if good => (mail, recipients) = (false, vec![]),
                "BDAT" if good => {
                    self.take(std::mem::take(&mut recipients), chunk);
                    mail = false;
                }
                "DATA" if answer.starts_with("354") => {
                    let content = self.dotted()?;
                    if self.script.lmtp {
                        mail = false;
                        if self.hand_out(std::mem::take(&mut recipients), content) {
                            return self.flush();
                        }
                        continue;
                    }
                    let say = self.rule(".").unwrap_or("250 taken");
                    if say.starts_with('2') {
                        self.take(recipients, content);
                    }
                    (mail, recipients) = (false, vec![]);
                    if self.say(say) {
                        return self.flush();
                    }
                }
                "STARTTLS" => {
                    self.flush()?;
                    self.start_tls();
                }
                _ => {}
            }
            if closes || verb == "QUIT" {
                return self.flush();
            }
        }
    }

    /// Answers for each recipient, and takes the letter for those who may have it. Whether it hangs up.
    fn hand_out(&mut self, recipients: Vec<String>, content: Vec<u8>) -> bool {
        let mut takers = Vec::new();
        let mut closes = false;
        for to in recipients {
            let say = self.rule(&format!(".{to}")).unwrap_or("250 taken");
            if say.starts_with('2') {
                takers.push(to);
            }
            closes = self.say(say);
            if closes {
                break;
            }
        }
        if !takers.is_empty() {
            self.take(takers, content);
        }
        closes
    }

    fn take(&mut self, recipients: Vec<String>, content: Vec<u8>) {
        self.seen.taken.push((recipients, content));
        self.seen.flights = self.flights;
    }

    fn rule(&mut self, line: &str) -> Option<&'static str> {
        for (i, (when, say)) in self.script.rules.iter().enumerate() {
            let (command, nth) = when.split_once('#').unwrap_or((when, "0"));
            if line.starts_with(command) {
                self.times[i] += 1;
                if nth == "0" || nth == self.times[i].to_string() {
                    return Some(say);
                }
            }
        }
        None
    }

    fn say(&mut self, text: &str) -> bool {
        let (text, closes) = text.strip_suffix("!close").map_or((text, false), |text| (text.trim_end(), true));
        if !text.is_empty() {
            self.output.extend_from_slice(text.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
        closes
    }

    fn flush(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        for piece in output.chunks(self.script.drip.unwrap_or(usize::MAX)) {
            self.stream.write_all(piece)?;
        }
        self.stream.flush()
    }

    /// Reads more, after it has said what it has to say.
    fn more(&mut self) -> io::Result<()> {
        self.flush()?;
        self.flights += 1;
        let mut octets = [0; 4096];
        let mut silent = 0;
        while silent < 3 {
            match self.stream.read(&mut octets) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.input.extend_from_slice(&octets[..read]);
                    silent = 0;
                }
                // On a busy machine a client says nothing for a while that has not come to an end yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_asleep(self.client) => silent = 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => silent += 1,
                Err(error) => return Err(error),
            }
            if !self.script.patient {
                return Ok(());
            }
            self.stream.socket().set_read_timeout(Some(Duration::from_millis(20)))?;
        }
        self.stream.socket().set_read_timeout(None)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more()?;
        }
    }

    /// The content of a BDAT.
    fn octets(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let size = command.split(' ').nth(1).unwrap().parse().unwrap();
        while self.input.len() < size {
            self.more()?;
        }
        Ok(self.input.drain(..size).collect())
    }

    /// The content of a DATA, without its dots.
    fn dotted(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let line = match self.line() {
                Ok(line) => line,
                Err(error) => {
                    self.seen.broken = [content, std::mem::take(&mut self.input)].concat();
                    return Err(error);
                }
            };
            if line == "." {
                return Ok(content);
            }
            content.extend_from_slice(line.strip_prefix('.').unwrap_or(&line).as_bytes());
            content.extend_from_slice(b"\r\n");
        }
    }
}

/// The server's end of the connection.
enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Line {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Line {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(octets),
            Self::Tls(tls) => tls.write(octets),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A certificate of its own for `localhost`, and the PEM of it.
pub fn certificate() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}
