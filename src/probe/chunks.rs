//! Normalizes a chunked body for the parser: it removes extensions, padding, trailers and line ends of LF alone. Pure.
//! It must never repair a malformed chunk: from the first invalid line on, everything goes to the parser unchanged.

/// The longest line, in bytes, that is held back until its end arrives.
const MAX_LINE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size,
    /// This many bytes of the chunk are still to come.
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    /// The trailer lines after the last chunk.
    Trailer,
    /// The rest goes to the parser unchanged.
    Passthrough,
}

#[derive(Debug)]
pub(super) struct Chunks {
    next: ChunkState,
    /// The received part of the current line.
    line: Vec<u8>,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Chunks { next: ChunkState::Size, line: Vec::new() }
    }

    /// Takes received bytes and appends their normalized form.
    pub(super) fn normalize(&mut self, mut bytes: &[u8], normalized: &mut Vec<u8>) {
        while !bytes.is_empty() {
            bytes = match self.next {
                ChunkState::Passthrough => {
                    normalized.extend_from_slice(bytes);
                    return;
                }
                ChunkState::Data(left) => {
                    let (data, rest) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                    normalized.extend_from_slice(data);
                    let left = left - data.len() as u64;
                    self.next = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                    rest
                }
                ChunkState::Size | ChunkState::DataEnd | ChunkState::Trailer => self.take_line(bytes, normalized),
            }
        }
    }

    /// Adds the bytes up to the next line end to the line, processes the line if it is complete, and returns the rest.
    fn take_line<'a>(&mut self, bytes: &'a [u8], normalized: &mut Vec<u8>) -> &'a [u8] {
        let length = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let (line, rest) = bytes.split_at(length);
        self.line.extend_from_slice(line);
        let Some(line) = self.line.strip_suffix(b"\n").map(<[u8]>::trim_ascii) else {
            if self.line.len() > MAX_LINE {
                self.pass_through(normalized);
            }
            return rest;
        };
        match (self.next, parse_size(line)) {
            (ChunkState::Size, Some(size)) => {
                normalized.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                self.next = if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
            }
            (ChunkState::DataEnd, _) if line.is_empty() => {
                normalized.extend_from_slice(b"\r\n");
                self.next = ChunkState::Size;
            }
            (ChunkState::Trailer, _) if line.is_empty() => {
                normalized.extend_from_slice(b"\r\n");
                self.next = ChunkState::Passthrough;
            }
            (ChunkState::Trailer, _) => {}
            _ => {
                self.pass_through(normalized);
                return rest;
            }
        }
        self.line.clear();
        rest
    }

    fn pass_through(&mut self, normalized: &mut Vec<u8>) {
        normalized.append(&mut self.line);
        self.next = ChunkState::Passthrough;
    }
}

fn parse_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    is_number.then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the body in one piece, and byte by byte.
    #[track_caller]
    fn check(body: &str, expected: &str) {
        for step in [1, body.len()] {
            let (mut chunks, mut normalized) = (Chunks::new(), Vec::new());
            body.as_bytes().chunks(step).for_each(|piece| chunks.normalize(piece, &mut normalized));
            assert_eq!(String::from_utf8_lossy(&normalized), expected, "{body:?}");
        }
    }

    #[test]
    fn extensions_padding_and_trailers_are_removed() {
        let normalized = "4\r\nfine\r\n0\r\n\r\n";
        check(normalized, normalized);
        check("4;name=\"a value that is longer than a size\"\r\nfine\r\n0\r\n\r\n", normalized);
        check("4          \r\nfine\r\n000\r\n\r\n", normalized);
        check("0000000000000000000000004\r\nfine\r\n0 ; last\r\nX-Sum: 1\r\nno colon\r\n\r\n", normalized);
        check("4\nfine\n0\n\n", normalized);
        check("a\r\n\r\n0\r\n\r\nxxx\r\n0\r\n\r\n", "a\r\n\r\n0\r\n\r\nxxx\r\n0\r\n\r\n");
    }

    #[test]
    fn a_malformed_body_is_passed_on_unchanged() {
        for malformed in
            ["zz\r\nfine", "4\r\nfinest\r\n0\r\n\r\n", "-4\r\nfine", "\r\n4\r\nfine", "ffffffffffffffff1\r\nx"]
        {
            check(malformed, malformed);
        }
        check("4\r\nfi", "4\r\nfi");
        check("4\r\nfine\r\n8", "4\r\nfine\r\n");
        let long = "x".repeat(MAX_LINE + 10);
        check(&format!("0\r\n{long}"), &format!("0\r\n{long}"));
    }
}
