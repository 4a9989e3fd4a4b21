//! Tests of commands that must end with their caller, and of outputs in memory.

use super::*;

fn query(sandbox: &Sandbox, text: &str, timeout: Duration) -> CommandSpec {
    CommandSpec { leftovers: Leftovers::End, ..sandbox.spec(&["sh", "-c", text], timeout) }
}

#[test]
fn leftovers_of_a_query_end_at_its_timeout_and_its_result_does_not_wait_for_them() {
    let sandbox = Sandbox::new();
    let text = "(trap '' TERM; sleep 1000) & echo $! >child; setsid sh -c 'echo $$ >daemon; exec sleep 1000' & exit 3";
    let result = run(query(&sandbox, text, SHORT), |_| {});
    assert_eq!(result.exit, Exit::Exited(3));
    let (child, daemon) = (sandbox.process("child"), sandbox.process("daemon"));
    assert!(is_alive(child) || result.duration >= SHORT, "it ended before the timeout");
    eventually(|| !is_alive(child));
    assert!(is_alive(daemon), "a daemon is never ended");
    kill(daemon);
}

#[test]
fn a_process_in_another_group_ends_with_its_query() {
    let sandbox = Sandbox::new();
    let text = "timeout 1000 sh -c 'trap \"\" TERM; echo $$ >child; while :; do sleep 0.05; done'; exit 0";
    let result = run(query(&sandbox, text, SHORT), |_| {});
    assert_eq!(result.exit, Exit::TimedOut);
    assert!(!is_alive(sandbox.process("child")));
}

#[test]
fn a_closed_scope_ends_commands_and_leftovers_and_starts_nothing() {
    let sandbox = Sandbox::new();
    let stubborn = "trap '' TERM; echo $$ >self; while :; do sleep 0.05; done";
    let spec = query(&sandbox, stubborn, AMPLE);
    let scope = spec.scope.clone();
    let left = CommandSpec { scope: scope.clone(), ..query(&sandbox, "sleep 1000 & echo $! >left", AMPLE) };
    assert_eq!(run(left, |_| {}).exit, Exit::Exited(0));
    let runner = thread::spawn(move || run(spec, |_| {}).exit);
    let (own, left) = (sandbox.process("self"), sandbox.process("left"));
    assert!(is_alive(own) && is_alive(left) && !scope.is_empty());
    scope.end();
    assert!(!is_alive(own) && !is_alive(left) && scope.is_empty());
    assert_eq!(runner.join().unwrap(), Exit::TimedOut);
    let late = CommandSpec { scope, ..query(&sandbox, "echo started", AMPLE) };
    assert_eq!(run(late, |_| {}).exit, Exit::NotStarted("cancelled before it started".into()));
    assert_eq!(sandbox.output(), "");
}

#[test]
fn an_output_in_memory_stops_growing_when_its_command_has_ended() {
    let sandbox = Sandbox::new();
    let output = create_memory_output().unwrap();
    let kept = output.try_clone().unwrap();
    let text = "setsid sh -c 'echo $$ >daemon; while kill -0 $0; do echo a line of a daemon || echo x >>refused; \
                done 2>/dev/null' $PPID & until [ -e daemon ]; do sleep 0.01; done";
    let spec = CommandSpec { output, ..sandbox.spec(&["sh", "-c", text], AMPLE) };
    assert_eq!(run(spec, |_| {}).exit, Exit::Exited(0));
    let length = kept.metadata().unwrap().len();
    assert!(length <= MAX_OUTPUT + 64, "{length}");
    let daemon = sandbox.process("daemon");
    eventually(|| fs::metadata(sandbox.at("refused")).is_ok_and(|refused| refused.len() > 1_000));
    assert_eq!(kept.metadata().unwrap().len(), length);
    assert!(is_alive(daemon), "its writes fail, but it is not killed");
    kill(daemon);
}
