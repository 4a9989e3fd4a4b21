//! Setups from public reports: ecosystem files that say less than they seem to, variables that only the process has,
//! names that mean more than one thing. A repair brings back the same process, with the same variables, and no other.

use serde_json::Value;

use super::installed::Version;
use super::scene::{NAME, Scene, free_port};
use crate::place::is_alive;

impl Scene {
    /// The backend's port and database, as it says itself.
    #[track_caller]
    fn variables(&self) -> (Value, Value) {
        self.well();
        let health = self.health_at(self.port).expect("it was just well");
        (health["port"].clone(), health["db"].clone())
    }

    /// Freezes the backend, then kills the daemon: each time it comes back as it was, by one restart.
    #[track_caller]
    fn comes_back_as_it_was(&self) {
        let before = self.variables();
        let frozen = self.freeze("/block");
        let pid = self.healed_by_one(frozen);
        assert_eq!(self.variables(), before, "{}", self.place.story());
        self.known_as(pid);
        self.kill_daemon();
        self.eventually("it is up again", || self.place.events("up").len() == 2);
        self.healed(pid);
        assert_eq!(self.variables(), before, "{}", self.place.story());
    }
}

const BY_FILE: &str = "ecosystem.config.js";

/// A relative script and no folder: pm2 looks for it where it is called.
#[test]
fn a_relative_script_is_found_though_nothing_was_saved() {
    let scene = Scene::new("");
    scene.describe("{name: 'sav-backend', script: './backend.js', env: {PORT: PORT_HERE, DB: 'mine'}}");
    scene.pm2_in_app(&[], &["start", BY_FILE]);
    let before = scene.variables();
    scene.init();
    scene.place.demand(scene.place.read("watchdog.yaml").contains("ecosystem.config.js"), "init takes the file");
    let said = scene.by_cron(&["check"]);
    scene.place.demand(said.code == Some(0) && said.out.contains("Ready."), &format!("{said:?}"));
    let _watchdog = scene.watch_all(&[NAME]);
    let pid = scene.well();
    scene.kill_daemon();
    scene.healed_by_one(pid);
    assert_eq!(scene.variables(), before, "{}", scene.place.story());
    let run = scene.place.events("restart")[0]["run"].clone();
    scene.place.demand(run.as_str().is_some_and(|run| run.starts_with("pm2 start ")), &run.to_string());
}

/// Both blocks have a port: with the wrong one it would come up where nobody looks.
fn two_environments(scene: &Scene) {
    let other = free_port();
    scene.describe(&format!(
        "{{name: 'sav-backend', script: 'backend.js', env: {{NODE_ENV: 'development', DB: 'dev', PORT: {other}}}, \
         env_production: {{NODE_ENV: 'production', DB: 'prod', PORT: PORT_HERE}}}}"
    ));
    scene.pm2_in_app(&[], &["start", BY_FILE, "--env", "production"]);
    scene.well();
}

#[test]
fn a_production_backend_stays_one() {
    for version in [Version::Seven, Version::Five] {
        let scene = Scene::with(version, "");
        two_environments(&scene);
        scene.pm2(&["save"]);
        scene.init();
        scene.place.demand(scene.place.read("watchdog.yaml").contains("env: production"), "init takes the block");
        let _watchdog = scene.watch_all(&[NAME]);
        scene.comes_back_as_it_was();
        assert_eq!(scene.variables().1, "prod", "{}", scene.place.story());
    }
}

#[test]
fn a_production_backend_that_was_never_saved_comes_back_by_its_file_as_one() {
    let scene = Scene::new("");
    two_environments(&scene);
    scene.init();
    let _watchdog = scene.watch_all(&[NAME]);
    let before = scene.well();
    scene.kill_daemon();
    scene.healed_by_one(before);
    assert_eq!(scene.variables().1, "prod", "{}", scene.place.story());
    // Without the block it would be another: check says so.
    let text = scene.place.read("watchdog.yaml").replace("      env: production\n", "");
    scene.place.write("watchdog.yaml", &text);
    let said = scene.by_cron(&["check"]);
    let wrong = "sav-backend runs with env_production of ";
    scene.place.demand(said.code == Some(1) && said.out.contains(wrong), &format!("{said:?}"));
}

