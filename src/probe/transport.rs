//! What ureq reads from and writes to: a connection of ours that keeps the one deadline and notes how far it came.
//! It must never let an error of reading pass without keeping it, for ureq takes some of them for the end of a body.

use rustix::event::PollFlags;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::buffer::Buffer;
use super::connect::Socket;
use super::deadline::Deadline;
use super::trace::Traced;

#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: Socket,
    deadline: Deadline,
    trace: Traced,
    buffers: Buffer,
}

impl SocketTransport {
    /// `input` and `output` are the sizes of the buffers, in bytes.
    pub(super) fn new(socket: Socket, deadline: Deadline, trace: Traced, input: usize, output: usize) -> Self {
        SocketTransport { socket, deadline, trace, buffers: Buffer::new(input, output) }
    }

    pub(super) fn trace(&self) -> Traced {
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
        let deadline = self.trace.lock().patience.unwrap_or(self.deadline);
        let waited = self.socket.wait(PollFlags::IN, deadline);
        // There is always room, or a read into nothing would look like the end: who reads takes all that came before.
        match waited.and_then(|_| self.socket.read(self.buffers.input_append_buf(), deadline)) {
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
