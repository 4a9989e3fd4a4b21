//! Commands that must not outlive whoever asked, and outputs that must not outgrow the memory.

use super::*;

fn question(place: &Place, text: &str, timeout: Duration) -> CommandSpec {
    CommandSpec { leftovers: Leftovers::End, ..place.spec(&["sh", "-c", text], timeout) }
}

#[test]
fn what_a_question_leaves_behind_ends_at_its_deadline_and_the_answer_does_not_wait_for_that() {
    let place = Place::new();
    let text = "(trap '' TERM; sleep 1000) & echo $! >child; setsid sh -c 'echo $$ >daemon; exec sleep 1000' & exit 3";
    let ended = run(question(&place, text, SHORT), |_| {});
    assert_eq!(ended.exit, Exit::Exited(3));
    let (child, daemon) = (place.process("child"), place.process("daemon"));
    assert!(is_alive(child) || ended.duration >= SHORT, "not before its deadline");
    eventually(|| !is_alive(child));
    assert!(is_alive(daemon), "what made itself a daemon has a life of its own");
    kill(daemon);
}

#[test]
fn what_a_question_has_started_in_another_group_ends_with_it() {
    let place = Place::new();
    let text = "timeout 1000 sh -c 'trap \"\" TERM; echo $$ >child; while :; do sleep 0.05; done'; exit 0";
    let ended = run(question(&place, text, SHORT), |_| {});
    assert_eq!(ended.exit, Exit::TimedOut);
    assert!(!is_alive(place.process("child")));
}

#[test]
fn a_closed_scope_ends_what_runs_and_what_was_left_and_begins_nothing() {
    let place = Place::new();
    let stubborn = "trap '' TERM; echo $$ >self; while :; do sleep 0.05; done";
    let spec = question(&place, stubborn, AMPLE);
    let scope = spec.scope.clone();
    let left = CommandSpec { scope: scope.clone(), ..question(&place, "sleep 1000 & echo $! >left", AMPLE) };
    assert_eq!(run(left, |_| {}).exit, Exit::Exited(0));
    let runner = thread::spawn(move || run(spec, |_| {}).exit);
    let (own, left) = (place.process("self"), place.process("left"));
    assert!(is_alive(own) && is_alive(left) && !scope.is_empty());
    scope.end();
    assert!(!is_alive(own) && !is_alive(left) && scope.is_empty());
    assert_eq!(runner.join().unwrap(), Exit::TimedOut);
    let late = CommandSpec { scope, ..question(&place, "echo began", AMPLE) };
    assert_eq!(run(late, |_| {}).exit, Exit::NotStarted("nobody waits for it any more".into()));
    assert_eq!(place.output(), "");
}

#[test]
fn an_output_in_memory_grows_no_more_once_its_command_has_ended() {
    let place = Place::new();
    let output = memory_output().unwrap();
    let kept = output.try_clone().unwrap();
    let text = "setsid sh -c 'echo $$ >daemon; while kill -0 $0; do echo a line of a daemon || echo x >>refused; \
                done 2>/dev/null' $PPID & until [ -e daemon ]; do sleep 0.01; done";
    let spec = CommandSpec { output, ..place.spec(&["sh", "-c", text], AMPLE) };
    assert_eq!(run(spec, |_| {}).exit, Exit::Exited(0));
    let length = kept.metadata().unwrap().len();
    assert!(length <= MAX_KEPT + 64, "{length}");
    let daemon = place.process("daemon");
    eventually(|| fs::metadata(place.at("refused")).is_ok_and(|refused| refused.len() > 1_000));
    assert_eq!(kept.metadata().unwrap().len(), length);
    assert!(is_alive(daemon), "it is told of a full disk, and no more");
    kill(daemon);
}
