//! `init`: what it finds in a home of PM2's, the file that it writes, and what it must leave alone.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

use serde_json::json;

use crate::fakepm2::FakePm2;
use crate::faults::{Closed, Server, Ways};
use crate::place::{Place, Said};

/// A place without a configuration.
fn place() -> Place {
    let place = Place::with("");
    fs::remove_file(place.path("watchdog.yaml")).expect("it was there");
    fs::create_dir(place.path("app")).expect("a folder");
    place.write("app/server.js", "listen(process.env.PORT)\n");
    place
}

/// Exit code, what is said, and that no secret is in it.
#[track_caller]
fn init(fake: &FakePm2<'_>, place: &Place, words: &[&str], code: i32, says: &[&str]) -> Said {
    let said = fake.run(&[&["init"], words].concat());
    let all = format!("{}{}{}", said.out, said.err, place.read("watchdog.yaml"));
    place.demand(said.code == Some(code), &format!("exit code {code}: {said:?}"));
    for words in says {
        place.demand(all.contains(words), &format!("`{words}` is said:\n{all}"));
    }
    place.demand(!all.contains("s3cret") && !all.contains("SECRET"), &format!("no secret: {all}"));
    said
}

fn answering() -> Server {
    Server::start(Ways::answer("200 OK", "fine"))
}

