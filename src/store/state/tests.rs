//! The state on disk: it is read as it was written, and one that cannot be read is kept.

#![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

use std::os::unix::fs::{MetadataExt, symlink};
use std::thread;

use super::*;
use crate::policy::{Event, Limits, Mode, Policy, Streak, TargetState, Ticks};
use crate::store::child::{self, eventually};
use crate::testing::{boot_clock_reading, fuzz, temp_state_folder};
use crate::time::BootTime;

/// 50 s after the boot.
fn now() -> BootClockReading {
    boot_clock_reading(BootTime::from_ms(50_000), WallTime::from_ms(1_795_313_530_000), Some("boot-1"))
}

fn sample() -> SavedState {
    let at = BootTime::from_ms;
    let mut target = TargetState { since: Some(at(1_000)), ..TargetState::default() };
    target.streak = Some(Streak { count: 2, first: at(30_000), last: at(40_000) });
    target.real.starts = [at(20_000), at(45_000)].into();
    target.real.cooldown_until = Some(at(90_000));
    let mut saved =
        SavedState { mode: Some(Mode::Daemon), pid: Some(7), written_at: Some(now().at.now), ..SavedState::default() };
    saved.policy.ticks.note(at(45_000));
    saved.policy.targets.insert("a".into(), target);
    saved.files.insert("a".into(), FileTime { written: now().at.wall, seen: at(45_000), age_ms: 7 });
    saved.history.record("a", true, now().at.wall.offset_by(-5_000), now().at.wall);
    saved.pending.push("{}".into());
    saved.outbox.mark_failed("a channel", "1", "status 503", None, at(45_000));
    saved
}

#[track_caller]
fn read(folder: &Folder, reading: &BootClockReading) -> SavedState {
    match load(folder, reading).unwrap() {
        Loaded::Read(saved) => *saved,
        other => panic!("{other:?}"),
    }
}

/// Saves the policy's state as it was read.
fn save(folder: &Folder, saved: &SavedState, reading: &BootClockReading, durable: bool) -> Result<(), Error> {
    super::save(folder, saved, &saved.policy, reading, durable)
}

#[test]
fn a_saved_state_is_read_back() {
    let (_scene, folder) = temp_state_folder();
    assert!(matches!(load(&folder, &now()), Ok(Loaded::Fresh)));
    for durable in [true, false] {
        save(&folder, &sample(), &now(), durable).unwrap();
        assert_eq!(read(&folder, &now()), sample());
        assert_eq!(*peek(&folder, &now()).unwrap().unwrap(), sample());
    }
    assert_eq!(fs::metadata(folder.file(STATE)).unwrap().mode() & 0o777, 0o600);
    assert!(!folder.file("state.tmp").exists());
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(peek(&folder, &now()), Ok(None)));
    save(&folder, &sample(), &now(), true).unwrap();
    assert_eq!(read(&folder, &now()), sample());
}

/// The state is saved at 50 s on the boot clock. `start` is the expected time of an attempt that was at 45 s, 5 s
/// earlier.
#[track_caller]
fn check_clocks(boot_ids: [Option<&str>; 2], now_ms: i64, wall_step_ms: i64, start: i64, rebooted: bool) {
    let (_scene, folder) = temp_state_folder();
    let [before, after] = boot_ids;
    save(&folder, &sample(), &boot_clock_reading(now().at.now, now().at.wall, before), false).unwrap();
    let wall = now().at.wall.offset_by(wall_step_ms);
    let saved = read(&folder, &boot_clock_reading(BootTime::from_ms(now_ms), wall, after));
    let target = &saved.policy.targets["a"];
    assert_eq!(target.real.starts[1].as_ms(), start);
    assert_eq!(saved.files["a"].seen.as_ms(), start);
    assert_eq!(target.real.starts[1].since(target.real.starts[0]), Duration::from_secs(25));
    let mut ticks = Ticks::default();
    ticks.note(BootTime::from_ms(start));
    assert_eq!(saved.policy.ticks, ticks);
    let age = saved.age(BootTime::from_ms(now_ms)).unwrap();
    let since_boot = Duration::from_millis(if rebooted { u64::try_from(now_ms).unwrap() } else { 0 });
    assert_eq!(age, since_boot.max(Duration::from_millis(u64::try_from(now_ms - start - 5_000).unwrap())));
    assert_eq!(target.real.cooldown_until.is_none(), rebooted);
    assert_eq!(target.streak.is_none(), rebooted);
    let mut outbox = sample().outbox;
    outbox.shift(start - 45_000);
    assert_eq!(saved.outbox, outbox);
}

