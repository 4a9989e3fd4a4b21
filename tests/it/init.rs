//! `init`: what it finds in a PM2 home, the file it writes, and what it must not touch.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

use serde_json::json;

use crate::fake_pm2::FakePm2;
use crate::faults::{Behaviour, ClosedPort, Server};
use crate::sandbox::{CommandOutput, Sandbox};

/// A sandbox without a configuration, with an app that listens on `$PORT`.
fn new_sandbox() -> Sandbox {
    let sandbox = Sandbox::new("");
    fs::remove_file(sandbox.path("watchdog.yaml")).expect("the file existed");
    fs::create_dir(sandbox.path("app")).expect("folder access");
    sandbox.write("app/server.js", "listen(process.env.PORT)\n");
    sandbox
}

/// Checks the exit code and parts of the output and the file, and that no secret is in them.
#[track_caller]
fn init(fake: &FakePm2<'_>, sandbox: &Sandbox, args: &[&str], code: i32, expected: &[&str]) -> CommandOutput {
    let output = fake.run(&[&["init"], args].concat());
    let all = format!("{}{}{}", output.out, output.err, sandbox.read("watchdog.yaml"));
    sandbox.assert(output.code == Some(code), &format!("exit code {code}: {output:?}"));
    for part in expected {
        sandbox.assert(all.contains(part), &format!("`{part}` is in:\n{all}"));
    }
    sandbox.assert(!all.contains("s3cret") && !all.contains("SECRET"), &format!("a secret is in: {all}"));
    output
}

fn answering() -> Server {
    Server::start(Behaviour::answer("200 OK", "fine"))
}

#[test]
fn the_usual_setup_is_found_and_the_written_file_is_valid() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    let server = answering();
    let port = server.port();
    sandbox.write("app/ecosystem.config.js", "module.exports = {apps: [{name: 'sav-backend'}]}\n");
    sandbox.write("app/watchdog.js", "setInterval(() => {}, 1000)\n");
    let watchdog = json!({"pm_exec_path": sandbox.path("app/watchdog.js")});
    // A backend may call pm2 for deployments; it is a backend because it answers.
    sandbox.write("app/server.js", "listen(process.env.PORT); exec('pm2 reload sav-backend')\n");
    fake.save(&[fake.app("sav-backend", json!({"env": {"PORT": port}})), fake.app("sav-watchdog", watchdog)]);
    let output = init(&fake, &sandbox, &[], 0, &[]);
    let found = format!("port {port}, GET /api/health answers 200");
    let width = found.len();
    let replaced = "watchdog.js: this is what you are replacing";
    let expected = format!(
        "PM2 in ~/.pm2, 2 processes saved:\n  sav-backend    {found:<width$}   watched\n  sav-watchdog   \
         {replaced:<width$}   not watched\n"
    );
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    sandbox.assert(squeezed(&output.out).starts_with(&squeezed(&expected)), &output.out);
    let end = "lines, readable by you only). Nothing was started or stopped. Next: watchdog check\n";
    sandbox.assert(output.out.ends_with(end) && output.err.is_empty(), &output.out);
    assert_eq!(server.requests().len(), 1, "the first address answers");

    let text = sandbox.read("watchdog.yaml");
    assert!(text.lines().count() <= 15, "{text}");
    let home = sandbox.home().display();
    for line in [
        &format!("  PATH: {home}/bin:/usr/local/bin:/usr/bin:/bin\n"),
        "  - pm2:\n      process: sav-backend\n",
        &format!("      config: {home}/app/ecosystem.config.js "),
        "      reset: true ",
        &format!("    http: http://localhost:{port}/api/health "),
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(fs::metadata(sandbox.path("watchdog.yaml")).expect("written").mode() & 0o7777, 0o600);
    assert!(fake.calls().is_empty(), "without a daemon pm2 is not called: {:?}", fake.calls());
    let check = fake.run(&["check"]);
    let is_ready = check.out.contains("is valid. 1 target.") && check.out.contains("   200 in ");
    sandbox.assert(is_ready, &format!("{check:?}"));
}

