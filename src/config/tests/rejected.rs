//! Invalid files, and the errors that they lead to.

use super::*;

#[test]
fn an_error_shows_its_line_and_the_nearest_key() {
    let error = load(one("http: http://localhost:5000/\nintervall: 15s").as_bytes()).expect_err("not valid");
    assert_eq!(
        error,
        "w.yaml:4:5: unknown key `intervall`\n  4 |     intervall: 15s\n    |     ^^^^^^^^^ did you mean `interval`?   \
         (targets[0], a)"
    );
}

#[test]
fn keys_must_be_known_and_unique() {
    rejected("tragets: []", &["w.yaml:1:1: unknown key `tragets`", "did you mean `targets`?"]);
    rejected(
        "colour: red\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:1: unknown key `colour`", "allowed here: state_dir, log,"],
    );
    rejected("log: {levle: info}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:7: unknown", "`level`?   (log)"]);
    rejected(&one("tcp: h:1\ntcp: h:2"), &["w.yaml:4:5: duplicate key `tcp`"]);
    rejected(&one("http: {url: http://h, headers: {A: b, A: c}}"), &["w.yaml:3:43: duplicate key `A`"]);
    rejected(
        &one("http: {url: http://h, headers: {X-a: b, x-A: c}}"),
        &["w.yaml:3:45: `x-A` and `X-a` are the same header"],
    );
    rejected(&one("http: {url: http://h, json: {/a: {b: 1, b: 2}}}"), &["w.yaml:3:45: duplicate key `b`"]);
    rejected("env: {A: b, A: c}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:13: duplicate key `A`"]);
    rejected("env: {1A: b}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:7: `1A` is not a valid variable name"]);
    rejected(&one("tcp: h:1\nrestart: {rnu: x}"), &["w.yaml:4:15: unknown key `rnu`", "`run`?"]);
}

#[test]
fn page_and_metrics_name_two_files() {
    let with = |top: &str| format!("{top}\ntargets: [{{name: a, tcp: 'h:1'}}]");
    let config = accepted(&with("page: ~/public_html/status.html\nmetrics: x.prom"));
    let page = config.page.expect("a page");
    assert_eq!((page.file.display().to_string().as_str(), page.details), ("/home/user/public_html/status.html", false));
    assert!(config.metrics.is_some_and(|path| path.is_absolute() && path.ends_with("x.prom")));
    assert!(accepted(&with("page: {file: x.html, details: true}")).page.is_some_and(|page| page.details));
    rejected(&with("page: {details: true}"), &["w.yaml:1:7: `page` has no `file`", "status.html"]);
    rejected(&with("page: {file: x, detail: true}"), &["w.yaml:1:17: unknown key `detail`", "`details`?"]);
    rejected(&with("page: {file: x, details: 1}"), &["w.yaml:1:26: `details` must be true or false"]);
    rejected(&with("page: 1"), &["w.yaml:1:7: `page` must be"]);
    rejected(&with("page: x\nmetrics: ./x"), &["w.yaml:2:10: `metrics` is the same file as `page`"]);
}

#[test]
fn diagnose_is_a_command_or_a_list_of_commands() {
    let diagnose = |value: &str| {
        let mut config = accepted(&one(&format!("tcp: h:1\ndiagnose: {value}")));
        let target = config.targets.remove(0);
        assert_eq!(target.limits.diagnose, !target.diagnose.is_empty(), "{value}");
        target.diagnose.iter().map(ToString::to_string).collect::<Vec<String>>().join("; ")
    };
    assert_eq!(diagnose("df -h ."), "df -h .");
    assert_eq!(diagnose("[df -h ., [ss, -ltn]]"), "df -h .; ss -ltn");
    assert_eq!(diagnose("[]"), "");
    let all =
        accepted("defaults: {diagnose: [x]}\ntargets: [{name: a, tcp: 'h:1'}, {name: b, tcp: 'h:1', diagnose: []}]");
    assert_eq!(all.targets.iter().map(|target| target.diagnose.len()).collect::<Vec<_>>(), [1, 0]);
    rejected(&one("tcp: h:1\ndiagnose: {run: x}"), &["w.yaml:4:15: `diagnose` must be a command, not a map"]);
    rejected(&one("tcp: h:1\ndiagnose: ['']"), &["w.yaml:4:16: `diagnose[0]` is empty"]);
    let many = format!("[{}]", "x,".repeat(21));
    rejected(&one(&format!("tcp: h:1\ndiagnose: {many}")), &["w.yaml:4:15: `diagnose` has 21 commands", "at most 20"]);
}

