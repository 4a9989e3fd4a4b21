//! The lock with real processes: one holder, known to the others.

#![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::store::child::{self, eventually};
use crate::testing::temp_state_folder;

const CONFIG: &str = "/etc/watchdog.yaml";

fn acquire(folder: &Folder) -> Result<Lock, LockError> {
    Lock::try_acquire(folder, Mode::Daemon, Path::new(CONFIG))
}

/// All tests run in one process, and a child that another test is just starting briefly has copies of its descriptors.
fn acquire_soon(folder: &Folder) -> Lock {
    let mut lock = None;
    eventually("the lock", || {
        lock = acquire(folder).ok();
        lock.is_some()
    });
    lock.unwrap()
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn holder_in_a_child(folder: &Folder) -> KillOnDrop {
    let child = child::command("store::lock::tests::holds_until_killed", folder.path()).spawn().unwrap();
    let child = KillOnDrop(child);
    eventually("the child to hold the lock", || read_holder(folder).is_some_and(|holder| holder.pid == child.0.id()));
    child
}

/// Runs in a child of other tests; does nothing otherwise.
#[test]
fn holds_until_killed() {
    let Some(path) = child::folder() else { return };
    let _lock = acquire_soon(&Folder::open(&path).unwrap());
    loop {
        thread::park();
    }
}

#[test]
fn a_second_watchdog_learns_who_holds_the_lock() {
    let (_scene, folder) = temp_state_folder();
    assert_eq!(read_holder(&folder), None);
    let lock = acquire(&folder).unwrap();
    let Err(LockError::Held(HeldBy::Visible(holder))) = acquire(&folder) else { panic!("the lock was acquired twice") };
    assert_eq!(
        (holder.pid, holder.mode, holder.config.as_path()),
        (std::process::id(), Mode::Daemon, Path::new(CONFIG))
    );
    assert_eq!(read_holder(&folder), Some(holder.clone()));
    assert_eq!((prove_holder(&folder, &holder), has_exited(&holder)), (HolderProof::Holds, false));
    drop(lock);
    assert_eq!(read_holder(&folder), None);
    assert_eq!((prove_holder(&folder, &holder), has_exited(&holder)), (HolderProof::NotHolding, false));
    acquire_soon(&folder);
}

#[test]
fn a_shorter_note_leaves_nothing_of_a_longer_one() {
    let (_scene, folder) = temp_state_folder();
    drop(Lock::try_acquire(&folder, Mode::Daemon, Path::new(&format!("/{}", "x".repeat(3_000)))).unwrap());
    let _lock = acquire_soon(&folder);
    let text = fs::read_to_string(folder.file(LOCK_NAME)).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(read_holder(&folder).unwrap().config, Path::new(CONFIG));
}

#[test]
fn kill_9_releases_the_lock() {
    let (_scene, folder) = temp_state_folder();
    let child = holder_in_a_child(&folder);
    let holder = read_holder(&folder).unwrap();
    assert_eq!(prove_holder(&folder, &holder), HolderProof::Holds);
    assert!(matches!(acquire(&folder), Err(LockError::Held(HeldBy::Visible(found))) if found.pid == holder.pid));
    drop(child);
    assert_eq!(read_holder(&folder), None);
    assert_eq!((prove_holder(&folder, &holder), has_exited(&holder)), (HolderProof::NotHolding, true));
    acquire(&folder).unwrap();
}

#[test]
fn started_processes_do_not_inherit_the_lock() {
    let (_scene, folder) = temp_state_folder();
    let lock = acquire(&folder).unwrap();
    let inode = Inode::of(&lock.file.metadata().unwrap());
    let sleeper = KillOnDrop(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap());
    assert!(!has_lock_open(sleeper.0.id(), inode).unwrap());
    drop(lock);
    acquire_soon(&folder);
}

#[test]
fn a_reused_pid_is_not_taken_for_the_holder() {
    let (_scene, folder) = temp_state_folder();
    let sleeper = KillOnDrop(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap());
    let pid = sleeper.0.id();
    let started = process::identify_living(pid).unwrap().started;
    // Even the right start time is not enough: the process must have the lock file open.
    let note = LockNote { pid, started, mode: Mode::Daemon, config: CONFIG.into() };
    fs::write(folder.file(LOCK_NAME), serde_json::to_string(&note).unwrap()).unwrap();
    assert_eq!(read_holder(&folder), None);
    // This process has the file open, but its start time differs.
    let lock = acquire(&folder).unwrap();
    let own = read_holder(&folder).unwrap();
    let reused = Holder { started: own.started + 1, ..own };
    assert_eq!(prove_holder(&folder, &reused), HolderProof::NotHolding);
    let note = LockNote { pid: reused.pid, started: reused.started, mode: Mode::Once, config: String::new() };
    fs::write(folder.file(LOCK_NAME), serde_json::to_string(&note).unwrap()).unwrap();
    assert_eq!(read_holder(&folder), None);
    drop(lock);
}

#[test]
fn a_holder_without_a_note_is_waited_for() {
    let (_scene, folder) = temp_state_folder();
    let file = files::open_or_create(&folder.file(LOCK_NAME)).unwrap();
    file.lock().unwrap();
    assert!(matches!(acquire(&folder), Err(LockError::Held(HeldBy::Hidden(HiddenHolder { note: None, .. })))));
    let Ok(Some(HeldBy::Hidden(HiddenHolder { note: None, .. }))) = read_lock(&folder) else {
        panic!("the lock is not held")
    };
    assert_eq!(read_holder(&folder), None);
    assert!(check_lock_support(&folder).is_ok());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| acquire(&folder));
        thread::sleep(RETRY_INTERVAL * 4); // long enough for a first try that finds no note; no assertion depends on it
        let pid = std::process::id();
        let note = LockNote {
            pid,
            started: process::identify_living(pid).unwrap().started,
            mode: Mode::Once,
            config: CONFIG.into(),
        };
        let mut lock = Lock { folder: folder.clone(), file, note, is_note_written: false };
        lock.write_note().unwrap();
        let result = waiting.join().unwrap();
        assert!(matches!(result, Err(LockError::Held(HeldBy::Visible(holder))) if holder.mode == Mode::Once));
    });
}

