//! `check` with PM2: problems with PM2 are reported before an outage, and other programs that restart the same process
//! are named.

use std::fs;

use serde_json::json;

use crate::fake_pm2::FakePm2;
use crate::faults::{Behaviour, Server};
use crate::sandbox::{CommandOutput, Sandbox};

fn configure(sandbox: &Sandbox, rest: &str) {
    sandbox
        .configure(&format!("env: {{PATH: '{}/bin:/usr/bin:/bin'}}\ntargets:\n  - {rest}\n", sandbox.home().display()));
}

/// Checks the exit code and parts of the output.
#[track_caller]
fn check(fake: &FakePm2<'_>, sandbox: &Sandbox, args: &[&str], code: i32, expected: &[&str]) -> CommandOutput {
    let output = fake.run(&[&["check"], args].concat());
    sandbox.assert(output.code == Some(code) && output.err.is_empty(), &format!("exit code {code}: {output:?}"));
    for part in expected {
        sandbox.assert(output.out.contains(part), &format!("`{part}` is in:\n{}", output.out));
    }
    output
}

#[test]
fn a_sound_pm2_setup_is_shown_with_its_state() {
    let sandbox = Sandbox::new("");
    let fake = FakePm2::new(&sandbox);
    let server = Server::start(Behaviour::answer("200 OK", ""));
    let apps = [fake.app("api", json!({"pid": 4821}))];
    sandbox.write("eco.config.js", "x = {apps: [{name: 'api', script: './server.js', cwd: './app'}]}");
    let http = format!("http: 'http://localhost:{}/health'", server.port());
    configure(&sandbox, &format!("{{{http}, pm2: {{process: api, config: eco.config.js, reset: true}}}}"));
    fake.save(&apps);
    let daemon = fake.listen(&apps);
    let orphan = format!("2  reset PM2: only when it is stuck or an orphan holds port {}, and only", server.port());
    let expected = [
        "1  pm2 restart api   (pm2 resurrect when PM2 is dead; ~/eco.config.js when nothing else brings it back)\n",
        &orphan,
        "\n  PM2 7.0.4   alive, list saved; api online, pid 4821\n",
        "In cron (PATH=/usr/bin:/bin)  node: ",
        "Ready. Paste this",
    ];
    check(&fake, &sandbox, &[], 0, &[&expected[..3], &expected[4..]].concat());
    assert_eq!(fake.calls(), ["jlist -s"]);
    check(&fake, &sandbox, &["--offline"], 0, &["  PM2 7.0.4   alive, list saved; whether api runs is unknown\n"]);
    assert_eq!(fake.calls(), ["jlist -s"], "PM2 is not called offline");
    drop(daemon);
    let dead = "  PM2 7.0.4   dead, list saved; a repair starts it again when the target is down\n";
    check(&fake, &sandbox, &[], 0, &[dead, "pm2: found through env.PATH   node: found through env.PATH"]);
    assert_eq!(fake.calls(), ["jlist -s"], "pm2 is not called if the daemon is dead");
}

#[test]
fn settings_that_would_make_a_pm2_command_fail_are_reported() {
    let sandbox = Sandbox::new("");
    let fake = FakePm2::new(&sandbox);
    let offline = |rest: &str, code: i32, expected: &[&str]| {
        configure(&sandbox, rest);
        check(&fake, &sandbox, &["--offline"], code, expected);
    };
    offline(
        "pm2: api",
        1,
        &["PM2 7.0.4   dead, no list saved\n", "PROBLEM     PM2 in ~/.pm2 has no process api; it has none"],
    );
    fake.save(&[fake.app("other", json!({}))]);
    offline("pm2: api", 1, &["PROBLEM     PM2 in ~/.pm2 has no process api; it has other\n"]);
    offline(
        "pm2: {process: api, config: eco.js}",
        1,
        &["PROBLEM     the ecosystem file ~/eco.js cannot be read: no such"],
    );
    sandbox.write("eco.js", "x = {apps: [{name: 'api2', namespace: 'api'}]}; // name: 'api'");
    offline(
        "pm2: {process: api, config: eco.js}",
        1,
        &["PROBLEM     the ecosystem file ~/eco.js has no process api: pm2 start would start nothing"],
    );
    sandbox.write("eco.js", "x = {apps: [{name: 'api'}]}");
    let hint = "api is not in the saved list: a repair starts it from config and loses the others. Fix: pm2 save";
    offline("pm2: {process: api, config: eco.js}", 0, &[hint, "Ready."]);
    let elsewhere = "PROBLEM     no PM2 in ~/gone: no such folder; ~/.pm2 exists\n";
    offline("pm2: {process: api, home: gone}", 1, &[elsewhere]);
    sandbox.write(".pm2/dump.pm2", "{");
    offline("pm2: api", 1, &["saved list unreadable", "PROBLEM     PM2's saved list cannot be read: "]);

    fake.save(&[fake.app("api", json!({"kill_timeout": 60_000}))]);
    let slow =
        "PROBLEM     api may take 1 min to end (kill_timeout), but the timeout of the pm2 command is 1 min. Fix: ";
    offline("pm2: api", 1, &[&format!("{slow}restart: [{{pm2: restart, timeout: 70s}}]\n")]);
    offline("{pm2: api, restart: pm2 restart api}", 1, &[&format!("{slow}{{run: …, timeout: 70s}}\n")]);
    offline("{pm2: api, restart: [{pm2: restart, timeout: 70s}]}", 0, &["when PM2 is dead; each at most 1 min 10 s)"]);
    offline("{pm2: api, restart: ./restart.sh || true}", 1, &["no such file: ./restart.sh"]);
    let reset = "reset: true has no effect with restart";
    offline("{pm2: {process: api, reset: true}, restart: [{pm2: restart, timeout: 70s}]}", 0, &[reset]);
}

