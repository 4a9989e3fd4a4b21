//! Parses PM2's process lists, the printed and the saved one, whatever else surrounds them. It must never fail because
//! of a field that it does not need, never panic, and never keep an environment, which holds secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A process as `pm2 jlist` or a saved list describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// All instances of an app share this name.
    pub name: String,
    /// PM2's number for it (`pm_id`); missing in a saved list.
    pub id: Option<u32>,
    pub pid: Option<u32>,
    /// PM2's status word, such as `online`; empty if the list has none.
    pub status: String,
    pub autorestart: bool,
    /// The last exit code; PM2 lists 0 after a death by signal.
    pub exit_code: Option<i32>,
    pub stop_exit_codes: Vec<i32>,
    pub restarts: u64,
    pub is_scheduled: bool,
    pub is_module: bool,
    pub script: PathBuf,
    pub cwd: PathBuf,
    /// The program that runs the script; PM2 writes `none` if the script runs directly.
    pub interpreter: Option<String>,
    /// Cluster mode, in which the daemon holds the listening sockets.
    pub is_cluster: bool,
    /// How long PM2 waits after SIGINT before it sends SIGKILL.
    pub kill_timeout: Duration,
    /// How long pm2 waits for its `ready` message (`listen_timeout`); `None` without `wait_ready`.
    pub ready_timeout: Option<Duration>,
    /// `PORT` in its environment.
    pub port: Option<u16>,
    /// The `env_NAME` blocks of its file that match its environment in every variable, without the `env_`.
    pub environments: Vec<String>,
    pub pid_file: Option<PathBuf>,
    pub out_log: Option<PathBuf>,
    pub err_log: Option<PathBuf>,
}

impl App {
    /// PM2's default for `kill_timeout`.
    pub const KILL_TIMEOUT: Duration = Duration::from_millis(1_600);
    /// PM2's default for `listen_timeout`.
    pub const LISTEN_TIMEOUT: Duration = Duration::from_secs(3);

    /// Whether PM2 may leave it stopped after it ends. With `stop_exit_codes` that depends on the exit code, which
    /// cannot be foreseen.
    pub fn may_stay_stopped(&self) -> bool {
        !self.autorestart || !self.stop_exit_codes.is_empty()
    }
}

/// Parses the output of `pm2 jlist -s` or a saved list: the last line that is a list of processes, since PM2 prints
/// other lines before it, or else the whole text. `None` if neither is a list of processes.
pub fn parse_list(output: &[u8]) -> Option<Vec<App>> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().filter(|line| line.starts_with('[')).find_map(parse_apps).or_else(|| parse_apps(&text))
}

/// Skips entries without a name; a list that has only such entries is not a list of processes.
fn parse_apps(text: &str) -> Option<Vec<App>> {
    let entries: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let apps: Vec<App> = entries.iter().filter_map(|one| parse_app(one.get())).collect();
    (apps.is_empty() == entries.is_empty()).then_some(apps)
}

/// An entry of `jlist`. An entry of a saved list has the fields of `pm2_env` at its top level instead.
#[derive(Deserialize)]
struct ListEntry<'a> {
    #[serde(default)]
    pid: Value,
    #[serde(borrow)]
    pm2_env: Option<&'a RawValue>,
}

/// An object whose values are parsed one by one, so that a value of an unexpected type does not affect the others.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Fields<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Value {
        self.0.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    fn object(&self, name: &str) -> Fields<'_> {
        self.0.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}

/// Parses one entry of a printed or saved list; `None` if it has no name.
pub(super) fn parse_app(json: &str) -> Option<App> {
    let listed: ListEntry = serde_json::from_str(json).ok()?;
    let own: Fields = serde_json::from_str(listed.pm2_env.map_or(json, RawValue::get)).ok()?;
    let inner = own.object("env");
    let waits_for_ready = to_text(&own.get("wait_ready")).is_some_and(|flag| flag == "true" || flag == "1");
    let listen_timeout = to_number(&own.get("listen_timeout")).map_or(App::LISTEN_TIMEOUT, Duration::from_millis);
    let port = to_number(&own.get("PORT")).or_else(|| to_number(&inner.get("PORT")));
    Some(App {
        name: to_text(&own.get("name"))?,
        id: to_number(&own.get("pm_id")),
        pid: to_number(&listed.pid).filter(|pid| *pid > 0),
        status: to_text(&own.get("status")).unwrap_or_default(),
        // It may be a string if somebody wrote it into a JSON file.
        autorestart: !matches!(to_text(&own.get("autorestart")).as_deref(), Some("false" | "0")),
        exit_code: to_number(&own.get("exit_code")),
        stop_exit_codes: to_numbers(&own.get("stop_exit_codes")),
        restarts: to_number(&own.get("restart_time")).unwrap_or(0),
        is_scheduled: to_text(&own.get("cron_restart")).is_some_and(|when| !matches!(when.trim(), "" | "0" | "false")),
        is_module: own.get("pmx_module") == true,
        script: own.path("pm_exec_path").unwrap_or_default(),
        cwd: own.path("pm_cwd").unwrap_or_default(),
        interpreter: to_text(&own.get("exec_interpreter")),
        is_cluster: own.get("exec_mode") == "cluster_mode",
        kill_timeout: to_number(&own.get("kill_timeout")).map_or(App::KILL_TIMEOUT, Duration::from_millis),
        ready_timeout: waits_for_ready.then_some(listen_timeout),
        port: port.filter(|port| *port > 0),
        environments: find_environments(&own, &inner),
        pid_file: own.path("pm_pid_path"),
        out_log: own.path("pm_out_log_path"),
        err_log: own.path("pm_err_log_path"),
    })
}

/// PM2 keeps the `env_NAME` blocks as they stand in the file, and the variables that the process got among all its
/// other fields.
fn find_environments(own: &Fields<'_>, inner: &Fields<'_>) -> Vec<String> {
    let matches = |name: &String, value: &RawValue| {
        let expected = serde_json::from_str(value.get()).ok().and_then(|value| to_text(&value));
        expected.is_some() && [own.get(name), inner.get(name)].iter().any(|found| to_text(found) == expected)
    };
    let blocks = own.0.keys().filter_map(|key| Some((key, key.strip_prefix("env_")?)));
    let matching = blocks.filter(|(key, _)| {
        let block = own.object(key);
        !block.0.is_empty() && block.0.iter().all(|(name, value)| matches(name, value))
    });
    matching.map(|(_, name)| name.to_owned()).collect()
}

/// Accepts a single number as a list of one.
fn to_numbers(value: &Value) -> Vec<i32> {
    match value {
        Value::Array(values) => values.iter().filter_map(to_number).collect(),
        value => to_number(value).into_iter().collect(),
    }
}

/// The value as text, if it is a string, a number or a boolean.
fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn to_number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    to_text(value)?.trim().parse().ok()
}
