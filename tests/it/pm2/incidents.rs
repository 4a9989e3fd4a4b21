//! Incidents of targets under PM2: the evidence about PM2, the commands that were run, and the last log lines of the
//! process.

use rustix::process::Signal;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::{is_alive, send_signal};

impl Fixture {
    /// Waits until `incident last` contains all these texts, and returns its output.
    #[track_caller]
    fn incident_containing(&self, texts: &[&str]) -> String {
        let incident_text = || self.sandbox.run(&["incident", "last"]).out;
        let mut output = incident_text();
        self.eventually(&format!("{texts:?} in the incident"), || {
            output = incident_text();
            texts.iter().all(|text| output.contains(text))
        });
        output
    }
}

#[test]
fn a_dead_daemon_and_the_command_that_was_run_are_reported() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.wait_for_repair_by_one_restart(before);
    assert_eq!(fixture.sandbox.events("restart")[0]["run"], "pm2 resurrect", "{}", fixture.sandbox.dump());
    assert_eq!(fixture.start_count(), 2, "{}", fixture.sandbox.dump());
    fixture.incident_containing(&[
        "PM2's daemon is dead; the saved list has sav-backend",
        "pm2 resurrect, exit 0 in ",
        "Helped   yes",
    ]);
}

#[test]
fn the_state_of_the_process_in_pm2s_list_is_reported() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.freeze("/block");
    fixture.wait_for_repair_by_one_restart(before);
    let listed_status = format!("its list has sav-backend: online, pid {before}, restarted 0 times");
    fixture.incident_containing(&["PM2's daemon (pid ", &listed_status, "pm2 restart sav-backend"]);
}

/// The process was never saved, has its own log files, and logs in colour. Lines from before the incident do not belong
/// to it.
#[test]
fn the_reported_log_line_belongs_to_the_process_and_is_meaningful() {
    let fixture = Fixture::new("");
    let (out, err) = (fixture.sandbox.path("app/o.log"), fixture.sandbox.path("app/e.log"));
    fixture.sandbox.write(
        "app/server.js",
        "require('./backend.js');\nrequire('fs').watchFile('say', {interval: 50}, () => {\n  \
         console.error('\\u001b[31mError: connect ECONNREFUSED 127.0.0.1:5432\\u001b[39m\\n    at TCPConnectWrap \
         (node:net:1555:16)\\n    at Module._load (node:internal/modules/cjs/loader:1104:12)');\n  \
         setTimeout(() => { for (;;); }, 200);\n});\nrequire('fs').writeFileSync('watching', '');\n",
    );
    fixture.write_ecosystem(&format!(
        "{{name: 'sav-backend', script: 'server.js', env: {{PORT: PORT_HERE}}, out_file: '{}', error_file: '{}'}}",
        out.display(),
        err.display()
    ));
    fixture.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
    fixture.wait_until_healthy();
    fixture.configure(&fixture.target_keys(""));
    let _watchdog = fixture.start_watchdog_for(&[APP_NAME]);
    let before = fixture.wait_until_healthy();
    fixture.sandbox.write("app/say", "now");
    fixture.wait_for_repair_by_one_restart(before);
    let incident_text =
        fixture.incident_containing(&["its last log line: Error: connect ECONNREFUSED 127.0.0.1:5432", "e.log"]);
    fixture
        .sandbox
        .assert(!incident_text.contains("\\u{1b}") && !incident_text.contains("Module._load"), &incident_text);

    // The next process logs nothing and freezes: the lines of the previous one must not be shown as its own.
    fixture.wait_until_known(fixture.wait_until_healthy());
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    fixture.pm2(&["restart", APP_NAME]);
    let pid = fixture.wait_for_replacement(before);
    fixture.wait_until_known(pid);
    fixture.freeze("/block");
    fixture.eventually("the target is up again", || fixture.sandbox.events("up").len() == 2);
    let incident_text = fixture.incident_containing(&["Helped   yes"]);
    fixture.sandbox.assert(!incident_text.contains("ECONNREFUSED"), &incident_text);
}

/// The watchdog is killed after it has killed the daemon and before anything was started again; the frozen backend
/// holds the port.
#[test]
fn an_interrupted_reset_is_continued() {
    let fixture = Fixture::saved("");
    let limits = "start_period: 3s, restart: [{pm2: restart}, {pm2: reset}]";
    let watchdog = fixture.start_watchdog(&format!("{}, {limits}", fixture.target_keys("")));
    let frozen = fixture.freeze("/block");
    let daemon = fixture.suspend_daemon();
    fixture.eventually("the daemon is killed", || !is_alive(daemon));
    watchdog.kill();
    fixture.sandbox.assert(is_alive(frozen) || fixture.pid().is_none(), "the reset was interrupted");
    let _watchdog = fixture.sandbox.start_daemon(&["run"]);
    fixture.eventually("the target is up again", || !fixture.sandbox.events("up").is_empty());
    fixture.wait_for_replacement(frozen);
    fixture.daemon_pid();
    let done = fixture.sandbox.events("restart_done");
    assert_eq!(done[0]["outcome"], "lost", "{}", fixture.sandbox.dump());
    send_signal(frozen, Signal::CONT);
    fixture.sandbox.assert(!is_alive(frozen), "the frozen process is gone");
}
