//! Writes files outside the state folder for other programs: the page and the metrics. A reader finds the old file or
//! the new one, never a part, and everybody can read it because a web server or a collector has its own account.
//! It must never write through a link that was planted under the name.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Error, files};

/// Readable by everybody, whatever the umask.
const MODE: u32 = 0o644;

/// Replaces the file at `path`.
/// Errors: it cannot be written; the old file is intact.
pub fn publish(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text).map_err(|cause| Error::new("write", path, cause))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary_path(path)?;
    // A new file instead of a truncated one: a link planted under this name must not be written through.
    files::remove(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(MODE)))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // On a full disk every byte counts. If this fails as well, the first failure is the one to report.
        let _ = files::remove(&temporary);
    }
    written
}

/// Next to the file and hidden: neither a web server's index nor a collector of `*.prom` shows it.
fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.new")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn everybody_can_read_the_file_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("status.html"), folder.path().join("other"));
        fs::write(&other, "untouched").unwrap();
        symlink(&other, &path).unwrap();
        symlink(&other, folder.path().join(".status.html.new")).unwrap();
        publish(&path, "one").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.is_file() && metadata.permissions().mode() & 0o777 == MODE);
        publish(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.html");
        fs::create_dir(&path).unwrap();
        let error = publish(&path, "one").unwrap_err();
        assert!(error.to_string().starts_with("cannot write /"), "{error}");
        assert!(publish(&folder.path().join("gone/status.html"), "one").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
