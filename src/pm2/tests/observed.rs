//! The identification of daemons, processes and orphans among real processes, and of others that only resemble them.

use super::*;
use crate::outcome::{DaemonState, PriorEvidence, ProcessIdentity};
use crate::pm2::evidence::{Sign, SocketState};
use crate::pm2::ports::find_listener;

impl Pm2Fixture {
    /// Starts a daemon with a child that runs this command; the file of this name in `pids` gets the child's pid.
    fn start_child(&self, command: &str, file: &str) -> (Process, Process) {
        let daemon = self.start_daemon(&format!("{command} & echo $! >child"));
        let child = self.process_in_file("child");
        fs::remove_file(self.file("child")).unwrap();
        if !file.is_empty() {
            fs::write(self.home.path().join("pids").join(file), child.pid.to_string()).unwrap();
        }
        (daemon, child)
    }

    fn evidence(&self, name: &str, known: Option<ProcessIdentity>) -> Vec<(Process, Sign)> {
        self.home.observe_process(name, known, &self.home.observe_daemon()).living
    }

    #[track_caller]
    fn check_evidence(&self, name: &str, expected: &[(Process, Sign)]) {
        let mut found = self.evidence(name, None);
        found.sort_by_key(|(process, _)| process.pid);
        let mut expected = expected.to_vec();
        expected.sort_by_key(|(process, _)| process.pid);
        assert_eq!(found, expected, "{name}");
    }

    fn daemons(&self) -> Vec<Process> {
        self.home.observe_all_daemons().proven.iter().map(|daemon| daemon.process).collect()
    }
}

#[test]
fn a_daemon_is_proven_by_account_title_and_home() {
    let fixture = Pm2Fixture::new();
    let check = |title: &str, home: &str, is_daemon: bool| {
        let process = fixture.start(title, &[("PM2_HOME", home)], "", |_| {});
        let expected = if is_daemon { vec![process] } else { vec![] };
        assert_eq!(fixture.daemons(), expected, "{title} {home}");
        assert!(process::send_signal(process, Signal::KILL).unwrap());
        eventually(|| !process::is_alive(process));
        assert_eq!(fixture.daemons(), vec![], "a dead process is not a daemon");
    };
    symlink(fixture.home.path(), fixture.file("link")).unwrap();
    let link = fixture.file("link").display().to_string();
    check(TITLE, fixture.home_path(), true);
    check("PM2 v5.4.3: God Daemon (/a path that is cu", fixture.home_path(), true);
    check(TITLE, &format!("{}/", fixture.home_path()), true);
    check(TITLE, &link, true);
    check(TITLE, "/tmp", false);
    check(TITLE, "", false);
    check(TITLE, "home", false);
    check("node /x/bin/pm2-runtime start app.js", fixture.home_path(), true);
    check(TITLE, &format!("{}2", fixture.home_path()), false);
    check("sh PM2 v7.0.4: God Daemon (/h)", fixture.home_path(), false);
    check("PM2 v7.0.4: something else", fixture.home_path(), false);
    check("node app.js", fixture.home_path(), false);
    if rustix::process::geteuid().is_root() {
        let other = fixture.start(TITLE, &[("PM2_HOME", fixture.home_path())], "", |command| {
            command.uid(65_534).current_dir("/");
        });
        assert_eq!(fixture.daemons(), vec![]);
        assert_eq!(process::owner(other.pid), Some(65_534));
    }
}

/// Between fork and exec a process has its parent's title and environment.
#[test]
fn a_process_that_a_daemon_has_just_forked_is_not_a_second_daemon() {
    let fixture = Pm2Fixture::new();
    let daemon = fixture.start_daemon("(sleep 600; :) & echo $! >child");
    let child = fixture.process_in_file("child");
    assert_eq!(process::command_line(child.pid), process::command_line(daemon.pid));
    assert_eq!(fixture.daemons(), [daemon]);
}

