//! Whether an answer is the one that is wanted: its status, then its text, then its JSON. Pure.
//! It must never show more of the answer than a few tamed words.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::config::{Http, Secrets};
use crate::outcome::Class;

use super::Failure;
use super::words::tame_to;

/// Characters of a value, or of the text looked for, that are shown.
const VALUE: usize = 40;

/// What an answer must be.
#[derive(Debug)]
pub(super) struct Wanted {
    status: Vec<RangeInclusive<u16>>,
    contains: Option<String>,
    json: Vec<(String, Value)>,
    /// What an answer may repeat and must not be shown of it.
    secrets: Secrets,
}

impl Wanted {
    pub(super) fn new(http: &Http, secrets: &Secrets) -> Self {
        let (status, contains, json) = (http.status.clone(), http.contains.clone(), http.json.clone());
        Wanted { status, contains, json, secrets: secrets.clone() }
    }

    /// Judges the status; a 3xx as it is.
    pub(super) fn status(&self, status: u16) -> Result<(), Failure> {
        if self.status.iter().any(|wanted| wanted.contains(&status)) {
            return Ok(());
        }
        let note =
            if matches!(status, 301 | 302 | 303 | 307 | 308) { ", a redirect, which is not followed" } else { "" };
        Err(Failure::Target(Class::Status, format!("status {status}{note}")))
    }

    /// Judges a whole body.
    pub(super) fn body(&self, body: &[u8]) -> Result<(), Failure> {
        if let Some(text) = &self.contains
            && !holds(body, text.as_bytes())
        {
            return Err(wrong(format!("body lacks `{}`", tame_to(text, VALUE))));
        }
        if self.json.is_empty() {
            return Ok(());
        }
        let found: Value = serde_json::from_slice(body).map_err(|error| match body {
            [] => wrong("body is empty, not JSON".into()),
            _ => wrong(format!("body is not JSON: {error}")),
        })?;
        for (pointer, wanted) in &self.json {
            match found.pointer(pointer) {
                None => return Err(wrong(format!("{pointer} is not there"))),
                Some(value) if same(value, wanted) => {}
                Some(value) => {
                    let (value, wanted) = (self.brief(value), self.brief(wanted));
                    return Err(wrong(format!("{pointer} is {value}, not {wanted}")));
                }
            }
        }
        Ok(())
    }

    /// A value as JSON has it, cut.
    fn brief(&self, value: &Value) -> String {
        tame_to(&self.secrets.strike(&value.to_string()), VALUE)
    }
}

fn wrong(detail: String) -> Failure {
    Failure::Target(Class::Body, detail)
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// Equal as people mean it: 1 and 1.0 are the same number.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(contains: Option<&str>, json: Value) -> Wanted {
        let Value::Object(json) = json else { panic!("pointers and values") };
        Wanted {
            status: vec![200..=299, 304..=304],
            contains: contains.map(Into::into),
            json: json.into_iter().collect(),
            secrets: Secrets::default(),
        }
    }

    #[test]
    fn a_secret_that_is_repeated_is_struck_out_before_the_value_is_cut() {
        let mut wanted = wanted(None, json!({"/status": "ok"}));
        wanted.secrets = Secrets::of(&["a-secret-longer-than-what-is-shown-of-a-value"]);
        let body = br#"{"status": "no: a-secret-longer-than-what-is-shown-of-a-value"}"#;
        assert_eq!(wanted.body(body), Err(wrong(r#"/status is "no: …", not "ok""#.into())));
    }

    #[track_caller]
    fn check(contains: Option<&str>, json: Value, body: &str, expected: &str) {
        let found = match wanted(contains, json).body(body.as_bytes()) {
            Ok(()) => "ok".into(),
            Err(Failure::Target(Class::Body, detail)) => detail,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn bodies_are_judged_by_text_then_json() {
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
        check(None, json!({"/db/up": true}), "{\"db\": {}}", "/db/up is not there");
        check(None, json!({"/a": null}), "{}", "/a is not there");
        check(None, json!({"/a": null}), "{\"a\": null}", "ok");
        check(None, json!({"": {"a": 1}}), "{\"a\": 1}", "ok");
        check(None, json!({"/a": {"b": 1}}), "{\"a\": {\"b\": 1, \"c\": 2}}", "/a is {\"b\":1,\"c\":2}, not {\"b\":1}");
        check(None, json!({"/0": "x"}), "[\"\\u202e\"]", "/0 is \"\\u{202e}\", not \"x\"");
    }

    #[test]
    fn statuses_are_judged_by_their_ranges() {
        let wanted = wanted(None, json!({}));
        for good in [200, 299, 304] {
            assert!(wanted.status(good).is_ok(), "{good}");
        }
        for (bad, words) in [(503, "status 503"), (301, "status 301, a redirect, which is not followed")] {
            match wanted.status(bad) {
                Err(Failure::Target(Class::Status, detail)) => assert_eq!(detail, words),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }
}
