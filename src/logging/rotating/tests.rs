//! The log on disks that are full, closed or taken away.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use log::LevelFilter;
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use super::*;
use crate::testing::{is_alone, run_alone};

struct Place {
    folder: TempDir,
    log: Rotating,
}

impl Place {
    /// A log `logs/log` that does not exist yet, nor does its folder.
    fn new(max_size: u64, keep: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("logs/log");
        let settings = config::LogConfig { file, level: LevelFilter::Info, max_size, keep };
        Place { folder, log: Rotating::new(&settings, Zone::UTC) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    fn say(&mut self, text: &str) {
        say(&mut self.log, text);
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// The same without the date that the log puts before a line of its own.
    fn undated(&self, name: &str) -> String {
        let text = self.text(name);
        let lines = text.lines().map(|line| line.split_once(" warn  ").map_or(line, |(_, message)| message));
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn lengths(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.at("")).unwrap().map(Result::unwrap);
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()));
        let mut all: Vec<_> = named.collect();
        all.sort();
        all
    }
}

/// Says one line in pieces, as fern does.
fn say(log: &mut Rotating, text: &str) {
    writeln!(log, "{text}").and_then(|()| log.flush()).unwrap();
}

/// After `lines` numbered lines of ten bytes each: the files and their lengths, and the lines in them, oldest file
/// first, are the last ones without a gap.
#[track_caller]
fn check(max_size: u64, keep: u32, lines: usize, expected: &[(&str, u64)]) {
    let mut place = Place::new(max_size, keep);
    for number in 0..lines {
        place.say(&format!("line {number:04}"));
        let total: u64 = place.lengths().iter().map(|(_, length)| length).sum();
        assert!(total <= (u64::from(keep) + 1) * max_size, "{total} bytes after line {number}");
    }
    let lengths = place.lengths();
    let found: Vec<_> = lengths.iter().map(|(name, length)| (name.as_str(), *length)).collect();
    assert_eq!(found, expected);
    let mut names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.strip_prefix("log.").map_or(0, |number| number.parse().unwrap())));
    let kept: String = names.into_iter().map(|name| place.text(name)).collect();
    let first = lines - kept.len() / 10;
    let wanted: String = (first..lines).map(|number| format!("line {number:04}\n")).collect();
    assert_eq!(kept, wanted);
}

#[test]
fn full_files_are_moved_aside_under_a_hard_total() {
    check(100, 2, 1, &[("log", 10)]);
    check(100, 2, 10, &[("log", 100)]);
    check(100, 2, 11, &[("log", 10), ("log.1", 100)]);
    check(100, 2, 25, &[("log", 50), ("log.1", 100), ("log.2", 100)]);
    check(100, 2, 95, &[("log", 50), ("log.1", 100), ("log.2", 100)]);
    check(95, 3, 400, &[("log", 40), ("log.1", 90), ("log.2", 90), ("log.3", 90)]);
    check(100, 0, 25, &[("log", 50)]);
    check(
        100,
        12,
        135,
        &[
            ("log", 50),
            ("log.1", 100),
            ("log.10", 100),
            ("log.11", 100),
            ("log.12", 100),
            ("log.2", 100),
            ("log.3", 100),
            ("log.4", 100),
            ("log.5", 100),
            ("log.6", 100),
            ("log.7", 100),
            ("log.8", 100),
            ("log.9", 100),
        ],
    );
}

#[test]
fn a_giant_line_is_cut_between_two_characters() {
    for giant in ["x".repeat(1_000), "ä".repeat(1_000), format!("x{}", "ä".repeat(1_000))] {
        let mut place = Place::new(100, 1);
        place.say("before");
        place.say(&giant);
        place.say("after");
        let cut = place.text("log.1");
        assert!(cut.len() <= 100 && cut.len() > 95 && cut.ends_with(CUT), "{cut}");
        assert_eq!(place.text("log"), "after\n");
    }
}

