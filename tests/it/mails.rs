//! What cron would mail: the same complaint once a day and not at every tick, whatever cannot be written. Each scene is
//! a script with a file system of its own under HOME, which is filled up or made read-only between the ticks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::place::{NEEDED, Place, Said, need};

const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// `ticks NAME WORDS…` calls the program ten times; `$AS` is who it runs as.
const STAGE: &str = r#"
mkdir -p home && mount -t tmpfs -o size=256k,nr_inodes=200,mode=0755 tmpfs home || exit 99
if [ -n "$AS" ]; then chown 65534:65534 home; fi
cp scene.yaml home/watchdog.yaml && cd home && export HOME="$PWD"
ticks() {
    name=$1; shift
    for n in 1 2 3 4 5 6 7 8 9 10; do
        $AS "$W" "$@" 2>&1 | sed "s/^/$name: /"
    done
    $AS "$W" "$@" > /dev/null 2>&1 < /dev/null; echo "$name gives $?"
}
fill() { cat /dev/zero > filler 2> /dev/null; }
empty() { rm filler; }
spend() { n=0; while true > "inode$n"; do n=$((n + 1)); done 2> /dev/null; }
remount() { mount -o "remount,$1" "$HOME"; }
"#;

/// What a script says after the stage is set, as root, and as another account where the test is root.
fn play(scene: &str, script: &str) -> Vec<String> {
    let is_root = rustix::process::geteuid().is_root();
    let accounts = if is_root { &["", AS_NOBODY][..] } else { &[""] };
    let said = accounts.iter().map(|account| {
        let place = Place::with("");
        place.write("scene.yaml", scene);
        let program = place.path("program");
        fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("copied");
        fs::set_permissions(place.home(), Permissions::from_mode(0o777)).expect("ours");
        let mut command = Command::new("unshare");
        command.args(if is_root { &["--mount"][..] } else { &["--map-root-user", "--mount"] });
        command.args(["sh", "-c", &format!("{STAGE}{script}")]).current_dir(place.home());
        command.env("AS", account).env("W", program);
        let said = Said::new(command.output().expect(NEEDED));
        need(said.code != Some(99) && !said.err.starts_with("unshare"), "a file system of its own");
        format!("as {account:?}\n{}{}", said.out, said.err)
    });
    said.collect()
}

/// What the ticks of this name have said, ten of them, and the exit code of one more.
#[track_caller]
fn check(said: &str, name: &str, code: u8, expected: &[&str]) {
    let begin = format!("{name}: ");
    let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix(&begin)).collect();
    let fits = lines.len() == expected.len() && lines.iter().zip(expected).all(|(line, part)| line.contains(part));
    assert!(fits, "{name} says {lines:#?}, and {expected:#?} was wanted, in\n{said}");
    assert!(said.contains(&format!("{name} gives {code}\n")), "{name} gives {code} in\n{said}");
}

const TARGETS: &str = "state_dir: state\nnotify: [{command: 'cat >> ../told; echo >> ../told'}]\ntargets:\n  \
    - {name: slow, command: test -e ../well, restart: touch ../restarted}\n  \
    - {name: quick, command: test -e ../well, failure_threshold: 1}\n  \
    - {name: bold, command: test -e ../well, failure_threshold: 1, restart: touch ../restarted-too}\n";

