//! The stored state when the boot clock has another beginning.

use super::*;
use crate::outcome::RestReason;
use crate::policy::drill::{
    Drill, DrillInterruption, DrillOutcome, DrillRefusal, DrillStep, FinishedDrill, RefusedDrill,
};
use crate::policy::notification_state::{DownNotification, Flapping};
use crate::policy::{ManualProgress, RestartRefusal};

fn paused(at: BootTime) -> Pauses {
    let mut pauses = Pauses::default();
    pauses.begin(at, None);
    pauses.begin(at, Some("./deploy"));
    pauses
}

fn manual_at(at: BootTime) -> ManualRestart {
    let progress = ManualProgress::Starting { rung: 0, exit: Exit::Lost, since: at, failure: None };
    ManualRestart { id: String::new(), first: 0, progress }
}

fn drills_at(at: BootTime) -> Drills {
    let step = DrillStep::HeldBack { why: HoldReason::OnlyIf, until: Some(at) };
    let (id, steps, processes) = (String::new(), vec![(at, step)], vec![(7, 8)]);
    let outcome = DrillOutcome::CutShort { why: DrillInterruption::Lost };
    let last = FinishedDrill {
        id: id.clone(),
        processes: processes.clone(),
        began: at,
        ended: at,
        steps: steps.clone(),
        outcome,
    };
    let refused = RefusedDrill { id: id.clone(), why: DrillRefusal::Limit, until: Some(at) };
    let running = Drill {
        id,
        processes,
        began: at,
        until: at,
        is_stopped: true,
        down_at: Some(at),
        attempted_at: Some(at),
        failure: None,
        steps,
    };
    Drills { ordered: None, running: Some(running), last: Some(last), refused: Some(refused) }
}

fn steadiness_at(at: BootTime) -> Steadiness {
    let mut steadiness = Steadiness::default();
    steadiness.note(true, at);
    steadiness
}

fn probe_at(at: BootTime) -> LastProbe {
    LastProbe { at, verdict: Verdict::Unknown { detail: String::new() }, latency_ms: 0, addresses: Vec::new() }
}

fn incident_at(at: BootTime) -> Incident {
    Incident {
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
        tried: Some(TriedCommand { rung: 0, exit: Exit::Lost, began: at, by: None }),
    }
}

fn notifications_at(at: BootTime) -> NotificationState {
    NotificationState {
        down: Some(DownNotification { incident: String::new(), at, next: at }),
        flapping: Some(Flapping { since: at, folded: 1 }),
    }
}

fn state_at(at: i64) -> State {
    let at = BootTime::from_ms(at);
    let history = || AttemptHistory {
        starts: [at].into(),
        cooldown_until: Some(at),
        last_end: Some(at),
        last_reset: Some(at),
        reset_interrupted: true,
        episode: Some(Episode { attempts: 1, healthy_since: Some(at) }),
        unproven: 0,
    };
    let attempt = |phase| {
        let incident = Some(String::new());
        Attempt {
            number: 1,
            rung: 0,
            first: 0,
            incident,
            folder: String::new(),
            by: None,
            failures: 3,
            ran: true,
            over: false,
            repair_id: 0,
            resets: false,
            phase,
        }
    };
    let target = |phase| TargetState {
        status: Status::Down,
        since: Some(at),
        streak: Some(Streak { count: 1, first: at, last: at }),
        last_probe: Some(probe_at(at)),
        last_class: None,
        last_healthy: Some(at),
        excused_until: Some(at),
        incident: Some(incident_at(at)),
        real: history(),
        dry: history(),
        attempt: Some(attempt(phase)),
        manual: Some(manual_at(at)),
        refused: Some(RefusedRestart { id: String::new(), why: RestartRefusal::Limit, until: Some(at) }),
        drills: drills_at(at),
        start_period: Some(StartPeriod { until: at, after: StartReason::Boot }),
        pauses: paused(at),
        stand_down: Some(StandDown { why: HoldReason::OnlyIf, until: at, times: 1 }),
        waiting: Some(Waiting { why: HoldReason::Limit, until: Some(at) }),
        probe_id: 0,
        proven: true,
        unknown_since: Some(at),
        warned: BTreeSet::new(),
        speed_streak: 0,
        steadiness: steadiness_at(at),
        downs: [at].into(),
        cures: [at].into(),
        pm2: Pm2State::default(),
        rested_before_boot: true,
        rest: Some(Rest { why: RestReason::Operator, since: at, ask_at: at, times: 1, reminded: Some(at) }),
        notifications: notifications_at(at),
        dry_run: false,
        removed_at: Some(at),
    };
    let phases = [Phase::CheckingReset, Phase::Running { since: at, process: None }, Phase::Verifying { until: at }];
    let targets = phases.into_iter().enumerate().map(|(index, phase)| (index.to_string(), target(phase)));
    let mut ticks = Ticks::default();
    ticks.note(at);
    State { targets: targets.collect(), incident_ids: IncidentIds::default(), pauses: paused(at), ticks }
}

#[test]
fn a_boot_ends_a_rest_but_not_the_memory_that_the_operator_ordered_it() {
    for (why, expected) in [(RestReason::Operator, true), (RestReason::Schedule, false)] {
        let mut state = state_at(1_000);
        let target = state.targets.get_mut("0").expect("a target");
        target.rested_before_boot = false;
        target.rest = target.rest.map(|rest| Rest { why, ..rest });
        state.reboot();
        assert_eq!((state.targets["0"].rest, state.targets["0"].rested_before_boot), (None, expected));
        // Until it is healthy again.
        state.reboot();
        assert_eq!(state.targets["0"].rested_before_boot, expected);
    }
}

#[test]
fn every_point_in_time_moves_with_the_clock() {
    let mut state = state_at(1_000);
    state.shift(-3_000);
    assert_eq!(state, state_at(-2_000));
}

#[test]
fn a_probe_is_read_as_it_was_written_with_and_without_addresses() {
    let old = r#"{"at":5,"verdict":{"verdict":"unhealthy","class":"status","detail":"status 503"},"latency_ms":3}"#;
    let mut probe: LastProbe = serde_json::from_str(old).expect("the form of earlier versions");
    assert_eq!((probe.addresses.len(), serde_json::to_string(&probe).expect("JSON").as_str()), (0, old));
    for verdict in [probe.verdict.clone(), Verdict::Healthy { detail: "200".into() }] {
        probe.addresses.push(AddressResult { address: "http://h/".into(), verdict, latency_ms: 2 });
    }
    let written = serde_json::to_string(&probe).expect("JSON");
    assert_eq!(serde_json::from_str::<LastProbe>(&written).expect("its own form"), probe);
}

#[test]
fn a_reboot_forgets_the_pids_of_a_drill() {
    let mut state = state_at(1_000);
    state.reboot();
    for target in state.targets.values() {
        let running = target.drills.running.as_ref().map(|drill| drill.processes.len());
        assert_eq!((running, target.drills.last.as_ref().map(|drill| drill.processes.len())), (Some(0), Some(0)));
    }
}
