//! The command probe: healthy when the command exits 0 within the timeout.
//! It must never write to the disk, start a second command while the first is still being ended, or leave anything
//! running beyond its deadline.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::command::{self, CommandResult, CommandSpec, Leftovers, Scope};
use crate::config::{CommandLine, CutEnds, Secret, Secrets};
use crate::outcome::{Class, Exit, describe_io_error};
use crate::time::HumanDuration;

use super::bounded_task::{BoundedTask, TaskError};
use super::deadline::Deadline;
use super::evidence::{MAX_EXCERPT, Observations};
use super::failure::Failure;
use super::sanitize::sanitize_to;

/// Starting a command and trimming its output need little stack. In bytes.
const THREAD_STACK: usize = 128 << 10;
/// Characters of the last line of output that are shown.
const MAX_LAST_LINE: usize = 80;

#[derive(Debug)]
pub(super) struct CommandProbe {
    argv: Vec<String>,
    folder: PathBuf,
    env: Vec<(String, Secret)>,
    secrets: Secrets,
    task: BoundedTask,
    /// Closed when the probe is dropped, or earlier by a caller that must not wait for the command.
    scope: Scope,
}

impl Drop for CommandProbe {
    fn drop(&mut self) {
        self.scope.close();
    }
}

impl CommandProbe {
    pub(super) fn new(line: &CommandLine, folder: &Path, env: &[(String, Secret)], secrets: &Secrets) -> Self {
        let task = BoundedTask::new("command", THREAD_STACK);
        let (folder, env, secrets) = (folder.into(), env.to_vec(), secrets.clone());
        CommandProbe { argv: line.argv(), folder, env, secrets, task, scope: Scope::default() }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn probe(&self, deadline: Deadline, observations: &mut Observations) -> Result<String, Failure> {
        let (output, kept_output) = open_output()
            .map_err(|error| Failure::Unknown(format!("cannot capture its output: {}", describe_io_error(&error))))?;
        let spec = CommandSpec {
            argv: self.argv.clone(),
            folder: self.folder.clone(),
            unset: Vec::new(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            timeout: deadline.budget(),
            max_output: command::MAX_OUTPUT,
            stdin: None,
            output,
            scope: self.scope.clone(),
            leftovers: Leftovers::End,
        };
        let timeout = |detail: String| Err(Failure::Unhealthy(Class::Timeout, detail));
        match self.task.run(deadline, move || command::run(spec, |_| {})) {
            Ok(result) => evaluate(result, || {
                let (tail, cut_ends) = read_tail(&kept_output);
                let redacted = self.secrets.redact_fragment(&tail, cut_ends);
                let excerpt = &redacted[redacted.ceil_char_boundary(redacted.len().saturating_sub(MAX_EXCERPT))..];
                observations.output = Some(excerpt.to_owned());
                last_line(excerpt)
            }),
            Err(TaskError::TimedOut) => timeout(format!("still running after {}", HumanDuration(deadline.budget()))),
            Err(TaskError::StillRunning) => timeout("the command of an earlier probe is still running".into()),
            Err(TaskError::Failed(reason)) => Err(Failure::Unknown(format!("cannot run the command: {reason}"))),
        }
    }
}

/// The command writes to the first file; the second reads the same output back.
fn open_output() -> io::Result<(File, File)> {
    let output = command::create_memory_output()?;
    let copy = output.try_clone()?;
    Ok((output, copy))
}

fn evaluate(result: CommandResult, last_line: impl FnOnce() -> String) -> Result<String, Failure> {
    let exit = |reason: String| match last_line() {
        line if line.is_empty() => Err(Failure::Unhealthy(Class::Exit, reason)),
        line => Err(Failure::Unhealthy(Class::Exit, format!("{reason}: {line}"))),
    };
    match result.exit {
        Exit::Exited(0) => Ok("exit 0".into()),
        Exit::Exited(code) => exit(format!("exit {code}")),
        Exit::Killed(signal) => exit(format!("killed by signal {signal}")),
        Exit::TimedOut => {
            Err(Failure::Unhealthy(Class::Timeout, format!("still running after {}", HumanDuration(result.duration))))
        }
        Exit::NotStarted(reason) => Err(Failure::Unknown(format!("cannot run the command: {reason}"))),
        Exit::Lost => Err(Failure::Unknown("the exit status of the command is unknown".into())),
    }
}

/// Reads twice what is kept, so that the cut rarely affects the excerpt. An output that cannot be read is empty,
/// because it does not change the verdict.
fn read_tail(output: &File) -> (Vec<u8>, CutEnds) {
    let length = output.metadata().map_or(0, |found| found.len());
    let start = length.saturating_sub(2 * MAX_EXCERPT as u64);
    let mut bytes = vec![0; 2 * MAX_EXCERPT];
    let read = output.read_at(&mut bytes, start).unwrap_or(0);
    bytes.truncate(read);
    (bytes, CutEnds { is_start_cut: start > 0, ..CutEnds::default() })
}

/// The last line that is not blank, sanitized; empty if there is none.
fn last_line(text: &str) -> String {
    sanitize_to(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default(), MAX_LAST_LINE)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(text: &str) -> CommandProbe {
        CommandProbe::new(&CommandLine::Shell(text.into()), Path::new("/"), &[], &Secrets::default())
    }

    fn format_result(result: Result<String, Failure>) -> String {
        match result {
            Ok(detail) => format!("healthy: {detail}"),
            Err(Failure::Unhealthy(class, detail)) => format!("{class}: {detail}"),
            Err(Failure::Unknown(detail)) => format!("unknown: {detail}"),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(format_result(shell(text).probe(Deadline::after(LONG), &mut Observations::default())), expected);
    }

    #[test]
    fn the_exit_code_decides_and_the_last_line_explains() {
        check("echo fine", "healthy: exit 0");
        check("exit 3", "exit: exit 3");
        check("echo starting; echo database locked >&2; echo; exit 3", "exit: exit 3: database locked");
        check("printf 'a\\033[31m\\n'; exit 1", "exit: exit 1: a\\u{1b}[31m");
        check("kill -9 $$", "exit: killed by signal 9");
        check("i=0; while [ $i -lt 300000 ]; do echo line $i; i=$((i+1)); done; exit 4", "exit: exit 4: line 299999");
        check("exit 126", "unknown: cannot run the command: exit code 126 (shell: not executable)");
        check("exit 127", "unknown: cannot run the command: exit code 127 (shell: command not found)");
    }

    #[test]
    fn a_secret_in_the_output_is_redacted() {
        let line = CommandLine::Shell("echo no access with s3cret; exit 3".into());
        let probe = CommandProbe::new(&line, Path::new("/"), &[], &Secrets::of(&["s3cret"]));
        assert_eq!(
            format_result(probe.probe(Deadline::after(LONG), &mut Observations::default())),
            "exit: exit 3: no access with …"
        );
    }

    #[test]
    fn a_command_that_cannot_be_started_is_unknown() {
        let line = CommandLine::Exec(vec!["./no-such-program".into()]);
        let result = CommandProbe::new(&line, Path::new("/"), &[], &Secrets::default())
            .probe(Deadline::after(LONG), &mut Observations::default());
        assert!(matches!(result, Err(Failure::Unknown(_))), "{result:?}");
    }

    #[test]
    fn a_command_runs_in_its_folder_with_its_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let env = [("WORD".to_owned(), Secret("given".into()))];
        let line = CommandLine::Shell("echo \"$WORD\" > here".into());
        let result = CommandProbe::new(&line, folder.path(), &env, &Secrets::default())
            .probe(Deadline::after(LONG), &mut Observations::default());
        assert_eq!(result, Ok("exit 0".into()));
        assert_eq!(fs::read_to_string(folder.path().join("here")).expect("what it wrote"), "given\n");
    }

    #[test]
    fn a_command_that_does_not_end_is_a_timeout_and_no_second_one_starts() {
        let folder = tempfile::tempdir().expect("a folder");
        let (running, runs) = (folder.path().join("running"), folder.path().join("runs"));
        fs::write(&running, "").expect("a file");
        let timeout = Duration::from_secs(1);
        // It ignores SIGTERM, so it still runs at the second probe.
        let line =
            CommandLine::Shell("trap '' TERM; echo run >> runs; while [ -e running ]; do sleep 0.02; done".into());
        let probe = CommandProbe::new(&line, folder.path(), &[], &Secrets::default());
        let probe_once = |timeout| {
            let deadline = Deadline::after(timeout);
            let result = format_result(probe.probe(deadline, &mut Observations::default()));
            assert!(deadline.elapsed() < timeout + Duration::from_secs(4), "{:?}", deadline.elapsed());
            result
        };
        assert_eq!(probe_once(timeout), "timeout: still running after 1 s");
        assert_eq!(probe_once(Duration::ZERO), "timeout: the command of an earlier probe is still running");
        assert_eq!(fs::read_to_string(&runs).expect("what it wrote"), "run\n");

        // Once it has ended, the next probe starts another one.
        fs::remove_file(&running).expect("the file");
        let limit = Deadline::after(LONG);
        while probe_once(LONG) != "healthy: exit 0" && limit.remaining().is_some() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(fs::read_to_string(&runs).expect("what it wrote"), "run\nrun\n");
    }
}
