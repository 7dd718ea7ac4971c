//! What systemd, or whoever speaks its protocol, is told about a service: `sd_notify(3)`, by hand.
//!
//! One datagram to a socket, which has a path or an abstract name. Where nobody wants to know, nothing is said; where
//! it cannot be said, nothing is lost.

use nix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Who is told.
#[derive(Debug, Default)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// By `$NOTIFY_SOCKET`: a path, or an abstract name behind an `@`.
    pub fn to(address: Option<&OsStr>) -> Self {
        let address = address.and_then(|name| match name.as_bytes() {
            [b'@', name @ ..] => abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(name).ok(),
            _ => None,
        });
        Self(address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address))))
    }

    /// Says something: lines of `KEY=value`.
    pub fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.0 {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }

    /// The settings are being read; `READY=1` ends it.
    pub fn reloading(&self) {
        let now =
            clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }
}

#[cfg(target_os = "linux")]
fn abstract_name(name: &[u8]) -> Option<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name).ok()
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_: &[u8]) -> Option<SocketAddr> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_abstract_names_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("pillarbox-test-{}", std::process::id());
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name(name.as_bytes()).unwrap()).unwrap(), format!("@{name}").into()),
        ];
        for (socket, address) in sockets {
            Notify::to(Some(&address)).say("READY=1");
            let mut heard = [0; 64];
            let n = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..n], b"READY=1");
        }
        Notify::to(None).say("READY=1");
        Notify::to(Some(OsStr::new("vsock:2:1"))).say("READY=1");
    }
}
