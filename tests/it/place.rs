//! A place to try the program in: a folder of its own with configuration, state and whatever its commands write.
//! Everything started here is ended here; a test that fails prints the log, the events and the folder.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Waiting for a condition ends here, on however slow a machine.
const CAP: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// The folder, removed in the end.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A folder with this configuration; `state_dir` is in the folder.
    pub(crate) fn with(targets: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a folder") };
        place.configure(targets);
        place
    }

    /// Writes the configuration anew: `text` is what follows `state_dir`.
    pub(crate) fn configure(&self, text: &str) {
        self.write("watchdog.yaml", &format!("state_dir: state\n{text}"));
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file in the test's folder");
    }

    /// What stands in a file, empty where there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The lines of a file that commands append to.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_string).collect()
    }

    /// The program with these words, in the folder, with the environment of a shell on a host and HOME in the folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.command_through(&[], words)
    }

    /// The same, started by another program that takes a command as its last arguments.
    pub(crate) fn command_through(&self, starter: &[&str], words: &[&str]) -> Command {
        let line = [starter, &[env!("CARGO_BIN_EXE_watchdog")], words].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        // Where a program that is built to measure coverage writes what of it was run.
        command.envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Said {
        let output = self.command(words).output().expect("the program runs");
        Said::new(output)
    }

    /// The program in the foreground, ended with the guard. Returns when it is at work.
    pub(crate) fn daemon(&self, words: &[&str]) -> Daemon<'_> {
        self.daemon_by(self.command(words))
    }

    /// The same by a command of [`Place::command`] that was changed.
    pub(crate) fn daemon_by(&self, command: Command) -> Daemon<'_> {
        let before = self.events("started").len();
        let mut daemon = self.daemon_unchecked_by(command);
        self.eventually("the watchdog is at work", || {
            let ended = daemon.child.try_wait().expect("a child can be asked");
            self.demand(ended.is_none(), &format!("it ended: {ended:?}"));
            self.events("started").len() > before
        });
        daemon
    }

    pub(crate) fn daemon_unchecked(&self, words: &[&str]) -> Daemon<'_> {
        self.daemon_unchecked_by(self.command(words))
    }

    pub(crate) fn daemon_unchecked_by(&self, mut command: Command) -> Daemon<'_> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Daemon { child: command.spawn().expect("the program runs"), _place: self }
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> Value {
        let said = self.run(&["status", "--json"]);
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// What `status --json` says of a target.
    pub(crate) fn target(&self, name: &str) -> Value {
        let status = self.status();
        let targets = status["targets"].as_array().expect("a list of targets");
        targets.iter().find(|target| target["name"] == name).cloned().unwrap_or_default()
    }

    /// All events of this kind, oldest first; all kinds for an empty name.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.read("state/events.jsonl.1") + &self.read("state/events.jsonl");
        let parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|event| kind.is_empty() || event["event"] == kind).collect()
    }

    /// Waits for a condition; fails with everything there is to see when it never comes.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < CAP, "never came: {what}\n{}", self.story());
            thread::sleep(PAUSE);
        }
    }

    /// Fails with everything there is to see unless `holds`.
    #[track_caller]
    pub(crate) fn demand(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.story());
    }

    /// The configuration, the log, the events and the folder.
    pub(crate) fn story(&self) -> String {
        let mut story = String::new();
        for name in ["watchdog.yaml", "state/watchdog.log", "state/events.jsonl"] {
            let _ = writeln!(story, "--- {name}\n{}", self.read(name)); // writing to a String cannot fail
        }
        story + "--- the folder\n" + &listing(self.folder.path())
    }

    /// All events of this kind and target, oldest first; all kinds for an empty kind.
    pub(crate) fn events_of(&self, target: &str, kind: &str) -> Vec<Value> {
        self.events(kind).into_iter().filter(|event| event["target"] == target).collect()
    }

    /// Starts the program with these words and does not wait for its end; [`Said::new`] takes what it says.
    pub(crate) fn begin(&self, words: &[&str]) -> Child {
        let mut command = self.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    }

    /// The folder itself, which is HOME to all that runs in it.
    pub(crate) fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The files below a folder that belong to this account.
    pub(crate) fn files_of(&self, uid: u32, name: &str) -> Vec<PathBuf> {
        let belongs = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.uid() == uid);
        files_below(&self.path(name)).into_iter().map(|(path, _)| path).filter(belongs).collect()
    }

    /// The log, without the files that were rotated away.
    pub(crate) fn log(&self) -> String {
        self.read("state/watchdog.log")
    }

    /// Waits until the log has these words: what happened is logged last, when the events and the state are on disk.
    #[track_caller]
    pub(crate) fn told(&self, words: &str) {
        self.eventually(&format!("`{words}` in the log"), || self.log().contains(words));
    }

    /// A library made of a C file beside this one, to be preloaded into the program.
    pub(crate) fn library(&self, source: &str) -> PathBuf {
        let library = self.path(source).with_extension("so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(source);
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(built.is_ok_and(|status| status.success()), "cc is what cargo links with, too");
        library
    }

    /// The living process that the lock file names.
    pub(crate) fn holder(&self) -> Option<i32> {
        let note: Value = serde_json::from_str(self.read("state/watchdog.lock").lines().next()?).ok()?;
        i32::try_from(note["pid"].as_i64()?).ok().filter(|pid| is_alive(*pid))
    }

    /// Every process that was started here, by the test or by what it had started: they have their HOME here.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let home = [b"HOME=", self.folder.path().as_os_str().as_encoded_bytes()].concat();
        let lives_here = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == home)
        };
        let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(lives_here).collect()
    }

    /// Those of them whose pids commands have written into this file.
    pub(crate) fn alive(&self, file: &str) -> Vec<i32> {
        let written: Vec<i32> = self.lines(file).iter().filter_map(|line| line.trim().parse().ok()).collect();
        self.processes().into_iter().filter(|pid| written.contains(pid)).collect()
    }
}

