//! Calling `pm2`: what it is given, what its answers mean, and what a restart comes to.

use super::*;
use crate::command::CommandResult;
use crate::outcome::{Exit, PriorEvidence};
use crate::testing::{is_alone, run_alone};

impl Place {
    pub(super) fn managed(&self, config: Option<&str>) -> Managed {
        let env = config.map(|_| "production".to_owned());
        Managed { process: "sav".into(), config: config.map(|name| self.at(name)), env, port: None }
    }

    /// Inspects, plans and carries out, as a rung does; `text` is what pm2 does beside giving the list in `list`.
    fn repair(&self, text: &str, config: Option<&str>, timeout: Duration) -> Result<CommandResult, String> {
        let caller =
            Caller { timeout, ..self.pm2(&format!("test \"$1\" != jlist || {{ cat list; exit 0; }}\n{text}")) };
        let (managed, say) = (self.managed(config), |line: &str| self.say(line));
        let steps = plan(&managed, &inspect(&self.home, &caller, &managed, PriorEvidence::default()).facts)?;
        let (output, mut on_start) = (self.output(), |_| {});
        let mut calls = Calls {
            home: &self.home,
            caller: &caller,
            managed: &managed,
            say: &say,
            output: &output,
            on_start: &mut on_start,
        };
        Ok(calls.carry_out(&steps))
    }
}

#[test]
fn pm2_gets_the_environment_without_what_is_ours_or_pm2s() {
    if !is_alone() {
        let given = ["WATCHDOG_TARGET=t", "NOTIFY_SOCKET=/n", "PM2_HOME=/elsewhere", "KEPT=yes", "name=mine"];
        let test = "pm2::tests::calls::pm2_gets_the_environment_without_what_is_ours_or_pm2s";
        run_alone(test, &[&["env"], &given[..]].concat());
        let under = ["pm_id=3", "pm_cwd=/", "PM2_USAGE=CLI", "axm_x=1", "NODE_CHANNEL_FD=3", "NODE_APP_INSTANCE=0"];
        run_alone(test, &[&["env"], &given[..], &under[..]].concat());
        return;
    }
    let place = Place::new();
    let mut caller = place.pm2("env >env");
    caller.env.extend([("WATCHDOG_RUNG", "1"), ("PM2_HOME", "/no"), ("SET", "set")].map(|(a, b)| (a.into(), b.into())));
    let mut told = None;
    let ended = caller.call(&["restart", "sav"], &place.output(), &mut |process| told = Some(process));
    assert_eq!(ended.exit, Exit::Exited(0));
    assert!(told.is_some_and(|process| process.started > 0));
    assert_eq!(place.calls(), "restart sav");
    let env = fs::read_to_string(place.at("env")).unwrap();
    let found = |name: &str| env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert!(!env.contains("WATCHDOG_") && !env.contains("NOTIFY_SOCKET"), "{env}");
    assert_eq!(found("PM2_HOME"), Some(place.path()));
    assert_eq!((found("KEPT"), found("SET")), (Some("yes"), Some("set")));
    let is_under_pm2 = std::env::var_os("pm_id").is_some();
    assert_eq!(found("name"), (!is_under_pm2).then_some("mine"));
    for name in ["pm_id", "pm_cwd", "PM2_USAGE", "axm_x", "NODE_CHANNEL_FD", "NODE_APP_INSTANCE"] {
        assert_eq!(found(name), None);
    }
}

