//! PM2 beside a target: what is understood, what follows from it, what is refused.

use super::*;
use crate::policy::Precondition;

/// The ladder as people read it, and whether each rung may take the usual minute.
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
fn the_least_that_the_contract_shows_is_enough() {
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
    // Alone it is the probe.
    let alone = first("pm2: sav-backend");
    assert_eq!(alone.probe, Probe::Pm2(pm2));
    assert_eq!(alone.name, "sav-backend");
}

#[test]
fn everything_that_can_be_said_of_it_is_understood() {
    let target = first(
        "name: api\npm2: {process: sav backend, home: run/pm2, reset: true}\ntcp: localhost:5000\nonly_if: 'true'",
    );
    assert_eq!(ladder(&target)[0], "pm2 restart sav backend");
    assert!(ladder(&target)[1].starts_with("reset PM2 in /") && ladder(&target)[1].ends_with("/run/pm2"));
    assert_eq!((target.limits.rungs, target.limits.reset), (2, Some(1)));
    assert_eq!(target.limits.preconditions, [Precondition::Stopped, Precondition::OnlyIf]);
    let target = first("pm2: {process: a, config: /app/ecosystem.config.js}");
    assert_eq!(ladder(&target), ["pm2 restart a"]);
    // A ladder that is written stands as it is, whatever `reset` says.
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
fn a_port_is_this_machines_only_where_the_probe_says_so() {
    #[track_caller]
    fn check(probe: &str, expected: Option<u16>) {
        assert_eq!(first(&format!("pm2: a\n{probe}")).probe.local_port(), expected, "{probe}");
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
fn what_pm2_would_take_for_something_else_is_refused() {
    #[track_caller]
    fn check(process: &str, expected: &str) {
        refused(&format!("targets: [{{name: a, pm2: {process}}}]"), &["w.yaml:1:", expected]);
    }
    check("all", "means every process");
    check("'0'", "is an id to pm2");
    check("/a/", "is a pattern");
    check("a/b", "no process of PM2 can be asked for by");
    check("-a", "take it for an option");
    check("{process: 'a,b', config: e.js}", "a comma or a space");
    check("{process: 'a b', config: e.js}", "a comma or a space");
    check("''", "is empty");
    check("7", "must be text");
    accepted("targets: [{name: a, pm2: {process: '0', config: e.js}}]");
    refused("targets: [{pm2: a b}]", &["w.yaml:1:17: `pm2` cannot be the target's name too", "write a `name`"]);
    refused("targets: [{pm2: {home: /p}}]", &["w.yaml:1:17: `pm2` has no `process`"]);
    refused("targets: [{pm2: {process: a, hoem: /p}}]", &["w.yaml:1:30: unknown key `hoem`", "`home`?"]);
    let long = "x".repeat(99);
    refused(
        &format!("targets: [{{pm2: {{process: a, home: /{long}}}}}]"),
        &["w.yaml:1:36: `home` is too long", "at most 98 bytes"],
    );
    accepted(&format!("targets: [{{pm2: {{process: a, home: /{}}}}}]", "x".repeat(97)));
}

#[test]
fn of_several_with_one_home_the_first_tells_what_is_wrong_with_it() {
    let text = "targets: [{pm2: a}, {pm2: b}, {pm2: {process: c, home: /x}}, {name: d, tcp: 'h:1'}]";
    let told: Vec<bool> = accepted(text).targets.iter().map(|target| target.limits.reports_pm2).collect();
    assert_eq!(told, [true, false, true, true]);
}

#[test]
fn the_block_of_variables_is_named_as_pm2_wants_it() {
    let of = |env: &str| format!("targets: [{{pm2: {{process: a, config: eco.js, env: {env}}}}}]");
    let read = |env: &str| accepted(&of(env)).targets[0].pm2.as_ref().and_then(|pm2| pm2.env.clone());
    assert_eq!(read("production").as_deref(), Some("production"));
    assert_eq!(read("env_production").as_deref(), Some("production"));
    for env in ["'a b'", "-x"] {
        refused(&of(env), &["w.yaml:1:51: `env` is no name of a block of variables"]);
    }
}

#[test]
fn ladders_with_pm2_make_sense() {
    refused(&one("tcp: h:1\nrestart: {pm2: restart}"), &["w.yaml:4:20: `pm2` needs to know the process"]);
    refused(&one("tcp: h:1\npm2: a\nrestart: {pm2: reboot}"), &["w.yaml:5:20: `pm2` is none of", "restart, reset"]);
    refused(&one("tcp: h:1\npm2: a\nrestart: {pm2: reset, run: x}"), &["w.yaml:5:20: `pm2` stands beside `run`"]);
    refused(&one("tcp: h:1\npm2: a\nrestart: {timeout: 1s}"), &["w.yaml:5:14: `restart` has neither `run` nor `pm2`"]);
    refused(
        &one("tcp: h:1\npm2: a\nrestart: [{pm2: reset}, x y, {pm2: reset}]"),
        &["w.yaml:5:14: `restart` resets PM2 twice"],
    );
}

#[test]
fn a_process_has_one_target() {
    refused(
        "targets: [{pm2: a}, {name: b, pm2: {process: a}, tcp: 'h:1'}]",
        &["w.yaml:1:46: `process` is the process of `a` already"],
    );
    refused("targets: [{pm2: a}, {pm2: a}]", &["w.yaml:1:27: `pm2` is what targets[0] is called"]);
    refused("targets: [{pm2: a}, {name: a, tcp: 'h:1'}]", &["w.yaml:1:28: `name` is what targets[0] is called"]);
    accepted("targets: [{pm2: a}, {name: b, tcp: 'h:1', depends_on: [a]}]");
}
