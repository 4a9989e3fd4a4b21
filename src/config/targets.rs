//! Reads the targets: their own keys, and those of `defaults` that they do not have.
//! It must never return a limit that is out of range.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::cross_checks::{self, ParsedTarget};
use super::key_path::name_of;
use super::other_tools;
use super::pm2;
use super::probes::{PROBES, probe_id, read_probe};
use super::reader::{Keys, Reader};
use super::systemd_unit;
use super::target::{CommandLine, Pm2Config, Probe, RUNG_TIMEOUT, Remedy, Rung, Target, UnitConfig};
use super::tree::{Node, Value};
use super::units;
use crate::outcome::Class;
use crate::policy::{Limits, Precondition};
use crate::time::HumanDuration;

const MAX_TARGETS: usize = 1_000;
/// All commands share 10 s, so more could hardly be run.
const MAX_DIAGNOSES: usize = 20;
const DAY: Duration = Duration::from_secs(86_400);
/// The range of intervals and timeouts.
const PROBE_TIME: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
/// The range of cooldowns, periods and windows.
const PERIOD: RangeInclusive<Duration> = Duration::ZERO..=DAY;
/// Not allowed in `defaults`.
const OWN: [&str; 8] = ["name", PROBES[0], PROBES[1], PROBES[2], PROBES[3], "pm2", "unit", "restart"];
const SHARED: [&str; 16] = [
    "interval",
    "retry_interval",
    "timeout",
    "slow",
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
pub(super) const TARGET: Keys = Keys { known: &[&OWN, &SHARED], per_target: &[], elsewhere: other_tools::TARGET };
pub(super) const DEFAULTS: Keys = Keys { known: &[&SHARED], per_target: &OWN, elsewhere: other_tools::TARGET };
pub(super) const RUNG: Keys =
    Keys { known: &[&["run", "pm2", "timeout"]], per_target: &[], elsewhere: other_tools::RUNG };

/// Looks up a key in the target, else in `defaults`.
#[derive(Clone, Copy)]
struct TargetFields<'n> {
    own: &'n Node,
    defaults: Option<&'n Node>,
}

impl<'n> TargetFields<'n> {
    fn get(self, key: &str) -> Option<&'n Node> {
        self.own.get(key).or_else(|| self.defaults?.get(key))
    }

    /// Where an inconsistency between the keys should be fixed: in the target rather than in `defaults`.
    fn most_specific(self, keys: [&str; 2]) -> Option<&'n Node> {
        let own = keys.iter().find_map(|key| self.own.get(key));
        own.or_else(|| keys.iter().find_map(|key| self.defaults?.get(key)))
    }
}

/// The valid targets of the file; the others only lead to errors.
pub(super) fn read_targets(reader: &mut Reader<'_>, root: &Node, dry_run: bool) -> Vec<Target> {
    let defaults = root.get("defaults").filter(|node| reader.has_only(node, &DEFAULTS));
    if let Some(own) = defaults {
        // Checked even if each target overrides the key.
        let fields = TargetFields { own, defaults: None };
        read_limits(reader, fields, &TargetParts::default());
        read_only_if(reader, fields);
        read_diagnose(reader, fields);
    }
    let Some(list) = root.get("targets") else {
        reader.reject_missing_key(root, "has no `targets`", "add at least one target: targets: [{name: …, http: …}]");
        return Vec::new();
    };
    let Some(nodes) = reader.list(list, "add at least one target") else { return Vec::new() };
    if nodes.len() > MAX_TARGETS {
        reader.reject(list, format!("has {} targets", nodes.len()), format!("at most {MAX_TARGETS}"));
        return Vec::new();
    }
    let mut homes = HashSet::new();
    let parsed: Vec<ParsedTarget<'_>> = nodes
        .iter()
        .filter_map(|node| {
            let fields = TargetFields { own: node, defaults };
            let target = read_target(reader, fields, dry_run, &mut homes)?;
            Some(ParsedTarget { node, depends_on: fields.get("depends_on"), target })
        })
        .collect();
    cross_checks::check(reader, nodes, &parsed);
    parsed.into_iter().map(|parsed| parsed.target).collect()
}

#[derive(Default)]
struct TargetParts<'a> {
    probe: Option<&'a Probe>,
    pm2: Option<&'a Pm2Config>,
    unit: Option<&'a UnitConfig>,
    ladder: &'a [Rung],
    only_if: Option<&'a CommandLine>,
    diagnoses: bool,
    reports_pm2: bool,
    dry_run: bool,
}

