//! How far one exchange of HTTP came: noted by the connection, read by whoever judges.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::deadline::Deadline;
use super::head::Head;

/// How far one exchange came. Spans are from the start of the look.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) connected: Duration,
    pub(super) secure: bool,
    /// The connection could take the request: at once, or when the TLS handshake was done.
    pub(super) ready: Option<Duration>,
    /// Something came back, be it of the handshake.
    pub(super) first_byte: Option<Duration>,
    /// The headers were complete, and with this status.
    pub(super) head: Option<(u16, Duration)>,
    pub(super) answer: Head,
    /// Bytes of the body that had come.
    pub(super) body: usize,
    pub(super) fault: Option<io::Error>,
    /// The verdict is known: what still comes is waited for until then only.
    pub(super) patience: Option<Deadline>,
}

#[derive(Clone, Debug)]
pub(super) struct Traced(Arc<Mutex<Trace>>);

impl Traced {
    pub(super) fn new(connected: Duration, secure: bool) -> Self {
        Traced(Arc::new(Mutex::new(Trace { connected, secure, ..Trace::default() })))
    }

    /// A trace is whole after each line that changes it, so one left behind by a panic is as good as any.
    pub(super) fn lock(&self) -> MutexGuard<'_, Trace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
