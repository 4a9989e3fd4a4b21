//! Corrupted input, as a broken disk, a hostile server or another version may leave it. It is the same in each run, so
//! that a failure can be reproduced.

/// Numbers in unusual forms, and past the limits of every integer type.
const NUMBERS: [&str; 9] =
    ["-1", "0", "7", "1e18", "1e999", "0.5", "9223372036854775807", "-9223372036854775808", "18446744073709551616"];

/// Text that breaks readers: ends and depths of JSON, YAML and HTML, terminal control sequences, line breaks, invalid
/// UTF-8.
const HURTFUL: [&[u8]; 25] = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\r\n",
    b"\n\n",
    b": ",
    b"\n- ",
    b"\t",
    b"&a *a ",
    b"!<!> ",
    b"|\n ",
    b"\xef\xbb\xbf",
    b"&<>'\"",
    b"</script>",
    b"\x1b[2J\x07",
    b"\0",
    b"\xff\xfe",
    "\u{9b}\u{202e}\u{2028}".as_bytes(),
];

/// `sample` with a few corruptions. Half of them replace a number; the others insert or overwrite with something from
/// `HURTFUL`, cut a piece out, repeat a piece, or truncate. One sample in ten is replaced by random bytes first.
pub(crate) fn mangled(sample: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    if dice.u8(..10) == 0 {
        bytes = (0..dice.usize(..200)).map(|_| dice.u8(..)).collect();
    }
    for _ in 0..dice.usize(1..5).min(dice.usize(1..5)) {
        let begin = dice.usize(..=bytes.len());
        let end = bytes.len().min(begin + dice.usize(..16));
        let hurtful = HURTFUL[dice.usize(..HURTFUL.len())];
        match dice.u8(..10) {
            0..=4 => drop(bytes.splice(number_at(&bytes, begin), NUMBERS[dice.usize(..NUMBERS.len())].bytes())),
            5 => drop(bytes.splice(begin..end, hurtful.iter().copied())),
            6 => drop(bytes.splice(begin..begin, hurtful.iter().copied())),
            7 => drop(bytes.drain(begin..end)),
            8 => drop(bytes.splice(begin..begin, bytes[begin..end].to_vec())),
            _ => bytes.truncate(begin),
        }
    }
    bytes
}

/// The range of the first whole number at or after `begin`; empty at the end if there is none.
fn number_at(bytes: &[u8], begin: usize) -> std::ops::Range<usize> {
    let length = |from: usize, is_digit: bool| {
        bytes[from..].iter().position(|byte| byte.is_ascii_digit() != is_digit).unwrap_or(bytes.len() - from)
    };
    let start = begin + length(begin, false);
    start..start + length(start, true)
}
