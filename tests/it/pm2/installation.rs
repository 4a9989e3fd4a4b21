//! Installs the real PM2 once below the target folder from the lock files in `tests/pm2`; later runs need no network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::sandbox::MISSING_PROGRAM;

#[derive(Clone, Copy)]
pub(crate) enum Version {
    Seven,
    Five,
}

pub(crate) struct Installed {
    /// The folder of the program `pm2`.
    pub(crate) bin: PathBuf,
    /// The folder of the program `node`.
    pub(crate) node: PathBuf,
}

impl Installed {
    /// A PATH with both and the usual system folders.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}:/usr/bin:/bin", self.bin.display(), self.node.display())
    }
}

/// Installs this version unless that was done already.
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
    // Only one test run may install at a time. Closing the file releases the lock.
    let lock = File::create(to.join("installing")).expect("a file below the target folder");
    lock.lock().expect("the lock file can be locked");
    let lock_file = fs::read(from.join("package-lock.json")).expect("a file of the repository");
    // The stamp is in node_modules, which npm removes first: a half-done installation has none.
    let stamp = to.join("node_modules/installed-by");
    if fs::read(&stamp).ok() != Some(lock_file.clone()) {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(from.join(name), to.join(name)).expect("a file of the repository, copied");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&to).stdin(Stdio::null());
        let output = npm.output().expect(MISSING_PROGRAM);
        assert!(output.status.success(), "npm ci in {} failed: {}", to.display(), text(&output.stderr));
        fs::write(stamp, lock_file).expect("a file below the target folder");
    }
    Installed { bin: to.join("node_modules/.bin"), node }
}

/// The folder of the real node binary: a wrapper in PATH (nvm, asdf) may not work elsewhere.
fn node() -> PathBuf {
    let output = Command::new("node").args(["-p", "process.execPath"]).stdin(Stdio::null()).output();
    let output = output.expect(MISSING_PROGRAM);
    let path = PathBuf::from(text(&output.stdout).trim());
    path.parent().filter(|folder| folder.is_absolute()).expect("node has a path").to_path_buf()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
