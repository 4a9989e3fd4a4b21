//! The conclusions from the signs, without any process: the state of the daemon and of a process, the plan of a repair,
//! the reason for a reset.

use super::*;
use crate::outcome::DaemonState;
use crate::pm2::evidence::{Daemon, DaemonKind, ProcessEvidence, Sign, SocketState};
use crate::pm2::plan::RepairFacts;

fn process(pid: u32) -> Process {
    Process { pid, started: u64::from(pid) }
}

/// Parses `7`, `7 stopped`, `7 starting` and `7 foreground`; several are separated by commas.
fn daemons(text: &str) -> Vec<Daemon> {
    let daemon = |text: &str| {
        let (pid, how) = text.split_once(' ').unwrap_or((text, ""));
        Daemon {
            process: process(pid.parse().unwrap()),
            kind: if how == "foreground" { DaemonKind::Foreground } else { DaemonKind::Detached },
            is_stopped: how == "stopped",
            is_starting: how == "starting",
        }
    };
    text.split(", ").filter(|text| !text.is_empty()).map(daemon).collect()
}

/// `socket` is `accepts`, `silent`, `refuses`, `missing` or `denied`, and may end in ` unclear` for an unproven daemon.
fn daemon(socket: &str, proven: &str) -> DaemonEvidence {
    let (socket, unidentified) = match socket.split_once(" unclear") {
        Some((socket, _)) => (socket, Some("a daemon (pid 9) may be it".to_owned())),
        None => (socket, None),
    };
    DaemonEvidence {
        socket: match socket {
            "accepts" | "silent" => SocketState::Accepts,
            "refuses" => SocketState::Refuses,
            "missing" => SocketState::Missing,
            other => SocketState::Unreadable(other.to_owned()),
        },
        proven: daemons(proven),
        unidentified,
        is_silent: socket == "silent",
    }
}

#[test]
fn the_daemon_is_dead_only_if_no_sign_speaks_against_it() {
    #[track_caller]
    fn check(socket: &str, proven: &str, expected: DaemonState, trouble: &str) {
        let evidence = daemon(socket, proven);
        assert_eq!(evidence.state(), expected, "{socket}; {proven}");
        let found = evidence.trouble("~/.pm2", "pm2").unwrap_or_default();
        assert!(found.starts_with(trouble) && found.is_empty() == trouble.is_empty(), "{socket}; {proven}: {found}");
    }
    check("accepts", "7", DaemonState::Alive, "");
    check("accepts", "", DaemonState::Alive, "");
    check("accepts", "7, 8", DaemonState::Alive, "");
    check("accepts", "7 stopped, 8", DaemonState::Alive, "");
    check("accepts", "7 foreground", DaemonState::Alive, "");
    check("accepts unclear", "", DaemonState::Alive, "");
    let silent = "PM2's daemon (pid 7) accepts connections but has not answered for 10 s. Fix: kill -9 7, then";
    check("silent", "7", DaemonState::Deaf, silent);
    check("accepts", "7 stopped", DaemonState::Deaf, "PM2's daemon (pid 7) is stopped by a signal. Fix: kill -CONT 7");
    let missing =
        "PM2's daemon (pid 7) is running, but its socket ~/.pm2/rpc.sock is missing: pm2 commands do not reach it";
    check("missing", "7", DaemonState::Deaf, missing);
    check("refuses", "7", DaemonState::Deaf, "PM2's daemon (pid 7) is running, but its socket ~/.pm2/rpc.sock refuses");
    check("missing", "7, 8 starting", DaemonState::Deaf, "PM2's daemon (pid 8) is running");
    check("missing", "7 starting", DaemonState::Unknown, "");
    check("missing", "", DaemonState::Dead, "");
    check("refuses", "", DaemonState::Dead, "");
    check("refuses unclear", "", DaemonState::Unknown, "a daemon (pid 9) may be it");
    check("missing unclear", "", DaemonState::Unknown, "a daemon (pid 9) may be it");
    check("denied", "", DaemonState::Unknown, "denied");
    check("denied", "7", DaemonState::Unknown, "denied");
    let foreground = daemon("missing", "7 foreground").trouble("~/.pm2", "pm2").unwrap();
    assert!(foreground.ends_with("then start it the way it was started before"), "{foreground}");
    assert!(daemon("missing", "7").lacks_socket() && daemon("refuses", "7").lacks_socket());
    for (socket, proven) in [("silent", "7"), ("missing", "7 stopped"), ("missing", ""), ("accepts", "7 stopped")] {
        assert!(!daemon(socket, proven).lacks_socket(), "{socket} {proven}");
    }
    // Silence belongs to one daemon process and is not inherited by another.
    for (before, now, expected) in [("7", "7", true), ("7", "8", false), ("7", "7, 8", false), ("", "", true)] {
        let now = daemon("accepts", now).inherit_silence(&daemon("silent", before));
        assert_eq!(now.is_silent, expected, "{before}, then {now:?}");
    }
}

