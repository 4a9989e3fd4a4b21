//! Which watchdog holds a state folder: one with the given configuration, one with another configuration, or one that
//! is not visible from here. No command may start, stop or signal one watchdog in the belief that it is another.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::config::{self, Config};
use crate::policy::Mode;
use crate::store::lock::{HeldBy, HiddenHolder, Holder, read_lock};
use crate::store::state::peek;
use crate::store::stopped::{self, StopMark};
use crate::store::{Error, Folder};
use crate::terminal::escaped;

use super::{Code, Location, locate, print_error, read_boot_clock};

/// Why a command does nothing: the text, without the consequence, and the exit code.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) code: Code,
}

impl Refusal {
    /// Escapes the text, because it quotes the lock file, which others may have written.
    fn by_holder(text: &str) -> Refusal {
        Refusal { text: escaped(text).into_owned(), code: Code::Held }
    }

    pub(super) fn print(&self, consequence: &str) -> Code {
        print_error(&format!("{} ({consequence})", self.text), self.code)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfigMatch {
    /// One file, possibly under different paths.
    Same,
    Other,
    /// The holder's file exists no longer: it was moved, or its release was removed.
    Missing,
}

/// The watchdog that a command line means.
pub(super) struct Instance {
    pub(super) folder: Folder,
    /// None if it is not valid.
    pub(super) config: Option<Config>,
    /// Valid or not; none if none is given or found.
    pub(super) path: Option<PathBuf>,
    /// None if no watchdog is running.
    pub(super) holder: Option<Holder>,
}

/// Finds the watchdog that a command acts on. It refuses one with another configuration than the given one. Without any
/// configuration it takes the watchdog in the default state folder.
pub(super) fn find_instance(options: &Options, consequence: &str) -> Result<Instance, Code> {
    let location = locate(options)?;
    location.print_errors();
    instance_at(location, consequence)
}

fn instance_at(location: Location, consequence: &str) -> Result<Instance, Code> {
    let Location { folder, config, path, .. } = location;
    let print_refusal = |refusal: Refusal| refusal.print(consequence);
    let holder = visible_holder(&folder).map_err(print_refusal)?;
    let Some(own_config) = &path else { return Ok(Instance { folder, config, path, holder }) };
    let other = match &holder {
        Some(holder) if compare_configs(&holder.config, Some(holder.pid), own_config) == ConfigMatch::Other => {
            Some(format!("{} holds {}", describe_holder(holder), folder.path().display()))
        }
        Some(_) => None,
        None => describe_recent_other(&folder, own_config),
    };
    match other {
        None => Ok(Instance { folder, config, path, holder }),
        Some(other) => {
            let text = format!("{other}, and none with {}: name its configuration with -c", own_config.display());
            Err(print_refusal(Refusal::by_holder(&text)))
        }
    }
}

/// The same for a command that writes into the folder. It refuses the configuration of another account: what root
/// writes there, the watchdog of that account could not remove, and a folder made by root it could not use.
pub(super) fn find_writable_instance(options: &Options, consequence: &str) -> Result<Instance, Code> {
    let location = locate(options)?;
    location.print_errors();
    writable_instance_at(location, consequence)
}

/// The same for a command that has found the state folder, and reports the errors of the configuration itself.
pub(super) fn writable_instance_at(location: Location, consequence: &str) -> Result<Instance, Code> {
    let instance = instance_at(location, consequence)?;
    match instance.path.as_deref().and_then(|path| Some((path, config::other_owner(path)?))) {
        None => Ok(instance),
        Some((path, owner)) => {
            let text = format!("{} belongs to uid {owner}: run this command as that account", path.display());
            Err(print_error(&format!("{} ({consequence})", escaped(&text)), Code::Machine))
        }
    }
}

/// The watchdog that already runs in the folder, for a command that would start one with `own_config`. A watchdog with
/// another configuration is a refusal, because it does not watch the targets of `own_config`.
pub(super) fn holder_for_start(folder: &Folder, own_config: &Path) -> Result<Option<Holder>, Refusal> {
    match visible_holder(folder)? {
        Some(holder) => match refuse_other_config(folder, &holder, own_config) {
            Some(refusal) => Err(refusal),
            None => Ok(Some(holder)),
        },
        None => Ok(None),
    }
}

/// Why a watchdog with `own_config` cannot start while this one runs; none if the configurations are the same. The pid
/// of a tick is left out: it changes every minute, and cron would mail each text that differs.
pub(super) fn refuse_other_config(folder: &Folder, holder: &Holder, own_config: &Path) -> Option<Refusal> {
    let need = describe_need(own_config);
    let text = match (compare_configs(&holder.config, Some(holder.pid), own_config), holder.mode) {
        (ConfigMatch::Same, _) => return None,
        (ConfigMatch::Missing, Mode::Daemon) => {
            let holder = describe_holder(holder);
            format!("{holder}, a file that exists no longer, holds {}: stop it first", folder.path().display())
        }
        (ConfigMatch::Missing | ConfigMatch::Other, Mode::Once) => {
            format!("{}: {need}", describe_ticks(folder, &holder.config))
        }
        (ConfigMatch::Other, Mode::Daemon) => {
            format!("{} holds {}: {need}", describe_holder(holder), folder.path().display())
        }
    };
    Some(Refusal::by_holder(&text))
}

/// Why neither a tick nor cron may start with `own_config`, although the lock is free: a watchdog with another
/// configuration ran there recently, as between two of its ticks. Each would overwrite what the other has counted.
pub(super) fn refuse_recent_other(folder: &Folder, own_config: &Path) -> Option<Refusal> {
    let other = describe_recent_other(folder, own_config)?;
    Some(Refusal::by_holder(&format!("{other}: {}", describe_need(own_config))))
}

/// A recent watchdog with another configuration. A configuration that exists no longer does not count: it was moved.
fn describe_recent_other(folder: &Folder, own_config: &Path) -> Option<String> {
    let now = read_boot_clock();
    // A caller that needs the state reports that it cannot be read.
    let saved = peek(folder, &now).ok().flatten().filter(|saved| saved.ran_recently(now.at.now))?;
    let other_config = saved
        .config
        .as_deref()
        .filter(|other_config| compare_configs(other_config, None, own_config) == ConfigMatch::Other)?;
    Some(match saved.mode {
        Some(Mode::Once) => describe_ticks(folder, other_config),
        Some(Mode::Daemon) | None => {
            let folder = folder.path().display();
            format!("a watchdog with configuration {} ran in {folder} until just now", other_config.display())
        }
    })
}

/// Whether the operator has stopped the watchdog with `own_config` and nobody has started it since.
pub(super) fn is_stopped(folder: &Folder, own_config: &Path) -> bool {
    match stopped::read(folder) {
        None => false,
        Some(StopMark::All) => true,
        Some(StopMark::Configs(configs)) => {
            configs.iter().any(|config| compare_configs(config, None, own_config) != ConfigMatch::Other)
        }
    }
}

/// Records that the operator has stopped the watchdog with `own_config`, or, without a configuration, every watchdog of
/// this folder.
pub(super) fn mark_stopped(folder: &Folder, own_config: Option<&Path>) -> Result<(), Error> {
    let stopped = match (stopped::read(folder), own_config) {
        (Some(StopMark::All), _) | (_, None) => StopMark::All,
        (None, Some(own_config)) => StopMark::Configs(vec![own_config.to_path_buf()]),
        (Some(StopMark::Configs(configs)), Some(own_config)) => {
            StopMark::Configs(without(configs, own_config).chain([own_config.to_path_buf()]).collect())
        }
    };
    stopped::write(folder, &stopped)
}

/// Records that the watchdog with `own_config` is started. Others that the operator has stopped stay stopped.
pub(super) fn clear_stopped(folder: &Folder, own_config: &Path) -> Result<(), Error> {
    let rest = match stopped::read(folder) {
        None => return Ok(()),
        Some(StopMark::All) => Vec::new(),
        Some(StopMark::Configs(configs)) => without(configs, own_config).collect(),
    };
    stopped::remove(folder, rest)
}

fn without(configs: Vec<PathBuf>, own_config: &Path) -> impl Iterator<Item = PathBuf> {
    configs.into_iter().filter(move |config| compare_configs(config, None, own_config) == ConfigMatch::Other)
}

/// One text for ticks that hold the lock and ticks that held it recently, so that cron mails it only once.
fn describe_ticks(folder: &Folder, config: &Path) -> String {
    format!("ticks with configuration {} use {}", config.display(), folder.path().display())
}

fn describe_need(own_config: &Path) -> String {
    format!("{} needs a state_dir of its own", own_config.display())
}

pub(super) fn refuse_held(folder: &Folder, held: &HeldBy) -> Refusal {
    Refusal::by_holder(&match held {
        HeldBy::Visible(holder) => format!("{} holds {}", describe_holder(holder), folder.path().display()),
        HeldBy::Hidden(unseen) => describe_unseen(folder, unseen),
    })
}

fn visible_holder(folder: &Folder) -> Result<Option<Holder>, Refusal> {
    match read_lock(folder) {
        Ok(Some(HeldBy::Visible(holder))) => Ok(Some(holder)),
        Ok(Some(HeldBy::Hidden(unseen))) => Err(Refusal::by_holder(&describe_unseen(folder, &unseen))),
        Ok(None) => Ok(None),
        Err(error) => Err(Refusal { text: error.to_string(), code: Code::Machine }),
    }
}

fn describe_holder(holder: &Holder) -> String {
    format!("a watchdog with pid {} and configuration {}", holder.pid, holder.config.display())
}

fn describe_unseen(folder: &Folder, unseen: &HiddenHolder) -> String {
    let note = match &unseen.note {
        Some(note) if note.mode == Mode::Daemon => format!(", as pid {} with configuration {}", note.pid, note.config),
        Some(note) => format!(", as a tick with configuration {}", note.config),
        None => String::new(),
    };
    let folder = folder.path().display();
    format!("a watchdog that I cannot see holds {folder} (it may run in another container{note})")
}

/// `pid` is that of the holder of `other_config`, which may see other files under that path, as in a container.
fn compare_configs(other_config: &Path, pid: Option<u32>, own_config: &Path) -> ConfigMatch {
    if other_config == own_config {
        return ConfigMatch::Same;
    }
    let is_ours = |file: &fs::Metadata| {
        fs::metadata(own_config)
            .is_ok_and(|own_config| (own_config.dev(), own_config.ino()) == (file.dev(), file.ino()))
    };
    let view =
        pid.and_then(|pid| Some(PathBuf::from(format!("/proc/{pid}/root")).join(other_config.strip_prefix("/").ok()?)));
    let found: Vec<_> = view.iter().map(PathBuf::as_path).chain([other_config]).map(fs::metadata).collect();
    let is_missing = |found: &std::io::Result<fs::Metadata>| {
        found.as_ref().is_err_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
    };
    match found {
        found if found.iter().flatten().any(is_ours) => ConfigMatch::Same,
        found if found.iter().all(is_missing) => ConfigMatch::Missing,
        _ => ConfigMatch::Other,
    }
}
