//! Rule 9: times in which the watchdog itself did not run. Rule 10: what a reboot ends.

use super::harness::Harness;
use super::{begin, check, check_probes, check_waiting};
use crate::policy::Event;

impl Harness {
    /// Delays the policy's next step by `span` ms: it waits for an event (`stall`), works (`work`), or is stopped while
    /// it works (`work!`).
    pub(super) fn delay(&mut self, verb: &str, span: i64) {
        let begun = self.clock();
        self.now += span;
        let over = self.clock();
        let policy = self.policy.as_mut().expect("a watchdog runs");
        policy.wait_ended(begun, begun);
        policy.wait_ended(if verb == "stall" { begun } else { over }, over);
        if verb == "work!" {
            policy.was_suspended(over);
        }
        self.deliver(Event::Wake);
    }
}

#[test]
fn a_late_wake_up_sets_all_streaks_to_0() {
    // A gap is a delay of more than 2 × 30 s + 10 s after the probe was due.
    check("", "S F*2 stall/100 F", "- failing - down+restart#1");
    check("", "S F*2 stall/100.001 F*3", "- failing stalled..70.001 failing+down+restart#1");
    // At least 3 s.
    check("interval=500ms timeout=500ms", "S F*2 stall/3.5 F", "- failing@1 - down+restart#1");
    check("interval=500ms timeout=500ms", "S F*2 stall/3.6 F*3", "- failing@1 stalled..3.1 failing+down+restart#1");
    // A watchdog that was working did run. It may still have a gap later.
    let quick = "interval=500ms timeout=500ms";
    check(quick, "S F*2 work/30 F", "- failing@1 - down+restart#1");
    check(quick, "S F*2 work/30.001 F*3", "- failing@1 stalled..29.501 failing+down+restart#1");
    check(quick, "S F*2 work!/3.5 F", "- failing@1 - down+restart#1");
    check(quick, "S F*2 work!/3.6 F*3", "- failing@1 stalled..3.1 failing+down+restart#1");
    check(quick, "S F work/30 F stall/3.6 F*3", "- failing - - stalled..3.1 failing+down+restart#1");
    // One event for all targets, whichever of them was delayed.
    check(
        "|b interval=5m",
        "S b.S b.F*2 F*2 stall/2m F*3 b.F",
        "- - b.failing failing stalled..90@750 failing+down+restart#1@810 b.failing",
    );
    check(
        "",
        "S F*3 ok +30 F stall/10m F F F",
        "- failing+down+restart#1@90 - -@120 -@150 stalled..570 - - restart#2@810",
    );
    // The schedule is unchanged.
    check_probes("", "S stall/134 S S", "a@0 a@134 a@150");
}

#[test]
fn the_result_of_a_probe_that_spans_a_gap_is_ignored() {
    check("failure_threshold=1", "S hang stall/81 F F", "- - stalled..71 -@111 failing+down+restart#1@120");
    check("failure_threshold=1", "S hang stall/80 F F", "- - - - failing+down+restart#1@120");
    check("failure_threshold=1", "S F*3 hang stall/2m S S", "- failing+down+restart#1@90 - stalled..110@240 - cured#1");
}

#[test]
fn a_probe_that_took_over_twice_its_timeout_is_unknown() {
    check("failure_threshold=1", "S F/20", "- failing+down+restart#1");
    check("failure_threshold=1", "S F/20.001 F", "- - failing+down+restart#1");
    check("failure_threshold=1", "S F S/20.001 S", "- failing+down+restart#1 - cured#1");
}

#[test]
fn a_gap_counts_neither_as_health_nor_as_verification() {
    check(
        "rungs=2",
        "S F*3 fail stall/1h F*5 F",
        "- failing+down+restart#1.1@90 - stalled..3590@3690 -@3694 restart#1.2@3695",
    );
    check("rungs=2", "S F*3 fail stall/1h S S", "- failing+down+restart#1.1@90 - stalled..3590@3690 - cured#1@3691");
    let stable = "stable_after=5m cooldown=0 rungs=2";
    check(
        stable,
        "S F*3 ok S stall/10m S F*3",
        "- failing+down+restart#1.1@90 - cured#1 stalled..570 - failing+down+restart#2.2@780",
    );
}