#[test]
fn any_sign_means_alive_and_unreadable_processes_mean_unknown() {
    let check = |living: &[(u32, Sign)], unreadable: Option<&str>, expected: ProcessState| {
        let living = living.iter().map(|(pid, sign)| (process(*pid), *sign)).collect();
        let evidence = ProcessEvidence {
            living,
            ids: Vec::new(),
            unidentified_children: vec![9],
            unreadable: unreadable.map(str::to_owned),
        };
        assert_eq!(evidence.state(), expected);
    };
    check(&[], None, ProcessState::Gone);
    check(&[], Some("no /proc"), ProcessState::Unknown("no /proc".into()));
    for sign in [Sign::PidFile, Sign::Environment, Sign::Known, Sign::List, Sign::Orphan] {
        check(&[(4, sign)], Some("no /proc"), ProcessState::Alive(process(4)));
    }
    check(&[(4, Sign::PidFile), (6, Sign::PidFile), (5, Sign::List)], None, ProcessState::Alive(process(6)));
}

/// The facts for a plan: the socket and the daemons, the names in the list, the living processes, the saved names.
fn facts(socket: &str, proven: &str, listed: Option<&str>, living: &[(u32, Sign)], saved: Option<&str>) -> RepairFacts {
    let apps = |names: &str| {
        let names = names.split(' ').filter(|name| !name.is_empty());
        let entry = |(id, name)| serde_json::json!({"name": name, "pm_id": id});
        parse_list(serde_json::Value::from_iter((0..).zip(names).map(entry)).to_string().as_bytes()).unwrap()
    };
    RepairFacts {
        home: "/h".into(),
        pm2_command: "PM2_HOME=/h pm2".into(),
        daemon: daemon(socket, proven),
        listed: listed.map(apps),
        list_error: listed.is_none().then(|| "pm2 jlist exited with 3".into()),
        ids_at_rest: Vec::new(),
        may_stay_stopped: false,
        process: ProcessEvidence {
            living: living.iter().map(|(pid, sign)| (process(*pid), *sign)).collect(),
            ..ProcessEvidence::default()
        },
        saved: saved.map_or(SavedList::Missing, |names| SavedList::Apps(apps(names))),
        survivors: Vec::new(),
    }
}

#[track_caller]
fn check_plan(config: bool, facts: &RepairFacts, expected: Result<&str, &str>) {
    let managed = ManagedProcess {
        process: "sav".into(),
        config: config.then(|| "/a/eco.js".into()),
        env: config.then(|| "production".into()),
        ports: Vec::new(),
    };
    let shown = |steps: Vec<RepairStep>| {
        let ids =
            |step: &RepairStep| if let RepairStep::Restart(ids) = step { format!(" {ids:?}") } else { String::new() };
        steps.iter().map(|step| step.describe(&managed) + &ids(step)).collect::<Vec<_>>().join("; ")
    };
    match (plan_repair(&managed, facts).map(shown), expected) {
        (Ok(steps), Ok(expected)) => assert_eq!(steps, expected),
        (Err(why), Err(expected)) => assert!(why.starts_with(expected), "{why}"),
        (found, expected) => panic!("{found:?}, not {expected:?}"),
    }
}

