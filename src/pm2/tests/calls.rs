//! Calling `pm2`: what it is given, what its answers mean, and what a restart comes to.

use super::*;
use crate::command::Ended;
use crate::outcome::Ending;
use crate::testing::{is_alone, run_alone};

impl Place {
    pub(super) fn managed(&self, config: Option<&str>, port: Option<u16>) -> Managed {
        Managed { process: "sav".into(), config: config.map(|name| self.at(name)), port }
    }

    fn restart(&self, text: &str, config: Option<&str>) -> Ended {
        let caller = self.pm2(text);
        restart(&self.home, &caller, &self.managed(config, None), &self.output(), &mut |_| {})
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
    assert_eq!(ended.ending, Ending::Exited(0));
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
        let managed = place.managed(None, None);
        let ended = restart(&place.home, caller, &managed, &place.output(), &mut |_| panic!("something was started"));
        match ended.ending {
            Ending::NotStarted(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    fs::write(place.at("pm2"), "#!/usr/bin/env node\n").unwrap();
    assert_eq!(started(&caller), "pm2 needs node: no such file: node is nowhere in PATH");
    assert_eq!(caller.list(), Listing::Failed("pm2 needs node: no such file: node is nowhere in PATH".into()));
    assert_eq!(
        weigh(&place.home, &caller, &place.managed(None, None)),
        Err("pm2 needs node: no such file: node is nowhere in PATH".into())
    );
    fs::remove_file(place.at("pm2")).unwrap();
    assert_eq!(started(&caller), "no such file: pm2 is nowhere in PATH");
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
fn a_restart_resurrects_first_or_when_the_name_is_unknown() {
    #[track_caller]
    fn check(daemon: bool, config: Option<&str>, text: &str, expected: &str, ending: Ending) {
        let place = Place::new();
        if daemon {
            place.listen(true);
        }
        let ended = place.restart(text, config);
        assert_eq!((place.calls().as_str(), ended.ending), (expected, ending), "{text}");
    }
    let unknown = "test \"$1\" != restart -o -e known || exit 1\ntest \"$1\" != resurrect || touch known";
    check(true, None, "", "restart sav", Ending::Exited(0));
    check(true, Some("eco.config.js"), "", "restart /eco.config.js --only sav", Ending::Exited(0));
    check(false, None, "", "resurrect, restart sav", Ending::Exited(0));
    check(false, Some("eco.json"), "", "resurrect, restart /eco.json --only sav", Ending::Exited(0));
    check(true, None, unknown, "restart sav, resurrect, restart sav", Ending::Exited(0));
    check(false, None, unknown, "resurrect, restart sav", Ending::Exited(0));
    check(true, None, "exit 3", "restart sav, resurrect, restart sav", Ending::Exited(3));
    check(false, None, "exit 3", "resurrect, restart sav", Ending::Exited(3));
    check(true, None, "kill -9 $$", "restart sav", Ending::Killed(9));
    let words = "exit code 127, a shell's word for command not found".to_owned();
    check(false, None, "exit 127", "resurrect", Ending::NotStarted(words));
}

#[test]
fn each_call_of_a_restart_has_its_time_and_is_told_of() {
    let place = Place::new();
    let caller = Caller { timeout: Duration::from_millis(1_500), ..place.pm2("sleep 600") };
    let mut told = Vec::new();
    let managed = place.managed(None, None);
    let ended = restart(&place.home, &caller, &managed, &place.output(), &mut |process| told.push(process));
    assert_eq!(ended.ending, Ending::TimedOut);
    assert!(ended.took >= Duration::from_secs(3), "{:?}", ended.took);
    assert_eq!(place.calls(), "resurrect, restart sav");
    assert_eq!(told.len(), 2);
    assert!(!told.into_iter().any(process::is_alive));
}
