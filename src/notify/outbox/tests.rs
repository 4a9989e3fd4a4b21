//! The outbox over time: which channel gets which message when, and which messages are dropped.

use super::*;
use crate::config::{CommandLine, Destination};
use crate::outcome::NotificationKind;
use crate::time::WallTime;

const HOUR: i64 = 3_600;

fn channel(id: &str, on: &[NotificationKind]) -> Channel {
    let destination = Destination::Command(CommandLine::Shell("true".into()));
    Channel { id: id.into(), shown: id.into(), destination, on: on.iter().copied().collect() }
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

fn post_down(outbox: &mut Outbox, id: &str, at: i64, channels: &[Channel]) -> Vec<DroppedMessage> {
    outbox.post(message(id, "a", NotificationKind::Down), channels, at_s(at))
}

fn dropped(channel: &str, id: &str, why: &str) -> DroppedMessage {
    DroppedMessage { channel: channel.into(), message: format!("[{id}] first"), why: why.into() }
}

#[track_caller]
fn check_due(outbox: &Outbox, channel: &str, at: i64, expected: &str) {
    let found = outbox.next_due(channel, at_s(at)).map(|due| due.message);
    let found = found.map_or("-".into(), |found| format!("{}{}", found.id, if found.late { " late" } else { "" }));
    assert_eq!(found, expected, "{channel} at {at}");
}

/// Fails every due delivery until messages are dropped; returns these and the time.
fn fail_until_dropped(outbox: &mut Outbox, channels: &[Channel], every: i64, from: i64) -> (Vec<DroppedMessage>, i64) {
    let mut at = from;
    loop {
        if let Some(due) = outbox.next_due("x", at_s(at)) {
            outbox.mark_failed("x", &due.message.id, "404", None, at_s(at));
        }
        let dropped = outbox.drop_expired(channels, |_| false);
        if !dropped.is_empty() {
            return (dropped, at);
        }
        at += every;
    }
}

#[test]
fn each_channel_gets_the_kinds_it_is_configured_for_in_order() {
    let all = [channel("x", &[NotificationKind::Down, NotificationKind::Up]), channel("y", &[NotificationKind::Up])];
    let mut outbox = Outbox::default();
    assert_eq!(outbox.post(message("1", "a", NotificationKind::Down), &all, at_s(0)), []);
    outbox.post(message("2", "a", NotificationKind::Up), &all, at_s(1));
    outbox.post(message("3", "a", NotificationKind::Warn), &all, at_s(2));
    assert_eq!(outbox.waiting_count(), 2, "no channel is configured for warnings");
    check_due(&outbox, "x", 3, "1");
    check_due(&outbox, "y", 3, "2");
    outbox.mark_delivered("y", "2");
    check_due(&outbox, "y", 3, "-");
    check_due(&outbox, "x", 3, "1");
    outbox.mark_delivered("x", "1");
    check_due(&outbox, "x", 400, "2 late");
    outbox.mark_delivered("x", "2");
    assert_eq!((outbox.waiting_count(), outbox.next_retry_at(&all, |_| false)), (0, None));
}

#[test]
fn pauses_grow_to_an_hour_and_delay_one_channel_only() {
    let all = [channel("x", &[NotificationKind::Down]), channel("y", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    post_down(&mut outbox, "1", 0, &all);
    let mut at = 0;
    for (times, pause) in [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600].into_iter().enumerate() {
        assert_eq!(outbox.mark_failed("x", "1", "503", None, at_s(at)), times == 0);
        assert_eq!(outbox.next_retry_at(&all, |_| false), Some(at_s(at + pause)));
        check_due(&outbox, "x", at + pause - 1, "-");
        at += pause;
        check_due(&outbox, "x", at, if at > 300 { "1 late" } else { "1" });
    }
    assert_eq!(
        outbox.next_retry_at(&all, |channel| channel == "x"),
        None,
        "a channel with a delivery in progress does not count"
    );
    assert_eq!(outbox.next_retry_at(&all[1..], |_| false), None, "x is switched off");
    assert_eq!(outbox.drop_expired(&all[1..], |id| id == "x"), [], "its message is kept until x is switched on again");
    assert_eq!(outbox.next_retry_at(&all, |_| false), Some(at_s(at)));
    check_due(&outbox, "y", 1, "1");
    for (asked, pause) in [(100, 100), (3_601, HOUR), (86_400 * 365, HOUR), (u64::MAX / 1_000, HOUR)] {
        outbox.mark_delivered("y", "none");
        outbox.mark_failed("y", "1", "429", Some(Duration::from_secs(asked)), at_s(0));
        check_due(&outbox, "y", pause - 1, "-");
        check_due(&outbox, "y", pause, if pause > 300 { "1 late" } else { "1" });
    }
    check_due(&outbox, "y", -1, "1");
    outbox.mark_delivered("y", "1");
    assert!(outbox.mark_failed("y", "1", "", None, at_s(0)), "a success makes the next failure the first");
    assert_eq!(outbox.next_retry_at(&all, |_| false), Some(at_s(at)), "nothing waits for y");
}

#[test]
fn a_message_that_is_never_accepted_does_not_delay_other_targets() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    for (id, target) in [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")] {
        outbox.post(message(id, target, NotificationKind::Down), &all, at_s(0));
    }
    check_due(&outbox, "x", 0, "1");
    outbox.mark_failed("x", "1", "500", None, at_s(0));
    check_due(&outbox, "x", 5, "3");
    outbox.mark_delivered("x", "3");
    check_due(&outbox, "x", 5, "4");
    outbox.mark_failed("x", "4", "500", None, at_s(5));
    check_due(&outbox, "x", 10, "1");
    outbox.mark_delivered("x", "1");
    check_due(&outbox, "x", 10, "2");
}

#[test]
fn a_message_is_dropped_after_three_days_of_tries_and_not_of_calendar_time() {
    let all = [channel("x", &[NotificationKind::Down])];
    let days = 72 * HOUR;
    let why = "every try failed for three days; last error: 404";
    let mut outbox = Outbox::default();
    post_down(&mut outbox, "1", 0, &all);
    post_down(&mut outbox, "2", 10 * HOUR, &all);
    let (gone, at) = fail_until_dropped(&mut outbox, &all, 60, 0);
    assert_eq!(gone, [dropped("x", "1", why)]);
    assert!((days..days + 2 * HOUR).contains(&at), "{at}");
    // The machine is off for a month. Without tries in that time, no message is dropped.
    let (gone, at) = fail_until_dropped(&mut outbox, &all, 60, at + 30 * 24 * HOUR);
    assert_eq!(gone, [dropped("x", "2", why)]);
    assert!(at > days + 30 * 24 * HOUR + 8 * HOUR, "{at}");
    // Ticks that come only twice a day take longer than three days to drop a message.
    post_down(&mut outbox, "3", 0, &all);
    let (_, at) = fail_until_dropped(&mut outbox, &all, 12 * HOUR, 0);
    assert!(at > 70 * 12 * HOUR, "{at}");
    // A message for a channel that is switched off is not tried, so it waits for ever.
    post_down(&mut outbox, "4", 0, &all);
    assert_eq!(outbox.drop_expired(&[], |id| id == "x"), []);
    assert_eq!(outbox.drop_expired(&[], |_| false), [dropped("x", "4", "its channel is no longer configured")]);
}

#[test]
fn times_are_shifted_to_another_boot() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    post_down(&mut outbox, "1", 10_000, &all);
    outbox.mark_failed("x", "1", "500", Some(Duration::from_secs(100)), at_s(10_000));
    outbox.shift(-10_000_000);
    check_due(&outbox, "x", 99, "-");
    check_due(&outbox, "x", 100, "1");
    check_due(&outbox, "x", 301, "1 late");
}

#[test]
fn the_last_error_of_a_channel_is_shown_until_a_delivery_succeeds() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    let shown =
        |outbox: &Outbox, at| outbox.describe_troubles(at_s(at)).map(|(id, words)| format!("{id} {words}")).last();
    post_down(&mut outbox, "1", 0, &all);
    outbox.mark_failed("x", "1", "status 404", None, at_s(0));
    assert_eq!(shown(&outbox, 5), Some("x accepts no messages (1 try); last error 5 s ago: status 404".into()));
    outbox.mark_failed("x", "1", "status 500", None, at_s(60));
    let expected = "x accepts no messages (2 tries in 1 min); last error 4 s ago: status 500";
    assert_eq!(shown(&outbox, 64), Some(expected.into()));
    outbox.mark_refused("x", "1", "status 413", at_s(100));
    assert_eq!(outbox.waiting_count(), 0);
    assert_eq!(
        shown(&outbox, 160),
        Some("x rejected the last message, which was dropped, 1 min ago: status 413".into())
    );
    post_down(&mut outbox, "2", 160, &all);
    check_due(&outbox, "x", 160, "2");
    outbox.mark_delivered("x", "2");
    assert_eq!(shown(&outbox, 160), None);
}

