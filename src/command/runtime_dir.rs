//! The folder through which a command reaches the systemd of its account. cron and system services do not set its
//! variable, and without it `systemctl --user` fails with "No medium found". It must never name a folder of others.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::process::geteuid;

const VARIABLE: &str = "XDG_RUNTIME_DIR";

/// Where systemd makes the folder of this account.
pub fn default_runtime_dir() -> PathBuf {
    PathBuf::from(format!("/run/user/{}", geteuid().as_raw()))
}

/// Whether a command that gets `env` on top of our own environment has such a folder.
pub fn has_runtime_dir(env: &[(String, String)]) -> bool {
    is_set(env) || missing_variable(env).is_some()
}

/// The variable with its value, where neither `env` nor our own environment sets it, and the folder is there and ours.
pub(super) fn missing_variable(env: &[(String, String)]) -> Option<(&'static str, PathBuf)> {
    let folder = default_runtime_dir();
    let is_ours = || fs::metadata(&folder).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
    (!is_set(env) && is_ours()).then_some((VARIABLE, folder))
}

fn is_set(env: &[(String, String)]) -> bool {
    env.iter().any(|(name, _)| name == VARIABLE) || std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}
