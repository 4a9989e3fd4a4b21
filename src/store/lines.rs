//! Files of lines that only grow at their end, each with one that it was rotated to: bounded in size.
//! It must never glue a line to one that a crash or a full disk cut short, and never hold all that was ever written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::files::{self, Inode};
use super::{Error, Folder};

pub(super) struct Lines {
    pub(super) name: &'static str,
    pub(super) rotated: &'static str,
    /// A file that would grow beyond so many bytes is rotated.
    pub(super) max_size: u64,
}

impl Lines {
    /// Writes lines (without their newlines) at the end, all of them or none unless the process is killed meanwhile.
    /// Only whoever holds the lock may call this.
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
        // One write(2) for all, so that whoever follows the file sees whole lines; a second one only where the disk
        // took a part, to learn why.
        let written = file.write_all(bytes.as_bytes());
        if written.is_err() {
            // Takes a part back. Should that fail too, the next line begins with a newline.
            let _ = file.set_len(size);
        }
        written
    }

    /// The latest of both files, the older one first.
    pub(super) fn read(&self, folder: &Folder) -> Result<Vec<Vec<u8>>, Error> {
        // The newer one is opened first: a rotation in between then shows one file twice, and hides none.
        let newer = open(folder, self.name)?;
        let older = open(folder, self.rotated)?;
        let inode = |file: &Option<File>| file.as_ref()?.metadata().ok().map(|metadata| Inode::of(&metadata));
        let older = if inode(&older) == inode(&newer) { None } else { older };
        let names = [(older, self.rotated), (newer, self.name)];
        let there = names.into_iter().filter_map(|(file, name)| Some((file?, name)));
        there
            .map(|(mut file, name)| {
                // It exceeds its size only by the lines of one single round that are longer than that.
                files::tail(&mut file, 2 * self.max_size).map_err(|cause| Error::new("read", &folder.file(name), cause))
            })
            .collect()
    }
}

fn open(folder: &Folder, name: &str) -> Result<Option<File>, Error> {
    match files::open(&folder.file(name)) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::new("read", &folder.file(name), cause)),
    }
}
