//! With the real PM2: each known failure of PM2 or of a process under it, which the watchdog repairs, or leaves alone
//! with a stated reason. The first test that needs PM2 installs it below the target folder.

mod actions;
pub(crate) mod fixture;
mod installation;

mod assumptions;
mod at_rest;
mod by_hand;
mod crashed;
mod daemon;
mod drills;
mod frozen;
mod incidents;
mod liveness;
mod lost_sockets;
mod operator;
mod outage;
mod ports;
mod reboot;
mod restarts;
mod setups;