#[test]
fn the_usual_setup_is_found_and_the_file_works_unchanged() {
    let place = place();
    let fake = FakePm2::new(&place);
    let server = answering();
    let port = server.port();
    place.write("app/ecosystem.config.js", "module.exports = {apps: [{name: 'sav-backend'}]}\n");
    place.write("app/watchdog.js", "setInterval(() => {}, 1000)\n");
    let watchdog = json!({"pm_exec_path": place.path("app/watchdog.js")});
    // It may call pm2 itself, for deployments: it answers, so it is a backend.
    place.write("app/server.js", "listen(process.env.PORT); exec('pm2 reload sav-backend')\n");
    fake.save(&[fake.app("sav-backend", json!({"env": {"PORT": port}})), fake.app("sav-watchdog", watchdog)]);
    let said = init(&fake, &place, &[], 0, &[]);
    let found = format!("port {port}, GET /api/health answers 200");
    let width = found.len();
    let replaced = "watchdog.js: this is what you are replacing";
    let expected = format!(
        "PM2 in ~/.pm2, 2 processes saved:\n  sav-backend    {found:<width$}   watched\n  sav-watchdog   \
         {replaced:<width$}   not watched\n"
    );
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    place.demand(squeezed(&said.out).starts_with(&squeezed(&expected)), &said.out);
    let end = "lines, readable by you only). Nothing was started or stopped. Next: watchdog check\n";
    place.demand(said.out.ends_with(end) && said.err.is_empty(), &said.out);
    assert_eq!(server.requests().len(), 1, "the first address answers");

    let text = place.read("watchdog.yaml");
    assert!(text.lines().count() <= 15, "{text}");
    let home = place.home().display();
    for line in [
        &format!("  PATH: {home}/bin:/usr/local/bin:/usr/bin:/bin\n"),
        "  - pm2:\n      process: sav-backend\n",
        &format!("      config: {home}/app/ecosystem.config.js "),
        "      reset: true ",
        &format!("    http: http://localhost:{port}/api/health "),
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(fs::metadata(place.path("watchdog.yaml")).expect("written").mode() & 0o7777, 0o600);
    assert!(fake.calls().is_empty(), "no daemon, no pm2: {:?}", fake.calls());
    let check = fake.run(&["check"]);
    let finds = check.out.contains("is valid. 1 target.") && check.out.contains("   200 in ");
    place.demand(finds, &format!("{check:?}"));
}

#[test]
fn the_port_is_the_one_that_a_process_listens_on_and_the_list_is_asked_of_a_daemon_only() {
    let place = place();
    let fake = FakePm2::new(&place);
    fs::create_dir(place.path("backend")).expect("a folder");
    let folder = place.path("backend").display().to_string();
    let mut backend = place.command(&["demo", "--backend", &folder]);
    let mut backend = backend.stdout(Stdio::null()).spawn().expect("the program runs");
    place.eventually("it listens", || !place.read("backend/backend.port").is_empty());
    let port = place.read("backend/backend.port").trim().to_owned();
    let closed = Closed::new();
    let rest = json!({"pid": backend.id(), "env": {"PORT": closed.port()}});
    let daemon = fake.daemon(&[fake.app("api", rest), fake.app("worker", json!({}))]);
    let listens = format!("port {port}, GET /api/health answers 200");
    let says = [
        "PM2 in ~/.pm2, 2 processes, none saved (run pm2 save",
        &listens,
        "no port found: PM2's state is the only probe",
    ];
    init(&fake, &place, &[], 0, &says);
    assert_eq!(fake.calls(), ["jlist -s"]);
    let text = place.read("watchdog.yaml");
    let both = text.contains("  - pm2: api\n    http: ") && text.contains("  - pm2: worker\n");
    assert!(both && !text.contains("reset"), "{text}");
    drop(daemon);
    let _ = backend.kill(); // it may have ended
    let _ = backend.wait();
}

#[test]
fn the_first_of_the_usual_addresses_that_answers_is_taken() {
    let place = place();
    let fake = FakePm2::new(&place);
    let sick = Server::start(Ways::answer("404 Not Found", ""));
    let closed = Closed::new();
    fake.save(&[
        fake.app("sick", json!({"env": {"PORT": sick.port().to_string()}})),
        fake.app("gone", json!({"PORT": closed.port()})),
    ]);
    let alone = |port: u16| format!("port {port}, no health address answers: PM2's state is the only probe");
    init(&fake, &place, &[], 0, &[&alone(sick.port()), &alone(closed.port())]);
    let asked = sick.requests();
    let paths: Vec<&str> = asked.iter().filter_map(|request| request.split(' ').nth(1)).collect();
    assert_eq!(paths, ["/api/health", "/health", "/healthz", "/"]);
    let text = place.read("watchdog.yaml");
    assert!(!text.contains("    http:") && text.contains("    # http: http://localhost:"), "{text}");
    assert_eq!(fake.run(&["check", "--offline"]).err, "", "the file is valid");
}

#[test]
fn names_that_pm2_or_a_configuration_cannot_take_are_told_or_mended() {
    let place = place();
    let fake = FakePm2::new(&place);
    let module = json!({"pm_exec_path": place.path(".pm2/modules/logs/app.js")});
    fake.save(&[
        fake.app("Größe: #1 \"x\"", json!({})),
        fake.app("17", json!({})),
        fake.app("a\u{1b}[2Jb", json!({})),
        fake.app("pm2-logrotate", json!({"pmx_module": true})),
        fake.app("logs", module),
        fake.app("true", json!({"instances": 2})),
        fake.app("true", json!({"instances": 2})),
    ]);
    let said = init(
        &fake,
        &place,
        &[],
        0,
        &["6 processes saved", "its name is read by pm2 as an id, and ids change", "a PM2 module"],
    );
    place.demand(said.out.contains("a\\u{1b}[2Jb") && !said.out.contains('\u{1b}'), &said.out);
    let text = place.read("watchdog.yaml");
    assert_eq!(text.matches("pm2: ").count(), 2, "{text}");
    assert!(text.contains("  - name: Gr--e---1--x-\n    pm2: \"Größe: #1 \\\"x\\\"\"\n"), "{text}");
    assert!(text.contains("  - pm2: \"true\"\n"), "{text}");
    assert_eq!(fake.run(&["check", "--offline"]).err, "", "{text}");
}

#[test]
fn a_home_elsewhere_is_written_down_and_one_that_is_not_there_is_told() {
    let place = place();
    let fake = FakePm2::new(&place);
    init(&fake, &place, &["--pm2-home", "gone"], 2, &["~/gone is not a folder", "(nothing was written)"]);
    assert!(!place.path("watchdog.yaml").exists());
    fake.save(&[fake.app("api", json!({}))]);
    fs::rename(place.path(".pm2"), place.path("p m2")).expect("moved");
    init(&fake, &place, &["--pm2-home", "p m2"], 0, &["PM2 in ~/p m2, 1 process saved:"]);
    let text = place.read("watchdog.yaml");
    assert!(text.contains(&format!("      home: \"{}/p m2\"\n", place.home().display())), "{text}");
    let mut command = fake.command(&["init", "--stdout"]);
    let said = Said::new(command.env("PM2_HOME", place.path("p m2")).output().expect("the program runs"));
    place.demand(said.code == Some(0) && said.out == text, &format!("{said:?}"));
    assert!(said.err.contains("1 process saved") && said.err.contains("Nothing was written."), "{said:?}");
}

#[test]
fn without_pm2_an_example_is_written() {
    let place = place();
    let fake = FakePm2::new(&place);
    let next = "It is an example.\nNext: put your own address and command into it, then run: watchdog check\n";
    init(&fake, &place, &[], 0, &["PM2 in ~/.pm2 has no processes.", next]);
    fs::remove_dir(place.path(".pm2")).expect("it was empty");
    init(&fake, &place, &["--force"], 0, &["No PM2 found: ~/.pm2 does not exist.", next]);
    assert!(fake.calls().is_empty());
    let said = fake.run(&["check", "--offline"]);
    place.demand(said.err.is_empty() && said.out.contains("is valid. 1 target."), &format!("{said:?}"));
}

#[test]
fn nothing_is_written_over_or_where_the_world_reads_it_unless_by_force() {
    let place = place();
    let fake = FakePm2::new(&place);
    place.write("watchdog.yaml", "mine");
    init(&fake, &place, &[], 2, &["~/watchdog.yaml already exists; --force overwrites it", "mine"]);
    assert_eq!(init(&fake, &place, &["--stdout"], 0, &[]).out.lines().next().map(|line| &line[..1]), Some("#"));
    assert_eq!(place.read("watchdog.yaml"), "mine");
    symlink(place.path("watchdog.yaml"), place.path("link.yaml")).expect("a link");
    init(&fake, &place, &["--force", "-c", "link.yaml"], 2, &["is a symbolic link"]);
    init(&fake, &place, &["-c", "nowhere/w.yaml"], 4, &["cannot write nowhere/w.yaml: no such file"]);
    fs::create_dir(place.path("public_html")).expect("a folder");
    let web = ["-c", "public_html/w.yaml"];
    init(&fake, &place, &web, 2, &["is under a web root: a web server may show it to everybody"]);
    assert!(!place.path("public_html/w.yaml").exists());
    let next = "Next: put your own address and command into it, then run: watchdog check -c public_html/w.yaml\n";
    init(&fake, &place, &[&web[..], &["--force"]].concat(), 0, &[next]);
    init(&fake, &place, &["--force"], 0, &["Wrote ~/watchdog.yaml"]);
    assert!(place.read("watchdog.yaml").starts_with("# Written by watchdog init"));
    assert_eq!(fs::metadata(place.path("watchdog.yaml")).expect("written").mode() & 0o7777, 0o600);

    let mut command = fake.command(&["init"]);
    let said = Said::new(command.env("WATCHDOG_CONFIG", "other.yaml").output().expect("the program runs"));
    let right = said.code == Some(0) && place.path("other.yaml").exists();
    place.demand(right && said.out.ends_with("then run: watchdog check\n"), &format!("{said:?}"));
}
