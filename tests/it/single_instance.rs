//! A state folder has one watchdog, however many are started at once; a hung watchdog is replaced, and a slow one is
//! not.

use std::fs::{self, File};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::sandbox::{CommandOutput, Daemon, Sandbox, env_count, is_alive, process_state, send_signal};

/// One target that is always healthy and cheap to probe.
const HEALTHY: &str = "targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}, interval: 200ms}\n";

/// A target whose probe runs until the file `go` exists.
const LONG_PROBE: &str = "targets:\n  - name: app\n    \
    command: touch probing; until test -e go; do sleep 0.02; done\n    timeout: 1m\n";

/// A target that is down and whose restart command runs until the file `go` exists.
const LONG_RESTART: &str = "targets:\n  - name: app\n    command: exit 1\n    interval: 100ms\n    \
    failure_threshold: 1\n    restart: touch running; until test -e go; do sleep 0.02; done; echo done >> done\n";

fn wait_for_output(child: Child) -> CommandOutput {
    CommandOutput::new(child.wait_with_output().expect("a child can be waited for"))
}

#[test]
fn twenty_simultaneous_starts_make_one_daemon() {
    let sandbox = Sandbox::new(HEALTHY);
    let starts: Vec<Child> = (0..20).map(|_| sandbox.spawn(&["start"])).collect();
    let output: Vec<CommandOutput> = starts.into_iter().map(wait_for_output).collect();
    let pid =
        sandbox.lock_holder().unwrap_or_else(|| panic!("no process holds the lock: {output:?}\n{}", sandbox.dump()));
    let reports = |output: &&CommandOutput, what: &str| {
        output.code == Some(0) && output.out.starts_with(what) && output.err.is_empty()
    };
    let started = output.iter().filter(|output| reports(output, &format!("watchdog started (pid {pid});"))).count();
    let others =
        output.iter().filter(|output| reports(output, &format!("a watchdog is already running (pid {pid});"))).count();
    sandbox.assert((started, others) == (1, 19), &format!("{output:#?}"));
    assert_eq!(sandbox.processes(), [pid], "{}", sandbox.dump());
    assert_eq!(sandbox.events("started").len(), 1, "{}", sandbox.dump());

    let stopped = sandbox.run(&["stop"]);
    sandbox.assert(stopped.code == Some(0) && stopped.out.contains(&format!("(pid {pid}) is stopped")), &stopped.out);
    assert!(!is_alive(pid) && sandbox.processes().is_empty(), "{}", sandbox.dump());
    assert_eq!(sandbox.events("stopped").len(), 1, "{}", sandbox.dump());
    let again = sandbox.run(&["stop"]);
    sandbox.assert(again.code == Some(3) && again.out.starts_with("no watchdog was running"), &format!("{again:?}"));
}

/// Each probe creates a folder while it runs, and records it if another probe's folder exists.
#[test]
fn ticks_and_a_daemon_never_probe_at_the_same_time() {
    let sandbox = Sandbox::new(
        "targets:\n  - name: app\n    command: mkdir busy || echo $PPID >> overlaps; echo $PPID >> probes; sleep 0.1; \
         rmdir busy\n    interval: 100ms\n",
    );
    let mut daemon = None;
    for round in 0..6 {
        let ticks: Vec<Child> = (0..4).map(|_| sandbox.spawn(&["--once"])).collect();
        if round == 2 {
            daemon = Some(sandbox.spawn_daemon(&["run"]));
        }
        for tick in ticks {
            let output = wait_for_output(tick);
            sandbox.assert(
                output.code == Some(0) && output.out.is_empty() && output.err.is_empty(),
                &format!("{output:?}"),
            );
        }
    }
    let daemon = daemon.expect("the daemon was started in the third round");
    let pid = daemon.pid().to_string();
    sandbox.eventually("the daemon runs", || sandbox.lines("probes").contains(&pid));
    // The daemon holds the lock, so ticks probe nothing.
    let probes_by_ticks = || sandbox.lines("probes").iter().filter(|line| **line != pid).count();
    let before = probes_by_ticks();
    let output = sandbox.run(&["--once"]);
    sandbox.assert(
        output.code == Some(0) && before >= 2 && probes_by_ticks() == before,
        &format!("{:?}", sandbox.lines("probes")),
    );
    assert!(sandbox.lines("overlaps").is_empty(), "{}", sandbox.dump());
}

