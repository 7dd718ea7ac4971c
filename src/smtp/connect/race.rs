//! All addresses of a host, tried side by side until the first connects.
//!
//! The families take turns, the one that the resolver prefers first. An attempt that has not ended after 250 ms does
//! not stop the next from being begun, and one that fails has the next begun at once, so that an address that swallows
//! packets costs a quarter of a second and not the connection. Every attempt goes on until the end of the race; the
//! losers are closed. There is no thread to an attempt: the sockets do not block, and one poll(2) waits for all. A
//! single address costs what it would cost without a race. A tripped [`Interrupt`] ends all attempts.
//! RFC 8305 §4 and §5.

use super::super::interrupt::Interrupt;
use super::super::stream::{Stream, wait_for_any};
use nix::poll::PollFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// "Connection Attempt Delay" (RFC 8305 §8).
const STAGGER: Duration = Duration::from_millis(250);

/// Who runs, and how long.
pub(super) struct Race {
    /// In the order of preference.
    pub addresses: Vec<SockAddr>,
    /// Our own address, where it matters; of the family of all the others.
    pub source: Option<IpAddr>,
    /// The end of the race.
    pub until: Instant,
}

/// Nobody has won.
#[derive(Debug)]
pub(super) enum Lost {
    /// What became of each address, in the order of their ends.
    Refused(Vec<(SockAddr, io::Error)>),
    /// We have no such address of our own.
    Source(IpAddr, io::Error),
    /// Somebody called it off.
    Interrupted,
}

impl Race {
    /// Runs the race.
    pub fn run(self, interrupt: &Interrupt) -> Result<Stream, Lost> {
        let Self { addresses, source, until } = self;
        // All have their turn, however little time there is for how many.
        let entrants = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
        let stagger = STAGGER.min(until.saturating_duration_since(Instant::now()) / entrants);
        let mut waiting = interleaved(addresses).into_iter().peekable();
        let mut running: Vec<(SockAddr, Stream)> = Vec::new();
        let mut refusals = Vec::new();
        let mut next = Instant::now();
        loop {
            if (running.is_empty() || next <= Instant::now())
                && let Some(address) = waiting.next()
            {
                match begin(&address, source, interrupt)? {
                    Begun::Connected(stream) => return won(stream),
                    Begun::Running(stream) => {
                        running.push((address, stream));
                        next = Instant::now() + stagger;
                    }
                    Begun::Refused(error) => {
                        refusals.push((address, error));
                        // The next one at once.
                        continue;
                    }
                }
            }
            if running.is_empty() {
                return Err(Lost::Refused(refusals));
            }
            let wake = if waiting.peek().is_some() { next.min(until) } else { until };
            let sockets: Vec<&Socket> = running.iter().map(|(_, stream)| stream.socket()).collect();
            let ready = match wait_for_any(&sockets, PollFlags::POLLOUT, wake) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::TimedOut && wake < until => continue,
                Err(error) => {
                    let timed_out = |(address, _)| (address, io::Error::from(error.kind()));
                    refusals.extend(running.into_iter().map(timed_out));
                    return Err(Lost::Refused(refusals));
                }
            };
            if interrupt.is_tripped() {
                return Err(Lost::Interrupted);
            }
            // From the last, so that those before it keep their places.
            for i in ready.into_iter().rev() {
                let (address, stream) = running.remove(i);
                match stream.socket().take_error().unwrap_or_else(Some) {
                    None => return won(stream),
                    Some(error) => refusals.push((address, error)),
                }
                next = Instant::now();
            }
        }
    }
}

/// What becomes of an attempt at once.
enum Begun {
    Connected(Stream),
    Running(Stream),
    Refused(io::Error),
}

fn begin(address: &SockAddr, source: Option<IpAddr>, interrupt: &Interrupt) -> Result<Begun, Lost> {
    if interrupt.is_tripped() {
        return Err(Lost::Interrupted);
    }
    // Said as it is made: two calls less than afterwards. macOS knows only the latter.
    #[cfg(not(target_os = "macos"))]
    let kind = Type::STREAM.nonblocking();
    #[cfg(target_os = "macos")]
    let kind = Type::STREAM;
    let opened = Socket::new(address.domain(), kind, None).and_then(|socket| {
        #[cfg(target_os = "macos")]
        socket.set_nonblocking(true)?;
        if address.domain() != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    });
    let socket = match opened {
        Ok(socket) => socket,
        // No IPv6 on this machine, for one.
        Err(error) => return Ok(Begun::Refused(error)),
    };
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(|error| Lost::Source(source, error))?;
    }
    Ok(match socket.connect(address) {
        Ok(()) => Begun::Connected(Stream::new(socket, interrupt)),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {
            Begun::Running(Stream::new(socket, interrupt))
        }
        // A UNIX socket whose queue is full says EAGAIN and does not connect later.
        Err(error) => Begun::Refused(error),
    })
}

fn won(stream: Stream) -> Result<Stream, Lost> {
    if stream.is_interrupted() { Err(Lost::Interrupted) } else { Ok(stream) }
}

