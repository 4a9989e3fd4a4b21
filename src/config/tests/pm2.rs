//! `pm2` on a target: what is valid, what follows from it, and what is rejected.

use super::*;
use crate::policy::Precondition;

/// Each rung as people read it, with its time limit if that is not the default.
fn ladder(target: &Target) -> Vec<String> {
    let rung = |rung: &Rung| match rung.timeout {
        RUNG_TIMEOUT => rung.remedy.to_string(),
        other => format!("{} ({other:?})", rung.remedy),
    };
    target.ladder.iter().map(rung).collect()
}

fn first(text: &str) -> Target {
    accepted(&format!("targets:\n  - {}\n", text.replace('\n', "\n    "))).targets.remove(0)
}

#[test]
fn a_process_name_is_enough() {
    let target = first("pm2: sav-backend\nhttp: http://localhost:5000/api/health");
    assert_eq!(target.name, "sav-backend");
    let pm2 = Pm2Config {
        process: "sav-backend".into(),
        home: "/home/user/.pm2".into(),
        config: None,
        env: None,
        reset: false,
    };
    assert_eq!(target.pm2.as_ref(), Some(&pm2));
    assert_eq!(ladder(&target), ["pm2 restart sav-backend"]);
    assert_eq!((target.limits.rungs, target.limits.reset), (1, None));
    assert_eq!(target.limits.preconditions, [Precondition::Stopped]);
    assert!(matches!(target.probe, Probe::Http(_)));
    // Without another probe, it is the probe.
    let alone = first("pm2: sav-backend");
    assert_eq!(alone.probe, Probe::Pm2(pm2));
    assert_eq!(alone.name, "sav-backend");
}

#[test]
fn every_key_of_pm2_is_read() {
    let target = first(
        "name: api\npm2: {process: sav backend, home: run/pm2, reset: true}\ntcp: localhost:5000\nonly_if: 'true'",
    );
    assert_eq!(ladder(&target)[0], "pm2 restart sav backend");
    assert!(ladder(&target)[1].starts_with("reset PM2 in /") && ladder(&target)[1].ends_with("/run/pm2"));
    assert_eq!((target.limits.rungs, target.limits.reset), (2, Some(1)));
    assert_eq!(target.limits.preconditions, [Precondition::Stopped, Precondition::OnlyIf]);
    let target = first("pm2: {process: a, config: /app/ecosystem.config.js}");
    assert_eq!(ladder(&target), ["pm2 restart a"]);
    // `reset` does not change a ladder that is written.
    let target = first(
        "pm2: {process: a, home: /p, reset: true}\nrestart: [./own.sh, {pm2: reset}, {pm2: restart, timeout: 20s}]",
    );
    assert_eq!(ladder(&target), ["./own.sh", "reset PM2 in /p", "pm2 restart a (20s)"]);
    assert_eq!(target.limits.reset, Some(1));
    assert_eq!(first("pm2: a\nrestart: {pm2: restart}").ladder.len(), 1);
    assert_eq!(first("pm2: a\nrestart: [{pm2: reset}]").limits.reset, Some(0));
    accepted("targets: [{pm2: {process: a, home: /p}}, {pm2: {process: a, home: /q}, name: b}, {pm2: b, name: c}]");
}

#[test]
fn only_a_probe_of_this_machine_has_a_local_port() {
    #[track_caller]
    fn check(probe: &str, expected: Option<u16>) {
        assert_eq!(first(&format!("pm2: a\n{probe}")).probe.local_ports(), Vec::from_iter(expected), "{probe}");
    }
    check("http: http://localhost:5000/api", Some(5000));
    check("http: http://[::1]:5000", Some(5000));
    check("http: http://127.0.0.1", Some(80));
    check("http: http://0.0.0.0:5000", Some(5000));
    check("http: https://127.8.0.1/", Some(443));
    check("http: https://example.org/", None);
    check("http: {url: http://localhost/x, unix_socket: /s}", None);
    check("tcp: 127.0.0.1:81", Some(81));
    check("tcp: db:81", None);
    check("file: {path: f, max_age: 1m}", None);
}

