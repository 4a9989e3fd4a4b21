//! Reads each value of a tree as the type that its key needs, or reports an error with advice.
//! It must never stop at the first error: one run shows them all.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Problem;
use super::other_tools::{self, Advice};
use super::secrets::Secrets;
use super::target::CommandLine;
use super::tree::{MapEntry, Node, Value};
use super::units::{self, InvalidValue};
use super::variables::{Unexpanded, Variables};
use crate::time::HumanDuration;

pub(super) struct Keys {
    /// All allowed keys, in groups.
    pub(super) known: &'static [&'static [&'static str]],
    /// Keys that are allowed on a target, but not here.
    pub(super) per_target: &'static [&'static str],
    /// What to write instead of other keys.
    pub(super) elsewhere: &'static [Advice],
}

pub(super) struct Reader<'a> {
    /// The file's folder, absolute.
    pub(super) folder: &'a Path,
    pub(super) home: Option<PathBuf>,
    pub(super) variables: Variables<'a>,
    pub(super) secrets: Secrets,
    /// `Some` while reading what an unset `${NAME}` only switches off: the names found not set so far.
    pub(super) unset: Option<Vec<String>>,
    pub(super) problems: Vec<Problem>,
    /// Errors in other files, which have no position in this one.
    pub(super) file_errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        folder: &'a Path,
        home: Option<PathBuf>,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Reader<'a> {
        Reader {
            folder,
            home,
            variables: Variables::new(environment),
            secrets: Secrets::default(),
            unset: None,
            problems: Vec::new(),
            file_errors: Vec::new(),
        }
    }
}

