//! A daemon that runs but cannot be reached: its sockets were deleted by a cleaner of old files, or belong to another
//! account. No pm2 command is run then, because each would start a second daemon and a second copy of everything saved.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::{CommandOutput, MISSING_PROGRAM, free_port, is_alive, require};

/// A worker that serves no requests.
const WORKER: &str = "require('fs').appendFileSync('works', `${process.pid}\\n`);\nsetInterval(() => {}, 1000000);\n";

struct ThreeApps {
    fixture: Fixture,
    site: u16,
}

impl ThreeApps {
    fn start() -> ThreeApps {
        let (fixture, site) = (Fixture::new(""), free_port());
        fixture.sandbox.write("app/mailer.js", WORKER);
        fixture.write_ecosystem(&format!(
            "{{name: 'sav-backend', script: 'backend.js', env: {{PORT: PORT_HERE}}}}, {{name: 'site', script: \
             'backend.js', env: {{PORT: {site}}}}}, {{name: 'mailer', script: 'mailer.js'}}"
        ));
        fixture.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
        fixture.pm2(&["save"]);
        fixture.eventually("both processes are healthy", || fixture.pid().is_some() && fixture.pid_at(site).is_some());
        fixture.run_init();
        ThreeApps { fixture, site }
    }

    /// The pids of the backend and the site, and of every mailer ever started.
    fn pids(&self) -> (Option<i32>, Option<i32>, Vec<String>) {
        (self.fixture.pid(), self.fixture.pid_at(self.site), self.fixture.sandbox.lines("app/works"))
    }

    /// `status` and `check` name the fix and claim nothing untrue.
    #[track_caller]
    fn check_advice(&self, daemon: i32) {
        for command in ["status", "check"] {
            let output = self.fixture.run_from_cron(&[command]);
            let resurrect = format!("PM2_HOME={} pm2 resurrect", self.fixture.home());
            let names_fix = output.out.contains(&format!("kill {daemon}, wait until it has exited, then {resurrect}"));
            let untrue = ["daemon is dead", "does not run", "runs no"].iter().any(|text| output.out.contains(text));
            self.fixture.sandbox.assert(names_fix && !untrue, &format!("{output:?}"));
        }
    }
}

#[test]
fn a_daemon_without_sockets_is_reported_and_no_second_one_is_started() {
    let apps = ThreeApps::start();
    let fixture = &apps.fixture;
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME, "site", "mailer"]);
    let (daemon, before) = (fixture.daemon_pid(), apps.pids());
    fixture.delete_sockets();
    fixture.eventually("the lost sockets are reported", || fixture.warning_count("pm2_deaf") >= 3);
    fixture.wait_for_probes(12);
    fixture.assert_untouched();
    assert_eq!((fixture.daemon_pids(), apps.pids()), (vec![daemon], before.clone()), "{}", fixture.sandbox.dump());
    assert_eq!(fixture.warning_count("pm2_deaf"), 3, "{}", fixture.sandbox.dump());
    apps.check_advice(daemon);
    // If one process freezes, it is killed, and its own daemon starts it again.
    let frozen = fixture.freeze("/block");
    fixture.eventually("the target is up again", || !fixture.sandbox.events("up").is_empty());
    fixture.wait_for_replacement(frozen);
    fixture.sandbox.assert(fixture.daemon_pids() == [daemon] && !is_alive(frozen), "the same daemon");
    let (_, site, mailers) = apps.pids();
    assert_eq!((site, mailers), (before.1, before.2), "{}", fixture.sandbox.dump());
}

/// An earlier rung has inspected PM2 already, but the command of the next rung is still checked.
#[test]
fn no_rung_of_a_ladder_starts_a_second_daemon() {
    let fixture = Fixture::saved("autorestart: false");
    let ladder = "restart: [{pm2: restart}, pm2 resurrect], start_period: 2s";
    let _watchdog = fixture.start_watchdog(&format!("{}, {ladder}", fixture.target_keys("")));
    let daemon = fixture.daemon_pid();
    fixture.delete_sockets();
    fixture.request("/exit?code=3");
    fixture.eventually("both rungs were tried", || fixture.sandbox.events("restart_done").len() >= 2);
    let done = fixture.sandbox.events("restart_done");
    fixture.sandbox.assert(done.iter().all(|done| done["outcome"] == "not_started"), "no command is run");
    assert_eq!((fixture.daemon_pids(), fixture.pid()), (vec![daemon], None), "{}", fixture.sandbox.dump());
}

