//! Whose watchdog is at work in a state folder: one with the configuration that is meant, another one, or one that
//! cannot be seen from here. No verb may start, stop or command one in the belief that it is another.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::config::{self, Config};
use crate::policy::Mode;
use crate::store::lock::{HeldBy, Holder, Unseen, read_lock};
use crate::store::state::peek;
use crate::store::stopped::{self, Stopped};
use crate::store::{Error, Folder};
use crate::terminal::escaped;

use super::{Code, complain, now, state_folder_and_path};

/// Why a verb may not go on: what there is to say, without its consequence, and the exit code.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) code: Code,
}

impl Refusal {
    /// What the lock file and paths have in them has no power over a terminal.
    fn held(text: String) -> Refusal {
        Refusal { text: escaped(&text).into_owned(), code: Code::Held }
    }

    pub(super) fn tell(&self, consequence: &str) -> Code {
        complain(&format!("{} ({consequence})", self.text), self.code)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// One file, whatever ways lead to it.
    Same,
    Other,
    /// Its file is not there any more: it was moved, or its release removed.
    Gone,
}

pub(super) struct Commanded {
    pub(super) folder: Folder,
    /// The configuration where it is valid.
    pub(super) config: Option<Config>,
    /// Where it is, valid or not; none where none is named or found.
    pub(super) path: Option<PathBuf>,
    pub(super) holder: Option<Holder>,
}

/// Whom a verb is to command. A watchdog with another configuration is another one's, unless none is named or found,
/// and the default folder is meant.
pub(super) fn to_command(options: &Options, consequence: &str) -> Result<Commanded, Code> {
    let (folder, config, path) = state_folder_and_path(options)?;
    let refused = |refusal: Refusal| refusal.tell(consequence);
    let holder = seen(&folder).map_err(refused)?;
    let Some(ours) = &path else { return Ok(Commanded { folder, config, path, holder }) };
    let theirs = match &holder {
        Some(holder) if relation(&holder.config, Some(holder.pid), ours) == Relation::Other => {
            Some(format!("{} holds {}", who(holder), folder.path().display()))
        }
        Some(_) => None,
        None => others_lately(&folder, ours),
    };
    match theirs {
        None => Ok(Commanded { folder, config, path, holder }),
        Some(theirs) => {
            let text = format!("{theirs}, and none with {}: name its configuration with -c", ours.display());
            Err(refused(Refusal::held(text)))
        }
    }
}

/// The same for a verb that leaves something in the folder. Another account's watchdog could not take away what root
/// leaves there, nor use a folder that root has made.
pub(super) fn to_order(options: &Options, consequence: &str) -> Result<Commanded, Code> {
    let commanded = to_command(options, consequence)?;
    match commanded.path.as_deref().and_then(|path| Some((path, config::other_owner(path)?))) {
        None => Ok(commanded),
        Some((path, owner)) => {
            let text = format!("{} belongs to uid {owner}: do it as that account", path.display());
            Err(complain(&format!("{} ({consequence})", escaped(&text)), Code::Machine))
        }
    }
}

/// The watchdog at work in the folder, for a verb that would start one with `ours`: what one with another configuration
/// does is not the work of this one.
pub(super) fn to_start(folder: &Folder, ours: &Path) -> Result<Option<Holder>, Refusal> {
    match seen(folder)? {
        Some(holder) => match another(folder, &holder, ours) {
            Some(refusal) => Err(refusal),
            None => Ok(Some(holder)),
        },
        None => Ok(None),
    }
}

/// Why a watchdog with `ours` cannot be started where this one is at work; none where the configurations are the same.
/// Of a tick it names no pid: another one each minute, cron would mail each of them.
pub(super) fn another(folder: &Folder, holder: &Holder, ours: &Path) -> Option<Refusal> {
    let needs = needs_its_own(ours);
    let text = match (relation(&holder.config, Some(holder.pid), ours), holder.mode) {
        (Relation::Same, _) => return None,
        (Relation::Gone, Mode::Daemon) => {
            let who = who(holder);
            format!("{who}, which is not there any more, holds {}: stop it first", folder.path().display())
        }
        (Relation::Gone | Relation::Other, Mode::Once) => format!("{}: {needs}", ticks(folder, &holder.config)),
        (Relation::Other, Mode::Daemon) => format!("{} holds {}: {needs}", who(holder), folder.path().display()),
    };
    Some(Refusal::held(text))
}

/// Why no tick with `ours` can be made, nor cron start a daemon with it, though nobody holds the lock: another
/// configuration's watchdog worked there lately, as between two ticks. Each would undo what the other one counts.
pub(super) fn worked_lately(folder: &Folder, ours: &Path) -> Option<Refusal> {
    others_lately(folder, ours).map(|theirs| Refusal::held(format!("{theirs}: {}", needs_its_own(ours))))
}

/// Who worked there lately with another configuration, in words. Where that is not there any more, it was moved.
fn others_lately(folder: &Folder, ours: &Path) -> Option<String> {
    let now = now();
    // A state that cannot be read is told by whoever needs it.
    let saved = peek(folder, &now).ok().flatten().filter(|saved| saved.worked_lately(now.at.now))?;
    let theirs = saved.config.as_deref().filter(|theirs| relation(theirs, None, ours) == Relation::Other)?;
    Some(match saved.mode {
        Some(Mode::Once) => ticks(folder, theirs),
        Some(Mode::Daemon) | None => {
            let folder = folder.path().display();
            format!("a watchdog with configuration {} was at work in {folder} until just now", theirs.display())
        }
    })
}

/// Whether the watchdog with `ours` was stopped by hand, and nobody has started it since.
pub(super) fn is_stopped(folder: &Folder, ours: &Path) -> bool {
    match stopped::read(folder) {
        None => false,
        Some(Stopped::All) => true,
        Some(Stopped::Of(configs)) => configs.iter().any(|config| relation(config, None, ours) != Relation::Other),
    }
}

/// Marks the watchdog with `ours` as stopped by hand, beside others that were; all, where it is not known which is.
pub(super) fn mark_stopped(folder: &Folder, ours: Option<&Path>) -> Result<(), Error> {
    let stopped = match (stopped::read(folder), ours) {
        (Some(Stopped::All), _) | (_, None) => Stopped::All,
        (None, Some(ours)) => Stopped::Of(vec![ours.to_path_buf()]),
        (Some(Stopped::Of(configs)), Some(ours)) => {
            Stopped::Of(others(configs, ours).chain([ours.to_path_buf()]).collect())
        }
    };
    stopped::mark(folder, &stopped)
}

/// The watchdog with `ours` is started: others that were stopped by hand stay so.
pub(super) fn clear_stopped(folder: &Folder, ours: &Path) -> Result<(), Error> {
    let rest = match stopped::read(folder) {
        None => return Ok(()),
        Some(Stopped::All) => Vec::new(),
        Some(Stopped::Of(configs)) => others(configs, ours).collect(),
    };
    stopped::clear(folder, rest)
}

fn others(configs: Vec<PathBuf>, ours: &Path) -> impl Iterator<Item = PathBuf> {
    configs.into_iter().filter(move |config| relation(config, None, ours) == Relation::Other)
}

/// The same for ticks that hold the lock and ticks that did lately, so that cron mails it once.
fn ticks(folder: &Folder, config: &Path) -> String {
    format!("ticks with configuration {} work in {}", config.display(), folder.path().display())
}

fn needs_its_own(ours: &Path) -> String {
    format!("{} needs a state_dir of its own", ours.display())
}

pub(super) fn held(folder: &Folder, held: &HeldBy) -> Refusal {
    Refusal::held(match held {
        HeldBy::Seen(holder) => format!("{} holds {}", who(holder), folder.path().display()),
        HeldBy::Unseen(unseen) => cannot_see(folder, unseen),
    })
}

fn seen(folder: &Folder) -> Result<Option<Holder>, Refusal> {
    match read_lock(folder) {
        Ok(Some(HeldBy::Seen(holder))) => Ok(Some(holder)),
        Ok(Some(HeldBy::Unseen(unseen))) => Err(Refusal::held(cannot_see(folder, &unseen))),
        Ok(None) => Ok(None),
        Err(error) => Err(Refusal { text: error.to_string(), code: Code::Machine }),
    }
}

fn who(holder: &Holder) -> String {
    format!("a watchdog with pid {} and configuration {}", holder.pid, holder.config.display())
}

fn cannot_see(folder: &Folder, unseen: &Unseen) -> String {
    let says = match &unseen.note {
        Some(note) if note.mode == Mode::Daemon => format!(": as pid {} there, with {}", note.pid, note.config),
        Some(note) => format!(": a tick, with {}", note.config),
        None => String::new(),
    };
    format!("a watchdog that I cannot see holds {} (in another container?{says})", folder.path().display())
}

/// `pid`: whose view of the files counts first, should it be another than ours.
fn relation(theirs: &Path, pid: Option<u32>, ours: &Path) -> Relation {
    if theirs == ours {
        return Relation::Same;
    }
    let same =
        |file: &fs::Metadata| fs::metadata(ours).is_ok_and(|ours| (ours.dev(), ours.ino()) == (file.dev(), file.ino()));
    let view =
        pid.and_then(|pid| Some(PathBuf::from(format!("/proc/{pid}/root")).join(theirs.strip_prefix("/").ok()?)));
    let found: Vec<_> = view.iter().map(PathBuf::as_path).chain([theirs]).map(fs::metadata).collect();
    let is_missing = |found: &std::io::Result<fs::Metadata>| {
        found.as_ref().is_err_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
    };
    match found {
        found if found.iter().flatten().any(same) => Relation::Same,
        found if found.iter().all(is_missing) => Relation::Gone,
        _ => Relation::Other,
    }
}
