//! Beside the real PM2: each way in which it and its backend are known to fail, and that the watchdog repairs it, or
//! leaves it alone and says why. PM2 is installed below the target folder by the first test that needs it.

mod deeds;
mod installed;
mod scene;

mod crashed;
mod daemon;
mod evidence;
mod frozen;
mod ground;
mod operator;
mod reboot;
mod rests;
mod setups;
mod signs;
mod sockets;
