//! The log file on a full disk, in a deleted or unwritable folder, and with other writers.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use log::LevelFilter;
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use super::*;
use crate::testing::{is_alone, run_alone};

struct TestLog {
    folder: TempDir,
    log: Rotating,
}

impl TestLog {
    /// The log file is `logs/log`. Neither it nor its folder exists yet.
    fn new(max_size: u64, keep: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("logs/log");
        let settings = config::LogConfig { file, level: LevelFilter::Info, max_size, keep, format: LogFormat::Text };
        TestLog { folder, log: Rotating::new(&settings, Zone::UTC) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    fn write(&mut self, text: &str) {
        write(&mut self.log, text);
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// [`TestLog::text`] without the dates of notes about lost lines.
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

/// Writes one line in parts, as fern does.
fn write(log: &mut Rotating, text: &str) {
    writeln!(log, "{text}").and_then(|()| log.flush()).unwrap();
}

/// Writes `lines` numbered lines of ten bytes each. Checks the files and their lengths, and that they contain the last
/// lines without a gap.
#[track_caller]
fn check(max_size: u64, keep: u32, lines: usize, expected: &[(&str, u64)]) {
    let mut fixture = TestLog::new(max_size, keep);
    for number in 0..lines {
        fixture.write(&format!("line {number:04}"));
        let total: u64 = fixture.lengths().iter().map(|(_, length)| length).sum();
        assert!(total <= (u64::from(keep) + 1) * max_size, "{total} bytes after line {number}");
    }
    let lengths = fixture.lengths();
    let found: Vec<_> = lengths.iter().map(|(name, length)| (name.as_str(), *length)).collect();
    assert_eq!(found, expected);
    let mut names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.strip_prefix("log.").map_or(0, |number| number.parse().unwrap())));
    let kept: String = names.into_iter().map(|name| fixture.text(name)).collect();
    let first = lines - kept.len() / 10;
    let expected: String = (first..lines).map(|number| format!("line {number:04}\n")).collect();
    assert_eq!(kept, expected);
}

#[test]
fn full_files_are_rotated_within_a_fixed_total() {
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
        let mut fixture = TestLog::new(100, 1);
        fixture.write("before");
        fixture.write(&giant);
        fixture.write("after");
        let cut = fixture.text("log.1");
        assert!(cut.len() <= 100 && cut.len() > 95 && cut.ends_with(&format!("{CUT_MARK}\n")), "{cut}");
        assert_eq!(fixture.text("log"), "after\n");
    }
}

#[test]
fn a_record_is_one_write_to_a_private_file() {
    let mut fixture = TestLog::new(1_000, 1);
    fixture.write("one");
    assert_eq!(fs::metadata(fixture.at("log")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(fixture.at("")).unwrap().mode() & 0o777, 0o700);
    write!(fixture.log, "half a record").unwrap();
    assert_eq!(fixture.text("log"), "one\n");
    fixture.log.flush().unwrap();
    fixture.log.flush().unwrap();
    assert_eq!(fixture.text("log"), "one\nhalf a record");
}

#[test]
fn changes_by_others_to_file_and_folder_are_followed() {
    let mut fixture = TestLog::new(1_000, 1);
    fixture.write("one");
    fs::remove_file(fixture.at("log")).unwrap();
    fixture.write("after the file was deleted");
    assert_eq!(fixture.text("log"), "after the file was deleted\n");

    fs::remove_dir_all(fixture.at("")).unwrap();
    fixture.write("after the folder was deleted");
    assert_eq!(fixture.text("log"), "after the folder was deleted\n");

    fs::rename(fixture.at("log"), fixture.at("moved")).unwrap();
    fs::write(fixture.at("log"), "a new file\n").unwrap();
    fixture.write("after another's rotation");
    assert_eq!(fixture.text("log"), "a new file\nafter another's rotation\n");
    assert_eq!(fixture.text("moved"), "after the folder was deleted\n");

    File::options().write(true).truncate(true).open(fixture.at("log")).unwrap();
    fixture.write("after it was emptied");
    assert_eq!(fixture.text("log"), "after it was emptied\n");
    assert_eq!(fixture.log.describe_loss(), None);
}

#[test]
fn a_restart_appends_and_a_smaller_keep_removes_the_surplus() {
    let mut fixture = TestLog::new(100, 4);
    (0..60).for_each(|number| fixture.write(&format!("line {number:04}")));
    assert_eq!(fixture.lengths().len(), 5);
    let settings = config::LogConfig { keep: 1, ..fixture.log.settings.clone() };
    fixture.log = Rotating::new(&settings, Zone::UTC);
    fixture.write("line 0060");
    assert_eq!(fixture.lengths(), [("log".to_owned(), 10), ("log.1".to_owned(), 100)]);
    fixture.write("line 0061");
    assert_eq!(fixture.text("log"), "line 0060\nline 0061\n");
    let elsewhere = config::LogConfig { file: fixture.at("other"), ..settings };
    fixture.log.reconfigure(&elsewhere);
    fixture.write("line 0062");
    assert_eq!(fixture.text("other"), "line 0062\n");
}

/// What `spoil` puts at the log's path is refused and not changed; after `fix` the log is written again.
#[track_caller]
fn check_refused(spoil: impl FnOnce(&Path), reason: &str, fix: impl FnOnce(&Path)) {
    let mut fixture = TestLog::new(1_000, 1);
    spoil(&fixture.at("log"));
    fixture.write("one");
    fixture.write("two");
    let path = fixture.at("log");
    let loss = format!("cannot write to the log {}: {reason} (2 lines lost so far)", path.display());
    assert_eq!(fixture.log.describe_loss(), Some(loss));
    fix(&path);
    fixture.write("three");
    fixture.write("four");
    assert_eq!(fixture.undated("log"), format!("2 lines lost here: {reason}\nthree\nfour\n"));
    assert_eq!(fixture.log.describe_loss(), None);
}

#[test]
fn lost_lines_are_counted_and_logged_later() {
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
        "is a symbolic link",
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
        "is a symbolic link",
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
fn an_unwritable_folder_only_loses_lines() {
    if rustix::process::getuid().is_root() {
        return; // root can write anywhere
    }
    let set_mode =
        |fixture: &TestLog, mode| fs::set_permissions(fixture.folder.path(), PermissionsExt::from_mode(mode)).unwrap();
    let mut fixture = TestLog::new(1_000, 1);
    set_mode(&fixture, 0o500);
    fixture.write("one");
    assert!(fixture.log.describe_loss().unwrap().contains("permission denied"));
    set_mode(&fixture, 0o700);
    fixture.write("two");
    assert_eq!(fixture.undated("log"), "1 line lost here: permission denied\ntwo\n");
}

#[test]
fn the_total_holds_even_if_files_cannot_be_renamed() {
    let mut fixture = TestLog::new(200, 1);
    fs::create_dir_all(fixture.at("log.1/in the way")).unwrap();
    for number in 0..60 {
        fixture.write(&format!("line {number:04}"));
        assert!(fs::metadata(fixture.at("log")).unwrap().len() <= 200);
    }
    let text = fixture.undated("log");
    assert!(text.starts_with("older lines dropped, cannot rotate: is a directory\nline 00"), "{text}");
    assert!(text.ends_with("line 0059\n"), "{text}");
    assert_eq!(fixture.log.describe_loss(), None);
}

#[test]
fn a_full_disk_loses_whole_lines_and_is_logged_later() {
    if !is_alone() {
        // Like a full disk, a file size limit shortens one write and refuses the next.
        let test = "logging::rotating::tests::a_full_disk_loses_whole_lines_and_is_logged_later";
        run_alone(test, &["env", "--ignore-signal=XFSZ"]);
        return;
    }
    let limit_size = |bytes| setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    let mut fixture = TestLog::new(1_000, 1);
    limit_size(Some(25));
    (0..5).for_each(|number| fixture.write(&format!("line {number:04}")));
    assert_eq!(fixture.text("log"), "line 0000\nline 0001\n");
    assert!(fixture.log.describe_loss().unwrap().ends_with("(3 lines lost so far)"));
    limit_size(None);
    fixture.write("line 0005");
    fixture.write("line 0006");
    let expected = "line 0000\nline 0001\n3 lines lost here: file too large\nline 0005\nline 0006\n";
    assert_eq!(fixture.undated("log"), expected);
}

#[test]
fn two_writers_lose_and_split_no_line() {
    let mut fixture = TestLog::new(1_000, 100);
    let settings = fixture.log.settings.clone();
    fixture.write("the folder is there");
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let mut log = Rotating::new(&settings, Zone::UTC);
            scope.spawn(move || (0..2_000).for_each(|number| write(&mut log, &format!("{writer} {number:06}"))));
        }
    });
    let all: String = fixture.lengths().iter().map(|(name, _)| fixture.text(name)).collect();
    let mut lines: Vec<_> = all.lines().filter(|line| *line != "the folder is there").map(str::to_owned).collect();
    lines.sort();
    let expected = ["a", "b"].map(|writer| (0..2_000).map(move |number| format!("{writer} {number:06}")));
    assert_eq!(lines, expected.into_iter().flatten().collect::<Vec<_>>());
}
