//! Who is who: daemons, processes, orphans, and those who only look like them.

use super::*;

impl Place {
    #[track_caller]
    fn sees(&self, name: &str, expected: Option<Process>) {
        let found = self.home.sight(name).unwrap().process;
        assert_eq!(found.map(|seen| seen.pid), expected.map(|process| process.pid), "{name}");
        let started = expected.map(|process| process::since_boot(process.started));
        assert_eq!(found.map(|seen| seen.started), started, "{name}");
    }
}

#[test]
fn a_daemon_is_proven_by_account_title_and_home() {
    let place = Place::new();
    let check = |title: &str, home: &str, is_daemon: bool| {
        let process = place.start(title, &[("PM2_HOME", home)], "", |_| {});
        let expected = if is_daemon { vec![process] } else { vec![] };
        assert_eq!(place.home.daemons().unwrap(), expected, "{title} {home}");
        assert!(process::signal(process, Signal::KILL).unwrap());
        eventually(|| !process::is_alive(process));
        assert_eq!(place.home.daemons().unwrap(), vec![], "a dead one is none");
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
    check(TITLE, &format!("{}2", place.path()), false);
    check("sh PM2 v7.0.4: God Daemon (/h)", place.path(), false);
    check("PM2 v7.0.4: something else", place.path(), false);
    check("node app.js", place.path(), false);
    if rustix::process::geteuid().is_root() {
        let other = place.start(TITLE, &[("PM2_HOME", place.path())], "", |command| {
            command.uid(65_534).current_dir("/");
        });
        assert_eq!(place.home.daemons().unwrap(), vec![]);
        assert_eq!(process::owner(other.pid), Some(65_534));
    }
}

#[test]
fn the_socket_tells_whether_a_daemon_accepts() {
    let place = Place::new();
    let accepts = || place.home.daemon_accepts().unwrap();
    assert!(!accepts(), "there is none");
    place.listen(true);
    assert!(accepts());
    // Nobody ever accepts, as in a frozen daemon, and at last there is no room to wait.
    for _ in 0..5_000 {
        if rustix_connect(&place) {
            break;
        }
    }
    assert!(accepts());
    *place.socket.lock().unwrap() = None;
    assert!(!accepts(), "a socket that a daemon left behind");
    assert!(!Home::at(Path::new("/no/such/home")).daemon_accepts().unwrap());
    assert!(Home::at(&place.at(&"long".repeat(30))).daemon_accepts().is_err());
    fs::write(place.at("file"), "").unwrap();
    assert!(Home::at(&place.at("file")).daemon_accepts().is_err());
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
fn a_process_is_seen_by_its_name_in_either_mode() {
    let place = Place::new();
    place.sees("sav", None);
    let fork = place.app("sav", "0");
    place.sees("sav", Some(fork));
    let json = r#"pm2_env={"name":"my clus","pm_id":1,"env":{"pm_id":"x"}}"#.split_once('=').unwrap();
    let cluster = place.start("node app.js", &[("PM2_HOME", place.path()), json], "", |_| {});
    place.sees("my clus", Some(cluster));
    place.sees("my-clus", None);
    place.sees("sa", None);
    let elsewhere = place.start("node", &[("PM2_HOME", "/tmp"), ("pm_id", "2"), ("name", "other")], "", |_| {});
    place.start("node", &[("PM2_HOME", place.path()), ("name", "other")], "", |_| {});
    place.start(TITLE, &place.marks("other", "3"), "", |_| {});
    place.sees("other", None);
    assert!(process::is_alive(elsewhere));

    process::signal(fork, Signal::KILL).unwrap();
    eventually(|| place.home.sight("sav").unwrap().process.is_none());
}

#[test]
fn what_is_done_is_told_of_the_busiest_and_of_the_one_that_stands_still() {
    let place = Place::new();
    assert_eq!(place.home.doing("sav"), None);
    let (idle, still) = (place.app("sav", "0"), place.app("sav", "1"));
    let doing = || place.home.doing("sav").unwrap();
    eventually(|| doing().state == 'S');
    process::signal(still, Signal::STOP).unwrap();
    eventually(|| (doing().pid, doing().state) == (still.pid, 'T'));
    // The child of an app that only waits for it, as `npm start` does.
    place.start("npm start", &place.marks("sav", "2"), "echo $$ >busy; while :; do :; done", |_| {});
    let busy = place.noted("busy");
    eventually(|| doing().pid == busy.pid && doing().share > 20);
    assert_eq!(place.home.doing("other"), None);
    process::signal(idle, Signal::KILL).unwrap();
}

#[test]
fn the_youngest_is_seen_but_no_child_of_it() {
    let place = Place::new();
    let old = place.app("sav", "0");
    // Their start times differ, as ticks are counted.
    std::thread::sleep(Duration::from_millis(30));
    let young = place.start("npm", &place.marks("sav", "1"), "sleep 601 & echo $! >child", |_| {});
    let child = place.noted("child");
    place.sees("sav", Some(young));
    process::signal(young, Signal::KILL).unwrap();
    eventually(|| !process::is_alive(young));
    std::thread::sleep(Duration::from_millis(30));
    // What it left behind is its own master now.
    eventually(|| process::stat(child.pid).is_some_and(|stat| stat.parent != young.pid));
    place.sees("sav", Some(child));
    process::signal(child, Signal::KILL).unwrap();
    eventually(|| !process::is_alive(child));
    place.sees("sav", Some(old));
}

#[test]
fn a_pid_file_is_a_hint_and_no_more() {
    let place = Place::new();
    let file = |name: &str, text: &str| fs::write(place.home.path().join("pids").join(name), text).unwrap();
    let app = place.app("my app", "10");
    let stranger = place.app("other", "1");
    for text in [format!("{}", stranger.pid), "1".into(), "0".into(), "-1".into(), "x".into(), String::new()] {
        file("my-app-1.pid", &text);
        place.sees("my app", Some(app));
    }
    file("my-app-10.pid", &format!("{}\n", app.pid));
    place.sees("my app", Some(app));
    std::thread::sleep(Duration::from_millis(30));
    // Two of one name, and only the older one has its file there: it is enough that one lives.
    place.app("my app", "11");
    place.sees("my app", Some(app));
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
        Saved::Apps(apps) => apps.into_iter().map(|app| app.name).collect::<Vec<_>>().join(" "),
        Saved::Missing => "missing".into(),
        Saved::Unreadable(reason) => reason.replace(place.path(), ""),
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
fn logs_are_those_of_the_living_else_the_saved_else_the_usual() {
    let place = Place::new();
    fs::create_dir(place.home.path().join("logs")).unwrap();
    let usual = ["my-app-out.log", "my-app-error-3.log", "my-app-out-x.log", "my-app-out.log.1", "my-app2-out.log"];
    let touch = |path: PathBuf| fs::write(path, "").unwrap();
    usual.iter().for_each(|name| touch(place.home.path().join("logs").join(name)));
    let logs = || {
        let found = place.home.logs("my app");
        found
            .iter()
            .map(|path| path.strip_prefix(place.folder.path()).unwrap().display().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(logs(), ["home/logs/my-app-error-3.log", "home/logs/my-app-out.log"]);
    touch(place.home.path().join("pm2.log"));
    ["saved-out", "saved-err", "living-out"].into_iter().for_each(|name| touch(place.at(name)));
    let in_place = |name: &str| place.at(name).display().to_string();
    let (out, err) = (in_place("saved-out"), in_place("saved-err"));
    let saved = format!(r#"[{{"name":"my app","pm_out_log_path":"{out}","pm_err_log_path":"{err}"}}]"#);
    fs::write(place.home.path().join("dump.pm2"), saved).unwrap();
    assert_eq!(logs(), ["saved-out", "saved-err", "home/pm2.log"]);
    let (out, err) = (in_place("living-out"), in_place("missing"));
    let mut env = place.marks("my app", "0").to_vec();
    env.extend([("pm_out_log_path", out.as_str()), ("pm_err_log_path", err.as_str())]);
    place.start("node", &env, "", |_| {});
    assert_eq!(logs(), ["living-out", "home/pm2.log"]);
}
