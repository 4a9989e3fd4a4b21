//! The last resort: when it may be taken, whom it ends, whom it leaves alone, and in which order.

use super::*;
use crate::command::CommandResult;
use crate::outcome::Exit;

/// `resurrect` links the socket, and starts `sav` where it may; each call but that of the list notes whom of `daemon`
/// and `holder` it finds. The list is what stands in `list`.
const PM2: &str = "
test \"$1\" != jlist || { cat list; exit 0; }
for who in daemon holder; do test ! -e $who || ! kill -0 $(cat $who) 2>/dev/null || echo $who lives >>calls; done
test \"$1\" != resurrect || ln -sf real.sock \"$PM2_HOME/rpc.sock\"
test \"$1\" != resurrect -o ! -e saved || {
    pm_id=0 name=sav setsid sleep 602 &
    until grep -qa name=sav /proc/$!/environ; do :; done
    echo $! >\"$PM2_HOME/pids/sav-0.pid\"
}";

impl Place {
    fn reset(&self, reason: &ResetReason, port: Option<u16>) -> CommandResult {
        let (caller, managed) = (self.pm2(PM2), Managed { port, ..self.managed(None) });
        self.save("sav");
        let say = |line: &str| self.say(line);
        let (output, mut on_start) = (self.output(), |_| {});
        reset(
            reason,
            Calls {
                home: &self.home,
                caller: &caller,
                managed: &managed,
                say: &say,
                output: &output,
                on_start: &mut on_start,
            },
        )
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    fn note(&self, file: &str, process: Process) {
        fs::write(self.at(file), process.pid.to_string()).unwrap();
    }

    fn orphan(&self) -> (Process, u16) {
        let mut port = 0;
        let process = self.start("node app.js", &self.marks("sav", "0"), "", |command| port = hold_port(command));
        (process, port)
    }

    fn stranger(&self) -> (Process, u16) {
        let mut port = 0;
        let process = self.start("a\u{1b}[2Jstranger", &[], "", |command| port = hold_port(command));
        (process, port)
    }

    fn save(&self, name: &str) {
        fs::write(self.home.path().join("dump.pm2"), format!("[{{\"name\":\"{name}\"}}]")).unwrap();
    }
}

#[test]
fn a_silent_daemon_is_killed_with_what_outlives_it_before_anything_is_started() {
    let (place, other) = (Place::new(), Place::new());
    place.listen(false);
    fs::write(place.at("saved"), "").unwrap();
    // One that does not end with its daemon nor when asked to, and something of the daemon's that is no process of
    // PM2's.
    let app = "pm_id=0 name=sav sh -c 'trap \"\" TERM; echo $$ >app; sleep 601; :' & sleep 600 & echo $! >beside";
    let daemon = place.daemon(app);
    let (app, beside) = (place.noted("app"), place.noted("beside"));
    let (holder, port) = place.orphan();
    place.note("daemon", daemon);
    place.note("holder", holder);
    let strangers = [other.daemon(""), other.app("sav", "0"), place.app("far", "1"), place.stranger().0];
    process::signal(daemon, Signal::STOP).unwrap();

    let ended = place.reset(&ResetReason::Deaf, Some(port));
    assert_eq!(ended.exit, Exit::Exited(0), "{}", place.said());
    assert!([daemon, app, holder].into_iter().all(|process| !process::is_alive(process)), "{}", place.said());
    assert!(strangers.into_iter().chain([beside]).all(process::is_alive), "{}", place.said());
    // Nobody lived any more when it was called, and as the process came up nothing else was needed.
    assert_eq!(place.calls(), "resurrect");
    let said = place.said();
    let order = [
        format!("killed PM2's daemon (pid {})", daemon.pid),
        format!("asked to end: pid {} (", app.pid),
        format!("killed: pid {} (", app.pid),
        format!("asked to end: pid {} (", holder.pid),
    ];
    let places: Vec<Option<usize>> = order.iter().map(|line| said.find(line.as_str())).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{said}");
}

/// One that has written over its environment is known by PM2's file only, and that it lives does not mean that it was
/// started again.
#[test]
fn what_outlives_its_daemon_under_another_title_is_ended_and_started_again() {
    let place = Place::new();
    place.listen(false);
    fs::write(place.at("saved"), "").unwrap();
    let daemon = place.daemon("env -i sleep 601 & echo $! >app");
    let app = place.noted("app");
    place.note("home/pids/sav-0.pid", app);
    let ended = place.reset(&ResetReason::Deaf, None);
    assert_eq!(ended.exit, Exit::Exited(0), "{}", place.said());
    assert!(!process::is_alive(daemon) && !process::is_alive(app), "{}", place.said());
    assert_eq!(place.calls(), "resurrect");
}

#[test]
fn of_two_daemons_none_stays() {
    let place = Place::new();
    // Not linked: no daemon accepts until `resurrect` was called.
    place.listen(false);
    fs::write(place.at("saved"), "").unwrap();
    let daemons = [place.daemon(""), place.daemon("trap '' TERM")];
    let ended = place.reset(&ResetReason::Doubled(2), None);
    assert_eq!(ended.exit, Exit::Exited(0), "{}", place.said());
    assert!(!daemons.into_iter().any(process::is_alive));
    assert_eq!(place.calls(), "resurrect");
}

#[test]
fn a_daemon_in_the_foreground_is_left_alone() {
    let place = Place::new();
    let title = "node /x/bin/pm2-runtime start app.js";
    let daemon = place.start(title, &[("PM2_HOME", place.path())], "", |_| {});
    assert_eq!(place.home.all_daemons().proven.len(), 1);
    place.reset(&ResetReason::Deaf, None);
    assert!(process::is_alive(daemon), "{}", place.said());
}

#[test]
fn for_an_orphan_a_single_daemon_and_its_processes_stay() {
    let place = Place::new();
    place.listen(true);
    fs::write(place.at("list"), r#"[{"name":"far","pm_id":1},{"name":"sav","pm_id":2}]"#).unwrap();
    let daemon = place.daemon("pm_id=1 name=far sleep 601 & echo $! >app");
    let app = place.noted("app");
    let (orphan, port) = place.orphan();
    place.note("holder", orphan);
    let ended = place.reset(&ResetReason::Orphan(orphan), Some(port));
    assert_eq!(ended.exit, Exit::Exited(0), "{}", place.said());
    assert!(!process::is_alive(orphan) && process::is_alive(daemon) && process::is_alive(app));
    assert_eq!(place.calls(), "jlist -s, restart 2");
    assert!(
        place
            .said()
            .starts_with(&format!("asked to end: pid {} (node app.js 600), an orphan on port {port}", orphan.pid)),
        "{}",
        place.said()
    );
}

#[test]
fn for_an_orphan_without_a_daemon_all_is_started_again() {
    let place = Place::new();
    place.listen(false);
    fs::write(place.at("saved"), "").unwrap();
    let (orphan, port) = place.orphan();
    place.note("holder", orphan);
    place.reset(&ResetReason::Orphan(orphan), Some(port));
    assert_eq!(place.calls(), "resurrect");
}

#[test]
fn whoever_is_not_proven_keeps_the_port() {
    let place = Place::new();
    place.listen(true);
    let (stranger, port) = place.stranger();
    // The orphan of the warrant is another process by now.
    let before = Process { started: stranger.started - 1, ..stranger };
    place.reset(&ResetReason::Orphan(before), Some(port));
    assert!(process::is_alive(stranger));
    let said = format!("port {port} is held by pid {} (a\\u{{1b}}[2Jstranger 600", stranger.pid);
    assert!(place.said().starts_with(&said), "{}", place.said());
    assert!(place.said().contains("), no process of PM2's; left alone"), "{}", place.said());

    // In cluster mode the port is the daemon's.
    place.said.lock().unwrap().clear();
    let mut port = 0;
    let daemon = place.start(TITLE, &place.marks("sav", "0"), "", |command| port = hold_port(command));
    place.reset(&ResetReason::Orphan(stranger), Some(port));
    assert!(process::is_alive(daemon) && process::is_alive(stranger));
    assert!(place.said().contains("), PM2's own; left alone"), "{}", place.said());
}