#[test]
fn of_many_simultaneous_starts_one_works_at_a_time_and_one_daemon_stays() {
    let sandbox = Sandbox::new(
        "targets:\n  - name: app\n    command: mkdir busy || echo $PPID >> overlaps; rmdir busy\n    interval: 100ms\n",
    );
    for round in 0..env_count("CROWDS", 25) {
        let mut daemons: Vec<Daemon<'_>> = (0..2).map(|_| sandbox.spawn_daemon(&["-q", "run"])).collect();
        let ticks: Vec<Child> = (0..10).map(|_| sandbox.spawn(&["--once"])).collect();
        for output in ticks.into_iter().map(wait_for_output) {
            let silent = output.out.is_empty() && output.err.is_empty();
            sandbox.assert(output.code == Some(0) && silent, &format!("round {round}: {output:?}"));
        }
        let mut is_over =
            |daemon: &mut Daemon<'_>| daemon.child.try_wait().expect("the state of a child can be read").is_some();
        sandbox.eventually("one of the daemons exits", || daemons.iter_mut().any(&mut is_over));
        let remaining = daemons.iter_mut().position(|daemon| !is_over(daemon)).expect("the other daemon stays");
        sandbox.eventually("the remaining daemon holds the lock", || {
            sandbox.lock_holder() == Some(daemons[remaining].pid())
        });
        assert_eq!(daemons.swap_remove(remaining).stop().code(), Some(0), "round {round}\n{}", sandbox.dump());
        let exited = daemons.remove(0).child.wait().expect("a child can be waited for");
        assert_eq!(exited.code(), Some(5), "round {round}\n{}", sandbox.dump());
        // A probe interrupted by the stop may have left its command and its folder.
        sandbox.eventually("no process of this round is left", || sandbox.processes().is_empty());
        let _ = fs::remove_dir(sandbox.path("busy"));
    }
    assert!(sandbox.lines("overlaps").is_empty(), "{}", sandbox.dump());
}

#[test]
fn the_second_of_two_simultaneous_ticks_exits_silently() {
    let sandbox = Sandbox::new(LONG_PROBE);
    let first = sandbox.spawn(&["--once"]);
    sandbox.eventually("the first tick probes", || sandbox.path("probing").exists());
    let later = sandbox.run(&["--once"]);
    assert_eq!((later.code, later.out.as_str(), later.err.as_str()), (Some(0), "", ""), "{}", sandbox.dump());
    sandbox.write("go", "");
    assert_eq!(wait_for_output(first).code, Some(0), "{}", sandbox.dump());
}

#[test]
fn a_daemon_waits_for_a_running_tick() {
    for command in ["run", "start"] {
        let sandbox = Sandbox::new(LONG_PROBE);
        let tick = sandbox.spawn(&["--once"]);
        sandbox.eventually("the tick probes", || sandbox.path("probing").exists());
        let mut daemon = sandbox.spawn_daemon(&[command]);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            let waits = daemon.child.try_wait().expect("the state of a child can be read").is_none();
            sandbox.assert(waits && sandbox.events("started").is_empty(), "the daemon waits for the tick");
        }
        sandbox.write("go", "");
        assert_eq!(wait_for_output(tick).code, Some(0), "{}", sandbox.dump());
        sandbox.eventually("the daemon runs", || !sandbox.events("started").is_empty());
    }
}

#[test]
fn a_second_watchdog_is_refused_and_names_the_lock_holder() {
    let sandbox = Sandbox::new(HEALTHY);
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.write("other.yaml", &format!("state_dir: state\n{HEALTHY}"));
    let config = sandbox.path("watchdog.yaml");
    for args in [&["run", "-c", "other.yaml"][..], &[], &["run"]] {
        let output = sandbox.run(args);
        let who = format!("pid {} and configuration {}", daemon.pid(), config.display());
        sandbox.assert(output.code == Some(5) && output.err.contains(&who), &format!("{args:?}: {output:?}"));
    }
    let output = sandbox.run(&["start", "--cron"]);
    assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (Some(0), "", ""), "{}", sandbox.dump());
    assert_eq!(sandbox.lock_holder(), Some(daemon.pid()));
}

/// Makes the last heartbeat ten minutes old.
fn age_heartbeat(sandbox: &Sandbox) {
    let lock = File::options().append(true).open(sandbox.path("state/watchdog.lock")).expect("the lock file exists");
    lock.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("the file's time can be set");
}