#[test]
fn the_port_a_process_listens_on_is_preferred_to_the_configured_one() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    fs::create_dir(sandbox.path("backend")).expect("folder access");
    let folder = sandbox.path("backend").display().to_string();
    let mut backend = sandbox.command(&["demo", "--backend", &folder]);
    let mut backend = backend.stdout(Stdio::null()).spawn().expect("the program runs");
    sandbox.eventually("the backend listens", || !sandbox.read("backend/backend.port").is_empty());
    let port = sandbox.read("backend/backend.port").trim().to_owned();
    let closed = ClosedPort::new();
    let rest = json!({"pid": backend.id(), "env": {"PORT": closed.port()}});
    let daemon = fake.listen(&[fake.app("api", rest), fake.app("worker", json!({}))]);
    let found = format!("port {port}, GET /api/health answers 200");
    let expected = [
        "PM2 in ~/.pm2, 2 processes, none saved (run pm2 save",
        &found,
        "no port found: PM2's state is the only probe",
    ];
    init(&fake, &sandbox, &[], 0, &expected);
    assert_eq!(fake.calls(), ["jlist -s"]);
    let text = sandbox.read("watchdog.yaml");
    let has_both = text.contains("  - pm2: api\n    http: ") && text.contains("  - pm2: worker\n");
    assert!(has_both && !text.contains("reset"), "{text}");
    drop(daemon);
    let _ = backend.kill(); // the backend may have ended
    let _ = backend.wait();
}

#[test]
fn the_usual_health_addresses_are_tried_in_order() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    let sick = Server::start(Behaviour::answer("404 Not Found", ""));
    let closed = ClosedPort::new();
    fake.save(&[
        fake.app("sick", json!({"env": {"PORT": sick.port().to_string()}})),
        fake.app("gone", json!({"PORT": closed.port()})),
    ]);
    let pm2_only = |port: u16| format!("port {port}, no health address answers: PM2's state is the only probe");
    init(&fake, &sandbox, &[], 0, &[&pm2_only(sick.port()), &pm2_only(closed.port())]);
    let requests = sick.requests();
    let paths: Vec<&str> = requests.iter().filter_map(|request| request.split(' ').nth(1)).collect();
    assert_eq!(paths, ["/api/health", "/health", "/healthz", "/"]);
    let text = sandbox.read("watchdog.yaml");
    assert!(!text.contains("    http:") && text.contains("    # http: http://localhost:"), "{text}");
    assert_eq!(fake.run(&["check", "--offline"]).err, "", "the file is valid");
}

#[test]
fn names_that_cannot_be_used_are_quoted_replaced_or_reported() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    let module = json!({"pm_exec_path": sandbox.path(".pm2/modules/logs/app.js")});
    fake.save(&[
        fake.app("Größe: #1 \"x\"", json!({})),
        fake.app("17", json!({})),
        fake.app("a\u{1b}[2Jb", json!({})),
        fake.app("pm2-logrotate", json!({"pmx_module": true})),
        fake.app("logs", module),
        fake.app("true", json!({"instances": 2})),
        fake.app("true", json!({"instances": 2})),
    ]);
    let output = init(
        &fake,
        &sandbox,
        &[],
        0,
        &["6 processes saved", "its name is read by pm2 as an id, and ids change", "a PM2 module"],
    );
    sandbox.assert(output.out.contains("a\\u{1b}[2Jb") && !output.out.contains('\u{1b}'), &output.out);
    let text = sandbox.read("watchdog.yaml");
    assert_eq!(text.matches("pm2: ").count(), 2, "{text}");
    assert!(text.contains("  - name: Gr--e---1--x-\n    pm2: \"Größe: #1 \\\"x\\\"\"\n"), "{text}");
    assert!(text.contains("  - pm2: \"true\"\n"), "{text}");
    assert_eq!(fake.run(&["check", "--offline"]).err, "", "{text}");
}

