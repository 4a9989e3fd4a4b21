//! The operator's pauses, as they are remembered: they may overlap, each ends by itself, and the last end holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pauses {
    /// The last end of those that end at their time only.
    until: Option<BootTime>,
    /// Those that end with a command, and at their time at the latest.
    commands: BTreeMap<String, BootTime>,
}

impl Pauses {
    /// The end of the last one; `None`: none is on.
    pub fn until(&self) -> Option<BootTime> {
        self.commands.values().copied().chain(self.until).max()
    }

    /// One more: until then, or until `command` has ended, if that is sooner.
    pub fn begin(&mut self, until: BootTime, command: Option<&str>) {
        match command {
            Some(command) => {
                self.commands.insert(command.to_owned(), until);
            }
            None => self.until = self.until.max(Some(until)),
        }
    }

    pub(super) fn expire(&mut self, now: BootTime) {
        self.until = self.until.filter(|until| *until > now);
        self.commands.retain(|_, until| *until > now);
    }

    /// The same as [`Pauses::end`], or with all of them, for a target that is not watched at present: that they are
    /// over shows when it is watched again.
    pub(super) fn end_by(&mut self, command: Option<&str>, now: BootTime) {
        let ends = self.commands.iter_mut().filter(|(of, _)| command.is_none_or(|command| command == *of));
        let plain = self.until.iter_mut().filter(|_| command.is_none());
        ends.map(|(_, until)| until).chain(plain).for_each(|until| *until = now.min(*until));
    }

    pub fn end(&mut self, command: &str) {
        self.commands.remove(command);
    }

    /// No command has outlived the boot: their pauses ended with it.
    pub(super) fn reboot(&mut self) {
        self.commands.values_mut().for_each(|until| *until = BootTime::BOOT.min(*until));
    }

    pub(super) fn shift(&mut self, ms: i64) {
        self.until.iter_mut().chain(self.commands.values_mut()).for_each(|until| *until = until.offset_by(ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> BootTime {
        BootTime::from_ms(s * 1000)
    }

    #[test]
    fn the_last_end_holds_and_each_ends_by_itself() {
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
    fn a_reboot_ends_the_pause_of_a_command_and_no_other() {
        let mut pauses = Pauses::default();
        pauses.begin(at(50), None);
        pauses.begin(at(90), Some("a"));
        pauses.reboot();
        pauses.expire(at(1));
        assert_eq!(pauses.until(), Some(at(50)));
    }
}
