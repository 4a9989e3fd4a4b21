//! Being the only one: a state folder has one watchdog, whoever starts however many; one that hangs is replaced, and
//! one that is merely slow is not.

use std::fs::{self, File};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;

use crate::place::{Daemon, Place, Said, count, doing, is_alive, send};

/// One target that is always healthy and costs nothing to look at.
const PEACE: &str = "targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}, interval: 200ms}\n";

/// One whose look lasts until the file `go` is there.
const LONG_LOOK: &str = "targets:\n  - name: app\n    \
    command: touch looking; until test -e go; do sleep 0.02; done\n    timeout: 1m\n";

/// One that is down, and whose restart command runs until the file `go` is there.
const LONG_RESTART: &str = "targets:\n  - name: app\n    command: exit 1\n    interval: 100ms\n    \
    failure_threshold: 1\n    restart: touch running; until test -e go; do sleep 0.02; done; echo done >> done\n";

fn ended(child: Child) -> Said {
    Said::new(child.wait_with_output().expect("a child can be waited for"))
}

#[test]
fn twenty_starts_at_once_make_one_daemon() {
    let place = Place::with(PEACE);
    let starts: Vec<Child> = (0..20).map(|_| place.begin(&["start"])).collect();
    let said: Vec<Said> = starts.into_iter().map(ended).collect();
    let pid = place.holder().unwrap_or_else(|| panic!("nobody holds the lock: {said:?}\n{}", place.story()));
    let tells = |said: &&Said, what: &str| said.code == Some(0) && said.out.starts_with(what) && said.err.is_empty();
    let started = said.iter().filter(|said| tells(said, &format!("watchdog started (pid {pid});"))).count();
    let others = said.iter().filter(|said| tells(said, &format!("a watchdog is already running (pid {pid});"))).count();
    place.demand((started, others) == (1, 19), &format!("{said:#?}"));
    assert_eq!(place.processes(), [pid], "{}", place.story());
    assert_eq!(place.events("started").len(), 1, "{}", place.story());

    let stopped = place.run(&["stop"]);
    place.demand(stopped.code == Some(0) && stopped.out.contains(&format!("(pid {pid}) is stopped")), &stopped.out);
    assert!(!is_alive(pid) && place.processes().is_empty(), "{}", place.story());
    assert_eq!(place.events("stopped").len(), 1, "{}", place.story());
    let again = place.run(&["stop"]);
    place.demand(again.code == Some(3) && again.out.starts_with("no watchdog was running"), &format!("{again:?}"));
}

/// Each look leaves a mark while it lasts, and notes it when another one has its mark there.
#[test]
fn ticks_and_a_daemon_never_work_at_once() {
    let place = Place::with(
        "targets:\n  - name: app\n    command: mkdir busy || echo $PPID >> overlaps; echo $PPID >> looks; sleep 0.1; \
         rmdir busy\n    interval: 100ms\n",
    );
    let mut daemon = None;
    for round in 0..6 {
        let ticks: Vec<Child> = (0..4).map(|_| place.begin(&["--once"])).collect();
        if round == 2 {
            daemon = Some(place.daemon_unchecked(&["run"]));
        }
        for tick in ticks {
            let said = ended(tick);
            place.demand(said.code == Some(0) && said.out.is_empty() && said.err.is_empty(), &format!("{said:?}"));
        }
    }
    let daemon = daemon.expect("it was started in the third round");
    let pid = daemon.pid().to_string();
    place.eventually("the daemon is at work", || place.lines("looks").contains(&pid));
    // It keeps the lock, so that no tick looks any more.
    let by_ticks = || place.lines("looks").iter().filter(|line| **line != pid).count();
    let before = by_ticks();
    let said = place.run(&["--once"]);
    place.demand(said.code == Some(0) && before >= 2 && by_ticks() == before, &format!("{:?}", place.lines("looks")));
    assert!(place.lines("overlaps").is_empty(), "{}", place.story());
}