#[test]
fn in_ticks_and_new_daemons_an_old_streak_is_0() {
    check("", "S F*2 stop +30m daemon F", "- failing end - - down+restart#1");
    check("", "S F*2 stop +1801 daemon F*3", "- failing end - - failing+down+restart#1");
    check("", "tick S tick F tick F +30m tick F ok", "- end - failing+end - end - - down+restart#1 -");
    let minutes = "tick S +1m tick S +1m tick F +1m tick F";
    check("", &format!("{minutes} +30m tick F ok"), "- end - - end - - failing+end - - end - - down+restart#1 -");
    check("", &format!("{minutes} +1801 tick F"), "- end - - end - - failing+end - - end - - failing+end");
    // If ticks are rare, three of their distances, known from the second tick on.
    let hours = "interval=1h";
    check(hours, "tick S +1h tick F +1h tick F +3h tick F", "- end - - failing+end - - end - - down+restart#1");
    check(hours, "tick S +1h tick F +1h tick F +10801 tick F", "- end - - failing+end - - end - - failing+end");
    check(hours, "tick S +1h tick F +1h tick F +1801 daemon F", "- end - - failing+end - - end - - failing");
    // What would be a gap in a daemon is only a late probe in a tick.
    check("", "tick S tick hang stall/1h F", "- end - - - end");
}

#[test]
fn a_reboot_ends_streak_cooldown_and_episode_but_not_the_window() {
    check("", "S F*2 reboot/1m daemon F F F", "- failing - - failing - down+restart#1");
    let long = "cooldown=30m max_cooldown=30m rungs=2 start_period=0";
    check(long, "S F*3 ok reboot/1m daemon F*3", "- failing+down+restart#1.1@90 - - - restart#1.1@210");
    check("max_restarts=1", "S F*3 ok reboot/1m daemon F*3", "- failing+down+restart#1@90 - - - held:limit..3690@210");
    check(
        "only_if=yes cooldown=5m",
        "S F*3 no reboot/1m daemon F*3",
        "- failing+down+ask@90 held:only_if..390 - - ask@210",
    );
    check_waiting("max_restarts=1", "S F*3 ok +2m reboot", "- - - limit..3690 -");
    check("", "S F*3 ok F reboot/1m daemon F*3", "- failing+down+restart#1@90 - - - - restart#1@210");
    check("", "S pause/1h reboot/1m daemon F*3", "- paused..3600 -@60 - failing");
    // The new watchdog ends an attempt that the reboot interrupted, and its cooldown begins then.
    check("rungs=2", "S F*3 reboot/1m daemon F*30 F*3", "- failing+down+restart#1.1@90 - lost - restart#1.1@240");
}

#[test]
fn what_was_found_at_each_address_is_kept_only_if_it_counts() {
    let mut harness = begin("", "");
    let mut found = |tokens: &[&str]| {
        tokens.iter().for_each(|token| drop(harness.play(token)));
        let probe = harness.target().last_probe.expect("it was probed");
        (probe.verdict.as_str(), probe.addresses.len())
    };
    assert_eq!(found(&["S"]), ("healthy", 1));
    assert_eq!(found(&["F"]), ("unhealthy", 1));
    // The result is unknown, whatever was found: the watchdog was held up, or the probe took over 2 × 10 s.
    assert_eq!(found(&["hang", "stall/2m", "F"]), ("unknown", 0));
    assert_eq!(found(&["F/20"]), ("unhealthy", 1));
    assert_eq!(found(&["F/20.001"]), ("unknown", 0));
}
