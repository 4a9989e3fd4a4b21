//! Commands of every kind, with real `sh` and real processes.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod scope;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::testing::{is_alone, run_alone};

/// Enough for whatever is meant to end by itself, on the slowest machine.
const AMPLE: Duration = Duration::from_secs(120);
/// Enough for a shell to have set its traps.
const SHORT: Duration = Duration::from_secs(2);

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
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
            keep: MAX_KEPT,
            stdin: None,
            output: open_output(&self.at("output")).unwrap(),
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

    /// The process that wrote its number into the file `name`, which it may still be about to do.
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
    let began = clock::monotonic();
    while !condition() {
        assert!(since(began) < AMPLE, "it did not happen");
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
    let place = Place::new();
    symlink("/bin/echo", place.at("say")).unwrap();
    fs::write(place.at("text"), "just text").unwrap();
    fs::write(place.at("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(place.at("script"), PermissionsExt::from_mode(0o700)).unwrap();
    let mut told = None;
    let ended = run(place.spec(argv, AMPLE), |process| told = Some(process));
    let here = format!("{}/", place.0.path().display());
    let ending = match ended.exit {
        Exit::NotStarted(reason) => Exit::NotStarted(reason.replace(&here, "")),
        other => other,
    };
    assert_eq!((ending, place.output().as_str()), (expected, output), "{argv:?}");
    assert!(told.is_none_or(|process| process.started > 0 && !is_alive(process)), "{told:?}");
}

#[test]
fn every_way_to_end_is_told_apart() {
    let not_started = |reason: &str| Exit::NotStarted(reason.into());
    check(&["sh", "-c", "echo out; echo err >&2"], Exit::Exited(0), "out\nerr\n");
    check(&["sh", "-c", "exit 3"], Exit::Exited(3), "");
    check(&["sh", "-c", "kill -9 $$"], Exit::Killed(9), "");
    check(&["sh", "-c", "kill -TERM $$"], Exit::Killed(15), "");
    check(&["./say", "from the folder"], Exit::Exited(0), "from the folder\n");
    check(&["sh", "-c", "exit 126"], not_started("exit code 126, a shell's word for not executable"), "");
    check(&["sh", "-c", "exit 127"], not_started("exit code 127, a shell's word for command not found"), "");
    check(&["no-such-program"], not_started("no such file: no-such-program is nowhere in PATH"), "");
    check(&["./missing"], not_started("no such file: ./missing"), "");
    check(&["./text"], not_started("not executable: ./text"), "");
    check(&["/"], not_started("not a program but a folder: /"), "");
    check(&["./script"], not_started("no such interpreter: the first line of ./script"), "");
    check(&[], not_started("the command is empty"), "");
    check(&["sh\0"], not_started("sh\0: nul byte found in provided data"), "");
}

#[test]
fn a_missing_folder_is_not_taken_for_a_missing_program() {
    let place = Place::new();
    let spec = CommandSpec { folder: "/no/such/folder".into(), ..place.spec(&["sh", "-c", "exit 0"], AMPLE) };
    let ended = run(spec, |_| {});
    assert_eq!(ended.exit, Exit::NotStarted("no such folder: /no/such/folder".into()));
}

#[test]
fn it_gets_the_environment_given_and_nothing_of_systemd() {
    if !is_alone() {
        let env = ["env", "NOTIFY_SOCKET=/run/n", "WATCHDOG_USEC=1", "WATCHDOG_PID=1", "COLOUR=red"];
        run_alone("command::tests::it_gets_the_environment_given_and_nothing_of_systemd", &env);
        return;
    }
    let place = Place::new();
    symlink("/bin/echo", place.at("only-here")).unwrap();
    let text = "echo ${NOTIFY_SOCKET-no} ${WATCHDOG_USEC-no} ${WATCHDOG_PID-no} $COLOUR $WATCHDOG_TARGET; pwd -P; cat";
    let mut spec = place.spec(&["sh", "-c", text], AMPLE);
    spec.env = vec![("WATCHDOG_TARGET".into(), "mailer".into()), ("COLOUR".into(), "blue".into())];
    assert_eq!(run(spec, |_| {}).exit, Exit::Exited(0));
    let folder = fs::canonicalize(place.0.path()).unwrap();
    assert_eq!(place.output(), format!("no no no blue mailer\n{}\n", folder.display()));

    let mut spec = place.spec(&["only-here", "found in the PATH given"], AMPLE);
    spec.env = vec![("PATH".into(), place.0.path().display().to_string())];
    assert_eq!(run(spec, |_| {}).exit, Exit::Exited(0));
    assert_eq!(place.output(), "found in the PATH given\n");
}

#[test]
fn it_leads_a_group_of_its_own() {
    let place = Place::new();
    assert_eq!(place.shell("test $$ = $(cut -d ' ' -f 5 /proc/$$/stat)", AMPLE).exit, Exit::Exited(0));
}

#[test]
fn no_descriptor_and_no_mask_of_ours_goes_along() {
    let place = Place::new();
    let secret = File::create(place.at("secret")).unwrap();
    let ended = place.shell("ls -l /proc/self/fd; grep Sig /proc/self/status", AMPLE);
    assert_eq!(ended.exit, Exit::Exited(0));
    drop(secret);
    let seen = place.output();
    let here = place.0.path().display().to_string();
    for expected in [" 0 -> /dev/null\n".into(), format!(" 1 -> {here}/output\n"), format!(" 2 -> {here}/output\n")] {
        assert!(seen.contains(&expected), "{expected} in\n{seen}");
    }
    assert_eq!(seen.matches(&here).count(), 2, "{seen}");

    let mask = |status: &str, name: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
        u64::from_str_radix(digits, 16).unwrap() & 0x7fff_ffff // above are those that the C library keeps for itself
    };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let pipe = 1 << (Signal::PIPE.as_raw() - 1);
    assert_eq!(mask(&own, "SigIgn") & pipe, pipe, "Rust ignores it in us");
    assert_eq!(mask(&seen, "SigIgn"), mask(&own, "SigIgn") & !pipe);
    assert_eq!(mask(&seen, "SigBlk"), 0);
}

#[test]
fn at_the_timeout_the_group_is_asked_to_leave() {
    let place = Place::new();
    let began = clock::monotonic();
    let ended = place.shell("sleep 1000 & echo $! >child; kill -STOP $$", SHORT);
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.duration >= SHORT && ended.duration <= since(began), "{ended:?}");
    assert!(ended.duration < SHORT + GRACE, "{ended:?} though one that is stopped is to go on and leave");
    assert!(!is_alive(place.process("child")));
}

