//! Which messages are sent, in which format, over which channel.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::*;
use crate::sandbox::CommandOutput;

#[test]
fn an_outage_fixed_by_a_restart_is_one_message_and_any_other_is_two() {
    let (receiver, backend) = (accepting_server(), Server::start(Behaviour::answer("200 OK", "ok")));
    let channel = format!("webhook: http://127.0.0.1:{}/hook", receiver.port());
    let (port, sick) = (backend.port(), "test ! -e sick");
    let target = format!("{{name: a, command: '{sick}', restart: 'rm sick'}}");
    let without_restart = format!("{{name: b, http: 'http://127.0.0.1:{port}/'}}");
    let sandbox = Sandbox::new(&configuration(&[&channel], &[&target, &without_restart]));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both targets are healthy", || {
        ["a", "b"].iter().all(|name| sandbox.target(name)["state"] == "healthy")
    });
    sandbox.write("sick", "");
    check_received(&sandbox, &receiver, &["healed a"]);
    backend.set_behaviour(Behaviour::answer("503 Busy", "no"));
    check_received(&sandbox, &receiver, &["healed a", "down b"]);
    backend.set_behaviour(Behaviour::answer("200 OK", "ok"));
    check_received(&sandbox, &receiver, &["healed a", "down b", "up b"]);

    let all = messages(&receiver);
    let keys = |message: &Value| message.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    let contract_keys = "about at attempts class detail down_ms event host id incident late target text";
    assert!(all.iter().all(|message| keys(message) == contract_keys), "{all:?}");
    let [healed, down, up] = &all[..] else { panic!("three messages") };
    let first_line = |message: &Value| message["text"].as_str().unwrap_or_default().lines().next().map(str::to_owned);
    let begins = |message: &Value, prefix: &str, text: &str| {
        let host = message["host"].as_str().unwrap_or_default();
        first_line(message).is_some_and(|line| line.starts_with(&format!("{prefix} on {host}{text}")))
    };
    assert!(begins(healed, "[healed] a", ": down ") && begins(down, "[DOWN] b", " since "), "{all:?}");
    assert!(begins(up, "[up] b", ": back at "), "{all:?}");
    assert_eq!((&healed["attempts"], &healed["class"], &healed["late"]), (&1.into(), &"exit".into(), &false.into()));
    assert_eq!((&down["class"], &down["attempts"], &down["about"]), (&"status".into(), &0.into(), &Value::Null));
    assert_eq!(down["incident"], sandbox.events_of("b", "down")[0]["incident"]);
    assert!(up["down_ms"].as_u64() >= down["down_ms"].as_u64(), "{all:?}");
    let ids: std::collections::BTreeSet<&str> = all.iter().filter_map(|message| message["id"].as_str()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_command_receives_the_message_and_channels_filter_by_event() {
    let receiver = accepting_server();
    let webhook = format!("{{webhook: 'http://127.0.0.1:{}/', on: [up]}}", receiver.port());
    let channels = ["{command: 'cat > message.$PPID.json; mv message.$PPID.json message.json', on: [down]}", &webhook];
    let sandbox = Sandbox::new(&configuration(&channels, &["{name: a, command: test ! -e sick}"]));
    sandbox.write("sick", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the command receives the message", || !sandbox.read("message.json").is_empty());
    let message: Value = serde_json::from_str(&sandbox.read("message.json")).expect("valid JSON");
    assert_eq!((&message["event"], &message["target"]), (&"down".into(), &"a".into()));
    fs::remove_file(sandbox.path("sick")).expect("the file exists");
    check_received(&sandbox, &receiver, &["up a"]);
}

#[test]
fn a_channel_with_an_unset_variable_is_off_and_the_others_work() {
    let receiver = accepting_server();
    let webhook = format!("webhook: http://127.0.0.1:{}/", receiver.port());
    let text = configuration(&["webhook: '${GONE_URL}'", &webhook], &["{name: a, command: 'false'}"])
        + "heartbeat: 'http://127.0.0.1:1/${GONE_TOO}'\n";
    let sandbox = Sandbox::new(&text);
    let output = sandbox.run(&["--once"]);
    assert_eq!(output.code, Some(1));
    assert_eq!(output.out.matches("${GONE_URL} is not set").count(), 1, "{output:?}");
    assert!(output.out.contains("${GONE_TOO} is not set"), "{output:?}");
    let again = sandbox.run(&["--once"]);
    assert!(!again.out.contains("is not set"), "reported once and not at every tick: {again:?}");
    sandbox.run(&["--once"]);
    check_received(&sandbox, &receiver, &["down a"]);
    let output = sandbox.run(&["check", "--offline"]);
    assert!(
        output.code == Some(1) && output.out.contains("PROBLEM     webhook ${GONE_URL}: ${GONE_URL} is not set"),
        "{output:?}"
    );
}

#[test]
fn the_heartbeat_is_a_plain_get_request_from_ticks_and_daemons() {
    let receiver = accepting_server();
    let text = format!("{DEFAULTS}heartbeat: http://me:s3cret@127.0.0.1:{}/beat/0123456789abcdef\n", receiver.port())
        + "targets: [{name: a, command: 'true'}]\n";
    let sandbox = Sandbox::new(&text);
    sandbox.run(&["--once"]);
    assert_eq!(receiver.requests().len(), 1, "a tick sends a heartbeat");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("a heartbeat", || receiver.requests().len() == 2);
    let request = receiver.requests().pop().expect("a heartbeat");
    assert!(request.starts_with("GET /beat/0123456789abcdef HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: basic bwu6cznjcmv0"), "{request}");
    daemon.stop();
    let all = sandbox.dump() + &sandbox.read("state/state.json");
    let message = all.replace(&sandbox.read("watchdog.yaml"), "");
    assert!(!message.contains("0123456789abcdef") && !message.contains("s3cret"), "{message}");
}

#[test]
fn check_lists_the_channels_and_sends_test_messages_only_with_send() {
    let (receiver, refusing) =
        (accepting_server(), Server::start(Behaviour::answer("404 Not Found", "no such \u{1b}[2J hook")));
    let accepted = format!("webhook: http://127.0.0.1:{}/hook/0123456789abcdef", receiver.port());
    let refused = format!("webhook: http://127.0.0.1:{}/x", refusing.port());
    let sandbox = Sandbox::new(&configuration(&[&accepted, "command: cat > told"], &["{name: a, command: 'true'}"]));
    let output = sandbox.run(&["check"]);
    sandbox.assert(output.code == Some(0) && receiver.requests().is_empty(), &format!("nothing is sent: {output:?}"));
    let shown = format!("Notifies    webhook 127.0.0.1:{} (not tried; check --send)\n", receiver.port());
    assert!(
        output.out.contains(&shown) && output.out.contains("Notifies    command cat > told (not tried"),
        "{output:?}"
    );
    let output = sandbox.run(&["check", "--send"]);
    sandbox.assert(
        output.code == Some(0) && output.out.matches(": test message delivered").count() == 2,
        &format!("{output:?}"),
    );
    assert_eq!(kinds(&messages(&receiver)), ["test -"]);
    assert!(sandbox.read("told").contains(r#""event":"test""#));
    assert!(!output.out.contains("0123456789abcdef"), "{output:?}");

    sandbox.configure(&configuration(&[&refused, "command: 'echo no paper; exit 3'"], &["{name: a, command: 'true'}"]));
    let output: CommandOutput = sandbox.run(&["check", "--send"]);
    let failures = [
        "test message not delivered: status 404: no such \\u{1b}[2J hook",
        "test message not delivered: exited 3: no paper",
    ];
    sandbox.assert(
        output.code == Some(1) && failures.iter().all(|text| output.out.contains(text)),
        &format!("{output:?}"),
    );
}

#[cfg(feature = "email")]
#[test]
fn mail_is_handed_to_the_local_sendmail() {
    let channels = ["{email: 'Ops <ops@example.org>', from: watchdog@example.org}", "email: me@example.org"];
    let name = "{name: a, command: 'echo größer; false'}";
    let sandbox = Sandbox::new(
        &(configuration(&channels, &[name]) + "env: {PATH: './bin:/usr/bin:/bin', USER: jane@corp.example}\n"),
    );
    fs::create_dir(sandbox.path("bin")).expect("folder access");
    let sendmail = "#!/bin/sh\nfor to; do :; done\necho \"$*\" > $to.args\ncat > $to.part && mv $to.part $to\n";
    sandbox.write("bin/sendmail", sendmail);
    fs::set_permissions(sandbox.path("bin/sendmail"), Permissions::from_mode(0o755)).expect("the test owns the file");
    let _daemon = sandbox.start_daemon(&["run"]);
    let names = ["ops@example.org", "me@example.org"];
    sandbox.eventually("two mails", || names.iter().all(|name| !sandbox.read(name).is_empty()));
    assert_eq!(sandbox.read("ops@example.org.args"), "-i -f watchdog@example.org -- ops@example.org\n");
    let mail = sandbox.read("ops@example.org");
    for line in [
        "From: watchdog@example.org\n",
        "To: Ops <ops@example.org>\n",
        "Subject: [DOWN] a on ",
        "\nDate: ",
        "\nMIME-Version: 1.0\n",
    ] {
        assert!(mail.contains(line), "{line} in {mail}");
    }
    assert!(mail.contains("Message-ID: <") && mail.contains("charset=utf-8") && mail.is_ascii(), "{mail}");
    assert!(!mail.contains('\r'), "sendmail expects plain line feeds: {mail:?}");
    // The account and host names of this machine do not make a valid address.
    let args = sandbox.read("me@example.org.args");
    assert!(args.starts_with("-i -f watchdog@") && args.ends_with(" -- me@example.org\n"), "{args}");
}

#[test]
fn messages_show_one_line_of_a_script_and_fit_the_service() {
    let (ntfy, discord) = (accepting_server(), accepting_server());
    let channel =
        |server: &Server, format| format!("{{webhook: 'http://127.0.0.1:{}/', format: {format}}}", server.port());
    let script = "cd /srv/app\n".to_owned() + &"echo this line is not for a lock screen\n".repeat(200) + "exit 1\n";
    let target = format!("{{name: a, command: 'test ! -e sick', restart: {}}}", Value::from(script));
    let sandbox = Sandbox::new(&configuration(&[&channel(&ntfy, "ntfy"), &channel(&discord, "discord")], &[&target]));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("a")["state"] == "healthy");
    sandbox.write("sick", "");
    for server in [&ntfy, &discord] {
        sandbox.eventually("the message arrives", || !server.requests().is_empty());
        let request = server.requests().remove(0);
        let body = request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        assert!(body.contains("`cd /srv/app…`: exit 1") && body.contains("watchdog incident last"), "{body}");
        assert!(!body.contains("lock screen") && body.len() < 1_000, "{body}");
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn heartbeats_do_not_depend_on_probes() {
    let receiver = accepting_server();
    let text = format!("heartbeat: http://127.0.0.1:{}/\n", receiver.port())
        + "targets: [{name: a, command: 'true', interval: 1d}]\n";
    let sandbox = Sandbox::new(&text);
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("a heartbeat", || receiver.requests().len() == 1);
    let began = Instant::now();
    sandbox.eventually("half a minute has passed", || began.elapsed() > Duration::from_secs(30));
    sandbox.eventually("the next heartbeat", || receiver.requests().len() == 2);
}
