//! Redacts values of `${NAME}` and of URLs in texts from outside: a server or a command may repeat what it was given.
//! It must never show a secret, not even in its own debug output.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// In characters. Shorter values are not redacted: that would make ordinary words unreadable.
pub const SHORTEST_SECRET: usize = 4;

/// Texts that must never be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, secret: &str) {
        let as_json = serde_json::Value::from(secret).to_string();
        for form in [secret.trim(), as_json.trim_matches('"')] {
            if form.chars().count() >= SHORTEST_SECRET && self.0.iter().all(|known| known != form) {
                self.0.push(form.to_owned());
            }
        }
        // Longest first, because one secret may be part of another.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// `text` with `…` in place of each secret. Shorten the result, not `text`: a part of a secret is not recognised.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.0.iter().filter(|secret| text.contains(secret.as_str()));
        found.fold(Cow::Borrowed(text), |text, secret| Cow::Owned(text.replace(secret.as_str(), "…")))
    }

    /// Redacts a part of a longer text, which may start or end in the middle of a secret.
    pub fn redact_fragment(&self, fragment: &[u8], ends: CutEnds) -> String {
        let start = if ends.is_start_cut { self.partial_start(fragment) } else { 0 };
        let rest = &fragment[start..];
        let end = rest.len() - if ends.is_end_cut { self.partial_end(rest) } else { 0 };
        self.redact(&String::from_utf8_lossy(&rest[..end])).into_owned()
    }

    /// The ranges of secrets, and of parts of them at the ends, in such a fragment. They may overlap.
    pub fn find_ranges(&self, fragment: &[u8], ends: CutEnds) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for secret in &self.0 {
            let mut from = 0;
            while let Some(at) = find(&fragment[from..], secret.as_bytes()) {
                ranges.push(from + at..from + at + secret.len());
                from += at + secret.len();
            }
        }
        if ends.is_start_cut {
            ranges.push(0..self.partial_start(fragment));
        }
        if ends.is_end_cut {
            ranges.push(fragment.len() - self.partial_end(fragment)..fragment.len());
        }
        ranges.retain(|range| !range.is_empty());
        ranges
    }

    pub fn merge(&mut self, others: &Secrets) {
        let new: Vec<String> = others.0.iter().filter(|secret| !self.0.contains(secret)).cloned().collect();
        self.0.extend(new);
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// How many bytes at the start may be the end of a secret.
    fn partial_start(&self, fragment: &[u8]) -> usize {
        let overlap = |secret: &[u8]| {
            let at = (1..secret.len()).find(|at| fragment.starts_with(&secret[*at..]))?;
            Some(secret.len() - at)
        };
        self.0.iter().filter_map(|secret| overlap(secret.as_bytes())).max().unwrap_or(0)
    }

    /// How many bytes at the end may be the start of a secret.
    fn partial_end(&self, fragment: &[u8]) -> usize {
        let overlap = |secret: &[u8]| (1..secret.len()).rev().find(|length| fragment.ends_with(&secret[..*length]));
        self.0.iter().filter_map(|secret| overlap(secret.as_bytes())).max().unwrap_or(0)
    }
}

/// Whether text before or after a fragment is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutEnds {
    pub is_start_cut: bool,
    pub is_end_cut: bool,
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        from += at;
        if bytes[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
impl Secrets {
    pub(crate) fn of(secrets: &[&str]) -> Self {
        let mut all = Secrets::default();
        secrets.iter().for_each(|secret| all.add(secret));
        all
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(secrets: &[&str], text: &str, expected: &str) {
        assert_eq!(Secrets::of(secrets).redact(text), expected);
    }

    #[test]
    fn secrets_are_redacted_everywhere() {
        check(&[], "all is well", "all is well");
        check(&["s3cret"], "all is well", "all is well");
        check(&["s3cret"], "s3cret and s3cret=", "… and …=");
        check(&["s3cr", "s3cret", "s3cr"], "s3cret s3cr", "… …");
        check(&["pass\"word\n"], r#""pass\"word\n", pass"word"#, "\"…\", …");
        check(&["a", "", "123"], "a 123", "a 123");
        assert_eq!(format!("{:?}", Secrets::of(&["s3cret"])), "1 secrets");
    }

    /// A fragment as it is shown, and with its secrets overwritten in place.
    #[track_caller]
    fn check_fragment(fragment: &str, (is_start_cut, is_end_cut): (bool, bool), shown: &str, overwritten: &str) {
        let secrets = Secrets::of(&["s3cret-one", "other-äöü"]);
        let ends = CutEnds { is_start_cut, is_end_cut };
        assert_eq!(secrets.redact_fragment(fragment.as_bytes(), ends), shown);
        let mut bytes = fragment.as_bytes().to_vec();
        secrets.find_ranges(fragment.as_bytes(), ends).into_iter().for_each(|range| bytes[range].fill(b'*'));
        assert_eq!(String::from_utf8_lossy(&bytes), overwritten);
    }

    #[test]
    fn parts_of_secrets_at_a_cut_are_redacted() {
        check_fragment("a s3cret-one s3cret-one", (false, false), "a … …", "a ********** **********");
        check_fragment("ret-one a s3cre", (false, false), "ret-one a s3cre", "ret-one a s3cre");
        check_fragment("ret-one a s3cre", (true, false), " a s3cre", "******* a s3cre");
        check_fragment("ret-one a s3cre", (false, true), "ret-one a ", "ret-one a *****");
        check_fragment("ret-one a s3cre", (true, true), " a ", "******* a *****");
        check_fragment("öü other-ä", (true, true), " ", "**** ********");
        check_fragment("s3cret-ones3cret-one", (true, true), "……", "********************");
        check_fragment("", (true, true), "", "");
        let mut joined = Secrets::of(&["s3cret"]);
        joined.merge(&Secrets::of(&["s3cret", "s3cret-one"]));
        assert_eq!(joined, Secrets::of(&["s3cret", "s3cret-one"]));
    }
}
