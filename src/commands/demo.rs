//! `demo`: starts a real backend and the real watchdog, freezes the backend, and prints what happens. It must touch
//! nothing outside its own temporary folder, and leave nothing running.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::outcome::{Downtime, Verdict, describe_io_error};
use crate::policy::LastProbe;
use crate::signals;
use crate::store::Folder;
use crate::store::events::{self, CommandOutcome, EventKind};
use crate::time::{HumanDuration, Latency};

use super::{Code, print, print_error, stale_daemon, status};

const FREEZE_AFTER: Duration = Duration::from_secs(3);
/// The demo takes about 10 s on a fast machine.
const DEMO_TIMEOUT: Duration = Duration::from_secs(60);
/// For the start and for the end of the backend and of the watchdog.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const THRESHOLD: u32 = 3;
const START_PERIOD: Duration = Duration::from_secs(30);
const PID_FILE: &str = "backend.pid";
const PORT_FILE: &str = "backend.port";
/// The backend is frozen while this file exists.
const FREEZE_FILE: &str = "freeze";

pub(super) fn demo() -> Code {
    let folder = std::env::temp_dir().join(format!("watchdog-demo-{}", std::process::id()));
    if let Err(error) = DirBuilder::new().mode(0o700).create(&folder) {
        return print_error(&format!("cannot make {}: {}", folder.display(), describe_io_error(&error)), Code::Machine);
    }
    let (post, stop) = channel();
    let listening = signals::listen(move |_| {
        let _ = post.send(()); // fails only after the demo has ended
    });
    let end = listening.and_then(|_| Demo::start(&folder)).and_then(|mut demo| {
        let end = demo.show(&stop);
        demo.stop_watchdog();
        end
    });
    end_backend(&folder);
    if let Err(error) = fs::remove_dir_all(&folder) {
        print_error(&format!("cannot remove {}: {}", folder.display(), describe_io_error(&error)), Code::Machine);
    }
    match end {
        Ok(DemoEnd::Healed) => Code::Done,
        Ok(DemoEnd::Stopped) => print_error("the demo was stopped; it left nothing behind", Code::Trouble),
        Ok(DemoEnd::Down) => print_error("the backend did not come back", Code::Trouble),
        Err(error) => print_error(&format!("the demo failed: {}", describe_io_error(&error)), Code::Machine),
    }
}

enum DemoEnd {
    Healed,
    Down,
    /// By a signal, such as that of Ctrl-C.
    Stopped,
}

struct Demo {
    folder: PathBuf,
    watchdog: Child,
    began: Instant,
}

impl Demo {
    fn start(folder: &Path) -> io::Result<Demo> {
        let program = std::env::current_exe()?;
        fs::write(folder.join("restart.sh"), restart_script(&program))?;
        Command::new("sh").arg("restart.sh").current_dir(folder).stdin(Stdio::null()).status()?;
        let port = folder.join(PORT_FILE);
        if !stale_daemon::wait_until(STEP_TIMEOUT, || fs::read_to_string(&port).is_ok_and(|port| !port.is_empty())) {
            return Err(io::Error::other("the backend did not start"));
        }
        let config = folder.join("watchdog.yaml");
        fs::write(&config, configuration(fs::read_to_string(&port)?.trim()))?;
        let mut watchdog = Command::new(&program);
        watchdog.args(["run", "-c"]).arg(&config);
        // In a process group of its own, so that Ctrl-C reaches only the demo, which then ends the watchdog.
        watchdog.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Demo { folder: folder.into(), watchdog: watchdog.spawn()?, began: clock::monotonic() })
    }

    fn show(&mut self, stop: &Receiver<()>) -> io::Result<DemoEnd> {
        let state = Folder::at(&self.folder.join("state"));
        let mut last_probe_at = None;
        let mut printed_events = 0;
        let mut frozen = false;
        while self.began.elapsed() < DEMO_TIMEOUT {
            if stop.try_recv().is_ok() {
                return Ok(DemoEnd::Stopped);
            }
            if !frozen && last_probe_at.is_some() && self.began.elapsed() >= FREEZE_AFTER {
                fs::write(self.folder.join(FREEZE_FILE), "")?;
                frozen = true;
            }
            let status = status::read(&state).map_err(io::Error::other)?;
            let backend = status.saved.policy.targets.get("backend");
            if let Some((probe, target)) = backend.and_then(|target| Some((target.last_probe.clone()?, target)))
                && last_probe_at != Some(probe.at)
            {
                let is_first = last_probe_at.is_none();
                if is_first || (!probe.verdict.is_healthy() && (1..THRESHOLD).contains(&target.failures())) {
                    self.print_probe(&probe, target.failures());
                }
                last_probe_at = Some(probe.at);
            }
            let events = events::read(&state, None).map_err(io::Error::other)?;
            for entry in events.iter().skip(printed_events) {
                self.print_event(&entry.kind);
            }
            printed_events = events.len();
            if events.iter().any(|entry| matches!(entry.kind, EventKind::Up { .. })) {
                return Ok(DemoEnd::Healed);
            }
            if let Some(status) = self.watchdog.try_wait()? {
                return Err(io::Error::other(format!("the watchdog ended too early ({status})")));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(DemoEnd::Down)
    }

    fn print_line(&self, word: &str, text: &str) {
        print(&format!("{:>4} s  {word:<8}  {text}", self.began.elapsed().as_secs()));
    }

    fn print_probe(&self, probe: &LastProbe, failures: u32) {
        let latency = Latency(Duration::from_millis(probe.latency_ms));
        match &probe.verdict {
            Verdict::Healthy { detail } => self.print_line("healthy", &format!("{detail} in {latency}")),
            Verdict::Unhealthy { detail, .. } => {
                let cause = if failures == 1 { "          (the demo backend has frozen)" } else { "" };
                self.print_failing(failures, &format!("{detail}{cause}"));
            }
            Verdict::Unknown { detail } => self.print_line("unknown", detail),
        }
    }

    fn print_failing(&self, failures: u32, detail: &str) {
        self.print_line("failing", &format!("{failures} of {THRESHOLD} failures: {detail}"));
    }

    fn print_event(&self, kind: &EventKind) {
        match kind {
            // The failed probe that reached the threshold is printed from the event: the repair is so quick that the
            // next probe may have replaced it in the state already.
            EventKind::Down { failures, detail, .. } => {
                self.print_failing(*failures, detail);
                self.print_line("down", &format!("{failures} failures in a row"));
            }
            EventKind::Restart { attempt, run, .. } => self.print_line("restart", &format!("{attempt}: {run}")),
            EventKind::RestartDone { outcome: CommandOutcome::Exited { code }, took_ms, .. } => {
                let duration = HumanDuration(Duration::from_millis(*took_ms));
                let probing = format!("probing every second for up to {}", HumanDuration(START_PERIOD));
                self.print_line("", &format!("restart command exited {code} in {duration}; {probing}"));
            }
            EventKind::Up { down_ms, attempts, .. } => {
                let down = Downtime::AtMost(Duration::from_millis(*down_ms));
                let by = if *attempts == 1 { "the first command" } else { "a restart" };
                self.print_line("healthy", &format!("answers again; down {down}, cured by {by}"));
            }
            _ => {}
        }
    }

    fn stop_watchdog(&mut self) {
        if let Ok(pid) = i32::try_from(self.watchdog.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::TERM); // it may have ended already
        }
        let has_ended = || self.watchdog.try_wait().is_ok_and(|status| status.is_some());
        if !stale_daemon::wait_until(STEP_TIMEOUT, has_ended) {
            let _ = self.watchdog.kill(); // as above
            let _ = self.watchdog.wait();
        }
    }
}

