//! Turns signals that this process receives into events. It must never block a signal, because the commands that it
//! runs would inherit the blocked mask, and never act on a signal itself.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use signal_hook::iterator::{Signals, SignalsInfo};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: finish the running command, then exit.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: write the state now.
    Save,
    /// SIGCHLD, with [`listen_with_children`] only: a child has exited.
    Child,
}

const HANDLED: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// Whether this process was stopped (SIGSTOP, Ctrl-Z) and continued.
#[derive(Debug)]
pub struct Continued(Arc<AtomicBool>);

impl Continued {
    /// Since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// Starts a thread that passes each signal to `deliver`. Signals of one kind that arrive faster than they are delivered
/// count as one.
///
/// Call it once, before anything else is started. It also resets what the parent process may have set: SIGHUP ignored
/// (`nohup`), which would make a reload impossible, and SIGCHLD ignored, which would hide the exit codes of commands.
/// SIGXFSZ is handled too: a write beyond the file size limit then fails like one to a full disk, instead of ending the
/// process.
/// Errors: no descriptor or thread is available. Some signals may then have no effect, so the caller should exit.
pub fn listen(deliver: impl Fn(Signal) + Send + 'static) -> io::Result<Continued> {
    listen_to(&HANDLED, deliver)
}

/// Like [`listen`], but also delivers [`Signal::Child`]: for process 1, which inherits children that it did not start.
pub fn listen_with_children(deliver: impl Fn(Signal) + Send + 'static) -> io::Result<Continued> {
    listen_to(&[&HANDLED[..], &[SIGCHLD]].concat(), deliver)
}

fn listen_to(handled: &[i32], deliver: impl Fn(Signal) + Send + 'static) -> io::Result<Continued> {
    for signal in [SIGCHLD, SIGXFSZ] {
        // The flag is not read: only a handler is needed, and this one wakes no thread.
        flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let continued = Arc::new(AtomicBool::new(false));
    flag::register(SIGCONT, Arc::clone(&continued))?;
    let mut signals = Signals::new(handled)?;
    let forward = move || {
        for number in signals.forever() {
            match number {
                SIGHUP => deliver(Signal::Reload),
                SIGUSR1 => deliver(Signal::Save),
                SIGCHLD => deliver(Signal::Child),
                _ => deliver(Signal::Stop),
            }
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(forward)?;
    Ok(Continued(continued))
}

/// What `pause -- COMMAND` needs to know while its command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandSignal {
    /// The command may have exited.
    Child,
    /// `by_terminal`: the terminal sent it to the whole foreground group, so the command has received it too.
    Received { signal: i32, by_terminal: bool },
}

/// Passes the signals that ask this process to exit to `deliver`, so that they can be passed on to a command. Call it
/// instead of [`listen`]. Signals that the parent process ignores (`nohup`) stay ignored, as they do for the command.
pub fn listen_for_command(deliver: impl Fn(CommandSignal) + Send + 'static) -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let ignored = ignored();
    let is_handled = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    let exit_signals = [SIGTERM, SIGINT, SIGHUP, SIGQUIT].into_iter().filter(is_handled);
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(exit_signals.chain([SIGCHLD]))?;
    let forward = move || {
        for info in signals.forever() {
            let signal = info.si_signo;
            // A code above 0 means that the kernel sent it. It sends SIGHUP for a closed terminal only to the session's
            // leader, so that one must be passed on.
            let by_terminal = info.si_code > 0 && matches!(signal, SIGINT | SIGQUIT);
            deliver(if signal == SIGCHLD {
                CommandSignal::Child
            } else {
                CommandSignal::Received { signal, by_terminal }
            });
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(forward)?;
    Ok(())
}

/// The signals that are ignored since the start, as a bit mask; 0 if it cannot be read.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

    use std::fs;
    use std::process::Command;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use rustix::process::{getpid, kill_process};

    use super::*;
    use crate::testing::{is_alone, run_alone};

    #[track_caller]
    fn check(delivered: &Receiver<Signal>, sent: rustix::process::Signal, expected: Signal) {
        kill_process(getpid(), sent).unwrap();
        assert_eq!(delivered.recv_timeout(Duration::from_secs(60)), Ok(expected), "{sent:?}");
    }

    fn status_line(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    }

    #[test]
    fn every_signal_is_delivered_even_if_the_parent_ignored_it() {
        use rustix::process::Signal as Sent;
        if !is_alone() {
            let through = ["env", "--ignore-signal=HUP,CHLD,INT,TERM,USR1"];
            run_alone("signals::tests::every_signal_is_delivered_even_if_the_parent_ignored_it", &through);
            return;
        }
        let exit_3 = || Command::new("sh").args(["-c", "exit 3"]).status();
        assert!(exit_3().is_err(), "SIGCHLD is ignored");
        let (sender, delivered) = channel();
        let continued = listen(move |signal| sender.send(signal).unwrap()).unwrap();
        check(&delivered, Sent::HUP, Signal::Reload);
        check(&delivered, Sent::USR1, Signal::Save);
        check(&delivered, Sent::TERM, Signal::Stop);
        check(&delivered, Sent::INT, Signal::Stop);
        check(&delivered, Sent::TERM, Signal::Stop);
        assert_eq!(exit_3().unwrap().code(), Some(3));
        assert_eq!(status_line("SigBlk:"), "0".repeat(16));
        check(&delivered, Sent::HUP, Signal::Reload); // the child's exit is not delivered
        assert!(!continued.take());
        let pid = std::process::id();
        Command::new("sh").args(["-c", &format!("kill -STOP {pid}; kill -CONT {pid}")]).status().unwrap();
        // Another thread may receive the signal, and only when it is scheduled.
        let began = Instant::now();
        while !continued.take() {
            assert!(began.elapsed() < Duration::from_secs(60), "SIGCONT was not noticed");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!continued.take());
    }

    #[test]
    fn the_file_size_limit_causes_an_error_and_not_the_end() {
        if !is_alone() {
            run_alone("signals::tests::the_file_size_limit_causes_an_error_and_not_the_end", &["env"]);
            return;
        }
        listen(|signal| panic!("{signal:?}")).unwrap();
        let limit = rustix::process::Rlimit { current: Some(10), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let error = fs::write(folder.path().join("file"), [0; 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
