//! `demo`: a real backend in another process, the real watchdog beside it, and the story of a freeze as it happens.
//! It must touch nothing outside its own temporary folder, and leave nothing running.

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
use crate::store::events::{self, EventKind};
use crate::time::{HumanDuration, Latency};

use super::{Code, complain, say, stale_daemon, status};

/// The backend is in order for this long before it freezes.
const FREEZE_AFTER: Duration = Duration::from_secs(3);
/// By then it has healed, or something is wrong.
const AT_MOST: Duration = Duration::from_secs(60);
/// What the backend and its watchdog get to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// So many failures in a row are no blip.
const THRESHOLD: u32 = 3;
/// Files of the demo: the backend's pid, its port, and the one that makes it freeze.
const PID: &str = "backend.pid";
const PORT: &str = "backend.port";
const FREEZE: &str = "freeze";

pub(super) fn demo() -> Code {
    let folder = std::env::temp_dir().join(format!("watchdog-demo-{}", std::process::id()));
    if let Err(error) = DirBuilder::new().mode(0o700).create(&folder) {
        return complain(&format!("cannot make {}: {}", folder.display(), describe_io_error(&error)), Code::Machine);
    }
    let (post, stop) = channel();
    let listening = signals::listen(move |_| {
        let _ = post.send(()); // nobody waits for it any more once the demo is over
    });
    let told = listening.and_then(|_| Demo::set(&folder)).and_then(|mut scene| {
        let told = scene.tell(&stop);
        scene.clear();
        told
    });
    end_backend(&folder);
    if let Err(error) = fs::remove_dir_all(&folder) {
        complain(&format!("cannot remove {}: {}", folder.display(), describe_io_error(&error)), Code::Machine);
    }
    match told {
        Ok(DemoEnd::Healed) => Code::Done,
        Ok(DemoEnd::Stopped) => complain("the demo was stopped; nothing of it is left", Code::Trouble),
        Ok(DemoEnd::Down) => complain("the backend did not come back", Code::Trouble),
        Err(error) => complain(&format!("the demo cannot be given: {}", describe_io_error(&error)), Code::Machine),
    }
}

enum DemoEnd {
    Healed,
    Down,
    /// By whoever watched it.
    Stopped,
}

struct Demo {
    folder: PathBuf,
    watchdog: Child,
    began: Instant,
}

impl Demo {
    fn set(folder: &Path) -> io::Result<Demo> {
        let program = std::env::current_exe()?;
        fs::write(folder.join("restart.sh"), restart_script(&program))?;
        Command::new("sh").arg("restart.sh").current_dir(folder).stdin(Stdio::null()).status()?;
        let port = folder.join(PORT);
        if !stale_daemon::wait(PATIENCE, || fs::read_to_string(&port).is_ok_and(|port| !port.is_empty())) {
            return Err(io::Error::other("the backend did not come up"));
        }
        let config = folder.join("watchdog.yaml");
        fs::write(&config, configuration(fs::read_to_string(&port)?.trim()))?;
        let mut watchdog = Command::new(&program);
        watchdog.args(["run", "-c"]).arg(&config);
        // In a group of its own: Ctrl-C is for us, and we end it.
        watchdog.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Demo { folder: folder.into(), watchdog: watchdog.spawn()?, began: clock::monotonic() })
    }

    fn tell(&mut self, stop: &Receiver<()>) -> io::Result<DemoEnd> {
        let state = Folder::at(&self.folder.join("state"));
        let mut seen = None;
        let mut events_told = 0;
        let mut frozen = false;
        while self.began.elapsed() < AT_MOST {
            if stop.try_recv().is_ok() {
                return Ok(DemoEnd::Stopped);
            }
            if !frozen && seen.is_some() && self.began.elapsed() >= FREEZE_AFTER {
                fs::write(self.folder.join(FREEZE), "")?;
                frozen = true;
            }
            let now = status::read(&state).map_err(io::Error::other)?;
            let backend = now.saved.policy.targets.get("backend");
            if let Some((look, target)) = backend.and_then(|target| Some((target.last_probe.clone()?, target)))
                && seen != Some(look.at)
            {
                if seen.is_none() || (!look.verdict.is_healthy() && (1..THRESHOLD).contains(&target.failures())) {
                    self.print_probe(&look, target.failures());
                }
                seen = Some(look.at);
            }
            let happened = events::read(&state, None).map_err(io::Error::other)?;
            for entry in happened.iter().skip(events_told) {
                self.say_event(&entry.kind);
            }
            events_told = happened.len();
            if happened.iter().any(|entry| matches!(entry.kind, EventKind::Up { .. })) {
                return Ok(DemoEnd::Healed);
            }
            if let Some(status) = self.watchdog.try_wait()? {
                return Err(io::Error::other(format!("the watchdog ended too early ({status})")));
            }
            thread::sleep(PAUSE);
        }
        Ok(DemoEnd::Down)
    }

    fn line(&self, word: &str, text: &str) {
        say(&format!("{:>4} s  {word:<8}  {text}", self.began.elapsed().as_secs()));
    }

    fn print_probe(&self, look: &LastProbe, failures: u32) {
        let latency = Latency(Duration::from_millis(look.latency_ms));
        match &look.verdict {
            Verdict::Healthy { detail } => self.line("healthy", &format!("{detail} in {latency}")),
            Verdict::Unhealthy { detail, .. } => {
                let cause = if failures == 1 { "          (the demo backend has frozen)" } else { "" };
                self.say_failing(failures, &format!("{detail}{cause}"));
            }
            Verdict::Unknown { detail } => self.line("unknown", detail),
        }
    }

    fn say_failing(&self, failures: u32, detail: &str) {
        self.line("failing", &format!("{failures} of {THRESHOLD}: {detail}"));
    }

    fn say_event(&self, kind: &EventKind) {
        match kind {
            // The look that made it so is told here: the repair is quick, and the next look may be over before we see.
            EventKind::Down { failures, detail, .. } => {
                self.say_failing(*failures, detail);
                self.line("down", &format!("{failures} bad in a row, so this is no blip"));
            }
            EventKind::Restart { attempt, run, .. } => self.line("restart", &format!("{attempt}: {run}")),
            EventKind::RestartDone { took_ms, .. } => {
                let took = HumanDuration(Duration::from_millis(*took_ms));
                self.line("", &format!("that took {took}; now looking every second whether it really helped"));
            }
            EventKind::Up { down_ms, attempts, .. } => {
                let down = Downtime::AtMost(Duration::from_millis(*down_ms));
                let by = if *attempts == 1 { "the first command" } else { "a restart" };
                self.line("healthy", &format!("answers again; down {down}, cured by {by}"));
            }
            _ => {}
        }
    }

    fn clear(&mut self) {
        if let Ok(pid) = i32::try_from(self.watchdog.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::TERM); // it may have ended already
        }
        let mut watchdog = || self.watchdog.try_wait().is_ok_and(|status| status.is_some());
        if !stale_daemon::wait(PATIENCE, &mut watchdog) {
            let _ = self.watchdog.kill(); // as above
            let _ = self.watchdog.wait();
        }
    }
}

