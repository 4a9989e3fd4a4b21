//! Messages while receivers fail, or the watchdog is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::faults::ClosedPort;
use crate::resources::ResourceUsage;

/// A target without a restart command that is down while the file NAME.sick exists.
fn unrepaired(name: &str) -> String {
    format!("{{name: {name}, command: 'test ! -e {name}.sick', failure_threshold: 1}}")
}

#[test]
fn undelivered_messages_survive_kill_9_and_are_delivered_later() {
    let receiver = Server::start(Behaviour::ResetAtOnce);
    let channel = format!("webhook: http://127.0.0.1:{}/", receiver.port());
    let sandbox = Sandbox::new(&configuration(&[&channel], &[&unrepaired("a"), &unrepaired("b")]));
    sandbox.write("a.sick", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("a delivery attempt", || {
        !receiver.requests().is_empty() || sandbox.log().contains("cannot send to webhook")
    });
    assert!(sandbox.run(&["status"]).out.contains("messages waiting: 1"));
    daemon.kill();
    receiver.set_behaviour(Behaviour::Answer(
        b"HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".into(),
    ));
    sandbox.write("b.sick", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("another delivery attempt", || !messages(&receiver).is_empty());
    daemon.kill();
    receiver.set_behaviour(Behaviour::answer("200 OK", "ok"));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both messages arrive", || {
        let received = kinds(&messages(&receiver));
        received.contains(&"down a".into()) && received.contains(&"down b".into())
    });
    std::fs::remove_file(sandbox.path("a.sick")).expect("the file exists");
    sandbox.eventually("the `up` message arrives", || kinds(&messages(&receiver)).contains(&"up a".into()));
    sandbox.eventually("no message waits", || sandbox.run(&["status"]).out.contains("messages waiting: 0"));
    daemon.stop();
    let of_a: Vec<Value> = messages(&receiver).into_iter().filter(|message| message["target"] == "a").collect();
    // The message that was refused first arrives first.
    let ids: BTreeSet<String> = of_a.iter().map(|message| message["id"].to_string()).collect();
    assert_eq!(ids.len(), 2, "one `down`, one `up`: {of_a:?}");
    assert_eq!(kinds(&of_a).first().map(String::as_str), Some("down a"));
    assert_eq!(kinds(&of_a).last().map(String::as_str), Some("up a"));
}

#[test]
fn a_message_that_is_rejected_for_good_is_dropped_and_reported() {
    let receiver = Server::start(Behaviour::answer("410 Gone", "the hook\u{1b} was removed"));
    let channel = format!("webhook: http://127.0.0.1:{}/", receiver.port());
    let sandbox = Sandbox::new(&configuration(&[&channel], &[&unrepaired("a"), &unrepaired("b")]));
    sandbox.write("a.sick", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the message is dropped", || !sandbox.events("notify_failed").is_empty());
    let detail = sandbox.events("notify_failed")[0]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("status 410: the hook\\u{1b} was removed"), "{detail}");
    receiver.set_behaviour(Behaviour::answer("204 No Content", ""));
    sandbox.write("b.sick", "");
    sandbox.eventually("the next message arrives", || kinds(&messages(&receiver)).contains(&"down b".into()));
    assert_eq!(kinds(&messages(&receiver)), ["down a", "down b"]);
}

#[test]
fn only_statuses_about_the_message_itself_drop_it() {
    let receiver = Server::start(Behaviour::Silent);
    let channel = format!("webhook: http://127.0.0.1:{}/", receiver.port());
    let answers = [
        (&[400, 410, 413, 414, 415, 422][..], "0", "rejected the last message"),
        (&[301, 302, 307, 401, 403, 404, 405, 409, 418, 429, 500, 503][..], "1", "accepts no messages (1 try)"),
    ];
    for (statuses, waiting, expected) in answers {
        for status in statuses {
            let answer = format!("HTTP/1.1 {status} X\r\nLocation: /else\r\nRetry-After: 9999999\r\n");
            receiver.set_behaviour(Behaviour::raw(&(answer + "Content-Length: 5\r\n\r\nsorry")));
            let sandbox = Sandbox::new(&configuration(&[&channel], &[&unrepaired("a")]));
            sandbox.write("a.sick", "");
            sandbox.run(&["--once"]);
            let output = sandbox.run(&["status"]).out;
            sandbox.assert(output.contains(&format!("messages waiting: {waiting}")), &output);
            let line =
                output.lines().find(|line| line.starts_with(&channel.replace(": http://", " ").replace('/', "")));
            let shows_failure =
                |line: &str| line.contains(expected) && line.contains(&format!("ago: status {status}: sorry"));
            sandbox.assert(line.is_some_and(shows_failure), &output);
            sandbox.assert(sandbox.events("notify_failed").is_empty() == (waiting == "1"), &output);
            let check = sandbox.run(&["check", "--offline"]);
            sandbox
                .assert(check.code == Some(1) && line.is_some_and(|line| check.out.contains(&line[..30])), &check.out);
        }
    }
}

