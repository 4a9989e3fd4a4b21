//! What is remembered, and what becomes of it when the clock begins anew.

use super::*;
use crate::outcome::RestReason;
use crate::policy::tell::{Flapping, ToldDown};

#[test]
fn the_latest_ids_are_kept_and_no_more() {
    let mut ids = IncidentIds::default();
    let given: Vec<String> = (10..70).map(|day| ids.name(&format!("{day}-0313"))).collect();
    assert_eq!(ids.0, &given[10..]);
}

/// A state in which every point in time is `at`.
fn state_at(at: i64) -> State {
    let at = Timestamp::from_ms(at);
    let ledger = || Ledger {
        starts: [at].into(),
        cooldown_until: Some(at),
        last_end: Some(at),
        last_reset: Some(at),
        reset_interrupted: true,
        episode: Some(Episode { attempts: 1, healthy_since: Some(at) }),
        unproven: 0,
    };
    let attempt = |phase| {
        let incident = String::new();
        Attempt { number: 1, rung: 0, first: 0, incident, failures: 3, ran: true, over: false, phase }
    };
    let target = |phase| TargetState {
        condition: Condition::Down,
        since: Some(at),
        streak: Some(Streak { count: 1, first: at, last: at }),
        last_look: Some(LastLook { at, verdict: Verdict::Unknown { detail: String::new() }, latency_ms: 0 }),
        last_class: None,
        last_healthy: Some(at),
        excused_until: Some(at),
        incident: Some(Incident {
            id: String::new(),
            began: at,
            down_since: Some(at),
            down_at: at,
            attempts: 1,
            recovering: false,
            diagnosing: Some(at),
            held: None,
            cause: None,
            last: None,
            tried: Some(Tried { rung: 0, ending: Ending::Lost, began: at }),
        }),
        real: ledger(),
        dry: ledger(),
        attempt: Some(attempt(phase)),
        start_period: Some(StartPeriod { until: at, after: Beginning::Boot }),
        paused_until: Some(at),
        stand_down: Some(StandDown { why: Why::OnlyIf, until: at, times: 1 }),
        waiting: Some(Waiting { why: Why::Limit, until: Some(at) }),
        probe_id: 0,
        proven: true,
        unknown_since: Some(at),
        warned: BTreeSet::new(),
        downs: [at].into(),
        cures: [at].into(),
        pm2: Pm2State::default(),
        rest: Some(Rest { why: RestReason::Operator, since: at, ask_at: at, times: 1, reminded: Some(at) }),
        told: Told {
            down: Some(ToldDown { incident: String::new(), at, next: at }),
            flapping: Some(Flapping { since: at, folded: 1 }),
        },
        dry_run: false,
        removed_at: Some(at),
    };
    let phases = [Phase::Intended, Phase::Running { since: at, process: None }, Phase::Verifying { until: at }];
    let targets = phases.into_iter().enumerate().map(|(index, phase)| (index.to_string(), target(phase)));
    State { targets: targets.collect(), incident_ids: IncidentIds::default() }
}

#[test]
fn every_point_in_time_moves_with_the_clock() {
    let mut state = state_at(1_000);
    state.shift(-3_000);
    assert_eq!(state, state_at(-2_000));
}
