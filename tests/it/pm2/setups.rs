//! Setups from public reports: incomplete ecosystem files, variables that exist only in the process, ambiguous names. A
//! repair restores the same process with the same variables, and no other.

use serde_json::Value;

use super::fixture::{APP_NAME, Fixture};
use super::installation::Version;
use crate::sandbox::{free_port, is_alive};

impl Fixture {
    /// The backend's port and database, as it reports them.
    #[track_caller]
    fn variables(&self) -> (Value, Value) {
        self.wait_until_healthy();
        let health = self.health_at(self.port).expect("checked above");
        (health["port"].clone(), health["db"].clone())
    }

    /// Freezes the backend, then kills the daemon: each time one restart restores it with the same variables.
    #[track_caller]
    fn check_restored_unchanged(&self) {
        let before = self.variables();
        let frozen = self.freeze("/block");
        let pid = self.wait_for_repair_by_one_restart(frozen);
        assert_eq!(self.variables(), before, "{}", self.sandbox.dump());
        self.wait_until_known(pid);
        self.kill_daemon();
        self.eventually("the target is up again", || self.sandbox.events("up").len() == 2);
        self.wait_for_repair(pid);
        assert_eq!(self.variables(), before, "{}", self.sandbox.dump());
    }
}

const ECOSYSTEM_FILE: &str = "ecosystem.config.js";

/// A relative script without `cwd`: pm2 looks for it in the current folder.
#[test]
fn a_relative_script_is_found_without_a_saved_list() {
    let fixture = Fixture::new("");
    fixture.write_ecosystem("{name: 'sav-backend', script: './backend.js', env: {PORT: PORT_HERE, DB: 'mine'}}");
    fixture.pm2_in_app(&[], &["start", ECOSYSTEM_FILE]);
    let before = fixture.variables();
    fixture.run_init();
    fixture
        .sandbox
        .assert(fixture.sandbox.read("watchdog.yaml").contains("ecosystem.config.js"), "init uses the ecosystem file");
    let output = fixture.run_from_cron(&["check"]);
    fixture.sandbox.assert(output.code == Some(0) && output.out.contains("Ready."), &format!("{output:?}"));
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    let pid = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.wait_for_repair_by_one_restart(pid);
    assert_eq!(fixture.variables(), before, "{}", fixture.sandbox.dump());
    let run = fixture.sandbox.events("restart")[0]["run"].clone();
    fixture.sandbox.assert(run.as_str().is_some_and(|run| run.starts_with("pm2 start ")), &run.to_string());
}

/// Both environments have a port: with the wrong one the backend would start on a port that is not probed.
fn start_with_two_environments(fixture: &Fixture) {
    let other = free_port();
    fixture.write_ecosystem(&format!(
        "{{name: 'sav-backend', script: 'backend.js', env: {{NODE_ENV: 'development', DB: 'dev', PORT: {other}}}, \
         env_production: {{NODE_ENV: 'production', DB: 'prod', PORT: PORT_HERE}}}}"
    ));
    fixture.pm2_in_app(&[], &["start", ECOSYSTEM_FILE, "--env", "production"]);
    fixture.wait_until_healthy();
}

#[test]
fn a_production_backend_is_restored_in_production() {
    for version in [Version::Seven, Version::Five] {
        let fixture = Fixture::with(version, "");
        start_with_two_environments(&fixture);
        fixture.pm2(&["save"]);
        fixture.run_init();
        fixture
            .sandbox
            .assert(fixture.sandbox.read("watchdog.yaml").contains("env: production"), "init uses the environment");
        let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
        fixture.check_restored_unchanged();
        assert_eq!(fixture.variables().1, "prod", "{}", fixture.sandbox.dump());
    }
}

#[test]
fn an_unsaved_production_backend_is_restored_in_production() {
    let fixture = Fixture::new("");
    start_with_two_environments(&fixture);
    fixture.run_init();
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.wait_for_repair_by_one_restart(before);
    assert_eq!(fixture.variables().1, "prod", "{}", fixture.sandbox.dump());
    // Without that line another environment would be used, and check reports it.
    let text = fixture.sandbox.read("watchdog.yaml").replace("      env: production\n", "");
    fixture.sandbox.write("watchdog.yaml", &text);
    let output = fixture.run_from_cron(&["check"]);
    let problem = "sav-backend runs with env_production of ";
    fixture.sandbox.assert(output.code == Some(1) && output.out.contains(problem), &format!("{output:?}"));
}

