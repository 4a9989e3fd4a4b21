//! Checks a response against the configuration: its status, then its text, then its JSON. Pure.
//! It must never show more of the response than a short sanitized excerpt.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::config::{BYTE_ORDER_MARK, HttpConfig, Secrets, is_utf16};
use crate::outcome::Class;

use super::failure::Failure;
use super::json;
use super::sanitize::sanitize_to;

/// Characters of a value, or of the `contains` text, that are shown.
const MAX_SHOWN: usize = 40;

#[derive(Debug)]
pub(super) struct Expectations {
    status: Vec<RangeInclusive<u16>>,
    contains: Option<String>,
    json: Vec<(String, Value)>,
    secrets: Secrets,
}

impl Expectations {
    pub(super) fn new(http: &HttpConfig, secrets: &Secrets) -> Self {
        let (status, contains, json) = (http.status.clone(), http.contains.clone(), http.json.clone());
        Expectations { status, contains, json, secrets: secrets.clone() }
    }

    pub(super) fn check_status(&self, status: u16) -> Result<(), Failure> {
        if self.status.iter().any(|range| range.contains(&status)) {
            return Ok(());
        }
        let note =
            if matches!(status, 301 | 302 | 303 | 307 | 308) { ", a redirect, which is not followed" } else { "" };
        Err(Failure::Unhealthy(Class::Status, format!("status {status}{note}")))
    }

    pub(super) fn check_body(&self, body: &[u8], codings: &[String]) -> Result<(), Failure> {
        let body = body.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(body);
        if let Some(text) = &self.contains
            && !contains_bytes(body, text.as_bytes())
        {
            let encoding =
                unexpected_encoding(body, codings).map_or_else(String::new, |encoding| format!(": {encoding}"));
            return Err(body_failure(format!("body lacks `{}`{encoding}", sanitize_to(text, MAX_SHOWN))));
        }
        if self.json.is_empty() {
            return Ok(());
        }
        let found = json::parse(body).map_err(|error| match (body, unexpected_encoding(body, codings)) {
            ([], _) => body_failure("body is empty, not JSON".into()),
            (_, Some(encoding)) => body_failure(format!("body is not JSON: {encoding}")),
            (_, None) => body_failure(format!("body is not JSON: {error}")),
        })?;
        for (pointer, expected) in &self.json {
            match found.pointer(pointer) {
                None => return Err(body_failure(format!("{pointer} is missing"))),
                Some(value) if is_equal(value, expected) => {}
                Some(value) => {
                    let (value, expected) = (self.excerpt(value), self.excerpt(expected));
                    return Err(body_failure(format!("{pointer} is {value}, not {expected}")));
                }
            }
        }
        Ok(())
    }

    fn excerpt(&self, value: &Value) -> String {
        sanitize_to(&self.secrets.redact(&value.to_string()), MAX_SHOWN)
    }
}

fn body_failure(detail: String) -> Failure {
    Failure::Unhealthy(Class::Body, detail)
}

/// The content coding or character set that hides the text of a body; `None` if there is no sign of one.
fn unexpected_encoding(body: &[u8], codings: &[String]) -> Option<String> {
    let starts = |coding: &'static str, magic: &[u8]| body.starts_with(magic).then_some(coding);
    let coding = codings.first().map(String::as_str);
    let coding = coding.or_else(|| starts("gzip", &[0x1f, 0x8b])).or_else(|| starts("zstd", &[0x28, 0xb5, 0x2f, 0xfd]));
    match coding {
        Some(coding) => {
            Some(format!("its content coding is {}, which was not requested", sanitize_to(coding, MAX_SHOWN)))
        }
        None => is_utf16(body).then(|| "it is UTF-16, not UTF-8".to_owned()),
    }
}

