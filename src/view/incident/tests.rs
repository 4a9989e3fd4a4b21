//! The whole text of an incident in each of its kinds.

use super::*;
use crate::outcome::Phases;
use crate::policy::HoldReason;

/// So many seconds after 03:12:10, in a zone an hour ahead of UTC.
fn at(seconds: i64) -> WallTime {
    WallTime::parse_rfc3339("2026-11-22T02:12:10.000Z").expect("a time").offset_by(seconds * 1_000)
}

fn event(account: &mut IncidentRecord, seconds: i64, kind: EventKind) {
    account.add(EventEntry { at: at(seconds), target: Some("sav-backend".into()), kind });
}

fn restart(account: &mut IncidentRecord, seconds: i64, run: &str, outcome: CommandOutcome) {
    let incident = Some(String::from("1122-0313"));
    let begins = EventKind::Restart { attempt: 1, rung: 1, run: run.into(), incident: incident.clone(), by: None };
    event(account, seconds, begins);
    event(
        account,
        seconds + 2,
        EventKind::RestartDone { attempt: 1, rung: 1, outcome, took_ms: 2_100, incident, by: None },
    );
    *account.runs.entry(run.into()).or_default() += 1;
}

fn down() -> IncidentRecord {
    let detail = "connected in 0.1 ms, then no byte for 10 s".to_owned();
    let mut account = IncidentRecord::new("1122-0313", "sav-backend", at(0), at(60), (3, Class::Timeout, detail));
    account.probe = "GET http://localhost:5000/api/health".into();
    (account.last_healthy, account.down_since) = (Some(at(-30)), Some(at(-30)));
    account.watched_ms = 86_400_000;
    let phases = Phases { resolve_us: Some(3), connect_us: Some(120), ..Phases::default() };
    account.evidence = Some(Evidence { phases, ..Evidence::default() });
    account
}

fn machine() -> Machine {
    let node = ProcessUsage {
        pid: 4821,
        name: "node".into(),
        memory: 412_900_000,
        cpu_percent: 99,
        state: "R".into(),
        up_s: 6 * 86_400,
    };
    Machine {
        load: Some([1.24, 0.8, 0.5]),
        cores: 2,
        memory_total: 1_000,
        memory_available: 290,
        swap_total: 0,
        swap_free: 0,
        disk_total: 1_000,
        disk_free: 390,
        processes: vec![node],
    }
}

fn text(account: &IncidentRecord, past: &[ClosedIncident]) -> String {
    let files = ["incident.json".to_owned(), "restart-1-1.out".to_owned()];
    IncidentView {
        record: account,
        closed: past,
        depends_on: &["mailer".to_owned()],
        folder: Path::new("/home/me/.local/state/watchdog/incidents/1122-0313"),
        files: &files,
        home: Some(Path::new("/home/me")),
        wall: at(1_260),
        zone: Zone(|_| 3_600),
    }
    .text()
}

