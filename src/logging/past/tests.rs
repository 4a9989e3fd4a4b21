//! Logs of every shape, compared with the list of their lines; and a log that changes while it is read.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

struct TestLog(tempfile::TempDir);

impl TestLog {
    /// The files with these contents, the newest first.
    fn new(files: &[String]) -> TestLog {
        let log = TestLog(tempfile::tempdir().unwrap());
        for (number, text) in (0..).zip(files) {
            fs::write(log.file(number), text).unwrap();
        }
        log
    }

    fn file(&self, number: u32) -> PathBuf {
        let path = self.0.path().join("log");
        if number == 0 { path } else { numbered(&path, number) }
    }

    fn append(&self, text: &str) {
        OpenOptions::new().append(true).create(true).open(self.file(0)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// As the writer does it.
    fn rotate(&self, keep: u32) {
        for number in (0..keep).rev().filter(|number| self.file(*number).exists()) {
            fs::rename(self.file(number), self.file(number + 1)).unwrap();
        }
    }

    fn open(&self, count: usize) -> PastLog {
        PastLog::open(&self.file(0), count, &|_| true).unwrap()
    }
}

fn read(log: &mut PastLog) -> Vec<String> {
    std::iter::from_fn(|| log.next_line().unwrap()).collect()
}

#[test]
fn the_last_lines_are_found_through_all_files_whatever_their_length() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut lines = Vec::new();
        let mut files: Vec<String> = Vec::new();
        for _ in 0..random.usize(1..5) {
            let mut text = String::new();
            for _ in 0..random.usize(0..30) {
                let length = if random.u8(..) < 20 { random.usize(0..200_000) } else { random.usize(0..200) };
                let line = format!("{}{}", lines.len(), "ä".repeat(length / 2));
                text += &format!("{line}\n");
                lines.push(line);
            }
            files.insert(0, text);
        }
        let log = TestLog::new(&files);
        for count in [0, 1, 2, 7, lines.len(), 1_000] {
            let expected = &lines[lines.len().saturating_sub(count)..];
            assert!(read(&mut log.open(count)) == expected, "{count} of {} in {} files", lines.len(), files.len());
        }
        let is_wanted = |line: &str| line.starts_with('1');
        let wanted: Vec<&String> = lines.iter().filter(|line| is_wanted(line)).collect();
        let mut found = read(&mut PastLog::open(&log.file(0), 3, &is_wanted).unwrap());
        found.retain(|line| is_wanted(line));
        assert!(found.iter().collect::<Vec<_>>() == wanted[wanted.len().saturating_sub(3)..], "{}", wanted.len());
    }
}

#[test]
fn a_large_log_is_not_read_whole() {
    let log = TestLog::new(&[]);
    let file = fs::File::create(log.file(0)).unwrap();
    file.set_len(1 << 40).unwrap();
    log.append("\none\ntwo\n");
    assert_eq!(read(&mut log.open(2)), ["one", "two"]);
}

#[test]
fn an_unended_line_is_kept_until_it_ends() {
    let log = TestLog::new(&["one\ntw".into()]);
    let mut reader = log.open(5);
    assert_eq!(read(&mut reader), ["one"]);
    log.append("o\nthr");
    assert_eq!(read(&mut reader), ["two"]);
    assert_eq!((reader.take_rest(), reader.take_rest()), (Some("thr".into()), None));
    // The end of a file that was rotated ends its line.
    log.append("xx");
    log.rotate(1);
    log.append("four\n");
    assert_eq!(read(&mut reader), ["xx", "four"]);
}

#[test]
fn rotations_truncations_and_deletions_are_followed() {
    let log = TestLog::new(&["0\n".into(), "older\n".into()]);
    let mut reader = log.open(1);
    assert_eq!(read(&mut reader), ["0"]);
    log.append("1\n");
    log.rotate(4);
    assert_eq!(read(&mut reader), ["1"], "nothing is at the path yet");
    log.append("2\n");
    log.rotate(4);
    log.append("3\n");
    log.rotate(4);
    log.append("4\n");
    assert_eq!(read(&mut reader), ["2", "3", "4"], "several rotations at once");
    fs::File::create(log.file(0)).unwrap();
    assert_eq!(read(&mut reader), [""; 0]);
    log.append("6\n");
    assert_eq!(read(&mut reader), ["6"], "truncated");
    log.append("7\n");
    fs::remove_file(log.file(0)).unwrap();
    assert_eq!(read(&mut reader), ["7"], "what was written before the deletion");
    log.append("8\n");
    assert_eq!(read(&mut reader), ["8"], "older files are not read again");
    fs::remove_dir_all(log.0.path()).unwrap();
    assert_eq!(read(&mut reader), [""; 0]);
    fs::create_dir(log.0.path()).unwrap();
    log.append("9\n");
    assert_eq!(read(&mut reader), ["9"], "the folder too");
    // So many rotations that the file itself is gone.
    for number in 10..16 {
        log.rotate(4);
        log.append(&format!("{number}\n"));
    }
    assert_eq!(read(&mut reader), ["11", "12", "13", "14", "15"], "what is left of them");
}

#[test]
fn a_log_that_does_not_exist_yet_is_read_from_its_beginning() {
    let log = TestLog::new(&[]);
    let mut reader = log.open(0);
    assert!(reader.is_missing() && read(&mut reader).is_empty());
    log.append("1\n");
    assert_eq!(read(&mut reader), ["1"]);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let log = TestLog::new(&[]);
    fs::create_dir(log.file(0)).unwrap();
    assert!(PastLog::open(&log.file(0), 1, &|_| true).is_err());
    fs::remove_dir(log.file(0)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", log.file(0)).unwrap();
    assert!(PastLog::open(&log.file(0), 1, &|_| true).is_err());
}

/// A writer that rotates at every other line, and a reader that comes when it can.
#[test]
fn no_line_is_lost_or_read_twice_while_the_log_rotates() {
    let log = TestLog::new(&["0\n".into()]);
    let mut reader = log.open(0);
    let (mut found, read_count) = (Vec::new(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 1..1_500_usize {
                log.append(&format!("{number}\n"));
                if number.is_multiple_of(2) {
                    log.rotate(100);
                }
                // What is rotated away for good cannot be read.
                while number > read_count.load(Ordering::SeqCst) + 100 {
                    std::thread::yield_now();
                }
            }
        });
        while !writer.is_finished() {
            found.extend(read(&mut reader));
            read_count.store(found.len(), Ordering::SeqCst);
        }
    });
    found.extend(read(&mut reader));
    let expected: Vec<String> = (1..1_500).map(|number| number.to_string()).collect();
    assert!(found == expected, "{found:?}");
}
