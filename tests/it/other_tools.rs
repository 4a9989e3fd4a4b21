//! Those who come from another tool: the keys that they know, and the file that they do not have yet.

use std::fs;

use crate::lock_holder::check;
use crate::sandbox::Sandbox;

/// The key stands in a target, in `http`, in an item of `restart`, in `log` or at the top level.
#[test]
fn a_key_of_another_tool_is_answered_with_the_right_one() {
    let targets = "targets:\n  - {name: app, tcp: 'localhost:1', ";
    let http = "targets:\n  - name: app\n    http: {url: 'http://localhost:1/', ";
    let rung = "targets:\n  - name: app\n    tcp: localhost:1\n    restart: [{run: x}, {";
    let fine = "targets: [{name: app, tcp: 'localhost:1'}]\n";
    let sandbox = Sandbox::new("");
    let answers = |text: &str, key: &str, answer: &str| {
        sandbox.configure(text);
        check(&sandbox, &["check", "--offline"], 2, &[&format!("unknown key `{key}`\n"), answer]);
    };
    for (key, answer) in [
        ("memory_limit", "PM2 limits memory: max_memory_restart"),
        ("max_memory_restart", "PM2 limits memory: max_memory_restart"),
        ("expect", "contains: TEXT"),
        ("url", "write http: http://"),
        ("cmd", "to probe: command: ./healthy.sh; to repair: restart: "),
        ("retries", "write failure_threshold: 3"),
        ("port", "write tcp: HOST:PORT, or http: "),
        ("host", "write tcp: HOST:PORT, or http: "),
        ("path", "http: http://localhost:5000/PATH"),
        ("initialDelaySeconds", "write start_period: 30s"),
        ("periodSeconds", "write interval: 30s"),
        ("timeoutSeconds", "write timeout: 10s"),
        ("failureThreshold", "did you mean `failure_threshold`?"),
        ("successThreshold", "one healthy probe ends an outage"),
        ("script", "here its process is named: pm2: NAME"),
        ("autorestart", "this repairs what fails its probe: restart: "),
        ("start", "write restart: COMMAND"),
        ("stop", "write restart: COMMAND"),
        ("stop program", "write restart: COMMAND"),
        ("healthcheck", "http: URL, tcp: HOST:PORT, command: "),
        ("livenessProbe", "http: URL, tcp: HOST:PORT, command: "),
        ("test", "to probe: command: "),
        ("startsecs", "write start_period: 30s"),
        ("status", "it belongs in `http`"),
        ("notify", "it belongs at the top level"),
        ("user", "commands run as the account of the watchdog"),
        ("min_uptime", "write stable_after: 10m"),
    ] {
        answers(&format!("{targets}{key}: 1}}\n"), key, answer);
    }
    answers(&format!("{http}timeout: 1}}\n"), "timeout", "it belongs next to the probe, in the target");
    answers(&format!("{http}expected_status: 1}}\n"), "expected_status", "write status: 200-299");
    answers(&format!("{http}port: 1}}\n"), "port", "write it all in url: http://");
    answers(&format!("{rung}command: x}}]\n"), "command", "write run: COMMAND");
    answers(&format!("command: x\n{fine}"), "command", "it belongs in a target: targets: ");
    answers(&format!("interval: 5s\n{fine}"), "interval", "set it on a target, or on all of them: defaults: ");
    answers(&format!("apps: []\n{fine}"), "apps", "watchdog init writes `targets` for what PM2 runs");
    answers(&format!("healthcheck: {{test: x}}\n{fine}"), "healthcheck", "write it as a target: ");
    answers(&format!("email: x\n{fine}"), "email", "write notify: [{email: ");
    answers(&format!("defaults: {{retries: 3}}\n{fine}"), "retries", "write failure_threshold: 3");
    answers(&format!("log: {{path: x}}\n{fine}"), "path", "write file: watchdog.log");
    let pm2 = "targets:\n  - pm2: {process: app, ";
    answers(&format!("{pm2}max_memory_restart: 1}}\n"), "max_memory_restart", "PM2 does that, in its ecosystem file");
}

#[test]
fn without_a_configuration_each_command_that_needs_one_names_init() {
    let sandbox = Sandbox::new("");
    fs::remove_file(sandbox.path("watchdog.yaml")).expect("it is there");
    for args in [&[][..], &["run"], &["start"], &["check"], &["check", "--offline", "--send"], &["--once", "--dry-run"]]
    {
        check(&sandbox, args, 2, &["no configuration: none of ./watchdog.yaml", "or write one: watchdog init"]);
    }
    for args in [&["start", "--cron"][..], &["run"], &["check"], &["--once"]] {
        let named = [args, &["-c", "gone.yaml"]].concat();
        check(&sandbox, &named, 2, &["cannot read gone.yaml: no such file or directory (watchdog init writes one)"]);
    }
}
