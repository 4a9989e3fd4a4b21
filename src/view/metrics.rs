//! The states of the targets as Prometheus text, for node_exporter's textfile collector.
//! It must reveal no address, no command and no error text.

use std::fmt::Write as _;

use crate::outcome::Class;
use crate::policy::{Status, TargetState, WarningKind};
use crate::store::state::{Counts, SavedState};
use crate::time::WallTime;

#[derive(Clone, Copy, Debug)]
pub struct Metrics<'a> {
    pub saved: &'a SavedState,
    pub wall: WallTime,
}

/// Name, type and help text of a metric that each target has.
struct Family(&'static str, &'static str, &'static str);

impl Metrics<'_> {
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut put = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        put("# HELP watchdog_build_info Version of the watchdog.");
        put("# TYPE watchdog_build_info gauge");
        put(&format!("watchdog_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        put("# HELP watchdog_last_cycle_timestamp_seconds Time at which the watchdog last completed a cycle.");
        put("# TYPE watchdog_last_cycle_timestamp_seconds gauge");
        put(&format!("watchdog_last_cycle_timestamp_seconds {}", seconds(self.wall.as_ms())));
        put("# HELP watchdog_messages_waiting Messages that are not yet delivered to all their channels.");
        put("# TYPE watchdog_messages_waiting gauge");
        put(&format!("watchdog_messages_waiting {}", self.saved.outbox.waiting_count()));
        self.families().for_each(|lines| text.push_str(&lines));
        text
    }

    fn families(&self) -> impl Iterator<Item = String> {
        [
            self.family(
                Family("watchdog_up", "gauge", "Whether the last probe found the target healthy (1) or not (0)."),
                |_, state| up(state).map(|up| (String::new(), up.to_string())).into_iter().collect(),
            ),
            self.family(
                Family("watchdog_state", "gauge", "State of the target: 1 for the current state, 0 for all others."),
                |_, state| states(state),
            ),
            self.family(
                Family(
                    "watchdog_consecutive_failures",
                    "gauge",
                    "Failed probes in a row, as counted towards the threshold.",
                ),
                |_, state| one(state.failures()),
            ),
            self.family(
                Family("watchdog_probe_duration_seconds", "gauge", "Duration of the last probe."),
                |_, state| state.last_probe.as_ref().map_or_else(Vec::new, |probe| one(seconds_of(probe.latency_ms))),
            ),
            self.family(
                Family(
                    "watchdog_slow",
                    "gauge",
                    "Whether the target is healthy but slower than its `slow` (1) or not (0).",
                ),
                |_, state| one(u8::from(state.warned.contains(&WarningKind::Slow))),
            ),
            self.family(
                Family(
                    "watchdog_unsteady",
                    "gauge",
                    "Whether many probes fail, but not enough in a row (1), or not (0).",
                ),
                |_, state| one(u8::from(state.warned.contains(&WarningKind::Unsteady))),
            ),
            self.family(
                Family("watchdog_probes_total", "counter", "Probes by verdict and, if unhealthy, failure class."),
                |counts, _| probes(counts),
            ),
            self.family(
                Family("watchdog_restart_attempts_total", "counter", "Attempts to repair the target."),
                |counts, _| one(counts.attempts),
            ),
            self.family(
                Family("watchdog_incidents_total", "counter", "Number of times the target went down."),
                |counts, _| one(counts.incidents),
            ),
        ]
        .into_iter()
    }

    fn family(
        &self,
        Family(name, kind, help): Family,
        samples: impl Fn(&Counts, &TargetState) -> Vec<(String, String)>,
    ) -> String {
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        let nothing = Counts::default();
        for target in self.saved.views.keys() {
            let Some(state) = self.saved.policy.targets.get(target) else { continue };
            for (labels, value) in samples(self.saved.counts.get(target).unwrap_or(&nothing), state) {
                // The configuration admits no name with a character that needs escaping.
                writeln!(text, "{name}{{target=\"{target}\"{labels}}} {value}")
                    .expect("writing to a String cannot fail");
            }
        }
        text
    }
}

fn one(value: impl ToString) -> Vec<(String, String)> {
    vec![(String::new(), value.to_string())]
}

/// By the last verdict other than `unknown`; `None` before the first.
fn up(state: &TargetState) -> Option<u8> {
    match (state.last_class, state.last_healthy) {
        (Some(_), _) => Some(0),
        (None, Some(_)) => Some(1),
        (None, None) => None,
    }
}

fn states(state: &TargetState) -> Vec<(String, String)> {
    let all = [
        Status::Starting,
        Status::Healthy,
        Status::Failing,
        Status::Down,
        Status::Recovering,
        Status::Stopped,
        Status::Paused,
    ];
    let one =
        |status: Status| (format!(",state=\"{}\"", status.as_str()), u8::from(status == state.status).to_string());
    all.into_iter().map(one).collect()
}

fn probes(counts: &Counts) -> Vec<(String, String)> {
    let sample = |(verdict, class, count): (&str, &str, u64)| {
        (format!(",verdict=\"{verdict}\",class=\"{class}\""), count.to_string())
    };
    let unhealthy =
        Class::ALL.into_iter().filter_map(|class| Some(("unhealthy", class.as_str(), *counts.failed.get(&class)?)));
    [("healthy", "", counts.healthy), ("unknown", "", counts.unknown)]
        .into_iter()
        .chain(unhealthy)
        .map(sample)
        .collect()
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000))
}

