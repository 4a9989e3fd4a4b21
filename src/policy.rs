//! Decides. A pure state machine that is given events and the time and answers with actions.
//! It must never read a clock and never do I/O.

mod limits;

pub use limits::{Gate, Limits};
