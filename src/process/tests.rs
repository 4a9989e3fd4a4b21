//! Tests with real processes and the real `/proc`.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::clock;

struct Sleeper(Child);

impl Sleeper {
    fn start(command: &mut Command) -> Self {
        Sleeper(command.spawn().expect("a process"))
    }

    fn process(&self) -> Process {
        identify(self.0.id())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Errors are ignored: it may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command
}

#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool) {
    let started = clock::now();
    while !condition() {
        assert!(clock::now().since(started) < Duration::from_secs(120), "the condition was not met in 2 minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn check(stat: &[u8], expected: Option<(u8, [u32; 3], u64, u64)>) {
    let found =
        parse_stat(stat).map(|stat| (stat.state, [stat.parent, stat.group, stat.session], stat.cpu, stat.started));
    let expected = expected.map(|(state, ids, ticks, started)| (state, ids, ticks_to_duration(ticks), started));
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(stat));
}

#[test]
fn stat_is_parsed_for_any_program_name() {
    let rest = b" S 1 77 70 0 -1 4194560 1 2 3 4 500 60 7 8 20 0 1 0 987654 1000 200";
    let named = |name: &[u8]| [b"80 (".as_slice(), name, b")", rest].concat();
    let expected = Some((b'S', [1, 77, 70], 560, 987_654));
    check(&named(b"sh"), expected);
    check(&named(b"a) R 9 9 9 (b"), expected);
    check(&named(b"PM2 v7.0.4: God"), expected);
    check(&named(b"\xff \n"), expected);
    check(b"80 (sh) Z 1 80 80 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 5\n", Some((b'Z', [1, 80, 80], 11, 5)));
    check(b"80 (sh) S 1 77", None);
    check(b"80 sh S 1 77", None);
    check(b"", None);
}

#[test]
fn a_process_is_identified_by_pid_and_start_time() {
    let me = identify(std::process::id());
    assert!(me.started > 0);
    assert!(is_alive(me));
    assert!(!is_alive(Process { started: me.started + 1, ..me }));
    assert!(is_group_gone(Process { started: me.started + 1, ..me }));
    assert!(!is_alive(Process { pid: u32::MAX, started: 0 }));
    assert_eq!(group_led_by(identify(1)), None);
    let parent = stat(me.pid).expect("this process").parent;
    assert_eq!(parent, std::os::unix::process::parent_id());
}

#[test]
fn identity_survives_being_stored() {
    let process = Process { pid: 3_120, started: 987_654 };
    let text = serde_json::to_string(&process).expect("two numbers");
    assert_eq!(text, r#"{"pid":3120,"started":987654}"#);
    assert_eq!(serde_json::from_str::<Process>(&text).expect("what was written"), process);
}

#[test]
fn clock_ticks_are_converted_to_time() {
    let before = clock::now();
    let sleeper = Sleeper::start(&mut sleep());
    let started = ticks_to_boot_time(sleeper.process().started);
    // A tick is 10 ms, and the start time is rounded down to one.
    assert!(started >= before - Duration::from_millis(20) && started <= clock::now(), "{started:?} {before:?}");

    let mut busy = Sleeper::start(Command::new("sh").args(["-c", "while :; do :; done"]));
    let used = |child: &Sleeper| stat(child.0.id()).map_or(Duration::ZERO, |stat| stat.cpu);
    eventually(|| used(&busy) >= Duration::from_millis(100));
    let lived = clock::now().since(ticks_to_boot_time(busy.process().started));
    assert!(used(&busy) <= lived + Duration::from_millis(50), "CPU time cannot exceed the time since the start");
    busy.0.kill().expect("our own child");
}

#[test]
fn title_and_environment_are_read_and_debug_hides_the_environment() {
    let mut command = sleep();
    command.env("A_NAME", "a=b").env("A_NAME_MORE", "c").env("EMPTY", "");
    let sleeper = Sleeper::start(&mut command);
    eventually(|| command_line(sleeper.0.id()).is_some_and(|title| title == "sleep 600"));
    let found = environment(sleeper.0.id()).expect("our own child");
    assert_eq!(found.get("A_NAME"), Some(OsStr::new("a=b")));
    assert_eq!(found.get("EMPTY"), Some(OsStr::new("")));
    assert_eq!(found.get("A_NAM"), None);
    assert_eq!(format!("{found:?}"), "Environment");
    assert!(is_ours(sleeper.0.id()));
    assert!(environment(u32::MAX).is_none() && command_line(u32::MAX).is_none() && !is_ours(u32::MAX));
}

#[test]
fn a_signal_reaches_exactly_one_process_or_none() {
    let mut sleeper = Sleeper::start(&mut sleep());
    let process = sleeper.process();
    let before = Process { started: process.started - 1, ..process };
    assert!(!send_signal(before, Signal::KILL).expect("no such process"), "an earlier process had its pid");
    assert!(!send_signal(Process { started: 0, ..process }, Signal::KILL).expect("no such process"));
    for pid in [0, 1, u32::MAX] {
        assert!(!send_signal(identify(pid), Signal::KILL).expect("never sent"), "{pid}");
    }
    assert!(is_alive(process));
    assert!(send_signal(process, Signal::TERM).expect("our own child"));
    eventually(|| !is_alive(process));
    assert!(!send_signal(process, Signal::KILL).expect("a zombie"), "a zombie counts as dead");
    sleeper.0.wait().expect("our child");
    assert!(!send_signal(process, Signal::KILL).expect("no such process"), "so does a reaped process");
}

#[test]
fn a_command_is_found_by_its_output_but_its_children_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("1-1.out");
    let elsewhere = folder.path().join("there").join("1-1.out");
    fs::create_dir(folder.path().join("there")).expect("a folder");
    File::create(&elsewhere).expect("a file of the same name");
    let output = File::create(&path).expect("a file");
    let writing = |command: &mut Command| {
        command.stdout(output.try_clone().expect("a descriptor"));
        Sleeper::start(command)
    };
    let _in_our_group = writing(&mut sleep());
    let _daemon = writing(Command::new("setsid").args(["sleep", "600"]));
    assert_eq!(find_by_output(&path), None);
    let command = writing(sleep().process_group(0));
    eventually(|| find_by_output(&path) == Some(command.process()));
    assert_eq!(find_by_output(&elsewhere), None);
    let _other = Sleeper::start(sleep().process_group(0).stdout(Stdio::null()).stderr(output));
    assert_eq!(find_by_output(&path), Some(command.process()));
    drop(command);
    assert_eq!(find_by_output(&path), None);
    assert_eq!(find_by_output(&folder.path().join("missing")), None);
}

#[cfg(feature = "full-tests")]
#[test]
fn time_on_the_run_queue_is_counted() {
    assert!(std::path::Path::new("/proc/self/schedstat").exists(), "this kernel has no /proc/self/schedstat");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shell = Command::new("sh");
    shell.args(["-c", "while :; do :; done"]);
    let loops: Vec<Sleeper> = (0..2 * cores).map(|_| Sleeper::start(&mut shell)).collect();
    let enough = Duration::from_millis(100);
    eventually(|| loops.iter().any(|one| run_queue_wait(one.process().pid).is_some_and(|waited| waited > enough)));
    assert_eq!(run_queue_wait(u32::MAX), None);
}