#[test]
fn a_touch_is_seen_as_a_sign_of_life() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    let old = fs::File::open(folder.file(LOCK_NAME)).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(read_holder(&folder).unwrap().touched, WallTime::from_ms(0));
    assert!(matches!(lock.touch(), Ok(TouchResult::StillHeld)));
    assert!(read_holder(&folder).unwrap().touched > WallTime::from_ms(1_700_000_000_000));
}

#[test]
fn a_lock_file_deleted_with_its_folder_is_created_and_locked_again() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(lock.touch(), Ok(TouchResult::Recreated)));
    assert!(matches!(lock.touch(), Ok(TouchResult::StillHeld)));
    assert!(matches!(acquire(&folder), Err(LockError::Held(HeldBy::Visible(_)))));
}

#[test]
fn a_lock_that_another_took_after_its_file_was_deleted_is_lost() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    fs::remove_file(folder.file(LOCK_NAME)).unwrap();
    let other = holder_in_a_child(&folder);
    assert!(matches!(lock.touch(), Ok(TouchResult::Lost(HeldBy::Visible(holder))) if holder.pid == other.0.id()));
}

/// As on a network drive that has dropped a lock: both processes believe that they hold it.
#[test]
fn of_two_holders_the_one_whose_note_is_in_the_file_continues() {
    let (_scene, folder) = temp_state_folder();
    let mut first = acquire(&folder).unwrap();
    let file = files::open_or_create(&folder.file(LOCK_NAME)).unwrap();
    let note = LockNote { pid: 1, config: "/other.yaml".into(), ..first.note.clone() };
    let mut second = Lock { folder: folder.clone(), file, note, is_note_written: false };
    assert!(matches!(second.touch(), Ok(TouchResult::StillHeld)));
    let lost = first.touch();
    assert!(
        matches!(&lost, Ok(TouchResult::Lost(HeldBy::Hidden(unseen))) if unseen.note.as_ref() == Some(&second.note)),
        "{lost:?}"
    );
    assert!(matches!(second.touch(), Ok(TouchResult::StillHeld)));

    // If it is damaged before either has checked, the first one to check writes its note.
    fs::write(folder.file(LOCK_NAME), "").unwrap();
    assert!(matches!(first.touch(), Ok(TouchResult::StillHeld)));
    assert!(matches!(second.touch(), Ok(TouchResult::Lost(_))));
}

