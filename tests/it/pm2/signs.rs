//! Signs of life that are missing, and signs that are none: titles, environments, pid files, and what a process leaves
//! behind.

use super::scene::{NAME, Scene};
use crate::place::is_alive;

/// `$0 = …` writes over the memory of the environment, as Python's setproctitle does.
const WORKER: &str = "open(my $log, '>>', 'works'); print $log \"$$\\n\"; close $log;\nsleep 2;
$0 = 'worker: ' . ('x' x 4000);\nopen(my $done, '>', 'titled'); close $done;\nsleep 1 while 1;\n";

impl Scene {
    fn worker(&self, keys: &str) {
        self.place.write("app/worker.pl", WORKER);
        let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
        self.describe(&format!("{{name: 'sav-backend', script: 'worker.pl', interpreter: 'perl'{keys}}}"));
        self.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
        self.pm2(&["save"]);
        self.eventually("it works", || !self.works().is_empty());
    }

    fn works(&self) -> Vec<String> {
        self.place.lines("app/works")
    }
}

#[test]
fn a_worker_that_changes_its_title_lives_on() {
    let scene = Scene::new("");
    scene.worker("");
    scene.init();
    let _watchdog = scene.watch_all(&[NAME]);
    scene.eventually("it has its title", || scene.place.path("app/titled").exists());
    scene.looks(12);
    scene.demand_untouched();
    assert_eq!(scene.works().len(), 1, "{}", scene.place.story());
    for words in [&["check"][..], &["check", "--offline"]] {
        let said = scene.by_cron(words);
        let right = said.code == Some(0) && said.out.contains(&format!("pid {}", scene.works()[0]));
        scene.place.demand(right && !said.out.contains("runs no"), &format!("{said:?}"));
    }
}

/// Its pid file lies elsewhere too, so that only PM2's list shows it.
#[test]
fn a_worker_that_only_the_list_shows_is_not_gone() {
    let scene = Scene::new("");
    let file = scene.place.path("app/own.pid").display().to_string();
    scene.worker(&format!("pid_file: '{file}'"));
    scene.eventually("it has its title", || scene.place.path("app/titled").exists());
    scene.configure(&scene.beside(""));
    let _watchdog = scene.watch_all(&[NAME]);
    scene.looks(12);
    scene.place.demand(scene.place.events("restart").is_empty(), "nothing is restarted");
    scene.place.demand(scene.place.events("down").is_empty(), "and nothing is called down");
    assert_eq!((scene.works().len(), scene.place.target(NAME)["state"].as_str()), (1, Some("healthy")));
}

#[test]
fn what_a_process_leaves_behind_is_no_sign_of_its_life() {
    let scene = Scene::new("");
    scene.place.write(
        "app/leaver.js",
        "const fs = require('fs');\nif (fs.existsSync('broken')) process.exit(1);\nconst child = \
         require('child_process').spawn('sleep', ['600'], {detached: true, stdio: \
         'ignore'});\nchild.unref();\nfs.writeFileSync('left', String(child.pid));\nsetInterval(() => { if \
         (fs.existsSync('broken')) process.exit(1); }, 50);\n",
    );
    scene.describe("{name: 'sav-backend', script: 'leaver.js', max_restarts: 2}");
    scene.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
    scene.pm2(&["save"]);
    scene.configure(&format!("{}, start_period: 2s", scene.beside("")));
    let _watchdog = scene.watch_all(&[NAME]);
    scene.set("broken", "");
    scene.eventually("it is down", || !scene.place.events("down").is_empty());
    let left = scene.place.read("app/left").parse().expect("a number");
    scene.place.demand(is_alive(left), "what was left behind lives");
    assert_eq!(scene.place.events("down")[0]["class"], "gone", "{}", scene.place.story());
    scene.unset("broken");
    scene.eventually("it is up again", || !scene.place.events("up").is_empty());
}

/// One that notices nothing of its daemon's death, beside one that dies with it.
#[test]
fn what_outlives_its_daemon_is_not_started_twice_when_another_is_brought_back() {
    let scene = Scene::new("");
    scene.place.write("app/worker.pl", WORKER);
    scene.describe(
        "{name: 'sav-backend', script: 'backend.js', env: {PORT: PORT_HERE}}, {name: 'mailer', script: 'worker.pl', \
         interpreter: 'perl'}",
    );
    scene.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
    scene.pm2(&["save"]);
    scene.well();
    scene.init();
    let _watchdog = scene.watch_all(&[NAME, "mailer"]);
    let before = scene.well();
    scene.kill_daemon();
    scene.eventually("it is up again", || !scene.place.events("up").is_empty());
    scene.well_again(before);
    scene.looks(6);
    let works = scene.works();
    let is_one = works.len() == 1 && is_alive(works[0].parse().expect("a number"));
    scene.place.demand(is_one, &format!("one mailer, and the same: {works:?}"));
    scene.daemon();
    let names: Vec<String> = scene.list().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [NAME], "{}", scene.place.story());
    let daemon = std::fs::read(format!("/proc/{}/environ", scene.daemon())).expect("it is alive");
    scene.place.demand(!String::from_utf8_lossy(&daemon).contains("PM2_DUMP"), "nothing of ours stays with the daemon");
}
