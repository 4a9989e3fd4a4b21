//! Parses JSON as servers really send it. Like other clients it accepts invalid UTF-8, lone surrogates, numbers out of
//! range, deep nesting, `NaN` and `Infinity`, so that an oddity in one value does not hide another value. Pure.
//! It must never accept anything else that is not JSON, nor recurse without a limit.

use std::iter;

use serde_json::Value;
use serde_json::value::RawValue;

/// Nesting that is kept; deeper values become null. serde_json itself rejects more than 127 levels.
const MAX_DEPTH: usize = 100;

pub(super) fn parse(body: &[u8]) -> serde_json::Result<Value> {
    if let Ok(found) = serde_json::from_slice(body) {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(body);
    // A `RawValue` is only checked against the grammar, and without recursion.
    serde_json::from_str::<&RawValue>(&normalize(&text, usize::MAX))?;
    serde_json::from_str(&normalize(&text, MAX_DEPTH))
}

/// The same value in a form that serde_json accepts; text that is not JSON stays invalid.
fn normalize(text: &str, max_depth: usize) -> String {
    let mut normalized = String::with_capacity(text.len());
    let (mut rest, mut depth) = (text, 0_usize);
    while let Some(first) = rest.chars().next() {
        let is_word = |char: char| char.is_ascii_alphanumeric() || "+-.".contains(char);
        let length = match first {
            '"' => string_length(rest),
            _ if is_word(first) => rest.find(|char| !is_word(char)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        rest = after;
        let was_deep = depth > max_depth;
        match first {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (was_deep, depth > max_depth) {
            (true, _) => {}
            (false, true) => normalized.push_str("null"),
            (false, false) if first == '"' => push_string(&mut normalized, part),
            (false, false) if is_word(first) => normalized.push_str(normalize_word(part)),
            (false, false) => normalized.push_str(part),
        }
    }
    normalized
}

/// The length of the string at the start of `text`, with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Appends a string with each lone surrogate replaced by U+FFFD.
fn push_string(normalized: &mut String, mut rest: &str) {
    while let Some((before, escape)) = rest.find('\\').map(|at| rest.split_at(at)) {
        let unit = |from| {
            let digits = escape.get(from..from + 6)?.strip_prefix("\\u")?;
            u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
        };
        let (length, is_lone) = match (unit(0), unit(6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            _ => (2, false),
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        normalized.extend(iter::once(before).chain([if is_lone { "\\ufffd" } else { escape }]));
        rest = after;
    }
    normalized.push_str(rest);
}

/// Replaces `NaN` and `Infinity` with null, and a number out of range with the largest or smallest double.
fn normalize_word(word: &str) -> &str {
    let is_out_of_range =
        || word.parse().is_ok_and(f64::is_infinite) && serde_json::from_str::<&RawValue>(word).is_ok();
    match word {
        "NaN" | "Infinity" | "-Infinity" => "null",
        _ if !is_out_of_range() => word,
        _ if word.starts_with('-') => "-1.7976931348623157e308",
        _ => "1.7976931348623157e308",
    }
}