fn seconds_of(ms: u64) -> String {
    seconds(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Verdict;
    use crate::policy::LastProbe;
    use crate::store::state::TargetView;
    use crate::time::BootTime;

    #[test]
    fn every_target_has_its_samples_and_no_address() {
        let mut saved = SavedState::default();
        let detail = "refused by http://secret.example.org".to_owned();
        let last_probe = LastProbe {
            at: BootTime::BOOT,
            verdict: Verdict::Unhealthy { class: Class::Refused, detail },
            latency_ms: 12,
            addresses: Vec::new(),
        };
        let state = TargetState {
            status: Status::Down,
            last_probe: Some(last_probe),
            last_class: Some(Class::Refused),
            warned: [WarningKind::Slow].into(),
            ..TargetState::default()
        };
        let unsteady = TargetState { warned: [WarningKind::Unsteady].into(), ..TargetState::default() };
        saved.policy.targets = [("api".to_owned(), state), ("new".to_owned(), unsteady)].into();
        saved.views = ["api", "new"].map(|name| (name.to_owned(), TargetView::default())).into();
        let counts = Counts { healthy: 7, failed: [(Class::Refused, 3)].into(), attempts: 2, incidents: 1, unknown: 0 };
        saved.counts.insert("api".into(), counts);
        let text = Metrics { saved: &saved, wall: WallTime::from_ms(1_795_313_530_123) }.text();
        for line in [
            "watchdog_last_cycle_timestamp_seconds 1795313530.123",
            "watchdog_up{target=\"api\"} 0",
            "watchdog_state{target=\"api\",state=\"down\"} 1",
            "watchdog_state{target=\"api\",state=\"healthy\"} 0",
            "watchdog_state{target=\"new\",state=\"starting\"} 1",
            "watchdog_consecutive_failures{target=\"new\"} 0",
            "watchdog_probe_duration_seconds{target=\"api\"} 0.012",
            "watchdog_slow{target=\"api\"} 1",
            "watchdog_slow{target=\"new\"} 0",
            "watchdog_unsteady{target=\"api\"} 0",
            "watchdog_unsteady{target=\"new\"} 1",
            "watchdog_probes_total{target=\"api\",verdict=\"healthy\",class=\"\"} 7",
            "watchdog_probes_total{target=\"api\",verdict=\"unhealthy\",class=\"refused\"} 3",
            "watchdog_restart_attempts_total{target=\"api\"} 2",
            "watchdog_incidents_total{target=\"api\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("watchdog_up{target=\"new\"}"), "it has not been probed yet");
        assert!(!text.contains("example") && text.ends_with('\n'));
    }
}
