//! Creates the state folder, keeps it private, and creates it again when it is deleted under a running watchdog.
//! No other module may join paths to it: the names of all files in it come from here.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::Error;

#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Prepares the folder at `path`: creates it with its parents if needed, makes it private, and checks that it is
    /// writable.
    /// Errors: it cannot be created or written to, belongs to another account, or is reached through a symbolic link
    /// that others may have made or that leads to a folder that others can write to.
    pub fn open(path: &Path) -> Result<Folder, Error> {
        let folder = Folder::at(path);
        folder.ensure()?;
        Ok(folder)
    }

    /// For readers: nothing is created, changed or checked.
    pub fn at(path: &Path) -> Folder {
        Folder { path: path.to_path_buf() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn belongs_to_another(&self) -> bool {
        let uid = rustix::process::geteuid().as_raw();
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() != uid)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates the folder again if it was deleted, and checks again that it is private.
    pub(super) fn ensure(&self) -> Result<(), Error> {
        self.prepare().map_err(|cause| Error::new("use state folder", &self.path, cause))
    }

    pub(super) fn subfolder(&self, name: &str) -> Result<PathBuf, Error> {
        self.ensure()?;
        let path = self.file(name);
        create_folder(&path).map_err(|cause| Error::new("use", &path, cause))?;
        Ok(path)
    }

    fn prepare(&self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw();
        let link = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata.is_symlink().then_some(metadata),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
                None
            }
            Err(cause) => return Err(cause),
        };
        if let Some(link) = &link
            && ![uid, 0].contains(&link.uid())
        {
            return Err(io::Error::other(format!("it is a symbolic link owned by uid {}", link.uid())));
        }
        let metadata = fs::metadata(&self.path)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if metadata.uid() != uid {
            let owner = metadata.uid();
            return Err(io::Error::other(format!("it belongs to uid {owner}, but this watchdog runs as uid {uid}")));
        }
        let mode = metadata.mode() & 0o7777;
        if link.is_some() && mode & 0o022 != 0 {
            // The folder was not made for the watchdog. Its open mode may be intended, and others may have left files
            // in it.
            return Err(io::Error::other(format!(
                "it is a symbolic link to a folder writable by others (mode {mode:03o})"
            )));
        }
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.path, Permissions::from_mode(mode & 0o700))?;
        }
        // Checked with access(2), not by writing: a full disk must not stop the watchdog.
        Ok(rustix::fs::access(&self.path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
    }
}

/// Creates the folder `path` unless it exists; a link or anything else in its place is an error.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        },
        done => done,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::os::unix::fs::{chown, symlink};

    use super::*;
    use crate::store::child;
    use crate::testing::temp_state_folder;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[track_caller]
    fn check_refused(path: &Path, reason: &str) {
        let error = Folder::open(path).unwrap_err().to_string();
        assert_eq!(error, format!("cannot use state folder {}: {reason}", path.display()));
    }

    #[test]
    fn the_folder_and_its_parents_are_created_for_the_owner_only() {
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().join("local/state/watchdog");
        Folder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_folder_open_to_others_is_made_private() {
        let scene = tempfile::tempdir().unwrap();
        fs::set_permissions(scene.path(), Permissions::from_mode(0o777)).unwrap();
        Folder::open(scene.path()).unwrap();
        assert_eq!(mode(scene.path()), 0o700);
    }

    #[test]
    fn a_link_is_followed_only_to_a_folder_that_nobody_else_can_write_to() {
        let scene = tempfile::tempdir().unwrap();
        let (folder, link) = (scene.path().join("folder"), scene.path().join("link"));
        fs::create_dir(&folder).unwrap();
        symlink(&folder, &link).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        Folder::open(&link).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o770)).unwrap();
        check_refused(&link, "it is a symbolic link to a folder writable by others (mode 770)");
        fs::remove_dir(&folder).unwrap();
        check_refused(&link, "no such file or directory");
    }

    #[test]
    fn a_file_instead_of_the_folder_is_refused() {
        let scene = tempfile::tempdir().unwrap();
        let path = scene.path().join("state");
        fs::write(&path, "").unwrap();
        check_refused(&path, "not a directory");
        check_refused(&path.join("below"), "not a directory");
    }

    #[test]
    fn a_folder_of_another_account_is_refused() {
        if !rustix::process::geteuid().is_root() {
            check_refused(Path::new("/"), &format!("it belongs to uid 0, but this watchdog runs as uid {}", own_uid()));
            return;
        }
        let scene = tempfile::tempdir().unwrap();
        chown(scene.path(), Some(12_345), None).unwrap();
        check_refused(scene.path(), "it belongs to uid 12345, but this watchdog runs as uid 0");
    }

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn an_unwritable_folder_is_refused() {
        let scene = tempfile::tempdir().unwrap();
        // Root can write to every folder.
        if !rustix::process::geteuid().is_root() {
            fs::set_permissions(scene.path(), Permissions::from_mode(0o500)).unwrap();
            check_refused(scene.path(), "permission denied");
        }
    }

    #[cfg(feature = "full-tests")]
    #[test]
    fn a_read_only_mount_is_refused() {
        let scene = tempfile::tempdir().unwrap();
        child::run_on_mount("store::folder::tests::refuses_a_read_only_mount", scene.path(), "ro");
    }

    /// Runs in a child of a_read_only_mount_is_refused; does nothing otherwise.
    #[test]
    fn refuses_a_read_only_mount() {
        let Some(path) = child::folder() else { return };
        check_refused(&path, "read-only file system");
    }

    #[test]
    fn a_deleted_folder_is_created_again() {
        let (_scene, folder) = temp_state_folder();
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(folder.subfolder("orders").unwrap().is_dir());
        assert_eq!(mode(folder.path()), 0o700);
    }

    #[test]
    fn a_link_instead_of_a_subfolder_is_refused() {
        let scene = tempfile::tempdir().unwrap();
        let folder = Folder::open(scene.path()).unwrap();
        symlink("/tmp", folder.file("incidents")).unwrap();
        assert!(folder.subfolder("incidents").is_err());
    }
}
