//! Parses durations, sizes, statuses and names as the operator writes them.
//! It must never depend on the file or on a position in it.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Why a text is invalid, and what to write instead.
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

/// `500ms`, `30s`, `1h 30m`. The months and years of humantime are rejected, because its `1M` is a month.
pub(super) fn parse_duration(text: &str) -> Result<Duration, InvalidValue> {
    let text = text.trim();
    if text.parse::<f64>().is_ok_and(|number| number.is_finite()) {
        return Err(InvalidValue::new("has no unit", format!("write {text}s")));
    }
    let letters = |character: char| !character.is_alphabetic() && character != 'µ';
    let unknown = text.split(letters).find(|unit| !matches!(*unit, "" | "ms" | "s" | "m" | "h" | "d"));
    if let (Some(unit), true) = (unknown, text.starts_with(|first: char| first.is_ascii_digit())) {
        return Err(InvalidValue::new(format!("has an unknown unit `{unit}`"), "units are ms, s, m (minutes), h, d"));
    }
    humantime::parse_duration(text)
        .map_err(|_| InvalidValue::new("is not a duration", "write it like 500ms, 30s or 1h 30m"))
}

/// `512B`, `64KiB`, `5MiB`, `1GiB`, in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, InvalidValue> {
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
pub(super) fn parse_statuses(text: &str) -> Result<RangeInclusive<u16>, InvalidValue> {
    let code = |part: &str| part.trim().parse().ok().filter(|code| (100..=999).contains(code));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => {
            Err(InvalidValue::new("is a range that ends before it starts", "write the lower status first"))
        }
        _ => Err(InvalidValue::new("is not a status", "write a code (200), a range (200-299) or a list of them")),
    }
}

/// A target's name, which becomes part of file names, commands and messages.
pub(super) fn parse_name(text: &str) -> Result<String, InvalidValue> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if text.len() > 64 {
        return Err(InvalidValue::new("is too long", "at most 64 characters"));
    }
    if !text.chars().all(allowed) || !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(InvalidValue::new(
            "is not a valid name",
            "letters, digits, . _ and -, starting with a letter or a digit",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn is_variable(name: &str) -> bool {
    let first = |character: char| character.is_ascii_alphabetic() || character == '_';
    name.starts_with(first) && name.chars().all(|character| first(character) || character.is_ascii_digit())
}

/// The word of `known` that `word` is probably a misspelling of.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    // A longer word is no misspelling of a key, and comparing it would take long.
    if word.len() > 64 {
        return None;
    }
    let near = known.into_iter().map(|candidate| (edit_distance(&word, &plain(candidate)), candidate));
    let (distance, candidate) = near.min_by_key(|(distance, _)| *distance)?;
    let letters = word.chars().count();
    (2 * distance < letters && distance <= (letters / 3).clamp(1, 3)).then_some(candidate)
}

/// How many letters were omitted, added, replaced or swapped with their neighbour.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
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
    fn check_duration(text: &str, expected: &str) {
        let shown = match parse_duration(text) {
            Ok(duration) => format!("{} ms", duration.as_millis()),
            Err(invalid) => format!("{}; {}", invalid.what, invalid.advice),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn durations_need_units_and_exclude_months() {
        check_duration("500ms", "500 ms");
        check_duration("1h 30m", "5400000 ms");
        check_duration("1h30m", "5400000 ms");
        check_duration("30 s", "30000 ms");
        check_duration("1d", "86400000 ms");
        check_duration("30", "has no unit; write 30s");
        check_duration("1M", "has an unknown unit `M`; units are ms, s, m (minutes), h, d");
        check_duration("2min", "has an unknown unit `min`; units are ms, s, m (minutes), h, d");
        check_duration("5 years", "has an unknown unit `years`; units are ms, s, m (minutes), h, d");
        check_duration("soon", "is not a duration; write it like 500ms, 30s or 1h 30m");
        check_duration("-1s", "is not a duration; write it like 500ms, 30s or 1h 30m");
        check_duration("99999999999999999999s", "is not a duration; write it like 500ms, 30s or 1h 30m");
        check_duration("inf", "is not a duration; write it like 500ms, 30s or 1h 30m");
    }

    #[test]
    fn sizes_need_units() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("5 MiB"), Ok(5_242_880));
        assert_eq!(parse_size("512B"), Ok(512));
        for invalid in ["", "KiB", "5MB", "64", "-1KiB", "1.5MiB", "99999999999999999999GiB", "18446744073709551615KiB"]
        {
            assert!(parse_size(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn statuses_are_codes_and_ranges() {
        assert_eq!(parse_statuses("200"), Ok(200..=200));
        assert_eq!(parse_statuses("200-299"), Ok(200..=299));
        for invalid in ["", "99", "1000", "2xx", "299-200", "200-", "-200", "200-299-300"] {
            assert!(parse_statuses(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn names_are_safe_in_files_and_messages() {
        for valid in ["sav-backend", "0.db_1", &"x".repeat(64)] {
            assert!(parse_name(valid).is_ok(), "{valid}");
        }
        for invalid in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(parse_name(invalid).is_err(), "{invalid}");
        }
    }

    #[track_caller]
    fn check_nearest(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["interval", "retry_interval", "timeout", "max_restarts"]), expected, "{word}");
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        check_nearest("intervall", Some("interval"));
        check_nearest("Timeuot", Some("timeout"));
        check_nearest("max-restarts", Some("max_restarts"));
        check_nearest("retry_intervals", Some("retry_interval"));
        check_nearest("colour", None);
        check_nearest("x", None);
        assert_eq!(nearest("db", ["dc", "x"]), None, "half of the word differs");
    }
}
