//! As process 1 of a container, and where /proc shows little or nothing.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::place::{NEEDED, Place, Said, doing, need, send};

const PID_NAMESPACE: [&str; 5] = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"];

/// Fails where this machine does not let us have such a container.
fn need_container(place: &Place, starter: &[&str]) {
    let said = place.command_through(starter, &["--version"]).output().expect(NEEDED);
    need(said.status.success(), &format!("a container ({})", starter.join(" ")));
}

/// The children of a process, as the letters that /proc has for what they do.
fn children(parent: i32) -> Vec<(i32, char)> {
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let of = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()?;
        (of == parent).then(|| Some((pid, doing(pid)?)))?
    };
    pids.filter_map(child).collect()
}

#[test]
fn as_process_1_it_reaps_what_it_inherits_and_learns_how_its_commands_ended() {
    // Each leaves orphans that end a moment later: one in the group, one that became a daemon, one in its own session.
    let orphans = "sleep 0.1 & (setsid sleep 0.2 &) & (exec setsid sleep 0.05) &";
    let place = Place::with(&format!(
        "defaults: {{interval: 100ms, timeout: 5s, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, \
         max_cooldown: 100ms, max_restarts: 100}}\ntargets:\n  - {{name: well, command: '{orphans} exit 0'}}\n  \
         - {{name: ill, command: test ! -e ill || exit 3, restart: '{orphans} echo >> restarts; exit 4'}}\n"
    ));
    need_container(&place, &PID_NAMESPACE);
    let mut unshare = place.daemon_by(place.command_through(&PID_NAMESPACE, &["-v", "run"]));
    let inits = children(unshare.pid());
    let [(init, _)] = inits[..] else { panic!("{inits:?}\n{}", place.story()) };
    place.told("ill healthy");
    place.write("ill", "");
    let looks = || place.log().matches("well healthy").count();
    place.eventually("it was probed and has restarted often", || looks() > 30 && place.lines("restarts").len() > 4);
    // Those that end now are not reaped before they have ended.
    let is_zombie = |(_, state): &(i32, char)| *state == 'Z';
    let orphaned = || children(init).iter().filter(|child| is_zombie(child)).count();
    let before = looks();
    let mut fewest = usize::MAX;
    place.eventually("nobody is left dead", || {
        fewest = fewest.min(orphaned());
        fewest == 0 && looks() > before + 5
    });
    place.demand(!place.log().contains("unknown"), "each probe's ending was learnt");
    place.demand(place.events("restart_done").iter().all(|done| done["code"] == 4), "and each command's");

    send(init, Signal::TERM);
    let status = unshare.child.wait().expect("a child can be waited for");
    place.demand(status.code() == Some(0), &format!("process 1 heeds SIGTERM: {status:?}"));
    place.demand(place.events("stopped").len() == 1, "and says so");
}

#[test]
fn without_proc_it_says_what_is_missing() {
    let starter = ["unshare", "--mount", "sh", "-c", "umount -l /proc && exec \"$0\" \"$@\""];
    let place = Place::with("targets:\n  - {name: app, command: 'true'}\n");
    // In a namespace of another user, what was mounted before could not be taken away one by one.
    need_container(&place, &starter);
    let said = Said::new(place.command_through(&starter, &["--once"]).output().expect(NEEDED));
    place.demand(said.code == Some(4), &format!("{said:?}"));
    place.demand((said.out + &said.err).contains("is /proc mounted"), "what is missing is named");
}

/// On many shared hosts: other accounts' processes cannot be seen.
#[test]
fn where_proc_hides_others_it_works_as_ever() {
    const NOBODY: u32 = 65_534;
    let place = Place::with(
        "targets:\n  - {name: app, failure_threshold: 1, command: 'test -e well || { trap \"\" TERM; while :; do sleep \
         0.1; done; }', timeout: 1s, restart: touch well}\n",
    );
    need(rustix::process::geteuid().is_root(), "root");
    let program = place.path("program");
    fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("copied");
    for path in [place.home(), &place.path("watchdog.yaml"), &program] {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let line = "mount -t proc -o hidepid=2 proc /proc && test ! -e /proc/2 || exit 99; exec setpriv --reuid=65534 \
                --regid=65534 --clear-groups ./program --once";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "sh", "-c", line]).current_dir(place.home());
    let said = Said::new(command.env("HOME", place.home()).stdin(Stdio::null()).output().expect(NEEDED));
    need(said.code != Some(99) && !said.err.contains("unshare"), &format!("/proc mounted with hidepid: {said:?}"));
    place.demand(said.code == Some(0), &format!("{said:?}"));
    place.demand(place.events("up").len() == 1, "it has repaired");
    place.eventually("nobody is left", || place.processes().is_empty());
}
