//! Writing for people to streams that may be closed or dead. It must never panic on one, as `println!` does.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

/// Writes `text` and a line feed, as they are: whoever puts a stranger's words into `text` has them [`escaped`].
/// Answers whether they were taken; no means that nobody reads any more, which is no error of ours.
pub fn write_line(mut stream: impl Write, text: &str) -> bool {
    let line = [text.as_bytes(), b"\n"].concat();
    stream.write_all(&line).and_then(|()| stream.flush()).is_ok()
}

/// `text` on one line and without power over a terminal: control characters, and those that turn the direction of
/// writing, become `\n`, `\u{1b}` and so on.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_powerful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_powerful(character) {
            write!(safe, "{}", character.escape_default()).expect("a String takes all");
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn is_powerful(character: char) -> bool {
    let breaks_lines = matches!(character, '\u{2028}' | '\u{2029}');
    let turns =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || breaks_lines || turns
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
    fn nothing_in_a_text_acts_on_the_terminal() {
        check("", "");
        check("status 503, wants 200-299", "status 503, wants 200-299");
        check("größer ☃ \\n", "größer ☃ \\n");
        check("two\nlines\r\n", "two\\nlines\\r\\n");
        check("a\tb", "a\\tb");
        check("\x1b[2J\x07", "\\u{1b}[2J\\u{7}");
        check("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}");
        check("a\u{202e}b\u{2066}c\u{2028}d", "a\\u{202e}b\\u{2066}c\\u{2028}d");
    }

    #[test]
    fn no_text_keeps_any_power() {
        fuzz(&[b"503 \x1b[31mDown\x1b[0m", "gr\u{f6}\u{df}er \u{202e}".as_bytes()], 5_000, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let safe = escaped(&text);
            // Of what the texts are made from, all that has power: the controls of ASCII and beyond, and two marks.
            let has_power = |letter| matches!(letter, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{202e}' | '\u{2028}');
            assert!(!safe.contains(has_power), "{safe:?}");
            assert_eq!(escaped(&safe), safe, "what is safe stays as it is");
        });
    }

    #[test]
    fn a_line_is_written_or_not_but_nothing_panics() {
        let mut taken = Vec::new();
        assert!(write_line(&mut taken, "a\tb"));
        assert_eq!(taken, b"a\tb\n");

        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        assert!(!write_line(&writer, "nobody reads this"));

        let full = File::options().write(true).open("/dev/full").expect("the device that is always full");
        assert!(!write_line(&full, "no room for this"));
    }
}
