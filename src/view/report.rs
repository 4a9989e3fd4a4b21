//! The report over weeks: uptime, incidents, how soon they were found and healed, and what they have in common.
//! It must never count time as up in which no watchdog ran.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::{Downtime, short_command};
use crate::policy::{DrillOutcome, OrderedBy, WarningKind};
use crate::store::closed_incidents::ClosedIncident;
use crate::store::events::EventKind;
use crate::store::history::{Gap, RestartCounts, Uptime};
use crate::store::state::SavedState;
use crate::terminal::escaped;
use crate::time::{ClockReading, HumanDuration, WallTime, Zone, millis};
use crate::view::log_line::describe_drill;
use crate::view::pattern::{Efficacy, TimeOfDay, median};
use crate::view::{percent, pm2_restarts};

/// Gaps that are listed one by one; the earlier ones are only counted.
const GAPS_SHOWN: usize = 3;

#[derive(Clone, Debug)]
pub struct Report<'a> {
    pub saved: &'a SavedState,
    /// The closed incidents that began within the span.
    pub closed: &'a [ClosedIncident],
    /// By target: what happened within the span besides incidents.
    pub noted: &'a BTreeMap<String, Noted>,
    pub span: Duration,
    pub at: ClockReading,
    pub zone: Zone,
}

/// What happened to a target besides incidents, as far back as the events reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Noted {
    /// Restarts that the operator ordered.
    pub by_operator: usize,
    /// Warnings that it was slow.
    pub slow: usize,
    /// Warnings that many of its probes failed.
    pub unsteady: usize,
    pub drills: usize,
    #[serde(skip)]
    latest_drill: Option<DrillOutcome>,
    /// The number and rung of the latest restart by the operator.
    #[serde(skip)]
    latest: Option<(u32, u32)>,
}

impl Noted {
    pub fn add(&mut self, event: &EventKind) {
        match event {
            EventKind::Restart { attempt, rung, by: Some(OrderedBy::Operator), .. } => {
                // Of an attempt with several commands, the first counts.
                let before = self.latest.replace((*attempt, *rung));
                let continues = before.is_some_and(|(number, earlier)| number == *attempt && *rung > earlier);
                self.by_operator += usize::from(!continues);
            }
            EventKind::DrillEnded { outcome, .. } => {
                self.drills += 1;
                self.latest_drill = Some(outcome.clone());
            }
            EventKind::Warn { about: WarningKind::Slow, .. } => self.slow += 1,
            EventKind::Warn { about: WarningKind::Unsteady, .. } => self.unsteady += 1,
            _ => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        let times = |count: usize| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let mut lines = Vec::new();
        if self.by_operator > 0 {
            let restarts = if self.by_operator == 1 { "restart" } else { "restarts" };
            lines.push(format!("  by hand    {} {restarts}, ordered by the operator", self.by_operator));
        }
        if let Some(outcome) = &self.latest_drill {
            let count = if self.drills == 1 { "1 drill".into() } else { format!("{} drills, the last", self.drills) };
            lines.push(format!("  drills     {count}: {}", describe_drill(outcome)));
        }
        if self.slow > 0 {
            lines.push(format!("  slow       {}: healthy, but slower than its limit", times(self.slow)));
        }
        if self.unsteady > 0 {
            let unsteady = times(self.unsteady);
            lines.push(format!("  unsteady   {unsteady}: a third of an hour's probes failed, but too few in a row"));
        }
        lines
    }
}

#[derive(Debug, Serialize)]
struct ReportJson {
    version: &'static str,
    at: String,
    since: String,
    watched_ms: u64,
    not_watched: Vec<GapJson>,
    targets: Vec<TargetReport>,
}

#[derive(Debug, Serialize)]
struct GapJson {
    from: String,
    to: String,
    why: &'static str,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    name: String,
    uptime: Option<f64>,
    watched_ms: u64,
    incidents: usize,
    down_ms: u64,
    longest_ms: Option<u64>,
    #[serde(skip)]
    downs: Vec<Downtime>,
    found_ms: Option<Spread>,
    healed_ms: Option<Spread>,
    cures: Vec<Efficacy>,
    time_of_day: Option<TimeOfDay>,
    /// Restarts that PM2 made by itself, by reason.
    pm2_restarts: RestartCounts,
    #[serde(flatten)]
    noted: Noted,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: u64,
    worst: u64,
}

impl Spread {
    fn of(values: impl Iterator<Item = u64>) -> Option<Spread> {
        let values: Vec<u64> = values.collect();
        let worst = values.iter().copied().max()?;
        Some(Spread { median: median(values)?, worst })
    }