#[test]
fn without_pm2_or_node_nothing_is_run() {
    let place = Place::new();
    let mut caller = place.pm2("");
    caller.env = vec![("PATH".into(), place.folder.path().display().to_string())];
    let started = |caller: &Caller| {
        let ended = caller.call(&["resurrect"], &place.output(), &mut |_| panic!("something was started"));
        match ended.exit {
            Exit::NotStarted(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    fs::write(place.at("pm2"), "#!/usr/bin/env node\n").unwrap();
    let path_var = format!("(PATH={})", place.folder.path().display());
    let no_node = format!("pm2 needs node: command not found: node {path_var}");
    assert_eq!(started(&caller), no_node);
    assert_eq!(caller.list(), Listing::Failed(no_node));
    fs::remove_file(place.at("pm2")).unwrap();
    assert_eq!(started(&caller), format!("command not found: pm2 {path_var}"));
    caller.folder = place.at("missing");
    caller.env = place.pm2("").env;
    assert!(started(&caller).starts_with("no such folder: "));
}

#[test]
fn the_list_is_asked_for_and_understood_or_not() {
    #[track_caller]
    fn check(text: &str, expected: Result<usize, &str>) {
        let place = Place::new();
        match (place.pm2(text).list(), expected) {
            (Listing::Apps(apps), Ok(count)) => assert_eq!(apps.len(), count, "{text}"),
            (Listing::Failed(reason), Err(expected)) => assert!(reason.starts_with(expected), "{text}: {reason}"),
            (other, _) => panic!("{text}: {other:?}"),
        }
        assert_eq!(place.calls(), "jlist -s");
    }
    check("echo '[PM2] hello'; echo '[]'", Ok(0));
    check("echo hello >&2; echo '[{\"name\":\"a\"},{\"name\":\"b\"}]'", Ok(2));
    check("echo '[]'; exit 3", Err("pm2 jlist exited with 3"));
    check("kill -9 $$", Err("pm2 jlist was killed by signal 9"));
    check("echo no list", Err("pm2 jlist printed no list (8 bytes in "));
    check("exit 127", Err("exit code 127"));
    // More than is kept of other outputs, and more than is kept of a list.
    let long = |count: u32| {
        format!("printf '[{{\"name\":\"a\",\"x\":\"'; head -c {count} /dev/zero | tr '\\0' x; echo '\"}}]'")
    };
    check(&long(3_000_000), Ok(1));
    check(&long(17_000_000), Err("pm2 jlist printed no list"));
}

#[test]
fn pm2_that_gives_no_list_in_ten_seconds_is_silent() {
    let place = Place::new();
    assert_eq!(place.pm2("sleep 600").list(), Listing::Silent);
}

#[test]
fn a_caller_shows_no_environment() {
    let place = Place::new();
    let mut caller = place.pm2("");
    caller.env.push(("TOKEN".into(), "s3cret".into()));
    assert!(!format!("{caller:?}").contains("s3cret"));
}

#[test]
fn a_repair_goes_by_the_list_and_believes_no_exit_code() {
    #[track_caller]
    fn check(list: Option<&str>, saved: &str, config: Option<&str>, text: &str, expected: &str, ending: Exit) {
        let place = Place::new();
        if let Some(list) = list {
            fs::write(place.at("list"), list).unwrap();
            place.listen(true);
            place.daemon("");
        }
        fs::write(place.home.path().join("dump.pm2"), saved).unwrap();
        fs::create_dir(place.at("app")).unwrap();
        let ended = place.repair(text, config, AMPLE).unwrap_or_else(|why| panic!("{why}"));
        let calls = place.calls().replace("jlist -s, ", "").replace(", jlist -s", "");
        assert_eq!((calls.as_str(), ended.exit), (expected, ending), "{text}");
        let where_it_ran = fs::read_to_string(place.at("folder")).unwrap_or_default();
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
    // What is in no list afterwards was not started, whatever the exit code.
    check(Some(other), sav, None, "", "resurrect", Exit::Exited(1));
    check(Some(other), sav, Some("app/eco.js"), here, &format!("resurrect, {file}"), Exit::Exited(1));
    check(Some(other), "[]", Some("app/eco.js"), "", file, Exit::Exited(1));
    check(Some(other), sav, None, "test \"$1\" != resurrect || cp home/dump.pm2 list", "resurrect", Exit::Exited(0));
    check(None, sav, None, "exit 3", "resurrect", Exit::Exited(3));
    check(None, sav, None, "kill -9 $$", "resurrect", Exit::Killed(9));
    let words = "exit code 127 (shell: command not found)".to_owned();
    check(None, sav, None, "exit 127", "resurrect", Exit::NotStarted(words));
}

#[test]
fn a_restart_that_leaves_the_process_as_it_was_has_failed() {
    let place = Place::new();
    place.listen(true);
    place.daemon("pm_id=3 name=sav sleep 601 & echo $! >child");
    let child = place.noted("child");
    fs::write(place.home.path().join("pids/sav-3.pid"), child.pid.to_string()).unwrap();
    fs::write(place.at("list"), r#"[{"name":"sav","pm_id":3}]"#).unwrap();
    let ended = place.repair("", None, AMPLE).unwrap();
    assert_eq!(ended.exit, Exit::Exited(1));
    let said = place.said.lock().unwrap().join("\n");
    assert!(said.contains(&format!("pm2 exited 0, but sav still has pid {}: it did nothing", child.pid)), "{said}");
    assert_eq!(place.repair(&format!("kill -9 {}", child.pid), None, AMPLE).unwrap().exit, Exit::Exited(0));
}

#[test]
fn what_pm2_would_not_start_again_shows_it_in_its_environment() {
    let json = r#"{"name":"sav","pm_id":3,"stop_exit_codes":[0]}"#;
    for (variables, expected) in [
        ("pm_id=3 name=sav autorestart=true".to_owned(), false),
        ("pm_id=3 name=sav autorestart=false".to_owned(), true),
        (format!("pm2_env='{json}'"), true),
        (format!("pm2_env='{}'", json.replace("[0]", "[]")), false),
    ] {
        let place = Place::new();
        place.listen(true);
        place.daemon(&format!("{variables} sleep 601 & echo $! >child"));
        let child = place.noted("child");
        eventually(|| !place.home.marks(child.pid).is_empty());
        let found = inspect(&place.home, &place.pm2("echo '[]'"), &place.managed(None), PriorEvidence::default());
        assert_eq!(found.facts.may_stay_ended, expected, "{variables}");
    }
}

#[test]
fn what_outlived_its_daemon_is_not_resurrected_beside_it() {
    let place = Place::new();
    let saved = r#"[{"name":"sav"},{"name":"mailer","pm_id":1}]"#;
    fs::write(place.home.path().join("dump.pm2"), saved).unwrap();
    let mailer = place.app("mailer", "1");
    fs::write(place.home.path().join("pids/mailer-1.pid"), mailer.pid.to_string()).unwrap();
    let shows = "test \"$1\" != resurrect || cat \"$PM2_DUMP_FILE_PATH\" >resurrected; env >env-of-$1";
    place.repair(shows, None, AMPLE).unwrap();
    assert!(place.calls().starts_with("ping, resurrect"), "{}", place.calls());
    assert_eq!(fs::read_to_string(place.at("resurrected")).unwrap(), r#"[{"name":"sav"}]"#);
    let of_daemon = fs::read_to_string(place.at("env-of-ping")).unwrap();
    assert!(!of_daemon.contains("PM2_DUMP_FILE_PATH"), "the daemon keeps what it is started with");
    assert!(process::is_alive(mailer));
}

#[test]
fn each_call_of_a_repair_has_its_time() {
    let place = Place::new();
    fs::write(place.home.path().join("dump.pm2"), r#"[{"name":"sav"}]"#).unwrap();
    fs::create_dir(place.at("app")).unwrap();
    let ended = place.repair("sleep 600", Some("app/eco.js"), Duration::from_millis(1_500)).unwrap();
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.duration >= Duration::from_secs(3), "{:?}", ended.duration);
    assert_eq!(place.calls(), "resurrect, start /app/eco.js --only sav --env production");
}
