//! `pause`, `resume`, `completions` and `demo`: what the operator says, heeded by whoever is at work.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::place::{NEEDED, Place, Said, files_below, send};

const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 2, start_period: 100ms, cooldown: 100ms, \
                      max_cooldown: 100ms}\ntargets:\n";

/// A target that its restart makes well.
fn curable(name: &str) -> String {
    let restart = format!("touch {name}-up; echo {name} >> done");
    format!("  - {{name: {name}, file: {{path: {name}-up, max_age: 1d}}, restart: '{restart}'}}\n")
}

fn state(place: &Place, name: &str) -> Value {
    place.target(name)["state"].clone()
}

/// From now to the end of the target's pause.
#[track_caller]
fn pause_left(place: &Place, name: &str) -> Duration {
    let target = place.target(name);
    let until = target["paused_until"].as_str().unwrap_or_else(|| panic!("{name} is paused: {}", place.story()));
    let until = humantime::parse_rfc3339(until).expect("a time");
    until.duration_since(SystemTime::now()).expect("in the future")
}

#[track_caller]
fn says(place: &Place, words: &[&str], code: i32, text: &str) {
    let said = place.run(words);
    place.demand(said.code == Some(code) && said.out.contains(text), &format!("{words:?} says `{text}`: {said:?}"));
}

#[test]
fn a_pause_looks_but_opens_no_incident_and_restarts_nothing_until_it_ends() {
    let place = Place::with(&format!("{LIMITS}{}{}", curable("one"), curable("other")));
    for name in ["one", "other"] {
        place.write(&format!("{name}-up"), "");
    }
    let daemon = place.daemon(&["run"]);
    place.eventually("both are healthy", || state(&place, "one") == "healthy" && state(&place, "other") == "healthy");
    says(&place, &["pause", "one", "--for", "2h"], 0, "paused one until ");
    assert_eq!(state(&place, "one"), "paused");
    let left = pause_left(&place, "one");
    place.demand(left > Duration::from_secs(7_000) && left <= Duration::from_secs(7_200), &format!("2 h: {left:?}"));
    assert_eq!(place.run(&["status"]).code, Some(0), "a pause is no trouble");

    for name in ["one", "other"] {
        fs::remove_file(place.path(&format!("{name}-up"))).expect("it is there");
    }
    place.eventually("the other is repaired", || place.lines("done") == ["other"]);
    let threshold_is_passed = || place.target("one")["streak"].as_u64() >= Some(3);
    place.eventually("the paused one is seen to fail", || !place.events_of("one", "failing").is_empty());
    place.eventually("it goes on failing", threshold_is_passed);
    assert_eq!(state(&place, "one"), "paused");
    assert!(place.events_of("one", "down").is_empty(), "it was planned: {}", place.story());
    assert_eq!(place.lines("done"), ["other"], "{}", place.story());
    says(&place, &["resume"], 0, "resumed all targets\n");
    place.eventually("it is repaired", || place.lines("done") == ["other", "one"]);
    place.eventually("it is well", || state(&place, "one") == "healthy");
    assert_eq!((place.events_of("one", "paused").len(), place.events_of("one", "resumed").len()), (1, 1));
    place.demand(place.events_of("other", "paused").is_empty(), "the other was never paused");

    says(&place, &["pause"], 0, "paused all targets until ");
    place.demand(pause_left(&place, "other") <= Duration::from_secs(1_800), "30 min, when nothing is said");
    says(&place, &["resume", "one"], 0, "resumed one");
    says(&place, &["pause", "--for", "100ms", "one"], 0, "(100 ms)");
    place.eventually("a pause ends by itself", || state(&place, "one") == "healthy");
    assert_eq!(state(&place, "other"), "paused");
    assert!(daemon.stop().success());
}

