//! Files that are not valid, and what is told of each.

use super::*;

#[test]
fn a_mistake_is_shown_as_the_screens_have_it() {
    let told = load(one("http: http://localhost:5000/\nintervall: 15s").as_bytes()).expect_err("not valid");
    assert_eq!(
        told,
        "w.yaml:4:5: unknown key `intervall`\n  4 |     intervall: 15s\n    |     ^^^^^^^^^ did you mean `interval`?   \
         (targets[0], a)"
    );
}

#[test]
fn keys_are_known_and_stand_once() {
    refused("tragets: []", &["w.yaml:1:1: unknown key `tragets`", "did you mean `targets`?"]);
    refused(
        "colour: red\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:1: unknown key `colour`", "known here: state_dir, log,"],
    );
    refused("log: {levle: info}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:7: unknown", "`level`?   (log)"]);
    refused(&one("tcp: h:1\ntcp: h:2"), &["w.yaml:4:5: `tcp` stands here twice"]);
    refused(&one("http: {url: http://h, headers: {A: b, A: c}}"), &["w.yaml:3:43: `A` stands here twice"]);
    refused(
        &one("http: {url: http://h, headers: {X-a: b, x-A: c}}"),
        &["w.yaml:3:45: `x-A` and `X-a` are the same header"],
    );
    refused(&one("http: {url: http://h, json: {/a: {b: 1, b: 2}}}"), &["w.yaml:3:45: `b` stands here twice"]);
    refused("env: {A: b, A: c}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:13: `A` stands here twice"]);
    refused("env: {1A: b}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:7: `1A` is no name of a variable"]);
    refused(&one("tcp: h:1\nrestart: {rnu: x}"), &["w.yaml:4:15: unknown key `rnu`", "`run`?"]);
}

#[test]
fn the_page_and_the_metrics_are_files() {
    let with = |top: &str| format!("{top}\ntargets: [{{name: a, tcp: 'h:1'}}]");
    let config = accepted(&with("page: ~/public_html/status.html\nmetrics: x.prom"));
    let page = config.page.expect("a page");
    assert_eq!((page.file.display().to_string().as_str(), page.details), ("/home/user/public_html/status.html", false));
    assert!(config.metrics.is_some_and(|path| path.is_absolute() && path.ends_with("x.prom")));
    assert!(accepted(&with("page: {file: x.html, details: true}")).page.is_some_and(|page| page.details));
    refused(&with("page: {details: true}"), &["w.yaml:1:7: `page` names no `file`", "status.html"]);
    refused(&with("page: {file: x, detail: true}"), &["w.yaml:1:17: unknown key `detail`", "`details`?"]);
    refused(&with("page: {file: x, details: 1}"), &["w.yaml:1:26: `details` must be true or false"]);
    refused(&with("page: 1"), &["w.yaml:1:7: `page` must be"]);
    refused(&with("page: x\nmetrics: ./x"), &["w.yaml:2:10: `metrics` is the file of the `page` too"]);
}

#[test]
fn what_is_run_to_find_out_is_a_command_or_a_list_of_them() {
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
    refused(&one("tcp: h:1\ndiagnose: {run: x}"), &["w.yaml:4:15: `diagnose` must be a command, not a map"]);
    refused(&one("tcp: h:1\ndiagnose: ['']"), &["w.yaml:4:16: `diagnose[0]` is empty"]);
    let many = format!("[{}]", "x,".repeat(21));
    refused(&one(&format!("tcp: h:1\ndiagnose: {many}")), &["w.yaml:4:15: `diagnose` has 21 commands", "at most 20"]);
}

