//! Reads the whole file into a [`Config`], with the keys of the top level.
//! It must never return a configuration in which anything is invalid.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use super::access::{Readers, read};
use super::channel::{Channel, Webhook};
use super::error::{Errors, Source};
use super::locate::{self, default_state_dir};
use super::notify::{read_heartbeat, read_notify};
use super::other_tools;
use super::reader::{Keys, Reader};
use super::secrets::Secrets;
use super::target::{Secret, Target};
use super::targets::read_targets;
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
    per_target: &[],
    elsewhere: other_tools::TOP,
};
pub(super) const PAGE: Keys = Keys { known: &[&["file", "details"]], per_target: &[], elsewhere: &[] };
pub(super) const LOG: Keys =
    Keys { known: &[&["file", "level", "max_size", "keep", "format"]], per_target: &[], elsewhere: other_tools::LOG };
const LEVELS: [(&str, LevelFilter); 4] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
/// With less, the log would be rotated every few lines; with more, it would be no limit.
const LOG_SIZE: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, absolute.
    pub path: PathBuf,
    /// When the file was last modified before it was read.
    pub modified: Option<WallTime>,
    /// The file's folder, absolute. Commands run in it, and paths are relative to it.
    pub folder: PathBuf,
    /// The folder of state, lock, events and incidents, absolute.
    pub state_dir: PathBuf,
    pub log: LogConfig,
    /// Given to every command that is run.
    pub env: Vec<(String, Secret)>,
    /// In the order of the file; at least one.
    pub targets: Vec<Target>,
    pub notify: Vec<Channel>,
    pub heartbeat: Option<Webhook>,
    pub page: Option<PageConfig>,
    pub metrics: Option<PathBuf>,
    /// One line for each channel that is switched off because a `${NAME}` is not set.
    pub disabled_channels: Vec<String>,
    /// To be redacted in what servers and commands return.
    pub secrets: Secrets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageConfig {
    /// Absolute.
    pub file: PathBuf,
    /// Whether the page shows failure details and commands.
    pub details: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Absolute.
    pub file: PathBuf,
    pub level: log::LevelFilter,
    /// Bytes of one file.
    pub max_size: u64,
    /// Rotated files that are kept in addition to the current one.
    pub keep: u32,
    /// Of the file. What a person reads on standard error is text.
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// Reads the file at `path`; errors show the path as it is given. `${NAME}` and `$HOME` are looked up in
    /// `environment`.
    /// Errors: the file cannot be read, others could have written it, or something in it is invalid. All errors that
    /// can be found in one pass are returned. The caller adds the consequence.
    pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
        // Read before the file itself: a change in between must count as newer than what was read.
        let modified = modified_at(path);
        Ok(Config { modified, ..read_config(path, environment)? })
    }

    /// The state folder that the file at `path` names, or the default if it names none. Other errors in the file do not
    /// matter: while it is being edited, `status` or `stop` must not look for the running watchdog in another folder.
    /// For a file of another account, the default and `~` refer to that account's home. `None` if that is unknown.
    pub fn state_dir_of(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let text = read(path, Readers::Root).ok()?;
        let root = tree::parse(&text).or_else(|error| tree::parse(state_dir_line(&text).ok_or(error)?)).ok()?;
        let path = locate::absolute(path, environment).ok()?;
        // Our own default folder is not the one that the other account's watchdog uses.
        let home = match owner::other_owner(&path) {
            Some(uid) => owner::home_of(uid),
            None => locate::home(environment),
        };
        let mut reader = Reader::new(path.parent().unwrap_or(&path), home.clone(), environment);
        match root.get("state_dir") {
            Some(node) => reader.path(node),
            None => home.as_deref().map(locate::state_dir_in),
        }
    }

    /// Applies `--dry-run` to all targets.
    pub fn set_dry_run(&mut self) {
        for target in &mut self.targets {
            target.limits.dry_run = true;
        }
    }
}

/// The line that names the state folder in a file that is not valid YAML, empty if none does. `None` if it is unclear:
/// the value may go on in the next line.
fn state_dir_line(text: &str) -> Option<&str> {
    let mut lines =
        text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')).peekable();
    let Some(line) = lines.find(|line| line.contains("state_dir")) else { return Some("") };
    let goes_on = lines.peek().is_some_and(|next| next.starts_with([' ', '\t']));
    let is_only = !lines.any(|line| line.contains("state_dir"));
    (line.starts_with("state_dir:") && !goes_on && is_only).then_some(line)
}

/// When a file was last modified; `None` if that cannot be read.
pub fn modified_at(path: &Path) -> Option<WallTime> {
    let metadata = fs::metadata(path).ok()?;
    Some(WallTime::from_ms(metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000)))
}

