//! `incidents/`: one folder per incident with the output of its commands, bounded in number and size.
//! It must never delete a file that a process still writes to: its bytes would stay on the disk, invisible to
//! everybody.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{self, Inode};
use super::folder::create_folder;
use super::incident_record::{self, IncidentRecord};
use super::{Error, Folder, descriptors, is_ahead};
use crate::process;
use crate::time::WallTime;

const INCIDENTS: &str = "incidents";
const MAX_COUNT: usize = 50;
const MAX_SIZE: u64 = 10 << 20;

/// Creates the folder of the incident if needed.
/// Errors: it cannot be created, or `id` is not a valid folder name.
pub fn create(folder: &Folder, id: &str) -> Result<PathBuf, Error> {
    let incidents = folder.subfolder(INCIDENTS)?;
    if !is_id(id) {
        return Err(Error::new("use", &incidents, io::Error::other(format!("`{id:.80}` is not a valid incident id"))));
    }
    let path = incidents.join(id);
    create_folder(&path).map_err(|cause| Error::new("use", &path, cause))?;
    Ok(path)
}

/// The path for the output of an attempt's command, in the incident's folder; `rung` counts from 1, as in the events.
pub fn output_path(incident: &Path, attempt: u32, rung: u32) -> PathBuf {
    incident.join(format!("restart-{attempt}-{rung}.out"))
}

/// Writes `bytes` to a file in the incident's folder. `name` may come from outside: unusual characters become `_`, and
/// it cannot lead out of the folder.
pub fn save_file(incident: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.trim_start_matches('.').chars().map(plain).take(100).collect();
    let path = incident.join(if name.is_empty() { "_" } else { &name });
    let written = files::open_or_create(&path).and_then(|mut file| {
        file.set_len(0)?;
        file.write_all(bytes)
    });
    written.map_err(|cause| Error::new("write", &path, cause))
}

/// The ids of all incidents on the disk, oldest first; empty if they cannot be read.
pub fn list_ids(folder: &Folder) -> Vec<String> {
    list_folders(folder).unwrap_or_default().into_iter().map(|incident| incident.id).collect()
}

/// The records of all incidents on the disk in the order in which they began, closed ones dated far in the future
/// first; and an error for each record that cannot be read. Folders without a record are skipped. Readers may call
/// this at any time.
/// Errors: the folder of the incidents cannot be read.
pub fn read_records(folder: &Folder, now: WallTime) -> Result<(Vec<IncidentRecord>, Vec<Error>), Error> {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for incident in list_folders(folder)? {
        match incident_record::read(&incident.path) {
            Ok(record) => found.extend(record),
            Err(error) => damaged.push(error),
        }
    }
    let is_current = |record: &IncidentRecord| record.ended.is_none() || !is_ahead(record.began, now);
    found.sort_by(|a, b| (is_current(a), a.began, &a.id).cmp(&(is_current(b), b.began, &b.id)));
    Ok((found, damaged))
}

pub fn list_files(folder: &Folder, id: &str) -> (PathBuf, Vec<String>) {
    let path = folder.file(INCIDENTS).join(id);
    let names = files::list_folder(&path).unwrap_or_default().into_iter();
    let mut names: Vec<String> = names.map(|(entry, _)| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    (path, names)
}

pub fn list_outputs(folder: &Folder) -> Result<Vec<PathBuf>, Error> {
    let all = list_folders(folder)?;
    Ok(all.into_iter().flat_map(|incident| incident.outputs).map(|(path, _)| path).collect())
}

/// Removes the oldest incidents until at most 50 are left, with 10 MiB in all, but none whose id is in `open` and none
/// with an output that a process has open. Incidents dated far in the future count as the oldest. Returns how many
/// were removed.
/// Errors: the folders cannot be read, or one cannot be removed; the others were tried.
pub fn prune(folder: &Folder, open: &[&str], now: WallTime) -> Result<usize, Error> {
    let mut all = list_folders(folder)?;
    all.sort_by_key(|incident| !is_ahead(WallTime::from_ms(incident.changed.0.saturating_mul(1_000)), now));
    let (mut count, mut size) = (all.len(), all.iter().map(|incident| incident.size).sum::<u64>());
    if count <= MAX_COUNT && size <= MAX_SIZE {
        return Ok(0);
    }
    let held = open_outputs().map_err(|cause| Error::new("read", Path::new("/proc"), cause))?;
    let (mut removed, mut failure) = (0, None);
    for incident in all {
        if count <= MAX_COUNT && size <= MAX_SIZE {
            break;
        }
        if open.contains(&incident.id.as_str()) || incident.outputs.iter().any(|(_, inode)| held.contains(inode)) {
            continue;
        }
        match fs::remove_dir_all(&incident.path) {
            Ok(()) => {
                removed += 1;
                count -= 1;
                size = size.saturating_sub(incident.size);
            }
            Err(cause) => failure = Some(Error::new("remove", &incident.path, cause)),
        }
    }
    failure.map_or(Ok(removed), Err)
}

/// Whether `id` is a plain folder name that cannot lead anywhere else.
fn is_id(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&id.len()) && !id.starts_with('.') && id.chars().all(plain)
}

