//! The file that takes a command's output: cutting it down to its first and last bytes, and overwriting what must not
//! be kept, while others write to it.
//! It must never lose what is kept, and never write through a link.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create};
use rustix::io::Errno;

/// Bytes that are kept of an output: the first 16 KiB, which tell what was tried, and the last 48, which tell how it
/// went. The line between them that tells what was cut comes on top.
pub const MAX_KEPT: u64 = HEAD + TAIL;
const HEAD: u64 = 16 << 10;
const TAIL: u64 = 48 << 10;
/// Room for the line between: its words and the largest number there is.
const NOTE_MAX: u64 = 64;
const NOTE: (&str, &str) = ("\n[at least ", " bytes cut out here]\n");
/// Takes the place of each byte that is overwritten.
pub const REDACTION: u8 = b'*';
/// No output is longer that is cut now and then; what is beyond is seen the next time.
const READ: u64 = 8 << 20;

/// Makes a new file for a command's output, open for reading and appending, for us alone (0600). What was at `path` is
/// replaced, not written over: whoever still has it open goes on writing to a file without a name.
/// Errors: what the system says to removing and creating it.
pub fn open_output(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

/// Makes a file in memory for a command's output, which never touches a disk and stops growing when the command has
/// ended. Nothing of the output is kept where the kernel has no such file (before Linux 3.17) or forbids it.
pub fn memory_output() -> io::Result<File> {
    match memfd_create("output of a command", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
        Ok(memory) => {
            // Cutting an output down needs writers that go on at its end, wherever that is by then.
            fcntl_setfl(&memory, OFlags::RDWR | OFlags::APPEND)?;
            Ok(memory.into())
        }
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => OpenOptions::new().read(true).write(true).open("/dev/null"),
        Err(error) => Err(error.into()),
    }
}

/// Keeps a file in memory from growing any more: nobody cuts it once its command has ended, and what goes on printing
/// into it, for whom it is a full disk, neither ends nor waits. A file on a disk has a name by which it is cut later.
pub(super) fn close(file: &File) {
    // What is no file in memory has no seals.
    let _ = fcntl_add_seals(file, SealFlags::GROW);
}

/// Cuts an output down to [`KEPT`] bytes if it is longer. Those who append to it may go on meanwhile; what they write
/// in that very moment may be cut too, uncounted. Answers how many bytes went.
/// Errors: what the system says to opening, reading and writing it; not a regular file.
pub fn trim_output(path: &Path) -> io::Result<u64> {
    trim(&open(path)?, MAX_KEPT)
}

/// Overwrites what `places` finds in an output, each byte with [`BLOT`]: the length stays, so those who append to it
/// lose nothing. `places` is asked for each piece of the output that was kept, and told whether something was cut out
/// before and after it.
/// Errors: as of [`trim_output`].
pub fn redact_output(path: &Path, places: impl Fn(&[u8], bool, bool) -> Vec<Range<usize>>) -> io::Result<()> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    (&file).take(READ).read_to_end(&mut bytes)?;
    let (head, note_length) =
        if bytes.len() as u64 > HEAD + NOTE_MAX { (HEAD, earlier_note(&file)?.1) } else { (0, 0) };
    let is_cut = note_length > 0;
    let (head, tail) = if is_cut { (head as usize, (head + note_length) as usize) } else { (0, 0) };
    for (start, piece, before, after) in [(0, &bytes[..head], false, is_cut), (tail, &bytes[tail..], is_cut, false)] {
        for place in places(piece, before, after) {
            let blot = vec![REDACTION; place.len()];
            file.write_all_at(&blot, (start + place.start) as u64)?;
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

/// Opens the file behind `file` once more, for writing at any place: Linux ignores the place where the file was opened
/// for appending, and a duplicate shares that with the command.
pub(super) fn reopen(file: &File) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Cuts the file down to [`KEPT`] bytes if it is longer than `limit`. The head stays where it is and only what follows
/// is moved, so at no time does a reader, or a crash, find less than what is kept.
pub(super) fn trim(file: &File, limit: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if length <= limit.max(MAX_KEPT) + NOTE_MAX {
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

/// The count in the line that an earlier cut left behind the head, and that line's length; zeros where there is none.
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

    /// Writes pieces of the given lengths (the first of `a`, the next of `b` …), cutting after each; then compares the
    /// count in the line between with what is really gone.
    #[track_caller]
    fn check(pieces: &[usize], cut_in_all: u64) {
        let folder = folder();
        let path = folder.path().join("output");
        let mut output = open_output(&path).expect("a new file");
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
    fn the_first_and_the_last_bytes_are_kept_and_the_rest_is_counted() {
        let kept = MAX_KEPT as usize;
        check(&[], 0);
        check(&[10], 0);
        check(&[kept], 0);
        check(&[kept + NOTE_MAX as usize], 0);
        check(&[kept + 100], 100);
        check(&[5_000_000], 5_000_000 - MAX_KEPT);
        check(&[kept + 100, 200], 300);
        check(&[200_000, 1, 200_000, 200_000], 600_001 - MAX_KEPT);
    }

    #[test]
    fn what_must_not_be_kept_is_overwritten_in_its_place() {
        let folder = folder();
        let path = folder.path().join("output");
        let find = |piece: &[u8], before: bool, after: bool| {
            let text = String::from_utf8_lossy(piece).into_owned();
            let mut found: Vec<_> = text.match_indices("secret").map(|(at, found)| at..at + found.len()).collect();
            found.extend((before && text.starts_with("ret")).then_some(0..3));
            found.extend((after && text.ends_with("sec")).then(|| text.len() - 3..text.len()));
            found
        };
        let mut output = open_output(&path).expect("a new file");
        output.write_all(b"ret a secret sec").expect("room on the disk");
        redact_output(&path, find).expect("a regular file");
        output.write_all(b", more").expect("it is open still");
        assert_eq!(std::fs::read_to_string(&path).expect("the output"), "ret a ****** sec, more");

        // One stands across the end of the head, another across the start of the tail.
        let (head, tail) = (HEAD as usize, TAIL as usize);
        let long = [
            "x".repeat(head - 3),
            "secret".into(),
            "y".repeat(100_000),
            "sec".into(),
            "ret".into(),
            "z".repeat(tail - 3),
        ];
        let mut output = open_output(&path).expect("a new file");
        output.write_all(long.concat().as_bytes()).expect("room on the disk");
        assert!(trim_output(&path).expect("a regular file") > 0);
        let cut = std::fs::read_to_string(&path).expect("the output");
        assert!(cut.contains("xsec\n[") && cut.contains("]\nretz"), "the cut goes through both");
        redact_output(&path, find).expect("a regular file");
        assert_eq!(
            std::fs::read_to_string(&path).expect("the output"),
            cut.replace("xsec\n", "x***\n").replace("\nretz", "\n***z")
        );
    }

    #[test]
    fn a_new_output_is_ours_alone_and_leaves_the_old_one_to_its_writer() {
        let folder = folder();
        let path = folder.path().join("output");
        let mut old = open_output(&path).expect("a new file");
        let new = open_output(&path).expect("another new file");
        old.write_all(b"from a daemon of the run before").expect("room on the disk");
        let found = new.metadata().expect("an open file");
        assert_eq!(found.len(), 0);
        assert_eq!(found.mode() & 0o777, 0o600);
    }

    #[test]
    fn links_are_neither_written_through_nor_cut() {
        let folder = folder();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("link"));
        std::fs::write(&victim, vec![b'v'; 200_000]).expect("room on the disk");
        symlink(&victim, &link).expect("a link");
        assert!(trim_output(&link).is_err());
        assert!(redact_output(&link, |_, _, _| Vec::new()).is_err());
        drop(open_output(&link).expect("the link is replaced"));
        assert_eq!(std::fs::metadata(&victim).expect("the victim").len(), 200_000);
        assert!(trim_output(folder.path()).is_err());
        assert!(trim_output(&folder.path().join("missing")).is_err());
    }
}
