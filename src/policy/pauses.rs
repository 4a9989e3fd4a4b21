//! The stored pauses of a target: they may overlap, each ends by itself, and the last end counts.
//! It holds data only and must never decide anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pauses {
    /// The last end of the pauses without a command.
    until: Option<BootTime>,
    /// The pauses that end with a command, each with its latest end, by [`command_text`]'s names.
    commands: BTreeMap<String, BootTime>,
}

impl Pauses {
    /// The last end; `None` if there is no pause.
    pub fn until(&self) -> Option<BootTime> {
        self.commands.values().copied().chain(self.until).max()
    }

    /// Adds a pause until `until`, or until `command` has ended if that is earlier.
    pub fn begin(&mut self, until: BootTime, command: Option<&str>) {
        match command {
            Some(command) => {
                self.commands.insert(command.to_owned(), until);
            }
            None => self.until = self.until.max(Some(until)),
        }
    }

    /// The command that the last pause to end is for; `None` if another pause lasts longer.
    pub fn command(&self) -> Option<&str> {
        let (name, until) = self.commands.iter().max_by_key(|(_, until)| **until)?;
        command_text(name).filter(|_| self.until.is_none_or(|other| other < *until))
    }

    pub(super) fn expire(&mut self, now: BootTime) {
        self.until = self.until.filter(|until| *until > now);
        self.commands.retain(|_, until| *until > now);
    }

    /// For a target that is not watched now: ends the pause of `command`, or all if `None`, but keeps them, so that
    /// their end takes effect once the target is watched again.
    pub(super) fn mark_ended(&mut self, command: Option<&str>, now: BootTime) {
        let ends = self.commands.iter_mut().filter(|(other, _)| command.is_none_or(|command| command == *other));
        let plain = self.until.iter_mut().filter(|_| command.is_none());
        ends.map(|(_, until)| until).chain(plain).for_each(|until| *until = now.min(*until));
    }

    pub fn end(&mut self, command: &str) {
        self.commands.remove(command);
    }

    /// No command survives a reboot, so the pauses of commands end with it.
    pub(super) fn reboot(&mut self) {
        self.commands.values_mut().for_each(|until| *until = BootTime::BOOT.min(*until));
    }

    pub(super) fn shift(&mut self, ms: i64) {
        self.until.iter_mut().chain(self.commands.values_mut()).for_each(|until| *until = until.offset_by(ms));
    }
}

/// What follows the first space of a command's name, which earlier versions did not write.
pub(super) fn command_text(name: &str) -> Option<&str> {
    name.split_once(' ').map(|(_, text)| text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> BootTime {
        BootTime::from_ms(s * 1000)
    }

    #[test]
    fn each_pause_ends_by_itself_and_the_last_end_counts() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.until(), None);
        pauses.begin(at(50), None);
        pauses.begin(at(30), None);
        pauses.begin(at(90), Some("a"));
        pauses.begin(at(70), Some("b"));
        assert_eq!(pauses.until(), Some(at(90)));
        pauses.end("a");
        pauses.end("a");
        pauses.end("unknown");
        assert_eq!(pauses.until(), Some(at(70)));
        pauses.expire(at(50));
        assert_eq!(pauses, Pauses { until: None, commands: [("b".into(), at(70))].into() });
        pauses.shift(-5_000);
        pauses.expire(at(64));
        assert_eq!(pauses.until(), Some(at(65)));
        pauses.expire(at(65));
        assert_eq!(pauses, Pauses::default());
    }

    #[test]
    fn the_command_of_the_last_pause_to_end_is_known() {
        let mut pauses = Pauses::default();
        pauses.begin(at(50), Some("7-100 ./deploy.sh now"));
        assert_eq!(pauses.command(), Some("./deploy.sh now"));
        pauses.begin(at(60), Some("8-100"));
        assert_eq!(pauses.command(), None, "of an earlier version");
        pauses.end("8-100");
        pauses.begin(at(50), None);
        assert_eq!(pauses.command(), None);
    }

    #[test]
    fn a_reboot_ends_only_the_pauses_of_commands() {
        let mut pauses = Pauses::default();
        pauses.begin(at(50), None);
        pauses.begin(at(90), Some("a"));
        pauses.reboot();
        pauses.expire(at(1));
        assert_eq!(pauses.until(), Some(at(50)));
    }
}