#[test]
fn a_daemon_with_an_unreadable_environment_is_proven_by_its_title_and_pid_file() {
    let fixture = Pm2Fixture::new();
    let check = |title: &str, is_noted: bool, expected: (bool, bool)| {
        // `cat` needs no arguments, so its command line is only the title, as with a daemon.
        let mut cat = Command::new("cat");
        cat.arg0(title).env_clear().env("OF", fixture.home_path()).env("PATH", "/usr/bin:/bin");
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = process::identify(child.id());
        let file = fixture.home.path().join("pm2.pid");
        fs::write(&file, if is_noted { process.pid.to_string() } else { "1".into() }).unwrap();
        let evidence = fixture.home.observe_all_daemons();
        let found = (!evidence.proven.is_empty(), evidence.unidentified.is_some());
        assert_eq!(found, expected, "{title}, {is_noted}: {evidence:?}");
        assert!(evidence.proven.iter().all(|daemon| daemon.process == process));
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let whole = format!("PM2 v7.0.4: God Daemon ({})", fixture.home_path());
    // The environment has no PM2_HOME, as after `exec -c`.
    check(&whole, false, (true, false));
    check("PM2 v7.0.4: God Daemon (/elsewhere)", true, (false, false));
    let cut = &whole[..whole.len() - 3];
    check(cut, true, (true, false));
    check("PM2 v7.0.4: God Daemon (/elsewh", true, (false, false));
}

#[test]
fn the_command_to_type_names_a_home_other_than_the_default() {
    let check = |home: &Path, expected: &str| assert_eq!(Home::at(home).pm2_command(), expected);
    check(&std::env::home_dir().unwrap().join(".pm2"), "pm2");
    check(Path::new("/srv/pm2"), "PM2_HOME=/srv/pm2 pm2");
    check(Path::new("/srv/it's mine"), r"PM2_HOME='/srv/it'\''s mine' pm2");
}

#[test]
fn the_socket_shows_whether_a_process_listens() {
    let fixture = Pm2Fixture::new();
    let socket = || fixture.home.check_socket();
    assert_eq!(socket(), SocketState::Missing);
    fixture.listen(true);
    assert_eq!(socket(), SocketState::Accepts);
    // Nobody accepts, as with a frozen daemon, until the backlog is full.
    for _ in 0..5_000 {
        if fill_backlog(&fixture) {
            break;
        }
    }
    assert_eq!(socket(), SocketState::Accepts);
    *fixture.socket.lock().unwrap() = None;
    // The socket file outlived its daemon. A child that another test is starting may hold the socket for a moment.
    eventually(|| socket() == SocketState::Refuses);
    assert_eq!(Home::at(Path::new("/no/such/home")).check_socket(), SocketState::Missing);
    fs::write(fixture.file("file"), "").unwrap();
    assert_eq!(Home::at(&fixture.file("file")).check_socket(), SocketState::Missing);
    let unreadable = |path: &Path| matches!(Home::at(path).check_socket(), SocketState::Unreadable(_));
    assert!(unreadable(&fixture.file(&"long".repeat(30))));
}

/// Adds a connection to the backlog; returns whether the backlog was full.
fn fill_backlog(fixture: &Pm2Fixture) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let address = SocketAddrUnix::new(fixture.home.path().join("rpc.sock")).unwrap();
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    // A closed connection stays in the backlog until it is accepted.
    connect(&socket, &address).is_err()
}

#[test]
fn a_child_of_the_daemon_is_identified_by_its_pid_file_or_its_environment() {
    let fixture = Pm2Fixture::new();
    fixture.check_evidence("sav", &[]);
    // Neither its environment nor its title mentions PM2, as after setproctitle.
    let (_, silent) = fixture.start_child("env -i sleep 601", "sav-0.pid");
    fixture.check_evidence("sav", &[(silent, Sign::PidFile)]);
    fixture.check_evidence("sa", &[]);
    fixture.check_evidence("sav-0", &[]);
    let known = Some(ProcessIdentity { pid: silent.pid, started: process::ticks_to_boot_time(silent.started) });
    fs::remove_file(fixture.home.path().join("pids/sav-0.pid")).unwrap();
    assert_eq!(fixture.evidence("sav", known), [(silent, Sign::Known)]);
    let another = known.map(|known| ProcessIdentity { started: known.started + Duration::from_secs(1), ..known });
    assert_eq!(fixture.evidence("sav", another), []);
    let evidence = fixture.home.observe_process("sav", None, &fixture.home.observe_daemon());
    assert!(evidence.unidentified_children.contains(&silent.pid), "{evidence:?}");

    let (_, fork) = fixture.start_child("pm_id=0 name=fork sleep 601", "");
    eventually(|| fixture.evidence("fork", None) == [(fork, Sign::Environment)]);
    let json = r#"pm2_env='{"name":"my clus","pm_id":1,"env":{"pm_id":"x"}}'"#;
    let (daemon, cluster) = fixture.start_child(&format!("{json} sleep 601"), "");
    eventually(|| fixture.evidence("my clus", None) == [(cluster, Sign::Environment)]);
    fixture.check_evidence("my-clus", &[]);
    // Two names share a pid file: a readable environment distinguishes them.
    fs::write(fixture.home.path().join("pids/my-clus-1.pid"), cluster.pid.to_string()).unwrap();
    fixture.check_evidence("my clus", &[(cluster, Sign::PidFile)]);
    fixture.check_evidence("my+clus", &[]);
    fixture.check_evidence("my-clus", &[]);
    assert!(process::is_alive(daemon));
    // Its environment does not name the home, so the fixture would not kill it.
    process::send_signal(silent, Signal::KILL).unwrap();
}

