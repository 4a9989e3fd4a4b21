//! Sits between a connection and ureq and normalizes the head and the chunk lines of a response, because ureq's parser
//! rejects oddities that other clients accept.
//! It must never change a body, nor hide a violation of the protocol from the parser.

use std::mem;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::chunks::Chunks;
use super::head::{self, Head};
use super::trace::SharedTrace;

/// The size of the input buffer: more than ureq accepts as headers, so that its limit is reached first. It is small
/// because each probe holds a buffer until it ends, and many may hang.
pub(super) const INPUT_SIZE: usize = 8 << 10;
/// The longest head, including interim responses. It is read completely before it is parsed.
const MAX_HEAD: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct FilteredTransport {
    inner: Box<dyn Transport>,
    trace: SharedTrace,
    stage: Stage,
    /// Normalized bytes for the parser; those before `consumed` it has read.
    input: Vec<u8>,
    consumed: usize,
    has_progressed: bool,
}

#[derive(Debug)]
enum Stage {
    Head(HeadBuffer),
    Chunks(Chunks),
    /// The rest goes to the parser unchanged.
    Passthrough,
}

/// What the bytes received so far amount to.
enum HeadProgress {
    Incomplete,
    NotHttp,
    Complete(Head),
}

#[derive(Debug, Default)]
struct HeadBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` were searched for the end of the head.
    searched: usize,
    /// How many bytes of interim responses and blank lines were dropped; they count towards [`MAX_HEAD`].
    discarded: usize,
}

impl FilteredTransport {
    pub(super) fn new(inner: Box<dyn Transport>, trace: SharedTrace) -> Self {
        let stage = Stage::Head(HeadBuffer::default());
        FilteredTransport { inner, trace, stage, input: Vec::new(), consumed: 0, has_progressed: false }
    }

    fn normalize(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Head(buffer) => {
                let progress = buffer.push(bytes)?;
                let head = match progress {
                    HeadProgress::Incomplete => return Ok(()),
                    HeadProgress::NotHttp => None,
                    HeadProgress::Complete(head) => Some(head),
                };
                let rest = mem::take(&mut buffer.bytes);
                self.stage = match &head {
                    Some(head) if head.is_chunked() => Stage::Chunks(Chunks::new()),
                    _ => Stage::Passthrough,
                };
                if let Some(head) = head {
                    self.input.extend_from_slice(head.normalized().as_bytes());
                    self.trace.lock().head = head;
                }
                self.normalize(&rest)
            }
            Stage::Chunks(chunks) => {
                chunks.normalize(bytes, &mut self.input);
                Ok(())
            }
            Stage::Passthrough => {
                self.input.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

impl HeadBuffer {
    /// Adds received bytes. Those after a complete head remain in `bytes`.
    fn push(&mut self, bytes: &[u8]) -> Result<HeadProgress, Error> {
        self.bytes.extend_from_slice(bytes);
        loop {
            let blank = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.discard(blank);
            if !head::may_be_http(&self.bytes) {
                return Ok(HeadProgress::NotHttp);
            }
            let end = head::find_end(&self.bytes, self.searched);
            let length = self.discarded + end.unwrap_or(self.bytes.len());
            if length > MAX_HEAD {
                return Err(Error::LargeResponseHeader(length, MAX_HEAD));
            }
            let Some(end) = end else {
                // The last LF and the CRs after it may belong to the empty line.
                let last = self.bytes.iter().rposition(|byte| *byte != b'\r');
                self.searched = last.unwrap_or_default();
                return Ok(HeadProgress::Incomplete);
            };
            let Some(head) = Head::parse(&self.bytes[..end]) else { return Ok(HeadProgress::NotHttp) };
            self.discard(end);
            if !head.is_interim() {
                return Ok(HeadProgress::Complete(head));
            }
        }
    }

    fn discard(&mut self, length: usize) {
        if length > 0 {
            self.bytes.drain(..length);
            self.discarded += length;
            self.searched = 0;
        }
    }
}

impl Transport for FilteredTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let unread = self.input().len();
        if unread >= INPUT_SIZE {
            // The parser is waiting for the end of a line that is longer than the buffer.
            return Err(Error::LargeResponseHeader(unread, INPUT_SIZE));
        }
        self.input.drain(..mem::take(&mut self.consumed));
        loop {
            let has_more = self.inner.await_input(timeout)?;
            let bytes = self.inner.buffers().input().to_vec();
            self.inner.buffers().input_consume(bytes.len());
            self.normalize(&bytes)?;
            if !has_more || self.input.len() > unread {
                return Ok(has_more);
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

/// The output buffer is that of the inner connection. The input buffer is filled here, so ureq cannot append to it.
impl Buffers for FilteredTransport {
    fn output(&mut self) -> &mut [u8] {
        self.inner.buffers().output()
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        &mut []
    }

    fn input_appended(&mut self, _: usize) {}

    fn input_consume(&mut self, amount: usize) {
        self.has_progressed = amount > 0;
        self.consumed = (self.consumed + amount).min(self.input.len());
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.inner.buffers().tmp_and_output()
    }

    fn can_use_input(&self) -> bool {
        self.has_progressed && !self.input().is_empty()
    }
}