#[test]
fn defaults_allow_only_the_keys_that_targets_share() {
    for key in ["name: x", "http: http://h", "pm2: x", "restart: x"] {
        rejected(
            &format!("defaults: {{{key}}}\ntargets: [{{name: a, tcp: 'h:1'}}]"),
            &["w.yaml:1:12: `", "is not allowed here", "on each target   (defaults)"],
        );
    }
    rejected(
        "defaults: {interval: 5}\ntargets: [{name: a, tcp: 'h:1', interval: 1s}, {name: b, tcp: 'h:1'}]",
        &["w.yaml:1:22: `interval` has no unit", "write 5s   (defaults.interval)"],
    );
    rejected(
        "defaults: {cooldown: 20m}\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:22: `cooldown` is inconsistent"],
    );
    accepted("defaults: {cooldown: 20m}\ntargets: [{name: a, tcp: 'h:1', max_cooldown: 1h}]");
    rejected(
        "defaults: {depends_on: [a]}\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:24: `depends_on` forms a cycle: a → a"],
    );
}

#[test]
fn values_must_have_the_right_type() {
    rejected("", &["w.yaml:1:1: the file must be a map of keys and values, not nothing"]);
    rejected("- a", &["w.yaml:1:1: the file must be a map"]);
    rejected("targets:", &["w.yaml:1:9: `targets` must be a list, not nothing"]);
    rejected("targets: []", &["w.yaml:1:10: `targets` is an empty list", "add at least one target"]);
    rejected("targets: [a]", &["w.yaml:1:11: `targets[0]` must be a map"]);
    rejected("targets: {}", &["w.yaml:1:10: `targets` must be a list"]);
    rejected(
        &format!("targets: [{}]", "a,".repeat(1_001)),
        &["w.yaml:1:10: `targets` has 1001 targets", "at most 1000"],
    );
    rejected(&one("tcp: h:1\ndry_run: no"), &["w.yaml:4:14: `dry_run` must be true or false, not text"]);
    rejected(&one("tcp: h:1\ninterval: [1s]"), &["w.yaml:4:15: `interval` must be a duration, not a list"]);
    rejected(&one("tcp: h:1\nmax_restarts: '3'"), &["w.yaml:4:19: `max_restarts` must be a whole number, not text"]);
    rejected(&one("tcp: h:1\nmax_restarts: 1.5"), &["w.yaml:4:19: `max_restarts` is out of range", "from 1 to 100"]);
    rejected(&one("tcp: h:1\nrestart:"), &["w.yaml:4:13: `restart` must be a command, not nothing"]);
    rejected(&one("tcp: h:1\nrestart: ''"), &["w.yaml:4:14: `restart` is empty"]);
    rejected(&one("tcp: h:1\nrestart: []"), &["w.yaml:4:14: `restart` is an empty list"]);
    rejected(&one("tcp: h:1\nrestart: [[a, b]]"), &["w.yaml:4:15: `restart[0]` is a list in a list"]);
    rejected(&one("tcp: h:1\nrestart: {run: []}"), &["w.yaml:4:20: `run` is an empty list"]);
    rejected(&one("tcp: h:1\nrestart: {run: ['', a]}"), &["w.yaml:4:21: `run[0]` is empty"]);
    rejected(&one("tcp: h:1\nrestart: {timeout: 1s}"), &["w.yaml:4:14: `restart` has neither `run` nor `pm2`"]);
    rejected(&one("tcp: h:1\nrestart: \"a\\0b\""), &["w.yaml:4:14: `restart` contains a NUL byte"]);
    rejected(&one("tcp: h:1\ndepends_on: b"), &["w.yaml:4:17: `depends_on` must be a list, not text"]);
    rejected(
        &one("tcp: h:1\nrestart_on: [refused, dsn]"),
        &["w.yaml:4:27: `restart_on[1]` is not one of the allowed values", "dns, tls"],
    );
    rejected(&one("command: true"), &["w.yaml:3:14: `command` must be a command, not true or false"]);
    rejected("env: {PORT: 5000}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:13: `PORT` must be text", "in quotes"]);
}

