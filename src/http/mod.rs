//! One form posted over HTTP/1.1, and the answer to it: what OAuth asks of the wire, and nothing more.
//!
//! The connection, its TLS and its limits are those of `smtp`: one instant bounds everything, from the name's look-up
//! to the last octet of a dripping answer. The certificate is verified against the platform's roots, a `ca_file` or a
//! pin; without TLS the other end must be on this machine. A redirect is an answer like any other (a refresh token is
//! not carried to whoever is named in it), and so is every status; a body of more than [`MOST_BODY`] or a head of more
//! than [`MOST_HEAD`] is an error. No proxy, no compression, no connection kept.
//!
//! Our own 200 lines, since all they need is here. The library that lost, ureq 3 without default features on the same
//! rustls, adds seven crates to 105, turns rustls's logging on for the whole program, and wants to be told anew whom to
//! trust and why not: its certificate errors are not our sentences.
//! RFC 9110, RFC 9112. The other direction, a browser that comes to us, is [`callback`].

pub mod callback;

use crate::config::{Account, Host, OAuth, Tls};
use crate::secret::{Answer, Post};
use crate::smtp::Limits;
use crate::smtp::connect::connect;
use crate::smtp::interrupt::Interrupt;
use crate::smtp::stream::Stream;
use crate::smtp::tls::{Trust, sentence_of};
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;
use zeroize::Zeroizing;

/// The longest status line and header fields.
const MOST_HEAD: usize = 16 * 1024;

/// The longest body. Tokens of a few KiB are known.
const MOST_BODY: usize = 64 * 1024;

/// Posts a form and gives the answer. The error reads on after the endpoint's name.
pub fn post(post: &Post<'_>) -> Result<Answer, String> {
    let OAuth { token_url: url, ca_file, pins, .. } = post.oauth;
    let host = Host::Tcp { name: url.host.clone(), port: url.port };
    let limits = Limits { step: post.until.saturating_duration_since(Instant::now()), total: post.until };
    // A relay's account knows more, about trust above all, than is asked for here.
    let account = Account { ca_file: ca_file.clone(), pins: pins.clone(), ..Account::new("") };
    let connected = connect(&account, &host, 0, &limits, &Interrupt::default());
    let mut stream = connected.map_err(|fault| fault.to_string())?;
    match url.tls {
        Tls::Off if !stream.is_local() => return Err("is not on this machine, and has no TLS".to_owned()),
        Tls::Off => {}
        Tls::Implicit | Tls::StartTls | Tls::Opportunistic => {
            let trusted = Trust::of(&account).and_then(|trust| trust.peer(&account, &host));
            let peer = trusted.map_err(|why| format!("cannot be verified: {why}"))?;
            stream.start_tls(peer.config, peer.name, post.until).map_err(|error| words(&error))?;
        }
    }
    let mut heard = Heard { octets: Zeroizing::new(vec![0; MOST_HEAD + MOST_BODY]), filled: 0 };
    let answered = exchange(&mut stream, &request(post), &mut heard, post.until);
    answered.map_err(|error| words(&error))?.map_err(|why| format!("answered with something that is no HTTP: {why}"))
}

fn words(error: &io::Error) -> String {
    sentence_of(error).unwrap_or_else(|| match error.kind() {
        io::ErrorKind::TimedOut => "did not answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed the connection without an answer".to_owned(),
        _ => format!("broke the connection: {}", crate::outcome::words(error)),
    })
}

fn request(post: &Post<'_>) -> Zeroizing<Vec<u8>> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pillarbox/{}\r\nAccept: application/json\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        post.oauth.token_url.target,
        post.oauth.token_url.authority(),
        env!("CARGO_PKG_VERSION"),
        post.form.len()
    );
    let mut request = Zeroizing::new(Vec::with_capacity(head.len() + post.form.len()));
    request.extend_from_slice(head.as_bytes());
    request.extend_from_slice(post.form);
    request
}

/// What has come so far, in memory that does not grow: it holds tokens.
struct Heard {
    octets: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Heard {
    fn so_far(&self) -> &[u8] {
        &self.octets[..self.filled]
    }

    /// Room for more; none is an error.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        match &mut self.octets[self.filled..] {
            [] => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it answers without an end")),
            room => Ok(room),
        }
    }
}

/// Says it and listens until the answer is whole. What is wrong with the answer stands inside.
fn exchange(
    stream: &mut Stream,
    request: &[u8],
    heard: &mut Heard,
    until: Instant,
) -> io::Result<Result<Answer, &'static str>> {
    let mut early = |octets: &[u8]| match heard.room() {
        Ok(room) if room.len() >= octets.len() => {
            room[..octets.len()].copy_from_slice(octets);
            heard.filled += octets.len();
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(()),
    };
    stream.write_all(request, until, &mut early)?;
    loop {
        match parse(heard.so_far(), false) {
            Ok(Some(answer)) => return Ok(Ok(answer)),
            Ok(None) => {}
            Err(why) => return Ok(Err(why)),
        }
        match stream.read(heard.room()?, until) {
            Ok(read) => heard.filled += read,
            // An answer of no announced length ends so. One that was cut off is noticed by whoever reads the JSON.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && heard.filled > 0 => {
                return Ok(parse(heard.so_far(), true).and_then(|answer| answer.ok_or("it ends too early")));
            }
            Err(error) => return Err(error),
        }
    }
}