impl Reader<'_> {
    /// Rejects a value. `message` is shown after its key, as in "`interval` has no unit".
    pub(super) fn reject(&mut self, node: &Node, message: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { id: node.id, message: message.into(), advice: advice.into() });
    }

    /// Rejects a key. `message` is the whole message.
    pub(super) fn reject_key(&mut self, entry: &MapEntry, message: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { id: entry.id, message: message.into(), advice: advice.into() });
    }

    fn reject_invalid(&mut self, node: &Node, invalid: InvalidValue) {
        self.reject(node, invalid.what, invalid.advice);
    }

    fn reject_type(&mut self, node: &Node, expected: &str, advice: &str) {
        self.reject(node, format!("must be {expected}, not {}", node.kind()), advice);
    }

    /// The keys and values of a map; a duplicate key is rejected.
    pub(super) fn map<'n>(&mut self, node: &'n Node, advice: &str) -> Option<&'n [MapEntry]> {
        let Value::Map(entries) = &node.value else {
            self.reject_type(node, "a map of keys and values", advice);
            return None;
        };
        let mut known = HashSet::new();
        for entry in entries {
            if !known.insert(&entry.key) {
                self.reject_key(entry, format!("duplicate key `{}`", entry.key), "remove one of the two");
            }
        }
        Some(entries)
    }

    /// Rejects keys other than `keys`. Returns whether `node` is a map at all.
    pub(super) fn has_only(&mut self, node: &Node, keys: &Keys) -> bool {
        let known = keys.known.concat();
        let allowed = || format!("allowed here: {}", known.join(", "));
        let Some(entries) = self.map(node, &allowed()) else { return false };
        for entry in entries {
            let key = entry.key.as_str();
            if known.contains(&key) {
                continue;
            } else if keys.per_target.contains(&key) {
                self.reject_key(entry, format!("`{key}` is not allowed here"), "set it on each target");
            } else {
                let near = || units::nearest(key, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                let advice = other_tools::advise(key, keys.elsewhere).map(str::to_owned).or_else(near);
                let advice = advice.unwrap_or_else(allowed);
                self.reject_key(entry, format!("unknown key `{key}`"), advice);
            }
        }
        true
    }

    /// Reports a missing key, unless `node` has an unknown one: that is probably the missing key, misspelt.
    pub(super) fn reject_missing_key(&mut self, node: &Node, message: impl Into<String>, advice: impl Into<String>) {
        let is_rejected = |entry: &MapEntry| self.problems.iter().any(|problem| problem.id == entry.id);
        if !matches!(&node.value, Value::Map(entries) if entries.iter().any(is_rejected)) {
            self.reject(node, message, advice);
        }
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, advice: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.reject(node, "is an empty list", advice);
                None
            }
            Value::List(items) => Some(items),
            _ => {
                self.reject_type(node, "a list", advice);
                None
            }
        }
    }

    /// A text that is not empty and has no NUL byte, which no command, path or header may contain.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) if text.trim().is_empty() => self.reject(node, "is empty", "remove the key instead"),
            Value::Text(text) if text.contains('\0') => self.reject(node, "contains a NUL byte", "remove it"),
            Value::Text(text) => return Some(text),
            Value::Bool(_) | Value::Number(_) => self.reject_type(node, "text", "put it in quotes"),
            Value::Null | Value::List(_) | Value::Map(_) => self.reject_type(node, "text", ""),
        }
        None
    }

    pub(super) fn choice<T: Copy>(&mut self, node: &Node, words: &[(&'static str, T)]) -> Option<T> {
        let found = node.as_text().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.reject(node, "is not one of the allowed values", format!("one of: {}", words.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.value {
            Value::Bool(flag) => return Some(flag),
            _ => self.reject_type(node, "true or false", ""),
        }
        None
    }

    pub(super) fn integer(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<u32> {
        let advice = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Number(number) = &node.value else {
            self.reject_type(node, "a whole number", &advice);
            return None;
        };
        let found = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|n| range.contains(n));
        if found.is_none() {
            self.reject(node, "is out of range", advice);
        }
        found
    }

    pub(super) fn duration(&mut self, node: &Node, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.quantity(node, "a duration", "write it like 500ms, 30s or 1h 30m")?;
        match units::parse_duration(&text) {
            Ok(duration) if range.contains(&duration) => return Some(duration),
            Ok(duration) => {
                let what = if duration < *range.start() { "is too short" } else { "is too long" };
                self.reject(
                    node,
                    what,
                    format!("from {} to {}", HumanDuration(*range.start()), HumanDuration(*range.end())),
                );
            }
            Err(invalid) => self.reject_invalid(node, invalid),
        }
        None
    }

    /// The text of a number with a unit. A number without one is accepted here, so that the error can name the unit.
    fn quantity(&mut self, node: &Node, expected: &str, advice: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => return Some(text.clone()),
            Value::Number(number) => return Some(number.to_string()),
            _ => self.reject_type(node, expected, advice),
        }
        None
    }

    /// A size in bytes. `allowed` is the range as errors show it.
    pub(super) fn size(&mut self, node: &Node, range: RangeInclusive<u64>, allowed: &str) -> Option<u64> {
        let text = self.quantity(node, "a size", "write it like 64KiB or 5MiB")?;
        match units::parse_size(&text) {
            Ok(size) if range.contains(&size) => return Some(size),
            Ok(_) => self.reject(node, "is out of range", allowed),
            Err(invalid) => self.reject_invalid(node, invalid),
        }
        None
    }

    pub(super) fn name(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        units::parse_name(text).map_err(|invalid| self.reject_invalid(node, invalid)).ok()
    }

    pub(super) fn status_range(&mut self, node: &Node) -> Option<RangeInclusive<u16>> {
        let text = match &node.value {
            Value::Number(number) => number.to_string(),
            _ => self.text(node)?.to_owned(),
        };
        units::parse_statuses(&text).map_err(|invalid| self.reject_invalid(node, invalid)).ok()
    }

    /// An absolute path: `~/` is the user's home, and a relative path starts in the file's folder.
    pub(super) fn path(&mut self, node: &Node) -> Option<PathBuf> {
        let text = self.text(node)?;
        let below_home = match text.strip_prefix('~') {
            None => return Some(self.folder.join(text)),
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
        };
        match (below_home, &self.home) {
            (Some(rest), Some(home)) => return Some(home.join(rest.trim_start_matches('/'))),
            (Some(_), None) => self.reject(node, "starts with ~, but $HOME is not set", "write the whole path"),
            (None, _) => {
                self.reject(node, "starts with ~ and a user name", "write ~/ for your own home, or the whole path")
            }
        }
        None
    }

    /// A command: text for the shell, or a list that is run without one.
    pub(super) fn command(&mut self, node: &Node) -> Option<CommandLine> {
        match &node.value {
            Value::Text(_) => Some(CommandLine::Shell(self.text(node)?.to_owned())),
            Value::List(_) => {
                let items = self.list(node, "a program and its arguments")?;
                let words: Vec<Option<String>> = items.iter().map(|item| self.argument(item)).collect();
                let words: Vec<String> = words.into_iter().collect::<Option<_>>()?;
                if words[0].is_empty() {
                    self.reject(&items[0], "is empty", "the first item is the program");
                    return None;
                }
                Some(CommandLine::Exec(words))
            }
            _ => {
                self.reject_type(node, "a command", "text for the shell, or a list: [program, argument]");
                None
            }
        }
    }

    /// One item of a command that is run without a shell. It may be empty or a whole number.
    fn argument(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) if !text.contains('\0') => Some(text.clone()),
            Value::Number(number) if number.is_u64() => Some(number.to_string()),
            _ => self.text(node).map(str::to_owned),
        }
    }

    /// Replaces the variables in `raw`, which is the node's text or a part of it.
    pub(super) fn expand(&mut self, node: &Node, raw: &str) -> Option<String> {
        match self.variables.expand(raw, &mut self.secrets) {
            Ok(text) => return Some(text),
            Err(Unexpanded::LoneDollar) => {
                self.reject(node, "contains a lone `$`", "write ${NAME} for a variable, $$ for a dollar");
            }
            Err(Unexpanded::BadName) => {
                let advice = "a variable name has letters, digits and _, and does not start with a digit";
                self.reject(node, "contains ${…} with an invalid name", advice);
            }
            Err(Unexpanded::NotSet(name)) if self.unset.is_some() => {
                let unset = self.unset.get_or_insert_default();
                let shown = format!("${{{name}}}");
                if !unset.contains(&shown) {
                    unset.push(shown);
                }
            }
            Err(Unexpanded::NotSet(name)) => {
                let searched = self.variables.searched();
                self.reject(node, format!("needs ${{{name}}}, which is not set"), searched);
            }
        }
        None
    }
}
