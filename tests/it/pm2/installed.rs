//! The real PM2, installed once below the target folder from the lock files in `tests/pm2`; later runs need no network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::place::NEEDED;

/// The versions that are tried.
#[derive(Clone, Copy)]
pub(crate) enum Version {
    Seven,
    Five,
}

/// What is needed of an installation.
pub(crate) struct Installed {
    /// The folder with the program `pm2`, and that with `node`.
    pub(crate) bin: PathBuf,
    pub(crate) node: PathBuf,
}

impl Installed {
    /// A PATH that finds both, and what a system has.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}:/usr/bin:/bin", self.bin.display(), self.node.display())
    }
}

/// PM2 in this version; installs it first where that was not done yet.
pub(crate) fn installed(version: Version) -> &'static Installed {
    static SEVEN: OnceLock<Installed> = OnceLock::new();
    static FIVE: OnceLock<Installed> = OnceLock::new();
    match version {
        Version::Seven => SEVEN.get_or_init(|| install("tests/pm2", "pm2-7")),
        Version::Five => FIVE.get_or_init(|| install("tests/pm2/v5", "pm2-5")),
    }
}

fn install(from: &str, to: &str) -> Installed {
    let node = node();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(to);
    fs::create_dir_all(&to).expect("a folder below the target folder");
    // Two runs of the tests must not install over each other. The lock ends with the file.
    let lock = File::create(to.join("installing")).expect("a file below the target folder");
    lock.lock().expect("a lock on a file of ours");
    let wanted = fs::read(from.join("package-lock.json")).expect("a file of the repository");
    // In node_modules, which npm removes before it begins: what is half done has no stamp.
    let stamp = to.join("node_modules/installed-by");
    if fs::read(&stamp).ok() != Some(wanted.clone()) {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(from.join(name), to.join(name)).expect("a file of the repository, copied");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&to).stdin(Stdio::null());
        let output = npm.output().expect(NEEDED);
        assert!(output.status.success(), "npm ci in {} failed: {}", to.display(), text(&output.stderr));
        fs::write(stamp, wanted).expect("a file below the target folder");
    }
    Installed { bin: to.join("node_modules/.bin"), node }
}

/// The folder of the node that the tests run with: a wrapper in PATH (nvm, asdf) may not work elsewhere.
fn node() -> PathBuf {
    let output = Command::new("node").args(["-p", "process.execPath"]).stdin(Stdio::null()).output();
    let output = output.expect(NEEDED);
    let path = PathBuf::from(text(&output.stdout).trim());
    path.parent().filter(|folder| folder.is_absolute()).expect("node has a path").to_path_buf()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
