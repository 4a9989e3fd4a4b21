//! The PATH for the configuration: where pm2 and node are, which cron would not find. It must never start either.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::find_program;
use crate::process::{self, Process};

/// What every system has, after the folders that were found.
const USUAL: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// What a version manager makes anew for each shell, and takes away with it.
const FLEETING: &str = "fnm_multishells";

pub(super) struct Search {
    /// Folders, each once, with colons between them.
    pub(super) path: String,
    /// Of `pm2` and `node`.
    pub(super) missing: Vec<&'static str>,
}

/// Looks through our own PATH, that of a daemon of PM2's, the folder of its node, and where nvm puts them.
pub(super) fn search(own: Option<&OsStr>, daemon: Option<Process>, home: Option<&Path>) -> Search {
    let mut places: Vec<PathBuf> = own.iter().flat_map(std::env::split_paths).collect();
    if let Some(daemon) = daemon {
        let environment = process::environment(daemon.pid);
        let theirs: Option<OsString> = environment.as_ref().and_then(|all| Some(all.get("PATH")?.to_owned()));
        places.extend(theirs.iter().flat_map(std::env::split_paths));
        let program = fs::read_link(format!("/proc/{}/exe", daemon.pid)).ok();
        places.extend(program.as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    places.extend(home.map(nvm).unwrap_or_default());
    choose(&places)
}

/// The folders of nvm's versions of node, the newest first.
fn nvm(home: &Path) -> Vec<PathBuf> {
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

fn choose(places: &[PathBuf]) -> Search {
    let holds = |program: &str, folder: &Path| find_program(program, folder, Some(folder.as_os_str())).is_ok();
    let mut folders: Vec<String> = Vec::new();
    let mut missing = Vec::new();
    for program in ["pm2", "node"] {
        let found = places.iter().filter(|folder| folder.is_absolute()).find(|folder| holds(program, folder));
        match found.and_then(|folder| lasting(folder)) {
            Some(folder) => folders.push(folder),
            None => missing.push(program),
        }
    }
    folders.extend(USUAL.map(str::to_owned));
    let mut path: Vec<String> = Vec::new();
    for folder in folders {
        if !path.contains(&folder) {
            path.push(folder);
        }
    }
    Search { path: path.join(":"), missing }
}

/// The folder by a name that it will still have tomorrow; none where that is no text.
fn lasting(folder: &Path) -> Option<String> {
    let is_fleeting = folder.iter().any(|part| part == FLEETING);
    let real = is_fleeting.then(|| folder.canonicalize().ok()).flatten();
    let text = real.as_deref().unwrap_or(folder).to_str()?;
    Some(if text.len() > 1 { text.trim_end_matches('/') } else { text }.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pm2_and_node_are_found_where_they_are() {
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
            let found = search(Some(&own), None, home);
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
    fn folders_that_every_system_has_are_named_once() {
        let found = choose(&["/usr/bin".into()]);
        assert!(found.path.ends_with("/usr/local/bin:/usr/bin:/bin") || found.path.starts_with("/usr/bin:"));
        assert_eq!(found.path.split(':').filter(|place| *place == "/usr/bin").count(), 1);
    }
}
