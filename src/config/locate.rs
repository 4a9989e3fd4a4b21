//! Finds the configuration and the state folder when the command line does not name them, and makes paths absolute.
//! It must never open a file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::Errors;

/// The configuration to use: `explicit` (`-c`), else `$WATCHDOG_CONFIG`, else the first that exists of
/// `./watchdog.yaml`, `~/watchdog.yaml` and `~/.config/watchdog/watchdog.yaml`.
/// Errors: none of the three exists; the error names them. Whether a file named by the operator exists is not checked
/// here, but when it is loaded.
pub fn find(explicit: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, Errors> {
    match explicit_path(explicit, environment) {
        Some(path) => Ok(path),
        None => search(Path::new(""), home(environment)),
    }
}

/// The configuration that the operator named, whether it exists or not. An empty variable counts as not set.
pub fn explicit_path(explicit: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let variable = || environment("WATCHDOG_CONFIG").filter(|path| !path.is_empty());
    explicit.map(Path::to_path_buf).or_else(|| variable().map(PathBuf::from))
}

/// The first configuration in the default places. `here` is empty for the current folder.
/// Errors: there is none; the error names the places.
pub fn search(here: &Path, home: Option<PathBuf>) -> Result<PathBuf, Errors> {
    let mut candidates = vec![here.join("watchdog.yaml")];
    if let Some(home) = home {
        candidates.extend(["watchdog.yaml", ".config/watchdog/watchdog.yaml"].map(|path| home.join(path)));
    }
    // One that exists but cannot be read must lead to an error, not be skipped.
    if let Some(found) = candidates.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Ok(found.clone());
    }
    let mut places = vec!["./watchdog.yaml".to_owned()];
    places.extend(candidates.iter().skip(1).map(|path| path.display().to_string()));
    let places = places.join(", ");
    let advice = "name one with -c or $WATCHDOG_CONFIG, or write one: watchdog init";
    Err(Errors::one(format!("no configuration: none of {places} exists; {advice}")))
}

/// Makes a path absolute. A relative one is taken from the shell's name of the current folder (`$PWD`), so that a link
/// such as `~/app/current` stays in the path, rather than the release that it points to today.
/// Errors: there is no current folder.
pub fn absolute(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> io::Result<PathBuf> {
    let inode = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    let here = environment("PWD").map(PathBuf::from).filter(|here| here.is_absolute());
    match here {
        Some(here) if path.is_relative() && inode(&here).ok() == inode(Path::new(".")).ok() => {
            std::path::absolute(here.join(path))
        }
        _ => std::path::absolute(path),
    }
}

/// `~/.local/state/watchdog`. `$XDG_STATE_HOME` is ignored: cron does not have it, and cron and shell must agree.
/// Errors: neither `$HOME` nor the user database names an absolute home.
pub fn default_state_dir(environment: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, Errors> {
    let home = home(environment)
        .ok_or_else(|| Errors::one("no state folder: $HOME is not set, so ~/.local/state/watchdog is unknown"))?;
    Ok(state_dir_in(&home))
}

pub(super) fn state_dir_in(home: &Path) -> PathBuf {
    home.join(".local/state/watchdog")
}

/// The user's home: `$HOME`, else that of the user database.
pub fn home(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = environment("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    home.or_else(|| std::env::home_dir().filter(|home| home.is_absolute()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_named_configuration_wins_even_if_it_does_not_exist() {
        let environment = |name: &str| (name == "WATCHDOG_CONFIG").then(|| "/gone/too.yaml".to_owned());
        let explicit = find(Some(Path::new("/gone.yaml")), &environment).expect("as named");
        assert_eq!(explicit, Path::new("/gone.yaml"));
        assert_eq!(find(None, &environment).expect("as named"), Path::new("/gone/too.yaml"));
    }

    #[test]
    fn the_default_places_are_searched_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let (here, home) = (folder.path().join("here"), folder.path().join("home"));
        fs::create_dir_all(&here).expect("made");
        fs::create_dir_all(home.join(".config/watchdog")).expect("made");
        let error = search(&here, Some(home.clone())).expect_err("nothing there").to_string();
        let last = home.join(".config/watchdog/watchdog.yaml");
        assert!(error.contains("./watchdog.yaml, ") && error.contains(&*last.to_string_lossy()), "{error}");
        for expected in [last, home.join("watchdog.yaml"), here.join("watchdog.yaml")] {
            fs::write(&expected, "").expect("written");
            assert_eq!(search(&here, Some(home.clone())).expect("found"), expected);
        }
    }

    #[test]
    fn a_relative_path_starts_in_the_folder_that_the_shell_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, elsewhere) = (folder.path().join("current"), folder.path().join("elsewhere"));
        let here = std::env::current_dir().expect("a working folder");
        std::os::unix::fs::symlink(&here, &link).expect("a link");
        fs::create_dir(&elsewhere).expect("made");
        let check = |pwd: &Path, path: &str, expected: PathBuf| {
            let pwd = pwd.display().to_string();
            let environment = |name: &str| (name == "PWD").then(|| pwd.clone());
            assert_eq!(absolute(Path::new(path), &environment).expect("a path"), expected);
        };
        check(&link, "watchdog.yaml", link.join("watchdog.yaml"));
        check(&link, "./sub/../w.yaml", link.join("sub/../w.yaml"));
        check(&link, "/etc/w.yaml", "/etc/w.yaml".into());
        check(&elsewhere, "w.yaml", here.join("w.yaml"));
        check(&folder.path().join("gone"), "w.yaml", here.join("w.yaml"));
        check(Path::new("."), "w.yaml", here.join("w.yaml"));
    }

    #[test]
    fn the_state_folder_is_in_the_home_whatever_xdg_says() {
        let environment = |name: &str| match name {
            "HOME" => Some("/home/user".to_owned()),
            name => name.starts_with("XDG").then(|| "/elsewhere".to_owned()),
        };
        let folder = default_state_dir(&environment).expect("a home");
        assert_eq!(folder, Path::new("/home/user/.local/state/watchdog"));
    }
}
