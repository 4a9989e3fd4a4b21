//! Rule 5: start periods.

use super::{check, check_probes};

#[test]
fn after_an_attempt_the_target_is_probed_every_second_and_failures_do_not_count() {
    check("cooldown=0", "S F*3 ok F*30 F F F", "- failing+down+restart#1@90 - -@119 -@120 -@150 restart#2@180");
    check("start_period=0 cooldown=0", "S F*3 ok F*3", "- failing+down+restart#1@90 - restart#2@150");
    let three = "start_period=3";
    check_probes(three, "S F*3 +10 ok F*4 F", "a@0 a@30 a@60 a@90 a@100 a@101 a@102 a@103 a@120");
    check_probes("start_period=2 interval=500ms", "S F*3 ok F*4", "a@0 a@0.5 a@1 a@1.5 a@1.5 a@2 a@2.5 a@3");
    // A probe that began in the start period counts if its verdict arrives after the end.
    check("", "S F*3 ok F*29 F/5 F F", "- failing+down+restart#1@90 - -@118 -@124 -@150 restart#2@180");
    // A probe that runs when the command ends may finish.
    check_probes("", "S F*3 hang +5 ok +2 F F F", "a@0 a@30 a@60 a@90 a@120 a@128 a@129");
    // After a slow probe, the others stay at whole seconds.
    check_probes("", "S F*3 ok F/2.5 F F", "a@0 a@30 a@60 a@90 a@90 a@93 a@94");
}

#[test]
fn the_first_success_ends_the_start_period() {
    check("", "S F*3 ok F*5 S F*3", "- failing+down+restart#1@90 - -@94 cured#1@95 failing+down+restart#2@180");
    check_probes("", "S F*3 ok F*5 S S", "a@0 a@30 a@60 a@90 a@90 a@91 a@92 a@93 a@94 a@95 a@120");
}

#[test]
fn after_the_machines_boot_failures_do_not_count() {
    check("", "reboot/10 daemon F*20 F F F", "- - -@29 failing@30 -@40 down+restart#1@70");
    check("", "reboot/10 daemon F*5 S F*3", "- - -@14 -@15 failing+down+restart#1@100");
    check("", "reboot/30 daemon F*3", "- - failing+down+restart#1@90");
    check("", "S stop +1m reboot/10 daemon F*20 F F F", "- end -@60 -@70 - -@89 failing@90 -@100 down+restart#1@130");
    // Another watchdog in the same boot continues the start period, unless the target has been healthy since the boot.
    check("", "reboot/5 daemon F stop +5 daemon F*20 F", "- - - end - - -@29 failing@30");
    check("", "reboot/5 daemon S stop +5 daemon F*3", "- - - end - - failing+down+restart#1@70");
    check(
        "",
        "reboot/5 daemon F +5 pause resume stop daemon F*30 F",
        "- - - - paused..1810 resumed@10 end - - failing",
    );
    // It replaces a start period from before the boot.
    check("", "S F*3 ok +20 reboot/2 daemon F*28 F F F", "- failing+down+restart#1@90 - - - - - - - restart#1@172");
}
