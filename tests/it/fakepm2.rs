//! A home of PM2's without PM2: a saved list, a socket that takes connections, and a `pm2` that prints a list and notes
//! that it was called. For what must be said and written, not for what PM2 does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::{Value, json};

use crate::place::{Place, Said};

/// Programs and a home of PM2's in a place: `bin` and `.pm2`.
pub(crate) struct FakePm2<'a> {
    place: &'a Place,
}

impl<'a> FakePm2<'a> {
    /// With `pm2` and `node` in `bin`, a `crontab` that has nothing, and an empty home.
    pub(crate) fn new(place: &'a Place) -> Self {
        fs::create_dir_all(place.path(".pm2")).expect("a folder");
        fs::create_dir_all(place.path("bin")).expect("a folder");
        fs::create_dir_all(place.path("app")).expect("a folder");
        if !place.path("app/server.js").exists() {
            place.write("app/server.js", "");
        }
        place.write("package.json", r#"{"name": "pm2", "version": "7.0.4"}"#);
        let fake = FakePm2 { place };
        fake.program("node", "exit 1");
        fake.program("pm2", "echo \"$@\" >> \"$HOME/calls\"; cat \"$HOME/list\"");
        fake.program("crontab", "test -f \"$HOME/crontab\" && cat \"$HOME/crontab\"");
        fake
    }

    /// Makes a program in `bin`.
    pub(crate) fn program(&self, name: &str, text: &str) {
        let name = format!("bin/{name}");
        self.place.write(&name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(self.place.path(&name), Permissions::from_mode(0o755)).expect("a file of ours");
    }

    /// What `pm2 save` would have saved.
    pub(crate) fn save(&self, apps: &[Value]) {
        self.place.write(".pm2/dump.pm2", &Value::from(apps).to_string());
    }

    /// A daemon that takes connections while the socket is held, and what it lists.
    pub(crate) fn daemon(&self, apps: &[Value]) -> UnixListener {
        let listed = apps.iter().map(|app| json!({"name": app["name"], "pid": app["pid"], "pm2_env": app}));
        self.place.write("list", &(Value::from_iter(listed).to_string() + "\n"));
        UnixListener::bind(self.place.path(".pm2/rpc.sock")).expect("a socket")
    }

    /// How often pm2 was called, and with what.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.place.lines("calls")
    }

    /// The program, with `bin` before the rest of PATH.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.place.command(words);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.place.path("bin").display()));
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Said {
        Said::new(self.command(words).output().expect("the program runs"))
    }

    /// A process as PM2 has it; `rest` goes over the usual.
    pub(crate) fn app(&self, name: &str, rest: Value) -> Value {
        let mut app = json!({
            "name": name,
            "status": "online",
            "pm_exec_path": self.place.path("app/server.js"),
            "pm_cwd": self.place.path("app"),
            "exec_mode": "fork_mode",
            "SECRET_TOKEN": "s3cret",
            "env": {"SECRET_TOKEN": "s3cret"},
        });
        for (key, value) in rest.as_object().into_iter().flatten() {
            app[key] = value.clone();
        }
        app
    }
}
