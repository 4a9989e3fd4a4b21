//! The PATH for the configuration: the folders of pm2 and node, which cron would not find. It must never start either.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::find_program;
use crate::process::{self, Process};

/// Appended to the folders that were found.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// The version manager fnm creates a folder in this one for each shell, and removes it with the shell.
const TEMPORARY_FOLDER: &str = "fnm_multishells";

pub(super) struct SearchPath {
    /// The value of PATH.
    pub(super) path: String,
    /// Those of `pm2` and `node` that were not found.
    pub(super) missing: Vec<&'static str>,
}

/// Searches `own` (the PATH of this process), the PATH of the PM2 daemon, the folder of its node, and nvm's folders.
pub(super) fn find_search_path(own: Option<&OsStr>, daemon: Option<Process>, home: Option<&Path>) -> SearchPath {
    let mut candidates: Vec<PathBuf> = own.iter().flat_map(std::env::split_paths).collect();
    if let Some(daemon) = daemon {
        let environment = process::environment(daemon.pid);
        let path: Option<OsString> = environment.as_ref().and_then(|all| Some(all.get("PATH")?.to_owned()));
        candidates.extend(path.iter().flat_map(std::env::split_paths));
        let program = fs::read_link(format!("/proc/{}/exe", daemon.pid)).ok();
        candidates.extend(program.as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    candidates.extend(home.map(nvm_folders).unwrap_or_default());
    choose(&candidates)
}

/// The folders of the node versions that nvm has installed, the newest first.
fn nvm_folders(home: &Path) -> Vec<PathBuf> {
    let versions = fs::read_dir(home.join(".nvm/versions/node")).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = versions
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let numbers = name.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0)).collect();
            (numbers, entry.path().join("bin"))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, bin)| bin).collect()
}

fn choose(candidates: &[PathBuf]) -> SearchPath {
    let contains = |program: &str, folder: &Path| find_program(program, folder, Some(folder.as_os_str())).is_ok();
    let mut folders: Vec<String> = Vec::new();
    let mut missing = Vec::new();
    for program in ["pm2", "node"] {
        let found = candidates.iter().filter(|folder| folder.is_absolute()).find(|folder| contains(program, folder));
        match found.and_then(|folder| permanent_path(folder)) {
            Some(folder) => folders.push(folder),
            None => missing.push(program),
        }
    }
    folders.extend(SYSTEM_FOLDERS.map(str::to_owned));
    let mut path: Vec<String> = Vec::new();
    for folder in folders {
        if !path.contains(&folder) {
            path.push(folder);
        }
    }
    SearchPath { path: path.join(":"), missing }
}

/// The folder by a path that outlives the shell; none if that is not UTF-8.
fn permanent_path(folder: &Path) -> Option<String> {
    let is_temporary = folder.iter().any(|part| part == TEMPORARY_FOLDER);
    let real = is_temporary.then(|| folder.canonicalize().ok()).flatten();
    let text = real.as_deref().unwrap_or(folder).to_str()?;
    Some(if text.len() > 1 { text.trim_end_matches('/') } else { text }.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pm2_and_node_are_found_in_the_path_and_in_nvm() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let have = |place: &str, programs: &[&str]| {
            fs::create_dir_all(at(place)).expect("made");
            programs.iter().for_each(|program| symlink("/bin/sh", at(place).join(program)).expect("linked"));
        };
        have("both", &["pm2", "node"]);
        have("pm2", &["pm2"]);
        have("node", &["node"]);
        have("none", &[]);
        have(".nvm/versions/node/v9.11.2/bin", &["pm2", "node"]);
        have(".nvm/versions/node/v20.3.0/bin", &["pm2", "node"]);
        have(".nvm/versions/node/v22.1.0/bin", &["node"]);
        have("fnm_multishells", &[]);
        symlink(at("both"), at("fnm_multishells/17_42")).expect("linked");

        let check = |own: &[&str], home: Option<&Path>, expected: &[&str], missing: &[&str]| {
            let own = std::env::join_paths(own.iter().map(|place| at(place))).expect("a path");
            let found = find_search_path(Some(&own), None, home);
            let expected: Vec<String> = expected.iter().map(|place| at(place).display().to_string()).collect();
            let usual = "/usr/local/bin:/usr/bin:/bin".to_owned();
            assert_eq!(found.path, [expected, vec![usual]].concat().join(":"));
            assert_eq!(found.missing, missing);
        };
        check(&["both"], None, &["both"], &[]);
        check(&["none", "both/"], None, &["both"], &[]);
        check(&["node", "pm2", "both"], None, &["pm2", "node"], &[]);
        check(&["none"], None, &[], &["pm2", "node"]);
        check(&["pm2"], None, &["pm2"], &["node"]);
        check(&["fnm_multishells/17_42"], None, &["both"], &[]);
        let newest = [".nvm/versions/node/v20.3.0/bin", ".nvm/versions/node/v22.1.0/bin"];
        check(&["none"], Some(folder.path()), &newest, &[]);
        check(&["both"], Some(folder.path()), &["both"], &[]);
    }

    #[test]
    fn system_folders_are_listed_once() {
        let found = choose(&["/usr/bin".into()]);
        assert!(found.path.ends_with("/usr/local/bin:/usr/bin:/bin") || found.path.starts_with("/usr/bin:"));
        assert_eq!(found.path.split(':').filter(|place| *place == "/usr/bin").count(), 1);
    }
}
