//! Rules 4 and 10 to 12: the rungs of an attempt, its end, and the cooldown after it.

use super::check;

#[test]
fn attempt_k_starts_at_rung_k() {
    let three = "rungs=3 start_period=0 cooldown=1";
    let expected = "- failing+down+restart#1.1 - restart#2.2 - restart#3.3 - restart#4.1";
    check(three, "S F*3 ok F*3 ok F*3 ok F*3", expected);
    check(
        "rungs=2 start_period=0 cooldown=0",
        "S F*3 ok F*3 ok F*3",
        "- failing+down+restart#1.1 - restart#2.2 - restart#3.1",
    );
}

#[test]
fn after_a_failed_command_the_next_rung_runs() {
    for exit in ["fail", "killed", "late"] {
        let script = format!("S F*3 {exit} F*5 F ok");
        check("rungs=2", &script, "- failing+down+restart#1.1@90 -@90 -@94 restart#1.2@95 -");
    }
    check("rungs=2", "S F*3 ok F*5 F", "- failing+down+restart#1.1@90 - -@94 -@95");
    for exit in ["missing", "127"] {
        let script = format!("S F*3 {exit} ok F*5");
        check("rungs=2", &script, "- failing+down+restart#1.1@90 restart#1.2@90 - -@94");
    }
    let expected = "- failing+down+restart#1.1@90 restart#1.2@90 restart#1.3@90 -@90 -@94";
    check("rungs=3", "S F*3 missing missing fail F*5", expected);
    let expected = "- failing+down+restart#1.1@90 - restart#1.2@95 - restart#1.3@100 - -@130";
    check("rungs=3", "S F*3 fail +5 fail +5 fail +30", expected);
    check("rungs=2", "S F*3 fail reload:rungs=1 +20", "- failing+down+restart#1.1 - - -");
    // The ladder ends with its last rung.
    let expected = "- failing+down+restart#1.1 - restart#2.2 - restart#2.3 - -";
    check("rungs=3 start_period=0", "S F*3 ok F*3 fail +5 fail +5", expected);
    // The start period follows the last rung at once, without verification.
    check("", "S F*3 fail +28 S", "- failing+down+restart#1@90 - - cured#1@119");
    check("", "S F*3 fail +29 S", "- failing+down+restart#1@90 - - up#1@120");
    // A hanging probe is too late for the verification, but its verdict still ends the attempt.
    check(
        "rungs=2",
        "S F*3 fail hang +4 +1 S ok",
        "- failing+down+restart#1.1@90 - - -@94 restart#1.2@95 cured#1@95 -",
    );
}

#[test]
fn a_healthy_verdict_a_pause_or_a_stop_ends_an_attempt() {
    check("rungs=2", "S F*3 fail F*2 S +10m", "- failing+down+restart#1.1 - - cured#1@92 -");
    check("rungs=2", "S F*3 F S F fail F*9", "- failing+down+restart#1.1@90 - cured#1@150 - -@180 -@188");
    check("rungs=2", "S F*3 pause fail +20m", "- failing+down+restart#1.1@90 paused..1890 - held:paused..1890");
    check("rungs=2", "S F*3 fail pause +20m", "- failing+down+restart#1.1@90 - paused..1890 held:paused..1890");
    check("rungs=2", "S F*3 stop fail", "- failing+down+restart#1.1 - end");
    check("rungs=2", "S F*3 stop +30 ok", "- failing+down+restart#1.1 - - end");
    check("rungs=2", "S F*3 fail stop +1m", "- failing+down+restart#1.1 - end -");
    // No other attempt begins.
    check("", "S F*2 stop +10m", "- failing end -");
    check("|b", "S b.S b.F*3 F*3 stop b.ok", "- - b.failing+b.down+b.restart#1 failing+down+held:busy - end");
    check("only_if=yes", "S F*3 stop", "- failing+down+ask end");
}