#[test]
fn defaults_hold_what_targets_may_share() {
    for key in ["name: x", "http: http://h", "pm2: x", "restart: x"] {
        refused(
            &format!("defaults: {{{key}}}\ntargets: [{{name: a, tcp: 'h:1'}}]"),
            &["w.yaml:1:12: `", "cannot stand here", "its own   (defaults)"],
        );
    }
    refused(
        "defaults: {interval: 5}\ntargets: [{name: a, tcp: 'h:1', interval: 1s}, {name: b, tcp: 'h:1'}]",
        &["w.yaml:1:22: `interval` has no unit", "write 5s   (defaults.interval)"],
    );
    refused("defaults: {cooldown: 20m}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:22: `cooldown` contradicts"]);
    accepted("defaults: {cooldown: 20m}\ntargets: [{name: a, tcp: 'h:1', max_cooldown: 1h}]");
    refused(
        "defaults: {depends_on: [a]}\ntargets: [{name: a, tcp: 'h:1'}]",
        &["w.yaml:1:24: `depends_on` goes in a circle: a → a"],
    );
}

#[test]
fn values_are_of_their_kind() {
    refused("", &["w.yaml:1:1: the file must be a map of keys and values, not nothing"]);
    refused("- a", &["w.yaml:1:1: the file must be a map"]);
    refused("targets:", &["w.yaml:1:9: `targets` must be a list, not nothing"]);
    refused("targets: []", &["w.yaml:1:10: `targets` is an empty list", "something to watch"]);
    refused("targets: [a]", &["w.yaml:1:11: `targets[0]` must be a map"]);
    refused("targets: {}", &["w.yaml:1:10: `targets` must be a list"]);
    refused(
        &format!("targets: [{}]", "a,".repeat(1_001)),
        &["w.yaml:1:10: `targets` has 1001 targets", "at most 1000"],
    );
    refused(&one("tcp: h:1\ndry_run: no"), &["w.yaml:4:14: `dry_run` must be true or false, not text"]);
    refused(&one("tcp: h:1\ninterval: [1s]"), &["w.yaml:4:15: `interval` must be a duration, not a list"]);
    refused(&one("tcp: h:1\nmax_restarts: '3'"), &["w.yaml:4:19: `max_restarts` must be a whole number, not text"]);
    refused(&one("tcp: h:1\nmax_restarts: 1.5"), &["w.yaml:4:19: `max_restarts` is out of range", "from 1 to 100"]);
    refused(&one("tcp: h:1\nrestart:"), &["w.yaml:4:13: `restart` must be a command, not nothing"]);
    refused(&one("tcp: h:1\nrestart: ''"), &["w.yaml:4:14: `restart` is empty"]);
    refused(&one("tcp: h:1\nrestart: []"), &["w.yaml:4:14: `restart` is an empty list"]);
    refused(&one("tcp: h:1\nrestart: [[a, b]]"), &["w.yaml:4:15: `restart[0]` is a list in a list"]);
    refused(&one("tcp: h:1\nrestart: {run: []}"), &["w.yaml:4:20: `run` is an empty list"]);
    refused(&one("tcp: h:1\nrestart: {run: ['', a]}"), &["w.yaml:4:21: `run[0]` is empty"]);
    refused(&one("tcp: h:1\nrestart: {timeout: 1s}"), &["w.yaml:4:14: `restart` has neither `run` nor `pm2`"]);
    refused(&one("tcp: h:1\nrestart: \"a\\0b\""), &["w.yaml:4:14: `restart` holds a NUL byte"]);
    refused(&one("tcp: h:1\ndepends_on: b"), &["w.yaml:4:17: `depends_on` must be a list, not text"]);
    refused(
        &one("tcp: h:1\nrestart_on: [refused, dsn]"),
        &["w.yaml:4:27: `restart_on[1]` is none of the words", "dns, tls"],
    );
    refused(&one("command: true"), &["w.yaml:3:14: `command` must be a command, not true or false"]);
    refused("env: {PORT: 5000}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:13: `PORT` must be text", "in quotes"]);
}

