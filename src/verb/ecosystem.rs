//! Ecosystem files: where one may lie that describes a process, and whether it does. It must never run one: they are
//! programs.

use std::path::{Path, PathBuf};

use super::strangers;

/// What PM2 and people call them, the usual ones first.
const NAMES: [&str; 14] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "ecosystem.config.json",
    "ecosystem.yml",
    "ecosystem.yaml",
    "ecosystem.config.yml",
    "ecosystem.config.yaml",
    "process.json",
    "process.yml",
    "pm2.config.js",
    "pm2.config.cjs",
    "pm2.json",
];

/// More than any such file has.
const LONGEST: u64 = 1 << 20;

/// The file that describes the process `name`: in one of these folders or above them, in the home folder at the
/// highest; outside of it up to two folders above.
pub(super) fn find(name: &str, folders: &[&Path], home: Option<&Path>) -> Option<PathBuf> {
    let places = folders.iter().filter(|folder| folder.is_absolute()).flat_map(|folder| above(folder, home));
    let files = places.flat_map(|place| NAMES.map(|file| place.join(file)));
    files.into_iter().find(|file| mentions(file, name))
}

/// The folder and those above it that may have to do with it.
fn above<'f>(folder: &'f Path, home: Option<&Path>) -> Vec<&'f Path> {
    let is_mine = |path: &&Path| home.is_some_and(|home| path.starts_with(home));
    if is_mine(&folder) {
        return folder.ancestors().take_while(is_mine).collect();
    }
    folder.ancestors().take(3).filter(|path| path.parent().is_some()).collect()
}

/// Whether the file has this name in it, as a word of its own.
pub(super) fn mentions(file: &Path, name: &str) -> bool {
    strangers::read(file, LONGEST).is_some_and(|text| has_word(&text, name))
}

/// Names stand in quotes, in YAML also without: `./app.js` is no mention of `app`.
fn has_word(text: &str, name: &str) -> bool {
    let opens = |c: char| c.is_whitespace() || "'\"`:".contains(c);
    let closes = |c: char| c.is_whitespace() || "'\"`,}".contains(c);
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
            before.is_none_or(opens) && after.is_none_or(closes)
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, expected: bool) {
        assert_eq!(has_word(text, name), expected, "{name} in {text}");
    }

    #[test]
    fn a_name_is_found_as_a_word_only() {
        check("{ name: 'sav-backend', script: 'server.js' }", "sav-backend", true);
        check("{\"name\":\"sav-backend\"}", "sav-backend", true);
        check("  - name: sav-backend\n", "sav-backend", true);
        check("name: `sav-backend`", "sav-backend", true);
        check("{ name: 'sav-backend-2' }", "sav-backend", false);
        check("{ name: 'my-sav-backend' }", "sav-backend", false);
        check("{ script: './app.js' }", "app", false);
        check("apps: [{script: 'app/index.js'}]", "app", false);
        check("name: 'größe'", "größe", true);
        check("name: ''", "", false);
    }

    #[test]
    fn it_is_looked_for_above_the_script_up_to_the_home_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("home");
        let deep = home.join("app/dist/src");
        fs::create_dir_all(&deep).expect("made");
        let found = || find("api", &[&deep], Some(&home));
        assert_eq!(found(), None);
        for (place, text, expected) in [
            ("ecosystem.config.js", "name: 'api'", None), // above the home folder
            ("home/app/ecosystem.config.js", "name: 'other'", None),
            ("home/ecosystem.json", "{\"name\": \"api\"}", Some("home/ecosystem.json")),
            ("home/app/ecosystem.yml", "- name: api", Some("home/app/ecosystem.yml")),
            ("home/app/ecosystem.config.cjs", "name: \"api\"", Some("home/app/ecosystem.config.cjs")),
            ("home/app/dist/src/pm2.config.js", "name: 'api'", Some("home/app/dist/src/pm2.config.js")),
        ] {
            fs::write(folder.path().join(place), text).expect("written");
            assert_eq!(found(), expected.map(|path| folder.path().join(path)), "after {place}");
        }
        fs::create_dir_all(folder.path().join("srv/app")).expect("made");
        fs::write(folder.path().join("srv/ecosystem.json"), "\"api\"").expect("written");
        let elsewhere = folder.path().join("srv/app");
        let above = Some(folder.path().join("srv/ecosystem.json"));
        assert_eq!(find("api", &[Path::new(""), &elsewhere], Some(&home)), above);
    }
}
