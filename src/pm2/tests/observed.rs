//! Who is who: daemons, processes, orphans, and those who only look like them.

use super::*;
use crate::outcome::{DaemonState, PriorEvidence, ProcessIdentity};
use crate::pm2::evidence::{Sign, SocketState};
use crate::pm2::ports::holder;

impl Place {
    /// A child of the daemon, and what the file of this name in `pids` says of it.
    fn child(&self, daemon: &str, file: &str) -> (Process, Process) {
        let daemon = self.daemon(&format!("{daemon} & echo $! >child"));
        let child = self.noted("child");
        fs::remove_file(self.at("child")).unwrap();
        if !file.is_empty() {
            fs::write(self.home.path().join("pids").join(file), child.pid.to_string()).unwrap();
        }
        (daemon, child)
    }

    fn evidence(&self, name: &str, known: Option<ProcessIdentity>) -> Vec<(Process, Sign)> {
        self.home.process_evidence(name, known, &self.home.daemon_evidence()).living
    }

    #[track_caller]
    fn sees(&self, name: &str, expected: &[(Process, Sign)]) {
        let mut found = self.evidence(name, None);
        found.sort_by_key(|(process, _)| process.pid);
        let mut expected = expected.to_vec();
        expected.sort_by_key(|(process, _)| process.pid);
        assert_eq!(found, expected, "{name}");
    }

    fn daemons(&self) -> Vec<Process> {
        self.home.all_daemons().proven.iter().map(|daemon| daemon.process).collect()
    }
}

#[test]
fn a_daemon_is_proven_by_account_title_and_home() {
    let place = Place::new();
    let check = |title: &str, home: &str, is_daemon: bool| {
        let process = place.start(title, &[("PM2_HOME", home)], "", |_| {});
        let expected = if is_daemon { vec![process] } else { vec![] };
        assert_eq!(place.daemons(), expected, "{title} {home}");
        assert!(process::signal(process, Signal::KILL).unwrap());
        eventually(|| !process::is_alive(process));
        assert_eq!(place.daemons(), vec![], "a dead one is none");
    };
    symlink(place.home.path(), place.at("link")).unwrap();
    let link = place.at("link").display().to_string();
    check(TITLE, place.path(), true);
    check("PM2 v5.4.3: God Daemon (/a path that is cu", place.path(), true);
    check(TITLE, &format!("{}/", place.path()), true);
    check(TITLE, &link, true);
    check(TITLE, "/tmp", false);
    check(TITLE, "", false);
    check(TITLE, "home", false);
    check("node /x/bin/pm2-runtime start app.js", place.path(), true);
    check(TITLE, &format!("{}2", place.path()), false);
    check("sh PM2 v7.0.4: God Daemon (/h)", place.path(), false);
    check("PM2 v7.0.4: something else", place.path(), false);
    check("node app.js", place.path(), false);
    if rustix::process::geteuid().is_root() {
        let other = place.start(TITLE, &[("PM2_HOME", place.path())], "", |command| {
            command.uid(65_534).current_dir("/");
        });
        assert_eq!(place.daemons(), vec![]);
        assert_eq!(process::owner(other.pid), Some(65_534));
    }
}

/// A process between its fork and its exec has all that its parent has.
#[test]
fn what_a_daemon_has_just_forked_is_no_second_daemon() {
    let place = Place::new();
    let daemon = place.daemon("(sleep 600; :) & echo $! >child");
    let child = place.noted("child");
    assert_eq!(process::title(child.pid), process::title(daemon.pid));
    assert_eq!(place.daemons(), [daemon]);
}

