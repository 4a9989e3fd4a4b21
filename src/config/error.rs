//! Errors in a configuration, shown with position, line, caret and advice.
//! It must never show a secret, because errors also go to the log and into mails: values from the environment never
//! reach it, and of the file's text it shows only what the error is about and what is plainly no secret.

use std::fmt;

use super::key_path::Found;
use super::tree::{Node, NodeId, Position, SyntaxError, Value, locate};
use super::units;

/// A mistake in `defaults` counts once for each of up to 1,000 targets; so many errors fit on one screen.
const MAX_SHOWN: usize = 20;
/// Keys whose values are never shown, nor anything below them.
const SECRET_KEYS: [&str; 5] = ["headers", "env", "webhook", "heartbeat", "password"];

/// Everything that was found wrong with a configuration; at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    shown: Vec<String>,
    more: usize,
}

impl Errors {
    pub(super) fn one(error: impl Into<String>) -> Self {
        Errors { shown: vec![error.into()], more: 0 }
    }

    /// `errors` must not be empty.
    pub(super) fn several(errors: Vec<String>) -> Self {
        Errors { shown: errors, more: 0 }
    }

    /// Puts `causes` first: errors in other files may have caused those in this one.
    pub(super) fn after(self, causes: Vec<String>) -> Self {
        Errors { shown: [causes, self.shown].concat(), more: self.more }
    }

    /// For one line of a log: the first line of the first error, and how many more errors there are.
    pub fn summary(&self) -> String {
        let first = self.shown.first().and_then(|error| error.lines().next()).unwrap_or_default();
        match self.shown.len() + self.more {
            0 | 1 => first.to_owned(),
            count => format!("{first} (and {} more)", count - 1),
        }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown.join("\n"))?;
        match self.more {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more error"),
            more => write!(f, "\nand {more} more errors"),
        }
    }
}

impl std::error::Error for Errors {}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) id: NodeId,
    /// For a value, what follows its key (`has no unit`); for a key, the whole message.
    pub(super) message: String,
    /// What is allowed, or how to fix it.
    pub(super) advice: String,
}

#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// The file as the operator named it.
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Each problem once, in the order of the file.
    pub(super) fn errors(self, root: &Node, mut problems: Vec<Problem>) -> Errors {
        problems.sort();
        problems.dedup();
        let more = problems.len().saturating_sub(MAX_SHOWN);
        problems.truncate(MAX_SHOWN);
        Errors { shown: problems.iter().map(|problem| self.problem(root, problem)).collect(), more }
    }

    pub(super) fn syntax(self, error: &SyntaxError) -> Errors {
        let line = self.line(error.position);
        let indented_by_tab = line.trim_start_matches([' ', '-']).starts_with('\t');
        let advice = if indented_by_tab { "indent with spaces, not with tabs" } else { "" };
        let excerpt = Excerpt::of(&line, error.position.column, |_| 1);
        let message = format!("not valid YAML: {}", error.message);
        Errors::one(self.render(error.position, &message, &excerpt, advice))
    }

    fn problem(self, root: &Node, problem: &Problem) -> String {
        let key_path = root.key_path(problem.id);
        let position = locate(self.text, problem.id).unwrap_or(Position { line: 1, column: 1 });
        let mut message = problem.message.clone();
        let mut excerpt = Excerpt::of(&self.line(position), position.column, |rest| match key_path.found {
            Found::Key(key) => key_length(key, rest),
            Found::Value(node) => value_length(node, rest),
        });
        if let Found::Value(_) = key_path.found {
            let subject = if key_path.subject.is_empty() { "the file" } else { &format!("`{}`", key_path.subject) };
            message = format!("{subject} {message}");
        }
        if key_path.keys.iter().any(|key| SECRET_KEYS.contains(key)) {
            excerpt.hide_values(matches!(key_path.found, Found::Value(_)));
        }
        let mut context = String::new();
        if !key_path.path.is_empty() {
            let name = key_path.target.and_then(|name| units::parse_name(name).ok()).map(|name| format!(", {name}"));
            context = format!("   ({}{})", key_path.path, name.unwrap_or_default());
        }
        self.render(position, &message, &excerpt, &format!("{}{context}", problem.advice))
    }

    /// Splits lines as YAML 1.1 does: splitting them otherwise could show another line than the parser means, with a
    /// secret in it.
    fn line(&self, position: Position) -> String {
        let text = self.text.replace("\r\n", "\n");
        let mut lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        lines.nth(position.line - 1).unwrap_or_default().to_owned()
    }

    /// ```text
    /// watchdog.yaml:6:5: unknown key `intervall`
    ///   6 |     intervall: 15s
    ///     |     ^^^^^^^^^ did you mean `interval`?   (targets[0], sav-backend)
    /// ```
    fn render(&self, position: Position, message: &str, excerpt: &Excerpt, advice: &str) -> String {
        let Position { line, column } = position;
        let margin = " ".repeat(line.to_string().len());
        let blank = " ".repeat(excerpt.before.chars().count());
        let carets = "^".repeat(excerpt.token.chars().count().max(1));
        let lines = [
            format!("{}:{line}:{column}: {}", self.file, printable(message)),
            format!("  {line} | {}{}{}", excerpt.before, excerpt.token, excerpt.after),
            format!("  {margin} | {blank}{carets} {}", printable(advice)),
        ];
        lines.map(|line| line.trim_end().to_owned()).join("\n")
    }
}

