//! The page in a real browser, and the metrics before Prometheus's own judge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::faults::{Server, Ways};
use crate::place::{NEEDED, Place};

/// Quick enough for a test.
const DEFAULTS: &str = "defaults: {interval: 200ms, timeout: 1s, start_period: 1s, cooldown: 1s, max_cooldown: 1s}\n";

/// Shows the page in a frame of a phone's width or a desk's, and writes what it measures into its own document.
const HARNESS: &str = r#"<!doctype html>
<iframe id="f" src="status.html" style="width:WIDTHpx;height:2000px;border:0"></iframe>
<pre id="result"></pre><script>
f.onload = () => {
  const inner = f.contentDocument, root = inner.documentElement, style = f.contentWindow.getComputedStyle(inner.body);
  const seen = all => [...all].filter(one => one.getBoundingClientRect().width > 0).length;
  result.textContent = JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth,
    requests: f.contentWindow.performance.getEntriesByType("resource").length,
    heading: inner.querySelector("h1").textContent,
    text: inner.body.innerText,
    pictures: seen(inner.querySelectorAll("svg")),
    lines: seen(inner.querySelectorAll(".days line")) + seen(inner.querySelectorAll(".plot polyline")),
    markup: inner.querySelectorAll("script, img, b, iframe, object, embed").length,
    ground: style.backgroundColor, ink: style.color,
  });
};
</script>"#;

