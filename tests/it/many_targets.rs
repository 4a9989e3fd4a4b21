//! Many targets that fail at once: they are repaired one after another, and a healthy target is probed as usual.

use std::fs;

use crate::sandbox::{Sandbox, env_count};

/// As many as fit into the half second between two probes.
const FSYNCS: usize = 10;

/// One file, the tape, records in order: each fsync, which takes 50 ms; each probe of the healthy target; the begin and
/// the end of each restart command.
#[test]
fn many_targets_that_fail_at_once_are_repaired_in_order_without_delaying_probes() {
    let size = env_count("CROWD", 20);
    let target = |n: usize| {
        let restart = format!("echo begin t{n} >> tape; echo end t{n} >> tape");
        format!("  - {{name: t{n}, file: {{path: well, max_age: 1d}}, restart: '{restart}'}}\n")
    };
    let crowd: String = (0..size).map(target).collect();
    let sandbox = Sandbox::new(&format!(
        "defaults: {{interval: 500ms, timeout: 1s, failure_threshold: 1, start_period: 0s, cooldown: 1d, \
         max_cooldown: 1d}}\ntargets:\n  - {{name: healthy, command: echo probe >> tape}}\n{crowd}"
    ));
    sandbox.write("well", "");
    let mut command = sandbox.command(&["run"]);
    command
        .env("LD_PRELOAD", sandbox.build_preload("slow.c"))
        .env("DISK_MS", "50")
        .env("DISK_TAPE", sandbox.path("tape"));
    let _daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("all targets are healthy", || {
        let status = sandbox.status();
        status["targets"].as_array().is_some_and(|all| all.iter().all(|target| target["state"] == "healthy"))
    });
    let before = sandbox.lines("tape").len();
    fs::remove_file(sandbox.path("well")).expect("the file exists");
    let named = |word: &str| -> Vec<String> {
        sandbox.lines("tape").iter().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect()
    };
    sandbox.eventually("each target was restarted", || named("end ").len() >= size);

    let down: Vec<String> =
        sandbox.events("down").iter().filter_map(|event| event["target"].as_str().map(str::to_owned)).collect();
    sandbox.assert(named("begin ") == down, &format!("first come, first served: {:?}", named("begin ")));
    let tape = sandbox.lines("tape").split_off(before);
    let commands: Vec<&str> = tape.iter().filter_map(|line| line.split_once(' ')).map(|(word, _)| word).collect();
    sandbox
        .assert(commands.chunks(2).all(|pair| pair == ["begin", "end"]), &format!("one command at a time: {tape:?}"));
    let fsyncs = |part: &[String]| part.iter().filter(|line| *line == "fsync").count();
    // A save needs two fsyncs, of the file and of its folder. It happens before a command and after it; one more is
    // allowed.
    sandbox.assert(fsyncs(&tape) <= 6 * size, &format!("{} fsyncs: {tape:?}", fsyncs(&tape)));
    let worst = tape.split(|line| line == "probe").map(fsyncs).max();
    sandbox.assert(worst <= Some(3 * FSYNCS), &format!("{worst:?} fsyncs between two probes: {tape:?}"));
}
