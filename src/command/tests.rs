//! Tests with real `sh` and real processes.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod scope;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::testing::{is_alone, run_alone};

/// Enough for a command that ends by itself, on the slowest machine.
const AMPLE: Duration = Duration::from_secs(120);
/// Enough for a shell to set its traps.
const SHORT: Duration = Duration::from_secs(2);

struct Sandbox(TempDir);

impl Sandbox {
    fn new() -> Self {
        Sandbox(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn spec(&self, argv: &[&str], timeout: Duration) -> CommandSpec {
        CommandSpec {
            argv: argv.iter().map(ToString::to_string).collect(),
            folder: self.0.path().to_owned(),
            unset: Vec::new(),
            env: Vec::new(),
            timeout,
            max_output: MAX_OUTPUT,
            stdin: None,
            output: create_output(&self.at("output")).unwrap(),
            scope: Scope::default(),
            leftovers: Leftovers::Live,
        }
    }

    fn shell(&self, text: &str, timeout: Duration) -> CommandResult {
        run(self.spec(&["sh", "-c", text], timeout), |_| {})
    }

    fn output(&self) -> String {
        String::from_utf8(fs::read(self.at("output")).unwrap()).unwrap()
    }

    /// Waits until a process has written its pid to the file `name`, and identifies it.
    #[track_caller]
    fn process(&self, name: &str) -> Process {
        let mut pid = None;
        eventually(|| {
            pid = fs::read_to_string(self.at(name)).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
            pid.is_some()
        });
        process::identify(pid.unwrap())
    }
}

#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool) {
    let started = clock::monotonic();
    while !condition() {
        assert!(since(started) < AMPLE, "the condition was not met in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn kill(process: Process) {
    if is_alive(process) {
        rustix::process::kill_process(Pid::from_raw(process.pid as i32).unwrap(), Signal::KILL).unwrap();
    }
    eventually(|| !is_alive(process));
}

#[track_caller]
fn check(argv: &[&str], expected: Exit, output: &str) {
    let sandbox = Sandbox::new();
    symlink("/bin/echo", sandbox.at("say")).unwrap();
    fs::write(sandbox.at("text"), "just text").unwrap();
    fs::write(sandbox.at("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(sandbox.at("script"), PermissionsExt::from_mode(0o700)).unwrap();
    let mut started = None;
    let env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    let spec = CommandSpec { env, ..sandbox.spec(argv, AMPLE) };
    let result = run(spec, |process| started = Some(process));
    let here = format!("{}/", sandbox.0.path().display());
    let exit = match result.exit {
        Exit::NotStarted(reason) => Exit::NotStarted(reason.replace(&here, "")),
        other => other,
    };
    assert_eq!((exit, sandbox.output().as_str()), (expected, output), "{argv:?}");
    assert!(started.is_none_or(|process| process.started > 0 && !is_alive(process)), "{started:?}");
}

#[test]
fn every_way_to_end_is_distinguished() {
    let not_started = |reason: &str| Exit::NotStarted(reason.into());
    check(&["sh", "-c", "echo out; echo err >&2"], Exit::Exited(0), "out\nerr\n");
    check(&["sh", "-c", "exit 3"], Exit::Exited(3), "");
    check(&["sh", "-c", "kill -9 $$"], Exit::Killed(9), "");
    check(&["sh", "-c", "kill -TERM $$"], Exit::Killed(15), "");
    check(&["./say", "from the folder"], Exit::Exited(0), "from the folder\n");
    check(&["sh", "-c", "exit 126"], not_started("exit code 126 (shell: not executable)"), "");
    check(&["sh", "-c", "exit 127"], not_started("exit code 127 (shell: command not found)"), "");
    check(&["no-such-program"], not_started("command not found: no-such-program (PATH=/usr/bin:/bin)"), "");
    check(&["./missing"], not_started("no such file: ./missing"), "");
    check(&["./text"], not_started("not executable: ./text"), "");
    check(&["/"], not_started("a folder, not a program: /"), "");
    check(&["./script"], not_started("the interpreter in the first line of ./script does not exist"), "");
    check(&[], not_started("the command is empty"), "");
    check(&["sh\0"], not_started("sh\0: nul byte found in provided data"), "");
}

#[test]
fn a_missing_folder_is_not_reported_as_a_missing_program() {
    let sandbox = Sandbox::new();
    let spec = CommandSpec { folder: "/no/such/folder".into(), ..sandbox.spec(&["sh", "-c", "exit 0"], AMPLE) };
    let result = run(spec, |_| {});
    assert_eq!(result.exit, Exit::NotStarted("no such folder: /no/such/folder".into()));
}

#[test]
fn a_command_gets_the_given_environment_and_nothing_of_systemd() {
    if !is_alone() {
        let env = ["env", "NOTIFY_SOCKET=/run/n", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", "COLOUR=red"];
        run_alone("command::tests::a_command_gets_the_given_environment_and_nothing_of_systemd", &env);
        return;
    }
    let sandbox = Sandbox::new();
    symlink("/bin/echo", sandbox.at("only-here")).unwrap();
    let text = "echo ${NOTIFY_SOCKET-no} ${WATCHDOG_USEC-no} ${WATCHDOG_PID-no} $COLOUR $WATCHDOG_TARGET; pwd -P; cat";
    let mut spec = sandbox.spec(&["sh", "-c", text], AMPLE);
    spec.env = vec![("WATCHDOG_TARGET".into(), "mailer".into()), ("COLOUR".into(), "blue".into())];
    assert_eq!(run(spec, |_| {}).exit, Exit::Exited(0));
    let folder = fs::canonicalize(sandbox.0.path()).unwrap();
    assert_eq!(sandbox.output(), format!("no no no blue mailer\n{}\n", folder.display()));

    let mut spec = sandbox.spec(&["only-here", "found in the PATH given"], AMPLE);
    spec.env = vec![("PATH".into(), sandbox.0.path().display().to_string())];
    assert_eq!(run(spec, |_| {}).exit, Exit::Exited(0));
    assert_eq!(sandbox.output(), "found in the PATH given\n");
}

#[test]
fn a_command_leads_its_own_group() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.shell("test $$ = $(cut -d ' ' -f 5 /proc/$$/stat)", AMPLE).exit, Exit::Exited(0));
}

#[test]
fn a_command_inherits_no_descriptor_and_no_signal_mask() {
    let sandbox = Sandbox::new();
    let secret = File::create(sandbox.at("secret")).unwrap();
    let result = sandbox.shell("ls -l /proc/self/fd; grep Sig /proc/self/status", AMPLE);
    assert_eq!(result.exit, Exit::Exited(0));
    drop(secret);
    let output = sandbox.output();
    let here = sandbox.0.path().display().to_string();
    for expected in [" 0 -> /dev/null\n".into(), format!(" 1 -> {here}/output\n"), format!(" 2 -> {here}/output\n")] {
        assert!(output.contains(&expected), "{expected} in\n{output}");
    }
    assert_eq!(output.matches(&here).count(), 2, "{output}");

    let mask = |status: &str, name: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
        u64::from_str_radix(digits, 16).unwrap() & 0x7fff_ffff // the C library reserves the signals above
    };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let pipe = 1 << (Signal::PIPE.as_raw() - 1);
    assert_eq!(mask(&own, "SigIgn") & pipe, pipe, "Rust ignores SIGPIPE in this process");
    assert_eq!(mask(&output, "SigIgn"), mask(&own, "SigIgn") & !pipe);
    assert_eq!(mask(&output, "SigBlk"), 0);
}

#[test]
fn at_the_timeout_the_group_gets_sigterm() {
    let sandbox = Sandbox::new();
    let started = clock::monotonic();
    let result = sandbox.shell("sleep 1000 & echo $! >child; kill -STOP $$", SHORT);
    assert_eq!(result.exit, Exit::TimedOut);
    assert!(result.duration >= SHORT && result.duration <= since(started), "{result:?}");
    assert!(result.duration < SHORT + GRACE, "a stopped process must continue and end: {result:?}");
    assert!(!is_alive(sandbox.process("child")));
}

#[test]
fn processes_that_ignore_sigterm_are_killed() {
    let sandbox = Sandbox::new();
    let text = "trap '' TERM; (echo ready; sleep 1000) & echo $! >child; sleep 1000";
    let result = sandbox.shell(text, SHORT);
    assert_eq!(result.exit, Exit::TimedOut);
    assert!(result.duration >= SHORT + GRACE, "{result:?}");
    assert!(!is_alive(sandbox.process("child")));
}

#[test]
fn a_group_gets_its_five_seconds_even_if_its_leader_ends_at_once() {
    let sandbox = Sandbox::new();
    let tidy = "trap 'sleep 0.3; echo tidied; exit' TERM; echo here; while :; do sleep 0.05; done";
    let result = run(sandbox.spec(&["sh", "-c", "sh -c \"$0\" & wait", tidy], SHORT), |_| {});
    assert_eq!(result.exit, Exit::TimedOut);
    assert!(sandbox.output().ends_with("\ntidied\n"), "{}", sandbox.output());
    assert!(result.duration < SHORT + GRACE, "{:?}", result.duration);
}

#[test]
fn what_a_command_leaves_running_lives_and_can_still_write() {
    let sandbox = Sandbox::new();
    let text = "setsid sh -c 'echo $$ >daemon; while kill -0 $0; do echo beat; sleep 0.02; done' $PPID & \
                sleep 1000 & echo $! >child";
    let result = sandbox.shell(text, AMPLE);
    assert_eq!(result.exit, Exit::Exited(0));
    let (daemon, child) = (sandbox.process("daemon"), sandbox.process("child"));
    let beats = || sandbox.output().matches("beat").count();
    let before = beats();
    eventually(|| beats() > before + 3);
    assert!(is_alive(daemon) && is_alive(child));
    kill(daemon);
    kill(child);
}

#[test]
fn a_long_output_is_trimmed_while_the_command_runs() {
    let sandbox = Sandbox::new();
    let text = "echo first; until [ -e enough ]; do yes 0123456789 | head -c 10000000; done; touch over; \
                until [ -e cut ]; do sleep 0.02; done; echo last";
    let spec = sandbox.spec(&["sh", "-c", text], AMPLE);
    let output = spec.output.try_clone().unwrap();
    let runner = thread::spawn(move || run(spec, |_| {}));
    let mut longest = 0;
    eventually(|| {
        let length = output.metadata().unwrap().len();
        longest = longest.max(length);
        longest > 1_000_000 && length < longest / 2
    });
    fs::write(sandbox.at("enough"), "").unwrap();
    // Bytes written during a trim may be lost, so it must have ended.
    let is_cut = |kept: &str| kept.contains(" bytes cut out here]\n") && kept.ends_with("\n0123456789");
    eventually(|| {
        let is_short = || output.metadata().unwrap().len() <= TRIM_THRESHOLD;
        sandbox.at("over").exists() && is_short() && is_cut(&sandbox.output())
    });
    fs::write(sandbox.at("cut"), "").unwrap();
    assert_eq!(runner.join().unwrap().exit, Exit::Exited(0));
    let kept = sandbox.output();
    assert!(kept.len() < MAX_OUTPUT as usize + 64, "{} bytes kept", kept.len());
    assert!(kept.starts_with("first\n0123456789\n"), "{:?}", &kept[..100]);
    assert!(kept.ends_with("\n0123456789last\n"), "{:?}", &kept[kept.len() - 100..]);
    assert!(kept.contains(" bytes cut out here]\n"));
}

#[test]
fn the_output_of_a_child_left_behind_is_trimmed() {
    let sandbox = Sandbox::new();
    let text = "setsid sh -c 'echo $$ >daemon; while kill -0 $0; do echo a line of a daemon; done' $PPID &";
    assert_eq!(sandbox.shell(text, AMPLE).exit, Exit::Exited(0));
    let daemon = sandbox.process("daemon");
    let length = || fs::metadata(sandbox.at("output")).unwrap().len();
    for _ in 0..3 {
        eventually(|| length() > 2 * MAX_OUTPUT);
        assert!(trim_output(&sandbox.at("output")).unwrap() > 0);
    }
    assert!(is_alive(daemon));
    kill(daemon);
    trim_output(&sandbox.at("output")).unwrap();
    let kept = sandbox.output();
    assert_eq!(kept.matches("bytes cut out here").count(), 1);
    assert!(!kept.contains('\0') && kept.ends_with("a line of a daemon\n"));
}

#[test]
fn an_adopted_command_is_waited_for() {
    let mut child = Command::new("sleep").arg("0.3").process_group(0).spawn().unwrap();
    let process = process::identify(child.id());
    let reaper = thread::spawn(move || child.wait());
    let result = adopt(process, AMPLE);
    assert_eq!(result.exit, Exit::Lost);
    assert!(result.duration < AMPLE && !is_alive(process), "{result:?}");
    reaper.join().unwrap().unwrap();
}

#[test]
fn an_adopted_command_is_ended_at_its_timeout_with_its_group() {
    let sandbox = Sandbox::new();
    let text = format!("cd {}; trap '' TERM; sleep 1000 & echo $! >child; wait", sandbox.0.path().display());
    let mut child = Command::new("sh").args(["-c", &text]).process_group(0).spawn().unwrap();
    let process = process::identify(child.id());
    let grandchild = sandbox.process("child");
    let reaper = thread::spawn(move || child.wait());
    let result = adopt(process, SHORT);
    assert_eq!(result.exit, Exit::Lost);
    assert!(result.duration >= SHORT + GRACE, "{result:?}");
    assert!(!is_alive(process) && !is_alive(grandchild));
    assert_eq!(reaper.join().unwrap().unwrap().signal(), Some(9));
}

#[test]
fn another_process_with_the_pid_of_an_adopted_command_is_not_touched() {
    let mut child = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let foreign = process::identify(child.id());
    let before = Process { started: foreign.started - 1, ..foreign };
    assert_eq!(adopt(before, Duration::ZERO).exit, Exit::Lost);
    assert!(is_alive(foreign));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_command_is_found_by_its_environment_but_its_children_are_not() {
    let sandbox = Sandbox::new();
    let marks = |text: &str| [("MARK".to_string(), format!("{text} {}", sandbox.0.path().display()))];
    let text = "setsid sleep 1000 & echo $! >daemon; sleep 1000 & echo $! >child; echo $$ >self; \
                until test -e go; do sleep 0.01; done";
    let spec = CommandSpec { env: marks("this").into(), ..sandbox.spec(&["sh", "-c", text], AMPLE) };
    let command = thread::spawn(move || run(spec, |_| {}));
    let own = sandbox.process("self");
    let leftovers = [sandbox.process("daemon"), sandbox.process("child")];
    // setsid(1) must have created the session first.
    eventually(|| process::group_led_by(leftovers[0]).is_some());
    assert_eq!(process::find_by_environment(&marks("this")), Some(own));
    assert_eq!(process::find_by_environment(&marks("that")), None);
    fs::write(sandbox.at("go"), "").unwrap();
    assert_eq!(command.join().unwrap().exit, Exit::Exited(0));
    assert!(leftovers.iter().all(|process| is_alive(*process)));
    assert_eq!(process::find_by_environment(&marks("this")), None);
    leftovers.into_iter().for_each(kill);
}

#[test]
fn a_process_that_leads_no_group_is_not_a_command_and_not_touched() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let foreign = process::identify(child.id());
    let result = adopt(foreign, Duration::ZERO);
    assert_eq!(result.exit, Exit::Lost);
    assert!(result.duration < GRACE && is_alive(foreign), "{result:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_shortage_of_descriptors_or_processes_is_reported_as_such() {
    if !is_alone() {
        run_alone("command::tests::a_shortage_of_descriptors_or_processes_is_reported_as_such", &["env"]);
        return;
    }
    let sandbox = Sandbox::new();
    let specs: Vec<CommandSpec> = (0..8).map(|_| sandbox.spec(&["sh", "-c", "exit 0"], AMPLE)).collect();
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut refused = Vec::new();
    for spec in specs {
        let result = run(spec, |_| {}); // dropping the spec frees its descriptor
        if result.exit == Exit::Exited(0) {
            break;
        }
        let expected = ["cannot start a process: ", "cannot reopen its output file: "];
        let Exit::NotStarted(reason) = &result.exit else { panic!("{result:?}") };
        assert!(expected.iter().any(|start| reason.starts_with(start)), "{result:?}");
        refused.push(result.exit);
        held.pop();
    }
    assert!(refused.len() > 1 && refused.len() < 8, "{refused:?}");
    drop(held);

    // Root is usually exempt from the limit of processes, so this part tests something for other users only.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Nproc, none).unwrap();
    let result = sandbox.shell("exit 0", AMPLE);
    let is_exempt = rustix::process::getuid().is_root() && result.exit == Exit::Exited(0);
    let is_refused = matches!(&result.exit, Exit::NotStarted(reason) if reason.starts_with("cannot start a process: "));
    assert!(is_refused || is_exempt, "{result:?}");
}

#[test]
fn with_sigchld_ignored_every_exit_is_lost_but_nothing_hangs() {
    if !is_alone() {
        let test = "command::tests::with_sigchld_ignored_every_exit_is_lost_but_nothing_hangs";
        run_alone(test, &["env", "--ignore-signal=CHLD"]);
        return;
    }
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.shell("exit 3", AMPLE).exit, Exit::Lost);
    assert_eq!(sandbox.shell("sleep 1000", SHORT).exit, Exit::TimedOut);
}
