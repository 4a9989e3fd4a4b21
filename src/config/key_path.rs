//! The way from the root of a tree to one of its places, as people read it: `targets[0].interval`; and what a target
//! is called.

use super::tree::{At, Node, Value};

#[derive(Debug)]
pub(super) struct KeyPath<'a> {
    /// `targets[0].interval`; for a key, the way to the map that it stands in.
    pub(super) path: String,
    /// The last key of the path with what follows it, such as `depends_on[1]`; nothing for the root.
    pub(super) subject: String,
    pub(super) target: Option<&'a str>,
    pub(super) keys: Vec<&'a str>,
    pub(super) found: Found<'a>,
}

#[derive(Debug)]
pub(super) enum Found<'a> {
    Key(&'a str),
    Value(&'a Node),
}

/// What a target is called: by its `name`, else by that of its process in PM2.
pub(super) fn name_of(target: &Node) -> Option<&Node> {
    target.get("name").or_else(|| process_of(target))
}

pub(super) fn process_of(target: &Node) -> Option<&Node> {
    let pm2 = target.get("pm2")?;
    if let Value::Map(_) = pm2.value { pm2.get("process") } else { Some(pm2) }
}

impl Node {
    pub(super) fn key_path(&self, at: At) -> KeyPath<'_> {
        let mut way = KeyPath {
            path: String::new(),
            subject: String::new(),
            target: None,
            keys: Vec::new(),
            found: Found::Value(self),
        };
        let mut node = self;
        while node.at != at {
            // Numbers grow along the file, so the wanted one is in the last branch that begins no later.
            match &node.value {
                Value::List(items) => {
                    let Some(index) = items.iter().rposition(|item| item.at <= at) else { break };
                    node = &items[index];
                    way.subject += &format!("[{index}]");
                    way.path += &format!("[{index}]");
                    if way.path == format!("targets[{index}]") {
                        way.target = name_of(node).and_then(Node::as_text);
                    }
                }
                Value::Map(entries) => {
                    let Some(entry) = entries.iter().rfind(|entry| entry.at <= at) else { break };
                    if entry.at == at {
                        way.found = Found::Key(&entry.key);
                        return way;
                    }
                    node = &entry.value;
                    let dot = if way.path.is_empty() { "" } else { "." };
                    way.path += &format!("{dot}{}", entry.key);
                    way.subject.clone_from(&entry.key);
                    way.keys.push(&entry.key);
                }
                _ => break,
            }
        }
        way.found = Found::Value(node);
        way
    }
}
