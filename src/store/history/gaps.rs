//! When nobody watched, and why.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::time::Wall;

/// Gaps that are remembered.
const GAPS_KEPT: usize = 100;

/// Spans in which nobody watched anything, oldest first; the latest hundred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gaps(VecDeque<Gap>);

impl Gaps {
    /// Remembers a gap. One that ends before it begins is none: the wall clock was set back.
    pub fn note(&mut self, gap: Gap) {
        if gap.from < gap.to {
            self.0.push_back(gap);
        }
        while self.0.len() > GAPS_KEPT {
            self.0.pop_front();
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.iter()
    }
}

/// A span in which nobody watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last sign of life before it.
    pub from: Wall,
    /// When somebody was there again.
    pub to: Wall,
    /// What it came from.
    pub why: Absence,
}

/// Why nobody watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absence {
    /// The watchdog was told to stop.
    Stopped,
    /// It ended otherwise, or cron made no tick.
    Ended,
    /// The machine was off, or was rebooted.
    Rebooted,
    /// The machine slept, or gave the watchdog no CPU.
    Stalled,
}

impl Absence {
    /// For machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Absence::Stopped => "stopped",
            Absence::Ended => "ended",
            Absence::Rebooted => "rebooted",
            Absence::Stalled => "stalled",
        }
    }

    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Absence::Stopped => "the watchdog was stopped",
            Absence::Ended => "the watchdog was killed, or no tick came",
            Absence::Rebooted => "the machine was off or was rebooted",
            Absence::Stalled => "the machine slept, or gave the watchdog no CPU",
        }
    }
}
