//! Where all arrives that the loop must know. It must be open before the lock is taken: from then on others find our
//! pid and may send it a signal, which would end a process that does not listen yet.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::signals::{self, Signal};

use super::Message;

/// What the agent reads, and what its jobs and signals write to.
pub struct Inbox {
    pub(super) post: Sender<Message>,
    arrived: Receiver<Message>,
    /// Requests that arrived before the work began, to be heeded then, in whatever order.
    early: Vec<Message>,
}

impl Inbox {
    /// Listens to signals from now on.
    ///
    /// # Errors
    /// There are no descriptors or no thread to be had; in words.
    pub fn open() -> Result<Inbox, String> {
        let (post, arrived) = channel();
        let signals = post.clone();
        signals::listen(move |signal| {
            // The loop is gone: so is whoever would have heeded the signal.
            let _ = signals.send(Message::Signal(signal));
        })
        .map_err(|error| format!("cannot listen to signals: {error}"))?;
        Ok(Inbox { post, arrived, early: Vec::new() })
    }

    /// For whoever has to wait before the work can begin: waits so long, and says whether we were told to stop.
    pub fn is_told_to_stop(&mut self, within: Duration) -> bool {
        match self.arrived.recv_timeout(within) {
            Ok(Message::Signal(Signal::Stop)) => true,
            Ok(message) => {
                self.early.push(message);
                false
            }
            Err(_) => false,
        }
    }

    /// The next message; none if nothing arrives for so long.
    pub(super) fn next(&mut self, within: Duration) -> Option<Message> {
        if let Some(message) = self.early.pop() {
            return Some(message);
        }
        match self.arrived.recv_timeout(within) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the inbox itself holds a sender"),
        }
    }
}
