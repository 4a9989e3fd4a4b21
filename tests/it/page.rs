//! The status page in a real browser, and the metrics checked by promtool.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::faults::{Behaviour, Server};
use crate::sandbox::{MISSING_PROGRAM, Sandbox};

const DEFAULTS: &str = "defaults: {interval: 200ms, timeout: 1s, start_period: 1s, cooldown: 1s, max_cooldown: 1s}\n";

/// Shows the page in a frame as wide as a phone or a desktop, and writes measurements into its own document.
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

/// The measurements of a real browser.
fn measure_in_browser(sandbox: &Sandbox, width: u32, dark: bool) -> Value {
    let harness = sandbox.path("harness.html");
    fs::write(&harness, HARNESS.replace("WIDTH", &width.to_string())).expect("written");
    let profile = tempfile::tempdir().expect("folder access");
    let scheme = if dark { 0 } else { 1 };
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--dump-dom"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--disable-dev-shm-usage", "--allow-file-access-from-files", "--enable-logging=stderr"]);
    command.args(["--timeout=60000", "--virtual-time-budget=3000", "--window-size=1400,2200"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    command.arg(format!("file://{}", harness.display())).env("HOME", profile.path());
    let Output { stdout, stderr, .. } = command.stdin(Stdio::null()).output().expect(MISSING_PROGRAM);
    let (dom, console) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    sandbox.assert(!console.contains("CONSOLE"), &format!("the browser console is empty: {console}"));
    let result = dom.split("<pre id=\"result\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let result = result.unwrap_or_default().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error}: {dom}\n{console}"))
}

fn page_html(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.path("status.html")).unwrap_or_default()
}

/// Targets for the page: a healthy one, one whose answer contains markup, and one that is down.
fn new_sandbox(well: &Server, hostile: &Server, page: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!(
        "{DEFAULTS}page: {page}\ntargets:\n  - {{name: well, http: 'http://127.0.0.1:{}/s3cret-path'}}\n  - name: \
         a-name-of-sixty-four-letters-which-is-as-long-as-one-can-be-here\n    http: {{url: 'http://127.0.0.1:{}/', \
         json: {{/status: ok}}}}\n  - {{name: down, command: echo a-hidden-word; false}}\n",
        well.port(),
        hostile.port()
    ));
    fs::set_permissions(sandbox.home(), fs::Permissions::from_mode(0o700)).expect("the test owns it");
    sandbox
}