#[test]
fn a_full_disk_is_told_once_a_day_and_so_is_what_is_down_meanwhile() {
    let script = r#"
        touch ../well; ticks well --once
        fill; ticks full --once; ticks again --once
        rm ../well; ticks failing --once
        echo "messages: $(grep -c '"event":"down"' ../told)"; cat ../told
        touch ../well; empty; ticks room --once
        fill; ticks anew --once
        empty; echo '{' > state/state.json; fill; ticks lost --once
        ls .. | grep restarted && echo "RESTARTED"
    "#;
    for said in play(TARGETS, script) {
        check(&said, "well", 0, &[]);
        check(&said, "full", 4, &["state.json: no space left on device (nothing is restarted)"]);
        check(&said, "again", 4, &[]);
        let news = [
            "quick down: 1 of 1",
            "bold down: 1 of 1",
            "bold not restarted: the state cannot be saved",
            "slow is failing: exit 1 (",
        ];
        let mut lines: Vec<&str> = said.lines().filter(|line| line.starts_with("failing: ")).collect();
        for part in news {
            let at = lines.iter().position(|line| line.contains(part));
            lines.remove(at.unwrap_or_else(|| panic!("{part} is said in\n{said}")));
        }
        assert!(lines.is_empty() && said.contains("failing gives 4\n"), "{lines:#?} too is said in\n{said}");
        assert!(said.contains("messages: 2\n"), "one each in\n{said}");
        assert!(said.contains(", not restarted: the state cannot be saved"), "with the reason in\n{said}");
        check(&said, "room", 0, &[]);
        check(&said, "anew", 4, &["no space left on device"]);
        check(&said, "lost", 4, &["state.json.corrupt-"]);
        assert!(!said.contains("RESTARTED"), "nothing was restarted in\n{said}");
    }
}

/// Of a target that comes and goes all day no more is told than of one that flaps.
#[test]
fn on_a_full_disk_the_next_outage_of_a_day_is_news() {
    let target = "  - {name: app, command: test -e ../well, failure_threshold: 1}\n";
    let command = "test -e ../deaf && exit 1; cat >> ../told; echo >> ../told";
    let scene = format!("state_dir: state\nnotify: [{{command: '{command}'}}]\ntargets:\n{target}");
    let script = r#"
        count() { echo "after $1: $(grep -c '"event":"down"' ../told) down, $(grep -c '"event":"up"' ../told) up"; }
        touch ../well; ticks well --once; fill; ticks full --once
        rm ../well; ticks first --once; count first
        touch ../well; ticks back --once
        touch ../deaf; rm ../well; ticks second --once; rm ../deaf
        $AS "$W" --once; $AS "$W" --once; count second
        for round in 3 4 5 6 7; do
            touch ../well; $AS "$W" --once
            rm ../well; ticks "round$round" --once
        done
        count all
        empty; touch ../well; ticks room --once
        rm ../well; $AS "$W" --once > /dev/null; count known; fill
        touch ../well; ticks up --once; count up; rm ../well; ticks again --once
        touch ../well; empty; ticks late --once; : > ../told
        touch ../deaf; rm ../well; $AS "$W" --once > /dev/null; fill; rm ../deaf
        n=0; until [ -s ../told ] || [ $n = 600 ]; do n=$((n + 1)); $AS "$W" --once; sleep 0.1; done
        ticks waited --once; count waited
    "#;
    for said in play(&scene, script) {
        check(&said, "well", 0, &[]);
        check(&said, "full", 4, &["no space left on device"]);
        check(&said, "first", 4, &["app down: 1 of 1"]);
        check(&said, "back", 4, &[]);
        check(&said, "second", 4, &["app down: 1 of 1"]);
        let rounds = said.lines().filter(|line| line.starts_with("round") && line.contains("app down")).count();
        assert_eq!(rounds, 2, "told of the next two, then once an hour in\n{said}");
        for counted in ["first: 1 down", "second: 2 down", "all: 4 down", "known: 5 down"] {
            assert!(said.contains(&format!("after {counted}, 0 up\n")), "{counted} in\n{said}");
        }
        // The state knows of that outage, and not that it is over.
        check(&said, "up", 4, &["no space left on device", "app healthy: "]);
        assert!(said.contains("after up: 5 down, 1 up\n"), "its end is told once in\n{said}");
        check(&said, "again", 4, &["app is down again: exit 1 ("]);
        assert!(said.contains("after waited: 1 down, 0 up\n"), "what had to wait is delivered once in\n{said}");
    }
}

