//! One incident with its evidence: what failed, why, what was done, whether it helped, how often it happens. And the
//! list of all incidents. It must never credit a command with a recovery that the record does not credit to it.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::{Class, Evidence, short_command};
use crate::policy::OrderedBy;
use crate::process::{Machine, ProcessUsage};
use crate::store::closed_incidents::ClosedIncident;
use crate::store::events::{CommandOutcome, EventEntry, EventKind};
use crate::store::incident_record::IncidentRecord;
use crate::terminal::escaped;
use crate::time::{HumanDuration, WallTime, Zone, round_age};
use crate::view::log_line::{describe_hold, describe_rest};
use crate::view::pattern::{Efficacy, TimeOfDay, recurrence, track_record};
use crate::view::{addresses, table, with_tilde};

const DAY: Duration = Duration::from_secs(86_400);
/// Steps shown from the beginning and from the end of a long incident.
const FIRST_STEPS: usize = 6;
const LAST_STEPS: usize = 4;
/// Characters shown of a response body or of a command's output; the files have more.
const SHOWN: usize = 200;
/// In percent of a core. A process that uses less is not named as a possible cause.
const BUSY: u64 = 80;

#[derive(Clone, Debug)]
pub struct IncidentView<'a> {
    pub record: &'a IncidentRecord,
    /// The closed incidents of the same target that began in the last 30 days; with this one, if it is closed.
    pub closed: &'a [ClosedIncident],
    pub depends_on: &'a [String],
    pub folder: &'a Path,
    pub files: &'a [String],
    /// Shown as `~`.
    pub home: Option<&'a Path>,
    pub wall: WallTime,
    pub zone: Zone,
}

/// The record, with what other incidents and the folder add to it.
#[derive(Serialize)]
struct IncidentJson<'a> {
    #[serde(flatten)]
    account: IncidentRecord,
    recent: usize,
    time_of_day: Option<TimeOfDay>,
    efficacy: Vec<Efficacy>,
    folder: String,
    files: &'a [String],
}

