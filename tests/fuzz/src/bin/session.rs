//! A session of our server with any client: bounded memory, answers that are answers, and a 250 for a letter only where
//! the letter was taken whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::envelope::{Envelope, Recipient};
use pillarbox::smtp::reply::Replies;
use pillarbox::smtp::server::{Answer, Auth, Channel, Guest, Mail, Postmaster, Terms, serve};
use pillarbox_fuzz::{Counted, Pieces, Tape, is_harmless, peak};
use std::io::{self, Read, Write};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

struct Client<'a> {
    sends: Pieces<'a>,
    gets: Vec<u8>,
    tls: bool,
    idle: bool,
}

impl Read for Client<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.sends.read(into) {
            Ok(0) if self.idle => Err(io::ErrorKind::TimedOut.into()),
            read => read,
        }
    }
}

impl Write for Client<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.gets.extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel for Client<'_> {
    fn can_start_tls(&self) -> bool {
        self.tls
    }
    fn start_tls(&mut self) -> io::Result<String> {
        self.tls = false;
        Ok("TLSv1.3 TEST".to_owned())
    }
}

/// Takes what comes, in memory of a fixed size.
struct Desk {
    auth: Auth,
    whole: usize,
    broken: usize,
    /// Stops reading behind the first octets of a letter, and takes it all the same: the rest is the session's to read.
    hasty: bool,
}

impl Postmaster for Desk {
    fn terms(&self) -> Terms {
        let (name, domain) = ("mx.example".to_owned(), "box.example".to_owned());
        Terms { name, domain, size: Some(1000), recipients: 3, mistakes: 20, auth: self.auth }
    }
    fn authenticate(&mut self, user: &str, password: &[u8]) -> Result<(), Answer> {
        if (user, password) == ("u", b"p") { Ok(()) } else { Err(Answer::bad_credentials()) }
    }
    fn sender(&mut self, guest: &Guest, mail: &Mail) -> Result<(), Answer> {
        assert!(self.auth == Auth::Off || guest.user.is_some(), "a stranger may send");
        assert!(is_harmless(&mail.reverse_path.to_string()));
        Ok(())
    }
    fn recipient(&mut self, _: &Guest, _: &Mail, recipient: &Recipient) -> Result<(), Answer> {
        let text = recipient.mailbox.to_string();
        assert!(is_harmless(&text));
        if text.starts_with("no") { Err(Answer::new(550, (1, 1), text)) } else { Ok(()) }
    }
    fn accept(&mut self, _: &Guest, _: &Mail, envelope: &Envelope, content: &mut dyn Read) -> Result<String, Answer> {
        assert!((1..=3).contains(&envelope.recipients().len()));
        let (mut buffer, mut size) = ([0; 64], 0);
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) if self.hasty => break,
                Ok(n) => size += n,
                Err(_) => {
                    assert!(content.read(&mut buffer).is_err(), "an error stays");
                    self.broken += 1;
                    return Err(Answer::new(451, (3, 0), "nobody hears this"));
                }
            }
        }
        assert!(size <= 1000, "{size} octets came");
        self.whole += 1;
        Ok("Ok: COMMITTED".to_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut tape = Tape(data);
    let (piece, flags) = (usize::from(tape.octet()), tape.octet());
    let auth = [Auth::Off, Auth::Off, Auth::InsideTls, Auth::Anywhere][usize::from(flags & 3)];
    let piece = if piece == 0 { usize::MAX } else { piece };
    let gets = Vec::with_capacity(64 * data.len() + 4096);
    let mut client = Client { sends: Pieces(tape.0, piece), gets, tls: flags & 4 != 0, idle: flags & 8 != 0 };
    let mut desk = Desk { auth, whole: 0, broken: 0, hasty: flags & 16 != 0 };
    let room = client.gets.capacity();
    let used = peak(|| drop(serve(&mut client, &mut desk)));
    assert!(used < 128 * 1024 || client.gets.capacity() > room, "{used} octets for {} of input", data.len());

    let mut replies = Replies::default();
    replies.push(&client.gets);
    let (mut taken, mut letters) = (0, 0);
    while let Some(reply) = replies.take().expect("our own client would not take this answer") {
        assert!(reply.lines.iter().all(|line| is_harmless(line)), "{reply}");
        taken += 1;
        letters += usize::from(reply.code == 250 && reply.lines[0].ends_with("COMMITTED"));
    }
    assert!(replies.is_empty() && taken > 0, "an answer is cut short");
    assert!(letters <= desk.whole, "{letters} letters were acknowledged and {} taken", desk.whole);
    assert!(desk.hasty || letters == desk.whole, "a letter that was taken is not acknowledged");
});
