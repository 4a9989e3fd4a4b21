//! A place with a PM2 of its own in it: its home, one backend, and what is needed to break both.
//! Whatever of it lives when the scene ends is ended by its number, proven to be ours by its environment.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use serde_json::Value;

use super::installed::{Installed, Version, installed};
use crate::place::{Place, Said, is_alive, send};

/// The process that PM2 runs.
pub(crate) const NAME: &str = "sav-backend";
/// A pm2 command that takes longer hangs, on however slow a machine.
const CAP: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// A hung event loop is told from a slow machine by this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Each scene is some 120 MB and, at its beginning, all of a core: so many at a time.
struct Turn;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREE: Condvar = Condvar::new();

impl Turn {
    fn take() -> Turn {
        let most = thread::available_parallelism().map_or(1, usize::from).div_ceil(2).max(2);
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = FREE.wait_while(taken, |taken| *taken >= most).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREE.notify_one();
    }
}

/// PM2, a backend under it, and the place where a watchdog watches it.
pub(crate) struct Scene {
    pub(crate) place: Place,
    /// PM2's home, with a short path: a socket's may have 107 bytes.
    home: tempfile::TempDir,
    pub(super) installed: &'static Installed,
    pub(crate) port: u16,
    /// PATH, for what the watchdog runs.
    pub(super) path: String,
    _turn: Turn,
}

impl Scene {
    /// Nothing runs yet. `keys` are more keys of the process in the ecosystem file.
    pub(crate) fn new(keys: &str) -> Scene {
        Scene::with(Version::Seven, keys)
    }

    pub(crate) fn with(version: Version, keys: &str) -> Scene {
        let installed = installed(version);
        let turn = Turn::take();
        let home = tempfile::Builder::new().prefix("wd").tempdir_in("/tmp").expect("a folder");
        let (place, port) = (Place::with("targets: []\n"), free_port());
        let scene = Scene { place, home, installed, port, path: installed.path(), _turn: turn };
        fs::create_dir(scene.place.path("app")).expect("a folder");
        scene.write_backend("backend.js");
        scene.place.write("app/ecosystem.config.js", &scene.ecosystem(keys));
        scene
    }

    /// The backend under another name of its script.
    pub(crate) fn write_backend(&self, script: &str) {
        self.place.write(&format!("app/{script}"), include_str!("../../pm2/backend.js"));
    }

    /// Another ecosystem file: what stands in the list of its processes, with PORT for the port.
    pub(crate) fn describe(&self, apps: &str) {
        let apps = apps.replace("PORT_HERE", &self.port.to_string());
        self.place.write("app/ecosystem.config.js", &format!("module.exports = {{apps: [{apps}]}};\n"));
    }

    fn ecosystem(&self, keys: &str) -> String {
        let (folder, port) = (self.place.path("app"), self.port);
        format!(
            "module.exports = {{apps: [{{name: '{NAME}', script: 'backend.js', cwd: '{}', env: {{PORT: {port}}}, \
             {keys}}}]}};\n",
            folder.display()
        )
    }

    /// A scene whose backend answers and whose list is saved.
    pub(crate) fn saved(keys: &str) -> Scene {
        let scene = Scene::new(keys);
        scene.start();
        scene.pm2(&["save"]);
        scene
    }

    /// A scene whose backend answers and whose list was never saved.
    pub(crate) fn unsaved(keys: &str) -> Scene {
        let scene = Scene::new(keys);
        scene.start();
        scene
    }

    /// Starts the backend by its ecosystem file, and waits until it answers.
    pub(crate) fn start(&self) -> i32 {
        self.pm2(&["start", &self.config()]);
        self.well()
    }

    pub(crate) fn config(&self) -> String {
        self.place.path("app/ecosystem.config.js").display().to_string()
    }

    pub(crate) fn home(&self) -> String {
        self.home.path().display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/health", self.port)
    }

    /// The backend's files that say how it starts.
    pub(crate) fn set(&self, name: &str, text: &str) {
        self.place.write(&format!("app/{name}"), text);
    }

    pub(crate) fn unset(&self, name: &str) {
        fs::remove_file(self.place.path(&format!("app/{name}"))).expect("it was set");
    }

    /// How often the backend was started.
    pub(crate) fn starts(&self) -> usize {
        self.place.lines("app/starts").len()
    }

    // What PM2 says.

    /// The real pm2 as the operator runs it in the folder `app`, with these variables in his shell, to its end.
    #[track_caller]
    pub(crate) fn pm2_in_app(&self, shell: &[(&str, &str)], words: &[&str]) {
        let mut command = self.pm2_command(words);
        command.current_dir(self.place.path("app")).envs(shell.iter().copied());
        let said = Said::new(command.output().expect("pm2 is installed"));
        self.place.demand(said.code == Some(0), &format!("{said:?}"));
    }