/// The variables of the shell and the folder at its start are missing in cron.
#[test]
fn variables_from_the_shell_and_from_a_file_in_the_folder_are_kept() {
    let fixture = Fixture::new("");
    fixture.sandbox.write("app/.env", &format!("{}\n", fixture.port));
    fixture.write_ecosystem(
        "{name: 'sav-backend', script: 'backend.js', cwd: __dirname, env: {PORT: require('fs').existsSync('.env') ? \
         require('fs').readFileSync('.env', 'utf8').trim() : 1, DB: process.env.DATABASE || 'none'}}",
    );
    fixture.pm2_in_app(&[("DATABASE", "prod")], &["start", ECOSYSTEM_FILE]);
    fixture.pm2(&["save"]);
    fixture.run_init();
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    fixture.check_restored_unchanged();
    assert_eq!(fixture.variables().1, "prod", "{}", fixture.sandbox.dump());
}

#[test]
fn an_ecosystem_file_that_only_mentions_the_name_is_not_used() {
    let fixture = Fixture::new("");
    fixture.write_backend("web.js");
    fixture.write_ecosystem(
        "{name: 'web', namespace: 'sav-backend', script: 'web.js'}], deploy: [{x: 'pm2 reload --only sav-backend'}",
    );
    fixture.pm2_in_app(&[("PORT", &fixture.port.to_string())], &["start", "backend.js", "--name", APP_NAME]);
    fixture.wait_until_healthy();
    fixture.pm2(&["save"]);
    fixture.run_init();
    fixture.sandbox.assert(!fixture.sandbox.read("watchdog.yaml").contains("config:"), "init does not use the file");
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    fixture.check_restored_unchanged();
    // A hand-written configuration with that file is reported.
    fixture.configure(&fixture.target_keys(&fixture.config_key()));
    let output = fixture.run_from_cron(&["check"]);
    let problem = "ecosystem.config.js has no process sav-backend: pm2 start would start nothing";
    fixture.sandbox.assert(output.code == Some(1) && output.out.contains(problem), &format!("{output:?}"));
}

/// A namespace named like the process: `pm2 restart NAME` would restart everything in it.
#[test]
fn other_processes_in_a_namespace_of_the_same_name_are_left_alone() {
    let fixture = Fixture::new("");
    let (web, mailer) = (free_port(), free_port());
    fixture.write_ecosystem(&format!(
        "{{name: 'sav-backend', script: 'backend.js', env: {{PORT: PORT_HERE}}}}, {{name: 'web', namespace: \
         'sav-backend', script: 'backend.js', env: {{PORT: {web}}}}}, {{name: 'mailer', namespace: 'sav-backend', \
         script: 'backend.js', env: {{PORT: {mailer}}}}}"
    ));
    fixture.pm2_in_app(&[], &["start", ECOSYSTEM_FILE]);
    fixture.pm2(&["save"]);
    let others = || [web, mailer].map(|port| fixture.pid_at(port));
    fixture.eventually("all processes are healthy", || fixture.pid().is_some() && others().iter().all(Option::is_some));
    fixture.configure(&fixture.target_keys(""));
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    let (before, neighbours) = (fixture.freeze("/block"), others());
    fixture.eventually("the target is up again", || !fixture.sandbox.events("up").is_empty());
    let pid = fixture.wait_for_replacement(before);
    assert_eq!(others(), neighbours, "{}", fixture.sandbox.dump());

    // A new daemon in which only the other processes were started.
    fixture.wait_until_known(pid);
    fixture.kill_daemon();
    fixture.eventually("all processes are gone", || !is_alive(pid) && others() == [None, None]);
    fixture.pm2_in_app(&[], &["start", ECOSYSTEM_FILE, "--only", "web,mailer"]);
    fixture.eventually("the other processes are healthy", || others().iter().all(Option::is_some));
    let neighbours = others();
    fixture.eventually("the target is up again", || fixture.sandbox.events("up").len() == 2);
    fixture.wait_for_replacement(pid);
    assert_eq!(others(), neighbours, "{}", fixture.sandbox.dump());
    fixture.daemon_pid();
    let mut names: Vec<String> = fixture.process_list().into_iter().map(|(name, ..)| name).collect();
    names.sort();
    assert_eq!(names, ["mailer", APP_NAME, "web"], "{}", fixture.sandbox.dump());
}
