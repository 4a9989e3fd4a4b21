//! A systemd of this account (`systemd --user`) with a runtime folder, a home and a control group of its own. It needs
//! root. All of it ends with the test.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::sandbox::{MISSING_PROGRAM, Sandbox};

/// `$1` is the sandbox, `$2` the name of the control group. systemd manages the group that it finds itself in, so it
/// gets one below the present one and takes that for the root. /run/systemd/system tells it that the machine runs
/// systemd.
const START: &str = r#"
mount -t cgroup2 cgroup2 "$1/cgroup" && mkdir "$1/cgroup/$2" && echo $$ >"$1/cgroup/$2/cgroup.procs" || exit
exec unshare --cgroup --mount sh -c '
    umount "$1/cgroup"
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system
    exec /lib/systemd/systemd --user' - "$1"
"#;
const REMOVE: &str = r#"
mount -t cgroup2 cgroup2 "$1/cgroup" && echo 1 >"$1/cgroup/$2/cgroup.kill" || exit
for try in $(seq 100); do
    find "$1/cgroup/$2" -depth -type d -exec rmdir {} + 2>"$1/rmdir.log"
    test -d "$1/cgroup/$2" || exit 0
    sleep 0.05
done
cat "$1/rmdir.log"; exit 1
"#;

pub(super) struct Manager {
    child: Child,
    home: std::path::PathBuf,
    group: String,
}

impl Manager {
    #[track_caller]
    pub(super) fn start(sandbox: &Sandbox) -> Manager {
        let home = sandbox.home().to_path_buf();
        for folder in ["cgroup", "run", ".config/systemd/user"] {
            fs::create_dir_all(home.join(folder)).expect("folder access");
        }
        let group = format!("watchdog-test-{}", home.file_name().expect("a name").display());
        let log = fs::File::create(home.join("systemd.log")).expect("folder access");
        let mut command = shell(START, &home, &group);
        command.env("XDG_RUNTIME_DIR", home.join("run")).env("HOME", &home).env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).process_group(0);
        let manager = Manager { child: command.spawn().expect(MISSING_PROGRAM), home, group };
        let socket = manager.home.join("run/systemd/private");
        sandbox.eventually("systemd runs", || {
            let log = sandbox.read("systemd.log");
            assert!(log.is_empty(), "{log}");
            socket.exists()
        });
        manager
    }

    pub(super) fn write_unit(&self, name: &str, text: &str) {
        let path = self.home.join(".config/systemd/user").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder access");
        fs::write(path, text).expect("written");
        self.systemctl(&["daemon-reload"]);
    }

    // systemctl does not see that its systemd runs, and leaves the reload to us.

    pub(super) fn enable(&self, unit: &str) {
        self.systemctl(&["enable", unit]);
        self.systemctl(&["daemon-reload"]);
        self.systemctl(&["start", unit]);
    }

    pub(super) fn disable(&self, unit: &str) {
        self.systemctl(&["stop", unit]);
        self.systemctl(&["disable", unit]);
        self.systemctl(&["daemon-reload"]);
    }

    /// What systemctl printed. It may report a unit's state by its exit code.
    #[track_caller]
    pub(super) fn systemctl(&self, args: &[&str]) -> String {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(args).env("XDG_RUNTIME_DIR", self.home.join("run")).env("HOME", &self.home);
        let output = command.output().expect(MISSING_PROGRAM);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    pub(super) fn state(&self, unit: &str) -> String {
        self.systemctl(&["show", "-p", "ActiveState", "--value", unit]).trim().to_owned()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // systemd itself, then all that it has started: they are in our group.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        let removed = shell(REMOVE, &self.home, &self.group).output();
        if !std::thread::panicking() {
            ended.expect("our child");
            let removed = removed.expect(MISSING_PROGRAM);
            assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stdout));
        }
    }
}

fn shell(script: &str, home: &std::path::Path, group: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "-"]).arg(home).arg(group);
    command
}
