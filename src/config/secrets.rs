//! What came from `${NAME}` or from a url's password, to be struck out of what strangers say: a server or a command may
//! repeat what it was given. It must never show what it knows.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// What is shorter is no secret, and striking it out would make words unreadable.
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
        // One may be a part of another.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// `text` with `…` for each secret. Whoever cuts it does so afterwards: a part of a secret is not recognised.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.0.iter().filter(|secret| text.contains(secret.as_str()));
        found.fold(Cow::Borrowed(text), |text, secret| Cow::Owned(text.replace(secret.as_str(), "…")))
    }

    /// The same of a piece of a longer text that may begin or end in the middle of a secret.
    pub fn redact_fragment(&self, piece: &[u8], ends: CutEnds) -> String {
        let whole = if ends.is_start_cut { self.rest(piece) } else { 0 };
        let whole = &piece[whole..];
        let begun = if ends.is_end_cut { self.beginning(whole) } else { 0 };
        self.redact(&String::from_utf8_lossy(&whole[..whole.len() - begun])).into_owned()
    }

    /// Where in such a piece secrets stand, and parts of them. The places may overlap.
    pub fn places(&self, piece: &[u8], ends: CutEnds) -> Vec<Range<usize>> {
        let mut places = Vec::new();
        for secret in &self.0 {
            let mut from = 0;
            while let Some(at) = position(&piece[from..], secret.as_bytes()) {
                places.push(from + at..from + at + secret.len());
                from += at + secret.len();
            }
        }
        if ends.is_start_cut {
            places.push(0..self.rest(piece));
        }
        if ends.is_end_cut {
            places.push(piece.len() - self.beginning(piece)..piece.len());
        }
        places.retain(|place| !place.is_empty());
        places
    }

    pub fn join(&mut self, others: &Secrets) {
        let new: Vec<String> = others.0.iter().filter(|secret| !self.0.contains(secret)).cloned().collect();
        self.0.extend(new);
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// How many bytes at the start may be the rest of a secret.
    fn rest(&self, piece: &[u8]) -> usize {
        let rest =
            |secret: &[u8]| (1..secret.len()).find(|at| piece.starts_with(&secret[*at..])).map(|at| secret.len() - at);
        self.0.iter().filter_map(|secret| rest(secret.as_bytes())).max().unwrap_or(0)
    }

    /// How many bytes at the end may be the beginning of a secret.
    fn beginning(&self, piece: &[u8]) -> usize {
        let beginning = |secret: &[u8]| (1..secret.len()).rev().find(|length| piece.ends_with(&secret[..*length]));
        self.0.iter().filter_map(|secret| beginning(secret.as_bytes())).max().unwrap_or(0)
    }
}

/// Whether a piece of a text was cut off from what came before it, and from what came after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutEnds {
    pub is_start_cut: bool,
    pub is_end_cut: bool,
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        from += at;
        if bytes[from..].starts_with(wanted) {
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
    fn secrets_are_struck_out_wherever_they_stand() {
        check(&[], "all is well", "all is well");
        check(&["s3cret"], "all is well", "all is well");
        check(&["s3cret"], "s3cret and s3cret=", "… and …=");
        check(&["s3cr", "s3cret", "s3cr"], "s3cret s3cr", "… …");
        check(&["pass\"word\n"], r#""pass\"word\n", pass"word"#, "\"…\", …");
        check(&["a", "", "123"], "a 123", "a 123");
        assert_eq!(format!("{:?}", Secrets::of(&["s3cret"])), "1 secrets");
    }

    /// What is left of a piece whose ends were cut off, as it is shown and as it is overwritten in its place.
    #[track_caller]
    fn check_piece(piece: &str, (is_start_cut, is_end_cut): (bool, bool), shown: &str, kept: &str) {
        let secrets = Secrets::of(&["s3cret-one", "other-äöü"]);
        let ends = CutEnds { is_start_cut, is_end_cut };
        assert_eq!(secrets.redact_fragment(piece.as_bytes(), ends), shown);
        let mut bytes = piece.as_bytes().to_vec();
        secrets.places(piece.as_bytes(), ends).into_iter().for_each(|place| bytes[place].fill(b'*'));
        assert_eq!(String::from_utf8_lossy(&bytes), kept);
    }

    #[test]
    fn parts_of_secrets_at_a_cut_are_struck_out_too() {
        check_piece("a s3cret-one s3cret-one", (false, false), "a … …", "a ********** **********");
        check_piece("ret-one a s3cre", (false, false), "ret-one a s3cre", "ret-one a s3cre");
        check_piece("ret-one a s3cre", (true, false), " a s3cre", "******* a s3cre");
        check_piece("ret-one a s3cre", (false, true), "ret-one a ", "ret-one a *****");
        check_piece("ret-one a s3cre", (true, true), " a ", "******* a *****");
        check_piece("öü other-ä", (true, true), " ", "**** ********");
        check_piece("s3cret-ones3cret-one", (true, true), "……", "********************");
        check_piece("", (true, true), "", "");
        let mut joined = Secrets::of(&["s3cret"]);
        joined.join(&Secrets::of(&["s3cret", "s3cret-one"]));
        assert_eq!(joined, Secrets::of(&["s3cret", "s3cret-one"]));
    }
}
