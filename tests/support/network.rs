//! A network of the test's own: loopback and nothing else, where every address and every port is free, and a
//! resolv.conf(5) that leads to it. The thread that asks for it lives in network and mount namespaces of its own from
//! then on, and so do the threads and the programs that it starts.

use super::peer::run;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

/// Runs a test in a network of its own, in which this machine has these addresses besides loopback's.
pub fn apart(addresses: &[&str], test: impl FnOnce() + Send) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::scope(|scope| {
        let inside = move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let resolv = dir.path().join("resolv.conf");
            fs::write(&resolv, "nameserver 127.0.0.1\n").unwrap();
            mount(Some(&resolv), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).unwrap();
            ip("link set lo up");
            for address in addresses {
                ip(&format!("address add {address} dev lo"));
            }
            test();
        };
        let running = thread::Builder::new().name(name).spawn_scoped(scope, inside).unwrap();
        if let Err(panic) = running.join() {
            resume_unwind(panic);
        }
    });
}

/// A port that swallows packets: whoever listens there takes no more
/// connections, and the kernel drops what comes beyond its queue.
pub struct BlackHole(#[expect(dead_code, reason = "it is held open")] Vec<Socket>);

impl BlackHole {
    /// At that address.
    pub fn at(address: SocketAddr) -> Self {
        let socket = || Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let connecting = |_| {
            let socket = socket();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&address.into()));
            socket
        };
        Self((0..4).map(connecting).chain([listener]).collect())
    }
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}