#[test]
fn a_pause_waits_for_whoever_comes_next() {
    let place = Place::with(&format!("{LIMITS}{}", curable("app")));
    says(&place, &["pause", "app"], 0, "(no watchdog is running; the next one applies it)");
    for _ in 0..3 {
        place.run(&["--once"]);
    }
    place.demand(place.lines("done").is_empty() && state(&place, "app") == "paused", "it is heeded");
    place.demand(place.events("paused").len() == 1, "once");
    says(&place, &["resume", "app"], 0, "resumed app; its waits are cleared");
    place.eventually("ticks repair it", || place.run(&["--once"]).code == Some(0));
    assert_eq!(place.lines("done"), ["app"], "{}", place.story());
}

#[test]
fn a_command_runs_in_a_pause_that_ends_with_it_and_its_exit_code_is_handed_on() {
    let place = Place::with(&format!("{LIMITS}{}", curable("app")));
    place.write("app-up", "");
    place.write("plain", "no program");
    fs::set_permissions(place.path("plain"), fs::Permissions::from_mode(0o644)).expect("a file of ours");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    let cases: [(&[&str], i32); 6] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill $$"], 143),
        (&["no-such-program"], 127),
        (&["./plain"], 126),
    ];
    for (command, code) in cases {
        let said = place.run(&[&["pause", "app", "--"], command].concat());
        place.demand(said.code == Some(code) && said.out.is_empty(), &format!("{command:?} gives {code}: {said:?}"));
        place.demand(state(&place, "app") == "healthy", "the pause ended with it");
    }
    assert_eq!(place.events("paused").len(), 6, "{}", place.story());

    // The backend may be down for as long as the command runs.
    let deploy = "rm app-up; echo $$ > pids; while ! test -e go; do sleep 0.02; done; echo deployed; exit 3";
    let child = place.begin(&["pause", "--", "sh", "-c", deploy]);
    place.eventually("it is seen to fail", || !place.events("failing").is_empty());
    assert_eq!(state(&place, "app"), "paused");
    place.write("go", "");
    let said = Said::new(child.wait_with_output().expect("it ends"));
    assert_eq!((said.code, said.out.as_str()), (Some(3), "deployed\n"), "{said:?}");
    place.eventually("the pause is over, so it is repaired", || place.lines("done") == ["app"]);
    assert!(daemon.stop().success());
}

/// Whoever wants to end us ends the command, and the pause ends with it in any case.
#[test]
fn what_asks_for_an_end_is_handed_on_to_the_command() {
    let place = Place::with(&format!("{LIMITS}{}", curable("app")));
    place.write("app-up", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    let begin = |starter: &[&str], command: &str| {
        let _ = fs::remove_file(place.path("began"));
        let words = ["pause", "--", "sh", "-c", &format!("echo > began; {command}; while :; do sleep 0.02; done")];
        // Whoever runs the tests may ignore some of them, as a shell does in the background.
        let starter = [&["env", "--default-signal=INT,QUIT,HUP,TERM"], starter].concat();
        let mut command = place.command_through(&starter, &words);
        let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        place.eventually("the command runs", || place.path("began").exists());
        assert_eq!(state(&place, "app"), "paused");
        child
    };
    let end = |mut child: Child, code: i32, out: &str| {
        place.eventually("it ends", || child.try_wait().expect("a child can be asked").is_some());
        let said = Said::new(child.wait_with_output().expect("it ends"));
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(code), out, ""), "{}", place.story());
        place.demand(state(&place, "app") == "healthy", "the pause ended with it");
    };
    let pid = |child: &Child| i32::try_from(child.id()).expect("a pid is small");
    for (signal, name, code) in [(Signal::TERM, "TERM", 143), (Signal::INT, "INT", 130), (Signal::HUP, "HUP", 129)] {
        let child = begin(&[], ":");
        send(pid(&child), signal);
        end(child, code, "");
        // It may have its own opinion of that, and takes its time.
        let child = begin(&[], &format!("trap 'echo told; sleep 0.1; exit 7' {name}"));
        send(pid(&child), signal);
        end(child, 7, "told\n");
    }
    // What our parent has us ignore is none of the command's business either.
    let child = begin(&["env", "--ignore-signal=HUP"], "trap 'exit 7' TERM");
    send(pid(&child), Signal::HUP);
    send(pid(&child), Signal::TERM);
    end(child, 7, "");
    // Killed, we leave the pause on: the command goes on, too. The operator can end it.
    let mut child = begin(&[], "echo $$ > pids; sleep 60");
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    assert_eq!(state(&place, "app"), "paused");
    says(&place, &["resume"], 0, "resumed all targets\n");
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    place.alive("pids").into_iter().for_each(|pid| send(pid, Signal::KILL));
    assert!(daemon.stop().success());
}

