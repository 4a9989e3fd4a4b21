//! The version of an installed PM2, read from its package.json. It must never run pm2, because every pm2 command starts
//! a daemon if none runs.

use std::path::Path;

use serde_json::Value;

use crate::commands::foreign;

/// Bytes. The package.json of PM2 7 has 4 KiB.
const MAX_PACKAGE_JSON: u64 = 256 << 10;

/// The version of the package `pm2` that contains the program. Symbolic links are followed.
pub(super) fn read_version(program: &Path) -> Option<String> {
    let real = program.canonicalize().ok()?;
    real.ancestors().skip(1).find_map(|folder| {
        let text = foreign::read(&folder.join("package.json"), MAX_PACKAGE_JSON)?;
        let package: Value = serde_json::from_str(&text).ok()?;
        let version = package.get("version")?.as_str()?.to_owned();
        (package.get("name")? == "pm2").then_some(version)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_version_is_read_from_the_package_that_contains_the_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("lib/node_modules/pm2/bin")).expect("made");
        fs::create_dir(at("bin")).expect("made");
        fs::write(at("lib/node_modules/pm2/bin/pm2"), "").expect("written");
        symlink(at("lib/node_modules/pm2/bin/pm2"), at("bin/pm2")).expect("linked");
        let found = || read_version(&at("bin/pm2"));
        assert_eq!(found(), None);
        fs::write(at("lib/package.json"), r#"{"name": "other", "version": "1.0.0"}"#).expect("written");
        assert_eq!(found(), None, "of another package");
        fs::write(at("lib/node_modules/pm2/package.json"), "no JSON").expect("written");
        assert_eq!(found(), None);
        fs::write(at("lib/node_modules/pm2/package.json"), r#"{"name": "pm2", "version": "7.0.4"}"#).expect("written");
        assert_eq!(found().as_deref(), Some("7.0.4"));
        fs::write(at("lib/node_modules/pm2/bin/package.json"), r#"{"type": "module"}"#).expect("written");
        assert_eq!(found().as_deref(), Some("7.0.4"), "past one without a name");
        assert_eq!(read_version(&at("gone")), None);
    }
}
