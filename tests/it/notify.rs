//! What the service manager is told: that the watchdog is at work, that its loop goes round, and that it ends.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Daemon, Place};

/// A service manager: the socket that systemd would listen to.
struct Manager {
    socket: UnixDatagram,
    /// `FIELD=value` lines, in the order in which they came.
    heard: Vec<String>,
}

impl Manager {
    /// With a watchdog under it that it takes for hung after `patience`.
    fn with(place: &Place, patience: Duration) -> (Manager, Daemon<'_>) {
        let manager = Manager { socket: bind(place), heard: Vec::new() };
        let mut command = place.command(&["run"]);
        command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", patience.as_micros().to_string());
        let daemon = place.daemon_by(command);
        (manager, daemon)
    }

    /// Waits until a line that begins as `wanted` has come after the first `from` lines; the number of lines up to it.
    #[track_caller]
    fn hears(&mut self, place: &Place, wanted: &str, from: usize) -> usize {
        let mut found = None;
        place.eventually(&format!("{wanted} is said"), || {
            self.listen();
            found = self.heard.iter().skip(from).position(|line| line.starts_with(wanted));
            found.is_some()
        });
        from + found.expect("as waited for") + 1
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    fn count(&self, line: &str) -> u32 {
        u32::try_from(self.heard.iter().filter(|heard| *heard == line).count()).expect("a few lines")
    }
}

fn bind(place: &Place) -> UnixDatagram {
    let socket = UnixDatagram::bind(place.path("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket
}

/// One target that is in order and has nothing to do for an hour.
fn quiet() -> Place {
    Place::with("targets:\n  - {name: app, command: 'true', interval: 1h}\n")
}

#[test]
fn the_service_manager_hears_that_we_are_ready_alive_reloading_and_ending() {
    const PATIENCE: Duration = Duration::from_millis(900);
    let (place, began) = (quiet(), Instant::now());
    let (mut manager, daemon) = Manager::with(&place, PATIENCE);
    let mut last = manager.hears(&place, "READY=1", 0);
    manager.hears(&place, "STATUS=1 of 1 OK", 0);
    for _ in 0..5 {
        last = manager.hears(&place, "WATCHDOG=1", last);
    }
    let (signs, took) = (manager.count("WATCHDOG=1"), began.elapsed());
    assert!(took >= PATIENCE / 3 * (signs - 1), "{signs} signs of life within {took:?} are too many");
    assert!(took < PATIENCE * 60, "{signs} signs of life within {took:?} are too few");

    daemon.signal(Signal::HUP);
    let reloading = manager.hears(&place, "RELOADING=1", last);
    let stamped = manager.hears(&place, "MONOTONIC_USEC=", reloading);
    let again = manager.hears(&place, "READY=1", stamped);
    assert_eq!(daemon.stop().code(), Some(0));
    manager.hears(&place, "STOPPING=1", again);
    assert_eq!(manager.count("READY=1"), 2, "{:?}", manager.heard);
}

#[test]
fn an_end_that_waits_for_a_restart_command_asks_for_more_time() {
    let place = Place::with(
        "targets:\n  - name: app\n    command: test ! -e broken\n    interval: 100ms\n    \
         restart: touch running; while ! test -e enough; do sleep 0.05; done\n",
    );
    let (mut manager, mut daemon) = Manager::with(&place, Duration::from_millis(300));
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    place.write("broken", "");
    place.eventually("it is being restarted", || place.path("running").exists());
    manager.hears(&place, "STATUS=1 of 1 failing or down", 0);
    daemon.signal(Signal::TERM);
    let stopping = manager.hears(&place, "STOPPING=1", 0);
    let asked = manager.hears(&place, "EXTEND_TIMEOUT_USEC=", stopping);
    manager.hears(&place, "STATUS=stopping", stopping);
    manager.hears(&place, "WATCHDOG=1", asked);
    place.write("enough", "");
    assert_eq!(daemon.child.wait().expect("a child can be waited for").code(), Some(0));
}

#[test]
fn a_service_manager_that_does_not_listen_holds_nothing_up() {
    let place = quiet();
    let deaf = bind(&place);
    let stuffing = UnixDatagram::unbound().expect("a socket");
    stuffing.set_nonblocking(true).expect("a socket that does not block");
    while stuffing.send_to(b"STATUS=stuffing", place.path("notify")).is_ok() {}
    let mut command = place.command(&["run"]);
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "300000");
    let daemon = place.daemon_by(command);
    place.eventually("it looks", || place.target("app")["state"] == "healthy");
    assert_eq!(daemon.stop().code(), Some(0));
    drop(deaf);
}
