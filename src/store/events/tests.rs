//! The events on disk: whole lines, even on a full disk and after another process has damaged the file.

#![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::outcome::Class;
use crate::store::child;
use crate::store::events::entry::CommandOutcome;
use crate::testing::{fuzz, temp_state_folder};

fn entry(n: i64) -> EventEntry {
    EventEntry { at: WallTime::from_ms(n), target: None, kind: EventKind::Stalled { gap_ms: n.unsigned_abs() } }
}

fn lines(numbers: &[i64]) -> Vec<String> {
    numbers.iter().map(|&n| entry(n).to_line()).collect()
}

fn times(folder: &Folder) -> Vec<i64> {
    read(folder, None).unwrap().iter().map(|entry| entry.at.as_ms()).collect()
}

#[test]
fn appended_lines_are_read_back() {
    let (_scene, folder) = temp_state_folder();
    assert_eq!(times(&folder), [0_i64; 0]);
    append(&folder, &[]).unwrap();
    assert!(!folder.file(EVENTS.name).exists());
    append(&folder, &lines(&[1, 2])).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    append(&folder, &lines(&[3, 4])).unwrap();
    append(&folder, &lines(&[5])).unwrap();
    assert_eq!(read(&folder, Some(WallTime::from_ms(4))).unwrap(), [entry(4), entry(5)]);
    let file = fs::read_to_string(folder.file(EVENTS.name)).unwrap();
    assert_eq!(file, lines(&[3, 4, 5]).join("\n") + "\n");
    assert_eq!(fs::metadata(folder.file(EVENTS.name)).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_line_cut_short_is_ended_before_the_next_one() {
    let (_scene, folder) = temp_state_folder();
    append(&folder, &lines(&[1])).unwrap();
    let whole = fs::read(folder.file(EVENTS.name)).unwrap();
    for len in 0..=whole.len() {
        fs::write(folder.file(EVENTS.name), &whole[..len]).unwrap();
        append(&folder, &lines(&[2])).unwrap();
        let expected: &[i64] = if len + 1 >= whole.len() { &[1, 2] } else { &[2] };
        assert_eq!(times(&folder), expected, "cut after {len} bytes");
    }
}

#[test]
fn damaged_lines_are_skipped() {
    let (_scene, folder) = temp_state_folder();
    append(&folder, &lines(&[1])).unwrap();
    let mut bytes = fs::read(folder.file(EVENTS.name)).unwrap();
    bytes.extend(b"\n\n\xff\xfe\n{\"at\":1}\nnull\n");
    bytes.extend([0; 100]);
    fs::write(folder.file(EVENTS.name), bytes).unwrap();
    append(&folder, &lines(&[2])).unwrap();
    assert_eq!(times(&folder), [1, 2]);
}

#[test]
fn there_are_at_most_two_files_of_4_mib() {
    let (_scene, folder) = temp_state_folder();
    let many: Vec<i64> = (0..5_000).collect();
    let bulk = lines(&many).join("\n").len() as u64 + 1;
    let rounds = 3 * EVENTS.max_size / bulk;
    for round in 0..rounds {
        append(&folder, &lines(&many)).unwrap();
        append(&folder, &lines(&[-1 - round.cast_signed()])).unwrap();
        let size = |name| fs::metadata(folder.file(name)).map_or(0, |metadata| metadata.len());
        assert!(size(EVENTS.name) <= EVENTS.max_size && size(EVENTS.rotated) <= EVENTS.max_size);
    }
    assert!(fs::read_dir(folder.path()).unwrap().count() == 2);
    let found = read(&folder, None).unwrap();
    assert!(found.len() as u64 * bulk / 5_001 > EVENTS.max_size, "the older file was not read");
    // A file that somebody made huge is read from its end, starting at the beginning of a line.
    let mut huge = vec![b'x'; 20 << 20];
    huge.extend(b"\n");
    huge.extend(lines(&[7]).join("").as_bytes());
    fs::write(folder.file(EVENTS.name), huge).unwrap();
    assert_eq!(times(&folder).last(), Some(&7));
}

#[test]
fn pending_lines_are_written_exactly_once() {
    #[track_caller]
    fn check(rotated: &str, newer: &str, pending: &[i64], expected: &[i64]) {
        let (_scene, folder) = temp_state_folder();
        fs::write(folder.file(EVENTS.rotated), rotated).unwrap();
        fs::write(folder.file(EVENTS.name), newer).unwrap();
        append_missing(&folder, &lines(pending)).unwrap();
        assert_eq!(times(&folder), expected);
        append_missing(&folder, &lines(pending)).unwrap();
        assert_eq!(times(&folder), expected, "the second time");
    }
    let text = |numbers: &[i64]| lines(numbers).iter().map(|line| format!("{line}\n")).collect::<String>();
    check("", "", &[], &[]);
    check("", "", &[1, 2], &[1, 2]);
    check("", &text(&[1]), &[1, 2], &[1, 2]);
    check("", &text(&[1, 2]), &[1, 2], &[1, 2]);
    check(&text(&[1]), &text(&[2]), &[1, 2], &[1, 2]);
    check(&text(&[1]), "", &[1, 2], &[1, 2]);
    check("", &text(&[3]), &[3, 3], &[3, 3]);
    // Cut short in the middle of the second line, and just before its newline.
    check("", &text(&[1, 2])[..text(&[1, 2]).len() - 5], &[1, 2], &[1, 2]);
    check("", text(&[1, 2]).trim_end(), &[1, 2], &[1, 2]);
}

#[cfg(feature = "full-tests")]
#[test]
fn a_full_disk_takes_all_lines_or_none() {
    let (_scene, folder) = temp_state_folder();
    child::run_on_mount("store::events::tests::appends_on_a_small_disk", folder.path(), "size=64k");
}

/// Runs in a child of a_full_disk_takes_all_lines_or_none; does nothing otherwise.
#[test]
fn appends_on_a_small_disk() {
    let Some(path) = child::folder() else { return };
    let folder = Folder::open(&path).unwrap();
    append(&folder, &lines(&[1])).unwrap();
    let before = fs::read(folder.file(EVENTS.name)).unwrap();
    let many: Vec<i64> = (0..2_000).collect();
    let error = append(&folder, &lines(&many)).unwrap_err().to_string();
    assert!(error.ends_with("events.jsonl: no space left on device"), "{error}");
    assert!(fs::read(folder.file(EVENTS.name)).unwrap() == before);
    append_missing(&folder, &lines(&[1, 2])).unwrap();
    assert_eq!(times(&folder), [1, 2]);
}

#[test]
fn links_and_folders_instead_of_the_file_are_errors() {
    let (_scene, folder) = temp_state_folder();
    symlink("/etc/hostname", folder.file(EVENTS.name)).unwrap();
    for error in [append(&folder, &lines(&[1])).unwrap_err(), read(&folder, None).unwrap_err()] {
        assert!(error.to_string().ends_with("events.jsonl: it is a symbolic link; links are not followed"), "{error}");
    }
    fs::remove_file(folder.file(EVENTS.name)).unwrap();
    fs::create_dir(folder.file(EVENTS.name)).unwrap();
    assert!(append(&folder, &lines(&[1])).is_err());
    assert!(read(&folder, None).is_err());
}

#[test]
fn a_damaged_line_is_skipped_or_read_as_it_stands() {
    let (detail, incident) = ("no byte".to_owned(), "1122-0313".to_owned());
    let down = EventKind::Down { failures: 3, class: Class::Timeout, detail, incident: incident.clone(), by: None };
    let outcome = CommandOutcome::Exited { code: 1 };
    let incident = Some(incident);
    let done = EventKind::RestartDone { attempt: 1, rung: 2, outcome, took_ms: 8, incident, by: None };
    let line = |kind| EventEntry { at: WallTime::from_ms(1_795_313_530_123), target: Some("a".into()), kind }.to_line();
    let samples = [line(down), line(done), line(EventKind::Stalled { gap_ms: 5 })];
    let samples: Vec<&[u8]> = samples.iter().map(String::as_bytes).collect();
    let mut parsed = 0;
    fuzz(&samples, 5_000, |bytes| {
        let Some(entry) = EventEntry::parse(&String::from_utf8_lossy(bytes)) else { return };
        parsed += 1;
        assert_eq!(EventEntry::parse(&entry.to_line()), Some(entry));
    });
    assert!(parsed > 300, "only {parsed} could be parsed");
}
