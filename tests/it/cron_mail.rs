//! Cron mails whatever the program prints: the same error must appear once a day and not at every tick, even if nothing
//! can be written. Each scenario is a script with its own small file system under HOME, which is filled or made
//! read-only between ticks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, require};

const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// `ticks NAME ARGS…` runs the program ten times; `$AS` is the command that changes the account.
const PREAMBLE: &str = r#"
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

/// The output of a script after the preamble, run as root and as another account if the test is root.
fn run_scenario(configuration: &str, script: &str) -> Vec<String> {
    let is_root = rustix::process::geteuid().is_root();
    let accounts = if is_root { &["", AS_NOBODY][..] } else { &[""] };
    let output = accounts.iter().map(|account| {
        let sandbox = Sandbox::new("");
        sandbox.write("scene.yaml", configuration);
        let program = sandbox.path("program");
        fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("the program is copied");
        fs::set_permissions(sandbox.home(), Permissions::from_mode(0o777)).expect("the test owns it");
        let mut command = Command::new("unshare");
        command.args(if is_root { &["--mount"][..] } else { &["--map-root-user", "--mount"] });
        command.args(["sh", "-c", &format!("{PREAMBLE}{script}")]).current_dir(sandbox.home());
        command.env("AS", account).env("W", program);
        let output = CommandOutput::new(command.output().expect(MISSING_PROGRAM));
        require(output.code != Some(99) && !output.err.starts_with("unshare"), "a file system of its own");
        format!("as {account:?}\n{}{}", output.out, output.err)
    });
    output.collect()
}

/// Checks the lines that ten ticks of this name printed, and the exit code of one more.
#[track_caller]
fn check(output: &str, name: &str, code: u8, expected: &[&str]) {
    let prefix = format!("{name}: ");
    let lines: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
    let is_expected =
        lines.len() == expected.len() && lines.iter().zip(expected).all(|(line, part)| line.contains(part));
    assert!(is_expected, "{name} prints {lines:#?}, expected {expected:#?}, in\n{output}");
    assert!(output.contains(&format!("{name} gives {code}\n")), "{name} exits {code} in\n{output}");
}

const TARGETS: &str = "state_dir: state\nnotify: [{command: 'cat >> ../messages; echo >> ../messages'}]\ntargets:\n  \
    - {name: slow, command: test -e ../well, restart: touch ../restarted}\n  \
    - {name: quick, command: test -e ../well, failure_threshold: 1}\n  \
    - {name: bold, command: test -e ../well, failure_threshold: 1, restart: touch ../restarted-too}\n";

#[test]
fn a_full_disk_and_outages_during_it_are_reported_once_a_day() {
    let script = r#"
        touch ../well; ticks well --once
        fill; ticks full --once; ticks again --once
        rm ../well; ticks failing --once
        echo "messages: $(grep -c '"event":"down"' ../messages)"; cat ../messages
        touch ../well; empty; ticks room --once
        fill; ticks restored --once
        empty; echo '{' > state/state.json; fill; ticks lost --once
        ls .. | grep restarted && echo "RESTARTED"
    "#;
    for output in run_scenario(TARGETS, script) {
        check(&output, "well", 0, &[]);
        check(&output, "full", 4, &["state.json: no space left on device (nothing is restarted)"]);
        check(&output, "again", 4, &[]);
        let expected = [
            "quick down: 1 of 1",
            "bold down: 1 of 1",
            "bold not restarted: the state cannot be saved",
            "slow is failing: exit 1 (",
        ];
        let mut lines: Vec<&str> = output.lines().filter(|line| line.starts_with("failing: ")).collect();
        for part in expected {
            let at = lines.iter().position(|line| line.contains(part));
            lines.remove(at.unwrap_or_else(|| panic!("{part} is in\n{output}")));
        }
        assert!(lines.is_empty() && output.contains("failing gives 4\n"), "{lines:#?} is unexpected in\n{output}");
        assert!(output.contains("messages: 2\n"), "one message for each target in\n{output}");
        assert!(output.contains(", not restarted: the state cannot be saved"), "the reason is in\n{output}");
        check(&output, "room", 0, &[]);
        check(&output, "restored", 4, &["no space left on device"]);
        check(&output, "lost", 4, &["state.json.corrupt-"]);
        assert!(!output.contains("RESTARTED"), "nothing was restarted in\n{output}");
    }
}

