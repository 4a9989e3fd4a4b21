//! Root and the watchdog of another account: it is asked for where that account has it, and nothing is left in its way.

use std::fs;
use std::os::unix::fs::symlink;

use crate::holder::{PEACE, as_nobody, check, fits, nobodys};
use crate::place::{NEEDED, Said, need};

#[test]
fn root_makes_no_state_folder_for_another_accounts_watchdog() {
    let place = nobodys();
    let nobody = |words: &[&str]| Said::new(as_nobody(&place, words).output().expect(NEEDED));
    symlink("a.yaml", place.path("link.yaml")).expect("a link");
    let belongs = "belongs to uid 65534";
    for config in ["a.yaml", "link.yaml"] {
        check(&place, &["pause", "-c", config], 4, &[belongs, " (nothing was paused or resumed)"]);
        check(&place, &["pause", "app", "-c", config], 4, &[belongs]);
        check(&place, &["resume", "-c", config], 4, &[belongs, " (nothing was paused or resumed)"]);
        check(&place, &["pause", "-c", config, "--", "true"], 0, &[belongs, "nothing is paused"]);
        let said = place.run(&["stop", "-c", config]);
        place.demand(said.code == Some(3) && !place.path("state").exists(), &format!("{config}: {said:?}"));
    }
    let said = nobody(&["start", "-c", "a.yaml"]);
    place.demand(said.code == Some(0) && said.out.contains("watchdog started"), &format!("{said:?}"));
    let said = place.run(&["stop", "-c", "a.yaml"]);
    place.demand(said.code == Some(0) && place.holder().is_none(), &format!("{said:?}"));
}

/// Starts a program with another user database, the file `passwd` of the folder that it is started in.
const WITH_PASSWD: [&str; 6] =
    ["unshare", "--mount", "sh", "-c", "mount --bind passwd /etc/passwd && exec \"$@\"", "sh"];

#[test]
fn root_asks_in_the_home_of_the_account_that_has_the_configuration() {
    let place = nobodys();
    let nobody = |words: &[&str]| Said::new(as_nobody(&place, words).output().expect(NEEDED));
    fs::create_dir(place.path("root")).expect("made");
    let run_through = |starter: &[&str], words: &[&str]| {
        let mut command = place.command_through(starter, words);
        Said::new(command.env("HOME", place.path("root")).output().expect("it runs"))
    };
    let folder = place.path(".local/state/watchdog");
    let homes = |nobodys: &str| {
        place.write("passwd", &format!("root:x:0:0::{}:/bin/sh\n{nobodys}", place.path("root").display()));
    };
    homes("");
    let mounted = place.command_through(&WITH_PASSWD, &["--version"]).output().expect(NEEDED);
    need(mounted.status.success(), "a mount namespace");
    for state_dir in ["", "state_dir: ~/.local/state/watchdog\n"] {
        place.write("a.yaml", &format!("{state_dir}{PEACE}"));
        let said = nobody(&["start", "-c", "a.yaml"]);
        place.demand(said.code == Some(0), &format!("{said:?}"));
        // No home is known, one that is not there, and none of that account.
        for nobodys in ["nobody:x:65534:65534:::/bin/sh\n", "nobody:x:65534:65534::/not/there:/bin/sh\n", ""] {
            homes(nobodys);
            for words in [&["stop"][..], &["pause"], &["resume"], &["status"], &["report"]] {
                let said = run_through(&WITH_PASSWD, &[words, &["-c", "a.yaml"]].concat());
                fits(&place, words, &said, 2, &["its state folder is unknown, so nothing was done"]);
            }
            fs::rename(place.path("a.yaml"), place.path("watchdog.yaml")).expect("renamed");
            let said = run_through(&WITH_PASSWD, &["stop"]);
            fits(&place, &["stop"], &said, 2, &["its state folder is unknown, so nothing was done"]);
            fs::rename(place.path("watchdog.yaml"), place.path("a.yaml")).expect("renamed");
        }
        homes(&format!("nobody:x:65534:65534:,,,:{}:/bin/sh\n", place.home().display()));
        // A probe that came while the file had another name has failed.
        place.eventually("its status is shown", || {
            let said = run_through(&WITH_PASSWD, &["status", "-c", "a.yaml"]);
            said.code == Some(0) && said.out.contains("app")
        });
        let said = run_through(&WITH_PASSWD, &["stop", "-c", "a.yaml"]);
        place.demand(said.code == Some(0) && said.out.contains("is stopped"), &format!("{said:?}"));
        let said = run_through(&WITH_PASSWD, &["stop", "-c", "a.yaml"]);
        let told = said.out.contains(&format!("no watchdog was running for {}", folder.display()));
        place.demand(said.code == Some(3) && told, &format!("{said:?}"));
    }
    assert!(fs::read_dir(place.path("root")).expect("a folder").next().is_none(), "root's own has no part in it");
}