#[test]
fn those_who_ignore_that_are_killed_and_nobody_is_left() {
    let place = Place::new();
    let text = "trap '' TERM; (echo ready; sleep 1000) & echo $! >child; sleep 1000";
    let ended = place.shell(text, SHORT);
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(ended.duration >= SHORT + GRACE, "{ended:?}");
    assert!(!is_alive(place.process("child")));
}

#[test]
fn a_group_has_its_five_seconds_though_its_leader_left_at_once() {
    let place = Place::new();
    let tidy = "trap 'sleep 0.3; echo tidied; exit' TERM; echo here; while :; do sleep 0.05; done";
    let ended = run(place.spec(&["sh", "-c", "sh -c \"$0\" & wait", tidy], SHORT), |_| {});
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(place.output().ends_with("\ntidied\n"), "{}", place.output());
    assert!(ended.duration < SHORT + GRACE, "{:?}", ended.duration);
}

#[test]
fn what_it_leaves_running_lives_and_goes_on_writing() {
    let place = Place::new();
    let text = "setsid sh -c 'echo $$ >daemon; while kill -0 $0; do echo beat; sleep 0.02; done' $PPID & \
                sleep 1000 & echo $! >child";
    let ended = place.shell(text, AMPLE);
    assert_eq!(ended.exit, Exit::Exited(0));
    let (daemon, child) = (place.process("daemon"), place.process("child"));
    let beats = || place.output().matches("beat").count();
    let before = beats();
    eventually(|| beats() > before + 3);
    assert!(is_alive(daemon) && is_alive(child));
    kill(daemon);
    kill(child);
}

