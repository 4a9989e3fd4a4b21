//! The whole file: from its bytes to a [`Config`], with the keys of the top level.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use super::access::{Readers, read};
use super::channel::{Channel, Webhook};
use super::error::{Errors, Source};
use super::locate::{self, default_state_dir};
use super::notify::{heartbeat, notify};
use super::reader::{Keys, Reader};
use super::secrets::Secrets;
use super::target::{Secret, Target};
use super::targets::targets;
use super::tree::{self, Node, Value};
use super::{owner, units};
use crate::outcome::describe_io_error;
use crate::time::WallTime;

pub(super) const TOP: Keys = Keys {
    known: &[&[
        "state_dir",
        "log",
        "env_file",
        "env",
        "dry_run",
        "notify",
        "heartbeat",
        "page",
        "metrics",
        "defaults",
        "targets",
    ]],
    elsewhere: &[],
};
pub(super) const PAGE: Keys = Keys { known: &[&["file", "details"]], elsewhere: &[] };
pub(super) const LOG: Keys = Keys { known: &[&["file", "level", "max_size", "keep"]], elsewhere: &[] };
const LEVELS: [(&str, LevelFilter); 4] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
];
/// Less would rotate at every other line, more is no limit.
const LOG_SIZE: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// A configuration in which everything was found valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, absolute.
    pub path: PathBuf,
    /// When the file was last written to before it was read.
    pub written: Option<WallTime>,
    /// The file's folder, absolute: commands run in it and paths are relative to it.
    pub folder: PathBuf,
    /// Where state, lock, events and incidents live, absolute.
    pub state_dir: PathBuf,
    pub log: LogConfig,
    /// Given to every command that is run.
    pub env: Vec<(String, Secret)>,
    /// In the order of the file; at least one.
    pub targets: Vec<Target>,
    pub notify: Vec<Channel>,
    /// Pinged by a watchdog that does its job.
    pub heartbeat: Option<Webhook>,
    pub page: Option<PageConfig>,
    pub metrics: Option<PathBuf>,
    /// What a `${NAME}` that is not set has switched off, in words.
    pub off: Vec<String>,
    /// What must be struck out of what servers and commands say.
    pub secrets: Secrets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageConfig {
    /// Where, absolute.
    pub file: PathBuf,
    /// Whether it tells what was found and what was run.
    pub details: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Absolute.
    pub file: PathBuf,
    pub level: log::LevelFilter,
    /// Bytes of one file.
    pub max_size: u64,
    /// Rotated files kept beside the one written to.
    pub keep: u32,
}

impl Config {
    /// Reads the file at `path`, which is shown in errors as it is given here. `environment` is what `${NAME}` and
    /// `$HOME` are looked up in.
    /// Errors: it cannot be read, others could have written it, or something in it is not valid. Everything that can be
    /// told at once is told. Nothing was changed then, and the caller says what follows from that.
    pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
        // Asked before it is read: what is written to it meanwhile is newer than what was read.
        let written = written(path);
        Ok(Config { written, ..read_whole(path, environment)? })
    }

    /// The state folder that the file at `path` names, or the default where it names none, also where other things in
    /// it are not valid: whoever asks a watchdog that is at work must not ask in another folder meanwhile. Of another
    /// account's file, default and `~` are by that account's home. `None` where that cannot be told.
    pub fn state_dir_of(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let text = read(path, Readers::Root).ok()?;
        let root = tree::parse(&text).ok()?;
        let path = locate::absolute(path, environment).ok()?;
        // What is ours by default is another folder than the one in which that account's watchdog works.
        let home = match owner::other_owner(&path) {
            Some(uid) => owner::home_of(uid),
            None => locate::home(environment),
        };
        let mut reading = Reader::new(path.parent().unwrap_or(&path), home.clone(), environment);
        match root.get("state_dir") {
            Some(node) => reading.path(node),
            None => home.as_deref().map(locate::state_dir_in),
        }
    }

    /// Decide and record, but run no restart command: `--dry-run`, for all targets.
    pub fn set_dry_run(&mut self) {
        for target in &mut self.targets {
            target.limits.dry_run = true;
        }
    }
}

/// When a file was last written to; none where that cannot be told.
pub fn written(path: &Path) -> Option<WallTime> {
    let metadata = fs::metadata(path).ok()?;
    Some(WallTime::from_ms(metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000)))
}

fn read_whole(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
    let shown = path.display().to_string();
    let text = read(path, Readers::Anyone).map_err(Errors::several)?;
    let path = locate::absolute(path, environment)
        .map_err(|error| Errors::one(format!("cannot find {shown}: {}", describe_io_error(&error))))?;
    let folder = path.parent().unwrap_or(&path).to_path_buf();
    let source = Source { file: &shown, text: &text };
    let root = tree::parse(&text).map_err(|error| source.syntax(&error))?;
    let mut reading = Reader::new(&folder, locate::home(environment), environment);
    let config = top(&mut reading, &root, environment, &path);
    match config {
        Some(config) if reading.problems.is_empty() && reading.beside.is_empty() => Ok(config),
        _ => Err(source.errors(&root, reading.problems).after(reading.beside)),
    }
}

