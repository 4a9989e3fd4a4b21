//! Where the file goes, and writing it there. It must never write over a file unless that is asked for, never through a
//! symbolic link, and never leave half a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::commands::check::{VISIBLE, is_under_web_root};
use crate::commands::{environment, tilde};
use crate::config;
use crate::outcome::describe_io_error;

#[derive(Debug)]
pub(super) enum WriteRefusal {
    /// The operator would not want it.
    Unwanted(String),
    /// The machine does not let us.
    Impossible(String),
}

/// The file that is meant: `explicit`, else `$WATCHDOG_CONFIG`, else `~/watchdog.yaml`; none where there is no home.
pub(super) fn chosen(explicit: Option<&Path>) -> Option<PathBuf> {
    let named = || environment("WATCHDOG_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || config::home(&environment).map(|home| home.join("watchdog.yaml"));
    explicit.map(Path::to_path_buf).or_else(named).or_else(usual)
}

pub(super) fn look(path: &Path, force: bool) -> Result<(), WriteRefusal> {
    let shown = tilde(path);
    let absolute = std::path::absolute(path).map_err(|error| impossible(path, &error))?;
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => {
            return Err(WriteRefusal::Unwanted(format!(
                "{shown} is a symbolic link; name the file that it leads to with -c"
            )));
        }
        Ok(found) if !found.is_file() => {
            return Err(WriteRefusal::Unwanted(format!("{shown} is there and is no file")));
        }
        Ok(_) if !force => {
            let advice = "--force writes over it, --stdout only shows what would be written";
            return Err(WriteRefusal::Unwanted(format!("{shown} is there already; {advice}")));
        }
        Ok(_) | Err(_) => {}
    }
    // A folder that leads there by a link is where the file will lie, too.
    let real = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    if !force && (is_under_web_root(&absolute) || real.is_some_and(|folder| is_under_web_root(&folder))) {
        return Err(WriteRefusal::Unwanted(format!("{shown} lies under a web root: {VISIBLE}, or say --force")));
    }
    Ok(())
}

/// Writes the file with mode 0600: a new one, with `force` also in the place of another.
pub(super) fn write(path: &Path, text: &str, force: bool) -> Result<(), WriteRefusal> {
    look(path, force)?;
    let written = if force && path.symlink_metadata().is_ok() { replace(path, text) } else { create(path, text) };
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(WriteRefusal::Unwanted(format!("{} has come about meanwhile", tilde(path))))
        }
        Err(error) => Err(impossible(path, &error)),
        Ok(()) => Ok(()),
    }
}

fn impossible(path: &Path, error: &io::Error) -> WriteRefusal {
    WriteRefusal::Impossible(format!("cannot write {}: {}", tilde(path), describe_io_error(error)))
}

/// Writes a file that was not there. `create_new` follows no link.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    fill(file, text).inspect_err(|_| {
        // Half a configuration is worse than none. That it cannot be removed either is told by its being there.
        let _ = fs::remove_file(path);
    })
}

/// Puts a new file in the place of another: whoever reads it meanwhile sees the one or the other.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    create(&beside, text)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside); // as above
    })
}

fn fill(mut file: File, text: &str) -> io::Result<()> {
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
        assert!(!left, "nothing is left beside it");
    }

    #[test]
    fn a_file_is_written_once_and_over_another_only_by_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        check(&at("new.yaml"), false, Ok(()));
        check(&at("new.yaml"), false, Err("is there already; --force"));
        fs::write(at("old.yaml"), "old").expect("written");
        check(&at("old.yaml"), false, Err("is there already"));
        check(&at("old.yaml"), true, Ok(()));
        check(&at("forced.yaml"), true, Ok(()));

        fs::write(at("real"), "old").expect("written");
        symlink(at("real"), at("link.yaml")).expect("linked");
        symlink(at("gone"), at("dangling.yaml")).expect("linked");
        for force in [false, true] {
            check(&at("link.yaml"), force, Err("is a symbolic link"));
            check(&at("dangling.yaml"), force, Err("is a symbolic link"));
            check(folder.path(), force, Err("is no file"));
            check(&at("nowhere/w.yaml"), force, Err("no such file"));
        }
        assert!(!at("gone").exists());

        fs::create_dir_all(at("public_html")).expect("made");
        symlink(at("public_html"), at("web")).expect("linked");
        for folder in ["public_html", "web"] {
            check(&at(folder).join("w.yaml"), false, Err("lies under a web root: a web server may show it"));
        }
        check(&at("public_html/w.yaml"), true, Ok(()));
    }
}
