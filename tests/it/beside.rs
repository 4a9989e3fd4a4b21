//! `check` beside PM2: what it tells of PM2 before the outage does, and who else restarts what is watched.

use std::fs;

use serde_json::json;

use crate::fakepm2::FakePm2;
use crate::faults::{Server, Ways};
use crate::place::{Place, Said};

fn configure(place: &Place, rest: &str) {
    place.configure(&format!("env: {{PATH: '{}/bin:/usr/bin:/bin'}}\ntargets:\n  - {rest}\n", place.home().display()));
}

/// Exit code and what is said.
#[track_caller]
fn check(fake: &FakePm2<'_>, place: &Place, words: &[&str], code: i32, says: &[&str]) -> Said {
    let said = fake.run(&[&["check"], words].concat());
    place.demand(said.code == Some(code) && said.err.is_empty(), &format!("exit code {code}: {said:?}"));
    for words in says {
        place.demand(said.out.contains(words), &format!("`{words}` is said:\n{}", said.out));
    }
    said
}

#[test]
fn pm2_that_is_in_order_is_shown_as_it_is() {
    let place = Place::with("");
    let fake = FakePm2::new(&place);
    let server = Server::start(Ways::answer("200 OK", ""));
    let apps = [fake.app("api", json!({"pid": 4821}))];
    place.write("eco.config.js", "x = {apps: [{name: 'api', script: './server.js', cwd: './app'}]}");
    let http = format!("http: 'http://localhost:{}/health'", server.port());
    configure(&place, &format!("{{{http}, pm2: {{process: api, config: eco.config.js, reset: true}}}}"));
    fake.save(&apps);
    let daemon = fake.daemon(&apps);
    let orphan = format!("2  reset PM2: only when it is stuck or an orphan holds port {}, and only", server.port());
    let says = [
        "1  pm2 restart api   (pm2 resurrect when PM2 is dead; ~/eco.config.js when nothing else brings it back)\n",
        &orphan,
        "\n  PM2 7.0.4   alive, list saved; api online, pid 4821\n",
        "In cron (PATH=/usr/bin:/bin)  node: ",
        "Ready. Paste this",
    ];
    check(&fake, &place, &[], 0, &[&says[..3], &says[4..]].concat());
    assert_eq!(fake.calls(), ["jlist -s"]);
    check(&fake, &place, &["--offline"], 0, &["  PM2 7.0.4   alive, list saved; whether api runs is unknown\n"]);
    assert_eq!(fake.calls(), ["jlist -s"], "PM2 is not asked offline");
    drop(daemon);
    let dead = "  PM2 7.0.4   dead, list saved; a repair starts it again when the target is down\n";
    check(&fake, &place, &[], 0, &[dead, "pm2: found through env.PATH   node: found through env.PATH"]);
    assert_eq!(fake.calls(), ["jlist -s"], "a dead daemon is not asked");
}

