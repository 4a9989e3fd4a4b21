//! Calls of `pm2`: its environment, the parsing of its output, and the results of repairs.

use super::*;
use crate::command::CommandResult;
use crate::outcome::{Exit, PriorEvidence};
use crate::testing::{is_alone, run_alone};

impl Pm2Fixture {
    pub(super) fn managed(&self, config: Option<&str>) -> ManagedProcess {
        let env = config.map(|_| "production".to_owned());
        ManagedProcess { process: "sav".into(), config: config.map(|name| self.file(name)), env, ports: Vec::new() }
    }

    /// Inspects, plans and executes, as a rung does. `pm2 jlist` prints the file `list`; every other call runs
    /// `script`.
    fn repair(&self, script: &str, config: Option<&str>, timeout: Duration) -> Result<CommandResult, String> {
        let caller = Caller {
            timeout,
            ..self.install_pm2(&format!("test \"$1\" != jlist || {{ cat list; exit 0; }}\n{script}"))
        };
        let (managed, say) = (self.managed(config), |line: &str| self.log_line(line));
        let steps = plan_repair(&managed, &inspect(&self.home, &caller, &managed, PriorEvidence::default()).facts)?;
        let (output, mut on_start) = (self.output(), |_| {});
        let mut calls = RepairContext {
            home: &self.home,
            caller: &caller,
            managed: &managed,
            log_line: &say,
            output: &output,
            on_start: &mut on_start,
        };
        Ok(calls.execute(&steps))
    }
}

#[test]
fn pm2_gets_the_environment_without_variables_of_the_watchdog_or_pm2() {
    if !is_alone() {
        let given = ["WATCHDOG_TARGET=t", "NOTIFY_SOCKET=/n", "PM2_HOME=/elsewhere", "KEPT=yes", "name=mine"];
        let test = "pm2::tests::calls::pm2_gets_the_environment_without_variables_of_the_watchdog_or_pm2";
        run_alone(test, &[&["env"], &given[..]].concat());
        let under = ["pm_id=3", "pm_cwd=/", "PM2_USAGE=CLI", "axm_x=1", "NODE_CHANNEL_FD=3", "NODE_APP_INSTANCE=0"];
        run_alone(test, &[&["env"], &given[..], &under[..]].concat());
        return;
    }
    let fixture = Pm2Fixture::new();
    let mut caller = fixture.install_pm2("env >env");
    caller.env.extend([("WATCHDOG_RUNG", "1"), ("PM2_HOME", "/no"), ("SET", "set")].map(|(a, b)| (a.into(), b.into())));
    let mut started = None;
    let result = caller.call(&["restart", "sav"], &fixture.output(), &mut |process| started = Some(process));
    assert_eq!(result.exit, Exit::Exited(0));
    assert!(started.is_some_and(|process| process.started > 0));
    assert_eq!(fixture.calls(), "restart sav");
    let env = fs::read_to_string(fixture.file("env")).unwrap();
    let found = |name: &str| env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert!(!env.contains("WATCHDOG_") && !env.contains("NOTIFY_SOCKET"), "{env}");
    assert_eq!(found("PM2_HOME"), Some(fixture.home_path()));
    assert_eq!((found("KEPT"), found("SET")), (Some("yes"), Some("set")));
    let is_under_pm2 = std::env::var_os("pm_id").is_some();
    assert_eq!(found("name"), (!is_under_pm2).then_some("mine"));
    for name in ["pm_id", "pm_cwd", "PM2_USAGE", "axm_x", "NODE_CHANNEL_FD", "NODE_APP_INSTANCE"] {
        assert_eq!(found(name), None);
    }
}