impl IncidentView<'_> {
    pub fn json(&self) -> String {
        let began = self.began_lately();
        let down_ms = Some(self.record.downtime(self.wall).as_ms());
        let answer = IncidentJson {
            account: IncidentRecord { down_ms, ..self.record.clone() },
            recent: began.len(),
            time_of_day: TimeOfDay::of(&began, self.zone),
            efficacy: Efficacy::of(self.closed),
            folder: self.folder.display().to_string(),
            files: self.files,
        };
        serde_json::to_string(&answer).expect("text and numbers have a JSON form")
    }

    pub fn text(&self) -> String {
        let parts: [(&str, Vec<String>); 7] = [
            ("What", self.what()),
            ("Why", self.why()),
            ("Done", self.done()),
            ("Helped", vec![self.helped()]),
            ("Again?", vec![self.again()]),
            ("Watched", vec![self.watched()]),
            ("Files", self.places()),
        ];
        let mut lines = vec![self.title()];
        for (name, texts) in parts {
            for (index, text) in texts.into_iter().enumerate() {
                lines.push(format!("{:<7}  {text}", if index == 0 { name } else { "" }));
            }
        }
        lines.join("\n")
    }

    fn title(&self) -> String {
        let IncidentRecord { id, target, began, ended, .. } = self.record;
        // The whole outage, as the down time counts it: from the last healthy probe.
        let start = self.record.down_since.unwrap_or(*began);
        let (day, from) = (self.zone.weekday(start), self.zone.time_of_day(start));
        let lasted = self.record.downtime(self.wall);
        let target = if self.is_drill() { format!("{target} (a drill)") } else { target.clone() };
        match ended {
            Some(ended) => {
                let to = self.clock_time(*ended, start);
                format!("{id}  {target}, {day}, {from} to {to}, down {lasted}")
            }
            None => format!("{id}  {target}, {day}, since {from}, STILL DOWN after {lasted}"),
        }
    }

    fn what(&self) -> Vec<String> {
        let IncidentRecord { class, detail, failures, evidence, probe, .. } = self.record;
        let seen = escaped(&class.with_detail(detail)).into_owned();
        let phases = evidence.as_ref().map_or_else(String::new, |seen| phases(seen, *class));
        let count = if *failures > 0 { format!(", {failures} of {failures}") } else { String::new() };
        let mut lines = vec![format!("{seen}{count}{phases}"), self.course()];
        if !probe.is_empty() {
            lines.push(format!("probe: {}", escaped(probe)));
        }
        let Some(Evidence { address, addresses, status, body, output, .. }) = evidence else { return lines };
        lines.extend(addresses::list(addresses));
        let start = |text: &str| escaped(text.trim()).chars().take(SHOWN).collect::<String>();
        if let (Some(status), Some(body)) = (status, body) {
            let body = Some(start(body)).filter(|body| !body.is_empty()).unwrap_or_else(|| "no body".into());
            lines.push(match address {
                Some(address) => format!("the answer of {}: {status}, {body}", escaped(address)),
                None => format!("its answer: {status}, {body}"),
            });
        }
        if let Some(output) = output.as_ref().map(|text| start(text)).filter(|text| !text.is_empty()) {
            lines.push(format!("its output: {output}"));
        }
        lines
    }

    /// `last healthy 03:11:40, first failure 03:12:10, down 03:13:10`
    fn course(&self) -> String {
        let IncidentRecord { began, down, last_healthy, down_since, .. } = self.record;
        let start = down_since.unwrap_or(*began);
        let shown = |at: WallTime| self.clock_time(at, start);
        let before = match (last_healthy, down_since) {
            (Some(healthy), Some(since)) if since > healthy => {
                format!("paused or at rest until {}", shown(*since))
            }
            (_, Some(since)) => format!("last healthy {}", shown(*since)),
            (_, None) => "never healthy before".into(),
        };
        format!("{before}, first failure {}, down {}", shown(*began), shown(*down))
    }

    fn why(&self) -> Vec<String> {
        let IncidentRecord { process, pid, machine, pm2, unit, log_line: said, .. } = self.record;
        let program = |pid: u32| machine.as_ref()?.processes.iter().find(|one| one.pid == pid);
        let about = pid.and_then(program).map_or_else(String::new, |one| format!(" ({})", size_and_age(one)));
        let mut lines = Vec::new();
        match (process, machine.as_ref().and_then(busiest)) {
            (Some(process), _) => lines.push(format!("{}{about}", escaped(process))),
            (None, Some(one)) => {
                let name = escaped(&one.name);
                let (pid, about, used) = (one.pid, size_and_age(one), one.cpu_percent);
                lines.push(format!("the busiest of your processes: {name} (pid {pid}, {about}), {used} % of a core"));
            }
            (None, None) => {}
        }
        lines.extend([pm2, unit].into_iter().flatten().map(|found| escaped(found).into_owned()));
        lines.extend(machine.as_ref().and_then(machine_line));
        lines.extend(said.as_ref().map(|said| format!("its last log line: {}", escaped(said))));
        if lines.is_empty() {
            lines.push("unknown".into());
        }
        lines
    }

    fn done(&self) -> Vec<String> {
        let timeline = &self.record.timeline;
        let mut steps: Vec<String> = Vec::new();
        let mut latest_restart = None;
        for entry in timeline {
            let at = self.clock_time(entry.at, self.record.down_since.unwrap_or(self.record.began));
            match &entry.kind {
                EventKind::RestartDone { .. } => {
                    let step = latest_restart.and_then(|index: usize| steps.get_mut(index));
                    step.into_iter().for_each(|step| step.push_str(&outcome(entry)));
                }
                EventKind::Restart { run, by, .. } => {
                    latest_restart = Some(steps.len());
                    let by = by.map_or("", |by| match by {
                        OrderedBy::Operator => " (ordered by the operator)",
                        OrderedBy::Drill => "",
                    });
                    steps.push(format!("{at}  {}{by}", escaped(&short_command(run))));
                }
                EventKind::WouldRestart { run, .. } => {
                    steps.push(format!("{at}  would have run {} (dry run)", escaped(&short_command(run))));
                }
                EventKind::HeldBack { why, until, .. } => {
                    let until = until.map(|until| format!(" until {}", self.clock_time(until, entry.at)));
                    let (until, why) = (until.unwrap_or_default(), describe_hold(*why, self.depends_on, None));
                    steps.push(format!("{at}  not restarted{until}: {why}"));
                }
                EventKind::Rested { why, .. } => steps.push(format!("{at}  {}", describe_rest(*why))),
                EventKind::Paused { command: Some(command), .. } => {
                    steps.push(format!("{at}  paused while `{}` runs", escaped(command)));
                }
                EventKind::Paused { command: None, .. } => steps.push(format!("{at}  paused by the operator")),
                _ => {}
            }
        }
        let left_out = self.record.left_out;
        if steps.len() > FIRST_STEPS + LAST_STEPS {
            let middle = steps.len() - FIRST_STEPS - LAST_STEPS;
            let more = if left_out > 0 { " and more" } else { "" };
            steps.splice(FIRST_STEPS..FIRST_STEPS + middle, [format!("          … {middle}{more} …")]);
        }
        if steps.is_empty() {
            steps.push("nothing".into());
        }
        steps
    }

    fn helped(&self) -> String {
        let IncidentRecord { ended, attempts, cured, heal_ms, back, class, rested, .. } = self.record;
        if let Some(why) = rested {
            return format!("not needed: {}", describe_rest(*why));
        }
        let efficacy = Efficacy::of(self.closed);
        let record = |run: &str| match track_record(&efficacy, run, *class) {
            Some(text) => format!(". {text}"),
            None => String::new(),
        };
        let back = back.as_deref().map(escaped).unwrap_or_default();
        match (ended, cured) {
            (None, _) if self.could_not_start() => "not so far: the restart command could not be started".into(),
            (None, _) if *attempts == 0 => "not restarted so far".into(),
            (None, _) if *attempts == 1 => "not so far, after 1 restart".into(),
            (None, _) => format!("not so far, after {attempts} restarts"),
            (Some(_), Some(run)) => {
                let after = HumanDuration(Duration::from_millis(heal_ms.unwrap_or(0)));
                format!("yes: {back}, {after} after the command started{}", record(run))
            }
            (Some(_), None) if back.is_empty() && self.is_drill() => "no, not before the drill ended".into(),
            (Some(_), None) if *attempts == 0 => format!("it recovered without a restart: {back}"),
            (Some(_), None) => format!("probably not: {back} only after the start period of the last restart"),
        }
    }

    /// Whether the latest restart command could not be started, as `status` says then too.
    fn could_not_start(&self) -> bool {
        let mut outcomes = self.record.timeline.iter().rev().filter_map(|entry| match &entry.kind {
            EventKind::RestartDone { outcome, .. } => Some(*outcome),
            _ => None,
        });
        outcomes.next() == Some(CommandOutcome::NotStarted)
    }

    fn is_drill(&self) -> bool {
        self.record.by == Some(OrderedBy::Drill)
    }

    fn again(&self) -> String {
        if self.is_drill() {
            return "a drill, which counts in no statistics".into();
        }
        let began = self.began_lately();
        let pattern = TimeOfDay::of(&began, self.zone);
        match recurrence(&began, self.zone) {
            None => "the first in 30 days".into(),
            Some(text) if pattern.is_some() => format!("{text}: check what runs at that hour"),
            Some(text) => text,
        }
    }

    /// The beginnings of the incidents of the last 30 days, up to and with this one.
    fn began_lately(&self) -> Vec<WallTime> {
        let own = self.record.began;
        let before = self.closed.iter().filter(|closed| closed.id != self.record.id && closed.began <= own);
        before.map(|closed| closed.began).chain([own]).collect()
    }

    fn watched(&self) -> String {
        let watched = Duration::from_millis(self.record.watched_ms);
        // The span lacks up to one interval at either end, which is no gap.
        match watched {
            _ if watched >= DAY.mul_f64(0.99) => "yes, all of the 24 h before".into(),
            Duration::ZERO => "no, not before it went down".into(),
            _ => format!("{} of the 24 h before", round_age(watched)),
        }
    }

    fn places(&self) -> Vec<String> {
        let folder = with_tilde(self.home, self.folder);
        let mut lines = vec![format!("{}/", escaped(&folder))];
        if !self.files.is_empty() {
            lines.push(escaped(&self.files.join("  ")).into_owned());
        }
        lines
    }

    /// The time of day, and the day if it differs from that of `reference`.
    fn clock_time(&self, at: WallTime, reference: WallTime) -> String {
        match self.zone.day(at) == self.zone.day(reference) {
            true => self.zone.time_of_day(at),
            false => format!("{} {}", self.zone.day(at), self.zone.time_of_day(at)),
        }
    }
}

