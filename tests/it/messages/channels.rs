//! What is told, in which form, to whom.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::*;
use crate::place::Said;

#[test]
fn what_a_restart_heals_is_one_message_and_what_it_does_not_are_two() {
    let (taker, backend) = (taking(), Server::start(Ways::answer("200 OK", "ok")));
    let channel = format!("webhook: http://127.0.0.1:{}/told", taker.port());
    let (port, sick) = (backend.port(), "test ! -e sick");
    let target = format!("{{name: a, command: '{sick}', restart: 'rm sick'}}");
    let watched = format!("{{name: b, http: 'http://127.0.0.1:{port}/'}}");
    let place = Place::with(&configuration(&[&channel], &[&target, &watched]));
    let _daemon = place.daemon(&["run"]);
    place.eventually("both are seen", || ["a", "b"].iter().all(|name| place.target(name)["state"] == "healthy"));
    place.write("sick", "");
    gets(&place, &taker, &["healed a"]);
    backend.turn(Ways::answer("503 Busy", "no"));
    gets(&place, &taker, &["healed a", "down b"]);
    backend.turn(Ways::answer("200 OK", "ok"));
    gets(&place, &taker, &["healed a", "down b", "up b"]);

    let all = messages(&taker);
    let keys = |message: &Value| message.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    let contract = "about at attempts class detail down_ms event host id incident late target text";
    assert!(all.iter().all(|message| keys(message) == contract), "{all:?}");
    let [healed, down, up] = &all[..] else { panic!("three messages") };
    let first = |message: &Value| message["text"].as_str().unwrap_or_default().lines().next().map(str::to_owned);
    let begins = |message: &Value, who: &str, words: &str| {
        let host = message["host"].as_str().unwrap_or_default();
        first(message).is_some_and(|line| line.starts_with(&format!("{who} on {host}{words}")))
    };
    assert!(begins(healed, "[healed] a", ": down ") && begins(down, "[DOWN] b", " since "), "{all:?}");
    assert!(begins(up, "[up] b", ": back at "), "{all:?}");
    assert_eq!((&healed["attempts"], &healed["class"], &healed["late"]), (&1.into(), &"exit".into(), &false.into()));
    assert_eq!((&down["class"], &down["attempts"], &down["about"]), (&"status".into(), &0.into(), &Value::Null));
    assert_eq!(down["incident"], place.events_of("b", "down")[0]["incident"]);
    assert!(up["down_ms"].as_u64() >= down["down_ms"].as_u64(), "{all:?}");
    let ids: std::collections::BTreeSet<&str> = all.iter().filter_map(|message| message["id"].as_str()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_command_gets_the_message_and_each_channel_only_what_it_wants() {
    let taker = taking();
    let webhook = format!("{{webhook: 'http://127.0.0.1:{}/', on: [up]}}", taker.port());
    let channels = ["{command: 'cat > told.$PPID.json; mv told.$PPID.json told.json', on: [down]}", &webhook];
    let place = Place::with(&configuration(&channels, &["{name: a, command: test ! -e sick}"]));
    place.write("sick", "");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is told", || !place.read("told.json").is_empty());
    let told: Value = serde_json::from_str(&place.read("told.json")).expect("JSON");
    assert_eq!((&told["event"], &told["target"]), (&"down".into(), &"a".into()));
    fs::remove_file(place.path("sick")).expect("it is there");
    gets(&place, &taker, &["up a"]);
}

#[test]
fn a_channel_whose_variable_is_not_set_is_off_and_nothing_else_is() {
    let taker = taking();
    let webhook = format!("webhook: http://127.0.0.1:{}/", taker.port());
    let text = configuration(&["webhook: '${GONE_URL}'", &webhook], &["{name: a, command: 'false'}"])
        + "heartbeat: 'http://127.0.0.1:1/${GONE_TOO}'\n";
    let place = Place::with(&text);
    let said = place.run(&["--once"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(said.out.matches("${GONE_URL} is not set").count(), 1, "{said:?}");
    assert!(said.out.contains("${GONE_TOO} is not set"), "{said:?}");
    let again = place.run(&["--once"]);
    assert!(!again.out.contains("is not set"), "once and not at every tick: {again:?}");
    place.run(&["--once"]);
    gets(&place, &taker, &["down a"]);
    let said = place.run(&["check", "--offline"]);
    assert!(
        said.code == Some(1) && said.out.contains("PROBLEM     webhook ${GONE_URL}: ${GONE_URL} is not set"),
        "{said:?}"
    );
}

#[test]
fn the_heartbeat_is_a_plain_ping_of_who_does_his_job() {
    let taker = taking();
    let text = format!("{DEFAULTS}heartbeat: http://me:s3cret@127.0.0.1:{}/beat/0123456789abcdef\n", taker.port())
        + "targets: [{name: a, command: 'true'}]\n";
    let place = Place::with(&text);
    place.run(&["--once"]);
    assert_eq!(taker.requests().len(), 1, "a tick pings, too");
    let daemon = place.daemon(&["run"]);
    place.eventually("a ping", || taker.requests().len() == 2);
    let request = taker.requests().pop().expect("a ping");
    assert!(request.starts_with("GET /beat/0123456789abcdef HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: basic bwu6cznjcmv0"), "{request}");
    daemon.stop();
    let all = place.story() + &place.read("state/state.json");
    let told = all.replace(&place.read("watchdog.yaml"), "");
    assert!(!told.contains("0123456789abcdef") && !told.contains("s3cret"), "{told}");
}

#[test]
fn check_says_who_is_told_and_sends_when_it_is_told_to() {
    let (taker, refusing) = (taking(), Server::start(Ways::answer("404 Not Found", "no such \u{1b}[2J hook")));
    let good = format!("webhook: http://127.0.0.1:{}/hook/0123456789abcdef", taker.port());
    let bad = format!("webhook: http://127.0.0.1:{}/x", refusing.port());
    let place = Place::with(&configuration(&[&good, "command: cat > told"], &["{name: a, command: 'true'}"]));
    let said = place.run(&["check"]);
    place.demand(said.code == Some(0) && taker.requests().is_empty(), &format!("nothing is sent: {said:?}"));
    let shown = format!("Notifies    webhook 127.0.0.1:{} (not tried; check --send)\n", taker.port());
    assert!(said.out.contains(&shown) && said.out.contains("Notifies    command cat > told (not tried"), "{said:?}");
    let said = place.run(&["check", "--send"]);
    place.demand(
        said.code == Some(0) && said.out.matches(": test message delivered").count() == 2,
        &format!("{said:?}"),
    );
    assert_eq!(kinds(&messages(&taker)), ["test -"]);
    assert!(place.read("told").contains(r#""event":"test""#));
    assert!(!said.out.contains("0123456789abcdef"), "{said:?}");

    place.configure(&configuration(&[&bad, "command: 'echo no paper; exit 3'"], &["{name: a, command: 'true'}"]));
    let said: Said = place.run(&["check", "--send"]);
    let wrong = [
        "test message not delivered: status 404: no such \\u{1b}[2J hook",
        "test message not delivered: exited 3: no paper",
    ];
    place.demand(said.code == Some(1) && wrong.iter().all(|words| said.out.contains(words)), &format!("{said:?}"));
}

#[cfg(feature = "email")]
#[test]
fn the_local_sendmail_is_handed_a_mail() {
    let channels = ["{email: 'Ops <ops@example.org>', from: watchdog@example.org}", "email: me@example.org"];
    let name = "{name: a, command: 'echo größer; false'}";
    let place = Place::with(
        &(configuration(&channels, &[name]) + "env: {PATH: './bin:/usr/bin:/bin', USER: jane@corp.example}\n"),
    );
    fs::create_dir(place.path("bin")).expect("a folder");
    let sendmail = "#!/bin/sh\nfor to; do :; done\necho \"$*\" > $to.args\ncat > $to.part && mv $to.part $to\n";
    place.write("bin/sendmail", sendmail);
    fs::set_permissions(place.path("bin/sendmail"), Permissions::from_mode(0o755)).expect("a file of ours");
    let _daemon = place.daemon(&["run"]);
    let names = ["ops@example.org", "me@example.org"];
    place.eventually("two mails", || names.iter().all(|name| !place.read(name).is_empty()));
    assert_eq!(place.read("ops@example.org.args"), "-i -f watchdog@example.org -- ops@example.org\n");
    let mail = place.read("ops@example.org");
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
    assert!(!mail.contains('\r'), "programs of this system end lines as it does: {mail:?}");
    // This account and this machine make no address.
    let args = place.read("me@example.org.args");
    assert!(args.starts_with("-i -f watchdog@") && args.ends_with(" -- me@example.org\n"), "{args}");
}

#[test]
fn a_script_is_a_line_of_a_message_and_a_message_fits_its_service() {
    let (ntfy, discord) = (taking(), taking());
    let of = |server: &Server, format| format!("{{webhook: 'http://127.0.0.1:{}/', format: {format}}}", server.port());
    let script = "cd /srv/app\n".to_owned() + &"echo this line is not for a lock screen\n".repeat(200) + "exit 1\n";
    let target = format!("{{name: a, command: 'test ! -e sick', restart: {}}}", Value::from(script));
    let place = Place::with(&configuration(&[&of(&ntfy, "ntfy"), &of(&discord, "discord")], &[&target]));
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is seen", || place.target("a")["state"] == "healthy");
    place.write("sick", "");
    for server in [&ntfy, &discord] {
        place.eventually("it is told", || !server.requests().is_empty());
        let request = server.requests().remove(0);
        let body = request.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        assert!(body.contains("`cd /srv/app…`: exit 1") && body.contains("watchdog incident last"), "{body}");
        assert!(!body.contains("lock screen") && body.len() < 1_000, "{body}");
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn the_heartbeat_waits_for_no_probe() {
    let taker = taking();
    let text = format!("heartbeat: http://127.0.0.1:{}/\n", taker.port())
        + "targets: [{name: a, command: 'true', interval: 1d}]\n";
    let place = Place::with(&text);
    let _daemon = place.daemon(&["run"]);
    place.eventually("a ping", || taker.requests().len() == 1);
    let began = Instant::now();
    place.eventually("half a minute", || began.elapsed() > Duration::from_secs(30));
    place.eventually("the next one", || taker.requests().len() == 2);
}
