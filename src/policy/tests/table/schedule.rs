//! Rule 13 and `retry_interval`: when targets are probed.

use super::{check, check_probes};

#[test]
fn probes_keep_a_fixed_schedule() {
    check_probes("", "S/3 S/9 F/1 F S", "a@0 a@30 a@60 a@90 a@120");
    check_probes("interval=100ms timeout=100ms", "S S S", "a@0 a@0.1 a@0.2");
    // A missed slot is skipped.
    check_probes("timeout=90s", "S/20 S/65 S/60 S", "a@0 a@30 a@120 a@210");
    check_probes("interval=100ms timeout=100ms", "S/0.25 S", "a@0 a@0.3");
}

#[test]
fn after_a_failed_probe_retry_interval_applies() {
    let quick = "interval=30s retry_interval=5s";
    check_probes(quick, "S F F F S S", "a@0 a@30 a@35 a@40 a@45 a@60");
    check_probes(quick, "S F/3 F/6 F U S S", "a@0 a@30 a@35 a@45 a@50 a@55 a@60");
    check(quick, "S F F F", "- failing@30 -@35 down+restart#1@40");
    // Also while the target stays down.
    check_probes("interval=30s retry_interval=10s rungs=0", "S F*3 +29", "a@0 a@30 a@40 a@50 a@60 a@70");
}

#[test]
fn more_than_10_targets_are_spread_over_the_interval() {
    check_probes("a|b|c|d|e|f|g|h|i|j", "+29", "a@0 b@0 c@0 d@0 e@0 f@0 g@0 h@0 i@0 j@0");
    let eleven = "a I|b I|c I|d I|e I|f I|g I|h I|i I|j I|k I".replace('I', "interval=22s");
    check_probes(&eleven, "+23", "a@0 b@2 c@4 d@6 e@8 f@10 g@12 h@14 i@16 j@18 k@20 a@22");
    // But not in ticks or in a start period.
    let eleven = "a|b|c|d|e|f|g|h|i|j|k";
    check_probes(eleven, "tick +1", "a@0 b@0 c@0 d@0 e@0 f@0 g@0 h@0 i@0 j@0 k@0");
    check_probes(eleven, "reboot/5 daemon k.F k.S", "a@5 b@5 c@5 d@5 e@5 f@5 g@5 h@5 i@5 j@5 k@5 k@6");
}

#[test]
fn trouble_of_one_target_never_delays_probes_of_another() {
    check_probes("|b", "S b.S hang +59", "a@0 b@0 a@30 b@30 b@60");
    check_probes("|b", "S b.S F*3 +59", "a@0 b@0 a@30 b@30 a@60 b@60 a@90 b@90 a@120 b@120");
}
