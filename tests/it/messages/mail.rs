//! Mail by SMTP, to a real server with STARTTLS and login, and to misbehaving servers. The first test that needs
//! aiosmtpd installs it below the target folder.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::sandbox::MISSING_PROGRAM;

/// Python with aiosmtpd, installed on first use.
fn python() -> PathBuf {
    let requirements_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp/requirements.txt");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smtp");
    fs::create_dir_all(&to).expect("a folder below the target folder");
    // Only one test may install at a time. Closing the file releases the lock.
    let lock = File::create(to.join("installing")).expect("a file below the target folder");
    lock.lock().expect("the lock file can be locked");
    let (stamp, requirements) =
        (to.join("installed-by"), fs::read(&requirements_file).expect("a file of the repository"));
    let venv = to.join("venv");
    let python = venv.join("bin/python");
    if fs::read(&stamp).ok() != Some(requirements.clone()) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "-q", "--require-hashes", "-r"])
            .arg(&requirements_file));
        fs::write(stamp, requirements).expect("a file below the target folder");
    }
    python
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect(MISSING_PROGRAM);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {stderr}\n{MISSING_PROGRAM}");
}

/// A mail server, killed when dropped.
struct MailServer {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl MailServer {
    /// `mode` is `login` (requires a login over STARTTLS), `open` (STARTTLS, no login) or `tls` (TLS from the start, no
    /// login).
    fn start(mode: &str) -> MailServer {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new(python());
        command.arg(tests.join("smtp/server.py"));
        command.args(["good.pem", "good.key"].map(|name| tests.join("it/tls").join(name)));
        command.arg(mode);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect(MISSING_PROGRAM);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("the server prints its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("not a port: {line}"));
        MailServer { child, lines, port }
    }

    /// Makes the server refuse this SMTP command from now on.
    fn refuse(&mut self, step: &str) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{step}").expect("the server reads its input");
        assert_eq!(self.mail()["refused"], step, "the server confirms");
    }