/// What only the shell and the folder had when it was started, cron does not have.
#[test]
fn variables_of_the_shell_and_of_a_file_in_the_folder_are_kept() {
    let scene = Scene::new("");
    scene.place.write("app/.env", &format!("{}\n", scene.port));
    scene.describe(
        "{name: 'sav-backend', script: 'backend.js', cwd: __dirname, env: {PORT: require('fs').existsSync('.env') ? \
         require('fs').readFileSync('.env', 'utf8').trim() : 1, DB: process.env.DATABASE || 'none'}}",
    );
    scene.pm2_in_app(&[("DATABASE", "prod")], &["start", BY_FILE]);
    scene.pm2(&["save"]);
    scene.init();
    let _watchdog = scene.watch_all(&[NAME]);
    scene.comes_back_as_it_was();
    assert_eq!(scene.variables().1, "prod", "{}", scene.place.story());
}

#[test]
fn a_file_that_only_mentions_the_name_is_no_way_back() {
    let scene = Scene::new("");
    scene.write_backend("web.js");
    scene.describe(
        "{name: 'web', namespace: 'sav-backend', script: 'web.js'}], deploy: [{x: 'pm2 reload --only sav-backend'}",
    );
    scene.pm2_in_app(&[("PORT", &scene.port.to_string())], &["start", "backend.js", "--name", NAME]);
    scene.well();
    scene.pm2(&["save"]);
    scene.init();
    scene.place.demand(!scene.place.read("watchdog.yaml").contains("config:"), "init does not take the file");
    let _watchdog = scene.watch_all(&[NAME]);
    scene.comes_back_as_it_was();
    // Who writes it himself is told.
    scene.configure(&scene.target(&scene.by_file()));
    let said = scene.by_cron(&["check"]);
    let wrong = "ecosystem.config.js has no process sav-backend: pm2 start would start nothing";
    scene.place.demand(said.code == Some(1) && said.out.contains(wrong), &format!("{said:?}"));
}

/// A namespace of the process's own name: `pm2 restart NAME` would mean everything in it.
#[test]
fn a_namespace_of_the_same_name_is_left_alone() {
    let scene = Scene::new("");
    let (web, mailer) = (free_port(), free_port());
    scene.describe(&format!(
        "{{name: 'sav-backend', script: 'backend.js', env: {{PORT: PORT_HERE}}}}, {{name: 'web', namespace: \
         'sav-backend', script: 'backend.js', env: {{PORT: {web}}}}}, {{name: 'mailer', namespace: 'sav-backend', \
         script: 'backend.js', env: {{PORT: {mailer}}}}}"
    ));
    scene.pm2_in_app(&[], &["start", BY_FILE]);
    scene.pm2(&["save"]);
    let others = || [web, mailer].map(|port| scene.pid_at(port));
    scene.eventually("all are well", || scene.pid().is_some() && others().iter().all(Option::is_some));
    scene.configure(&scene.target(""));
    let _watchdog = scene.watch_all(&[NAME]);
    let (before, neighbours) = (scene.freeze("/block"), others());
    scene.eventually("it is up again", || !scene.place.events("up").is_empty());
    let pid = scene.well_again(before);
    assert_eq!(others(), neighbours, "{}", scene.place.story());

    // A new daemon, in which only the others were started again.
    scene.known_as(pid);
    scene.kill_daemon();
    scene.eventually("all is gone", || !is_alive(pid) && others() == [None, None]);
    scene.pm2_in_app(&[], &["start", BY_FILE, "--only", "web,mailer"]);
    scene.eventually("the others are well", || others().iter().all(Option::is_some));
    let neighbours = others();
    scene.eventually("it is up again", || scene.place.events("up").len() == 2);
    scene.well_again(pid);
    assert_eq!(others(), neighbours, "{}", scene.place.story());
    scene.daemon();
    let mut names: Vec<String> = scene.list().into_iter().map(|(name, ..)| name).collect();
    names.sort();
    assert_eq!(names, ["mailer", NAME, "web"], "{}", scene.place.story());
}
