//! Each target: its own keys, and what `defaults` says for all.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::cross_checks::{self, ParsedTarget};
use super::key_path::name_of;
use super::pm2;
use super::probes::{PROBES, probe, probe_id};
use super::reader::{Keys, Reader};
use super::target::{CommandLine, Pm2Config, Probe, RUNG_TIMEOUT, Remedy, Rung, Target};
use super::tree::{Node, Value};
use super::units;
use crate::outcome::Class;
use crate::policy::{Limits, Precondition};
use crate::time::HumanDuration;

const MOST_TARGETS: usize = 1_000;
/// More commands than can be run in the time that they have together.
const MOST_DIAGNOSES: usize = 20;
const DAY: Duration = Duration::from_secs(86_400);
/// Intervals, and how long looks and commands may take.
const LOOK: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
/// Cooldowns, periods and windows.
const PERIOD: RangeInclusive<Duration> = Duration::ZERO..=DAY;
/// What only each target itself can say.
const OWN: [&str; 7] = ["name", PROBES[0], PROBES[1], PROBES[2], PROBES[3], "pm2", "restart"];
const SHARED: [&str; 15] = [
    "interval",
    "retry_interval",
    "timeout",
    "failure_threshold",
    "start_period",
    "cooldown",
    "max_cooldown",
    "stable_after",
    "max_restarts",
    "restart_window",
    "restart_on",
    "only_if",
    "depends_on",
    "diagnose",
    "dry_run",
];
pub(super) const TARGET: Keys = Keys { known: &[&OWN, &SHARED], elsewhere: &[] };
pub(super) const DEFAULTS: Keys = Keys { known: &[&SHARED], elsewhere: &OWN };
pub(super) const RUNG: Keys = Keys { known: &[&["run", "pm2", "timeout"]], elsewhere: &[] };

/// Where a target's keys are looked up: in the target, else in `defaults`.
#[derive(Clone, Copy)]
struct TargetFields<'n> {
    own: &'n Node,
    defaults: Option<&'n Node>,
}

impl<'n> TargetFields<'n> {
    fn get(self, key: &str) -> Option<&'n Node> {
        self.own.get(key).or_else(|| self.defaults?.get(key))
    }

    /// The most particular of the keys: where a contradiction between them is to be mended.
    fn any_of(self, keys: [&str; 2]) -> Option<&'n Node> {
        let own = keys.iter().find_map(|key| self.own.get(key));
        own.or_else(|| keys.iter().find_map(|key| self.defaults?.get(key)))
    }
}

/// All targets of the file; of those that are not valid only complaints.
pub(super) fn targets(reading: &mut Reader<'_>, root: &Node, dry_run: bool) -> Vec<Target> {
    let defaults = root.get("defaults").filter(|node| reading.has_only(node, &DEFAULTS));
    if let Some(own) = defaults {
        // What is wrong here is told even if each target has a key of its own in its place.
        let said = TargetFields { own, defaults: None };
        limits(reading, said, &TargetParts::default());
        only_if(reading, said);
        diagnose(reading, said);
    }
    let Some(list) = root.get("targets") else {
        reading.complain_of_missing(
            root,
            "has no `targets`",
            "there must be something to watch: targets: [{name: …, http: …}]",
        );
        return Vec::new();
    };
    let Some(nodes) = reading.list(list, "there must be something to watch") else { return Vec::new() };
    if nodes.len() > MOST_TARGETS {
        reading.complain(list, format!("has {} targets", nodes.len()), format!("at most {MOST_TARGETS}"));
        return Vec::new();
    }
    let mut homes = HashSet::new();
    let read: Vec<ParsedTarget<'_>> = nodes
        .iter()
        .filter_map(|node| {
            let said = TargetFields { own: node, defaults };
            let target = target(reading, said, dry_run, &mut homes)?;
            Some(ParsedTarget { node, depends_on: said.get("depends_on"), target })
        })
        .collect();
    cross_checks::check(reading, nodes, &read);
    read.into_iter().map(|read| read.target).collect()
}

#[derive(Default)]
struct TargetParts<'a> {
    probe: Option<&'a Probe>,
    pm2: Option<&'a Pm2Config>,
    ladder: &'a [Rung],
    only_if: Option<&'a CommandLine>,
    diagnoses: bool,
    tells_of_pm2: bool,
    dry_run: bool,
}

