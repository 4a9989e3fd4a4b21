//! Secrets of the configuration are never shown, foreign text never controls a terminal, and the program prints no more
//! than it should.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::faults::{Behaviour, Server};
use crate::sandbox::{CommandOutput, Sandbox, files_below};

const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 1d, \
                      max_cooldown: 1d}\ntargets:\n";

/// The content of all files below a folder except saved command output.
fn all_files_below(folder: &Path) -> String {
    let files = files_below(folder).into_iter().filter(|(path, _)| !is_command_output(path));
    files.map(|(path, bytes)| format!("\n--- {}\n{}", path.display(), String::from_utf8_lossy(&bytes))).collect()
}

fn is_command_output(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "out")
}

const PASSWORD: &str = "pa55word-in-the-url";
const QUERY: &str = "t0ken-in-the-query";
const HEADER: &str = "t0ken-in-a-header";
const QUOTED: &str = "q\"uoted\\t0ken";
const FILE: &str = "pa55word-from-the-file";
const ENV: &str = "k3y-from-the-environment";
/// `user:` and the password, encoded for basic auth.
const BASIC: &str = "dXNlcjpwYTU1d29yZC1pbi10aGUtdXJs";

/// A server that repeats the secrets in its status line, in a header and in the checked JSON value.
fn echoing() -> Behaviour {
    let all = [HEADER, QUOTED, BASIC, PASSWORD, QUERY, FILE].join(", ");
    let body = json!({ "status": format!("no: {all}") }).to_string();
    let head = format!("HTTP/1.1 200 {all}\r\nX-Echo: {all}\r\nContent-Length: {}\r\n\r\n", body.len());
    Behaviour::raw(&format!("{head}{body}"))
}

