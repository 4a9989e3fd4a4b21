//! Whether the targets fit together: names, dependencies, restart commands.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

use super::key_path::{name_of, process_of};
use super::reader::Reader;
use super::target::{Remedy, Target};
use super::tree::{Node, Value};
use super::units::nearest;

pub(super) struct ParsedTarget<'n> {
    pub(super) node: &'n Node,
    pub(super) depends_on: Option<&'n Node>,
    pub(super) target: Target,
}

/// Complains of targets that are valid each and not together. `nodes` are all of them, `parsed` those that are valid.
pub(super) fn check(reading: &mut Reader<'_>, nodes: &[Node], parsed: &[ParsedTarget<'_>]) {
    names_differ(reading, nodes);
    dependencies_exist(reading, nodes, parsed);
    dependencies_end(reading, parsed);
    ladders_differ(reading, parsed);
    processes_differ(reading, parsed);
}

fn names_differ(reading: &mut Reader<'_>, nodes: &[Node]) {
    let mut known = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some((name, text)) = name_of(node).and_then(|name| Some((name, name.as_text()?))) else { continue };
        if let Some(first) = known.get(text) {
            reading.complain(name, format!("is what targets[{first}] is called already"), "names must differ");
        } else {
            known.insert(text, index);
        }
    }
}

fn dependencies_exist(reading: &mut Reader<'_>, nodes: &[Node], parsed: &[ParsedTarget<'_>]) {
    // Of all targets, those with other mistakes too: a name that is there is no unknown one.
    let names: Vec<&str> = nodes.iter().filter_map(|node| name_of(node)?.as_text()).collect();
    let known: HashSet<&str> = names.iter().copied().collect();
    for ParsedTarget { depends_on, .. } in parsed {
        let Some(Value::List(items)) = depends_on.map(|node| &node.value) else { continue };
        for (item, name) in items.iter().filter_map(|item| Some((item, item.as_text()?))) {
            if !known.contains(name) {
                let advice = match nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "it must be the name of a target".into(),
                };
                reading.complain(item, "is no target here", advice);
            }
        }
    }
}

/// Nobody waits for himself in the end.
fn dependencies_end(reading: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let edges: HashMap<&str, &[String]> =
        parsed.iter().map(|one| (one.target.name.as_str(), one.target.limits.depends_on.as_slice())).collect();
    let mut told: Vec<&str> = Vec::new();
    for ParsedTarget { node, depends_on, target } in parsed {
        if told.contains(&target.name.as_str()) {
            continue;
        }
        if let Some(cycle) = cycle_through(&target.name, &edges) {
            let message = format!("goes in a circle: {}", [&cycle[..], &[&target.name]].concat().join(" → "));
            let place = depends_on.unwrap_or(node);
            reading.complain(place, message, "each would wait for the other");
            told.extend(cycle);
        }
    }
}

/// The shortest way from `start` along `edges` back to it, `start` first.
fn cycle_through<'n>(start: &'n str, edges: &HashMap<&'n str, &'n [String]>) -> Option<Vec<&'n str>> {
    let mut came_from: HashMap<&str, &str> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for next in edges.get(here).copied().unwrap_or_default() {
            if next == start {
                let mut way = vec![here];
                while let Some(before) = came_from.get(way[way.len() - 1]) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, here);
                queue.push_back(next);
            }
        }
    }
    None
}

/// Two targets with the same commands would double each other's restarts. Those that are told the target's name
/// differ although they read the same.
fn ladders_differ(reading: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let mut known: HashMap<Vec<&Remedy>, &str> = HashMap::new();
    for ParsedTarget { node, target, .. } in parsed {
        let commands: Vec<&Remedy> = target.ladder.iter().map(|rung| &rung.remedy).collect();
        let is_told_apart = |remedy: &&Remedy| remedy.to_string().contains("WATCHDOG_TARGET");
        // Those of PM2 are told apart by the process.
        let is_pm2s = |remedy: &&Remedy| matches!(remedy, Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_));
        if commands.iter().any(is_told_apart) || commands.iter().all(is_pm2s) {
            continue;
        }
        match known.get(&commands) {
            Some(first) => {
                let message = format!("is the same as that of `{first}`: they would double each other's restarts");
                let advice = "leave it out of one of them, or use $WATCHDOG_TARGET in it";
                reading.complain(node.get("restart").unwrap_or(node), message, advice);
            }
            None => {
                known.insert(commands, &target.name);
            }
        }
    }
}

/// Two targets with the same process in PM2 would double each other's restarts too.
fn processes_differ(reading: &mut Reader<'_>, parsed: &[ParsedTarget<'_>]) {
    let mut known: HashMap<(&Path, &str), &str> = HashMap::new();
    for ParsedTarget { node, target, .. } in parsed {
        let Some(pm2) = &target.pm2 else { continue };
        if let Some(first) = known.get(&(pm2.home.as_path(), pm2.process.as_str())) {
            if *first == target.name {
                continue; // told already
            }
            let message = format!("is the process of `{first}` already: they would double each other's restarts");
            let advice = "one target for each process; a second probe of it is a target without `pm2` and `restart`";
            reading.complain(process_of(node).unwrap_or(node), message, advice);
        } else {
            known.insert((&pm2.home, &pm2.process), &target.name);
        }
    }
}
