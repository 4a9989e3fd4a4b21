//! How files are opened, read and replaced here: never through a symbolic link, never waiting on a pipe,
//! never more than a limit, readable by their owner only.

use std::fs::{self, DirEntry, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::time::WallTime;

/// Tells one file from another, whatever it is called by now.
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

pub(super) fn modified(metadata: &Metadata) -> WallTime {
    WallTime::from_ms(metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000))
}

/// What lies there is not what it should be; the kind is `InvalidData`.
pub(super) fn damaged(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Opens a regular file to read it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true), path).map(|(file, _)| file)
}

/// Opens a regular file to read it and to write anywhere in it, making it if there is none.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).write(true).create(true), path).map(|(file, _)| file)
}

/// Opens a regular file to read it and to write at its end, making it if there is none.
pub(super) fn open_to_append(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).append(true).create(true), path).map(|(file, _)| file)
}

/// Opens a new file without a name in a folder, which goes when it is closed. Not every file system has those.
pub(super) fn open_unnamed(folder: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).expect("flags of open(2) are an int");
    OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(folder)
}

/// The file and its size. Non-blocking, for a pipe planted under the name would hold up whoever opens it.
fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<(File, u64)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).expect("flags of open(2) are an int");
    let file = match options.mode(0o600).custom_flags(flags).open(path) {
        // What the system says here, "too many levels of symbolic links", would mislead.
        Err(cause) if cause.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(damaged("a symbolic link stands in its place"));
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(damaged("it is not a regular file")),
    }
}

/// The whole file; one of more than `max` bytes is `InvalidData`.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let (mut file, size) = regular(OpenOptions::new().read(true), path)?;
    match size > max {
        true => Err(damaged(format!("it is larger than {} MiB", max >> 20))),
        false => read_on(&mut file, size),
    }
}

/// The next `size` bytes, in one read where the system gives them at once; fewer where the file has become shorter.
fn read_on(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
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

/// The last `max` bytes of `file`, or all of them, from the beginning of a line on.
pub(super) fn tail(file: &mut File, max: u64) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    // One byte more than wanted tells whether the cut falls between two lines.
    let start = len.saturating_sub(max.saturating_add(1));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = read_on(file, len - start)?;
    if start > 0 {
        let cut = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |newline| newline + 1);
        bytes.drain(..cut);
    }
    Ok(bytes)
}

/// Replaces the file at `path` whole: whoever reads it, at whatever moment, finds the old content or the new.
/// `durable`: once this has returned, a loss of power does not undo it.
pub(super) fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    replace_by(path, durable, |file| file.write_all(bytes))
}

/// The same for what need not be in memory all at once.
pub(super) fn replace_by(
    path: &Path,
    durable: bool,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // A fresh file rather than a truncated one, so that a link planted under its name is not written through.
    remove(&temporary)?;
    let written = write_and_rename(&temporary, path, durable, write);
    if written.is_err() {
        // On a full disk every byte counts. Should this fail too, the first failure is the one to tell.
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
        // Some file systems cannot sync a folder and need not: there the rename itself is as durable as it gets.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done,
    }
}

/// Removes a file or link; that there is none is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What lies in a folder, links not followed, neither one in it nor one in its place. Nothing when there is none.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<(DirEntry, Metadata)>> {
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
        fs::write(&path, &content).expect("room");
        assert_eq!(read(&path, 100_000).expect("it is short enough"), content);
        assert_eq!(read(&path, 99_999).expect_err("it is too long").kind(), io::ErrorKind::InvalidData);
        let mut file = open(&path).expect("it is there");
        assert_eq!(read_on(&mut file, 100_001).expect("it has become shorter"), content);
        fs::write(&path, "").expect("room");
        assert_eq!(read(&path, 0).expect("nothing is enough"), b"");
    }
}