/// A child that a process left behind has its environment and is no sign of it. Neither is a stale pid file.
#[test]
fn a_process_with_another_parent_is_no_sign_of_life() {
    let fixture = Pm2Fixture::new();
    fixture.start_daemon("");
    let left = fixture.start_app("sav", "0");
    let foreign = fixture.start("node", &[], "", |_| {});
    assert!(process::is_alive(left));
    let file = fixture.home.path().join("pids/sav-0.pid");
    for pid in [left.pid, foreign.pid, 1, 0, std::process::id()] {
        fs::write(&file, pid.to_string()).unwrap();
        // Written long before they started, so it was about an earlier process with the same pid.
        let before = std::time::SystemTime::now() - Duration::from_secs(600);
        File::options().append(true).open(&file).unwrap().set_modified(before).unwrap();
        fixture.check_evidence("sav", &[]);
    }
    for text in ["-1", "x", ""] {
        fs::write(fixture.home.path().join("pids/sav-0.pid"), text).unwrap();
        fixture.check_evidence("sav", &[]);
    }
    assert_eq!(fixture.home.observe("sav", PriorEvidence::default()).process, None);
}

/// Without a daemon, a process counts if its pid file names it or if it listens on a port; a child left behind does
/// not.
#[test]
fn an_orphan_with_a_pid_file_or_a_port_is_alive() {
    let fixture = Pm2Fixture::new();
    let app = fixture.start_app("sav", "0");
    fixture.check_evidence("sav", &[]);
    fs::write(fixture.home.path().join("pids/sav-0.pid"), app.pid.to_string()).unwrap();
    fixture.check_evidence("sav", &[(app, Sign::Orphan)]);
    let evidence = fixture.home.observe("sav", PriorEvidence::default());
    assert_eq!((evidence.daemon, evidence.process.map(|seen| seen.pid)), (DaemonState::Dead, Some(app.pid)));
    // It stays an orphan when a new daemon starts.
    fixture.start_daemon("");
    fixture.check_evidence("sav", &[(app, Sign::Orphan)]);
    let evidence = fixture.home.observe("sav", PriorEvidence::default());
    assert!(evidence.is_orphan && evidence.trouble.is_some_and(|trouble| trouble.contains("outlived the PM2 daemon")));
    fixture.daemons().into_iter().for_each(|daemon| drop(process::send_signal(daemon, Signal::KILL)));
    eventually(|| fixture.daemons().is_empty());
    fixture.start_app("web", "1");
    fixture.check_evidence("web", &[]);
    let web = fixture.start("node", &fixture.marks("web", "1"), "", |command| {
        attach_listener(command);
    });
    fixture.check_evidence("web", &[(web, Sign::Orphan)]);
    // The file was written long before the process started, so it was about an earlier one.
    let file = File::options().append(true).open(fixture.home.path().join("pids/sav-0.pid")).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(600)).unwrap();
    fixture.check_evidence("sav", &[]);
}

