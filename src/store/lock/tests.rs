//! The lock: one holder, who says who it is, with real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::store::child::{self, eventually};
use crate::testing::temp_state_folder;

const CONFIG: &str = "/etc/watchdog.yaml";

fn acquire(folder: &Folder) -> Result<Lock, LockError> {
    Lock::try_acquire(folder, Mode::Daemon, Path::new(CONFIG))
}

/// Tests run in one process, and a process that another test is just starting has our descriptors for an instant.
fn acquire_soon(folder: &Folder) -> Lock {
    let mut lock = None;
    eventually("the lock", || {
        lock = acquire(folder).ok();
        lock.is_some()
    });
    lock.unwrap()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn holder_in_a_child(folder: &Folder) -> Killed {
    let child = child::command("store::lock::tests::holds_until_killed", folder.path()).spawn().unwrap();
    let killed = Killed(child);
    eventually("the child to hold the lock", || read_holder(folder).is_some_and(|holder| holder.pid == killed.0.id()));
    killed
}

/// A child of other tests; run by itself it has nothing to do.
#[test]
fn holds_until_killed() {
    let Some(path) = child::folder() else { return };
    let _lock = acquire_soon(&Folder::open(&path).unwrap());
    loop {
        thread::park();
    }
}

#[test]
fn one_holds_it_and_the_other_learns_who() {
    let (_scene, folder) = temp_state_folder();
    assert_eq!(read_holder(&folder), None);
    let lock = acquire(&folder).unwrap();
    let Err(LockError::Held(HeldBy::Seen(holder))) = acquire(&folder) else { panic!("it was taken twice") };
    assert_eq!(
        (holder.pid, holder.mode, holder.config.as_path()),
        (std::process::id(), Mode::Daemon, Path::new(CONFIG))
    );
    assert_eq!(read_holder(&folder), Some(holder.clone()));
    assert_eq!((prove(&folder, &holder), is_gone(&holder)), (HolderProof::Holds, false));
    drop(lock);
    assert_eq!(read_holder(&folder), None);
    assert_eq!((prove(&folder, &holder), is_gone(&holder)), (HolderProof::Over, false));
    acquire_soon(&folder);
}

#[test]
fn a_shorter_note_leaves_nothing_of_a_longer_one() {
    let (_scene, folder) = temp_state_folder();
    drop(Lock::try_acquire(&folder, Mode::Daemon, Path::new(&format!("/{}", "x".repeat(3_000)))).unwrap());
    let _lock = acquire_soon(&folder);
    let text = fs::read_to_string(folder.file(LOCK)).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(read_holder(&folder).unwrap().config, Path::new(CONFIG));
}

#[test]
fn kill_9_frees_it() {
    let (_scene, folder) = temp_state_folder();
    let child = holder_in_a_child(&folder);
    let holder = read_holder(&folder).unwrap();
    assert_eq!(prove(&folder, &holder), HolderProof::Holds);
    assert!(matches!(acquire(&folder), Err(LockError::Held(HeldBy::Seen(found))) if found.pid == holder.pid));
    drop(child);
    assert_eq!(read_holder(&folder), None);
    assert_eq!((prove(&folder, &holder), is_gone(&holder)), (HolderProof::Over, true));
    acquire(&folder).unwrap();
}

#[test]
fn what_we_start_does_not_inherit_it() {
    let (_scene, folder) = temp_state_folder();
    let lock = acquire(&folder).unwrap();
    let inode = Inode::of(&lock.file.metadata().unwrap());
    let sleeper = Killed(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap());
    assert!(!has_open(sleeper.0.id(), inode).unwrap());
    drop(lock);
    acquire_soon(&folder);
}

#[test]
fn a_reused_pid_is_not_taken_for_the_holder() {
    let (_scene, folder) = temp_state_folder();
    let sleeper = Killed(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap());
    let pid = sleeper.0.id();
    let started = process::identify_living(pid).unwrap().started;
    // Even the right start time is not enough: the process must have the lock file open.
    let note = LockNote { pid, started, mode: Mode::Daemon, config: CONFIG.into() };
    fs::write(folder.file(LOCK), serde_json::to_string(&note).unwrap()).unwrap();
    assert_eq!(read_holder(&folder), None);
    // This process has it open, but began at another time.
    let lock = acquire(&folder).unwrap();
    let mine = read_holder(&folder).unwrap();
    let reused = Holder { started: mine.started + 1, ..mine };
    assert_eq!(prove(&folder, &reused), HolderProof::Over);
    let note = LockNote { pid: reused.pid, started: reused.started, mode: Mode::Once, config: String::new() };
    fs::write(folder.file(LOCK), serde_json::to_string(&note).unwrap()).unwrap();
    assert_eq!(read_holder(&folder), None);
    drop(lock);
}

#[test]
fn a_holder_that_has_not_said_who_it_is_is_waited_for() {
    let (_scene, folder) = temp_state_folder();
    let file = files::open_or_create(&folder.file(LOCK)).unwrap();
    file.lock().unwrap();
    assert!(matches!(acquire(&folder), Err(LockError::Held(HeldBy::Unseen(Unseen { note: None, .. })))));
    let Ok(Some(HeldBy::Unseen(Unseen { note: None, .. }))) = read_lock(&folder) else { panic!("nobody holds it") };
    assert_eq!(read_holder(&folder), None);
    assert!(can_lock(&folder).is_ok());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| acquire(&folder));
        thread::sleep(PAUSE * 4); // long enough for a first look that finds nothing; the outcome does not hang on it
        let pid = std::process::id();
        let note = LockNote {
            pid,
            started: process::identify_living(pid).unwrap().started,
            mode: Mode::Once,
            config: CONFIG.into(),
        };
        let mut lock = Lock { folder: folder.clone(), file, note, announced: false };
        lock.announce().unwrap();
        let answer = waiting.join().unwrap();
        assert!(matches!(answer, Err(LockError::Held(HeldBy::Seen(holder))) if holder.mode == Mode::Once));
    });
}

