//! The session: which command may come when, and what it is answered.
//!
//! A transaction is MAIL, at least one RCPT that was taken, and a letter; RSET, HELO, EHLO, STARTTLS and the letter's
//! end end it. What a client was told before TLS, and what it said, is forgotten with the handshake (RFC 3207 §4.2).
//! RFC 5321 §4.1.4 (the order of commands), RFC 4954 (AUTH), RFC 2920 §3.2 (what a pipelining client expects).

use super::command::{self, Chunk, Command};
use super::content::{Broken, Content, Dots, Framing};
use super::dialogue::Dialogue;
use super::{Answer, Auth, Channel, End, Guest, Mail, Postmaster, Terms};
use crate::envelope::{Envelope, Recipient};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::fmt::Write;
use zeroize::Zeroizing;

/// Holds one session, from the greeting to the good-bye.
pub fn serve(channel: &mut dyn Channel, postmaster: &mut dyn Postmaster) -> End {
    let terms = postmaster.terms();
    let dialogue = Dialogue::new(channel, terms.domain.clone(), terms.mistakes);
    let mut session = Session { dialogue, postmaster, terms, guest: Guest::default(), open: None };
    let greeting = format!("{} ESMTP Pillarbox", session.terms.name);
    session.dialogue.say(&Answer::bare(220, greeting));
    let mut next = None;
    loop {
        let command = next.take().map_or_else(|| session.dialogue.command(), Ok);
        match command.and_then(|command| session.obey(command)) {
            Ok(given_up_for) => next = given_up_for,
            Err(end) => {
                // The client may be gone; then nobody misses the last answers.
                let _ = session.dialogue.flush();
                return end;
            }
        }
    }
}

struct Session<'s> {
    dialogue: Dialogue<'s>,
    postmaster: &'s mut dyn Postmaster,
    terms: Terms,
    guest: Guest,
    open: Option<Open>,
}

/// A transaction that has begun.
struct Open {
    mail: Mail,
    recipients: Vec<Recipient>,
    /// Whether a RCPT came, taken or not.
    asked: bool,
}

/// Why AUTH proved nothing.
enum NoUser {
    Refused(Answer),
    End(End),
}

impl From<Answer> for NoUser {
    fn from(answer: Answer) -> Self {
        Self::Refused(answer)
    }
}

impl From<End> for NoUser {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl Session<'_> {
    /// Does what a command asks. Gives the command that cut a letter short, where one did: it is the next.
    fn obey(&mut self, command: Command) -> Result<Option<Command>, End> {
        match command {
            Command::Helo(name) => {
                self.hello(name, false);
                self.say(&Answer::bare(250, self.terms.name.clone()));
            }
            Command::Ehlo(name) => {
                self.hello(name, true);
                let offers = self.offers();
                self.say(&Answer::bare(250, offers));
            }
            Command::StartTls => self.start_tls()?,
            Command::Auth(mechanism, initial) => self.auth(&mechanism, initial)?,
            Command::Mail(mail) => self.mail(*mail)?,
            Command::Rcpt(recipient) => self.rcpt(*recipient),
            Command::Data => return self.data(),
            Command::Bdat(chunk) => return self.bdat(chunk),
            Command::Rset => {
                self.open = None;
                self.say(&Answer::new(250, (0, 0), "Ok"));
            }
            Command::Quit => {
                self.say(&Answer::new(221, (0, 0), "good-bye"));
                return Err(End::Quit);
            }
            Command::Foreign(verb, words) => self.foreign(&verb, &words)?,
            // The dialogue has answered these.
            Command::Noop | Command::Vrfy | Command::Expn | Command::Help => {}
        }
        Ok(None)
    }

    fn say(&mut self, answer: &Answer) {
        self.dialogue.say(answer);
    }

    /// An answer that a command got for coming at the wrong time.
    fn out_of_turn(&mut self, text: &'static str) -> Result<(), End> {
        self.dialogue.complain(&Answer::new(503, (5, 1), text))
    }

    fn hello(&mut self, name: String, extended: bool) {
        self.open = None;
        self.guest.helo = Some(name);
        self.guest.extended = extended;
        self.dialogue.extended = extended;
    }

    /// The lines of EHLO's answer.
    fn offers(&mut self) -> String {
        let mut lines = format!("{}\nPIPELINING\nSIZE", self.terms.name);
        if let Some(size) = self.terms.size {
            // Writing to a string cannot fail.
            let _ = write!(lines, " {size}");
        }
        lines.push_str("\n8BITMIME\nSMTPUTF8\nDSN\nCHUNKING\nENHANCEDSTATUSCODES");
        if self.dialogue.channel().can_start_tls() {
            lines.push_str("\nSTARTTLS");
        }
        if self.may_authenticate() {
            lines.push_str("\nAUTH PLAIN LOGIN");
        }
        for verb in self.postmaster.verbs() {
            let _ = write!(lines, "\n{verb}");
        }
        lines.push_str("\nHELP");
        lines
    }