/// `homes`: the PM2 homes of the targets before this one.
fn read_target(
    reader: &mut Reader<'_>,
    fields: TargetFields<'_>,
    dry_run: bool,
    homes: &mut HashSet<PathBuf>,
) -> Option<Target> {
    let node = fields.own;
    if !reader.has_only(node, &TARGET) {
        return None;
    }
    let pm2 = pm2::read_pm2(reader, node);
    let name = name_of(node);
    if name.is_none() && node.get("pm2").is_none() {
        reader.reject_missing_key(node, "has no `name`", "letters, digits, . _ and -");
    }
    let name = match node.get("name") {
        Some(node) => reader.name(node),
        None => name.and_then(|process| name_from_process(reader, process)),
    };
    let probe = read_probe(reader, node, pm2.as_ref());
    let unit = systemd_unit::read_unit(reader, node);
    let ladder = read_ladder(reader, node, pm2.as_ref(), unit.as_ref());
    let only_if = read_only_if(reader, fields);
    let diagnose = read_diagnose(reader, fields);
    let before = reader.problems.len();
    let parts = TargetParts {
        probe: probe.as_ref(),
        pm2: pm2.as_ref(),
        unit: unit.as_ref(),
        ladder: &ladder,
        only_if: only_if.as_ref(),
        diagnoses: !diagnose.is_empty(),
        // A daemon's trouble is the same for all its processes, so only the first target of each home reports it.
        reports_pm2: pm2.as_ref().is_none_or(|pm2| homes.insert(pm2.home.clone())),
        dry_run,
    };
    let limits = read_limits(reader, fields, &parts);
    if reader.problems.len() == before {
        check_consistency(reader, fields, &limits);
    }
    if node.get("pm2").is_some() && pm2.is_none() {
        return None;
    }
    Some(Target { name: name?, probe: probe?, pm2, unit, limits, ladder, only_if, diagnose })
}

/// Identifies what repairs a target, without its time limits. It is valid only within this process.
fn repair_id(TargetParts { ladder, only_if, pm2, unit, .. }: &TargetParts<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    ladder.iter().for_each(|rung| rung.remedy.hash(&mut hasher));
    (only_if, pm2, unit).hash(&mut hasher);
    hasher.finish()
}

/// The process's name, if a target can have it.
fn name_from_process(reader: &mut Reader<'_>, process: &Node) -> Option<String> {
    match units::parse_name(process.as_text()?) {
        Ok(name) => Some(name),
        Err(invalid) => {
            let message = format!("cannot also be the target's name: it {}", invalid.what);
            reader.reject(process, message, "add a `name`: letters, digits, . _ and -");
            None
        }
    }
}

fn read_only_if(reader: &mut Reader<'_>, fields: TargetFields<'_>) -> Option<CommandLine> {
    fields.get("only_if").and_then(|node| reader.command(node))
}

/// One command or a list of them. The list may be empty, which overrides `defaults`.
fn read_diagnose(reader: &mut Reader<'_>, fields: TargetFields<'_>) -> Vec<CommandLine> {
    let Some(node) = fields.get("diagnose") else { return Vec::new() };
    let Value::List(items) = &node.value else { return reader.command(node).into_iter().collect() };
    if items.len() > MAX_DIAGNOSES {
        reader.reject(node, format!("has {} commands", items.len()), format!("at most {MAX_DIAGNOSES}"));
    }
    items.iter().filter_map(|item| reader.command(item)).collect()
}

/// For an invalid value the default is used, so that the rest can be checked too.
fn read_limits(reader: &mut Reader<'_>, fields: TargetFields<'_>, parts: &TargetParts<'_>) -> Limits {
    let default = Limits::default();
    let mut duration = |key: &str, range: RangeInclusive<Duration>, default: Duration| {
        fields.get(key).and_then(|node| reader.duration(node, &range)).unwrap_or(default)
    };
    let interval = duration("interval", PROBE_TIME, default.interval);
    let retry_interval = duration("retry_interval", PROBE_TIME, interval);
    let timeout = duration("timeout", PROBE_TIME, default.timeout);
    let start_period = duration("start_period", PERIOD, default.start_period);
    let cooldown = duration("cooldown", PERIOD, default.cooldown);
    let max_cooldown = duration("max_cooldown", PERIOD, default.max_cooldown);
    let stable_after = duration("stable_after", PERIOD, default.stable_after);
    let restart_window = duration("restart_window", PERIOD, default.restart_window);
    let slow = fields.get("slow").and_then(|node| reader.duration(node, &PROBE_TIME));
    let mut count =
        |key: &str, default: u32| fields.get(key).and_then(|node| reader.integer(node, 1..=100)).unwrap_or(default);
    let failure_threshold = count("failure_threshold", default.failure_threshold);
    let max_restarts = count("max_restarts", default.max_restarts);
    Limits {
        interval,
        retry_interval,
        retry_in_tick: fields.get("retry_interval").is_some(),
        timeout,
        slow,
        failure_threshold,
        start_period,
        cooldown,
        max_cooldown,
        stable_after,
        max_restarts,
        restart_window,
        restart_on: fields.get("restart_on").map_or(default.restart_on, |node| read_classes(reader, node)),
        depends_on: fields.get("depends_on").map(|node| read_dependencies(reader, node)).unwrap_or_default(),
        dry_run: fields.get("dry_run").and_then(|node| reader.boolean(node)).unwrap_or(false) || parts.dry_run,
        rungs: parts.ladder.len(),
        reset: parts.ladder.iter().position(|rung| matches!(rung.remedy, Remedy::Pm2Reset(_))),
        preconditions: (parts.pm2.is_some() || parts.unit.is_some())
            .then_some(Precondition::Stopped)
            .into_iter()
            .chain(parts.only_if.map(|_| Precondition::OnlyIf))
            .collect(),
        diagnose: parts.diagnoses,
        reports_pm2: parts.reports_pm2,
        probe_id: parts.probe.map_or(0, probe_id),
        repair_id: repair_id(parts),
    }
}

