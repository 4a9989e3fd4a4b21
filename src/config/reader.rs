//! Reading values of a tree: each as what it should be, or a complaint with advice.
//! A reading goes on after a complaint, so that one run tells of everything.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Problem;
use super::secrets::Secrets;
use super::target::CommandLine;
use super::tree::{MapEntry, Node, Value};
use super::units::{self, InvalidValue};
use super::variables::{Unexpanded, Variables};
use crate::time::HumanDuration;

pub(super) struct Keys {
    /// All of them, in groups.
    pub(super) known: &'static [&'static [&'static str]],
    /// Those that each target has for itself.
    pub(super) elsewhere: &'static [&'static str],
}

pub(super) struct Reader<'a> {
    /// The file's folder, absolute.
    pub(super) folder: &'a Path,
    pub(super) home: Option<PathBuf>,
    pub(super) variables: Variables<'a>,
    pub(super) secrets: Secrets,
    /// While what is read may be switched off by a `${NAME}` that is not set: those that are not.
    pub(super) unset: Option<Vec<String>>,
    pub(super) problems: Vec<Problem>,
    /// Complaints about other files, which have no place in this one.
    pub(super) beside: Vec<String>,
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
            beside: Vec::new(),
        }
    }
}

impl Reader<'_> {
    /// Complains of a value: `message` follows its key, as in "`interval` has no unit".
    pub(super) fn complain(&mut self, node: &Node, message: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { at: node.at, message: message.into(), advice: advice.into() });
    }

    /// Complains of a key: `message` is all there is to say.
    pub(super) fn complain_of_key(&mut self, entry: &MapEntry, message: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { at: entry.at, message: message.into(), advice: advice.into() });
    }

    fn wrong(&mut self, node: &Node, wrong: InvalidValue) {
        self.complain(node, wrong.what, wrong.advice);
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, advice: &str) {
        self.complain(node, format!("must be {wanted}, not {}", node.kind()), advice);
    }

    /// The keys and values of a map, each key once.
    pub(super) fn map<'n>(&mut self, node: &'n Node, advice: &str) -> Option<&'n [MapEntry]> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, "a map of keys and values", advice);
            return None;
        };
        let mut known = HashSet::new();
        for entry in entries {
            if !known.insert(&entry.key) {
                self.complain_of_key(entry, format!("`{}` stands here twice", entry.key), "remove one of the two");
            }
        }
        Some(entries)
    }

    /// Checks that `node` is a map that has no other keys than `keys`; a complaint about the rest.
    pub(super) fn has_only(&mut self, node: &Node, keys: &Keys) -> bool {
        let known = keys.known.concat();
        let allowed = || format!("known here: {}", known.join(", "));
        let Some(entries) = self.map(node, &allowed()) else { return false };
        for entry in entries {
            let key = entry.key.as_str();
            if known.contains(&key) {
                continue;
            } else if keys.elsewhere.contains(&key) {
                self.complain_of_key(entry, format!("`{key}` cannot stand here"), "each target has its own");
            } else {
                let advice = match units::nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => allowed(),
                };
                self.complain_of_key(entry, format!("unknown key `{key}`"), advice);
            }
        }
        true
    }

    /// Complains of a key that is not there, unless one that is there is unknown: that will be it, misspelt.
    pub(super) fn complain_of_missing(&mut self, node: &Node, message: impl Into<String>, advice: impl Into<String>) {
        let told = |entry: &MapEntry| self.problems.iter().any(|problem| problem.at == entry.at);
        if !matches!(&node.value, Value::Map(entries) if entries.iter().any(told)) {
            self.complain(node, message, advice);
        }
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, advice: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.complain(node, "is an empty list", advice);
                None
            }
            Value::List(items) => Some(items),
            _ => {
                self.wrong_type(node, "a list", advice);
                None
            }
        }
    }

    /// A text that is not empty and fit for a command, a path or a header.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) if text.trim().is_empty() => self.complain(node, "is empty", "leave the key out instead"),
            Value::Text(text) if text.contains('\0') => self.complain(node, "holds a NUL byte", "remove it"),
            Value::Text(text) => return Some(text),
            Value::Bool(_) | Value::Number(_) => self.wrong_type(node, "text", "put it in quotes"),
            Value::Null | Value::List(_) | Value::Map(_) => self.wrong_type(node, "text", ""),
        }
        None
    }

    pub(super) fn word<T: Copy>(&mut self, node: &Node, words: &[(&'static str, T)]) -> Option<T> {
        let found = node.as_text().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.complain(node, "is none of the words that are known here", words.join(", "));
        }
        found.map(|(_, meaning)| *meaning)
    }

    pub(super) fn flag(&mut self, node: &Node) -> Option<bool> {
        match node.value {
            Value::Bool(flag) => return Some(flag),
            _ => self.wrong_type(node, "true or false", ""),
        }
        None
    }

    pub(super) fn whole(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<u32> {
        let advice = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Number(number) = &node.value else {
            self.wrong_type(node, "a whole number", &advice);
            return None;
        };
        let found = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|n| range.contains(n));
        if found.is_none() {
            self.complain(node, "is out of range", advice);
        }
        found
    }

    pub(super) fn span(&mut self, node: &Node, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.quantity(node, "a duration", "write it like 500ms, 30s or 1h 30m")?;
        match units::duration(&text) {
            Ok(span) if range.contains(&span) => return Some(span),
            Ok(span) => {
                let what = if span < *range.start() { "is too short" } else { "is too long" };
                self.complain(
                    node,
                    what,
                    format!("from {} to {}", HumanDuration(*range.start()), HumanDuration(*range.end())),
                );
            }
            Err(wrong) => self.wrong(node, wrong),
        }
        None
    }

    /// What is written as a number with a unit, or by mistake without one.
    fn quantity(&mut self, node: &Node, wanted: &str, advice: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => return Some(text.clone()),
            Value::Number(number) => return Some(number.to_string()),
            _ => self.wrong_type(node, wanted, advice),
        }
        None
    }

    /// A size in `range`, in bytes; `allowed` is the range in words.
    pub(super) fn size(&mut self, node: &Node, range: RangeInclusive<u64>, allowed: &str) -> Option<u64> {
        let text = self.quantity(node, "a size", "write it like 64KiB or 5MiB")?;
        match units::size(&text) {
            Ok(size) if range.contains(&size) => return Some(size),
            Ok(_) => self.complain(node, "is out of range", allowed),
            Err(wrong) => self.wrong(node, wrong),
        }
        None
    }

    pub(super) fn name(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        units::name(text).map_err(|wrong| self.wrong(node, wrong)).ok()
    }

    pub(super) fn statuses(&mut self, node: &Node) -> Option<RangeInclusive<u16>> {
        let text = match &node.value {
            Value::Number(number) => number.to_string(),
            _ => self.text(node)?.to_owned(),
        };
        units::statuses(&text).map_err(|wrong| self.wrong(node, wrong)).ok()
    }

    /// A path, made absolute: `~/` is the user's home, what is relative begins in the file's folder.
    pub(super) fn path(&mut self, node: &Node) -> Option<PathBuf> {
        let text = self.text(node)?;
        let below_home = match text.strip_prefix('~') {
            None => return Some(self.folder.join(text)),
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
        };
        match (below_home, &self.home) {
            (Some(rest), Some(home)) => return Some(home.join(rest.trim_start_matches('/'))),
            (Some(_), None) => self.complain(node, "begins with ~, but $HOME is not set", "write the whole path"),
            (None, _) => {
                self.complain(node, "begins with ~ and a name", "write ~/ for your own home, or the whole path")
            }
        }
        None
    }

    /// A command: text for the shell, or a list that is run as it is.
    pub(super) fn command(&mut self, node: &Node) -> Option<CommandLine> {
        match &node.value {
            Value::Text(_) => Some(CommandLine::Shell(self.text(node)?.to_owned())),
            Value::List(_) => {
                let items = self.list(node, "a program and its arguments")?;
                let words: Vec<Option<String>> = items.iter().map(|item| self.argument(item)).collect();
                let words: Vec<String> = words.into_iter().collect::<Option<_>>()?;
                if words[0].is_empty() {
                    self.complain(&items[0], "is empty", "the first item is the program");
                    return None;
                }
                Some(CommandLine::Exec(words))
            }
            _ => {
                self.wrong_type(node, "a command", "a text for the shell, or a list: [program, argument]");
                None
            }
        }
    }

    /// One word of a command that is run as it is. It may be empty, and a number is passed on as one writes it.
    fn argument(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) if !text.contains('\0') => Some(text.clone()),
            Value::Number(number) if number.is_u64() => Some(number.to_string()),
            _ => self.text(node).map(str::to_owned),
        }
    }

    /// A text with its variables replaced. `raw` is the node's text or a part of it.
    pub(super) fn expand(&mut self, node: &Node, raw: &str) -> Option<String> {
        match self.variables.expand(raw, &mut self.secrets) {
            Ok(text) => return Some(text),
            Err(Unexpanded::LoneDollar) => {
                self.complain(node, "has a `$` that stands alone", "write ${NAME} for a variable, $$ for a dollar");
            }
            Err(Unexpanded::BadName) => {
                let advice = "a variable's name has letters, digits and _ and begins with no digit";
                self.complain(node, "has a ${…} with what is no name in it", advice);
            }
            Err(Unexpanded::NotSet(name)) if self.unset.is_some() => {
                let unset = self.unset.get_or_insert_default();
                let shown = format!("${{{name}}}");
                if !unset.contains(&shown) {
                    unset.push(shown);
                }
            }
            Err(Unexpanded::NotSet(name)) => {
                let places = self.variables.places();
                self.complain(node, format!("needs ${{{name}}}, which is not set"), places);
            }
        }
        None
    }
}