/// Two daemons and ten ticks at once, again and again.
#[test]
fn of_a_crowd_one_works_at_a_time_and_one_daemon_stays() {
    let place = Place::with(
        "targets:\n  - name: app\n    command: mkdir busy || echo $PPID >> overlaps; rmdir busy\n    interval: 100ms\n",
    );
    for round in 0..count("CROWDS", 25) {
        let mut daemons: Vec<Daemon<'_>> = (0..2).map(|_| place.daemon_unchecked(&["-q", "run"])).collect();
        let ticks: Vec<Child> = (0..10).map(|_| place.begin(&["--once"])).collect();
        for said in ticks.into_iter().map(ended) {
            let silent = said.out.is_empty() && said.err.is_empty();
            place.demand(said.code == Some(0) && silent, &format!("round {round}: {said:?}"));
        }
        let mut is_over = |daemon: &mut Daemon<'_>| daemon.child.try_wait().expect("a child can be asked").is_some();
        place.eventually("one of the daemons goes", || daemons.iter_mut().any(&mut is_over));
        let stays = daemons.iter_mut().position(|daemon| !is_over(daemon)).expect("the other stays");
        place.eventually("it works", || place.holder() == Some(daemons[stays].pid()));
        assert_eq!(daemons.swap_remove(stays).stop().code(), Some(0), "round {round}\n{}", place.story());
        let gone = daemons.remove(0).child.wait().expect("a child can be waited for");
        assert_eq!(gone.code(), Some(5), "round {round}\n{}", place.story());
        // A look that was under way when it was told to stop has left its command, and perhaps its mark.
        place.eventually("nothing is left of this round", || place.processes().is_empty());
        let _ = fs::remove_dir(place.path("busy"));
    }
    assert!(place.lines("overlaps").is_empty(), "{}", place.story());
}

#[test]
fn the_later_of_two_ticks_ends_silently() {
    let place = Place::with(LONG_LOOK);
    let first = place.begin(&["--once"]);
    place.eventually("the first tick looks", || place.path("looking").exists());
    let later = place.run(&["--once"]);
    assert_eq!((later.code, later.out.as_str(), later.err.as_str()), (Some(0), "", ""), "{}", place.story());
    place.write("go", "");
    assert_eq!(ended(first).code, Some(0), "{}", place.story());
}

#[test]
fn a_daemon_waits_for_a_tick_to_end() {
    for words in ["run", "start"] {
        let place = Place::with(LONG_LOOK);
        let tick = place.begin(&["--once"]);
        place.eventually("the tick looks", || place.path("looking").exists());
        let mut daemon = place.daemon_unchecked(&[words]);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            let waits = daemon.child.try_wait().expect("a child can be asked").is_none();
            place.demand(waits && place.events("started").is_empty(), "it does not wait for the tick");
        }
        place.write("go", "");
        assert_eq!(ended(tick).code, Some(0), "{}", place.story());
        place.eventually("the daemon is at work", || !place.events("started").is_empty());
    }
}

#[test]
fn a_second_watchdog_is_told_who_holds_the_folder() {
    let place = Place::with(PEACE);
    let daemon = place.daemon(&["run"]);
    place.write("other.yaml", &format!("state_dir: state\n{PEACE}"));
    let config = place.path("watchdog.yaml");
    for words in [&["run", "-c", "other.yaml"][..], &[], &["run"]] {
        let said = place.run(words);
        let who = format!("pid {} and configuration {}", daemon.pid(), config.display());
        place.demand(said.code == Some(5) && said.err.contains(&who), &format!("{words:?}: {said:?}"));
    }
    let said = place.run(&["start", "--cron"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""), "{}", place.story());
    assert_eq!(place.holder(), Some(daemon.pid()));
}

/// The sign of life is ten minutes old from now on.
fn age(place: &Place) {
    let lock = File::options().append(true).open(place.path("state/watchdog.lock")).expect("a lock file");
    lock.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("its time can be set");
}

/// A watchdog that hangs, for all one can see from outside.
fn hung(place: &Place) -> Daemon<'_> {
    let daemon = place.daemon(&["run"]);
    place.eventually("the target is healthy", || place.target("app")["state"] == "healthy");
    daemon.signal(Signal::STOP);
    place.eventually("it stands still", || doing(daemon.pid()) == Some('T'));
    age(place);
    daemon
}

/// All at the same time, for each takes the 35 s that a watchdog is given to show that it lives.
#[cfg(feature = "full-tests")]
#[test]
fn a_hung_watchdog_is_replaced_and_a_slow_one_is_not() {
    let cases = [
        hung_and_started_anew,
        hung_and_started_anew_by_cron,
        hung_and_a_tick_comes,
        hung_and_told_to_stop,
        frozen_while_it_is_told_to_stop,
        || hung_tick(&["--once"]),
        || hung_tick(&["start"]),
        slow_and_left_alone,
        alive_under_a_clock_that_was_set,
    ];
    thread::scope(|scope| {
        for case in cases.map(|case| scope.spawn(case)) {
            case.join().expect("the case above fails");
        }
    });
}

/// A process lets go of its lock, by which others know that it ends, a moment before it is gone.
fn is_gone(place: &Place, pid: i32) {
    place.eventually("the hung one is gone", || !is_alive(pid));
}

fn hung_and_started_anew() {
    let place = Place::with(PEACE);
    let old = hung(&place);
    let said = place.run(&["start"]);
    let new = place.holder().expect("a new watchdog");
    let what = format!("watchdog started (pid {new}); killed the hung one (pid {});", old.pid());
    place.demand(said.code == Some(0) && said.out.starts_with(&what), &format!("{said:?}"));
    place.demand(new != old.pid(), "the hung one goes on");
    is_gone(&place, old.pid());
}