#[test]
fn another_pm2_home_is_written_to_the_file_and_a_missing_one_is_refused() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    init(&fake, &sandbox, &["--pm2-home", "gone"], 2, &["~/gone is not a folder", "(nothing was written)"]);
    assert!(!sandbox.path("watchdog.yaml").exists());
    fake.save(&[fake.app("api", json!({}))]);
    fs::rename(sandbox.path(".pm2"), sandbox.path("p m2")).expect("the folder is renamed");
    init(&fake, &sandbox, &["--pm2-home", "p m2"], 0, &["PM2 in ~/p m2, 1 process saved:"]);
    let text = sandbox.read("watchdog.yaml");
    assert!(text.contains(&format!("      home: \"{}/p m2\"\n", sandbox.home().display())), "{text}");
    let mut command = fake.command(&["init", "--stdout"]);
    let output = CommandOutput::new(command.env("PM2_HOME", sandbox.path("p m2")).output().expect("the program runs"));
    sandbox.assert(output.code == Some(0) && output.out == text, &format!("{output:?}"));
    assert!(output.err.contains("1 process saved") && output.err.contains("Nothing was written."), "{output:?}");
}

#[test]
fn without_pm2_an_example_is_written() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    let next = "It is an example.\nNext: put your own address and command into it, then run: watchdog check\n";
    init(&fake, &sandbox, &[], 0, &["PM2 in ~/.pm2 has no processes.", next]);
    fs::remove_dir(sandbox.path(".pm2")).expect("the folder is empty");
    init(&fake, &sandbox, &["--force"], 0, &["No PM2 found: ~/.pm2 does not exist.", next]);
    assert!(fake.calls().is_empty());
    let output = fake.run(&["check", "--offline"]);
    sandbox.assert(output.err.is_empty() && output.out.contains("is valid. 1 target."), &format!("{output:?}"));
}

#[test]
fn existing_files_and_web_roots_are_refused_without_force() {
    let sandbox = new_sandbox();
    let fake = FakePm2::new(&sandbox);
    sandbox.write("watchdog.yaml", "mine");
    init(&fake, &sandbox, &[], 2, &["~/watchdog.yaml already exists; --force overwrites it", "mine"]);
    assert_eq!(init(&fake, &sandbox, &["--stdout"], 0, &[]).out.lines().next().map(|line| &line[..1]), Some("#"));
    assert_eq!(sandbox.read("watchdog.yaml"), "mine");
    symlink(sandbox.path("watchdog.yaml"), sandbox.path("link.yaml")).expect("link created");
    init(&fake, &sandbox, &["--force", "-c", "link.yaml"], 2, &["is a symbolic link"]);
    init(&fake, &sandbox, &["-c", "nowhere/w.yaml"], 4, &["cannot write nowhere/w.yaml: no such file"]);
    fs::create_dir(sandbox.path("public_html")).expect("folder access");
    let web = ["-c", "public_html/w.yaml"];
    init(&fake, &sandbox, &web, 2, &["is under a web root: a web server may show it to everybody"]);
    assert!(!sandbox.path("public_html/w.yaml").exists());
    let next = "Next: put your own address and command into it, then run: watchdog check -c public_html/w.yaml\n";
    init(&fake, &sandbox, &[&web[..], &["--force"]].concat(), 0, &[next]);
    init(&fake, &sandbox, &["--force"], 0, &["Wrote ~/watchdog.yaml"]);
    assert!(sandbox.read("watchdog.yaml").starts_with("# Written by watchdog init"));
    assert_eq!(fs::metadata(sandbox.path("watchdog.yaml")).expect("written").mode() & 0o7777, 0o600);

    let mut command = fake.command(&["init"]);
    let output = CommandOutput::new(command.env("WATCHDOG_CONFIG", "other.yaml").output().expect("the program runs"));
    let is_correct = output.code == Some(0) && sandbox.path("other.yaml").exists();
    sandbox.assert(is_correct && output.out.ends_with("then run: watchdog check\n"), &format!("{output:?}"));
}