    fn pm2_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.installed.bin.join("pm2"));
        command.args(words).current_dir(self.place.home()).stdin(Stdio::null()).env_clear();
        command.env("PATH", self.installed.path()).env("HOME", self.place.home()).env("PM2_HOME", self.home.path());
        command
    }

    /// The real pm2, as the operator would run it, to its end.
    #[track_caller]
    pub(crate) fn pm2(&self, words: &[&str]) -> Said {
        let mut child = self.begin_pm2(words);
        self.eventually(&format!("pm2 {words:?} ends"), || child.try_wait().expect("a child can be asked").is_some());
        Said::new(child.wait_with_output().expect("it has ended"))
    }

    /// The same, not waited for. What it prints is less than a pipe holds, and nobody else holds the pipe.
    pub(crate) fn begin_pm2(&self, words: &[&str]) -> Child {
        let mut command = self.pm2_command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pm2 is installed")
    }

    /// What PM2's living daemon says of its process: `online`, `stopped`, `errored`, …; none when it is not listed.
    #[track_caller]
    pub(crate) fn listed(&self) -> Option<String> {
        self.place.demand(self.daemons().len() == 1, "to ask makes a daemon where none is");
        let said = self.pm2(&["jlist", "-s"]);
        let list: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let one = list.as_array()?.iter().find(|process| process["name"] == NAME)?;
        Some(one["pm2_env"]["status"].as_str()?.to_string())
    }

    pub(crate) fn pm2_log(&self) -> String {
        fs::read_to_string(self.home.path().join("pm2.log")).unwrap_or_default()
    }

    // What /proc and the wire say.

    /// The backend's answer to this path: code and body.
    pub(crate) fn ask(&self, path: &str) -> Option<(u16, String)> {
        self.ask_at(self.port, path)
    }

    /// The answer of whoever listens on this port.
    pub(crate) fn ask_at(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer.split_once("\r\n\r\n")?.1.to_string()))
    }

    /// The pid by which the backend answers that it is well.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.pid_at(self.port)
    }

    /// The same of another process on this port.
    pub(crate) fn pid_at(&self, port: u16) -> Option<i32> {
        i32::try_from(self.health_at(port)?["pid"].as_i64()?).ok()
    }

    /// What is answered on this port by one that is well.
    pub(crate) fn health_at(&self, port: u16) -> Option<Value> {
        let (code, body) = self.ask_at(port, "/api/health")?;
        serde_json::from_str(&body).ok().filter(|_| code == 200)
    }

    /// The processes of PM2's list: name, pid (0 for none) and status.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<(String, i64, String)> {
        let said = self.pm2(&["jlist", "-s"]);
        let list: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let apps = list.as_array().cloned().unwrap_or_default();
        apps.iter()
            .map(|app| (text(&app["name"]), app["pid"].as_i64().unwrap_or(0), text(&app["pm2_env"]["status"])))
            .collect()
    }

    /// Waits until the backend is well, and says by which pid.
    #[track_caller]
    pub(crate) fn well(&self) -> i32 {
        let mut pid = None;
        self.eventually("the backend is well", || {
            pid = self.pid();
            pid.is_some()
        });
        pid.expect("as just seen")
    }

    /// Waits until another process than this one answers.
    #[track_caller]
    pub(crate) fn well_again(&self, before: i32) -> i32 {
        let mut pid = None;
        self.eventually("another process is well", || {
            pid = self.pid().filter(|pid| *pid != before);
            pid.is_some()
        });
        pid.expect("as just seen")
    }

    /// All living processes that PM2 in this home has started, its daemons and the commands that speak to them. One
    /// that has written over its environment is known by its folder.
    pub(super) fn all(&self) -> Vec<i32> {
        let ours = [b"PM2_HOME=", self.home.path().as_os_str().as_encoded_bytes()].concat();
        let app = self.place.path("app");
        let is_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let is_named = environment.split(|&byte| byte == 0).any(|variable| variable == ours);
            is_named || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == app)
        };
        let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_ours).filter(|pid| is_alive(*pid)).collect()
    }

    /// PM2's living daemons of this home.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let is_daemon = |pid: &i32| {
            let title = command_line(*pid);
            title.starts_with("PM2 v") && title.contains("God Daemon (") && owner(*pid) == Some(geteuid().as_raw())
        };
        let found: Vec<i32> = self.all().into_iter().filter(is_daemon).collect();
        // What a daemon has just forked bears its title until it becomes its program.
        let is_fork = |pid: &i32| parent(*pid).is_some_and(|parent| found.contains(&parent));
        found.iter().copied().filter(|pid| !is_fork(pid)).collect()
    }

    /// The one daemon.
    #[track_caller]
    pub(crate) fn daemon(&self) -> i32 {
        let daemons = self.daemons();
        self.place.demand(daemons.len() == 1, &format!("one daemon: {daemons:?}"));
        daemons[0]
    }

    /// The pm2 commands that run.
    pub(crate) fn calls(&self) -> Vec<i32> {
        let program = |line: &str| line.split('\0').take(3).any(|word| word.ends_with("/pm2"));
        self.all().into_iter().filter(|pid| program(&command_line(*pid))).collect()
    }

    /// The living processes that were started as the backend.
    pub(crate) fn backends(&self) -> Vec<i32> {
        self.place.alive("app/starts").into_iter().filter(|pid| is_alive(*pid)).collect()
    }

    /// [`Place::eventually`], with what PM2 has to say added, and more time: a reset alone waits four times.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            let story = || format!("{}--- pm2.log\n{}", self.place.story(), self.pm2_log());
            assert!(began.elapsed() < CAP * 2, "never came: {what}\n{}", story());
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Scene {
    /// A daemon starts again what is killed before it, so this goes on until nothing is left.
    fn drop(&mut self) {
        let began = Instant::now();
        while !self.all().is_empty() {
            self.all().into_iter().for_each(|pid| send(pid, Signal::KILL));
            if began.elapsed() > CAP {
                assert!(thread::panicking(), "these could not be ended: {:?}", self.all());
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// The words of a process, each ended by a zero byte; a title it has given itself stands in their place.
pub(crate) fn command_line(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn owner(pid: i32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

/// A port below those that the kernel gives to outgoing connections, for it must stay free while nobody listens there.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).find(is_free).expect("it goes on until one is free")
}
