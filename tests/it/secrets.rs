//! What must never be seen and what must never act: secrets of the configuration, and what strangers say to terminals.
//! How much is said, and where.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::faults::{Server, Ways};
use crate::place::{Place, Said, files_below};

const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 1d, \
                      max_cooldown: 1d}\ntargets:\n";

/// All files below a folder, but for what commands themselves have printed.
fn all_below(folder: &Path) -> String {
    let files = files_below(folder).into_iter().filter(|(path, _)| !is_printed(path));
    files.map(|(path, bytes)| format!("\n--- {}\n{}", path.display(), String::from_utf8_lossy(&bytes))).collect()
}

fn is_printed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "out")
}

const PASSWORD: &str = "pa55word-in-the-url";
const QUERY: &str = "t0ken-in-the-query";
const HEADER: &str = "t0ken-in-a-header";
const QUOTED: &str = "q\"uoted\\t0ken";
const FILE: &str = "pa55word-from-the-file";
const ENV: &str = "k3y-from-the-environment";
/// `user:` and the password as basic auth has them.
const BASIC: &str = "dXNlcjpwYTU1d29yZC1pbi10aGUtdXJs";

/// A server that repeats what it is told in its status line, in a header and in the value that is looked for.
fn parrot() -> Ways {
    let all = [HEADER, QUOTED, BASIC, PASSWORD, QUERY, FILE].join(", ");
    let body = json!({ "status": format!("no: {all}") }).to_string();
    let head = format!("HTTP/1.1 200 {all}\r\nX-Echo: {all}\r\nContent-Length: {}\r\n\r\n", body.len());
    Ways::raw(&format!("{head}{body}"))
}

