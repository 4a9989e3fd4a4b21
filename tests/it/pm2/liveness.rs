//! Liveness of a process: changed titles, overwritten environments and moved pid files do not make it dead, and what it
//! leaves behind does not make it alive.

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::is_alive;

/// `$0 = …` overwrites the environment's memory, as Python's setproctitle does.
const WORKER: &str = "open(my $log, '>>', 'works'); print $log \"$$\\n\"; close $log;\nsleep 2;
$0 = 'worker: ' . ('x' x 4000);\nopen(my $done, '>', 'titled'); close $done;\nsleep 1 while 1;\n";

impl Fixture {
    fn start_worker(&self, keys: &str) {
        self.sandbox.write("app/worker.pl", WORKER);
        let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
        self.write_ecosystem(&format!("{{name: 'sav-backend', script: 'worker.pl', interpreter: 'perl'{keys}}}"));
        self.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
        self.pm2(&["save"]);
        self.eventually("the worker runs", || !self.worker_pids().is_empty());
    }

    fn worker_pids(&self) -> Vec<String> {
        self.sandbox.lines("app/works")
    }
}

#[test]
fn a_worker_that_changes_its_title_is_not_restarted() {
    let fixture = Fixture::new("");
    fixture.start_worker("");
    fixture.run_init();
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    fixture.eventually("the title is changed", || fixture.sandbox.path("app/titled").exists());
    fixture.wait_for_probes(12);
    fixture.assert_untouched();
    assert_eq!(fixture.worker_pids().len(), 1, "{}", fixture.sandbox.dump());
    for words in [&["check"][..], &["check", "--offline"]] {
        let output = fixture.run_from_cron(words);
        let is_correct = output.code == Some(0) && output.out.contains(&format!("pid {}", fixture.worker_pids()[0]));
        fixture.sandbox.assert(is_correct && !output.out.contains("runs no"), &format!("{output:?}"));
    }
}

/// Its pid file is elsewhere, too, so only PM2's list shows it.
#[test]
fn a_worker_found_only_in_the_list_is_not_gone() {
    let fixture = Fixture::new("");
    let file = fixture.sandbox.path("app/own.pid").display().to_string();
    fixture.start_worker(&format!("pid_file: '{file}'"));
    fixture.eventually("the title is changed", || fixture.sandbox.path("app/titled").exists());
    fixture.configure(&fixture.pm2_key(""));
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    fixture.wait_for_probes(12);
    fixture.sandbox.assert(fixture.sandbox.events("restart").is_empty(), "nothing is restarted");
    fixture.sandbox.assert(fixture.sandbox.events("down").is_empty(), "no target is down");
    assert_eq!((fixture.worker_pids().len(), fixture.sandbox.target(APP_NAME)["state"].as_str()), (1, Some("healthy")));
}

#[test]
fn a_child_left_behind_does_not_count_as_the_process() {
    let fixture = Fixture::new("");
    fixture.sandbox.write(
        "app/leaver.js",
        "const fs = require('fs');\nif (fs.existsSync('broken')) process.exit(1);\nconst child = \
         require('child_process').spawn('sleep', ['600'], {detached: true, stdio: \
         'ignore'});\nchild.unref();\nfs.writeFileSync('left', String(child.pid));\nsetInterval(() => { if \
         (fs.existsSync('broken')) process.exit(1); }, 50);\n",
    );
    fixture.write_ecosystem("{name: 'sav-backend', script: 'leaver.js', max_restarts: 2}");
    fixture.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
    fixture.pm2(&["save"]);
    fixture.configure(&format!("{}, start_period: 2s", fixture.pm2_key("")));
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    fixture.set_flag("broken", "");
    fixture.eventually("the target is down", || !fixture.sandbox.events("down").is_empty());
    let child = fixture.sandbox.read("app/left").parse().expect("a number");
    fixture.sandbox.assert(is_alive(child), "the child left behind is alive");
    assert_eq!(fixture.sandbox.events("down")[0]["class"], "gone", "{}", fixture.sandbox.dump());
    fixture.remove_flag("broken");
    fixture.eventually("the target is up again", || !fixture.sandbox.events("up").is_empty());
}

/// One process that survives its daemon's death, and one that dies with it.
#[test]
fn a_process_that_survives_its_daemon_is_not_started_twice() {
    let fixture = Fixture::new("");
    fixture.sandbox.write("app/worker.pl", WORKER);
    fixture.write_ecosystem(
        "{name: 'sav-backend', script: 'backend.js', env: {PORT: PORT_HERE}}, {name: 'mailer', script: 'worker.pl', \
         interpreter: 'perl'}",
    );
    fixture.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
    fixture.pm2(&["save"]);
    fixture.wait_until_healthy();
    fixture.run_init();
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME, "mailer"]);
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.eventually("the target is up again", || !fixture.sandbox.events("up").is_empty());
    fixture.wait_for_replacement(before);
    fixture.wait_for_probes(6);
    let worker_pids = fixture.worker_pids();
    let is_one = worker_pids.len() == 1 && is_alive(worker_pids[0].parse().expect("a number"));
    fixture.sandbox.assert(is_one, &format!("the same mailer, once: {worker_pids:?}"));
    fixture.daemon_pid();
    let names: Vec<String> = fixture.process_list().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, [APP_NAME], "{}", fixture.sandbox.dump());
    let daemon = std::fs::read(format!("/proc/{}/environ", fixture.daemon_pid())).expect("the daemon is alive");
    fixture
        .sandbox
        .assert(!String::from_utf8_lossy(&daemon).contains("PM2_DUMP"), "the daemon has no variable of the watchdog");
}