#[test]
fn a_cured_incident_answers_all_questions() {
    let mut account = down();
    account.machine = Some(machine());
    account.pid = Some(4821);
    account.process = Some("its process (pid 4821) used 99 % of a core: busy in a loop, not waiting".into());
    account.log_line = Some("parsing report-2026-11.csv".into());
    restart(&mut account, 61, "pm2 restart sav-backend", CommandOutcome::Exited { code: 0 });
    (account.ended, account.attempts, account.back) = (Some(at(64)), 1, Some("200 in 4 ms".into()));
    (account.cured, account.heal_ms) = (Some("pm2 restart sav-backend".into()), Some(3_000));
    let closed = ClosedIncident::of(&account).expect("it is over");
    let nights =
        (1..4).map(|night| ClosedIncident { id: format!("{night}"), began: at(night * -86_400), ..closed.clone() });
    let past: Vec<ClosedIncident> = nights.chain([closed.clone()]).collect();
    assert_eq!(
        text(&account, &past),
        "\
1122-0313  sav-backend, Sun 22 Nov, 03:11:40 to 03:13:14, down at most 1 min 34 s
What     timeout; connected in 0.1 ms, then no byte for 10 s, 3 of 3 (connect 0.1 ms, first byte never)
         last healthy 03:11:40, first failure 03:12:10, down 03:13:10
         probe: GET http://localhost:5000/api/health
Why      its process (pid 4821) used 99 % of a core: busy in a loop, not waiting (up 6 days, 412 MB)
         machine: load 1.2 on 2 cores, memory 71 %, disk 61 %
         its last log line: parsing report-2026-11.csv
Done     03:13:11  pm2 restart sav-backend, exit 0 in 2.1 s
Helped   yes: 200 in 4 ms, 3 s after the command started. `pm2 restart sav-backend` has cured 4 of 4 timeouts, \
         median 3 s
Again?   4th time in 30 days, all between 03:10 and 03:15: check what runs at that hour
Watched  yes, all of the 24 h before
Files    ~/.local/state/watchdog/incidents/1122-0313/
         incident.json  restart-1-1.out"
    );
}

#[test]
fn an_open_incident_says_what_was_tried() {
    let mut account = down();
    account.watched_ms = 3 * 3_600_000;
    account.evidence =
        Some(Evidence { status: Some(503), body: Some("{\"db\": \"\u{1b}[2Jgone\"}\n".into()), ..Evidence::default() });
    account.machine = Some(machine());
    restart(&mut account, 61, "./soft.sh", CommandOutcome::Exited { code: 3 });
    restart(&mut account, 70, "./hard.sh", CommandOutcome::TimedOut);
    event(&mut account, 200, EventKind::HeldBack { why: HoldReason::Cooldown, until: Some(at(260)), by: None });
    event(&mut account, 300, EventKind::HeldBack { why: HoldReason::DependsOn, until: None, by: None });
    account.attempts = 1;
    assert_eq!(
        text(&account, &[]),
        "\
1122-0313  sav-backend, Sun 22 Nov, since 03:11:40, STILL DOWN after at most 21 min 30 s
What     timeout; connected in 0.1 ms, then no byte for 10 s, 3 of 3
         last healthy 03:11:40, first failure 03:12:10, down 03:13:10
         probe: GET http://localhost:5000/api/health
         its answer: 503, {\"db\": \"\\u{1b}[2Jgone\"}
Why      the busiest of your processes: node (pid 4821, up 6 days, 412 MB), 99 % of a core
         machine: load 1.2 on 2 cores, memory 71 %, disk 61 %
Done     03:13:11  ./soft.sh, exit 3 in 2.1 s
         03:13:20  ./hard.sh, not finished within 2.1 s, killed
         03:15:30  not restarted until 03:16:30: cooldown between restarts
         03:17:10  not restarted: it depends on mailer, which is in trouble
Helped   not so far, after 1 restart
Again?   the first in 30 days
Watched  3 h of the 24 h before
Files    ~/.local/state/watchdog/incidents/1122-0313/
         incident.json  restart-1-1.out"
    );
}

#[test]
fn the_course_of_an_outage_begins_where_its_down_time_begins() {
    #[track_caller]
    fn check(last_healthy: Option<i64>, down_since: Option<i64>, title: &str, course: &str) {
        let mut account = down();
        (account.last_healthy, account.down_since) = (last_healthy.map(at), down_since.map(at));
        let text = text(&account, &[]);
        assert!(text.contains(title) && text.contains(&format!("\n         {course}\n")), "{text}");
    }
    let paused = "paused or at rest until 03:12:05, first failure 03:12:10, down 03:13:10";
    check(Some(-900), Some(-5), "since 03:12:05, STILL DOWN after at most 21 min 5 s", paused);
    let never = "never healthy before, first failure 03:12:10, down 03:13:10";
    check(None, None, "since 03:12:10, STILL DOWN after at least 21 min", never);
    let yesterday = "last healthy 23:12:10, first failure 22 Nov 03:12:10, down 22 Nov 03:13:10";
    check(Some(-4 * 3_600), Some(-4 * 3_600), "Sat 21 Nov, since 23:12:10, STILL DOWN", yesterday);
}

#[test]
fn commands_are_short_and_pauses_are_shown_with_theirs() {
    let mut account = down();
    let script = format!("{}\nexec ./server", "x".repeat(100));
    restart(&mut account, 61, &script, CommandOutcome::NotStarted);
    event(&mut account, 90, EventKind::Paused { until: at(900), command: Some("./deploy.sh now".into()) });
    event(&mut account, 91, EventKind::Paused { until: at(900), command: None });
    let text = text(&account, &[]);
    let done = format!("Done     03:13:11  {}…, could not be started\n", "x".repeat(79));
    assert!(text.contains(&done), "{text}");
    assert!(text.contains("         03:13:40  paused while `./deploy.sh now` runs\n"), "{text}");
    assert!(text.contains("         03:13:41  paused by the operator\n"), "{text}");
    assert!(text.contains("Helped   not so far: the restart command could not be started\n"), "{text}");
    (account.ended, account.cured) = (Some(at(64)), Some(script));
    let list = list(&[account], at(70), Zone::UTC);
    assert!(list.ends_with(&format!("cured by {}…", "x".repeat(79))), "{list}");
}

#[test]
fn a_long_incident_shows_its_first_and_last_steps() {
    let mut account = down();
    for n in 0..30 {
        restart(&mut account, 60 + n * 600, "./restart.sh", CommandOutcome::Exited { code: 0 });
    }
    let text = text(&account, &[]);
    let done: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("Done")).collect();
    let steps = done.iter().position(|line| line.starts_with("Helped")).expect("the next part");
    assert_eq!(steps, FIRST_STEPS + 1 + LAST_STEPS, "{text}");
    assert_eq!(done[FIRST_STEPS].trim(), "… 20 …");
}

