//! YAML as a tree in which every key and every value has a position in the file.
//! It must never judge what a key or value means, or whether it is allowed: its readers do.
//!
//! The parser gives the position of an error but not that of a value. So each key and value is numbered in the order of
//! the file, and the position of number n is found by parsing the text again and raising an error at n.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Keys and values, counting what aliases repeat: far more than 1,000 targets need, and still small in memory.
const MAX_NODES: usize = 200_000;

/// A key or a value by its number in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(usize);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<MapEntry>),
}

/// A key and its value. A map may hold the same key twice; its reader rejects that.
#[derive(Debug)]
pub(super) struct MapEntry {
    pub(super) key: String,
    pub(super) id: NodeId,
    pub(super) value: Node,
}

/// Line and column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) position: Position,
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if let Some(position) = find_excessive_nesting(text) {
        return Err(SyntaxError { message: "brackets nested too deeply".into(), position });
    }
    walk(text, None).map_err(|error| {
        let position = error.location().map_or(Position { line: 1, column: 1 }, |location| position_of(&location));
        SyntaxError { message: describe(&error), position }
    })
}

/// The position of `id` in `text`, which must be the text that it was numbered in. An alias has its anchor's position.
pub(super) fn locate(text: &str, id: NodeId) -> Option<Position> {
    walk(text, Some(id)).err()?.location().as_ref().map(position_of)
}

/// The first position at which more brackets are open than any real file has. The parser would refuse such a file too,
/// but its time grows with the square of the depth: half a minute for 400 KB.
fn find_excessive_nesting(text: &str) -> Option<Position> {
    let mut open = 0_usize;
    for (line, number) in text.lines().zip(1..) {
        for (character, column) in line.chars().zip(1..) {
            match character {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > 2_000 {
                return Some(Position { line: number, column });
            }
        }
    }
    None
}

fn position_of(location: &serde_yaml::Location) -> Position {
    Position { line: location.line().max(1), column: location.column().max(1) }
}

fn walk(text: &str, sought: Option<NodeId>) -> Result<Node, serde_yaml::Error> {
    let walk = Walk { next: Cell::new(0), sought };
    walk.deserialize(serde_yaml::Deserializer::from_str(text))
}

/// The parser's message, unless it may quote a value: it does so for a tag that does not fit.
fn describe(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    if text.contains("invalid type: ") || text.contains("invalid value: ") {
        return "not allowed here: a key is a plain word, a number has at most 64 bits, a tag (!x) must match its value"
            .into();
    }
    match text.as_str() {
        "deserializing from YAML containing more than one document is not supported" => {
            "a second document starts here (---); only one is allowed".into()
        }
        _ => text,
    }
}

/// One pass over the text, to its end or to the sought node.
struct Walk {
    next: Cell<usize>,
    sought: Option<NodeId>,
}

impl Walk {
    fn next_id(&self) -> NodeId {
        let number = self.next.get();
        self.next.set(number + 1);
        NodeId(number)
    }

    /// Must be called inside a visit: the parser gives an error that is raised there the position of the visited node.
    fn enter<E: serde::de::Error>(&self, id: NodeId) -> Result<(), E> {
        if self.sought == Some(id) {
            return Err(E::custom("the sought node"));
        }
        if id.0 >= MAX_NODES {
            return Err(E::custom(format!("more than {MAX_NODES} keys and values, counting what aliases repeat")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &Walk {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor { walk: self, id: self.next_id() })
    }
}

struct NodeVisitor<'a> {
    walk: &'a Walk,
    id: NodeId,
}

impl NodeVisitor<'_> {
    fn node<E: serde::de::Error>(self, value: Value) -> Result<Node, E> {
        self.walk.enter(self.id)?;
        Ok(Node { id: self.id, value })
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.node(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.node(Value::Number(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.node(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        self.node(Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
        self.node(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.walk.enter(self.id)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.walk)? {
            list.push(item);
        }
        self.node(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.walk.enter(self.id)?;
        let mut map = Vec::new();
        while let Some((id, key)) = entries.next_key_seed(KeyVisitor(self.walk))? {
            map.push(MapEntry { key, id, value: entries.next_value_seed(self.walk)? });
        }
        self.node(Value::Map(map))
    }
}

/// A key is text, whatever it looks like.
struct KeyVisitor<'a>(&'a Walk);

impl<'de> DeserializeSeed<'de> for KeyVisitor<'_> {
    type Value = (NodeId, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(NodeId, String), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyVisitor<'_> {
    type Value = (NodeId, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain word as key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(NodeId, String), E> {
        let id = self.0.next_id();
        self.0.enter(id)?;
        Ok((id, text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key_path::Found;

    /// Each key and value of `text` in order, with its position.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let root = parse(text).expect("valid");
        let mut found = Vec::new();
        for number in 0.. {
            let Some(position) = locate(text, NodeId(number)) else { break };
            let word = match root.key_path(NodeId(number)).found {
                Found::Key(key) => key.to_owned(),
                Found::Value(node) => match &node.value {
                    Value::Text(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(flag) => flag.to_string(),
                    _ => node.kind().to_owned(),
                },
            };
            found.push(format!("{word}@{}:{}", position.line, position.column));
        }
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn every_key_and_value_has_its_position() {
        check(
            "a: 1\nb:\n  - x\n  - y: true\n",
            "a map@1:1 a@1:1 1@1:4 b@2:1 a list@3:3 x@3:5 a map@4:5 y@4:5 true@4:8",
        );
        check("{a: {b: 'c'}, d: [e, 2]}", "a map@1:1 a@1:2 a map@1:5 b@1:6 c@1:9 d@1:15 a list@1:18 e@1:19 2@1:22");
        check("ä: ö  # ü\nß: z\n", "a map@1:1 ä@1:1 ö@1:4 ß@2:1 z@2:4");
        check("a:\nb: |\n  text\n", "a map@1:1 a@1:1 nothing@1:3 b@2:1 text\n@2:4");
        check("a: &x {b: 1}\nc: *x\n", "a map@1:1 a@1:1 a map@1:4 b@1:8 1@1:11 c@2:1 a map@1:4 b@1:8 1@1:11");
    }

    #[track_caller]
    fn rejected(text: &str, expected: &str) {
        let error = parse(text).expect_err("not valid");
        let shown = format!("{}:{}: {}", error.position.line, error.position.column, error.message);
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn invalid_yaml_is_rejected_without_quoting_it() {
        rejected("a: [1\nb: 2\n", "did not find expected ',' or ']'");
        rejected("a: 1\n---\nb: 2\n", "a second document");
        rejected("a: !!int secret\n", "1:4: not allowed here");
        rejected("? [a]\n: b\n", "1:3: not allowed here");
        rejected("a: !x {b: 1}\n", "not allowed here");
        rejected("a: .nan\n", "1:4: a: not a finite number");
        rejected("a: 99999999999999999999999\n", "not allowed here");
        rejected("a: *b\n", "unknown anchor");
        rejected(&"[".repeat(1_000), "recursion limit");
        rejected(&"[\n".repeat(20_000), "2001:1: brackets nested too deeply");
    }

    #[test]
    fn aliases_cannot_exhaust_memory() {
        let many = "x,".repeat(10_000);
        let again = "*a,".repeat(10_000);
        rejected(&format!("a: &a [{many}]\nb: [{again}]\n"), "more than 200000 keys and values");
        rejected("a: &a [*a]\n", "recursion limit");
    }

    #[test]
    fn an_empty_document_is_null() {
        assert!(matches!(parse("").expect("valid").value, Value::Null));
        assert!(matches!(parse("# only words\n").expect("valid").value, Value::Null));
    }
}
