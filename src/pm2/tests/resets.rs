//! The last resort: when it may be taken, whom it ends, whom it leaves alone, and in which order.

use super::*;
use crate::command::Ended;
use crate::outcome::Ending;

/// `resurrect` links the socket, and starts `sav` where it may; each call notes whom of `daemon` and `holder` it finds.
/// As PM2 does, it ends only once the process runs under its name, which for a moment is another shell.
const PM2: &str = "
for who in daemon holder; do test ! -e $who || ! kill -0 $(cat $who) 2>/dev/null || echo $who lives >>calls; done
test \"$1\" != resurrect || ln -sf real.sock \"$PM2_HOME/rpc.sock\"
test \"$1\" != resurrect -o ! -e saved || {
    pm_id=0 name=sav setsid sleep 602 &
    until grep -qa name=sav /proc/$!/environ; do :; done
}";

impl Place {
    fn reset(&self, warrant: &Warrant, managed: &Managed) -> Ended {
        let caller = self.pm2(PM2);
        reset(&self.home, &caller, managed, warrant, &|line| self.say(line), &self.output(), &mut |_| {})
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
fn a_reset_needs_a_reason_and_a_way_back() {
    let place = Place::new();
    let (holder, port) = place.orphan();
    let (_, strange) = place.stranger();
    let answering = "echo '[]'";
    let weighed = |text: &str, port: Option<u16>, config: Option<&str>| {
        weigh(&place.home, &place.pm2(text), &place.managed(config, port)).map_err(|reason| {
            reason.replace(&place.folder.path().display().to_string(), "").replace(&strange.to_string(), "PORT")
        })
    };
    let refused = |reason: &str| Err(reason.to_owned());
    assert_eq!(weighed(answering, None, None), refused("PM2 does not run"));
    assert_eq!(weighed(answering, Some(strange), None), refused("PM2 does not run, and no orphan holds port PORT"));
    let lost = "nothing could bring sav back: no list was saved (pm2 save), and no config is given";
    assert_eq!(weighed(answering, Some(port), None), refused(lost));
    place.save("sav");
    assert_eq!(weighed(answering, Some(port), None), Ok(Warrant::Orphan(holder)));
    fs::remove_file(place.home.path().join("dump.pm2")).unwrap();

    let daemon = place.daemon("");
    let cut_off = format!("PM2 (pid {}) does not listen on /home/rpc.sock", daemon.pid);
    assert_eq!(weighed(answering, None, None), refused(&cut_off));
    place.listen(true);
    assert_eq!(place.calls(), "", "nobody was asked so far");
    assert_eq!(weighed(answering, None, None), refused("PM2 answers and runs once"));
    let quiet = "PM2 answers and runs once, and no orphan holds port PORT";
    assert_eq!(weighed(answering, Some(strange), None), refused(quiet));
    let failed = "PM2 answers, though without a list: pm2 jlist exited with 3";
    assert_eq!(weighed("exit 3", None, None), refused(failed));
    assert_eq!(weighed(answering, Some(port), None), Ok(Warrant::Orphan(holder)));

    let silent = "sleep 600";
    assert_eq!(weighed(silent, None, None), refused(lost));
    assert_eq!(weighed(silent, Some(port), None), Ok(Warrant::Orphan(holder)), "that can be mended all the same");
    place.save("sav");
    assert_eq!(weighed(silent, Some(strange), None), Ok(Warrant::Silent));
    assert_eq!(weighed(silent, Some(port), None), Ok(Warrant::Silent), "the larger trouble of the two");

    place.daemon("");
    assert_eq!(weighed(answering, Some(port), None), Ok(Warrant::Doubled(2)));
    place.save("other");
    let lost = "nothing could bring sav back: the saved list has no sav, and /eco.json is missing";
    assert_eq!(weighed(answering, Some(port), Some("eco.json")), refused(lost));
    fs::write(place.at("eco.json"), "").unwrap();
    assert_eq!(weighed(answering, Some(port), Some("eco.json")), Ok(Warrant::Doubled(2)));
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

    let ended = place.reset(&Warrant::Silent, &place.managed(None, Some(port)));
    assert_eq!(ended.ending, Ending::Exited(0), "{}", place.said());
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

#[test]
fn of_two_daemons_none_stays_and_what_is_still_down_is_restarted() {
    let place = Place::new();
    // Not linked: no daemon accepts until `resurrect` was called.
    place.listen(false);
    let daemons = [place.daemon(""), place.daemon("trap '' TERM")];
    let ended = place.reset(&Warrant::Doubled(2), &place.managed(Some("eco.json"), None));
    assert_eq!(ended.ending, Ending::Exited(0));
    assert!(!daemons.into_iter().any(process::is_alive));
    assert_eq!(place.calls(), "resurrect, restart /eco.json --only sav");
}

#[test]
fn for_an_orphan_a_single_daemon_and_its_processes_stay() {
    let place = Place::new();
    place.listen(true);
    let daemon = place.daemon("pm_id=1 name=far sleep 601 & echo $! >app");
    let app = place.noted("app");
    let (orphan, port) = place.orphan();
    place.note("holder", orphan);
    let ended = place.reset(&Warrant::Orphan(orphan), &place.managed(None, Some(port)));
    assert_eq!(ended.ending, Ending::Exited(0));
    assert!(!process::is_alive(orphan) && process::is_alive(daemon) && process::is_alive(app));
    assert_eq!(place.calls(), "restart sav");
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
    let (orphan, port) = place.orphan();
    place.note("holder", orphan);
    place.reset(&Warrant::Orphan(orphan), &place.managed(None, Some(port)));
    assert_eq!(place.calls(), "resurrect, restart sav");
}

#[test]
fn whoever_is_not_proven_keeps_the_port() {
    let place = Place::new();
    place.listen(true);
    let (stranger, port) = place.stranger();
    // The orphan of the warrant is another process by now.
    let before = Process { started: stranger.started - 1, ..stranger };
    place.reset(&Warrant::Orphan(before), &place.managed(None, Some(port)));
    assert!(process::is_alive(stranger));
    let said = format!("port {port} is held by pid {} (a\\u{{1b}}[2Jstranger 600", stranger.pid);
    assert!(place.said().starts_with(&said), "{}", place.said());
    assert!(place.said().ends_with("), no process of PM2's; left alone"), "{}", place.said());

    // In cluster mode the port is the daemon's.
    place.said.lock().unwrap().clear();
    let mut port = 0;
    let daemon = place.start(TITLE, &place.marks("sav", "0"), "", |command| port = hold_port(command));
    place.reset(&Warrant::Orphan(stranger), &place.managed(None, Some(port)));
    assert!(process::is_alive(daemon) && process::is_alive(stranger));
    assert!(place.said().ends_with("), PM2's own; left alone"), "{}", place.said());
}
