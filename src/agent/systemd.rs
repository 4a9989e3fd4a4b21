//! What the service manager is told, where one has started us (systemd's `Type=notify`): that we are at work, that the
//! loop goes round, how the targets do. It must never hold the loop up: a manager that does not listen is not waited
//! for. (With a blocking send, as the usual libraries have it, a frozen systemd would freeze us too.)

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;
use crate::time::BootTime;

use super::MAX_SLEEP;

/// Each round of an end that takes long asks for this much more time.
const MORE_TIME: Duration = MAX_SLEEP.saturating_mul(2);

#[derive(Default)]
pub(super) struct Systemd {
    socket: Option<SocketAddr>,
    /// Without a sign of life for this long it takes us for hung.
    timeout: Option<Duration>,
    /// When a sign of life was last given, or could not be: the next one is due a pace later all the same.
    last_sign: Option<BootTime>,
    status: String,
}

impl Systemd {
    pub(super) fn from_environment() -> Systemd {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| address(&name).ok());
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant =
            env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let patience = number("WATCHDOG_USEC").filter(|&usec| usec > 0 && is_meant).map(Duration::from_micros);
        Systemd { socket, timeout: patience, ..Systemd::default() }
    }

    pub(super) fn is_present(&self) -> bool {
        self.socket.is_some()
    }

    /// How long until the next sign of life, where one is wanted.
    pub(super) fn until_sign_of_life(&self, now: BootTime) -> Option<Duration> {
        let pace = self.interval()?;
        Some(self.last_sign.map_or(Duration::ZERO, |at| (at + pace).since(now)))
    }

    /// A third of its patience, so that one that comes late does no harm.
    fn interval(&self) -> Option<Duration> {
        self.timeout.filter(|_| self.socket.is_some()).map(|patience| patience / 3)
    }

    /// A round of the loop: says that it is one, if that is due, and what has changed. The first says that we are
    /// ready. What could not be said is said in the next round.
    pub(super) fn report(&mut self, now: BootTime, status: &str, stopping: bool) {
        let is_new = status != self.status;
        let mut message = String::new();
        if self.until_sign_of_life(now) == Some(Duration::ZERO) {
            self.last_sign = Some(now);
            message += "WATCHDOG=1\n";
        }
        if self.status.is_empty() {
            message += "READY=1\n";
        }
        if is_new {
            message += &format!("STATUS={status}\n");
        }
        if stopping {
            message += &format!("EXTEND_TIMEOUT_USEC={}\n", MORE_TIME.as_micros());
        }
        if self.send(&message) && is_new {
            status.clone_into(&mut self.status);
        }
    }

    pub(super) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::monotonic_usec()));
    }

    /// It has been read, or is kept as it was.
    pub(super) fn reloaded(&self) {
        self.send("READY=1\n");
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// Whether the message was taken. Where nobody is there or listens, that is not ours to mend.
    fn send(&self, message: &str) -> bool {
        let Some(address) = self.socket.as_ref().filter(|_| !message.is_empty()) else { return false };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect_addr(address)?;
            socket.send(message.as_bytes())
        });
        sent.is_ok()
    }
}

/// A path, or behind an `@` a name that is in no folder.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
