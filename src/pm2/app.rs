//! What PM2 lists and saves of its processes, read from whatever it prints around it. It must never fail on what a list
//! holds besides, never panic, and never keep an environment: secrets live there.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What PM2 grants a process to end by itself where nothing is said (its `kill_timeout`).
const KILL_TIMEOUT: Duration = Duration::from_millis(1_600);

/// A process of PM2's, as `pm2 jlist` or a saved list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name, which its other instances have too.
    pub name: String,
    /// Its number in PM2; a saved list has none.
    pub id: Option<u32>,
    /// The number of its process; none where it has none.
    pub pid: Option<u32>,
    /// PM2's word for how it is, such as `online`; empty where the list lacks it.
    pub status: String,
    /// Whether PM2 starts it again when it ends.
    pub autorestart: bool,
    /// The code that it last ended with; PM2 says 0 of one that a signal ended.
    pub exit_code: Option<i32>,
    /// What is run.
    pub script: PathBuf,
    /// The folder that it runs in.
    pub cwd: PathBuf,
    /// What runs the script; `none` is PM2's word for nothing.
    pub interpreter: Option<String>,
    /// Whether the daemon holds its sockets for it (cluster mode).
    pub cluster: bool,
    /// How long it may take to end before PM2 kills it.
    pub kill_timeout: Duration,
    /// `PORT` in its environment.
    pub port: Option<u16>,
    /// The file of its standard output.
    pub out_log: Option<PathBuf>,
    /// The file of its standard error.
    pub err_log: Option<PathBuf>,
}

/// Reads what `pm2 jlist -s` printed, or a saved list: the last line that is a list, whatever noise stands before it,
/// else the whole. None where neither is a list of processes.
pub fn parse_list(output: &[u8]) -> Option<Vec<App>> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().filter(|line| line.starts_with('[')).find_map(list).or_else(|| list(&text))
}

/// Entries without a name are passed over; what has other things only is no list of processes.
fn list(text: &str) -> Option<Vec<App>> {
    let entries: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let apps: Vec<App> = entries.iter().filter_map(|one| entry(one.get())).collect();
    (apps.is_empty() == entries.is_empty()).then_some(apps)
}

/// What `jlist` says outside of `pm2_env`. In a saved list each entry is what `pm2_env` is here.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(default)]
    pid: Value,
    #[serde(borrow)]
    pm2_env: Option<&'a RawValue>,
}

/// Values of every type are taken here, so that one that is not as expected is without effect on the others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Own<'a> {
    name: Value,
    pm_id: Value,
    status: Value,
    autorestart: Value,
    exit_code: Value,
    pm_exec_path: Value,
    pm_cwd: Value,
    exec_interpreter: Value,
    exec_mode: Value,
    kill_timeout: Value,
    #[serde(rename = "PORT")]
    port: Value,
    pm_out_log_path: Value,
    pm_err_log_path: Value,
    #[serde(borrow)]
    env: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Variables {
    #[serde(rename = "PORT")]
    port: Value,
}

/// Reads one entry of a list, of `jlist` or of a saved one; none where it has no name.
pub(super) fn entry(json: &str) -> Option<App> {
    let listed: Listed = serde_json::from_str(json).ok()?;
    let own: Own = serde_json::from_str(listed.pm2_env.map_or(json, RawValue::get)).ok()?;
    let inner = own.env.and_then(|env| serde_json::from_str::<Variables>(env.get()).ok()).unwrap_or_default();
    let path = |value: &Value| value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
    Some(App {
        name: text(&own.name)?,
        id: number(&own.pm_id),
        pid: number(&listed.pid).filter(|pid| *pid > 0),
        status: text(&own.status).unwrap_or_default(),
        // Set by hand in a JSON file, it may be a text.
        autorestart: !matches!(text(&own.autorestart).as_deref(), Some("false" | "0")),
        exit_code: number(&own.exit_code),
        script: path(&own.pm_exec_path).unwrap_or_default(),
        cwd: path(&own.pm_cwd).unwrap_or_default(),
        interpreter: text(&own.exec_interpreter),
        cluster: own.exec_mode == "cluster_mode",
        kill_timeout: number(&own.kill_timeout).map_or(KILL_TIMEOUT, Duration::from_millis),
        port: number(&own.port).or_else(|| number(&inner.port)).filter(|port| *port > 0),
        out_log: path(&own.pm_out_log_path),
        err_log: path(&own.pm_err_log_path),
    })
}

/// A text, or what a number or a truth value is as one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number, or a text that is one.
fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    text(value)?.trim().parse().ok()
}
