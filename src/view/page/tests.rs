//! What the page shows, and what it must not reveal.

use super::*;
use crate::outcome::{Class, Verdict};
use crate::policy::{Incident, LastProbe};
use crate::testing::fuzz;

fn at(minutes: i64) -> BootTime {
    BootTime::from_ms(100_000_000 + minutes * 60_000)
}

fn wall() -> WallTime {
    WallTime::parse_rfc3339("2026-11-22T02:32:10.000Z").expect("a time")
}

/// It went down 20 minutes ago.
fn down(name: &str) -> TargetState {
    let incident = Incident {
        id: "1122-0312".into(),
        began: at(-20),
        down_since: None,
        down_at: at(-19),
        attempts: 5,
        recovering: false,
        diagnosing: None,
        held: None,
        tried: None,
        cause: None,
        last: None,
    };
    let detail = format!("refused by <b>{name}</b> \u{1b}[2J");
    TargetState {
        status: Status::Down,
        since: Some(at(-19)),
        incident: Some(incident),
        last_probe: Some(LastProbe {
            at: at(0),
            verdict: Verdict::Unhealthy { class: Class::Refused, detail },
            latency_ms: 1,
            addresses: Vec::new(),
        }),
        ..TargetState::default()
    }
}

fn in_status(status: Status) -> TargetState {
    TargetState { status, since: Some(at(-60)), ..TargetState::default() }
}

fn saved(states: Vec<TargetState>) -> SavedState {
    let mut saved = SavedState::default();
    for (order, state) in states.into_iter().enumerate() {
        let name = format!("t{order}");
        saved.views.insert(name.clone(), TargetView { order, has_restart_commands: true, ..TargetView::default() });
        saved.policy.targets.insert(name, state);
    }
    saved
}

fn page<'a>(saved: &'a SavedState, past: &'a [ClosedIncident], details: bool) -> Page<'a> {
    let zone = Zone(|_| 3_600);
    Page {
        saved,
        closed: past,
        host: "srv<412>",
        details,
        is_last: false,
        at: ClockReading { now: at(0), wall: wall() },
        zone,
    }
}

#[test]
fn the_banner_sums_up_all_targets() {
    #[track_caller]
    fn check(states: Vec<TargetState>, class: &str, expected: &str) {
        let saved = saved(states);
        let html = page(&saved, &[], false).html();
        assert!(html.contains(&format!("<header class=\"{class}\">\n<h1>{expected}</h1>")), "{html}");
        assert!(html.contains(&format!("<title>{expected}</title>")), "{html}");
    }
    let (well, failing, paused) = (in_status(Status::Healthy), in_status(Status::Failing), in_status(Status::Paused));
    check(vec![well.clone()], "up", "Everything is up");
    check(vec![well.clone(), down("x"), well.clone()], "down", "1 of 3 targets down since 03:12");
    check(vec![down("x"), down("y")], "down", "2 of 2 targets down since 03:12");
    check(vec![down("x")], "down", "The target has been down since 03:12");
    check(vec![well.clone(), failing.clone()], "other", "1 of 2 targets failing");
    check(vec![paused.clone(), paused, well.clone()], "other", "2 of 3 targets paused");
    check(vec![well.clone(), in_status(Status::Starting)], "other", "1 of 2 targets starting");
    let saved = saved(vec![well]);
    let over = Page { is_last: true, ..page(&saved, &[], false) }.html();
    assert!(over.contains("<h1>Nobody has been watching since 22 Nov 03:32</h1>"), "{over}");
}

#[test]
fn nothing_is_revealed_without_details_and_no_text_is_markup() {
    let mut saved = saved(vec![down("evil")]);
    saved.config = Some("/home/me/watchdog.yaml".into());
    let closed = ClosedIncident {
        id: "1121-0312".into(),
        target: "t0".into(),
        began: wall().offset_by(-86_400_000),
        down_ms: 64_000,
        found_ms: None,
        class: Class::Timeout,
        runs: [("./restart.sh <now>".to_owned(), 1)].into(),
        cured: Some("./restart.sh <now>".into()),
        heal_ms: Some(3_000),
    };
    let past = [closed];
    let reserved = page(&saved, &past, false).html();
    for secret in ["refused", "evil", "restart.sh", "timeout", "/home/me"] {
        assert!(!reserved.contains(secret), "{secret} is in {reserved}");
    }
    assert!(reserved.contains("since 03:13 (19 min), restarted 5 times"), "{reserved}");
    assert!(reserved.contains("<td>at least 1 min 4 s</td><td>cured by a restart</td>"), "{reserved}");
    assert!(reserved.contains("srv&lt;412&gt;") && !reserved.contains("srv<412>"));
    let open = page(&saved, &past, true).html();
    assert!(open.contains("<p>refused by &lt;b&gt;evil&lt;/b&gt; \\u{1b}[2J</p>"), "{open}");
    assert!(open.contains("<td>timeout: cured by ./restart.sh &lt;now&gt;</td>"), "{open}");
    for page in [reserved, open] {
        assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"), "{page}");
        assert!(page.contains("<time datetime=\"2026-11-22T02:32:10.000Z\">2026-11-22 03:32:10+01:00</time>"));
    }
}

#[test]
fn time_that_was_not_watched_is_no_uptime() {
    let saved = saved(vec![in_status(Status::Starting)]);
    let html = page(&saved, &[], false).html();
    assert!(html.contains("<span>not watched yet</span>"), "{html}");
    assert!(html.contains("No answers in the last 24 h.") && html.contains("None in 90 days."), "{html}");
}

#[test]
fn no_text_becomes_markup() {
    fuzz(&[b"<script src='x'>alert(\"&lt;\")</script>", b"plain text"], 5_000, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let safe = html(&text);
        assert!(!safe.contains(['<', '>', '"', '\'']), "{safe}");
        let names = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
        let read = names.iter().fold(safe, |read, (name, letter)| read.replace(name, letter));
        assert_eq!(read, escaped(&text), "a browser reads what was meant");
    });
}
