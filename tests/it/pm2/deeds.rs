//! What is done to a scene: the ways in which the backend and PM2 break, and the watchdog that is set beside them.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::scene::{NAME, Scene};
use crate::place::{Daemon, Said, doing, is_alive, send};

impl Scene {
    // How it breaks.

    /// The backend freezes, or what else the path asks it for; until it does not answer any more.
    #[track_caller]
    pub(crate) fn freeze(&self, by: &str) -> i32 {
        let pid = self.well();
        self.place.demand(self.ask(by).is_some_and(|(code, _)| code == 200), "it still answers to that");
        self.eventually("it answers no more", || self.pid() != Some(pid));
        pid
    }

    /// The backend exits, and at each further start too, until PM2 gives up.
    #[track_caller]
    pub(crate) fn crash_for_good(&self) {
        self.set("broken", "");
        self.ask("/exit?code=1");
        self.eventually("PM2 gives up", || self.pm2_log().contains("too many unstable restarts"));
    }

    /// Kills a process and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(&self, pid: i32) {
        send(pid, Signal::KILL);
        self.eventually("what was killed is gone", || !is_alive(pid));
    }

    #[track_caller]
    pub(crate) fn kill_daemon(&self) {
        self.kill(self.daemon());
    }

    /// SIGSTOP: it is there, its socket takes connections, and it never answers.
    #[track_caller]
    pub(crate) fn stop_daemon(&self) -> i32 {
        let daemon = self.daemon();
        send(daemon, Signal::STOP);
        self.eventually("the daemon stands still", || doing(daemon) == Some('T'));
        daemon
    }

    /// The machine loses power: all of PM2 is gone at once, and its files stay.
    #[track_caller]
    pub(crate) fn lose_power(&self) {
        self.eventually("all of PM2 is gone", || {
            self.all().into_iter().for_each(|pid| send(pid, Signal::KILL));
            self.all().is_empty()
        });
    }

    // The watchdog beside it.

    /// Another PATH for what the watchdog runs.
    pub(crate) fn with_path(mut self, path: String) -> Scene {
        self.path = path;
        self
    }

    /// Programs `pm2` and `node` that write each of their calls into the file `calls` before they become the real ones.
    pub(crate) fn counted(self) -> Scene {
        fs::create_dir(self.place.path("counting")).expect("a folder");
        for (name, folder) in [("pm2", &self.installed.bin), ("node", &self.installed.node)] {
            let (calls, real) = (self.place.path("calls"), folder.join(name));
            let script =
                format!("#!/bin/sh\necho {name} \"$*\" >> {}\nexec {} \"$@\"\n", calls.display(), real.display());
            self.write_program(&format!("counting/{name}"), &script);
        }
        let path = format!("{}:{}", self.place.path("counting").display(), self.installed.path());
        self.with_path(path)
    }

    /// Another process writes it: while one of ours has a file open to write, it cannot be run, and a fork would have
    /// it open for longer than we do.
    fn write_program(&self, name: &str, script: &str) {
        self.place.write("program", script);
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(self.place.path("program")).arg(self.place.path(name));
        assert!(install.status().is_ok_and(|status| status.success()), "install(1) is there");
    }

    /// The configuration: quick looks, one target with these keys. The start period, which a success ends, is long, so
    /// that on a slow machine too the first attempt has its time.
    pub(crate) fn configure(&self, target: &str) {
        self.place.configure(&format!(
            "env: {{PATH: '{}'}}\ndefaults: {{interval: 300ms, timeout: 1s, start_period: 30s, cooldown: 1s, \
             max_cooldown: 2s}}\ntargets:\n  - {{{target}}}\n",
            self.path
        ));
    }

    /// The target's keys for PM2 with these further ones in it.
    pub(crate) fn beside(&self, pm2: &str) -> String {
        format!("pm2: {{process: {NAME}, home: '{}'{pm2}}}", self.home())
    }

    /// The same, and for the probe beside it.
    pub(crate) fn target(&self, pm2: &str) -> String {
        format!("{}, http: '{}'", self.beside(pm2), self.url())
    }

    /// The key for the ecosystem file.
    pub(crate) fn by_file(&self) -> String {
        format!(", config: '{}'", self.config())
    }

    /// A watchdog that has seen the target well, and by which process.
    #[track_caller]
    pub(crate) fn watch(&self, target: &str) -> Daemon<'_> {
        self.configure(target);
        let daemon = self.place.daemon(&["run"]);
        self.eventually("it is seen well", || self.place.target(NAME)["state"] == "healthy");
        self.eventually("its process is known", || self.known().is_some());
        daemon
    }

    /// The process that the watchdog remembers as the one of the last success. On a starved machine a look may be over
    /// before PM2 could be looked at beside it, so that only this tells that a process was seen.
    fn known(&self) -> Option<i64> {
        self.known_of(NAME)
    }

    fn known_of(&self, target: &str) -> Option<i64> {
        let state: Value = serde_json::from_str(&self.place.read("state/state.json")).ok()?;
        state["policy"]["targets"][target]["pm2"]["known"][0].as_i64()
    }

    /// Waits until the watchdog remembers this process as the one of the last success.
    #[track_caller]
    pub(crate) fn known_as(&self, pid: i32) {
        self.eventually("the process is known", || self.known() == Some(pid.into()));
    }

    /// The program as cron runs it: by its configuration, and with an environment that knows neither pm2 nor node.
    pub(crate) fn by_cron(&self, words: &[&str]) -> Said {
        let config = self.place.path("watchdog.yaml").display().to_string();
        let mut command = self.place.command(&[words, &["-c", &config]].concat());
        command.env("PATH", "/usr/bin:/bin").current_dir("/");
        Said::new(command.output().expect("the program runs"))
    }

    /// Waits until so many more looks were made.
    #[track_caller]
    pub(crate) fn looks(&self, more: usize) {
        let look = || self.place.target(NAME)["last_probe"]["at"].clone();
        let (mut last, mut seen) = (look(), 0);
        self.eventually("it goes on looking", || {
            let now = look();
            seen += usize::from(now != last);
            last = now;
            seen >= more
        });
    }

    /// Waits until the target is up again and no command of its repair runs any more, which might start it once more,
    /// and says by which pid. One daemon and one backend are there then, and neither has anything of ours in its
    /// environment.
    #[track_caller]
    pub(crate) fn healed(&self, before: i32) -> i32 {
        self.eventually("it is up again", || !self.place.events("up").is_empty());
        let count = |kind| self.place.events(kind).len();
        self.eventually("its repair is over", || count("restart") == count("restart_done"));
        let pid = self.well_again(before);
        self.eventually("one backend is left", || self.backends() == [pid]);
        for pid in [pid, self.daemon()] {
            let environment = fs::read(format!("/proc/{pid}/environ")).expect("it is alive");
            let environment = String::from_utf8_lossy(&environment);
            let of_ours = environment.split('\0').find(|variable| variable.starts_with("WATCHDOG_"));
            self.place.demand(of_ours.is_none(), &format!("{of_ours:?} is in the environment of {pid}"));
        }
        pid
    }

    /// The same, after three failures and by one restart.
    #[track_caller]
    pub(crate) fn healed_by_one(&self, before: i32) -> i32 {
        let pid = self.healed(before);
        let (down, up) = (self.place.events("down"), self.place.events("up"));
        self.place
            .demand(down.len() == 1 && down[0]["failures"].as_u64() >= Some(3), &format!("three first: {down:?}"));
        self.place.demand(up.len() == 1 && up[0]["attempts"] == 1, &format!("the first attempt cured it: {up:?}"));
        self.place.demand(self.place.events("restart").len() == 1, "one restart");
        pid
    }

    /// Fails if anything was restarted or told to be down.
    #[track_caller]
    pub(crate) fn demand_untouched(&self) {
        self.place.demand(self.place.events("restart").is_empty(), "nothing is restarted");
        self.place.demand(self.place.events("down").is_empty(), "nothing is down");
    }

    /// Waits until the target is held back for this reason.
    #[track_caller]
    pub(crate) fn held_back(&self, why: &str) {
        self.eventually(&format!("it is held back: {why}"), || {
            self.place.events("held_back").iter().any(|event| event["why"] == why)
        });
    }

    /// Waits until the target is found at rest for this reason.
    #[track_caller]
    pub(crate) fn rests(&self, why: &str) {
        self.eventually(&format!("it rests: {why}"), || {
            self.place.events("rested").iter().any(|event| event["why"] == why)
        });
    }

    /// How often this was warned about.
    pub(crate) fn warnings(&self, about: &str) -> usize {
        self.place.events("warn").iter().filter(|event| event["about"] == about).count()
    }
}