    /// A verb of the postmaster's own, or nobody's.
    fn foreign(&mut self, verb: &str, words: &str) -> Result<(), End> {
        if !self.postmaster.verbs().contains(&verb) {
            return self.dialogue.complain(&command::no_such_command());
        }
        let (dialogue, mut told) = (&mut self.dialogue, Ok(()));
        let answer = self.postmaster.obey(&self.guest, verb, words, &mut |line| {
            if told.is_ok() {
                told = dialogue.say_more(250, line);
            }
        });
        told?;
        self.say(&answer);
        Ok(())
    }

    fn may_authenticate(&self) -> bool {
        match self.terms.auth {
            Auth::Off => false,
            Auth::InsideTls => self.guest.tls.is_some(),
            #[cfg(any(test, fuzzing))]
            Auth::Anywhere => true,
        }
    }

    fn start_tls(&mut self) -> Result<(), End> {
        if self.guest.tls.is_some() {
            return self.out_of_turn("TLS is on already");
        }
        if !self.dialogue.channel().can_start_tls() {
            return self.dialogue.complain(&Answer::new(502, (5, 1), "there is no TLS here"));
        }
        if !self.dialogue.is_quiet() {
            // Kept, it would be read as if it had come inside TLS.
            self.say(&Answer::new(554, (5, 1), "nothing may be sent behind STARTTLS before the handshake"));
            return Err(End::Closed("plaintext behind STARTTLS"));
        }
        self.say(&Answer::new(220, (0, 0), "go ahead"));
        self.dialogue.flush()?;
        let encryption = self.dialogue.channel().start_tls().map_err(End::Failed)?;
        self.guest = Guest { tls: Some(encryption), ..Guest::default() };
        self.dialogue.extended = false;
        self.open = None;
        Ok(())
    }

    fn auth(&mut self, mechanism: &str, initial: Option<Zeroizing<String>>) -> Result<(), End> {
        if self.terms.auth == Auth::Off {
            return self.out_of_turn("there is no AUTH here");
        }
        if !self.may_authenticate() {
            return self.dialogue.complain(&Answer::new(538, (7, 11), "first STARTTLS"));
        }
        if self.guest.user.is_some() || self.open.is_some() {
            return self.out_of_turn("it is too late for AUTH");
        }
        let judged = match mechanism {
            "PLAIN" => self.plain(initial),
            "LOGIN" => self.login(initial),
            _ => Err(Answer::new(504, (5, 4), "there is AUTH PLAIN and AUTH LOGIN").into()),
        };
        match judged {
            Ok(user) => {
                self.guest.user = Some(user);
                self.dialogue.forgive();
                self.say(&Answer::new(235, (7, 0), "welcome"));
                Ok(())
            }
            Err(NoUser::Refused(answer)) => self.dialogue.complain(&answer),
            Err(NoUser::End(end)) => Err(end),
        }
    }

