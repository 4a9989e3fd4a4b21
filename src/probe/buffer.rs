//! The input and output buffers of one connection. ureq's own are filled byte by byte in a build optimised for size;
//! these are allocated zeroed. The input buffer must not be allocated before there is something to read, because many
//! probes may hang at the same time.

use std::ops::Range;

use ureq::unversioned::transport::Buffers;

#[derive(Debug)]
pub(super) struct Buffer {
    /// The length of `input` once it is allocated.
    input_capacity: usize,
    input: Vec<u8>,
    /// The part of `input` that was received and is not consumed yet.
    unread: Range<usize>,
    output: Vec<u8>,
    has_progressed: bool,
}

impl Buffer {
    pub(super) fn new(input: usize, output: usize) -> Self {
        Buffer {
            input_capacity: input,
            input: Vec::new(),
            unread: 0..0,
            output: vec![0; output],
            has_progressed: false,
        }
    }
}

impl Buffers for Buffer {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.unread.clone()]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.input.is_empty() {
            self.input = vec![0; self.input_capacity];
        }
        self.input.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        &mut self.input[self.unread.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.unread.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progressed = amount > 0;
        self.unread.start += amount.min(self.unread.len());
    }

    /// The first buffer would be for a request body, and our requests have none.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut [], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.has_progressed && !self.unread.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_input_is_kept_and_the_rest_can_be_filled() {
        let mut buffer = Buffer::new(8, 4);
        assert_eq!((buffer.output().len(), buffer.input()), (4, &b""[..]));
        let receive = |buffer: &mut Buffer, bytes: &[u8]| {
            buffer.input_append_buf()[..bytes.len()].copy_from_slice(bytes);
            buffer.input_appended(bytes.len());
        };
        receive(&mut buffer, b"abcdefgh");
        assert!(!buffer.can_use_input(), "ureq has not consumed anything yet");
        buffer.input_consume(6);
        assert_eq!((buffer.input(), buffer.can_use_input()), (&b"gh"[..], true));
        receive(&mut buffer, b"ijklmn");
        assert_eq!((buffer.input_append_buf().len(), buffer.input()), (0, &b"ghijklmn"[..]));
        buffer.input_consume(0);
        assert!(!buffer.can_use_input(), "no progress since the last receive");
        buffer.input_consume(8);
        assert_eq!((buffer.input_append_buf().len(), buffer.input()), (8, &b""[..]));
    }
}