fn hung_and_started_anew_by_cron() {
    let place = Place::with(PEACE);
    let old = hung(&place);
    let said = place.run(&["start", "--cron"]);
    let new = place.holder().expect("a new watchdog");
    let begins = format!("The watchdog was hung (pid {}). It was killed, and another runs (pid {new}).", old.pid());
    place.demand(said.code == Some(0) && said.out.starts_with(&begins), &format!("{said:?}"));
    check_mail(&place, &said);
    is_gone(&place, old.pid());
}

/// What every mail of `start --cron` tells.
#[track_caller]
fn check_mail(place: &Place, said: &Said) {
    let line = format!("--once -c {}", place.path("watchdog.yaml").display());
    let wanted = [
        "Last sign of life ",
        " ago; the machine was not rebooted.\nNothing was monitored in between. app answers now (",
        "You get this mail only when the watchdog had to be started.\nIf it comes daily, your host kills background ",
        "\n  */5 * * * * ",
        &line,
    ];
    for text in wanted {
        place.demand(said.out.contains(text), &format!("no {text:?} in {:?}", said.out));
    }
    assert!(said.err.is_empty(), "{said:?}");
}

fn hung_and_a_tick_comes() {
    let place = Place::with(PEACE);
    let old = hung(&place);
    let said = place.run(&["--once"]);
    let what = format!("The watchdog (pid {}) was hung. It was killed, and this tick replaces it.\n", old.pid());
    assert_eq!((said.code, said.out), (Some(0), what), "{}", place.story());
    is_gone(&place, old.pid());
    assert_eq!(place.status()["watchdog"]["mode"], "once", "the tick was made; {}", place.story());
}

fn hung_and_told_to_stop() {
    let place = Place::with(PEACE);
    let old = hung(&place);
    let said = place.run(&["stop"]);
    place.demand(said.code == Some(0), &format!("{said:?}"));
    is_gone(&place, old.pid());
}

fn frozen_while_it_is_told_to_stop() {
    let place = Place::with(PEACE);
    let old = place.daemon(&["run"]);
    old.signal(Signal::STOP);
    let mut stop = place.begin(&["stop"]);
    place.eventually("it was told", || place.path("state/stopped").exists());
    place.demand(stop.try_wait().expect("a child of ours").is_none(), "it waits for what may be a restart command");
    age(&place);
    place.eventually("it waits no longer", || stop.try_wait().expect("a child of ours").is_some());
    is_gone(&place, old.pid());
}

fn hung_tick(words: &[&str]) {
    let place = Place::with("targets: [{name: app, command: sleep 1000, timeout: 1h}]\n");
    let mut tick = place.begin(&["--once"]);
    let pid = i32::try_from(tick.id()).expect("a pid is small");
    place.eventually("it is at work", || place.holder() == Some(pid));
    send(pid, Signal::STOP);
    place.eventually("it stands still", || doing(pid) == Some('T'));
    age(&place);
    place.configure("targets: [{name: app, command: 'true'}]\n");
    let said = place.run(words);
    place.demand(said.code == Some(0) && !said.out.is_empty(), &format!("{said:?}"));
    place.eventually("the hung one is gone", || tick.try_wait().expect("a child of ours").is_some());
    place.eventually("somebody watches", || place.target("app")["state"] == "healthy");
}

fn slow_and_left_alone() {
    let place = Place::with(PEACE);
    let slow = hung(&place);
    let start = place.begin(&["start"]);
    // The sign of life is due again ten seconds after the last one.
    let began = Instant::now();
    place.eventually("twelve seconds are over", || began.elapsed() > Duration::from_secs(12));
    slow.signal(Signal::CONT);
    let said = ended(start);
    let what = format!("a watchdog is already running (pid {})", slow.pid());
    place.demand(said.code == Some(0) && said.out.starts_with(&what), &format!("{said:?}"));
    assert_eq!(place.holder(), Some(slow.pid()), "{}", place.story());
}

