//! Runs `pm2`, one call at a time, each with a deadline. It must never pass on the watchdog's own variables, because
//! PM2 gives its caller's environment to the processes that it starts, and never expose a printed list, which contains
//! every variable of every process.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{self, CommandResult, CommandSpec, Leftovers, MAX_OUTPUT, RUNTIME_DIR, Scope};
use crate::outcome::{Exit, describe_io_error};
use crate::process::Process;
use crate::time::HumanDuration;

use super::{App, parse_list};

/// `pm2 jlist` takes half a second, and 4 s with a tenth of a core.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// 100 processes with 100 KB of variables each make a list of 10 MB.
const MAX_LIST_BYTES: u64 = 16 << 20;
/// The variables that PM2 and node add to the environment of a process, apart from those that begin with `pm_`, `PM2_`
/// or `axm_`. A watchdog that runs under PM2 has them, and a `pm2` that it calls would apply them to the processes that
/// it starts.
const PM2_VARIABLES: &str = "name namespace args node_args interpreter_args exec_mode exec_interpreter instances \
                        instance_var increment_var autostart autorestart stop_exit_codes watch ignore_watch \
                        watch_delay cron_restart restart_delay exp_backoff_restart_delay max_restarts \
                        max_memory_restart min_uptime kill_timeout listen_timeout shutdown_with_message wait_ready \
                        treekill kill_retry_time merge_logs log_date_format log_type time vizion vizion_running \
                        versioning pmx automation km_link filter_env username uid gid windowsHide unique_id status \
                        created_at restart_time unstable_restarts prev_restart_delay exit_code version node_version \
                        source_map_support disable_trace post_update command pm2_env NODE_APP_INSTANCE \
                        NODE_UNIQUE_ID NODE_CHANNEL_FD NODE_CHANNEL_SERIALIZATION_MODE";

/// Calls `pm2` for one home. Its `Debug` output omits the environment.
#[derive(Clone)]
pub struct Caller {
    pub home: PathBuf,
    /// The working directory for `pm2`, and so for a daemon that it starts.
    pub folder: PathBuf,
    /// Variables added to the watchdog's own environment.
    pub env: Vec<(String, String)>,
    /// The time limit of each call except `list`.
    pub timeout: Duration,
    /// Once closed, no further call or action is started.
    pub scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    Apps(Vec<App>),
    /// The daemon did not answer within 10 s.
    Silent,
    Failed(String),
}

impl Caller {
    /// Finds `pm2` in `PATH`, and checks that the interpreter in its first line exists.
    /// Errors: which of the two cannot be run, and why.
    pub fn find_program(&self) -> Result<PathBuf, String> {
        command::find_with_interpreter("pm2", &self.folder, command::effective_path(&self.env).as_deref())
    }

    /// PM2's list of its processes. Call this only if the daemon accepts connections: without a daemon, `pm2` starts
    /// one. Takes up to 10 s, and 10 s more if `pm2` does not end on SIGTERM.
    pub fn list(&self) -> Listing {
        let failed =
            |error: io::Error| Listing::Failed(format!("cannot read PM2's list: {}", describe_io_error(&error)));
        let output = match command::create_memory_output() {
            Ok(output) => output,
            Err(error) => return failed(error),
        };
        let mut kept = match output.try_clone() {
            Ok(kept) => kept,
            Err(error) => return failed(error),
        };
        let program = match self.find_program() {
            Ok(program) => program,
            Err(reason) => return Listing::Failed(reason),
        };
        let spec = self.command_spec(program, &["jlist", "-s"], output);
        // A daemon that `pm2` starts has its own session, so `Leftovers::End` does not end it.
        let spec = CommandSpec { timeout: LIST_TIMEOUT, max_output: MAX_LIST_BYTES, leftovers: Leftovers::End, ..spec };
        let result = command::run(spec, |_| {});
        match result.exit {
            Exit::Exited(0) => {}
            Exit::TimedOut => return Listing::Silent,
            Exit::Exited(code) => return Listing::Failed(format!("pm2 jlist exited with {code}")),
            Exit::Killed(signal) => return Listing::Failed(format!("pm2 jlist was killed by signal {signal}")),
            Exit::NotStarted(reason) => return Listing::Failed(reason),
            Exit::Lost => return Listing::Failed("the result of pm2 jlist is unknown".into()),
        }
        let mut bytes = Vec::new();
        let read = kept.rewind().and_then(|()| kept.read_to_end(&mut bytes));
        match (read, parse_list(&bytes)) {
            (Err(error), _) => failed(error),
            (Ok(_), Some(apps)) => Listing::Apps(apps),
            (Ok(length), None) => Listing::Failed(format!(
                "pm2 jlist printed no list ({length} bytes in {})",
                HumanDuration(result.duration)
            )),
        }
    }

