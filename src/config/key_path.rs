//! The path of keys to a node, as errors show it (`targets[0].interval`), and the name of a target.
//! It only searches the tree and must never report an error.

use super::tree::{Node, NodeId, Value};

#[derive(Debug)]
pub(super) struct KeyPath<'a> {
    /// `targets[0].interval`; for a key, the path of the map that it is in.
    pub(super) path: String,
    /// The last key of the path and the indices after it, such as `depends_on[1]`; empty for the root.
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

/// The node that names a target: its `name`, else its process in PM2.
pub(super) fn name_of(target: &Node) -> Option<&Node> {
    target.get("name").or_else(|| process_of(target))
}

pub(super) fn process_of(target: &Node) -> Option<&Node> {
    let pm2 = target.get("pm2")?;
    if let Value::Map(_) = pm2.value { pm2.get("process") } else { Some(pm2) }
}

impl Node {
    pub(super) fn key_path(&self, id: NodeId) -> KeyPath<'_> {
        let mut key_path = KeyPath {
            path: String::new(),
            subject: String::new(),
            target: None,
            keys: Vec::new(),
            found: Found::Value(self),
        };
        let mut node = self;
        while node.id != id {
            // Ids grow along the file, so the node is in the last branch that starts no later.
            match &node.value {
                Value::List(items) => {
                    let Some(index) = items.iter().rposition(|item| item.id <= id) else { break };
                    node = &items[index];
                    key_path.subject += &format!("[{index}]");
                    key_path.path += &format!("[{index}]");
                    if key_path.path == format!("targets[{index}]") {
                        key_path.target = name_of(node).and_then(Node::as_text);
                    }
                }
                Value::Map(entries) => {
                    let Some(entry) = entries.iter().rfind(|entry| entry.id <= id) else { break };
                    if entry.id == id {
                        key_path.found = Found::Key(&entry.key);
                        return key_path;
                    }
                    node = &entry.value;
                    let dot = if key_path.path.is_empty() { "" } else { "." };
                    key_path.path += &format!("{dot}{}", entry.key);
                    key_path.subject.clone_from(&entry.key);
                    key_path.keys.push(&entry.key);
                }
                _ => break,
            }
        }
        key_path.found = Found::Value(node);
        key_path
    }
}