#[test]
fn a_touch_is_seen_as_a_sign_of_life() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    let old = fs::File::open(folder.file(LOCK)).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(read_holder(&folder).unwrap().touched, WallTime::from_ms(0));
    assert!(matches!(lock.touch(), Ok(TouchResult::Ours)));
    assert!(read_holder(&folder).unwrap().touched > WallTime::from_ms(1_700_000_000_000));
}

#[test]
fn deleted_with_its_folder_it_is_made_again_and_locked() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(lock.touch(), Ok(TouchResult::Remade)));
    assert!(matches!(lock.touch(), Ok(TouchResult::Ours)));
    assert!(matches!(acquire(&folder), Err(LockError::Held(HeldBy::Seen(_)))));
}

#[test]
fn deleted_and_taken_by_another_it_is_lost() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    fs::remove_file(folder.file(LOCK)).unwrap();
    let other = holder_in_a_child(&folder);
    assert!(matches!(lock.touch(), Ok(TouchResult::Lost(HeldBy::Seen(holder))) if holder.pid == other.0.id()));
}

/// As on a network drive that has dropped a lock: each believes that it has it.
#[test]
fn of_two_that_have_it_the_one_whose_note_stands_goes_on() {
    let (_scene, folder) = temp_state_folder();
    let mut first = acquire(&folder).unwrap();
    let file = files::open_or_create(&folder.file(LOCK)).unwrap();
    let note = LockNote { pid: 1, config: "/other.yaml".into(), ..first.note.clone() };
    let mut second = Lock { folder: folder.clone(), file, note, announced: false };
    assert!(matches!(second.touch(), Ok(TouchResult::Ours)));
    let lost = first.touch();
    assert!(
        matches!(&lost, Ok(TouchResult::Lost(HeldBy::Unseen(unseen))) if unseen.note.as_ref() == Some(&second.note)),
        "{lost:?}"
    );
    assert!(matches!(second.touch(), Ok(TouchResult::Ours)));

    // Damaged before either has looked, it is written by whoever looks first.
    fs::write(folder.file(LOCK), "").unwrap();
    assert!(matches!(first.touch(), Ok(TouchResult::Ours)));
    assert!(matches!(second.touch(), Ok(TouchResult::Lost(_))));
}

