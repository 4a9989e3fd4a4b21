//! JSON as servers really send it. What decides nothing must not spoil the rest: bytes that are no UTF-8, half a
//! surrogate pair, numbers that are too large and deep nesting are taken as clients take them, so are `NaN` and
//! `Infinity`. Pure.
//! It must never take anything else that is no JSON, nor recurse without bound.

use std::iter;

use serde_json::Value;
use serde_json::value::RawValue;

/// Brackets within brackets that are read; what is deeper is null. The parser itself refuses more than 127.
const DEEPEST: usize = 100;

pub(super) fn parse(body: &[u8]) -> serde_json::Result<Value> {
    if let Ok(found) = serde_json::from_slice(body) {
        return Ok(found);
    }
    let text = String::from_utf8_lossy(body);
    // This looks at the grammar alone, and without recursion.
    serde_json::from_str::<&RawValue>(&plain(&text, usize::MAX))?;
    serde_json::from_str(&plain(&text, DEEPEST))
}

/// The same in a form that the parser takes, if it is JSON.
fn plain(text: &str, deepest: usize) -> String {
    let mut plain = String::with_capacity(text.len());
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
        let was_deep = depth > deepest;
        match first {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (was_deep, depth > deepest) {
            (true, _) => {}
            (false, true) => plain.push_str("null"),
            (false, false) if first == '"' => push_string(&mut plain, part),
            (false, false) if is_word(first) => plain.push_str(word(part)),
            (false, false) => plain.push_str(part),
        }
    }
    plain
}

/// The length of the string at the start, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Adds a string in which each half of a surrogate pair that stands alone is U+FFFD.
fn push_string(plain: &mut String, mut rest: &str) {
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
        plain.extend(iter::once(before).chain([if is_lone { "\\ufffd" } else { escape }]));
        rest = after;
    }
    plain.push_str(rest);
}

/// A word or a number; one that is too large is the largest there is.
fn word(word: &str) -> &str {
    let is_large = || word.parse().is_ok_and(f64::is_infinite) && serde_json::from_str::<&RawValue>(word).is_ok();
    match word {
        "NaN" | "Infinity" | "-Infinity" => "null",
        _ if !is_large() => word,
        _ if word.starts_with('-') => "-1.7976931348623157e308",
        _ => "1.7976931348623157e308",
    }
}
