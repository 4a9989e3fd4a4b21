//! A sandbox to run the program in: a temporary folder that holds its configuration, its state and the files its
//! commands write. Dropping it ends every process started in it; a failed test prints the log, the events and the
//! folder.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Generous, so that a slow machine does not fail a test.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    /// A new folder with this configuration. `state_dir` is the folder `state` in it.
    pub(crate) fn new(targets: &str) -> Sandbox {
        let sandbox = Sandbox { folder: tempfile::tempdir().expect("folder access") };
        sandbox.configure(targets);
        sandbox
    }

    /// Replaces the configuration; `text` follows the `state_dir` line.
    pub(crate) fn configure(&self, text: &str) {
        self.write("watchdog.yaml", &format!("state_dir: state\n{text}"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the sandbox is writable");
    }

    /// The content of a file; empty if it does not exist.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_string).collect()
    }

    /// The program with these arguments, in the sandbox's folder, with only PATH and HOME in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_through(&[], args)
    }

    /// The same, through another program that takes a command as its last arguments.
    pub(crate) fn command_through(&self, starter: &[&str], args: &[&str]) -> Command {
        let command_line = [starter, &[env!("CARGO_BIN_EXE_watchdog")], args].concat();
        let mut command = Command::new(command_line[0]);
        command.args(&command_line[1..]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        // Builds that measure coverage write their profile there.
        command.envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        let output = self.command(args).output().expect("the program runs");
        CommandOutput::new(output)
    }

    /// A watchdog in the foreground, killed when dropped. Returns once it runs.
    pub(crate) fn start_daemon(&self, args: &[&str]) -> Daemon<'_> {
        self.start_daemon_from(self.command(args))
    }

    /// The same with a modified [`Sandbox::command`].
    pub(crate) fn start_daemon_from(&self, command: Command) -> Daemon<'_> {
        let before = self.events("started").len();
        let mut daemon = self.spawn_daemon_from(command);
        self.eventually("the watchdog runs", || {
            let ended = daemon.child.try_wait().expect("the state of a child can be read");
            self.assert(ended.is_none(), &format!("the watchdog ended: {ended:?}"));
            self.events("started").len() > before
        });
        daemon
    }

    pub(crate) fn spawn_daemon(&self, args: &[&str]) -> Daemon<'_> {
        self.spawn_daemon_from(self.command(args))
    }

    pub(crate) fn spawn_daemon_from(&self, mut command: Command) -> Daemon<'_> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Daemon { child: command.spawn().expect("the program runs"), _sandbox: self }
    }

    pub(crate) fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The target's entry in `status --json`.
    pub(crate) fn target(&self, name: &str) -> Value {
        let status = self.status();
        let targets = status["targets"].as_array().expect("a list of targets");
        targets.iter().find(|target| target["name"] == name).cloned().unwrap_or_default()
    }

    /// All events of this kind, oldest first; an empty name means every kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.read("state/events.jsonl.1") + &self.read("state/events.jsonl");
        let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|event| kind.is_empty() || event["event"] == kind).collect()
    }

    /// Waits for a condition; on timeout, fails with [`Sandbox::dump`].
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < TIMEOUT, "timed out waiting for: {what}\n{}", self.dump());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Fails with [`Sandbox::dump`] unless `holds`.
    #[track_caller]
    pub(crate) fn assert(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.dump());
    }

    /// The configuration, the log, the events and a listing of the folder.
    pub(crate) fn dump(&self) -> String {
        let mut dump = String::new();
        for name in ["watchdog.yaml", "state/watchdog.log", "state/events.jsonl"] {
            let _ = writeln!(dump, "--- {name}\n{}", self.read(name)); // writing to a String cannot fail
        }
        dump + "--- the folder\n" + &listing(self.folder.path())
    }

    /// The events of this kind for a target, oldest first; an empty kind means every kind.
    pub(crate) fn events_of(&self, target: &str, kind: &str) -> Vec<Value> {
        self.events(kind).into_iter().filter(|event| event["target"] == target).collect()
    }

    /// Starts the program without waiting for its end; pass its output to [`CommandOutput::new`].
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    }

    /// The folder, which is HOME for every process started in it.
    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn files_owned_by(&self, uid: u32, name: &str) -> Vec<PathBuf> {
        let is_owned = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.uid() == uid);
        files_below(&self.path(name)).into_iter().map(|(path, _)| path).filter(is_owned).collect()
    }

    /// The current log file, without rotated ones.
    pub(crate) fn log(&self) -> String {
        self.read("state/watchdog.log")
    }

    /// Waits for a text in the log. A line is logged after its event and state are on disk, so both can be read then.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        self.eventually(&format!("`{text}` in the log"), || self.log().contains(text));
    }

    /// Builds a shared library from a C file in this folder, to be preloaded into the program.
    pub(crate) fn build_preload(&self, source: &str) -> PathBuf {
        let library = self.path(source).with_extension("so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(source);
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(status.is_ok_and(|status| status.success()), "cc, which cargo links with, builds the library");
        library
    }

    /// The live process that the lock file names.
    pub(crate) fn lock_holder(&self) -> Option<i32> {
        let content: Value = serde_json::from_str(self.read("state/watchdog.lock").lines().next()?).ok()?;
        i32::try_from(content["pid"].as_i64()?).ok().filter(|pid| is_alive(*pid))
    }

    /// Every process started in this sandbox, directly or indirectly: their HOME is its folder.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let home = [b"HOME=", self.folder.path().as_os_str().as_encoded_bytes()].concat();
        let has_this_home = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == home)
        };
        let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_this_home).collect()
    }

    /// The live processes of the sandbox whose pids are in this file.
    pub(crate) fn alive_pids(&self, file: &str) -> Vec<i32> {
        let written: Vec<i32> = self.lines(file).iter().filter_map(|line| line.trim().parse().ok()).collect();
        self.processes().into_iter().filter(|pid| written.contains(pid)).collect()
    }
}

