//! What people and machines read: data in, text out. Nothing here does I/O or reads a clock.

pub mod letter;

pub mod status;
pub mod story;
