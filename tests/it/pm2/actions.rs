//! Actions on a fixture: breaking the backend and PM2, and running a watchdog.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::{CommandOutput, Daemon, is_alive, process_state, send_signal};

impl Fixture {
    // Breaking things.

    /// Sends the backend a request that breaks it, and waits until it does not answer any more.
    #[track_caller]
    pub(crate) fn freeze(&self, path: &str) -> i32 {
        let pid = self.wait_until_healthy();
        self.sandbox.assert(self.request(path).is_some_and(|(code, _)| code == 200), "the backend answers the request");
        self.eventually("the backend does not answer any more", || self.pid() != Some(pid));
        pid
    }

    /// Makes the backend exit now and at each further start, until PM2 gives up.
    #[track_caller]
    pub(crate) fn crash_until_given_up(&self) {
        self.set_flag("broken", "");
        self.request("/exit?code=1");
        self.eventually("PM2 gives up", || self.pm2_log().contains("too many unstable restarts"));
    }

    #[track_caller]
    pub(crate) fn kill(&self, pid: i32) {
        send_signal(pid, Signal::KILL);
        self.eventually("the killed process is gone", || !is_alive(pid));
    }

    #[track_caller]
    pub(crate) fn kill_daemon(&self) {
        self.kill(self.daemon_pid());
    }

    /// Sends SIGSTOP: the daemon still accepts connections but never answers.
    #[track_caller]
    pub(crate) fn suspend_daemon(&self) -> i32 {
        let daemon = self.daemon_pid();
        send_signal(daemon, Signal::STOP);
        self.eventually("the daemon is stopped", || process_state(daemon) == Some('T'));
        daemon
    }

    /// Simulates a power loss: all PM2 processes die at once, and their files stay.
    #[track_caller]
    pub(crate) fn simulate_power_loss(&self) {
        self.eventually("all PM2 processes are gone", || {
            self.all_processes().into_iter().for_each(|pid| send_signal(pid, Signal::KILL));
            self.all_processes().is_empty()
        });
        // A dying process has no command line any more while its sockets are still open.
        let address = (Ipv4Addr::LOCALHOST, self.port);
        self.eventually("its port refuses", || TcpStream::connect(address).is_err());
        let socket = format!("{}/rpc.sock", self.home());
        self.eventually("PM2's socket refuses", || UnixStream::connect(&socket).is_err());
    }

    // Running a watchdog.

    /// Replaces the PATH of the commands that the watchdog runs.
    pub(crate) fn with_path(mut self, path: String) -> Fixture {
        self.path = path;
        self
    }

    /// Puts wrappers of `pm2` and `node` first in PATH, which log their calls in the file `calls`.
    pub(crate) fn with_counted_calls(self) -> Fixture {
        fs::create_dir(self.sandbox.path("counting")).expect("folder access");
        for (name, folder) in [("pm2", &self.installed.bin), ("node", &self.installed.node)] {
            let (calls, real) = (self.sandbox.path("calls"), folder.join(name));
            let script =
                format!("#!/bin/sh\necho {name} \"$*\" >> {}\nexec {} \"$@\"\n", calls.display(), real.display());
            self.write_program(&format!("counting/{name}"), &script);
        }
        let path = format!("{}:{}", self.sandbox.path("counting").display(), self.installed.path());
        self.with_path(path)
    }

    /// Written by another process: a file that the test has open for writing cannot be executed, and a concurrent fork
    /// would keep it open longer.
    fn write_program(&self, name: &str, script: &str) {
        self.sandbox.write("program", script);
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(self.sandbox.path("program")).arg(self.sandbox.path(name));
        assert!(install.status().is_ok_and(|status| status.success()), "install(1) works");
    }

    /// Writes a configuration with short intervals and one target with these keys. The start period, which a success
    /// ends, is long enough for the first attempt on a slow machine.
    pub(crate) fn configure(&self, target: &str) {
        self.sandbox.configure(&format!(
            "env: {{PATH: '{}'}}\ndefaults: {{interval: 300ms, timeout: 1s, start_period: 30s, cooldown: 1s, \
             max_cooldown: 2s}}\ntargets:\n  - {{{target}}}\n",
            self.path
        ));
    }