struct IncidentFolder {
    id: String,
    path: PathBuf,
    /// Modification time of the folder: seconds and nanoseconds.
    changed: (i64, i64),
    size: u64,
    outputs: Vec<(PathBuf, Inode)>,
}

/// Oldest first. Anything else in the folder is ignored.
fn list_folders(folder: &Folder) -> Result<Vec<IncidentFolder>, Error> {
    let entries = |path: &Path| files::list_folder(path).map_err(|cause| Error::new("read", path, cause));
    let path = folder.file(INCIDENTS);
    let mut found = Vec::new();
    for (entry, metadata) in entries(&path)? {
        let Some(id) = entry.file_name().to_str().filter(|id| is_id(id)).map(str::to_string) else { continue };
        if !metadata.is_dir() {
            continue;
        }
        let path = entry.path();
        let contents = entries(&path)?;
        let is_output = |path: &Path| path.extension().is_some_and(|extension| extension == "out");
        let found_outputs = contents.iter().filter(|(file, metadata)| metadata.is_file() && is_output(&file.path()));
        let outputs = found_outputs.map(|(file, metadata)| (file.path(), Inode::of(metadata))).collect();
        let size = contents.iter().map(|(_, metadata)| metadata.len()).sum();
        found.push(IncidentFolder { id, path, changed: (metadata.mtime(), metadata.mtime_nsec()), size, outputs });
    }
    found.sort_by(|a, b| (a.changed, &a.id).cmp(&(b.changed, &b.id)));
    Ok(found)
}

