//! Targets that are not down but do not do well: a warning, and never a restart.

use serde_json::Value;

use crate::sandbox::Sandbox;

/// The details of the warnings of this kind.
fn warnings(sandbox: &Sandbox, about: &str) -> Vec<String> {
    let found = sandbox.events("warn").into_iter().filter(|event| event["about"] == about);
    found.map(|event| event["detail"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn assert_untouched(sandbox: &Sandbox) {
    sandbox.assert(sandbox.events("restart").is_empty(), "nothing is restarted");
    sandbox.assert(sandbox.events("down").is_empty(), "nothing is down");
}

#[test]
fn a_slow_target_is_reported_once_everywhere_and_not_restarted() {
    let sandbox = Sandbox::new(
        "page: page.html\nmetrics: metrics.prom\nnotify: [{command: cat >> messages}]\ndefaults: {slow: 200ms}\n\
         targets:\n  - name: app\n    command: sleep $(cat delay)\n    interval: 100ms\n    timeout: 5s\n    \
         failure_threshold: 2\n    restart: touch restarted\n  - {name: quick, command: 'true', interval: 100ms}\n",
    );
    sandbox.write("delay", "0");
    let _watchdog = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both are healthy", || {
        ["app", "quick"].iter().all(|target| sandbox.target(target)["state"] == "healthy")
    });
    sandbox.write("delay", "0.4");
    sandbox.eventually("it is reported", || !warnings(&sandbox, "slow").is_empty());
    let detail = warnings(&sandbox, "slow").remove(0);
    sandbox.assert(detail.ends_with("; 2 probes in a row took longer than 200 ms"), &detail);
    sandbox.eventually("the message is sent", || sandbox.read("messages").contains("app on "));
    let message: Value =
        serde_json::from_str(sandbox.read("messages").lines().next().unwrap_or_default()).expect("one message a line");
    assert_eq!((&message["event"], &message["about"]), (&"warn".into(), &"slow".into()), "{message}");
    let is_in = |file: &str, text: &str| sandbox.read(file).contains(text);
    sandbox.eventually("the page shows it", || is_in("page.html", "answers slowly: healthy, but it took over 200 ms"));
    sandbox.eventually("the metrics show it", || is_in("metrics.prom", "watchdog_slow{target=\"app\"} 1"));
    sandbox.assert(is_in("metrics.prom", "watchdog_slow{target=\"quick\"} 0"), &sandbox.read("metrics.prom"));
    let output = sandbox.run(&["status"]);
    sandbox.assert(output.code == Some(0) && output.out.contains("answers slowly"), &format!("{output:?}"));
    let report = sandbox.run(&["report"]).out;
    sandbox.assert(report.contains("  slow       once: healthy, but slower than its limit"), &report);
    sandbox.write("delay", "0");
    sandbox.eventually("the metrics show that it is quick again", || {
        is_in("metrics.prom", "watchdog_slow{target=\"app\"} 0")
    });
    sandbox.write("delay", "0.4");
    sandbox.eventually("it is reported again", || warnings(&sandbox, "slow").len() == 2);
    assert_untouched(&sandbox);
    assert_eq!(sandbox.target("app")["state"], "healthy", "{}", sandbox.dump());
}

#[test]
fn a_target_that_never_fails_three_times_in_a_row_is_reported_and_not_restarted() {
    // Two probes of every three fail.
    let probe = "n=$(cat n); echo $((n + 1)) > n; test $((n % 3)) = 0";
    let sandbox = Sandbox::new(&format!(
        "metrics: metrics.prom\ntargets:\n  - name: app\n    command: {probe}\n    interval: 100ms\n    \
         restart: touch x\n"
    ));
    sandbox.write("n", "0\n");
    let _watchdog = sandbox.start_daemon(&["run"]);
    sandbox.eventually("it is reported", || !warnings(&sandbox, "unsteady").is_empty());
    let detail = warnings(&sandbox, "unsteady").remove(0);
    sandbox.assert(detail.starts_with("10 of 15 probes failed within "), &detail);
    sandbox.assert(detail.ends_with(", but never 3 in a row"), &detail);
    sandbox.eventually("the metrics show it", || {
        sandbox.read("metrics.prom").contains("watchdog_unsteady{target=\"app\"} 1")
    });
    let failures = sandbox.events("failing").len();
    sandbox.eventually("it goes on", || sandbox.events("failing").len() > failures + 5);
    assert_eq!(warnings(&sandbox, "unsteady").len(), 1, "{}", sandbox.dump());
    let output = sandbox.run(&["status"]);
    sandbox.assert(
        output.out.contains("unsteady: a third of the last hour's probes failed, but too few in a row"),
        &output.out,
    );
    assert_untouched(&sandbox);
}

#[test]
fn a_limit_out_of_range_is_refused() {
    let sandbox = Sandbox::new("");
    for value in ["50ms", "2d", "soon", "0"] {
        sandbox.configure(&format!("targets:\n  - {{name: app, tcp: 'localhost:1', slow: {value}}}\n"));
        let output = sandbox.run(&["check", "--offline"]);
        sandbox.assert(output.code == Some(2) && output.err.contains("`slow`"), &format!("{output:?}"));
    }
}