/// `homes`: those of PM2 that a target before this one lives in.
fn target(
    reading: &mut Reader<'_>,
    said: TargetFields<'_>,
    dry_run: bool,
    homes: &mut HashSet<PathBuf>,
) -> Option<Target> {
    let node = said.own;
    if !reading.has_only(node, &TARGET) {
        return None;
    }
    let pm2 = pm2::pm2(reading, node);
    let name = name_of(node);
    if name.is_none() && node.get("pm2").is_none() {
        reading.complain_of_missing(node, "has no `name`", "letters, digits, . _ and -");
    }
    let name = match node.get("name") {
        Some(node) => reading.name(node),
        None => name.and_then(|process| name_of_process(reading, process)),
    };
    let probe = probe(reading, node, pm2.as_ref());
    let ladder = ladder(reading, node, pm2.as_ref());
    let only_if = only_if(reading, said);
    let diagnose = diagnose(reading, said);
    let before = reading.problems.len();
    let parts = TargetParts {
        probe: probe.as_ref(),
        pm2: pm2.as_ref(),
        ladder: &ladder,
        only_if: only_if.as_ref(),
        diagnoses: !diagnose.is_empty(),
        // What is wrong with a daemon is the same for all that it keeps: the first target of each home tells it.
        tells_of_pm2: pm2.as_ref().is_none_or(|pm2| homes.insert(pm2.home.clone())),
        dry_run,
    };
    let limits = limits(reading, said, &parts);
    if reading.problems.len() == before {
        contradictions(reading, said, &limits);
    }
    if node.get("pm2").is_some() && pm2.is_none() {
        return None;
    }
    Some(Target { name: name?, probe: probe?, pm2, limits, ladder, only_if, diagnose })
}

/// Tells one way to repair from another, for as long as this process runs: what is done, not how long it may take.
fn repair_id(TargetParts { ladder, only_if, pm2, .. }: &TargetParts<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    ladder.iter().for_each(|rung| rung.remedy.hash(&mut hasher));
    (only_if, pm2).hash(&mut hasher);
    hasher.finish()
}

/// The process's name as the target's, where it can be one.
fn name_of_process(reading: &mut Reader<'_>, process: &Node) -> Option<String> {
    match units::name(process.as_text()?) {
        Ok(name) => Some(name),
        Err(wrong) => {
            let message = format!("cannot be the target's name too: it {}", wrong.what);
            reading.complain(process, message, "write a `name` of its own beside it: letters, digits, . _ and -");
            None
        }
    }
}

fn only_if(reading: &mut Reader<'_>, said: TargetFields<'_>) -> Option<CommandLine> {
    said.get("only_if").and_then(|node| reading.command(node))
}

/// What is run when the target goes down: one command or a list of them; an empty one frees from what `defaults` says.
fn diagnose(reading: &mut Reader<'_>, said: TargetFields<'_>) -> Vec<CommandLine> {
    let Some(node) = said.get("diagnose") else { return Vec::new() };
    let Value::List(items) = &node.value else { return reading.command(node).into_iter().collect() };
    if items.len() > MOST_DIAGNOSES {
        reading.complain(node, format!("has {} commands", items.len()), format!("at most {MOST_DIAGNOSES}"));
    }
    items.iter().filter_map(|item| reading.command(item)).collect()
}

/// Every number that decides. What is wrong is told and taken for its default, to tell of the rest too.
fn limits(reading: &mut Reader<'_>, said: TargetFields<'_>, parts: &TargetParts<'_>) -> Limits {
    let default = Limits::default();
    let mut span = |key: &str, range: RangeInclusive<Duration>, default: Duration| {
        said.get(key).and_then(|node| reading.span(node, &range)).unwrap_or(default)
    };
    let interval = span("interval", LOOK, default.interval);
    let retry_interval = span("retry_interval", LOOK, interval);
    let timeout = span("timeout", LOOK, default.timeout);
    let start_period = span("start_period", PERIOD, default.start_period);
    let cooldown = span("cooldown", PERIOD, default.cooldown);
    let max_cooldown = span("max_cooldown", PERIOD, default.max_cooldown);
    let stable_after = span("stable_after", PERIOD, default.stable_after);
    let restart_window = span("restart_window", PERIOD, default.restart_window);
    let mut count =
        |key: &str, default: u32| said.get(key).and_then(|node| reading.whole(node, 1..=100)).unwrap_or(default);
    let failure_threshold = count("failure_threshold", default.failure_threshold);
    let max_restarts = count("max_restarts", default.max_restarts);
    Limits {
        interval,
        retry_interval,
        retry_in_tick: said.get("retry_interval").is_some(),
        timeout,
        failure_threshold,
        start_period,
        cooldown,
        max_cooldown,
        stable_after,
        max_restarts,
        restart_window,
        restart_on: said.get("restart_on").map_or(default.restart_on, |node| classes(reading, node)),
        depends_on: said.get("depends_on").map(|node| dependencies(reading, node)).unwrap_or_default(),
        dry_run: said.get("dry_run").and_then(|node| reading.flag(node)).unwrap_or(false) || parts.dry_run,
        rungs: parts.ladder.len(),
        reset: parts.ladder.iter().position(|rung| matches!(rung.remedy, Remedy::Pm2Reset(_))),
        preconditions: parts
            .pm2
            .map(|_| Precondition::Stopped)
            .into_iter()
            .chain(parts.only_if.map(|_| Precondition::OnlyIf))
            .collect(),
        diagnose: parts.diagnoses,
        reports_pm2: parts.tells_of_pm2,
        probe_id: parts.probe.map_or(0, probe_id),
        repair_id: repair_id(parts),
    }
}

