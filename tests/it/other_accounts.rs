//! Root acting on another account's watchdog: its state folder is found in that account's home, and no file owned by
//! root is left in its way.

use std::fs;
use std::os::unix::fs::symlink;

use crate::lock_holder::{HEALTHY, as_nobody, check, check_output, sandbox_owned_by_nobody};
use crate::sandbox::{CommandOutput, MISSING_PROGRAM, require};

#[test]
fn root_creates_no_state_folder_for_another_accounts_watchdog() {
    let sandbox = sandbox_owned_by_nobody();
    let nobody = |args: &[&str]| CommandOutput::new(as_nobody(&sandbox, args).output().expect(MISSING_PROGRAM));
    symlink("a.yaml", sandbox.path("link.yaml")).expect("link created");
    let belongs = "belongs to uid 65534";
    for config in ["a.yaml", "link.yaml"] {
        check(&sandbox, &["pause", "-c", config], 4, &[belongs, " (nothing was paused or resumed)"]);
        check(&sandbox, &["pause", "app", "-c", config], 4, &[belongs]);
        check(&sandbox, &["resume", "-c", config], 4, &[belongs, " (nothing was paused or resumed)"]);
        check(&sandbox, &["pause", "-c", config, "--", "true"], 0, &[belongs, "nothing is paused"]);
        let output = sandbox.run(&["stop", "-c", config]);
        sandbox.assert(output.code == Some(3) && !sandbox.path("state").exists(), &format!("{config}: {output:?}"));
    }
    let output = nobody(&["start", "-c", "a.yaml"]);
    sandbox.assert(output.code == Some(0) && output.out.contains("watchdog started"), &format!("{output:?}"));
    let output = sandbox.run(&["stop", "-c", "a.yaml"]);
    sandbox.assert(output.code == Some(0) && sandbox.lock_holder().is_none(), &format!("{output:?}"));
}

/// Starts a program with the file `passwd` of the current folder as /etc/passwd.
const WITH_PASSWD: [&str; 6] =
    ["unshare", "--mount", "sh", "-c", "mount --bind passwd /etc/passwd && exec \"$@\"", "sh"];

#[test]
fn root_uses_the_home_of_the_account_that_owns_the_configuration() {
    let sandbox = sandbox_owned_by_nobody();
    let nobody = |args: &[&str]| CommandOutput::new(as_nobody(&sandbox, args).output().expect(MISSING_PROGRAM));
    fs::create_dir(sandbox.path("root")).expect("folder created");
    let run_through = |starter: &[&str], args: &[&str]| {
        let mut command = sandbox.command_through(starter, args);
        CommandOutput::new(command.env("HOME", sandbox.path("root")).output().expect("the program runs"))
    };
    let state_folder = sandbox.path(".local/state/watchdog");
    let write_passwd = |nobody_entry: &str| {
        sandbox.write("passwd", &format!("root:x:0:0::{}:/bin/sh\n{nobody_entry}", sandbox.path("root").display()));
    };
    write_passwd("");
    let mounted = sandbox.command_through(&WITH_PASSWD, &["--version"]).output().expect(MISSING_PROGRAM);
    require(mounted.status.success(), "a mount namespace");
    for state_dir in ["", "state_dir: ~/.local/state/watchdog\n"] {
        sandbox.write("a.yaml", &format!("{state_dir}{HEALTHY}"));
        let output = nobody(&["start", "-c", "a.yaml"]);
        sandbox.assert(output.code == Some(0), &format!("{output:?}"));
        // An empty home, a home that does not exist, and an unknown account.
        for nobody_entry in ["nobody:x:65534:65534:::/bin/sh\n", "nobody:x:65534:65534::/not/there:/bin/sh\n", ""] {
            write_passwd(nobody_entry);
            for args in [&["stop"][..], &["pause"], &["resume"], &["status"], &["report"]] {
                let output = run_through(&WITH_PASSWD, &[args, &["-c", "a.yaml"]].concat());
                check_output(&sandbox, args, &output, 2, &["its state folder is unknown, so nothing was done"]);
            }
            fs::rename(sandbox.path("a.yaml"), sandbox.path("watchdog.yaml")).expect("renamed");
            let output = run_through(&WITH_PASSWD, &["stop"]);
            check_output(&sandbox, &["stop"], &output, 2, &["its state folder is unknown, so nothing was done"]);
            fs::rename(sandbox.path("watchdog.yaml"), sandbox.path("a.yaml")).expect("renamed");
        }
        write_passwd(&format!("nobody:x:65534:65534:,,,:{}:/bin/sh\n", sandbox.home().display()));
        // A probe during the rename found no file and failed.
        sandbox.eventually("status shows the target", || {
            let output = run_through(&WITH_PASSWD, &["status", "-c", "a.yaml"]);
            output.code == Some(0) && output.out.contains("app")
        });
        let output = run_through(&WITH_PASSWD, &["stop", "-c", "a.yaml"]);
        sandbox.assert(output.code == Some(0) && output.out.contains("is stopped"), &format!("{output:?}"));
        let output = run_through(&WITH_PASSWD, &["stop", "-c", "a.yaml"]);
        let is_reported = output.out.contains(&format!("no watchdog was running for {}", state_folder.display()));
        sandbox.assert(output.code == Some(3) && is_reported, &format!("{output:?}"));
    }
    assert!(
        fs::read_dir(sandbox.path("root")).expect("folder access").next().is_none(),
        "nothing is written to root's home"
    );
}