    /// The target's `pm2` key, with these further keys in it.
    pub(crate) fn pm2_key(&self, pm2: &str) -> String {
        format!("pm2: {{process: {APP_NAME}, home: '{}'{pm2}}}", self.home())
    }

    /// The same, with an HTTP probe.
    pub(crate) fn target_keys(&self, pm2: &str) -> String {
        format!("{}, http: '{}'", self.pm2_key(pm2), self.url())
    }

    pub(crate) fn config_key(&self) -> String {
        format!(", config: '{}'", self.config())
    }

    /// Starts a watchdog and waits until the target is healthy and its process is known.
    #[track_caller]
    pub(crate) fn start_watchdog(&self, target: &str) -> Daemon<'_> {
        self.configure(target);
        let daemon = self.sandbox.start_daemon(&["run"]);
        self.eventually("the target is healthy", || self.sandbox.target(APP_NAME)["state"] == "healthy");
        self.eventually("the process is known", || self.known_pid().is_some());
        daemon
    }

    /// The pid that the watchdog saved at the last success. On a busy machine a probe may end before PM2 could be
    /// inspected, so only this proves that the process was seen.
    fn known_pid(&self) -> Option<i64> {
        self.known_pid_of(APP_NAME)
    }

    fn known_pid_of(&self, target: &str) -> Option<i64> {
        let state: Value = serde_json::from_str(&self.sandbox.read("state/state.json")).ok()?;
        state["policy"]["targets"][target]["pm2"]["known"][0].as_i64()
    }

    /// Waits until the watchdog has saved this pid as that of the last success.
    #[track_caller]
    pub(crate) fn wait_until_known(&self, pid: i32) {
        self.eventually("the process is known", || self.known_pid() == Some(pid.into()));
    }

    /// Runs the program as cron does: with a path to the configuration, and with an environment in which neither pm2
    /// nor node is found.
    pub(crate) fn run_from_cron(&self, args: &[&str]) -> CommandOutput {
        let config = self.sandbox.path("watchdog.yaml").display().to_string();
        let mut command = self.sandbox.command(&[args, &["-c", &config]].concat());
        command.env("PATH", "/usr/bin:/bin").current_dir("/");
        CommandOutput::new(command.output().expect("the program runs"))
    }

    /// Waits for this many further probes.
    #[track_caller]
    pub(crate) fn wait_for_probes(&self, more: usize) {
        let last_probe_time = || self.sandbox.target(APP_NAME)["last_probe"]["at"].clone();
        let (mut last, mut seen) = (last_probe_time(), 0);
        self.eventually("probes continue", || {
            let now = last_probe_time();
            seen += usize::from(now != last);
            last = now;
            seen >= more
        });
    }

    /// Waits until the target is up again and no command of the repair is running any more, because that could start
    /// the backend once more; returns the new pid. Checks that one daemon and one backend run, without variables of the
    /// watchdog in their environment.
    #[track_caller]
    pub(crate) fn wait_for_repair(&self, before: i32) -> i32 {
        self.eventually("the target is up again", || !self.sandbox.events("up").is_empty());
        let count = |kind| self.sandbox.events(kind).len();
        self.eventually("the repair has ended", || count("restart") == count("restart_done"));
        let pid = self.wait_for_replacement(before);
        self.eventually("one backend runs", || self.backend_pids() == [pid]);
        for pid in [pid, self.daemon_pid()] {
            let environment = fs::read(format!("/proc/{pid}/environ")).expect("the process is alive");
            let environment = String::from_utf8_lossy(&environment);
            let watchdog_variable = environment.split('\0').find(|variable| variable.starts_with("WATCHDOG_"));
            self.sandbox
                .assert(watchdog_variable.is_none(), &format!("no {watchdog_variable:?} in the environment of {pid}"));
        }
        pid
    }

    /// The same; checks also that one restart after three failures sufficed.
    #[track_caller]
    pub(crate) fn wait_for_repair_by_one_restart(&self, before: i32) -> i32 {
        let pid = self.wait_for_repair(before);
        let (down, up) = (self.sandbox.events("down"), self.sandbox.events("up"));
        self.sandbox.assert(
            down.len() == 1 && down[0]["failures"].as_u64() >= Some(3),
            &format!("one incident after three failures: {down:?}"),
        );
        self.sandbox.assert(up.len() == 1 && up[0]["attempts"] == 1, &format!("up after the first attempt: {up:?}"));
        self.sandbox.assert(self.sandbox.events("restart").len() == 1, "one restart");
        pid
    }

    /// Checks that there was no restart and no incident.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        self.sandbox.assert(self.sandbox.events("restart").is_empty(), "nothing is restarted");
        self.assert_no_incident();
    }

    #[track_caller]
    pub(crate) fn assert_no_incident(&self) {
        self.sandbox.assert(self.sandbox.events("down").is_empty(), "no target is down");
    }

    /// Waits until a restart is held back for this reason.
    #[track_caller]
    pub(crate) fn wait_until_held_back(&self, why: &str) {
        self.eventually(&format!("a restart is held back: {why}"), || {
            self.sandbox.events("held_back").iter().any(|event| event["why"] == why)
        });
    }

    /// Waits until the target is at rest for this reason.
    #[track_caller]
    pub(crate) fn wait_until_at_rest(&self, why: &str) {
        self.eventually(&format!("the target is at rest: {why}"), || {
            self.sandbox.events("rested").iter().any(|event| event["why"] == why)
        });
    }

    /// The number of warnings of this kind.
    pub(crate) fn warning_count(&self, about: &str) -> usize {
        self.sandbox.events("warn").iter().filter(|event| event["about"] == about).count()
    }
}

