//! Whole configuration files: each case is a real file in its own folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::policy::Limits;
use crate::testing::fuzz;

mod addresses;

mod notify;

mod pm2;

mod rejected;

mod shipped;
mod unit;

fn environment(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/user".into()),
        "PATH" => Some("/usr/bin:/bin".into()),
        "HOST" => Some("h:1".into()),
        "PASSWORD" => Some("p@s/s$%41".into()),
        "TWO_LINES" => Some("s3cret\nX: y".into()),
        "URL" => Some("http://me:s3%63ret@h:2/x".into()),
        _ => None,
    }
}

/// A folder that nobody else can write to, independent of the umask.
pub(super) fn private_folder() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().expect("a folder")
}

fn write(path: &Path, text: &[u8], mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions set");
}

fn load(text: &[u8]) -> Result<Config, String> {
    let folder = private_folder();
    let path = folder.path().join("w.yaml");
    write(&path, text, 0o600);
    write(&folder.path().join("watchdog.env"), b"TOKEN=from-file\n", 0o600);
    let shown = format!("{}/", folder.path().display());
    Config::load(&path, &environment).map_err(|errors| {
        let text = errors.to_string();
        assert!(!errors.summary().is_empty(), "an error without text");
        assert!(!text.contains("s3cret") && !text.contains("p@s"), "a secret is shown: {text}");
        text.replace(&shown, "")
    })
}

/// An invalid file, and a part of each error, in order.
#[track_caller]
fn rejected(text: &str, expected: &[&str]) {
    let errors = load(text.as_bytes()).expect_err("not valid");
    let mut rest = errors.as_str();
    for part in expected {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("`{part}` is missing, or not in this order, in:\n{errors}")
        };
        rest = after;
    }
    let heads = errors.lines().filter(|line| line.starts_with("w.")).count();
    assert_eq!(heads, expected.iter().filter(|part| part.starts_with("w.")).count(), "errors in:\n{errors}");
}

