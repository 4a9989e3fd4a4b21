//! Tests with PM2's lists, with real processes that have PM2's titles and environments, and with a script in place of
//! `pm2`. They must never leave a process running.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its fixture must end")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use super::*;
use crate::clock;
use crate::command::Scope;
use crate::process::{self, Process};

mod calls;
mod concluded;
mod lists;
mod observed;
mod resets;
mod rests;

const TITLE: &str = "PM2 v7.0.4: God Daemon (/h)";
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A PM2 home, a `pm2` next to it, and all processes of that home, which are killed when it is dropped.
struct Pm2Fixture {
    folder: tempfile::TempDir,
    home: Home,
    socket: Mutex<Option<UnixListener>>,
    log: Mutex<Vec<String>>,
}

impl Pm2Fixture {
    fn new() -> Self {
        // In /tmp, because a socket path must be short and $TMPDIR may be long.
        let folder = tempfile::Builder::new().prefix("w").tempdir_in("/tmp").unwrap();
        let path = folder.path().join("home");
        fs::create_dir_all(path.join("pids")).unwrap();
        Pm2Fixture { folder, home: Home::at(&path), socket: Mutex::default(), log: Mutex::default() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Creates a listening socket for the daemon. It is reachable once it is linked, now or by the script for `pm2`.
    fn listen(&self, is_linked: bool) {
        *self.socket.lock().unwrap() = Some(UnixListener::bind(self.home.path().join("real.sock")).unwrap());
        if is_linked {
            symlink("real.sock", self.home.path().join("rpc.sock")).unwrap();
        }
    }

    /// Installs a `pm2` that records its arguments and then runs a shell script.
    fn install_pm2(&self, script: &str) -> Caller {
        let script = format!("#!/bin/sh\ncd {}\necho \"$*\" >>calls\n{script}\n", self.folder.path().display());
        fs::write(self.file("pm2"), script).unwrap();
        fs::set_permissions(self.file("pm2"), fs::Permissions::from_mode(0o700)).unwrap();
        Caller {
            home: self.home.path().to_owned(),
            folder: self.folder.path().to_owned(),
            env: vec![("PATH".into(), format!("{}:/usr/bin:/bin", self.folder.path().display()))],
            timeout: TEST_TIMEOUT,
            scope: Scope::default(),
        }
    }

    fn calls(&self) -> String {
        let text = fs::read_to_string(self.file("calls")).unwrap_or_default();
        text.lines().collect::<Vec<_>>().join(", ").replace(&self.folder.path().display().to_string(), "")
    }

    /// Starts a process with only these variables and this title, and reaps it when it ends. It runs the shell script
    /// and then sleeps; with an empty script it is a single process that sleeps.
    fn start(&self, title: &str, env: &[(&str, &str)], script: &str, change: impl FnOnce(&mut Command)) -> Process {
        let mut command = Command::new(if script.is_empty() { "sleep" } else { "sh" });
        match script {
            "" => command.arg0(title).arg("600"),
            // Without a command after the last sleep, the shell would exec it and lose the title.
            _ => command.arg0(title).args(["-c", &format!("{script}\nwait; sleep 600; :")]),
        };
        command.env_clear().envs(env.iter().copied()).env("PATH", "/usr/bin:/bin").env("OF", self.home_path());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let process = process::identify(child.id());
        std::thread::spawn(move || child.wait());
        process
    }

    /// Starts a daemon of this home that runs the shell script and then sleeps.
    fn start_daemon(&self, script: &str) -> Process {
        self.start(TITLE, &[("PM2_HOME", self.home_path())], script, |_| {})
    }

    fn marks<'a>(&'a self, name: &'a str, id: &'a str) -> [(&'a str, &'a str); 3] {
        [("PM2_HOME", self.home_path()), ("pm_id", id), ("name", name)]
    }

    fn start_app(&self, name: &str, id: &str) -> Process {
        self.start("node app.js", &self.marks(name, id), "", |_| {})
    }

    fn home_path(&self) -> &str {
        self.home.path().to_str().unwrap()
    }

    /// Waits until the file contains a pid; returns that process.
    #[track_caller]
    fn process_in_file(&self, file: &str) -> Process {
        let mut pid = None;
        eventually(|| {
            pid = fs::read_to_string(self.file(file)).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
            pid.is_some()
        });
        process::identify(pid.unwrap())
    }

    fn output(&self) -> File {
        File::options().append(true).create(true).open(self.file("output")).unwrap()
    }

    fn log_line(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
    }
}

impl Drop for Pm2Fixture {
    fn drop(&mut self) {
        let home = Some(self.home.path().as_os_str());
        let belongs = |pid: u32| {
            process::environment(pid)
                .is_some_and(|env| ["OF", "PM2_HOME"].into_iter().any(|name| env.get(name) == home))
        };
        let living = || process::pids().unwrap().filter(|pid| belongs(*pid)).filter_map(process::identify_living);
        // Again until none is left, since a process may be starting another. A process that cannot be signalled has
        // ended.
        for _ in 0..1_000 {
            living().for_each(|process| drop(process::send_signal(process, Signal::KILL)));
            if living().next().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Gives a command a listening socket as its standard input; returns its port.
fn attach_listener(command: &mut Command) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    command.stdin(OwnedFd::from(listener));
    port
}

#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now().since(began) < TEST_TIMEOUT, "the condition was not met in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}
