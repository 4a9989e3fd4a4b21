//! systemd from outside: what it knows of a unit, and whether the unit is deliberately at rest.
//! It must never start, stop or change a unit, and never take silence for an answer: what cannot be read is unknown.

mod conclude;
mod evidence;
mod journal;
mod query;

pub use conclude::{UnitState, conclude, describe};
pub use evidence::{LoadState, UnitEvidence};
pub use query::UnitQuery;