#[test]
fn a_daemon_whose_environment_cannot_be_read_is_proven_by_its_title_and_its_file() {
    let place = Place::new();
    let check = |title: &str, is_noted: bool, expected: (bool, bool)| {
        // Without arguments, for a title is all that a daemon has.
        let mut cat = Command::new("cat");
        cat.arg0(title).env_clear().env("OF", place.path()).env("PATH", "/usr/bin:/bin");
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = process::identify(child.id());
        let file = place.home.path().join("pm2.pid");
        fs::write(&file, if is_noted { process.pid.to_string() } else { "1".into() }).unwrap();
        let evidence = place.home.all_daemons();
        let found = (!evidence.proven.is_empty(), evidence.unclear.is_some());
        assert_eq!(found, expected, "{title}, {is_noted}: {evidence:?}");
        assert!(evidence.proven.iter().all(|daemon| daemon.process == process));
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let whole = format!("PM2 v7.0.4: God Daemon ({})", place.path());
    // As after `exec -c`: there is nothing in it, and so nothing of PM2_HOME.
    check(&whole, false, (true, false));
    check("PM2 v7.0.4: God Daemon (/elsewhere)", true, (false, false));
    let cut = &whole[..whole.len() - 3];
    check(cut, true, (true, false));
    check("PM2 v7.0.4: God Daemon (/elsewh", true, (false, false));
}

#[test]
fn a_home_at_another_place_is_named_in_what_is_to_be_typed() {
    let check = |home: &Path, expected: &str| assert_eq!(Home::at(home).call(), expected);
    check(&std::env::home_dir().unwrap().join(".pm2"), "pm2");
    check(Path::new("/srv/pm2"), "PM2_HOME=/srv/pm2 pm2");
    check(Path::new("/srv/it's mine"), r"PM2_HOME='/srv/it'\''s mine' pm2");
}

#[test]
fn the_socket_tells_whether_somebody_listens() {
    let place = Place::new();
    let socket = || place.home.socket();
    assert_eq!(socket(), SocketState::Missing);
    place.listen(true);
    assert_eq!(socket(), SocketState::Accepts);
    // Nobody ever accepts, as in a frozen daemon, and at last there is no room to wait.
    for _ in 0..5_000 {
        if rustix_connect(&place) {
            break;
        }
    }
    assert_eq!(socket(), SocketState::Accepts);
    *place.socket.lock().unwrap() = None;
    assert_eq!(socket(), SocketState::Refuses, "a socket that a daemon left behind");
    assert_eq!(Home::at(Path::new("/no/such/home")).socket(), SocketState::Missing);
    fs::write(place.at("file"), "").unwrap();
    assert_eq!(Home::at(&place.at("file")).socket(), SocketState::Missing);
    let unreadable = |path: &Path| matches!(Home::at(path).socket(), SocketState::Unreadable(_));
    assert!(unreadable(&place.at(&"long".repeat(30))));
}

/// Adds one to those who wait and stay; answers whether there was no room.
fn rustix_connect(place: &Place) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let address = SocketAddrUnix::new(place.home.path().join("rpc.sock")).unwrap();
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    // One that was closed still takes its place until it is accepted.
    connect(&socket, &address).is_err()
}

#[test]
fn a_child_of_the_daemon_is_seen_by_its_file_or_its_environment() {
    let place = Place::new();
    place.sees("sav", &[]);
    // Neither its environment nor its title says anything of PM2, as after setproctitle.
    let (_, silent) = place.child("env -i sleep 601", "sav-0.pid");
    place.sees("sav", &[(silent, Sign::PidFile)]);
    place.sees("sa", &[]);
    place.sees("sav-0", &[]);
    let known = Some(ProcessIdentity { pid: silent.pid, started: process::since_boot(silent.started) });
    fs::remove_file(place.home.path().join("pids/sav-0.pid")).unwrap();
    assert_eq!(place.evidence("sav", known), [(silent, Sign::Known)]);
    let another = known.map(|known| ProcessIdentity { started: known.started + Duration::from_secs(1), ..known });
    assert_eq!(place.evidence("sav", another), []);
    let evidence = place.home.process_evidence("sav", None, &place.home.daemon_evidence());
    assert!(evidence.nameless.contains(&silent.pid), "{evidence:?}");

    let (_, fork) = place.child("pm_id=0 name=fork sleep 601", "");
    eventually(|| place.evidence("fork", None) == [(fork, Sign::Environment)]);
    let json = r#"pm2_env='{"name":"my clus","pm_id":1,"env":{"pm_id":"x"}}'"#;
    let (daemon, cluster) = place.child(&format!("{json} sleep 601"), "");
    eventually(|| place.evidence("my clus", None) == [(cluster, Sign::Environment)]);
    place.sees("my-clus", &[]);
    // Two names that share a file: what can be read tells them apart.
    fs::write(place.home.path().join("pids/my-clus-1.pid"), cluster.pid.to_string()).unwrap();
    place.sees("my clus", &[(cluster, Sign::PidFile)]);
    place.sees("my+clus", &[]);
    place.sees("my-clus", &[]);
    assert!(process::is_alive(daemon));
    // Nothing in its environment tells whose it is.
    process::signal(silent, Signal::KILL).unwrap();
}

