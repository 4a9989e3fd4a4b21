//! Checks across targets: unique names, dependencies, restart commands, PM2 processes.
//! It must never check what one target alone can show to be wrong.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

use super::key_path::{name_of, process_of};
use super::reader::Reader;
use super::target::{Probe, Remedy, Target};
use super::tree::{Node, Value};
use super::units::nearest;

/// Of all targets together: as many as there can be targets. While all of them hang, each has a thread and a file
/// descriptor, of which a process can usually have 1,024.
const MAX_ADDRESSES: usize = 1_000;

pub(super) struct ParsedTarget<'n> {
    pub(super) node: &'n Node,
    pub(super) depends_on: Option<&'n Node>,
    pub(super) target: Target,
}

/// Rejects targets that are valid each but not together. `nodes` are all targets, `parsed` the valid ones.
pub(super) fn check(reader: &mut Reader<'_>, nodes: &[Node], parsed: &[ParsedTarget<'_>]) {
    check_names_differ(reader, nodes);
    check_dependencies_exist(reader, nodes, parsed);
    check_no_cycles(reader, parsed);
    check_ladders_differ(reader, parsed);
    check_processes_differ(reader, parsed);
    check_addresses_are_few(reader, parsed);
}

fn check_names_differ(reader: &mut Reader<'_>, nodes: &[Node]) {
    let mut known = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some((name, text)) = name_of(node).and_then(|name| Some((name, name.as_text()?))) else { continue };
        if let Some(first) = known.get(text) {
            reader.reject(name, format!("is already used by targets[{first}]"), "names must be unique");
        } else {
            known.insert(text, index);
        }
    }
}

fn check_dependencies_exist(reader: &mut Reader<'_>, nodes: &[Node], parsed: &[ParsedTarget<'_>]) {
    // The names of invalid targets count too: a dependency on one of them is not unknown.
    let names: Vec<&str> = nodes.iter().filter_map(|node| name_of(node)?.as_text()).collect();
    let known: HashSet<&str> = names.iter().copied().collect();
    for ParsedTarget { depends_on, .. } in parsed {
        let Some(Value::List(items)) = depends_on.map(|node| &node.value) else { continue };
        for (item, name) in items.iter().filter_map(|item| Some((item, item.as_text()?))) {
            if !known.contains(name) {
                let advice = match nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "must be the name of a target in this file".into(),
                };
                reader.reject(item, "is not a target", advice);
            }
        }
    }
}

fn check_no_cycles(reader: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let edges: HashMap<&str, &[String]> =
        parsed.iter().map(|one| (one.target.name.as_str(), one.target.limits.depends_on.as_slice())).collect();
    let mut reported: Vec<&str> = Vec::new();
    for ParsedTarget { node, depends_on, target } in parsed {
        if reported.contains(&target.name.as_str()) {
            continue;
        }
        if let Some(cycle) = find_cycle(&target.name, &edges) {
            let message = format!("forms a cycle: {}", [&cycle[..], &[&target.name]].concat().join(" → "));
            reader.reject(
                depends_on.unwrap_or(node),
                message,
                "each would wait for another, so none would be restarted",
            );
            reported.extend(cycle);
        }
    }
}

/// The shortest path from `start` along `edges` back to it, `start` first.
fn find_cycle<'n>(start: &'n str, edges: &HashMap<&'n str, &'n [String]>) -> Option<Vec<&'n str>> {
    let mut came_from: HashMap<&str, &str> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for next in edges.get(here).copied().unwrap_or_default() {
            if next == start {
                let mut path = vec![here];
                while let Some(before) = came_from.get(path[path.len() - 1]) {
                    path.push(before);
                }
                path.reverse();
                return Some(path);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, here);
                queue.push_back(next);
            }
        }
    }
    None
}

/// Two targets with the same commands would double each other's restarts. Commands that use the target's name differ,
/// although their text is the same.
fn check_ladders_differ(reader: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let mut known: HashMap<Vec<&Remedy>, &str> = HashMap::new();
    for ParsedTarget { node, target, .. } in parsed {
        let commands: Vec<&Remedy> = target.ladder.iter().map(|rung| &rung.remedy).collect();
        let uses_name = |remedy: &&Remedy| remedy.to_string().contains("WATCHDOG_TARGET");
        // The remedies of PM2 are compared in check_processes_differ.
        let is_pm2 = |remedy: &&Remedy| matches!(remedy, Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_));
        if commands.iter().any(uses_name) || commands.iter().all(is_pm2) {
            continue;
        }
        match known.get(&commands) {
            Some(first) => {
                let (what, advice) = match node.get("restart") {
                    Some(_) => ("the same as for", "remove one of them, or use $WATCHDOG_TARGET in it"),
                    None => (
                        "already the unit of",
                        "one target per unit; for a second probe of it, add a target without `unit` and `restart`",
                    ),
                };
                let message = format!("is {what} `{first}`; each would double the other's restarts");
                let place = node.get("restart").or_else(|| node.get("unit"));
                reader.reject(place.unwrap_or(node), message, advice);
            }
            None => {
                known.insert(commands, &target.name);
            }
        }
    }
}

/// Two targets with the same process in PM2 would double each other's restarts.
fn check_processes_differ(reader: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let mut known: HashMap<(&Path, &str), &str> = HashMap::new();
    for ParsedTarget { node, target, .. } in parsed {
        let Some(pm2) = &target.pm2 else { continue };
        if let Some(first) = known.get(&(pm2.home.as_path(), pm2.process.as_str())) {
            if *first == target.name {
                continue; // reported by check_names_differ
            }
            let message = format!("is already the process of `{first}`; each would double the other's restarts");
            let advice = "one target per process; for a second probe of it, add a target without `pm2` and `restart`";
            reader.reject(process_of(node).unwrap_or(node), message, advice);
        } else {
            known.insert((&pm2.home, &pm2.process), &target.name);
        }
    }
}

fn check_addresses_are_few(reader: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let mut count = 0;
    for ParsedTarget { node, target, .. } in parsed {
        let Probe::Http(addresses) = &target.probe else { continue };
        count += addresses.len();
        if count > MAX_ADDRESSES {
            let message = format!("is too much: with these, the targets have more than {MAX_ADDRESSES} addresses");
            reader.reject(node.get("http").unwrap_or(node), message, format!("at most {MAX_ADDRESSES} in one file"));
            return;
        }
    }
}