/// Two deployments at once: neither ends the other's pause, nor does one that is shorter.
#[test]
fn pauses_overlap_and_the_last_end_holds() {
    let place = Place::with(&format!("{LIMITS}{}", curable("app")));
    place.write("app-up", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    let deploy = |name: &str| {
        let script = format!("rm -f app-up; echo > {name}; while ! test -e {name}-go; do sleep 0.02; done");
        place.begin(&["pause", "--", "sh", "-c", &script])
    };
    let (mut first, mut second) = (deploy("first"), deploy("second"));
    place.eventually("both run", || place.path("first").exists() && place.path("second").exists());
    says(&place, &["pause", "app", "--for", "1s"], 0, "(1 s)");
    place.write("first-go", "");
    assert!(first.wait().expect("it ends").success());
    let failed = || place.target("app")["streak"].as_u64().unwrap_or(0);
    let before = failed();
    place.eventually("it goes on failing, and the second goes on", || failed() > before + 15);
    assert_eq!(state(&place, "app"), "paused", "{}", place.story());
    assert!(place.lines("done").is_empty() && place.events("resumed").is_empty(), "{}", place.story());
    place.write("second-go", "");
    assert!(second.wait().expect("it ends").success());
    place.eventually("then it is repaired", || place.lines("done") == ["app"]);
    assert_eq!(place.events("resumed").len(), 1, "{}", place.story());
    // A pause by hand inside, longer than the command: that one holds.
    let mut third = deploy("third");
    place.eventually("it runs", || place.path("third").exists());
    says(&place, &["pause", "--for", "1h"], 0, "(1 h)");
    place.write("third-go", "");
    assert!(third.wait().expect("it ends").success());
    let left = pause_left(&place, "app");
    place.demand(left > Duration::from_secs(3_000), &format!("the longer one holds: {left:?}"));
    assert!(daemon.stop().success());
}

#[test]
fn a_command_runs_whatever_the_condition_of_the_watchdog() {
    let place = Place::with("");
    for text in ["targets: [", "state_dir: [", "", "targets: []\n"] {
        place.write("watchdog.yaml", text);
        let said = place.run(&["pause", "--", "sh", "-c", "echo ran; exit 7"]);
        place.demand(said.code == Some(7) && said.out == "ran\n", &format!("{said:?}"));
        let said = place.run(&["pause", "-c", "gone.yaml", "--", "sh", "-c", "echo ran; exit 7"]);
        place.demand(said.code == Some(7) && said.out == "ran\n", &format!("{said:?}"));
    }
    // With nobody at work, nothing is left behind, however often.
    place.configure("targets: [{name: app, tcp: 'localhost:1'}]\n");
    for _ in 0..60 {
        assert_eq!(place.run(&["pause", "--", "true"]).code, Some(0));
    }
    assert_eq!(fs::read_dir(place.path("state/orders")).expect("a folder").count(), 0, "{}", place.story());
    // Not even with no place for a state.
    fs::remove_dir_all(place.path("state")).expect("a folder");
    place.write("state", "no folder");
    let said = place.run(&["pause", "--", "sh", "-c", "echo ran; exit 7"]);
    place.demand(said.code == Some(7) && said.out == "ran\n", &format!("{said:?}"));
}

#[test]
fn a_pause_is_not_promised_in_vain() {
    let place = Place::with(&format!("{LIMITS}{}", curable("app")));
    place.write("app-up", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    place.configure(&format!("{LIMITS}{}{}", curable("app"), curable("new")));
    let ran = ["--", "sh", "-c", "echo ran"];
    let unread = place.run(&["pause", "new"]);
    place.demand(unread.code == Some(1) && unread.err.contains("has not read `new` yet"), &format!("{unread:?}"));
    assert_eq!(place.run(&[&["pause", "new"][..], &ran].concat()).out, "ran\n");
    let misspelt = place.run(&[&["pause", "ap"][..], &ran].concat());
    place.demand(misspelt.code == Some(2) && misspelt.out.is_empty(), &format!("nothing is done: {misspelt:?}"));
    daemon.signal(Signal::HUP);
    place.eventually("it is read", || state(&place, "new") != "");
    says(&place, &["pause", "new"], 0, "paused new until");
    assert!(daemon.stop().success());
}

#[test]
fn a_tick_at_work_heeds_a_pause_at_once() {
    let place = Place::with(
        "targets:\n  - {name: app, command: 'false', interval: 1h, retry_interval: 1h, restart: touch done}\n",
    );
    let mut tick = place.begin(&["--once"]);
    place.eventually("it has failed once", || !place.events("failing").is_empty());
    let said = place.run(&["pause", "app"]);
    place.demand(said.code == Some(0) && !said.out.contains("has not confirmed it yet"), &format!("{said:?}"));
    send(i32::try_from(tick.id()).expect("a pid is small"), Signal::TERM);
    assert!(tick.wait().expect("it ends").code().is_some());
    place.demand(place.events("paused").len() == 1 && !place.path("done").exists(), "it is heeded");
}

#[test]
fn to_resume_a_target_by_name_ends_its_waits() {
    let vain = "  - {name: app, file: {path: up, max_age: 1d}, restart: 'echo vain >> done', max_restarts: 1}\n";
    let place = Place::with(&format!("{LIMITS}{vain}"));
    place.write("up", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    fs::remove_file(place.path("up")).expect("it is there");
    place.eventually("the limit is reached", || place.target("app")["waiting"]["why"] == "limit");
    assert_eq!(place.lines("done").len(), 1);
    says(&place, &["resume"], 0, "resumed all targets\n");
    assert_eq!(place.target("app")["waiting"]["why"], "limit", "that ends a pause only");
    says(&place, &["resume", "app"], 0, "resumed app; its waits are cleared\n");
    place.eventually("one more restart is made", || place.lines("done").len() == 2);
    assert!(daemon.stop().success());
}

#[test]
fn shells_can_complete_the_words() {
    let place = Place::with("");
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef watchdog"), ("fish", "complete -c watchdog")] {
        let said = place.run(&["completions", shell]);
        place.demand(said.code == Some(0) && said.out.contains(sign), &format!("{said:?}"));
        for word in ["status", "pause", "completions", "dry-run", "offline"] {
            place.demand(said.out.contains(word), &format!("{shell} knows {word}"));
        }
        for word in ["detached", "--backend"] {
            place.demand(!said.out.contains(word), &format!("{shell} does not know {word}"));
        }
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn shells_can_read_their_completions() {
    let place = Place::with("");
    for shell in ["bash", "zsh", "fish"] {
        place.write("script", &place.run(&["completions", shell]).out);
        let mut reads = Command::new(shell);
        reads.args(["-n", "script"]).current_dir(place.home()).stdin(Stdio::null());
        let output = reads.output().expect(NEEDED);
        place.demand(output.status.success(), &format!("{shell} can read it: {output:?}"));
    }
}

/// The demo, with a folder of its own for temporary files and in a group of its own, as at a terminal.
fn demo(place: &Place) -> Command {
    fs::create_dir(place.path("tmp")).expect("a folder");
    let mut demo = place.command(&["demo"]);
    demo.env("TMPDIR", place.path("tmp")).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    demo
}

#[track_caller]
fn nothing_is_left(place: &Place) {
    place
        .demand(fs::read_dir(place.path("tmp")).is_ok_and(|mut entries| entries.next().is_none()), "no folder is left");
    place.eventually("no process is left", || place.processes().is_empty());
}

#[test]
fn the_demo_heals_a_real_backend_and_leaves_nothing_behind() {
    let place = Place::with("");
    let said = Said::new(demo(&place).output().expect("the program runs"));
    place.demand(said.code == Some(0) && said.err.is_empty(), &format!("{said:?}"));
    let order = [
        "s  healthy   200 in ",
        "s  failing   1 of 3 failures: connected in ",
        "(the demo backend has frozen)\n",
        "s  failing   2 of 3 failures: ",
        "s  failing   3 of 3 failures: connected in ",
        "s  down      3 failures in a row",
        "s  restart   1: sh restart.sh\n",
        "s  healthy   answers again; down ",
        "cured by the first command\n",
    ];
    let mut rest = said.out.as_str();
    for words in order {
        let Some((_, after)) = rest.split_once(words) else { panic!("`{words}` is missing in\n{}", said.out) };
        rest = after;
    }
    nothing_is_left(&place);
}

#[test]
fn ctrl_c_ends_the_demo_and_all_that_belongs_to_it() {
    let place = Place::with("");
    let mut demo = demo(&place).spawn().expect("the program runs");
    let mut story = BufReader::new(demo.stdout.take().expect("a pipe"));
    let mut line = String::new();
    story.read_line(&mut line).expect("a line");
    assert!(line.contains("healthy"), "{line}");
    let group = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process_group(group, Signal::INT).expect("it is there");
    story.read_to_string(&mut line).expect("text");
    let said = Said::new(demo.wait_with_output().expect("it ends"));
    place.demand(
        said.code == Some(1) && said.err == "watchdog: the demo was stopped; it left nothing behind\n",
        &format!("{said:?}"),
    );
    nothing_is_left(&place);
}

/// While the state cannot be saved an order waits to be carried out after a crash, but has its effect once.
#[test]
fn what_the_operator_asks_is_done_once_though_it_cannot_be_saved() {
    let place = Place::with(&format!("{LIMITS}{}", curable("app")));
    place.write("app-up", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || state(&place, "app") == "healthy");
    place.eventually("no save hinders us", || {
        let _ = fs::remove_file(place.path("state/state.json"));
        fs::create_dir_all(place.path("state/state.json/in the way")).is_ok()
    });
    let orders = || files_below(&place.path("state/orders")).len();
    let mut verbs = Vec::new();
    for (words, event, count) in [
        (&["pause", "app"][..], "paused", 1),
        (&["resume", "app"], "resumed", 1),
        (&["pause", "--", "true"], "resumed", 2),
        (&["pause"], "paused", 3),
        (&["resume"], "resumed", 3),
    ] {
        verbs.push(place.begin(words));
        place.eventually(event, || place.events(event).len() >= count);
    }
    assert_eq!((place.events("paused").len(), place.events("resumed").len()), (3, 3), "{}", place.story());
    assert_eq!(orders(), 6, "{}", place.story());
    fs::remove_dir_all(place.path("state/state.json")).expect("it is there");
    daemon.signal(Signal::USR1);
    place.eventually("all are done", || orders() == 0);
    for verb in verbs {
        let said = Said::new(verb.wait_with_output().expect("it ends"));
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    says(&place, &["pause"], 0, "paused");
    place.eventually("a new one is heeded", || place.events("paused").len() == 4);
    assert_eq!(place.events("resumed").len(), 3, "{}", place.story());
    assert!(daemon.stop().success());
}