/// ` (connect 0.1 ms, first byte never)`
fn phases(seen: &Evidence, class: Class) -> String {
    let phases = &seen.phases;
    let time = |duration: Duration| match duration.as_millis() {
        0..10 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => HumanDuration(duration).to_string(),
    };
    // An address is resolved in microseconds, which says nothing.
    let is_worth_showing = |name: &str, duration: Duration| name != "resolve" || duration >= Duration::from_millis(1);
    let done = phases.completed().filter(|(name, duration)| is_worth_showing(name, *duration));
    let mut shown: Vec<String> = done.map(|(name, duration)| format!("{name} {}", time(duration))).collect();
    let may_lack_answer = matches!(class, Class::Timeout | Class::Reset | Class::Protocol);
    if may_lack_answer && phases.connect_us.is_some() && phases.first_byte_us.is_none() {
        shown.push("first byte never".into());
    }
    if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
}

fn outcome(entry: &EventEntry) -> String {
    let EventKind::RestartDone { outcome, took_ms, .. } = &entry.kind else { return String::new() };
    let duration = HumanDuration(Duration::from_millis(*took_ms));
    match outcome {
        CommandOutcome::Exited { code } => format!(", exit {code} in {duration}"),
        CommandOutcome::Killed { signal } => format!(", killed by signal {signal} after {duration}"),
        CommandOutcome::TimedOut => format!(", not finished within {duration}, killed"),
        CommandOutcome::NotStarted => ", could not be started".into(),
        CommandOutcome::Lost => ", result unknown because the watchdog ended".into(),
    }
}

