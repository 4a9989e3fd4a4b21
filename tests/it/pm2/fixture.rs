//! A sandbox with its own PM2: a PM2 home, one backend, and what is needed to break both. Processes left at the end are
//! killed by pid, once their environment proves that they belong to the fixture.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use serde_json::Value;

use super::installation::{Installed, Version, installed};
use crate::sandbox::{CommandOutput, Sandbox, free_port, is_alive, send_signal};

/// The name of the process in PM2.
pub(crate) const APP_NAME: &str = "sav-backend";
/// A pm2 command that takes longer hangs, even on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Separates a hung event loop from a slow machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A permit that limits how many fixtures run at once: each needs about 120 MB and, while it starts, a whole core.
struct Permit;

static IN_USE: Mutex<usize> = Mutex::new(0);
static RELEASED: Condvar = Condvar::new();

impl Permit {
    fn acquire() -> Permit {
        let limit = thread::available_parallelism().map_or(1, usize::from).div_ceil(2).max(2);
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut in_use = RELEASED.wait_while(in_use, |in_use| *in_use >= limit).unwrap_or_else(PoisonError::into_inner);
        *in_use += 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *IN_USE.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RELEASED.notify_one();
    }
}

/// PM2 with a backend, and the sandbox of the watchdog that watches it.
pub(crate) struct Fixture {
    pub(crate) sandbox: Sandbox,
    /// PM2's home, with a short path: a socket's path is limited to 107 bytes.
    home: tempfile::TempDir,
    pub(crate) installed: &'static Installed,
    pub(crate) port: u16,
    /// The PATH of the commands that the watchdog runs.
    pub(crate) path: String,
    _permit: Permit,
}

impl Fixture {
    /// A fixture in which nothing runs yet. `keys` are further keys of the process in the ecosystem file.
    pub(crate) fn new(keys: &str) -> Fixture {
        Fixture::with(Version::Seven, keys)
    }

    pub(crate) fn with(version: Version, keys: &str) -> Fixture {
        let installed = installed(version);
        let permit = Permit::acquire();
        let home = tempfile::Builder::new().prefix("wd").tempdir_in("/tmp").expect("folder access");
        let (sandbox, port) = (Sandbox::new("targets: []\n"), free_port());
        let fixture = Fixture { sandbox, home, installed, port, path: installed.path(), _permit: permit };
        fs::create_dir(fixture.sandbox.path("app")).expect("folder access");
        fixture.write_backend("backend.js");
        fixture.sandbox.write("app/ecosystem.config.js", &fixture.ecosystem(keys));
        fixture
    }

    /// Writes the backend's script under this name.
    pub(crate) fn write_backend(&self, script: &str) {
        self.sandbox.write(&format!("app/{script}"), include_str!("../../pm2/backend.js"));
    }

    /// Replaces the ecosystem file: `apps` is the content of its list, with PORT_HERE for the port.
    pub(crate) fn write_ecosystem(&self, apps: &str) {
        let apps = apps.replace("PORT_HERE", &self.port.to_string());
        self.sandbox.write("app/ecosystem.config.js", &format!("module.exports = {{apps: [{apps}]}};\n"));
    }

    fn ecosystem(&self, keys: &str) -> String {
        let (folder, port) = (self.sandbox.path("app"), self.port);
        format!(
            "module.exports = {{apps: [{{name: '{APP_NAME}', script: 'backend.js', cwd: '{}', env: {{PORT: {port}}}, \
             {keys}}}]}};\n",
            folder.display()
        )
    }

    /// A fixture whose backend is healthy and whose list is saved.
    pub(crate) fn saved(keys: &str) -> Fixture {
        let fixture = Fixture::new(keys);
        fixture.start();
        fixture.pm2(&["save"]);
        fixture
    }

    /// A fixture whose backend is healthy and whose list was never saved.
    pub(crate) fn unsaved(keys: &str) -> Fixture {
        let fixture = Fixture::new(keys);
        fixture.start();
        fixture
    }