#[test]
fn a_plan_starts_only_the_process_and_never_twice() {
    let file = "pm2 start /a/eco.js --only sav --env production";
    let none = &[][..];
    // In the list: restarted by its ids, not by a name that a namespace may share.
    let alive = |listed, living, saved| facts("accepts", "7", listed, living, saved);
    check_plan(false, &alive(Some("x sav sav"), none, None), Ok("pm2 restart sav [1, 2]"));
    check_plan(true, &alive(Some("sav"), none, Some("sav")), Ok(&format!("pm2 restart sav [0]; {file}")));
    let resting = |at_rest| RepairFacts { ids_at_rest: at_rest, ..alive(Some("sav sav"), none, Some("sav")) };
    check_plan(false, &resting(vec![1]), Ok("pm2 restart sav [0]"));
    check_plan(true, &resting(vec![0, 1]), Err("sav is deliberately at rest"));
    // Not in the list: started from the disk.
    check_plan(false, &alive(Some("x"), none, Some("sav x")), Ok("pm2 resurrect"));
    check_plan(true, &alive(Some("x"), none, Some("sav x")), Ok(&format!("pm2 resurrect; {file}")));
    check_plan(true, &alive(Some(""), none, Some("x")), Ok(file));
    check_plan(false, &alive(Some(""), none, Some("x")), Err("sav is not in PM2's saved list, and no config is set"));
    check_plan(false, &alive(Some(""), none, None), Err("PM2 has no saved list, and no config is set"));
    // Not in the list but alive: under another daemon, or left behind.
    let living = &[(4, Sign::PidFile)][..];
    check_plan(true, &alive(Some("x"), living, Some("sav")), Err("sav (pid 4) is running but is not in PM2's list"));
    // Without a list: only the pid files show ids.
    let mut unlisted = alive(None, living, Some("sav"));
    check_plan(true, &unlisted, Err("PM2's list is not available: pm2 jlist exited with 3"));
    unlisted.process.ids = vec![5, 6];
    check_plan(true, &unlisted, Ok("pm2 restart sav [5, 6]"));
    // Without a daemon.
    let dead = |living, saved| facts("missing", "", None, living, saved);
    check_plan(false, &dead(none, Some("sav")), Ok("pm2 resurrect"));
    check_plan(true, &dead(none, Some("sav")), Ok(&format!("pm2 resurrect; {file}")));
    check_plan(true, &dead(none, Some("x")), Ok(&format!("pm2 resurrect; {file}")));
    check_plan(false, &dead(none, Some("x")), Err("sav is not in PM2's saved list"));
    check_plan(true, &dead(none, None), Ok(file));
    let orphan = &[(4, Sign::Orphan)][..];
    let outlived = "PM2's daemon is dead, and sav (pid 4) outlived it. A repair would start a second copy. Fix: kill \
                    -9 4, then PM2_HOME=/h pm2 resurrect";
    check_plan(true, &dead(orphan, Some("sav")), Err(outlived));
    let outlived = RepairFacts { survivors: vec!["x".into()], ..dead(none, Some("sav x")) };
    check_plan(false, &outlived, Ok("pm2 resurrect, except x"));
    check_plan(true, &RepairFacts { survivors: vec!["x".into()], ..dead(none, Some("x")) }, Ok(file));
    // A daemon that no pm2 command reaches still restarts a process that ends.
    let deaf = |living, saved| facts("missing", "7", None, living, saved);
    check_plan(true, &deaf(living, Some("sav")), Ok("end sav so that PM2's daemon restarts it"));
    check_plan(
        true,
        &deaf(none, Some("sav")),
        Err("PM2's daemon (pid 7) is running, but its socket /h/rpc.sock is missing"),
    );
    check_plan(true, &deaf(living, None), Ok("end sav so that PM2's daemon restarts it"));
    let unsaved = RepairFacts { may_stay_stopped: true, ..deaf(living, None) };
    check_plan(true, &unsaved, Err("PM2's daemon (pid 7) is running, but its socket"));
    for saved in [r#""autorestart":false"#, r#""stop_exit_codes":[0]"#] {
        let apps = parse_list(format!("[{{\"name\":\"sav\",{saved}}}]").as_bytes()).unwrap();
        let once = RepairFacts { saved: SavedList::Apps(apps), ..deaf(living, None) };
        check_plan(true, &once, Err("PM2's daemon (pid 7) is running, but its socket"));
    }
    for (socket, proven, why) in [
        ("silent", "7", "PM2's daemon (pid 7) accepts connections but has not answered"),
        ("accepts", "7 stopped", "PM2's daemon (pid 7) is stopped"),
        ("denied", "7", "denied"),
        ("missing unclear", "", "a daemon (pid 9) may be it"),
        ("missing", "7 starting", "PM2's daemon is starting"),
    ] {
        check_plan(true, &facts(socket, proven, None, living, Some("sav")), Err(why));
    }
}