/// The outputs that some process has open, as far as its open files are readable. Those of the watchdog's own commands
/// are.
fn open_outputs() -> io::Result<HashSet<Inode>> {
    let mut held = HashSet::new();
    for pid in process::pids()? {
        match descriptors::open_files(pid, |name| name.ends_with(".out")) {
            // A process of another account, so not one of the watchdog's commands.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {}
            found => held.extend(found?),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::{Command, Stdio};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::testing::temp_state_folder;

    /// An incident with one output of `size` bytes, last changed `age` minutes after 1970.
    fn make(folder: &Folder, id: &str, size: usize, age: u64) -> PathBuf {
        let path = create(folder, id).unwrap();
        fs::write(output_path(&path, 1, 1), vec![b'x'; size]).unwrap();
        File::open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(60 * age)).unwrap();
        path
    }

    /// An hour and a half after 1970.
    fn now() -> WallTime {
        WallTime::from_ms(90 * 60_000)
    }

    #[test]
    fn folders_and_outputs_have_their_names() {
        let (_scene, folder) = temp_state_folder();
        assert!(list_outputs(&folder).unwrap().is_empty());
        let path = create(&folder, "1122-0313").unwrap();
        assert_eq!(create(&folder, "1122-0313").unwrap(), path);
        assert!(path.ends_with("incidents/1122-0313"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let output_file = output_path(&path, 2, 1);
        assert!(output_file.ends_with("restart-2-1.out"));
        fs::write(&output_file, "").unwrap();
        fs::write(path.join("incident.json"), "").unwrap();
        symlink("/etc/passwd", path.join("planted.out")).unwrap();
        assert_eq!(list_outputs(&folder).unwrap(), [output_file]);
    }

    #[test]
    fn saved_files_have_plain_names() {
        let (_scene, folder) = temp_state_folder();
        let incident = create(&folder, "1122-0313").unwrap();
        for (name, saved_as) in [("a-out.log", "a-out.log"), ("../../x y", "_.._x_y"), ("", "_"), ("..", "_")] {
            save_file(&incident, name, b"old and long").unwrap();
            save_file(&incident, name, b"new").unwrap();
            assert_eq!(fs::read(incident.join(saved_as)).unwrap(), b"new", "{name}");
        }
    }

    #[test]
    fn only_plain_names_are_ids() {
        #[track_caller]
        fn check(id: &str, good: bool) {
            let (_scene, folder) = temp_state_folder();
            assert_eq!(create(&folder, id).is_ok(), good, "{id}");
            assert_eq!(folder.file(INCIDENTS).read_dir().unwrap().count(), usize::from(good));
        }
        check("1122-0313", true);
        check("1122-0313-2", true);
        check("a.b_C-9", true);
        for id in ["", ".", "..", "../x", "a/b", "/tmp", "a b", "ä", "a\0b", ".hidden", &"x".repeat(65)] {
            check(id, false);
        }
    }

    #[test]
    fn the_oldest_are_removed_first_and_open_ones_stay() {
        let (_scene, folder) = temp_state_folder();
        for n in 0..50 {
            make(&folder, &format!("i{n:02}"), 10, 100 - n);
        }
        assert_eq!(prune(&folder, &[], now()).unwrap(), 0);
        for n in 50..53 {
            make(&folder, &format!("i{n:02}"), 10, 100 - n);
        }
        assert_eq!(prune(&folder, &["i51"], now()).unwrap(), 3);
        let left = list_ids(&folder);
        assert_eq!(left.len(), 50);
        assert_eq!(left[..2], ["i51", "i48"]);
    }

    #[test]
    fn an_incident_dated_far_in_the_future_displaces_no_other() {
        let (_scene, folder) = temp_state_folder();
        let year = 365 * 1_440;
        for n in 0..52 {
            let age = if n < 4 { year + n } else { n };
            make(&folder, &format!("i{n:02}"), 10, age);
        }
        assert_eq!(prune(&folder, &["i01"], now()).unwrap(), 2);
        let left = list_ids(&folder);
        assert_eq!((left.len(), left.iter().filter(|id| ["i00", "i02"].contains(&id.as_str())).count()), (50, 0));
        let at = |minutes: i64| now().offset_by(minutes * 60_000);
        let record = |id: &str, began: WallTime, ended: Option<WallTime>| {
            let last = (3, crate::outcome::Class::Timeout, String::new());
            let record = IncidentRecord { ended, ..IncidentRecord::new(id, "a", began, began, last) };
            incident_record::save(&create(&folder, id).unwrap(), &record).unwrap();
        };
        record("i10", at(-60), Some(at(-50)));
        record("i11", at(365 * 1_440), Some(at(365 * 1_440)));
        record("i12", at(-30), Some(at(-20)));
        let order = |now: WallTime| {
            let (found, _) = read_records(&folder, now).unwrap();
            found.into_iter().map(|record| record.id).collect::<Vec<String>>()
        };
        assert_eq!(order(now()), ["i11", "i10", "i12"]);
        assert_eq!(order(at(366 * 1_440)), ["i10", "i12", "i11"]);
        record("i11", at(365 * 1_440), None);
        assert_eq!(order(now()), ["i10", "i12", "i11"], "an open incident is current");
    }

    #[test]
    fn at_most_10_mib_are_kept() {
        let (_scene, folder) = temp_state_folder();
        for n in 0..5 {
            make(&folder, &format!("i{n}"), 3 << 20, n);
        }
        assert_eq!(prune(&folder, &["i1"], now()).unwrap(), 2);
        assert_eq!(list_ids(&folder), ["i1", "i3", "i4"]);
    }

    #[test]
    fn an_output_that_a_process_holds_open_stays() {
        let (_scene, folder) = temp_state_folder();
        for n in 0..4 {
            make(&folder, &format!("i{n}"), 6 << 20, n);
        }
        let held = File::options().append(true).open(output_path(&folder.file("incidents/i0"), 1, 1)).unwrap();
        let mut sleeper = Command::new("sleep").arg("600").stdout(Stdio::from(held)).spawn().unwrap();
        let removed = prune(&folder, &[], now());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(removed.unwrap(), 3);
        assert_eq!(list_ids(&folder), ["i0"]);
    }

    #[test]
    fn other_files_are_left_alone() {
        let (scene, folder) = temp_state_folder();
        let precious = scene.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("x.out"), vec![b'x'; 11 << 20]).unwrap();
        make(&folder, "i0", 11 << 20, 0);
        symlink(&precious, folder.file("incidents/link")).unwrap();
        assert_eq!(prune(&folder, &[], now()).unwrap(), 1);
        assert!(precious.join("x.out").exists());
        fs::remove_dir_all(folder.file(INCIDENTS)).unwrap();
        symlink(&precious, folder.file(INCIDENTS)).unwrap();
        assert!(prune(&folder, &[], now()).is_err());
        assert!(create(&folder, "i1").is_err());
    }
}