#[test]
fn what_prints_without_end_is_cut_while_it_runs() {
    let place = Place::new();
    let text = "echo first; until [ -e enough ]; do yes 0123456789 | head -c 10000000; done; touch over; \
                until [ -e cut ]; do sleep 0.02; done; echo last";
    let spec = place.spec(&["sh", "-c", text], AMPLE);
    let watched = spec.output.try_clone().unwrap();
    let runner = thread::spawn(move || run(spec, |_| {}));
    let mut longest = 0;
    eventually(|| {
        let length = watched.metadata().unwrap().len();
        longest = longest.max(length);
        longest > 1_000_000 && length < longest / 2
    });
    fs::write(place.at("enough"), "").unwrap();
    // What is written while a cut goes on may be lost with it.
    eventually(|| place.at("over").exists() && watched.metadata().unwrap().len() <= CUT_ABOVE);
    fs::write(place.at("cut"), "").unwrap();
    assert_eq!(runner.join().unwrap().exit, Exit::Exited(0));
    let kept = place.output();
    assert!(kept.len() < MAX_KEPT as usize + 64, "{} bytes kept", kept.len());
    assert!(kept.starts_with("first\n0123456789\n"), "{:?}", &kept[..100]);
    assert!(kept.ends_with("\n0123456789last\n"), "{:?}", &kept[kept.len() - 100..]);
    assert!(kept.contains(" bytes cut out here]\n"));
}

#[test]
fn a_child_left_behind_that_prints_for_ever_is_kept_short() {
    let place = Place::new();
    let text = "setsid sh -c 'echo $$ >daemon; while kill -0 $0; do echo a line of a daemon; done' $PPID &";
    assert_eq!(place.shell(text, AMPLE).exit, Exit::Exited(0));
    let daemon = place.process("daemon");
    let length = || fs::metadata(place.at("output")).unwrap().len();
    for _ in 0..3 {
        eventually(|| length() > 2 * MAX_KEPT);
        assert!(trim_output(&place.at("output")).unwrap() > 0);
    }
    assert!(is_alive(daemon));
    kill(daemon);
    trim_output(&place.at("output")).unwrap();
    let kept = place.output();
    assert_eq!(kept.matches("bytes cut out here").count(), 1);
    assert!(!kept.contains('\0') && kept.ends_with("a line of a daemon\n"));
}

#[test]
fn a_command_of_an_earlier_watchdog_is_waited_for() {
    let mut child = Command::new("sleep").arg("0.3").process_group(0).spawn().unwrap();
    let process = process::identify(child.id());
    let reaper = thread::spawn(move || child.wait());
    let ended = adopt(process, AMPLE);
    assert_eq!(ended.exit, Exit::Lost);
    assert!(ended.duration < AMPLE && !is_alive(process), "{ended:?}");
    reaper.join().unwrap().unwrap();
}

#[test]
fn a_command_of_an_earlier_watchdog_is_ended_at_its_timeout_with_its_group() {
    let place = Place::new();
    let text = format!("cd {}; trap '' TERM; sleep 1000 & echo $! >child; wait", place.0.path().display());
    let mut child = Command::new("sh").args(["-c", &text]).process_group(0).spawn().unwrap();
    let process = process::identify(child.id());
    let grandchild = place.process("child");
    let reaper = thread::spawn(move || child.wait());
    let ended = adopt(process, SHORT);
    assert_eq!(ended.exit, Exit::Lost);
    assert!(ended.duration >= SHORT + GRACE, "{ended:?}");
    assert!(!is_alive(process) && !is_alive(grandchild));
    assert_eq!(reaper.join().unwrap().unwrap().signal(), Some(9));
}