impl Drop for Sandbox {
    /// Ends detached watchdogs and whatever commands left running.
    fn drop(&mut self) {
        let began = Instant::now();
        loop {
            let remaining = self.processes();
            if remaining.is_empty() || began.elapsed() > TIMEOUT {
                return;
            }
            remaining.into_iter().for_each(|pid| send_signal(pid, Signal::KILL));
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// A port below the range for outgoing connections, so that it stays free while no process listens there.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).find(is_free).expect("the iterator does not end")
}

pub(crate) fn event_time(event: &Value) -> SystemTime {
    humantime::parse_rfc3339(event["at"].as_str().unwrap_or_default()).expect("the time of an event")
}

/// The process may be gone already.
pub(crate) fn send_signal(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).expect("a pid is positive"), signal);
}

/// The state letter from /proc/PID/stat; none if the process is gone.
pub(crate) fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether the process exists and is not a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    process_state(pid).is_some_and(|state| !"ZX".contains(state))
}

pub(crate) const MISSING_PROGRAM: &str = "this test needs a program that is not here; `sh tests/run` installs it";

/// Fails if the machine lacks what the test needs.
#[track_caller]
pub(crate) fn require(has: bool, what: &str) {
    assert!(has, "this test needs {what}; run `sh tests/run` as root, or where sudo asks for no password");
}

/// A number of rounds or seconds: the environment variable of this name, which `tests/run` sets, or else `default`.
pub(crate) fn env_count(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The library that fakes the wall clock of a program that preloads it.
pub(crate) fn faketime_library() -> PathBuf {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let found = folders.map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"));
    let found = found.into_iter().find(|path| path.exists());
    found.expect(MISSING_PROGRAM)
}

fn listing(folder: &Path) -> String {
    let mut lines = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let size = entry.metadata().map_or(0, |metadata| metadata.len());
        let _ = writeln!(lines, "{size:>9} {}", path.display()); // writing to a String cannot fail
        if path.is_dir() && !path.is_symlink() {
            lines += &listing(&path);
        }
    }
    lines
}

/// All files below a folder, with their content.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => found.extend(files_below(&entry.path())),
            false => found.push((entry.path(), fs::read(entry.path()).unwrap_or_default())),
        }
    }
    found.sort();
    found
}

/// The result of a finished run of the program.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl CommandOutput {
    pub(crate) fn new(output: Output) -> CommandOutput {
        let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        CommandOutput { code: output.status.code(), out: lossy(output.stdout), err: lossy(output.stderr) }
    }
}

pub(crate) struct Daemon<'a> {
    pub(crate) child: Child,
    _sandbox: &'a Sandbox,
}

impl Daemon<'_> {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits into i32")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().expect("a child can be waited for")
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill(); // the process may be gone already
        let _ = self.child.wait();
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill(); // the process may be gone already
        let _ = self.child.wait();
    }
}