#[test]
fn a_recovery_without_a_cure_is_not_credited_to_a_command() {
    let mut account = down();
    (account.ended, account.back) = (Some(at(64)), Some("200 in 4 ms".into()));
    assert!(text(&account, &[]).contains("Helped   it recovered without a restart: 200 in 4 ms\n"));
    account.attempts = 1;
    assert!(
        text(&account, &[])
            .contains("Helped   probably not: 200 in 4 ms only after the start period of the last restart\n")
    );
}

#[test]
fn the_list_has_the_latest_last() {
    let mut over = down();
    (over.ended, over.attempts, over.cured) = (Some(at(64)), 1, Some("./restart.sh".into()));
    let mut open = down();
    (open.id, open.began, open.class) = ("1122-0330".into(), at(1_080), Class::Refused);
    // The wall clock was set meanwhile, so only the recorded down time is right.
    (open.last_healthy, open.down_since, open.down_ms) = (None, None, Some(190_000));
    let accounts = [over, open];
    assert_eq!(
        list(&accounts, at(1_260), Zone(|_| 3_600)),
        "\
INCIDENT   TARGET       BEGAN         DOWN                        CAUSE    END
1122-0313  sav-backend  22 Nov 03:12  at most 1 min 34 s          timeout  cured by ./restart.sh
1122-0330  sav-backend  22 Nov 03:30  at least 3 min 10 s so far  refused  STILL DOWN"
    );
    assert_eq!(list(&[], at(0), Zone::UTC), "No incidents are on record.");
    let json: serde_json::Value = serde_json::from_str(&list_json(&accounts, at(1_260))).expect("JSON");
    assert_eq!((&json[0]["down_ms"], &json[0]["cured"]), (&94_000.into(), &"./restart.sh".into()));
    assert_eq!((&json[1]["down_ms"], &json[1]["ended"]), (&190_000.into(), &serde_json::Value::Null));
}