#[test]
fn a_process_that_pm2_lost_or_never_saved_is_reported() {
    let sandbox = Sandbox::new("");
    let fake = FakePm2::new(&sandbox);
    configure(&sandbox, "pm2: api");
    let daemon = fake.listen(&[fake.app("other", json!({}))]);
    let lost = "PROBLEM     PM2 in ~/.pm2 has no process api; it has other\n";
    check(&fake, &sandbox, &[], 1, &["alive, no list saved; api is not in PM2's list\n", lost]);
    drop(daemon);
    fs::remove_file(sandbox.path(".pm2/rpc.sock")).expect("a socket");
    let two = [fake.app("api", json!({"pid": 1})), fake.app("api", json!({"pid": 2, "status": "errored"}))];
    let _daemon = fake.listen(&two);
    let unsaved = "PROBLEM     api is not in PM2's saved list, so a reboot would lose it. Fix: pm2 save\n";
    check(&fake, &sandbox, &[], 1, &["api online, 1 of 2 instances\n", unsaved]);
    fake.write_program("pm2", "exit 3");
    let failed = "PROBLEM     PM2 in ~/.pm2 did not list its processes: pm2 jlist exited with 3\n";
    check(&fake, &sandbox, &[], 1, &[failed]);
}

#[cfg(feature = "full-tests")]
#[test]
fn a_pm2_daemon_that_never_answers_is_reported() {
    let sandbox = Sandbox::new("");
    let fake = FakePm2::new(&sandbox);
    configure(&sandbox, "pm2: api");
    fake.save(&[fake.app("api", json!({}))]);
    let _daemon = fake.listen(&[]);
    fake.write_program("pm2", "exec sleep 60");
    let silent = "PROBLEM     PM2's daemon accepts connections but has not answered for 10 s";
    check(&fake, &sandbox, &[], 1, &["unreachable, list saved; whether api runs is unknown", silent]);
}

#[test]
fn a_pm2_that_cron_would_not_find_is_reported() {
    let sandbox = Sandbox::new("targets: [{pm2: api}]\n");
    let fake = FakePm2::new(&sandbox);
    fake.save(&[fake.app("api", json!({}))]);
    let not_found = "PROBLEM     under cron: command not found: pm2 (PATH=/usr/bin:/bin). Fix: set PATH under env:";
    check(&fake, &sandbox, &["--offline"], 1, &[not_found]);
    sandbox.write("bin/pm2", "#!/usr/bin/env node-of-pm2\n");
    configure(&sandbox, "pm2: api");
    let needs = "PROBLEM     pm2 needs node-of-pm2: command not found: node-of-pm2 (PATH=";
    check(&fake, &sandbox, &["--offline"], 1, &[needs]);
}

#[test]
fn other_programs_that_restart_the_process_are_dangers_until_removed() {
    let sandbox = Sandbox::new("");
    let fake = FakePm2::new(&sandbox);
    configure(&sandbox, "pm2: api");
    sandbox.write("tick.js", "setInterval(() => exec('pm2 restart api'), 1000)\n");
    sandbox
        .write("crontab", "# pm2 restart\n*/5 * * * * /x/keep-alive.sh\n@reboot pm2 resurrect\n0 3 * * * backup.sh\n");
    let tick = json!({"pm_exec_path": sandbox.path("tick.js")});
    let api = fake.app("api", json!({"pm_exec_path": sandbox.path("tick.js")}));
    fake.save(&[api.clone(), fake.app("my tick", tick)]);
    let delete = "DANGER      PM2 also runs my tick (tick.js). Two restarters make two PM2 daemons:\n              \
                  pm2 resurrect && pm2 delete 'my tick' && pm2 save\n";
    let cron = "DANGER      your crontab runs keep-alive.sh every 5 minutes. Remove that line: crontab -e\n";
    let end = "Not ready: 2 dangers. Fix them and run check again; it will then print your crontab line.\n";
    let output = check(&fake, &sandbox, &["--offline"], 1, &[delete, cron]);
    sandbox.assert(output.out.ends_with(end) && output.out.matches("DANGER").count() == 2, &output.out);

    let _daemon = fake.listen(std::slice::from_ref(&api));
    let saved = "DANGER      PM2's saved list still has my tick (tick.js). Remove it:\n              pm2 save\n";
    let output = check(&fake, &sandbox, &[], 1, &[saved]);
    sandbox.assert(output.out.contains("Not ready: 2 dangers."), &output.out);

    fake.save(&[fake.app("other", json!({}))]);
    let both = "Not ready: 1 danger, 1 problem. Fix them and run check again";
    check(&fake, &sandbox, &["--offline"], 1, &[cron, both]);
    fs::remove_file(sandbox.path("crontab")).expect("the file existed");
    fake.save(&[api]);
    check(&fake, &sandbox, &["--offline"], 0, &["Ready. Paste this"]);
    sandbox.configure("targets: [{name: plain, tcp: 'localhost:1', restart: 'true'}]\n");
    sandbox.write("crontab", "* * * * * keep-alive.sh\n");
    check(&fake, &sandbox, &["--offline"], 0, &["Ready. Paste this"]);
}
