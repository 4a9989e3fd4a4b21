//! Where all arrives that the loop must know. It must be open before the lock is taken: from then on others find our
//! pid and may send it a signal, which would end a process that does not listen yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::process;
use crate::signals::{self, Continued, Signal};

use super::message::Message;

/// Each target's look may end at once, and more; what comes beyond that has its turn in the next pass.
const MAX_PER_PASS: usize = 2_000;

pub struct Inbox {
    pub(super) post: Sender<Message>,
    arrived: Receiver<Message>,
    /// Requests that arrived before the work began, to be heeded then, in whatever order.
    early: Vec<Message>,
    requested: Arc<RequestedSignals>,
    pub(super) continued: Continued,
}

/// What signals have asked for and the loop has not begun yet. To ask once more asks for nothing new; on a slow disk a
/// reload takes longer than the next signal does to come, and a queue of them would keep the loop from looking.
#[derive(Default)]
struct RequestedSignals {
    reload: AtomicBool,
    save: AtomicBool,
    child: AtomicBool,
}

impl RequestedSignals {
    /// None for what counts each time.
    fn flag(&self, signal: Signal) -> Option<&AtomicBool> {
        match signal {
            Signal::Stop => None,
            Signal::Reload => Some(&self.reload),
            Signal::Save => Some(&self.save),
            Signal::Child => Some(&self.child),
        }
    }

    fn request(&self, signal: Signal) -> bool {
        self.flag(signal).is_none_or(|flag| !flag.swap(true, Ordering::SeqCst))
    }

    /// From here on a signal asks anew: what it tells of may have changed after we have looked.
    fn begin(&self, signal: Signal) {
        if let Some(flag) = self.flag(signal) {
            flag.store(false, Ordering::SeqCst);
        }
    }
}

impl Inbox {
    /// Listens to signals from now on. Errors: there are no descriptors or no thread to be had; in words.
    pub fn open() -> Result<Inbox, String> {
        let (post, arrived) = channel();
        let asked = Arc::new(RequestedSignals::default());
        let (signals, before) = (post.clone(), Arc::clone(&asked));
        let deliver = move |signal| {
            if before.request(signal) {
                // The loop is gone: so is whoever would have heeded the signal.
                let _ = signals.send(Message::Signal(signal));
            }
        };
        let continued = match process::inherits_orphans() {
            true => signals::listen_with_children(deliver),
            false => signals::listen(deliver),
        };
        let continued = continued.map_err(|error| format!("cannot listen to signals: {error}"))?;
        Ok(Inbox { post, arrived, early: Vec::new(), requested: asked, continued })
    }

    /// For whoever has to wait before the work can begin: waits so long, and says whether we were told to stop.
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
                self.requested.begin(*signal);
            }
        }
        messages
    }
}