impl Drop for Place {
    /// Ends what was detached here and what it left running.
    fn drop(&mut self) {
        let began = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() || began.elapsed() > CAP {
                return;
            }
            left.into_iter().for_each(|pid| send(pid, Signal::KILL));
            thread::sleep(PAUSE);
        }
    }
}

/// When an event happened.
pub(crate) fn at(event: &Value) -> SystemTime {
    humantime::parse_rfc3339(event["at"].as_str().unwrap_or_default()).expect("the time of an event")
}

/// Sends a signal to a process that may be gone already.
pub(crate) fn send(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).expect("a process has a pid"), signal);
}

/// The letter that /proc has for what a process does; none when it is gone.
pub(crate) fn doing(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether the process exists and is more than its remains.
pub(crate) fn is_alive(pid: i32) -> bool {
    doing(pid).is_some_and(|state| !"ZX".contains(state))
}

/// Why a test fails whose programs are not there.
pub(crate) const NEEDED: &str = "this test needs a program that is not here; `sh tests/run` installs it";

/// Fails where the machine does not allow what the test needs.
#[track_caller]
pub(crate) fn need(has: bool, what: &str) {
    assert!(has, "this test needs {what}; run `sh tests/run` as root, or where sudo asks for no password");
}

/// How often or how long: the environment variable of this name, which `tests/run` sets, or else `few`.
pub(crate) fn count(name: &str, few: usize) -> usize {
    std::env::var(name).map_or(few, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The library that sets the wall clock of a program that it is loaded into.
pub(crate) fn faketime() -> PathBuf {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let found = folders.map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"));
    let found = found.into_iter().find(|path| path.exists());
    found.expect(NEEDED)
}

fn listing(folder: &Path) -> String {
    let mut lines = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let size = entry.metadata().map_or(0, |metadata| metadata.len());
        let _ = writeln!(lines, "{size:>9} {}", path.display()); // as above
        if path.is_dir() && !path.is_symlink() {
            lines += &listing(&path);
        }
    }
    lines
}

/// The files in a folder and below, with what is in them.
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

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn new(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A watchdog in the foreground; killed when dropped.
pub(crate) struct Daemon<'a> {
    pub(crate) child: Child,
    _place: &'a Place,
}

impl Daemon<'_> {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid is small")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().expect("a child can be waited for")
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill(); // it may be gone already
        let _ = self.child.wait();
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may be gone already
        let _ = self.child.wait();
    }
}