/// A stopped process with an old heartbeat, which looks hung from outside.
fn start_hung(sandbox: &Sandbox) -> Daemon<'_> {
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    daemon.signal(Signal::STOP);
    sandbox.eventually("the process is stopped", || process_state(daemon.pid()) == Some('T'));
    age_heartbeat(sandbox);
    daemon
}

/// In parallel, because each case takes the 35 s that a watchdog gets to show that it is alive.
#[cfg(feature = "full-tests")]
#[test]
fn a_hung_watchdog_is_replaced_and_a_slow_one_is_not() {
    let cases = [
        start_replaces_a_hung_watchdog,
        start_from_cron_replaces_a_hung_watchdog,
        a_tick_replaces_a_hung_watchdog,
        stop_ends_a_hung_watchdog,
        stop_ends_a_watchdog_that_freezes_meanwhile,
        || check_hung_tick_is_replaced(&["--once"]),
        || check_hung_tick_is_replaced(&["start"]),
        a_slow_watchdog_is_not_replaced,
        a_live_watchdog_with_an_old_heartbeat_is_not_replaced,
    ];
    thread::scope(|scope| {
        for case in cases.map(|case| scope.spawn(case)) {
            case.join().expect("the case passes");
        }
    });
}

/// A process releases its lock a moment before it is gone.
fn wait_until_gone(sandbox: &Sandbox, pid: i32) {
    sandbox.eventually("the hung process is gone", || !is_alive(pid));
}

fn start_replaces_a_hung_watchdog() {
    let sandbox = Sandbox::new(HEALTHY);
    let old = start_hung(&sandbox);
    let output = sandbox.run(&["start"]);
    let new = sandbox.lock_holder().expect("a new watchdog");
    let what = format!("watchdog started (pid {new}); killed the hung one (pid {});", old.pid());
    sandbox.assert(output.code == Some(0) && output.out.starts_with(&what), &format!("{output:?}"));
    sandbox.assert(new != old.pid(), "the hung watchdog is replaced");
    wait_until_gone(&sandbox, old.pid());
}

fn start_from_cron_replaces_a_hung_watchdog() {
    let sandbox = Sandbox::new(HEALTHY);
    let old = start_hung(&sandbox);
    let output = sandbox.run(&["start", "--cron"]);
    let new = sandbox.lock_holder().expect("a new watchdog");
    let begins = format!("The watchdog was hung (pid {}). It was killed, and another runs (pid {new}).", old.pid());
    sandbox.assert(output.code == Some(0) && output.out.starts_with(&begins), &format!("{output:?}"));
    check_mail(&sandbox, &output);
    wait_until_gone(&sandbox, old.pid());
}

/// The parts that every mail of `start --cron` has.
#[track_caller]
fn check_mail(sandbox: &Sandbox, output: &CommandOutput) {
    let line = format!("--once -c {}", sandbox.path("watchdog.yaml").display());
    let expected = [
        "Last sign of life ",
        " ago; the machine was not rebooted.\nNothing was monitored in between. app answers now (",
        "You get this mail only when the watchdog had to be started.\n\
         If it comes daily, your host kills background programs.",
        "\n  */5 * * * * ",
        &line,
    ];
    for text in expected {
        sandbox.assert(output.out.contains(text), &format!("{text:?} is in {:?}", output.out));
    }
    assert!(output.err.is_empty(), "{output:?}");
}

fn a_tick_replaces_a_hung_watchdog() {
    let sandbox = Sandbox::new(HEALTHY);
    let old = start_hung(&sandbox);
    let output = sandbox.run(&["--once"]);
    let what = format!("The watchdog (pid {}) was hung. It was killed, and this tick replaces it.\n", old.pid());
    assert_eq!((output.code, output.out), (Some(0), what), "{}", sandbox.dump());
    wait_until_gone(&sandbox, old.pid());
    assert_eq!(sandbox.status()["watchdog"]["mode"], "once", "the tick ran; {}", sandbox.dump());
}

fn stop_ends_a_hung_watchdog() {
    let sandbox = Sandbox::new(HEALTHY);
    let old = start_hung(&sandbox);
    let output = sandbox.run(&["stop"]);
    sandbox.assert(output.code == Some(0), &format!("{output:?}"));
    wait_until_gone(&sandbox, old.pid());
}

