//! What an incident beside PM2 says: what was found of it, what was run, and what the process itself said last.

use rustix::process::Signal;

use super::scene::{NAME, Scene};
use crate::place::{is_alive, send};

impl Scene {
    /// What `incident last` says once it has these words.
    #[track_caller]
    fn story_with(&self, words: &[&str]) -> String {
        let story = || self.place.run(&["incident", "last"]).out;
        let mut said = story();
        self.eventually(&format!("{words:?} in the incident"), || {
            said = story();
            words.iter().all(|words| said.contains(words))
        });
        said
    }
}

#[test]
fn a_dead_daemon_is_said_and_what_was_run_too_and_the_backend_is_started_once() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.well();
    scene.kill_daemon();
    scene.healed_by_one(before);
    assert_eq!(scene.place.events("restart")[0]["run"], "pm2 resurrect", "{}", scene.place.story());
    assert_eq!(scene.starts(), 2, "{}", scene.place.story());
    scene.story_with(&[
        "PM2's daemon is dead; the saved list has sav-backend",
        "pm2 resurrect, exit 0 in ",
        "Helped   yes",
    ]);
}

#[test]
fn the_state_of_a_process_in_pm2s_list_is_said() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.freeze("/block");
    scene.healed_by_one(before);
    let listed = format!("its list has sav-backend: online, pid {before}, restarted 0 times");
    scene.story_with(&["PM2's daemon (pid ", &listed, "pm2 restart sav-backend"]);
}

/// It was never saved, has logs of its own, and complains in colour; what was there before it began is not about it.
#[test]
fn the_last_words_are_its_own_and_tell_something() {
    let scene = Scene::new("");
    let (out, err) = (scene.place.path("app/o.log"), scene.place.path("app/e.log"));
    scene.place.write(
        "app/server.js",
        "require('./backend.js');\nrequire('fs').watchFile('say', {interval: 50}, () => {\n  \
         console.error('\\u001b[31mError: connect ECONNREFUSED 127.0.0.1:5432\\u001b[39m\\n    at TCPConnectWrap \
         (node:net:1555:16)\\n    at Module._load (node:internal/modules/cjs/loader:1104:12)');\n  \
         setTimeout(() => { for (;;); }, 200);\n});\nrequire('fs').writeFileSync('watching', '');\n",
    );
    scene.describe(&format!(
        "{{name: 'sav-backend', script: 'server.js', env: {{PORT: PORT_HERE}}, out_file: '{}', error_file: '{}'}}",
        out.display(),
        err.display()
    ));
    scene.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
    scene.well();
    scene.configure(&scene.target(""));
    let _watchdog = scene.watch_all(&[NAME]);
    let before = scene.well();
    scene.place.write("app/say", "now");
    scene.healed_by_one(before);
    let story = scene.story_with(&["its last log line: Error: connect ECONNREFUSED 127.0.0.1:5432", "e.log"]);
    scene.place.demand(!story.contains("\\u{1b}") && !story.contains("Module._load"), &story);

    // The next one says nothing, and freezes: what the one before has said is not its last word.
    scene.known_as(scene.well());
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    scene.pm2(&["restart", NAME]);
    let pid = scene.well_again(before);
    scene.known_as(pid);
    scene.freeze("/block");
    scene.eventually("it is up again", || scene.place.events("up").len() == 2);
    let story = scene.story_with(&["Helped   yes"]);
    scene.place.demand(!story.contains("ECONNREFUSED"), &story);
}

/// Killed after it has ended the daemon, and before anything was started again: the frozen backend holds the port.
#[test]
fn a_reset_that_was_interrupted_is_taken_up_again() {
    let scene = Scene::saved("");
    let limits = "start_period: 3s, restart: [{pm2: restart}, {pm2: reset}]";
    let watchdog = scene.watch(&format!("{}, {limits}", scene.target("")));
    let frozen = scene.freeze("/block");
    let daemon = scene.stop_daemon();
    scene.eventually("the daemon is killed", || !is_alive(daemon));
    watchdog.kill();
    scene.place.demand(is_alive(frozen) || scene.pid().is_none(), "it was in the middle of it");
    let _watchdog = scene.place.daemon(&["run"]);
    scene.eventually("it is up again", || !scene.place.events("up").is_empty());
    scene.well_again(frozen);
    scene.daemon();
    let done = scene.place.events("restart_done");
    assert_eq!(done[0]["outcome"], "lost", "{}", scene.place.story());
    send(frozen, Signal::CONT);
    scene.place.demand(!is_alive(frozen), "the frozen one is gone");
}
