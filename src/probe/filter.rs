//! Between a connection and ureq: the head of an answer reaches the parser without the lines that decide nothing, which
//! it might not take, and so do the lines between the chunks of a body.
//! It must never change a body, nor hide from the parser what breaks the protocol.

use std::mem;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::chunks::Chunks;
use super::head::{self, Head};
use super::trace::Traced;

/// What the parser gets at once, more than the headers that it takes, so that that limit is met first. A buffer is held
/// for as long as a look lasts, and many may hang.
pub(super) const INPUT: usize = 8 << 10;
/// The longest head, interim answers and all. It is read whole before it is judged.
const MAX_HEAD: usize = 1 << 20;

/// A connection that brings answers in a form which the parser takes.
#[derive(Debug)]
pub(super) struct Filtered {
    inner: Box<dyn Transport>,
    trace: Traced,
    stage: Stage,
    /// What the parser is to see, from `taken` on.
    input: Vec<u8>,
    taken: usize,
    has_progressed: bool,
}

#[derive(Debug)]
enum Stage {
    Head(HeadBuffer),
    Chunks(Chunks),
    /// What goes to the parser as it is.
    Rest,
}

#[derive(Debug, Default)]
struct HeadBuffer {
    bytes: Vec<u8>,
    /// How many of them were searched for the end of the head.
    searched: usize,
    /// Bytes of interim answers, which are forgotten.
    before: usize,
}

impl Filtered {
    pub(super) fn new(inner: Box<dyn Transport>, trace: Traced) -> Self {
        let stage = Stage::Head(HeadBuffer::default());
        Filtered { inner, trace, stage, input: Vec::new(), taken: 0, has_progressed: false }
    }

    fn pass(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Head(beginning) => {
                let Some(head) = beginning.take(bytes)? else { return Ok(()) };
                let rest = mem::take(&mut beginning.bytes);
                self.stage = match &head {
                    Some(head) if head.is_chunked() => Stage::Chunks(Chunks::new()),
                    _ => Stage::Rest,
                };
                if let Some(head) = head {
                    self.input.extend_from_slice(head.plain().as_bytes());
                    self.trace.lock().answer = head;
                }
                self.pass(&rest)
            }
            Stage::Chunks(chunks) => {
                chunks.pass(bytes, &mut self.input);
                Ok(())
            }
            Stage::Rest => {
                self.input.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

impl HeadBuffer {
    /// Takes what has come. The head once it is whole, or that there is none; what follows it is left in `bytes`.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Option<Head>>, Error> {
        self.bytes.extend_from_slice(bytes);
        loop {
            let blank = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.drop(blank);
            if !head::may_begin(&self.bytes) {
                return Ok(Some(None));
            }
            let found = head::length(&self.bytes, self.searched);
            let length = self.before + found.unwrap_or(self.bytes.len());
            if length > MAX_HEAD {
                return Err(Error::LargeResponseHeader(length, MAX_HEAD));
            }
            let Some(found) = found else {
                // The last LF and the CRs after it may begin the empty line.
                let last = self.bytes.iter().rposition(|byte| *byte != b'\r');
                self.searched = last.unwrap_or_default();
                return Ok(None);
            };
            let Some(head) = Head::parse(&self.bytes[..found]) else { return Ok(Some(None)) };
            self.drop(found);
            if !head.is_interim() {
                return Ok(Some(Some(head)));
            }
        }
    }

    fn drop(&mut self, length: usize) {
        if length > 0 {
            self.bytes.drain(..length);
            self.before += length;
            self.searched = 0;
        }
    }
}

impl Transport for Filtered {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let waiting = self.input().len();
        if waiting >= INPUT {
            // The parser waits for the end of a line that has none.
            return Err(Error::LargeResponseHeader(waiting, INPUT));
        }
        self.input.drain(..mem::take(&mut self.taken));
        loop {
            let has_come = self.inner.await_input(timeout)?;
            let bytes = self.inner.buffers().input().to_vec();
            self.inner.buffers().input_consume(bytes.len());
            self.pass(&bytes)?;
            if !has_come || self.input.len() > waiting {
                return Ok(has_come);
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// The output is the inner connection's own; the input is ours, and only we add to it.
impl Buffers for Filtered {
    fn output(&mut self) -> &mut [u8] {
        self.inner.buffers().output()
    }

    fn input(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        &mut []
    }

    fn input_appended(&mut self, _: usize) {}

    fn input_consume(&mut self, amount: usize) {
        self.has_progressed = amount > 0;
        self.taken = (self.taken + amount).min(self.input.len());
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.inner.buffers().tmp_and_output()
    }

    fn can_use_input(&self) -> bool {
        self.has_progressed && !self.input().is_empty()
    }
}
