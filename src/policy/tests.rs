//! The policy against tables, a line a case, and against a simulated world with an oracle of the contract's promises.

mod oracle;
mod simulation;
mod table;
mod world;