#[test]
fn numbers_are_in_range_and_all_that_are_not_are_told() {
    refused(
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
    refused(
        &one("tcp: h:1\ncooldown: 15m"),
        &["w.yaml:4:15: `cooldown` contradicts: `max_cooldown` is shorter", "10 min unless"],
    );
    refused(&one("tcp: h:1\nretry_interval: 31s"), &["w.yaml:4:21: `retry_interval` contradicts"]);
    refused(&one("tcp: h:1\ninterval: 90\nretry_interval: 60s"), &["w.yaml:4:15: `interval` has no unit"]);
    for (size, told) in
        [("1KiB", "is out of range"), ("2GiB", "is out of range"), ("1000", "has no unit"), ("1MB", "is not a size")]
    {
        let text = format!("log: {{max_size: {size}}}\ntargets: [{{name: a, tcp: 'h:1'}}]");
        refused(&text, &[&format!("w.yaml:1:17: `max_size` {told}")]);
    }
    refused("log: {keep: 101}\ntargets: [{name: a, tcp: 'h:1'}]", &["w.yaml:1:13: `keep` is out of range", "0 to 100"]);
}

#[test]
fn targets_fit_together() {
    let two =
        |a: &str, b: &str| format!("targets:\n  - {{name: a, tcp: 'h:1', {a}}}\n  - {{name: b, tcp: 'h:1', {b}}}\n");
    refused(
        "targets: [{name: a, tcp: 'h:1'}, {name: a, tcp: 'h:2'}]",
        &["w.yaml:1:41: `name` is what targets[0] is called already"],
    );
    refused("targets: [{tcp: 'h:1'}]", &["w.yaml:1:11: `targets[0]` has no `name`"]);
    refused("targets: [{name: a b, tcp: 'h:1'}]", &["w.yaml:1:18: `name` is not a name"]);
    refused("targets: [{name: a}]", &["w.yaml:1:11: `targets[0]` has no probe", "http, tcp, command, file"]);
    refused(&one("tcp: h:1\ncommand: x"), &["w.yaml:4:5: a second probe, `command`, beside `tcp`"]);
    refused(&two("depends_on: [c]", ""), &["w.yaml:2:40: `depends_on[0]` is no target here"]);
    refused(
        "targets: [{name: database, tcp: 'h:1'}, {name: b, tcp: 'h:1', depends_on: [databse, x]}]",
        &["w.yaml:1:76: ", "did you mean `database`?", "w.yaml:1:85: ", "the name of a target"],
    );
    refused(&two("depends_on: [b]", "depends_on: [a]"), &["w.yaml:2:39: `depends_on` goes in a circle: a → b → a"]);
    refused(&two("restart: r x", "restart: [r x]"), &["w.yaml:3:36: `restart` is the same as that of `a`"]);
    accepted(&two("restart: r $WATCHDOG_TARGET", "restart: r $WATCHDOG_TARGET"));
    accepted(&two("restart: r x", "restart: [r x, r y]"));
    refused(
        &two("restart: [pm2, restart, x]", ""),
        &["w.yaml:2:36: `restart` looks like one command", "write {run: [pm2, restart, x]}"],
    );
    accepted(&two("restart: [./restart.sh]", "restart: [pm2 restart x, ./hard.sh]"));
}

#[test]
fn addresses_and_headers_are_valid_and_secrets_stay_untold() {
    let url = |url: &str| one(&format!("http: '{url}'"));
    refused(&url("http://me:s3cret@h:0/"), &["w.yaml:3:11: `http` has no valid port", "'http://…@h:0/'"]);
    refused(&url("http://me:s3cret/x@h/"), &["w.yaml:3:11: `http` has no valid port", "'http://…@h/'"]);
    refused(&url("ftp://h/"), &["w.yaml:3:11: `http` begins with neither"]);
    refused(&url("http://${TWO_LINES}/"), &["w.yaml:3:11: `http` is not a valid address", "${TWO_LINES}"]);
    refused(&url("http://$HOST/"), &["w.yaml:3:11: `http` has a `$` that stands alone", "$$ for a dollar"]);
    refused(
        &url("http://${NOT_SET}/"),
        &["w.yaml:3:11: `http` needs ${NOT_SET}, which is not set", "there is no `env_file`"],
    );
    refused(&one("http: {url: http://me@h, headers: {authorization: s3cret}}"), &["w.yaml:3:17: `url` has a user"]);
    refused(&one("http: {url: http://h, headers: {A b: s3cret}}"), &["w.yaml:3:37: `A b` is no header's name"]);
    refused(
        &one("http: {url: http://h, headers: {A: \"s3cret\\nB: c\"}}"),
        &["w.yaml:3:40: `A` has a character that no header"],
    );
    refused(&one("http: {url: http://h, headers: {A: \"${TWO_LINES}\"}}"), &["w.yaml:3:40: `A` has a character"]);
    refused(&one("http: {url: http://h, headers: {A: 5}}"), &["w.yaml:3:40: `A` must be text"]);
    refused(&one("http: {method: GET}"), &["w.yaml:3:11: `http` has no `url`"]);
    refused(&one("http: {url: http://h, method: POST}"), &["w.yaml:3:35: `method` is none of the words", "GET, HEAD"]);
    refused(&one("http: {url: http://h, method: HEAD, contains: x}"), &["w.yaml:3:51: `contains` looks at the body"]);
    refused(&one("http: {url: http://h, status: 2xx}"), &["w.yaml:3:35: `status` is not a status"]);
    refused(&one("http: {url: http://h, status: []}"), &["w.yaml:3:35: `status` is an empty list"]);
    refused(
        &one("http: {url: http://h, json: {status: ok}}"),
        &["w.yaml:3:34: `status` is no JSON pointer", "/status"],
    );
    refused(&one("http: {url: http://h, json: {}}"), &["w.yaml:3:33: `json` is empty"]);
    refused(&one("http: {url: http://h, tls: insecur}"), &["w.yaml:3:32: `tls` is neither verify nor insecure"]);
    refused(
        &one(&format!("http: {{url: http://h, unix_socket: /{}}}", "x".repeat(103))),
        &["w.yaml:3:40: `unix_socket` is too long"],
    );
    refused(
        &one("http: {url: http://h, unix_socket: ~bob/x}"),
        &["w.yaml:3:40: `unix_socket` begins with ~ and a name"],
    );
}

#[test]
fn tcp_and_file_are_valid() {
    for (text, told) in [
        ("5432", "names no host"),
        ("localhost", "names no port"),
        ("'localhost:0'", "has no valid port"),
        ("'h:+1'", "has no valid port"),
        ("'::1:80'", "has no valid host"),
        ("'[zz]:80'", "has no valid host"),
        ("tcp://h:1", "has no valid host"),
        ("'a b:1'", "has no valid host"),
        ("':1'", "has no valid host"),
        ("'h:65536'", "has no valid port"),
    ] {
        refused(&one(&format!("tcp: {text}")), &[&format!("w.yaml:3:10: `tcp` {told}")]);
    }
    let config = accepted(&one("tcp: '[::1]:5432'"));
    assert!(matches!(&config.targets[0].probe, Probe::Tcp { host, port: 5432 } if host == "::1"));
    refused(&one("file: run/beat"), &["w.yaml:3:11: `file` must be a map"]);
    refused(&one("file: {path: x}"), &["w.yaml:3:11: `file` has no `max_age`"]);
    refused(&one("file: {path: x, max_age: 999d}"), &["w.yaml:3:30: `max_age` is too long"]);
}

#[test]
fn a_file_of_variables_that_does_not_serve_is_told() {
    let folder = private_folder();
    let (path, variables) = (folder.path().join("w.yaml"), folder.path().join("w.env"));
    let text = format!("env_file: w.env\n{}", one("http: http://h/${TOKEN}"));
    write(&path, text.as_bytes(), 0o600);
    let told = || Config::load(&path, &environment).expect_err("not valid").to_string();
    assert!(told().contains("w.env: no such file"), "{}", told());
    write(&variables, b"TOKEN=x\nnonsense s3cret\n", 0o644);
    assert!(told().contains("chmod 600"), "{}", told());
    write(&variables, b"TOKEN=x\nnonsense s3cret\n", 0o600);
    assert!(told().contains("w.env:2: not NAME=value") && !told().contains("s3cret"), "{}", told());
    write(&variables, b"OTHER=x\n", 0o600);
    assert!(told().contains("neither in the environment nor in w.env"), "{}", told());
    write(&variables, b"TOKEN=x\n", 0o600);
    assert!(Config::load(&path, &environment).is_ok());
    write(&path, text.as_bytes(), 0o602);
    assert!(told().contains(&format!("chmod o-w {}", path.display())), "{}", told());
}
