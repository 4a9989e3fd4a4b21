//! A PM2 home without PM2: a saved list, a socket that accepts connections, and a `pm2` that prints a list and logs its
//! calls. It serves to test what the watchdog prints and writes, not what PM2 does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::{Value, json};

use crate::sandbox::{CommandOutput, Sandbox};

/// The folders `bin` and `.pm2` in a sandbox.
pub(crate) struct FakePm2<'a> {
    sandbox: &'a Sandbox,
}

impl<'a> FakePm2<'a> {
    /// Writes `pm2`, `node` and a `crontab` without entries into `bin`, and creates an empty PM2 home.
    pub(crate) fn new(sandbox: &'a Sandbox) -> Self {
        fs::create_dir_all(sandbox.path(".pm2")).expect("folder access");
        fs::create_dir_all(sandbox.path("bin")).expect("folder access");
        fs::create_dir_all(sandbox.path("app")).expect("folder access");
        if !sandbox.path("app/server.js").exists() {
            sandbox.write("app/server.js", "");
        }
        sandbox.write("package.json", r#"{"name": "pm2", "version": "7.0.4"}"#);
        let fake = FakePm2 { sandbox };
        fake.write_program("node", "exit 1");
        fake.write_program("pm2", "echo \"$@\" >> \"$HOME/calls\"; cat \"$HOME/list\"");
        fake.write_program("crontab", "test -f \"$HOME/crontab\" && cat \"$HOME/crontab\"");
        fake
    }

    pub(crate) fn write_program(&self, name: &str, text: &str) {
        let name = format!("bin/{name}");
        self.sandbox.write(&name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(self.sandbox.path(&name), Permissions::from_mode(0o755)).expect("the test owns the file");
    }

    /// Writes the saved list, as `pm2 save` would.
    pub(crate) fn save(&self, apps: &[Value]) {
        self.sandbox.write(".pm2/dump.pm2", &Value::from(apps).to_string());
    }

    /// A daemon that accepts connections until the socket is dropped, and the list that `pm2` prints.
    pub(crate) fn listen(&self, apps: &[Value]) -> UnixListener {
        let listed = apps.iter().map(|app| json!({"name": app["name"], "pid": app["pid"], "pm2_env": app}));
        self.sandbox.write("list", &(Value::from_iter(listed).to_string() + "\n"));
        UnixListener::bind(self.sandbox.path(".pm2/rpc.sock")).expect("the socket can be bound")
    }

    /// The arguments of each call of pm2.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.sandbox.lines("calls")
    }

    /// The watchdog, with `bin` first in PATH.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.sandbox.path("bin").display()));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        CommandOutput::new(self.command(args).output().expect("the program runs"))
    }

    /// A process as PM2 lists it; `overrides` replaces defaults.
    pub(crate) fn app(&self, name: &str, overrides: Value) -> Value {
        let mut app = json!({
            "name": name,
            "status": "online",
            "pm_exec_path": self.sandbox.path("app/server.js"),
            "pm_cwd": self.sandbox.path("app"),
            "exec_mode": "fork_mode",
            "SECRET_TOKEN": "s3cret",
            "env": {"SECRET_TOKEN": "s3cret"},
        });
        for (key, value) in overrides.as_object().into_iter().flatten() {
            app[key] = value.clone();
        }
        app
    }
}
