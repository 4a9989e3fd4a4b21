//! Connects to a target, and reads and writes on the connection, all within one deadline.
//! It must never block beyond the deadline, whatever the kernel's own timeouts are.

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
    /// Connects to the first address that accepts. A silent address gets only its share of the time.
    pub(super) fn connect(&self, deadline: Deadline, observations: &mut Observations) -> Result<Socket, Failure> {
        let socket = self.try_connect(deadline, observations)?;
        observations.connected = Some(deadline.elapsed());
        Ok(socket)
    }

    fn try_connect(&self, deadline: Deadline, observations: &mut Observations) -> Result<Socket, Failure> {
        let (host, port) = match self {
            Endpoint::Unix(path) => {
                observations.resolved = Some(Duration::ZERO);
                return connect_unix(path, deadline).map_err(|error| classify::unix_connect_failure(&error));
            }
            Endpoint::Net { host, port } => (host, *port),
        };
        let addresses = host.addresses(port, deadline)?;
        observations.resolved = Some(deadline.elapsed());
        let mut attempts = Vec::new();
        for (done, &address) in addresses.iter().enumerate() {
            let started = deadline.elapsed();
            match connect_tcp(address, deadline.share(addresses.len() - done)) {
                Ok(socket) => return Ok(socket),
                Err(error) => {
                    let duration = deadline.elapsed().saturating_sub(started);
                    attempts.push(ConnectionAttempt { address, error, duration });
                }
            }
        }
        Err(classify::connect_failure(&attempts))
    }
}

#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Reads what has arrived, or waits until something does; 0 means the end of the stream.
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

    /// Writes all of `bytes`. The send buffer usually has room, so it polls only after a write that would block.
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

    /// Waits until the socket is ready or has failed; the next call on it shows which.
    pub(super) fn wait(&self, events: PollFlags, deadline: Deadline) -> io::Result<PollFlags> {
        loop {
            let remaining = deadline.remaining().ok_or(ErrorKind::TimedOut)?;
            let timeout = Timespec::try_from(remaining).map_err(|_| ErrorKind::InvalidInput)?;
            let mut polled = [PollFd::new(&self.0, events)];
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(polled[0].revents()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects without blocking, so that the wait ends at the deadline and not when the kernel gives up.
fn connect_tcp(address: SocketAddr, deadline: Deadline) -> io::Result<Socket> {
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
    match is_self_connection(&socket, address.port()) {
        true => Err(ErrorKind::ConnectionRefused.into()),
        false => Ok(socket),
    }
}

/// When nothing listens on a local port, the kernel may choose that very port as our source port and connect the socket
/// to itself.
fn is_self_connection(socket: &Socket, port: u16) -> bool {
    let Ok(local) = rustix::net::getsockname(&socket.0) else { return false };
    let is_same_port = SocketAddr::try_from(local.clone()).is_ok_and(|local| local.port() == port);
    is_same_port && rustix::net::getpeername(&socket.0).is_ok_and(|peer| peer == Some(local))
}

/// Distinguishes the two causes of EADDRNOTAVAIL: this machine has no address of that family (no IPv6), or all its
/// local ports are in use.
fn is_assignable(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

/// std's `UnixStream::connect` waits forever while the listener's backlog is full; a send timeout bounds that wait.
fn connect_unix(path: &Path, deadline: Deadline) -> io::Result<Socket> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    loop {
        let remaining = deadline.remaining().ok_or(ErrorKind::TimedOut)?.max(Duration::from_millis(1));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(remaining))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(Socket(socket)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn check_socket_path(path: &Path) -> Result<(), String> {
    match SocketAddrUnix::new(path) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{}: the path of a socket can have at most 107 bytes", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_connected_to_itself_is_recognised() {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let own = rustix::net::getsockname(&socket).expect("an address");
        rustix::net::connect(&socket, &own).expect("it connects to itself");
        let port = SocketAddr::try_from(own).expect("an address of the network").port();
        assert!(is_self_connection(&Socket(socket), port));

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let socket = connect_tcp(address, Deadline::after(Duration::from_secs(60))).expect("a listener");
        assert!(!is_self_connection(&socket, address.port()));
    }

    #[test]
    fn loopback_is_assignable_and_the_broadcast_address_is_not() {
        assert!(is_assignable((Ipv4Addr::LOCALHOST, 1).into()));
        // Connecting to the broadcast address fails without SO_BROADCAST, on every machine.
        assert!(!is_assignable(([255, 255, 255, 255], 1).into()));
    }
}
