//! Parses the head of an HTTP response as servers really send it, and keeps what determines how the body is read. Pure.
//! It must never reject a response because of a line that does not affect that.

/// Headers that are kept as evidence.
const MAX_HEADERS: usize = 40;
/// Characters of a length or coding that are kept; every valid one is shorter.
const MAX_VALUE: usize = 64;
const STATUS_LINE_START: &[u8] = b"HTTP/1.";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    status: u16,
    is_chunked: bool,
    /// The distinct values of Content-Length.
    lengths: Vec<String>,
    /// The codings of the body other than `chunked`, such as `gzip`.
    pub(super) codings: Vec<String>,
    /// The first headers, with names in lower case. A line without a colon becomes a name with an empty value.
    pub(super) headers: Vec<(String, String)>,
}

/// Whether the bytes received so far can be the start of an HTTP/1 response.
pub(super) fn may_be_http(bytes: &[u8]) -> bool {
    bytes.iter().zip(STATUS_LINE_START).all(|(found, expected)| found.eq_ignore_ascii_case(expected))
}

/// The end of the head, after the first empty line, whose line end may be LF alone or have several CRs.
/// The bytes before `from` were searched before.
pub(super) fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    let ends = bytes.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1).find_map(|next| {
        let end = next + bytes[next..].iter().take_while(|byte| **byte == b'\r').count();
        (bytes.get(end) == Some(&b'\n')).then_some(end + 1)
    })
}

impl Head {
    /// `None` if the first line is not a status line.
    pub(super) fn parse(bytes: &[u8]) -> Option<Head> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let mut head = Head { status: parse_status_line(lines.next()?)?, ..Head::default() };
        let mut header = Vec::new();
        for line in lines {
            match line {
                // A folded line continues the header before it; the status line cannot be continued.
                [b' ' | b'\t', ..] if header.is_empty() => {}
                [b' ' | b'\t', rest @ ..] => {
                    header.push(b' ');
                    header.extend_from_slice(rest.trim_ascii_start());
                }
                _ => {
                    head.add_header(&header);
                    header.clear();
                    header.extend_from_slice(line);
                }
            }
        }
        head.add_header(&header);
        Some(head)
    }

    pub(super) fn status(&self) -> Option<u16> {
        Some(self.status).filter(|status| *status >= 100)
    }

    /// Whether another response follows. After 101 nothing else does in HTTP.
    pub(super) fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.is_chunked
    }

    /// An equivalent head that every parser accepts. The version is always HTTP/1.1, because a chunked body needs it,
    /// and HTTP/1.0 servers that announce chunks also send them.
    pub(super) fn normalized(&self) -> String {
        let length = match (self.is_chunked, &self.lengths[..]) {
            (true, _) => "Transfer-Encoding: chunked\r\n".into(),
            (false, []) => String::new(),
            (false, lengths) => format!("Content-Length: {}\r\n", lengths.join(", ")),
        };
        format!("HTTP/1.1 {:03} \r\nConnection: close\r\n{length}\r\n", self.status)
    }

    fn add_header(&mut self, header: &[u8]) {
        if header.is_empty() {
            return;
        }
        let colon = header.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(at) => (to_text(&header[..at]).to_ascii_lowercase(), to_text(&header[at + 1..])),
            None => (to_text(header), String::new()),
        };
        match name.as_str() {
            "content-length" => list_items(&value).for_each(|length| add_distinct(&mut self.lengths, length)),
            "content-encoding" | "transfer-encoding" => self.add_codings(&value),
            _ => {}
        }
        if self.headers.len() < MAX_HEADERS {
            self.headers.push((name, value));
        }
    }

    fn add_codings(&mut self, value: &str) {
        for item in list_items(value) {
            let coding = item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            match coding.as_str() {
                "" | "identity" => {}
                "chunked" => self.is_chunked = true,
                _ => add_distinct(&mut self.codings, &coding),
            }
        }
    }
}

/// The code of a status line, whose reason phrase is ignored and may be missing.
fn parse_status_line(line: &[u8]) -> Option<u16> {
    let (minor, rest) = line.get(STATUS_LINE_START.len()..).filter(|_| may_be_http(line))?.split_first()?;
    let code = rest.trim_ascii_start();
    let (code, reason) = code.split_at_checked(3).filter(|_| code.len() < rest.len() && minor.is_ascii_digit())?;
    let is_code = code.iter().all(u8::is_ascii_digit) && matches!(reason, [] | [b' ' | b'\t', ..]);
    is_code.then(|| str::from_utf8(code).ok()?.parse().ok())?
}