#[test]
fn nothing_is_run_without_pm2_or_node() {
    let fixture = Pm2Fixture::new();
    let mut caller = fixture.install_pm2("");
    caller.env = vec![("PATH".into(), fixture.folder.path().display().to_string())];
    let error_of = |caller: &Caller| {
        let result = caller.call(&["resurrect"], &fixture.output(), &mut |_| panic!("a process was started"));
        match result.exit {
            Exit::NotStarted(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    fs::write(fixture.file("pm2"), "#!/usr/bin/env node\n").unwrap();
    let without_node = caller.find_program().unwrap_err();
    assert!(without_node.contains("pm2") && without_node.contains("node"), "{without_node}");
    assert_eq!(error_of(&caller), without_node);
    assert_eq!(caller.list(), Listing::Failed(without_node));
    fs::remove_file(fixture.file("pm2")).unwrap();
    let without_pm2 = error_of(&caller);
    assert!(without_pm2.contains("pm2") && !without_pm2.contains("node"), "{without_pm2}");
    caller.folder = fixture.file("missing");
    caller.env = fixture.install_pm2("").env;
    assert!(error_of(&caller).contains("/missing"), "{}", error_of(&caller));
}

#[test]
fn the_list_is_requested_and_parsed_or_fails_with_a_reason() {
    #[track_caller]
    fn check(text: &str, expected: Result<usize, &str>) {
        let fixture = Pm2Fixture::new();
        match (fixture.install_pm2(text).list(), expected) {
            (Listing::Apps(apps), Ok(count)) => assert_eq!(apps.len(), count, "{text}"),
            (Listing::Failed(reason), Err(expected)) => assert!(reason.starts_with(expected), "{text}: {reason}"),
            (other, _) => panic!("{text}: {other:?}"),
        }
        assert_eq!(fixture.calls(), "jlist -s");
    }
    check("echo '[PM2] hello'; echo '[]'", Ok(0));
    check("echo hello >&2; echo '[{\"name\":\"a\"},{\"name\":\"b\"}]'", Ok(2));
    check("echo '[]'; exit 3", Err("pm2 jlist exited with 3"));
    check("kill -9 $$", Err("pm2 jlist was killed by signal 9"));
    check("echo no list", Err("pm2 jlist printed no list (8 bytes in "));
    check("exit 127", Err("exit code 127"));
    // The first is longer than the limit for other outputs, the second longer than the limit for a list.
    let long = |count: u32| {
        format!("printf '[{{\"name\":\"a\",\"x\":\"'; head -c {count} /dev/zero | tr '\\0' x; echo '\"}}]'")
    };
    check(&long(3_000_000), Ok(1));
    check(&long(17_000_000), Err("pm2 jlist printed no list"));
}

#[cfg(feature = "full-tests")]
#[test]
fn pm2_without_a_list_after_ten_seconds_is_silent() {
    let fixture = Pm2Fixture::new();
    assert_eq!(fixture.install_pm2("sleep 600").list(), Listing::Silent);
}

#[test]
fn a_caller_shows_no_environment() {
    let fixture = Pm2Fixture::new();
    let mut caller = fixture.install_pm2("");
    caller.env.push(("TOKEN".into(), "s3cret".into()));
    assert!(!format!("{caller:?}").contains("s3cret"));
}

#[test]
fn a_repair_follows_the_list_and_trusts_no_exit_code() {
    #[track_caller]
    fn check(list: Option<&str>, saved: &str, config: Option<&str>, text: &str, expected: &str, ending: Exit) {
        let fixture = Pm2Fixture::new();
        if let Some(list) = list {
            fs::write(fixture.file("list"), list).unwrap();
            fixture.listen(true);
            fixture.start_daemon("");
        }
        fs::write(fixture.home.path().join("dump.pm2"), saved).unwrap();
        fs::create_dir(fixture.file("app")).unwrap();
        let result = fixture.repair(text, config, TEST_TIMEOUT).unwrap_or_else(|why| panic!("{why}"));
        let calls = fixture.calls().replace("jlist -s, ", "").replace(", jlist -s", "");
        // The wording of the reason belongs to the module `command`.
        let exit = if let Exit::NotStarted(_) = result.exit { Exit::NotStarted(String::new()) } else { result.exit };
        assert_eq!((calls.as_str(), exit), (expected, ending), "{text}");
        let where_it_ran = fs::read_to_string(fixture.file("folder")).unwrap_or_default();
        assert!(config.is_none() || where_it_ran.is_empty() || where_it_ran.trim().ends_with("/app"), "{where_it_ran}");
    }
    let (sav, other) = (r#"[{"name":"x","pm_id":1},{"name":"sav","pm_id":3}]"#, r#"[{"name":"x","pm_id":1}]"#);
    let file = "start /app/eco.js --only sav --env production";
    let here = "test \"$1\" != start || echo \"$OLDPWD\" >folder";
    check(Some(sav), "[]", None, "", "restart 3", Exit::Exited(0));
    check(Some(sav), "[]", Some("app/eco.js"), "", "restart 3", Exit::Exited(0));
    let refuses = "test \"$1\" != restart || exit 1";
    check(Some(sav), "[]", None, refuses, "restart 3", Exit::Exited(1));
    check(Some(sav), "[]", Some("app/eco.js"), refuses, &format!("restart 3, {file}"), Exit::Exited(0));
    // A process that is not in the list afterwards was not started, whatever the exit code.
    check(Some(other), sav, None, "", "resurrect", Exit::Exited(1));
    check(Some(other), sav, Some("app/eco.js"), here, &format!("resurrect, {file}"), Exit::Exited(1));
    check(Some(other), "[]", Some("app/eco.js"), "", file, Exit::Exited(1));
    check(Some(other), sav, None, "test \"$1\" != resurrect || cp home/dump.pm2 list", "resurrect", Exit::Exited(0));
    check(None, sav, None, "exit 3", "resurrect", Exit::Exited(3));
    check(None, sav, None, "kill -9 $$", "resurrect", Exit::Killed(9));
    // A shell exits with 127 if it does not find the command.
    check(None, sav, None, "exit 127", "resurrect", Exit::NotStarted(String::new()));
}

#[test]
fn a_restart_that_leaves_the_process_as_it_was_has_failed() {
    let fixture = Pm2Fixture::new();
    fixture.listen(true);
    fixture.start_daemon("pm_id=3 name=sav sleep 601 & echo $! >child");
    let child = fixture.process_in_file("child");
    fs::write(fixture.home.path().join("pids/sav-3.pid"), child.pid.to_string()).unwrap();
    fs::write(fixture.file("list"), r#"[{"name":"sav","pm_id":3}]"#).unwrap();
    let result = fixture.repair("", None, TEST_TIMEOUT).unwrap();
    assert_eq!(result.exit, Exit::Exited(1));
    let log = fixture.log.lock().unwrap().join("\n");
    assert!(log.contains(&format!("pm2 exited 0 without effect: sav still has pid {}", child.pid)), "{log}");
    assert_eq!(fixture.repair(&format!("kill -9 {}", child.pid), None, TEST_TIMEOUT).unwrap().exit, Exit::Exited(0));
}

#[test]
fn the_environment_shows_whether_pm2_may_leave_a_process_stopped() {
    let json = r#"{"name":"sav","pm_id":3,"stop_exit_codes":[0]}"#;
    for (variables, expected) in [
        ("pm_id=3 name=sav autorestart=true".to_owned(), false),
        ("pm_id=3 name=sav autorestart=false".to_owned(), true),
        (format!("pm2_env='{json}'"), true),
        (format!("pm2_env='{}'", json.replace("[0]", "[]")), false),
    ] {
        let fixture = Pm2Fixture::new();
        fixture.listen(true);
        fixture.start_daemon(&format!("{variables} sleep 601 & echo $! >child"));
        let child = fixture.process_in_file("child");
        eventually(|| !fixture.home.read_marks(child.pid).is_empty());
        let found =
            inspect(&fixture.home, &fixture.install_pm2("echo '[]'"), &fixture.managed(None), PriorEvidence::default());
        assert_eq!(found.facts.may_stay_stopped, expected, "{variables}");
    }
}

#[test]
fn a_survivor_of_its_daemon_is_not_resurrected_a_second_time() {
    let fixture = Pm2Fixture::new();
    let saved = r#"[{"name":"sav"},{"name":"mailer","pm_id":1}]"#;
    fs::write(fixture.home.path().join("dump.pm2"), saved).unwrap();
    let mailer = fixture.start_app("mailer", "1");
    fs::write(fixture.home.path().join("pids/mailer-1.pid"), mailer.pid.to_string()).unwrap();
    let shows = "test \"$1\" != resurrect || cat \"$PM2_DUMP_FILE_PATH\" >resurrected; env >env-of-$1";
    fixture.repair(shows, None, TEST_TIMEOUT).unwrap();
    assert!(fixture.calls().starts_with("ping, resurrect"), "{}", fixture.calls());
    assert_eq!(fs::read_to_string(fixture.file("resurrected")).unwrap(), r#"[{"name":"sav"}]"#);
    let of_daemon = fs::read_to_string(fixture.file("env-of-ping")).unwrap();
    assert!(!of_daemon.contains("PM2_DUMP_FILE_PATH"), "the daemon would keep it");
    assert!(process::is_alive(mailer));
}

#[test]
fn each_call_of_a_repair_has_its_own_time_limit() {
    let fixture = Pm2Fixture::new();
    fs::write(fixture.home.path().join("dump.pm2"), r#"[{"name":"sav"}]"#).unwrap();
    fs::create_dir(fixture.file("app")).unwrap();
    let result = fixture.repair("sleep 600", Some("app/eco.js"), Duration::from_millis(1_500)).unwrap();
    assert_eq!(result.exit, Exit::TimedOut);
    assert!(result.duration >= Duration::from_secs(3), "{:?}", result.duration);
    assert_eq!(fixture.calls(), "resurrect, start /app/eco.js --only sav --env production");
}