    /// Starts the backend from its ecosystem file and waits until it is healthy.
    pub(crate) fn start(&self) -> i32 {
        self.pm2(&["start", &self.config()]);
        self.wait_until_healthy()
    }

    pub(crate) fn config(&self) -> String {
        self.sandbox.path("app/ecosystem.config.js").display().to_string()
    }

    pub(crate) fn home(&self) -> String {
        self.home.path().display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/health", self.port)
    }

    /// Creates a file that controls how the backend starts; see `tests/pm2/backend.js`.
    pub(crate) fn set_flag(&self, name: &str, text: &str) {
        self.sandbox.write(&format!("app/{name}"), text);
    }

    pub(crate) fn remove_flag(&self, name: &str) {
        fs::remove_file(self.sandbox.path(&format!("app/{name}"))).expect("the file was set");
    }

    pub(crate) fn start_count(&self) -> usize {
        self.sandbox.lines("app/starts").len()
    }

    // What PM2 reports.

    /// Runs the real pm2 as an operator would in the folder `app`, with these variables in the shell.
    #[track_caller]
    pub(crate) fn pm2_in_app(&self, variables: &[(&str, &str)], args: &[&str]) {
        let mut command = self.pm2_command(args);
        command.current_dir(self.sandbox.path("app")).envs(variables.iter().copied());
        let output = CommandOutput::new(command.output().expect("pm2 is installed"));
        self.sandbox.assert(output.code == Some(0), &format!("{output:?}"));
    }

