//! Opens, reads and replaces files so that only their owner can read them.
//! It must never follow a symbolic link, block on a pipe, or read more than a limit.

use std::fs::{self, DirEntry, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::time::WallTime;

/// Identifies a file even after it was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Inode {
    dev: u64,
    ino: u64,
}

impl Inode {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Inode { dev: metadata.dev(), ino: metadata.ino() }
    }
}

pub(super) fn modified_at(metadata: &Metadata) -> WallTime {
    WallTime::from_ms(metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000))
}

/// An error of the kind `InvalidData`: the file is not what it should be.
pub(super) fn invalid_data(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Opens a regular file for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_regular(OpenOptions::new().read(true), path).map(|(file, _)| file)
}

/// Opens a regular file for reading and writing; creates it if it does not exist.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    open_regular(OpenOptions::new().read(true).write(true).create(true), path).map(|(file, _)| file)
}

/// Opens a regular file for reading and appending; creates it if it does not exist.
pub(super) fn open_to_append(path: &Path) -> io::Result<File> {
    open_regular(OpenOptions::new().read(true).append(true).create(true), path).map(|(file, _)| file)
}

/// Opens a new file without a name, which disappears when it is closed. Not every file system supports this.
pub(super) fn open_unnamed(folder: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).expect("flags of open(2) are an int");
    OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(folder)
}

/// Returns the file and its size. Opens without blocking: a pipe planted under the name would otherwise hang the
/// caller.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<(File, u64)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).expect("flags of open(2) are an int");
    let file = match options.mode(0o600).custom_flags(flags).open(path) {
        // The system's own text, "too many levels of symbolic links", would mislead.
        Err(cause) if cause.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(invalid_data("it is a symbolic link; links are not followed"));
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(invalid_data("it is not a regular file")),
    }
}

/// Reads the whole file; more than `max` bytes are `InvalidData`.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let (mut file, size) = open_regular(OpenOptions::new().read(true), path)?;
    match size > max {
        true => Err(invalid_data(format!("it is larger than {} MiB", max >> 20))),
        false => read_up_to(&mut file, size),
    }
}

/// Reads the next `size` bytes, with one system call where possible; fewer if the file has become shorter.
fn read_up_to(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let mut done = 0;
    while done < bytes.len() {
        match file.read(&mut bytes[done..]) {
            Ok(0) => bytes.truncate(done),
            Ok(more) => done += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Reads the last `max` bytes of `file`, starting at the beginning of a line.
pub(super) fn read_tail(file: &mut File, max: u64) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    // One byte more than `max` shows whether the cut falls between two lines.
    let start = len.saturating_sub(max.saturating_add(1));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = read_up_to(file, len - start)?;
    if start > 0 {
        let cut = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |newline| newline + 1);
        bytes.drain(..cut);
    }
    Ok(bytes)
}

/// Replaces the whole file at `path`: a reader finds the old content or the new, never a mixture. `durable`: after the
/// return, a power loss does not undo it.
pub(super) fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    replace_with(path, durable, |file| file.write_all(bytes))
}

/// Like [`replace`], for content that need not be in memory all at once.
pub(super) fn replace_with(
    path: &Path,
    durable: bool,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // A new file instead of a truncated one: a link planted under this name must not be written through.
    remove(&temporary)?;
    let written = write_and_rename(&temporary, path, durable, write);
    if written.is_err() {
        // On a full disk every byte counts. If this fails as well, the first failure is the one to report.
        let _ = remove(&temporary);
    }
    written
}

fn write_and_rename(
    temporary: &Path,
    path: &Path,
    durable: bool,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let mut buffer = BufWriter::new(&file);
    write(&mut buffer)?;
    buffer.flush()?;
    drop(buffer);
    if durable {
        file.sync_all()?;
    }
    fs::rename(temporary, path)?;
    match path.parent() {
        Some(folder) if durable => sync_folder(folder),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems cannot sync a folder; there the rename alone is as durable as possible.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

/// Removes a file or link; it is no error if there is none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Lists a folder without following links, neither in the folder nor in its place. Empty if it does not exist.
pub(super) fn list_folder(folder: &Path) -> io::Result<Vec<(DirEntry, Metadata)>> {
    let listed = match fs::symlink_metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        found => found.and_then(|_| fs::read_dir(folder)),
    };
    match listed {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.metadata().ok().map(|found| (entry, found))).collect())
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        fs::write(&path, &content).expect("written");
        assert_eq!(read(&path, 100_000).expect("within the limit"), content);
        assert_eq!(read(&path, 99_999).expect_err("beyond the limit").kind(), io::ErrorKind::InvalidData);
        let mut file = open(&path).expect("the file exists");
        assert_eq!(read_up_to(&mut file, 100_001).expect("readable"), content);
        fs::write(&path, "").expect("written");
        assert_eq!(read(&path, 0).expect("an empty file fits any limit"), b"");
    }
}