#[test]
fn every_number_out_of_range_is_reported() {
    rejected(
        &one("tcp: h:1\ninterval: 30\ntimeout: 99ms\nfailure_threshold: 0\nstart_period: 25h\ncooldown: 1M\n\
             max_restarts: 101\nstable_after: soon\nrestart: {run: x y, timeout: 0s}"),
        &[
            "w.yaml:4:15: `interval` has no unit",
            "^^ write 30s",
            "w.yaml:5:14: `timeout` is too short",
            "from 100 ms to 24 h",
            "w.yaml:6:24: `failure_threshold` is out of range",
            "from 1 to 100",
            "w.yaml:7:19: `start_period` is too long",
            "w.yaml:8:15: `cooldown` has an unknown unit `M`",
            "w.yaml:9:19: `max_restarts` is out of range",
            "w.yaml:10:19: `stable_after` is not a duration",
            "w.yaml:11:34: `timeout` is too short",
        ],
    );
    accepted(&one("tcp: h:1\ncooldown: 0s\nmax_cooldown: 0s\nstart_period: 1d\nrestart_window: 0s\ninterval: 100ms"));
    rejected(
        &one("tcp: h:1\ncooldown: 15m"),
        &["w.yaml:4:15: `cooldown` is inconsistent: `max_cooldown` is shorter", "defaults to 10 min"],
    );
    rejected(&one("tcp: h:1\nretry_interval: 31s"), &["w.yaml:4:21: `retry_interval` is inconsistent"]);
    rejected(&one("tcp: h:1\ninterval: 90\nretry_interval: 60s"), &["w.yaml:4:15: `interval` has no unit"]);
    for (size, expected) in
        [("1KiB", "is out of range"), ("2GiB", "is out of range"), ("1000", "has no unit"), ("1MB", "is not a size")]
    {
        let text = format!("log: {{max_size: {size}}}\ntargets: [{{name: a, tcp: 'h:1'}}]");
        rejected(&text, &[&format!("w.yaml:1:17: `max_size` {expected}")]);
    }
    rejected(
        "log: {keep: 101}\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:13: `keep` is out of range", "0 to 100"],
    );
}

#[test]
fn targets_must_be_consistent_with_each_other() {
    let two =
        |a: &str, b: &str| format!("targets:\n  - {{name: a, tcp: 'h:1', {a}}}\n  - {{name: b, tcp: 'h:1', {b}}}\n");
    rejected(
        "targets: [{name: a, tcp: 'h:1'}, {name: a, tcp: 'h:2'}]",
        &["w.yaml:1:41: `name` is already used by targets[0]"],
    );
    rejected("targets: [{tcp: 'h:1'}]", &["w.yaml:1:11: `targets[0]` has no `name`"]);
    rejected("targets: [{name: a b, tcp: 'h:1'}]", &["w.yaml:1:18: `name` is not a valid name"]);
    rejected("targets: [{name: a}]", &["w.yaml:1:11: `targets[0]` has no probe", "http, tcp, command, file"]);
    rejected(&one("tcp: h:1\ncommand: x"), &["w.yaml:4:5: `command` is a second probe next to `tcp`"]);
    rejected(&two("depends_on: [c]", ""), &["w.yaml:2:40: `depends_on[0]` is not a target"]);
    rejected(
        "targets: [{name: database, tcp: 'h:1'}, {name: b, tcp: 'h:1', depends_on: [databse, x]}]",
        &["w.yaml:1:76: ", "did you mean `database`?", "w.yaml:1:85: ", "the name of a target"],
    );
    rejected(&two("depends_on: [b]", "depends_on: [a]"), &["w.yaml:2:39: `depends_on` forms a cycle: a → b → a"]);
    rejected(&two("restart: r x", "restart: [r x]"), &["w.yaml:3:36: `restart` is the same as for `a`"]);
    accepted(&two("restart: r $WATCHDOG_TARGET", "restart: r $WATCHDOG_TARGET"));
    accepted(&two("restart: r x", "restart: [r x, r y]"));
    rejected(
        &two("restart: [pm2, restart, x]", ""),
        &["w.yaml:2:36: `restart` looks like one command", "write {run: [pm2, restart, x]}"],
    );
    accepted(&two("restart: [./restart.sh]", "restart: [pm2 restart x, ./hard.sh]"));
}