#[test]
fn the_activity_is_that_of_the_busiest_or_else_of_a_stopped_process() {
    let fixture = Pm2Fixture::new();
    assert_eq!(fixture.home.activity("sav"), None);
    let (idle, still) = (fixture.start_app("sav", "0"), fixture.start_app("sav", "1"));
    let activity = || fixture.home.activity("sav").unwrap();
    eventually(|| activity().state == 'S');
    process::send_signal(still, Signal::STOP).unwrap();
    eventually(|| (activity().pid, activity().state) == (still.pid, 'T'));
    // An app whose child does the work, as with `npm start`.
    fixture.start("npm start", &fixture.marks("sav", "2"), "echo $$ >busy; while :; do :; done", |_| {});
    let busy = fixture.process_in_file("busy");
    eventually(|| activity().pid == busy.pid && activity().cpu_percent > 20);
    assert_eq!(fixture.home.activity("other"), None);
    process::send_signal(idle, Signal::KILL).unwrap();
}

#[test]
fn an_orphan_is_a_process_of_pm2_without_a_daemon_above_it() {
    let fixture = Pm2Fixture::new();
    let other = Pm2Fixture::new();
    let mut port = 0;
    let mut start_listener = |title: &str, env: &[(&str, &str)], text: &str| {
        fixture.start(title, env, text, |command| port = attach_listener(command))
    };
    let orphan = start_listener("node app.js", &fixture.marks("sav", "0"), "");
    let on = |port: u16| fixture.home.find_orphans(port).unwrap();
    let mut at = port_of(orphan);
    assert_eq!(on(at), vec![orphan]);
    assert_eq!(listener_pid(at), orphan.pid);
    assert!(other.home.find_orphans(at).unwrap().is_empty());

    let mut none = |title: &str, env: &[(&str, &str)], text: &str| {
        let process = start_listener(title, env, text);
        at = port_of(process);
        assert_eq!(on(at), vec![], "{title} {env:?} {text}");
        process
    };
    none("node app.js", &[("PM2_HOME", fixture.home_path())], "");
    none("node app.js", &[("pm_id", "0"), ("name", "sav")], "");
    none("node app.js", &other.marks("sav", "0"), "");
    none(TITLE, &fixture.marks("sav", "0"), "");
    // A child of a living daemon, of this home and then of another home.
    let child = format!("PM2_HOME={} pm_id=0 name=sav sleep 601 <&3 & echo $! >child", fixture.home_path());
    for home in [fixture.home_path(), other.home_path()] {
        let daemon = none(TITLE, &[("PM2_HOME", home)], &format!("exec 3<&0\n{child}"));
        let child = fixture.process_in_file("child");
        eventually(|| process::command_line(child.pid).is_some_and(|title| title == "sleep 601"));
        let port = port_of(child);
        assert_eq!(on(port), vec![]);
        process::send_signal(daemon, Signal::KILL).unwrap();
        eventually(|| on(port) == vec![child]);
        fs::remove_file(fixture.file("child")).unwrap();
    }
}

#[test]
fn a_process_that_is_only_connected_does_not_count_as_listening() {
    let fixture = Pm2Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let process = fixture.start("node", &fixture.marks("sav", "0"), "", |command| {
        command.stdin(OwnedFd::from(accepted));
    });
    assert_eq!(listener_pid(port), std::process::id());
    assert_eq!(fixture.home.find_orphans(port).unwrap(), vec![]);
    assert!(listening_ports(process).is_empty());
    drop(listener);
    eventually(|| find_listener(port).is_none());
}

#[track_caller]
fn port_of(process: Process) -> u16 {
    let mut ports = Vec::new();
    eventually(|| {
        ports = listening_ports(process);
        !ports.is_empty()
    });
    assert_eq!(ports.len(), 1);
    assert!(listening_ports(Process { started: process.started + 1, ..process }).is_empty());
    ports[0]
}

#[track_caller]
fn listener_pid(port: u16) -> u32 {
    find_listener(port).unwrap().0
}

