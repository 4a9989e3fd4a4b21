//! The folder through which a command reaches the systemd of its account. cron and system services do not set its
//! variable, and without it `systemctl --user` fails with "No medium found". It must never name a folder of others.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The variable with the path of the folder.
pub const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// Where systemd makes the folder of this account.
pub fn default_runtime_dir() -> PathBuf {
    PathBuf::from(format!("/run/user/{}", geteuid().as_raw()))
}

/// Whether a command that gets `env` on top of our own environment has such a folder.
pub fn has_runtime_dir(env: &[(String, String)]) -> bool {
    is_set(env) || is_ours(&default_runtime_dir())
}

/// The variable with its value, where neither `env` nor our own environment sets it, the command may get it, and the
/// folder is there and ours.
pub(super) fn missing_variable(env: &[(String, String)], unset: &[OsString]) -> Option<(&'static str, PathBuf)> {
    find_missing(default_runtime_dir(), env, unset)
}

fn find_missing(folder: PathBuf, env: &[(String, String)], unset: &[OsString]) -> Option<(&'static str, PathBuf)> {
    let is_unwanted = unset.iter().any(|name| name == RUNTIME_DIR);
    (!is_unwanted && !is_set(env) && is_ours(&folder)).then_some((RUNTIME_DIR, folder))
}

fn is_ours(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
}

fn is_set(env: &[(String, String)]) -> bool {
    env.iter().any(|(name, _)| name == RUNTIME_DIR) || is_inherited()
}

fn is_inherited() -> bool {
    std::env::var_os(RUNTIME_DIR).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_the_variable_unless_it_must_not_or_has_it() {
        let folder = tempfile::tempdir().expect("folder access");
        let find = |env: &[(&str, &str)], unset: &[&str]| {
            let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let unset: Vec<OsString> = unset.iter().map(OsString::from).collect();
            find_missing(folder.path().to_owned(), &env, &unset).is_some()
        };
        assert_eq!(find(&[("PATH", "/bin")], &["PM2_HOME"]), !is_inherited());
        assert!(!find(&[], &[RUNTIME_DIR]) && !find(&[(RUNTIME_DIR, "/x")], &[]));
        assert_eq!(find_missing(folder.path().join("missing"), &[], &[]), None);
    }
}