fn contains_bytes(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// Compares numbers by value: 1 equals 1.0.
fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| is_equal(left, right)))
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expectations(contains: Option<&str>, json: Value) -> Expectations {
        let Value::Object(json) = json else { panic!("pointers and values") };
        Expectations {
            status: vec![200..=299, 304..=304],
            contains: contains.map(Into::into),
            json: json.into_iter().collect(),
            secrets: Secrets::default(),
        }
    }

    #[test]
    fn a_secret_in_a_value_is_redacted_before_the_value_is_cut() {
        let mut expectations = expectations(None, json!({"/status": "ok"}));
        expectations.secrets = Secrets::of(&["a-secret-longer-than-what-is-shown-of-a-value"]);
        let body = br#"{"status": "no: a-secret-longer-than-what-is-shown-of-a-value"}"#;
        assert_eq!(expectations.check_body(body, &[]), Err(body_failure(r#"/status is "no: …", not "ok""#.into())));
    }

    #[track_caller]
    fn check(contains: Option<&str>, json: Value, body: &str, expected: &str) {
        check_bytes(contains, json, body.as_bytes(), &[], expected);
    }

    #[track_caller]
    fn check_bytes(contains: Option<&str>, json: Value, body: &[u8], codings: &[&str], expected: &str) {
        let codings: Vec<String> = codings.iter().map(|coding| (*coding).to_owned()).collect();
        let found = match expectations(contains, json).check_body(body, &codings) {
            Ok(()) => "ok".into(),
            Err(Failure::Unhealthy(Class::Body, detail)) => detail,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_text_is_checked_before_the_json() {
        check(None, json!({}), "whatever", "ok");
        check(Some("ok"), json!({}), "it is ok.", "ok");
        check(Some("ok"), json!({}), "it is not", "body lacks `ok`");
        check(Some("ok"), json!({}), "", "body lacks `ok`");
        check(Some(""), json!({}), "", "ok");
        check(Some("no"), json!({"/a": 1}), "not JSON", "body is not JSON: expected ident at line 1 column 2");
        check(None, json!({"/a": 1}), "", "body is empty, not JSON");
        check(None, json!({"/a": 1}), "{\"a\": 1}", "ok");
        check(None, json!({"/a": 1}), "{\"a\": 1.0}", "ok");
        check(None, json!({"/a": [1]}), "{\"a\": [1.0]}", "ok");
        check(None, json!({"/a": 1}), "{\"a\": \"1\"}", "/a is \"1\", not 1");
        check(None, json!({"/db/up": true}), "{\"db\": {\"up\": false}}", "/db/up is false, not true");
        check(None, json!({"/db/up": true}), "{\"db\": {}}", "/db/up is missing");
        check(None, json!({"/a": null}), "{}", "/a is missing");
        check(None, json!({"/a": null}), "{\"a\": null}", "ok");
        check(None, json!({"": {"a": 1}}), "{\"a\": 1}", "ok");
        check(None, json!({"/a": {"b": 1}}), "{\"a\": {\"b\": 1, \"c\": 2}}", "/a is {\"b\":1,\"c\":2}, not {\"b\":1}");
        check(None, json!({"/0": "x"}), "[\"\\u202e\"]", "/0 is \"\\u{202e}\", not \"x\"");
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_an_unexpected_encoding_is_named() {
        check(None, json!({"/a": 1}), "\u{feff}{\"a\": 1}", "ok");
        check(Some("ok"), json!({}), "\u{feff}ok", "ok");
        check(None, json!({"/a": 1}), "\u{feff}", "body is empty, not JSON");
        check(None, json!({"/a": 1}), "\u{feff}<", "body is not JSON: expected value at line 1 column 1");
        let utf16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
            [mark, &"{\"a\": 1}".encode_utf16().flat_map(bytes).collect::<Vec<u8>>()].concat()
        };
        for body in [utf16(&[0xff, 0xfe], u16::to_le_bytes), utf16(&[], u16::to_le_bytes), utf16(&[], u16::to_be_bytes)]
        {
            check_bytes(None, json!({"/a": 1}), &body, &[], "body is not JSON: it is UTF-16, not UTF-8");
            check_bytes(Some("1"), json!({}), &body, &[], "ok");
            check_bytes(Some("a\""), json!({}), &body, &[], "body lacks `a\"`: it is UTF-16, not UTF-8");
        }
        let gzip = "its content coding is gzip, which was not requested";
        check_bytes(None, json!({"/a": 1}), &[0x1f, 0x8b, 8], &[], &format!("body is not JSON: {gzip}"));
        check_bytes(Some("ok"), json!({}), b"\x01", &["gzip"], &format!("body lacks `ok`: {gzip}"));
        let brotli = "body is not JSON: its content coding is br, which was not requested";
        check_bytes(None, json!({"/a": 1}), b"\x8b", &["br"], brotli);
        // The header names a coding, but the body is plain.
        check_bytes(None, json!({"/a": 1}), b"{\"a\": 1}", &["gzip"], "ok");
    }

    #[test]
    fn odd_json_that_clients_accept_is_parsed_and_the_rest_is_refused() {
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(200), close.repeat(200)).into_bytes();
        let odd: [&[u8]; 16] = [
            b"\"M\xfcller\"",
            b"{\"\xfc\": \"\xed\xa0\x80\"}",
            br#""\ud800""#,
            br#""\udc00\ud83d\ude00 \\ud800 \ud83d\u0041\"""#,
            br#"{"\ud800": 1}"#,
            b"1e999",
            b"[-1E+999, 0.5e400]",
            &[b'9'; 400],
            b"NaN",
            b"[Infinity, -Infinity,NaN]",
            br#"["NaN, \" 1e999]", NaN]"#,
            &deep("[", "]"),
            &deep("{\"a\":", "}"),
            &deep("[\"]\", {\"a\": ", "}]"),
            b"{\"a\": [{}, []]}",
            b"[1e-999]",
        ];
        for value in odd {
            let body = [b"{\"other\": ", value, b", \"status\": \"ok\"}"].concat();
            check_bytes(None, json!({"/status": "ok"}), &body, &[], "ok");
        }
        check_bytes(
            None,
            json!({"/status": "ok"}),
            b"{\"status\": \"o\xffk\"}",
            &[],
            "/status is \"o\u{fffd}k\", not \"ok\"",
        );
        check(None, json!({"/0": null}), "[1e999]", "/0 is 1.7976931348623157e+308, not null");
        check(None, json!({"/0": "\u{1f600}\u{fffd}"}), r#"["\ud83d\ude00\ud83d", NaN]"#, "ok");
        let invalid: [&[u8]; 15] = [
            b"nan",
            b"-NaN",
            b"+Infinity",
            b"1NaN",
            b"NaN1",
            b"inf",
            b"-inf",
            b"01e999",
            b"1e",
            b".1e999",
            b"\xff",
            b"[1e999",
            b"\"\\ud8\"",
            b"[1,]",
            b"]",
        ];
        for value in invalid.into_iter().map(<[u8]>::to_vec).chain([deep("[", ""), deep("[", "}"), deep("[1 ", "]")]) {
            let body = [b"{\"other\": ", &value[..], b", \"status\": \"ok\"}"].concat();
            match expectations(None, json!({"/status": "ok"})).check_body(&body, &[]) {
                Err(Failure::Unhealthy(Class::Body, detail)) if detail.starts_with("body is not JSON") => {}
                other => panic!("{}: {other:?}", String::from_utf8_lossy(&body)),
            }
        }
    }

    #[test]
    fn a_status_must_be_in_one_of_the_ranges() {
        let expectations = expectations(None, json!({}));
        for expected in [200, 299, 304] {
            assert!(expectations.check_status(expected).is_ok(), "{expected}");
        }
        for (status, message) in [(503, "status 503"), (301, "status 301, a redirect, which is not followed")] {
            match expectations.check_status(status) {
                Err(Failure::Unhealthy(Class::Status, detail)) => assert_eq!(detail, message),
                other => panic!("{status}: {other:?}"),
            }
        }
    }
}
