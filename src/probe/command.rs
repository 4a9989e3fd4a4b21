//! A look by a command: it must exit with 0 in time.
//! It must never write to the disk, never start a second command while the first is still being ended, and never leave
//! anything running beyond its deadline.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::command::{self, CommandResult, CommandSpec, Leftovers, Scope};
use crate::config::{CommandLine, CutEnds, Secret, Secrets};
use crate::outcome::{Class, Exit, describe_io_error};
use crate::time::HumanDuration;

use super::bounded_task::{BoundedTask, TaskError};
use super::deadline::Deadline;
use super::evidence::{KEPT, Observations};
use super::failure::Failure;
use super::sanitize::sanitize_to;

/// Starting a command and cutting its output take little.
const STACK: usize = 128 << 10;
/// Characters of the last line that are shown.
const SHOWN: usize = 80;

#[derive(Debug)]
pub(super) struct CommandProbe {
    argv: Vec<String>,
    folder: PathBuf,
    env: Vec<(String, Secret)>,
    secrets: Secrets,
    running: BoundedTask,
    /// Closed with the probe, and by whoever is to end before the command is.
    scope: Scope,
}

impl Drop for CommandProbe {
    fn drop(&mut self) {
        self.scope.close();
    }
}

impl CommandProbe {
    pub(super) fn new(line: &CommandLine, folder: &Path, env: &[(String, Secret)], secrets: &Secrets) -> Self {
        let running = BoundedTask::new("command", STACK);
        let (folder, env, secrets) = (folder.into(), env.to_vec(), secrets.clone());
        CommandProbe { argv: line.argv(), folder, env, secrets, running, scope: Scope::default() }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn probe(&self, deadline: Deadline, seen: &mut Observations) -> Result<String, Failure> {
        let output = command::memory_output()
            .map_err(|error| Failure::Ours(format!("cannot take its output: {}", describe_io_error(&error))))?;
        let kept = output.try_clone();
        let kept =
            kept.map_err(|error| Failure::Ours(format!("cannot take its output: {}", describe_io_error(&error))))?;
        let spec = CommandSpec {
            argv: self.argv.clone(),
            folder: self.folder.clone(),
            unset: Vec::new(),
            env: self.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            timeout: deadline.budget(),
            keep: command::MAX_KEPT,
            stdin: None,
            output,
            scope: self.scope.clone(),
            leftovers: Leftovers::End,
        };
        let late = |detail: String| Err(Failure::Target(Class::Timeout, detail));
        match self.running.run(deadline, move || command::run(spec, |_| {})) {
            Ok(ended) => judge(ended, || {
                let (end, ends) = end_of(&kept);
                let said = self.secrets.redact_fragment(&end, ends);
                let said = &said[said.ceil_char_boundary(said.len().saturating_sub(KEPT))..];
                seen.output = Some(said.to_owned());
                last_line(said)
            }),
            Err(TaskError::Late) => late(format!("still running after {}", HumanDuration(deadline.budget()))),
            Err(TaskError::Hanging) => late("the command of an earlier look is still there".into()),
            Err(TaskError::Ours(trouble)) => Err(Failure::Ours(format!("cannot run the command: {trouble}"))),
        }
    }
}

fn judge(ended: CommandResult, last_line: impl FnOnce() -> String) -> Result<String, Failure> {
    let exit = |what: String| match last_line() {
        line if line.is_empty() => Err(Failure::Target(Class::Exit, what)),
        line => Err(Failure::Target(Class::Exit, format!("{what}: {line}"))),
    };
    match ended.exit {
        Exit::Exited(0) => Ok("exit 0".into()),
        Exit::Exited(code) => exit(format!("exit {code}")),
        Exit::Killed(signal) => exit(format!("killed by signal {signal}")),
        Exit::TimedOut => {
            Err(Failure::Target(Class::Timeout, format!("still running after {}", HumanDuration(ended.duration))))
        }
        Exit::NotStarted(reason) => Err(Failure::Ours(format!("cannot run the command: {reason}"))),
        Exit::Lost => Err(Failure::Ours("it cannot be known how the command ended".into())),
    }
}

/// Longer than what is kept, so that the cut is seldom among what is shown. What cannot be read is not worth a failure.
fn end_of(output: &File) -> (Vec<u8>, CutEnds) {
    let length = output.metadata().map_or(0, |found| found.len());
    let start = length.saturating_sub(2 * KEPT as u64);
    let mut bytes = vec![0; 2 * KEPT];
    let read = output.read_at(&mut bytes, start).unwrap_or(0);
    bytes.truncate(read);
    (bytes, CutEnds { is_start_cut: start > 0, ..CutEnds::default() })
}

/// The last line with something in it, tamed; empty where there is none.
fn last_line(text: &str) -> String {
    sanitize_to(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default(), SHOWN)
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

    fn words(looked: Result<String, Failure>) -> String {
        match looked {
            Ok(detail) => format!("healthy: {detail}"),
            Err(Failure::Target(class, detail)) => format!("{class}: {detail}"),
            Err(Failure::Ours(detail)) => format!("unknown: {detail}"),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(words(shell(text).probe(Deadline::after(LONG), &mut Observations::default())), expected);
    }

    #[test]
    fn the_exit_code_judges_and_the_last_line_explains() {
        check("echo fine", "healthy: exit 0");
        check("exit 3", "exit: exit 3");
        check("echo starting; echo database locked >&2; echo; exit 3", "exit: exit 3: database locked");
        check("printf 'a\\033[31m\\n'; exit 1", "exit: exit 1: a\\u{1b}[31m");
        check("kill -9 $$", "exit: killed by signal 9");
        check("i=0; while [ $i -lt 300000 ]; do echo line $i; i=$((i+1)); done; exit 4", "exit: exit 4: line 299999");
        check("exit 126", "unknown: cannot run the command: exit code 126, a shell's word for not executable");
        check("exit 127", "unknown: cannot run the command: exit code 127, a shell's word for command not found");
    }

    #[test]
    fn a_secret_that_is_printed_is_struck_out() {
        let line = CommandLine::Shell("echo no access with s3cret; exit 3".into());
        let probe = CommandProbe::new(&line, Path::new("/"), &[], &Secrets::of(&["s3cret"]));
        assert_eq!(
            words(probe.probe(Deadline::after(LONG), &mut Observations::default())),
            "exit: exit 3: no access with …"
        );
    }

    #[test]
    fn what_cannot_be_started_is_unknown() {
        let line = CommandLine::Exec(vec!["./no-such-program".into()]);
        let look = CommandProbe::new(&line, Path::new("/"), &[], &Secrets::default())
            .probe(Deadline::after(LONG), &mut Observations::default());
        assert!(matches!(look, Err(Failure::Ours(_))), "{look:?}");
    }

    #[test]
    fn it_runs_in_its_folder_with_its_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let env = [("WORD".to_owned(), Secret("told".into()))];
        let line = CommandLine::Shell("echo \"$WORD\" > here".into());
        let look = CommandProbe::new(&line, folder.path(), &env, &Secrets::default())
            .probe(Deadline::after(LONG), &mut Observations::default());
        assert_eq!(look, Ok("exit 0".into()));
        assert_eq!(fs::read_to_string(folder.path().join("here")).expect("what it wrote"), "told\n");
    }

    #[test]
    fn one_that_does_not_end_is_a_timeout_and_is_not_doubled() {
        let folder = tempfile::tempdir().expect("a folder");
        let (hold, runs) = (folder.path().join("hold"), folder.path().join("runs"));
        fs::write(&hold, "").expect("a file");
        let timeout = Duration::from_secs(1);
        // It ignores the first signal, so it is still there at the second look.
        let line = CommandLine::Shell("trap '' TERM; echo run >> runs; while [ -e hold ]; do sleep 0.02; done".into());
        let probe = CommandProbe::new(&line, folder.path(), &[], &Secrets::default());
        let look = |timeout| {
            let deadline = Deadline::after(timeout);
            let found = words(probe.probe(deadline, &mut Observations::default()));
            assert!(deadline.elapsed() < timeout + Duration::from_secs(4), "{:?}", deadline.elapsed());
            found
        };
        assert_eq!(look(timeout), "timeout: still running after 1 s");
        assert_eq!(look(Duration::ZERO), "timeout: the command of an earlier look is still there");
        assert_eq!(fs::read_to_string(&runs).expect("what it wrote"), "run\n");

        // When it is gone, the next look starts one again.
        fs::remove_file(&hold).expect("the file");
        let patience = Deadline::after(LONG);
        while look(LONG) != "healthy: exit 0" && patience.left().is_some() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(fs::read_to_string(&runs).expect("what it wrote"), "run\nrun\n");
    }
}
