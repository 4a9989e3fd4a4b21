//! `${NAME}`: the file of variables, and the expansion of texts that may use them.
//! What a variable holds must never get into an error.

use std::path::Path;

use super::access::{Readers, read};
use super::secrets::Secrets;
use super::units::is_variable;

/// Where names are looked up: the environment first, then the file.
pub(super) struct Variables<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    file: Option<Pairs>,
}

struct Pairs {
    shown: String,
    pairs: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unexpanded {
    /// A dollar that begins no `${NAME}`.
    LoneDollar,
    /// What stands in the braces is no name. It is not repeated: it may be part of a password.
    BadName,
    NotSet(String),
}

impl<'a> Variables<'a> {
    pub(super) fn new(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Variables { environment, file: None }
    }

    /// Adds the file at `path`, `shown` in errors. Refused unless 0600 or stricter.
    pub(super) fn add_file(&mut self, path: &Path, shown: &str) -> Result<(), Vec<String>> {
        // Known from here on, so that what misses is not said to have no file to be in.
        self.file = Some(Pairs { shown: shown.to_owned(), pairs: Vec::new() });
        let at_line = |wrong: String| format!("{}:{wrong}", path.display());
        let pairs = parse(&read(path, Readers::Owner)?)
            .map_err(|wrong| wrong.into_iter().map(at_line).collect::<Vec<String>>())?;
        self.file = Some(Pairs { shown: shown.to_owned(), pairs });
        Ok(())
    }

    pub(super) fn places(&self) -> String {
        match &self.file {
            Some(file) => format!("neither in the environment nor in {}", file.shown),
            None => "not in the environment, and there is no `env_file`".into(),
        }
    }

    /// `text` with each `${NAME}` replaced by its value, which is noted in `secrets`, and each `$$` by a dollar.
    pub(super) fn expand(&self, text: &str, secrets: &mut Secrets) -> Result<String, Unexpanded> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded += before;
            if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                rest = after;
                continue;
            }
            let (name, after) =
                after.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(Unexpanded::LoneDollar)?;
            if !is_variable(name) {
                return Err(Unexpanded::BadName);
            }
            let value = self.value(name).ok_or_else(|| Unexpanded::NotSet(name.to_owned()))?;
            secrets.add(&value);
            expanded += &value;
            rest = after;
        }
        Ok(expanded + rest)
    }

    fn value(&self, name: &str) -> Option<String> {
        let pairs = self.file.as_ref().map_or(&[][..], |file| &file.pairs);
        let in_file = || pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        (self.environment)(name).or_else(in_file)
    }
}

/// The pairs of a file, or the numbers of the lines that are wrong and why, without what stands in them.
///
/// A value is all that follows `=`, `#` included (passwords have them), without the blanks around it and without one
/// pair of quotes. Behind a closing quote a blank and `#` begin a comment. A shell's `export` before the name is passed
/// over.
fn parse(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut wrong = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let line = exported.unwrap_or(line);
        let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
            wrong.push(format!("{number}: not NAME=value"));
            continue;
        };
        if !is_variable(name) {
            wrong.push(format!("{number}: no name of a variable before the `=`: letters, digits and _"));
        } else if pairs.iter().any(|(known, _)| known == name) {
            wrong.push(format!("{number}: `{name}` has a value further up already"));
        } else if value.contains('\0') {
            wrong.push(format!("{number}: the value holds a NUL byte"));
        } else {
            pairs.push((name.to_owned(), unquoted(value).to_owned()));
        }
    }
    if wrong.is_empty() { Ok(pairs) } else { Err(wrong) }
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| {
        let after = value.strip_prefix(quote)?;
        let commented = after.split_once(quote).filter(|(_, rest)| {
            let comment = rest.trim_start();
            comment.len() < rest.len() && comment.starts_with('#')
        });
        after.strip_suffix(quote).or(commented.map(|(inside, _)| inside))
    };
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, Unexpanded>) {
        let environment = |name: &str| match name {
            "HOST" => Some("from-env".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("${HOST}$".to_owned()),
            _ => None,
        };
        let pairs = vec![("HOST".to_owned(), "from-file".to_owned()), ("TOKEN".to_owned(), "t".to_owned())];
        let file = Some(Pairs { shown: "x.env".into(), pairs });
        let variables = Variables { environment: &environment, file };
        assert_eq!(variables.expand(text, &mut Secrets::default()), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn names_are_replaced_once_and_the_environment_wins() {
        check("plain", Ok("plain"));
        check("http://${HOST}/${TOKEN}", Ok("http://from-env/t"));
        check("a${EMPTY}b", Ok("ab"));
        check("${DOLLAR}", Ok("${HOST}$"));
        check("$$", Ok("$"));
        check("$${HOST}$$$$", Ok("${HOST}$$"));
        check("$HOST", Err(Unexpanded::LoneDollar));
        check("a$", Err(Unexpanded::LoneDollar));
        check("${HOST", Err(Unexpanded::LoneDollar));
        check("${}", Err(Unexpanded::BadName));
        check("${A-b}", Err(Unexpanded::BadName));
        check("${GONE}", Err(Unexpanded::NotSet("GONE".into())));
    }

    #[track_caller]
    fn lines(text: &str, expected: &str) {
        let told = match parse(text) {
            Ok(pairs) => pairs.iter().map(|(name, value)| format!("{name}={value}|")).collect(),
            Err(wrong) => wrong.join("|"),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let no_name = "no name of a variable before the `=`: letters, digits and _";
        lines("\n# words\n A = b \nexport C=\"d e\"\nE='f'\nG=\nH=a#b=c\n", "A=b|C=d e|E=f|G=|H=a#b=c|");
        lines("A=\"\nB='x\"\nC=\"\"", "A=\"|B='x\"|C=|");
        lines("export\tA=b\r\nB='c'\r\n\r\n# words\r\n", "A=b|B=c|");
        lines(
            "exported=b\nB=c # d\nC=\"d e\" # f\nD='#' #\nE='f'#g\nF=\"g\" \"h\"",
            "exported=b|B=c # d|C=d e|D=#|E='f'#g|F=g\" \"h|",
        );
        lines("A=1\nno\n=x\n", &format!("2: not NAME=value|3: {no_name}"));
        lines(
            "1A=2\nA=3\nA=4\nB=\0\n",
            &format!("1: {no_name}|3: `A` has a value further up already|4: the value holds a NUL byte"),
        );
    }
}
