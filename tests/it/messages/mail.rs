//! Mail by SMTP, to a real server with STARTTLS and a login, and to servers that misbehave. aiosmtpd is installed below
//! the target folder by the first test that needs it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::place::NEEDED;

/// Python with aiosmtpd; installs it first where that was not done yet.
fn python() -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp/requirements.txt");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("smtp");
    fs::create_dir_all(&to).expect("a folder below the target folder");
    // Two tests must not install over each other. The lock ends with the file.
    let lock = File::create(to.join("installing")).expect("a file below the target folder");
    lock.lock().expect("a lock on a file of ours");
    let (stamp, wanted) = (to.join("installed-by"), fs::read(&from).expect("a file of the repository"));
    let venv = to.join("venv");
    let python = venv.join("bin/python");
    if fs::read(&stamp).ok() != Some(wanted.clone()) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "--require-hashes", "-r"]).arg(&from));
        fs::write(stamp, wanted).expect("a file below the target folder");
    }
    python
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect(NEEDED);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}\n{NEEDED}");
}

/// A mail server; ended when dropped.
struct MailServer {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl MailServer {
    /// Wants a login over STARTTLS (`login`), or nothing, with STARTTLS (`open`) or with TLS at once (`tls`).
    fn start(way: &str) -> MailServer {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new(python());
        command.arg(tests.join("smtp/server.py"));
        command.args(["good.pem", "good.key"].map(|name| tests.join("it/tls").join(name)));
        command.arg(way);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect(NEEDED);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("the server says its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("a port: {line}"));
        MailServer { child, lines, port }
    }

    /// From now on it refuses this.
    fn refuse(&mut self, step: &str) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{step}").expect("the server reads");
        assert_eq!(self.mail()["refused"], step, "it has read that");
    }

