//! What becomes of messages when those who should take them are in trouble, or the watchdog is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::faults::Closed;
use crate::takes::Takes;

/// A target that is down for as long as there is a file of its name, and only watched.
fn watched(name: &str) -> String {
    format!("{{name: {name}, command: 'test ! -e {name}.sick', failure_threshold: 1}}")
}

#[test]
fn what_cannot_be_delivered_now_is_delivered_later_through_kill_9() {
    let taker = Server::start(Ways::ResetAtOnce);
    let channel = format!("webhook: http://127.0.0.1:{}/", taker.port());
    let place = Place::with(&configuration(&[&channel], &[&watched("a"), &watched("b")]));
    place.write("a.sick", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("a try", || !taker.requests().is_empty() || place.log().contains("cannot send to webhook"));
    assert!(place.run(&["status"]).out.contains("messages waiting: 1"));
    daemon.kill();
    taker.turn(Ways::Answer(b"HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".into()));
    place.write("b.sick", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("another try", || !messages(&taker).is_empty());
    daemon.kill();
    taker.turn(Ways::answer("200 OK", "ok"));
    let daemon = place.daemon(&["run"]);
    place.eventually("both arrive", || {
        let told = kinds(&messages(&taker));
        told.contains(&"down a".into()) && told.contains(&"down b".into())
    });
    std::fs::remove_file(place.path("a.sick")).expect("it is there");
    place.eventually("the end", || kinds(&messages(&taker)).contains(&"up a".into()));
    place.eventually("nothing waits", || place.run(&["status"]).out.contains("messages waiting: 0"));
    daemon.stop();
    let of_a: Vec<Value> = messages(&taker).into_iter().filter(|message| message["target"] == "a").collect();
    // The first that was refused is the first that arrives.
    let ids: BTreeSet<String> = of_a.iter().map(|message| message["id"].to_string()).collect();
    assert_eq!(ids.len(), 2, "one `down`, one `up`: {of_a:?}");
    assert_eq!(kinds(&of_a).first().map(String::as_str), Some("down a"));
    assert_eq!(kinds(&of_a).last().map(String::as_str), Some("up a"));
}

#[test]
fn what_will_never_be_taken_is_dropped_and_said() {
    let taker = Server::start(Ways::answer("410 Gone", "the hook\u{1b} was removed"));
    let channel = format!("webhook: http://127.0.0.1:{}/", taker.port());
    let place = Place::with(&configuration(&[&channel], &[&watched("a"), &watched("b")]));
    place.write("a.sick", "");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is dropped", || !place.events("notify_failed").is_empty());
    let detail = place.events("notify_failed")[0]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("status 410: the hook\\u{1b} was removed"), "{detail}");
    taker.turn(Ways::answer("204 No Content", ""));
    place.write("b.sick", "");
    place.eventually("the next one arrives", || kinds(&messages(&taker)).contains(&"down b".into()));
    assert_eq!(kinds(&messages(&taker)), ["down a", "down b"]);
}

#[test]
fn only_an_answer_about_the_message_itself_ends_it_and_what_a_channel_says_is_told() {
    let taker = Server::start(Ways::Silent);
    let channel = format!("webhook: http://127.0.0.1:{}/", taker.port());
    let answers = [
        (&[400, 410, 413, 414, 415, 422][..], "0", "rejected the last message"),
        (&[301, 302, 307, 401, 403, 404, 405, 409, 418, 429, 500, 503][..], "1", "accepts no messages (1 try)"),
    ];
    for (statuses, waiting, words) in answers {
        for status in statuses {
            let answer = format!("HTTP/1.1 {status} X\r\nLocation: /else\r\nRetry-After: 9999999\r\n");
            taker.turn(Ways::raw(&(answer + "Content-Length: 5\r\n\r\nsorry")));
            let place = Place::with(&configuration(&[&channel], &[&watched("a")]));
            place.write("a.sick", "");
            place.run(&["--once"]);
            let said = place.run(&["status"]).out;
            place.demand(said.contains(&format!("messages waiting: {waiting}")), &said);
            let line = said.lines().find(|line| line.starts_with(&channel.replace(": http://", " ").replace('/', "")));
            let is_told = |line: &str| line.contains(words) && line.contains(&format!("ago: status {status}: sorry"));
            place.demand(line.is_some_and(is_told), &said);
            place.demand(place.events("notify_failed").is_empty() == (waiting == "1"), &said);
            let check = place.run(&["check", "--offline"]);
            place.demand(check.code == Some(1) && line.is_some_and(|line| check.out.contains(&line[..30])), &check.out);
        }
    }
}

#[test]
fn a_tick_sends_and_leaves_the_rest_to_the_next() {
    // As of a proxy in front of the service, while that restarts.
    let taker = Server::start(Ways::answer("404 Not Found", ""));
    let channel = format!("webhook: http://127.0.0.1:{}/", taker.port());
    let place = Place::with(&configuration(&[&channel], &[&watched("a")]));
    place.write("a.sick", "");
    assert_eq!(place.run(&["--once"]).code, Some(1));
    assert_eq!(kinds(&messages(&taker)), ["down a"], "tried once: {}", place.story());
    assert_eq!(place.run(&["--once"]).code, Some(1));
    taker.turn(Ways::answer("200 OK", ""));
    place.eventually("a later tick delivers it", || {
        place.run(&["--once"]);
        messages(&taker).len() > 1
    });
    let told = messages(&taker);
    assert_eq!(told[0]["id"], told[told.len() - 1]["id"]);
    place.run(&["--once"]);
    assert_eq!(messages(&taker).len(), told.len(), "and not again");
}

#[test]
fn those_who_hang_delay_no_look_and_hold_up_nobody_else() {
    let (hanging, taker, backend) = (Server::start(Ways::Silent), taking(), taking());
    let closed = Closed::new();
    let channels = [
        format!("webhook: http://127.0.0.1:{}/", hanging.port()),
        format!("webhook: http://127.0.0.1:{}/", closed.port()),
        "command: sleep 600".into(),
        format!("webhook: http://127.0.0.1:{}/", taker.port()),
    ];
    let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
    let seen = format!("{{name: b, http: 'http://127.0.0.1:{}/', interval: 100ms}}", backend.port());
    let place = Place::with(&configuration(&channels, &[&watched("a"), &seen]));
    place.write("a.sick", "");
    let _daemon = place.daemon(&["run"]);
    gets(&place, &taker, &["down a"]);
    place.eventually("the hanging one is asked", || !hanging.requests().is_empty());
    let before = backend.requests().len();
    place.eventually("looks go on", || backend.requests().len() >= before + 20);
    assert!(!place.log().contains("cannot send to command sleep"), "that still hangs: {}", place.story());
    std::fs::remove_file(place.path("a.sick")).expect("it is there");
    gets(&place, &taker, &["down a", "up a"]);
}

#[test]
fn one_that_is_told_to_stop_finishes_what_it_delivers() {
    let place = Place::with(&configuration(&["command: sh taking"], &[&watched("a")]));
    place.write("taking", "cat >> taken; echo >> taken; until [ -e go ]; do sleep 0.05; done; echo done >> finished\n");
    place.write("a.sick", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is being taken", || place.lines("taken").len() == 1);
    let mut stop = place.begin(&["stop"]);
    place.eventually("it was told", || place.path("state/stopped").exists());
    place.write("go", "");
    assert!(stop.wait().expect("it ends").success());
    drop(daemon);
    assert_eq!(place.lines("finished"), ["done"], "{}", place.story());
    let daemon = place.daemon(&["run"]);
    place.eventually("nothing waits", || place.run(&["status"]).out.contains("messages waiting: 0"));
    daemon.stop();
    assert_eq!(place.lines("taken").len(), 1, "{}", place.story());
}

#[cfg(feature = "full-tests")]
#[test]
fn a_delivery_that_outlasts_its_tick_counts_as_a_try() {
    let place = Place::with(&configuration(&["command: sh taking"], &[&watched("a")]));
    place.write("taking", "cat >> taken; echo >> taken; while [ -e a.sick ]; do sleep 0.1; done\n");
    place.write("a.sick", "");
    place.run(&["--once"]);
    let said = place.run(&["status"]);
    place.demand(said.out.contains("1 try"), &format!("the next tick makes a pause: {said:?}"));
}

#[cfg(feature = "full-tests")]
#[test]
fn a_tick_does_not_wait_for_those_who_hang() {
    let hanging = Server::start(Ways::Silent);
    let channel = format!("webhook: http://127.0.0.1:{}/", hanging.port());
    let place = Place::with(&configuration(&[&channel, "command: sleep 600"], &[&watched("a")]));
    place.write("a.sick", "");
    let began = std::time::Instant::now();
    assert_eq!(place.run(&["--once"]).code, Some(1));
    // 10 s are promised; the rest is what a loaded machine may take.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert!(place.run(&["status"]).out.contains("messages waiting: 1"));
}

#[test]
fn many_flaps_are_few_messages_and_who_comes_later_knows() {
    let (taker, later) = (taking(), taking());
    let webhook = |server: &Server| format!("webhook: http://127.0.0.1:{}/", server.port());
    let channel = webhook(&taker);
    let target = "{name: a, command: test ! -e sick, restart: rm sick, failure_threshold: 1, max_restarts: 100, \
                  cooldown: 0s, max_cooldown: 0s}";
    let place = Place::with(&configuration(&[&channel], &[target]));
    let daemon = place.daemon(&["run"]);
    place.eventually("it is seen", || place.target("a")["state"] == "healthy");
    for flap in 1..=20 {
        place.write("sick", "");
        place.eventually("it goes down and is healed", || place.events("up").len() == flap);
    }
    let told = kinds(&messages(&taker));
    let healed = told.iter().filter(|kind| *kind == "healed a").count();
    assert_eq!((healed, told.len() - healed), (3, 2), "three healed, then `recurrent` and `flapping`: {told:?}");

    place.configure(&configuration(&[&channel, &webhook(&later)], &[target]));
    daemon.signal(rustix::process::Signal::HUP);
    place.eventually("it is read", || !place.events("reloaded").is_empty());
    for flap in 21..=23 {
        place.write("sick", "");
        place.eventually("it goes down and is healed", || place.events("up").len() == flap);
    }
    gets(&place, &later, &["warn a"]);
    let warning = &messages(&later)[0];
    assert_eq!(warning["about"], "flapping");
    assert!(
        warning["text"].as_str().is_some_and(|text| text.contains("18 incidents were not reported one by one since"))
    );
    assert_eq!(messages(&taker).len(), told.len(), "those who know are not told again");
}

/// As many looks as a target has in a day, and far more flaps.
#[cfg(feature = "full-tests")]
#[test]
fn with_every_sink_hanging_the_looks_go_on_and_nothing_grows() {
    const TARGETS: usize = 10;
    const LOOKS: usize = 3_000;
    let (hanging, backend) = (Server::start(Ways::Silent), taking());
    let webhook = format!("webhook: http://127.0.0.1:{}/", hanging.port());
    let mail = format!("{{email: a@b.example, via: 'smtp://127.0.0.1:{}'}}", hanging.port());
    let mut channels = vec![webhook.as_str(), "command: exec sleep 600"];
    if cfg!(feature = "email") {
        channels.push(&mail);
    }
    let target = |number| {
        let port = backend.port();
        format!("{{name: t{number}, http: 'http://127.0.0.1:{port}/{number}', interval: 100ms, failure_threshold: 1}}")
    };
    let targets: Vec<String> = (0..TARGETS).map(target).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let heartbeat = format!("heartbeat: 'http://127.0.0.1:{}/'\npage: status.html\n", hanging.port());
    let place = Place::with(&(heartbeat + &configuration(&channels, &targets)));
    let daemon = place.daemon(&["run"]);
    let (mut sick, mut early) = (false, None);
    let mut worst = (0, 0, 0);
    loop {
        sick = !sick;
        backend.turn(if sick { Ways::answer("503 Busy", "no") } else { Ways::answer("200 OK", "ok") });
        let looks = backend.requests().len();
        place.eventually("looks go on", || backend.requests().len() >= looks + 3 * TARGETS);
        let now = Takes::of(daemon.pid());
        worst = (worst.0.max(now.rss), worst.1.max(now.threads), worst.2.max(now.files));
        if looks > LOOKS / 4 {
            early.get_or_insert(now);
        }
        if looks > LOOKS {
            break;
        }
    }
    let memory = early.expect("it passed a quarter").rss;
    let (most, threads, files) = worst;
    // A look is a thread, and so is a delivery; the loop and the signals are two.
    place.demand(threads <= 2 + 2 * (TARGETS as u64 + 6), &format!("{threads} threads"));
    place.demand(files <= 100, &format!("{files} open files"));
    place.demand(most < memory + 4_096, &format!("{memory} KiB at a quarter, {most} at the most"));
    let of = |number: usize| backend.requests().iter().filter(|one| one.contains(&format!("GET /{number} "))).count();
    let looks: Vec<usize> = (0..TARGETS).map(of).collect();
    let (fewest, most) = (looks.iter().min().expect("some"), looks.iter().max().expect("some"));
    place.demand(fewest * 10 >= most * 9, &format!("each has its turn: {looks:?}"));
    place.demand(place.read("state/state.json").len() < 1 << 20, "the outbox is bounded");
}