#[test]
fn times_move_to_the_present_boot_clock() {
    let (one, two) = (Some("boot-1"), Some("boot-2"));
    let (same, other, unknown, lost) = ([one, one], [one, two], [None, None], [one, None]);
    // The same boot: the wall clock does not matter.
    check_clocks(same, 60_000, 10_000, 45_000, false);
    check_clocks(same, 60_000, -9_000_000, 45_000, false);
    check_clocks(same, 60_000, 9_000_000, 45_000, false);
    // The boot clock never goes back; if it seems to, no time has passed.
    check_clocks(same, 40_000, 10_000, 35_000, false);
    // Another boot: 100 s by the wall clock, 20 s of them in this boot.
    check_clocks(other, 20_000, 100_000, 20_000 - 105_000, true);
    // Another boot, and the wall clock was set back: no time has passed.
    check_clocks(other, 20_000, -3_600_000, 15_000, true);
    check_clocks(other, 90_000, -3_600_000, 85_000, true);
    // No boot id: the wall clock counts, never backwards, and it is no reboot unless the boot clock proves one.
    for ids in [unknown, lost, [None, two]] {
        check_clocks(ids, 60_000, 10_000, 45_000, false);
        check_clocks(ids, 60_000, -3_600_000, 55_000, false);
        check_clocks(ids, 20_000, 100_000, 20_000 - 105_000, true);
    }
}