/// What many a shared host has in place of a service manager: end the old one, start a new one.
fn restart_script(program: &Path) -> String {
    let program = program.display().to_string().replace('\'', r"'\''");
    format!(
        "[ -f {PID} ] && kill -9 \"$(cat {PID})\"\nrm -f {FREEZE}\n\
         '{program}' demo --backend . </dev/null >/dev/null 2>&1 &\n"
    )
}

fn configuration(port: &str) -> String {
    format!(
        "state_dir: state\ntargets:\n  - name: backend\n    http: http://127.0.0.1:{port}/api/health\n    \
         restart: sh restart.sh\n    interval: 1s\n    timeout: 1s\n    failure_threshold: {THRESHOLD}\n"
    )
}

/// Ends the backend whose pid stands in the folder, if it still is the one.
fn end_backend(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(PID)) else { return };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let cwd = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
    if cwd.is_ok_and(|cwd| cwd == folder) {
        let _ = kill_process(pid, Signal::KILL); // it has just ended by itself
    }
}

/// The backend: answers every request with 200, until there is the file that freezes it: then it takes connections and
/// never says a word. It ends by itself when its time is over or its folder is gone.
pub(super) fn backend(folder: &Path) -> Code {
    match serve(folder) {
        Ok(()) => Code::Done,
        Err(error) => {
            complain(&format!("the backend of the demo failed: {}", describe_io_error(&error)), Code::Machine)
        }
    }
}

fn serve(folder: &Path) -> io::Result<()> {
    let port = fs::read_to_string(folder.join(PORT)).ok().and_then(|port| port.trim().parse().ok()).unwrap_or(0);
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let mut bound = bind();
    // The one that was killed a moment ago may not have let go of the port yet.
    stale_daemon::wait(PATIENCE, || {
        let is_taken = bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        if is_taken {
            bound = bind();
        }
        !is_taken
    });
    let listener = bound?;
    listener.set_nonblocking(true)?;
    fs::write(folder.join(PID), std::process::id().to_string())?;
    fs::write(folder.join(PORT), listener.local_addr()?.port().to_string())?;
    let began = clock::monotonic();
    let mut silent = Vec::new();
    while began.elapsed() < AT_MOST * 2 && folder.join(PID).exists() {
        match listener.accept() {
            Ok((stream, _)) if folder.join(FREEZE).exists() => silent.push(stream),
            // Whoever looked may be gone already.
            Ok((stream, _)) => drop(answer(stream)),
            Err(_) => thread::sleep(PAUSE / 20),
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
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