    /// Runs `pm2`. `on_start` is called as soon as there is a process; `output` must be open for appending.
    pub fn call(&self, args: &[&str], output: &File, on_start: &mut dyn FnMut(Process)) -> CommandResult {
        let not_started = |reason| CommandResult { exit: Exit::NotStarted(reason), duration: Duration::ZERO };
        let program = match self.find_program() {
            Ok(program) => program,
            Err(reason) => return not_started(reason),
        };
        match output.try_clone() {
            Ok(output) => command::run(self.command_spec(program, args, output), on_start),
            Err(error) => not_started(format!("cannot duplicate its output file: {}", describe_io_error(&error))),
        }
    }

    fn command_spec(&self, program: PathBuf, args: &[&str], output: File) -> CommandSpec {
        let program = program.to_string_lossy().into_owned();
        let mut env: Vec<(String, String)> =
            self.env.iter().filter(|(name, _)| !is_watchdog_variable(name)).cloned().collect();
        env.push(("PM2_HOME".into(), self.home.to_string_lossy().into_owned()));
        CommandSpec {
            argv: std::iter::once(program).chain(args.iter().map(ToString::to_string)).collect(),
            folder: self.folder.clone(),
            unset: variables_to_unset(),
            env,
            timeout: self.timeout,
            max_output: MAX_OUTPUT,
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

/// Whether the watchdog sets this variable for its own commands.
fn is_watchdog_variable(name: &str) -> bool {
    name.starts_with("WATCHDOG_")
}

/// The variables in the watchdog's own environment that `pm2` must not get. Those of PM2 are removed only if the
/// watchdog itself runs under PM2, which `pm_id` or `pm2_env` shows: otherwise each could be the operator's own.
fn variables_to_unset() -> Vec<OsString> {
    let is_under_pm2 = ["pm_id", "pm2_env"].into_iter().any(|name| std::env::var_os(name).is_some());
    let is_from_pm2 = |name: &str| {
        let has_prefix = ["pm_", "PM2_", "axm_"].into_iter().any(|prefix| name.starts_with(prefix));
        has_prefix || PM2_VARIABLES.split(' ').any(|variable| variable == name)
    };
    let is_unwanted = |name: &str| is_watchdog_variable(name) || is_under_pm2 && is_from_pm2(name);
    let names = std::env::vars_os().map(|(name, _)| name);
    // Only the operator's own: PM2 would keep one that we add for all that it starts.
    let runtime_dir = std::env::var_os(RUNTIME_DIR).is_none_or(|value| value.is_empty()).then(|| RUNTIME_DIR.into());
    names.filter(|name| name.to_str().is_some_and(is_unwanted)).chain(runtime_dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pm2_gets_the_operators_runtime_dir_and_not_ours() {
        let is_inherited = std::env::var_os(RUNTIME_DIR).is_some_and(|value| !value.is_empty());
        assert_eq!(variables_to_unset().iter().any(|name| name == RUNTIME_DIR), !is_inherited);
    }
}