fn stop_ends_a_watchdog_that_freezes_meanwhile() {
    let sandbox = Sandbox::new(HEALTHY);
    let old = sandbox.start_daemon(&["run"]);
    old.signal(Signal::STOP);
    let mut stop = sandbox.spawn(&["stop"]);
    sandbox.eventually("stop was requested", || sandbox.path("state/stopped").exists());
    sandbox.assert(
        stop.try_wait().expect("the state of a child can be read").is_none(),
        "stop waits, because a restart command may be running",
    );
    age_heartbeat(&sandbox);
    sandbox.eventually("stop has ended", || stop.try_wait().expect("the state of a child can be read").is_some());
    wait_until_gone(&sandbox, old.pid());
}

fn check_hung_tick_is_replaced(args: &[&str]) {
    let sandbox = Sandbox::new("targets: [{name: app, command: sleep 1000, timeout: 1h}]\n");
    let mut tick = sandbox.spawn(&["--once"]);
    let pid = i32::try_from(tick.id()).expect("a pid fits into i32");
    sandbox.eventually("the watchdog runs", || sandbox.lock_holder() == Some(pid));
    send_signal(pid, Signal::STOP);
    sandbox.eventually("the process is stopped", || process_state(pid) == Some('T'));
    age_heartbeat(&sandbox);
    sandbox.configure("targets: [{name: app, command: 'true'}]\n");
    let output = sandbox.run(args);
    sandbox.assert(output.code == Some(0) && !output.out.is_empty(), &format!("{output:?}"));
    sandbox.eventually("the hung process is gone", || {
        tick.try_wait().expect("the state of a child can be read").is_some()
    });
    sandbox.eventually("a new watchdog probes", || sandbox.target("app")["state"] == "healthy");
}

fn a_slow_watchdog_is_not_replaced() {
    let sandbox = Sandbox::new(HEALTHY);
    let slow = start_hung(&sandbox);
    let start = sandbox.spawn(&["start"]);
    // The next heartbeat is due ten seconds after the last one.
    let began = Instant::now();
    sandbox.eventually("twelve seconds have passed", || began.elapsed() > Duration::from_secs(12));
    slow.signal(Signal::CONT);
    let output = wait_for_output(start);
    let what = format!("a watchdog is already running (pid {})", slow.pid());
    sandbox.assert(output.code == Some(0) && output.out.starts_with(&what), &format!("{output:?}"));
    assert_eq!(sandbox.lock_holder(), Some(slow.pid()), "{}", sandbox.dump());
}

fn a_live_watchdog_with_an_old_heartbeat_is_not_replaced() {
    let sandbox = Sandbox::new(HEALTHY);
    let daemon = sandbox.start_daemon(&["run"]);
    age_heartbeat(&sandbox);
    let output = sandbox.run(&["--once"]);
    assert_eq!((output.code, output.out.as_str()), (Some(0), ""), "{}", sandbox.dump());
    assert_eq!(sandbox.lock_holder(), Some(daemon.pid()), "{}", sandbox.dump());
}

/// A crash leaves a lock file whose pid now belongs to another process: this test, which must survive.
#[test]
fn a_stale_lock_file_is_ignored() {
    let sandbox = Sandbox::new(HEALTHY);
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is there");
    let began = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)).expect("a time");
    let pid = std::process::id();
    fs::create_dir(sandbox.path("state")).expect("folder created");
    let stale = format!("{{\"pid\":{pid},\"started\":{began},\"mode\":\"daemon\",\"config\":\"/nowhere\"}}\n");
    sandbox.write("state/watchdog.lock", &stale);
    age_heartbeat(&sandbox);
    assert_eq!(sandbox.run(&["stop"]).code, Some(3), "{}", sandbox.dump());
    assert_eq!(sandbox.run(&["status"]).code, Some(3), "{}", sandbox.dump());
    assert_eq!(sandbox.run(&["--once"]).code, Some(0), "{}", sandbox.dump());
    sandbox.assert(sandbox.path("state/state.json").exists(), "the tick ran");
    sandbox.write("state/watchdog.lock", &stale);
    age_heartbeat(&sandbox);
    let output = sandbox.run(&["start"]);
    sandbox.assert(output.code == Some(0) && output.out.starts_with("watchdog started"), &format!("{output:?}"));
}

