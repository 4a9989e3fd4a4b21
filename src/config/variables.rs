//! `${NAME}`: reads `env_file`, and replaces variables in texts.
//! It must never put the value of a variable into an error.

use std::path::Path;

use super::access::{Readers, read};
use super::secrets::Secrets;
use super::units::is_variable;

/// Looks names up in the environment first, then in the file.
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
    /// A dollar that does not start `${NAME}`.
    LoneDollar,
    /// The text in the braces is no name. It is not kept, because it may be part of a password.
    BadName,
    NotSet(String),
}

impl<'a> Variables<'a> {
    pub(super) fn new(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Variables { environment, file: None }
    }

    /// Adds the file at `path`, which is shown as `shown` in errors. It must have mode 0600 or stricter.
    pub(super) fn add_file(&mut self, path: &Path, shown: &str) -> Result<(), Vec<String>> {
        // Set before reading, so that `searched` names the file even if it is invalid.
        self.file = Some(Pairs { shown: shown.to_owned(), pairs: Vec::new() });
        let at_line = |error: String| format!("{}:{error}", path.display());
        let pairs = parse(&read(path, Readers::Owner)?)
            .map_err(|errors| errors.into_iter().map(at_line).collect::<Vec<String>>())?;
        self.file = Some(Pairs { shown: shown.to_owned(), pairs });
        Ok(())
    }

    /// Where a name was not found.
    pub(super) fn searched(&self) -> String {
        match &self.file {
            Some(file) => format!("neither in the environment nor in {}", file.shown),
            None => "not in the environment, and no `env_file` is set".into(),
        }
    }

    /// Replaces each `${NAME}` by its value, which is added to `secrets`, and each `$$` by a dollar.
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

/// The pairs of a file, or an error for each invalid line: its number and the reason, but not its text.
///
/// A value is everything after `=`, including `#` (passwords contain it), without surrounding blanks and one pair of
/// quotes. After a closing quote, a blank and `#` start a comment. `export` before a name, as in a shell, is ignored.
fn parse(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut errors = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let line = exported.unwrap_or(line);
        let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
            errors.push(format!("{number}: not NAME=value"));
            continue;
        };
        if !is_variable(name) {
            errors.push(format!("{number}: invalid variable name before `=`; allowed: letters, digits and _"));
        } else if pairs.iter().any(|(known, _)| known == name) {
            errors.push(format!("{number}: `{name}` is already set above"));
        } else if value.contains('\0') {
            errors.push(format!("{number}: the value contains a NUL byte"));
        } else {
            pairs.push((name.to_owned(), unquoted(value).to_owned()));
        }
    }
    if errors.is_empty() { Ok(pairs) } else { Err(errors) }
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
    fn names_are_replaced_once_and_the_environment_takes_precedence() {
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
    fn check_lines(text: &str, expected: &str) {
        let shown = match parse(text) {
            Ok(pairs) => pairs.iter().map(|(name, value)| format!("{name}={value}|")).collect(),
            Err(errors) => errors.join("|"),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let invalid_name = "invalid variable name before `=`; allowed: letters, digits and _";
        check_lines("\n# words\n A = b \nexport C=\"d e\"\nE='f'\nG=\nH=a#b=c\n", "A=b|C=d e|E=f|G=|H=a#b=c|");
        check_lines("A=\"\nB='x\"\nC=\"\"", "A=\"|B='x\"|C=|");
        check_lines("export\tA=b\r\nB='c'\r\n\r\n# words\r\n", "A=b|B=c|");
        check_lines(
            "exported=b\nB=c # d\nC=\"d e\" # f\nD='#' #\nE='f'#g\nF=\"g\" \"h\"",
            "exported=b|B=c # d|C=d e|D=#|E='f'#g|F=g\" \"h|",
        );
        check_lines("A=1\nno\n=x\n", &format!("2: not NAME=value|3: {invalid_name}"));
        check_lines(
            "1A=2\nA=3\nA=4\nB=\0\n",
            &format!("1: {invalid_name}|3: `A` is already set above|4: the value contains a NUL byte"),
        );
    }
}
