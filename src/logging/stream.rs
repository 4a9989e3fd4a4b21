//! Writes log lines to standard error. It must never block, fail or panic because its reader is stuck or gone: a full
//! pipe would block the whole program, and fern panics if a writer fails while standard error is closed.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// PIPE_BUF on Linux: a pipe that is ready takes this many bytes without blocking.
const CHUNK: usize = 4_096;
/// The time limit for a reader that has taken every line so far.
const TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Writes lines while they are read, and drops the others: they are in the log file.
#[derive(Debug)]
pub(super) struct Stream<F> {
    target: F,
    line: Vec<u8>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Taken,
    /// No byte of the last line was taken.
    Refused,
    /// Only the start of the last line was taken.
    Torn,
}

impl<F: AsFd> Stream<F> {
    pub(super) fn new(target: F) -> Self {
        Stream { target, line: Vec::new(), state: State::Taken }
    }

    fn is_ready(&self) -> bool {
        let timeout = if self.state == State::Taken { TIMEOUT } else { NO_WAIT };
        let mut streams = [PollFd::new(&self.target, PollFlags::OUT)];
        loop {
            match poll(&mut streams, Some(&timeout)) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|number| number > 0),
            }
        }
    }

    fn write_line(&mut self, line: &[u8]) {
        let whole = if self.state == State::Torn { [b"\n", line].concat() } else { line.to_vec() };
        let mut rest = &whole[..];
        while !rest.is_empty() && self.is_ready() {
            match rustix::io::write(&self.target, &rest[..rest.len().min(CHUNK)]) {
                Ok(taken) => rest = &rest[taken..],
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.state = match rest.len() {
            0 => State::Taken,
            left if left < whole.len() || self.state == State::Torn => State::Torn,
            _ => State::Refused,
        };
    }
}

impl<F: AsFd> Write for Stream<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// fern flushes after each record.
    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        self.write_line(&line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, pipe};

    use super::*;

    fn write(stream: &mut Stream<impl AsFd>, text: &str) {
        write!(stream, "{text}").and_then(|()| stream.flush()).expect("a stream never fails");
    }

    #[test]
    fn a_closed_reader_causes_no_error() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut stream = Stream::new(writer);
        write(&mut stream, "one\n");
        write(&mut stream, "two\n");
        write(&mut Stream::new(File::open("/dev/null").expect("a file to read")), "three\n");
    }

    #[test]
    fn a_stuck_reader_does_not_block_and_gets_whole_lines_later() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut stream = Stream::new(writer);
        write(&mut stream, "first\n");
        for _ in 0..2_000 {
            write(&mut stream, &format!("{}\n", "x".repeat(99)));
        }
        assert_eq!(stream.state, State::Refused);
        let mut taken = vec![0; 200_000];
        let length = reader.read(&mut taken).expect("what was taken");
        let text = String::from_utf8_lossy(&taken[..length]);
        assert!(text.starts_with("first\nxxx") && text.ends_with("x\n"), "{} bytes", text.len());
        write(&mut stream, "last\n");
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("what is left");
        assert_eq!(rest, "last\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut stream = Stream::new(writer);
        write(&mut stream, &"y".repeat(1_000_000));
        assert_eq!(stream.state, State::Torn);
        let mut taken = vec![0; 1_000_000];
        assert!(reader.read(&mut taken).expect("what was taken") < 1_000_000);
        write(&mut stream, "next\n");
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("what is left");
        assert_eq!(rest.trim_start_matches('y'), "\nnext\n");
    }
}