/// The top level. Nothing comes back only together with a complaint.
fn top(
    reading: &mut Reader<'_>,
    root: &Node,
    environment: &dyn Fn(&str) -> Option<String>,
    path: &Path,
) -> Option<Config> {
    if !reading.has_only(root, &TOP) {
        return None;
    }
    if let Some(node) = root.get("env_file") {
        env_file(reading, node);
    }
    let state_dir = match root.get("state_dir") {
        Some(node) => reading.path(node),
        None => default_state_dir(environment).map_err(|error| reading.beside.push(error.to_string())).ok(),
    };
    let dry_run = root.get("dry_run").and_then(|node| reading.flag(node)).unwrap_or(false);
    let env = root.get("env").map(|node| env(reading, node)).unwrap_or_default();
    let log = log(reading, root.get("log"), state_dir.as_deref());
    let targets = targets(reading, root, dry_run);
    let (channels, mut off) = root.get("notify").map(|node| notify(reading, node)).unwrap_or_default();
    let (heartbeat, is_off) = root.get("heartbeat").map(|node| heartbeat(reading, node)).unwrap_or_default();
    off.extend(is_off);
    let page = root.get("page").and_then(|node| page(reading, node));
    let metrics = root.get("metrics").and_then(|node| reading.path(node));
    if let (Some(page), Some(metrics), Some(node)) = (&page, &metrics, root.get("metrics"))
        && page.file == *metrics
    {
        reading.complain(node, "is the file of the `page` too", "two files: one would overwrite the other");
    }
    let (path, folder) = (path.to_path_buf(), reading.folder.to_path_buf());
    let secrets = std::mem::take(&mut reading.secrets);
    let (state_dir, log) = (state_dir?, log?);
    Some(Config {
        path,
        written: None,
        folder,
        state_dir,
        log,
        env,
        targets,
        notify: channels,
        heartbeat,
        page,
        metrics,
        off,
        secrets,
    })
}

/// A path is short for a map with only the file.
fn page(reading: &mut Reader<'_>, node: &Node) -> Option<PageConfig> {
    let Value::Map(_) = &node.value else { return Some(PageConfig { file: reading.path(node)?, details: false }) };
    if !reading.has_only(node, &PAGE) {
        return None;
    }
    let details = node.get("details").map_or(Some(false), |node| reading.flag(node));
    let Some(file) = node.get("file") else {
        reading.complain_of_missing(node, "names no `file`", "such as {file: ~/public_html/status.html}");
        return None;
    };
    Some(PageConfig { file: reading.path(file)?, details: details? })
}

fn env_file(reading: &mut Reader<'_>, node: &Node) {
    let Some(path) = reading.path(node) else { return };
    if let Err(complaints) = reading.variables.add_file(&path, node.as_text().unwrap_or_default()) {
        reading.beside.extend(complaints);
    }
}

fn env(reading: &mut Reader<'_>, node: &Node) -> Vec<(String, Secret)> {
    let mut env = Vec::new();
    for entry in reading.map(node, "such as {PATH: /usr/local/bin:/usr/bin:/bin}").unwrap_or_default() {
        if !units::is_variable(&entry.key) {
            let advice = "letters, digits and _, not beginning with a digit";
            reading.complain_of_key(entry, format!("`{}` is no name of a variable", entry.key), advice);
        }
        // Unlike elsewhere, an empty text says something: set, but to nothing.
        let text = match entry.value.as_text() {
            Some("") => Some(""),
            _ => reading.text(&entry.value),
        };
        let value = text.and_then(|text| reading.expand(&entry.value, text));
        env.extend(value.map(|value| (entry.key.clone(), Secret(value))));
    }
    env
}

fn log(reading: &mut Reader<'_>, node: Option<&Node>, state_dir: Option<&Path>) -> Option<LogConfig> {
    let node = node.filter(|node| reading.has_only(node, &LOG));
    let get = |key: &str| node.and_then(|node| node.get(key));
    let file: Option<PathBuf> = match get("file") {
        Some(node) => reading.path(node),
        None => state_dir.map(|folder| folder.join("watchdog.log")),
    };
    let level = get("level").and_then(|node| reading.word(node, &LEVELS)).unwrap_or(LevelFilter::Info);
    let max_size =
        get("max_size").and_then(|node| reading.size(node, LOG_SIZE, "from 4KiB to 1GiB")).unwrap_or(1 << 20);
    let keep = get("keep").and_then(|node| reading.whole(node, 0..=100)).unwrap_or(4);
    Some(LogConfig { file: file?, level, max_size, keep })
}