    fn mail(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the server prints what it receives");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // the server may have ended
        let _ = self.child.wait();
    }
}

/// A target that is down while the file `sick` exists.
const TARGET: &str = "{name: a, command: test ! -e sick, failure_threshold: 1}";

/// A sandbox whose watchdog sends mail to this server and trusts the test authority.
fn new_sandbox(port: u16, password: &str) -> (Sandbox, Command) {
    let to = "email: ops@example.org, from: w@example.org";
    let channel = format!("{{{to}, via: 'smtp://127.0.0.1:{port}', user: w, password: '{password}'}}");
    let sandbox = Sandbox::new(&configuration(&[&channel], &[TARGET]));
    let mut command = sandbox.command(&["run"]);
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls/ca.pem");
    command.env("SSL_CERT_FILE", authority).env("MAIL_PASSWORD", "pass phrase");
    (sandbox, command)
}

#[test]
fn mail_is_sent_over_tls_with_a_login() {
    let mut server = MailServer::start("login");
    let (sandbox, command) = new_sandbox(server.port, "${MAIL_PASSWORD}");
    sandbox.write("sick", "");
    let _daemon = sandbox.start_daemon_from(command);
    let mail = server.mail();
    assert_eq!((&mail["from"], &mail["to"][0]), (&"w@example.org".into(), &"ops@example.org".into()));
    assert_eq!((&mail["user"], &mail["tls"]), (&"w".into(), &true.into()), "{mail}");
    let text = mail["text"].as_str().unwrap_or_default();
    assert!(
        text.contains("Subject: [DOWN] a on ")
            && text.contains("MIME-Version: 1.0\r\n")
            && text.contains("Probing goes on."),
        "{text}"
    );
    // HELO has a full host name or the client's address.
    assert!(mail["helo"] == "[127.0.0.1]" || mail["helo"].as_str().is_some_and(|name| name.contains('.')), "{mail}");
    fs::remove_file(sandbox.path("sick")).expect("the file exists");
    assert!(server.mail()["text"].as_str().is_some_and(|text| text.contains("Subject: [up] a on ")));
    let all = sandbox.dump() + &sandbox.read("state/state.json");
    assert!(!all.contains("pass phrase"), "{all}");
}

#[test]
fn a_wrong_password_and_an_unknown_authority_are_reported() {
    let server = MailServer::start("login");
    let (sandbox, command) = new_sandbox(server.port, "wrong pass");
    sandbox.write("sick", "");
    let _daemon = sandbox.start_daemon_from(command);
    let is_reported = || {
        let failed = sandbox.events("notify_failed").iter().any(|event| event["detail"].to_string().contains("535"));
        failed || sandbox.log().contains("cannot send to ops@example.org through 127.0.0.1")
    };
    sandbox.eventually("the failed delivery is reported", is_reported);
    assert!(!(sandbox.dump().replace(&sandbox.read("watchdog.yaml"), "")).contains("wrong pass"));

    let (other, mut command) = super::mail::new_sandbox(server.port, "${MAIL_PASSWORD}");
    command.env_remove("SSL_CERT_FILE");
    other.write("sick", "");
    let _daemon = other.start_daemon_from(command);
    other.wait_for_log("cannot send to ops@example.org");
}

/// Only a refusal of the mail's content is final; every other refusal may be temporary.
#[test]
fn a_mail_is_dropped_only_if_the_server_refuses_its_content() {
    let mut server = MailServer::start("login");
    let steps = [
        ("EHLO", "504: 5.5.2 a full name", "waiting: 1"),
        ("AUTH", "535", "waiting: 1"),
        ("MAIL", "550: 5.7.1 not from you", "waiting: 1"),
        ("RCPT", "550: 5.1.1 no such user today", "waiting: 1"),
        ("DATA", "554: 5.7.1 that is spam", "waiting: 0"),
    ];
    for (step, output, waiting) in steps {
        server.refuse(step);
        let (sandbox, _) = new_sandbox(server.port, "pass phrase");
        sandbox.write("sick", "");
        let mut tick = sandbox.command(&["--once"]);
        tick.env("SSL_CERT_FILE", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls/ca.pem"));
        tick.output().expect("the program runs");
        let status = sandbox.run(&["status"]).out;
        let is_expected = output.split(": ").chain([waiting]).all(|words| status.contains(words));
        sandbox.assert(is_expected, &format!("{step}: {status}"));
        sandbox.assert(sandbox.events("notify_failed").is_empty() == waiting.ends_with('1'), step);
        let check = sandbox.run(&["check", "--offline"]).out;
        sandbox.assert(check.contains("PROBLEM     ops@example.org through 127.0.0.1"), &check);
    }
}

#[test]
fn a_local_mail_server_needs_no_certificate_if_no_password_is_sent() {
    for (mode, scheme) in [("open", "smtp"), ("tls", "smtps")] {
        let mut server = MailServer::start(mode);
        let via = format!("{{email: ops@example.org, via: '{scheme}://127.0.0.1:{}'}}", server.port);
        let sandbox = Sandbox::new(&configuration(&[&via], &[TARGET]));
        sandbox.write("sick", "");
        let _daemon = sandbox.start_daemon(&["run"]);
        let mail = server.mail();
        assert_eq!((&mail["to"][0], &mail["tls"]), (&"ops@example.org".into(), &true.into()), "{mail}");
    }
}

#[test]
fn confusing_smtp_and_smtps_is_reported_with_the_fix() {
    for (mode, scheme, advice) in [("tls", "smtp", "use smtps://"), ("open", "smtps", "use smtp://")] {
        let server = MailServer::start(mode);
        let via = format!("{{email: ops@example.org, via: '{scheme}://127.0.0.1:{}'}}", server.port);
        let sandbox = Sandbox::new(&configuration(&[&via], &[TARGET]));
        let output = sandbox.run(&["check", "--offline", "--send"]);
        sandbox.assert(output.code == Some(1) && output.out.contains(advice), &format!("{output:?}"));
    }
}

#[test]
fn mail_to_a_misbehaving_server_stays_queued_and_delays_no_probe() {
    let behaviours = [
        Behaviour::CloseAtOnce,
        Behaviour::Silent,
        Behaviour::Drip(b"220-x\r\n".into(), b"220-x\r\n".into(), Duration::from_millis(50)),
        Behaviour::raw("554 no service\r\n"),
    ];
    for behaviour in behaviours {
        let misbehaving = Server::start(behaviour.clone());
        let (sandbox, command) = new_sandbox(misbehaving.port(), "${MAIL_PASSWORD}");
        let probed = accepting_server();
        let text = sandbox.read("watchdog.yaml")
            + &format!("  - {{name: b, http: 'http://127.0.0.1:{}/', interval: 100ms}}\n", probed.port());
        sandbox.write("watchdog.yaml", &text);
        sandbox.write("sick", "");
        let _daemon = sandbox.start_daemon_from(command);
        sandbox.eventually("the target is down", || !sandbox.events_of("a", "down").is_empty());
        let before = probed.requests().len();
        sandbox.eventually("probes continue", || probed.requests().len() > before + 10);
        sandbox.assert(sandbox.run(&["status"]).out.contains("messages waiting: 1"), &format!("{behaviour:?}"));
    }
}
