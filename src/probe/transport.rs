//! The transport that ureq reads from and writes to: our own connection, which enforces the probe's deadline and
//! records its progress. It must never lose a read error, because ureq takes some of them for the end of a body.

use rustix::event::PollFlags;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::buffer::Buffer;
use super::connect::Socket;
use super::deadline::Deadline;
use super::trace::SharedTrace;

#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: Socket,
    deadline: Deadline,
    trace: SharedTrace,
    buffers: Buffer,
}

impl SocketTransport {
    /// `input` and `output` are the sizes of the buffers, in bytes.
    pub(super) fn new(socket: Socket, deadline: Deadline, trace: SharedTrace, input: usize, output: usize) -> Self {
        SocketTransport { socket, deadline, trace, buffers: Buffer::new(input, output) }
    }

    pub(super) fn trace(&self) -> SharedTrace {
        self.trace.clone()
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let bytes = &self.buffers.output()[..amount];
        self.socket.write_all(bytes, self.deadline).map_err(ureq::Error::Io)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let deadline = self.trace.lock().excerpt_deadline.unwrap_or(self.deadline);
        let waited = self.socket.wait(PollFlags::IN, deadline);
        // The buffer is never full here, because its reader consumes everything each time. A read into a full buffer
        // would return 0, which means the end of the stream.
        match waited.and_then(|_| self.socket.read(self.buffers.input_append_buf(), deadline)) {
            Ok(amount) => {
                self.buffers.input_appended(amount);
                if amount > 0 {
                    self.trace.lock().first_byte.get_or_insert_with(|| self.deadline.elapsed());
                }
                Ok(amount > 0)
            }
            Err(error) => {
                let same_kind = error.kind().into();
                self.trace.lock().read_error.get_or_insert(error);
                Err(ureq::Error::Io(same_kind))
            }
        }
    }

    /// Always false: each connection serves a single request.
    fn is_open(&mut self) -> bool {
        false
    }
}
