//! Single keys from the terminal, without Enter. It must leave the terminal as it found it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::read;
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// While it lives, the terminal passes on each key at once and does not echo it.
pub(super) struct Keys {
    /// None if there is no terminal to read from, or another job reads from it.
    original: Option<Termios>,
}

impl Keys {
    pub(super) fn open() -> Keys {
        let is_foreground = io::stdin().is_terminal() && tcgetpgrp(io::stdin()) == Ok(getpgrp());
        let original = tcgetattr(io::stdin()).ok().filter(|_| is_foreground);
        if let Some(original) = &original {
            let mut modes = original.clone();
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            // If this fails, q takes effect with Enter.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
        Keys { original }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.original.is_some()
    }

    /// Waits for at most `timeout`, and returns whether q was pressed or the terminal was closed.
    pub(super) fn is_quit_pressed(&self, timeout: Duration) -> bool {
        let stdin = io::stdin();
        let mut events = [PollFd::new(&stdin, PollFlags::IN)];
        let events = if self.original.is_some() { &mut events[..] } else { &mut [] };
        let timeout = Timespec::try_from(timeout).ok();
        // An interrupted wait counts as one without a key.
        if poll(events, timeout.as_ref()).unwrap_or(0) == 0 {
            return false;
        }
        let mut keys = [0; 64];
        match read(&stdin, &mut keys) {
            Ok(0) => true,
            Ok(count) => keys[..count].iter().any(|key| matches!(key, b'q' | b'Q')),
            Err(_) => false,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(original) = &self.original {
            // This fails only if the terminal is closed.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, original);
        }
    }
}