    /// `1 min 11 s median, 1 min 36 s worst`
    fn text(self) -> String {
        let span = |ms: u64| HumanDuration(Duration::from_millis(ms));
        match self.median == self.worst {
            true => span(self.worst).to_string(),
            false => format!("{} median, {} worst", span(self.median), span(self.worst)),
        }
    }
}

impl Report<'_> {
    fn since(&self) -> WallTime {
        let asked = self.at.wall.offset_by(-millis(self.span));
        let first = match self.saved.first_start {
            // The clock was ahead then. The history knows the beginning too, only less exactly.
            Some(first) if first > self.at.wall => {
                let began = self.histories().filter_map(|history| history.first_watched(asked, self.at.wall)).min();
                Some(began.unwrap_or(self.at.wall))
            }
            first => first,
        };
        first.map_or(asked, |first| first.max(asked))
    }

    fn histories(&self) -> impl Iterator<Item = &Uptime> {
        self.saved.views.keys().filter_map(|name| self.saved.history.get(name))
    }

    /// The gaps within the span of the report. A gap that a wrong clock made is left out.
    fn gaps(&self) -> Vec<Gap> {
        let since = self.since();
        let is_within = |gap: &&Gap| gap.to > since && gap.to <= self.at.wall;
        let is_plausible =
            |gap: &&Gap| !self.histories().any(|history| history.has_watched_day_between(gap.from, gap.to));
        let within = self.saved.gaps.iter().filter(is_within).filter(is_plausible);
        within.map(|gap| Gap { from: gap.from.max(since), ..gap.clone() }).collect()
    }

    fn not_watched(&self) -> Duration {
        self.gaps().iter().map(|gap| gap.to.since(gap.from)).sum()
    }

    pub fn json(&self) -> String {
        let watched = self.at.wall.since(self.since()).saturating_sub(self.not_watched());
        let gap = |gap: Gap| GapJson { from: gap.from.rfc3339(), to: gap.to.rfc3339(), why: gap.why.as_str() };
        let answer = ReportJson {
            version: env!("CARGO_PKG_VERSION"),
            at: self.at.wall.rfc3339(),
            since: self.since().rfc3339(),
            watched_ms: u64::try_from(watched.as_millis()).unwrap_or(u64::MAX),
            not_watched: self.gaps().into_iter().map(gap).collect(),
            targets: self.targets(),
        };
        serde_json::to_string(&answer).expect("text and numbers have a JSON form")
    }

    pub fn text(&self) -> String {
        let targets = self.targets();
        if targets.is_empty() {
            return "No watchdog has probed anything here yet.".into();
        }
        let width = targets.iter().map(|target| target.name.chars().count()).max().unwrap_or(0);
        let lines = targets.iter().flat_map(|target| target.lines(width));
        [self.head()].into_iter().chain(lines).collect::<Vec<String>>().join("\n")
    }

    fn head(&self) -> String {
        let (since, gaps) = (self.since(), self.gaps());
        let reached = self.at.wall.since(since);
        let day = self.zone.day(self.at.wall);
        let span = match reached < self.span {
            true => format!("{} to {day}, all that is recorded", LongSpan(reached)),
            false => format!("{} to {day}", LongSpan(self.span)),
        };
        let watched = LongSpan(reached.saturating_sub(self.not_watched()));
        let head = format!("{span}. Watched {watched}");
        if gaps.is_empty() {
            return format!("{head} without a gap.");
        }
        let describe = |gap: &Gap| {
            let (from, to) = (self.day_and_time(gap.from, None), self.day_and_time(gap.to, Some(gap.from)));
            format!("{from} to {to}, {}", gap.why.describe())
        };
        let mut latest: Vec<String> = gaps.iter().rev().take(GAPS_SHOWN).rev().map(describe).collect();
        if gaps.len() > GAPS_SHOWN {
            latest.insert(0, format!("{} more", gaps.len() - GAPS_SHOWN));
        }
        let least = if self.saved.gaps.is_full() { "at least " } else { "" };
        format!("{head}; not watched {least}{} ({}).", LongSpan(self.not_watched()), latest.join("; "))
    }

    fn day_and_time(&self, at: WallTime, reference: Option<WallTime>) -> String {
        match reference.is_some_and(|reference| self.zone.day(reference) == self.zone.day(at)) {
            true => self.zone.hour_minute(at),
            false => format!("{} {}", self.zone.day(at), self.zone.hour_minute(at)),
        }
    }