#[track_caller]
fn check_set_aside(bytes: &[u8]) -> String {
    let (_scene, folder) = temp_state_folder();
    fs::write(folder.file(STATE), bytes).unwrap();
    assert_eq!(peek(&folder, &now()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(folder.file(STATE).exists(), "peek must not move it");
    let Ok(Loaded::SetAside { to, why }) = load(&folder, &now()) else { panic!("it was not set aside") };
    assert!(fs::read(to).unwrap() == bytes, "the old file was changed");
    assert!(!folder.file(STATE).exists());
    why.to_string()
}

#[test]
fn a_state_cut_short_anywhere_is_set_aside() {
    let (_scene, folder) = temp_state_folder();
    save(&folder, &sample(), &now(), false).unwrap();
    let bytes = fs::read(folder.file(STATE)).unwrap();
    for len in 0..bytes.len() {
        check_set_aside(&bytes[..len]);
    }
}

#[test]
fn unreadable_contents_are_set_aside() {
    check_set_aside(&[0; 4_096]);
    check_set_aside("[".repeat(200_000).as_bytes());
    check_set_aside(format!("{{\"version\":1,\"x\":{}", "{\"a\":".repeat(200_000)).as_bytes());
    check_set_aside(b"{\"version\":1}");
    let newer = check_set_aside(b"{\"version\":2,\"all\":\"new\"}");
    assert!(newer.ends_with("it has format version 2; this watchdog reads version 1"), "{newer}");
    let huge = check_set_aside(&vec![b' '; 50 << 20]);
    assert!(huge.ends_with("it is larger than 32 MiB"), "{huge}");
}

/// Damage that leaves JSON of the right shape is accepted, and must do no further harm: whatever the times and counts
/// are, the watchdog can continue from them and save the result.
#[test]
fn a_damaged_state_is_set_aside_or_safe_to_continue_from() {
    let (_scene, folder) = temp_state_folder();
    save(&folder, &sample(), &now(), false).unwrap();
    let sample = fs::read(folder.file(STATE)).unwrap();
    // Times must shift in both directions.
    let reboot = boot_clock_reading(now().at.now, now().at.wall.offset_by(3_600_000), Some("boot-2"));
    let long_up = boot_clock_reading(BootTime::from_ms(7_200_000), reboot.at.wall, None);
    let mut read = 0;
    fuzz(&[&sample], 3_000, |bytes| {
        let after = if bytes.len() % 2 == 0 { &reboot } else { &long_up };
        fs::write(folder.file(STATE), bytes).unwrap();
        let mut saved = match load(&folder, after).unwrap() {
            Loaded::Read(saved) => saved,
            Loaded::SetAside { to, .. } => return assert_eq!(fs::read(to).unwrap(), bytes),
            Loaded::Fresh => panic!("the file exists"),
        };
        read += 1;
        saved.history.record("a", true, now().at.wall, now().at.wall.offset_by(5_000));
        saved.history.get("a").map(|uptime| uptime.days(90, now().at.wall));
        let limits = BTreeMap::from([("a".to_owned(), Limits::default())]);
        let state = std::mem::take(&mut saved.policy);
        let (mut policy, _) = Policy::new(Mode::Daemon, limits, state, false, after.at.now);
        for minute in 1..20 {
            policy.step(Event::Wake, after.at.now.offset_by(minute * 60_000));
        }
        super::save(&folder, &saved, &policy.state_ref(), after, false).unwrap();
        assert!(matches!(load(&folder, after).unwrap(), Loaded::Read(_)));
    });
    assert!(read > 300, "only {read} were of the right shape");
}

#[test]
fn a_state_with_absurd_times_is_read_without_a_panic() {
    let (_scene, folder) = temp_state_folder();
    for (boot, wall) in [(i64::MAX, i64::MIN), (i64::MIN, i64::MAX), (i64::MIN, i64::MIN)] {
        let absurd = boot_clock_reading(BootTime::from_ms(boot), WallTime::from_ms(wall), None);
        save(&folder, &sample(), &absurd, false).unwrap();
        for boot_id in [None, Some("boot-1")] {
            read(&folder, &boot_clock_reading(now().at.now, now().at.wall, boot_id));
        }
    }
}

#[test]
fn three_damaged_states_are_kept_and_the_loss_is_reported_until_the_next_save() {
    let (_scene, folder) = temp_state_folder();
    for n in 0..5 {
        fs::write(folder.file(STATE), format!("damaged {n}")).unwrap();
        let wall = now().at.wall.offset_by(i64::from(n) / 2 * 1_000); // two in one second
        let Ok(Loaded::SetAside { to, .. }) = load(&folder, &boot_clock_reading(now().at.now, wall, Some("boot-1")))
        else {
            panic!()
        };
        assert_eq!(fs::read_to_string(to).unwrap(), format!("damaged {n}"));
    }
    let kept: Vec<String> = list_set_aside(&folder).unwrap().iter().map(|p| fs::read_to_string(p).unwrap()).collect();
    assert_eq!(kept, ["damaged 2", "damaged 3", "damaged 4"]);
    assert!(matches!(load(&folder, &now()), Ok(Loaded::SetAside { .. })));
    save(&folder, &sample(), &now(), false).unwrap();
    assert_eq!(read(&folder, &now()), sample());
}

#[test]
fn links_planted_in_the_folder_are_not_followed() {
    let (scene, folder) = temp_state_folder();
    let precious = scene.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    symlink(&precious, folder.file("state.tmp")).unwrap();
    symlink(&precious, folder.file(STATE)).unwrap();
    let refused = peek(&folder, &now()).unwrap_err().to_string();
    assert!(refused.ends_with("it is a symbolic link; links are not followed"), "{refused}");
    assert!(matches!(load(&folder, &now()), Ok(Loaded::SetAside { .. })));
    symlink(&precious, folder.file(STATE)).unwrap();
    save(&folder, &sample(), &now(), true).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    assert_eq!(read(&folder, &now()), sample());
}

#[test]
fn a_failed_save_is_described() {
    let (_scene, folder) = temp_state_folder();
    fs::create_dir_all(folder.file("state.json/x")).unwrap();
    let path = folder.file(STATE);
    let error = save(&folder, &sample(), &now(), true).unwrap_err().to_string();
    assert_eq!(error, format!("cannot save {}: is a directory", path.display()));
    assert!(!folder.file("state.tmp").exists());
}

#[test]
fn a_full_disk_leaves_the_old_state_intact() {
    const NAME: &str = "store::state::tests::saves_on_a_small_disk";
    let (_scene, folder) = temp_state_folder();
    #[cfg(feature = "full-tests")]
    child::run_on_mount(NAME, folder.path(), "size=64k");
    // A limit on file sizes needs no mount: 96 blocks of 512 bytes.
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", r#"trap "" XFSZ; ulimit -f 96; exec "$@""#, "sh"]);
    let child = child::command(NAME, folder.path());
    limited.arg(child.get_program()).args(child.get_args());
    limited.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(limited.stdout(std::process::Stdio::null()).status().unwrap().success());
}

/// Runs in a child of a_full_disk_leaves_the_old_state_intact; does nothing otherwise.
#[test]
fn saves_on_a_small_disk() {
    let Some(path) = child::folder() else { return };
    let folder = Folder::open(&path).unwrap();
    save(&folder, &sample(), &now(), true).unwrap();
    let large = SavedState { pending: vec!["x".repeat(1_000); 100], ..sample() };
    for durable in [true, false] {
        let error = save(&folder, &large, &now(), durable).unwrap_err().to_string();
        let full = error.ends_with("state.json: no space left on device");
        assert!(full || error.ends_with("state.json: file too large"), "{error}");
        assert_eq!(read(&folder, &now()), sample());
        assert!(!folder.file("state.tmp").exists());
    }
    save(&folder, &sample(), &now(), true).unwrap();
}

#[test]
fn kill_9_at_any_moment_leaves_a_whole_state() {
    let (_scene, folder) = temp_state_folder();
    let count = || match load(&folder, &now()).unwrap() {
        Loaded::Read(saved) => saved.pid.unwrap(),
        Loaded::Fresh => 0,
        Loaded::SetAside { why, .. } => panic!("{why}"),
    };
    for round in 0..100 {
        let before = count();
        let mut child = child::command("store::state::tests::saves_until_killed", folder.path()).spawn().unwrap();
        eventually("the child to save", || count() > before);
        // Spreads the kills over the steps of a save; no assertion depends on it.
        thread::sleep(Duration::from_micros(137 * round % 2_000));
        let seen = count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(count() >= seen, "a save that was seen is gone");
    }
}

/// Runs in a child of kill_9_at_any_moment_leaves_a_whole_state; does nothing otherwise.
#[test]
fn saves_until_killed() {
    let Some(path) = child::folder() else { return };
    let folder = Folder::open(&path).unwrap();
    let mut saved = peek(&folder, &now()).unwrap().map_or_else(sample, |saved| *saved);
    saved.pending = vec!["x".repeat(1_000); 20];
    for n in saved.pid.unwrap().. {
        saved.pid = Some(n + 1);
        save(&folder, &saved, &now(), n % 2 == 0).unwrap();
    }
}

#[test]
fn the_limit_for_recent_ticks_depends_on_their_usual_gap() {
    #[track_caller]
    fn check(ticks_min: &[i64], limit_min: u64) {
        let mut saved = SavedState::default();
        ticks_min.iter().for_each(|minute| saved.policy.ticks.note(now().at.now.offset_by(minute * 60_000)));
        assert_eq!(saved.max_tick_gap(), Duration::from_secs(60 * limit_min));
    }
    check(&[], 5);
    check(&[0, 1, 2], 5);
    check(&[0, 5, 10, 15], 15);
    // One manual tick and one night without ticks do not change the usual gap.
    check(&[0, 5, 6, 10, 500, 505], 15);
    check(&[0, 60, 120], 60);
    check(&[120, 0, 5], 15);
}

/// The state is written at 50 s, the lock is touched `touched_s` later, and the question is asked `asked_s` after the
/// write, with the wall clock set by `set_s` meanwhile.
#[track_caller]
fn check_since(touched_s: i64, asked_s: i64, set_s: i64, expected_s: u64) {
    let saved = SavedState { last_seen: Some(now().at.wall), ..sample() };
    let ClockReading { now: written, wall } = now().at;
    let at = ClockReading { now: written.offset_by(asked_s * 1_000), wall: wall.offset_by((asked_s + set_s) * 1_000) };
    let since = saved.elapsed_since(wall.offset_by(touched_s * 1_000), at);
    assert_eq!(since, Duration::from_secs(expected_s));
}

#[test]
fn setting_the_wall_clock_does_not_change_the_age_of_a_sign_of_life() {
    check_since(10, 30, 0, 20);
    // Older than the state: the file's time was set, or comes from another clock.
    check_since(-600, 5, 0, 605);
    check_since(600, 5, 0, 595);
    for set in [-300, 300, -86_400 * 3_650, 86_400 * 3_650] {
        // Touched before the clock was set, and after.
        check_since(10, 30, set, 20);
        check_since(10 + set, 30, set, 20);
        check_since(10, 700, set, if set == -300 { 390 } else { 690 });
    }
    // The state alone is a sign of life.
    check_since(-5_000, 60, -300, 60);
    let rebooted = SavedState { last_seen: Some(now().at.wall), rebooted: true, ..sample() };
    let later = |ms: i64| ClockReading { wall: now().at.wall.offset_by(ms), ..now().at };
    assert_eq!(rebooted.elapsed_since(now().at.wall, later(700_000)), Duration::from_secs(700));
    assert_eq!(SavedState::default().elapsed_since(now().at.wall, later(-9_000)), Duration::from_secs(9));
}