/// A target that goes down again and again is reported no more often than a flapping one.
#[test]
fn on_a_full_disk_a_second_outage_of_a_target_is_reported() {
    let target = "  - {name: app, command: test -e ../well, failure_threshold: 1}\n";
    let command = "test -e ../deaf && exit 1; cat >> ../messages; echo >> ../messages";
    let configuration = format!("state_dir: state\nnotify: [{{command: '{command}'}}]\ntargets:\n{target}");
    let script = r#"
        of() { grep -c "\"event\":\"$1\"" ../messages; }
        count() { echo "after $1: $(of down) down, $(of up) up"; }
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
        touch ../well; empty; ticks late --once; : > ../messages
        touch ../deaf; rm ../well; $AS "$W" --once > /dev/null; fill; rm ../deaf
        n=0; until [ -s ../messages ] || [ $n = 600 ]; do n=$((n + 1)); $AS "$W" --once; sleep 0.1; done
        ticks waited --once; count waited
    "#;
    for output in run_scenario(&configuration, script) {
        check(&output, "well", 0, &[]);
        check(&output, "full", 4, &["no space left on device"]);
        check(&output, "first", 4, &["app down: 1 of 1"]);
        check(&output, "back", 4, &[]);
        check(&output, "second", 4, &["app down: 1 of 1"]);
        let rounds = output.lines().filter(|line| line.starts_with("round") && line.contains("app down")).count();
        assert_eq!(rounds, 2, "the next two are reported, then one an hour in\n{output}");
        for counted in ["first: 1 down", "second: 2 down", "all: 4 down", "known: 5 down"] {
            assert!(output.contains(&format!("after {counted}, 0 up\n")), "{counted} in\n{output}");
        }
        // The saved state contains the outage but not its end.
        check(&output, "up", 4, &["no space left on device", "app healthy: "]);
        assert!(output.contains("after up: 5 down, 1 up\n"), "the end is reported once in\n{output}");
        check(&output, "again", 4, &["app is down again: exit 1 ("]);
        assert!(output.contains("after waited: 1 down, 0 up\n"), "the waiting message is delivered once in\n{output}");
    }
}

#[test]
fn if_no_file_can_be_created_messages_are_sent_only_in_the_first_minutes_of_a_day() {
    let (noon, midnight) = (timezone_at_minute(720), timezone_at_minute(0));
    let target = |name: &str| format!("  - {{name: {name}, command: test -e ../well, failure_threshold: 1}}\n");
    let notify = "notify: [{command: 'cat >> ../messages; echo >> ../messages'}]";
    let configuration = format!("state_dir: state\n{notify}\ntargets:\n{}{}", target("one"), target("two"));
    let script = format!(
        r#"
        count() {{ echo "after $1: $(cat ../messages 2> /dev/null | grep -c '"event":"down"') messages"; }}
        touch ../well; ticks well --once; spend; rm ../well
        export TZ={noon}; ticks noon --once; count noon
        export TZ={midnight}; ticks late --once; count late; rm ../messages
        rm inode*; export TZ={noon}; ticks room --once; count room
        "#
    );
    for output in run_scenario(&configuration, &script) {
        check(&output, "well", 0, &[]);
        check(&output, "noon", 4, &[]);
        assert!(output.contains("after noon: 0 messages\n"), "no message at noon in\n{output}");
        let reports = output.lines().filter(|line| line.starts_with("late: one down: 1 of 1")).count();
        assert!((1..=10).contains(&reports), "the outage is reported at midnight in\n{output}");
        assert!(!output.contains("after late: 0 messages\n"), "a message is sent too in\n{output}");
        assert!(output.contains("after room: 2 messages\n"), "no message is lost in\n{output}");
    }
}

/// A value for TZ with which the local time is this many minutes after midnight now.
fn timezone_at_minute(minute: i64) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let west = i64::try_from(since.as_secs() / 60 % 1_440).expect("minutes of a day") - minute;
    format!("HERE{}{}:{:02}", if west < 0 { "-" } else { "" }, west.abs() / 60, west.abs() % 60)
}

#[test]
fn on_a_read_only_disk_errors_are_printed_only_in_the_first_minutes_of_a_day() {
    let (noon, midnight) = (timezone_at_minute(720), timezone_at_minute(0));
    let script = format!(
        r#"
        touch ../well; ticks well --once; remount ro
        export TZ={noon}; ticks tick --once; ticks start start --cron; ticks wrong --once -c nowhere.yaml
        export TZ={midnight}; ticks late --once; ticks again start --cron
        "#
    );
    for output in run_scenario(TARGETS, &script) {
        check(&output, "well", 0, &[]);
        for (name, code) in [("tick", 4), ("start", 4), ("wrong", 2)] {
            check(&output, name, code, &[]);
        }
        for (name, consequence) in [("late", "(nothing was done)"), ("again", "(nothing was started)")] {
            let prefix = format!("{name}: watchdog: cannot use state folder ");
            let reports =
                output.lines().filter(|line| line.starts_with(&prefix) && line.ends_with(consequence)).count();
            assert!((1..=10).contains(&reports), "{name} is reported at midnight in\n{output}");
        }
    }
}

#[test]
fn a_refused_lock_and_an_invalid_file_are_reported_once_a_day_each() {
    // Simulates a file system without locks, such as NFS without a lock daemon.
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
    for output in run_scenario(TARGETS, &script) {
        for (name, code) in [("well", 0), ("fine", 0), ("free", 0)] {
            check(&output, name, code, &[]);
        }
        // A healthy configuration in between does not make the other's error news again.
        let errors = output.matches("bad: bad.yaml:1:").count();
        assert_eq!(errors, 1, "an invalid configuration is reported once in\n{output}");
        check(&output, "tick", 4, &["watchdog.lock: no locks available (nothing was done)"]);
        check(&output, "start", 4, &["watchdog.lock: no locks available (nothing was started)"]);
    }
}
