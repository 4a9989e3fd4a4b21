//! Formats the details of a probe and makes foreign text safe to show. Pure.
//! It must never let through a character that could move a cursor, hide text or forge a log line.

use std::fmt;
use std::time::Duration;

use crate::time::HumanDuration;

/// The longest detail, in characters: it must fit on one line of the log and of `status`.
const MAX_DETAIL: usize = 120;

/// Makes foreign text safe to show: escapes invisible characters and cuts long text.
pub(super) fn sanitize(text: &str) -> String {
    sanitize_to(text, MAX_DETAIL)
}

/// Like [`sanitize`], with a limit of `max` characters.
pub(super) fn sanitize_to(text: &str, max: usize) -> String {
    let mut sanitized = String::new();
    let mut remaining = max;
    for char in text.chars() {
        let width = if is_invisible(char) { char.escape_default().count() } else { 1 };
        if width > remaining {
            sanitized.push('…');
            break;
        }
        remaining -= width;
        if is_invisible(char) {
            sanitized.extend(char.escape_default());
        } else {
            sanitized.push(char);
        }
    }
    sanitized
}

/// Control characters, and marks that change how other text is shown: text direction, joiners, tags.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{600}'..='\u{605}' | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Shows a tenth of a millisecond below 10 ms, because a local connection takes 0.1 ms, and rounds to a tenth of a
/// second from 950 ms on, so that a wait of 9.998 s reads 10 s.
pub(super) struct FineDuration(pub(super) Duration);

impl fmt::Display for FineDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match ms {
            0..10 => write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3),
            10..950 => HumanDuration(self.0).fmt(f),
            _ => HumanDuration(Duration::from_millis(ms.saturating_add(50) / 100 * 100)).fmt(f),
        }
    }
}

pub(super) struct ByteSize(pub(super) u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1024 => write!(f, "{bytes} bytes"),
            bytes @ 1024..1_048_576 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

/// Formats as `a`, `a and b`, `a, b and c`, or `a, b, c and 2 more`.
pub(super) fn join_list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [first, second, third] => format!("{first}, {second} and {third}"),
        [first, second, third, rest @ ..] => format!("{first}, {second}, {third} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(sanitize_to(text, 12), expected);
    }

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        check("plain", "plain");
        check("größer 🦀", "größer 🦀");
        check("a\nb", "a\\nb");
        check("\x1b[31m", "\\u{1b}[31m");
        check("\u{9b}31m", "\\u{9b}31m");
        check("a\u{202e}b", "a\\u{202e}b");
        check("a\u{200b}", "a\\u{200b}");
        check("a\u{7f}", "a\\u{7f}");
        check("123456789012", "123456789012");
        check("1234567890123", "123456789012…");
        // An escape is never cut in two.
        check("1234567890\u{202e}", "1234567890…");
    }

    #[test]
    fn short_durations_keep_a_tenth_of_a_millisecond() {
        assert_eq!(FineDuration(Duration::from_micros(123)).to_string(), "0.1 ms");
        assert_eq!(FineDuration(Duration::from_micros(3_500)).to_string(), "3.5 ms");
        assert_eq!(FineDuration(Duration::from_millis(42)).to_string(), "42 ms");
        assert_eq!(FineDuration(Duration::from_micros(9_998_100)).to_string(), "10 s");
        assert_eq!(FineDuration(Duration::from_millis(2_449)).to_string(), "2.4 s");
        assert_eq!(
            FineDuration(Duration::MAX).to_string(),
            HumanDuration(Duration::from_millis(u64::MAX / 100 * 100)).to_string()
        );
    }

    #[test]
    fn a_list_shows_three_items_at_most() {
        let items: Vec<String> = "abcdef".chars().map(String::from).collect();
        assert_eq!(join_list(&items[..0]), "");
        assert_eq!(join_list(&items[..1]), "a");
        assert_eq!(join_list(&items[..2]), "a and b");
        assert_eq!(join_list(&items[..3]), "a, b and c");
        assert_eq!(join_list(&items), "a, b, c and 3 more");
    }
}