/// What a process leaves behind has its environment, and is no sign of it; nor is a stale file.
#[test]
fn who_has_another_parent_is_no_sign_of_life() {
    let place = Place::new();
    place.daemon("");
    let left = place.app("sav", "0");
    let stranger = place.start("node", &[], "", |_| {});
    assert!(process::is_alive(left));
    let file = place.home.path().join("pids/sav-0.pid");
    for pid in [left.pid, stranger.pid, 1, 0, std::process::id()] {
        fs::write(&file, pid.to_string()).unwrap();
        // Written long before they began: it was about another of this number.
        let before = std::time::SystemTime::now() - Duration::from_secs(600);
        File::options().append(true).open(&file).unwrap().set_modified(before).unwrap();
        place.sees("sav", &[]);
    }
    for text in ["-1", "x", ""] {
        fs::write(place.home.path().join("pids/sav-0.pid"), text).unwrap();
        place.sees("sav", &[]);
    }
    assert_eq!(place.home.observe("sav", PriorEvidence::default()).process, None);
}

/// Without a daemon the one that its file names goes on, and one that does the work, but not what either left behind.
#[test]
fn an_orphan_that_does_its_work_lives() {
    let place = Place::new();
    let app = place.app("sav", "0");
    place.sees("sav", &[]);
    fs::write(place.home.path().join("pids/sav-0.pid"), app.pid.to_string()).unwrap();
    place.sees("sav", &[(app, Sign::Orphan)]);
    let evidence = place.home.observe("sav", PriorEvidence::default());
    assert_eq!((evidence.daemon, evidence.process.map(|seen| seen.pid)), (DaemonState::Dead, Some(app.pid)));
    // Nor does a daemon that came after its own make it another's.
    place.daemon("");
    place.sees("sav", &[(app, Sign::Orphan)]);
    let evidence = place.home.observe("sav", PriorEvidence::default());
    assert!(evidence.is_orphan && evidence.trouble.is_some_and(|trouble| trouble.contains("outlived the daemon")));
    place.daemons().into_iter().for_each(|daemon| drop(process::signal(daemon, Signal::KILL)));
    eventually(|| place.daemons().is_empty());
    place.app("web", "1");
    place.sees("web", &[]);
    let web = place.start("node", &place.marks("web", "1"), "", |command| {
        hold_port(command);
    });
    place.sees("web", &[(web, Sign::Orphan)]);
    // Its file was written long before it began: it was about another.
    let file = File::options().append(true).open(place.home.path().join("pids/sav-0.pid")).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(600)).unwrap();
    place.sees("sav", &[]);
}

#[test]
fn what_is_done_is_told_of_the_busiest_and_of_the_one_that_stands_still() {
    let place = Place::new();
    assert_eq!(place.home.activity("sav"), None);
    let (idle, still) = (place.app("sav", "0"), place.app("sav", "1"));
    let activity = || place.home.activity("sav").unwrap();
    eventually(|| activity().state == 'S');
    process::signal(still, Signal::STOP).unwrap();
    eventually(|| (activity().pid, activity().state) == (still.pid, 'T'));
    // The child of an app that only waits for it, as `npm start` does.
    place.start("npm start", &place.marks("sav", "2"), "echo $$ >busy; while :; do :; done", |_| {});
    let busy = place.noted("busy");
    eventually(|| activity().pid == busy.pid && activity().share > 20);
    assert_eq!(place.home.activity("other"), None);
    process::signal(idle, Signal::KILL).unwrap();
}