#[test]
fn names_that_pm2_would_misread_are_rejected() {
    #[track_caller]
    fn check(process: &str, expected: &str) {
        rejected(&format!("targets: [{{name: a, pm2: {process}}}]"), &["w.yaml:1:", expected]);
    }
    check("all", "means every process in a pm2 command");
    check("'0'", "is read by pm2 as an id");
    check("/a/", "is read by pm2 as a pattern");
    check("a/b", "contains a character that pm2 cannot find");
    check("-a", "reads it as an option");
    check("{process: 'a,b', config: e.js}", "a comma or a space");
    check("{process: 'a b', config: e.js}", "a comma or a space");
    check("''", "is empty");
    check("7", "must be text");
    accepted("targets: [{name: a, pm2: {process: '0', config: e.js}}]");
    rejected("targets: [{pm2: a b}]", &["w.yaml:1:17: `pm2` cannot also be the target's name", "add a `name`"]);
    rejected("targets: [{pm2: {home: /p}}]", &["w.yaml:1:17: `pm2` has no `process`"]);
    rejected("targets: [{pm2: {process: a, hoem: /p}}]", &["w.yaml:1:30: unknown key `hoem`", "`home`?"]);
    let long = "x".repeat(99);
    rejected(
        &format!("targets: [{{pm2: {{process: a, home: /{long}}}}}]"),
        &["w.yaml:1:36: `home` is too long", "at most 98 bytes"],
    );
    accepted(&format!("targets: [{{pm2: {{process: a, home: /{}}}}}]", "x".repeat(97)));
}

#[test]
fn only_the_first_target_of_a_home_reports_pm2() {
    let text = "targets: [{pm2: a}, {pm2: b}, {pm2: {process: c, home: /x}}, {name: d, tcp: 'h:1'}]";
    let reports: Vec<bool> = accepted(text).targets.iter().map(|target| target.limits.reports_pm2).collect();
    assert_eq!(reports, [true, false, true, true]);
}

#[test]
fn the_env_block_is_named_as_pm2_expects_it() {
    let of = |env: &str| format!("targets: [{{pm2: {{process: a, config: eco.js, env: {env}}}}}]");
    let read = |env: &str| accepted(&of(env)).targets[0].pm2.as_ref().and_then(|pm2| pm2.env.clone());
    assert_eq!(read("production").as_deref(), Some("production"));
    assert_eq!(read("env_production").as_deref(), Some("production"));
    for env in ["'a b'", "-x"] {
        rejected(&of(env), &["w.yaml:1:51: `env` is not the name of an env block"]);
    }
}

#[test]
fn invalid_ladders_with_pm2_are_rejected() {
    rejected(&one("tcp: h:1\nrestart: {pm2: restart}"), &["w.yaml:4:20: `pm2` needs the process in PM2"]);
    rejected(&one("tcp: h:1\npm2: a\nrestart: {pm2: reboot}"), &["w.yaml:5:20: `pm2` is not one of", "restart, reset"]);
    rejected(&one("tcp: h:1\npm2: a\nrestart: {pm2: reset, run: x}"), &["w.yaml:5:20: `pm2` is set next to `run`"]);
    rejected(&one("tcp: h:1\npm2: a\nrestart: {timeout: 1s}"), &["w.yaml:5:14: `restart` has neither `run` nor `pm2`"]);
    rejected(
        &one("tcp: h:1\npm2: a\nrestart: [{pm2: reset}, x y, {pm2: reset}]"),
        &["w.yaml:5:14: `restart` resets PM2 twice"],
    );
}

#[test]
fn a_process_belongs_to_one_target() {
    rejected(
        "targets: [{pm2: a}, {name: b, pm2: {process: a}, tcp: 'h:1'}]",
        &["w.yaml:1:46: `process` is already the process of `a`"],
    );
    rejected("targets: [{pm2: a}, {pm2: a}]", &["w.yaml:1:27: `pm2` is already used by targets[0]"]);
    rejected("targets: [{pm2: a}, {name: a, tcp: 'h:1'}]", &["w.yaml:1:28: `name` is already used by targets[0]"]);
    accepted("targets: [{pm2: a}, {name: b, tcp: 'h:1', depends_on: [a]}]");
}
