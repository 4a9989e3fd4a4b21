//! YAML as a tree in which every key and every value knows its place.
//! It only says what stands where; what it means, and whether it may stand there, is for its readers.
//!
//! The parser tells the place of an error but not that of a value. So each key and value is numbered in the order
//! of the file, and the place of number n is found by reading the text again and raising an error at n.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Keys and values of a file, with what its aliases repeat: far beyond 1,000 targets, far below trouble.
const MOST: usize = 200_000;

/// A key or a value by its number in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(usize);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
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

/// A key and its value. A map may hold a key twice: its reader complains of it.
#[derive(Debug)]
pub(super) struct MapEntry {
    pub(super) key: String,
    pub(super) at: At,
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
    pub(super) place: Position,
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
    if let Some(place) = too_deep(text) {
        return Err(SyntaxError { message: "brackets nested too deeply".into(), place });
    }
    walk(text, None).map_err(|error| {
        let place = error.location().map_or(Position { line: 1, column: 1 }, |location| place_of(&location));
        SyntaxError { message: describe(&error), place }
    })
}

/// Where `at` stands in `text`, the text that it was numbered in. The place of an alias is that of its anchor.
pub(super) fn locate(text: &str, at: At) -> Option<Position> {
    walk(text, Some(at)).err()?.location().as_ref().map(place_of)
}

/// Where more brackets are open than any real file has. The parser would refuse it too, after time that grows with
/// the square of the depth: half a minute for 400 KB.
fn too_deep(text: &str) -> Option<Position> {
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

fn place_of(location: &serde_yaml::Location) -> Position {
    Position { line: location.line().max(1), column: location.column().max(1) }
}

fn walk(text: &str, wanted: Option<At>) -> Result<Node, serde_yaml::Error> {
    let walk = Walk { next: Cell::new(0), wanted };
    walk.deserialize(serde_yaml::Deserializer::from_str(text))
}

/// The parser's words, without what it may have quoted: an odd tag makes it repeat the value.
fn describe(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    if text.contains("invalid type: ") || text.contains("invalid value: ") {
        return "this cannot stand here: a key is a plain word, a number has at most 64 bits, and tags (!x) must fit"
            .into();
    }
    match text.as_str() {
        "deserializing from YAML containing more than one document is not supported" => {
            "a second document begins (---); there can be only one".into()
        }
        _ => text,
    }
}

/// One reading of the text, from start to end or to the wanted place.
struct Walk {
    next: Cell<usize>,
    wanted: Option<At>,
}

impl Walk {
    fn number(&self) -> At {
        let number = self.next.get();
        self.next.set(number + 1);
        At(number)
    }

    /// An error raised here, inside the visit, is given the place of what is visited.
    fn arrive<E: serde::de::Error>(&self, at: At) -> Result<(), E> {
        if self.wanted == Some(at) {
            return Err(E::custom("the wanted place"));
        }
        if at.0 >= MOST {
            return Err(E::custom(format!("more than {MOST} keys and values, with what aliases repeat")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &Walk {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Here { walk: self, at: self.number() })
    }
}

struct Here<'a> {
    walk: &'a Walk,
    at: At,
}

impl Here<'_> {
    fn node<E: serde::de::Error>(self, value: Value) -> Result<Node, E> {
        self.walk.arrive(self.at)?;
        Ok(Node { at: self.at, value })
    }
}

impl<'de> Visitor<'de> for Here<'_> {
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
        self.walk.arrive(self.at)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.walk)? {
            list.push(item);
        }
        self.node(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.walk.arrive(self.at)?;
        let mut map = Vec::new();
        while let Some((at, key)) = entries.next_key_seed(Key(self.walk))? {
            map.push(MapEntry { key, at, value: entries.next_value_seed(self.walk)? });
        }
        self.node(Value::Map(map))
    }
}

/// The visit of a key, which is text whatever it looks like.
struct Key<'a>(&'a Walk);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = (At, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(At, String), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = (At, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain word as key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(At, String), E> {
        let at = self.0.number();
        self.0.arrive(at)?;
        Ok((at, text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key_path::Found;

    /// Each key and value of `text` in order, with its place.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let root = parse(text).expect("valid");
        let mut places = Vec::new();
        for number in 0.. {
            let Some(place) = locate(text, At(number)) else { break };
            let word = match root.key_path(At(number)).found {
                Found::Key(key) => key.to_owned(),
                Found::Value(node) => match &node.value {
                    Value::Text(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(flag) => flag.to_string(),
                    _ => node.kind().to_owned(),
                },
            };
            places.push(format!("{word}@{}:{}", place.line, place.column));
        }
        assert_eq!(places.join(" "), expected);
    }

    #[test]
    fn every_key_and_value_is_found_where_it_stands() {
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
    fn refused(text: &str, expected: &str) {
        let error = parse(text).expect_err("not valid");
        let told = format!("{}:{}: {}", error.place.line, error.place.column, error.message);
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn what_is_no_tree_is_refused_without_quoting_it() {
        refused("a: [1\nb: 2\n", "did not find expected ',' or ']'");
        refused("a: 1\n---\nb: 2\n", "a second document");
        refused("a: !!int secret\n", "1:4: this cannot stand here");
        refused("? [a]\n: b\n", "1:3: this cannot stand here");
        refused("a: !x {b: 1}\n", "this cannot stand here");
        refused("a: .nan\n", "1:4: a: not a finite number");
        refused("a: 99999999999999999999999\n", "this cannot stand here");
        refused("a: *b\n", "unknown anchor");
        refused(&"[".repeat(1_000), "recursion limit");
        refused(&"[\n".repeat(20_000), "2001:1: brackets nested too deeply");
    }

    #[test]
    fn aliases_cannot_blow_it_up() {
        let many = "x,".repeat(10_000);
        let again = "*a,".repeat(10_000);
        refused(&format!("a: &a [{many}]\nb: [{again}]\n"), "more than 200000 keys and values");
        refused("a: &a [*a]\n", "recursion limit");
    }

    #[test]
    fn an_empty_document_is_nothing() {
        assert!(matches!(parse("").expect("valid").value, Value::Null));
        assert!(matches!(parse("# only words\n").expect("valid").value, Value::Null));
    }
}