#[test]
fn a_damaged_note_is_written_again() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    for damage in [&b""[..], b"\n", b"garbage\n", b"{\"pid\":1}\n", b"\xff\xfe", &[b'x'; 100 << 10]] {
        fs::write(folder.file(LOCK_NAME), damage).unwrap();
        assert!(matches!(lock.touch(), Ok(TouchResult::StillHeld)));
        assert_eq!(read_holder(&folder).unwrap().config, Path::new(CONFIG));
    }
}

/// Asking for the holder takes the lock for an instant: this must not turn anybody away, nor be visible to others who
/// ask.
#[test]
fn asking_for_the_holder_disturbs_nobody() {
    let (_scene, folder) = temp_state_folder();
    drop(acquire(&folder).unwrap());
    let start = || child::command("store::lock::tests::asks_for_the_holder", folder.path()).spawn().unwrap();
    let _asking = [KillOnDrop(start()), KillOnDrop(start())];
    eventually("both children to ask", || folder.path().read_dir().unwrap().count() > 2);
    for _ in 0..300 {
        // This process has the file open while it tries, and must not take itself for the holder.
        fs::write(folder.file(LOCK_NAME), "").unwrap();
        drop(acquire(&folder).unwrap());
    }
}

/// Runs in a child of asking_for_the_holder_disturbs_nobody; does nothing otherwise.
#[test]
fn asks_for_the_holder() {
    let Some(path) = child::folder() else { return };
    let folder = Folder::at(&path);
    fs::write(folder.file(&std::process::id().to_string()), "").unwrap();
    loop {
        assert!(!matches!(read_lock(&folder), Ok(Some(HeldBy::Hidden(_))) | Err(_)));
    }
}

#[test]
fn testing_for_lock_support_leaves_no_files() {
    let (scene, folder) = temp_state_folder();
    assert!(check_lock_support(&folder).is_ok());
    assert!(check_lock_support(&Folder::at(&scene.path().join("a/b/c"))).is_ok());
    let left = [scene.path(), folder.path()].map(|path| path.read_dir().unwrap().count());
    assert_eq!(left, [1, 0], "nothing was created");
}

#[test]
fn anything_but_a_regular_lock_file_is_an_error() {
    #[track_caller]
    fn check(plant: impl FnOnce(&Path), reason: &str) {
        let (_scene, folder) = temp_state_folder();
        plant(&folder.file(LOCK_NAME));
        assert_eq!(read_holder(&folder), None);
        let Err(LockError::Io(error)) = acquire(&folder) else { panic!("it was locked") };
        let expected = format!("cannot lock {}: {reason}", folder.file(LOCK_NAME).display());
        assert_eq!(error.to_string(), expected);
    }
    check(|path| symlink("/etc/hostname", path).unwrap(), "it is a symbolic link; links are not followed");
    check(|path| fs::create_dir(path).unwrap(), "is a directory");
    check(|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "it is not a regular file");
}

#[test]
fn two_racing_processes_never_both_hold_the_lock() {
    let (_scene, folder) = temp_state_folder();
    let start = || child::command("store::lock::tests::acquires_and_releases", folder.path()).spawn().unwrap();
    let mut children = [start(), start()];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
}

/// Runs in a child of two_racing_processes_never_both_hold_the_lock; does nothing otherwise.
#[test]
fn acquires_and_releases() {
    let Some(path) = child::folder() else { return };
    let folder = Folder::open(&path).unwrap();
    for _ in 0..100 {
        let lock = acquire_soon(&folder);
        let alone = folder.file("alone");
        File::create_new(&alone).expect("nobody else has the lock");
        fs::remove_file(&alone).unwrap();
        drop(lock);
    }
}

#[test]
fn the_lock_is_touched_without_free_descriptors() {
    if !crate::testing::is_alone() {
        let own = "store::lock::tests::the_lock_is_touched_without_free_descriptors";
        crate::testing::run_alone(own, &["env"]);
        return;
    }
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    lock.file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let touched = lock.touch();
    drop(held);
    assert!(matches!(touched, Ok(TouchResult::StillHeld)), "{touched:?}");
    assert!(read_holder(&folder).unwrap().touched > WallTime::from_ms(0));
}