/// An answer, where it is whole.
fn parse(octets: &[u8], is_all: bool) -> Result<Option<Answer>, &'static str> {
    let mut rest = octets;
    // Thousands of answers that are not the last one (1xx) fit into what we read: a loop, and no recursion.
    let (status, head) = loop {
        let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
            return if rest.len() > MOST_HEAD { Err("its head is too long") } else { Ok(None) };
        };
        let head = String::from_utf8_lossy(&rest[..end]);
        rest = &rest[end + 4..];
        let status = status(head.split("\r\n").next().unwrap_or_default()).ok_or("its first line is no status")?;
        if status / 100 != 1 {
            break (status, head);
        }
    };
    let lines = head.split("\r\n").skip(1);
    let field = |wanted: &str| {
        let fields = lines.clone().filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).last()
    };
    let body = if let Some(coding) = field("Transfer-Encoding") {
        if !coding.eq_ignore_ascii_case("chunked") {
            return Err("it has a coding that was not asked for");
        }
        chunks(rest)?
    } else if let Some(length) = field("Content-Length") {
        let length: usize = length.parse().map_err(|_| "its length is no number")?;
        if length > MOST_BODY {
            return Err("it is too long");
        }
        rest.get(..length).map(|body| Zeroizing::new(body.to_vec()))
    } else {
        is_all.then(|| Zeroizing::new(rest.to_vec()))
    };
    let location = field("Location").map(str::to_owned);
    Ok(body.map(|body| Answer { status, location, body }))
}

/// `HTTP/1.1 200 OK`
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let code = rest.get(..3).filter(|code| code.bytes().all(|octet| octet.is_ascii_digit()))?;
    version.starts_with("HTTP/1.").then(|| code.parse().ok()).flatten()
}

/// The chunks of a body (RFC 9112 §7.1), where they are all there. What trails them is not looked at.
fn chunks(mut rest: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, &'static str> {
    let mut body = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return Ok(None) };
        let size = rest[..end].split(|&octet| octet == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(size).ok().filter(|size| size.bytes().all(|octet| octet.is_ascii_hexdigit()));
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or("a chunk's size is no number")?;
        if size == 0 {
            return Ok(Some(body));
        }
        if body.len() + size.min(MOST_BODY + 1) > MOST_BODY {
            return Err("it is too long");
        }
        rest = &rest[end + 2..];
        let (Some(chunk), Some(behind)) = (rest.get(..size), rest.get(size..size + 2)) else { return Ok(None) };
        if behind != b"\r\n" {
            return Err("a chunk is longer than it says");
        }
        body.extend_from_slice(chunk);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `200 body`, `-` where more is needed, or what is wrong.
    fn told(octets: &str, is_all: bool) -> String {
        match parse(octets.as_bytes(), is_all) {
            Ok(Some(answer)) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Ok(None) => "-".to_owned(),
            Err(why) => why.to_owned(),
        }
    }

    #[test]
    fn an_answer_ends_where_it_says() {
        for (octets, open, ended) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "200 {}", "200 {}"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}more", "200 {}", "200 {}"),
            ("HTTP/1.1 200\r\ncontent-length:2\r\n\r\n{", "-", "-"),
            ("HTTP/1.0 400 Bad\r\n\r\n{}", "-", "400 {}"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 ", "200 "),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "200 x", "200 x"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "-", "-"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n",
                "200 abc0123456789",
                "200 abc0123456789",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "-", "-"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "-", "-"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
                "a chunk is longer than it says",
                "a chunk is longer than it says",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\n",
                "a chunk's size is no number",
                "a chunk's size is no number",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                "it is too long",
                "it is too long",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "it has a coding that was not asked for",
                "it has a coding that was not asked for",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", "it is too long", "it is too long"),
            ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "its length is no number", "its length is no number"),
            ("220 relay ESMTP\r\n\r\n", "its first line is no status", "its first line is no status"),
            ("HTTP/1.1 2x0 OK\r\n\r\n", "its first line is no status", "its first line is no status"),
            ("HTTP/2 200\r\n\r\n", "its first line is no status", "its first line is no status"),
        ] {
            assert_eq!((told(octets, false).as_str(), told(octets, true).as_str()), (open, ended), "{octets}");
        }
        assert_eq!(told(&"x".repeat(MOST_HEAD + 1), false), "its head is too long");
    }

    #[test]
    fn any_number_of_answers_before_the_last_one_needs_no_more_stack_than_one() {
        let many = "HTTP/1.1 100 \r\n\r\n".repeat((MOST_HEAD + MOST_BODY) / 17);
        let told = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || told(&many, false)).unwrap();
        assert_eq!(told.join().unwrap(), "-");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_or_none(
            octets in prop::collection::vec(any::<u8>(), 0..200), head in 0..3_usize,
        ) {
            let heads: [&[u8]; 3] =
                [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"];
            let all = [heads[head], &octets].concat();
            for is_all in [false, true] {
                let _ = parse(&all, is_all);
            }
        }
    }
}
