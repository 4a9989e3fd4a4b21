//! Turns the signals that people and programs send us into orders. It must never block a signal, because a command
//! that we run would inherit that, and never act on one itself.

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
    /// SIGTERM, SIGINT: finish what runs, then end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: write the state now.
    Save,
    /// SIGCHLD, where that was asked for: a child has ended.
    Child,
}

const ORDERS: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// Whether we were stopped (SIGSTOP, Ctrl-Z) and continued.
#[derive(Debug)]
pub struct Continued(Arc<AtomicBool>);

impl Continued {
    /// Since this was last asked.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// From now on each signal is handed to `deliver`, on a thread made for that. Signals of one kind that arrive faster
/// than they are delivered count as one.
///
/// Call it before anything else is started, once. It also undoes what our parent may have left us with: SIGHUP ignored
/// (`nohup`), which would make a reload impossible, and SIGCHLD ignored, with which no command's end could be learnt.
/// And a write beyond the limit of a file's size becomes an error like that of a full disk, where it would end us.
/// Errors: no descriptors or no thread to be had. Some signals have no effect any more then, so the caller should end.
pub fn listen(deliver: impl Fn(Signal) + Send + 'static) -> io::Result<Continued> {
    listen_to(&ORDERS, deliver)
}

/// The same, with the end of each child as a signal too: for whoever inherits children that he has not started.
pub fn listen_with_children(deliver: impl Fn(Signal) + Send + 'static) -> io::Result<Continued> {
    listen_to(&[&ORDERS[..], &[SIGCHLD]].concat(), deliver)
}

fn listen_to(heeded: &[i32], deliver: impl Fn(Signal) + Send + 'static) -> io::Result<Continued> {
    for signal in [SIGCHLD, SIGXFSZ] {
        // Nobody reads the flag: what counts is that there is a handler, and this one wakes no thread.
        flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let continued = Arc::new(AtomicBool::new(false));
    flag::register(SIGCONT, Arc::clone(&continued))?;
    let mut signals = Signals::new(heeded)?;
    let hand_over = move || {
        for number in signals.forever() {
            match number {
                SIGHUP => deliver(Signal::Reload),
                SIGUSR1 => deliver(Signal::Save),
                SIGCHLD => deliver(Signal::Child),
                _ => deliver(Signal::Stop),
            }
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(hand_over)?;
    Ok(Continued(continued))
}

/// What whoever runs a command in our place needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The command may have ended.
    Child,
    /// `by_terminal`: the terminal sends it to every process in front of it, so the command has it, too.
    Told { signal: i32, by_terminal: bool },
}

/// From now on what asks us to end is handed to `deliver` instead, for a command that we run; call it in place of
/// [`listen`]. What our parent has us ignore (`nohup`) stays ignored, as it is for the command.
pub fn listen_for_command(deliver: impl Fn(Heard) + Send + 'static) -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let ignored = ignored();
    let is_heard = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    let asking = [SIGTERM, SIGINT, SIGHUP, SIGQUIT].into_iter().filter(is_heard);
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(asking.chain([SIGCHLD]))?;
    let hand_over = move || {
        for info in signals.forever() {
            let signal = info.si_signo;
            // Above 0 are the kernel's own reasons. It tells of a terminal that is gone only whoever leads the session.
            let by_terminal = info.si_code > 0 && matches!(signal, SIGINT | SIGQUIT);
            deliver(if signal == SIGCHLD { Heard::Child } else { Heard::Told { signal, by_terminal } });
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(hand_over)?;
    Ok(())
}

/// The signals that we were started to ignore, bit by bit; none where that cannot be read.
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
    fn check(orders: &Receiver<Signal>, sent: rustix::process::Signal, expected: Signal) {
        kill_process(getpid(), sent).unwrap();
        assert_eq!(orders.recv_timeout(Duration::from_secs(60)), Ok(expected), "{sent:?}");
    }

    fn status_line(name: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    }

    #[test]
    fn every_signal_is_an_order_whatever_our_parent_ignored() {
        use rustix::process::Signal as Sent;
        if !is_alone() {
            let through = ["env", "--ignore-signal=HUP,CHLD,INT,TERM,USR1"];
            run_alone("signals::tests::every_signal_is_an_order_whatever_our_parent_ignored", &through);
            return;
        }
        let exit_3 = || Command::new("sh").args(["-c", "exit 3"]).status();
        assert!(exit_3().is_err(), "SIGCHLD is ignored");
        let (sender, orders) = channel();
        let continued = listen(move |order| sender.send(order).unwrap()).unwrap();
        check(&orders, Sent::HUP, Signal::Reload);
        check(&orders, Sent::USR1, Signal::Save);
        check(&orders, Sent::TERM, Signal::Stop);
        check(&orders, Sent::INT, Signal::Stop);
        check(&orders, Sent::TERM, Signal::Stop);
        assert_eq!(exit_3().unwrap().code(), Some(3));
        assert_eq!(status_line("SigBlk:"), "0".repeat(16));
        check(&orders, Sent::HUP, Signal::Reload); // and the child's end was no order
        assert!(!continued.take());
        let pid = std::process::id();
        Command::new("sh").args(["-c", &format!("kill -STOP {pid}; kill -CONT {pid}")]).status().unwrap();
        // It is another thread that takes the signal here, when its turn comes.
        let began = Instant::now();
        while !continued.take() {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody says so");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!continued.take());
    }

    #[test]
    fn a_file_size_limit_is_an_error_and_not_the_end() {
        if !is_alone() {
            run_alone("signals::tests::a_file_size_limit_is_an_error_and_not_the_end", &["env"]);
            return;
        }
        listen(|order| panic!("{order:?}")).unwrap();
        let limit = rustix::process::Rlimit { current: Some(10), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let error = fs::write(folder.path().join("file"), [0; 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
