//! Where clients come in: a UNIX socket that everybody may knock at, and loopback TCP.
//!
//! A socket of our own is bound under another name, opened to all (0666) and then renamed to its place: at no instant
//! is it there and closed, and one that a dead service left is replaced. Where one answers already we do not push it
//! aside. Of TCP, nothing is listened at that another machine could reach, whoever made the socket.

use super::visit::{Peer, Stream};
use crate::smtp::connect::knock;
use nix::sys::socket::{getsockopt, sockopt};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a service that is alive may take to let somebody in.
const KNOCK: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub enum Door {
    /// Who comes in is known.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its name, where it is ours to remove.
        path: Option<PathBuf>,
    },
    /// Who comes in is somebody on this machine.
    Tcp(TcpListener),
}

impl Door {
    /// Makes a UNIX socket, and its directory (0755) where that is missing.
    pub fn unix(path: &Path) -> io::Result<Self> {
        if knock(path, KNOCK).map_or_else(|error| error.kind() == io::ErrorKind::TimedOut, |_| true) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another service answers there"));
        }
        let is_other = |found: fs::Metadata| !found.file_type().is_socket();
        if path.symlink_metadata().is_ok_and(is_other) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket has this name"));
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
            DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
            // Whatever the umask: who cannot reach the socket cannot send.
            fs::set_permissions(dir, Permissions::from_mode(0o755))?;
        }
        let mut new = path.to_owned().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o666))?;
        fs::rename(&new, path)?;
        Self::taken(listener, Some(path.to_owned()))
    }

    /// Listens at a loopback address.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Self::tcp_taken(TcpListener::bind(address)?)
    }

    /// A UNIX socket that somebody else has made.
    pub fn taken(listener: UnixListener, path: Option<PathBuf>) -> io::Result<Self> {
        listens(&listener)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix { listener, path })
    }

    /// A TCP socket that somebody else has made.
    pub fn tcp_taken(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().to_canonical().is_loopback() {
            let text =
                format!("{address} can be reached from elsewhere, and this program takes no mail from the network");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        listens(&listener)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// The address, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Unix { listener, path } => {
                let found = listener.local_addr().ok();
                let found = found.as_ref().and_then(|found| found.as_pathname());
                path.as_deref()
                    .or(found)
                    .map_or_else(|| "a nameless socket".to_owned(), |path| path.display().to_string())
            }
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |found| found.to_string())
            }
        }
    }

    /// The next client; `None` where it has gone again.
    pub(super) fn accept(&self) -> io::Result<Option<(Stream, Peer)>> {
        let visitor = match self {
            Self::Unix { listener, .. } => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                let peer = credentials(&stream)?;
                Ok((Stream::Unix(stream), peer))
            }),
            Self::Tcp(listener) => listener.accept().and_then(|(stream, from)| {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Loopback(from)))
            }),
        };
        match visitor {
            Ok(visitor) => Ok(Some(visitor)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// Whether clients can come in: not by a connection that was handed over (`Accept=yes`), nor before listen(2).
fn listens(listener: &impl AsFd) -> io::Result<()> {
    if getsockopt(listener, sockopt::AcceptConn)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"))
}

/// Who opened the connection, by the kernel's word.
#[cfg(target_os = "linux")]
fn credentials(stream: &UnixStream) -> io::Result<Peer> {
    let found = getsockopt(stream, sockopt::PeerCredentials)?;
    Ok(Peer::Local { uid: found.uid(), gid: found.gid() })
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Self::Unix { path: Some(path), .. } = self {
            // Clients then see that there is no service, rather than one that does not answer.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;

    #[test]
    fn everybody_can_knock_a_dead_service_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/pillarbox/submit.sock");
        drop(UnixListener::bind(dir.path().join("dead")).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::rename(dir.path().join("dead"), &path).unwrap();
        let door = Door::unix(&path).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o666);
        let _client = UnixStream::connect(&path).unwrap();
        let (_, peer) = door.accept().unwrap().unwrap();
        assert_eq!(peer.uid(), Some(nix::unistd::getuid().as_raw()));
        assert!(door.accept().unwrap().is_none());
        assert_eq!(Door::unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(door);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert_eq!(Door::unix(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn what_does_not_listen_is_no_door() {
        let pair = UnixStream::pair().unwrap();
        let taken = Door::taken(UnixListener::from(OwnedFd::from(pair.0)), None);
        assert_eq!(taken.unwrap_err().to_string(), "it does not listen");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let taken = Door::tcp_taken(TcpListener::from(OwnedFd::from(connected)));
        assert_eq!(taken.unwrap_err().to_string(), "it does not listen");
    }

    #[test]
    fn nothing_is_listened_at_that_others_can_reach() {
        assert!(Door::tcp("127.0.0.1:0".parse().unwrap()).is_ok());
        assert!(Door::tcp("0.0.0.0:0".parse().unwrap()).is_err());
    }
}
