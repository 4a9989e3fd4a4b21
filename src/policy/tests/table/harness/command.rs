//! The restart commands of a script: when the policy learns that one has started, and how it ends.

use std::time::Duration;

use super::{Command, Harness, Token};
use crate::outcome::Exit;
use crate::policy::Event;

impl Harness {
    pub(super) fn report_command(&mut self) {
        self.report_stop();
        if let Some(Command { target, is_reported: is_reported @ false }) = &mut self.command
            && self.policy.is_some()
        {
            *is_reported = true;
            let target = target.clone();
            self.deliver(Event::CommandStarted { target, process: (4821, 7) });
        }
    }

    pub(super) fn end_command(&mut self, token: &Token<'_>) {
        let exit = match token.verb {
            "ok" => Exit::Exited(0),
            "fail" => Exit::Exited(3),
            "killed" => Exit::Killed(9),
            "late" => Exit::TimedOut,
            "missing" | "127" => Exit::NotStarted("no such file".into()),
            "lost" => Exit::Lost,
            _ => panic!("no token is called `{}`", token.verb),
        };
        let target = self.command.take().expect("a command runs").target;
        self.expected_exit = Some(exit.clone());
        self.deliver(Event::CommandEnded { target, exit, duration: Duration::from_secs(2) });
        assert_eq!(self.expected_exit, None, "the end of a command is recorded");
    }
}