fn read_config(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
    let shown = path.display().to_string();
    let text = read(path, Readers::Anyone).map_err(Errors::several)?;
    let path = locate::absolute(path, environment)
        .map_err(|error| Errors::one(format!("cannot find {shown}: {}", describe_io_error(&error))))?;
    let folder = path.parent().unwrap_or(&path).to_path_buf();
    let source = Source { file: &shown, text: &text };
    let root = tree::parse(&text).map_err(|error| source.syntax(&error))?;
    let mut reader = Reader::new(&folder, locate::home(environment), environment);
    let config = read_top_level(&mut reader, &root, environment, &path);
    match config {
        Some(config) if reader.problems.is_empty() && reader.file_errors.is_empty() => Ok(config),
        _ => Err(source.errors(&root, reader.problems).after(reader.file_errors)),
    }
}

/// Returns `None` only if an error was reported.
fn read_top_level(
    reader: &mut Reader<'_>,
    root: &Node,
    environment: &dyn Fn(&str) -> Option<String>,
    path: &Path,
) -> Option<Config> {
    if !reader.has_only(root, &TOP) {
        return None;
    }
    if let Some(node) = root.get("env_file") {
        read_env_file(reader, node);
    }
    let state_dir = match root.get("state_dir") {
        Some(node) => reader.path(node),
        None => default_state_dir(environment).map_err(|error| reader.file_errors.push(error.to_string())).ok(),
    };
    let dry_run = root.get("dry_run").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let env = root.get("env").map(|node| read_env(reader, node)).unwrap_or_default();
    let log = read_log(reader, root.get("log"), state_dir.as_deref());
    let targets = read_targets(reader, root, dry_run);
    let (channels, mut off) = root.get("notify").map(|node| read_notify(reader, node)).unwrap_or_default();
    let (heartbeat, is_off) = root.get("heartbeat").map(|node| read_heartbeat(reader, node)).unwrap_or_default();
    off.extend(is_off);
    let page = root.get("page").and_then(|node| read_page(reader, node));
    let metrics = root.get("metrics").and_then(|node| reader.path(node));
    if let (Some(page), Some(metrics), Some(node)) = (&page, &metrics, root.get("metrics"))
        && page.file == *metrics
    {
        reader.reject(node, "is the same file as `page`", "use two files: one would overwrite the other");
    }
    let (path, folder) = (path.to_path_buf(), reader.folder.to_path_buf());
    let secrets = std::mem::take(&mut reader.secrets);
    let (state_dir, log) = (state_dir?, log?);
    Some(Config {
        path,
        modified: None,
        folder,
        state_dir,
        log,
        env,
        targets,
        notify: channels,
        heartbeat,
        page,
        metrics,
        disabled_channels: off,
        secrets,
    })
}

/// A path alone is short for `{file: PATH}`.
fn read_page(reader: &mut Reader<'_>, node: &Node) -> Option<PageConfig> {
    let Value::Map(_) = &node.value else { return Some(PageConfig { file: reader.path(node)?, details: false }) };
    if !reader.has_only(node, &PAGE) {
        return None;
    }
    let details = node.get("details").map_or(Some(false), |node| reader.boolean(node));
    let Some(file) = node.get("file") else {
        reader.reject_missing_key(node, "has no `file`", "for example {file: ~/public_html/status.html}");
        return None;
    };
    Some(PageConfig { file: reader.path(file)?, details: details? })
}

fn read_env_file(reader: &mut Reader<'_>, node: &Node) {
    let Some(path) = reader.path(node) else { return };
    if let Err(errors) = reader.variables.add_file(&path, node.as_text().unwrap_or_default()) {
        reader.file_errors.extend(errors);
    }
}

fn read_env(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, Secret)> {
    let mut env = Vec::new();
    for entry in reader.map(node, "for example {PATH: /usr/local/bin:/usr/bin:/bin}").unwrap_or_default() {
        if !units::is_variable(&entry.key) {
            let advice = "letters, digits and _, not starting with a digit";
            reader.reject_key(entry, format!("`{}` is not a valid variable name", entry.key), advice);
        }
        // Unlike other texts, this one may be empty: the variable is then set to the empty string.
        let text = match entry.value.as_text() {
            Some("") => Some(""),
            _ => reader.text(&entry.value),
        };
        let value = text.and_then(|text| reader.expand(&entry.value, text));
        env.extend(value.map(|value| (entry.key.clone(), Secret(value))));
    }
    env
}

fn read_log(reader: &mut Reader<'_>, node: Option<&Node>, state_dir: Option<&Path>) -> Option<LogConfig> {
    let node = node.filter(|node| reader.has_only(node, &LOG));
    let get = |key: &str| node.and_then(|node| node.get(key));
    let file: Option<PathBuf> = match get("file") {
        Some(node) => reader.path(node),
        None => state_dir.map(|folder| folder.join("watchdog.log")),
    };
    let level = get("level").and_then(|node| reader.choice(node, &LEVELS)).unwrap_or(LevelFilter::Info);
    let max_size = get("max_size").and_then(|node| reader.size(node, LOG_SIZE, "from 4KiB to 1GiB")).unwrap_or(1 << 20);
    let keep = get("keep").and_then(|node| reader.integer(node, 0..=100)).unwrap_or(4);
    let format = get("format").and_then(|node| reader.choice(node, &FORMATS)).unwrap_or(LogFormat::Text);
    Some(LogConfig { file: file?, level, max_size, keep, format })
}