#[track_caller]
fn accepted(text: &str) -> Config {
    load(text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A single target with `keys` after its name, one on each line.
fn one(keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    format!("targets:\n  - name: a\n{keys}")
}

#[track_caller]
fn http(value: &str) -> HttpConfig {
    let config = accepted(&one(&format!("http: {value}")));
    match config.targets.into_iter().next().map(|target| target.probe) {
        Some(Probe::Http(mut addresses)) if addresses.len() == 1 => addresses.remove(0),
        probe => panic!("{probe:?}"),
    }
}

#[test]
fn a_minimal_file_is_valid_and_gets_the_contracts_defaults() {
    let config = accepted(&one("http: http://localhost:5000/api/health\nrestart: pm2 restart a"));
    let target = &config.targets[0];
    let Limits { probe_id, repair_id, .. } = target.limits;
    assert_eq!(target.limits, Limits { probe_id, repair_id, ..Default::default() });
    assert_ne!(probe_id, 0);
    let command = CommandLine::Shell("pm2 restart a".into());
    assert_eq!(target.ladder, [Rung { remedy: Remedy::Command(command), timeout: Duration::from_secs(60) }]);
    assert_eq!(config.state_dir, Path::new("/home/user/.local/state/watchdog"));
    let file = config.state_dir.join("watchdog.log");
    assert_eq!(
        config.log,
        LogConfig { file, level: log::LevelFilter::Info, max_size: 1 << 20, keep: 4, format: LogFormat::Text }
    );
    assert!(config.path.ends_with("w.yaml") && config.path.parent() == Some(&config.folder));
    let watch_only = accepted("targets: [{name: a, tcp: 'localhost:1'}]");
    assert_eq!(watch_only.targets[0].limits.rungs, 0);
}

#[test]
fn every_top_level_key_is_read() {
    let config = accepted(
        "state_dir: state\nlog: {file: ~/log/w.log, level: debug, max_size: 64KiB, keep: 0, format: json}\n\
         env_file: watchdog.env\nenv: {PATH: \"/x:${HOST}\", T: \"${TOKEN}\", EMPTY: ''}\ndry_run: true\n\
         defaults: {interval: 1m, retry_interval: 5s, depends_on: [b], restart_on: [refused], only_if: [./may, '1']}\n\
         targets:\n\
         \x20 - {name: a, command: [./healthy.sh, 1, ''], interval: 10s, \
         restart: [soft a, {run: [hard, a], timeout: 5m}]}\n\
         \x20 - {name: b, file: {path: run/beat, max_age: 26h}, depends_on: [], restart: {run: hard b}}\n",
    );
    assert_eq!(config.state_dir, config.folder.join("state"));
    let file = PathBuf::from("/home/user/log/w.log");
    assert_eq!(
        config.log,
        LogConfig { file, level: log::LevelFilter::Debug, max_size: 65_536, keep: 0, format: LogFormat::Json }
    );
    let env: Vec<(&str, &str)> = config.env.iter().map(|(name, value)| (name.as_str(), value.0.as_str())).collect();
    assert_eq!(env, [("PATH", "/x:h:1"), ("T", "from-file"), ("EMPTY", "")]);
    let [a, b] = &config.targets[..] else { panic!("two targets") };
    assert!(a.limits.dry_run && b.limits.dry_run);
    assert_eq!((a.limits.interval.as_secs(), b.limits.interval.as_secs()), (10, 60));
    assert!(a.limits.retry_in_tick && a.limits.retry_interval == Duration::from_secs(5));
    assert_eq!((&a.limits.depends_on[..], &b.limits.depends_on[..]), (&["b".to_owned()][..], &[][..]));
    assert_eq!(a.limits.preconditions, [crate::policy::Precondition::OnlyIf]);
    assert_eq!(a.only_if, Some(CommandLine::Exec(vec!["./may".into(), "1".into()])));
    assert_eq!((a.limits.rungs, a.ladder[1].timeout), (2, Duration::from_secs(300)));
    assert!(matches!(&a.probe, Probe::Command(CommandLine::Exec(words)) if *words == ["./healthy.sh", "1", ""]));
    let Probe::File { path, max_age } = &b.probe else { panic!("{:?}", b.probe) };
    assert_eq!((path, max_age.as_secs()), (&config.folder.join("run/beat"), 26 * 3_600));
}

#[test]
fn set_dry_run_applies_to_all_targets() {
    let mut config = accepted(&one("tcp: localhost:1"));
    assert!(!config.targets[0].limits.dry_run);
    config.set_dry_run();
    assert!(config.targets[0].limits.dry_run);
}

#[test]
fn every_key_of_http_is_read() {
    let probe = http(
        "{url: 'http://${HOST}/x?y', unix_socket: run/app.sock, method: HEAD, headers: {Host: b, X-T: \"$$${HOST}\"}, \
         status: [200-299, 404], tls: ./ca.pem}",
    );
    assert_eq!((probe.url.0.as_str(), probe.shown.as_str()), ("http://h:1/x?y", "http://${HOST}/x?y"));
    assert_eq!((probe.method, probe.status), (Method::Head, vec![200..=299, 404..=404]));
    assert_eq!(probe.headers, [("Host".into(), Secret("b".into())), ("X-T".into(), Secret("$h:1".into()))]);
    assert!(probe.unix_socket.is_some_and(|path| path.ends_with("run/app.sock")));
    assert!(matches!(probe.tls, Tls::Ca(path) if path.ends_with("ca.pem")));
    let probe =
        http("{url: http://h, contains: ok, status: 503, json: {/status: ok, /db/up: true, '': {a: [1, null]}}}");
    assert_eq!((probe.contains.as_deref(), probe.status), (Some("ok"), vec![503..=503]));
    let json: Vec<String> = probe.json.iter().map(|(pointer, value)| format!("{pointer}={value}")).collect();
    assert_eq!(json, ["/status=\"ok\"", "/db/up=true", "={\"a\":[1,null]}"]);
    assert_eq!(http("http://h").tls, Tls::Verify);
    assert_eq!(http("{url: http://h, tls: insecure}").tls, Tls::Insecure);
}

#[test]
fn user_and_password_become_a_header_and_are_not_shown() {
    let basic = |probe: HttpConfig| {
        (probe.url.0, probe.shown, probe.headers.into_iter().map(|(_, value)| value.0).collect::<String>())
    };
    // In base64: me:s3cret, me:p@s/s$%41 unchanged, and a user alone.
    let (url, shown, header) = basic(http("http://me:s3%63ret@h:2/x"));
    assert_eq!((&*url, &*shown, &*header), ("http://h:2/x", "http://h:2/x", "Basic bWU6czNjcmV0"));
    let (url, shown, header) = basic(http("\"${URL}\""));
    assert_eq!((&*url, &*shown, &*header), ("http://h:2/x", "${URL}", "Basic bWU6czNjcmV0"));
    let (url, shown, header) = basic(http("'http://me:${PASSWORD}@${HOST}/'"));
    assert_eq!((&*url, &*shown, &*header), ("http://h:1/", "http://${HOST}/", "Basic bWU6cEBzL3MkJTQx"));
    assert_eq!(basic(http("http://me@h/")).2, "Basic bWU6");
}

#[test]
fn secrets_are_collected_from_variables_and_urls() {
    let config = accepted(&one("http: 'http://me:${PASSWORD}@${HOST}/'"));
    assert_eq!(config.secrets.redact("p@s/s$%41, Basic bWU6cEBzL3MkJTQx"), "…, Basic …");
    let config = accepted(&one("http: http://me:s3%63ret@h:2/x"));
    assert_eq!(config.secrets.redact("me:s3cret, Basic bWU6czNjcmV0"), "me:…, Basic …");
    let redacted = |query: &str, text: &str| {
        accepted(&one(&format!("http: 'http://h/path-of-it?{query}'"))).secrets.redact(text).into_owned()
    };
    let text = "/path-of-it?token=QUERYTOKEN55&deep=true: QUERYTOKEN55";
    assert_eq!(redacted("token=QUERYTOKEN55&deep=true", text), "/path-of-it?token=…&deep=true: …");
    assert_eq!(redacted("deep&a=b==1234", "deep b==1234"), "deep b==1234");
    assert_eq!(redacted("deep&a=b==123456", "deep b==123456"), "deep …");
    assert_eq!(redacted("a=to%2Bken%2Fof+it", "to%2Bken%2Fof+it, to+ken/of it"), "…, …");
    assert_eq!(redacted("QUERYTOKEN55#fragment", "?QUERYTOKEN55 fragment"), "?… fragment");
    assert_eq!(redacted("one&two&six", "?one&two&six one"), "?… one");
}

#[test]
fn the_state_folder_is_found_in_an_invalid_file() {
    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let folder = private_folder();
        let path = folder.path().join("watchdog.yaml");
        fs::write(&path, text).expect("written");
        let environment = |name: &str| (name == "HOME").then(|| "/home/user".to_owned());
        let found = Config::state_dir_of(&path, &environment);
        let expected = expected.map(|expected| folder.path().join(expected));
        assert_eq!(found, expected, "{text}");
    }
    check("state_dir: run/state\nintervall: 3", Some("run/state"));
    check("state_dir: ~/state\ntargets: []", Some("/home/user/state"));
    check("nothing: right", Some("/home/user/.local/state/watchdog"));
    check("state_dir: [a, list]", None);
    // What is not even YAML has its line, unless the value may go on in the next one.
    check("# state_dir: x\nstate_dir: here\n\ntargets:\n  - {name: [", Some("here"));
    check("targets:\n  - {name: [", Some("/home/user/.local/state/watchdog"));
    check("state_dir: here\n  - : [", None);
    check("state_dir: here\n\n  - : [", None);
    check("state_dir: here\nstate_dir: there\n- : [", None);
    check("{state_dir: here, targets: [", None);
}

#[test]
fn each_way_to_repair_has_its_own_id() {
    let id = |value: &str| accepted(&one(value)).targets[0].limits.repair_id;
    let plain = id("http: http://h/x\nrestart: a b");
    for same in ["http: http://h/y\nrestart: a b", "tcp: h:1\ncooldown: 5s\nrestart: [{run: a b, timeout: 5s}]"] {
        assert_eq!(id(same), plain, "{same}");
    }
    for other in ["restart: a c", "restart: [a b, c]", "restart: [{run: [a, b]}]", "only_if: c\nrestart: a b"] {
        assert_ne!(id(&format!("http: http://h/x\n{other}")), plain, "{other}");
    }
    let pm2 = |more: &str| id(&format!("pm2: {{process: a{more}}}"));
    assert_ne!(pm2(""), pm2(", reset: true"));
    assert_ne!(pm2(""), pm2(", env: production"));
}

#[test]
fn the_probe_id_depends_on_everything_but_secrets() {
    let id = |value: &str| accepted(&one(value)).targets[0].limits.probe_id;
    let plain = id("http: http://h/x");
    // Stored on disk: it must be the same in every version.
    assert_eq!(plain, 0xca51_7745_7bdc_4f4f);
    assert_eq!(plain, id("http: http://me:s3cret@h/x"));
    assert_eq!(plain, id("http: {url: http://h/x, headers: {A: b}, status: 200-299}"));
    assert_eq!(plain, id("http: [http://h/x]"));
    let several = id("http: [http://h/x, http://h/y]");
    assert_eq!(several, 0x2afb_1a41_f86a_0b18);
    assert_eq!(several, id("http: [http://h/y, {url: http://me:s3cret@h/x}]"));
    let others = [
        "http: [http://h/x, http://h/y]",
        "http: [http://h/x, http://h/y, http://h/z]",
        "http: [http://h/x, {url: http://h/y, status: 200}]",
        "http: http://h/y",
        "http: {url: http://h/x, status: 200}",
        "http: {url: http://h/x, contains: b}",
        "http: {url: http://h/x, json: {/a: b}}",
        "http: {url: http://h/x, method: HEAD}",
        "http: {url: http://h/x, tls: insecure}",
        "http: {url: http://h/x, unix_socket: /s}",
        "tcp: h:1",
        "tcp: h:2",
        "command: a b",
        "command: [a, b]",
        "command: [ab]",
        "file: {path: /f, max_age: 1m}",
        "file: {path: /f, max_age: 2m}",
    ];
    let mut ids: Vec<u64> = others.into_iter().map(id).chain([plain]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), others.len() + 1);
}

#[test]
fn no_input_causes_a_panic() {
    let shipped = include_bytes!("../../watchdog.yaml");
    fuzz(&[shipped, one("http: http://localhost:5000/").as_bytes()], 1_000, |text| {
        if let Err(errors) = load(text) {
            assert!(!errors.is_empty());
        }
    });
}

#[test]
fn huge_and_nested_files_are_rejected_quickly() {
    for text in [
        "[".repeat(1 << 20),
        "{a: ".repeat(100_000),
        "- ".repeat(500_000),
        "a: ".repeat(300_000),
        "? ".repeat(100_000),
        format!("targets: [{}]", "{},".repeat(40_000)),
        "&a ".repeat(300_000),
        one(&format!("http: {}", "x".repeat(900_000))),
    ] {
        assert!(load(text.as_bytes()).is_err());
    }
}
