//! Reads a configuration and a file of variables, and checks who could have written them.
//! It must never return the text of a file that anyone but its reader and root can change: the text says what is run.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::outcome::describe_io_error;

/// In bytes, of a configuration and of a file of variables.
const MAX_SIZE: u64 = 1 << 20;
/// Some editors put it before UTF-8 text; it is not part of the text.
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// For a configuration: as its permissions say.
    Anyone,
    /// For a file with secrets: the owner only.
    Owner,
    /// For a configuration that is only asked for its state folder: root may also read that of another account.
    Root,
}

/// Reads a text of at most 1 MiB that nobody else could have written, without its byte order mark.
/// Errors: each names the path and how to fix it.
pub(super) fn read(path: &Path, readers: Readers) -> Result<String, Vec<String>> {
    let failed = |error: io::Error| vec![format!("cannot read {}: {}", path.display(), describe_io_error(&error))];
    let is_config = readers != Readers::Owner;
    let file = open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if is_config => {
            failed(error).into_iter().map(|text| format!("{text} (watchdog init writes one)")).collect()
        }
        _ => failed(error),
    })?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(vec![format!("cannot read {}: not a regular file", path.display())]);
    }
    let errors = find_unsafe_access(path, &metadata, readers).map_err(failed)?;
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_SIZE {
        return Err(vec![format!("cannot read {}: larger than 1 MiB", path.display())]);
    }
    if is_utf16(&bytes) {
        return Err(vec![format!("cannot read {}: text is UTF-16; save it as UTF-8", path.display())]);
    }
    if bytes.starts_with(BYTE_ORDER_MARK.as_bytes()) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        vec![format!("{}:{line}: not UTF-8 text", path.display())]
    })
}

/// Recognises UTF-16 of either byte order by its byte order mark, or by the zero byte of an ASCII character.
pub(crate) fn is_utf16(text: &[u8]) -> bool {
    matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=0xff, ..] | [1..=0xff, 0, ..])
}

/// Does not block if the path is a named pipe without a writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Checks the file and its folder; for a symbolic link, the folders of the link and of the file that it points to.
fn find_unsafe_access(path: &Path, file: &Metadata, readers: Readers) -> io::Result<Vec<String>> {
    let me = match rustix::process::geteuid().as_raw() {
        0 if readers == Readers::Root => file.uid(),
        me => me,
    };
    let mut errors = FileAccess::of(file).find_errors(path, me, readers);
    let mut folders = vec![parent_of(&std::path::absolute(path)?), parent_of(&path.canonicalize()?)];
    folders.dedup();
    for folder in folders {
        errors.extend(FileAccess::of(&folder.metadata()?).find_errors(&folder, me, Readers::Anyone));
    }
    Ok(errors)
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}

#[derive(Clone, Copy, Debug)]
struct FileAccess {
    mode: u32,
    owner: u32,
    is_folder: bool,
}

impl FileAccess {
    fn of(metadata: &Metadata) -> Self {
        FileAccess { mode: metadata.mode(), owner: metadata.uid(), is_folder: metadata.is_dir() }
    }