#[test]
fn a_reset_needs_a_reason_and_a_recoverable_process() {
    let check = |facts: &RepairFacts, ports: &[u16], orphans: &[u32], expected: Result<ResetReason, &str>| {
        let managed = ManagedProcess { process: "sav".into(), config: None, env: None, ports: ports.to_vec() };
        let orphans: Vec<Process> = orphans.iter().map(|pid| process(*pid)).collect();
        let found = crate::pm2::reset_reason::decide(&managed, facts, &orphans);
        assert_eq!(found, expected.map_err(str::to_owned), "{facts:?}");
    };
    let of = |socket, proven, saved| facts(socket, proven, Some(""), &[], saved);
    let lost = "sav could not be started again: PM2 has no saved list (pm2 save), and no config is set";
    check(&of("missing", "", Some("sav")), &[], &[], Err("PM2 is not running"));
    check(&of("missing", "", Some("sav")), &[80], &[], Err("PM2 is not running, and no orphan is using port 80"));
    let several = "PM2 is not running, and no orphan is using port 80 or 81";
    check(&of("missing", "", Some("sav")), &[80, 81], &[], Err(several));
    check(&of("missing", "", None), &[80], &[4], Err(lost));
    check(&of("missing", "", Some("sav")), &[80], &[4], Ok(ResetReason::Orphan(process(4))));
    check(&of("accepts", "7", None), &[], &[], Err("PM2 answers, with one daemon"));
    check(&of("accepts", "7", None), &[80], &[4], Ok(ResetReason::Orphan(process(4))));
    let mut listed = of("accepts", "7", None);
    listed.listed = Some(parse_list(br#"[{"pid":4,"name":"other"}]"#).unwrap());
    check(&listed, &[80], &[4], Err("PM2 answers, with one daemon, and no orphan is using port 80"));
    for (socket, proven) in [("silent", "7"), ("missing", "7"), ("accepts", "7 stopped")] {
        check(&of(socket, proven, None), &[], &[], Err(lost));
        check(&of(socket, proven, Some("sav")), &[80], &[], Ok(ResetReason::Deaf));
        check(&of(socket, proven, Some("sav")), &[80], &[4], Ok(ResetReason::Deaf));
    }
    check(&of("silent", "", Some("sav")), &[], &[], Err("no process is proven to be PM2's daemon"));
    check(&of("accepts", "7, 8", None), &[], &[], Err(lost));
    check(&of("accepts", "7, 8", Some("sav")), &[], &[], Ok(ResetReason::MultipleDaemons(2)));
    check(&of("denied", "7", Some("sav")), &[80], &[4], Err("denied"));
    let foreground = "PM2 (pid 7) runs in the foreground: no pm2 command could start it again";
    for socket in ["silent", "missing", "accepts"] {
        check(&of(socket, "7 foreground", Some("sav")), &[80], &[4], Err(foreground));
    }
    let mut gone = of("silent", "7", None);
    let entry = br#"[{"name":"sav","pm_exec_path":"/","exec_interpreter":"/gone/bin/node"}]"#;
    gone.saved = SavedList::Apps(parse_list(entry).unwrap());
    let missing = "sav could not be started again: the saved list starts sav with /gone/bin/node, which does not \
                   exist, and no config is set";
    check(&gone, &[], &[], Err(missing));
}
