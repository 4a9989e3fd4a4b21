//! `stopped`: the mark of a watchdog that was stopped by hand, which `start --cron` respects. It names the
//! configurations whose watchdogs are meant; an empty one, as a full disk or an older version leaves it, means all.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::lock::LOCK;
use super::{Error, Folder, files};

const STOPPED: &str = "stopped";
/// Sixteen paths of the system's greatest length.
const MAX_SIZE: u64 = 64 << 10;
/// Between two paths: no path has it.
const BETWEEN: u8 = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Whichever would be started in the folder.
    All,
    /// Those with these configurations, absolute; at least one.
    Of(Vec<PathBuf>),
}

impl Stopped {
    fn bytes(&self) -> Vec<u8> {
        let Stopped::Of(configs) = self else { return Vec::new() };
        let paths: Vec<&[u8]> = configs.iter().map(|config| config.as_os_str().as_bytes()).collect();
        let bytes = paths.join(&BETWEEN);
        // What would not be read again must not be taken for something else.
        if bytes.len() as u64 > MAX_SIZE { Vec::new() } else { bytes }
    }

    /// What is no list of paths is for all: somebody has left it there so that nothing is started.
    fn parse(bytes: &[u8]) -> Stopped {
        let configs: Vec<&Path> =
            bytes.split(|&byte| byte == BETWEEN).map(|path| OsStr::from_bytes(path).as_ref()).collect();
        match configs.iter().all(|config| config.is_absolute()) {
            true => Stopped::Of(configs.into_iter().map(Path::to_path_buf).collect()),
            false => Stopped::All,
        }
    }
}

/// Whose watchdog was stopped by hand, if somebody's was. A mark that cannot be read is for all.
pub fn read(folder: &Folder) -> Option<Stopped> {
    let path = folder.file(STOPPED);
    fs::symlink_metadata(&path).ok()?;
    Some(files::read(&path, MAX_SIZE).map_or(Stopped::All, |bytes| Stopped::parse(&bytes)))
}

/// Leaves the mark in place of the one that is there. In another account's folder, too, where we may write: the mark is
/// empty then, for what that account could not read or may have led us to must say nothing; it can take it away.
pub fn mark(folder: &Folder, stopped: &Stopped) -> Result<(), Error> {
    let path = folder.file(STOPPED);
    let failed = |cause| Error::new("write", &path, cause);
    // No link is followed there, and only a folder that has been a watchdog's is taken for one.
    if folder.is_anothers() && fs::symlink_metadata(folder.file(LOCK)).is_ok() {
        return files::replace(&path, b"", true).map_err(failed);
    }
    folder.ensure()?;
    match files::replace(&path, &stopped.bytes(), true) {
        // A full disk has room for one that says nothing.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            files::replace(&path, b"", true).map_err(failed)
        }
        done => done.map_err(failed),
    }
}

/// Takes the mark away, but for the watchdogs with these configurations.
pub fn clear(folder: &Folder, rest: Vec<PathBuf>) -> Result<(), Error> {
    let path = folder.file(STOPPED);
    if rest.is_empty() {
        return files::remove(&path).map_err(|cause| Error::new("remove", &path, cause));
    }
    // An empty one would not do here, whatever the disk has room for: it is for the one that is started, too.
    files::replace(&path, &Stopped::Of(rest).bytes(), true).map_err(|cause| Error::new("write", &path, cause))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::child;
    use crate::testing::temp_state_folder;

    fn of(configs: &[&str]) -> Stopped {
        Stopped::Of(configs.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn it_says_whose_watchdog_was_stopped_until_it_is_taken_away() {
        let (_scene, folder) = temp_state_folder();
        assert_eq!(read(&folder), None);
        clear(&folder, Vec::new()).unwrap();
        let long = format!("/{}", "x".repeat(70_000));
        for (stopped, expected) in [
            (of(&["/a.yaml"]), of(&["/a.yaml"])),
            (of(&["/a.yaml", "/b\n c.yaml"]), of(&["/a.yaml", "/b\n c.yaml"])),
            (of(&[&long]), Stopped::All),
            (Stopped::All, Stopped::All),
        ] {
            mark(&folder, &stopped).unwrap();
            assert_eq!(read(&folder), Some(expected));
        }
        for text in ["", "\n", "yes\n", "a.yaml", "/a.yaml\0", &long] {
            fs::write(folder.file(STOPPED), text).unwrap();
            assert_eq!(read(&folder), Some(Stopped::All), "{text:?}");
        }
        clear(&folder, vec!["/b.yaml".into()]).unwrap();
        assert_eq!(read(&folder), Some(of(&["/b.yaml"])));
        clear(&folder, Vec::new()).unwrap();
        symlink("/dev/zero", folder.file(STOPPED)).unwrap();
        assert_eq!(read(&folder), Some(Stopped::All));
        clear(&folder, Vec::new()).unwrap();
        assert_eq!(read(&folder), None);
    }

    #[cfg(feature = "full-tests")]
    #[test]
    fn on_a_full_disk_it_is_for_all() {
        let scene = tempfile::tempdir().unwrap();
        child::run_on_mount("store::stopped::tests::marks_on_a_full_disk", scene.path(), "size=64k");
    }

    /// The other half of on_a_full_disk_it_is_for_all; run by itself it has nothing to do.
    #[test]
    fn marks_on_a_full_disk() {
        let Some(path) = child::folder() else { return };
        let folder = Folder::open(&path).unwrap();
        fs::write(folder.file("large"), vec![0; 128 << 10]).unwrap_err();
        mark(&folder, &of(&["/a.yaml"])).unwrap();
        assert_eq!(read(&folder), Some(Stopped::All));
    }
}
