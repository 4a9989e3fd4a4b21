//! `log`: the log's last lines through the rotated files, and the lines that are added, in either format.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::lock_holder::check;
use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, is_alive, send_signal};

/// Two targets: one that is healthy as long as the file `up` exists, and one that always is.
const TWO: &str = "targets:\n  - {name: app, command: test -e up, interval: 100ms, failure_threshold: 1}\n  \
    - {name: apple, file: {path: watchdog.yaml, max_age: 1d}, interval: 100ms}\n";
const AT: &str = "2026-11-22 03:12:10+01:00";

fn line(number: usize) -> String {
    let target = if number.is_multiple_of(3) { "app" } else { "apple" };
    format!("{AT} info  {target} line {number}\n")
}

/// A state folder with a log in three files, 30 lines in all, that no watchdog has written.
fn with_log() -> Sandbox {
    let sandbox = Sandbox::new(TWO);
    fs::create_dir(sandbox.path("state")).expect("made");
    for (name, numbers) in [("watchdog.log.2", 0..10), ("watchdog.log.1", 10..20), ("watchdog.log", 20..30)] {
        sandbox.write(&format!("state/{name}"), &numbers.map(line).collect::<String>());
    }
    sandbox
}

#[track_caller]
fn shows(sandbox: &Sandbox, args: &[&str], expected: &str) {
    let output = sandbox.run(args);
    let good = output.code == Some(0) && output.out == expected && output.err.is_empty();
    sandbox.assert(good, &format!("{args:?} shows {expected}\nbut: {output:#?}"));
}

#[test]
fn the_last_lines_are_shown_through_rotated_files() {
    let sandbox = with_log();
    let last = |count: usize| (30 - count..30).map(line).collect::<String>();
    shows(&sandbox, &["log"], &last(30));
    for count in [0, 1, 10, 11, 25] {
        shows(&sandbox, &["log", "-n", &count.to_string()], &last(count));
    }
    let of = |name: &str| (0..30).map(line).filter(|line| line.contains(&format!(" {name} "))).collect::<String>();
    shows(&sandbox, &["log", "app"], &of("app"));
    shows(&sandbox, &["log", "apple", "-n100"], &of("apple"));
    shows(&sandbox, &["log", "app", "--lines", "2"], &[24, 27].map(line).concat());
    sandbox.write("state/watchdog.log.2", "");
    sandbox.configure(&TWO.replace("apple", "fresh"));
    check(&sandbox, &["log", "fresh"], 0, &["the log has no line about fresh; "]);
    sandbox.configure(TWO);
    check(&sandbox, &["log", "ap"], 2, &["no target `ap`; known targets: app, apple\n"]);
    check(&sandbox, &["log", "-n", "-1"], 2, &["unexpected argument"]);
    // Also while the configuration is broken.
    sandbox.configure("nonsense: 1\n");
    let output = sandbox.run(&["log", "-n", "1"]);
    sandbox.assert(
        output.code == Some(0) && output.out == last(1) && output.err.contains("unknown key"),
        &format!("{output:?}"),
    );
}

#[test]
fn lines_are_escaped_and_coloured_on_a_terminal_only() {
    let sandbox = with_log();
    sandbox.write("state/watchdog.log", &format!("{AT} error app down\n{AT} warn  app \u{1b}[2J\n\u{1b}]0;x\u{7}torn"));
    let plain = format!("{AT} error app down\n{AT} warn  app \\u{{1b}}[2J\n\\u{{1b}}]0;x\\u{{7}}torn\n");
    shows(&sandbox, &["log", "-n", "3"], &plain);
    let terminal = |colour: &[&str]| {
        let log = format!("{} log -n 3", env!("CARGO_BIN_EXE_watchdog"));
        let args = [&["env"], colour, &["script", "-qec", &log, "/dev/null"]].concat();
        let mut command = std::process::Command::new(args[0]);
        command.args(&args[1..]).current_dir(sandbox.home()).env("HOME", sandbox.home()).env("SHELL", "/bin/sh");
        CommandOutput::new(command.stdin(Stdio::null()).output().expect(MISSING_PROGRAM)).out.replace("\r\n", "\n")
    };
    let coloured =
        plain.replace(" error ", " \u{1b}[31merror\u{1b}[0m ").replace(" warn  ", " \u{1b}[33mwarn\u{1b}[0m  ");
    assert_eq!(terminal(&["-u", "NO_COLOR"]), coloured);
    assert_eq!(terminal(&["NO_COLOR=1"]), plain);
}