    fn pm2_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.installed.bin.join("pm2"));
        command.args(args).current_dir(self.sandbox.home()).stdin(Stdio::null()).env_clear();
        command.env("PATH", self.installed.path()).env("HOME", self.sandbox.home()).env("PM2_HOME", self.home.path());
        command
    }

    /// Runs the real pm2 as an operator would.
    #[track_caller]
    pub(crate) fn pm2(&self, args: &[&str]) -> CommandOutput {
        let mut child = self.spawn_pm2(args);
        self.eventually(&format!("pm2 {args:?} ends"), || {
            child.try_wait().expect("the state of a child can be read").is_some()
        });
        CommandOutput::new(child.wait_with_output().expect("the process has ended"))
    }

    /// The same without waiting for its end. Its output fits into the pipes, which no other process holds.
    pub(crate) fn spawn_pm2(&self, args: &[&str]) -> Child {
        let mut command = self.pm2_command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pm2 is installed")
    }

    /// The status of the process in the list of the running daemon, such as `online`, `stopped` or `errored`; none if
    /// it is not listed.
    #[track_caller]
    pub(crate) fn listed_status(&self) -> Option<String> {
        self.sandbox.assert(self.daemon_pids().len() == 1, "a pm2 command would start a daemon if none runs");
        let output = self.pm2(&["jlist", "-s"]);
        let list: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let process = list.as_array()?.iter().find(|process| process["name"] == APP_NAME)?;
        Some(process["pm2_env"]["status"].as_str()?.to_string())
    }

    pub(crate) fn pm2_log(&self) -> String {
        fs::read_to_string(self.home.path().join("pm2.log")).unwrap_or_default()
    }

    // What /proc and the backend report.

    /// The backend's answer to a request for this path: status and body.
    pub(crate) fn request(&self, path: &str) -> Option<(u16, String)> {
        self.request_at(self.port, path)
    }

    /// The same from any server on this port.
    pub(crate) fn request_at(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer.split_once("\r\n\r\n")?.1.to_string()))
    }

    /// The pid in the backend's answer, if it is healthy.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.pid_at(self.port)
    }

    /// The same from another backend on this port.
    pub(crate) fn pid_at(&self, port: u16) -> Option<i32> {
        i32::try_from(self.health_at(port)?["pid"].as_i64()?).ok()
    }

    /// The health answer on this port, if it is healthy.
    pub(crate) fn health_at(&self, port: u16) -> Option<Value> {
        let (code, body) = self.request_at(port, "/api/health")?;
        serde_json::from_str(&body).ok().filter(|_| code == 200)
    }

    /// The processes in PM2's list: name, pid (0 for none) and status.
    #[track_caller]
    pub(crate) fn process_list(&self) -> Vec<(String, i64, String)> {
        let output = self.pm2(&["jlist", "-s"]);
        let list: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let apps = list.as_array().cloned().unwrap_or_default();
        apps.iter()
            .map(|app| (text(&app["name"]), app["pid"].as_i64().unwrap_or(0), text(&app["pm2_env"]["status"])))
            .collect()
    }

    /// Waits until the backend is healthy, and returns its pid.
    #[track_caller]
    pub(crate) fn wait_until_healthy(&self) -> i32 {
        let mut pid = None;
        self.eventually("the backend is healthy", || {
            pid = self.pid();
            pid.is_some()
        });
        pid.expect("checked above")
    }

    /// Waits until a process other than this one is healthy, and returns its pid.
    #[track_caller]
    pub(crate) fn wait_for_replacement(&self, before: i32) -> i32 {
        let mut pid = None;
        self.eventually("another process is healthy", || {
            pid = self.pid().filter(|pid| *pid != before);
            pid.is_some()
        });
        pid.expect("checked above")
    }

    /// All live processes of this PM2 home: its daemons, what they started, and running pm2 commands. A process that
    /// overwrote its environment is recognised by its folder.
    pub(super) fn all_processes(&self) -> Vec<i32> {
        let pm2_home = [b"PM2_HOME=", self.home.path().as_os_str().as_encoded_bytes()].concat();
        let app = self.sandbox.path("app");
        let is_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let has_pm2_home = environment.split(|&byte| byte == 0).any(|variable| variable == pm2_home);
            has_pm2_home || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == app)
        };
        let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_ours).filter(|pid| is_alive(*pid)).collect()
    }

    /// The live PM2 daemons of this home.
    pub(crate) fn daemon_pids(&self) -> Vec<i32> {
        let is_daemon = |pid: &i32| {
            let title = command_line(*pid);
            title.starts_with("PM2 v") && title.contains("God Daemon (") && owner(*pid) == Some(geteuid().as_raw())
        };
        let found: Vec<i32> = self.all_processes().into_iter().filter(is_daemon).collect();
        // A process that a daemon has just forked has the daemon's title until it runs its own program.
        let is_fork = |pid: &i32| parent(*pid).is_some_and(|parent| found.contains(&parent));
        found.iter().copied().filter(|pid| !is_fork(pid)).collect()
    }

    /// The pid of the only daemon; fails unless there is exactly one.
    #[track_caller]
    pub(crate) fn daemon_pid(&self) -> i32 {
        let daemons = self.daemon_pids();
        self.sandbox.assert(daemons.len() == 1, &format!("exactly one daemon: {daemons:?}"));
        daemons[0]
    }

    /// The pids of running pm2 commands.
    pub(crate) fn running_pm2_commands(&self) -> Vec<i32> {
        let program = |line: &str| line.split('\0').take(3).any(|word| word.ends_with("/pm2"));
        self.all_processes().into_iter().filter(|pid| program(&command_line(*pid))).collect()
    }

    /// The live processes that were started as the backend.
    pub(crate) fn backend_pids(&self) -> Vec<i32> {
        self.sandbox.alive_pids("app/starts").into_iter().filter(|pid| is_alive(*pid)).collect()
    }

    /// [`Sandbox::eventually`] with PM2's log in the failure, and with more time: a reset alone has four waits.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            let dump = || format!("{}--- pm2.log\n{}", self.sandbox.dump(), self.pm2_log());
            assert!(began.elapsed() < TIMEOUT * 2, "timed out waiting for: {what}\n{}", dump());
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Fixture {
    /// A daemon restarts what is killed before the daemon itself, so this repeats until nothing is left.
    fn drop(&mut self) {
        let began = Instant::now();
        while !self.all_processes().is_empty() {
            self.all_processes().into_iter().for_each(|pid| send_signal(pid, Signal::KILL));
            if began.elapsed() > TIMEOUT {
                assert!(thread::panicking(), "these processes could not be killed: {:?}", self.all_processes());
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// The arguments of a process, each ended by a zero byte, or the title that it has set instead.
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
