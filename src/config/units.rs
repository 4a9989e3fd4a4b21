//! Durations, sizes, statuses and names as the operator writes them. Nothing here knows of files or places.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Why a text is not what it should be: what is wrong, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidValue {
    pub(super) what: String,
    pub(super) advice: String,
}

impl InvalidValue {
    fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        InvalidValue { what: what.into(), advice: advice.into() }
    }
}

/// `500ms`, `30s`, `1h 30m`. Months and years, which humantime knows too, are traps: its `1M` is a month.
pub(super) fn duration(text: &str) -> Result<Duration, InvalidValue> {
    let text = text.trim();
    if text.parse::<f64>().is_ok_and(|number| number.is_finite()) {
        return Err(InvalidValue::new("has no unit", format!("write {text}s")));
    }
    let letters = |character: char| !character.is_alphabetic() && character != 'µ';
    let odd = text.split(letters).find(|unit| !matches!(*unit, "" | "ms" | "s" | "m" | "h" | "d"));
    if let (Some(unit), true) = (odd, text.starts_with(|first: char| first.is_ascii_digit())) {
        return Err(InvalidValue::new(format!("has an unknown unit `{unit}`"), "units are ms, s, m (minutes), h, d"));
    }
    humantime::parse_duration(text)
        .map_err(|_| InvalidValue::new("is not a duration", "write it like 500ms, 30s or 1h 30m"))
}

/// `512B`, `64KiB`, `5MiB`, `1GiB`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, InvalidValue> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if !number.is_empty() => return Err(InvalidValue::new("has no unit", format!("write {number}B"))),
        _ => return Err(InvalidValue::new("is not a size", "write it like 64KiB or 5MiB; units are B, KiB, MiB, GiB")),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| InvalidValue::new("is not a size", "write it like 64KiB or 5MiB"))
}

/// `503`, or a range such as `200-299`.
pub(super) fn statuses(text: &str) -> Result<RangeInclusive<u16>, InvalidValue> {
    let code = |part: &str| part.trim().parse().ok().filter(|code| (100..=999).contains(code));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => {
            Err(InvalidValue::new("is a range that ends before it begins", "write the lower status first"))
        }
        _ => Err(InvalidValue::new("is not a status", "write a code (200), a range (200-299) or a list of them")),
    }
}

/// A target's name: it is part of file names, commands and messages.
pub(super) fn name(text: &str) -> Result<String, InvalidValue> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if text.len() > 64 {
        return Err(InvalidValue::new("is too long", "at most 64 characters"));
    }
    if !text.chars().all(allowed) || !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(InvalidValue::new(
            "is not a name",
            "letters, digits, . _ and -, beginning with a letter or a digit",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn is_variable(name: &str) -> bool {
    let first = |character: char| character.is_ascii_alphabetic() || character == '_';
    name.starts_with(first) && name.chars().all(|character| first(character) || character.is_ascii_digit())
}

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    // Longer words are slips of the pen no longer, and would take their time.
    if word.len() > 64 {
        return None;
    }
    let near = known.into_iter().map(|candidate| (slips(&word, &plain(candidate)), candidate));
    let (slips, candidate) = near.min_by_key(|(slips, _)| *slips)?;
    let letters = word.chars().count();
    (2 * slips < letters && slips <= (letters / 3).clamp(1, 3)).then_some(candidate)
}

/// How many letters were left out, added, mistaken or swapped with their neighbour.
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mistaken = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = mistaken.min(last[j] + 1).min(row[j - 1] + 1);
            if 1 < i && 1 < j && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn span(text: &str, expected: &str) {
        let told = match duration(text) {
            Ok(span) => format!("{} ms", span.as_millis()),
            Err(wrong) => format!("{}; {}", wrong.what, wrong.advice),
        };
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn durations_want_units_and_know_no_months() {
        span("500ms", "500 ms");
        span("1h 30m", "5400000 ms");
        span("1h30m", "5400000 ms");
        span("30 s", "30000 ms");
        span("1d", "86400000 ms");
        span("30", "has no unit; write 30s");
        span("1M", "has an unknown unit `M`; units are ms, s, m (minutes), h, d");
        span("2min", "has an unknown unit `min`; units are ms, s, m (minutes), h, d");
        span("5 years", "has an unknown unit `years`; units are ms, s, m (minutes), h, d");
        span("soon", "is not a duration; write it like 500ms, 30s or 1h 30m");
        span("-1s", "is not a duration; write it like 500ms, 30s or 1h 30m");
        span("99999999999999999999s", "is not a duration; write it like 500ms, 30s or 1h 30m");
        span("inf", "is not a duration; write it like 500ms, 30s or 1h 30m");
    }

    #[test]
    fn sizes_want_units() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("5 MiB"), Ok(5_242_880));
        assert_eq!(size("512B"), Ok(512));
        for wrong in ["", "KiB", "5MB", "64", "-1KiB", "1.5MiB", "99999999999999999999GiB", "18446744073709551615KiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn statuses_are_codes_and_ranges() {
        assert_eq!(statuses("200"), Ok(200..=200));
        assert_eq!(statuses("200-299"), Ok(200..=299));
        for wrong in ["", "99", "1000", "2xx", "299-200", "200-", "-200", "200-299-300"] {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_fit_for_files_and_messages() {
        for right in ["sav-backend", "0.db_1", &"x".repeat(64)] {
            assert!(name(right).is_ok(), "{right}");
        }
        for wrong in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }

    #[track_caller]
    fn near(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["interval", "retry_interval", "timeout", "max_restarts"]), expected, "{word}");
    }

    #[test]
    fn the_nearest_word_is_found_and_no_far_one() {
        near("intervall", Some("interval"));
        near("Timeuot", Some("timeout"));
        near("max-restarts", Some("max_restarts"));
        near("retry_intervals", Some("retry_interval"));
        near("colour", None);
        near("x", None);
        assert_eq!(nearest("db", ["dc", "x"]), None, "half of it is another");
    }
}
