//! Notifications to the service manager: the watchdog is ready, its loop is alive, and it is stopping.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::sandbox::{Daemon, Sandbox};

/// A service manager: the socket that systemd would listen on.
struct Manager {
    socket: UnixDatagram,
    /// The `FIELD=value` lines in the order received.
    received: Vec<String>,
}

impl Manager {
    /// With a watchdog that it would consider hung after `timeout`.
    fn with(sandbox: &Sandbox, timeout: Duration) -> (Manager, Daemon<'_>) {
        let manager = Manager { socket: bind(sandbox), received: Vec::new() };
        let mut command = sandbox.command(&["run"]);
        command.env("NOTIFY_SOCKET", sandbox.path("notify")).env("WATCHDOG_USEC", timeout.as_micros().to_string());
        let daemon = sandbox.start_daemon_from(command);
        (manager, daemon)
    }

    /// Waits for a line that begins with `prefix` after the first `from` lines; returns the number of lines up to it.
    #[track_caller]
    fn wait_for(&mut self, sandbox: &Sandbox, prefix: &str, from: usize) -> usize {
        let mut found = None;
        sandbox.eventually(&format!("{prefix} is received"), || {
            self.receive();
            found = self.received.iter().skip(from).position(|line| line.starts_with(prefix));
            found.is_some()
        });
        from + found.expect("found above") + 1
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.received.extend(text.lines().map(str::to_owned));
        }
    }

    fn count(&self, line: &str) -> u32 {
        u32::try_from(self.received.iter().filter(|received| *received == line).count()).expect("a few lines")
    }
}

fn bind(sandbox: &Sandbox) -> UnixDatagram {
    let socket = UnixDatagram::bind(sandbox.path("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket
}

/// One healthy target that is probed once an hour.
fn idle_sandbox() -> Sandbox {
    Sandbox::new("targets:\n  - {name: app, command: 'true', interval: 1h}\n")
}

#[test]
fn the_service_manager_is_notified_of_start_heartbeats_reload_and_stop() {
    const TIMEOUT: Duration = Duration::from_millis(900);
    let (sandbox, began) = (idle_sandbox(), Instant::now());
    let (mut manager, daemon) = Manager::with(&sandbox, TIMEOUT);
    let mut last = manager.wait_for(&sandbox, "READY=1", 0);
    manager.wait_for(&sandbox, "STATUS=1 of 1 OK", 0);
    for _ in 0..5 {
        last = manager.wait_for(&sandbox, "WATCHDOG=1", last);
    }
    let (heartbeats, duration) = (manager.count("WATCHDOG=1"), began.elapsed());
    assert!(duration >= TIMEOUT / 3 * (heartbeats - 1), "{heartbeats} heartbeats within {duration:?} are too many");
    assert!(duration < TIMEOUT * 60, "{heartbeats} heartbeats within {duration:?} are too few");

    // A refused configuration is in the status until a reload succeeds.
    let valid = sandbox.read("watchdog.yaml");
    sandbox.write("watchdog.yaml", "targets: [{nmae: app}]");
    daemon.signal(Signal::HUP);
    let prefix = "STATUS=configuration refused: ";
    last = manager.wait_for(&sandbox, prefix, last);
    let refused = manager.received[last - 1].clone();
    assert!(refused.contains("nmae") && refused.contains("; keeps the old one. 1 of 1 OK"), "{refused}");
    sandbox.write("watchdog.yaml", &valid);
    daemon.signal(Signal::HUP);
    last = manager.wait_for(&sandbox, "STATUS=1 of 1 OK", last);

    daemon.signal(Signal::HUP);
    let reloading = manager.wait_for(&sandbox, "RELOADING=1", last);
    let stamped = manager.wait_for(&sandbox, "MONOTONIC_USEC=", reloading);
    let again = manager.wait_for(&sandbox, "READY=1", stamped);
    assert_eq!(daemon.stop().code(), Some(0));
    manager.wait_for(&sandbox, "STOPPING=1", again);
    assert_eq!(manager.count("READY=1"), 4, "{:?}", manager.received);
}

#[test]
fn a_stop_that_waits_for_a_restart_command_asks_for_more_time() {
    let sandbox = Sandbox::new(
        "targets:\n  - name: app\n    command: test ! -e broken\n    interval: 100ms\n    \
         restart: touch running; while ! test -e enough; do sleep 0.05; done\n",
    );
    let (mut manager, mut daemon) = Manager::with(&sandbox, Duration::from_millis(300));
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    sandbox.write("broken", "");
    sandbox.eventually("the restart command runs", || sandbox.path("running").exists());
    manager.wait_for(&sandbox, "STATUS=1 of 1 failing or down", 0);
    daemon.signal(Signal::TERM);
    let stopping = manager.wait_for(&sandbox, "STOPPING=1", 0);
    let extended = manager.wait_for(&sandbox, "EXTEND_TIMEOUT_USEC=", stopping);
    manager.wait_for(&sandbox, "STATUS=stopping", stopping);
    manager.wait_for(&sandbox, "WATCHDOG=1", extended);
    sandbox.write("enough", "");
    assert_eq!(daemon.child.wait().expect("a child can be waited for").code(), Some(0));
}

#[test]
fn a_service_manager_that_does_not_read_delays_nothing() {
    let sandbox = idle_sandbox();
    let unread = bind(&sandbox);
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket that does not block");
    while filler.send_to(b"STATUS=stuffing", sandbox.path("notify")).is_ok() {}
    let mut command = sandbox.command(&["run"]);
    command.env("NOTIFY_SOCKET", sandbox.path("notify")).env("WATCHDOG_USEC", "300000");
    let daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    assert_eq!(daemon.stop().code(), Some(0));
    drop(unread);
}
