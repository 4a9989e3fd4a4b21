//! How far one HTTP exchange got: the connection writes it, `classify` and the evidence read it.
//! It must never hold a secret of the request.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::deadline::Deadline;
use super::head::Head;

/// How far one exchange got. Times are measured from the start of the probe.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) connected: Duration,
    pub(super) is_secure: bool,
    /// When the request could be sent: once connected, or once the TLS handshake was done.
    pub(super) ready: Option<Duration>,
    /// The first byte received, which may belong to the TLS handshake.
    pub(super) first_byte: Option<Duration>,
    /// The status, and when the headers were complete.
    pub(super) status: Option<(u16, Duration)>,
    pub(super) head: Head,
    pub(super) body_bytes: usize,
    pub(super) read_error: Option<io::Error>,
    /// An earlier deadline for reading, set once the verdict is known and the body is read only as evidence.
    pub(super) excerpt_deadline: Option<Deadline>,
}

#[derive(Clone, Debug)]
pub(super) struct SharedTrace(Arc<Mutex<Trace>>);

impl SharedTrace {
    pub(super) fn new(connected: Duration, is_secure: bool) -> Self {
        SharedTrace(Arc::new(Mutex::new(Trace { connected, is_secure, ..Trace::default() })))
    }

    /// Ignores poisoning: every single change leaves a consistent trace, so a panic between two changes does no harm.
    pub(super) fn lock(&self) -> MutexGuard<'_, Trace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
