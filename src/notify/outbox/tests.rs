//! What waits, over time: who gets what, when, and what is given up.

use super::*;
use crate::config::{CommandLine, Destination};
use crate::outcome::NotificationKind;
use crate::time::WallTime;

const HOUR: i64 = 3_600;

fn channel(id: &str, on: &[NotificationKind]) -> Channel {
    let way = Destination::Command(CommandLine::Shell("true".into()));
    Channel { id: id.into(), shown: id.into(), destination: way, on: on.iter().copied().collect() }
}

fn message(id: &str, target: &str, event: NotificationKind) -> Message {
    Message {
        id: id.into(),
        event,
        about: None,
        target: Some(target.into()),
        host: "h".into(),
        at: WallTime::from_ms(0),
        text: format!("[{id}] first\nmore"),
        class: None,
        detail: None,
        incident: None,
        attempts: None,
        down_ms: None,
        late: false,
    }
}

fn at_s(s: i64) -> BootTime {
    BootTime::from_ms(s * 1_000)
}

fn down(outbox: &mut Outbox, id: &str, at: i64, channels: &[Channel]) -> Vec<Dropped> {
    outbox.post(message(id, "a", NotificationKind::Down), channels, at_s(at))
}

fn given(channel: &str, id: &str, why: &str) -> Dropped {
    Dropped { channel: channel.into(), message: format!("[{id}] first"), why: why.into() }
}

#[track_caller]
fn due(outbox: &Outbox, channel: &str, at: i64, expected: &str) {
    let found = outbox.due(channel, at_s(at)).map(|due| due.message);
    let found = found.map_or("-".into(), |found| format!("{}{}", found.id, if found.late { " late" } else { "" }));
    assert_eq!(found, expected, "{channel} at {at}");
}

/// Tries whatever is due, every so often; what was given up in the end, and when.
fn try_in_vain(outbox: &mut Outbox, channels: &[Channel], every: i64, from: i64) -> (Vec<Dropped>, i64) {
    let mut at = from;
    loop {
        if let Some(due) = outbox.due("x", at_s(at)) {
            outbox.failed("x", &due.message.id, "404", None, at_s(at));
        }
        let given = outbox.tidy(channels, |_| false);
        if !given.is_empty() {
            return (given, at);
        }
        at += every;
    }
}

#[test]
fn each_channel_gets_what_it_wants_in_order() {
    let all = [channel("x", &[NotificationKind::Down, NotificationKind::Up]), channel("y", &[NotificationKind::Up])];
    let mut outbox = Outbox::default();
    assert_eq!(outbox.post(message("1", "a", NotificationKind::Down), &all, at_s(0)), []);
    outbox.post(message("2", "a", NotificationKind::Up), &all, at_s(1));
    outbox.post(message("3", "a", NotificationKind::Warn), &all, at_s(2));
    assert_eq!(outbox.waiting(), 2, "nobody wants to know of warnings");
    due(&outbox, "x", 3, "1");
    due(&outbox, "y", 3, "2");
    outbox.delivered("y", "2");
    due(&outbox, "y", 3, "-");
    due(&outbox, "x", 3, "1");
    outbox.delivered("x", "1");
    due(&outbox, "x", 400, "2 late");
    outbox.delivered("x", "2");
    assert_eq!((outbox.waiting(), outbox.next(&all, |_| false)), (0, None));
}