#[test]
fn an_orphan_was_pm2s_and_has_no_daemon_above_it() {
    let place = Place::new();
    let other = Place::new();
    let mut port = 0;
    let mut holder = |title: &str, env: &[(&str, &str)], text: &str| {
        place.start(title, env, text, |command| port = hold_port(command))
    };
    let orphan = holder("node app.js", &place.marks("sav", "0"), "");
    let on = |port: u16| place.home.orphans_on(port).unwrap();
    let mut at = port_of(orphan);
    assert_eq!(on(at), vec![orphan]);
    assert_eq!(holder_of(at), orphan.pid);
    assert!(other.home.orphans_on(at).unwrap().is_empty());

    let mut none = |title: &str, env: &[(&str, &str)], text: &str| {
        let process = holder(title, env, text);
        at = port_of(process);
        assert_eq!(on(at), vec![], "{title} {env:?} {text}");
        process
    };
    none("node app.js", &[("PM2_HOME", place.path())], "");
    none("node app.js", &[("pm_id", "0"), ("name", "sav")], "");
    none("node app.js", &other.marks("sav", "0"), "");
    none(TITLE, &place.marks("sav", "0"), "");
    // A child of a living daemon's, and that of a daemon of another home.
    let child = format!("PM2_HOME={} pm_id=0 name=sav sleep 601 <&3 & echo $! >child", place.path());
    for home in [place.path(), other.path()] {
        let daemon = none(TITLE, &[("PM2_HOME", home)], &format!("exec 3<&0\n{child}"));
        let child = place.noted("child");
        eventually(|| process::title(child.pid).is_some_and(|title| title == "sleep 601"));
        let port = port_of(child);
        assert_eq!(on(port), vec![]);
        process::signal(daemon, Signal::KILL).unwrap();
        eventually(|| on(port) == vec![child]);
        fs::remove_file(place.at("child")).unwrap();
    }
}

#[test]
fn whoever_is_only_connected_holds_no_port() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let process = place.start("node", &place.marks("sav", "0"), "", |command| {
        command.stdin(OwnedFd::from(accepted));
    });
    assert_eq!(holder_of(port), std::process::id());
    assert_eq!(place.home.orphans_on(port).unwrap(), vec![]);
    assert!(listeners(process).is_empty());
    drop(listener);
    eventually(|| holder(port).is_none());
}

#[track_caller]
fn port_of(process: Process) -> u16 {
    let mut ports = Vec::new();
    eventually(|| {
        ports = listeners(process);
        !ports.is_empty()
    });
    assert_eq!(ports.len(), 1);
    assert!(listeners(Process { started: process.started + 1, ..process }).is_empty());
    ports[0]
}

#[track_caller]
fn holder_of(port: u16) -> u32 {
    holder(port).unwrap().0
}