/// Limits that are in range each, and cannot hold together.
fn contradictions(reading: &mut Reader<'_>, said: TargetFields<'_>, limits: &Limits) {
    if limits.interval < limits.retry_interval
        && let Some(node) = said.any_of(["retry_interval", "interval"])
    {
        reading.complain(node, "contradicts: `retry_interval` is longer than `interval`", "it is for looking sooner");
    }
    if limits.max_cooldown < limits.cooldown
        && let Some(node) = said.any_of(["max_cooldown", "cooldown"])
    {
        let advice =
            format!("`max_cooldown` is {} unless it is written", HumanDuration(Limits::default().max_cooldown));
        reading.complain(node, "contradicts: `max_cooldown` is shorter than `cooldown`", advice);
    }
}

fn classes(reading: &mut Reader<'_>, node: &Node) -> Vec<Class> {
    let words = Class::ALL.map(|class| (class.as_str(), class));
    let items = reading.list(node, "leave out `restart` for a target that is only watched").unwrap_or_default();
    items.iter().filter_map(|item| reading.word(item, &words)).collect()
}

/// Unlike other lists this may be empty: a target's way to be free of what `defaults` says.
fn dependencies(reading: &mut Reader<'_>, node: &Node) -> Vec<String> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| reading.text(item)).map(str::to_owned).collect(),
        _ => {
            reading.complain(node, format!("must be a list, not {}", node.kind()), "names of targets: [database]");
            Vec::new()
        }
    }
}

/// What repairs the target: as written, else what PM2 can do for it.
fn ladder(reading: &mut Reader<'_>, target: &Node, pm2: Option<&Pm2Config>) -> Vec<Rung> {
    let Some(node) = target.get("restart") else {
        let remedies = pm2.map(pm2::ladder).unwrap_or_default();
        return remedies.into_iter().map(|remedy| Rung { remedy, timeout: RUNG_TIMEOUT }).collect();
    };
    let ladder = written(reading, node, pm2);
    let remedies: Vec<Remedy> = ladder.iter().map(|rung| rung.remedy.clone()).collect();
    pm2::resets_once(reading, node, &remedies);
    ladder
}

/// The restart commands: one, or a list from the smallest to the largest. A list of bare words is taken for the words
/// of one command, unless each is the path of a program.
fn written(reading: &mut Reader<'_>, node: &Node, pm2: Option<&Pm2Config>) -> Vec<Rung> {
    let Value::List(items) = &node.value else { return rung(reading, node, pm2).into_iter().collect() };
    let words: Option<Vec<&str>> = items.iter().map(Node::as_text).collect();
    if let Some(words) = words
        && words.len() > 1
        && !words.iter().any(|word| word.contains(char::is_whitespace))
        && !words.iter().all(|word| word.contains('/'))
    {
        let advice = format!("one command: write {{run: [{}]}}; several: write each as {{run: …}}", words.join(", "));
        reading.complain(node, "looks like one command, and a list is a ladder of them", advice);
        return Vec::new();
    }
    let items = reading.list(node, "leave the key out for a target that is only watched").unwrap_or_default();
    items.iter().filter_map(|item| rung(reading, item, pm2)).collect()
}

fn rung(reading: &mut Reader<'_>, node: &Node, pm2: Option<&Pm2Config>) -> Option<Rung> {
    let command = |command| Remedy::Command(command);
    match &node.value {
        Value::Map(_) => {
            reading.has_only(node, &RUNG);
            let timeout = node.get("timeout").and_then(|node| reading.span(node, &LOOK)).unwrap_or(RUNG_TIMEOUT);
            let remedy = match (node.get("run"), node.get("pm2")) {
                (Some(run), None) => reading.command(run).map(command)?,
                (None, Some(word)) => pm2::remedy(reading, word, pm2)?,
                (Some(_), Some(word)) => {
                    reading.complain(word, "stands beside `run`", "one of the two: a rung does one thing");
                    return None;
                }
                (None, None) => {
                    let advice = "such as {run: [pm2, resurrect], timeout: 60s} or {pm2: restart}";
                    reading.complain_of_missing(node, "has neither `run` nor `pm2`", advice);
                    return None;
                }
            };
            Some(Rung { remedy, timeout })
        }
        Value::List(_) => {
            reading.complain(node, "is a list in a list", "write it as {run: […]}");
            None
        }
        _ => reading.command(node).map(|text| Rung { remedy: command(text), timeout: RUNG_TIMEOUT }),
    }
}
