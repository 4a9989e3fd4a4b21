//! Standard error as a place for log lines. It must never block, fail or panic because nobody reads: fern panics when
//! a writer fails and standard error is dead, and a full pipe would stop the whole program.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A stream that is ready takes this many bytes without blocking: PIPE_BUF.
const PIECE: usize = 4_096;
/// How long a reader that took everything so far is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NONE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Takes lines for as long as somebody reads them, and drops the others; they are in the file.
#[derive(Debug)]
pub(super) struct Stream<F> {
    to: F,
    line: Vec<u8>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Taken,
    /// The last line was not taken at all.
    Refused,
    /// Only the beginning of the last line was taken.
    Torn,
}

impl<F: AsFd> Stream<F> {
    pub(super) fn new(to: F) -> Self {
        Stream { to, line: Vec::new(), state: State::Taken }
    }

    fn is_ready(&self) -> bool {
        let patience = if self.state == State::Taken { PATIENCE } else { NONE };
        let mut streams = [PollFd::new(&self.to, PollFlags::OUT)];
        loop {
            match poll(&mut streams, Some(&patience)) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|number| number > 0),
            }
        }
    }

    fn put(&mut self, line: &[u8]) {
        let whole = if self.state == State::Torn { [b"\n", line].concat() } else { line.to_vec() };
        let mut rest = &whole[..];
        while !rest.is_empty() && self.is_ready() {
            match rustix::io::write(&self.to, &rest[..rest.len().min(PIECE)]) {
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
        self.put(&line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, pipe};

    use super::*;

    fn say(stream: &mut Stream<impl AsFd>, text: &str) {
        write!(stream, "{text}").and_then(|()| stream.flush()).expect("it never fails");
    }

    #[test]
    fn a_dead_reader_is_swallowed() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut stream = Stream::new(writer);
        say(&mut stream, "one\n");
        say(&mut stream, "two\n");
        say(&mut Stream::new(File::open("/dev/null").expect("a file to read")), "three\n");
    }

    #[test]
    fn a_stuck_reader_stops_nobody_and_gets_whole_lines_later() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut stream = Stream::new(writer);
        say(&mut stream, "first\n");
        for _ in 0..2_000 {
            say(&mut stream, &format!("{}\n", "x".repeat(99)));
        }
        assert_eq!(stream.state, State::Refused);
        let mut taken = vec![0; 200_000];
        let length = reader.read(&mut taken).expect("what was taken");
        let text = String::from_utf8_lossy(&taken[..length]);
        assert!(text.starts_with("first\nxxx") && text.ends_with("x\n"), "{} bytes", text.len());
        say(&mut stream, "last\n");
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("what is left");
        assert_eq!(rest, "last\n");
    }

    #[test]
    fn a_torn_line_is_closed_before_the_next() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut stream = Stream::new(writer);
        say(&mut stream, &"y".repeat(1_000_000));
        assert_eq!(stream.state, State::Torn);
        let mut taken = vec![0; 1_000_000];
        assert!(reader.read(&mut taken).expect("what was taken") < 1_000_000);
        say(&mut stream, "next\n");
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("what is left");
        assert_eq!(rest.trim_start_matches('y'), "\nnext\n");
    }
}
