//! Shortens texts to what a service accepts. It must never cut the end, which says what to do, or the first line, which
//! says what happened, unless that line alone is too long.

const ELLIPSIS: &str = "\n…\n";

/// Cuts the middle out of a text that is longer than `max`, where `size` gives the size of each character. The first
/// line stays whole unless it alone is too long.
pub(super) fn fit(text: &str, max: usize, size: impl Fn(char) -> usize) -> String {
    let size_of = |text: &str| text.chars().map(&size).sum::<usize>();
    if size_of(text) <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(size_of(ELLIPSIS));
    let first = size_of(text.lines().next().unwrap_or_default());
    let head = room / 2;
    let head = if first < room { head.max(first) } else { head };
    let head = last_that_fits(text.char_indices(), head, &size).map_or(0, |(at, letter)| at + letter.len_utf8());
    let room = room - size_of(&text[..head]);
    let tail = last_that_fits(text[head..].char_indices().rev(), room, &size).map_or(text.len(), |(at, _)| head + at);
    format!("{}{ELLIPSIS}{}", &text[..head], &text[tail..])
}

/// The last of the leading characters that together fit into `room`.
fn last_that_fits(
    letters: impl Iterator<Item = (usize, char)>,
    room: usize,
    size: impl Fn(char) -> usize,
) -> Option<(usize, char)> {
    let mut used = 0;
    let has_room = |(_, letter): &(usize, char)| {
        used += size(*letter);
        used <= room
    };
    letters.take_while(has_room).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, most: usize, expected: &str) {
        let found = fit(text, most, char::len_utf8);
        assert_eq!(found, expected);
        assert!(found.len() <= most, "{} bytes", found.len());
    }

    #[test]
    fn a_long_text_is_cut_in_the_middle() {
        check("abc\ndef", 7, "abc\ndef");
        check("first\nabcdefghij", 15, "first\n…\nfghij");
        check("first\nabcdefghijklmnopqrstuvw", 25, "first\nabcd\n…\nnopqrstuvw");
        check("ääää\nöööö", 16, "ääää\n…\nö");
        // A first line that alone is too long.
        check("abcdefghijklmnop", 11, "abc\n…\nnop");
        check("abcdefghij", 5, "\n…\n");
    }

    #[test]
    fn the_first_line_and_the_end_stay_at_every_length() {
        let text = format!("[DOWN] größer on srv412\n{}\nMore: watchdog incident last", "🦀äx".repeat(3_000));
        for most in 70..9_000 {
            for (size, of) in [
                (char::len_utf8 as fn(char) -> usize, str::len as fn(&str) -> usize),
                (char::len_utf16, |text: &str| text.encode_utf16().count()),
            ] {
                let found = fit(&text, most, size);
                assert!(of(&found) <= most && of(&found) + 8 > most, "{} of {most}", of(&found));
                assert!(found.starts_with("[DOWN] größer on srv412\n") && found.ends_with("incident last"), "{found}");
            }
        }
    }
}
