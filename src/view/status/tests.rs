//! The text of `status` on a wide terminal and on a narrow one.

use super::*;
use crate::policy::{Incident, Streak};

const MINUTE: i64 = 60;

/// So many seconds after 03:18, which is now.
fn at(seconds: i64) -> BootTime {
    BootTime::from_ms(1_000_000_000 + seconds * 1_000)
}

fn in_status(status: Status, minutes: i64, probe: (i64, Verdict)) -> TargetState {
    let last_probe = LastProbe { at: at(-probe.0), verdict: probe.1, latency_ms: 3, addresses: Vec::new() };
    let since = Some(at(-minutes * MINUTE));
    TargetState { status, since, last_probe: Some(last_probe), ..TargetState::default() }
}

fn failed(class: Class, detail: &str) -> Verdict {
    Verdict::Unhealthy { class, detail: detail.into() }
}

fn incident(attempts: u32) -> Incident {
    Incident {
        id: "1122-0258".into(),
        began: at(-20 * MINUTE),
        down_since: None,
        down_at: at(-20 * MINUTE),
        attempts,
        recovering: false,
        diagnosing: None,
        held: None,
        tried: None,
        cause: None,
        last: None,
    }
}

fn report() -> StatusReport {
    let mut saved = SavedState { mode: Some(Mode::Daemon), written_at: Some(at(0)), ..SavedState::default() };
    let well = in_status(Status::Healthy, 6 * 1_440, (12, Verdict::Healthy { detail: "200".into() }));
    let failing = TargetState {
        streak: Some(Streak { count: 2, first: at(-33), last: at(-3) }),
        ..in_status(Status::Failing, 1, (3, failed(Class::Timeout, "no byte for 10 s")))
    };
    let mailer = TargetState {
        incident: Some(incident(5)),
        waiting: Some(Waiting { why: HoldReason::Cooldown, until: Some(at(4 * MINUTE)) }),
        ..in_status(Status::Down, 20, (4, failed(Class::Refused, "refused")))
    };
    let billing = TargetState {
        incident: Some(incident(0)),
        waiting: Some(Waiting { why: HoldReason::DependsOn, until: None }),
        ..in_status(Status::Down, 19, (9, failed(Class::Status, "status 503")))
    };
    let targets = [("sav-backend", well), ("shop", failing), ("mailer", mailer), ("billing", billing)];
    for (order, (name, state)) in targets.into_iter().enumerate() {
        let depends_on = if name == "billing" { vec!["mailer".to_owned()] } else { Vec::new() };
        let shown = TargetView { order, threshold: 3, has_restart_commands: true, depends_on, ..TargetView::default() };
        saved.views.insert(name.into(), shown);
        saved.policy.targets.insert(name.into(), state);
    }
    (saved.config, saved.log) = (Some("/home/me/watchdog.yaml".into()), Some("/home/me/w/watchdog.log".into()));
    let wall = WallTime::parse_rfc3339("2026-11-22T03:18:00.000Z").expect("a time");
    StatusReport {
        saved,
        holder: None,
        is_holder_hidden: false,
        last_held: None,
        has_answered: false,
        config_changed: false,
        at: ClockReading { now: at(0), wall },
        zone: Zone::UTC,
        home: Some("/home/me".into()),
    }
}

#[test]
fn a_wide_terminal_has_all_columns() {
    let expected = "\
TARGET       STATE    SINCE            LAST PROBE             24 H  30 D
sav-backend  healthy  16 Nov (6 days)  200 in 3 ms, 12 s ago  –     –
shop         failing  03:17 (1 min)    timeout, 3 s ago       –     –
  2 of 3 failures in a row
mailer       down     02:58 (20 min)   refused, 4 s ago       –     –
  5 restarts did not help; next restart at 03:22 (cooldown). Details: watchdog incident last
billing      down     02:59 (19 min)   status 503, 9 s ago    –     –
  not restarted: it depends on mailer, which is down
NOBODY IS WATCHING: last sign of life 1 s ago; the states above are as old
config ~/watchdog.yaml · log ~/w/watchdog.log";
    assert_eq!(report().text(Screen::default()), expected);
    assert_eq!(report().text(Screen { columns: Some(100), has_colours: false }), expected);
}

#[test]
fn a_narrow_terminal_has_fewer_columns_and_no_line_that_is_too_long() {
    let text = report().text(Screen { columns: Some(60), has_colours: false });
    assert_eq!(
        text,
        "\
TARGET       STATE    SINCE
sav-backend  healthy  16 Nov (6 days)
  last probe 200 in 3 ms, 12 s ago
  uptime 24 h: –, 30 d: –
shop         failing  03:17 (1 min)
  last probe timeout, 3 s ago
  uptime 24 h: –, 30 d: –
  2 of 3 failures in a row
mailer       down     02:58 (20 min)
  last probe refused, 4 s ago
  uptime 24 h: –, 30 d: –
  5 restarts did not help; next restart at 03:22 (cooldown).
  Details: watchdog incident last
billing      down     02:59 (19 min)
  last probe status 503, 9 s ago
  uptime 24 h: –, 30 d: –
  not restarted: it depends on mailer, which is down
NOBODY IS WATCHING: last sign of life 1 s ago; the states
above are as old
config ~/watchdog.yaml · log ~/w/watchdog.log"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    let coloured = report().text(Screen { columns: None, has_colours: true });
    assert!(coloured.contains("mailer       \u{1b}[31mdown\u{1b}[0m     02:58"), "{coloured}");
}
