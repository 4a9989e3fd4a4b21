//! What ureq reads from and writes into. Its own buffers are filled byte by byte where a program is built for size.
//! These come zeroed, and the one for input not before there is something to read, for many probes may hang.

use std::ops::Range;

use ureq::unversioned::transport::Buffers;

#[derive(Debug)]
pub(super) struct Buffer {
    /// Bytes that `input` has once it is made.
    room: usize,
    input: Vec<u8>,
    /// Where in it those are that have come and are not taken yet.
    waiting: Range<usize>,
    output: Vec<u8>,
    has_progressed: bool,
}

impl Buffer {
    pub(super) fn new(input: usize, output: usize) -> Self {
        Buffer { room: input, input: Vec::new(), waiting: 0..0, output: vec![0; output], has_progressed: false }
    }
}

impl Buffers for Buffer {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.waiting.clone()]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.input.is_empty() {
            self.input = vec![0; self.room];
        }
        self.input.copy_within(self.waiting.clone(), 0);
        self.waiting = 0..self.waiting.len();
        &mut self.input[self.waiting.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.waiting.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progressed = amount > 0;
        self.waiting.start += amount.min(self.waiting.len());
    }

    /// The first is for the body of a request, which ours do not have.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut [], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.has_progressed && !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_stays_and_leaves_room_for_more() {
        let mut buffer = Buffer::new(8, 4);
        assert_eq!((buffer.output().len(), buffer.input()), (4, &b""[..]));
        let come = |buffer: &mut Buffer, bytes: &[u8]| {
            buffer.input_append_buf()[..bytes.len()].copy_from_slice(bytes);
            buffer.input_appended(bytes.len());
        };
        come(&mut buffer, b"abcdefgh");
        assert!(!buffer.can_use_input(), "nobody has made anything of it yet");
        buffer.input_consume(6);
        assert_eq!((buffer.input(), buffer.can_use_input()), (&b"gh"[..], true));
        come(&mut buffer, b"ijklmn");
        assert_eq!((buffer.input_append_buf().len(), buffer.input()), (0, &b"ghijklmn"[..]));
        buffer.input_consume(0);
        assert!(!buffer.can_use_input(), "more must come first");
        buffer.input_consume(8);
        assert_eq!((buffer.input_append_buf().len(), buffer.input()), (8, &b""[..]));
    }
}