    /// RFC 4616: authorization identity, NUL, user, NUL, password.
    fn plain(&mut self, initial: Option<Zeroizing<String>>) -> Result<String, NoUser> {
        let octets = self.response(initial, "")?;
        let mut parts = octets.split(|octet| *octet == 0);
        let (Some(other), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Answer::new(501, (5, 2), "this is not what PLAIN says").into());
        };
        if !other.is_empty() && other != user {
            return Err(Answer::new(535, (7, 8), "nobody may act for another here").into());
        }
        self.authenticate(user, password)
    }

    fn login(&mut self, initial: Option<Zeroizing<String>>) -> Result<String, NoUser> {
        let user = self.response(initial, "Username:")?;
        let password = self.response(None, "Password:")?;
        self.authenticate(&user, &password)
    }

    fn authenticate(&mut self, user: &[u8], password: &[u8]) -> Result<String, NoUser> {
        let user = std::str::from_utf8(user).map_err(|_| Answer::bad_credentials())?;
        self.postmaster.authenticate(user, password)?;
        Ok(user.to_owned())
    }

    /// The client's initial response, or else its answer to a challenge.
    fn response(&mut self, initial: Option<Zeroizing<String>>, challenge: &str) -> Result<Zeroizing<Vec<u8>>, NoUser> {
        let text = if let Some(text) = initial {
            Zeroizing::new(text.as_bytes().to_vec())
        } else {
            self.say(&Answer::bare(334, BASE64_STANDARD.encode(challenge)));
            self.dialogue.line()?.ok_or_else(|| Answer::new(500, (5, 6), "this line is too long"))?
        };
        if *text == b"*" {
            return Err(Answer::new(501, (7, 0), "as you like").into());
        }
        let octets = BASE64_STANDARD.decode(&*text).map(Zeroizing::new);
        Ok(octets.map_err(|_| Answer::new(501, (5, 2), "this is not base64"))?)
    }

    fn mail(&mut self, mail: Mail) -> Result<(), End> {
        if self.terms.auth != Auth::Off && self.guest.user.is_none() {
            let text = if self.may_authenticate() { "first AUTH" } else { "first STARTTLS, then AUTH" };
            return self.dialogue.complain(&Answer::new(530, (7, 0), text));
        }
        if self.open.is_some() {
            return self.out_of_turn("a letter has been begun: RCPT, DATA, BDAT or RSET");
        }
        if mail.size.zip(self.terms.size).is_some_and(|(size, limit)| size > limit) {
            self.say(&Answer::new(552, (3, 4), "the letter is too large"));
            return Ok(());
        }
        match self.postmaster.sender(&self.guest, &mail) {
            Ok(()) => {
                self.open = Some(Open { mail, recipients: Vec::new(), asked: false });
                self.say(&Answer::new(250, (1, 0), "Ok"));
            }
            Err(refusal) => self.say(&refusal),
        }
        Ok(())
    }

    fn rcpt(&mut self, recipient: Recipient) {
        let Some(open) = &mut self.open else {
            // Not a mistake: a pipelining client had not heard yet that its MAIL was refused.
            return self.say(&Answer::new(503, (5, 1), "first MAIL"));
        };
        open.asked = true;
        if open.recipients.len() >= self.terms.recipients {
            return self.say(&Answer::new(452, (5, 3), "too many recipients for one letter"));
        }
        match self.postmaster.recipient(&self.guest, &open.mail, &recipient) {
            Ok(()) => {
                open.recipients.push(recipient);
                self.say(&Answer::new(250, (1, 5), "Ok"));
            }
            Err(refusal) => self.say(&refusal),
        }
    }

    fn data(&mut self) -> Result<Option<Command>, End> {
        let (mail, envelope) = match self.addressed() {
            Ok(addressed) => addressed,
            Err(answer) => {
                self.say(&answer);
                return Ok(None);
            }
        };
        self.say(&Answer::bare(354, "the letter, then a lone dot"));
        let dots = Dots::new(self.dialogue.bare_lf);
        self.receive(&mail, &envelope, Framing::Dot(dots))
    }

    fn bdat(&mut self, chunk: Chunk) -> Result<Option<Command>, End> {
        match self.addressed() {
            Ok((mail, envelope)) => self.receive(&mail, &envelope, Framing::chunks(chunk)),
            Err(answer) => {
                // What comes behind it would be a letter without its beginning (RFC 3030 §2).
                self.open = None;
                // Its octets are on their way whatever is said; a zero chunk has none.
                let content = Content::new(&mut self.dialogue, Framing::chunks(chunk), None);
                let verdict = content.conclude(Err(answer));
                self.tell(verdict)
            }
        }
    }

    /// Ends the gathering of the envelope, where it can be ended. It is no mistake where it cannot: a pipelining client
    /// had not heard yet what was refused.
    fn addressed(&mut self) -> Result<(Mail, Envelope), Answer> {
        let Some(open) = &mut self.open else { return Err(Answer::new(503, (5, 1), "first MAIL and RCPT")) };
        let asked = open.asked;
        let recipients = std::mem::take(&mut open.recipients);
        let Some(mut envelope) = Envelope::new(open.mail.reverse_path.clone(), recipients) else {
            return Err(if asked {
                Answer::new(554, (5, 1), "no recipient was taken")
            } else {
                Answer::new(503, (5, 1), "first RCPT")
            });
        };
        (envelope.ret, envelope.envid) = (open.mail.ret, open.mail.envid.clone());
        let mail = std::mem::take(&mut open.mail);
        self.open = None;
        Ok((mail, envelope))
    }

    /// Lets the postmaster read the letter, and says what has become of it.
    fn receive(&mut self, mail: &Mail, envelope: &Envelope, framing: Framing) -> Result<Option<Command>, End> {
        let mut content = Content::new(&mut self.dialogue, framing, self.terms.size);
        let verdict = self.postmaster.accept(&self.guest, mail, envelope, &mut content);
        let verdict = content.conclude(verdict);
        self.tell(verdict)
    }

    /// Says what has become of a letter. Gives the command that cut it short, where one did.
    fn tell(&mut self, verdict: Result<Result<String, Answer>, Broken>) -> Result<Option<Command>, End> {
        match verdict {
            Ok(Ok(text)) => {
                self.dialogue.forgive();
                self.say(&Answer::new(250, (0, 0), text));
                Ok(None)
            }
            Ok(Err(refusal)) => {
                self.say(&refusal);
                Ok(None)
            }
            Err(Broken::GivenUp(command)) => Ok(Some(command)),
            Err(Broken::Session(end)) => Err(end),
        }
    }
}
