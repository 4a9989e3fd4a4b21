//! A target with several addresses: all must be healthy, they are probed side by side, and what fails is named.

use std::time::Duration;

use serde_json::Value;

use crate::faults::{Behaviour, ClosedPort, Server};
use crate::resources::ResourceUsage;
use crate::sandbox::{CommandOutput, Sandbox, event_time};

const LIMITS: &str = "interval: 200ms, timeout: 1s, start_period: 0s, cooldown: 1d, max_cooldown: 1d";

fn url(server: &Server, rest: &str) -> String {
    format!("http://127.0.0.1:{}/{rest}", server.port())
}

fn healthy() -> Behaviour {
    Behaviour::answer("200 OK", r#"{"status": "ok"}"#)
}

fn target(addresses: &[&str], rest: &str) -> String {
    format!("targets:\n  - {{name: app, http: [{}], {LIMITS}{rest}}}\n", addresses.join(", "))
}

#[track_caller]
fn assert_contains(sandbox: &Sandbox, text: &str, parts: &[&str]) {
    for part in parts {
        sandbox.assert(text.contains(part), &format!("`{part}` is in:\n{text}"));
    }
}

#[track_caller]
fn check(sandbox: &Sandbox, args: &[&str], code: i32, expected: &[&str]) -> CommandOutput {
    let output = sandbox.run(args);
    sandbox.assert(output.code == Some(code) && output.err.is_empty(), &format!("exit code {code}: {output:?}"));
    assert_contains(sandbox, &output.out, expected);
    output
}

#[test]
fn check_shows_what_each_address_answers() {
    let (one, other, closed) = (Server::start(healthy()), Server::start(healthy()), ClosedPort::new());
    let [a, b] = [url(&one, "a?key=s3cret"), url(&other, "b")];
    let with_json = format!("{{url: 'http://user:s3cret@127.0.0.1:{}/b', json: {{/status: ok}}}}", other.port());
    let sandbox = Sandbox::new(&target(&[&format!("'{a}'"), &with_json], ", restart: touch x"));
    let [shown_a, shown_b] =
        [format!("  addresses   GET {}   200 in ", url(&one, "a?…")), format!("GET {b}   200 in ")];
    let expected =
        ["app   2 addresses, which must all be healthy   200 from all 2 in ", &shown_a, &shown_b, "\nReady."];
    let output = check(&sandbox, &["check"], 0, &expected);
    sandbox.assert(!output.out.contains("s3cret"), &output.out);
    assert_eq!((one.requests().len(), other.requests().len()), (1, 1));

    check(&sandbox, &["check", "--offline"], 0, &["not probed (--offline)\n", &format!("              GET {b}\n")]);

    let refusing = format!("http://127.0.0.1:{}/", closed.port());
    other.set_behaviour(Behaviour::answer("200 OK", r#"{"status": "starting"}"#));
    sandbox.configure(&target(&[&format!("'{a}'"), &with_json, &refusing], ""));
    let failing =
        format!("app   3 addresses, which must all be healthy   body; {b}: /status is \"starting\", not \"ok\"\n");
    let expected = [
        &failing,
        &shown_a,
        &format!("GET {b}   body; /status is \"starting\", not \"ok\" ("),
        &format!("GET {refusing}   refused by 127.0.0.1:{} (", closed.port()),
        "Not ready: 1 target is unhealthy.",
    ];
    check(&sandbox, &["check"], 1, &expected);
}

#[test]
fn the_address_that_fails_is_named_wherever_a_failure_is_but_on_page_and_metrics() {
    let (one, other) = (Server::start(healthy()), Server::start(healthy()));
    let (a, b) = (url(&one, "a"), url(&other, "b?token=t0ken-of-b"));
    let sandbox = Sandbox::new(&format!(
        "page: page.html\nmetrics: metrics.prom\nnotify: [{{command: cat >> messages}}]\n{}",
        target(&[&a, &format!("'{b}'")], ", restart: 'echo \"$WATCHDOG_CLASS|$WATCHDOG_DETAIL\" > given; exit 1'")
    ));
    let _daemon = sandbox.start_daemon(&["-v", "run"]);
    sandbox.eventually("it is healthy", || sandbox.target("app")["state"] == "healthy");
    let probe = sandbox.target("app")["last_probe"].clone();
    let latencies: Vec<u64> = probe["addresses"].as_array().expect("a list").iter().filter_map(latency).collect();
    sandbox.assert(latencies.len() == 2 && latency(&probe) >= latencies.into_iter().max(), &probe.to_string());
    let shown_b = url(&other, "b?…");
    sandbox.wait_for_log("app healthy: 200 from all 2 in ");
    sandbox.wait_for_log(&format!(" ms; {a}: 200 in "));

    other.set_behaviour(Behaviour::answer("503 Service Unavailable", "no database"));
    let detail = format!("{shown_b}: status 503");
    sandbox.eventually("it is restarted", || sandbox.read("given").ends_with('\n'));
    assert_eq!(sandbox.read("given"), format!("status|{detail}\n"), "{}", sandbox.dump());
    for kind in ["failing", "down"] {
        let event = sandbox.events(kind).remove(0);
        assert_eq!((&event["class"], &event["detail"]), (&"status".into(), &detail.as_str().into()), "{event}");
    }
    assert_contains(&sandbox, &sandbox.log(), &[&format!("app failing, 1 of 3 failures: {detail}\n")]);
    let found = &sandbox.target("app")["last_probe"]["addresses"];
    assert_eq!((&found[0]["address"], &found[0]["verdict"]), (&a.as_str().into(), &"healthy".into()), "{found}");
    sandbox.assert(found[0]["class"].is_null() && found[0]["detail"].is_null(), &found.to_string());
    assert_eq!((&found[1]["address"], &found[1]["class"]), (&shown_b.as_str().into(), &"status".into()), "{found}");
    assert_eq!(found[1]["detail"], "status 503", "{found}");
    let status = sandbox.run(&["status"]).out;
    assert_contains(&sandbox, &status, &["  status 503, ", &format!("1 of 2 addresses fails: {shown_b}")]);
    let incident = sandbox.run(&["incident", "last"]).out;
    let parts = [
        format!("What     {detail}, 3 of 3 (connect "),
        format!("         probe: GET {a}, GET {shown_b}\n"),
        format!("         {a}: 200 in "),
        format!("         {shown_b}: status 503 ("),
        format!("         the answer of {shown_b}: 503, no database\n"),
    ];
    assert_contains(&sandbox, &incident, &parts.each_ref().map(String::as_str));
    let record: Value = serde_json::from_str(&sandbox.run(&["incident", "last", "--json"]).out).expect("valid JSON");
    let evidence = &record["evidence"];
    assert_eq!((&evidence["address"], &evidence["status"]), (&shown_b.as_str().into(), &503.into()), "{evidence}");
    assert_eq!(evidence["addresses"].as_array().map(Vec::len), Some(2), "{evidence}");
    sandbox.eventually("the message is sent", || sandbox.read("messages").contains(&shown_b));

    other.set_behaviour(healthy());
    sandbox.eventually("it is up", || !sandbox.events("up").is_empty());
    sandbox.eventually("the incident is on the page", || sandbox.read("page.html").contains("</td>"));
    sandbox.eventually("the metrics say that it is up", || {
        sandbox.read("metrics.prom").contains("watchdog_up{target=\"app\"} 1")
    });
    let published = sandbox.read("page.html") + &sandbox.read("metrics.prom");
    sandbox.assert(!published.contains("127.0.0.1"), &published);
    let state = sandbox.log() + &sandbox.read("state/state.json") + &sandbox.read("state/events.jsonl") + &incident;
    sandbox.assert(!state.contains("t0ken-of-b"), "the query is not stored");
}

fn latency(found: &Value) -> Option<u64> {
    found["latency_ms"].as_u64()
}

#[test]
fn addresses_that_hang_are_found_in_time_and_delay_nobody() {
    let hanging: Vec<Server> = (0..3).map(|_| Server::start(healthy())).collect();
    let (quick, bystander) = (Server::start(healthy()), Server::start(healthy()));
    let urls: Vec<String> = hanging.iter().chain([&quick]).map(|server| url(server, "")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let other = format!("  - {{name: other, http: '{}', interval: 200ms}}\n", url(&bystander, ""));
    let sandbox = Sandbox::new(&(target(&urls, "") + &other));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both are healthy", || {
        ["app", "other"].iter().all(|name| sandbox.target(name)["state"] == "healthy")
    });
    hanging.iter().for_each(|server| server.set_behaviour(Behaviour::Silent));
    let (mut most, before) = (0, bystander.requests().len());
    sandbox.eventually("it is down", || {
        most = most.max(ResourceUsage::of(daemon.pid()).threads);
        !sandbox.events("down").is_empty()
    });
    let down = sandbox.events("down").remove(0);
    assert_eq!((&down["class"], &down["failures"]), (&"timeout".into(), &3.into()), "{down}");
    sandbox.assert(down["detail"].as_str().is_some_and(|detail| detail.starts_with(urls[0])), &down.to_string());
    // Three probes of 1 s, one each 200 ms; one address after another would take 9 s.
    let failing = sandbox.events("failing").remove(0);
    let took = event_time(&down).duration_since(event_time(&failing)).unwrap_or_default();
    sandbox.assert(took < Duration::from_secs(6), &format!("{took:?}"));
    // Loop, signals, a worker for each target, three more addresses; and a spare one.
    sandbox.assert(most <= 8, &format!("{most} threads"));
    sandbox.assert(bystander.requests().len() > before + 5, "the other target is probed as usual");
    sandbox.assert(sandbox.events_of("other", "").is_empty(), "the other target is not affected");
    // The quick one is asked at each probe too.
    let found = sandbox.target("app")["last_probe"].clone();
    assert_eq!(found["addresses"][3]["verdict"], "healthy", "{found}");
    sandbox.assert(latency(&found) >= Some(1_000) && latency(&found["addresses"][3]) < Some(1_000), &found.to_string());
    hanging.iter().for_each(|server| server.set_behaviour(healthy()));
    sandbox.eventually("it is up", || !sandbox.events("up").is_empty());
    sandbox.eventually("no thread is left", || ResourceUsage::of(daemon.pid()).threads <= 4);
}

#[test]
fn the_first_in_the_list_that_a_restart_may_cure_decides() {
    let (hung, closed) = (Server::start(Behaviour::Silent), ClosedPort::new());
    let refusing = format!("http://127.0.0.1:{}/", closed.port());
    for (addresses, restart_on, class) in [
        ([url(&hung, ""), refusing.clone()], "[refused, timeout]", "timeout"),
        ([refusing.clone(), url(&hung, "")], "[refused, timeout]", "refused"),
        ([url(&hung, ""), refusing.clone()], "[refused]", "refused"),
        ([refusing, url(&hung, "")], "[status]", "refused"),
    ] {
        let rest = format!(", failure_threshold: 1, restart_on: {restart_on}, restart: 'echo $WATCHDOG_CLASS > ran'");
        let sandbox = Sandbox::new(&target(&[&addresses[0], &addresses[1]], &rest));
        let _daemon = sandbox.start_daemon(&["run"]);
        if restart_on == "[status]" {
            sandbox.eventually("it is held back", || !sandbox.events("held_back").is_empty());
            assert_eq!(sandbox.events("held_back")[0]["why"], "restart_on", "{}", sandbox.dump());
            assert!(!sandbox.path("ran").exists());
        } else {
            sandbox.eventually("it is restarted", || sandbox.read("ran") == format!("{class}\n"));
        }
        assert_eq!(sandbox.events("down")[0]["class"], class, "{}", sandbox.dump());
    }
}

#[test]
fn a_reload_changes_the_addresses_and_a_new_one_must_be_proven() {
    let (one, other) = (Server::start(healthy()), Server::start(Behaviour::answer("404 Not Found", "")));
    let (a, b) = (url(&one, "a"), url(&other, "b"));
    let rest = ", failure_threshold: 1, restart: touch restarted";
    let sandbox = Sandbox::new(&target(&[&a], rest));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("it is healthy", || sandbox.target("app")["state"] == "healthy");
    let probe = sandbox.target("app")["last_probe"].clone();
    sandbox.assert(probe.get("addresses").is_none(), &format!("a list of one is no list: {probe}"));
    let reload = |addresses: &[&str]| {
        sandbox.configure(&target(addresses, rest));
        let output = sandbox.run(&["reload"]);
        sandbox.assert(output.code == Some(0), &format!("{output:?}"));
    };
    reload(&[&a, &b]);
    sandbox.eventually("it is held back", || !sandbox.events("held_back").is_empty());
    assert_eq!(sandbox.events("held_back")[0]["why"], "never_healthy", "{}", sandbox.dump());
    sandbox.assert(!sandbox.path("restarted").exists(), "the address is probably wrong");
    reload(&[&a]);
    sandbox.eventually("it is up", || !sandbox.events("up").is_empty());
    other.set_behaviour(healthy());
    reload(&[&b, &a]);
    let is_both = || sandbox.target("app")["last_probe"]["addresses"].as_array().is_some_and(|all| all.len() == 2);
    sandbox.eventually("both are healthy", || sandbox.target("app")["state"] == "healthy" && is_both());
    // It has been healthy at these addresses; another order changes nothing about that.
    reload(&[&a, &b]);
    other.set_behaviour(Behaviour::answer("404 Not Found", ""));
    sandbox.eventually("it is restarted", || sandbox.path("restarted").exists());
}

#[test]
fn a_tick_probes_all_addresses() {
    let (one, other) = (Server::start(healthy()), Server::start(healthy()));
    let sandbox = Sandbox::new(&target(&[&url(&one, "a"), &url(&other, "b")], ""));
    assert_eq!(sandbox.run(&["--once"]).code, Some(0));
    assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
    other.set_behaviour(Behaviour::answer("500 Oh", ""));
    assert_eq!(sandbox.run(&["--once"]).code, Some(1));
    assert_eq!((one.requests().len(), other.requests().len()), (2, 2));
    let detail = sandbox.target("app")["last_probe"]["detail"].clone();
    assert_eq!(detail, format!("{}: status 500", url(&other, "b")), "{}", sandbox.dump());
}

#[test]
fn a_configuration_with_a_wrong_list_is_refused() {
    let sandbox = Sandbox::new("");
    for (http, expected) in [
        ("[]", "`http` is an empty list"),
        ("[http://h/, [http://h/x]]", "`http[1]` must be a URL, not a list"),
        ("[http://h/, 80]", "`http[1]` must be a URL, not a number"),
        ("[http://h/, http://h/]", "`http[1]` is the same as http[0]"),
        ("[http://h/, http://i/, {url: nonsense}]", "(targets[0].http[2].url, app)"),
        ("[http://h/, {url: http://h/x, contans: ok}]", "did you mean `contains`?"),
    ] {
        sandbox.configure(&format!("targets:\n  - {{name: app, http: {http}}}\n"));
        let output = sandbox.run(&["check", "--offline"]);
        sandbox.assert(output.code == Some(2) && output.err.contains(expected), &format!("{http}: {output:?}"));
    }
}

#[test]
fn the_slowest_address_is_the_latency_that_slow_is_about() {
    let (quick, slow) = (Server::start(healthy()), Server::start(healthy()));
    let rest = ", slow: 200ms, failure_threshold: 2";
    let sandbox = Sandbox::new(&target(&[&url(&quick, ""), &url(&slow, "")], rest));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("it is healthy", || sandbox.target("app")["state"] == "healthy");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    slow.set_behaviour(Behaviour::Slow(vec![(Duration::from_millis(400), answer)]));
    sandbox.eventually("it is reported", || sandbox.events("warn").iter().any(|event| event["about"] == "slow"));
    sandbox.assert(sandbox.events("failing").is_empty(), "it is healthy all the time");
}