    /// For the user `me`. In a sticky folder such as /tmp only a file's owner, the folder's owner and root can replace
    /// the file, so it does not matter who else can write to the folder.
    fn find_errors(self, path: &Path, me: u32, readers: Readers) -> Vec<String> {
        let shown = path.display();
        let mut errors = Vec::new();
        let sticky = self.is_folder && self.mode & 0o1000 != 0;
        if self.mode & 0o002 != 0 && !sticky {
            let risk = "world-writable; anyone could change which commands are run";
            errors.push(format!("{shown}: {risk}. Fix: chmod o-w {shown}"));
        }
        if me == 0 && self.mode & 0o020 != 0 && !sticky {
            errors.push(format!("{shown}: group-writable; root runs commands from it. Fix: chmod g-w {shown}"));
        }
        if self.owner != me && self.owner != 0 {
            let fix = format!("Fix: chown {me} {shown}");
            errors.push(format!("{shown}: owned by uid {}, neither by you nor by root. {fix}", self.owner));
        }
        if readers == Readers::Owner && self.mode & 0o177 != 0 {
            let mode = self.mode & 0o7777;
            let risk = format!("mode {mode:04o}, but a file with secrets must be 0600 or stricter");
            errors.push(format!("{shown}: {risk}. Fix: chmod 600 {shown}"));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::config::tests::private_folder;

    #[track_caller]
    fn check(mode: u32, owner: u32, is_folder: bool, me: u32, expected: &[&str]) {
        let found = FileAccess { mode, owner, is_folder }.find_errors(Path::new("/x"), me, Readers::Anyone);
        let fixes: Vec<&str> = found.iter().filter_map(|error| error.rsplit(": ").next()).collect();
        assert_eq!(fixes, expected, "mode {mode:o}, owner {owner}, user {me}");
    }

    #[test]
    fn only_its_reader_and_root_may_write_to_a_file() {
        check(0o644, 7, false, 7, &[]);
        check(0o664, 7, false, 7, &[]);
        check(0o644, 0, false, 7, &[]);
        check(0o646, 7, false, 7, &["chmod o-w /x"]);
        check(0o1646, 7, false, 7, &["chmod o-w /x"]);
        check(0o664, 0, false, 0, &["chmod g-w /x"]);
        check(0o644, 8, false, 7, &["chown 7 /x"]);
        check(0o644, 7, false, 0, &["chown 0 /x"]);
        check(0o777, 7, true, 0, &["chmod o-w /x", "chmod g-w /x", "chown 0 /x"]);
        check(0o1777, 0, true, 7, &[]);
        check(0o1777, 0, true, 0, &[]);
        check(0o1777, 8, true, 7, &["chown 7 /x"]);
    }

    #[track_caller]
    fn reads(name: &str, readers: Readers, prepare: impl FnOnce(&Path), expected: Result<&str, &str>) {
        let folder = private_folder();
        prepare(folder.path());
        let found = read(&folder.path().join(name), readers).map_err(|errors| errors.join("; "));
        match (found, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(shown), Err(expected)) => {
                assert!(shown.contains(expected) && shown.contains(name), "{shown}");
            }
            (found, _) => panic!("{found:?}, not {expected:?}"),
        }
    }

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions set");
    }

    #[test]
    fn only_safe_files_are_read() {
        let w = "w.yaml";
        reads(w, Readers::Anyone, |folder| write(&folder.join(w), b"a", 0o644), Ok("a"));
        reads(w, Readers::Anyone, |folder| write(&folder.join(w), b"a", 0o646), Err("world-writable"));
        reads(w, Readers::Owner, |folder| write(&folder.join(w), b"a", 0o600), Ok("a"));
        reads(w, Readers::Owner, |folder| write(&folder.join(w), b"a", 0o400), Ok("a"));
        reads(w, Readers::Owner, |folder| write(&folder.join(w), b"a", 0o640), Err("chmod 600"));
        reads(w, Readers::Owner, |folder| write(&folder.join(w), b"a", 0o604), Err("chmod 600"));
        reads(w, Readers::Anyone, |_| (), Err("no such file"));
        reads(w, Readers::Anyone, |folder| fs::create_dir(folder.join(w)).expect("made"), Err("not a regular file"));
        reads(w, Readers::Anyone, |folder| write(&folder.join(w), b"a\n\xff", 0o644), Err(":2: not UTF-8"));
        let marked = "\u{feff}a\u{feff}".as_bytes();
        reads(w, Readers::Anyone, |folder| write(&folder.join(w), marked, 0o644), Ok("a\u{feff}"));
        for utf16 in [b"\xff\xfea\0", b"\xfe\xff\0a", b"a\0b\0", b"\0a\0b"] {
            reads(w, Readers::Owner, |folder| write(&folder.join(w), utf16, 0o600), Err("UTF-16; save it as UTF-8"));
        }
        let large = vec![b'a'; (1 << 20) + 1];
        reads(w, Readers::Anyone, |folder| write(&folder.join(w), &large, 0o644), Err("larger than 1 MiB"));
        reads(
            w,
            Readers::Anyone,
            |folder| write(&folder.join(w), &large[1..], 0o644),
            Ok(str::from_utf8(&large[1..]).expect("text")),
        );
    }

    #[test]
    fn a_named_pipe_does_not_block() {
        let make = |folder: &Path| {
            let pipe = std::process::Command::new("mkfifo").arg(folder.join("w.yaml")).status().expect("mkfifo");
            assert!(pipe.success());
        };
        reads("w.yaml", Readers::Anyone, make, Err("not a regular file"));
    }

    #[test]
    fn a_link_does_not_hide_a_writable_folder() {
        let make = |folder: &Path| {
            let open = folder.join("w.yaml-is-here");
            fs::create_dir(&open).expect("made");
            write(&open.join("real"), b"a", 0o644);
            fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("permissions set");
            symlink(open.join("real"), folder.join("w.yaml")).expect("linked");
        };
        reads("w.yaml", Readers::Anyone, make, Err("world-writable"));
    }
}