#[test]
fn a_note_that_somebody_damaged_is_written_anew() {
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    for damage in [&b""[..], b"\n", b"garbage\n", b"{\"pid\":1}\n", b"\xff\xfe", &[b'x'; 100 << 10]] {
        fs::write(folder.file(LOCK), damage).unwrap();
        assert!(matches!(lock.touch(), Ok(TouchResult::Ours)));
        assert_eq!(read_holder(&folder).unwrap().config, Path::new(CONFIG));
    }
}

/// Whoever asks takes the lock for an instant: that must turn nobody away, nor be seen by others who ask.
#[test]
fn asking_who_holds_it_is_in_nobodys_way() {
    let (_scene, folder) = temp_state_folder();
    drop(acquire(&folder).unwrap());
    let asks = || child::command("store::lock::tests::asks", folder.path()).spawn().unwrap();
    let _asking = [Killed(asks()), Killed(asks())];
    eventually("both to ask", || folder.path().read_dir().unwrap().count() > 2);
    for _ in 0..300 {
        // This process has the file open while it tries, and must not take itself for the holder.
        fs::write(folder.file(LOCK), "").unwrap();
        drop(acquire(&folder).unwrap());
    }
}

/// A child of asking_who_holds_it_is_in_nobodys_way; run by itself it has nothing to do.
#[test]
fn asks() {
    let Some(path) = child::folder() else { return };
    let folder = Folder::at(&path);
    fs::write(folder.file(&std::process::id().to_string()), "").unwrap();
    loop {
        assert!(!matches!(read_lock(&folder), Ok(Some(HeldBy::Unseen(_))) | Err(_)));
    }
}

#[test]
fn where_locks_are_to_be_had_is_known_without_a_trace() {
    let (scene, folder) = temp_state_folder();
    assert!(can_lock(&folder).is_ok());
    assert!(can_lock(&Folder::at(&scene.path().join("a/b/c"))).is_ok());
    let left = [scene.path(), folder.path()].map(|path| path.read_dir().unwrap().count());
    assert_eq!(left, [1, 0], "nothing was made");
}

#[test]
fn what_stands_in_its_place_is_an_error() {
    #[track_caller]
    fn check(plant: impl FnOnce(&Path), reason: &str) {
        let (_scene, folder) = temp_state_folder();
        plant(&folder.file(LOCK));
        assert_eq!(read_holder(&folder), None);
        let Err(LockError::Io(error)) = acquire(&folder) else { panic!("it was locked") };
        let expected = format!("cannot lock {}: {reason}", folder.file(LOCK).display());
        assert_eq!(error.to_string(), expected);
    }
    check(|path| symlink("/etc/hostname", path).unwrap(), "a symbolic link stands in its place");
    check(|path| fs::create_dir(path).unwrap(), "is a directory");
    check(|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "it is not a regular file");
}

#[test]
fn two_processes_racing_never_both_have_it() {
    let (_scene, folder) = temp_state_folder();
    let race = || child::command("store::lock::tests::races", folder.path()).spawn().unwrap();
    let mut children = [race(), race()];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
}

/// A child of two_processes_racing_never_both_have_it; run by itself it has nothing to do.
#[test]
fn races() {
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
fn without_free_descriptors_it_gives_its_sign_of_life_still() {
    if !crate::testing::is_alone() {
        let own = "store::lock::tests::without_free_descriptors_it_gives_its_sign_of_life_still";
        crate::testing::run_alone(own, &["env"]);
        return;
    }
    let (_scene, folder) = temp_state_folder();
    let mut lock = acquire(&folder).unwrap();
    lock.file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let touched = lock.touch();
    drop(held);
    assert!(matches!(touched, Ok(TouchResult::Ours)), "{touched:?}");
    assert!(read_holder(&folder).unwrap().touched > WallTime::from_ms(0));
}
