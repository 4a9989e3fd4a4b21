//! Writes lines for people to streams that may be closed, and escapes text for terminals.
//! It must never panic on a closed stream, as `println!` does.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

/// Writes `text` and a line feed without escaping: the caller must pass text from outside through [`escaped`].
/// Returns false if the stream did not take it: its reader is gone, which is not an error of this program.
pub fn write_line(mut stream: impl Write, text: &str) -> bool {
    let line = [text.as_bytes(), b"\n"].concat();
    stream.write_all(&line).and_then(|()| stream.flush()).is_ok()
}

/// `text` on one line and without effect on a terminal: control characters, and those that change the direction of
/// writing, become `\n`, `\u{1b}` and so on.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(affects_terminal) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if affects_terminal(character) {
            write!(safe, "{}", character.escape_default()).expect("writing to a String cannot fail");
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn affects_terminal(character: char) -> bool {
    let breaks_lines = matches!(character, '\u{2028}' | '\u{2029}');
    let changes_direction =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || breaks_lines || changes_direction
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::pipe;

    use super::*;
    use crate::testing::fuzz;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(escaped(text), expected);
    }

    #[test]
    fn text_that_affects_a_terminal_is_escaped() {
        check("", "");
        check("status 503, expected 200-299", "status 503, expected 200-299");
        check("größer ☃ \\n", "größer ☃ \\n");
        check("two\nlines\r\n", "two\\nlines\\r\\n");
        check("a\tb", "a\\tb");
        check("\x1b[2J\x07", "\\u{1b}[2J\\u{7}");
        check("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}");
        check("a\u{202e}b\u{2066}c\u{2028}d", "a\\u{202e}b\\u{2066}c\\u{2028}d");
    }

    #[test]
    fn no_escaped_text_affects_a_terminal() {
        fuzz(&[b"503 \x1b[31mDown\x1b[0m", "gr\u{f6}\u{df}er \u{202e}".as_bytes()], 5_000, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let safe = escaped(&text);
            // The characters that affect a terminal and can occur here: control characters and two marks.
            let has_effect = |letter| matches!(letter, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{202e}' | '\u{2028}');
            assert!(!safe.contains(has_effect), "{safe:?}");
            assert_eq!(escaped(&safe), safe, "safe text is not changed");
        });
    }

    #[test]
    fn a_line_that_cannot_be_written_causes_no_panic() {
        let mut taken = Vec::new();
        assert!(write_line(&mut taken, "a\tb"));
        assert_eq!(taken, b"a\tb\n");

        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        assert!(!write_line(&writer, "nobody reads this"));

        let full = File::options().write(true).open("/dev/full").expect("/dev/full exists on Linux");
        assert!(!write_line(&full, "no room for this"));
    }
}
