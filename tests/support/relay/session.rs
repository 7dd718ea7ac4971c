//! One connection, as the relay that plays a script holds it.
//!
//! Answers to pipelined commands travel together. A client that says nothing for [`PATIENCE`] is hung up on.

use super::script::{Act, CONTENT, DOT, GREETING, HANDSHAKE, Script, Segments, Tls};
use super::{Dialogue, House, Letter, PATIENCE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ServerConnection;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// A socket that counts the client's flights.
struct Wire {
    socket: TcpStream,
    flights: usize,
    has_answered: bool,
    segments: Segments,
    /// Octets that it may still put on the wire, and take from it.
    speech: Option<usize>,
    hearing: Option<usize>,
}

impl Read for Wire {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let limit = self.hearing.unwrap_or(octets.len()).min(octets.len());
        let read = self.socket.read(&mut octets[..limit])?;
        self.hearing = self.hearing.map(|left| left - read);
        if read > 0 && std::mem::take(&mut self.has_answered) {
            self.flights += 1;
        }
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.has_answered = true;
        let limit = self.speech.unwrap_or(octets.len()).min(octets.len());
        if limit == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.socket.write(&octets[..limit])?;
        self.speech = self.speech.map(|left| left - written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The server's side of one connection.
pub(super) struct Server<'a> {
    house: &'a House,
    wire: Wire,
    tls: Option<ServerConnection>,
    /// Come and not yet looked at.
    input: Vec<u8>,
    /// To be said before the next wait.
    output: Vec<u8>,
    dialogue: Dialogue,
}

/// The conversation is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl<'a> Server<'a> {
    pub(super) fn new(house: &'a House, socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let (segments, speech, hearing) = {
            let script = house.script.lock().unwrap();
            (script.segments, script.mute_after, script.deaf_after)
        };
        let wire = Wire { socket, flights: 0, has_answered: true, segments, speech, hearing };
        Self { house, wire, tls: None, input: Vec::new(), output: Vec::new(), dialogue: Dialogue::default() }
    }

    pub(super) fn serve(mut self) -> Dialogue {
        let _over = self.converse();
        let _ = self.flush();
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.wire);
        }
        self.dialogue.flights = self.wire.flights;
        self.dialogue
    }

    fn converse(&mut self) -> Result<(), Over> {
        // The client has not spoken, and nothing of it is counted.
        self.wire.has_answered = false;
        if self.script(|script| script.tls) == Tls::Implicit {
            self.wire.has_answered = true;
            self.handshake()?;
        }
        self.say(GREETING, "220 relay.example ESMTP")?;
        let (mut is_known, mut mail, mut recipients) = (self.script(|script| script.login.is_none()), None, Vec::new());
        loop {
            let command = self.line()?;
            self.dialogue.commands.push(command.clone());
            self.house.live.lock().unwrap().push(command.clone());
            let verb = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    let is_encrypted = self.tls.is_some();
                    let offers = self.script(|script| script.ehlo(is_encrypted));
                    self.say(&command, &offers)?;
                    mail = None;
                }
                "HELO" => {
                    self.say(&command, "250 relay.example")?;
                }
                "STARTTLS" => {
                    if self.say(&command, "220 2.0.0 go ahead")? == 220 {
                        self.flush()?;
                        self.handshake()?;
                    }
                }
                "AUTH" => is_known |= self.auth(&command)?,
                "MAIL" if !is_known => {
                    self.say(&command, "530 5.7.0 log in first")?;
                }
                "MAIL" => {
                    if self.say(&command, "250 2.1.0 sender ok")? == 250 {
                        (mail, recipients) = (Some(command), Vec::new());
                    }
                }
                "RCPT" if mail.is_none() => {
                    self.say(&command, "503 5.5.1 MAIL first")?;
                }
                "RCPT" => {
                    if matches!(self.say(&command, "250 2.1.5 recipient ok")?, 250 | 251) {
                        recipients.push(command);
                    }
                }
                "DATA" => {
                    let default = match (&mail, recipients.len()) {
                        (None, _) => "503 5.5.1 MAIL first",
                        (Some(_), 0) => "554 5.5.1 no valid recipients",
                        _ => "354 go on",
                    };
                    if self.say(&command, default)? == 354 {
                        let content = self.content()?;
                        if self.say(DOT, "250 2.0.0 taken")? == 250 {
                            let mail = mail.clone().unwrap_or_default();
                            self.dialogue.letters.push(Letter { mail, recipients: recipients.clone(), content });
                        }
                        mail = None;
                    }
                }
                "BDAT" => {
                    let size = command.split(' ').nth(1).and_then(|size| size.parse().ok()).unwrap_or_default();
                    let content = self.chunk(size)?;
                    let default =
                        if recipients.is_empty() { "503 5.5.1 no valid recipients" } else { "250 2.0.0 taken" };
                    if self.say(&command, default)? == 250 {
                        let mail = mail.clone().unwrap_or_default();
                        self.dialogue.letters.push(Letter { mail, recipients: recipients.clone(), content });
                    }
                    mail = None;
                }
                "RSET" => {
                    mail = None;
                    self.say(&command, "250 2.0.0 ok")?;
                }
                "NOOP" => {
                    self.say(&command, "250 2.0.0 ok")?;
                }
                "QUIT" => {
                    self.say(&command, "221 2.0.0 bye")?;
                    return Err(Over);
                }
                _ => {
                    self.say(&command, "500 5.5.1 what?")?;
                }
            }
        }
    }

    fn script<T>(&self, ask: impl FnOnce(&mut Script) -> T) -> T {
        ask(&mut self.house.script.lock().unwrap())
    }

    /// Answers as the script has it, or as a good server does; the code that was said last.
    fn say(&mut self, moment: &str, default: &str) -> Result<u16, Over> {
        let is_encrypted = self.tls.is_some();
        let act = self.script(|script| script.act_in(moment, is_encrypted));
        self.perform(act.unwrap_or_else(|| Act::from(default)))
    }

    fn perform(&mut self, act: Act) -> Result<u16, Over> {
        match act {
            Act::Say(text) => {
                self.output.extend_from_slice(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes());
                if self.wire.segments != Segments::Merged {
                    self.flush()?;
                }
                Ok(code(text.lines().last().unwrap_or_default()))
            }
            Act::Raw(octets) => {
                self.output.extend_from_slice(&octets);
                Ok(code(&String::from_utf8_lossy(&octets)))
            }
            Act::Drip(text, pause) => {
                self.flush()?;
                for octet in text.bytes() {
                    self.write(&[octet])?;
                    thread::sleep(pause);
                }
                Ok(code(&text))
            }
            Act::SayAndDrop(text) => {
                self.output.extend_from_slice(format!("{text}\r\n").as_bytes());
                self.flush()?;
                Err(Over)
            }
            Act::Reset => {
                let _ = socket2::SockRef::from(&self.wire.socket).set_linger(Some(Duration::ZERO));
                // Nothing more may be said, or it would be a plain end.
                (self.tls, self.output) = (None, Vec::new());
                Err(Over)
            }
            Act::Stall => {
                self.flush()?;
                while self.read()? > 0 {}
                Err(Over)
            }
            Act::Deaf => {
                self.flush()?;
                let until = Instant::now() + PATIENCE;
                while !self.house.is_closing.load(Ordering::SeqCst) && Instant::now() < until {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(Over)
            }
            Act::Flood(octets) => {
                self.flush()?;
                let rounds = (64 << 20) / octets.len().max(1);
                for _ in 0..rounds {
                    self.write(&octets)?;
                }
                Err(Over)
            }
            Act::Drop | Act::DropAfter(_) => {
                self.flush()?;
                Err(Over)
            }
            Act::Beneath(octets) => {
                self.flush()?;
                self.wire.write_all(&octets)?;
                self.perform(Act::Deaf)
            }
            Act::Behind(octets) => {
                self.flush()?;
                match &mut self.tls {
                    Some(tls) => {
                        tls.send_close_notify();
                        tls.write_tls(&mut self.wire)?;
                        self.wire.write_all(&octets)?;
                    }
                    None => self.wire.socket.shutdown(std::net::Shutdown::Write)?,
                }
                self.perform(Act::Deaf)
            }
            Act::Rekey(times, text) => {
                self.flush()?;
                for _ in 0..times {
                    let Some(tls) = &mut self.tls else { break };
                    let _ = tls.refresh_traffic_keys();
                    tls.write_tls(&mut self.wire)?;
                }
                self.perform(Act::Say(text))
            }
            Act::Converse(answer) => self.perform(Act::Say(answer(&[]))),
        }
    }

    /// The exchange behind an AUTH; whether it has succeeded.
    fn auth(&mut self, command: &str) -> Result<bool, Over> {
        let is_encrypted = self.tls.is_some();
        match self.script(|script| script.act_in(command, is_encrypted)) {
            Some(Act::Converse(answer)) => {
                let mut heard = vec![command.to_owned()];
                loop {
                    let code = self.perform(Act::Say(answer(&heard)))?;
                    if code != 334 {
                        return Ok(code == 235);
                    }
                    heard.push(self.line()?);
                }
            }
            Some(act) => return Ok(self.perform(act)? == 235),
            None => {}
        }
        let mut words = command.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let initial = words.next().map(str::to_owned);
        let (user, password) = match mechanism.as_str() {
            "PLAIN" => {
                let response = match initial {
                    Some(initial) => initial,
                    None => self.challenge("")?,
                };
                let response = BASE64.decode(response).unwrap_or_default();
                let mut parts = response.split(|&octet| octet == 0).skip(1);
                let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                (part(), part())
            }
            "LOGIN" => {
                let user = match initial {
                    Some(initial) => initial,
                    None => self.challenge("VXNlcm5hbWU6")?,
                };
                let password = self.challenge("UGFzc3dvcmQ6")?;
                let text =
                    |word: String| String::from_utf8_lossy(&BASE64.decode(word).unwrap_or_default()).into_owned();
                (text(user), text(password))
            }
            "XOAUTH2" | "OAUTHBEARER" => return self.bearer(&mechanism, initial),
            _ => {
                self.say("AUTH", "504 5.5.4 unknown mechanism")?;
                return Ok(false);
            }
        };
        let is_right = self.script(|script| script.login.clone()) == Some((user.clone(), password.clone()));
        self.dialogue.logins.push((mechanism, user, password));
        self.say("", if is_right { "235 2.7.0 welcome" } else { "535 5.7.8 authentication failed" })?;
        Ok(is_right)
    }

    /// As Google and Microsoft do it: a token that is refused is told why, and the reply comes when that is answered.
    fn bearer(&mut self, mechanism: &str, initial: Option<String>) -> Result<bool, Over> {
        let response = match initial {
            Some(initial) => initial,
            None => self.challenge("")?,
        };
        let response = String::from_utf8_lossy(&BASE64.decode(response).unwrap_or_default()).into_owned();
        let between = |from: &str, to: &str| {
            let rest = response.split_once(from)?.1;
            Some(rest.split_once(to)?.0.to_owned())
        };
        let user = if mechanism == "XOAUTH2" { between("user=", "\x01") } else { between("a=", ",") };
        let (user, token) = (user.unwrap_or_default(), between("auth=Bearer ", "\x01").unwrap_or_default());
        let is_right = self.script(|script| script.login.clone()) == Some((user.clone(), token.clone()));
        self.dialogue.logins.push((mechanism.to_owned(), user, token));
        if !is_right {
            self.challenge(&BASE64.encode(r#"{"status":"401","schemes":"bearer"}"#))?;
        }
        self.say("", if is_right { "235 2.7.0 welcome" } else { "535 5.7.8 token refused" })?;
        Ok(is_right)
    }

    fn challenge(&mut self, text: &str) -> Result<String, Over> {
        self.output.extend_from_slice(format!("334 {text}\r\n").as_bytes());
        self.line()
    }

    /// The content up to its final dot, unstuffed.
    fn content(&mut self) -> Result<Vec<u8>, Over> {
        match self.script(|script| script.act(CONTENT)) {
            Some(Act::DropAfter(limit)) => {
                while self.input.len() < limit && self.read()? > 0 {}
                return Err(Over);
            }
            Some(act) => drop(self.perform(act)?),
            None => {}
        }
        let mut content = Vec::new();
        loop {
            let line = self.raw_line()?;
            match line.strip_prefix(b".") {
                Some(b"\r\n") => return Ok(content),
                Some(rest) => content.extend_from_slice(rest),
                None => content.extend_from_slice(&line),
            }
        }
    }

    /// The octets of a BDAT.
    fn chunk(&mut self, size: usize) -> Result<Vec<u8>, Over> {
        if let Some(Act::DropAfter(limit)) = self.script(|script| script.act(CONTENT)) {
            while self.input.len() < limit && self.read()? > 0 {}
            return Err(Over);
        }
        while self.input.len() < size {
            if self.read()? == 0 {
                return Err(Over);
            }
        }
        let rest = self.input.split_off(size);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    fn line(&mut self) -> Result<String, Over> {
        let line = self.raw_line()?;
        let text = String::from_utf8_lossy(&line);
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// A line with its end.
    fn raw_line(&mut self) -> Result<Vec<u8>, Over> {
        let mut seen = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input[seen..]) {
                let rest = self.input.split_off(seen + end + 1);
                return Ok(std::mem::replace(&mut self.input, rest));
            }
            seen = self.input.len();
            if self.read()? == 0 {
                return Err(Over);
            }
        }
    }

    /// Waits for more from the client; 0 is its end.
    fn read(&mut self) -> Result<usize, Over> {
        self.flush()?;
        let mut octets = [0; 16 * 1024];
        let read = match &mut self.tls {
            None => self.wire.read(&mut octets)?,
            Some(tls) => rustls::Stream::new(tls, &mut self.wire).read(&mut octets)?,
        };
        let heard = if self.tls.is_some() { &mut self.dialogue.encrypted } else { &mut self.dialogue.clear };
        heard.extend_from_slice(&octets[..read]);
        self.input.extend_from_slice(&octets[..read]);
        Ok(read)
    }

    fn flush(&mut self) -> Result<(), Over> {
        let output = std::mem::take(&mut self.output);
        let size = if self.wire.segments == Segments::Octets { 1 } else { output.len().max(1) };
        for part in output.chunks(size) {
            self.write(part)?;
        }
        Ok(())
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Over> {
        match &mut self.tls {
            None => self.wire.write_all(octets)?,
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut self.wire);
                stream.write_all(octets)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    fn handshake(&mut self) -> Result<(), Over> {
        if let Some(act) = self.script(|script| script.act(HANDSHAKE)) {
            let mut hello = [0; 1024];
            let _ = self.wire.read(&mut hello)?;
            self.perform(act)?;
            return self.flush();
        }
        let mut tls = ServerConnection::new(Arc::clone(&self.house.tls)).unwrap();
        // What came in clear behind STARTTLS is dropped, as RFC 3207 demands.
        self.input.clear();
        let done = tls.complete_io(&mut self.wire);
        self.dialogue.sni = tls.server_name().map(str::to_owned);
        done?;
        self.tls = Some(tls);
        Ok(())
    }
}

/// The code at the beginning of a reply; 0 where there is none.
fn code(reply: &str) -> u16 {
    reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default()
}