#[test]
fn stop_waits_for_a_running_restart_command() {
    let sandbox = Sandbox::new(LONG_RESTART);
    sandbox.run(&["start"]);
    sandbox.eventually("the command runs", || sandbox.path("running").exists());
    let mut stop = sandbox.spawn(&["stop"]);
    sandbox.wait_for_log("signal to stop: ending when the running restart command has finished");
    sandbox.assert(stop.try_wait().expect("the state of a child can be read").is_none(), "stop waits");
    sandbox.write("go", "");
    let output = wait_for_output(stop);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(sandbox.lines("done").len(), 1, "{}", sandbox.dump());
    assert_eq!(sandbox.events("restart_done")[0]["outcome"], "exited", "{}", sandbox.dump());
    assert_eq!(sandbox.events("stopped").len(), 1, "{}", sandbox.dump());
    sandbox.assert(sandbox.processes().is_empty(), "no process is left");
}

#[test]
fn after_a_manual_stop_cron_starts_nothing_until_a_manual_start() {
    let sandbox = Sandbox::new(HEALTHY);
    let cron = || sandbox.run(&["start", "--cron"]);
    let first = cron();
    sandbox.assert(first.out.starts_with("The watchdog was not running yet. It is now (pid "), &format!("{first:?}"));
    assert_eq!(sandbox.run(&["stop"]).code, Some(0));
    let next = cron();
    assert_eq!((next.code, next.out.as_str(), next.err.as_str()), (Some(0), "", ""), "{}", sandbox.dump());
    assert_eq!((sandbox.lock_holder(), sandbox.run(&["status"]).code), (None, Some(3)), "{}", sandbox.dump());

    assert_eq!(sandbox.run(&["start"]).code, Some(0));
    let started_pid = sandbox.lock_holder().expect("the watchdog is started");
    send_signal(started_pid, Signal::KILL);
    sandbox.eventually("the process is gone", || !is_alive(started_pid));
    let again = cron();
    let pid = sandbox.lock_holder().expect("the watchdog is started again");
    let begins = format!("The watchdog was not running. It is again (pid {pid}). Last sign of life ");
    sandbox.assert(again.code == Some(0) && again.out.starts_with(&begins), &format!("{again:?}"));
    check_mail(&sandbox, &again);
}

/// In parallel, because heartbeats are ten seconds apart.
#[cfg(feature = "full-tests")]
#[test]
fn a_deleted_state_folder_is_recreated_and_has_one_watchdog() {
    thread::scope(|scope| {
        let cases = [the_running_watchdog_recreates_the_folder, a_second_watchdog_takes_over_the_deleted_folder];
        for case in cases.map(|case| scope.spawn(case)) {
            case.join().expect("the case passes");
        }
    });
}

fn delete_state(sandbox: &Sandbox) {
    // The watchdog may be writing into the folder, so removing it can fail.
    sandbox.eventually("the state folder is gone", || fs::remove_dir_all(sandbox.path("state")).is_ok());
}

fn the_running_watchdog_recreates_the_folder() {
    let sandbox = Sandbox::new(HEALTHY);
    let daemon = sandbox.start_daemon(&["run"]);
    delete_state(&sandbox);
    sandbox.eventually("the lock file exists again", || sandbox.lock_holder() == Some(daemon.pid()));
    assert_eq!(sandbox.run(&["run"]).code, Some(5), "{}", sandbox.dump());
    sandbox.wait_for_log("was deleted; created again");
    sandbox.eventually("the state is saved again", || sandbox.target("app")["state"] == "healthy");
}

fn a_second_watchdog_takes_over_the_deleted_folder() {
    let sandbox = Sandbox::new(
        "targets:\n  - name: app\n    command: test -e well\n    interval: 100ms\n    failure_threshold: 1\n    \
         restart: echo $PPID >> restarts\n",
    );
    sandbox.write("well", "");
    let mut first = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    delete_state(&sandbox);
    let second = sandbox.start_daemon(&["run"]);
    // Now both have something to repair, and the first must notice in time that it lost the lock.
    fs::remove_file(sandbox.path("well")).expect("file access");
    sandbox.eventually("the second repairs", || !sandbox.lines("restarts").is_empty());
    let mut code = None;
    sandbox.eventually("the first ends", || {
        code = first.child.try_wait().expect("the state of a child can be read").and_then(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(5), "{}", sandbox.dump());
    assert_eq!(sandbox.lines("restarts"), [second.pid().to_string()], "{}", sandbox.dump());
    assert_eq!(sandbox.lock_holder(), Some(second.pid()), "{}", sandbox.dump());
}
