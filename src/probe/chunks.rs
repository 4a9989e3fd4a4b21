//! A body in chunks, on its way to the parser: the chunks as they come, without what may stand around them and decides
//! nothing (extensions, padding, trailers, line ends of LF alone). Pure.
//! It must never make a broken chunk whole: from the first line that is wrong on, all goes to the parser as it is.

/// The longest line that is kept in mind.
const LINE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The end of a chunk's last line.
    End,
    /// The lines after the last chunk.
    Trailer,
    /// Whatever it is, it is the parser's to judge.
    Anything,
}

#[derive(Debug)]
pub(super) struct Chunks {
    next: ChunkState,
    /// The beginning of a line, as far as it has come.
    line: Vec<u8>,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Chunks { next: ChunkState::Size, line: Vec::new() }
    }

    /// Takes what has come and adds to `plain` what the parser is to see of it.
    pub(super) fn pass(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) {
        while !bytes.is_empty() {
            bytes = match self.next {
                ChunkState::Anything => {
                    plain.extend_from_slice(bytes);
                    return;
                }
                ChunkState::Data(left) => {
                    let (data, rest) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                    plain.extend_from_slice(data);
                    let left = left - data.len() as u64;
                    self.next = if left == 0 { ChunkState::End } else { ChunkState::Data(left) };
                    rest
                }
                ChunkState::Size | ChunkState::End | ChunkState::Trailer => self.take_line(bytes, plain),
            }
        }
    }

    /// Takes what `bytes` have of a line, and the line when it is complete; what is left of them comes back.
    fn take_line<'a>(&mut self, bytes: &'a [u8], plain: &mut Vec<u8>) -> &'a [u8] {
        let length = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let (line, rest) = bytes.split_at(length);
        self.line.extend_from_slice(line);
        let Some(line) = self.line.strip_suffix(b"\n").map(<[u8]>::trim_ascii) else {
            if self.line.len() > LINE {
                self.give_up(plain);
            }
            return rest;
        };
        match (self.next, size(line)) {
            (ChunkState::Size, Some(size)) => {
                plain.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                self.next = if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
            }
            (ChunkState::End, _) if line.is_empty() => {
                plain.extend_from_slice(b"\r\n");
                self.next = ChunkState::Size;
            }
            (ChunkState::Trailer, _) if line.is_empty() => {
                plain.extend_from_slice(b"\r\n");
                self.next = ChunkState::Anything;
            }
            (ChunkState::Trailer, _) => {}
            _ => {
                self.give_up(plain);
                return rest;
            }
        }
        self.line.clear();
        rest
    }

    fn give_up(&mut self, plain: &mut Vec<u8>) {
        plain.append(&mut self.line);
        self.next = ChunkState::Anything;
    }
}

fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    is_number.then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, and byte by byte.
    #[track_caller]
    fn check(body: &str, expected: &str) {
        for step in [1, body.len()] {
            let (mut chunks, mut plain) = (Chunks::new(), Vec::new());
            body.as_bytes().chunks(step).for_each(|piece| chunks.pass(piece, &mut plain));
            assert_eq!(String::from_utf8_lossy(&plain), expected, "{body:?}");
        }
    }

    #[test]
    fn what_decides_nothing_is_left_out() {
        let plain = "4\r\nfine\r\n0\r\n\r\n";
        check(plain, plain);
        check("4;name=\"a value that is longer than a size\"\r\nfine\r\n0\r\n\r\n", plain);
        check("4          \r\nfine\r\n000\r\n\r\n", plain);
        check("0000000000000000000000004\r\nfine\r\n0 ; last\r\nX-Sum: 1\r\nno colon\r\n\r\n", plain);
        check("4\nfine\n0\n\n", plain);
        check("a\r\n\r\n0\r\n\r\nxxx\r\n0\r\n\r\n", "a\r\n\r\n0\r\n\r\nxxx\r\n0\r\n\r\n");
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for broken in
            ["zz\r\nfine", "4\r\nfinest\r\n0\r\n\r\n", "-4\r\nfine", "\r\n4\r\nfine", "ffffffffffffffff1\r\nx"]
        {
            check(broken, broken);
        }
        check("4\r\nfi", "4\r\nfi");
        check("4\r\nfine\r\n8", "4\r\nfine\r\n");
        let long = "x".repeat(LINE + 10);
        check(&format!("0\r\n{long}"), &format!("0\r\n{long}"));
    }
}