#[test]
fn pauses_grow_to_an_hour_and_hold_up_one_channel_only() {
    let all = [channel("x", &[NotificationKind::Down]), channel("y", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    down(&mut outbox, "1", 0, &all);
    let mut at = 0;
    for (times, pause) in [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600].into_iter().enumerate() {
        assert_eq!(outbox.failed("x", "1", "503", None, at_s(at)), times == 0);
        assert_eq!(outbox.next(&all, |_| false), Some(at_s(at + pause)));
        due(&outbox, "x", at + pause - 1, "-");
        at += pause;
        due(&outbox, "x", at, if at > 300 { "1 late" } else { "1" });
    }
    assert_eq!(outbox.next(&all, |channel| channel == "x"), None, "what is delivered right now is not waited for");
    assert_eq!(outbox.next(&all[1..], |_| false), None, "x is switched off");
    assert_eq!(outbox.tidy(&all[1..], |id| id == "x"), [], "and its message is kept until it is switched on");
    assert_eq!(outbox.next(&all, |_| false), Some(at_s(at)));
    due(&outbox, "y", 1, "1");
    for (asked, pause) in [(100, 100), (3_601, HOUR), (86_400 * 365, HOUR), (u64::MAX / 1_000, HOUR)] {
        outbox.delivered("y", "none");
        outbox.failed("y", "1", "429", Some(Duration::from_secs(asked)), at_s(0));
        due(&outbox, "y", pause - 1, "-");
        due(&outbox, "y", pause, if pause > 300 { "1 late" } else { "1" });
    }
    due(&outbox, "y", -1, "1");
    outbox.delivered("y", "1");
    assert!(outbox.failed("y", "1", "", None, at_s(0)), "a success makes the next failure the first");
    assert_eq!(outbox.next(&all, |_| false), Some(at_s(at)), "nothing waits for y");
}

#[test]
fn a_message_that_is_never_taken_holds_up_no_other_targets() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    for (id, target) in [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")] {
        outbox.post(message(id, target, NotificationKind::Down), &all, at_s(0));
    }
    due(&outbox, "x", 0, "1");
    outbox.failed("x", "1", "500", None, at_s(0));
    due(&outbox, "x", 5, "3");
    outbox.delivered("x", "3");
    due(&outbox, "x", 5, "4");
    outbox.failed("x", "4", "500", None, at_s(5));
    due(&outbox, "x", 10, "1");
    outbox.delivered("x", "1");
    due(&outbox, "x", 10, "2");
}

#[test]
fn a_message_is_given_up_after_three_days_of_trying_whatever_the_calendar_says() {
    let all = [channel("x", &[NotificationKind::Down])];
    let days = 72 * HOUR;
    let why = "three days of trying were in vain, the last with: 404";
    let mut outbox = Outbox::default();
    down(&mut outbox, "1", 0, &all);
    down(&mut outbox, "2", 10 * HOUR, &all);
    let (gone, at) = try_in_vain(&mut outbox, &all, 60, 0);
    assert_eq!(gone, [given("x", "1", why)]);
    assert!((days..days + 2 * HOUR).contains(&at), "{at}");
    // The machine is off for a month. That nobody tried in it is no reason to give up what waits.
    let (gone, at) = try_in_vain(&mut outbox, &all, 60, at + 30 * 24 * HOUR);
    assert_eq!(gone, [given("x", "2", why)]);
    assert!(at > days + 30 * 24 * HOUR + 8 * HOUR, "{at}");
    // Tried by ticks that come twice a day only, it has more time.
    down(&mut outbox, "3", 0, &all);
    let (_, at) = try_in_vain(&mut outbox, &all, 12 * HOUR, 0);
    assert!(at > 70 * 12 * HOUR, "{at}");
    // What was not tried at all waits for ever: its channel is switched off.
    down(&mut outbox, "4", 0, &all);
    assert_eq!(outbox.tidy(&[], |id| id == "x"), []);
    assert_eq!(outbox.tidy(&[], |_| false), [given("x", "4", "its channel is not in the configuration any more")]);
}

#[test]
fn times_move_to_another_boot() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    down(&mut outbox, "1", 10_000, &all);
    outbox.failed("x", "1", "500", Some(Duration::from_secs(100)), at_s(10_000));
    outbox.shift(-10_000_000);
    due(&outbox, "x", 99, "-");
    due(&outbox, "x", 100, "1");
    due(&outbox, "x", 301, "1 late");
}

#[test]
fn it_says_what_a_channel_said_last() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    let said = |outbox: &Outbox, at| outbox.troubles(at_s(at)).map(|(id, words)| format!("{id} {words}")).last();
    down(&mut outbox, "1", 0, &all);
    outbox.failed("x", "1", "status 404", None, at_s(0));
    assert_eq!(said(&outbox, 5), Some("x takes no message (1 try); the last answer, 5 s ago: status 404".into()));
    outbox.failed("x", "1", "status 500", None, at_s(60));
    let expected = "x takes no message (2 tries in 1 min); the last answer, 4 s ago: status 500";
    assert_eq!(said(&outbox, 64), Some(expected.into()));
    outbox.refused("x", "1", "status 413", at_s(100));
    assert_eq!(outbox.waiting(), 0);
    assert_eq!(said(&outbox, 160), Some("x dropped the last message, 1 min ago: status 413".into()));
    down(&mut outbox, "2", 160, &all);
    due(&outbox, "x", 160, "2");
    outbox.delivered("x", "2");
    assert_eq!(said(&outbox, 160), None);
}

#[test]
fn what_waits_is_bounded() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    for number in 0..MOST {
        assert_eq!(down(&mut outbox, &number.to_string(), 0, &all), []);
    }
    assert_eq!(down(&mut outbox, "new", 0, &all), [given("x", "0", "too many messages wait")]);
    assert_eq!(outbox.waiting(), MOST);
}

#[test]
fn it_is_read_as_it_was_written_and_as_it_was_before() {
    let mut outbox = Outbox::default();
    down(&mut outbox, "1", 0, &[channel("x", &[NotificationKind::Down])]);
    outbox.failed("x", "1", "500", None, at_s(5));
    let text = serde_json::to_string(&outbox).expect("plain data");
    assert_eq!(serde_json::from_str::<Outbox>(&text).expect("what was written"), outbox);
    let before = r#"{"letters":[{"message":M,"to":["x"]}],"pauses":{"x":{"failures":3,"since":5,"until":9}}}"#;
    let before = before.replace('M', &message("1", "a", NotificationKind::Down).json());
    let read = serde_json::from_str::<Outbox>(&before).expect("what an earlier version wrote");
    due(&read, "x", 1, "1");
}