fn to_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
}

fn list_items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Keeps at most two items: two different ones already show a contradiction.
fn add_distinct(found: &mut Vec<String>, item: &str) {
    if found.len() < 2 && found.iter().all(|known| known != item) {
        found.push(item.chars().take(MAX_VALUE).map(|char| if char.is_control() { '?' } else { char }).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, expected: Option<&str>) {
        let plain = Head::parse(head.as_bytes()).map(|head| head.normalized().replace("\r\nConnection: close", ""));
        assert_eq!(plain.as_deref().map(str::trim_end), expected, "{head}");
    }

    #[test]
    fn a_status_line_is_normalized_or_rejected() {
        check("HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", Some("HTTP/1.1 200"));
        for odd in
            ["HTTP/1.1 200", "http/1.0 200 fine", "HTTP/1.1  200 \t", "HTTP/1.1 200 \u{7}\u{1b}ä", "HTTP/1.9\t200"]
        {
            check(&format!("{odd}\r\n\r\n"), Some("HTTP/1.1 200"));
        }
        for none in ["HTTP/1.1200 OK", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 200OK", "HTTP/2 200", "ICY 200 OK", ""]
        {
            check(&format!("{none}\r\n\r\n"), None);
        }
        check("HTTP/1.1 042 X\n\n", Some("HTTP/1.1 042"));
    }

    #[test]
    fn only_headers_about_length_and_chunks_are_kept_in_the_normalized_head() {
        let length = Some("HTTP/1.1 200 \r\nContent-Length: 4");
        let chunked = Some("HTTP/1.1 200 \r\nTransfer-Encoding: chunked");
        let with = |lines: &str, expected| check(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"), expected);
        with("X Y: a\r\n: b\r\nno colon\r\nX\u{0}: \u{1}\r\nContent-Length: 4", length);
        with(" folded\r\nX: a\r\n\tContent-Length: 5\r\nContent-Length:\r\n  4", length);
        with("X: a\nContent-Length : 4\n \nY: b", length);
        with("CONTENT-LENGTH: 4\r\ncontent-length: 4, 4", length);
        with("Content-Length: 4\r\nContent-Length: 5", Some("HTTP/1.1 200 \r\nContent-Length: 4, 5"));
        with("Content-Length:\r\nContent-Length: , 4,", length);
        with("Content-Length: \t", Some("HTTP/1.1 200"));
        with("Content-Length: -4", Some("HTTP/1.1 200 \r\nContent-Length: -4"));
        with("Content-Length: 4\r\nTransfer-Encoding: identity", length);
        with("Content-Length: 9\r\nTransfer-Encoding: gzip, Chunked;q=1", chunked);
        let many = "X-Many: of them\r\n".repeat(1_000);
        with(&format!("{many}Content-Length: 4"), length);
        check("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked);
    }

    #[test]
    fn headers_and_codings_are_kept_as_evidence() {
        let head = Head::parse(b"HTTP/1.1 503 X\r\nX Y: a\r\n b\r\nNo colon\r\nContent-Encoding: gzip\r\n\r\n")
            .expect("a head");
        let pairs: Vec<String> = head.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["x y=a b", "No colon=", "content-encoding=gzip"]);
        assert_eq!(head.codings, ["gzip"]);
        let many = format!("HTTP/1.1 200\n{}\n", "X: y\n".repeat(100));
        assert_eq!(Head::parse(many.as_bytes()).expect("a head").headers.len(), MAX_HEADERS);
    }

    #[test]
    fn a_head_ends_at_the_first_empty_line() {
        #[track_caller]
        fn check(bytes: &str, from: usize, expected: Option<usize>) {
            assert_eq!(find_end(bytes.as_bytes(), from), expected, "{bytes:?}");
        }
        check("a\r\n\r\nb", 0, Some(5));
        check("a\n\nb", 0, Some(3));
        check("a\r\n\nb", 1, Some(4));
        check("a\r\n \r\n\r\n", 0, Some(8));
        check("a\r\n\r", 0, None);
        check("a\r\n\r\r\nb", 0, Some(6));
        check("a\n\r\r\r\n\n", 1, Some(6));
        check("a\r\r\nb\r\r", 0, None);
        check("a\r\nb\r\n", 0, None);
        check("a\r\n\r\n", 2, Some(5));
        check("", 0, None);
    }
}
