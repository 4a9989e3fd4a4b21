//! Tests of the policy: tables with one case per line, and a simulated world with an oracle of the contract's promises.
//! They must state the contract's rules, not repeat the code's.

mod oracle;
mod simulation;
mod table;
mod world;
