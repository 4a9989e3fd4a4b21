//! A daemon that works and cannot be reached: its sockets deleted by a cleaner of old files, or another account's. No
//! pm2 command is run against it, for each would start a second daemon and everything that was saved a second time.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use super::scene::{NAME, Scene, free_port};
use crate::place::{NEEDED, Said, is_alive, need};

/// A worker that takes no requests.
const WORKER: &str = "require('fs').appendFileSync('works', `${process.pid}\\n`);\nsetInterval(() => {}, 1000000);\n";

struct Three {
    scene: Scene,
    site: u16,
}

impl Three {
    fn start() -> Three {
        let (scene, site) = (Scene::new(""), free_port());
        scene.place.write("app/mailer.js", WORKER);
        scene.describe(&format!(
            "{{name: 'sav-backend', script: 'backend.js', env: {{PORT: PORT_HERE}}}}, {{name: 'site', script: \
             'backend.js', env: {{PORT: {site}}}}}, {{name: 'mailer', script: 'mailer.js'}}"
        ));
        scene.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
        scene.pm2(&["save"]);
        scene.eventually("both are well", || scene.pid().is_some() && scene.pid_at(site).is_some());
        scene.init();
        Three { scene, site }
    }

    /// The pids of the backend, the site, and of every mailer there ever was.
    fn pids(&self) -> (Option<i32>, Option<i32>, Vec<String>) {
        (self.scene.pid(), self.scene.pid_at(self.site), self.scene.place.lines("app/works"))
    }

    /// `status` and `check` name what mends it, and say nothing that is not so.
    #[track_caller]
    fn tells(&self, daemon: i32) {
        for verb in ["status", "check"] {
            let said = self.scene.by_cron(&[verb]);
            let resurrect = format!("PM2_HOME={} pm2 resurrect", self.scene.home());
            let mends = said.out.contains(&format!("kill {daemon}, wait until it has exited, then {resurrect}"));
            let untrue = ["daemon is dead", "does not run", "runs no"].iter().any(|words| said.out.contains(words));
            self.scene.place.demand(mends && !untrue, &format!("{said:?}"));
        }
    }
}

#[test]
fn a_daemon_without_its_sockets_is_told_and_nothing_is_started_beside_it() {
    let three = Three::start();
    let scene = &three.scene;
    let _watchdog = scene.watch_all(&[NAME, "site", "mailer"]);
    let (daemon, before) = (scene.daemon(), three.pids());
    scene.lose_sockets();
    scene.eventually("it is told", || scene.warnings("pm2_deaf") >= 3);
    scene.looks(12);
    scene.demand_untouched();
    assert_eq!((scene.daemons(), three.pids()), (vec![daemon], before.clone()), "{}", scene.place.story());
    assert_eq!(scene.warnings("pm2_deaf"), 3, "{}", scene.place.story());
    three.tells(daemon);
    // One of them freezes: it is ended, and its own daemon starts it again.
    let frozen = scene.freeze("/block");
    scene.eventually("it is up again", || !scene.place.events("up").is_empty());
    scene.well_again(frozen);
    scene.place.demand(scene.daemons() == [daemon] && !is_alive(frozen), "the same daemon");
    let (_, site, mailers) = three.pids();
    assert_eq!((site, mailers), (before.1, before.2), "{}", scene.place.story());
}

/// A rung before has looked at PM2 already; the command of the next one is not run blindly for that.
#[test]
fn no_rung_of_a_ladder_makes_a_second_daemon() {
    let scene = Scene::saved("autorestart: false");
    let ladder = "restart: [{pm2: restart}, pm2 resurrect], start_period: 2s";
    let _watchdog = scene.watch(&format!("{}, {ladder}", scene.target("")));
    let daemon = scene.daemon();
    scene.lose_sockets();
    scene.ask("/exit?code=3");
    scene.eventually("both were tried", || scene.place.events("restart_done").len() >= 2);
    let done = scene.place.events("restart_done");
    scene.place.demand(done.iter().all(|done| done["outcome"] == "not_started"), "nothing is run");
    assert_eq!((scene.daemons(), scene.pid()), (vec![daemon], None), "{}", scene.place.story());
}

