//! Decides. A pure state machine that is given events and the time and answers with actions.
//! It must never read a clock and never do I/O.

mod limits;
mod state;

pub use limits::{Gate, Limits};
pub use state::{
    About, Attempt, Beginning, Condition, Episode, Incident, LastLook, Ledger, Phase, StandDown, StartPeriod, State,
    Streak, TargetState, Why,
};