#[test]
fn where_no_file_can_be_made_messages_come_in_the_first_minutes_of_a_day_only() {
    let (noon, midnight) = (zone_where_it_is(720), zone_where_it_is(0));
    let target = |name: &str| format!("  - {{name: {name}, command: test -e ../well, failure_threshold: 1}}\n");
    let notify = "notify: [{command: 'cat >> ../told; echo >> ../told'}]";
    let scene = format!("state_dir: state\n{notify}\ntargets:\n{}{}", target("one"), target("two"));
    let script = format!(
        r#"
        count() {{ echo "after $1: $(cat ../told 2> /dev/null | grep -c '"event":"down"') messages"; }}
        touch ../well; ticks well --once; spend; rm ../well
        export TZ={noon}; ticks noon --once; count noon
        export TZ={midnight}; ticks late --once; count late; rm ../told
        rm inode*; export TZ={noon}; ticks room --once; count room
        "#
    );
    for said in play(&scene, &script) {
        check(&said, "well", 0, &[]);
        check(&said, "noon", 4, &[]);
        assert!(said.contains("after noon: 0 messages\n"), "none at noon in\n{said}");
        let told = said.lines().filter(|line| line.starts_with("late: one down: 1 of 1")).count();
        assert!((1..=10).contains(&told), "it is told at midnight in\n{said}");
        assert!(!said.contains("after late: 0 messages\n"), "so it is by a message in\n{said}");
        assert!(said.contains("after room: 2 messages\n"), "none is lost in\n{said}");
    }
}

/// The local time, as TZ has it, is that many minutes after midnight now.
fn zone_where_it_is(minute: i64) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let west = i64::try_from(since.as_secs() / 60 % 1_440).expect("minutes of a day") - minute;
    format!("HERE{}{}:{:02}", if west < 0 { "-" } else { "" }, west.abs() / 60, west.abs() % 60)
}

#[test]
fn where_nothing_can_be_noted_a_complaint_comes_in_the_first_minutes_of_a_day_only() {
    let (noon, midnight) = (zone_where_it_is(720), zone_where_it_is(0));
    let script = format!(
        r#"
        touch ../well; ticks well --once; remount ro
        export TZ={noon}; ticks tick --once; ticks start start --cron; ticks wrong --once -c nowhere.yaml
        export TZ={midnight}; ticks late --once; ticks again start --cron
        "#
    );
    for said in play(TARGETS, &script) {
        check(&said, "well", 0, &[]);
        for (name, code) in [("tick", 4), ("start", 4), ("wrong", 2)] {
            check(&said, name, code, &[]);
        }
        for (name, consequence) in [("late", "(nothing was done)"), ("again", "(nothing was started)")] {
            let begin = format!("{name}: watchdog: cannot use state folder ");
            let told = said.lines().filter(|line| line.starts_with(&begin) && line.ends_with(consequence)).count();
            assert!((1..=10).contains(&told), "{name} is told at midnight in\n{said}");
        }
    }
}

#[test]
fn a_lock_that_is_refused_and_what_is_wrong_with_a_file_are_told_once_a_day_each() {
    // A file system without locks, as NFS without its daemon.
    let source = "#include <errno.h>\nint flock(int f, int o) { (void)f; (void)o; errno = ENOLCK; return -1; }";
    let script = format!(
        r#"
        printf '%s' '{source}' | cc -shared -fPIC -o ../nolock.so -xc - || exit 1
        echo 'targets: []' > bad.yaml
        touch ../well; ticks well --once
        ticks bad --once -c bad.yaml; ticks fine --once; ticks bad --once -c bad.yaml
        export LD_PRELOAD="$PWD/../nolock.so"; ticks tick --once; ticks start start --cron
        unset LD_PRELOAD; ticks free --once
        "#
    );
    for said in play(TARGETS, &script) {
        for (name, code) in [("well", 0), ("fine", 0), ("free", 0)] {
            check(&said, name, code, &[]);
        }
        // One that is well in between makes no other's complaint news.
        let bad = said.matches("bad: bad.yaml:1:").count();
        assert_eq!(bad, 1, "a broken configuration is told once in\n{said}");
        check(&said, "tick", 4, &["watchdog.lock: no locks available (nothing was done)"]);
        check(&said, "start", 4, &["watchdog.lock: no locks available (nothing was started)"]);
    }
}
