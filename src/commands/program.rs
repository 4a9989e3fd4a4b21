//! The path of this program for a crontab: one that stays valid when the Node that npm installed it under is removed.
//! It must never copy or link anything itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::shell_quote;
use crate::config;
use crate::terminal::escaped;

use super::{read_env, shorten_home};

/// The folders below the home folder where a copy of the program may be.
const STABLE_FOLDERS: [&str; 2] = ["bin", ".local/bin"];
const NAME: &str = "watchdog";

/// This program, or a copy of it if this one belongs to one version of Node.
pub(super) fn path_for_crontab() -> PathBuf {
    let Ok(own) = std::env::current_exe() else { return NAME.into() };
    match node_version(&own) {
        Some(_) => find_copy(&own).unwrap_or(own),
        None => own,
    }
}

/// What to know before this program is put into a crontab, and how to change it; none if its path is stable.
pub(super) fn describe_unstable_path() -> Option<String> {
    let own = std::env::current_exe().ok()?;
    let version = node_version(&own)?;
    if find_copy(&own).is_some() {
        return None;
    }
    let program = shell_quote(&own.display().to_string());
    Some(format!(
        "{} belongs to Node {}: a crontab line with this path fails once that version is removed.\n\
         For one that does not, copy the program (again after each upgrade), then run check:\n  \
         mkdir -p ~/bin && cp {} ~/bin/{NAME}.new && mv ~/bin/{NAME}.new ~/bin/{NAME}",
        shorten_home(&own),
        escaped(version),
        escaped(&program),
    ))
}

fn find_copy(own: &Path) -> Option<PathBuf> {
    let home = config::home(&read_env)?;
    let mut copies = STABLE_FOLDERS.iter().map(|folder| home.join(folder).join(NAME));
    copies.find(|copy| is_stable_copy(copy, own))
}

/// A link to the original would break with it.
fn is_stable_copy(copy: &Path, own: &Path) -> bool {
    let Ok(real) = copy.canonicalize() else { return false };
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
    node_version(&real).is_none()
        && size(&real) == size(own)
        && fs::read(&real).ok().is_some_and(|bytes| fs::read(own).is_ok_and(|own| own == bytes))
}

/// The version of Node whose packages `program` is one of: version managers (nvm, fnm, asdf, nodenv, mise) have a
/// folder for each version, with `node_modules` in it.
fn node_version(program: &Path) -> Option<&str> {
    let parts: Vec<&str> = program.iter().filter_map(|part| part.to_str()).collect();
    let packages = parts.iter().position(|part| *part == "node_modules")?;
    parts[..packages].iter().rev().copied().find(|part| is_version(part))
}

fn is_version(name: &str) -> bool {
    let numbers = name.strip_prefix('v').unwrap_or(name);
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    numbers.contains('.') && numbers.split('.').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_one_version_of_node_are_recognized() {
        #[track_caller]
        fn check(program: &str, expected: Option<&str>) {
            assert_eq!(node_version(Path::new(program)), expected);
        }
        let program = "lib/node_modules/watchdog-agent/bin/watchdog";
        check(&format!("/home/u/.nvm/versions/node/v20.20.2/{program}"), Some("v20.20.2"));
        check(&format!("/home/u/.local/share/fnm/node-versions/v22.1.0/installation/{program}"), Some("v22.1.0"));
        check(&format!("/home/u/.asdf/installs/nodejs/20.3.1/{program}"), Some("20.3.1"));
        check(&format!("/home/u/.npm-global/{program}"), None);
        check(&format!("/usr/{program}"), None);
        check(&format!("/srv/2026/{program}"), None);
        check("/home/u/bin/watchdog", None);
        check("/opt/watchdog-agent/v1.2.3/watchdog", None);
        check("/srv/app/node_modules/x/v1.2.3/watchdog", None);
    }
}
