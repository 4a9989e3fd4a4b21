//! Parses the text of an ecosystem file in JavaScript, TypeScript or JSON into the processes that it describes. It must
//! never run the file, read another one, or guess: what only running the file could tell is `Computed`.

#[cfg(test)]
mod tests;
mod token;

use std::collections::HashSet;

use token::{Token, tokenize};

/// What is nested deeper in brackets is skipped. Real files need about ten levels.
const MAX_DEPTH: usize = 100;

/// A value as far as it can be known without running the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A path relative to the folder of the file (`__dirname` or `import.meta.dirname`). It has no slash at either end
    /// and may begin with `..`. An empty path is the folder itself.
    Below(String),
    /// A value that only running the file could tell.
    Computed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AppEntry {
    pub(super) name: String,
    /// None if the entry has no such key.
    pub(super) script: Option<Value>,
    /// None if the entry has no such key.
    pub(super) cwd: Option<Value>,
    /// The NAMEs of its `env_NAME` keys, in the file's order.
    pub(super) environments: Vec<String>,
}

/// The apps whose names are literals. In a damaged file, only those with complete braces are found.
pub(super) fn parse_entries(text: &str) -> Vec<AppEntry> {
    let tokens = tokenize(text);
    let mut found = Vec::new();
    let mut open: Vec<Bracket> = Vec::new();
    let mut deeper = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        let &Token::Mark(mark) = token else { continue };
        match mark {
            '{' | '[' | '(' if open.len() == MAX_DEPTH => deeper += 1,
            '{' | '[' | '(' => {
                let outside = open.last().is_some_and(|outer| outer.outside || outer.foreign);
                let mut bracket = Bracket::new(at, mark, outside);
                bracket.read_key(&tokens, at + 1);
                open.push(bracket);
            }
            '}' | ']' | ')' if deeper > 0 => deeper -= 1,
            '}' | ']' | ')' => found.extend(open.pop_if(|last| last.closer == mark).and_then(Bracket::finish)),
            ',' if deeper == 0 => {
                if let Some(bracket) = open.last_mut() {
                    bracket.foreign = false;
                    bracket.read_key(&tokens, at + 1);
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|&(at, _)| at);
    found.into_iter().map(|(_, entry)| entry).collect()
}

/// An open bracket, with the keys read so far if it is an object. A block of code looks like an object without keys.
struct Bracket {
    at: usize,
    closer: char,
    /// It is inside a value that describes no processes, such as that of `env`.
    outside: bool,
    /// The last key has such a value.
    foreign: bool,
    name: Option<Value>,
    script: Option<Value>,
    cwd: Option<Value>,
    environments: Vec<String>,
}

impl Bracket {
    fn new(at: usize, opener: char, outside: bool) -> Bracket {
        let closer = match opener {
            '{' => '}',
            '[' => ']',
            _ => ')',
        };
        Bracket { at, closer, outside, foreign: false, name: None, script: None, cwd: None, environments: Vec::new() }
    }

    fn read_key(&mut self, tokens: &[Token], at: usize) {
        if self.closer != '}' {
            return;
        }
        let Some((key, start)) = find_key(tokens, at) else { return };
        let value = || start.map_or(Value::Computed, |start| Parser { tokens, at: start }.value());
        match key {
            "name" => self.name = Some(value()),
            "script" => self.script = Some(value()),
            "cwd" => self.cwd = Some(value()),
            "env" | "deploy" => self.foreign = start.is_some(),
            _ => {
                if let Some(environment) = key.strip_prefix("env_").filter(|environment| !environment.is_empty()) {
                    self.environments.push(environment.to_owned());
                    self.foreign = start.is_some();
                }
            }
        }
    }

    fn finish(self) -> Option<(usize, AppEntry)> {
        let Some(Value::Text(name)) = self.name.filter(|_| !self.outside) else { return None };
        let mut environments = self.environments;
        let mut seen = HashSet::new();
        environments.retain(|environment| seen.insert(environment.clone()));
        Some((self.at, AppEntry { name, script: self.script, cwd: self.cwd, environments }))
    }
}

/// The key at this token, and the index at which its value begins; none for `{key}`, `{key() {}}` and `{get key() {}}`.
fn find_key<'t>(tokens: &'t [Token], at: usize) -> Option<(&'t str, Option<usize>)> {
    let modified = matches!(tokens.get(at), Some(Token::Word("get" | "async")))
        && matches!(tokens.get(at + 1), Some(Token::Word(_) | Token::Text(_)));
    let at = if modified { at + 1 } else { at };
    let key = match tokens.get(at)? {
        Token::Word(word) => word,
        Token::Text(text) => text.as_str(),
        Token::Mark(_) => return None,
    };
    match tokens.get(at + 1)? {
        Token::Mark(':') => Some((key, Some(at + 2))),
        Token::Mark(',' | '}' | '(') => Some((key, None)),
        _ => None,
    }
}

/// Reads one value. A method returns none for a computed value.
struct Parser<'t> {
    tokens: &'t [Token<'t>],
    at: usize,
}