#[test]
fn what_pm2_would_fail_at_is_told() {
    let place = Place::with("");
    let fake = FakePm2::new(&place);
    let offline = |rest: &str, code: i32, says: &[&str]| {
        configure(&place, rest);
        check(&fake, &place, &["--offline"], code, says);
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
    place.write("eco.js", "x = {apps: [{name: 'api2', namespace: 'api'}]}; // name: 'api'");
    offline(
        "pm2: {process: api, config: eco.js}",
        1,
        &["PROBLEM     the ecosystem file ~/eco.js has no process api: pm2 start would start nothing"],
    );
    place.write("eco.js", "x = {apps: [{name: 'api'}]}");
    let hint = "api is not in the saved list: a repair starts it from config and loses the others. Fix: pm2 save";
    offline("pm2: {process: api, config: eco.js}", 0, &[hint, "Ready."]);
    let elsewhere = "PROBLEM     no PM2 in ~/gone: no such folder; ~/.pm2 exists\n";
    offline("pm2: {process: api, home: gone}", 1, &[elsewhere]);
    place.write(".pm2/dump.pm2", "{");
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
fn a_living_pm2_that_lost_the_process_or_never_saved_it_is_told() {
    let place = Place::with("");
    let fake = FakePm2::new(&place);
    configure(&place, "pm2: api");
    let daemon = fake.daemon(&[fake.app("other", json!({}))]);
    let lost = "PROBLEM     PM2 in ~/.pm2 has no process api; it has other\n";
    check(&fake, &place, &[], 1, &["alive, no list saved; api is not in PM2's list\n", lost]);
    drop(daemon);
    fs::remove_file(place.path(".pm2/rpc.sock")).expect("a socket");
    let two = [fake.app("api", json!({"pid": 1})), fake.app("api", json!({"pid": 2, "status": "errored"}))];
    let _daemon = fake.daemon(&two);
    let unsaved = "PROBLEM     api is not in PM2's saved list, so a reboot would lose it. Fix: pm2 save\n";
    check(&fake, &place, &[], 1, &["api online, 1 of 2 instances\n", unsaved]);
    fake.program("pm2", "exit 3");
    let failed = "PROBLEM     PM2 in ~/.pm2 did not list its processes: pm2 jlist exited with 3\n";
    check(&fake, &place, &[], 1, &[failed]);
}

#[cfg(feature = "full-tests")]
#[test]
fn pm2_that_takes_connections_and_says_nothing_is_told() {
    let place = Place::with("");
    let fake = FakePm2::new(&place);
    configure(&place, "pm2: api");
    fake.save(&[fake.app("api", json!({}))]);
    let _daemon = fake.daemon(&[]);
    fake.program("pm2", "exec sleep 60");
    let silent = "PROBLEM     PM2's daemon accepts connections but has not answered for 10 s";
    check(&fake, &place, &[], 1, &["unreachable, list saved; whether api runs is unknown", silent]);
}

#[test]
fn pm2_that_cron_would_not_find_is_told() {
    let place = Place::with("targets: [{pm2: api}]\n");
    let fake = FakePm2::new(&place);
    fake.save(&[fake.app("api", json!({}))]);
    let finds = "PROBLEM     under cron: command not found: pm2 (PATH=/usr/bin:/bin). Fix: set PATH under env:";
    check(&fake, &place, &["--offline"], 1, &[finds]);
    place.write("bin/pm2", "#!/usr/bin/env node-of-pm2\n");
    configure(&place, "pm2: api");
    let needs = "PROBLEM     pm2 needs node-of-pm2: command not found: node-of-pm2 (PATH=";
    check(&fake, &place, &["--offline"], 1, &[needs]);
}

#[test]
fn whoever_else_restarts_it_is_a_danger_until_it_is_gone() {
    let place = Place::with("");
    let fake = FakePm2::new(&place);
    configure(&place, "pm2: api");
    place.write("tick.js", "setInterval(() => exec('pm2 restart api'), 1000)\n");
    place.write("crontab", "# pm2 restart\n*/5 * * * * /x/keep-alive.sh\n@reboot pm2 resurrect\n0 3 * * * backup.sh\n");
    let tick = json!({"pm_exec_path": place.path("tick.js")});
    let api = fake.app("api", json!({"pm_exec_path": place.path("tick.js")}));
    fake.save(&[api.clone(), fake.app("my tick", tick)]);
    let delete = "DANGER      PM2 also runs my tick (tick.js). Two restarters make two PM2 daemons:\n              \
                  pm2 resurrect && pm2 delete 'my tick' && pm2 save\n";
    let cron = "DANGER      your crontab runs keep-alive.sh every 5 minutes. Remove that line: crontab -e\n";
    let end = "Not ready: 2 dangers. Fix them and run check again; it will then print your crontab line.\n";
    let said = check(&fake, &place, &["--offline"], 1, &[delete, cron]);
    place.demand(said.out.ends_with(end) && said.out.matches("DANGER").count() == 2, &said.out);

    let _daemon = fake.daemon(std::slice::from_ref(&api));
    let saved = "DANGER      PM2's saved list still has my tick (tick.js). Remove it:\n              pm2 save\n";
    let said = check(&fake, &place, &[], 1, &[saved]);
    place.demand(said.out.contains("Not ready: 2 dangers."), &said.out);

    fake.save(&[fake.app("other", json!({}))]);
    let both = "Not ready: 1 danger, 1 problem. Fix them and run check again";
    check(&fake, &place, &["--offline"], 1, &[cron, both]);
    fs::remove_file(place.path("crontab")).expect("it was there");
    fake.save(&[api]);
    check(&fake, &place, &["--offline"], 0, &["Ready. Paste this"]);
    place.configure("targets: [{name: plain, tcp: 'localhost:1', restart: 'true'}]\n");
    place.write("crontab", "* * * * * keep-alive.sh\n");
    check(&fake, &place, &["--offline"], 0, &["Ready. Paste this"]);
}
