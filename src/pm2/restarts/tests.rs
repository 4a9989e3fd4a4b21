//! Lines of PM2's own log, as PM2 5.4.3 and 7.0.4 write them, and files that are rotated and truncated meanwhile.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::pm2::Home;
use crate::time::Zone;

/// The restarts that these messages prove, one second apart: `name: reason`.
fn found(messages: &[&str]) -> Vec<String> {
    let mut state = Pm2LogState::default();
    let take = |(second, message): (i64, &&str)| take_line(&mut state, message, WallTime::from_ms(second * 1_000));
    let restarts = (0..).zip(messages).filter_map(take);
    restarts.map(|Pm2Restart { process, reason, .. }| format!("{process}: {reason}")).collect()
}

const STARTING: &str = "App [api:0] starting in -fork mode-";
const ONLINE: &str = "App [api:0] online";
const STOPPING: &str = "Stopping app:api id:0";
const CRASHED: &str = "App [api:0] exited with code [1] via signal [SIGINT]";
const KILLED: &str = "App [api:0] exited with code [0] via signal [SIGKILL]";
const MEMORY: &str = "[PM2][WORKER] Process 0 restarted because it exceeds --max-memory-restart value \
                      (current_memory=600000000 max_memory_limit=524288000 [octets])";
const GIVEN_UP: &str = "Script /app/x.js had too many unstable restarts (16). Stopped. \"errored\"";

#[test]
fn what_pm2_restarts_by_itself_is_told_from_what_was_ordered() {
    #[track_caller]
    fn check(messages: &[&str], expected: &[&str]) {
        assert_eq!(found(messages), expected, "{messages:#?}");
    }
    check(&[STARTING, ONLINE], &[]);
    check(&[STARTING, ONLINE, CRASHED, STARTING, ONLINE, KILLED, STARTING], &["api: exit 1", "api: signal SIGKILL"]);
    // pm2 restart, pm2 stop, and a process that does not end when it is told to.
    check(&[STARTING, STOPPING, CRASHED, STARTING, ONLINE], &[]);
    check(&[STARTING, STOPPING, "pid=7 msg=failed to kill - retrying in 100ms", KILLED, STARTING], &[]);
    // PM2 gives up: who starts it then is somebody else. One that waits is started by PM2.
    check(&[CRASHED, STARTING, CRASHED, GIVEN_UP, STARTING], &["api: exit 1"]);
    check(&[CRASHED, "App [api:0] will restart in 100ms", STARTING], &["api: exit 1"]);
    // Memory, with the process's name known before or only afterwards.
    check(&[STARTING, MEMORY, STOPPING, CRASHED, STARTING], &["api: memory 524288000"]);
    check(&[MEMORY, STOPPING, CRASHED, STARTING, MEMORY, STOPPING], &["api: memory 524288000"; 2]);
    check(&[MEMORY, "Stopping app:other id:1", STOPPING], &["api: memory 524288000"]);
    check(
        &["Change detected on path a for app b for app api - restarting", STOPPING, CRASHED, STARTING],
        &["api: watch"],
    );
    // Another process takes the id, and another daemon starts what an earlier one had.
    check(&[CRASHED, "App [other:0] starting in -cluster mode-"], &[]);
    check(&[CRASHED, "--- New PM2 Daemon started ---------", STARTING], &[]);
    // A reload replaces a worker by another.
    check(&["App [api:_old_0] exited with code [0] via signal [SIGINT]", STARTING], &[]);
    let odd = ["App [a]: b:3] exited with code [7] via signal [SIGINT]", "App [a]: b:3] starting in -fork mode-"];
    check(&odd, &["a]: b: exit 7"]);
    check(
        &["App [api:0] exited with code [x] via signal [SIGINT]", "App [api]", "Stopping app:", "[PM2][WORKER] x"],
        &[],
    );
}

