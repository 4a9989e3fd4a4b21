//! The real program from outside: real sockets, real `sh`, real processes, in temporary folders.
//! Nothing here knows the inside; what it asserts is the contract.

mod fakepm2;
mod faults;
mod holder;
mod mangle;
mod page;
mod place;
mod takes;

mod accounts;
mod alone;
mod beside;
mod check;
mod commands;
mod containers;
mod crash;
mod cron;
mod crowd;
mod damage;
mod demo;
mod detection;
mod documents;
mod evidence;
mod hanging;
mod init;
mod leftovers;
mod mails;
mod messages;
mod notify;
mod picture;
mod pm2;
mod promises;
mod refusals;
mod restraint;
mod secrets;
mod signals;
mod soak;
mod status;
mod survival;
mod tidy;
mod units;
mod verbs;
mod wire;
