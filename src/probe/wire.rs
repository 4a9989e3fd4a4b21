//! What ureq reads from and writes to: a connection of ours that keeps the one deadline and notes how far it came.
//! It must never let an error of reading pass without keeping it, for ureq takes some of them for the end of a body.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::connect::Socket;
use super::deadline::Deadline;
use super::head::Head;

/// How far one exchange came. Spans are from the start of the look.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The connection stood.
    pub(super) connected: Duration,
    /// The request goes over TLS.
    pub(super) secure: bool,
    /// The connection could take the request: at once, or when the TLS handshake was done.
    pub(super) ready: Option<Duration>,
    /// Something came back, be it of the handshake.
    pub(super) first_byte: Option<Duration>,
    /// The headers were complete, and with this status.
    pub(super) head: Option<(u16, Duration)>,
    /// The head as the server sent it.
    pub(super) answer: Head,
    /// Bytes of the body that had come.
    pub(super) body: usize,
    /// What reading failed with.
    pub(super) fault: Option<io::Error>,
    /// The verdict is known: what still comes is waited for until then only.
    pub(super) patience: Option<Deadline>,
}

/// A trace that the connection and whoever looks share.
#[derive(Clone, Debug)]
pub(super) struct Traced(Arc<Mutex<Trace>>);

impl Traced {
    /// A trace that begins with the connection made.
    pub(super) fn new(connected: Duration, secure: bool) -> Self {
        Traced(Arc::new(Mutex::new(Trace { connected, secure, ..Trace::default() })))
    }

    /// A trace is whole after each line that changes it, so one left behind by a panic is as good as any.
    pub(super) fn lock(&self) -> MutexGuard<'_, Trace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection as ureq wants it.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    deadline: Deadline,
    trace: Traced,
    buffers: LazyBuffers,
}

impl Wire {
    /// `input` and `output` are the sizes of the buffers, in bytes; they are made when first used.
    pub(super) fn new(socket: Socket, deadline: Deadline, trace: Traced, input: usize, output: usize) -> Self {
        Wire { socket, deadline, trace, buffers: LazyBuffers::new(input, output) }
    }

    pub(super) fn trace(&self) -> Traced {
        self.trace.clone()
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let bytes = &self.buffers.output()[..amount];
        self.socket.write_all(bytes, self.deadline).map_err(ureq::Error::Io)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        // There is always room, or a read into nothing would look like the end: who reads takes all that came before.
        let room = self.buffers.input_append_buf();
        let patience = self.trace.lock().patience;
        match self.socket.read(room, patience.unwrap_or(self.deadline)) {
            Ok(amount) => {
                self.buffers.input_appended(amount);
                if amount > 0 {
                    self.trace.lock().first_byte.get_or_insert_with(|| self.deadline.elapsed());
                }
                Ok(amount > 0)
            }
            Err(error) => {
                let alike = error.kind().into();
                self.trace.lock().fault.get_or_insert(error);
                Err(ureq::Error::Io(alike))
            }
        }
    }

    /// A connection is used once.
    fn is_open(&mut self) -> bool {
        false
    }
}
