//! Calling `pm2`, one call at a time and each with its deadline. It must never hand on a variable of ours: PM2 keeps
//! the environment of whoever calls it, and gives it to the processes that it starts. Nor may it show a list as it was
//! printed, which has every variable of every process in it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{self, CommandResult, CommandSpec, Leftovers, MAX_KEPT, Scope};
use crate::outcome::{Exit, describe_io_error};
use crate::process::Process;
use crate::time::HumanDuration;

use super::{App, parse_list};

/// How long PM2 may take for its list. It takes half a second, and on a machine that has a tenth of a core 4 s.
const LIST_TIME: Duration = Duration::from_secs(10);
/// Bytes of a list that are read: one with 100 processes of 100 KB of variables each has 10 MB.
const LIST_LENGTH: u64 = 16 << 20;
/// What PM2 adds to the environment of a process besides variables that begin with `pm_`, `PM2_` and `axm_`, and node
/// besides. Whoever runs under PM2 has them, and whatever pm2 he calls takes them for its new process's own.
const FROM_PM2: &str = "name namespace args node_args interpreter_args exec_mode exec_interpreter instances \
                        instance_var increment_var autostart autorestart stop_exit_codes watch ignore_watch \
                        watch_delay cron_restart restart_delay exp_backoff_restart_delay max_restarts \
                        max_memory_restart min_uptime kill_timeout listen_timeout shutdown_with_message wait_ready \
                        treekill kill_retry_time merge_logs log_date_format log_type time vizion vizion_running \
                        versioning pmx automation km_link filter_env username uid gid windowsHide unique_id status \
                        created_at restart_time unstable_restarts prev_restart_delay exit_code version node_version \
                        source_map_support disable_trace post_update command pm2_env NODE_APP_INSTANCE \
                        NODE_UNIQUE_ID NODE_CHANNEL_FD NODE_CHANNEL_SERIALIZATION_MODE";

/// How `pm2` is called. Its `Debug` shows no environment.
#[derive(Clone)]
pub struct Caller {
    pub home: PathBuf,
    /// The folder that `pm2` runs in; a daemon that it starts stays there.
    pub folder: PathBuf,
    /// Set over our own environment.
    pub env: Vec<(String, String)>,
    /// How long a call may take, but for that of the list.
    pub timeout: Duration,
    /// Once it is closed, nothing is called or done any more.
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    Apps(Vec<App>),
    /// No answer within 10 s.
    Silent,
    Failed(String),
}

impl Caller {
    /// The `pm2` that a call runs: found in `PATH`, and the program that its first line names too.
    /// Errors: which of the two cannot be run and why, in words.
    pub fn program(&self) -> Result<PathBuf, String> {
        command::locate("pm2", &self.folder, command::path_variable(&self.env).as_deref())
    }

    /// PM2's list of its processes. To be asked of a daemon that accepts connections only: where there is none, asking
    /// starts one. Takes up to 10 s, and 10 s more to end a `pm2` that does not want to.
    pub fn list(&self) -> Listing {
        let failed = |error: io::Error| Listing::Failed(format!("cannot take its list: {}", describe_io_error(&error)));
        let output = match command::memory_output() {
            Ok(output) => output,
            Err(error) => return failed(error),
        };
        let mut kept = match output.try_clone() {
            Ok(kept) => kept,
            Err(error) => return failed(error),
        };
        let program = match self.program() {
            Ok(program) => program,
            Err(reason) => return Listing::Failed(reason),
        };
        let spec = self.spec(program, &["jlist", "-s"], output);
        // The daemon that it starts where there is none has a session of its own, and is not ended with it.
        let spec = CommandSpec { timeout: LIST_TIME, keep: LIST_LENGTH, leftovers: Leftovers::End, ..spec };
        let ended = command::run(spec, |_| {});
        match ended.exit {
            Exit::Exited(0) => {}
            Exit::TimedOut => return Listing::Silent,
            Exit::Exited(code) => return Listing::Failed(format!("pm2 jlist exited with {code}")),
            Exit::Killed(signal) => return Listing::Failed(format!("pm2 jlist was killed by signal {signal}")),
            Exit::NotStarted(reason) => return Listing::Failed(reason),
            Exit::Lost => return Listing::Failed("it cannot be known how pm2 jlist ended".into()),
        }
        let mut bytes = Vec::new();
        let read = kept.rewind().and_then(|()| kept.read_to_end(&mut bytes));
        match (read, parse_list(&bytes)) {
            (Err(error), _) => failed(error),
            (Ok(_), Some(apps)) => Listing::Apps(apps),
            (Ok(length), None) => Listing::Failed(format!(
                "pm2 jlist printed no list ({length} bytes in {})",
                HumanDuration(ended.duration)
            )),
        }
    }

    /// `on_start` is told of the process as soon as there is one; `output` must have been opened for appending.
    pub fn call(&self, args: &[&str], output: &File, on_start: &mut dyn FnMut(Process)) -> CommandResult {
        let not_started = |reason| CommandResult { exit: Exit::NotStarted(reason), duration: Duration::ZERO };
        let program = match self.program() {
            Ok(program) => program,
            Err(reason) => return not_started(reason),
        };
        match output.try_clone() {
            Ok(output) => command::run(self.spec(program, args, output), on_start),
            Err(error) => not_started(format!("its output file cannot be shared: {}", describe_io_error(&error))),
        }
    }

    fn spec(&self, program: PathBuf, args: &[&str], output: File) -> CommandSpec {
        let program = program.to_string_lossy().into_owned();
        let mut env: Vec<(String, String)> = self.env.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
        env.push(("PM2_HOME".into(), self.home.to_string_lossy().into_owned()));
        CommandSpec {
            argv: std::iter::once(program).chain(args.iter().map(ToString::to_string)).collect(),
            folder: self.folder.clone(),
            unset: unwanted(),
            env,
            timeout: self.timeout,
            keep: MAX_KEPT,
            stdin: None,
            output,
            scope: self.scope.clone(),
            leftovers: Leftovers::Live,
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caller { home, folder, env: _, timeout, scope: _ } = self;
        let mut shown = f.debug_struct("Caller");
        shown.field("home", home).field("folder", folder).field("timeout", timeout).finish_non_exhaustive()
    }
}

/// Whether a variable of this name is for commands of ours only.
fn is_ours(name: &str) -> bool {
    name.starts_with("WATCHDOG_")
}

/// The names in our own environment that `pm2` must not get. Those that PM2 itself gives are only taken away where it
/// gave them, which shows in its number for us: each could be somebody's own otherwise.
fn unwanted() -> Vec<OsString> {
    let is_under_pm2 = ["pm_id", "pm2_env"].into_iter().any(|name| std::env::var_os(name).is_some());
    let is_unwanted = |name: &str| {
        let is_pm2s = || {
            let begins = ["pm_", "PM2_", "axm_"].into_iter().any(|prefix| name.starts_with(prefix));
            begins || FROM_PM2.split(' ').any(|given| given == name)
        };
        is_ours(name) || is_under_pm2 && is_pm2s()
    };
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_str().is_some_and(is_unwanted)).collect()
}