/// A restart script as it is common on shared hosts, which have no service manager.
fn restart_script(program: &Path) -> String {
    let program = program.display().to_string().replace('\'', r"'\''");
    format!(
        "[ -f {PID_FILE} ] && kill -9 \"$(cat {PID_FILE})\"\nrm -f {FREEZE_FILE}\n\
         '{program}' demo --backend . </dev/null >/dev/null 2>&1 &\n"
    )
}

fn configuration(port: &str) -> String {
    let start_period = START_PERIOD.as_secs();
    format!(
        "state_dir: state\ntargets:\n  - name: backend\n    http: http://127.0.0.1:{port}/api/health\n    \
         restart: sh restart.sh\n    interval: 1s\n    timeout: 1s\n    failure_threshold: {THRESHOLD}\n    \
         start_period: {start_period}s\n"
    )
}

/// Kills the backend whose pid is in the folder. Its working folder proves that the pid was not reused.
fn end_backend(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(PID_FILE)) else { return };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let cwd = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    if cwd.is_ok_and(|cwd| cwd == folder) {
        let _ = kill_process(pid, Signal::KILL); // fails if it has just ended by itself
    }
}

/// The backend: answers every request with 200. While the file that freezes it exists, it accepts connections and sends
/// nothing. It ends by itself after twice the demo's timeout, or when its pid file is removed.
pub(super) fn backend(folder: &Path) -> Code {
    match serve(folder) {
        Ok(()) => Code::Done,
        Err(error) => print_error(&format!("the demo's backend failed: {}", describe_io_error(&error)), Code::Machine),
    }
}

fn serve(folder: &Path) -> io::Result<()> {
    let port = fs::read_to_string(folder.join(PORT_FILE)).ok().and_then(|port| port.trim().parse().ok()).unwrap_or(0);
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let mut bound = bind();
    // The backend that was killed a moment ago may still hold the port.
    stale_daemon::wait_until(STEP_TIMEOUT, || {
        let is_taken = bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        if is_taken {
            bound = bind();
        }
        !is_taken
    });
    let listener = bound?;
    listener.set_nonblocking(true)?;
    fs::write(folder.join(PID_FILE), std::process::id().to_string())?;
    fs::write(folder.join(PORT_FILE), listener.local_addr()?.port().to_string())?;
    let began = clock::monotonic();
    let mut silent = Vec::new();
    while began.elapsed() < DEMO_TIMEOUT * 2 && folder.join(PID_FILE).exists() {
        match listener.accept() {
            Ok((stream, _)) if folder.join(FREEZE_FILE).exists() => silent.push(stream),
            // An error here means that the client has closed the connection.
            Ok((stream, _)) => drop(answer(stream)),
            Err(_) => thread::sleep(POLL_INTERVAL / 20),
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&piece[..length]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{\"status\":\"ok\"}")
}
