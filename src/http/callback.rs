//! A port of loopback that a browser comes back to with the provider's answer: RFC 8252 §7.3.
//!
//! It is asked for one page and gives one; who asks and what for is judged by whoever opened
//! it. Browsers open connections that they may need and say nothing on them, so that each is
//! read in a thread of its own. A request is a few KiB that come within [`PATIENCE`]; of
//! connections there are no more than [`MOST`]. Nothing of a request is kept but its target.

use nix::poll::{PollFd, PollFlags, poll};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The longest head of a request.
const MOST_HEAD: usize = 16 * 1024;

/// How long a request may take, and a connection without one be held.
const PATIENCE: Duration = Duration::from_mins(1);

/// More connections than any browser opens for one page.
const MOST: usize = 100;

/// How soon it is noticed that a request has come, in milliseconds.
const BREATH: u16 = 50;

/// What the browser is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// 200, 400 or 404.
    pub status: u16,
    /// One sentence, without markup.
    pub text: &'static str,
}

/// The port.
pub struct Callback {
    listener: TcpListener,
    /// Where it listens.
    pub port: u16,
}

type Asked = (TcpStream, Zeroizing<String>);

impl Callback {
    /// Opens a free port.
    pub fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Shows each request's target to `judge` and gives the browser its page, until `judge` has found what it was
    /// waiting for. `None` where that has not come by `until`.
    pub fn wait<T>(&self, until: Instant, judge: &mut dyn FnMut(&str) -> (Page, Option<T>)) -> io::Result<Option<T>> {
        let (tell, told): (Sender<Asked>, Receiver<Asked>) = channel();
        let mut connections = 0;
        while Instant::now() < until {
            let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            // An error is EINTR at most: a wait cut short.
            let _ = poll(&mut waiting, BREATH);
            if connections < MOST
                && let Ok((stream, _)) = self.listener.accept()
            {
                connections += 1;
                let tell = tell.clone();
                thread::Builder::new().name("callback".to_owned()).spawn(move || {
                    if let Ok(target) = target(&stream) {
                        // Nobody may be left to be told.
                        let _ = tell.send((stream, target));
                    }
                })?;
            }
            while let Ok((stream, target)) = told.try_recv() {
                let (page, found) = judge(&target);
                // A browser that has gone has no use for a page.
                let _ = answer(stream, page);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }
}

/// Reads a request's head: `GET /target HTTP/1.1`.
fn target(mut stream: &TcpStream) -> io::Result<Zeroizing<String>> {
    stream.set_nonblocking(false)?;
    let until = Instant::now() + PATIENCE;
    let mut head = Zeroizing::new(vec![0; MOST_HEAD]);
    let mut filled = 0;
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    while memchr::memmem::find(&head[..filled], b"\r\n\r\n").is_none() {
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut head[filled..])? {
            0 => return Err(bad("no whole request")),
            read => filled += read,
        }
    }
    let line = head.split(|&octet| octet == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| bad("no request"))?;
    match *line.split(' ').collect::<Vec<_>>() {
        ["GET", target, version] if version.starts_with("HTTP/1.") => Ok(Zeroizing::new(target.to_owned())),
        _ => Err(bad("no request for a page")),
    }
}

fn answer(mut stream: TcpStream, page: Page) -> io::Result<()> {
    let reason = if page.status == 200 { "OK" } else { "No" };
    let body = format!("<!DOCTYPE html><meta charset=utf-8><title>Pillarbox</title><p>{}</p>\n", page.text);
    let text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}",
        page.status,
        body.len()
    );
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(port: u16, octets: &[u8]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(octets).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn the_answer_is_found_among_other_requests_and_silent_connections() {
        let callback = Callback::open().unwrap();
        let port = callback.port;
        let silent = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let browser = thread::spawn(move || {
            let icon = visit(port, b"GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n");
            let form = visit(port, b"POST /?code=1 HTTP/1.1\r\n\r\n");
            let long = visit(port, &[b"GET /".to_vec(), vec![b'x'; MOST_HEAD]].concat());
            let code = visit(port, b"GET /?code=1 HTTP/1.1\r\nHost: x\r\n\r\n");
            (icon, form, long, code)
        });
        let found = callback.wait(Instant::now() + Duration::from_mins(1), &mut |target| match target {
            "/?code=1" => (Page { status: 200, text: "Thank you." }, Some(target.to_owned())),
            _ => (Page { status: 404, text: "There is nothing here." }, None),
        });
        assert_eq!(found.unwrap().as_deref(), Some("/?code=1"));
        let (icon, form, long, code) = browser.join().unwrap();
        assert!(icon.starts_with("HTTP/1.1 404 "), "{icon}");
        assert_eq!((form.as_str(), long.as_str()), ("", ""));
        assert!(code.starts_with("HTTP/1.1 200 ") && code.contains("<p>Thank you.</p>"), "{code}");
        drop(silent);
    }

    #[test]
    fn nobody_is_waited_for_beyond_the_limit() {
        let callback = Callback::open().unwrap();
        let found = callback.wait::<()>(Instant::now(), &mut |_| panic!("nobody has come"));
        assert!(found.unwrap().is_none());
    }
}
