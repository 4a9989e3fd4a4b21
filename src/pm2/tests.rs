//! PM2's lists, and what passes for its processes under a real `/proc`: programs with its title and its environment,
//! and a script for `pm2` itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

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
const AMPLE: Duration = Duration::from_secs(120);

/// A home of PM2's, a `pm2` beside it, and all processes of that home; these end with it.
struct Place {
    folder: tempfile::TempDir,
    home: Home,
    socket: Mutex<Option<UnixListener>>,
    said: Mutex<Vec<String>>,
}

impl Place {
    fn new() -> Self {
        // Short enough for a socket's name, whatever the usual folder for such things is.
        let folder = tempfile::Builder::new().prefix("w").tempdir_in("/tmp").unwrap();
        let path = folder.path().join("home");
        fs::create_dir_all(path.join("pids")).unwrap();
        Place { folder, home: Home::at(&path), socket: Mutex::default(), said: Mutex::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From here on a daemon's socket is there; or will be when the link to it is made, as the script for `pm2` does.
    fn listen(&self, is_linked: bool) {
        *self.socket.lock().unwrap() = Some(UnixListener::bind(self.home.path().join("real.sock")).unwrap());
        if is_linked {
            symlink("real.sock", self.home.path().join("rpc.sock")).unwrap();
        }
    }

    /// A `pm2` that notes its arguments, then does as the text says.
    fn pm2(&self, text: &str) -> Caller {
        let script = format!("#!/bin/sh\ncd {}\necho \"$*\" >>calls\n{text}\n", self.folder.path().display());
        fs::write(self.at("pm2"), script).unwrap();
        fs::set_permissions(self.at("pm2"), fs::Permissions::from_mode(0o700)).unwrap();
        Caller {
            home: self.home.path().to_owned(),
            folder: self.folder.path().to_owned(),
            env: vec![("PATH".into(), format!("{}:/usr/bin:/bin", self.folder.path().display()))],
            timeout: AMPLE,
            scope: Scope::default(),
        }
    }

    fn calls(&self) -> String {
        let text = fs::read_to_string(self.at("calls")).unwrap_or_default();
        text.lines().collect::<Vec<_>>().join(", ").replace(&self.folder.path().display().to_string(), "")
    }

    /// Starts a process that has these variables only, under this title, and sees to it that it leaves no zombie. It
    /// does as the text says and then sleeps; without a text it is a single process.
    fn start(&self, title: &str, env: &[(&str, &str)], text: &str, change: impl FnOnce(&mut Command)) -> Process {
        let mut command = Command::new(if text.is_empty() { "sleep" } else { "sh" });
        match text {
            "" => command.arg0(title).arg("600"),
            // Something after the last sleep keeps the shell from becoming it, title and all.
            _ => command.arg0(title).args(["-c", &format!("{text}\nwait; sleep 600; :")]),
        };
        command.env_clear().envs(env.iter().copied()).env("PATH", "/usr/bin:/bin").env("OF", self.path());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let process = process::identify(child.id());
        std::thread::spawn(move || child.wait());
        process
    }

    /// A daemon of this home that does as the text says, then sleeps.
    fn daemon(&self, text: &str) -> Process {
        self.start(TITLE, &[("PM2_HOME", self.path())], text, |_| {})
    }

    fn marks<'a>(&'a self, name: &'a str, id: &'a str) -> [(&'a str, &'a str); 3] {
        [("PM2_HOME", self.path()), ("pm_id", id), ("name", name)]
    }

    fn app(&self, name: &str, id: &str) -> Process {
        self.start("node app.js", &self.marks(name, id), "", |_| {})
    }

    fn path(&self) -> &str {
        self.home.path().to_str().unwrap()
    }

    /// The process that wrote its number into a file, which it may still be about to do.
    #[track_caller]
    fn noted(&self, file: &str) -> Process {
        let mut pid = None;
        eventually(|| {
            pid = fs::read_to_string(self.at(file)).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
            pid.is_some()
        });
        process::identify(pid.unwrap())
    }

    fn output(&self) -> File {
        File::options().append(true).create(true).open(self.at("output")).unwrap()
    }

    fn say(&self, line: &str) {
        self.said.lock().unwrap().push(line.to_owned());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let home = Some(self.home.path().as_os_str());
        let is_of = |pid: u32| {
            process::environment(pid)
                .is_some_and(|env| ["OF", "PM2_HOME"].into_iter().any(|name| env.get(name) == home))
        };
        let living = || process::pids().unwrap().filter(|pid| is_of(*pid)).filter_map(process::living);
        // One may just be starting another; whoever cannot be signalled is gone.
        for _ in 0..1_000 {
            living().for_each(|process| drop(process::signal(process, Signal::KILL)));
            if living().next().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Gives a listening socket to a command as its standard input; answers its port.
fn hold_port(command: &mut Command) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    command.stdin(OwnedFd::from(listener));
    port
}

#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now().since(began) < AMPLE, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