#[test]
fn a_record_is_one_write_to_a_file_for_us_alone() {
    let mut place = Place::new(1_000, 1);
    place.say("one");
    assert_eq!(fs::metadata(place.at("log")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(place.at("")).unwrap().mode() & 0o777, 0o700);
    write!(place.log, "half a record").unwrap();
    assert_eq!(place.text("log"), "one\n");
    place.log.flush().unwrap();
    place.log.flush().unwrap();
    assert_eq!(place.text("log"), "one\nhalf a record");
}

#[test]
fn what_others_do_to_file_and_folder_is_followed() {
    let mut place = Place::new(1_000, 1);
    place.say("one");
    fs::remove_file(place.at("log")).unwrap();
    place.say("after the file was deleted");
    assert_eq!(place.text("log"), "after the file was deleted\n");

    fs::remove_dir_all(place.at("")).unwrap();
    place.say("after the folder was deleted");
    assert_eq!(place.text("log"), "after the folder was deleted\n");

    fs::rename(place.at("log"), place.at("moved")).unwrap();
    fs::write(place.at("log"), "a new file\n").unwrap();
    place.say("after another's rotation");
    assert_eq!(place.text("log"), "a new file\nafter another's rotation\n");
    assert_eq!(place.text("moved"), "after the folder was deleted\n");

    File::options().write(true).truncate(true).open(place.at("log")).unwrap();
    place.say("after it was emptied");
    assert_eq!(place.text("log"), "after it was emptied\n");
    assert_eq!(place.log.trouble(), None);
}

#[test]
fn a_restart_appends_and_fewer_files_to_keep_removes_the_surplus() {
    let mut place = Place::new(100, 4);
    (0..60).for_each(|number| place.say(&format!("line {number:04}")));
    assert_eq!(place.lengths().len(), 5);
    let settings = config::LogConfig { keep: 1, ..place.log.settings.clone() };
    place.log = Rotating::new(&settings, Zone::UTC);
    place.say("line 0060");
    assert_eq!(place.lengths(), [("log".to_owned(), 10), ("log.1".to_owned(), 100)]);
    place.say("line 0061");
    assert_eq!(place.text("log"), "line 0060\nline 0061\n");
    let elsewhere = config::LogConfig { file: place.at("other"), ..settings };
    place.log.follow(&elsewhere);
    place.say("line 0062");
    assert_eq!(place.text("other"), "line 0062\n");
}

/// Whatever `spoil` puts at the log's place is refused without being touched, and `mend` brings the log back.
#[track_caller]
fn check_refused(spoil: impl FnOnce(&Path), reason: &str, mend: impl FnOnce(&Path)) {
    let mut place = Place::new(1_000, 1);
    spoil(&place.at("log"));
    place.say("one");
    place.say("two");
    let path = place.at("log");
    let trouble = format!("cannot write to the log {}: {reason} (2 lines lost so far)", path.display());
    assert_eq!(place.log.trouble(), Some(trouble));
    mend(&path);
    place.say("three");
    place.say("four");
    assert_eq!(place.undated("log"), format!("2 lines lost here: {reason}\nthree\nfour\n"));
    assert_eq!(place.log.trouble(), None);
}

#[test]
fn what_cannot_be_written_is_counted_and_told_later() {
    let make_folder = |path: &Path| fs::create_dir(path.parent().unwrap()).unwrap();
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    check_refused(
        |path| fs::write(path.parent().unwrap(), "a file where the folder should be").unwrap(),
        "not a directory",
        |path| fs::remove_file(path.parent().unwrap()).unwrap(),
    );
    check_refused(
        |path| {
            make_folder(path);
            fs::write(path.with_extension("victim"), "").unwrap();
            symlink(path.with_extension("victim"), path).unwrap();
        },
        "it is a symbolic link",
        |path| {
            assert_eq!(fs::metadata(path.with_extension("victim")).unwrap().len(), 0);
            remove(path);
        },
    );
    check_refused(
        |path| {
            make_folder(path);
            symlink("nowhere", path).unwrap();
        },
        "it is a symbolic link",
        |path| {
            assert!(!path.with_file_name("nowhere").exists());
            remove(path);
        },
    );
    check_refused(
        |path| {
            make_folder(path);
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        },
        "not a regular file",
        remove,
    );
    check_refused(|path| fs::create_dir_all(path).unwrap(), "is a directory", |path| fs::remove_dir(path).unwrap());
}

#[test]
fn an_unwritable_folder_costs_lines_and_nothing_else() {
    if rustix::process::getuid().is_root() {
        return; // nothing is unwritable for root
    }
    let may = |place: &Place, mode| fs::set_permissions(place.folder.path(), PermissionsExt::from_mode(mode)).unwrap();
    let mut place = Place::new(1_000, 1);
    may(&place, 0o500);
    place.say("one");
    assert!(place.log.trouble().unwrap().contains("permission denied"));
    may(&place, 0o700);
    place.say("two");
    assert_eq!(place.undated("log"), "1 line lost here: permission denied\ntwo\n");
}

#[test]
fn the_total_holds_even_where_nothing_can_be_moved() {
    let mut place = Place::new(200, 1);
    fs::create_dir_all(place.at("log.1/in the way")).unwrap();
    for number in 0..60 {
        place.say(&format!("line {number:04}"));
        assert!(fs::metadata(place.at("log")).unwrap().len() <= 200);
    }
    let text = place.undated("log");
    assert!(text.starts_with("older lines dropped, cannot rotate: is a directory\nline 00"), "{text}");
    assert!(text.ends_with("line 0059\n"), "{text}");
    assert_eq!(place.log.trouble(), None);
}

#[test]
fn a_full_disk_costs_lines_tears_none_and_is_told_when_there_is_room_again() {
    if !is_alone() {
        // A file's size limit cuts a write short and refuses the next one, just as a full disk does.
        let test = "logging::rotating::tests::a_full_disk_costs_lines_tears_none_and_is_told_when_there_is_room_again";
        run_alone(test, &["env", "--ignore-signal=XFSZ"]);
        return;
    }
    let room = |bytes| setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    let mut place = Place::new(1_000, 1);
    room(Some(25));
    (0..5).for_each(|number| place.say(&format!("line {number:04}")));
    assert_eq!(place.text("log"), "line 0000\nline 0001\n");
    assert!(place.log.trouble().unwrap().ends_with("(3 lines lost so far)"));
    room(None);
    place.say("line 0005");
    place.say("line 0006");
    let told = "line 0000\nline 0001\n3 lines lost here: file too large\nline 0005\nline 0006\n";
    assert_eq!(place.undated("log"), told);
}

#[test]
fn two_writers_lose_nothing_and_tear_nothing() {
    let mut place = Place::new(1_000, 100);
    let settings = place.log.settings.clone();
    place.say("the folder is there");
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let mut log = Rotating::new(&settings, Zone::UTC);
            scope.spawn(move || (0..2_000).for_each(|number| say(&mut log, &format!("{writer} {number:06}"))));
        }
    });
    let all: String = place.lengths().iter().map(|(name, _)| place.text(name)).collect();
    let mut lines: Vec<_> = all.lines().filter(|line| *line != "the folder is there").map(str::to_owned).collect();
    lines.sort();
    let wanted = ["a", "b"].map(|writer| (0..2_000).map(move |number| format!("{writer} {number:06}")));
    assert_eq!(lines, wanted.into_iter().flatten().collect::<Vec<_>>());
}
