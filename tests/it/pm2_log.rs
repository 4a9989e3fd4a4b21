//! PM2's own log: the restarts that PM2 made by itself are counted once, by ticks and by a daemon, and reported.

use std::fs::{self, OpenOptions};
use std::io::Write;

use serde_json::Value;

use crate::faults::{Behaviour, Server};
use crate::sandbox::Sandbox;

/// A healthy target whose process is in a PM2 home with nothing but a log.
fn with_log(server: &Server) -> Sandbox {
    let sandbox = Sandbox::new("");
    fs::create_dir(sandbox.path("pm2")).expect("a folder");
    let pm2 = format!("pm2: {{process: api, home: '{}'}}", sandbox.path("pm2").display());
    let keys = format!("http: 'http://127.0.0.1:{}/', {pm2}, restart: 'true'", server.port());
    sandbox.configure(&format!("page: page.html\ntargets:\n  - {{name: shop, {keys}}}\n"));
    sandbox
}

/// Appends restarts of both kinds to the log; the times, which are missing, are those of the file.
fn append(sandbox: &Sandbox, for_memory: usize, crashes: usize) {
    let memory = "[PM2][WORKER] Process 0 restarted because it exceeds --max-memory-restart value \
                  (current_memory=600000000 max_memory_limit=524288000 [octets])\nStopping app:api id:0\nApp \
                  [api:0] exited with code [0] via signal [SIGINT]\nApp [api:0] starting in -fork mode-\n";
    let crash = "App [api:0] exited with code [7] via signal [SIGINT]\nApp [api:0] starting in -fork mode-\n";
    let ordered = "Stopping app:api id:0\nApp [api:0] exited with code [0] via signal [SIGINT]\nApp [api:0] starting \
                   in -fork mode-\nApp [other:1] exited with code [1] via signal [SIGINT]\nApp [other:1] starting in \
                   -fork mode-\n";
    let mut log = OpenOptions::new().create(true).append(true).open(sandbox.path("pm2/pm2.log")).expect("a log");
    let text = memory.repeat(for_memory) + &crash.repeat(crashes) + ordered;
    log.write_all(text.as_bytes()).expect("written");
}

fn reported(sandbox: &Sandbox) -> Value {
    let output = sandbox.run(&["report", "--json"]);
    let report: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    report["targets"][0]["pm2_restarts"].clone()
}

#[test]
fn restarts_by_pm2_are_counted_once_and_shown_everywhere() {
    let server = Server::start(Behaviour::answer("200 OK", "fine"));
    let sandbox = with_log(&server);
    append(&sandbox, 12, 0);
    let tick = || {
        let output = sandbox.run(&["--once"]);
        sandbox.assert(output.code == Some(0) && output.out.is_empty(), &format!("{output:?}"));
    };
    tick();
    tick();
    assert_eq!(reported(&sandbox), serde_json::json!({"memory 524288000": 12}), "{}", sandbox.dump());
    let text = "PM2 restarted it 12 times in 24 h for memory (500M): it leaks";
    let status = sandbox.run(&["status"]).out;
    sandbox.assert(status.contains(text), &status);
    sandbox.assert(sandbox.read("page.html").contains(text), "the page has it");
    let report = sandbox.run(&["report"]).out;
    sandbox
        .assert(report.contains("  PM2        restarted it 12 times by itself for memory (500M): it leaks"), &report);

    // Rotated as by pm2-logrotate, then a daemon goes on, and is killed.
    append(&sandbox, 1, 1);
    fs::copy(sandbox.path("pm2/pm2.log"), sandbox.path("pm2/pm2__2026-11-22_00-00-00.log")).expect("a copy");
    sandbox.write("pm2/pm2.log", "");
    append(&sandbox, 0, 2);
    let both = serde_json::json!({"memory 524288000": 13, "exit 7": 3});
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the log is read", || reported(&sandbox) == both);
    daemon.kill();
    tick();
    assert_eq!(reported(&sandbox), both, "{}", sandbox.dump());
    let status = sandbox.run(&["status"]).out;
    let text = "PM2 restarted it 16 times in 24 h: 13 for memory (500M), 3 after a crash (exit code 7); it leaks";
    sandbox.assert(status.contains(text), &status);
    // pm2 flush.
    sandbox.write("pm2/pm2.log", "");
    tick();
    append(&sandbox, 0, 1);
    tick();
    assert_eq!(reported(&sandbox)["exit 7"], 4, "{}", sandbox.dump());
}