#[test]
fn the_list_that_resurrect_would_use_is_read() {
    let fixture = Pm2Fixture::new();
    let write = |name: &str, text: &str| fs::write(fixture.home.path().join(name), text).unwrap();
    let names = || match fixture.home.saved() {
        SavedList::Apps(apps) => apps.into_iter().map(|app| app.name).collect::<Vec<_>>().join(" "),
        SavedList::Missing => "missing".into(),
        SavedList::Unreadable(reason) => reason.replace(fixture.home_path(), ""),
    };
    assert_eq!(names(), "missing");
    write("dump.pm2", "");
    assert_eq!(names(), "/dump.pm2 is not a list of processes");
    write("dump.pm2.bak", "[{\"name\":");
    assert_eq!(names(), "/dump.pm2 is not a list of processes");
    write("dump.pm2.bak", "[\n  {\n    \"name\": \"old\"\n  }\n]");
    assert_eq!(names(), "old");
    write("dump.pm2", "[\n  {\n    \"name\": \"new\"\n  }\n]");
    assert_eq!(names(), "new");
    write("dump.pm2", "[]");
    assert_eq!(names(), "");
    fs::remove_file(fixture.home.path().join("dump.pm2")).unwrap();
    assert_eq!(names(), "old");
    fs::create_dir(fixture.home.path().join("dump.pm2")).unwrap();
    assert_eq!(names(), "old");
    fs::remove_file(fixture.home.path().join("dump.pm2.bak")).unwrap();
    assert_eq!(names(), "/dump.pm2: is a directory");
}

#[test]
fn a_saved_list_is_copied_without_the_living_processes() {
    let fixture = Pm2Fixture::new();
    fs::write(fixture.home.path().join("dump.pm2"), r#"[{"name":"a","env":{"X":1.50}},{"name":"b"},{"name":"a"}]"#)
        .unwrap();
    let without = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        String::from_utf8(fixture.home.saved_list_except(&names).unwrap()).unwrap()
    };
    assert_eq!(without(&["b"]), r#"[{"name":"a","env":{"X":1.50}},{"name":"a"}]"#, "numbers keep their spelling");
    assert_eq!(without(&["a", "b"]), "[]");
    fs::write(fixture.home.path().join("dump.pm2"), "{").unwrap();
    assert!(fixture.home.saved_list_except(&[]).is_err());
}

#[test]
fn logs_come_from_the_list_or_the_environment_or_default_paths_and_are_not_older_than_the_process() {
    let fixture = Pm2Fixture::new();
    fs::create_dir(fixture.home.path().join("logs")).unwrap();
    let usual = ["my-app-out.log", "my-app-error-3.log", "my-app-out-x.log", "my-app-out.log.1", "my-app2-out.log"];
    let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
    usual.iter().for_each(|name| write(fixture.home.path().join("logs").join(name), "usual\n"));
    let logs = |apps: &[App], since: Option<ProcessIdentity>| {
        let found = fixture.home.logs("my app", apps, since);
        let mut names: Vec<String> = found.iter().map(|log| log.name.clone()).collect();
        names.sort();
        (names.join(" "), log_excerpt(&found))
    };
    let usual = Some("usual".to_owned());
    assert_eq!(logs(&[], None), ("my-app-error-3.log my-app-out.log".into(), usual));
    write(fixture.home.path().join("pm2.log"), "PM2 log: Error: of another\n");
    write(fixture.file("out"), "listening\n\u{1b}[31mred\u{1b}[39m\n");
    write(fixture.file("err"), "Error: old\n    at Module._load (node:internal/modules/cjs/loader:1104:12)\n");
    let path_of = |name: &str| fixture.file(name).display().to_string();
    let list = format!(
        r#"[{{"name":"my app","pm_out_log_path":"{}","pm_err_log_path":"{}"}},{{"name":"x","pm_out_log_path":"/x"}}]"#,
        path_of("out"),
        path_of("err")
    );
    let apps = parse_list(list.as_bytes()).unwrap();
    assert_eq!(logs(&apps, None), ("err out pm2.log".into(), Some("Error: old".into())));
    // A log that was last written before the process started is not about it.
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3_600);
    File::options().append(true).open(fixture.file("err")).unwrap().set_modified(hour_ago).unwrap();
    let began = clock::now().offset_by(-600_000);
    let since = Some(ProcessIdentity { pid: 1, started: began });
    assert_eq!(logs(&apps, since), ("out pm2.log".into(), Some("red".into())));
    let (out, err) = (path_of("out"), path_of("missing"));
    let mut env = fixture.marks("my app", "0").to_vec();
    env.extend([("pm_out_log_path", out.as_str()), ("pm_err_log_path", err.as_str())]);
    let living = fixture.start("node", &env, "", |_| {});
    let since = Some(ProcessIdentity { pid: living.pid, started: began });
    assert_eq!(logs(&[], since).0, "out pm2.log");
}