#[test]
fn invalid_urls_and_headers_are_rejected_without_showing_secrets() {
    let url = |url: &str| one(&format!("http: '{url}'"));
    rejected(&url("http://me:s3cret@h:0/"), &["w.yaml:3:11: `http` has no valid port", "'http://…@h:0/'"]);
    rejected(&url("http://me:s3cret/x@h/"), &["w.yaml:3:11: `http` has no valid port", "'http://…@h/'"]);
    rejected(&url("ftp://h/"), &["w.yaml:3:11: `http` starts with neither"]);
    rejected(&url("http://${TWO_LINES}/"), &["w.yaml:3:11: `http` is not a valid URL", "${TWO_LINES}"]);
    rejected(&url("http://$HOST/"), &["w.yaml:3:11: `http` contains a lone `$`", "$$ for a dollar"]);
    rejected(
        &url("http://${NOT_SET}/"),
        &["w.yaml:3:11: `http` needs ${NOT_SET}, which is not set", "no `env_file` is set"],
    );
    rejected(&one("http: {url: http://me@h, headers: {authorization: s3cret}}"), &["w.yaml:3:17: `url` has a user"]);
    rejected(&one("http: {url: http://h, headers: {A b: s3cret}}"), &["w.yaml:3:37: `A b` is not a header name"]);
    rejected(
        &one("http: {url: http://h, headers: {A: \"s3cret\\nB: c\"}}"),
        &["w.yaml:3:40: `A` contains a character that a header"],
    );
    rejected(&one("http: {url: http://h, headers: {A: \"${TWO_LINES}\"}}"), &["w.yaml:3:40: `A` contains a character"]);
    rejected(&one("http: {url: http://h, headers: {A: 5}}"), &["w.yaml:3:40: `A` must be text"]);
    rejected(&one("http: {method: GET}"), &["w.yaml:3:11: `http` has no `url`"]);
    rejected(
        &one("http: {url: http://h, method: POST}"),
        &["w.yaml:3:35: `method` is not one of the allowed values", "GET, HEAD"],
    );
    rejected(&one("http: {url: http://h, method: HEAD, contains: x}"), &["w.yaml:3:51: `contains` checks the body"]);
    rejected(&one("http: {url: http://h, status: 2xx}"), &["w.yaml:3:35: `status` is not a status"]);
    rejected(&one("http: {url: http://h, status: []}"), &["w.yaml:3:35: `status` is an empty list"]);
    rejected(
        &one("http: {url: http://h, json: {status: ok}}"),
        &["w.yaml:3:34: `status` is not a JSON pointer", "/status"],
    );
    rejected(&one("http: {url: http://h, json: {}}"), &["w.yaml:3:33: `json` is empty"]);
    rejected(&one("http: {url: http://h, tls: insecur}"), &["w.yaml:3:32: `tls` is neither verify nor insecure"]);
    rejected(
        &one(&format!("http: {{url: http://h, unix_socket: /{}}}", "x".repeat(103))),
        &["w.yaml:3:40: `unix_socket` is too long"],
    );
    rejected(
        &one("http: {url: http://h, unix_socket: ~bob/x}"),
        &["w.yaml:3:40: `unix_socket` starts with ~ and a user name"],
    );
}

#[test]
fn invalid_tcp_and_file_probes_are_rejected() {
    for (text, expected) in [
        ("5432", "has no host"),
        ("localhost", "has no port"),
        ("'localhost:0'", "has no valid port"),
        ("'h:+1'", "has no valid port"),
        ("'::1:80'", "has no valid host"),
        ("'[zz]:80'", "has no valid host"),
        ("tcp://h:1", "has no valid host"),
        ("'a b:1'", "has no valid host"),
        ("':1'", "has no valid host"),
        ("'h:65536'", "has no valid port"),
    ] {
        rejected(&one(&format!("tcp: {text}")), &[&format!("w.yaml:3:10: `tcp` {expected}")]);
    }
    let config = accepted(&one("tcp: '[::1]:5432'"));
    assert!(matches!(&config.targets[0].probe, Probe::Tcp { host, port: 5432 } if host == "::1"));
    rejected(&one("file: run/beat"), &["w.yaml:3:11: `file` must be a map"]);
    rejected(&one("file: {path: x}"), &["w.yaml:3:11: `file` has no `max_age`"]);
    rejected(&one("file: {path: x, max_age: 999d}"), &["w.yaml:3:30: `max_age` is too long"]);
}

#[test]
fn errors_in_env_file_name_its_path_and_line() {
    let folder = private_folder();
    let (path, variables) = (folder.path().join("w.yaml"), folder.path().join("w.env"));
    let text = format!("env_file: w.env\n{}", one("http: http://h/${TOKEN}"));
    write(&path, text.as_bytes(), 0o600);
    let error = || Config::load(&path, &environment).expect_err("not valid").to_string();
    assert!(error().contains("w.env: no such file"), "{}", error());
    write(&variables, b"TOKEN=x\nnonsense s3cret\n", 0o644);
    assert!(error().contains("chmod 600"), "{}", error());
    write(&variables, b"TOKEN=x\nnonsense s3cret\n", 0o600);
    assert!(error().contains("w.env:2: not NAME=value") && !error().contains("s3cret"), "{}", error());
    write(&variables, b"OTHER=x\n", 0o600);
    assert!(error().contains("neither in the environment nor in w.env"), "{}", error());
    write(&variables, b"TOKEN=x\n", 0o600);
    assert!(Config::load(&path, &environment).is_ok());
    write(&path, text.as_bytes(), 0o602);
    assert!(error().contains(&format!("chmod o-w {}", path.display())), "{}", error());
}