    fn targets(&self) -> Vec<TargetReport> {
        self.saved.targets_in_order().into_iter().map(|(name, _)| self.target(name)).collect()
    }

    fn target(&self, name: &str) -> TargetReport {
        let nothing = Uptime::default();
        let history = self.saved.history.get(name).unwrap_or(&nothing);
        let past: Vec<&ClosedIncident> = self.closed.iter().filter(|closed| closed.target == name).collect();
        // An open incident counts too, with its down time so far.
        let open = self.saved.policy.targets.get(name).and_then(|state| state.incident.as_ref());
        let open = open.filter(|open| !past.iter().any(|closed| closed.id == open.id));
        let open_began = open.map(|open| self.at.wall_at(open.began));
        let so_far = open.map(|open| open.downtime(self.at.now));
        let downs: Vec<Downtime> = past.iter().map(|closed| closed.downtime()).chain(so_far).collect();
        let began: Vec<WallTime> = past.iter().map(|closed| closed.began).chain(open_began).collect();
        TargetReport {
            name: name.to_owned(),
            uptime: history.uptime(self.span, self.at.wall),
            watched_ms: u64::try_from(history.watched(self.span, self.at.wall).as_millis()).unwrap_or(u64::MAX),
            incidents: began.len(),
            down_ms: downs.iter().fold(0, |sum, down| down.as_ms().saturating_add(sum)),
            longest_ms: downs.iter().map(|down| down.as_ms()).max(),
            downs,
            found_ms: Spread::of(past.iter().filter_map(|closed| closed.found_ms)),
            healed_ms: Spread::of(past.iter().filter_map(|closed| closed.heal_ms)),
            cures: Efficacy::of(past.iter().copied()),
            time_of_day: TimeOfDay::of(&began, self.zone),
            pm2_restarts: history.restarts().within(self.span, self.at.wall),
            noted: self.noted.get(name).cloned().unwrap_or_default(),
        }
    }
}

impl TargetReport {
    fn lines(&self, width: usize) -> Vec<String> {
        let TargetReport { name, uptime, down_ms, downs, .. } = self;
        let up = match uptime {
            Some(_) => format!("up {} of the watched time", percent(*uptime)),
            None => "not watched".into(),
        };
        let had = match (&downs[..], downs.iter().max_by_key(|down| down.duration())) {
            ([], _) | (_, None) => "no incident".into(),
            ([one], _) => format!("1 incident, {one}"),
            (all, Some(longest)) => {
                let about = || format!("about {}", HumanDuration(Duration::from_millis(*down_ms)));
                let sum = Downtime::sum(all).map_or_else(about, |sum| sum.to_string());
                format!("{} incidents, {sum} in all, longest {longest}", all.len())
            }
        };
        let mut lines = vec![format!("{name:width$}  {up:<35}  {had}")];
        let found = self.found_ms.map(|spread| format!("found in   {}", spread.text()));
        let healed = self.healed_ms.map(|spread| format!("healed {} after the restart", spread.text()));
        if let Some(found) = found {
            let gap = " ".repeat((width + 37).saturating_sub(found.chars().count()).max(2));
            lines.push(format!("  {found}{}", healed.map_or_else(String::new, |healed| format!("{gap}{healed}"))));
        }
        for (index, cure) in self.cures.iter().enumerate() {
            let word = if index == 0 { "cures" } else { "" };
            lines.push(format!("  {word:<9}  {}  {}", escaped(&short_command(&cure.run)), cure.score()));
        }
        if let Some(restarts) = pm2_restarts::describe_counts(&self.pm2_restarts, "by itself") {
            lines.push(format!("  PM2        restarted it {restarts}"));
        }
        lines.extend(self.noted.lines());
        if let Some(pattern) = &self.time_of_day {
            let hidden = "Restarting hides a cause; it is still there";
            lines.push(format!("  pattern    {pattern}. {hidden}"));
        }
        lines
    }
}

/// A span that may be weeks long: to the hour from two days on.
struct LongSpan(Duration);

impl std::fmt::Display for LongSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.0.as_secs() / 3_600;
        match hours {
            0..48 => write!(f, "{}", HumanDuration(self.0)),
            _ if hours.is_multiple_of(24) => write!(f, "{} days", hours / 24),
            _ => write!(f, "{} d {} h", hours / 24, hours % 24),
        }
    }
}

#[cfg(test)]
mod tests;