/// The families in turns, beginning with that of the first address; within a family the order stays.
fn interleaved(addresses: Vec<SockAddr>) -> Vec<SockAddr> {
    let first = addresses.first().map(SockAddr::domain);
    let (ours, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| Some(address.domain()) == first);
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut order = Vec::new();
    loop {
        let before = order.len();
        order.extend(ours.next());
        order.extend(others.next());
        if order.len() == before {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    fn addresses(list: &[&str]) -> Vec<SockAddr> {
        list.iter().map(|text| text.parse::<SocketAddr>().unwrap().into()).collect()
    }

    fn race(addresses: Vec<SockAddr>) -> Race {
        Race { addresses, source: None, until: Instant::now() + Duration::from_secs(20) }
    }

    /// A listening socket that takes no more connections: the kernel drops what comes beyond its queue.
    struct Swallows {
        address: SockAddr,
        _listener: Socket,
        _queue: Vec<Socket>,
    }

    impl Swallows {
        fn new() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let connect = |_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                drop(socket.connect(&address));
                socket
            };
            let queue = (0..4).map(connect).collect();
            Self { address, _listener: listener, _queue: queue }
        }
    }

    fn listening() -> (TcpListener, SockAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        (listener, address)
    }

    fn refusing() -> SockAddr {
        listening().1
    }

    fn port(address: &SockAddr) -> u16 {
        address.as_socket().unwrap().port()
    }

    fn winner(race: Race) -> u16 {
        port(&race.run(&Interrupt::default()).unwrap_or_else(|lost| panic!("{lost:?}")).socket().peer_addr().unwrap())
    }

    #[test]
    fn the_families_take_turns_and_the_first_keeps_its_place() {
        let list = ["[::1]:1", "[::1]:2", "[::1]:3", "1.1.1.1:1", "1.1.1.1:2"];
        let order: Vec<String> =
            interleaved(addresses(&list)).iter().map(|address| address.as_socket().unwrap().to_string()).collect();
        assert_eq!(order, ["[::1]:1", "1.1.1.1:1", "[::1]:2", "1.1.1.1:2", "[::1]:3"]);
        assert!(interleaved(Vec::new()).is_empty());
    }

    /// The race has an hour, and addresses that are tried one after the other share it. The limit of the wait is for
    /// a broken race only.
    #[test]
    fn an_address_that_swallows_packets_does_not_keep_the_others_waiting() {
        let swallows = Swallows::new();
        let (_listener, address) = listening();
        let expected = port(&address);
        let addresses = vec![swallows.address.clone(), swallows.address.clone(), address];
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let until = Instant::now() + Duration::from_hours(1);
            sender.send(winner(Race { addresses, source: None, until }))
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(expected));
    }

    #[test]
    fn an_address_that_refuses_has_the_next_begun_and_all_are_told_of() {
        let (_listener, address) = listening();
        let port = port(&address);
        assert_eq!(winner(race(vec![refusing(), refusing(), address])), port);
        let Err(Lost::Refused(refusals)) = race(vec![refusing(), refusing()]).run(&Interrupt::default()) else {
            panic!("nobody listens")
        };
        assert!(refusals.len() == 2 && refusals.iter().all(|(_, e)| e.kind() == io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_race_without_a_winner_ends() {
        let swallows = Swallows::new();
        let until = Instant::now() + Duration::from_millis(200);
        let addresses = vec![swallows.address.clone(), refusing(), swallows.address.clone()];
        let lost = Race { addresses, source: None, until }.run(&Interrupt::default()).err();
        let Some(Lost::Refused(refusals)) = lost else { panic!("nobody answers") };
        let kinds: Vec<_> = refusals.iter().map(|(_, error)| error.kind()).collect();
        let timed_out = io::ErrorKind::TimedOut;
        assert_eq!(kinds, [io::ErrorKind::ConnectionRefused, timed_out, timed_out], "all have had their turn");
    }

    #[test]
    fn an_interrupt_ends_all_attempts_at_once() {
        let swallows = Swallows::new();
        let interrupt = Interrupt::default();
        let from_outside = interrupt.clone();
        let addresses = vec![swallows.address.clone(); 3];
        let running = std::thread::spawn(move || {
            let until = Instant::now() + Duration::from_hours(1);
            matches!(Race { addresses, source: None, until }.run(&from_outside), Err(Lost::Interrupted))
        });
        std::thread::sleep(Duration::from_millis(50));
        interrupt.trip();
        assert!(running.join().unwrap());
    }

    #[test]
    fn the_losers_are_closed() {
        let (slow, slow_address) = listening();
        let swallows = Swallows::new();
        let stream = race(vec![swallows.address.clone(), slow_address]).run(&Interrupt::default()).ok().unwrap();
        let (peer, _) = slow.accept().unwrap();
        drop(stream);
        let mut octet = [0];
        assert_eq!(std::io::Read::read(&mut &peer, &mut octet).unwrap(), 0);
    }

    #[test]
    fn connections_come_from_where_the_settings_say() {
        let (listener, address) = listening();
        let source: IpAddr = "127.0.0.9".parse().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let stream = Race { addresses: vec![address.clone()], source: Some(source), until }.run(&Interrupt::default());
        assert!(stream.is_ok());
        assert_eq!(listener.accept().unwrap().1.ip(), source);
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let lost = Race { addresses: vec![address], source: Some(source), until }.run(&Interrupt::default());
        assert!(matches!(lost, Err(Lost::Source(..))));
    }
}