#[test]
fn a_process_that_pm2_leaves_stopped_was_started_by_somebody_else() {
    let app = |more: &str| {
        let list = format!(r#"[{{"name": "api", "pm_id": 0{more}}}]"#);
        crate::pm2::parse_list(list.as_bytes()).expect("a list")
    };
    #[track_caller]
    fn check(reason: RestartReason, delay_s: i64, saved: &[App], expected: bool) {
        let (ended, at) = (WallTime::from_ms(0), WallTime::from_ms(delay_s * 1_000));
        assert_eq!(is_by_pm2(&Pm2Restart { process: "api".into(), reason, ended, at }, saved), expected);
    }
    let killed = || RestartReason::Signal("SIGKILL".into());
    check(RestartReason::Exit(1), 60, &[], true);
    check(RestartReason::Exit(1), 61, &[], false);
    check(RestartReason::Exit(1), 600, &app(""), true);
    check(RestartReason::Exit(0), 1, &app(r#", "autorestart": false"#), false);
    check(RestartReason::Exit(3), 1, &app(r#", "stop_exit_codes": [3]"#), false);
    check(RestartReason::Exit(1), 1, &app(r#", "stop_exit_codes": [3]"#), true);
    check(killed(), 1, &app(r#", "stop_exit_codes": [0]"#), false);
    check(RestartReason::Memory(1), 900, &app(r#", "autorestart": false"#), true);
}

#[test]
fn the_memory_of_many_processes_is_bounded() {
    let mut state = Pm2LogState::default();
    for id in 0..10_000 {
        take_line(
            &mut state,
            &format!("App [api:{id}] exited with code [1] via signal [SIGINT]"),
            WallTime::from_ms(0),
        );
    }
    assert_eq!(state.instances.len(), MAX_INSTANCES);
}

/// A PM2 home whose log a test writes, and a reader that keeps its state as a watchdog does.
struct Log {
    folder: tempfile::TempDir,
    state: Pm2LogState,
    /// Seconds since 1970.
    now: i64,
}

const NOW: i64 = 1_795_000_000;

impl Log {
    fn new() -> Log {
        Log { folder: tempfile::tempdir().expect("a folder"), state: Pm2LogState::default(), now: NOW }
    }

    /// Appends a crash with this code and the start after it, at this second.
    fn crash_in(&mut self, file: &str, code: u8) {
        self.now += 1;
        let time = Zone::UTC.date_time(WallTime::from_ms(self.now * 1_000)).replace(' ', "T");
        let time = time.trim_end_matches("+00:00");
        let exit = format!("App [api:0] exited with code [{code}] via signal [SIGINT]");
        self.append(file, &format!("{time}: PM2 log: {exit}\n{time}: PM2 log: {STARTING}\n"));
    }

    fn append(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file of ours");
        file.write_all(text.as_bytes()).expect("written");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(self.now.unsigned_abs());
        file.set_times(FileTimes::new().set_modified(modified)).expect("a file of ours");
    }

    fn at(&self, file: &str) -> std::path::PathBuf {
        self.folder.path().join(file)
    }

    /// As pm2-logrotate does it: a copy, then a truncation.
    fn rotate(&mut self, to: &str) {
        self.now += 1;
        let whole = fs::read_to_string(self.at("pm2.log")).expect("it is there");
        self.append(to, &whole);
        self.truncate();
    }

    fn truncate(&self) {
        File::create(self.at("pm2.log")).expect("a file of ours");
        self.append("pm2.log", "");
    }

    /// The exit codes of the restarts since the last read.
    fn read(&mut self) -> Vec<String> {
        self.now += 1;
        let now = WallTime::from_ms(self.now * 1_000);
        // Through JSON, as between two runs of a watchdog.
        let saved = serde_json::to_string(&self.state).expect("it has a JSON form");
        let state = serde_json::from_str(&saved).expect("as just written");
        let read = Home::at(self.folder.path()).read_restarts(state, now, Zone::UTC);
        self.state = read.state;
        read.restarts.iter().map(|restart| restart.reason.to_string().replace("exit ", "")).collect()
    }
}

#[test]
fn each_restart_is_read_once_whatever_happens_to_the_log() {
    let mut log = Log::new();
    assert!(log.read().is_empty(), "there is no log yet");
    log.crash_in("pm2.log", 1);
    assert_eq!(log.read(), ["1"]);
    assert!(log.read().is_empty());
    log.crash_in("pm2.log", 2);
    log.append("pm2.log", "2026-11-22T03:12:10: PM2 log: App [api:0] exited with code [9] via ");
    assert_eq!(log.read(), ["2"], "a line that is not whole yet");
    log.append("pm2.log", &format!("signal [SIGINT]\n{STARTING}\n"));
    assert_eq!(log.read(), ["9"]);
    // pm2 flush, and growth past the old size before the next read.
    log.truncate();
    assert!(log.read().is_empty());
    log.crash_in("pm2.log", 3);
    assert_eq!(log.read(), ["3"]);
    log.truncate();
    (4..9).for_each(|code| log.crash_in("pm2.log", code));
    assert_eq!(log.read(), ["4", "5", "6", "7", "8"]);
    // Rotated by copy, with lines that were not read, and twice.
    log.crash_in("pm2.log", 10);
    log.rotate("pm2__2026-11-22_00-00-00.log");
    log.crash_in("pm2.log", 11);
    assert_eq!(log.read(), ["10", "11"]);
    log.crash_in("pm2.log", 12);
    log.rotate("pm2__2026-11-23_00-00-00.log");
    log.crash_in("pm2.log", 13);
    log.rotate("pm2__2026-11-24_00-00-00.log");
    assert_eq!(log.read(), ["12", "13"]);
    log.crash_in("pm2.log", 14);
    assert_eq!(log.read(), ["14"]);
    // Rotated by a new name: PM2 goes on writing into the renamed file.
    log.crash_in("pm2.log", 15);
    fs::rename(log.at("pm2.log"), log.at("pm2.log.1")).expect("renamed");
    log.append("pm2.log", "");
    log.crash_in("pm2.log.1", 16);
    assert_eq!(log.read(), ["15", "16"]);
    log.crash_in("pm2.log.1", 17);
    assert_eq!(log.read(), ["17"]);
    log.crash_in("pm2.log", 18);
    assert_eq!(log.read(), ["18"]);
    // The rotated one is packed, and the log is deleted.
    log.rotate("pm2__2026-11-25_00-00-00.log.gz");
    log.crash_in("pm2.log", 19);
    assert_eq!(log.read(), ["19"]);
    fs::remove_file(log.at("pm2.log")).expect("it is there");
    assert!(log.read().is_empty());
    log.crash_in("pm2.log", 20);
    assert_eq!(log.read(), ["20"]);
    assert!(log.read().is_empty());
}

#[test]
fn an_existing_log_is_read_with_its_rotated_ones_and_its_times() {
    let mut log = Log::new();
    log.crash_in("pm2.log", 1);
    log.rotate("pm2__2026-11-22_00-00-00.log");
    log.crash_in("pm2.log", 2);
    log.append(
        "out.log",
        "App [api:0] exited with code [3] via signal [SIGINT]\nApp [api:0] starting in -fork mode-\n",
    );
    log.now += 7_200;
    let read = |log: &Log, zone| {
        Home::at(log.folder.path()).read_restarts(Pm2LogState::default(), WallTime::from_ms(log.now * 1_000), zone)
    };
    let times = |zone| read(&log, zone).restarts.iter().map(|one| one.at.as_ms() / 1_000 - NOW).collect::<Vec<_>>();
    assert_eq!(times(Zone::UTC), [1, 3]);
    assert_eq!(times(Zone(|_| 3_600)), [1 - 3_600, 3 - 3_600]);
    // A clock or a time zone of PM2's that is ahead puts nothing into the future.
    assert_eq!(times(Zone(|_| -86_400)), [7_203, 7_203]);
}

#[test]
fn one_call_reads_a_bounded_part_and_long_lines_are_skipped() {
    let mut log = Log::new();
    log.append("pm2.log", &"x".repeat(100_000));
    log.append("pm2.log", "App [api:0] exited with code [1] via signal [SIGINT]\n");
    log.crash_in("pm2.log", 2);
    assert_eq!(log.read(), ["2"], "what ends a long line is no line");
    let line = format!("{}\n", "y".repeat(999));
    log.append("pm2.log", &line.repeat(5 << 10));
    log.crash_in("pm2.log", 3);
    let first = log.read();
    assert!(first.is_empty() && log.state.read_at.is_some());
    assert_eq!(log.read(), ["3"]);
    // Of a log that was there before, the last 16 MiB.
    log.append("pm2.log", &line.repeat(17 << 10));
    log.crash_in("pm2.log", 4);
    log.state = Pm2LogState::default();
    let all: Vec<String> = (0..6).flat_map(|_| log.read()).collect();
    assert_eq!(all, ["4"]);
}

#[test]
fn what_is_no_file_is_not_read() {
    let mut log = Log::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, log.at("pm2.log"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .expect("a pipe");
    assert!(log.read().is_empty());
    assert!(
        Home::at(Path::new("/nowhere"))
            .read_restarts(Pm2LogState::default(), WallTime::from_ms(0), Zone::UTC)
            .restarts
            .is_empty()
    );
}
