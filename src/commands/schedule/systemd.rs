//! The enabled systemd unit that runs the watchdog, found in the folders of units. It must never ask systemd, which
//! may not run here, nor take a unit that is not enabled for one that is.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::foreign;
use crate::config::{self, account_name};

use super::is_same_file;
use super::shell::resolve;
use super::starter::{CRON_PATH, Place};

/// Bytes of a unit that are read.
const MAX_UNIT: u64 = 64 << 10;

/// Where the links of enabled units are.
pub(super) struct Folders {
    system: PathBuf,
    user: Vec<PathBuf>,
    /// The folder with one file for each account whose user units start at boot.
    linger: PathBuf,
    account: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::commands) struct Unit {
    pub(in crate::commands) name: String,
    /// A user unit of an account without linger, which does not start at boot.
    pub(in crate::commands) needs_login: bool,
}

impl Folders {
    pub(super) fn of_account(home: &Path) -> Folders {
        Folders {
            system: "/etc/systemd/system".into(),
            user: vec![home.join(".config/systemd/user"), "/etc/systemd/user".into()],
            linger: "/var/lib/systemd/linger".into(),
            account: account_name(),
        }
    }
}

/// The enabled unit that runs `own`, or another file of this program, with the configuration `config`.
pub(super) fn find_unit(folders: &Folders, own: &Path, home: &Path, config: &Path) -> Option<Unit> {
    let account = folders.account.as_deref();
    let place = Place { own, home, path_var: OsStr::new(CRON_PATH) };
    let is_ours = |path: &PathBuf, is_system: bool| runs_config(path, is_system, account, &place, config);
    if let Some(path) = enabled_units(&folders.system).into_iter().find(|path| is_ours(path, true)) {
        return Some(Unit { name: name_of(&path), needs_login: false });
    }
    let path = folders.user.iter().flat_map(|folder| enabled_units(folder)).find(|path| is_ours(path, false))?;
    let lingers = account.is_some_and(|account| folders.linger.join(account).exists());
    Some(Unit { name: name_of(&path), needs_login: !lingers })
}

/// The links in the folders `*.wants`; of a timer, the service of the same name.
fn enabled_units(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let has_extension = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    let wants = entries(folder).filter(|path| has_extension(path, "wants"));
    wants
        .flat_map(|wants| entries(&wants).collect::<Vec<_>>())
        .filter(|path| path.exists())
        .filter_map(|path| {
            if !has_extension(&path, "timer") {
                return has_extension(&path, "service").then_some(path);
            }
            let service = fs::canonicalize(&path).ok()?.with_extension("service");
            [service, folder.join(path.file_name()?).with_extension("service")].into_iter().find(|path| path.exists())
        })
        .collect()
}

fn runs_config(path: &Path, is_system: bool, account: Option<&str>, place: &Place<'_>, config: &Path) -> bool {
    let Some(text) = foreign::read(path, MAX_UNIT) else { return false };
    let name = name_of(path);
    let instance =
        name.rsplit_once('.').and_then(|(name, _)| name.split_once('@')).map_or("", |(_, instance)| instance);
    let home = place.home.display().to_string();
    let setting = |key: &str| {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
        values.map(|value| value.trim().replace("%h", &home).replace("%i", instance)).next_back()
    };
    let user = setting("User").unwrap_or_else(|| "root".into());
    if is_system && Some(&*user) != account {
        return false;
    }
    let folder = setting("WorkingDirectory").map_or("/".into(), |folder| resolve(&folder, Path::new("/"), place.home));
    let Some(found) = setting("ExecStart").and_then(|command| place.find_call(&command, &folder)) else {
        return false;
    };
    let used = match found.call.config {
        Some(named) => Some(resolve(&named, &folder, place.home)),
        None => config::search(&folder, Some(place.home.to_owned())).ok(),
    };
    found.program.is_ok() && used.is_some_and(|used| is_same_file(&used, config))
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_enabled_unit_of_this_account_and_configuration_is_found() {
        let temp = tempfile::tempdir().expect("a folder");
        let home = temp.path().canonicalize().expect("it exists");
        let own = std::env::current_exe().expect("a test has a file");
        let at = |name: &str| home.join(name);
        for folder in
            ["system/multi-user.target.wants", "system/timers.target.wants", "user/default.target.wants", "linger"]
        {
            fs::create_dir_all(at(folder)).expect("made");
        }
        fs::write(at("watchdog.yaml"), "").expect("written");
        fs::write(at("other.yaml"), "").expect("written");
        let folders = |account: &str| Folders {
            system: at("system"),
            user: vec![at("user")],
            linger: at("linger"),
            account: Some(account.to_owned()),
        };
        let find = |account: &str, config: &str| {
            let unit = find_unit(&folders(account), &own, &home, &at(config));
            unit.map(|unit| format!("{}{}", unit.name, if unit.needs_login { ", login" } else { "" }))
        };
        let exec = format!("ExecStart={} run", own.display());
        fs::write(at("system/w@.service"), format!("[Service]\nUser=%i\nWorkingDirectory=~\n{exec}\n"))
            .expect("written");
        assert_eq!(find("me", "watchdog.yaml"), None, "it is not enabled");
        symlink(at("system/w@.service"), at("system/multi-user.target.wants/w@me.service")).expect("linked");
        assert_eq!(find("me", "watchdog.yaml").as_deref(), Some("w@me.service"));
        assert_eq!(find("me", "other.yaml"), None);
        assert_eq!(find("you", "watchdog.yaml"), None);

        fs::write(at("system/tick.timer"), "").expect("written");
        fs::write(
            at("system/tick.service"),
            format!("User=you\n{} --once -c other.yaml\nWorkingDirectory=%h\n", exec.trim_end_matches(" run")),
        )
        .expect("written");
        symlink(at("system/tick.timer"), at("system/timers.target.wants/tick.timer")).expect("linked");
        assert_eq!(find("you", "other.yaml").as_deref(), Some("tick.service"));

        fs::write(at("user/own.service"), format!("{exec} -c %h/other.yaml\n")).expect("written");
        symlink(at("user/own.service"), at("user/default.target.wants/own.service")).expect("linked");
        assert_eq!(find("me", "other.yaml").as_deref(), Some("own.service, login"));
        fs::write(at("linger/me"), "").expect("written");
        assert_eq!(find("me", "other.yaml").as_deref(), Some("own.service"));
    }
}
