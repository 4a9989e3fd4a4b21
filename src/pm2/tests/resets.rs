//! The reset of PM2: which processes it ends, which it leaves running, and in which order.

use super::*;
use crate::command::CommandResult;
use crate::outcome::Exit;

/// A `pm2` whose `jlist` prints the file `list`, and whose `resurrect` links the socket and starts `sav` if there is a
/// file `saved`. Every other call records whether the processes in the files `daemon` and `holder` are alive.
const PM2: &str = "
test \"$1\" != jlist || { cat list; exit 0; }
for who in daemon holder; do test ! -e $who || ! kill -0 $(cat $who) 2>/dev/null || echo $who lives >>calls; done
test \"$1\" != resurrect || ln -sf real.sock \"$PM2_HOME/rpc.sock\"
test \"$1\" != resurrect -o ! -e saved || {
    pm_id=0 name=sav setsid sleep 602 &
    until grep -qa name=sav /proc/$!/environ; do :; done
    echo $! >\"$PM2_HOME/pids/sav-0.pid\"
}";

impl Pm2Fixture {
    fn reset(&self, reason: &ResetReason, port: Option<u16>) -> CommandResult {
        let (caller, managed) =
            (self.install_pm2(PM2), ManagedProcess { ports: port.into_iter().collect(), ..self.managed(None) });
        self.save("sav");
        let say = |line: &str| self.log_line(line);
        let (output, mut on_start) = (self.output(), |_| {});
        reset(
            reason,
            RepairContext {
                home: &self.home,
                caller: &caller,
                managed: &managed,
                log_line: &say,
                output: &output,
                on_start: &mut on_start,
            },
        )
    }

    fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn write_pid(&self, file: &str, process: Process) {
        fs::write(self.file(file), process.pid.to_string()).unwrap();
    }

    fn start_orphan(&self) -> (Process, u16) {
        let mut port = 0;
        let process = self.start("node app.js", &self.marks("sav", "0"), "", |command| port = attach_listener(command));
        (process, port)
    }

    fn start_foreign(&self) -> (Process, u16) {
        let mut port = 0;
        let process = self.start("a\u{1b}[2Jforeign", &[], "", |command| port = attach_listener(command));
        (process, port)
    }

    fn save(&self, name: &str) {
        fs::write(self.home.path().join("dump.pm2"), format!("[{{\"name\":\"{name}\"}}]")).unwrap();
    }
}

#[test]
fn a_silent_daemon_and_its_survivors_are_killed_before_anything_is_started() {
    let (fixture, other) = (Pm2Fixture::new(), Pm2Fixture::new());
    fixture.listen(false);
    fs::write(fixture.file("saved"), "").unwrap();
    // A process that survives its daemon and ignores SIGTERM, and a child of the daemon that is not PM2's process.
    let app = "pm_id=0 name=sav sh -c 'trap \"\" TERM; echo $$ >app; sleep 601; :' & sleep 600 & echo $! >unmarked";
    let daemon = fixture.start_daemon(app);
    let (app, unmarked) = (fixture.process_in_file("app"), fixture.process_in_file("unmarked"));
    let (holder, port) = fixture.start_orphan();
    fixture.write_pid("daemon", daemon);
    fixture.write_pid("holder", holder);
    let foreign =
        [other.start_daemon(""), other.start_app("sav", "0"), fixture.start_app("far", "1"), fixture.start_foreign().0];
    process::send_signal(daemon, Signal::STOP).unwrap();

    let result = fixture.reset(&ResetReason::Deaf, Some(port));
    assert_eq!(result.exit, Exit::Exited(0), "{}", fixture.log_text());
    assert!([daemon, app, holder].into_iter().all(|process| !process::is_alive(process)), "{}", fixture.log_text());
    assert!(foreign.into_iter().chain([unmarked]).all(process::is_alive), "{}", fixture.log_text());
    // No killed process was alive at the call, and since the process started, no other call was needed.
    assert_eq!(fixture.calls(), "resurrect");
    let log = fixture.log_text();
    let order = [
        format!("killed PM2's daemon (pid {})", daemon.pid),
        format!("sent SIGTERM to pid {} (", app.pid),
        format!("killed pid {} (", app.pid),
        format!("sent SIGTERM to pid {} (", holder.pid),
    ];
    let positions: Vec<Option<usize>> = order.iter().map(|line| log.find(line.as_str())).collect();
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{positions:?}\n{log}");
}