/// Ticks, with all times at their defaults.
#[test]
fn ticks_start_no_second_daemon_if_the_sockets_are_lost() {
    let apps = ThreeApps::start();
    let fixture = &apps.fixture;
    let text = fixture.sandbox.read("watchdog.yaml");
    let defaults =
        text.lines().find(|line| line.starts_with("defaults:")).expect("the fixture adds a defaults line").to_owned();
    fixture.sandbox.write("watchdog.yaml", &text.replace(&defaults, ""));
    assert_eq!(fixture.run_from_cron(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    let (daemon, before) = (fixture.daemon_pid(), apps.pids());
    fixture.delete_sockets();
    for _ in 0..4 {
        assert_eq!(fixture.run_from_cron(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    }
    fixture.assert_untouched();
    assert_eq!((fixture.daemon_pids(), apps.pids()), (vec![daemon], before), "{}", fixture.sandbox.dump());
}

#[test]
fn a_reset_leaves_one_daemon_and_one_process() {
    let fixture = Fixture::saved("");
    fixture.run_init();
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    let daemon = fixture.daemon_pid();
    fixture.delete_sockets();
    let frozen = fixture.freeze("/block");
    let pid = fixture.wait_for_repair(frozen);
    fixture.sandbox.assert(!is_alive(daemon) && !is_alive(frozen), "the old processes are gone");
    assert_eq!(fixture.sandbox.events("restart")[0]["rung"], 2, "{}", fixture.sandbox.dump());
    fixture.wait_for_probes(6);
    assert_eq!((fixture.daemon_pids().len(), fixture.pid()), (1, Some(pid)), "{}", fixture.sandbox.dump());
    assert_eq!(fixture.sandbox.events("restart").len(), 1, "{}", fixture.sandbox.dump());
}

/// As after `sudo pm2`, seen from the account that owns the home.
#[test]
fn sockets_of_another_account_are_reported_and_nothing_is_run() {
    require(rustix::process::geteuid().is_root(), "root");
    const NOBODY: u32 = 65_534;
    let fixture = Fixture::saved("");
    fixture.configure(&format!("{}, restart: [{{pm2: restart}}]", fixture.target_keys("")));
    let own = |path: &std::path::Path| chown(path, Some(NOBODY), Some(NOBODY)).expect("root may change owners");
    own(std::path::Path::new(&fixture.home()));
    own(fixture.sandbox.home());
    own(&fixture.sandbox.path("watchdog.yaml"));
    let as_nobody = |args: &[&str]| {
        let starter = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command: Command = fixture.sandbox.command_through(&starter, args);
        CommandOutput::new(command.env("PATH", fixture.installed.path()).output().expect(MISSING_PROGRAM))
    };
    let fix = "its socket belongs to root, as after `sudo pm2`. Fix, as root: PM2_HOME=";
    let output = as_nobody(&["check"]);
    let untrue = ["does not run", "daemon is dead", "  dead,"].iter().any(|text| output.out.contains(text));
    fixture.sandbox.assert(output.code == Some(1) && output.out.contains(fix) && !untrue, &format!("{output:?}"));
    let output = as_nobody(&["init", "--stdout", "--pm2-home", &fixture.home()]);
    fixture.sandbox.assert(output.err.contains(fix), &format!("{output:?}"));

    let (daemon, pid) = (fixture.daemon_pid(), fixture.wait_until_healthy());
    assert_eq!(as_nobody(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    fixture.request("/degrade");
    fixture.eventually("the backend is unhealthy", || fixture.pid().is_none());
    for _ in 0..4 {
        as_nobody(&["--once"]);
    }
    let done = fixture.sandbox.events("restart_done");
    fixture
        .sandbox
        .assert(!done.is_empty() && done.iter().all(|done| done["outcome"] == "not_started"), "no command is run");
    let output = as_nobody(&["status"]);
    fixture.sandbox.assert(output.code == Some(1) && output.out.contains(fix), &format!("{output:?}"));
    assert_eq!((fixture.daemon_pids(), is_alive(pid)), (vec![daemon], true), "{}", fixture.sandbox.dump());
    fs::metadata(fixture.home()).expect("the home still exists");
}