#[test]
fn the_number_of_waiting_messages_is_bounded() {
    let all = [channel("x", &[NotificationKind::Down])];
    let mut outbox = Outbox::default();
    for number in 0..MAX_MESSAGES {
        assert_eq!(post_down(&mut outbox, &number.to_string(), 0, &all), []);
    }
    assert_eq!(post_down(&mut outbox, "new", 0, &all), [dropped("x", "0", "too many messages are waiting")]);
    assert_eq!(outbox.waiting_count(), MAX_MESSAGES);
}

#[test]
fn an_outbox_is_read_back_also_from_the_earlier_format() {
    let mut outbox = Outbox::default();
    post_down(&mut outbox, "1", 0, &[channel("x", &[NotificationKind::Down])]);
    outbox.mark_failed("x", "1", "500", None, at_s(5));
    let text = serde_json::to_string(&outbox).expect("plain data");
    assert_eq!(serde_json::from_str::<Outbox>(&text).expect("what was written"), outbox);
    let before = r#"{"letters":[{"message":M,"to":["x"]}],"pauses":{"x":{"failures":3,"since":5,"until":9}}}"#;
    let before = before.replace('M', &message("1", "a", NotificationKind::Down).json());
    let read = serde_json::from_str::<Outbox>(&before).expect("what an earlier version wrote");
    check_due(&read, "x", 1, "1");
}