/// A line of the file in three parts, without secrets and control characters.
#[derive(Debug)]
struct Excerpt {
    before: String,
    token: String,
    after: String,
}

impl Excerpt {
    /// Splits `line` at `column`, counted from 1. `length` returns the token's length in characters, given the rest of
    /// the line.
    fn of(line: &str, column: usize, length: impl FnOnce(&str) -> usize) -> Self {
        let start = line.char_indices().nth(column - 1).map_or(line.len(), |(start, _)| start);
        let (before, rest) = line.split_at(start);
        let end = rest.char_indices().nth(length(rest)).map_or(rest.len(), |(end, _)| end);
        let (token, after) = rest.split_at(end);
        let plain = if before.len() < 100 { plain_start(before) } else { "" };
        let before = match before[plain.len()..].trim_matches([' ', '[', '{', '"', '\'']) {
            "" => before.to_owned(),
            _ => format!("{plain}… "),
        };
        let after = if is_harmless(after) { after.to_owned() } else { " …".to_owned() };
        let token = printable(&without_secrets(token));
        Excerpt { before: printable(&before), token, after: printable(&after) }
    }

    /// Also hides figures: below a key in [`SECRET_KEYS`] even they may be secret.
    fn hide_values(&mut self, is_token_value: bool) {
        if is_token_value {
            self.token = "…".into();
        }
        if !self.after.trim().is_empty() {
            self.after = " …".into();
        }
    }
}

/// Indentation, dashes and one key with its colon: the part of a line before its value.
fn plain_start(line: &str) -> &str {
    let word = line.trim_start_matches([' ', '\t', '-']);
    let indentation = &line[..line.len() - word.len()];
    let is_key = |key: &str| key.chars().all(|letter| letter.is_alphanumeric() || "_-./".contains(letter));
    match word.split_once(':') {
        Some((key, rest)) if is_key(key) && (rest.is_empty() || rest.starts_with(' ')) => {
            let spaces = rest.len() - rest.trim_start_matches(' ').len();
            &line[..indentation.len() + key.len() + 1 + spaces]
        }
        _ => indentation,
    }
}

/// Whether the rest of a line is plainly no secret: empty, a number, a duration, a size, true, false or null.
fn is_harmless(text: &str) -> bool {
    let value = text[plain_start(text).len()..].trim_matches([' ', ',', ']', '}', '[', '{', '"', '\'']);
    let figure =
        || value.parse::<f64>().is_ok() || units::parse_duration(value).is_ok() || units::parse_size(value).is_ok();
    matches!(value, "" | "true" | "false" | "null") || figure()
}