impl<'t> Parser<'t> {
    fn value(mut self) -> Value {
        let value = self.read_sum(0);
        // `as const` and `satisfies T` of TypeScript change no value.
        let ended = matches!(self.next(), Some(Token::Mark(',' | '}') | Token::Word("as" | "satisfies")));
        match value.filter(|_| ended) {
            Some(Value::Below(path)) => {
                let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
                Value::Below(parts.join("/"))
            }
            value => value.unwrap_or(Value::Computed),
        }
    }

    /// Texts and paths joined by `+`. A path keeps its slashes until the value is complete. What is appended to it must
    /// begin a new part: `__dirname + 'x'` extends the name of the folder, which is not known here.
    fn read_sum(&mut self, depth: usize) -> Option<Value> {
        let mut sum = self.read_term(depth)?;
        while self.skip('+') {
            sum = match (sum, self.read_term(depth)?) {
                (Value::Text(left), Value::Text(right)) => Value::Text(left + &right),
                (Value::Below(path), Value::Text(text)) if text.is_empty() => Value::Below(path),
                (Value::Text(text), Value::Below(path)) if text.is_empty() => Value::Below(path),
                (Value::Below(path), Value::Text(text)) if path.ends_with('/') || text.starts_with('/') => {
                    Value::Below(path + &text)
                }
                _ => return None,
            };
        }
        Some(sum)
    }

    fn read_term(&mut self, depth: usize) -> Option<Value> {
        match self.next()? {
            Token::Text(text) => Some(Value::Text(text.clone())),
            Token::Mark('(') if depth < MAX_DEPTH => {
                let inner = self.read_sum(depth + 1)?;
                self.skip(')').then_some(inner)
            }
            Token::Word("__dirname") => Some(Value::Below(String::new())),
            Token::Word("import") => {
                let is_folder = self.skip('.')
                    && matches!(self.next(), Some(Token::Word("meta")))
                    && self.skip('.')
                    && matches!(self.next(), Some(Token::Word("dirname")));
                is_folder.then_some(Value::Below(String::new()))
            }
            Token::Word("path") if depth < MAX_DEPTH && self.skip('.') => match self.next()? {
                Token::Word("join") => self.read_path(depth, false),
                Token::Word("resolve") => self.read_path(depth, true),
                _ => None,
            },
            _ => None,
        }
    }

    /// The arguments of `path.join` or `path.resolve`. Only the latter strips slashes at the end, and lets an absolute
    /// part replace what precedes it.
    fn read_path(&mut self, depth: usize, resolves: bool) -> Option<Value> {
        if !self.skip('(') {
            return None;
        }
        let Value::Below(mut path) = self.read_sum(depth + 1)? else { return None };
        while self.skip(',') && !matches!(self.tokens.get(self.at), Some(Token::Mark(')'))) {
            match self.read_sum(depth + 1)? {
                Value::Text(part) if part.is_empty() => {}
                Value::Text(part) if !(resolves && part.starts_with('/')) => path = path + "/" + &part,
                _ => return None,
            }
        }
        if resolves {
            path.truncate(path.trim_end_matches('/').len());
        }
        self.skip(')').then_some(Value::Below(path))
    }

    fn next(&mut self) -> Option<&'t Token<'t>> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token
    }

    /// Skips this mark if it is the next token, and returns whether it was.
    fn skip(&mut self, mark: char) -> bool {
        let is_next = matches!(self.tokens.get(self.at), Some(Token::Mark(found)) if *found == mark);
        self.at += usize::from(is_next);
        is_next
    }
}
