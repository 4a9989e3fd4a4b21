//! What PM2 lists and saves of its processes, read from whatever it prints around it. It must never fail on what a list
//! holds besides, never panic, and never keep an environment: secrets live there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A process of PM2's, as `pm2 jlist` or a saved list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name, which its other instances have too.
    pub name: String,
    /// Its number in PM2; a saved list has none.
    pub id: Option<u32>,
    pub pid: Option<u32>,
    /// PM2's word for how it is, such as `online`; empty where the list lacks it.
    pub status: String,
    pub autorestart: bool,
    /// The code that it last ended with; PM2 says 0 of one that a signal ended.
    pub exit_code: Option<i32>,
    pub stop_exit_codes: Vec<i32>,
    pub restarts: u64,
    pub is_scheduled: bool,
    pub is_module: bool,
    pub script: PathBuf,
    pub cwd: PathBuf,
    /// What runs the script; `none` is PM2's word for nothing.
    pub interpreter: Option<String>,
    /// Whether the daemon holds its sockets for it (cluster mode).
    pub cluster: bool,
    /// How long it may take to end before PM2 kills it.
    pub kill_timeout: Duration,
    /// How long pm2 waits for it to say that it is ready (`wait_ready`); none where it does not say.
    pub ready_within: Option<Duration>,
    /// `PORT` in its environment.
    pub port: Option<u16>,
    /// The names of those `env_NAME` blocks of its file whose every variable it has.
    pub environments: Vec<String>,
    pub pid_file: Option<PathBuf>,
    pub out_log: Option<PathBuf>,
    pub err_log: Option<PathBuf>,
}

impl App {
    /// What PM2 grants a process to end by itself where nothing is said (its `kill_timeout`).
    pub const KILL_TIMEOUT: Duration = Duration::from_millis(1_600);
    /// How long PM2 waits for one that says when it is ready, where nothing is said (its `listen_timeout`).
    pub const LISTEN_TIMEOUT: Duration = Duration::from_secs(3);

    /// Whether PM2 may not start it again once it was ended: which code it ends with is its own affair.
    pub fn may_stay_ended(&self) -> bool {
        !self.autorestart || !self.stop_exit_codes.is_empty()
    }
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

/// An object whose values are read one by one, so that one that is not as expected is without effect on the others.
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

/// Reads one entry of a list, of `jlist` or of a saved one; none where it has no name.
pub(super) fn entry(json: &str) -> Option<App> {
    let listed: Listed = serde_json::from_str(json).ok()?;
    let own: Fields = serde_json::from_str(listed.pm2_env.map_or(json, RawValue::get)).ok()?;
    let inner = own.object("env");
    let waits_for_ready = text(&own.get("wait_ready")).is_some_and(|flag| flag == "true" || flag == "1");
    let listen_timeout = number(&own.get("listen_timeout")).map_or(App::LISTEN_TIMEOUT, Duration::from_millis);
    let port = number(&own.get("PORT")).or_else(|| number(&inner.get("PORT")));
    Some(App {
        name: text(&own.get("name"))?,
        id: number(&own.get("pm_id")),
        pid: number(&listed.pid).filter(|pid| *pid > 0),
        status: text(&own.get("status")).unwrap_or_default(),
        // Set by hand in a JSON file, it may be a text.
        autorestart: !matches!(text(&own.get("autorestart")).as_deref(), Some("false" | "0")),
        exit_code: number(&own.get("exit_code")),
        stop_exit_codes: numbers(&own.get("stop_exit_codes")),
        restarts: number(&own.get("restart_time")).unwrap_or(0),
        is_scheduled: text(&own.get("cron_restart")).is_some_and(|when| !matches!(when.trim(), "" | "0" | "false")),
        is_module: own.get("pmx_module") == true,
        script: own.path("pm_exec_path").unwrap_or_default(),
        cwd: own.path("pm_cwd").unwrap_or_default(),
        interpreter: text(&own.get("exec_interpreter")),
        cluster: own.get("exec_mode") == "cluster_mode",
        kill_timeout: number(&own.get("kill_timeout")).map_or(App::KILL_TIMEOUT, Duration::from_millis),
        ready_within: waits_for_ready.then_some(listen_timeout),
        port: port.filter(|port| *port > 0),
        environments: environments(&own, &inner),
        pid_file: own.path("pm_pid_path"),
        out_log: own.path("pm_out_log_path"),
        err_log: own.path("pm_err_log_path"),
    })
}

/// PM2 keeps the blocks as they stand in the file, and what the process got of them among all that it has.
fn environments(own: &Fields<'_>, inner: &Fields<'_>) -> Vec<String> {
    let has = |name: &String, value: &RawValue| {
        let wanted = serde_json::from_str(value.get()).ok().and_then(|value| text(&value));
        wanted.is_some() && [own.get(name), inner.get(name)].iter().any(|found| text(found) == wanted)
    };
    let blocks = own.0.keys().filter_map(|key| Some((key, key.strip_prefix("env_")?)));
    let got = blocks.filter(|(key, _)| {
        let block = own.object(key);
        !block.0.is_empty() && block.0.iter().all(|(name, value)| has(name, value))
    });
    got.map(|(_, name)| name.to_owned()).collect()
}

/// One number, or several in a list.
fn numbers(value: &Value) -> Vec<i32> {
    match value {
        Value::Array(values) => values.iter().filter_map(number).collect(),
        value => number(value).into_iter().collect(),
    }
}

/// A text, or what a number or a truth value is as one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    text(value)?.trim().parse().ok()
}
