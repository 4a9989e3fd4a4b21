//! Tails of real logs, with fewer stack frames, and the line that must be picked from each.

use super::*;

#[track_caller]
fn check(tail: &str, expected: &str) {
    assert_eq!(most_informative_line(tail).as_deref(), Some(expected), "in {tail:?}");
}

const NODE_FRAMES: &str = r"    at Module._load (node:internal/modules/cjs/loader:1091:12)
    at async load (file:///srv/a b/x.mjs:3:9)
    at Object.<anonymous>
    at [eval]:1:7
    at node:internal/main/run_main_module:28:49";

#[test]
fn an_exception_of_node_is_picked_from_its_stack_trace() {
    let frames = NODE_FRAMES;
    check(
        &format!(
            r"listening
/srv/a.js:1
function f(){{ const x={{}}; x.foo(); }}
       ^

TypeError: x.foo is not a function
{frames}

Node.js v20.20.2
"
        ),
        "TypeError: x.foo is not a function",
    );
    check(
        r"node:events:502
      throw er; // Unhandled 'error' event
      ^

Error: listen EADDRINUSE: address already in use :::3000
    at Server.setupListenHandle [as _listen2] (node:net:1908:16)
Emitted 'error' event on Server instance at:
    at emitErrorNT (node:net:1944:8)
    at process.processTicksAndRejections (node:internal/process/task_queues:82:21) {
  code: 'EADDRINUSE',
  errno: -98,
  address: '::',
  port: 3000
}

Node.js v20.20.2
",
        "Error: listen EADDRINUSE: address already in use :::3000",
    );
    check(
        &format!(
            r"node:internal/modules/cjs/loader:1210
  throw err;
  ^

Error: Cannot find module './nope'
Require stack:
- /srv/c.js
{frames} {{
  code: 'MODULE_NOT_FOUND',
  requireStack: [
    '/srv/c.js',
    '/srv/d.js'
  ]
}}

Node.js v20.20.2"
        ),
        "Error: Cannot find module './nope'",
    );
    check(
        &format!(
            "/srv/app/a.js:1\nlet x = {{;\n         ^\n\nSyntaxError: Unexpected token ';'\n{frames}\n\nNode.js v2"
        ),
        "SyntaxError: Unexpected token ';'",
    );
}

#[test]
fn a_fatal_report_of_node_is_picked() {
    check(
        r#"node:internal/process/promises:389
      new UnhandledPromiseRejection(reason);
      ^

UnhandledPromiseRejection: This error originated either by throwing inside. The reason "plain string".
    at throwUnhandledRejectionsMode (node:internal/process/promises:389:7) {
  code: 'ERR_UNHANDLED_REJECTION'
}
"#,
        "UnhandledPromiseRejection: This error originated either by throwing inside. The reason \"plain string\".",
    );
    check(
        r"[7862:0x3f5b]  41 ms: Mark-Compact 17.0 (49.2) -> 16.5 (49.2) MB

<--- JS stacktrace --->

FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
----- Native stack trace -----

 1: 0xb78db3 node::OOMErrorHandler(char const*, v8::OOMDetails const&) [node]
 4: 0x10fb205  [node]
10: 0x195e476  [node]
",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
    );
    check(
        r"AxiosError: Request failed with status code 500
    at settle (/srv/n/core/settle.js:19:12) {
  fatal: true,
  config: {
    headers: Object [AxiosHeaders] {
      'User-Agent': 'axios/1.7',
    },
    transform: [
      [Function: transformRequest]
    ],
    [Symbol(kHeaders)]: [Object],
    _header: 'GET / HTTP/1.1\r\n' +
      'Accept: */*\r\n',
    sockets: 1
  }
}
",
        "AxiosError: Request failed with status code 500",
    );
}

#[test]
fn a_cause_is_shown_with_its_error() {
    check(
        r"TypeError: fetch failed
    at node:internal/deps/undici/undici:14976:13 {
  [cause]: Error: connect ECONNREFUSED 127.0.0.1:1
      at mainFetch (node:internal/deps/undici/undici:10721:20) {
    errno: -111,
    port: 1
  }
}

Node.js v20.20.2",
        "TypeError: fetch failed [cause]: Error: connect ECONNREFUSED 127.0.0.1:1",
    );
    check(
        r"Error: outer
    at Object.<anonymous> (/srv/d.js:1:16)
    ... 4 lines matching cause stack trace ...
    at node:internal/main/run_main_module:28:49 {
  [cause]: Error: inner
      at f (/srv/d.js:1:41)
}
",
        "Error: outer [cause]: Error: inner",
    );
    check(
        r"AggregateError [ECONNREFUSED]:
    at internalConnectMultiple (node:net:1122:18) {
  code: 'ECONNREFUSED',
  [errors]: [
    Error: connect ECONNREFUSED ::1:5432
        at createConnectionError (node:net:1652:14) {
      errno: -111,
      port: 5432
    },
    Error: connect ECONNREFUSED 127.0.0.1:5432
        at f (node:net:1652:14) {
      errno: -111,
      port: 5432
    }
  ]
}
",
        "Error: connect ECONNREFUSED 127.0.0.1:5432",
    );
    check(
        r#"Exception in thread "main" java.lang.IllegalStateException: cannot start
	at A.g(A.java:1)
Caused by: java.io.IOException: disk gone
	at A.g(A.java:1)
	at java.base/x.Y.invoke0(Native Method)
	at a.B(C.java:1) ~[a.jar:1]
	... 12 more
"#,
        "Exception in thread \"main\" java.lang.IllegalStateException: cannot start \
         Caused by: java.io.IOException: disk gone",
    );
    check(
        "Error: failed to open config\n\nCaused by:\n    No such file (os error 2)\n",
        "Error: failed to open config",
    );
}

#[test]
fn the_exception_of_a_python_traceback_is_picked() {
    check(
        r#"Traceback (most recent call last):
  File "/srv/a.py", line 4, in <module>
    f(1)
  File "/srv/a.py", line 2, in f
    return int(x) + (1/0)
                     ~^~
ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/a.py", line 6, in <module>
    raise ValueError("bad") from e
ValueError: bad
"#,
        "ValueError: bad",
    );
    check(
        "  File \"/srv/c.py\", line 1\n    def f(:\n          ^\nSyntaxError: invalid syntax",
        "SyntaxError: invalid syntax",
    );
    check(
        r#"ERROR before
Traceback (most recent call last):
  File "e.py", line 2, in <module>
    raise MyThing
MyThing"#,
        "MyThing",
    );
    check("loading\nconfig missing\n", "config missing");
}

#[test]
fn errors_of_other_languages_are_picked() {
    check(
        r"
thread 'main' (7859) panicked at a.rs:1:196:
index out of bounds: the len is 1 but the index is 4
stack backtrace:
   0: __rustc::rust_begin_unwind
             at /rustc/59807616/library/std/src/panicking.rs:689:5
   3: <usize as core::slice::index::SliceIndex<[T]>>::index
   5: a::main
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
",
        "thread 'main' (7859) panicked at a.rs:1:196: index out of bounds: the len is 1 but the index is 4",
    );
    check(
        r"thread 'main' panicked at a.rs:1:120:
called `Result::unwrap()` on an `Err` value: ParseIntError { kind: Empty }
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
",
        "thread 'main' panicked at a.rs:1:120: \
         called `Result::unwrap()` on an `Err` value: ParseIntError { kind: Empty }",
    );
    check(
        r"panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47]

goroutine 1 [running]:
main.(*T).f(...)
	/srv/y.go:12
main.main()
	/srv/y.go:12 +0x1b
created by main.main in goroutine 1
	/srv/y.go:8 +0x4f
exit status 2
",
        "panic: runtime error: invalid memory address or nil pointer dereference",
    );
    check(
        r"PHP Fatal error:  Uncaught Exception: no db in /srv/x.php:3
Stack trace:
#0 /srv/x.php(3): f()
#1 {main}
  thrown in /srv/x.php on line 3
",
        "PHP Fatal error:  Uncaught Exception: no db in /srv/x.php:3",
    );
    check(
        "x.rb:3:in `f': no such user (RuntimeError)\n\tfrom x.rb:6:in `<main>'\n",
        "x.rb:3:in `f': no such user (RuntimeError)",
    );
    check(
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  bad port\n",
        "what():  bad port",
    );
}

#[test]
fn trailers_of_npm_are_skipped_and_prefixes_do_not_matter() {
    check(
        r#"npm error Missing script: "nope"
npm error
npm error To see a list of scripts, run:
npm error   npm run
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-11-29T15_20_42_863Z-debug-0.log
"#,
        "npm error Missing script: \"nope\"",
    );
    check(
        r"Error: bad config
npm ERR! code ELIFECYCLE
npm ERR! errno 1
npm ERR! Exit status 1
npm ERR!
npm ERR! A complete log of this run can be found in:
npm ERR!     /root/.npm/_logs/x.log
 ELIFECYCLE  Command failed",
        "Error: bad config",
    );
    check(
        r"2026-11-29T15:00:00: RangeError: Invalid
2026-11-29T15:00:00:     at f (/srv/a.js:1:2) {
2026-11-29T15:00:00:   code: 'X'
2026-11-29T15:00:00: }
2026-11-29T15:00:00:
",
        "2026-11-29T15:00:00: RangeError: Invalid",
    );
    check(
        "0|api  | TypeError: x\n0|api  |     at f (/srv/a.js:1:2)\n0|api  | \n0|api  | Node.js v20.20.2\n",
        "0|api  | TypeError: x",
    );
    check(
        "[2026-11-29 15:00:00.123 +00:00] KeyError: 'a'\n2|w | 15:00:00:   File \"x.py\", line 3, in f\n",
        "[2026-11-29 15:00:00.123 +00:00] KeyError: 'a'",
    );
    check("Killed\n=====\n", "Killed");
    check(
        "sh: line 1:    77 Segmentation fault      (core dumped) ./x\n",
        "sh: line 1:    77 Segmentation fault      (core dumped) ./x",
    );
    check(
        "{\"level\":\"error\",\"msg\":\"no db\"}\n{\"level\":\"info\",\"msg\":\"bye\"}\n",
        "{\"level\":\"error\",\"msg\":\"no db\"}",
    );
    check("{\"level\":50,\"msg\":\"no db\"}\nbye\n", "{\"level\":50,\"msg\":\"no db\"}");
    check(
        "2026/11/29 15:00:00 [error] 7#7: upstream timed out\nstopping",
        "2026/11/29 15:00:00 [error] 7#7: upstream timed out",
    );
    check("time=x level=error msg=\"no db\"\nbye", "time=x level=error msg=\"no db\"");
    check("write ENOSPC\nclosing\n", "write ENOSPC");
}

#[test]
fn the_last_line_is_picked_if_no_recent_line_is_an_error() {
    check("GET / 200\nGET /error 200\nEVENT ENABLED, 0 errors\n", "EVENT ENABLED, 0 errors");
    check("started\nlooking at the error page\nhandler onError set\n", "handler onError set");
    let below = |count: usize| format!("Error: old\n{}", "GET / 200\n".repeat(count));
    check(&below(20), "Error: old");
    check(&below(21), "GET / 200");
    let distant = |count: usize| format!("Error: old\n{}bye\n", "}\n".repeat(count));
    check(&distant(50), "Error: old");
    check(&distant(70), "bye");
    // A stack trace at the very end is read to its top.
    check(
        &format!("java.lang.StackOverflowError\n{}", "\tat A.g(A.java:1)\n".repeat(1024)),
        "java.lang.StackOverflowError",
    );
    check("    at f (a.js:1:2)\n}\n\n", "}");
    for empty in ["", "\n \r\n\t\n", "\u{1b}[0m\n", "\u{1b}]0;title"] {
        assert_eq!(most_informative_line(empty), None, "in {empty:?}");
    }
}

#[test]
fn the_line_is_shown_without_escape_sequences_and_shortened() {
    check("\u{1b}[31mTypeError\u{1b}[39m: bad\r\n\u{1b}[90m    at f (a.js:1:2)\u{1b}[39m\r\n", "TypeError: bad");
    check("10%\r50%\r100% done\r\n", "100% done");
    check("\u{1b}]0;Error: title\u{7}ready\n", "ready");
    check("  \u{1b}(B\u{1b}[1;38;5;9mready\u{1b}[K \u{8}\n", "ready");

    let long = format!("Error: {}", "é".repeat(500_000));
    let shown = most_informative_line(&long).unwrap_or_default();
    assert_eq!((shown.chars().count(), shown.chars().last()), (300, Some('…')));
    check(&"x".repeat(300), &"x".repeat(300));
}

#[test]
fn escape_sequences_and_control_characters_are_removed() {
    for (text, expected) in [
        ("a\tb\nc\r\nd\r\r\ne\rf", "a\tb\nc\nd\ne\nf"),
        ("\u{1b}[1;31mred\u{1b}[0m \u{1b}[?25lx\u{1b}[2K", "red x"),
        ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{7}", "link"),
        ("\u{1b}]0;cut off\nnext", "\nnext"),
        ("\u{1b}[31\u{1b}[32mé\u{1b}é\u{1b}", "éé"),
        ("a\u{0}\u{7}\u{7f}\u{9b}b", "ab"),
    ] {
        assert_eq!(strip_escapes(text), expected, "in {text:?}");
    }
}

/// Random mixtures of the fragments that the rules look for.
#[test]
fn no_text_causes_a_panic_or_leaves_a_control_character() {
    let parts = "\u{1b};[;];0|a | ;12:00:00; ;\n;\r;é;^;at ;File \";, line ;:;1;Error;thread '; panicked at ;\
                 Caused by: ;/;.go:;#;npm error;|;,";
    let parts: Vec<&str> = parts.split(';').collect();
    let mut random: usize = 7;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(parts[(random >> 33) % parts.len()]);
        }
        let shown = most_informative_line(&text).unwrap_or_default();
        assert!(!shown.contains(char::is_control), "in {text:?}");
    }
}
