//! Notifies systemd (`Type=notify`) that the watchdog is ready, that its loop works, and of the state of its targets.
//! It must never block the loop: with a blocking send, as in the usual libraries, a frozen systemd would freeze it too.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;
use crate::time::BootTime;

use super::MAX_SLEEP;

/// How much more time to stop each report asks for; the next one comes within [`MAX_SLEEP`].
const MORE_TIME: Duration = MAX_SLEEP.saturating_mul(2);

#[derive(Default)]
pub(super) struct Systemd {
    socket: Option<SocketAddr>,
    /// Without a sign of life for this long systemd takes the watchdog for hung.
    timeout: Option<Duration>,
    /// When a sign of life was last sent, successfully or not: the next one is due an interval later in both cases.
    last_sign: Option<BootTime>,
    status: String,
    /// Why the configuration was refused when it was last read again. Until a reload succeeds, the status says so.
    refused: Option<String>,
}

impl Systemd {
    pub(super) fn from_environment() -> Systemd {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| address(&name).ok());
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us =
            env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let timeout = number("WATCHDOG_USEC").filter(|&usec| usec > 0 && is_for_us).map(Duration::from_micros);
        Systemd { socket, timeout, ..Systemd::default() }
    }

    pub(super) fn is_present(&self) -> bool {
        self.socket.is_some()
    }

    /// How long until the next sign of life, if systemd expects any.
    pub(super) fn until_sign_of_life(&self, now: BootTime) -> Option<Duration> {
        let interval = self.interval()?;
        Some(self.last_sign.map_or(Duration::ZERO, |at| (at + interval).since(now)))
    }

    /// A third of the timeout, so that one late or lost sign of life does no harm.
    fn interval(&self) -> Option<Duration> {
        self.timeout.filter(|_| self.socket.is_some()).map(|timeout| timeout / 3)
    }

    /// Called in each pass of the loop: sends the sign of life if it is due, and the status if it has changed. The
    /// first report also says that the watchdog is ready. What could not be sent is sent in the next pass.
    pub(super) fn report(&mut self, now: BootTime, status: &str, stopping: bool) {
        let status = match &self.refused {
            Some(why) => format!("configuration refused: {why}; keeps the old one. {status}"),
            None => status.to_owned(),
        };
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
            self.status = status;
        }
    }

    pub(super) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::monotonic_usec()));
    }

    /// The new configuration is in use, or the old one is kept, for the reason `refused`.
    pub(super) fn reloaded(&mut self, refused: Option<String>) {
        self.refused = refused;
        self.send("READY=1\n");
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// Returns whether the message was accepted. Errors are not reported: there is nothing the watchdog could do about
    /// them.
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

/// A path, or after an `@` a name in the abstract namespace.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