    /// Waits for the next mail.
    fn mail(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the server says what it takes");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Down as soon as there is a file.
const TARGET: &str = "{name: a, command: test ! -e sick, failure_threshold: 1}";

/// A place whose watchdog tells by this mail server, and trusts the authority of the tests.
fn place(port: u16, password: &str) -> (Place, Command) {
    let to = "email: ops@example.org, from: w@example.org";
    let channel = format!("{{{to}, via: 'smtp://127.0.0.1:{port}', user: w, password: '{password}'}}");
    let place = Place::with(&configuration(&[&channel], &[TARGET]));
    let mut command = place.command(&["run"]);
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls/ca.pem");
    command.env("SSL_CERT_FILE", authority).env("MAIL_PASSWORD", "pass phrase");
    (place, command)
}

#[test]
fn mail_goes_over_tls_with_a_login() {
    let mut server = MailServer::start("login");
    let (place, command) = place(server.port, "${MAIL_PASSWORD}");
    place.write("sick", "");
    let _daemon = place.daemon_by(command);
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
    // A full name, or the address that it came from.
    assert!(mail["helo"] == "[127.0.0.1]" || mail["helo"].as_str().is_some_and(|name| name.contains('.')), "{mail}");
    fs::remove_file(place.path("sick")).expect("it is there");
    assert!(server.mail()["text"].as_str().is_some_and(|text| text.contains("Subject: [up] a on ")));
    let all = place.story() + &place.read("state/state.json");
    assert!(!all.contains("pass phrase"), "{all}");
}

#[test]
fn a_wrong_password_and_an_unknown_authority_are_told() {
    let server = MailServer::start("login");
    let (place, command) = place(server.port, "wrong pass");
    place.write("sick", "");
    let _daemon = place.daemon_by(command);
    let is_told = || {
        let failed = place.events("notify_failed").iter().any(|event| event["detail"].to_string().contains("535"));
        failed || place.log().contains("cannot send to ops@example.org through 127.0.0.1")
    };
    place.eventually("it is told", is_told);
    assert!(!(place.story().replace(&place.read("watchdog.yaml"), "")).contains("wrong pass"));

    let (other, mut command) = super::mail::place(server.port, "${MAIL_PASSWORD}");
    command.env_remove("SSL_CERT_FILE");
    other.write("sick", "");
    let _daemon = other.daemon_by(command);
    other.told("cannot send to ops@example.org");
}

/// Only the answer to the mail itself is about this mail; all others may be over tomorrow.
#[test]
fn a_mail_is_given_up_only_if_the_server_refuses_the_mail_itself() {
    let mut server = MailServer::start("login");
    let steps = [
        ("EHLO", "504: 5.5.2 a full name", "waiting: 1"),
        ("AUTH", "535", "waiting: 1"),
        ("MAIL", "550: 5.7.1 not from you", "waiting: 1"),
        ("RCPT", "550: 5.1.1 no such user today", "waiting: 1"),
        ("DATA", "554: 5.7.1 that is spam", "waiting: 0"),
    ];
    for (step, said, waiting) in steps {
        server.refuse(step);
        let (place, _) = place(server.port, "pass phrase");
        place.write("sick", "");
        let mut tick = place.command(&["--once"]);
        tick.env("SSL_CERT_FILE", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls/ca.pem"));
        tick.output().expect("it runs");
        let status = place.run(&["status"]).out;
        let is_right = said.split(": ").chain([waiting]).all(|words| status.contains(words));
        place.demand(is_right, &format!("{step}: {status}"));
        place.demand(place.events("notify_failed").is_empty() == waiting.ends_with('1'), step);
        let check = place.run(&["check", "--offline"]).out;
        place.demand(check.contains("PROBLEM     ops@example.org through 127.0.0.1"), &check);
    }
}

#[test]
fn a_mail_server_of_this_machine_needs_no_certificate_where_no_password_is_at_stake() {
    for (way, scheme) in [("open", "smtp"), ("tls", "smtps")] {
        let mut server = MailServer::start(way);
        let via = format!("{{email: ops@example.org, via: '{scheme}://127.0.0.1:{}'}}", server.port);
        let place = Place::with(&configuration(&[&via], &[TARGET]));
        place.write("sick", "");
        let _daemon = place.daemon(&["run"]);
        let mail = server.mail();
        assert_eq!((&mail["to"][0], &mail["tls"]), (&"ops@example.org".into(), &true.into()), "{mail}");
    }
}

#[test]
fn who_mistakes_smtp_for_smtps_is_asked_so() {
    for (way, scheme, asked) in [("tls", "smtp", "use smtps://"), ("open", "smtps", "use smtp://")] {
        let server = MailServer::start(way);
        let via = format!("{{email: ops@example.org, via: '{scheme}://127.0.0.1:{}'}}", server.port);
        let place = Place::with(&configuration(&[&via], &[TARGET]));
        let said = place.run(&["check", "--offline", "--send"]);
        place.demand(said.code == Some(1) && said.out.contains(asked), &format!("{said:?}"));
    }
}

#[test]
fn servers_that_misbehave_get_the_mail_once_they_behave() {
    let ways = [
        Ways::CloseAtOnce,
        Ways::Silent,
        Ways::Drip(b"220-x\r\n".into(), b"220-x\r\n".into(), Duration::from_millis(50)),
        Ways::raw("554 no service\r\n"),
    ];
    for way in ways {
        let bad = Server::start(way.clone());
        let (place, command) = place(bad.port(), "${MAIL_PASSWORD}");
        let seen = taking();
        let with = place.read("watchdog.yaml")
            + &format!("  - {{name: b, http: 'http://127.0.0.1:{}/', interval: 100ms}}\n", seen.port());
        place.write("watchdog.yaml", &with);
        place.write("sick", "");
        let _daemon = place.daemon_by(command);
        place.eventually("it is down", || !place.events_of("a", "down").is_empty());
        let before = seen.requests().len();
        place.eventually("looks go on", || seen.requests().len() > before + 10);
        place.demand(place.run(&["status"]).out.contains("messages waiting: 1"), &format!("{way:?}"));
    }
}
