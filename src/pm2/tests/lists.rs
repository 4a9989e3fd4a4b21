//! The output of `pm2 jlist` and the files of `pm2 save`, with everything that may surround a list.

use std::time::Duration;

use crate::pm2::{App, parse_list};
use crate::testing::fuzz;

const ENTRY: &str = r#"{"pid":4711,"name":"sav","pm2_env":{"name":"sav","autorestart":false,"exit_code":3,
"env":{"PORT":1},"SECRET":"s3cret","pm_exec_path":"/srv/app.js","pm_cwd":"/srv","exec_interpreter":"node",
"exec_mode":"cluster_mode","kill_timeout":20000,"PORT":"5000","pm_out_log_path":"/l/o.log",
"pm_err_log_path":"/l/e.log","status":"online","pm_id":7,"restart_time":12,
"stop_exit_codes":[3],"pm_pid_path":"/p/sav-7.pid","DB":"prod","env_production":{"DB":"prod","PORT":5000},
"env_test":{"DB":"test"},"env_empty":{},"odd":"\ud83d"},"pm_id":7,"monit":{"memory":1,"cpu":0}}"#;

fn entry() -> String {
    ENTRY.replace('\n', "")
}

fn named(name: &str) -> App {
    App {
        name: name.into(),
        id: None,
        pid: None,
        status: String::new(),
        autorestart: true,
        exit_code: None,
        stop_exit_codes: Vec::new(),
        restarts: 0,
        is_scheduled: false,
        is_module: false,
        script: "".into(),
        cwd: "".into(),
        interpreter: None,
        is_cluster: false,
        kill_timeout: Duration::from_millis(1_600),
        ready_timeout: None,
        port: None,
        environments: Vec::new(),
        pid_file: None,
        out_log: None,
        err_log: None,
    }
}

fn full() -> App {
    App {
        id: Some(7),
        pid: Some(4_711),
        status: "online".into(),
        autorestart: false,
        exit_code: Some(3),
        script: "/srv/app.js".into(),
        cwd: "/srv".into(),
        interpreter: Some("node".into()),
        is_cluster: true,
        kill_timeout: Duration::from_secs(20),
        port: Some(5_000),
        environments: vec!["production".into()],
        pid_file: Some("/p/sav-7.pid".into()),
        restarts: 12,
        stop_exit_codes: vec![3],
        out_log: Some("/l/o.log".into()),
        err_log: Some("/l/e.log".into()),
        ..named("sav")
    }
}

#[track_caller]
fn check(output: &str, expected: Option<Vec<App>>) {
    assert_eq!(parse_list(output.as_bytes()), expected, "{output}");
}

#[test]
fn a_list_is_found_whatever_is_printed_around_it() {
    let list = format!("[{}]", entry());
    check(&list, Some(vec![full()]));
    check("[]", Some(vec![]));
    check("[]\n", Some(vec![]));
    let banner = "\n  __/\\\\\\\\\\\\\\\\\\\\\\\\\\____ [x]\n [a]\n";
    let spawn = "[PM2] Spawning PM2 daemon with pm2_home=/h\n\x1b[32m[PM2]\x1b[39m PM2 Successfully daemonized\n";
    let stale = ">>>> In-memory PM2 is out-of-date, do:\n>>>> $ pm2 update\nIn memory PM2 version: 5.4.3\n";
    for noise in [banner, spawn, stale, "[1, 2]\n[\"x\"]\n", "[PM2][WARN] [x]\n"] {
        check(&format!("{noise}{list}"), Some(vec![full()]));
        check(&format!("{noise}{list}\n"), Some(vec![full()]));
        check(&format!("{list}\r\n{noise}"), Some(vec![full()]));
        check(noise, None);
    }
    check(&format!("{list}\n[]\n"), Some(vec![]));
    for other in ["", "\n", "{}", "null", "[", "[{}]", "[[]]", "[null]", r#"{"name":"sav"}"#, r#"[{"name":null}]"#] {
        check(other, None);
    }
}

#[test]
fn a_saved_list_may_span_many_lines() {
    let saved = r#"[
  {
    "name": "sav",
    "env": {
      "PORT": "5000",
      "sav": {}
    },
    "args": [
      []
    ],
    "pm_cwd": "/srv"
  }
]"#;
    check(saved, Some(vec![App { port: Some(5_000), cwd: "/srv".into(), ..named("sav") }]));
}

#[test]
fn a_value_of_an_unexpected_type_affects_no_other_value() {
    #[track_caller]
    fn check_one(own: &str, expected: App) {
        check(&format!("[{{\"name\":\"sav\",{own}}}]"), Some(vec![expected]));
    }
    check_one(r#""autorestart":"false""#, App { autorestart: false, ..named("sav") });
    check_one(r#""autorestart":[]"#, named("sav"));
    check_one(r#""exit_code":null,"status":7"#, App { status: "7".into(), ..named("sav") });
    check_one(r#""exit_code":"3","pm_id":"2""#, App { exit_code: Some(3), id: Some(2), ..named("sav") });
    check_one(r#""exit_code":99999999999,"pm_id":-1"#, named("sav"));
    check_one(r#""kill_timeout":"5000""#, App { kill_timeout: Duration::from_secs(5), ..named("sav") });
    check_one(r#""kill_timeout":1.5,"PORT":70000,"env":[]"#, named("sav"));
    check_one(r#""PORT":{},"env":{"PORT":5000}"#, App { port: Some(5_000), ..named("sav") });
    check_one(r#""PORT":"0","pm_cwd":0,"pm_out_log_path":"""#, named("sav"));
    check_one(r#""cron_restart":"0 4 * * *""#, App { is_scheduled: true, ..named("sav") });
    check_one(r#""cron_restart":0,"pmx_module":true"#, App { is_module: true, ..named("sav") });
    check_one(r#""stop_exit_codes":"4","restart_time":[]"#, App { stop_exit_codes: vec![4], ..named("sav") });
    check_one(
        r#""env":{"A":"1"},"env_b":{"A":1},"env_c":{"A":2}"#,
        App { environments: vec!["b".into()], ..named("sav") },
    );
    check_one(r#""wait_ready":true"#, App { ready_timeout: Some(Duration::from_secs(3)), ..named("sav") });
    let slow = App { ready_timeout: Some(Duration::from_secs(70)), ..named("sav") };
    check_one(r#""wait_ready":"true","listen_timeout":70000"#, slow);
    check_one(r#""wait_ready":false,"listen_timeout":70000"#, named("sav"));
    check_one(r#""env_b":{"A":{}},"env_c":[]"#, named("sav"));
    check_one(r#""pid":0,"exec_mode":["cluster_mode"]"#, named("sav"));
    check(r#"[{"name":1},7,{"name":"b"},{"pm2_env":null},{"pm2_env":{}}]"#, Some(vec![named("1"), named("b")]));
}

#[test]
fn no_environment_is_kept() {
    let apps = parse_list(format!("[{}]", entry()).as_bytes()).unwrap();
    assert!(!format!("{apps:?}").contains("s3cret"));
}

#[test]
fn a_cut_list_is_rejected_and_no_bytes_cause_a_panic() {
    let text = format!("[PM2] hello\n[{}]", entry());
    for end in 0..text.len() {
        assert_eq!(parse_list(&text.as_bytes()[..end]), None, "{end}");
    }
    fuzz(&[text.as_bytes()], 5_000, |bytes| drop(parse_list(bytes)));
    let deep = "[".repeat(100_000);
    assert_eq!(parse_list(deep.as_bytes()), None);
}
