//! The watchdog as process 1 of a container, and with a restricted or missing /proc.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, process_state, require, send_signal};

const PID_NAMESPACE: [&str; 5] = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"];

/// Fails if this machine does not allow such a container.
pub(crate) fn require_container(sandbox: &Sandbox, starter: &[&str]) {
    let output = sandbox.command_through(starter, &["--version"]).output().expect(MISSING_PROGRAM);
    require(output.status.success(), &format!("a container ({})", starter.join(" ")));
}

/// The children of a process with their state letters from /proc.
pub(crate) fn children(parent: i32) -> Vec<(i32, char)> {
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let of = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()?;
        (of == parent).then(|| Some((pid, process_state(pid)?)))?
    };
    pids.filter_map(child).collect()
}

#[test]
fn as_process_1_it_reaps_orphans_and_knows_how_its_commands_ended() {
    // Each command leaves orphans that end a moment later: one in its process group, one daemon, and one in its own
    // session.
    let orphans = "sleep 0.1 & (setsid sleep 0.2 &) & (exec setsid sleep 0.05) &";
    let sandbox = Sandbox::new(&format!(
        "defaults: {{interval: 100ms, timeout: 5s, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, \
         max_cooldown: 100ms, max_restarts: 100}}\ntargets:\n  - {{name: well, command: '{orphans} exit 0'}}\n  \
         - {{name: ill, command: test ! -e ill || exit 3, restart: '{orphans} echo >> restarts; exit 4'}}\n"
    ));
    require_container(&sandbox, &PID_NAMESPACE);
    let mut unshare = sandbox.start_daemon_from(sandbox.command_through(&PID_NAMESPACE, &["-v", "run"]));
    let inits = children(unshare.pid());
    let [(init, _)] = inits[..] else { panic!("{inits:?}\n{}", sandbox.dump()) };
    sandbox.wait_for_log("ill healthy");
    sandbox.write("ill", "");
    let probes = || sandbox.log().matches("well healthy").count();
    sandbox
        .eventually("many probes and restarts have happened", || probes() > 30 && sandbox.lines("restarts").len() > 4);
    // Orphans exit all the time, so a few may be zombies at any moment.
    let is_zombie = |(_, state): &(i32, char)| *state == 'Z';
    let zombies = || children(init).iter().filter(|child| is_zombie(child)).count();
    let before = probes();
    let mut fewest_zombies = usize::MAX;
    sandbox.eventually("no zombie is left", || {
        fewest_zombies = fewest_zombies.min(zombies());
        fewest_zombies == 0 && probes() > before + 5
    });
    sandbox.assert(!sandbox.log().contains("unknown"), "the exit code of each probe is known");
    sandbox.assert(
        sandbox.events("restart_done").iter().all(|done| done["code"] == 4),
        "the exit code of each restart command is known",
    );

    send_signal(init, Signal::TERM);
    let status = unshare.child.wait().expect("a child can be waited for");
    sandbox.assert(status.code() == Some(0), &format!("process 1 handles SIGTERM: {status:?}"));
    sandbox.assert(sandbox.events("stopped").len() == 1, "the stop is recorded");
}

#[test]
fn without_proc_the_error_names_it() {
    let starter = ["unshare", "--mount", "sh", "-c", "umount -l /proc && exec \"$0\" \"$@\""];
    let sandbox = Sandbox::new("targets:\n  - {name: app, command: 'true'}\n");
    // Not in a user namespace: there /proc could not be unmounted separately.
    require_container(&sandbox, &starter);
    let output = CommandOutput::new(sandbox.command_through(&starter, &["--once"]).output().expect(MISSING_PROGRAM));
    sandbox.assert(output.code == Some(4), &format!("{output:?}"));
    sandbox.assert((output.out + &output.err).contains("is /proc mounted"), "the missing /proc is named");
}

/// As on many shared hosts, processes of other accounts are hidden.
#[test]
fn with_other_accounts_hidden_in_proc_it_works_as_usual() {
    const NOBODY: u32 = 65_534;
    let sandbox = Sandbox::new(
        "targets:\n  - {name: app, failure_threshold: 1, command: 'test -e well || { trap \"\" TERM; while :; do sleep \
         0.1; done; }', timeout: 1s, restart: touch well}\n",
    );
    require(rustix::process::geteuid().is_root(), "root");
    let program = sandbox.path("program");
    fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("the program is copied");
    for path in [sandbox.home(), &sandbox.path("watchdog.yaml"), &program] {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may change owners");
    }
    let line = "mount -t proc -o hidepid=2 proc /proc && test ! -e /proc/2 || exit 99; exec setpriv --reuid=65534 \
                --regid=65534 --clear-groups ./program --once";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "sh", "-c", line]).current_dir(sandbox.home());
    let output =
        CommandOutput::new(command.env("HOME", sandbox.home()).stdin(Stdio::null()).output().expect(MISSING_PROGRAM));
    require(
        output.code != Some(99) && !output.err.contains("unshare"),
        &format!("/proc mounted with hidepid: {output:?}"),
    );
    sandbox.assert(output.code == Some(0), &format!("{output:?}"));
    sandbox.assert(sandbox.events("up").len() == 1, "the target is repaired");
    sandbox.eventually("no process is left", || sandbox.processes().is_empty());
}