#[test]
fn the_file_is_found_wherever_it_is() {
    let sandbox = Sandbox::new(&format!("log: {{file: elsewhere/app.log}}\n{TWO}"));
    let none = |what: &str| {
        let output = sandbox.run(&["log"]);
        let names = format!("no log yet: {what} does not exist\n");
        sandbox.assert(output.code == Some(0) && output.out.is_empty() && output.err == names, &format!("{output:?}"));
    };
    none("~/elsewhere/app.log");
    sandbox.write("up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    let shows = |args: &[&str]| {
        let output = sandbox.run(args);
        sandbox
            .assert(output.code == Some(0) && output.out.contains(" started (pid "), &format!("{args:?} {output:?}"));
    };
    shows(&["log"]);
    // The running watchdog still writes to the first one.
    sandbox.configure(&format!("log: {{file: new.log}}\n{TWO}"));
    shows(&["log"]);
    assert!(daemon.stop().success());
    // Without a configuration: the state knows it.
    fs::create_dir_all(sandbox.path(".local/state")).expect("made");
    fs::rename(sandbox.path("state"), sandbox.path(".local/state/watchdog")).expect("moved");
    fs::remove_file(sandbox.path("watchdog.yaml")).expect("removed");
    shows(&["log"]);
    shows(&["log", "-n1000"]);
    check(&sandbox, &["log", "gone"], 2, &["no target `gone`; known targets: app, apple"]);
    fs::remove_dir_all(sandbox.path("elsewhere")).expect("removed");
    none("~/elsewhere/app.log");
    fs::create_dir_all(sandbox.path("elsewhere/app.log")).expect("made");
    check(&sandbox, &["log"], 4, &["cannot read the log ~/elsewhere/app.log: not a regular file"]);
    fs::remove_dir_all(sandbox.path(".local")).expect("removed");
    none("~/.local/state/watchdog/watchdog.log");
    check(&sandbox, &["log", "app"], 2, &["no target `app`; no targets are known"]);
}

/// `log -f`, and its lines as they come.
fn follow(sandbox: &Sandbox, args: &[&str]) -> (Child, Receiver<String>) {
    let mut child = sandbox.spawn(&[&["log", "-f"], args].concat());
    let (post, lines) = channel();
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| post.send(line)));
    (child, lines)
}

#[track_caller]
fn comes(sandbox: &Sandbox, lines: &Receiver<String>, expected: &str) {
    match lines.recv_timeout(Duration::from_secs(60)) {
        Ok(line) => sandbox.assert(line == expected.trim_end(), &format!("{expected} comes, not {line}")),
        Err(error) => sandbox.assert(false, &format!("{expected} comes: {error}")),
    }
}

#[test]
fn new_lines_are_followed_through_everything_until_a_signal_comes() {
    let sandbox = with_log();
    let (mut child, lines) = follow(&sandbox, &["-n", "2", "app"]);
    let append = |number: usize| {
        let mut file =
            OpenOptions::new().append(true).create(true).open(sandbox.path("state/watchdog.log")).expect("open");
        file.write_all(line(number).as_bytes()).expect("written");
    };
    comes(&sandbox, &lines, &line(24));
    comes(&sandbox, &lines, &line(27));
    (30..34).for_each(append);
    comes(&sandbox, &lines, &line(30));
    comes(&sandbox, &lines, &line(33));
    fs::rename(sandbox.path("state/watchdog.log"), sandbox.path("state/watchdog.log.1")).expect("rotated");
    append(36);
    comes(&sandbox, &lines, &line(36));
    fs::File::create(sandbox.path("state/watchdog.log")).expect("truncated");
    thread::sleep(Duration::from_millis(500)); // nothing shows when it has noticed
    append(39);
    comes(&sandbox, &lines, &line(39));
    fs::remove_dir_all(sandbox.path("state")).expect("removed");
    fs::create_dir(sandbox.path("state")).expect("made");
    append(42);
    comes(&sandbox, &lines, &line(42));
    send_signal(i32::try_from(child.id()).expect("a pid"), Signal::INT);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(lines.recv_timeout(Duration::from_secs(60)).is_err(), "nothing else comes");
}