#[test]
fn the_cooldown_doubles_once_every_rung_has_been_tried() {
    let bare = "start_period=0 interval=1s timeout=1s failure_threshold=1 max_restarts=100";
    check(bare, "S F ok +59 +1", "- failing+down+restart#1@1 - held:cooldown..61@60 restart#2@61");
    let script = "S F ok +60 ok +119 +1 ok +239 +1 ok +479 +1 ok +599 +1 ok +599 +1";
    let expected = "- failing+down+restart#1@1 - held:cooldown..61+restart#2@61 - - restart#3@181 - - restart#4@421 \
                    - - restart#5@901 - - restart#6@1501 - - restart#7@2101";
    check(bare, script, expected);
    let script = "S F ok +60 ok +60 ok +60 ok +119 +1 ok +240 ok +480 ok +599 +1";
    let expected = "- failing+down+restart#1.1@1 - held:cooldown..61+restart#2.2@61 - restart#3.3@121 - \
                    restart#4.1@181 - - restart#5.2@301 - restart#6.3@541 - restart#7.1@1021 - - restart#8.2@1621";
    check(&format!("{bare} rungs=3"), script, expected);
    check(&format!("{bare} cooldown=0"), "S F ok F ok F", "- failing+down+restart#1 - restart#2 - restart#3");
    // The cooldown begins with the attempt's end, however long its command takes.
    check(bare, "S F +60 ok +59 +1", "- failing+down+restart#1@1 - - held:cooldown..121@120 restart#2@121");
}

#[test]
fn an_episode_ends_after_a_long_time_of_health() {
    let quick = "start_period=0 interval=10s failure_threshold=1 stable_after=10m cooldown=1s max_cooldown=1h rungs=2";
    check(quick, "S F ok S +590 F", "- failing+down+restart#1.1@10 - up#1@10 - failing+down+restart#2.2@610");
    check(quick, "S F ok S +600 F", "- failing+down+restart#1.1@10 - up#1@10 - failing+down+restart#1.1@620");
    // Going down restarts that time; a single failure does not.
    let expected = "- failing+down+restart#1.1 - up#1@10 - failing+down+restart#2.2@320 - up#1@320 - \
                    failing+down+restart#3.1@920";
    check(quick, "S F ok S +300 F ok S +590 F", expected);
    let tolerant = "stable_after=1m rungs=2";
    check(
        tolerant,
        "S F*3 ok S F S +30 F*3",
        "- failing+down+restart#1.1@90 - cured#1 failing - - failing+down+restart#1.1@270",
    );
    // A running cooldown continues after the episode.
    let long = "failure_threshold=1 interval=10s stable_after=1m cooldown=20m max_cooldown=20m";
    check(long, "S F ok S +2m F", "- failing+down+restart#1@10 - cured#1 - failing+down+held:cooldown..1210");
}

#[test]
fn an_attempt_without_a_started_command_counts_for_the_cooldown_only() {
    for exit in ["missing", "127"] {
        let quick = "max_restarts=1 interval=1s failure_threshold=1 start_period=0";
        let script = format!("S F {exit} +59 +1");
        check(quick, &script, "- failing+down+restart#1 warn:cannot_repair held:cooldown..61@60 restart#2@61");
        let script = format!("S F*3 {exit} fail +2m");
        check("max_restarts=1 rungs=2", &script, "- failing+down+restart#1.1 restart#1.2 - held:limit..3690");
        let script = format!("S F*3 fail +5 {exit} +2m");
        check("max_restarts=1 rungs=2", &script, "- failing+down+restart#1.1 - restart#1.2 - held:limit..3690");
    }
    check(
        "max_restarts=1 rungs=2",
        "S F*3 missing missing +2m missing",
        "- failing+down+restart#1.1@90 restart#1.2@90 warn:cannot_repair restart#2.2@210 -",
    );
    check(
        "rungs=2",
        "S F*3 missing missing there +2m missing",
        "- failing+down+restart#1.1@90 restart#1.2@90 warn:cannot_repair - restart#2.2@210 warn:cannot_repair",
    );
    check("rungs=2", "S F*3 pause missing", "- failing+down+restart#1.1@90 paused..1890 warn:cannot_repair");
}