#[test]
fn secrets_are_seen_nowhere_even_where_they_are_repeated() {
    let well = || Server::start(Ways::answer("200 OK", r#"{"status": "ok"}"#));
    let garbage = Ways::raw(&format!("{HEADER} {BASIC} {QUERY}\r\n\r\n"));
    let moved = Ways::raw(&format!("HTTP/1.1 302 {HEADER}\r\nLocation: /?{QUERY}\r\nContent-Length: 0\r\n\r\n"));
    let servers = [("parrot", well(), parrot()), ("garbage", well(), garbage), ("moved", well(), moved)];
    let mut targets = String::new();
    for (name, server, _) in &servers {
        let url = format!("http://user:{PASSWORD}@127.0.0.1:{}/?key=${{QUERY}}", server.port());
        let headers = "{X-Token: 'Bearer ${HEADER}', X-Other: '${QUOTED}'}";
        let http = format!("{{url: '{url}', headers: {headers}, json: {{/status: ok}}}}");
        targets += &format!("  - {{name: {name}, http: {http}, restart: sh restart.sh {name}}}\n");
    }
    targets += "  - {name: probe, command: 'echo cannot open $DATABASE; exit 1', restart: sh restart.sh probe}\n";
    let place = Place::with(&format!(
        "env_file: secrets.env\nenv: {{DATABASE: 'db://me:${{FILE}}@h/${{ENV}}'}}\nlog: {{level: debug}}\n\
         page: {{file: state/page.html, details: true}}\nmetrics: state/watchdog.prom\n\
         notify: [{{command: cat >> state/messages}}]\n{LIMITS}{targets}"
    ));
    // As an editor of Windows leaves it.
    place.write("secrets.env", &format!("\u{feff}FILE={FILE}\r\nQUERY={QUERY}\r\n"));
    fs::set_permissions(place.path("secrets.env"), Permissions::from_mode(0o600)).expect("a file of ours");
    let record = "tr '\\0' ' ' < /proc/$$/cmdline >> cmdlines; tr '\\0' ' ' < /proc/$PPID/cmdline >> cmdlines";
    place.write("restart.sh", &format!("{record}\necho \"$DATABASE\" > given\necho \"denied: $DATABASE\"; exit 3\n"));

    let mut seen = String::new();
    let mut run = |words: &[&str], given: bool| {
        let mut command = place.command(words);
        if given {
            command.env("HEADER", HEADER).env("QUOTED", QUOTED).env("ENV", ENV);
        }
        let said = Said::new(command.output().expect("the program runs"));
        seen += &format!("--- {words:?}: {:?}\n{}{}", said.code, said.out, said.err);
    };
    run(&["--once", "-v"], true);
    servers.iter().for_each(|(_, server, ways)| server.turn(ways.clone()));
    run(&["--once", "-v"], true);
    for words in [&["check"][..], &["status"], &["status", "--json"], &["pause"], &["resume"], &["--once"]] {
        run(words, true);
    }
    for words in [&["incident"][..], &["incident", "last"], &["incident", "last", "--json"], &["report"]] {
        run(words, false);
    }
    run(&["check"], false);
    place.write("secrets.env", &format!("FILE={FILE}\n{QUERY}\n"));
    run(&["check"], true);

    // They were really used and really repeated, or nothing would be shown by their not being seen.
    let requests = servers[0].1.requests().concat();
    for secret in [BASIC, QUERY, HEADER, QUOTED] {
        place.demand(requests.contains(secret), &format!("the server was told {secret}"));
    }
    assert_eq!(place.read("given").trim_end(), format!("db://me:{FILE}@h/{ENV}"));
    assert_eq!(place.events("restart_done").len(), 4, "{}", place.story());
    for (file, told) in
        [("page.html", "down"), ("watchdog.prom", "watchdog_up"), ("messages", "cannot open db://me:…@h/…")]
    {
        place.demand(place.read(&format!("state/{file}")).contains(told), &format!("{told} is in {file}"));
    }
    let log = place.read("state/watchdog.log");
    for told in ["denied: db://me:…@h/…", "cannot open db://me:…@h/…", "/status is \"no: …, …, …, …, …, …\""]
    {
        place.demand(log.contains(told), &format!("`{told}` is in the log"));
    }
    let all = seen + &place.read("cmdlines") + &all_below(&place.path("state")) + &printed(&place);
    for secret in [PASSWORD, QUERY, HEADER, QUOTED, r#"q\"uoted\\t0ken"#, FILE, ENV, BASIC] {
        let at = all.find(secret).map(|at| String::from_utf8_lossy(&all.as_bytes()[at.saturating_sub(300)..at + 40]));
        assert!(at.is_none(), "{secret} is seen: {at:?}");
    }
}

/// Of 22 bytes.
const PRINTED: &str = "s3cret-that-is-printed";

/// The program with a secret in its environment that its commands have as `TOKEN`.
fn knowing(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(words);
    command.env("SECRET", PRINTED);
    command
}

/// What commands have printed, as far as it is kept.
fn printed(place: &Place) -> String {
    let said = files_below(&place.path("state/incidents")).into_iter().filter(|(path, _)| is_printed(path));
    said.map(|(path, bytes)| format!("--- {}\n{}", path.display(), String::from_utf8_lossy(&bytes))).collect()
}

#[test]
fn what_commands_print_of_secrets_is_not_kept() {
    let commands = "diagnose: 'echo diagnosed $TOKEN', only_if: 'echo asked $TOKEN', restart: sh restart.sh";
    let target = format!("  - {{name: app, file: {{path: up, max_age: 1d}}, {commands}}}\n");
    let place = Place::with(&format!("env: {{TOKEN: '${{SECRET}}'}}\n{LIMITS}{target}"));
    // 16 KiB of the beginning and 48 KiB of the end are kept: both cuts go through a secret. A child stays behind.
    place.write(
        "restart.sh",
        "fill() { head -c $1 /dev/zero | tr '\\0' x; }\nfill 16380; printf %s \"$TOKEN\"; fill 100000\n\
         printf %s \"$TOKEN\"; fill 49148\n(while [ ! -e go ]; do sleep 0.1; done; echo \"late $TOKEN\") &\n",
    );
    let tick = || Said::new(knowing(&place, &["--once"]).output().expect("the program runs"));
    let hidden = |text: &str| !["s3cr", "nted"].iter().any(|part| text.contains(part));
    place.demand(tick().code == Some(1), "it is down");
    let said = printed(&place);
    for told in ["diagnosed ***", "asked ***", "x****\n[at least", "here]\n****x"] {
        place.demand(said.contains(told), &format!("`{told}` is kept"));
    }
    place.demand(hidden(&said), "of the secret, no part is kept");

    place.write("go", "");
    place.eventually("the child prints", || printed(&place).contains("late "));
    tick();
    place.demand(printed(&place).contains("late ***") && hidden(&printed(&place)), "what it printed is struck out");
}

#[test]
fn what_was_printed_under_a_watchdog_that_was_killed_is_struck_out_by_the_next() {
    let restart = "echo denied $TOKEN; while [ ! -e go ]; do sleep 0.1; done; echo again $TOKEN";
    let restart = format!("[{{run: '{restart}', timeout: 1h}}]");
    let target = format!("  - {{name: app, file: {{path: up, max_age: 1d}}, restart: {restart}}}\n");
    let place = Place::with(&format!("env: {{TOKEN: '${{SECRET}}'}}\n{LIMITS}{target}"));
    let killed = place.daemon_by(knowing(&place, &["run"]));
    place.eventually("it has printed", || printed(&place).contains(PRINTED));
    killed.kill();
    let next = place.daemon_by(knowing(&place, &["run"]));
    place.eventually("it is struck out", || printed(&place).contains("denied ******"));
    place.demand(!printed(&place).contains("s3cr"), "no part of it is left");
    place.write("go", "");
    place.eventually("the command ends", || !place.events("restart_done").is_empty());
    place.demand(printed(&place).contains("again ***"), "so is what it printed later");
    assert!(next.stop().success());
}

#[test]
fn nothing_that_strangers_say_acts_on_a_log_or_a_terminal() {
    let well = Ways::answer("200 OK", r#"{"status": "ok"}"#);
    let body = r#"{"status": "\u001b]0;title\u0007\u202e\u009b31m", "raw": 1}"#;
    let line = "HTTP/1.1 200 \u{1b}[2J\r\nX-A: \u{1b}[31m\r\n";
    let odd = Ways::raw(&format!("{line}Content-Length: {}\r\n\r\n{body}", body.len()));
    let servers = [
        (Server::start(well.clone()), odd),
        (Server::start(well.clone()), Ways::raw("\u{1b}[2J\u{1b}[31m\r\n\r\n")),
        (Server::start(well.clone()), Ways::answer("200 OK", body)),
        (Server::start(well), Ways::answer("200 OK", "\u{1b}[31mred\n\u{1b}[0m")),
    ];
    let mut targets = String::new();
    for (number, (server, _)) in servers.iter().enumerate() {
        let http = format!("{{url: 'http://127.0.0.1:{}/', json: {{/status: ok}}}}", server.port());
        let restart = format!("\"printf 'so: \\\\033[31mred\\\\007\\\\n'; exit {}\"", number + 3);
        targets += &format!("  - {{name: app-{number}, http: {http}, restart: {restart}}}\n");
    }
    let place = Place::with(&format!("log: {{level: debug}}\n{LIMITS}{targets}"));
    let mut seen = place.run(&["--once"]).out;
    servers.iter().for_each(|(server, odd)| server.turn(odd.clone()));
    for words in [&["--once", "-v"][..], &["check"], &["status"], &["status", "--json"]] {
        let said = place.run(words);
        seen += &(said.out + &said.err);
    }
    assert_eq!(place.events("restart_done").len(), 4, "{}", place.story());
    place.demand(seen.contains("output: so: \\u{1b}[31mred"), "what acts is told in a form that does not");
    for text in [seen, all_below(&place.path("state"))] {
        let acts = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        let at = text.find(acts).map(|at| &text.as_bytes()[at.saturating_sub(100)..(at + 20).min(text.len())]);
        assert!(at.is_none(), "{:?}", at.map(String::from_utf8_lossy));
    }
}

#[test]
fn a_tick_says_only_news_and_with_q_nothing() {
    let target = "  - {name: app, file: {path: up, max_age: 1d}, restart: 'echo done >> done'}\n";
    let down = ["app down: 1 of 1", "app restart 1 (of 10 an hour): echo done >> done"];
    let waits = ["app not restarted until "];
    for (words, says) in [(&["--once"][..], true), (&["--once", "-q"], false), (&["-q", "--once"], false)] {
        let place = Place::with(&format!("{LIMITS}{target}"));
        place.write("up", "");
        let well = place.run(words);
        place.demand(well.code == Some(0) && well.out.is_empty() && well.err.is_empty(), &format!("{well:?}"));
        fs::remove_file(place.path("up")).expect("it is there");
        for news in [&down[..], &waits] {
            let said = place.run(words);
            place.demand(said.code == Some(1) && said.err.is_empty(), &format!("{said:?}"));
            let told: Vec<&str> = said.out.lines().collect();
            let fits = told.len() == news.len() && told.iter().zip(news).all(|(line, news)| line.starts_with(news));
            place.demand(if says { fits } else { told.is_empty() }, &format!("{words:?}: {told:?}"));
        }
        let still = place.run(words);
        place.demand(still.code == Some(1) && still.out.is_empty(), &format!("it was told: {still:?}"));
        place.demand(place.read("state/watchdog.log").contains("app down: 1 of 1"), "the log has it all the same");
    }
}

#[test]
fn v_logs_every_look() {
    for (words, looks) in [(&["--once"][..], false), (&["--once", "-v"], true), (&["-v", "--once"], true)] {
        let place = Place::with(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
        place.write("up", "");
        place.run(words);
        let log = place.read("state/watchdog.log");
        place.demand(log.contains("debug app healthy: written ") == looks, &format!("{words:?}"));
    }
}

#[test]
fn without_a_terminal_nothing_is_said_in_its_language() {
    let place = Place::with(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
    let every = [&["--help"][..], &["status", "--help"], &["statsu"], &["--once"], &["check"], &["status"], &["pause"]];
    for words in every {
        let said = place.run(words);
        place.demand(!(said.out + &said.err).contains('\u{1b}'), &format!("{words:?}"));
    }
    let mut watching = place.begin(&["status", "--watch"]);
    let stdout = BufReader::new(watching.stdout.take().expect("a pipe"));
    let twice = stdout.lines().map_while(Result::ok).filter(|line| line.contains("TARGET")).take(2);
    assert_eq!(twice.collect::<Vec<_>>().concat().matches('\u{1b}').count(), 0);
    watching.kill().expect("it runs until it is ended");
    watching.wait().expect("a child can be waited for");
}