#[cfg(feature = "full-tests")]
#[test]
fn the_page_fits_a_phone_supports_dark_mode_and_reveals_nothing() {
    let well = Server::start(Behaviour::answer("200 OK", "ok"));
    let hostile = Server::start(Behaviour::answer("200 OK", r#"{"status": "<img src=x onerror=alert(1)><b>"}"#));
    let sandbox = new_sandbox(&well, &hostile, "status.html");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox
        .eventually("the page shows what is down", || page_html(&sandbox).contains("<h1>2 of 3 targets down since "));
    let mode = fs::metadata(sandbox.path("status.html")).expect("the file exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let (phone, dark) = (measure_in_browser(&sandbox, 360, false), measure_in_browser(&sandbox, 1_000, true));
    for measured in [&phone, &dark] {
        assert_eq!(
            (&measured["overflow"], &measured["requests"], &measured["markup"]),
            (&0.into(), &0.into(), &0.into()),
            "{measured}"
        );
        assert!(
            measured["heading"].as_str().is_some_and(|text| text.starts_with("2 of 3 targets down since ")),
            "{measured}"
        );
        // Bars for each of the three targets, and a plot for the one that answers.
        assert_eq!(measured["pictures"], 4, "{measured}");
        assert!(measured["lines"].as_u64() >= Some(3 * 2 + 2), "{measured}");
        let text = measured["text"].as_str().unwrap_or_default();
        assert!(text.contains("well") && text.contains("median") && text.contains("90 days ago"), "{text}");
        assert!(!text.contains("This page has been open") || text.contains("Reload it"), "{text}");
    }
    assert_ne!((&phone["ground"], &phone["ink"]), (&dark["ground"], &dark["ink"]), "{phone} {dark}");
    let html = page_html(&sandbox);
    for hidden in
        ["127.0.0.1", "s3cret", "onerror", "a-hidden-word", "http:", "/status", &sandbox.home().display().to_string()]
    {
        sandbox.assert(!html.contains(hidden), &format!("{hidden} is not on the page: {html}"));
    }
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(page_html(&sandbox).contains("<h1>Nobody has been watching since "), "{}", page_html(&sandbox));
}

#[cfg(feature = "full-tests")]
#[test]
fn with_details_markup_from_servers_is_shown_as_text() {
    let well = Server::start(Behaviour::answer("200 OK", "ok"));
    let hostile = Server::start(Behaviour::answer("200 OK", r#"{"status": "<img src=x onerror=alert(1)><b>"}"#));
    let sandbox = new_sandbox(&well, &hostile, "{file: status.html, details: true}");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox
        .eventually("the page shows what is down", || page_html(&sandbox).contains("<h1>2 of 3 targets down since "));
    let measured = measure_in_browser(&sandbox, 360, true);
    assert_eq!(
        (&measured["overflow"], &measured["requests"], &measured["markup"]),
        (&0.into(), &0.into(), &0.into()),
        "{measured}"
    );
    let text = measured["text"].as_str().unwrap_or_default();
    assert!(text.contains("<img src=x onerror=alert(1)>") && text.contains("a-hidden-word"), "{text}");
}

fn check_with(mut command: Command, file: &Path) {
    let input = fs::File::open(file).expect("the file exists");
    let output = command.stdin(input).output().expect(MISSING_PROGRAM);
    let printed = [output.stdout, output.stderr].concat();
    let (printed, text) = (String::from_utf8_lossy(&printed), fs::read_to_string(file).unwrap_or_default());
    assert!(output.status.success() && !printed.contains("error") && !printed.contains("lint"), "{printed}\n{text}");
}

#[cfg(feature = "full-tests")]
#[test]
fn promtool_accepts_the_metrics_and_the_rules_in_readme() {
    let sandbox = Sandbox::new(&format!(
        "{DEFAULTS}metrics: watchdog.prom\ntargets:\n  - {{name: a, command: test ! -e sick, restart: rm sick}}\n  \
         - {{name: b, tcp: '127.0.0.1:1'}}\n"
    ));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox
        .eventually("target a is healthy", || sandbox.read("watchdog.prom").contains("watchdog_up{target=\"a\"} 1\n"));
    sandbox.write("sick", "");
    let counted = "watchdog_restart_attempts_total{target=\"a\"} 1\n";
    sandbox.eventually("the restart is counted", || sandbox.read("watchdog.prom").contains(counted));
    let text = sandbox.read("watchdog.prom");
    assert!(text.contains("watchdog_incidents_total{target=\"a\"} 1\n"), "{text}");
    assert!(text.contains("watchdog_probes_total{target=\"b\",verdict=\"unhealthy\",class=\"refused\"} "), "{text}");
    assert!(!text.contains("127.0.0.1") && !text.contains("rm sick"), "{text}");
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    check_with(command, &sandbox.path("watchdog.prom"));

    let readme = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("readable");
    let rules = readme.split("```yml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the rules");
    sandbox.write("rules.yml", rules);
    let mut command = Command::new("promtool");
    command.args(["check", "rules"]).arg(sandbox.path("rules.yml"));
    check_with(command, &sandbox.path("rules.yml"));
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("expr:")) {
        let name = line.split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| word.starts_with("watchdog_"));
        assert!(text.contains(&format!("# TYPE {} ", name.expect("a metric"))), "{line}");
    }
}

#[test]
fn ticks_publish_the_page_and_continue_the_counters() {
    let sandbox = Sandbox::new(&format!(
        "{DEFAULTS}page: status.html\nmetrics: watchdog.prom\ntargets:\n  - {{name: a, command: 'true'}}\n"
    ));
    for tick in 1..=3 {
        assert_eq!(sandbox.run(&["--once"]).code, Some(0), "{}", sandbox.dump());
        let counted = format!("watchdog_probes_total{{target=\"a\",verdict=\"healthy\",class=\"\"}} {tick}\n");
        sandbox.assert(sandbox.read("watchdog.prom").contains(&counted), &sandbox.read("watchdog.prom"));
        assert!(page_html(&sandbox).contains("<h1>Everything is up</h1>"), "{}", page_html(&sandbox));
    }
}

#[test]
fn an_unwritable_page_is_reported_once_and_affects_nothing_else() {
    let sandbox = Sandbox::new(&format!(
        "{DEFAULTS}page: gone/status.html\nmetrics: watchdog.txt\ntargets:\n  - {{name: a, command: 'true'}}\n"
    ));
    let output = sandbox.run(&["check"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    for part in ["page ", "gone/status.html: its folder does not exist", "names end in .prom"] {
        assert!(output.out.contains(part), "{part}: {output:?}");
    }
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.wait_for_log("(retried every minute)");
    sandbox.eventually("the rest is written", || sandbox.read("watchdog.txt").contains("watchdog_up{target=\"a\"} 1"));
    assert_eq!(sandbox.log().matches("gone/status.html").count(), 1, "{}", sandbox.log());
}