#[test]
fn a_tick_tries_once_and_a_later_tick_delivers_the_message() {
    // Such as a proxy's answer while the service behind it restarts.
    let receiver = Server::start(Behaviour::answer("404 Not Found", ""));
    let channel = format!("webhook: http://127.0.0.1:{}/", receiver.port());
    let sandbox = Sandbox::new(&configuration(&[&channel], &[&unrepaired("a")]));
    sandbox.write("a.sick", "");
    assert_eq!(sandbox.run(&["--once"]).code, Some(1));
    assert_eq!(kinds(&messages(&receiver)), ["down a"], "one delivery attempt: {}", sandbox.dump());
    assert_eq!(sandbox.run(&["--once"]).code, Some(1));
    receiver.set_behaviour(Behaviour::answer("200 OK", ""));
    sandbox.eventually("a later tick delivers the message", || {
        sandbox.run(&["--once"]);
        messages(&receiver).len() > 1
    });
    let received = messages(&receiver);
    assert_eq!(received[0]["id"], received[received.len() - 1]["id"]);
    sandbox.run(&["--once"]);
    assert_eq!(messages(&receiver).len(), received.len(), "delivered only once");
}

#[test]
fn hanging_receivers_delay_neither_probes_nor_other_receivers() {
    let (hanging, receiver, backend) = (Server::start(Behaviour::Silent), accepting_server(), accepting_server());
    let closed = ClosedPort::new();
    let channels = [
        format!("webhook: http://127.0.0.1:{}/", hanging.port()),
        format!("webhook: http://127.0.0.1:{}/", closed.port()),
        "command: sleep 600".into(),
        format!("webhook: http://127.0.0.1:{}/", receiver.port()),
    ];
    let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
    let probed = format!("{{name: b, http: 'http://127.0.0.1:{}/', interval: 100ms}}", backend.port());
    let sandbox = Sandbox::new(&configuration(&channels, &[&unrepaired("a"), &probed]));
    sandbox.write("a.sick", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    check_received(&sandbox, &receiver, &["down a"]);
    sandbox.eventually("the hanging receiver has a request", || !hanging.requests().is_empty());
    let before = backend.requests().len();
    sandbox.eventually("probes continue", || backend.requests().len() >= before + 20);
    assert!(!sandbox.log().contains("cannot send to command sleep"), "the command still hangs: {}", sandbox.dump());
    std::fs::remove_file(sandbox.path("a.sick")).expect("the file exists");
    check_received(&sandbox, &receiver, &["down a", "up a"]);
}

#[test]
fn a_stopping_watchdog_finishes_a_delivery() {
    let sandbox = Sandbox::new(&configuration(&["command: sh deliver"], &[&unrepaired("a")]));
    sandbox.write(
        "deliver",
        "cat >> delivered; echo >> delivered; until [ -e go ]; do sleep 0.05; done; echo done >> finished\n",
    );
    sandbox.write("a.sick", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the delivery has begun", || sandbox.lines("delivered").len() == 1);
    let mut stop = sandbox.spawn(&["stop"]);
    sandbox.eventually("stop was requested", || sandbox.path("state/stopped").exists());
    sandbox.write("go", "");
    assert!(stop.wait().expect("the process ends").success());
    drop(daemon);
    assert_eq!(sandbox.lines("finished"), ["done"], "{}", sandbox.dump());
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("no message waits", || sandbox.run(&["status"]).out.contains("messages waiting: 0"));
    daemon.stop();
    assert_eq!(sandbox.lines("delivered").len(), 1, "{}", sandbox.dump());
}

#[cfg(feature = "full-tests")]
#[test]
fn a_delivery_that_outlasts_its_tick_counts_as_an_attempt() {
    let sandbox = Sandbox::new(&configuration(&["command: sh deliver"], &[&unrepaired("a")]));
    sandbox.write("deliver", "cat >> delivered; echo >> delivered; while [ -e a.sick ]; do sleep 0.1; done\n");
    sandbox.write("a.sick", "");
    sandbox.run(&["--once"]);
    let output = sandbox.run(&["status"]);
    sandbox.assert(output.out.contains("1 try"), &format!("the next tick waits before it tries again: {output:?}"));
}

#[cfg(feature = "full-tests")]
#[test]
fn a_tick_does_not_wait_for_hanging_receivers() {
    let hanging = Server::start(Behaviour::Silent);
    let channel = format!("webhook: http://127.0.0.1:{}/", hanging.port());
    let sandbox = Sandbox::new(&configuration(&[&channel, "command: sleep 600"], &[&unrepaired("a")]));
    sandbox.write("a.sick", "");
    let began = std::time::Instant::now();
    assert_eq!(sandbox.run(&["--once"]).code, Some(1));
    // The contract promises 10 s; the rest is for a loaded machine.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert!(sandbox.run(&["status"]).out.contains("messages waiting: 1"));
}

#[test]
fn a_flapping_target_causes_few_messages_and_a_new_receiver_gets_the_warning() {
    let (receiver, late_receiver) = (accepting_server(), accepting_server());
    let webhook = |server: &Server| format!("webhook: http://127.0.0.1:{}/", server.port());
    let channel = webhook(&receiver);
    let target = "{name: a, command: test ! -e sick, restart: rm sick, failure_threshold: 1, max_restarts: 100, \
                  cooldown: 0s, max_cooldown: 0s}";
    let sandbox = Sandbox::new(&configuration(&[&channel], &[target]));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("a")["state"] == "healthy");
    for flap in 1..=20 {
        sandbox.write("sick", "");
        sandbox.eventually("the target goes down and is repaired", || sandbox.events("up").len() == flap);
    }
    let received = kinds(&messages(&receiver));
    let healed = received.iter().filter(|kind| *kind == "healed a").count();
    assert_eq!(
        (healed, received.len() - healed),
        (3, 2),
        "three `healed`, then `recurrent` and `flapping`: {received:?}"
    );

    sandbox.configure(&configuration(&[&channel, &webhook(&late_receiver)], &[target]));
    daemon.signal(rustix::process::Signal::HUP);
    sandbox.eventually("the configuration is reloaded", || !sandbox.events("reloaded").is_empty());
    for flap in 21..=23 {
        sandbox.write("sick", "");
        sandbox.eventually("the target goes down and is repaired", || sandbox.events("up").len() == flap);
    }
    check_received(&sandbox, &late_receiver, &["warn a"]);
    let warning = &messages(&late_receiver)[0];
    assert_eq!(warning["about"], "flapping");
    assert!(
        warning["text"].as_str().is_some_and(|text| text.contains("18 incidents were not reported one by one since"))
    );
    assert_eq!(messages(&receiver).len(), received.len(), "the first receiver gets no second warning");
}

/// As many probes as a target has in a day, and many more outages.
#[cfg(feature = "full-tests")]
#[test]
fn with_all_receivers_hanging_probes_continue_and_resource_usage_stays_bounded() {
    const TARGETS: usize = 10;
    const PROBES: usize = 3_000;
    let (hanging, backend) = (Server::start(Behaviour::Silent), accepting_server());
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
    let sandbox = Sandbox::new(&(heartbeat + &configuration(&channels, &targets)));
    let daemon = sandbox.start_daemon(&["run"]);
    let (mut sick, mut early) = (false, None);
    let mut worst = (0, 0, 0);
    loop {
        sick = !sick;
        backend.set_behaviour(if sick {
            Behaviour::answer("503 Busy", "no")
        } else {
            Behaviour::answer("200 OK", "ok")
        });
        let probes = backend.requests().len();
        sandbox.eventually("probes continue", || backend.requests().len() >= probes + 3 * TARGETS);
        let now = ResourceUsage::of(daemon.pid());
        worst = (worst.0.max(now.rss), worst.1.max(now.threads), worst.2.max(now.files));
        if probes > PROBES / 4 {
            early.get_or_insert(now);
        }
        if probes > PROBES {
            break;
        }
    }
    let memory = early.expect("sampled after a quarter").rss;
    let (most, threads, files) = worst;
    // Each probe and each delivery has a thread; the loop and the signals have two.
    sandbox.assert(threads <= 2 + 2 * (TARGETS as u64 + 6), &format!("{threads} threads"));
    sandbox.assert(files <= 100, &format!("{files} open files"));
    sandbox.assert(most < memory + 4_096, &format!("{memory} KiB at a quarter, {most} at the most"));
    let probes_of =
        |number: usize| backend.requests().iter().filter(|one| one.contains(&format!("GET /{number} "))).count();
    let probes: Vec<usize> = (0..TARGETS).map(probes_of).collect();
    let (fewest, most) =
        (probes.iter().min().expect("there are targets"), probes.iter().max().expect("there are targets"));
    sandbox.assert(fewest * 10 >= most * 9, &format!("targets are probed equally often: {probes:?}"));
    sandbox.assert(sandbox.read("state/state.json").len() < 1 << 20, "the outbox is bounded");
}