#[test]
fn a_number_that_another_process_has_now_is_left_alone() {
    let mut child = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let stranger = process::identify(child.id());
    let before = Process { started: stranger.started - 1, ..stranger };
    assert_eq!(adopt(before, Duration::ZERO).exit, Exit::Lost);
    assert!(is_alive(stranger));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_command_is_found_by_its_environment_but_nothing_that_it_leaves_behind() {
    let place = Place::new();
    let marks = |text: &str| [("MARK".to_string(), format!("{text} {}", place.0.path().display()))];
    let text = "setsid sleep 1000 & echo $! >daemon; sleep 1000 & echo $! >child; echo $$ >self; \
                until test -e go; do sleep 0.01; done";
    let spec = CommandSpec { env: marks("this").into(), ..place.spec(&["sh", "-c", text], AMPLE) };
    let command = thread::spawn(move || run(spec, |_| {}));
    let own = place.process("self");
    let left = [place.process("daemon"), place.process("child")];
    // The daemon is one only once setsid(1) has come that far.
    eventually(|| process::leader(left[0]).is_some());
    assert_eq!(process::find(&marks("this")), Some(own));
    assert_eq!(process::find(&marks("that")), None);
    fs::write(place.at("go"), "").unwrap();
    assert_eq!(command.join().unwrap().exit, Exit::Exited(0));
    assert!(left.iter().all(|process| is_alive(*process)));
    assert_eq!(process::find(&marks("this")), None);
    left.into_iter().for_each(kill);
}

#[test]
fn one_that_leads_no_group_was_never_ours_whatever_a_damaged_state_says() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let stranger = process::identify(child.id());
    let ended = adopt(stranger, Duration::ZERO);
    assert_eq!(ended.exit, Exit::Lost);
    assert!(ended.duration < GRACE && is_alive(stranger), "{ended:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn without_descriptors_or_processes_it_is_our_own_trouble() {
    if !is_alone() {
        run_alone("command::tests::without_descriptors_or_processes_it_is_our_own_trouble", &["env"]);
        return;
    }
    let place = Place::new();
    let specs: Vec<CommandSpec> = (0..8).map(|_| place.spec(&["sh", "-c", "exit 0"], AMPLE)).collect();
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut refused = Vec::new();
    for spec in specs {
        let ended = run(spec, |_| {}); // and its own descriptor is free afterwards
        if ended.exit == Exit::Exited(0) {
            break;
        }
        let words = ["cannot start a process: ", "its output file cannot be opened again: "];
        let Exit::NotStarted(reason) = &ended.exit else { panic!("{ended:?}") };
        assert!(words.iter().any(|words| reason.starts_with(words)), "{ended:?}");
        refused.push(ended.exit);
        held.pop();
    }
    assert!(refused.len() > 1 && refused.len() < 8, "{refused:?}");
    drop(held);

    // Root is mostly not held to a limit of processes, so this half shows itself to others only.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Nproc, none).unwrap();
    let ended = place.shell("exit 0", AMPLE);
    let is_exempt = rustix::process::getuid().is_root() && ended.exit == Exit::Exited(0);
    let is_refused = matches!(&ended.exit, Exit::NotStarted(why) if why.starts_with("cannot start a process: "));
    assert!(is_refused || is_exempt, "{ended:?}");
}

#[test]
fn with_child_signals_ignored_the_ending_is_lost_but_nothing_hangs() {
    if !is_alone() {
        let test = "command::tests::with_child_signals_ignored_the_ending_is_lost_but_nothing_hangs";
        run_alone(test, &["env", "--ignore-signal=CHLD"]);
        return;
    }
    let place = Place::new();
    assert_eq!(place.shell("exit 3", AMPLE).exit, Exit::Lost);
    assert_eq!(place.shell("sleep 1000", SHORT).exit, Exit::TimedOut);
}
