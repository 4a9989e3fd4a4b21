//! `status --json`. Its fields are the contract's, in its order; none may change its meaning.

use std::time::Duration;

use serde::Serialize;

use crate::outcome::{AddressResult, Class, Verdict};
use crate::policy::{Mode, count_in_window};
use crate::time::{BootTime, millis};

use super::{DAY, StatusReport, TargetRow};

impl StatusReport {
    pub fn json(&self) -> String {
        let mode = self.holder.as_ref().map(|holder| holder.mode).or(self.saved.mode);
        let watch = self.presence();
        let ago = |age: Duration| self.at.wall.offset_by(-millis(age)).rfc3339();
        let answer = StatusJson {
            version: env!("CARGO_PKG_VERSION"),
            at: self.at.wall.rfc3339(),
            watchdog: WatchdogJson {
                running: watch.is_running(),
                pid: self.holder.as_ref().filter(|_| !self.is_holder_hidden).map(|holder| holder.pid),
                mode: mode.map(Mode::as_str),
                last_seen: watch.seen.map(ago),
                state_at: watch.picture.map(ago),
                config_changed: self.config_changed,
            },
            targets: self.targets().into_iter().map(TargetRow::answer).collect(),
        };
        serde_json::to_string(&answer).expect("text and numbers have a JSON form")
    }
}

impl<'a> TargetRow<'a> {
    fn answer(self) -> TargetJson<'a> {
        let (state, status) = (self.state, self.status);
        let time = |at: BootTime| status.at.wall_at(at).rfc3339();
        let window = Duration::from_millis(self.shown.window_ms);
        TargetJson {
            name: self.name,
            state: state.status.as_str(),
            since: state.since.map(time),
            streak: state.failures(),
            dry_run: self.shown.dry_run,
            last_probe: state.last_probe.as_ref().map(|probe| ProbeJson {
                at: time(probe.at),
                verdict: probe.verdict.as_str(),
                latency_ms: probe.latency_ms,
                class: probe.verdict.class().map(Class::as_str),
                detail: failure_detail(&probe.verdict),
                addresses: probe.addresses.iter().map(AddressJson::of).collect(),
            }),
            attempt: state.real.episode.map_or(0, |episode| episode.attempts),
            attempts_in_window: count_in_window(state.real.starts.iter().copied(), status.at.now, window),
            waiting: WaitingJson {
                why: state.waiting.map(|waiting| waiting.why.as_str()),
                until: state.waiting.and_then(|waiting| waiting.until).map(time),
            },
            paused_until: state.pauses.until().map(time),
            drill: state.drills.running.as_ref().map(|drill| time(drill.began)),
            incident: state.incident.as_ref().map(|incident| incident.id.as_str()),
            uptime_24h: self.uptime(DAY),
            uptime_30d: self.uptime(DAY * 30),
        }
    }
}

#[derive(Serialize)]
struct StatusJson<'a> {
    version: &'static str,
    at: String,
    watchdog: WatchdogJson,
    targets: Vec<TargetJson<'a>>,
}

#[derive(Serialize)]
struct WatchdogJson {
    running: bool,
    pid: Option<u32>,
    mode: Option<&'static str>,
    last_seen: Option<String>,
    state_at: Option<String>,
    config_changed: bool,
}

#[derive(Serialize)]
struct TargetJson<'a> {
    name: &'a str,
    state: &'static str,
    since: Option<String>,
    streak: u32,
    dry_run: bool,
    last_probe: Option<ProbeJson<'a>>,
    attempt: u32,
    attempts_in_window: usize,
    waiting: WaitingJson,
    paused_until: Option<String>,
    /// Since when a drill runs; left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<String>,
    incident: Option<&'a str>,
    uptime_24h: Option<f64>,
    uptime_30d: Option<f64>,
}

#[derive(Serialize)]
struct ProbeJson<'a> {
    at: String,
    verdict: &'static str,
    latency_ms: u64,
    class: Option<&'static str>,
    detail: Option<&'a str>,
    /// Only if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<AddressJson<'a>>,
}

#[derive(Serialize)]
struct AddressJson<'a> {
    address: &'a str,
    verdict: &'static str,
    latency_ms: u64,
    class: Option<&'static str>,
    detail: Option<&'a str>,
}

impl<'a> AddressJson<'a> {
    fn of(result: &'a AddressResult) -> AddressJson<'a> {
        let AddressResult { address, verdict, latency_ms } = result;
        let (class, detail) = (verdict.class().map(Class::as_str), failure_detail(verdict));
        AddressJson { address, verdict: verdict.as_str(), latency_ms: *latency_ms, class, detail }
    }
}

fn failure_detail(verdict: &Verdict) -> Option<&str> {
    Some(verdict.detail()).filter(|_| !verdict.is_healthy())
}

#[derive(Serialize)]
struct WaitingJson {
    why: Option<&'static str>,
    until: Option<String>,
}