/// Checks limits against each other. Each of them must be in its range already.
fn check_consistency(reader: &mut Reader<'_>, fields: TargetFields<'_>, limits: &Limits) {
    if limits.interval < limits.retry_interval
        && let Some(node) = fields.most_specific(["retry_interval", "interval"])
    {
        let advice = "`retry_interval` is for probing sooner after a failure";
        reader.reject(node, "is inconsistent: `retry_interval` is longer than `interval`", advice);
    }
    if limits.max_cooldown < limits.cooldown
        && let Some(node) = fields.most_specific(["max_cooldown", "cooldown"])
    {
        let advice = format!("`max_cooldown` defaults to {}", HumanDuration(Limits::default().max_cooldown));
        reader.reject(node, "is inconsistent: `max_cooldown` is shorter than `cooldown`", advice);
    }
}

fn read_classes(reader: &mut Reader<'_>, node: &Node) -> Vec<Class> {
    let words = Class::ALL.map(|class| (class.as_str(), class));
    let items = reader.list(node, "to watch without repairing, remove `restart`").unwrap_or_default();
    items.iter().filter_map(|item| reader.choice(item, &words)).collect()
}

/// Unlike other lists this one may be empty, which overrides `defaults`.
fn read_dependencies(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| reader.text(item)).map(str::to_owned).collect(),
        _ => {
            reader.reject(
                node,
                format!("must be a list, not {}", node.kind()),
                "names of targets, for example [database]",
            );
            Vec::new()
        }
    }
}

/// `restart` as written, else the default ladder of `pm2`, else that of `unit`.
fn read_ladder(
    reader: &mut Reader<'_>,
    target: &Node,
    pm2: Option<&Pm2Config>,
    unit: Option<&UnitConfig>,
) -> Vec<Rung> {
    let Some(node) = target.get("restart") else {
        let Some(pm2) = pm2 else { return unit.map(systemd_unit::default_ladder).unwrap_or_default() };
        let rung = |remedy| Rung { remedy, timeout: RUNG_TIMEOUT };
        return pm2::default_ladder(pm2).into_iter().map(rung).collect();
    };
    let ladder = read_rungs(reader, node, pm2);
    let remedies: Vec<Remedy> = ladder.iter().map(|rung| rung.remedy.clone()).collect();
    pm2::check_single_reset(reader, node, &remedies);
    ladder
}

/// One restart command, or a list of them, smallest first. A list of plain words is rejected, because it was probably
/// meant as one command, unless each word is the path of a program.
fn read_rungs(reader: &mut Reader<'_>, node: &Node, pm2: Option<&Pm2Config>) -> Vec<Rung> {
    let Value::List(items) = &node.value else { return read_rung(reader, node, pm2).into_iter().collect() };
    let words: Option<Vec<&str>> = items.iter().map(Node::as_text).collect();
    if let Some(words) = words
        && words.len() > 1
        && !words.iter().any(|word| word.contains(char::is_whitespace))
        && !words.iter().all(|word| word.contains('/'))
    {
        let advice = format!("one command: write {{run: [{}]}}; several: write each as {{run: …}}", words.join(", "));
        reader.reject(node, "looks like one command, but each item is a command of its own", advice);
        return Vec::new();
    }
    let items = reader.list(node, "to watch without repairing, remove the key").unwrap_or_default();
    items.iter().filter_map(|item| read_rung(reader, item, pm2)).collect()
}

fn read_rung(reader: &mut Reader<'_>, node: &Node, pm2: Option<&Pm2Config>) -> Option<Rung> {
    let command = |command| Remedy::Command(command);
    match &node.value {
        Value::Map(_) => {
            reader.has_only(node, &RUNG);
            let timeout =
                node.get("timeout").and_then(|node| reader.duration(node, &PROBE_TIME)).unwrap_or(RUNG_TIMEOUT);
            let remedy = match (node.get("run"), node.get("pm2")) {
                (Some(run), None) => reader.command(run).map(command)?,
                (None, Some(word)) => pm2::read_remedy(reader, word, pm2)?,
                (Some(_), Some(word)) => {
                    reader.reject(
                        word,
                        "is set next to `run`",
                        "keep one of the two: an item of `restart` runs one command",
                    );
                    return None;
                }
                (None, None) => {
                    let advice = "for example {run: [pm2, resurrect], timeout: 60s} or {pm2: restart}";
                    reader.reject_missing_key(node, "has neither `run` nor `pm2`", advice);
                    return None;
                }
            };
            Some(Rung { remedy, timeout })
        }
        Value::List(_) => {
            reader.reject(node, "is a list in a list", "write it as {run: […]}");
            None
        }
        _ => reader.command(node).map(|text| Rung { remedy: command(text), timeout: RUNG_TIMEOUT }),
    }
}
