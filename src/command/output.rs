//! The file with a command's output: trims it to its first and last bytes and overwrites secrets in it, while commands
//! write to it. It must never lose the bytes to be kept, nor write through a link.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create};
use rustix::io::Errno;

/// Bytes that are kept of an output: the first 16 KiB, which show what was tried, and the last 48 KiB, which show how
/// it went. The line between them with the number of bytes cut is not counted.
pub const MAX_OUTPUT: u64 = HEAD + TAIL;
const HEAD: u64 = 16 << 10;
const TAIL: u64 = 48 << 10;
/// The longest line between head and tail, with the largest number.
const NOTE_MAX: u64 = 64;
const NOTE: (&str, &str) = ("\n[at least ", " bytes cut out here]\n");
/// Replaces each redacted byte.
pub const REDACTION: u8 = b'*';
/// How much of an output is searched for secrets. Regular trimming keeps outputs shorter, so the rest is searched the
/// next time.
const MAX_READ: u64 = 8 << 20;

/// Creates the file for a command's output, open for reading and appending, with mode 0600. An existing file at `path`
/// is unlinked and not overwritten, so a process that has it open writes to a file without a name.
/// Errors: as of unlinking and creating the file.
pub fn create_output(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

/// Creates an in-memory file for a command's output. It stops growing when the command has ended. Where the kernel has
/// no memfd (before Linux 3.17) or forbids it, the output is discarded.
pub fn create_memory_output() -> io::Result<File> {
    match memfd_create("output of a command", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
        Ok(memory) => {
            // After a trim, writers must continue at the new end of the file.
            fcntl_setfl(&memory, OFlags::RDWR | OFlags::APPEND)?;
            Ok(memory.into())
        }
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => OpenOptions::new().read(true).write(true).open("/dev/null"),
        Err(error) => Err(error.into()),
    }
}

/// Stops an in-memory file from growing, because nothing trims it after its command has ended. A process that still
/// writes gets an error, as from a full disk, but is neither blocked nor killed. A file on disk is trimmed later by its
/// path.
pub(super) fn seal(file: &File) {
    // The error is ignored: only an in-memory file has seals.
    let _ = fcntl_add_seals(file, SealFlags::GROW);
}

/// Trims an output to its head and tail if it is longer than both, and returns how many bytes were cut. Processes may
/// append meanwhile; what they write during the trim may be cut too, without being counted.
/// Errors: as of opening, reading and writing the file; it is not a regular file.
pub fn trim_output(path: &Path) -> io::Result<u64> {
    trim(&open(path)?, MAX_OUTPUT)
}

/// Overwrites each byte of the ranges that `find_secrets` returns with [`REDACTION`]. The length does not change, so
/// processes that append lose nothing. `find_secrets` is called for each kept piece of the output, with whether bytes
/// were cut before and after the piece.
/// Errors: as of [`trim_output`].
pub fn redact_output(path: &Path, find_secrets: impl Fn(&[u8], bool, bool) -> Vec<Range<usize>>) -> io::Result<()> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    (&file).take(MAX_READ).read_to_end(&mut bytes)?;
    let (head, note_length) =
        if bytes.len() as u64 > HEAD + NOTE_MAX { (HEAD, earlier_note(&file)?.1) } else { (0, 0) };
    let is_cut = note_length > 0;
    let (head, tail) = if is_cut { (head as usize, (head + note_length) as usize) } else { (0, 0) };
    for (start, piece, before, after) in [(0, &bytes[..head], false, is_cut), (tail, &bytes[tail..], is_cut, false)] {
        for range in find_secrets(piece, before, after) {
            let redaction = vec![REDACTION; range.len()];
            file.write_all_at(&redaction, (start + range.start) as u64)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// Opens the file of a descriptor a second time, for writes at any offset. A duplicate would share the append mode with
/// the command, and in append mode Linux ignores the offset of a write.
pub(super) fn reopen(file: &File) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Trims the file to its head and tail if it is longer than `limit`. The head stays in place and only the tail is
/// moved, so a reader or a crash never finds less than the bytes to be kept.
pub(super) fn trim(file: &File, limit: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if length <= limit.max(MAX_OUTPUT) + NOTE_MAX {
        return Ok(0);
    }
    let (cut_before, note_length) = earlier_note(file)?;
    let cut = length - TAIL - HEAD - note_length;
    let mut rest = format!("{}{}{}", NOTE.0, cut_before + cut, NOTE.1).into_bytes();
    let note_length = rest.len();
    rest.resize(note_length + TAIL as usize, 0);
    file.read_exact_at(&mut rest[note_length..], length - TAIL)?;
    file.write_all_at(&rest, HEAD)?;
    file.set_len(HEAD + rest.len() as u64)?;
    Ok(cut)
}

/// The count in the line that an earlier trim wrote after the head, and the length of that line; zeros without one.
fn earlier_note(file: &File) -> io::Result<(u64, u64)> {
    let mut bytes = [0; NOTE_MAX as usize];
    file.read_exact_at(&mut bytes, HEAD)?;
    let text = String::from_utf8_lossy(&bytes);
    let count = text.strip_prefix(NOTE.0).and_then(|text| text.split_once(NOTE.1)).map(|(count, _)| count);
    match count.and_then(|digits| Some((digits.len(), digits.parse().ok()?))) {
        Some((digits, count)) => Ok((count, (NOTE.0.len() + digits + NOTE.1.len()) as u64)),
        None => Ok((0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    /// Writes pieces of the given lengths (the first of `a`, the next of `b` …), trims after each, and compares the
    /// count in the line between head and tail with the number of bytes that are gone.
    #[track_caller]
    fn check(pieces: &[usize], cut_in_all: u64) {
        let folder = folder();
        let path = folder.path().join("output");
        let mut output = create_output(&path).expect("a new file");
        let mut written = Vec::new();
        for (piece, letter) in pieces.iter().zip(b'a'..) {
            let bytes = vec![letter; *piece];
            output.write_all(&bytes).expect("room on the disk");
            written.extend(bytes);
            trim_output(&path).expect("a regular file");
        }
        let kept = std::fs::read(&path).expect("the output");
        if cut_in_all == 0 {
            assert_eq!(kept, written);
            return;
        }
        let note = format!("\n[at least {cut_in_all} bytes cut out here]\n");
        let (head, tail) = (HEAD as usize, TAIL as usize);
        assert_eq!(kept.len(), head + note.len() + tail);
        assert!(kept[..head] == written[..head]);
        assert_eq!(String::from_utf8_lossy(&kept[head..head + note.len()]), note);
        assert!(kept[head + note.len()..] == written[written.len() - tail..]);
    }

    #[test]
    fn an_output_is_trimmed_to_its_head_and_tail_with_a_count() {
        let kept = MAX_OUTPUT as usize;
        check(&[], 0);
        check(&[10], 0);
        check(&[kept], 0);
        check(&[kept + NOTE_MAX as usize], 0);
        check(&[kept + 100], 100);
        check(&[5_000_000], 5_000_000 - MAX_OUTPUT);
        check(&[kept + 100, 200], 300);
        check(&[200_000, 1, 200_000, 200_000], 600_001 - MAX_OUTPUT);
    }

    #[test]
    fn secrets_are_overwritten_in_place() {
        let folder = folder();
        let path = folder.path().join("output");
        let find = |piece: &[u8], before: bool, after: bool| {
            let text = String::from_utf8_lossy(piece).into_owned();
            let mut found: Vec<_> = text.match_indices("secret").map(|(at, found)| at..at + found.len()).collect();
            found.extend((before && text.starts_with("ret")).then_some(0..3));
            found.extend((after && text.ends_with("sec")).then(|| text.len() - 3..text.len()));
            found
        };
        let mut output = create_output(&path).expect("a new file");
        output.write_all(b"ret a secret sec").expect("room on the disk");
        redact_output(&path, find).expect("a regular file");
        output.write_all(b", more").expect("it is still open");
        assert_eq!(std::fs::read_to_string(&path).expect("the output"), "ret a ****** sec, more");

        // One secret crosses the end of the head, another the start of the tail.
        let (head, tail) = (HEAD as usize, TAIL as usize);
        let long = [
            "x".repeat(head - 3),
            "secret".into(),
            "y".repeat(100_000),
            "sec".into(),
            "ret".into(),
            "z".repeat(tail - 3),
        ];
        let mut output = create_output(&path).expect("a new file");
        output.write_all(long.concat().as_bytes()).expect("room on the disk");
        assert!(trim_output(&path).expect("a regular file") > 0);
        let cut = std::fs::read_to_string(&path).expect("the output");
        assert!(cut.contains("xsec\n[") && cut.contains("]\nretz"), "both secrets are cut");
        redact_output(&path, find).expect("a regular file");
        assert_eq!(
            std::fs::read_to_string(&path).expect("the output"),
            cut.replace("xsec\n", "x***\n").replace("\nretz", "\n***z")
        );
    }

    #[test]
    fn a_new_output_is_private_and_does_not_touch_the_old_file() {
        let folder = folder();
        let path = folder.path().join("output");
        let mut old = create_output(&path).expect("a new file");
        let new = create_output(&path).expect("another new file");
        old.write_all(b"from a daemon of an earlier run").expect("room on the disk");
        let found = new.metadata().expect("an open file");
        assert_eq!(found.len(), 0);
        assert_eq!(found.mode() & 0o777, 0o600);
    }

    #[test]
    fn links_are_not_followed() {
        let folder = folder();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
        std::fs::write(&victim, vec![b'v'; 200_000]).expect("room on the disk");
        symlink(&victim, &link).expect("a link");
        assert!(trim_output(&link).is_err());
        assert!(redact_output(&link, |_, _, _| Vec::new()).is_err());
        drop(create_output(&link).expect("the link is replaced"));
        assert_eq!(std::fs::metadata(&victim).expect("the victim").len(), 200_000);
        assert!(trim_output(folder.path()).is_err());
        assert!(trim_output(&folder.path().join("missing")).is_err());
    }
}