/// A process that has overwritten its environment is identified only by its pid file, and being alive does not mean
/// that it was restarted.
#[test]
fn a_survivor_without_marks_is_ended_and_started_again() {
    let fixture = Pm2Fixture::new();
    fixture.listen(false);
    fs::write(fixture.file("saved"), "").unwrap();
    let daemon = fixture.start_daemon("env -i sleep 601 & echo $! >app");
    let app = fixture.process_in_file("app");
    fixture.write_pid("home/pids/sav-0.pid", app);
    let result = fixture.reset(&ResetReason::Deaf, None);
    assert_eq!(result.exit, Exit::Exited(0), "{}", fixture.log_text());
    assert!(!process::is_alive(daemon) && !process::is_alive(app), "{}", fixture.log_text());
    assert_eq!(fixture.calls(), "resurrect");
}

#[test]
fn two_daemons_are_both_killed() {
    let fixture = Pm2Fixture::new();
    // The socket is not linked, so no daemon accepts before `resurrect`.
    fixture.listen(false);
    fs::write(fixture.file("saved"), "").unwrap();
    let daemons = [fixture.start_daemon(""), fixture.start_daemon("trap '' TERM")];
    let result = fixture.reset(&ResetReason::MultipleDaemons(2), None);
    assert_eq!(result.exit, Exit::Exited(0), "{}", fixture.log_text());
    assert!(!daemons.into_iter().any(process::is_alive));
    assert_eq!(fixture.calls(), "resurrect");
}

#[test]
fn a_foreground_daemon_is_not_killed() {
    let fixture = Pm2Fixture::new();
    let title = "node /x/bin/pm2-runtime start app.js";
    let daemon = fixture.start(title, &[("PM2_HOME", fixture.home_path())], "", |_| {});
    assert_eq!(fixture.home.observe_all_daemons().proven.len(), 1);
    fixture.reset(&ResetReason::Deaf, None);
    assert!(process::is_alive(daemon), "{}", fixture.log_text());
}

#[test]
fn a_reset_for_an_orphan_leaves_a_single_daemon_and_its_processes_running() {
    let fixture = Pm2Fixture::new();
    fixture.listen(true);
    fs::write(fixture.file("list"), r#"[{"name":"far","pm_id":1},{"name":"sav","pm_id":2}]"#).unwrap();
    let daemon = fixture.start_daemon("pm_id=1 name=far sleep 601 & echo $! >app");
    let app = fixture.process_in_file("app");
    let (orphan, port) = fixture.start_orphan();
    fixture.write_pid("holder", orphan);
    let result = fixture.reset(&ResetReason::Orphan(orphan), Some(port));
    assert_eq!(result.exit, Exit::Exited(0), "{}", fixture.log_text());
    assert!(!process::is_alive(orphan) && process::is_alive(daemon) && process::is_alive(app));
    assert_eq!(fixture.calls(), "jlist -s, restart 2");
    assert!(
        fixture
            .log_text()
            .starts_with(&format!("sent SIGTERM to pid {} (node app.js 600), an orphan on port {port}", orphan.pid)),
        "{}",
        fixture.log_text()
    );
}

#[test]
fn a_reset_for_an_orphan_without_a_daemon_resurrects_the_saved_list() {
    let fixture = Pm2Fixture::new();
    fixture.listen(false);
    fs::write(fixture.file("saved"), "").unwrap();
    let (orphan, port) = fixture.start_orphan();
    fixture.write_pid("holder", orphan);
    fixture.reset(&ResetReason::Orphan(orphan), Some(port));
    assert_eq!(fixture.calls(), "resurrect");
}

#[test]
fn an_unproven_process_keeps_the_port() {
    let fixture = Pm2Fixture::new();
    fixture.listen(true);
    let (foreign, port) = fixture.start_foreign();
    // The pid of the orphan belongs to another process by now.
    let before = Process { started: foreign.started - 1, ..foreign };
    fixture.reset(&ResetReason::Orphan(before), Some(port));
    assert!(process::is_alive(foreign));
    let expected = format!("port {port} is in use by pid {} (a\\u{{1b}}[2Jforeign 600", foreign.pid);
    assert!(fixture.log_text().starts_with(&expected), "{}", fixture.log_text());
    assert!(fixture.log_text().contains("), not a process of PM2; left running"), "{}", fixture.log_text());

    // In cluster mode the daemon listens on the port.
    fixture.log.lock().unwrap().clear();
    let mut port = 0;
    let daemon = fixture.start(TITLE, &fixture.marks("sav", "0"), "", |command| port = attach_listener(command));
    fixture.reset(&ResetReason::Orphan(foreign), Some(port));
    assert!(process::is_alive(daemon) && process::is_alive(foreign));
    assert!(fixture.log_text().contains("), a process of PM2; left running"), "{}", fixture.log_text());
}
