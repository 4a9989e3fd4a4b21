//! The mark that `watchdog stop` leaves and `start --cron` respects. It lists the configurations whose watchdogs were
//! stopped; an empty one, left by a full disk or an older version, applies to all.
//! Reading it must never fail: a mark that cannot be read applies to all.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::lock::LOCK_NAME;
use super::{Error, Folder, files};

const STOPPED: &str = "stopped";
/// Sixteen paths of the maximum length.
const MAX_SIZE: u64 = 64 << 10;
/// Separates two paths; no path contains it.
const SEPARATOR: u8 = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopMark {
    /// Every watchdog with this state folder.
    All,
    /// The watchdogs with these configurations: absolute paths, at least one.
    Configs(Vec<PathBuf>),
}

impl StopMark {
    fn to_bytes(&self) -> Vec<u8> {
        let StopMark::Configs(configs) = self else { return Vec::new() };
        let paths: Vec<&[u8]> = configs.iter().map(|config| config.as_os_str().as_bytes()).collect();
        let bytes = paths.join(&SEPARATOR);
        // A longer list could not be read back and would be misread.
        if bytes.len() as u64 > MAX_SIZE { Vec::new() } else { bytes }
    }

    /// Contents that are no list of paths apply to all: somebody created the file to prevent every start.
    fn parse(bytes: &[u8]) -> StopMark {
        let configs: Vec<&Path> =
            bytes.split(|&byte| byte == SEPARATOR).map(|path| OsStr::from_bytes(path).as_ref()).collect();
        match configs.iter().all(|config| config.is_absolute()) {
            true => StopMark::Configs(configs.into_iter().map(Path::to_path_buf).collect()),
            false => StopMark::All,
        }
    }
}

/// Whose watchdog was stopped by the operator, if any. A mark that cannot be read applies to all.
pub fn read(folder: &Folder) -> Option<StopMark> {
    let path = folder.file(STOPPED);
    fs::symlink_metadata(&path).ok()?;
    Some(files::read(&path, MAX_SIZE).map_or(StopMark::All, |bytes| StopMark::parse(&bytes)))
}

/// Writes the mark in place of the existing one, in a writable folder of another account as well. The mark is empty
/// there: the owner of the folder could not read its contents, and may have led the operator there to learn them. The
/// owner can delete it.
pub fn write(folder: &Folder, stopped: &StopMark) -> Result<(), Error> {
    let path = folder.file(STOPPED);
    let failed = |cause| Error::new("write", &path, cause);
    // No link is followed there, and the folder must contain a lock file, so that it is certainly a watchdog's.
    if folder.belongs_to_another() && fs::symlink_metadata(folder.file(LOCK_NAME)).is_ok() {
        return files::replace(&path, b"", true).map_err(failed);
    }
    folder.ensure()?;
    match files::replace(&path, &stopped.to_bytes(), true) {
        // An empty mark fits on a full disk.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            files::replace(&path, b"", true).map_err(failed)
        }
        done => done.map_err(failed),
    }
}

/// Removes the mark, except for the watchdogs with the configurations `rest`.
pub fn remove(folder: &Folder, rest: Vec<PathBuf>) -> Result<(), Error> {
    let path = folder.file(STOPPED);
    if rest.is_empty() {
        return files::remove(&path).map_err(|cause| Error::new("remove", &path, cause));
    }
    // No empty mark here, even on a full disk: it would also apply to the watchdog that is being started.
    files::replace(&path, &StopMark::Configs(rest).to_bytes(), true).map_err(|cause| Error::new("write", &path, cause))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::child;
    use crate::testing::temp_state_folder;

    fn configs(configs: &[&str]) -> StopMark {
        StopMark::Configs(configs.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn the_mark_lists_the_stopped_configurations_until_it_is_removed() {
        let (_scene, folder) = temp_state_folder();
        assert_eq!(read(&folder), None);
        remove(&folder, Vec::new()).unwrap();
        let long = format!("/{}", "x".repeat(70_000));
        for (stopped, expected) in [
            (configs(&["/a.yaml"]), configs(&["/a.yaml"])),
            (configs(&["/a.yaml", "/b\n c.yaml"]), configs(&["/a.yaml", "/b\n c.yaml"])),
            (configs(&[&long]), StopMark::All),
            (StopMark::All, StopMark::All),
        ] {
            write(&folder, &stopped).unwrap();
            assert_eq!(read(&folder), Some(expected));
        }
        for text in ["", "\n", "yes\n", "a.yaml", "/a.yaml\0", &long] {
            fs::write(folder.file(STOPPED), text).unwrap();
            assert_eq!(read(&folder), Some(StopMark::All), "{text:?}");
        }
        remove(&folder, vec!["/b.yaml".into()]).unwrap();
        assert_eq!(read(&folder), Some(configs(&["/b.yaml"])));
        remove(&folder, Vec::new()).unwrap();
        symlink("/dev/zero", folder.file(STOPPED)).unwrap();
        assert_eq!(read(&folder), Some(StopMark::All));
        remove(&folder, Vec::new()).unwrap();
        assert_eq!(read(&folder), None);
    }

    #[cfg(feature = "full-tests")]
    #[test]
    fn a_mark_on_a_full_disk_applies_to_all() {
        let scene = tempfile::tempdir().unwrap();
        child::run_on_mount("store::stopped::tests::marks_on_a_full_disk", scene.path(), "size=64k");
    }

    /// Runs in a child of a_mark_on_a_full_disk_applies_to_all; does nothing otherwise.
    #[test]
    fn marks_on_a_full_disk() {
        let Some(path) = child::folder() else { return };
        let folder = Folder::open(&path).unwrap();
        fs::write(folder.file("large"), vec![0; 128 << 10]).unwrap_err();
        write(&folder, &configs(&["/a.yaml"])).unwrap();
        assert_eq!(read(&folder), Some(StopMark::All));
    }
}