#[test]
fn secrets_appear_nowhere_even_if_a_server_repeats_them() {
    let well = || Server::start(Behaviour::answer("200 OK", r#"{"status": "ok"}"#));
    let garbage = Behaviour::raw(&format!("{HEADER} {BASIC} {QUERY}\r\n\r\n"));
    let moved = Behaviour::raw(&format!("HTTP/1.1 302 {HEADER}\r\nLocation: /?{QUERY}\r\nContent-Length: 0\r\n\r\n"));
    let servers = [("parrot", well(), echoing()), ("garbage", well(), garbage), ("moved", well(), moved)];
    let mut targets = String::new();
    for (name, server, _) in &servers {
        let url = format!("http://user:{PASSWORD}@127.0.0.1:{}/?key=${{QUERY}}", server.port());
        let headers = "{X-Token: 'Bearer ${HEADER}', X-Other: '${QUOTED}'}";
        let http = format!("{{url: '{url}', headers: {headers}, json: {{/status: ok}}}}");
        targets += &format!("  - {{name: {name}, http: {http}, restart: sh restart.sh {name}}}\n");
    }
    targets += "  - {name: probe, command: 'echo cannot open $DATABASE; exit 1', restart: sh restart.sh probe}\n";
    let sandbox = Sandbox::new(&format!(
        "env_file: secrets.env\nenv: {{DATABASE: 'db://me:${{FILE}}@h/${{ENV}}'}}\nlog: {{level: debug}}\n\
         page: {{file: state/page.html, details: true}}\nmetrics: state/watchdog.prom\n\
         notify: [{{command: cat >> state/messages}}]\n{LIMITS}{targets}"
    ));
    // With a byte order mark and CRLF, as saved by an editor on Windows.
    sandbox.write("secrets.env", &format!("\u{feff}FILE={FILE}\r\nQUERY={QUERY}\r\n"));
    fs::set_permissions(sandbox.path("secrets.env"), Permissions::from_mode(0o600)).expect("the test owns the file");
    let record_args = "tr '\\0' ' ' < /proc/$$/cmdline >> cmdlines; tr '\\0' ' ' < /proc/$PPID/cmdline >> cmdlines";
    sandbox.write(
        "restart.sh",
        &format!("{record_args}\necho \"$DATABASE\" > given\necho \"denied: $DATABASE\"; exit 3\n"),
    );

    let mut screens = String::new();
    let mut run = |args: &[&str], given: bool| {
        let mut command = sandbox.command(args);
        if given {
            command.env("HEADER", HEADER).env("QUOTED", QUOTED).env("ENV", ENV);
        }
        let output = CommandOutput::new(command.output().expect("the program runs"));
        screens += &format!("--- {args:?}: {:?}\n{}{}", output.code, output.out, output.err);
    };
    run(&["--once", "-v"], true);
    servers.iter().for_each(|(_, server, behaviour)| server.set_behaviour(behaviour.clone()));
    run(&["--once", "-v"], true);
    for args in [&["check"][..], &["status"], &["status", "--json"], &["pause"], &["resume"], &["--once"]] {
        run(args, true);
    }
    for args in [&["incident"][..], &["incident", "last"], &["incident", "last", "--json"], &["report"]] {
        run(args, false);
    }
    run(&["check"], false);
    sandbox.write("secrets.env", &format!("FILE={FILE}\n{QUERY}\n"));
    run(&["check"], true);

    // The secrets must really have been sent and repeated, or their absence would prove nothing.
    let requests = servers[0].1.requests().concat();
    for secret in [BASIC, QUERY, HEADER, QUOTED] {
        sandbox.assert(requests.contains(secret), &format!("the server received {secret}"));
    }
    assert_eq!(sandbox.read("given").trim_end(), format!("db://me:{FILE}@h/{ENV}"));
    assert_eq!(sandbox.events("restart_done").len(), 4, "{}", sandbox.dump());
    for (file, expected) in
        [("page.html", "down"), ("watchdog.prom", "watchdog_up"), ("messages", "cannot open db://me:…@h/…")]
    {
        sandbox.assert(sandbox.read(&format!("state/{file}")).contains(expected), &format!("{expected} is in {file}"));
    }
    let log = sandbox.read("state/watchdog.log");
    for expected in ["denied: db://me:…@h/…", "cannot open db://me:…@h/…", "/status is \"no: …, …, …, …, …, …\""]
    {
        sandbox.assert(log.contains(expected), &format!("`{expected}` is in the log"));
    }
    let all = screens + &sandbox.read("cmdlines") + &all_files_below(&sandbox.path("state")) + &saved_output(&sandbox);
    assert_hidden(&all);
}

#[track_caller]
fn assert_hidden(all: &str) {
    for secret in [PASSWORD, QUERY, HEADER, QUOTED, r#"q\"uoted\\t0ken"#, FILE, ENV, BASIC] {
        let at = all.find(secret).map(|at| String::from_utf8_lossy(&all.as_bytes()[at.saturating_sub(300)..at + 40]));
        assert!(at.is_none(), "{secret} is visible: {at:?}");
    }
}

/// 22 bytes, on which the cut positions below depend.
const SECRET: &str = "s3cret-that-is-printed";

/// The program with `SECRET` set, which its commands get as `TOKEN`.
fn with_secret(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.command(args);
    command.env("SECRET", SECRET);
    command
}

/// All saved command output.
fn saved_output(sandbox: &Sandbox) -> String {
    let output = files_below(&sandbox.path("state/incidents")).into_iter().filter(|(path, _)| is_command_output(path));
    output.map(|(path, bytes)| format!("--- {}\n{}", path.display(), String::from_utf8_lossy(&bytes))).collect()
}

#[test]
fn secrets_in_command_output_are_redacted() {
    let commands = "diagnose: 'echo diagnosed $TOKEN', only_if: 'echo asked $TOKEN', restart: sh restart.sh";
    let target = format!("  - {{name: app, file: {{path: up, max_age: 1d}}, {commands}}}\n");
    let sandbox = Sandbox::new(&format!("env: {{TOKEN: '${{SECRET}}'}}\n{LIMITS}{target}"));
    // The first 16 KiB and the last 48 KiB are kept, and both cuts go through a secret. A child process prints later.
    sandbox.write(
        "restart.sh",
        "fill() { head -c $1 /dev/zero | tr '\\0' x; }\nfill 16380; printf %s \"$TOKEN\"; fill 100000\n\
         printf %s \"$TOKEN\"; fill 49148\n(while [ ! -e go ]; do sleep 0.1; done; echo \"late $TOKEN\") &\n",
    );
    let tick = || CommandOutput::new(with_secret(&sandbox, &["--once"]).output().expect("the program runs"));
    let is_hidden = |text: &str| !["s3cr", "nted"].iter().any(|part| text.contains(part));
    sandbox.assert(tick().code == Some(1), "the target is down");
    let output = saved_output(&sandbox);
    for expected in ["diagnosed ***", "asked ***", "x****\n[at least", "here]\n****x"] {
        sandbox.assert(output.contains(expected), &format!("`{expected}` is kept"));
    }
    sandbox.assert(is_hidden(&output), "no part of the secret is kept");

    sandbox.write("go", "");
    sandbox.eventually("the child prints", || saved_output(&sandbox).contains("late "));
    tick();
    sandbox.assert(
        saved_output(&sandbox).contains("late ***") && is_hidden(&saved_output(&sandbox)),
        "the child's output is redacted",
    );
}

#[test]
fn output_left_by_a_killed_watchdog_is_redacted_by_the_next_one() {
    let restart = "echo denied $TOKEN; while [ ! -e go ]; do sleep 0.1; done; echo again $TOKEN";
    let restart = format!("[{{run: '{restart}', timeout: 1h}}]");
    let target = format!("  - {{name: app, file: {{path: up, max_age: 1d}}, restart: {restart}}}\n");
    let sandbox = Sandbox::new(&format!("env: {{TOKEN: '${{SECRET}}'}}\n{LIMITS}{target}"));
    let killed = sandbox.start_daemon_from(with_secret(&sandbox, &["run"]));
    sandbox.eventually("the command has printed", || saved_output(&sandbox).contains(SECRET));
    killed.kill();
    let next = sandbox.start_daemon_from(with_secret(&sandbox, &["run"]));
    sandbox.eventually("the secret is redacted", || saved_output(&sandbox).contains("denied ******"));
    sandbox.assert(!saved_output(&sandbox).contains("s3cr"), "no part of the secret is left");
    sandbox.write("go", "");
    sandbox.eventually("the command ends", || !sandbox.events("restart_done").is_empty());
    sandbox.assert(saved_output(&sandbox).contains("again ***"), "later output is redacted as well");
    assert!(next.stop().success());
}

#[test]
fn foreign_text_cannot_control_a_log_or_a_terminal() {
    let well = Behaviour::answer("200 OK", r#"{"status": "ok"}"#);
    let body = r#"{"status": "\u001b]0;title\u0007\u202e\u009b31m", "raw": 1}"#;
    let line = "HTTP/1.1 200 \u{1b}[2J\r\nX-A: \u{1b}[31m\r\n";
    let odd = Behaviour::raw(&format!("{line}Content-Length: {}\r\n\r\n{body}", body.len()));
    let servers = [
        (Server::start(well.clone()), odd),
        (Server::start(well.clone()), Behaviour::raw("\u{1b}[2J\u{1b}[31m\r\n\r\n")),
        (Server::start(well.clone()), Behaviour::answer("200 OK", body)),
        (Server::start(well), Behaviour::answer("200 OK", "\u{1b}[31mred\n\u{1b}[0m")),
    ];
    let mut targets = String::new();
    for (number, (server, _)) in servers.iter().enumerate() {
        let http = format!("{{url: 'http://127.0.0.1:{}/', json: {{/status: ok}}}}", server.port());
        let restart = format!("\"printf 'so: \\\\033[31mred\\\\007\\\\n'; exit {}\"", number + 3);
        targets += &format!("  - {{name: app-{number}, http: {http}, restart: {restart}}}\n");
    }
    let sandbox = Sandbox::new(&format!("log: {{level: debug}}\n{LIMITS}{targets}"));
    let mut screens = sandbox.run(&["--once"]).out;
    servers.iter().for_each(|(server, odd)| server.set_behaviour(odd.clone()));
    for args in [&["--once", "-v"][..], &["check"], &["status"], &["status", "--json"]] {
        let output = sandbox.run(args);
        screens += &(output.out + &output.err);
    }
    assert_eq!(sandbox.events("restart_done").len(), 4, "{}", sandbox.dump());
    sandbox.assert(screens.contains("output: so: \\u{1b}[31mred"), "control characters are escaped");
    for text in [screens, all_files_below(&sandbox.path("state"))] {
        let is_control = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        let at = text.find(is_control).map(|at| &text.as_bytes()[at.saturating_sub(100)..(at + 20).min(text.len())]);
        assert!(at.is_none(), "{:?}", at.map(String::from_utf8_lossy));
    }
}

#[test]
fn a_tick_prints_only_news_and_with_q_nothing() {
    let target = "  - {name: app, file: {path: up, max_age: 1d}, restart: 'echo done >> done'}\n";
    let down = ["app down: 1 of 1", "app restart 1 (of 10 an hour): echo done >> done"];
    let waits = ["app not restarted until "];
    for (args, prints) in [(&["--once"][..], true), (&["--once", "-q"], false), (&["-q", "--once"], false)] {
        let sandbox = Sandbox::new(&format!("{LIMITS}{target}"));
        sandbox.write("up", "");
        let well = sandbox.run(args);
        sandbox.assert(well.code == Some(0) && well.out.is_empty() && well.err.is_empty(), &format!("{well:?}"));
        fs::remove_file(sandbox.path("up")).expect("the file exists");
        for news in [&down[..], &waits] {
            let output = sandbox.run(args);
            sandbox.assert(output.code == Some(1) && output.err.is_empty(), &format!("{output:?}"));
            let lines: Vec<&str> = output.out.lines().collect();
            let fits = lines.len() == news.len() && lines.iter().zip(news).all(|(line, news)| line.starts_with(news));
            sandbox.assert(if prints { fits } else { lines.is_empty() }, &format!("{args:?}: {lines:?}"));
        }
        let still = sandbox.run(args);
        sandbox.assert(still.code == Some(1) && still.out.is_empty(), &format!("nothing is reported again: {still:?}"));
        sandbox.assert(sandbox.read("state/watchdog.log").contains("app down: 1 of 1"), "the log has the event anyway");
    }
}

#[test]
fn with_v_every_probe_is_logged() {
    for (args, logs_probes) in [(&["--once"][..], false), (&["--once", "-v"], true), (&["-v", "--once"], true)] {
        let sandbox = Sandbox::new(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
        sandbox.write("up", "");
        sandbox.run(args);
        let log = sandbox.read("state/watchdog.log");
        sandbox.assert(log.contains("debug app healthy: written ") == logs_probes, &format!("{args:?}"));
    }
}

#[test]
fn without_a_terminal_no_control_sequences_are_printed() {
    let sandbox = Sandbox::new(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
    let every = [&["--help"][..], &["status", "--help"], &["statsu"], &["--once"], &["check"], &["status"], &["pause"]];
    for args in every {
        let output = sandbox.run(args);
        sandbox.assert(!(output.out + &output.err).contains('\u{1b}'), &format!("{args:?}"));
    }
    let mut watching = sandbox.spawn(&["status", "--watch"]);
    let stdout = BufReader::new(watching.stdout.take().expect("a pipe"));
    let twice = stdout.lines().map_while(Result::ok).filter(|line| line.contains("TARGET")).take(2);
    assert_eq!(twice.collect::<Vec<_>>().concat().matches('\u{1b}').count(), 0);
    watching.kill().expect("status --watch runs");
    watching.wait().expect("a child can be waited for");
}