/// The token without user, password and query of a URL in it. It removes too much rather than too little: an invalid
/// URL may lack its `://`, and a `?` may belong to a password.
fn without_secrets(token: &str) -> String {
    let is_quoted = token.len() > 1 && (token.ends_with('"') || token.ends_with('\''));
    let (token, quote) = token.split_at(token.len() - usize::from(is_quoted));
    let without_query = |text: &str| match text.split_once('?') {
        Some((before, query)) if !query.is_empty() => format!("{before}?…"),
        _ => text.to_owned(),
    };
    let Some(at) = token.rfind('@') else { return without_query(token) + quote };
    let (before, after) = token.split_at(at);
    let plain = before.split('?').next().unwrap_or_default();
    let start = plain.find("://").map_or(0, |scheme| scheme + 3);
    let after = if plain == before { without_query(after) } else { String::new() };
    format!("{}…{after}{quote}", &before[..start])
}

fn key_length(key: &str, rest: &str) -> usize {
    quoted_length(rest).unwrap_or_else(|| key.chars().count()).max(1)
}

fn value_length(node: &Node, rest: &str) -> usize {
    let to = |end: Option<usize>| rest[..end.unwrap_or(rest.len())].trim_end().chars().count().max(1);
    match &node.value {
        Value::List(_) | Value::Map(_) | Value::Null => 1,
        Value::Bool(_) | Value::Number(_) => to(rest.find([' ', ',', ']', '}'])),
        Value::Text(text) if !text.is_empty() && rest.starts_with(text.as_str()) => text.chars().count(),
        Value::Text(_) => quoted_length(rest).unwrap_or_else(|| to(rest.find(" #"))),
    }
}

/// The length of a quoted word at the start of `rest`, quotes included.
fn quoted_length(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    let mut escaped = false;
    let end = rest.chars().skip(1).position(|character| {
        let closes = character == quote && !escaped;
        escaped = character == '\\' && quote == '"' && !escaped;
        closes
    });
    Some(end.map_or_else(|| rest.trim_end().chars().count(), |end| end + 2))
}