/// What a browser says of the page.
fn looked_at(place: &Place, width: u32, dark: bool) -> Value {
    let harness = place.path("harness.html");
    fs::write(&harness, HARNESS.replace("WIDTH", &width.to_string())).expect("written");
    let profile = tempfile::tempdir().expect("a folder");
    let scheme = if dark { 0 } else { 1 };
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--dump-dom"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--disable-dev-shm-usage", "--allow-file-access-from-files", "--enable-logging=stderr"]);
    command.args(["--timeout=60000", "--virtual-time-budget=3000", "--window-size=1400,2200"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    command.arg(format!("file://{}", harness.display())).env("HOME", profile.path());
    let Output { stdout, stderr, .. } = command.stdin(Stdio::null()).output().expect(NEEDED);
    let (dom, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    place.demand(!said.contains("CONSOLE"), &format!("the console stays empty: {said}"));
    let result = dom.split("<pre id=\"result\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let result = result.unwrap_or_default().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error}: {dom}\n{said}"))
}

fn status(place: &Place) -> String {
    fs::read_to_string(place.path("status.html")).unwrap_or_default()
}

/// A page of a target that is well, one that says hostile things, and one that is down.
fn place(well: &Server, hostile: &Server, page: &str) -> Place {
    let place = Place::with(&format!(
        "{DEFAULTS}page: {page}\ntargets:\n  - {{name: well, http: 'http://127.0.0.1:{}/s3cret-path'}}\n  - name: \
         a-name-of-sixty-four-letters-which-is-as-long-as-one-can-be-here\n    http: {{url: 'http://127.0.0.1:{}/', \
         json: {{/status: ok}}}}\n  - {{name: down, command: echo a-hidden-word; false}}\n",
        well.port(),
        hostile.port()
    ));
    fs::set_permissions(place.home(), fs::Permissions::from_mode(0o700)).expect("ours");
    place
}

#[cfg(feature = "full-tests")]
#[test]
fn the_page_is_read_on_a_phone_and_in_the_dark_and_reveals_nothing() {
    let well = Server::start(Ways::answer("200 OK", "ok"));
    let hostile = Server::start(Ways::answer("200 OK", r#"{"status": "<img src=x onerror=alert(1)><b>"}"#));
    let place = place(&well, &hostile, "status.html");
    let daemon = place.daemon(&["run"]);
    place.eventually("it says what is down", || status(&place).contains("<h1>2 of 3 targets down since "));
    let mode = fs::metadata(place.path("status.html")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let (phone, dark) = (looked_at(&place, 360, false), looked_at(&place, 1_000, true));
    for seen in [&phone, &dark] {
        assert_eq!(
            (&seen["overflow"], &seen["requests"], &seen["markup"]),
            (&0.into(), &0.into(), &0.into()),
            "{seen}"
        );
        assert!(seen["heading"].as_str().is_some_and(|text| text.starts_with("2 of 3 targets down since ")), "{seen}");
        // Bars for each of three targets, and a plot for the one that answers.
        assert_eq!(seen["pictures"], 4, "{seen}");
        assert!(seen["lines"].as_u64() >= Some(3 * 2 + 2), "{seen}");
        let text = seen["text"].as_str().unwrap_or_default();
        assert!(text.contains("well") && text.contains("median") && text.contains("90 days ago"), "{text}");
        assert!(!text.contains("This page has been open") || text.contains("Reload it"), "{text}");
    }
    assert_ne!((&phone["ground"], &phone["ink"]), (&dark["ground"], &dark["ink"]), "{phone} {dark}");
    let html = status(&place);
    for hidden in
        ["127.0.0.1", "s3cret", "onerror", "a-hidden-word", "http:", "/status", &place.home().display().to_string()]
    {
        place.demand(!html.contains(hidden), &format!("{hidden} is not on the page: {html}"));
    }
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(status(&place).contains("<h1>Nobody has been watching since "), "{}", status(&place));
}

#[cfg(feature = "full-tests")]
#[test]
fn with_details_what_servers_say_stays_text() {
    let well = Server::start(Ways::answer("200 OK", "ok"));
    let hostile = Server::start(Ways::answer("200 OK", r#"{"status": "<img src=x onerror=alert(1)><b>"}"#));
    let place = place(&well, &hostile, "{file: status.html, details: true}");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it says what is down", || status(&place).contains("<h1>2 of 3 targets down since "));
    let seen = looked_at(&place, 360, true);
    assert_eq!((&seen["overflow"], &seen["requests"], &seen["markup"]), (&0.into(), &0.into(), &0.into()), "{seen}");
    let text = seen["text"].as_str().unwrap_or_default();
    assert!(text.contains("<img src=x onerror=alert(1)>") && text.contains("a-hidden-word"), "{text}");
}

fn judged(mut command: Command, file: &Path) {
    let input = fs::File::open(file).expect("it is there");
    let output = command.stdin(input).output().expect(NEEDED);
    let said = [output.stdout, output.stderr].concat();
    let (said, text) = (String::from_utf8_lossy(&said), fs::read_to_string(file).unwrap_or_default());
    assert!(output.status.success() && !said.contains("error") && !said.contains("lint"), "{said}\n{text}");
}

#[cfg(feature = "full-tests")]
#[test]
fn prometheus_takes_the_metrics_and_the_rules_of_readme() {
    let place = Place::with(&format!(
        "{DEFAULTS}metrics: watchdog.prom\ntargets:\n  - {{name: a, command: test ! -e sick, restart: rm sick}}\n  \
         - {{name: b, tcp: '127.0.0.1:1'}}\n"
    ));
    let _daemon = place.daemon(&["run"]);
    place.eventually("a is seen", || place.read("watchdog.prom").contains("watchdog_up{target=\"a\"} 1\n"));
    place.write("sick", "");
    let counted = "watchdog_restart_attempts_total{target=\"a\"} 1\n";
    place.eventually("the restart is counted", || place.read("watchdog.prom").contains(counted));
    let text = place.read("watchdog.prom");
    assert!(text.contains("watchdog_incidents_total{target=\"a\"} 1\n"), "{text}");
    assert!(text.contains("watchdog_probes_total{target=\"b\",verdict=\"unhealthy\",class=\"refused\"} "), "{text}");
    assert!(!text.contains("127.0.0.1") && !text.contains("rm sick"), "{text}");
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    judged(command, &place.path("watchdog.prom"));

    let readme = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("readable");
    let rules = readme.split("```yml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the rules");
    place.write("rules.yml", rules);
    let mut command = Command::new("promtool");
    command.args(["check", "rules"]).arg(place.path("rules.yml"));
    judged(command, &place.path("rules.yml"));
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("expr:")) {
        let name = line.split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| word.starts_with("watchdog_"));
        assert!(text.contains(&format!("# TYPE {} ", name.expect("a metric"))), "{line}");
    }
}

#[test]
fn a_tick_publishes_too_and_counts_go_on() {
    let place = Place::with(&format!(
        "{DEFAULTS}page: status.html\nmetrics: watchdog.prom\ntargets:\n  - {{name: a, command: 'true'}}\n"
    ));
    for tick in 1..=3 {
        assert_eq!(place.run(&["--once"]).code, Some(0), "{}", place.story());
        let counted = format!("watchdog_probes_total{{target=\"a\",verdict=\"healthy\",class=\"\"}} {tick}\n");
        place.demand(place.read("watchdog.prom").contains(&counted), &place.read("watchdog.prom"));
        assert!(status(&place).contains("<h1>Everything is up</h1>"), "{}", status(&place));
    }
}

#[test]
fn what_cannot_be_published_is_said_once_and_hinders_nothing() {
    let place = Place::with(&format!(
        "{DEFAULTS}page: gone/status.html\nmetrics: watchdog.txt\ntargets:\n  - {{name: a, command: 'true'}}\n"
    ));
    let said = place.run(&["check"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for part in ["page ", "gone/status.html: its folder does not exist", "names end in .prom"] {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
    let _daemon = place.daemon(&["run"]);
    place.told("(tried again every minute)");
    place.eventually("the rest is written", || place.read("watchdog.txt").contains("watchdog_up{target=\"a\"} 1"));
    assert_eq!(place.log().matches("gone/status.html").count(), 1, "{}", place.log());
}