#[test]
fn the_list_that_resurrect_would_take_is_read() {
    let place = Place::new();
    let write = |name: &str, text: &str| fs::write(place.home.path().join(name), text).unwrap();
    let names = || match place.home.saved() {
        SavedList::Apps(apps) => apps.into_iter().map(|app| app.name).collect::<Vec<_>>().join(" "),
        SavedList::Missing => "missing".into(),
        SavedList::Unreadable(reason) => reason.replace(place.path(), ""),
    };
    assert_eq!(names(), "missing");
    write("dump.pm2", "");
    assert_eq!(names(), "/dump.pm2 is no list of processes");
    write("dump.pm2.bak", "[{\"name\":");
    assert_eq!(names(), "/dump.pm2 is no list of processes");
    write("dump.pm2.bak", "[\n  {\n    \"name\": \"old\"\n  }\n]");
    assert_eq!(names(), "old");
    write("dump.pm2", "[\n  {\n    \"name\": \"new\"\n  }\n]");
    assert_eq!(names(), "new");
    write("dump.pm2", "[]");
    assert_eq!(names(), "");
    fs::remove_file(place.home.path().join("dump.pm2")).unwrap();
    assert_eq!(names(), "old");
    fs::create_dir(place.home.path().join("dump.pm2")).unwrap();
    assert_eq!(names(), "old");
    fs::remove_file(place.home.path().join("dump.pm2.bak")).unwrap();
    assert_eq!(names(), "/dump.pm2: is a directory");
}

#[test]
fn a_saved_list_is_handed_on_without_those_that_live() {
    let place = Place::new();
    fs::write(place.home.path().join("dump.pm2"), r#"[{"name":"a","env":{"X":1.50}},{"name":"b"},{"name":"a"}]"#)
        .unwrap();
    let without = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        String::from_utf8(place.home.saved_without(&names).unwrap()).unwrap()
    };
    assert_eq!(without(&["b"]), r#"[{"name":"a","env":{"X":1.50}},{"name":"a"}]"#, "to the letter");
    assert_eq!(without(&["a", "b"]), "[]");
    fs::write(place.home.path().join("dump.pm2"), "{").unwrap();
    assert!(place.home.saved_without(&[]).is_err());
}

#[test]
fn logs_are_those_of_the_list_else_of_the_living_else_the_usual_and_none_from_before() {
    let place = Place::new();
    fs::create_dir(place.home.path().join("logs")).unwrap();
    let usual = ["my-app-out.log", "my-app-error-3.log", "my-app-out-x.log", "my-app-out.log.1", "my-app2-out.log"];
    let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
    usual.iter().for_each(|name| write(place.home.path().join("logs").join(name), "usual\n"));
    let logs = |apps: &[App], since: Option<ProcessIdentity>| {
        let found = place.home.logs("my app", apps, since);
        let mut names: Vec<String> = found.iter().map(|log| log.name.clone()).collect();
        names.sort();
        (names.join(" "), last_words(&found))
    };
    let usual = Some("usual".to_owned());
    assert_eq!(logs(&[], None), ("my-app-error-3.log my-app-out.log".into(), usual));
    write(place.home.path().join("pm2.log"), "PM2 log: Error: of another\n");
    write(place.at("out"), "listening\n\u{1b}[31mred\u{1b}[39m\n");
    write(place.at("err"), "Error: old\n    at Module._load (node:internal/modules/cjs/loader:1104:12)\n");
    let in_place = |name: &str| place.at(name).display().to_string();
    let list = format!(
        r#"[{{"name":"my app","pm_out_log_path":"{}","pm_err_log_path":"{}"}},{{"name":"x","pm_out_log_path":"/x"}}]"#,
        in_place("out"),
        in_place("err")
    );
    let apps = parse_list(list.as_bytes()).unwrap();
    assert_eq!(logs(&apps, None), ("err out pm2.log".into(), Some("Error: old".into())));
    // What was written last before the process began is not about it.
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3_600);
    File::options().append(true).open(place.at("err")).unwrap().set_modified(hour_ago).unwrap();
    let began = clock::now().offset_by(-600_000);
    let since = Some(ProcessIdentity { pid: 1, started: began });
    assert_eq!(logs(&apps, since), ("out pm2.log".into(), Some("red".into())));
    let (out, err) = (in_place("out"), in_place("missing"));
    let mut env = place.marks("my app", "0").to_vec();
    env.extend([("pm_out_log_path", out.as_str()), ("pm_err_log_path", err.as_str())]);
    let living = place.start("node", &env, "", |_| {});
    let since = Some(ProcessIdentity { pid: living.pid, started: began });
    assert_eq!(logs(&[], since).0, "out pm2.log");
}