/// Without control characters and of limited length: the text goes to terminals and logs.
fn printable(text: &str) -> String {
    let clean = |character: char| if character.is_control() { ' ' } else { character };
    match text.char_indices().nth(400) {
        Some((end, _)) => text[..end].chars().map(clean).chain(['…']).collect(),
        None => text.chars().map(clean).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::parse;

    /// The error for the value at `path` (keys and indices), or for the last key if `path` ends in `!`.
    #[track_caller]
    fn check(text: &str, path: &str, expected: &[&str]) {
        let root = parse(text).expect("valid");
        let mut node = &root;
        let mut id = root.id;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            match (&node.value, step.strip_suffix('!')) {
                (Value::List(items), _) => node = &items[step.parse::<usize>().expect("an index")],
                (Value::Map(entries), key) => {
                    let entry = entries.iter().find(|entry| entry.key == key.unwrap_or(step)).expect("a key");
                    id = entry.id;
                    node = &entry.value;
                }
                _ => panic!("{step} not found"),
            }
            if !step.ends_with('!') {
                id = node.id;
            }
        }
        let source = Source { file: "w.yaml", text };
        let problem = Problem { id, message: "is wrong".into(), advice: "fix it".into() };
        assert_eq!(source.errors(&root, vec![problem]).to_string(), expected.join("\n"));
    }

    #[test]
    fn the_token_is_underlined_and_its_path_shown() {
        check(
            "targets:\n  - name: a\n    intervall: 15s\n",
            "targets.0.intervall!",
            &["w.yaml:3:5: is wrong", "  3 |     intervall: 15s", "    |     ^^^^^^^^^ fix it   (targets[0], a)"],
        );
        check(
            "targets:\n  - name: a\n    depends_on: [x, yy]\n",
            "targets.0.depends_on.1",
            &[
                "w.yaml:3:21: `depends_on[1]` is wrong",
                "  3 |     depends_on: … yy]",
                "    |                   ^^ fix it   (targets[0].depends_on[1], a)",
            ],
        );
        check("a: 'x y'  # z\n", "a", &["w.yaml:1:4: `a` is wrong", "  1 | a: 'x y' …", "    |    ^^^^^ fix it   (a)"]);
        let above = "a: 'u\u{2028}v\u{85}w\rx'\r\nb: 1\n";
        check(above, "b", &["w.yaml:5:4: `b` is wrong", "  5 | b: 1", "    |    ^ fix it   (b)"]);
        check("- 1\n", "", &["w.yaml:1:1: the file is wrong", "  1 | - 1", "    | ^ fix it"]);
        check("", "", &["w.yaml:1:1: the file is wrong", "  1 |", "    | ^ fix it"]);
    }

    #[test]
    fn possible_secrets_are_not_shown() {
        check("hedaers: {A: s3cret}", "hedaers!", &["w.yaml:1:1: is wrong", "  1 | hedaers …", "    | ^^^^^^^ fix it"]);
        check(
            "http: {headers: {A: s3cret}, timeuot: 3s}",
            "http.timeuot!",
            &["w.yaml:1:30: is wrong", "  1 | http: … timeuot: 3s}", "    |         ^^^^^^^ fix it   (http)"],
        );
        check(
            "env: {A: s3cret}",
            "env.A",
            &["w.yaml:1:10: `A` is wrong", "  1 | env: … … …", "    |        ^ fix it   (env.A)"],
        );
        check(
            "url: http://me:s3cret@host/x",
            "url",
            &["w.yaml:1:6: `url` is wrong", "  1 | url: http://…@host/x", "    |      ^^^^^^^^^^^^^^^ fix it   (url)"],
        );
        for (written, shown) in [
            ("http://h:0/x?token=s3cret", "http://h:0/x?…"),
            ("'http://h:0/x?token=s3cret'", "'http://h:0/x?…'"),
            ("http://me:s3cret@h:0/?s3cret", "http://…@h:0/?…"),
            ("http://h:0/?a=b@c&t=s3cret", "http://…"),
            ("\"http://me:s3?cret@h:0/?s3cret\"", "\"http://…\""),
            ("h:0/x?t=s3cret", "h:0/x?…"),
            ("x?", "x?"),
        ] {
            let carets = "^".repeat(shown.chars().count());
            let (line, marks) = (format!("  1 | url: {shown}"), format!("    |      {carets} fix it   (url)"));
            check(&format!("url: {written}"), "url", &["w.yaml:1:6: `url` is wrong", &line, &marks]);
        }
        check(
            "env: {A: 1, A: 2}",
            "env.A!",
            &["w.yaml:1:7: is wrong", "  1 | env: {A …", "    |       ^ fix it   (env)"],
        );
        check(
            "http: me:s3cret@h",
            "http",
            &["w.yaml:1:7: `http` is wrong", "  1 | http: …@h", "    |       ^^^ fix it   (http)"],
        );
        check(
            "a: \"x\\e[2J\\\" y\" \n",
            "a",
            &["w.yaml:1:4: `a` is wrong", "  1 | a: \"x\\e[2J\\\" y\"", "    |    ^^^^^^^^^^^^ fix it   (a)"],
        );
    }

    #[track_caller]
    fn syntax(text: &str, expected: &[&str]) {
        let error = parse(text).expect_err("not valid");
        assert_eq!(Source { file: "w.yaml", text }.syntax(&error).to_string(), expected.join("\n"));
    }

    #[test]
    fn syntax_errors_show_the_position_but_no_values() {
        syntax(
            "a: 1\n\tb: 2\n",
            &[
                "w.yaml:2:1: not valid YAML: found a tab character that violates indentation at line 2 column 1, \
                 while scanning a plain scalar at line 1 column 4",
                "  2 |  b: 2",
                "    | ^ indent with spaces, not with tabs",
            ],
        );
        let error = parse("env:\n  A: [s3cret\nb: }\n").expect_err("not valid");
        let shown = Source { file: "w.yaml", text: "env:\n  A: [s3cret\nb: }\n" }.syntax(&error).to_string();
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn each_error_is_shown_once_in_order_up_to_a_limit() {
        let text = format!("[{}]", "1,".repeat(30));
        let root = parse(&text).expect("valid");
        let Value::List(items) = &root.value else { panic!("a list") };
        let problem = |item: &Node| Problem { id: item.id, message: "is wrong".into(), advice: String::new() };
        let twice = items.iter().rev().chain(items).map(problem).collect();
        let errors = Source { file: "w.yaml", text: &text }.errors(&root, twice);
        assert!(errors.to_string().starts_with("w.yaml:1:2: `[0]` is wrong"), "{errors}");
        assert!(errors.to_string().ends_with("and 10 more errors"), "{errors}");
        assert_eq!(errors.summary(), "w.yaml:1:2: `[0]` is wrong (and 29 more)");
    }
}