#[test]
fn a_log_to_come_is_waited_for_and_a_reader_that_is_gone_ends_it() {
    let sandbox = Sandbox::new(TWO);
    let mut child = sandbox.spawn(&["log", "-f"]);
    let mut output = String::new();
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
    errors.read_line(&mut output).expect("readable");
    assert_eq!(output, "no log yet: ~/state/watchdog.log does not exist; waiting for it\n");
    sandbox.write("up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    output.read_line(&mut first).expect("readable");
    sandbox.assert(first.contains(" started (pid "), &first);
    assert!(daemon.stop().success());
    sandbox.assert(is_alive(i32::try_from(child.id()).expect("a pid")), "the end of the watchdog is not its end");
    // Without any new line.
    drop(output);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// The real writer, with a small log, and a person who follows it: each line once, in order.
#[test]
fn a_watchdog_that_rotates_often_is_followed_without_a_gap() {
    let sandbox =
        Sandbox::new(&format!(
            "log: {{level: debug, max_size: 4KiB, keep: 3}}\n{}",
            TWO.replace("interval: 100ms", "interval: 100ms, restart: 'true', cooldown: 0s, max_restarts: 100")
                .replacen(", restart: 'true', cooldown: 0s, max_restarts: 100}\n", "}\n", 1)
        ));
    sandbox.write("up", "");
    let (mut child, lines) = follow(&sandbox, &[]);
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("it has rotated twice", || sandbox.path("state/watchdog.log.2").exists());
    assert!(daemon.stop().success());
    let mut found = Vec::new();
    loop {
        let line = lines.recv_timeout(Duration::from_secs(60)).expect("the last line comes");
        let is_last = line.contains("watchdog stopped (pid ");
        found.push(line);
        if is_last {
            break;
        }
    }
    send_signal(i32::try_from(child.id()).expect("a pid"), Signal::TERM);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let written = ["watchdog.log.3", "watchdog.log.2", "watchdog.log.1", "watchdog.log"];
    let written = written.map(|name| sandbox.lines(&format!("state/{name}"))).concat();
    assert!(written.len() > 50 && found.ends_with(&written), "{found:#?}\n{written:#?}");
}

#[test]
fn json_is_one_object_a_line_and_shown_like_text() {
    let sandbox = Sandbox::new(&format!("log: {{format: json, level: debug}}\n{TWO}"));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("it is down", || !sandbox.events("down").is_empty());
    sandbox.write("up", "");
    sandbox.eventually("it is up", || !sandbox.events("up").is_empty());
    sandbox.configure(&format!("log: {{level: debug}}\n{TWO}"));
    assert_eq!(sandbox.run(&["reload"]).code, Some(0), "{}", sandbox.dump());
    sandbox.eventually("a line of text", || sandbox.log().contains(" apple healthy: "));
    assert!(daemon.stop().success());
    let log = sandbox.log();
    let (json, text): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with('{'));
    assert!(json.len() > 5 && text.len() > 1, "{log}");
    let mut shown = Vec::new();
    for line in &json {
        let object: Value = serde_json::from_str(line).expect("an object");
        let text = |key: &str| object[key].as_str().map(str::to_owned).expect("text");
        let (at, level, message) = (text("at"), text("level"), text("message"));
        assert!(at.len() == 25 && humantime::parse_rfc3339_weak(&at[..19]).is_ok() && &at[10..11] == "T", "{line}");
        assert!(["error", "warn", "info", "debug"].contains(&level.as_str()), "{line}");
        let target = object.get("target").map(|target| target.as_str().expect("text"));
        assert!(!message.starts_with("app"), "the target has a key of its own: {line}");
        let target = target.map_or_else(String::new, |target| format!("{target} "));
        shown.push(format!("{} {level:<5} {target}{message}", at.replace('T', " ")));
    }
    let of = |name: &str| json.iter().filter(|line| line.contains(&format!("\"target\":\"{name}\""))).count();
    assert!(of("app") > 2 && of("apple") > 0 && of("app") + of("apple") < json.len(), "{log}");
    shown.extend(text.iter().map(|line| (*line).to_owned()));
    let output = sandbox.run(&["log", "-n", "100000"]);
    let mut all: Vec<&str> = output.out.lines().collect();
    all.sort_unstable();
    shown.sort();
    assert!(all == shown, "{all:#?}\n{shown:#?}");
    let output = sandbox.run(&["log", "apple", "-n", "100000"]);
    let is_of = |line: &&String| line.split_whitespace().nth(3) == Some("apple");
    assert_eq!(output.out.lines().count(), shown.iter().filter(is_of).count(), "{}", output.out);
    let bad = Sandbox::new(&format!("log: {{format: yaml}}\n{TWO}"));
    check(&bad, &["check", "--offline"], 2, &["`format` is not one of the allowed values", "one of: text, json"]);
}

/// systemd's journal has the time and wants the level; `JOURNAL_STREAM` says which stream it is.
#[test]
fn the_journal_gets_levels_and_no_time_and_nothing_else_is_taken_for_it() {
    use std::os::unix::fs::MetadataExt;
    let sandbox = Sandbox::new(TWO);
    let run = |args: &[&str], names_stderr: bool, is_stdout_too: bool| {
        let journal = fs::File::create(sandbox.path("journal")).expect("made");
        let found = journal.metadata().expect("of an open file");
        let inode = if names_stderr { found.ino() } else { found.ino() + 1 };
        let mut command = sandbox.command(args);
        command.env("JOURNAL_STREAM", format!("{}:{inode}", found.dev())).stdin(Stdio::null());
        let stdout = if is_stdout_too { journal.try_clone().expect("a copy").into() } else { Stdio::piped() };
        command.stdout(stdout).stderr(journal).spawn().expect("the program runs")
    };
    let stop = |mut daemon: Child| {
        let pid = u64::from(daemon.id());
        let is_started = || sandbox.events("started").iter().any(|event| event["pid"] == pid);
        sandbox.eventually("it has started", is_started);
        sandbox.eventually("it is down", || sandbox.log().contains("app down: "));
        send_signal(i32::try_from(daemon.id()).expect("a pid"), Signal::TERM);
        assert!(daemon.wait().expect("it ends").success());
        sandbox.lines("journal")
    };
    let lines = stop(run(&["run"], true, true));
    sandbox.assert(lines[0].starts_with("<6>watchdog ") && lines[0].contains(" started (pid "), &lines[0]);
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    sandbox.assert(has("<4>app failing, ") || has("<3>app down: "), &format!("{lines:?}"));
    sandbox.assert(has("<3>app down: ") && has("<6>watchdog stopped"), &format!("{lines:?}"));
    assert_eq!(lines.len(), sandbox.lines("state/watchdog.log").len(), "the file has the same lines");
    assert_eq!(stop(run(&["run"], false, true)), [""; 0], "another stream is not the journal");
    assert_eq!(stop(run(&["run", "-q"], true, true)), [""; 0], "no errors, so nothing");

    // A tick writes its news once.
    fs::remove_dir_all(sandbox.path("state")).expect("removed");
    assert_eq!(run(&["--once"], true, true).wait().expect("it ends").code(), Some(1));
    let lines = sandbox.lines("journal");
    assert_eq!(lines.iter().filter(|line| line.contains("app down: ")).count(), 1, "{lines:?}");
    fs::remove_dir_all(sandbox.path("state")).expect("removed");
    let mut tick = run(&["--once"], true, false);
    let mut news = String::new();
    tick.stdout.take().expect("a pipe").read_to_string(&mut news).expect("readable");
    assert_eq!(tick.wait().expect("it ends").code(), Some(1));
    sandbox.assert(news.starts_with("app down: ") && sandbox.read("journal").is_empty(), &news);
}

#[test]
fn what_systemd_sets_for_the_watchdog_is_not_handed_on() {
    let sandbox = Sandbox::new("targets:\n  - {name: app, command: env > probe.env, interval: 100ms}\n");
    let mut command = sandbox.command(&["run"]);
    for name in ["JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "KEPT"] {
        command.env(name, "8:1234");
    }
    let daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("it is probed", || sandbox.read("probe.env").contains("HOME="));
    let env = sandbox.read("probe.env");
    sandbox.assert(env.contains("KEPT=8:1234\n") && env.matches("8:1234").count() == 1, &env);
    assert!(daemon.stop().success());
}
