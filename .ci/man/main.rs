//! Writes the man pages into the folder that is its argument.

mod pages;

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: man FOLDER"))?;
    fs::create_dir_all(&folder)?;
    let yaml = concat!(env!("CARGO_MANIFEST_DIR"), "/watchdog.yaml");
    fs::write(folder.join("watchdog-agent.1"), pages::command_page()?)?;
    fs::write(folder.join("watchdog.yaml.5"), pages::configuration_page(&fs::read_to_string(yaml)?))
}
