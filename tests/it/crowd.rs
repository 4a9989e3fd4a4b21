//! Many targets in trouble at once: each has its repair in its turn, and one that is well is probed as ever.

use std::fs;

use crate::place::{Place, count};

/// As many fit into the half second between two probes.
const FSYNCS: usize = 10;

/// All in one file, in the order in which it happened: each fsync, which takes 50 ms; each probe of the target that is
/// well; and the begin and the end of each restart command.
#[test]
fn a_crowd_that_fails_at_once_is_repaired_in_turn_and_delays_no_probe() {
    let size = count("CROWD", 20);
    let target = |n: usize| {
        let restart = format!("echo begin t{n} >> tape; echo end t{n} >> tape");
        format!("  - {{name: t{n}, file: {{path: well, max_age: 1d}}, restart: '{restart}'}}\n")
    };
    let crowd: String = (0..size).map(target).collect();
    let place = Place::with(&format!(
        "defaults: {{interval: 500ms, timeout: 1s, failure_threshold: 1, start_period: 0s, cooldown: 1d, \
         max_cooldown: 1d}}\ntargets:\n  - {{name: healthy, command: echo probe >> tape}}\n{crowd}"
    ));
    place.write("well", "");
    let mut command = place.command(&["run"]);
    command.env("LD_PRELOAD", place.library("slow.c")).env("DISK_MS", "50").env("DISK_TAPE", place.path("tape"));
    let _daemon = place.daemon_by(command);
    place.eventually("all are healthy", || {
        let status = place.status();
        status["targets"].as_array().is_some_and(|all| all.iter().all(|target| target["state"] == "healthy"))
    });
    let before = place.lines("tape").len();
    fs::remove_file(place.path("well")).expect("it is there");
    let named = |word: &str| -> Vec<String> {
        place.lines("tape").iter().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect()
    };
    place.eventually("each has had its command", || named("end ").len() >= size);

    let down: Vec<String> =
        place.events("down").iter().filter_map(|event| event["target"].as_str().map(str::to_owned)).collect();
    place.demand(named("begin ") == down, &format!("first come, first served: {:?}", named("begin ")));
    let tape = place.lines("tape").split_off(before);
    let commands: Vec<&str> = tape.iter().filter_map(|line| line.split_once(' ')).map(|(word, _)| word).collect();
    place.demand(commands.chunks(2).all(|pair| pair == ["begin", "end"]), &format!("one at a time: {tape:?}"));
    let fsyncs = |part: &[String]| part.iter().filter(|line| *line == "fsync").count();
    // A save is one of the file and one of its folder: before a command, after it, and one for good measure.
    place.demand(fsyncs(&tape) <= 6 * size, &format!("{} fsyncs: {tape:?}", fsyncs(&tape)));
    let worst = tape.split(|line| line == "probe").map(fsyncs).max();
    place.demand(worst <= Some(3 * FSYNCS), &format!("{worst:?} fsyncs between two probes: {tape:?}"));
}
