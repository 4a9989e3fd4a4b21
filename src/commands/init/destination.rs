//! Chooses the path of the configuration and writes it. It must never overwrite a file without `--force`, never write
//! through a symbolic link, and never leave half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::commands::check::{WEB_ROOT_RISK, is_under_web_root};
use crate::commands::{read_env, shorten_home};
use crate::config;
use crate::outcome::describe_io_error;

#[derive(Debug)]
pub(super) enum WriteRefusal {
    /// It might do harm, and needs another path or `--force`.
    Unwanted(String),
    /// An I/O error.
    Impossible(String),
}

/// `explicit`, else `$WATCHDOG_CONFIG`, else `~/watchdog.yaml`; none if the home folder is unknown.
pub(super) fn choose_path(explicit: Option<&Path>) -> Option<PathBuf> {
    let from_env = || read_env("WATCHDOG_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let default = || config::home(&read_env).map(|home| home.join("watchdog.yaml"));
    explicit.map(Path::to_path_buf).or_else(from_env).or_else(default)
}

pub(super) fn check_path(path: &Path, force: bool) -> Result<(), WriteRefusal> {
    let shown = shorten_home(path);
    let absolute = std::path::absolute(path).map_err(|error| write_error(path, &error))?;
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => {
            return Err(WriteRefusal::Unwanted(format!(
                "{shown} is a symbolic link; name the file that it points to with -c"
            )));
        }
        Ok(found) if !found.is_file() => {
            return Err(WriteRefusal::Unwanted(format!("{shown} exists and is not a file")));
        }
        Ok(_) if !force => {
            let advice = "--force overwrites it, --stdout only prints what would be written";
            return Err(WriteRefusal::Unwanted(format!("{shown} already exists; {advice}")));
        }
        Ok(_) | Err(_) => {}
    }
    // The folder may be a symbolic link into a web root.
    let real = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    if !force && (is_under_web_root(&absolute) || real.is_some_and(|folder| is_under_web_root(&folder))) {
        return Err(WriteRefusal::Unwanted(format!("{shown} is under a web root: {WEB_ROOT_RISK}, or use --force")));
    }
    Ok(())
}

/// Writes a new file with mode 0600; with `force` it may replace another.
pub(super) fn write(path: &Path, text: &str, force: bool) -> Result<(), WriteRefusal> {
    check_path(path, force)?;
    let written = if force && path.symlink_metadata().is_ok() { replace(path, text) } else { create(path, text) };
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(WriteRefusal::Unwanted(format!("{} was created meanwhile", shorten_home(path))))
        }
        Err(error) => Err(write_error(path, &error)),
        Ok(()) => Ok(()),
    }
}

fn write_error(path: &Path, error: &io::Error) -> WriteRefusal {
    WriteRefusal::Impossible(format!("cannot write {}: {}", shorten_home(path), describe_io_error(error)))
}

/// Writes a new file. `create_new` follows no symbolic link.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    write_all(file, text).inspect_err(|_| {
        // Half a configuration is worse than none. If it cannot be removed, the next `init` reports that it exists.
        let _ = fs::remove_file(path);
    })
}

/// Replaces a file atomically: a reader sees the old file or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    create(&temporary, text)?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary); // the error of the rename is the one to report
    })
}

fn write_all(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[track_caller]
    fn check(path: &Path, force: bool, expected: Result<(), &str>) {
        let before = fs::read_to_string(path).ok();
        match (write(path, "new\n", force), expected) {
            (Ok(()), Ok(())) => {
                let found = path.symlink_metadata().expect("written");
                assert_eq!((found.mode() & 0o7777, found.is_file()), (0o600, true), "{}", path.display());
                assert_eq!(fs::read_to_string(path).expect("readable"), "new\n");
            }
            (Err(WriteRefusal::Unwanted(why) | WriteRefusal::Impossible(why)), Err(part)) => {
                assert!(why.contains(part), "{why}");
                assert_eq!(fs::read_to_string(path).ok(), before, "nothing is changed");
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
        let folder = path.parent().expect("a folder");
        let left = fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().ends_with(".new")
        });
        assert!(!left, "no temporary file is left");
    }

    #[test]
    fn a_file_is_overwritten_only_with_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        check(&at("new.yaml"), false, Ok(()));
        check(&at("new.yaml"), false, Err("already exists; --force"));
        fs::write(at("old.yaml"), "old").expect("written");
        check(&at("old.yaml"), false, Err("already exists"));
        check(&at("old.yaml"), true, Ok(()));
        check(&at("forced.yaml"), true, Ok(()));

        fs::write(at("real"), "old").expect("written");
        symlink(at("real"), at("link.yaml")).expect("linked");
        symlink(at("gone"), at("dangling.yaml")).expect("linked");
        for force in [false, true] {
            check(&at("link.yaml"), force, Err("is a symbolic link"));
            check(&at("dangling.yaml"), force, Err("is a symbolic link"));
            check(folder.path(), force, Err("is not a file"));
            check(&at("nowhere/w.yaml"), force, Err("no such file"));
        }
        assert!(!at("gone").exists());

        fs::create_dir_all(at("public_html")).expect("made");
        symlink(at("public_html"), at("web")).expect("linked");
        for folder in ["public_html", "web"] {
            check(&at(folder).join("w.yaml"), false, Err("is under a web root: a web server may show it"));
        }
        check(&at("public_html/w.yaml"), true, Ok(()));
    }
}
