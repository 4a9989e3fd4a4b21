//! Files of lines that are only appended to, each with one rotated predecessor, so that their size is bounded.
//! It must never join a line to one that a crash or a full disk cut short, nor read more than the two files may hold.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::files::{self, Inode};
use super::{Error, Folder};

pub(super) struct LineFile {
    pub(super) name: &'static str,
    pub(super) rotated: &'static str,
    /// A file that would grow beyond this many bytes is rotated.
    pub(super) max_size: u64,
}

impl LineFile {
    /// Appends lines (without their newlines): all of them or none, unless the process is killed meanwhile. Only the
    /// holder of the lock may call this.
    pub(super) fn append(&self, folder: &Folder, lines: &[String]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        folder.ensure()?;
        let failed = |cause| Error::new("write", &folder.file(self.name), cause);
        self.append_text(folder, &(lines.join("\n") + "\n")).map_err(failed)
    }

    fn append_text(&self, folder: &Folder, text: &str) -> io::Result<()> {
        let path = folder.file(self.name);
        let mut file = files::open_to_append(&path)?;
        let mut size = file.metadata()?.len();
        if size > 0 && size.saturating_add(text.len() as u64) > self.max_size {
            fs::rename(&path, folder.file(self.rotated))?;
            file = files::open_to_append(&path)?;
            size = 0;
        }
        let torn = size > 0 && {
            let mut last = [0];
            file.read_exact_at(&mut last, size - 1)?;
            last != *b"\n"
        };
        let bytes = if torn { format!("\n{text}") } else { text.to_string() };
        // One write(2) for all lines, so that a reader that follows the file sees whole lines. A second one happens
        // only after a partial write, and reveals its cause.
        let written = file.write_all(bytes.as_bytes());
        if written.is_err() {
            // Undoes a partial write. If that fails as well, the next append begins with a newline.
            let _ = file.set_len(size);
        }
        written
    }

    /// The end of both files, the older one first.
    pub(super) fn read(&self, folder: &Folder) -> Result<Vec<Vec<u8>>, Error> {
        // The newer file is opened first: a rotation in between then shows one file twice, but hides none.
        let newer = open_existing(folder, self.name)?;
        let older = open_existing(folder, self.rotated)?;
        let inode = |file: &Option<File>| file.as_ref()?.metadata().ok().map(|metadata| Inode::of(&metadata));
        let older = if inode(&older) == inode(&newer) { None } else { older };
        let names = [(older, self.rotated), (newer, self.name)];
        let present = names.into_iter().filter_map(|(file, name)| Some((file?, name)));
        present
            .map(|(mut file, name)| {
                // A file exceeds its maximum only by a single append that is longer than the maximum.
                files::read_tail(&mut file, 2 * self.max_size)
                    .map_err(|cause| Error::new("read", &folder.file(name), cause))
            })
            .collect()
    }
}

fn open_existing(folder: &Folder, name: &str) -> Result<Option<File>, Error> {
    match files::open(&folder.file(name)) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::new("read", &folder.file(name), cause)),
    }
}