impl Scene {
    // The configuration as a new user has it.

    /// Has `init` write the configuration, with the times of a test put before it; what it said.
    #[track_caller]
    pub(crate) fn init(&self) -> Said {
        let mut command = self.place.command(&["init", "--force", "--pm2-home", &self.home()]);
        let said = Said::new(command.env("PATH", self.installed.path()).output().expect("the program runs"));
        self.place.demand(said.code == Some(0), &format!("{said:?}"));
        let times = "defaults: {interval: 300ms, timeout: 1s, start_period: 30s, cooldown: 1s, max_cooldown: 2s}\n";
        self.place.configure(&format!("{times}{}", self.place.read("watchdog.yaml")));
        said
    }

    /// A watchdog with the configuration that is there, in cron's environment, once each of these targets was seen well
    /// and its process is known.
    #[track_caller]
    pub(crate) fn watch_all(&self, targets: &[&str]) -> Daemon<'_> {
        let mut command = self.place.command(&["run"]);
        command.env("PATH", "/usr/bin:/bin");
        let daemon = self.place.daemon_by(command);
        for target in targets {
            self.eventually(&format!("{target} is seen well"), || self.place.target(target)["state"] == "healthy");
            self.eventually(&format!("{target} is known"), || self.known_of(target).is_some());
        }
        daemon
    }

    /// Deletes the sockets of a daemon that has had the time to make them, as cleaners of old files do.
    #[track_caller]
    pub(crate) fn lose_sockets(&self) {
        let began = fs::metadata(format!("/proc/{}", self.daemon())).and_then(|found| found.modified());
        let began = began.expect("it is alive");
        let grown = std::time::Duration::from_secs(12);
        self.eventually("the daemon is not just starting", || began.elapsed().is_ok_and(|age| age >= grown));
        for socket in ["rpc.sock", "pub.sock"] {
            fs::remove_file(format!("{}/{socket}", self.home())).expect("it was there");
        }
    }
}
