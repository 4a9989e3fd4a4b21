//! A connection to a target, and reading and writing on it, all within one deadline.
//! It must never block beyond it, whatever the kernel's own patience with a silent peer is.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::classify::{self, ConnectionAttempt};
use super::deadline::Deadline;
use super::evidence::Observations;
use super::failure::Failure;
use super::resolve::Host;

#[derive(Debug)]
pub(super) enum Endpoint {
    Net { host: Host, port: u16 },
    Unix(PathBuf),
}

impl Endpoint {
    /// Connects to the first address that takes it. One that never answers gets its share of the time, not all of it.
    pub(super) fn dial(&self, deadline: Deadline, seen: &mut Observations) -> Result<Socket, Failure> {
        let socket = self.connect(deadline, seen)?;
        seen.connected = Some(deadline.elapsed());
        Ok(socket)
    }

    fn connect(&self, deadline: Deadline, seen: &mut Observations) -> Result<Socket, Failure> {
        let (host, port) = match self {
            Endpoint::Unix(path) => {
                seen.resolved = Some(Duration::ZERO);
                return dial_unix(path, deadline).map_err(|error| classify::unix_dial(&error));
            }
            Endpoint::Net { host, port } => (host, *port),
        };
        let addresses = host.addresses(port, deadline)?;
        seen.resolved = Some(deadline.elapsed());
        let mut tries = Vec::new();
        for (done, &address) in addresses.iter().enumerate() {
            let begun = deadline.elapsed();
            match dial_tcp(address, deadline.share(addresses.len() - done)) {
                Ok(socket) => return Ok(socket),
                Err(error) => {
                    tries.push(ConnectionAttempt { address, error, took: deadline.elapsed().saturating_sub(begun) })
                }
            }
        }
        Err(classify::dial(&tries))
    }
}

#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Takes what is there, or waits for it; 0 is the end of the stream.
    pub(super) fn read(&self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::AGAIN) => drop(self.wait(PollFlags::IN, deadline)?),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `bytes`. There mostly is room for them, so it is waited for only where there is not.
    pub(super) fn write_all(&self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::AGAIN) => drop(self.wait(PollFlags::OUT, deadline)?),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Until the socket is ready or has failed, which the call that follows will tell.
    pub(super) fn wait(&self, wanted: PollFlags, deadline: Deadline) -> io::Result<PollFlags> {
        loop {
            let left = deadline.left().ok_or(ErrorKind::TimedOut)?;
            let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
            let mut polled = [PollFd::new(&self.0, wanted)];
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(polled[0].revents()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The system makes the connection while we wait for it, for as long as we like.
fn dial_tcp(address: SocketAddr, deadline: Deadline) -> io::Result<Socket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = Socket(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?);
    match rustix::net::connect(&socket.0, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            if socket.wait(PollFlags::OUT, deadline)?.intersects(PollFlags::ERR | PollFlags::HUP) {
                rustix::net::sockopt::socket_error(&socket.0)??;
            }
        }
        Err(Errno::ADDRNOTAVAIL) if !is_assignable(address) => return Err(ErrorKind::NetworkUnreachable.into()),
        Err(error) => return Err(error.into()),
    }
    match is_connected_to_itself(&socket, address.port()) {
        true => Err(ErrorKind::ConnectionRefused.into()),
        false => Ok(socket),
    }
}

/// Where nobody listens, the system may hand out the very port that is dialled as ours, and connects us to ourselves.
fn is_connected_to_itself(socket: &Socket, port: u16) -> bool {
    let Ok(ours) = rustix::net::getsockname(&socket.0) else { return false };
    let is_same_port = SocketAddr::try_from(ours.clone()).is_ok_and(|ours| ours.port() == port);
    is_same_port && rustix::net::getpeername(&socket.0).is_ok_and(|theirs| theirs == Some(ours))
}

/// Tells "this machine has no such kind of address" (no IPv6) from "all our ports are in use".
fn is_assignable(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

/// std's `UnixStream::connect` waits for ever where a backlog is full; a send timeout bounds that wait.
fn dial_unix(path: &Path, deadline: Deadline) -> io::Result<Socket> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    loop {
        let left = deadline.left().ok_or(ErrorKind::TimedOut)?.max(Duration::from_millis(1));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(left))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(Socket(socket)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn check_unix(path: &Path) -> Result<(), String> {
    match SocketAddrUnix::new(path) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{}: a socket's path can have 107 bytes at most", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_to_oneself_is_none() {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let own = rustix::net::getsockname(&socket).expect("an address");
        rustix::net::connect(&socket, &own).expect("nobody but itself");
        let port = SocketAddr::try_from(own).expect("an address of the network").port();
        assert!(is_connected_to_itself(&Socket(socket), port));

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let socket = dial_tcp(address, Deadline::after(Duration::from_secs(60))).expect("a listener");
        assert!(!is_connected_to_itself(&socket, address.port()));
    }

    #[test]
    fn a_machine_can_connect_to_itself_but_not_to_nowhere() {
        assert!(is_assignable((Ipv4Addr::LOCALHOST, 1).into()));
        // 240.0.0.0/4 was never given to anybody, and Linux has no route into 0.0.0.0/8 but its own first address.
        assert!(!is_assignable(([255, 255, 255, 255], 1).into()));
    }
}