/// With all times at their defaults, and by ticks.
#[test]
fn ticks_start_nothing_beside_a_daemon_without_its_sockets() {
    let three = Three::start();
    let scene = &three.scene;
    let text = scene.place.read("watchdog.yaml");
    let times =
        text.lines().find(|line| line.starts_with("defaults:")).expect("init's file was given times").to_owned();
    scene.place.write("watchdog.yaml", &text.replace(&times, ""));
    assert_eq!(scene.by_cron(&["--once"]).code, Some(0), "{}", scene.place.story());
    let (daemon, before) = (scene.daemon(), three.pids());
    scene.lose_sockets();
    for _ in 0..4 {
        assert_eq!(scene.by_cron(&["--once"]).code, Some(0), "{}", scene.place.story());
    }
    scene.demand_untouched();
    assert_eq!((scene.daemons(), three.pids()), (vec![daemon], before), "{}", scene.place.story());
}

#[test]
fn a_reset_leaves_one_daemon_and_one_process() {
    let scene = Scene::saved("");
    scene.init();
    let _watchdog = scene.watch_all(&[NAME]);
    let daemon = scene.daemon();
    scene.lose_sockets();
    let frozen = scene.freeze("/block");
    let pid = scene.healed(frozen);
    scene.place.demand(!is_alive(daemon) && !is_alive(frozen), "the old ones are gone");
    assert_eq!(scene.place.events("restart")[0]["rung"], 2, "{}", scene.place.story());
    scene.looks(6);
    assert_eq!((scene.daemons().len(), scene.pid()), (1, Some(pid)), "{}", scene.place.story());
    assert_eq!(scene.place.events("restart").len(), 1, "{}", scene.place.story());
}

/// After `sudo pm2`, as the account whose home it is.
#[test]
fn sockets_of_another_account_are_told_and_nothing_is_done() {
    need(rustix::process::geteuid().is_root(), "root");
    const NOBODY: u32 = 65_534;
    let scene = Scene::saved("");
    scene.configure(&format!("{}, restart: [{{pm2: restart}}]", scene.target("")));
    let own = |path: &std::path::Path| chown(path, Some(NOBODY), Some(NOBODY)).expect("we are root");
    own(std::path::Path::new(&scene.home()));
    own(scene.place.home());
    own(&scene.place.path("watchdog.yaml"));
    let as_nobody = |words: &[&str]| {
        let starter = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command: Command = scene.place.command_through(&starter, words);
        Said::new(command.env("PATH", scene.installed.path()).output().expect(NEEDED))
    };
    let mends = "its socket belongs to root, as after `sudo pm2`. Fix, as root: PM2_HOME=";
    let said = as_nobody(&["check"]);
    let untrue = ["does not run", "daemon is dead", "  dead,"].iter().any(|words| said.out.contains(words));
    scene.place.demand(said.code == Some(1) && said.out.contains(mends) && !untrue, &format!("{said:?}"));
    let said = as_nobody(&["init", "--stdout", "--pm2-home", &scene.home()]);
    scene.place.demand(said.err.contains(mends), &format!("{said:?}"));

    let (daemon, pid) = (scene.daemon(), scene.well());
    assert_eq!(as_nobody(&["--once"]).code, Some(0), "{}", scene.place.story());
    scene.ask("/degrade");
    scene.eventually("it is not well any more", || scene.pid().is_none());
    for _ in 0..4 {
        as_nobody(&["--once"]);
    }
    let done = scene.place.events("restart_done");
    scene.place.demand(!done.is_empty() && done.iter().all(|done| done["outcome"] == "not_started"), "nothing is run");
    let said = as_nobody(&["status"]);
    scene.place.demand(said.code == Some(1) && said.out.contains(mends), &format!("{said:?}"));
    assert_eq!((scene.daemons(), is_alive(pid)), (vec![daemon], true), "{}", scene.place.story());
    fs::metadata(scene.home()).expect("it is still there");
}