fn alive_under_a_clock_that_was_set() {
    let place = Place::with(PEACE);
    let daemon = place.daemon(&["run"]);
    age(&place);
    let said = place.run(&["--once"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{}", place.story());
    assert_eq!(place.holder(), Some(daemon.pid()), "{}", place.story());
}

/// A lock file is left behind by a crash, and its pid is somebody else's now: this test's, which must outlive it.
#[test]
fn a_stale_lock_file_names_nobody() {
    let place = Place::with(PEACE);
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is there");
    let began = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)).expect("a time");
    let pid = std::process::id();
    fs::create_dir(place.path("state")).expect("a state folder");
    let stale = format!("{{\"pid\":{pid},\"started\":{began},\"mode\":\"daemon\",\"config\":\"/nowhere\"}}\n");
    place.write("state/watchdog.lock", &stale);
    age(&place);
    assert_eq!(place.run(&["stop"]).code, Some(3), "{}", place.story());
    assert_eq!(place.run(&["status"]).code, Some(3), "{}", place.story());
    assert_eq!(place.run(&["--once"]).code, Some(0), "{}", place.story());
    place.demand(place.path("state/state.json").exists(), "the tick was not made");
    place.write("state/watchdog.lock", &stale);
    age(&place);
    let said = place.run(&["start"]);
    place.demand(said.code == Some(0) && said.out.starts_with("watchdog started"), &format!("{said:?}"));
}

#[test]
fn stop_waits_for_the_restart_command() {
    let place = Place::with(LONG_RESTART);
    place.run(&["start"]);
    place.eventually("the command runs", || place.path("running").exists());
    let mut stop = place.begin(&["stop"]);
    place.told("signal to stop: ending when the running restart command has finished");
    place.demand(stop.try_wait().expect("a child can be asked").is_none(), "stop does not wait");
    place.write("go", "");
    let said = ended(stop);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(place.lines("done").len(), 1, "{}", place.story());
    assert_eq!(place.events("restart_done")[0]["outcome"], "exited", "{}", place.story());
    assert_eq!(place.events("stopped").len(), 1, "{}", place.story());
    place.demand(place.processes().is_empty(), "it is still there");
}

#[test]
fn stopped_by_hand_it_stays_so_for_cron_until_it_is_started_by_hand() {
    let place = Place::with(PEACE);
    let cron = || place.run(&["start", "--cron"]);
    let first = cron();
    place.demand(first.out.starts_with("The watchdog was not running yet. It is now (pid "), &format!("{first:?}"));
    assert_eq!(place.run(&["stop"]).code, Some(0));
    let left = cron();
    assert_eq!((left.code, left.out.as_str(), left.err.as_str()), (Some(0), "", ""), "{}", place.story());
    assert_eq!((place.holder(), place.run(&["status"]).code), (None, Some(3)), "{}", place.story());

    assert_eq!(place.run(&["start"]).code, Some(0));
    let by_hand = place.holder().expect("it is started");
    send(by_hand, Signal::KILL);
    place.eventually("it is gone", || !is_alive(by_hand));
    let again = cron();
    let pid = place.holder().expect("it is started again");
    let begins = format!("The watchdog was not running. It is again (pid {pid}). Last sign of life ");
    place.demand(again.code == Some(0) && again.out.starts_with(&begins), &format!("{again:?}"));
    check_mail(&place, &again);
}

/// Both at the same time, for a sign of life is given every ten seconds only.
#[cfg(feature = "full-tests")]
#[test]
fn a_deleted_state_folder_is_made_again_and_has_one_watchdog() {
    thread::scope(|scope| {
        for case in [deleted_and_taken_back, deleted_and_taken_over].map(|case| scope.spawn(case)) {
            case.join().expect("the case above fails");
        }
    });
}

fn delete_state(place: &Place) {
    // The watchdog may be writing into it.
    place.eventually("the state folder is gone", || fs::remove_dir_all(place.path("state")).is_ok());
}

fn deleted_and_taken_back() {
    let place = Place::with(PEACE);
    let daemon = place.daemon(&["run"]);
    delete_state(&place);
    place.eventually("the lock is back", || place.holder() == Some(daemon.pid()));
    assert_eq!(place.run(&["run"]).code, Some(5), "{}", place.story());
    place.told("was deleted; created again");
    place.eventually("the state is back", || place.target("app")["state"] == "healthy");
}

fn deleted_and_taken_over() {
    let place = Place::with(
        "targets:\n  - name: app\n    command: test -e well\n    interval: 100ms\n    failure_threshold: 1\n    \
         restart: echo $PPID >> restarts\n",
    );
    place.write("well", "");
    let mut first = place.daemon(&["run"]);
    place.eventually("the target is healthy", || place.target("app")["state"] == "healthy");
    delete_state(&place);
    let second = place.daemon(&["run"]);
    // From now on both have something to do, and the first has to learn in time that it is not its business any more.
    fs::remove_file(place.path("well")).expect("a file");
    place.eventually("the second repairs", || !place.lines("restarts").is_empty());
    let mut code = None;
    place.eventually("the first ends", || {
        code = first.child.try_wait().expect("a child can be asked").and_then(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(5), "{}", place.story());
    assert_eq!(place.lines("restarts"), [second.pid().to_string()], "{}", place.story());
    assert_eq!(place.holder(), Some(second.pid()), "{}", place.story());
}