impl Fixture {
    // The configuration that a new user has.

    /// Lets `init` write the configuration, and adds short times for the test; returns the output.
    #[track_caller]
    pub(crate) fn run_init(&self) -> CommandOutput {
        let mut command = self.sandbox.command(&["init", "--force", "--pm2-home", &self.home()]);
        let output = CommandOutput::new(command.env("PATH", self.installed.path()).output().expect("the program runs"));
        self.sandbox.assert(output.code == Some(0), &format!("{output:?}"));
        let times = "defaults: {interval: 300ms, timeout: 1s, start_period: 30s, cooldown: 1s, max_cooldown: 2s}\n";
        self.sandbox.configure(&format!("{times}{}", self.sandbox.read("watchdog.yaml")));
        output
    }

    /// Starts a watchdog with the present configuration in cron's environment, and waits until each of these targets is
    /// healthy and its process is known.
    #[track_caller]
    pub(crate) fn start_watchdog_for(&self, targets: &[&str]) -> Daemon<'_> {
        let mut command = self.sandbox.command(&["run"]);
        command.env("PATH", "/usr/bin:/bin");
        let daemon = self.sandbox.start_daemon_from(command);
        for target in targets {
            self.eventually(&format!("{target} is healthy"), || self.sandbox.target(target)["state"] == "healthy");
            self.eventually(&format!("{target} is known"), || self.known_pid_of(target).is_some());
        }
        daemon
    }

    /// Deletes the sockets, as cleaners of old files do, of a daemon that has had time to create them.
    #[track_caller]
    pub(crate) fn delete_sockets(&self) {
        let started = fs::metadata(format!("/proc/{}", self.daemon_pid())).and_then(|found| found.modified());
        let started = started.expect("the process is alive");
        let startup_time = std::time::Duration::from_secs(12);
        self.eventually("the daemon is not just starting", || started.elapsed().is_ok_and(|age| age >= startup_time));
        for socket in ["rpc.sock", "pub.sock"] {
            fs::remove_file(format!("{}/{socket}", self.home())).expect("the socket existed");
        }
    }
}
