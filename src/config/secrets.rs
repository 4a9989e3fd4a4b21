//! What came from `${NAME}` or from a url's password, to be struck out of what strangers say: a server or a command may
//! repeat what it was given. It must never show what it knows.

use std::borrow::Cow;
use std::fmt;

/// What is shorter is no secret, and striking it out would make words unreadable.
const SHORTEST: usize = 4;

/// Texts that must never be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// One more of them.
    pub(super) fn add(&mut self, secret: &str) {
        let as_json = serde_json::Value::from(secret).to_string();
        for form in [secret.trim(), as_json.trim_matches('"')] {
            if form.chars().count() >= SHORTEST && self.0.iter().all(|known| known != form) {
                self.0.push(form.to_owned());
            }
        }
        // One may be a part of another.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// `text` with `…` in the place of each secret. Whoever cuts a text does it afterwards: a part of a secret is not
    /// recognised.
    pub fn strike<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.0.iter().filter(|secret| text.contains(secret.as_str()));
        found.fold(Cow::Borrowed(text), |text, secret| Cow::Owned(text.replace(secret.as_str(), "…")))
    }
}

#[cfg(test)]
impl Secrets {
    /// These.
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
        assert_eq!(Secrets::of(secrets).strike(text), expected);
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
}