fn busiest(machine: &Machine) -> Option<&ProcessUsage> {
    machine.processes.iter().filter(|one| one.cpu_percent >= BUSY).max_by_key(|one| one.cpu_percent)
}

fn size_and_age(program: &ProcessUsage) -> String {
    format!("up {}, {} MB", round_age(Duration::from_secs(program.up_s)), program.memory / 1_000_000)
}

fn machine_line(machine: &Machine) -> Option<String> {
    let used = |free: u64, all: u64| (all > 0).then(|| 100 - (free.min(all) * 100).div_ceil(all));
    let load = machine.load.map(|[load, ..]| format!("load {load:.1} on {} cores", machine.cores));
    let memory = used(machine.memory_available, machine.memory_total).map(|part| format!("memory {part} %"));
    let swap = used(machine.swap_free, machine.swap_total).filter(|part| *part > 0);
    let swap = swap.map(|part| format!("swap {part} %"));
    let disk = used(machine.disk_free, machine.disk_total).map(|part| format!("disk {part} %"));
    let parts: Vec<String> = [load, memory, swap, disk].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("machine: {}", parts.join(", ")))
}

#[derive(Serialize)]
struct IncidentLine<'a> {
    id: &'a str,
    target: &'a str,
    began: String,
    ended: Option<String>,
    down_ms: u64,
    class: Class,
    attempts: u32,
    cured: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<OrderedBy>,
}

/// In order, the latest last.
pub fn list_json(accounts: &[IncidentRecord], wall: WallTime) -> String {
    let line = |account: &IncidentRecord| {
        let line = IncidentLine {
            id: &account.id,
            target: &account.target,
            began: account.began.rfc3339(),
            ended: account.ended.map(WallTime::rfc3339),
            down_ms: account.downtime(wall).as_ms(),
            class: account.class,
            attempts: account.attempts,
            cured: account.cured.as_deref(),
            by: account.by,
        };
        serde_json::to_string(&line).expect("text and numbers have a JSON form")
    };
    format!("[{}]", accounts.iter().map(line).collect::<Vec<String>>().join(","))
}

pub fn list(accounts: &[IncidentRecord], wall: WallTime, zone: Zone) -> String {
    if accounts.is_empty() {
        return "No incidents are on record.".into();
    }
    let row = |account: &IncidentRecord| {
        let began = format!("{} {}", zone.day(account.began), zone.hour_minute(account.began));
        let down = match account.ended {
            Some(_) => account.downtime(wall).to_string(),
            None => format!("{} so far", account.downtime(wall)),
        };
        let end = match (&account.ended, &account.cured) {
            (None, _) => "STILL DOWN".into(),
            (Some(_), Some(run)) => format!("cured by {}", escaped(&short_command(run))),
            (Some(_), None) if account.rested.is_some() => "stopped on purpose".into(),
            (Some(_), None) if account.by == Some(OrderedBy::Drill) => "ended with its drill".into(),
            (Some(_), None) if account.attempts == 0 => "recovered without a restart".into(),
            (Some(_), None) => "recovered, probably not because of a restart".into(),
        };
        let is_drill = account.by == Some(OrderedBy::Drill);
        let target = if is_drill { format!("{} (drill)", account.target) } else { account.target.clone() };
        [account.id.clone(), target, began, down, account.class.to_string(), end]
    };
    let mut rows = vec![["INCIDENT", "TARGET", "BEGAN", "DOWN", "CAUSE", "END"].map(String::from)];
    rows.extend(accounts.iter().map(row));
    table(&rows).join("\n")
}

#[cfg(test)]
mod tests;
