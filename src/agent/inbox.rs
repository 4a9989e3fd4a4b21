//! The channel on which signals and jobs send messages to the loop. It must be open before the lock is taken: from then
//! on others know the watchdog's pid, and a signal would end a process that does not listen for it yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::process;
use crate::signals::{self, Continued, Signal};

use super::message::Message;

/// More than enough for the probes of 1,000 targets that end at once; further messages wait for the next pass.
const MAX_PER_PASS: usize = 2_000;

pub struct Inbox {
    pub(super) post: Sender<Message>,
    arrived: Receiver<Message>,
    /// Messages that arrived before the loop began.
    early: Vec<Message>,
    queued: Arc<QueuedSignals>,
    pub(super) continued: Continued,
}

/// The signals that wait in the channel: a second one of its kind adds nothing and is not queued. On a slow disk
/// signals may arrive faster than the configuration is read, and a queue of them would keep the loop from probing.
#[derive(Default)]
struct QueuedSignals {
    reload: AtomicBool,
    save: AtomicBool,
    child: AtomicBool,
}

impl QueuedSignals {
    /// `None` for a signal of which each one counts.
    fn flag(&self, signal: Signal) -> Option<&AtomicBool> {
        match signal {
            Signal::Stop => None,
            Signal::Reload => Some(&self.reload),
            Signal::Save => Some(&self.save),
            Signal::Child => Some(&self.child),
        }
    }

    /// Returns whether this signal must be queued.
    fn set(&self, signal: Signal) -> bool {
        self.flag(signal).is_none_or(|flag| !flag.swap(true, Ordering::SeqCst))
    }

    /// Called before the signal is handled: one that arrives from now on may be about a later change.
    fn clear(&self, signal: Signal) {
        if let Some(flag) = self.flag(signal) {
            flag.store(false, Ordering::SeqCst);
        }
    }
}

impl Inbox {
    /// Listens for signals from now on. Errors: out of descriptors or threads.
    pub fn open() -> Result<Inbox, String> {
        let (post, arrived) = channel();
        let queued = Arc::new(QueuedSignals::default());
        let (signals, flags) = (post.clone(), Arc::clone(&queued));
        let deliver = move |signal| {
            if flags.set(signal) {
                // Fails only if the loop has ended.
                let _ = signals.send(Message::Signal(signal));
            }
        };
        let continued = match process::inherits_orphans() {
            true => signals::listen_with_children(deliver),
            false => signals::listen(deliver),
        };
        let continued = continued.map_err(|error| format!("cannot listen for signals: {error}"))?;
        Ok(Inbox { post, arrived, early: Vec::new(), queued, continued })
    }

    /// Waits this long at most, before the loop begins, and returns whether a signal to stop arrived.
    pub fn is_stop_requested(&mut self, within: Duration) -> bool {
        match self.arrived.recv_timeout(within) {
            Ok(Message::Signal(Signal::Stop)) => true,
            Ok(message) => {
                self.early.push(message);
                false
            }
            Err(_) => false,
        }
    }

    pub(super) fn take(&mut self, within: Duration) -> Vec<Message> {
        let mut messages = std::mem::take(&mut self.early);
        if messages.is_empty() {
            messages.extend(self.arrived.recv_timeout(within));
        }
        messages.extend(self.arrived.try_iter().take(MAX_PER_PASS));
        for message in &messages {
            if let Message::Signal(signal) = message {
                self.queued.clear(*signal);
            }
        }
        messages
    }
}
